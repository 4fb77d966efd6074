//! What is started only when its time has come: needs, what runs before a rollout, canaries, pauses
//! and schedules.

#![allow(
    clippy::cast_possible_truncation,
    reason = "the numbers of a simulated world are small"
)]

use std::time::Duration;

use mainstay_control::{Apply, Input, Note, Refusal, Settings};
use mainstay_ids::{InstanceId, Version};
use mainstay_model::event::{PauseReason, RolloutFailure, Wait};
use mainstay_model::service::{Schedule, Step};
use mainstay_model::{
    Capacity, Cron, EventKind, Exit, InstanceState, ServiceSpec, ServiceState, Template,
};
use mainstay_sim::{Consumer, HOLD, World, name, spec};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

fn id(service: &str, number: u64) -> InstanceId {
    InstanceId {
        service: name(service),
        number,
    }
}

fn needing(service: &str, needs: &[&str], behaviour: &str) -> ServiceSpec {
    ServiceSpec {
        needs: needs.iter().map(|one| name(one)).collect(),
        ..spec(service, 2, behaviour)
    }
}

fn migrating(behaviour: &str, migration: &str) -> ServiceSpec {
    ServiceSpec {
        before: vec![Template::parse(migration).expect("legal")],
        ..spec("orders", 2, behaviour)
    }
}

fn with_canary(behaviour: &str, canary: u32) -> ServiceSpec {
    let mut spec = spec("orders", 3, behaviour);
    let canary = std::num::NonZeroU32::new(canary).expect("not zero");
    spec.rollout.canary = Some(Step::Count(canary));
    spec
}

fn scheduled(cron: &str, program: &str, deadline: Duration) -> ServiceSpec {
    let cron = Cron::parse(cron).expect("legal");
    ServiceSpec {
        schedule: Some(Schedule { cron, deadline }),
        http: None,
        ..spec("report", 0, program)
    }
}

fn world() -> World {
    let mut world = World::new(Settings::default());
    world.join(Consumer::new("gateway"));
    world
}

fn declare(world: &mut World, services: Vec<ServiceSpec>) {
    let applied = world.input(Input::Apply(Apply { services }));
    applied.expect("it is legal");
}

fn state_of(world: &World, id: &InstanceId) -> Option<InstanceState> {
    let mut all = world.control.instances();
    all.find(|one| one.instance == *id).map(|one| one.state)
}

fn nothing_broken(world: &World) {
    assert!(world.broken.is_empty(), "{:?}", world.broken);
    assert!(world.agent.broken.is_empty(), "{:?}", world.agent.broken);
}

fn started(world: &World) -> Vec<String> {
    let events = world.events.iter();
    events
        .filter_map(|event| match &event.kind {
            EventKind::InstanceStarted { instance, .. } => Some(instance.to_string()),
            _ => None,
        })
        .collect()
}

fn failures(world: &World) -> Vec<RolloutFailure> {
    let events = world.events.iter();
    events
        .filter_map(|event| match &event.kind {
            EventKind::RolloutFailed { cause, .. } => Some(cause.clone()),
            _ => None,
        })
        .collect()
}

#[test]
fn who_needs_others_is_started_when_one_of_each_is_ready_and_not_before() {
    let mut world = world();
    let services = vec![
        needing("a-shop", &["orders", "stock"], "good-100"),
        needing("orders", &["payments"], "good-100"),
        spec("payments", 1, "good-300"),
        spec("stock", 1, "good-2000"),
    ];
    declare(&mut world, services);
    world.run(Duration::from_millis(300));
    assert_eq!(
        state_of(&world, &id("orders", 1)),
        Some(InstanceState::Held)
    );
    let wait = world.service("a-shop").wait;
    let services = ["orders", "stock"].map(name).into();
    assert_eq!(wait, Some(Wait::Needs { services }));
    world.run(SECOND * 6);
    for service in ["a-shop", "orders", "payments", "stock"] {
        assert_eq!(world.service(service).state, ServiceState::Steady);
    }
    let order = started(&world);
    let at = |one: &str| {
        order
            .iter()
            .position(|other| other == one)
            .expect("started")
    };
    assert!(at("payments-1") < at("orders-1") && at("orders-2") < at("a-shop-1"));
    assert!(at("stock-1") < at("a-shop-1"));
    nothing_broken(&world);
}

