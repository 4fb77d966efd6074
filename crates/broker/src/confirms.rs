//! What one channel published and was confirmed, seen from outside of the broker's core: counts confirms, and in debug builds
//! proves that none leaves before what it speaks of is on disk.

use std::collections::BTreeSet;

use mainstay_amqp::QueueId;

/// A channel in confirm mode.
#[derive(Debug)]
pub(crate) struct Confirms {
    /// The number of the next publish.
    next: u64,
    /// All up to here have their word.
    floor: u64,
    /// Above it, these have.
    ahead: BTreeSet<u64>,
    #[cfg(debug_assertions)]
    unsynced: std::collections::BTreeMap<u64, Vec<(QueueId, u64)>>,
}

impl Confirms {
    pub(crate) fn new() -> Self {
        Self {
            next: 1,
            floor: 0,
            ahead: BTreeSet::new(),
            #[cfg(debug_assertions)]
            unsynced: std::collections::BTreeMap::new(),
        }
    }

    /// Something was published, and is stored at these places.
    #[cfg_attr(
        not(debug_assertions),
        expect(unused_variables, reason = "looked at in debug builds")
    )]
    pub(crate) fn published(&mut self, stored: Vec<(QueueId, u64)>) {
        let number = self.next;
        self.next += 1;
        #[cfg(debug_assertions)]
        if !stored.is_empty() {
            self.unsynced.insert(number, stored);
        }
    }

    /// A word goes out: of how many publishes it speaks. `is_synced` knows whether a place is on disk, or was
    /// refused or forgotten since.
    #[cfg_attr(
        not(debug_assertions),
        expect(unused_variables, reason = "looked at in debug builds")
    )]
    pub(crate) fn spoken(
        &mut self,
        number: u64,
        multiple: bool,
        is_synced: impl Fn(QueueId, u64) -> bool,
    ) -> u64 {
        #[cfg(debug_assertions)]
        {
            let later = self.unsynced.split_off(&(number + 1));
            let mut spoken = std::mem::replace(&mut self.unsynced, later);
            if !multiple {
                let own = spoken.remove(&number);
                self.unsynced.append(&mut spoken);
                spoken.extend(own.map(|own| (number, own)));
            }
            for (number, places) in &spoken {
                for (queue, position) in places {
                    assert!(
                        is_synced(*queue, *position),
                        "publish {number} is confirmed, and {queue:?} {position} is not on disk"
                    );
                }
            }
        }
        if multiple {
            let singles = self.ahead.range(..=number).count() as u64;
            let spoken = number.saturating_sub(self.floor).saturating_sub(singles);
            self.ahead = self.ahead.split_off(&(number + 1));
            self.floor = self.floor.max(number);
            self.sink();
            return spoken;
        }
        let fresh = number > self.floor && self.ahead.insert(number);
        self.sink();
        u64::from(fresh)
    }

    fn sink(&mut self) {
        while self.ahead.remove(&(self.floor + 1)) {
            self.floor += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_publish_is_counted_once() {
        let mut confirms = Confirms::new();
        for _ in 0..10 {
            confirms.published(Vec::new());
        }
        let mut speak = |number, multiple| confirms.spoken(number, multiple, |_, _| true);
        assert_eq!(speak(2, false), 1);
        assert_eq!(speak(4, false), 1);
        assert_eq!(speak(5, true), 3, "1, 3 and 5");
        assert_eq!(speak(6, false), 1);
        assert_eq!(speak(10, true), 4);
    }

    #[test]
    #[cfg(debug_assertions)]
    fn a_confirm_of_what_is_not_on_disk_is_seen() {
        let early = std::panic::catch_unwind(|| {
            let mut confirms = Confirms::new();
            confirms.published(vec![(QueueId(1), 7)]);
            confirms.published(vec![(QueueId(1), 8)]);
            confirms.spoken(2, true, |_, position| position < 8)
        });
        assert!(early.is_err());
        let mut confirms = Confirms::new();
        confirms.published(vec![(QueueId(1), 7)]);
        confirms.published(vec![(QueueId(1), 8)]);
        assert_eq!(confirms.spoken(1, false, |_, position| position < 8), 1);
    }
}
