//! Packets: those of `conformance/packets.toml`, cut anywhere, damaged anywhere, and those that nobody thought of.

#![allow(clippy::unwrap_used, reason = "tests")]

use core::net::IpAddr;

use mainstay_vrrp::{
    Advert, Checksum, Envelope, GROUP_V4, GROUP_V6, HOP_LIMIT, Interval, LEN_MAX, Outgoing,
    Priority, Reach, Refused, Version, Vrid, WriteError,
};
use proptest::{
    arbitrary::any, collection, prop_assert, prop_assert_eq, prop_assume, proptest, sample::select,
    strategy::Strategy, test_runner::Config as ProptestConfig,
};

const CASES: &str = include_str!("conformance/packets.toml");

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    packet: Vec<Case>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[expect(dead_code, reason = "for the reader")]
    rfc: String,
    #[serde(default)]
    captured: bool,
    from: IpAddr,
    to: Option<IpAddr>,
    hop_limit: Option<u8>,
    hop_limit_min: Option<u8>,
    hex: String,
    reads: Option<String>,
    refused: Option<String>,
    written: Option<String>,
}

impl Case {
    fn bytes(&self) -> Vec<u8> {
        let words = self.hex.split_whitespace();
        words
            .map(|word| u8::from_str_radix(word, 16).unwrap())
            .collect()
    }

    fn envelope(&self) -> Envelope {
        Envelope {
            from: self.from,
            to: self.to.unwrap_or_else(|| group(self.from)),
            hop_limit: self.hop_limit.unwrap_or(HOP_LIMIT),
        }
    }

    fn reach(&self) -> Reach {
        match self.hop_limit_min {
            Some(hop_limit_min) => Reach::Routed { hop_limit_min },
            None => Reach::Link,
        }
    }
}

fn cases() -> Vec<Case> {
    let cases: Cases = toml::from_str(CASES).unwrap();
    cases.packet
}

fn group(of: IpAddr) -> IpAddr {
    if of.is_ipv4() {
        GROUP_V4.into()
    } else {
        GROUP_V6.into()
    }
}

fn say(advert: &Advert<'_>) -> String {
    let addresses: Vec<IpAddr> = advert.addresses.iter().collect();
    let checksum = match advert.checksum {
        Some(Checksum::WithPseudoHeader) => ", with a pseudo-header",
        Some(Checksum::MessageAlone) => ", alone",
        None => "",
    };
    let Advert {
        version,
        vrid,
        priority,
        interval,
        ..
    } = advert;
    format!(
        "{version}, router {vrid}, priority {priority}, every {interval}, {addresses:?}{checksum}"
    )
}

fn write(advert: &Advert<'_>, to: IpAddr) -> Result<Vec<u8>, WriteError> {
    let addresses: Vec<IpAddr> = advert.addresses.iter().collect();
    let outgoing = Outgoing {
        version: advert.version,
        vrid: advert.vrid,
        priority: advert.priority,
        interval: advert.interval,
        addresses: &addresses,
        checksum: advert.checksum.unwrap_or_default(),
    };
    let mut room = vec![0xff; LEN_MAX];
    let len = outgoing.write(advert.from, to, &mut room)?;
    room.truncate(len);
    Ok(room)
}

#[test]
fn packets_read_as_they_are_described_and_are_written_as_they_were() {
    for case in cases() {
        let (bytes, envelope) = (case.bytes(), case.envelope());
        let read = Advert::read(&envelope, case.reach(), &bytes);
        match (&case.reads, &case.refused, read) {
            (Some(expected), None, Ok(advert)) => {
                assert_eq!(say(&advert), *expected, "{}", case.name);
                let same = write(&advert, envelope.to).unwrap() == bytes;
                assert_eq!(same, case.written.is_none(), "{}", case.name);
            }
            (None, Some(expected), Err(refused)) => {
                let text = refused.to_string();
                assert!(text.starts_with(expected), "{}: {text}", case.name);
            }
            (_, _, read) => panic!("{}: {read:?}", case.name),
        }
    }
    assert!(cases().iter().filter(|case| case.captured).count() >= 3);
}

#[test]
fn a_packet_that_is_cut_or_has_something_behind_it_is_refused() {
    for case in cases().iter().filter(|case| case.reads.is_some()) {
        let mut bytes = case.bytes();
        for len in 0..bytes.len() {
            let refused = Advert::read(&case.envelope(), case.reach(), &bytes[..len]).unwrap_err();
            let of_length = matches!(refused, Refused::Short { .. } | Refused::Length { .. });
            assert!(of_length, "{} cut at {len}: {refused}", case.name);
        }
        for behind in 1..40 {
            bytes.push(0);
            let refused = Advert::read(&case.envelope(), case.reach(), &bytes).unwrap_err();
            let of_length = matches!(refused, Refused::Length { .. });
            assert!(
                of_length,
                "{} with {behind} bytes behind it: {refused}",
                case.name
            );
        }
    }
}

#[test]
fn a_flipped_bit_is_noticed() {
    for case in cases().iter().filter(|case| case.reads.is_some()) {
        let bytes = case.bytes();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let read = Advert::read(&case.envelope(), case.reach(), &damaged);
            assert!(read.is_err(), "{}: bit {bit}", case.name);
        }
    }
}

