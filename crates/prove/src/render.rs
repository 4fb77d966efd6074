//! The verdict for people who have never seen it.

use std::fmt::Write as _;

use crate::load::Failure;
use crate::verdict::{Figure, Latency, Outcome, ScenarioReport, Verdict, percent};

/// Faults that are told one by one; `--json` has all.
const FAULTS_SHOWN: usize = 8;

/// Failures and listed requests that are told one by one.
const FAILURES_SHOWN: usize = 5;

/// Writes the verdict as text, without colours, ending with a newline.
pub fn render(verdict: &Verdict) -> String {
    let mut text = String::new();
    for scenario in &verdict.scenarios {
        write_scenario(&mut text, scenario);
        text.push('\n');
    }
    for note in &verdict.notes {
        line(&mut text, &format!("Note: {note}"));
    }
    let promise = match verdict.outcome {
        Outcome::Holds => "HOLDS",
        Outcome::DoesNotHold => "DOES NOT HOLD",
        Outcome::CouldNotRun => "COULD NOT BE PROVED",
    };
    line(&mut text, &format!("{promise}: {}", verdict.summary()));
    text
}

fn seconds(ms: u64) -> String {
    format!("{}.{:02} s", ms / 1000, ms % 1000 / 10)
}

fn line(text: &mut String, content: &str) {
    text.push_str(content);
    text.push('\n');
}

fn write_scenario(text: &mut String, report: &ScenarioReport) {
    let outcome = match report.outcome {
        Outcome::Holds => "ok",
        Outcome::DoesNotHold => "FAILED",
        Outcome::CouldNotRun => "NOT PROVED",
    };
    let scenario = report.scenario;
    line(
        text,
        &format!("{scenario}: {} ... {outcome}", scenario.describe()),
    );
    let (failed, sent) = (report.failed, report.sent);
    line(
        text,
        &format!("  {failed} of {sent} requests failed, counted at the client"),
    );
    for (kind, count) in &report.failed_by {
        line(text, &format!("    {count} x {kind}"));
    }
    for problem in &report.problems {
        line(text, &format!("  ! {problem}"));
    }
    write_requests(text, "first failures", &report.failures);
    write_requests(
        text,
        "unsafe requests in flight on an instance when it was killed; nobody may repeat them",
        &report.unsafe_in_flight,
    );
    line(
        text,
        "  latency in ms            half of all      99 %    99.9 %   slowest",
    );
    write_latency(text, "undisturbed", report.control);
    write_latency(text, "with faults", report.latency);
    for objective in &report.objectives {
        let line_of = format!(
            "  objective of {}: {} right answers (seen {}), 99 % within {:.0} ms (seen {:.0} ms)",
            objective.service,
            percent(objective.success_ppm),
            percent(objective.success_ppm_seen),
            objective.p99_ms,
            objective.p99_ms_seen,
        );
        line(text, &line_of);
    }
    write_forwarding(text, report);
    for fault in report.faults.iter().take(FAULTS_SHOWN) {
        let whole = fault.whole_after_ms.map_or_else(
            || "never whole again".to_owned(),
            |ms| format!("all ready again after {}", seconds(ms)),
        );
        line(
            text,
            &format!("  at {:>7}  {}; {whole}", seconds(fault.at_ms), fault.what),
        );
    }
    write_rest(text, report.faults.len(), FAULTS_SHOWN);
}

/// What only scenarios of forwarding have.
fn write_forwarding(text: &mut String, report: &ScenarioReport) {
    for outage in report.outages.iter().take(FAULTS_SHOWN) {
        let line_of = format!(
            "  outage at {}: {} requests failed, the last after {} ms (at most {} ms)",
            seconds(outage.at_ms),
            outage.failed,
            outage.lasted_ms,
            outage.bar_ms
        );
        line(text, &line_of);
    }
    write_rest(text, report.outages.len(), FAULTS_SHOWN);
    if let Some(seen) = report.datagrams {
        let line_of = format!(
            "  datagrams: {} of {} answered, {} by another service",
            seen.answered, seen.asked, seen.wrong
        );
        line(text, &line_of);
    }
    for figure in report.figures.iter().take(FAULTS_SHOWN) {
        let bar = figure
            .bar
            .map_or_else(String::new, |bar| format!(" (at most {bar:.0})"));
        let Figure {
            what, unit, value, ..
        } = figure;
        line(text, &format!("  {what}: {value:.1} {unit}{bar}"));
    }
    write_rest(text, report.figures.len(), FAULTS_SHOWN);
}

fn write_latency(text: &mut String, name: &str, latency: Latency) {
    let Latency {
        p50_ms,
        p99_ms,
        p999_ms,
        max_ms,
    } = latency;
    writeln!(
        text,
        "    {name:<22}{p50_ms:>10.1}{p99_ms:>10.1}{p999_ms:>10.1}{max_ms:>10.1}"
    )
    .expect("writing to a string cannot fail");
}

fn write_requests(text: &mut String, title: &str, requests: &[Failure]) {
    if requests.is_empty() {
        return;
    }
    line(text, &format!("  {title}:"));
    for request in requests.iter().take(FAILURES_SHOWN) {
        let Failure {
            method,
            path,
            nonce,
            kind,
            ..
        } = request;
        let instance = request.instance.as_deref().unwrap_or("no instance named");
        let (from, to) = (
            seconds(request.planned_ms),
            seconds(request.ended_us / 1000),
        );
        let told = format!("{method} {path} ({nonce}) from {from} to {to}: {kind}, {instance}");
        line(text, &format!("    {told}"));
    }
    write_rest(text, requests.len(), FAILURES_SHOWN);
}

fn write_rest(text: &mut String, all: usize, shown: usize) {
    if all > shown {
        line(
            text,
            &format!("    and {} more (--json lists them)", all - shown),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Fault, Scenario};
    use std::collections::BTreeMap;

    #[test]
    fn a_stranger_reads_what_was_broken_what_it_cost_and_whether_that_is_good() {
        let latency = Latency {
            p50_ms: 2.1,
            p99_ms: 4.0,
            p999_ms: 9.0,
            max_ms: 31.0,
        };
        let scenario = ScenarioReport {
            scenario: Scenario::Kill,
            outcome: Outcome::Holds,
            problems: Vec::new(),
            planned: 9000,
            sent: 9000,
            unsent: 0,
            ok: 9000,
            failed: 0,
            failed_by: BTreeMap::new(),
            failures: Vec::new(),
            unsafe_in_flight: Vec::new(),
            outages: Vec::new(),
            figures: Vec::new(),
            datagrams: None,
            latency,
            control: latency,
            generator_late_p99_ms: 0.3,
            faults: vec![Fault {
                at_ms: 1000,
                what: "SIGKILL of orders-1 (process 77)".into(),
                whole_after_ms: Some(1250),
            }],
            objectives: Vec::new(),
        };
        let verdict = Verdict {
            outcome: Outcome::Holds,
            rate: 600,
            seed: 1,
            notes: Vec::new(),
            scenarios: vec![scenario],
        };
        let expected = "\
kill: instances are killed without warning, one after another ... ok
  0 of 9000 requests failed, counted at the client
  latency in ms            half of all      99 %    99.9 %   slowest
    undisturbed                  2.1       4.0       9.0      31.0
    with faults                  2.1       4.0       9.0      31.0
  at  1.00 s  SIGKILL of orders-1 (process 77); all ready again after 1.25 s

HOLDS: 0 failed of 9000; 0 unsafe requests were in flight on a killed instance (listed)
";
        assert_eq!(render(&verdict), expected);
    }
}
