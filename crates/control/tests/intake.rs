//! What operators want of single instances.

mod steady;

use mainstay_control::{Input, IntakeWish, LastOne, Refusal, Settings};
use mainstay_model::event::Wait;
use mainstay_model::routing::Unavailable;
use mainstay_model::{EventKind, Intake, IntakeState, ServiceState, Weight};
use mainstay_sim::{World, name, spec};
use steady::{SECOND, nothing_broken, orders, state, steady};

fn wish(number: u64, state: IntakeState, last: LastOne) -> Input {
    Input::SetIntake(IntakeWish {
        instance: orders(number),
        state: Some(state),
        weight: None,
        last,
        by: "account 0".into(),
    })
}

fn drain(world: &mut World, number: u64) {
    let wish = wish(number, IntakeState::Drain, LastOne::Refuse);
    world.input(wish).expect("others are there");
}

/// What the routes say of an instance.
fn routed(world: &World, number: u64) -> Option<Intake> {
    let services = world.routing.services.iter();
    let mut all = services.flat_map(|one| &one.endpoints);
    all.find(|one| one.instance == orders(number))
        .map(|one| one.intake)
}

fn is(state: IntakeState) -> Option<Intake> {
    Some(Intake {
        state,
        weight: Weight::ORDINARY,
    })
}

#[test]
fn a_drained_instance_stays_in_the_routes_as_such_over_restarts_of_everything() {
    let mut world = steady();
    let before = world.routing.generation;
    drain(&mut world, 2);
    assert_eq!(routed(&world, 2), is(IntakeState::Drain));
    assert!(world.routing.generation > before);
    let told = world.events.iter().find_map(|event| match &event.kind {
        EventKind::IntakeSet { by, .. } => Some((by.clone(), event.kind.to_string())),
        _ => None,
    });
    let (by, text) = told.expect("it is recorded");
    assert_eq!(by, "account 0");
    assert!(
        text.contains("orders-2 is drained") && text.contains("as account 0 asked"),
        "{text}"
    );

    // Again is nothing new.
    let (events, generation) = (world.events.len(), world.routing.generation);
    drain(&mut world, 2);
    assert_eq!(
        (world.events.len(), world.routing.generation),
        (events, generation)
    );

    world.restart_control();
    world.run(SECOND);
    assert_eq!(
        routed(&world, 2),
        is(IntakeState::Drain),
        "after a kill of the control centre"
    );
    assert_eq!(world.service("orders").state, ServiceState::Steady);
    assert_eq!(world.service("orders").withheld, 1);

    world.agent.kill(1);
    world.run(SECOND * 3);
    let attempt = world
        .control
        .instances()
        .find(|one| one.instance == orders(2));
    assert!(
        attempt
            .and_then(|one| one.attempt)
            .is_some_and(|attempt| attempt.0 > 1)
    );
    assert_eq!(
        routed(&world, 2),
        is(IntakeState::Drain),
        "it is of the instance, not of the attempt"
    );
    let undrain = wish(2, IntakeState::Ready, LastOne::Refuse);
    world.input(undrain).expect("legal");
    assert_eq!(routed(&world, 2), is(IntakeState::Ready));
    nothing_broken(&world);
}

#[test]
fn the_last_that_gets_requests_is_drained_only_by_force() {
    let mut world = steady();
    drain(&mut world, 1);
    drain(&mut world, 3);
    let refused = world.input(wish(2, IntakeState::Maintenance, LastOne::Refuse));
    assert_eq!(
        refused,
        Err(Refusal::LastOne {
            instance: orders(2)
        })
    );
    let nothing = Input::SetIntake(IntakeWish {
        instance: orders(2),
        state: None,
        weight: Weight::new(0).ok(),
        last: LastOne::Refuse,
        by: "account 0".into(),
    });
    assert_eq!(
        world.input(nothing),
        Err(Refusal::LastOne {
            instance: orders(2)
        })
    );
    assert_eq!(world.service("orders").unavailable, None);
    let forced = wish(2, IntakeState::Maintenance, LastOne::Take);
    world.input(forced).expect("by force");
    assert_eq!(
        world.service("orders").unavailable,
        Some(Unavailable::Drained)
    );
    // From drained to in maintenance takes nothing more from anybody.
    let other = wish(1, IntakeState::Maintenance, LastOne::Refuse);
    world.input(other).expect("legal");
    nothing_broken(&world);
}

