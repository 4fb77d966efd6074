//! Heads and bodies that nobody thought of: what is written reads the same, and no bytes panic.

#![allow(clippy::unwrap_used, reason = "tests")]

use bytes::{Bytes, BytesMut};
use mainstay_http1::{
    ChunkHead, Content, Decoder, Framing, HeadLimits, HeadWriter, Http2Head, Method, Request,
    Response, Scan, Step, write_last_chunk,
};
use proptest::{
    arbitrary::any,
    collection, option, prop_assert, prop_assert_eq, prop_assume, prop_oneof, proptest,
    strategy::{Just, Strategy},
};

const LIMITS: HeadLimits = HeadLimits {
    len_max: 64 * 1024,
    fields_max: 100,
};

fn token() -> impl Strategy<Value = String> {
    // Behind `x-`, so that it is no known one.
    "x-[!#$%&'*+.^_`|~0-9A-Za-z-]{0,20}"
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let inside = prop_oneof![Just(b'\t'), Just(b' '), b'!'..=b'~', 0x80..=0xffu8];
    collection::vec(inside, 0..30).prop_map(|bytes| bytes.trim_ascii().to_vec())
}

fn fields() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    collection::vec((token(), value()), 0..30)
}

/// Pieces that heads and bodies are made of, right and wrong, in any order.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: &[&[u8]] = &[
        b"GET ",
        b"POST ",
        b"HEAD ",
        b"/ ",
        b"/a?b ",
        b"* ",
        b"http://a/ ",
        b"HTTP/1.1\r\n",
        b"HTTP/1.0\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 204\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b",",
        b"Host: a\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length: ",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: ",
        b"close\r\n",
        b"Expect: 100-continue\r\n",
        b"Upgrade: h2c\r\n",
        b"0\r\n\r\n",
        b"3\r\nabc\r\n",
        b"0\r\n",
        b"3;x=y\r\n",
        b"abc",
        b"ffffffffffffffff\r\n",
        b"\x16\x03",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"\xff",
    ];
    let piece = prop_oneof![
        9 => (0..PIECES.len()).prop_map(|at| PIECES[at].to_vec()),
        1 => collection::vec(any::<u8>(), 0..4),
    ];
    collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn find_end(head: &[u8]) -> usize {
    let end = Scan::default().find_end(head, LIMITS);
    end.unwrap().unwrap()
}

