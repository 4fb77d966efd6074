//! What becomes of one request, told as its driver sees it.

use super::super::budget::RetryBudget;
use super::*;
use crate::balance::{IdempotencyKey, Limiting, LineBounds, Listed, Policy, Role};
use alloc::vec;
use mainstay_model::routing::EndpointHealth;

const MS: Duration = Duration::from_millis(1);
const POLICY: Policy = Policy {
    retrying: Retrying::On,
    hedging: Hedging::On,
    patience: Patience::Short,
    limiting: Limiting::On,
    key: IdempotencyKey::Ignored,
    most: None,
    line: LineBounds {
        len: 2,
        time: Duration::from_secs(1),
    },
};

const REPLAYABLE: Body = Body::Replayable;

fn at(ms: u64) -> Instant {
    Instant::from_start(Duration::from_millis(ms))
}

fn demand(method: &str, content: Content) -> Demand {
    Demand {
        safety: MethodSafety::of(method),
        content,
        priority: Priority::Normal,
    }
}

/// A worker with one service and one request.
struct Stage {
    balancer: Balancer<usize>,
    budget: RetryBudget,
    loads: Vec<Load>,
    draws: u64,
    unavailable: Option<Unavailable>,
    learnt: Vec<(usize, Outcome)>,
    course: Course,
}

impl Stage {
    fn new(endpoints: usize, demand: Demand) -> Self {
        Self::with(POLICY, endpoints, demand)
    }

    fn with(policy: Policy, endpoints: usize, demand: Demand) -> Self {
        let mut balancer = Balancer::new(at(0), policy);
        let listed = (0..endpoints).map(|endpoint| Listed {
            endpoint,
            health: EndpointHealth::Passing,
            role: Role::EVEN,
            intake: mainstay_model::Intake::default(),
        });
        balancer.update(at(0), listed.collect());
        Self {
            balancer,
            budget: RetryBudget::new(at(0)),
            loads: vec![Load::default(); endpoints],
            draws: 7,
            unavailable: None,
            learnt: Vec::new(),
            course: Course::new(demand),
        }
    }

    fn next_request(&mut self, demand: Demand) {
        self.course = Course::new(demand);
    }

    fn tell(&mut self, ms: u64, event: Event) -> Next {
        self.draws += 1;
        let mut learnt = Vec::new();
        let mut note = |one: Learnt| learnt.push((one.picked, one.outcome));
        let loads = &self.loads;
        let mut scene = Scene {
            now: at(ms),
            random: mix(self.draws, 5),
            balancer: &mut self.balancer,
            budget: &mut self.budget,
            unavailable: self.unavailable,
            wish: Wish::NONE,
            traits: &|_| unreachable!("nothing is wished"),
            load: |endpoint: &usize| loads[*endpoint],
            learnt: &mut note,
        };
        let next = self.course.handle(&mut scene, event);
        for (picked, outcome) in learnt {
            let endpoint = self.balancer.set().get(picked);
            self.learnt
                .extend(endpoint.map(|endpoint| (*endpoint, outcome)));
        }
        next
    }

    /// The lane and the endpoint of a begin.
    fn begun(&self, next: Next) -> (Lane, usize) {
        match next {
            Next::Begin(lane, picked, _) => {
                (lane, *self.balancer.set().get(picked).expect("listed"))
            }
            Next::Wait(_) | Next::Deliver(_) | Next::Refuse(_) => panic!("{next:?}"),
        }
    }

    /// Comes, and is sent where it was begun.
    fn send(&mut self, ms: u64) -> (Lane, usize) {
        let next = self.tell(ms, Event::Come);
        let (lane, endpoint) = self.begun(next);
        assert_eq!(self.tell(ms, Event::Sent(lane)), Next::Wait(For::Answer));
        (lane, endpoint)
    }

    /// Lets the service be known as one that answers within this time.
    fn warm_up(&mut self, ms: u64, took: Duration) {
        for _ in 0..100 {
            self.balancer.recent.observe(at(ms), took);
        }
    }
}

fn get() -> Demand {
    demand("GET", Content::Bare)
}

