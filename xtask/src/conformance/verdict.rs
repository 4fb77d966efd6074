//! Which tests need a broker, and how many of them pass with one.

use super::suite::Outcomes;
use std::fmt;

/// What a suite came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Tests that ran, those without need of a broker among them.
    pub(super) all: usize,
    /// Tests that fail without a broker, or fail with one.
    pub(super) need: usize,
    /// Of these.
    pub(super) passed: usize,
    /// The others.
    pub(super) failed: Vec<String>,
}

impl Verdict {
    /// Compares a run without a broker with one that has it. A test that a run without one did not get to needs one.
    pub(super) fn new(without: &Outcomes, with: &Outcomes) -> Self {
        let mut names: Vec<&String> = without.keys().chain(with.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let passed = |outcomes: &Outcomes, name: &String| outcomes.get(name) == Some(&true);
        let all = names.len();
        names.retain(|name| !(passed(without, name) && passed(with, name)));
        let need = names.len();
        names.retain(|name| !passed(with, name));
        Self {
            all,
            need,
            passed: need - names.len(),
            failed: names.into_iter().cloned().collect(),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            all, need, passed, ..
        } = self;
        write!(
            f,
            "{passed} of {need} that need a broker passed ({all} tests in all)"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_passes_without_a_broker_needs_none_and_one_that_vanishes_has_failed() {
        let outcomes = |list: &[(&str, bool)]| -> Outcomes {
            let owned = list
                .iter()
                .map(|(name, passed)| ((*name).to_owned(), *passed));
            owned.collect()
        };
        let without = outcomes(&[("pure", true), ("needs", false), ("gone", false)]);
        let with = outcomes(&[
            ("pure", true),
            ("needs", true),
            ("late", true),
            ("bad", false),
        ]);
        let verdict = Verdict::new(&without, &with);
        assert_eq!((verdict.all, verdict.need, verdict.passed), (5, 4, 2));
        assert_eq!(verdict.failed, ["bad", "gone"]);
    }
}
