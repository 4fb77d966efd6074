//! The life of one request between its head and the head of its answer: where it is sent, when it is
//! sent again, when a second copy goes out beside the first, what is told to the client if nothing
//! helps.
//!
//! The driver carries out what [`Next`] says and tells what came of it; it decides nothing. A request
//! has up to [`LANES`] tries under way at once, each in a lane of its own. After each call, the driver
//! ends the tries of all lanes that the course no longer [runs](Course::runs).

use alloc::vec::Vec;
use core::time::Duration;

use mainstay_ids::Instant;
use mainstay_model::routing::Unavailable;

use super::balancer::{BEYOND_MAX, Balancer, Hedging, Patience, Retrying};
use super::ejection::{Outcome, Probing, Try};
use super::hedge::{self, CONNECT_PATIENCE, HEDGE_AFTER_UNKNOWN, HEDGE_AGAIN, Reason};
use super::line::Ticket;
use super::retry::{Attempted, Body, FailureKind, MethodSafety, RetryVerdict, TRIES_MAX};
use super::set::{Choice, Load, Need, Picked, Priority, Tag, fraction, mix};
use super::sticky::{Bond, Traits, Wish};

mod contract;

pub use contract::{
    Content, Defeat, Demand, Event, For, LANES, Lane, Learnt, Loss, Next, Scene, Why,
};

/// Between two rounds over endpoints that all failed, if no new table comes earlier.
pub const ROUND_PAUSE: Duration = Duration::from_millis(50);

/// How soon whoever is first in the line looks again whether there is room: an answer that ended on
/// another worker makes room, too, and tells nobody here.
const LINE_LOOK: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    Idle,
    /// There is no connection yet.
    Reaching {
        picked: Picked,
        since: Instant,
    },
    /// A byte of it may have been sent.
    Sent {
        picked: Picked,
        since: Instant,
    },
}

impl Run {
    fn underway(self) -> Option<(Picked, Instant)> {
        match self {
            Self::Reaching { picked, since } | Self::Sent { picked, since } => {
                Some((picked, since))
            }
            Self::Idle => None,
        }
    }

    fn is_sent(self) -> bool {
        match self {
            Self::Sent { .. } => true,
            Self::Idle | Self::Reaching { .. } => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Its tries are under way, or it has just come.
    Underway,
    InLine {
        ticket: Ticket,
        until: Instant,
    },
    Resting {
        until: Instant,
    },
    /// It was delivered or refused.
    Over,
}

/// Whether a request was let through although there was no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    Within,
    Beyond,
}

/// One request on its way.
#[derive(Debug, Clone)]
pub struct Course {
    demand: Demand,
    place: Place,
    counts: Counts,
    runs: [Run; LANES],
    /// Endpoints that have failed in this round.
    failed: Vec<Tag>,
    /// Tries that ended after a part was sent. Others cost an endpoint nothing, and are bounded by
    /// time.
    sent: u32,
    tries: u32,
    /// For how long the client's own body was waited for, of the try that is out: what has a body is
    /// out once.
    excused: Duration,
    /// When the first try failed, or the first wait for an endpoint began.
    trouble_since: Option<Instant>,
    /// When a second copy that was refused is thought of again.
    reconsider: Option<Instant>,
    wake: Instant,
}

impl Course {
    /// A request that has not come yet.
    pub fn new(demand: Demand) -> Self {
        Self {
            demand,
            place: Place::Underway,
            counts: Counts::Within,
            runs: [Run::Idle; LANES],
            failed: Vec::new(),
            sent: 0,
            tries: 0,
            excused: Duration::ZERO,
            trouble_since: None,
            reconsider: None,
            wake: Instant::NEVER,
        }
    }

    /// When the driver must call with [`Event::Tick`].
    pub fn wake(&self) -> Instant {
        self.wake
    }

    /// Whether a lane's try is still wanted.
    pub fn runs(&self, lane: Lane) -> bool {
        self.runs[lane.0] != Run::Idle
    }

    /// How many tries were begun.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// Whether a copy of the request must be kept for as long as nothing has answered it: its head,
    /// and its body as far as that can be kept.
    pub fn is_repeatable(&self) -> bool {
        match self.demand.safety {
            MethodSafety::Safe | MethodSafety::Idempotent => true,
            MethodSafety::Unsafe => false,
        }
    }

