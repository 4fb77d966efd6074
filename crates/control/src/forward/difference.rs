//! What changes from one routing state to the next, by the services in which they differ alone: thousands that are as
//! they were cost a comparison each.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::net::SocketAddr;

use mainstay_ids::{Attempt, InstanceId, ServiceName};
use mainstay_model::Routing;
use mainstay_model::routing::ServiceRoutes;

use super::course::{Course, DEAD_MAX, Place, PlacesChange, Sharing, Turn};
use super::spread::Spread;

/// What becomes of a course. `None` is what is no more.
#[derive(Debug, Clone)]
pub(super) struct Part {
    routing: Arc<Routing>,
    services: BTreeMap<SocketAddr, Option<(ServiceName, Spread)>>,
    places: BTreeMap<SocketAddr, Option<Place>>,
    leaving: BTreeMap<SocketAddr, Option<Place>>,
    /// If they are others than before.
    dead: Option<VecDeque<SocketAddr>>,
}

/// A service before and now.
type Touched<'a> = (Option<&'a ServiceRoutes>, Option<&'a ServiceRoutes>);

/// `None`: it cannot be said without looking into all services.
pub(super) fn between(
    course: &Course,
    routing: &Arc<Routing>,
    is_forwarded: &impl Fn(SocketAddr) -> bool,
) -> Option<(Turn, Part)> {
    let last = course.routing.as_ref()?;
    match course.sharing {
        Sharing::None => {}
        Sharing::Some => return None,
    }
    let touched = touched(&last.services, &routing.services)?;
    let mut looking = Looking {
        course,
        turn: Turn::default(),
        part: Part {
            routing: Arc::clone(routing),
            services: BTreeMap::new(),
            places: BTreeMap::new(),
            leaving: BTreeMap::new(),
            dead: None,
        },
        dead_now: BTreeMap::new(),
        left: BTreeSet::new(),
    };
    let at = |routes: &ServiceRoutes| routes.address.filter(|address| is_forwarded(*address));
    for (before, _) in &touched {
        if let Some((before, through)) = before.and_then(|one| Some((one, at(one)?))) {
            looking.leave(before, through);
        }
    }
    for (_, now) in &touched {
        if let Some((now, through)) = now.and_then(|one| Some((one, at(one)?))) {
            looking.take(now, through)?;
        }
    }
    looking.end_services();
    looking.part_places();
    looking.bury();
    Some((looking.turn, looking.part))
}

/// The services in which two states differ, in the order of their names. `None`: they are not in that order.
fn touched<'a>(before: &'a [ServiceRoutes], now: &'a [ServiceRoutes]) -> Option<Vec<Touched<'a>>> {
    let is_ordered = |services: &[ServiceRoutes]| {
        let mut pairs = services.windows(2);
        pairs.all(|pair| pair[0].service < pair[1].service)
    };
    if !is_ordered(before) || !is_ordered(now) {
        return None;
    }
    let (mut before, mut now) = (before.iter().peekable(), now.iter().peekable());
    let mut touched = Vec::new();
    loop {
        let order = match (before.peek(), now.peek()) {
            (None, None) => return Some(touched),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(before), Some(now)) => before.service.cmp(&now.service),
        };
        match order {
            Ordering::Less => touched.push((before.next(), None)),
            Ordering::Greater => touched.push((None, now.next())),
            Ordering::Equal => {
                let pair = (before.next(), now.next());
                if pair.0 != pair.1 {
                    touched.push(pair);
                }
            }
        }
    }
}

struct Looking<'a> {
    course: &'a Course,
    turn: Turn,
    part: Part,
    dead_now: BTreeMap<&'a InstanceId, Attempt>,
    /// Service addresses that touched services had.
    left: BTreeSet<SocketAddr>,
}

impl<'a> Looking<'a> {
    /// What a touched service had is gone, unless it comes again.
    fn leave(&mut self, routes: &ServiceRoutes, through: SocketAddr) {
        self.left.insert(through);
        self.part.services.insert(through, None);
        for endpoint in &routes.endpoints {
            self.part.places.insert(endpoint.address, None);
        }
    }

    /// What it has now. `None`: another service has something there, too.
    fn take(&mut self, routes: &'a ServiceRoutes, through: SocketAddr) -> Option<()> {
        let dead = routes.dead.iter();
        self.dead_now
            .extend(dead.map(|dead| (&dead.instance, dead.attempt)));
        for endpoint in &routes.endpoints {
            let at = endpoint.address;
            let mut there = self.course.places.get(&at).into_iter();
            if there.any(|place| !self.left.contains(&place.through)) {
                return None;
            }
            let place = Place::of(endpoint, through);
            let before = self.part.places.insert(at, Some(place));
            if before.flatten().is_some_and(|one| one.through != through) {
                return None;
            }
        }
        let spread = Spread::of(routes);
        let before = self.course.services.get(&through);
        if before.is_some() && !self.left.contains(&through) {
            return None;
        }
        if !spread.shares.is_empty() && !self.course.leads_on(through) {
            self.turn.opened.push(through);
        }
        if before.and_then(Option::as_ref) != Some(&spread) {
            self.turn.batch.services.push((through, spread.clone()));
        }
        let now = Some((routes.service.clone(), spread));
        let twice = self.part.services.insert(through, now).flatten();
        twice.is_none().then_some(())
    }

