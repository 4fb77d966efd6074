//! How each suite is brought to run, and what its output means.

use crate::{cargo, tree};
use anyhow::{Context as _, Result, bail};
use mainstay_testkit::program;
use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
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
            Self::Lapin => "integration tests (tests/*.rs), with the feature tokio and without TLS",
        }
    }

    /// Which state of it: its commit, and of lapin also the version of the crate.
    pub(super) fn version(self, dir: &Path) -> Result<String> {
        match self {
            Self::Pika | Self::Amqplib => commit(dir),
            Self::Lapin => {
                let manifest: toml::Table = toml::from_str(&read(&dir.join("Cargo.toml"))?)?;
                let version = manifest["package"]["version"].as_str();
                let version = version.context("a crate has a version")?;
                Ok(format!("{version} at {}", commit_of_crate(dir)?))
            }
        }
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
        let command = match self {
            Self::Pika => pika(dir)?,
            Self::Amqplib => amqplib(dir),
            Self::Lapin => lapin(dir)?,
        };
        let text =
            said(command).with_context(|| format!("cannot run the tests of {}", self.name()))?;
        let outcomes = self.read(&text);
        if outcomes.is_empty() {
            bail!("the tests of {} did not run:\n{text}", self.name());
        }
        Ok(outcomes)
    }

    fn read(self, text: &str) -> Outcomes {
        match self {
            Self::Pika => text.lines().filter_map(pytest_line).collect(),
            Self::Amqplib => tap(text),
            Self::Lapin => libtest(text),
        }
    }
}

/// All that a command says, in the order in which it says it: cargo names each program of tests on its standard error.
fn said(mut command: Command) -> Result<String> {
    let (mut reader, writer) = std::io::pipe()?;
    let mut child = command.stdout(writer.try_clone()?).stderr(writer).spawn()?;
    // It holds the ends for writing, and there would be no end to read to.
    drop(command);
    let mut said = Vec::new();
    reader.read_to_end(&mut said)?;
    child.wait()?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The commit of a checkout.
fn commit(dir: &Path) -> Result<String> {
    let mut git = Command::new(mainstay_testkit::find("git").context("there is no git")?);
    git.arg("-C").arg(dir).args(["rev-parse", "HEAD"]);
    let output = git.output()?;
    if !output.status.success() {
        bail!("{} is no checkout of git", dir.display());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The commit that a crate of the registry was made from, which it says itself.
fn commit_of_crate(dir: &Path) -> Result<String> {
    let path = dir.join(".cargo_vcs_info.json");
    if !path.exists() {
        return commit(dir);
    }
    let origin: serde_json::Value = serde_json::from_str(&read(&path)?)?;
    let commit = origin["git"]["sha1"].as_str();
    Ok(commit
        .with_context(|| format!("{} names no commit", path.display()))?
        .to_owned())
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
    command.args(["--features", "tokio", "--tests", "--target-dir"]);
    command.arg(cargo::target_dir()?.join("conformance/lapin"));
    command.env("AMQP_ADDR", "amqp://127.0.0.1:5672/%2f");
    // What the tests would log stands between a test's name and its outcome.
    command.env("RUST_LOG", "off");
    command.current_dir(dir);
    Ok(command)
}

/// `tests/acceptance/a_test.py::Class::test PASSED [ 12%]`, or with ` <- ` and where it stands before the outcome.
fn pytest_line(line: &str) -> Option<(String, bool)> {
    let (name, rest) = line.split_once(' ')?;
    if !name.contains("::") {
        return None;
    }
    rest.split_whitespace().find_map(|word| match word {
        "PASSED" => Some((name.to_owned(), true)),
        "FAILED" | "ERROR" => Some((name.to_owned(), false)),
        _ => None,
    })
}

/// The outcomes of integration tests, each after the line that names its program: two of them may have tests of the same
/// name. Those within the crate, `unittests src/lib.rs`, talk to nobody.
fn libtest(text: &str) -> Outcomes {
    let mut outcomes = Outcomes::new();
    let mut program = "";
    for line in text.lines() {
        if let Some(rest) = line.trim_start().strip_prefix("Running ") {
            program = rest.split_once(' ').map_or(rest, |(source, _)| source);
        }
        if let Some((name, passed)) = libtest_line(line)
            && program.starts_with("tests/")
        {
            outcomes.insert(format!("{program} {name}"), passed);
        }
    }
    outcomes
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
    fn the_lines_of_pytest_are_read() {
        let line = "tests/acceptance/a.py::TestA::test PASSED             [  1%]";
        let name = "tests/acceptance/a.py::TestA::test".to_owned();
        assert_eq!(pytest_line(line), Some((name, true)));
        assert_eq!(pytest_line("a.py::TestB::test SKIPPED (no) [ 2%]"), None);
        let inherited = "a.py::TestC::test_with_select <- tests/base.py FAILED [ 3%]";
        let name = "a.py::TestC::test_with_select".to_owned();
        assert_eq!(pytest_line(inherited), Some((name, false)));
        assert_eq!(pytest_line("= 1 failed, 2 passed ="), None);
    }

    #[test]
    fn tests_of_the_same_name_in_two_programs_are_two() {
        let text = "\
     Running unittests src/lib.rs (target/debug/deps/lapin-89ab)
test id::overflow ... ok
     Running tests/refused.rs (target/debug/deps/refused-0123)

running 1 test
test connection ... FAILED

test result: FAILED. 0 passed; 1 failed
     Running tests/tokio.rs (target/debug/deps/tokio-4567)
test connection ... ok
test ignored ... ignored
";
        let wanted = [
            ("tests/refused.rs connection", false),
            ("tests/tokio.rs connection", true),
        ];
        let wanted = wanted.map(|(name, passed)| (name.to_owned(), passed));
        assert_eq!(libtest(text).into_iter().collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn all_that_a_command_says_is_heard_in_its_order() {
        let mut command = Command::new(program("sh"));
        command.args(["-c", "echo one; echo two >&2; echo three"]);
        assert_eq!(said(command).expect("a shell"), "one\ntwo\nthree\n");
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
