//! The promises, each with a name, and what is said when one is broken.

use std::fmt;

/// What must always hold. The judge looks after each input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// Who was ready and is drained is not missed: as many as wanted stay ready, or as before.
    Serves,
    /// A drain leaves as many that pass their probes as wanted, or as there were.
    KeepsServing,
    /// No drain takes the last one that gets requests, whomever operators keep them from.
    LeavesOne,
    /// Nobody is told to stop whom a consumer alive can still reach, unless the drain time is over.
    StopsUnreached,
    /// No request is sent to one that was told to stop, unless the drain time is over.
    SendsToNoneStopped,
    /// The routes list exactly what was told of the instances that are to run.
    RoutesAreTrue,
    /// Ready means: told as passing for the minimum healthy time without a break.
    ReadyIsTrue,
    /// What is due at a time happens at that time, without another input.
    OnTime,
    /// No rollout fails for lateness before the healthy deadline.
    NotTooSoon,
    /// Every wait ends within what its deadlines allow, once mishaps and wishes have ended.
    Ends,
    /// No version is drained and started in turn, and none is rolled out twice without a wish.
    NoTurns,
    /// A failure leads back once, to another content, and a failed way back stays.
    OneWayBack,
    /// No more than `step` beyond the wanted number are kept, nor unready beside older ones.
    WithinStep,
    /// No instance is started twice, no number is used twice, none runs again after its end.
    NothingTwice,
    /// Generations, epochs and event numbers grow.
    Order,
    /// What was published was durable, and the snapshot says everything.
    Durable,
    /// After a restore nothing is decided before the agent has reported.
    WaitsForReport,
    /// A consumer's word counts for that incarnation alone, and only what it said.
    WordsOfTheirOwn,
    /// A drain that everybody acknowledged does not take its whole time.
    NoDrainInVain,
    /// At rest everything is as wanted.
    RestsAsWanted,
    /// At rest nothing changes any more.
    StaysAtRest,
    /// In a calm world a good version gets there.
    Arrives,
    /// Who needs others is started when one of each is ready.
    NeedsFirst,
    /// What runs to its end runs alone, and once: before a rollout, and per time of a schedule.
    OneAtATime,
    /// No more memory is promised than the node has.
    FitsTheNode,
    /// Nothing of a paused rollout is decided.
    PausedRests,
    /// The machine's own check of its state, in debug builds; or any other panic.
    OwnInvariant,
}

impl Promise {
    /// Its name, as a command prints it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Serves => "serves",
            Self::KeepsServing => "keeps-serving",
            Self::LeavesOne => "leaves-one",
            Self::StopsUnreached => "stops-unreached",
            Self::SendsToNoneStopped => "sends-to-none-stopped",
            Self::RoutesAreTrue => "routes-are-true",
            Self::ReadyIsTrue => "ready-is-true",
            Self::OnTime => "on-time",
            Self::NotTooSoon => "not-too-soon",
            Self::Ends => "ends",
            Self::NoTurns => "no-turns",
            Self::OneWayBack => "one-way-back",
            Self::WithinStep => "within-step",
            Self::NothingTwice => "nothing-twice",
            Self::Order => "order",
            Self::Durable => "durable",
            Self::WaitsForReport => "waits-for-report",
            Self::WordsOfTheirOwn => "words-of-their-own",
            Self::NoDrainInVain => "no-drain-in-vain",
            Self::RestsAsWanted => "rests-as-wanted",
            Self::StaysAtRest => "stays-at-rest",
            Self::Arrives => "arrives",
            Self::NeedsFirst => "needs-first",
            Self::OneAtATime => "one-at-a-time",
            Self::FitsTheNode => "fits-the-node",
            Self::PausedRests => "paused-rests",
            Self::OwnInvariant => "own-invariant",
        }
    }
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub promise: Promise,
    /// When, in milliseconds of the world's life.
    pub at_ms: u64,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.promise.name();
        write!(f, "{name} at {} ms: {}", self.at_ms, self.what)
    }
}
