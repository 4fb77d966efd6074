//! The endpoints of one service as one worker sees them, and the choice among them.

use alloc::vec::Vec;
use core::time::Duration;

use mainstay_ids::Instant;
use mainstay_model::routing::EndpointHealth;

use super::ejection::{Cause, Ejection, Outcome, Room, Try, Verdict};
use super::latency::{DEFAULT_RTT, Latency};
use super::slow_start;

mod wish;

/// Names one endpoint of one [`Set`] for as long as it is listed; never used again after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag(u64);

/// An endpoint as the routing state lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<E> {
    /// What the caller knows it by. Equal to one of the last update: the same endpoint, which keeps
    /// what was learnt about it. Compare instance *and* attempt.
    pub endpoint: E,
    /// What the active probes say.
    pub health: EndpointHealth,
}

/// A choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picked {
    /// The endpoint, for [`Set::finished`] and for the list of those already tried.
    pub tag: Tag,
    /// Where it stands until the next [`Set::update`].
    index: usize,
}

/// One endpoint with what was learnt about it.
#[derive(Debug, Clone)]
struct Member<E> {
    tag: Tag,
    endpoint: E,
    health: EndpointHealth,
    latency: Latency,
    measured: Measured,
    ejection: Ejection,
    /// When it joined others that were there already.
    warming_since: Option<Instant>,
}

/// Whether a latency was ever measured or is still assumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measured {
    Yes,
    No,
}

/// How good a member is at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tier {
    Eligible,
    /// Ejected by its probes or its answers: chosen only in panic.
    Sick,
    /// Ejected by failed connects: chosen only when there is nothing else at all.
    Unreachable,
}

impl<E> Member<E> {
    fn tier(&self) -> Tier {
        match (self.ejection.cause(), self.health) {
            (Some(Cause::Unreachable), _) => Tier::Unreachable,
            (Some(Cause::Sick), _) | (None, EndpointHealth::Failing) => Tier::Sick,
            (None, EndpointHealth::Passing) => Tier::Eligible,
        }
    }
}

/// The endpoints of one service.
///
/// Choice: power of two choices on peak EWMA. Two different members are drawn from the pool, and
/// the less loaded takes the request. The pool is the eligible members; in *panic*, when fewer than
/// half of the listed ones are eligible, all that can be reached (the few that are left would only
/// be overrun); when none can be reached, all.
#[derive(Debug, Clone)]
pub struct Set<E> {
    members: Vec<Member<E>>,
    /// Indexes of those to choose from, kept so that a choice needs no search.
    pool: Vec<usize>,
    /// When the first ejection ends and the pool must be looked at again.
    pool_until: Option<Instant>,
    /// How many are ejected for bad answers.
    sick: usize,
    next_tag: u64,
}

impl<E> Default for Set<E> {
    fn default() -> Self {
        Self {
            members: Vec::new(),
            pool: Vec::new(),
            pool_until: None,
            sick: 0,
            next_tag: 0,
        }
    }
}

impl<E: PartialEq> Set<E> {
    /// Takes over a new list. What was learnt about those who stay is kept, and so is their value
    /// of `E`; who is not listed is gone at once.
    pub fn update(&mut self, now: Instant, listed: Vec<Listed<E>>) {
        let mut old = core::mem::take(&mut self.members);
        let others_were_there = !old.is_empty();
        let assumed = mean_latency(&old, now);
        for Listed { endpoint, health } in listed {
            let known = old.iter().position(|member| member.endpoint == endpoint);
            let member = if let Some(at) = known {
                let mut member = old.swap_remove(at);
                let recovered =
                    member.health == EndpointHealth::Failing && health == EndpointHealth::Passing;
                if recovered {
                    member.warming_since = Some(now);
                }
                member.health = health;
                member
            } else {
                self.next_tag += 1;
                Member {
                    tag: Tag(self.next_tag),
                    endpoint,
                    health,
                    latency: Latency::new(now, assumed),
                    measured: Measured::No,
                    ejection: Ejection::default(),
                    warming_since: others_were_there.then_some(now),
                }
            };
            self.members.push(member);
        }
        self.rebuild_pool();
    }
}

