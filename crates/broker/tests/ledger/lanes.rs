//! The queues, and those who publish and consume.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection};

use super::Shared;
use super::book::{Got, Last};
use crate::alone::connect;

/// What kind of queue it is, and so what order it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    /// With four priorities: order within each.
    Ranked,
    /// What comes are dead letters: one may come twice.
    Letters,
}

/// Where a publisher's messages go in, and come out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lane {
    pub(super) queue: &'static str,
    pub(super) from: &'static str,
    pub(super) kind: Kind,
}

const fn plain(queue: &'static str) -> Lane {
    let (from, kind) = (queue, Kind::Plain);
    Lane { queue, from, kind }
}

pub(super) const LANES: [Lane; 5] = [
    plain("one"),
    plain("two"),
    plain("three"),
    Lane {
        queue: "ranks",
        from: "ranks",
        kind: Kind::Ranked,
    },
    Lane {
        queue: "short",
        from: "letters",
        kind: Kind::Letters,
    },
];

/// Publishes under way.
const WINDOW: usize = 64;
/// Deliveries under way.
const PREFETCH: u16 = 100;
/// Deliveries after which a consumer makes sure that its acknowledgements are kept.
const MARK_EVERY: usize = 16;
/// Where those publishes go.
const MARKS: &str = "marks";
/// The queue that nobody reads until the end.
const STAYS: &str = "stays";
/// What is in it.
pub(crate) const KEPT: u64 = 64;
/// How long what dies of its age lives.
const SHORT_MS: i32 = 20;
/// Large enough that a run goes through many segments.
const BODY_LEN: usize = 6 * 1024;

/// A body that says its number and its length.
pub(super) fn body(number: u64) -> Vec<u8> {
    let mut body = number.to_be_bytes().to_vec();
    // Some are small and stay in the frame's copy, some are not.
    if !number.is_multiple_of(3) {
        body.resize(BODY_LEN, b'.');
    }
    body
}

fn number_of(body: &[u8]) -> u64 {
    let number = body.first_chunk::<8>();
    u64::from_be_bytes(*number.expect("our own body"))
}

/// Which of the orders of its queue a message stands in.
pub(super) fn rank(kind: Kind, number: u64) -> usize {
    match kind {
        Kind::Plain | Kind::Letters => 0,
        Kind::Ranked => usize::from(priority(number)),
    }
}

/// Runs of several, so that neighbours have the same one.
fn priority(number: u64) -> u8 {
    u8::try_from(number / 4 % 4).expect("less than four")
}

fn arguments(queue: &str) -> FieldTable {
    let mut arguments = FieldTable::default();
    let mut set = |name: &str, value| {
        arguments.insert(name.into(), value);
    };
    match queue {
        "ranks" => set("x-max-priority", AMQPValue::LongInt(3)),
        "short" => {
            set("x-message-ttl", AMQPValue::LongInt(SHORT_MS));
            let letters = AMQPValue::LongString("letters".into());
            set("x-dead-letter-exchange", AMQPValue::LongString("".into()));
            set("x-dead-letter-routing-key", letters);
        }
        _ => {}
    }
    arguments
}

/// A connection with a channel in confirm mode and these queues.
async fn enter(address: SocketAddr, queues: &[&str]) -> lapin::Result<(Connection, Channel)> {
    let connection = connect(address).await?;
    let channel = connection.create_channel().await?;
    let confirms = ConfirmSelectOptions::default();
    channel.confirm_select(confirms).await?;
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    for name in queues {
        let declare = channel.queue_declare((*name).into(), durable, arguments(name));
        declare.await?;
    }
    Ok((connection, channel))
}

async fn send(
    channel: &Channel,
    queue: &str,
    body: &[u8],
    priority: u8,
) -> lapin::Result<impl Future<Output = lapin::Result<Confirmation>> + use<>> {
    let options = BasicPublishOptions::default();
    let persistent = BasicProperties::default().with_delivery_mode(2);
    let properties = persistent.with_priority(priority);
    channel
        .basic_publish("".into(), queue.into(), options, body, properties)
        .await
}

/// Between two looks of a client that does nothing.
const LOOK: Duration = Duration::from_millis(5);
/// How long a client waits for one answer before it begins anew: longer than a full disk lasts in any test.
const ANSWER: Duration = Duration::from_secs(30);

/// A client that hangs is not to hold up the test, but is told.
async fn in_time<T>(
    what: &str,
    answer: impl Future<Output = lapin::Result<T>>,
) -> lapin::Result<T> {
    if let Ok(answer) = tokio::time::timeout(ANSWER, answer).await {
        answer
    } else {
        println!("no answer within {ANSWER:?}: {what}");
        Err(lapin::ErrorKind::InvalidChannel(0).into())
    }
}

