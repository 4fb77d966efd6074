//! The project's own checks, set-up and benches: everything that `make` and people call to judge the tree.
//!
//! It is a development tool: nothing here is shipped, and nothing that is shipped may depend on it.
//! It decides no policy of Mainstay; what it does decide is how our code must look (`tidy`) and which
//! crate may know which (`arch`).
//!
//! Start reading at [`ci`], which runs everything in order; [`tidy`] and [`arch`] hold the rules.

mod arch;
mod bench;
mod cargo;
mod ci;
mod conformance;
mod demo;
mod packages;
mod report;
mod setup;
mod sim;
mod soak;
mod source;
mod tests_step;
mod tidy;
mod tools;
mod tree;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    about = "The project's own checks, set-up and benches",
    bin_name = "cargo xtask"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Every check, in order; what `make test` runs after set-up
    Ci,
    /// Install what builds, tests and benches need (as root), or say what is missing
    Setup(setup::Arguments),
    /// Check which crate depends on which, no_std, and where unsafe code is
    Arch,
    /// Check budgets, banned names and habits that the compiler does not know
    Tidy,
    /// Check the format and run clippy with warnings as errors
    Lint,
    /// Run all tests, documentation examples included
    Test,
    /// Build the documentation with warnings as errors
    Docs,
    /// Check licences, banned crates and sources of all dependencies
    Deny,
    /// Build the fuzz targets
    FuzzBuild,
    /// Measure against a rival, in release
    Bench(bench::Arguments),
    /// An instance for benches; not for people
    #[cfg(feature = "bench")]
    #[command(hide = true)]
    BenchBackend(bench::backend::Arguments),
    /// Kill supervisor, control centre and agent, then the broker, at random under load, for some minutes
    Soak(soak::Arguments),
    /// Run the decisions in a simulated world that goes wrong, or planted bugs in it
    Sim(sim::Arguments),
    /// Run the tests that AMQP clients have of themselves against the broker, or against RabbitMQ
    Conformance(conformance::Arguments),
    /// Show the shop: real services kept available while they are killed and replaced
    Demo(demo::Arguments),
}

fn main() -> ExitCode {
    let Err(error) = run(&Arguments::parse().command) else {
        return ExitCode::SUCCESS;
    };
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Ci => ci::run(),
        Command::Setup(arguments) => setup::run(arguments),
        Command::Arch => arch::check(),
        Command::Tidy => tidy::check(),
        Command::Lint => cargo::format().and_then(|()| cargo::clippy()),
        Command::Test => tests_step::run_and_report(),
        Command::Docs => cargo::docs(),
        Command::Deny => cargo::deny(),
        Command::FuzzBuild => cargo::fuzz_build(&[]),
        Command::Bench(arguments) => bench::run(arguments),
        #[cfg(feature = "bench")]
        Command::BenchBackend(arguments) => bench::backend::run(arguments),
        Command::Soak(arguments) => soak::run(arguments),
        Command::Sim(arguments) => sim::run(arguments),
        Command::Conformance(arguments) => conformance::run(arguments),
        Command::Demo(arguments) => demo::run(*arguments),
    }
}
