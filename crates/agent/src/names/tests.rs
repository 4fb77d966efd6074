//! The server on real sockets, with upstreams that behave in all ways.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use mainstay_ids::{Epoch, Generation};
use mainstay_model::directory::{Directory, Listing};
use mainstay_testkit::{TempDir, wait_until_async};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::upstream::{framed, read_framed};
use super::{Options, ResolvConf, Upstreams, run};
use crate::context::Clock;

/// Longer than three upstreams may take.
const SOON: Duration = Duration::from_secs(10);

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Two sockets of one address.
fn sockets() -> (std::net::UdpSocket, std::net::TcpListener) {
    for _ in 0..100 {
        let tcp = std::net::TcpListener::bind(loopback()).unwrap();
        if let Ok(udp) = std::net::UdpSocket::bind(tcp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both");
}

/// A server with the service `pay` at 10.96.0.10:8080.
struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    _directories: watch::Sender<Option<Arc<Directory>>>,
    _task: AbortOnDropHandle<std::io::Result<()>>,
}

impl Server {
    fn start(upstreams: Upstreams) -> Self {
        Self::on(sockets(), upstreams)
    }

    fn on((udp, tcp): (std::net::UdpSocket, std::net::TcpListener), upstreams: Upstreams) -> Self {
        let address = udp.local_addr().unwrap();
        let directory = Directory {
            generation: Generation::first(Epoch(1)),
            services: vec![Listing {
                service: "pay".parse().unwrap(),
                address: Some("10.96.0.10:8080".parse().unwrap()),
                instances: Vec::new(),
                unavailable: None,
            }],
        };
        let (directories, directory) = watch::channel(Some(Arc::new(directory)));
        let stop = CancellationToken::new();
        let options = Options {
            udp,
            tcp,
            allow: Vec::new(),
            upstreams,
        };
        let task = tokio::spawn(run(options, directory, Clock::start(), stop.clone()));
        Self {
            address,
            stop,
            _directories: directories,
            _task: AbortOnDropHandle::new(task),
        }
    }
}

fn query(id: u16, name: &str) -> Vec<u8> {
    let mut query = Message::new(id, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    query.to_vec().unwrap()
}

async fn ask_bytes(server: SocketAddr, query: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind(loopback()).await.unwrap();
    socket.send_to(query, server).await.unwrap();
    let mut room = vec![0; 65_535];
    let received = timeout(SOON, socket.recv_from(&mut room)).await;
    let (len, _) = received.expect("it answers").unwrap();
    room.truncate(len);
    room
}

async fn ask(server: SocketAddr, name: &str) -> Message {
    Message::from_vec(&ask_bytes(server, &query(7, name)).await).unwrap()
}

/// An upstream that hands each query to `answer`, and sends what it gives.
struct Upstream {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Upstream {
    fn start(answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        let (udp, tcp) = sockets();
        udp.set_nonblocking(true).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let address = udp.local_addr().unwrap();
        let (udp, tcp) = (
            UdpSocket::from_std(udp).unwrap(),
            TcpListener::from_std(tcp).unwrap(),
        );
        let asked = Arc::new(AtomicUsize::new(0));
        let (answer, count) = (Arc::new(answer), Arc::clone(&asked));
        let by_tcp = Arc::clone(&answer);
        let datagrams = tokio::spawn(async move {
            let mut room = vec![0; 65_535];
            loop {
                let (len, from) = udp.recv_from(&mut room).await.unwrap();
                if !is_look(&room[..len]) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                for answer in answer(&room[..len]) {
                    udp.send_to(&answer, from).await.unwrap();
                }
            }
        });
        let connections = tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let query = read_framed(&mut stream, 65_535).await.unwrap();
                for answer in by_tcp(&query) {
                    stream.write_all(&framed(&answer).unwrap()).await.unwrap();
                }
            }
        });
        Self {
            address,
            asked,
            _tasks: [datagrams, connections].map(AbortOnDropHandle::new),
        }
    }

    /// How often, looks after loops not counted.
    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn is_look(query: &[u8]) -> bool {
    query.windows(10).any(|window| window == b"loop-check")
}

/// An answer that no library would write: of a type that nobody knows, with a count of records that is
/// not true, and bytes behind the end.
fn odd_answer(query: &[u8]) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer[3] = 0xf0;
    answer[7] = 9;
    answer.extend_from_slice(&[
        0xc0, 12, 0xff, 0xfe, 0x12, 0x34, 0, 0, 0, 9, 0, 3, 1, 2, 3, 0xde, 0xad,
    ]);
    answer
}

