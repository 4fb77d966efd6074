//! Where each message is, in memory.
//!
//! A message costs 20 bytes for each of its queues, in a ring that is sorted by position and grows by
//! a quarter; one that is in several queues costs a count besides. What was forgotten from the middle
//! of a queue stays as a gap until gaps are a quarter of it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::contract::{QueueKey, Ref};
use crate::format::Seed;
use crate::recovery::Spot;

/// The file of a segment, for as long as somebody reads it.
#[derive(Debug)]
pub(super) struct SegmentFile<F> {
    pub(super) file: F,
    pub(super) sequence: u64,
    pub(super) seed: Seed,
}

/// Where everything is.
#[derive(Debug)]
pub(super) struct Index<F> {
    rings: HashMap<QueueKey, Ring>,
    /// The segments, the oldest first, without a gap.
    volumes: VecDeque<Volume<F>>,
    /// How many queues still need a record that more than one needs, by sequence and place in it.
    shared: HashMap<(u64, u64), u32>,
}

/// A segment.
#[derive(Debug)]
pub(super) struct Volume<F> {
    pub(super) file: Arc<SegmentFile<F>>,
    /// The bytes of the records that are needed.
    pub(super) live: u64,
    /// Where its last record ends; of the newest segment the journal alone knows.
    pub(super) end: u64,
}

/// The messages of one queue, by position.
#[derive(Debug, Default)]
struct Ring {
    slots: VecDeque<Slot>,
    /// How many slots are gaps.
    gaps: usize,
}

/// Halves of numbers, so that it needs no padding.
#[derive(Debug, Clone, Copy)]
struct Slot {
    position: [u32; 2],
    /// The lower half of the segment's sequence; no log has so many segments at a time.
    sequence: u32,
    at: u32,
    /// Zero: a gap.
    len: u32,
}

impl Slot {
    fn new(position: u64, spot: Spot) -> Self {
        Self {
            position: [(position >> 32) as u32, low(position)],
            sequence: low(spot.sequence),
            at: low(spot.at),
            len: low(spot.len),
        }
    }

    fn position(&self) -> u64 {
        u64::from(self.position[0]) << 32 | u64::from(self.position[1])
    }

    fn is_gap(&self) -> bool {
        self.len == 0
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower half is asked for"
)]
fn low(number: u64) -> u32 {
    number as u32
}

impl Ring {
    fn find(&self, position: u64) -> Result<usize, usize> {
        // What is consumed in order is at the front.
        if self
            .slots
            .front()
            .is_some_and(|slot| slot.position() == position)
        {
            return Ok(0);
        }
        self.slots.binary_search_by_key(&position, Slot::position)
    }

    fn get(&self, position: u64) -> Option<Slot> {
        let slot = self.slots[self.find(position).ok()?];
        (!slot.is_gap()).then_some(slot)
    }

    fn put(&mut self, slot: Slot) {
        let last = self.slots.back().map(Slot::position);
        if self.slots.len() == self.slots.capacity() {
            self.slots.reserve_exact((self.slots.len() / 4).max(4));
        }
        if last.is_none_or(|last| last < slot.position()) {
            self.slots.push_back(slot);
            return;
        }
        match self.find(slot.position()) {
            Ok(at) => {
                self.gaps -= usize::from(self.slots[at].is_gap());
                self.slots[at] = slot;
            }
            Err(at) => self.slots.insert(at, slot),
        }
    }

    fn take(&mut self, position: u64) -> Option<Slot> {
        let at = self.find(position).ok()?;
        let slot = self.slots[at];
        if slot.is_gap() {
            return None;
        }
        self.slots[at].len = 0;
        self.gaps += 1;
        while self.slots.front().is_some_and(Slot::is_gap) {
            self.slots.pop_front();
            self.gaps -= 1;
        }
        if self.gaps > 4 + self.slots.len() / 4 {
            self.slots.retain(|slot| !slot.is_gap());
            self.gaps = 0;
        }
        if self.slots.capacity() > 16 + 2 * self.slots.len() {
            self.slots
                .shrink_to(self.slots.len() + self.slots.len() / 4);
        }
        Some(slot)
    }
}

impl<F> Default for Index<F> {
    fn default() -> Self {
        Self {
            rings: HashMap::new(),
            volumes: VecDeque::new(),
            shared: HashMap::new(),
        }
    }
}

impl<F> Index<F> {
    /// The segments, the oldest first.
    pub(super) fn volumes(&self) -> &VecDeque<Volume<F>> {
        &self.volumes
    }

