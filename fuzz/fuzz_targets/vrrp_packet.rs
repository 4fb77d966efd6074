//! VRRP packets in any bytes: no panic; what is read says the same when it is written anew; and a router that hears it,
//! at any time, keeps its invariants.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_ids::Instant;
use mainstay_vrrp::{
    Advert, Checksum, Envelope, GROUP_V4, GROUP_V6, HOP_LIMIT, Handover, Input, Interval, LEN_MAX,
    Options, Outgoing, Preempt, Priority, Reach, Router, Version, Vrid,
};
use std::net::IpAddr;
use std::time::Duration;

/// Packets of one run, each with its length before it.
const PACKETS: usize = 32;

fn router(version: Version) -> Router {
    let mut router = Router::new(Options {
        version,
        vrid: Vrid::new(51).expect("not zero"),
        priority: Priority(100),
        interval: Interval::from_centiseconds(100).expect("a second"),
        addresses: vec![IpAddr::from([10, 0, 0, 100])],
        preempt: Preempt::Always,
        handover: Handover::AtOnce,
        checksum: Checksum::WithPseudoHeader,
        peers: Vec::new(),
        refresh: None,
    })
    .expect("legal options");
    let source = IpAddr::from([10, 0, 0, 5]);
    router.handle(Instant::START, Input::Up { source });
    router
}

fn write(advert: &Advert<'_>, to: IpAddr) -> Vec<u8> {
    let addresses: Vec<IpAddr> = advert.addresses.iter().collect();
    let outgoing = Outgoing {
        version: advert.version,
        vrid: advert.vrid,
        priority: advert.priority,
        interval: advert.interval,
        addresses: &addresses,
        checksum: advert.checksum.unwrap_or_default(),
    };
    let mut room = vec![0; LEN_MAX];
    let len = outgoing
        .write(advert.from, to, &mut room)
        .expect("what was read can be said");
    room.truncate(len);
    room
}

/// Chance does not find a checksum: that of the message alone is put in.
fn repair(bytes: &mut [u8]) {
    if bytes.len() < 8 {
        return;
    }
    bytes[6..8].fill(0);
    let word = |pair: &[u8]| (u32::from(pair[0]) << 8) | u32::from(*pair.get(1).unwrap_or(&0));
    let sum = bytes.chunks(2).map(word).fold(0u32, u32::wrapping_add);
    let once = (sum & 0xffff) + (sum >> 16);
    let sum = !((once & 0xffff) + (once >> 16)) as u16;
    bytes[6..8].copy_from_slice(&sum.to_be_bytes());
}

fn hear(routers: &mut [Router], now: Instant, from: IpAddr, bytes: &[u8]) {
    let to = if from.is_ipv4() {
        GROUP_V4.into()
    } else {
        GROUP_V6.into()
    };
    let hop_limit = HOP_LIMIT;
    let Ok(advert) = Advert::read(
        &Envelope {
            from,
            to,
            hop_limit,
        },
        Reach::Link,
        bytes,
    ) else {
        return;
    };
    let written = write(&advert, to);
    let again = Advert::read(
        &Envelope {
            from,
            to,
            hop_limit,
        },
        Reach::Link,
        &written,
    );
    assert_eq!(again, Ok(advert));
    for router in routers {
        let actions = router.handle(now, Input::Advert(&advert));
        assert!(actions.iter().count() <= 8);
        router.handle(now, Input::Tick);
        assert!(router.next_deadline() > now);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut routers = [router(Version::V2), router(Version::V3)];
    let mut rest = bytes;
    let mut now = Instant::START;
    for _ in 0..PACKETS {
        let Some(([len, from, time], behind)) = rest.split_first_chunk() else {
            return;
        };
        let len = usize::from(*len).min(behind.len());
        let (packet, behind) = behind.split_at(len);
        rest = behind;
        now = now.after(Duration::from_millis(u64::from(*time) * 16));
        let v6 = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, *from];
        for from in [IpAddr::from([10, 0, 0, *from]), v6.into()] {
            hear(&mut routers, now, from, packet);
            let mut repaired = packet.to_vec();
            repair(&mut repaired);
            hear(&mut routers, now, from, &repaired);
        }
    }
});
