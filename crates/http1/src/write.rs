//! Heads and chunks into bytes.

use alloc::vec::Vec;
use crate::Trailers;

/// Writes one head. Values must have come from a checked head or be of our own.
#[derive(Debug)]
pub struct HeadWriter<'a>(&'a mut Vec<u8>);

impl<'a> HeadWriter<'a> {
    pub fn request(out: &'a mut Vec<u8>, _method: &str, _target: &str) -> Self { Self(out) }
    /// With the standard reason phrase.
    pub fn response(out: &'a mut Vec<u8>, _status: u16) -> Self { Self(out) }
    pub fn field(&mut self, _name: &[u8], _value: &[u8]) -> &mut Self { self }
    pub fn number(&mut self, _name: &[u8], _value: u64) -> &mut Self { self }
    pub fn finish(self) { let _ = self.0; }
}

/// The size line of a chunk, on the stack.
#[derive(Debug)]
pub struct ChunkHead { _text: [u8; 18], _len: u8 }

impl ChunkHead {
    pub fn new(_len: usize) -> Self { todo!() }
    pub fn as_bytes(&self) -> &[u8] { todo!() }
}

/// The last chunk, with trailers if there are any.
pub fn write_last_chunk(_out: &mut Vec<u8>, _trailers: Option<&Trailers>) { todo!() }
