//! What is broken, and how it is told that all is whole again.
//!
//! Everything here could be done by an operator at a terminal: signals to processes that the API
//! or `supervisor.json` names, and changes through the API.

mod flush;
mod outage;
mod replace;
mod signal;
mod stage;
mod upgrade;

use std::fmt;
use std::str::FromStr;

use mainstay_api::client;

use crate::ground::Ground;
use crate::load::Connections;

pub(crate) use stage::Stage;

/// One way to break or change a running system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// SIGKILL of one instance after another.
    Kill,
    /// SIGTERM of one instance after another, as an operator would by hand.
    Stop,
    /// A new version, and back.
    Rollout,
    /// New versions that end at once or never get healthy.
    RolloutBad,
    /// Two more instances, and two fewer.
    Scale,
    /// SIGKILL of Mainstay's own processes but the gateway.
    Processes,
    /// SIGSTOP of one instance after another for some seconds.
    Freeze,
    /// Packets to and from one instance after another are dropped for some seconds. Needs root.
    Blackhole,
    /// The gateway's process replaced, one time after another.
    Upgrade,
    /// The table of forwarding emptied and deleted. Needs root.
    ForwardFlush,
    /// One service changes among thousands, in a network of its own. Needs root.
    ForwardCrowd,
    /// Hosts of instances cut off, in a network of its own. Needs root.
    ForwardCut,
    /// An instance's address given to another service at once, in a network of its own. Needs root.
    ForwardReuse,
}

/// Where the clients of a scenario enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// At the gateway, or by the service's address if it is not reached there.
    Entry,
    /// By service addresses that are forwarded below HTTP.
    Forwarded,
}

/// A text that names no scenario.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no scenario; expected kill, stop, rollout, rollout-bad, scale, processes, freeze, blackhole, upgrade, \
     forward-flush, forward-crowd, forward-cut or forward-reuse"
)]
pub struct ScenarioError {
    text: String,
}

/// Why a scenario did not come to its end as it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("{what} within {}: {seen}", mainstay_ids::duration::display(*.deadline))]
    NotInTime {
        what: String,
        deadline: std::time::Duration,
        seen: String,
    },
    #[error("{0}")]
    Unexpected(String),
    #[error("{attempt}: {}", chain(.source))]
    Api {
        attempt: &'static str,
        source: client::Error,
    },
    #[error("{0}")]
    CannotBreak(String),
    #[error("stopped before its end")]
    Stopped,
}

/// What was done, for the report. Times count from the load's start.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// When.
    pub at_ms: u64,
    /// What.
    pub what: String,
    /// How long until all that is wanted was ready again; `None`: it never was.
    pub whole_after_ms: Option<u64>,
}

/// A time in which requests may fail: what served them was struck without a warning, and below HTTP
/// nobody else can answer in its stead. Counted from the load's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outage {
    /// When it was struck.
    pub(crate) begin: std::time::Duration,
    /// How long the outage may be.
    pub(crate) bar: std::time::Duration,
    /// Which requests are its victims.
    pub(crate) victims: Victims,
}

/// Which requests an outage explains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victims {
    /// Those that failed before its bar was over.
    ByEnd,
    /// Those that were sent before its bar was over, whenever their clients found out.
    BySending,
}

impl Scenario {
    /// All of them, in the order in which they are best run.
    pub const ALL: [Self; 13] = [
        Self::Kill,
        Self::Stop,
        Self::Rollout,
        Self::RolloutBad,
        Self::Scale,
        Self::Processes,
        Self::Freeze,
        Self::Blackhole,
        Self::Upgrade,
        Self::ForwardFlush,
        Self::ForwardCrowd,
        Self::ForwardCut,
        Self::ForwardReuse,
    ];

    /// Whether it is played unless others are asked for. What strikes Mainstay itself, or the
    /// machine's packet filter, is not.
    pub fn is_usual(self) -> bool {
        match self {
            Self::Kill | Self::Stop | Self::Rollout | Self::RolloutBad | Self::Scale => true,
            Self::Processes
            | Self::Freeze
            | Self::Blackhole
            | Self::Upgrade
            | Self::ForwardFlush
            | Self::ForwardCrowd
            | Self::ForwardCut
            | Self::ForwardReuse => false,
        }
    }

