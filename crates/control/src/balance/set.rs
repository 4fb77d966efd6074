//! The endpoints of one service as one worker sees them, and the choice among them.

use alloc::vec::Vec;
use core::num::NonZeroU32;
use core::time::Duration;

use mainstay_ids::Instant;
use mainstay_model::Intake;
use mainstay_model::listen::Rank;
use mainstay_model::routing::EndpointHealth;

use super::ejection::{Cause, Ejection, Outcome, Probing, Room, Try, Verdict};
use super::hedge::{Crowd, Panic};
use super::latency::{DEFAULT_RTT, Latency};
use super::limit::Limit;
use super::outlier::{self, Mark, Share};
use super::slow_start;
use super::sticky::{Traits, Wish};

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
    /// Whether it gets requests, and how many, as an operator wants it.
    pub intake: Intake,
    /// What it is beside the others.
    pub role: Role,
}

/// What an endpoint is beside the others of its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Role {
    /// Its share: one of weight 3 is taken for as busy with three requests as one of weight 1 with one.
    pub weight: NonZeroU32,
    /// A reserve is asked while none of the others is good.
    pub rank: Rank,
    /// How many requests it has at once at most, each until its answer is complete; `None`: nobody has
    /// said so.
    pub most: Option<NonZeroU32>,
}

impl Role {
    /// The same as all others.
    pub const EVEN: Self = Self {
        weight: NonZeroU32::MIN,
        rank: Rank::Main,
        most: None,
    };
}

/// What is under way to an endpoint, over all workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests whose answer is not complete, upgraded connections included.
    pub in_flight: u32,
    /// Those of them whose answer has not begun.
    pub waiting: u32,
}

/// Which requests an overload spares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// It waits in the line, and is refused when that is full.
    Normal,
    /// A check of whether the service lives: refused, it would say that it does not, and whoever asks
    /// would take away what is left. A few at a time go beyond the limit.
    Spared,
}

/// What a request asks of its endpoint.
#[derive(Clone, Copy)]
pub struct Need<'a, E> {
    /// Those that have failed it, or have it already.
    pub not: &'a [Tag],
    /// Whether it may show how an endpoint on probation is.
    pub probing: Probing,
    /// Whether it goes beyond the limit.
    pub priority: Priority,
    /// Of which version, and which one. Never a reason to fail: an endpoint that is ejected or not
    /// listed any more is not chosen for it.
    pub wish: Wish,
    /// What of an endpoint the wish is about.
    pub traits: &'a dyn Fn(&E) -> Traits,
}

/// A choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picked {
    /// The endpoint, for [`Set::learn`] and for the list of those already tried.
    pub tag: Tag,
    /// Where it stands until the next [`Set::update`].
    index: usize,
}

/// What there is to choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// This one.
    Picked(Picked),
    /// Those that could be chosen are as busy as they may be.
    Full,
    /// Each has failed this request already.
    NoOther,
    /// No endpoint is listed.
    Empty,
}

/// Whether endpoints are held to their limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Limiting {
    /// They are.
    #[default]
    On,
    /// Any number of requests goes to each.
    Off,
}

/// One endpoint with what was learnt about it.
#[derive(Debug, Clone)]
struct Member<E> {
    tag: Tag,
    endpoint: E,
    health: EndpointHealth,
    role: Role,
    intake: Intake,
    latency: Latency,
    measured: Measured,
    ejection: Ejection,
    limit: Limit,
    share: Share,
    /// When it joined others that were there already.
    warming_since: Option<Instant>,
}

/// Whether a latency was ever measured or is still assumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measured {
    Yes,
    No,
}

/// Of which rank the pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// The reserves only wait.
    Main,
    /// None of the others is good.
    Backup,
    /// Nobody is good.
    All,
}

impl Asked {
    fn takes(self, rank: Rank) -> bool {
        match (self, rank) {
            (Self::Main, Rank::Main) | (Self::Backup, Rank::Backup) | (Self::All, _) => true,
            (Self::Main, Rank::Backup) | (Self::Backup, Rank::Main) => false,
        }
    }
}

/// Whether the members of the pool weigh the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weights {
    Even,
    Uneven,
}

/// How good a member is at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tier {
    Eligible,
    /// Ejected by its probes or its answers: chosen only in panic.
    Sick,
    /// It does not answer at all: chosen only when there is nothing else at all.
    Mute,
}

impl<E> Member<E> {
    /// Its share: what it weighs beside the others, and as an operator wants it.
    fn weight(&self) -> u64 {
        u64::from(self.intake.weight.percent()) * u64::from(self.role.weight.get())
    }

