//! Problems as people see them: with the line of the file on a terminal, one line each elsewhere.

use std::fmt;
use std::io::IsTerminal;
use std::sync::Arc;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError,
    MietteSpanContents, SourceCode, SourceSpan, SpanContents,
};

use super::limits::{PROBLEMS_SHOWN_MAX, SHOWN_LINE_LEN_MAX};
use super::problem::{FileProblems, Place, Problem, Severity};

/// The width to which messages are wrapped.
const WIDTH: usize = 100;

/// How problems are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// With the line of the file and colours.
    Colours,
    /// With the line of the file.
    Graphical,
    /// `FILE:LINE:COLUMN: error[CODE]: KEY: MESSAGE`, as editors read it.
    Plain,
}

impl Look {
    /// What fits `stream`: plain unless it is a terminal, colours unless `NO_COLOR` is set.
    pub fn of(stream: &impl IsTerminal) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        match (stream.is_terminal(), no_color) {
            (false, _) => Self::Plain,
            (true, true) => Self::Graphical,
            (true, false) => Self::Colours,
        }
    }
}

impl FileProblems {
    /// All problems as text, with their number at the end.
    pub fn render(&self, look: Look) -> String {
        let mut out = String::new();
        let text = Arc::new(printable(&self.text));
        for problem in self.problems().iter().take(PROBLEMS_SHOWN_MAX) {
            let drawn = match look {
                Look::Plain => None,
                Look::Colours => self.drawn(problem, &text, GraphicalTheme::unicode()),
                Look::Graphical => self.drawn(problem, &text, GraphicalTheme::unicode_nocolor()),
            };
            out.push_str(&drawn.unwrap_or_else(|| self.plain(problem)));
        }
        let (count, shown) = (self.count(), self.problems().len().min(PROBLEMS_SHOWN_MAX));
        if count > shown {
            line(&mut out, &format!("and {} more", count - shown));
        }
        let warnings = self
            .problems()
            .iter()
            .all(|p| p.severity == Severity::Warning);
        let noun = match (warnings, count) {
            (true, 1) => "warning",
            (true, _) => "warnings",
            (false, 1) => "problem",
            (false, _) => "problems",
        };
        line(&mut out, &format!("{}: {count} {noun}", self.file()));
        out
    }

    /// `FILE:LINE:COLUMN`, as far as there is one.
    fn location(&self, problem: &Problem) -> String {
        match &problem.place {
            Some(place) => format!("{}:{}:{}", self.name, place.line, place.column),
            None => self.name.clone(),
        }
    }

    fn plain(&self, problem: &Problem) -> String {
        let severity = match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let (location, code) = (self.location(problem), problem.code.as_str());
        let mut out = format!("{location}: {severity}[{code}]: {}\n", message(problem));
        if let Some(help) = &problem.help {
            line(&mut out, &format!("  help: {help}"));
        }
        out
    }

    /// `None`: there is no line to show, or it is too long.
    fn drawn(
        &self,
        problem: &Problem,
        text: &Arc<String>,
        theme: GraphicalTheme,
    ) -> Option<String> {
        let place = problem.place.as_ref()?;
        let places = std::iter::once(place).chain(&problem.also);
        let mut labels = Vec::new();
        for (index, place) in places.enumerate() {
            let line = line_of(text, place)?;
            // Only the first line of what spans several is marked.
            let len = place
                .span
                .len()
                .min(line.len() - (place.span.start - line.start))
                .max(1);
            let span = (place.span.start.min(text.len().checked_sub(1)?), len);
            labels.push(match index {
                0 => LabeledSpan::new_primary_with_span(None, span),
                _ => LabeledSpan::new_with_span(Some("already here".to_owned()), span),
            });
        }
        let shown = Shown {
            message: message(problem),
            severity: match problem.severity {
                Severity::Error => miette::Severity::Error,
                Severity::Warning => miette::Severity::Warning,
            },
            help: problem.help.as_deref(),
            labels,
            source: WholeLines {
                file: self.name.clone(),
                text: Arc::clone(text),
            },
        };
        let mut out = String::new();
        GraphicalReportHandler::new_themed(theme)
            .with_width(WIDTH)
            .without_primary_span_start()
            .render_report(&mut out, &shown)
            .ok()?;
        out.push('\n');
        Some(out)
    }
}

/// The text, shown by whole lines and never more of them than a span touches: the neighbours of a
/// wrong key say little, and a screen should hold several problems.
struct WholeLines {
    file: String,
    text: Arc<String>,
}

impl SourceCode for WholeLines {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        _context_lines_before: usize,
        _context_lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let text = self.text.as_bytes();
        let (from, to) = (span.offset(), span.offset() + span.len());
        let (Some(before), Some(inside)) = (text.get(..from), text.get(from..to)) else {
            return Err(MietteError::OutOfBounds);
        };
        let newline = |b: &u8| *b == b'\n';
        let start = before.iter().rposition(newline).map_or(0, |at| at + 1);
        // A span that ends with its line's end is not continued on the next line.
        let end = to - usize::from(inside.last() == Some(&b'\n'));
        let end = text[end..]
            .iter()
            .position(newline)
            .map_or(text.len(), |at| end + at);
        let column = self
            .text
            .get(start..from)
            .map_or(0, |typed| typed.chars().count());
        let count = |bytes: &[u8]| bytes.iter().filter(|b| newline(b)).count();
        Ok(Box::new(MietteSpanContents::new_named(
            format!("{}:{}:{}", self.file, count(before) + 1, column + 1),
            &text[start..end],
            (start, end - start).into(),
            count(before),
            0,
            count(&text[start..end]) + 1,
        )))
    }
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn message(problem: &Problem) -> String {
    match problem.key.as_str() {
        "" => problem.message.clone(),
        key => format!("{key}: {}", problem.message),
    }
}

/// The bytes of the line in which a place begins; `None` if it is too long to be shown.
fn line_of(text: &str, place: &Place) -> Option<std::ops::Range<usize>> {
    let start = text[..place.span.start].rfind('\n').map_or(0, |at| at + 1);
    let len = text[start..].find('\n').unwrap_or(text.len() - start);
    (len <= SHOWN_LINE_LEN_MAX).then_some(start..start + len)
}

/// Control characters, and those that turn the direction of writing: printed, they would move the
/// terminal or show something else than what stands in the file.
pub(super) fn moves_terminal(c: char) -> bool {
    let turns =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns
}

/// The text with nothing in it that moves a terminal, byte for byte as long as before.
fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => printable.push(c),
            '\r' => printable.push(' '),
            _ if moves_terminal(c) => {
                printable.extend(std::iter::repeat_n('?', c.len_utf8()));
            }
            _ => printable.push(c),
        }
    }
    printable
}

/// A problem as miette takes it.
struct Shown<'a> {
    message: String,
    severity: miette::Severity,
    help: Option<&'a str>,
    labels: Vec<LabeledSpan>,
    source: WholeLines,
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(self.severity)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help
            .map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }
}
