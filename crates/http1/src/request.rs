//! Heads of requests.

use bytes::{Bytes, BytesMut};
use crate::{Fields, Framing};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version { Http10, Http11 }

/// A method; those that are not known keep their name in the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method { Get, Head, Post, Put, Delete, Patch, Options, Trace, Connect, Other }

/// Whether the peer wants the connection to go on after this message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence { KeepAlive, Close }

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect { Nothing, Continue }

/// Finds the end of a head over any number of reads, looking at each byte once, so that a head
/// that comes byte by byte costs no more than one that comes at once.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scan { _scanned: usize }

/// What a head may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits { pub len_max: usize, pub fields_max: usize }

impl Scan {
    /// The length of the head with its empty line, once all of it is in `input`. Empty lines
    /// before a request are part of it (RFC 9112, 2.2), within bounds.
    pub fn find_end(&mut self, _input: &[u8], _limits: HeadLimits) -> Result<Option<usize>, Refused> { todo!() }
}

/// Why a request's head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("placeholder")]
    Placeholder,
}

impl Refused {
    /// 400, 414 (target too long), 431 (too large, too many fields), 501 (transfer coding), 505 (version).
    pub fn status(self) -> u16 { todo!() }
    /// Whether the bytes look like another protocol (TLS, HTTP/2 preface) for the message: part of Display.
    pub fn word(self) -> &'static str { todo!() }
}

/// A checked head of a request.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    pub version: Version,
    pub framing: Framing,
    pub persistence: Persistence,
    pub expect: Expect,
    pub fields: Fields,
    // private: method name, target, host
}

impl Request {
    /// Checks and takes apart a whole head, as long as [`Scan::find_end`] said.
    pub fn parse(_head: Bytes, _limits: HeadLimits) -> Result<Self, Refused> { todo!() }
    pub fn method_name(&self) -> &str { todo!() }
    /// In origin form: path and query, or `*`. Never empty.
    pub fn target(&self) -> &str { todo!() }
    pub fn target_shared(&self) -> Bytes { todo!() }
    pub fn path(&self) -> &str { todo!() }
    /// The host as the client wrote it, with its port; `None` only in HTTP/1.0.
    pub fn host(&self) -> Option<&str> { todo!() }
    pub fn host_shared(&self) -> Option<Bytes> { todo!() }
    /// The protocol that it asks to change to: only if `Connection` names `upgrade`, HTTP/1.1.
    pub fn upgrade(&self) -> Option<&[u8]> { todo!() }
    /// Whether `Connection` names this field, so that it must not be passed on.
    pub fn connection_names(&self, _name: &[u8]) -> bool { todo!() }
}
#[allow(unused)] fn unused(_: BytesMut) {}
