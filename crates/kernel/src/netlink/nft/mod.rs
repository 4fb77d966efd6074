//! Transactions of nf_tables (include/uapi/linux/netfilter/nf_tables.h): tables, chains, rules, sets,
//! maps and their elements.
//!
//! Numbers of messages, attributes and expressions are the kernel's; those that are not used are not
//! here. Each part is checked against the program `nft`: it must understand what we wrote as what it
//! writes itself.

mod dump;
mod expression;
mod hooked;
mod listing;
mod notices;
mod set;
mod transaction;

#[cfg(test)]
mod tests;

pub use dump::Dumped;
pub use expression::{
    Base, Comparison, ConntrackKey, Expression, MetaKey, Register, Rejection, Verdict,
};
pub use hooked::Hooked;
pub use listing::{Generation, Listing};
pub use notices::Notices;
pub use set::{Dynamic, Element, Fields, Key, Kind, Mapped, Set, Values};
pub use transaction::{Chain, Hook, Policy, Transaction, TransactionError};

/// Reads an answer as each kind that there is, for fuzzing.
#[cfg(feature = "driven")]
pub(super) fn read_all(body: &[u8]) {
    dump::elements(body).for_each(drop);
}

/// The longest name that the kernel takes (`NFT_NAME_MAXLEN`, with the zero at the end).
const NAME_LEN_MAX: usize = 255;

/// Which packets a table sees (`NFPROTO_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// ARP.
    Arp,
}

impl Family {
    fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ipv4 => 2,
            Self::Ipv6 => 10,
            Self::Arp => 3,
        }
    }
}

/// The name of a table, chain, set or map.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<str>);

/// What cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot name something of nf_tables: expected 1 to {NAME_LEN_MAX} letters, digits, `_`, `-` or `.`"
)]
pub struct NameError(String);

impl Name {
    /// Checks a name. Only such are taken as `nft` can write without quotes.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if (1..=NAME_LEN_MAX).contains(&text.len()) && text.bytes().all(is_letter) {
            Ok(Self(text.into()))
        } else {
            Err(NameError(text.to_owned()))
        }
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
