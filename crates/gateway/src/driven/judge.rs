//! What must hold of what came out on both sides.

use bytes::{Bytes, BytesMut};
use mainstay_http1::{Decoder, HeadLimits, Request, Scan, Step};

use super::client::Client;
use super::instance::{Instances, TAGS, Talk};
use super::reading::{self, Message, Read};
use super::script::{Reads, Script};

/// What the gateway may hold of one side that the other does not take: its buffers, those of the
/// sockets, and what it reads only to throw it away.
const HELD_MAX: usize = 1024 * 1024;

/// Whatever the gateway lets through, and what it adds.
const LIMITS: HeadLimits = HeadLimits {
    len_max: 64 * 1024,
    fields_max: 200,
};

/// What there was to judge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Requests that reached instances whole.
    pub(super) requests: usize,
    /// Answers that the client was told whole.
    pub(super) answers: usize,
}

/// # Panics
///
/// If anything is not as it must be.
pub(super) fn judge(script: &Script, client: &Client, instances: &Instances) -> Seen {
    let mut seen = Seen::default();
    let bytes = client.said.borrow();
    let said = requests(&bytes);
    // Requests of HTTP/2 are no bytes that could be compared.
    let is_known = !contains(&bytes, b"PRI * HTTP/2.0") && bytes.len() == client.written.get();
    let connections = instances.connections.borrow();
    for talk in &*connections {
        let reached = reached(talk);
        seen.requests += reached.len();
        if is_known {
            for message in &reached {
                assert!(
                    said.iter().any(|one| is_same(one, message)),
                    "nobody said what reached an instance: {message:?}"
                );
            }
        }
    }
    let received = client.received.borrow();
    let poison = format!("x-poison-{}", script.secret);
    assert!(
        !contains(&received, poison.as_bytes()),
        "an answer of nobody"
    );
    if is_known {
        seen.answers = answers(script, &said, &received);
    }
    if script.is_deaf() {
        assert!(client.written.get() <= HELD_MAX, "a request is kept whole");
    }
    if script.reads == Reads::Nothing {
        for talk in &*connections {
            assert!(talk.written.get() <= HELD_MAX, "an answer is kept whole");
        }
    }
    seen
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// What the client said, as far as it is requests. The gateway is stricter, and may stop before.
fn requests(mut bytes: &[u8]) -> Vec<Message> {
    let mut all = Vec::new();
    while let Read::Whole(message) = reading::request(bytes) {
        bytes = &bytes[message.len..];
        all.push(message);
    }
    // Its head may reach an instance before its body is there.
    if let Read::Whole(head) = reading::request_head(bytes) {
        all.push(Message {
            len: head.len,
            head,
            body: Vec::new(),
            trailers: Vec::new(),
        });
    }
    all
}

fn is_same(said: &Message, reached: &Message) -> bool {
    let authority_and_path = ["http://", "https://"].into_iter().find_map(|scheme| {
        let (found, rest) = said.head.target.split_at_checked(scheme.len())?;
        found.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    let target = match authority_and_path {
        None => said.head.target.clone(),
        Some(rest) => match rest.find(['/', '?']).map(|at| &rest[at..]) {
            None if said.head.method == "OPTIONS" => "*".to_owned(),
            None => "/".to_owned(),
            Some(query) if query.starts_with('?') => format!("/{query}"),
            Some(path) => path.to_owned(),
        },
    };
    said.head.method == reached.head.method
        && target == reached.head.target
        && said.body == reached.body
}

/// The requests that reached an instance whole: two readers see the same ones, and nothing else.
fn reached(talk: &Talk) -> Vec<Message> {
    let received = talk.received.borrow();
    let mut rest = &received[..talk.tunnel_at.get().unwrap_or(received.len())];
    let mut all = Vec::new();
    while !rest.is_empty() {
        let (theirs, ours) = (reading::request(rest), ours(rest));
        match (theirs, ours) {
            (Read::Whole(message), Some((request, body, len))) => {
                assert_eq!(len, message.len, "two readers see two ends");
                assert_eq!(request.method_name(), message.head.method);
                assert_eq!(request.target(), message.head.target);
                assert_eq!(body, message.body);
                assert_eq!(message.head.version, 1);
                for name in ["host", "x-request-id"] {
                    assert_eq!(message.head.all(name).count(), 1, "{name}");
                }
                rest = &rest[len..];
                all.push(message);
            }
            (Read::Partial, None) => break,
            (theirs, ours) => panic!("two readers: {theirs:?} and {ours:?}"),
        }
    }
    all
}

/// A head with a name in its Host: a client of HTTP/1.0 may have none, and then an instance sees an
/// empty one (RFC 9110, 7.2), which we let no client say.
fn with_host(head: &[u8]) -> Bytes {
    const EMPTY: &[u8] = b"\r\nhost: \r\n";
    match head.windows(EMPTY.len()).position(|window| window == EMPTY) {
        Some(at) => {
            let (before, behind) = head.split_at(at + EMPTY.len() - 2);
            Bytes::from([before, b"none", behind].concat())
        }
        None => Bytes::copy_from_slice(head),
    }
}

/// The next request as our own parser reads it; `None`: it is not all there.
fn ours(bytes: &[u8]) -> Option<(Request, Vec<u8>, usize)> {
    let end = Scan::default().find_end(bytes, LIMITS);
    let end = end.expect("what reached an instance is a head")?;
    let (head, rest) = bytes.split_at(end);
    let request = Request::parse(with_host(head), LIMITS);
    let request = request.expect("what reached an instance is strict");
    let mut decoder = Decoder::new(request.framing);
    let mut input = BytesMut::from(rest);
    let mut body = Vec::new();
    loop {
        match decoder.decode(&mut input).expect("its body is strict") {
            Step::Data(data) => body.extend_from_slice(&data),
            Step::End(_) => return Some((request, body, bytes.len() - input.len())),
            Step::NeedMore => return None,
        }
    }
}

/// What the client was told is a sequence of answers, each of them to its own request.
fn answers(script: &Script, said: &[Message], received: &[u8]) -> usize {
    let [echo, hint] = ["x-echo-", "x-hint-"].map(|name| format!("{name}{}", script.secret));
    let mut rest = received;
    let mut hinted: Option<Vec<u8>> = None;
    let mut nth = 0;
    while !rest.is_empty() {
        let method = said.get(nth).map_or("GET", |one| &one.head.method);
        let message = match reading::answer(rest, method) {
            Read::Whole(message) => message,
            // It was broken off.
            Read::Partial => return nth,
            Read::Not(why) => panic!("what the client was told is no answer: {why}"),
        };
        rest = &rest[message.len..];
        let head = &message.head;
        if let Some(id) = head.first(&hint) {
            hinted = Some(id.to_vec());
        }
        if (100..=199).contains(&head.status) && head.status != 101 {
            continue;
        }
        let id = head.first("x-request-id").expect("each answer has one");
        if let Some(hinted) = hinted.take() {
            assert_eq!(hinted, id, "hints for another request");
        }
        if let Some(echo) = head.first(&echo) {
            assert_eq!(echo, id, "an answer to another request");
            if !message.body.is_empty() {
                assert!(id.repeat(TAGS).starts_with(&message.body), "{message:?}");
            }
        }
        nth += 1;
        assert!(nth <= said.len() + 1, "more answers than requests");
        let ends = head.all("connection").any(|value| value == b"close");
        if ends || head.status == 101 {
            return nth;
        }
    }
    nth
}