#[tokio::test]
async fn what_others_answer_comes_back_to_the_last_bit_by_udp_and_by_tcp() {
    let upstream = Upstream::start(|query| vec![odd_answer(query)]);
    let server = Server::start(Upstreams::These(vec![upstream.address]));
    let query = query(0x1234, "Example.COM.");
    let expected = odd_answer(&query);
    assert_eq!(ask_bytes(server.address, &query).await, expected);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for _ in 0..2 {
        stream.write_all(&framed(&query).unwrap()).await.unwrap();
        assert_eq!(read_framed(&mut stream, 65_535).await.unwrap(), expected);
    }
    server.stop.cancel();
}

#[tokio::test]
async fn an_answer_with_another_id_or_to_another_question_is_not_taken() {
    let upstream = Upstream::start(|query| {
        let (mut other_id, mut other_name) = (odd_answer(query), odd_answer(query));
        other_id[1] ^= 1;
        other_name[13] ^= 1;
        let mut no_answer = odd_answer(query);
        no_answer[2] &= 0x7f;
        vec![
            other_id,
            other_name,
            no_answer,
            vec![1, 2, 3],
            Vec::new(),
            odd_answer(query),
        ]
    });
    let server = Server::start(Upstreams::These(vec![upstream.address]));
    let query = query(0x1234, "example.com.");
    assert_eq!(ask_bytes(server.address, &query).await, odd_answer(&query));
}

#[tokio::test]
async fn the_id_that_others_see_is_not_the_clients() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let see = Arc::clone(&seen);
    let upstream = Upstream::start(move |query| {
        if !is_look(query) {
            see.lock()
                .unwrap()
                .push(u16::from_be_bytes([query[0], query[1]]));
        }
        vec![odd_answer(query)]
    });
    let server = Server::start(Upstreams::These(vec![upstream.address]));
    for _ in 0..8 {
        ask_bytes(server.address, &query(1, "example.com.")).await;
    }
    let mut seen = seen.lock().unwrap().clone();
    seen.sort_unstable();
    seen.dedup();
    assert!(seen.len() >= 7, "{seen:?}");
}

#[tokio::test]
async fn a_dead_upstream_costs_one_query_its_deadline_and_the_others_nothing() {
    let mute = Upstream::start(|_| Vec::new());
    let well = Upstream::start(|query| vec![odd_answer(query)]);
    let nobody = std::net::UdpSocket::bind(loopback()).unwrap();
    let closed = nobody.local_addr().unwrap();
    drop(nobody);
    let server = Server::start(Upstreams::These(vec![closed, mute.address, well.address]));
    let began = Instant::now();
    let query = query(7, "example.com.");
    assert_eq!(ask_bytes(server.address, &query).await, odd_answer(&query));
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let began = Instant::now();
    for _ in 0..10 {
        assert_eq!(ask_bytes(server.address, &query).await, odd_answer(&query));
    }
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(mute.asked(), 1);
}

#[tokio::test]
async fn who_fails_is_passed_over_and_if_all_fail_the_client_is_told_as_they_say() {
    let failing = |code: u8| {
        Upstream::start(move |query| {
            let mut answer = odd_answer(query);
            answer[3] = code;
            vec![answer]
        })
    };
    let (servfail, refused) = (failing(2), failing(5));
    let well = Upstream::start(|query| vec![odd_answer(query)]);
    let all = vec![servfail.address, refused.address, well.address];
    let server = Server::start(Upstreams::These(all));
    let query = query(7, "example.com.");
    assert_eq!(ask_bytes(server.address, &query).await, odd_answer(&query));
    let server = Server::start(Upstreams::These(vec![servfail.address, refused.address]));
    let mut expected = odd_answer(&query);
    expected[3] = 5;
    assert_eq!(ask_bytes(server.address, &query).await, expected);
}

