//! What must hold, by what clients said and were told. The broker's own word counts for nothing.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::queue::ChannelKey;

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Promise {
    /// What is confirmed is on disk, or was dealt with.
    ConfirmedIsSafe,
    /// What is confirmed and persistent is delivered in the end, whatever dies.
    NothingLost,
    /// The oldest that waits is delivered next, also of what came back.
    Order,
    /// A second delivery says so.
    Redelivered,
    /// What was acknowledged does not come again.
    AckedIsGone,
    /// Nobody has more than the prefetch allows.
    Prefetch,
    /// What no queue takes comes back before its confirm.
    Returned,
    /// A full queue refuses, and nothing else is refused.
    Refused,
    /// Each publish gets one word.
    OneWord,
    /// Who can take something and has something to take gets it.
    NoStandstill,
    /// The broker counts what there is.
    Counts,
    /// What is dealt with leaves the disk.
    DiskEmpties,
    /// A body that is on disk alone can be read wherever it is spoken of.
    BodyIsThere,
}

/// What the runs must contain.
pub(super) const EXPECTED: &[&str] = &[
    "published",
    "confirmed",
    "confirmed together",
    "refused",
    "returned",
    "delivered",
    "redelivered",
    "acknowledged together",
    "given back",
    "thrown away",
    "letters",
    "moved",
    "purged",
    "got",
    "cancelled",
    "channel closed",
    "connection died",
    "paused",
    "crashed",
    "restored",
    "read back",
];

pub(super) type Tally = BTreeMap<&'static str, u64>;

/// A broken promise.
#[derive(Debug, Clone)]
#[expect(dead_code, reason = "printed")]
pub(super) struct Broken {
    pub(super) promise: Promise,
    what: String,
}

/// How a queue of the world is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) durable: bool,
    /// Refuses more than so many.
    pub(super) max: Option<usize>,
    /// Where what dies in it goes.
    pub(super) letters: Option<usize>,
}

const fn kind(name: &'static str, durable: bool) -> Kind {
    Kind {
        name,
        durable,
        max: None,
        letters: None,
    }
}

pub(super) const QUEUES: [Kind; 6] = [
    Kind {
        letters: Some(4),
        ..kind("main", true)
    },
    Kind {
        max: Some(4),
        ..kind("small", true)
    },
    kind("passing", false),
    Kind {
        letters: Some(5),
        ..kind("second", true)
    },
    kind("letters", true),
    kind("passing letters", false),
];

#[derive(Debug, Default)]
pub(super) struct Model {
    /// In the order in which they came: by number, which rises, where they were published; letters are counted.
    pub(super) ready: BTreeMap<u64, u64>,
    /// Delivered once: the next time must say so.
    seen: BTreeSet<u64>,
    /// Acknowledged or thrown away.
    done: BTreeSet<u64>,
    /// Of those, which a crash cannot bring back.
    surely: BTreeSet<u64>,
    /// Confirmed and persistent, in a durable queue.
    safe: BTreeSet<u64>,
    /// Of those that are done, which went on to another queue.
    left: BTreeSet<u64>,
    /// Letters that a crash left with their message: they may come once more.
    twice: BTreeSet<u64>,
}

/// A message that is safe dies: it is safe in one of two queues, and nobody knows in which before the next sync.
#[derive(Debug)]
struct Passing {
    from: usize,
    to: usize,
    message: u64,
}

#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "facts, each for itself")]
struct Publish {
    message: u64,
    queues: Vec<usize>,
    persistent: bool,
    mandatory: bool,
    returned: bool,
    refused: bool,
}

/// A delivery that its client has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    pub(super) queue: usize,
    pub(super) message: u64,
    /// The number of its consumer; absent for a get.
    pub(super) consumer: Option<u64>,
    /// Where it belongs when it comes back.
    pub(super) order: u64,
}

