//! A log that is on disk up to its last sync; after a crash some of what follows may be there, too.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::broker::Record;
use crate::message::{Body, Message, Place};
use crate::queue::QueueId;

#[derive(Debug, Clone)]
pub(super) enum Line {
    Store(QueueId, u64, Arc<Message>),
    Forget(QueueId, u64),
    Record(Record),
}

/// Messages of each queue by position.
pub(super) type Kept = BTreeMap<(QueueId, u64), Arc<Message>>;

#[derive(Debug, Default)]
pub(super) struct Disk {
    lines: Vec<Line>,
    synced: usize,
    /// Which line has the body of what is at a place.
    places: BTreeMap<Place, usize>,
}

impl Disk {
    /// Writes a message; a body that is on disk alone must be there, and is written along. Whether it is.
    pub(super) fn store(&mut self, queue: QueueId, position: u64, message: Arc<Message>) -> bool {
        let place = Place { queue, position };
        let (source, message) = match &message.body {
            Body::Here(_) => (self.lines.len(), message),
            Body::Stored { place: other, .. } => {
                let Some((source, body)) = self.find(*other) else {
                    return false;
                };
                let mut whole = (*message).clone();
                whole.body = Body::Here(body);
                (source, Arc::new(whole))
            }
        };
        self.lines.push(Line::Store(queue, position, message));
        self.places.insert(place, source);
        true
    }

    pub(super) fn forget(&mut self, queue: QueueId, position: u64) {
        self.lines.push(Line::Forget(queue, position));
        self.places.remove(&Place { queue, position });
    }

    pub(super) fn record(&mut self, record: Record) {
        if let Record::NoQueue(queue) = &record {
            self.places.retain(|place, _| place.queue != *queue);
        }
        self.lines.push(Line::Record(record));
    }

    fn find(&self, place: Place) -> Option<(usize, Bytes)> {
        let source = *self.places.get(&place)?;
        match self.lines.get(source).filter(|_| source < self.synced)? {
            Line::Store(_, _, message) => Some((source, message.body.here()?.clone())),
            Line::Forget(..) | Line::Record(_) => None,
        }
    }

    /// A body, if it is on disk and was not given away.
    pub(super) fn read(&self, place: Place) -> Option<Bytes> {
        self.find(place).map(|(_, body)| body)
    }

    /// Everything written is there; up to which position for each queue.
    pub(super) fn sync(&mut self) -> BTreeMap<QueueId, u64> {
        let mut through = BTreeMap::new();
        for line in &self.lines[self.synced..] {
            if let Line::Store(queue, position, _) = line {
                through.insert(*queue, *position);
            }
        }
        self.synced = self.lines.len();
        through
    }

    /// How many lines a crash may take.
    pub(super) fn unsynced(&self) -> usize {
        self.lines.len() - self.synced
    }

    /// A crash: of what was not synced, so many lines are there.
    pub(super) fn crash(&mut self, lucky: usize) {
        self.lines.truncate(self.synced + lucky);
        self.synced = self.lines.len();
        self.places.clear();
        for (at, line) in self.lines.iter().enumerate() {
            match line {
                Line::Store(queue, position, _) => {
                    let (queue, position) = (*queue, *position);
                    self.places.insert(Place { queue, position }, at);
                }
                Line::Forget(queue, position) => {
                    let (queue, position) = (*queue, *position);
                    self.places.remove(&Place { queue, position });
                }
                Line::Record(Record::NoQueue(queue)) => {
                    self.places.retain(|place, _| place.queue != *queue);
                }
                Line::Record(_) => {}
            }
        }
    }

    fn fold(lines: &[Line]) -> Kept {
        let mut kept = Kept::new();
        for line in lines {
            match line {
                Line::Store(queue, position, message) => {
                    kept.insert((*queue, *position), Arc::clone(message));
                }
                Line::Forget(queue, position) => {
                    kept.remove(&(*queue, *position));
                }
                Line::Record(Record::NoQueue(queue)) => kept.retain(|(one, _), _| one != queue),
                Line::Record(_) => {}
            }
        }
        kept
    }

    /// What is there for certain.
    pub(super) fn kept(&self) -> Kept {
        Self::fold(&self.lines[..self.synced])
    }

    /// What was written.
    pub(super) fn written(&self) -> Kept {
        Self::fold(&self.lines)
    }

    pub(super) fn records(&self) -> Vec<Record> {
        let record = |line: &Line| match line {
            Line::Record(record) => Some(record.clone()),
            Line::Store(..) | Line::Forget(..) => None,
        };
        self.lines[..self.synced]
            .iter()
            .filter_map(record)
            .collect()
    }
}
