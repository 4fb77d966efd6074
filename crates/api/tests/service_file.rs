//! What a user types, and what Mainstay says to it.
//!
//! `service_file/refused.txt` and `service_file/accepted.txt` hold cases as text: a title, a file,
//! what is said or what was read. `MAINSTAY_REWRITE=1` writes what is expected anew; the diff is
//! then what to review.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use mainstay_api::file::{self, Code, FileProblems, Look, limits};
use mainstay_model::ServiceSpec;
use mainstay_model::service::{AddressSpec, Check, Step};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_oneof, proptest};

fn env(name: &str) -> Option<String> {
    match name {
        "DB_URL" => Some("postgres://db/{shop}".to_owned()),
        "EVERY" => Some("2s".to_owned()),
        "HOME" => Some("/home/anna".to_owned()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Vec<ServiceSpec>, FileProblems> {
    file::parse(text, "shop.toml", Path::new("/srv/shop"), &env)
}

fn problems(text: &str) -> FileProblems {
    parse(text).expect_err("the file is refused")
}

/// A service that is right, with `keys` added.
fn with(keys: &str) -> String {
    format!("[service.orders]\nexec = [\"./orders\"]\n{keys}\n")
}

fn only(text: &str) -> ServiceSpec {
    let mut services = parse(text).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(services.len(), 1);
    services.remove(0)
}

/// What the two files of cases are made of.
struct Case<'t> {
    title: &'t str,
    text: &'t str,
}

fn cases(content: &str) -> Vec<Case<'_>> {
    let blocks = content.split("=== ").skip(1);
    let cases = blocks.map(|block| {
        let (title, rest) = block.split_once('\n').expect("a title ends with its line");
        let (text, _) = rest.split_once("---\n").expect("a case has a result");
        Case { title, text }
    });
    cases.collect()
}

/// Compares the file of cases with what it should be, or writes it.
fn hold(name: &str, say: impl Fn(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/service_file")
        .join(name);
    let content = fs::read_to_string(&path).expect("the cases are there");
    let mut expected = String::new();
    for Case { title, text } in cases(&content) {
        let said = say(text);
        writeln!(expected, "=== {title}\n{text}---\n{}\n", said.trim_end()).expect("writable");
    }
    hold_file(&path, &content, &format!("{}\n", expected.trim_end()));
}

fn hold_file(path: &Path, content: &str, expected: &str) {
    if std::env::var_os("MAINSTAY_REWRITE").is_some() {
        fs::write(path, expected).expect("writable");
        return;
    }
    for (line, (is, should)) in content.lines().zip(expected.lines()).enumerate() {
        assert_eq!(is, should, "{}:{}", path.display(), line + 1);
    }
    assert_eq!(content.len(), expected.len(), "{}", path.display());
}

#[test]
fn every_mistake_is_told_at_its_place_with_what_to_do() {
    hold("refused.txt", |text| {
        let mut said = String::new();
        for problem in problems(text).problems() {
            let place = problem.place.as_ref().expect("a parsed file has places");
            let (line, column, code) = (place.line, place.column, problem.code.as_str());
            let (key, message) = (&problem.key, &problem.message);
            writeln!(said, "{line}:{column} {code} [{key}] {message}").expect("writable");
            if let Some(help) = &problem.help {
                writeln!(said, "    {help}").expect("writable");
            }
        }
        said
    });
}

#[test]
fn what_is_right_becomes_a_specification_that_survives_json() {
    hold("accepted.txt", |text| {
        let services = parse(text).unwrap_or_else(|problems| panic!("{problems}"));
        let mut said = String::new();
        for service in services {
            assert_eq!(service.check(), Ok(()), "the API takes what a file may say");
            let json = serde_json::to_string(&service).expect("a specification is JSON");
            assert_eq!(
                serde_json::from_str::<ServiceSpec>(&json).ok(),
                Some(service)
            );
            writeln!(said, "{json}").expect("writable");
        }
        said
    });
}

#[test]
fn a_service_with_nothing_but_a_program_gets_the_safe_defaults() {
    let spec = only(&with(""));
    assert_eq!(spec.exec[0].to_string(), "/srv/shop/orders");
    assert_eq!(spec.dir, "/srv/shop");
    assert_eq!((spec.instances, spec.health.check), (1, Check::Tcp));
    assert_eq!((spec.address, spec.http, spec.user), (None, None, None));
    let text = r#"
        instances = 1
        health    = { tcp = true, every = "1s", timeout = "1s", fall = 2, rise = 1, start = "60s", restart = "60s" }
        rollout   = { step = "25%", hold = "5s", deadline = "60s", progress = "10m", on_failure = "rollback" }
        drain     = "30s"
        grace     = "10s"
        log       = { size = "10MiB", keep = 3 }
        needs     = []
    "#;
    assert_eq!(
        only(&with(text)),
        only(&with("")),
        "the defaults written out"
    );
}

#[test]
fn tabs_a_byte_order_mark_and_foreign_line_ends_change_neither_meaning_nor_places() {
    let plain = with("address = \"auto\"");
    let expected = only(&plain);
    assert_eq!(only(&plain.replace('\n', "\r\n")), expected);
    assert_eq!(only(&format!("\u{feff}{plain}")), expected);
    assert_eq!(only(&plain.replace(" = ", "\t=\t")), expected);

    let place = |text: &str| {
        let problems = problems(text);
        let place = problems.problems()[0]
            .place
            .clone()
            .expect("it has a place");
        (place.line, place.column)
    };
    let wrong = with("drain = 30");
    assert_eq!(place(&wrong), (3, 9));
    assert_eq!(place(&wrong.replace('\n', "\r\n")), (3, 9));
    assert_eq!(place(&format!("\u{feff}{wrong}")), (3, 9));
    assert_eq!(place("\u{feff}x = 1"), (1, 1));
    assert_eq!(
        place(&with("env = { A = \"ä\u{1f980}\", \"b\" = 1 }")),
        (3, 25),
        "characters, not bytes"
    );
}

#[test]
fn what_a_variable_holds_never_becomes_a_place_of_a_template() {
    let spec = only(&with("env = { DB = \"${DB_URL}:{port}\" }"));
    let listen = "127.0.0.1:20000".parse().expect("an address");
    let filled = spec.env["DB"].fill(listen, |_| None);
    assert_eq!(filled.as_deref(), Ok("postgres://db/{shop}:20000"));
}

/// For each key of the schema, a date, which no key takes: it must be refused for its type, so that
/// the parser knows it. And a key that nobody knows must be answered with the schema's keys.
#[test]
fn the_schema_and_the_parser_know_the_same_keys() {
    let schema = file::schema();
    let mut tables = vec![(String::new(), &schema)];
    let kinds = schema["$defs"].as_object().expect("the schema has parts");
    for kind in kinds.values().filter(|kind| kind["properties"].is_object()) {
        let path = kind["x-key"].as_str().expect("each table says where it is");
        tables.push((format!("{}.", path.replace("NAME", "x")), kind));
    }
    assert_eq!(
        tables.len(),
        18,
        "file, service, http, redirect, retry, sticky, rewrite with path and changes, timeouts, \
         queue, health, rollout with canary, log, slo, schedule, limits"
    );
    for (path, table) in tables {
        let keys: Vec<_> = table["properties"]
            .as_object()
            .expect("checked")
            .keys()
            .collect();
        for key in &keys {
            let told = problems(&format!("{path}{key} = 1979-05-27"));
            let told = told
                .problems()
                .iter()
                .find(|problem| problem.key == format!("{path}{key}"));
            assert_eq!(
                told.map(|problem| problem.code),
                Some(Code::WrongType),
                "{path}{key}"
            );
        }
        let told = problems(&format!("{path}zzzzzzzzzz = 1"));
        let told = told
            .problems()
            .iter()
            .find(|problem| problem.code == Code::UnknownKey);
        let help = told
            .and_then(|problem| problem.help.clone())
            .expect("it has help");
        let mut known: Vec<_> = help
            .trim_start_matches("known here: ")
            .split(", ")
            .collect();
        let mut described: Vec<_> = keys.iter().map(|key| key.as_str()).collect();
        known.sort_unstable();
        described.sort_unstable();
        assert_eq!(known, described, "{path}");
        let required = table["required"].as_array().map_or(0, Vec::len);
        let expected = match path.as_str() {
            "service.x.slo." => 2,
            "" | "service.x." | "service.x.schedule." | "service.x.redirect." => 1,
            _ => 0,
        };
        assert_eq!(required, expected, "{path}");
    }
}

#[test]
fn the_reference_page_is_what_the_schema_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/service-file.md");
    let content = fs::read_to_string(&path).unwrap_or_default();
    hold_file(&path, &content, &file::reference());
}

#[test]
fn the_examples_of_the_page_about_routing_are_read() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/routing.md");
    let page = fs::read_to_string(page).expect("it is there");
    let blocks = page.split("```toml\n").skip(1);
    let mut read = 0;
    for block in blocks {
        let (text, _) = block.split_once("```").expect("a block has an end");
        parse(text).unwrap_or_else(|problems| panic!("{problems}"));
        read += 1;
    }
    assert_eq!(read, 6);
}

