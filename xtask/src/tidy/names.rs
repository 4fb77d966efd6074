//! Names that say nothing.

use super::{Finding, Path, PathBuf, Source, finding};

/// Say nothing wherever they stand in a name.
const BANNED_PARTS: [&str; 6] = ["util", "utils", "helper", "helpers", "misc", "manager"];
/// Say nothing when they are the whole name.
const BANNED_ALONE: [&str; 7] = ["common", "handler", "data", "info", "process", "do", "impl"];

pub(super) fn check(source: &Source, findings: &mut Vec<Finding>) {
    let path = source.path();
    let file = path.file_stem().map(PathBuf::from);
    let dirs = path.parent().unwrap_or(Path::new(""));
    for name in dirs.iter().map(PathBuf::from).chain(file) {
        report(
            source,
            1,
            "file or folder",
            &name.to_string_lossy(),
            findings,
        );
    }
    for (keyword, what) in [
        ("mod", "module"),
        ("struct", "type"),
        ("enum", "type"),
        ("trait", "trait"),
        ("type", "type"),
    ] {
        for at in source.words(keyword) {
            let line = source.line_at(at);
            // Indented, it is the associated type of a trait, whose author chose the name.
            if keyword == "type" && source.code_line(line).starts_with(' ') {
                continue;
            }
            let Some(name) = source.name_after(at) else {
                continue;
            };
            report(source, line, what, &name, findings);
        }
    }
}

fn report(source: &Source, line: usize, what: &str, name: &str, findings: &mut Vec<Finding>) {
    if is_banned(name) {
        let text = format!(
            "the {what} name `{name}` says nothing: name the noun of the domain that it is"
        );
        findings.push(finding(source, line, text));
    }
}

fn is_banned(name: &str) -> bool {
    let words = words(name);
    let alone = words.len() == 1 && BANNED_ALONE.contains(&words[0].as_str());
    alone
        || words
            .iter()
            .any(|word| BANNED_PARTS.contains(&word.as_str()))
}

/// The lower-case words of a `snake_case`, `kebab-case` or `CamelCase` name.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before_is_lower = false;
    for c in name.chars() {
        let boundary = !c.is_alphanumeric() || (c.is_uppercase() && before_is_lower);
        if boundary {
            words.push(String::new());
        }
        if c.is_alphanumeric() {
            let last = words.last_mut().expect("it begins with one word");
            last.extend(c.to_lowercase());
        }
        before_is_lower = c.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}
