//! Whether an instance gets requests, and how many beside the others, as an operator wants it.

use core::fmt;

/// What an operator wants of an instance, beside what its probes say. The default changes nothing.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Intake {
    /// Whether it gets requests.
    #[serde(default)]
    pub state: IntakeState,
    /// How many, beside the others of its service.
    #[serde(default)]
    pub weight: Weight,
}

/// Whether an instance gets requests, by the words that users of HAProxy know. It runs and is probed
/// in each of them.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum IntakeState {
    /// It does.
    #[default]
    Ready,
    /// It gets none but those of clients who stay with it by a cookie.
    Drain,
    /// It gets none at all.
    Maintenance,
}

/// An instance's weight in percent of an ordinary one: 0 to [`Weight::MAX`]. With 0 it is left to the
/// clients who stay with it, as if it drained.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "u16", into = "u16")]
pub struct Weight(u16);

/// The number is no weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a weight is 0 to 256, in percent of an ordinary instance")]
pub struct WeightError;

impl Weight {
    /// That of an instance of which nobody said anything.
    pub const ORDINARY: Self = Self(100);
    /// The greatest, in percent: the greatest number that HAProxy's weights have, too.
    pub const MAX: u16 = 256;

    /// Takes a number of percents.
    pub const fn new(percent: u16) -> Result<Self, WeightError> {
        if percent > Self::MAX {
            return Err(WeightError);
        }
        Ok(Self(percent))
    }

    /// In percent of an ordinary instance.
    pub const fn percent(self) -> u16 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self::ORDINARY
    }
}

impl TryFrom<u16> for Weight {
    type Error = WeightError;
    fn try_from(percent: u16) -> Result<Self, WeightError> {
        Self::new(percent)
    }
}

impl From<Weight> for u16 {
    fn from(weight: Weight) -> Self {
        weight.0
    }
}

impl core::str::FromStr for Weight {
    type Err = WeightError;
    /// Reads `50` and `50%`.
    fn from_str(text: &str) -> Result<Self, WeightError> {
        let number = text.strip_suffix('%').unwrap_or(text);
        Self::new(number.parse().map_err(|_| WeightError)?)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl Intake {
    /// Whether nothing is wanted but what is usual.
    pub fn is_ordinary(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it gets requests of any client.
    pub fn takes_any(self) -> bool {
        match self.state {
            IntakeState::Ready => self.weight.0 > 0,
            IntakeState::Drain | IntakeState::Maintenance => false,
        }
    }

    /// Whether it gets requests of clients who stay with it.
    pub fn takes_held(self) -> bool {
        match self.state {
            IntakeState::Ready | IntakeState::Drain => true,
            IntakeState::Maintenance => false,
        }
    }
}

/// What an intake means, in words that follow the name of an instance.
impl fmt::Display for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.state, self.weight) {
            (IntakeState::Ready, Weight::ORDINARY) => f.write_str("gets requests like the others"),
            (IntakeState::Ready, Weight(0)) => {
                f.write_str("has weight 0%, and only clients who stay with it")
            }
            (IntakeState::Ready, weight) => write!(f, "gets requests with weight {weight}"),
            (IntakeState::Drain, _) => {
                f.write_str("is drained, and only clients who stay with it get there")
            }
            (IntakeState::Maintenance, _) => f.write_str("is in maintenance, and gets no requests"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_a_percentage_up_to_256_and_nothing_else() {
        assert_eq!("50%".parse(), Weight::new(50));
        assert_eq!("256".parse::<Weight>().map(Weight::percent), Ok(256));
        for wrong in ["", "%", "257", "-1", "1.5", "50%%"] {
            assert_eq!(wrong.parse::<Weight>(), Err(WeightError), "{wrong}");
        }
    }

    #[test]
    fn only_maintenance_takes_the_clients_away_who_stay() {
        let of = |state, percent| Intake {
            state,
            weight: Weight::new(percent).expect("legal"),
        };
        for (intake, any, held) in [
            (of(IntakeState::Ready, 100), true, true),
            (of(IntakeState::Ready, 0), false, true),
            (of(IntakeState::Drain, 100), false, true),
            (of(IntakeState::Maintenance, 100), false, false),
        ] {
            assert_eq!(
                (intake.takes_any(), intake.takes_held()),
                (any, held),
                "{intake:?}"
            );
        }
    }
}
