//! Options of sockets that no crate which is used here has.
#![expect(unsafe_code, reason = "setsockopt with values of its own")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A value that is plain bytes: integers, and structures of them without padding.
pub(crate) trait Plain: Copy {}

impl Plain for libc::c_int {}
impl Plain for libc::ip_mreqn {}
impl Plain for libc::ipv6_mreq {}
impl Plain for [u32; 8] {}

/// Sets an option to a value.
pub(crate) fn set<T: Plain>(
    socket: BorrowedFd<'_>,
    (level, option): (libc::c_int, libc::c_int),
    value: &T,
) -> io::Result<()> {
    set_bytes(
        socket,
        (level, option),
        std::ptr::from_ref(value).cast(),
        size_of::<T>(),
    )
}

/// Binds a socket to an interface: packets of others neither come in nor go out.
pub(crate) fn bind_to_interface(socket: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let option = (libc::SOL_SOCKET, libc::SO_BINDTODEVICE);
    set_bytes(socket, option, name.as_ptr().cast(), name.len())
}

fn set_bytes(
    socket: BorrowedFd<'_>,
    (level, option): (libc::c_int, libc::c_int),
    value: *const libc::c_void,
    len: usize,
) -> io::Result<()> {
    let len = libc::socklen_t::try_from(len).map_err(io::Error::other)?;
    // SAFETY: both callers pass a reference's address and the size of what it refers to, which lives
    // until the call returns; the kernel only reads it.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, len) };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
