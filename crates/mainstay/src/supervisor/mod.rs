//! The supervisor: holds the listening sockets, starts our own processes and starts them again.
//!
//! It keeps no state of the services and decides nothing about them. Its death stops nobody: the
//! processes go on, and the next supervisor adopts them by their claims and `supervisor.json`.
//!
//! ```text
//!   dev, or run (task)  declares services, tells events, waits for the end;
//!     │                 run: looks at the node file
//!     │ mpsc Wish, 4
//!   backups (same task)  a process for each backup that is due
//!     │ watch [backup]
//!   family (same task)  one entry per process: pidfd, restart machine
//!     ├─ server   sockets: api (unix), api-tcp
//!     ├─ agent    sockets: names-udp, names-tcp
//!     └─ gateway  sockets: entry × workers, stats; file: gateway/settings.json
//! ```

mod backups;
pub(crate) mod claim;
pub(crate) mod dev;
pub(crate) mod family;
mod front;
mod household;
pub(crate) mod kind;
pub(crate) mod last_words;
mod listening;
pub(crate) mod lock;
mod names;
mod notify;
pub(crate) mod record;
pub(crate) mod run;
mod settings;
pub(crate) mod sockets;
mod upgrade;
mod wish;

use anyhow::Context as _;
use mainstay_ids::NodeName;

/// The name of the only node.
pub(crate) fn node() -> anyhow::Result<NodeName> {
    NodeName::parse("local").context("`local` is a name")
}
