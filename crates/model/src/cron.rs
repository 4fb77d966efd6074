//! Times that repeat, as crontab(5) writes them: five fields of minute, hour, day of the month,
//! month and day of the week, in UTC.
//!
//! A field is `*`, a number, a range `a-b`, either with a step `/n`, or several of these with commas
//! between them. Months and days of the week have their English names of three letters; Sunday is 0
//! and 7. As in crontab(5), where both the day of the month and that of the week are restricted,
//! either is enough.

use alloc::string::{String, ToString};
use core::fmt;
use core::ops::RangeInclusive;

use mainstay_ids::Timestamp;
use mainstay_ids::time::civil_from_days;

/// The longest text that is read: each field may name every value.
const TEXT_LEN_MAX: usize = 512;

/// How many days are looked through for the next time. The 29th of February on a given day of the
/// week comes within 40 years; what does not come within this never does.
const DAYS_SEARCHED: u64 = 41 * 366;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A checked schedule: there is always a next time.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct Cron {
    text: String,
    /// Each is a set of bits.
    minutes: u64,
    hours: u64,
    days: Days,
    months: u64,
}

/// Which days of an allowed month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Days {
    /// All.
    Every,
    OfMonth(u64),
    OfWeek(u64),
    Either {
        month: u64,
        week: u64,
    },
}

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// There are more or fewer fields.
    #[error(
        "a schedule has five fields (minute, hour, day of month, month, day of week), as in \
         `30 3 * * mon-fri`; found {found}"
    )]
    Fields {
        /// How many there are.
        found: usize,
    },
    /// It is longer than any schedule needs to be.
    #[error("a schedule has at most {TEXT_LEN_MAX} characters")]
    Long,
    /// A part of a field is none of the forms.
    #[error("`{part}` is no {field}: expected `*`, a number, `a-b`, or either with `/step`")]
    Form {
        /// Which field.
        field: &'static str,
        /// What stands there.
        part: String,
    },
    /// A number is outside of its field's range.
    #[error("{field} is from {low} to {high}; found `{part}`")]
    Range {
        /// Which field.
        field: &'static str,
        /// The least.
        low: u32,
        /// The greatest.
        high: u32,
        /// What stands there.
        part: String,
    },
    /// No day is like that.
    #[error("no day is ever like that, as the 30th of February")]
    Never,
}

/// One of the five fields.
struct Field {
    name: &'static str,
    range: RangeInclusive<u32>,
    names: &'static [&'static str],
    /// The value of the first name.
    first_name: u32,
}

const FIELDS: [Field; 5] = [
    Field {
        name: "minute",
        range: 0..=59,
        names: &[],
        first_name: 0,
    },
    Field {
        name: "hour",
        range: 0..=23,
        names: &[],
        first_name: 0,
    },
    Field {
        name: "day of the month",
        range: 1..=31,
        names: &[],
        first_name: 0,
    },
    Field {
        name: "month",
        range: 1..=12,
        names: &MONTHS,
        first_name: 1,
    },
    Field {
        name: "day of the week",
        range: 0..=7,
        names: &WEEKDAYS,
        first_name: 0,
    },
];

impl Field {
    fn read(&self, text: &str) -> Result<u64, CronError> {
        let mut set = 0;
        for part in text.split(',') {
            set |= self.read_part(part)?;
        }
        Ok(set)
    }

    fn read_part(&self, part: &str) -> Result<u64, CronError> {
        let form = || CronError::Form {
            field: self.name,
            part: part.to_string(),
        };
        let (span, step) = match part.split_once('/') {
            None => (part, None),
            Some((span, step)) => {
                let step: u32 = number(step).ok_or_else(form)?;
                if step == 0 {
                    return Err(form());
                }
                (span, Some(step))
            }
        };
        let (from, to) = match (span, span.split_once('-')) {
            ("*", _) => (*self.range.start(), *self.range.end()),
            (_, Some((from, to))) => (self.value(from, part)?, self.value(to, part)?),
            // `5/10` begins at 5 and goes on to the end, as in most programs that read crontabs.
            (_, None) => {
                let from = self.value(span, part)?;
                (from, step.map_or(from, |_| *self.range.end()))
            }
        };
        if from > to {
            return Err(form());
        }
        let values = (from..=to).step_by(usize::try_from(step.unwrap_or(1)).unwrap_or(usize::MAX));
        Ok(values.fold(0, |set, value| set | 1 << value))
    }

    fn value(&self, text: &str, part: &str) -> Result<u32, CronError> {
        let named = self
            .names
            .iter()
            .zip(self.first_name..)
            .find(|(name, _)| text.eq_ignore_ascii_case(name));
        if let Some((_, value)) = named {
            return Ok(value);
        }
        let value = number(text).ok_or_else(|| CronError::Form {
            field: self.name,
            part: part.to_string(),
        })?;
        if self.range.contains(&value) {
            return Ok(value);
        }
        Err(CronError::Range {
            field: self.name,
            low: *self.range.start(),
            high: *self.range.end(),
            part: part.to_string(),
        })
    }
}

/// Digits only: `+5` is a number to Rust and to nobody else.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

