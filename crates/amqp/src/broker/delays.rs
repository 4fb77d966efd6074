//! Messages that wait for their time at an exchange of type `x-delayed-message`, as RabbitMQ's plugin has it. Each such
//! exchange has a queue of its own, which nobody sees: what waits there is stored, confirmed and unloaded like all else.
//!
//! The hour at which a message is due outlives the broker in a header, which nobody sees either.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::Broker;
use super::contract::{Now, Record};
use super::queues::{Purpose, Slot};
use crate::field::{Table, Value};
use crate::message::Message;
use crate::properties::Properties;
use crate::queue::{Arguments, Durability, Origin, Queue, QueueId};
use crate::text::ShortString;
use crate::vhost::{Exchange, ExchangeKind, Route, X_DELAY, delay, delay_ms};

/// When it is due, and with which keys it came, while it waits.
const X_WAITS: &str = "x-mainstay-waits";

/// The header that a message has while it waits.
fn waits(due_ms: u64, keys: &[ShortString]) -> Value {
    let text = |key: &ShortString| Value::String(key.bytes().clone());
    Value::Table(Table::new(Vec::from([
        (ShortString::literal("due"), Value::Timestamp(due_ms)),
        (
            ShortString::literal("keys"),
            Value::Array(keys.iter().map(text).collect()),
        ),
    ])))
}

/// The hour and the keys, of a message that waited.
fn waited(headers: &mut Table) -> (u64, Vec<ShortString>) {
    let Some(Value::Table(table)) = headers.remove(X_WAITS) else {
        return (0, Vec::new());
    };
    let due = match table.get("due") {
        Some(Value::Timestamp(due)) => *due,
        Some(_) | None => 0,
    };
    let short = |value: &Value| ShortString::new(value.string()?.clone());
    let keys = match table.get("keys") {
        Some(Value::Array(keys)) => keys.iter().filter_map(short).collect(),
        Some(_) | None => Vec::new(),
    };
    (due, keys)
}

impl Broker {
    /// Messages that wait for their time at an exchange; `None` if none can.
    pub fn delayed(&self, exchange: &ShortString) -> Option<usize> {
        let id = self.shelves.get(exchange)?;
        self.queues.get(id).map(|slot| slot.queue.unacked())
    }

    /// An exchange that delays gets its queue.
    pub(super) fn add_shelf(&mut self, now: Now, exchange: &Exchange) {
        if exchange.kind != ExchangeKind::Delayed {
            return;
        }
        let id = QueueId(self.next_queue);
        let durability = if exchange.durable {
            self.record(Record::Delays(id, exchange.name.clone()));
            Durability::Durable
        } else {
            Durability::Transient
        };
        self.put_shelf(now, id, exchange.name.clone(), durability);
    }

    pub(super) fn put_shelf(
        &mut self,
        now: Now,
        id: QueueId,
        exchange: ShortString,
        durability: Durability,
    ) {
        self.next_queue = self.next_queue.max(id.0 + 1);
        let arguments = Arguments::default();
        let queue = Queue::with(id, now.instant, arguments, durability, self.planted);
        let slot = Slot::new(exchange.clone(), queue, durability, Purpose::Delays);
        self.shelves.insert(exchange, id);
        self.queues.insert(id, slot);
    }

    /// The exchange is gone, and so is what waited there.
    pub(super) fn drop_shelf(&mut self, now: Now, exchange: &ShortString) {
        let id = self.shelves.remove(exchange);
        let Some((id, mut slot)) = id.and_then(|id| Some((id, self.queues.remove(&id)?))) else {
            return;
        };
        self.memory.here -= slot.counted;
        self.due.retain(|(_, other, _)| *other != id);
        if slot.is_durable() {
            self.record(Record::NoQueue(id));
        }
        let mut effects = Vec::new();
        slot.queue.close(&mut effects);
        self.apply(now, id, effects);
    }

    /// A message waits until its time has come.
    pub(super) fn shelve(
        &mut self,
        now: Now,
        id: QueueId,
        message: &Message,
        keys: &[ShortString],
        origin: Option<Origin>,
    ) {
        let Ok(mut properties) = message.read_properties() else {
            return;
        };
        let delay = delay(properties.headers.as_ref()).unwrap_or_default();
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        let due_ms = now.wall.0.saturating_add(delay_ms);
        let headers = properties.headers.get_or_insert_default();
        headers.set(ShortString::literal(X_WAITS), waits(due_ms, keys));
        let Some(waiting) = changed(message, &properties) else {
            return;
        };
        let mut effects = Vec::new();
        let Some(slot) = self.queues.get_mut(&id) else {
            return;
        };
        let queue = &mut slot.queue;
        let position = queue.shelve(now.instant, Arc::new(waiting), origin, &mut effects);
        self.due.insert((now.instant.after(delay), id, position));
        self.apply(now, id, effects);
    }

    /// The time of what waits first has come.
    pub(super) fn ripen(&mut self, now: Now) {
        let Some((_, id, position)) = self.due.pop_first() else {
            return;
        };
        let Some(slot) = self.queues.get_mut(&id) else {
            return;
        };
        let exchange = slot.name.clone();
        let Some((message, forget)) = slot.queue.unshelve(position) else {
            return;
        };
        if let Ok(properties) = message.read_properties() {
            self.send_on(now, &exchange, &message, properties);
        }
        // Stored where it goes before it is forgotten here, as dead letters are.
        self.apply(now, id, forget.into_iter().collect());
    }

    fn send_on(
        &mut self,
        now: Now,
        exchange: &ShortString,
        message: &Message,
        mut properties: Properties,
    ) {
        let headers = properties.headers.get_or_insert_default();
        let (_, mut keys) = waited(headers);
        if keys.is_empty() {
            keys.push(message.routing_key.clone());
        }
        if let Some(delay) = delay_ms(headers) {
            let value = i32::try_from(-delay).map_or(Value::Long(-delay), Value::Int);
            headers.set(ShortString::literal(X_DELAY), value);
        }
        let Some(message) = changed(message, &properties).map(Arc::new) else {
            return;
        };
        let route = Route {
            keys: &keys,
            headers: properties.headers.as_ref(),
        };
        for queue in self.route(exchange, route).queues {
            self.put(now, queue, Arc::clone(&message), None);
        }
    }

    /// What waited when the broker ended waits on, by the hour.
    pub(super) fn shelve_again(
        &mut self,
        now: Now,
        id: QueueId,
        position: u64,
        message: &Arc<Message>,
    ) {
        let headers = message.read_properties().ok().and_then(|all| all.headers);
        let (due, _) = waited(&mut headers.unwrap_or_default());
        let left = Duration::from_millis(due.saturating_sub(now.wall.0));
        if let Some(slot) = self.queues.get_mut(&id) {
            slot.queue.restore_shelved(now.instant, position, message);
            self.due.insert((now.instant.after(left), id, position));
        }
    }
}

/// The same message with other properties.
fn changed(message: &Message, properties: &Properties) -> Option<Message> {
    let (exchange, key) = (&message.exchange, &message.routing_key);
    let (raw, body) = (properties.write(), message.body.clone());
    Message::with_body(exchange, key, &raw, body, properties).ok()
}
