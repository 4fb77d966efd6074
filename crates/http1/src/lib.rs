//! HTTP/1.1 messages (RFC 9112): heads and bodies out of bytes, strictly, and into bytes.
//!
//! Pure: no sockets, no clock, no threads. It is not a server and not a client: who reads and
//! writes, and which fields pass a proxy, is `gateway`'s.
//!
//! Strict means that whatever two readers could understand differently is refused, because that
//! difference is what request smuggling lives on. Start reading at [`Request`] and [`Decoder`].
#![no_std]

extern crate alloc;

mod body;
mod field;
mod request;
mod response;
mod write;

pub use body::{BodyError, Decoder, Framing, Step, Trailers};
pub use field::{Field, Fields, Known};
pub use request::{Expect, Method, Persistence, Refused, Request, Scan, Version};
pub use response::{Response, ResponseError};
pub use write::{ChunkHead, HeadWriter};
