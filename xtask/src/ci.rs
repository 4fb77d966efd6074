//! `cargo xtask ci`: every check in order, cheap ones first. It goes on after a failure, so that one run shows all.

use crate::{arch, cargo, report::Report, tests_step, tidy};
use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// The outcome of one step.
struct Step {
    name: &'static str,
    took: Duration,
    outcome: Result<()>,
}

pub(crate) fn run() -> Result<()> {
    let mut report = Report::default();
    let steps = [
        step("format", cargo::format),
        step("tidy", tidy::check),
        step("arch", arch::check),
        step("clippy", cargo::clippy),
        step("tests", || tests_step::run(&mut report)),
        step("doc tests", tests_step::doc_tests),
        step("docs", cargo::docs),
        step("deny", cargo::deny),
        step("fuzz targets", || cargo::fuzz_build(&["--locked"])),
    ];
    println!("\nsteps:");
    for Step {
        name,
        took,
        outcome,
    } in &steps
    {
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("{:9.1} s  {name}: {verdict}", took.as_secs_f64());
    }
    let total: Duration = steps.iter().map(|step| step.took).sum();
    println!("{:9.1} s  in all", total.as_secs_f64());
    report.print();
    let failed: Vec<&str> = steps
        .iter()
        .filter(|step| step.outcome.is_err())
        .map(|step| step.name)
        .collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn step(name: &'static str, check: impl FnOnce() -> Result<()>) -> Step {
    println!("\n== {name}");
    let start = Instant::now();
    let outcome = check();
    let took = start.elapsed();
    match &outcome {
        Ok(()) => println!("== {name}: ok, {:.1} s", took.as_secs_f64()),
        Err(error) => println!(
            "== {name}: FAILED after {:.1} s: {error:#}",
            took.as_secs_f64()
        ),
    }
    Step {
        name,
        took,
        outcome,
    }
}
