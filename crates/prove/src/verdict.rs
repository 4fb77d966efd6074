//! What the clients saw, held against what was promised.
//!
//! A request that failed counts as failed, with one exception: an unsafe request that had been sent
//! to an instance before it was killed and for which the gateway answered after. Nobody can know
//! whether it was done, so nobody may send it again; it is listed.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use hdrhistogram::Histogram;
use mainstay_model::service::Slo;

use crate::ground::{DatagramReport, WRONG_SERVICE};
use crate::load::{Failure, Kind, Report, Strike};
use crate::scenario::{Fault, Outage, Scenario, Trouble, Victims};

/// Failures that a report lists; the counts hold all of them.
const FAILURES_LISTED: usize = 20;

/// What all scenarios together show.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Verdict {
    /// The worst of the scenarios'.
    pub outcome: Outcome,
    /// Requests per second that were planned.
    pub rate: u32,
    /// What makes the same requests again.
    pub seed: u64,
    /// What a reader must know beside the numbers.
    pub notes: Vec<String>,
    /// One per scenario, in the order in which they were run.
    pub scenarios: Vec<ScenarioReport>,
}

/// Whether the promise was kept; ordered from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was.
    Holds,
    /// Nothing failed, but the proof could not be made.
    CouldNotRun,
    /// It was not.
    DoesNotHold,
}

/// What one scenario shows. `planned` is `unsent` plus `sent`; `sent` is `ok`, `failed`, the number
/// of `unsafe_in_flight`, and what failed in `outages`. The undisturbed round before the faults is part of all counts.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ScenarioReport {
    /// Which.
    pub scenario: Scenario,
    /// Whether the promise was kept.
    pub outcome: Outcome,
    /// Why it was not kept, or why that cannot be told; empty if it holds.
    pub problems: Vec<String>,
    /// Requests whose time came.
    pub planned: u64,
    /// Requests that were sent.
    pub sent: u64,
    /// Requests that this machine was too slow to send in time.
    pub unsent: u64,
    /// Requests with a right answer.
    pub ok: u64,
    /// Requests that failed.
    pub failed: u64,
    /// The failed ones by kind, in words.
    pub failed_by: BTreeMap<String, u64>,
    /// The first failures.
    pub failures: Vec<Failure>,
    /// Unsafe requests that were in flight on an instance when it was killed.
    pub unsafe_in_flight: Vec<Failure>,
    /// Times in which requests may fail, and those that did.
    pub outages: Vec<OutageReport>,
    /// What else was measured.
    pub figures: Vec<Figure>,
    /// What clients saw that ask by datagrams, if there were any.
    pub datagrams: Option<DatagramReport>,
    /// Latency while things were broken.
    pub latency: Latency,
    /// Latency in the undisturbed round before.
    pub control: Latency,
    /// The 99th percentile of the generator's own lateness, in milliseconds.
    pub generator_late_p99_ms: f64,
    /// What was done.
    pub faults: Vec<Fault>,
    /// The services' objectives.
    pub objectives: Vec<Objective>,
}

/// A time in which requests may fail, since below HTTP nobody stands in for what was struck. Times count
/// from the load's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct OutageReport {
    /// When it began.
    pub at_ms: u64,
    /// How long it may last.
    pub bar_ms: u64,
    /// Until the last request failed, or the last one was sent that did.
    pub lasted_ms: u64,
    /// Requests that failed within its bar.
    pub failed: u64,
}

/// A number that was measured.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Figure {
    /// Of what.
    pub what: String,
    /// In what.
    pub unit: &'static str,
    /// How much.
    pub value: f64,
    /// What it may be at most, if it is held against anything.
    pub bar: Option<f64>,
}

/// Percentiles in milliseconds, from the planned time to the end of the right answer.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Latency {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

/// A service's objective and what came of it while things were broken.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Objective {
    /// The service.
    pub service: String,
    /// The share of right answers that is promised, in parts per million.
    pub success_ppm: u32,
    /// The share of right answers.
    pub success_ppm_seen: u32,
    /// The 99th percentile that is promised.
    pub p99_ms: f64,
    /// The 99th percentile.
    pub p99_ms_seen: f64,
    /// The 99th percentile in the undisturbed round.
    pub p99_ms_control: f64,
}

