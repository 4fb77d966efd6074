//! Heads of requests: what is made of those that are accepted.

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
        .map(|field| (field.known, field.name, field.value))
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
    let fields = &request.fields;
    assert_eq!(fields.get(Known::Cookie), Some(b"k=\"v\";\tq".as_slice()));
    assert_eq!(fields.get_shared(Known::ContentLength).unwrap(), "12");
    assert_eq!(fields.named(b"x-eMPTY"), Some(b"".as_slice()));
    assert_eq!(fields.named(b"x-other"), None);
    assert_eq!(fields.get(Known::Via), None);
}

#[test]
fn every_known_name_is_found_in_any_case_of_letters_and_only_whole() {
    let names = [
        ("host", Known::Host),
        ("content-length", Known::ContentLength),
        ("transfer-encoding", Known::TransferEncoding),
        ("connection", Known::Connection),
        ("keep-alive", Known::KeepAlive),
        ("proxy-connection", Known::ProxyConnection),
        ("proxy-authenticate", Known::ProxyAuthenticate),
        ("proxy-authorization", Known::ProxyAuthorization),
        ("te", Known::Te),
        ("trailer", Known::Trailer),
        ("upgrade", Known::Upgrade),
        ("expect", Known::Expect),
        ("via", Known::Via),
        ("forwarded", Known::Forwarded),
        ("x-forwarded-for", Known::XForwardedFor),
        ("x-forwarded-proto", Known::XForwardedProto),
        ("x-forwarded-host", Known::XForwardedHost),
        ("x-request-id", Known::XRequestId),
        ("cookie", Known::Cookie),
        ("set-cookie", Known::SetCookie),
        ("location", Known::Location),
        ("idempotency-key", Known::IdempotencyKey),
        ("content-type", Known::ContentType),
        ("retry-after", Known::RetryAfter),
    ];
    for (name, known) in names {
        assert_eq!(Known::of(name.as_bytes()), known, "{name}");
        assert_eq!(Known::of(name.to_uppercase().as_bytes()), known, "{name}");
        assert_eq!(Known::of(&name.as_bytes()[1..]), Known::Other, "{name}");
        let other = name[..name.len() - 1].to_owned() + "z";
        assert_eq!(Known::of(other.as_bytes()), Known::Other, "{other}");
    }
    assert_eq!(Known::of(b""), Known::Other);
    assert_eq!(Known::of(b"content_length"), Known::Other);
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
        let request = parse(&format!("GET / HTTP/1.0\r\n{lines}\r\n"));
        request.unwrap().persistence
    };
    assert_eq!(old(""), Persistence::Close);
    assert_eq!(old("Connection: Keep-Alive\r\n"), Persistence::KeepAlive);
    assert_eq!(old("Connection: keep-alive, close\r\n"), Persistence::Close);
}

