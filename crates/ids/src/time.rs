//! Time as a value: an argument to every decision, never read by one.

use core::fmt;
use core::time::Duration;

/// Nanoseconds since the driver's start, from a clock that never goes backwards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The driver's start.
    pub const START: Self = Self(0);

    /// A time that does not come.
    pub const NEVER: Self = Self(u64::MAX);

    /// The instant `since_start` after the driver's start.
    pub fn from_start(since_start: Duration) -> Self {
        Self(u64::try_from(since_start.as_nanos()).unwrap_or(u64::MAX))
    }

    /// The instant `later` after this one.
    #[must_use]
    pub fn after(self, later: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(later.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The time since the driver's start.
    pub fn since_start(self) -> Duration {
        Duration::from_nanos(self.0)
    }
}

/// Milliseconds since 1970-01-01 UTC: for people and records, never for a decision.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Reads what [`fmt::Display`] writes; `None` for everything else.
    pub fn parse(text: &str) -> Option<Self> {
        const FORM: &[u8] = b"0000-00-00T00:00:00.000Z";
        let fits = |(found, form): (u8, &u8)| match form {
            b'0' => found.is_ascii_digit(),
            other => found == *other,
        };
        if text.len() != FORM.len() || !text.bytes().zip(FORM).all(fits) {
            return None;
        }
        let number = |part: core::ops::Range<usize>| text[part].parse::<u64>().ok();
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        let (hour, minute) = (number(11..13)?, number(14..16)?);
        let (second, ms) = (number(17..19)?, number(20..23)?);
        // Counted up from the year's first day: a date that does not exist is not found.
        let first = (year.checked_sub(1970)? * 365) + leap_days_before(year);
        let days =
            (first..first + 366).find(|days| civil_from_days(*days) == (year, month, day))?;
        let of_day = ((hour * 60 + minute) * 60 + second) * 1000 + ms;
        (hour < 24 && minute < 60 && second < 60).then(|| Self(days * 86_400_000 + of_day))
    }

    /// The time of day in UTC, for a line that stands among others of the same day:
    /// `09:30:00.250`.
    pub fn of_day(self) -> impl fmt::Display {
        OfDay(self)
    }
}

struct OfDay(Timestamp);

impl fmt::Display for OfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.0 % 86_400_000;
        let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
        write!(f, "{hour:02}:{minute:02}:{second:02}.{:03}", ms % 1000)
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds: `2026-03-01T09:30:00.250Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, ms_of_day) = (self.0 / 86_400_000, self.0 % 86_400_000);
        let (year, month, day) = civil_from_days(days);
        let (hour, minute) = (ms_of_day / 3_600_000, ms_of_day / 60_000 % 60);
        let (second, ms) = (ms_of_day / 1000 % 60, ms_of_day % 1000);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"
        )
    }
}

/// The leap days from 1970 to the end of the year before `year`.
fn leap_days_before(year: u64) -> u64 {
    let up_to = |year: u64| year / 4 - year / 100 + year / 400;
    up_to(year - 1) - up_to(1969)
}

/// Days since 1970-01-01 as year, month, day of the Gregorian calendar, after Howard Hinnant's
/// `civil_from_days` (<https://howardhinnant.github.io/date_algorithms.html>), for days >= 0.
pub fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_timestamp_is_read_as_it_is_written_and_nothing_else_is() {
        for ms in (0..u64::from(u32::MAX) * 1000).step_by(86_400_000 * 17 + 12_345) {
            let at = Timestamp(ms);
            assert_eq!(Timestamp::parse(&at.to_string()), Some(at));
        }
        for wrong in [
            "",
            "2026-02-29T00:00:00.000Z",
            "2026-13-01T00:00:00.000Z",
            "2026-01-01T24:00:00.000Z",
            "2026-01-01T00:00:00.000z",
            "1969-12-31T00:00:00.000Z",
            "2026-01-01T00:00:00.0000",
            "\u{e9}026-01-01T00:00:00.00Z",
        ] {
            assert_eq!(Timestamp::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_timestamp_reads_as_rfc_3339() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            Timestamp(951_782_400_001).to_string(),
            "2000-02-29T00:00:00.001Z"
        );
        assert_eq!(
            Timestamp(1_772_357_400_250).to_string(),
            "2026-03-01T09:30:00.250Z"
        );
    }

    #[test]
    fn an_instant_never_runs_over() {
        let end = Instant::START.after(Duration::MAX);
        assert_eq!(end.after(Duration::from_secs(1)), end);
        assert_eq!(Instant::START.since(end), Duration::ZERO);
    }
}