    fn end_services(&mut self) {
        let ended = self.part.services.iter().filter(|(_, now)| now.is_none());
        self.turn.batch.gone = ended.map(|(address, _)| *address).collect();
    }

    /// What becomes of those that were in the routes, or were leaving.
    fn part_places(&mut self) {
        let course = self.course;
        let at: Vec<SocketAddr> = self.part.places.keys().copied().collect();
        for place in at.iter().filter_map(|at| course.places.get(at)) {
            if let Some(Some(now)) = self.part.places.get(&place.address) {
                // Another attempt at the same address: what was before ended with it. Another
                // instance must not get the datagrams that were the former one's.
                if now.instance != place.instance {
                    self.turn.released.push(place.clone());
                }
                continue;
            }
            if self.is_dead(place) {
                self.turn.severed.push(place.clone());
                continue;
            }
            self.turn.released.push(place.clone());
            let leaves = Some(place.clone());
            self.part.leaving.insert(place.address, leaves);
        }
        for place in course.leaving.values() {
            let is_there = matches!(self.part.places.get(&place.address), Some(Some(_)));
            if is_there {
                self.part.leaving.insert(place.address, None);
            } else if self.is_dead(place) {
                self.turn.severed.push(place.clone());
                self.part.leaving.insert(place.address, None);
            }
        }
    }

    fn is_dead(&self, place: &Place) -> bool {
        let last = self.dead_now.get(&place.instance);
        last.is_some_and(|last| place.attempt <= *last)
    }

    /// Keeps the list of the dead, if it is another one.
    fn bury(&mut self) {
        let before = &self.course.dead;
        let severed = self.turn.severed.iter().map(|place| place.address);
        let fresh: Vec<SocketAddr> = severed.filter(|one| !before.contains(one)).collect();
        let places = &self.part.places;
        let lives = |address: &SocketAddr| matches!(places.get(address), Some(Some(_)));
        if fresh.is_empty() && !before.iter().any(lives) {
            return;
        }
        let mut dead = before.clone();
        dead.extend(&fresh);
        let surplus = dead.len().saturating_sub(DEAD_MAX);
        let revived = &mut self.turn.batch.revived;
        revived.extend(dead.drain(..surplus));
        dead.retain(|address| {
            let lives = lives(address);
            if lives {
                revived.push(*address);
            }
            !lives
        });
        self.turn.batch.dead = fresh;
        self.part.dead = Some(dead);
    }
}

impl Part {
    /// Takes the step.
    pub(super) fn apply(self, course: &mut Course) {
        course.generation = Some(self.routing.generation);
        course.routing = Some(self.routing);
        for (address, now) in self.services {
            if let Some((name, spread)) = now {
                course.services.insert(address, Some(spread));
                course.names.insert(address, name);
            } else {
                course.services.remove(&address);
                course.names.remove(&address);
            }
        }
        put(&mut course.places, self.places);
        put(&mut course.leaving, self.leaving);
        if let Some(dead) = self.dead {
            course.dead = dead;
        }
    }

    pub(super) fn places_change(&self) -> PlacesChange {
        let changed = || self.places.iter().chain(&self.leaving);
        let put: BTreeMap<&SocketAddr, &Place> = changed()
            .filter_map(|(address, now)| Some((address, now.as_ref()?)))
            .collect();
        let gone: BTreeSet<SocketAddr> = changed()
            .map(|(address, _)| *address)
            .filter(|address| !put.contains_key(address))
            .collect();
        PlacesChange::Part {
            gone: gone.into_iter().collect(),
            put: put.into_values().cloned().collect(),
        }
    }
}

