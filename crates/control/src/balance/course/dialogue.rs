//! What a course and its driver say to each other: what happened, and what is done next.

use mainstay_model::routing::Unavailable;

use crate::balance::ejection::{Outcome, Verdict};
use crate::balance::line::Ticket;
use crate::balance::retry::{Body, MethodSafety};
use crate::balance::set::{Picked, Priority};

/// How many tries of one request are under way at once at most: two endpoints may freeze in the same
/// moment, and the third still answers.
pub const LANES: usize = 3;

/// One of the tries of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane(pub(super) usize);

impl Lane {
    /// All there are.
    pub const ALL: [Self; LANES] = [Self(0), Self(1), Self(2)];

    /// Its place among [`Self::ALL`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// Whether a request is more than its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// It is not.
    Bare,
    /// It has a body, or wants to change the protocol.
    More,
}

/// A request, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// What its method and its key promise.
    pub safety: MethodSafety,
    /// Whether it is more than its head.
    pub content: Content,
    /// Whether an overload spares it.
    pub priority: Priority,
}

/// How a connection that carried a part of a request ended before an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The instance closed or reset it.
    Broken,
    /// The centre declared the instance dead.
    Dead,
    /// The kernel gave it up for want of answers.
    TimedOut,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The request is here.
    Come,
    /// There is a connection, old or new, and the first byte goes out now: told *before* it does, and
    /// only if the course still runs this lane.
    Sent(Lane),
    /// The connection turned out to be dead before a byte of the request was sent; another is sought.
    Unsent(Lane),
    /// No connection came about.
    ConnectFailed(Lane),
    /// It was sent at least in part, and the connection ended.
    Lost(Lane, Loss, Body),
    /// The head of an answer is there, with this status.
    Head(Lane, u16, Body),
    /// [`Course::wake`](super::Course::wake) has come.
    Tick,
    /// A new table is in force.
    Changed,
    /// An endpoint may have room, and this is the first in the line.
    Turn,
    /// The client has waited as long as it is let wait.
    Expired,
}

/// Why a try begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is the first.
    First,
    /// One before it failed.
    Again,
    /// One before it has no connection yet.
    Impatience,
    /// One before it has no answer yet.
    Hedge,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// The tries under way.
    Answer,
    /// Room at an endpoint.
    Turn(Ticket),
    /// Another table, or some time.
    Change,
}

/// What the driver does next, besides ending the tries that the course does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Begin a try in this lane, and count it in the same step. The others go on.
    Begin(Lane, Picked, Why),
    /// Wait for whatever comes first: what is waited for, [`Course::wake`](super::Course::wake), a new table.
    Wait(For),
    /// Give the client the answer whose head this lane has.
    Deliver(Lane),
    /// Refuse the request.
    Refuse(Defeat),
}

/// Why a request was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defeat {
    /// The service has no endpoint, and why.
    Unavailable(Unavailable),
    /// The service has no endpoint, and nobody said why.
    NoEndpoint,
    /// Not one endpoint accepted a connection.
    AllFailed,
    /// It was sent, no answer came, and it must not be sent again.
    LostInFlight,
    /// It was sent, and no answer came in time.
    Expired,
    /// All endpoints were as busy as they may be, for as long as it waited or with no place to wait.
    Overloaded,
}

/// What was learnt about an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learnt {
    /// Which; as it was chosen.
    pub picked: Picked,
    /// From what.
    pub outcome: Outcome,
    /// What follows for it.
    pub verdict: Verdict,
}
