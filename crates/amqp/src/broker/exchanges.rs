//! Methods of class exchange, and bindings.

use alloc::format;
use alloc::string::ToString as _;

use super::Broker;
use super::contract::{Output, Record, Right};
use crate::code::{Code, Fault};
use crate::field::Table;
use crate::method::{
    ExchangeBind, ExchangeBindOk, ExchangeDeclare, ExchangeDeclareOk, ExchangeDelete,
    ExchangeDeleteOk, ExchangeUnbind, ExchangeUnbindOk, QueueBind, QueueBindOk, QueueUnbind,
    QueueUnbindOk,
};
use crate::queue::{ChannelKey, assert_equal, inequivalent};
use crate::text::ShortString;
use crate::vhost::{Binding, Destination, Exchange, ExchangeKind, Removed, name_argument};

pub(super) fn not_default(name: &ShortString) -> Result<(), Fault> {
    if name.is_empty() {
        let what = "operation not permitted on the default exchange";
        return Err(Fault::new(Code::AccessRefused, what));
    }
    Ok(())
}

/// A name that a client may give.
pub(super) fn free_name(kind: &str, name: &ShortString) -> Result<(), Fault> {
    if name.as_bytes().starts_with(b"amq.") {
        let what = format!("{kind} name '{name}' contains reserved prefix 'amq.*'");
        return Err(Fault::new(Code::AccessRefused, what));
    }
    Ok(())
}

impl Broker {
    pub(super) fn declare_exchange(
        &mut self,
        key: ChannelKey,
        method: &ExchangeDeclare,
    ) -> Result<(), Fault> {
        let name = method.exchange.without_line_ends().compact();
        let nowait = method.nowait;
        if method.passive {
            not_default(&name)?;
            self.vhost.exchange(&name)?;
        } else {
            let kind = ExchangeKind::parse(&method.kind)?;
            not_default(&name)?;
            self.check_exchange(key, Right::Configure, &name)?;
            if !self.vhost.has_exchange(&name) {
                self.new_exchange(key, &name, kind, method)?;
            }
            self.compare_exchange(&name, kind, method)?;
        }
        if !nowait {
            self.answer(key, ExchangeDeclareOk {}.into());
        }
        Ok(())
    }

    fn new_exchange(
        &mut self,
        key: ChannelKey,
        name: &ShortString,
        kind: ExchangeKind,
        method: &ExchangeDeclare,
    ) -> Result<(), Fault> {
        free_name("exchange", name)?;
        let what = self.vhost.exchange_words(name);
        let alternate = name_argument(&method.arguments, "alternate-exchange", &what)?;
        if let Some(alternate) = &alternate {
            self.check_exchange(key, Right::Read, name)?;
            self.check_exchange(key, Right::Write, alternate)?;
        }
        let exchange = Exchange {
            name: name.clone(),
            kind,
            durable: method.durable,
            auto_delete: method.auto_delete,
            internal: method.internal,
            alternate,
            arguments: method.arguments.clone(),
        };
        self.add_exchange(exchange);
        Ok(())
    }

    /// Adds an exchange under a name that is free.
    pub(super) fn add_exchange(&mut self, exchange: Exchange) {
        if exchange.durable {
            self.record(Record::Exchange(exchange.clone()));
        }
        self.vhost.declare(exchange);
    }

    fn compare_exchange(
        &self,
        name: &ShortString,
        kind: ExchangeKind,
        method: &ExchangeDeclare,
    ) -> Result<(), Fault> {
        let current = self.vhost.exchange(name)?;
        let what = self.vhost.exchange_words(name);
        let differ = |argument: &str, received: &str, current: &str| {
            let quoted = |value: &str| format!("'{value}'");
            Err(inequivalent(
                argument,
                &what,
                &quoted(received),
                &quoted(current),
            ))
        };
        if current.kind.name() != kind.name() {
            return differ("type", kind.name(), current.kind.name());
        }
        let flags = [
            ("durable", method.durable, current.durable),
            ("auto_delete", method.auto_delete, current.auto_delete),
            ("internal", method.internal, current.internal),
        ];
        for (argument, received, current) in flags {
            if received != current {
                return differ(argument, &received.to_string(), &current.to_string());
            }
        }
        let compared = &["alternate-exchange"];
        assert_equal(&current.arguments, &method.arguments, &what, compared)
    }

    pub(super) fn delete_exchange(
        &mut self,
        key: ChannelKey,
        method: &ExchangeDelete,
    ) -> Result<(), Fault> {
        let name = method.exchange.without_line_ends();
        not_default(&name)?;
        self.not_of_the_system(&name)?;
        self.check_exchange(key, Right::Configure, &name)?;
        if method.if_unused && self.vhost.is_source(&name) {
            let text = format!("{} in use", self.vhost.exchange_words(&name));
            return Err(Fault::new(Code::PreconditionFailed, text));
        }
        self.drop_exchange(&name);
        if !method.nowait {
            self.answer(key, ExchangeDeleteOk {}.into());
        }
        Ok(())
    }

    /// Those that are always there stay.
    pub(super) fn not_of_the_system(&self, name: &ShortString) -> Result<(), Fault> {
        if !name.as_bytes().starts_with(b"amq.") {
            return Ok(());
        }
        let what = self.vhost.exchange_words(name);
        let text = format!("deletion of system {what} not allowed");
        Err(Fault::new(Code::AccessRefused, text))
    }

    pub(super) fn drop_exchange(&mut self, name: &ShortString) {
        let removed = self.vhost.delete_exchange(name);
        self.record_removed(removed);
    }

    pub(super) fn record(&mut self, record: Record) {
        self.outputs.push_back(Output::Record(record));
    }