impl Cron {
    /// Reads `30 3 * * mon-fri`.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        if text.len() > TEXT_LEN_MAX {
            return Err(CronError::Long);
        }
        let found = text.split_ascii_whitespace().count();
        let mut sets = [0; 5];
        if found != sets.len() {
            return Err(CronError::Fields { found });
        }
        for ((set, field), written) in sets
            .iter_mut()
            .zip(&FIELDS)
            .zip(text.split_ascii_whitespace())
        {
            *set = field.read(written)?;
        }
        let [minutes, hours, of_month, months, week] = sets;
        // Sunday is 0 and 7.
        let of_week = (week | week >> 7) & 0x7f;
        let every_of_month = of_month == (1 << 32) - 2;
        let every_of_week = of_week == 0x7f;
        let days = match (every_of_month, every_of_week) {
            (true, true) => Days::Every,
            (true, false) => Days::OfWeek(of_week),
            (false, true) => Days::OfMonth(of_month),
            (false, false) => Days::Either {
                month: of_month,
                week: of_week,
            },
        };
        let cron = Self {
            text: text.to_string(),
            minutes,
            hours,
            days,
            months,
        };
        match cron.next_after(Timestamp(0)) {
            Some(_) => Ok(cron),
            None => Err(CronError::Never),
        }
    }

    /// The first time after `after`, a whole minute. `None` only for times beyond all calendars.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let first_minute = after.0.checked_add(MINUTE_MS)? / MINUTE_MS;
        let first_day = first_minute * MINUTE_MS / DAY_MS;
        let mut from = first_minute % (DAY_MS / MINUTE_MS);
        for day in first_day..first_day.checked_add(DAYS_SEARCHED)? {
            if self.has_day(day)
                && let Some(minute) = self.minute_from(from)
            {
                let at = day.checked_mul(DAY_MS)?.checked_add(minute * MINUTE_MS)?;
                return Some(Timestamp(at));
            }
            from = 0;
        }
        None
    }

    /// The first minute of a day, from `from` on.
    fn minute_from(&self, from: u64) -> Option<u64> {
        (from..DAY_MS / MINUTE_MS).find(|minute| {
            self.hours & 1 << (minute / 60) != 0 && self.minutes & 1 << (minute % 60) != 0
        })
    }

    /// Whether a day, counted from 1 January 1970, is one of ours.
    fn has_day(&self, day: u64) -> bool {
        let (_, month, of_month) = civil_from_days(day);
        if self.months & 1 << month == 0 {
            return false;
        }
        // 1 January 1970 was a Thursday.
        let of_week = (day + 4) % 7;
        let in_month = |set: u64| set & 1 << of_month != 0;
        let in_week = |set: u64| set & 1 << of_week != 0;
        match self.days {
            Days::Every => true,
            Days::OfMonth(set) => in_month(set),
            Days::OfWeek(set) => in_week(set),
            Days::Either { month, week } => in_month(month) || in_week(week),
        }
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Cron {
    type Error = CronError;

    fn try_from(text: String) -> Result<Self, CronError> {
        Self::parse(&text)
    }
}

impl From<Cron> for String {
    fn from(cron: Cron) -> Self {
        cron.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-27, a Friday, at 12:34:56 UTC.
    const NOW: Timestamp = Timestamp(1_795_782_896_000);

    fn next(cron: &str, after: Timestamp) -> String {
        let cron = Cron::parse(cron).expect("a schedule");
        cron.next_after(after).expect("a time").to_string()
    }

    #[test]
    fn the_next_time_is_the_first_that_all_fields_allow() {
        for (cron, expected) in [
            ("* * * * *", "2026-11-27T12:35:00"),
            ("34 12 * * *", "2026-11-28T12:34:00"),
            ("*/15 * * * *", "2026-11-27T12:45:00"),
            ("50/5 * * * *", "2026-11-27T12:50:00"),
            ("30 3 * * mon-fri", "2026-11-30T03:30:00"),
            ("0 0 1 jan *", "2027-01-01T00:00:00"),
            ("0 0 29 2 *", "2028-02-29T00:00:00"),
            ("0 0 * * 7", "2026-11-29T00:00:00"),
            ("0 0 * * SUN", "2026-11-29T00:00:00"),
            // Either the 13th or a Friday, as crontab(5) has it.
            ("0 0 13 * fri", "2026-12-04T00:00:00"),
            ("0 0 1-7/6,30 * *", "2026-11-30T00:00:00"),
        ] {
            let found = next(cron, NOW);
            assert!(found.starts_with(expected), "{cron}: {found}");
        }
    }

    #[test]
    fn a_time_is_after_the_one_before_and_never_the_same() {
        let cron = Cron::parse("7,38 */5 * * *").expect("a schedule");
        let mut at = NOW;
        for _ in 0..200 {
            let next = cron.next_after(at).expect("a time");
            assert!(next > at && next.0.is_multiple_of(MINUTE_MS));
            at = next;
        }
        assert_eq!(cron.next_after(Timestamp(u64::MAX)), None);
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_its_place() {
        for (text, word) in [
            ("", "found 0"),
            ("* * * *", "found 4"),
            ("60 * * * *", "minute is from 0 to 59"),
            ("* 24 * * *", "hour"),
            ("* * 0 * *", "day of the month"),
            ("* * * 13 *", "month"),
            ("* * * * 8", "day of the week"),
            ("* * * foo *", "`foo` is no month"),
            ("*/0 * * * *", "`*/0`"),
            ("5-1 * * * *", "`5-1`"),
            ("+5 * * * *", "`+5`"),
            (", * * * *", "minute"),
            ("0 0 30 2 *", "30th of February"),
        ] {
            let error = Cron::parse(text).expect_err(text).to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
        assert_eq!(Cron::parse(&"1,".repeat(300)), Err(CronError::Long));
    }
}
