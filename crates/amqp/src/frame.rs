//! Frames (AMQP 0-9-1, 4.2.3) out of bytes and into bytes; bodies are not copied.
//!
//! ```text
//! 0      1         3             7                  size+7 size+8
//! +------+---------+-------------+  +------------+  +-----------+
//! | type | channel |    size     |  |  payload   |  | frame-end |
//! +------+---------+-------------+  +------------+  +-----------+
//!  octet   short       long          'size' octets      0xCE
//! ```

use alloc::format;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::code::{Code, Fault};
use crate::erlang;
use crate::limits::{COPIED_BODY_MAX, FRAME_FUDGE, FRAME_OVERHEAD};
use crate::method::Method;
use crate::wire::{Malformed, Reader, Writer};

/// What a client sends first, and what we answer to anything else (AMQP 0-9-1, 4.2.2).
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\0\0\x09\x01";

/// The last byte of each frame.
pub const FRAME_END: u8 = 0xCE;

/// Type, channel and size.
const HEAD: usize = 7;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A method.
    Method,
    /// The header of a content.
    Header,
    /// A part of a body.
    Body,
    /// Nothing: a sign of life.
    Heartbeat,
}

impl Kind {
    /// The number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::Method => 1,
            Self::Header => 2,
            Self::Body => 3,
            Self::Heartbeat => 8,
        }
    }

    const fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Method),
            2 => Some(Self::Header),
            3 => Some(Self::Body),
            8 => Some(Self::Heartbeat),
            _ => None,
        }
    }
}

/// A frame that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it holds.
    pub kind: Kind,
    /// Its channel; 0 is the connection itself.
    pub channel: u16,
    /// What stands in it: a part of what was received.
    pub payload: Bytes,
}

impl Frame {
    /// Takes one frame from the front; `None` until it is whole. `frame_max` counts the eight bytes around the
    /// payload. After an error nothing that follows can be told apart.
    pub fn take(input: &mut BytesMut, frame_max: u32) -> Result<Option<Self>, Fault> {
        let Some((head, _)) = input.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let [kind, c0, c1, s0, s1, s2, s3] = *head;
        let size = u32::from_be_bytes([s0, s1, s2, s3]);
        let most = frame_max - FRAME_OVERHEAD;
        if size > most + FRAME_FUDGE {
            let what = format!("{{frame_too_large,{size},{most}}}");
            return Err(broken(kind, &[], &what));
        }
        let size = usize::try_from(size).expect("bounded by frame_max");
        let Some(end) = input.get(HEAD + size).copied() else {
            return Ok(None);
        };
        let channel = u16::from_be_bytes([c0, c1]);
        input.advance(HEAD);
        let payload = input.split_to(size).freeze();
        input.advance(1);
        if end != FRAME_END {
            let what = format!("{{invalid_frame_end_marker,{end}}}");
            return Err(broken(kind, &payload, &what));
        }
        match Kind::of(kind) {
            Some(Kind::Heartbeat) if !payload.is_empty() => {}
            Some(Kind::Method) if payload.len() < 4 => {}
            Some(Kind::Header) if payload.len() < CONTENT_HEADER => {}
            Some(kind) => {
                return Ok(Some(Self {
                    kind,
                    channel,
                    payload,
                }));
            }
            None => {}
        }
        Err(broken(kind, &payload, "unknown_frame"))
    }

    /// RabbitMQ's words for a frame that is not expected here.
    pub fn unexpected(&self) -> Fault {
        let what = format!("type {}, {}", self.kind.number(), snippet(&self.payload));
        Fault::new(Code::UnexpectedFrame, what)
    }
}

/// RabbitMQ shows the first 16 bytes.
const SNIPPET: usize = 16;

fn snippet(payload: &[u8]) -> alloc::string::String {
    match payload.get(..SNIPPET) {
        Some(first) if payload.len() > SNIPPET => {
            format!("first 16 octets = {}", erlang::binary(first))
        }
        _ => format!("all octets = {}", erlang::binary(payload)),
    }
}

fn broken(kind: u8, payload: &[u8], what: &str) -> Fault {
    let explanation = format!("type {kind}, {}: {what}", snippet(payload));
    Fault::new(Code::FrameError, explanation)
}

/// Class, weight and size of the body, before the properties.
const CONTENT_HEADER: usize = 12;

/// The header of a content (AMQP 0-9-1, 4.2.6.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentHeader {
    /// The class of its method; 60 (basic) is the only one with contents.
    pub class: u16,
    /// Not used by anybody, and zero.
    pub weight: u16,
    /// Bytes of the body.
    pub body_size: u64,
    /// Flags and properties, as [`crate::Properties`] reads them.
    pub properties: Bytes,
}

impl ContentHeader {
    /// Reads the payload of a header frame.
    pub fn read(payload: &Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        Ok(Self {
            class: reader.short()?,
            weight: reader.short()?,
            body_size: reader.longlong()?,
            properties: reader.slice(reader.rest())?,
        })
    }
}

/// A frame of a method.
pub fn write_method(out: &mut BytesMut, channel: u16, method: &Method) {
    framed(out, Kind::Method, channel, |out| {
        method.write(&mut Writer::new(out));
    });
}

/// A frame of a content's header.
pub fn write_header(out: &mut BytesMut, channel: u16, header: &ContentHeader) {
    framed(out, Kind::Header, channel, |out| {
        out.put_u16(header.class);
        out.put_u16(header.weight);
        out.put_u64(header.body_size);
        out.put_slice(&header.properties);
    });
}

/// A heartbeat.
pub fn write_heartbeat(out: &mut BytesMut) {
    framed(out, Kind::Heartbeat, 0, |_| {});
}

/// Writes what stands between head and end, and its size.
fn framed(out: &mut BytesMut, kind: Kind, channel: u16, payload: impl FnOnce(&mut BytesMut)) {
    out.put_u8(kind.number());
    out.put_u16(channel);
    out.put_u32(0);
    let from = out.len();
    payload(out);
    let size = u32::try_from(out.len() - from).expect("payloads are bounded by frame_max");
    out[from - 4..from].copy_from_slice(&size.to_be_bytes());
    out.put_u8(FRAME_END);
}

/// The frames of a body, none for an empty one. A large part is handed to `large` as it is, after what was written so
/// far; a small one is copied behind it.
pub fn write_body(
    out: &mut BytesMut,
    channel: u16,
    body: &Bytes,
    frame_max: u32,
    mut large: impl FnMut(&mut BytesMut, Bytes),
) {
    let most = usize::try_from(frame_max - FRAME_OVERHEAD).expect("a frame fits into memory");
    let mut at = 0;
    while at < body.len() {
        let end = body.len().min(at + most);
        out.put_u8(Kind::Body.number());
        out.put_u16(channel);
        out.put_u32(u32::try_from(end - at).expect("below frame_max"));
        if end - at <= COPIED_BODY_MAX {
            out.put_slice(&body[at..end]);
        } else {
            large(out, body.slice(at..end));
        }
        out.put_u8(FRAME_END);
        at = end;
    }
}
