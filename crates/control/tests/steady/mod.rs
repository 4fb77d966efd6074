//! A service in a steady state, and what is asked of it: shared by the tests of `control`.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::time::Duration;

use mainstay_control::{Input, Settings};
use mainstay_ids::{ConsumerId, Generation, InstanceId};
use mainstay_model::event::DrainOutcome;
use mainstay_model::{Ack, EventKind, InstanceState, ServiceState};
use mainstay_sim::{Consumer, World, name, spec};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A world with one gateway and `orders` with three ready instances.
pub(crate) fn steady() -> World {
    let mut world = World::new(Settings::default());
    world.join(Consumer::new("gateway"));
    world.apply(spec("orders", 3, "good-100"));
    world.run(SECOND * 2);
    assert_eq!(world.service("orders").state, ServiceState::Steady);
    world
}

pub(crate) fn orders(number: u64) -> InstanceId {
    InstanceId {
        service: name("orders"),
        number,
    }
}

pub(crate) fn nothing_broken(world: &World) {
    assert!(world.broken.is_empty(), "{:?}", world.broken);
    assert!(world.agent.broken.is_empty(), "{:?}", world.agent.broken);
}

pub(crate) fn state(world: &World, number: u64) -> Option<InstanceState> {
    let mut instances = world.control.instances();
    let found = instances.find(|one| one.instance == orders(number));
    found.map(|one| one.state)
}

pub(crate) fn outcomes(world: &World) -> Vec<DrainOutcome> {
    let events = world.events.iter();
    events
        .filter_map(|event| match &event.kind {
            EventKind::DrainFinished { outcome, .. } => Some(*outcome),
            _ => None,
        })
        .collect()
}

/// Scales to two and gives the instance that drains, with the generation that removed it.
pub(crate) fn draining(world: &mut World) -> (InstanceId, Generation) {
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

pub(crate) fn ack(consumer: &ConsumerId, generation: Generation, busy: &[&InstanceId]) -> Input {
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
