//! The decisions of Mainstay in a world that goes wrong: the very code of `mainstay-control` in
//! virtual time, with an agent, programs, consumers, a disk and people that all misbehave, and a
//! judge who looks after each input whether a promise was broken.
//!
//! It is not a test of the drivers: what the server, the agent and the gateway owe the machine is
//! played here by a few hundred lines that keep to the same contract. Nothing here is shipped.
//!
//! Start reading at [`run`]; [`World`] is the world, [`Promise`] lists what must always hold, and
//! `mutants/` holds the planted bugs that show that each promise can fail.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "the numbers of a simulated world are small"
)]

mod agent;
mod broken;
mod calm;
mod campaign;
mod conditions;
mod consumer;
mod entry;
mod fixtures;
mod glance;
mod judge;
mod panics;
mod people;
mod program;
mod random;
mod recovery;
mod simulation;
mod tally;
mod told;
mod world;

pub use agent::Agent;
pub use broken::{Broken, Promise};
pub use campaign::{Campaign, Failure, Progress};
pub use conditions::{Chance, Conditions, Mishaps};
pub use consumer::Consumer;
pub use entry::{EntryPromise, Hurt, Played, Plot, Strike, Trouble, play};
pub use fixtures::{DEADLINE, DRAIN, GRACE, HOLD, name, spec};
pub use panics::keep_panics;
pub use program::Behaviour;
pub use random::Random;
pub use recovery::{Recovery, recover};
pub use simulation::{Outcome, Trace, run};
pub use tally::Tally;
pub use world::{Answer, Cut, World};
