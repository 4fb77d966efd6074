//! Who sends traffic by the routes, what each has acknowledged, and who is dead.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use mainstay_ids::{ConsumerId, Generation, Incarnation, InstanceId, Instant};
use mainstay_model::event::HeldUp;
use mainstay_model::{Ack, EventKind};

use super::contract::{Clock, Refusal};
use super::journal::Journal;
use super::snapshot::ConsumerRecord;

/// A consumer that was not heard for so long is mute.
pub const CONSUMER_LEASE: Duration = Duration::from_secs(3);

/// How many names may follow the routes. A node has one gateway; the rest is room for tools. Full
/// means that a newcomer is refused, since each known one may hold up every stop.
const CONSUMERS_MAX: usize = 64;

/// How many addresses one consumer can be unable to listen on before the rest is not shown: enough
/// to see that something is wrong.
const UNBOUND_MAX: usize = 100;

/// Whether a consumer is there. Only `Gone` is a verdict: a mute one may still send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// It was heard within the last 3 s.
    Live,
    /// It was not, and nobody says that it is dead.
    Mute,
    /// It said farewell, and cannot send any more.
    Gone,
}

/// The newest incarnation of one name; that it came is the verdict that the older ones are dead.
#[derive(Debug, Clone)]
struct Consumer {
    incarnation: Incarnation,
    presence: Presence,
    heard: Instant,
    acknowledged: Option<Generation>,
    /// Requests to instances that are not in the acknowledged generation.
    in_flight: BTreeMap<InstanceId, u64>,
    /// Service addresses on which it cannot listen.
    unbound: Vec<SocketAddr>,
}

impl Consumer {
    fn new(incarnation: Incarnation, now: Instant) -> Self {
        Self {
            incarnation,
            presence: Presence::Live,
            heard: now,
            acknowledged: None,
            in_flight: BTreeMap::new(),
            unbound: Vec::new(),
        }
    }

    /// Whether it may still send to `instance`, which left the routes with `removed_in`.
    fn may_send(&self, instance: &InstanceId, removed_in: Generation) -> bool {
        match self.presence {
            Presence::Gone => false,
            Presence::Live | Presence::Mute => {
                self.acknowledged < Some(removed_in) || self.in_flight.contains_key(instance)
            }
        }
    }
}

/// Everybody who ever followed the routes, by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Consumers(BTreeMap<String, Consumer>);

/// What is shown of one consumer.
pub(super) struct Shown {
    pub(super) consumer: ConsumerId,
    pub(super) presence: Presence,
    pub(super) acknowledged: Option<Generation>,
    pub(super) heard: Instant,
    pub(super) unbound: Vec<SocketAddr>,
}

impl Consumers {
    /// `consumer` is there: it joined, renewed its watch or acknowledged something. `None`: it is an
    /// incarnation of which the death is known.
    fn hear(
        &mut self,
        clock: Clock,
        consumer: &ConsumerId,
        journal: &mut Journal,
    ) -> Result<Option<&mut Consumer>, Refusal> {
        let full = self.0.len() >= CONSUMERS_MAX;
        let known = self
            .0
            .get(&consumer.name)
            .map(|known| (known.incarnation, known.presence));
        let joined = EventKind::ConsumerJoined {
            consumer: consumer.clone(),
        };
        match known {
            None if full => {
                return Err(Refusal::TooManyConsumers {
                    consumer: consumer.clone(),
                });
            }
            Some((incarnation, _)) if incarnation > consumer.incarnation => return Ok(None),
            Some((incarnation, Presence::Gone)) if incarnation == consumer.incarnation => {
                return Ok(None);
            }
            Some((incarnation, Presence::Live | Presence::Mute))
                if incarnation < consumer.incarnation =>
            {
                let dead = ConsumerId {
                    name: consumer.name.clone(),
                    incarnation,
                };
                journal.record(clock, None, EventKind::ConsumerGone { consumer: dead });
                self.0.remove(&consumer.name);
                journal.record(clock, None, joined);
            }
            None | Some((_, Presence::Gone)) => {
                self.0.remove(&consumer.name);
                journal.record(clock, None, joined);
            }
            Some((_, Presence::Mute)) => journal.record(clock, None, joined),
            Some((_, Presence::Live)) => {}
        }
        let entry = self
            .0
            .entry(consumer.name.clone())
            .or_insert_with(|| Consumer::new(consumer.incarnation, clock.now));
        entry.presence = Presence::Live;
        entry.heard = clock.now;
        Ok(Some(entry))
    }

    pub(super) fn join(
        &mut self,
        clock: Clock,
        consumer: &ConsumerId,
        journal: &mut Journal,
    ) -> Result<(), Refusal> {
        self.hear(clock, consumer, journal).map(|_| ())
    }

