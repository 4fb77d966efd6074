//! What happens in one run: drawn from its seed.

use std::time::Duration;

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
    /// Its process is killed and started again, and again.
    Restarting,
    /// Connections to it come about, but late.
    LateConnects,
    /// It takes eight times as long.
    Slow,
    /// It answers 503 at once.
    Erroring,
    /// All is well with it, but three times as much is asked of all as they can do.
    Overload,
}

impl Trouble {
    /// All there are.
    pub const ALL: [Self; 11] = [
        Self::None,
        Self::Frozen,
        Self::FrozenThenDead,
        Self::Flapping,
        Self::BlackHole,
        Self::Killed,
        Self::Restarting,
        Self::LateConnects,
        Self::Slow,
        Self::Erroring,
        Self::Overload,
    ];

    /// Whether it befalls one instance, and not none or all.
    fn is_of_one(self) -> bool {
        match self {
            Self::None | Self::Overload => false,
            Self::Frozen
            | Self::FrozenThenDead
            | Self::Flapping
            | Self::BlackHole
            | Self::Killed
            | Self::Restarting
            | Self::LateConnects
            | Self::Slow
            | Self::Erroring => true,
        }
    }

    /// Whether the instance says nothing at all while it lasts.
    pub(super) fn is_mute(self) -> bool {
        match self {
            Self::Frozen | Self::FrozenThenDead | Self::BlackHole | Self::Killed => true,
            Self::None
            | Self::Flapping
            | Self::Restarting
            | Self::LateConnects
            | Self::Slow
            | Self::Erroring
            | Self::Overload => false,
        }
    }

    /// Whether the instance takes what it is sent and says nothing, so that a request is held by it.
    pub(super) fn holds(self) -> bool {
        match self {
            Self::Frozen | Self::FrozenThenDead | Self::Flapping => true,
            Self::None
            | Self::BlackHole
            | Self::Killed
            | Self::Restarting
            | Self::LateConnects
            | Self::Slow
            | Self::Erroring
            | Self::Overload => false,
        }
    }

    /// How long after its end each worker uses the instance again at the latest; `None`: it never
    /// does, or never ceased to.
    pub(super) fn forgiven_after(self) -> Option<Duration> {
        match self {
            Self::None | Self::FrozenThenDead | Self::Overload => None,
            Self::Frozen | Self::Flapping | Self::BlackHole | Self::LateConnects | Self::Slow => {
                Some(FORGIVEN)
            }
            // Whoever is killed under five requests has failed five in a row.
            Self::Killed | Self::Restarting | Self::Erroring => Some(FORGIVEN_SICKNESS),
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
            Self::Restarting => "restarting",
            Self::LateConnects => "late connects",
            Self::Slow => "slow",
            Self::Erroring => "erroring",
            Self::Overload => "overload",
        }
    }
}

/// How many instances there are; the first is the one in trouble, and sometimes the second, too.
pub(super) const INSTANCES: usize = 3;

/// So late an answer of three seconds and a half, the longest that a trouble makes, is forgotten beside
/// those of two milliseconds. Suspicions end earlier: the n-th in a row takes n seconds and a tenth
/// more, and no trouble lasts long enough for the third to end within it.
const FORGIVEN: Duration = Duration::from_secs(10);
/// An ejection for bad answers takes ten at first, and no trouble lasts longer than that.
const FORGIVEN_SICKNESS: Duration = Duration::from_millis(11_500);
/// For how long it is then looked at whether the instance has a share of the requests.
pub(super) const WATCHED: Duration = Duration::from_secs(2);
/// Before that it warms up.
const WARMING: Duration = Duration::from_millis(1_500);
/// Whether it is asked again shows with fewer requests than a trouble does.
const PAUSE_AFTER: Duration = Duration::from_millis(2);

/// How many times what all instances can do an overload asks for.
pub(super) const OVERLOAD: f64 = 3.0;

