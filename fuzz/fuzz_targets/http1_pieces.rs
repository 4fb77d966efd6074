//! What the targets of the HTTP/1.1 codec share: bytes that come in pieces, and bodies out of them.

use bytes::BytesMut;
use mainstay_http1::{
    BodyError, ChunkHead, Decoder, Fields, Framing, HeadLimits, Step, Trailers, write_last_chunk,
};

/// Low enough for the fuzzer to come there.
pub const LIMITS: HeadLimits = HeadLimits {
    len_max: 2048,
    fields_max: 20,
};

pub type OwnFields = Vec<(Vec<u8>, Vec<u8>)>;

pub fn own(fields: &Fields) -> OwnFields {
    let pairs = fields.iter();
    pairs
        .map(|field| (field.name.to_vec(), field.value.to_vec()))
        .collect()
}

/// The first two bytes say how long the pieces are, in turns.
pub fn pieces(bytes: &[u8]) -> Option<(&[u8], impl Iterator<Item = usize>)> {
    let (&[a, b], rest) = bytes.split_first_chunk::<2>()?;
    let lengths = [usize::from(a) + 1, usize::from(b) + 1];
    Some((rest, lengths.into_iter().cycle()))
}

/// Bytes of which only the first ones have arrived.
pub struct Wire<'a, L> {
    pub input: BytesMut,
    coming: &'a [u8],
    lengths: L,
}

impl<'a, L: Iterator<Item = usize>> Wire<'a, L> {
    pub fn new(coming: &'a [u8], lengths: L) -> Self {
        Self {
            input: BytesMut::new(),
            coming,
            lengths,
        }
    }

    /// Another piece arrives; `false` at the end.
    pub fn read(&mut self) -> bool {
        let len = self.lengths.next().unwrap_or(1).min(self.coming.len());
        let (piece, coming) = self.coming.split_at(len);
        self.input.extend_from_slice(piece);
        self.coming = coming;
        len > 0
    }

    /// All that was not taken.
    pub fn rest(&self) -> usize {
        self.input.len() + self.coming.len()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    pub data: Vec<u8>,
    pub end: Result<Option<OwnFields>, BodyError>,
}

/// Takes a body off the wire.
pub fn body<L: Iterator<Item = usize>>(framing: Framing, wire: &mut Wire<'_, L>) -> Body {
    let mut decoder = Decoder::new(framing);
    let mut data = Vec::new();
    let end = loop {
        match decoder.decode(&mut wire.input) {
            Ok(Step::Data(piece)) => {
                assert!(!piece.is_empty());
                data.extend_from_slice(&piece);
            }
            Ok(Step::End(trailers)) => {
                assert!(decoder.is_complete());
                check_written(&data, trailers.as_deref());
                break Ok(trailers.as_deref().map(own));
            }
            Ok(Step::NeedMore) if wire.read() => {}
            Ok(Step::NeedMore) => {
                if let Err(error) = decoder.end_of_input() {
                    break Err(error);
                }
            }
            Err(error) => break Err(error),
        }
    };
    Body { data, end }
}

/// Written anew in chunks, it reads the same.
fn check_written(data: &[u8], trailers: Option<&Trailers>) {
    let mut out = Vec::new();
    for chunk in data.chunks(7) {
        out.extend_from_slice(ChunkHead::new(chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    write_last_chunk(&mut out, trailers);
    let mut input = BytesMut::from(out.as_slice());
    let mut decoder = Decoder::new(Framing::Chunked);
    let mut again = Vec::new();
    let end = loop {
        match decoder.decode(&mut input) {
            Ok(Step::Data(piece)) => again.extend_from_slice(&piece),
            Ok(Step::End(end)) => break end,
            other => panic!("{other:?} of {}", out.escape_ascii()),
        }
    };
    assert_eq!(again, data);
    assert_eq!(end.as_deref().map(own), trailers.map(own));
    assert!(input.is_empty());
}
