//! What the holder leaves out, so that a proof that rests on it is seen to fail. A hidden option writes them:
//! `tracks=blind,farewell=unsaid`.

use std::str::FromStr;

use mainstay_model::seams::{self, SeamError, Word};

/// What is left out: by itself nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seams {
    /// Whether the death of what an address depends on counts.
    pub tracks: Tracks,
    /// Whether the agent's silence counts.
    pub agent: AgentSilence,
    /// Whether a gateway that takes over from another is followed.
    pub successor: Successor,
    /// How often adverts come.
    pub adverts: Adverts,
    /// Whether addresses die with their holder.
    pub lifetime: AddressLife,
    /// Whether the end of the process gives addresses away.
    pub farewell: Farewell,
}

/// Whether the death of what an address depends on counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tracks {
    /// It does.
    #[default]
    Heeded,
    /// All is taken to work.
    Blind,
}

/// Whether the agent's silence counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AgentSilence {
    /// It makes this node the last choice.
    #[default]
    Heeded,
    /// Nobody listens.
    Unheeded,
}

/// Whether a gateway that takes over from another is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Successor {
    /// At once.
    #[default]
    Followed,
    /// The one that leaves is a dead one.
    Unknown,
}

/// How often adverts come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Adverts {
    /// As it is written.
    #[default]
    AsWritten,
    /// Each second, as keepalived's do.
    EachSecond,
}

/// Whether addresses die with their holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressLife {
    /// Within seconds.
    #[default]
    Short,
    /// They stay.
    Endless,
}

/// Whether the end of the process gives addresses away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Farewell {
    /// To who is there, before it ends.
    #[default]
    Said,
    /// It ends without a word.
    Unsaid,
}

impl seams::Seams for Seams {
    const OF: &'static str = "floating addresses";
    const WORDS: &'static [Word<Self>] = &[
        ("tracks=blind", |seams| seams.tracks = Tracks::Blind),
        ("agent=unheeded", |seams| {
            seams.agent = AgentSilence::Unheeded;
        }),
        ("successor=unknown", |seams| {
            seams.successor = Successor::Unknown;
        }),
        ("adverts=each-second", |seams| {
            seams.adverts = Adverts::EachSecond;
        }),
        ("lifetime=endless", |seams| {
            seams.lifetime = AddressLife::Endless;
        }),
        ("farewell=unsaid", |seams| {
            seams.farewell = Farewell::Unsaid;
        }),
    ];
}

impl FromStr for Seams {
    type Err = SeamError;

    fn from_str(text: &str) -> Result<Self, SeamError> {
        seams::parse(text)
    }
}
