//! What the thread owns, and its loop.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use mainstay_control::forward::Batch;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, LocalSet};

use super::limits::{DATAGRAM_LEN, Limits};
use super::service::{Prepared, Service};
use crate::back_end::Counted;

/// What the thread is asked.
#[derive(Debug)]
pub(super) enum Ask {
    /// To change all of it or nothing. The address that cannot be listened on, and why.
    Apply(Batch, SyncSender<Result<(), (SocketAddr, io::Error)>>),
    Look(SyncSender<Figures>),
    /// To end as by a mistake of ours.
    #[cfg(test)]
    Panic,
}

/// What is counted.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) connections: Vec<(SocketAddr, u64)>,
    pub(super) traffic: Vec<(SocketAddr, Counted)>,
    pub(super) in_flight: Vec<(SocketAddr, u64)>,
}

/// An instance, as long as anything leads to it.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) address: SocketAddr,
    pub(super) in_flight: Cell<u64>,
    pub(super) sent: Cell<u64>,
    pub(super) received: Cell<u64>,
    pub(super) dead: watch::Sender<bool>,
}

/// A connection or flow of an instance, from before it is opened until it is closed.
#[derive(Debug)]
pub(super) struct InFlight(pub(super) Rc<Instance>);

impl InFlight {
    pub(super) fn new(instance: Rc<Instance>) -> Self {
        instance.in_flight.set(instance.in_flight.get() + 1);
        Self(instance)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

/// All of it. One thread: borrows end before an await.
#[derive(Debug)]
pub(super) struct Floor {
    pub(super) limits: Limits,
    services: RefCell<HashMap<SocketAddr, Rc<Service>>>,
    instances: RefCell<BTreeMap<SocketAddr, Rc<Instance>>>,
    /// A permit for each connection.
    pub(super) seats: Arc<Semaphore>,
    pub(super) flows: Cell<usize>,
    pub(super) pipes: Cell<usize>,
    /// For a datagram, from when it is read until it is sent on.
    pub(super) datagram: RefCell<Box<[u8]>>,
}

/// Until nobody asks any more. All tasks end with it.
pub(super) fn run(runtime: &Runtime, limits: Limits, mut asks: mpsc::Receiver<Ask>) {
    let floor = Rc::new(Floor::new(limits));
    LocalSet::new().block_on(runtime, async {
        while let Some(ask) = asks.recv().await {
            floor.answer(ask).await;
        }
    });
}

impl Floor {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            services: RefCell::default(),
            instances: RefCell::default(),
            seats: Arc::new(Semaphore::new(limits.connections)),
            flows: Cell::new(0),
            pipes: Cell::new(0),
            datagram: RefCell::new(vec![0; DATAGRAM_LEN].into_boxed_slice()),
        }
    }

    /// Who asked and has given up since is not told; the answer to the next question shows it.
    async fn answer(self: &Rc<Self>, ask: Ask) {
        match ask {
            Ask::Apply(batch, reply) => {
                let mut ended = Vec::new();
                let applied = self.apply(&batch, &mut ended);
                // A socket is closed when its task is gone, which an abort only asks for: until then it takes what
                // nobody reads, and holds the port.
                for task in ended {
                    task.await.ok();
                }
                reply.send(applied).ok();
            }
            Ask::Look(reply) => drop(reply.send(self.figures())),
            #[cfg(test)]
            Ask::Panic => panic!("as asked"),
        }
    }

    /// `ended`: tasks that were told to end.
    fn apply(
        self: &Rc<Self>,
        batch: &Batch,
        ended: &mut Vec<JoinHandle<()>>,
    ) -> Result<(), (SocketAddr, io::Error)> {
        let mut prepared = Vec::new();
        for (address, spread) in &batch.services {
            let known = self.services.borrow().get(address).map(Rc::clone);
            let one = Prepared::new(*address, known, !spread.shares.is_empty());
            prepared.push((one.map_err(|error| (*address, error))?, spread));
        }
        for address in &batch.dead {
            self.instance(*address).dead.send_replace(true);
        }
        for address in &batch.revived {
            self.instance(*address).dead.send_replace(false);
        }
        for (one, spread) in prepared {
            for share in &spread.shares {
                self.instance(share.to);
            }
            let service = one.open(self, spread.clone(), ended);
            self.services.borrow_mut().insert(service.address, service);
        }
        for address in &batch.gone {
            let gone = self.services.borrow_mut().remove(address);
            if let Some(service) = gone {
                ended.append(&mut service.close());
            }
        }
        self.forget_instances();
        Ok(())
    }

    pub(super) fn instance(&self, address: SocketAddr) -> Rc<Instance> {
        let mut instances = self.instances.borrow_mut();
        let instance = instances.entry(address).or_insert_with(|| {
            Rc::new(Instance {
                address,
                in_flight: Cell::new(0),
                sent: Cell::new(0),
                received: Cell::new(0),
                dead: watch::Sender::new(false),
            })
        });
        Rc::clone(instance)
    }

    /// Whether one more connection may go there.
    pub(super) fn has_room(&self, address: SocketAddr) -> bool {
        let instances = self.instances.borrow();
        let open = instances.get(&address).map_or(0, |one| one.in_flight.get());
        open < self.limits.of_instance
    }

    /// Those that nothing leads to any more.
    fn forget_instances(&self) {
        let services = self.services.borrow();
        self.instances.borrow_mut().retain(|address, instance| {
            instance.in_flight.get() > 0
                || *instance.dead.borrow()
                || services.values().any(|service| service.leads_to(*address))
        });
    }

    fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for (address, service) in self.services.borrow().iter() {
            if service.serves() {
                figures
                    .connections
                    .push((*address, service.connections.get()));
            }
        }
        figures.connections.sort_unstable();
        for (address, instance) in self.instances.borrow().iter() {
            let counted = Counted {
                sent: instance.sent.get(),
                received: instance.received.get(),
            };
            figures.traffic.push((*address, counted));
            figures.in_flight.push((*address, instance.in_flight.get()));
        }
        figures
    }
}
