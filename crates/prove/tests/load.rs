//! The generator against servers that misbehave in one way each: every planned request is counted,
//! under its own name.

#![expect(clippy::unwrap_used, reason = "the servers here belong to the tests")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use mainstay_prove::load::{
    Connections, Expect, Kind, Load, NONCE_HEADER, Report, Request, Target, fetch,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What a server does with a request, whose nonce it is told.
type Behaviour = fn(&str) -> Reaction;

enum Reaction {
    Answer(String),
    AnswerInPieces(Vec<String>),
    AnswerAt(tokio::time::Instant, String),
    AnswerAndClose(String),
    Mute,
}

/// A server that ends with its guard.
async fn serve(behaviour: Behaviour) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            connections.spawn(converse(stream, behaviour));
        }
    });
    (address, tasks)
}

async fn converse(mut stream: TcpStream, behaviour: Behaviour) -> Option<()> {
    loop {
        let nonce = read_nonce(&mut stream).await?;
        let pieces = match behaviour(&nonce) {
            Reaction::Answer(text) => vec![text],
            Reaction::AnswerInPieces(pieces) => pieces,
            Reaction::AnswerAt(when, text) => {
                tokio::time::sleep_until(when).await;
                vec![text]
            }
            Reaction::AnswerAndClose(text) => {
                stream.write_all(text.as_bytes()).await.ok()?;
                return None;
            }
            Reaction::Mute => std::future::pending().await,
        };
        for piece in pieces {
            stream.write_all(piece.as_bytes()).await.ok()?;
            tokio::task::yield_now().await;
        }
    }
}

/// Reads one request without a body; `None` when the client is gone.
async fn read_nonce(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let field = format!("{NONCE_HEADER}: ");
    Some(
        head.lines()
            .find_map(|line| line.strip_prefix(&field))
            .unwrap()
            .to_owned(),
    )
}

fn right_answer(nonce: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{NONCE_HEADER}: {nonce}\r\ncontent-length: 16\r\n\r\n{nonce}")
}

fn load(address: SocketAddr, rate: u32, duration: Duration) -> Load {
    Load {
        targets: vec![Target {
            name: "orders".into(),
            addresses: vec![address],
            host: "orders.test".into(),
            requests: vec![Request::get("/orders/{n}")],
        }],
        rate: NonZeroU32::new(rate).unwrap(),
        duration,
        connections: Connections::Kept(NonZeroUsize::new(8).unwrap()),
        workers: NonZeroUsize::MIN,
        seed: 7,
    }
}

async fn run(load: Load) -> Report {
    let report = load
        .start(None, &CancellationToken::new())
        .unwrap()
        .finish()
        .await
        .unwrap();
    assert_eq!(report.planned, report.unsent + report.sent(), "{report:?}");
    assert_eq!(
        report.sent(),
        report.ok() + report.failed().values().sum::<u64>(),
        "{report:?}"
    );
    report
}

/// Runs 20 requests, all of which must fail in this way.
async fn all_fail_as(behaviour: Behaviour, kind: Kind) {
    let (address, _server) = serve(behaviour).await;
    let report = run(load(address, 100, Duration::from_millis(200))).await;
    assert_eq!(report.planned, 20);
    assert_eq!(report.failed(), BTreeMap::from([(kind, report.sent())]));
    assert_eq!(report.targets[0].failures.len() as u64, report.sent());
}

#[tokio::test]
async fn right_answers_count_as_ok_whatever_their_framing() {
    let framings: [Behaviour; 3] = [
        |nonce| Reaction::Answer(right_answer(nonce)),
        |nonce| {
            let (first, second) = nonce.split_at(3);
            Reaction::AnswerInPieces(vec![
                "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".into(),
                format!("HTTP/1.1 200 OK\r\n{NONCE_HEADER}: {nonce}\r\n"),
                format!("transfer-encoding: chunked\r\n\r\n3\r\n{first}"),
                format!("\r\nd\r\n{second}\r\n0\r\nx: y\r\n\r\n"),
            ])
        },
        |nonce| {
            let head = format!("HTTP/1.0 200 OK\r\n{NONCE_HEADER}: {nonce}\r\n\r\n");
            Reaction::AnswerAndClose(format!("{head}body {nonce}"))
        },
    ];
    for framing in framings {
        let (address, _server) = serve(framing).await;
        let report = run(load(address, 200, Duration::from_millis(200))).await;
        assert_eq!((report.planned, report.ok()), (40, 40), "{report:?}");
    }
}

#[tokio::test]
async fn a_connection_for_each_request_is_made_when_asked_for() {
    // A server that closes after each answer is met with a reused connection in no case.
    let (address, _server) = serve(|nonce| Reaction::AnswerAndClose(right_answer(nonce))).await;
    let connections = Connections::PerRequest(NonZeroUsize::new(8).unwrap());
    let report = run(Load {
        connections,
        ..load(address, 200, Duration::from_millis(500))
    })
    .await;
    assert_eq!(report.ok(), 100, "{report:?}");
}

#[tokio::test]
async fn nobody_listening_counts_as_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let report = run(load(address, 100, Duration::from_millis(200))).await;
    assert_eq!(report.failed(), BTreeMap::from([(Kind::Refused, 20)]));
}

#[tokio::test]
async fn a_connection_closed_before_the_answer_counts_as_reset() {
    all_fail_as(|_| Reaction::AnswerAndClose(String::new()), Kind::Reset).await;
    all_fail_as(
        |_| Reaction::AnswerAndClose("HTTP/1.1 200 O".into()),
        Kind::Reset,
    )
    .await;
}

