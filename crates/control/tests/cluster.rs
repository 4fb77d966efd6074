//! What the machine does, one behaviour per test, in a world where nothing goes wrong by chance.

#![allow(
    clippy::cast_possible_truncation,
    reason = "the numbers of a simulated world are small"
)]

mod world;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use mainstay_control::{
    AcknowledgedDrain, Apply, CONSUMER_LEASE, Change, Control, Input, Note, Presence, Refusal,
    RestoreError, Settings, Snapshot,
};
use mainstay_ids::{ConsumerId, Generation, Incarnation, InstanceId, Version};
use mainstay_model::event::{
    DrainOutcome, DrainReason, PauseReason, RollbackAsked, RolloutFailure,
};
use mainstay_model::plan::PlannedAction;
use mainstay_model::routing::{EndpointHealth, Unavailable};
use mainstay_model::service::{AddressSpec, OnFailure, Step};
use mainstay_model::{Ack, EventKind, InstanceState, ServiceState, Template};
use world::{Consumer, DEADLINE, DRAIN, HOLD, World, name, spec};

const SECOND: Duration = Duration::from_secs(1);

/// A world with one gateway and `orders` with three ready instances.
fn steady() -> World {
    let mut world = World::new(Settings::default());
    world.join(Consumer::new("gateway"));
    world.apply(spec("orders", 3, "good-100"));
    world.run(SECOND * 2);
    assert_eq!(world.service("orders").state, ServiceState::Steady);
    world
}

fn orders(number: u64) -> InstanceId {
    InstanceId {
        service: name("orders"),
        number,
    }
}

fn state(world: &World, number: u64) -> Option<InstanceState> {
    let mut instances = world.control.instances();
    let found = instances.find(|one| one.instance == orders(number));
    found.map(|one| one.state)
}

fn outcomes(world: &World) -> Vec<DrainOutcome> {
    let events = world.events.iter();
    events
        .filter_map(|event| match &event.kind {
            EventKind::DrainFinished { outcome, .. } => Some(*outcome),
            _ => None,
        })
        .collect()
}

fn nothing_broken(world: &World) {
    assert!(world.broken.is_empty(), "{:?}", world.broken);
    assert!(world.agent.broken.is_empty(), "{:?}", world.agent.broken);
}

#[test]
fn a_first_rollout_starts_all_at_once_and_makes_the_version_stable() {
    let mut world = World::new(Settings::default());
    let reply = world.apply(spec("orders", 3, "good-100"));
    assert_eq!(reply.services[0].change, Change::Created);
    assert_eq!(world.plan.instances.len(), 3);
    let orders = world.service("orders");
    assert_eq!(
        (orders.state, orders.stable),
        (ServiceState::RollingOut, None)
    );
    assert_eq!(orders.unavailable, Some(Unavailable::Starting));
    world.run(Duration::from_millis(200));
    assert_eq!(
        world.listed("orders"),
        [1, 2, 3],
        "healthy ones get traffic before they are ready"
    );
    assert_eq!(world.service("orders").ready, 0);
    world.run(HOLD);
    let orders = world.service("orders");
    assert_eq!((orders.state, orders.ready), (ServiceState::Steady, 3));
    assert_eq!(orders.stable, Some(Version(1)));
}

#[test]
fn a_rollout_starts_first_one_at_a_time_and_never_keeps_fewer_ready_than_wanted() {
    let mut world = steady();
    let reply = world.apply(spec("orders", 3, "good-150"));
    assert_eq!(reply.services[0].change, Change::Updated);
    while world.service("orders").state == ServiceState::RollingOut {
        world.run(Duration::from_millis(25));
        let ready = |state| matches!(state, InstanceState::Ready);
        let count = world
            .control
            .instances()
            .filter(|one| ready(one.state))
            .count();
        assert!(count >= 3, "{count} are ready");
        let kept = |state| !matches!(state, InstanceState::Draining | InstanceState::Stopping);
        let count = world
            .control
            .instances()
            .filter(|one| kept(one.state))
            .count();
        assert!(count <= 4, "{count} are kept");
    }
    assert_eq!(world.listed("orders"), [4, 5, 6]);
    assert_eq!(world.service("orders").stable, Some(Version(2)));
    assert_eq!(outcomes(&world), [DrainOutcome::Acknowledged; 3]);
    nothing_broken(&world);
}

