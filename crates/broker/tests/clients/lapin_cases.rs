//! What a broker owes a program that uses lapin: each case is one thing, tried through the crate itself.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use lapin::message::{BasicGetMessage, Delivery};
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions,
    BasicPublishOptions, BasicQosOptions, BasicRejectOptions, ChannelFlowOptions,
    ConfirmSelectOptions, ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, DecimalValue, FieldArray, FieldTable, ShortString};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, Error,
    ErrorKind, ExchangeKind,
};

type Outcome = Result<(), Box<dyn std::error::Error>>;
type Case = fn(SocketAddr) -> Pin<Box<dyn Future<Output = Outcome>>>;

/// For what must come.
const PATIENCE: Duration = Duration::from_secs(10);
/// In which what must not come would have come.
const QUIET: Duration = Duration::from_millis(80);

macro_rules! cases {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), |at| Box::pin($name(at)))),*] };
}

const CASES: &[(&str, Case)] = cases![
    a_connection_says_what_was_agreed,
    a_wrong_password_is_refused,
    a_wrong_vhost_is_refused,
    a_queue_tells_its_counts,
    an_error_closes_its_channel_alone,
    errors_have_their_codes,
    an_exclusive_queue_is_locked,
    nothing_to_get_is_none,
    a_message_is_got_with_its_properties,
    headers_of_every_type_come_through,
    a_large_body_comes_whole,
    a_publish_is_confirmed,
    a_mandatory_message_comes_with_its_confirm,
    returned_messages_are_waited_for,
    a_full_queue_refuses,
    a_thousand_confirms_are_under_way_at_once,
    eight_channels_publish_at_once,
    publishing_to_no_exchange_closes_the_channel,
    a_consumer_gets_everything_in_order,
    what_is_nacked_is_delivered_again,
    what_is_rejected_is_gone,
    a_prefetch_is_kept,
    a_deleted_queue_ends_its_consumers,
    a_cancelled_consumer_ends,
    consumers_of_two_connections_share,
    what_a_lost_channel_held_comes_back,
    an_exchange_leads_to_another,
    a_transaction_is_committed_or_rolled_back,
    a_dead_letter_says_why,
    a_queue_in_use_is_kept,
    flow_is_answered,
    an_auto_delete_queue_goes,
];

/// Plays all cases: how many there are, and what went wrong.
pub(crate) fn play(at: SocketAddr) -> (usize, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut wrong = Vec::new();
    for (name, case) in CASES {
        let outcome = runtime.block_on(async { tokio::time::timeout(PATIENCE, case(at)).await });
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => wrong.push(format!("{name}: {error}")),
            Err(_) => wrong.push(format!("{name}: it did not end")),
        }
    }
    (CASES.len(), wrong)
}

/// Fails a case with what was seen.
fn ensure(holds: bool, what: impl std::fmt::Debug) -> Outcome {
    if holds {
        Ok(())
    } else {
        Err(format!("it was {what:?}").into())
    }
}

fn fresh() -> ShortString {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("cases-rs-{}", NEXT.fetch_add(1, Ordering::Relaxed)).into()
}

async fn connect_as(at: SocketAddr, who: &str, vhost: &str) -> lapin::Result<Connection> {
    let uri = format!("amqp://{who}@{at}/{vhost}");
    Connection::connect(&uri, ConnectionProperties::default()).await
}

async fn connect(at: SocketAddr) -> lapin::Result<Connection> {
    connect_as(at, "guest:guest", "%2f").await
}

/// A channel; its connection goes with it.
struct Open {
    connection: Connection,
    channel: Channel,
}

impl std::ops::Deref for Open {
    type Target = Channel;

    fn deref(&self) -> &Channel {
        &self.channel
    }
}

async fn open(at: SocketAddr) -> lapin::Result<Open> {
    let connection = connect(at).await?;
    let channel = connection.create_channel().await?;
    Ok(Open {
        connection,
        channel,
    })
}

async fn confirming(at: SocketAddr) -> lapin::Result<Open> {
    let open = open(at).await?;
    open.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(open)
}

