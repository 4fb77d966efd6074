//! `cargo xtask soak`: the supervisor, the control centre and the agent are killed at random for as long as it is
//! worth, in release; what came of it is kept with the code.
//!
//! The rounds and their judge are a test of the binary; this runs it with more rounds, and adds the machine.

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

/// The test that is run.
#[cfg(feature = "bench")]
const TEST: &str = "system_ten_rounds_of_random_sigkill_cost_no_request";

/// Where the outcome of a whole run is kept.
#[cfg(feature = "bench")]
const RESULT: &str = "bench/results/adoption.json";

/// So many rounds are a whole run.
const ROUNDS: u32 = 200;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many rounds
    #[arg(long, default_value_t = ROUNDS)]
    rounds: u32,
    /// What the kills are drawn from; by default the time of day
    #[arg(long)]
    seed: Option<u64>,
    /// Print only one line: one JSON object
    #[arg(long)]
    json: bool,
}

#[cfg(not(feature = "bench"))]
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { rounds, seed, json } = *arguments;
    let mut again = crate::bench::again();
    again.args(["soak", "--rounds", &rounds.to_string()]);
    if let Some(seed) = seed {
        again.args(["--seed", &seed.to_string()]);
    }
    again.args(json.then_some("--json"));
    if !again.status()?.success() {
        bail!("adoption does not hold");
    }
    Ok(())
}

#[cfg(feature = "bench")]
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { rounds, seed, json } = *arguments;
    let seed = seed.unwrap_or_else(|| {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        now.as_secs()
    });
    let report = cargo::target_dir()?.join("adoption.json");
    if report.exists() {
        fs::remove_file(&report).with_context(|| format!("cannot remove {}", report.display()))?;
    }
    let mut soak = cargo::command();
    soak.args([
        "test",
        "--release",
        "--locked",
        "--quiet",
        "--package",
        "mainstay",
    ])
    .args(["--test", "adoption", "--", "--exact", TEST, "--nocapture"])
    .env("ROUNDS", rounds.to_string())
    .env("SEED", seed.to_string())
    .env("REPORT", &report);
    if json {
        soak.stdout(Stdio::null()).stderr(Stdio::null());
    }
    let start = Instant::now();
    let status = soak.status().context("cannot start the rounds")?;
    let minutes = start.elapsed().as_secs().div_ceil(60);
    let outcome = read(&report);
    let whole = json!({
        "summary": {
            "bench": "adoption",
            "rounds": rounds,
            "values": outcome,
            "ok": status.success(),
        },
        "took_minutes": minutes,
        "machine": machine::describe(),
    });
    if rounds >= ROUNDS && status.success() {
        let path = tree::root().join(RESULT);
        let text = serde_json::to_string_pretty(&whole)? + "\n";
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{}", whole["summary"]);
    if !status.success() {
        bail!(
            "it does not hold: `cargo xtask soak --seed {seed} --rounds {rounds}` tries the same again"
        );
    }
    Ok(())
}

/// What the test counted; nothing, if it did not get that far.
#[cfg(feature = "bench")]
fn read(report: &Path) -> Value {
    let text = fs::read(report).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or(Value::Null)
}
