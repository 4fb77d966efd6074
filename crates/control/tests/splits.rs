//! What the routes say of requests beside their instances: shares of canaries, rewriting by
//! version, handles of sticky clients, redirects.

use std::num::NonZeroU32;
use std::time::Duration;

use mainstay_control::{Apply, Control, Input, Refusal, Settings, Snapshot, StickyKey};
use mainstay_ids::Version;
use mainstay_model::rewrite::{PathRewrite, Redirect, RedirectStatus, Rewrite, Target};
use mainstay_model::route::{CookieName, HttpMatch, PathPrefix};
use mainstay_model::routing::{Handle, ServiceRoutes};
use mainstay_model::service::{OnFailure, Step};
use mainstay_model::traffic::{CanaryTraffic, Sticky};
use mainstay_model::{Routing, ServiceSpec, ServiceState, Share};
use mainstay_sim::{Consumer, World, name, spec};

const SECOND: Duration = Duration::from_secs(1);

fn world() -> World {
    let mut world = World::new(Settings {
        sticky_key: StickyKey::new([7; 16]),
        ..Settings::default()
    });
    world.join(Consumer::new("gateway"));
    world
}

fn routes(world: &World) -> ServiceRoutes {
    let mut services = world.routing.services.iter();
    let found = services.find(|one| one.service == name("orders"));
    found.expect("it is routed").clone()
}

fn on_trial(world: &World) -> Option<Version> {
    routes(world).split.map(|split| split.version)
}

/// One canary with a thousandth of the requests.
fn weighted(behaviour: &str) -> ServiceSpec {
    let mut spec = spec("orders", 3, behaviour);
    spec.rollout.canary = Some(Step::Count(NonZeroU32::MIN));
    spec.traffic.canary = Some(CanaryTraffic {
        weight: Share::from_ppm(1000).expect("legal"),
        headers: [].into(),
        cookies: [].into(),
    });
    spec
}

fn nothing_broken(world: &World) {
    assert!(world.broken.is_empty(), "{:?}", world.broken);
}

#[test]
fn canaries_get_their_share_until_they_are_promoted_and_not_a_moment_longer() {
    let mut world = world();
    world.apply(weighted("good-100"));
    world.run(SECOND * 3);
    assert_eq!(on_trial(&world), None, "there is nothing to compare with");
    world.apply(weighted("good-150"));
    assert_eq!(
        on_trial(&world),
        Some(Version(2)),
        "before the first of them is listed"
    );
    world.run(SECOND * 5);
    assert_eq!(world.service("orders").state, ServiceState::AwaitsPromotion);
    let split = routes(&world).split.expect("two versions are there");
    assert_eq!(
        (split.version, split.traffic.weight.ppm()),
        (Version(2), 1000)
    );
    assert_eq!(routes(&world).traffic.canary, None, "it is said once");
    world.restart_control();
    world.run(SECOND);
    assert_eq!(on_trial(&world), Some(Version(2)));
    let service = name("orders");
    world
        .input(Input::Promote { service })
        .expect("it is ready");
    assert_eq!(on_trial(&world), None);
    world.run(SECOND * 8);
    assert_eq!(world.service("orders").state, ServiceState::Steady);
    nothing_broken(&world);
}

#[test]
fn a_canary_that_failed_never_gets_more_than_its_share() {
    for on_failure in [OnFailure::Pause, OnFailure::Rollback] {
        let mut world = world();
        world.apply(weighted("good-100"));
        world.run(SECOND * 3);
        let mut flapping = weighted("flap-300");
        flapping.rollout.on_failure = on_failure;
        world.apply(flapping);
        let mut listed = 0;
        for _ in 0..400 {
            world.run(Duration::from_millis(25));
            let routes = routes(&world);
            let canaries = routes
                .endpoints
                .iter()
                .filter(|one| one.version == Version(2));
            if canaries.count() > 0 {
                listed += 1;
                let split = routes.split.expect("a canary is listed");
                assert_eq!(split.version, Version(2), "{on_failure:?}");
            }
        }
        assert!(listed > 0, "it was there: {on_failure:?}");
        nothing_broken(&world);
    }
}

#[test]
fn a_canary_that_is_rolled_back_keeps_its_share_while_it_is_needed() {
    let mut world = world();
    world.apply(weighted("good-100"));
    world.run(SECOND * 3);
    world.apply(weighted("good-150"));
    world.run(SECOND * 5);
    let service = || name("orders");
    let scale = Input::Scale {
        service: service(),
        instances: 6,
    };
    world.input(scale).expect("there is room");
    let back = Input::Rollback {
        service: service(),
        to: None,
    };
    world.input(back).expect("there is one");
    let versions: Vec<Version> = routes(&world)
        .endpoints
        .iter()
        .map(|one| one.version)
        .collect();
    assert!(
        versions.contains(&Version(2)),
        "it stays until others are ready"
    );
    assert_eq!(on_trial(&world), Some(Version(2)));
    world.run(SECOND * 8);
    assert_eq!(
        (world.service("orders").state, on_trial(&world)),
        (ServiceState::Steady, None)
    );
    nothing_broken(&world);
}