fn table(entries: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert((*name).into(), value.clone());
    }
    table
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// A queue that goes with its connection.
async fn queue(channel: &Channel, arguments: &[(&str, AMQPValue)]) -> lapin::Result<ShortString> {
    let options = QueueDeclareOptions::exclusive();
    let queue = channel
        .queue_declare(fresh(), options, table(arguments))
        .await?;
    Ok(queue.name().clone())
}

/// A queue that several connections use; it is deleted by the case.
async fn shared(channel: &Channel) -> lapin::Result<ShortString> {
    let options = QueueDeclareOptions::durable();
    let queue = channel
        .queue_declare(fresh(), options, FieldTable::default())
        .await?;
    Ok(queue.name().clone())
}

async fn put_with(
    channel: &Channel,
    queue: &ShortString,
    body: &[u8],
    properties: BasicProperties,
) -> lapin::Result<Confirmation> {
    let options = BasicPublishOptions::default();
    channel
        .basic_publish("".into(), queue.clone(), options, body, properties)
        .await?
        .await
}

async fn put(channel: &Channel, queue: &ShortString, bodies: &[&str]) -> lapin::Result<()> {
    for body in bodies {
        let properties = BasicProperties::default();
        put_with(channel, queue, body.as_bytes(), properties).await?;
    }
    Ok(())
}

async fn get(
    channel: &Channel,
    queue: &ShortString,
) -> Result<BasicGetMessage, Box<dyn std::error::Error>> {
    loop {
        let options = BasicGetOptions { no_ack: true };
        if let Some(message) = channel.basic_get(queue.clone(), options).await? {
            return Ok(message);
        }
        tokio::task::yield_now().await;
    }
}

async fn consume(channel: &Channel, queue: &ShortString) -> lapin::Result<Consumer> {
    let options = BasicConsumeOptions::default();
    channel
        .basic_consume(queue.clone(), "".into(), options, FieldTable::default())
        .await
}

async fn next(consumer: &mut Consumer) -> Result<Delivery, Box<dyn std::error::Error>> {
    Ok(consumer.next().await.ok_or("the consumer has ended")??)
}

async fn is_quiet(consumer: &mut Consumer) -> bool {
    tokio::time::timeout(QUIET, consumer.next()).await.is_err()
}

/// The code with which the broker refused.
fn code<T: std::fmt::Debug>(outcome: Result<T, Error>) -> Result<u16, String> {
    match outcome {
        Ok(value) => Err(format!("it was not refused: {value:?}")),
        Err(error) => match error.kind() {
            ErrorKind::ProtocolError(error) => Ok(error.get_id()),
            _ => Err(format!("{error}")),
        },
    }
}

async fn a_connection_says_what_was_agreed(at: SocketAddr) -> Outcome {
    let connection = connect(at).await?;
    let agreed = connection.configuration();
    let seen = (agreed.frame_max(), agreed.heartbeat());
    ensure(seen == (131_072, 60), seen)?;
    ensure(connection.status().connected(), connection.status())?;
    Ok(connection.close(200, "bye".into()).await?)
}

async fn a_wrong_password_is_refused(at: SocketAddr) -> Outcome {
    let code = code(connect_as(at, "guest:wrong", "%2f").await)?;
    ensure(code == 403, code)
}

async fn a_wrong_vhost_is_refused(at: SocketAddr) -> Outcome {
    let code = code(connect_as(at, "guest:guest", "nothing").await)?;
    ensure(code == 530, code)
}

async fn a_queue_tells_its_counts(at: SocketAddr) -> Outcome {
    let channel = confirming(at).await?;
    let name = queue(&channel, &[]).await?;
    put(&channel, &name, &["1", "2"]).await?;
    let passive = QueueDeclareOptions::exclusive().passive();
    let found = channel
        .queue_declare(name.clone(), passive, FieldTable::default())
        .await?;
    let counts = (found.message_count(), found.consumer_count());
    ensure(counts == (2, 0), counts)?;
    let purged = channel
        .queue_purge(name.clone(), QueuePurgeOptions::default())
        .await?;
    ensure(purged == 2, purged)?;
    let deleted = channel
        .queue_delete(name, QueueDeleteOptions::default())
        .await?;
    ensure(deleted == 0, deleted)
}

