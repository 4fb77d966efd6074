//! Mistakes that tests plant, to show that the simulation sees each of them. Outside of this crate's tests there are
//! none: the questions are constants there, and nothing of them is left.

/// A mistake that an engineer could make here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A publish is confirmed before it is on disk.
    ConfirmsUnstored,
    /// A message that comes back goes to the end.
    RequeuesLast,
    /// One may have more unacknowledged than its prefetch.
    IgnoresPrefetch,
    /// A second delivery looks like a first.
    HidesRedelivery,
    /// What a dead channel held is gone.
    DropsUnacked,
    /// An acknowledgement of several takes only one.
    AcksOne,
    /// A confirm of several covers one that is not done.
    ConfirmsAhead,
    /// A mandatory message without a queue vanishes.
    SwallowsReturn,
    /// A full queue takes one more and confirms it.
    NoRefusal,
    /// A channel that gave back its credit is not served again.
    ForgetsCredit,
    /// A word for a channel reaches the next one of its number.
    ForgetsLife,
    /// What is acknowledged stays on disk.
    ForgetsAck,
    /// A message is forgotten before its dead letter has its body.
    ForgetsFirst,
    /// A publish is confirmed when its message dies, before its letter is on disk.
    ConfirmsDead,
    /// A body leaves memory before it is on disk.
    UnloadsUnstored,
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
