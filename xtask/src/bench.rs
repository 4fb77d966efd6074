//! `cargo xtask bench NAME`: ours and a rival's, interleaved, on the same machine.
//!
//! Without the feature `bench` this only builds and starts itself again, in release and with the feature,
//! since a load generator in debug measures itself.

use anyhow::{Result, bail};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which one
    name: String,
    /// Three short rounds instead of five
    #[arg(long)]
    quick: bool,
    /// Print only the last line: one JSON object
    #[arg(long)]
    json: bool,
}

#[cfg(not(feature = "bench"))]
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut again = crate::cargo::command();
    again.args([
        "run",
        "--release",
        "--quiet",
        "--package",
        "xtask",
        "--features",
        "bench",
    ]);
    again.args(["--", "bench", &arguments.name]);
    again.args(arguments.quick.then_some("--quick"));
    again.args(arguments.json.then_some("--json"));
    if !again.status()?.success() {
        bail!("the bench `{}` failed", arguments.name);
    }
    Ok(())
}

#[cfg(feature = "bench")]
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments {
        name,
        quick: _,
        json: _,
    } = arguments;
    bail!("there is no bench `{name}`: none is in this version yet")
}
