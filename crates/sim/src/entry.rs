//! Clients, the workers of a gateway, and three instances of which one fails, or two do: the
//! decisions about single requests, in virtual time.
//!
//! The workers here are what a driver must be: they carry out what [`mainstay_control::balance::Course`]
//! says and tell it what came of it. Instances and the network are played; a judge counts what clients
//! saw, and what instances carried out.

mod bout;
mod instance;
mod judge;
mod plot;
mod promise;
mod worker;

pub use bout::{Played, play};
pub use plot::{Plot, Strike, Trouble};
pub use promise::{EntryPromise, Hurt};
