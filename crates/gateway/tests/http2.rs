//! What clients of HTTP/2 see.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::convert::Infallible;
use std::future::Future;
use std::io::{BufRead, Read, Write};
use std::net::SocketAddr;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mainstay_model::gateway::GatewayLimits;
use mainstay_testkit::wait_until;
use support::{
    Gateway, Instance, SOON, Setting, Then, answer, connect, endpoint, one_service, read_body,
};

type Sent = UnsyncBoxBody<Bytes, Infallible>;

fn run<T>(task: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { tokio::time::timeout(SOON, task).await.unwrap() })
}

async fn open(entry: SocketAddr) -> http2::SendRequest<Sent> {
    let stream = tokio::net::TcpStream::connect(entry).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(async move {
        connection.await.ok();
    });
    sender
}

fn request(method: &str, path: &str, body: impl Into<Bytes>) -> Request<Sent> {
    Request::builder()
        .method(method)
        .uri(format!("http://shop.example{path}"))
        .body(Full::new(body.into()).boxed_unsync())
        .unwrap()
}

async fn text(response: http::Response<Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[test]
fn a_request_of_http2_reaches_the_instance_as_one_of_http1() {
    let instance = Instance::start(|seen, stream| {
        let body = read_body(seen, stream)?;
        let name = format!("{}:{}", seen.method(), body.len());
        answer(stream, "200 OK", &[("x-kept", "1")], name.as_bytes())?;
        Ok(Then::Next)
    });
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    run(async {
        let mut sender = open(gateway.entry).await;
        let mut get = request("GET", "/a?b=c", "");
        for cookie in ["a=1", "b=2"] {
            get.headers_mut().append("cookie", cookie.parse().unwrap());
        }
        let response = sender.send_request(get).await.unwrap();
        assert_eq!(response.headers()["x-kept"], "1");
        assert!(response.headers().contains_key("x-request-id"));
        assert!(response.headers().contains_key("date"));
        assert_eq!(text(response).await, "GET:0");
        let response = sender.send_request(request("POST", "/", vec![b'x'; 300_000]));
        assert_eq!(text(response.await.unwrap()).await, "POST:300000");
    });
    let seen = instance.seen();
    assert_eq!(seen[0].path(), "/a?b=c");
    assert_eq!(seen[0].header("host"), Some("shop.example"));
    assert_eq!(seen[0].header("cookie"), Some("a=1; b=2"));
    assert_eq!(seen[0].header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen[1].header("content-length"), Some("300000"));
}

#[test]
fn what_a_service_asks_for_holds_for_http2_as_well() {
    use mainstay_model::rewrite::{PathRewrite, Redirect, RedirectStatus, Rewrite, Target};
    use mainstay_model::route::{CookieName, FieldName};
    use mainstay_model::routing::{Handle, VersionRewrite};
    use mainstay_model::traffic::Sticky;
    use mainstay_model::{HttpMatch, PathPrefix};

    let instance = Instance::start(|seen, stream| {
        let via = seen.header("via").unwrap_or_default();
        let text = format!("{} {via}", seen.path());
        answer(stream, "200 OK", &[("server", "secret")], text.as_bytes())?;
        Ok(Then::Next)
    });
    let path = |text: &str| PathPrefix::parse(text).unwrap();
    let mut held = endpoint(1, instance.address);
    held.handle = Some(Handle(1));
    let mut routing = one_service(1, vec![held]);
    let routes = &mut routing.services[0];
    let name = CookieName::parse("instance").unwrap();
    routes.traffic.sticky = Some(Sticky::Cookie { name, ttl: None });
    routes.traffic.redirects.push(Redirect {
        on: HttpMatch::new(None, path("/old")),
        to: Target::parse("/new{rest}").unwrap(),
        status: RedirectStatus::Found,
    });
    let mut rewrite = Rewrite {
        path: Some(PathRewrite::Strip(path("/shop"))),
        ..Rewrite::default()
    };
    let server = FieldName::parse("server").unwrap();
    rewrite.response.remove.insert(server);
    let version = mainstay_ids::Version::FIRST;
    routes.rewrites.push(VersionRewrite { version, rewrite });
    let gateway = Gateway::with(routing);
    run(async {
        let mut sender = open(gateway.entry).await;
        let response = sender
            .send_request(request("GET", "/shop/7", ""))
            .await
            .unwrap();
        let headers = response.headers();
        assert_eq!(
            headers["set-cookie"],
            "instance=0000000000000001; Path=/; HttpOnly; SameSite=Lax"
        );
        assert!(!headers.contains_key("server"));
        assert_eq!(text(response).await, "/7 2.0 mainstay");
        let response = sender
            .send_request(request("GET", "/old/7", ""))
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::FOUND);
        assert_eq!(response.headers()["location"], "/new/7");
    });
    assert_eq!(instance.count(), 1);
}

