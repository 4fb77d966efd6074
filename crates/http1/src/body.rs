//! Bodies, with their framing taken off (RFC 9112, 6 and 7).

use crate::{
    Framing, Refused, Trailers, token,
    trailer::{self, TrailerScan},
};
use alloc::boxed::Box;
use bytes::{Buf as _, Bytes, BytesMut};

/// What [`Decoder::decode`] found.
#[derive(Debug)]
pub enum Step {
    /// Nothing more can be said without more bytes.
    NeedMore,
    /// The next piece of the body; never empty. Where the chunks of a chunked body end says nothing.
    Data(Bytes),
    /// The body is complete; what is left of the input belongs to the next message.
    End(Option<Box<Trailers>>),
}

/// Why a body is broken. Nothing on its connection can be understood from here on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences say what they are")]
pub enum BodyError {
    /// No digit, a sign, a space, a letter after F.
    #[error("the size of a chunk is not a hexadecimal number")]
    Size,
    /// It would not fit into 64 bits, or begins with zeros without end.
    #[error("the size of a chunk has more than 16 digits")]
    SizeTooLong,
    #[error("the line with the size of a chunk does not end with CR LF")]
    SizeEnd,
    #[error("an extension of a chunk has a control character")]
    Extension,
    #[error("the extensions of the chunks are too long")]
    ExtensionsTooLong,
    #[error("the data of a chunk does not end with CR LF where its size says")]
    ChunkEnd,
    #[error("the trailers after the body are malformed")]
    Trailers(#[source] Refused),
    /// RFC 9110, 6.5.1.
    #[error("a trailer says where the body ends, or for which host it is")]
    TrailerForbidden,
    #[error("the trailers after the body are too long")]
    TrailersTooLong,
    #[error("the connection ended before the body was complete")]
    Truncated,
}

impl BodyError {
    /// The reason in one word, for logs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Size => "chunk-size",
            Self::SizeTooLong => "chunk-size-too-long",
            Self::SizeEnd => "chunk-size-end",
            Self::Extension => "chunk-extension",
            Self::ExtensionsTooLong => "chunk-extensions-too-long",
            Self::ChunkEnd => "chunk-end",
            Self::Trailers(_) => "trailers",
            Self::TrailerForbidden => "trailer-forbidden",
            Self::TrailersTooLong => "trailers-too-long",
            Self::Truncated => "truncated",
        }
    }
}

/// Bytes of extensions in a whole body: hyper's bound. Nobody is known to use them, and a client
/// that sends nothing else would keep us reading for no byte of data.
const EXTENSIONS_LEN_MAX: u16 = 16 * 1024;

/// Digits of 64 bits.
const SIZE_DIGITS_MAX: u8 = 16;

/// Chunks up to this are gathered into one piece, where they lie in the input. So a body in chunks
/// of one byte costs a move of each byte, and not a shared handle of 32 bytes and a write for each.
/// Moving more than this would cost more than the handle does.
const GATHERED_CHUNK_LEN_MAX: usize = 512;

/// A piece that is so long is given out without looking for more.
const PIECE_LEN_MIN: usize = 4 * 1024;

/// Takes the framing off a body.
///
/// It keeps no bytes itself: what it cannot use yet stays in the input, which is at most a trailer
/// section of 16 KiB.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// Bytes of extensions so far.
    extensions_len: u16,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Length {
        left: u64,
    },
    UntilClose,
    /// In the digits of a chunk's size.
    Size {
        size: u64,
        digits: u8,
    },
    /// After the `;` of that line.
    Extension {
        size: u64,
    },
    /// After its CR.
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// After the line of the last chunk.
    Trailers(TrailerScan),
    Complete,
    Failed(BodyError),
}

const CHUNK: State = State::Size { size: 0, digits: 0 };

