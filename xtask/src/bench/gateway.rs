//! `bench gateway`: what a request through our gateway costs, against HAProxy with the same features.
//!
//! One thread each, on the first processor; clients and instances on the others. Both write an access log,
//! add X-Forwarded-For and a request id, may retry, check their instances each second and count.

use super::{
    dev::{self, Dev, Part},
    frame::{Run, median, short},
    haproxy::{Haproxy, Reload, Setup},
    load::{Saturated, Seen, Shape, saturate},
    machine::{self, Cpus, pin},
};
use anyhow::{Context as _, Result, ensure};
use mainstay_prove::load::Connections;
use mainstay_testkit::TempDir;
use rustix::process::{Pid, getpid};
use serde_json::{Value, json};
use std::{fs, net::SocketAddr, num::NonZeroUsize, time::Duration};

const CONFIG: &str = "bench/haproxy-gateway.cfg";
const CONNECTIONS: u32 = 64;
/// Requests per second of the fixed rate, and on how many connections.
const FIXED_RATE: u32 = 8000;
const FIXED_CONNECTIONS: usize = 20;
const WARM_UP: Duration = Duration::from_secs(1);

/// One proxy, running.
struct Side {
    name: &'static str,
    entry: SocketAddr,
    proxy: Pid,
    /// What works for the proxy and is not counted as it: control centre and agent. HAProxy checks its instances itself.
    beside: Vec<Pid>,
}

/// One number of a round.
type Measure = fn(&Round) -> f64;

/// What one side did in one round.
struct Round {
    side: &'static str,
    saturated: Saturated,
    saturated_cpu: Duration,
    beside_cpu: Duration,
    fixed: Seen,
    fixed_cpu: Duration,
}

pub(crate) async fn run(run: &mut Run) -> Result<()> {
    run.show_file(CONFIG)?;
    let mainstay = dev::build(&["mainstay"])?;
    // Everything that is started from here on inherits this.
    pin(getpid(), Cpus::Others)?;
    let dir = TempDir::new("bench-gateway");
    let haproxy = Haproxy::start(Setup {
        config: CONFIG,
        threads: 1,
        delay: Duration::ZERO,
        reload: Reload::Never,
    })?;
    let file = dev::service_file(3, Duration::ZERO, 1)?;
    let dev = Dev::start(&mainstay, &file, &["--workers", "1", "--access-log", "on"])?;
    dev.wait_steady().await;
    let sides = [ours(&dev)?, theirs(&haproxy)];
    for side in &sides {
        pin(side.proxy, Cpus::First)?;
        saturate(&dir, side.entry, CONNECTIONS, WARM_UP).await?;
    }
    let duration = Duration::from_secs(run.extent.pick(4, 2));
    let mut rounds = Vec::new();
    for number in 1..=run.extent.rounds() {
        for side in &sides {
            let round = measure(&dir, side, duration).await?;
            run.say(format!("round {number}: {}", round.line()));
            rounds.push(round);
        }
    }
    logs_were_written(run, &dev, &haproxy, &rounds)?;
    conclude(run, &rounds);
    Ok(())
}

fn ours(dev: &Dev) -> Result<Side> {
    Ok(Side {
        name: "mainstay",
        entry: dev.entry(),
        proxy: dev.process(Part::Gateway)?,
        beside: vec![dev.process(Part::Server)?, dev.process(Part::Agent)?],
    })
}

fn theirs(haproxy: &Haproxy) -> Side {
    Side {
        name: "haproxy",
        entry: haproxy.entry(),
        proxy: haproxy.pid(),
        beside: Vec::new(),
    }
}

async fn measure(dir: &TempDir, side: &Side, duration: Duration) -> Result<Round> {
    let before = (machine::cpu_time(side.proxy)?, beside(side)?);
    let saturated = saturate(dir, side.entry, CONNECTIONS, duration).await?;
    let between = (machine::cpu_time(side.proxy)?, beside(side)?);
    let connections = NonZeroUsize::new(FIXED_CONNECTIONS).context("no connections")?;
    let shape = Shape::new(&["GET /"], FIXED_RATE, Connections::Kept(connections))?;
    let fixed = shape.send(side.entry, duration).await?;
    let after = machine::cpu_time(side.proxy)?;
    Ok(Round {
        side: side.name,
        saturated,
        saturated_cpu: between.0.saturating_sub(before.0),
        beside_cpu: between.1.saturating_sub(before.1),
        fixed,
        fixed_cpu: after.saturating_sub(between.0),
    })
}

