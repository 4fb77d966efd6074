//! Connections to service addresses reach their instances: below HTTP, for every program, of every
//! protocol on TCP and UDP, at the speed of the kernel where it can be had.
//!
//! It decides nothing: which instance gets which share comes from `mainstay_control::forward`. One
//! [`BackEnd`] brings it about; which one a host can have is found out by trying.
//!
//! Start reading at [`BackEnd`], then [`nft`]; [`iptables`] and [`userspace`] do the same with less.
//! What rules cannot do for those who are under way is in [`Underway`]. What is in force, whoever made
//! it, is a [`reading::Reading`]; [`explain`] says how a connection would go, [`host`] what of the host
//! stands in the way, [`purge`] takes everything away.

mod back_end;
mod claim;
pub mod explain;
pub mod host;
pub mod iptables;
#[cfg(any(test, feature = "measured"))]
pub mod measured;
pub mod nft;
pub mod purge;
pub mod reading;
pub mod router;
mod start;
#[cfg(test)]
mod tests;
mod underway;
pub mod userspace;
pub mod xtables;

pub use back_end::{BackEnd, Counted, ForwardError, Found, Meter};
pub use claim::{Claim, ClaimError};
pub use mainstay_control::forward::Batch;
pub use start::{Started, start};
pub use underway::{Dead, Draining, Severed, Underway, UnderwayError, Whereabouts};
