//! Who counts what clients saw.

use std::time::Duration;

use mainstay_control::balance::{
    Defeat, LANES, Learnt, Load, Outcome, Priority, TRIES_MAX, Why, ejection::Verdict, limit,
};
use mainstay_ids::Instant;

use super::plot::{INSTANCES, Plot, Strike, Trouble, WATCHED};
use super::promise::{EntryPromise, Hurt};
use super::worker::{Ending, Loads, Request, Worker};
use crate::tally::Tally;

/// A try that begins.
pub(super) struct Sending {
    pub(super) worker: usize,
    pub(super) endpoint: usize,
    pub(super) method: &'static str,
    pub(super) why: Why,
    pub(super) load: Load,
}

/// A client is to have its answer within this, whatever happens to one instance.
const SOON: Duration = Duration::from_millis(300);
/// And within this, whatever happens to two: of a service of which nothing is known a second copy goes
/// out after 100 ms, and a third after 100 more.
const SOON_OF_TWO: Duration = Duration::from_millis(500);
/// In an overload: a second in the line and half of one for chance, and what the first limit lets wait
/// inside of an instance. That depends on what the instance can do: no bound in seconds holds for all,
/// since a limit of 200 that nobody has lowered yet is more than three seconds of two slots that take
/// 33 ms each.
const IN_LINE: Duration = Duration::from_millis(1_500);
const INSIDE: u32 = 220;
/// A lower limit is found by so many windows, and each takes a tenth away at most; then no more wait
/// inside. It does not matter what was known before the overload.
const WINDOWS: u32 = 25;
const FOUND: u32 = 100;
/// After so long a sick instance is sent nothing but probes.
const NOTICED: Duration = Duration::from_millis(150);
/// Of two it shows only when the third has answered.
const NOTICED_OF_TWO: Duration = Duration::from_millis(350);
/// A worker begins one probe after each ejection, of which the shortest is a second. Two for
/// those that were on their way.
const PROBES: u32 = 2;
/// Whoever came back at the last moment warms up from a tenth of a third. Where all are good and hardly
/// loaded, which of them gets most is chance for many seconds; what comes back gets over all runs is
/// looked at by their test.
const SHARE_BACK: f64 = 0.005;

/// What is known of one instance.
#[derive(Debug, Clone, Copy, Default)]
struct Patient {
    troubled: bool,
    dead: bool,
    /// Tries that began when everybody should have known that it is mute.
    late_sendings: u32,
}

/// What one worker did with one instance.
#[derive(Debug, Clone, Copy, Default)]
struct Regard {
    /// It knows that the instance says nothing.
    suspects: bool,
    /// Tries since its trouble ended.
    after: u32,
    /// And of those, the ones at the end.
    at_the_end: u32,
}

pub(super) struct Judge {
    plot: Plot,
    pub(super) hurt: Vec<Hurt>,
    pub(super) tally: Tally,
    patients: [Patient; INSTANCES],
    /// By worker.
    regards: Vec<[Regard; INSTANCES]>,
    requests: u32,
    extra: u32,
    ejected: u32,
    worst: Duration,
    answered_in_overload: u32,
    overloaded: u32,
}

impl Judge {
    pub(super) fn new(plot: Plot) -> Self {
        Self {
            plot,
            hurt: Vec::new(),
            tally: Tally::default(),
            patients: [Patient::default(); INSTANCES],
            regards: vec![[Regard::default(); INSTANCES]; plot.workers],
            requests: 0,
            extra: 0,
            ejected: 0,
            worst: Duration::ZERO,
            answered_in_overload: 0,
            overloaded: 0,
        }
    }

    pub(super) fn trouble_began(&mut self, instance: usize) {
        self.patients[instance].troubled = true;
    }

    pub(super) fn trouble_ended(&mut self, instance: usize) {
        self.patients[instance].troubled = false;
    }

    pub(super) fn declared_dead(&mut self, instance: usize) {
        self.patients[instance].dead = true;
    }