    pub(super) fn record_removed(&mut self, removed: Removed) {
        for binding in removed.bindings {
            let source = removed
                .exchanges
                .iter()
                .find(|one| one.name == binding.source);
            let source = source.map_or_else(
                || {
                    self.vhost
                        .exchange(&binding.source)
                        .is_ok_and(|one| one.durable)
                },
                |exchange| exchange.durable,
            );
            // A queue that is gone takes its bindings along; of those of exchanges each end counts.
            let destination = match &binding.destination {
                Destination::Queue(_) => true,
                Destination::Exchange(name) => {
                    let gone = removed.exchanges.iter().find(|one| one.name == *name);
                    gone.or_else(|| self.vhost.exchange(name).ok())
                        .is_some_and(|one| one.durable)
                }
            };
            if source && destination {
                self.record(Record::NoBinding(binding));
            }
        }
        for exchange in removed.exchanges {
            if exchange.durable {
                self.record(Record::NoExchange(exchange.name));
            }
        }
    }

    pub(super) fn bind_queue(&mut self, key: ChannelKey, method: QueueBind) -> Result<(), Fault> {
        let routing_key = self.short_key(key, &method.queue, &method.routing_key)?;
        let queue = self.short_queue(key, &method.queue)?;
        let destination = Destination::Queue(queue.without_line_ends().compact());
        let binding = binding(
            &method.exchange,
            destination,
            &routing_key,
            method.arguments,
        );
        self.bind(key, binding)?;
        if !method.nowait {
            self.answer(key, QueueBindOk {}.into());
        }
        Ok(())
    }

    pub(super) fn unbind_queue(
        &mut self,
        key: ChannelKey,
        method: QueueUnbind,
    ) -> Result<(), Fault> {
        let routing_key = self.short_key(key, &method.queue, &method.routing_key)?;
        let queue = self.short_queue(key, &method.queue)?;
        let destination = Destination::Queue(queue.without_line_ends());
        let binding = binding(
            &method.exchange,
            destination,
            &routing_key,
            method.arguments,
        );
        self.unbind(key, &binding)?;
        self.answer(key, QueueUnbindOk {}.into());
        Ok(())
    }

    pub(super) fn bind_exchange(
        &mut self,
        key: ChannelKey,
        method: ExchangeBind,
    ) -> Result<(), Fault> {
        let destination = Destination::Exchange(method.destination.without_line_ends().compact());
        let binding = binding(
            &method.source,
            destination,
            &method.routing_key,
            method.arguments,
        );
        self.bind(key, binding)?;
        if !method.nowait {
            self.answer(key, ExchangeBindOk {}.into());
        }
        Ok(())
    }

    pub(super) fn unbind_exchange(
        &mut self,
        key: ChannelKey,
        method: ExchangeUnbind,
    ) -> Result<(), Fault> {
        let destination = Destination::Exchange(method.destination.without_line_ends());
        let binding = binding(
            &method.source,
            destination,
            &method.routing_key,
            method.arguments,
        );
        self.unbind(key, &binding)?;
        if !method.nowait {
            self.answer(key, ExchangeUnbindOk {}.into());
        }
        Ok(())
    }

    /// Rights on both ends, and neither is the default exchange.
    fn check_ends(&self, key: ChannelKey, binding: &Binding) -> Result<(), Fault> {
        match &binding.destination {
            Destination::Queue(name) => self.check_queue(key, Right::Write, name)?,
            Destination::Exchange(name) => {
                self.check_exchange(key, Right::Write, name)?;
                not_default(name)?;
            }
        }
        not_default(&binding.source)?;
        self.check_exchange(key, Right::Read, &binding.source)
    }

    /// Whether the end of a binding outlives the broker.
    pub(super) fn end_is_durable(&self, destination: &Destination) -> Result<bool, Fault> {
        match destination {
            Destination::Queue(name) => Ok(self.queue(name)?.1.is_durable()),
            Destination::Exchange(name) => Ok(self.vhost.exchange(name)?.durable),
        }
    }

    /// The same for a client, who may have nothing to do with it.
    fn end(&self, key: ChannelKey, destination: &Destination) -> Result<bool, Fault> {
        if let Destination::Queue(name) = destination {
            let (_, slot) = self.queue(name)?;
            slot.check_owner(key, &self.vhost.queue_words(name))?;
        }
        self.end_is_durable(destination)
    }

    fn bind(&mut self, key: ChannelKey, binding: Binding) -> Result<(), Fault> {
        self.check_ends(key, &binding)?;
        // RabbitMQ looks for the source first.
        let source = self.vhost.exchange(&binding.source)?.durable;
        let destination = self.end(key, &binding.destination)?;
        if self.vhost.bind(binding.clone())? && source && destination {
            self.record(Record::Binding(binding));
        }
        Ok(())
    }

    /// To take away a binding that is not there does no harm, nor if its ends are not.
    fn unbind(&mut self, key: ChannelKey, binding: &Binding) -> Result<(), Fault> {
        self.check_ends(key, binding)?;
        if let Destination::Queue(name) = &binding.destination
            && let Ok((_, slot)) = self.queue(name)
        {
            slot.check_owner(key, &self.vhost.queue_words(name))?;
        }
        if let Some(removed) = self.vhost.unbind(binding) {
            self.record_removed(removed);
        }
        Ok(())
    }
}

fn binding(
    source: &ShortString,
    destination: Destination,
    key: &ShortString,
    mut arguments: Table,
) -> Binding {
    arguments.sort();
    Binding {
        source: source.without_line_ends().compact(),
        destination,
        key: key.compact(),
        arguments,
    }
}
