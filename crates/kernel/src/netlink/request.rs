//! One request to rtnetlink (rtnetlink(7)), and what comes back.

use std::io;

use super::attribute::Writer;
use super::socket::{Socket, message};

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
/// What is there already is changed (`NLM_F_REPLACE`).
pub(super) const REPLACE: u16 = 0x100;
/// What is not there is made (`NLM_F_CREATE`).
pub(super) const CREATE: u16 = 0x400;
/// All that there are (`NLM_F_ROOT | NLM_F_MATCH`).
const DUMP: u16 = 0x300;

/// Has the kernel do one thing. The error is the kernel's.
pub(super) fn ask(
    socket: &Socket,
    kind: u16,
    flags: u16,
    write: impl FnOnce(&mut Writer),
) -> io::Result<()> {
    let mut out = Writer::default();
    message(&mut out, kind, (REQUEST | ACK | flags, 0), write);
    let answers = socket.transact(out.as_bytes())?;
    match answers.first().map(|answer| answer.errno) {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Asks for all of a kind, and hands the body of each message on.
pub(super) fn list(
    socket: &Socket,
    kind: u16,
    header: &[u8],
    each: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut out = Writer::default();
    message(&mut out, kind, (REQUEST | DUMP, 0), |out| out.raw(header));
    socket.dump(out.as_bytes(), each)
}
