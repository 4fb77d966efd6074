//! What is refused, how it is said, and who is let in.

use std::path::Path;

use mainstay_api::client::{Client, Server};
use mainstay_api::wire::ProblemCode::{
    BodyNotJson, FieldInvalid, MethodNotAllowed, NameInvalid, NodeUnknown, PathUnknown,
    QueryInvalid, ServiceUnknown,
};
use mainstay_api::wire::{Accepted, BODY_LEN_MAX, Problem, ProblemCode, Rollback, Scale, Status};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::centre::{DEADLINE, Place, apply, node, problem, spec};

/// Sends `request` as it is; gives the status and the body of the answer.
async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
) -> (u16, Option<Problem>) {
    stream.write_all(request.as_bytes()).await.expect("sends");
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(DEADLINE, read)
        .await
        .expect("in time")
        .expect("is text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (status.expect("a status"), serde_json::from_str(body).ok())
}

async fn on_unix(socket: &Path, line: &str, body: &str) -> (u16, Option<Problem>) {
    let stream = UnixStream::connect(socket).await.expect("connects");
    let request = format!(
        "{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    exchange(stream, &request).await
}

/// A request's line and body; the status, the code and a part of the message that refuse it.
type Case = (&'static str, &'static str, u16, ProblemCode, &'static str);

#[rustfmt::skip]
const REFUSED: [Case; 12] = [
    ("POST /v1/services", "{\"services\":", 400, BodyNotJson, "not JSON"),
    ("POST /v1/services", r#"{"services":[{"name":"Orders"}]}"#, 400, FieldInvalid, "`services[0].name`"),
    ("POST /v1/services/orders/scale", "{\"instances\":-1}", 400, FieldInvalid, "`instances`"),
    ("POST /v1/services/orders/scale", "{\"instances\":1}", 404, ServiceUnknown, "`orders`"),
    ("POST /v1/services/Or!/scale", "{\"instances\":1}", 400, NameInvalid, "Or!"),
    ("DELETE /v1/services/orders", "", 404, ServiceUnknown, "`orders`"),
    ("GET /v1/nothing", "", 404, PathUnknown, "/v1/nothing"),
    ("DELETE /v1/status", "", 405, MethodNotAllowed, "DELETE"),
    ("GET /v1/events?after=x", "", 400, QueryInvalid, "query"),
    ("GET /v1/events?from=1", "", 400, QueryInvalid, "from"),
    ("GET /v1/watch/routes?name=gateway", "", 400, QueryInvalid, "incarnation"),
    ("GET /v1/watch/plan?node=other&incarnation=1", "", 404, NodeUnknown, "`other`"),
];

#[tokio::test]
async fn every_refusal_is_a_problem_with_its_code_and_the_place_of_what_is_wrong() {
    let mut place = Place::new("refusals");
    let _running = place.start();
    for (line, body, status, code, part) in REFUSED {
        let (seen, problem) = on_unix(&place.socket(), line, body).await;
        let problem = problem.unwrap_or_else(|| panic!("{line}: no problem in the answer"));
        assert_eq!((seen, problem.code), (status, code), "{line}: {problem:?}");
        assert!(problem.message.contains(part), "{line}: {problem:?}");
    }
}

#[tokio::test]
async fn what_the_machine_refuses_comes_with_its_remedy() {
    let mut place = Place::new("remedy");
    let _running = place.start();
    let client = place.client();
    apply(&client, vec![spec("orders", 0)])
        .await
        .expect("is accepted");
    let mut other = spec("payments", 0);
    other.http = spec("orders", 0).http;
    let refused = problem(apply(&client, vec![other]).await);
    assert_eq!(refused.code, ProblemCode::RouteTaken);
    assert!(!refused.remedy.is_empty(), "{refused:?}");
    let mut endless = spec("payments", 0);
    endless.health.every = std::time::Duration::ZERO;
    let refused = problem(apply(&client, vec![endless]).await);
    assert_eq!(refused.code, ProblemCode::SpecInvalid);
    assert!(refused.message.contains("`health.every`"), "{refused:?}");
    let rollback = Rollback { to: None };
    let path = "/v1/services/orders/rollback";
    let refused = problem(client.post::<_, Accepted>(path, &rollback).await);
    assert_eq!(refused.code, ProblemCode::NoEarlierVersion);
    let path = "/v1/services/orders/scale";
    let many = Scale { instances: 100_000 };
    let refused = problem(client.post::<_, Accepted>(path, &many).await);
    assert_eq!(refused.code, ProblemCode::TooManyInstances);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_and_its_sender_gets_to_read_it() {
    let mut place = Place::new("large");
    let _running = place.start();
    for len in [BODY_LEN_MAX + 1, 3 * BODY_LEN_MAX] {
        let text = "x".repeat(len);
        for client in [place.client(), place.tcp_client()] {
            let refused = problem(client.post::<_, Accepted>("/v1/services", &text).await);
            assert!(refused.message.contains("longer than"), "{refused:?}");
        }
    }
}

#[tokio::test]
async fn the_loopback_port_wants_the_token_the_own_name_and_no_other_page() {
    let mut place = Place::new("token");
    let _running = place.start();
    let status: Status = place.client().get("/v1/status").await.expect("answers");
    assert_eq!(status.nodes.len(), 1);
    assert_eq!(status.nodes[0].node, node());
    place
        .tcp_client()
        .get::<Status>("/v1/status")
        .await
        .expect("the token is right");

    let wrong = Client::new(Server::Tcp {
        address: place.tcp(),
        token: "0".repeat(64),
    });
    let refused = problem(wrong.get::<Status>("/v1/status").await);
    assert_eq!(refused.code, ProblemCode::TokenWrong);

    let authorization = format!("authorization: Bearer {}", place.token());
    let own = place.tcp().to_string();
    let cases = [
        (format!("host: {own}\r\n{authorization}"), 200),
        (
            format!("host: {own}\r\norigin: http://{own}\r\n{authorization}"),
            200,
        ),
        (format!("host: {own}"), 401),
        (format!("host: evil.example\r\n{authorization}"), 403),
        (
            format!("host: {own}\r\norigin: http://evil.example\r\n{authorization}"),
            403,
        ),
        (
            format!("host: {own}\r\norigin: null\r\n{authorization}"),
            403,
        ),
    ];
    for (headers, expected) in cases {
        let stream = TcpStream::connect(place.tcp()).await.expect("connects");
        let request = format!("GET /v1/status HTTP/1.1\r\nconnection: close\r\n{headers}\r\n\r\n");
        let (status, _) = exchange(stream, &request).await;
        assert_eq!(status, expected, "{headers}");
    }
}
