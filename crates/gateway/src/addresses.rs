//! The service addresses: a listening socket for each and for each worker, bound and given up as
//! the table says.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use mainstay_kernel::hand::{self, Offer};
use mainstay_model::Network;
use tokio::sync::mpsc;

use crate::table::Table;
use crate::worker::Order;
use crate::{Succession, sockets};

/// From whom sockets are taken over, and to whom they are handed over.
pub(crate) struct Heritage {
    /// Where a gateway that is to hand over may offer them.
    pub(crate) elder: Option<PathBuf>,
    /// Where they are offered to a successor.
    pub(crate) offer: Offer,
}

impl Heritage {
    /// What a gateway inherits and leaves.
    pub(crate) fn of(succession: &Succession) -> Self {
        Self {
            elder: succession.elder.clone(),
            offer: succession.offer.clone(),
        }
    }
}

/// Keeps the sockets of service addresses in step with the table.
pub(crate) struct Addresses {
    workers: Vec<mpsc::Sender<Order>>,
    heritage: Heritage,
    duty: Duty,
    /// Addresses in these are not its own.
    forwarded: Vec<Network>,
    bound: HashSet<SocketAddr>,
    /// Those that could not be bound, so that each is told once.
    failing: HashMap<SocketAddr, io::ErrorKind>,
}

/// Whether they are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Duty {
    Listen,
    /// The gateway ends.
    Over,
}

impl Addresses {
    /// No sockets yet; orders go to `workers`.
    pub(crate) fn new(
        workers: Vec<mpsc::Sender<Order>>,
        heritage: Heritage,
        forwarded: Vec<Network>,
    ) -> Self {
        Self {
            workers,
            heritage,
            duty: Duty::Listen,
            forwarded,
            bound: HashSet::new(),
            failing: HashMap::new(),
        }
    }

    /// Those that could not be bound.
    pub(crate) fn failing(&self) -> Vec<SocketAddr> {
        let mut failing: Vec<SocketAddr> = self.failing.keys().copied().collect();
        failing.sort_unstable();
        failing
    }

    /// Binds what is missing and gives up what is no longer wanted. Called on each new table and
    /// once a second, so that an address that was in use is tried again.
    pub(crate) async fn follow(&mut self, table: &Table) {
        if self.duty == Duty::Over {
            return;
        }
        let is_ours = |address: &SocketAddr| {
            let mut forwarded = self.forwarded.iter();
            !forwarded.any(|network| network.contains(address.ip()))
        };
        let wanted: HashSet<SocketAddr> = table.addresses().filter(is_ours).collect();
        self.failing.retain(|address, _| wanted.contains(address));
        let unwanted: Vec<SocketAddr> = self.bound.difference(&wanted).copied().collect();
        for address in unwanted {
            self.unbind(address).await;
        }
        let missing: Vec<SocketAddr> = wanted.difference(&self.bound).copied().collect();
        for address in missing {
            self.bind(address).await;
        }
    }

    /// Gives all of them up for good. What waits in their queues is for whoever took them over.
    pub(crate) async fn give_up(&mut self) {
        self.duty = Duty::Over;
        self.heritage.offer.clear();
        let all: Vec<SocketAddr> = self.bound.iter().copied().collect();
        for address in all {
            self.unbind(address).await;
        }
        self.failing.clear();
    }

    async fn unbind(&mut self, address: SocketAddr) {
        self.bound.remove(&address);
        self.heritage.offer.withdraw(&address.to_string());
        for worker in &self.workers {
            // A worker that is gone listens no more.
            worker.send(Order::Unlisten(address)).await.ok();
        }
    }

    /// The sockets on which the elder listens there, one for each worker: with new ones beside them,
    /// what waits in the old queues would be reset at its end.
    fn inherit(&mut self, address: SocketAddr) -> Option<Vec<TcpListener>> {
        let elder = self.heritage.elder.as_ref()?;
        let taken = match hand::ask(elder, &address.to_string()) {
            Ok(taken) => taken,
            Err(error) => {
                // It has ended, mostly, or hangs: then it must not hold us up for each address.
                tracing::info!(%error, "no more service addresses are taken over");
                self.heritage.elder = None;
                return None;
            }
        };
        let taken = taken.into_iter().map(|(_, socket)| socket.into());
        let taken: Vec<TcpListener> = taken.collect();
        (taken.len() == self.workers.len()).then_some(taken)
    }

    /// Copies for whoever takes over one day. Without them the next gateway binds anew, so that an
    /// error costs no more than the queues of that moment.
    fn offer(&self, address: SocketAddr, listeners: &[TcpListener]) {
        let copies = listeners.iter().map(|one| one.try_clone().map(Into::into));
        match copies.collect() {
            Ok(copies) => self.heritage.offer.put(address.to_string(), copies),
            Err(error) => tracing::warn!(%address, %error, "cannot be handed over one day"),
        }
    }

    async fn bind(&mut self, address: SocketAddr) {
        let inherited = self.inherit(address).map(Ok);
        match inherited.unwrap_or_else(|| sockets::listen(address, self.workers.len())) {
            Ok(listeners) => {
                self.offer(address, &listeners);
                self.failing.remove(&address);
                self.bound.insert(address);
                for (worker, listener) in self.workers.iter().zip(listeners) {
                    worker.send(Order::Listen(address, listener)).await.ok();
                }
                tracing::info!(%address, "listening on a service address");
            }
            Err(error) => {
                if self.failing.insert(address, error.kind()) != Some(error.kind()) {
                    tracing::warn!(%address, %error, "cannot listen on a service address; trying again each second");
                }
            }
        }
    }
}