    pub(super) fn begun(&mut self, now: Instant, sending: &Sending) {
        match sending.why {
            Why::First => self.requests += 1,
            Why::Hedge => {
                self.extra += 1;
                self.tally.count("hedge");
            }
            Why::Again => self.tally.count("retry"),
            Why::Impatience => self.tally.count("second connect"),
        }
        self.watch(now, sending);
        let overload = self.plot.first.trouble == Trouble::Overload;
        let found = overload && self.troubled_for(now) > self.limit_found_after();
        if found && sending.load.waiting > FOUND || sending.load.waiting > 1_101 {
            let load = sending.load;
            self.break_it(EntryPromise::ShedsWell, || {
                format!("{load:?} at one instance")
            });
        }
    }

    /// A try that begins at an instance that is or was in trouble.
    fn watch(&mut self, now: Instant, sending: &Sending) {
        let Sending {
            worker,
            endpoint,
            method,
            ..
        } = *sending;
        let Some(Strike { trouble, from }) = self.plot.strike(endpoint) else {
            return;
        };
        let since_start = now.since_start();
        let regard = &mut self.regards[worker][endpoint];
        regard.after += u32::from(since_start >= self.plot.until());
        regard.at_the_end += u32::from(since_start + WATCHED >= self.plot.ends);
        let noticed = if self.plot.second.is_some() {
            NOTICED_OF_TWO
        } else {
            NOTICED
        };
        let known = self.regards[worker][endpoint].suspects;
        let patient = &mut self.patients[endpoint];
        if patient.troubled && trouble.holds() && known && method != "GET" {
            self.break_it(EntryPromise::ProbesCanMove, || {
                format!(
                    "a {method} went to an instance that is known to be mute at {since_start:?}"
                )
            });
        }
        let patient = &mut self.patients[endpoint];
        if patient.dead {
            self.break_it(EntryPromise::LeftAlone, || {
                "a dead instance was chosen".into()
            });
        } else if patient.troubled && trouble.is_mute() && since_start > from + noticed {
            // A second copy at it keeps nobody from the answer to the first.
            patient.late_sendings += u32::from(sending.why != Why::Hedge);
        }
    }

    /// How long so many windows take: each has its least time, and its least answers for each worker.
    fn limit_found_after(&self) -> Duration {
        let Plot {
            work,
            slots,
            workers,
            ..
        } = self.plot;
        let answers = work.mul_f64(f64::from(limit::SAMPLES_MIN) * workers as f64 / slots as f64);
        answers.max(limit::WINDOW) * WINDOWS
    }

    fn troubled_for(&self, now: Instant) -> Duration {
        now.since_start().saturating_sub(self.plot.first.from)
    }

    /// What may have an effect is at one instance at a time.
    pub(super) fn sent(&mut self, now: Instant, endpoint: usize, request: &Request) {
        let (method, at) = (request.method, now.since_start());
        let sent = request.tries.iter().flatten().filter(|one| one.sent);
        let out = sent.count();
        if method != "GET" && out > 1 {
            self.break_it(EntryPromise::NothingTwice, || {
                format!("a {method} is out {out} times at {at:?}")
            });
        }
        let sendings = request.sendings;
        if method == "POST" && sendings > 1 {
            self.break_it(EntryPromise::NothingTwice, || {
                format!("a POST was sent {sendings} times at {at:?}")
            });
        }
        let here = request.tries.iter().flatten();
        let here = here.filter(|one| one.endpoint == endpoint).count();
        if here > 1 || sendings > TRIES_MAX || out > LANES {
            self.break_it(EntryPromise::FewCopies, || {
                format!("a {method} was sent {sendings} times, {here} are at one instance")
            });
        }
    }

