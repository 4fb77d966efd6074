//! The bytes of a segment.
//!
//! ```text
//! header     0  8 bytes  "mnstjrnl"
//!            8  u32      format
//!           12  u32      CRC-32C over the other 36 bytes
//!           16  u64      sequence: the file's own number, growing by one
//!           24  u64      the number of its first record
//!           32  u64      salt, drawn for this life of the file
//! record     0  u32      length of the body
//!            4  u32      CRC-32C over the body and its padding
//!            8  u64      number, growing by one over all segments
//!           16  u32      how many numbers before this one the last is that was durable when it was written
//!           20  u32      CRC-32C over the 20 bytes before
//!           24           body, padded with zeros to a multiple of 8
//! ```
//!
//! All numbers are little-endian. Both checksums of a record begin with salt and sequence, so that
//! what an earlier life of a recycled file left behind never fits, and nobody who chooses bodies can
//! make one that looks like a record. A head of zeros is the end.

/// The format that this program writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// The bytes before the first record of a segment.
pub const HEADER_LEN: u64 = Header::LEN as u64;

/// The bytes before the body of a record.
pub const RECORD_HEAD_LEN: u64 = 24;

/// No journal counts so far: a million records a second take 146,000 years. Below it counting on
/// cannot overflow.
const NUMBER_MAX: u64 = 1 << 62;

const MAGIC: [u8; 8] = *b"mnstjrnl";

/// Bodies are padded to this, so that a search for heads needs to look at every eighth byte only.
pub(crate) const ALIGNMENT: u64 = 8;

/// The number of a record. The first one ever is 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordNumber(pub u64);

/// The room that a record with a body of `body_len` bytes takes.
pub fn record_len(body_len: usize) -> u64 {
    RECORD_HEAD_LEN + (body_len as u64).next_multiple_of(ALIGNMENT)
}

/// What the first bytes of a segment say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) sequence: u64,
    pub(crate) first: u64,
    pub(crate) salt: u64,
}

/// Why the first bytes of a file are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    Short,
    Magic,
    Newer(u32),
    Checksum,
}

impl Header {
    pub(crate) const LEN: usize = 40;

    pub(crate) fn encode(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first.to_le_bytes());
        bytes[32..].copy_from_slice(&self.salt.to_le_bytes());
        let crc = header_crc(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let Some(bytes) = bytes.first_chunk::<{ Self::LEN }>() else {
            return Err(HeaderFault::Short);
        };
        if bytes[..8] != MAGIC {
            return Err(HeaderFault::Magic);
        }
        // Before the checksum: a newer format may have it elsewhere.
        match u32_at(bytes, 8) {
            FORMAT => {}
            newer if newer > FORMAT => return Err(HeaderFault::Newer(newer)),
            _ => return Err(HeaderFault::Checksum),
        }
        if u32_at(bytes, 12) != header_crc(bytes) {
            return Err(HeaderFault::Checksum);
        }
        let header = Self {
            sequence: u64_at(bytes, 16),
            first: u64_at(bytes, 24),
            salt: u64_at(bytes, 32),
        };
        let numbers = 1..NUMBER_MAX;
        if numbers.contains(&header.sequence) && numbers.contains(&header.first) {
            Ok(header)
        } else {
            Err(HeaderFault::Checksum)
        }
    }

    /// What the checksums of this segment's records begin with.
    pub(crate) fn seed(self) -> Seed {
        let salted = crc32c::crc32c(&self.salt.to_le_bytes());
        Seed(crc32c::crc32c_append(salted, &self.sequence.to_le_bytes()))
    }
}

fn header_crc(bytes: &[u8; Header::LEN]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}

/// A checksum over a segment's salt and sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seed(u32);

impl Seed {
    fn crc(self, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(self.0, bytes)
    }

    /// Whether `padded`, a body and its padding, is what the head was written for.
    pub(crate) fn fits(self, head: &Head, padded: &[u8]) -> bool {
        self.crc(padded) == head.body_crc
    }
}

