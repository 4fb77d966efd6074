//! The report for people.

use std::fmt::{self, Write as _};

use super::report::Report;
use crate::verdict::Outcome;

/// Of what the broker foretold so much is shown; `--json` has all.
const SHOWN: usize = 4;

/// Writes the report as text, without colours, ending with a newline.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    write(&mut text, report).expect("a string takes everything");
    text
}

fn write(text: &mut String, report: &Report) -> fmt::Result {
    let (outcome, promise) = match report.outcome {
        Outcome::Holds => ("ok", "HOLDS"),
        Outcome::DoesNotHold => ("FAILED", "DOES NOT HOLD"),
        Outcome::CouldNotRun => ("NOT PROVED", "COULD NOT BE PROVED"),
    };
    writeln!(
        text,
        "{}: {} messages a second, for {} s {}; a consumer takes {} ... {outcome}",
        report.scenario,
        report.rate,
        seconds(report.burst_ms),
        report.rate * super::plan::FACTOR,
        report.takes,
    )?;
    for problem in &report.problems {
        writeln!(text, "  ! {problem}")?;
    }
    writeln!(
        text,
        "  {} published, {} confirmed, {} delivered; {} lost, {} twice, {} out of order, {} left",
        report.published,
        report.confirmed,
        report.delivered,
        report.lost,
        report.twice,
        report.out_of_order,
        report.left
    )?;
    let empty = report.empty_after_ms.map_or_else(
        || "never empty".to_owned(),
        |after| format!("empty {} s after the burst", seconds(after)),
    );
    writeln!(
        text,
        "  backlog {} at its peak, {empty} (by the rates {}, and {} s)",
        report.peak,
        report.peak_by_rates,
        seconds(report.empty_after_ms_by_rates)
    )?;
    write_foretold(text, report)?;
    writeln!(
        text,
        "\n{promise}: {} lost, {} twice and {} out of order of {}",
        report.lost, report.twice, report.out_of_order, report.published
    )
}

fn write_foretold(text: &mut String, report: &Report) -> fmt::Result {
    if let Some(why) = &report.unasked {
        writeln!(text, "  the broker could not always be asked: {why}")?;
    }
    let Some(off) = report.foretold_off_percent else {
        return writeln!(
            text,
            "  the broker's seconds to empty could not be compared"
        );
    };
    let every = report.foretold.len().div_ceil(SHOWN).max(1);
    for one in report.foretold.iter().step_by(every) {
        let said = one
            .said_s
            .map_or_else(|| "never".to_owned(), |said| format!("{said:.1} s"));
        writeln!(
            text,
            "  at {:>5} s the broker said of {} messages: empty in {said}; it was {:.1} s",
            seconds(one.at_ms),
            one.messages,
            one.was_s
        )?;
    }
    writeln!(
        text,
        "  its seconds to empty were off by {off:.0} % (median)"
    )
}

/// With a tenth.
fn seconds(ms: u64) -> String {
    format!("{}.{}", ms / 1000, ms % 1000 / 100)
}
