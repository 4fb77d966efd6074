//! A floating address of two machines, proved: two complete nodes (`mainstay run`) in network namespaces, joined by a
//! switch, and clients beside them that know the address alone. The holder's gateway, its machine, its cable is taken
//! away, it is upgraded, the address is moved on purpose; what the clients saw is held against bars.
//!
//! It needs root and `ip`, `nsenter` in the path, touches nothing of the machine's own network, and ends what it
//! started. Start reading at [`prove()`], then `rig` (the machines), `clients`, `scenario`, [`Report`].

mod answer;
mod clients;
mod http2;
mod render;
mod report;
mod rig;
mod scenario;
mod websocket;
mod wire;

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

pub use answer::answer;
pub use clients::Kind;
pub use render::render;
pub use report::{ClientsSaw, Done, Move, Report, Verdict};
pub use scenario::{Scenario, ScenarioError};

use crate::verdict::Outcome;

/// What is to be proved.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program `mainstay` of the nodes.
    pub program: PathBuf,
    /// In this order, each with two nodes of its own.
    pub scenarios: Vec<Scenario>,
    /// Test seams of the nodes.
    pub seams: NodeSeams,
}

/// What processes of the nodes leave out, as their hidden options write it; empty: nothing.
#[derive(Debug, Clone, Default)]
pub struct NodeSeams {
    /// Of the gateways.
    pub gateway: String,
    /// Of the holders of the address.
    pub vip: String,
}

/// Why nothing could be proved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not root.
    #[error(
        "`vip-...` makes network namespaces, for which it needs root; run it as root, on a machine where two nodes may be started"
    )]
    NotRoot,
    /// A program of the system could not do its part.
    #[error("`{line}` failed: {why}")]
    Program {
        /// What was run.
        line: String,
        /// What it said.
        why: String,
    },
    /// A file could not be written, or a process not started.
    #[error("cannot {attempt}")]
    Io {
        /// What was attempted.
        attempt: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The nodes did not become what they should.
    #[error("{what} within {seconds} s: {seen}")]
    NotInTime {
        /// What was waited for.
        what: String,
        /// For how long.
        seconds: u64,
        /// What was seen last.
        seen: String,
    },
    /// Somebody asked for the end.
    #[error("stopped before its end")]
    Stopped,
}

/// Plays the scenarios, telling `tell` what is done. Cancelling `stop` ends it, and leaves nothing behind.
pub async fn prove(
    options: &Options,
    tell: &mut (dyn FnMut(&str) + Send),
    stop: &CancellationToken,
) -> Result<Verdict, Error> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let mut scenarios = Vec::new();
    for scenario in &options.scenarios {
        tell(&format!("{scenario}: {}", scenario.describe()));
        scenarios.push(scenario::play(*scenario, options, tell, stop).await?);
    }
    let worst = scenarios.iter().map(|report| report.outcome).max();
    Ok(Verdict {
        outcome: worst.unwrap_or(Outcome::CouldNotRun),
        scenarios,
    })
}
