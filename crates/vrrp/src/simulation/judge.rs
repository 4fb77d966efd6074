//! What must hold, by what the world knows to be true: who was told to add addresses, which adverts arrived, what
//! went wrong. The router's own word counts for nothing.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use mainstay_ids::Instant;

use super::network::Network;
use super::plot::{Plot, WAKE, WAY, Weather};
use crate::contract::{Health, Why};
use crate::options::{Handover, Options, Preempt};
use crate::packet::Advert;
use crate::words::{ADVERTS_MISSED, Priority};

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Promise {
    /// Two hold the address only while network, pause or a change explains it.
    OneHolder,
    /// None holds it no longer than the timers say.
    NeverNone,
    /// Nobody takes it without need: silence of three intervals, a master that leaves, or the right to preempt.
    Need,
    /// Of several that could, the best takes it.
    BestTakesOver,
    /// Who was paused listens before it claims anything.
    ListensFirst,
    /// A holder speaks as often as it says.
    SpeaksInTime,
    /// A planned move has no moment without a holder.
    NoGap,
    /// Who takes it from one that leaves does so within the skew time, or at once.
    MovesInTime,
    /// Who moved it away does not take it back.
    MoveStays,
    /// One that is unfit holds it only if nobody is fit.
    UnfitYields,
    /// One mishap makes no endless change of holders.
    NoTurns,
    /// At rest there is one holder.
    Settles,
    /// At rest nothing changes.
    StaysAtRest,
    /// At rest everybody sends to the holder.
    ClientsFollow,
}

/// What the runs must contain.
pub(super) const EXPECTED: &[&str] = &[
    "lost",
    "late",
    "doubled",
    "cut one way",
    "split",
    "killed",
    "stopped",
    "frozen",
    "suspended",
    "clock ahead",
    "clock back",
    "priority",
    "unfit",
    "fit",
    "moved",
    "link lost",
    "took over: MasterSilent",
    "took over: MasterLeft",
    "took over: Preempts",
    "two holders",
    "stalled",
];

#[derive(Debug, Clone, Default)]
pub(super) struct Tally(BTreeMap<String, u64>);

impl Tally {
    pub(super) fn count(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    pub(super) fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what.clone()).or_default() += count;
        }
    }
}

/// A broken promise.
#[derive(Debug, Clone)]
pub(super) struct Broken {
    pub(super) promise: Promise,
    at: Instant,
    what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} at {:?}: {}",
            self.promise,
            self.at.since_start(),
            self.what
        )
    }
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    at: Instant,
    from: usize,
    priority: Priority,
    interval: Duration,
}

/// What is known of one router.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts of a world, each for itself"
)]
struct Seen {
    options: Options,
    priority: Priority,
    health: Health,
    running: bool,
    paused: bool,
    holds: bool,
    spoke: Instant,
    up: Instant,
    heard: Option<Heard>,
    /// A master left after that.
    left: bool,
    /// Heard with such a priority, and when.
    known: Vec<Option<(Priority, Instant)>>,
    /// When it woke last, and how long it had slept.
    woke: Instant,
    slept: Duration,
    slept_as_holder: bool,
    stepped: Instant,
    disturbed: Instant,
    /// It gave the address away on purpose.
    gave: bool,
}

pub(super) struct Judge {
    plot: Plot,
    seen: Vec<Seen>,
    /// Since when nothing excuses two that both hold it.
    together: Vec<Instant>,
    none_since: Vec<Option<Instant>>,
    clients: Vec<Option<usize>>,
    no_gap_until: Instant,
    /// Another one must hold it by then.
    moves: Option<(Instant, usize)>,
    mover: Option<usize>,
    turns: usize,
    last_turn: Instant,
    pub(super) happened: Tally,
    pub(super) broken: Option<Broken>,
}

