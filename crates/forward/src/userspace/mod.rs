//! By sockets of our own, without any right: it listens on the service addresses and copies.
//!
//! ```text
//!   caller ── mpsc Ask, 6 ──> one thread: floor ── owns services, instances
//!     <── sync_channel, 1 ──       ├ a task per listener (TCP), one per socket (UDP)
//!                                  └ a task per connection, and per flow of UDP
//! ```
//!
//! Every host can listen on `127.0.0.0/8`. Other addresses have to be the host's: on an interface, or by a local
//! route. What is under way ends with the thread; nothing can be taken over from an earlier process.
//!
//! Instances see this host as their client. A service without instances keeps its port, so that no
//! program that listens everywhere answers in its place, and refuses.

mod floor;
mod limits;
mod pump;
mod service;
mod session;
#[cfg(test)]
mod tests;
mod udp;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use mainstay_control::forward::{Batch, Spread};
use mainstay_model::forward::{BackEndKind, ForwardSettings, Ranges};

use crate::back_end::{BackEnd, Counted, ForwardError, Found, Meter};
use floor::{Ask, Figures};
use limits::Limits;

/// What it depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where service addresses lie.
    pub ranges: Ranges,
}

impl Settings {
    /// What it needs of them.
    pub fn of(settings: &ForwardSettings) -> Self {
        Self {
            ranges: settings.ranges.clone(),
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Userspace {
    settings: Settings,
    limits: Limits,
    services: BTreeMap<SocketAddr, Spread>,
    dead: BTreeSet<SocketAddr>,
    /// `None` until there is something to do, and after [`BackEnd::remove`].
    thread: Option<JoinHandle<()>>,
    line: Line,
}

/// The way to the thread, if there is one. Shared, since a meter outlives a thread that is started
/// again; locked only to copy or change it.
#[derive(Debug, Clone, Default)]
struct Line(Arc<Mutex<Option<tokio::sync::mpsc::Sender<Ask>>>>);

/// Why a service address cannot be listened on.
#[derive(Debug, thiserror::Error)]
enum ListenError {
    #[error("{0} lies in none of the networks of service addresses")]
    Elsewhere(SocketAddr),
    #[error(
        "{0} is not an address of this host: use addresses of 127.0.0.0/8, or have root give it to \
         the host, as by `ip route add local {ip} dev lo`", ip = .0.ip()
    )]
    NotHere(SocketAddr),
    #[error(
        "the port of {0} needs CAP_NET_BIND_SERVICE: use one from 1024 on, or set \
         net.ipv4.ip_unprivileged_port_start"
    )]
    Privileged(SocketAddr),
    #[error("another program listens on {0}, or on its port of all addresses")]
    Taken(SocketAddr),
    #[error("cannot listen on {0}")]
    Other(SocketAddr, #[source] io::Error),
}

impl ListenError {
    fn of(address: SocketAddr, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrNotAvailable => Self::NotHere(address),
            io::ErrorKind::PermissionDenied => Self::Privileged(address),
            io::ErrorKind::AddrInUse => Self::Taken(address),
            _ => Self::Other(address, error),
        }
    }
}

/// What the thread did not do.
#[derive(Debug, thiserror::Error)]
enum ThreadError {
    #[error("its thread has ended")]
    Ended,
    #[error("its thread did not answer within {time:?}", time = limits::ANSWER_TIME)]
    Silent,
}

impl Userspace {
    /// Listens on nothing yet. Its thread will be in the network namespace of the one that applies
    /// the first change.
    pub fn start(settings: Settings) -> Self {
        Self {
            settings,
            limits: Limits::of_process(),
            services: BTreeMap::new(),
            dead: BTreeSet::new(),
            thread: None,
            line: Line::default(),
        }
    }

    /// Of what was asked with this reply.
    fn ask<T>(&mut self, ask: impl FnOnce(mpsc::SyncSender<T>) -> Ask) -> Result<T, ForwardError> {
        if self.thread.is_none() {
            let (thread, asks) = start_thread(self.limits)?;
            self.line.lead(Some(asks));
            self.thread = Some(thread);
        }
        self.line.ask(ask)
    }

    fn tell(&mut self, batch: Batch) -> Result<(), ForwardError> {
        let done = self.ask(|reply| Ask::Apply(batch, reply))?;
        done.map_err(|(address, error)| {
            let error = ListenError::of(address, error);
            refused(&format!("the sockets of {address}"), error)
        })
    }

    fn as_batch(&self) -> Batch {
        let services = self.services.iter();
        Batch {
            services: services
                .map(|(address, spread)| (*address, spread.clone()))
                .collect(),
            dead: self.dead.iter().copied().collect(),
            ..Batch::default()
        }
    }

