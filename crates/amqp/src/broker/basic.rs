//! Consumers, `basic.get` and prefetch.

use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;

use super::Broker;
use super::channel::{By, ReplyConsumer, Unacked};
use super::contract::{Now, Output, Right};
use super::queues::REPLY_TO;
use crate::code::{Code, Fault};
use crate::field::{Table, Value};
use crate::method::{
    BasicCancel, BasicCancelOk, BasicConsume, BasicConsumeOk, BasicGet, BasicGetEmpty, BasicGetOk,
    BasicQos, BasicQosOk,
};
use crate::queue::{ChannelKey, ConsumerKey, Delivery, NewConsumer, QueueId, QueueKind};
use crate::session::Reply;
use crate::text::ShortString;

/// How often a message came back, for queues that are called quorum queues.
const DELIVERY_COUNT: ShortString = ShortString::literal("x-delivery-count");

impl Broker {
    pub(super) fn consume(
        &mut self,
        now: Now,
        key: ChannelKey,
        method: &BasicConsume,
    ) -> Result<(), Fault> {
        if method.queue == REPLY_TO {
            return self.consume_replies(key, method);
        }
        let name = self.short_queue(key, &method.queue)?;
        self.check_tag(key, &method.consumer_tag)?;
        self.check_queue(key, Right::Read, &name)?;
        let (id, slot) = self.queue(&name)?;
        let what = self.vhost.queue_words(&name);
        slot.check_owner(key, &what)?;
        let priority = priority(&method.arguments, &what)?;
        let tag = self.tag(&method.consumer_tag);
        let new = NewConsumer {
            key: ConsumerKey {
                channel: key,
                tag: tag.clone(),
            },
            no_ack: method.no_ack,
            exclusive: method.exclusive,
            prefetch: self.channel(key).prefetch,
            priority,
        };
        let slot = self.queues.get_mut(&id).expect("found just now");
        if slot.queue.consume(new).is_err() {
            let text = format!("{what} in exclusive use");
            return Err(Fault::new(Code::AccessRefused, text));
        }
        slot.was_consumed = true;
        self.channel(key).consumers.insert(tag.clone(), id);
        if !method.nowait {
            self.answer(key, BasicConsumeOk { consumer_tag: tag }.into());
        }
        self.turn(now, id);
        Ok(())
    }

    fn check_tag(&self, key: ChannelKey, tag: &ShortString) -> Result<(), Fault> {
        let used = self.channels.get(&key).is_some_and(|channel| {
            channel.consumers.contains_key(tag)
                || channel.replies.as_ref().is_some_and(|one| one.tag == *tag)
        });
        if used {
            let text = format!("attempt to reuse consumer tag '{tag}'");
            return Err(Fault::new(Code::NotAllowed, text));
        }
        Ok(())
    }

    fn tag(&mut self, asked: &ShortString) -> ShortString {
        if asked.is_empty() {
            return self.names_given.next("amq.ctag");
        }
        asked.compact()
    }

    fn consume_replies(&mut self, key: ChannelKey, method: &BasicConsume) -> Result<(), Fault> {
        self.check_tag(key, &method.consumer_tag)?;
        let refuse = |what: &str| Err(Fault::new(Code::PreconditionFailed, what));
        if !method.no_ack {
            return refuse("reply consumer cannot acknowledge");
        }
        if self.channel(key).replies.is_some() {
            return refuse("reply consumer already set");
        }
        let tag = self.tag(&method.consumer_tag);
        let secret = self.names_given.next("to");
        let address = ShortString::cut(&format!("{REPLY_TO}.{secret}"));
        self.replies.insert(address.clone(), key);
        let consumer = ReplyConsumer {
            tag: tag.clone(),
            address,
        };
        self.channel(key).replies = Some(consumer);
        if !method.nowait {
            self.answer(key, BasicConsumeOk { consumer_tag: tag }.into());
        }
        Ok(())
    }

