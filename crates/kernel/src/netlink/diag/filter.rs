//! Which sockets the kernel tells of: a program for its small machine (`struct inet_diag_bc_op`,
//! include/uapi/linux/inet_diag.h), which here asks for one end after the other.

use std::net::IpAddr;

use super::{End, IPV4, IPV6};

/// Ends that one program asks for. The kernel checks it in a time that grows with the square of its
/// length, and runs it for each socket: 128 are 0.1 ms, and some microseconds for each socket.
pub(super) const ENDS_MAX: usize = 128;
/// `INET_DIAG_BC_JMP`.
const JUMP: u8 = 1;
/// `INET_DIAG_BC_S_COND` and `_D_COND`: whether the local, or remote, end is such.
const IF_LOCAL: u8 = 7;
const IF_REMOTE: u8 = 8;
/// What an instruction takes without what follows it.
const INSTRUCTION_LEN: usize = 4;
/// A jump behind the end by this refuses; to the end, accepts.
const REFUSED: usize = 4;

/// The program for sockets of this family, `None` if none of them can have one of these ends. Sockets of
/// IPv6 can have both ends of IPv4. No more than [`ENDS_MAX`].
pub(super) fn bytecode(family: u8, ends: &[End]) -> Option<Vec<u8>> {
    let mut steps: Vec<Vec<u8>> = ends
        .iter()
        .filter(|end| family == IPV6 || can_be_ipv4(end.address().ip()))
        .map(|end| condition(*end))
        .collect();
    // From the last one on, since each must know how far it is to the end.
    let mut program = steps.pop()?;
    let len = program.len();
    set_otherwise(&mut program, len + REFUSED);
    for mut step in steps.into_iter().rev() {
        let len = step.len();
        set_otherwise(&mut step, len + INSTRUCTION_LEN);
        let mut accept = vec![JUMP, short(INSTRUCTION_LEN).to_le_bytes()[0], 0, 0];
        set_otherwise(&mut accept, INSTRUCTION_LEN + program.len());
        program = [step, accept, program].concat();
    }
    Some(program)
}

fn can_be_ipv4(address: IpAddr) -> bool {
    address.is_unspecified() || address.to_canonical().is_ipv4()
}

/// Where to go on if the condition does not hold; a jump's never does.
fn set_otherwise(instruction: &mut [u8], distance: usize) {
    instruction[2..4].copy_from_slice(&short(distance).to_ne_bytes());
}

fn short(len: usize) -> u16 {
    u16::try_from(len).expect("a program is at most 128 times 32 bytes")
}

/// The instruction with `struct inet_diag_hostcond`: family, length of the prefix, port, address.
fn condition(end: End) -> Vec<u8> {
    let code = match end {
        End::Local(_) => IF_LOCAL,
        End::Remote(_) => IF_REMOTE,
    };
    let address = end.address();
    let port = address.port();
    let (family, address) = match address.ip().to_canonical() {
        address if address.is_unspecified() => (0, Vec::new()),
        IpAddr::V4(address) => (IPV4, address.octets().to_vec()),
        IpAddr::V6(address) => (IPV6, address.octets().to_vec()),
    };
    let bits = u8::try_from(address.len() * 8).expect("an address has at most 128 bits");
    let len = INSTRUCTION_LEN + 8 + address.len();
    let mut bytes = vec![code, short(len).to_le_bytes()[0], 0, 0];
    bytes.extend_from_slice(&[family, bits, 0, 0]);
    bytes.extend_from_slice(&i32::from(port).to_ne_bytes());
    bytes.extend_from_slice(&address);
    bytes
}
