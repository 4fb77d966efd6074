//! What the broker leaves out or spoils, so that a test that rests on it is seen to fail, and how short its files are.
//! `examples/broker.rs` takes them from its environment, the process of a node from a hidden option:
//! `segments=65536,confirms=unwritten`.

use std::str::FromStr;

use mainstay_journal::messages::{Body, Change, MessageLimits, QueueKey, Ref};

/// Of so many messages one is spoilt: enough that a few hundred have some, few enough that all else goes on.
const ONE_OF: u64 = 16;

/// What is other than in a broker that is trusted: by itself nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seams {
    /// How long a file of the log is, in bytes; by itself as long as [`MessageLimits`] has it.
    pub segment_len: Option<u64>,
    /// When a publish is confirmed.
    pub confirms: Confirms,
    /// Whether acknowledgements are kept.
    pub acknowledgements: Acknowledgements,
    /// In which order a queue is kept.
    pub sequence: Sequence,
    /// Whether the log is synced.
    pub syncs: Syncs,
    /// Whether what is published is kept.
    pub keeps: Keeps,
}

/// When a publish is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Confirms {
    /// Once it is on disk.
    #[default]
    OnDisk,
    /// One of sixteen although nothing of it is written.
    Unwritten,
}

/// Whether acknowledgements are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acknowledgements {
    /// They are.
    #[default]
    Kept,
    /// One of sixteen is not.
    Dropped,
}

/// In which order a queue is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sequence {
    /// As it was published.
    #[default]
    Kept,
    /// Neighbours change places.
    Swapped,
}

/// Whether the log is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Syncs {
    /// Before anything is confirmed.
    #[default]
    On,
    /// Never, beyond what a new file needs.
    Off,
}

/// Whether what is published is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keeps {
    /// It is.
    #[default]
    All,
    /// The thousandth publish is confirmed and lost.
    AllButOne,
}

/// A word that names no seam.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{word}` is no seam of the broker; expected segments=BYTES, confirms=unwritten, acks=dropped, order=swapped, syncs=off or keep=all-but-one, several with commas"
)]
pub struct SeamError {
    word: String,
}

impl FromStr for Seams {
    type Err = SeamError;

    fn from_str(text: &str) -> Result<Self, SeamError> {
        let mut seams = Self::default();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            let length = |word: &str| word.strip_prefix("segments=")?.parse().ok();
            match word {
                "confirms=unwritten" => seams.confirms = Confirms::Unwritten,
                "acks=dropped" => seams.acknowledgements = Acknowledgements::Dropped,
                "order=swapped" => seams.sequence = Sequence::Swapped,
                "syncs=off" => seams.syncs = Syncs::Off,
                "keep=all-but-one" => seams.keeps = Keeps::AllButOne,
                _ => {
                    let word = word.to_owned();
                    seams.segment_len = Some(length(&word).ok_or(SeamError { word })?);
                }
            }
        }
        Ok(seams)
    }
}

impl Seams {
    /// How much the log takes.
    pub(crate) fn message_limits(self) -> MessageLimits {
        let mut limits = MessageLimits::default();
        limits.segment_len = self.segment_len.unwrap_or(limits.segment_len);
        limits
    }

    /// Spoils what is about to be written. What is left out stands for a process that died between its word and the write.
    pub(crate) fn spoil(self, changes: &mut [Change]) {
        if self.sequence == Sequence::Swapped {
            swap(changes);
        }
        for change in changes {
            let is_lost = match change {
                Change::Message { refs, .. } => {
                    self.confirms == Confirms::Unwritten && refs.iter().any(is_chosen)
                }
                Change::Forget(gone) => {
                    self.acknowledgements == Acknowledgements::Dropped && is_chosen(gone)
                }
                Change::Put { .. } | Change::Remove { .. } | Change::ForgetQueue(_) => false,
            };
            if is_lost {
                *change = nothing();
            }
        }
    }
}

fn is_chosen(message: &Ref) -> bool {
    message.position.is_multiple_of(ONE_OF)
}

/// A change that writes nothing: no queue has this number.
fn nothing() -> Change {
    Change::ForgetQueue(QueueKey {
        vhost: u32::MAX,
        queue: u64::MAX,
    })
}

/// Gives messages of one queue that follow each other, and are of one length, the places of each other: the queue has
/// noted how long each body is.
fn swap(changes: &mut [Change]) {
    let messages = changes.iter_mut().filter_map(|change| match change {
        Change::Message { refs, body, .. } => match (refs.as_mut_slice(), body) {
            ([only], Body::Here(body)) => Some((only, body.len())),
            ([..], Body::Here(_) | Body::Stored(_)) => None,
        },
        Change::Put { .. } | Change::Remove { .. } | Change::Forget(_) | Change::ForgetQueue(_) => {
            None
        }
    });
    let mut messages: Vec<(&mut Ref, usize)> = messages.collect();
    messages.sort_by_key(|(at, len)| (at.queue.vhost, at.queue.queue, *len, at.position));
    for pair in messages.chunks_exact_mut(2) {
        if let [(first, first_len), (second, second_len)] = pair
            && first.queue == second.queue
            && first_len == second_len
        {
            std::mem::swap(*first, *second);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mainstay_journal::messages::Body;

    use super::*;

    fn at(position: u64) -> Ref {
        Ref {
            queue: QueueKey { vhost: 1, queue: 7 },
            position,
        }
    }

    fn message(position: u64) -> Change {
        Change::Message {
            refs: vec![at(position)],
            head: Bytes::new(),
            body: Body::Here(Bytes::from(position.to_string())),
        }
    }

    fn spoilt(words: &str, changes: &[Change]) -> Vec<Change> {
        let mut changes = changes.to_vec();
        words.parse::<Seams>().unwrap().spoil(&mut changes);
        changes
    }

    #[test]
    fn seams_are_named_with_commas_and_an_unknown_one_is_refused() {
        assert_eq!("".parse(), Ok(Seams::default()));
        let both: Seams = "segments=4096,syncs=off".parse().unwrap();
        assert_eq!((both.segment_len, both.syncs), (Some(4096), Syncs::Off));
        assert_eq!(both.message_limits().segment_len, 4096);
        assert_eq!(Seams::default().message_limits(), MessageLimits::default());
        for word in ["segments=few", "sync=off"] {
            let refused = word.parse::<Seams>().unwrap_err().to_string();
            assert!(refused.contains(word), "{refused}");
        }
    }

    #[test]
    fn each_seam_spoils_its_own_kind_and_none_spoils_nothing() {
        let changes = [message(15), message(16), Change::Forget(at(16))];
        assert_eq!(spoilt("segments=4096,syncs=off", &changes), changes);
        let [first, second, forget] = changes.clone();
        let unwritten = [first.clone(), nothing(), forget];
        assert_eq!(spoilt("confirms=unwritten", &changes), unwritten);
        assert_eq!(spoilt("acks=dropped", &changes), [first, second, nothing()]);
        let swapped = spoilt("order=swapped", &changes);
        let Change::Message { refs, body, .. } = &swapped[0] else {
            panic!("a message");
        };
        assert_eq!((refs[0], body), (at(16), &Body::Here("15".into())));
    }
}
