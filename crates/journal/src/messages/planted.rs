//! Mistakes that tests plant, to show that the simulation sees each of them. Outside of this crate's tests there are
//! none: the questions are constants there, and nothing of them is left.

/// A mistake that an engineer could make here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A sync is said to have been made.
    ConfirmsUnsynced,
    /// A segment is given up before what was moved from it is durable.
    RetiresUnsynced,
    /// What is moved is moved for those queues, too, that do not need it any more.
    MovesForgotten,
    /// Whether a message is needed is asked for its first queue alone.
    AsksFirstQueue,
    /// Definitions do not move.
    LeavesDefinitions,
    /// The index is not told where something moved.
    ForgetsMove,
    /// A segment that is being read is written to.
    RecyclesRead,
    /// Messages take what is kept for a full disk.
    NoReserve,
    /// An acknowledgement changes memory alone.
    ForgetsInMemory,
    /// A segment of which little is needed is given up.
    GivesUpLittle,
}

/// Which mistake is planted, if any.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Planted(#[cfg(test)] pub(crate) Option<Bug>);

impl Planted {
    #[cfg(test)]
    pub(crate) fn has(self, bug: Bug) -> bool {
        self.0 == Some(bug)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests ask what is planted")]
    pub(crate) const fn has(self, _: Bug) -> bool {
        false
    }
}