impl Judge {
    pub(super) fn new(plot: &Plot) -> Self {
        let count = plot.routers.len();
        let seen = |options: &Options| Seen {
            options: options.clone(),
            priority: options.priority,
            health: Health::Fit,
            running: false,
            paused: false,
            holds: false,
            spoke: Instant::START,
            up: Instant::START,
            heard: None,
            left: false,
            known: vec![None; count],
            woke: Instant::START,
            slept: Duration::ZERO,
            slept_as_holder: false,
            stepped: Instant::START,
            disturbed: Instant::START,
            gave: false,
        };
        Self {
            plot: plot.clone(),
            seen: plot.routers.iter().map(seen).collect(),
            together: vec![Instant::START; count * count],
            none_since: vec![None; count],
            clients: vec![None; count],
            no_gap_until: Instant::START,
            moves: None,
            mover: None,
            turns: 0,
            last_turn: Instant::START,
            happened: Tally::default(),
            broken: None,
        }
    }

    fn count(&self) -> usize {
        self.seen.len()
    }

    fn fail(&mut self, now: Instant, promise: Promise, what: impl Into<String>) {
        let what = what.into();
        self.broken.get_or_insert(Broken {
            promise,
            at: now,
            what,
        });
    }

    pub(super) fn holder(&self) -> Option<usize> {
        self.seen.iter().position(|one| one.holds)
    }

    pub(super) fn is_running(&self, at: usize) -> bool {
        self.seen[at].running
    }

    pub(super) fn is_paused(&self, at: usize) -> bool {
        self.seen[at].paused
    }

    pub(super) fn health(&self, at: usize) -> Health {
        self.seen[at].health
    }

    fn effective(&self, at: usize) -> Priority {
        match self.seen[at].health {
            Health::Fit => self.seen[at].priority,
            Health::Unfit => Priority::LEAST,
        }
    }

    /// Something happened to one that excuses what it and others do next.
    pub(super) fn disturb(&mut self, now: Instant, at: usize) {
        self.seen[at].disturbed = now;
        for other in 0..self.count() {
            self.excuse(now, at, other);
        }
    }

    /// A packet between two did not arrive as it should.
    pub(super) fn excuse(&mut self, now: Instant, one: usize, other: usize) {
        let count = self.count();
        for at in [one * count + other, other * count + one] {
            self.together[at] = self.together[at].max(now);
        }
    }

    pub(super) fn came_up(&mut self, now: Instant, at: usize) {
        let count = self.count();
        let seen = &mut self.seen[at];
        seen.running = true;
        seen.up = now;
        seen.spoke = now;
        seen.heard = None;
        seen.left = false;
        seen.known = vec![None; count];
        self.forget_move(at);
        self.disturb(now, at);
    }

    /// It does not take part any more, and does not hold the address.
    pub(super) fn went_down(&mut self, now: Instant, at: usize) {
        self.seen[at].running = false;
        // Nobody but itself is on its piece of cable.
        self.clients[at] = None;
        self.released(now, at);
        self.disturb(now, at);
    }

    pub(super) fn restarted(&mut self, at: usize) {
        self.seen[at].health = Health::Fit;
        self.seen[at].paused = false;
    }

    pub(super) fn paused(&mut self, now: Instant, at: usize) {
        self.seen[at].paused = true;
        self.seen[at].slept_as_holder = self.seen[at].holds;
        self.disturb(now, at);
    }

    pub(super) fn resumed(&mut self, now: Instant, at: usize, slept: Duration) {
        let seen = &mut self.seen[at];
        seen.paused = false;
        seen.woke = now;
        seen.slept = slept;
        // An offer that was slept through is no offer any more.
        seen.gave &= !seen.slept_as_holder;
        self.disturb(now, at);
    }

    pub(super) fn stepped(&mut self, now: Instant, at: usize) {
        self.seen[at].stepped = now;
        self.disturb(now, at);
    }

    pub(super) fn set_priority(&mut self, now: Instant, at: usize, priority: Priority) {
        self.seen[at].priority = priority;
        self.forget_move(at);
        self.disturb(now, at);
    }

    pub(super) fn set_health(&mut self, now: Instant, at: usize, health: Health) {
        self.seen[at].health = health;
        self.forget_move(at);
        self.disturb(now, at);
    }

