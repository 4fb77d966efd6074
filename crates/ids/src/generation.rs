//! The numbers that order published states.

use core::fmt;
use core::str::FromStr;

/// How often a control centre has begun to publish; grows at each of its starts, so that a state
/// that was restored from an older backup is still newer than everything published before.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// A counter of changes within one epoch.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Revision(pub u64);

/// The number of one published state. Ordered by epoch, then by revision: it never goes backwards.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Generation {
    /// Which run of the control centre published it.
    pub epoch: Epoch,
    /// Which change of that run it is.
    pub revision: Revision,
}

impl Generation {
    /// The first generation of an epoch.
    pub const fn first(epoch: Epoch) -> Self {
        Self {
            epoch,
            revision: Revision(1),
        }
    }

    /// The generation after this one, in the same epoch.
    #[must_use]
    pub const fn next(self) -> Self {
        Self {
            epoch: self.epoch,
            revision: Revision(self.revision.0 + 1),
        }
    }
}

/// Why a text is not a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a generation is written EPOCH.REVISION, as in `3.17`")]
pub struct GenerationError;

impl FromStr for Generation {
    type Err = GenerationError;

    fn from_str(text: &str) -> Result<Self, GenerationError> {
        let number = |digits: &str| {
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse().ok()).flatten()
        };
        let numbers = text
            .split_once('.')
            .and_then(|(epoch, revision)| Some((number(epoch)?, number(revision)?)));
        let (epoch, revision) = numbers.ok_or(GenerationError)?;
        Ok(Self {
            epoch: Epoch(epoch),
            revision: Revision(revision),
        })
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch.0, self.revision.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_later_epoch_is_newer_than_any_revision_before_it() {
        let old = Generation {
            epoch: Epoch(3),
            revision: Revision(900),
        };
        assert!(Generation::first(Epoch(4)) > old);
        assert!(old.next() > old);
    }

    #[test]
    fn a_generation_is_read_back_as_it_was_written() {
        let generation = Generation::first(Epoch(3)).next();
        assert_eq!(generation.to_string().parse(), Ok(generation));
        for bad in [
            "",
            "3",
            "3.",
            ".2",
            "3.+2",
            "3.2.1",
            "-1.2",
            "99999999999999999999.1",
        ] {
            assert_eq!(bad.parse::<Generation>(), Err(GenerationError), "{bad}");
        }
    }
}
