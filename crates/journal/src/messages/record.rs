//! What a record says.
//!
//! ```text
//! put            0  u8       1
//!                1  u32      length of the key
//!                5           key, value
//! remove         0  u8       2
//!                1           key
//! message        0  u8       3
//!                1  u32      how many places in queues
//!                5           for each: u32 virtual host, u64 queue, u64 position
//!                   u32      length of the head
//!                            head, body
//! forget         0  u8       4
//!                1           u32 virtual host, u64 queue
//!               13           for each message: u64 position
//! forget queue   0  u8       5
//!                1           u32 virtual host, u64 queue
//! released       0  u8       6
//!                1  u64      sequence of the newest segment that is no longer needed
//! ```
//!
//! All numbers are little-endian. Length and checksum are those of the record around it.

use std::borrow::Cow;

use bytes::Bytes;

use super::contract::{QueueKey, Ref};
use crate::format::Content;

const PUT: u8 = 1;
const REMOVE: u8 = 2;
const MESSAGE: u8 = 3;
const FORGET: u8 = 4;
const FORGET_QUEUE: u8 = 5;
const RELEASED: u8 = 6;

const KEY_LEN: usize = 12;
const REF_LEN: usize = 20;
const POSITION_LEN: usize = 8;

/// How many acknowledgements one record takes: 64 KiB of them.
pub(super) const FORGET_MAX: usize = 8192;

/// A record that is to be written.
#[derive(Debug)]
pub(super) enum Draft<'d> {
    Put {
        key: Bytes,
        value: Bytes,
    },
    Remove {
        key: Bytes,
    },
    Message {
        refs: Cow<'d, [Ref]>,
        head: Bytes,
        body: Bytes,
    },
    Forget {
        queue: QueueKey,
        positions: Vec<u64>,
    },
    ForgetQueue(QueueKey),
    Released {
        through: u64,
    },
}

/// A record that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry<'e> {
    Put {
        key: &'e [u8],
        value: &'e [u8],
    },
    Remove {
        key: &'e [u8],
    },
    Message {
        refs: Refs<'e>,
        head: &'e [u8],
        body: &'e [u8],
    },
    Forget {
        queue: QueueKey,
        positions: Positions<'e>,
    },
    ForgetQueue(QueueKey),
    Released {
        through: u64,
    },
}

/// The places of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refs<'e>(&'e [u8]);

/// Positions in one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Positions<'e>(&'e [u8]);

impl<'e> Refs<'e> {
    pub(super) fn iter(self) -> impl Iterator<Item = Ref> + 'e {
        let refs = self.0.chunks_exact(REF_LEN);
        refs.filter_map(|bytes| {
            let mut from = Fields(bytes);
            let queue = from.queue()?;
            let position = from.u64()?;
            Some(Ref { queue, position })
        })
    }
}

impl<'e> Positions<'e> {
    pub(super) fn iter(self) -> impl Iterator<Item = u64> + 'e {
        let positions = self.0.chunks_exact(POSITION_LEN);
        positions.filter_map(|bytes| Fields(bytes).u64())
    }
}

impl Content for Draft<'_> {
    fn len(&self) -> usize {
        1 + match self {
            Self::Put { key, value } => 4 + key.len() + value.len(),
            Self::Remove { key } => key.len(),
            Self::Message { refs, head, body } => {
                8 + refs.len() * REF_LEN + head.len() + body.len()
            }
            Self::Forget { positions, .. } => KEY_LEN + positions.len() * POSITION_LEN,
            Self::ForgetQueue(_) => KEY_LEN,
            Self::Released { .. } => 8,
        }
    }

    fn write(&self, into: &mut Vec<u8>) {
        match self {
            Self::Put { key, value } => {
                into.push(PUT);
                write_len(into, key.len());
                into.extend_from_slice(key);
                into.extend_from_slice(value);
            }
            Self::Remove { key } => {
                into.push(REMOVE);
                into.extend_from_slice(key);
            }
            Self::Message { refs, head, body } => {
                into.push(MESSAGE);
                write_len(into, refs.len());
                for place in refs.iter() {
                    write_queue(into, place.queue);
                    into.extend_from_slice(&place.position.to_le_bytes());
                }
                write_len(into, head.len());
                into.extend_from_slice(head);
                into.extend_from_slice(body);
            }
            Self::Forget { queue, positions } => {
                into.push(FORGET);
                write_queue(into, *queue);
                for position in positions {
                    into.extend_from_slice(&position.to_le_bytes());
                }
            }
            Self::ForgetQueue(queue) => {
                into.push(FORGET_QUEUE);
                write_queue(into, *queue);
            }
            Self::Released { through } => {
                into.push(RELEASED);
                into.extend_from_slice(&through.to_le_bytes());
            }
        }
    }
}

