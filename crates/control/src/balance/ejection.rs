//! Endpoints that fail in front of us get no traffic for a while, before any probe has noticed.
//!
//! Three kinds of proof, three measures. A connection that cannot be made is certain and costs the
//! request only a retry: one is enough, for a short time, and without a limit on how many endpoints
//! it hits. The centre's own verdict takes about 100 ms; until then a dead instance costs each
//! worker one failed connect, not one in three requests. An instance that is frozen, or that a
//! network swallows, says nothing at all: it is suspected when several requests in a row were
//! answered elsewhere meanwhile, and not one here. Bad answers are weak proof (perhaps it was the
//! request): five in a row, for longer, and for half of the endpoints at most.
//!
//! After an ejection an endpoint is on probation: it gets one request at a time, and its outcome
//! decides. To one that is suspected goes only a request that can be sent elsewhere meanwhile.

use core::time::Duration;

use mainstay_ids::Instant;

/// So many gateway-type failures in a row eject an endpoint (Envoy: `consecutive_gateway_failure` 5).
pub const FAILURES_IN_A_ROW: u32 = 5;
/// How long the first ejection for bad answers lasts; the n-th in a row lasts n times as long.
/// Envoy takes 30 s and 10 % of the endpoints; with few endpoints, each is needed back earlier.
pub const SICK_BASE: Duration = Duration::from_secs(10);
/// The longest ejection for bad answers (Envoy: `max_ejection_time`).
pub const SICK_MAX: Duration = Duration::from_mins(5);
/// How long the first ejection for a failed connect lasts: a process that restarts on the same port
/// is back soon, and trying again costs a connect.
pub const UNREACHABLE_BASE: Duration = Duration::from_secs(1);
/// The longest ejection for failed connects.
pub const UNREACHABLE_MAX: Duration = Duration::from_secs(10);
/// So many requests in a row that were answered elsewhere first, and none here, make an endpoint
/// suspected. Of a healthy one, one in twenty is overtaken, so three in a row come once in eight
/// thousand requests, and hardly ever with a silence as long as this:
pub const OVERTAKEN_IN_A_ROW: u32 = 3;
/// An endpoint that has sent the head of an answer within this time is not frozen. Longer than the
/// pauses that a busy machine makes of its own; short against the 300 ms in which a client is to
/// have its answer.
pub const SILENCE_MIN: Duration = Duration::from_millis(20);
/// How long the first suspicion lasts: a pause of a garbage collector is over by then.
pub const SUSPECT_BASE: Duration = Duration::from_secs(1);
/// The longest: so late at most is it noticed that an instance thawed.
pub const SUSPECT_MAX: Duration = Duration::from_secs(10);
/// How long one request on probation keeps others away: its client may have left, and then nobody
/// tells what became of it.
pub const PROBE_TIME: Duration = Duration::from_secs(1);
/// After so long on probation any request will do: a service that is only ever sent POSTs must get
/// its endpoints back, too.
pub const PROBE_OVERDUE: Duration = Duration::from_secs(10);

/// What became of one try, as far as it speaks about the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It answered, and the answer is its own: anything but 5xx.
    Answered,
    /// It answered with a 5xx of its own making.
    ServerError,
    /// It answered 502, 503 or 504, broke off, or did not answer in time.
    GatewayError,
    /// No connection came about, or none while a later one to another endpoint did.
    ConnectFailed,
    /// Not a byte of an answer had come when another endpoint, asked later, had answered.
    Overtaken,
}

impl Outcome {
    /// What a status says.
    pub fn of_status(status: u16) -> Self {
        match status {
            502..=504 => Self::GatewayError,
            500.. => Self::ServerError,
            _ => Self::Answered,
        }
    }
}

/// Why an endpoint gets no traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It answers badly; better than nothing when too few are left.
    Sick,
    /// It cannot be connected to; useless while another can.
    Unreachable,
    /// It takes requests and says nothing; useless while another answers.
    Suspected,
}

