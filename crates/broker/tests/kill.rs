//! SIGKILL at random moments under load, in the middle of recoveries, and while the log gives segments back; and a ledger
//! outside of the broker: what was confirmed is there, what was acknowledged does not come back, and each queue keeps
//! its order.
//!
//! `SEED=17 ROUNDS=100 cargo nextest run -p mainstay-broker --test kill`
//!
//! A process that is killed leaves its writes in the page cache: nothing here shows that they were synced. That is shown by
//! `messages::simulation` in `mainstay-journal`, which loses power, and by `failing_disk.rs`, where syncs are slow or fail.

mod alone;
mod ledger;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use alone::{Alone, PATIENCE};
use ledger::{KEPT, Marks, Traffic, names, oldest_segment};
use mainstay_testkit::kills::pause;
use mainstay_testkit::wait_until;

/// So short that each round goes through many segments, and a batch may be longer than one.
const SEGMENTS: &str = "segments=65536";
/// A start takes some 30 ms.
const START: Duration = Duration::from_millis(60);

/// What was done.
#[derive(Debug, Default)]
struct Deeds {
    kills: u32,
    /// Of these, before the broker served.
    in_recovery: u32,
    /// Of these, just when the log's files changed.
    in_recycling: u32,
    slowest: Duration,
}

fn number_of(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Waits for the moment in which a segment is begun, given back or moved; none may come while nothing is published.
fn await_change(broker: &Alone) -> bool {
    let (before, start) = (names(broker), Instant::now());
    while start.elapsed() < Duration::from_millis(500) {
        if names(broker) != before {
            return true;
        }
    }
    false
}

impl Deeds {
    fn kill(&mut self, broker: &mut Alone) {
        if !broker.said().contains("the broker serves") {
            self.in_recovery += 1;
        }
        broker.kill();
        self.kills += 1;
        broker.start_again();
    }

    /// One round: some work, a death, a new life; in some, more deaths in the middle of the recovery.
    fn round(&mut self, broker: &mut Alone, traffic: &Traffic, random: &mut fastrand::Rng) {
        let shared = &traffic.shared;
        // What nobody takes is there to be recovered; what was taken makes segments that are not needed.
        let lazy = random.u8(0..3) == 0;
        shared.set_lazy(lazy);
        shared.wait_confirmed(broker, random.usize(20..600));
        if !lazy {
            shared.wait_taken(broker, random.usize(20..900));
        }
        if random.bool() {
            self.in_recycling += u32::from(await_change(broker));
            pause(Duration::from_micros(random.u64(0..1000)));
        } else {
            pause(Duration::from_micros(random.u64(0..20_000)));
        }
        self.kill(broker);
        for _ in 0..random.u32(0..3) {
            let start = u64::try_from(START.as_micros()).expect("short");
            pause(Duration::from_micros(random.u64(0..start)));
            self.kill(broker);
        }
        let since = Instant::now();
        shared.wait_confirmed(broker, 1);
        self.slowest = self.slowest.max(since.elapsed());
    }
}

/// Where `cargo xtask soak` wants to find what was counted.
fn report(values: &serde_json::Value) {
    println!("{values}");
    if let Some(path) = std::env::var_os("REPORT").map(PathBuf::from) {
        let text = serde_json::to_vec(values).expect("JSON");
        std::fs::write(&path, text).expect("the report is written");
    }
}

#[test]
fn system_what_was_confirmed_survives_sigkill_and_what_was_acknowledged_does_not_come_back() {
    let seed = number_of("SEED", fastrand::u64(..));
    let rounds = number_of("ROUNDS", 10);
    println!("SEED={seed} ROUNDS={rounds}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut broker = Alone::start_with("broker-kill", &[("SEAMS", SEGMENTS)]);
    let traffic = Traffic::start(&broker, Marks::Made);
    let mut deeds = Deeds::default();
    for number in 0..rounds {
        deeds.round(&mut broker, &traffic, &mut random);
        let wrong = traffic.shared.wrong();
        assert!(wrong.is_empty(), "SEED={seed}, round {number}: {wrong:?}");
    }
    // Before the queues are emptied, so that all that stays was moved from there.
    let recycled = oldest_segment(&broker) - 1;
    let (sum, wrong) = traffic.conclude(&broker);
    report(&serde_json::json!({
        "rounds": rounds,
        "kills": deeds.kills,
        "kills_in_recovery": deeds.in_recovery,
        "kills_in_recycling": deeds.in_recycling,
        "segments_recycled": recycled,
        "messages_that_stayed": KEPT,
        "confirmed": sum.confirmed,
        "confirmed_lost": sum.lost,
        "acked_for_good": sum.settled,
        "acked_redelivered": sum.settled_again,
        "dead_letters_twice": sum.letters_twice,
        "slowest_return_ms": u64::try_from(deeds.slowest.as_millis()).unwrap_or(u64::MAX),
    }));
    assert!(wrong.is_empty(), "SEED={seed}: {wrong:?}");
    assert!(sum.settled > 0, "the test saw acknowledgements that count");
    assert!(
        recycled > rounds,
        "the log gave {recycled} segments back in {rounds} rounds"
    );
}

/// One death, with a seam, and what the ledger says of it. `lazy`: nothing was consumed before.
fn complaints(seam: &str, lazy: bool) -> Vec<String> {
    let seams = format!("{SEGMENTS},{seam}");
    let mut broker = Alone::start_with("broker-red", &[("SEAMS", &seams)]);
    let traffic = Traffic::start(&broker, Marks::Made);
    traffic.shared.set_lazy(lazy);
    traffic.shared.wait_confirmed(&broker, 600);
    if !lazy {
        wait_until(PATIENCE, "acknowledgements count", || {
            let settled = traffic.shared.sum().settled;
            if settled > 300 {
                Ok(())
            } else {
                Err(settled.to_string())
            }
        });
    }
    broker.kill();
    traffic.shared.set_lazy(false);
    // Else one that looks for what it did not write gives up.
    broker.set("SEAMS", SEGMENTS);
    broker.start_again();
    traffic.shared.wait_confirmed(&broker, 100);
    traffic.conclude(&broker).1
}

#[test]
fn system_the_ledger_has_nothing_to_say_without_a_seam() {
    for lazy in [true, false] {
        assert_eq!(complaints("", lazy), Vec::<String>::new());
    }
}

#[test]
fn system_a_broker_that_confirms_what_it_has_not_written_is_found_out() {
    let wrong = complaints("confirms=unwritten", true);
    let lost = wrong.iter().filter(|wrong| wrong.contains("are lost"));
    assert!(lost.count() > 0, "{wrong:?}");
}

#[test]
fn system_a_broker_that_drops_acknowledgements_is_found_out() {
    let wrong = complaints("acks=dropped", false);
    let again = wrong
        .iter()
        .filter(|wrong| wrong.contains("was acknowledged for good"));
    assert!(again.count() > 0, "{wrong:?}");
}

#[test]
fn system_a_broker_that_loses_the_order_is_found_out() {
    let wrong = complaints("order=swapped", true);
    let moved = wrong.iter().filter(|wrong| wrong.contains(" came after "));
    assert!(moved.count() > 0, "{wrong:?}");
}
