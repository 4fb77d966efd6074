//! What the log may hold: some first part of all changes, at least those that were synced.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::messages::{Body, Change, Found, Places, QueueKey, Ref};
use crate::simulated::SimulatedDisk;

/// What there is after some changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) definitions: BTreeMap<Bytes, Bytes>,
    pub(super) messages: BTreeMap<Ref, (Bytes, Bytes)>,
}

impl State {
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Put { key, value } => {
                self.definitions.insert(key.clone(), value.clone());
            }
            Change::Remove { key } => {
                self.definitions.remove(key);
            }
            Change::Message { refs, head, body } => {
                let body = match body {
                    Body::Here(bytes) => bytes.clone(),
                    Body::Stored(message) => self.messages[message].1.clone(),
                };
                for message in refs {
                    self.messages.insert(*message, (head.clone(), body.clone()));
                }
            }
            Change::Forget(message) => {
                self.messages.remove(message);
            }
            Change::ForgetQueue(queue) => {
                self.messages.retain(|message, _| message.queue != *queue);
            }
        }
    }

    /// What an opening found, with the bodies that are read then.
    pub(super) fn found(found: &Found, places: &Places<SimulatedDisk>) -> Result<Self, String> {
        let mut state = Self::default();
        for (key, value) in &found.definitions {
            state.definitions.insert(key.clone(), value.clone());
        }
        let mut last_queue: Option<QueueKey> = None;
        for queue in &found.queues {
            if last_queue.is_some_and(|last| last >= queue.key) || queue.messages.is_empty() {
                return Err(format!("queue {:?} is twice there, or empty", queue.key));
            }
            last_queue = Some(queue.key);
            let mut last = None;
            for message in &queue.messages {
                let position = message.position;
                if last.is_some_and(|last| last >= position) {
                    return Err(format!("message {position} is out of order or twice there"));
                }
                last = Some(position);
                let queue = queue.key;
                let place = places.find(Ref { queue, position });
                let place =
                    place.ok_or(format!("message {position} was found, but has no place"))?;
                let body = place.read().map_err(|error| error.to_string())?;
                if body.len() != message.body_len as usize {
                    return Err(format!("message {position} has a body of another length"));
                }
                let message = (message.head.clone(), body);
                state.messages.insert(Ref { queue, position }, message);
            }
        }
        Ok(state)
    }
}

/// What is known of a log.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    durable: State,
    /// What was appended since, and is not known to be durable.
    since: Vec<Change>,
    /// What was refused since something was appended last: a part of one of these may be there.
    refused: Vec<Vec<Change>>,
    pub(super) now: State,
    /// The next position of each queue.
    positions: BTreeMap<QueueKey, u64>,
    made: u64,
    segment_len: usize,
}

impl Oracle {
    /// Of a log with segments of this length.
    pub(super) fn new(segment_len: u64) -> Self {
        Self {
            segment_len: usize::try_from(segment_len).expect("small"),
            ..Self::default()
        }
    }

    pub(super) fn appended(&mut self, changes: &[Change]) {
        for change in changes {
            self.now.apply(change);
            self.since.push(change.clone());
        }
        self.refused.clear();
    }

    pub(super) fn was_refused(&mut self, changes: &[Change]) {
        self.refused.push(changes.to_vec());
    }

    pub(super) fn synced(&mut self) {
        for change in self.since.drain(..) {
            self.durable.apply(&change);
        }
    }

    /// Compares with what an opening found, which is durable from then on.
    pub(super) fn judge(&mut self, found: State) -> Result<(), String> {
        let mut state = self.durable.clone();
        let mut may_be = is_after(&mut state, &self.since, &found);
        for refused in &self.refused {
            may_be = may_be || is_after(&mut state.clone(), refused, &found);
        }
        if !may_be {
            return Err(self.difference(&found));
        }
        self.durable = found.clone();
        self.now = found;
        self.since.clear();
        self.refused.clear();
        Ok(())
    }