    fn tier(&self) -> Tier {
        match (self.ejection.cause(), self.health) {
            (Some(Cause::Unreachable | Cause::Suspected), _) => Tier::Mute,
            (Some(Cause::Sick), _) | (None, EndpointHealth::Failing) => Tier::Sick,
            (None, EndpointHealth::Passing) => Tier::Eligible,
        }
    }
}

/// The endpoints of one service.
///
/// Choice: power of two choices on peak EWMA. Two different members are drawn from the pool, and
/// the less loaded takes the request. The pool is the eligible members; in *panic*, when fewer than
/// half of the listed ones are eligible, all that answer (the few that are left would only be
/// overrun); when none does, all. Who is on probation is outside of the pool like who is ejected, but
/// gets a request now and then to show how it is.
///
/// Whoever an operator has drained is in no pool and counts as not listed, but for the requests of
/// clients who stay with it.
#[derive(Debug, Clone)]
pub struct Set<E> {
    members: Vec<Member<E>>,
    /// Indexes of those to choose from, kept so that a choice needs no search.
    pool: Vec<usize>,
    /// Who is asked.
    asked: Asked,
    /// Indexes of those that are left to clients who stay with them.
    kept_for_held: Vec<usize>,
    /// How many get requests of any client.
    taking: usize,
    weights: Weights,
    /// When the first ejection ends and the pool must be looked at again.
    pool_until: Option<Instant>,
    /// How many are ejected for bad answers.
    sick: usize,
    on_probation: usize,
    panic: Panic,
    limiting: Limiting,
    most: Option<u32>,
    outliers_due: Instant,
    next_tag: u64,
}

impl<E> Default for Set<E> {
    fn default() -> Self {
        Self::new(Limiting::On, None)
    }
}

impl<E: PartialEq> Set<E> {
    /// Takes over a new list. What was learnt about those who stay is kept, and so is their value
    /// of `E`; who is not listed is gone at once.
    pub fn update(&mut self, now: Instant, listed: Vec<Listed<E>>) {
        let mut old = core::mem::take(&mut self.members);
        let others_were_there = !old.is_empty();
        let assumed = mean_latency(&old, now);
        for listed in listed {
            let Listed {
                endpoint,
                health,
                intake,
                role,
            } = listed;
            let known = old.iter().position(|member| member.endpoint == endpoint);
            let member = if let Some(at) = known {
                let mut member = old.swap_remove(at);
                let recovered =
                    member.health == EndpointHealth::Failing && health == EndpointHealth::Passing;
                if recovered {
                    member.warming_since = Some(now);
                    member.ejection.forgive(now);
                }
                if intake.takes_any() && !member.intake.takes_any() {
                    member.warming_since = Some(now);
                }
                member.health = health;
                member.role = role;
                member.intake = intake;
                member
            } else {
                self.next_tag += 1;
                Member {
                    tag: Tag(self.next_tag),
                    endpoint,
                    health,
                    role,
                    intake,
                    latency: Latency::new(now, assumed),
                    measured: Measured::No,
                    ejection: Ejection::default(),
                    limit: Limit::new(now),
                    share: Share::default(),
                    warming_since: others_were_there.then_some(now),
                }
            };
            self.members.push(member);
        }
        self.rebuild_pool();
    }
}

impl<E> Set<E> {
    /// A set without endpoints.
    pub fn new(limiting: Limiting, most: Option<u32>) -> Self {
        Self {
            members: Vec::new(),
            pool: Vec::new(),
            asked: Asked::All,
            kept_for_held: Vec::new(),
            taking: 0,
            weights: Weights::Even,
            pool_until: None,
            sick: 0,
            on_probation: 0,
            panic: Panic::No,
            limiting,
            most,
            outliers_due: Instant::START.after(outlier::INTERVAL),
            next_tag: 0,
        }
    }

    /// Whether endpoints are held to their limits from now on.
    pub(super) fn limit_by(&mut self, limiting: Limiting, most: Option<u32>) {
        self.limiting = limiting;
        self.most = most;
    }