#[test]
fn a_reboot_starts_everything_again_in_the_order_of_needs() {
    let mut world = world();
    let services = vec![
        needing("a-shop", &["orders"], "good-100"),
        needing("orders", &["payments"], "good-100"),
        spec("payments", 2, "good-300"),
    ];
    declare(&mut world, services);
    world.run(SECOND * 6);
    world.restart_control();
    world.agent.reboot();
    let before = started(&world).len();
    world.run(SECOND * 8);
    let order = started(&world).split_off(before);
    let of = |service: &str| {
        let mut places = (0..order.len()).filter(|at| order[*at].starts_with(service));
        (places.next().expect("started"), places.next_back())
    };
    assert_eq!(order.len(), 6, "{order:?}");
    assert!(of("payments").0 < of("orders").0 && of("orders").0 < of("a-shop").0);
    assert_eq!(
        world.happened(|kind| matches!(kind, EventKind::NodeRebooted { .. })),
        1
    );
    for service in ["a-shop", "orders", "payments"] {
        assert_eq!(world.service(service).state, ServiceState::Steady);
    }
    nothing_broken(&world);
}

#[test]
fn a_need_that_dies_later_holds_nobody_up() {
    let mut world = world();
    let services = vec![
        needing("orders", &["payments"], "good-100"),
        spec("payments", 1, "good-100"),
    ];
    declare(&mut world, services);
    world.run(SECOND * 3);
    declare(&mut world, vec![spec("payments", 1, "never")]);
    world
        .input(Input::Scale {
            service: name("payments"),
            instances: 0,
        })
        .expect("it exists");
    world.run(SECOND * 3);
    // A rollout and a crash of `orders` go on: what it needs was there when it was first started.
    declare(
        &mut world,
        vec![needing("orders", &["payments"], "good-150")],
    );
    world.agent.kill(0);
    world.run(SECOND * 6);
    assert_eq!(world.service("orders").state, ServiceState::Steady);
    nothing_broken(&world);
}

#[test]
fn needs_that_can_never_be_met_are_refused_and_who_is_needed_is_told() {
    let mut world = world();
    let refused = |world: &mut World, services| {
        world
            .input(Input::Apply(Apply { services }))
            .expect_err("it is illegal")
    };
    let unknown = refused(&mut world, vec![needing("orders", &["payments"], "good")]);
    assert!(matches!(unknown, Refusal::NeedsUnknown { .. }), "{unknown}");
    let itself = vec![
        needing("a", &["b"], "good"),
        needing("b", &["c"], "good"),
        needing("c", &["a"], "good"),
    ];
    let itself = refused(&mut world, itself);
    assert!(matches!(itself, Refusal::NeedsItself { .. }), "{itself}");
    let run = scheduled("* * * * *", "done", MINUTE);
    let never = refused(&mut world, vec![needing("a", &["report"], "good"), run]);
    assert!(matches!(never, Refusal::NeedsScheduled { .. }), "{never}");
    assert_eq!(world.control.services().count(), 0);
    declare(
        &mut world,
        vec![needing("a", &["b"], "good"), spec("b", 1, "good")],
    );
    let reply = world
        .input(Input::Remove { service: name("b") })
        .expect("it exists");
    assert!(matches!(reply.notes.as_slice(), [Note::StillNeeded { .. }]));
}

#[test]
fn without_progress_a_rollout_fails_and_says_what_it_waited_for() {
    let mut world = world();
    let mut orders = needing("orders", &["payments"], "good-100");
    orders.rollout.progress = SECOND * 8;
    let mut payments = spec("payments", 1, "never");
    payments.rollout.deadline = MINUTE * 5;
    payments.rollout.progress = MINUTE * 5;
    declare(&mut world, vec![orders, payments]);
    world.run(SECOND * 7);
    assert_eq!(world.service("orders").state, ServiceState::RollingOut);
    world.run(SECOND * 2);
    assert_eq!(world.service("orders").state, ServiceState::Failed);
    let services = [name("payments")].into();
    let expected = RolloutFailure::NoProgress {
        deadline_ms: 8000,
        wait: Some(Wait::Needs { services }),
    };
    assert_eq!(failures(&world), [expected]);
}

