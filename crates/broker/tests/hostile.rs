//! Clients that mean harm, or have gone wrong. Whoever does not is served meanwhile.
//!
//! `ROUNDS=5000 WRONG=10000 CHANNELS=1000000 cargo nextest run -p mainstay-broker --test hostile`

mod alone;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use alone::raw::{declare, handshake, number_of, raw, said};
use alone::{Alone, PATIENCE, on_runtime};
use bytes::BytesMut;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use mainstay_amqp::frame::{self, ContentHeader, Frame};
use mainstay_amqp::method::{
    BasicConsume, BasicGet, BasicPublish, ChannelClose, ChannelOpen, ConnectionCloseOk, Method,
    QueueDeclare,
};
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

#[test]
fn system_random_bytes_and_oversized_frames_end_their_own_connection() {
    let broker = Alone::start("broker-random");
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..number_of("ROUNDS", 200) {
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
    wait_until(
        PATIENCE,
        "those who say nothing are there",
        || match broker.status().connections {
            known if known >= silent.len() => Ok(()),
            known => Err(format!("{known} are")),
        },
    );
    let mut wrong = Vec::new();
    let count = number_of("WRONG", 1000);
    for _ in 0..count {
        let mut stream = raw(&broker);
        stream.write_all(&handshake("wrong")).ok();
        wrong.push(stream);
    }
    serves(&broker);
    for mut stream in wrong {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).ok();
    }
    assert_eq!(broker.status().counters.logins_refused, count as u64);
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

/// Says the same again and again, and hears nothing; how many bytes were taken before the broker read no further.
fn say_without_end(stream: &mut TcpStream, what: &[u8]) -> usize {
    let most = 256 * 1024 * 1024;
    let mut taken = 0;
    let chunk: Vec<u8> = what
        .iter()
        .copied()
        .cycle()
        .take(what.len() * 1000)
        .collect();
    stream
        .set_write_timeout(Some(Duration::from_secs(1)))
        .expect("a timeout");
    while taken < most {
        match stream.write(&chunk[taken % chunk.len()..]) {
            Ok(len) => taken += len,
            Err(_) => break,
        }
    }
    taken
}

#[test]
fn system_a_client_that_asks_and_never_reads_is_not_read_any_more() {
    let broker = Alone::start("broker-asks");
    let body = vec![b'x'; 64 * 1024];
    on_runtime(async {
        let (_client, channel) = channel(&broker, "work").await;
        for _ in 0..100 {
            publish(&channel, "work", &body).await;
        }
    });
    let before = broker.status().memory;
    let passive = QueueDeclare {
        queue: "work".into(),
        passive: true,
        ..QueueDeclare::default()
    };
    let get = BasicGet {
        queue: "work".into(),
        no_ack: false,
        ..BasicGet::default()
    };
    for ask in [said(passive, 1), said(get, 1)] {
        let mut deaf = raw(&broker);
        deaf.write_all(&handshake("guest")).expect("sent");
        let taken = say_without_end(&mut deaf, &ask) / 1024 / 1024;
        assert!(taken < 64, "{taken} MiB of questions were taken");
        let grown = broker.status().memory.saturating_sub(before) / 1024 / 1024;
        assert!(grown < 32, "memory grew by {grown} MiB");
        serves(&broker);
    }
}

#[test]
fn system_one_channel_more_than_there_may_be_is_refused() {
    let broker = Alone::start("broker-many-channels");
    let mut many = raw(&broker);
    many.write_all(&handshake("guest")).expect("sent");
    let all: Vec<u8> = (2..=2047)
        .flat_map(|channel| said(ChannelOpen::default(), channel))
        .collect();
    many.write_all(&all).expect("sent");
    many.write_all(&said(ChannelOpen::default(), 2048))
        .expect("sent");
    let refused = b"has reached the negotiated channel_max (2047)";
    let mut answer = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    while !answer.windows(refused.len()).any(|part| part == refused) {
        let len = many.read(&mut piece).expect("it is answered");
        assert!(len > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend(&piece[..len]);
    }
    many.write_all(&said(ConnectionCloseOk {}, 0))
        .expect("sent");
    many.read_to_end(&mut answer).expect("it is closed");
}

#[test]
fn system_a_flood_of_channels_is_bounded_and_shuts_nobody_out() {
    let broker = Alone::start("broker-channels");
    serves(&broker);
    // Opened and closed again and again.
    let close = ChannelClose {
        reply_code: 200,
        ..ChannelClose::default()
    };
    let mut pair = said(close, 1);
    pair.extend(said(ChannelOpen::default(), 1));
    let mut busy = raw(&broker);
    busy.write_all(&handshake("guest")).expect("sent");
    let mut reader = busy.try_clone().expect("a second end");
    let count = number_of("CHANNELS", 20_000);
    // One was opened with the connection.
    let all = (count + 1, count);
    reader.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let reads = std::thread::spawn(move || {
        let mut heard = BytesMut::new();
        let (mut opened, mut closed) = (0, 0);
        let mut piece = vec![0; 64 * 1024];
        while (opened, closed) != all
            && let Ok(len @ 1..) = reader.read(&mut piece)
        {
            heard.extend_from_slice(&piece[..len]);
            while let Ok(Some(frame)) = Frame::take(&mut heard, 1 << 20) {
                match Method::read(&frame.payload) {
                    Ok(Method::ChannelOpenOk(_)) => opened += 1,
                    Ok(Method::ChannelCloseOk(_)) => closed += 1,
                    _ => {}
                }
            }
        }
        (opened, closed)
    });
    let before = broker.status().memory;
    let start = Instant::now();
    let chunk = pair.repeat(1000);
    for _ in 0..count / 1000 {
        busy.write_all(&chunk).expect("it is read");
    }
    serves(&broker);
    // Each is answered, though the client never waits.
    assert_eq!(reads.join().expect("it ends"), all);
    println!(
        "{count} channels were opened and closed in {:?}",
        start.elapsed()
    );
    let grown = broker.status().memory.saturating_sub(before) / 1024 / 1024;
    assert!(grown < 16, "memory grew by {grown} MiB");
}

#[test]
fn system_what_a_client_said_before_it_hung_up_is_done() {
    let broker = Alone::start("broker-hangs-up");
    let publish = BasicPublish {
        routing_key: "work".into(),
        ..BasicPublish::default()
    };
    let mut one = BytesMut::from(&said(publish, 1)[..]);
    let header = ContentHeader {
        class: 60,
        weight: 0,
        body_size: 1,
        properties: bytes::Bytes::from_static(&[0, 0]),
    };
    frame::write_header(&mut one, 1, &header);
    frame::write_body(&mut one, 1, &"x".into(), 131_072, |_, _| {});
    // More than is handed over at a time, and less than is read at a time.
    let count = 5_000;
    let mut all = handshake("guest");
    all.extend(declare("work"));
    all.extend(one.repeat(count));
    let mut client = raw(&broker);
    client.write_all(&all).expect("sent");
    client
        .shutdown(std::net::Shutdown::Write)
        .expect("it was open");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).ok();
    on_runtime(async {
        let (_client, channel) = channel(&broker, "work").await;
        let all = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let work = channel.queue_declare("work".into(), all, FieldTable::default());
        let work = work.await.expect("it is there");
        assert_eq!(work.message_count() as usize, count);
    });
}

#[test]
fn system_thousands_of_channels_cost_little_each() {
    let broker = Alone::start("broker-all-channels");
    serves(&broker);
    let before = broker.status().memory;
    let connections = number_of("CROWDED", 20);
    let open: Vec<u8> = (2..=2047)
        .flat_map(|channel| said(ChannelOpen::default(), channel))
        .collect();
    let all: Vec<TcpStream> = (0..connections)
        .map(|_| {
            let mut stream = raw(&broker);
            stream.write_all(&handshake("guest")).expect("sent");
            stream.write_all(&open).expect("sent");
            let mut answers = vec![0; 2046 * 16];
            stream.read_exact(&mut answers).expect("all are opened");
            stream
        })
        .collect();
    serves(&broker);
    let each = broker.status().memory.saturating_sub(before) / (connections as u64 * 2047);
    println!("{each} bytes for each of {} channels", connections * 2047);
    assert!(each < 2048, "{each} bytes for each channel");
    drop(all);
    wait_until(PATIENCE, "all are gone", || {
        match broker.status().connections {
            0 => Ok(()),
            left => Err(format!("{left} are left")),
        }
    });
    serves(&broker);
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
