//! Cells that one worker writes and everybody reads.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::worker::WorkerIndex;

thread_local! {
    /// Whose cells this thread writes. Beyond the workers: those of nobody in particular.
    static WORKER: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Says which worker this thread is, before it counts anything. No two threads may be the same one.
pub(crate) fn this_thread_is(WorkerIndex(worker): WorkerIndex) {
    WORKER.set(worker);
}

/// A counter that one thread writes: no locked instruction, since nobody else adds in between.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds; only to be called by the thread whose cell it is, or the count loses additions.
    #[inline]
    pub(crate) fn add(&self, more: u64) {
        let count = self.0.load(Ordering::Relaxed);
        self.0.store(count.wrapping_add(more), Ordering::Relaxed);
    }

    /// The count as of a moment ago.
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A counter that several threads write, for what is rare.
#[derive(Debug, Default)]
pub(crate) struct SharedCounter(AtomicU64);

impl SharedCounter {
    /// Adds.
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// The count as of a moment ago.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many there are of something now, and the most there ever were.
#[derive(Debug, Default)]
pub(crate) struct Level {
    now: AtomicU32,
    max: AtomicU32,
}

impl Level {
    /// One more.
    pub(crate) fn rise(&self) {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        if now > self.max.load(Ordering::Relaxed) {
            self.max.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// One less.
    pub(crate) fn fall(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many there are.
    pub(crate) fn get(&self) -> u32 {
        self.now.load(Ordering::Relaxed)
    }

    /// The most there were at a time.
    pub(crate) fn max(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }
}

/// Cells of one worker on cache lines of their own: two lines, since processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard<T>(T);

/// The same cells once for each worker, made when the worker first counts something: an instance that
/// a worker never asks costs it nothing.
#[derive(Debug)]
pub(crate) struct PerWorker<T> {
    /// One for each worker, and one for all threads that are none (tests).
    shards: Box<[OnceLock<Box<Shard<T>>>]>,
}

impl<T: Default> PerWorker<T> {
    /// Cells for so many workers.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            shards: (0..=workers).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The cells of this thread.
    #[inline]
    pub(crate) fn mine(&self) -> &T {
        let last = self.shards.len() - 1;
        let Shard(mine) = &**self.shards[WORKER.get().min(last)].get_or_init(Box::default);
        mine
    }

    /// The cells of every worker that has counted something.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let made = self.shards.iter().filter_map(OnceLock::get);
        made.map(|shard| &shard.0)
    }

    /// A sum over the workers.
    pub(crate) fn sum(&self, of: impl Fn(&T) -> &Counter) -> u64 {
        let counts = self.iter().map(|tally| of(tally).get());
        counts.fold(0, u64::wrapping_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn workers_that_count_at_once_lose_nothing() {
        const EACH: u64 = 100_000;
        let cells: Arc<PerWorker<Counter>> = Arc::new(PerWorker::new(4));
        let threads: Vec<_> = (0..4)
            .map(|worker| {
                let cells = Arc::clone(&cells);
                std::thread::spawn(move || {
                    this_thread_is(WorkerIndex(worker));
                    for _ in 0..EACH {
                        cells.mine().add(1);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(cells.sum(|counter| counter), 4 * EACH);
        assert_eq!(cells.iter().count(), 4, "nobody else has counted");
    }

    #[test]
    fn the_highest_level_is_kept() {
        let level = Level::default();
        level.rise();
        level.rise();
        level.fall();
        level.rise();
        level.fall();
        assert_eq!((level.get(), level.max()), (1, 2));
    }
}
