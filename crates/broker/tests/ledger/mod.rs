//! What clients of a broker were promised, kept outside of it, and what they got. Publishers and consumers go on through
//! whatever becomes of the broker; afterwards the books are compared.
//!
//! Five lanes, each with a publisher and a consumer: three plain queues, one with priorities, and one whose messages
//! die of their age and come as dead letters of another. Beside them a queue that nobody reads until the end: its
//! messages are the oldest, and are moved whenever the log gives a segment back.

#![allow(dead_code, reason = "each test uses a part of it")]

mod book;
mod lanes;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use mainstay_broker::view::{Answer, Ask};
use mainstay_testkit::wait_until;

use crate::alone::{self, Alone, PATIENCE};
use book::Book;
use lanes::LANES;

/// How many messages stay until the end.
pub(crate) const KEPT: u64 = lanes::KEPT;

/// What the threads share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    books: Arc<[Mutex<Book>; LANES.len()]>,
    stop_publishing: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    /// Consumers take nothing for now.
    lazy: Arc<AtomicBool>,
    /// Consumers make sure of their acknowledgements. Without room for that they would wait for what only they can make.
    marks: bool,
    /// So many may wait in a lane before its publisher does: else a consumer that is slow would keep all of the log needed.
    ahead_max: usize,
}

/// Whether consumers publish, too, to know that their acknowledgements are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marks {
    Made,
    None,
}

/// All that is on both sides, summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sum {
    pub(crate) confirmed: usize,
    /// Confirmed, and not got.
    pub(crate) lost: usize,
    /// Acknowledged for good.
    pub(crate) settled: usize,
    /// And got again afterwards.
    pub(crate) settled_again: usize,
    /// Dead letters that came twice: a letter is written before what it is made of is forgotten.
    pub(crate) letters_twice: usize,
}

/// Clients at work.
pub(crate) struct Traffic {
    pub(crate) shared: Shared,
    publishers: Vec<JoinHandle<()>>,
    consumers: Vec<JoinHandle<()>>,
}

impl Shared {
    fn new(marks: Marks) -> Self {
        Self {
            books: Arc::default(),
            stop_publishing: Arc::default(),
            stop: Arc::default(),
            lazy: Arc::default(),
            marks: marks == Marks::Made,
            ahead_max: match marks {
                Marks::Made => 150,
                Marks::None => usize::MAX,
            },
        }
    }

    fn of(&self, lane: usize) -> MutexGuard<'_, Book> {
        self.books[lane].lock().expect("nobody panics with it")
    }

    /// Whether a publisher is to wait for its consumer, if that takes anything at all.
    fn is_far_ahead(&self, lane: usize) -> bool {
        !self.lazy.load(Ordering::Relaxed) && self.of(lane).ahead() > self.ahead_max
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn confirmed(&self) -> usize {
        self.sum().confirmed
    }

    pub(crate) fn sum(&self) -> Sum {
        let mut sum = Sum::default();
        for lane in 0..LANES.len() {
            let book = self.of(lane);
            sum.confirmed += book.confirmed.len();
            sum.lost += book.confirmed.difference(&book.taken).count();
            sum.settled += book.settled.len();
            sum.settled_again += book.settled_again;
            sum.letters_twice += book.letters_twice;
        }
        sum
    }

    /// Whether consumers take what comes.
    pub(crate) fn set_lazy(&self, lazy: bool) {
        self.lazy.store(lazy, Ordering::Relaxed);
    }

    /// What was wrong with what came, whatever is still to come.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let of = |lane: usize| {
            let name = LANES[lane].from;
            let wrong = self.of(lane).wrong.clone();
            wrong
                .into_iter()
                .map(move |wrong| format!("{name}: {wrong}"))
        };
        (0..LANES.len()).flat_map(of).collect()
    }

    /// Waits until so many more are confirmed.
    pub(crate) fn wait_confirmed(&self, broker: &Alone, more: usize) {
        self.wait_count(broker, more, "more is confirmed", |sum| sum.confirmed);
    }

    /// Waits until so many more of them came.
    pub(crate) fn wait_taken(&self, broker: &Alone, more: usize) {
        self.wait_count(broker, more, "more has come", |sum| {
            sum.confirmed - sum.lost
        });
    }

    fn wait_count(&self, broker: &Alone, more: usize, what: &str, count: impl Fn(Sum) -> usize) {
        let wanted = count(self.sum()) + more;
        wait_until(PATIENCE, what, || {
            let now = count(self.sum());
            if now >= wanted {
                Ok(())
            } else {
                let sum = self.sum();
                Err(format!("{now} of {wanted}: {sum:?}; {}", broker.said()))
            }
        });
    }
}

