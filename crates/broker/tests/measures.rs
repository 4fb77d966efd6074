//! What the broker says of itself: metrics over HTTP and on its socket, rates, seconds to empty.

mod alone;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use alone::{Alone, PATIENCE, on_runtime};
use futures_util::StreamExt as _;

use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Acker, BasicProperties, Channel, Connection, Consumer};
use mainstay_broker::view::{Answer, Ask, Queue};
use mainstay_testkit::{free_port, wait_until, wait_until_async};

/// Head and text of what is answered to this request.
fn http(address: SocketAddr, request: &str) -> Result<(String, String), String> {
    let mut stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
    let deadline = Some(Duration::from_secs(10));
    stream.set_read_timeout(deadline).expect("a deadline");
    let request = format!("{request} HTTP/1.1\r\nhost: broker\r\n\r\n");
    let mut answer = String::new();
    stream
        .write_all(request.as_bytes())
        .and_then(|()| stream.read_to_string(&mut answer))
        .map_err(|error| error.to_string())?;
    let (head, text) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    Ok((head.to_owned(), text.to_owned()))
}

fn metrics(address: SocketAddr) -> String {
    http(address, "GET /metrics").expect("it answers").1
}

/// The value of a line.
fn value(text: &str, series: &str) -> Option<f64> {
    let start = format!("{series} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&start))?;
    line.parse().ok()
}

fn queue(broker: &Alone, name: &str) -> Queue {
    let Answer::Queues { queues } = broker.ask(&Ask::Queues { vhost: None }) else {
        panic!("queues were asked for");
    };
    let found = queues.into_iter().find(|queue| queue.name == name);
    found.expect("it is there")
}

/// Starts a broker that answers `/metrics` at the address.
fn start(name: &str) -> (Alone, SocketAddr) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut broker = Alone::start(name);
    broker.set("METRICS", &address.to_string());
    broker.kill();
    broker.start_again();
    broker.wait_until_it_serves();
    wait_until(PATIENCE, "metrics are shown", || {
        http(address, "GET /metrics")
    });
    (broker, address)
}

/// A queue whose name must be escaped.
const ODD: &str = "work \"1\"";
/// It as a label.
const LABELS: &str = "{vhost=\"/\",queue=\"work \\\"1\\\"\"}";

/// Declares that queue and one of the connection's own, publishes three, and takes two, of which one is acknowledged.
async fn use_it(client: &Connection) -> (Channel, Consumer) {
    let channel = client.create_channel().await.expect("a channel");
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let own = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    for (name, options) in [(ODD, durable), ("", own)] {
        let declared = channel.queue_declare(name.into(), options, FieldTable::default());
        declared.await.expect("declared");
    }
    let confirms = channel.confirm_select(ConfirmSelectOptions::default());
    confirms.await.expect("confirms are on");
    for body in ["a", "bc", "def"] {
        let persistent = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        let sent =
            channel.basic_publish("".into(), ODD.into(), options, body.as_bytes(), persistent);
        sent.await.expect("sent").await.expect("confirmed");
    }
    let prefetch = channel.basic_qos(1, BasicQosOptions::default());
    prefetch.await.expect("a prefetch");
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(ODD.into(), "c".into(), options, FieldTable::default());
    let mut consumer = consumer.await.expect("consumes");
    take(&mut consumer)
        .await
        .ack(BasicAckOptions::default())
        .await
        .expect("acknowledged");
    take(&mut consumer).await;
    (channel, consumer)
}

async fn take(consumer: &mut Consumer) -> Acker {
    let next = consumer.next().await.expect("a delivery");
    next.expect("a delivery").acker
}

