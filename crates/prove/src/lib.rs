//! Proves that services stay available: sends load, breaks things on purpose and tells what the
//! clients saw.
//!
//! It counts at the client and nowhere else: it reads no metrics of the gateway, and it steers the
//! system only by the public API, by signals to processes and by the packet filter, as an operator could
//! too ([`burst`] is a client of the broker, and no more). It starts nothing itself, but for [`floating`], which needs two machines of its own, and for what
//! [`Forwarding`] is: some scenarios have a network of their own, in which it is told the routes (ADR 36).
//! Start reading at [`prove()`]; [`load`] is the generator, which benches use
//! alone, [`scenario`] what is broken, [`verdict`] the rules by which it is judged.
//!
//! ```text
//! prove() ── for each scenario: control round ─> load (threads) ──┐
//!               stage: fault, wait until whole, fault, ...        ├─> verdict
//!               (faults, kills and their times) ──────────────────┘
//!   └── Progress ──> the display (bounded; a slow one loses lines, the verdict nothing)
//! ```

pub mod amqp;
pub mod burst;
mod cluster;
pub mod floating;
mod ground;
pub mod load;
mod prove;
mod render;
pub mod scenario;
pub mod verdict;

pub use ground::{DatagramReport, Follower, Forwarding};
pub use prove::{Error, Options, Progress, prove};
pub use render::render;
pub use scenario::Scenario;
pub use verdict::{Outcome, Verdict};
