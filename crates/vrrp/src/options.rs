//! What a virtual router is told once, checked.

use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use crate::packet::{GROUP_V4, GROUP_V6};
use crate::words::{Checksum, Interval, Priority, Version, Vrid};

/// Whether a better router takes the address from a worse one that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preempt {
    /// No: who holds it keeps it until it dies, leaves or is outranked by another holder. Each move costs clients
    /// something, so this is the default.
    #[default]
    Never,
    /// As soon as the timers of RFC 9568 say so, which is its default.
    Always,
    /// After a worse one was heard for so long without a break.
    After(Duration),
}

/// What a backup does when the master says that it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Handover {
    /// Takes over at once if no better peer was ever heard, else after the skew time.
    #[default]
    AtOnce,
    /// Always waits for the skew time (RFC 9568, 6.4.2).
    AfterSkew,
}

/// How often the holder tells everybody again whose the address is, while nothing happens.
pub const REFRESH: Duration = Duration::from_mins(1);

/// One virtual router, as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What is spoken; adverts of the other version are not believed.
    pub version: Version,
    /// Its number on the link.
    pub vrid: Vrid,
    /// Our priority while we are fit.
    pub priority: Priority,
    /// How often we send while we hold the address.
    pub interval: Interval,
    /// The virtual addresses, of one family.
    pub addresses: Vec<IpAddr>,
    /// Whether we take it from a worse one.
    pub preempt: Preempt,
    /// How fast we take it from one that leaves.
    pub handover: Handover,
    /// How we count before a peer was heard; then its way is ours.
    pub checksum: Checksum,
    /// The only ones that are believed; empty for everybody on the link.
    pub peers: Vec<IpAddr>,
    /// See [`REFRESH`]; `None` for never.
    pub refresh: Option<Duration>,
}

/// Why options describe no virtual router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// 0 is said by who leaves.
    #[error("the priority is 0; 1 to 254 are expected, or 255 for the owner of the address")]
    Priority,
    /// Nothing to hold.
    #[error("there is no address; give at least one")]
    NoAddress,
    /// The count is one byte.
    #[error(
        "there are {0} addresses, and an advert lists 255 at most; use a second virtual router"
    )]
    TooManyAddresses(usize),
    /// One advert has one family.
    #[error(
        "{0} is of another family than the first address; use a virtual router for each family"
    )]
    Families(IpAddr),
    /// A number cannot be held twice.
    #[error("{0} is given twice")]
    Twice(IpAddr),
    /// RFC 3768 knows IPv4 alone.
    #[error("version 2 has no IPv6; use version 3")]
    VersionOfFamily,
    /// The version cannot say it: it would silently become another one on the wire.
    #[error(
        "adverts every {0} cannot be said in version 2, which counts whole seconds from 1 to 255; use such a number, or version 3"
    )]
    IntervalV2(Interval),
    /// Twelve bits.
    #[error("adverts every {0} cannot be said in version 3, where 40.95 s is the longest interval")]
    IntervalV3(Interval),
}

impl Options {
    /// Where its adverts go if no peers are listed: 224.0.0.18 or `ff02::12`.
    pub fn group(&self) -> IpAddr {
        match self.addresses.first() {
            Some(IpAddr::V6(_)) => GROUP_V6.into(),
            Some(IpAddr::V4(_)) | None => GROUP_V4.into(),
        }
    }

    /// Checks what the types leave open.
    pub(crate) fn check(&self) -> Result<(), OptionsError> {
        if self.priority == Priority::LEAVING {
            return Err(OptionsError::Priority);
        }
        let Some(first) = self.addresses.first() else {
            return Err(OptionsError::NoAddress);
        };
        if self.addresses.len() > usize::from(u8::MAX) {
            return Err(OptionsError::TooManyAddresses(self.addresses.len()));
        }
        for (at, address) in self.addresses.iter().enumerate() {
            if address.is_ipv4() != first.is_ipv4() {
                return Err(OptionsError::Families(*address));
            }
            if self.addresses[..at].contains(address) {
                return Err(OptionsError::Twice(*address));
            }
        }
        if self.version == Version::V2 && first.is_ipv6() {
            return Err(OptionsError::VersionOfFamily);
        }
        if !self.interval.fits(self.version) {
            return Err(match self.version {
                Version::V2 => OptionsError::IntervalV2(self.interval),
                Version::V3 => OptionsError::IntervalV3(self.interval),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use alloc::vec;

    /// A backup on 10.0.0.100 with the proposed defaults.
    pub(crate) fn options() -> Options {
        Options {
            version: Version::V3,
            vrid: Vrid::new(51).unwrap(),
            priority: Priority(100),
            interval: Interval::from_centiseconds(10).unwrap(),
            addresses: vec![[10, 0, 0, 100].into()],
            preempt: Preempt::Never,
            handover: Handover::AtOnce,
            checksum: Checksum::WithPseudoHeader,
            peers: vec![],
            refresh: Some(REFRESH),
        }
    }

    #[test]
    fn options_that_the_wire_cannot_say_are_refused_with_their_remedy() {
        let refusal = |change: fn(&mut Options)| {
            let mut options = options();
            change(&mut options);
            options.check().unwrap_err()
        };
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(
            refusal(|o| o.priority = Priority(0)),
            OptionsError::Priority
        );
        assert_eq!(refusal(|o| o.addresses.clear()), OptionsError::NoAddress);
        let refused = refusal(|o| o.addresses.push("2001:db8::1".parse().unwrap()));
        assert_eq!(refused, OptionsError::Families(v6));
        let refused = refusal(|o| o.addresses.push([10, 0, 0, 100].into()));
        assert_eq!(refused, OptionsError::Twice([10, 0, 0, 100].into()));
        let refused = refusal(|o| o.addresses = (0..=255).map(|n| [10, 0, 1, n].into()).collect());
        assert_eq!(refused, OptionsError::TooManyAddresses(256));
        let refused = refusal(|o| {
            o.version = Version::V2;
            o.addresses = vec!["fe80::1".parse().unwrap()];
        });
        assert_eq!(refused, OptionsError::VersionOfFamily);
        // The default of 100 ms in version 2 is what others silently round.
        let refused = refusal(|o| o.version = Version::V2);
        assert!(refused.to_string().contains("100ms"), "{refused}");
        let refused = refusal(|o| o.interval = Interval::from_centiseconds(5000).unwrap());
        assert!(matches!(refused, OptionsError::IntervalV3(_)));
        assert_eq!(options().check(), Ok(()));
    }

    use alloc::string::ToString;
}
