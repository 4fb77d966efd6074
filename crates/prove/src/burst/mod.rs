//! A burst, proved: publishers with confirms at a steady rate, for some seconds at ten times that, and a consumer whose rate does not
//! change. The backlog rises and falls; nothing that was confirmed is lost, nothing comes twice, the order of each publisher is
//! kept.
//!
//! All of that is counted at the clients, who say for each message what became of it. What the broker says of itself, its seconds to
//! empty, is asked for meanwhile and held against what came true; the verdict does not look at it.
//!
//! ```text
//!   publisher × 2 (a thread each) ── publishes ─► queue ── deliveries ─► consumer (a thread)
//!        ▲                                                                  │ acknowledges one by one, at its rate
//!        └── confirms                                                       ▼
//!   run: looks ten times a second at what was sent and what was acknowledged; says when it is enough ──► judge
//! ```
//!
//! Start reading at [`prove()`], then `plan` (what is sent when), `clients`, [`Report`].

mod clients;
mod plan;
mod render;
mod report;
mod run;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::amqp;

pub use render::render;
pub use report::{Foretold, Report};

/// What it is called.
pub const NAME: &str = "burst";

/// What is to be proved.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the broker listens.
    pub broker: SocketAddr,
    /// Messages per second, outside of the burst.
    pub rate: NonZeroU32,
    /// How long the burst is.
    pub burst: Duration,
    /// What the broker says of itself.
    pub view: Arc<dyn View>,
}

/// The broker's own word.
pub trait View: fmt::Debug + Send + Sync {
    /// How a queue of the virtual host `/` stands.
    fn queue(&self, name: &str) -> Result<Standing, String>;
}

/// How a queue stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// Messages, waiting or delivered.
    pub messages: u64,
    /// When it is empty; `None`: it does not become so.
    pub seconds_to_empty: Option<f64>,
}

/// Why nothing could be proved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no broker, or it does not let us in.
    #[error("cannot make a queue with the broker at {address}")]
    Broker {
        /// Where it was looked for.
        address: SocketAddr,
        /// Why.
        #[source]
        source: amqp::Error,
    },
    /// Somebody asked for the end.
    #[error("stopped before its end")]
    Stopped,
    /// A mistake of ours.
    #[error("a thread of the proof panicked")]
    Panic,
}

/// Plays it, telling `tell` what is done. Cancelling `stop` ends it; the queue is deleted in any case.
pub async fn prove(
    options: Options,
    tell: impl Fn(&str) + Send + 'static,
    stop: CancellationToken,
) -> Result<Report, Error> {
    let played = spawn_blocking(move || run::run(&options, &tell, &stop));
    played.await.map_err(|_| Error::Panic)?
}
