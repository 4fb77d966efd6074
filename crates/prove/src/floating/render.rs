//! The verdict for people.

use std::fmt::{self, Write as _};

use super::report::{Report, Verdict};
use crate::verdict::Outcome;

/// Kinds of failures that are told for each kind of clients; `--json` has all.
const KINDS_SHOWN: usize = 4;

/// Writes the verdict as text, without colours, ending with a newline.
pub fn render(verdict: &Verdict) -> String {
    let mut text = String::new();
    write(&mut text, verdict).expect("a string takes everything");
    text
}

fn write(text: &mut String, verdict: &Verdict) -> fmt::Result {
    for report in &verdict.scenarios {
        write_scenario(text, report)?;
        writeln!(text)?;
    }
    let promise = match verdict.outcome {
        Outcome::Holds => "HOLDS",
        Outcome::DoesNotHold => "DOES NOT HOLD",
        Outcome::CouldNotRun => "COULD NOT BE PROVED",
    };
    let clients = || verdict.scenarios.iter().flat_map(|report| &report.clients);
    let asked: u64 = clients().map(|saw| saw.asked).sum();
    let failed: u64 = clients().map(|saw| saw.failed).sum();
    let otherwise: u64 = clients().map(|saw| saw.failed_otherwise).sum();
    writeln!(
        text,
        "{promise}: {failed} failed of {asked}, {otherwise} of them at no outage that is allowed"
    )
}

fn seconds(ms: u64) -> String {
    format!("{:>3}.{:03} s", ms / 1000, ms % 1000)
}

fn write_scenario(text: &mut String, report: &Report) -> fmt::Result {
    let outcome = match report.outcome {
        Outcome::Holds => "ok",
        Outcome::DoesNotHold => "FAILED",
        Outcome::CouldNotRun => "NOT PROVED",
    };
    let scenario = report.scenario;
    writeln!(text, "{scenario}: {} ... {outcome}", scenario.describe())?;
    for problem in &report.problems {
        writeln!(text, "  ! {problem}")?;
    }
    writeln!(
        text,
        "  no new connection was served for {} ms (undisturbed {} ms; {} ms more are the bar)",
        report.outage_ms, report.outage_control_ms, report.outage_bar_ms
    )?;
    for saw in &report.clients {
        let kind = saw.kind.describe();
        write!(
            text,
            "  {kind:<18} {} of {} failed, slowest answer {} ms",
            saw.failed, saw.asked, saw.slowest_ms
        )?;
        if saw.sessions_ended > 0 {
            write!(text, ", {} sessions ended", saw.sessions_ended)?;
        }
        writeln!(text)?;
        for (why, count) in saw.failed_by.iter().take(KINDS_SHOWN) {
            writeln!(text, "    {count} x {why}")?;
        }
    }
    for done in &report.done {
        writeln!(text, "  at {}  {}", seconds(done.at_ms), done.what)?;
    }
    for change in &report.moves {
        let state = change.state.to_uppercase();
        let at = seconds(change.at_ms);
        writeln!(
            text,
            "  at {at}  node {}: {state}: {}",
            change.node, change.why
        )?;
    }
    Ok(())
}