    fn stop(&mut self) {
        self.line.lead(None);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that forwards had panicked");
        }
    }
}

impl Line {
    fn figures(&self) -> Result<Figures, ForwardError> {
        if self.get().is_none() {
            return Ok(Figures::default());
        }
        self.ask(Ask::Look)
    }

    fn get(&self) -> MutexGuard<'_, Option<tokio::sync::mpsc::Sender<Ask>>> {
        // It is replaced in one step, also if a thread panicked beside it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lead(&self, asks: Option<tokio::sync::mpsc::Sender<Ask>>) {
        *self.get() = asks;
    }

    fn ask<T>(&self, ask: impl FnOnce(mpsc::SyncSender<T>) -> Ask) -> Result<T, ForwardError> {
        let Some(asks) = self.get().clone() else {
            return Err(refused("any socket", ThreadError::Ended));
        };
        let (reply, answer) = mpsc::sync_channel(1);
        let sent = asks.try_send(ask(reply));
        // The thread ends with its last asker.
        drop(asks);
        let answer = match sent {
            Ok(()) => answer.recv_timeout(limits::ANSWER_TIME),
            Err(tokio::sync::mpsc::error::TrySendError::Full(_)) => {
                Err(mpsc::RecvTimeoutError::Timeout)
            }
            Err(tokio::sync::mpsc::error::TrySendError::Closed(_)) => {
                Err(mpsc::RecvTimeoutError::Disconnected)
            }
        };
        answer.map_err(|error| {
            let source = match error {
                mpsc::RecvTimeoutError::Timeout => ThreadError::Silent,
                mpsc::RecvTimeoutError::Disconnected => ThreadError::Ended,
            };
            refused("any socket", source)
        })
    }
}

/// With the way to it.
fn start_thread(
    limits: Limits,
) -> Result<(JoinHandle<()>, tokio::sync::mpsc::Sender<Ask>), ForwardError> {
    let missing = |source: io::Error| ForwardError::Missing {
        back_end: BackEndKind::Userspace,
        source: source.into(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(missing)?;
    let (asks, inbox) = tokio::sync::mpsc::channel(limits::ASKS);
    let thread = std::thread::Builder::new()
        .name("forward".to_owned())
        .spawn(move || floor::run(&runtime, limits, inbox))
        .map_err(missing)?;
    Ok((thread, asks))
}

/// The counts of the thread; of none, nothing.
impl Meter for Line {
    fn connections(&mut self) -> Result<Vec<(SocketAddr, u64)>, ForwardError> {
        Ok(self.figures()?.connections)
    }

    fn traffic(&mut self) -> Result<Option<Vec<(SocketAddr, Counted)>>, ForwardError> {
        Ok(Some(self.figures()?.traffic))
    }

    fn in_flight(&mut self) -> Result<Option<Vec<(SocketAddr, u64)>>, ForwardError> {
        Ok(Some(self.figures()?.in_flight))
    }
}

impl Drop for Userspace {
    fn drop(&mut self) {
        self.stop();
    }
}

impl BackEnd for Userspace {
    fn kind(&self) -> BackEndKind {
        BackEndKind::Userspace
    }

    /// Nothing after a start.
    fn in_force(&self) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        let services = self.services.iter();
        let served = services.filter(|(_, spread)| !spread.shares.is_empty());
        let served = served.map(|(address, _)| *address).collect();
        (served, self.dead.iter().copied().collect())
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), ForwardError> {
        for (address, _) in &batch.services {
            if !self.settings.ranges.contain(address.ip()) {
                let error = ListenError::Elsewhere(*address);
                return Err(refused(&format!("the sockets of {address}"), error));
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.tell(batch.clone())?;
        self.services.extend(batch.services.iter().cloned());
        for address in &batch.gone {
            self.services.remove(address);
        }
        self.dead.extend(&batch.dead);
        for address in &batch.revived {
            self.dead.remove(address);
        }
        Ok(())
    }

    fn check(&mut self) -> Result<Found, ForwardError> {
        if !self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            self.line.figures()?;
            return Ok(Found::InForce);
        }
        self.stop();
        self.tell(self.as_batch())?;
        Ok(Found::Repaired("its thread had ended".to_owned()))
    }

    fn meter(&self) -> Result<Box<dyn Meter>, ForwardError> {
        Ok(Box::new(self.line.clone()))
    }

    /// Ends what is under way, too.
    fn remove(&mut self) -> Result<(), ForwardError> {
        self.stop();
        self.services.clear();
        self.dead.clear();
        Ok(())
    }
}

fn refused(what: &str, source: impl std::error::Error + Send + Sync + 'static) -> ForwardError {
    ForwardError::Refused {
        back_end: BackEndKind::Userspace,
        what: what.to_owned(),
        source: Box::new(source),
    }
}
