//! `supervisor.json`: what the next supervisor must know to adopt the processes of this one.
//!
//! It stays when everything has ended: incarnations must go on growing, since a higher one is the
//! verdict that a lower one is dead.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use mainstay_ids::Incarnation;
use mainstay_kernel::{Identity, durable};
use serde::{Deserialize, Serialize};

use crate::outcome::{Failure, Outcome};

/// The form of the record; a newer one is not touched.
const FORMAT: u32 = 1;

/// What is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    format: u32,
    /// The supervisor's process.
    pub(crate) supervisor: u32,
    /// Where the gateway listens.
    pub(crate) entry: SocketAddr,
    /// Where the API listens beside its unix socket.
    pub(crate) api: SocketAddr,
    /// Where statistics are shown, if they are. An earlier version did not show any.
    #[serde(default)]
    pub(crate) stats: Option<SocketAddr>,
    /// Where names are answered, if they are.
    #[serde(default)]
    pub(crate) names: Option<SocketAddr>,
    /// Where the broker is, if there is one.
    #[serde(default)]
    pub(crate) broker: Option<SocketAddr>,
    /// Where it is with TLS, if it is.
    #[serde(default)]
    pub(crate) broker_tls: Option<SocketAddr>,
    /// How the last upgrade of the gateway went.
    #[serde(default)]
    pub(crate) upgrade: Upgraded,
    /// The processes.
    pub(crate) processes: Vec<ProcessRecord>,
}

/// How the last upgrade of the gateway went.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Upgraded {
    /// How many there were, so that who asked for one sees when it is over.
    pub(crate) count: u64,
    /// Why it failed; `None`: it did not.
    pub(crate) failed: Option<String>,
}

/// One of our processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessRecord {
    /// Which: `server`, `agent`, `gateway`.
    pub(crate) name: String,
    /// Which start of it.
    pub(crate) incarnation: Incarnation,
    /// What it is for.
    #[serde(default)]
    pub(crate) duty: Duty,
    /// The process, told apart from a later one of the same number; `None` while it does not run.
    #[serde(flatten)]
    pub(crate) identity: Option<Identity>,
}

/// What a process is for, as far as its kind has two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Duty {
    /// It is kept running.
    #[default]
    Kept,
    /// It is to take over, and has not said that it serves.
    Coming,
    /// It finishes what it began, and nobody starts it again.
    Leaving,
    /// It does not run, and nobody starts it.
    Idle,
}

/// Where our processes listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// The gateway's entry.
    pub(crate) entry: SocketAddr,
    /// The API beside its unix socket.
    pub(crate) api: SocketAddr,
    /// The gateway's statistics; `None`: nowhere.
    pub(crate) stats: Option<SocketAddr>,
    /// The agent's server of names; `None`: nowhere.
    pub(crate) names: Option<SocketAddr>,
    /// The broker; `None`: nowhere.
    pub(crate) broker: Option<SocketAddr>,
    /// The broker with TLS; `None`: nowhere.
    pub(crate) broker_tls: Option<SocketAddr>,
}

impl Record {
    pub(crate) fn new(
        addresses: Addresses,
        upgrade: Upgraded,
        processes: Vec<ProcessRecord>,
    ) -> Self {
        let Addresses {
            entry,
            api,
            stats,
            names,
            broker,
            broker_tls,
        } = addresses;
        Self {
            format: FORMAT,
            supervisor: std::process::id(),
            entry,
            api,
            stats,
            names,
            broker,
            broker_tls,
            upgrade,
            processes,
        }
    }

    /// Where they listen.
    pub(crate) fn addresses(&self) -> Addresses {
        Addresses {
            entry: self.entry,
            api: self.api,
            stats: self.stats,
            names: self.names,
            broker: self.broker,
            broker_tls: self.broker_tls,
        }
    }

    /// What is known of one process.
    pub(crate) fn process(&self, name: &str) -> Option<&ProcessRecord> {
        self.processes.iter().find(|process| process.name == name)
    }

    fn path(state: &Path) -> PathBuf {
        state.join("supervisor.json")
    }

    /// Reads the record of an earlier supervisor; `None` if there is none.
    pub(crate) fn load(state: &Path) -> anyhow::Result<Option<Self>> {
        /// The part that every format has.
        #[derive(Deserialize)]
        struct Envelope {
            format: u32,
        }
        let path = Self::path(state);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("cannot read `{}`", path.display()))?,
        };
        let unreadable = || format!("`{}` is damaged", path.display());
        let Envelope { format } = serde_json::from_slice(&text).with_context(unreadable)?;
        if format > FORMAT {
            let message = format!(
                "`{}` has format {format}; this mainstay knows formats up to {FORMAT}",
                path.display()
            );
            let failure = Failure::new(Outcome::Failed, message);
            return Err(failure
                .remedy("use the newer mainstay that wrote it")
                .into());
        }
        serde_json::from_slice(&text)
            .map(Some)
            .with_context(unreadable)
    }

    /// Replaces the record: after a crash the old or the new one is there, whole.
    pub(crate) fn save(&self, state: &Path) -> anyhow::Result<()> {
        let path = Self::path(state);
        let context = || format!("cannot write `{}`", path.display());
        let text = serde_json::to_vec_pretty(self).with_context(context)?;
        durable::replace(&path, &text, 0o666).with_context(context)
    }
}
