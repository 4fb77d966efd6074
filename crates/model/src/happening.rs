//! What happens on a node beside its instances: to its floating addresses, and to forwarding. Each of its processes
//! writes down what happens to it, numbered; the agent reports the latest of all, and the control centre makes events of
//! those that it has not seen.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use mainstay_ids::{Timestamp, VipName};

use crate::forward::BackEndKind;

/// How many of each source are reported: a control centre that is away for longer than these many learns that there
/// were others, and how many. A report has some kilobytes of them at most.
pub const REPORTED_MAX: usize = 32;

/// The longest text of a happening, in bytes. What is longer is cut.
pub const TEXT_LEN_MAX: usize = 200;

/// Who writes down.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Who holds the floating addresses.
    Vip,
    /// The agent.
    Agent,
}

impl Source {
    /// Where it writes down, in the state directory: a file of numbered lines, each a [`Line`].
    pub fn record(self) -> &'static str {
        match self {
            Self::Vip => "vip/happened",
            Self::Agent => "agent/happened",
        }
    }
}

/// What is written down of one, beside its number.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Line {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: Happening,
}

/// The latest of one source.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Happenings {
    /// Whose.
    pub source: Source,
    /// What tells these numbers from those of a record that was lost.
    pub since: u64,
    /// In their order, [`REPORTED_MAX`] at most.
    pub latest: Vec<Happened>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Happened {
    /// Its number; it grows by one.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: Happening,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "happening")]
#[expect(
    missing_docs,
    reason = "each variant's sentence says what its fields are"
)]
pub enum Happening {
    /// The node holds a floating address from now on; `from` is who did before, if one was heard.
    AddressTaken {
        vip: VipName,
        why: String,
        from: Option<IpAddr>,
    },
    /// The node held a floating address and does not any more; `to` is who has it, if one was heard.
    AddressGivenUp {
        vip: VipName,
        why: String,
        to: Option<IpAddr>,
    },
    /// The node watches who holds a floating address, and would take it.
    AddressWatched { vip: VipName, why: String },
    /// The node takes no part in holding a floating address.
    AddressIdle { vip: VipName, why: String },
    /// Another machine held the address at the same time: the network was split between them.
    SplitSeen { vip: VipName, peer: IpAddr },
    /// It does not any more.
    SplitHealed { vip: VipName, peer: IpAddr },
    /// The table of tracked connections is nearly full: when it is, what would begin a connection is dropped.
    ConnectionsFilling { entries: u64, entries_max: u64 },
    /// It has room again.
    ConnectionsRelaxed { entries: u64, entries_max: u64 },
    /// Somebody changed the rules of forwarding, and they are as they were; so often since it was told last.
    RulesRepaired { found: String, times: u64 },
    /// Connections are forwarded by another back end than before, or not by the best; why by none of the better ones.
    ForwardedBy {
        back_end: BackEndKind,
        before: Option<BackEndKind>,
        refused: Vec<String>,
    },
}

/// As much of a text as is kept, cut between characters.
pub fn cut(text: &str) -> String {
    if text.len() <= TEXT_LEN_MAX {
        return String::from(text);
    }
    let mut end = TEXT_LEN_MAX - "...".len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    alloc::format!("{}...", &text[..end])
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddressTaken { vip, why, from } => {
                write!(f, "{vip} is held here: {why}")?;
                peer(f, "; before by", *from)
            }
            Self::AddressGivenUp { vip, why, to } => {
                write!(f, "{vip} is not held here any more: {why}")?;
                peer(f, "; now by", *to)
            }
            Self::AddressWatched { vip, why } => write!(f, "{vip} is watched: {why}"),
            Self::AddressIdle { vip, why } => write!(f, "no part is taken in {vip}: {why}"),
            Self::SplitSeen { vip, peer } => write!(
                f,
                "{peer} held {vip}, too: the network was split, or is heard one way only; it is told who is better"
            ),
            Self::SplitHealed { vip, peer } => {
                write!(
                    f,
                    "{peer} does not hold {vip} any more: there is one holder"
                )
            }
            Self::ConnectionsFilling {
                entries,
                entries_max,
            } => write!(
                f,
                "the table of connections is nearly full: {entries} of {entries_max}; give it more room by \
                 net.netfilter.nf_conntrack_max"
            ),
            Self::ConnectionsRelaxed {
                entries,
                entries_max,
            } => write!(
                f,
                "the table of connections has room again: {entries} of {entries_max}"
            ),
            Self::RulesRepaired { found, times: 1 } => write!(
                f,
                "somebody changed the rules of forwarding, which are as they were: {found}"
            ),
            Self::RulesRepaired { found, times } => write!(
                f,
                "somebody changed the rules of forwarding {times} times, and they are as they were: {found}"
            ),
            Self::ForwardedBy { .. } => self.write_back_end(f),
        }
    }
}

impl Happening {
    fn write_back_end(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::ForwardedBy {
            back_end,
            before,
            refused,
        } = self
        else {
            return Ok(());
        };
        write!(f, "connections are forwarded by {back_end}")?;
        if let Some(before) = before {
            write!(f, " instead of {before}")?;
        }
        match refused.split_first() {
            Some((first, [])) => write!(f, ": {first}"),
            Some((first, others)) => write!(f, ": {first}; {}", others.join("; ")),
            None => Ok(()),
        }
    }
}

fn peer(f: &mut fmt::Formatter<'_>, how: &str, peer: Option<IpAddr>) -> fmt::Result {
    match peer {
        Some(peer) => write!(f, "{how} {peer}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned as _;
    use alloc::string::ToString as _;

    #[test]
    fn a_happening_says_itself_in_words() {
        let vip = VipName::parse("entry").unwrap();
        let taken = |from: Option<&str>| {
            let happening = Happening::AddressTaken {
                vip: vip.clone(),
                why: "the master was not heard any more".to_owned(),
                from: from.map(|from| from.parse().unwrap()),
            };
            happening.to_string()
        };
        assert_eq!(
            taken(Some("10.0.0.2")),
            "entry is held here: the master was not heard any more; before by 10.0.0.2"
        );
        assert!(taken(None).ends_with("not heard any more"));
        let fallen = Happening::ForwardedBy {
            back_end: BackEndKind::Userspace,
            before: Some(BackEndKind::Nft),
            refused: ["a", "b"].map(str::to_owned).to_vec(),
        };
        assert_eq!(
            fallen.to_string(),
            "connections are forwarded by userspace instead of nft: a; b"
        );
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "ä".repeat(TEXT_LEN_MAX);
        let kept = cut(&long);
        assert!(
            kept.len() <= TEXT_LEN_MAX && kept.ends_with("ä..."),
            "{kept}"
        );
    }
}