/// What may be sent to an endpoint on probation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probing {
    /// The request is safe and has no body: it may be sent elsewhere at any time.
    Repeatable,
    /// It may be sent once.
    Once,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    In {
        /// Gateway-type failures in a row.
        failures: u32,
        /// Requests in a row that were answered elsewhere first.
        overtaken: u32,
    },
    Out {
        cause: Cause,
        since: Instant,
        until: Instant,
    },
    /// Back after an ejection; its next outcome decides.
    OnProbation {
        cause: Cause,
        since: Instant,
        /// When the request was sent that is to show how it is.
        probe: Option<Instant>,
    },
}

impl State {
    const GOOD: Self = Self::In {
        failures: 0,
        overtaken: 0,
    };
}

/// What an outcome leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It stays as it is.
    Unchanged,
    /// It gets no traffic until then.
    Ejected {
        /// The end of the ejection.
        until: Instant,
    },
    /// It is on probation: one request at a time.
    OnTrial,
    /// It gets its traffic back.
    Returned,
}

/// Whether one more endpoint may be ejected for bad answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// It may.
    Left,
    /// As many are out as may be.
    Full,
}

impl Room {
    /// At most half of `listed` endpoints, but always one.
    pub fn of(listed: usize, sick: usize) -> Self {
        if sick < (listed / 2).max(1) {
            Self::Left
        } else {
            Self::Full
        }
    }
}

/// One try, seen from its end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Try {
    /// What became of it.
    pub outcome: Outcome,
    /// When it was sent.
    pub sent: Instant,
    /// A random number in 0..1, that lengthens an ejection by up to a tenth, so that the endpoints
    /// and workers do not come back in step.
    pub jitter: f64,
}

/// The passive health of one endpoint as one worker sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    state: State,
    times_in_a_row: u32,
    /// When the last head of an answer came, whatever it said.
    heard: Instant,
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            state: State::GOOD,
            times_in_a_row: 0,
            heard: Instant::START,
        }
    }
}

impl Ejection {
    /// Why it gets no traffic, or one request at a time, at present.
    pub fn cause(&self) -> Option<Cause> {
        match self.state {
            State::Out { cause, .. } | State::OnProbation { cause, .. } => Some(cause),
            State::In { .. } => None,
        }
    }

    /// When the ejection ends.
    pub fn until(&self) -> Option<Instant> {
        match self.state {
            State::Out { until, .. } => Some(until),
            State::In { .. } | State::OnProbation { .. } => None,
        }
    }

    /// Whether it is on probation.
    pub fn is_on_probation(&self) -> bool {
        match self.state {
            State::OnProbation { .. } => true,
            State::In { .. } | State::Out { .. } => false,
        }
    }

    /// Ends the ejection if its time is over.
    pub fn tick(&mut self, now: Instant) -> Verdict {
        match self.state {
            State::Out { cause, until, .. } if until <= now => {
                self.put_on_probation(now, cause);
                Verdict::OnTrial
            }
            State::Out { .. } | State::In { .. } | State::OnProbation { .. } => Verdict::Unchanged,
        }
    }

    /// Something else shows that it is better: its active probes pass again.
    pub fn forgive(&mut self, now: Instant) {
        match self.state {
            State::Out { cause, .. } => self.put_on_probation(now, cause),
            State::In { .. } | State::OnProbation { .. } => {}
        }
    }

    /// Whether a request may go to it to show how it is. If so, it is the only one for a while.
    pub fn take_probe(&mut self, now: Instant, probing: Probing) -> bool {
        let State::OnProbation {
            cause,
            since,
            probe,
        } = &mut self.state
        else {
            return false;
        };
        let free = probe.is_none_or(|sent| now.since(sent) >= PROBE_TIME);
        let fits = match (probing, *cause) {
            // If no connection comes about, nothing is sent.
            (Probing::Repeatable, _) | (Probing::Once, Cause::Unreachable) => true,
            (Probing::Once, Cause::Sick | Cause::Suspected) => now.since(*since) >= PROBE_OVERDUE,
        };
        if free && fits {
            *probe = Some(now);
        }
        free && fits
    }

