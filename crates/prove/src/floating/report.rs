//! What the clients saw, held against the bars. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::clients::{Asked, DEADLINE, Kind, Seen};
use super::scenario::Scenario;
use crate::verdict::Outcome;

/// An answer that takes longer is none for whoever waits: the rule by which an outage is measured.
const SERVED_WITHIN: Duration = Duration::from_millis(250);

/// What all scenarios together show.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Verdict {
    /// The worst of the scenarios'.
    pub outcome: Outcome,
    /// One per scenario.
    pub scenarios: Vec<Report>,
}

/// What one scenario shows.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Report {
    /// Which.
    pub scenario: Scenario,
    /// Whether the bars were met.
    pub outcome: Outcome,
    /// Which were not.
    pub problems: Vec<String>,
    /// What each kind of clients saw.
    pub clients: Vec<ClientsSaw>,
    /// The longest time in which no new connection was served, in milliseconds.
    pub outage_ms: u64,
    /// The same in the undisturbed round.
    pub outage_control_ms: u64,
    /// What it may be, beside that.
    pub outage_bar_ms: u64,
    /// What was done.
    pub done: Vec<Done>,
    /// What became of the address, with reasons.
    pub moves: Vec<Move>,
}

/// What clients of one kind saw.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ClientsSaw {
    /// Which.
    pub kind: Kind,
    /// Their requests, or messages.
    pub asked: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those of them that an outage does not explain.
    pub failed_otherwise: u64,
    /// The failed ones by what went wrong.
    pub failed_by: BTreeMap<String, u64>,
    /// WebSockets that were ended, of which clients opened others.
    pub sessions_ended: u64,
    /// The longest time that an answer took, in milliseconds.
    pub slowest_ms: u64,
}

/// Something that was done.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Done {
    /// Since the clients began.
    pub at_ms: u64,
    /// What.
    pub what: String,
}

/// A change of a node's state.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Move {
    /// Whose.
    pub node: String,
    /// Since the clients began.
    pub at_ms: u64,
    /// What it became.
    pub state: String,
    /// Why.
    pub why: String,
}

/// Everything that a report is made of.
pub(super) struct Evidence {
    pub(super) scenario: Scenario,
    pub(super) started: Instant,
    pub(super) done: Vec<(Instant, String)>,
    pub(super) asked: Vec<Asked>,
    pub(super) moves: Vec<Move>,
}

pub(super) fn judge(evidence: Evidence) -> Report {
    let Evidence {
        scenario,
        started,
        done,
        asked,
        moves,
    } = evidence;
    let first = done.first().map_or(started, |(at, _)| *at);
    let control = longest_pause(&asked, |began| began < first);
    let outage = longest_pause(&asked, |_| true);
    let bar = scenario.outage_max() + control;
    let windows: Vec<(Instant, Instant)> = if scenario.is_planned() {
        Vec::new()
    } else {
        done.iter().map(|(at, _)| (*at, *at + bar)).collect()
    };
    let clients = Kind::all().map(|kind| saw(kind, &asked, &windows));
    let mut problems = Vec::new();
    for saw in &clients {
        if saw.failed_otherwise > 0 {
            problems.push(format!(
                "{} requests of clients with {} failed that no outage explains",
                saw.failed_otherwise,
                saw.kind.describe()
            ));
        }
        if saw.asked == 0 {
            problems.push(format!(
                "clients with {} asked nothing",
                saw.kind.describe()
            ));
        }
    }
    if outage > bar {
        problems.push(format!(
            "for {} ms no new connection was served; {} ms are the most, with the {} ms of the undisturbed round",
            outage.as_millis(),
            bar.as_millis(),
            control.as_millis()
        ));
    }
    let taken = moves
        .iter()
        .filter(|change| change.state == "master")
        .count();
    if taken != scenario.moves() {
        let wanted = scenario.moves();
        problems.push(format!(
            "the address got a new holder {taken} times, not {wanted}"
        ));
    }
    Report {
        scenario,
        outcome: if problems.is_empty() {
            Outcome::Holds
        } else {
            Outcome::DoesNotHold
        },
        problems,
        clients: clients.to_vec(),
        outage_ms: ms(outage),
        outage_control_ms: ms(control),
        outage_bar_ms: ms(scenario.outage_max()),
        done: done.iter().map(|done| Done::of(started, done)).collect(),
        moves,
    }
}

