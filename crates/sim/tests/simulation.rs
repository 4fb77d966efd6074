//! That no promise is broken whatever goes wrong, and that the judge can see one that is.

use mainstay_control::{AcknowledgedDrain, Settings};
use mainstay_sim::{Campaign, Conditions, Promise, Trace, run};

/// `make soak` runs a hundred times as many.
const SEEDS: u64 = 500;

#[test]
fn no_promise_is_broken_whatever_goes_wrong() {
    let campaign = Campaign {
        from: 0,
        seeds: SEEDS,
        conditions: Conditions::default(),
        threads: 2,
    };
    let progress = campaign.run(|_| {});
    if let Some(failure) = &progress.failure {
        let seed = failure.seed;
        panic!(
            "replay it: cargo xtask sim --seed {seed} --trace\n{:#?}",
            failure.broken
        );
    }
    let tally = progress.tally;
    println!("{tally}");
    // A simulation in which nothing happens proves nothing.
    for what in [
        "agent killed",
        "before planned",
        "consumer gone",
        "consumer mute",
        "crash loop",
        "drain acknowledged",
        "drain time over",
        "drain unreachable",
        "encore",
        "instance held",
        "instance lost",
        "promoted",
        "reboot",
        "removed",
        "restart",
        "rollback by failure",
        "rollback by user",
        "rollout failed",
        "rollout finished",
        "rollout held",
        "rollout paused",
        "run planned",
        "save refused",
        "wall set",
    ] {
        assert!(tally.of(what) >= 50, "too little of `{what}`: {tally}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run_to_the_last_step() {
    for seed in [0, 7, 1234] {
        let one = run(seed, &Conditions::default(), Trace::Kept);
        let other = run(seed, &Conditions::default(), Trace::Kept);
        assert!(one.trace.len() > 300, "{}", one.trace.len());
        assert_eq!(one, other, "seed {seed}");
        let fast = run(seed, &Conditions::default(), Trace::Off);
        assert_eq!(
            (fast.tally, fast.simulated_ms),
            (one.tally, one.simulated_ms)
        );
    }
}

#[test]
fn without_the_acknowledged_drain_instances_are_stopped_under_requests() {
    let conditions = Conditions {
        settings: Settings {
            acknowledged_drain: AcknowledgedDrain::Off,
            ..Settings::default()
        },
        ..Conditions::default()
    };
    let red = (0..20).filter(|seed| {
        let outcome = run(*seed, &conditions, Trace::Off);
        let stops = |promise| {
            matches!(
                promise,
                Promise::StopsUnreached | Promise::SendsToNoneStopped
            )
        };
        outcome.broken.iter().any(|broken| stops(broken.promise))
    });
    assert!(
        red.count() >= 15,
        "the judge of stops does not see what it is there to see"
    );
}