    /// How many endpoints are listed.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether none is listed.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Chooses an endpoint for one try. `random` is evenly distributed.
    pub fn choose(
        &mut self,
        now: Instant,
        random: u64,
        need: &Need<'_, E>,
        load: impl Fn(&E) -> Load,
    ) -> Choice {
        self.refresh(now, random);
        if self.members.is_empty() {
            return Choice::Empty;
        }
        if let Some(index) = self.probe(now, need) {
            return Choice::Picked(self.picked(index));
        }
        let fits =
            |index: usize| !self.is_unwanted(index, need) && self.has_room(index, need, &load);
        if let Some(index) = self.draw_by(now, random, need, fits, &load) {
            return Choice::Picked(self.picked(index));
        }
        if self.taking == 0 {
            return Choice::Empty;
        }
        if self
            .pool
            .iter()
            .any(|index| !self.is_unwanted(*index, need))
        {
            return Choice::Full;
        }
        // All of the pool have failed this request. Another outside of it may do better, a good reserve
        // before one that is not asked for its failures.
        let takes = |index: &usize| self.members[*index].intake.takes_any();
        let all = || (0..self.members.len()).filter(takes);
        let good = |index: &usize| self.members[*index].tier() == Tier::Eligible;
        let outside = all().find(|index| good(index) && fits(*index));
        let outside = outside.or_else(|| all().find(|index| fits(*index)));
        outside.map_or(Choice::NoOther, |index| Choice::Picked(self.picked(index)))
    }

    /// Chooses a second endpoint for a request that is under way to others: a good one, or, if there
    /// is no good one, one of those that are used for want of better. None is probed by it.
    pub fn choose_beside(
        &mut self,
        now: Instant,
        random: u64,
        need: &Need<'_, E>,
        load: impl Fn(&E) -> Load,
    ) -> Option<Picked> {
        self.refresh(now, random);
        let fits =
            |index: usize| !self.is_unwanted(index, need) && self.has_room(index, need, &load);
        let good = |index: usize| self.members[index].tier() == Tier::Eligible && fits(index);
        let drawn = self.draw_by(now, random, need, good, &load);
        let drawn = drawn.or_else(|| self.draw_by(now, random, need, fits, &load));
        drawn.map(|index| self.picked(index))
    }

    /// The endpoint of a choice, while it is listed.
    pub fn get(&self, picked: Picked) -> Option<&E> {
        self.index_of(picked)
            .map(|index| &self.members[index].endpoint)
    }

    /// Whether the endpoint of a choice has been found to be worse than others since.
    pub fn is_forsaken(&self, picked: Picked) -> bool {
        let index = self.index_of(picked);
        index.is_some_and(|index| self.members[index].tier() != Tier::Eligible)
    }

    /// How full the eligible endpoints are.
    pub fn crowd(&self, load: impl Fn(&E) -> Load) -> Crowd {
        let (mut waiting, mut limit) = (0_u32, 0_u32);
        for member in &self.members {
            if member.tier() == Tier::Eligible && member.intake.takes_any() {
                waiting = waiting.saturating_add(load(&member.endpoint).waiting);
                limit = limit.saturating_add(self.limit_of(member));
            }
        }
        Crowd {
            panic: self.panic,
            waiting,
            limit,
        }
    }

    /// How many requests may wait for the endpoint of a choice.
    pub fn limit(&self, picked: Picked) -> Option<u32> {
        self.index_of(picked)
            .map(|index| self.limit_of(&self.members[index]))
    }

    /// Takes in what became of a try: `took` is the time to the head of its answer, or to the
    /// failure; `waiting` is how many requests waited for the endpoint then. It may have left the list
    /// meanwhile.
    pub fn learn(
        &mut self,
        now: Instant,
        picked: Picked,
        took: Duration,
        tried: Try,
        waiting: u32,
    ) -> Verdict {
        let Some(index) = self.index_of(picked) else {
            return Verdict::Unchanged;
        };
        let room = Room::of(self.taking, self.sick);
        let member = &mut self.members[index];
        // What it was asked before it came back took as long as it was away.
        let is_of_before = member.warming_since.is_some_and(|since| tried.sent < since);
        match tried.outcome {
            Outcome::Answered if is_of_before => member.share.count(Mark::Good),
            Outcome::Answered => {
                member.share.count(Mark::Good);
                member.latency.observe(now, took);
                member.limit.observe(now, took, waiting);
                member.measured = Measured::Yes;
            }
            // It takes longer than that.
            Outcome::Overtaken => member.latency.observe_at_least(now, took),
            Outcome::ServerError | Outcome::GatewayError | Outcome::ConnectFailed => {
                member.share.count(Mark::Bad);
                member.latency.observe_failure(now, took);
            }
        }
        let verdict = member.ejection.handle(now, tried, room);
        match verdict {
            Verdict::Unchanged => return verdict,
            Verdict::Returned => {
                // What it did before says little of what it does now; it warms up anew.
                if tried.outcome == Outcome::Answered {
                    member.latency = Latency::new(now, took);
                }
                member.warming_since = Some(now);
            }
            Verdict::Ejected { .. } | Verdict::OnTrial => {}
        }
        self.rebuild_pool();
        verdict
    }