#[derive(Debug, Default)]
pub(super) struct ChannelModel {
    pub(super) held: BTreeMap<u64, Hold>,
    next_publish: u64,
    open: BTreeMap<u64, Publish>,
    pub(super) limit: usize,
    /// Number, queue, prefetch.
    pub(super) consumers: BTreeMap<u64, (usize, usize)>,
}

#[derive(Debug, Default)]
pub(super) struct Judge {
    pub(super) queues: [Model; QUEUES.len()],
    passing: Vec<Passing>,
    letters: u64,
    pub(super) channels: BTreeMap<ChannelKey, ChannelModel>,
    pub(super) happened: Tally,
    pub(super) broken: Option<Broken>,
}

impl Judge {
    pub(super) fn count(&mut self, what: &'static str) {
        *self.happened.entry(what).or_default() += 1;
    }

    pub(super) fn fail(&mut self, promise: Promise, what: String) {
        self.broken.get_or_insert(Broken { promise, what });
    }

    pub(super) fn published(
        &mut self,
        key: ChannelKey,
        message: u64,
        queues: &[usize],
        persistent: bool,
        mandatory: bool,
    ) {
        self.count("published");
        let mut refused = false;
        for queue in queues {
            let model = &mut self.queues[*queue];
            if QUEUES[*queue]
                .max
                .is_some_and(|max| model.ready.len() + 1 > max)
            {
                refused = true;
            } else {
                model.ready.insert(message, message);
            }
        }
        let channel = self.channels.get_mut(&key).expect("an open channel");
        channel.next_publish += 1;
        let publish = Publish {
            message,
            queues: queues.to_vec(),
            persistent,
            mandatory,
            returned: false,
            refused,
        };
        channel.open.insert(channel.next_publish, publish);
    }

    pub(super) fn returned(&mut self, key: ChannelKey, message: u64) {
        self.count("returned");
        let channel = self.channels.get_mut(&key).expect("an open channel");
        let publish = channel.open.values_mut().find(|one| one.message == message);
        match publish {
            Some(publish) if publish.queues.is_empty() && publish.mandatory => {
                publish.returned = true;
            }
            Some(_) | None => {
                self.fail(
                    Promise::Returned,
                    format!("{message} came back without need"),
                );
            }
        }
    }

    /// A word for publishes; `is_safe` knows what is on disk.
    pub(super) fn word(
        &mut self,
        key: ChannelKey,
        number: u64,
        multiple: bool,
        ack: bool,
        is_safe: impl Fn(usize, u64) -> bool,
    ) {
        self.count(match (ack, multiple) {
            (true, false) => "confirmed",
            (true, true) => "confirmed together",
            (false, _) => "refused",
        });
        let channel = self.channels.get_mut(&key).expect("an open channel");
        let mut later = channel.open.split_off(&number);
        let this = later.remove(&number);
        let mut spoken = Vec::new();
        if multiple {
            spoken.extend(core::mem::take(&mut channel.open).into_values());
        }
        channel.open.append(&mut later);
        match this {
            Some(this) => spoken.push(this),
            None => self.fail(
                Promise::OneWord,
                format!("{number} of {key:?} has its word"),
            ),
        }
        for publish in spoken {
            self.spoken(&publish, ack, &is_safe);
        }
    }

    fn spoken(&mut self, publish: &Publish, ack: bool, is_safe: impl Fn(usize, u64) -> bool) {
        let message = publish.message;
        if publish.refused == ack {
            let what = format!("{message} was refused: {}", publish.refused);
            return self.fail(Promise::Refused, what);
        }
        if !ack {
            return;
        }
        if publish.queues.is_empty() && publish.mandatory && !publish.returned {
            self.fail(Promise::Returned, format!("{message} was confirmed first"));
        }
        for queue in &publish.queues {
            let durable = publish.persistent && QUEUES[*queue].durable;
            if !durable {
                continue;
            }
            let goes = QUEUES[*queue].letters;
            let letters =
                goes.filter(|to| QUEUES[*to].durable && !self.queues[*to].done.contains(&message));
            let model = &mut self.queues[*queue];
            let safe = if !model.done.contains(&message) {
                model.safe.insert(message);
                is_safe(*queue, message)
            } else if let Some(to) = letters.filter(|_| model.left.contains(&message)) {
                is_safe(*queue, message) || is_safe(to, message)
            } else {
                true
            };
            if !safe {
                let what = format!("{message} of {} is not on disk", QUEUES[*queue].name);
                self.fail(Promise::ConfirmedIsSafe, what);
            }
        }
    }

