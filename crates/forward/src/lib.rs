//! Connections to service addresses reach their instances: below HTTP, for every program, of every
//! protocol on TCP and UDP, at the speed of the kernel where it can be had.
//!
//! It decides nothing: which instance gets which share comes from `mainstay_control::forward`. One
//! [`BackEnd`] brings it about; which one a host can have is found out by trying.
//!
//! Start reading at [`BackEnd`], then [`nft`]; [`iptables`] and [`userspace`] do the same with less.
//! What rules cannot do for those who are under way is in [`Underway`].

mod back_end;
mod claim;
pub mod iptables;
#[cfg(any(test, feature = "measured"))]
pub mod measured;
pub mod nft;
mod start;
#[cfg(test)]
mod tests;
mod underway;
pub mod userspace;

pub use back_end::{BackEnd, Counted, ForwardError, Found};
pub use claim::{Claim, ClaimError};
pub use mainstay_control::forward::Batch;
pub use start::{Started, start};
pub use underway::{Dead, Draining, Severed, Underway, UnderwayError, Whereabouts};
