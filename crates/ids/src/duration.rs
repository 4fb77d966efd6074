//! Durations as people write them: `250ms`, `10s`, `1m30s`.

use alloc::string::{String, ToString};
use core::fmt::Write;
use core::time::Duration;

/// Why a text is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing was written.
    #[error("a duration must not be empty; write for instance `10s`")]
    Empty,
    /// A number stands without a unit.
    #[error("a duration needs a unit: ms, s, m, h or d, as in `10s`")]
    NoUnit,
    /// The unit is none of ours.
    #[error("a duration's unit is ms, s, m, h or d, as in `1m30s`")]
    Unit,
    /// Something else than a whole number stands before the unit.
    #[error("a duration is whole numbers with units, as in `1m30s` or `250ms`")]
    Number,
    /// The sum does not fit.
    #[error("a duration of more than 10 years is surely a mistake")]
    TooLong,
}

/// Ten years: more than any deadline here can mean.
const LONGEST_MS: u64 = 10 * 365 * 86_400_000;

/// Reads `1m30s`, `250ms`, `0s`. Units: `ms`, `s`, `m`, `h`, `d`.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    if text.is_empty() {
        return Err(DurationError::Empty);
    }
    let mut rest = text;
    let mut total_ms: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let unit_len = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        if number.is_empty() {
            return Err(DurationError::Number);
        }
        let unit_ms = match unit {
            "" if after.is_empty() => return Err(DurationError::NoUnit),
            "" => return Err(DurationError::Number),
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(DurationError::Unit),
        };
        let number: u64 = number.parse().map_err(|_| DurationError::TooLong)?;
        total_ms = number
            .checked_mul(unit_ms)
            .and_then(|ms| ms.checked_add(total_ms))
            .filter(|ms| *ms <= LONGEST_MS)
            .ok_or(DurationError::TooLong)?;
        rest = after;
    }
    Ok(Duration::from_millis(total_ms))
}

/// Writes a duration so that [`parse`] reads it back; below a millisecond it is cut off.
pub fn display(duration: Duration) -> String {
    let mut ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0s".to_string();
    }
    let mut text = String::new();
    for (unit, size) in [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ] {
        if ms >= size {
            write!(text, "{}{unit}", ms / size).expect("writing to a string cannot fail");
            ms %= size;
        }
    }
    text
}

/// For `#[serde(with = "mainstay_ids::duration::text")]`: a duration as its text.
pub mod text {
    use alloc::string::String;
    use core::time::Duration;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes the duration as [`super::display`] does.
    pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::display(*duration))
    }

    /// Reads what [`super::parse`] reads.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        super::parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }

    /// The same for a duration that there may be none of.
    pub mod optional {
        use alloc::string::String;
        use core::time::Duration;
        use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

        /// Writes the duration as [`crate::duration::display`] does, or nothing.
        pub fn serialize<S: Serializer>(
            duration: &Option<Duration>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            duration.map(crate::duration::display).serialize(to)
        }

        /// Reads what [`crate::duration::parse`] reads, or nothing.
        pub fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<Duration>, D::Error> {
            let text = Option::<String>::deserialize(from)?;
            let parsed = text.map(|text| crate::duration::parse(&text));
            parsed.transpose().map_err(D::Error::custom)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_read_back_as_it_was_written() {
        for text in ["0s", "250ms", "10s", "1m30s", "2h", "1d1ms"] {
            assert_eq!(parse(text).map(display).as_deref(), Ok(text));
        }
        assert_eq!(parse("90s").map(display).as_deref(), Ok("1m30s"));
    }

    #[test]
    fn what_is_not_a_duration_is_refused_with_its_reason() {
        let bad = [
            ("", DurationError::Empty),
            ("10", DurationError::NoUnit),
            ("10sec", DurationError::Unit),
            ("s", DurationError::Number),
            ("-1s", DurationError::Number),
            ("1.5s", DurationError::Number),
            ("1 s", DurationError::Number),
            ("99999999999999999999s", DurationError::TooLong),
            ("5000d", DurationError::TooLong),
        ];
        for (text, error) in bad {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }
}
