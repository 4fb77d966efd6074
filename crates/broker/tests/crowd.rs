//! Many at once: connections, queues, and a process that may not have as many files open.
//!
//! `CONNECTIONS=10000 QUEUES=100000 cargo nextest run --release -p mainstay-broker --test crowd --no-capture`
#![allow(clippy::unwrap_used, reason = "tests")]

mod alone;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use alone::raw::{declare, handshake, number_of, raw, said, settle};
use alone::{Alone, PATIENCE};
use mainstay_amqp::method::{BasicGet, ConnectionCloseOk, QueueDelete};
use mainstay_broker::view::{Answer, Ask, Deed, Queue, base64};
use mainstay_kernel::descriptors;
use mainstay_testkit::{TempDir, wait_until};

fn wait_for(broker: &Alone, wanted: usize) {
    wait_until(PATIENCE, "all are there, or gone", || {
        match broker.status().connections {
            known if known == wanted => Ok(()),
            known => Err(format!("{known} instead of {wanted} are")),
        }
    });
}

/// Comes in, and hears that its channel is open.
fn comes_in(broker: &Alone) -> TcpStream {
    let mut stream = raw(broker);
    stream.write_all(&handshake("guest")).unwrap();
    let heard = hear(&mut stream, |heard| {
        heard.windows(4).any(|word| word == CHANNEL_OPENED)
    });
    assert!(!heard.is_empty());
    stream
}

/// Class 20, method 11.
const CHANNEL_OPENED: [u8; 4] = [0, 20, 0, 11];

fn hear(stream: &mut TcpStream, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut heard = Vec::new();
    let mut piece = [0; 4096];
    while !enough(&heard) {
        let len = stream.read(&mut piece).unwrap();
        if len == 0 {
            break;
        }
        heard.extend(&piece[..len]);
    }
    heard
}

#[test]
fn system_thousands_of_connections_are_served_by_one_thread() {
    descriptors::raise_limit().unwrap();
    let count = number_of("CONNECTIONS", 2000);
    let broker = Alone::start("crowd-connections");
    drop(comes_in(&broker));
    wait_for(&broker, 0);
    let before = broker.status().memory;
    let start = Instant::now();
    let mut many: Vec<TcpStream> = (0..count).map(|_| comes_in(&broker)).collect();
    println!("{count} connections came in within {:?}", start.elapsed());
    let status = broker.status();
    assert_eq!(status.connections, count);
    let each = (status.memory - before) / 1024 / count as u64;
    println!("{each} KiB for each idle connection");
    assert!(each < 24, "{each} KiB for each idle connection");
    // Each of them works.
    let start = Instant::now();
    for (number, stream) in many.iter_mut().enumerate() {
        let name = format!("of-{}", number % 100);
        stream.write_all(&declare(&name)).unwrap();
        let get = BasicGet {
            queue: name.as_str().into(),
            ..BasicGet::default()
        };
        stream.write_all(&said(get, 1)).unwrap();
    }
    for stream in &mut many {
        // basic.get-empty
        let heard = hear(stream, |heard| {
            heard.windows(4).any(|word| word == [0, 60, 0, 72])
        });
        assert!(heard.last() == Some(&0xCE), "{heard:?}");
    }
    println!("and each declared and asked, {:?}", start.elapsed());
    let start = Instant::now();
    drop(many);
    wait_for(&broker, 0);
    println!("all were gone after {:?}", start.elapsed());
}