#[tokio::test]
async fn when_nobody_answers_the_client_is_told_before_it_gives_up() {
    let mute = || Upstream::start(|_| Vec::new());
    let (one, two, three) = (mute(), mute(), mute());
    let server = Server::start(Upstreams::These(vec![
        one.address,
        two.address,
        three.address,
    ]));
    let began = Instant::now();
    let answer = ask(server.address, "example.com.").await;
    assert_eq!(answer.response_code, ResponseCode::ServFail);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    // Names of ours are answered meanwhile and after.
    assert_eq!(
        ask(server.address, "pay.mainstay.internal.")
            .await
            .answers
            .len(),
        1
    );
}

#[tokio::test]
async fn names_of_the_zone_are_never_asked_of_others() {
    let upstream = Upstream::start(|query| vec![odd_answer(query)]);
    let server = Server::start(Upstreams::These(vec![upstream.address]));
    for name in [
        "pay.mainstay.internal.",
        "x.MAINSTAY.internal.",
        "a.b.mainstay.internal.",
    ] {
        ask(server.address, name).await;
    }
    assert_eq!(upstream.asked(), 0);
    ask_bytes(server.address, &query(7, "xmainstay.internal.")).await;
    assert_eq!(upstream.asked(), 1);
}

#[tokio::test]
async fn two_servers_that_ask_each_other_notice_it_and_stop() {
    let (one, two) = (sockets(), sockets());
    let (first, second) = (one.0.local_addr().unwrap(), two.0.local_addr().unwrap());
    let well = Upstream::start(|query| vec![odd_answer(query)]);
    let _two = Server::on(two, Upstreams::These(vec![first]));
    let one = Server::on(one, Upstreams::These(vec![second, well.address]));
    // However the looks at the start went, a query gets an answer from whoever is no circle.
    let query = query(7, "example.com.");
    assert_eq!(ask_bytes(one.address, &query).await, odd_answer(&query));
    wait_until_async(SOON, "an answer at once", async || {
        let began = Instant::now();
        let answer = ask_bytes(one.address, &query).await;
        let quick = began.elapsed() < Duration::from_millis(500);
        if quick && answer == odd_answer(&query) {
            Ok(())
        } else {
            Err(format!("after {:?}", began.elapsed()))
        }
    })
    .await;
}

/// As systemd-resolved would, once somebody told it to ask us: it sends on what it gets, under an id of
/// its own.
#[tokio::test]
async fn an_upstream_that_begins_to_ask_us_is_noticed_while_it_runs() {
    let (udp, tcp) = sockets();
    let ours = udp.local_addr().unwrap();
    let back = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&back);
    let turned = Arc::new(AtomicUsize::new(0));
    let turn = Arc::clone(&turned);
    let client = Arc::new(std::net::UdpSocket::bind(loopback()).unwrap());
    let resolver = Upstream::start(move |query| {
        if turn.load(Ordering::Relaxed) == 0 {
            return vec![odd_answer(query)];
        }
        count.fetch_add(1, Ordering::Relaxed);
        let mut own = query.to_vec();
        own[0] ^= 0x55;
        client.send_to(&own, ours).unwrap();
        Vec::new()
    });
    let server = Server::on((udp, tcp), Upstreams::These(vec![resolver.address]));
    let query = query(7, "example.com.");
    assert_eq!(ask_bytes(server.address, &query).await, odd_answer(&query));
    turned.store(1, Ordering::Relaxed);
    // The looks of the start are over; a new one is due only after some seconds.
    wait_until_async(
        Duration::from_secs(20),
        "the circle is left out",
        async || {
            let before = back.load(Ordering::Relaxed);
            let began = Instant::now();
            let answer = Message::from_vec(&ask_bytes(server.address, &query).await).unwrap();
            let rounds = back.load(Ordering::Relaxed) - before;
            assert!(rounds <= 140, "{rounds} rounds");
            let quick = began.elapsed() < Duration::from_millis(200);
            if quick && answer.response_code == ResponseCode::ServFail && rounds == 0 {
                Ok(())
            } else {
                Err(format!("{rounds} rounds in {:?}", began.elapsed()))
            }
        },
    )
    .await;
    assert_eq!(
        ask(server.address, "pay.mainstay.internal.")
            .await
            .answers
            .len(),
        1
    );
}

