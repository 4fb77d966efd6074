//! A script of SIGKILLs against the processes of a running Mainstay, drawn from a seed.
//!
//! The script only says what is to be done; a test does it and judges what came of it. The same seed
//! gives the same script, though not the same moments to the microsecond: the machine has a say.

use std::fmt;
use std::thread;
use std::time::Duration;

/// The longest pause between two kills of a round.
const PAUSE_MAX: Duration = Duration::from_millis(1500);

/// The longest time without a supervisor before the next one is started.
const ABSENCE_MAX: Duration = Duration::from_secs(1);

/// A process that just started is killed within this: it takes about as long until it works.
const YOUTH: Duration = Duration::from_millis(60);

/// The supervisor starts a process again 100 ms after its end, at first: around that time it spawns.
const SPAWNING: [Duration; 2] = [Duration::from_millis(90), Duration::from_millis(125)];

/// A process of Mainstay's own whose death may cost nobody anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    /// `mainstay dev`: whoever runs the script starts the next one.
    Supervisor,
    /// The supervisor starts it again.
    ControlCentre,
    /// The supervisor starts it again.
    Agent,
}

/// All of them.
pub const VICTIMS: [Victim; 3] = [Victim::Supervisor, Victim::ControlCentre, Victim::Agent];

/// One thing to do, when the one before is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Let time pass; see [`pause`].
    Pause(Duration),
    /// SIGKILL, if it runs.
    Kill(Victim),
    /// Wait until a process with another number than the killed one plays this part.
    AwaitNext(Victim),
    /// Start the next supervisor.
    StartSupervisor,
}

/// One round: everything that is done before all must come to rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// Which, from 1.
    pub number: u32,
    /// In order. A supervisor that is killed is also started.
    pub steps: Vec<Step>,
}

/// Rounds without end.
#[derive(Debug, Clone)]
pub struct Script {
    random: fastrand::Rng,
    number: u32,
}

impl Script {
    /// The script of this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            number: 0,
        }
    }

    /// One, two or all three, in any order.
    fn victims(&mut self) -> Vec<Victim> {
        let mut victims = VICTIMS.to_vec();
        self.random.shuffle(&mut victims);
        victims.truncate(self.random.usize(1..=VICTIMS.len()));
        victims
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        self.between([Duration::ZERO, most])
    }

    fn between(&mut self, [least, most]: [Duration; 2]) -> Duration {
        let millis = |limit: Duration| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.random.u64(millis(least)..=millis(most)))
    }

    fn one_in(&mut self, many: u32) -> bool {
        self.random.u32(0..many) == 0
    }

    /// Starts the supervisor if it is dead.
    fn revive(&mut self, steps: &mut Vec<Step>, supervisor: &mut Supervisor) {
        if *supervisor == Supervisor::Dead {
            steps.push(Step::Pause(self.up_to(ABSENCE_MAX)));
            steps.push(Step::StartSupervisor);
            *supervisor = Supervisor::Alive;
        }
    }

    fn kill(&mut self, steps: &mut Vec<Step>, supervisor: &mut Supervisor, victim: Victim) {
        if victim == Victim::Supervisor {
            self.revive(steps, supervisor);
            *supervisor = Supervisor::Dead;
        }
        steps.push(Step::Kill(victim));
    }

    /// Kills it again as soon as it is back.
    fn kill_young(&mut self, steps: &mut Vec<Step>, supervisor: &mut Supervisor, victim: Victim) {
        self.revive(steps, supervisor);
        steps.push(Step::AwaitNext(victim));
        steps.push(Step::Pause(self.up_to(YOUTH)));
        self.kill(steps, supervisor, victim);
    }
}

/// Whether there is one at this point of the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Supervisor {
    Alive,
    Dead,
}

impl Iterator for Script {
    type Item = Round;

    fn next(&mut self) -> Option<Round> {
        self.number += 1;
        let mut steps = Vec::new();
        let mut supervisor = Supervisor::Alive;
        let mut before = None;
        for victim in self.victims() {
            // Whoever was killed just before is being started in that moment.
            let while_it_spawns = victim == Victim::Supervisor && before.is_some();
            let pause = if while_it_spawns && self.one_in(2) {
                self.between(SPAWNING)
            } else {
                self.up_to(PAUSE_MAX)
            };
            steps.push(Step::Pause(pause));
            self.kill(&mut steps, &mut supervisor, victim);
            if self.one_in(3) {
                self.kill_young(&mut steps, &mut supervisor, victim);
            }
            if self.one_in(2) {
                self.revive(&mut steps, &mut supervisor);
            }
            before = Some(victim);
        }
        self.revive(&mut steps, &mut supervisor);
        Some(Round {
            number: self.number,
            steps,
        })
    }
}

impl Round {
    /// How often this one is killed in it.
    pub fn kills(&self, victim: Victim) -> usize {
        let kills = self.steps.iter();
        kills.filter(|step| **step == Step::Kill(victim)).count()
    }
}

/// Performs a [`Step::Pause`]: the moments of the kills are the experiment, not a wait for a state.
#[expect(
    clippy::disallowed_methods,
    reason = "the pause is what the script asks for"
)]
pub fn pause(length: Duration) {
    thread::sleep(length);
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Supervisor => "supervisor",
            Self::ControlCentre => "control centre",
            Self::Agent => "agent",
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pause(length) => write!(f, "{} ms", length.as_millis()),
            Self::Kill(victim) => write!(f, "kill {victim}"),
            Self::AwaitNext(victim) => write!(f, "await next {victim}"),
            Self::StartSupervisor => f.write_str("start supervisor"),
        }
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round {}:", self.number)?;
        for (index, step) in self.steps.iter().enumerate() {
            write!(f, "{} {step}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(seed: u64) -> Vec<Round> {
        Script::new(seed).take(200).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_rounds_and_another_one_others() {
        assert_eq!(rounds(7), rounds(7));
        assert_ne!(rounds(7), rounds(8));
    }

    #[test]
    fn a_supervisor_that_was_killed_is_started_before_anything_needs_it() {
        for round in rounds(1) {
            let mut alive = true;
            for step in &round.steps {
                match step {
                    Step::Kill(Victim::Supervisor) => {
                        assert!(alive, "{round}");
                        alive = false;
                    }
                    Step::StartSupervisor => {
                        assert!(!alive, "{round}");
                        alive = true;
                    }
                    Step::AwaitNext(_) => assert!(alive, "{round}"),
                    Step::Pause(_) | Step::Kill(_) => {}
                }
            }
            assert!(alive, "{round}");
        }
    }

    #[test]
    fn every_victim_is_killed_alone_and_together_and_again_when_it_is_young() {
        let rounds = rounds(3);
        for victim in VICTIMS {
            let alone = |round: &&Round| VICTIMS.map(|of| (round.kills(of) > 0) == (of == victim));
            assert!(rounds.iter().any(|round| alone(&round) == [true; 3]));
            assert!(rounds.iter().any(|round| round.kills(victim) > 1));
        }
        let all = |round: &&Round| VICTIMS.iter().all(|victim| round.kills(*victim) > 0);
        assert!(rounds.iter().filter(all).count() > 20);
    }
}
