//! How long a message is to wait at an exchange that delays.

use core::time::Duration;

use crate::field::{Table, Value};
use crate::limits::DELAY_MAX_MS;

/// By how much a message is to be delayed, in milliseconds; negative once it was.
pub(crate) const X_DELAY: &str = "x-delay";

/// How long a message is to wait, if it is to wait at all: whole numbers, text and fractions are read as by the plugin.
pub(crate) fn delay(headers: Option<&Table>) -> Option<Duration> {
    let ms = delay_ms(headers?)?;
    let ms = u64::try_from(ms).ok()?;
    (1..=DELAY_MAX_MS)
        .contains(&ms)
        .then(|| Duration::from_millis(ms))
}

pub(crate) fn delay_ms(headers: &Table) -> Option<i64> {
    let value = headers.get(X_DELAY)?;
    match value {
        Value::String(digits) => core::str::from_utf8(digits).ok()?.parse().ok(),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "as the plugin does; what is too large is no delay"
        )]
        Value::Float(number) => Some(*number as i64),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "as the plugin does; what is too large is no delay"
        )]
        Value::Double(number) => Some(*number as i64),
        other => other.integer(),
    }
}
