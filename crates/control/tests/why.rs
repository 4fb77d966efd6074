//! Why something is as it is: the answers are made from the record and the views alone.

#![allow(
    clippy::cast_possible_truncation,
    reason = "the numbers of a simulated world are small"
)]

use std::num::NonZeroU32;
use std::time::Duration;

use mainstay_control::why::Past;
use mainstay_control::{Apply, Input, Settings};
use mainstay_ids::{InstanceId, Timestamp};
use mainstay_model::service::{LimitsSpec, OnFailure, Schedule, Step};
use mainstay_model::{Capacity, Cron, Event, ServiceSpec, ServiceState, Template, Topic, Why};
use mainstay_sim::{Consumer, World, name, spec};

const SECOND: Duration = Duration::from_secs(1);

fn id(service: &str, number: u64) -> InstanceId {
    InstanceId {
        service: name(service),
        number,
    }
}

fn world() -> World {
    let mut world = World::new(Settings::default());
    world.join(Consumer::new("gateway"));
    world
}

fn asked<T>(world: &World, keep: usize, answer: impl FnOnce(Past<'_>, Timestamp) -> T) -> T {
    let skipped = world.events.len().saturating_sub(keep);
    let events: Vec<&Event> = world.events.iter().skip(skipped).collect();
    let past = Past {
        events: &events,
        last: world.control.last_event(),
    };
    answer(past, world.clock().at)
}

fn of_service(world: &World, service: &str) -> Why {
    let service = name(service);
    let why = asked(world, usize::MAX, |past, now| {
        world.control.why_service(&service, past, now)
    });
    why.expect("it is known")
}

fn of_instance(world: &World, instance: &InstanceId) -> Why {
    let why = asked(world, usize::MAX, |past, now| {
        world.control.why_instance(instance, past, now)
    });
    why.expect("it is known")
}

/// Whether a reason on this topic says all of this.
#[track_caller]
fn says(why: &Why, topic: Topic, parts: &[&str]) {
    let found = why
        .chain
        .iter()
        .any(|reason| reason.topic == topic && parts.iter().all(|part| reason.text.contains(part)));
    assert!(found, "{topic:?} {parts:?} is not in {:#?}", why.chain);
}

fn newest_first(why: &Why) {
    let numbers: Vec<u64> = why.chain.iter().filter_map(|one| one.event).collect();
    assert!(numbers.is_sorted_by(|one, next| one > next), "{numbers:?}");
    assert!(!numbers.is_empty());
}

#[test]
fn a_restart_is_told_with_the_end_before_it_the_attempt_and_the_back_off() {
    let mut world = world();
    world.apply(spec("orders", 1, "good-100"));
    world.run(SECOND * 3);
    world.apply(spec("orders", 1, "crash-50"));
    world.run(SECOND);
    // Nothing to go back to: the very first version crashes and is tried again and again.
    world.apply(spec("stock", 1, "crash-50"));
    world.run(SECOND * 20);
    let why = of_instance(&world, &id("stock", 1));
    newest_first(&why);
    says(
        &why,
        Topic::Restart,
        &[
            "stock-1 was started again as attempt 2",
            "attempt 1 exited with code 1",
        ],
    );
    says(
        &why,
        Topic::Restart,
        &[
            "stock-1 exited with code 1, attempt 2",
            "after a back-off of",
        ],
    );
    says(&why, Topic::Restart, &["crash loop"]);
    says(&why, Topic::Traffic, &["stock-1 gets no requests"]);
}

#[test]
fn a_restart_by_a_reboot_is_told_with_the_reboot() {
    let mut world = world();
    world.apply(spec("orders", 1, "good-100"));
    world.run(SECOND * 3);
    world.agent.reboot();
    world.run(SECOND * 5);
    let why = of_instance(&world, &id("orders", 1));
    says(&why, Topic::Restart, &["the node was started anew"]);
    says(
        &why,
        Topic::Restart,
        &["orders-1 ended with the machine, attempt 1"],
    );
    says(&why, Topic::Traffic, &["orders-1 gets requests"]);
}

#[test]
fn a_rollback_is_told_with_the_instance_its_end_and_the_version_gone_back_to() {
    let mut world = world();
    world.apply(spec("orders", 2, "good-100"));
    world.run(SECOND * 3);
    world.apply(spec("orders", 2, "crash-50"));
    world.run(SECOND * 3);
    assert_eq!(world.service("orders").state, ServiceState::Steady);
    let why = of_service(&world, "orders");
    newest_first(&why);
    says(
        &why,
        Topic::Rollback,
        &["rollout of v2 failed: orders-3 exited with code 1"],
    );
    says(&why, Topic::Rollback, &["goes back from v2 to v1"]);
    assert_eq!(why.forgotten, None);
    // The instance that failed is gone, and can be asked about all the same.
    let why = of_instance(&world, &id("orders", 3));
    says(
        &why,
        Topic::Restart,
        &["orders-3 exited with code 1, attempt 1"],
    );
    says(&why, Topic::Traffic, &["it is gone"]);
    says(&why, Topic::Traffic, &["its version failed"]);
}

#[test]
fn a_rollout_that_does_not_go_back_says_why_not() {
    let mut world = world();
    let mut stays = spec("orders", 1, "never");
    stays.rollout.on_failure = OnFailure::Pause;
    world.apply(stays);
    world.run(SECOND * 7);
    let why = of_service(&world, "orders");
    says(
        &why,
        Topic::Rollback,
        &["does not go back from v1", "on_failure"],
    );
    says(&why, Topic::State, &["failed rollout"]);
}

#[test]
fn each_wait_of_a_rollout_is_told_with_the_command_that_ends_it() {
    let mut world = world();
    let canary = |behaviour: &str| {
        let mut spec = spec("orders", 3, behaviour);
        spec.rollout.canary = Some(Step::Count(NonZeroU32::MIN));
        spec
    };
    let wait =
        |world: &World, parts: &[&str]| says(&of_service(world, "orders"), Topic::Wait, parts);
    world.apply(ServiceSpec {
        before: vec![Template::parse("done-1500").expect("legal")],
        ..canary("good-1000")
    });
    world.run(SECOND);
    wait(&world, &["orders-1, which runs once before it"]);
    world.run(SECOND);
    wait(&world, &["to pass its first probe"]);
    world.run(Duration::from_millis(900));
    wait(&world, &["to pass its probe for 500ms", "rollout.hold"]);
    world.run(SECOND * 3);
    world.apply(canary("good-101"));
    world.run(SECOND * 3);
    wait(&world, &["`mainstay promote orders`: 1 of the new version"]);
    let service = name("orders");
    world.input(Input::Pause { service }).expect("can be");
    wait(&world, &["`mainstay resume orders`"]);
    let service = name("orders");
    world.input(Input::Resume { service }).expect("can be");
    // Nobody confirms that the old one gets nothing any more.
    world.consumers[0].frozen = true;
    let service = name("orders");
    world.input(Input::Promote { service }).expect("can be");
    world.run(SECOND);
    let draining = world.control.instances().find(|one| one.drain.is_some());
    let draining = draining.expect("one drains").instance;
    says(
        &of_instance(&world, &draining),
        Topic::Traffic,
        &["gets no new requests", "replaced", "gateway"],
    );
}

#[test]
fn needs_are_told_of_the_rollout_and_of_the_instance() {
    let mut world = world();
    let needing = ServiceSpec {
        needs: [name("stock")].into(),
        ..spec("orders", 1, "good-100")
    };
    let services = vec![needing, spec("stock", 1, "good-3000")];
    world
        .input(Input::Apply(Apply { services }))
        .expect("legal");
    world.run(SECOND);
    says(&of_service(&world, "orders"), Topic::Wait, &["stock"]);
    says(
        &of_instance(&world, &id("orders", 1)),
        Topic::Traffic,
        &["it is held", "an instance to be ready of stock"],
    );
}

#[test]
fn what_is_forgotten_is_said_and_what_was_never_there_is_unknown() {
    let mut world = world();
    world.apply(spec("orders", 1, "good-100"));
    world.run(SECOND * 3);
    world.apply(spec("stock", 1, "crash-50"));
    world.run(SECOND * 30);
    let orders = name("orders");
    let why = asked(&world, 5, |past, now| {
        world.control.why_service(&orders, past, now)
    });
    let forgotten = why.expect("it is known").forgotten;
    assert_eq!(forgotten, Some(world.control.last_event() - 5));
    let none = asked(&world, usize::MAX, |past, now| {
        world.control.why_instance(&id("orders", 9), past, now)
    });
    assert_eq!(none, None);
    let none = asked(&world, usize::MAX, |past, now| {
        world.control.why_service(&name("nobody"), past, now)
    });
    assert_eq!(none, None);
    // A night of crashes is not an answer.
    let why = of_instance(&world, &id("stock", 1));
    assert!(
        why.left_out > 0 || why.chain.len() < 30,
        "{}",
        why.chain.len()
    );
}

#[test]
fn how_it_was_at_a_moment_is_told_by_what_was_known_then() {
    let mut world = world();
    world.apply(spec("orders", 2, "good-100"));
    world.run(SECOND * 3);
    let well = world.clock().at;
    world.run(SECOND * 3);
    let input = Input::Scale {
        service: name("orders"),
        instances: 0,
    };
    world.input(input).expect("can be");
    world.run(SECOND * 3);
    let orders = name("orders");
    let then = |at| {
        let why = asked(&world, usize::MAX, |past, _| {
            world.control.why_service_then(&orders, past, at)
        });
        why.expect("it is known")
    };
    says(
        &then(well),
        Topic::State,
        &["2 of 2 instances of orders were passing"],
    );
    says(
        &then(world.clock().at),
        Topic::State,
        &["no instance of orders was wanted", "scaled to zero"],
    );
}

#[test]
fn at_any_moment_of_a_crash_loop_the_end_before_is_told() {
    let mut world = world();
    world.apply(spec("orders", 1, "crash-300"));
    world.run(SECOND);
    let crashing = world.clock().at;
    world.run(SECOND * 20);
    let orders = name("orders");
    let mut seen = [0, 0];
    for ms in (0..15_000).step_by(250) {
        let at = Timestamp(crashing.0 + ms);
        let why = asked(&world, usize::MAX, |past, _| {
            world.control.why_service_then(&orders, past, at)
        });
        let text = &why.expect("it is known").chain[0].text;
        assert!(
            text.contains("no instance of orders was passing: orders-1 exited with code 1 at"),
            "{text}"
        );
        seen[usize::from(text.contains("started again"))] += 1;
    }
    assert!(
        seen.iter().all(|count| *count > 0),
        "both moments were looked at: {seen:?}"
    );
}

#[test]
fn a_run_of_a_schedule_is_remembered_with_its_end_over_a_restart() {
    let mut world = world();
    let cron = Cron::parse("* * * * *").expect("legal");
    world.apply(ServiceSpec {
        schedule: Some(Schedule {
            cron,
            deadline: SECOND * 30,
        }),
        http: None,
        ..spec("report", 0, "done-100")
    });
    world.run(Duration::from_secs(65));
    let before = world.service("report").schedule.expect("has one");
    assert!(before.last.is_some(), "{before:?}");
    says(
        &of_service(&world, "report"),
        Topic::State,
        &["the last run, report-1, exited with code 0"],
    );
    world.restart_control();
    world.run(SECOND);
    let after = world.service("report").schedule.expect("has one");
    assert_eq!(after, before);
}

#[test]
fn a_dry_run_tells_what_differs_and_by_which_steps_and_whether_the_memory_is_there() {
    let mut world = world();
    let limited = |memory: u64, behaviour: &str| {
        let mut spec = spec("orders", 4, behaviour);
        spec.limits = LimitsSpec {
            memory_bytes: Some(memory),
            ..LimitsSpec::default()
        };
        spec
    };
    world.agent.capacity = Some(Capacity {
        cpu_thousandths: 2000,
        memory_bytes: 1 << 30,
    });
    world.apply(limited(64 << 20, "good-100"));
    world.run(SECOND * 5);
    let mut next = limited(200 << 20, "good-200");
    next.rollout.canary = Some(Step::Count(NonZeroU32::MIN));
    next.before = vec![Template::parse("done-1").expect("legal")];
    next.env = [("DB".to_owned(), Template::parse("x").expect("legal"))].into();
    let before = world.control.last_event();
    let reply = world
        .input(Input::DryRun(Apply {
            services: vec![next],
        }))
        .expect("legal");
    assert_eq!(world.control.last_event(), before, "nothing happened");
    let outlook = reply.outlook.expect("is told");
    let service = &outlook.services[0];
    let keys: Vec<&str> = service
        .differences
        .iter()
        .map(|one| one.key.as_str())
        .collect();
    assert_eq!(
        keys,
        [
            "before",
            "env.DB",
            "exec",
            "limits.memory",
            "rollout.canary"
        ]
    );
    let memory = &service.differences[3];
    assert_eq!(
        (memory.from.as_deref(), memory.to.as_deref()),
        (Some("64 MiB"), Some("200 MiB"))
    );
    let rollout = service.rollout.as_ref().expect("there is one");
    assert_eq!(
        (rollout.step, rollout.canaries, rollout.hold_ms),
        (1, 1, 500)
    );
    assert_eq!(rollout.before, ["done-1"]);
    assert_eq!(rollout.on_failure, Some(OnFailure::Rollback));
    // Five of 200 MiB at the most: 1000 of 1024.
    assert_eq!(outlook.memory.most_bytes, 1000 << 20);
    assert_eq!(outlook.memory.fits(), Some(true));
}
