//! That one instance of three may fail in any way and clients do not notice.

use mainstay_sim::{Tally, play};

/// `cargo xtask sim --entry --seeds 5000` plays more.
const SEEDS: u64 = 270;

#[test]
fn one_of_three_instances_may_fail_in_any_way_and_no_safe_request_does() {
    let mut tally = Tally::default();
    for seed in 0..SEEDS {
        let played = play(seed);
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
        "overload shed",
        "lost with the instance",
    ] {
        assert!(tally.of(what) >= 20, "too little of `{what}`: {tally}");
    }
}
