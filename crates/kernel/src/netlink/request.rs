//! One request to rtnetlink (rtnetlink(7)), and what comes back.

use std::io;

use super::attribute::Writer;
use super::socket::{HEADER_LEN, Socket};

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
    let message = message(kind, ACK | flags, write);
    let answers = socket.transact(message.as_bytes())?;
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
    let message = message(kind, DUMP, |out| out.raw(header));
    socket.dump(message.as_bytes(), each)
}

fn message(kind: u16, flags: u16, write: impl FnOnce(&mut Writer)) -> Writer {
    let mut out = Writer::default();
    out.raw(&[0; 4]);
    out.raw(&kind.to_ne_bytes());
    out.raw(&(REQUEST | flags).to_ne_bytes());
    // Sequence number and port: one request at a time, and the kernel knows who we are.
    out.raw(&[0; HEADER_LEN - 8]);
    write(&mut out);
    let len = u32::try_from(out.len()).expect("a request has some hundred bytes");
    out.overwrite(0, &len.to_ne_bytes());
    out
}
