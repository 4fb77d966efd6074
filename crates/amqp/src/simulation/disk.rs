//! A log that is on disk up to its last sync; after a crash some of what follows may be there, too.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::broker::{QueueId, Record};
use crate::message::Message;

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
}

impl Disk {
    pub(super) fn write(&mut self, line: Line) {
        self.lines.push(line);
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