/// A batch is bounded far below what does not fit, see [`super::BATCH_LEN_MAX`]: such a length is never written.
fn write_len(into: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    into.extend_from_slice(&len.to_le_bytes());
}

fn write_queue(into: &mut Vec<u8>, queue: QueueKey) {
    into.extend_from_slice(&queue.vhost.to_le_bytes());
    into.extend_from_slice(&queue.queue.to_le_bytes());
}

impl<'e> Entry<'e> {
    /// `None`: it says nothing that is known.
    pub(super) fn decode(bytes: &'e [u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let mut from = Fields(rest);
        Some(match *kind {
            PUT => {
                let len = from.len()?;
                let key = from.take(len)?;
                Self::Put { key, value: from.0 }
            }
            REMOVE => Self::Remove { key: rest },
            MESSAGE => {
                let count = from.len()?;
                let refs = Refs(from.take(count.checked_mul(REF_LEN)?)?);
                let len = from.len()?;
                let head = from.take(len)?;
                let body = from.0;
                (count > 0).then_some(Self::Message { refs, head, body })?
            }
            FORGET => {
                let queue = from.queue()?;
                let whole = from.0.len().is_multiple_of(POSITION_LEN);
                let positions = whole.then_some(Positions(from.0))?;
                Self::Forget { queue, positions }
            }
            FORGET_QUEUE => {
                let queue = from.queue()?;
                from.0.is_empty().then_some(Self::ForgetQueue(queue))?
            }
            RELEASED => {
                let through = from.u64()?;
                from.0.is_empty().then_some(Self::Released { through })?
            }
            _ => return None,
        })
    }
}

/// Bytes from which one field after the other is taken.
struct Fields<'e>(&'e [u8]);

impl<'e> Fields<'e> {
    fn take(&mut self, len: usize) -> Option<&'e [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn len(&mut self) -> Option<usize> {
        let bytes = *self.take(4)?.first_chunk()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(*self.take(8)?.first_chunk()?))
    }

    fn queue(&mut self) -> Option<QueueKey> {
        let vhost = u32::from_le_bytes(*self.take(4)?.first_chunk()?);
        let queue = self.u64()?;
        Some(QueueKey { vhost, queue })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: QueueKey = QueueKey {
        vhost: 7,
        queue: u64::MAX - 1,
    };

    fn drafts() -> Vec<Draft<'static>> {
        let place = |position| Ref {
            queue: QUEUE,
            position,
        };
        vec![
            Draft::Put {
                key: Bytes::from_static(b"key"),
                value: Bytes::from_static(b"value"),
            },
            Draft::Remove {
                key: Bytes::from_static(b"key"),
            },
            Draft::Message {
                refs: vec![place(1), place(u64::MAX)].into(),
                head: Bytes::from_static(b"head"),
                body: Bytes::from_static(b"body"),
            },
            Draft::Forget {
                queue: QUEUE,
                positions: vec![3, 1 << 40],
            },
            Draft::ForgetQueue(QUEUE),
            Draft::Released { through: 9 },
        ]
    }

    /// What a record says, as text, to compare both forms.
    fn told(entry: Entry<'_>) -> String {
        match entry {
            Entry::Message { refs, head, body } => {
                let refs: Vec<_> = refs.iter().map(|place| place.position).collect();
                format!("message {refs:?} {head:?} {body:?}")
            }
            Entry::Forget { queue, positions } => {
                let positions: Vec<_> = positions.iter().collect();
                format!("forget {queue:?} {positions:?}")
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn what_is_written_is_read_and_no_cut_of_it_reads_the_same() {
        let mut seen = Vec::new();
        for draft in drafts() {
            let mut bytes = Vec::new();
            draft.write(&mut bytes);
            assert_eq!(bytes.len(), draft.len());
            let whole = told(Entry::decode(&bytes).unwrap());
            for len in 0..bytes.len() {
                let cut = Entry::decode(&bytes[..len]).map(told);
                assert_ne!(cut.as_ref(), Some(&whole), "{len}");
            }
            seen.push(whole);
        }
        assert_eq!(
            seen[2],
            format!("message {:?} {:?} {:?}", [1, u64::MAX], b"head", b"body")
        );
        assert_eq!(seen[3], format!("forget {QUEUE:?} {:?}", [3, 1_u64 << 40]));
        assert_eq!(seen[5], "Released { through: 9 }");
    }

    #[test]
    fn what_is_not_known_is_no_record() {
        for bytes in [
            &b""[..],
            &[0],
            &[9, 1, 2],
            &[MESSAGE, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(Entry::decode(bytes), None);
        }
    }
}
