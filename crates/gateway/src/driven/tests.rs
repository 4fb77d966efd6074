//! What the fuzz target found, and that the judge sees anything at all.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

/// Whole pieces, nobody is refused, the client stays and reads.
const PLAIN: [u8; 4] = [0, 0, 255, 255];

fn script(begin: [u8; 4], answers: &[&[u8]], client: &[u8]) -> Vec<u8> {
    let count = u8::try_from(answers.len()).unwrap();
    [&begin[..], &[count], &answers.concat(), client].concat()
}

#[test]
fn requests_in_all_cuts_are_answered_each_with_its_own() {
    let client: &[u8] = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n\
        POST /b HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: 1\r\n\r\n\
        HEAD /c HTTP/1.1\r\nhost: a\r\n\r\n\
        PUT /d HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\nhello\
        GET http://b/e HTTP/1.1\r\nhost: b\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n";
    for kind in 0..20_u8 {
        for cut in [0, 3, 41, 255] {
            for flags in 0..8 {
                let answer = [kind, 0];
                let answer = &answer[..if (12..16).contains(&kind) { 2 } else { 1 }];
                let begin = [flags, 0, cut, cut];
                let seen = seen(&script(begin, &[answer], client)).unwrap();
                // One who stays and reads, and instances that answer.
                if flags == 0 && matches!(kind, 0 | 2 | 4 | 5 | 6) {
                    let (requests, answers) = (5, 5);
                    assert_eq!(seen, Seen { requests, answers }, "kind {kind}");
                }
            }
        }
    }
}

#[test]
fn whoever_floods_is_not_taken_in_whole() {
    let upload: &[u8] = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999\r\n\r\nx";
    drive(&script([6, 0, 255, 255], &[&[18]], upload));
    let many: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    drive(&script([7, 0, 25, 25], &[&[19]], many));
}

#[test]
fn http2_is_driven_as_well() {
    let client: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\
        \0\0\x04\x01\x05\0\0\0\x01\x82\x84\x86\x41";
    drive(&script(PLAIN, &[&[0]], client));
}

/// What the judge says when a client was told this in answer to `client`.
fn judged(client: &[u8], told: impl FnOnce(&str) -> String) -> Option<String> {
    let script = Rc::new(Script::of(&script(PLAIN, &[], client)).unwrap());
    let moves = Rc::new(Moves::default());
    let client = Client::new(Rc::clone(&script), Rc::clone(&moves));
    client.received.replace(told(&script.secret).into_bytes());
    client.said.replace(script.client.clone());
    client.written.set(script.client.len());
    let instances = Instances::new(Rc::clone(&script), moves);
    let judge = AssertUnwindSafe(|| judge::judge(&script, &client, &instances));
    let panic = catch_unwind(judge).err()?;
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
}

#[test]
fn the_judge_sees_what_must_not_be() {
    let client: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\nx-request-id: one\r\n\r\n";
    let head = "HTTP/1.1 200 OK\r\nx-request-id: one\r\ncontent-length: 0\r\n";
    assert_eq!(
        judged(client, |secret| format!(
            "{head}x-echo-{secret}: one\r\n\r\n"
        )),
        None
    );
    for (told, said) in [
        ("x-echo-?: two\r\n\r\n", "an answer to another request"),
        ("x-poison-?: 1\r\n\r\n", "an answer of nobody"),
        (
            "content-length: 0\r\n\r\n",
            "what the client was told is no answer",
        ),
        ("\r\ngarbage", "what the client was told is no answer"),
    ] {
        let found = judged(client, |secret| {
            format!("{head}{}", told.replace('?', secret))
        });
        let found = found.unwrap_or_default();
        assert!(found.contains(said), "{told:?}: {found:?}");
    }
}