/// Everything that a verdict on a scenario is made of.
pub(crate) struct Evidence {
    pub(crate) scenario: Scenario,
    pub(crate) control: Report,
    pub(crate) load: Report,
    pub(crate) faults: Vec<Fault>,
    pub(crate) strikes: Vec<Strike>,
    pub(crate) outages: Vec<Outage>,
    pub(crate) figures: Vec<Figure>,
    pub(crate) datagrams: Option<DatagramReport>,
    pub(crate) trouble: Option<Trouble>,
    /// By target, in order.
    pub(crate) slos: Vec<Option<Slo>>,
}

impl Evidence {
    /// What clients saw, and nothing that was done.
    pub(crate) fn new(scenario: Scenario, control: Report, load: Report) -> Self {
        Self {
            scenario,
            control,
            load,
            faults: Vec::new(),
            strikes: Vec::new(),
            outages: Vec::new(),
            figures: Vec::new(),
            datagrams: None,
            trouble: None,
            slos: Vec::new(),
        }
    }
}

impl Verdict {
    /// The one line that counts.
    pub fn summary(&self) -> String {
        let sum = |count: fn(&ScenarioReport) -> u64| self.scenarios.iter().map(count).sum::<u64>();
        let in_flight: usize = self
            .scenarios
            .iter()
            .map(|s| s.unsafe_in_flight.len())
            .sum();
        let (failed, sent) = (sum(|s| s.failed), sum(|s| s.sent));
        let mut line = format!(
            "{failed} failed of {sent}; {in_flight} unsafe requests were in flight on a killed \
             instance (listed)"
        );
        let excused = sum(|s| s.outages.iter().map(|outage| outage.failed).sum());
        if excused > 0 {
            line = format!("{line}; {excused} more failed within outages that were made");
        }
        let unsent = sum(|s| s.unsent);
        if unsent > 0 {
            line = format!("{line}; {unsent} more could not be sent in time");
        }
        line
    }
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            p50_ms: ms(histogram.value_at_quantile(0.5)),
            p99_ms: ms(histogram.value_at_quantile(0.99)),
            p999_ms: ms(histogram.value_at_quantile(0.999)),
            max_ms: ms(histogram.max()),
        }
    }
}

/// Makes the verdict on one scenario.
pub(crate) fn judge(evidence: Evidence) -> ScenarioReport {
    let Evidence {
        scenario,
        control,
        load,
        faults,
        strikes,
        outages,
        figures,
        datagrams,
        trouble,
        slos,
    } = evidence;
    // By so much this machine was late itself; bars are for the system.
    let slack = Duration::from_micros(load.lateness.max());
    let heard = hear(&load, &strikes, &outages, slack);
    let failed_by = counted(&control, &load, &heard);
    let failed: u64 = failed_by.values().sum();
    let unsent = control.unsent + load.unsent;
    let objectives = objectives(&control, &load, &heard, &slos);
    let outages = outage_reports(&load, &outages, &heard);
    let mut judgement = Judgement {
        outcome: Outcome::Holds,
        problems: Vec::new(),
    };
    judgement.on_counts(&control, &load, failed, unsent);
    for objective in &objectives {
        judgement.on_objective(objective);
    }
    judgement.on_forwarding(&outages, &figures, datagrams.as_ref(), slack);
    if let Some(trouble) = trouble {
        let of = if trouble.is_the_systems() {
            Outcome::DoesNotHold
        } else {
            Outcome::CouldNotRun
        };
        judgement.find(of, trouble.to_string());
    }
    let before = control
        .targets
        .iter()
        .flat_map(|target| target.failures.clone());
    ScenarioReport {
        scenario,
        outcome: judgement.outcome,
        problems: judgement.problems,
        planned: control.planned + load.planned,
        sent: control.sent() + load.sent(),
        unsent,
        ok: control.ok() + load.ok(),
        failed,
        failed_by,
        failures: before.chain(heard.failures).take(FAILURES_LISTED).collect(),
        unsafe_in_flight: heard.listed,
        outages,
        figures,
        datagrams,
        latency: Latency::of(&load.latency()),
        control: Latency::of(&control.latency()),
        generator_late_p99_ms: ms(load.lateness.value_at_quantile(0.99)),
        faults,
        objectives,
    }
}

/// The failures under load.
struct Heard {
    /// Those that are only listed.
    listed: Vec<Failure>,
    /// Those that an outage explains, by its place.
    excused: Vec<(usize, Failure)>,
    /// Those that stay failures.
    failures: Vec<Failure>,
}

