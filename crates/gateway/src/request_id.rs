//! The id that follows a request through everything it touches.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};
use mainstay_http1::{Fields, Known};

use crate::Ids;

/// A foreign id longer than this is not carried on: logs would fill with it.
const FOREIGN_LEN_MAX: usize = 128;

/// 128 bits in hexadecimal digits.
const ID_LEN: usize = 32;

/// Ids that are cut from one allocation.
const IDS_PER_BLOCK: usize = 128;

/// Makes the ids of one worker.
#[derive(Debug)]
pub(crate) struct RequestIds {
    ids: Ids,
    source: RefCell<Source>,
}

#[derive(Debug)]
struct Source {
    random: fastrand::Rng,
    block: BytesMut,
}

impl RequestIds {
    pub(crate) fn new(ids: Ids) -> Self {
        Self {
            ids,
            source: RefCell::new(Source {
                random: fastrand::Rng::new(),
                block: BytesMut::new(),
            }),
        }
    }

    /// The id that came with the request if it is a sane one, otherwise a new one; empty if none
    /// are wanted, and then it is not written.
    pub(crate) fn of(&self, fields: &Fields) -> Bytes {
        if self.ids == Ids::Off {
            return Bytes::new();
        }
        match fields.get_shared(Known::XRequestId) {
            Some(foreign) if is_sane(&foreign) => foreign,
            Some(_) | None => self.next(),
        }
    }

    /// A new one.
    pub(crate) fn next(&self) -> Bytes {
        let Source { random, block } = &mut *self.source.borrow_mut();
        if block.capacity() < ID_LEN {
            // Never given back by `reserve`: ids in flight still point into the old block.
            *block = BytesMut::with_capacity(ID_LEN * IDS_PER_BLOCK);
        }
        for _ in 0..2 {
            block.extend_from_slice(&hex(random.u64(..)));
        }
        block.split().freeze()
    }
}

fn hex(number: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 16];
    for (at, byte) in number.to_be_bytes().into_iter().enumerate() {
        text[2 * at] = DIGITS[usize::from(byte >> 4)];
        text[2 * at + 1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

/// Only characters that need no escape in a log line, a URL or a shell.
fn is_sane(id: &[u8]) -> bool {
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:+/=@".contains(byte);
    (1..=FOREIGN_LEN_MAX).contains(&id.len()) && id.iter().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_http1::{HeadLimits, Request};
    use std::collections::HashSet;

    fn with_id(id: &str) -> Fields {
        let limits = HeadLimits {
            len_max: 8192,
            fields_max: 100,
        };
        let head = format!("GET / HTTP/1.1\r\nhost: a\r\nx-request-id: {id}\r\n\r\n");
        Request::parse(Bytes::from(head), limits).unwrap().fields
    }

    #[test]
    fn a_sane_foreign_id_is_kept_and_any_other_replaced() {
        let ids = RequestIds::new(Ids::On);
        assert_eq!(ids.of(&with_id("abc-1_2.3:4")), "abc-1_2.3:4");
        for bad in ["", "a b", "a\"b", "\u{ff}", &"a".repeat(129)] {
            let id = ids.of(&with_id(bad));
            assert_eq!(id.len(), ID_LEN, "{bad:?}");
        }
    }

    #[test]
    fn without_ids_none_is_made_and_none_is_carried_on() {
        let ids = RequestIds::new(Ids::Off);
        assert!(ids.of(&with_id("abc")).is_empty() && ids.of(&with_id("")).is_empty());
    }

    #[test]
    fn new_ids_are_distinct_hexadecimal_numbers_of_128_bits() {
        let ids = RequestIds::new(Ids::On);
        let text = |id: Bytes| String::from_utf8(id.to_vec()).unwrap();
        let made: HashSet<String> = (0..1000).map(|_| text(ids.next())).collect();
        assert_eq!(made.len(), 1000);
        assert!(
            made.iter()
                .all(|id| id.len() == 32 && u128::from_str_radix(id, 16).is_ok())
        );
    }
}
