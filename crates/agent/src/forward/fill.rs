//! The alarm about the table of connections. Pure.

use std::time::{Duration, Instant};

use mainstay_forward::host::FILL_ALARM_PERCENT;
use mainstay_kernel::netlink::conntrack::Fill;
use mainstay_model::Happening;

/// Between two looks: in a burst of new connections what is left above the threshold is gone within seconds.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The alarm ends below: one that swings about the threshold is told once.
const CALM_PERCENT: u64 = 70;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Calm,
    Raised,
}

#[derive(Debug)]
pub(super) struct FillAlarm {
    state: State,
    next: Option<Instant>,
}

impl FillAlarm {
    /// Goes on where an earlier agent was, by what it had written down, the latest last.
    pub(super) fn resume(history: &[Happening]) -> Self {
        let raised = history.iter().rev().find_map(|one| match one {
            Happening::ConnectionsFilling { .. } => Some(State::Raised),
            Happening::ConnectionsRelaxed { .. } => Some(State::Calm),
            Happening::AddressTaken { .. }
            | Happening::AddressGivenUp { .. }
            | Happening::AddressWatched { .. }
            | Happening::AddressIdle { .. }
            | Happening::SplitSeen { .. }
            | Happening::SplitHealed { .. }
            | Happening::RulesRepaired { .. }
            | Happening::ForwardedBy { .. } => None,
        });
        Self {
            state: raised.unwrap_or(State::Calm),
            next: None,
        }
    }

    /// Whether it is time for a look.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        if self.next.is_some_and(|next| now < next) {
            return false;
        }
        self.next = now.checked_add(LOOK_EVERY);
        true
    }

    /// What there is to tell.
    pub(super) fn judge(&mut self, fill: Fill) -> Option<Happening> {
        let Fill {
            entries,
            entries_max,
        } = fill;
        // Without a limit nothing is dropped.
        let percent = entries.saturating_mul(100).checked_div(entries_max)?;
        match self.state {
            State::Calm if percent >= FILL_ALARM_PERCENT => {
                self.state = State::Raised;
                Some(Happening::ConnectionsFilling {
                    entries,
                    entries_max,
                })
            }
            State::Raised if percent < CALM_PERCENT => {
                self.state = State::Calm;
                Some(Happening::ConnectionsRelaxed {
                    entries,
                    entries_max,
                })
            }
            State::Calm | State::Raised => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(entries: u64) -> Fill {
        Fill {
            entries,
            entries_max: 1000,
        }
    }

    #[test]
    fn the_alarm_is_raised_once_and_ends_once_however_the_table_swings() {
        let mut alarm = FillAlarm::resume(&[]);
        let told: Vec<Option<&str>> = [0, 799, 800, 999, 750, 801, 700, 699, 0, 850]
            .into_iter()
            .map(|entries| match alarm.judge(fill(entries)) {
                Some(Happening::ConnectionsFilling { .. }) => Some("full"),
                Some(Happening::ConnectionsRelaxed { .. }) => Some("calm"),
                other => {
                    assert_eq!(other, None);
                    None
                }
            })
            .collect();
        let mut expected = vec![None; 10];
        expected[2] = Some("full");
        expected[7] = Some("calm");
        expected[9] = Some("full");
        assert_eq!(told, expected);
        let unlimited = Fill {
            entries: 5,
            entries_max: 0,
        };
        assert_eq!(alarm.judge(unlimited), None);
    }

    #[test]
    fn the_next_agent_does_not_raise_it_again_and_ends_it() {
        let raised = Happening::ConnectionsFilling {
            entries: 900,
            entries_max: 1000,
        };
        let repaired = Happening::RulesRepaired {
            found: "a test".to_owned(),
            times: 1,
        };
        let mut next = FillAlarm::resume(&[raised, repaired]);
        assert_eq!(next.judge(fill(950)), None);
        assert!(next.judge(fill(0)).is_some());
    }

    #[test]
    fn a_look_comes_each_second() {
        let mut alarm = FillAlarm::resume(&[]);
        let begin = Instant::now();
        assert!(alarm.is_due(begin));
        assert!(!alarm.is_due(begin + Duration::from_millis(999)));
        assert!(alarm.is_due(begin + Duration::from_secs(1)));
    }
}