impl<E> Set<E> {
    /// How many endpoints are listed.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether none is listed.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Chooses an endpoint for one try. `pending` gives the requests in flight to an endpoint, over
    /// all workers; `random` is evenly distributed; `tried` are those that have failed this request
    /// and are chosen again only when there is no other. `None`: no endpoint is listed.
    pub fn pick(
        &mut self,
        now: Instant,
        random: u64,
        tried: &[Tag],
        pending: impl Fn(&E) -> u32,
    ) -> Option<Picked> {
        self.refresh(now);
        let size = self.pool.len();
        if size == 0 {
            return None;
        }
        let first_draw = scale(random, size);
        let Some(first) = self.untried_from(first_draw, None, tried) else {
            // All of the pool have failed this request. Another outside of it may do better.
            return Some(self.picked(self.untried_outside(tried).unwrap_or(self.pool[first_draw])));
        };
        let second_draw = (first + 1 + scale(mix(random, 1), size)) % size;
        let Some(second) = self.untried_from(second_draw, Some(first), tried) else {
            return Some(self.picked(self.pool[first]));
        };
        let (one, other) = (self.pool[first], self.pool[second]);
        Some(self.picked(self.prefer(now, random, one, other, &pending)))
    }

    /// Lets ejections end whose time is over.
    fn refresh(&mut self, now: Instant) {
        if self.pool_until.is_some_and(|until| until <= now) {
            for member in &mut self.members {
                member.ejection.tick(now);
            }
            self.rebuild_pool();
        }
    }

    /// Which of two members takes the request.
    fn prefer(
        &self,
        now: Instant,
        random: u64,
        one: usize,
        other: usize,
        pending: &impl Fn(&E) -> u32,
    ) -> usize {
        let load = |index: usize| {
            let member = &self.members[index];
            member.latency.load(now, pending(&member.endpoint))
        };
        let (better, worse) = if load(one) <= load(other) {
            (one, other)
        } else {
            (other, one)
        };
        let warm_enough = |index: usize, random: u64| {
            let warming = self.members[index].warming_since;
            warming.is_none_or(|since| slow_start::accepts(since, now, fraction(random)))
        };
        // A warming endpoint passes the request on only to one that is warm itself.
        let takes = warm_enough(better, mix(random, 2)) || !warm_enough(worse, mix(random, 3));
        if takes { better } else { worse }
    }

    /// The endpoint of a choice, while it is listed.
    pub fn get(&self, picked: Picked) -> Option<&E> {
        self.index_of(picked)
            .map(|index| &self.members[index].endpoint)
    }

    /// Takes in what became of a try: `took` is the time to the first byte of the answer's body, or
    /// to the failure. The endpoint may have left the list meanwhile.
    pub fn finished(
        &mut self,
        now: Instant,
        picked: Picked,
        took: Duration,
        tried: Try,
    ) -> Verdict {
        let Some(index) = self.index_of(picked) else {
            return Verdict::Unchanged;
        };
        let room = Room::of(self.members.len(), self.sick);
        let member = &mut self.members[index];
        match tried.outcome {
            Outcome::Answered => {
                member.latency.observe(now, took);
                member.measured = Measured::Yes;
            }
            Outcome::ServerError | Outcome::GatewayError | Outcome::ConnectFailed => {
                member.latency.observe_failure(now, took, None);
            }
        }
        let verdict = member.ejection.handle(now, tried, room);
        match verdict {
            Verdict::Unchanged => {}
            Verdict::Ejected { .. } | Verdict::Returned => self.rebuild_pool(),
        }
        verdict
    }

    fn picked(&self, index: usize) -> Picked {
        Picked {
            tag: self.members[index].tag,
            index,
        }
    }

    fn index_of(&self, picked: Picked) -> Option<usize> {
        let is_it = |member: &Member<E>| member.tag == picked.tag;
        if self.members.get(picked.index).is_some_and(is_it) {
            return Some(picked.index);
        }
        self.members.iter().position(is_it)
    }

    /// The first place in the pool from `start` on that is not `except` and was not tried; looks at
    /// no more places than there can be such.
    fn untried_from(&self, start: usize, except: Option<usize>, tried: &[Tag]) -> Option<usize> {
        let size = self.pool.len();
        (0..size.min(tried.len() + 2))
            .map(|step| (start + step) % size)
            .filter(|place| Some(*place) != except)
            .find(|place| !tried.contains(&self.members[self.pool[*place]].tag))
    }

    /// Only a request that failed at the whole pool comes here, so the search may cost something.
    fn untried_outside(&self, tried: &[Tag]) -> Option<usize> {
        self.members
            .iter()
            .position(|member| !tried.contains(&member.tag))
    }

