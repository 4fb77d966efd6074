//! What all records together come to.
//!
//! They are played in the order in which they were written, so that the place of a message that was
//! moved is the last one that it had, and a definition its last value.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;

use super::contract::{Found, FoundMessage, FoundQueue, QueueKey, Ref};
use super::examine::ExaminedQueue;
use super::index::Index;
use super::record::Entry;
use crate::error::Damage;
use crate::format::HEADER_LEN;
use crate::reader::Record;
use crate::recovery::{Spot, Witness};

/// What the records so far come to.
#[derive(Debug, Default)]
pub(super) struct Replay {
    definitions: BTreeMap<Bytes, (Bytes, Spot)>,
    queues: HashMap<QueueKey, HashMap<u64, Seen>>,
    /// The newest segment that was no longer needed.
    released: u64,
    /// Where the last record of each segment ends, by sequence.
    ends: Vec<(u64, u64)>,
}

/// A message of a queue.
#[derive(Debug, Clone)]
struct Seen {
    spot: Spot,
    head: Bytes,
    body_len: u32,
}

impl Witness for Replay {
    fn see(&mut self, spot: Spot, record: Record<'_>) -> Result<(), Damage> {
        let number = record.number.0;
        let entry = Entry::decode(record.body).ok_or(Damage::Content { number })?;
        let end = spot.at + spot.len;
        match self.ends.last_mut() {
            Some((sequence, last)) if *sequence == spot.sequence => *last = end,
            Some(_) | None => self.ends.push((spot.sequence, end)),
        }
        match entry {
            Entry::Put { key, value } => {
                let value = Bytes::copy_from_slice(value);
                self.definitions
                    .insert(Bytes::copy_from_slice(key), (value, spot));
            }
            Entry::Remove { key } => {
                self.definitions.remove(key);
            }
            Entry::Message { refs, head, body } => {
                let seen = Seen {
                    spot,
                    head: Bytes::copy_from_slice(head),
                    // A record is shorter than 4 GiB: its own length has 32 bits.
                    body_len: u32::try_from(body.len()).unwrap_or(u32::MAX),
                };
                for Ref { queue, position } in refs.iter() {
                    let queue = self.queues.entry(queue).or_default();
                    queue.insert(position, seen.clone());
                }
            }
            Entry::Forget { queue, positions } => {
                if let Some(messages) = self.queues.get_mut(&queue) {
                    for position in positions.iter() {
                        messages.remove(&position);
                    }
                }
            }
            Entry::ForgetQueue(queue) => {
                self.queues.remove(&queue);
            }
            // It is said in a later one: else it would take away what it stands in.
            Entry::Released { through } if through >= spot.sequence => {
                return Err(Damage::Content { number });
            }
            Entry::Released { through } => self.released = self.released.max(through),
        }
        Ok(())
    }

    /// A segment is given up only when the log says that it is, so one that is missing without that
    /// was lost.
    fn missing_before(&self, oldest: u64) -> Option<u64> {
        let first_needed = self.released + 1;
        (oldest > first_needed).then_some(first_needed)
    }
}

impl Replay {
    /// The newest segment that was no longer needed.
    pub(super) fn released(&self) -> u64 {
        self.released
    }

    /// Where the last record of a segment ends.
    pub(super) fn end(&self, sequence: u64) -> u64 {
        let found = self.ends.iter().find(|(number, _)| *number == sequence);
        found.map_or(HEADER_LEN, |(_, end)| *end)
    }

    /// The queues that have messages, by key.
    pub(super) fn queues(&self) -> Vec<ExaminedQueue> {
        let queues = self
            .queues
            .iter()
            .filter(|(_, messages)| !messages.is_empty());
        let counted = queues.map(|(key, messages)| ExaminedQueue {
            key: *key,
            messages: messages.len() as u64,
            bytes: messages.values().map(|seen| u64::from(seen.body_len)).sum(),
        });
        let mut counted: Vec<_> = counted.collect();
        counted.sort_unstable_by_key(|queue| queue.key);
        counted
    }

    /// The definitions, by key.
    pub(super) fn definitions(self) -> Vec<(Bytes, Bytes)> {
        let definitions = self.definitions.into_iter();
        definitions.map(|(key, (value, _))| (key, value)).collect()
    }

    /// The bytes of the records that are needed, by segment.
    pub(super) fn live(&self) -> HashMap<u64, u64> {
        let messages = self.queues.values().flat_map(HashMap::values);
        let spots = messages.map(|seen| seen.spot);
        let definitions = self.definitions.values().map(|(_, spot)| *spot);
        // Each once, however many queues need it.
        let spots: HashSet<Spot> = spots.chain(definitions).collect();
        let mut live = HashMap::new();
        for spot in spots {
            *live.entry(spot.sequence).or_default() += spot.len;
        }
        live
    }

    /// Tells an index of the segments where everything is, and gives what there is.
    pub(super) fn conclude<F>(self, index: &mut Index<F>) -> (Found, HashMap<Bytes, Spot>) {
        let mut found = Found::default();
        let mut definitions = HashMap::with_capacity(self.definitions.len());
        for (key, (value, spot)) in self.definitions {
            index.hold(spot);
            definitions.insert(key.clone(), spot);
            found.definitions.push((key, value));
        }
        let mut needed: HashMap<Spot, u32> = HashMap::new();
        for (key, messages) in self.queues {
            if messages.is_empty() {
                continue;
            }
            let mut messages: Vec<(u64, Seen)> = messages.into_iter().collect();
            messages.sort_unstable_by_key(|(position, _)| *position);
            for (position, seen) in &messages {
                let (queue, position) = (key, *position);
                index.put(Ref { queue, position }, seen.spot);
                *needed.entry(seen.spot).or_default() += 1;
            }
            let messages = messages.into_iter().map(|(position, seen)| FoundMessage {
                position,
                head: seen.head,
                body_len: seen.body_len,
            });
            let messages = messages.collect();
            found.queues.push(FoundQueue { key, messages });
        }
        for (spot, queues) in needed {
            index.hold(spot);
            index.share(spot, queues);
        }
        found.queues.sort_unstable_by_key(|queue| queue.key);
        (found, definitions)
    }
}
