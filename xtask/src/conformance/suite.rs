//! How each suite is brought to run, and what its output means.

use crate::{cargo, tree};
use anyhow::{Context as _, Result, bail};
use mainstay_testkit::program;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What each test came to, by its name.
pub(super) type Outcomes = BTreeMap<String, bool>;

/// Packages that pika's tests need beside it.
const FOR_PIKA: &str = "bench/conformance-pika.txt";
/// What amqplib's tests need beside it.
const FOR_AMQPLIB: &str = "claire@0.4.1";

/// A client's own tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suite {
    Pika,
    Amqplib,
    Lapin,
}

impl Suite {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pika => "pika",
            Self::Amqplib => "amqplib",
            Self::Lapin => "lapin",
        }
    }

    /// What is run.
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Pika => "tests/acceptance, 60 s a test",
            Self::Amqplib => "test, 20 s a test",
            Self::Lapin => "integration tests, with the feature tokio and without TLS",
        }
    }

    /// Which state of it: the commit of a checkout, or the version of a crate.
    pub(super) fn version(self, dir: &Path) -> Result<String> {
        if self == Self::Lapin {
            let manifest = fs::read_to_string(dir.join("Cargo.toml"))?;
            let manifest: toml::Table = toml::from_str(&manifest)?;
            let version = manifest["package"]["version"].as_str();
            return Ok(version.context("a crate has a version")?.to_owned());
        }
        let mut git = Command::new(mainstay_testkit::find("git").context("there is no git")?);
        git.arg("-C").arg(dir).args(["rev-parse", "HEAD"]);
        let output = git.output()?;
        if !output.status.success() {
            bail!("{} is no checkout of git", dir.display());
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Fetches from the registries what it needs, while there is a network.
    pub(super) fn prepare(self, dir: &Path) -> Result<()> {
        match self {
            Self::Pika => {
                let target = modules()?;
                if target.exists() {
                    return Ok(());
                }
                let pip = mainstay_testkit::find("pip3").context("there is no pip3")?;
                let mut install = Command::new(pip);
                install.args(["install", "--quiet", "--disable-pip-version-check"]);
                install.arg("--target").arg(&target);
                install
                    .arg("--requirement")
                    .arg(tree::root().join(FOR_PIKA));
                cargo::run(&mut install)
            }
            Self::Amqplib => {
                let npm = mainstay_testkit::find("npm").context("there is no npm")?;
                let mut install = Command::new(npm);
                install.args(["install", "--no-save", "--ignore-scripts", "--silent"]);
                cargo::run(install.arg(FOR_AMQPLIB).current_dir(dir))
            }
            Self::Lapin => cargo::run(lapin(dir)?.arg("--no-run")),
        }
    }

    /// Runs it to its end, whatever comes of it.
    pub(super) fn run(self, dir: &Path) -> Result<Outcomes> {
        let mut command = match self {
            Self::Pika => pika(dir)?,
            Self::Amqplib => amqplib(dir),
            Self::Lapin => lapin(dir)?,
        };
        let output = command
            .output()
            .with_context(|| format!("cannot start the tests of {}", self.name()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let outcomes = self.read(&text);
        if outcomes.is_empty() {
            bail!(
                "the tests of {} did not run:\n{text}{}",
                self.name(),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(outcomes)
    }

    fn read(self, text: &str) -> Outcomes {
        match self {
            Self::Pika => text.lines().filter_map(pytest_line).collect(),
            Self::Amqplib => tap(text),
            Self::Lapin => text.lines().filter_map(libtest_line).collect(),
        }
    }
}

/// Where Python's packages go.
fn modules() -> Result<PathBuf> {
    Ok(cargo::target_dir()?.join("conformance/python"))
}

fn pika(dir: &Path) -> Result<Command> {
    let mut command = Command::new(program("python3"));
    command.args(["-B", "-m", "pytest", "-v", "--tb=no", "--timeout", "60"]);
    command.args(["-p", "no:cacheprovider", "tests/acceptance"]);
    // The checkout itself comes first.
    let path = std::env::join_paths([dir.to_owned(), modules()?])?;
    command.env("PYTHONPATH", path).current_dir(dir);
    Ok(command)
}

fn amqplib(dir: &Path) -> Command {
    let mut command = Command::new(program("node"));
    command.args(["--test", "--test-timeout=20000", "--test-reporter=tap"]);
    command.env("URL", "amqp://127.0.0.1").current_dir(dir);
    command
}

fn lapin(dir: &Path) -> Result<Command> {
    let mut command = cargo::command();
    command.args(["test", "--no-fail-fast", "--no-default-features"]);
    command.args(["--features", "tokio"]);
    command.args(["--test", "*", "--target-dir"]);
    command.arg(cargo::target_dir()?.join("conformance/lapin"));
    command.env("AMQP_ADDR", "amqp://127.0.0.1:5672/%2f");
    command.current_dir(dir);
    Ok(command)
}

/// `tests/acceptance/a_test.py::Class::test PASSED [ 12%]`
fn pytest_line(line: &str) -> Option<(String, bool)> {
    let (name, rest) = line.split_once(' ')?;
    if !name.contains("::") {
        return None;
    }
    match rest.split_whitespace().next()? {
        "PASSED" => Some((name.to_owned(), true)),
        "FAILED" | "ERROR" => Some((name.to_owned(), false)),
        _ => None,
    }
}

/// `test name ... ok`
fn libtest_line(line: &str) -> Option<(String, bool)> {
    let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
    match outcome.split_whitespace().next()? {
        "ok" => Some((name.to_owned(), true)),
        "FAILED" => Some((name.to_owned(), false)),
        _ => None,
    }
}

/// The leaves of TAP with nested tests: `ok 3 - name`, deeper for what stands in a suite.
fn tap(text: &str) -> Outcomes {
    let mut outcomes = Outcomes::new();
    let mut path: Vec<String> = Vec::new();
    let mut deepest = 0;
    for line in text.lines() {
        let words = line.trim_start();
        let depth = (line.len() - words.len()) / 4;
        if let Some(name) = words.strip_prefix("# Subtest: ") {
            path.truncate(depth);
            path.push(name.to_owned());
            deepest = depth;
            continue;
        }
        let passed = words.starts_with("ok ");
        let is_outcome = passed || words.starts_with("not ok ");
        // What has tests below it is a suite, and counts by them.
        if is_outcome && path.len() == depth + 1 && deepest == depth {
            outcomes.insert(unique(&outcomes, &path.join(" > ")), passed);
        }
    }
    outcomes
}

/// Two tests may have the same name.
fn unique(outcomes: &Outcomes, name: &str) -> String {
    let mut numbered = name.to_owned();
    let mut number = 1;
    while outcomes.contains_key(&numbered) {
        number += 1;
        numbered = format!("{name} ({number})");
    }
    numbered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_pytest_and_of_libtest_are_read() {
        let line = "tests/acceptance/a.py::TestA::test PASSED             [  1%]";
        let name = "tests/acceptance/a.py::TestA::test".to_owned();
        assert_eq!(pytest_line(line), Some((name, true)));
        assert_eq!(pytest_line("a.py::TestB::test SKIPPED (no) [ 2%]"), None);
        assert_eq!(pytest_line("= 1 failed, 2 passed ="), None);
        let failed = Some(("a::b".to_owned(), false));
        assert_eq!(libtest_line("test a::b ... FAILED"), failed);
    }

    #[test]
    fn the_leaves_of_nested_tests_are_counted_and_suites_are_not() {
        let text = "\
TAP version 13
# Subtest: connect
    # Subtest: ipv6
    not ok 1 - ipv6
      ---
      ...
    # Subtest: twice
    ok 2 - twice
    # Subtest: twice
    ok 3 - twice
    1..3
not ok 1 - connect
# Subtest: alone
ok 2 - alone
";
        let outcomes = tap(text);
        let wanted = [
            ("alone", true),
            ("connect > ipv6", false),
            ("connect > twice", true),
            ("connect > twice (2)", true),
        ];
        let wanted = wanted.map(|(name, passed)| (name.to_owned(), passed));
        assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), wanted);
    }
}