    /// To cancel what is not there does no harm.
    pub(super) fn cancel(&mut self, now: Now, key: ChannelKey, method: BasicCancel) {
        let tag = method.consumer_tag;
        let channel = self.channel(key);
        let replies = channel.replies.take_if(|replies| replies.tag == tag);
        let queue = channel.consumers.remove(&tag);
        if let Some(replies) = replies {
            self.replies.remove(&replies.address);
        }
        if let Some(queue) = queue {
            let consumer = ConsumerKey {
                channel: key,
                tag: tag.clone(),
            };
            self.remove_consumer(now, queue, &consumer);
        }
        if !method.nowait {
            self.answer(key, BasicCancelOk { consumer_tag: tag }.into());
        }
        if let Some(queue) = queue
            && !self.delete_if_done(now, queue)
        {
            // The next of a single active consumer has its turn.
            self.turn(now, queue);
        }
    }

    pub(super) fn get(
        &mut self,
        now: Now,
        key: ChannelKey,
        method: &BasicGet,
    ) -> Result<(), Fault> {
        let name = self.short_queue(key, &method.queue)?;
        self.check_queue(key, Right::Read, &name)?;
        let (id, slot) = self.queue(&name)?;
        slot.check_owner(key, &self.vhost.queue_words(&name))?;
        let mut effects = Vec::new();
        let slot = self.queues.get_mut(&id).expect("found just now");
        self.meters.stir(now.instant, id, &mut slot.queue);
        let got = slot.queue.get(now.instant, method.no_ack, &mut effects);
        match got {
            None => self.answer(key, BasicGetEmpty::default().into()),
            Some((delivery, left)) => self.hand_over(now, id, key, &delivery, left),
        }
        self.apply(now, id, effects);
        self.set_timer(id);
        Ok(())
    }

    fn hand_over(
        &mut self,
        now: Now,
        id: QueueId,
        key: ChannelKey,
        delivery: &Delivery,
        left: usize,
    ) {
        let unacked = Unacked {
            queue: id,
            position: delivery.position,
            by: By::Get,
            since: now.instant,
        };
        let unacked = (!delivery.no_ack).then_some(unacked);
        let delivery_tag = self.channel(key).deliver(unacked);
        self.watch(key);
        let method = BasicGetOk {
            delivery_tag,
            redelivered: delivery.redelivered,
            exchange: delivery.message.exchange.clone(),
            routing_key: delivery.message.routing_key.clone(),
            message_count: u32::try_from(left).unwrap_or(u32::MAX),
        };
        let properties = self.properties_of(id, delivery);
        let body = delivery.message.body.clone();
        let reply = Reply::Content(method.into(), properties, body);
        self.outputs.push_back(Output::Reply(key, reply));
    }

    /// Flags and properties of a delivery; queues that are called quorum queues say how often it came back.
    pub(super) fn properties_of(&self, id: QueueId, delivery: &Delivery) -> Bytes {
        let message = &delivery.message;
        let slot = self.queues.get(&id);
        let counts = slot.is_some_and(|slot| slot.queue.arguments().kind == QueueKind::Quorum);
        if !counts {
            return message.properties.clone();
        }
        let Ok(mut properties) = message.read_properties() else {
            return message.properties.clone();
        };
        let headers = properties.headers.get_or_insert_default();
        headers.set(DELIVERY_COUNT, Value::Long(i64::from(delivery.returns)));
        properties.write()
    }

    pub(super) fn qos(
        &mut self,
        now: Now,
        key: ChannelKey,
        method: &BasicQos,
    ) -> Result<(), Fault> {
        if method.prefetch_size != 0 {
            let text = format!("prefetch_size!=0 ({})", method.prefetch_size);
            return Err(Fault::new(Code::NotImplemented, text));
        }
        let channel = self.channel(key);
        let prefetch = u32::from(method.prefetch_count);
        if method.global {
            channel.limit = prefetch;
            let held = channel.unacked.values();
            let held = held.filter(|one| one.by == By::Consumer).count();
            channel.counted = u32::try_from(held).unwrap_or(u32::MAX);
        } else {
            // As in RabbitMQ, a prefetch per consumer ends one for the whole channel.
            channel.limit = 0;
            channel.prefetch = prefetch;
        }
        self.answer(key, BasicQosOk {}.into());
        self.wake(now, key);
        Ok(())
    }
}

fn priority(arguments: &Table, queue: &str) -> Result<i64, Fault> {
    let Some(value) = arguments.get("x-priority") else {
        return Ok(0);
    };
    value.integer().ok_or_else(|| {
        let kind = value.type_name();
        let text =
            format!("invalid arg 'x-priority' for {queue}: \"expected integer, got {kind}\"");
        Fault::new(Code::PreconditionFailed, text)
    })
}
