//! VRRP, by which several machines agree on one that holds an address: version 3 (RFC 9568) and version 2 (RFC 3768),
//! interoperable with keepalived.
//!
//! Pure: no sockets, no clock, no threads; time is an argument, and nothing is allocated per advert. It is not the
//! program that holds an address: that one reads and writes packets and addresses as it is told here, and knows what
//! the health of a gateway is.
//!
//! Start reading at [`Router`], with `LIFECYCLE.md` beside it for the pictures; [`Advert`] and [`Outgoing`] are its
//! packets. `tests/conformance` shows what it does as data, `src/simulation` proves it in a network that goes wrong.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod announcements;
mod checksum;
mod clock;
mod contract;
mod options;
mod packet;
mod peers;
mod planted;
mod refused;
mod router;
#[cfg(test)]
mod simulation;
mod words;

pub use contract::{Action, Actions, Health, Input, Note, Oddity, Role, Why};
pub use options::{Handover, Options, OptionsError, Preempt, REFRESH};
pub use packet::{
    Addresses, Advert, Envelope, GROUP_V4, GROUP_V6, HOP_LIMIT, LEN_MAX, Outgoing, PROTOCOL, Reach,
};
pub use peers::Peer;
pub use refused::{Refused, WriteError};
pub use router::{Counts, Router};
pub use words::{Checksum, Interval, Priority, Version, Vrid};
