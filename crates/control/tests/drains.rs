//! When an instance is told to stop.

mod steady;

use mainstay_control::{AcknowledgedDrain, CONSUMER_LEASE, Input, Presence, Settings};
use mainstay_ids::{ConsumerId, Incarnation, Version};
use mainstay_model::event::{DrainOutcome, DrainReason};
use mainstay_model::routing::Unavailable;
use mainstay_model::{EventKind, InstanceState};
use mainstay_sim::{Consumer, DRAIN, World, name, spec};
use std::time::Duration;
use steady::{SECOND, ack, draining, nothing_broken, orders, outcomes, state, steady};

#[test]
fn scaling_in_drains_the_least_useful_first() {
    let mut world = steady();
    let orders = name("orders");
    world.agent.upset(1, u64::MAX);
    world.run(Duration::from_millis(50));
    assert_eq!(state(&world, 2), Some(InstanceState::Failing));
    let scale = |instances| Input::Scale {
        service: orders.clone(),
        instances,
    };
    world.input(scale(2)).expect("legal");
    assert_eq!(world.listed("orders"), [1, 3], "the failing one");
    world.input(scale(4)).expect("legal");
    world.input(scale(2)).expect("legal");
    world.run(SECOND);
    assert_eq!(world.listed("orders"), [1, 3], "those that had not started");
    world.input(scale(1)).expect("legal");
    world.run(SECOND);
    assert_eq!(world.listed("orders"), [1], "the newest");
    world.input(scale(0)).expect("legal");
    world.run(SECOND);
    assert_eq!(
        world.service("orders").unavailable,
        Some(Unavailable::ScaledToZero)
    );
    assert_eq!(world.service("orders").stable, Some(Version(1)));
    nothing_broken(&world);
}

#[test]
fn a_drain_waits_for_the_acknowledgement_and_for_the_last_request() {
    let mut world = steady();
    let gateway = world.consumers[0].id.clone();
    let before = world.routing.generation;
    let (id, removed_in) = draining(&mut world);
    let mut told = |input| {
        world.input(input).expect("legal");
        world.stopped(&id)
    };
    assert!(
        !told(ack(&gateway, before, &[])),
        "an older generation says nothing"
    );
    assert!(
        !told(ack(&gateway, removed_in.next(), &[])),
        "a generation that never was says nothing"
    );
    let older = ConsumerId {
        incarnation: Incarnation(0),
        ..gateway.clone()
    };
    assert!(
        !told(ack(&older, removed_in, &[])),
        "a dead incarnation says nothing"
    );
    assert!(
        !told(ack(&gateway, removed_in, &[&id])),
        "a request is in flight"
    );
    assert!(told(ack(&gateway, removed_in, &[])));
}

#[test]
fn a_mute_consumer_delays_a_stop_up_to_the_drain_time_and_a_dead_one_does_not() {
    let mut world = steady();
    world.consumers[0].frozen = true;
    let (id, _) = draining(&mut world);
    world.run(CONSUMER_LEASE + SECOND / 2);
    let now = world.clock().now;
    let presence: Vec<_> = world
        .control
        .consumers(now)
        .map(|one| one.presence)
        .collect();
    assert_eq!(presence, [Presence::Mute]);
    assert!(!world.stopped(&id), "mute is not dead");
    let due = world.control.next_deadline().expect("the drain has an end");
    assert_eq!(
        due.since(now),
        DRAIN.saturating_sub(CONSUMER_LEASE + SECOND / 2)
    );
    world.run(DRAIN.saturating_sub(CONSUMER_LEASE + SECOND / 2));
    assert!(world.stopped(&id));
    assert_eq!(outcomes(&world), [DrainOutcome::TimeOver]);

    for farewell in [true, false] {
        let mut world = steady();
        let gateway = world.consumers[0].id.clone();
        world.consumers[0].frozen = true;
        let (id, removed_in) = draining(&mut world);
        if farewell {
            world.consumers[0].leave();
            world
                .input(Input::Farewell(gateway.clone()))
                .expect("legal");
            world
                .input(ack(&gateway, removed_in, &[&id]))
                .expect("legal");
        } else {
            world.consumers[0].die();
            world.consumers[0].come_back();
            let successor = world.consumers[0].id.clone();
            world
                .input(Input::ConsumerJoined(successor.clone()))
                .expect("legal");
            assert!(
                !world.stopped(&id),
                "the successor may send by stored routes"
            );
            let routing = world.routing.clone();
            world.consumers[0].apply_everywhere(&routing);
            world
                .input(ack(&successor, removed_in, &[]))
                .expect("legal");
        }
        assert!(world.stopped(&id));
        nothing_broken(&world);
    }
}

#[test]
fn what_a_dead_consumer_acknowledged_does_not_speak_for_its_successor() {
    let mut world = steady();
    world.join(Consumer::new("edge"));
    let (gateway, edge) = (world.consumers[0].id.clone(), world.consumers[1].id.clone());
    let (id, removed_in) = draining(&mut world);
    world.input(ack(&gateway, removed_in, &[])).expect("legal");
    world.consumers[0].die();
    world.consumers[0].come_back();
    let successor = world.consumers[0].id.clone();
    let joined = Input::ConsumerJoined(successor.clone());
    world.input(joined).expect("legal");
    world.input(ack(&edge, removed_in, &[])).expect("legal");
    assert!(!world.stopped(&id), "the successor has said nothing");
    world.consumers.clear();
    world
        .input(ack(&successor, removed_in, &[]))
        .expect("legal");
    assert!(world.stopped(&id));
}

