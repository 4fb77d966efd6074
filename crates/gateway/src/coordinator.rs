//! The coordinator: takes published states in, hands tables to the workers, acknowledges.
//!
//! It runs in the thread that called [`crate::run`]. What it decides is in [`crate::ledger`]; here
//! are only its channels.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use mainstay_model::{Ack, Routing};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::addresses::Addresses;
use crate::cache::{Left, RoutesFile};
use crate::ledger::{Accepted, Ledger, Progress};
use crate::limits::ACK_EVERY;
use crate::metrics::{FrontendKey, GatewayCounters};
use crate::roster::Roster;
use crate::table::Table;
use crate::worker::{Applied, WorkerError};

/// Everything that comes in and goes out.
pub(crate) struct Ports {
    pub(crate) routings: mpsc::Receiver<Routing>,
    pub(crate) acks: mpsc::Sender<Ack>,
    pub(crate) tables: watch::Sender<Arc<Table>>,
    /// For whoever shows statistics.
    pub(crate) rosters: watch::Sender<Arc<Roster>>,
    pub(crate) applied: mpsc::Receiver<Applied>,
    pub(crate) drained: Arc<Notify>,
    /// One message from each worker at its end.
    pub(crate) ended: mpsc::Receiver<Result<(), WorkerError>>,
}

/// What the coordinator owns.
pub(crate) struct Coordinator {
    pub(crate) ledger: Ledger,
    pub(crate) addresses: Addresses,
    pub(crate) file: RoutesFile,
    pub(crate) counters: Arc<GatewayCounters>,
    pub(crate) workers: usize,
    /// How long live routes are waited for at the start, before the stored ones are used; `None`:
    /// for ever.
    pub(crate) first_routes: Option<Duration>,
    /// Cancelled when every worker accepts.
    pub(crate) serves: CancellationToken,
    /// The wish to end, which the workers hear, too.
    pub(crate) stop: CancellationToken,
}

impl Coordinator {
    /// Runs until every worker has ended: with an error as soon as one ends with an error.
    ///
    /// The stored routes are older than the live ones, so they are kept back for a moment, while
    /// connections wait in the queues; those of the service addresses are opened by them at once.
    pub(crate) async fn run(mut self, mut ports: Ports) -> Result<Left, WorkerError> {
        let mut tick = interval(ACK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut left = self.workers;
        let mut watching = Watching::Yes;
        let mut beginning = match self.first_routes {
            Some(_) => Beginning::AwaitsLive,
            None => Beginning::Over,
        };
        let mut ending = Ending::NotYet;
        let stop = self.stop.clone();
        let mut waited = pin!(sleep(self.first_routes.unwrap_or_default()));
        self.listen().await;
        while left > 0 {
            tokio::select! {
                routing = ports.routings.recv(), if watching == Watching::Yes => match routing {
                    Some(routing) => self.accept(routing, &ports).await,
                    // The link has ended, and we go on with what we have.
                    None => watching = Watching::No,
                },
                Some(applied) = ports.applied.recv() => {
                    if self.ledger.applied(applied) == Progress::Acknowledged {
                        self.acknowledge(&ports.acks);
                    }
                    if self.ledger.is_applied_everywhere() {
                        self.serves.cancel();
                    }
                }
                () = stop.cancelled(), if ending == Ending::NotYet => {
                    ending = Ending::Begun;
                    // Whoever takes over listens there now, or may.
                    self.addresses.give_up().await;
                }
                () = &mut waited, if beginning == Beginning::AwaitsLive => {
                    beginning = Beginning::Over;
                    self.begin_with_stored(&ports.tables);
                }
                settled = self.file.settled() => {
                    if let Some(serial) = settled
                        && self.ledger.settled(serial) == Progress::Acknowledged
                    {
                        self.acknowledge(&ports.acks);
                    }
                }
                () = ports.drained.notified() => self.acknowledge(&ports.acks),
                _ = tick.tick() => {
                    self.acknowledge(&ports.acks);
                    self.listen().await;
                    self.file.go_on();
                    self.show(&ports.rosters);
                }
                Some(ended) = ports.ended.recv() => {
                    ended?;
                    left -= 1;
                }
            }
        }
        Ok(self.file.forget().await)
    }

    /// Gives the workers the stored routes, unless live ones came.
    fn begin_with_stored(&self, tables: &watch::Sender<Arc<Table>>) {
        let stored = self.ledger.newest();
        tables.send_if_modified(|table| {
            let none_came = table.serial < stored.serial;
            if none_came {
                tracing::info!(generation = %stored.generation, "no live routes came; beginning with what is stored");
                *table = Arc::clone(stored);
            }
            none_came
        });
    }

    async fn accept(&mut self, routing: Routing, ports: &Ports) {
        match self.ledger.accept(&routing) {
            Accepted::Newer(table) => {
                tracing::debug!(generation = %routing.generation, "new routes");
                let serial = table.serial;
                ports.tables.send_replace(table);
                self.file.store(serial, routing);
                self.listen().await;
                self.show(&ports.rosters);
            }
            Accepted::Known => {}
            Accepted::Older => {
                let current = self.ledger.newest().generation;
                tracing::warn!(offered = %routing.generation, %current, "older routes were refused");
            }
        }
    }

    /// Level-triggered, so that a lost one does no harm: the next comes within a second.
    fn acknowledge(&mut self, acks: &mpsc::Sender<Ack>) {
        let ack = Ack {
            unbound: self.addresses.failing(),
            ..self.ledger.ack()
        };
        acks.try_send(ack).ok();
        self.ledger.forget_drained();
    }

    async fn listen(&mut self) {
        let table = Arc::clone(self.ledger.newest());
        self.addresses.follow(&table).await;
        for address in table.addresses() {
            // There from the beginning, also before the first client.
            self.counters.frontend(FrontendKey::Address(address));
        }
        self.counters.keep_frontends(|key| match key {
            FrontendKey::Entry => true,
            FrontendKey::Address(address) => table.find_address(*address).is_some(),
        });
    }

    fn show(&self, rosters: &watch::Sender<Arc<Roster>>) {
        let roster = Roster {
            unbound: self.addresses.failing(),
            ..self.ledger.roster()
        };
        rosters.send_replace(Arc::new(roster));
    }
}

/// Whether the gateway was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    NotYet,
    Begun,
}

/// Whether live routes are still waited for before the stored ones are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beginning {
    AwaitsLive,
    Over,
}

/// Whether published states still come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watching {
    Yes,
    No,
}
