//! The wall clock, for people.

use std::time::{SystemTime, UNIX_EPOCH};

use mainstay_ids::Timestamp;

/// The time of day.
pub(crate) fn now() -> Timestamp {
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
}
