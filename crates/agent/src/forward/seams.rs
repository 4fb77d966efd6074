//! What forwarding leaves out, so that a proof that rests on it is seen to fail. A hidden option writes
//! them: `repair=off,dead=off`.

use std::str::FromStr;

/// What is left out: by itself nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ForwardSeams {
    /// Whether rules are looked at.
    pub repair: Repair,
    /// Whether deaths are told.
    pub deaths: Deaths,
    /// Whether connection tracking is told of those that leave.
    pub clean_up: CleanUp,
    /// How rules change.
    pub changes: Changes,
}

/// Whether what others do to the rules is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Repair {
    /// It is.
    #[default]
    On,
    /// Nobody looks.
    Off,
}

/// Whether those who are under way to a dead instance are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deaths {
    /// By a reset.
    #[default]
    Told,
    /// They find out by themselves.
    Untold,
}

/// Whether what connection tracking remembers of those that leave is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CleanUp {
    /// It is.
    #[default]
    On,
    /// It is not.
    Off,
}

/// How rules change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Changes {
    /// What differs, all at once.
    #[default]
    Atomic,
    /// All services are taken away and then made again.
    Anew,
}

/// A word that names no seam.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{word}` is no seam of forwarding; expected repair=off, dead=off, clean-up=off or changes=anew, several with commas"
)]
pub struct SeamError {
    word: String,
}

impl FromStr for ForwardSeams {
    type Err = SeamError;

    fn from_str(text: &str) -> Result<Self, SeamError> {
        let mut seams = Self::default();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            match word {
                "repair=off" => seams.repair = Repair::Off,
                "dead=off" => seams.deaths = Deaths::Untold,
                "clean-up=off" => seams.clean_up = CleanUp::Off,
                "changes=anew" => seams.changes = Changes::Anew,
                other => {
                    let word = other.to_owned();
                    return Err(SeamError { word });
                }
            }
        }
        Ok(seams)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seams_are_named_with_commas_and_an_unknown_one_is_refused() {
        assert_eq!("".parse(), Ok(ForwardSeams::default()));
        let both: ForwardSeams = "repair=off,dead=off".parse().unwrap();
        assert_eq!((both.repair, both.deaths), (Repair::Off, Deaths::Untold));
        let refused = "dead=of".parse::<ForwardSeams>().unwrap_err().to_string();
        assert!(
            refused.contains("`dead=of`") && refused.contains("clean-up=off"),
            "{refused}"
        );
    }
}
