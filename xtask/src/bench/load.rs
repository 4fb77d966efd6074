//! The clients: the open-loop generator with what one round of it saw, and wrk where the most is asked for.

use anyhow::{Context as _, Result, bail};
use mainstay_prove::load::{Connections, Load, Report, Request, Running, Target, TargetReport};
use mainstay_testkit::{Ended, Spawned, TempDir, program, wait_until_async};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    process::Command,
    time::{Duration, Instant},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Failures that are kept whole in the raw rounds.
const FAILURES_SHOWN: usize = 5;

/// The share of planned requests that the generator may fail to send, because the machine was busy otherwise.
const UNSENT_SHARE_MAX: f64 = 0.01;

/// A load that is stopped when what it accompanies is over; this only bounds one that hangs.
const OPEN_END: Duration = Duration::from_mins(5);

/// What wrk may take beyond its own duration.
const WRK_MARGIN: Duration = Duration::from_secs(20);

/// What is sent in a round.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// By the name under which they are counted; each has connections of its own.
    groups: Vec<(&'static str, Vec<Request>)>,
    pub(crate) rate: u32,
    pub(crate) connections: Connections,
    /// The host that is asked for; by default the entry's address.
    pub(crate) host: Option<String>,
}

/// A load that is being sent; its threads stop when it is dropped.
pub(crate) struct Sending {
    running: Running,
    stop: DropGuard,
}

impl Shape {
    pub(crate) fn new(requests: &[&str], rate: u32, connections: Connections) -> Result<Self> {
        Self::grouped(&[("entry", requests)], rate, connections)
    }

    /// Requests that are counted apart.
    pub(crate) fn grouped(
        groups: &[(&'static str, &[&str])],
        rate: u32,
        connections: Connections,
    ) -> Result<Self> {
        let parse = |(name, texts): &(&'static str, &[&str])| -> Result<_> {
            let requests = texts.iter().map(|text| text.parse());
            Ok((*name, requests.collect::<Result<_, _>>()?))
        };
        Ok(Self {
            groups: groups.iter().map(parse).collect::<Result<_>>()?,
            rate,
            connections,
            host: None,
        })
    }

    /// Sends until it is told to stop.
    pub(crate) fn start(&self, entry: SocketAddr) -> Result<Sending> {
        self.start_for(entry, OPEN_END)
    }

    /// Sends for this long and tells what came of it.
    pub(crate) async fn send(&self, entry: SocketAddr, duration: Duration) -> Result<Seen> {
        self.start_for(entry, duration)?.finish().await
    }

    pub(crate) fn start_for(&self, entry: SocketAddr, duration: Duration) -> Result<Sending> {
        let target = |(name, requests): &(&'static str, Vec<Request>)| Target {
            name: (*name).to_owned(),
            addresses: vec![entry],
            host: self.host.clone().unwrap_or_else(|| entry.to_string()),
            requests: requests.clone(),
        };
        let load = Load {
            targets: self.groups.iter().map(target).collect(),
            rate: NonZeroU32::new(self.rate).context("a load of nothing")?,
            duration,
            connections: self.connections,
            workers: NonZeroUsize::MIN,
            seed: u64::from(self.rate),
        };
        let stop = CancellationToken::new();
        let running = load.start(None, &stop)?;
        Ok(Sending {
            running,
            stop: stop.drop_guard(),
        })
    }
}

impl Sending {
    /// When the first request was planned.
    pub(crate) fn started(&self) -> Instant {
        self.running.started
    }

    /// Sends no more, and waits for the answers.
    pub(crate) async fn stop(self) -> Result<Seen> {
        let Self { running, stop } = self;
        drop(stop);
        Ok(Seen::of(&running.finish().await?))
    }

    /// Waits for the planned end.
    pub(crate) async fn finish(self) -> Result<Seen> {
        Ok(Seen::of(&self.report().await?))
    }

    /// Waits for the planned end and tells everything.
    pub(crate) async fn report(self) -> Result<Report> {
        let Self { running, stop } = self;
        let report = running.finish().await?;
        drop(stop);
        Ok(report)
    }
}

/// What the clients of one round saw.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) planned: u64,
    unsent: u64,
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Of the requests with a right answer.
    pub(crate) max_ms: f64,
    /// By how much the generator was late itself, at worst.
    late_max_ms: f64,
    kinds: Vec<String>,
    failures: Vec<String>,
}

impl Seen {
    fn of(report: &Report) -> Self {
        let mut seen = Self::of_targets(report, &report.targets.iter().collect::<Vec<_>>());
        seen.planned = report.planned;
        seen
    }

    /// What one group of requests saw. `planned` is what was sent of it.
    pub(crate) fn of_group(report: &Report, group: &str) -> Self {
        let targets = report.targets.iter();
        Self::of_targets(
            report,
            &targets
                .filter(|target| target.name == group)
                .collect::<Vec<_>>(),
        )
    }

