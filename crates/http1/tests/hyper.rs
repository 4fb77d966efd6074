//! What we accept, hyper accepts as well, and it sees the same requests: the same framing, above all.

#![allow(clippy::unwrap_used, reason = "tests")]

mod corpus;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty};
use hyper::{Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use mainstay_http1::{Decoder, Framing, HeadLimits, HeadWriter, Persistence, Request, Scan, Step};
use std::{cell::RefCell, convert::Infallible, rc::Rc};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const LIMITS: HeadLimits = HeadLimits {
    len_max: 64 * 1024,
    fields_max: 100,
};

/// A request, as somebody understood it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    method: String,
    target: String,
    fields: usize,
    body: Vec<u8>,
}

/// What we see of a connection up to the first message that is refused, broken or unfinished,
/// written anew as the gateway would, and what hyper gets.
fn ours(bytes: &[u8]) -> (Vec<Seen>, Vec<u8>) {
    let mut input = BytesMut::from(bytes);
    let (mut all, mut out) = (Vec::new(), Vec::new());
    while let Ok(Some(end)) = Scan::default().find_end(&input, LIMITS) {
        let Ok(request) = Request::parse(input.split_to(end).freeze(), LIMITS) else {
            break;
        };
        let mut decoder = Decoder::new(request.framing);
        let mut body = Vec::new();
        while let Ok(Step::Data(data)) = decoder.decode(&mut input) {
            body.extend_from_slice(&data);
        }
        // hyper has no answer to a request whose Host it lacks, so what counts is 1.1.
        if !decoder.is_complete() || request.host().is_none() {
            break;
        }
        let before = out.len();
        let mut writer = HeadWriter::request(&mut out, request.method_name(), request.target());
        for field in request.fields.iter() {
            writer.field(field.name, field.value);
        }
        writer.finish();
        match request.framing {
            Framing::Chunked => {
                for chunk in body.chunks(3) {
                    out.extend_from_slice(mainstay_http1::ChunkHead::new(chunk.len()).as_bytes());
                    out.extend_from_slice(chunk);
                    out.extend_from_slice(b"\r\n");
                }
                mainstay_http1::write_last_chunk(&mut out, None);
            }
            Framing::None | Framing::Length(_) | Framing::UntilClose => {
                out.extend_from_slice(&body);
            }
        }
        assert!(out.len() > before);
        all.push(Seen {
            method: request.method_name().to_owned(),
            target: request.target().to_owned(),
            fields: request.fields.len(),
            body,
        });
        if request.persistence == Persistence::Close {
            break;
        }
    }
    (all, out)
}

/// What hyper sees of the same connection.
async fn hypers(bytes: Vec<u8>) -> Vec<Seen> {
    /// More than any case has.
    const PIPE: usize = 256 * 1024;
    let seen = Rc::new(RefCell::new(Vec::new()));
    let (mut client, server) = tokio::io::duplex(PIPE);
    client.write_all(&bytes).await.unwrap();
    client.shutdown().await.unwrap();
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let seen = seen.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes().to_vec());
            seen.borrow_mut().push(Seen {
                method: head.method.to_string(),
                target: head.uri.to_string(),
                fields: head.headers.len(),
                body: body.unwrap_or_else(|error| format!("broken: {error}").into_bytes()),
            });
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let mut builder = http1::Builder::new();
    builder.half_close(true);
    let serve = builder.serve_connection(TokioIo::new(server), service);
    let answers = async { client.read_to_end(&mut Vec::new()).await.unwrap() };
    // What hyper says of the end does not matter: it is compared by what it saw.
    let (_ended, _) = tokio::join!(serve, answers);
    seen.take()
}

/// hyper's type of targets has no quotes and no angles.
const HYPER_REFUSES: &[&str] = &["target-with-quotes"];

#[tokio::test]
async fn what_is_accepted_of_the_corpus_is_written_so_that_hyper_sees_the_same() {
    let mut compared = 0;
    for corpus::Case { name, bytes, .. } in corpus::read().request {
        let (ours, written) = ours(&bytes.0);
        if HYPER_REFUSES.contains(&name.as_str()) {
            assert_eq!((hypers(written).await.len(), ours.len()), (0, 1), "{name}");
            continue;
        }
        compared += ours.len();
        assert_eq!(hypers(written).await, ours, "{name}");
    }
    assert!(compared >= 40, "{compared} requests were compared");
}
