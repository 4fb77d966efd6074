use super::*;
use crate::load::{Kind, Method};
use std::time::{Duration, Instant};

fn report(ok: u64) -> Report {
    let mut report = Report::new(Instant::now(), vec!["orders".into()]);
    report.planned = ok;
    report.targets[0].sent = ok;
    report.targets[0].ok = ok;
    report.targets[0].latency.record_n(2_000, ok).unwrap();
    report
}

fn lost(method: Method, instance: &str, sent_ms: u64, ended_ms: u64) -> Failure {
    Failure {
        planned_ms: sent_ms,
        sent_us: sent_ms * 1000,
        ended_us: ended_ms * 1000,
        method,
        path: "/orders".into(),
        nonce: format!("{sent_ms:016x}"),
        kind: Kind::Status {
            code: 502,
            reason: Some("lost-in-flight".into()),
        },
        instance: Some(instance.into()),
    }
}

fn fail(report: &mut Report, failure: Failure) {
    report.planned += 1;
    let target = &mut report.targets[0];
    target.sent += 1;
    *target.failed.entry(failure.kind.clone()).or_default() += 1;
    if failure.method.is_unsafe() && failure.kind.is_lost_in_flight() {
        target.lost_in_flight.push(failure.clone());
    }
    target.failures.push(failure);
}

/// Orders-1 is killed at 1.000 s and gone at 1.005 s.
fn evidence(load: Report) -> Evidence {
    let kill = Strike {
        instance: "orders-1".to_owned(),
        begin: Duration::from_secs(1),
        end: Duration::from_millis(1005),
    };
    Evidence {
        strikes: vec![kill],
        slos: vec![None],
        ..Evidence::new(Scenario::Kill, report(100), load)
    }
}

fn with(failures: impl IntoIterator<Item = Failure>) -> ScenarioReport {
    let mut load = report(1000);
    for failure in failures {
        fail(&mut load, failure);
    }
    let report = judge(evidence(load));
    assert_eq!(report.planned, report.sent + report.unsent);
    let listed = report.unsafe_in_flight.len() as u64;
    assert_eq!(report.sent, report.ok + report.failed + listed);
    report
}

#[test]
fn no_failure_holds() {
    let report = with([]);
    assert_eq!(
        (report.outcome, report.sent, report.failed),
        (Outcome::Holds, 1100, 0)
    );
    assert!(report.problems.is_empty());
}

#[test]
fn an_unsafe_request_in_flight_on_the_killed_instance_is_listed_and_not_failed() {
    let report = with([lost(Method::Post, "orders-1", 990, 1010)]);
    assert_eq!((report.outcome, report.failed), (Outcome::Holds, 0));
    assert_eq!(report.unsafe_in_flight.len(), 1);
    assert!(report.failed_by.is_empty() && report.failures.is_empty());
}

#[test]
fn a_listed_request_does_not_count_against_the_objective() {
    let mut load = report(1000);
    for _ in 0..5 {
        fail(&mut load, lost(Method::Post, "orders-1", 990, 1010));
    }
    let slo = Slo {
        success_ppm: 1_000_000,
        p99: Duration::from_secs(1),
    };
    let report = judge(Evidence {
        slos: vec![Some(slo)],
        ..evidence(load)
    });
    assert_eq!(report.unsafe_in_flight.len(), 5);
    assert_eq!(report.outcome, Outcome::Holds, "{:?}", report.problems);
    assert_eq!(report.objectives[0].success_ppm_seen, 1_000_000);
}

#[test]
fn any_other_lost_request_is_failed() {
    let not_pardoned = [
        ("safe", lost(Method::Get, "orders-1", 990, 1010)),
        (
            "on another instance",
            lost(Method::Post, "orders-2", 990, 1010),
        ),
        (
            "sent when it was gone",
            lost(Method::Post, "orders-1", 1006, 1010),
        ),
        (
            "ended before the kill",
            lost(Method::Post, "orders-1", 990, 999),
        ),
        (
            "nobody named",
            Failure {
                instance: None,
                ..lost(Method::Post, "", 990, 1010)
            },
        ),
        (
            "reset, so perhaps by the gateway",
            Failure {
                kind: Kind::Reset,
                ..lost(Method::Post, "orders-1", 990, 1010)
            },
        ),
    ];
    for (why, failure) in not_pardoned {
        let report = with([failure.clone(), lost(Method::Post, "orders-1", 995, 1020)]);
        assert_eq!(
            (report.outcome, report.failed),
            (Outcome::DoesNotHold, 1),
            "{why}"
        );
        assert_eq!(
            (report.failures, report.unsafe_in_flight.len()),
            (vec![failure], 1)
        );
    }
}

#[test]
fn a_rollout_pardons_nothing() {
    let mut load = report(1000);
    fail(&mut load, lost(Method::Post, "orders-1", 990, 1010));
    let report = judge(Evidence {
        strikes: Vec::new(),
        ..evidence(load)
    });
    assert_eq!((report.outcome, report.failed), (Outcome::DoesNotHold, 1));
}

/// Struck at 1 s, for 100 ms at most.
fn outage(victims: Victims) -> Outage {
    Outage {
        begin: Duration::from_secs(1),
        bar: Duration::from_millis(100),
        victims,
    }
}

