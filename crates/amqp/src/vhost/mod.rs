//! Where messages go in one virtual host: exchanges and the bindings between them and to queues. Queues are names here.

mod bindings;
mod delay;
mod exchange;
#[cfg(test)]
mod tests;
mod topic;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use self::bindings::Bindings;
pub use self::bindings::{Binding, Destination};
pub(crate) use self::delay::{X_DELAY, delay, delay_ms};
pub use self::exchange::{Exchange, ExchangeKind};
use crate::code::{Code, Fault};
use crate::field::{Table, Value};
use crate::text::ShortString;

/// What a message is routed by.
#[derive(Debug, Clone, Copy)]
pub struct Route<'a> {
    /// The key, and those of `CC` and `BCC`.
    pub keys: &'a [ShortString],
    /// The headers, for exchanges of that type.
    pub headers: Option<&'a Table>,
}

/// Where a message goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routed {
    /// To these queues.
    pub queues: Vec<ShortString>,
    /// At these exchanges it waits for its time.
    pub waits_at: Vec<ShortString>,
}

/// What went away with something else.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Removed {
    /// Exchanges, that which was asked for and those that were to be deleted with their last binding.
    pub exchanges: Vec<Exchange>,
    /// Bindings.
    pub bindings: Vec<Binding>,
}

/// Exchanges and bindings of one virtual host.
#[derive(Debug)]
pub struct Vhost {
    name: String,
    exchanges: BTreeMap<ShortString, Exchange>,
    bindings: Bindings,
    /// Alternates by policies, for exchanges that were declared without.
    alternates: BTreeMap<ShortString, ShortString>,
}