#[test]
fn a_body_of_unknown_length_and_trailers_of_the_answer_pass() {
    let instance = Instance::start(|seen, stream| {
        assert_eq!(seen.header("transfer-encoding"), Some("chunked"));
        assert_eq!(read_body(seen, stream)?, b"hello world");
        stream.get_mut().write_all(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n",
        )?;
        Ok(Then::Next)
    });
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    run(async {
        let mut sender = open(gateway.entry).await;
        let pieces = ["hello ", "world"].map(|piece| Ok(Frame::data(Bytes::from(piece))));
        let body = StreamBody::new(futures_util::stream::iter(pieces));
        let request = Request::builder()
            .method("POST")
            .uri("http://shop.example/")
            .body(body.boxed_unsync())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let whole = response.into_body().collect().await.unwrap();
        assert_eq!(whole.trailers().unwrap()["x-sum"], "7");
        assert_eq!(whole.to_bytes(), "ok");
    });
}

/// A POST whose body is these pieces, with trailers behind them.
fn post_with_trailers(pieces: &[&'static str], trailers: &[(&'static str, &str)]) -> Request<Sent> {
    let mut headers = HeaderMap::new();
    for (name, value) in trailers {
        headers.append(*name, value.parse().unwrap());
    }
    let pieces = pieces.iter();
    let pieces = pieces.map(|piece| Frame::data(Bytes::from_static(piece.as_bytes())));
    let frames: Vec<_> = pieces.chain([Frame::trailers(headers)]).map(Ok).collect();
    Request::builder()
        .method("POST")
        .uri("http://shop.example/pkg.Service/Call")
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync())
        .unwrap()
}

#[test]
fn trailers_of_a_request_reach_the_instance_and_those_of_its_answer_come_back() {
    let instance = Instance::start(|seen, stream| {
        assert_eq!(seen.header("te"), Some("trailers"));
        assert_eq!(seen.header("transfer-encoding"), Some("chunked"));
        let mut body = String::new();
        while !body.ends_with("\r\n\r\n") {
            stream.read_line(&mut body)?;
        }
        let (_, trailers) = body.split_once("\r\n0\r\n").unwrap();
        let text = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n\
             {:x}\r\n{trailers}\r\n0\r\ngrpc-status: 0\r\ngrpc-message: fine\r\n\r\n",
            trailers.len()
        );
        stream.get_mut().write_all(text.as_bytes())?;
        Ok(Then::Next)
    });
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    run(async {
        let mut sender = open(gateway.entry).await;
        for (pieces, trailers, reached) in [
            (
                &["hel", "lo"][..],
                &[("x-sum", "7"), ("x-sum", "8"), ("age", "1"), ("via", "me")][..],
                "x-sum: 7\r\nx-sum: 8\r\n\r\n",
            ),
            (&["hello"], &[], "\r\n"),
        ] {
            let request = post_with_trailers(pieces, trailers);
            let response = sender.send_request(request).await.unwrap();
            let whole = response.into_body().collect().await.unwrap();
            let back = whole.trailers().unwrap();
            assert_eq!(back["grpc-status"], "0");
            assert_eq!(back["grpc-message"], "fine");
            assert_eq!(whole.to_bytes(), reached);
        }
    });
    assert_eq!(instance.seen()[1].connection, 0, "the connection goes on");
}

