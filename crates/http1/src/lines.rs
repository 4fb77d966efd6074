//! The lines of a head. httparse takes them apart, fast; here stands what it leaves to us, and what
//! was wrong when it refuses.

use crate::{
    HeadLimits, Known, Refused,
    field::{Place, Places, Span, Spelled},
    scan::{EMPTY_LINES_MAX, LineScan},
    token,
};
use alloc::vec::Vec;
use bytes::Bytes;
use core::mem::MaybeUninit;
use httparse::{Error, Header};

/// More fields than this are written to the heap: a configuration may allow them. 4 KiB, which
/// are not written before they are needed.
const FIELDS_ON_STACK: usize = 128;

/// The shortest field line: `a:` CR LF.
const FIELD_LEN_MIN: usize = 4;

/// What is wrong with a line, if anything.
pub(crate) type LineCheck = fn(&[u8]) -> Option<Refused>;

pub(crate) type Room<'r, 'b> = &'r mut [MaybeUninit<Header<'b>>];

/// Takes off the empty lines that [`crate::Scan`] lets pass, and checks the length.
pub(crate) fn without_empty_lines(mut head: Bytes, limits: HeadLimits) -> Result<Bytes, Refused> {
    // Places in a head are of 32 bits.
    let fits = u32::try_from(head.len()).is_ok() && head.len() <= limits.len_max;
    if !fits {
        return Err(Refused::TooLong);
    }
    for _ in 0..EMPTY_LINES_MAX {
        if head.starts_with(b"\r\n") {
            head = head.slice(2..);
        }
    }
    if head.starts_with(b"\r\n") {
        return Err(Refused::EmptyLines);
    }
    // httparse would skip these without an end, and those of LF alone.
    if head.starts_with(b"\n") {
        return Err(Refused::BareLf);
    }
    Ok(head)
}

/// Calls `attempt` with room for the fields of `head`: on the stack, unless there are very many.
pub(crate) fn with_room<'b, T>(
    head: &'b [u8],
    limits: HeadLimits,
    attempt: impl Fn(&'b [u8], Room<'_, 'b>) -> Result<T, Refused>,
) -> Result<T, Refused> {
    let mut room = [const { MaybeUninit::uninit() }; FIELDS_ON_STACK];
    let on_stack = limits.fields_max.min(FIELDS_ON_STACK);
    match attempt(head, &mut room[..on_stack]) {
        Err(Refused::TooManyFields) if limits.fields_max > on_stack => {}
        result => return result,
    }
    let mut room = Vec::new();
    let possible = head.len() / FIELD_LEN_MIN + 1;
    room.resize_with(limits.fields_max.min(possible), MaybeUninit::uninit);
    attempt(head, &mut room)
}

/// Where the fields of `head` lie. `note` sees each of them.
pub(crate) fn places(
    head: &[u8],
    headers: &[Header<'_>],
    may_not_resemble: fn(Known) -> bool,
    mut note: impl FnMut(Place, &[u8]) -> Result<(), Refused>,
) -> Result<Places, Refused> {
    let mut places = Places::with_capacity(headers.len());
    for header in headers {
        let name = header.name.as_bytes();
        let known = match Known::spelled(name) {
            Spelled::Right(known) => known,
            Spelled::Almost(known) if may_not_resemble(known) => return Err(Refused::LookAlike),
            Spelled::Almost(_) => Known::Other,
        };
        let place = Place {
            known,
            name: Span::of(head, name),
            value: Span::of(head, header.value),
        };
        // httparse lets a line end with LF alone.
        let before = &head[..place.name.start()];
        if !before.is_empty() && !before.ends_with(b"\r\n") {
            return Err(Refused::BareLf);
        }
        note(place, header.value)?;
        places.push(place);
    }
    if !head.ends_with(b"\r\n\r\n") {
        return Err(Refused::BareLf);
    }
    Ok(places)
}

/// What is wrong with a head, or with a trailer section if there is no `first_line`, that
/// httparse did not take.
#[cold]
pub(crate) fn diagnose(head: &[u8], error: Error, first_line: Option<LineCheck>) -> Refused {
    if error == Error::TooManyHeaders {
        return Refused::TooManyFields;
    }
    let mut lines = LineScan::default();
    let mut start = 0;
    let mut check: LineCheck = first_line.unwrap_or(field_line);
    loop {
        let line = match lines.next(head) {
            Ok(Some(line)) => &head[start..line.end - 2],
            Ok(None) => break,
            Err(refused) => return refused,
        };
        start += line.len() + 2;
        if line.contains(&b'\r') {
            return Refused::BareCr;
        }
        if let Some(refused) = check(line) {
            return refused;
        }
        check = field_line;
    }
    match error {
        Error::HeaderName => Refused::FieldName,
        Error::HeaderValue => Refused::FieldValue,
        Error::NewLine => Refused::BareLf,
        Error::Version => Refused::Version,
        Error::Status => Refused::StatusLine,
        Error::Token | Error::TooManyHeaders => Refused::RequestLine,
    }
}

fn field_line(line: &[u8]) -> Option<Refused> {
    if line.is_empty() {
        return None;
    }
    if line.starts_with(b" ") || line.starts_with(b"\t") {
        return Some(Refused::Folded);
    }
    let Some(colon) = memchr::memchr(b':', line) else {
        return Some(Refused::FieldName);
    };
    let (name, value) = line.split_at(colon);
    if name.ends_with(b" ") || name.ends_with(b"\t") {
        return Some(Refused::SpaceBeforeColon);
    }
    if !token::is_token(name) {
        return Some(Refused::FieldName);
    }
    let control = value.iter().any(|byte| token::is_control(*byte));
    control.then_some(Refused::FieldValue)
}
