//! Services by name: a DNS server for `mainstay.internal`, which passes other names on to those whom
//! this machine asked before.
//!
//! It keeps no cache, so that nothing is older than what it was told, and looks up nothing itself. It
//! answers this machine and the networks that the node's file names, and nobody else.
//!
//! ```text
//!   follow ── watch Directory ──> zones ── watch Arc<Zone> ──┐
//!     └ names/directory.json                                 v
//!   datagrams: one task ── queries for others: a task each, 512 ──> Way ──> upstreams
//!   connections: one task ── a task each, 128 ────────────────────>  ^
//!   others::keep: looks at resolv.conf ──────────────────────────────┘
//! ```
//!
//! Start reading at `reply` (what becomes of a query, pure) with `zone`; then `serve`, `others`.

mod choice;
mod clients;
mod follow;
mod look;
mod others;
mod reply;
mod serve;
mod system;
#[cfg(test)]
mod tests;
mod upstream;
mod wire;
mod zone;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mainstay_model::Directory;
use mainstay_model::Network;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use look::{LookError, LookedUp, RecordKind, look_up};
pub use others::Upstreams;
pub use reply::{Others, Transport, Verdict, verdict};
pub use system::{RESOLV_CONF, ResolvConf};
pub use zone::{TTL, Zone};

pub(crate) use follow::follow;

use crate::context::Clock;
use clients::Gate;
use others::Way;
use serve::Counter;

/// Where and how names are answered.
#[derive(Debug)]
pub struct Options {
    /// Bound to one address, not to all: an answer would go out from another one.
    pub udp: std::net::UdpSocket,
    /// At the same address and port.
    pub tcp: std::net::TcpListener,
    /// Who is answered beside this machine.
    pub allow: Vec<Network>,
    /// Who is asked for other names.
    pub upstreams: Upstreams,
}

/// Answers names until `stop`, by the newest directory; with none, that it does not know.
pub(crate) async fn run(
    options: Options,
    directory: watch::Receiver<Option<Arc<Directory>>>,
    clock: Clock,
    stop: CancellationToken,
) -> io::Result<()> {
    let Options {
        udp,
        tcp,
        allow,
        upstreams,
    } = options;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    let (udp, tcp) = (UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?);
    let own = udp.local_addr()?;
    tracing::info!(address = %own, "answering names");
    let way = Way::new(clock);
    let (zones, zone) = watch::channel(Arc::new(Zone::unknown(own)));
    let counter = Counter {
        zone,
        way: way.clone(),
        clock,
    };
    let gate = || Gate::new(allow.clone());
    tokio::select! {
        () = keep_zone(directory, zones, own) => {}
        () = serve::datagrams(udp, counter.clone(), gate(), stop.clone()) => {}
        () = serve::connections(tcp, counter.clone(), gate(), stop.clone()) => {}
        () = others::keep(way, upstreams, own, stop.clone()) => {}
        () = stop.cancelled() => {}
    }
    Ok(())
}

/// Makes a zone of each directory. Ends with whoever feeds it, and never before.
async fn keep_zone(
    mut directory: watch::Receiver<Option<Arc<Directory>>>,
    zones: watch::Sender<Arc<Zone>>,
    own: SocketAddr,
) {
    loop {
        if let Some(directory) = directory.borrow_and_update().as_deref() {
            zones.send_replace(Arc::new(Zone::of(directory, own)));
        }
        if directory.changed().await.is_err() {
            // What is known stays true enough: the data plane outlives whoever feeds it.
            return std::future::pending().await;
        }
    }
}
