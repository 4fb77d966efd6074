//! Where a store is, and its time.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mainstay_ids::Instant;
use mainstay_store::{
    Clock, Key, KeyRange, MemoryStore, Notice, Operation, Outcome, Pair, Revision, SqliteStore,
    Store, Test, Txn, Watch,
};
use mainstay_testkit::TempDir;
use tokio::sync::watch;

/// Longer than anything takes on the slowest machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A store under test.
pub(crate) trait Place {
    fn new() -> Self;
    /// The store, opened if it is not.
    async fn open(&mut self) -> Arc<dyn Store>;
    /// Lets go of it.
    fn close(&mut self);
    /// Lets time pass for leases.
    fn pass(&self, time: Duration);
}

/// A clock that stands until it is moved.
#[derive(Clone)]
struct Hand(watch::Sender<Instant>);

impl Hand {
    fn new() -> Self {
        Self(watch::channel(Instant::START).0)
    }
}

impl Clock for Hand {
    fn now(&self) -> Instant {
        *self.0.borrow()
    }

    fn reached(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let mut now = self.0.subscribe();
        Box::pin(async move {
            let come = now.wait_for(|now| *now >= deadline).await;
            come.expect("the clock is there");
        })
    }
}

pub(crate) struct OnDisk {
    dir: TempDir,
    hand: Hand,
    store: Option<Arc<SqliteStore>>,
}

impl Place for OnDisk {
    fn new() -> Self {
        Self {
            dir: TempDir::new("store"),
            hand: Hand::new(),
            store: None,
        }
    }

    async fn open(&mut self) -> Arc<dyn Store> {
        if self.store.is_none() {
            let path = self.dir.join("state.db");
            let opened = SqliteStore::open(&path, Arc::new(self.hand.clone())).await;
            self.store = Some(Arc::new(opened.expect("opens")));
        }
        self.store.clone().expect("is open")
    }

    fn close(&mut self) {
        self.store = None;
    }

    fn pass(&self, time: Duration) {
        self.hand.0.send_modify(|now| *now = now.after(time));
    }
}

pub(crate) struct InMemory {
    hand: Hand,
    store: Option<Arc<MemoryStore>>,
}

impl Place for InMemory {
    fn new() -> Self {
        Self {
            hand: Hand::new(),
            store: None,
        }
    }

    async fn open(&mut self) -> Arc<dyn Store> {
        let clock = Arc::new(self.hand.clone());
        let store = self
            .store
            .get_or_insert_with(|| Arc::new(MemoryStore::new(clock)));
        store.clone()
    }

    fn close(&mut self) {
        self.store = None;
    }

    fn pass(&self, time: Duration) {
        self.hand.0.send_modify(|now| *now = now.after(time));
    }
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).expect("legal")
}

pub(crate) fn put(name: &str, value: &str) -> Operation {
    Operation::Put {
        key: key(name),
        value: value.into(),
        lease: None,
    }
}

pub(crate) fn delete(name: &str) -> Operation {
    Operation::Delete { key: key(name) }
}

pub(crate) async fn committed(store: &dyn Store, txn: Txn) -> Revision {
    match store.txn(txn).await.expect("is taken") {
        Outcome::Committed(revision) => revision,
        Outcome::Conflict => panic!("conflict"),
    }
}

/// Makes a key that is not there.
pub(crate) async fn make(store: &dyn Store, name: &str, value: &str) -> Revision {
    committed(store, Txn::default().with(Test::Absent, put(name, value))).await
}

/// Gives a key another value, or none, whatever it has.
pub(crate) async fn change(store: &dyn Store, operation: Operation) -> Revision {
    let found = get(store, operation.key().as_str())
        .await
        .expect("is there");
    let test = Test::ModifiedAt(found.modified);
    committed(store, Txn::default().with(test, operation)).await
}

pub(crate) async fn get(store: &dyn Store, name: &str) -> Option<Pair> {
    let found = store.range(&KeyRange::one(&key(name)), 1).await;
    found.expect("reads").pairs.pop()
}

/// The next notice; whether a watch said in between how far it is, depends on the machine.
pub(crate) async fn next(watch: &mut Box<dyn Watch>) -> Notice {
    loop {
        let notice = tokio::time::timeout(DEADLINE, watch.next()).await;
        match notice.expect("comes in time").expect("goes on") {
            Notice::Progress(_) => {}
            notice @ (Notice::Events(..) | Notice::Compacted(_)) => return notice,
        }
    }
}