    fn rebuild_pool(&mut self) {
        let tiers = || self.members.iter().map(Member::tier);
        let eligible = tiers().filter(|tier| *tier == Tier::Eligible).count();
        let reachable = tiers().any(|tier| tier != Tier::Unreachable);
        let panic = eligible * 2 < self.members.len();
        let belongs = |tier: Tier| match tier {
            Tier::Eligible => true,
            Tier::Sick => panic,
            Tier::Unreachable => !reachable,
        };
        let members = self.members.iter().enumerate();
        self.pool.clear();
        self.pool.extend(
            members
                .filter(|(_, member)| belongs(member.tier()))
                .map(|(index, _)| index),
        );
        let ends = self
            .members
            .iter()
            .filter_map(|member| member.ejection.until());
        self.pool_until = ends.min();
        let causes = self.members.iter().map(|member| member.ejection.cause());
        self.sick = causes.filter(|cause| *cause == Some(Cause::Sick)).count();
    }
}

/// What a newcomer is assumed to take: as long as the others on average, or the default.
fn mean_latency<E>(members: &[Member<E>], now: Instant) -> Duration {
    let known =
        |member: &&Member<E>| member.measured == Measured::Yes && member.tier() == Tier::Eligible;
    let (mut sum, mut count) = (0.0, 0.0);
    for member in members.iter().filter(known) {
        sum += member.latency.estimate(now);
        count += 1.0;
    }
    if count == 0.0 {
        DEFAULT_RTT
    } else {
        Duration::from_secs_f64(sum / count / 1e9)
    }
}

/// A random number in `0..size`.
fn scale(random: u64, size: usize) -> usize {
    let size = u64::try_from(size).unwrap_or(u64::MAX);
    let scaled = (u128::from(random) * u128::from(size)) >> 64;
    usize::try_from(scaled).unwrap_or(0)
}

/// A random number in `0.0..1.0`.
fn fraction(random: u64) -> f64 {
    let top = u32::try_from(random >> 32).unwrap_or(u32::MAX);
    f64::from(top) / (f64::from(u32::MAX) + 1.0)
}