/// What the first bytes of a record say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) body_len: u32,
    body_crc: u32,
    pub(crate) number: u64,
    /// The last record that was durable when this one was written; smaller than `number`.
    pub(crate) durable: u64,
}

impl Head {
    /// Which number a head that begins here would have.
    pub(crate) fn number_of(bytes: &[u8; 24]) -> u64 {
        u64_at(bytes, 8)
    }

    /// `None`: these are not the first bytes of a record of this segment.
    pub(crate) fn decode(bytes: &[u8; 24], seed: Seed) -> Option<Self> {
        if u32_at(bytes, 20) != seed.crc(&bytes[..20]) {
            return None;
        }
        let number = u64_at(bytes, 8);
        let behind = u64::from(u32_at(bytes, 16));
        Some(Self {
            body_len: u32_at(bytes, 0),
            body_crc: u32_at(bytes, 4),
            number,
            durable: number.checked_sub(behind)?,
        })
    }

    /// The whole record's length.
    pub(crate) fn record_len(&self) -> u64 {
        RECORD_HEAD_LEN + u64::from(self.body_len).next_multiple_of(ALIGNMENT)
    }
}

/// What becomes the body of a record.
pub(crate) trait Content {
    /// How long it is.
    fn len(&self) -> usize;
    /// Appends so many bytes.
    fn write(&self, into: &mut Vec<u8>);
}

/// A body that is there already.
pub(crate) struct Plain<B>(pub(crate) B);

impl<B: AsRef<[u8]>> Content for Plain<B> {
    fn len(&self) -> usize {
        self.0.as_ref().len()
    }

    fn write(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(self.0.as_ref());
    }
}

/// Appends a record to `into`. The caller made sure that the body's length fits.
pub(crate) fn encode_record(
    into: &mut Vec<u8>,
    seed: Seed,
    number: u64,
    durable: u64,
    body: &impl Content,
) {
    let head_at = into.len();
    let body_len = u32::try_from(body.len()).expect("a record fits into a segment");
    let behind = u32::try_from(number - durable).expect("a segment holds fewer records");
    into.extend_from_slice(&body_len.to_le_bytes());
    into.extend_from_slice(&[0; 4]);
    into.extend_from_slice(&number.to_le_bytes());
    into.extend_from_slice(&behind.to_le_bytes());
    into.extend_from_slice(&[0; 4]);
    let body_at = into.len();
    body.write(into);
    debug_assert_eq!(into.len() - body_at, body.len());
    into.resize(body_at + body.len().next_multiple_of(8), 0);
    let body_crc = seed.crc(&into[body_at..]);
    into[head_at + 4..head_at + 8].copy_from_slice(&body_crc.to_le_bytes());
    let head_crc = seed.crc(&into[head_at..head_at + 20]);
    into[head_at + 20..body_at].copy_from_slice(&head_crc.to_le_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_that_everybody_else_computes() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xE306_9283); // RFC 3720, B.4, and the catalogues
    }

    #[test]
    fn a_record_fits_its_own_segment_and_no_other() {
        let header = Header {
            sequence: 7,
            first: 40,
            salt: 5,
        };
        assert_eq!(Header::decode(&header.encode()), Ok(header));
        let mut bytes = Vec::new();
        encode_record(&mut bytes, header.seed(), 41, 39, &Plain(b"a body"));
        assert_eq!(bytes.len() as u64, record_len(6));
        let head_bytes = bytes.first_chunk().unwrap();
        let head = Head::decode(head_bytes, header.seed()).unwrap();
        assert_eq!((head.number, head.durable, head.body_len), (41, 39, 6));
        assert!(header.seed().fits(&head, &bytes[24..]));
        for other in [
            Header {
                sequence: 8,
                ..header
            },
            Header { salt: 6, ..header },
        ] {
            assert_eq!(Head::decode(head_bytes, other.seed()), None);
            assert!(!other.seed().fits(&head, &bytes[24..]));
        }
    }
}