#[tokio::test]
async fn a_body_that_ends_early_counts_as_cut() {
    let short: Behaviour =
        |nonce| Reaction::AnswerAndClose(right_answer(nonce).replace("length: 16", "length: 17"));
    all_fail_as(short, Kind::CutBody).await;
    let chunk: Behaviour = |_| {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        Reaction::AnswerAndClose(format!("{head}5\r\nabc"))
    };
    all_fail_as(chunk, Kind::CutBody).await;
}

#[tokio::test]
async fn another_requests_nonce_in_head_or_body_counts_as_wrong() {
    const FOREIGN: &str = "0000000000000000";
    let behaviours: [Behaviour; 3] = [
        |nonce| Reaction::Answer(right_answer(nonce).replacen(nonce, FOREIGN, 1)),
        |nonce| {
            let head = right_answer(nonce).replace(&format!("\r\n\r\n{nonce}"), "");
            Reaction::Answer(format!("{head}\r\n\r\n{FOREIGN}"))
        },
        |_| Reaction::Answer(right_answer(FOREIGN)),
    ];
    for behaviour in behaviours {
        all_fail_as(behaviour, Kind::WrongBody).await;
    }
}

#[tokio::test]
async fn an_error_status_counts_with_the_gateways_reason() {
    let unavailable: Behaviour = |_| {
        let head = "HTTP/1.1 503 No\r\nmainstay-reason: starting\r\ncontent-length: 0\r\n\r\n";
        Reaction::Answer(head.into())
    };
    let kind = Kind::Status {
        code: 503,
        reason: Some("starting".into()),
    };
    all_fail_as(unavailable, kind).await;
}

#[tokio::test]
async fn what_is_not_http_counts_as_malformed() {
    all_fail_as(
        |_| Reaction::Answer("SSH-2.0-x\r\n\r\n".into()),
        Kind::Malformed,
    )
    .await;
}

#[tokio::test]
async fn a_server_that_never_answers_counts_as_timed_out_for_those_who_wait_too() {
    // 20 requests on 8 connections: 12 of them never get one.
    all_fail_as(|_| Reaction::Mute, Kind::TimedOut).await;
}

#[tokio::test]
async fn an_idle_connection_that_the_server_closed_costs_no_request() {
    // Without `connection: close`: only the end of the stream tells. Eight connections in turn at
    // 40 requests/s leave each idle for 200 ms.
    let (address, _server) = serve(|nonce| Reaction::AnswerAndClose(right_answer(nonce))).await;
    let report = run(load(address, 40, Duration::from_millis(500))).await;
    assert_eq!(report.ok(), 20, "{report:?}");
}

#[tokio::test]
async fn a_stall_shows_in_every_request_that_it_delays_and_none_is_left_out() {
    const STALL: Duration = Duration::from_millis(500);
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let (address, _server) = serve(|nonce| {
        let begin = *FIRST.get_or_init(Instant::now) + Duration::from_secs(1);
        let now = Instant::now();
        let stalled = now >= begin && now < begin + STALL;
        let when = if stalled { begin + STALL } else { now };
        Reaction::AnswerAt(when.into(), right_answer(nonce))
    })
    .await;
    // Two connections: a closed-loop client would see two slow answers.
    let connections = Connections::Kept(NonZeroUsize::new(2).unwrap());
    let report = run(Load {
        connections,
        ..load(address, 400, Duration::from_secs(2))
    })
    .await;
    assert_eq!((report.planned, report.ok()), (800, 800));
    let slow = report.latency().count_between(100_000, 10_000_000);
    // Planned in the first 400 ms of the stall: 160 requests, each later than 100 ms.
    assert!(slow >= 140, "only {slow} requests show the stall");
    assert!(
        report.latency().max() >= 480_000,
        "longest {} us",
        report.latency().max()
    );
}

#[tokio::test]
async fn a_generator_that_is_too_slow_says_so() {
    let (address, _server) = serve(|nonce| Reaction::Answer(right_answer(nonce))).await;
    let report = run(load(address, 20_000_000, Duration::from_millis(400))).await;
    assert!(report.unsent > 0, "{} planned", report.planned);
}

#[tokio::test]
async fn stopping_early_finishes_what_was_planned_until_then() {
    let (address, _server) = serve(|nonce| Reaction::Answer(right_answer(nonce))).await;
    let stop = CancellationToken::new();
    let (live, mut seconds) = tokio::sync::mpsc::channel(4);
    let running = load(address, 200, Duration::from_mins(10))
        .start(Some(&live), &stop)
        .unwrap();
    let first = seconds.recv().await.unwrap();
    assert!(first.ok > 100 && first.failed == 0, "{first:?}");
    stop.cancel();
    let report = running.finish().await.unwrap();
    assert!(
        report.planned < 2000 && report.ok() == report.planned,
        "{report:?}"
    );
}

#[tokio::test]
async fn the_warm_up_learns_whether_a_service_answers_the_nonce() {
    let echo = serve(|nonce| Reaction::Answer(right_answer(nonce))).await;
    let learnt = fetch(echo.0, "a", &Request::get("/"), 1).await;
    assert!(matches!(learnt, Ok(Expect::Nonce)), "{learnt:?}");
    let page =
        serve(|_| Reaction::Answer("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\npage".into()))
            .await;
    let learnt = fetch(page.0, "a", &Request::get("/"), 1).await;
    assert!(
        matches!(learnt, Ok(Expect::Body(body)) if body.len == 4),
        "{learnt:?}"
    );
    let missing =
        serve(|_| Reaction::Answer("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".into()))
            .await;
    let learnt = fetch(missing.0, "a", &Request::get("/"), 1).await;
    assert_eq!(
        learnt,
        Err(Kind::Status {
            code: 404,
            reason: None
        })
    );
}