#[test]
fn a_trailer_that_may_not_be_one_breaks_the_request_off() {
    const BROKEN: [&str; 2] = ["content-length", "host"];
    let (ended, end) = mpsc::sync_channel(BROKEN.len());
    let ended = Mutex::new(ended);
    let instance = Instance::start(move |seen, stream| {
        let whole = read_body(seen, stream);
        ended.lock().unwrap().send(whole.is_ok()).unwrap();
        whole.map(|_| Then::Next)
    });
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    run(async {
        let mut sender = open(gateway.entry).await;
        for name in BROKEN {
            let request = post_with_trailers(&["hello"], &[(name, "1")]);
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{name}");
            assert_eq!(response.headers()["mainstay-reason"], "bad-request");
        }
    });
    for whole in end.iter().take(BROKEN.len()) {
        assert!(!whole, "the instance saw a complete request");
    }
}

#[test]
fn interim_answers_do_not_disturb_clients_of_http2() {
    let instance = Instance::start(|_, stream| {
        let hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n";
        stream.get_mut().write_all(hints)?;
        answer(stream, "200 OK", &[], b"one")?;
        Ok(Then::Next)
    });
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    run(async {
        let mut sender = open(gateway.entry).await;
        let response = sender.send_request(request("GET", "/", "")).await.unwrap();
        assert!(!response.headers().contains_key("link"));
        assert_eq!(text(response).await, "one");
    });
}

#[test]
fn requests_of_one_connection_run_beside_each_other() {
    const REQUESTS: usize = 50;
    let instance = Instance::start(|_, stream| {
        answer(stream, "200 OK", &[], &vec![b'y'; 100_000])?;
        Ok(Then::Next)
    });
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    run(async {
        let mut sender = open(gateway.entry).await;
        let mut answers = Vec::new();
        for _ in 0..REQUESTS {
            answers.push(sender.send_request(request("GET", "/", "")));
        }
        for answer in answers {
            assert_eq!(text(answer.await.unwrap()).await.len(), 100_000);
        }
    });
    assert_eq!(instance.count(), REQUESTS);
}

#[test]
fn a_stream_that_is_taken_back_frees_the_instance() {
    let instance = Instance::start(|_, stream| {
        // Returns only when the gateway closes the connection.
        stream.read_exact(&mut [0])?;
        Ok(Then::Next)
    });
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    run(async {
        let mut sender = open(gateway.entry).await;
        let answer = sender.send_request(request("GET", "/", ""));
        let given_up = tokio::time::timeout(Duration::from_millis(200), answer);
        assert!(given_up.await.is_err());
        // The connection goes on.
        let refused = sender.send_request(request("GET", "/none", ""));
        drop(refused);
    });
    wait_until(SOON, "the instance is freed", || {
        (instance.closed() >= 1)
            .then_some(())
            .ok_or_else(|| "it is not".to_owned())
    });
}

#[test]
fn what_http2_must_not_say_is_refused_and_the_connection_goes_on() {
    let instance = Instance::named("one");
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    run(async {
        let mut sender = open(gateway.entry).await;
        let mut bad = request("GET", "/", "");
        let other = "other.example".parse().unwrap();
        bad.headers_mut().insert("host", other);
        let response = sender.send_request(bad).await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(response.headers()["mainstay-reason"], "bad-request");
        let good = sender.send_request(request("GET", "/", "")).await.unwrap();
        assert_eq!(text(good).await, "one");
    });
    assert_eq!(instance.count(), 1);
}

#[test]
fn a_stopping_gateway_says_goaway_and_finishes_what_is_under_way() {
    let (go_on, wait) = mpsc::sync_channel::<()>(1);
    let wait = Mutex::new(wait);
    let instance = Instance::start(move |_, stream| {
        wait.lock().unwrap().recv().unwrap();
        answer(stream, "200 OK", &[], b"late")?;
        Ok(Then::Next)
    });
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    run(async {
        let mut sender = open(gateway.entry).await;
        let answer = sender.send_request(request("GET", "/", ""));
        let stop = async {
            while instance.count() == 0 {
                tokio::task::yield_now().await;
            }
            gateway.stop();
            // No new connection is taken any more: it has heard.
            while tokio::net::TcpStream::connect(gateway.entry).await.is_ok() {
                tokio::task::yield_now().await;
            }
            go_on.send(()).unwrap();
        };
        let (answer, ()) = tokio::join!(answer, stop);
        assert_eq!(text(answer.unwrap()).await, "late");
        wait_for_end(&mut sender).await;
    });
}