#[test]
fn what_runs_before_runs_once_per_version_and_the_rollout_follows() {
    let mut world = world();
    world.apply(migrating("good-100", "done-500"));
    world.run(Duration::from_millis(400));
    assert_eq!(
        state_of(&world, &id("orders", 1)),
        Some(InstanceState::Running)
    );
    assert_eq!(
        world.plan.instances.len(),
        1,
        "nothing else runs before it has ended"
    );
    world.run(SECOND * 3);
    assert_eq!(world.service("orders").state, ServiceState::Steady);
    // Scaling and a declaration of the same content run nothing.
    world.apply(ServiceSpec {
        instances: 3,
        ..migrating("good-100", "done-500")
    });
    world.run(SECOND * 3);
    // The next version does, while the old one serves.
    world.apply(migrating("good-150", "done-500"));
    world.run(Duration::from_millis(300));
    assert_eq!(world.listed("orders").len(), 3);
    world.run(SECOND * 8);
    // A way back runs nothing.
    world
        .input(Input::Rollback {
            service: name("orders"),
            to: None,
        })
        .expect("there is one");
    world.run(SECOND * 8);
    assert_eq!(world.service("orders").state, ServiceState::Steady);
    let runs = world.happened(|kind| {
        matches!(
            kind,
            EventKind::BeforeFinished {
                exit: Some(Exit::Code(0)),
                ..
            }
        )
    });
    assert_eq!(runs, 2);
    nothing_broken(&world);
}

#[test]
fn a_failed_migration_fails_the_rollout_and_the_old_version_is_left_alone() {
    let mut world = world();
    world.apply(migrating("good-100", "done-100"));
    world.run(SECOND * 3);
    let before = world.listed("orders");
    world.apply(migrating("good-150", "crash-100"));
    world.run(SECOND * 4);
    let orders = world.service("orders");
    assert_eq!(
        (orders.state, orders.version),
        (ServiceState::Steady, Version(1))
    );
    assert_eq!(world.listed("orders"), before, "nobody was replaced");
    let failed = failures(&world);
    assert!(
        matches!(
            failed.as_slice(),
            [RolloutFailure::BeforeFailed {
                exit: Some(Exit::Code(1)),
                ..
            }]
        ),
        "{failed:?}"
    );
    nothing_broken(&world);
}

#[test]
fn what_runs_before_is_never_run_twice_whenever_the_control_centre_dies() {
    for moment in 0..60 {
        let mut world = world();
        world.apply(migrating("good-100", "done-500"));
        world.run(Duration::from_millis(25 * moment));
        world.restart_control();
        world.run(SECOND * 4);
        assert_eq!(
            world.service("orders").state,
            ServiceState::Steady,
            "{moment}"
        );
        let runs = world.happened(|kind| matches!(kind, EventKind::BeforeFinished { .. }));
        assert_eq!(runs, 1, "{moment}");
        nothing_broken(&world);
    }
}

#[test]
fn canaries_run_beside_all_of_the_old_until_somebody_promotes_them() {
    let mut world = world();
    world.apply(with_canary("good-100", 1));
    world.run(SECOND * 3);
    assert_eq!(
        world.service("orders").state,
        ServiceState::Steady,
        "the first version has nothing beside it"
    );
    world.apply(with_canary("good-150", 1));
    let early = world
        .input(Input::Promote {
            service: name("orders"),
        })
        .expect_err("it is not ready");
    assert!(
        matches!(
            early,
            Refusal::CanariesNotReady {
                canaries: 1,
                ready: 0,
                ..
            }
        ),
        "{early}"
    );
    world.run(MINUTE * 20);
    world.restart_control();
    world.run(SECOND);
    let orders = world.service("orders");
    assert_eq!(
        orders.state,
        ServiceState::AwaitsPromotion,
        "nobody's word has no deadline"
    );
    assert_eq!(orders.wait, Some(Wait::Promotion { ready: 1 }));
    assert_eq!(world.listed("orders").len(), 4);
    world
        .input(Input::Promote {
            service: name("orders"),
        })
        .expect("it is ready");
    world.run(SECOND * 6);
    let orders = world.service("orders");
    assert_eq!(
        (orders.state, orders.stable),
        (ServiceState::Steady, Some(Version(2)))
    );
    assert_eq!(world.listed("orders").len(), 3);
    let again = world
        .input(Input::Promote {
            service: name("orders"),
        })
        .expect_err("nothing waits");
    assert!(matches!(again, Refusal::NothingToPromote { .. }), "{again}");
    nothing_broken(&world);
}

