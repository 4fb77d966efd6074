//! The one clock of the gateway: all workers count from the same start.

use std::time::{SystemTime, UNIX_EPOCH};

use mainstay_ids::{Instant, Timestamp};
use tokio::time;

/// Reads the time, as the runtime does: a test may stop and move it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: time::Instant,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Self {
        Self {
            start: time::Instant::now(),
        }
    }

    /// For decisions.
    pub(crate) fn now(self) -> Instant {
        Instant::from_start(self.start.elapsed())
    }

    /// When a decision's time comes, for the runtime.
    pub(crate) fn deadline(self, at: Instant) -> time::Instant {
        self.start + at.since_start()
    }

    /// A timer that is not set yet. It costs the runtime nothing before it is first waited for.
    pub(crate) fn alarm(self) -> time::Sleep {
        time::sleep_until(self.start)
    }
}

/// For people.
pub(crate) fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since.map_or(0, |since| since.as_millis());
    Timestamp(u64::try_from(ms).unwrap_or(u64::MAX))
}
