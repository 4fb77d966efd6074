//! Servers that Mainstay did not start: which of them a session goes to, and which may be chosen.
//!
//! [`Server`] is the machine of one server, kept by one task: its checks, what an operator wants of
//! it, for how long it was down. [`Choice`] chooses, once per worker and listener, among
//! [`Candidate`]s that the driver makes of the published standings and of the sessions counted over
//! all workers. Time and random numbers are arguments.

mod choice;
mod server;

pub use choice::{Candidate, Choice, Chosen, Pick, SHARE_MIN};
pub use server::{Changed, CheckResult, Input, Server, Standing, Wanted};
