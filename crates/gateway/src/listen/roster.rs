//! What the workers share: who may be chosen, which never changes after it was published, and the
//! counts, which are atomics.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use mainstay_control::listen::{Candidate, Pick, Standing};
use mainstay_ids::Instant;
use mainstay_model::ListenSpec;
use mainstay_model::listen::{Rank, ServerName};
use std::num::NonZeroU32;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::listen::HttpService;
use crate::listen::limits::RELUCTANCE;
use crate::metrics::SharedCounter;
use crate::table::Group;

/// All listeners as they are now.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    pub(crate) listens: Vec<Arc<RosterListen>>,
}

impl Roster {
    /// Whose address it is.
    pub(crate) fn at(&self, address: SocketAddr) -> Option<&Arc<RosterListen>> {
        let mut listens = self.listens.iter();
        listens.find(|listen| listen.spec.bind.contains(&address))
    }

    /// The listeners in HTTP mode.
    fn http(&self) -> impl Iterator<Item = (&RosterListen, &HttpService)> {
        let listens = self.listens.iter();
        listens.filter_map(|listen| Some((&**listen, listen.http.as_ref()?)))
    }

    /// Whether there is a listener in HTTP mode.
    pub(crate) fn has_http(&self) -> bool {
        self.http().next().is_some()
    }

    /// The listeners in HTTP mode, as services.
    pub(crate) fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        self.http().map(|(_, http)| http.group())
    }

    /// The place of each of [`Self::groups`] by its addresses, counted from `first`.
    pub(crate) fn places(&self, first: usize) -> HashMap<SocketAddr, usize> {
        let placed = self.http().zip(first..);
        placed
            .flat_map(|((listen, _), place)| {
                let addresses = listen.spec.bind.iter();
                addresses.map(move |address| (*address, place))
            })
            .collect()
    }
}

/// One listener as it is now.
#[derive(Debug)]
pub(crate) struct RosterListen {
    pub(crate) spec: ListenSpec,
    pub(crate) tally: Arc<ListenTally>,
    pub(crate) servers: Vec<RosterServer>,
    /// What it is to the workers in HTTP mode.
    pub(crate) http: Option<HttpService>,
}

/// One server as it is now.
#[derive(Debug)]
pub(crate) struct RosterServer {
    pub(crate) tally: Arc<ServerTally>,
    pub(crate) weight: u16,
    pub(crate) rank: Rank,
    pub(crate) sessions_max: Option<NonZeroU32>,
    pub(crate) standing: Standing,
    /// When it rose, for its slow start.
    pub(crate) rose: Option<Instant>,
    /// Its sessions of now end when this is cancelled.
    pub(crate) cut: CancellationToken,
}

impl RosterListen {
    /// What a choice is made from. `tried` are the servers at which this session was already.
    pub(crate) fn candidates(
        &self,
        now: Instant,
        tried: &[Arc<ServerTally>],
        into: &mut Vec<Candidate>,
    ) {
        into.clear();
        for server in &self.servers {
            let was_tried = tried.iter().any(|one| Arc::ptr_eq(one, &server.tally));
            let pick = if was_tried || !server.standing.takes_new() {
                Pick::Never
            } else if server.tally.failed_lately(now) {
                Pick::Reluctantly
            } else {
                Pick::Willingly
            };
            into.push(Candidate {
                key: server.tally.key,
                weight: Candidate::share(server.weight, server.rose, now, self.spec.slow_start),
                rank: server.rank,
                pick,
                sessions: server.tally.sessions.now(),
                sessions_max: server.sessions_max,
            });
        }
    }
}

/// How many there are now, and were at most.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    now: AtomicU32,
    high: AtomicU32,
}

impl Gauge {
    pub(crate) fn now(&self) -> u32 {
        self.now.load(Ordering::Relaxed)
    }

    pub(crate) fn high(&self) -> u32 {
        self.high.load(Ordering::Relaxed)
    }

    /// One more, unless there are `most`. In one step, so that workers together stay below it.
    fn enter(&self, most: u32) -> bool {
        let more = |now| (now < most).then_some(now + 1);
        let entered = self
            .now
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        if let Ok(before) = entered {
            self.high.fetch_max(before + 1, Ordering::Relaxed);
        }
        entered.is_ok()
    }

