//! `cargo xtask conformance`: the tests that pika, amqplib and lapin have of themselves, run against a broker.
//!
//! The suites are not ours and are not kept here: their checkouts are named, and their commits are noted. A test counts
//! if it needs a broker, which is measured: it fails when nobody listens. The broker has port 5672 on loopback in a
//! network of its own, because that is where those suites look for one.

mod suite;
mod verdict;

use crate::{cargo, tree};
use anyhow::{Context as _, Result, bail};
use mainstay_testkit::{RabbitMq, RabbitMqOptions, Spawned, TempDir, program, wait_until};
use serde_json::{Map, Value, json};
use std::{
    env, fs,
    net::{Ipv4Addr, TcpStream},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use suite::Suite;
use verdict::Verdict;

/// Where the outcome is kept.
const RESULT: &str = "bench/results/conformance.json";
/// Set where this has been started again in a network of its own.
const MARK: &str = "MAINSTAY_CONFORMANCE_NETWORK";
/// Where the suites look for a broker.
const PORT: u16 = 5672;
const START: Duration = Duration::from_mins(1);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A checkout of pika
    #[arg(long, value_name = "DIR", env = "MAINSTAY_PIKA")]
    pika: Option<PathBuf>,
    /// A checkout of amqplib
    #[arg(long, value_name = "DIR", env = "MAINSTAY_AMQPLIB")]
    amqplib: Option<PathBuf>,
    /// The source of lapin, as its crate or its repository has it
    #[arg(long, value_name = "DIR", env = "MAINSTAY_LAPIN")]
    lapin: Option<PathBuf>,
    /// Against whom
    #[arg(long, value_enum, default_value_t = Against::Mainstay)]
    against: Against,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Against {
    /// The broker of this tree
    Mainstay,
    /// RabbitMQ, as Debian packages it
    Rabbitmq,
}

impl Against {
    fn key(self) -> &'static str {
        match self {
            Self::Mainstay => "mainstay",
            Self::Rabbitmq => "rabbitmq",
        }
    }
}

/// What listens; it ends when this is dropped.
enum Listening {
    Ours(#[expect(dead_code, reason = "held until it is to end")] Spawned),
    RabbitMq(#[expect(dead_code, reason = "held until it is to end")] Box<RabbitMq>),
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let named = [
        (Suite::Pika, &arguments.pika),
        (Suite::Amqplib, &arguments.amqplib),
        (Suite::Lapin, &arguments.lapin),
    ];
    let suites: Vec<(Suite, PathBuf)> = named
        .into_iter()
        .filter_map(|(suite, dir)| Some((suite, dir.clone()?)))
        .collect();
    if suites.is_empty() {
        bail!("name a checkout at least: --pika DIR, --amqplib DIR, --lapin DIR");
    }
    if env::var_os(MARK).is_none() {
        // There is no other network in there to fetch anything from.
        for (suite, dir) in &suites {
            suite.prepare(dir)?;
        }
        if arguments.against == Against::Mainstay {
            build()?;
        }
        return start_again();
    }
    cargo::run(Command::new(program("ip")).args(["link", "set", "lo", "up"]))?;
    let mut missed = Vec::new();
    let mut results = Map::new();
    for (suite, dir) in &suites {
        let without = suite.run(dir)?;
        let with = {
            let place = TempDir::new("conformance");
            let _listening = listen(arguments.against, &place)?;
            suite.run(dir)?
        };
        let verdict = Verdict::new(&without, &with);
        println!("{}: {verdict}", suite.name());
        for name in &verdict.failed {
            println!("  failed: {name}");
        }
        if !verdict.failed.is_empty() {
            missed.push(suite.name());
        }
        results.insert(suite.name().to_owned(), entry(*suite, dir, &verdict)?);
    }
    keep(arguments.against, results)?;
    if !missed.is_empty() {
        bail!("not all of {} passed", missed.join(", "));
    }
    Ok(())
}

/// With optimisation: one of lapin's tests wants a channel closed before it has acknowledged two thousand messages more.
fn build() -> Result<()> {
    let mut build = cargo::command();
    build.args(["build", "--release", "--quiet", "--locked"]);
    build.args(["--package", "mainstay-broker", "--example", "broker"]);
    cargo::run(&mut build)
}

/// Goes on as this very process in a network of its own; returns only if that fails.
fn start_again() -> Result<()> {
    let mut again = Command::new(program("unshare"));
    again.arg("--net").arg("--").arg(env::current_exe()?);
    again.args(env::args_os().skip(1)).env(MARK, "1");
    Err(again.exec()).context("cannot make a network of its own, for which one must be root")
}

fn listen(against: Against, dir: &TempDir) -> Result<Listening> {
    match against {
        Against::Rabbitmq => {
            let options = RabbitMqOptions {
                port: Some(PORT),
                ..RabbitMqOptions::default()
            };
            let node = RabbitMq::start(dir, &options);
            node.wait();
            Ok(Listening::RabbitMq(Box::new(node)))
        }
        Against::Mainstay => {
            let program = cargo::target_dir()?.join("release/examples/broker");
            let mut command = Command::new(program);
            command.arg(dir.join("state")).arg(PORT.to_string());
            let broker = Spawned::start(dir, "broker", &mut command);
            wait_until(START, "the broker listens", || {
                TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).map_err(|_| broker.log())
            });
            Ok(Listening::Ours(broker))
        }
    }
}

fn entry(suite: Suite, dir: &Path, verdict: &Verdict) -> Result<Value> {
    Ok(json!({
        "suite": suite.what(),
        "version": suite.version(dir)?,
        "need_a_broker": verdict.need,
        "passed_of_these": verdict.passed,
        "failed": verdict.failed,
        "tests_in_all": verdict.all,
    }))
}

/// Puts the results beside those of the other side.
fn keep(against: Against, results: Map<String, Value>) -> Result<()> {
    let path = tree::root().join(RESULT);
    let old = fs::read(&path).unwrap_or_default();
    let mut whole: Map<String, Value> = serde_json::from_slice(&old).unwrap_or_default();
    let side = whole
        .entry(against.key())
        .or_insert_with(|| Value::Object(Map::new()));
    let side = side
        .as_object_mut()
        .with_context(|| format!("{RESULT} has another form"))?;
    side.extend(results);
    let text = serde_json::to_string_pretty(&whole)? + "\n";
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