    /// For so long, since the last call, the client's own body was waited for: it says nothing of the
    /// endpoint, and is left out of what is learnt. Told before the event that ends a try.
    pub fn excuse(&mut self, time: Duration) {
        self.excused = self.excused.saturating_add(time);
    }

    /// Takes in what happened.
    pub fn handle<E, L: Fn(&E) -> Load>(
        &mut self,
        scene: &mut Scene<'_, E, L>,
        event: Event,
    ) -> Next {
        let next = match event {
            Event::Come => {
                scene.budget.deposit(scene.now);
                self.choose(scene, Why::First)
            }
            Event::Sent(lane) => self.sent(scene, lane),
            Event::Unsent(lane) => self.unsent(lane),
            Event::ConnectFailed(lane) => self.connect_failed(scene, lane),
            Event::Lost(lane, loss, body) => self.lost(scene, lane, loss, body),
            Event::Head(lane, status, body) => self.head(scene, lane, status, body),
            Event::Tick => self.tick(scene),
            Event::Changed => self.changed(scene),
            Event::Turn => self.turn(scene),
            Event::Expired => self.expired(scene),
        };
        self.close(scene, next);
        self.plan(scene);
        next
    }

    /// The client has gone: nothing is learnt from what is under way.
    pub fn abandon<E>(&mut self, balancer: &mut Balancer<E>) {
        self.leave_line(balancer);
        match self.counts {
            Counts::Beyond => balancer.beyond = balancer.beyond.saturating_sub(1),
            Counts::Within => {}
        }
        self.counts = Counts::Within;
        self.runs = [Run::Idle; LANES];
        self.place = Place::Over;
        self.wake = Instant::NEVER;
    }

    fn choose<E, L: Fn(&E) -> Load>(&mut self, scene: &mut Scene<'_, E, L>, why: Why) -> Next {
        // Whoever waits has come before; whoever is called has waited. A check passes them, but only as
        // one of a few: else whoever asks for its path would take the room of those who wait.
        let is_called = matches!(self.place, Place::InLine { .. });
        if !is_called && !scene.balancer.line.is_empty() {
            return self.begin_beyond_or_join(scene, why);
        }
        let need = self.need(scene.wish, scene.traits, &self.failed);
        let set = &mut scene.balancer.set;
        match set.choose(scene.now, scene.random, &need, &scene.load) {
            Choice::Picked(picked) => self.begin(scene, picked, why),
            Choice::Full => self.begin_beyond_or_join(scene, why),
            Choice::NoOther => self.rest(scene, Defeat::AllFailed, ROUND_PAUSE),
            Choice::Empty => match scene.unavailable {
                // It will not change by itself within the time that a request can wait.
                Some(
                    why @ (Unavailable::CrashLooping
                    | Unavailable::ScaledToZero
                    | Unavailable::Stopping
                    | Unavailable::Drained),
                ) => Next::Refuse(Defeat::Unavailable(why)),
                Some(why @ Unavailable::Starting) => {
                    self.rest(scene, Defeat::Unavailable(why), Duration::MAX)
                }
                None => self.rest(scene, Defeat::NoEndpoint, Duration::MAX),
            },
        }
    }

    fn begin_beyond_or_join<E, L: Fn(&E) -> Load>(
        &mut self,
        scene: &mut Scene<'_, E, L>,
        why: Why,
    ) -> Next {
        match self.go_beyond(scene) {
            Some(picked) => self.begin(scene, picked, why),
            None => self.join(scene),
        }
    }

    /// A check is sent although there is no room, or others wait for it, if few are.
    fn go_beyond<E, L: Fn(&E) -> Load>(&mut self, scene: &mut Scene<'_, E, L>) -> Option<Picked> {
        let is_counted = match self.counts {
            Counts::Beyond => true,
            Counts::Within => false,
        };
        let few = is_counted || scene.balancer.beyond < BEYOND_MAX;
        if self.demand.priority == Priority::Normal || !few {
            return None;
        }
        let need = Need {
            priority: Priority::Spared,
            ..self.need(scene.wish, scene.traits, &self.failed)
        };
        let set = &mut scene.balancer.set;
        let picked = set.choose_beside(scene.now, scene.random, &need, &scene.load)?;
        if !is_counted {
            self.counts = Counts::Beyond;
            scene.balancer.beyond += 1;
        }
        Some(picked)
    }

