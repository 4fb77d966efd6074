//! The publishers and the consumer: a thread each, and what each of them saw.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::plan::Plan;
use crate::amqp::{Error, Heard, Template, Wire};
use crate::scenario::chain;

/// So many publish, each in an order of its own.
pub(super) const PUBLISHERS: usize = 2;
/// What the consumer may hold: what it acknowledges in some hundredths of a second, so that its rate is its own and not that of the way.
const PREFETCH: u16 = 200;
/// The longest that anybody listens before it looks at the time again.
const TICK: Duration = Duration::from_millis(5);
/// What one publisher sends before it listens: half a second of a burst of ten thousand.
const BATCH_MAX: u64 = 2500;
/// How long the last confirms may take.
const LAST_CONFIRMS: Duration = Duration::from_secs(10);
/// Of a message's number the upper bits tell whose it is.
const NUMBER_BITS: u32 = 48;

/// What all threads look at.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Published by all.
    pub(super) sent: AtomicU64,
    /// Acknowledged by the consumer.
    pub(super) acked: AtomicU64,
    /// Deliveries so far.
    pub(super) came: AtomicU64,
    /// Nothing more is published.
    pub(super) enough: AtomicBool,
    /// Nothing more is awaited.
    pub(super) over: AtomicBool,
}

impl Shared {
    pub(super) fn is(flag: &AtomicBool) -> bool {
        flag.load(Ordering::Acquire)
    }

    /// Somebody cannot go on, and nobody shall wait for it.
    fn end(&self) {
        self.enough.store(true, Ordering::Release);
        self.over.store(true, Ordering::Release);
    }
}

/// What became of one publisher's messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Published {
    /// Of each, in order, whether it was confirmed.
    pub(super) confirmed: Vec<bool>,
    pub(super) refused: u64,
    /// The longest that a message waited to be sent.
    pub(super) late: Duration,
    /// Why it could not go on, if it could not.
    pub(super) broke: Option<String>,
}

impl Published {
    /// The publish with this number, counted from 1, or all up to it; how many had no word before.
    fn confirm(&mut self, floor: &mut usize, tag: u64, multiple: bool) -> u64 {
        let place = tag.checked_sub(1).and_then(|at| usize::try_from(at).ok());
        let Some(place) = place.filter(|place| *place < self.confirmed.len()) else {
            return 0;
        };
        let from = if multiple { (*floor).min(place) } else { place };
        let mut fresh = 0;
        for done in &mut self.confirmed[from..=place] {
            fresh += u64::from(!*done);
            *done = true;
        }
        if multiple {
            *floor = (*floor).max(place + 1);
        }
        fresh
    }
}

/// A message, told apart from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sent {
    pub(super) publisher: usize,
    pub(super) number: u64,
}

impl Sent {
    fn write(self) -> u64 {
        let publisher = u64::try_from(self.publisher).unwrap_or(u64::MAX);
        publisher << NUMBER_BITS | self.number
    }

    fn read(written: u64) -> Self {
        Self {
            publisher: usize::try_from(written >> NUMBER_BITS).unwrap_or(usize::MAX),
            number: written & ((1 << NUMBER_BITS) - 1),
        }
    }
}

/// What a publisher is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) broker: SocketAddr,
    pub(super) queue: &'a str,
    pub(super) plan: Plan,
    pub(super) start: Instant,
    pub(super) shared: &'a Shared,
}

/// Publishes by the plan until it is enough, and hears the confirms.
pub(super) fn publish(job: Job<'_>, publisher: usize) -> Published {
    let mut seen = Published::default();
    if let Err(error) = publish_all(job, publisher, &mut seen) {
        job.shared.end();
        seen.broke = Some(chain(&error));
    }
    seen
}