    /// The address is to go elsewhere.
    pub(super) fn moves_away(&mut self, now: Instant, at: usize, network: &Network) {
        self.disturb(now, at);
        self.seen[at].gave = true;
        let ready = |one: &usize| {
            let seen = &self.seen[*one];
            *one != at
                && seen.running
                && !seen.paused
                && seen.health == Health::Fit
                && network.both_ways(*one, at)
                && now.since(seen.disturbed) > self.plot.interval_max() * 3
        };
        let best = (0..self.count())
            .filter(ready)
            .map(|one| self.effective(one))
            .max();
        let calm = self.plot.weather == Weather::Clean;
        let Some(best) = best.filter(|_| calm) else {
            return;
        };
        let options = &self.seen[at].options;
        let skew = options.interval.skew(options.version, best);
        let alone = self.seen.iter().filter(|one| one.running).count() == 2;
        let wait = match options.handover {
            // Nobody else can be known to be better.
            Handover::AtOnce if alone => Duration::ZERO,
            Handover::AtOnce | Handover::AfterSkew => skew,
        };
        self.moves = Some((now.after(wait + (WAY + WAKE) * 4), at));
        self.no_gap_until = now.after(self.plot.interval_max() * 6);
        self.mover = Some(at);
    }

    /// It may have it again: it was told so, or is another process.
    fn forget_move(&mut self, at: usize) {
        self.seen[at].gave = false;
        self.mover = self.mover.filter(|mover| *mover != at);
    }

    pub(super) fn sent(&mut self, now: Instant, at: usize, priority: Priority) {
        let seen = &self.seen[at];
        let interval = seen.options.interval.duration();
        let mute = seen.heard.is_none_or(|heard| heard.at < seen.woke) && !seen.left;
        // Of a sleep in which the clock was set, it cannot know how long it was.
        let known = seen.stepped.after(seen.slept + interval * 7) < seen.woke;
        let early =
            known && seen.slept >= interval * ADVERTS_MISSED && now.since(seen.woke) < interval;
        if priority != Priority::LEAVING
            && seen.slept_as_holder
            && early
            && mute
            && seen.woke > seen.up
        {
            let what = format!(
                "{at} slept {:?} and claims the address without listening",
                seen.slept
            );
            self.fail(now, Promise::ListensFirst, what);
        }
        self.seen[at].spoke = now;
        // Nobody took it: what it gave is its own again.
        self.seen[at].gave &= priority == Priority::LEAVING;
    }

    pub(super) fn heard(&mut self, now: Instant, at: usize, from: usize, advert: &Advert<'_>) {
        let unfit = self.seen[at].health == Health::Unfit;
        let seen = &mut self.seen[at];
        if advert.priority == Priority::LEAVING && !unfit {
            seen.left = true;
            return;
        }
        // To one that is unfit, a holder that repeats that it leaves is there; somebody else's last word is nothing.
        let another = seen.heard.is_some_and(|heard| heard.from != from);
        if advert.priority == Priority::LEAVING && another {
            return;
        }
        if advert.priority != Priority::LEAVING {
            seen.known[from] = Some((advert.priority, now));
        }
        seen.left = false;
        seen.heard = Some(Heard {
            at: now,
            from,
            priority: advert.priority,
            interval: advert.interval.duration(),
        });
    }

    pub(super) fn announced(&mut self, by: usize, to: usize) {
        self.clients[to] = Some(by);
    }

    pub(super) fn took_over(&mut self, now: Instant, at: usize, why: Why, network: &Network) {
        self.happened.count(format!("took over: {why:?}"));
        self.check_need(now, at, why);
        self.check_listening(now, at, why);
        self.check_best(now, at, why, network);
        let seen = &mut self.seen[at];
        (seen.holds, seen.gave, seen.spoke) = (true, false, now);
        self.turns += 1;
        self.last_turn = now;
        for other in 0..self.count() {
            if other != at && self.seen[other].holds {
                self.happened.count("two holders");
                self.excuse(now, at, other);
            }
        }
    }

    pub(super) fn released(&mut self, now: Instant, at: usize) {
        if self.seen[at].holds {
            self.seen[at].holds = false;
            self.last_turn = now;
        }
    }

