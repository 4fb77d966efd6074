//! Heads and chunks as bytes.

use bytes::BytesMut;
use mainstay_http1::{
    ChunkHead, Decoder, Framing, HeadWriter, Step, Trailers, reason, write_last_chunk,
};

#[test]
fn heads_are_written_behind_what_is_there() {
    let mut out = b"before".to_vec();
    let mut writer = HeadWriter::request(&mut out, "POST", "/a?b");
    writer
        .field(b"Host", b"a.example")
        .number(b"Content-Length", u64::MAX);
    writer.field(b"X-Empty", b"");
    writer.finish();
    assert_eq!(
        out.escape_ascii().to_string(),
        "beforePOST /a?b HTTP/1.1\\r\\nHost: a.example\\r\\n\
         Content-Length: 18446744073709551615\\r\\nX-Empty: \\r\\n\\r\\n"
    );
    let mut out = Vec::new();
    HeadWriter::response(&mut out, 404).finish();
    HeadWriter::response(&mut out, 299).finish();
    assert_eq!(out, b"HTTP/1.1 404 Not Found\r\n\r\nHTTP/1.1 299 \r\n\r\n");
    assert_eq!(
        (reason(200), reason(503), reason(599)),
        ("OK", "Service Unavailable", "")
    );
}

#[test]
fn the_size_of_a_chunk_is_written_without_zeros_in_front() {
    let line = |len: usize| ChunkHead::new(len).as_bytes().escape_ascii().to_string();
    assert_eq!(line(1), "1\\r\\n");
    assert_eq!(line(0xf), "f\\r\\n");
    assert_eq!(line(0x10), "10\\r\\n");
    assert_eq!(line(0x1_0a00), "10a00\\r\\n");
    assert_eq!(
        line(usize::MAX),
        "f".repeat(size_of::<usize>() * 2) + "\\r\\n"
    );
}

#[test]
fn the_last_chunk_is_written_with_its_trailers() {
    let mut out = Vec::new();
    write_last_chunk(&mut out, None);
    assert_eq!(out, b"0\r\n\r\n");
    let trailers = trailers("0\r\nX-Sum:12\r\ngrpc-status:  0 \r\n\r\n");
    out.clear();
    write_last_chunk(&mut out, Some(&trailers));
    assert_eq!(out, b"0\r\nX-Sum: 12\r\ngrpc-status: 0\r\n\r\n");
}

fn trailers(body: &str) -> Box<Trailers> {
    let mut decoder = Decoder::new(Framing::Chunked);
    match decoder.decode(&mut BytesMut::from(body)) {
        Ok(Step::End(Some(trailers))) => trailers,
        other => panic!("{other:?}"),
    }
}

/// In release it would be a mistake of ours that tests had not seen.
#[test]
#[cfg(debug_assertions)]
fn a_line_end_in_what_we_write_ends_a_test() {
    let fails =
        |write: fn(&mut Vec<u8>)| std::panic::catch_unwind(|| write(&mut Vec::new())).is_err();
    assert!(fails(|out| HeadWriter::request(out, "GET /", "/").finish()));
    assert!(fails(|out| HeadWriter::request(out, "GET", "/ x").finish()));
    assert!(fails(|out| HeadWriter::request(out, "GET", "").finish()));
    assert!(fails(|out| HeadWriter::response(out, 99).finish()));
    let field = |name: &'static [u8], value: &'static [u8]| {
        std::panic::catch_unwind(|| {
            HeadWriter::response(&mut Vec::new(), 200)
                .field(name, value)
                .number(b"x", 1);
        })
        .is_err()
    };
    assert!(!field(b"x", b"a\tb"));
    for value in [b"a\r\nb".as_slice(), b"a\rb", b"a\nb", b"a\0b"] {
        assert!(field(b"x", value), "{}", value.escape_ascii());
    }
    for name in [b"".as_slice(), b"a b", b"a:", b"a\r\n"] {
        assert!(field(name, b"x"), "{}", name.escape_ascii());
    }
    assert!(fails(|_| drop(ChunkHead::new(0).as_bytes().to_vec())));
}
