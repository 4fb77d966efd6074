//! What attackers send, over sockets: the corpus of `mainstay-http1` through the whole gateway. No
//! case may bring more requests to an instance than the parser says are there, and what is refused
//! is refused with its status and the end of the connection.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../http1/tests/corpus/mod.rs"]
mod corpus;
mod support;

use std::io::{Read, Write};
use std::net::Shutdown;

use corpus::{Case, Escaped, ResponseCase};
use mainstay_testkit::wait_until;
use support::{
    Gateway, Instance, SOON, Then, answer, connect, endpoint, one_service, read_body, send,
};

/// A program that takes the framing of what reaches it for granted, as most do.
fn instance() -> Instance {
    Instance::start(|seen, stream| {
        read_body(seen, stream)?;
        answer(stream, "200 OK", &[], b"")?;
        Ok(Then::Next)
    })
}

/// The statuses of all answers that come until the gateway closes; reads in single steps, so that
/// the client's own end of the connection stays open until everything expected was read.
fn statuses(gateway: &Gateway, bytes: &[u8], expected: usize) -> Vec<u16> {
    let mut client = connect(gateway.entry);
    // The gateway may have closed already.
    client.write_all(bytes).ok();
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    let mut is_open = true;
    while is_open {
        if count(&text).len() >= expected {
            // Whatever was smuggled would be answered now.
            client.shutdown(Shutdown::Write).ok();
        }
        match client.read(&mut buffer) {
            Ok(1..) if text.len() > 1 << 20 => panic!("answers without end"),
            Ok(read @ 1..) => text.extend_from_slice(&buffer[..read]),
            Ok(0) | Err(_) => is_open = false,
        }
    }
    count(&text)
}

fn count(text: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(text);
    let heads = text.split("HTTP/1.1 ").skip(1);
    heads
        .filter_map(|head| head.get(..3)?.parse().ok())
        .filter(|status| *status != 100)
        .collect()
}

/// What the corpus says, as what a client sees: the status of each answer. `None`: no answer.
fn expected(case: &Case) -> Vec<Option<u16>> {
    let of = |word: &String| {
        let mut words = word.split(' ');
        match words.next().unwrap() {
            "refused" => Some(words.next().unwrap().parse().unwrap()),
            "broken" => Some(400),
            "none" | "length" | "chunked" => Some(200),
            "unfinished" => None,
            other => panic!("{other} in {}", case.name),
        }
    };
    case.expect.iter().map(of).collect()
}

#[test]
fn what_could_be_understood_in_two_ways_never_reaches_an_instance() {
    let (mut refused, mut passed) = (0, 0);
    for case in corpus::read().request {
        let Escaped(bytes) = &case.bytes;
        // The preface of HTTP/2 is taken by the gateway, and TLS has no answer that its client reads.
        if case.expect.iter().any(|word| word.contains("http2")) {
            continue;
        }
        let instance = instance();
        let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
        let expected = expected(&case);
        let answers: Vec<u16> = expected.iter().copied().flatten().collect();
        let mut got = statuses(&gateway, bytes, answers.len());
        // A client that ends in the middle of its body may be told so, if it still listens.
        if expected.contains(&None) && got.len() > answers.len() {
            assert_eq!(got.pop(), Some(400));
        }
        assert_eq!(got, answers, "{}: {}", case.name, bytes.escape_ascii());
        let accepted = answers.iter().filter(|status| **status == 200).count();
        // A body that breaks, or does not end, may have begun its way; nothing of it may be taken for
        // a request.
        let begun = case.expect.iter();
        let begun = begun.filter(|word| word.starts_with("broken") || *word == "unfinished");
        let seen = instance.count();
        assert!(
            (accepted..=accepted + begun.count()).contains(&seen),
            "{}: {seen} requests reached the instance",
            case.name
        );
        refused += answers.len() - accepted;
        passed += accepted;
    }
    assert!(refused > 150 && passed > 20, "{refused}, {passed}");
}

#[test]
fn a_connection_that_carried_a_body_where_some_read_none_is_not_used_again() {
    // Reads no body, as programs do that do not expect one with a GET.
    let instance = Instance::start(|_, stream| {
        answer(stream, "200 OK", &[], b"")?;
        Ok(Then::Next)
    });
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    // The begin of a request, which would swallow the first line of the next one.
    let smuggled = b"GET /smuggled HTTP/1.1\r\nhost: a\r\nx: ";
    for (path, body) in [("/a", &b""[..]), ("/b", smuggled), ("/c", b"")] {
        assert_eq!(send(gateway.entry, "GET", path, &[], body).status, 200);
    }
    let seen = instance.seen();
    let paths: Vec<&str> = seen.iter().map(support::Seen::path).collect();
    assert_eq!(paths, ["/a", "/b", "/c"]);
}

#[test]
fn an_instance_whose_answers_could_be_understood_in_two_ways_is_not_believed() {
    for case in corpus::read().response {
        let ResponseCase {
            name,
            to,
            bytes: Escaped(bytes),
            expect,
            ..
        } = case;
        // The gateway does not forward these methods.
        if to == "CONNECT" {
            continue;
        }
        let sent = bytes.clone();
        let instance = Instance::start(move |seen, stream| {
            read_body(seen, stream)?;
            stream.get_mut().write_all(&sent)?;
            Ok(Then::Close)
        });
        let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
        let reply = send(gateway.entry, &to, "/", &[("connection", "close")], b"");
        let last = expect.last().unwrap();
        if last.starts_with("refused") && expect.len() == 1 {
            assert_eq!(reply.status, 502, "{name}: {}", reply.head);
            assert_eq!(reply.header("mainstay-reason"), Some("lost-in-flight"));
        } else if expect
            .first()
            .is_some_and(|first| first.starts_with("broken"))
        {
            assert!(
                reply.status == 502 || reply.end.is_err(),
                "{name} seemed complete: {reply:?}"
            );
        }
        // Whatever it was, the connection is not used again, and the next client gets its own.
        wait_until(SOON, "the gateway goes on", || {
            let again = send(gateway.entry, &to, "/", &[("connection", "close")], b"");
            (again.status == reply.status)
                .then_some(())
                .ok_or_else(|| format!("{name}: {}", again.head))
        });
        let connections = instance.seen().iter().map(|seen| seen.connection).max();
        assert!(connections > Some(0), "{name}: a connection was used twice");
    }
}