impl Vhost {
    /// One with the exchanges that are always there.
    pub fn new(name: impl Into<String>) -> Self {
        let exchanges = exchange::standard().map(|exchange| (exchange.name.clone(), exchange));
        Self {
            name: name.into(),
            exchanges: exchanges.collect(),
            bindings: Bindings::default(),
            alternates: BTreeMap::new(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How RabbitMQ's texts call an exchange.
    pub fn exchange_words(&self, name: &ShortString) -> String {
        format!("exchange '{name}' in vhost '{}'", self.name)
    }

    /// How RabbitMQ's texts call a queue.
    pub fn queue_words(&self, name: &ShortString) -> String {
        format!("queue '{name}' in vhost '{}'", self.name)
    }

    /// The exchange of this name.
    pub fn exchange(&self, name: &ShortString) -> Result<&Exchange, Fault> {
        let missing = || {
            let what = format!("no {}", self.exchange_words(name));
            Fault::new(Code::NotFound, what)
        };
        self.exchanges.get(name).ok_or_else(missing)
    }

    /// Whether there is one of this name.
    pub fn has_exchange(&self, name: &ShortString) -> bool {
        self.exchanges.contains_key(name)
    }

    /// Each exchange.
    pub fn exchanges(&self) -> impl Iterator<Item = &Exchange> {
        self.exchanges.values()
    }

    /// Each binding, without those of the default exchange, which are not written down.
    pub fn bindings(&self) -> impl Iterator<Item = Binding> {
        self.bindings.iter()
    }

    /// Adds an exchange under a name that is free.
    pub fn declare(&mut self, exchange: Exchange) {
        self.exchanges.insert(exchange.name.clone(), exchange);
    }

    /// A policy names what takes that for which an exchange knows no queue, or none does.
    pub(crate) fn rule(&mut self, exchange: &ShortString, alternate: Option<ShortString>) {
        match alternate {
            Some(alternate) => {
                self.alternates.insert(exchange.clone(), alternate);
            }
            None => {
                self.alternates.remove(exchange);
            }
        }
    }

    /// Whether anything is bound from it.
    pub fn is_source(&self, exchange: &ShortString) -> bool {
        self.bindings.is_source(exchange)
    }

    /// Deletes an exchange with all its bindings, and what goes with them.
    pub fn delete_exchange(&mut self, name: &ShortString) -> Removed {
        let mut removed = Removed::default();
        self.remove_exchange(name, &mut removed);
        removed
    }

    /// Takes an exchange away, and, one after another, those that were to go with their last binding.
    fn remove_exchange(&mut self, name: &ShortString, removed: &mut Removed) {
        let mut open = Vec::new();
        open.push(name.clone());
        while let Some(name) = open.pop() {
            let Some(exchange) = self.exchanges.remove(&name) else {
                continue;
            };
            self.alternates.remove(&name);
            removed.exchanges.push(exchange);
            removed.bindings.extend(self.bindings.take_source(&name));
            open.extend(self.unbind_all(&Destination::Exchange(name), removed));
        }
    }

    /// A queue is gone: its bindings go, and what was to go with the last of them.
    pub fn delete_queue(&mut self, name: &ShortString) -> Removed {
        let mut removed = Removed::default();
        for done in self.unbind_all(&Destination::Queue(name.clone()), &mut removed) {
            self.remove_exchange(&done, &mut removed);
        }
        removed
    }

    /// Takes all bindings to there away; the exchanges that are done because of it.
    fn unbind_all(&mut self, destination: &Destination, removed: &mut Removed) -> Vec<ShortString> {
        let taken = self.bindings.take_destination(destination);
        let sources: BTreeSet<ShortString> =
            taken.iter().map(|binding| binding.source.clone()).collect();
        removed.bindings.extend(taken);
        let done = |source: &ShortString| self.is_done(source);
        sources.into_iter().filter(done).collect()
    }

    /// Whether an exchange was to be deleted with its last binding, and that is gone.
    fn is_done(&self, source: &ShortString) -> bool {
        let exchange = self.exchanges.get(source);
        exchange.is_some_and(|one| one.auto_delete) && !self.bindings.is_source(source)
    }

    /// Adds a binding whose ends exist; whether it is a new one.
    pub fn bind(&mut self, binding: Binding) -> Result<bool, Fault> {
        let source = self.exchange(&binding.source)?;
        if source.chooses() == ExchangeKind::Headers {
            exchange::check_headers_binding(&binding.arguments)?;
        }
        let kind = source.chooses();
        Ok(self.bindings.add(kind, binding))
    }

    /// Takes a binding away, with the exchange that was to go with its last one; `None` if there is none.
    pub fn unbind(&mut self, binding: &Binding) -> Option<Removed> {
        if !self.bindings.remove(binding) {
            return None;
        }
        let mut removed = Removed::default();
        removed.bindings.push(binding.clone());
        if self.is_done(&binding.source) {
            self.remove_exchange(&binding.source, &mut removed);
        }
        Some(removed)
    }

    /// Where a message goes from an exchange, to each once. Where an exchange knows nothing, its alternate one is asked.
    pub fn route(&self, exchange: &ShortString, route: Route<'_>) -> Routed {
        let mut queues = Vec::new();
        let mut waits_at = Vec::new();
        let mut seen: BTreeSet<&ShortString> = BTreeSet::new();
        let mut open: Vec<&ShortString> = Vec::new();
        open.push(exchange);
        while let Some(name) = open.pop() {
            let Some((name, exchange)) = self.exchanges.get_key_value(name) else {
                continue;
            };
            if !seen.insert(name) {
                continue;
            }
            if exchange.kind == ExchangeKind::Delayed && delay(route.headers).is_some() {
                waits_at.push(name.clone());
                continue;
            }
            let mut found = false;
            if exchange.kind == ExchangeKind::Default {
                found = true;
                queues.extend(route.keys.iter().cloned());
            }
            self.bindings.matching(exchange, route, |destination| {
                found = true;
                match destination {
                    Destination::Queue(queue) => queues.push(queue.clone()),
                    Destination::Exchange(next) => open.push(next),
                }
            });
            if !found {
                let ruled = || self.alternates.get(name);
                open.extend(exchange.alternate.as_ref().or_else(ruled));
            }
        }
        if queues.len() > 1 {
            queues.sort();
            queues.dedup();
        }
        Routed { queues, waits_at }
    }
}

/// The text of an argument that names something; `None` without it.
pub(crate) fn name_argument(
    arguments: &Table,
    name: &str,
    what: &str,
) -> Result<Option<ShortString>, Fault> {
    match arguments.get(name) {
        None => Ok(None),
        Some(Value::String(bytes)) => Ok(ShortString::new(bytes.clone()).map(|s| s.compact())),
        Some(other) => {
            let kind = other.type_name();
            let text = format!("invalid type '{kind}' for arg '{name}' in {what}");
            Err(Fault::new(Code::PreconditionFailed, text))
        }
    }
}
