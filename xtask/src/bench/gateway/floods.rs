//! As much as each side can take: the processor time that a request then costs, kept alive and with a connection of its
//! own, with the features on and bare, and what a large body costs.

use super::side::{KEPT, OURS, Side};
use crate::bench::{
    backend::{LARGE_LEN, LARGE_PATH},
    frame::{Run, median, short},
    load::{Flood, Reuse, Saturated},
};
use anyhow::Result;
use mainstay_testkit::TempDir;
use serde_json::{Value, json};
use std::time::Duration;

const CLOSED: Flood = Flood {
    reuse: Reuse::Never,
    ..KEPT
};
const LARGE: Flood = Flood {
    connections: 16,
    path: LARGE_PATH,
    reuse: Reuse::Kept,
};

/// All of one kind; each gives the rounds of one measurement.
pub(super) struct Floods<'a> {
    pub(super) dir: &'a TempDir,
    pub(super) duration: Duration,
}

/// What is measured. The names are those in the raw rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kept,
    Closed,
    Large,
    Bare,
}

pub(super) struct Rounds {
    kind: Kind,
    rounds: Vec<Round>,
}

/// What one side did in one round.
struct Round {
    side: &'static str,
    seen: Saturated,
    cpu: Duration,
    beside: Duration,
}

/// One number of a round.
type Measure = fn(&Round) -> f64;

impl Floods<'_> {
    pub(super) async fn kept(&self, run: &Run, sides: &[Side]) -> Result<Rounds> {
        self.measure(run, Kind::Kept, sides).await
    }

    pub(super) async fn closed(&self, run: &Run, sides: &[Side]) -> Result<Rounds> {
        self.measure(run, Kind::Closed, sides).await
    }

    pub(super) async fn large(&self, run: &Run, sides: &[Side]) -> Result<Rounds> {
        self.measure(run, Kind::Large, sides).await
    }

    pub(super) async fn bare(&self, run: &Run, sides: &[Side]) -> Result<Rounds> {
        self.measure(run, Kind::Bare, sides).await
    }

    async fn measure(&self, run: &Run, kind: Kind, sides: &[Side]) -> Result<Rounds> {
        let mut rounds = Vec::new();
        for number in 1..=run.extent.rounds() {
            for side in sides {
                let before = (side.cpu()?, side.cpu_beside()?);
                let seen = side.flood(self.dir, kind.flood(), self.duration).await?;
                let round = Round {
                    side: side.name,
                    seen,
                    cpu: side.cpu()?.saturating_sub(before.0),
                    beside: side.cpu_beside()?.saturating_sub(before.1),
                };
                run.say(format!("{} {number}: {}", kind.name(), round.line(kind)));
                rounds.push(round);
            }
        }
        Ok(Rounds { kind, rounds })
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Kept => "keep-alive",
            Self::Closed => "connection per request",
            Self::Large => "1 MiB",
            Self::Bare => "keep-alive, bare",
        }
    }

    fn flood(self) -> Flood {
        match self {
            Self::Kept | Self::Bare => KEPT,
            Self::Closed => CLOSED,
            Self::Large => LARGE,
        }
    }
}

impl Round {
    /// Processor seconds of 100,000 requests.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
    fn per_100k(&self) -> f64 {
        self.cpu.as_secs_f64() * 100_000.0 / self.seen.requests as f64
    }

    /// Gbit of large bodies in one processor second.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
    fn gbit_per_cpu_s(&self) -> f64 {
        let bits = self.seen.requests as f64 * LARGE_LEN as f64 * 8.0;
        bits / 1e9 / self.cpu.as_secs_f64()
    }

    fn line(&self, kind: Kind) -> String {
        let cost = match kind {
            Kind::Large => format!("{:.2} Gbit per CPU second", self.gbit_per_cpu_s()),
            Kind::Kept | Kind::Closed | Kind::Bare => format!("{:.3} s per 100k", self.per_100k()),
        };
        format!("{:8}  {cost} at {:.0}/s", self.side, self.seen.per_second)
    }

    fn raw(&self) -> Value {
        json!({
            "side": self.side,
            "requests": self.seen.requests,
            "per_second": self.seen.per_second,
            "cpu_s": self.cpu.as_secs_f64(),
            "cpu_s_of_control_centre_and_agent": self.beside.as_secs_f64(),
        })
    }
}

impl Rounds {
    fn side(&self, side: &'static str) -> impl Iterator<Item = &Round> {
        self.rounds.iter().filter(move |round| round.side == side)
    }

    fn middle(&self, side: &'static str, of: Measure) -> f64 {
        median(self.side(side).map(of))
    }

    /// Ours by theirs, in the same rounds.
    fn ratio(&self, theirs: &'static str, of: Measure) -> f64 {
        let pairs = self.side(OURS).zip(self.side(theirs));
        median(pairs.map(|(ours, theirs)| of(ours) / of(theirs)))
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let mut sides: Vec<&'static str> = self.rounds.iter().map(|round| round.side).collect();
        sides.dedup();
        sides.truncate(if self.kind == Kind::Large { 3 } else { 2 });
        let row = |side: &'static str| {
            let cost: Measure = match self.kind {
                Kind::Large => Round::gbit_per_cpu_s,
                Kind::Kept | Kind::Closed | Kind::Bare => Round::per_100k,
            };
            let per_second = self.middle(side, |round| round.seen.per_second);
            let name = format!("{}, {side}", self.kind.name());
            vec![name, short(self.middle(side, cost)), short(per_second)]
        };
        sides.into_iter().map(row).collect()
    }
}

pub(super) fn conclude(run: &mut Run, all: &[Rounds; 4]) {
    let titles = ["median", "CPU s/100k (1 MiB: Gbit/CPU s)", "requests/s"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    rows.extend(all.iter().flat_map(Rounds::rows));
    run.say("");
    run.table(&rows);
    let [kept, closed, large, bare] = all;
    let cost = Round::per_100k;
    run.at_most("cpu_ratio_keepalive", kept.ratio("haproxy", cost), 0.8);
    run.at_most("cpu_ratio_bare", bare.ratio("haproxy", cost), 1.1);
    run.at_most("cpu_ratio_close", closed.ratio("haproxy", cost), 1.0);
    let throughput = large.ratio("haproxy", Round::gbit_per_cpu_s);
    run.at_least("throughput_ratio_1mib", throughput, 1.0);
    let tuned = large.ratio("haproxy with splice", Round::gbit_per_cpu_s);
    run.value("throughput_ratio_1mib_splice", tuned);
    let per_second = kept.ratio("haproxy", |round| round.seen.per_second);
    run.value("throughput_ratio_keepalive", per_second);
    run.value(
        "throughput",
        kept.middle(OURS, |round| round.seen.per_second),
    );
    let beside = kept.middle(OURS, |round| {
        round.beside.as_secs_f64() / round.cpu.as_secs_f64()
    });
    run.value("control_cpu_share", beside);
    for rounds in all {
        run.raw(
            rounds.kind.name(),
            rounds.rounds.iter().map(Round::raw).collect(),
        );
    }
}
