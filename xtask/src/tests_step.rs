//! Runs all tests, and sees to it that they leave nothing running.

use crate::{cargo, report::Report, tools, tree};
use anyhow::{Context as _, Result, bail};
use std::{
    env, fs,
    io::{BufRead as _, BufReader, IsTerminal as _, stderr},
    process::{self, Command, ExitStatus, Stdio},
};

/// `cargo xtask test`: runs them, prints the report, fails if it must.
pub(crate) fn run_and_report() -> Result<()> {
    let mut report = Report::default();
    let outcome = run(&mut report);
    let examples = doc_tests();
    report.print();
    outcome.and(examples)
}

/// Runs the tests under nextest; `report` is filled as soon as they ran, even if some failed.
pub(crate) fn run(report: &mut Report) -> Result<()> {
    let target = cargo::target_dir()?;
    let junit = target.join("nextest/ci/junit.xml");
    let skips = target.join("skips.txt");
    for old in [&junit, &skips] {
        if old.exists() {
            fs::remove_file(old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
    }
    // Built apart, so that a compiler's server which stays behind is not taken for a test's process.
    cargo::run(nextest()?.arg("--no-run"))?;
    let run = process::id().to_string();
    let mut tests = nextest()?;
    tests
        .env(mainstay_testkit::SKIPS_FILE, &skips)
        .env("MAINSTAY_RUN", &run);
    let summary = show_and_keep_summary(&mut tests);
    let left = mainstay_testkit::sweep(&format!("MAINSTAY_RUN={run}"));
    let (outcome, summary) = summary?;
    *report = Report::read(&junit, &skips, summary)?;
    if !outcome.success() {
        bail!("tests failed");
    }
    if !left.is_empty() {
        for process in &left {
            eprintln!(
                "left running by a test, and killed: {} {}",
                process.pid, process.command
            );
        }
        bail!("tests must end what they start (mainstay_testkit::Spawned does)");
    }
    if report.skips() > 0 && env::var_os("CI").is_some_and(|ci| ci == "true") {
        bail!("in CI every test must run: {} skipped", report.skips());
    }
    Ok(())
}

/// The examples in the documentation; what they print is shown if one fails.
pub(crate) fn doc_tests() -> Result<()> {
    let mut command = cargo::command();
    command.args(["test", "--doc", "--workspace", "--locked", "--quiet"]);
    let output = command.output().context("cannot start cargo test --doc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!(
            "documentation examples failed\n{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let passed: usize = text.lines().filter_map(passed_examples).sum();
    println!("{passed} documentation examples passed");
    Ok(())
}

/// The count in a line such as `test result: ok. 2 passed; 0 failed; ...`.
fn passed_examples(line: &str) -> Option<usize> {
    let rest = line.strip_prefix("test result: ok. ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Runs the tests, showing the runner's output as it comes; gives its end and the line that sums it up.
fn show_and_keep_summary(tests: &mut Command) -> Result<(ExitStatus, String)> {
    tests.args(stderr().is_terminal().then_some("--color=always"));
    let mut child = tests
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start nextest")?;
    let output = child.stderr.take().expect("it was asked for");
    let mut summary = String::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read nextest's output")?;
        let line = String::from_utf8_lossy(&line);
        eprintln!("{line}");
        if line.contains("Summary [") {
            summary = line.into_owned();
        }
    }
    Ok((child.wait().context("cannot wait for nextest")?, summary))
}

fn nextest() -> Result<Command> {
    let mut command = Command::new(tools::NEXTEST.require()?);
    command.current_dir(tree::root());
    command.args([
        "nextest",
        "run",
        "--workspace",
        "--locked",
        "--profile",
        "ci",
    ]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_that_passed_are_counted() {
        assert_eq!(
            passed_examples("test result: ok. 12 passed; 0 failed; 0 ignored"),
            Some(12)
        );
        assert_eq!(
            passed_examples("test result: FAILED. 1 passed; 1 failed"),
            None
        );
    }
}