fn beside(side: &Side) -> Result<Duration> {
    side.beside.iter().map(|pid| machine::cpu_time(*pid)).sum()
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
fn per_100k(cpu: Duration, requests: u64) -> f64 {
    cpu.as_secs_f64() * 100_000.0 / requests as f64
}

impl Round {
    fn keep_alive(&self) -> f64 {
        per_100k(self.saturated_cpu, self.saturated.requests)
    }

    fn at_fixed_rate(&self) -> f64 {
        per_100k(self.fixed_cpu, self.fixed.ok)
    }

    fn line(&self) -> String {
        format!(
            "{:8}  {:.3} s per 100k at {:.0}/s; {:.3} s at the fixed rate, p99 {:.2} ms, {} failed",
            self.side,
            self.keep_alive(),
            self.saturated.per_second,
            self.at_fixed_rate(),
            self.fixed.p99_ms,
            self.fixed.failed,
        )
    }

    fn raw(&self) -> Value {
        json!({
            "side": self.side,
            "requests": self.saturated.requests,
            "per_second": self.saturated.per_second,
            "cpu_s": self.saturated_cpu.as_secs_f64(),
            "cpu_s_of_control_centre_and_agent": self.beside_cpu.as_secs_f64(),
            "fixed_rate": self.fixed.raw(),
            "fixed_rate_cpu_s": self.fixed_cpu.as_secs_f64(),
        })
    }
}

/// A side without its access log would have less to do. HAProxy drops lines that its reader is too slow for, and has
/// then made them all the same, so their share is told.
fn logs_were_written(run: &mut Run, dev: &Dev, haproxy: &Haproxy, rounds: &[Round]) -> Result<()> {
    let theirs = rounds.iter().filter(|round| round.side == "haproxy");
    let requests: u64 = theirs
        .map(|round| round.saturated.requests + round.fixed.ok)
        .sum();
    run.value(
        "haproxy_log_lines_per_request",
        per_request(haproxy.log_lines(), requests),
    );
    ensure!(haproxy.log_lines() > 0, "HAProxy wrote no access log");
    let path = dev.state().join("logs/access.log");
    let log = fs::metadata(&path).with_context(|| format!("no {}", path.display()))?;
    ensure!(log.len() > 0, "our gateway wrote no access log");
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
fn per_request(lines: u64, requests: u64) -> f64 {
    lines as f64 / requests as f64
}

fn conclude(run: &mut Run, rounds: &[Round]) {
    let side = |side: &'static str| rounds.iter().filter(move |round| round.side == side);
    let middle = |name: &'static str, of: Measure| median(side(name).map(of));
    let columns: [(&str, Measure); 5] = [
        ("CPU s/100k", Round::keep_alive),
        ("requests/s", |round| round.saturated.per_second),
        ("CPU s/100k at 8,000/s", Round::at_fixed_rate),
        ("p50 ms", |round| round.fixed.p50_ms),
        ("p99 ms", |round| round.fixed.p99_ms),
    ];
    let mut rows = vec![vec![String::from("median")]];
    rows[0].extend(columns.iter().map(|(name, _)| (*name).to_owned()));
    for name in ["mainstay", "haproxy"] {
        let mut row = vec![name.to_owned()];
        row.extend(columns.iter().map(|(_, of)| short(middle(name, *of))));
        rows.push(row);
    }
    run.say("");
    run.table(&rows);
    let ratio = |of: Measure| {
        let pairs = side("mainstay").zip(side("haproxy"));
        median(pairs.map(|(ours, theirs)| of(ours) / of(theirs)))
    };
    run.value("cpu_ratio_keepalive", ratio(Round::keep_alive));
    run.value("cpu_ratio_fixed_rate", ratio(Round::at_fixed_rate));
    run.value("p99_ratio_fixed_rate", ratio(|round| round.fixed.p99_ms));
    run.value(
        "throughput_ratio_keepalive",
        ratio(|round| round.saturated.per_second),
    );
    run.value(
        "throughput",
        middle("mainstay", |round| round.saturated.per_second),
    );
    let beside = |round: &Round| round.beside_cpu.as_secs_f64() / round.saturated_cpu.as_secs_f64();
    run.value("control_cpu_share", median(side("mainstay").map(beside)));
    for round in rounds
        .iter()
        .filter(|round| round.fixed.failed > 0 || !round.fixed.counts())
    {
        run.miss(format!("a round does not count: {}", round.line()));
    }
    run.raw("gateway", rounds.iter().map(Round::raw).collect());
}