async fn an_error_closes_its_channel_alone(at: SocketAddr) -> Outcome {
    let open = open(at).await?;
    let other = open.connection.create_channel().await?;
    let get = open.basic_get(fresh(), BasicGetOptions::default()).await;
    let code = code(get)?;
    ensure(code == 404, code)?;
    ensure(!open.status().connected(), open.status())?;
    queue(&other, &[]).await?;
    ensure(open.connection.status().connected(), "closed")
}

async fn errors_have_their_codes(at: SocketAddr) -> Outcome {
    let connection = connect(at).await?;
    let none = FieldTable::default();
    let channel = connection.create_channel().await?;
    let bind = channel
        .queue_bind(
            fresh(),
            "amq.direct".into(),
            "k".into(),
            QueueBindOptions::default(),
            none.clone(),
        )
        .await;
    let channel = connection.create_channel().await?;
    let name = queue(&channel, &[]).await?;
    let other = channel
        .queue_declare(
            name,
            QueueDeclareOptions::exclusive().auto_delete(),
            none.clone(),
        )
        .await;
    let channel = connection.create_channel().await?;
    let reserved = channel
        .queue_declare("amq.mine".into(), QueueDeclareOptions::durable(), none)
        .await;
    let channel = connection.create_channel().await?;
    let commit = channel.tx_commit().await;
    let codes = [code(bind)?, code(other)?, code(reserved)?, code(commit)?];
    ensure(codes == [404, 406, 403, 406], codes)
}

async fn an_exclusive_queue_is_locked(at: SocketAddr) -> Outcome {
    let (channel, other) = (open(at).await?, open(at).await?);
    let name = queue(&channel, &[]).await?;
    let code = code(consume(&other, &name).await.map(|_| ()))?;
    ensure(code == 405, code)
}

async fn nothing_to_get_is_none(at: SocketAddr) -> Outcome {
    let channel = open(at).await?;
    let name = queue(&channel, &[]).await?;
    let got = channel.basic_get(name, BasicGetOptions::default()).await?;
    ensure(got.is_none(), got)
}

async fn a_message_is_got_with_its_properties(at: SocketAddr) -> Outcome {
    let channel = confirming(at).await?;
    let name = queue(&channel, &[]).await?;
    let sent = BasicProperties::default()
        .with_content_type("text/plain".into())
        .with_content_encoding("utf-8".into())
        .with_delivery_mode(2)
        .with_priority(7)
        .with_correlation_id("c".into())
        .with_reply_to("r".into())
        .with_expiration("100000".into())
        .with_message_id("m".into())
        .with_timestamp(1_700_000_000)
        .with_type("t".into())
        .with_user_id("guest".into())
        .with_app_id("a".into());
    put_with(&channel, &name, b"x", sent.clone()).await?;
    let got = get(&channel, &name).await?;
    ensure(got.properties == sent, &got.properties)?;
    ensure(got.delivery.data == b"x" && got.message_count == 0, &got)
}

async fn headers_of_every_type_come_through(at: SocketAddr) -> Outcome {
    let channel = confirming(at).await?;
    let name = queue(&channel, &[]).await?;
    let mut array = FieldArray::default();
    array.push(AMQPValue::LongInt(1));
    array.push(text("two"));
    let headers = table(&[
        ("yes", AMQPValue::Boolean(true)),
        ("i8", AMQPValue::ShortShortInt(-8)),
        ("u8", AMQPValue::ShortShortUInt(200)),
        ("i16", AMQPValue::ShortInt(-300)),
        ("u16", AMQPValue::ShortUInt(60_000)),
        ("i32", AMQPValue::LongInt(-70_000)),
        ("u32", AMQPValue::LongUInt(4_000_000_000)),
        ("i64", AMQPValue::LongLongInt(i64::MIN)),
        ("f32", AMQPValue::Float(1.5)),
        ("f64", AMQPValue::Double(0.1)),
        (
            "decimal",
            AMQPValue::DecimalValue(DecimalValue {
                scale: 2,
                value: 314,
            }),
        ),
        ("text", text("grüße")),
        ("array", AMQPValue::FieldArray(array)),
        ("time", AMQPValue::Timestamp(1_700_000_000)),
        ("table", AMQPValue::FieldTable(table(&[("in", text("it"))]))),
        ("bytes", AMQPValue::ByteArray(vec![0, 255].into())),
        ("nothing", AMQPValue::Void),
    ]);
    let sent = BasicProperties::default().with_headers(headers);
    put_with(&channel, &name, b"", sent.clone()).await?;
    let got = get(&channel, &name).await?;
    ensure(got.properties == sent, &got.properties)
}

