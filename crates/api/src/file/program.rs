//! What is run, where, and with which environment.

use std::path::{Path, PathBuf};

use mainstay_model::Template;
use toml::de::DeValue;

use super::limits;
use super::problem::Code;
use super::refusal::{Refused, quoted};
use super::secret::{self, Variables};
use super::variable::{braces_doubled, is_variable_name};
use super::walk::Entry;

/// What to do when there is no program.
pub(super) const EXEC_HELP: &str = "write the program and its arguments, each as a text of its own: \
    `exec = [\"./orders\", \"--port\", \"{port}\"]`";

/// A text that is a path. A shell's `~` is refused: nothing here replaces it.
fn check_path(text: &str) -> Result<(), Refused> {
    if text.is_empty() {
        return Err(Refused::value("a path must not be empty"));
    }
    if text == "~" || text.starts_with("~/") {
        let rest = &text[1..];
        let refused = Refused::value(format!(
            "`~` stands for no directory here; found {}",
            quoted(text)
        ));
        return Err(refused.help(format!("did you mean `${{HOME}}{rest}`?")));
    }
    if text.contains('\0') {
        return Err(Refused::value("a path holds no NUL character"));
    }
    Ok(())
}

/// A directory, made absolute from `base`.
pub(super) fn directory(entry: &Entry<'_, '_>, base: &str) -> Option<String> {
    entry.text("a directory's path", "`dir = \"/srv/shop\"`", |text| {
        check_path(text)?;
        // Through its components a path loses its `.` and doubled slashes; `..` stays, since a
        // symbolic link may stand before it.
        let path: PathBuf = Path::new(base).join(text).components().collect();
        Ok(path.to_string_lossy().into_owned())
    })
}

/// A program and its arguments; a relative program begins at `dir`.
pub(super) fn argv(entry: &Entry<'_, '_>, dir: &str) -> Option<Vec<Template>> {
    let help = match entry.value() {
        DeValue::String(line) => {
            let words: Vec<String> = line
                .split_whitespace()
                .map(|w| format!("\"{w}\""))
                .collect();
            let list = words.join(", ");
            format!("no shell splits it: write `{} = [{list}]`", entry.name())
        }
        _ => EXEC_HELP.to_owned(),
    };
    let elements = entry.list("a list of texts", Some(help))?;
    if elements.len() > limits::ARGV_MAX {
        let most = limits::ARGV_MAX;
        let message = format!("expected up to {most} elements, found {}", elements.len());
        entry.refuse(Refused::new(Code::TooMuch, message).help("hand the program a file instead"));
        return None;
    }
    let Some((first, rest)) = elements.split_first() else {
        entry.refuse(Refused::value("the list is empty, and names no program").help(EXEC_HELP));
        return None;
    };
    let first = first
        .template()
        .and_then(|template| program(first, &template, dir));
    let rest: Vec<_> = rest.iter().map(Entry::template).collect();
    std::iter::once(first).chain(rest).collect()
}

/// An absolute path and a bare name stay; a relative path begins at `dir`.
fn program(entry: &Entry<'_, '_>, template: &Template, dir: &str) -> Option<Template> {
    let text = template.to_string();
    if let Err(refused) = check_path(&text) {
        entry.refuse(refused);
        return None;
    }
    if text.starts_with('/') || !text.contains('/') {
        return Some(template.clone());
    }
    let mut rest = text.as_str();
    while let Some(after) = rest.strip_prefix("./") {
        rest = after.trim_start_matches('/');
    }
    let dir = braces_doubled(dir.trim_end_matches('/'));
    let joined = Template::parse(&format!("{dir}/{rest}"));
    Some(joined.expect("literal text before a template is a template"))
}

/// Environment variables.
pub(super) fn environment(entry: &Entry<'_, '_>) -> Option<Variables> {
    let entries = entry.entries("a table of texts", "`env = { MODE = \"fast\" }`")?;
    if entries.len() > limits::ENV_MAX {
        let most = limits::ENV_MAX;
        let message = format!("expected up to {most} variables, found {}", entries.len());
        entry.refuse(Refused::new(Code::TooMuch, message).help("hand the program a file instead"));
        return None;
    }
    let mut variables = Variables::default();
    let mut refused = false;
    for (name, entry) in entries {
        let named = check_variable(name).map_err(|r| entry.walk().refuse(&entry.at_key(), r));
        let value = if secret::is_secret(&entry) {
            secret::secret(&entry)
                .map(|secret| drop(variables.secrets.insert(name.to_owned(), secret)))
        } else {
            entry
                .template()
                .map(|text| drop(variables.texts.insert(name.to_owned(), text)))
        };
        refused |= named.is_err() || value.is_none();
    }
    (!refused).then_some(variables)
}

fn check_variable(name: &str) -> Result<(), Refused> {
    if !is_variable_name(name) {
        let message = "an environment variable's name holds letters, digits and `_`, and does not \
                       start with a digit";
        let refused = Refused::value(format!("{message}; found {}", quoted(name)));
        let likely = name.replace(['-', '.', ' '], "_");
        return Err(if is_variable_name(&likely) {
            refused.help(format!("did you mean `{likely}`?"))
        } else {
            refused
        });
    }
    if name == "HOST" || name == "PORT" {
        let message = format!("`{name}` is set by Mainstay, differently for each instance");
        let help = "for a program that wants it otherwise: `LISTEN = \"{host}:{port}\"`";
        return Err(Refused::value(message).help(help));
    }
    if name.starts_with("MAINSTAY_") {
        let message = format!("names that start with MAINSTAY_ are Mainstay's own; found `{name}`");
        return Err(Refused::value(message).help("choose another name"));
    }
    Ok(())
}