#[test]
fn a_file_with_more_mistakes_than_anybody_reads_is_cut_off_and_counted() {
    let mut text = String::from("[service.orders]\nexec = [\"a\"]\n");
    for number in 0..1200 {
        writeln!(text, "unknown{number} = 1").expect("writable");
    }
    let problems = problems(&text);
    assert_eq!(problems.problems().len(), limits::PROBLEMS_KEPT_MAX);
    let said = problems.render(Look::Plain);
    assert!(
        said.ends_with("and 1150 more\nshop.toml: 1200 problems\n"),
        "{said}"
    );
    assert_eq!(said.matches("error[").count(), limits::PROBLEMS_SHOWN_MAX);
}

#[test]
fn a_file_at_its_limits_is_read_and_one_beyond_is_refused() {
    let services = |count: usize| {
        (0..count).fold(String::new(), |text, n| {
            text + &format!("[service.s{n}]\nexec=['a']\n")
        })
    };
    assert_eq!(
        parse(&services(limits::SERVICES_MAX)).map(|s| s.len()),
        Ok(500)
    );
    assert_eq!(problems(&services(501)).problems()[0].code, Code::TooMuch);
    let arguments = |count: usize| format!("[service.a]\nexec = [{}]", "'x',".repeat(count));
    assert!(parse(&arguments(limits::ARGV_MAX)).is_ok());
    assert_eq!(problems(&arguments(257)).problems()[0].code, Code::TooMuch);
    let deep = format!("x = {}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(problems(&deep).problems()[0].code, Code::Syntax);
}

#[test]
fn programs_read_the_same_problems_as_a_list() {
    let list = serde_json::to_value(problems(&with("drain = \"30\""))).expect("JSON");
    let expected = serde_json::json!([{
        "file": "shop.toml", "line": 3, "column": 9, "key": "service.orders.drain",
        "severity": "error", "code": "value",
        "message": "a duration needs a unit: ms, s, m, h or d, as in `10s`; found `30`",
        "help": "did you mean `30s`?",
    }]);
    assert_eq!(list, expected);
}

#[test]
fn on_a_terminal_each_problem_is_shown_with_its_line_and_what_it_contradicts() {
    let text = "[service.orders]
exec  = [\"./orders\"]
helth = { get = \"/health\" }
http  = { host = \"shop.example.com\" }

[service.payments]
exec  = [\"ä\", 1]
http  = { host = \"shop.example.com\" }
";
    let expected = r#"  × service.orders.helth: unknown key `helth`
   ╭─[shop.toml:3:1]
 3 │ helth = { get = "/health" }
   · ─────
   ╰────
  help: did you mean `health`?

  × service.payments.exec[1]: expected a text, found the number `1`
   ╭─[shop.toml:7:15]
 7 │ exec  = ["ä", 1]
   ·               ─
   ╰────
  help: write it in quotes: "1"

  × service.payments.http: the route of shop.example.com with path / is already that of
  │ `service.orders.http` (line 4)
   ╭─[shop.toml:4:1]
 4 │ http  = { host = "shop.example.com" }
   · ──┬─
   ·   ╰── already here
   ╰────
   ╭─[shop.toml:8:1]
 8 │ http  = { host = "shop.example.com" }
   · ────
   ╰────
  help: give one of them another `host` or `path`

shop.toml: 3 problems
"#;
    let drawn = problems(text).render(Look::Graphical);
    assert_eq!(drawn, expected, "\n{drawn}");
}

#[test]
fn nothing_in_a_file_moves_the_terminal_on_which_its_problems_are_shown() {
    for text in [
        "x = \u{1b}[31m",
        "\"\u{202e}evil\" = 1",
        "service.\"\\u001b[2J\" = 1",
        "[service.a]\nexec = [\"a\"]\ndrain = \"\\u001b[2J\"",
    ] {
        for look in [Look::Plain, Look::Graphical] {
            let shown = problems(text).render(look);
            let moves = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
            assert!(!shown.contains(moves), "{shown:?}");
        }
    }
}

/// A directory of its own, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("service-file-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).expect("a directory for the test");
        Self(path)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).expect("writable");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left over is in the build directory, and is named after this process.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn unreadable(path: &Path) -> String {
    let problems = file::read(path, &env).expect_err("the file cannot be read");
    assert_eq!(problems.count(), 1);
    problems.problems()[0].message.clone()
}

#[test]
fn a_file_that_cannot_be_read_is_told_with_its_reason() {
    let directory = Directory::new();
    let missing = unreadable(&directory.0.join("shop.toml"));
    assert_eq!(
        missing,
        "cannot read the service file: there is no such file"
    );
    assert_eq!(
        unreadable(&directory.0),
        "cannot read the service file: it is a directory"
    );
    let long = directory.write("long.toml", vec![b' '; 1024 * 1024 + 1]);
    assert_eq!(unreadable(&long), "a service file has at most 1 MiB");

    let latin1 = directory.write("latin1.toml", b"[service.a]\nexec = [\"caf\xe9\"]\n");
    let problems = file::read(&latin1, &env).expect_err("it is not UTF-8");
    let problem = &problems.problems()[0];
    assert_eq!(problem.message, "the file is not UTF-8: byte 0xe9");
    let place = problem
        .place
        .as_ref()
        .map(|place| (place.line, place.column));
    assert_eq!(place, Some((2, 13)));
    assert!(
        problems
            .render(Look::Graphical)
            .contains("latin1.toml:2:13")
    );
    for look in [Look::Plain, Look::Graphical] {
        let empty = file::read(&directory.write("empty.toml", ""), &env).expect_err("empty");
        assert!(empty.render(look).contains("the file declares no service"));
    }
}

#[test]
fn a_program_built_anew_makes_another_version_and_one_that_is_missing_only_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let directory = Directory::new();
    let path = directory.write("shop.toml", with("[service.b]\nexec = [\"./plain\"]"));
    let warned = |read: &file::Read| {
        let keys = read
            .warnings
            .problems()
            .iter()
            .map(|warning| warning.key.clone());
        keys.collect::<Vec<_>>()
    };
    let read = file::read(&path, &env).expect("it is right");
    assert_eq!(warned(&read), ["service.orders.exec", "service.b.exec"]);
    assert_eq!(read.services[0].artifact, None);

    directory.write("plain", "not executable");
    let program = directory.write("orders", "#!/bin/sh\n");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("ours");
    let first = file::read(&path, &env).expect("it is right");
    assert_eq!(warned(&first), ["service.b.exec"]);
    assert!(
        first
            .warnings
            .render(Look::Plain)
            .contains("is no executable file")
    );
    assert_eq!(
        first.services[0].artifact.map(|artifact| artifact.len),
        Some(10)
    );

    fs::write(&program, "#!/bin/sh\nexit 1\n").expect("ours");
    let second = file::read(&path, &env).expect("it is right");
    assert_ne!(first.services[0], second.services[0]);

    let marked = directory.write("marked.toml", "\u{feff}service.b.exec = [\"./ä\"]");
    let marked = file::read(&marked, &env).expect("it is right");
    let shown = marked.warnings.render(Look::Graphical);
    assert!(shown.contains("marked.toml:1:18"), "{shown}");

    let found = |name: &str| (name == "PATH").then(|| directory.0.display().to_string());
    let bare = directory.write("bare.toml", "[service.a]\nexec = [\"orders\", \"{port}\"]");
    let bare = file::read(&bare, &found).expect("it is right");
    assert_eq!(bare.services[0].artifact, second.services[0].artifact);
}

#[test]
fn a_changed_script_of_an_interpreter_is_a_change_of_the_service() {
    let directory = Directory::new();
    let interpreter = directory.write("python9", "#!/bin/sh\n");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&interpreter, executable).expect("ours");
    let found = |name: &str| (name == "PATH").then(|| directory.0.display().to_string());
    let script = directory.write("server.py", "print(1)\n");
    let exec = r#"exec = ["python9", "-u", "server.py", "{port}"]"#;
    let path = directory.write("shop.toml", format!("[service.a]\n{exec}"));
    let read = || file::read(&path, &found).expect("it is right").services;
    let first = read();
    assert_eq!(first, read());
    fs::write(&script, "print(12)\n").expect("ours");
    assert_ne!(first, read());
}

#[test]
fn relative_paths_begin_at_the_directory_of_the_file() {
    let directory = Directory::new();
    let path = directory.write("shop.toml", with("dir = \"./sub/./deep\""));
    let read = file::read(&path, &env).expect("it is right");
    let expected = directory.0.join("sub/deep");
    assert_eq!(Path::new(&read.services[0].dir), expected);
    assert_eq!(
        read.services[0].exec[0].to_string(),
        format!("{}/orders", expected.display())
    );
}

#[test]
fn the_example_of_the_design_is_read_as_it_stands() {
    let text = r#"
        [service.orders]
        exec      = ["./orders"]
        user      = "shop"
        env       = { DB = "${DB_URL}", PAY = "{address:payments}" }
        address   = "127.96.0.10:8080"
        http      = { host = "orders.example.com", path = "/" }
        health    = { get = "/health", every = "1s", fall = 2, rise = 1 }
        instances = 3
        rollout   = { step = "25%", hold = "10s", on_failure = "rollback" }
        drain     = "30s"
        slo       = { success = "99.95%", p99 = "250ms" }
        [service.payments]
        exec      = ["./payments"]
        address   = "auto"
    "#;
    let services = parse(text).unwrap_or_else(|problems| panic!("{problems}"));
    let [orders, payments] = services.as_slice() else {
        panic!("two services");
    };
    assert_eq!(orders.addressed().collect::<Vec<_>>(), [&payments.name]);
    let address = "127.96.0.10:8080".parse().expect("an address");
    assert_eq!(orders.address, Some(AddressSpec::Fixed(address)));
    assert_eq!(payments.address, Some(AddressSpec::Auto));
    assert_eq!(orders.slo.map(|slo| slo.success_ppm), Some(999_500));
    assert!(matches!(orders.rollout.step, Step::Percent(percent) if percent.get() == 25));
}

/// Whatever is said lies inside the text, can be shown, and is in the order of the file.
fn check_anything(text: &str) {
    let Err(problems) = parse(text) else {
        return;
    };
    let inside = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut last = 0;
    for problem in problems.problems() {
        for place in problem.place.iter().chain(&problem.also) {
            assert!(inside.get(place.span.clone()).is_some(), "{place:?}");
            let lines = inside[..place.span.start].matches('\n').count();
            assert_eq!(place.line, lines + 1);
        }
        let start = problem.place.as_ref().map_or(0, |place| place.span.start);
        assert!(start >= last);
        last = start;
    }
    assert!(!problems.is_empty());
    problems.render(Look::Graphical);
    problems.render(Look::Plain);
}

/// Pieces of service files, so that chance gets deep into them.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("[service.a]\n".to_owned()),
        Just("[service.\"\u{fc}\"]\n".to_owned()),
        Just("exec = [\"x\"]\n".to_owned()),
        Just("[service.a.health]\n".to_owned()),
        "(exec|dir|user|env|address|http|health|instances|rollout|drain|log|slo|image) = ",
        "(health|rollout|log|slo|http)\\.(get|tcp|every|fall|step|hold|size|keep|p99|path) = ",
        "\"(\\$\\{[A-Z]{0,3}(:-)?|\\{(port|host|address:[a-c])?\\}?|[0-9]{1,3}(s|ms|%|MiB)?|/|127.0.0.1:1)\"\n",
        "(-?[0-9]{1,12}|true|1\\.5|1979-05-27|\\[\\]|\\{ *\\})\n",
        "\\{ (get|host|step|size|A) = \"\\PC{0,4}\" \\}\n",
        "[\\[\\]{}=,.#'\"\n\r\u{feff}]",
        "\\PC{0,5}",
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused_at_a_place_inside_it(text in any::<String>()) {
        check_anything(&text);
    }

    #[test]
    fn any_heap_of_pieces_is_read_or_refused_at_a_place_inside_it(text in pieces()) {
        check_anything(&text);
    }
}