#[tokio::test]
async fn without_anybody_to_ask_other_names_are_refused_until_resolv_conf_names_somebody() {
    let dir = TempDir::new("names");
    let conf = ResolvConf {
        path: dir.join("resolv.conf"),
        behind_stub: dir.join("none"),
    };
    std::fs::write(&conf.path, "nameserver nobody\n").unwrap();
    let server = Server::start(Upstreams::Of(conf.clone()));
    let answer = ask(server.address, "example.com.").await;
    assert_eq!(answer.response_code, ResponseCode::Refused);
    // Nobody listens there, which the kernel tells at once.
    std::fs::write(&conf.path, "nameserver 127.0.0.254\n").unwrap();
    wait_until_async(SOON, "the new server is asked", async || {
        match ask(server.address, "example.com.").await.response_code {
            ResponseCode::ServFail => Ok(()),
            other => Err(format!("{other}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_long_query_and_a_slow_one_by_tcp_are_ended_and_hold_up_nobody() {
    let server = Server::start(Upstreams::These(Vec::new()));
    let mut long = TcpStream::connect(server.address).await.unwrap();
    long.write_all(&[0xff, 0xff, 1, 2, 3]).await.unwrap();
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    let began = Instant::now();
    slow.write_all(&[0, 40, 0]).await.unwrap();
    let mut room = [0; 16];
    let ended = timeout(Duration::from_secs(2), long.read(&mut room)).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?}");
    assert_eq!(
        ask(server.address, "pay.mainstay.internal.")
            .await
            .answers
            .len(),
        1
    );
    let ended = timeout(SOON, slow.read(&mut room)).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?}");
    assert!(began.elapsed() >= Duration::from_secs(4));
}

#[tokio::test]
async fn one_client_has_so_many_connections_and_another_still_gets_one() {
    let server = Server::start(Upstreams::These(Vec::new()));
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(TcpStream::connect(server.address).await.unwrap());
    }
    let answered = async |stream: &mut TcpStream| {
        let framed = framed(&query(7, "pay.mainstay.internal.")).unwrap();
        stream.write_all(&framed).await.ok();
        let answer = timeout(SOON, read_framed(stream, 65_535)).await.unwrap();
        answer.is_ok()
    };
    let mut count = 0;
    for stream in &mut held {
        count += usize::from(answered(stream).await);
    }
    assert_eq!(count, 32);
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    assert!(answered(&mut other.connect(server.address).await.unwrap()).await);
    // Whoever goes, makes room.
    drop(held);
    wait_until_async(SOON, "room for a connection", async || {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        if answered(&mut stream).await {
            Ok(())
        } else {
            Err("no room yet".to_owned())
        }
    })
    .await;
}

#[tokio::test]
async fn a_flood_for_others_is_bounded_and_ours_are_answered_in_it() {
    let mute = Upstream::start(|_| Vec::new());
    let server = Server::start(Upstreams::These(vec![mute.address]));
    let flood = UdpSocket::bind(loopback()).await.unwrap();
    let mut refused = 0;
    let mut room = vec![0; 512];
    for n in 0..600u16 {
        let query = query(n, &format!("n{n}.example.com."));
        flood.send_to(&query, server.address).await.unwrap();
        // What is over the bound is told at once.
        if n >= 300 {
            let told = timeout(Duration::from_millis(300), flood.recv_from(&mut room)).await;
            refused += usize::from(told.is_ok());
        }
        if refused > 20 {
            break;
        }
    }
    assert!(refused > 20, "{refused}");
    assert!(mute.asked() <= 256, "{}", mute.asked());
    assert_eq!(
        ask(server.address, "pay.mainstay.internal.")
            .await
            .answers
            .len(),
        1
    );
}