/// Another random number from the same draw, by the finaliser of `SplitMix64` (Steele, Lea, Flood:
/// Fast splittable pseudorandom number generators, 2014).
fn mix(random: u64, salt: u64) -> u64 {
    let mut z = random.wrapping_add(salt.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;

    const PASSING: EndpointHealth = EndpointHealth::Passing;
    const FAILING: EndpointHealth = EndpointHealth::Failing;

    fn at(ms: u64) -> Instant {
        Instant::from_start(Duration::from_millis(ms))
    }

    fn listed(endpoints: &[(&'static str, EndpointHealth)]) -> Vec<Listed<&'static str>> {
        let listed = endpoints.iter();
        listed
            .map(|(endpoint, health)| Listed {
                endpoint: *endpoint,
                health: *health,
            })
            .collect()
    }

    fn set(endpoints: &[(&'static str, EndpointHealth)]) -> Set<&'static str> {
        let mut set = Set::default();
        set.update(at(0), listed(endpoints));
        set
    }

    fn finish(set: &mut Set<&'static str>, ms: u64, picked: Picked, outcome: Outcome) -> Verdict {
        let tried = Try {
            outcome,
            sent: at(ms),
            jitter: 0.0,
        };
        set.finished(at(ms), picked, Duration::from_millis(1), tried)
    }

    /// How often each is chosen, of 3000.
    fn shares(
        set: &mut Set<&'static str>,
        ms: u64,
        pending: impl Fn(&&'static str) -> u32,
    ) -> BTreeMap<&'static str, u32> {
        let mut shares = BTreeMap::new();
        for draw in 1..=3000 {
            let picked = set.pick(at(ms), mix(draw, draw), &[], &pending);
            let picked = picked.expect("the set is not empty");
            let endpoint = set.get(picked).expect("it is listed");
            *shares.entry(*endpoint).or_default() += 1;
        }
        shares
    }

    /// Picks until it is this endpoint.
    fn picked(set: &mut Set<&'static str>, ms: u64, wanted: &str) -> Picked {
        let mut draws = (1..1000).map(|draw| mix(draw, 9));
        let found = draws.find_map(|draw| {
            let picked = set.pick(at(ms), draw, &[], |_| 0)?;
            (set.get(picked) == Some(&wanted)).then_some(picked)
        });
        found.expect("it is in the pool")
    }

    #[test]
    fn equal_endpoints_share_evenly_and_the_busiest_is_spared() {
        let mut set = set(&[("a", PASSING), ("b", PASSING), ("c", PASSING)]);
        let even = shares(&mut set, 0, |_| 0);
        assert!(
            even.values().all(|count| (900..1100).contains(count)),
            "{even:?}"
        );
        let busy = shares(&mut set, 0, |endpoint| u32::from(*endpoint == "a") * 5);
        assert_eq!(
            busy.get("a"),
            None,
            "of any two the other is less loaded: {busy:?}"
        );
    }

    #[test]
    fn a_slow_endpoint_is_spared_until_its_bad_moment_is_long_ago() {
        let mut set = set(&[("a", PASSING), ("b", PASSING), ("c", PASSING)]);
        for endpoint in ["a", "b", "c"] {
            let picked = picked(&mut set, 0, endpoint);
            finish(&mut set, 0, picked, Outcome::Answered);
        }
        let slow = picked(&mut set, 0, "a");
        finish(&mut set, 0, slow, Outcome::ServerError);
        assert_eq!(shares(&mut set, 1000, |_| 0).get("a"), None);
        for endpoint in ["b", "c"] {
            let fresh = picked(&mut set, 100_000, endpoint);
            finish(&mut set, 100_000, fresh, Outcome::Answered);
        }
        assert!(
            shares(&mut set, 100_000, |_| 0)["a"] > 500,
            "it is tried again"
        );
    }

    #[test]
    fn a_request_goes_to_an_endpoint_that_has_not_failed_it_while_there_is_one() {
        let mut set = set(&[("a", PASSING), ("b", PASSING), ("c", PASSING)]);
        let mut tried = Vec::new();
        let mut seen = Vec::new();
        for draw in 0..3 {
            let picked = set.pick(at(0), mix(draw, 3), &tried, |_| 0).expect("three");
            tried.push(picked.tag);
            seen.push(*set.get(picked).expect("listed"));
        }
        seen.sort_unstable();
        assert_eq!(seen, ["a", "b", "c"]);
        assert!(
            set.pick(at(0), 7, &tried, |_| 0).is_some(),
            "better one twice than none"
        );
    }

    #[test]
    fn after_one_refused_connection_an_endpoint_is_left_alone_even_in_panic() {
        let mut set = set(&[("a", PASSING), ("b", FAILING), ("c", FAILING)]);
        assert_eq!(
            shares(&mut set, 0, |_| 0).len(),
            3,
            "one of three is too few: panic"
        );
        let refused = picked(&mut set, 0, "b");
        let verdict = finish(&mut set, 0, refused, Outcome::ConnectFailed);
        assert_eq!(verdict, Verdict::Ejected { until: at(1000) });
        assert_eq!(shares(&mut set, 999, |_| 0).get("b"), None);
        for endpoint in ["a", "c"] {
            let refused = picked(&mut set, 999, endpoint);
            finish(&mut set, 999, refused, Outcome::ConnectFailed);
        }
        assert!(
            shares(&mut set, 999, |_| 0).len() > 1,
            "when all are, any may be tried"
        );
    }

    #[test]
    fn a_failing_endpoint_gets_nothing_while_enough_pass() {
        let mut set = set(&[("a", PASSING), ("b", PASSING), ("c", FAILING)]);
        assert_eq!(shares(&mut set, 0, |_| 0).get("c"), None);
    }

    #[test]
    fn bad_answers_eject_one_of_two_and_not_both() {
        let mut set = set(&[("a", PASSING), ("b", PASSING)]);
        let (a, b) = (picked(&mut set, 0, "a"), picked(&mut set, 0, "b"));
        for _ in 0..5 {
            finish(&mut set, 0, a, Outcome::GatewayError);
        }
        for _ in 0..9 {
            finish(&mut set, 0, b, Outcome::GatewayError);
        }
        assert_eq!(shares(&mut set, 9_999, |_| 0).len(), 1);
        assert_eq!(
            set.pick(at(10_000), 1, &[], |_| 0).map(|_| set.pool.len()),
            Some(2)
        );
    }

    #[test]
    fn who_joins_others_gets_its_share_by_and_by_and_who_leaves_is_gone_at_once() {
        let mut set = set(&[("a", PASSING), ("b", PASSING)]);
        let old = picked(&mut set, 0, "b");
        set.update(at(0), listed(&[("a", PASSING), ("c", PASSING)]));
        assert_eq!(set.get(old), None);
        assert_eq!(
            finish(&mut set, 0, old, Outcome::ConnectFailed),
            Verdict::Unchanged
        );
        let early = shares(&mut set, 100, |_| 0)["c"];
        let late = shares(&mut set, 10_000, |_| 0)["c"];
        assert!((50..300).contains(&early), "{early}");
        assert!(late > 1000, "{late}");
    }

    #[test]
    fn an_empty_set_gives_nothing() {
        assert_eq!(set(&[]).pick(at(0), 1, &[], |_| 0), None);
    }
}
