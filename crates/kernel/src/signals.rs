//! Signals as something that a poll loop can wait for.
#![expect(
    unsafe_code,
    reason = "signal masks and signalfd have no safe interface"
)]

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

pub use rustix::process::Signal;

/// The signals that are blocked and read from a descriptor instead. They stay blocked when it is
/// dropped: a signal that came meanwhile must not end the process by surprise.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Blocks `signals` in this thread and makes them readable. For a process with one thread:
    /// another thread that does not block them would still be interrupted.
    pub fn block(signals: &[Signal]) -> io::Result<Self> {
        let set = set_of(signals);
        let (how, set) = (libc::SIG_BLOCK, &raw const set);
        // SAFETY: `set` is initialised and outlives the call; a null third argument is allowed.
        let result = unsafe { libc::pthread_sigmask(how, set, ptr::null_mut()) };
        if result != 0 {
            return Err(io::Error::from_raw_os_error(result));
        }
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: `set` is initialised and outlives the call; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, set, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was opened by the call above and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The number of the next signal that came; `None` if none did. Signals of one kind that came
    /// before this call are one.
    pub fn next(&self) -> io::Result<Option<i32>> {
        let mut event = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
        let len = mem::size_of::<libc::signalfd_siginfo>();
        // SAFETY: the buffer has `len` writable bytes, and every bit pattern is a valid value of
        // this structure of integers.
        let read = unsafe { libc::read(self.0.as_raw_fd(), event.as_mut_ptr().cast(), len) };
        if usize::try_from(read).is_ok_and(|read| read == len) {
            // SAFETY: zeroed at first and then filled by the kernel.
            let event = unsafe { event.assume_init() };
            return Ok(i32::try_from(event.ssi_signo).ok());
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        }
    }
}

/// Whether this process was started with `signal` ignored, as `nohup` does with SIGHUP.
pub fn is_ignored(signal: Signal) -> io::Result<bool> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let bit = u32::try_from(signal.as_raw() - 1).map_err(io::Error::other)?;
    Ok(mask >> bit & 1 == 1)
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Blocks all signals in this thread until it is dropped.
pub(crate) struct AllBlocked(libc::sigset_t);

impl AllBlocked {
    pub(crate) fn new() -> Self {
        let mut all = MaybeUninit::<libc::sigset_t>::zeroed();
        let mut before = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: both sets are writable and outlive the calls; neither call can fail with these
        // arguments (`pthread_sigmask(3)`: only for an unknown first argument).
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            Self(before.assume_init())
        }
    }
}

impl Drop for AllBlocked {
    fn drop(&mut self) {
        // SAFETY: the set was filled by the kernel in `new`.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}

fn set_of(signals: &[Signal]) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: `sigemptyset` initialises the set; `sigaddset` refuses numbers that are no signals.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), signal.as_raw());
        }
        set.assume_init()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_read_instead_of_ending_the_process() {
        // Its own thread, whose mask ends with it; `raise` sends to the calling thread.
        let seen = std::thread::spawn(|| {
            let signals = SignalFd::block(&[Signal::USR1]).unwrap();
            assert_eq!(signals.next().unwrap(), None);
            // SAFETY: sends a signal that this thread blocks.
            unsafe { libc::raise(libc::SIGUSR1) };
            (signals.next().unwrap(), signals.next().unwrap())
        });
        assert_eq!(seen.join().unwrap(), (Some(libc::SIGUSR1), None));
    }

    #[test]
    fn blocking_all_signals_ends_with_the_guard() {
        let mask = || {
            let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
            // SAFETY: only asks for the mask; `set` is writable.
            unsafe {
                libc::pthread_sigmask(libc::SIG_SETMASK, ptr::null(), set.as_mut_ptr());
                libc::sigismember(set.as_ptr(), libc::SIGTERM)
            }
        };
        let guard = AllBlocked::new();
        assert_eq!(mask(), 1);
        drop(guard);
        assert_eq!(mask(), 0);
    }
}
