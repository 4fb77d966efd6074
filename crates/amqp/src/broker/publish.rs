//! From a publish to the queues.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::channel::{Mode, Publication};
use super::contract::{Now, Output, Right};
use super::queues::REPLY_TO;
use super::{Broker, shown_message};
use crate::code::{Code, Fault};
use crate::limits::TRANSACTION_MAX;
use crate::message::{Content, Message, carbon_copies};
use crate::method::{BasicDeliver, BasicPublish, BasicReturn};
use crate::planted::Bug;
use crate::properties::Properties;
use crate::queue::{ChannelKey, Origin, QueueId};
use crate::session::Reply;
use crate::text::ShortString;
use crate::vhost::{Route, Routed};

/// Where a message goes.
#[derive(Debug)]
pub(super) struct Found {
    /// To these queues.
    pub(super) queues: Vec<QueueId>,
    /// Here it waits for its time.
    pub(super) shelves: Vec<QueueId>,
}

impl Broker {
    pub(super) fn publish(
        &mut self,
        now: Now,
        key: ChannelKey,
        method: &BasicPublish,
        mut content: Content,
    ) -> Result<(), Fault> {
        if method.immediate {
            return Err(Fault::new(Code::NotImplemented, "immediate=true"));
        }
        self.check_exchange(key, Right::Write, &method.exchange)?;
        let exchange = self.vhost.exchange(&method.exchange)?;
        if exchange.internal {
            let what = self.vhost.exchange_words(&method.exchange);
            let text = format!("cannot publish to internal {what}");
            return Err(Fault::new(Code::AccessRefused, text));
        }
        let mut properties = read_properties(&content)?;
        if self.own_properties(key, &mut properties)? {
            content.properties = properties.write();
        }
        let mut keys = Vec::new();
        keys.push(method.routing_key.clone());
        if let Some(headers) = &mut properties.headers {
            keys.extend(carbon_copies(headers, "CC")?);
            let blind = carbon_copies(headers, "BCC")?;
            if headers.remove("BCC").is_some() {
                content.properties = properties.write();
            }
            keys.extend(blind);
        }
        let message = Message::new(&method.exchange, &method.routing_key, content, &properties)?;
        let number = self
            .channel(key)
            .confirms()
            .map(super::channel::Confirms::number);
        let route = Route {
            keys: &keys,
            headers: properties.headers.as_ref(),
        };
        let Found { queues, shelves } = self.route(&method.exchange, route);
        let publication = Publication {
            queues,
            keys: if shelves.is_empty() { Vec::new() } else { keys },
            shelves,
            replied: self.reply_directly(method, &message),
            message: Arc::new(message),
            mandatory: method.mandatory,
            number,
        };
        self.take_in(now, key, publication)
    }

    fn take_in(
        &mut self,
        now: Now,
        key: ChannelKey,
        publication: Publication,
    ) -> Result<(), Fault> {
        match &mut self.channel(key).mode {
            Mode::Plain | Mode::Confirm(_) => self.enqueue(now, key, publication),
            Mode::Transaction(transaction) => {
                if transaction.len() >= TRANSACTION_MAX {
                    return Err(too_large());
                }
                transaction.publishes.push(publication);
            }
        }
        Ok(())
    }

    /// What a publisher says of itself must be true, and where it wants a direct reply, we say where to. Whether
    /// anything was changed.
    fn own_properties(&self, key: ChannelKey, properties: &mut Properties) -> Result<bool, Fault> {
        let user = &self.user(key).name;
        if let Some(claimed) = properties
            .user_id
            .as_ref()
            .filter(|claimed| *claimed != user)
        {
            let text =
                format!("user_id property set to '{claimed}' but authenticated user was '{user}'");
            return Err(Fault::new(Code::PreconditionFailed, text));
        }
        if properties.reply_to.as_ref().is_none_or(|to| to != REPLY_TO) {
            return Ok(false);
        }
        let replies = self.channels.get(&key).and_then(|one| one.replies.as_ref());
        let Some(replies) = replies else {
            let what = "fast reply consumer does not exist";
            return Err(Fault::new(Code::PreconditionFailed, what));
        };
        properties.reply_to = Some(replies.address.clone());
        Ok(true)
    }

