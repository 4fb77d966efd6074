//! One channel: what was delivered on it, what was published, and what waits for a word.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::message::Message;
use crate::planted::{Bug, Planted};
use crate::queue::{QueueId, Settle};
use crate::text::ShortString;

/// A delivery that is not settled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unacked {
    pub(super) queue: QueueId,
    pub(super) position: u64,
    pub(super) by: By,
}

/// How it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Consumer,
    Get,
}

/// A publish that is routed.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) message: Arc<Message>,
    pub(super) queues: Vec<QueueId>,
    pub(super) mandatory: bool,
    /// Its number, if a word is expected.
    pub(super) number: Option<u64>,
    /// A direct reply was handed over already.
    pub(super) replied: bool,
}

/// Publishes that wait for a word.
#[derive(Debug)]
pub(super) struct Confirms {
    next: u64,
    /// By number: how many queues have not spoken yet.
    open: BTreeMap<u64, usize>,
    done: Vec<u64>,
    refused: Vec<u64>,
}

/// A word for publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) kind: WordKind,
    pub(super) number: u64,
    pub(super) multiple: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WordKind {
    Ack,
    Nack,
}

impl Confirms {
    pub(super) fn new() -> Self {
        Self {
            next: 1,
            open: BTreeMap::new(),
            done: Vec::new(),
            refused: Vec::new(),
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// So many queues are to speak of it.
    pub(super) fn expect(&mut self, number: u64, queues: usize) {
        if queues == 0 {
            self.done.push(number);
        } else {
            self.open.insert(number, queues);
        }
    }

    pub(super) fn confirmed(&mut self, number: u64) {
        let Some(left) = self.open.get_mut(&number) else {
            return;
        };
        *left -= 1;
        if *left == 0 {
            self.open.remove(&number);
            self.done.push(number);
        }
    }

    /// One queue that refuses is enough.
    pub(super) fn refused(&mut self, number: u64) {
        if self.open.remove(&number).is_some() {
            self.refused.push(number);
        }
    }

    /// What is to be said, in RabbitMQ's way: all below the first number that is open or has the opposite answer with
    /// one word, the others one by one; refusals come last, and a single confirm stands for itself.
    pub(super) fn words(&mut self, planted: Planted) -> Vec<Word> {
        let mut done = core::mem::take(&mut self.done);
        let mut refused = core::mem::take(&mut self.refused);
        done.sort_unstable();
        refused.sort_unstable();
        let mut words = Vec::new();
        if let [number] = done[..] {
            words.push(Word {
                kind: WordKind::Ack,
                number,
                multiple: false,
            });
        } else {
            self.put(WordKind::Ack, &done, &refused, planted, &mut words);
        }
        self.put(WordKind::Nack, &refused, &done, planted, &mut words);
        words
    }

    fn put(
        &self,
        kind: WordKind,
        numbers: &[u64],
        others: &[u64],
        planted: Planted,
        words: &mut Vec<Word>,
    ) {
        let word = |number, multiple| Word {
            kind,
            number,
            multiple,
        };
        let Some(last) = numbers.last() else {
            return;
        };
        let open = self.open.first_key_value().map(|(number, _)| *number);
        let open = open.filter(|_| !planted.has(Bug::ConfirmsAhead));
        let bars = open.into_iter().chain(others.first().copied());
        let cut = bars.min().unwrap_or(last + 1);
        let together = numbers.partition_point(|number| *number < cut);
        if let Some(at) = together.checked_sub(1) {
            words.push(word(numbers[at], true));
        }
        words.extend(
            numbers[together..]
                .iter()
                .map(|number| word(*number, false)),
        );
    }

    /// Publishes that wait for a word.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// Whether every publish has its word, and whether all were taken.
    pub(super) fn settled(&mut self) -> Option<bool> {
        if !self.open.is_empty() {
            return None;
        }
        self.done.clear();
        let all = self.refused.is_empty();
        self.refused.clear();
        Some(all)
    }
}

/// What a transaction collects.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) publishes: Vec<Publication>,
    pub(super) settled: Vec<(Settle, Vec<(u64, Unacked)>)>,
    pub(super) confirms: Confirms,
    pub(super) state: Commit,
}

/// Whether a commit is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Commit {
    Open,
    /// All was done, and is not on disk yet.
    UnderWay,
}

impl Transaction {
    pub(super) fn new() -> Self {
        Self {
            publishes: Vec::new(),
            settled: Vec::new(),
            confirms: Confirms::new(),
            state: Commit::Open,
        }
    }

    pub(super) fn len(&self) -> usize {
        let settled: usize = self.settled.iter().map(|(_, list)| list.len()).sum();
        self.publishes.len() + settled
    }
}

/// What publishes are answered with.
#[derive(Debug)]
pub(super) enum Mode {
    Plain,
    Confirm(Confirms),
    Transaction(Transaction),
}

/// Who waits for direct replies.
#[derive(Debug, Clone)]
pub(super) struct ReplyConsumer {
    pub(super) tag: ShortString,
    pub(super) address: ShortString,
}

#[derive(Debug)]
pub(super) struct Channel {
    /// Which of the channels that had its number one after another.
    pub(super) life: u64,
    pub(super) next_delivery: u64,
    pub(super) unacked: BTreeMap<u64, Unacked>,
    pub(super) consumers: BTreeMap<ShortString, QueueId>,
    /// For consumers to come.
    pub(super) prefetch: u32,
    /// For all together; 0 is without limit.
    pub(super) limit: u32,
    /// What counts for the limit.
    pub(super) counted: u32,
    pub(super) mode: Mode,
    pub(super) last_queue: Option<ShortString>,
    pub(super) replies: Option<ReplyConsumer>,
}

impl Channel {
    pub(super) fn new(life: u64) -> Self {
        Self {
            life,
            next_delivery: 1,
            unacked: BTreeMap::new(),
            consumers: BTreeMap::new(),
            prefetch: 0,
            limit: 0,
            counted: 0,
            mode: Mode::Plain,
            last_queue: None,
            replies: None,
        }
    }

    pub(super) fn confirms(&mut self) -> Option<&mut Confirms> {
        match &mut self.mode {
            Mode::Plain => None,
            Mode::Confirm(confirms) => Some(confirms),
            Mode::Transaction(transaction) => Some(&mut transaction.confirms),
        }
    }

    /// The tag of a new delivery.
    pub(super) fn deliver(&mut self, unacked: Option<Unacked>) -> u64 {
        let tag = self.next_delivery;
        self.next_delivery += 1;
        if let Some(unacked) = unacked {
            self.unacked.insert(tag, unacked);
        }
        tag
    }

    /// Takes out what an acknowledgement speaks of; `None` for a tag that is not there.
    pub(super) fn collect(
        &mut self,
        tag: u64,
        multiple: bool,
        planted: Planted,
    ) -> Option<Vec<(u64, Unacked)>> {
        if multiple && tag == 0 {
            return Some(core::mem::take(&mut self.unacked).into_iter().collect());
        }
        let one = self.unacked.remove(&tag)?;
        let mut taken = Vec::new();
        if multiple && !planted.has(Bug::AcksOne) {
            let later = self.unacked.split_off(&tag);
            taken.extend(core::mem::replace(&mut self.unacked, later));
        }
        taken.push((tag, one));
        Some(taken)
    }
}
