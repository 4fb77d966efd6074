//! HTTP/2 on both listeners, spoken at once (RFC 9113, 3.3), and what a peer may not do with it.

use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mainstay_api::wire::Status;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::centre::{DEADLINE, Place};

/// RFC 9113, 3.4, and an empty SETTINGS frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Types of frames, RFC 9113, 6.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

/// RFC 9113, 7.
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// END_STREAM and END_HEADERS.
const WHOLE: u8 = 0x5;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = len[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A GET of `path` at `localhost` (RFC 7541: 0x82 GET, 0x86 http, 0x04 path, 0x01 authority).
fn get(stream: u32, path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).expect("short")];
    block.extend(path.as_bytes());
    block.extend([0x01, 9]);
    block.extend(b"localhost");
    frame(HEADERS, WHOLE, stream, &block)
}

struct Frame {
    kind: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// The next frame; `None` when the other side has closed.
async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let mut head = [0; 9];
    let read = tokio::time::timeout(DEADLINE, from.read_exact(&mut head)).await;
    read.expect("in time").ok()?;
    let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(len).expect("fits")];
    from.read_exact(&mut payload).await.ok()?;
    Some(Frame {
        kind: head[3],
        stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
        payload,
    })
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}

async fn status_over<S>(stream: S, host: &str, token: Option<&str>) -> (u16, bytes::Bytes)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(stream);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
    let (mut sender, connection) = handshake.expect("connects");
    let connection = tokio::spawn(connection);
    let mut request = Request::get(format!("http://{host}/v1/status"));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).expect("legal");
    let response = sender.send_request(request).await.expect("answers");
    assert_eq!(response.version(), http::Version::HTTP_2);
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("is whole");
    drop(sender);
    connection.await.expect("no panic").expect("ends in order");
    (status, body.to_bytes())
}

#[tokio::test]
async fn http_2_is_answered_on_both_sockets_by_the_same_rules() {
    let mut place = Place::new("http2");
    let _running = place.start();
    let unix = UnixStream::connect(place.socket()).await.expect("connects");
    let (status, body) = status_over(unix, "localhost", None).await;
    assert_eq!(status, 200);
    serde_json::from_slice::<Status>(&body).expect("a status");

    let own = place.tcp().to_string();
    let token = place.token();
    let elsewhere = format!("evil.example:{}", place.tcp().port());
    for (host, token, expected) in [
        (own.as_str(), Some(token.as_str()), 200),
        (own.as_str(), None, 401),
        (elsewhere.as_str(), Some(token.as_str()), 403),
    ] {
        let tcp = TcpStream::connect(place.tcp()).await.expect("connects");
        let (status, _) = status_over(tcp, host, token).await;
        assert_eq!(status, expected, "{host}");
    }
}

#[tokio::test]
async fn requests_that_are_taken_back_at_once_end_the_connection_and_no_other() {
    let mut place = Place::new("resets");
    let _running = place.start();
    let mut stream = UnixStream::connect(place.socket()).await.expect("connects");
    let mut flood = PREFACE.to_vec();
    for stream in (1..2000).step_by(2) {
        flood.extend(get(stream, "/v1/status"));
        flood.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
    }
    // The other side may close before it has read all.
    stream.write_all(&flood).await.ok();
    let mut reason = None;
    while let Some(frame) = read_frame(&mut stream).await {
        if frame.kind == GOAWAY {
            reason = Some(number(&frame.payload[4..8]));
        }
    }
    assert_eq!(reason, Some(ENHANCE_YOUR_CALM));
    let client = place.client();
    client.get::<Status>("/v1/status").await.expect("answers");
}

#[tokio::test]
async fn one_connection_has_so_many_requests_at_a_time_and_no_more() {
    let mut place = Place::new("concurrent");
    let _running = place.start();
    let mut stream = UnixStream::connect(place.socket()).await.expect("connects");
    stream.write_all(PREFACE).await.expect("is open");
    let settings = read_frame(&mut stream).await.expect("its settings");
    assert_eq!(settings.kind, SETTINGS);
    let told = |id: u16| {
        let mut settings = settings.payload.chunks(6);
        let found = settings.find(|setting| setting[..2] == id.to_be_bytes());
        found.map(|setting| number(&setting[2..]))
    };
    // RFC 9113, 6.5.2: SETTINGS_MAX_CONCURRENT_STREAMS, SETTINGS_MAX_HEADER_LIST_SIZE.
    assert_eq!((told(3), told(6)), (Some(32), Some(32 * 1024)));

    let mut requests = Vec::new();
    for stream in (1..=79).step_by(2) {
        requests.extend(get(stream, "/v1/events?follow=true"));
    }
    stream.write_all(&requests).await.expect("is open");
    let mut refused = Vec::new();
    while refused.len() < 8 {
        let frame = read_frame(&mut stream).await.expect("stays open");
        if frame.kind == RST_STREAM {
            assert_eq!(number(&frame.payload), REFUSED_STREAM);
            refused.push(frame.stream);
        }
    }
    assert_eq!(refused, (65..=79).step_by(2).collect::<Vec<u32>>());
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused_in_both_versions() {
    let mut place = Place::new("heads");
    let _running = place.start();
    let long = "x".repeat(40 * 1024);
    let mut stream = UnixStream::connect(place.socket()).await.expect("connects");
    let request = format!("GET /v1/status HTTP/1.1\r\nhost: localhost\r\nx: {long}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok();
    assert!(
        answer.starts_with(b"HTTP/1.1 431 "),
        "{:?}",
        answer.get(..40)
    );

    let stream = UnixStream::connect(place.socket()).await.expect("connects");
    let io = TokioIo::new(stream);
    let handshake = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .handshake(io)
        .await;
    let (mut sender, connection) = handshake.expect("connects");
    let connection = tokio::spawn(connection);
    let request = Request::get("http://localhost/v1/status")
        .header("x", long)
        .body(Empty::<bytes::Bytes>::new());
    let answer = sender.send_request(request.expect("legal")).await;
    let status = answer.map(|answer| answer.status().as_u16());
    assert!(!matches!(status, Ok(200)), "{status:?}");
    connection.abort();
}
