//! What the coordinator knows and decides: which generation is newest, which is stored and applied by
//! every worker, what is left to drain. No sockets, no clock, no channels: they are in
//! [`crate::coordinator`].

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_ids::{ConsumerId, Generation, InstanceId};
use mainstay_model::{Ack, InFlight, Routing};
use tokio::sync::Notify;

use crate::endpoint::Registry;
use crate::limits::TABLES_PENDING_MAX;
use crate::roster::Roster;
use crate::table::{Serial, Table};
use crate::worker::{Applied, WorkerIndex};

/// Where a routing state came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Nobody has told anything yet.
    Nowhere,
    /// The file that an earlier gateway left: good to start with, but no longer than until the
    /// control centre speaks, and nothing to acknowledge.
    Stored,
    /// The control centre, in this gateway's life.
    Live,
}

/// What became of a published state.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// It is newer: give the workers this table.
    Newer(Arc<Table>),
    /// It is the one that is in force.
    Known,
    /// It is older than what is in force.
    Older,
}

/// Tables, who applied them, and what is in flight.
pub(crate) struct Ledger {
    consumer: ConsumerId,
    registry: Registry,
    newest: Arc<Table>,
    origin: Origin,
    /// What each worker said last.
    applied: Vec<Option<Serial>>,
    /// A successor finds no file that is older than this table.
    settled: Option<Serial>,
    /// Live tables that may not be acknowledged yet.
    pending: BTreeMap<Serial, Arc<Table>>,
    /// The newest live table that is settled and that every worker has applied, or has passed over
    /// for a newer one.
    acknowledged: Option<Arc<Table>>,
}

impl Ledger {
    /// A ledger for `workers` workers; endpoints that have drained wake `drained`.
    pub(crate) fn new(consumer: ConsumerId, workers: usize, drained: Arc<Notify>) -> Self {
        let mut registry = Registry::new(drained, workers);
        Self {
            consumer,
            newest: Arc::new(Table::build(&nothing(), Serial::default(), &mut registry)),
            registry,
            origin: Origin::Nowhere,
            applied: vec![None; workers],
            settled: None,
            pending: BTreeMap::new(),
            acknowledged: None,
        }
    }

    /// The table that workers should have.
    pub(crate) fn newest(&self) -> &Arc<Table> {
        &self.newest
    }

    /// Takes over what an earlier gateway stored, if it stored something.
    pub(crate) fn start_with(&mut self, stored: Option<Routing>) {
        let stored = stored.unwrap_or_else(nothing);
        let serial = self.newest.serial.next();
        self.newest = Arc::new(Table::build(&stored, serial, &mut self.registry));
        self.origin = Origin::Stored;
    }

    /// Takes over a published state if it is newer than all before it.
    pub(crate) fn accept(&mut self, routing: &Routing) -> Accepted {
        let current = self.newest.generation;
        match self.origin {
            Origin::Live if routing.generation == current => return Accepted::Known,
            Origin::Live if routing.generation < current => return Accepted::Older,
            Origin::Nowhere | Origin::Stored | Origin::Live => {}
        }
        self.origin = Origin::Live;
        let serial = self.newest.serial.next();
        let table = Arc::new(Table::build(routing, serial, &mut self.registry));
        self.newest = Arc::clone(&table);
        if self.pending.len() == TABLES_PENDING_MAX {
            // Whoever has applied and settled the new one has passed over this one.
            self.pending.pop_last();
        }
        self.pending.insert(serial, Arc::clone(&table));
        self.registry.drain_others(|key| table.routes_to(key));
        self.registry.forget_services(|name| table.names(name));
        Accepted::Newer(table)
    }

    /// A worker chooses by another table from now on.
    pub(crate) fn applied(&mut self, applied: Applied) -> Progress {
        let WorkerIndex(worker) = applied.worker;
        self.applied[worker] = self.applied[worker].max(Some(applied.serial));
        self.advance()
    }

    /// Whether every worker chooses by some table, so that each accepts.
    pub(crate) fn is_applied_everywhere(&self) -> bool {
        self.applied.iter().all(Option::is_some)
    }

    /// This table is stored, or the file of an older one is gone.
    pub(crate) fn settled(&mut self, serial: Serial) -> Progress {
        self.settled = self.settled.max(Some(serial));
        self.advance()
    }

    fn advance(&mut self) -> Progress {
        // `None` is less than any serial: one worker without a table holds all back.
        let everywhere = self.applied.iter().copied().min().flatten();
        let Some(everywhere) = everywhere.min(self.settled) else {
            return Progress::None;
        };
        let Some((_, table)) = self.pending.range(..=everywhere).next_back() else {
            return Progress::None;
        };
        self.acknowledged = Some(Arc::clone(table));
        self.pending.retain(|serial, _| *serial > everywhere);
        self.forget_drained();
        Progress::Acknowledged
    }

    /// Forgets endpoints that no worker can choose and that have nothing in flight.
    pub(crate) fn forget_drained(&mut self) {
        if self.pending.is_empty() {
            let newest = &self.newest;
            self.registry.forget_drained(|key| newest.routes_to(key));
        }
    }

    /// What there is to be seen.
    pub(crate) fn roster(&self) -> Roster {
        let newest = &self.newest;
        let draining = self
            .registry
            .iter()
            .filter(|state| !newest.routes_to(&state.key));
        Roster {
            table: Arc::clone(newest),
            acknowledged: self.acknowledged.as_ref().map(|table| table.generation),
            draining: draining.map(Arc::clone).collect(),
            unbound: Vec::new(),
        }
    }

