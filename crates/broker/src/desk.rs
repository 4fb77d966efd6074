//! What operators ask of a virtual host. What changes something is answered once that is on disk.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use mainstay_amqp::method::{BasicGet, BasicPublish};
use mainstay_amqp::{
    Body, ChannelKey, Content, Definitions, Durability, Everything, Input, Method, Now, Policy,
    Properties, QueueDefinition, Reply, ShortString, User,
};
use mainstay_journal::messages::{Change, Place};
use tokio::sync::oneshot;

use crate::accounts::Compiled;
use crate::definitions::{shown_policy, table};
use crate::exposition::OfVhost;
use crate::host::{Host, OPERATOR};
use crate::mailbox::Letter;
use crate::reader::Reader;
use crate::record;
use crate::view::{self, Deed, Message, Queue};

/// Bytes of bodies in one answer: what a person looks at, and what one message may have.
const BODIES_LEN_MAX: u64 = 128 * 1024 * 1024;
/// The operators' channel.
const CHANNEL: ChannelKey = ChannelKey {
    connection: OPERATOR,
    channel: 1,
};

/// A question.
#[derive(Debug)]
pub(crate) enum Question {
    Queues,
    /// For `/metrics`.
    Measure,
    /// A second is over: rates are looked at.
    Sample,
    Definitions,
    Import(Definitions),
    Policies,
    SetPolicy(Policy),
    RemovePolicy(String),
    Deed(Deed),
}

/// An answer.
#[derive(Debug)]
pub(crate) enum Told {
    Queues(Vec<Queue>),
    Measured(Box<OfVhost>),
    Definitions(Definitions),
    Policies(Vec<view::Policy>),
    Messages(Vec<Shown>),
    Done(usize),
    Refused(String),
}

/// A message that an operator sees.
#[derive(Debug)]
pub(crate) struct Shown {
    exchange: ShortString,
    routing_key: ShortString,
    redelivered: bool,
    body: ShownBody,
}

#[derive(Debug)]
enum ShownBody {
    Here(Bytes),
    Stored(Arc<Place>),
}

impl Shown {
    /// The message with its body, which may have to be read first.
    pub(crate) async fn read(self, reader: &Reader) -> Result<Message, String> {
        let body = match self.body {
            ShownBody::Here(body) => body,
            ShownBody::Stored(place) => {
                let read = reader.read(place).await;
                read.map_err(|error| format!("a body cannot be read: {error}"))?
            }
        };
        let text = std::str::from_utf8(&body).ok().map(str::to_owned);
        Ok(Message {
            exchange: self.exchange.text().into_owned(),
            routing_key: self.routing_key.text().into_owned(),
            redelivered: self.redelivered,
            base64: text.is_none().then(|| STANDARD.encode(&body)),
            text,
        })
    }
}

/// An answer that waits for the disk.
#[derive(Debug)]
pub(crate) struct Unanswered {
    pub(crate) after: u64,
    pub(crate) told: Told,
    pub(crate) to: oneshot::Sender<Told>,
}

impl Host {
    pub(crate) fn ask(&mut self, now: Now, question: Question) -> Told {
        let told = match question {
            Question::Queues => Ok(Told::Queues(self.queues())),
            Question::Measure => Ok(Told::Measured(Box::new(OfVhost::of(&self.broker)))),
            Question::Sample => {
                self.broker.sample(now.instant);
                Ok(Told::Done(0))
            }
            Question::Definitions => Ok(Told::Definitions(self.broker.definitions())),
            Question::Import(definitions) => {
                let imported = self.broker.import(now, &definitions);
                imported
                    .map(|()| Told::Done(0))
                    .map_err(|fault| fault.to_string())
            }
            Question::Policies => Ok(Told::Policies(self.policies())),
            Question::SetPolicy(policy) => {
                let set = self.broker.set_policy(now, policy);
                set.map(|()| Told::Done(0))
                    .map_err(|fault| fault.to_string())
            }
            Question::RemovePolicy(policy) => name(&policy).and_then(|name| {
                let cleared = self.broker.clear_policy(now, &name);
                cleared
                    .map(|()| Told::Done(0))
                    .map_err(|fault| fault.to_string())
            }),
            Question::Deed(deed) => self.deed(now, deed),
        };
        self.carry_out(now);
        told.unwrap_or_else(Told::Refused)
    }

