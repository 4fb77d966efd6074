//! What clients may rely on, and how it was broken.

use std::fmt;

/// What clients may rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryPromise {
    /// No safe request fails while one instance is well.
    NoneFails,
    /// And none takes 300 ms because of one instance, nor half a second because of two.
    NoneHangs,
    /// What may have an effect is carried out once, and not after its client was told; what is not
    /// even idempotent is sent once.
    NothingTwice,
    /// A request is at an instance once at a time, and is not sent more often than it may be.
    FewCopies,
    /// What was never at a sick instance is answered, whatever its method.
    NoneElsewhere,
    /// A sick instance is soon sent nothing but what shows how it is.
    LeftAlone,
    /// What shows it is a request that can be sent elsewhere meanwhile.
    ProbesCanMove,
    /// An instance that is well again gets its share of the requests again, from each worker.
    ComesBack,
    /// Repeats and second copies stay within their budget.
    WithinBudget,
    /// While all are well, nothing is refused and hardly anything sent twice.
    LeavesTheWellAlone,
    /// In an overload what can be done is done, nobody waits for long, and checks are answered.
    ShedsWell,
    /// All that was counted as under way has ended, and nobody stands in a line.
    Clean,
    /// The decisions' own assertions hold.
    OwnInvariant,
}

impl EntryPromise {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoneFails => "none-fails",
            Self::NoneHangs => "none-hangs",
            Self::NothingTwice => "nothing-twice",
            Self::FewCopies => "few-copies",
            Self::NoneElsewhere => "none-elsewhere",
            Self::LeftAlone => "left-alone",
            Self::ProbesCanMove => "probes-can-move",
            Self::ComesBack => "comes-back",
            Self::WithinBudget => "within-budget",
            Self::LeavesTheWellAlone => "leaves-the-well-alone",
            Self::ShedsWell => "sheds-well",
            Self::Clean => "clean",
            Self::OwnInvariant => "own-invariant",
        }
    }
}

/// A promise that was broken.
#[derive(Debug, Clone)]
pub struct Hurt {
    /// Which.
    pub promise: EntryPromise,
    /// How.
    pub what: String,
}

impl fmt::Display for Hurt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise.name(), self.what)
    }
}
