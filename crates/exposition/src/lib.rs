//! Prometheus' text format, version 0.0.4, written: names, labels, escapes and histograms, once for all processes.
//!
//! It counts nothing. Counters live where their processes have them, in cells of one thread or in the kernel; the libraries for
//! this format want to own theirs, with a lock or a contended cell where something is counted. It reads nothing, either.
//!
//! Start reading at [`families!`], by which a process declares what it shows, then [`Text`].
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{Arguments, Display, Write as _};

/// The type of what is written here, as HTTP has it.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How a value behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// It only grows, until what it counts is made anew.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Buckets that only grow.
    Histogram,
}

impl Type {
    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// All values of one name.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// The name.
    pub name: &'static str,
    /// How its values behave.
    pub kind: Type,
    /// The names of their labels, in order.
    pub labels: &'static [&'static str],
    /// A sentence, without its full stop.
    pub help: &'static str,
}

impl Family {
    /// The line of a table in the documentation.
    pub fn row(&self) -> String {
        let labels: Vec<String> = self
            .labels
            .iter()
            .map(|label| alloc::format!("`{label}`"))
            .collect();
        let (name, kind, help) = (self.name, self.kind.word(), self.help);
        alloc::format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", "))
    }
}

/// The head of a table of [`Family::row`]s.
pub const TABLE_HEAD: &str = "| Name | Type | Labels | Meaning |\n|---|---|---|---|\n";

/// Declares a constant for each family, and `FAMILIES`, all of them in this order, for tests:
///
/// ```
/// mainstay_exposition::families! {
///     OPEN = Gauge "app_connections" ["listen"] "Connections that are open";
/// }
/// # assert_eq!(OPEN.labels, ["listen"]);
/// ```
#[macro_export]
macro_rules! families {
    ($($id:ident = $kind:ident $name:literal [$($label:literal)*] $help:literal;)*) => {
        $(const $id: $crate::Family = $crate::Family {
            name: $name,
            kind: $crate::Type::$kind,
            labels: &[$($label),*],
            help: $help,
        };)*

        /// Every family, in the order in which they are declared.
        #[cfg(test)]
        pub(crate) const FAMILIES: &[&$crate::Family] = &[$(&$id),*];
    };
}

/// How the sentences of help end. Collectors compare them with those that they had, so that a process keeps its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HelpEnds {
    /// With a full stop.
    Stopped,
    /// Bare.
    Bare,
}

/// Of a histogram, what is written: the counts up to each bound, by the bound's text, and what all together are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets<'a, S> {
    /// Bounds from the lowest, with all that is below each; without infinity.
    pub cumulative: Vec<(&'a str, u64)>,
    /// How many there are.
    pub count: u64,
    /// Their sum.
    pub sum: S,
}

/// A text that grows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    text: String,
    ends: HelpEnds,
}

impl Text {
    /// An empty one with room for so many bytes.
    pub fn new(ends: HelpEnds, capacity: usize) -> Self {
        let text = String::with_capacity(capacity);
        Self { text, ends }
    }

    /// All that was written.
    pub fn into_string(self) -> String {
        self.text
    }

    /// The head of a family, once before its values.
    pub fn begin(&mut self, family: &Family) {
        let Family {
            name, kind, help, ..
        } = family;
        let (kind, stop) = match self.ends {
            HelpEnds::Stopped => (kind.word(), "."),
            HelpEnds::Bare => (kind.word(), ""),
        };
        self.push(format_args!(
            "# HELP {name} {help}{stop}\n# TYPE {name} {kind}\n"
        ));
    }

    /// A value; `labels` are the values of the family's labels.
    pub fn value(&mut self, family: &Family, labels: &[&str], value: impl Display) {
        self.text.push_str(family.name);
        self.labels(family, labels, None);
        self.push(format_args!(" {value}\n"));
    }

    /// A family with one value, which has no labels.
    pub fn one(&mut self, family: &Family, value: impl Display) {
        self.begin(family);
        self.value(family, &[], value);
    }

    /// A family with its values; nothing if it has none.
    pub fn all<'l, const N: usize>(
        &mut self,
        family: &Family,
        values: impl IntoIterator<Item = ([&'l str; N], impl Display)>,
    ) {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return;
        }
        self.begin(family);
        for (labels, value) in values {
            self.value(family, &labels, value);
        }
    }

    /// A family with one value per thing, which has these labels.
    pub fn each<'t, T>(
        &mut self,
        family: &Family,
        things: &'t [T],
        of: impl Fn(&'t T) -> (Vec<&'t str>, u64),
    ) {
        self.begin(family);
        for thing in things {
            let (labels, value) = of(thing);
            self.value(family, &labels, value);
        }
    }

    /// A family with several values per thing; their words are the last label.
    pub fn each_word<'t, T>(
        &mut self,
        family: &Family,
        things: &'t [T],
        of: impl Fn(&'t T) -> (Vec<&'t str>, Vec<(&'static str, u64)>),
    ) {
        self.begin(family);
        for thing in things {
            let (mut labels, values) = of(thing);
            for (word, value) in values {
                labels.push(word);
                self.value(family, &labels, value);
                labels.pop();
            }
        }
    }

    /// A histogram with these labels.
    pub fn histogram<S: Display>(
        &mut self,
        family: &Family,
        labels: &[&str],
        buckets: &Buckets<'_, S>,
    ) {
        let name = family.name;
        let Buckets {
            cumulative,
            count,
            sum,
        } = buckets;
        let bounds = cumulative.iter().copied().chain([("+Inf", *count)]);
        for (bound, below) in bounds {
            self.push(format_args!("{name}_bucket"));
            self.labels(family, labels, Some(bound));
            self.push(format_args!(" {below}\n"));
        }
        self.push(format_args!("{name}_sum"));
        self.labels(family, labels, None);
        self.push(format_args!(" {sum}\n{name}_count"));
        self.labels(family, labels, None);
        self.push(format_args!(" {count}\n"));
    }

    fn labels(&mut self, family: &Family, values: &[&str], bound: Option<&str>) {
        debug_assert_eq!(family.labels.len(), values.len(), "{}", family.name);
        let pairs = family.labels.iter().copied().zip(values.iter().copied());
        let mut separator = '{';
        for (name, value) in pairs.chain(bound.map(|bound| ("le", bound))) {
            self.push(format_args!("{separator}{name}=\""));
            self.escape(value);
            self.text.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
    }

    /// A label may hold anything: what people call things, and what clients do.
    fn escape(&mut self, value: &str) {
        for part in value.split_inclusive(['\\', '"', '\n']) {
            let special = part.ends_with(['\\', '"', '\n']);
            let (plain, last) = part.split_at(part.len() - usize::from(special));
            self.text.push_str(plain);
            self.text.push_str(match last {
                "\\" => "\\\\",
                "\"" => "\\\"",
                "\n" => "\\n",
                other => other,
            });
        }
    }

    fn push(&mut self, text: Arguments<'_>) {
        self.text
            .write_fmt(text)
            .expect("writing to memory cannot fail");
    }
}

/// A number that may be infinite.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Real(pub f64);

impl Display for Real {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self(value) = self;
        if value.is_nan() {
            f.write_str("NaN")
        } else if value.is_infinite() {
            f.write_str(if *value > 0.0 { "+Inf" } else { "-Inf" })
        } else {
            value.fmt(f)
        }
    }
}

/// Milliseconds, written as seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds {
    /// So many milliseconds.
    pub ms: u64,
}

impl Display for Seconds {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{:03}", self.ms / 1000, self.ms % 1000)
    }
}