#[test]
fn system_who_finds_no_room_is_told_so_and_operators_get_in_all_the_same() {
    let dir = TempDir::new("crowd-full");
    let state = dir.join("state");
    let few = [("DESCRIPTORS", "256")];
    let broker = Alone::start_in_with(dir, &state, &few);
    let most = broker.status().connections_max;
    assert!(
        (100..192).contains(&most),
        "three quarters of 256, without those who come in: {most}"
    );
    let mut inside: Vec<TcpStream> = (0..most).map(|_| comes_in(&broker)).collect();
    let refused = |broker: &Alone| {
        let mut stream = raw(broker);
        stream.write_all(&handshake("guest")).unwrap();
        stream.write_all(&said(ConnectionCloseOk {}, 0)).unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).ok();
        String::from_utf8_lossy(&heard).into_owned()
    };
    let words =
        format!("NOT_ALLOWED - connection refused: node connection limit ({most}) is reached");
    for _ in 0..100 {
        let heard = refused(&broker);
        assert!(heard.contains(&words), "{heard}");
    }
    // And those who say nothing at all.
    let silent: Vec<TcpStream> = (0..100).map(|_| raw(&broker)).collect();
    assert!(broker.status().connections >= most);
    let of_operators = Ask::Vhost {
        vhost: "/".to_owned(),
        deed: Deed::Declare {
            queue: "kept".to_owned(),
            arguments: serde_json::json!({}),
        },
    };
    assert!(matches!(broker.ask(&of_operators), Answer::Done { .. }));
    // The log goes on, too: it opens a file for each 16 MiB.
    let publish = Ask::Vhost {
        vhost: "/".to_owned(),
        deed: Deed::Publish {
            exchange: String::new(),
            routing_key: "kept".to_owned(),
            body: base64(&vec![b'x'; 1024 * 1024]),
        },
    };
    for _ in 0..80 {
        assert!(matches!(broker.ask(&publish), Answer::Done { .. }));
    }
    drop(silent);
    inside.pop();
    wait_until(PATIENCE, "there is room for one again", || {
        let mut stream = raw(&broker);
        stream.write_all(&handshake("guest")).unwrap();
        let heard = hear(&mut stream, |heard| {
            heard.windows(4).any(|word| word == CHANNEL_OPENED)
        });
        let heard = String::from_utf8_lossy(&heard).into_owned();
        if heard.contains("NOT_ALLOWED") {
            Err(heard)
        } else {
            Ok(())
        }
    });
}

fn queues(broker: &Alone) -> Vec<Queue> {
    match broker.ask(&Ask::Queues { vhost: None }) {
        Answer::Queues { queues } => queues,
        other => panic!("queues are not {other:?}"),
    }
}

#[test]
fn system_thousands_of_queues_cost_little_and_come_back_at_once() {
    const DECLARERS: usize = 4;
    let count = number_of("QUEUES", 5000);
    let mut broker = Alone::start("crowd-queues");
    drop(comes_in(&broker));
    let before = broker.status().memory;
    let start = Instant::now();
    std::thread::scope(|threads| {
        for declarer in 0..DECLARERS {
            let broker = &broker;
            threads.spawn(move || {
                let mut stream = comes_in(broker);
                for number in (declarer..count).step_by(DECLARERS) {
                    stream.write_all(&declare(&name(number))).unwrap();
                }
                settle(&mut stream);
            });
        }
    });
    println!("{count} queues were declared in {:?}", start.elapsed());
    let each = broker.status().memory.saturating_sub(before) / count as u64;
    println!("{each} bytes of memory for each of them");
    assert!(each < 4096, "{each} bytes for each queue");
    lists(&broker, count);
    let start = Instant::now();
    let mut stream = comes_in(&broker);
    let get = BasicGet {
        queue: name(count / 2).as_str().into(),
        ..BasicGet::default()
    };
    stream.write_all(&said(get, 1)).unwrap();
    hear(&mut stream, |heard| {
        heard.windows(4).any(|word| word == [0, 60, 0, 72])
    });
    println!("a client came in and asked one in {:?}", start.elapsed());
    drop(stream);
    broker.kill();
    let start = Instant::now();
    broker.start_again();
    broker.wait_until_it_serves();
    println!("after SIGKILL it served after {:?}", start.elapsed());
    let each = broker.status().memory / count as u64;
    println!("and takes {each} bytes for each of them, with all of itself");
    lists(&broker, count);
    let start = Instant::now();
    let mut stream = comes_in(&broker);
    for number in 1..count {
        let delete = QueueDelete {
            queue: name(number).as_str().into(),
            nowait: true,
            ..QueueDelete::default()
        };
        stream.write_all(&said(delete, 1)).unwrap();
    }
    settle(&mut stream);
    println!("all but one were deleted in {:?}", start.elapsed());
    lists(&broker, 1);
}

fn name(number: usize) -> String {
    format!("orders.of.customer.{number}")
}

fn lists(broker: &Alone, count: usize) {
    let start = Instant::now();
    let queues = queues(broker);
    println!("{} were listed in {:?}", queues.len(), start.elapsed());
    assert_eq!(queues.len(), count);
    assert_eq!(
        queues.iter().filter(|queue| queue.name == name(0)).count(),
        1
    );
}
