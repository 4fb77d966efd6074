//! Dead letters, with the history that RabbitMQ writes into `x-death`.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::Broker;
use super::contract::Now;
use crate::field::{Table, Value};
use crate::message::{Message, carbon_copies};
use crate::properties::Properties;
use crate::queue::{Death, QueueId};
use crate::text::ShortString;
use crate::vhost::Route;

/// Where the history is.
const X_DEATH: &str = "x-death";

const fn name(text: &'static str) -> ShortString {
    ShortString::literal(text)
}

impl Broker {
    /// Sends a dead message on its way. Where its exchange is not there, it is gone, as in RabbitMQ.
    pub(super) fn dead_letter(&mut self, now: Now, from: QueueId, message: &Message, death: Death) {
        let Some(slot) = self.queues.get(&from) else {
            return;
        };
        let arguments = slot.queue.arguments();
        let Some(exchange) = arguments.dead_letter_exchange.clone() else {
            return;
        };
        if !self.vhost.has_exchange(&exchange) {
            return;
        }
        let key = arguments.dead_letter_key.clone();
        let source = slot.name.clone();
        let Ok(mut properties) = message.read_properties() else {
            return;
        };
        bury(&mut properties, now, message, death, &source);
        let headers = properties.headers.get_or_insert_default();
        let mut keys = Vec::new();
        if let Some(key) = key {
            headers.remove("CC");
            keys.push(key);
        } else {
            keys.push(message.routing_key.clone());
            keys.extend(carbon_copies(headers, "CC").unwrap_or_default());
        }
        let headers = properties.headers.clone().unwrap_or_default();
        let (raw, body) = (properties.write(), message.body.clone());
        let Ok(letter) = Message::with_body(&exchange, &keys[0], &raw, body, &properties) else {
            return;
        };
        let letter = Arc::new(letter);
        let route = Route {
            keys: &keys,
            headers: Some(&headers),
        };
        for queue in self.route(&exchange, route) {
            let name = self.queues.get(&queue).map(|slot| &slot.name);
            let turns = name.is_some_and(|name| is_cycle(name, &headers));
            if death == Death::Rejected || !turns {
                self.put(now, queue, Arc::clone(&letter), None);
            }
        }
    }
}

/// Writes the death into the headers; the expiration is over and moves there, too.
fn bury(
    properties: &mut Properties,
    now: Now,
    message: &Message,
    death: Death,
    queue: &ShortString,
) {
    let text = |text: &ShortString| Value::String(text.bytes().clone());
    let headers = properties.headers.get_or_insert_default();
    let mut keys = vec![text(&message.routing_key)];
    for header in ["CC", "BCC"] {
        let copies = carbon_copies(headers, header).unwrap_or_default();
        keys.extend(copies.iter().map(text));
    }
    let mut fields = vec![
        (name("count"), Value::Long(1)),
        (name("reason"), Value::literal(death.word())),
        (name("queue"), text(queue)),
        (name("time"), Value::Timestamp(now.wall.0 / 1000)),
        (name("exchange"), text(&message.exchange)),
        (name("routing-keys"), Value::Array(keys)),
    ];
    if let Some(expiration) = properties.expiration.take() {
        fields.push((name("original-expiration"), text(&expiration)));
    }
    match headers.get(X_DEATH) {
        Some(Value::Array(history)) => {
            let history = longer(history.clone(), Table::new(fields), queue, death);
            headers.set(name(X_DEATH), Value::Array(history));
        }
        // What is no history is written over, as in RabbitMQ.
        Some(_) => {
            let first = Value::Table(Table::new(fields));
            headers.set(name(X_DEATH), Value::Array(vec![first]));
        }
        None => {
            headers.set(name("x-first-death-reason"), Value::literal(death.word()));
            headers.set(name("x-first-death-queue"), text(queue));
            headers.set(name("x-first-death-exchange"), text(&message.exchange));
            let first = Value::Table(Table::new(fields));
            headers.set(name(X_DEATH), Value::Array(vec![first]));
        }
    }
}

/// The history with one more death: the one of the same queue and reason is counted up and comes first.
fn longer(history: Vec<Value>, new: Table, queue: &ShortString, death: Death) -> Vec<Value> {
    let same = |value: &Value| match value {
        Value::Table(table) => {
            let is = |field: &str, bytes: &[u8]| {
                table
                    .get(field)
                    .and_then(Value::string)
                    .is_some_and(|one| one == bytes)
            };
            is("queue", queue.as_bytes()) && is("reason", death.word().as_bytes())
        }
        _ => false,
    };
    let (known, others): (Vec<Value>, Vec<Value>) = history.into_iter().partition(same);
    let mut first = match known.into_iter().next() {
        Some(Value::Table(mut known)) => {
            let count = known.get("count").and_then(Value::integer).unwrap_or(0);
            known.set(name("count"), Value::Long(count.saturating_add(1)));
            known
        }
        Some(_) | None => new,
    };
    first.sort();
    let mut history = vec![Value::Table(first)];
    history.extend(others);
    history
}

/// Whether a message comes to a queue again in which it was, without anybody having refused it since.
fn is_cycle(queue: &ShortString, headers: &Table) -> bool {
    let Some(Value::Array(history)) = headers.get(X_DEATH) else {
        return false;
    };
    let text = |value: &Value, field: &str| match value {
        Value::Table(table) => table.get(field).and_then(Value::string).cloned(),
        _ => None,
    };
    let here = |value: &Value| text(value, "queue").is_some_and(|name| name == queue.as_bytes());
    let Some(last) = history.iter().position(here) else {
        return false;
    };
    let refused = |value: &Value| {
        text(value, "reason").is_none_or(|reason| reason == Death::Rejected.word().as_bytes())
    };
    !history[..=last].iter().any(refused)
}
