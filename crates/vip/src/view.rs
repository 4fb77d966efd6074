//! What is shown of floating addresses to who asks (`mainstay vip`), as JSON.

use std::fmt;
use std::net::IpAddr;

use mainstay_ids::{Timestamp, VipName};
use serde::{Deserialize, Serialize};

use crate::refusals::Reason;

/// The state, by the words of VRRP's users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It holds the address.
    Master,
    /// It watches the one that does.
    Backup,
    /// It cannot take part: the interface does not work, or has no address of its own.
    Fault,
    /// The process ends.
    Stop,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Master, Self::Backup, Self::Fault, Self::Stop];

    /// Its word, in metrics and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Backup => "backup",
            Self::Fault => "fault",
            Self::Stop => "stop",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Master => "MASTER",
            Self::Backup => "BACKUP",
            Self::Fault => "FAULT",
            Self::Stop => "STOP",
        })
    }
}

/// All of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shown {
    /// Whether this process is scheduled in real time; else why not.
    pub real_time: Result<(), String>,
    /// Each floating address.
    pub vips: Vec<ShownVip>,
}

/// One of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShownVip {
    /// Its name.
    pub name: VipName,
    /// Where it is.
    pub state: State,
    /// It holds the address, and offers it to others.
    pub offers: bool,
    /// Its gateway lets its clients go, before it is offered.
    #[serde(default)]
    pub leaves: bool,
    /// Why it can take no part.
    pub fault: Option<String>,
    /// The addresses, with their networks.
    pub addresses: Vec<String>,
    /// How many of them are on this machine now.
    pub held: usize,
    /// The interface.
    pub interface: String,
    /// Its number on the link.
    pub vrid: u8,
    /// The priority that counts now.
    pub priority: u8,
    /// The time between two adverts, in milliseconds.
    pub advert_ms: u64,
    /// How long ago an advert of another machine was heard, in milliseconds; `None`: none was.
    pub advert_age_ms: Option<u64>,
    /// Who is followed as master.
    pub master: Option<IpAddr>,
    /// Those that were heard.
    pub peers: Vec<ShownPeer>,
    /// What it depends on.
    pub tracks: Vec<ShownTrack>,
    /// What has been counted.
    pub counts: ShownCounts,
    /// The last changes, the oldest first.
    pub past: Vec<Moment>,
}

/// Another router.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShownPeer {
    /// Its address.
    pub address: IpAddr,
    /// What it said last.
    pub priority: u8,
}

/// Something that is tracked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShownTrack {
    /// What.
    pub what: String,
    /// Whether it works.
    pub works: bool,
}

/// Since the start of the process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShownCounts {
    /// Adverts that were believed.
    pub heard: u64,
    /// Adverts that were sent.
    pub sent: u64,
    /// Times that it became master.
    pub took_over: u64,
    /// Times that it ceased to be master.
    pub gave_way: u64,
    /// Own stalls.
    pub stalls: u64,
    /// Packets that were not believed.
    pub refused: u64,
    /// The same, by why: each reason that there is.
    pub refused_by: Vec<ShownRefused>,
    /// How often each state was entered.
    pub entered: Vec<ShownEntered>,
}

/// Packets that were not believed for one reason.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ShownRefused {
    /// Why.
    pub reason: Reason,
    /// How many.
    pub count: u64,
}

/// How often a state was entered.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ShownEntered {
    /// Which.
    pub state: State,
    /// How often.
    pub count: u64,
}

/// A change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Moment {
    /// When.
    pub at: Timestamp,
    /// What it became.
    pub state: State,
    /// Why.
    pub why: String,
}

/// What is answered to a caller.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The state of all.
    Shown(Shown),
    /// What is counted, in Prometheus' text format; said as it is, and not as JSON.
    Metrics(String),
    /// The address is offered to the others.
    Moving,
    /// It cannot be; why.
    Refused(String),
}
