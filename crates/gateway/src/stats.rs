//! The statistics: `/stats` for people, `/stats;csv` and `/stats;json` as HAProxy's users have
//! them, `/metrics` for Prometheus.
//!
//! They are made in a thread and a runtime of their own, so that a slow reader or a large page
//! costs no request anything. Once a second the thread looks at all counters and keeps one
//! [`rows::Snapshot`] of everything; whoever asks gets the newest. What can be changed here are servers of listeners, for as
//! long as the gateway runs, and the intake of instances, by asking the control centre.
//!
//! ```text
//!  coordinator ── watch Roster ──> ┌──────────────── thread "stats" ────────────────┐
//!                                  │ gather, once a second ── watch Snapshot ──┬───>│ page, CSV, JSON
//!  workers' cells <── read ─────── │                                           └───>│ events
//!                                  │ exposition, when asked ───────────────────────>│ /metrics
//!                                  └────────────────────────────────────────────────┘
//! ```
//!
//! Reading order: [`rows`], `gather` with `past` and `listens`, `page` and `table`,
//! `exposition` with `floating`, `change`, `http`.

mod access;
mod change;
mod events;
mod exposition;
mod floating;
mod gather;
mod http;
mod listens;
mod page;
mod past;
mod rows;
mod table;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::listen::Handle;
use crate::metrics::{FrontendKey, GatewayCounters};
use crate::roster::Roster;
use mainstay_api::client::Client;

pub use access::{OpenToAll, StatsAuth};

use access::Access;

/// Where statistics are shown, and to whom.
#[derive(Debug)]
pub struct Stats {
    /// The socket that the supervisor holds.
    pub listener: TcpListener,
    /// Needed if other machines can reach the socket.
    pub auth: Option<StatsAuth>,
    /// The file with the API's token, which whoever changes something without a name and a password
    /// must know. It need not be there: then nobody can.
    pub token: PathBuf,
    /// The unix socket of the process that holds floating addresses, whose metrics are shown beside ours. It need not be
    /// there.
    pub floating: PathBuf,
}

/// Why statistics cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// Anybody could look.
    #[error(transparent)]
    OpenToAll(#[from] OpenToAll),
    /// The socket is none that listens.
    #[error("cannot use the socket for statistics that was handed over")]
    Socket(#[source] io::Error),
    /// Their thread cannot be started.
    #[error("cannot start the thread for statistics")]
    Thread(#[source] io::Error),
}

/// What is shown.
pub(crate) struct Shown {
    pub(crate) counters: Arc<GatewayCounters>,
    /// Where the entry listens.
    pub(crate) entry: Option<SocketAddr>,
    /// How many connections of clients there may be.
    pub(crate) connections_max: u64,
    pub(crate) rosters: watch::Receiver<Arc<Roster>>,
    pub(crate) clock: Clock,
    /// The way to the listeners.
    pub(crate) listens: Handle,
    /// Who keeps what operators want of instances.
    pub(crate) centre: Client,
}

/// The thread that shows statistics.
pub(crate) struct Display {
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl Display {
    /// Starts it. It ends with `end`, when the gateway begins to finish what is under way: from then
    /// on its successor shows them.
    pub(crate) fn open(
        stats: Stats,
        shown: Shown,
        end: &CancellationToken,
    ) -> Result<Self, StatsError> {
        let address = stats.listener.local_addr().map_err(StatsError::Socket)?;
        let access = Access::new(address, stats.auth.as_ref())?;
        // There from the beginning, also before the first client.
        shown.counters.frontend(FrontendKey::Entry);
        let stop = end.child_token();
        let setup = http::Setup {
            listener: stats.listener,
            access,
            token: stats.token,
            floating: stats.floating,
            shown,
            stop: stop.clone(),
        };
        let serve = move || {
            if let Err(error) = http::run(setup) {
                // Statistics are no reason to end the gateway.
                tracing::error!(%error, "statistics are no longer served");
            }
        };
        let thread = thread::Builder::new()
            .name("stats".into())
            .spawn(serve)
            .map_err(StatsError::Thread)?;
        Ok(Self { stop, thread })
    }

    /// Ends it.
    pub(crate) fn close(self) {
        self.stop.cancel();
        if self.thread.join().is_err() {
            tracing::error!("the thread for statistics panicked");
        }
    }
}
