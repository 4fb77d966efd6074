//! Where a body ends (RFC 9112, 6), as the head says it.

use crate::{Known, Refused, token};

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body, and nothing in the head that speaks of one.
    None,
    /// So many bytes. `Length(0)` is a body that is said to be empty: `Content-Length: 0`, which
    /// must be passed on, since some refuse a POST without.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Until the peer closes: responses only.
    UntilClose,
}

impl Framing {
    /// Whether no byte of a body follows the head.
    pub fn is_empty(self) -> bool {
        match self {
            Self::None | Self::Length(0) => true,
            Self::Length(_) | Self::Chunked | Self::UntilClose => false,
        }
    }
}

/// What the fields of a head say of the body's end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Announced {
    pub(crate) length: Option<u64>,
    pub(crate) chunked: bool,
}

impl Announced {
    /// Notes a Content-Length or a Transfer-Encoding.
    pub(crate) fn note(&mut self, known: Known, value: &[u8]) -> Result<(), Refused> {
        if known == Known::ContentLength {
            // RFC 9112, 6.3 would let the same number twice pass; only an attack sends that.
            if self.length.is_some() {
                return Err(Refused::LengthRepeated);
            }
            self.length = Some(parse_length(value)?);
        } else {
            if self.chunked {
                return Err(Refused::CodingRepeated);
            }
            check_coding(value)?;
            self.chunked = true;
        }
        if self.chunked && self.length.is_some() {
            return Err(Refused::LengthAndCoding);
        }
        Ok(())
    }
}

/// RFC 9110, 8.6: digits, and nothing else.
fn parse_length(value: &[u8]) -> Result<u64, Refused> {
    if value.is_empty() {
        return Err(Refused::Length);
    }
    value.iter().try_fold(0_u64, |length, byte| {
        if !byte.is_ascii_digit() {
            return Err(Refused::Length);
        }
        let length = length.checked_mul(10).ok_or(Refused::Length)?;
        let digit = u64::from(byte - b'0');
        length.checked_add(digit).ok_or(Refused::Length)
    })
}

/// The only coding that we take off is `chunked`, and nothing may be written around it.
fn check_coding(value: &[u8]) -> Result<(), Refused> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut codings = value.rsplit(|byte| *byte == b',').map(token::trim);
    let last = codings.next();
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    // RFC 9112, 6.1: 501 for what could be understood in principle, 400 where the end is unclear.
    let known_end = last.is_some_and(is_chunked)
        && codings.all(|coding| token::is_token(coding) && !is_chunked(coding));
    Err(if known_end && value.contains(&b',') {
        Refused::CodingUnknown
    } else {
        Refused::Coding
    })
}