    /// Power of two choices among those of the pool that fit.
    fn draw(
        &self,
        now: Instant,
        random: u64,
        fits: impl Fn(usize) -> bool,
        load: impl Fn(&E) -> Load,
    ) -> Option<usize> {
        let size = self.pool.len();
        let from = |start: usize, except: Option<usize>| {
            let places = (0..size).map(|step| (start + step) % size);
            places
                .filter(|place| Some(*place) != except)
                .find(|place| fits(self.pool[*place]))
        };
        if size == 0 {
            return None;
        }
        if self.weights == Weights::Uneven {
            return self.draw_weighed(now, random, fits, load);
        }
        let first = from(scale(random, size), None)?;
        let second = from(
            (first + 1 + scale(mix(random, 1), size)) % size,
            Some(first),
        );
        let Some(second) = second else {
            return Some(self.pool[first]);
        };
        let (one, other) = (self.pool[first], self.pool[second]);
        Some(self.lighter(now, random, (one, other), load))
    }

    /// The same where weights differ: each of the two is drawn by its weight, and may be the same one.
    /// So the share of each is its weight's, as far as they are alike, and the one that does better still
    /// takes what both were drawn for.
    fn draw_weighed(
        &self,
        now: Instant,
        random: u64,
        fits: impl Fn(usize) -> bool,
        load: impl Fn(&E) -> Load,
    ) -> Option<usize> {
        let weight = |index: usize| self.members[index].weight();
        let pool = || self.pool.iter().copied().filter(|index| fits(*index));
        let sum: u64 = pool().map(weight).sum();
        let drawn = |random: u64| {
            let mut left = u64::try_from((u128::from(random) * u128::from(sum)) >> 64).unwrap_or(0);
            pool().find(|index| {
                let weight = weight(*index);
                let is_it = left < weight;
                left = left.saturating_sub(weight);
                is_it
            })
        };
        let (one, other) = (drawn(random)?, drawn(mix(random, 1))?);
        if one == other {
            return Some(one);
        }
        Some(self.lighter(now, random, (one, other), load))
    }

