//! Rollouts and changes of scale while somebody who follows the routes is frozen: it may cost time, and no request.
//!
//! Once it is a second consumer, which acknowledged and then neither acknowledges nor goes away; once it is the
//! gateway itself, which is stopped for a second in the middle of a rollout.

use super::{
    SERVICE_TIME,
    replace::{INSTANCES, Rounds, roll_out, scale_out_and_in, shape},
};
use crate::bench::{
    dev::{self, Dev, Part},
    frame::{Run, short},
    load::{Seen, Shape},
};
use anyhow::{Context as _, Result};
use mainstay_api::{
    client::{Client, Watch},
    wire::Accepted,
};
use mainstay_ids::{ConsumerId, Incarnation};
use mainstay_model::{Ack, Event, EventKind, Routing};
use rustix::process::{Signal, kill_process};
use std::{path::Path, time::Duration};
use tokio::time::sleep;

/// How long a stop may be held up in the rounds with a frozen consumer.
const DRAIN: Duration = Duration::from_secs(1);
/// What a busy machine may add to it.
const DRAIN_MARGIN: Duration = Duration::from_millis(500);
/// When the gateway is stopped, counted from the begin of the rollout, and for how long.
const STOPPED_AFTER: Duration = Duration::from_millis(500);
const STOPPED_FOR: Duration = Duration::from_secs(1);

pub(super) async fn run(run: &mut Run, mainstay: &Path) -> Result<()> {
    let shape = shape()?;
    let (mut rollout, mut scale) = (
        Rounds::new("rollout, a consumer frozen"),
        Rounds::new("scale, a consumer frozen"),
    );
    let file = |release| -> Result<String> {
        let file = dev::service_file(INSTANCES, SERVICE_TIME, release)?;
        Ok(format!("{file}drain     = \"{}s\"\n", DRAIN.as_secs()))
    };
    let dev = Dev::start(mainstay, &file(1)?, &[])?;
    dev.wait_steady().await;
    let frozen = Frozen::begin(dev.client()).await?;
    let before = last_event(&dev).await?;
    for release in 2..2 + u32::try_from(run.extent.rounds())? {
        rollout.add(run, roll_out(&dev, &shape, &file(release)?).await?);
        scale.add(run, scale_out_and_in(&dev, &shape).await?);
    }
    let delays = stop_delays(&dev, before).await?;
    drop((frozen, dev));

    let mut stopped = Rounds::new("rollout, the gateway stopped for 1 s");
    let dev = Dev::start(
        mainstay,
        &dev::service_file(INSTANCES, SERVICE_TIME, 1)?,
        &[],
    )?;
    dev.wait_steady().await;
    for release in 2..2 + u32::try_from(run.extent.rounds())? {
        stopped.add(run, roll_out_past_a_stop(&dev, &shape, release).await?);
    }
    drop(dev);
    conclude(run, &rollout, &scale, &stopped, &delays);
    Ok(())
}

/// A consumer that holds its watch and does nothing more.
struct Frozen {
    _watch: Watch<Routing>,
}

impl Frozen {
    async fn begin(client: &Client) -> Result<Self> {
        let consumer = ConsumerId {
            name: "frozen".to_owned(),
            incarnation: Incarnation(1),
        };
        let path = format!(
            "/v1/watch/routes?name={}&incarnation={}",
            consumer.name, consumer.incarnation.0
        );
        let mut watch = client.watch::<Routing>(&path).await?;
        let routing = watch
            .next()
            .await?
            .context("the watch of the routes ended")?;
        let ack = Ack {
            consumer,
            generation: Some(routing.generation),
            in_flight: Vec::new(),
            unbound: Vec::new(),
        };
        client
            .post::<_, Accepted>("/v1/consumers/ack", &ack)
            .await?;
        Ok(Self { _watch: watch })
    }
}

async fn roll_out_past_a_stop(dev: &Dev, shape: &Shape, release: u32) -> Result<Seen> {
    let gateway = dev.process(Part::Gateway)?;
    let file = dev::service_file(INSTANCES, SERVICE_TIME, release)?;
    let stop = async {
        sleep(STOPPED_AFTER).await;
        kill_process(gateway, Signal::STOP).context("cannot stop the gateway")?;
        sleep(STOPPED_FOR).await;
        kill_process(gateway, Signal::CONT).context("cannot let the gateway go on")
    };
    let (seen, stopped) = tokio::join!(roll_out(dev, shape, &file), stop);
    stopped?;
    seen
}

async fn last_event(dev: &Dev) -> Result<u64> {
    let events = events(dev, 0).await?;
    Ok(events.last().map_or(0, |event| event.number))
}

/// How long each stop waited for those who might still send, in milliseconds.
async fn stop_delays(dev: &Dev, after: u64) -> Result<Vec<u64>> {
    let events = events(dev, after).await?;
    let waited = events.into_iter().filter_map(|event| match event.kind {
        EventKind::DrainFinished { waited_ms, .. } => Some(waited_ms),
        _ => None,
    });
    Ok(waited.collect())
}

async fn events(dev: &Dev, after: u64) -> Result<Vec<Event>> {
    let path = format!("/v1/events?after={after}&follow=false");
    let mut stream = dev.client().watch::<Event>(&path).await?;
    let mut events = Vec::new();
    while let Some(event) = stream.next().await? {
        events.push(event);
    }
    Ok(events)
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a bench")]
fn conclude(run: &mut Run, rollout: &Rounds, scale: &Rounds, stopped: &Rounds, delays: &[u64]) {
    for rounds in [rollout, scale, stopped] {
        rounds.must_count(run);
    }
    let [longest, shortest] = [delays.iter().max(), delays.iter().min()]
        .map(|delay| delay.map_or(f64::NAN, |delay| *delay as f64));
    run.say(format!(
        "stops with a frozen consumer waited {} to {} ms, drain is {} ms",
        short(shortest),
        short(longest),
        DRAIN.as_millis()
    ));
    run.at_most("rollout_failed_frozen", rollout.failed(), 0.0);
    run.at_most("scale_failed_frozen", scale.failed(), 0.0);
    run.at_most("rollout_failed_gateway_stopped", stopped.failed(), 0.0);
    let bar = (DRAIN + DRAIN_MARGIN).as_millis() as f64;
    run.at_most("frozen_stop_delay_max_ms", longest, bar);
    if shortest < DRAIN.as_millis() as f64 {
        run.miss("a stop did not wait for the frozen consumer: the check shows nothing");
    }
    if stopped.slowest() < STOPPED_FOR.as_millis() as f64 / 2.0 {
        run.miss("no request noticed that the gateway was stopped: the check shows nothing");
    }
}
