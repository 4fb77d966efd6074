//! Strange packets: all are counted, and told now and then.

use core::net::IpAddr;
use core::time::Duration;

use mainstay_ids::Instant;

use crate::contract::{Action, Actions, Note, Oddity};

/// A hundred packets a second of one kind fill no journal.
const TOLD_EVERY: Duration = Duration::from_mins(1);

#[derive(Debug, Clone, Copy, Default)]
struct Kind {
    count: u64,
    /// When it may be told again.
    quiet_until: Instant,
}

/// Per kind.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Oddities([Kind; Oddity::ALL.len()]);

impl Oddities {
    pub(super) fn note(&mut self, now: Instant, oddity: Oddity, from: IpAddr, out: &mut Actions) {
        let kind = &mut self.0[oddity.index()];
        kind.count += 1;
        if kind.quiet_until <= now {
            kind.quiet_until = now.after(TOLD_EVERY);
            out.push(Action::Tell(Note::Odd(oddity, from)));
        }
    }

    pub(super) fn count(&self, oddity: Oddity) -> u64 {
        self.0[oddity.index()].count
    }
}