async fn a_large_body_comes_whole(at: SocketAddr) -> Outcome {
    let channel = confirming(at).await?;
    let name = queue(&channel, &[]).await?;
    let body: Vec<u8> = (0..3_000_000_u32).map(|at| at.to_le_bytes()[1]).collect();
    put_with(&channel, &name, &body, BasicProperties::default()).await?;
    let got = get(&channel, &name).await?;
    ensure(got.delivery.data == body, got.delivery.data.len())
}

async fn a_publish_is_confirmed(at: SocketAddr) -> Outcome {
    let channel = confirming(at).await?;
    let name = queue(&channel, &[]).await?;
    let persistent = BasicProperties::default().with_delivery_mode(2);
    for queue in [name, fresh()] {
        let confirm = put_with(&channel, &queue, b"x", persistent.clone()).await?;
        ensure(confirm == Confirmation::Ack(None), &confirm)?;
    }
    Ok(())
}

async fn publish_mandatory(channel: &Channel) -> lapin::Result<lapin::PublisherConfirm> {
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let properties = BasicProperties::default();
    channel
        .basic_publish("".into(), fresh(), options, b"back", properties)
        .await
}

async fn a_mandatory_message_comes_with_its_confirm(at: SocketAddr) -> Outcome {
    let channel = confirming(at).await?;
    let confirm = publish_mandatory(&channel).await?.await?;
    ensure(confirm.is_ack(), &confirm)?;
    let message = confirm.take_message().ok_or("nothing came back")?;
    let seen = (message.reply_code, message.delivery.data.clone());
    ensure(seen == (312, b"back".to_vec()), seen)
}

async fn returned_messages_are_waited_for(at: SocketAddr) -> Outcome {
    let channel = confirming(at).await?;
    for _ in 0..3 {
        drop(publish_mandatory(&channel).await?);
    }
    let returned = channel.wait_for_confirms().await?;
    ensure(returned.len() == 3, returned)
}

async fn a_full_queue_refuses(at: SocketAddr) -> Outcome {
    let channel = confirming(at).await?;
    let full = [
        ("x-max-length", AMQPValue::LongInt(1)),
        ("x-overflow", text("reject-publish")),
    ];
    let name = queue(&channel, &full).await?;
    put(&channel, &name, &["1"]).await?;
    let confirm = put_with(&channel, &name, b"2", BasicProperties::default()).await?;
    ensure(confirm.is_nack(), confirm)
}

async fn a_thousand_confirms_are_under_way_at_once(at: SocketAddr) -> Outcome {
    let channel = confirming(at).await?;
    let name = shared(&channel).await?;
    let mut under_way = Vec::new();
    for _ in 0..1000 {
        let properties = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        let publish = channel.basic_publish("".into(), name.clone(), options, b"x", properties);
        under_way.push(publish.await?);
    }
    for confirm in join_all(under_way).await {
        ensure(confirm?.is_ack(), "a nack")?;
    }
    let deleted = channel
        .queue_delete(name, QueueDeleteOptions::default())
        .await?;
    ensure(deleted == 1000, deleted)
}

async fn eight_channels_publish_at_once(at: SocketAddr) -> Outcome {
    let open = confirming(at).await?;
    let name = queue(&open, &[]).await?;
    let mut channels = Vec::new();
    for _ in 0..8 {
        let channel = open.connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        channels.push(channel);
    }
    let publish = channels
        .iter()
        .map(|channel| put(channel, &name, &["x"; 50]));
    for outcome in join_all(publish).await {
        outcome?;
    }
    let purged = open.queue_purge(name, QueuePurgeOptions::default()).await?;
    ensure(purged == 400, purged)
}

