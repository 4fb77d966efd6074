//! Requests that wait because every instance is as busy as it may be: bounded in number and time.
//!
//! As long as the line empties now and then it is a burst, and the first come is served first. When
//! it has stood for [`STANDING`], more comes than can be answered: then the oldest are the ones whose
//! clients have given up or are about to, and serving them in order would make every request late.
//! So the newest is served first, and the oldest are refused when their time is over. (Facebook's
//! *Fail at Scale*, ACM Queue 2015: adaptive LIFO with `CoDel`; its second half, a shorter time in a
//! standing line, is left out, as it needs a good guess at what a short time is for this service.)

use alloc::collections::VecDeque;

use core::time::Duration;

use mainstay_ids::Instant;

/// How long a line may stand before the newest is served first: `CoDel`'s interval, and what that
/// article takes for it.
pub const STANDING: Duration = Duration::from_millis(100);

/// One place in a [`Line`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

/// How many may wait in a [`Line`], and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineBounds {
    /// How many. One more is refused at once: at a thousand a second, a line of a thousand is
    /// already a second long.
    pub len: usize,
    /// How long.
    pub time: Duration,
}

/// Those who wait, of one service in one worker.
#[derive(Debug, Clone)]
pub struct Line {
    bounds: LineBounds,
    waiting: VecDeque<Ticket>,
    /// Since when it was never empty.
    standing_since: Option<Instant>,
    next: u64,
}

impl Line {
    /// Nobody waits.
    pub fn new(bounds: LineBounds) -> Self {
        Self {
            bounds,
            waiting: VecDeque::new(),
            standing_since: None,
            next: 0,
        }
    }

    /// Changes how many may wait; those who do, stay.
    pub fn bound(&mut self, bounds: LineBounds) {
        self.bounds = bounds;
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes a place until the time that is given back; `None`: there is none left.
    pub fn join(&mut self, now: Instant) -> Option<(Ticket, Instant)> {
        if self.waiting.len() >= self.bounds.len || self.bounds.time.is_zero() {
            return None;
        }
        self.standing_since.get_or_insert(now);
        self.next += 1;
        let ticket = Ticket(self.next);
        self.waiting.push_back(ticket);
        Some((ticket, now.after(self.bounds.time)))
    }

    /// Whose turn it is when there is room for one. It keeps its place until it [leaves](Self::leave).
    pub fn first(&self, now: Instant) -> Option<Ticket> {
        let standing = self
            .standing_since
            .is_some_and(|since| now.since(since) > STANDING);
        if standing {
            self.waiting.back().copied()
        } else {
            self.waiting.front().copied()
        }
    }

    /// Gives a place up: served, refused or gone.
    pub fn leave(&mut self, ticket: Ticket) {
        // Nearly always at one of the ends.
        if self.waiting.back() == Some(&ticket) {
            self.waiting.pop_back();
        } else if let Some(at) = self.waiting.iter().position(|one| *one == ticket) {
            self.waiting.remove(at);
        }
        if self.waiting.is_empty() {
            self.standing_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_start(Duration::from_millis(ms))
    }

    fn line(len: usize) -> Line {
        let time = Duration::from_secs(1);
        Line::new(LineBounds { len, time })
    }

    #[test]
    fn a_burst_is_served_in_order_and_a_standing_line_from_its_end() {
        let mut line = line(9);
        let mut join = |ms| line.join(at(ms)).map(|(ticket, _)| ticket);
        let (first, second, third) = (join(0), join(1), join(99));
        assert_eq!(line.first(at(100)), first);
        line.leave(first.unwrap());
        assert_eq!(line.first(at(100)), second);
        assert_eq!(
            line.first(at(101)),
            third,
            "it has stood for longer than 100 ms"
        );
        line.leave(third.unwrap());
        line.leave(second.unwrap());
        let fourth = line.join(at(102)).unwrap().0;
        line.join(at(103)).unwrap();
        assert_eq!(line.first(at(150)), Some(fourth), "it was empty meanwhile");
    }

    #[test]
    fn one_more_than_fits_has_no_place_and_each_has_its_time() {
        let mut line = line(2);
        assert_eq!(line.join(at(5)).unwrap().1, at(1_005));
        let (second, _) = line.join(at(6)).unwrap();
        assert_eq!(line.join(at(7)), None);
        line.leave(second);
        line.leave(second);
        assert_eq!(line.len(), 1, "leaving twice takes nobody else's place");
        assert!(line.join(at(8)).is_some());
    }
}