    /// Where a message goes.
    pub(super) fn route(&self, exchange: &ShortString, route: Route<'_>) -> Found {
        let Routed { queues, waits_at } = self.vhost.route(exchange, route);
        let numbers = |names: &[ShortString], known: &BTreeMap<ShortString, QueueId>| {
            let numbers = names.iter().filter_map(|name| known.get(name).copied());
            numbers.collect()
        };
        Found {
            queues: numbers(&queues, &self.names),
            shelves: numbers(&waits_at, &self.shelves),
        }
    }

    /// A reply to somebody who waits for it goes past all queues. Whether it found somebody.
    fn reply_directly(&mut self, method: &BasicPublish, message: &Message) -> bool {
        if !method.exchange.is_empty() {
            return false;
        }
        let Some(to) = self.replies.get(&method.routing_key).copied() else {
            return false;
        };
        let Some(channel) = self.channels.get_mut(&to) else {
            return false;
        };
        let Some(consumer) = channel.replies.clone() else {
            return false;
        };
        let deliver = BasicDeliver {
            consumer_tag: consumer.tag,
            delivery_tag: channel.deliver(None),
            redelivered: false,
            exchange: method.exchange.clone(),
            routing_key: method.routing_key.clone(),
        };
        let (properties, body) = (message.properties.clone(), message.body.clone());
        let reply = Reply::Content(deliver.into(), properties, body);
        self.outputs.push_back(Output::Reply(to, reply));
        true
    }

    /// Hands a message to its queues; what none of them takes goes back before it is confirmed.
    pub(super) fn enqueue(&mut self, now: Now, key: ChannelKey, publication: Publication) {
        let Publication {
            message,
            queues,
            shelves,
            keys,
            mandatory,
            number,
            replied,
        } = publication;
        let exists = |queue: &QueueId| self.queues.contains_key(queue);
        let there: Vec<QueueId> = queues.into_iter().filter(exists).collect();
        let waits: Vec<QueueId> = shelves.into_iter().filter(exists).collect();
        // What waits for its time was not without a way: nobody knows yet whether it will be.
        let lost = there.is_empty() && waits.is_empty() && !replied;
        if lost && mandatory && !self.planted.has(Bug::SwallowsReturn) {
            self.give_back_unrouted(key, &message);
        }
        if let Some(number) = number {
            let count = there.len() + waits.len();
            if let Some(confirms) = self.channel(key).confirms() {
                confirms.expect(number, count);
            }
            self.speaking.insert(key);
        }
        let life = self.channel(key).life;
        let origin = number.map(|number| Origin {
            channel: key,
            life,
            number,
        });
        for queue in there {
            self.put(now, queue, Arc::clone(&message), origin);
        }
        for shelf in waits {
            self.shelve(now, shelf, &message, &keys, origin);
        }
    }

    /// Puts a message into a queue, and delivers.
    pub(super) fn put(
        &mut self,
        now: Now,
        queue: QueueId,
        message: Arc<Message>,
        origin: Option<Origin>,
    ) {
        let Some(slot) = self.queues.get_mut(&queue) else {
            return;
        };
        self.meters.stir(now.instant, queue, &mut slot.queue);
        let mut effects = Vec::new();
        slot.queue
            .publish(now.instant, message, origin, &mut effects);
        self.turn_into(now, queue, &mut effects);
        self.apply(now, queue, effects);
    }

    fn give_back_unrouted(&mut self, key: ChannelKey, message: &Message) {
        let (exchange, routing_key) = shown_message(message);
        let method = BasicReturn {
            reply_code: Code::NoRoute.number(),
            reply_text: ShortString::literal("NO_ROUTE"),
            exchange,
            routing_key,
        };
        let (properties, body) = (message.properties.clone(), message.body.clone());
        let reply = Reply::Content(method.into(), properties, body);
        self.outputs.push_back(Output::Reply(key, reply));
    }
}

pub(super) fn too_large() -> Fault {
    let text =
        format!("a transaction holds {TRANSACTION_MAX} publishes and acknowledgements at most");
    Fault::new(Code::ResourceError, text)
}

fn read_properties(content: &Content) -> Result<Properties, Fault> {
    Properties::read(&content.properties).map_err(|why| {
        let text = format!("the properties of a message cannot be read: {why}");
        Fault::new(Code::SyntaxError, text)
    })
}
