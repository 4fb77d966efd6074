//! What is wrong with a file: each problem with its place, its key, what was expected, what to do.

use std::fmt;
use std::ops::Range;

use serde::Serialize;
use serde::ser::Serializer;

/// All problems of one file, in its order. Shown by [`FileProblems::render`]; as JSON it is a list
/// of objects with `file`, `line`, `column`, `key`, `severity`, `code`, `message`, `help`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProblems {
    pub(crate) name: String,
    pub(crate) text: String,
    problems: Vec<Problem>,
    uncounted: usize,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether the file is refused for it.
    pub severity: Severity,
    /// A stable word for programs.
    pub code: Code,
    /// The path of the key, `service.orders.health.every`; empty for the file as a whole.
    pub key: String,
    /// Where; `None` when the file could not be read.
    pub place: Option<Place>,
    /// What was found and what was expected.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// A second place that belongs to it, as for something that was said twice.
    pub also: Option<Place>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The line, counted from 1.
    pub line: usize,
    /// The character in the line, counted from 1.
    pub column: usize,
    /// The bytes of the text, without its byte order mark.
    pub span: Range<usize>,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is taken.
    Warning,
}

/// The kinds of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The file cannot be read.
    Unreadable,
    /// It is longer, or holds more, than it may.
    TooMuch,
    /// It is not UTF-8.
    NotUtf8,
    /// It is not TOML.
    Syntax,
    /// A key stands twice in one table.
    DuplicateKey,
    /// No such key is known here.
    UnknownKey,
    /// The key is known and cannot be used yet.
    NotInThisVersion,
    /// A key that must be there is not.
    MissingKey,
    /// The file declares no service.
    NoService,
    /// The value has the wrong type.
    WrongType,
    /// The value has the right type and cannot be.
    Value,
    /// A `${VARIABLE}` cannot be filled in.
    Variable,
    /// A `{place}` cannot be filled in.
    Template,
    /// Another service is named that cannot be addressed.
    UnknownService,
    /// Two services claim the same.
    Conflict,
    /// The program is not there (a warning).
    ProgramMissing,
    /// The directory is not there (a warning).
    DirectoryMissing,
}

impl Code {
    /// The word as it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::TooMuch => "too_much",
            Self::NotUtf8 => "not_utf8",
            Self::Syntax => "syntax",
            Self::DuplicateKey => "duplicate_key",
            Self::UnknownKey => "unknown_key",
            Self::NotInThisVersion => "not_in_this_version",
            Self::MissingKey => "missing_key",
            Self::NoService => "no_service",
            Self::WrongType => "wrong_type",
            Self::Value => "value",
            Self::Variable => "variable",
            Self::Template => "template",
            Self::UnknownService => "unknown_service",
            Self::Conflict => "conflict",
            Self::ProgramMissing => "program_missing",
            Self::DirectoryMissing => "directory_missing",
        }
    }
}

impl FileProblems {
    /// Takes what was found, and how many more were only counted.
    pub(crate) fn new(
        name: String,
        text: String,
        mut problems: Vec<Problem>,
        uncounted: usize,
    ) -> Self {
        problems.sort_by_key(|problem| problem.place.as_ref().map(|place| place.span.start));
        Self {
            name,
            text,
            problems,
            uncounted,
        }
    }

    /// One problem of a file of which there is no text to show.
    pub(crate) fn unreadable(name: &str, code: Code, message: String, help: &str) -> Self {
        let problem = Problem {
            severity: Severity::Error,
            code,
            key: String::new(),
            place: None,
            message,
            help: Some(help.to_owned()),
            also: None,
        };
        Self::new(name.to_owned(), String::new(), vec![problem], 0)
    }

    /// What the file is called.
    pub fn file(&self) -> &str {
        &self.name
    }

    /// The problems in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// How many there are, with those that were only counted.
    pub fn count(&self) -> usize {
        self.problems.len() + self.uncounted
    }
}

/// One element of the list that programs read.
#[derive(Serialize)]
struct Listed<'a> {
    file: &'a str,
    line: Option<usize>,
    column: Option<usize>,
    key: &'a str,
    severity: Severity,
    code: Code,
    message: &'a str,
    help: Option<&'a str>,
}

impl Serialize for FileProblems {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.problems.iter().map(|problem| Listed {
            file: &self.name,
            line: problem.place.as_ref().map(|place| place.line),
            column: problem.place.as_ref().map(|place| place.column),
            key: &problem.key,
            severity: problem.severity,
            code: problem.code,
            message: &problem.message,
            help: problem.help.as_deref(),
        }))
    }
}

impl fmt::Display for FileProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(super::Look::Plain).trim_end())
    }
}

impl std::error::Error for FileProblems {}
