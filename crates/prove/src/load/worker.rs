//! One thread of the generator: a dispatcher that hands out each request at its planned time, and
//! the connections that take them. All of it is on one thread, so the tally is a plain cell.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinSet, LocalSet};
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::pace::Pacer;
use super::report::Second;
use super::tally::Tally;
use super::{Connections, Load, Target};

/// Requests that may wait for a connection. A stall of the whole request deadline at 20,000
/// requests/s per worker fits; beyond it the generator, not the system, is what has no room, and
/// the request counts as unsent.
const QUEUE_MAX: usize = 100_000;

/// Requests that are handed out before the connections get their turn again.
const BATCH_MAX: u32 = 64;

/// The part of the load that one worker sends.
pub(super) struct Share {
    targets: Vec<Target>,
    connections: Connections,
    seed: u64,
    started: Instant,
    plan: Plan,
}

/// Which requests a worker sends, and when: of all, numbered by planned time, each `step`th.
struct Plan {
    rate: u64,
    next: u64,
    step: u64,
    end: u64,
    lateness_max: Duration,
}

/// One planned request.
pub(super) struct Job {
    pub(super) request: usize,
    pub(super) planned: Instant,
    /// From a bijection of the request's number, so no two of a run are equal.
    pub(super) drawn: u64,
}

/// The requests of one target that wait for a connection.
#[derive(Default)]
pub(super) struct Queue {
    jobs: RefCell<VecDeque<Job>>,
    arrived: Notify,
    closed: Cell<bool>,
}

impl Queue {
    fn push(&self, job: Job) {
        self.jobs.borrow_mut().push_back(job);
        self.arrived.notify_one();
    }

    fn close(&self) {
        self.closed.set(true);
        self.arrived.notify_waiters();
    }

    /// The next job; `None` when there will be no more.
    pub(super) async fn take(&self) -> Option<Job> {
        loop {
            if let Some(job) = self.jobs.borrow_mut().pop_front() {
                return Some(job);
            }
            if self.closed.get() {
                return None;
            }
            self.arrived.notified().await;
        }
    }
}

impl Plan {
    fn new(load: &Load, index: usize) -> Self {
        let rate = u64::from(load.rate.get());
        let end = load.duration.as_nanos().saturating_mul(u128::from(rate)) / 1_000_000_000;
        Self {
            rate,
            next: index as u64,
            step: load.workers.get() as u64,
            end: u64::try_from(end).unwrap_or(u64::MAX),
            // A tenth of the run: whoever is never later has sent at least 90 % of the rate. At
            // least what a loaded machine may take from a thread at once; at most a second, since
            // a later request is no longer the load that was asked for.
            lateness_max: (load.duration / 10)
                .clamp(Duration::from_millis(500), Duration::from_secs(1)),
        }
    }

