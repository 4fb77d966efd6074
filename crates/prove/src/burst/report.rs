//! What the clients saw of a burst, and the verdict. Pure.

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::Standing;
use super::clients::{Consumed, Published};
use super::plan::{FACTOR, Plan, TAKES};
use crate::verdict::Outcome;

/// A load that is later than this is not the one that was planned.
const LATE_MAX: Duration = Duration::from_secs(1);
/// The broker's rates are means over five seconds: before so much of the time after the burst is over they still have the burst in them.
const SETTLED: Duration = Duration::from_secs(5);
/// Below this share of the peak seconds to empty are a matter of moments, and are not compared.
const COMPARED_MIN: f64 = 0.1;

/// A look at the backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// Since the start.
    pub(super) at: Duration,
    /// What was published and not acknowledged.
    pub(super) backlog: u64,
}

/// What the broker said.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    pub(super) at: Duration,
    pub(super) told: Result<Standing, String>,
}

/// Everything that a report is made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Evidence {
    pub(super) plan: Plan,
    pub(super) published: Vec<Published>,
    pub(super) consumed: Consumed,
    pub(super) looks: Vec<Look>,
    pub(super) asked: Vec<Asked>,
    /// Messages that are in the queue at the end.
    pub(super) left: Result<u32, String>,
}

/// What a burst shows.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Report {
    /// Always `burst`.
    pub scenario: &'static str,
    /// Whether it holds.
    pub outcome: Outcome,
    /// Why not.
    pub problems: Vec<String>,
    /// Messages per second outside of the burst; in it ten times that.
    pub rate: f64,
    /// Messages per second that the consumer takes.
    pub takes: f64,
    /// How long the burst was.
    pub burst_ms: u64,
    /// Messages that were published.
    pub published: u64,
    /// Those of them that were confirmed.
    pub confirmed: u64,
    /// Those that were refused.
    pub refused: u64,
    /// Those that were delivered, each counted once.
    pub delivered: u64,
    /// Those that were confirmed and never came.
    pub lost: u64,
    /// Deliveries of what was delivered before.
    pub twice: u64,
    /// Deliveries of what its publisher sent before another that had come.
    pub out_of_order: u64,
    /// Messages that were in the queue at the end.
    pub left: u64,
    /// The largest backlog: published, and not acknowledged.
    pub peak: u64,
    /// The same by the rates.
    pub peak_by_rates: u64,
    /// How long after the burst the backlog was gone; `None`: it was not.
    pub empty_after_ms: Option<u64>,
    /// The same by the rates.
    pub empty_after_ms_by_rates: u64,
    /// The longest that a message waited to be sent.
    pub late_ms: u64,
    /// What the broker said while the backlog fell, and what came true.
    pub foretold: Vec<Foretold>,
    /// The median of how far it was off, in percent of what came true.
    pub foretold_off_percent: Option<f64>,
    /// Why the broker could not be asked, if it could not.
    pub unasked: Option<String>,
}

/// Seconds to empty as the broker said, and what came true.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Foretold {
    /// Since the start.
    pub at_ms: u64,
    /// Messages, as the broker saw it.
    pub messages: u64,
    /// What it said; `None`: that it does not become empty.
    pub said_s: Option<f64>,
    /// What came true.
    pub was_s: f64,
}

/// What was counted of the messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    published: u64,
    confirmed: u64,
    refused: u64,
    delivered: u64,
    lost: u64,
    twice: u64,
    out_of_order: u64,
    /// Deliveries of what nobody published.
    strange: u64,
}

impl Tally {
    fn of(published: &[Published], consumed: &Consumed) -> Self {
        let mut tally = Self::default();
        let mut came: Vec<Vec<bool>> = published
            .iter()
            .map(|one| vec![false; one.confirmed.len()])
            .collect();
        let mut highest: Vec<Option<u64>> = vec![None; published.len()];
        for sent in &consumed.came {
            let number = usize::try_from(sent.number).unwrap_or(usize::MAX);
            let place = came
                .get_mut(sent.publisher)
                .and_then(|of| of.get_mut(number));
            let Some(seen) = place else {
                tally.strange += 1;
                continue;
            };
            if *seen {
                tally.twice += 1;
                continue;
            }
            *seen = true;
            tally.delivered += 1;
            let highest = &mut highest[sent.publisher];
            tally.out_of_order += u64::from(highest.is_some_and(|other| other > sent.number));
            *highest = (*highest).max(Some(sent.number));
        }
        for (one, came) in published.iter().zip(&came) {
            tally.published += one.confirmed.len() as u64;
            tally.refused += one.refused;
            for (confirmed, came) in one.confirmed.iter().zip(came) {
                tally.confirmed += u64::from(*confirmed);
                tally.lost += u64::from(*confirmed && !*came);
            }
        }
        tally
    }
}