    /// Takes in an acknowledgement. One for a generation that was never published, one of a dead
    /// incarnation and one that was overtaken by a newer say nothing.
    pub(super) fn acknowledge(
        &mut self,
        clock: Clock,
        ack: Ack,
        published: Generation,
        journal: &mut Journal,
    ) -> Result<(), Refusal> {
        if ack
            .generation
            .is_some_and(|generation| generation > published)
        {
            return Ok(());
        }
        let Some(consumer) = self.hear(clock, &ack.consumer, journal)? else {
            return Ok(());
        };
        if ack.generation >= consumer.acknowledged {
            consumer.acknowledged = ack.generation;
            consumer.unbound = ack.unbound;
            consumer.unbound.truncate(UNBOUND_MAX);
            consumer.in_flight.clear();
            for busy in ack.in_flight.into_iter().filter(|busy| busy.requests > 0) {
                consumer.in_flight.insert(busy.instance, busy.requests);
            }
        }
        Ok(())
    }

    /// The consumer will send no more, nor will those before it: an incarnation that was never heard
    /// before its farewell proves as well that they are dead.
    pub(super) fn farewell(&mut self, clock: Clock, gone: &ConsumerId, journal: &mut Journal) {
        let Some(consumer) = self.0.get_mut(&gone.name) else {
            return;
        };
        let newer = consumer.incarnation < gone.incarnation;
        let same = consumer.incarnation == gone.incarnation;
        if newer || (same && consumer.presence != Presence::Gone) {
            if newer {
                *consumer = Consumer::new(gone.incarnation, clock.now);
            }
            consumer.presence = Presence::Gone;
            let consumer = gone.clone();
            journal.record(clock, None, EventKind::ConsumerGone { consumer });
        }
    }

    /// Notices who was not heard for the lease.
    pub(super) fn notice_mute(&mut self, clock: Clock, journal: &mut Journal) {
        for (name, consumer) in &mut self.0 {
            let overdue = clock.now >= consumer.heard.after(CONSUMER_LEASE);
            if consumer.presence == Presence::Live && overdue {
                consumer.presence = Presence::Mute;
                let consumer = ConsumerId {
                    name: name.clone(),
                    incarnation: consumer.incarnation,
                };
                journal.record(clock, None, EventKind::ConsumerMute { consumer });
            }
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.0
            .values()
            .filter(|consumer| consumer.presence == Presence::Live)
            .map(|consumer| consumer.heard.after(CONSUMER_LEASE))
            .min()
    }

    /// Whether nobody can send to `instance` any more, which left the routes with `removed_in`:
    /// all have said so for that generation or a later one. A mute one may still send.
    pub(super) fn released(&self, instance: &InstanceId, removed_in: Generation) -> bool {
        let consumers = self.0.values();
        !consumers
            .into_iter()
            .any(|consumer| consumer.may_send(instance, removed_in))
    }

    /// Who keeps [`Consumers::released`] from being true.
    pub(super) fn holding_up(&self, instance: &InstanceId, removed_in: Generation) -> Vec<HeldUp> {
        let holding = self.0.iter();
        holding
            .filter(|(_, consumer)| consumer.may_send(instance, removed_in))
            .map(|(name, consumer)| HeldUp {
                consumer: ConsumerId {
                    name: name.clone(),
                    incarnation: consumer.incarnation,
                },
                acknowledged: consumer.acknowledged,
                in_flight: consumer.in_flight.get(instance).copied().unwrap_or(0),
            })
            .collect()
    }

    /// Whether drains wait for this consumer, or for one before it of its name.
    pub(super) fn waits_for(&self, consumer: &ConsumerId) -> bool {
        let known = self.0.get(&consumer.name);
        known.is_some_and(|known| known.presence != Presence::Gone)
    }

    pub(super) fn shown(&self) -> impl Iterator<Item = Shown> {
        self.0.iter().map(|(name, consumer)| Shown {
            consumer: ConsumerId {
                name: name.clone(),
                incarnation: consumer.incarnation,
            },
            presence: consumer.presence,
            acknowledged: consumer.acknowledged,
            heard: consumer.heard,
            unbound: consumer.unbound.clone(),
        })
    }

    pub(super) fn records(&self) -> Vec<ConsumerRecord> {
        self.shown()
            .map(|shown| ConsumerRecord {
                consumer: shown.consumer,
                presence: shown.presence,
            })
            .collect()
    }

    /// What they acknowledged is not kept: each says it again within a second.
    pub(super) fn restore(records: Vec<ConsumerRecord>, now: Instant) -> Self {
        Self(
            records
                .into_iter()
                .map(|record| {
                    let mut consumer = Consumer::new(record.consumer.incarnation, now);
                    consumer.presence = record.presence;
                    (record.consumer.name, consumer)
                })
                .collect(),
        )
    }
}