fn saw(kind: Kind, asked: &[Asked], windows: &[(Instant, Instant)]) -> ClientsSaw {
    let mut saw = ClientsSaw {
        kind,
        asked: 0,
        failed: 0,
        failed_otherwise: 0,
        failed_by: BTreeMap::new(),
        sessions_ended: 0,
        slowest_ms: 0,
    };
    for one in asked.iter().filter(|one| one.kind == kind) {
        saw.asked += 1;
        match &one.seen {
            Seen::Answered => saw.slowest_ms = saw.slowest_ms.max(ms(one.took)),
            Seen::SessionEnded => saw.sessions_ended += 1,
            Seen::Failed(why) => {
                saw.failed += 1;
                *saw.failed_by.entry(why.clone()).or_default() += 1;
                let ended = one.began + one.took.min(DEADLINE);
                let explained = |window: &(Instant, Instant)| {
                    let (from, until) = *window;
                    one.began <= until && ended >= from
                };
                if !windows.iter().any(explained) {
                    saw.failed_otherwise += 1;
                }
            }
        }
    }
    saw
}

/// The longest time between the begins of two new connections that were served at once, with none between them.
fn longest_pause(asked: &[Asked], counts: impl Fn(Instant) -> bool) -> Duration {
    let served = asked.iter().filter(|one| {
        let served = one.seen == Seen::Answered && one.took <= SERVED_WITHIN;
        one.kind == Kind::New && served && counts(one.began)
    });
    let begins: Vec<Instant> = served.map(|one| one.began).collect();
    let pauses = begins.windows(2).map(|two| two[1].duration_since(two[0]));
    pauses.max().unwrap_or(DEADLINE)
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// New connections every ten milliseconds for three seconds; `seen` says what became of the one at this millisecond.
    fn clients(start: Instant, seen: impl Fn(u64) -> Seen) -> Vec<Asked> {
        let new = (0..300).map(|at| at * 10).map(|at| Asked {
            kind: Kind::New,
            began: start + Duration::from_millis(at),
            took: Duration::from_millis(5),
            seen: seen(at),
        });
        let others = [Kind::Kept, Kind::Http2, Kind::Websocket].map(|kind| Asked {
            kind,
            began: start,
            took: Duration::from_millis(5),
            seen: Seen::Answered,
        });
        new.chain(others).collect()
    }

    fn report(scenario: Scenario, seen: impl Fn(u64) -> Seen) -> Report {
        let started = Instant::now();
        let taken = Move {
            node: "b".to_owned(),
            at_ms: 1000,
            state: "master".to_owned(),
            why: "a test".to_owned(),
        };
        judge(Evidence {
            scenario,
            started,
            done: vec![(started + Duration::from_secs(1), "a fault".to_owned())],
            asked: clients(started, seen),
            moves: vec![taken; scenario.moves()],
        })
    }

    fn failed_between(from: u64, until: u64) -> impl Fn(u64) -> Seen {
        move |at| {
            if (from..until).contains(&at) {
                Seen::Failed("refused".to_owned())
            } else {
                Seen::Answered
            }
        }
    }

    #[test]
    fn what_fails_in_an_outage_that_is_short_enough_is_told_and_holds() {
        let report = report(Scenario::HostGone, failed_between(1000, 1300));
        assert_eq!(report.outcome, Outcome::Holds, "{:?}", report.problems);
        assert_eq!((report.outage_ms, report.clients[0].failed), (310, 30));
        assert_eq!(report.outage_control_ms, 10);
    }

    #[test]
    fn an_outage_that_is_too_long_and_a_failure_out_of_it_do_not_hold() {
        let long = report(Scenario::HostGone, failed_between(1000, 1400));
        assert_eq!(long.outcome, Outcome::DoesNotHold);
        let later = report(Scenario::HostGone, failed_between(2000, 2010));
        assert_eq!(later.clients[0].failed_otherwise, 1);
        assert_eq!(later.outcome, Outcome::DoesNotHold);
    }

    #[test]
    fn what_is_done_on_purpose_may_fail_nothing_and_an_address_that_does_not_move_is_told() {
        let one = report(Scenario::Move, failed_between(1000, 1010));
        assert_eq!(one.clients[0].failed_otherwise, 1);
        assert_eq!(one.outcome, Outcome::DoesNotHold);
        assert_eq!(
            report(Scenario::Move, |_| Seen::Answered).outcome,
            Outcome::Holds
        );
        let started = Instant::now();
        let still = judge(Evidence {
            scenario: Scenario::Move,
            started,
            done: vec![(started, "a move".to_owned())],
            asked: clients(started, |_| Seen::Answered),
            moves: Vec::new(),
        });
        assert!(
            still.problems[0].contains("0 times, not 1"),
            "{:?}",
            still.problems
        );
    }
}