proptest! {
    #[test]
    fn a_request_that_is_written_reads_the_same(
        method in "[A-Z]{1,10}",
        target in "/[!-\"$-~]{0,40}",
        fields in fields(),
        length in option::of(any::<u64>()),
    ) {
        prop_assume!(method != "CONNECT" && method != "TRACE");
        let mut out = Vec::new();
        let mut writer = HeadWriter::request(&mut out, &method, &target);
        writer.field(b"host", b"a.example:81");
        for (name, value) in &fields {
            writer.field(name.as_bytes(), value);
        }
        if let Some(length) = length {
            writer.number(b"content-length", length);
        }
        writer.finish();
        prop_assert_eq!(find_end(&out), out.len());
        // Names that look like relied-on ones are refused, and have tests of their own.
        prop_assume!(!fields.iter().any(|(name, _)| name.contains('_')));
        let request = Request::parse(Bytes::from(out), LIMITS).unwrap();
        prop_assert_eq!(request.method_name(), method);
        prop_assert_eq!(request.target(), target);
        prop_assert_eq!(request.host(), Some("a.example:81"));
        prop_assert_eq!(request.framing, length.map_or(Framing::None, Framing::Length));
        let read = request.fields.iter().skip(1).take(fields.len());
        let read: Vec<_> = read.map(|field| (field.name, field.value)).collect();
        let wrote: Vec<_> = fields.iter().map(|(n, v)| (n.as_bytes(), v.as_slice())).collect();
        prop_assert_eq!(read, wrote);
    }

    #[test]
    fn an_answer_that_is_written_reads_the_same(status in 200_u16..600, fields in fields()) {
        let mut out = Vec::new();
        let mut writer = HeadWriter::response(&mut out, status);
        for (name, value) in &fields {
            writer.field(name.as_bytes(), value);
        }
        writer.finish();
        prop_assert_eq!(find_end(&out), out.len());
        let response = Response::parse(Bytes::from(out), Method::Get, LIMITS).unwrap();
        prop_assert_eq!(response.status, status);
        let read: Vec<_> = response.fields.iter().map(|field| (field.name, field.value)).collect();
        let wrote: Vec<_> = fields.iter().map(|(n, v)| (n.as_bytes(), v.as_slice())).collect();
        prop_assert_eq!(read, wrote);
    }

    #[test]
    fn a_request_by_http2_says_the_same_afterwards(
        path in "/[!-\"$-~]{0,40}",
        fields in collection::vec(("x[a-z]{0,9}", value()), 0..20),
        content in any::<bool>(),
    ) {
        let head = Http2Head {
            method: "PUT",
            path: &path,
            authority: Some("a.example"),
            content: if content { Content::Present } else { Content::Absent },
        };
        let pairs = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_slice()));
        // HTTP/2 forbids white space at the ends only; tabs inside are fine.
        let request = Request::from_http2(head, pairs.clone(), LIMITS).unwrap();
        prop_assert_eq!(request.target(), &path);
        prop_assert_eq!(request.host(), Some("a.example"));
        prop_assert_eq!(request.framing, if content { Framing::Chunked } else { Framing::None });
        let read: Vec<_> = request.fields.iter().map(|field| (field.name, field.value)).collect();
        prop_assert_eq!(&read[1..=fields.len()], pairs.collect::<Vec<_>>());
    }

    #[test]
    fn a_chunked_body_that_is_written_reads_the_same_in_any_cuts(
        chunks in collection::vec(collection::vec(any::<u8>(), 1..900), 0..12),
        cuts in collection::vec(1_usize..700, 1..9),
    ) {
        let mut out = Vec::new();
        for chunk in &chunks {
            out.extend_from_slice(ChunkHead::new(chunk.len()).as_bytes());
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
        }
        write_last_chunk(&mut out, None);
        let (mut coming, mut cuts) = (out.as_slice(), cuts.iter().cycle());
        let (mut input, mut data) = (BytesMut::new(), Vec::new());
        let mut decoder = Decoder::new(Framing::Chunked);
        loop {
            match decoder.decode(&mut input).unwrap() {
                Step::Data(piece) => data.extend_from_slice(&piece),
                Step::NeedMore => {
                    let (piece, rest) = coming.split_at(coming.len().min(*cuts.next().unwrap()));
                    prop_assert!(!piece.is_empty());
                    input.extend_from_slice(piece);
                    coming = rest;
                }
                Step::End(trailers) => {
                    prop_assert!(trailers.is_none());
                    break;
                }
            }
        }
        prop_assert_eq!(data, chunks.concat());
    }

    #[test]
    fn no_bytes_panic(bytes in soup(), to in 0_usize..3) {
        let end = Scan::default().find_end(&bytes, LIMITS);
        let end = end.ok().flatten().unwrap_or(bytes.len());
        let bytes = Bytes::from(bytes);
        let to = [Method::Get, Method::Head, Method::Connect][to];
        let request = Request::parse(bytes.slice(..end), LIMITS).map(|request| request.framing);
        let answer = Response::parse(bytes.slice(..end), to, LIMITS).map(|answer| answer.framing);
        let framings = [request.ok(), answer.ok(), Some(Framing::Chunked)];
        for framing in framings.into_iter().flatten() {
            let mut decoder = Decoder::new(framing);
            let mut input = BytesMut::from(&bytes[end..]);
            while let Ok(Step::Data(piece)) = decoder.decode(&mut input) {
                prop_assert!(!piece.is_empty());
            }
            // Whether that is the end is the only question left.
            let complete = decoder.is_complete();
            prop_assert!(decoder.end_of_input().is_ok() >= complete);
        }
    }
}
