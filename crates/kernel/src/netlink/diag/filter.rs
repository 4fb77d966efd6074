//! Which sockets the kernel tells of: a program for its small machine (`struct inet_diag_bc_op`,
//! include/uapi/linux/inet_diag.h), here always of one instruction.

use std::net::{IpAddr, SocketAddr};

use super::{End, IPV4, IPV6};

/// `INET_DIAG_BC_S_COND` and `_D_COND`: whether the local, or remote, end is such.
const IF_LOCAL: u8 = 7;
const IF_REMOTE: u8 = 8;
/// What an instruction takes without what follows it.
const INSTRUCTION_LEN: usize = 4;
/// A jump behind the end by this refuses; to the end, accepts.
const REFUSED: usize = 4;

/// The families of sockets that can have such an end. One of IPv6 can have both ends of IPv4.
pub(super) fn families(end: End) -> &'static [u8] {
    let address = match end {
        End::Local(end) | End::Remote(end) => end.ip(),
    };
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_unspecified() => &[IPV6],
        IpAddr::V4(_) | IpAddr::V6(_) => &[IPV4, IPV6],
    }
}

pub(super) fn bytecode(end: End) -> Vec<u8> {
    let (code, end) = match end {
        End::Local(end) => (IF_LOCAL, end),
        End::Remote(end) => (IF_REMOTE, end),
    };
    let condition = condition(end);
    let len = INSTRUCTION_LEN + condition.len();
    let short = |len: usize| u16::try_from(len).expect("an instruction is at most 28 bytes");
    let mut bytes = vec![code, short(len).to_le_bytes()[0]];
    bytes.extend_from_slice(&short(len + REFUSED).to_ne_bytes());
    bytes.extend_from_slice(&condition);
    bytes
}

/// `struct inet_diag_hostcond`: family, length of the prefix, port, address.
fn condition(end: SocketAddr) -> Vec<u8> {
    let (family, address) = match end.ip().to_canonical() {
        address if address.is_unspecified() => (0, Vec::new()),
        IpAddr::V4(address) => (IPV4, address.octets().to_vec()),
        IpAddr::V6(address) => (IPV6, address.octets().to_vec()),
    };
    let bits = u8::try_from(address.len() * 8).expect("an address has at most 128 bits");
    let mut bytes = vec![family, bits, 0, 0];
    bytes.extend_from_slice(&i32::from(end.port()).to_ne_bytes());
    bytes.extend_from_slice(&address);
    bytes
}