    pub(super) fn learnt(&mut self, worker: usize, endpoint: Option<usize>, learnt: Learnt) {
        let troubled = endpoint.is_some_and(|endpoint| self.patients[endpoint].troubled);
        let mut none = Regard::default();
        let regard = match endpoint {
            Some(endpoint) => &mut self.regards[worker][endpoint],
            None => &mut none,
        };
        match learnt.verdict {
            Verdict::Ejected { .. } => {
                regard.suspects = troubled && learnt.outcome == Outcome::Overtaken;
                self.ejected += 1;
                self.tally.count(match learnt.outcome {
                    Outcome::Overtaken => "suspected",
                    Outcome::ConnectFailed => "unreachable",
                    Outcome::Answered | Outcome::ServerError | Outcome::GatewayError => "sick",
                });
            }
            Verdict::Returned => {
                regard.suspects = false;
                self.tally.count("returned");
            }
            Verdict::OnTrial | Verdict::Unchanged => {}
        }
    }

    pub(super) fn ended(&mut self, now: Instant, request: &Request) {
        let Some((_, ending)) = request.ended else {
            return;
        };
        let took = now.since(request.came);
        match ending {
            Ending::Answered(status) => {
                let since = now.since_start();
                let during = since >= self.plot.first.from && since < self.plot.until();
                self.answered_in_overload += u32::from(during);
                if request.method == "GET" {
                    self.worst = self.worst.max(took);
                    if status != 200 {
                        self.break_it(EntryPromise::NoneFails, || format!("a GET got {status}"));
                    }
                }
            }
            Ending::Refused(defeat) => self.refused(request, defeat, took),
        }
        let slow = if self.plot.second.is_some() {
            SOON_OF_TWO
        } else if self.plot.first.trouble == Trouble::Overload {
            let slots = u32::try_from(self.plot.slots).unwrap_or(1);
            IN_LINE + self.plot.work * INSIDE / slots
        } else {
            SOON
        };
        if request.method == "GET" && took >= slow {
            let came = request.came.since_start();
            self.break_it(EntryPromise::NoneHangs, || {
                format!("a GET that came at {came:?} took {took:?}")
            });
        }
    }

    fn refused(&mut self, request: &Request, defeat: Defeat, took: Duration) {
        if self.plot.first.trouble == Trouble::Overload && defeat == Defeat::Overloaded {
            self.overloaded += 1;
            if request.priority == Priority::Spared {
                self.break_it(EntryPromise::ShedsWell, || "a check was refused".into());
            }
            return;
        }
        let promise = if request.method == "GET" {
            EntryPromise::NoneFails
        } else if request.was_at_the_sick {
            self.tally.count("lost with the instance");
            return;
        } else {
            EntryPromise::NoneElsewhere
        };
        let method = request.method;
        self.break_it(promise, || {
            format!("a {method} got {defeat:?} after {took:?}")
        });
    }

    pub(super) fn close(&mut self, requests: &[Request], loads: Loads, workers: &[Worker]) {
        for request in requests {
            self.check_effects(request);
        }
        self.check_clean(requests, loads, workers);
        let seconds = self.plot.ends.as_secs_f64().ceil() as u32 + 1;
        let workers = u32::try_from(workers.len()).unwrap_or(1);
        let most = self.requests / 5 + workers * (100 + 10 * seconds);
        if self.extra > most {
            let extra = self.extra;
            self.break_it(EntryPromise::WithinBudget, || {
                format!("{extra} of {most} second copies")
            });
        }
        let probes = workers * (PROBES + self.plot.lasts.as_secs_f64() as u32);
        for endpoint in 0..INSTANCES {
            let count = self.patients[endpoint].late_sendings;
            if count > probes {
                self.break_it(EntryPromise::LeftAlone, || {
                    format!("{count} requests went to an instance that is mute, {probes} may")
                });
            }
            if let Some(strike) = self.plot.strike(endpoint) {
                self.check_return(endpoint, strike.trouble);
            }
        }
        match self.plot.first.trouble {
            Trouble::None => self.check_the_well(),
            Trouble::Overload => self.check_overload(),
            Trouble::Frozen
            | Trouble::FrozenThenDead
            | Trouble::Flapping
            | Trouble::BlackHole
            | Trouble::Killed
            | Trouble::Restarting
            | Trouble::LateConnects
            | Trouble::Slow
            | Trouble::Erroring => {}
        }
        self.tally.count(self.plot.first.trouble.name());
        if self.plot.second.is_some() {
            self.tally.count("two at once");
        }
    }