    /// When the next request is planned, after the start; `None`: it was the last.
    fn due(&self) -> Option<Duration> {
        let nanos = u128::from(self.next) * 1_000_000_000 / u128::from(self.rate);
        (self.next < self.end)
            .then(|| Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

impl Share {
    pub(super) fn new(load: &Load, started: Instant, index: usize) -> Self {
        Self {
            targets: load.targets.clone(),
            connections: load.connections,
            seed: load.seed,
            started,
            plan: Plan::new(load, index),
        }
    }

    /// Sends the share and counts; returns when every request has ended.
    pub(super) fn run(
        self,
        live: Option<mpsc::Sender<Second>>,
        stop: CancellationToken,
    ) -> io::Result<Tally> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        LocalSet::new().block_on(&runtime, self.send(live, stop))
    }

    async fn send(
        mut self,
        live: Option<mpsc::Sender<Second>>,
        stop: CancellationToken,
    ) -> io::Result<Tally> {
        let tally = Rc::new(RefCell::new(Tally::new(self.started, self.targets.len())));
        let mut queues = Vec::new();
        let mut connections = JoinSet::new();
        for (index, target) in std::mem::take(&mut self.targets).into_iter().enumerate() {
            let queue = Rc::new(Queue::default());
            let target = Rc::new(target);
            let (Connections::Kept(count) | Connections::PerRequest(count)) = self.connections;
            for number in 0..count.get() {
                let connection = Connection {
                    target: Rc::clone(&target),
                    index,
                    number,
                    connections: self.connections,
                    queue: Rc::clone(&queue),
                    tally: Rc::clone(&tally),
                };
                // Joined below; a panic of one is passed on there.
                connections.spawn_local(connection.run());
            }
            queues.push((target, queue));
        }
        let choice = Choice::new(&queues);
        let dispatched = self.dispatch(&choice, &tally, live.as_ref(), &stop).await;
        for (_, queue) in &queues {
            queue.close();
        }
        while let Some(ended) = connections.join_next().await {
            ended.map_err(io::Error::other)?;
        }
        dispatched?;
        publish(live.as_ref(), Some(tally.borrow_mut().end_second()));
        drop((choice, queues));
        Rc::try_unwrap(tally)
            .map(RefCell::into_inner)
            .map_err(|_| io::Error::other("a connection of the load outlived its worker"))
    }

    async fn dispatch(
        &mut self,
        choice: &Choice,
        tally: &RefCell<Tally>,
        live: Option<&mpsc::Sender<Second>>,
        stop: &CancellationToken,
    ) -> io::Result<()> {
        let pacer = Pacer::new()?;
        while let Some(due) = self.plan.due() {
            if stop.is_cancelled() {
                break;
            }
            let planned = self.started + due;
            let now = Instant::now();
            if planned > now {
                tokio::select! {
                    () = stop.cancelled() => break,
                    woken = pacer.wait_until(planned) => woken?,
                }
                continue;
            }
            self.hand_out(now, choice, tally);
            let second = tally.borrow_mut().turn_second(now);
            publish(live, second);
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Gives the requests whose time has come to their queues.
    fn hand_out(&mut self, now: Instant, choice: &Choice, tally: &RefCell<Tally>) {
        let mut tally = tally.borrow_mut();
        for _ in 0..BATCH_MAX {
            let Some(due) = self.plan.due() else { return };
            let planned = self.started + due;
            if planned > now {
                return;
            }
            let drawn = scramble(self.seed, self.plan.next);
            self.plan.next += self.plan.step;
            tally.planned += 1;
            tally.late(planned, now);
            let (queue, request) = choice.draw(drawn);
            let room = queue.jobs.borrow().len() < QUEUE_MAX;
            if room && now - planned <= self.plan.lateness_max {
                queue.push(Job {
                    request,
                    planned,
                    drawn,
                });
            } else {
                tally.unsent += 1;
            }
        }
    }
}

/// The requests of all targets by weight.
struct Choice {
    total: u64,
    /// Each with the sum of the weights up to and with it.
    entries: Vec<(u64, Rc<Queue>, usize)>,
}

impl Choice {
    fn new(queues: &[(Rc<Target>, Rc<Queue>)]) -> Self {
        let mut total = 0;
        let mut entries = Vec::new();
        for (target, queue) in queues {
            for (index, request) in target.requests.iter().enumerate() {
                total += u64::from(request.weight.get());
                entries.push((total, Rc::clone(queue), index));
            }
        }
        Self { total, entries }
    }

    fn draw(&self, drawn: u64) -> (&Queue, usize) {
        let at = drawn % self.total;
        let index = self.entries.partition_point(|(upto, _, _)| *upto <= at);
        let (_, queue, request) = &self.entries[index];
        (queue, *request)
    }
}

/// `SplitMix64`'s finalizer over seed and number: for one seed a bijection.
fn scramble(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn publish(live: Option<&mpsc::Sender<Second>>, second: Option<Second>) {
    if let (Some(live), Some(second)) = (live, second) {
        // A display that is slow or gone loses seconds; the report loses nothing.
        let _ = live.try_send(second);
    }
}