async fn wait_for_end(sender: &mut http2::SendRequest<Sent>) {
    while !sender.is_closed() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn floods_of_frames_cut_the_connection_and_harm_no_other() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let ping: &[u8] = b"\0\0\x08\x06\0\0\0\0\x0012345678";
    let settings: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    // HEADERS without its end, then CONTINUATION for ever (CVE-2024-27316 and its kin).
    let open: &[u8] = b"\0\0\x01\x01\0\0\0\0\x01\x82";
    let continuation: &[u8] = b"\0\0\x01\x09\0\0\0\0\x01\x84";
    let instance = Instance::named("one");
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    for (opening, flood) in [(&b""[..], ping), (b"", settings), (open, continuation)] {
        let mut client = connect(gateway.entry);
        client.write_all(PREFACE).unwrap();
        client.write_all(opening).unwrap();
        let many = flood.repeat(500);
        let cut = (0..2000).any(|_| client.write_all(&many).is_err());
        assert!(cut, "a flood of {flood:?} goes on and on");
        assert_eq!(gateway.request("GET", "/").status, 200);
    }
}

#[test]
fn an_upload_by_http2_may_take_longer_than_an_answer_but_not_stand_still() {
    let instance = Instance::start(|seen, stream| {
        let body = read_body(seen, stream)?;
        answer(stream, "200 OK", &[], body.len().to_string().as_bytes())?;
        Ok(Then::Next)
    });
    let gateway = Gateway::start(Setting {
        limits: GatewayLimits {
            answer_time: Duration::from_millis(900),
            body_idle: Duration::from_millis(900),
            ..GatewayLimits::default()
        },
        ..Setting::default()
    });
    gateway.publish_and_wait(one_service(1, vec![endpoint(1, instance.address)]));
    run(async {
        let mut sender = open(gateway.entry).await;
        for (pause, pieces, status, reason) in [
            (Duration::from_millis(300), 12, 200, None),
            (SOON, 2, 408, Some("body-timeout")),
        ] {
            let pieces = futures_util::stream::unfold(0, move |nth| async move {
                if nth > 0 {
                    let nothing = std::future::pending::<()>();
                    tokio::time::timeout(pause, nothing).await.ok();
                }
                (nth < pieces).then(|| (Ok(Frame::data(Bytes::from_static(b"x"))), nth + 1))
            });
            let request = Request::builder()
                .method("POST")
                .uri("http://shop.example/")
                .body(StreamBody::new(pieces).boxed_unsync())
                .unwrap();
            let response = sender.send_request(request).await.unwrap();
            let told = response.headers().get("mainstay-reason");
            let told = told.map(|value| value.to_str().unwrap());
            assert_eq!((response.status().as_u16(), told), (status, reason));
        }
    });
}

#[test]
fn a_client_of_http2_that_reads_nothing_is_cut_off() {
    let instance = Instance::start(|_, stream| {
        answer(stream, "200 OK", &[], &vec![b'y'; 4_000_000])?;
        Ok(Then::Next)
    });
    let gateway = Gateway::start(Setting {
        limits: GatewayLimits {
            write_idle: Duration::from_millis(300),
            ..GatewayLimits::default()
        },
        ..Setting::default()
    });
    gateway.publish_and_wait(one_service(1, vec![endpoint(1, instance.address)]));
    run(async {
        let mut sender = open(gateway.entry).await;
        let response = sender.send_request(request("GET", "/", "")).await.unwrap();
        let mut body = response.into_body();
        body.frame().await.unwrap().unwrap();
        // The rest does not fit into the windows.
        while instance.closed() == 0 {
            tokio::task::yield_now().await;
        }
        let rest = body.collect().await;
        assert!(rest.is_err(), "it seemed complete");
    });
}