    fn leave(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is counted of one listener, over all workers.
#[derive(Debug)]
pub(crate) struct ListenTally {
    pub(crate) sessions: Gauge,
    /// How many there may be.
    most: AtomicU32,
    /// Wakes one who waits to accept.
    room: Notify,
    /// Wakes who waits for a server: one when a session ends, all when the roster changes.
    pub(crate) server_freed: Notify,
    pub(crate) total: SharedCounter,
    pub(crate) bytes_in: SharedCounter,
    pub(crate) bytes_out: SharedCounter,
    pub(crate) refused: SharedCounter,
    pub(crate) unserved: SharedCounter,
}

impl ListenTally {
    pub(crate) fn new(most: u32) -> Self {
        Self {
            sessions: Gauge::default(),
            most: AtomicU32::new(most),
            room: Notify::new(),
            server_freed: Notify::new(),
            total: SharedCounter::default(),
            bytes_in: SharedCounter::default(),
            bytes_out: SharedCounter::default(),
            refused: SharedCounter::default(),
            unserved: SharedCounter::default(),
        }
    }

    pub(crate) fn set_most(&self, most: u32) {
        self.most.store(most, Ordering::Relaxed);
        self.room.notify_waiters();
    }

    /// Waits until there is room for one more session, and takes it.
    pub(crate) async fn enter(self: &Arc<Self>) -> Inside {
        loop {
            let mut freed = std::pin::pin!(self.room.notified());
            // Before the look, so that a session that ends right after it is not missed.
            freed.as_mut().enable();
            if self.sessions.enter(self.most.load(Ordering::Relaxed)) {
                return Inside(Arc::clone(self));
            }
            freed.await;
        }
    }
}

/// One session's place in its listener.
#[derive(Debug)]
pub(crate) struct Inside(Arc<ListenTally>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.sessions.leave();
        self.0.room.notify_one();
        self.0.server_freed.notify_one();
    }
}

/// What is counted of one server, over all workers.
#[derive(Debug)]
pub(crate) struct ServerTally {
    pub(crate) name: ServerName,
    pub(crate) address: SocketAddr,
    key: u64,
    pub(crate) sessions: Gauge,
    /// When a connection to it failed, in nanoseconds of the clock and one more; 0: not lately.
    failed: AtomicU64,
    pub(crate) total: SharedCounter,
    pub(crate) bytes_in: SharedCounter,
    pub(crate) bytes_out: SharedCounter,
    pub(crate) connect_errors: SharedCounter,
    pub(crate) retries: SharedCounter,
    pub(crate) redispatches: SharedCounter,
    pub(crate) cut: SharedCounter,
}

impl ServerTally {
    pub(crate) fn new(name: ServerName, address: SocketAddr) -> Self {
        Self {
            key: Candidate::key_of(name.as_str()),
            name,
            address,
            sessions: Gauge::default(),
            failed: AtomicU64::new(0),
            total: SharedCounter::default(),
            bytes_in: SharedCounter::default(),
            bytes_out: SharedCounter::default(),
            connect_errors: SharedCounter::default(),
            retries: SharedCounter::default(),
            redispatches: SharedCounter::default(),
            cut: SharedCounter::default(),
        }
    }

    /// Takes a place for a session, unless the server has all that it may have.
    pub(crate) fn enter(self: &Arc<Self>, most: Option<NonZeroU32>) -> Option<AtServer> {
        let most = most.map_or(u32::MAX, NonZeroU32::get);
        self.sessions
            .enter(most)
            .then(|| AtServer(Arc::clone(self)))
    }

    /// A connection to it failed.
    pub(crate) fn note_failure(&self, now: Instant) {
        let nanoseconds = u64::try_from(now.since_start().as_nanos()).unwrap_or(u64::MAX);
        let mark = nanoseconds.saturating_add(1);
        self.failed.store(mark, Ordering::Relaxed);
    }

    /// It was reached.
    pub(crate) fn forget_failure(&self) {
        // Read first, so that the line stays shared while all is well.
        if self.failed.load(Ordering::Relaxed) != 0 {
            self.failed.store(0, Ordering::Relaxed);
        }
    }

    fn failed_lately(&self, now: Instant) -> bool {
        match self.failed.load(Ordering::Relaxed).checked_sub(1) {
            None => false,
            Some(at) => {
                let at = Instant::from_start(std::time::Duration::from_nanos(at));
                now.since(at) < RELUCTANCE
            }
        }
    }
}

/// One session's place at its server.
#[derive(Debug)]
pub(crate) struct AtServer(Arc<ServerTally>);

impl AtServer {
    pub(crate) fn tally(&self) -> &ServerTally {
        &self.0
    }
}

impl Drop for AtServer {
    fn drop(&mut self) {
        self.0.sessions.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sessions_of_all_workers_together_stay_below_the_limit_and_one_that_ends_lets_one_in() {
        let tally = Arc::new(ListenTally::new(2));
        let (first, _second) = (tally.enter().await, tally.enter().await);
        let waiting = tokio::spawn({
            let tally = Arc::clone(&tally);
            async move { tally.enter().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        let _third = waiting.await.expect("it gets in");
        assert_eq!((tally.sessions.now(), tally.sessions.high()), (2, 2));
    }

    #[tokio::test]
    async fn a_raised_limit_lets_those_in_who_wait() {
        let tally = Arc::new(ListenTally::new(0));
        let waiting = tokio::spawn({
            let tally = Arc::clone(&tally);
            async move { tally.enter().await }
        });
        tokio::task::yield_now().await;
        tally.set_most(1);
        waiting.await.expect("it gets in");
        assert_eq!(tally.sessions.now(), 0);
    }

    #[test]
    fn a_server_to_which_a_connection_failed_is_avoided_for_a_second() {
        let address = SocketAddr::from(([10, 0, 0, 1], 80));
        let tally = ServerTally::new(ServerName::of_address(address), address);
        let at = |ms| Instant::from_start(std::time::Duration::from_millis(ms));
        assert!(!tally.failed_lately(at(0)));
        tally.note_failure(at(0));
        assert!(tally.failed_lately(at(999)) && !tally.failed_lately(at(1000)));
        tally.forget_failure();
        assert!(!tally.failed_lately(at(1)));
    }
}
