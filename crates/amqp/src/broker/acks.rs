//! What consumers say of what they got.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

use super::Broker;
use super::channel::{By, Mode, Unacked};
use super::contract::Now;
use super::publish::too_large;
use crate::code::{Code, Fault};
use crate::limits::TRANSACTION_MAX;
use crate::method::{BasicAck, BasicNack, BasicRecoverOk, BasicReject};
use crate::planted::Bug;
use crate::queue::{ChannelKey, Settle};

impl Broker {
    pub(super) fn ack(
        &mut self,
        now: Now,
        key: ChannelKey,
        method: &BasicAck,
    ) -> Result<(), Fault> {
        self.settle(now, key, method.delivery_tag, method.multiple, Settle::Ack)
    }

    pub(super) fn nack(
        &mut self,
        now: Now,
        key: ChannelKey,
        method: &BasicNack,
    ) -> Result<(), Fault> {
        let how = refusal(method.requeue);
        self.settle(now, key, method.delivery_tag, method.multiple, how)
    }

    pub(super) fn reject(
        &mut self,
        now: Now,
        key: ChannelKey,
        method: &BasicReject,
    ) -> Result<(), Fault> {
        self.settle(
            now,
            key,
            method.delivery_tag,
            false,
            refusal(method.requeue),
        )
    }

    fn settle(
        &mut self,
        now: Now,
        key: ChannelKey,
        tag: u64,
        multiple: bool,
        how: Settle,
    ) -> Result<(), Fault> {
        let planted = self.planted;
        let channel = self.channel(key);
        let Some(taken) = channel.collect(tag, multiple, planted) else {
            let text = format!("unknown delivery tag {tag}");
            return Err(Fault::new(Code::PreconditionFailed, text));
        };
        match &mut channel.mode {
            Mode::Plain | Mode::Confirm(_) => self.settle_all(now, key, &taken, how),
            Mode::Transaction(transaction) => {
                if transaction.len() + taken.len() > TRANSACTION_MAX {
                    return Err(too_large());
                }
                transaction.settled.push((how, taken));
            }
        }
        Ok(())
    }

    pub(super) fn settle_all(
        &mut self,
        now: Now,
        key: ChannelKey,
        taken: &[(u64, Unacked)],
        how: Settle,
    ) {
        let mut touched = BTreeSet::new();
        for (_, unacked) in taken {
            self.settle_one(now, *unacked, how);
            touched.insert(unacked.queue);
        }
        let consumed = taken.iter().filter(|(_, one)| one.by == By::Consumer);
        let count = u32::try_from(consumed.count()).unwrap_or(u32::MAX);
        let mut limited = false;
        if let Some(channel) = self.channels.get_mut(&key)
            && channel.limit > 0
        {
            channel.counted = channel.counted.saturating_sub(count);
            limited = true;
        }
        for queue in touched {
            self.turn(now, queue);
        }
        if limited && !self.planted.has(Bug::ForgetsCredit) {
            self.wake(now, key);
        }
    }

    /// Settles one with its queue, if that is still there.
    pub(super) fn settle_one(&mut self, now: Now, unacked: Unacked, how: Settle) {
        let Some(slot) = self.queues.get_mut(&unacked.queue) else {
            return;
        };
        self.meters
            .stir(now.instant, unacked.queue, &mut slot.queue);
        let mut effects = Vec::new();
        slot.queue.settle(unacked.position, how, &mut effects);
        self.apply(now, unacked.queue, effects);
    }

    /// All that is not settled goes back to its place, and is delivered anew.
    pub(super) fn recover(
        &mut self,
        now: Now,
        key: ChannelKey,
        requeue: bool,
        answers: bool,
    ) -> Result<(), Fault> {
        if !requeue {
            return Err(Fault::new(Code::NotImplemented, "requeue=false"));
        }
        let unacked = core::mem::take(&mut self.channel(key).unacked);
        let taken: Vec<(u64, Unacked)> = unacked.into_iter().collect();
        if answers {
            self.answer(key, BasicRecoverOk {}.into());
        }
        self.settle_all(now, key, &taken, Settle::Requeue);
        Ok(())
    }
}

fn refusal(requeue: bool) -> Settle {
    if requeue {
        Settle::Requeue
    } else {
        Settle::Discard
    }
}