    fn begin<E, L>(&mut self, scene: &mut Scene<'_, E, L>, picked: Picked, why: Why) -> Next {
        let Some(free) = self.free_lane() else {
            return Next::Wait(For::Answer);
        };
        self.leave_line(scene.balancer);
        self.place = Place::Underway;
        self.tries += 1;
        self.excused = Duration::ZERO;
        self.reconsider = None;
        self.runs[free.0] = Run::Reaching {
            picked,
            since: scene.now,
        };
        Next::Begin(free, picked, why)
    }

    fn join<E, L>(&mut self, scene: &mut Scene<'_, E, L>) -> Next {
        if let Place::InLine { ticket, .. } = self.place {
            return Next::Wait(For::Turn(ticket));
        }
        match scene.balancer.line.join(scene.now) {
            Some((ticket, until)) => {
                self.place = Place::InLine { ticket, until };
                Next::Wait(For::Turn(ticket))
            }
            None => Next::Refuse(Defeat::Overloaded),
        }
    }

    /// There is no endpoint, or each has failed: waits for a change, within bounds. Nothing is lost
    /// by it, since nothing was sent or it may be sent again.
    fn rest<E, L>(&mut self, scene: &mut Scene<'_, E, L>, defeat: Defeat, pause: Duration) -> Next {
        let pause = pause.min(self.time_left(scene));
        if pause.is_zero() || scene.balancer.policy.retrying == Retrying::Off {
            return Next::Refuse(defeat);
        }
        self.leave_line(scene.balancer);
        let until = scene.now.after(pause);
        self.place = Place::Resting { until };
        Next::Wait(For::Change)
    }

    /// Of the time for which a request waits for an instance.
    fn time_left<E, L>(&mut self, scene: &Scene<'_, E, L>) -> Duration {
        let since = *self.trouble_since.get_or_insert(scene.now);
        let time = scene.balancer.policy.line.time;
        time.saturating_sub(scene.now.since(since))
    }

    fn sent<E, L: Fn(&E) -> Load>(&mut self, scene: &mut Scene<'_, E, L>, lane: Lane) -> Next {
        let Run::Reaching { picked, since } = self.runs[lane.0] else {
            return Next::Wait(For::Answer);
        };
        self.runs[lane.0] = Run::Sent { picked, since };
        self.reconsider = None;
        // The first connection to come about is used. What is not sent there must not be sent.
        for other in Lane::ALL {
            match self.runs[other.0] {
                Run::Reaching { .. } => self.leave_behind(scene, other, since),
                Run::Idle | Run::Sent { .. } => {}
            }
        }
        debug_assert!(
            self.is_hedgeable() || self.runs.iter().filter(|run| run.is_sent()).count() == 1,
            "a request that may have an effect is out twice"
        );
        Next::Wait(For::Answer)
    }

    fn unsent(&mut self, lane: Lane) -> Next {
        match self.runs[lane.0] {
            Run::Sent { picked, since } => self.runs[lane.0] = Run::Reaching { picked, since },
            Run::Idle | Run::Reaching { .. } => {}
        }
        Next::Wait(For::Answer)
    }

    fn connect_failed<E, L: Fn(&E) -> Load>(
        &mut self,
        scene: &mut Scene<'_, E, L>,
        lane: Lane,
    ) -> Next {
        self.fail(scene, lane, Outcome::ConnectFailed);
        if self.is_underway() {
            return Next::Wait(For::Answer);
        }
        // However many endpoints there are, a client is not kept waiting for all of them.
        let may_go_on = !self.time_left(scene).is_zero() || self.tries < TRIES_MAX;
        match scene.balancer.policy.retrying {
            Retrying::On if may_go_on => self.choose(scene, Why::Again),
            Retrying::On | Retrying::Off => Next::Refuse(Defeat::AllFailed),
        }
    }

