//! What changes from one routing state to the next, for whoever forwards.
//!
//! A routing state is whole, and mostly one service of thousands differs in it from the one before: only those that
//! differ are looked into ([`difference`]). What comes out is what looking into all would ([`Course::anew`]).

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use mainstay_ids::{Attempt, Generation, InstanceId, ServiceName};
use mainstay_model::Routing;
use mainstay_model::routing::{Endpoint, ServiceRoutes};

use super::difference::{self, Part};
use super::spread::Spread;

/// How many dead instances are remembered; then the longest dead is forgotten, and who still has a
/// connection to it waits for TCP's own time-out. Each is one element in the kernel.
pub(super) const DEAD_MAX: usize = 16_384;

/// What is to be changed, all at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// How connections to these service addresses are spread from now on. To one of which nobody
    /// gets any share they are refused.
    pub services: Vec<(SocketAddr, Spread)>,
    /// Service addresses that are no more. Connections to them are refused.
    pub gone: Vec<SocketAddr>,
    /// Instances that are declared dead: what is under way to them is reset as soon as it sends.
    pub dead: Vec<SocketAddr>,
    /// Of those, addresses that an instance listens on again, or that are forgotten.
    pub revived: Vec<SocketAddr>,
}

impl Batch {
    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An instance that connections lead to, or led to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Place {
    /// Which instance.
    pub instance: InstanceId,
    /// Which start of it.
    pub attempt: Attempt,
    /// Where it listens.
    pub address: SocketAddr,
    /// By which service address.
    pub through: SocketAddr,
}

impl Place {
    pub(super) fn of(endpoint: &Endpoint, through: SocketAddr) -> Self {
        Self {
            instance: endpoint.instance.clone(),
            attempt: endpoint.attempt,
            address: endpoint.address,
            through,
        }
    }
}

impl Step {
    /// What it changes of the places.
    pub fn places(&self) -> PlacesChange {
        match &self.0 {
            Next::Anew(next) => PlacesChange::Anew(next.places()),
            Next::Part(part) => part.places_change(),
        }
    }
}

/// What one routing state changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Turn {
    /// For the rules.
    pub batch: Batch,
    /// Those that get no new connections and may finish what they have. What is no connection, as
    /// UDP, moves now.
    pub released: Vec<Place>,
    /// Those that are dead: who waits for them waits no more.
    pub severed: Vec<Place>,
    /// Service addresses that led to nobody, or were none, and lead to somebody now. What was refused
    /// and goes on asking, as UDP, is let through.
    pub opened: Vec<SocketAddr>,
}

/// All that forwarding is to do at present.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Course {
    pub(super) generation: Option<Generation>,
    /// The routing state that is in force; `None`: none was followed yet.
    pub(super) routing: Option<Arc<Routing>>,
    /// Whether two services list instances at one address, of which the latter counts.
    pub(super) sharing: Sharing,
    /// `None`: somebody before us left it.
    pub(super) services: BTreeMap<SocketAddr, Option<Spread>>,
    /// Whose these are, as far as they are in the routes.
    pub(super) names: BTreeMap<SocketAddr, ServiceName>,
    /// Those in the routes, by where they listen.
    pub(super) places: BTreeMap<SocketAddr, Place>,
    /// Those that left the routes and may have connections.
    pub(super) leaving: BTreeMap<SocketAddr, Place>,
    /// The longest dead in front.
    pub(super) dead: VecDeque<SocketAddr>,
}

/// Whether two services have something at one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sharing {
    #[default]
    None,
    Some,
}

/// What a course becomes when a turn is in force.
#[derive(Debug, Clone)]
pub struct Step(Next);

#[derive(Debug, Clone)]
enum Next {
    Anew(Box<Course>),
    Part(Box<Part>),
}

/// What a step changes of the places to which connections lead or led.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlacesChange {
    /// All of them may be others.
    Anew(Vec<Place>),
    /// First these addresses have none any more, and then there are these.
    Part {
        /// Addresses.
        gone: Vec<SocketAddr>,
        /// Places, new or others than before.
        put: Vec<Place>,
    },
}

