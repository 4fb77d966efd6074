//! What is known of one lane outside of the broker.

use std::collections::BTreeSet;

use super::lanes::{Kind, body, rank};

#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) published: u64,
    pub(super) confirmed: BTreeSet<u64>,
    pub(super) delivered: BTreeSet<u64>,
    /// Got, and an acknowledgement was sent: what was only delivered has to come again.
    pub(super) taken: BTreeSet<u64>,
    /// Acknowledged, and a later publish of the same channel was confirmed.
    pub(super) settled: BTreeSet<u64>,
    pub(super) settled_again: usize,
    pub(super) letters_twice: usize,
    pub(super) wrong: Vec<String>,
}

/// The numbers that came last on one channel, for each rank: within one, they rise.
#[derive(Debug, Default)]
pub(super) struct Last([u64; 4]);

/// What a consumer gets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Got<'d> {
    pub(super) number: u64,
    pub(super) redelivered: bool,
    pub(super) body: &'d [u8],
}

impl Book {
    pub(super) fn next_number(&mut self) -> u64 {
        self.published += 1;
        self.published
    }

    /// How many wait for their consumer, more or less.
    pub(super) fn ahead(&self) -> usize {
        self.confirmed.len().saturating_sub(self.taken.len())
    }

    /// Judges a delivery.
    pub(super) fn take(&mut self, kind: Kind, last: &mut Last, got: Got<'_>) {
        let number = got.number;
        if got.body != body(number) {
            self.wrong.push(format!("{number} came with another body"));
        }
        let is_new = self.delivered.insert(number);
        if kind == Kind::Letters && !is_new && !got.redelivered {
            self.letters_twice += 1;
            return;
        }
        let last = &mut last.0[rank(kind, number)];
        if number <= *last {
            self.wrong.push(format!("{number} came after {last}"));
        }
        *last = number;
        if self.settled.contains(&number) {
            self.settled_again += 1;
            self.wrong.push(format!(
                "{number} was acknowledged for good, and came again"
            ));
        }
        if !is_new && !got.redelivered {
            self.wrong
                .push(format!("{number} came again as if for the first time"));
        }
    }
}
