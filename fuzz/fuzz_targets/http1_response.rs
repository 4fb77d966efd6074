//! Answers in any bytes, however they are cut: no panic, the same result as uncut, and what was
//! accepted says the same when it is written anew.
#![no_main]

mod http1_pieces;

use bytes::Bytes;
use http1_pieces::{Body, LIMITS, OwnFields, Wire, body, own, pieces};
use libfuzzer_sys::fuzz_target;
use mainstay_http1::{
    Framing, HeadWriter, Method, Persistence, Response, ResponseError, Scan, Version,
};

#[derive(Debug, PartialEq, Eq)]
enum Said {
    Refused(ResponseError),
    Unfinished,
    Message {
        status: u16,
        reason: Vec<u8>,
        framing: Framing,
        persistence: Persistence,
        fields: OwnFields,
        body: Body,
        rest: usize,
    },
}

fn answer(to: Method, bytes: &[u8], lengths: impl Iterator<Item = usize>) -> Said {
    let mut wire = Wire::new(bytes, lengths);
    let mut scan = Scan::default();
    let end = loop {
        match scan.find_end(&wire.input, LIMITS) {
            Ok(Some(end)) => break end,
            Ok(None) if wire.read() => {}
            Ok(None) => return Said::Unfinished,
            Err(refused) => return Said::Refused(refused.into()),
        }
    };
    let head = wire.input.split_to(end).freeze();
    match Response::parse(head, to, LIMITS) {
        Err(error) => Said::Refused(error),
        Ok(response) => {
            check(&response, to);
            Said::Message {
                status: response.status,
                reason: response.reason().to_vec(),
                framing: response.framing,
                persistence: response.persistence,
                fields: own(&response.fields),
                body: body(response.framing, &mut wire),
                rest: wire.rest(),
            }
        }
    }
}

/// What holds for every answer that is accepted.
fn check(response: &Response, to: Method) {
    assert!((100..=599).contains(&response.status));
    let no_line_end = |text: &[u8]| !text.iter().any(|byte| b"\r\n\0".contains(byte));
    assert!(no_line_end(response.reason()));
    let mut out = Vec::new();
    let mut writer = HeadWriter::response(&mut out, response.status);
    for field in response.fields.iter() {
        assert!(no_line_end(field.name) && no_line_end(field.value));
        response.connection_names(field.name);
        writer.field(field.name, field.value);
    }
    writer.finish();
    let limits = mainstay_http1::HeadLimits {
        len_max: 2 * LIMITS.len_max,
        ..LIMITS
    };
    assert_eq!(Scan::default().find_end(&out, limits), Ok(Some(out.len())));
    let again = Response::parse(Bytes::from(out.clone()), to, limits).expect("what we wrote");
    assert_eq!(again.status, response.status);
    assert_eq!(again.framing, response.framing);
    assert_eq!(own(&again.fields), own(&response.fields));
    if response.version == Version::Http11 {
        assert_eq!(again.persistence, response.persistence);
    }
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut read = httparse::Response::new(&mut headers);
    assert_eq!(read.parse(&out), Ok(httparse::Status::Complete(out.len())));
}

fuzz_target!(|bytes: &[u8]| {
    let Some((bytes, lengths)) = pieces(bytes) else {
        return;
    };
    let Some((to, bytes)) = bytes.split_first() else {
        return;
    };
    let to = [Method::Get, Method::Head, Method::Post, Method::Connect][usize::from(to % 4)];
    let whole = answer(to, bytes, std::iter::repeat(usize::MAX));
    assert_eq!(answer(to, bytes, lengths), whole);
});