#[test]
fn what_is_written_anew_for_an_instance_goes_with_its_version() {
    let strip = Rewrite {
        path: Some(PathRewrite::Strip(
            PathPrefix::parse("/orders").expect("legal"),
        )),
        ..Rewrite::default()
    };
    let mut world = world();
    world.apply(spec("orders", 3, "good-100"));
    world.run(SECOND * 3);
    assert_eq!(routes(&world).rewrites, []);
    let mut next = spec("orders", 3, "good-100");
    next.traffic.rewrite = strip.clone();
    world.apply(next);
    let mut mixed = 0;
    for _ in 0..300 {
        world.run(Duration::from_millis(25));
        let routes = routes(&world);
        let rewrites: Vec<_> = routes
            .rewrites
            .iter()
            .map(|one| (one.version, &one.rewrite))
            .collect();
        let old = routes.endpoints.iter().any(|one| one.version == Version(1));
        let new = routes.endpoints.iter().any(|one| one.version == Version(2));
        mixed += u32::from(old && new);
        let expected = if new {
            vec![(Version(2), &strip)]
        } else {
            Vec::new()
        };
        assert_eq!(rewrites, expected);
    }
    assert!(mixed > 0, "both versions were there at once");
    assert!(routes(&world).traffic.rewrite.is_empty(), "it is said once");
}

#[test]
fn clients_stay_with_their_instances_over_a_restart_and_over_a_backup() {
    let handles = |world: &World| -> Vec<Option<Handle>> {
        routes(world)
            .endpoints
            .iter()
            .map(|one| one.handle)
            .collect()
    };
    let mut world = world();
    let plain = spec("orders", 3, "good-100");
    world.apply(plain.clone());
    world.run(SECOND * 3);
    assert_eq!(handles(&world), [None; 3], "nobody stays");
    let mut sticky = plain;
    let name = CookieName::parse("instance").expect("legal");
    sticky.traffic.sticky = Some(Sticky::Cookie { name, ttl: None });
    world.apply(sticky);
    world.run(SECOND * 8);
    let before = handles(&world);
    assert_eq!(before.len(), 3);
    assert!(before.iter().all(Option::is_some), "{before:?}");
    assert!(before[0] != before[1] && before[1] != before[2]);

    // The next control centre draws another key, and keeps the one of the state.
    let text = serde_json::to_value(world.control.snapshot()).expect("it is JSON");
    let restored = |text: serde_json::Value| {
        let snapshot: Snapshot = serde_json::from_value(text).expect("it is a state");
        let settings = Settings {
            sticky_key: StickyKey::new([9; 16]),
            ..Settings::default()
        };
        let control = Control::restore(snapshot, settings, world.clock()).expect("it is ours");
        serde_json::to_value(control.snapshot()).expect("it is JSON")["sticky_key"].clone()
    };
    assert_eq!(restored(text.clone()), "07".repeat(16));
    let mut without = text;
    without
        .as_object_mut()
        .expect("it is an object")
        .remove("sticky_key");
    assert_eq!(
        restored(without),
        "09".repeat(16),
        "a state from before there was a key"
    );
}

/// As they were written before a service could ask for more than a host and a path.
#[test]
fn specifications_and_routes_of_before_are_read_and_written_as_they_were() {
    let spec = r#"{"name":"pay","exec":["pay"],"dir":"/srv","user":null,"env":{},"address":"auto",
        "http":{"host":"pay.example.com","path":"/pay"},"health":{"check":"tcp","every":"1s",
        "timeout":"1s","fall":2,"rise":1,"start":"1m","restart":"1m"},"instances":1,"rollout":
        {"step":{"percent":25},"hold":"5s","deadline":"1m","progress":"10m","canary":{"count":1},
        "on_failure":"rollback"},"drain":"30s","grace":"10s","log":{"size":10485760,"keep":3},
        "slo":null,"needs":[],"before":[],"schedule":null,"artifact":null}"#;
    let before: serde_json::Value = serde_json::from_str(spec).expect("it is JSON");
    let read: ServiceSpec = serde_json::from_value(before.clone()).expect("it is one");
    assert_eq!(read.check(), Ok(()));
    assert!(read.traffic.is_default());
    assert_eq!(serde_json::to_value(&read).expect("it is JSON"), before);

    let routing = r#"{"generation":{"epoch":1,"revision":2},"services":[{"service":"pay","http":null,"address":null,
        "endpoints":[{"instance":"pay-1","attempt":1,"version":1,"address":"127.0.0.1:20000",
        "health":"passing"}],"unavailable":null}]}"#;
    let before: serde_json::Value = serde_json::from_str(routing).expect("it is JSON");
    let read: Routing = serde_json::from_value(before.clone()).expect("it is one");
    assert_eq!(serde_json::to_value(&read).expect("it is JSON"), before);
}

#[test]
fn a_redirect_claims_its_requests_like_any_route() {
    let path = |text: &str| PathPrefix::parse(text).expect("legal");
    let mut world = world();
    let mut orders = spec("orders", 1, "good-100");
    orders.http = None;
    orders.traffic.redirects.push(Redirect {
        on: HttpMatch::new(None, path("/old")),
        to: Target::parse("/new{rest}").expect("legal"),
        status: RedirectStatus::MovedPermanently,
    });
    world.apply(orders);
    assert_eq!(
        routes(&world).traffic.redirects.len(),
        1,
        "it is routed without `http`"
    );
    let mut other = spec("other", 1, "good-100");
    other.http = Some(HttpMatch::new(None, path("/old")).into());
    let services = vec![other];
    let refused = world.input(Input::Apply(Apply { services }));
    assert!(
        matches!(&refused, Err(Refusal::RouteTaken { by, .. }) if *by == name("orders")),
        "{refused:?}"
    );
}

#[test]
fn the_routes_name_the_path_at_which_the_wanted_version_is_asked_whether_it_lives() {
    use mainstay_model::service::Check;
    let mut world = world();
    let mut orders = spec("orders", 1, "good-100");
    orders.health.check = Check::Tcp;
    world.apply(orders.clone());
    world.run(SECOND * 2);
    assert_eq!(routes(&world).health_path, None);
    let path = PathPrefix::parse("/healthz").expect("legal");
    orders.health.check = Check::Http(path.clone());
    world.apply(orders);
    assert_eq!(routes(&world).health_path, Some(path));
    nothing_broken(&world);
}
