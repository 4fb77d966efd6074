//! What survives a restart of the control centre, and what an agent tells that nobody expects.

mod steady;

use mainstay_control::{Control, Input, RestoreError, Settings, Snapshot};
use mainstay_ids::Incarnation;
use mainstay_model::InstanceState;
use mainstay_model::plan::PlannedAction;
use mainstay_sim::{Consumer, World, name, spec};
use std::time::Duration;
use steady::{SECOND, ack, draining, nothing_broken, orders, state, steady};

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
    world.input(ack(&gateway, removed_in, &[])).expect("legal");
    assert!(
        !world.stopped(&id),
        "the epoch before may have listed it again, without our knowledge"
    );
    world.consumers[0].apply_everywhere(&world.routing.clone());
    let now = world.routing.generation;
    world.input(ack(&gateway, now, &[])).expect("legal");
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
    let without = world.agent.report();
    for _ in 0..2 {
        assert_eq!(
            world.listed("orders"),
            [1, 2, 3],
            "one report may be overtaken"
        );
        world
            .input(Input::Report(without.clone()))
            .expect("our node");
    }
    assert_eq!(world.listed("orders"), [1, 3]);
    assert_eq!(state(&world, 2), Some(InstanceState::Planned));
    assert_eq!(world.plan.instances.len(), 3);
    world.run(SECOND);
    assert_eq!(world.listed("orders"), [1, 2, 3]);
    nothing_broken(&world);
}

#[test]
fn whom_the_routes_listed_while_the_disk_refused_is_still_waited_for_after_a_kill() {
    let mut world = World::new(Settings::default());
    world.join(Consumer::new("gateway"));
    world.apply(spec("orders", 1, "good-1000"));
    world.run(SECOND / 2);
    world.refuse_saves(1000);
    world.run(SECOND);
    assert_eq!(world.listed("orders"), [1], "routes run ahead of the disk");
    world.repair_disk();
    world.restart_control();
    world.consumers[0].frozen = true;
    world.agent.upset(0, u64::MAX);
    world.run(SECOND / 2);
    let (service, instances) = (name("orders"), 0);
    let scale = Input::Scale { service, instances };
    world.input(scale).expect("legal");
    assert!(
        !world.stopped(&orders(1)),
        "the gateway has it in its table"
    );
    nothing_broken(&world);
}

#[test]
fn who_was_missing_in_the_first_report_after_a_restore_is_listed_once_it_is_named() {
    let mut world = steady();
    world.restart_control();
    let mut without = world.agent.report();
    without.instances.retain(|one| one.instance != orders(3));
    world.input(Input::Report(without)).expect("our node");
    assert_eq!(world.listed("orders"), [1, 2]);
    let report = world.agent.report();
    world.input(Input::Report(report)).expect("our node");
    assert_eq!(world.listed("orders"), [1, 2, 3]);
}
