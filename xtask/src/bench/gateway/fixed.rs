//! A fixed rate that both can take with ease: what a request costs then, and how long it takes.
//!
//! Latencies differ more between rounds than between the two, so there are more pairs than elsewhere, and what is held
//! against the bar is the lower end of an interval: a bar that is missed is missed beyond the noise.

use super::side::{OURS, Side};
use crate::bench::{
    frame::{Extent, Run, median, short},
    interval::{Interval, ratio_of_medians},
    load::{Seen, Shape},
};
use anyhow::{Context as _, Result};
use mainstay_prove::load::Connections;
use serde_json::{Value, json};
use std::{num::NonZeroUsize, time::Duration};

/// Requests per second, and on how many connections.
const RATE: u32 = 8000;
const CONNECTIONS: usize = 20;

/// Fewer pairs give an interval that says nothing.
const PAIRS: usize = 9;

pub(super) struct Round {
    side: &'static str,
    seen: Seen,
    cpu: Duration,
}

type Measure = fn(&Round) -> f64;

pub(super) async fn measure(run: &Run, sides: &[Side; 2]) -> Result<Vec<Round>> {
    let connections = NonZeroUsize::new(CONNECTIONS).context("no connections")?;
    let shape = Shape::new(&["GET /"], RATE, Connections::Kept(connections))?;
    let duration = match run.extent {
        Extent::Full => Duration::from_secs(4),
        Extent::Quick => Duration::from_secs(1),
    };
    let mut rounds = Vec::new();
    for number in 1..=PAIRS {
        for side in sides {
            let before = side.cpu()?;
            let seen = shape.send(side.entry(), duration).await?;
            side.count(seen.ok);
            let round = Round {
                side: side.name,
                seen,
                cpu: side.cpu()?.saturating_sub(before),
            };
            run.say(format!("fixed rate {number}: {}", round.line()));
            rounds.push(round);
        }
    }
    Ok(rounds)
}

impl Round {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
    fn per_100k(&self) -> f64 {
        self.cpu.as_secs_f64() * 100_000.0 / self.seen.ok as f64
    }

    fn line(&self) -> String {
        format!(
            "{:8}  {:.3} s per 100k, p50 {:.2} ms, p99 {:.2} ms, {} failed",
            self.side,
            self.per_100k(),
            self.seen.p50_ms,
            self.seen.p99_ms,
            self.seen.failed,
        )
    }

    fn raw(&self) -> Value {
        json!({"side": self.side, "cpu_s": self.cpu.as_secs_f64(), "seen": self.seen.raw()})
    }
}

pub(super) fn conclude(run: &mut Run, rounds: &[Round]) {
    let side = |side: &'static str| rounds.iter().filter(move |round| round.side == side);
    let pairs = |of: Measure| -> Vec<(f64, f64)> {
        let pairs = side(OURS).zip(side("haproxy"));
        pairs.map(|(ours, theirs)| (of(ours), of(theirs))).collect()
    };
    let mut rows = vec![
        ["at 8,000/s, median", "CPU s/100k", "p50 ms", "p99 ms"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let columns: [Measure; 3] = [
        Round::per_100k,
        |round| round.seen.p50_ms,
        |round| round.seen.p99_ms,
    ];
    for name in [OURS, "haproxy"] {
        let cells = columns.map(|of| short(median(side(name).map(of))));
        rows.push(std::iter::once(name.to_owned()).chain(cells).collect());
    }
    run.say("");
    run.table(&rows);
    let cpu = median(
        pairs(Round::per_100k)
            .iter()
            .map(|(ours, theirs)| ours / theirs),
    );
    run.at_most("cpu_ratio_fixed_rate", cpu, 0.8);
    let Interval { low, middle, high } = ratio_of_medians(&pairs(|round| round.seen.p99_ms));
    run.say(format!(
        "p99 at 8,000/s, ours by theirs: {} ({} to {} in 95 of 100 resamplings of {PAIRS} pairs)",
        short(middle),
        short(low),
        short(high)
    ));
    run.value("p99_ratio_fixed_rate", middle);
    run.at_most("p99_ratio_fixed_rate_low", low, 1.1);
    run.value("p99_ratio_fixed_rate_high", high);
    for round in rounds {
        if round.seen.failed > 0 || !round.seen.counts() {
            run.miss(format!("a round does not count: {}", round.line()));
        }
    }
    run.raw("fixed rate", rounds.iter().map(Round::raw).collect());
}
