//! Heads of responses: what instances answer.

use crate::{
    Fields, Framing, HeadLimits, Known, Method, Persistence, Refused, Version,
    connection::Options,
    field::{Places, Span},
    framing::Announced,
    lines::{self, Room},
};
use bytes::Bytes;

/// Why an answer is not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// The same rules as for requests.
    #[error("the head of the answer breaks the rules of HTTP/1.1")]
    Head(#[from] Refused),
    /// RFC 9110, 15: what stands outside is invalid.
    #[error("the status of the answer is not between 100 and 599")]
    Status,
}

impl ResponseError {
    /// The reason in one word, for logs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Head(refused) => refused.word(),
            Self::Status => "status",
        }
    }
}

/// A checked head of a response.
#[derive(Debug, Clone)]
pub struct Response {
    /// 100 to 599.
    pub status: u16,
    /// What the instance speaks.
    pub version: Version,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether the connection may carry the next request. Always `Close` where the body ends with
    /// the connection, and where bytes may follow that are no part of the answer.
    pub persistence: Persistence,
    /// All fields as they came, with those that must not be passed on.
    pub fields: Fields,
    reason: Span,
    options: Options,
}

impl Response {
    /// Checks and takes apart a whole head, as long as [`crate::Scan::find_end`] said. `to` is the
    /// request's method: it decides whether there is a body (RFC 9112, 6.3).
    pub fn parse(head: Bytes, to: Method, limits: HeadLimits) -> Result<Self, ResponseError> {
        if head.starts_with(b"\r\n") {
            return Err(Refused::StatusLine.into());
        }
        let head = lines::without_empty_lines(head, limits)?;
        let parsed = lines::with_room(&head, limits, attempt)?;
        let Parsed {
            status,
            version,
            reason,
            places,
            found,
        } = parsed;
        if !(100..=599).contains(&status) {
            return Err(ResponseError::Status);
        }
        let (framing, end) = found.framing(status, version, to)?;
        let persistence = match end {
            End::Sure if !found.connection_unclear => found.options.persistence(version),
            End::Sure | End::Unsure => Persistence::Close,
        };
        Ok(Self {
            status,
            version,
            framing,
            persistence,
            fields: Fields {
                bytes: head,
                places,
            },
            reason,
            options: found.options,
        })
    }

    /// 100 to 199 but 101: another answer follows.
    pub fn is_interim(&self) -> bool {
        (100..=199).contains(&self.status) && self.status != 101
    }

    /// As the instance wrote it; it means nothing.
    pub fn reason(&self) -> &[u8] {
        self.reason.of_bytes(&self.fields.bytes)
    }

    /// Whether `Connection` names this field, as for requests.
    pub fn connection_names(&self, name: &[u8]) -> bool {
        self.options.name(&self.fields, name)
    }
}

/// What was found in a head while it was still borrowed.
struct Parsed {
    status: u16,
    version: Version,
    reason: Span,
    places: Places,
    found: Found,
}

fn attempt<'b>(head: &'b [u8], room: Room<'_, 'b>) -> Result<Parsed, Refused> {
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut response, head, room) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        Ok(_) => return Err(Refused::NotOneHead),
        Err(error) => return Err(lines::diagnose(head, error, Some(status_line))),
    }
    let mut found = Found::default();
    let places = lines::places(head, response.headers, Known::is_framing, |place, value| {
        found.note(place.known, value)
    })?;
    Ok(Parsed {
        status: response.code.unwrap_or_default(),
        version: Version::of_minor(response.version),
        reason: reason(head)?,
        places,
        found,
    })
}

/// `HTTP/1.1 200`.
const BEFORE_REASON: usize = 12;

/// Where the reason lies. httparse does not give one that has bytes outside of ASCII, and lets
/// control characters pass in those.
fn reason(head: &[u8]) -> Result<Span, Refused> {
    let line = memchr::memchr(b'\n', head).map_or(head, |end| &head[..end]);
    let line = line.strip_suffix(b"\r").ok_or(Refused::BareLf)?;
    let rest = line.get(BEFORE_REASON..).ok_or(Refused::StatusLine)?;
    let reason = rest.strip_prefix(b" ").unwrap_or(rest);
    if reason.iter().any(|byte| crate::token::is_control(*byte)) {
        return Err(Refused::StatusLine);
    }
    Ok(Span::of(head, reason))
}

/// What is wrong with a response's first line.
fn status_line(line: &[u8]) -> Option<Refused> {
    let digit = |at: usize| line.get(at).is_some_and(u8::is_ascii_digit);
    if !line.starts_with(b"HTTP/") || !digit(5) || line.get(6) != Some(&b'.') || !digit(7) {
        return Some(Refused::StatusLine);
    }
    if !line.starts_with(b"HTTP/1.1") && !line.starts_with(b"HTTP/1.0") {
        return Some(Refused::Version);
    }
    let status = line.get(8) == Some(&b' ') && (9..BEFORE_REASON).all(digit);
    let end = line.get(BEFORE_REASON).is_none_or(|byte| *byte == b' ');
    let control = line.iter().any(|byte| crate::token::is_control(*byte));
    (!status || !end || control).then_some(Refused::StatusLine)
}

/// Whether what follows an answer is sure to be the next one.
enum End {
    Sure,
    Unsure,
}

/// What the fields of a response say.
#[derive(Default)]
struct Found {
    announced: Announced,
    options: Options,
    /// A request with such a Connection is refused; of an instance it is believed that it ends.
    connection_unclear: bool,
}

impl Found {
    fn note(&mut self, known: Known, value: &[u8]) -> Result<(), Refused> {
        match known {
            Known::ContentLength | Known::TransferEncoding => self.announced.note(known, value)?,
            Known::Connection => {
                self.connection_unclear |= self.options.note(value).is_err();
            }
            _ => {}
        }
        Ok(())
    }

    /// RFC 9112, 6.3.
    fn framing(
        &self,
        status: u16,
        version: Version,
        to: Method,
    ) -> Result<(Framing, End), Refused> {
        let Announced { length, chunked } = self.announced;
        if chunked && version == Version::Http10 {
            return Err(Refused::CodingInHttp10);
        }
        let announces_body = chunked || length.is_some_and(|length| length > 0);
        match (status, to) {
            (100..=199, _) if announces_body => Err(Refused::BodyOfInterim),
            // RFC 9110, 15.3.5: nothing may be announced. Some do, and then send it.
            (204, _) if announces_body => Ok((Framing::None, End::Unsure)),
            // For the last two it is the length that the answer to GET would have.
            (100..=199 | 204 | 304, _) | (_, Method::Head) => Ok((Framing::None, End::Sure)),
            (200..=299, Method::Connect) => Ok((Framing::None, End::Unsure)),
            _ => Ok(match (length, chunked) {
                (_, true) => (Framing::Chunked, End::Sure),
                (Some(length), false) => (Framing::Length(length), End::Sure),
                (None, false) => (Framing::UntilClose, End::Unsure),
            }),
        }
    }
}
