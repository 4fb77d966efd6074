//! Messages with `x-delay` through an exchange of type `x-delayed-message`, over the wire and over a death of the broker.
//! RabbitMQ does it by a plugin that Debian does not have, so that there is nothing to compare with.

mod alone;

use std::time::{Duration, Instant};

use alone::{Alone, PATIENCE, on_runtime};
use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Consumer, ExchangeKind};
use tokio::time::timeout;

const EARLY_MS: i32 = 400;
const LATE_MS: i32 = 4000;

/// A durable exchange that delays, and a durable queue behind it.
async fn declare(channel: &Channel) {
    let mut arguments = FieldTable::default();
    let direct = AMQPValue::LongString(LongString::from("direct"));
    arguments.insert("x-delayed-type".into(), direct);
    let kind = ExchangeKind::Custom("x-delayed-message".to_owned());
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let declared = channel.exchange_declare("later".into(), kind, durable, arguments);
    declared.await.expect("an exchange");
    let durable = QueueDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let declared = channel.queue_declare("due".into(), durable, FieldTable::default());
    declared.await.expect("a queue");
    let bound = channel.queue_bind(
        "due".into(),
        "later".into(),
        "due".into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    bound.await.expect("a binding");
    let confirms = channel.confirm_select(ConfirmSelectOptions::default());
    confirms.await.expect("confirms are on");
}

/// Publishes a persistent message, and waits for its confirm.
async fn publish(channel: &Channel, body: &str, delay_ms: Option<i32>) {
    let mut headers = FieldTable::default();
    if let Some(delay) = delay_ms {
        headers.insert("x-delay".into(), AMQPValue::LongInt(delay));
    }
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_headers(headers);
    let options = BasicPublishOptions::default();
    let published = channel.basic_publish(
        "later".into(),
        "due".into(),
        options,
        body.as_bytes(),
        properties,
    );
    let confirm = published.await.expect("it is sent").await;
    assert!(confirm.expect("it is answered").is_ack(), "{body}");
}

async fn consume(channel: &Channel) -> Consumer {
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume("due".into(), "".into(), options, FieldTable::default());
    consumer.await.expect("it consumes")
}

async fn next(consumer: &mut Consumer) -> Delivery {
    let delivery = timeout(PATIENCE, consumer.next()).await;
    let delivery = delivery.expect("it comes in time").expect("it goes on");
    let delivery = delivery.expect("a delivery");
    let acknowledged = delivery.ack(BasicAckOptions::default());
    acknowledged.await.expect("it is acknowledged");
    delivery
}

fn milliseconds(count: i32) -> Duration {
    Duration::from_millis(u64::try_from(count).expect("a delay"))
}

#[test]
fn system_a_delayed_message_comes_at_its_time_though_the_broker_died_meanwhile() {
    let mut broker = Alone::start("broker-delays");
    let began = Instant::now();
    on_runtime(async {
        let client = broker.client().await;
        let channel = client.create_channel().await.expect("a channel");
        declare(&channel).await;
        publish(&channel, "late", Some(LATE_MS)).await;
        publish(&channel, "early", Some(EARLY_MS)).await;
        publish(&channel, "now", None).await;
        let mut consumer = consume(&channel).await;
        assert_eq!(next(&mut consumer).await.data, b"now");
        let early = next(&mut consumer).await;
        assert_eq!(early.data, b"early");
        assert!(began.elapsed() >= milliseconds(EARLY_MS));
        // An acknowledgement holds once a later publish of its channel is confirmed.
        publish(&channel, "mark", Some(LATE_MS + 1)).await;
    });
    broker.kill();
    broker.start_again();
    broker.wait_until_it_serves();
    on_runtime(async {
        let client = broker.client().await;
        let channel = client.create_channel().await.expect("a channel");
        let mut consumer = consume(&channel).await;
        let late = next(&mut consumer).await;
        assert_eq!(late.data, b"late");
        assert!(began.elapsed() >= milliseconds(LATE_MS));
        let headers = late.properties.headers().clone().expect("headers");
        let delay = headers.inner().get("x-delay").cloned();
        assert_eq!(delay, Some(AMQPValue::LongInt(-LATE_MS)));
        assert_eq!(next(&mut consumer).await.data, b"mark");
    });
}