    fn check_effects(&mut self, request: &Request) {
        let method = request.method;
        let count = request.effects.len();
        if method == "POST" && count > 1 {
            self.break_it(EntryPromise::NothingTwice, || {
                format!("a POST was carried out {count} times")
            });
        }
        let Some((ended, Ending::Answered(_))) = request.ended else {
            return;
        };
        let late = request.effects.iter().any(|(_, at)| *at > ended);
        if method != "GET" && late {
            self.break_it(EntryPromise::NothingTwice, || {
                format!("a {method} was carried out again after its client had its answer")
            });
        }
    }

    fn check_clean(&mut self, requests: &[Request], loads: Loads, workers: &[Worker]) {
        // Whoever was sent to a frozen instance that died in secret waits for what no test waits for.
        let open = requests.iter().filter(|one| one.ended.is_none()).count();
        let counted: u32 = loads.iter().map(|load| load.in_flight).sum();
        let standing: usize = workers.iter().map(|one| one.balancer.line().len()).sum();
        let waiting: u32 = loads.iter().map(|load| load.waiting).sum();
        if counted as usize != open || waiting as usize != open || standing > 0 || open > 0 {
            self.break_it(EntryPromise::Clean, || {
                format!("{open} open, {counted} counted, {waiting} waiting, {standing} in line")
            });
        }
    }

    fn check_the_well(&mut self) {
        let (ejected, extra, requests) = (self.ejected, self.extra, self.requests);
        // One in twenty, and as many as chance may add; and those of the time before it is known.
        if extra > requests / 12 + 30 {
            self.break_it(EntryPromise::LeavesTheWellAlone, || {
                format!("{extra} of {requests} were sent twice")
            });
        }
        if ejected > 1 {
            self.break_it(EntryPromise::LeavesTheWellAlone, || {
                format!("{ejected} ejections")
            });
        }
    }

    fn check_return(&mut self, endpoint: usize, trouble: Trouble) {
        if trouble.forgiven_after().is_none() {
            return;
        }
        let quiet = self.plot.ends.saturating_sub(self.plot.until());
        let pause = self.plot.pause_at(self.plot.ends) * self.plot.workers as u32;
        let all = |time: Duration| time.as_secs_f64() / pause.as_secs_f64();
        for worker in 0..self.plot.workers {
            let Regard {
                after, at_the_end, ..
            } = self.regards[worker][endpoint];
            if f64::from(after) < all(quiet) * SHARE_BACK {
                let all = all(quiet);
                self.break_it(EntryPromise::ComesBack, || {
                    format!("of {all:.0} requests {after} went to one that is well again")
                });
            }
            let fair = all(WATCHED) / INSTANCES as f64;
            self.tally
                .count_all("to one that came back", at_the_end.into());
            self.tally.count_all("its third would be", fair as u64);
        }
    }

    fn check_overload(&mut self) {
        let plot = self.plot;
        let per_second = (plot.slots * 3) as f64 / plot.work.as_secs_f64();
        let could = per_second * plot.lasts.as_secs_f64();
        let answered = self.answered_in_overload;
        // What the instances can do, less what the limit leaves idle while it is found; second copies
        // are work, too, and go out until the answers are known to be late because of the load.
        if f64::from(answered + self.extra) < could * 0.7 {
            self.break_it(EntryPromise::ShedsWell, || {
                format!("{answered} were answered where {could:.0} could be")
            });
        }
        self.tally.count("overload run");
        if self.overloaded > 0 {
            self.tally.count("overload shed");
        }
    }

    fn break_it(&mut self, promise: EntryPromise, what: impl FnOnce() -> String) {
        // The first of a kind says it; hundreds may follow.
        if !self.hurt.iter().any(|hurt| hurt.promise == promise) {
            self.hurt.push(Hurt {
                promise,
                what: what(),
            });
        }
    }
}
