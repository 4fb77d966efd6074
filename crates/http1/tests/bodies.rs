//! Bodies: the same result however the input is cut, no copies, and bounded memory.

#![allow(clippy::unwrap_used, reason = "tests")]

use bytes::{Bytes, BytesMut};
use mainstay_http1::{
    BodyError, Decoder, Framing, Refused, Step, trailers_from_http2, write_last_chunk,
};

/// The data, and the trailers as they would be written.
type Whole = Result<(Vec<u8>, Vec<(String, String)>), BodyError>;

/// Reads a body that comes in these pieces; what is left must be `rest`.
fn read(framing: Framing, pieces: &[&[u8]], rest: &[u8]) -> Whole {
    let mut decoder = Decoder::new(framing);
    let (mut input, mut data) = (BytesMut::new(), Vec::new());
    let mut pieces = pieces.iter();
    loop {
        match decoder.decode(&mut input)? {
            Step::Data(piece) => data.extend_from_slice(&piece),
            Step::NeedMore => match pieces.next() {
                Some(piece) => input.extend_from_slice(piece),
                None => decoder.end_of_input()?,
            },
            Step::End(trailers) => {
                assert!(decoder.is_complete());
                pieces.for_each(|piece| input.extend_from_slice(piece));
                assert_eq!(input, rest);
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let trailers = trailers.iter().flat_map(|fields| fields.iter());
                let trailers = trailers.map(|field| (text(field.name), text(field.value)));
                return Ok((data, trailers.collect()));
            }
        }
    }
}

const CHUNKED: &[u8] = b"3\r\nabc\r\n10;x=\"y z\"\r\n0123456789abcdef\r\n1\r\n!\r\n0;last\r\n\
    X-Sum: 12\r\nServer-Timing: a\r\n\r\nGET";

#[test]
fn a_chunked_body_reads_the_same_in_all_cuts() {
    let data = b"abc0123456789abcdef!".to_vec();
    let trailer = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let whole = Ok((
        data,
        vec![trailer("X-Sum", "12"), trailer("Server-Timing", "a")],
    ));
    let read = |pieces: &[&[u8]]| read(Framing::Chunked, pieces, b"GET");
    assert_eq!(read(&[CHUNKED]), whole);
    for cut in 0..=CHUNKED.len() {
        let (a, b) = CHUNKED.split_at(cut);
        assert_eq!(read(&[a, b]), whole, "cut at {cut}");
        for second in 0..=b.len() {
            let (b, c) = b.split_at(second);
            assert_eq!(read(&[a, b, c]), whole, "cut at {cut} and {second} later");
        }
    }
    let bytes: Vec<_> = CHUNKED.chunks(1).collect();
    assert_eq!(read(&bytes), whole);
}

#[test]
fn a_chunked_body_that_ends_anywhere_before_its_end_is_truncated() {
    let body = &CHUNKED[..CHUNKED.len() - 3];
    for len in 0..body.len() {
        let truncated = read(Framing::Chunked, &[&body[..len]], b"");
        assert_eq!(truncated, Err(BodyError::Truncated), "{len} bytes");
    }
    assert!(read(Framing::Chunked, &[body], b"").is_ok());
}

#[test]
fn a_body_of_known_length_ends_there_and_not_before() {
    let read = |pieces: &[&[u8]], rest| read(Framing::Length(5), pieces, rest);
    assert_eq!(read(&[b"abcdefg"], b"fg"), Ok((b"abcde".to_vec(), vec![])));
    assert_eq!(
        read(&[b"ab", b"cde", b"fg"], b"fg"),
        Ok((b"abcde".to_vec(), vec![]))
    );
    assert_eq!(read(&[b"abcd"], b""), Err(BodyError::Truncated));
    assert_eq!(read(&[], b""), Err(BodyError::Truncated));
}

#[test]
fn a_body_until_the_end_of_the_connection_takes_all() {
    let all = read(Framing::UntilClose, &[b"ab", b"c"], b"");
    assert_eq!(all, Ok((b"abc".to_vec(), vec![])));
    assert_eq!(read(Framing::UntilClose, &[], b""), Ok((vec![], vec![])));
}

