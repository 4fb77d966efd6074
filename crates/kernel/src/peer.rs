//! Who is at the other end of a unix socket.
#![expect(
    unsafe_code,
    reason = "SO_PEERGROUPS has no safe interface in any crate that is used here"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `asm-generic/socket.h`, since Linux 4.13; the `libc` crate does not have it.
const SO_PEERGROUPS: libc::c_int = 59;

/// An account may be in so many groups (`NGROUPS_MAX`, `limits.h` of Linux).
const GROUPS_MAX: usize = 65_536;

/// The supplementary groups that the process at the other end had when it connected (`unix(7)`):
/// what the kernel enforced then, whatever `/etc/group` says.
pub fn groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    // Nearly every account fits at once; the kernel says how much it needs where one does not.
    let mut groups = vec![0_u32; 64];
    loop {
        let room = groups.len() * size_of::<u32>();
        let mut len = libc::socklen_t::try_from(room).map_err(io::Error::other)?;
        // SAFETY: the buffer has `len` writable bytes, any of which may become any value, and both
        // outlive the call.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        let found = usize::try_from(len).map_err(io::Error::other)? / size_of::<u32>();
        if result == 0 {
            groups.truncate(found);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        let too_small = error.raw_os_error() == Some(libc::ERANGE);
        if !too_small || found <= groups.len() || found > GROUPS_MAX {
            return Err(error);
        }
        groups.resize(found, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_groups_of_the_other_end_are_those_of_this_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        let mut found = groups(one.as_fd()).unwrap();
        let own = rustix::process::getgroups().unwrap();
        let mut own: Vec<u32> = own.iter().map(|group| group.as_raw()).collect();
        found.sort_unstable();
        own.sort_unstable();
        assert_eq!(found, own);
    }

    #[test]
    fn what_is_no_unix_socket_has_no_peer() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(groups(file.as_fd()).is_err());
    }
}
