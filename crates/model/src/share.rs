//! Shares of requests.

use core::fmt;

/// A share of all, in millionths: 0.1 % is a thousand of them.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "u32", into = "u32")]
pub struct Share(u32);

/// A share is more than all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a share is 0 to 1000000 parts per million, found {0}")]
pub struct ShareError(u32);

impl Share {
    /// All.
    const ALL_PPM: u32 = 1_000_000;
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// So many millionths.
    pub const fn from_ppm(ppm: u32) -> Result<Self, ShareError> {
        if ppm > Self::ALL_PPM {
            return Err(ShareError(ppm));
        }
        Ok(Self(ppm))
    }

    /// The share in millionths.
    pub const fn ppm(self) -> u32 {
        self.0
    }

    /// Whether a draw falls into the share. Of evenly distributed draws exactly this share does, to
    /// one in 2^44.
    pub const fn takes(self, draw: u64) -> bool {
        let scaled = (draw as u128 * Self::ALL_PPM as u128) >> 64;
        scaled < self.0 as u128
    }
}

/// In percent, with as many decimals as it takes: `0.1%`.
impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, mut decimals) = (self.0 / 10_000, self.0 % 10_000);
        let mut digits = 4;
        while digits > 0 && decimals.is_multiple_of(10) {
            decimals /= 10;
            digits -= 1;
        }
        if digits == 0 {
            write!(f, "{whole}%")
        } else {
            write!(f, "{whole}.{decimals:0digits$}%")
        }
    }
}

impl TryFrom<u32> for Share {
    type Error = ShareError;
    fn try_from(ppm: u32) -> Result<Self, ShareError> {
        Self::from_ppm(ppm)
    }
}

impl From<Share> for u32 {
    fn from(share: Share) -> Self {
        share.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_share_is_shown_as_it_is_written() {
        for (ppm, shown) in [
            (0, "0%"),
            (1, "0.0001%"),
            (1000, "0.1%"),
            (12_500, "1.25%"),
            (100_000, "10%"),
            (1_000_000, "100%"),
        ] {
            assert_eq!(
                Share::from_ppm(ppm)
                    .map(|share| share.to_string())
                    .as_deref(),
                Ok(shown)
            );
        }
        assert_eq!(Share::from_ppm(1_000_001), Err(ShareError(1_000_001)));
    }

    #[test]
    fn the_edges_of_a_share_are_exact() {
        let tenth = Share::from_ppm(100_000).expect("legal");
        let edge = u64::MAX / 10;
        assert!(tenth.takes(0) && tenth.takes(edge) && !tenth.takes(edge + 2));
        assert!(!Share::NONE.takes(0));
        assert!(Share::from_ppm(1_000_000).is_ok_and(|all| all.takes(u64::MAX)));
    }
}
