//! HTTP/1.1 messages (RFC 9112): heads and bodies out of bytes, strictly, and into bytes.
//!
//! Pure: no sockets, no clock, no threads. It is not a server and not a client: who reads and
//! writes, and which fields pass a proxy, is `gateway`'s.
//!
//! Strict means that whatever two readers could understand differently is refused, because that
//! difference is what request smuggling lives on. Start reading at [`Scan`], [`Request`] and
//! [`Decoder`]; [`Refused`] lists what is refused, and `tests/smuggling.toml` shows it.
#![no_std]

extern crate alloc;

mod body;
mod connection;
mod field;
mod framing;
mod host;
mod http2;
mod lines;
mod refused;
mod request;
mod response;
mod scan;
mod target;
mod token;
mod trailer;
mod write;

pub use body::{BodyError, Decoder, Step};
pub use field::{Field, Fields, Known};
pub use framing::Framing;
pub use http2::{Content, Http2Head, trailers_from_http2, write_request_head};
pub use refused::Refused;
pub use request::{Expect, Method, Persistence, Request, Version};
pub use response::{Response, ResponseError};
pub use scan::{HeadLimits, Scan};
pub use trailer::Trailers;
pub use write::{ChunkHead, HeadWriter, reason, write_last_chunk};
