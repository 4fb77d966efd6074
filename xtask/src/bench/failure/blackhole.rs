//! A host that is gone, as its peers see it: packets to and from one port vanish, and nobody says so.

use crate::bench::network;
use anyhow::{Context as _, Result, bail, ensure};
use mainstay_testkit::program;
use std::process::Command;

const TABLE: &str = "mainstay_bench";

/// While this lives, the port is cut off. Only in a network of the bench's own.
pub(super) struct Blackhole(());

impl Blackhole {
    pub(super) fn dig(port: u16) -> Result<Self> {
        ensure!(
            network::is_own(),
            "packets are dropped only in a network of our own"
        );
        // At the input: what is dropped at the output is told to the sender.
        let chain = format!(
            "add table inet {TABLE} {{ chain hole {{ type filter hook input priority 0; \
             tcp dport {port} drop; tcp sport {port} drop; }}; }}"
        );
        nft(&chain)?;
        Ok(Self(()))
    }
}

impl Drop for Blackhole {
    fn drop(&mut self) {
        // If it fails, the table goes with the network, at the end of the bench.
        if let Err(error) = nft(&format!("delete table inet {TABLE}")) {
            eprintln!("{error:#}");
        }
    }
}

fn nft(command: &str) -> Result<()> {
    let output = Command::new(program("nft"))
        .arg(command)
        .output()
        .context("cannot start nft")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!("`nft {command}` failed: {}", said.trim_end())
}
