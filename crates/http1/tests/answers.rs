//! Heads of answers: where the body ends, and whether the connection may go on.

use bytes::Bytes;
use mainstay_http1::{
    Framing, HeadLimits, Known, Method, Persistence, Refused, Response, ResponseError, Version,
};

const LIMITS: HeadLimits = HeadLimits {
    len_max: 64 * 1024,
    fields_max: 100,
};

fn parse(head: &str, to: Method) -> Result<Response, ResponseError> {
    Response::parse(Bytes::copy_from_slice(head.as_bytes()), to, LIMITS)
}

fn answer(first: &str, lines: &str, to: Method) -> (Framing, Persistence) {
    let head = format!("HTTP/1.1 {first}\r\n{lines}\r\n");
    let response = parse(&head, to).unwrap_or_else(|error| panic!("{head:?}: {error:?}"));
    (response.framing, response.persistence)
}

#[test]
fn an_answer_is_taken_apart() {
    let response = parse(
        "HTTP/1.1 404 Nicht \u{e4}hnlich\r\nServer: x\r\nContent-Length: 7\r\n\r\n",
        Method::Get,
    )
    .unwrap();
    assert_eq!(response.status, 404);
    assert_eq!(response.version, Version::Http11);
    assert_eq!(response.reason(), "Nicht \u{e4}hnlich".as_bytes());
    assert_eq!(response.framing, Framing::Length(7));
    assert_eq!(response.fields.named(b"server"), Some(b"x".as_slice()));
    assert_eq!(
        response.fields.get(Known::ContentLength),
        Some(b"7".as_slice())
    );
    assert!(!response.is_interim());
    for first in ["HTTP/1.1 200\r\n\r\n", "HTTP/1.1 200 \r\n\r\n"] {
        assert_eq!(
            parse(first, Method::Get).unwrap().reason(),
            b"",
            "{first:?}"
        );
    }
}

#[test]
fn whether_there_is_a_body_depends_on_status_and_method_before_any_field() {
    use Framing::{Chunked, Length, None, UntilClose};
    use Method::{Connect, Get, Head};
    let length = "Content-Length: 5\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    let keep = |framing| (framing, Persistence::KeepAlive);
    let close = |framing| (framing, Persistence::Close);
    assert_eq!(answer("200 OK", length, Get), keep(Length(5)));
    assert_eq!(
        answer("200 OK", "Content-Length: 0\r\n", Get),
        keep(Length(0))
    );
    assert_eq!(answer("200 OK", chunked, Get), keep(Chunked));
    assert_eq!(answer("200 OK", "", Get), close(UntilClose));
    assert_eq!(
        answer("200 OK", "Connection: keep-alive\r\n", Get),
        close(UntilClose)
    );
    for lines in [length, chunked, ""] {
        assert_eq!(answer("200 OK", lines, Head), keep(None), "{lines:?}");
        assert_eq!(
            answer("304 Not Modified", lines, Get),
            keep(None),
            "{lines:?}"
        );
        assert_eq!(answer("200 OK", lines, Connect), close(None), "{lines:?}");
    }
    assert_eq!(answer("403 Forbidden", length, Connect), keep(Length(5)));
    assert_eq!(answer("204 No Content", "", Get), keep(None));
    assert_eq!(
        answer("204 No Content", "Content-Length: 0\r\n", Get),
        keep(None)
    );
    for lines in [length, chunked] {
        assert_eq!(
            answer("204 No Content", lines, Get),
            close(None),
            "{lines:?}"
        );
        for first in ["100 Continue", "101 Switching Protocols", "199 x"] {
            let head = format!("HTTP/1.1 {first}\r\n{lines}\r\n");
            let refused = ResponseError::Head(Refused::BodyOfInterim);
            assert_eq!(parse(&head, Get).unwrap_err(), refused, "{head:?}");
        }
    }
    assert_eq!(answer("101 Switching Protocols", "", Get), keep(None));
    assert_eq!(
        answer("200 OK", "Connection: close\r\nContent-Length: 5\r\n", Get),
        close(Length(5))
    );
}

#[test]
fn an_instance_that_speaks_http_1_0_must_say_that_it_keeps_the_connection() {
    let persistence = |lines: &str| {
        let head = format!("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n{lines}\r\n");
        parse(&head, Method::Get).unwrap().persistence
    };
    assert_eq!(persistence(""), Persistence::Close);
    assert_eq!(
        persistence("Connection: keep-alive\r\n"),
        Persistence::KeepAlive
    );
}

#[test]
fn another_answer_follows_an_interim_one() {
    let interim = |first: &str| {
        let head = format!("HTTP/1.1 {first} x\r\n\r\n");
        parse(&head, Method::Get).unwrap().is_interim()
    };
    assert!(interim("100") && interim("103") && interim("199"));
    assert!(!interim("101") && !interim("200"));
}

#[test]
fn connection_names_fields_of_answers_too() {
    let head = "HTTP/1.1 204 x\r\nConnection: X-Hop, Set-Cookie\r\n\r\n";
    let response = parse(head, Method::Get).unwrap();
    assert!(response.connection_names(b"x-hop"));
    assert!(!response.connection_names(b"set-cookie"));
}

#[test]
fn a_first_line_that_is_none_is_refused_with_the_reason() {
    let error = |first: &str| parse(&format!("{first}\r\n\r\n"), Method::Get).unwrap_err();
    let refused = ResponseError::Head;
    for first in [
        "HTTP/1.1  200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 200OK",
        "HTTP/1.1 +20 OK",
        "ICY 200 OK",
        "HTTP/1.1",
        "HTTP/1.1 200 \x7f",
        " HTTP/1.1 200 OK",
        "HTTP/1.1\t200 OK",
    ] {
        assert_eq!(error(first), refused(Refused::StatusLine), "{first:?}");
    }
    assert_eq!(error("HTTP/3.0 200 OK"), refused(Refused::Version));
    for first in ["HTTP/1.1 000 x", "HTTP/1.1 600 x", "HTTP/1.1 999 x"] {
        assert_eq!(error(first), ResponseError::Status, "{first:?}");
    }
    assert_eq!(error("HTTP/1.1 200 OK\nX: y"), refused(Refused::BareLf));
    assert_eq!(error("HTTP/1.1 200 \u{e4}\nX: y"), refused(Refused::BareLf));
}

#[test]
fn a_head_cut_short_is_refused_and_does_not_panic() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    for len in 0..head.len() {
        assert!(parse(&head[..len], Method::Get).is_err(), "{len} bytes");
    }
}