#[test]
fn bad_canaries_go_by_themselves_and_unwanted_ones_by_a_rollback() {
    let mut world = world();
    world.apply(with_canary("good-100", 2));
    world.run(SECOND * 3);
    let before = world.listed("orders");
    world.apply(with_canary("crash-100", 2));
    world.run(SECOND * 4);
    let orders = world.service("orders");
    assert_eq!(
        (orders.state, orders.version),
        (ServiceState::Steady, Version(1))
    );
    world.apply(with_canary("good-150", 2));
    world.run(SECOND * 2);
    assert_eq!(world.service("orders").state, ServiceState::AwaitsPromotion);
    world
        .input(Input::Rollback {
            service: name("orders"),
            to: None,
        })
        .expect("there is one");
    world.run(SECOND * 2);
    assert_eq!(world.service("orders").state, ServiceState::Steady);
    assert_eq!(
        world.listed("orders"),
        before,
        "the old ones were never touched"
    );
    nothing_broken(&world);
}

#[test]
fn a_paused_rollout_does_nothing_and_goes_on_with_all_its_time() {
    let mut world = world();
    world.apply(spec("orders", 3, "good-100"));
    world.run(SECOND * 3);
    let none = world
        .input(Input::Pause {
            service: name("orders"),
        })
        .expect_err("nothing is under way");
    assert!(matches!(none, Refusal::NothingToPause { .. }), "{none}");
    world.apply(spec("orders", 3, "good-150"));
    world.run(HOLD + Duration::from_millis(50));
    world
        .input(Input::Pause {
            service: name("orders"),
        })
        .expect("it is under way");
    let planned = world.plan.instances.len();
    world.run(MINUTE * 20);
    world.restart_control();
    world.run(SECOND * 2);
    assert_eq!(world.service("orders").state, ServiceState::Paused);
    let drains = world.happened(|kind| matches!(kind, EventKind::DrainStarted { .. }));
    assert_eq!((world.plan.instances.len(), drains), (planned, 0));
    // The wanted number is still followed.
    world
        .input(Input::Scale {
            service: name("orders"),
            instances: 5,
        })
        .expect("it exists");
    world.run(SECOND * 2);
    assert_eq!(world.listed("orders").len(), 5);
    world
        .input(Input::Resume {
            service: name("orders"),
        })
        .expect("it is paused");
    world.run(SECOND * 10);
    let orders = world.service("orders");
    assert_eq!(
        (orders.state, orders.stable),
        (ServiceState::Steady, Some(Version(2)))
    );
    nothing_broken(&world);
}

#[test]
fn what_failed_while_paused_is_acted_upon_at_resume_and_a_failed_rollout_can_begin_anew() {
    let mut world = world();
    let mut first = migrating("good-100", "crash-100");
    world.apply(first.clone());
    world.run(SECOND * 2);
    assert_eq!(world.service("orders").state, ServiceState::Failed);
    let reasons = world.happened(|kind| {
        matches!(
            kind,
            EventKind::RolloutPaused {
                reason: PauseReason::NothingToGoBackTo,
                ..
            }
        )
    });
    assert_eq!(reasons, 1);
    world
        .input(Input::Resume {
            service: name("orders"),
        })
        .expect("it has failed");
    world.run(SECOND * 2);
    assert_eq!(failures(&world).len(), 2, "it ran once more, as asked");

    first.before.clear();
    world.apply(first);
    world.run(SECOND * 3);
    world.apply(spec("orders", 2, "crash-400"));
    world
        .input(Input::Pause {
            service: name("orders"),
        })
        .expect("it is under way");
    world
        .input(Input::Resume {
            service: name("orders"),
        })
        .expect("it is paused");
    world.run(Duration::from_millis(100));
    world
        .input(Input::Pause {
            service: name("orders"),
        })
        .expect("it is under way");
    world.run(SECOND * 20);
    assert_eq!(world.service("orders").state, ServiceState::Paused);
    world
        .input(Input::Resume {
            service: name("orders"),
        })
        .expect("it is paused");
    world.run(SECOND * 4);
    let orders = world.service("orders");
    assert_eq!(orders.state, ServiceState::Steady);
    assert_ne!(orders.version, Version(3), "it went back");
    nothing_broken(&world);
}

fn runs(world: &World) -> usize {
    world.happened(|kind| matches!(kind, EventKind::RunFinished { .. }))
}

