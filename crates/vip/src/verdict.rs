//! What the death of what stands behind an address means for it. Pure.

use mainstay_ids::Instant;
use mainstay_model::vip::{DEATHS_WITHIN, OnDead, RESTART_WITHIN};
use mainstay_vrrp::Health;

/// So many in [`DEATHS_WITHIN`] are no accident.
const DEATHS: usize = 3;

/// Whether all that is tracked works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    AllWork,
    OneIsDead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Serving,
    /// Dead, and being started again: the address stays until then.
    Restarting {
        until: Instant,
    },
    Dead,
}

/// The judge of one address.
#[derive(Debug)]
pub(crate) struct Verdict {
    on_dead: OnDead,
    state: State,
    /// The last deaths, the latest first.
    deaths: [Option<Instant>; DEATHS],
}

impl Verdict {
    /// Nothing was seen to work yet.
    pub(crate) fn new(on_dead: OnDead) -> Self {
        Self {
            on_dead,
            state: State::Dead,
            deaths: [None; DEATHS],
        }
    }

    /// Takes in what is seen now, and says what that means.
    pub(crate) fn handle(&mut self, now: Instant, standing: Standing) -> Health {
        self.state = match (self.state, standing) {
            (State::Serving | State::Restarting { .. } | State::Dead, Standing::AllWork) => {
                State::Serving
            }
            (State::Serving, Standing::OneIsDead) => self.bury(now),
            (State::Restarting { until }, Standing::OneIsDead) if now < until => self.state,
            (State::Restarting { .. } | State::Dead, Standing::OneIsDead) => State::Dead,
        };
        match self.state {
            State::Serving | State::Restarting { .. } => Health::Fit,
            State::Dead => Health::Unfit,
        }
    }

    fn bury(&mut self, now: Instant) -> State {
        self.deaths.rotate_right(1);
        self.deaths[0] = Some(now);
        let often = self.deaths[DEATHS - 1].is_some_and(|first| now.since(first) < DEATHS_WITHIN);
        match self.on_dead {
            OnDead::RestartThenYield if !often => State::Restarting {
                until: now.after(RESTART_WITHIN),
            },
            OnDead::RestartThenYield | OnDead::YieldAtOnce => State::Dead,
        }
    }

    /// When it changes by itself.
    pub(crate) fn next_deadline(&self) -> Instant {
        match self.state {
            State::Restarting { until } => until,
            State::Serving | State::Dead => Instant::NEVER,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Standing::{AllWork, OneIsDead};
    use super::*;
    use std::time::Duration;

    fn ms(ms: u64) -> Instant {
        Instant::from_start(Duration::from_millis(ms))
    }

    #[test]
    fn by_default_the_address_goes_at_once_and_may_come_back() {
        let mut verdict = Verdict::new(OnDead::YieldAtOnce);
        assert_eq!(verdict.handle(ms(0), OneIsDead), Health::Unfit);
        assert_eq!(verdict.handle(ms(1), AllWork), Health::Fit);
        assert_eq!(verdict.handle(ms(2), OneIsDead), Health::Unfit);
        assert_eq!(verdict.handle(ms(3), AllWork), Health::Fit);
        assert_eq!(verdict.next_deadline(), Instant::NEVER);
    }

    #[test]
    fn a_restart_has_half_a_second_and_a_quick_one_costs_nothing() {
        let mut verdict = Verdict::new(OnDead::RestartThenYield);
        verdict.handle(ms(0), AllWork);
        assert_eq!(verdict.handle(ms(1000), OneIsDead), Health::Fit);
        assert_eq!(verdict.next_deadline(), ms(1500));
        assert_eq!(verdict.handle(ms(1499), OneIsDead), Health::Fit);
        assert_eq!(verdict.handle(ms(1499), AllWork), Health::Fit);
        assert_eq!(verdict.handle(ms(20_000), OneIsDead), Health::Fit);
        assert_eq!(verdict.handle(ms(20_500), OneIsDead), Health::Unfit);
        assert_eq!(verdict.handle(ms(21_000), AllWork), Health::Fit);
    }

    #[test]
    fn whoever_dies_three_times_in_ten_seconds_is_not_waited_for() {
        let mut verdict = Verdict::new(OnDead::RestartThenYield);
        let mut die = |at| {
            verdict.handle(ms(at), AllWork);
            verdict.handle(ms(at + 1), OneIsDead)
        };
        assert_eq!(
            [die(0), die(4000), die(9000)],
            [Health::Fit, Health::Fit, Health::Unfit]
        );
        // Spread over longer, they are accidents.
        assert_eq!([die(30_000), die(36_000), die(42_000)], [Health::Fit; 3]);
    }
}
