//! The small values that an advert is made of, each of which can only be legal.

use core::fmt;
use core::num::NonZeroU8;
use core::time::Duration;

/// Which VRRP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// RFC 3768: IPv4, whole seconds.
    V2,
    /// RFC 9568: IPv4 and IPv6, hundredths of a second.
    V3,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V2 => "version 2",
            Self::V3 => "version 3",
        })
    }
}

/// The number of a virtual router on its link, 1 to 255.
pub type Vrid = NonZeroU8;

/// Who is preferred, 1 to 254 for most; greater is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(pub u8);

impl Priority {
    /// Said by a master that leaves; nobody has it.
    pub const LEAVING: Self = Self(0);
    /// The least that somebody can have.
    pub const LEAST: Self = Self(1);
    /// Of the router whose own address the virtual one is; it always preempts.
    pub const OWNER: Self = Self(255);

    /// Its share of the skew time: the better, the shorter.
    fn skew_of(self, whole: Duration) -> Duration {
        whole * (256 - u32::from(self.0)) / 256
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The time between two adverts, in hundredths of a second; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(u16);

impl Interval {
    /// What twelve bits hold (RFC 9568, 5.2.7): 40.95 s.
    pub const CENTISECONDS_MAX_V3: u16 = 0x0fff;
    /// What a byte of seconds holds (RFC 3768, 5.3.7).
    pub const CENTISECONDS_MAX_V2: u16 = 255 * 100;

    /// So many hundredths of a second; `None` for zero and for what neither version can say.
    pub const fn from_centiseconds(centiseconds: u16) -> Option<Self> {
        match centiseconds {
            0 | 25_501.. => None,
            _ => Some(Self(centiseconds)),
        }
    }

    /// The hundredths of a second.
    pub const fn centiseconds(self) -> u16 {
        self.0
    }

    /// How long it is.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0 as u64 * 10)
    }

    /// Whether adverts of `version` can say it.
    pub const fn fits(self, version: Version) -> bool {
        match version {
            Version::V2 => self.0.is_multiple_of(100),
            Version::V3 => self.0 <= Self::CENTISECONDS_MAX_V3,
        }
    }

    /// How much longer than three intervals a router of this priority waits for the master.
    ///
    /// RFC 9568, 6.1: a share of the interval. RFC 3768, 6.1: a share of a second, whatever the interval.
    pub fn skew(self, version: Version, priority: Priority) -> Duration {
        priority.skew_of(match version {
            Version::V2 => Duration::from_secs(1),
            Version::V3 => self.duration(),
        })
    }

    /// How long a master that sends at this interval is silent before it is taken for dead.
    pub fn down(self, version: Version, priority: Priority) -> Duration {
        self.duration() * ADVERTS_MISSED + self.skew(version, priority)
    }
}

/// So many adverts in a row may be lost (RFC 9568, 6.1; RFC 3768, 6.1).
pub(crate) const ADVERTS_MISSED: u32 = 3;

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.duration())
    }
}

/// What the checksum of version 3 over IPv4 covers. RFC 9568, 5.2.8 says the message alone;
/// keepalived, and RFC 5798 as most read it, put a pseudo-header before it. Version 2 and IPv6 leave no choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checksum {
    /// With a pseudo-header: what keepalived sends and expects unless told otherwise.
    #[default]
    WithPseudoHeader,
    /// The message alone.
    MessageAlone,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(centiseconds: u16) -> Interval {
        Interval::from_centiseconds(centiseconds).unwrap()
    }

    #[test]
    fn the_down_time_is_that_of_the_measured_ones() {
        let down = |cs, version, priority| interval(cs).down(version, Priority(priority));
        // 3 s + 156/256 s, at priority 100.
        assert_eq!(
            down(100, Version::V2, 100),
            Duration::from_micros(3_609_375)
        );
        assert_eq!(
            down(100, Version::V3, 100),
            Duration::from_micros(3_609_375)
        );
        assert_eq!(
            down(10, Version::V3, 100),
            Duration::from_nanos(360_937_500)
        );
        assert_eq!(down(1, Version::V3, 100), Duration::from_nanos(36_093_750));
        // RFC 3768: the skew does not grow with the interval.
        assert_eq!(
            down(300, Version::V2, 100),
            Duration::from_micros(9_609_375)
        );
        assert_eq!(
            down(300, Version::V3, 100),
            Duration::from_micros(10_828_125)
        );
    }

    #[test]
    fn an_interval_is_what_a_version_can_say() {
        assert_eq!(Interval::from_centiseconds(0), None);
        assert_eq!(
            Interval::from_centiseconds(Interval::CENTISECONDS_MAX_V2 + 1),
            None
        );
        assert!(interval(25_500).fits(Version::V2) && !interval(25_500).fits(Version::V3));
        assert!(interval(4095).fits(Version::V3) && !interval(4096).fits(Version::V3));
        // A fraction of a second must not silently become another interval.
        assert!(!interval(50).fits(Version::V2) && !interval(150).fits(Version::V2));
    }
}
