//! Requests that came by HTTP/2, as heads of HTTP/1.1, so that one parser checks all.

use crate::{
    BodyError, HeadLimits, HeadWriter, Known, Refused, Request, Trailers, host, token, trailer,
    write::write_field,
};
use alloc::{boxed::Box, vec::Vec};
use bytes::Bytes;

/// What HTTP/2 has in place of a first line (RFC 9113, 8.3.1).
#[derive(Debug, Clone, Copy)]
pub struct Http2Head<'a> {
    /// `:method`.
    pub method: &'a str,
    /// `:path`.
    pub path: &'a str,
    /// `:authority`.
    pub authority: Option<&'a str>,
    /// Whether the stream goes on after the fields.
    pub content: Content,
}

/// Whether a body follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// The stream ended with its fields.
    Absent,
    /// Its length is in Content-Length, if there is one: whoever reads the stream must hold it to that.
    Present,
}

/// Writes the head that says the same in HTTP/1.1 behind what is in `out`, for [`Request::parse`].
/// On a refusal `out` is as it was.
///
/// What HTTP/2 lets stand in a field and HTTP/1.1 would read as the end of a line is refused here,
/// and so is what HTTP/2 forbids: fields of one connection, white space around values. The pieces
/// of a cookie are joined (RFC 9113, 8.2.3). A body whose length is not said becomes a chunked one.
pub fn write_request_head<'a>(
    out: &mut Vec<u8>,
    head: Http2Head<'a>,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<(), Refused> {
    let before = out.len();
    let result = write(out, head, fields);
    if result.is_err() {
        out.truncate(before);
    }
    result
}

impl Request {
    /// Checks a request that came by HTTP/2 as strictly as one of HTTP/1.1.
    pub fn from_http2<'a>(
        head: Http2Head<'a>,
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        limits: HeadLimits,
    ) -> Result<Self, Refused> {
        /// What most heads fit into.
        const ROOM: usize = 1024;
        let mut out = Vec::with_capacity(ROOM);
        write(&mut out, head, fields)?;
        Self::parse(Bytes::from(out), limits)
    }
}

/// Checks the trailers of a request that came by HTTP/2 as those of a chunked body are; `None` if
/// nothing of them may be passed on. Whatever would be the end of a line there is refused first.
pub fn trailers_from_http2<'a>(
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<Option<Box<Trailers>>, BodyError> {
    let mut section = Vec::new();
    for (name, value) in fields {
        check_field(name, value).map_err(BodyError::Trailers)?;
        write_field(&mut section, name, value);
    }
    section.extend_from_slice(b"\r\n");
    trailer::read(Bytes::from(section))
}

fn write<'a>(
    out: &mut Vec<u8>,
    head: Http2Head<'a>,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<(), Refused> {
    check_first_line(head)?;
    let mut writer = HeadWriter::request(out, head.method, head.path);
    if let Some(authority) = head.authority {
        writer.field(b"host", authority.as_bytes());
    }
    let mut host = head.authority.map(str::as_bytes);
    let mut cookie = Vec::new();
    let mut length = None;
    for (name, value) in fields {
        check_field(name, value)?;
        match Known::of(name) {
            Known::Host => {
                let first = *host.get_or_insert(value);
                if !first.eq_ignore_ascii_case(value) {
                    return Err(Refused::HostDisagrees);
                }
                if head.authority.is_some() {
                    continue;
                }
            }
            Known::Cookie => {
                if !cookie.is_empty() {
                    cookie.extend_from_slice(b"; ");
                }
                cookie.extend_from_slice(value);
                continue;
            }
            Known::ContentLength => length = Some(value),
            Known::Te if value == b"trailers" => {}
            Known::Te
            | Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Upgrade => return Err(Refused::ConnectionField),
            _ => {}
        }
        writer.field(name, value);
    }
    if !cookie.is_empty() {
        writer.field(b"cookie", &cookie);
    }
    match (head.content, length) {
        (Content::Present, None) => {
            writer.field(b"transfer-encoding", b"chunked");
        }
        (Content::Absent, Some(length)) if length != b"0" => return Err(Refused::LengthDisagrees),
        (Content::Present | Content::Absent, _) => {}
    }
    writer.finish();
    Ok(())
}

fn check_first_line(head: Http2Head<'_>) -> Result<(), Refused> {
    if !token::is_token(head.method.as_bytes()) {
        return Err(Refused::Method);
    }
    if !head.path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Refused::TargetCharacter);
    }
    if !head.path.starts_with('/') && head.path != "*" {
        return Err(Refused::TargetForm);
    }
    match head.authority {
        Some(authority) if !host::is_host(authority.as_bytes()) => Err(Refused::Host),
        Some(_) | None => Ok(()),
    }
}

/// RFC 9113, 8.2.1.
fn check_field(name: &[u8], value: &[u8]) -> Result<(), Refused> {
    if !token::is_token(name) || name.iter().any(u8::is_ascii_uppercase) {
        return Err(Refused::FieldName);
    }
    let control = value.iter().any(|byte| token::is_control(*byte));
    if control || token::trim(value).len() != value.len() {
        return Err(Refused::FieldValue);
    }
    Ok(())
}
