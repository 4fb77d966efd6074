//! Listeners for servers that Mainstay did not start: TCP in, a server chosen, TCP out; or, in HTTP
//! mode, a server chosen for each request by the gateway's own path.
//!
//! ```text
//!  settings                     one task                          N worker threads
//!  ┌──────────────┐ watch ┌──────────────────┐ watch Arc<Roster> ┌─────────────────────────────┐
//!  │ [ListenSpec] ├──────►│ Chief            ├──────────────────►│ Seat: views, choices,       │
//!  └──────────────┘       │  a Server each   │ Order: sockets    │  pools of buffers and pipes │
//!  Handle ── mpsc Ask ───►│  JoinSet: checks ├──────────────────►│  ├ accept task per socket   │
//!  (stats, drain, weight) │  sockets         │◄──── Failure ─────┤  └ a task per session       │
//!                         └──────────────────┘  (connect failed) └─────────────────────────────┘
//! ```
//!
//! - The **chief** owns the machines of the servers (`control::listen::Server`), tries them, and
//!   publishes who may be chosen. Settings are applied in memory: sessions at servers that stay are
//!   not touched.
//! - A **seat** is a worker's part: it accepts on its own SO_REUSEPORT sockets, chooses
//!   (`control::listen::Choice`) and carries. Between workers are shared, per server and per
//!   listener, a few atomics: sessions, so that the fewest are the fewest over all workers, and
//!   counts. Nothing is locked.
//! - A **session** holds no buffer while nothing moves, one of 16 KiB per direction while something
//!   does, and a pipe instead once a direction has carried 64 KiB (splice(2)).
//!
//! - A listener in **HTTP mode** is a service to the workers (`http`): the chief publishes its
//!   servers as endpoints, and a connection of a client becomes one of the gateway's own.
//!
//! Nothing of the client's has been sent before a connection to a server stands, so a connection
//! that cannot be made is made elsewhere, always. After that a lost server is a lost session: what
//! the bytes mean is not known here.
//!
//! Reading order: [`Listens`], `roster` (what is shared), `chief`, `seat`, `session`, `pump`;
//! `http`; `check`; [`snapshot`].

mod check;
mod chief;
mod handle;
mod http;
mod keepsake;
mod limits;
mod pools;
mod pump;
mod roster;
mod seat;
mod session;
pub mod snapshot;
mod sockets;

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mainstay_kernel::hand::Offer;
use mainstay_model::ListenSpec;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::listen::chief::{Chief, Ports};
use crate::listen::keepsake::Keepsake;
use crate::listen::limits::{ASKS, FAILURES, ORDERS};
use crate::listen::sockets::Sockets;

pub use check::CheckReport;
pub(crate) use handle::ServerAt;
pub use handle::{Handle, HandleError};
pub(crate) use http::HttpService;
pub(crate) use roster::Roster;
pub(crate) use seat::Seat;
pub(crate) use sockets::inherit;

/// All listeners that are wanted; another list replaces it whole.
pub type Wanted = Arc<[ListenSpec]>;

/// How listeners are to run.
#[derive(Debug)]
pub struct Options {
    /// How long sessions may go on once the gateway is told to stop.
    pub drain: Duration,
    /// Sockets that are bound already, one for each worker: for ports that this process may not bind,
    /// or that a process before it held. The others are bound here, and these are closed if no
    /// listener wants them at the start.
    pub bound: HashMap<SocketAddr, Vec<TcpListener>>,
    /// Where copies of all sockets are offered to a successor.
    pub offer: Offer,
    /// The file in which what operators set of servers is kept for the next start; `None`: nowhere.
    pub keepsake: Option<PathBuf>,
    /// For tests.
    pub splice: Splice,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            drain: mainstay_model::listen::DRAIN,
            bound: HashMap::new(),
            offer: Offer::default(),
            keepsake: None,
            splice: Splice::On,
        }
    }
}

/// Whether large transfers stay in the kernel. A seam, to measure what it gains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Splice {
    /// They do.
    #[default]
    On,
    /// All bytes are copied through a buffer.
    Off,
}

/// Why listeners ended, or could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A runtime cannot be made.
    #[error("cannot make a runtime for the listeners")]
    Runtime(#[source] io::Error),
    /// A worker's thread cannot be started.
    #[error("cannot start a worker's thread for the listeners")]
    Thread(#[source] io::Error),
    /// A worker ended although nobody told it to.
    #[error("a worker of the listeners panicked")]
    Worker,
}

/// The listeners, before they run.
#[derive(Debug)]
pub struct Listens {
    options: Options,
    wanted: watch::Receiver<Wanted>,
    handle: Handle,
    asks: mpsc::Receiver<handle::Ask>,
}

impl Listens {
    /// Listeners as `wanted` says, at each moment.
    pub fn new(options: Options, wanted: watch::Receiver<Wanted>) -> Self {
        let (to_chief, asks) = mpsc::channel(ASKS);
        Self {
            options,
            wanted,
            handle: Handle::new(to_chief),
            asks,
        }
    }

    /// To look at them and to drain servers.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs them in this thread and in `workers` more, until `stop` and the end of their sessions:
    /// a gateway for nothing else, which carries no HTTP. Beside a gateway's entry they run on its
    /// workers.
    pub fn run(self, workers: NonZeroUsize, stop: &CancellationToken) -> Result<(), Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::Runtime)?;
        let (chief, seats) = self.seats(Clock::start(), workers.get(), stop);
        let mut threads = Vec::new();
        for (index, seat) in seats.into_iter().enumerate() {
            let thread = thread::Builder::new().name(format!("listen-{index}"));
            threads.push(
                thread
                    .spawn(move || run_seat(seat))
                    .map_err(Error::Thread)?,
            );
        }
        runtime.block_on(chief.run());
        let mut result = Ok(());
        for thread in threads {
            result = result.and(thread.join().unwrap_or(Err(Error::Worker)));
        }
        result
    }

    /// The task for the coordinator's thread, and one seat for each worker's.
    pub(crate) fn seats(
        self,
        clock: Clock,
        workers: usize,
        stop: &CancellationToken,
    ) -> (Chief, Vec<Seat>) {
        let all = CancellationToken::new();
        let (rosters, roster) = watch::channel(Arc::new(Roster::default()));
        let (to_chief, failures) = mpsc::channel(FAILURES);
        let mut orders = Vec::new();
        let mut seats = Vec::new();
        for _ in 0..workers {
            let (orders_to, orders_of) = mpsc::channel(ORDERS);
            orders.push(orders_to);
            seats.push(Seat {
                clock,
                rosters: roster.clone(),
                orders: orders_of,
                failures: to_chief.clone(),
                all: all.clone(),
                stop: stop.clone(),
                drain: self.options.drain,
                splice: self.options.splice,
                wishes: None,
            });
        }
        let ports = Ports {
            wanted: self.wanted,
            asks: self.asks,
            failures,
            rosters,
            orders,
            stop: stop.clone(),
        };
        let sockets = Sockets::new(self.options.bound, self.options.offer);
        let keepsake = self.options.keepsake.map(Keepsake::at);
        let chief = Chief::new(clock, all, (sockets, keepsake), ports);
        (chief, seats)
    }
}

fn run_seat(seat: Seat) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build_local(tokio::runtime::LocalOptions::default())
        .map_err(Error::Runtime)?;
    runtime.block_on(seat.run(None));
    Ok(())
}
