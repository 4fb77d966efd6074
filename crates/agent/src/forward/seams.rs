//! What forwarding leaves out, so that a proof that rests on it is seen to fail. A hidden option writes
//! them: `repair=off,dead=off`.

use std::str::FromStr;

use mainstay_model::seams::{self, SeamError, Word};

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

impl seams::Seams for ForwardSeams {
    const OF: &'static str = "forwarding";
    const WORDS: &'static [Word<Self>] = &[
        ("repair=off", |seams| seams.repair = Repair::Off),
        ("dead=off", |seams| seams.deaths = Deaths::Untold),
        ("clean-up=off", |seams| seams.clean_up = CleanUp::Off),
        ("changes=anew", |seams| seams.changes = Changes::Anew),
    ];
}

impl FromStr for ForwardSeams {
    type Err = SeamError;

    fn from_str(text: &str) -> Result<Self, SeamError> {
        seams::parse(text)
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
