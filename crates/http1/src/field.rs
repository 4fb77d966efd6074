//! Fields of a head or a trailer section: where they lie in the bytes, and which ones are known.

use bytes::Bytes;
use smallvec::SmallVec;

/// Names that a proxy treats in its own way. Found once, while parsing, so that nobody compares
/// names again on the way of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    Host, ContentLength, TransferEncoding, Connection, KeepAlive, ProxyConnection,
    ProxyAuthenticate, ProxyAuthorization, Te, Trailer, Upgrade, Expect, Via,
    Forwarded, XForwardedFor, XForwardedProto, XForwardedHost, XRequestId,
    Cookie, SetCookie, Location, IdempotencyKey, ContentType, RetryAfter,
    /// Any other.
    Other,
}

/// One field line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    pub known: Known,
    pub name: &'a [u8],
    pub value: &'a [u8],
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Place { pub(crate) known: Known, pub(crate) name: (u32, u32), pub(crate) value: (u32, u32) }

/// The fields of one head, in their order.
#[derive(Debug, Clone)]
pub struct Fields { pub(crate) bytes: Bytes, pub(crate) places: SmallVec<[Place; 16]> }

impl Fields {
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> { let _ = &self.bytes; let _ = &self.places; core::iter::empty() }
    pub fn len(&self) -> usize { todo!() }
    pub fn is_empty(&self) -> bool { todo!() }
    /// The first value of a known field, trimmed.
    pub fn get(&self, _known: Known) -> Option<&[u8]> { todo!() }
    /// The same as bytes of its own that share the head's memory.
    pub fn get_shared(&self, _known: Known) -> Option<Bytes> { todo!() }
    /// The first value of the field with this name, in any case of letters.
    pub fn named(&self, _name: &[u8]) -> Option<&[u8]> { todo!() }
}
