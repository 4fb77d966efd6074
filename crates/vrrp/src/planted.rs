//! Mistakes that tests plant, to show that the simulation sees each of them. Outside of this crate's tests there are
//! none: the questions are constants there, and nothing of them is left.

/// A mistake that an engineer could make here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// All backups wait equally long.
    NoSkew,
    /// One lost advert is enough.
    ImpatientDown,
    /// The master's interval is taken to be our own.
    OwnInterval,
    /// Who leaves is not heard.
    DeafToLeaving,
    /// Everybody takes over at once from who leaves.
    Greedy,
    /// A planned move removes the address before another one has it.
    ReleasesFirst,
    /// Who moved the address away takes it back.
    TakesBack,
    /// `Preempt::Never` preempts.
    AlwaysPreempts,
    /// Between equals both keep it.
    KeepsTies,
    /// Who gives way keeps the address.
    KeepsAddress,
    /// Who was paused goes on as if nothing was.
    SpeaksFirst,
    /// Who was paused takes the master for dead.
    JumpsUp,
    /// Who gives way after a split does so in silence.
    NoFarewell,
    /// A rival is not followed by announcements.
    NoAnnouncement,
    /// An unfit holder keeps its priority.
    UnfitKeeps,
    /// Two that are unfit hand the address to and fro.
    UnfitTakes,
    /// The driver's clock is believed when it goes backwards.
    BelievesClock,
    /// The holder speaks half as often as it says.
    SlowSpeaker,
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
