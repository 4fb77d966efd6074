//! A store in memory, for tests of what uses one: it forgets everything at its end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::contract::{
    Answer, Event, Found, Illegal, LeaseId, More, Operation, Outcome, PAGE_LEN_MAX, PAGE_MAX, Pair,
    Revision, Store, StoreError, Test, Txn, Watch,
};
use crate::follow::{Enough, Follow, Gather, Log, Since, ring};
use crate::key::{Key, KeyRange};
use crate::lease::{Clock, Leases, check_ttl};

/// A [`Store`] in memory.
pub struct MemoryStore {
    shelf: Arc<Shelf>,
    leases: Arc<Leases>,
    _reaper: AbortOnDropHandle<()>,
}

/// Locked for one step, never over an await.
struct Shelf {
    content: Mutex<Content>,
    doorbell: watch::Sender<Revision>,
}

#[derive(Default)]
struct Content {
    pairs: BTreeMap<Key, Pair>,
    log: VecDeque<(Revision, Event)>,
    revision: Revision,
    compacted: Revision,
    last_lease: u64,
    leases: Vec<LeaseId>,
}

impl MemoryStore {
    /// An empty one, on a runtime of tokio.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let shelf = Arc::new(Shelf {
            content: Mutex::default(),
            doorbell: watch::channel(Revision(0)).0,
        });
        let leases = Arc::new(Leases::new(clock));
        let (weak, of) = (Arc::downgrade(&shelf), leases.clone());
        let end = move |lease| {
            let shelf = weak.upgrade().ok_or(StoreError::Closed);
            std::future::ready(shelf.and_then(|shelf| shelf.end(lease)))
        };
        let reaper = tokio::spawn(async move { of.reap(end).await });
        Self {
            shelf,
            leases,
            _reaper: AbortOnDropHandle::new(reaper),
        }
    }
}

impl Shelf {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, lease: LeaseId) -> Result<(), StoreError> {
        let newest = self.content().end(lease)?;
        ring(&self.doorbell, newest);
        Ok(())
    }
}

impl Content {
    fn holds(&self, key: &Key, test: Test) -> bool {
        match (self.pairs.get(key), test) {
            (None, Test::Absent) => true,
            (Some(pair), Test::CreatedAt(revision)) => pair.created == revision,
            (Some(pair), Test::ModifiedAt(revision)) => pair.modified == revision,
            (Some(_), Test::Absent) | (None, Test::CreatedAt(_) | Test::ModifiedAt(_)) => false,
        }
    }

    fn apply(&mut self, txn: Txn) -> Result<Outcome, StoreError> {
        let compares = txn.compares.iter();
        if !compares.clone().all(|one| self.holds(&one.key, one.test)) {
            return Ok(Outcome::Conflict);
        }
        for operation in &txn.operations {
            if let Operation::Put {
                lease: Some(lease), ..
            } = operation
                && !self.leases.contains(lease)
            {
                return Err(StoreError::NoSuchLease { lease: *lease });
            }
        }
        let next = self.revision.next();
        for operation in txn.operations {
            match operation {
                Operation::Put { key, value, lease } => self.put(next, key, value, lease),
                Operation::Delete { key } => self.delete(next, key),
            }
        }
        Ok(Outcome::Committed(self.revision))
    }

    fn put(&mut self, next: Revision, key: Key, value: Vec<u8>, lease: Option<LeaseId>) {
        let pair = Pair {
            created: self.pairs.get(&key).map_or(next, |pair| pair.created),
            modified: next,
            key: key.clone(),
            value,
            lease,
        };
        self.pairs.insert(key, pair.clone());
        self.log.push_back((next, Event::Put(pair)));
        self.revision = next;
    }

    fn delete(&mut self, next: Revision, key: Key) {
        if self.pairs.remove(&key).is_some() {
            self.log.push_back((next, Event::Deleted(key)));
            self.revision = next;
        }
    }

