//! Rollouts and changes of scale under new connections, one for each request; half of the requests may not be
//! sent twice, so nobody can hide a loss by sending again.

use super::SERVICE_TIME;
use crate::bench::{
    dev::{self, Dev},
    frame::{Run, short},
    haproxy::{Haproxy, Reload, Setup},
    load::{Seen, Shape},
    machine,
};
use anyhow::{Context as _, Result};
use mainstay_prove::load::Connections;
use std::{num::NonZeroUsize, path::Path, time::Duration};
use tokio::time::sleep;

const CONFIG: &str = "bench/haproxy-failure.cfg";
const RATE: u32 = 2000;
/// At most so many connections at once: ten times what the service time needs.
const CONNECTIONS_MAX: usize = 256;
pub(super) const INSTANCES: u32 = 3;
const INSTANCES_MORE: u32 = 6;
/// Load before and after what happens.
pub(super) const MARGIN: Duration = Duration::from_millis(500);

/// What happened in the rounds of one kind.
pub(super) struct Rounds {
    name: &'static str,
    seen: Vec<Seen>,
}

pub(super) async fn run(run: &mut Run, mainstay: &Path) -> Result<()> {
    let shape = shape()?;
    let [mut rollout, mut scale, mut reload] =
        ["rollout", "scale", "haproxy reload"].map(Rounds::new);
    let dev = start(mainstay, &[]).await?;
    let mut haproxy = Haproxy::start(Setup {
        config: CONFIG,
        threads: machine::cores(),
        delay: SERVICE_TIME,
        reload: Reload::Master,
    })?;
    for release in 2..2 + u32::try_from(run.extent.rounds())? {
        let file = dev::service_file(INSTANCES, SERVICE_TIME, release)?;
        rollout.add(run, roll_out(&dev, &shape, &file).await?);
        scale.add(run, scale_out_and_in(&dev, &shape).await?);
        reload.add(run, reload_haproxy(&mut haproxy, &shape).await?);
    }
    drop((dev, haproxy));
    let unsafe_dev = start(mainstay, &["--unsafe-no-acknowledged-drain"]).await?;
    let [mut rollout_off, mut scale_off] = [
        "rollout, acknowledged drain switched off",
        "scale, acknowledged drain switched off",
    ]
    .map(Rounds::new);
    let file = dev::service_file(INSTANCES, SERVICE_TIME, 2)?;
    rollout_off.add(run, roll_out(&unsafe_dev, &shape, &file).await?);
    scale_off.add(run, scale_out_and_in(&unsafe_dev, &shape).await?);
    drop(unsafe_dev);
    conclude(run, &[rollout, scale, reload, rollout_off, scale_off]);
    Ok(())
}

/// What is sent while instances are replaced.
pub(super) fn shape() -> Result<Shape> {
    let most = NonZeroUsize::new(CONNECTIONS_MAX).context("no connections")?;
    Shape::new(&["GET /", "POST / {}"], RATE, Connections::PerRequest(most))
}

pub(super) async fn start(mainstay: &Path, options: &[&str]) -> Result<Dev> {
    let dev = Dev::start(
        mainstay,
        &dev::service_file(INSTANCES, SERVICE_TIME, 1)?,
        options,
    )?;
    dev.wait_steady().await;
    Ok(dev)
}

pub(super) async fn roll_out(dev: &Dev, shape: &Shape, file: &str) -> Result<Seen> {
    let sending = shape.start(dev.entry())?;
    sleep(MARGIN).await;
    dev.up(file).await?;
    dev.wait_steady().await;
    sleep(MARGIN).await;
    sending.stop().await
}

pub(super) async fn scale_out_and_in(dev: &Dev, shape: &Shape) -> Result<Seen> {
    let sending = shape.start(dev.entry())?;
    sleep(MARGIN).await;
    dev.scale(INSTANCES_MORE).await?;
    sleep(MARGIN).await;
    dev.scale(INSTANCES).await?;
    sleep(MARGIN).await;
    sending.stop().await
}

async fn reload_haproxy(haproxy: &mut Haproxy, shape: &Shape) -> Result<Seen> {
    let sending = shape.start(haproxy.entry())?;
    sleep(MARGIN).await;
    haproxy.roll_out()?;
    sleep(MARGIN).await;
    sending.stop().await
}

impl Rounds {
    pub(super) fn new(name: &'static str) -> Self {
        let seen = Vec::new();
        Self { name, seen }
    }

    pub(super) fn add(&mut self, run: &Run, seen: Seen) {
        let Seen {
            planned,
            failed,
            max_ms,
            ..
        } = &seen;
        let (name, kinds) = (self.name, seen.kinds());
        run.say(format!(
            "{name}: {failed} failed of {planned}, slowest {max_ms:.0} ms  {kinds}"
        ));
        self.seen.push(seen);
    }

    /// At worst.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
    pub(super) fn failed(&self) -> f64 {
        self.seen
            .iter()
            .map(|seen| seen.failed)
            .max()
            .unwrap_or(u64::MAX) as f64
    }

    pub(super) fn slowest(&self) -> f64 {
        self.seen.iter().map(|seen| seen.max_ms).fold(0.0, f64::max)
    }

    /// Keeps what was measured; rounds of which the load could not be sent do not count.
    pub(super) fn must_count(&self, run: &mut Run) {
        if !self.seen.iter().all(Seen::counts) {
            run.miss(format!(
                "the machine was too busy to send the load of `{}`",
                self.name
            ));
        }
        run.raw(self.name, self.seen.iter().map(Seen::raw).collect());
    }
}

fn conclude(run: &mut Run, all: &[Rounds; 5]) {
    let mut rows = vec![
        ["at worst", "failed", "slowest ms"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for rounds in all {
        let cells = [rounds.failed(), rounds.slowest()].map(short);
        rows.push(
            std::iter::once(rounds.name.to_owned())
                .chain(cells)
                .collect(),
        );
        rounds.must_count(run);
    }
    run.say("");
    run.table(&rows);
    let [rollout, scale, reload, rollout_off, scale_off] = all;
    run.at_most("rollout_failed", rollout.failed(), 0.0);
    run.at_most("scale_failed", scale.failed(), 0.0);
    run.value("reload_failed_haproxy", reload.failed());
    for (key, off) in [("rollout_failed", rollout_off), ("scale_failed", scale_off)] {
        run.red(key, off.failed());
        if off.failed() < 1.0 {
            run.miss(format!(
                "`{key}` is 0 with the acknowledged drain switched off: the check shows nothing"
            ));
        }
    }
}
