//! The API against its own description: each call is made for real, and what comes back is held
//! against the schema that the OpenAPI document gives for it.

use std::collections::BTreeSet;

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use mainstay_api::calls::{Answer, CALLS, Call, Method, Name};
use mainstay_api::openapi;
use mainstay_api::wire::ProblemCode;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::centre::{DEADLINE, Place, apply, spec};

/// One answer: its status, its content type, and its body or, of a stream, its first line that is
/// not empty.
pub(crate) struct Seen {
    pub(crate) status: StatusCode,
    pub(crate) content_type: String,
    pub(crate) body: Value,
}

/// Makes one call on the unix socket.
pub(crate) async fn call(place: &Place, method: &str, path: &str, body: &[u8]) -> Seen {
    let stream = UnixStream::connect(place.socket()).await.expect("connects");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("connects");
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .body(Full::new(bytes::Bytes::copy_from_slice(body)))
        .expect("legal");
    let response = tokio::time::timeout(DEADLINE, sender.send_request(request))
        .await
        .expect("in time")
        .expect("answers");
    let status = response.status();
    let content_type = response.headers().get("content-type");
    let content_type = content_type.map(|found| found.to_str().expect("is text").to_owned());
    let content_type = content_type.unwrap_or_default();
    let body = tokio::time::timeout(DEADLINE, read(response.into_body(), &content_type))
        .await
        .expect("in time");
    connection.abort();
    let body = serde_json::from_slice(&body)
        .unwrap_or_else(|error| panic!("{method} {path}: {error} in {body:?}"));
    Seen {
        status,
        content_type,
        body,
    }
}

async fn read(mut body: hyper::body::Incoming, content_type: &str) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(chunk) = frame.expect("is whole").into_data() else {
            continue;
        };
        whole.extend_from_slice(&chunk);
        if content_type == "application/x-ndjson" {
            let mut lines = whole.split_inclusive(|byte| *byte == b'\n');
            if let Some(line) = lines.find(|line| line.len() > 1 && line.ends_with(b"\n")) {
                return line.to_owned();
            }
        }
    }
    whole
}

/// The document, with schemas that take nothing that they do not name: what is answered must be
/// described, while a reader of another version must bear more.
fn strict_document() -> Value {
    let mut document = openapi::document();
    close(&mut document["components"]["schemas"]);
    for path in document["paths"]
        .as_object_mut()
        .expect("paths")
        .values_mut()
    {
        close(path);
    }
    document
}

fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(close);
            let is_object = fields.get("properties").is_some_and(Value::is_object);
            if is_object && !fields.contains_key("additionalProperties") {
                fields.insert("unevaluatedProperties".to_owned(), json!(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What the document says that `call` answers with `status`.
fn validator(document: &Value, call: &Call, seen: &Seen) -> jsonschema::Validator {
    let method = call.method.as_str().to_ascii_lowercase();
    let status = seen.status.as_str();
    let content = &document["paths"][call.path][method]["responses"][status]["content"];
    let schema = &content[&seen.content_type]["schema"];
    assert!(!schema.is_null(), "{call:?} {status} {}", seen.content_type);
    let mut whole = json!({ "components": document["components"] });
    whole["allOf"] = json!([schema]);
    jsonschema::draft202012::new(&whole).expect("is a schema")
}

#[track_caller]
fn hold(document: &Value, call: &Call, seen: &Seen) {
    let validator = validator(document, call, seen);
    let wrong: Vec<String> = validator
        .iter_errors(&seen.body)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(wrong.is_empty(), "{call:?}: {wrong:?} in {}", seen.body);
}

/// A path and a body with which the call succeeds while there is one service `orders`.
pub(crate) fn example(name: Name) -> (&'static str, Value) {
    let consumer = json!({ "name": "gateway", "incarnation": 1 });
    match name {
        Name::Status => ("/v1/status", Value::Null),
        Name::Services => ("/v1/services", Value::Null),
        Name::Instances => ("/v1/instances", Value::Null),
        Name::SetIntake => ("/v1/instances/orders-3/intake", json!({ "weight": 50 })),
        Name::Secrets => ("/v1/secrets", Value::Null),
        Name::SetSecret => ("/v1/secrets/db", json!({ "value": "hunter2" })),
        Name::OpenSecret => ("/v1/secrets/db/value", Value::Null),
        Name::RemoveSecret => ("/v1/secrets/db?force=true", Value::Null),
        Name::OpenApi => ("/v1/openapi.json", Value::Null),
        Name::Events => ("/v1/events?after=0&follow=false", Value::Null),
        Name::Spec => ("/v1/services/orders/spec", Value::Null),
        Name::WhyService => ("/v1/why/services/orders", Value::Null),
        Name::WhyInstance => ("/v1/why/instances/orders-1", Value::Null),
        Name::Apply => ("/v1/services", json!({ "services": [spec("orders", 2)] })),
        Name::Scale => ("/v1/services/orders/scale", json!({ "instances": 1 })),
        Name::Rollback => ("/v1/services/orders/rollback", json!({ "to": 1 })),
        Name::Pause => ("/v1/services/orders/pause", Value::Null),
        Name::Resume => ("/v1/services/orders/resume", Value::Null),
        Name::Promote => ("/v1/services/orders/promote", Value::Null),
        Name::Remove => ("/v1/services/orders", Value::Null),
        Name::Shutdown => ("/v1/shutdown", Value::Null),
        Name::Backup => ("/v1/backup", Value::Null),
        Name::WatchRoutes => ("/v1/watch/routes?name=gateway&incarnation=1", Value::Null),
        Name::WatchPlan => ("/v1/watch/plan?node=local&incarnation=1", Value::Null),
        Name::WatchDirectory => ("/v1/watch/directory", Value::Null),
        Name::Acknowledge => (
            "/v1/consumers/ack",
            json!({ "consumer": consumer, "generation": null, "in_flight": [] }),
        ),
        Name::Farewell => (
            "/v1/consumers/farewell",
            json!({ "consumer": consumer, "reason": "test" }),
        ),
        Name::Backups => (
            "/v1/nodes/backups",
            json!({ "standing": "late", "said": "none yet" }),
        ),
        Name::Report => (
            "/v1/nodes/report",
            json!({ "node": "local", "incarnation": 1, "plan": null, "instances": [] }),
        ),
    }
}

#[tokio::test]
async fn every_call_answers_what_the_document_says() {
    let mut place = Place::new("contract");
    let _running = place.start();
    let document = strict_document();
    // Reports first, so that routes are published; what ends services last.
    let rank = |call: &&Call| match call.name {
        // While the instance that it names is there.
        Name::Report | Name::SetIntake => 0,
        Name::Remove | Name::RemoveSecret => 2,
        Name::Shutdown => 3,
        _ => 1,
    };
    let mut calls: Vec<&Call> = CALLS.iter().collect();
    calls.sort_by_key(rank);
    let client = place.client();
    apply(&client, vec![spec("orders", 2)])
        .await
        .expect("is taken");
    let mut second = spec("orders", 2);
    second.dir = "/tmp".to_owned();
    apply(&client, vec![second]).await.expect("is taken");
    for described in calls {
        let (path, body) = example(described.name);
        let body = match body {
            Value::Null => Vec::new(),
            body => serde_json::to_vec(&body).expect("JSON"),
        };
        let seen = call(&place, described.method.as_str(), path, &body).await;
        let expected = match described.name {
            // Without an agent no canary gets ready.
            Name::Promote => StatusCode::CONFLICT,
            _ => StatusCode::OK,
        };
        assert_eq!(seen.status, expected, "{path}: {}", seen.body);
        let streams = matches!(described.gives, Answer::Lines(_));
        assert_eq!(
            streams,
            seen.content_type == "application/x-ndjson",
            "{path}"
        );
        hold(&document, described, &seen);
    }
}

#[tokio::test]
async fn the_router_answers_the_documents_paths_and_no_other() {
    let mut place = Place::new("paths");
    let _running = place.start();
    let document = openapi::document();
    let documented = document["paths"].as_object().expect("paths");
    for (path, operations) in documented {
        let operations = operations.as_object().expect("operations");
        for method in ["get", "post", "delete", "put", "patch"] {
            // With a query and a body that nothing takes: what is asked is only who answers.
            let tried = format!("{}?nobody=1", path.replace("{name}", "nobody"));
            let seen = call(&place, &method.to_ascii_uppercase(), &tried, b"[").await;
            let code = seen.body["code"].as_str().unwrap_or_default();
            let answered = !["path-unknown", "method-not-allowed"].contains(&code);
            assert_eq!(answered, operations.contains_key(method), "{method} {path}");
        }
    }
    let known: BTreeSet<&str> = CALLS.iter().map(|call| call.path).collect();
    assert_eq!(known, documented.keys().map(String::as_str).collect());
    for unknown in ["/", "/v1", "/v2/status", "/v1/status/", "/v1/services/a/b"] {
        let seen = call(&place, "GET", unknown, b"").await;
        assert_eq!(seen.body["code"], "path-unknown", "{unknown}");
    }
}

#[tokio::test]
async fn a_refusal_is_one_of_those_that_the_document_names_for_the_call() {
    let mut place = Place::new("refused");
    let _running = place.start();
    let document = strict_document();
    for described in CALLS {
        let method = described.method.as_str();
        let mut tries: Vec<(String, &[u8], ProblemCode)> = Vec::new();
        let path = described.path.replace("{name}", "orders");
        let (example, _) = example(described.name);
        if described.query.is_some() {
            tries.push((format!("{path}?x=1"), b"", ProblemCode::QueryInvalid));
        }
        if described.path.contains("{name}") {
            let wrong = described.path.replace("{name}", "Wrong!");
            tries.push((wrong, b"{}", ProblemCode::NameInvalid));
        }
        if described.takes.is_some() {
            tries.push((example.to_owned(), b"{", ProblemCode::BodyNotJson));
            let body = b"{\"unknown\":1}";
            tries.push((example.to_owned(), body, ProblemCode::FieldInvalid));
        }
        for (path, body, code) in tries {
            let seen = call(&place, method, &path, body).await;
            assert_eq!(seen.body["code"], code.as_str(), "{method} {path}");
            assert_eq!(seen.status.as_u16(), code.status());
            assert!(described.problems().contains(&code), "{described:?}");
            hold(&document, described, &seen);
        }
    }
}

#[test]
fn the_document_names_each_type_once_and_refers_to_nothing_that_is_not_there() {
    let document = openapi::document();
    let schemas = document["components"]["schemas"]
        .as_object()
        .expect("schemas");
    for name in schemas.keys() {
        let twin = name.trim_end_matches(|last: char| last.is_ascii_digit());
        assert_eq!(twin, name, "two types share this name");
    }
    let text = document.to_string();
    for (_, after) in text
        .match_indices("\"$ref\":\"")
        .map(|(at, found)| text.split_at(at + found.len()))
    {
        let (target, _) = after.split_once('"').expect("ends");
        let name = target
            .strip_prefix("#/components/schemas/")
            .expect("is local");
        assert!(schemas.contains_key(name), "{target}");
    }
    assert_eq!(document["openapi"], "3.1.0");
    assert!(CALLS.iter().any(|call| call.method == Method::Delete));
}
