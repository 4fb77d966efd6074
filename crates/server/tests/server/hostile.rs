//! Nonsense for every call: a refusal with code, message and remedy, or an answer; never a fault,
//! never a connection that breaks. `SEED=N` repeats one run.

use fastrand::Rng;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use mainstay_api::calls::{CALLS, Call, Name};
use mainstay_api::wire::{Problem, ProblemCode, Status};
use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::centre::{DEADLINE, Place, apply, spec};
use crate::contract::example;

/// Tries per call and run.
const TRIES: usize = 80;

#[tokio::test]
async fn nonsense_is_answered_and_never_a_fault() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let mut place = Place::new("hostile");
    let _running = place.start();
    let client = place.client();
    apply(&client, vec![spec("orders", 2)])
        .await
        .expect("is taken");
    // Everything is refused behind a shutdown: last.
    let mut calls: Vec<&Call> = CALLS.iter().collect();
    calls.sort_by_key(|call| call.name == Name::Shutdown);
    let mut refused = 0;
    for call in calls {
        for _ in 0..TRIES {
            let (path, body) = nonsense(&mut rng, call);
            let method = if rng.u8(..8) == 0 {
                ["PUT", "PATCH", "OPTIONS", "POST", "DELETE", "BREW"][rng.usize(..6)]
            } else {
                call.method.as_str()
            };
            let said = format!("SEED={seed} {method} {path} {}", text(&body));
            refused += usize::from(holds(&place, &mut rng, method, &path, body, &said).await);
        }
    }
    println!("{refused} of {} were refused", CALLS.len() * TRIES);
    assert!(refused > CALLS.len() * TRIES / 4, "most of it is nonsense");
    client
        .get::<Status>("/v1/status")
        .await
        .expect("still answers");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned()
}

/// Makes the call and checks what comes; whether it was refused.
async fn holds(
    place: &Place,
    rng: &mut Rng,
    method: &str,
    path: &str,
    body: Vec<u8>,
    said: &str,
) -> bool {
    let mut request = Request::builder().method(method).uri(path);
    request = request.header("host", "localhost");
    for _ in 0..rng.usize(..4) {
        let name = [
            "accept",
            "content-type",
            "origin",
            "authorization",
            "te",
            "x-y",
        ];
        let value: String = (0..rng.usize(..40)).map(|_| rng.char(' '..'~')).collect();
        request = request.header(name[rng.usize(..name.len())], value);
    }
    let Ok(request) = request.body(Full::new(bytes::Bytes::from(body))) else {
        return false; // not even HTTP
    };
    let stream = UnixStream::connect(place.socket()).await.expect("connects");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.expect("connects");
    let connection = tokio::spawn(connection);
    let answer = tokio::time::timeout(DEADLINE, sender.send_request(request)).await;
    let answer = answer
        .unwrap_or_else(|_| panic!("no answer: {said}"))
        .unwrap_or_else(|error| panic!("{error}: {said}"));
    let status = answer.status();
    if status.is_success() {
        connection.abort(); // it may be a stream
        return false;
    }
    let body = answer
        .into_body()
        .collect()
        .await
        .expect("is whole")
        .to_bytes();
    connection.abort();
    let problem: Problem = serde_json::from_slice(&body)
        .unwrap_or_else(|error| panic!("{error} in {status} {body:?}: {said}"));
    assert_eq!(status.as_u16(), problem.code.status(), "{said}");
    assert_ne!(problem.code, ProblemCode::InternalFault, "{said}");
    assert!(
        !problem.message.is_empty() && !problem.remedy.is_empty(),
        "{said}"
    );
    true
}

fn nonsense(rng: &mut Rng, call: &Call) -> (String, Vec<u8>) {
    let (path, body) = example(call.name);
    let mut path = path.to_owned();
    if rng.u8(..3) == 0 {
        let junk: String = (0..rng.usize(..30)).map(|_| rng.char('!'..'~')).collect();
        let junk = junk.replace(['#', '<', '>', '"', '`', '{', '}', '^', '\\', '|'], "%2F");
        path = match rng.u8(..3) {
            0 => path.replace("orders", &junk.replace('?', "%3F")),
            1 => format!("{path}?{junk}"),
            _ => path.replacen('=', &format!("={junk}"), 1),
        };
    }
    let body = match rng.u8(..6) {
        0 => (0..rng.usize(..200)).map(|_| rng.u8(..)).collect(),
        1 => {
            let whole = serde_json::to_vec(&body).expect("JSON");
            whole[..rng.usize(..=whole.len())].to_vec()
        }
        _ => {
            let mut body = body;
            for _ in 0..=rng.usize(..3) {
                disturb(rng, &mut body);
            }
            serde_json::to_vec(&body).expect("JSON")
        }
    };
    (path, body)
}

/// Puts something else at a random place of the document.
fn disturb(rng: &mut Rng, value: &mut Value) {
    let deeper = rng.u8(..5) != 0;
    match value {
        Value::Object(fields) if deeper && !fields.is_empty() => {
            let at = rng.usize(..fields.len());
            let field = fields.values_mut().nth(at).expect("is there");
            disturb(rng, field);
        }
        Value::Array(items) if deeper && !items.is_empty() => {
            let at = rng.usize(..items.len());
            disturb(rng, &mut items[at]);
        }
        Value::Object(fields) if rng.bool() => {
            fields.insert("surplus".to_owned(), json!(1));
        }
        other => *other = strange(rng),
    }
}

fn strange(rng: &mut Rng) -> Value {
    let mut all = [
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(u32::MAX),
        json!(u64::MAX),
        json!(""),
        json!("0s"),
        json!("orders-18446744073709551615"),
        json!("x".repeat(5000)),
        json!("\u{0}\n\u{7f}"),
        json!([]),
        json!({}),
        json!({ "epoch": u64::MAX, "revision": u64::MAX }),
        json!([[[[[[[[]]]]]]]]),
    ];
    all[rng.usize(..all.len())].take()
}