#[test]
fn a_late_answer_is_asked_for_elsewhere_and_the_first_to_come_is_delivered() {
    let mut stage = Stage::new(3, get());
    stage.warm_up(0, MS * 8);
    let (first, slow) = stage.send(1_000);
    let wake = stage.course.wake();
    assert!(wake > at(1_008) && wake < at(1_010), "after p95: {wake:?}");
    let next = stage.tell(1_010, Event::Tick);
    let (second, other) = stage.begun(next);
    assert!(matches!(next, Next::Begin(_, _, Why::Hedge)));
    assert_ne!(slow, other);
    stage.tell(1_010, Event::Sent(second));
    assert!(stage.course.runs(first) && stage.course.runs(second));
    let next = stage.tell(1_015, Event::Head(second, 200, REPLAYABLE));
    assert_eq!(next, Next::Deliver(second));
    assert!(!stage.course.runs(first), "the loser is ended");
    let learnt = [(other, Outcome::Answered), (slow, Outcome::Overtaken)];
    assert_eq!(stage.learnt, learnt);
}

#[test]
fn a_hedge_that_loses_speaks_against_nobody() {
    let mut stage = Stage::new(3, get());
    let (first, endpoint) = stage.send(0);
    let next = stage.tell(100, Event::Tick);
    let (second, _) = stage.begun(next);
    stage.tell(100, Event::Sent(second));
    let next = stage.tell(101, Event::Head(first, 200, REPLAYABLE));
    assert_eq!(next, Next::Deliver(first));
    assert_eq!(stage.learnt, [(endpoint, Outcome::Answered)]);
}

#[test]
fn nothing_but_a_bare_safe_request_is_ever_out_twice() {
    for (method, content) in [
        ("POST", Content::Bare),
        ("PUT", Content::Bare),
        ("DELETE", Content::Bare),
        ("GET", Content::More),
    ] {
        let mut stage = Stage::new(3, demand(method, content));
        stage.send(0);
        assert_eq!(stage.course.wake(), Instant::NEVER, "{method}");
        assert_eq!(stage.tell(50_000, Event::Tick), Next::Wait(For::Answer));
    }
}

#[test]
fn a_service_that_forbids_hedges_gets_none() {
    let policy = Policy {
        hedging: Hedging::Off,
        ..POLICY
    };
    let mut stage = Stage::with(policy, 3, get());
    stage.send(0);
    assert_eq!(stage.course.wake(), Instant::NEVER);
}

#[test]
fn there_is_no_hedge_without_another_endpoint_or_above_four_fifths_of_what_they_bear() {
    let mut alone = Stage::new(1, get());
    alone.send(0);
    assert_eq!(alone.tell(100, Event::Tick), Next::Wait(For::Answer));
    let mut busy = Stage::new(3, get());
    busy.send(0);
    busy.loads = vec![
        Load {
            in_flight: 0,
            waiting: 161,
        };
        3
    ];
    assert_eq!(busy.tell(100, Event::Tick), Next::Wait(For::Answer));
    assert_eq!(busy.course.wake(), at(200), "it is thought of again");
    busy.loads = vec![Load::default(); 3];
    assert!(matches!(busy.tell(200, Event::Tick), Next::Begin(..)));
}

#[test]
fn hedges_come_out_of_the_same_budget_as_retries() {
    let mut stage = Stage::new(3, get());
    stage.send(0);
    while stage.budget.withdraw(at(100)) {}
    assert_eq!(stage.tell(100, Event::Tick), Next::Wait(For::Answer));
}

#[test]
fn two_that_are_frozen_at_once_do_not_keep_a_request_from_the_third() {
    let mut stage = Stage::new(3, get());
    let (_, first) = stage.send(0);
    let next = stage.tell(100, Event::Tick);
    let (lane, second) = stage.begun(next);
    stage.tell(100, Event::Sent(lane));
    let next = stage.tell(200, Event::Tick);
    let (lane, third) = stage.begun(next);
    stage.tell(200, Event::Sent(lane));
    let mut all = [first, second, third];
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2]);
    let next = stage.tell(203, Event::Head(lane, 200, REPLAYABLE));
    assert_eq!(next, Next::Deliver(lane));
}

