//! Holds floating addresses: speaks VRRP on real interfaces for [`mainstay_vrrp`], puts addresses where it says so, and
//! looks after what must work for them to be here.
//!
//! It decides nothing about who holds an address, and it is no daemon of its own: `mainstay run` starts it. One thread,
//! no runtime, scheduled in real time where that is allowed; nothing is allocated per advert.
//!
//! ```text
//!             signals   changes of interfaces   packets, per seat   callers   ends of processes, ports
//!                │               │                    │                │             │
//!                └───────────────┴──── one epoll ─────┴────────────────┴─────────────┘
//!                                          │ or the next deadline of all
//!                              ┌───────────▼────────────┐
//!                 each seat:   │ drain, judge, tick,    │ ──► packets, addresses, announcements, hooks
//!                              │ renew the addresses    │
//!                              └────────────────────────┘
//! ```
//!
//! An address dies with its holder: it has a lifetime of three seconds, renewed every half a second. Start reading at
//! [`run()`], then `seat` (one virtual router), `track` (what it depends on), `verdict` (what the death of that means),
//! `departure` (how an address leaves on purpose).

mod agent;
mod altered;
mod calls;
mod clock;
mod departure;
mod happenings;
mod hook;
mod host;
mod journal;
mod leave;
mod metrics;
pub mod refusals;
mod run;
pub mod seams;
mod seat;
pub mod settings;
mod signed;
mod track;
mod verdict;
pub mod view;

pub use calls::SOCKET;
pub use run::{Options, OwnAgent, RealTime, RunError, run};
pub use seams::Seams;
