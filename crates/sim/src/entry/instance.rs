//! An instance with its network: takes requests, works on some at once, answers, fails.

use std::collections::VecDeque;
use std::time::Duration;

use super::plot::{Plot, Strike, Trouble};
use crate::random::Random;

/// One try of one request, as an instance sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) request: usize,
    pub(super) try_number: u32,
}

/// What becomes of a connection attempt, after how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Connected(Duration),
    Refused(Duration),
}

/// What a call leads to, after how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is worked on and ends then, unless the instance freezes.
    Working(Duration),
    /// It is answered with this status then.
    Answers(Duration, u16),
    /// It waits inside.
    Waits,
}

/// A handshake, or a refusal.
const NEAR: Duration = Duration::from_micros(150);
/// A connect that nobody answers.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// So long at most a late connection takes: some come about while another is tried already, and some
/// of those before that one has its answer.
const LATE_MS: u64 = 250;

/// Longer than a suspicion waits, shorter than one lasts.
const BETWEEN_WAVES: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Well,
    Frozen,
    BlackHole,
    Late,
    Slow,
    Erroring,
    Gone,
}

pub(super) struct Instance {
    condition: Condition,
    slots: usize,
    work: Duration,
    /// What it works on.
    working: Vec<Call>,
    inside: VecDeque<Call>,
    /// What was done while it was frozen, or could not be told.
    held: Vec<Call>,
}

impl Instance {
    pub(super) fn new(plot: &Plot) -> Self {
        Self {
            condition: Condition::Well,
            slots: plot.slots,
            work: plot.work,
            working: Vec::new(),
            inside: VecDeque::new(),
            held: Vec::new(),
        }
    }

    pub(super) fn begin(&mut self, trouble: Trouble) {
        self.condition = match trouble {
            Trouble::None | Trouble::Overload => Condition::Well,
            Trouble::Frozen | Trouble::FrozenThenDead | Trouble::Flapping => Condition::Frozen,
            Trouble::BlackHole => Condition::BlackHole,
            Trouble::Killed | Trouble::Restarting => Condition::Gone,
            Trouble::LateConnects => Condition::Late,
            Trouble::Slow => Condition::Slow,
            Trouble::Erroring => Condition::Erroring,
        };
    }

    /// It is dead for good: nothing that it has will be carried out.
    pub(super) fn die(&mut self) {
        self.condition = Condition::Gone;
        self.working.clear();
        self.inside.clear();
        self.held.clear();
    }

    /// It is well again; what it held goes on now.
    pub(super) fn recover(&mut self) -> Vec<Call> {
        if self.condition == Condition::Gone {
            self.die();
        }
        self.condition = Condition::Well;
        std::mem::take(&mut self.held)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.condition == Condition::Gone
    }

    pub(super) fn reach(&self, random: &mut Random) -> Reach {
        match self.condition {
            Condition::Late => {
                let ms = random.below(LATE_MS);
                Reach::Connected(NEAR + Duration::from_millis(ms))
            }
            Condition::Gone => Reach::Refused(NEAR),
            Condition::BlackHole => Reach::Refused(CONNECT_TIMEOUT),
            // The kernel accepts for a frozen process.
            Condition::Well | Condition::Frozen | Condition::Slow | Condition::Erroring => {
                Reach::Connected(NEAR)
            }
        }
    }

    /// A call has come. `None`: it was lost, and its connection ends.
    pub(super) fn take(&mut self, call: Call, random: &mut Random) -> Option<Taken> {
        match self.condition {
            Condition::Gone => return None,
            Condition::Erroring => return Some(Taken::Answers(NEAR, 503)),
            Condition::Well
            | Condition::Frozen
            | Condition::BlackHole
            | Condition::Late
            | Condition::Slow => {}
        }
        if self.working.len() >= self.slots {
            self.inside.push_back(call);
            return Some(Taken::Waits);
        }
        self.working.push(call);
        Some(Taken::Working(self.duration(random)))
    }

    /// Whether the work on a call goes on, so that it has its effect.
    pub(super) fn goes_on(&self, call: Call) -> bool {
        match self.condition {
            Condition::Frozen | Condition::Gone => false,
            Condition::Well
            | Condition::BlackHole
            | Condition::Late
            | Condition::Slow
            | Condition::Erroring => self.working.contains(&call),
        }
    }

    /// The work on a call has ended. `None`: it is frozen, or cannot tell, or has died since.
    pub(super) fn finish(&mut self, call: Call) -> Option<Call> {
        match self.condition {
            Condition::Frozen | Condition::BlackHole => {
                self.held.push(call);
                None
            }
            Condition::Gone => None,
            Condition::Well | Condition::Late | Condition::Slow | Condition::Erroring => {
                let at = self.working.iter().position(|one| *one == call)?;
                Some(self.working.swap_remove(at))
            }
        }
    }

    /// A slot is free: the next from inside, and what it takes.
    pub(super) fn next(&mut self, random: &mut Random) -> Option<(Call, Duration)> {
        let call = self.inside.pop_front()?;
        self.working.push(call);
        Some((call, self.duration(random)))
    }

    /// Between half and one and a half of the mean; one in a hundred takes four times as long.
    fn duration(&self, random: &mut Random) -> Duration {
        let spread = 0.5 + random.below(1_000) as f64 / 1_000.0;
        let tail = if random.one_in(100) { 4.0 } else { 1.0 };
        let slow = if self.condition == Condition::Slow {
            8.0
        } else {
            1.0
        };
        self.work.mul_f64(spread * tail * slow)
    }
}

/// When the condition of an instance changes that is in trouble in waves.
pub(super) fn waves(strike: Strike, plot: &Plot) -> Vec<(Duration, bool)> {
    let mut at = strike.from;
    let mut waves = Vec::new();
    while at < strike.from + plot.lasts {
        waves.push((at, true));
        waves.push((at + plot.wave, false));
        at += plot.wave + BETWEEN_WAVES;
    }
    waves
}
