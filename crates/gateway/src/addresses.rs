//! The service addresses: a listening socket for each and for each worker, bound and given up as
//! the table says.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;

use tokio::sync::mpsc;

use crate::sockets;
use crate::table::Table;
use crate::worker::Order;

/// Keeps the sockets of service addresses in step with the table.
pub(crate) struct Addresses {
    workers: Vec<mpsc::Sender<Order>>,
    bound: HashSet<SocketAddr>,
    /// Those that could not be bound, so that each is told once.
    failing: HashMap<SocketAddr, io::ErrorKind>,
}

impl Addresses {
    /// No sockets yet; orders go to `workers`.
    pub(crate) fn new(workers: Vec<mpsc::Sender<Order>>) -> Self {
        Self {
            workers,
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
        let wanted: HashSet<SocketAddr> = table.addresses().collect();
        self.failing.retain(|address, _| wanted.contains(address));
        let unwanted: Vec<SocketAddr> = self.bound.difference(&wanted).copied().collect();
        for address in unwanted {
            self.bound.remove(&address);
            for worker in &self.workers {
                // A worker that is gone listens no more.
                worker.send(Order::Unlisten(address)).await.ok();
            }
        }
        let missing: Vec<SocketAddr> = wanted.difference(&self.bound).copied().collect();
        for address in missing {
            self.bind(address).await;
        }
    }

    async fn bind(&mut self, address: SocketAddr) {
        match sockets::listen(address, self.workers.len()) {
            Ok(listeners) => {
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
