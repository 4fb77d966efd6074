//! The decisions of Mainstay: health, restarts, rollouts, drains, routing and balancing.
//!
//! Pure: every decision is a function of explicit state, an input and a time that is handed in.
//! Nothing here opens a socket or a file, reads a clock, draws a random number or starts a thread;
//! where one is needed it is an argument. The simulation, `crates/sim`, runs the very same code as
//! the binary.
//!
//! Start reading at [`Control`], the machine of a whole cluster of one node, with `LIFECYCLE.md`
//! beside it for the pictures of an instance, a rollout and a drain. The agent uses [`health`] and
//! [`restart`], so that instances are kept alive without the control centre; the gateway uses
//! [`balance`] on each worker, and [`listen`] for servers that Mainstay did not start; whoever forwards
//! connections below HTTP uses [`forward`].
#![no_std]

extern crate alloc;

pub mod backups;
pub mod balance;
mod cluster;
pub mod forward;
pub mod health;
pub mod listen;
pub mod restart;
pub mod why;

pub use cluster::Control;
pub use cluster::consumers::{CONSUMER_LEASE, Presence};
pub use cluster::contract::{
    AcknowledgedDrain, Apply, Change, Clock, Input, IntakeWish, LastOne, Note, Refusal, Reply,
    ServiceChange, Settings,
};
pub use cluster::handle::{StickyKey, StickyKeyError};
pub use cluster::snapshot::{RestoreError, SNAPSHOT_FORMAT, Seen, Snapshot};
pub use cluster::views::{
    ConsumerView, DrainView, InstanceView, LastRun, NodeView, ScheduleView, ServiceView,
};
