//! What Mainstay asks of Linux: starting processes, knowing them again, signals, cgroups, accounts,
//! inherited file descriptors, files that survive a loss of power, rules of nf_tables, routes, sockets
//! and tracked connections, addresses of interfaces, packets of protocols without ports, and
//! scheduling in real time.
//!
//! It decides nothing: it knows no service, no instance and no file format of ours. It is the only
//! crate that may contain `unsafe`; everything that it offers is safe to call. Start reading at
//! [`Spawn`] (how a process is started), then [`Identity`] (how it is known again by somebody who
//! did not start it), [`cgroup`] and [`strays`] (how nothing of it is left behind),
//! [`netlink`] (how rules, routes and addresses are changed, and what is known of connections),
//! [`protocol`] and [`neighbour`] (packets), [`pulse`] (whether threads of another process go on),
//! [`looked_at`] (whether files were changed), [`descriptors`] (how many may be open).
#![deny(clippy::undocumented_unsafe_blocks)]

pub mod account;
pub mod capacity;
pub mod cgroup;
pub mod descriptors;
pub mod durable;
pub mod hand;
pub mod inherit;
pub mod looked_at;
pub mod neighbour;
pub mod netlink;
pub mod notebook;
pub mod occupied;
pub mod peer;
pub mod procfs;
pub mod protocol;
pub mod pulse;
pub mod realtime;
pub mod signals;
pub mod strays;

mod identity;
mod reap;
mod sockopt;
pub mod spawn;
mod watched;

pub use account::Account;
pub use identity::{Identity, Pidfd, boot_id};
pub use reap::{Ended, Reaped, become_subreaper, reap_any, try_reap};
pub use spawn::{Child, Life, Place, Rights, Spawn, SpawnError, Step};
pub use watched::Watched;