impl Heard {
    /// What nobody could have answered.
    fn pardoned(&self) -> impl Iterator<Item = &Failure> {
        let excused = self.excused.iter().map(|(_, failure)| failure);
        self.listed.iter().chain(excused)
    }
}

/// Parts the failures under load into those that are only listed, those of outages and those that stay
/// failures.
fn hear(load: &Report, strikes: &[Strike], outages: &[Outage], slack: Duration) -> Heard {
    let pardoned = |failure: &Failure| {
        strikes
            .iter()
            .any(|strike| failure.was_in_flight_on(strike))
    };
    let suspects = load
        .targets
        .iter()
        .flat_map(|target| &target.lost_in_flight);
    let listed: Vec<Failure> = suspects
        .filter(|failure| pardoned(failure))
        .cloned()
        .collect();
    let mut heard = Heard {
        listed,
        excused: Vec::new(),
        failures: Vec::new(),
    };
    for failure in load.targets.iter().flat_map(|target| &target.failures) {
        if heard.listed.contains(failure) {
            continue;
        }
        // Who is answered wrongly was answered.
        let explains = |outage: &Outage| {
            let end = outage.begin + outage.bar + slack;
            !failure.kind.is_wrong_answer()
                && failure.overlaps(outage.begin, end)
                && decisive(outage, failure) <= end.as_micros()
        };
        match outages.iter().rposition(explains) {
            Some(place) => heard.excused.push((place, failure.clone())),
            None => heard.failures.push(failure.clone()),
        }
    }
    heard
}

/// The time of a failure, in microseconds, that has to lie within an outage.
fn decisive(outage: &Outage, failure: &Failure) -> u128 {
    u128::from(match outage.victims {
        Victims::ByEnd => failure.ended_us,
        Victims::BySending => failure.sent_us,
    })
}

/// The failed ones by kind, without what is pardoned.
fn counted(control: &Report, load: &Report, heard: &Heard) -> BTreeMap<String, u64> {
    let mut failed_by: BTreeMap<String, u64> = BTreeMap::new();
    for (kind, count) in control.failed().into_iter().chain(load.failed()) {
        *failed_by.entry(kind.to_string()).or_default() += count;
    }
    for pardoned in heard.pardoned() {
        let kind = pardoned.kind.to_string();
        let left = failed_by
            .get(&kind)
            .map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            failed_by.remove(&kind)
        } else {
            failed_by.insert(kind, left)
        };
    }
    failed_by
}

/// What came of each outage, also beyond its bar.
fn outage_reports(load: &Report, outages: &[Outage], heard: &Heard) -> Vec<OutageReport> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let of = |(place, outage): (usize, &Outage)| {
        let begin = outage.begin.as_micros();
        let next = outages.get(place + 1);
        let next = next.map_or(u128::MAX, |next| next.begin.as_micros());
        let all = load.targets.iter().flat_map(|target| &target.failures);
        let ends = all.map(|failure| decisive(outage, failure));
        let last = ends.filter(|end| (begin..next).contains(end)).max();
        let lasted = last.map_or(0, |last| (last - begin) / 1000);
        let failed = heard.excused.iter().filter(|(of, _)| *of == place);
        OutageReport {
            at_ms: millis(outage.begin),
            bar_ms: millis(outage.bar),
            lasted_ms: u64::try_from(lasted).unwrap_or(u64::MAX),
            failed: failed.count() as u64,
        }
    };
    outages.iter().enumerate().map(of).collect()
}

/// The share of right answers is that of the requests that anybody could have answered: what is
/// listed is told apart, and a kill each second is no measure of an ordinary month.
fn objectives(
    control: &Report,
    load: &Report,
    heard: &Heard,
    slos: &[Option<Slo>],
) -> Vec<Objective> {
    let excused = heard.excused.iter();
    let excused: HashSet<&str> = excused.map(|(_, one)| one.nonce.as_str()).collect();
    let mut objectives = Vec::new();
    for ((before, target), slo) in control.targets.iter().zip(&load.targets).zip(slos) {
        let Some(slo) = slo else { continue };
        let listed = target.lost_in_flight.iter();
        let listed = listed.filter(|failure| heard.listed.contains(failure));
        let of_outages = target.failures.iter();
        let of_outages = of_outages.filter(|failure| excused.contains(failure.nonce.as_str()));
        let lost = listed.count() + of_outages.count();
        let answerable = target.sent.saturating_sub(lost as u64);
        let seen = (target.ok * 1_000_000)
            .checked_div(answerable)
            .unwrap_or(1_000_000);
        objectives.push(Objective {
            service: target.name.clone(),
            success_ppm: slo.success_ppm,
            success_ppm_seen: u32::try_from(seen).unwrap_or(1_000_000),
            p99_ms: slo.p99.as_secs_f64() * 1000.0,
            p99_ms_seen: ms(target.latency.value_at_quantile(0.99)),
            p99_ms_control: ms(before.latency.value_at_quantile(0.99)),
        });
    }
    objectives
}