#[test]
fn a_connection_that_does_not_come_about_is_sought_elsewhere_for_any_method_and_used_once() {
    let mut stage = Stage::new(2, demand("POST", Content::More));
    let next = stage.tell(0, Event::Come);
    let (first, hole) = stage.begun(next);
    assert_eq!(stage.course.wake(), Instant::START.after(CONNECT_PATIENCE));
    let next = stage.tell(75, Event::Tick);
    let (second, _) = stage.begun(next);
    assert!(matches!(next, Next::Begin(_, _, Why::Impatience)));
    assert!(stage.course.runs(first), "the first may still come about");
    stage.tell(76, Event::Sent(second));
    assert!(!stage.course.runs(first), "and is not used any more");
    assert_eq!(stage.learnt, [(hole, Outcome::ConnectFailed)]);
}

#[test]
fn the_first_connection_is_used_if_it_comes_about_first_after_all() {
    let mut stage = Stage::new(2, demand("POST", Content::More));
    let next = stage.tell(0, Event::Come);
    let (first, _) = stage.begun(next);
    let next = stage.tell(75, Event::Tick);
    let (second, _) = stage.begun(next);
    stage.tell(76, Event::Sent(first));
    assert!(!stage.course.runs(second));
    assert_eq!(stage.learnt, [], "the second had no time");
}

#[test]
fn after_a_reset_or_a_verdict_of_death_a_put_goes_elsewhere_and_a_post_does_not() {
    for loss in [Loss::Broken, Loss::Dead] {
        let mut stage = Stage::new(2, demand("PUT", Content::More));
        let (lane, first) = stage.send(0);
        let next = stage.tell(1, Event::Lost(lane, loss, REPLAYABLE));
        assert_ne!(stage.begun(next).1, first);
        let mut stage = Stage::new(2, demand("PUT", Content::More));
        let (lane, _) = stage.send(0);
        let next = stage.tell(1, Event::Lost(lane, loss, Body::Consumed));
        assert_eq!(next, Next::Refuse(Defeat::LostInFlight), "its body is gone");
        let mut stage = Stage::new(2, demand("POST", Content::More));
        let (lane, _) = stage.send(0);
        let next = stage.tell(1, Event::Lost(lane, loss, REPLAYABLE));
        assert_eq!(next, Next::Refuse(Defeat::LostInFlight));
    }
    let mut stage = Stage::new(2, demand("PUT", Content::Bare));
    let (lane, _) = stage.send(0);
    let next = stage.tell(1, Event::Lost(lane, Loss::TimedOut, REPLAYABLE));
    assert_eq!(
        next,
        Next::Refuse(Defeat::LostInFlight),
        "it may only be late"
    );
}

#[test]
fn a_loss_while_a_second_copy_is_out_only_waits_for_that() {
    let mut stage = Stage::new(3, get());
    let (first, _) = stage.send(0);
    let next = stage.tell(100, Event::Tick);
    let (second, _) = stage.begun(next);
    stage.tell(100, Event::Sent(second));
    let next = stage.tell(101, Event::Lost(first, Loss::Broken, REPLAYABLE));
    assert_eq!(next, Next::Wait(For::Answer));
    let next = stage.tell(102, Event::Head(second, 503, REPLAYABLE));
    assert!(matches!(next, Next::Begin(_, _, Why::Again)), "{next:?}");
}

#[test]
fn a_bad_answer_is_tried_elsewhere_once_it_is_safe_and_passed_on_if_there_is_no_elsewhere() {
    for (endpoints, method, again) in [(2, "GET", true), (1, "GET", false), (2, "PUT", false)] {
        let mut stage = Stage::new(endpoints, demand(method, Content::Bare));
        let (lane, _) = stage.send(0);
        let next = stage.tell(1, Event::Head(lane, 503, REPLAYABLE));
        assert_eq!(
            next != Next::Deliver(lane),
            again,
            "{method} of {endpoints}"
        );
    }
}

