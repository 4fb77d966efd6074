//! How a service gets from one version and number to another, in a world where nothing goes wrong by
//! chance.

mod steady;

use mainstay_control::{Change, Input, Settings};
use mainstay_ids::Version;
use mainstay_model::event::{DrainOutcome, PauseReason, RollbackAsked, RolloutFailure};
use mainstay_model::plan::PlannedAction;
use mainstay_model::routing::{EndpointHealth, Unavailable};
use mainstay_model::service::{OnFailure, Step};
use mainstay_model::{EventKind, InstanceState, ServiceState};
use mainstay_sim::{DEADLINE, HOLD, World, name, spec};
use std::num::NonZeroU32;
use std::time::Duration;
use steady::{SECOND, nothing_broken, outcomes, state, steady};

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