/// What befalls one instance, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strike {
    /// What.
    pub trouble: Trouble,
    /// From when on.
    pub from: Duration,
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Plot {
    /// What befalls the first instance, or all.
    pub first: Strike,
    /// What befalls the second at about the same time.
    pub second: Option<Strike>,
    /// For how long.
    pub lasts: Duration,
    /// How long one wave of a trouble in waves lasts.
    pub wave: Duration,
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
        let ms = Duration::from_millis;
        let kinds = Trouble::ALL.len() as u64;
        let trouble = Trouble::ALL[(seed % kinds) as usize];
        let two = trouble.is_of_one() && seed / kinds % 3 == 2;
        // An overload needs more requests than the others to be one, so its instances do less.
        let (shortest, slots) = if trouble == Trouble::Overload {
            (20, 2)
        } else {
            (2, 8)
        };
        let work = ms(shortest + random.below(14));
        let slots = slots + random.place(3 * slots);
        // What all can do, of which between a tenth and a third is asked: two of three bear it. Half
        // of that if one has to.
        let most = work.div_f64((slots * INSTANCES) as f64);
        let share = (0.1 + 0.002 * random.below(100) as f64) / if two { 2.0 } else { 1.0 };
        let mut plot = Self {
            first: Strike {
                trouble,
                from: Duration::ZERO,
            },
            second: None,
            lasts: ms(500 + random.below(3_000)),
            // Some are over before anybody can be suspected.
            wave: ms(40 + random.below(300)),
            ends: Duration::ZERO,
            work,
            slots,
            pause: most.div_f64(share).max(Duration::from_micros(300)),
            workers: 1 + random.place(2),
        };
        // At the beginning nothing is known; half of the troubles come then.
        let early = random.one_in(2);
        plot.first.from = if early {
            ms(1)
        } else {
            ms(1_500 + random.below(1_000))
        };
        if trouble == Trouble::Overload {
            // Time for the limit to be found, and for what follows from it.
            plot.lasts += Duration::from_secs(6);
        }
        if two {
            plot.second = Some(plot.strike_too(random));
        }
        plot.ends = plot.until() + plot.quiet(random);
        plot
    }

    /// Another instance at the same moment, or soon after.
    fn strike_too(&self, random: &mut Random) -> Strike {
        let of_one: Vec<Trouble> = Trouble::ALL
            .into_iter()
            .filter(|trouble| trouble.is_of_one())
            .collect();
        let trouble = of_one[random.place(of_one.len())];
        let later = random.below(200).saturating_sub(100);
        Strike {
            trouble,
            from: self.first.from + Duration::from_millis(later),
        }
    }

    /// How long it goes on after the trouble.
    fn quiet(&self, random: &mut Random) -> Duration {
        let strikes = (0..INSTANCES).filter_map(|instance| self.strike(instance));
        let forgiven = strikes.filter_map(|strike| strike.trouble.forgiven_after());
        let quiet = forgiven.max().map(|after| after + WARMING + WATCHED);
        quiet.unwrap_or_default() + Duration::from_millis(500 + random.below(500))
    }

    /// What befalls an instance alone.
    pub(super) fn strike(&self, instance: usize) -> Option<Strike> {
        match instance {
            0 => Some(self.first).filter(|strike| strike.trouble.is_of_one()),
            1 => self.second,
            _ => None,
        }
    }

    /// The mean pause between two requests at a time.
    pub(super) fn pause_at(&self, since_start: Duration) -> Duration {
        let overloads = self.first.trouble == Trouble::Overload;
        if since_start >= self.until() {
            self.pause.max(PAUSE_AFTER)
        } else if overloads && since_start >= self.first.from {
            self.work
                .div_f64((self.slots * INSTANCES) as f64 * OVERLOAD)
        } else {
            self.pause
        }
    }

    /// The end of all trouble.
    pub(super) fn until(&self) -> Duration {
        let second = self.second.map_or(Duration::ZERO, |strike| strike.from);
        self.first.from.max(second) + self.lasts
    }
}
