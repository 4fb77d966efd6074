//! The clocks of this process.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mainstay_ids::{Instant, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// Time that goes on while the machine is suspended: whoever slept must know it before it speaks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Duration,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: read() }
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::from_start(read().saturating_sub(self.started))
    }
}

fn read() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos)
}

/// The time for people.
pub(crate) fn timestamp() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since.unwrap_or_default().as_millis();
    Timestamp(u64::try_from(ms).unwrap_or(u64::MAX))
}