    pub(super) fn delivered(
        &mut self,
        key: ChannelKey,
        tag: u64,
        hold: Hold,
        redelivered: bool,
        no_ack: bool,
    ) {
        let Hold {
            queue,
            message,
            consumer,
            ..
        } = hold;
        let model = &mut self.queues[queue];
        let name = QUEUES[queue].name;
        let twice = model.twice.contains(&message);
        let again =
            model.surely.contains(&message) || (model.done.contains(&message) && !redelivered);
        if again && !twice {
            return self.fail(Promise::AckedIsGone, format!("{message} of {name} again"));
        }
        let first = model.ready.pop_first();
        let new = model.seen.insert(message);
        if first.map(|(_, message)| message) != Some(message) {
            let what = format!("{message} of {name} came before {first:?}");
            self.fail(Promise::Order, what);
        }
        let order = first.map_or(0, |(order, _)| order);
        let hold = Hold { order, ..hold };
        if !new && !redelivered && !twice {
            self.fail(Promise::Redelivered, format!("{message} of {name}"));
        }
        self.count(if redelivered {
            "redelivered"
        } else {
            "delivered"
        });
        if no_ack {
            self.done(queue, message);
            return;
        }
        let channel = self.channels.get_mut(&key).expect("an open channel");
        channel.held.insert(tag, hold);
        let by_consumer = channel.held.values().filter(|one| one.consumer.is_some());
        let all = by_consumer.clone().count();
        let his = by_consumer.filter(|one| one.consumer == consumer).count();
        let (limit, prefetch) = (
            channel.limit,
            consumer.map_or(0, |one| channel.consumers.get(&one).map_or(0, |one| one.1)),
        );
        if consumer.is_some() && ((limit > 0 && all > limit) || (prefetch > 0 && his > prefetch)) {
            let what = format!("{key:?} holds {all} of {limit}, its consumer {his} of {prefetch}");
            self.fail(Promise::Prefetch, what);
        }
    }

    fn done(&mut self, queue: usize, message: u64) {
        let model = &mut self.queues[queue];
        model.done.insert(message);
        model.safe.remove(&message);
        self.passing
            .retain(|one| (one.to, one.message) != (queue, message));
    }

    /// A client throws away what it has; where letters are kept, it goes there.
    pub(super) fn refused(&mut self, key: ChannelKey, tag: u64) {
        let channel = self.channels.get_mut(&key).expect("an open channel");
        let hold = channel.held.remove(&tag).expect("he has it");
        self.count("letters");
        self.leave(hold.queue, hold.message);
    }

    /// So many of those that wait are moved to where letters go.
    pub(super) fn moved(&mut self, queue: usize, count: usize) {
        for _ in 0..count {
            self.count("moved");
            let first = self.queues[queue].ready.pop_first();
            let (_, message) = first.expect("no more is moved than waits");
            self.leave(queue, message);
        }
    }

    pub(super) fn purged(&mut self, queue: usize) {
        self.count("purged");
        for message in core::mem::take(&mut self.queues[queue].ready).into_values() {
            self.done(queue, message);
        }
    }

    /// A message leaves for where letters go, if it has such a place.
    fn leave(&mut self, from: usize, message: u64) {
        let was_safe = self.queues[from].safe.contains(&message);
        self.done(from, message);
        let Some(to) = QUEUES[from].letters else {
            return;
        };
        self.queues[from].left.insert(message);
        self.letters += 1;
        self.queues[to].ready.insert(self.letters, message);
        if was_safe && QUEUES[to].durable {
            self.passing.push(Passing { from, to, message });
        }
    }

