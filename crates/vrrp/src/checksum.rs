//! The Internet checksum (RFC 1071).

use core::net::IpAddr;

use crate::packet::PROTOCOL;

/// A sum of 16-bit words that is not folded yet. All pieces but the last have an even number of bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sum(u32);

impl Sum {
    /// With the words of `bytes`. An advert and its pseudo-header have less than 2,100 words, so 32 bits do not run over.
    pub(crate) fn add(self, bytes: &[u8]) -> Self {
        let mut words = bytes.chunks_exact(2);
        let whole: u32 = words
            .by_ref()
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
            .sum();
        let rest = words
            .remainder()
            .first()
            .map_or(0, |byte| u32::from(*byte) << 8);
        Self(self.0 + whole + rest)
    }

    /// The complement, as it stands in a packet.
    pub(crate) fn checksum(self) -> u16 {
        let once = (self.0 & 0xffff) + (self.0 >> 16);
        let twice = (once & 0xffff) + (once >> 16);
        !u16::try_from(twice).expect("two folds leave 16 bits of 32")
    }

    /// Whether the checksum that was summed with the rest is right.
    pub(crate) fn holds(self) -> bool {
        self.checksum() == 0
    }
}

/// The sum of the header that is not sent: both addresses, length, protocol (RFC 8200, 8.1; RFC 9293, 3.1 for IPv4).
pub(crate) fn pseudo_header(from: IpAddr, to: IpAddr, len: usize) -> Sum {
    let len = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    let sum = Sum::default().add(&len).add(&[0, PROTOCOL]);
    [from, to]
        .into_iter()
        .fold(sum, |sum, address| match address {
            IpAddr::V4(v4) => sum.add(&v4.octets()),
            IpAddr::V6(v6) => sum.add(&v6.octets()),
        })
}