    fn lost<E, L: Fn(&E) -> Load>(
        &mut self,
        scene: &mut Scene<'_, E, L>,
        lane: Lane,
        loss: Loss,
        body: Body,
    ) -> Next {
        self.fail(scene, lane, Outcome::GatewayError);
        self.sent += 1;
        if self.is_underway() {
            return Next::Wait(For::Answer);
        }
        let failure = match loss {
            Loss::Broken => FailureKind::LostAfterSending,
            Loss::Dead => FailureKind::DeclaredDead,
            Loss::TimedOut => FailureKind::TimedOut,
        };
        if self.may_repeat(scene, failure, body) {
            return self.choose(scene, Why::Again);
        }
        Next::Refuse(Defeat::LostInFlight)
    }

    /// There is an answer; one of a gateway type may be better elsewhere, if there is an elsewhere.
    fn head<E, L: Fn(&E) -> Load>(
        &mut self,
        scene: &mut Scene<'_, E, L>,
        lane: Lane,
        status: u16,
        body: Body,
    ) -> Next {
        let Some((picked, since)) = self.runs[lane.0].underway() else {
            return Next::Wait(For::Answer);
        };
        let outcome = Outcome::of_status(status);
        self.learn(scene, picked, since, outcome);
        self.sent += 1;
        if outcome == Outcome::GatewayError {
            self.failed.push(picked.tag);
            self.runs[lane.0] = Run::Idle;
            if self.is_underway() {
                return Next::Wait(For::Answer);
            }
            if let Some(next) = self.elsewhere(scene, FailureKind::Answered(status), body) {
                return next;
            }
        }
        for other in Lane::ALL {
            if other != lane {
                self.leave_behind(scene, other, since);
            }
        }
        Next::Deliver(lane)
    }

    /// Sends it to another endpoint, if there is one at once and that is right.
    fn elsewhere<E, L: Fn(&E) -> Load>(
        &mut self,
        scene: &mut Scene<'_, E, L>,
        failure: FailureKind,
        body: Body,
    ) -> Option<Next> {
        let need = self.need(scene.wish, scene.traits, &self.failed);
        let set = &mut scene.balancer.set;
        let picked = set.choose_beside(scene.now, scene.random, &need, &scene.load)?;
        self.may_repeat(scene, failure, body)
            .then(|| self.begin(scene, picked, Why::Again))
    }

    fn tick<E, L: Fn(&E) -> Load>(&mut self, scene: &mut Scene<'_, E, L>) -> Next {
        if scene.now < self.wake {
            return self.waits_for();
        }
        match self.place {
            Place::Resting { .. } => self.changed(scene),
            Place::InLine { until, .. } if until <= scene.now => Next::Refuse(Defeat::Overloaded),
            Place::InLine { .. } => self.turn(scene),
            Place::Underway => self.second(scene),
            Place::Over => Next::Wait(For::Answer),
        }
    }

    fn changed<E, L: Fn(&E) -> Load>(&mut self, scene: &mut Scene<'_, E, L>) -> Next {
        match self.place {
            Place::Resting { .. } => {
                self.failed.clear();
                let why = if self.tries == 0 {
                    Why::First
                } else {
                    Why::Again
                };
                self.place = Place::Underway;
                self.choose(scene, why)
            }
            Place::InLine { .. } => self.turn(scene),
            Place::Underway | Place::Over => self.waits_for(),
        }
    }

    fn turn<E, L: Fn(&E) -> Load>(&mut self, scene: &mut Scene<'_, E, L>) -> Next {
        match self.place {
            Place::InLine { ticket, .. }
                if scene.balancer.line.first(scene.now) == Some(ticket) =>
            {
                let why = if self.tries == 0 {
                    Why::First
                } else {
                    Why::Again
                };
                self.choose(scene, why)
            }
            Place::InLine { .. } | Place::Resting { .. } | Place::Underway | Place::Over => {
                self.waits_for()
            }
        }
    }

    fn expired<E, L: Fn(&E) -> Load>(&mut self, scene: &mut Scene<'_, E, L>) -> Next {
        for lane in Lane::ALL {
            match self.runs[lane.0] {
                Run::Reaching { .. } => self.fail(scene, lane, Outcome::ConnectFailed),
                Run::Sent { .. } => self.fail(scene, lane, Outcome::GatewayError),
                Run::Idle => {}
            }
        }
        Next::Refuse(Defeat::Expired)
    }

