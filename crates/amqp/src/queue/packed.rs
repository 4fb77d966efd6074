//! What stays in memory of a message whose body is on disk alone: one allocation for all of it.
//!
//! ```text
//!   len of exchange   1     len of key   1     priority   1     expiration is there   1
//!   len of body       4     expiration, ms   8     exchange, key, properties
//! ```

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use crate::message::{Body, Message, Place};
use crate::text::ShortString;

/// Bytes before the exchange's name.
const HEAD: usize = 16;

/// All of a persistent message but its body.
#[derive(Debug)]
pub(crate) struct Packed(Box<[u8]>);

impl Packed {
    /// `None` for a message that does not fit, which is none that anybody could publish: bodies are below
    /// [`crate::limits::BODY_MAX`].
    pub(crate) fn of(message: &Message) -> Option<Self> {
        let exchange = message.exchange.as_bytes();
        let key = message.routing_key.as_bytes();
        let body_len = u32::try_from(message.body.len()).ok()?;
        let expiration = message.expiration.unwrap_or_default().as_millis();
        let expiration = u64::try_from(expiration).ok()?;
        let len = HEAD + exchange.len() + key.len() + message.properties.len();
        let mut packed = Vec::with_capacity(len);
        packed.push(u8::try_from(exchange.len()).ok()?);
        packed.push(u8::try_from(key.len()).ok()?);
        packed.push(message.priority);
        packed.push(u8::from(message.expiration.is_some()));
        packed.extend_from_slice(&body_len.to_be_bytes());
        packed.extend_from_slice(&expiration.to_be_bytes());
        for part in [exchange, key, &message.properties] {
            packed.extend_from_slice(part);
        }
        Some(Self(packed.into_boxed_slice()))
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let bytes = self.0.get(at..at + N).and_then(|part| part.try_into().ok());
        bytes.expect("the head is there")
    }

    pub(crate) fn body_len(&self) -> u64 {
        u32::from_be_bytes(self.array(4)).into()
    }

    pub(crate) fn unpack(&self, place: Place) -> Message {
        let [exchange, key, priority, expires] = self.array(0);
        let expiration = Duration::from_millis(u64::from_be_bytes(self.array(8)));
        let mut rest = Bytes::copy_from_slice(&self.0[HEAD..]);
        let mut short = |len: u8| {
            let text = ShortString::new(rest.split_to(usize::from(len)));
            text.expect("a length of one byte")
        };
        Message {
            exchange: short(exchange),
            routing_key: short(key),
            properties: rest,
            body: Body::Stored {
                place,
                len: self.body_len(),
            },
            persistent: true,
            priority,
            expiration: (expires != 0).then_some(expiration),
        }
    }
}
