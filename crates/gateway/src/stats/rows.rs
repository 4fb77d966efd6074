//! What is shown: one row per frontend, backend and server, as plain values.
//!
//! Whoever has something to show fills rows: [`super::gather`] from the routes and counters, and a
//! `[listen]` from the state of its own checks. Nothing here knows where a row came from.

use std::net::SocketAddr;
use std::time::Duration;

use mainstay_ids::{InstanceId, ServiceName};
use mainstay_model::Intake;

use super::listens::Listeners;

/// What a row tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A place where clients come in.
    Frontend,
    /// A service, or all servers of a `[listen]`.
    Backend,
    /// An instance, or a server that Mainstay did not start.
    Server,
}

/// Whether it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// It accepts connections.
    Open,
    /// It cannot listen: another program does.
    Unbound,
    /// It is asked.
    Up,
    /// It is asked, and nobody checks it.
    Unchecked,
    /// Its checks fail, or there is nobody to ask.
    Down,
    /// It finishes what it has, and gets nothing new.
    Drain,
    /// An operator took it out.
    Maintenance,
}

impl Status {
    /// The word that HAProxy uses, too.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Unbound => "STOP",
            Self::Up => "UP",
            Self::Unchecked => "no check",
            Self::Down => "DOWN",
            Self::Drain => "DRAIN",
            Self::Maintenance => "MAINT",
        }
    }
}

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// HTTP.
    Http,
    /// Bytes.
    Tcp,
}

impl Mode {
    /// Its word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }
}

/// How many there are now, at most so far, and may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) now: u64,
    pub(crate) max: u64,
    pub(crate) limit: Option<u64>,
}

/// How many there were in all, in the last second, and at most in a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) total: u64,
    pub(crate) rate: u64,
    pub(crate) rate_max: u64,
}

/// Durations of the last 20 to 30 seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Quantiles {
    pub(crate) p50: Option<Duration>,
    pub(crate) p90: Option<Duration>,
    pub(crate) p99: Option<Duration>,
    pub(crate) mean: Option<Duration>,
    /// Of its whole life.
    pub(crate) longest: Option<Duration>,
}

/// How long things take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Times {
    /// Waiting for a server.
    pub(crate) queue: Quantiles,
    /// Connecting to one.
    pub(crate) connect: Quantiles,
    /// From a request's first byte to the head of its answer.
    pub(crate) first_byte: Quantiles,
    /// From a request's first byte to its answer's last.
    pub(crate) total: Quantiles,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Errors {
    /// Requests and connections that a limit kept out or ended.
    pub(crate) denied: u64,
    /// Requests that were wrong.
    pub(crate) request: u64,
    /// Connections to servers that did not come about.
    pub(crate) connect: u64,
    /// Answers that did not come, or broke off.
    pub(crate) response: u64,
    /// Tries beyond the first.
    pub(crate) retries: u64,
    /// Requests that were brought to another server than the first.
    pub(crate) redispatches: u64,
    /// Clients that went away.
    pub(crate) client_aborts: u64,
    /// Servers that broke off.
    pub(crate) server_aborts: u64,
    /// How often a server was taken out for its failures.
    pub(crate) ejections: u64,
}

/// What the checks said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Checks {
    /// How often it went down.
    pub(crate) downs: u64,
    /// For how long it was down in all.
    pub(crate) downtime: Duration,
    /// What the last one found, for people.
    pub(crate) last: String,
    /// The same for programs; `None` if there was none, or it is not told.
    pub(crate) verdict: Option<Verdict>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// HAProxy's word: `L4OK`, `L7STS`.
    pub(crate) word: &'static str,
    /// The status of the answer, if there was one.
    pub(crate) code: Option<u16>,
    pub(crate) took: Duration,
}

/// How many servers of a backend can be asked, or which of both a server is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Roles {
    pub(crate) active: u64,
    pub(crate) backup: u64,
}

/// One line of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) kind: Kind,
    /// The group: a frontend's or backend's name.
    pub(crate) proxy: String,
    /// `FRONTEND`, `BACKEND` or the server's name.
    pub(crate) name: String,
    pub(crate) mode: Mode,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) status: Status,
    /// For how long it has had this status.
    pub(crate) since: Duration,
    /// `None` for frontends.
    pub(crate) weight: Option<u64>,
    pub(crate) roles: Roles,
    /// `None` for frontends.
    pub(crate) queue: Option<Level>,
    /// Connections of a frontend; requests in flight otherwise, or sessions of a listener.
    pub(crate) sessions: Level,
    /// Connections of a frontend; requests otherwise, each try of a server.
    pub(crate) session_flow: Flow,
    /// Requests of a frontend.
    pub(crate) requests: Option<Flow>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// By class, as in [`crate::metrics::RESPONSE_CLASSES`].
    pub(crate) responses: [u64; 6],
    pub(crate) errors: Errors,
    /// `None` for frontends.
    pub(crate) checks: Option<Checks>,
    /// `None` for frontends.
    pub(crate) times: Option<Times>,
    /// Since a request last came; `None` if none has.
    pub(crate) idle: Option<Duration>,
    /// New connections to servers.
    pub(crate) connects: u64,
}

impl Row {
    /// Names it among all rows of a snapshot.
    pub(crate) fn id(&self) -> String {
        format!("{}/{}", self.proxy, self.name)
    }
}

/// What is told of the gateway itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) uptime: Duration,
    pub(crate) workers: u64,
    /// The generation in force in every worker, as people read it; `None` before the first.
    pub(crate) generation: Option<String>,
    /// Lines of the access log that were dropped.
    pub(crate) log_dropped: u64,
}

/// Everything that is shown, as of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) own: Own,
    /// Frontends first, then each backend followed by its servers.
    pub(crate) rows: Vec<Row>,
    /// The listeners that the rows were made of.
    pub(crate) listeners: Listeners,
    /// The services and their instances in the routes.
    pub(crate) services: Vec<Instances>,
}

/// The instances of a service in the routes, and what operators want of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instances {
    pub(crate) service: ServiceName,
    pub(crate) intakes: Vec<(InstanceId, Intake)>,
}