#[test]
fn what_cannot_be_said_is_not_written() {
    let addresses: Vec<IpAddr> = (0..=255).map(|n| [10, 0, 1, n].into()).collect();
    let good = Outgoing {
        version: Version::V3,
        vrid: Vrid::new(1).unwrap(),
        priority: Priority(100),
        interval: Interval::from_centiseconds(10).unwrap(),
        addresses: &addresses[..255],
        checksum: Checksum::WithPseudoHeader,
    };
    let (v4, v6): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), "fe80::1".parse().unwrap());
    let mut room = [0; LEN_MAX];
    assert_eq!(good.write(v4, GROUP_V4.into(), &mut room), Ok(8 + 4 * 255));
    let (needed, room_len) = (8 + 4 * 255, 1027);
    let refused = good.write(v4, GROUP_V4.into(), &mut room[..room_len]);
    assert_eq!(
        refused,
        Err(WriteError::Room {
            needed,
            room: room_len
        })
    );
    assert_eq!(
        good.write(v6, GROUP_V6.into(), &mut room),
        Err(WriteError::Family)
    );
    assert_eq!(
        good.write(v4, GROUP_V6.into(), &mut room),
        Err(WriteError::Family)
    );
    let mut write = |outgoing: Outgoing<'_>| outgoing.write(v4, GROUP_V4.into(), &mut room);
    let many = Outgoing {
        addresses: &addresses,
        ..good
    };
    assert_eq!(write(many), Err(WriteError::TooMany(256)));
    assert_eq!(
        write(Outgoing {
            addresses: &[],
            ..good
        }),
        Err(WriteError::NoAddress)
    );
    let fraction = Outgoing {
        version: Version::V2,
        ..good
    };
    assert_eq!(write(fraction), Err(WriteError::Interval(Version::V2)));
    let old = Outgoing {
        version: Version::V2,
        addresses: &[v6],
        ..good
    };
    assert_eq!(
        old.write(v6, GROUP_V6.into(), &mut [0; 64]),
        Err(WriteError::VersionOfFamily)
    );
}

fn address(v6: bool) -> impl Strategy<Value = IpAddr> {
    (any::<[u8; 4]>(), any::<[u8; 16]>()).prop_map(
        move |(four, sixteen)| {
            if v6 { sixteen.into() } else { four.into() }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_reads_the_same(
        (v6, from, addresses) in any::<bool>().prop_flat_map(|v6| {
            let list = collection::vec(address(v6), 1..=255);
            (proptest::strategy::Just(v6), address(v6), list)
        }),
        vrid in 1u8..=255,
        priority in any::<u8>(),
        centiseconds in 1u16..=4095,
        seconds in 1u16..=255,
        version in select(vec![Version::V2, Version::V3]),
        checksum in select(vec![Checksum::WithPseudoHeader, Checksum::MessageAlone]),
    ) {
        let version = if v6 { Version::V3 } else { version };
        let centiseconds = if version == Version::V2 { seconds * 100 } else { centiseconds };
        let outgoing = Outgoing {
            version,
            vrid: Vrid::new(vrid).unwrap(),
            priority: Priority(priority),
            interval: Interval::from_centiseconds(centiseconds).unwrap(),
            addresses: &addresses,
            checksum,
        };
        let mut room = [0; LEN_MAX];
        let len = outgoing.write(from, group(from), &mut room).unwrap();
        let envelope = Envelope { from, to: group(from), hop_limit: HOP_LIMIT };
        let advert = Advert::read(&envelope, Reach::Link, &room[..len]).unwrap();
        prop_assert_eq!(advert.version, version);
        prop_assert_eq!(advert.vrid, outgoing.vrid);
        prop_assert_eq!(advert.priority, outgoing.priority);
        prop_assert_eq!(advert.interval, outgoing.interval);
        prop_assert_eq!(advert.addresses.len(), addresses.len());
        prop_assert!(advert.addresses.iter().eq(addresses.iter().copied()));
        if version == Version::V3 && !v6 {
            prop_assert!(advert.checksum.is_none_or(|found| found == checksum));
        } else {
            prop_assert_eq!(advert.checksum, None);
        }
    }

    #[test]
    fn whatever_is_read_can_be_written(
        head in (select(vec![0x21, 0x31]), 1u8.., any::<u8>()),
        timing in any::<[u8; 2]>(),
        count in 1u8..9,
        addresses in any::<[u8; 32]>(),
        from in address(false),
    ) {
        let (kind, vrid, priority) = head;
        let mut bytes = vec![kind, vrid, priority, count];
        bytes.extend(timing);
        bytes.extend([0; 2]);
        bytes.extend(&addresses[..usize::from(count) * 4]);
        if kind == 0x21 {
            bytes[4] = 0;
            bytes.extend([0; 8]);
        }
        repair(&mut bytes);
        let envelope = Envelope { from, to: group(from), hop_limit: HOP_LIMIT };
        let read = Advert::read(&envelope, Reach::Link, &bytes);
        prop_assume!(read != Err(Refused::Interval));
        let advert = read.unwrap();
        let written = write(&advert, envelope.to).unwrap();
        let again = Advert::read(&envelope, Reach::Link, &written).unwrap();
        prop_assert_eq!(say(&again), say(&advert));
    }

    #[test]
    fn no_bytes_panic(
        bytes in collection::vec(any::<u8>(), 0..80),
        from in any::<bool>().prop_flat_map(address),
    ) {
        let envelope = Envelope { from, to: group(from), hop_limit: HOP_LIMIT };
        if let Ok(advert) = Advert::read(&envelope, Reach::Link, &bytes) {
            prop_assert!(advert.addresses.len() < 20);
        }
    }
}

/// Puts in the checksum of the message alone.
fn repair(bytes: &mut [u8]) {
    bytes[6..8].fill(0);
    let word = |pair: &[u8]| (u32::from(pair[0]) << 8) | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    bytes[6..8].copy_from_slice(&(!u16::try_from(sum).unwrap()).to_be_bytes());
}
