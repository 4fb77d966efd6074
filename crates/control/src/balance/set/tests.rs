//! How the choice among the endpoints of one service behaves.

use super::*;
use alloc::collections::BTreeMap;
use alloc::vec;
use mainstay_model::{IntakeState, Weight};

/// The plain choice: without limits, and one of `tried` if there is no other.
pub(super) fn pick<E>(
    set: &mut Set<E>,
    now: Instant,
    random: u64,
    tried: &[Tag],
    pending: impl Fn(&E) -> u32,
) -> Option<Picked> {
    let nothing = |_: &E| unreachable!("nothing is wished");
    choose(set, now, random, tried, (Wish::NONE, &nothing), pending)
}

/// The same by a wish.
pub(super) fn pick_by<E>(
    set: &mut Set<E>,
    now: Instant,
    random: u64,
    tried: &[Tag],
    wish: Wish,
    traits: impl Fn(&E) -> Traits,
) -> Option<Picked> {
    choose(set, now, random, tried, (wish, &traits), |_| 0)
}

fn choose<E>(
    set: &mut Set<E>,
    now: Instant,
    random: u64,
    tried: &[Tag],
    (wish, traits): (Wish, &dyn Fn(&E) -> Traits),
    pending: impl Fn(&E) -> u32,
) -> Option<Picked> {
    let need = Need {
        not: tried,
        probing: Probing::Repeatable,
        priority: Priority::Normal,
        wish,
        traits,
    };
    let load = |endpoint: &E| Load {
        in_flight: pending(endpoint),
        waiting: 0,
    };
    match set.choose(now, random, &need, load) {
        Choice::Picked(picked) => Some(picked),
        Choice::Full | Choice::Empty => None,
        Choice::NoOther => Some(set.picked(set.pool[scale(random, set.pool.len())])),
    }
}

/// What became of a try.
pub(super) fn finished<E>(
    set: &mut Set<E>,
    now: Instant,
    picked: Picked,
    took: Duration,
    tried: Try,
) -> Verdict {
    set.learn(now, picked, took, tried, 0)
}

const PASSING: EndpointHealth = EndpointHealth::Passing;
const FAILING: EndpointHealth = EndpointHealth::Failing;

fn at(ms: u64) -> Instant {
    Instant::from_start(Duration::from_millis(ms))
}

