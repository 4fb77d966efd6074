//! The broker of one machine: `mainstay_amqp` on sockets, with what is durable in the log of `mainstay_journal`.
//!
//! It decides nothing about AMQP: what a method does, who gets a message, when something is confirmed is the core's. It is
//! no cluster: one process, one directory.
//!
//! ```text
//!   clients ◄─► connection (a task each) ── Inbox, 1024 ──► host (a task per virtual host: owns the Broker)
//!                    ▲                                          │        │              ▲
//!                    └── Mailbox, paused above 256 KiB ─────────┘        │ mpsc, 16     │ Reports
//!                                                                        ▼              │
//!   doorman: slow hashes on blocking threads                      writer (a thread: has the MessageLog; a host writes
//!   reader: bodies that are in no memory, on blocking threads     there itself when nobody else wants anything)
//!   alarm: looks each second, blocks publishers
//!   measures: has each virtual host look at its rates, each second; answers /metrics
//! ```
//!
//! Everything but the writer, cold bodies and slow hashes is on one thread: between a client's bytes and the queue there is
//! no lock and no wake of another thread. What is always true: outputs reach mailbox and log in the order of the core; what
//! follows a declaration waits until that is on disk; a confirm leaves after the sync of its message; when a sync fails,
//! nothing is confirmed any more and the process ends.
//!
//! Start reading at [`run`], then `host` (one turn), `connection`, `writer`.

mod accounts;
mod alarm;
mod backup;
mod calls;
mod clock;
mod confirms;
mod connection;
mod definitions;
mod desk;
mod door;
mod doorman;
mod exposition;
mod host;
mod house;
mod inbox;
mod limits;
mod mailbox;
mod measures;
mod metrics;
mod opening;
mod reader;
mod record;
mod register;
mod seams;
mod tls;
pub mod view;
mod writer;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use mainstay_journal::messages::AppendError;
use mainstay_tls::Files;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use crate::accounts::{PasswordError, PatternError};
pub use crate::alarm::Limits;
pub use crate::backup::{BackupError, Counts, copy_closed, count};
pub use crate::definitions::{left_out, policies_with_copies};
pub use crate::opening::{Checked, DIRECTORY, LOG, OpenError, check};
pub use crate::record::RecordError;
pub use crate::seams::{Acknowledgements, Confirms, Keeps, SeamError, Seams, Sequence, Syncs};

use crate::door::{Door, Speech};
use crate::house::House;
use crate::limits::STOPPING;
use crate::opening::{Opened, open};
use crate::tls::Certificate;

/// What a broker is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The state directory; the broker's own files are in `broker` below it.
    pub state: PathBuf,
    /// When publishers wait.
    pub limits: Limits,
    /// What clients with TLS are shown, if there are any.
    pub tls: Option<Files>,
    /// What a test wants to see fail.
    pub seams: Seams,
    /// What clients may take.
    pub clients: ClientLimits,
    /// Where `/metrics` is answered; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
}

/// What clients may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// How long a consumer may keep a delivery without a word; `None`: for ever.
    pub consumer_timeout: Option<Duration>,
    /// Queues that clients may declare in a virtual host; `None`: any number.
    pub queues_max: Option<usize>,
}

/// The listening sockets that were handed over.
#[derive(Debug)]
pub struct Sockets {
    /// For AMQP.
    pub amqp: Vec<TcpListener>,
    /// For AMQP in TLS; nobody is served there without [`Options::tls`].
    pub amqps: Vec<TcpListener>,
}

/// Why a broker ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What is on disk cannot be used.
    #[error("cannot open the broker's log")]
    Open(#[from] OpenError),
    /// No salt can be made.
    #[error("cannot look after passwords")]
    Password(#[from] PasswordError),
    /// A socket cannot be used.
    #[error("cannot listen on a socket that was handed over")]
    Listen(#[source] io::Error),
    /// The thread that writes cannot be started.
    #[error("cannot start the thread that writes the log")]
    Thread(#[source] io::Error),
    /// The disk failed. Nothing was confirmed that is not on disk; the next start reads what is there.
    #[error("the broker's log takes nothing more")]
    Log(#[source] AppendError),
    /// A mistake of the broker. What is on disk is whole.
    #[error("the broker cannot trust its memory any more: {0}")]
    GivenUp(&'static str),
}

/// Runs a broker until `stop`, on the current runtime, which is to be one of a single thread.
pub async fn run(options: Options, sockets: Sockets, stop: CancellationToken) -> Result<(), Error> {
    LocalSet::new()
        .run_until(serve(options, sockets, stop))
        .await
}

async fn serve(options: Options, sockets: Sockets, stop: CancellationToken) -> Result<(), Error> {
    let Opened {
        house,
        doorman,
        writer,
        directory,
    } = open(&options).await?;
    let door = Door::new(Rc::clone(&house), Rc::new(doorman), house.room);
    let close = CancellationToken::new();
    let mut doors = JoinSet::new();
    open_doors(&mut doors, &door, sockets.amqp, &close)?;
    let mut watches = JoinSet::new();
    if let Some(files) = options.tls {
        let certificate = Rc::new(Certificate::new(files, Rc::clone(&house.tls)));
        let door = door.with(Speech::Tls(Rc::clone(&certificate)));
        open_doors(&mut doors, &door, sockets.amqps, &close)?;
        watches.spawn_local(certificate.follow());
    }
    let orders = house.orders().downgrade();
    watches.spawn_local(alarm::watch(Rc::clone(&house), directory, orders));
    watches.spawn_local(measures::sample(Rc::clone(&house)));
    if let Some(at) = options.metrics {
        watches.spawn_local(measures::serve(Rc::clone(&house), at));
    }
    let calls = calls::listen(&options.state).map_err(Error::Listen)?;
    watches.spawn_local(calls::serve(Rc::clone(&house), calls));
    tracing::info!("the broker serves");
    tokio::select! {
        () = stop.cancelled() => {}
        () = house.failed.cancelled() => return Err(why(&house, writer)),
    }
    close.cancel();
    house.shut_all("broker forced connection closure with reason 'shutdown'");
    let parted = async { while doors.join_next().await.is_some() {} };
    if timeout(STOPPING, parted).await.is_err() {
        tracing::info!("clients that did not answer in time are closed");
    }
    doors.shutdown().await;
    watches.shutdown().await;
    for host in std::mem::take(&mut *house.hosts.borrow_mut()).into_values() {
        host.put(host::Call::Stop);
    }
    house.tasks.close();
    house.tasks.wait().await;
    if house.failed.is_cancelled() {
        return Err(why(&house, writer));
    }
    house.close_orders();
    writer.end().await;
    tracing::info!("the broker ends; all that it took is on disk");
    Ok(())
}

fn open_doors(
    doors: &mut JoinSet<()>,
    door: &Door,
    sockets: Vec<TcpListener>,
    close: &CancellationToken,
) -> Result<(), Error> {
    for listener in sockets {
        listener.set_nonblocking(true).map_err(Error::Listen)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(Error::Listen)?;
        doors.spawn_local(door.clone().serve(listener, close.clone()));
    }
    Ok(())
}

fn why(house: &House, writer: writer::Writer) -> Error {
    match (house.given_up(), writer.into_reason()) {
        (_, Some(reason)) => Error::Log(reason),
        (Some(why), None) => Error::GivenUp(why),
        (None, None) => Error::GivenUp("the thread that writes the log failed"),
    }
}
