//! Leases: how long each still lasts. Their deadlines are in memory alone, so that keeping one
//! alive writes nothing; after a restart each lasts its whole time again.

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mainstay_ids::Instant;
use tokio::sync::Notify;

use crate::contract::{Illegal, LEASE_MAX, LEASE_MIN, LEASES_MAX, LeaseId, StoreError};

/// How long after a refusal of the disk a lease that is over is ended again.
const END_RETRY: Duration = Duration::from_secs(1);

/// What leases run by.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Instant;
    /// Waits until `deadline` has come.
    fn reached(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Tokio's clock.
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    start: tokio::time::Instant,
}

impl TokioClock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self {
            start: tokio::time::Instant::now(),
        }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Instant {
        Instant::from_start(self.start.elapsed())
    }

    fn reached(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let at = self.start + deadline.since(Instant::START);
        Box::pin(tokio::time::sleep_until(at))
    }
}

/// The leases that last. Locked for a look or a change of the table, never over an await: whoever
/// keeps a lease alive must not wait for a commit.
pub(crate) struct Leases {
    table: Mutex<BTreeMap<LeaseId, Term>>,
    changed: Notify,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Clone, Copy)]
struct Term {
    ttl: Duration,
    deadline: Instant,
}

/// Whether a lease of this length can be granted.
pub(crate) fn check_ttl(ttl: Duration) -> Result<(), StoreError> {
    if (LEASE_MIN..=LEASE_MAX).contains(&ttl) {
        Ok(())
    } else {
        Err(Illegal::LeaseTtl { ttl }.into())
    }
}

impl Leases {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            table: Mutex::new(BTreeMap::new()),
            changed: Notify::new(),
            clock,
        }
    }

    pub(crate) fn check_room(&self) -> Result<(), StoreError> {
        if self.table().len() < LEASES_MAX {
            Ok(())
        } else {
            Err(StoreError::TooManyLeases)
        }
    }

    pub(crate) fn begin(&self, lease: LeaseId, ttl: Duration) {
        let deadline = self.clock.now().after(ttl);
        self.table().insert(lease, Term { ttl, deadline });
        self.changed.notify_one();
    }

    pub(crate) fn renew(&self, lease: LeaseId) -> Result<Duration, StoreError> {
        let now = self.clock.now();
        let mut table = self.table();
        match table.get_mut(&lease) {
            // One that is over is not to be saved any more, though nobody has ended it yet.
            Some(term) if now < term.deadline => {
                term.deadline = now.after(term.ttl);
                Ok(term.ttl)
            }
            Some(_) | None => Err(StoreError::NoSuchLease { lease }),
        }
    }

    pub(crate) fn forget(&self, lease: LeaseId) {
        self.table().remove(&lease);
    }

    /// Waits until a lease is over. It stays in the table, over, until it is forgotten.
    async fn over(&self) -> LeaseId {
        loop {
            let first = {
                let table = self.table();
                let first = table.iter().min_by_key(|(_, term)| term.deadline);
                first.map(|(lease, term)| (*lease, term.deadline))
            };
            if let Some((lease, deadline)) = first
                && deadline <= self.clock.now()
            {
                return lease;
            }
            let reached = async {
                match first {
                    Some((_, deadline)) => self.clock.reached(deadline).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = reached => {}
            }
        }
    }

    /// Ends each lease that is over with `end`, for ever.
    pub(crate) async fn reap<E: Future<Output = Result<(), StoreError>>>(
        &self,
        end: impl Fn(LeaseId) -> E,
    ) {
        loop {
            let lease = self.over().await;
            match end(lease).await {
                Ok(()) | Err(StoreError::NoSuchLease { .. }) => self.forget(lease),
                Err(StoreError::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, lease = lease.0, "a lease is over and cannot be ended");
                    let again = self.clock.now().after(END_RETRY);
                    self.clock.reached(again).await;
                }
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<LeaseId, Term>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
