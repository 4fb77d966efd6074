//! What all benches share: how long they run, what they print, where their numbers go.

use super::machine;
use crate::tree;
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// How much of a bench is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Enough rounds for a median that counts.
    Full,
    /// Three short ones, to see whether the bench still works.
    Quick,
}

impl Extent {
    pub(crate) fn rounds(self) -> usize {
        match self {
            Self::Full => 5,
            Self::Quick => 3,
        }
    }

    /// One of two values.
    pub(crate) fn pick<T>(self, full: T, quick: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
        }
    }
}

/// Who reads what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    Person,
    /// Wants the last line alone.
    Program,
}

/// The run of one bench: its settings and the numbers that it has so far.
#[derive(Debug)]
pub(crate) struct Run {
    name: &'static str,
    pub(crate) extent: Extent,
    reader: Reader,
    values: Vec<(String, f64)>,
    /// The same bars with a feature switched off.
    red: Vec<(String, f64)>,
    missed: Vec<String>,
    raw: serde_json::Map<String, Value>,
}

impl Run {
    pub(crate) fn new(name: &'static str, extent: Extent, reader: Reader) -> Self {
        let (values, red, missed, raw) = Default::default();
        Self {
            name,
            extent,
            reader,
            values,
            red,
            missed,
            raw,
        }
    }

    /// Prints a line for people.
    pub(crate) fn say(&self, text: impl AsRef<str>) {
        if self.reader == Reader::Person {
            println!("{}", text.as_ref());
        }
    }

    /// Prints a table for people; the first row is its head.
    pub(crate) fn table(&self, rows: &[Vec<String>]) {
        for line in table(rows) {
            self.say(line);
        }
    }

    /// Prints the rival's configuration.
    pub(crate) fn show_file(&self, path: &str) -> Result<()> {
        let text = fs::read_to_string(tree::root().join(path))
            .with_context(|| format!("cannot read {path}"))?;
        self.say(format!("\n--- {path}"));
        self.say(text.trim_end());
        self.say("---\n");
        Ok(())
    }

    /// Notes a number that is only reported.
    pub(crate) fn value(&mut self, key: impl Into<String>, value: f64) {
        self.values.push((key.into(), value));
    }

    /// Notes what a bar's number is with a feature switched off, which the bar must not survive.
    pub(crate) fn red(&mut self, key: impl Into<String>, value: f64) {
        let key = key.into();
        self.say(format!("{key} with the feature off: {}", short(value)));
        self.red.push((key, value));
    }

    /// Notes a number that must not exceed its bar.
    pub(crate) fn at_most(&mut self, key: impl Into<String>, value: f64, bar: f64) {
        let key = key.into();
        self.value(key.as_str(), value);
        if value > bar || value.is_nan() {
            self.missed.push(format!(
                "{key} is {}, its bar is {}",
                short(value),
                short(bar)
            ));
        }
    }

    /// Notes a number that must reach its bar.
    pub(crate) fn at_least(&mut self, key: impl Into<String>, value: f64, bar: f64) {
        let key = key.into();
        self.value(key.as_str(), value);
        if value < bar || value.is_nan() {
            self.missed.push(format!(
                "{key} is {}, its bar is at least {}",
                short(value),
                short(bar)
            ));
        }
    }

    /// Notes that the run does not count, or that a control does not show what it has to.
    pub(crate) fn miss(&mut self, why: impl Into<String>) {
        self.missed.push(why.into());
    }

    /// Keeps what was measured in single rounds.
    pub(crate) fn raw(&mut self, key: &str, value: Value) {
        self.raw.insert(key.to_owned(), value);
    }

    /// Writes the raw rounds and prints the end; whether all bars hold.
    pub(crate) fn finish(self) -> Result<bool> {
        // One that measures nothing keeps its result in a form of its own.
        if !self.raw.is_empty() {
            let path = self.save()?;
            self.say(format!("\nraw rounds: {}", path.display()));
        }
        for why in &self.missed {
            self.say(format!("does not hold: {why}"));
        }
        println!("{}", self.summary());
        Ok(self.missed.is_empty())
    }

    fn summary(&self) -> Value {
        json!({
            "bench": self.name,
            "rounds": self.extent.rounds(),
            "values": as_object(&self.values),
            "ok": self.missed.is_empty(),
        })
    }

    /// Only a full run replaces the numbers that are kept with the code.
    fn save(&self) -> Result<PathBuf> {
        let dir = match self.extent {
            Extent::Full => tree::root().join("bench/results"),
            Extent::Quick => tree::root().join("target/bench"),
        };
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let path = dir.join(format!("{}.json", self.name));
        let whole = json!({
            "summary": self.summary(),
            "red": as_object(&self.red),
            "does_not_hold": self.missed,
            "machine": machine::describe(),
            "rounds": self.raw,
        });
        let text = serde_json::to_string_pretty(&whole)? + "\n";
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(relative(&path))
    }
}

fn as_object(numbers: &[(String, f64)]) -> serde_json::Map<String, Value> {
    let numbers = numbers.iter();
    numbers
        .map(|(key, value)| (key.clone(), json!(rounded(*value))))
        .collect()
}

fn relative(path: &Path) -> PathBuf {
    path.strip_prefix(tree::root()).unwrap_or(path).to_owned()
}

/// The middle one, or the mean of the two in the middle; not a number if there is none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

/// A number as people read it.
pub(crate) fn short(value: f64) -> String {
    let digits = match value.abs() {
        x if x >= 100.0 || x.fract() == 0.0 => 0,
        x if x >= 10.0 => 1,
        _ => 3,
    };
    format!("{value:.digits$}")
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, width))| {
                // The first column names the row; the others are numbers.
                if column == 0 {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(short(median([3.0, 1.0, 2.0])), "2");
        assert_eq!(short(median([4.0, 1.0, 2.0, 3.0])), "2.500");
        assert!(median([]).is_nan());
    }

    #[test]
    fn a_number_above_its_bar_and_one_that_is_none_do_not_hold() {
        for (value, holds) in [(1.0, true), (1.1, false), (f64::NAN, false)] {
            let mut run = Run::new("x", Extent::Quick, Reader::Program);
            run.at_most("key", value, 1.0);
            assert_eq!(run.summary()["ok"], holds, "{value}");
        }
    }

    #[test]
    fn the_summary_has_the_agreed_form() {
        let mut run = Run::new("x", Extent::Full, Reader::Program);
        run.value("key", 1.23456);
        let expected = json!({"bench": "x", "rounds": 5, "values": {"key": 1.235}, "ok": true});
        assert_eq!(run.summary(), expected);
    }

    #[test]
    fn names_stand_left_and_numbers_right() {
        let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        assert_eq!(
            table(&[row("", "ms"), row("ours", "1000")]),
            ["        ms", "ours  1000"]
        );
    }
}
