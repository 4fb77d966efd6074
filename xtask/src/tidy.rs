//! Rules on how our code looks that the compiler does not know. Each finding says what to do instead.

mod codes;
mod names;
mod rules;

use crate::{source::Source, tree};
use anyhow::Result;
use std::path::{Path, PathBuf};
use tree::{Finding, TextFile};

/// A function should fit a screen; at this many lines it does not.
const FUNCTION_LINES_MAX: usize = 70;
/// Lines of a file, tests not counted.
const FILE_LINES_MAX: usize = 800;

/// Checks the whole tree.
pub(crate) fn check() -> Result<()> {
    let files = tree::text_files(tree::root())?;
    let listed: Vec<&str> = mainstay_testkit::programs()
        .map(|program| program.name)
        .collect();
    let mut findings: Vec<Finding> = files.iter().flat_map(white_space).collect();
    findings.extend(codes::check(&files));
    for source in tree::sources(&files) {
        findings.extend(check_source(&source, &listed));
    }
    tree::report("tidy", findings)
}

/// Checks one Rust file; `listed` are the programs that set-up installs.
fn check_source(source: &Source, listed: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    budgets(source, &mut findings);
    names::check(source, &mut findings);
    rules::check(source, &mut findings);
    rules::programs(source, listed, &mut findings);
    crate_document(source, &mut findings);
    findings
}

fn finding(source: &Source, line: usize, what: impl Into<String>) -> Finding {
    Finding {
        path: source.path().to_owned(),
        line,
        what: what.into(),
    }
}

fn budgets(source: &Source, findings: &mut Vec<Finding>) {
    for function in source.functions() {
        if function.lines > FUNCTION_LINES_MAX {
            let what = format!(
                "`{}` has {} lines, {FUNCTION_LINES_MAX} is the limit: keep the branching here, \
                 move straight-line work into functions",
                function.name, function.lines
            );
            findings.push(finding(source, function.line, what));
        }
    }
    let lines = source.lines().filter(|line| !source.is_test(*line)).count();
    if lines > FILE_LINES_MAX {
        let what = format!(
            "{lines} lines without tests, {FILE_LINES_MAX} is the limit: give each noun a file of its own"
        );
        findings.push(finding(source, 1, what));
    }
}

fn crate_document(source: &Source, findings: &mut Vec<Finding>) {
    let path = source.path();
    let root = ["src/lib.rs", "src/main.rs"]
        .iter()
        .any(|root| path.ends_with(root));
    let binary = path.parent().is_some_and(|dir| dir.ends_with("src/bin"));
    if (root || binary) && !source.comment_line(1).starts_with("//!") {
        let what = "begin the crate with `//!`: what it is, what it deliberately is not, where to start reading";
        findings.push(finding(source, 1, what));
    }
}

/// White space at the end of a line, in any text file. Snapshots hold what a program printed, so they may have it.
fn white_space(file: &TextFile) -> Vec<Finding> {
    if file
        .path
        .extension()
        .is_some_and(|extension| extension == "snap")
    {
        return Vec::new();
    }
    let lines = file.text.split('\n').enumerate();
    let trailing = lines.filter(|(_, line)| line.ends_with([' ', '\t', '\r']));
    let what = "white space at the end of the line: remove it".to_owned();
    trailing
        .map(|(at, _)| Finding {
            path: file.path.clone(),
            line: at + 1,
            what: what.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests;
