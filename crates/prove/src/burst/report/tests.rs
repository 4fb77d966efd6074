use super::*;
use crate::burst::clients::Sent;

const PLAN: Plan = Plan {
    rate: 10.0,
    burst: Duration::from_secs(2),
};
const EACH: u64 = 100;

/// Two publishers of a hundred each, all confirmed and delivered in turn, and a backlog that rises to 120 and falls.
fn good() -> Evidence {
    let published = Published {
        confirmed: vec![true; 100],
        ..Published::default()
    };
    let came = (0..EACH).flat_map(|number| [0, 1].map(|publisher| Sent { publisher, number }));
    let backlog = |ms: u64| match ms {
        3000..5000 => (ms - 3000) * 120 / 2000,
        5000..9000 => 120 - (ms - 5000) * 120 / 4000,
        _ => 1,
    };
    let looks = (0..110).map(|look| look * 100).map(|ms| Look {
        at: Duration::from_millis(ms),
        backlog: backlog(ms),
    });
    Evidence {
        plan: PLAN,
        published: vec![published.clone(), published],
        consumed: Consumed {
            came: came.collect(),
            broke: None,
        },
        looks: looks.collect(),
        asked: Vec::new(),
        left: Ok(0),
    }
}

#[track_caller]
fn assert_found(evidence: Evidence, outcome: Outcome, problem: &str) {
    let report = judge(evidence);
    assert_eq!(report.outcome, outcome, "{:?}", report.problems);
    let found = report.problems.iter().any(|one| one.contains(problem));
    assert!(found, "{problem}: {:?}", report.problems);
}

#[test]
fn a_burst_that_rises_and_falls_holds() {
    let report = judge(good());
    assert_eq!(report.outcome, Outcome::Holds, "{:?}", report.problems);
    assert_eq!(
        (report.published, report.delivered, report.lost),
        (200, 200, 0)
    );
    assert!((100..=120).contains(&report.peak), "{}", report.peak);
    // Ten or less are none: they are there 367 ms before the end.
    assert_eq!(report.empty_after_ms, Some(3700));
    assert_eq!(report.empty_after_ms_by_rates, 4000);
}

#[test]
fn one_message_that_was_confirmed_and_never_came_does_not_hold() {
    let mut evidence = good();
    evidence.consumed.came.retain(|sent| {
        *sent
            != Sent {
                publisher: 1,
                number: 42,
            }
    });
    assert_found(
        evidence,
        Outcome::DoesNotHold,
        "1 messages were confirmed and never came",
    );
}

#[test]
fn one_that_was_not_confirmed_may_be_lost_but_is_told() {
    let mut evidence = good();
    evidence.published[0].confirmed[99] = false;
    evidence.consumed.came.retain(|sent| {
        *sent
            != Sent {
                publisher: 0,
                number: 99,
            }
    });
    let report = judge(evidence.clone());
    assert_eq!(report.lost, 0);
    assert_found(
        evidence,
        Outcome::DoesNotHold,
        "1 messages were never confirmed",
    );
}

#[test]
fn what_comes_twice_or_too_early_or_from_nowhere_does_not_hold() {
    let mut twice = good();
    twice.consumed.came.push(Sent {
        publisher: 0,
        number: 3,
    });
    let report = judge(twice.clone());
    assert_eq!((report.twice, report.out_of_order), (1, 0));
    assert_found(twice, Outcome::DoesNotHold, "1 messages came twice");
    let mut early = good();
    // The two stand beside each other in the order of their publisher.
    early.consumed.came.swap(10, 12);
    assert_found(early, Outcome::DoesNotHold, "1 messages came before others");
    let mut between = good();
    between.consumed.came.swap(10, 11);
    assert_eq!(
        judge(between).outcome,
        Outcome::Holds,
        "publishers have no order among them"
    );
    let mut strange = good();
    strange.consumed.came.push(Sent {
        publisher: 7,
        number: 0,
    });
    assert_found(
        strange,
        Outcome::DoesNotHold,
        "1 messages came that nobody had published",
    );
}

#[test]
fn what_is_left_or_cannot_be_told_does_not_hold() {
    let mut left = good();
    left.left = Ok(2);
    assert_found(left, Outcome::DoesNotHold, "2 messages were left");
    let mut unread = good();
    unread.left = Err("it is gone".to_owned());
    assert_found(unread, Outcome::DoesNotHold, "it is gone");
    let mut broke = good();
    broke.consumed.broke = Some("the broker closed the connection".to_owned());
    assert_found(broke, Outcome::DoesNotHold, "the consumer could not go on");
}

#[test]
fn a_backlog_that_stays_does_not_hold_and_one_that_never_was_is_no_proof() {
    let mut stays = good();
    stays.looks.retain(|look| look.at < Duration::from_secs(8));
    assert_found(stays, Outcome::DoesNotHold, "did not become empty");
    let mut flat = good();
    for look in &mut flat.looks {
        look.backlog = look.backlog.min(5);
    }
    assert_found(flat, Outcome::CouldNotRun, "there was no burst");
    let mut late = good();
    late.published[1].late = Duration::from_millis(1500);
    assert_found(late, Outcome::CouldNotRun, "1500 ms too late");
}

#[test]
fn what_the_broker_foretold_is_held_against_what_came_true_and_changes_no_verdict() {
    let mut evidence = good();
    // A slower fall, so that some of it is left once the broker's rates have settled.
    for look in &mut evidence.looks {
        look.at *= 4;
    }
    evidence.plan.burst = Duration::from_secs(8);
    let asked = |at, messages, seconds_to_empty| Asked {
        at: Duration::from_secs(at),
        told: Ok(Standing {
            messages,
            seconds_to_empty,
        }),
    };
    evidence.asked = vec![
        asked(12, 60, Some(1.0)),
        asked(20, 100, Some(14.0)),
        asked(24, 80, Some(10.0)),
        asked(28, 50, None),
        asked(34, 3, Some(1.0)),
        Asked {
            at: Duration::from_secs(35),
            told: Err("nobody answers".to_owned()),
        },
    ];
    let report = judge(evidence);
    let emptied = 11.0 + Duration::from_millis(report.empty_after_ms.unwrap()).as_secs_f64();
    let at: Vec<u64> = report.foretold.iter().map(|one| one.at_ms).collect();
    assert_eq!(at, [20_000, 24_000, 28_000]);
    assert!((report.foretold[1].was_s - (emptied - 24.0)).abs() < 1e-9);
    // 100 % for the one that said never is the largest of three.
    let off = report.foretold_off_percent.unwrap();
    assert!(off < 50.0, "{off}");
    assert_eq!(report.unasked.as_deref(), Some("nobody answers"));
    assert_eq!(
        report
            .problems
            .iter()
            .filter(|one| one.contains("broker"))
            .count(),
        0
    );
}