    /// Connections of a user that are there get what it may now. It is looked up here: of two changes that overtake each other
    /// on their way, the newer one holds.
    pub(crate) fn permitted(&mut self, user: &str) {
        let Ok(name) = name(user) else {
            return;
        };
        let rights = {
            let accounts = self.house.accounts.borrow();
            let permission = accounts.permission(self.broker.vhost().name(), user);
            // What cannot be compiled is not taken in; who has such a permission all the same may nothing.
            permission.and_then(|permission| permission.compile().ok())
        };
        let rights = rights.unwrap_or_else(Compiled::nothing);
        let count = self.broker.permit(&name, || Box::new(rights.twin()));
        tracing::debug!(
            user,
            count,
            "permissions hold for connections that are there"
        );
    }

    /// What undoes all of it.
    pub(crate) fn undone(&self) -> Vec<Change> {
        let records = self.broker.undone();
        let changes = records.iter();
        changes
            .flat_map(|record| record::changes_of(self.number, record))
            .collect()
    }

    fn queues(&self) -> Vec<Queue> {
        let view = |queue: mainstay_amqp::QueueView<'_>| {
            let to_empty = queue.rates.seconds_to_empty(queue.ready + queue.unacked);
            Queue {
                vhost: self.broker.vhost().name().to_owned(),
                name: queue.name.text().into_owned(),
                durable: queue.durability == Durability::Durable,
                ready: queue.ready,
                ready_bytes: queue.ready_bytes,
                unacked: queue.unacked,
                consumers: queue.consumers,
                policy: queue.policy.map(|name| name.text().into_owned()),
                published_per_second: queue.rates.published,
                delivered_per_second: queue.rates.delivered,
                acknowledged_per_second: queue.rates.acknowledged,
                seconds_to_empty: to_empty.is_finite().then_some(to_empty),
            }
        };
        self.broker.queues().map(view).collect()
    }

    fn policies(&self) -> Vec<view::Policy> {
        let vhost = self.broker.vhost().name();
        let policies = self.broker.policies();
        policies.map(|one| shown_policy(vhost, one)).collect()
    }

    fn deed(&mut self, now: Now, deed: Deed) -> Result<Told, String> {
        let done = |done: Result<usize, mainstay_amqp::Fault>| {
            done.map(Told::Done).map_err(|fault| fault.to_string())
        };
        match deed {
            Deed::Peek { queue, count } => self.peek(now, &name(&queue)?, count),
            Deed::Take { queue, count } => self.take(now, &name(&queue)?, count),
            Deed::Purge { queue } => done(self.broker.purge(now, &name(&queue)?)),
            Deed::Move { from, to, count } => {
                let (from, to) = (name(&from)?, name(&to)?);
                done(self.broker.move_messages(now, &from, &to, count))
            }
            Deed::Delete { queue } => done(self.broker.remove_queue(now, &name(&queue)?)),
            Deed::Declare { queue, arguments } => {
                let definition = QueueDefinition {
                    name: name(&queue)?,
                    durable: true,
                    auto_delete: false,
                    arguments: table(&arguments)?,
                };
                let definitions = Definitions {
                    queues: vec![definition],
                    ..Definitions::default()
                };
                done(self.broker.import(now, &definitions).map(|()| 0))
            }
            Deed::Publish {
                exchange,
                routing_key,
                body,
            } => self.publish(now, &name(&exchange)?, &name(&routing_key)?, &body),
        }
    }

    fn peek(&self, now: Now, queue: &ShortString, count: usize) -> Result<Told, String> {
        let peeked = self
            .broker
            .peek(now, queue, count)
            .map_err(|fault| fault.to_string())?;
        let mut messages = Vec::new();
        let mut len = 0;
        for one in peeked {
            let message = &one.message;
            len += message.body.len();
            if len > BODIES_LEN_MAX && !messages.is_empty() {
                break;
            }
            messages.push(Shown {
                exchange: message.exchange.clone(),
                routing_key: message.routing_key.clone(),
                redelivered: one.redelivered,
                body: self.body(&message.body)?,
            });
        }
        Ok(Told::Messages(messages))
    }

    /// Where a body is now: what comes after may give the place away.
    fn body(&self, body: &Body) -> Result<ShownBody, String> {
        match body {
            Body::Here(bytes) => Ok(ShownBody::Here(bytes.clone())),
            Body::Stored { place, .. } => {
                let at = record::reference(self.number, place.queue, place.position);
                let place = self.find(at).ok_or("its body is not in the log")?;
                Ok(ShownBody::Stored(place))
            }
        }
    }

    /// Opens the operators' channel anew, since a fault may have closed it.
    fn channel(&mut self, now: Now) {
        let user = User {
            name: "operator".into(),
            rights: Box::new(Everything),
            hears_cancel: false,
        };
        self.input(now, Input::Gone(OPERATOR));
        self.input(now, Input::Opened(OPERATOR, user));
        self.input(now, Input::OpenChannel(CHANNEL));
        self.answers.clear();
    }

    fn method(
        &mut self,
        now: Now,
        method: impl Into<Method>,
        content: Option<Content>,
    ) -> Result<(), String> {
        self.input(now, Input::Method(CHANNEL, method.into(), content));
        let fault = self.answers.iter().find_map(|letter| match letter {
            Letter::Fault(_, fault) => Some(fault.to_string()),
            Letter::Reply(..) | Letter::Opened(_) | Letter::Closed(_) => None,
        });
        fault.map_or(Ok(()), Err)
    }

    fn take(&mut self, now: Now, queue: &ShortString, count: usize) -> Result<Told, String> {
        self.channel(now);
        let mut messages = Vec::new();
        let mut len = 0;
        while messages.len() < count && len < BODIES_LEN_MAX {
            let get = BasicGet {
                queue: queue.clone(),
                no_ack: true,
                ..BasicGet::default()
            };
            self.method(now, get, None)?;
            let Some(Letter::Reply(_, Reply::Content(Method::BasicGetOk(got), _, body), _)) =
                self.answers.pop()
            else {
                break;
            };
            len += body.len();
            messages.push(Shown {
                exchange: got.exchange.clone(),
                routing_key: got.routing_key.clone(),
                redelivered: got.redelivered,
                body: self.body(&body)?,
            });
        }
        Ok(Told::Messages(messages))
    }

    fn publish(
        &mut self,
        now: Now,
        exchange: &ShortString,
        key: &ShortString,
        body: &str,
    ) -> Result<Told, String> {
        let body = STANDARD
            .decode(body)
            .map_err(|why| format!("the body is no base64: {why}"))?;
        self.channel(now);
        let publish = BasicPublish {
            exchange: exchange.clone(),
            routing_key: key.clone(),
            mandatory: true,
            ..BasicPublish::default()
        };
        let persistent = Properties {
            delivery_mode: Some(2),
            ..Properties::default()
        };
        let content = Content {
            properties: persistent.write(),
            body: body.into(),
        };
        self.method(now, publish, Some(content))?;
        let is_return = |letter: &Letter| {
            matches!(
                letter,
                Letter::Reply(_, Reply::Content(Method::BasicReturn(_), ..), _)
            )
        };
        if self.answers.iter().any(is_return) {
            return Err(format!(
                "no queue takes messages of exchange `{exchange}` with key `{key}`"
            ));
        }
        Ok(Told::Done(1))
    }
}

fn name(text: &str) -> Result<ShortString, String> {
    ShortString::new(Bytes::copy_from_slice(text.as_bytes()))
        .ok_or_else(|| "a name has 255 bytes at most".to_owned())
}