    /// A client settles what it has.
    pub(super) fn settled(&mut self, key: ChannelKey, tag: u64, multiple: bool, back: bool) {
        let channel = self.channels.get_mut(&key).expect("an open channel");
        let tags: Vec<u64> = if multiple {
            channel.held.range(..=tag).map(|(tag, _)| *tag).collect()
        } else {
            [tag].to_vec()
        };
        let hold = |tag: &u64| channel.held.remove(tag);
        let holds: Vec<Hold> = tags.iter().filter_map(hold).collect();
        assert_eq!(holds.len(), tags.len(), "a client settles what it has");
        for hold in holds {
            if back {
                let model = &mut self.queues[hold.queue];
                model.ready.insert(hold.order, hold.message);
            } else {
                self.done(hold.queue, hold.message);
            }
        }
    }

    pub(super) fn closed(&mut self, key: ChannelKey) {
        let Some(channel) = self.channels.remove(&key) else {
            return;
        };
        for hold in channel.held.into_values() {
            let model = &mut self.queues[hold.queue];
            model.ready.insert(hold.order, hold.message);
        }
    }

    /// What a crash cannot bring back any more.
    pub(super) fn synced(&mut self) {
        for model in &mut self.queues {
            model.surely.extend(model.done.iter().copied());
        }
        for Passing { to, message, .. } in core::mem::take(&mut self.passing) {
            self.queues[to].safe.insert(message);
        }
    }

    /// After a crash: what is there of each queue, in order.
    pub(super) fn restored(&mut self, kept: &[Vec<u64>; QUEUES.len()]) {
        self.count("crashed");
        self.channels.clear();
        let there: Vec<BTreeSet<u64>> =
            kept.iter().map(|of| of.iter().copied().collect()).collect();
        for Passing { from, to, message } in core::mem::take(&mut self.passing) {
            let mut ends = [from, to]
                .into_iter()
                .filter(|end| there[*end].contains(&message));
            match ends.next() {
                Some(end) => {
                    self.queues[end].safe.insert(message);
                }
                None => self.fail(Promise::NothingLost, format!("{message}, a letter")),
            }
        }
        for (queue, kept) in there.iter().enumerate() {
            self.restored_one(queue, kept);
        }
        for (from, kind) in QUEUES.iter().enumerate() {
            let Some(to) = kind.letters else { continue };
            let model = &mut self.queues[to];
            // Letters that were not on disk come anew, as new ones.
            model.seen = there[to].clone();
            model.done.clear();
            model.twice.extend(there[from].intersection(&there[to]));
            model.ready.clear();
            for message in &kept[to] {
                self.letters += 1;
                model.ready.insert(self.letters, *message);
            }
        }
    }

    fn restored_one(&mut self, queue: usize, kept: &BTreeSet<u64>) {
        let name = QUEUES[queue].name;
        let model = &mut self.queues[queue];
        let lost: Vec<u64> = model.safe.difference(kept).copied().collect();
        let again = model.surely.intersection(kept);
        let again: Vec<u64> = again
            .filter(|one| !model.twice.contains(one))
            .copied()
            .collect();
        model.ready = kept.iter().map(|message| (*message, *message)).collect();
        model.left.retain(|message| !kept.contains(message));
        // Its acknowledgement was not on disk.
        model.done.retain(|message| !kept.contains(message));
        // Whether it was delivered, nobody knows: it must say that it may have been.
        model.seen.extend(kept.iter().copied());
        if !lost.is_empty() {
            self.fail(Promise::NothingLost, format!("{lost:?} of {name}"));
        }
        if !again.is_empty() {
            self.fail(
                Promise::AckedIsGone,
                format!("{again:?} of {name} are on disk"),
            );
        }
        if !kept.is_empty() {
            self.count("restored");
        }
    }
}
