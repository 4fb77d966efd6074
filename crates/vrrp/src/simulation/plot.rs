//! What a run is about.

use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use super::random::Random;
use crate::options::{Handover, Options, Preempt};
use crate::words::{Checksum, Interval, Priority, Version, Vrid};

/// How much goes wrong at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weather {
    /// One mishap, then time to settle; the network loses nothing.
    Clean,
    /// Everything at once.
    Rough,
}

#[derive(Debug, Clone)]
pub(super) struct Plot {
    pub(super) seed: u64,
    pub(super) weather: Weather,
    pub(super) routers: Vec<Options>,
    /// Of a thousand packets, so many are lost, late or doubled.
    pub(super) lost: usize,
    pub(super) late: usize,
    pub(super) doubled: usize,
    /// The longest way of a packet.
    pub(super) latency_max: Duration,
    pub(super) mishaps: usize,
}

/// The way of a packet on a link on which nothing is wrong.
pub(super) const WAY: Duration = Duration::from_micros(300);
/// How late a router is woken when its machine is not overloaded.
pub(super) const WAKE: Duration = Duration::from_micros(100);

impl Plot {
    pub(super) fn of(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5eed);
        let weather = random.one_of(&[Weather::Clean, Weather::Rough]);
        let interval = random.one_of(&[1, 10, 10, 10, 100]);
        let preempt = random.one_of(&[
            Preempt::Never,
            Preempt::Never,
            Preempt::Always,
            Preempt::After(Duration::from_millis(700)),
        ]);
        let handover = random.one_of(&[Handover::AtOnce, Handover::AtOnce, Handover::AfterSkew]);
        // Version 2 counts in seconds.
        let version = if interval == 100 {
            random.one_of(&[Version::V2, Version::V3])
        } else {
            Version::V3
        };
        let mixed = version == Version::V3 && random.permille(250);
        let v6 = version == Version::V3 && random.permille(250);
        let count = 2 + random.below(4);
        let routers = (0..count)
            .map(|_| {
                let factor = if mixed { random.one_of(&[1, 3]) } else { 1 };
                Options {
                    version,
                    vrid: Vrid::new(7).expect("a legal one"),
                    priority: Priority(random.one_of(&[1, 50, 100, 100, 150, 200, 254, 255])),
                    interval: Interval::from_centiseconds(interval * factor).expect("a legal one"),
                    addresses: vec![if v6 {
                        "2001:db8::100".parse().expect("a legal one")
                    } else {
                        [10, 0, 0, 100].into()
                    }],
                    preempt,
                    handover,
                    checksum: random.one_of(&[Checksum::WithPseudoHeader, Checksum::MessageAlone]),
                    peers: vec![],
                    refresh: Some(Duration::from_secs(5)),
                }
            })
            .collect::<Vec<_>>();
        let rough = weather == Weather::Rough;
        let some = |random: &mut Random, most| if rough { random.below(most) } else { 0 };
        let longest = routers
            .iter()
            .map(|router| router.interval.duration())
            .max()
            .expect("two at least");
        Self {
            seed,
            weather,
            lost: some(&mut random, 300),
            late: some(&mut random, 200),
            doubled: some(&mut random, 100),
            latency_max: if rough { longest * 2 } else { WAY },
            mishaps: 6 + random.below(10),
            routers,
        }
    }

    /// The own address of one of them.
    pub(super) fn source(&self, at: usize) -> IpAddr {
        let last = u8::try_from(at + 1).expect("a few");
        if self.routers[0].addresses[0].is_ipv4() {
            return [10, 0, 0, last].into();
        }
        IpAddr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last])
    }

    /// The longest interval of them.
    pub(super) fn interval_max(&self) -> Duration {
        self.routers
            .iter()
            .map(|router| router.interval.duration())
            .max()
            .expect("two at least")
    }

    /// Long enough for everything to come to rest, and for all announcements that are not refreshes.
    pub(super) fn settling(&self) -> Duration {
        (self.interval_max() * 12).max(Duration::from_millis(2500)) + self.latency_max * 2
    }
}