fn put(into: &mut BTreeMap<SocketAddr, Place>, changed: BTreeMap<SocketAddr, Option<Place>>) {
    for (address, now) in changed {
        match now {
            Some(place) => drop(into.insert(address, place)),
            None => drop(into.remove(&address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_ids::{Epoch, Generation, Revision, Version};
    use mainstay_model::routing::{Dead, Endpoint, EndpointHealth};

    /// xorshift64: the same seed gives the same run.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, end: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % end
        }
    }

    fn at(base: [u8; 3], last: u64) -> SocketAddr {
        let [.., last] = last.to_be_bytes();
        SocketAddr::from(([base[0], base[1], base[2], last], 80))
    }

    fn routes(name: u64, chance: &mut Chance) -> ServiceRoutes {
        let service = ServiceName::parse(&alloc::format!("s{name}")).unwrap();
        let instance = |number| InstanceId {
            service: service.clone(),
            number,
        };
        let endpoints = (0..chance.below(4)).map(|number| Endpoint {
            instance: instance(number),
            attempt: Attempt(u32::try_from(1 + chance.below(3)).unwrap()),
            version: Version(1),
            // Sometimes at an address that another service has, too, or had.
            address: at([10, 0, 0], (name * 3 + number + chance.below(2)) % 16),
            health: EndpointHealth::Passing,
            handle: None,
            intake: mainstay_model::Intake::default(),
        });
        let endpoints = endpoints.collect();
        let dead = (0..chance.below(3)).map(|number| Dead {
            instance: instance(number),
            attempt: Attempt(u32::try_from(1 + chance.below(3)).unwrap()),
        });
        let dead = dead.collect();
        // One of many is not forwarded, or has no address.
        let address = match chance.below(8) {
            0 => None,
            1 => Some(at([10, 97, 0], name)),
            2 => Some(at([10, 96, 0], (name + 1) % 6)),
            _ => Some(at([10, 96, 0], name)),
        };
        ServiceRoutes {
            service,
            http: None,
            address,
            health_path: None,
            endpoints,
            unavailable: None,
            dead,
            traffic: mainstay_model::Traffic::default(),
            rewrites: Vec::new(),
            split: None,
        }
    }

    fn is_forwarded(address: SocketAddr) -> bool {
        matches!(address, SocketAddr::V4(v4) if v4.ip().octets()[1] == 96)
    }

    #[test]
    fn what_differs_is_what_looking_into_all_services_finds() {
        let (mut by_difference, mut anew) = (0, 0);
        for seed in 1..=300 {
            let mut chance = Chance(seed);
            let mut services: BTreeMap<u64, ServiceRoutes> = (0..5)
                .map(|name| (name, routes(name, &mut chance)))
                .collect();
            let mut course = Course::default();
            for revision in 1..40 {
                let name = chance.below(5);
                match chance.below(5) {
                    0 => drop(services.remove(&name)),
                    _ => drop(services.insert(name, routes(name, &mut chance))),
                }
                let routing = Arc::new(Routing {
                    generation: Generation {
                        epoch: Epoch(1),
                        revision: Revision(revision),
                    },
                    services: services.values().cloned().collect(),
                });
                let (turn, next) = course.anew(&routing, is_forwarded);
                match between(&course, &routing, &is_forwarded) {
                    Some((found, part)) => {
                        assert_eq!(found, turn, "seed {seed}, revision {revision}");
                        let change = part.places_change();
                        check_places(&course, &next, change);
                        part.apply(&mut course);
                        assert_eq!(course, next, "seed {seed}, revision {revision}");
                        by_difference += 1;
                    }
                    None => {
                        course = next;
                        anew += 1;
                    }
                }
                // Now and then somebody that left is through.
                let left = course.leaving().next().map(|place| place.address);
                if let Some(left) = left.filter(|_| chance.below(3) == 0) {
                    course.has_left(left);
                }
            }
        }
        assert!(by_difference > 3000 && anew > 300, "{by_difference} {anew}");
    }

    /// The change leads from the places of one to those of the other.
    fn check_places(before: &Course, now: &Course, change: PlacesChange) {
        let of = |course: &Course| -> BTreeMap<SocketAddr, Place> {
            let places = course.places().into_iter();
            places.map(|place| (place.address, place)).collect()
        };
        let PlacesChange::Part { gone, put } = change else {
            panic!("{change:?}");
        };
        let mut places = of(before);
        for address in &gone {
            places.remove(address);
        }
        places.extend(put.into_iter().map(|place| (place.address, place)));
        assert_eq!(places, of(now));
    }

    #[test]
    fn services_that_are_as_they_were_are_not_looked_into() {
        let mut chance = Chance(7);
        let routing = |revision, services: &BTreeMap<u64, ServiceRoutes>| {
            Arc::new(Routing {
                generation: Generation {
                    epoch: Epoch(1),
                    revision: Revision(revision),
                },
                services: services.values().cloned().collect(),
            })
        };
        let mut services = BTreeMap::new();
        for name in 0..5 {
            let mut one = routes(name, &mut chance);
            one.address = Some(at([10, 96, 0], name));
            one.endpoints.truncate(1);
            for endpoint in &mut one.endpoints {
                endpoint.address = at([10, 0, 0], name);
            }
            services.insert(name, one);
        }
        let (_, mut course) = Course::default().anew(&routing(1, &services), is_forwarded);
        let one = services.get_mut(&3).unwrap();
        one.endpoints.clear();
        let (turn, part) = between(&course, &routing(2, &services), &is_forwarded).unwrap();
        assert!(turn.batch.services.len() <= 1 && part.services.len() == 1);
        part.apply(&mut course);
        assert_eq!(course.generation().unwrap().revision, Revision(2));
    }
}
