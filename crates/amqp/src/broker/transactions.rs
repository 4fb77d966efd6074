//! `tx`: publishes and acknowledgements that take effect together. As in RabbitMQ, together means at once on this
//! broker, not that a crash may not come between.

use super::Broker;
use super::channel::{Commit, Mode, Transaction};
use super::contract::Now;
use crate::code::{Code, Fault};
use crate::method::{TxCommit, TxCommitOk, TxRollbackOk, TxSelectOk};
use crate::queue::ChannelKey;

fn not_transactional() -> Fault {
    Fault::new(Code::PreconditionFailed, "channel is not transactional")
}

impl Broker {
    pub(super) fn select_transaction(&mut self, key: ChannelKey) -> Result<(), Fault> {
        let channel = self.channel(key);
        match &channel.mode {
            Mode::Plain => channel.mode = Mode::Transaction(Transaction::new()),
            Mode::Transaction(_) => {}
            Mode::Confirm(_) => {
                let what = "cannot switch from confirm to tx mode";
                return Err(Fault::new(Code::PreconditionFailed, what));
            }
        }
        self.answer(key, TxSelectOk {}.into());
        Ok(())
    }

    pub(super) fn commit(&mut self, now: Now, key: ChannelKey) -> Result<(), Fault> {
        let Mode::Transaction(transaction) = &mut self.channel(key).mode else {
            return Err(not_transactional());
        };
        if transaction.state == Commit::UnderWay {
            let what = "unexpected command while processing 'tx.commit'";
            return Err(Fault::new(Code::ChannelError, what));
        }
        let publishes = core::mem::take(&mut transaction.publishes);
        let settled = core::mem::take(&mut transaction.settled);
        transaction.state = Commit::UnderWay;
        for publication in publishes {
            self.enqueue(now, key, publication);
        }
        for (how, taken) in settled {
            self.settle_all(now, key, &taken, how);
        }
        self.speaking.insert(key);
        Ok(())
    }

    /// Says that a commit is done, once all that it published is safe.
    pub(super) fn finish_commit(&mut self, now: Now, key: ChannelKey) {
        let Some(channel) = self.channels.get_mut(&key) else {
            return;
        };
        let Mode::Transaction(transaction) = &mut channel.mode else {
            return;
        };
        match transaction.confirms.settled() {
            None => {}
            Some(true) => {
                transaction.state = Commit::Open;
                self.answer(key, TxCommitOk {}.into());
            }
            Some(false) => {
                let fault = Fault::new(Code::PreconditionFailed, "partial tx completion");
                self.fault(now, key, fault.by(TxCommit::ID));
            }
        }
    }

    pub(super) fn roll_back(&mut self, key: ChannelKey) -> Result<(), Fault> {
        let channel = self.channel(key);
        let Mode::Transaction(transaction) = &mut channel.mode else {
            return Err(not_transactional());
        };
        if transaction.state == Commit::UnderWay {
            let what = "unexpected command while processing 'tx.commit'";
            return Err(Fault::new(Code::ChannelError, what));
        }
        transaction.publishes.clear();
        let settled = core::mem::take(&mut transaction.settled);
        let back = settled.into_iter().flat_map(|(_, taken)| taken);
        channel.unacked.extend(back);
        self.watch(key);
        self.answer(key, TxRollbackOk {}.into());
        Ok(())
    }
}