impl Decoder {
    /// For a body whose head said so.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Complete,
            Framing::Length(left) => State::Length { left },
            Framing::Chunked => CHUNK,
            Framing::UntilClose => State::UntilClose,
        };
        Self {
            state,
            extensions_len: 0,
        }
    }

    /// Takes the next piece off `input`, without copying it, but for the data of small chunks, which
    /// is moved together. After an error it says the same error again.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Step, BodyError> {
        let step = match self.state {
            State::Complete => Ok(Step::End(None)),
            State::Failed(error) => Err(error),
            State::UntilClose if input.is_empty() => Ok(Step::NeedMore),
            State::UntilClose => Ok(Step::Data(input.split().freeze())),
            State::Length { left } => Ok(self.decode_length(left, input)),
            State::Trailers(scan) => self.decode_trailers(scan, input),
            State::Size { .. }
            | State::Extension { .. }
            | State::SizeLf { .. }
            | State::Data { .. }
            | State::DataCr
            | State::DataLf => self.decode_chunks(input),
        };
        if let Err(error) = step {
            self.state = State::Failed(error);
        }
        step
    }

    /// Whether every byte of the body was taken off the input. What a chunked body has behind its
    /// last data, its trailers among it, counts.
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete)
    }

    /// The peer closed: fine only for `UntilClose`, or when complete.
    pub fn end_of_input(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Complete => Ok(()),
            State::UntilClose => {
                self.state = State::Complete;
                Ok(())
            }
            State::Failed(error) => Err(error),
            State::Length { .. }
            | State::Size { .. }
            | State::Extension { .. }
            | State::SizeLf { .. }
            | State::Data { .. }
            | State::DataCr
            | State::DataLf
            | State::Trailers(_) => {
                self.state = State::Failed(BodyError::Truncated);
                Err(BodyError::Truncated)
            }
        }
    }

    fn decode_length(&mut self, left: u64, input: &mut BytesMut) -> Step {
        let piece = at_most(left, input.len());
        if piece == 0 {
            return Step::NeedMore;
        }
        self.state = match left - piece as u64 {
            0 => State::Complete,
            left => State::Length { left },
        };
        Step::Data(input.split_to(piece).freeze())
    }

    fn decode_chunks(&mut self, input: &mut BytesMut) -> Result<Step, BodyError> {
        // The piece lies in input[start..end]; everything before `read` has been looked at.
        let (mut start, mut end, mut read) = (0, 0, 0);
        while read < input.len() {
            match self.state {
                State::Data { left } => {
                    let len = at_most(left, input.len() - read);
                    if start == end {
                        (start, end) = (read, read + len);
                    } else if len <= GATHERED_CHUNK_LEN_MAX {
                        input.copy_within(read..read + len, end);
                        end += len;
                    } else {
                        break;
                    }
                    read += len;
                    self.state = match left - len as u64 {
                        0 => State::DataCr,
                        left => State::Data { left },
                    };
                    if end - start >= PIECE_LEN_MIN {
                        break;
                    }
                }
                State::Trailers(_) => break,
                state => match self.after(state, input[read]) {
                    Ok(state) => {
                        self.state = state;
                        read += 1;
                    }
                    // What came before the error is given out first, however the input is cut.
                    Err(_) if start < end => break,
                    Err(error) => {
                        input.advance(read);
                        return Err(error);
                    }
                },
            }
        }
        if start < end {
            input.advance(start);
            let piece = input.split_to(end - start).freeze();
            input.advance(read - end);
            return Ok(Step::Data(piece));
        }
        input.advance(read);
        match self.state {
            State::Trailers(scan) => self.decode_trailers(scan, input),
            _ => Ok(Step::NeedMore),
        }
    }

    /// The state after one byte of framing (RFC 9112, 7.1). White space around the size, which the
    /// grammar of extensions would allow, is refused: readers differ about it.
    fn after(&mut self, state: State, byte: u8) -> Result<State, BodyError> {
        match (state, byte) {
            (State::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if digits == SIZE_DIGITS_MAX {
                    return Err(BodyError::SizeTooLong);
                }
                Ok(State::Size {
                    size: size << 4 | u64::from(hexadecimal(byte)),
                    digits: digits + 1,
                })
            }
            (State::Size { digits: 0, .. }, _) => Err(BodyError::Size),
            (State::Size { size, .. }, b';') => Ok(State::Extension { size }),
            (State::Size { size, .. } | State::Extension { size }, b'\r') => {
                Ok(State::SizeLf { size })
            }
            (State::Size { .. } | State::Extension { .. }, b'\n') => Err(BodyError::SizeEnd),
            (State::Size { .. }, _) => Err(BodyError::Size),
            (State::Extension { size }, _) => {
                if token::is_control(byte) {
                    return Err(BodyError::Extension);
                }
                if self.extensions_len == EXTENSIONS_LEN_MAX {
                    return Err(BodyError::ExtensionsTooLong);
                }
                self.extensions_len += 1;
                Ok(State::Extension { size })
            }
            (State::SizeLf { size: 0 }, b'\n') => Ok(State::Trailers(TrailerScan::default())),
            (State::SizeLf { size }, b'\n') => Ok(State::Data { left: size }),
            (State::SizeLf { .. }, _) => Err(BodyError::SizeEnd),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(CHUNK),
            (State::DataCr | State::DataLf, _) => Err(BodyError::ChunkEnd),
            (
                State::Length { .. }
                | State::UntilClose
                | State::Data { .. }
                | State::Trailers(_)
                | State::Complete
                | State::Failed(_),
                _,
            ) => Ok(state),
        }
    }

    fn decode_trailers(
        &mut self,
        mut scan: TrailerScan,
        input: &mut BytesMut,
    ) -> Result<Step, BodyError> {
        let Some(end) = scan.find_end(input)? else {
            self.state = State::Trailers(scan);
            return Ok(Step::NeedMore);
        };
        let trailers = trailer::parse(input.split_to(end).freeze())?;
        self.state = State::Complete;
        Ok(Step::End(trailers))
    }
}

fn at_most(left: u64, available: usize) -> usize {
    usize::try_from(left).map_or(available, |left| left.min(available))
}

fn hexadecimal(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}