fn listed(endpoints: &[(&'static str, EndpointHealth)]) -> Vec<Listed<&'static str>> {
    let listed = endpoints.iter();
    listed
        .map(|(endpoint, health)| Listed {
            endpoint: *endpoint,
            health: *health,
            intake: Intake::default(),
            role: Role::EVEN,
        })
        .collect()
}

fn set(endpoints: &[(&'static str, EndpointHealth)]) -> Set<&'static str> {
    let mut set = Set::default();
    set.update(at(0), listed(endpoints));
    set
}

fn finish(set: &mut Set<&'static str>, ms: u64, picked: Picked, outcome: Outcome) -> Verdict {
    let tried = Try {
        outcome,
        sent: at(ms),
        jitter: 0.0,
    };
    finished(set, at(ms), picked, Duration::from_millis(1), tried)
}

/// How often each is chosen, of 3000.
fn shares(
    set: &mut Set<&'static str>,
    ms: u64,
    pending: impl Fn(&&'static str) -> u32,
) -> BTreeMap<&'static str, u32> {
    let mut shares = BTreeMap::new();
    for draw in 1..=3000 {
        let picked = pick(set, at(ms), mix(draw, draw), &[], &pending);
        let picked = picked.expect("the set is not empty");
        let endpoint = set.get(picked).expect("it is listed");
        *shares.entry(*endpoint).or_default() += 1;
    }
    shares
}

/// Picks until it is this endpoint.
fn picked(set: &mut Set<&'static str>, ms: u64, wanted: &str) -> Picked {
    let mut draws = (1..1000).map(|draw| mix(draw, 9));
    let found = draws.find_map(|draw| {
        let picked = pick(set, at(ms), draw, &[], |_| 0)?;
        (set.get(picked) == Some(&wanted)).then_some(picked)
    });
    found.expect("it is in the pool")
}

#[test]
fn equal_endpoints_share_evenly_and_the_busiest_is_spared() {
    let mut set = set(&[("a", PASSING), ("b", PASSING), ("c", PASSING)]);
    let even = shares(&mut set, 0, |_| 0);
    assert!(
        even.values().all(|count| (900..1100).contains(count)),
        "{even:?}"
    );
    let busy = shares(&mut set, 0, |endpoint| u32::from(*endpoint == "a") * 5);
    assert_eq!(
        busy.get("a"),
        None,
        "of any two the other is less loaded: {busy:?}"
    );
}

#[test]
fn a_slow_endpoint_is_spared_until_its_bad_moment_is_long_ago() {
    let mut set = set(&[("a", PASSING), ("b", PASSING), ("c", PASSING)]);
    for endpoint in ["a", "b", "c"] {
        let picked = picked(&mut set, 0, endpoint);
        finish(&mut set, 0, picked, Outcome::Answered);
    }
    let slow = picked(&mut set, 0, "a");
    finish(&mut set, 0, slow, Outcome::ServerError);
    assert_eq!(shares(&mut set, 1000, |_| 0).get("a"), None);
    for endpoint in ["b", "c"] {
        let fresh = picked(&mut set, 100_000, endpoint);
        finish(&mut set, 100_000, fresh, Outcome::Answered);
    }
    assert!(
        shares(&mut set, 100_000, |_| 0)["a"] > 500,
        "it is tried again"
    );
}

#[test]
fn a_request_goes_to_an_endpoint_that_has_not_failed_it_while_there_is_one() {
    let mut set = set(&[("a", PASSING), ("b", PASSING), ("c", PASSING)]);
    let mut tried = Vec::new();
    let mut seen = Vec::new();
    for draw in 0..3 {
        let picked = pick(&mut set, at(0), mix(draw, 3), &tried, |_| 0).expect("three");
        tried.push(picked.tag);
        seen.push(*set.get(picked).expect("listed"));
    }
    seen.sort_unstable();
    assert_eq!(seen, ["a", "b", "c"]);
    assert!(
        pick(&mut set, at(0), 7, &tried, |_| 0).is_some(),
        "better one twice than none"
    );
}

#[test]
fn after_one_refused_connection_an_endpoint_is_left_alone_even_in_panic() {
    let mut set = set(&[("a", PASSING), ("b", FAILING), ("c", FAILING)]);
    assert_eq!(
        shares(&mut set, 0, |_| 0).len(),
        3,
        "one of three is too few: panic"
    );
    let refused = picked(&mut set, 0, "b");
    let verdict = finish(&mut set, 0, refused, Outcome::ConnectFailed);
    assert_eq!(verdict, Verdict::Ejected { until: at(1000) });
    assert_eq!(shares(&mut set, 999, |_| 0).get("b"), None);
    for endpoint in ["a", "c"] {
        let refused = picked(&mut set, 999, endpoint);
        finish(&mut set, 999, refused, Outcome::ConnectFailed);
    }
    assert!(
        shares(&mut set, 999, |_| 0).len() > 1,
        "when all are, any may be tried"
    );
}

#[test]
fn a_failing_endpoint_gets_nothing_while_enough_pass() {
    let mut set = set(&[("a", PASSING), ("b", PASSING), ("c", FAILING)]);
    assert_eq!(shares(&mut set, 0, |_| 0).get("c"), None);
}

#[test]
fn bad_answers_eject_one_of_two_and_not_both() {
    let mut set = set(&[("a", PASSING), ("b", PASSING)]);
    let (a, b) = (picked(&mut set, 0, "a"), picked(&mut set, 0, "b"));
    for _ in 0..5 {
        finish(&mut set, 0, a, Outcome::GatewayError);
    }
    for _ in 0..9 {
        finish(&mut set, 0, b, Outcome::GatewayError);
    }
    assert_eq!(shares(&mut set, 9_999, |_| 0).len(), 1);
    let again = pick(&mut set, at(10_000), 1, &[], |_| 0);
    assert_eq!(again, Some(a), "it is given one request to show how it is");
    let other = pick(&mut set, at(10_000), 1, &[], |_| 0);
    assert_eq!(other, Some(b), "and no second meanwhile");
}

#[test]
fn who_joins_others_gets_its_share_by_and_by_and_who_leaves_is_gone_at_once() {
    let mut set = set(&[("a", PASSING), ("b", PASSING)]);
    let old = picked(&mut set, 0, "b");
    set.update(at(0), listed(&[("a", PASSING), ("c", PASSING)]));
    assert_eq!(set.get(old), None);
    assert_eq!(
        finish(&mut set, 0, old, Outcome::ConnectFailed),
        Verdict::Unchanged
    );
    let early = shares(&mut set, 100, |_| 0)["c"];
    let late = shares(&mut set, 10_000, |_| 0)["c"];
    assert!((50..300).contains(&early), "{early}");
    assert!(late > 1000, "{late}");
}

#[test]
fn an_empty_set_gives_nothing() {
    assert_eq!(pick(&mut set(&[]), at(0), 1, &[], |_| 0), None);
}

fn intake(state: IntakeState, percent: u16) -> Intake {
    let weight = Weight::new(percent).expect("legal");
    Intake { state, weight }
}

fn with_intakes(endpoints: &[(&'static str, EndpointHealth, Intake)]) -> Set<&'static str> {
    let mut set = Set::default();
    let listed = endpoints.iter().map(|(endpoint, health, intake)| Listed {
        endpoint: *endpoint,
        health: *health,
        intake: *intake,
        role: Role::EVEN,
    });
    set.update(at(0), listed.collect());
    set
}

#[test]
fn shares_follow_the_weights_and_load_still_matters() {
    let ready = |percent| intake(IntakeState::Ready, percent);
    let mut set = with_intakes(&[("a", PASSING, ready(50)), ("b", PASSING, ready(100))]);
    let half = shares(&mut set, 0, |_| 0);
    assert!((900..1100).contains(&half["a"]), "{half:?}");
    let busy = shares(&mut set, 0, |one| if *one == "b" { 9 } else { 0 });
    assert!(busy["a"] > 1500, "{busy:?}");
    // As many for what they weigh: none is spared for the other.
    let even = shares(&mut set, 0, |one| if *one == "b" { 4 } else { 2 });
    assert!((900..1100).contains(&even["a"]), "{even:?}");
    let mut set = with_intakes(&[
        ("a", PASSING, ready(256)),
        ("b", PASSING, ready(100)),
        ("c", PASSING, ready(100)),
        ("d", PASSING, ready(0)),
    ]);
    let more = shares(&mut set, 0, |_| 0);
    assert!((1550..1850).contains(&more["a"]), "{more:?}");
    assert!(!more.contains_key("d"), "{more:?}");
}

#[test]
fn whoever_is_drained_gets_nothing_not_even_for_want_of_better() {
    let drained = intake(IntakeState::Drain, 100);
    let ready = Intake::default();
    let mut set = with_intakes(&[
        ("a", PASSING, drained),
        ("b", FAILING, ready),
        ("c", PASSING, intake(IntakeState::Maintenance, 100)),
    ]);
    let shares = shares(&mut set, 0, |_| 0);
    assert_eq!(
        shares,
        BTreeMap::from([("b", 3000)]),
        "it fails its probes, and is all there is"
    );
    let only = pick(&mut set, at(0), 1, &[], |_| 0).expect("one");
    let nothing = |_: &&'static str| unreachable!("nothing is wished");
    let need = Need {
        not: &[only.tag],
        probing: Probing::Repeatable,
        priority: Priority::Normal,
        wish: Wish::NONE,
        traits: &nothing,
    };
    assert_eq!(
        set.choose(at(0), 1, &need, |_| Load::default()),
        Choice::NoOther
    );
    let need = Need { not: &[], ..need };
    set.update(
        at(0),
        vec![Listed {
            endpoint: "a",
            health: PASSING,
            intake: drained,
            role: Role::EVEN,
        }],
    );
    assert_eq!(
        set.choose(at(0), 1, &need, |_| Load::default()),
        Choice::Empty
    );
    assert_eq!(
        set.choose_beside(at(0), 1, &need, |_| Load::default()),
        None
    );
}

#[test]
fn one_more_that_is_drained_is_no_reason_for_panic() {
    let drained = intake(IntakeState::Drain, 100);
    let ready = Intake::default();
    let mut set = with_intakes(&[
        ("a", PASSING, ready),
        ("b", FAILING, ready),
        ("c", PASSING, drained),
        ("d", PASSING, drained),
    ]);
    assert_eq!(shares(&mut set, 0, |_| 0), BTreeMap::from([("a", 3000)]));
}

#[test]
fn whoever_gets_requests_again_warms_up() {
    let drained = intake(IntakeState::Drain, 100);
    let list = |intake| {
        [("a", Intake::default()), ("b", intake)].map(|(endpoint, intake)| Listed {
            endpoint,
            health: PASSING,
            intake,
            role: Role::EVEN,
        })
    };
    let mut set = Set::default();
    set.update(at(0), list(drained).into());
    set.update(at(20_000), list(Intake::default()).into());
    let cold = shares(&mut set, 20_000, |_| 0);
    assert!(cold["b"] < 300, "{cold:?}");
    let warm = shares(&mut set, 31_000, |_| 0);
    assert!(warm["b"] > 1300, "{warm:?}");
}

fn with_roles(roles: &[(&'static str, Role)]) -> Set<&'static str> {
    let mut set = Set::default();
    let listed = roles.iter().map(|(endpoint, role)| Listed {
        endpoint: *endpoint,
        health: PASSING,
        intake: Intake::default(),
        role: *role,
    });
    set.update(at(0), listed.collect());
    set
}

const RESERVE: Role = Role {
    rank: Rank::Backup,
    ..Role::EVEN
};

fn weighing(weight: u32) -> Role {
    Role {
        weight: NonZeroU32::new(weight).expect("not zero"),
        ..Role::EVEN
    }
}

#[test]
fn a_reserve_is_asked_only_while_none_of_the_others_is_good() {
    let mut set = with_roles(&[("a", Role::EVEN), ("b", Role::EVEN), ("r", RESERVE)]);
    let even = shares(&mut set, 0, |_| 0);
    assert_eq!(even.get("r"), None, "{even:?}");
    // One request that both have failed goes to the reserve, rather than nowhere.
    let tried = [picked(&mut set, 0, "a").tag, picked(&mut set, 0, "b").tag];
    let other = pick(&mut set, at(0), 1, &tried, |_| 0).and_then(|picked| set.get(picked).copied());
    assert_eq!(other, Some("r"));
    for endpoint in ["a", "b"] {
        let one = picked(&mut set, 0, endpoint);
        finish(&mut set, 0, one, Outcome::ConnectFailed);
    }
    let ejected = shares(&mut set, 1, |_| 0);
    assert_eq!(ejected.into_iter().collect::<Vec<_>>(), [("r", 3000)]);
    // The others come back, each by one request that goes well.
    for _ in 0..2 {
        let probed = pick(&mut set, at(2_000), 1, &[], |_| 0).expect("it is on probation");
        finish(&mut set, 2_000, probed, Outcome::Answered);
    }
    let back = shares(&mut set, 30_000, |_| 0);
    assert_eq!(back.get("r"), None, "{back:?}");
}

#[test]
fn a_reserve_that_failed_is_not_probed_while_the_others_are_good() {
    let mut set = with_roles(&[("a", Role::EVEN), ("r", RESERVE)]);
    let main = picked(&mut set, 0, "a");
    finish(&mut set, 0, main, Outcome::ConnectFailed);
    let reserve = picked(&mut set, 0, "r");
    finish(&mut set, 0, reserve, Outcome::ConnectFailed);
    let probed = pick(&mut set, at(2_000), 1, &[], |_| 0).expect("a is on probation");
    assert_eq!(set.get(probed), Some(&"a"));
    finish(&mut set, 2_000, probed, Outcome::Answered);
    assert_eq!(shares(&mut set, 2_000, |_| 0).get("r"), None);
}

#[test]
fn who_weighs_more_is_drawn_more_often_and_taken_for_less_busy() {
    let roles = [
        ("a", weighing(1)),
        ("b", weighing(1)),
        ("c", weighing(10)),
        ("d", weighing(10)),
    ];
    let mut set = with_roles(&roles);
    let light = |shares: &BTreeMap<&'static str, u32>| {
        shares.get("a").unwrap_or(&0) + shares.get("b").unwrap_or(&0)
    };
    // Two of 22 parts of 3000 are 273.
    let idle = shares(&mut set, 0, |_| 0);
    assert!((200..350).contains(&light(&idle)), "{idle:?}");
    // For their weight the light ones are the busier ones.
    let busy = shares(&mut set, 0, |_| 20);
    assert!(light(&busy) < 150, "{busy:?}");
}

#[test]
fn who_has_as_many_as_it_may_gets_no_more_until_an_answer_is_complete() {
    let limited = Role {
        most: NonZeroU32::new(2),
        ..Role::EVEN
    };
    let mut set = with_roles(&[("a", limited), ("r", RESERVE)]);
    let need = |load: Load, set: &mut Set<&'static str>| {
        let need = Need {
            not: &[],
            probing: Probing::Once,
            priority: Priority::Normal,
            wish: Wish::NONE,
            traits: &|_| Traits {
                version: mainstay_ids::Version::FIRST,
                handle: None,
            },
        };
        set.choose(at(0), 7, &need, |_| load)
    };
    let streaming = |in_flight| Load {
        in_flight,
        waiting: 0,
    };
    assert!(matches!(need(streaming(1), &mut set), Choice::Picked(_)));
    // A full server is no reason to ask a reserve.
    assert_eq!(need(streaming(2), &mut set), Choice::Full);
}
