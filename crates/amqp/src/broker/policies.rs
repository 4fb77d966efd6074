//! Policies, and what is in force because of them.

use alloc::format;
use alloc::vec::Vec;

use super::Broker;
use super::contract::{Now, Record};
use super::queues::Purpose;
use crate::code::{Code, Fault};
use crate::policy::{Checked, Policy};
use crate::queue::QueueId;
use crate::text::ShortString;

impl Broker {
    /// Each policy, by name.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.policies.iter()
    }

    /// The policy that is in force for an exchange of this name.
    pub fn policy_of_exchange(&self, name: &ShortString) -> Option<&Policy> {
        self.policies.of_exchange(name).map(|one| &one.policy)
    }

    /// Sets a policy, or sets it anew. What it says of a queue is in force at once, but for the time to live of
    /// messages that wait already.
    pub fn set_policy(&mut self, now: Now, policy: Policy) -> Result<(), Fault> {
        let checked = Checked::new(policy.clone())?;
        self.policies.set(checked)?;
        self.record(Record::Policy(policy));
        self.put_in_force(now);
        Ok(())
    }

    /// Takes a policy away.
    pub fn clear_policy(&mut self, now: Now, name: &ShortString) -> Result<(), Fault> {
        if !self.policies.clear(name) {
            let text = format!("no policy '{name}' in vhost '{}'", self.vhost.name());
            return Err(Fault::new(Code::NotFound, text));
        }
        self.record(Record::NoPolicy(name.clone()));
        self.put_in_force(now);
        Ok(())
    }

    pub(super) fn put_in_force(&mut self, now: Now) {
        let ids: Vec<QueueId> = self.queues.keys().copied().collect();
        for id in ids {
            self.rule_queue(now, id);
        }
        let names: Vec<ShortString> = self.vhost.exchanges().map(|one| one.name.clone()).collect();
        for name in names {
            self.rule_exchange(&name);
        }
    }

    /// Puts in force what arguments and policy say together of a queue.
    pub(super) fn rule_queue(&mut self, now: Now, id: QueueId) {
        let slot = self.queues.get_mut(&id);
        let Some(slot) = slot.filter(|slot| slot.purpose == Purpose::Clients) else {
            return;
        };
        let policy = self.policies.of_queue(&slot.name);
        slot.policy = policy.map(|one| one.policy.name.clone());
        let has_overflow = slot.arguments.get("x-overflow").is_some();
        let ruled = slot.read.under(has_overflow, policy.map(|one| &one.saying));
        if slot.queue.arguments() != &ruled {
            slot.queue.rule(ruled);
            self.turn(now, id);
        }
    }

    /// The same of an exchange.
    pub(super) fn rule_exchange(&mut self, name: &ShortString) {
        let policy = self.policies.of_exchange(name);
        let alternate = policy.and_then(|one| one.saying.alternate.clone());
        self.vhost.rule(name, alternate);
    }
}
