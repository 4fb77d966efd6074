//! Far more than a cluster has: a hundred thousand slots.

use std::net::Ipv4Addr;
use std::time::Instant;

use super::*;

const SERVICES: u32 = 33_334;
const INSTANCES: u8 = 3;
/// What this process may need more at any time, the kernel's answers included. A slot is some fifty bytes
/// in our maps, and a few times that while it is written or read and compared.
const MEMORY_MAX_KIB: u64 = 200 * 1024;

fn service(number: u32) -> SocketAddr {
    let [_, port, high, low] = number.to_be_bytes();
    (Ipv4Addr::new(10, 96, high, low), 8080 + u16::from(port)).into()
}

fn spread(number: u32, count: u8) -> Spread {
    let [_, _, high, low] = number.to_be_bytes();
    let at = |index: u8| (Ipv4Addr::new(10, 77, high, low), 8000 + u16::from(index)).into();
    even(&(0..count).map(at).collect::<Vec<_>>())
}

fn all(count: u8) -> Batch {
    Batch {
        services: (0..SERVICES)
            .map(|n| (service(n), spread(n, count)))
            .collect(),
        ..Batch::default()
    }
}

/// The most memory that this process ever had.
fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.unwrap().trim().strip_suffix(" kB").unwrap();
    number.parse().unwrap()
}

fn timed<T>(what: &str, deed: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = deed();
    println!("{what}: {:?}", began.elapsed());
    done
}

#[test]
fn system_a_hundred_thousand_slots_are_made_changed_read_back_and_taken_away() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let node = node();
    let mut nft = start(&node);
    let before = memory_kib();
    timed("100,002 slots of 33,334 services made", || {
        nft.apply(&all(INSTANCES)).unwrap();
    });
    let own = instances(&node, &["127.0.0.1:9001"]);
    let served = service(SERVICES - 1);
    timed("one of them changed", || {
        nft.apply(&serve(&served.to_string(), even(&own))).unwrap();
    });
    assert_eq!(
        answer(&connect(&node, &served.to_string()).unwrap()).unwrap(),
        own[0]
    );
    run(
        &node,
        "nft delete element inet mainstay slots4 { 10.96.0.7 . 8080 . 1 }",
    );
    let found = timed("looked at and repaired", || nft.check().unwrap());
    assert_eq!(found, Found::Repaired("elements were changed".to_owned()));
    drop(nft);
    let mut next = timed("read back and taken over", || start(&node));
    assert_eq!(next.in_force().0.len(), SERVICES as usize);
    timed("all changed, one instance fewer each", || {
        next.apply(&all(INSTANCES - 1)).unwrap();
    });
    assert_eq!(next.check().unwrap(), Found::InForce);
    run(&node, "nft add table inet theirs");
    // Everything is read and compared.
    assert_eq!(timed("looked at", || next.check().unwrap()), Found::InForce);
    let gone = (0..SERVICES).map(service).collect();
    timed("all taken away", || {
        next.apply(&Batch {
            gone,
            ..Batch::default()
        })
        .unwrap();
    });
    let used = memory_kib() - before;
    println!("memory: {used} KiB more at most");
    assert!(used < MEMORY_MAX_KIB, "{used} KiB");
    drop(next);
    assert_eq!(start(&node).in_force().0, []);
}