#[test]
fn a_version_that_ends_before_it_is_ready_is_rolled_back_at_once() {
    let mut world = steady();
    world.apply(spec("orders", 3, "crash-200"));
    world.run(SECOND);
    let failed = world.happened(|event| {
        matches!(
            event,
            EventKind::RolloutFailed {
                version: Version(2),
                cause: RolloutFailure::Exited { .. }
            }
        )
    });
    let back = EventKind::RollbackStarted {
        from: Version(2),
        to: Version(1),
        asked: RollbackAsked::ByFailure,
    };
    assert_eq!((failed, world.happened(|event| *event == back)), (1, 1));
    let orders = world.service("orders");
    assert_eq!(
        (orders.state, orders.version),
        (ServiceState::Steady, Version(1))
    );
    assert_eq!(world.listed("orders"), [1, 2, 3], "the old ones never left");
    nothing_broken(&world);
}

#[test]
fn a_version_that_never_passes_is_rolled_back_at_the_healthy_deadline_and_not_before() {
    let mut world = steady();
    world.apply(spec("orders", 3, "never"));
    world.run(DEADLINE.saturating_sub(Duration::from_millis(50)));
    assert_eq!(world.service("orders").state, ServiceState::RollingOut);
    world.run(Duration::from_millis(100));
    assert_eq!(world.service("orders").version, Version(1));
    let late = |event: &EventKind| {
        matches!(
            event,
            EventKind::RolloutFailed {
                cause: RolloutFailure::NotReady { .. },
                ..
            }
        )
    };
    assert_eq!(world.happened(late), 1);
}

#[test]
fn a_flap_starts_the_minimum_healthy_time_anew_and_the_second_fails_the_rollout() {
    let mut world = steady();
    world.apply(spec("orders", 3, "flap-300"));
    world.run(Duration::from_millis(650));
    assert_eq!(
        world.service("orders").state,
        ServiceState::RollingOut,
        "one flap is forgiven"
    );
    world.run(SECOND);
    let flapping = |event: &EventKind| {
        matches!(
            event,
            EventKind::RolloutFailed {
                cause: RolloutFailure::Flapping { .. },
                ..
            }
        )
    };
    assert_eq!(world.happened(flapping), 1);
    assert_eq!(world.service("orders").version, Version(1));
}

#[test]
fn a_first_version_that_fails_stays_and_is_in_force_if_it_gets_ready_after_all() {
    let mut world = World::new(Settings::default());
    world.apply(spec("orders", 2, "good-100"));
    world.run(Duration::from_millis(150));
    world.agent.kill(0);
    world.run(Duration::from_millis(50));
    assert_eq!(world.service("orders").state, ServiceState::Failed);
    let paused = |event: &EventKind| {
        matches!(
            event,
            EventKind::RolloutPaused {
                reason: PauseReason::NothingToGoBackTo,
                ..
            }
        )
    };
    assert_eq!(world.happened(paused), 1);
    world.run(SECOND * 2);
    assert_eq!(world.service("orders").state, ServiceState::Steady);
    assert_eq!(world.service("orders").stable, Some(Version(1)));
}

#[test]
fn a_first_version_that_crashes_for_ever_says_so_and_the_next_replaces_it_all_at_once() {
    let mut world = World::new(Settings::default());
    world.apply(spec("orders", 3, "crash-10"));
    world.run(SECOND * 5);
    let orders = world.service("orders");
    assert_eq!(orders.unavailable, Some(Unavailable::CrashLooping));
    assert_eq!(
        world.happened(|event| matches!(event, EventKind::InstanceCrashLooping { .. })),
        3
    );
    world.apply(spec("orders", 3, "good-100"));
    let runs = world
        .plan
        .instances
        .iter()
        .filter(|one| one.action == PlannedAction::Run);
    assert_eq!(runs.count(), 3, "there is nothing to protect");
    world.run(SECOND);
    assert_eq!(world.service("orders").state, ServiceState::Steady);
}

