//! What is declared, out and in, as values. The fields are those of RabbitMQ's `definitions.json`; writing them as JSON,
//! users, permissions and virtual hosts are the driver's.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

use super::Broker;
use super::contract::{Now, Record};
use super::exchanges::{free_name, not_default};
use super::queues::NewQueue;
use crate::code::{Code, Fault};
use crate::field::Table;
use crate::policy::{Checked, Policy};
use crate::text::ShortString;
use crate::vhost::{Binding, Destination, Exchange, name_argument};

/// A queue as it is declared.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueDefinition {
    /// Its name.
    pub name: ShortString,
    /// Whether it outlives the broker.
    pub durable: bool,
    /// Whether it goes with its last consumer.
    pub auto_delete: bool,
    /// Its arguments.
    pub arguments: Table,
}

/// All that is declared in a virtual host.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Definitions {
    /// Exchanges, without those that are always there.
    pub exchanges: Vec<Exchange>,
    /// Queues, without those that belong to a connection.
    pub queues: Vec<QueueDefinition>,
    /// Bindings, without those of the default exchange and of queues that are not among these.
    pub bindings: Vec<Binding>,
    /// Policies.
    pub policies: Vec<Policy>,
}

impl Broker {
    /// What is declared.
    pub fn definitions(&self) -> Definitions {
        let named = self.vhost.exchanges().filter(|one| !is_standard(&one.name));
        let shared = self.names.iter().filter_map(|(name, id)| {
            let slot = self.queues.get(id).filter(|slot| slot.owner.is_none())?;
            Some(QueueDefinition {
                name: name.clone(),
                durable: slot.is_durable(),
                auto_delete: slot.auto_delete,
                arguments: slot.arguments.clone(),
            })
        });
        let is_shared = |binding: &Binding| match &binding.destination {
            Destination::Queue(name) => {
                self.queue(name).is_ok_and(|(_, slot)| slot.owner.is_none())
            }
            Destination::Exchange(_) => true,
        };
        Definitions {
            exchanges: named.cloned().collect(),
            queues: shared.collect(),
            bindings: self.vhost.bindings().filter(is_shared).collect(),
            policies: self.policies().cloned().collect(),
        }
    }

    /// Declares what is not there yet; what is there stays as it is, but for policies, as in RabbitMQ. Everything is checked first: after
    /// an error nothing was declared.
    pub fn import(&mut self, now: Now, definitions: &Definitions) -> Result<(), Fault> {
        let new = |one: &&Exchange| !self.vhost.has_exchange(&one.name);
        let exchanges: Vec<Exchange> = definitions.exchanges.iter().filter(new).cloned().collect();
        for exchange in &exchanges {
            not_default(&exchange.name)?;
            free_name("exchange", &exchange.name)?;
            let what = self.vhost.exchange_words(&exchange.name);
            name_argument(&exchange.arguments, "alternate-exchange", &what)?;
            exchange.check()?;
        }
        let mut queues = Vec::new();
        for queue in &definitions.queues {
            if !self.names.contains_key(&queue.name) {
                queues.push(self.check_definition(queue)?);
            }
        }
        self.check_bindings(definitions)?;
        for policy in &definitions.policies {
            Checked::new(policy.clone())?;
        }
        for policy in &definitions.policies {
            self.set_policy(now, policy.clone())?;
        }
        for mut exchange in exchanges {
            let what = self.vhost.exchange_words(&exchange.name);
            exchange.alternate = name_argument(&exchange.arguments, "alternate-exchange", &what)?;
            self.add_exchange(now, exchange);
        }
        for queue in queues {
            self.add_queue(now, queue)?;
        }
        for binding in &definitions.bindings {
            let mut binding = binding.clone();
            binding.arguments.sort();
            let source = self.vhost.exchange(&binding.source)?.durable;
            let durable = source && self.end_is_durable(&binding.destination)?;
            if self.vhost.bind(binding.clone())? && durable {
                self.record(Record::Binding(binding));
            }
        }
        Ok(())
    }

    fn check_definition(&self, queue: &QueueDefinition) -> Result<NewQueue, Fault> {
        if queue.name.is_empty() {
            let text = "a queue without a name cannot be declared by its definition";
            return Err(Fault::new(Code::PreconditionFailed, text));
        }
        let new = NewQueue {
            name: queue.name.clone(),
            durable: queue.durable,
            auto_delete: queue.auto_delete,
            owner: None,
            arguments: queue.arguments.clone(),
        };
        new.check(&self.vhost.queue_words(&queue.name))?;
        Ok(new)
    }

    /// Both ends of each binding are there, or among what is to be declared.
    fn check_bindings(&self, definitions: &Definitions) -> Result<(), Fault> {
        let exchanges: BTreeSet<&ShortString> =
            definitions.exchanges.iter().map(|one| &one.name).collect();
        let queues: BTreeSet<&ShortString> =
            definitions.queues.iter().map(|one| &one.name).collect();
        let has_exchange =
            |name: &ShortString| self.vhost.has_exchange(name) || exchanges.contains(name);
        for binding in &definitions.bindings {
            not_default(&binding.source)?;
            let missing = if has_exchange(&binding.source) {
                match &binding.destination {
                    Destination::Queue(name) => (!self.names.contains_key(name)
                        && !queues.contains(name))
                    .then(|| self.vhost.queue_words(name)),
                    Destination::Exchange(name) => {
                        (!has_exchange(name)).then(|| self.vhost.exchange_words(name))
                    }
                }
            } else {
                Some(self.vhost.exchange_words(&binding.source))
            };
            if let Some(missing) = missing {
                return Err(Fault::new(Code::NotFound, format!("no {missing}")));
            }
        }
        Ok(())
    }
}

/// Those that are always there are declared by nobody.
pub(super) fn is_standard(name: &ShortString) -> bool {
    name.is_empty() || name.as_bytes().starts_with(b"amq.")
}