#[test]
fn a_schedule_runs_at_its_times_whatever_is_done_to_the_clock() {
    let mut world = world();
    world.apply(scheduled("* * * * *", "done-1000", MINUTE));
    assert_eq!(world.service("report").state, ServiceState::Steady);
    world.run(MINUTE * 3);
    assert_eq!(runs(&world), 3);
    let scale = world.input(Input::Scale {
        service: name("report"),
        instances: 2,
    });
    assert!(matches!(scale, Err(Refusal::Scheduled { .. })));
    // Back by an hour: none of the times is run twice.
    world.set_clock(-3_600_000);
    world.run(MINUTE * 5);
    assert_eq!(runs(&world), 3);
    // Forward again and by two hours: the last that was missed is made up for.
    world.set_clock(3_600_000 + 7_200_000);
    world.run(SECOND * 30);
    assert_eq!(runs(&world), 4);
    let missed =
        world.happened(|kind| matches!(kind, EventKind::RunsMissed { count } if *count >= 120));
    assert_eq!(missed, 1);
    world.restart_control();
    world.run(MINUTE * 2);
    assert_eq!(runs(&world), 6);
    nothing_broken(&world);
}

#[test]
fn one_run_at_a_time_and_none_beyond_its_deadline() {
    let mut world = world();
    world.apply(scheduled("* * * * *", "done-90000", MINUTE * 2));
    world.run(MINUTE * 5);
    let skipped = world.happened(|kind| matches!(kind, EventKind::RunSkipped { .. }));
    assert_eq!((runs(&world), skipped), (2, 2));
    world.apply(scheduled("* * * * *", "never", SECOND * 10));
    world.run(MINUTE * 3);
    let overdue = world.happened(|kind| matches!(kind, EventKind::RunOverdue { .. }));
    assert_eq!(overdue, 1, "the times before belong to the run before");
    world
        .input(Input::Remove {
            service: name("report"),
        })
        .expect("it exists");
    world.run(SECOND * 2);
    assert_eq!(world.control.services().count(), 0);
    nothing_broken(&world);
}

const MIB: u64 = 1024 * 1024;

fn needing_memory(service: &str, instances: u32, behaviour: &str) -> ServiceSpec {
    let mut spec = spec(service, instances, behaviour);
    spec.limits.memory_bytes = Some(256 * MIB);
    spec
}

/// A world whose node has room for so many instances of 256 MiB.
fn with_room_for(instances: u64) -> World {
    let mut world = world();
    world.agent.capacity = Some(Capacity {
        cpu_thousandths: 2000,
        memory_bytes: instances * 256 * MIB,
    });
    world.run(SECOND);
    world
}

#[test]
fn what_the_node_cannot_hold_with_one_more_is_refused() {
    let mut world = with_room_for(4);
    let refused = |world: &mut World, services| {
        let refused = world.input(Input::Apply(Apply { services }));
        refused.expect_err("it does not fit")
    };
    let four = refused(&mut world, vec![needing_memory("orders", 4, "good")]);
    let expected = Refusal::NoRoom {
        service: name("orders"),
        needed: 1280 * MIB,
        node: 1024 * MIB,
    };
    assert_eq!(four, expected, "a rollout of it could never begin");
    let two = vec![
        needing_memory("orders", 2, "good"),
        needing_memory("pay", 2, "good"),
    ];
    let two = refused(&mut world, two);
    assert!(matches!(two, Refusal::NoRoom { .. }), "{two}");
    let mut fast = spec("orders", 1, "good");
    fast.limits.cpu_thousandths = Some(2001);
    let fast = refused(&mut world, vec![fast]);
    assert!(matches!(fast, Refusal::TooFewProcessors { .. }), "{fast}");

    declare(&mut world, vec![needing_memory("orders", 3, "good")]);
    let scaled = world.input(Input::Scale {
        service: name("orders"),
        instances: 4,
    });
    assert!(matches!(scaled, Err(Refusal::NoRoom { .. })));
    let unlimited = spec("pay", 40, "good");
    declare(&mut world, vec![unlimited]);
}

