//! `cargo xtask sim`: the simulation of the decisions, in release, and the planted bugs in it.
//!
//! The simulation is a program of its own (`crates/sim`), built and called from here, so that xtask starts when
//! `control` does not compile.

mod mutants;

use crate::{cargo, tree};
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::{fs, process::Stdio};

#[derive(clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch that people type"
)]
pub(crate) struct Arguments {
    /// How many seeds; a full campaign of 50000 replaces bench/results/sim.json
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Replay this one, and show its last steps
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// With --seed: show all steps
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Print only the last line: one JSON object
    #[arg(long)]
    json: bool,
    /// Measure the control centre's restart with a thousand instances, in memory
    #[arg(long)]
    restore: bool,
    /// Play requests through a gateway to three instances of which one or two fail, instead of a cluster
    #[arg(long, conflicts_with = "restore")]
    entry: bool,
    /// Plant each bug of crates/sim/mutants in a copy, and see whether a promise breaks
    #[arg(long)]
    mutants: bool,
    /// With --mutants: only show them
    #[arg(long, requires = "mutants")]
    list: bool,
    /// With --mutants: only those with this in their name
    #[arg(long, requires = "mutants")]
    only: Option<String>,
    /// With --mutants: how many at a time
    #[arg(long, requires = "mutants", default_value_t = 2)]
    jobs: usize,
}

/// From so many seeds on the result is kept with the code.
const FULL: u64 = 50_000;

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.mutants {
        let only = arguments.only.as_deref();
        return mutants::run(only, arguments.list, arguments.jobs);
    }
    let mut command = cargo::command();
    command.args(["run", "--release", "--quiet", "--locked"]);
    command.args(["--package", "mainstay-sim", "--"]);
    if let Some(seed) = arguments.seed {
        command.arg("--seed").arg(seed.to_string());
    } else {
        command.arg("--seeds").arg(arguments.seeds.to_string());
        command.arg("--from").arg(arguments.from.to_string());
    }
    command.args(arguments.trace.then_some("--trace"));
    command.args(arguments.json.then_some("--json"));
    command.args(arguments.restore.then_some("--restore"));
    command.args(arguments.entry.then_some("--entry"));
    let full = arguments.seed.is_none() && arguments.seeds >= FULL;
    let kept = full && !arguments.restore && !arguments.entry;
    if kept {
        command.stdout(Stdio::piped());
    }
    let output = command
        .stderr(Stdio::inherit())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .context("cannot run the simulation")?;
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    if !output.status.success() {
        bail!("a promise was broken, or the simulation did not run");
    }
    if let Some(line) = text.lines().last() {
        let result: Value = serde_json::from_str(line).context("its last line is no JSON")?;
        keep("sim", &result)?;
    }
    Ok(())
}

/// Writes a result to the ones that are kept with the code.
fn keep(name: &str, result: &Value) -> Result<()> {
    let path = tree::root().join(format!("bench/results/{name}.json"));
    let text = format!("{result:#}\n");
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("written: {}", path.display());
    Ok(())
}