    fn check_need(&mut self, now: Instant, at: usize, why: Why) {
        let seen = &self.seen[at];
        let own = self.effective(at);
        let (silent, interval) = match seen.heard {
            _ if why == Why::Owner || seen.left => return,
            None => (now.since(seen.up), seen.options.interval.duration()),
            Some(heard) => (now.since(heard.at), heard.interval),
        };
        let may = match seen.options.preempt {
            Preempt::Never => own == Priority::OWNER,
            Preempt::Always | Preempt::After(_) => true,
        };
        let worse = seen.heard.is_some_and(|heard| heard.priority < own);
        let preempts = may && worse && !seen.gave;
        // A clock that is set ahead makes silence look longer, once.
        let stepped = now.since(seen.stepped) <= interval * 6;
        if silent < interval * ADVERTS_MISSED && !preempts && !stepped {
            let what = format!(
                "{at} took over ({why:?}) after {silent:?} of silence; {:?}",
                seen.heard
            );
            self.fail(now, Promise::Need, what);
        }
    }

    fn check_listening(&mut self, now: Instant, at: usize, why: Why) {
        let seen = &self.seen[at];
        let Some(heard) = seen.heard else { return };
        let mute = heard.at < seen.woke && !seen.left;
        let long = seen.slept >= heard.interval * (ADVERTS_MISSED + 2);
        if why == Why::MasterSilent && mute && long && now.since(seen.woke) < heard.interval {
            let what = format!(
                "{at} slept {:?} and took its own sleep for silence",
                seen.slept
            );
            self.fail(now, Promise::ListensFirst, what);
        }
    }

    fn check_best(&mut self, now: Instant, at: usize, why: Why, network: &Network) {
        let clean = self.plot.weather == Weather::Clean;
        let undisturbed = |one: &Seen| now.since(one.disturbed) > self.plot.interval_max() * 8;
        let own = &self.seen[at];
        let (true, true, Some(heard)) = (clean, undisturbed(own), own.heard) else {
            return;
        };
        let options = &own.options;
        let skew = |one: usize| options.interval.skew(options.version, self.effective(one));
        for other in 0..self.count() {
            let seen = &self.seen[other];
            let same = seen
                .heard
                .is_some_and(|it| it.from == heard.from && it.at.since(heard.at) <= WAY);
            let able = other != at
                && seen.running
                && !seen.paused
                && !seen.gave
                && seen.health == Health::Fit;
            let sooner = skew(other) + Duration::from_millis(1) < skew(at);
            let waits = match why {
                Why::MasterSilent => true,
                Why::MasterLeft => {
                    options.handover == Handover::AfterSkew || own.known[other].is_some()
                }
                Why::Started
                | Why::Owner
                | Why::Preempts
                | Why::Outranked(_)
                | Why::HandedOver(_)
                | Why::Replaced(_)
                | Why::Stopped
                | Why::LinkLost => false,
            };
            // Not for ever: a backup is silent, and may be gone.
            let lately = |(priority, at): (Priority, Instant)| {
                priority == seen.priority && now.since(at) < Duration::from_secs(590)
            };
            let known = why != Why::MasterLeft || own.known[other].is_none_or(lately);
            if able
                && same
                && sooner
                && waits
                && known
                && !seen.holds
                && undisturbed(seen)
                && network.both_ways(at, other)
            {
                let what = format!(
                    "{at} took over ({why:?}) although {other} is better and heard the same"
                );
                self.fail(now, Promise::BestTakesOver, what);
                return;
            }
        }
    }

    /// Looks at everything, after each step.
    pub(super) fn look(&mut self, now: Instant, network: &Network) {
        self.look_for_two(now, network);
        self.look_for_none(now, network);
        self.look_for_silence(now);
        if let Some((until, mover)) = self.moves
            && now > until
        {
            self.moves = None;
            let elsewhere = (0..self.count()).any(|one| one != mover && self.seen[one].holds);
            if !elsewhere {
                let what = format!("nobody took the address that {mover} gave away");
                self.fail(now, Promise::MovesInTime, what);
            }
        }
    }

    fn look_for_two(&mut self, now: Instant, network: &Network) {
        let allowed = self.plot.interval_max() * 3 + self.plot.latency_max * 2;
        for one in 0..self.count() {
            for other in 0..one {
                let seen = [&self.seen[one], &self.seen[other]];
                let both = seen.iter().all(|seen| seen.holds && !seen.paused);
                let since = self.together[one * self.count() + other];
                if both && network.both_ways(one, other) && now.since(since) > allowed {
                    let what = format!(
                        "{one} and {other} both hold the address, unexcused since {since:?}"
                    );
                    self.fail(now, Promise::OneHolder, what);
                }
            }
        }
    }