    /// Takes in what became of a try.
    pub fn handle(&mut self, now: Instant, tried: Try, room: Room) -> Verdict {
        match tried.outcome {
            Outcome::ConnectFailed => self.connect_failed(now, tried),
            Outcome::Overtaken => self.overtaken(now, tried),
            Outcome::GatewayError => self.answered_badly(now, tried, room),
            Outcome::Answered | Outcome::ServerError => self.answered(now, tried),
        }
    }

    fn put_on_probation(&mut self, now: Instant, cause: Cause) {
        self.state = State::OnProbation {
            cause,
            since: now,
            probe: None,
        };
    }

    fn connect_failed(&mut self, now: Instant, tried: Try) -> Verdict {
        match self.state {
            // Sent before it was known: the ejection is not made longer for it.
            State::Out { since, .. } | State::OnProbation { since, .. } if tried.sent < since => {
                Verdict::Unchanged
            }
            State::Out { since, .. } if tried.sent == since => Verdict::Unchanged,
            State::Out { .. } | State::In { .. } | State::OnProbation { .. } => {
                self.eject(now, Cause::Unreachable, tried.jitter)
            }
        }
    }

    fn overtaken(&mut self, now: Instant, tried: Try) -> Verdict {
        match self.state {
            State::In {
                failures,
                overtaken,
            } => {
                let overtaken = overtaken.saturating_add(1);
                let silent = now.since(self.heard) >= SILENCE_MIN;
                if overtaken >= OVERTAKEN_IN_A_ROW && silent {
                    return self.eject(now, Cause::Suspected, tried.jitter);
                }
                self.state = State::In {
                    failures,
                    overtaken,
                };
                Verdict::Unchanged
            }
            State::OnProbation { since, .. } if tried.sent >= since => {
                self.eject(now, Cause::Suspected, tried.jitter)
            }
            State::OnProbation { .. } | State::Out { .. } => Verdict::Unchanged,
        }
    }

    fn answered_badly(&mut self, now: Instant, tried: Try, room: Room) -> Verdict {
        self.heard = self.heard.max(now);
        match (self.state, room) {
            (State::Out { .. }, _) => Verdict::Unchanged,
            (State::OnProbation { since, .. }, _) if tried.sent < since => Verdict::Unchanged,
            (
                State::OnProbation {
                    cause: Cause::Sick, ..
                },
                Room::Left,
            ) => self.eject(now, Cause::Sick, tried.jitter),
            (State::In { failures, .. }, Room::Left) if failures + 1 >= FAILURES_IN_A_ROW => {
                self.eject(now, Cause::Sick, tried.jitter)
            }
            (State::In { failures, .. }, _) => {
                self.state = State::In {
                    failures: failures.saturating_add(1),
                    overtaken: 0,
                };
                Verdict::Unchanged
            }
            // It speaks again, which is what it was out for; or too many others are out.
            (State::OnProbation { .. }, _) => {
                self.state = State::In {
                    failures: 1,
                    overtaken: 0,
                };
                Verdict::Returned
            }
        }
    }

    fn answered(&mut self, now: Instant, tried: Try) -> Verdict {
        self.heard = self.heard.max(now);
        let verdict = match self.state {
            // It thawed: it answers what it was sent before. Whether it answers new requests, one
            // will show.
            State::Out {
                cause: Cause::Suspected,
                since,
                ..
            } if tried.sent <= since => {
                self.put_on_probation(now, Cause::Suspected);
                return Verdict::OnTrial;
            }
            // An answer to an old request does not show that a new one would be answered.
            State::Out { since, .. } if tried.sent <= since => return Verdict::Unchanged,
            State::OnProbation { since, .. } if tried.sent < since => return Verdict::Unchanged,
            State::Out { .. } | State::OnProbation { .. } => Verdict::Returned,
            State::In { .. } => Verdict::Unchanged,
        };
        self.state = State::GOOD;
        self.times_in_a_row = 0;
        verdict
    }