/// Makes the verdict.
pub(super) fn judge(evidence: Evidence) -> Report {
    let Evidence {
        plan,
        published,
        consumed,
        looks,
        asked,
        left,
    } = evidence;
    let tally = Tally::of(&published, &consumed);
    let peak = looks.iter().map(|look| look.backlog).max().unwrap_or(0);
    let emptied = emptied(&plan, &looks);
    let late = published
        .iter()
        .map(|one| one.late)
        .max()
        .unwrap_or_default();
    let foretold = emptied.map_or_else(Vec::new, |at| foretold(&plan, &asked, peak, at));
    let unasked = asked
        .iter()
        .find_map(|one| one.told.as_ref().err().cloned());
    let mut report = Report {
        scenario: super::NAME,
        outcome: Outcome::Holds,
        problems: Vec::new(),
        rate: plan.rate,
        takes: plan.rate * TAKES,
        burst_ms: millis(plan.burst),
        published: tally.published,
        confirmed: tally.confirmed,
        refused: tally.refused,
        delivered: tally.delivered,
        lost: tally.lost,
        twice: tally.twice,
        out_of_order: tally.out_of_order,
        left: left.as_ref().copied().map_or(0, u64::from),
        peak,
        peak_by_rates: whole(plan.peak()),
        empty_after_ms: emptied.map(|at| millis(at.saturating_sub(plan.burst_ends()))),
        empty_after_ms_by_rates: millis(plan.falls_in()),
        late_ms: millis(late),
        foretold_off_percent: off(&foretold),
        foretold,
        unasked,
    };
    report.on_messages(tally.strange, left.err());
    report.on_clients(&published, &consumed);
    report.on_backlog(&plan, late);
    report
}

/// When the backlog was gone after the burst, and did not come back.
fn emptied(plan: &Plan, looks: &[Look]) -> Option<Duration> {
    let after = looks.iter().filter(|look| look.at > plan.burst_ends());
    let calm = |look: &&Look| look.backlog <= plan.calm();
    let last = after.rev().take_while(calm).last()?;
    Some(last.at)
}

/// What the broker said while the backlog fell and its rates had forgotten the burst.
fn foretold(plan: &Plan, asked: &[Asked], peak: u64, emptied: Duration) -> Vec<Foretold> {
    let worth = whole(float(peak) * COMPARED_MIN);
    let told = asked.iter().filter_map(|one| {
        let told = one.told.as_ref().ok()?;
        let compared = one.at >= plan.burst_ends() + SETTLED && told.messages > worth;
        (compared && one.at < emptied).then(|| Foretold {
            at_ms: millis(one.at),
            messages: told.messages,
            said_s: told.seconds_to_empty,
            was_s: emptied.saturating_sub(one.at).as_secs_f64(),
        })
    });
    told.collect()
}

/// The median of how far it was off, in percent; a word that it does not become empty is off by all of it.
fn off(foretold: &[Foretold]) -> Option<f64> {
    let of = |one: &Foretold| {
        let wrong = one
            .said_s
            .map_or(one.was_s, |said| (said - one.was_s).abs());
        wrong / one.was_s * 100.0
    };
    let mut off: Vec<f64> = foretold.iter().map(of).collect();
    off.sort_by(f64::total_cmp);
    off.get(off.len() / 2).copied()
}

impl Report {
    fn find(&mut self, outcome: Outcome, problem: String) {
        self.outcome = self.outcome.max(outcome);
        self.problems.push(problem);
    }

    fn on_messages(&mut self, strange: u64, unread: Option<String>) {
        let unconfirmed =
            self.published - self.confirmed - self.refused.min(self.published - self.confirmed);
        let found = [
            (self.lost, "messages were confirmed and never came"),
            (self.twice, "messages came twice"),
            (
                self.out_of_order,
                "messages came before others that their publisher had sent earlier",
            ),
            (self.refused, "messages were refused"),
            (unconfirmed, "messages were never confirmed"),
            (
                self.left,
                "messages were left in the queue, though all that came was acknowledged",
            ),
            (strange, "messages came that nobody had published"),
        ];
        for (count, what) in found {
            if count > 0 {
                self.find(Outcome::DoesNotHold, format!("{count} {what}"));
            }
        }
        if let Some(why) = unread {
            let what = format!("what is left in the queue cannot be told: {why}");
            self.find(Outcome::DoesNotHold, what);
        }
    }

    fn on_clients(&mut self, published: &[Published], consumed: &Consumed) {
        let publishers = published.iter().filter_map(|one| one.broke.as_ref());
        for why in publishers {
            self.find(
                Outcome::DoesNotHold,
                format!("a publisher could not go on: {why}"),
            );
        }
        if let Some(why) = &consumed.broke {
            self.find(
                Outcome::DoesNotHold,
                format!("the consumer could not go on: {why}"),
            );
        }
    }

    fn on_backlog(&mut self, plan: &Plan, late: Duration) {
        if self.empty_after_ms.is_none() {
            let what = format!("the backlog of {} did not become empty", self.peak);
            self.find(Outcome::DoesNotHold, what);
        }
        if float(self.peak) < plan.peak() / 2.0 {
            let what = format!(
                "the backlog rose to {} only, and not to about {}: there was no burst",
                self.peak, self.peak_by_rates
            );
            self.find(Outcome::CouldNotRun, what);
        }
        if late > LATE_MAX {
            let what = format!(
                "messages were sent {} ms too late: this machine is too slow for {} a second",
                self.late_ms,
                plan.rate * FACTOR
            );
            self.find(Outcome::CouldNotRun, what);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is a number of messages"
)]
fn whole(count: f64) -> u64 {
    count as u64
}

#[expect(clippy::cast_precision_loss, reason = "no proof has 2^52 messages")]
fn float(count: u64) -> f64 {
    count as f64
}
