//! Clients that mean harm, or have gone wrong. Whoever does not is served meanwhile.

mod alone;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use alone::{Alone, PATIENCE, on_runtime};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use mainstay_amqp::method::{
    BasicConsume, ChannelOpen, ConnectionOpen, ConnectionStartOk, ConnectionTuneOk,
};
use mainstay_amqp::{Method, Table, frame};
use mainstay_testkit::wait_until;

/// What an honest client may have to wait while others misbehave.
const HONEST: Duration = Duration::from_secs(5);

async fn channel(broker: &Alone, queue: &str) -> (Connection, Channel) {
    let client = broker.client().await;
    let channel = client.create_channel().await.expect("a channel");
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(queue.into(), durable, FieldTable::default())
        .await
        .expect("declared");
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .expect("confirms");
    (client, channel)
}

async fn publish(channel: &Channel, queue: &str, body: &[u8]) {
    let persistent = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions::default();
    let published = channel.basic_publish("".into(), queue.into(), options, body, persistent);
    published.await.expect("sent").await.expect("confirmed");
}

/// An honest client is served in time.
fn serves(broker: &Alone) {
    let start = Instant::now();
    on_runtime(async {
        let (_client, channel) = channel(broker, "honest").await;
        publish(&channel, "honest", b"x").await;
    });
    let took = start.elapsed();
    assert!(took < HONEST, "an honest client waited {took:?}");
}

fn raw(broker: &Alone) -> TcpStream {
    let stream = TcpStream::connect(broker.address()).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

fn said(method: impl Into<Method>, channel: u16) -> Vec<u8> {
    let mut bytes = bytes::BytesMut::new();
    frame::write_method(&mut bytes, channel, &method.into());
    bytes.to_vec()
}

/// All that a client says until its channel is open, without a look at the answers.
fn handshake(password: &str) -> Vec<u8> {
    let start = ConnectionStartOk {
        client_properties: Table::EMPTY,
        mechanism: "PLAIN".into(),
        response: bytes::Bytes::from(format!("\0guest\0{password}")),
        locale: "en_US".into(),
    };
    let tune = ConnectionTuneOk {
        channel_max: 2047,
        frame_max: 131_072,
        heartbeat: 0,
    };
    let open = ConnectionOpen {
        virtual_host: "/".into(),
        ..ConnectionOpen::default()
    };
    let mut all = frame::PROTOCOL_HEADER.to_vec();
    all.extend(said(start, 0));
    all.extend(said(tune, 0));
    all.extend(said(open, 0));
    all.extend(said(ChannelOpen::default(), 1));
    all
}

#[test]
fn system_random_bytes_and_oversized_frames_end_their_own_connection() {
    let broker = Alone::start("broker-random");
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..200 {
        let mut bytes = match round % 4 {
            0 => Vec::new(),
            1 => frame::PROTOCOL_HEADER.to_vec(),
            _ => handshake("guest"),
        };
        if round % 4 == 2 {
            // A frame of 4 GiB.
            bytes.extend([1, 0, 1, 255, 255, 255, 255]);
        }
        bytes.extend(std::iter::repeat_with(|| random.u8(..)).take(4096));
        let mut stream = raw(&broker);
        // It may have hung up before all is said.
        stream.write_all(&bytes).ok();
        stream.shutdown(std::net::Shutdown::Write).ok();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).ok();
    }
    serves(&broker);
    wait_until(PATIENCE, "all are gone", || {
        match broker.status().connections {
            0 => Ok(()),
            left => Err(format!("{left} are left")),
        }
    });
}

#[test]
fn system_silent_connections_and_wrong_passwords_by_the_thousand_shut_nobody_out() {
    let broker = Alone::start("broker-wrong");
    serves(&broker);
    let silent: Vec<TcpStream> = (0..500).map(|_| raw(&broker)).collect();
    let mut wrong = Vec::new();
    for _ in 0..1000 {
        let mut stream = raw(&broker);
        stream.write_all(&handshake("wrong")).ok();
        wrong.push(stream);
    }
    serves(&broker);
    for mut stream in wrong {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).ok();
    }
    let status = broker.status();
    assert_eq!(status.counters.logins_refused, 1000);
    assert!(
        status.connections >= silent.len(),
        "silent ones have ten seconds"
    );
    serves(&broker);
}

#[test]
fn system_a_client_that_never_reads_costs_little_memory() {
    let broker = Alone::start("broker-deaf");
    on_runtime(async {
        let (_client, channel) = channel(&broker, "work").await;
        publish(&channel, "work", b"begin").await;
        let before = broker.status().memory;
        let mut deaf = raw(&broker);
        let consume = BasicConsume {
            queue: "work".into(),
            no_ack: true,
            ..BasicConsume::default()
        };
        deaf.write_all(&handshake("guest")).expect("sent");
        deaf.write_all(&said(consume, 1)).expect("sent");
        let body = vec![b'x'; 32 * 1024];
        for _ in 0..3000 {
            publish(&channel, "work", &body).await;
        }
        let after = broker.status().memory;
        let grown = after.saturating_sub(before) / 1024 / 1024;
        assert!(
            grown < 64,
            "100 MiB wait for it, and memory grew by {grown} MiB"
        );
    });
    serves(&broker);
}

#[test]
fn system_two_thousand_connections_are_served_by_one_thread() {
    let broker = Alone::start("broker-many");
    serves(&broker);
    let many: Vec<TcpStream> = (0..2000)
        .map(|_| {
            let mut stream = raw(&broker);
            stream.write_all(&handshake("guest")).expect("sent");
            stream
        })
        .collect();
    wait_until(PATIENCE, "all are there", || {
        let known = broker.status().connections;
        if known >= many.len() {
            Ok(())
        } else {
            Err(format!("{known} are"))
        }
    });
    serves(&broker);
    let per_connection = broker.status().memory / 2000 / 1024;
    assert!(
        per_connection < 64,
        "{per_connection} KiB for each idle connection"
    );
    drop(many);
    wait_until(PATIENCE, "all are gone", || {
        match broker.status().connections {
            0 => Ok(()),
            left => Err(format!("{left} are left")),
        }
    });
}

#[test]
fn system_who_is_not_a_client_of_amqp_is_told_the_protocol() {
    let broker = Alone::start("broker-http");
    let mut stream = raw(&broker);
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    assert_eq!(answer, frame::PROTOCOL_HEADER);
    let wrong = on_runtime(async {
        let uri = format!("amqp://guest:wrong@{}/%2f", broker.address());
        Connection::connect(&uri, ConnectionProperties::default()).await
    });
    let wrong = wrong.expect_err("a wrong password").to_string();
    assert!(wrong.contains("ACCESS"), "{wrong}");
}
