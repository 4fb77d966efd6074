//! That one instance of three may fail in any way, or two at once, and clients do not notice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use mainstay_sim::{Played, Tally, Trouble, play};

/// So many of each kind of trouble; `cargo xtask sim --entry --seeds 5000` plays more.
const OF_EACH: u64 = 21;
const THREADS: usize = 2;

fn play_all(seeds: u64) -> Vec<(u64, Played)> {
    let next = AtomicU64::new(0);
    let play_some = || {
        let mut played = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return played;
            }
            played.push((seed, play(seed)));
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(play_some)).collect();
        let all = threads
            .into_iter()
            .map(|one| one.join().expect("a run keeps its panics"));
        all.flatten().collect()
    })
}

#[test]
fn one_of_three_instances_may_fail_in_any_way_and_no_safe_request_does() {
    let mut tally = Tally::default();
    for (seed, played) in play_all(OF_EACH * Trouble::ALL.len() as u64) {
        assert!(
            played.hurt.is_empty(),
            "seed {seed}: {:?}\n{:#?}",
            played.plot,
            played.hurt
        );
        tally.add(&played.tally);
    }
    println!("{tally}");
    // A simulation in which nothing happens proves nothing.
    for what in [
        "hedge",
        "retry",
        "second connect",
        "suspected",
        "unreachable",
        "sick",
        "returned",
        "two at once",
        "overload shed",
        "lost with the instance",
    ] {
        assert!(tally.of(what) >= 20, "too little of `{what}`: {tally}");
    }
    // In one run chance decides which of three good instances gets most; over all it is even.
    let (got, third) = (
        tally.of("to one that came back"),
        tally.of("its third would be"),
    );
    assert!(
        got * 4 > third * 3 && got * 3 < third * 4,
        "not their share: {tally}"
    );
}
