//! Each rule fires on the bad form and is silent on the good one.

use super::*;

const LISTED: [&str; 1] = ["nginx"];

fn findings_at(path: &str, text: &str) -> Vec<String> {
    let source = Source::parse(Path::new(path), text);
    check_source(&source, &LISTED)
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// What is found in a module of a library, and in its tests.
fn findings(text: &str) -> Vec<String> {
    findings_at("crates/x/src/lease.rs", text)
}

#[track_caller]
fn refused(text: &str, what: &str) {
    let found = findings(text);
    assert_eq!(found.len(), 1, "{text}\n{found:?}");
    assert!(found[0].contains(what), "{found:?}");
}

#[track_caller]
fn accepted(text: &str) {
    assert_eq!(findings(text), Vec::<String>::new(), "{text}");
}

fn in_tests(text: &str) -> String {
    format!("#[cfg(test)]\nmod tests {{\n{text}\n}}\n")
}

fn function(lines: usize) -> String {
    format!("fn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2))
}

#[test]
fn a_finding_reads_file_line_what_and_what_to_do_instead() {
    let found = findings("fn f() {\n    x.unwrap();\n}\n");
    let expected = "crates/x/src/lease.rs:2: `unwrap()` outside tests: return the error";
    assert!(found[0].starts_with(expected), "{found:?}");
}

#[test]
fn a_function_may_have_70_lines_and_not_71() {
    accepted(&function(70));
    refused(&function(71), "`f` has 71 lines");
}

#[test]
fn a_file_may_have_800_lines_without_its_tests_and_not_801() {
    accepted(&("const A: u8 = 0;\n".repeat(800) + &in_tests(&"const B: u8 = 0;\n".repeat(100))));
    refused(&"const A: u8 = 0;\n".repeat(801), "801 lines");
}

#[test]
fn names_that_say_nothing_are_refused() {
    refused("mod utils;\n", "module name `utils`");
    refused("struct NodeManager;\n", "type name `NodeManager`");
    refused("enum Info {}\n", "type name `Info`");
    refused("trait Handler {}\n", "trait name `Handler`");
    accepted("mod lease;\nstruct ConnectionHandler;\nenum CommonName {}\ntype Database = ();\n");
    accepted("impl Body for Reply {\n    type Data = Bytes;\n}\n");
    let file = findings_at("crates/x/src/helper.rs", "");
    assert!(file[0].contains("file or folder name `helper`"), "{file:?}");
}

#[test]
fn unwrap_is_for_tests() {
    refused("fn f() { x.unwrap(); }\n", "unwrap()");
    refused("fn f() { x\n    .unwrap(); }\n", "unwrap()");
    accepted(&in_tests("fn f() { x.unwrap(); }"));
    accepted("fn f() { x.unwrap_or(1); x.expect(\"it holds .unwrap()\"); } // .unwrap()\n");
}

#[test]
fn tests_do_not_sleep() {
    refused(
        &in_tests("fn f() { std::thread::sleep(second); }"),
        "wait_until",
    );
    refused(
        &in_tests("async fn f() { sleep (second).await; }"),
        "wait_until",
    );
    accepted("async fn f() { tokio::time::sleep(second).await; }\n");
    accepted(&in_tests("fn sleep_is_short() { clock.sleep_until(x); }"));
}

#[test]
fn what_is_unfinished_is_refused() {
    refused("fn f() { todo!() }\n", "not in this version");
    refused(
        "fn f() { unimplemented!(\"later\") }\n",
        "not in this version",
    );
    for word in ["TODO", "FIXME", "XXX"] {
        refused(&format!("// {word}: later\nfn f() {{}}\n"), word);
    }
    accepted("// a todo list, XXXL\nfn todo() { print(\"TODO!\"); }\n");
}

#[test]
fn tests_are_neither_ignored_nor_meant_to_panic() {
    refused(
        &in_tests("#[test]\n#[ignore = \"slow\"]\nfn f() {}"),
        "mainstay_testkit::skip",
    );
    refused(
        &in_tests("#[test]\n#[should_panic(expected = \"x\")]\nfn f() {}"),
        "should_panic",
    );
    accepted(&in_tests("#[test]\nfn f() { ignore(); }"));
}

#[test]
fn channels_are_bounded() {
    refused(
        "fn f() { let (a, b) = mpsc::unbounded_channel(); }\n",
        "unbounded channel",
    );
    refused(
        "fn f() { let (a, b) = unbounded(); }\n",
        "unbounded channel",
    );
    accepted("fn f() { let (a, b) = mpsc::channel(WAITING_MAX); let unbounded = 1; }\n");
}

#[test]
fn imports_name_what_is_used() {
    refused("use std::io::*;\n", "glob import");
    refused("pub use crate::{a, lease::*};\n", "glob import");
    refused("use super::*;\n", "glob import");
    refused(&in_tests("use proptest::prelude::*;"), "glob import");
    accepted(&in_tests("use super::*;"));
    accepted("fn f() -> impl Sized + use<> { x(a, *b) }\n");
    accepted("use std::{fs, io::{self, Read as _}};\nfn f() { a * b; }\n");
}

#[test]
fn a_crate_begins_with_what_it_is() {
    for root in [
        "crates/x/src/lib.rs",
        "crates/x/src/main.rs",
        "crates/x/src/bin/orders.rs",
    ] {
        assert_eq!(findings_at(root, "//! Leases.\n"), Vec::<String>::new());
        assert!(findings_at(root, "mod lease;\n")[0].contains("begin the crate with"));
    }
    accepted("struct Lease;\n");
}

#[test]
fn tests_start_programs_that_set_up_installs() {
    refused(
        &in_tests("fn f() { Command::new(\"nginx\"); }"),
        "by its bare name",
    );
    refused(
        &in_tests("fn f() { Command::new(\n\"nginx\"); }"),
        "by its bare name",
    );
    accepted("fn f() { Command::new(\"nginx\"); }\n");
    accepted(&in_tests(
        "fn f() { Command::new(mainstay_testkit::program(\"nginx\")); }",
    ));
    accepted(&in_tests(
        "fn f() { Command::new(env!(\"CARGO_BIN_EXE_mainstay\")); }",
    ));
}

#[test]
fn programs_that_tests_start_are_in_the_list_of_set_up() {
    refused(
        "fn f() { mainstay_testkit::program(\"gimp\"); }\n",
        "`gimp` is not installed by set-up",
    );
    refused(
        "use mainstay_testkit::{TempDir, program};\nfn f() { program(\"gimp\"); }\n",
        "`gimp`",
    );
    refused(
        "fn f() { mainstay_testkit::program(name); }\n",
        "as a literal",
    );
    accepted(
        "use mainstay_testkit::program;\nfn f() { program(\"nginx\"); spec.program(\"gimp\"); }\n",
    );
    accepted("fn program(name: &str) {}\nfn f() { program(\"gimp\"); }\n");
}

#[test]
fn lines_do_not_end_in_white_space() {
    let file = |text: &str| TextFile {
        path: PathBuf::from("a.md"),
        text: text.to_owned(),
    };
    assert_eq!(white_space(&file("a\nb\n")), []);
    let found = white_space(&file("a\nb \nc\t\nd\r\n"));
    assert_eq!(
        found.iter().map(|finding| finding.line).collect::<Vec<_>>(),
        [2, 3, 4]
    );
}

#[test]
fn the_tree_calls_only_programs_that_set_up_installs() {
    let files = tree::text_files(tree::root()).unwrap();
    let listed: Vec<&str> = mainstay_testkit::programs()
        .map(|program| program.name)
        .collect();
    let mut findings = Vec::new();
    for source in tree::sources(&files) {
        rules::programs(&source, &listed, &mut findings);
    }
    assert_eq!(findings, []);
}
