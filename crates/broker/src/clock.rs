//! What time it is.

use std::time::SystemTime;

use mainstay_amqp::Now;
use mainstay_ids::{Instant, Timestamp};

/// Counts from the broker's start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: tokio::time::Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            start: tokio::time::Instant::now(),
        }
    }

    pub(crate) fn now(self) -> Instant {
        Instant::from_start(self.start.elapsed())
    }

    /// With the time of people.
    pub(crate) fn times(self) -> Now {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let wall = since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        });
        Now {
            instant: self.now(),
            wall: Timestamp(wall),
        }
    }

    /// When a deadline comes; `None`: it does not.
    pub(crate) fn at(self, instant: Instant) -> Option<tokio::time::Instant> {
        (instant != Instant::NEVER).then(|| self.start + instant.since_start())
    }
}
