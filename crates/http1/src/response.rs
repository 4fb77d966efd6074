//! Heads of responses: what instances answer.

use bytes::Bytes;
use crate::{Fields, Framing, Method, Persistence, Version, request::HeadLimits};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError { #[error("placeholder")] Placeholder }

/// A checked head of a response.
#[derive(Debug, Clone)]
pub struct Response {
    /// 100 to 599 (more is refused? RFC: three digits).
    pub status: u16,
    pub version: Version,
    pub framing: Framing,
    pub persistence: Persistence,
    pub fields: Fields,
}

impl Response {
    /// `to` is the request's method: it decides whether there is a body (RFC 9112, 6.3).
    pub fn parse(_head: Bytes, _to: Method, _limits: HeadLimits) -> Result<Self, ResponseError> { todo!() }
    /// 100 to 199 but 101.
    pub fn is_interim(&self) -> bool { todo!() }
    pub fn reason(&self) -> &[u8] { todo!() }
    pub fn connection_names(&self, _name: &[u8]) -> bool { todo!() }
}
