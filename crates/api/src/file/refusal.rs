//! The words with which something is refused: what was found, where it stands, why not.

use std::ops::Range;

use toml::de::DeValue;

use super::problem::{Code, Place};
use super::render::moves_terminal;

/// The longest piece of what was typed that a message repeats, in characters.
const QUOTED_LEN_MAX: usize = 60;

/// A key and where it, or its value, stands.
#[derive(Debug, Clone)]
pub(crate) struct At {
    pub(crate) key: String,
    pub(crate) place: Place,
}

/// Why something is refused.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
    pub(crate) also: Option<Place>,
}

impl Refused {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            help: None,
            also: None,
        }
    }

    /// The type is right, the value is not.
    pub(crate) fn value(message: impl Into<String>) -> Self {
        Self::new(Code::Value, message)
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn also(mut self, at: &At) -> Self {
        self.also = Some(at.place.clone());
        self
    }
}

/// A name from the file as it stands in a key path.
pub(crate) fn key_shown(name: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if !name.is_empty() && name.len() <= QUOTED_LEN_MAX && name.bytes().all(bare) {
        name.to_owned()
    } else {
        format!("\"{}\"", shown(name))
    }
}

/// A text from the file for a message: in backticks, on one line, nothing that moves a terminal.
pub(crate) fn quoted(text: &str) -> String {
    format!("`{}`", shown(text))
}

fn shown(text: &str) -> String {
    let short: String = text.chars().take(QUOTED_LEN_MAX).collect();
    let mut shown = escaped(&short);
    if text.chars().nth(QUOTED_LEN_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// The text with what moves a terminal written as `\u{..}`.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if moves_terminal(c) {
            escaped.extend(c.escape_unicode());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// A value as a message names it.
pub(crate) fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text {}", quoted(text)),
        DeValue::Integer(number) => format!("the number {}", quoted(&number.to_string())),
        DeValue::Float(number) => format!("the number {}", quoted(number.as_str())),
        DeValue::Boolean(value) => format!("`{value}`"),
        DeValue::Datetime(date) => format!("the date `{date}`"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// Bytes between two known counts of characters.
const BLOCK: usize = 1024;

/// Where the lines of a text begin, and how many characters stand before each of its blocks: the
/// file may be one long line, and finding a column must not cost its length each time.
pub(crate) struct Lines<'a> {
    pub(crate) text: &'a str,
    starts: Vec<usize>,
    characters: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        let mut before = 0;
        let blocks = text.as_bytes().chunks(BLOCK).map(|block| {
            before += characters(block);
            before
        });
        Self {
            text,
            starts: std::iter::once(0).chain(ends).collect(),
            characters: std::iter::once(0).chain(blocks).collect(),
        }
    }

    /// The place of a span, which is brought inside the text and to whole characters.
    pub(crate) fn place(&self, span: Range<usize>) -> Place {
        let start = self.text.floor_char_boundary(span.start);
        let end = self.text.ceil_char_boundary(span.end.max(start));
        let line = self.starts.partition_point(|line| *line <= start);
        let line_start = self.starts[line - 1];
        Place {
            line,
            column: self.characters_before(start) - self.characters_before(line_start) + 1,
            span: start..end,
        }
    }

    fn characters_before(&self, at: usize) -> usize {
        let block = at / BLOCK;
        self.characters[block] + characters(&self.text.as_bytes()[block * BLOCK..at])
    }
}

/// How many characters begin in these bytes of UTF-8.
fn characters(bytes: &[u8]) -> usize {
    let begins = |b: &&u8| *b & 0b1100_0000 != 0b1000_0000;
    bytes.iter().filter(begins).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_counts_characters_however_long_the_line() {
        let text = format!("first\n{}x{}\n", "ä".repeat(5000), "🦀".repeat(700));
        let lines = Lines::new(&text);
        for (at, c) in text.char_indices() {
            let place = lines.place(at..at + 1);
            let line_start = text[..at].rfind('\n').map_or(0, |at| at + 1);
            let column = text[line_start..at].chars().count() + 1;
            assert_eq!((place.column, place.span.len()), (column, c.len_utf8()));
        }
        assert_eq!(lines.place(text.len()..text.len() + 9).line, 3);
    }
}