#[test]
fn when_all_are_busy_a_request_waits_in_the_line_and_one_too_many_is_refused() {
    let full = Load {
        in_flight: 0,
        waiting: 1_000,
    };
    let mut stage = Stage::new(2, get());
    stage.loads = vec![full; 2];
    let next = stage.tell(0, Event::Come);
    assert!(matches!(next, Next::Wait(For::Turn(_))), "{next:?}");
    let waiting = stage.course.clone();
    stage.next_request(get());
    stage.tell(1, Event::Come);
    let second = stage.course.clone();
    stage.next_request(get());
    assert_eq!(stage.tell(2, Event::Come), Next::Refuse(Defeat::Overloaded));
    stage.next_request(Demand {
        priority: Priority::Spared,
        ..get()
    });
    let next = stage.tell(3, Event::Come);
    assert!(
        matches!(next, Next::Begin(..)),
        "a check does not stand in line"
    );
    stage.loads[1].waiting = 3;
    stage.course = second;
    let next = stage.tell(4, Event::Turn);
    assert!(
        matches!(next, Next::Wait(For::Turn(_))),
        "it is not its turn"
    );
    stage.course = waiting;
    let next = stage.tell(4, Event::Turn);
    assert_eq!(stage.begun(next).1, 1);
    assert_eq!(stage.balancer.line().len(), 1);
}

#[test]
fn in_the_line_a_request_looks_for_room_by_itself_and_is_refused_when_its_time_is_over() {
    let mut stage = Stage::new(1, get());
    stage.loads[0].waiting = 1_000;
    stage.tell(0, Event::Come);
    assert_eq!(
        stage.course.wake(),
        at(5),
        "room may have been made by another worker"
    );
    let next = stage.tell(5, Event::Tick);
    assert!(matches!(next, Next::Wait(For::Turn(_))));
    assert_eq!(
        stage.tell(1_000, Event::Tick),
        Next::Refuse(Defeat::Overloaded)
    );
    assert!(stage.balancer.line().is_empty());
}

#[test]
fn a_few_checks_at_a_time_go_beyond_the_limit() {
    let spared = Demand {
        priority: Priority::Spared,
        ..get()
    };
    let mut stage = Stage::new(1, spared);
    stage.loads[0].waiting = 1_000;
    let mut under_way = Vec::new();
    for _ in 0..BEYOND_MAX {
        stage.next_request(spared);
        let (lane, _) = stage.send(0);
        under_way.push((lane, stage.course.clone()));
    }
    stage.next_request(spared);
    let next = stage.tell(0, Event::Come);
    assert!(matches!(next, Next::Wait(For::Turn(_))), "{next:?}");
    for (lane, course) in under_way {
        stage.course = course;
        stage.tell(1, Event::Head(lane, 200, REPLAYABLE));
    }
    stage.next_request(spared);
    assert!(
        matches!(stage.tell(2, Event::Come), Next::Begin(..)),
        "those have ended"
    );
}

#[test]
fn checks_pass_those_who_wait_only_as_a_few_and_one_that_failed_goes_on_as_the_same() {
    let spared = Demand {
        priority: Priority::Spared,
        ..get()
    };
    let mut stage = Stage::new(2, get());
    for load in &mut stage.loads {
        load.waiting = 1_000;
    }
    let next = stage.tell(0, Event::Come);
    assert!(matches!(next, Next::Wait(For::Turn(_))), "{next:?}");
    // There is room again, which belongs to whoever waits.
    stage.loads = vec![Load::default(); 2];
    for _ in 1..BEYOND_MAX {
        stage.next_request(spared);
        stage.send(1);
    }
    stage.next_request(spared);
    let (lane, first) = {
        let next = stage.tell(1, Event::Come);
        stage.begun(next)
    };
    let last = stage.course.clone();
    stage.next_request(spared);
    let next = stage.tell(1, Event::Come);
    assert!(matches!(next, Next::Wait(For::Turn(_))), "{next:?}");
    stage.course = last;
    let next = stage.tell(2, Event::ConnectFailed(lane));
    assert_ne!(stage.begun(next).1, first, "it is still one of the few");
}