    /// Which of two takes a request: the less loaded, for what it weighs.
    fn lighter(
        &self,
        now: Instant,
        random: u64,
        (one, other): (usize, usize),
        load: impl Fn(&E) -> Load,
    ) -> usize {
        let cost = |index: usize| {
            let member = &self.members[index];
            let pending = f64::from(load(&member.endpoint).in_flight);
            match self.weights {
                Weights::Even => member.latency.load(now, pending),
                Weights::Uneven => {
                    // An ordinary one weighs a hundred.
                    let weight = u32::try_from(member.weight().max(1)).unwrap_or(u32::MAX);
                    member
                        .latency
                        .load(now, pending * 100.0 / f64::from(weight))
                }
            }
        };
        let (better, worse) = if cost(one) <= cost(other) {
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

    /// An endpoint on probation to which this request may go. It has no load to compare, and the
    /// sooner it is known to be well, the better.
    fn probe(&mut self, now: Instant, need: &Need<'_, E>) -> Option<usize> {
        if self.on_probation == 0 {
            return None;
        }
        (0..self.members.len()).find(|index| {
            let member = &self.members[*index];
            let may = !need.not.contains(&member.tag)
                && member.intake.takes_any()
                && member.health == EndpointHealth::Passing
                && member.ejection.is_on_probation()
                && (member.role.rank == Rank::Main || self.asked.takes(member.role.rank))
                && self.is_wished(*index, need);
            may && self.members[*index].ejection.take_probe(now, need.probing)
        })
    }

    fn is_unwanted(&self, index: usize, need: &Need<'_, E>) -> bool {
        need.not.contains(&self.members[index].tag)
    }

    fn has_room(&self, index: usize, need: &Need<'_, E>, load: impl Fn(&E) -> Load) -> bool {
        let member = &self.members[index];
        let load = load(&member.endpoint);
        let most = member.role.most.map_or(u32::MAX, NonZeroU32::get);
        match need.priority {
            Priority::Normal => load.waiting < self.limit_of(member) && load.in_flight < most,
            Priority::Spared => true,
        }
    }

    fn limit_of(&self, member: &Member<E>) -> u32 {
        let found = match self.limiting {
            Limiting::On => member.limit.current(),
            Limiting::Off => u32::MAX,
        };
        self.most.map_or(found, |most| found.min(most))
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

    /// Does what is due.
    fn refresh(&mut self, now: Instant, random: u64) {
        if now >= self.outliers_due {
            self.outliers_due = now.after(outlier::INTERVAL);
            self.eject_outliers(now, random);
        }
        if self.pool_until.is_some_and(|until| until <= now) {
            for member in &mut self.members {
                member.ejection.tick(now);
            }
            self.rebuild_pool();
        }
    }

    fn eject_outliers(&mut self, now: Instant, random: u64) {
        let threshold = outlier::threshold(self.members.iter().map(|member| member.share));
        let listed = self.taking;
        for (member, salt) in self.members.iter_mut().zip(0..) {
            let share = core::mem::take(&mut member.share);
            let below = threshold.is_some_and(|threshold| outlier::is_below(share, threshold));
            if below && Room::of(listed, self.sick) == Room::Left {
                let jitter = fraction(mix(random, salt));
                match member.ejection.eject_outlier(now, jitter) {
                    Verdict::Ejected { .. } => self.sick += 1,
                    Verdict::Unchanged | Verdict::OnTrial | Verdict::Returned => {}
                }
            }
        }
        self.rebuild_pool();
    }

    fn who_is_asked(&self) -> Asked {
        let is_good = |rank: Rank| {
            let mut members = self.members.iter();
            members.any(|member| {
                let takes = member.intake.takes_any() && member.role.rank == rank;
                takes && member.tier() == Tier::Eligible
            })
        };
        if is_good(Rank::Main) {
            Asked::Main
        } else if is_good(Rank::Backup) {
            Asked::Backup
        } else {
            Asked::All
        }
    }

    fn rebuild_pool(&mut self) {
        self.asked = self.who_is_asked();
        let asked = self.asked;
        self.taking = self
            .members
            .iter()
            .filter(|one| one.intake.takes_any())
            .count();
        let those = || {
            let members = self.members.iter();
            members.filter(move |one| one.intake.takes_any() && asked.takes(one.role.rank))
        };
        let eligible = those().filter(|one| one.tier() == Tier::Eligible).count();
        let any_answers = those().any(|one| one.tier() != Tier::Mute);
        self.panic = if eligible * 2 < those().count() {
            Panic::Yes
        } else {
            Panic::No
        };
        let belongs = |tier: Tier| match tier {
            Tier::Eligible => true,
            Tier::Sick => self.panic == Panic::Yes,
            Tier::Mute => !any_answers,
        };
        self.pool.clear();
        self.kept_for_held.clear();
        for (index, member) in self.members.iter().enumerate() {
            let is_asked = member.intake.takes_any() && asked.takes(member.role.rank);
            if is_asked && belongs(member.tier()) {
                self.pool.push(index);
            } else if !member.intake.takes_any()
                && member.intake.takes_held()
                && member.tier() == Tier::Eligible
            {
                self.kept_for_held.push(index);
            }
        }
        let mut weights = self.pool.iter().map(|index| self.members[*index].weight());
        let first = weights.next();
        self.weights = if weights.all(|weight| Some(weight) == first) {
            Weights::Even
        } else {
            Weights::Uneven
        };
        let ejections = || self.members.iter().map(|member| &member.ejection);
        self.pool_until = ejections().filter_map(Ejection::until).min();
        let is_sick =
            |one: &&Member<E>| one.intake.takes_any() && one.ejection.cause() == Some(Cause::Sick);
        self.sick = self.members.iter().filter(is_sick).count();
        self.on_probation = ejections().filter(|one| one.is_on_probation()).count();
    }
}

/// What a newcomer is assumed to take: as long as the others on average, or the default.
fn mean_latency<E>(members: &[Member<E>], now: Instant) -> Duration {
    let known =
        |member: &&Member<E>| member.measured == Measured::Yes && member.tier() == Tier::Eligible;
    let (mut sum, mut count) = (0.0, 0.0);
    for member in members.iter().filter(known) {
        sum += member.latency.usual(now);
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
pub(super) fn fraction(random: u64) -> f64 {
    let top = u32::try_from(random >> 32).unwrap_or(u32::MAX);
    f64::from(top) / (f64::from(u32::MAX) + 1.0)
}

/// Another random number from the same draw, by the finaliser of `SplitMix64` (Steele, Lea, Flood:
/// Fast splittable pseudorandom number generators, 2014).
pub(super) fn mix(random: u64, salt: u64) -> u64 {
    let mut z = random.wrapping_add(salt.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