    fn look_for_none(&mut self, now: Instant, network: &Network) {
        let parts = network.parts();
        for part in 0..self.count() {
            let members: Vec<usize> = (0..self.count())
                .filter(|one| parts[*one] == part && self.seen[*one].running)
                .collect();
            if members.is_empty() || members.iter().any(|one| self.seen[*one].holds) {
                self.none_since[part] = None;
                continue;
            }
            let since = *self.none_since[part].get_or_insert(now);
            if now < self.no_gap_until && self.mover.is_some_and(|mover| parts[mover] == part) {
                self.fail(
                    now,
                    Promise::NoGap,
                    "in a planned move, nobody holds the address",
                );
            }
            let disturbed = members
                .iter()
                .map(|one| self.seen[*one].disturbed)
                .max()
                .unwrap_or(now);
            let longest = |one: &usize| {
                let options = &self.seen[*one].options;
                let interval = self
                    .plot
                    .routers
                    .iter()
                    .map(|one| one.interval)
                    .max()
                    .expect("two at least");
                interval.down(options.version, self.effective(*one))
            };
            let awake = members.iter().filter(|one| !self.seen[**one].paused);
            let Some(down) = awake.map(longest).min() else {
                continue;
            };
            let bound = down + self.plot.latency_max + (WAY + WAKE) * 4;
            let none = now.since(since.max(disturbed));
            if none > bound {
                let what = format!(
                    "nobody of {members:?} holds the address for {none:?}, {bound:?} is the bound"
                );
                self.fail(now, Promise::NeverNone, what);
            }
        }
    }

    fn look_for_silence(&mut self, now: Instant) {
        for at in 0..self.count() {
            let seen = &self.seen[at];
            let last = seen.spoke.max(seen.disturbed);
            let allowed = seen.options.interval.duration() * 7 / 2;
            if seen.holds && !seen.paused && seen.running && now.since(last) > allowed {
                let what = format!(
                    "{at} holds the address and says nothing for {:?}",
                    now.since(last)
                );
                self.fail(now, Promise::SpeaksInTime, what);
            }
        }
    }

    /// Nothing goes wrong any more: now everything is judged exactly.
    pub(super) fn calm(&mut self) {
        self.plot.weather = Weather::Clean;
    }

    /// A mishap comes: from here on changes are counted.
    pub(super) fn begin(&mut self) {
        self.turns = 0;
        self.mover = None;
    }

    /// All is whole, and time enough has passed.
    pub(super) fn settled(&mut self, now: Instant, quiet_for: Duration) {
        let running: Vec<usize> = (0..self.count())
            .filter(|one| self.seen[*one].running)
            .collect();
        let holders: Vec<usize> = (0..self.count())
            .filter(|one| self.seen[*one].holds)
            .collect();
        if running.is_empty() {
            return;
        }
        let [holder] = holders[..] else {
            self.fail(
                now,
                Promise::Settles,
                format!("{holders:?} hold the address at rest"),
            );
            return;
        };
        if now.since(self.last_turn) < quiet_for {
            self.fail(
                now,
                Promise::StaysAtRest,
                format!("changed at {:?}", self.last_turn),
            );
        }
        if self.turns > 2 * self.count() + 2 {
            self.fail(
                now,
                Promise::NoTurns,
                format!("{} changes of holders", self.turns),
            );
        }
        let fit = |one: &&usize| self.seen[**one].health == Health::Fit;
        let others_fit = running.iter().filter(fit).any(|one| *one != holder);
        if self.seen[holder].health == Health::Unfit && others_fit {
            self.fail(
                now,
                Promise::UnfitYields,
                format!("{holder} is unfit and holds it"),
            );
        }
        if self.mover == Some(holder) && others_fit && self.seen[holder].running {
            self.fail(
                now,
                Promise::MoveStays,
                format!("{holder} has the address again"),
            );
        }
        for one in running {
            // Who knows nobody asks.
            if self.clients[one].is_some_and(|known| known != holder) {
                let what = format!(
                    "clients at {one} send to {:?}, {holder} holds it",
                    self.clients[one]
                );
                self.fail(now, Promise::ClientsFollow, what);
            }
        }
    }
}