#[test]
fn without_an_endpoint_it_waits_for_a_table_unless_nothing_will_change() {
    let mut stage = Stage::new(0, get());
    assert_eq!(stage.tell(0, Event::Come), Next::Wait(For::Change));
    assert_eq!(stage.course.wake(), at(1_000));
    let listed = Listed {
        endpoint: 0,
        health: EndpointHealth::Passing,
        role: Role::EVEN,
        intake: mainstay_model::Intake::default(),
    };
    stage.balancer.update(at(500), vec![listed]);
    stage.loads = vec![Load::default()];
    let next = stage.tell(500, Event::Changed);
    assert_eq!(stage.begun(next).1, 0);
    for (why, next) in [
        (None, Next::Refuse(Defeat::NoEndpoint)),
        (
            Some(Unavailable::Starting),
            Next::Refuse(Defeat::Unavailable(Unavailable::Starting)),
        ),
    ] {
        let mut stage = Stage::new(0, get());
        stage.unavailable = why;
        stage.tell(0, Event::Come);
        assert_eq!(stage.tell(1_000, Event::Tick), next);
    }
    let mut stage = Stage::new(0, get());
    stage.unavailable = Some(Unavailable::ScaledToZero);
    let defeat = Defeat::Unavailable(Unavailable::ScaledToZero);
    assert_eq!(stage.tell(0, Event::Come), Next::Refuse(defeat));
}

#[test]
fn endpoints_that_all_refuse_are_tried_in_rounds_for_a_second() {
    let mut stage = Stage::new(2, demand("POST", Content::More));
    let mut next = stage.tell(0, Event::Come);
    let (mut rounds, mut ms) = (0, 0);
    let defeat = loop {
        match next {
            Next::Begin(lane, ..) => next = stage.tell(ms, Event::ConnectFailed(lane)),
            Next::Wait(For::Change) => {
                rounds += 1;
                ms += 50;
                next = stage.tell(ms, Event::Tick);
            }
            Next::Refuse(defeat) => break defeat,
            Next::Wait(_) | Next::Deliver(_) => panic!("{next:?}"),
        }
    };
    assert_eq!((defeat, ms), (Defeat::AllFailed, 1_000));
    assert_eq!(rounds, 20);
}

#[test]
fn who_leaves_holds_no_place() {
    let mut stage = Stage::new(1, get());
    stage.loads[0].waiting = 1_000;
    stage.tell(0, Event::Come);
    assert_eq!(stage.balancer.line().len(), 1);
    stage.course.abandon(&mut stage.balancer);
    assert!(stage.balancer.line().is_empty());
}

/// The limit of an instance after many uploads of which each waited so long for its client.
fn limit_after_uploads(waited: Duration) -> u32 {
    const UPLOAD: u64 = 600;
    let mut stage = Stage::new(1, get());
    let mut limit = 200;
    for (at, took, demand) in (0..200)
        .map(|nth| (nth * 20, 10, get()))
        .chain((0..200).map(|nth| (4_000 + nth * UPLOAD, UPLOAD, demand("PUT", Content::More))))
    {
        stage.next_request(demand);
        stage.loads[0].waiting = limit * 3 / 4;
        let Next::Begin(lane, picked, _) = stage.tell(at, Event::Come) else {
            panic!("there is room");
        };
        stage.tell(at, Event::Sent(lane));
        if took == UPLOAD {
            stage.course.excuse(waited / 2);
            stage.course.excuse(waited / 2);
        }
        stage.tell(at + took, Event::Head(lane, 200, Body::Consumed));
        limit = stage.balancer.set().limit(picked).expect("it is listed");
    }
    limit
}

#[test]
fn the_time_in_which_a_client_was_waited_for_is_not_the_instances() {
    let start = limit_after_uploads(MS * 600);
    assert!(start >= 200, "{start}");
    let blamed = limit_after_uploads(Duration::ZERO);
    assert!(blamed < 100, "else this shows nothing: {blamed}");
}