    fn of_targets(report: &Report, targets: &[&TargetReport]) -> Self {
        let ms = |micros: u64| Duration::from_micros(micros).as_secs_f64() * 1000.0;
        let mut latency = report.lateness.clone();
        latency.reset();
        let mut failed = BTreeMap::new();
        for target in targets {
            latency += &target.latency;
            for (kind, count) in &target.failed {
                *failed.entry(kind.clone()).or_default() += count;
            }
        }
        let failures = targets.iter().flat_map(|target| &target.failures);
        Self {
            planned: targets.iter().map(|target| target.sent).sum(),
            unsent: report.unsent,
            ok: targets.iter().map(|target| target.ok).sum(),
            failed: failed.values().sum(),
            p50_ms: ms(latency.value_at_quantile(0.5)),
            p99_ms: ms(latency.value_at_quantile(0.99)),
            max_ms: ms(latency.max()),
            late_max_ms: ms(report.lateness.max()),
            kinds: failed
                .iter()
                .map(|(kind, count): (_, &u64)| format!("{count} x {kind}"))
                .collect(),
            failures: failures
                .take(FAILURES_SHOWN)
                .map(|failure| {
                    let (at, kind) = (ms(failure.ended_us), &failure.kind);
                    format!("{} {} at {at:.0} ms: {kind}", failure.method, failure.path)
                })
                .collect(),
        }
    }

    /// Whether nearly all was sent that was planned, so that the round counts.
    pub(crate) fn counts(&self) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
        let share = self.unsent as f64 / self.planned.max(1) as f64;
        share <= UNSENT_SHARE_MAX
    }

    pub(crate) fn raw(&self) -> Value {
        json!({
            "planned": self.planned,
            "unsent": self.unsent,
            "ok": self.ok,
            "failed": self.failed,
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "max_ms": self.max_ms,
            "generator_late_max_ms": self.late_max_ms,
            "kinds": self.kinds,
            "failures": self.failures,
        })
    }

    /// What failed, for people.
    pub(crate) fn kinds(&self) -> String {
        self.kinds.join(", ")
    }
}

/// What wrk asks for, as often as the proxy can take it, from one thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flood {
    pub(crate) connections: u32,
    pub(crate) path: &'static str,
    pub(crate) reuse: Reuse,
}

/// Whether a connection is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    Kept,
    /// Each request has its own.
    Never,
}

/// What wrk saw: as many requests as the proxy could take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Saturated {
    pub(crate) requests: u64,
    pub(crate) per_second: f64,
}

impl Flood {
    /// Sends it for this long.
    pub(crate) async fn send(
        &self,
        dir: &TempDir,
        entry: SocketAddr,
        duration: Duration,
    ) -> Result<Saturated> {
        let wrk = self.start(dir, entry, duration);
        let ended = wait_until_async(duration + WRK_MARGIN, "wrk ends", async || {
            wrk.ended().ok_or_else(|| wrk.log())
        })
        .await;
        // Each run appends to the same file.
        let log = wrk.log();
        let last = log.rsplit("Running ").next().unwrap_or_default();
        if ended != Ended::Code(0) {
            bail!("wrk ended with {ended:?}:\n{last}");
        }
        parse_wrk(last)
    }

    fn start(&self, dir: &TempDir, entry: SocketAddr, duration: Duration) -> Spawned {
        let Self {
            connections,
            path,
            reuse,
        } = self;
        let mut command = Command::new(program("wrk"));
        command.args(["--threads", "1", "--connections", &connections.to_string()]);
        command.args(["--duration", &format!("{}s", duration.as_secs())]);
        if *reuse == Reuse::Never {
            command.args(["--header", "Connection: close"]);
        }
        command.arg(format!("http://{entry}{path}"));
        Spawned::start(dir, "wrk", &mut command)
    }
}

fn parse_wrk(text: &str) -> Result<Saturated> {
    let understood = || format!("cannot understand what wrk printed:\n{text}");
    for trouble in ["Non-2xx or 3xx responses", "Socket errors"] {
        if text.contains(trouble) {
            bail!("wrk saw failures:\n{text}");
        }
    }
    let before = |words: &str| {
        let line = text.lines().find(|line| line.contains(words))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let after = |words: &str| {
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(words))?;
        line.trim().parse().ok()
    };
    Ok(Saturated {
        requests: before(" requests in ").with_context(understood)?,
        per_second: after("Requests/sec:").with_context(understood)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRK: &str = "1s test @ http://127.0.0.1:8080/\n  1 threads and 64 connections\n  \
        Thread Stats   Avg      Stdev     Max   +/- Stdev\n  \
        40021 requests in 1.10s, 5.00MB read\nRequests/sec:  36382.73\nTransfer/sec:      4.5MB\n";

    #[test]
    fn the_numbers_of_wrk_are_read() {
        let expected = Saturated {
            requests: 40021,
            per_second: 36382.73,
        };
        assert_eq!(parse_wrk(WRK).unwrap(), expected);
    }

    #[test]
    fn a_run_of_wrk_with_failures_does_not_count() {
        let text = format!("{WRK}  Non-2xx or 3xx responses: 3\n");
        assert!(parse_wrk(&text).is_err());
        assert!(parse_wrk("nothing").is_err());
    }
}