#[test]
fn no_body_is_complete_at_once() {
    for framing in [Framing::None, Framing::Length(0)] {
        assert!(framing.is_empty());
        let mut decoder = Decoder::new(framing);
        assert!(decoder.is_complete());
        assert_eq!(decoder.end_of_input(), Ok(()));
        let mut input = BytesMut::from("GET");
        assert!(matches!(decoder.decode(&mut input), Ok(Step::End(None))));
        assert_eq!(input, "GET");
    }
    for framing in [Framing::Length(1), Framing::Chunked, Framing::UntilClose] {
        assert!(!framing.is_empty());
        assert!(!Decoder::new(framing).is_complete());
    }
}

#[test]
fn a_body_of_known_length_is_complete_with_its_last_piece() {
    let mut decoder = Decoder::new(Framing::Length(3));
    let mut input = BytesMut::from("abc");
    assert!(matches!(decoder.decode(&mut input), Ok(Step::Data(_))));
    assert!(decoder.is_complete());
    assert_eq!(decoder.end_of_input(), Ok(()));
}

/// All pieces that come out of one input.
fn pieces(body: &[u8]) -> (Vec<Bytes>, std::ops::Range<usize>) {
    let mut input = BytesMut::from(body);
    let start = input.as_ptr().addr();
    let inside = start..start + body.len();
    let mut decoder = Decoder::new(Framing::Chunked);
    let mut pieces = Vec::new();
    while let Step::Data(piece) = decoder.decode(&mut input).unwrap() {
        pieces.push(piece);
    }
    assert!(decoder.is_complete());
    (pieces, inside)
}

#[test]
fn the_data_of_a_large_chunk_is_not_copied() {
    let body = [b"2000\r\n".as_slice(), &[b'x'; 0x2000], b"\r\n0\r\n\r\n"].concat();
    let (pieces, inside) = pieces(&body);
    assert_eq!(pieces.len(), 1);
    assert_eq!(pieces[0], [b'x'; 0x2000].as_slice());
    assert_eq!(pieces[0].as_ptr().addr(), inside.start + 6);
}

#[test]
fn chunks_of_one_byte_are_gathered_where_they_lie() {
    let body = ["1\r\nx\r\n".repeat(10_000).as_bytes(), b"0\r\n\r\n"].concat();
    let (pieces, inside) = pieces(&body);
    assert_eq!(pieces.iter().map(Bytes::len).sum::<usize>(), 10_000);
    // A handle for each 4 KiB, and not for each byte.
    assert_eq!(pieces.len(), 3);
    assert!(
        pieces
            .iter()
            .all(|piece| inside.contains(&piece.as_ptr().addr()))
    );
    assert!(pieces.iter().flatten().all(|byte| *byte == b'x'));
}

#[test]
fn small_and_large_chunks_in_turns_need_few_handles() {
    let turn = [b"1\r\ny\r\n201\r\n".as_slice(), &[b'x'; 0x201], b"\r\n"].concat();
    let body = [turn.repeat(100).as_slice(), b"0\r\n\r\n"].concat();
    let (pieces, _) = pieces(&body);
    let expected = [b"y".as_slice(), &[b'x'; 0x201]].concat().repeat(100);
    assert_eq!(pieces.concat(), expected);
    assert!(pieces.len() <= 200, "{}", pieces.len());
}

#[test]
fn what_came_before_an_error_is_given_out_first_in_any_cut() {
    let body = b"1\r\na\r\n1\r\nb\r\nx";
    for cut in 0..=body.len() {
        let mut decoder = Decoder::new(Framing::Chunked);
        let mut data = Vec::new();
        let mut input = BytesMut::from(&body[..cut]);
        let mut later = Some(&body[cut..]);
        let error = loop {
            match decoder.decode(&mut input) {
                Ok(Step::Data(piece)) => data.extend_from_slice(&piece),
                Ok(Step::NeedMore) => input.extend_from_slice(later.take().unwrap()),
                Ok(Step::End(_)) => panic!("it has no end"),
                Err(error) => break error,
            }
        };
        let expected = (b"ab".as_slice(), BodyError::Size);
        assert_eq!((data.as_slice(), error), expected, "{cut}");
        // Found by fuzzing: what was looked at is taken off, whether it came in one piece or not.
        assert_eq!(input, "x", "{cut}");
    }
}

#[test]
fn extensions_are_bounded_over_the_whole_body() {
    let chunk = |len: usize| format!("1;{}\r\nx\r\n", "e".repeat(len));
    let body = |count: usize, more: usize| chunk(1024).repeat(count) + &chunk(more) + "0\r\n\r\n";
    let read = |text: String| read(Framing::Chunked, &[text.as_bytes()], b"").map(|_| ());
    assert_eq!(read(body(15, 1024)), Ok(()));
    assert_eq!(read(body(15, 1025)), Err(BodyError::ExtensionsTooLong));
    assert_eq!(read(body(16, 1)), Err(BodyError::ExtensionsTooLong));
}

