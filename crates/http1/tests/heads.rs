//! Heads: what is accepted, and what is made of it.

use bytes::Bytes;
use mainstay_http1::{
    Expect, Framing, HeadLimits, Known, Method, Persistence, Refused, Request, Scan, Version,
};

const LIMITS: HeadLimits = HeadLimits {
    len_max: 64 * 1024,
    fields_max: 100,
};

fn parse(head: &str) -> Result<Request, Refused> {
    let mut scan = Scan::default();
    let end = scan.find_end(head.as_bytes(), LIMITS)?;
    assert_eq!(end, Some(head.len()), "{head:?} is one head");
    Request::parse(Bytes::copy_from_slice(head.as_bytes()), LIMITS)
}

/// A GET with these lines after its Host.
fn get(lines: &str) -> Result<Request, Refused> {
    parse(&format!("GET / HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n"))
}

#[test]
fn a_plain_request_is_taken_apart() {
    let request = parse(
        "POST /a/b?c=d HTTP/1.1\r\nHost: a.example:8080\r\nContent-Length:  12 \r\n\
         X-Empty:\r\ncookie: k=\"v\";\tq\r\n\r\n",
    )
    .unwrap();
    assert_eq!(request.method, Method::Post);
    assert_eq!(request.method_name(), "POST");
    assert_eq!(request.target(), "/a/b?c=d");
    assert_eq!(request.target_shared(), "/a/b?c=d");
    assert_eq!(request.path(), "/a/b");
    assert_eq!(request.host(), Some("a.example:8080"));
    assert_eq!(request.host_shared().unwrap(), "a.example:8080");
    assert_eq!(request.version, Version::Http11);
    assert_eq!(request.framing, Framing::Length(12));
    assert_eq!(request.persistence, Persistence::KeepAlive);
    assert_eq!(request.expect, Expect::Nothing);
    assert_eq!(request.upgrade(), None);
    let fields: Vec<_> = request
        .fields
        .iter()
        .map(|f| (f.known, f.name, f.value))
        .collect();
    assert_eq!(
        fields,
        [
            (
                Known::Host,
                b"Host".as_slice(),
                b"a.example:8080".as_slice()
            ),
            (Known::ContentLength, b"Content-Length", b"12"),
            (Known::Other, b"X-Empty", b""),
            (Known::Cookie, b"cookie", b"k=\"v\";\tq"),
        ]
    );
    assert_eq!(
        request.fields.get(Known::Cookie),
        Some(b"k=\"v\";\tq".as_slice())
    );
    assert_eq!(
        request.fields.get_shared(Known::ContentLength).unwrap(),
        "12"
    );
    assert_eq!(request.fields.named(b"x-eMPTY"), Some(b"".as_slice()));
    assert_eq!(request.fields.named(b"x-other"), None);
}

#[test]
fn a_connection_goes_on_unless_one_side_wants_an_end() {
    let persistence = |lines: &str| get(lines).unwrap().persistence;
    assert_eq!(persistence(""), Persistence::KeepAlive);
    assert_eq!(persistence("Connection: Close\r\n"), Persistence::Close);
    assert_eq!(
        persistence("Connection: keep-alive\r\nConnection: x, close\r\n"),
        Persistence::Close
    );
    let old = |lines: &str| {
        parse(&format!("GET / HTTP/1.0\r\n{lines}\r\n"))
            .unwrap()
            .persistence
    };
    assert_eq!(old(""), Persistence::Close);
    assert_eq!(old("Connection: Keep-Alive\r\n"), Persistence::KeepAlive);
    assert_eq!(old("Connection: keep-alive, close\r\n"), Persistence::Close);
}
