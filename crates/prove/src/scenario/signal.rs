//! Ending a process that is not our child, and knowing when it is gone.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

/// A process, held so that its number cannot become another's.
pub(super) struct Victim(AsyncFd<OwnedFd>);

/// From the signal to the end.
pub(super) struct Death {
    pub(super) signalled: Instant,
    pub(super) gone: Instant,
}

impl Victim {
    /// Holds the process of that number. The caller then makes sure that the number still belongs
    /// to what it means.
    #[expect(
        deprecated,
        reason = "an `OwnedFd` names the same open file until it is dropped, and the replacement is unsafe"
    )]
    pub(super) fn hold(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self(AsyncFd::new(pidfd_open(pid, PidfdFlags::NONBLOCK)?)?))
    }

    /// Sends the signal.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(self.0.get_ref(), signal)?)
    }

    /// Sends the signal and waits for the end; `TimedOut` if the process lives on.
    pub(super) async fn end_by(self, signal: Signal, deadline: Duration) -> io::Result<Death> {
        let signalled = Instant::now();
        pidfd_send_signal(self.0.get_ref(), signal)?;
        // A pidfd becomes readable when its process has ended.
        let gone = tokio::time::timeout(deadline, self.0.readable()).await;
        gone.map_err(|_| io::ErrorKind::TimedOut)??.retain_ready();
        Ok(Death {
            signalled,
            gone: Instant::now(),
        })
    }
}
