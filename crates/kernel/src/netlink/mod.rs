//! Netlink (RFC 3549; netlink(7)) as far as forwarding and floating addresses need it, encoded here
//! instead of by the programs `nft`, `ip`, `ss` and `conntrack`, whose start and parsing cost forty
//! times the change.
//!
//! Start reading at [`nft::Transaction`]: what is to be changed is put into it, and
//! [`nft::Transaction::commit`] changes all of it or nothing. [`route`] makes a range of addresses the
//! machine's own, [`diag`] knows TCP sockets, [`conntrack`] knows which connection was led where;
//! [`address`] puts an address on an interface, [`link`] knows interfaces, [`macvlan`] makes one with another hardware
//! address.

pub mod address;
mod attribute;

pub mod conntrack;
pub mod diag;
#[cfg(feature = "driven")]
pub mod driven;
pub mod link;
pub mod macvlan;
pub mod nft;
mod prefix;
mod request;
pub mod route;
mod socket;

#[cfg(test)]
mod tests;

pub use prefix::{Prefix, PrefixError};
pub use socket::Socket;