    fn difference(&self, found: &State) -> String {
        let name = |messages: &BTreeMap<Ref, (Bytes, Bytes)>, other: &State| {
            let missing = messages.keys();
            let missing = missing.filter(|message| !other.messages.contains_key(message));
            let missing: Vec<_> = missing
                .map(|message| (message.queue.queue, message.position))
                .collect();
            format!("{missing:?}")
        };
        format!(
            "no first part of the changes: of what was synced {} is missing, {} was not synced or is \
             forgotten, {} changes were not synced, definitions {:?} instead of {:?}",
            name(&self.durable.messages, found),
            name(&found.messages, &self.durable),
            self.since.len(),
            found.definitions,
            self.durable.definitions,
        )
    }

    pub(super) fn message(&mut self, rng: &mut fastrand::Rng) -> Change {
        self.made += 1;
        let mut refs = Vec::new();
        for _ in 0..rng.usize(1..4) {
            let queue = draw_queue(rng);
            if refs.iter().any(|message: &Ref| message.queue == queue) {
                continue;
            }
            let next = self.positions.entry(queue).or_default();
            *next += rng.u64(1..3);
            let position = *next;
            refs.push(Ref { queue, position });
        }
        let body = match self.any_message(rng) {
            Some(message) if rng.u8(0..8) == 0 => Body::Stored(message),
            Some(_) | None => {
                let mut body = self.made.to_le_bytes().to_vec();
                // Few lengths, so that what a failed write left often lies where a record could
                // begin; and some that are longer than a segment.
                let len = if rng.u8(0..40) == 0 {
                    self.segment_len * 3 / 2
                } else {
                    8 + 90 * rng.usize(0..3)
                };
                body.resize(len, 0xA5);
                Body::Here(body.into())
            }
        };
        let head = Bytes::copy_from_slice(&self.made.to_be_bytes());
        Change::Message { refs, head, body }
    }

    pub(super) fn any_message(&self, rng: &mut fastrand::Rng) -> Option<Ref> {
        let count = self.now.messages.len();
        // The newer ones more often, so that old ones stay.
        let at = count.checked_sub(1 + rng.usize(0..count.max(1)) / rng.usize(1..3))?;
        self.now.messages.keys().nth(at).copied()
    }

    pub(super) fn change(&mut self, rng: &mut fastrand::Rng) -> Change {
        let key = Bytes::copy_from_slice(&[rng.u8(0..4)]);
        match rng.u8(0..20) {
            0 | 1 => {
                self.made += 1;
                let value = Bytes::copy_from_slice(&self.made.to_be_bytes());
                Change::Put { key, value }
            }
            2 => Change::Remove { key },
            3 if rng.bool() => Change::ForgetQueue(draw_queue(rng)),
            4..10 => match self.any_message(rng) {
                Some(message) => Change::Forget(message),
                None => self.message(rng),
            },
            _ => self.message(rng),
        }
    }

    /// A batch: what is in it knows nothing of the rest of it.
    pub(super) fn batch(&mut self, rng: &mut fastrand::Rng) -> Vec<Change> {
        let mut batch: Vec<Change> = (0..rng.usize(1..4)).map(|_| self.change(rng)).collect();
        // A message is not forgotten before one that takes its body.
        batch.sort_by_key(|change| match change {
            Change::Message { .. } => 0,
            Change::Put { .. } | Change::Remove { .. } => 1,
            Change::Forget(_) | Change::ForgetQueue(_) => 2,
        });
        batch
    }

    /// What makes room: messages and queues that are not needed any more.
    pub(super) fn forgetting(&mut self, rng: &mut fastrand::Rng) -> Vec<Change> {
        let messages = self.any_message(rng).into_iter();
        let mut batch: Vec<Change> = messages.map(Change::Forget).collect();
        if rng.u8(0..5) == 0 {
            let key = Bytes::copy_from_slice(&[rng.u8(0..4)]);
            batch.push(Change::Remove { key });
        }
        batch
    }
}

/// Whether some first part of the changes makes one state the other.
fn is_after(state: &mut State, changes: &[Change], other: &State) -> bool {
    for change in changes {
        if state == other {
            return true;
        }
        state.apply(change);
    }
    state == other
}

fn draw_queue(rng: &mut fastrand::Rng) -> QueueKey {
    QueueKey {
        vhost: rng.u32(0..2),
        queue: rng.u64(1..3),
    }
}
