//! `cargo xtask soak`: processes are killed at random for as long as it is worth, in release: the supervisor, the control
//! centre and the agent under requests, then the broker under messages. What came of it is kept with the code.
//!
//! The rounds and their judges are tests; this runs them with more rounds, and adds the machine.

#[cfg(feature = "bench")]
use crate::{bench::machine, cargo, tree};
#[cfg(feature = "bench")]
use anyhow::Context as _;
use anyhow::{Result, bail};
#[cfg(feature = "bench")]
use serde_json::{Value, json};
#[cfg(feature = "bench")]
use std::{
    fs,
    path::Path,
    process::Stdio,
    time::{Instant, SystemTime},
};

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Supervisor, control centre and agent, under requests
    Adoption,
    /// The broker, under messages
    BrokerKill,
}

/// The test that does it, and its measure.
#[cfg(feature = "bench")]
struct Rounds {
    name: &'static str,
    package: &'static str,
    target: &'static str,
    test: &'static str,
    /// So many are a whole run.
    whole: u32,
    /// Where the outcome of a whole run is kept.
    result: &'static str,
}

#[cfg(feature = "bench")]
impl Part {
    fn rounds(self) -> Rounds {
        match self {
            Self::Adoption => Rounds {
                name: "adoption",
                package: "mainstay",
                target: "adoption",
                test: "system_ten_rounds_of_random_sigkill_cost_no_request",
                whole: 200,
                result: "bench/results/adoption.json",
            },
            Self::BrokerKill => Rounds {
                name: "broker-kill",
                package: "mainstay-broker",
                target: "kill",
                test: "system_what_was_confirmed_survives_sigkill_and_what_was_acknowledged_does_not_come_back",
                whole: 100,
                result: "bench/results/broker-kill.json",
            },
        }
    }
}

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only these; all by default
    #[arg(long)]
    part: Option<Part>,
    /// How many rounds; by default 200 of the first part, 100 of the second
    #[arg(long)]
    rounds: Option<u32>,
    /// What the kills are drawn from; by default the time of day
    #[arg(long)]
    seed: Option<u64>,
    /// Print only one line for each part: one JSON object
    #[arg(long)]
    json: bool,
}

#[cfg(not(feature = "bench"))]
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    use clap::ValueEnum as _;
    let Arguments {
        part,
        rounds,
        seed,
        json,
    } = *arguments;
    let mut again = crate::bench::again();
    again.arg("soak");
    if let Some(value) = part.and_then(|part| part.to_possible_value()) {
        again.args(["--part", value.get_name()]);
    }
    if let Some(rounds) = rounds {
        again.args(["--rounds", &rounds.to_string()]);
    }
    if let Some(seed) = seed {
        again.args(["--seed", &seed.to_string()]);
    }
    again.args(json.then_some("--json"));
    if !again.status()?.success() {
        bail!("what must survive SIGKILL does not");
    }
    Ok(())
}

#[cfg(feature = "bench")]
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let parts = match arguments.part {
        Some(part) => vec![part],
        None => vec![Part::Adoption, Part::BrokerKill],
    };
    for part in parts {
        play(&part.rounds(), arguments)?;
    }
    Ok(())
}

#[cfg(feature = "bench")]
fn play(part: &Rounds, arguments: &Arguments) -> Result<()> {
    let rounds = arguments.rounds.unwrap_or(part.whole);
    let seed = arguments.seed.unwrap_or_else(|| {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        now.as_secs()
    });
    let report = cargo::target_dir()?.join(format!("{}.json", part.name));
    if report.exists() {
        fs::remove_file(&report).with_context(|| format!("cannot remove {}", report.display()))?;
    }
    build_programs(part)?;
    let mut soak = cargo::command();
    soak.args(["test", "--release", "--locked", "--quiet", "--package"])
        .args([part.package, "--test", part.target, "--"])
        .args(["--exact", part.test, "--nocapture"])
        .env("ROUNDS", rounds.to_string())
        .env("SEED", seed.to_string())
        .env("REPORT", &report);
    if arguments.json {
        soak.stdout(Stdio::null()).stderr(Stdio::null());
    }
    let start = Instant::now();
    let status = soak.status().context("cannot start the rounds")?;
    let minutes = start.elapsed().as_secs().div_ceil(60);
    let outcome = read(&report);
    let whole = json!({
        "summary": {
            "bench": part.name,
            "rounds": rounds,
            "values": outcome,
            "ok": status.success(),
        },
        "seed": seed,
        "took_minutes": minutes,
        "machine": machine::describe(),
    });
    if rounds >= part.whole && status.success() {
        let path = tree::root().join(part.result);
        let text = serde_json::to_string_pretty(&whole)? + "\n";
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{}", whole["summary"]);
    if !status.success() {
        let name = part.name;
        bail!(
            "it does not hold: `cargo xtask soak --part {name} --seed {seed} --rounds {rounds}` tries the same again"
        );
    }
    Ok(())
}

/// The programs of a test that are examples, which a single test does not build.
#[cfg(feature = "bench")]
fn build_programs(part: &Rounds) -> Result<()> {
    let mut build = cargo::command();
    build.args(["build", "--release", "--locked", "--quiet", "--examples"]);
    let status = build.args(["--package", part.package]).status();
    if !status.context("cannot start cargo")?.success() {
        bail!("the programs of {} cannot be built", part.package);
    }
    Ok(())
}

/// What the test counted; nothing, if it did not get that far.
#[cfg(feature = "bench")]
fn read(report: &Path) -> Value {
    let text = fs::read(report).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or(Value::Null)
}
