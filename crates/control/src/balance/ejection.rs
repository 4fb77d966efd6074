//! Endpoints that fail in front of us get no traffic for a while, before any probe has noticed.
//!
//! Two kinds of proof, two measures. A connection that cannot be made is certain and costs the
//! request only a retry: one is enough, for a short time, and without a limit on how many endpoints
//! it hits. The centre's own verdict takes about 100 ms; until then a dead instance costs each
//! worker one failed connect, not one in three requests. Bad answers are weak proof (perhaps it was
//! the request): five in a row, for longer, and for half of the endpoints at most.

use core::time::Duration;

use mainstay_ids::Instant;

/// So many gateway-type failures in a row eject an endpoint.
pub const FAILURES_IN_A_ROW: u32 = 5;
/// How long the first ejection for bad answers lasts; the n-th in a row lasts n times as long.
pub const SICK_BASE: Duration = Duration::from_secs(10);
/// The longest ejection for bad answers.
pub const SICK_MAX: Duration = Duration::from_mins(5);
/// How long the first ejection for a failed connect lasts: a process that restarts on the same port
/// is back soon, and trying again costs a connect.
pub const UNREACHABLE_BASE: Duration = Duration::from_secs(1);
/// The longest ejection for failed connects.
pub const UNREACHABLE_MAX: Duration = Duration::from_secs(10);

/// What became of one try, as far as it speaks about the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It answered, and the answer is its own: anything but 5xx.
    Answered,
    /// It answered with a 5xx of its own making.
    ServerError,
    /// It answered 502, 503 or 504, broke off, or did not answer in time.
    GatewayError,
    /// No connection came about.
    ConnectFailed,
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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many gateway-type failures in a row.
    In { failures: u32 },
    Out {
        cause: Cause,
        since: Instant,
        until: Instant,
    },
    /// Back after an ejection; its next outcome decides.
    OnProbation { cause: Cause },
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
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            state: State::In { failures: 0 },
            times_in_a_row: 0,
        }
    }
}

impl Ejection {
    /// Why it is out at present.
    pub fn cause(&self) -> Option<Cause> {
        match self.state {
            State::Out { cause, .. } => Some(cause),
            State::In { .. } | State::OnProbation { .. } => None,
        }
    }

    /// When the ejection ends.
    pub fn until(&self) -> Option<Instant> {
        match self.state {
            State::Out { until, .. } => Some(until),
            State::In { .. } | State::OnProbation { .. } => None,
        }
    }

    /// Ends the ejection if its time is over.
    pub fn tick(&mut self, now: Instant) -> Verdict {
        match self.state {
            State::Out { cause, until, .. } if until <= now => {
                self.state = State::OnProbation { cause };
                Verdict::Returned
            }
            State::Out { .. } | State::In { .. } | State::OnProbation { .. } => Verdict::Unchanged,
        }
    }

    /// Takes in what became of a try.
    pub fn handle(&mut self, now: Instant, tried: Try, room: Room) -> Verdict {
        match tried.outcome {
            Outcome::ConnectFailed => self.connect_failed(now, tried),
            Outcome::GatewayError => self.answered_badly(now, tried, room),
            Outcome::Answered | Outcome::ServerError => self.answered(tried),
        }
    }

    fn connect_failed(&mut self, now: Instant, tried: Try) -> Verdict {
        match self.state {
            // Sent before it was known: the ejection is not made longer for it.
            State::Out { since, .. } if tried.sent <= since => Verdict::Unchanged,
            State::Out { .. } | State::In { .. } | State::OnProbation { .. } => {
                self.eject(now, Cause::Unreachable, tried.jitter)
            }
        }
    }

    fn answered_badly(&mut self, now: Instant, tried: Try, room: Room) -> Verdict {
        match (self.state, room) {
            (State::Out { .. }, _) => Verdict::Unchanged,
            (State::OnProbation { cause: Cause::Sick }, Room::Left) => {
                self.eject(now, Cause::Sick, tried.jitter)
            }
            (State::In { failures }, Room::Left) if failures + 1 >= FAILURES_IN_A_ROW => {
                self.eject(now, Cause::Sick, tried.jitter)
            }
            (State::In { failures }, _) => {
                self.state = State::In {
                    failures: failures.saturating_add(1),
                };
                Verdict::Unchanged
            }
            // It can be connected to again, which is what it was out for.
            (State::OnProbation { .. }, _) => {
                self.state = State::In { failures: 1 };
                Verdict::Unchanged
            }
        }
    }

    fn answered(&mut self, tried: Try) -> Verdict {
        let verdict = match self.state {
            // An answer to an old request does not show that a new one would be answered.
            State::Out { since, .. } if tried.sent <= since => return Verdict::Unchanged,
            State::Out { .. } => Verdict::Returned,
            State::In { .. } | State::OnProbation { .. } => Verdict::Unchanged,
        };
        *self = Self::default();
        verdict
    }

    fn eject(&mut self, now: Instant, cause: Cause, jitter: f64) -> Verdict {
        self.times_in_a_row = self.times_in_a_row.saturating_add(1);
        let (base, longest) = match cause {
            Cause::Sick => (SICK_BASE, SICK_MAX),
            Cause::Unreachable => (UNREACHABLE_BASE, UNREACHABLE_MAX),
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
        assert_eq!(ejection.tick(at(10)), Verdict::Returned);
        let again = ejection.handle(at(10), tried(Outcome::GatewayError, 10), Room::Left);
        assert_eq!(again, Verdict::Ejected { until: at(30) });
        ejection.tick(at(30));
        ejection.handle(at(31), tried(Outcome::Answered, 30), Room::Left);
        assert_eq!(ejection, Ejection::default(), "a success forgets all");
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
}