    /// Where it is played, if that is a network of its own; `None`: on the running services.
    pub(crate) fn ground(self) -> Option<Ground> {
        match self {
            Self::ForwardCrowd => Some(Ground::Crowd),
            Self::ForwardCut => Some(Ground::Cut),
            Self::ForwardReuse => Some(Ground::Reuse),
            Self::Kill
            | Self::Stop
            | Self::Rollout
            | Self::RolloutBad
            | Self::Scale
            | Self::Processes
            | Self::Freeze
            | Self::Blackhole
            | Self::Upgrade
            | Self::ForwardFlush => None,
        }
    }

    /// Where its clients enter.
    pub(crate) fn way(self) -> Way {
        match self {
            Self::ForwardFlush | Self::ForwardCrowd | Self::ForwardCut | Self::ForwardReuse => {
                Way::Forwarded
            }
            Self::Kill
            | Self::Stop
            | Self::Rollout
            | Self::RolloutBad
            | Self::Scale
            | Self::Processes
            | Self::Freeze
            | Self::Blackhole
            | Self::Upgrade => Way::Entry,
        }
    }

    /// Whether it takes instances away, so that another must stand in.
    pub(crate) fn takes_instances(self) -> bool {
        match self {
            Self::Kill | Self::Stop | Self::Freeze | Self::Blackhole => true,
            Self::Rollout
            | Self::RolloutBad
            | Self::Scale
            | Self::Processes
            | Self::Upgrade
            | Self::ForwardFlush
            | Self::ForwardCrowd
            | Self::ForwardCut
            | Self::ForwardReuse => false,
        }
    }

    /// How its clients use connections, if they keep so many otherwise. Those of an upgrade connect
    /// for each request: what waits in a listening socket's queue is what a hand-over can lose. Those of
    /// forwarding, too: rules meet the first packet of each connection.
    pub(crate) fn connections(self, usual: Connections) -> Connections {
        match (self, usual) {
            (Self::Upgrade | Self::ForwardFlush, Connections::Kept(count)) => {
                Connections::PerRequest(count)
            }
            (_, usual) => usual,
        }
    }

    /// What it does, for people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Kill => "instances are killed without warning, one after another",
            Self::Stop => "instances are told to end by SIGTERM, one after another",
            Self::Rollout => "every instance is replaced by one of a new version, and back",
            Self::RolloutBad => "versions that cannot run are rolled out",
            Self::Scale => "two instances are added and taken away again",
            Self::Processes => "Mainstay's own processes but the gateway are killed",
            Self::Freeze => "instances are frozen for some seconds, one after another",
            Self::Blackhole => "instances are cut off for some seconds, one after another",
            Self::Upgrade => "the gateway is replaced, under clients that connect for each request",
            Self::ForwardFlush => {
                "the rules of forwarding are emptied and deleted by somebody else"
            }
            Self::ForwardCrowd => {
                "one service of 5,001 is rolled out, scaled and loses instances, in a network of its own"
            }
            Self::ForwardCut => "hosts of instances are cut off, in a network of its own",
            Self::ForwardReuse => {
                "addresses of instances are given to another service at once, in a network of its own"
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Rollout => "rollout",
            Self::RolloutBad => "rollout-bad",
            Self::Scale => "scale",
            Self::Processes => "processes",
            Self::Freeze => "freeze",
            Self::Blackhole => "blackhole",
            Self::Upgrade => "upgrade",
            Self::ForwardFlush => "forward-flush",
            Self::ForwardCrowd => "forward-crowd",
            Self::ForwardCut => "forward-cut",
            Self::ForwardReuse => "forward-reuse",
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Scenario {
    type Err = ScenarioError;

    fn from_str(text: &str) -> Result<Self, ScenarioError> {
        let found = Self::ALL
            .into_iter()
            .find(|scenario| scenario.name() == text);
        found.ok_or_else(|| ScenarioError {
            text: text.to_owned(),
        })
    }
}

impl Trouble {
    /// Whether it shows a fault of the system, and not that the proof could not be made.
    pub(crate) fn is_the_systems(&self) -> bool {
        match self {
            Self::NotInTime { .. } | Self::Unexpected(_) => true,
            Self::Api { .. } | Self::CannotBreak(_) | Self::Stopped => false,
        }
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
