//! One producer and one consumer through lapin, as most Rust programs would: reported, not a bar.

use anyhow::{Context as _, Result};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::FieldTable,
};
use mainstay_prove::amqp::BODY_LEN;
use std::{
    collections::VecDeque,
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    time::{Duration, Instant},
};

/// Publishes under way.
const WINDOW: usize = 100;
const PREFETCH: u16 = 500;
/// It acknowledges so many at once.
const ACK_EVERY: u64 = 50;

async fn open(address: SocketAddr) -> Result<(Connection, Channel)> {
    let uri = format!("amqp://guest:guest@{address}/%2f");
    let connection = Connection::connect(&uri, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}

/// Messages per second that were confirmed and consumed.
pub(super) async fn run(address: SocketAddr, queue: &str, lasts: Duration) -> Result<f64> {
    let (_publishing, channel) = open(address).await?;
    let declare = QueueDeclareOptions::durable();
    channel
        .queue_declare(queue.into(), declare, FieldTable::default())
        .await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let (_consuming, other) = open(address).await?;
    other
        .basic_qos(PREFETCH, BasicQosOptions::default())
        .await?;
    let options = BasicConsumeOptions::default();
    let consumer = other
        .basic_consume(queue.into(), "c".into(), options, FieldTable::default())
        .await?;
    let start = Instant::now();
    let (sent, came) = tokio::try_join!(
        produce(&channel, queue, lasts),
        consume(consumer, &other, start + lasts)
    )?;
    channel
        .queue_delete(queue.into(), QueueDeleteOptions::default())
        .await?;
    #[expect(clippy::cast_precision_loss, reason = "below 2^52")]
    Ok(sent.min(came) as f64 / lasts.as_secs_f64())
}

async fn produce(channel: &Channel, queue: &str, lasts: Duration) -> Result<u64> {
    let body = vec![b'x'; BODY_LEN];
    let properties = BasicProperties::default().with_delivery_mode(2);
    let start = Instant::now();
    let mut under_way = VecDeque::new();
    let mut confirmed = 0;
    while start.elapsed() < lasts || !under_way.is_empty() {
        while under_way.len() < WINDOW && start.elapsed() < lasts {
            let options = BasicPublishOptions::default();
            let publish =
                channel.basic_publish("".into(), queue.into(), options, &body, properties.clone());
            under_way.push_back(publish.await?);
        }
        if let Some(first) = under_way.pop_front() {
            first.await?;
            confirmed += u64::from(start.elapsed() < lasts);
        }
    }
    Ok(confirmed)
}

async fn consume(mut consumer: lapin::Consumer, channel: &Channel, until: Instant) -> Result<u64> {
    let mut came = 0;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let next =
            poll_fn(|context| futures_util::Stream::poll_next(Pin::new(&mut consumer), context));
        let Ok(next) = tokio::time::timeout(left, next).await else {
            return Ok(came);
        };
        let delivery = next.context("the consumer was cancelled")??;
        came += 1;
        if came % ACK_EVERY == 0 {
            let all = BasicAckOptions { multiple: true };
            channel.basic_ack(delivery.delivery_tag, all).await?;
        }
    }
}
