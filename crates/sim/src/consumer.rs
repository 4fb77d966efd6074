//! A consumer of the routes with two workers, each with its own table.

use std::collections::BTreeMap;

use mainstay_ids::{Attempt, ConsumerId, Generation, Incarnation, InstanceId};
use mainstay_model::routing::InFlight;
use mainstay_model::{Ack, Routing};

const WORKERS: usize = 2;

/// A follower of the routes, as a gateway is.
#[derive(Debug, Clone)]
pub struct Consumer {
    /// Who it is.
    pub id: ConsumerId,
    /// Whether the control centre has taken in that it is there: before, it gets no routes.
    pub joined: bool,
    /// Does nothing until it thaws.
    pub frozen: bool,
    /// It is between two incarnations.
    pub dead: bool,
    /// What each worker has applied; `None`: nothing yet, or what its predecessor stored.
    tables: [Option<Routing>; WORKERS],
    /// The newest table that every worker had, on disk.
    stored: Option<Routing>,
    in_flight: BTreeMap<(InstanceId, Attempt), u64>,
}

impl Consumer {
    /// The first incarnation.
    pub fn new(name: &str) -> Self {
        Self {
            id: ConsumerId {
                name: name.into(),
                incarnation: Incarnation(1),
            },
            joined: false,
            frozen: false,
            dead: false,
            tables: [None, None],
            stored: None,
            in_flight: BTreeMap::new(),
        }
    }

    /// SIGKILL: nothing of it can send any more.
    pub fn die(&mut self) {
        self.dead = true;
        self.joined = false;
        self.in_flight.clear();
        self.tables = [None, None];
    }

    /// It has ended its last request. Nobody waits for its successor, so that must not begin with
    /// routes of before: they are deleted.
    pub fn leave(&mut self) {
        self.die();
        self.stored = None;
    }

    /// The next incarnation starts with the stored routes, before it has heard anything.
    pub fn come_back(&mut self) {
        self.dead = false;
        self.frozen = false;
        self.id.incarnation = Incarnation(self.id.incarnation.0 + 1);
        self.tables = [self.stored.clone(), self.stored.clone()];
    }

    /// One worker takes over `routing`, if it is newer.
    pub fn apply(&mut self, worker: usize, routing: &Routing) {
        let table = &mut self.tables[worker % WORKERS];
        if table
            .as_ref()
            .is_none_or(|known| known.generation < routing.generation)
        {
            *table = Some(routing.clone());
        }
        // Stored before it is acknowledged: a successor must not begin with routes that are older
        // than what its predecessor has promised.
        if let Some(applied) = self.applied() {
            let tables = self.tables.iter().flatten();
            let oldest = tables.min_by_key(|table| table.generation);
            let known = self.stored.as_ref().map(|stored| stored.generation);
            if known != Some(applied) {
                self.stored = oldest.cloned();
            }
        }
    }

    /// All workers take over `routing`.
    pub fn apply_everywhere(&mut self, routing: &Routing) {
        for worker in 0..WORKERS {
            self.apply(worker, routing);
        }
    }

    /// The newest generation that every worker has.
    pub fn applied(&self) -> Option<Generation> {
        let tables = self.tables.iter();
        tables
            .map(|table| table.as_ref().map(|table| table.generation))
            .min()
            .flatten()
    }

    /// What it acknowledges now.
    pub fn ack(&self) -> Ack {
        let oldest = self
            .tables
            .iter()
            .flatten()
            .min_by_key(|table| table.generation);
        let listed = |id: &InstanceId| {
            oldest.is_some_and(|table| lists(table, id).is_some()) && self.applied().is_some()
        };
        let busy = self
            .in_flight
            .iter()
            .filter(|((id, _), count)| **count > 0 && !listed(id));
        Ack {
            unbound: Vec::new(),
            consumer: self.id.clone(),
            generation: self.applied(),
            in_flight: busy
                .map(|((instance, _), requests)| InFlight {
                    instance: instance.clone(),
                    requests: *requests,
                })
                .collect(),
        }
    }

    /// Sends a request from a worker by its table; `None`: it has no endpoint.
    pub fn send(&mut self, random: u64) -> Option<(InstanceId, Attempt)> {
        let table = self.tables[random as usize % WORKERS].as_ref()?;
        let endpoints: Vec<_> = table
            .services
            .iter()
            .flat_map(|one| &one.endpoints)
            .collect();
        let endpoint = endpoints.get((random >> 8) as usize % endpoints.len().max(1))?;
        Some((endpoint.instance.clone(), endpoint.attempt))
    }

    /// A request of it has reached that attempt.
    pub fn began(&mut self, to: (InstanceId, Attempt)) {
        *self.in_flight.entry(to).or_default() += 1;
    }

    /// One of the requests in flight ends, unless its instance does not answer.
    pub fn finish(&mut self, random: u64, answers: impl Fn(&InstanceId) -> bool) {
        let at = random as usize % self.in_flight.len().max(1);
        if let Some(key) = self.in_flight.keys().nth(at).cloned()
            && answers(&key.0)
        {
            let count = self.in_flight.entry(key.clone()).or_default();
            *count -= 1;
            if *count == 0 {
                self.in_flight.remove(&key);
            }
        }
    }

    /// Requests to processes that have ended have failed.
    pub fn lose(&mut self, lives: impl Fn(&InstanceId, Attempt) -> bool) {
        self.in_flight
            .retain(|(id, attempt), _| lives(id, *attempt));
    }

    /// All its requests end.
    pub fn finish_all(&mut self) {
        self.in_flight.clear();
    }

    /// Whether it lives and can send to somebody.
    pub fn has_routes(&self) -> bool {
        !self.dead && self.tables.iter().any(Option::is_some)
    }

    /// How a request of this consumer could still be at that process.
    pub fn can_reach(&self, id: &InstanceId, attempt: Attempt) -> Option<&'static str> {
        if self.dead {
            return None;
        }
        if self.in_flight.contains_key(&(id.clone(), attempt)) {
            return Some("has a request in flight to it");
        }
        let lists = |table: &Routing| lists(table, id) == Some(attempt);
        if self.tables.iter().flatten().any(lists) {
            return Some("has it in a worker's table");
        }
        None
    }
}

fn lists(table: &Routing, id: &InstanceId) -> Option<Attempt> {
    let endpoints = table.services.iter().flat_map(|one| &one.endpoints);
    let mut found = endpoints.filter(|endpoint| endpoint.instance == *id);
    found.next().map(|endpoint| endpoint.attempt)
}