    /// The acknowledgement as of now.
    pub(crate) fn ack(&self) -> Ack {
        let acknowledged = self.acknowledged.as_ref();
        let mut in_flight: BTreeMap<&InstanceId, u64> = BTreeMap::new();
        if let Some(table) = acknowledged {
            for state in self.registry.iter() {
                let requests = u64::from(state.in_flight());
                let gone = state.key.instance().filter(|one| !table.holds(one));
                if let Some(instance) = gone.filter(|_| requests > 0) {
                    *in_flight.entry(instance).or_default() += requests;
                }
            }
        }
        let in_flight = in_flight.into_iter().map(|(instance, requests)| InFlight {
            instance: instance.clone(),
            requests,
        });
        Ack {
            consumer: self.consumer.clone(),
            generation: acknowledged.map(|table| table.generation),
            in_flight: in_flight.collect(),
            unbound: Vec::new(),
        }
    }
}

/// The routes before any.
fn nothing() -> Routing {
    Routing {
        generation: Generation::default(),
        services: Vec::new(),
    }
}

/// Whether there is something new to acknowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    None,
    Acknowledged,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Serial;
    use mainstay_ids::{Epoch, Incarnation, Revision};

    fn routing(revision: u64) -> Routing {
        Routing {
            generation: generation(revision),
            services: Vec::new(),
        }
    }

    fn generation(revision: u64) -> Generation {
        Generation {
            epoch: Epoch(1),
            revision: Revision(revision),
        }
    }

    fn ledger() -> Ledger {
        let consumer = ConsumerId {
            name: "gateway".into(),
            incarnation: Incarnation(1),
        };
        Ledger::new(consumer, 2, Arc::new(Notify::new()))
    }

    fn apply(ledger: &mut Ledger, worker: usize, serial: Serial) -> Progress {
        ledger.applied(Applied {
            worker: WorkerIndex(worker),
            serial,
        })
    }

    fn accepted(ledger: &mut Ledger, revision: u64) -> Serial {
        match ledger.accept(&routing(revision)) {
            Accepted::Newer(table) => table.serial,
            other => panic!("{other:?}"),
        }
    }

    /// Accepted and stored.
    fn settled(ledger: &mut Ledger, revision: u64) -> Serial {
        let serial = accepted(ledger, revision);
        assert_eq!(ledger.settled(serial), Progress::None);
        serial
    }

    #[test]
    fn what_every_worker_applied_is_acknowledged_when_it_is_settled_and_not_before() {
        let mut ledger = ledger();
        let serials: Vec<Serial> = (1..=3)
            .map(|revision| accepted(&mut ledger, revision))
            .collect();
        for worker in 0..2 {
            assert_eq!(apply(&mut ledger, worker, serials[2]), Progress::None);
        }
        assert_eq!(ledger.ack().generation, None);
        assert_eq!(ledger.settled(serials[0]), Progress::Acknowledged);
        assert_eq!(ledger.ack().generation, Some(generation(1)));
        assert_eq!(ledger.settled(serials[2]), Progress::Acknowledged);
        assert_eq!(ledger.ack().generation, Some(generation(3)));
    }

    #[test]
    fn while_nothing_is_settled_a_bounded_number_of_tables_is_kept_and_the_newest_is_one() {
        let mut ledger = ledger();
        let many = 10 * u64::try_from(TABLES_PENDING_MAX).expect("small");
        let last = (1..=many)
            .map(|revision| accepted(&mut ledger, revision))
            .last()
            .expect("there are many");
        assert_eq!(ledger.pending.len(), TABLES_PENDING_MAX);
        for worker in 0..2 {
            apply(&mut ledger, worker, last);
        }
        assert_eq!(ledger.settled(last), Progress::Acknowledged);
        assert_eq!(ledger.ack().generation, Some(generation(many)));
        assert!(ledger.pending.is_empty());
    }

    #[test]
    fn the_slowest_worker_holds_the_acknowledgement_back() {
        let mut ledger = ledger();
        let (first, second) = (settled(&mut ledger, 1), settled(&mut ledger, 2));
        assert_eq!(apply(&mut ledger, 0, second), Progress::None);
        assert_eq!(ledger.ack().generation, None);
        assert_eq!(apply(&mut ledger, 1, first), Progress::Acknowledged);
        assert_eq!(ledger.ack().generation, Some(generation(1)));
        assert_eq!(apply(&mut ledger, 1, second), Progress::Acknowledged);
        assert_eq!(ledger.ack().generation, Some(generation(2)));
    }

    #[test]
    fn a_generation_that_all_workers_passed_over_is_acknowledged_by_the_newer_one() {
        let mut ledger = ledger();
        settled(&mut ledger, 1);
        let last = (2..=5)
            .map(|revision| settled(&mut ledger, revision))
            .last();
        let last = last.expect("there are four");
        apply(&mut ledger, 0, last);
        assert_eq!(apply(&mut ledger, 1, last), Progress::Acknowledged);
        assert_eq!(ledger.ack().generation, Some(generation(5)));
    }

    #[test]
    fn a_stored_state_is_neither_acknowledged_nor_in_the_way_of_a_live_one() {
        let mut ledger = ledger();
        ledger.start_with(Some(routing(7)));
        let stored = ledger.newest().serial;
        apply(&mut ledger, 0, stored);
        assert_eq!(apply(&mut ledger, 1, stored), Progress::None);
        assert_eq!(ledger.ack().generation, None);
        let live = settled(&mut ledger, 7);
        apply(&mut ledger, 0, live);
        assert_eq!(
            apply(&mut ledger, 1, stored),
            Progress::None,
            "not about the live one"
        );
        assert_eq!(apply(&mut ledger, 1, live), Progress::Acknowledged);
        assert!(matches!(ledger.accept(&routing(7)), Accepted::Known));
        assert!(matches!(ledger.accept(&routing(6)), Accepted::Older));
    }
}