#[test]
fn what_cannot_be_drained_is_refused_by_its_name() {
    let mut world = steady();
    let unknown = world.input(wish(9, IntakeState::Drain, LastOne::Take));
    assert_eq!(
        unknown,
        Err(Refusal::UnknownInstance {
            instance: orders(9)
        })
    );
    let mut silent = spec("silent", 1, "good-100");
    silent.http = None;
    world.apply(silent);
    world.run(SECOND);
    let instance = mainstay_ids::InstanceId {
        service: name("silent"),
        number: 1,
    };
    let input = Input::SetIntake(IntakeWish {
        instance: instance.clone(),
        state: Some(IntakeState::Drain),
        weight: None,
        last: LastOne::Take,
        by: String::new(),
    });
    assert_eq!(world.input(input), Err(Refusal::Unrouted { instance }));
    world.consumers[0].frozen = true;
    steady::draining(&mut world);
    let leaving = world.input(wish(3, IntakeState::Drain, LastOne::Take));
    assert_eq!(
        leaving,
        Err(Refusal::Leaving {
            instance: orders(3)
        })
    );
}

#[test]
fn a_drained_instance_is_the_first_to_leave_and_its_wish_goes_with_it() {
    let mut world = steady();
    drain(&mut world, 1);
    let service = name("orders");
    let scale = |instances| Input::Scale {
        service: service.clone(),
        instances,
    };
    world.input(scale(2)).expect("legal");
    assert_eq!(world.listed("orders"), [2, 3]);
    world.run(SECOND);
    assert_eq!(state(&world, 1), None, "it was stopped like any other");
    world.input(scale(3)).expect("legal");
    world.run(SECOND * 2);
    assert_eq!(world.listed("orders"), [2, 3, 4]);
    assert_eq!(world.service("orders").withheld, 0);
    nothing_broken(&world);
}

#[test]
fn a_rollout_replaces_the_drained_first_and_none_of_the_new_inherits_it() {
    let mut world = steady();
    drain(&mut world, 1);
    let mut next = spec("orders", 3, "good-100");
    next.drain = SECOND * 9;
    world.apply(next);
    let mut left = Vec::new();
    world.run(SECOND * 6);
    for event in &world.events {
        if let EventKind::DrainStarted { instance, .. } = &event.kind {
            left.push(instance.number);
        }
    }
    assert_eq!(left.first(), Some(&1), "{left:?}");
    assert_eq!(world.service("orders").state, ServiceState::Steady);
    assert_eq!(world.service("orders").withheld, 0);
    nothing_broken(&world);
}

#[test]
fn a_rollout_leaves_one_old_instance_while_all_that_are_new_are_drained_and_then_goes_back() {
    let mut world = World::new(Settings::default());
    world.join(mainstay_sim::Consumer::new("gateway"));
    world.apply(spec("orders", 1, "good-100"));
    world.run(SECOND * 2);
    let mut next = spec("orders", 1, "good-100");
    next.drain = SECOND * 9;
    next.rollout.progress = SECOND * 20;
    next.rollout.hold = SECOND * 2;
    world.apply(next);
    world.run(SECOND);
    assert_eq!(
        world.listed("orders"),
        [1, 2],
        "the new one passes and is not ready yet"
    );
    drain(&mut world, 2);
    world.run(SECOND * 5);
    assert_eq!(
        world.listed("orders"),
        [1, 2],
        "the old one takes the requests"
    );
    let waits = world.service("orders").wait;
    assert_eq!(
        waits,
        Some(Wait::Intake {
            instance: orders(2)
        })
    );
    world.run(SECOND * 20);
    assert_eq!(world.listed("orders"), [1], "so it went back");
    assert_eq!(world.service("orders").state, ServiceState::Steady);
    nothing_broken(&world);
}

#[test]
fn why_says_who_drained_an_instance() {
    let mut world = steady();
    drain(&mut world, 2);
    let events: Vec<_> = world.events.iter().collect();
    let past = mainstay_control::why::Past {
        events: &events,
        last: events.last().expect("some").number,
    };
    let why = world
        .control
        .why_instance(&orders(2), past, world.clock().at);
    let texts: Vec<_> = why
        .expect("known")
        .chain
        .iter()
        .map(|one| one.text.clone())
        .collect();
    let all = texts.join("\n");
    assert!(
        all.contains("orders-2 is drained") && all.contains("mainstay undrain orders-2"),
        "{all}"
    );
    assert!(all.contains("as account 0 asked"), "{all}");
}