fn publish_all(job: Job<'_>, publisher: usize, seen: &mut Published) -> Result<(), Error> {
    let Job {
        broker,
        queue,
        plan,
        start,
        shared,
    } = job;
    let mut wire = Wire::connect(broker)?;
    wire.select_confirms()?;
    wire.set_patience(TICK)?;
    let template = Template::new(queue);
    // Sent, and of these with a word, and all up to where.
    let (mut number, mut settled, mut floor) = (0, 0, 0);
    let mut looked = start.elapsed();
    let mut ended = None;
    loop {
        let now = start.elapsed();
        if Shared::is(&shared.enough) {
            let since = *ended.get_or_insert_with(Instant::now);
            if settled >= number || since.elapsed() > LAST_CONFIRMS {
                return Ok(());
            }
        } else {
            let due = plan.due(now) / PUBLISHERS as u64;
            let until = due.min(number + BATCH_MAX);
            if until > number {
                // Each was due when it was looked last, or later.
                seen.late = seen.late.max(now.saturating_sub(looked));
            }
            shared
                .sent
                .fetch_add(until.saturating_sub(number), Ordering::AcqRel);
            for number in number..until {
                wire.publish(&template, Sent { publisher, number }.write());
                seen.confirmed.push(false);
            }
            number = number.max(until);
            // What did not fit into a batch was due then already.
            if until == due {
                looked = now;
            }
            wire.flush()?;
        }
        if !wire.receive()? {
            continue;
        }
        while let Some(word) = wire.heard()? {
            match word {
                Heard::Confirmed { tag, multiple } => {
                    settled += seen.confirm(&mut floor, tag, multiple);
                }
                Heard::Refused { .. } => {
                    seen.refused += 1;
                    settled += 1;
                }
                Heard::Delivered { .. } => {}
            }
        }
    }
}

/// What the consumer saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Consumed {
    /// All deliveries, in order.
    pub(super) came: Vec<Sent>,
    /// Why it could not go on, if it could not.
    pub(super) broke: Option<String>,
}

/// Consumes at a constant rate until nothing more is awaited.
pub(super) fn consume(
    broker: SocketAddr,
    queue: &str,
    every: Duration,
    shared: &Shared,
) -> Consumed {
    let mut consumed = Consumed::default();
    if let Err(error) = consume_all(broker, queue, every, shared, &mut consumed) {
        shared.end();
        consumed.broke = Some(chain(&error));
    }
    consumed
}

fn consume_all(
    broker: SocketAddr,
    queue: &str,
    every: Duration,
    shared: &Shared,
    consumed: &mut Consumed,
) -> Result<(), Error> {
    let mut wire = Wire::connect(broker)?;
    wire.consume(queue, PREFETCH)?;
    wire.set_patience(TICK)?;
    let mut held = VecDeque::new();
    // When the next one is done.
    let mut next = Instant::now();
    while !Shared::is(&shared.over) {
        if wire.receive()? {
            while let Some(word) = wire.heard()? {
                if let Heard::Delivered { tag, number } = word {
                    consumed.came.push(Sent::read(number));
                    shared.came.fetch_add(1, Ordering::AcqRel);
                    held.push_back(tag);
                }
            }
        }
        let now = Instant::now();
        while next <= now
            && let Some(tag) = held.pop_front()
        {
            wire.ack(tag, false);
            shared.acked.fetch_add(1, Ordering::AcqRel);
            next += every;
        }
        if held.is_empty() {
            // A pause is not made up for.
            next = next.max(now);
        }
        wire.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_tells_whose_it_is() {
        for (publisher, number) in [(0, 0), (1, 7), (1, (1 << NUMBER_BITS) - 1)] {
            let sent = Sent { publisher, number };
            assert_eq!(Sent::read(sent.write()), sent);
        }
    }

    #[test]
    fn confirms_may_come_out_of_turn_and_several_at_once() {
        let mut published = Published {
            confirmed: vec![false; 6],
            ..Published::default()
        };
        let mut floor = 0;
        assert_eq!(published.confirm(&mut floor, 4, false), 1);
        assert_eq!(published.confirm(&mut floor, 2, true), 2);
        assert_eq!(published.confirmed, [true, true, false, true, false, false]);
        assert_eq!(published.confirm(&mut floor, 5, true), 2, "3 and 5");
        assert_eq!(published.confirm(&mut floor, 5, true), 0);
        assert_eq!(published.confirm(&mut floor, 0, true), 0);
        assert_eq!(published.confirm(&mut floor, 99, true), 0);
        assert_eq!(published.confirmed, [true, true, true, true, true, false]);
    }
}
