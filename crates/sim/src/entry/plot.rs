//! What happens in one run: drawn from its seed.

use std::time::Duration;

use mainstay_control::balance::limit::SAMPLES_MIN;

use crate::random::Random;

/// What befalls one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// It stops working and goes on where it was later.
    Frozen,
    /// As before, but it is declared dead meanwhile, and never goes on.
    FrozenThenDead,
    /// It is frozen and goes on again and again.
    Flapping,
    /// No packet reaches it or comes from it.
    BlackHole,
    /// Its process is killed, and its port refuses.
    Killed,
    /// It takes eight times as long.
    Slow,
    /// It answers 503 at once.
    Erroring,
    /// All is well with it, but three times as much is asked of all as they can do.
    Overload,
}

impl Trouble {
    /// All there are.
    pub const ALL: [Self; 9] = [
        Self::None,
        Self::Frozen,
        Self::FrozenThenDead,
        Self::Flapping,
        Self::BlackHole,
        Self::Killed,
        Self::Slow,
        Self::Erroring,
        Self::Overload,
    ];

    /// Whether the instance says nothing at all while it lasts.
    pub(super) fn is_mute(self) -> bool {
        match self {
            Self::Frozen | Self::FrozenThenDead | Self::BlackHole | Self::Killed => true,
            Self::None | Self::Flapping | Self::Slow | Self::Erroring | Self::Overload => false,
        }
    }

    /// Its name in tallies.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Frozen => "frozen",
            Self::FrozenThenDead => "frozen then dead",
            Self::Flapping => "flapping",
            Self::BlackHole => "black hole",
            Self::Killed => "killed",
            Self::Slow => "slow",
            Self::Erroring => "erroring",
            Self::Overload => "overload",
        }
    }
}

/// How many instances there are; the first is the one in trouble.
pub(super) const INSTANCES: usize = 3;

/// So many answers of each instance a worker has seen, on average, before an overload: two windows
/// of a limit. Without one, nobody knows how long an answer takes while nothing queues, and the
/// longest queue passes for usual.
const KNOWN_AFTER: u32 = 2 * SAMPLES_MIN;

/// How many times what all instances can do an overload asks for.
pub(super) const OVERLOAD: f64 = 3.0;

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Plot {
    /// What befalls the first instance.
    pub trouble: Trouble,
    /// From when on.
    pub from: Duration,
    /// For how long.
    pub lasts: Duration,
    /// How long clients ask.
    pub ends: Duration,
    /// What an answer takes an instance on average.
    pub work: Duration,
    /// How many an instance works on at once.
    pub slots: usize,
    /// The mean pause between two requests.
    pub pause: Duration,
    /// Workers of the gateway.
    pub workers: usize,
}

impl Plot {
    /// The run of a seed.
    pub fn of(seed: u64, random: &mut Random) -> Self {
        let trouble = Trouble::ALL[usize::try_from(seed % 9).unwrap_or(0)];
        let ms = Duration::from_millis;
        // An overload needs more requests than the others to be one, so its instances do less.
        let (shortest, slots) = if trouble == Trouble::Overload {
            (20, 2)
        } else {
            (2, 8)
        };
        let work = ms(shortest + random.below(14));
        let slots = slots + random.place(3 * slots);
        // What all can do, of which between a tenth and a third is asked: two of three bear it.
        let most = work.div_f64((slots * INSTANCES) as f64);
        let share = 0.1 + 0.2 * (random.below(100) as f64 / 100.0);
        // At the beginning nothing is known; half of the troubles come then. An overload needs a time
        // before it, from which it is known how long an answer takes.
        let early = random.one_in(2) && trouble != Trouble::Overload;
        let from = if early {
            ms(1)
        } else {
            ms(1_500 + random.below(1_000))
        };
        let known = if trouble == Trouble::Overload {
            ms(40_000)
        } else {
            Duration::ZERO
        };
        let from = from + known;
        let lasts = ms(500 + random.below(3_000));
        // Time for the limit to be found, and for what follows from it.
        let lasts = if trouble == Trouble::Overload {
            lasts + ms(6_000)
        } else {
            lasts
        };
        let quiet = ms(500 + random.below(2_000));
        let pause = most.div_f64(share).max(Duration::from_micros(150));
        let workers = 1 + random.place(2);
        let from = if trouble == Trouble::Overload {
            from.max(pause * KNOWN_AFTER * (INSTANCES * workers) as u32)
        } else {
            from
        };
        Self {
            trouble,
            from,
            lasts,
            ends: from + lasts + quiet,
            work,
            slots,
            pause,
            workers,
        }
    }

    /// The mean pause between two requests at a time.
    pub(super) fn pause_at(&self, since_start: Duration) -> Duration {
        let is_on = since_start >= self.from && since_start < self.until();
        if self.trouble == Trouble::Overload && is_on {
            self.work
                .div_f64((self.slots * INSTANCES) as f64 * OVERLOAD)
        } else {
            self.pause
        }
    }

    /// The end of the trouble.
    pub(super) fn until(&self) -> Duration {
        self.from + self.lasts
    }
}
