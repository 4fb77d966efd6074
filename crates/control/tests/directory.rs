//! Where services are found by name.

mod steady;

use mainstay_control::{Input, IntakeWish, LastOne};
use mainstay_model::directory::Listing;
use mainstay_model::routing::Unavailable;
use mainstay_model::service::AddressSpec;
use mainstay_model::{IntakeState, ServiceState};
use mainstay_sim::{World, spec};
use steady::{SECOND, nothing_broken, orders, steady};

fn listing(world: &World, service: &str) -> Listing {
    let mut all = world.control.directory().services.iter();
    let found = all.find(|listing| listing.service.as_str() == service);
    found.expect("it is listed").clone()
}

fn instances(world: &World, service: &str) -> Vec<u64> {
    let listing = listing(world, service);
    let listed = listing.instances.iter();
    listed.map(|one| one.instance.number).collect()
}

#[test]
fn a_service_that_no_gateway_knows_of_is_found_at_its_instances() {
    let mut world = steady();
    let mut hidden = spec("hidden", 2, "good-100");
    (hidden.http, hidden.address) = (None, None);
    world.apply(hidden);
    let waits = listing(&world, "hidden");
    assert_eq!(waits.unavailable, Some(Unavailable::Starting));
    assert!(waits.instances.is_empty() && waits.address.is_none());
    world.run(SECOND * 2);
    assert_eq!(world.service("hidden").state, ServiceState::Steady);
    assert_eq!(instances(&world, "hidden"), [1, 2]);
    let routed = |name: &str| {
        let mut services = world.routing.services.iter();
        services.any(|one| one.service.as_str() == name)
    };
    assert!(routed("orders") && !routed("hidden"));
    nothing_broken(&world);
}

#[test]
fn who_drains_or_is_drained_is_not_found_unless_nobody_else_is() {
    let mut world = steady();
    assert_eq!(instances(&world, "orders"), [1, 2, 3]);
    let drain = |world: &mut World, number: u64| {
        let wish = IntakeWish {
            instance: orders(number),
            state: Some(IntakeState::Drain),
            weight: None,
            last: LastOne::Take,
            by: "account 0".into(),
        };
        let before = world.control.directory().generation;
        world.input(Input::SetIntake(wish)).expect("it is there");
        assert!(world.control.directory().generation > before);
    };
    drain(&mut world, 2);
    assert_eq!(instances(&world, "orders"), [1, 3]);
    drain(&mut world, 1);
    drain(&mut world, 3);
    assert_eq!(instances(&world, "orders"), [1, 2, 3]);
    let service = orders(1).service;
    world
        .input(Input::Scale {
            service,
            instances: 0,
        })
        .expect("it is taken");
    assert_eq!(
        listing(&world, "orders").unavailable,
        Some(Unavailable::ScaledToZero)
    );
}

#[test]
fn an_instance_gets_the_addresses_of_what_it_needs() {
    let mut world = steady();
    let mut pay = spec("pay", 1, "good-100");
    (pay.http, pay.address) = (None, Some(AddressSpec::Auto));
    let service = pay.name.clone();
    world.apply(pay);
    let mut needy = spec("needy", 1, "good-100");
    needy.http = None;
    needy.needs = [orders(1).service, service.clone()].into();
    world.apply(needy);
    let address = listing(&world, "pay").address;
    let planned = world.control.plan().instances.iter();
    let mut planned = planned.filter(|one| one.instance.service.as_str() == "needy");
    let planned = planned.next().expect("it is planned");
    assert!(address.is_some());
    // `orders` has no address.
    assert_eq!(planned.addresses.len(), 1);
    assert_eq!(planned.addresses.get(&service).copied(), address);
}