    fn end(&mut self, lease: LeaseId) -> Result<Revision, StoreError> {
        let Some(at) = self.leases.iter().position(|one| *one == lease) else {
            return Err(StoreError::NoSuchLease { lease });
        };
        self.leases.swap_remove(at);
        let next = self.revision.next();
        let held = self.pairs.values().filter(|pair| pair.lease == Some(lease));
        let keys: Vec<Key> = held.map(|pair| pair.key.clone()).collect();
        for key in keys {
            self.delete(next, key);
        }
        Ok(self.revision)
    }

    fn find(&self, range: &KeyRange, limit: usize) -> Found {
        let (mut pairs, mut len, mut more) = (Vec::new(), 0, More::No);
        for pair in self.pairs.values().filter(|pair| range.contains(&pair.key)) {
            if pairs.len() >= limit || len >= PAGE_LEN_MAX {
                more = More::Yes;
                break;
            }
            len += pair.value.len();
            pairs.push(pair.clone());
        }
        Found {
            revision: self.revision,
            pairs,
            more,
        }
    }

    fn since(&self, range: &KeyRange, from: Revision) -> Since {
        if from < self.compacted {
            return Since::Compacted(self.compacted);
        }
        let mut gather = Gather::new(range, from);
        let changes = self.log.iter().skip_while(|(revision, _)| *revision < from);
        for (revision, event) in changes {
            if gather.take(*revision, event.clone()) == Enough::Yes {
                return gather.finish(None);
            }
        }
        gather.finish(Some(self.revision))
    }

    fn compact(&mut self, below: Revision) -> Result<(), StoreError> {
        let newest = self.revision;
        if below > newest {
            let asked = below;
            return Err(Illegal::Future { asked, newest }.into());
        }
        self.compacted = self.compacted.max(below);
        self.log.retain(|(revision, _)| *revision >= below);
        Ok(())
    }
}

impl Store for MemoryStore {
    fn range(&self, range: &KeyRange, limit: usize) -> Answer<'_, Found> {
        let found = self.shelf.content().find(range, limit.min(PAGE_MAX));
        Box::pin(async { Ok(found) })
    }

    fn txn(&self, txn: Txn) -> Answer<'_, Outcome> {
        Box::pin(async move {
            txn.check()?;
            let outcome = self.shelf.content().apply(txn)?;
            if let Outcome::Committed(revision) = outcome {
                ring(&self.shelf.doorbell, revision);
            }
            Ok(outcome)
        })
    }

    fn watch(&self, range: &KeyRange, from: Revision) -> Box<dyn Watch> {
        Box::new(Follow::new(&self.shelf, range, from))
    }

    fn compact(&self, below: Revision) -> Answer<'_, ()> {
        let compacted = self.shelf.content().compact(below);
        Box::pin(async { compacted })
    }

    fn grant(&self, ttl: Duration) -> Answer<'_, LeaseId> {
        Box::pin(async move {
            check_ttl(ttl)?;
            self.leases.check_room()?;
            let lease = {
                let mut content = self.shelf.content();
                content.last_lease += 1;
                let lease = LeaseId(content.last_lease);
                content.leases.push(lease);
                lease
            };
            self.leases.begin(lease, ttl);
            Ok(lease)
        })
    }

    fn keep_alive(&self, lease: LeaseId) -> Answer<'_, Duration> {
        let kept = self.leases.renew(lease);
        Box::pin(async { kept })
    }

    fn revoke(&self, lease: LeaseId) -> Answer<'_, ()> {
        let ended = self.shelf.end(lease);
        if ended.is_ok() {
            self.leases.forget(lease);
        }
        Box::pin(async { ended })
    }
}

impl Log for Shelf {
    fn since(&self, range: &KeyRange, from: Revision) -> Answer<'_, Since> {
        let since = self.content().since(range, from);
        Box::pin(async { Ok(since) })
    }

    fn doorbell(&self) -> watch::Receiver<Revision> {
        self.doorbell.subscribe()
    }
}
