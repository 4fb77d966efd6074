//! Waking at a planned time. tokio's timer rounds up to whole milliseconds, which is as long as a
//! good answer of the system under test takes; the kernel's timer does not.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// The finest step: each wake costs three system calls, and requests that are planned within one
/// step go out together, late by less than it.
const STEP_MIN: Duration = Duration::from_micros(200);

/// A timer of the kernel.
pub(super) struct Pacer(AsyncFd<OwnedFd>);

impl Pacer {
    /// Must be called inside the runtime that will wait on it.
    #[expect(
        deprecated,
        reason = "an `OwnedFd` names the same open file until it is dropped, and the replacement is unsafe"
    )]
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self(AsyncFd::new(timerfd_create(
            TimerfdClockId::Monotonic,
            flags,
        )?)?))
    }

    /// Returns at `when`, or one step from now if that is later.
    pub(super) async fn wait_until(&self, when: Instant) -> io::Result<()> {
        let wait = when.saturating_duration_since(Instant::now()).max(STEP_MIN);
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let once = Itimerspec {
            it_interval: zero,
            it_value: value,
        };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut [0; 8])?));
            match read {
                Ok(result) => return result.map(drop),
                Err(_would_block) => {}
            }
        }
    }
}