async fn publishing_to_no_exchange_closes_the_channel(at: SocketAddr) -> Outcome {
    let channel = confirming(at).await?;
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default();
    let confirm = channel
        .basic_publish(fresh(), "k".into(), options, b"x", properties)
        .await?;
    let code = code(confirm.await)?;
    ensure(code == 404, code)
}

async fn a_consumer_gets_everything_in_order(at: SocketAddr) -> Outcome {
    let channel = confirming(at).await?;
    let name = queue(&channel, &[]).await?;
    let mut consumer = consume(&channel, &name).await?;
    put(&channel, &name, &["1", "2", "3"]).await?;
    for (tag, body) in [(1, "1"), (2, "2"), (3, "3")] {
        let delivery = next(&mut consumer).await?;
        let seen = (delivery.delivery_tag, delivery.redelivered);
        ensure(
            seen == (tag, false) && delivery.data == body.as_bytes(),
            seen,
        )?;
        delivery.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}

async fn what_is_nacked_is_delivered_again(at: SocketAddr) -> Outcome {
    let channel = confirming(at).await?;
    let name = queue(&channel, &[]).await?;
    let mut consumer = consume(&channel, &name).await?;
    put(&channel, &name, &["x"]).await?;
    let nack = BasicNackOptions {
        requeue: true,
        ..BasicNackOptions::default()
    };
    next(&mut consumer).await?.nack(nack).await?;
    let again = next(&mut consumer).await?;
    ensure(again.redelivered, "not redelivered")
}

async fn what_is_rejected_is_gone(at: SocketAddr) -> Outcome {
    let channel = confirming(at).await?;
    let name = queue(&channel, &[]).await?;
    let mut consumer = consume(&channel, &name).await?;
    put(&channel, &name, &["x"]).await?;
    let reject = BasicRejectOptions { requeue: false };
    next(&mut consumer).await?.reject(reject).await?;
    ensure(is_quiet(&mut consumer).await, "delivered again")
}

async fn a_prefetch_is_kept(at: SocketAddr) -> Outcome {
    let channel = confirming(at).await?;
    let name = queue(&channel, &[]).await?;
    channel.basic_qos(1, BasicQosOptions::default()).await?;
    let mut consumer = consume(&channel, &name).await?;
    put(&channel, &name, &["1", "2"]).await?;
    let first = next(&mut consumer).await?;
    ensure(is_quiet(&mut consumer).await, "two were delivered")?;
    first.ack(BasicAckOptions::default()).await?;
    let second = next(&mut consumer).await?;
    ensure(second.data == b"2", second.data)
}

async fn a_deleted_queue_ends_its_consumers(at: SocketAddr) -> Outcome {
    let (channel, other) = (open(at).await?, open(at).await?);
    let name = shared(&channel).await?;
    let mut consumer = consume(&channel, &name).await?;
    other
        .queue_delete(name, QueueDeleteOptions::default())
        .await?;
    let end = consumer.next().await;
    ensure(end.is_none(), end)?;
    ensure(channel.status().connected(), "the channel was closed")
}

async fn a_cancelled_consumer_ends(at: SocketAddr) -> Outcome {
    let channel = open(at).await?;
    let name = queue(&channel, &[]).await?;
    let mut consumer = consume(&channel, &name).await?;
    channel
        .basic_cancel(consumer.tag(), BasicCancelOptions::default())
        .await?;
    let end = consumer.next().await;
    ensure(end.is_none(), end)
}

async fn consumers_of_two_connections_share(at: SocketAddr) -> Outcome {
    let (one, two) = (confirming(at).await?, open(at).await?);
    let name = shared(&one).await?;
    let mut first = consume(&one, &name).await?;
    let mut second = consume(&two, &name).await?;
    put(&one, &name, &["1", "2", "3", "4"]).await?;
    for consumer in [&mut first, &mut second] {
        for _ in 0..2 {
            let delivery = next(consumer).await?;
            delivery.ack(BasicAckOptions::default()).await?;
        }
    }
    ensure(is_quiet(&mut first).await, "one had more")?;
    one.queue_delete(name, QueueDeleteOptions::default())
        .await?;
    Ok(())
}

async fn what_a_lost_channel_held_comes_back(at: SocketAddr) -> Outcome {
    let (one, two) = (open(at).await?, confirming(at).await?);
    let name = shared(&one).await?;
    let mut first = consume(&one, &name).await?;
    put(&two, &name, &["x"]).await?;
    next(&mut first).await?;
    one.close(200, "bye".into()).await?;
    let again = get(&two, &name).await?;
    ensure(again.delivery.redelivered, "not redelivered")?;
    two.queue_delete(name, QueueDeleteOptions::default())
        .await?;
    Ok(())
}

async fn an_exchange_leads_to_another(at: SocketAddr) -> Outcome {
    let channel = confirming(at).await?;
    let (none, name) = (FieldTable::default(), queue(&channel, &[]).await?);
    let options = ExchangeDeclareOptions {
        auto_delete: true,
        ..ExchangeDeclareOptions::default()
    };
    let (topic, fanout) = (fresh(), fresh());
    for (name, kind) in [
        (&topic, ExchangeKind::Topic),
        (&fanout, ExchangeKind::Fanout),
    ] {
        channel
            .exchange_declare(name.clone(), kind, options, none.clone())
            .await?;
    }
    let bind = ExchangeBindOptions::default();
    channel
        .exchange_bind(
            fanout.clone(),
            topic.clone(),
            "a.*".into(),
            bind,
            none.clone(),
        )
        .await?;
    let bind = QueueBindOptions::default();
    channel
        .queue_bind(name.clone(), fanout, "".into(), bind, none)
        .await?;
    for key in ["a.b", "b.a"] {
        let options = BasicPublishOptions::default();
        let properties = BasicProperties::default();
        channel
            .basic_publish(
                topic.clone(),
                key.into(),
                options,
                key.as_bytes(),
                properties,
            )
            .await?
            .await?;
    }
    let got = get(&channel, &name).await?;
    ensure(got.delivery.data == b"a.b" && got.message_count == 0, &got)
}

async fn a_transaction_is_committed_or_rolled_back(at: SocketAddr) -> Outcome {
    let channel = open(at).await?;
    let name = queue(&channel, &[]).await?;
    channel.tx_select().await?;
    put(&channel, &name, &["no"]).await?;
    channel.tx_rollback().await?;
    put(&channel, &name, &["yes"]).await?;
    channel.tx_commit().await?;
    let got = get(&channel, &name).await?;
    ensure(got.delivery.data == b"yes" && got.message_count == 0, &got)
}

async fn a_dead_letter_says_why(at: SocketAddr) -> Outcome {
    let channel = confirming(at).await?;
    let dead = queue(&channel, &[]).await?;
    let arguments = [
        ("x-message-ttl", AMQPValue::LongInt(50)),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text(dead.as_str())),
    ];
    let name = queue(&channel, &arguments).await?;
    put(&channel, &name, &["x"]).await?;
    let got = get(&channel, &dead).await?;
    let headers = got.properties.headers().clone().unwrap_or_default();
    let reason = headers.inner().get("x-first-death-reason").cloned();
    ensure(reason == Some(text("expired")), reason)
}

async fn a_queue_in_use_is_kept(at: SocketAddr) -> Outcome {
    let open = open(at).await?;
    let name = queue(&open, &[]).await?;
    let _consumer = consume(&open, &name).await?;
    let options = QueueDeleteOptions {
        if_unused: true,
        ..QueueDeleteOptions::default()
    };
    let code = code(open.queue_delete(name, options).await)?;
    ensure(code == 406, code)
}

async fn flow_is_answered(at: SocketAddr) -> Outcome {
    let channel = open(at).await?;
    let flows = channel
        .channel_flow(ChannelFlowOptions { active: true })
        .await?;
    ensure(flows, flows)
}

async fn an_auto_delete_queue_goes(at: SocketAddr) -> Outcome {
    let channel = open(at).await?;
    let options = QueueDeclareOptions::durable().auto_delete();
    let name = fresh();
    channel
        .queue_declare(name.clone(), options, FieldTable::default())
        .await?;
    let consumer = consume(&channel, &name).await?;
    channel
        .basic_cancel(consumer.tag(), BasicCancelOptions::default())
        .await?;
    let got = channel.basic_get(name, BasicGetOptions::default()).await;
    let code = code(got)?;
    ensure(code == 404, code)
}
