//! How fast messages come to a queue and leave it, and when it will be empty. Counts are the queue's own; here they are held
//! against time, which is an argument.

#[cfg(test)]
mod tests;

use alloc::collections::VecDeque;
use core::time::Duration;

use mainstay_ids::Instant;

use crate::queue::Death;

/// Rates are means over the last five seconds: a burst is seen within that, and so is its end; RabbitMQ's own page uses five,
/// too. A shorter one makes seconds-to-empty jump, a longer one tells a queue that drains that it grows.
pub const WINDOW: Duration = Duration::from_secs(5);
/// How often [`crate::Broker::sample`] is to be called. What comes sooner than after half of it is left out, so that a meter has
/// at most a dozen marks.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// What happened to messages of a queue, or of several, since the broker began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// They came in, also as dead letters of another queue.
    pub published: u64,
    /// They were delivered or got, each time counted.
    pub delivered: u64,
    /// Of these, how many had been delivered before.
    pub redelivered: u64,
    /// They were acknowledged.
    pub acknowledged: u64,
    /// They were delivered to somebody who acknowledges nothing, which is as much.
    pub auto_acknowledged: u64,
    /// They died and went to the exchange for dead letters, by [`Death::ALL`].
    pub dead: [u64; Death::ALL.len()],
}

impl Counts {
    /// Those of this and of another queue.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let mut dead = self.dead;
        for (one, more) in dead.iter_mut().zip(other.dead) {
            *one += more;
        }
        Self {
            published: self.published + other.published,
            delivered: self.delivered + other.delivered,
            redelivered: self.redelivered + other.redelivered,
            acknowledged: self.acknowledged + other.acknowledged,
            auto_acknowledged: self.auto_acknowledged + other.auto_acknowledged,
            dead,
        }
    }

    /// Dead letters of every kind.
    pub fn dead_lettered(&self) -> u64 {
        self.dead.iter().sum()
    }

    pub(crate) fn die(&mut self, death: Death) {
        self.dead[death as usize] += 1;
    }

    fn done(&self) -> u64 {
        self.acknowledged + self.auto_acknowledged
    }
}

/// Messages per second, as the mean of the last [`WINDOW`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// How fast they come in.
    pub published: f64,
    /// How fast they are delivered.
    pub delivered: f64,
    /// How fast they are done with: acknowledged, or delivered to somebody who acknowledges nothing.
    pub acknowledged: f64,
}

impl Rates {
    /// After how many seconds nothing of `depth` messages, waiting or delivered, is left if all goes on like this: infinity if
    /// it does not become less, 0 if nothing is there.
    pub fn seconds_to_empty(&self, depth: usize) -> f64 {
        let drain = self.acknowledged - self.published;
        if depth == 0 {
            0.0
        } else if drain > 0.0 {
            #[expect(clippy::cast_precision_loss, reason = "no queue has 2^52 messages")]
            let depth = depth as f64;
            depth / drain
        } else {
            f64::INFINITY
        }
    }
}

/// What was counted at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    at: Instant,
    published: u64,
    delivered: u64,
    done: u64,
}

impl Mark {
    fn new(at: Instant, counts: &Counts) -> Self {
        Self {
            at,
            published: counts.published,
            delivered: counts.delivered,
            done: counts.done(),
        }
    }

    fn shows(&self) -> (u64, u64, u64) {
        (self.published, self.delivered, self.done)
    }
}

/// Of one queue in which something happens: what was counted in the last [`WINDOW`].
#[derive(Debug, Clone)]
pub struct Meter {
    /// The last one first; the oldest is as old as the window, or the meter.
    marks: VecDeque<Mark>,
}

impl Meter {
    /// Something is about to happen in a queue in which nothing happened for a while.
    pub fn new(now: Instant, counts: &Counts) -> Self {
        Self {
            marks: VecDeque::from([Mark::new(now, counts)]),
        }
    }

    /// Looks at the counts.
    pub fn mark(&mut self, now: Instant, counts: &Counts) {
        let last = self.marks.front().map(|mark| mark.at);
        if last.is_some_and(|last| now.since(last) < SAMPLE_EVERY / 2) {
            return;
        }
        self.marks.push_front(Mark::new(now, counts));
        // One that is as old as the window stays: it is where the window begins.
        while self.marks.len() > 2
            && let Some(second) = self.marks.get(self.marks.len() - 2)
            && now.since(second.at) >= WINDOW
        {
            self.marks.pop_back();
        }
    }

    /// The rates as they were at the last mark.
    pub fn rates(&self) -> Rates {
        let (Some(last), Some(first)) = (self.marks.front(), self.marks.back()) else {
            return Rates::default();
        };
        // What happened within a moment happened at no rate.
        let span = last.at.since(first.at).max(SAMPLE_EVERY).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "of a few seconds")]
        let rate = |last: u64, first: u64| last.saturating_sub(first) as f64 / span;
        Rates {
            published: rate(last.published, first.published),
            delivered: rate(last.delivered, first.delivered),
            acknowledged: rate(last.done, first.done),
        }
    }

    /// Whether nothing happened in the window, so that it need not be kept.
    pub fn is_still(&self) -> bool {
        match (self.marks.front(), self.marks.back()) {
            (Some(last), Some(first)) => self.marks.len() > 1 && last.shows() == first.shows(),
            _ => true,
        }
    }
}
