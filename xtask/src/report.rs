//! What happened to each test, read from the files that the runner and the tests leave.

use anyhow::{Context as _, Result};
use std::{collections::BTreeSet, fs, path::Path};

/// How many of the slowest tests are named.
const SLOWEST: usize = 10;

/// One run of all tests.
#[derive(Debug, Default)]
pub(crate) struct Report {
    cases: Vec<Case>,
    /// Lines `mainstay-skip: test: reason`, sorted.
    skips: BTreeSet<String>,
    /// The line in which the runner sums itself up.
    summary: String,
}

#[derive(Debug, Clone, PartialEq)]
struct Case {
    name: String,
    seconds: f64,
    failed: bool,
}

impl Report {
    /// Reads the runner's JUnit file and the file to which skipped tests were appended.
    pub(crate) fn read(junit: &Path, skips: &Path, summary: String) -> Result<Self> {
        let text = fs::read_to_string(junit)
            .with_context(|| format!("cannot read {}", junit.display()))?;
        // No test was skipped if the file is not there.
        let skipped = fs::read_to_string(skips).unwrap_or_default();
        let skips = skipped.lines().map(str::to_owned).collect();
        Ok(Self {
            cases: cases(&text),
            skips,
            summary,
        })
    }

    pub(crate) fn skips(&self) -> usize {
        self.skips.len()
    }

    /// Slowest tests, skips, and the counts on the last line.
    pub(crate) fn print(&self) {
        let mut slowest: Vec<&Case> = self.cases.iter().collect();
        slowest.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        println!("\nslowest tests:");
        for Case { name, seconds, .. } in slowest.iter().take(SLOWEST) {
            println!("{seconds:9.3} s  {name}");
        }
        println!("\nskipped tests: {}", self.skips.len());
        for skip in &self.skips {
            println!("  {skip}");
        }
        println!("\n{}\n{}", self.summary, self.counts());
    }

    fn counts(&self) -> String {
        let failed = self.cases.iter().filter(|case| case.failed).count();
        // A test that skips itself passes in the runner's eyes.
        let skipped = self.skips.len();
        let passed = (self.cases.len() - failed).saturating_sub(skipped);
        format!("{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// The test cases of a JUnit file as nextest writes it: one element per test, attributes in double quotes.
fn cases(junit: &str) -> Vec<Case> {
    let elements = junit.split("<testcase ").skip(1);
    elements
        .map(|element| {
            let head = element.split('>').next().unwrap_or_default();
            let body = if head.ends_with('/') { "" } else { element };
            let body = body.split("</testcase>").next().unwrap_or_default();
            Case {
                name: format!(
                    "{} {}",
                    attribute(head, "classname"),
                    attribute(head, "name")
                ),
                seconds: attribute(head, "time").parse().unwrap_or(0.0),
                failed: body.contains("<failure") || body.contains("<error"),
            }
        })
        .collect()
}

/// The value of an attribute; none of nextest's values contains a space before an attribute's name.
fn attribute<'a>(head: &'a str, name: &str) -> &'a str {
    let start = format!("{name}=\"");
    let found = head.strip_prefix(&start);
    let found = found.or_else(|| head.split_once(&format!(" {start}")).map(|(_, rest)| rest));
    found
        .and_then(|rest| rest.split('"').next())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const JUNIT: &str = r#"<testsuites><testsuite name="x">
        <testcase name="a::b" classname="x" timestamp="2026" time="0.500"/>
        <testcase name="slow" classname="x" timestamp="2026" time="12.000">
            <system-out>&lt;failure</system-out>
        </testcase>
        <testcase name="bad" classname="y::it" timestamp="2026" time="0.100">
            <failure type="test failure">no</failure>
        </testcase>
    </testsuite></testsuites>"#;

    #[test]
    fn cases_have_name_time_and_outcome() {
        let found = cases(JUNIT);
        let case = |name: &str, seconds, failed| Case {
            name: name.to_owned(),
            seconds,
            failed,
        };
        let expected = [
            case("x a::b", 0.5, false),
            case("x slow", 12.0, false),
            case("y::it bad", 0.1, true),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_test_that_skipped_itself_does_not_count_as_passed() {
        let skips = BTreeSet::from(["mainstay-skip: a::b: needs root".to_owned()]);
        let report = Report {
            cases: cases(JUNIT),
            skips,
            summary: String::new(),
        };
        assert_eq!(report.counts(), "1 passed, 1 failed, 1 skipped");
    }
}