impl Traffic {
    /// Puts messages into the queue that stays, and lets the clients begin.
    pub(crate) fn start(broker: &Alone, marks: Marks) -> Self {
        let shared = Shared::new(marks);
        let address = broker.address();
        alone::on_runtime(lanes::fill_kept(address)).expect("it takes what stays");
        let mut traffic = Self {
            shared: shared.clone(),
            publishers: Vec::new(),
            consumers: Vec::new(),
        };
        for lane in 0..LANES.len() {
            let publishes =
                async move |shared: &Shared| lanes::publish(address, shared, lane).await;
            let consumes = async move |shared: &Shared| lanes::consume(address, shared, lane).await;
            traffic.publishers.push(keep_on(shared.clone(), publishes));
            traffic.consumers.push(keep_on(shared.clone(), consumes));
        }
        traffic
    }

    /// Ends the publishers, waits until all queues are empty, and compares: what was wrong, and what was lost.
    pub(crate) fn conclude(self, broker: &Alone) -> (Sum, Vec<String>) {
        let shared = self.shared;
        shared.set_lazy(false);
        shared.stop_publishing.store(true, Ordering::Relaxed);
        for publisher in self.publishers {
            publisher.join().expect("a publisher ends");
        }
        wait_until(PATIENCE, "all queues are empty", || {
            let waits = waiting(broker);
            if waits.is_empty() {
                Ok(())
            } else {
                Err(format!("{waits:?}: {}", broker.said()))
            }
        });
        shared.stop.store(true, Ordering::Relaxed);
        for consumer in self.consumers {
            consumer.join().expect("a consumer ends");
        }
        let mut wrong = shared.wrong();
        for (lane, of) in LANES.iter().enumerate() {
            let book = shared.of(lane);
            let lost: Vec<_> = book.confirmed.difference(&book.taken).collect();
            if !lost.is_empty() {
                wrong.push(format!(
                    "{}: {lost:?} were confirmed, and are lost",
                    of.queue
                ));
            }
        }
        let kept = alone::on_runtime(lanes::empty_kept(broker.address()));
        wrong.extend(kept.expect("it gives what stayed"));
        (shared.sum(), wrong)
    }
}

/// The queues that consumers still have to empty.
fn waiting(broker: &Alone) -> Vec<(String, usize)> {
    let Answer::Queues { queues } = broker.ask(&Ask::Queues { vhost: None }) else {
        panic!("queues");
    };
    let is_read = |name: &str| {
        LANES
            .iter()
            .any(|lane| [lane.queue, lane.from].contains(&name))
    };
    let waits = queues.into_iter().filter(|queue| is_read(&queue.name));
    let counts = waits.map(|queue| (queue.name, queue.ready + queue.unacked));
    counts.filter(|(_, count)| *count > 0).collect()
}

/// Again and again, in a thread of its own: a broker that is killed cuts it off.
fn keep_on(
    shared: Shared,
    work: impl AsyncFn(&Shared) -> lapin::Result<()> + Send + 'static,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        alone::on_runtime(async {
            let mut tries = tokio::time::interval(Duration::from_millis(5));
            while !shared.is_stopped() && work(&shared).await.is_err() {
                tries.tick().await;
            }
        });
    })
}

/// The number of the oldest segment of a broker's log: all before it were given back.
pub(crate) fn oldest_segment(broker: &Alone) -> u64 {
    names(broker)
        .iter()
        .filter_map(|name| name.strip_suffix(".segment")?.parse().ok())
        .min()
        .expect("a log has a segment")
}

/// The files of a broker's log.
pub(crate) fn names(broker: &Alone) -> Vec<String> {
    let log = broker.state().join("broker/log");
    let files = std::fs::read_dir(log).expect("the log's directory");
    let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}
