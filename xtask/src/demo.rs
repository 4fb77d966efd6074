//! `cargo xtask demo`: the shop under load, killed and replaced, and the verdict.

use anyhow::{Result, bail};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// End with the verdict instead of keeping the shop running
    #[arg(long)]
    once: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { once: _ } = arguments;
    bail!("the demo is not built yet")
}
