//! A chain in the making.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use mainstay_ids::Timestamp;
use mainstay_model::{Event, Reason, Topic, Why};

use super::{Past, words};

/// How many recorded decisions one answer has at the most. A crash loop of a night records
/// thousands that say the same; `mainstay events` has them all.
pub(super) const DECISIONS_MAX: usize = 20;

/// A chain in the making: how things stand, and the decisions that led to it.
pub(super) struct Chain<'a> {
    stands: Vec<Reason>,
    decisions: BTreeMap<u64, &'a Event>,
    /// So many of them, the newest, are told.
    most: usize,
}

impl<'a> Chain<'a> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            stands: Vec::new(),
            decisions: BTreeMap::new(),
        }
    }

    /// Adds how something stands, behind what was added so before.
    pub(super) fn stand(&mut self, at: Timestamp, topic: Topic, text: String) {
        self.stands.push(Reason {
            at,
            topic,
            text,
            event: None,
            decision: None,
        });
    }

    pub(super) fn decide(&mut self, event: &'a Event) {
        self.decisions.insert(event.number, event);
    }

    /// The answer. `forgotten`: the chain's beginning is not remembered.
    pub(super) fn close(self, about: String, past: Past<'_>, forgotten: Option<u64>) -> Why {
        let Self {
            stands,
            decisions,
            most,
        } = self;
        let left_out = decisions.len().saturating_sub(most);
        let newest = decisions.values().rev().take(most);
        let reasons = newest.map(|event| {
            let (topic, text) = words::of(event, past);
            Reason {
                at: event.at,
                topic,
                text,
                event: Some(event.number),
                decision: Some(event.kind.clone()),
            }
        });
        Why {
            about,
            chain: stands.into_iter().chain(reasons).collect(),
            forgotten,
            left_out: u32::try_from(left_out).unwrap_or(u32::MAX),
        }
    }
}