#[test]
fn only_word_of_the_end_of_the_present_attempt_shortens_a_drain() {
    let mut world = steady();
    world.agent.kill(2);
    let late = world.agent.report();
    world.run(SECOND * 2);
    assert_eq!(world.listed("orders"), [1, 2, 3], "the third came back");
    world.input(Input::Report(late.clone())).expect("our node");
    assert_eq!(world.listed("orders"), [1, 2, 3], "and stays");
    world.consumers[0].frozen = true;
    let (id, _) = draining(&mut world);
    world.input(Input::Report(late)).expect("our node");
    assert!(
        !world.stopped(&id),
        "an attempt before the present one ended"
    );
    let mut without = world.agent.report();
    without.instances.retain(|one| one.instance != id);
    for _ in 0..5 {
        let report = Input::Report(without.clone());
        world.input(report).expect("our node");
    }
    assert!(!world.stopped(&id), "that it is not named proves nothing");
    world.agent.kill(2);
    let report = world.agent.report();
    world.input(Input::Report(report)).expect("our node");
    assert!(world.stopped(&id), "it ended");
}

#[test]
fn what_nobody_can_reach_is_stopped_at_once() {
    let mut world = World::new(Settings::default());
    world.apply(spec("orders", 3, "good-100"));
    world.run(SECOND);
    let (service, instances) = (name("orders"), 2);
    world
        .input(Input::Scale { service, instances })
        .expect("legal");
    assert!(world.stopped(&orders(3)), "nobody follows the routes");

    let mut world = steady();
    let scale = |instances| Input::Scale {
        service: name("orders"),
        instances,
    };
    world.input(scale(4)).expect("legal");
    world.input(scale(3)).expect("legal");
    assert!(world.stopped(&orders(4)), "it was never in the routes");
    world.consumers[0].frozen = true;
    world.agent.kill(2);
    world.agent.step(world.now_ms);
    let report = world.agent.report();
    world.input(Input::Report(report)).expect("our node");
    world.input(scale(2)).expect("legal");
    assert!(world.stopped(&orders(3)), "it has ended by itself");
    assert_eq!(outcomes(&world), [DrainOutcome::Unreachable; 2]);
}

#[test]
fn with_the_acknowledged_drain_off_an_instance_is_stopped_in_the_moment_it_leaves_the_routes() {
    let mut world = World::new(Settings {
        acknowledged_drain: AcknowledgedDrain::Off,
        ..Settings::default()
    });
    world.join(Consumer::new("gateway"));
    world.apply(spec("orders", 3, "good-100"));
    world.run(SECOND);
    let (service, instances) = (name("orders"), 2);
    world
        .input(Input::Scale { service, instances })
        .expect("legal");
    assert!(world.stopped(&orders(3)));
    assert_eq!(world.broken.len(), 1, "and the judge sees it");
}

#[test]
fn a_service_that_is_taken_down_drains_and_its_numbers_are_never_used_again() {
    let mut world = steady();
    world.input(Input::RemoveAll).expect("legal");
    assert_eq!(
        world.routing.services[0].unavailable,
        Some(Unavailable::Stopping)
    );
    let removed = |event: &EventKind| {
        matches!(
            event,
            EventKind::DrainStarted {
                reason: DrainReason::Removed,
                ..
            }
        )
    };
    assert_eq!(world.happened(removed), 3);
    world.run(SECOND);
    assert!(world.control.services().next().is_none());
    assert!(world.routing.services.is_empty() && world.plan.instances.is_empty());
    world.restart_control();
    world.apply(spec("orders", 1, "good-100"));
    world.run(SECOND);
    assert_eq!(world.listed("orders"), [4]);
    nothing_broken(&world);
}

#[test]
fn a_consumer_that_says_farewell_before_it_was_ever_heard_takes_out_those_before_it() {
    let mut world = steady();
    world.consumers[0].die();
    let (id, _) = draining(&mut world);
    world.consumers[0].come_back();
    let successor = world.consumers[0].id.clone();
    world.consumers[0].leave();
    world.input(Input::Farewell(successor)).expect("legal");
    assert!(world.stopped(&id), "nobody is left");
}

#[test]
fn the_first_word_of_a_consumer_must_be_durable_and_no_other_of_it() {
    let world = steady();
    let known = world.consumers[0].id.clone();
    let successor = ConsumerId {
        incarnation: Incarnation(known.incarnation.0 + 1),
        ..known.clone()
    };
    let stranger = Consumer::new("edge").id;
    let durable = |consumer| {
        let joined = Input::ConsumerJoined(consumer);
        world.control.must_be_durable(&joined)
    };
    assert!(durable(stranger));
    assert!(
        !durable(known) && !durable(successor),
        "the known one is waited for"
    );
}

#[test]
fn who_has_ended_is_told_as_dead_until_it_serves_again_and_who_drains_is_not() {
    let mut world = steady();
    let dead = |world: &World| -> Vec<u64> {
        let services = world.routing.services.iter();
        let dead = services.flat_map(|service| &service.dead);
        dead.map(|one| one.instance.number).collect()
    };
    world.agent.kill(0);
    world.run(Duration::from_millis(50));
    let listed = world.listed("orders");
    let killed: Vec<u64> = (1..=3).filter(|number| !listed.contains(number)).collect();
    assert_eq!(killed.len(), 1);
    assert_eq!(dead(&world), killed);
    world.run(SECOND * 30);
    assert_eq!(world.listed("orders").len(), 3, "it was started again");
    assert_eq!(dead(&world), [0_u64; 0]);
    draining(&mut world);
    assert_eq!(dead(&world), [0_u64; 0], "it still answers what it has");
    nothing_broken(&world);
}
