//! Plays a burst: starts the clients, looks at the backlog, says when it is enough.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use mainstay_amqp::{ShortString, Table, Value};
use tokio_util::sync::CancellationToken;

use super::clients::{Consumed, Job, PUBLISHERS, Published, Shared, consume, publish};
use super::plan::Plan;
use super::report::{Asked, Evidence, Look, Report, judge};
use super::{Error, Options, View};
use crate::amqp::Wire;

/// Between two looks at the backlog, and how often the broker is asked.
const LOOK: Duration = Duration::from_millis(100);
const LOOKS_PER_QUESTION: u32 = 10;
/// The steady rate goes on for so long after the backlog is gone.
const AFTER: Duration = Duration::from_secs(2);
/// The backlog has twice the time that the rates give it, and this, before nobody waits for it any more.
const SPARE: Duration = Duration::from_secs(30);
/// What was not delivered after so long without a delivery does not come.
const QUIET: Duration = Duration::from_secs(3);
/// The queue of a proof that was killed goes by itself after so many milliseconds.
const QUEUE_EXPIRES_MS: i32 = 600_000;

/// Makes the queue, plays, and deletes the queue whatever came of it.
pub(super) fn run(
    options: &Options,
    tell: &dyn Fn(&str),
    stop: &CancellationToken,
) -> Result<Report, Error> {
    let address = options.broker;
    let refuse = |source| Error::Broker { address, source };
    let queue = format!("mainstay-prove-burst-{}", std::process::id());
    let expires = (
        ShortString::literal("x-expires"),
        Value::Int(QUEUE_EXPIRES_MS),
    );
    let arguments = Table::new(vec![expires]);
    let mut owner = Wire::connect(address).map_err(refuse)?;
    owner
        .declare_with(&queue, arguments.clone())
        .map_err(refuse)?;
    let mut evidence = play(options, &queue, tell, stop);
    // Nobody consumes any more, so that all that is there is counted.
    let left = Wire::connect(address).and_then(|mut wire| {
        let left = wire.declare_with(&queue, arguments);
        wire.delete(&queue).and(left)
    });
    evidence.left = left.map_err(|error| crate::scenario::chain(&error));
    if stop.is_cancelled() {
        return Err(Error::Stopped);
    }
    Ok(judge(evidence))
}

fn play(options: &Options, queue: &str, tell: &dyn Fn(&str), stop: &CancellationToken) -> Evidence {
    let plan = Plan {
        rate: f64::from(options.rate.get()),
        burst: options.burst,
    };
    let shared = Shared::default();
    let start = Instant::now();
    let job = Job {
        broker: options.broker,
        queue,
        plan,
        start,
        shared: &shared,
    };
    thread::scope(|scope| {
        let (shared, every) = (&shared, plan.takes_every());
        let taking = scope.spawn(move || consume(options.broker, queue, every, shared));
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|publisher| scope.spawn(move || publish(job, publisher)))
            .collect();
        let (looks, asked) = watch(&job, &*options.view, tell, stop);
        shared.enough.store(true, Ordering::Release);
        let published = publishers.into_iter().map(thread::ScopedJoinHandle::join);
        let published = published.map(|ended| {
            ended.unwrap_or_else(|_| Published {
                broke: Some("its thread panicked".to_owned()),
                ..Published::default()
            })
        });
        let published = published.collect();
        wait_for_the_last(shared, stop);
        shared.over.store(true, Ordering::Release);
        let consumed = taking.join().unwrap_or_else(|_| Consumed {
            broke: Some("its thread panicked".to_owned()),
            ..Consumed::default()
        });
        Evidence {
            plan,
            published,
            consumed,
            looks,
            asked,
            left: Ok(0),
        }
    })
}

/// Until the backlog rose and fell, or does not.
fn watch(
    job: &Job<'_>,
    view: &dyn View,
    tell: &dyn Fn(&str),
    stop: &CancellationToken,
) -> (Vec<Look>, Vec<Asked>) {
    let (plan, shared) = (job.plan, job.shared);
    let give_up = plan.burst_ends() + plan.falls_in() * 2 + SPARE;
    let (mut looks, mut words) = (Vec::new(), Vec::new());
    let mut calm_since = None;
    let mut number = 0;
    tell("a steady rate first, to compare with");
    while !stop.is_cancelled() && !Shared::is(&shared.over) {
        let at = job.start.elapsed();
        // In this order, so that what is under way counts as waiting.
        let acked = shared.acked.load(Ordering::Acquire);
        let sent = shared.sent.load(Ordering::Acquire);
        let backlog = sent.saturating_sub(acked);
        looks.push(Look { at, backlog });
        if number % LOOKS_PER_QUESTION == 0 {
            let told = view.queue(job.queue);
            words.push(Asked { at, told });
            tell_second(tell, &plan, at, backlog);
        }
        number += 1;
        if at > plan.burst_ends() && backlog <= plan.calm() {
            if at.saturating_sub(*calm_since.get_or_insert(at)) >= AFTER {
                break;
            }
        } else if at > give_up {
            break;
        } else {
            calm_since = None;
        }
        thread::park_timeout(LOOK);
    }
    (looks, words)
}

fn tell_second(tell: &dyn Fn(&str), plan: &Plan, at: Duration, backlog: u64) {
    let phase = if at < Plan::BURST_BEGINS {
        "before the burst"
    } else if at < plan.burst_ends() {
        "burst"
    } else {
        "after the burst"
    };
    tell(&format!("{:>4} s  {phase}: {backlog} wait", at.as_secs()));
}

/// Nothing more is published: waits for what is still to come.
fn wait_for_the_last(shared: &Shared, stop: &CancellationToken) {
    let mut before = shared.came.load(Ordering::Acquire);
    let mut quiet_since = Instant::now();
    while !stop.is_cancelled() && !Shared::is(&shared.over) {
        let acked = shared.acked.load(Ordering::Acquire);
        let came = shared.came.load(Ordering::Acquire);
        if came != before {
            (before, quiet_since) = (came, Instant::now());
        }
        // Once all was acknowledged, a moment is given to what comes twice.
        let all = acked >= shared.sent.load(Ordering::Acquire);
        let patience = if all { LOOK * 3 } else { QUIET };
        // What the consumer holds it still acknowledges.
        if acked >= came && quiet_since.elapsed() > patience {
            return;
        }
        thread::park_timeout(LOOK);
    }
}
