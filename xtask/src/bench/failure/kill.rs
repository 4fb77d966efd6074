//! SIGKILL of one of three instances under load, which is back two seconds later (ours: when the agent has started
//! it again), beside the same load without it.

use super::SERVICE_TIME;
use crate::bench::{
    dev::{self, Dev},
    frame::{Run, median, short},
    haproxy::{Haproxy, Reload, Setup},
    load::{Seen, Shape},
    machine,
};
use anyhow::{Context as _, Result};
use mainstay_prove::load::Connections;
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    num::NonZeroUsize,
    path::Path,
    time::{Duration, Instant},
};
use tokio::time::sleep_until;

const STOCK: &str = "bench/haproxy-stock.cfg";
const BEST: &str = "bench/haproxy-failure.cfg";
const RATE: u32 = 3200;
const CLIENTS: usize = 64;
const MAX_MS: f64 = 300.0;
/// A machine that is slow without a fault may be this much slower with one.
const MAX_MS_OVER_CONTROL: f64 = 250.0;

/// When what happens, counted from the load's start.
#[derive(Clone, Copy)]
struct Timing {
    kill: Duration,
    back: Duration,
    end: Duration,
    control: Duration,
}

/// One of those that are compared.
struct Side {
    name: &'static str,
    proxy: Proxy,
}

enum Proxy {
    Ours(Dev),
    Theirs(Haproxy),
}

struct Round {
    side: &'static str,
    control: Seen,
    killed: Seen,
}

pub(super) async fn run(run: &mut Run, mainstay: &Path) -> Result<()> {
    run.show_file(STOCK)?;
    run.show_file(BEST)?;
    let mut sides = start(mainstay).await?;
    let seconds = Duration::from_secs;
    let full = Timing {
        kill: seconds(2),
        back: seconds(4),
        end: seconds(6),
        control: seconds(3),
    };
    let quick = Timing {
        kill: seconds(1),
        back: seconds(3),
        end: seconds(4),
        control: seconds(1),
    };
    let timing = run.extent.pick(full, quick);
    let clients = NonZeroUsize::new(CLIENTS).context("no clients")?;
    let shape = Shape::new(&["GET /"], RATE, Connections::Kept(clients))?;
    let mut rounds = Vec::new();
    for number in 0..run.extent.rounds() {
        for side in &mut sides {
            let round = side.round(&shape, timing, number).await?;
            run.say(format!("kill {}: {}", number + 1, round.line()));
            rounds.push(round);
        }
    }
    conclude(run, &rounds);
    Ok(())
}

async fn start(mainstay: &Path) -> Result<[Side; 3]> {
    let haproxy = |config| {
        let (threads, reload) = (machine::cores(), Reload::Never);
        Haproxy::start(Setup {
            config,
            threads,
            delay: SERVICE_TIME,
            reload,
        })
    };
    let dev = Dev::start(mainstay, &dev::service_file(3, SERVICE_TIME, 1)?, &[])?;
    dev.wait_steady().await;
    Ok([
        Side {
            name: "mainstay",
            proxy: Proxy::Ours(dev),
        },
        Side {
            name: "haproxy stock",
            proxy: Proxy::Theirs(haproxy(STOCK)?),
        },
        Side {
            name: "haproxy best",
            proxy: Proxy::Theirs(haproxy(BEST)?),
        },
    ])
}

impl Side {
    fn entry(&self) -> SocketAddr {
        match &self.proxy {
            Proxy::Ours(dev) => dev.entry(),
            Proxy::Theirs(haproxy) => haproxy.entry(),
        }
    }

    async fn round(&mut self, shape: &Shape, timing: Timing, number: usize) -> Result<Round> {
        let control = shape.send(self.entry(), timing.control).await?;
        // Another one each time: an instance that is killed again and again is rightly taken for a broken one.
        let instance = number % 3;
        let sending = shape.start_for(self.entry(), timing.end)?;
        let started = sending.started();
        until(started + timing.kill).await;
        match &self.proxy {
            Proxy::Ours(dev) => dev.kill(instance).await?,
            Proxy::Theirs(haproxy) => haproxy.kill(instance),
        }
        until(started + timing.back).await;
        if let Proxy::Theirs(haproxy) = &mut self.proxy {
            haproxy.bring_back(instance)?;
        }
        let killed = sending.finish().await?;
        if let Proxy::Ours(dev) = &self.proxy {
            dev.wait_steady().await;
        }
        Ok(Round {
            side: self.name,
            control,
            killed,
        })
    }
}

async fn until(instant: Instant) {
    sleep_until(instant.into()).await;
}

impl Round {
    fn line(&self) -> String {
        let Seen {
            planned,
            failed,
            max_ms,
            ..
        } = &self.killed;
        format!(
            "{:13}  {failed} failed of {planned}, slowest {max_ms:.0} ms (without the kill: {} failed, {:.0} ms)  {}",
            self.side,
            self.control.failed,
            self.control.max_ms,
            self.killed.kinds(),
        )
    }

    fn raw(&self) -> Value {
        json!({"side": self.side, "control": self.control.raw(), "killed": self.killed.raw()})
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
fn conclude(run: &mut Run, rounds: &[Round]) {
    let side = |side: &'static str| rounds.iter().filter(move |round| round.side == side);
    // None may fail in any round; of the slowest the median counts, since a machine that does other things has pauses.
    let failed = |name| {
        side(name)
            .map(|round| round.killed.failed)
            .max()
            .unwrap_or(u64::MAX) as f64
    };
    let slowest = |name| median(side(name).map(|round| round.killed.max_ms));
    let control = |name| median(side(name).map(|round| round.control.max_ms));
    let titles = [
        "median of rounds",
        "failed at worst",
        "slowest ms",
        "without the kill ms",
    ];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for name in ["mainstay", "haproxy stock", "haproxy best"] {
        let cells = [failed(name), slowest(name), control(name)].map(short);
        rows.push(std::iter::once(name.to_owned()).chain(cells).collect());
    }
    run.say("");
    run.table(&rows);
    run.say("");
    run.at_most("kill_failed_get", failed("mainstay"), 0.0);
    let bar = MAX_MS.max(control("mainstay") + MAX_MS_OVER_CONTROL);
    run.at_most("kill_max_ms", slowest("mainstay"), bar);
    run.value("kill_max_ms_control", control("mainstay"));
    run.value("kill_failed_get_haproxy_stock", failed("haproxy stock"));
    run.value("kill_max_ms_haproxy_stock", slowest("haproxy stock"));
    run.value("kill_failed_get_haproxy_best", failed("haproxy best"));
    run.value("kill_max_ms_haproxy_best", slowest("haproxy best"));
    for round in side("mainstay") {
        if round.control.failed > 0 || !round.control.counts() || !round.killed.counts() {
            run.miss(format!("a round does not count: {}", round.line()));
        }
    }
    run.raw("kill", rounds.iter().map(Round::raw).collect());
}
