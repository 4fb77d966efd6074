//! Netlink (RFC 3549; netlink(7)) as far as forwarding needs it: transactions of nf_tables, encoded
//! here instead of by the program `nft`, whose start and parsing cost forty times the change.
//!
//! Start reading at [`nft::Transaction`]: what is to be changed is put into it, and
//! [`nft::Transaction::commit`] changes all of it or nothing.

mod attribute;
pub mod nft;
mod socket;

pub use socket::Socket;
