//! What may go wrong in a run, and how often.

use mainstay_control::Settings;

use crate::random::Random;

/// How often something happens: once in so many steps, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chance(u64);

impl Chance {
    /// It does not happen.
    pub const NEVER: Self = Self(0);

    /// Once in so many.
    pub const fn one_in(steps: u64) -> Self {
        Self(steps)
    }

    pub(crate) fn comes(self, random: &mut Random) -> bool {
        // Drawn in any case, so that switching one mishap off leaves the others where they were.
        let draw = random.draw();
        self.0 > 0 && draw.is_multiple_of(self.0)
    }
}

/// How often each thing goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mishaps {
    /// The control centre is killed in the course of an input; per input.
    pub cut: Chance,
    /// It is killed between two inputs.
    pub restart: Chance,
    /// The disk refuses all saves for up to 4 s.
    pub disk_refuses: Chance,
    /// The clock on the wall is set, by up to 6 hours in either direction.
    pub wall_set: Chance,
    /// The agent is killed.
    pub agent_dies: Chance,
    /// The machine is started anew.
    pub reboot: Chance,
    /// An instance is killed.
    pub instance_ends: Chance,
    /// An instance fails its probes for up to 1.5 s.
    pub instance_upset: Chance,
    /// An instance answers nothing for up to 6 s.
    pub instance_freezes: Chance,
    /// The agent loses an instance with its files.
    pub instance_lost: Chance,
    /// A report is lost, comes twice, or is overtaken.
    pub report_disturbed: Chance,
    /// A consumer does nothing for a while.
    pub consumer_freezes: Chance,
    /// A consumer is killed.
    pub consumer_dies: Chance,
    /// A consumer says farewell and ends.
    pub consumer_leaves: Chance,
    /// A word of a consumer is lost; per word.
    pub word_lost: Chance,
    /// A word of a consumer comes twice; per word.
    pub word_twice: Chance,
    /// A consumer claims a generation that was never published.
    pub stray_word: Chance,
    /// Everything is stopped for now, and the control centre started anew later.
    pub stop_all: Chance,
}

impl Mishaps {
    /// Everything goes wrong that can.
    pub const ALL: Self = Self {
        cut: Chance::one_in(150),
        restart: Chance::one_in(80),
        disk_refuses: Chance::one_in(90),
        wall_set: Chance::one_in(60),
        agent_dies: Chance::one_in(60),
        reboot: Chance::one_in(400),
        instance_ends: Chance::one_in(40),
        instance_upset: Chance::one_in(40),
        instance_freezes: Chance::one_in(60),
        instance_lost: Chance::one_in(200),
        report_disturbed: Chance::one_in(12),
        consumer_freezes: Chance::one_in(60),
        consumer_dies: Chance::one_in(120),
        consumer_leaves: Chance::one_in(180),
        word_lost: Chance::one_in(10),
        word_twice: Chance::one_in(5),
        stray_word: Chance::one_in(30),
        stop_all: Chance::one_in(900),
    };

    /// Leaves out a quarter of them: with all at once, the rarer states are never reached.
    pub(crate) fn some(mut self, random: &mut Random) -> Self {
        for chance in [
            &mut self.cut,
            &mut self.restart,
            &mut self.disk_refuses,
            &mut self.wall_set,
            &mut self.agent_dies,
            &mut self.reboot,
            &mut self.instance_ends,
            &mut self.instance_upset,
            &mut self.instance_freezes,
            &mut self.instance_lost,
            &mut self.report_disturbed,
            &mut self.consumer_freezes,
            &mut self.consumer_dies,
            &mut self.consumer_leaves,
            &mut self.word_lost,
            &mut self.word_twice,
            &mut self.stray_word,
            &mut self.stop_all,
        ] {
            if random.one_in(4) {
                *chance = Chance::NEVER;
            }
        }
        self
    }
}

/// The conditions of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conditions {
    /// Steps of 0 to 150 ms in which things go wrong; then comes the calm.
    pub steps: u32,
    /// What goes wrong.
    pub mishaps: Mishaps,
    /// The machine's own.
    pub settings: Settings,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            steps: 350,
            mishaps: Mishaps::ALL,
            settings: Settings::default(),
        }
    }
}