struct Judgement {
    outcome: Outcome,
    problems: Vec<String>,
}

impl Judgement {
    fn find(&mut self, outcome: Outcome, problem: String) {
        self.outcome = self.outcome.max(outcome);
        self.problems.push(problem);
    }

    fn on_counts(&mut self, control: &Report, load: &Report, failed: u64, unsent: u64) {
        if failed > 0 {
            self.find(Outcome::DoesNotHold, format!("{failed} requests failed"));
        }
        let wrong = |kind: &Kind| matches!(kind, Kind::Status { reason: Some(reason), .. } if reason == WRONG_SERVICE);
        let failed = load.failed();
        let wrong: u64 = failed
            .iter()
            .filter_map(|(kind, count)| wrong(kind).then_some(count))
            .sum();
        if wrong > 0 {
            let what = format!("{wrong} of them reached another service");
            self.find(Outcome::DoesNotHold, what);
        }
        let before: u64 = control.failed().values().sum();
        if before > 0 {
            let what = format!("{before} of them failed before anything was broken");
            self.find(Outcome::DoesNotHold, what);
        }
        if unsent > 0 {
            let what = format!(
                "{unsent} requests could not be sent in time: this machine is too slow for the rate"
            );
            self.find(Outcome::CouldNotRun, what);
        }
        if load.sent() == 0 {
            self.find(Outcome::CouldNotRun, "no request was sent".to_owned());
        }
    }

    fn on_forwarding(
        &mut self,
        outages: &[OutageReport],
        figures: &[Figure],
        datagrams: Option<&DatagramReport>,
        slack: Duration,
    ) {
        for outage in outages {
            if Duration::from_millis(outage.lasted_ms)
                > Duration::from_millis(outage.bar_ms) + slack
            {
                let what = format!(
                    "the outage at {} ms lasted {} ms, and not {} at most",
                    outage.at_ms, outage.lasted_ms, outage.bar_ms
                );
                self.find(Outcome::DoesNotHold, what);
            }
        }
        for figure in figures {
            let Some(bar) = figure.bar else { continue };
            if figure.value > bar + slack.as_secs_f64() * 1000.0 {
                let Figure {
                    what, unit, value, ..
                } = figure;
                let what = format!("{what}: {value:.0} {unit}, and not {bar:.0} at most");
                self.find(Outcome::DoesNotHold, what);
            }
        }
        if let Some(DatagramReport { wrong, asked, .. }) = datagrams.filter(|seen| seen.wrong > 0) {
            let what = format!("{wrong} of {asked} datagrams were answered by another service");
            self.find(Outcome::DoesNotHold, what);
        }
    }

    fn on_objective(&mut self, objective: &Objective) {
        let Objective {
            service,
            success_ppm,
            success_ppm_seen,
            ..
        } = objective;
        if success_ppm_seen < success_ppm {
            let (seen, wanted) = (percent(*success_ppm_seen), percent(*success_ppm));
            let what = format!("{service}: {seen} right answers, its objective is {wanted}");
            self.find(Outcome::DoesNotHold, what);
        }
        if objective.p99_ms_seen <= objective.p99_ms {
            return;
        }
        let (seen, wanted) = (objective.p99_ms_seen, objective.p99_ms);
        let what = format!("{service}: 99 % within {seen:.0} ms, its objective is {wanted:.0} ms");
        // What is slow without any fault is no effect of the faults.
        if objective.p99_ms_control > objective.p99_ms {
            let before = format!("{what}; it was missed before anything was broken, too");
            self.find(Outcome::CouldNotRun, before);
        } else {
            self.find(Outcome::DoesNotHold, what);
        }
    }
}

pub(crate) fn percent(ppm: u32) -> String {
    let digits = format!("{}.{:04}", ppm / 10_000, ppm % 10_000);
    format!("{} %", digits.trim_end_matches('0').trim_end_matches('.'))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "2^52 microseconds are 140 years"
)]
fn ms(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

#[cfg(test)]
mod tests;
