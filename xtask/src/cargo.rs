//! What Cargo and its tools check, one function per step.

use crate::{tools, tree};
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::{env, path::PathBuf, process::Command};

/// The Cargo that runs us, in the root.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(tree::root());
    command
}

/// Runs a command to its end, showing what it prints.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{} failed: {status}", line(command));
    }
    Ok(())
}

/// A command as people would type it.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

fn cargo(arguments: &[&str]) -> Result<()> {
    run(command().args(arguments))
}

/// What Cargo knows about the workspace, without its dependencies.
pub(crate) fn metadata() -> Result<Value> {
    let arguments = ["metadata", "--format-version=1", "--no-deps", "--locked"];
    let output = command()
        .args(arguments)
        .output()
        .context("cannot start cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")
}

/// Where Cargo puts what it builds.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let metadata = metadata()?;
    Ok(metadata["target_directory"]
        .as_str()
        .context("cargo metadata names no target directory")?
        .into())
}

/// Checks that `cargo fmt` would change nothing.
pub(crate) fn format() -> Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"])
}

/// Clippy on everything, with warnings as errors.
pub(crate) fn clippy() -> Result<()> {
    let what = ["--workspace", "--all-targets", "--all-features", "--locked"];
    run(command()
        .arg("clippy")
        .args(what)
        .args(["--", "-D", "warnings"]))
}

/// The documentation of our own crates, with warnings as errors.
pub(crate) fn docs() -> Result<()> {
    let what = [
        "--workspace",
        "--no-deps",
        "--document-private-items",
        "--locked",
    ];
    run(command()
        .arg("doc")
        .args(what)
        .env("RUSTDOCFLAGS", "-D warnings"))
}

/// Licences, bans and sources of all dependencies, from what is on the disk: no network.
///
/// Known vulnerabilities need a copy of a database that changes daily, so they are not part of this.
pub(crate) fn deny() -> Result<()> {
    let mut deny = Command::new(tools::DENY.require()?);
    deny.current_dir(tree::root());
    run(deny
        .args(["--locked", "--offline", "check", "--hide-inclusion-graph"])
        .args(["licenses", "bans", "sources"]))
}

/// Builds the fuzz targets. Running them needs cargo-fuzz and a nightly compiler; building does not.
pub(crate) fn fuzz_build(more: &[&str]) -> Result<()> {
    run(command()
        .args(["build", "--manifest-path", "fuzz/Cargo.toml"])
        .args(more))
}
