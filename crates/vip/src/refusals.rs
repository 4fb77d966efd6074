//! Packets that were not believed, counted by why.

use mainstay_vrrp::Refused;
use serde::{Deserialize, Serialize};

/// Why a packet was not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It came through a router, or is forged: its TTL or hop limit is too small.
    HopLimit,
    /// It is cut off, or has more than it says.
    Length,
    /// Its checksum is wrong.
    Checksum,
    /// It has a password, which is not understood.
    Authentication,
    /// Some other field has a value that no advert has.
    Content,
    /// It is of the other version of VRRP.
    Version,
    /// It has our own address.
    OwnAddress,
    /// Its sender is not in `peers`.
    Stranger,
}

impl Reason {
    /// All of them, in their order.
    pub const ALL: [Self; 8] = [
        Self::HopLimit,
        Self::Length,
        Self::Checksum,
        Self::Authentication,
        Self::Content,
        Self::Version,
        Self::OwnAddress,
        Self::Stranger,
    ];

    /// Its word, in metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HopLimit => "hop_limit",
            Self::Length => "length",
            Self::Checksum => "checksum",
            Self::Authentication => "authentication",
            Self::Content => "content",
            Self::Version => "version",
            Self::OwnAddress => "own_address",
            Self::Stranger => "stranger",
        }
    }
}

impl From<Refused> for Reason {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::HopLimit { .. } => Self::HopLimit,
            Refused::Short { .. } | Refused::Length { .. } => Self::Length,
            Refused::Checksum(_) => Self::Checksum,
            Refused::Authentication(_) => Self::Authentication,
            Refused::Families
            | Refused::UnknownVersion(_)
            | Refused::VersionOfFamily
            | Refused::Type(_)
            | Refused::Vrid
            | Refused::NoAddress
            | Refused::Interval => Self::Content,
        }
    }
}

/// How many of each.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Refusals([u64; Reason::ALL.len()]);

impl Refusals {
    pub(crate) fn note(&mut self, reason: Reason) {
        self.0[reason as usize] += 1;
    }

    pub(crate) fn count(&self, reason: Reason) -> u64 {
        self.0[reason as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_place_of_its_own_and_its_word_is_that_of_json() {
        let mut refusals = Refusals::default();
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            (0..=at).for_each(|_| refusals.note(reason));
            let word = serde_json::to_value(reason).unwrap();
            assert_eq!(word, reason.as_str());
        }
        for (at, reason) in (1..).zip(Reason::ALL) {
            assert_eq!(refusals.count(reason), at);
        }
    }
}
