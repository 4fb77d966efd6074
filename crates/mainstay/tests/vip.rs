//! Floating addresses of `mainstay run` beside each other and beside the real keepalived, on a link of their own.

mod floating;

use std::time::Duration;

use floating::{Kind, Link, Plan};
use mainstay_testkit::{Carrier, is_root, skip};
use rustix::process::Signal;

const PAIRS: [[Kind; 2]; 3] = [
    [Kind::Ours, Kind::Ours],
    [Kind::Ours, Kind::Keepalived],
    [Kind::Keepalived, Kind::Ours],
];

macro_rules! need_root {
    () => {
        if !is_root() {
            return skip("needs root: makes network namespaces");
        }
    };
}

/// One holder, its host vanishes, both hold it while the link is split, one after that heals, it is stopped.
fn a_life(plan: &Plan) {
    for kinds in PAIRS {
        let mut link = Link::new(kinds, plan);
        link.start(0);
        link.wait_holder(0, "the better one starts alone");
        link.start(1);
        link.wait_holder(0, "the other one follows");
        link.segment.cut("a");
        link.wait_answer(1, "the host vanished");
        link.wait_holders([true, true], "each part has its holder");
        link.segment.heal("a");
        link.wait_holder(0, "the better one keeps it after the split");
        link.wait_answer(0, "clients know who has it after the split");
        link.stop(0);
        link.wait_holder(1, "the holder was stopped");
        link.wait_answer(1, "clients follow a stop");
    }
}

#[test]
fn system_the_address_survives_its_host_a_split_and_a_stop_in_version_3() {
    need_root!();
    a_life(&Plan::default());
}

#[test]
fn system_the_address_survives_its_host_a_split_and_a_stop_with_ipv6() {
    need_root!();
    a_life(&Plan {
        address: "fd88::100",
        ..Plan::default()
    });
}

#[test]
fn system_the_address_survives_its_host_a_split_and_a_stop_in_version_2() {
    need_root!();
    a_life(&Plan {
        version: 2,
        advert: Duration::from_secs(1),
        ..Plan::default()
    });
}

#[test]
fn system_with_unicast_peers_alone_the_same_election_is_held() {
    need_root!();
    a_life(&Plan {
        unicast: true,
        ..Plan::default()
    });
}

#[test]
fn system_who_comes_back_takes_the_address_only_if_that_is_written() {
    need_root!();
    for (preempt, holder) in [(false, 1), (true, 0)] {
        for kinds in PAIRS {
            let mut link = Link::new(
                kinds,
                &Plan {
                    preempt,
                    ..Plan::default()
                },
            );
            link.start(1);
            link.wait_holder(1, "the worse one is alone");
            link.start(0);
            // A better one that may not preempt is quiet, which is seen when it has listened for a second.
            link.wait_answers(1000, "both have heard each other");
            link.wait_holder(holder, "the better one is there");
        }
    }
}

#[test]
fn system_a_holder_that_is_killed_leaves_no_second_holder() {
    need_root!();
    let mut link = Link::new([Kind::Ours, Kind::Keepalived], &Plan::default());
    link.start(0);
    link.wait_holder(0, "the better one starts alone");
    link.start(1);
    link.wait_holder(0, "the other one follows");
    // With its supervisor, which would start another one at once.
    link.kill(0);
    let alone = link.wait_holder(1, "the kernel removed what nobody renewed");
    assert!(alone < Duration::from_secs(4), "two held it for {alone:?}");
    // One that is started again finds it taken.
    link.start(0);
    link.wait_answers(500, "it has listened");
    link.wait_holder(1, "it does not preempt");
}

#[test]
fn system_a_holder_without_a_carrier_gives_the_address_up_and_takes_part_again() {
    need_root!();
    let mut link = Link::new([Kind::Ours, Kind::Ours], &Plan::default());
    link.start(0);
    link.wait_holder(0, "the better one starts alone");
    link.start(1);
    link.segment.carrier("a", Carrier::Off);
    link.wait_holder(1, "its host lost the carrier");
    link.segment.carrier("a", Carrier::On);
    link.wait_state(0, "backup");
    link.kill(1);
    link.wait_answer(0, "it has the address again");
}

#[test]
fn system_a_planned_move_loses_nothing() {
    need_root!();
    let mut link = Link::new([Kind::Ours, Kind::Ours], &Plan::default());
    link.start(0);
    link.wait_holder(0, "the better one starts alone");
    link.start(1);
    link.wait_state(1, "backup");
    let probe = link.probe();
    link.wait_answers(200, "clients are served");
    let (code, said) = link.vip(0, &["move", "entry"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("10.88.0.2 holds entry now"), "{said}");
    link.wait_holder(1, "it was moved");
    let seen = probe.end();
    assert_eq!(seen.sent, seen.answered, "{seen:?}");
    // It was given away on purpose, and nobody can give what it does not have.
    let (code, said) = link.vip(0, &["move", "entry"]);
    assert_eq!(code, Some(4), "{said}");
    assert!(
        said.contains("not held here; 10.88.0.2 is its master"),
        "{said}"
    );
    let (_, shown) = link.vip(0, &[]);
    assert!(
        shown.contains("it was offered, and 10.88.0.2 has taken it"),
        "{shown}"
    );
}

#[test]
fn system_what_the_address_depends_on_takes_it_along() {
    need_root!();
    let track = "track = [{ process = \"ms-tracked\" }]";
    let mut link = Link::new(
        [Kind::Ours, Kind::Ours],
        &Plan {
            keys: ["", track],
            ..Plan::default()
        },
    );
    // The better one depends on nothing yet; the other one on a program that does not run.
    link.start(1);
    link.wait_state(1, "master");
    let (_, shown) = link.vip(1, &[]);
    assert!(shown.contains("the process ms-tracked is dead"), "{shown}");
    link.start(0);
    link.wait_holder(0, "whoever is unfit offers the address to who is not");
    let tracked = link.run_named("ms-tracked");
    link.wait_track(1, "works");
    link.stop(0);
    link.wait_holder(1, "it works now");
    link.start(0);
    link.wait_answers(500, "both have heard each other");
    link.wait_holder(1, "nobody preempts");
    tracked.signal(Signal::KILL);
    link.wait_holder(0, "what it depends on was killed");
    assert!(
        link.log(1)
            .contains("the process ms-tracked does not work any more")
    );
}