#[test]
fn a_failed_rollback_is_not_rolled_back_and_a_failed_rollout_with_pause_stays() {
    let mut world = steady();
    let mut pausing = spec("orders", 3, "crash-100");
    pausing.rollout.on_failure = OnFailure::Pause;
    world.apply(pausing.clone());
    world.run(SECOND);
    assert_eq!(world.service("orders").state, ServiceState::Failed);
    assert_eq!(world.service("orders").version, Version(2));
    assert_eq!(world.listed("orders"), [1, 2, 3]);
    let failed = state(&world, 4);
    let tried = [InstanceState::Starting, InstanceState::BackingOff];
    assert!(
        failed.is_some_and(|state| tried.contains(&state)),
        "kept for whoever looks"
    );
    let again = world.apply(pausing);
    assert_eq!(
        again.services[0].change,
        Change::Updated,
        "the same again is another try"
    );
    assert_eq!(again.services[0].version, Version(2));

    let mut world = steady();
    world.apply(spec("orders", 3, "good-150"));
    world.run(SECOND * 5);
    let back = Input::Rollback {
        service: name("orders"),
        to: None,
    };
    world.input(back).expect("v1 was healthy");
    world.run(Duration::from_millis(50));
    let newest = world.agent.running().len() as u64 - 1;
    world.agent.kill(newest);
    world.run(Duration::from_millis(50));
    assert_eq!(world.service("orders").state, ServiceState::Failed);
    let paused = |event: &EventKind| {
        matches!(
            event,
            EventKind::RolloutPaused {
                reason: PauseReason::RollbackFailed,
                ..
            }
        )
    };
    assert_eq!(world.happened(paused), 1);
}

#[test]
fn a_new_version_supersedes_a_rollout_and_replaces_all_that_is_older() {
    let mut world = steady();
    world.apply(spec("orders", 3, "good-2000"));
    world.run(Duration::from_millis(100));
    world.apply(spec("orders", 3, "good-150"));
    let started = EventKind::RolloutStarted {
        from: Some(Version(1)),
        to: Version(3),
        step: 1,
        wanted: 3,
    };
    assert_eq!(world.happened(|event| *event == started), 1);
    assert_ne!(
        state(&world, 4),
        Some(InstanceState::Starting),
        "the superseded goes first"
    );
    world.run(SECOND * 5);
    assert_eq!(world.service("orders").state, ServiceState::Steady);
    assert_eq!(world.listed("orders"), [5, 6, 7]);
    nothing_broken(&world);
}

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
fn scaling_out_during_a_rollout_ends_with_as_many_as_wanted() {
    let mut world = steady();
    world.apply(spec("orders", 3, "good-150"));
    world.run(Duration::from_millis(300));
    let scale = |instances| Input::Scale {
        service: name("orders"),
        instances,
    };
    world.input(scale(5)).expect("legal");
    world.run(SECOND * 2);
    world.input(scale(2)).expect("legal");
    world.run(SECOND * 5);
    let orders = world.service("orders");
    assert_eq!((orders.state, orders.ready), (ServiceState::Steady, 2));
    assert_eq!(world.agent.all().len(), 2);
    nothing_broken(&world);
}

#[test]
fn a_crashed_instance_leaves_the_routes_and_comes_back_as_another_attempt() {
    let mut world = steady();
    world.agent.kill(0);
    world.run(Duration::from_millis(25));
    assert_eq!(world.listed("orders"), [2, 3]);
    assert_eq!(world.service("orders").state, ServiceState::Degraded);
    world.run(Duration::from_millis(400));
    assert_eq!(world.listed("orders"), [1, 2, 3]);
    let endpoint = &world.routing.services[0].endpoints[0];
    assert_eq!(endpoint.attempt.0, 2);
    world.run(SECOND);
    assert_eq!(world.service("orders").state, ServiceState::Steady);
    assert_eq!(
        world.happened(|event| matches!(event, EventKind::RolloutFailed { .. })),
        0
    );
}

#[test]
fn a_failing_instance_stays_listed_as_failing_and_a_starting_one_is_not_listed() {
    let mut world = steady();
    world.agent.upset(0, u64::MAX);
    world.run(Duration::from_millis(25));
    let endpoints = &world.routing.services[0].endpoints;
    assert_eq!(endpoints[0].health, EndpointHealth::Failing);
    assert_eq!(endpoints.len(), 3);
    world.agent.kill(0);
    world.run(Duration::from_millis(150));
    assert_eq!(state(&world, 1), Some(InstanceState::Starting));
    assert_eq!(world.listed("orders"), [2, 3]);
}

/// Scales to two and gives the instance that drains, with the generation that removed it.
fn draining(world: &mut World) -> (InstanceId, Generation) {
    let service = name("orders");
    world
        .input(Input::Scale {
            service,
            instances: 2,
        })
        .expect("legal");
    assert_eq!(state(world, 3), Some(InstanceState::Draining));
    assert_eq!(world.listed("orders"), [1, 2]);
    (orders(3), world.routing.generation)
}

