//! Bodies in any bytes, however they are cut: no panic, the same result as uncut, and what we accept
//! as chunks a plain reader on httparse takes apart in the same way.
#![no_main]

mod http1_pieces;

use http1_pieces::{LIMITS, OwnFields, Wire, body, pieces};
use libfuzzer_sys::fuzz_target;
use mainstay_http1::Framing;

/// The data, all trailers, and how much is left: with no other code than httparse's.
fn plainly(mut bytes: &[u8]) -> Option<(Vec<u8>, OwnFields, usize)> {
    let mut data = Vec::new();
    loop {
        let httparse::Status::Complete((line, size)) = httparse::parse_chunk_size(bytes).ok()?
        else {
            return None;
        };
        bytes = &bytes[line..];
        if size == 0 {
            break;
        }
        let (chunk, rest) = bytes.split_at_checked(usize::try_from(size).ok()?)?;
        data.extend_from_slice(chunk);
        bytes = rest.strip_prefix(b"\r\n")?;
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let httparse::Status::Complete((end, fields)) =
        httparse::parse_headers(bytes, &mut headers).ok()?
    else {
        return None;
    };
    let fields = fields.iter();
    let fields = fields.map(|field| (field.name.as_bytes().to_vec(), field.value.to_vec()));
    Some((data, fields.collect(), bytes.len() - end))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((bytes, lengths)) = pieces(bytes) else {
        return;
    };
    let Some((framing, bytes)) = bytes.split_first() else {
        return;
    };
    let framing = match framing {
        0 => Framing::None,
        1 => Framing::UntilClose,
        2 => Framing::Length(LIMITS.len_max as u64),
        3..=9 => Framing::Length(u64::from(*framing) - 3),
        _ => Framing::Chunked,
    };
    let mut wire = Wire::new(bytes, std::iter::repeat(usize::MAX));
    let whole = body(framing, &mut wire);
    let rest = wire.rest();
    let mut wire = Wire::new(bytes, lengths);
    assert_eq!(body(framing, &mut wire), whole);
    if let Ok(trailers) = &whole.end {
        assert_eq!(wire.rest(), rest);
        if framing == Framing::Chunked {
            let (data, fields, left) = plainly(bytes).expect("we are the stricter ones");
            assert_eq!((&data, left), (&whole.data, rest));
            for trailer in trailers.iter().flatten() {
                assert!(fields.contains(trailer));
            }
        }
    }
});
