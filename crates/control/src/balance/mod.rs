//! Which endpoint a request is sent to, and whether it is sent again: pure, for each worker of the
//! gateway.
//!
//! Each worker has its own [`Set`] per service; nothing is shared but the number of requests in
//! flight, which the caller hands in. Choosing costs the same for 3 and for 500 endpoints and
//! allocates nothing. A random number is always an argument, and so is the time.
//!
//! Reading order: [`Set`], [`latency`], [`ejection`], [`slow_start`]; [`sticky`], for requests that
//! want a version or an instance; [`retry`] and [`budget`].

pub mod budget;
pub mod ejection;
pub mod latency;
pub mod retry;
mod set;
pub mod slow_start;
pub mod sticky;

pub use budget::RetryBudget;
pub use ejection::Outcome;
pub use retry::{Attempted, Body, FailureKind, MethodSafety, RetryVerdict, TRIES_MAX};
pub use set::{Listed, Picked, Set, Tag};
pub use sticky::{Affinity, Bond, Side, Traits, Wish};
