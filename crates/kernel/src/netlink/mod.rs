//! Netlink (RFC 3549; netlink(7)) as far as forwarding and floating addresses need it: transactions
//! of nf_tables, encoded here instead of by the program `nft`, whose start and parsing cost forty
//! times the change; addresses, and the interfaces that bear them.
//!
//! Start reading at [`nft::Transaction`]: what is to be changed is put into it, and
//! [`nft::Transaction::commit`] changes all of it or nothing. Then [`address`] and [`link`].

pub mod address;
mod attribute;
pub mod link;
pub mod nft;
mod request;
mod socket;

pub use socket::Socket;