#[test]
fn two_rollouts_share_the_room_for_one_more_instance_and_nobody_gets_beyond_it() {
    let mut world = with_room_for(5);
    let services = |behaviour: &str| {
        vec![
            needing_memory("orders", 2, behaviour),
            needing_memory("pay", 2, behaviour),
        ]
    };
    declare(&mut world, services("good-100"));
    world.run(SECOND * 3);
    declare(&mut world, services("good-150"));
    for _ in 0..400 {
        world.run(Duration::from_millis(25));
        let running = world.agent.all().len();
        assert!(running <= 5, "{running} have memory for 5");
    }
    for service in ["orders", "pay"] {
        let view = world.service(service);
        let expected = (ServiceState::Steady, Some(Version(2)));
        assert_eq!((view.state, view.stable), expected);
    }
    nothing_broken(&world);
}

#[test]
fn who_waits_for_memory_is_not_started_and_says_so() {
    let mut world = world();
    let mut orders = needing_memory("orders", 3, "good-100");
    orders.rollout.progress = SECOND * 6;
    // Nobody knows yet what the node has, and nothing is started.
    declare(&mut world, vec![orders]);
    world.agent.capacity = Some(Capacity {
        cpu_thousandths: 2000,
        memory_bytes: 600 * MIB,
    });
    world.run(SECOND * 3);
    let view = world.service("orders");
    let expected = Wait::Room {
        needed: 256 * MIB,
        free: 88 * MIB,
    };
    assert_eq!((view.ready, view.wait), (2, Some(expected.clone())));
    assert_eq!(
        state_of(&world, &id("orders", 3)),
        Some(InstanceState::Held)
    );
    world.run(SECOND * 5);
    let failed = failures(&world);
    assert!(
        matches!(failed.as_slice(), [RolloutFailure::NoProgress { wait: Some(wait), .. }] if *wait == expected),
        "{failed:?}"
    );
    nothing_broken(&world);
}

#[test]
fn what_runs_before_is_not_run_again_while_its_rollout_is_paused() {
    let mut world = world();
    declare(&mut world, vec![migrating("good-100", "crash-300")]);
    world.run(SECOND / 10);
    let service = name("orders");
    world.input(Input::Pause { service }).expect("it rolls out");
    world.run(SECOND * 10);
    let befores = world.happened(|event| matches!(event, EventKind::BeforeFinished { .. }));
    assert_eq!(befores, 1);
    nothing_broken(&world);
}

#[test]
fn a_version_is_not_in_force_with_no_instances_before_what_runs_before_it_has_ended() {
    let mut world = world();
    declare(&mut world, vec![migrating("good-100", "done-2000")]);
    let scale = |instances| Input::Scale {
        service: name("orders"),
        instances,
    };
    world.input(scale(0)).expect("legal");
    world.run(SECOND);
    world.input(scale(2)).expect("legal");
    world.run(SECOND / 2);
    assert_eq!(started(&world), ["orders-1"], "only what runs before");
    world.run(SECOND * 3);
    assert_eq!(started(&world), ["orders-1", "orders-2", "orders-3"]);
    nothing_broken(&world);
}

#[test]
fn while_everything_stops_nobody_is_woken_for_a_rollout() {
    let mut world = world();
    let mut spec = spec("orders", 1, "never");
    spec.rollout.progress = SECOND;
    declare(&mut world, vec![spec]);
    world.run(SECOND / 2);
    world.input(Input::StopAll).expect("legal");
    world.run(SECOND * 3);
    world.consumers.clear();
    let deadline = world.control.next_deadline();
    assert!(
        deadline.is_none_or(|at| at > world.clock().now),
        "{deadline:?}"
    );
    nothing_broken(&world);
}

#[test]
fn a_version_whose_preparation_failed_is_not_in_force_with_no_instances_either() {
    let mut world = world();
    declare(&mut world, vec![spec("orders", 1, "good-100")]);
    world.run(SECOND);
    let mut next = migrating("good-150", "crash-300");
    next.rollout.on_failure = mainstay_model::service::OnFailure::Pause;
    declare(&mut world, vec![next]);
    world.run(SECOND);
    let scale = |instances| Input::Scale {
        service: name("orders"),
        instances,
    };
    world.input(scale(0)).expect("legal");
    world.run(SECOND);
    assert_eq!(world.service("orders").state, ServiceState::Failed);
    world.input(scale(1)).expect("legal");
    world.run(SECOND);
    let orders = world.control.instances().next().expect("one runs");
    assert_eq!(orders.version, Version(1), "the stable one");
    nothing_broken(&world);
}
