//! All that reads answers, for fuzzing.

use super::attribute::Attributes;
use super::socket::{HEADER_LEN, Messages};
use super::{conntrack, diag, nft, route};

/// Reads a datagram as each kind of answer that there is. Returns how many messages it had.
pub fn read_all(datagram: &[u8]) -> usize {
    let mut count = 0;
    for message in Messages::of(datagram) {
        count += 1;
        message.answer();
        message.done().ok();
        diag::Connection::read(message.body);
        conntrack::Flow::read(message.body);
        route::read_all(message.body);
        nft::read_all(message.body);
        let attributes = Attributes::of(message.body).count();
        assert!(attributes <= message.body.len(), "each takes some bytes");
    }
    assert!(count <= datagram.len() / HEADER_LEN, "each has its header");
    count
}
