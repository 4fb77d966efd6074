//! The cases of three clients, and what they are played against.

pub(crate) mod lapin_cases;
pub(crate) mod programs;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mainstay_broker::view::{Answer, Ask, SOCKET};
use mainstay_testkit::{Packages, Spawned, TempDir, program, wait_until};

/// For all cases of one client together, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(100);

/// How many cases there are: fewer than these were lost.
pub(crate) const PIKA_CASES: usize = 130;
pub(crate) const AMQPLIB_CASES: usize = 41;
pub(crate) const LAPIN_CASES: usize = 32;

/// A file beside this one.
pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(name)
}

/// Whose answers are judged: a few are others on purpose, and are named in the cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Mainstay,
    RabbitMq,
}

impl Target {
    fn word(self) -> &'static str {
        match self {
            Self::Mainstay => "mainstay",
            Self::RabbitMq => "rabbitmq",
        }
    }
}

/// Gives a broker the users and virtual hosts of the cases, which stand in RabbitMQ's own form.
pub(crate) fn define(state: &Path) {
    let text = std::fs::read_to_string(file("definitions.json")).unwrap();
    let ask = Ask::Import {
        definitions: serde_json::from_str(&text).unwrap(),
    };
    let mut stream = wait_until(PATIENCE, "the broker takes calls", || {
        UnixStream::connect(state.join(SOCKET)).map_err(|error| error.to_string())
    });
    let line = serde_json::to_string(&ask).unwrap() + "\n";
    stream.write_all(line.as_bytes()).unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    let answer: Answer = serde_json::from_str(&answer).unwrap();
    assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
}

/// A command of Python that finds the pinned packages and writes nothing beside them.
pub(crate) fn python() -> Command {
    let mut command = Command::new(program("python3"));
    command
        .args(["-B", "-u"])
        .env("PYTHONPATH", Packages::Python.require());
    command
}

pub(crate) fn pika(dir: &TempDir, at: SocketAddr, target: Target) {
    let mut command = python();
    command.arg(file("pika_cases")).arg(at.to_string());
    play(dir, "pika", command.arg(target.word()), PIKA_CASES);
}

pub(crate) fn amqplib(dir: &TempDir, at: SocketAddr, target: Target) {
    let mut command = Command::new(program("node"));
    command
        .env("NODE_PATH", Packages::Node.require())
        .arg(file("amqplib_cases.js"))
        .arg(at.to_string());
    play(dir, "amqplib", command.arg(target.word()), AMQPLIB_CASES);
}

pub(crate) fn lapin(at: SocketAddr) {
    let (count, wrong) = lapin_cases::play(at);
    assert!(wrong.is_empty(), "lapin:\n{}", wrong.join("\n"));
    assert_eq!(count, LAPIN_CASES, "cases of lapin");
}

fn play(dir: &TempDir, name: &str, command: &mut Command, cases: usize) {
    let player = Spawned::start(dir, name, command);
    player.wait(PATIENCE);
    let said = player.log();
    let wrong: Vec<&str> = said
        .lines()
        .filter(|line| !line.starts_with("ok "))
        .collect();
    let wanted = format!("{cases} passed, 0 failed");
    assert_eq!(wrong, [wanted.as_str()], "{name}");
}