/// Publishes until it is stopped or cut off. What has no word when it is cut off is unknown, and not said again.
pub(super) async fn publish(
    address: SocketAddr,
    shared: &Shared,
    lane: usize,
) -> lapin::Result<()> {
    let Lane { queue, from, .. } = LANES[lane];
    let (_connection, channel) = in_time("enter", enter(address, &[queue, from])).await?;
    let mut under_way = VecDeque::new();
    let mut looks = tokio::time::interval(LOOK);
    while !shared.stop_publishing.load(Ordering::Relaxed) {
        let waits = shared.is_far_ahead(lane);
        if !waits {
            let number = shared.of(lane).next_number();
            let body = body(number);
            let sent = send(&channel, queue, &body, priority(number));
            under_way.push_back((number, in_time("publish", sent).await?));
        }
        if under_way.len() < WINDOW && !waits {
            continue;
        }
        let Some((number, confirm)) = under_way.pop_front() else {
            looks.tick().await;
            continue;
        };
        if let Confirmation::Ack(_) = in_time("confirm", confirm).await? {
            shared.of(lane).confirmed.insert(number);
        }
    }
    for (number, confirm) in under_way {
        if let Confirmation::Ack(_) = in_time("last confirm", confirm).await? {
            shared.of(lane).confirmed.insert(number);
        }
    }
    Ok(())
}

pub(super) async fn consume(
    address: SocketAddr,
    shared: &Shared,
    lane: usize,
) -> lapin::Result<()> {
    let Lane { queue, from, kind } = LANES[lane];
    let (_connection, channel) = in_time("enter", enter(address, &[queue, from, MARKS])).await?;
    let prefetch = BasicQosOptions::default();
    in_time("qos", channel.basic_qos(PREFETCH, prefetch)).await?;
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(from.into(), "".into(), options, FieldTable::default());
    let mut consumer = in_time("consume", consumer).await?;
    let mut last = Last::default();
    let mut acknowledged = Vec::new();
    let mut looks = tokio::time::interval(LOOK);
    while !shared.is_stopped() {
        // One whose connection broke while it began to consume is not told by its stream.
        if !channel.status().connected() {
            return Err(lapin::ErrorKind::InvalidChannel(channel.id()).into());
        }
        if shared.lazy.load(Ordering::Relaxed) {
            looks.tick().await;
            continue;
        }
        let next = tokio::time::timeout(Duration::from_millis(100), consumer.next()).await;
        let Ok(next) = next else {
            continue;
        };
        let Some(delivery) = next else {
            // The broker is gone.
            return Err(lapin::ErrorKind::InvalidChannel(channel.id()).into());
        };
        let delivery = delivery?;
        let number = number_of(&delivery.data);
        let got = Got {
            number,
            redelivered: delivery.redelivered,
            body: &delivery.data,
        };
        shared.of(lane).take(kind, &mut last, got);
        let ack = delivery.acker.ack(BasicAckOptions::default());
        in_time("ack", ack).await?;
        shared.of(lane).taken.insert(number);
        acknowledged.push(number);
        if shared.marks
            && acknowledged.len() >= MARK_EVERY
            && let Confirmation::Ack(_) =
                in_time("mark", send(&channel, MARKS, b"", 0).await?).await?
        {
            shared.of(lane).settled.extend(acknowledged.drain(..));
        }
    }
    Ok(())
}

/// Puts in what stays.
pub(super) async fn fill_kept(address: SocketAddr) -> lapin::Result<()> {
    let (_connection, channel) = enter(address, &[STAYS]).await?;
    for number in 1..=KEPT {
        let confirm = send(&channel, STAYS, &body(number), 0).await?.await?;
        assert!(matches!(confirm, Confirmation::Ack(_)), "{confirm:?}");
    }
    Ok(())
}

/// Takes out what stayed, and says what is wrong with it.
pub(super) async fn empty_kept(address: SocketAddr) -> lapin::Result<Vec<String>> {
    let (_connection, channel) = enter(address, &[STAYS]).await?;
    let mut wrong = Vec::new();
    for wanted in 1..=KEPT {
        let got = channel.basic_get(STAYS.into(), BasicGetOptions::default());
        match got.await? {
            Some(got) if got.data == body(wanted) => {
                got.acker.ack(BasicAckOptions::default()).await?;
            }
            Some(got) => wrong.push(format!(
                "{STAYS}: {} came in the place of {wanted}",
                number_of(&got.data)
            )),
            None => wrong.push(format!("{STAYS}: {wanted} is lost")),
        }
    }
    Ok(wrong)
}