#[test]
fn system_a_collector_reads_what_clients_do() {
    let (broker, address) = start("broker-metrics");
    let of_queue = |name: &str| format!("{name}{LABELS}");
    let wanted = [
        ("rabbitmq_connections".to_owned(), 1.0),
        ("rabbitmq_channels".to_owned(), 1.0),
        ("rabbitmq_consumers".to_owned(), 1.0),
        ("rabbitmq_queues".to_owned(), 2.0),
        ("mainstay_broker_untold_queues".to_owned(), 1.0),
        ("mainstay_broker_log_segments".to_owned(), 1.0),
        ("rabbitmq_global_messages_received_total".to_owned(), 3.0),
        ("rabbitmq_global_messages_confirmed_total".to_owned(), 3.0),
        ("rabbitmq_global_messages_delivered_total".to_owned(), 2.0),
        (
            "rabbitmq_global_messages_acknowledged_total".to_owned(),
            1.0,
        ),
        (of_queue("rabbitmq_queue_messages_ready"), 1.0),
        (of_queue("rabbitmq_queue_messages_unacked"), 1.0),
        (of_queue("rabbitmq_queue_messages_ready_bytes"), 3.0),
        (of_queue("mainstay_queue_acknowledged_total"), 1.0),
    ];
    on_runtime(async {
        let client = broker.client().await;
        let _used = use_it(&client).await;
        // What is shown may be a second old.
        wait_until_async(PATIENCE, "all is told", async || {
            let text = metrics(address);
            for (series, wanted) in &wanted {
                if value(&text, series).is_none_or(|found| (found - wanted).abs() > f64::EPSILON) {
                    return Err(format!("{series} is not {wanted}: {text}"));
                }
            }
            Ok(())
        })
        .await;
    });
    let text = metrics(address);
    for series in [
        "mainstay_broker_log_syncs_total",
        "rabbitmq_disk_space_available_bytes",
        "rabbitmq_process_resident_memory_bytes",
    ] {
        assert!(value(&text, series) > Some(0.0), "{series}: {text}");
    }
    assert!(
        !text.contains("amq.gen"),
        "a queue of one connection is left out: {text}"
    );
    let Answer::Metrics { text } = broker.ask(&Ask::Metrics) else {
        panic!("metrics were asked for");
    };
    assert!(text.contains("\nrabbitmq_queues "), "{text}");
}

#[test]
fn system_metrics_are_answered_as_http_has_it() {
    let (_broker, address) = start("broker-http");
    let asked = |request| http(address, request).expect("it answers").0;
    let head = asked("GET /metrics");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(asked("GET /").starts_with("HTTP/1.1 404"));
    assert!(asked("POST /metrics").starts_with("HTTP/1.1 405"));
}

#[test]
fn system_a_queue_tells_how_fast_it_fills_and_empties_and_when_it_will_be_empty() {
    let (broker, address) = start("broker-rates");
    on_runtime(async {
        let client = broker.client().await;
        let channel = client.create_channel().await.expect("a channel");
        let options = QueueDeclareOptions::default();
        let declared = channel.queue_declare("work".into(), options, FieldTable::default());
        declared.await.expect("declared");
        for _ in 0..1000 {
            let (options, plain) = (BasicPublishOptions::default(), BasicProperties::default());
            let sent = channel.basic_publish("".into(), "work".into(), options, b"a", plain);
            sent.await.expect("sent");
        }
        wait_until_async(PATIENCE, "it grows", async || {
            let seen = queue(&broker, "work");
            if seen.published_per_second > 0.0 && seen.seconds_to_empty.is_none() {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await;
        wait_until_async(PATIENCE, "the rate is forgotten", async || {
            let seen = queue(&broker, "work");
            let text = metrics(address);
            let never = "mainstay_queue_seconds_to_empty{vhost=\"/\",queue=\"work\"} +Inf";
            if seen.published_per_second > 0.0 || !text.contains(never) {
                return Err(format!("{seen:?}"));
            }
            Ok(())
        })
        .await;
        let options = BasicConsumeOptions::default();
        let prefetch = channel.basic_qos(10, BasicQosOptions::default());
        prefetch.await.expect("a prefetch");
        let consumer =
            channel.basic_consume("work".into(), "c".into(), options, FieldTable::default());
        let mut consumer = consumer.await.expect("consumes");
        // Half of them, and then it is seen when the others would be gone.
        for _ in 0..500 {
            let next = consumer
                .next()
                .await
                .expect("a delivery")
                .expect("a delivery");
            next.acker
                .ack(BasicAckOptions::default())
                .await
                .expect("acknowledged");
        }
        wait_until_async(PATIENCE, "it will be empty", async || {
            let seen = queue(&broker, "work");
            let foretold = seen.seconds_to_empty.unwrap_or(f64::INFINITY);
            // 500 are left, and 500 went within some seconds.
            let by_rate = 500.0 / seen.acknowledged_per_second;
            if seen.ready + seen.unacked == 500 && (foretold - by_rate).abs() < 1e-6 {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await;
    });
}
