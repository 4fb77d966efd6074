//! What a request's driver and its course tell each other.

use mainstay_ids::Instant;
use mainstay_model::routing::Unavailable;

use super::super::balancer::Balancer;
use super::super::budget::RetryBudget;
use super::super::ejection::{Outcome, Verdict};
use super::super::line::Ticket;
use super::super::retry::{Body, MethodSafety};
use super::super::set::{Picked, Priority};
use super::super::sticky::{Traits, Wish};

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
    /// [`super::Course::wake`] has come.
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
    /// Wait for whatever comes first: what is waited for, [`super::Course::wake`], a new table.
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

/// Everything around a request that a decision needs.
pub struct Scene<'a, E, L> {
    /// The time.
    pub now: Instant,
    /// Evenly distributed, new for each call.
    pub random: u64,
    /// What this worker knows of the request's service.
    pub balancer: &'a mut Balancer<E>,
    /// What this worker may send again.
    pub budget: &'a mut RetryBudget,
    /// Why the service has no endpoint, if it has none.
    pub unavailable: Option<Unavailable>,
    /// What the request wants beside an endpoint that works.
    pub wish: Wish,
    /// What of an endpoint the wish is about.
    pub traits: &'a dyn Fn(&E) -> Traits,
    /// What is under way to an endpoint. In [`Event::Head`] the request itself still counts.
    pub load: L,
    /// Told what was learnt, for counters and logs.
    pub learnt: &'a mut dyn FnMut(Learnt),
}

impl<E, L> core::fmt::Debug for Scene<'_, E, L> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Scene")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}
