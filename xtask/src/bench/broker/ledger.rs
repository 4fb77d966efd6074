//! Rounds of SIGKILL under load, with a ledger outside of the broker: what was confirmed must be there, what was
//! acknowledged for certain must not come again, and what comes, comes in the order of publishing.
//!
//! An acknowledgement is certain once a later publish on its channel was confirmed.

use anyhow::{Result, bail};
use mainstay_prove::amqp::{Heard, Template, Wire};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

const QUEUE: &str = "ledger";
/// Publishes under way.
const WINDOW: usize = 100;
/// Deliveries that may be held.
const PREFETCH: u16 = 200;
/// A queue that is read to its end says nothing for this long.
const QUIET: Duration = Duration::from_millis(300);

/// A confirm takes a sync of the disk.
const CONFIRM: Duration = Duration::from_secs(30);

/// What is known of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Entry {
    confirmed: bool,
    /// The publish before which it was acknowledged.
    acked_before: Option<u64>,
    acked_for_certain: bool,
}

/// All messages that may still be in the queue.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    messages: BTreeMap<u64, Entry>,
    next: u64,
    pub(super) confirmed: u64,
    pub(super) lost: u64,
    pub(super) redelivered_after_ack: u64,
    pub(super) out_of_order: u64,
}

impl Ledger {
    /// Publishes and consumes on one channel until the broker is gone.
    pub(super) fn work_until_killed(&mut self, address: SocketAddr) -> Result<()> {
        let mut wire = Wire::connect(address)?;
        wire.declare(QUEUE)?;
        wire.select_confirms()?;
        wire.consume(QUEUE, PREFETCH)?;
        let template = Template::new(QUEUE);
        let first = self.next;
        let (mut low, mut sent) = (0, 0);
        loop {
            while sent - low < WINDOW as u64 {
                self.messages.insert(self.next, Entry::default());
                wire.publish(&template, self.next);
                self.next += 1;
                sent += 1;
            }
            // From here on the broker may be gone at any moment.
            if wire.flush().is_err() || !wire.receive().unwrap_or(false) {
                return Ok(());
            }
            while let Some(heard) = wire.heard()? {
                match heard {
                    Heard::Confirmed { tag, multiple } => {
                        let from = if multiple { low + 1 } else { tag };
                        for tag in from..=tag {
                            self.confirm(first + tag - 1);
                        }
                        low = low.max(tag);
                        self.settle(first + tag - 1);
                    }
                    Heard::Delivered { tag, number } => {
                        wire.ack(tag, false);
                        if let Some(entry) = self.messages.get_mut(&number) {
                            entry.acked_before = Some(self.next);
                        }
                    }
                    Heard::Refused { tag } => bail!("publish {tag} was refused"),
                }
            }
        }
    }

    fn confirm(&mut self, number: u64) {
        if let Some(entry) = self.messages.get_mut(&number) {
            self.confirmed += u64::from(!entry.confirmed);
            entry.confirmed = true;
        }
    }

    /// A publish was confirmed: what was acknowledged before it is acknowledged for certain.
    fn settle(&mut self, number: u64) {
        for entry in self.messages.values_mut() {
            entry.acked_for_certain |= entry.acked_before.is_some_and(|before| before <= number);
        }
    }

    /// After the restart: reads the queue to its end and judges what is there.
    pub(super) fn judge(&mut self, address: SocketAddr) -> Result<()> {
        let mut wire = Wire::connect(address)?;
        wire.declare(QUEUE)?;
        wire.select_confirms()?;
        wire.consume(QUEUE, 0)?;
        wire.set_patience(QUIET)?;
        let mut came = Vec::new();
        let mut last_tag = 0;
        let until = Instant::now() + Duration::from_mins(1);
        while wire.receive()? {
            while let Some(heard) = wire.heard()? {
                if let Heard::Delivered { tag, number } = heard {
                    came.push(number);
                    last_tag = tag;
                }
            }
            if Instant::now() > until {
                bail!("the queue does not end");
            }
        }
        self.compare(&came);
        if last_tag > 0 {
            wire.ack(last_tag, true);
        }
        self.make_certain(&mut wire)
    }

    /// Publishes one message more, behind whose confirm all acknowledgements are certain.
    fn make_certain(&mut self, wire: &mut Wire) -> Result<()> {
        wire.set_patience(CONFIRM)?;
        wire.publish(&Template::new(QUEUE), self.next);
        wire.flush()?;
        while wire.receive()? {
            while let Some(heard) = wire.heard()? {
                if matches!(heard, Heard::Confirmed { .. }) {
                    self.messages.insert(self.next, Entry::default());
                    self.confirm(self.next);
                    self.next += 1;
                    return Ok(());
                }
            }
        }
        bail!("a confirm does not come")
    }

    fn compare(&mut self, came: &[u64]) {
        for pair in came.windows(2) {
            self.out_of_order += u64::from(pair[0] >= pair[1]);
        }
        for number in came {
            let entry = self.messages.get(number);
            self.redelivered_after_ack +=
                u64::from(entry.is_none_or(|entry| entry.acked_for_certain));
        }
        for (number, entry) in std::mem::take(&mut self.messages) {
            let may_be_gone = entry.acked_before.is_some() || !entry.confirmed;
            self.lost += u64::from(!may_be_gone && !came.contains(&number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(messages: &[(u64, Entry)]) -> Ledger {
        Ledger {
            messages: messages.iter().copied().collect(),
            ..Ledger::default()
        }
    }

    const CONFIRMED: Entry = Entry {
        confirmed: true,
        acked_before: None,
        acked_for_certain: false,
    };

    #[test]
    fn what_was_confirmed_and_does_not_come_is_lost() {
        let mut ledger = ledger(&[(1, CONFIRMED), (2, CONFIRMED), (3, Entry::default())]);
        ledger.compare(&[2]);
        assert_eq!((ledger.lost, ledger.redelivered_after_ack), (1, 0));
    }

    #[test]
    fn an_ack_is_certain_once_a_later_publish_is_confirmed() {
        let acked = Entry {
            acked_before: Some(10),
            ..CONFIRMED
        };
        let mut one = ledger(&[(1, acked)]);
        one.settle(9);
        one.compare(&[1]);
        let mut other = ledger(&[(1, acked)]);
        other.settle(10);
        other.compare(&[1]);
        let seen = (one.redelivered_after_ack, other.redelivered_after_ack);
        assert_eq!(seen, (0, 1));
    }

    #[test]
    fn what_comes_twice_or_too_early_is_out_of_order() {
        let mut ledger = ledger(&[(1, CONFIRMED), (2, CONFIRMED), (3, CONFIRMED)]);
        ledger.compare(&[1, 3, 2, 2]);
        assert_eq!(ledger.out_of_order, 2);
    }
}
