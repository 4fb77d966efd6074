//! Requests in any bytes, however they are cut: no panic, the same result as uncut, and what was
//! accepted says the same when it is written anew, to us and to httparse.
#![no_main]

mod http1_pieces;

use bytes::Bytes;
use http1_pieces::{Body, LIMITS, OwnFields, Wire, body, own, pieces};
use libfuzzer_sys::fuzz_target;
use mainstay_http1::{Framing, HeadWriter, Refused, Request, Scan, Version};

/// Messages of one connection that are looked at.
const MESSAGES: usize = 4;

#[derive(Debug, PartialEq, Eq)]
enum Said {
    Refused(Refused),
    Unfinished,
    Message {
        method: String,
        target: String,
        host: Option<String>,
        framing: Framing,
        fields: OwnFields,
        body: Body,
        rest: usize,
    },
}

fn connection(bytes: &[u8], lengths: impl Iterator<Item = usize>) -> Vec<Said> {
    let mut wire = Wire::new(bytes, lengths);
    let mut said = Vec::new();
    for _ in 0..MESSAGES {
        let mut scan = Scan::default();
        let end = loop {
            match scan.find_end(&wire.input, LIMITS) {
                Ok(None) if wire.read() => {}
                other => break other,
            }
        };
        let head = match end {
            Ok(Some(end)) => wire.input.split_to(end).freeze(),
            Ok(None) => {
                said.push(Said::Unfinished);
                return said;
            }
            Err(refused) => {
                said.push(Said::Refused(refused));
                return said;
            }
        };
        let request = match Request::parse(head, LIMITS) {
            Ok(request) => request,
            Err(refused) => {
                said.push(Said::Refused(refused));
                return said;
            }
        };
        check(&request);
        let body = body(request.framing, &mut wire);
        let broken = body.end.is_err();
        said.push(Said::Message {
            method: request.method_name().to_owned(),
            target: request.target().to_owned(),
            host: request.host().map(str::to_owned),
            framing: request.framing,
            fields: own(&request.fields),
            body,
            rest: wire.rest(),
        });
        if broken {
            return said;
        }
    }
    said
}

/// What holds for every request that is accepted.
fn check(request: &Request) {
    assert!(request.target().is_ascii() && request.path().len() <= request.target().len());
    assert!(request.target().starts_with('/') || request.target() == "*");
    assert!(request.host().is_some() || request.version == Version::Http10);
    let no_line_end = |text: &[u8]| !text.iter().any(|byte| b"\r\n\0".contains(byte));
    for field in request.fields.iter() {
        assert!(no_line_end(field.name) && no_line_end(field.value));
        request.connection_names(field.name);
    }
    request.upgrade();
    let Some(host) = request.host() else { return };
    let mut out = Vec::new();
    let mut writer = HeadWriter::request(&mut out, request.method_name(), request.target());
    if request.fields.named(b"host").is_none() {
        writer.field(b"host", host.as_bytes());
    }
    for field in request.fields.iter() {
        writer.field(field.name, field.value);
    }
    writer.finish();
    // It may be a little longer than it came.
    let limits = mainstay_http1::HeadLimits {
        len_max: 2 * LIMITS.len_max,
        fields_max: LIMITS.fields_max + 1,
    };
    assert_eq!(Scan::default().find_end(&out, limits), Ok(Some(out.len())));
    let again = Request::parse(Bytes::from(out.clone()), limits).expect("what we wrote");
    assert_eq!(again.method, request.method);
    assert_eq!(again.method_name(), request.method_name());
    assert_eq!(again.target(), request.target());
    assert_eq!(again.host(), request.host());
    assert_eq!(again.framing, request.framing);
    assert!(own(&again.fields).ends_with(&own(&request.fields)));
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut read = httparse::Request::new(&mut headers);
    assert_eq!(read.parse(&out), Ok(httparse::Status::Complete(out.len())));
    assert_eq!(read.headers.len(), again.fields.len());
}

fuzz_target!(|bytes: &[u8]| {
    let Some((bytes, lengths)) = pieces(bytes) else {
        return;
    };
    let whole = connection(bytes, std::iter::repeat(usize::MAX));
    assert_eq!(connection(bytes, lengths), whole);
});