fn ack(consumer: &ConsumerId, generation: Generation, busy: &[&InstanceId]) -> Input {
    let in_flight = |id: &&InstanceId| mainstay_model::InFlight {
        instance: (*id).clone(),
        requests: 1,
    };
    Input::Ack(Ack {
        unbound: Vec::new(),
        consumer: consumer.clone(),
        generation: Some(generation),
        in_flight: busy.iter().map(in_flight).collect(),
    })
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
        address_seed: 0,
        acknowledged_drain: AcknowledgedDrain::Off,
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
fn while_everything_stops_every_service_without_an_endpoint_says_so() {
    let mut world = steady();
    world.apply(spec("empty", 0, "good-100"));
    world.input(Input::StopAll).expect("legal");
    for routes in &world.routing.services {
        assert!(routes.endpoints.is_empty(), "{routes:?}");
        assert_eq!(routes.unavailable, Some(Unavailable::Stopping));
    }
    assert_eq!(world.routing.services.len(), 2);
    for service in ["orders", "empty"] {
        let shown = world.service(service).unavailable;
        assert_eq!(shown, Some(Unavailable::Stopping), "{service}");
    }
}

#[test]
fn a_service_that_goes_can_be_declared_again_before_it_is_gone() {
    let mut world = steady();
    world.consumers[0].frozen = true;
    world
        .input(Input::Remove {
            service: name("orders"),
        })
        .expect("legal");
    let scale = Input::Scale {
        service: name("orders"),
        instances: 1,
    };
    assert_eq!(
        world.input(scale),
        Err(Refusal::Removing {
            service: name("orders")
        })
    );
    let reply = world.apply(spec("orders", 2, "good-100"));
    assert_eq!(reply.services[0].change, Change::Created);
    world.run(SECOND);
    assert_eq!(world.listed("orders"), [4, 5]);
    assert_eq!(world.service("orders").state, ServiceState::Steady);
}

#[test]
fn after_a_restore_nothing_is_published_before_the_agent_has_reported() {
    let mut world = steady();
    world.apply(spec("orders", 3, "good-2000"));
    world.run(Duration::from_millis(100));
    let (routing, plan) = (world.routing.clone(), world.plan.clone());
    world.restart_control();
    assert!(!world.control.may_publish());
    world.tick();
    assert_eq!(
        world.routing, routing,
        "the gateways keep the last good state"
    );
    let report = world.agent.report();
    world.input(Input::Report(report)).expect("our node");
    assert!(world.control.may_publish());
    assert_eq!(world.routing.services, routing.services);
    assert_eq!(world.plan.instances, plan.instances);
    assert!(world.routing.generation.epoch > routing.generation.epoch);
    world.run(SECOND * 10);
    assert_eq!(world.listed("orders"), [4, 5, 6], "the rollout goes on");
    nothing_broken(&world);
}

#[test]
fn a_drain_goes_on_over_a_restore_and_still_waits_for_the_known_consumers() {
    let mut world = steady();
    let gateway = world.consumers[0].id.clone();
    let (id, removed_in) = draining(&mut world);
    world.restart_control();
    let report = world.agent.report();
    world.input(Input::Report(report)).expect("our node");
    assert!(
        !world.stopped(&id),
        "the consumer is known and has said nothing yet"
    );
    world.consumers[0].apply_everywhere(&world.routing.clone());
    world.input(ack(&gateway, removed_in, &[])).expect("legal");
    assert!(world.stopped(&id));
    nothing_broken(&world);
}

#[test]
fn a_snapshot_of_a_newer_program_is_refused() {
    let world = steady();
    let mut json = serde_json::to_value(world.control.snapshot()).expect("it is JSON");
    json["format"] = 2.into();
    let snapshot: Snapshot = serde_json::from_value(json).expect("the rest is the same");
    let refused = Control::restore(snapshot, Settings::default(), world.clock()).err();
    assert_eq!(refused, Some(RestoreError::NewerFormat { found: 2 }));
}

#[test]
fn an_instance_that_we_do_not_know_is_stopped_and_its_number_not_used() {
    let mut world = steady();
    let gateway = world.consumers[0].id.clone();
    let generation = world.routing.generation;
    let busy = ack(&gateway, generation, &[&orders(17)]);
    world.input(busy).expect("legal");
    let mut report = world.agent.report();
    let mut stranger = report.instances[0].clone();
    stranger.instance = orders(17);
    report.instances.push(stranger);
    world.input(Input::Report(report)).expect("our node");
    let known = world
        .plan
        .instances
        .iter()
        .any(|one| one.instance == orders(17));
    assert!(!known, "it is drained first");
    world.input(ack(&gateway, generation, &[])).expect("legal");
    let planned = world
        .plan
        .instances
        .iter()
        .find(|one| one.instance == orders(17));
    assert_eq!(planned.map(|one| one.action), Some(PlannedAction::Stop));
    world.run(Duration::from_millis(100));
    let (service, instances) = (name("orders"), 4);
    world
        .input(Input::Scale { service, instances })
        .expect("legal");
    world.run(SECOND);
    assert_eq!(world.listed("orders"), [1, 2, 3, 18]);
}

#[test]
fn a_report_of_a_dead_agent_is_not_believed() {
    let mut world = steady();
    let mut late = world.agent.report();
    late.incarnation = Incarnation(0);
    late.instances.clear();
    for _ in 0..5 {
        world.input(Input::Report(late.clone())).expect("our node");
    }
    assert_eq!(world.listed("orders"), [1, 2, 3]);
}

#[test]
fn an_instance_that_the_agent_lost_is_started_again() {
    let mut world = steady();
    world.agent.lose(&orders(2));
    world.run(Duration::from_millis(50));
    assert_eq!(world.listed("orders"), [1, 3]);
    assert_eq!(state(&world, 2), Some(InstanceState::Planned));
    assert_eq!(world.plan.instances.len(), 3);
}

fn auto(service: &str) -> mainstay_model::ServiceSpec {
    let mut spec = spec(service, 1, "good-100");
    spec.address = Some(AddressSpec::Auto);
    spec
}

fn addressing(service: &str, addressed: &str) -> mainstay_model::ServiceSpec {
    let mut spec = auto(service);
    let template = Template::parse(&format!("{{address:{addressed}}}")).expect("legal");
    spec.env.insert("PEER".into(), template);
    spec
}

fn apply_all(
    world: &mut World,
    services: Vec<mainstay_model::ServiceSpec>,
) -> Result<Vec<Note>, Refusal> {
    world
        .input(Input::Apply(Apply { services }))
        .map(|reply| reply.notes)
}

#[test]
fn an_automatic_address_stays_and_reaches_whoever_addresses_it() {
    let mut world = World::new(Settings::default());
    let specs = vec![addressing("orders", "pay"), auto("pay")];
    apply_all(&mut world, specs).expect("they stand in one declaration");
    world.run(SECOND);
    let address = world.service("pay").address.expect("one was picked");
    assert!(address.to_string().starts_with("127.96."));
    assert_eq!(world.plan.instances[0].addresses[&name("pay")], address);
    let mut fixed = auto("pay");
    fixed.address = Some(AddressSpec::Fixed(SocketAddr::from(([127, 0, 9, 9], 80))));
    let notes = apply_all(&mut world, vec![fixed]).expect("legal");
    let (service, by) = (name("pay"), name("orders"));
    let note = Note::StillAddressed { service, by };
    let services = vec![name("orders")];
    assert_eq!(notes, [note.clone(), Note::LeftAlone { services }]);
    world.run(SECOND * 2);
    apply_all(&mut world, vec![auto("pay")]).expect("legal");
    assert_eq!(world.service("pay").address, Some(address));
    let removed = world.input(Input::Remove {
        service: name("pay"),
    });
    assert_eq!(removed.expect("it is allowed").notes, [note], "and told");
}

#[test]
fn a_declaration_that_contradicts_another_is_refused_whole() {
    let mut world = steady();
    let mut route = spec("pay", 1, "good-100");
    route.http = spec("orders", 1, "good-100").http;
    let refused = apply_all(&mut world, vec![auto("stock"), route]);
    assert!(matches!(refused, Err(Refusal::RouteTaken { by, .. }) if by == name("orders")));
    assert!(world.control.service(&name("stock")).is_none());

    let fixed = |service: &str| {
        let mut spec = spec(service, 1, "good-100");
        spec.address = Some(AddressSpec::Fixed(SocketAddr::from(([127, 0, 9, 9], 80))));
        spec
    };
    apply_all(&mut world, vec![fixed("pay")]).expect("it is free");
    let refused = apply_all(&mut world, vec![fixed("stock")]);
    assert!(matches!(refused, Err(Refusal::AddressTaken { by, .. }) if by == name("pay")));

    let refused = apply_all(&mut world, vec![addressing("web", "nobody")]);
    assert!(matches!(refused, Err(Refusal::AddressedUnknown { .. })));
    let refused = apply_all(&mut world, vec![addressing("web", "orders")]);
    assert!(matches!(refused, Err(Refusal::AddressedWithout { .. })));
    let refused = apply_all(&mut world, vec![auto("web"), auto("web")]);
    assert!(matches!(refused, Err(Refusal::DeclaredTwice { .. })));
    let refused = apply_all(&mut world, vec![spec("web", 501, "good-100")]);
    assert!(matches!(refused, Err(Refusal::TooMany { .. })));
}

#[test]
fn what_a_rollback_would_need_again_is_not_given_away() {
    let mut world = steady();
    let mut moved = spec("orders", 3, "never");
    moved.http = spec("elsewhere", 1, "never").http;
    world.apply(moved);
    let mut taker = spec("pay", 1, "good-100");
    taker.http = spec("orders", 1, "good-100").http;
    let refused = apply_all(&mut world, vec![taker]);
    assert!(matches!(refused, Err(Refusal::RouteTaken { .. })));
}

#[test]
fn a_declaration_says_what_it_changes_and_a_dry_run_changes_nothing() {
    let mut world = steady();
    let change = |world: &mut World, spec, dry| {
        let apply = Apply {
            services: vec![spec],
        };
        let input = if dry {
            Input::DryRun(apply)
        } else {
            Input::Apply(apply)
        };
        let reply = world.input(input).expect("legal");
        (reply.services[0].change, reply.services[0].version)
    };
    let (same, more, other) = (
        spec("orders", 3, "good-100"),
        spec("orders", 4, "good-100"),
        spec("orders", 3, "good-1"),
    );
    assert_eq!(
        change(&mut world, same, true),
        (Change::Unchanged, Version(1))
    );
    assert_eq!(
        change(&mut world, other.clone(), true),
        (Change::Updated, Version(2))
    );
    let event = world.control.last_event();
    assert_eq!(
        change(&mut world, more.clone(), true),
        (Change::Scaled, Version(1))
    );
    assert_eq!(world.control.last_event(), event);
    assert_eq!(world.service("orders").wanted, 3);
    assert_eq!(
        change(&mut world, more, false),
        (Change::Scaled, Version(1))
    );
    assert_eq!(world.service("orders").wanted, 4);
    assert_eq!(
        change(&mut world, other, false),
        (Change::Updated, Version(2))
    );
}

#[test]
fn a_rollback_goes_to_the_last_healthy_version_before_or_to_the_one_named() {
    let mut world = steady();
    let back = |to| Input::Rollback {
        service: name("orders"),
        to,
    };
    let service = name("orders");
    let nothing = Refusal::NothingToGoBackTo {
        service: service.clone(),
    };
    assert_eq!(world.input(back(None)), Err(nothing));
    world.apply(spec("orders", 3, "crash-100"));
    world.run(SECOND);
    world.apply(spec("orders", 3, "good-150"));
    world.run(SECOND * 5);
    assert_eq!(world.service("orders").stable, Some(Version(3)));
    let version = Version(3);
    let current = Refusal::AlreadyCurrent {
        service: service.clone(),
        version,
    };
    assert_eq!(world.input(back(Some(version))), Err(current));
    let version = Version(9);
    assert_eq!(
        world.input(back(Some(version))),
        Err(Refusal::UnknownVersion { service, version })
    );
    world.input(back(None)).expect("v1 was healthy, v2 was not");
    assert_eq!(world.service("orders").state, ServiceState::RollingBack);
    world.run(SECOND * 5);
    let orders = world.service("orders");
    assert_eq!(
        (orders.state, orders.version),
        (ServiceState::Steady, Version(1))
    );
}

#[test]
fn only_so_many_versions_are_kept_and_always_the_stable_one() {
    let mut world = steady();
    for number in 0..15 {
        world.apply(spec("orders", 3, &format!("good-{}", 3000 + number)));
    }
    world.run(SECOND);
    let versions = world.service("orders").versions;
    assert_eq!(versions.len(), 10);
    assert_eq!(versions.first(), Some(&Version(1)), "the stable one runs");
    assert_eq!(versions.last(), Some(&Version(16)));
}

#[test]
fn a_step_in_percent_replaces_several_at_a_time() {
    let mut world = World::new(Settings::default());
    world.apply(spec("orders", 8, "good-100"));
    world.run(SECOND);
    let mut next = spec("orders", 8, "good-150");
    next.rollout.step = Step::Percent(NonZeroU32::new(25).expect("not zero"));
    world.apply(next);
    assert_eq!(world.plan.instances.len(), 10);
    world.run(SECOND * 4);
    assert_eq!(world.service("orders").state, ServiceState::Steady);
    nothing_broken(&world);
}