fn with_outage(victims: Victims, kind: Kind, (sent_ms, ended_ms): (u64, u64)) -> ScenarioReport {
    let mut load = report(1000);
    let failure = Failure {
        kind,
        ..lost(Method::Get, "", sent_ms, ended_ms)
    };
    fail(&mut load, failure);
    judge(Evidence {
        outages: vec![outage(victims)],
        ..evidence(load)
    })
}

#[test]
fn an_outage_explains_what_failed_within_its_bar_and_nothing_else() {
    use Victims::{ByEnd, BySending};
    let cases = [
        (ByEnd, (990, 1090), true),
        (ByEnd, (990, 1200), false),
        (BySending, (990, 6000), true),
        (BySending, (1200, 1300), false),
        (BySending, (900, 990), false),
    ];
    for (victims, times, is_excused) in cases {
        let report = with_outage(victims, Kind::Reset, times);
        let outcome = if is_excused {
            Outcome::Holds
        } else {
            Outcome::DoesNotHold
        };
        assert_eq!(report.outcome, outcome, "{victims:?} {times:?}");
        assert_eq!(
            report.failed,
            u64::from(!is_excused),
            "{victims:?} {times:?}"
        );
        assert_eq!(report.outages[0].failed, u64::from(is_excused));
        assert_eq!(
            report.sent,
            report.ok + report.failed + report.outages[0].failed
        );
    }
}

#[test]
fn a_wrong_answer_is_excused_by_nothing() {
    let wrong = Kind::Status {
        code: 421,
        reason: Some(WRONG_SERVICE.to_owned()),
    };
    let report = with_outage(Victims::ByEnd, wrong, (1010, 1020));
    assert_eq!((report.outcome, report.failed), (Outcome::DoesNotHold, 1));
    let told = report.problems.join(" ");
    assert!(told.contains("1 of them reached another service"), "{told}");
    let report = judge(Evidence {
        datagrams: Some(DatagramReport {
            asked: 9,
            answered: 8,
            wrong: 1,
            silence_ms_max: 0,
        }),
        ..evidence(self::report(1000))
    });
    assert_eq!(report.outcome, Outcome::DoesNotHold);
}

#[test]
fn a_figure_beyond_its_bar_does_not_hold_and_one_without_is_only_told() {
    for (bar, outcome) in [
        (None, Outcome::Holds),
        (Some(10.0), Outcome::Holds),
        (Some(9.0), Outcome::DoesNotHold),
    ] {
        let figure = Figure {
            what: "silence".to_owned(),
            unit: "ms",
            value: 10.0,
            bar,
        };
        let report = judge(Evidence {
            figures: vec![figure],
            ..evidence(self::report(1000))
        });
        assert_eq!(report.outcome, outcome, "{bar:?}");
    }
}

#[test]
fn a_failure_before_any_fault_counts() {
    let mut control = report(100);
    fail(&mut control, lost(Method::Post, "orders-1", 990, 1010));
    let report = judge(Evidence {
        control,
        ..evidence(report(1000))
    });
    assert_eq!((report.outcome, report.failed), (Outcome::DoesNotHold, 1));
    assert!(
        report
            .problems
            .iter()
            .any(|problem| problem.contains("before anything"))
    );
}

#[test]
fn less_load_than_planned_is_no_proof_and_hides_no_failure() {
    let mut load = report(1000);
    load.planned += 5;
    load.unsent += 5;
    let slow = judge(evidence(load));
    assert_eq!((slow.outcome, slow.unsent), (Outcome::CouldNotRun, 5));
    let mut load = report(1000);
    load.unsent += 5;
    fail(&mut load, lost(Method::Get, "orders-1", 1, 2));
    assert_eq!(judge(evidence(load)).outcome, Outcome::DoesNotHold);
}

#[test]
fn what_does_not_get_whole_again_does_not_hold_and_what_could_not_be_tried_is_no_proof() {
    let troubles = [
        (Trouble::Unexpected("no".into()), Outcome::DoesNotHold),
        (Trouble::CannotBreak("no".into()), Outcome::CouldNotRun),
        (Trouble::Stopped, Outcome::CouldNotRun),
    ];
    for (trouble, outcome) in troubles {
        let report = judge(Evidence {
            trouble: Some(trouble),
            ..evidence(report(1000))
        });
        assert_eq!((report.outcome, report.problems.len()), (outcome, 1));
    }
}

#[test]
fn an_objective_is_held_unless_it_was_missed_without_faults_too() {
    let slo = |ms| Slo {
        success_ppm: 999_000,
        p99: Duration::from_millis(ms),
    };
    let slow = |count| {
        let mut report = report(1000);
        report.targets[0].latency.record_n(80_000, count).unwrap();
        report
    };
    let judged = |control, load, ms| {
        judge(Evidence {
            control,
            slos: vec![Some(slo(ms))],
            ..evidence(load)
        })
        .outcome
    };
    assert_eq!(judged(report(100), slow(100), 100), Outcome::Holds);
    assert_eq!(judged(report(100), slow(100), 50), Outcome::DoesNotHold);
    assert_eq!(judged(slow(100), slow(100), 50), Outcome::CouldNotRun);
    assert_eq!(percent(999_500), "99.95 %");
    assert_eq!(percent(1_000_000), "100 %");
}
