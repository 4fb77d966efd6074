//! Where a head ends in bytes that come in any pieces.

use crate::{Refused, token};

/// What a head may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes, with first line and empty line.
    pub len_max: usize,
    /// Field lines.
    pub fields_max: usize,
}

/// Finds the end of a head over any number of reads, looking at each byte once, so that a head
/// that comes byte by byte costs no more than one that comes at once.
///
/// A new one (`Scan::default()`) for each head.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scan {
    lines: LineScan,
    /// Empty lines before the first one.
    empty_lines: u8,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    /// The first bytes may still be those of another protocol.
    #[default]
    Unknown,
    FirstLine,
    Fields,
}

/// One is what RFC 9112, 2.2 asks for, since some old clients send one after a body; a second one
/// costs nothing. More is no client's habit.
pub(crate) const EMPTY_LINES_MAX: u8 = 2;

/// What a client sends first that knows that we speak HTTP/2 (RFC 9113, 3.4), as far as it looks
/// like a head.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

impl Scan {
    /// The length of the head with its empty line, once all of it is in `input`, which must begin
    /// with the same bytes as before. Empty lines before a request are part of it (RFC 9112, 2.2),
    /// at most two.
    ///
    /// [`Refused::Http2Preface`] means that `input` begins with the first bytes of HTTP/2, whole:
    /// on a connection's first message that is no mistake but for whoever speaks HTTP/2.
    pub fn find_end(&mut self, input: &[u8], limits: HeadLimits) -> Result<Option<usize>, Refused> {
        if self.stage == Stage::Unknown {
            match opening(input)? {
                Opening::Undecided => return Ok(None),
                Opening::Http => self.stage = Stage::FirstLine,
            }
        }
        let within = &input[..input.len().min(limits.len_max)];
        while let Some(line) = self.lines.next(within)? {
            match (self.stage, line.is_empty) {
                (Stage::Unknown | Stage::FirstLine, true) => {
                    self.empty_lines += 1;
                    if self.empty_lines > EMPTY_LINES_MAX {
                        return Err(Refused::EmptyLines);
                    }
                }
                (Stage::Unknown | Stage::FirstLine, false) => self.stage = Stage::Fields,
                (Stage::Fields, true) => return Ok(Some(line.end)),
                (Stage::Fields, false) => {}
            }
        }
        if input.len() < limits.len_max {
            return Ok(None);
        }
        Err(match self.stage {
            Stage::Unknown | Stage::FirstLine => Refused::TargetTooLong,
            Stage::Fields => Refused::TooLong,
        })
    }
}

enum Opening {
    Undecided,
    Http,
}

/// Looks at the first bytes for what is no HTTP/1 at all.
fn opening(input: &[u8]) -> Result<Opening, Refused> {
    match input {
        // A record of type 22, handshake, of version 3.x (RFC 8446, 5.1).
        [] | [0x16] => Ok(Opening::Undecided),
        [0x16, 0x03, ..] => Err(Refused::Tls),
        [0, ..] => Err(Refused::Nul),
        [b'\n', ..] => Err(Refused::BareLf),
        [b'P', ..] if input.starts_with(HTTP2_PREFACE) => Err(Refused::Http2Preface),
        [b'P', ..] if HTTP2_PREFACE.starts_with(input) => Ok(Opening::Undecided),
        [first, ..] if *first == b'\r' || token::is_token_byte(*first) => Ok(Opening::Http),
        _ => Err(Refused::NotHttp),
    }
}

/// Takes bytes apart into lines that end with CR LF, looking at each byte once.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LineScan {
    scanned: usize,
    /// Where the line that is being looked at begins.
    line: usize,
}

pub(crate) struct Line {
    /// After its LF.
    pub(crate) end: usize,
    pub(crate) is_empty: bool,
}

impl LineScan {
    /// The next whole line; a bare CR is left to those who look at what the line says.
    pub(crate) fn next(&mut self, input: &[u8]) -> Result<Option<Line>, Refused> {
        let Some(found) = memchr::memchr2(b'\n', 0, &input[self.scanned..]) else {
            self.scanned = input.len();
            return Ok(None);
        };
        let at = self.scanned + found;
        if input[at] == 0 {
            return Err(Refused::Nul);
        }
        if !input[self.line..at].ends_with(b"\r") {
            return Err(Refused::BareLf);
        }
        let is_empty = at == self.line + 1;
        self.scanned = at + 1;
        self.line = at + 1;
        Ok(Some(Line {
            end: at + 1,
            is_empty,
        }))
    }
}
