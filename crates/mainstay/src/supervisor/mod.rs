//! The supervisor: holds the listening sockets, starts our own processes and starts them again.
//!
//! It keeps no state of the services and decides nothing about them. Its death stops nobody: the
//! processes go on, and the next supervisor adopts them by their claims and `supervisor.json`.
//!
//! ```text
//!   dev (task)          prints events, declares FILE, waits for Ctrl-C
//!     │ CancellationToken
//!   family (same task)  one entry per process: pidfd, restart machine
//!     ├─ server   sockets: api (unix), api-tcp
//!     ├─ agent
//!     └─ gateway  sockets: entry × workers
//! ```

pub(crate) mod claim;
pub(crate) mod dev;
pub(crate) mod family;
pub(crate) mod last_words;
pub(crate) mod lock;
pub(crate) mod record;
pub(crate) mod sockets;

use anyhow::Context as _;
use mainstay_ids::NodeName;

/// The name of the only node.
pub(crate) fn node() -> anyhow::Result<NodeName> {
    NodeName::parse("local").context("`local` is a name")
}