    /// A try beside those that are under way, if one is due and bearable.
    fn second<E, L: Fn(&E) -> Load>(&mut self, scene: &mut Scene<'_, E, L>) -> Next {
        let why = if self.runs.iter().any(|run| run.is_sent()) {
            Why::Hedge
        } else {
            Why::Impatience
        };
        let picked = match why {
            Why::Hedge => self.hedge(scene),
            Why::Impatience => self.beside(scene),
            Why::First | Why::Again => None,
        };
        if let Some(picked) = picked {
            return self.begin(scene, picked, why);
        }
        let again = match why {
            Why::Impatience => CONNECT_PATIENCE,
            Why::Hedge | Why::First | Why::Again => {
                scene.balancer.hedge_after(scene.now).max(HEDGE_AGAIN)
            }
        };
        self.reconsider = Some(scene.now.after(again));
        Next::Wait(For::Answer)
    }

    fn hedge<E, L: Fn(&E) -> Load>(&mut self, scene: &mut Scene<'_, E, L>) -> Option<Picked> {
        if !self.may_hedge(scene.balancer.policy.hedging) {
            return None;
        }
        let mut underway = self.runs.iter().filter_map(|run| run.underway());
        let set = &scene.balancer.set;
        let reason = if underway.all(|(picked, _)| set.is_forsaken(picked)) {
            Reason::Forsaken
        } else {
            Reason::Late
        };
        if !hedge::is_bearable(set.crowd(&scene.load), reason) {
            return None;
        }
        let picked = self.beside(scene)?;
        scene.budget.withdraw(scene.now).then_some(picked)
    }

    /// Another endpoint than those that have failed it or have it.
    fn beside<E, L: Fn(&E) -> Load>(&self, scene: &mut Scene<'_, E, L>) -> Option<Picked> {
        self.free_lane()?;
        let mut not = self.failed.clone();
        let underway = self.runs.iter().filter_map(|run| run.underway());
        not.extend(underway.map(|(picked, _)| picked.tag));
        let need = self.need(scene.wish, scene.traits, &not);
        let set = &mut scene.balancer.set;
        set.choose_beside(scene.now, scene.random, &need, &scene.load)
    }

    /// Whether a request that was sent may be sent once more.
    fn may_repeat<E, L>(
        &self,
        scene: &mut Scene<'_, E, L>,
        failure: FailureKind,
        body: Body,
    ) -> bool {
        let attempted = Attempted {
            method: self.demand.safety,
            body,
            failure,
            tries: self.sent,
        };
        scene.balancer.policy.retrying == Retrying::On
            && attempted.verdict() == RetryVerdict::Retry
            && scene.budget.withdraw(scene.now)
    }

    /// Ends a try that has failed.
    fn fail<E, L: Fn(&E) -> Load>(
        &mut self,
        scene: &mut Scene<'_, E, L>,
        lane: Lane,
        outcome: Outcome,
    ) {
        if let Some((picked, since)) = self.runs[lane.0].underway() {
            self.learn(scene, picked, since, outcome);
            self.failed.push(picked.tag);
            self.runs[lane.0] = Run::Idle;
        }
    }

    /// Ends a try because another, begun at `winner_since`, is better.
    fn leave_behind<E, L: Fn(&E) -> Load>(
        &mut self,
        scene: &mut Scene<'_, E, L>,
        lane: Lane,
        winner_since: Instant,
    ) {
        match self.runs[lane.0] {
            // A later one than the winner had no fair chance, and speaks against nobody.
            Run::Sent { picked, since } if since < winner_since => {
                self.learn(scene, picked, since, Outcome::Overtaken);
            }
            Run::Reaching { since, .. }
                if since < winner_since && scene.now.since(since) >= CONNECT_PATIENCE =>
            {
                self.fail(scene, lane, Outcome::ConnectFailed);
            }
            Run::Idle | Run::Reaching { .. } | Run::Sent { .. } => {}
        }
        self.runs[lane.0] = Run::Idle;
    }

