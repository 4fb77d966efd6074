//! Who counts what clients saw.

use std::fmt;
use std::time::Duration;

use mainstay_control::balance::{Defeat, Learnt, Load, Outcome, Priority, Why};
use mainstay_ids::Instant;

use super::plot::{Plot, Trouble};
use super::worker::{Ending, Loads, Request, Worker};
use crate::tally::Tally;

/// What clients may rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryPromise {
    /// No safe request fails because of one instance.
    NoneFails,
    /// And none takes 300 ms because of it.
    NoneHangs,
    /// What may have an effect is carried out once, and not after its client was told.
    NothingTwice,
    /// What was never at the sick instance is answered, whatever its method.
    NoneElsewhere,
    /// The sick instance is soon sent nothing but what shows how it is.
    LeftAlone,
    /// An instance that is well again gets requests again.
    ComesBack,
    /// Repeats and second copies stay within their budget.
    WithinBudget,
    /// While all are well, nothing is refused and hardly anything sent twice.
    LeavesTheWellAlone,
    /// In an overload what can be done is done, nobody waits for long, and checks are answered.
    ShedsWell,
    /// All that was counted as under way has ended, and nobody stands in a line.
    Clean,
}

impl EntryPromise {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoneFails => "none-fails",
            Self::NoneHangs => "none-hangs",
            Self::NothingTwice => "nothing-twice",
            Self::NoneElsewhere => "none-elsewhere",
            Self::LeftAlone => "left-alone",
            Self::ComesBack => "comes-back",
            Self::WithinBudget => "within-budget",
            Self::LeavesTheWellAlone => "leaves-the-well-alone",
            Self::ShedsWell => "sheds-well",
            Self::Clean => "clean",
        }
    }
}

/// A promise that was broken.
#[derive(Debug, Clone)]
pub struct Hurt {
    /// Which.
    pub promise: EntryPromise,
    /// How.
    pub what: String,
}

impl fmt::Display for Hurt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise.name(), self.what)
    }
}

/// A try that begins.
pub(super) struct Sending {
    pub(super) endpoint: usize,
    pub(super) why: Why,
    pub(super) load: Load,
}

/// A client is to have its answer within this, whatever happens to one instance.
const SOON: Duration = Duration::from_millis(300);
/// In an overload: a second in the line, and what a limit lets wait inside of an instance; that has
/// to be found first.
const LATE: Duration = Duration::from_millis(3_500);
const LIMIT_FOUND: Duration = Duration::from_secs(4);
const LATE_AT_FIRST: Duration = Duration::from_millis(4_500);
/// After so long a sick instance is sent nothing but probes.
const NOTICED: Duration = Duration::from_millis(150);
/// A worker begins one probe after each ejection, of which the shortest is a second. Two for
/// those that were on their way.
const PROBES: u32 = 2;
/// An instance that is well is used again within so much.
const BACK: Duration = Duration::from_millis(2_500);

pub(super) struct Judge {
    plot: Plot,
    pub(super) hurt: Vec<Hurt>,
    pub(super) tally: Tally,
    troubled: bool,
    dead: bool,
    requests: u32,
    extra: u32,
    late_sendings: u32,
    ejected: u32,
    after_the_trouble: u32,
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
            troubled: false,
            dead: false,
            requests: 0,
            extra: 0,
            late_sendings: 0,
            ejected: 0,
            after_the_trouble: 0,
            worst: Duration::ZERO,
            answered_in_overload: 0,
            overloaded: 0,
        }
    }

    pub(super) fn trouble_began(&mut self) {
        self.troubled = true;
    }

    pub(super) fn trouble_ended(&mut self) {
        self.troubled = false;
    }

    pub(super) fn declared_dead(&mut self) {
        self.dead = true;
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
        let since = now.since_start().saturating_sub(self.plot.from);
        if sending.endpoint == 0 && self.plot.trouble.is_mute() {
            if self.dead {
                self.break_it(EntryPromise::LeftAlone, || {
                    "a dead instance was chosen".into()
                });
            } else if self.troubled && since > NOTICED {
                self.late_sendings += 1;
            }
        }
        let after = now.since_start().saturating_sub(self.plot.until());
        self.after_the_trouble += u32::from(sending.endpoint == 0 && !after.is_zero());
        if sending.load.waiting > 1_101 {
            let load = sending.load;
            self.break_it(EntryPromise::ShedsWell, || {
                format!("{load:?} at one instance")
            });
        }
    }

    /// What may have an effect is at one instance at a time.
    pub(super) fn sent(&mut self, now: Instant, request: &Request) {
        let out = request
            .tries
            .iter()
            .flatten()
            .filter(|one| one.sent)
            .count();
        if request.method != "GET" && out > 1 {
            let method = request.method;
            self.break_it(EntryPromise::NothingTwice, || {
                format!("a {method} is out {out} times at {:?}", now.since_start())
            });
        }
    }

    pub(super) fn learnt(&mut self, _endpoint: Option<usize>, learnt: Learnt) {
        if let mainstay_control::balance::ejection::Verdict::Ejected { .. } = learnt.verdict {
            self.ejected += 1;
            self.tally.count(match learnt.outcome {
                Outcome::Overtaken => "suspected",
                Outcome::ConnectFailed => "unreachable",
                Outcome::Answered | Outcome::ServerError | Outcome::GatewayError => "sick",
            });
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
                let during = since >= self.plot.from && since < self.plot.until();
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
        let overloaded_for = request.came.since_start().saturating_sub(self.plot.from);
        let slow = if self.plot.trouble == Trouble::Overload {
            if overloaded_for > LIMIT_FOUND {
                LATE
            } else {
                LATE_AT_FIRST
            }
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
        if self.plot.trouble == Trouble::Overload && defeat == Defeat::Overloaded {
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
        if self.late_sendings > probes {
            let count = self.late_sendings;
            self.break_it(EntryPromise::LeftAlone, || {
                format!("{count} requests went to an instance that is mute, {probes} may")
            });
        }
        match self.plot.trouble {
            Trouble::None => self.check_the_well(),
            Trouble::Overload => self.check_overload(),
            Trouble::Frozen | Trouble::BlackHole | Trouble::Killed | Trouble::Flapping => {
                self.check_return();
            }
            Trouble::FrozenThenDead | Trouble::Slow | Trouble::Erroring => {}
        }
        self.tally.count(self.plot.trouble.name());
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
        let late = request.effects.iter().any(|at| *at > ended);
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

    fn check_return(&mut self) {
        let time = self.plot.ends.saturating_sub(self.plot.until());
        let expected = time.saturating_sub(BACK).as_secs_f64() / self.plot.pause.as_secs_f64();
        // It warms up from a tenth of its share.
        if time > BACK && f64::from(self.after_the_trouble) < expected * 0.01 {
            let count = self.after_the_trouble;
            self.break_it(EntryPromise::ComesBack, || {
                format!("{count} requests to an instance that has been well for {time:?}")
            });
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