    /// A segment follows the newest, which ended at `end`.
    pub(super) fn begin(&mut self, file: SegmentFile<F>, end: u64) {
        if let Some(newest) = self.volumes.back_mut() {
            newest.end = end;
        }
        self.volumes.push_back(Volume {
            file: Arc::new(file),
            live: 0,
            end: 0,
        });
    }

    /// The oldest segment is no longer one.
    pub(super) fn retire_oldest(&mut self) -> Option<Arc<SegmentFile<F>>> {
        self.volumes.pop_front().map(|volume| volume.file)
    }

    /// The bytes that are needed of all.
    pub(super) fn live(&self) -> u64 {
        self.volumes.iter().map(|volume| volume.live).sum()
    }

    pub(super) fn file(&self, sequence: u64) -> Option<&Arc<SegmentFile<F>>> {
        let oldest = self.oldest()?;
        let at = usize::try_from(sequence.checked_sub(oldest)?).ok()?;
        self.volumes.get(at).map(|volume| &volume.file)
    }

    fn oldest(&self) -> Option<u64> {
        self.volumes.front().map(|volume| volume.file.sequence)
    }

    fn spot_of(&self, slot: Slot) -> Spot {
        let oldest = self.oldest().unwrap_or(0);
        let behind = slot.sequence.wrapping_sub(low(oldest));
        Spot {
            sequence: oldest + u64::from(behind),
            at: u64::from(slot.at),
            len: u64::from(slot.len),
        }
    }

    pub(super) fn get(&self, message: Ref) -> Option<Spot> {
        let slot = self.rings.get(&message.queue)?.get(message.position)?;
        Some(self.spot_of(slot))
    }

    /// Whether a queue has a message.
    pub(super) fn has_queue(&self, queue: QueueKey) -> bool {
        self.rings.contains_key(&queue)
    }

    /// A message is at `spot`, for all of these queues.
    pub(super) fn add(&mut self, refs: &[Ref], spot: Spot) {
        for message in refs {
            self.put(*message, spot);
        }
        self.hold(spot);
        if let Ok(count @ 2..) = u32::try_from(refs.len()) {
            self.shared.insert((spot.sequence, spot.at), count);
        }
    }

    /// As [`Index::add`], for one queue of a message that is held already.
    pub(super) fn put(&mut self, message: Ref, spot: Spot) {
        let ring = self.rings.entry(message.queue).or_default();
        ring.put(Slot::new(message.position, spot));
    }

    /// So many queues need the record at a spot that is held.
    pub(super) fn share(&mut self, spot: Spot, queues: u32) {
        if queues > 1 {
            self.shared.insert((spot.sequence, spot.at), queues);
        }
    }

    /// A record that is needed is at `to` now; those queues that still need it know.
    pub(super) fn relocate(&mut self, refs: &[Ref], from: Spot, to: Spot) {
        self.shared.remove(&(from.sequence, from.at));
        self.let_go(from);
        self.add(refs, to);
    }

    /// One queue does not need a message any more.
    pub(super) fn forget(&mut self, message: Ref) {
        let Some(ring) = self.rings.get_mut(&message.queue) else {
            return;
        };
        let Some(slot) = ring.take(message.position) else {
            return;
        };
        if ring.slots.is_empty() {
            self.rings.remove(&message.queue);
        }
        self.release(self.spot_of(slot));
    }

    /// A queue needs nothing any more.
    pub(super) fn forget_queue(&mut self, queue: QueueKey) {
        let Some(ring) = self.rings.remove(&queue) else {
            return;
        };
        for slot in ring.slots.iter().filter(|slot| !slot.is_gap()) {
            self.release(self.spot_of(*slot));
        }
    }

    fn release(&mut self, spot: Spot) {
        let key = (spot.sequence, spot.at);
        if let Some(count) = self.shared.get_mut(&key) {
            *count -= 1;
            if *count > 0 {
                return;
            }
            self.shared.remove(&key);
        }
        self.let_go(spot);
    }

    /// The record at a spot is needed.
    pub(super) fn hold(&mut self, spot: Spot) {
        if let Some(volume) = self.volume_mut(spot.sequence) {
            volume.live += spot.len;
        }
    }

    /// The record at a spot is not needed any more.
    pub(super) fn let_go(&mut self, spot: Spot) {
        if let Some(volume) = self.volume_mut(spot.sequence) {
            volume.live -= spot.len;
        }
    }

    fn volume_mut(&mut self, sequence: u64) -> Option<&mut Volume<F>> {
        let at = sequence.checked_sub(self.oldest()?)?;
        self.volumes.get_mut(usize::try_from(at).ok()?)
    }
}