    fn learn<E, L: Fn(&E) -> Load>(
        &self,
        scene: &mut Scene<'_, E, L>,
        picked: Picked,
        since: Instant,
        outcome: Outcome,
    ) {
        let took = scene.now.since(since).saturating_sub(self.excused);
        match outcome {
            Outcome::Answered | Outcome::ServerError | Outcome::Overtaken => {
                scene.balancer.recent.observe(scene.now, took);
            }
            Outcome::GatewayError | Outcome::ConnectFailed => {}
        }
        let set = &mut scene.balancer.set;
        let waiting = set
            .get(picked)
            .map_or(0, |endpoint| (scene.load)(endpoint).waiting);
        let tried = Try {
            outcome,
            sent: since,
            jitter: fraction(mix(scene.random, u64::from(self.tries))),
        };
        let verdict = set.learn(scene.now, picked, took, tried, waiting);
        (scene.learnt)(Learnt {
            picked,
            outcome,
            verdict,
        });
    }

    /// After a delivery or a refusal nothing is under way, and no place is held.
    fn close<E, L>(&mut self, scene: &mut Scene<'_, E, L>, next: Next) {
        match next {
            Next::Begin(..) | Next::Wait(_) => {}
            Next::Deliver(_) | Next::Refuse(_) => self.abandon(scene.balancer),
        }
    }

    fn leave_line<E>(&mut self, balancer: &mut Balancer<E>) {
        if let Place::InLine { ticket, .. } = self.place {
            balancer.line.leave(ticket);
            self.place = Place::Underway;
        }
    }

    fn plan<E, L>(&mut self, scene: &mut Scene<'_, E, L>) {
        self.wake = match self.place {
            Place::Over => Instant::NEVER,
            Place::Resting { until } => until,
            Place::InLine { ticket, until } => {
                if scene.balancer.line.first(scene.now) == Some(ticket) {
                    scene.now.after(LINE_LOOK).min(until)
                } else {
                    until
                }
            }
            Place::Underway => self.second_due(scene),
        };
    }

    /// When a try beside the others is to be thought of.
    fn second_due<E, L>(&self, scene: &mut Scene<'_, E, L>) -> Instant {
        let underway = self.runs.iter().filter_map(|run| run.underway());
        let Some(latest) = underway.map(|(_, since)| since).max() else {
            return Instant::NEVER;
        };
        let policy = scene.balancer.policy;
        let wait = if self.runs.iter().any(|run| run.is_sent()) {
            if !self.may_hedge(policy.hedging) {
                return Instant::NEVER;
            }
            let after = scene.balancer.hedge_after(scene.now);
            match scene.wish.bond {
                Bond::Free => after,
                // Whoever stays with an instance is not moved for some milliseconds.
                Bond::Held(_) | Bond::By(_) => after.max(HEDGE_AFTER_UNKNOWN),
            }
        } else {
            match policy.patience {
                Patience::Short if self.free_lane().is_some() => CONNECT_PATIENCE,
                Patience::Short | Patience::Endless => return Instant::NEVER,
            }
        };
        self.reconsider.unwrap_or_else(|| latest.after(wait))
    }

    fn may_hedge(&self, hedging: Hedging) -> bool {
        let underway = self.runs.iter().filter_map(|run| run.underway());
        let copies = u32::try_from(underway.count()).unwrap_or(u32::MAX);
        hedging == Hedging::On
            && self.is_hedgeable()
            && self.free_lane().is_some()
            && self.sent.saturating_add(copies) < TRIES_MAX
    }

    fn is_hedgeable(&self) -> bool {
        self.demand.safety == MethodSafety::Safe && self.demand.content == Content::Bare
    }

    fn need<'a, E>(
        &self,
        wish: Wish,
        traits: &'a dyn Fn(&E) -> Traits,
        not: &'a [Tag],
    ) -> Need<'a, E> {
        Need {
            not,
            probing: if self.is_hedgeable() {
                Probing::Repeatable
            } else {
                Probing::Once
            },
            priority: Priority::Normal,
            wish,
            traits,
        }
    }

    fn waits_for(&self) -> Next {
        Next::Wait(match self.place {
            Place::InLine { ticket, .. } => For::Turn(ticket),
            Place::Resting { .. } => For::Change,
            Place::Underway | Place::Over => For::Answer,
        })
    }

    fn is_underway(&self) -> bool {
        self.runs.iter().any(|run| *run != Run::Idle)
    }

    fn free_lane(&self) -> Option<Lane> {
        Lane::ALL.into_iter().find(|lane| !self.runs(*lane))
    }
}

#[cfg(test)]
mod tests;