impl Course {
    /// What an earlier process left: in the rules, these service addresses and dead; and the instances
    /// to which it had led connections.
    pub fn left_behind(
        services: Vec<SocketAddr>,
        dead: Vec<SocketAddr>,
        places: Vec<Place>,
    ) -> Self {
        let places = places.into_iter();
        Self {
            services: services
                .into_iter()
                .map(|address| (address, None))
                .collect(),
            places: places.map(|place| (place.address, place)).collect(),
            dead: dead.into(),
            ..Self::default()
        }
    }

    /// The same, whole; `None`: none was followed yet.
    pub fn routing(&self) -> Option<&Arc<Routing>> {
        self.routing.as_ref()
    }

    /// Whose each service address is.
    pub fn names(&self) -> &BTreeMap<SocketAddr, ServiceName> {
        &self.names
    }

    /// Where those in the routes listen.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let all = self.places.keys().chain(self.leaving.keys());
        all.copied()
    }

    /// The routing state that is in force.
    pub fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// Those that left the routes and may have connections.
    pub fn leaving(&self) -> impl Iterator<Item = &Place> {
        self.leaving.values()
    }

    /// All that connections may lead to, for whoever comes after us.
    pub fn places(&self) -> Vec<Place> {
        let all = self.places.values().chain(self.leaving.values());
        all.cloned().collect()
    }

    /// Takes note that nothing is under way any more to one that was leaving.
    pub fn has_left(&mut self, address: SocketAddr) {
        self.leaving.remove(&address);
    }

    /// Whether anybody is led to anything.
    pub fn serves(&self) -> bool {
        let left =
            |spread: &Option<Spread>| spread.as_ref().is_none_or(|one| !one.shares.is_empty());
        self.services.values().any(left)
    }

    /// What a new routing state changes, and the step to take once that is in force. Only services whose
    /// address `is_forwarded` count, which must always be the same ones.
    pub fn follow(
        &self,
        routing: &Arc<Routing>,
        is_forwarded: impl Fn(SocketAddr) -> bool,
    ) -> (Turn, Step) {
        if let Some((turn, part)) = difference::between(self, routing, &is_forwarded) {
            return (turn, Step(Next::Part(Box::new(part))));
        }
        let (turn, next) = self.anew(routing, is_forwarded);
        (turn, Step(Next::Anew(Box::new(next))))
    }

    /// Takes a step, since its turn is in force.
    pub fn advance(&mut self, step: Step) {
        match step.0 {
            Next::Anew(next) => *self = *next,
            Next::Part(part) => part.apply(self),
        }
    }

    /// The same as [`Self::follow`], by looking into all services.
    pub(super) fn anew(
        &self,
        routing: &Arc<Routing>,
        is_forwarded: impl Fn(SocketAddr) -> bool,
    ) -> (Turn, Self) {
        let mut next = Self {
            generation: Some(routing.generation),
            routing: Some(Arc::clone(routing)),
            dead: self.dead.clone(),
            ..Self::default()
        };
        let mut turn = Turn::default();
        let mut dead_now: BTreeMap<&InstanceId, Attempt> = BTreeMap::new();
        for routes in &routing.services {
            let Some(address) = routes.address.filter(|address| is_forwarded(*address)) else {
                continue;
            };
            dead_now.extend(
                routes
                    .dead
                    .iter()
                    .map(|dead| (&dead.instance, dead.attempt)),
            );
            next.take(address, routes);
            let spread = Spread::of(routes);
            if !spread.shares.is_empty() && !self.leads_on(address) {
                turn.opened.push(address);
            }
            if self.services.get(&address) != Some(&Some(spread.clone())) {
                turn.batch.services.push((address, spread.clone()));
            }
            if next.services.insert(address, Some(spread)).is_some() {
                next.sharing = Sharing::Some;
            }
            next.names.insert(address, routes.service.clone());
        }
        let gone = self.services.keys();
        let gone = gone.filter(|address| !next.services.contains_key(*address));
        turn.batch.gone = gone.copied().collect();
        self.part(&dead_now, &mut next, &mut turn);
        next.bury(&mut turn);
        (turn, next)
    }

    /// Whether a service address is known to lead to somebody.
    pub(super) fn leads_on(&self, address: SocketAddr) -> bool {
        let spread = self.services.get(&address).and_then(Option::as_ref);
        spread.is_some_and(|spread| !spread.shares.is_empty())
    }

    fn take(&mut self, through: SocketAddr, routes: &ServiceRoutes) {
        for endpoint in &routes.endpoints {
            let place = Place::of(endpoint, through);
            let before = self.places.insert(endpoint.address, place);
            if before.is_some_and(|before| before.through != through) {
                self.sharing = Sharing::Some;
            }
        }
    }

    /// What becomes of those that were in the routes, or were leaving.
    fn part(&self, dead_now: &BTreeMap<&InstanceId, Attempt>, next: &mut Self, turn: &mut Turn) {
        let before = self.places.values().map(|place| (place, true));
        let before = before.chain(self.leaving.values().map(|place| (place, false)));
        for (place, was_routed) in before {
            let is_dead = dead_now
                .get(&place.instance)
                .is_some_and(|last| place.attempt <= *last);
            if let Some(now) = next.places.get(&place.address) {
                // Another attempt at the same address: what was before ended with it. Another
                // instance must not get the datagrams that were the former one's.
                if was_routed && now.instance != place.instance {
                    turn.released.push(place.clone());
                }
                continue;
            }
            if is_dead {
                turn.severed.push(place.clone());
                continue;
            }
            if was_routed {
                turn.released.push(place.clone());
            }
            next.leaving.insert(place.address, place.clone());
        }
    }

    /// Keeps the list of the dead.
    fn bury(&mut self, turn: &mut Turn) {
        let known: BTreeSet<SocketAddr> = self.dead.iter().copied().collect();
        let fresh = turn.severed.iter().map(|place| place.address);
        let fresh: Vec<SocketAddr> = fresh.filter(|address| !known.contains(address)).collect();
        self.dead.extend(&fresh);
        let surplus = self.dead.len().saturating_sub(DEAD_MAX);
        turn.batch.revived.extend(self.dead.drain(..surplus));
        let places = &self.places;
        self.dead.retain(|address| {
            let lives = places.contains_key(address);
            if lives {
                turn.batch.revived.push(*address);
            }
            !lives
        });
        turn.batch.dead = fresh;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use mainstay_ids::{Epoch, Revision, ServiceName, Version};
    use mainstay_model::routing::{Dead, EndpointHealth};

    const SERVICE: &str = "10.96.0.1:8080";

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn instance(number: u64) -> InstanceId {
        let service = ServiceName::parse("orders").expect("a name");
        InstanceId { service, number }
    }

    fn endpoint(number: u64, attempt: u32, at: &str) -> Endpoint {
        Endpoint {
            instance: instance(number),
            attempt: Attempt(attempt),
            version: Version(1),
            address: address(at),
            health: EndpointHealth::Passing,
            handle: None,
            intake: mainstay_model::Intake::default(),
        }
    }

    fn routing(revision: u64, endpoints: Vec<Endpoint>, dead: &[(u64, u32)]) -> Routing {
        let dead = dead.iter().map(|(number, attempt)| Dead {
            instance: instance(*number),
            attempt: Attempt(*attempt),
        });
        let service = ServiceRoutes {
            service: ServiceName::parse("orders").expect("a name"),
            http: None,
            address: Some(address(SERVICE)),
            health_path: None,
            endpoints,
            unavailable: None,
            dead: dead.collect(),
            traffic: mainstay_model::Traffic::default(),
            rewrites: Vec::new(),
            split: None,
        };
        Routing {
            generation: Generation {
                epoch: Epoch(1),
                revision: Revision(revision),
            },
            services: vec![service],
        }
    }

    fn all(_: SocketAddr) -> bool {
        true
    }

    /// Follows, and what is to be done is done.
    fn followed(course: &Course, routing: Routing) -> (Turn, Course) {
        let mut next = course.clone();
        let (turn, step) = course.follow(&Arc::new(routing), all);
        next.advance(step);
        (turn, next)
    }

    fn addresses(places: &[Place]) -> Vec<SocketAddr> {
        places.iter().map(|place| place.address).collect()
    }

    const A: &str = "10.0.0.1:80";
    const B: &str = "10.0.0.2:80";

    #[test]
    fn who_leaves_drains_and_who_dies_is_severed() {
        let start = routing(1, vec![endpoint(1, 1, A), endpoint(2, 1, B)], &[]);
        let (turn, course) = followed(&Course::default(), start);
        assert_eq!(turn.batch.services.len(), 1);
        assert_eq!(turn.opened, [address(SERVICE)]);
        let (turn, course) = followed(&course, routing(2, vec![endpoint(2, 1, B)], &[]));
        assert_eq!(addresses(&turn.released), [address(A)]);
        assert_eq!(turn.opened, []);
        assert!(turn.severed.is_empty() && turn.batch.dead.is_empty());
        assert_eq!(course.leaving().count(), 1);
        // It dies while it drains, and the other one, too.
        let (turn, course) = followed(&course, routing(3, vec![], &[(1, 1), (2, 1)]));
        let mut severed = addresses(&turn.severed);
        severed.sort_unstable();
        assert_eq!(severed, [address(A), address(B)]);
        assert_eq!(turn.batch.dead.len(), 2);
        assert_eq!(course.leaving().count(), 0);
        assert!(!course.serves());
        // At the same address again.
        let (turn, _) = followed(&course, routing(4, vec![endpoint(1, 2, A)], &[(1, 1)]));
        assert_eq!(turn.batch.revived, [address(A)]);
        assert_eq!(turn.opened, [address(SERVICE)]);
        assert!(turn.batch.dead.is_empty());
    }

    #[test]
    fn nothing_new_changes_nothing() {
        let state = routing(1, vec![endpoint(1, 1, A)], &[]);
        let (_, course) = followed(&Course::default(), state.clone());
        let mut again = state;
        again.generation.revision = Revision(2);
        let generation = again.generation;
        let (turn, course) = followed(&course, again);
        assert!(turn.batch.is_empty(), "{turn:?}");
        assert_eq!(course.generation(), Some(generation));
    }

    #[test]
    fn what_an_earlier_process_left_is_set_anew_or_taken_away() {
        let (state, gone) = (address(SERVICE), address("10.96.0.9:1"));
        let place = Place {
            instance: instance(2),
            attempt: Attempt(1),
            address: address(B),
            through: state,
        };
        let left = Course::left_behind(vec![state, gone], vec![address(A)], vec![place]);
        let (turn, course) = followed(&left, routing(5, vec![endpoint(1, 3, A)], &[]));
        assert_eq!(turn.batch.services.len(), 1, "its shares are not known");
        assert_eq!(turn.batch.gone, [gone]);
        assert_eq!(turn.batch.revived, [address(A)]);
        assert_eq!(addresses(&turn.released), [address(B)]);
        assert_eq!(course.places().len(), 2);
    }

    #[test]
    fn services_elsewhere_are_left_alone() {
        let state = routing(1, vec![endpoint(1, 1, A)], &[]);
        let (turn, step) = Course::default().follow(&Arc::new(state), |_| false);
        assert!(turn.batch.is_empty());
        assert_eq!(step.places(), PlacesChange::Anew(vec![]));
    }

    #[test]
    fn the_longest_dead_is_forgotten_first() {
        let dead: Vec<SocketAddr> = (0..DEAD_MAX)
            .map(|index| {
                let [.., a, b] = index.to_be_bytes();
                SocketAddr::from(([10, 9, a, b], 1))
            })
            .collect();
        let first = dead[0];
        let left = Course::left_behind(vec![], dead, vec![]);
        let (_, course) = followed(&left, routing(1, vec![endpoint(1, 1, A)], &[]));
        let (turn, _) = followed(&course, routing(2, vec![], &[(1, 1)]));
        assert_eq!(turn.batch.dead, [address(A)]);
        assert_eq!(turn.batch.revived, [first]);
    }
}
