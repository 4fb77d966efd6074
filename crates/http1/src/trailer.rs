//! Trailers: fields behind a chunked body (RFC 9112, 7.1.2).

use crate::{BodyError, Fields, Known, Refused, lines, scan::LineScan};
use alloc::boxed::Box;
use bytes::Bytes;

/// The trailer section of a chunked body, checked as a head's fields are, without those that a
/// trailer may not be.
pub type Trailers = Fields;

/// Bytes: hyper's bound. They wait in the input until all of them are there.
const TRAILERS_LEN_MAX: usize = 16 * 1024;

/// gRPC has two, and whatever its users add.
const TRAILERS_MAX: usize = 32;

/// RFC 9110, 6.5.1: what says how to read the body, who asks, and what to do with the answer comes
/// too late here. These are not passed on, as all [`Known`] fields are not.
const DROPPED: &[&str] = &[
    "age",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-range",
    "date",
    "expires",
    "max-forwards",
    "pragma",
    "range",
    "vary",
    "www-authenticate",
];

/// Finds the end of a trailer section, looking at each byte once.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TrailerScan {
    lines: LineScan,
}

impl TrailerScan {
    /// The section's length with its empty line.
    pub(crate) fn find_end(&mut self, input: &[u8]) -> Result<Option<usize>, BodyError> {
        let within = &input[..input.len().min(TRAILERS_LEN_MAX)];
        while let Some(line) = self.lines.next(within).map_err(BodyError::Trailers)? {
            if line.is_empty {
                return Ok(Some(line.end));
            }
        }
        if input.len() < TRAILERS_LEN_MAX {
            Ok(None)
        } else {
            Err(BodyError::TrailersTooLong)
        }
    }
}

/// Checks a section that was not cut out of a body: it may be no longer than one that was.
pub(crate) fn read(section: Bytes) -> Result<Option<Box<Trailers>>, BodyError> {
    match TrailerScan::default().find_end(&section)? {
        Some(end) if end == section.len() => parse(section),
        Some(_) | None => Err(BodyError::Trailers(Refused::NotOneHead)),
    }
}

/// Checks a whole section; `None` if nothing in it may be passed on.
///
/// Framing and Host are refused: no program sends them here but to be misread by one that merges
/// trailers into the head.
pub(crate) fn parse(section: Bytes) -> Result<Option<Box<Trailers>>, BodyError> {
    if *section == *b"\r\n" {
        return Ok(None);
    }
    let mut headers = [httparse::EMPTY_HEADER; TRAILERS_MAX];
    let headers = match httparse::parse_headers(&section, &mut headers) {
        Ok(httparse::Status::Complete((len, headers))) if len == section.len() => headers,
        Ok(_) => return Err(BodyError::Trailers(Refused::NotOneHead)),
        Err(error) => {
            return Err(BodyError::Trailers(lines::diagnose(&section, error, None)));
        }
    };
    let places = lines::places(&section, headers, Known::is_relied_on, |_, _| Ok(()));
    let mut places = places.map_err(BodyError::Trailers)?;
    let forbidden = |known: Known| known.is_framing() || known == Known::Host;
    if places.iter().any(|place| forbidden(place.known)) {
        return Err(BodyError::TrailerForbidden);
    }
    places.retain(|place| {
        let name = place.name.of_bytes(&section);
        let dropped = DROPPED
            .iter()
            .any(|dropped| name.eq_ignore_ascii_case(dropped.as_bytes()));
        place.known == Known::Other && !dropped
    });
    if places.is_empty() {
        return Ok(None);
    }
    Ok(Some(Box::new(Fields {
        bytes: section,
        places,
    })))
}
