//! Which endpoint a request is sent to, and whether it is sent again: pure, for each worker of the
//! gateway.
//!
//! Each worker has its own [`Set`] per service; nothing is shared but the number of requests in
//! flight, which the caller hands in. Choosing costs the same for 3 and for 500 endpoints and
//! allocates nothing. A random number is always an argument, and so is the time.
//!
//! Reading order: [`Course`], the life of one request; [`Balancer`], what a worker knows of one service;
//! [`Set`], [`latency`], [`ejection`], [`outlier`], [`slow_start`], [`limit`]; [`sticky`], for requests
//! that want a version or an instance; [`retry`], [`budget`], [`hedge`], [`recent`], [`mod@line`].
//! `LIFECYCLE.md` has the pictures.

mod balancer;
pub mod budget;
mod course;
pub mod ejection;
pub mod hedge;
pub mod latency;
pub mod limit;
pub mod line;
pub mod outlier;
pub mod recent;
pub mod retry;
mod set;
pub mod slow_start;
pub mod sticky;

pub use balancer::{Balancer, Hedging, Patience, Policy, Retrying};
pub use budget::RetryBudget;
pub use course::{
    Content, Course, Defeat, Demand, Event, For, LANES, Lane, Learnt, Loss, Next, ROUND_PAUSE,
    Scene, Why,
};
pub use ejection::{Outcome, Probing};
pub use line::{Line, LineBounds, Ticket};
pub use retry::{
    Attempted, Body, FailureKind, IdempotencyKey, MethodSafety, RetryVerdict, TRIES_MAX,
};
pub use set::{Choice, Limiting, Listed, Load, Need, Picked, Priority, Role, Set, Tag};
pub use sticky::{Affinity, Bond, Side, Traits, Wish};
