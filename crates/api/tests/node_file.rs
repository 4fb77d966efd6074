//! The node file against files of cases, its schema and its page; made anew with
//! `MAINSTAY_REWRITE=1`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use mainstay_api::file::{Code, FileProblems};
use mainstay_api::node::{self, NodeFile, Role};
use mainstay_model::GatewayLimits;
use mainstay_model::gateway::AccessLog;

fn parse(text: &str) -> Result<NodeFile, FileProblems> {
    node::parse(text, "node.toml", Path::new("/etc/mainstay"), &|name| {
        (name == "PASSWORD").then(|| "correct horse".to_owned())
    })
}

fn problems(text: &str) -> FileProblems {
    parse(text).expect_err(text)
}

/// Compares the file of cases with what it should be, or writes it.
fn hold(name: &str, say: impl Fn(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/node_file")
        .join(name);
    let content = fs::read_to_string(&path).expect("the cases are there");
    let mut expected = String::new();
    for block in content.split("=== ").skip(1) {
        let (title, rest) = block.split_once('\n').expect("a title ends with its line");
        let (text, _) = rest.split_once("---\n").expect("a case has a result");
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
        assert!(!said.contains("secret"), "a password is shown: {said}");
        said
    });
}

#[test]
fn what_is_right_becomes_what_the_daemon_may_hold() {
    hold("accepted.txt", |text| {
        let file = parse(text).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(file.gateway.settings.limits.check(), Ok(()));
        let said = format!("{file:#?}");
        assert!(
            !said.contains("correct horse"),
            "a password is shown: {said}"
        );
        said
    });
}

#[test]
fn an_empty_file_gets_the_safe_defaults() {
    let file = parse("").unwrap_or_else(|problems| panic!("{problems}"));
    let all = BTreeSet::from([Role::Control, Role::Agent, Role::Gateway]);
    assert_eq!(file.roles, all);
    assert_eq!(file.state, PathBuf::from("/var/lib/mainstay"));
    let gateway = file.gateway;
    assert_eq!(gateway.http.to_string(), "0.0.0.0:80");
    assert!(gateway.stats.is_some_and(|at| at.ip().is_loopback()));
    assert_eq!(gateway.settings.limits, GatewayLimits::default());
    assert_eq!(gateway.settings.access_log, AccessLog::On);
}

#[test]
fn a_node_file_is_known_by_its_keys() {
    for text in ["roles = []", "[gateway]", "[listen.a]", "[api]", "[vip.a]"] {
        assert!(node::is_node_file(text), "{text}");
    }
    for text in [
        "",
        "[service.a]",
        "gateway = 1\n[service.a]",
        "= [",
        "exec = 1",
    ] {
        assert!(!node::is_node_file(text), "{text}");
    }
}

/// For each key of the schema, a date, which no key takes: it must be refused for its type, so that
/// the parser knows it. And a key that nobody knows must be answered with the schema's keys.
#[test]
fn the_schema_and_the_parser_know_the_same_keys() {
    let schema = node::schema();
    let mut tables = vec![(String::new(), &schema)];
    let kinds = schema["$defs"].as_object().expect("the schema has parts");
    for kind in kinds.values().filter(|kind| kind["properties"].is_object()) {
        let path = kind["x-key"].as_str().expect("each table says where it is");
        tables.push((format!("{}.", path.replace("NAME", "x")), kind));
    }
    assert!(tables.len() >= 4, "file, api, gateway, limits");
    for (path, table) in tables {
        let keys = table["properties"].as_object().expect("checked");
        for key in keys.keys() {
            let told = problems(&format!("{path}{key} = 1979-05-27"));
            let mut told = told.problems().iter();
            let told = told.find(|problem| problem.key == format!("{path}{key}"));
            let code = told.map(|problem| problem.code);
            assert_eq!(code, Some(Code::WrongType), "{path}{key}");
        }
        let told = problems(&format!("{path}zzzzzzzzzz = 1"));
        let mut told = told.problems().iter();
        let told = told.find(|problem| problem.code == Code::UnknownKey);
        let help = told.and_then(|problem| problem.help.clone());
        let help = help.expect("it has help");
        let known = help.trim_start_matches("known here: ").split(", ");
        let described: BTreeSet<&str> = keys.keys().map(String::as_str).collect();
        assert_eq!(known.collect::<BTreeSet<_>>(), described, "{path}");
    }
}

#[test]
fn the_reference_page_is_what_the_schema_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/node-file.md");
    let content = fs::read_to_string(&path).unwrap_or_default();
    hold_file(&path, &content, &node::reference());
}
