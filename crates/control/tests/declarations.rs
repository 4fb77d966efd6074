//! What people ask for, what is refused, and what is left of a service that goes.

mod steady;

use mainstay_control::{Apply, Change, Input, Note, Refusal, Settings};
use mainstay_ids::Version;
use mainstay_model::routing::Unavailable;
use mainstay_model::service::AddressSpec;
use mainstay_model::{ServiceState, Template};
use mainstay_sim::{World, name, spec};
use std::net::SocketAddr;
use steady::{SECOND, steady};

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
