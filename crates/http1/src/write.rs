//! Heads and chunks into bytes.

use crate::{Trailers, token};
use bytes::BufMut;

/// Writes one head. Values must have come from a checked head or be of our own: that no line can
/// be smuggled in is asserted in debug builds only.
#[derive(Debug)]
#[must_use = "a head that is not finished has no end"]
pub struct HeadWriter<'a, B> {
    out: &'a mut B,
}

impl<'a, B: BufMut> HeadWriter<'a, B> {
    /// Begins the head of a request in HTTP/1.1 behind what is in `out`.
    pub fn request(out: &'a mut B, method: &str, target: &str) -> Self {
        debug_assert!(token::is_token(method.as_bytes()), "method {method:?}");
        let is_word = !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_graphic());
        debug_assert!(is_word, "target {target:?}");
        for part in [method, " ", target, " HTTP/1.1\r\n"] {
            out.put_slice(part.as_bytes());
        }
        Self { out }
    }

    /// Begins the head of a response in HTTP/1.1, with the standard reason phrase.
    pub fn response(out: &'a mut B, status: u16) -> Self {
        debug_assert!((100..=599).contains(&status), "status {status}");
        out.put_slice(b"HTTP/1.1 ");
        out.put_slice(itoa::Buffer::new().format(status).as_bytes());
        out.put_u8(b' ');
        out.put_slice(reason(status).as_bytes());
        out.put_slice(b"\r\n");
        Self { out }
    }

    /// Writes one field.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> &mut Self {
        write_field(self.out, name, value);
        self
    }

    /// Writes a field with a number.
    pub fn number(&mut self, name: &[u8], value: u64) -> &mut Self {
        self.field(name, itoa::Buffer::new().format(value).as_bytes())
    }

    /// Writes the empty line.
    pub fn finish(self) {
        self.out.put_slice(b"\r\n");
    }
}

pub(crate) fn write_field(out: &mut impl BufMut, name: &[u8], value: &[u8]) {
    debug_assert!(token::is_token(name), "name {}", name.escape_ascii());
    let is_value = !value.iter().any(|byte| token::is_control(*byte));
    debug_assert!(is_value, "value {}", value.escape_ascii());
    for part in [name, b": ", value, b"\r\n"] {
        out.put_slice(part);
    }
}

/// The size line of a chunk, on the stack.
#[derive(Debug, Clone, Copy)]
pub struct ChunkHead {
    text: [u8; Self::LEN_MAX],
    start: u8,
}

impl ChunkHead {
    /// Sixteen digits, CR and LF.
    const LEN_MAX: usize = 18;

    /// For a chunk of so many bytes: not 0, which would end the body.
    pub fn new(len: usize) -> Self {
        debug_assert!(len > 0, "a chunk of no bytes ends the body");
        let mut text = *b"0000000000000000\r\n";
        let (mut rest, mut start) = (len, Self::LEN_MAX - 2);
        while rest > 0 {
            start -= 1;
            text[start] = b"0123456789abcdef"[rest & 0xf];
            rest >>= 4;
        }
        Self {
            text,
            start: u8::try_from(start).expect("there are 16 digits at most"),
        }
    }

    /// The line with its CR LF. After the chunk's data follows one more CR LF.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[usize::from(self.start)..]
    }
}

/// Writes the last chunk, with trailers if there are any.
pub fn write_last_chunk(out: &mut impl BufMut, trailers: Option<&Trailers>) {
    out.put_slice(b"0\r\n");
    for field in trailers.into_iter().flat_map(Trailers::iter) {
        write_field(out, field.name, field.value);
    }
    out.put_slice(b"\r\n");
}

/// The reason phrase of RFC 9110, 15 or of the status' own RFC; empty for those that have none.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "",
    }
}
