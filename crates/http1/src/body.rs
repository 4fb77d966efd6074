//! Where a body ends (RFC 9112, 6 and 7).

use bytes::{Bytes, BytesMut};
use crate::Fields;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// So many bytes; never 0 (that is `None`)... decide and document: for writing, `Content-Length: 0` must be kept for POST.
    Length(u64),
    Chunked,
    /// Responses only.
    UntilClose,
}

/// The trailer section of a chunked body, checked as a head's fields are.
pub type Trailers = Fields;

#[derive(Debug)]
pub enum Step {
    /// Nothing more can be said without more bytes.
    NeedMore,
    Data(Bytes),
    /// The body is complete; what is left of the input belongs to the next message.
    End(Option<Trailers>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError { #[error("placeholder")] Placeholder }

/// Takes the framing off a body.
#[derive(Debug)]
pub struct Decoder { _private: () }

impl Decoder {
    pub fn new(_framing: Framing) -> Self { todo!() }
    /// Takes the next piece off `input`, without copying it.
    pub fn decode(&mut self, _input: &mut BytesMut) -> Result<Step, BodyError> { todo!() }
    pub fn is_complete(&self) -> bool { todo!() }
    /// The peer closed: fine only for `UntilClose`, or when complete.
    pub fn end_of_input(&mut self) -> Result<(), BodyError> { todo!() }
}