#[test]
fn an_absolute_target_becomes_one_in_origin_form() {
    let of = |target: &str| {
        let request = parse(&format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n")).unwrap();
        assert_eq!(request.target().as_bytes(), request.target_shared());
        assert_eq!(request.host(), Some("a.example"));
        (request.target().to_owned(), request.path().to_owned())
    };
    let both = |target: &str, path: &str| (target.to_owned(), path.to_owned());
    assert_eq!(of("http://a.example/x/y?z"), both("/x/y?z", "/x/y"));
    assert_eq!(of("HTTP://A.EXAMPLE/x"), both("/x", "/x"));
    assert_eq!(of("https://a.example"), both("/", "/"));
    assert_eq!(of("http://a.example?q=/1"), both("/?q=/1", "/"));
    assert_eq!(of("http://a.example/?q"), both("/?q", "/"));
    assert_eq!(of("//a.example/x"), both("//a.example/x", "//a.example/x"));
}

#[test]
fn in_http_1_0_the_host_may_stand_in_the_target_alone() {
    let request = parse("GET http://a.example:81/x HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(request.host(), Some("a.example:81"));
    assert_eq!(request.host_shared().unwrap(), "a.example:81");
    assert_eq!(request.target(), "/x");
    assert_eq!(parse("GET / HTTP/1.0\r\n\r\n").unwrap().host(), None);
    let disagrees = parse("GET http://a.example/ HTTP/1.0\r\nHost: b.example\r\n\r\n");
    assert_eq!(disagrees.unwrap_err(), Refused::HostDisagrees);
}

#[test]
fn hosts_are_names_and_addresses_with_a_port() {
    let host = |host: &str| {
        let request = parse(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        request.map(|request| request.host().map(str::to_owned))
    };
    let long = "a".repeat(254);
    let right = [
        "a",
        "a.example.",
        "A-b_c.1",
        "127.0.0.1:8080",
        "[::1]",
        "[::ffff:1.2.3.4]:65535",
        &long,
    ];
    for right in right {
        assert_eq!(host(right), Ok(Some(right.to_owned())));
    }
    let wrong = [
        ".",
        ".a",
        "a..b",
        "a:0",
        "a:080",
        "a:+80",
        "a:80:",
        ":80",
        "[::1]80",
        "[::1]x",
        "[]",
        "::1",
        "[v1.x]",
        "a~b",
        "a'b",
        "a;b",
        "a*",
        &(long.clone() + "a"),
    ];
    for wrong in wrong {
        assert_eq!(host(wrong), Err(Refused::Host), "{wrong}");
    }
}

#[test]
fn a_body_is_waited_for_with_continue_only_where_there_is_one() {
    let expect = |lines: &str| get(lines).unwrap().expect;
    let asks = "Expect: 100-continue\r\n";
    assert_eq!(expect(asks), Expect::Nothing);
    assert_eq!(
        expect(&format!("{asks}Content-Length: 0\r\n")),
        Expect::Nothing
    );
    assert_eq!(
        expect(&format!("{asks}Content-Length: 1\r\n")),
        Expect::Continue
    );
    assert_eq!(
        expect(&format!("{asks}Transfer-Encoding: chunked\r\n")),
        Expect::Continue
    );
    let old = parse(&format!(
        "POST / HTTP/1.0\r\n{asks}Content-Length: 1\r\n\r\n"
    ));
    assert_eq!(old.unwrap().expect, Expect::Nothing);
}

#[test]
fn an_upgrade_is_reported_only_as_it_may_be_passed_on() {
    let upgrade = |lines: &str| get(lines).unwrap().upgrade().map(<[u8]>::to_vec);
    let asks = "Connection: Upgrade\r\n";
    let found = upgrade(&format!("{asks}Upgrade: WebSocket\r\n"));
    assert_eq!(found.unwrap(), b"WebSocket");
    let found = upgrade(&format!("{asks}Upgrade: a/1, b\r\n"));
    assert_eq!(found.unwrap(), b"a/1, b");
    for lines in [
        "h2c",
        "H2C",
        "websocket, h2c",
        "a b",
        "a/",
        "",
        "a\r\nUpgrade: b",
    ] {
        assert_eq!(
            upgrade(&format!("{asks}Upgrade: {lines}\r\n")),
            None,
            "{lines}"
        );
    }
    assert_eq!(upgrade("Upgrade: websocket\r\n"), None);
    assert_eq!(upgrade(asks), None);
}

#[test]
fn connection_names_fields_but_none_that_speak_of_the_whole_way() {
    let request = get("Connection: close, X-One\r\nconnection: ,x-two ,te\r\n").unwrap();
    for named in ["x-one", "X-TWO", "TE"] {
        assert!(request.connection_names(named.as_bytes()), "{named}");
    }
    for other in ["x-three", "x-on", "x-one2", "host", ""] {
        assert!(!request.connection_names(other.as_bytes()), "{other}");
    }
    let kept = [
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Via",
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Request-Id",
        "Cookie",
        "Content-Type",
    ];
    let request = get(&format!("Connection: {}\r\n", kept.join(","))).unwrap();
    for kept in kept {
        assert!(!request.connection_names(kept.as_bytes()), "{kept}");
    }
    let request = get("Connection: Keep-Alive, close\r\n").unwrap();
    assert!(!request.connection_names(b"keep-alive"));
}

#[test]
fn as_many_options_as_may_be_are_read_and_no_more() {
    let options = |count: usize| get(&format!("Connection: {}\r\n", "a,".repeat(count)));
    assert!(options(16).is_ok());
    assert_eq!(options(17).unwrap_err(), Refused::ConnectionTooLong);
}

#[test]
fn limits_are_for_fields_and_bytes_with_all_that_belongs_to_a_head() {
    let head = "GET / HTTP/1.1\r\nHost: a\r\nB: c\r\n\r\n";
    let with = |len_max, fields_max| {
        let limits = HeadLimits {
            len_max,
            fields_max,
        };
        let end = Scan::default().find_end(head.as_bytes(), limits)?;
        assert_eq!(end, Some(head.len()));
        Request::parse(Bytes::from(head), limits).map(|_| ())
    };
    assert_eq!(with(head.len(), 2), Ok(()));
    assert_eq!(with(head.len() - 1, 2), Err(Refused::TooLong));
    assert_eq!(with(head.len(), 1), Err(Refused::TooManyFields));
    assert_eq!(with(10, 2), Err(Refused::TargetTooLong));
    let short = HeadLimits {
        len_max: 10,
        fields_max: 2,
    };
    let unscanned = Request::parse(Bytes::from(head), short);
    assert_eq!(unscanned.unwrap_err(), Refused::TooLong);
}

#[test]
fn more_fields_than_usual_are_read_where_the_limits_allow_them() {
    let lines = "a: b\r\n".repeat(999);
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let with = |fields_max| {
        let limits = HeadLimits {
            fields_max,
            ..LIMITS
        };
        Request::parse(Bytes::from(head.clone()), limits)
    };
    assert_eq!(with(1000).unwrap().fields.len(), 1000);
    assert_eq!(with(999).unwrap_err(), Refused::TooManyFields);
}

#[test]
fn bytes_that_are_not_exactly_one_head_are_refused() {
    let head = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let parse = |text: &str| Request::parse(Bytes::copy_from_slice(text.as_bytes()), LIMITS);
    assert!(parse(head).is_ok());
    for len in 0..head.len() {
        assert!(parse(&head[..len]).is_err(), "{len} bytes");
    }
    let more = parse(&format!("{head}x"));
    assert_eq!(more.unwrap_err(), Refused::NotOneHead);
    let lines = parse(&format!("\r\n\r\n\r\n{head}"));
    assert_eq!(lines.unwrap_err(), Refused::EmptyLines);
}

#[test]
fn a_head_that_nobody_scanned_is_checked_as_strictly() {
    let parse = |text: &'static str| Request::parse(Bytes::from(text), LIMITS).unwrap_err();
    assert_eq!(parse("GET / HTTP/1.1\nHost: a\r\n\r\n"), Refused::BareLf);
    assert_eq!(parse("GET / HTTP/1.1\r\nHost: a\n\r\n"), Refused::BareLf);
    assert_eq!(parse("GET / HTTP/1.1\r\nHost: a\r\n\n"), Refused::BareLf);
    assert_eq!(parse("GET / HTTP/1.0\n\r\n"), Refused::BareLf);
    assert_eq!(parse("GET / HTTP/1.1\r\nHost: a\0\r\n\r\n"), Refused::Nul);
    assert_eq!(
        parse("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        Refused::BareLf
    );
}

#[test]
fn another_protocol_is_told_as_soon_as_it_is_sure() {
    let say = |bytes: &[u8]| Scan::default().find_end(bytes, LIMITS);
    assert_eq!(say(b"\x16"), Ok(None));
    assert_eq!(say(b"\x16\x03"), Err(Refused::Tls));
    assert_eq!(say(b"\x16\x04"), Err(Refused::NotHttp));
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for len in 0..18 {
        assert_eq!(say(&preface[..len]), Ok(None), "{len} bytes");
    }
    assert_eq!(say(&preface[..18]), Err(Refused::Http2Preface));
    assert_eq!(say(preface), Err(Refused::Http2Preface));
    assert_eq!(say(b"PRI * HTTP/2.0\r\nx"), Ok(None));
    // Only at the very beginning.
    let behind = say(b"\r\nPRI * HTTP/2.0\r\n\r\n");
    assert_eq!(behind, Ok(Some(20)));
}

#[test]
fn each_byte_of_a_head_is_looked_at_once() {
    // With the bytes of before made unreadable, a second look would refuse them.
    let head = b"GET / HTTP/1.1\r\nHost: a.example\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n\r\n";
    let mut scan = Scan::default();
    let mut seen = Vec::new();
    for (at, byte) in head.iter().enumerate() {
        seen.push(*byte);
        let end = scan.find_end(&seen, LIMITS).unwrap();
        assert_eq!(end, (at + 1 == head.len()).then_some(head.len()));
        // The end of a line looks at the CR before it.
        if *byte != b'\r' {
            seen[at] = 0;
        }
    }
}

#[test]
fn a_shared_part_of_a_head_is_not_copied() {
    let head = Bytes::from(b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n".to_vec());
    let inside = head.as_ptr_range();
    let request = Request::parse(head.clone(), LIMITS).unwrap();
    for part in [
        request.target_shared(),
        request.host_shared().unwrap(),
        request.fields.get_shared(Known::Host).unwrap(),
    ] {
        assert!(inside.contains(&part.as_ptr()));
    }
}

#[test]
fn every_refusal_has_a_word_of_its_own_and_a_status_of_the_client() {
    let all = [
        Refused::Tls,
        Refused::Http2Preface,
        Refused::NotHttp,
        Refused::EmptyLines,
        Refused::BareLf,
        Refused::BareCr,
        Refused::Nul,
        Refused::TooLong,
        Refused::TooManyFields,
        Refused::NotOneHead,
        Refused::RequestLine,
        Refused::StatusLine,
        Refused::Version,
        Refused::Method,
        Refused::MethodCase,
        Refused::Connect,
        Refused::TraceBody,
        Refused::TargetTooLong,
        Refused::TargetCharacter,
        Refused::Fragment,
        Refused::TargetForm,
        Refused::Asterisk,
        Refused::SpaceBeforeColon,
        Refused::Folded,
        Refused::FieldName,
        Refused::FieldValue,
        Refused::LookAlike,
        Refused::Connection,
        Refused::ConnectionTooLong,
        Refused::ConnectionField,
        Refused::LengthAndCoding,
        Refused::LengthRepeated,
        Refused::Length,
        Refused::LengthDisagrees,
        Refused::CodingRepeated,
        Refused::CodingInHttp10,
        Refused::Coding,
        Refused::CodingUnknown,
        Refused::BodyOfInterim,
        Refused::HostMissing,
        Refused::HostRepeated,
        Refused::Host,
        Refused::HostDisagrees,
        Refused::Expectation,
    ];
    let words: std::collections::BTreeSet<_> = all.iter().map(|refused| refused.word()).collect();
    let sentences: std::collections::BTreeSet<_> = all.iter().map(ToString::to_string).collect();
    assert_eq!((words.len(), sentences.len()), (all.len(), all.len()));
    for refused in all {
        assert!([400, 414, 417, 431, 501, 505].contains(&refused.status()));
    }
}