#[test]
fn a_size_has_sixteen_digits_at_most() {
    let mut decoder = Decoder::new(Framing::Chunked);
    let mut input = BytesMut::from("FFFFFFFFffffffff\r\nabc");
    assert!(matches!(decoder.decode(&mut input), Ok(Step::Data(data)) if data == "abc"));
    let seventeen = read(Framing::Chunked, &[b"00000000000000001\r\n"], b"");
    assert_eq!(seventeen, Err(BodyError::SizeTooLong));
}

#[test]
fn trailers_that_say_how_to_read_the_body_are_dropped_or_refused() {
    let trailers = |lines: &str| {
        let body = format!("0\r\n{lines}\r\n");
        let (_, trailers) = read(Framing::Chunked, &[body.as_bytes()], b"")?;
        let names: Vec<_> = trailers.into_iter().map(|(name, _)| name).collect();
        Ok(names.join(" "))
    };
    let dropped = "Authorization: a\r\nDate: b\r\nCookie: c\r\nX-Forwarded-For: d\r\n\
        Connection: e\r\nTE: f\r\nSet-Cookie: g\r\nVia: h\r\n";
    assert_eq!(trailers(dropped), Ok(String::new()));
    let kept = format!("{dropped}grpc-status: 0\r\nETag: x\r\n");
    assert_eq!(trailers(&kept), Ok("grpc-status ETag".to_owned()));
    for line in ["Content-Length: 0", "transfer-encoding: chunked", "HOST: a"] {
        let refused = trailers(&format!("X: y\r\n{line}\r\n"));
        assert_eq!(refused, Err(BodyError::TrailerForbidden), "{line}");
    }
    let many = |count: usize| trailers(&"a: b\r\n".repeat(count)).map(|_| ());
    assert_eq!(many(32), Ok(()));
    assert_eq!(many(33), Err(BodyError::Trailers(Refused::TooManyFields)));
}

#[test]
fn a_trailer_section_is_as_long_as_may_be_and_no_longer() {
    let read = |len: usize| {
        let value = "x".repeat(len - "a: \r\n\r\n".len());
        let body = format!("0\r\na: {value}\r\n\r\n");
        let bytes: Vec<_> = body.as_bytes().chunks(1000).collect();
        read(Framing::Chunked, &bytes, b"").map(|_| ())
    };
    assert_eq!(read(16 * 1024), Ok(()));
    assert_eq!(read(16 * 1024 + 1), Err(BodyError::TrailersTooLong));
}

#[test]
fn trailers_of_http2_are_held_to_the_rules_of_chunked_ones() {
    let check = |fields: &[(&str, &str)]| {
        let fields = fields.iter();
        let fields = fields.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let read = trailers_from_http2(fields)?;
        let mut out = Vec::new();
        write_last_chunk(&mut out, read.as_deref());
        Ok(String::from_utf8(out).unwrap())
    };
    let good = [
        ("grpc-status", "0"),
        ("age", "7"),
        ("te", "x"),
        ("x-sum", "a b"),
    ];
    let written = "0\r\ngrpc-status: 0\r\nx-sum: a b\r\n\r\n";
    assert_eq!(check(&good), Ok(written.to_owned()));
    assert_eq!(check(&[]), Ok("0\r\n\r\n".to_owned()));
    let refused = |why| Err(BodyError::Trailers(why));
    assert_eq!(
        check(&[("x", "1\r\n\r\nGET / ")]),
        refused(Refused::FieldValue)
    );
    assert_eq!(check(&[("x", "1\n")]), refused(Refused::FieldValue));
    assert_eq!(check(&[("x\r\ny", "1")]), refused(Refused::FieldName));
    assert_eq!(check(&[("X-Upper", "1")]), refused(Refused::FieldName));
    for name in ["content-length", "transfer-encoding", "host"] {
        assert_eq!(check(&[(name, "1")]), Err(BodyError::TrailerForbidden));
    }
    let many: Vec<_> = (0..33).map(|_| ("x", "1")).collect();
    assert_eq!(check(&many), refused(Refused::TooManyFields));
    let long = "y".repeat(16 * 1024);
    assert_eq!(check(&[("x", &long)]), Err(BodyError::TrailersTooLong));
}
