//! What could not be appended for want of room, in order. What makes room goes past it.

use std::collections::VecDeque;

use mainstay_journal::messages::{AppendError, Body, Change, MessageLog};

use super::{Class, Told};

#[derive(Debug)]
enum Entry {
    Change(Class, Change),
    /// All before it concerns them.
    End(Told),
}

#[derive(Debug, Default)]
pub(super) struct Backlog {
    entries: VecDeque<Entry>,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn push(&mut self, changes: Vec<Change>, classes: &[Class], told: Option<Told>) {
        for (at, change) in changes.into_iter().enumerate() {
            let class = classes.get(at).copied().unwrap_or(Class::Ordered);
            self.entries.push_back(Entry::Change(class, change));
        }
        self.entries.extend(told.map(Entry::End));
    }

    /// Appends all if there is room, or else what makes some.
    pub(super) fn append(
        &mut self,
        log: &mut MessageLog,
        done: &mut Vec<Told>,
    ) -> Result<(), AppendError> {
        let changes = self.entries.iter().filter_map(|entry| match entry {
            Entry::Change(_, change) => Some(change.clone()),
            Entry::End(_) => None,
        });
        let changes: Vec<Change> = changes.collect();
        match log.append(&changes) {
            Ok(_) => {
                for entry in self.entries.drain(..) {
                    if let Entry::End(told) = entry {
                        done.push(told);
                    }
                }
                Ok(())
            }
            Err(AppendError::Full { .. }) => self.relieve(log),
            Err(error) => Err(error),
        }
    }

    /// Appends what makes room, past the others. A message that waits here and is not wanted any more leaves.
    fn relieve(&mut self, log: &mut MessageLog) -> Result<(), AppendError> {
        let mut waits = VecDeque::new();
        let mut relief = Vec::new();
        for entry in std::mem::take(&mut self.entries) {
            match entry {
                Entry::Change(Class::Relief, change) if !is_needed(&waits, &change) => {
                    withdraw(&mut waits, &change);
                    relief.push(change);
                }
                Entry::Change(..) | Entry::End(_) => waits.push_back(entry),
            }
        }
        self.entries = waits;
        if relief.is_empty() {
            return Ok(());
        }
        match log.append(&relief) {
            Ok(_) => Ok(()),
            // Not even for these: they are tried again, before all others.
            Err(AppendError::Full { .. }) => {
                for change in relief.into_iter().rev() {
                    self.entries
                        .push_front(Entry::Change(Class::Relief, change));
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether something that waits is to be copied from what this forgets.
fn is_needed(waits: &VecDeque<Entry>, relief: &Change) -> bool {
    waits.iter().any(|entry| {
        let Entry::Change(
            _,
            Change::Message {
                body: Body::Stored(from),
                ..
            },
        ) = entry
        else {
            return false;
        };
        match relief {
            Change::Forget(gone) => gone == from,
            Change::ForgetQueue(queue) => *queue == from.queue,
            Change::Put { .. } | Change::Remove { .. } | Change::Message { .. } => false,
        }
    })
}

/// Takes out what waits and would be undone by this.
fn withdraw(waits: &mut VecDeque<Entry>, relief: &Change) {
    waits.retain_mut(|entry| {
        let Entry::Change(_, waiting) = entry else {
            return true;
        };
        match (waiting, relief) {
            (Change::Message { refs, .. }, Change::Forget(gone)) => {
                refs.retain(|one| one != gone);
                !refs.is_empty()
            }
            (Change::Message { refs, .. }, Change::ForgetQueue(queue)) => {
                refs.retain(|one| one.queue != *queue);
                !refs.is_empty()
            }
            (Change::Forget(one), Change::ForgetQueue(queue)) => one.queue != *queue,
            (Change::Put { key, .. }, Change::Remove { key: gone }) => key != gone,
            _ => true,
        }
    });
}