    /// Ejects it for answers that are worse than those of the others.
    pub fn eject_outlier(&mut self, now: Instant, jitter: f64) -> Verdict {
        match self.state {
            State::In { .. } => self.eject(now, Cause::Sick, jitter),
            State::Out { .. } | State::OnProbation { .. } => Verdict::Unchanged,
        }
    }

    fn eject(&mut self, now: Instant, cause: Cause, jitter: f64) -> Verdict {
        self.times_in_a_row = self.times_in_a_row.saturating_add(1);
        let (base, longest) = match cause {
            Cause::Sick => (SICK_BASE, SICK_MAX),
            Cause::Unreachable => (UNREACHABLE_BASE, UNREACHABLE_MAX),
            Cause::Suspected => (SUSPECT_BASE, SUSPECT_MAX),
        };
        let lasts = base.saturating_mul(self.times_in_a_row).min(longest);
        let until = now.after(lasts.mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 10.0));
        self.state = State::Out {
            cause,
            since: now,
            until,
        };
        Verdict::Ejected { until }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_start(Duration::from_secs(seconds))
    }

    fn tried(outcome: Outcome, sent: u64) -> Try {
        Try {
            outcome,
            sent: at(sent),
            jitter: 0.0,
        }
    }

    #[test]
    fn five_bad_answers_in_a_row_eject_and_a_good_one_between_forgives() {
        let mut ejection = Ejection::default();
        let mut answer = |outcome| ejection.handle(at(1), tried(outcome, 1), Room::Left);
        for _ in 0..4 {
            assert_eq!(answer(Outcome::GatewayError), Verdict::Unchanged);
        }
        assert_eq!(answer(Outcome::ServerError), Verdict::Unchanged);
        for _ in 0..4 {
            assert_eq!(answer(Outcome::GatewayError), Verdict::Unchanged);
        }
        let out = Verdict::Ejected { until: at(11) };
        assert_eq!(answer(Outcome::GatewayError), out);
    }

    #[test]
    fn a_second_ejection_in_a_row_needs_one_failure_and_lasts_longer() {
        let mut ejection = Ejection::default();
        for _ in 0..5 {
            ejection.handle(at(0), tried(Outcome::GatewayError, 0), Room::Left);
        }
        assert_eq!(ejection.tick(at(9)), Verdict::Unchanged);
        assert_eq!(ejection.tick(at(10)), Verdict::OnTrial);
        let again = ejection.handle(at(10), tried(Outcome::GatewayError, 10), Room::Left);
        assert_eq!(again, Verdict::Ejected { until: at(30) });
        ejection.tick(at(30));
        ejection.handle(at(31), tried(Outcome::Answered, 30), Room::Left);
        assert_eq!(ejection.cause(), None);
        assert_eq!(ejection.times_in_a_row, 0, "a success forgets all");
    }

    #[test]
    fn one_failed_connect_ejects_at_once_and_those_sent_before_do_not_lengthen_it() {
        let mut ejection = Ejection::default();
        let out = Verdict::Ejected { until: at(6) };
        let failed = tried(Outcome::ConnectFailed, 5);
        assert_eq!(ejection.handle(at(5), failed, Room::Full), out);
        assert_eq!(
            ejection.handle(at(5), failed, Room::Full),
            Verdict::Unchanged
        );
        assert_eq!(ejection.cause(), Some(Cause::Unreachable));
        let late = tried(Outcome::Answered, 4);
        assert_eq!(ejection.handle(at(5), late, Room::Full), Verdict::Unchanged);
        let fresh = tried(Outcome::Answered, 6);
        assert_eq!(ejection.handle(at(6), fresh, Room::Full), Verdict::Returned);
    }

    #[test]
    fn at_most_half_are_ejected_for_bad_answers_but_always_one() {
        for (listed, sick, room) in [
            (1, 0, Room::Left),
            (3, 0, Room::Left),
            (3, 1, Room::Full),
            (4, 1, Room::Left),
            (4, 2, Room::Full),
        ] {
            assert_eq!(Room::of(listed, sick), room, "{sick} of {listed}");
        }
        let mut ejection = Ejection::default();
        for _ in 0..9 {
            let verdict = ejection.handle(at(0), tried(Outcome::GatewayError, 0), Room::Full);
            assert_eq!(verdict, Verdict::Unchanged);
        }
    }

    #[test]
    fn three_overtaken_in_a_row_and_no_word_make_a_suspect_and_a_word_between_does_not() {
        let ms = |ms| Instant::from_start(Duration::from_millis(ms));
        let tried = |outcome, sent| Try {
            outcome,
            sent: ms(sent),
            jitter: 0.0,
        };
        let mut ejection = Ejection::default();
        let mut told =
            |outcome, now| ejection.handle(ms(now), tried(outcome, now - 10), Room::Full);
        told(Outcome::Answered, 100);
        for _ in 0..9 {
            let verdict = told(Outcome::Overtaken, 119);
            assert_eq!(verdict, Verdict::Unchanged, "it was heard 19 ms ago");
        }
        told(Outcome::ServerError, 120);
        assert_eq!(told(Outcome::Overtaken, 150), Verdict::Unchanged);
        assert_eq!(told(Outcome::Overtaken, 150), Verdict::Unchanged);
        let out = Verdict::Ejected { until: ms(1_150) };
        assert_eq!(told(Outcome::Overtaken, 150), out);
        assert_eq!(ejection.cause(), Some(Cause::Suspected));
    }

    #[test]
    fn on_probation_there_is_one_request_at_a_time_and_only_one_that_can_go_elsewhere() {
        let mut ejection = Ejection::default();
        for _ in 0..OVERTAKEN_IN_A_ROW {
            ejection.handle(at(5), tried(Outcome::Overtaken, 4), Room::Left);
        }
        assert!(
            !ejection.take_probe(at(5), Probing::Repeatable),
            "it is out"
        );
        assert_eq!(ejection.tick(at(6)), Verdict::OnTrial);
        assert!(!ejection.take_probe(at(6), Probing::Once));
        assert!(ejection.take_probe(at(6), Probing::Repeatable));
        assert!(
            !ejection.take_probe(at(6), Probing::Repeatable),
            "one is under way"
        );
        let old = ejection.handle(at(6), tried(Outcome::Overtaken, 5), Room::Left);
        assert_eq!(old, Verdict::Unchanged, "it was sent before the probation");
        let lost = ejection.handle(at(7), tried(Outcome::Overtaken, 6), Room::Left);
        assert_eq!(
            lost,
            Verdict::Ejected { until: at(9) },
            "twice in a row, twice as long"
        );
        ejection.tick(at(9));
        assert!(ejection.take_probe(at(9), Probing::Repeatable));
        assert!(
            ejection.take_probe(at(10), Probing::Repeatable),
            "the first was not heard of again"
        );
        assert!(
            ejection.take_probe(at(19), Probing::Once),
            "nothing better comes"
        );
        let good = ejection.handle(at(19), tried(Outcome::Answered, 19), Room::Left);
        assert_eq!(good, Verdict::Returned);
    }

    #[test]
    fn a_suspect_that_answers_what_it_was_sent_before_has_thawed() {
        let mut ejection = Ejection::default();
        for _ in 0..OVERTAKEN_IN_A_ROW {
            ejection.handle(at(5), tried(Outcome::Overtaken, 4), Room::Left);
        }
        let thawed = ejection.handle(at(5), tried(Outcome::Answered, 4), Room::Left);
        assert_eq!(thawed, Verdict::OnTrial);
        assert!(ejection.take_probe(at(5), Probing::Repeatable));
    }
}
