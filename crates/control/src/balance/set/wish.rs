//! The choice for requests that want more than an endpoint that works.

use mainstay_ids::Instant;

use super::super::sticky::{Affinity, Bond, Side, Wish};
use super::{Load, Need, Set};

impl<E> Set<E> {
    /// Draws among those of the pool that fit, by a request's wish. Where nobody of the wanted side is
    /// left, the other side answers. Looks at each endpoint of the pool a few times: 500 of them cost
    /// some microseconds, and only requests with a wish come here.
    pub(super) fn draw_by(
        &self,
        now: Instant,
        random: u64,
        need: &Need<'_, E>,
        fits: impl Fn(usize) -> bool,
        load: impl Fn(&E) -> Load,
    ) -> Option<usize> {
        let wish = need.wish;
        if wish == Wish::NONE {
            return self.draw(now, random, fits, load);
        }
        if let Bond::Held(_) = wish.bond {
            let mut pool = self.pool.iter().chain(&self.kept_for_held).copied();
            let held = pool.find(|index| fits(*index) && self.is_wished(*index, need));
            if held.is_some() {
                return held;
            }
        }
        for side in [wish.side, Side::Any] {
            let belongs = |index: usize| side.holds(self.version(index, need)) && fits(index);
            let found = match wish.bond {
                Bond::By(affinity) => {
                    let pool = self.pool.iter().copied();
                    self.nearest(pool.filter(|index| belongs(*index)), affinity, need)
                }
                Bond::Free | Bond::Held(_) => self.draw(now, random, belongs, &load),
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Whether a member is just what a request wishes, whatever its state.
    pub(super) fn is_wished(&self, index: usize, need: &Need<'_, E>) -> bool {
        if need.wish == Wish::NONE {
            return true;
        }
        let traits = (need.traits)(&self.members[index].endpoint);
        match need.wish.bond {
            Bond::Free => need.wish.side.holds(traits.version),
            Bond::Held(handle) => {
                // Who asks for the version on trial leaves an instance of another one.
                let stays = !matches!(need.wish.side, Side::Asked(_))
                    || need.wish.side.holds(traits.version);
                stays && traits.handle == Some(handle)
            }
            Bond::By(affinity) => {
                let takes = |one: &usize| self.members[*one].intake.takes_any();
                let all = (0..self.members.len())
                    .filter(|one| takes(one) && need.wish.side.holds(self.version(*one, need)));
                self.nearest(all, affinity, need) == Some(index)
            }
        }
    }

    fn version(&self, index: usize, need: &Need<'_, E>) -> mainstay_ids::Version {
        (need.traits)(&self.members[index].endpoint).version
    }

    fn nearest(
        &self,
        among: impl Iterator<Item = usize>,
        affinity: Affinity,
        need: &Need<'_, E>,
    ) -> Option<usize> {
        let placed = among.filter_map(|index| {
            let traits = (need.traits)(&self.members[index].endpoint);
            let weight = u32::try_from(self.members[index].weight()).unwrap_or(u32::MAX);
            let distance = affinity.distance(traits.handle?, weight);
            Some((distance, index))
        });
        let nearest = placed.min_by(|(one, _), (other, _)| one.total_cmp(other));
        nearest.map(|(_, index)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::ejection::{Outcome, Try};
    use super::super::super::sticky::Traits;
    use super::super::tests::{finished, pick_by};
    use super::super::{Listed, Picked, Role, Tag, mix};
    use super::*;
    use alloc::vec::Vec;
    use core::time::Duration;
    use mainstay_ids::Version;
    use mainstay_model::routing::{EndpointHealth, Handle};
    use mainstay_model::{Intake, IntakeState, Share, Weight};

    const OLD: Version = Version(1);
    const NEW: Version = Version(2);

    /// Number and version.
    type One = (u64, Version);

    fn traits(one: &One) -> Traits {
        Traits {
            version: one.1,
            handle: Some(Handle(mix(one.0, 77))),
        }
    }

    fn listed(old: u64, new: u64) -> Vec<Listed<One>> {
        let versions = (1..=old).map(|number| (number, OLD));
        let versions = versions.chain((101..101 + new).map(|number| (number, NEW)));
        let listed = versions.map(|endpoint| Listed {
            endpoint,
            health: EndpointHealth::Passing,
            role: Role::EVEN,
            intake: Intake::default(),
        });
        listed.collect()
    }

    fn set(old: u64, new: u64) -> Set<One> {
        let mut set = Set::default();
        set.update(Instant::START, listed(old, new));
        set
    }

    fn choose(set: &mut Set<One>, random: u64, tried: &[Tag], wish: Wish) -> (One, Picked) {
        let picked = pick_by(set, Instant::START, random, tried, wish, traits);
        let picked = picked.expect("somebody is there");
        (*set.get(picked).expect("it is listed"), picked)
    }

    fn held(one: One) -> Wish {
        Wish {
            side: Side::Any,
            bond: Bond::Held(traits(&one).handle.expect("it has one")),
        }
    }

    fn refuse(set: &mut Set<One>, picked: Picked) {
        let tried = Try {
            outcome: Outcome::ConnectFailed,
            sent: Instant::START,
            jitter: 0.0,
        };
        finished(set, Instant::START, picked, Duration::from_millis(1), tried);
    }

    #[test]
    fn a_thousandth_holds_over_200_000_choices_whatever_the_numbers_of_instances() {
        let share = Share::from_ppm(1000).expect("legal");
        for (old, new) in [(3, 1), (1, 9), (100, 1)] {
            let mut set = set(old, new);
            let mut trials = 0;
            for n in 0..200_000 {
                let wish = Wish {
                    side: Side::of(NEW, share, mix(n, 5)),
                    bond: Bond::Free,
                };
                let ((_, version), _) = choose(&mut set, mix(n, 6), &[], wish);
                trials += u32::from(version == NEW);
            }
            assert!(
                (143..257).contains(&trials),
                "{trials} with {old} and {new}"
            );
        }
    }

    #[test]
    fn whoever_asks_for_the_version_on_trial_gets_it_while_it_is_there() {
        let mut set = set(3, 1);
        let asked = |bond| Wish {
            side: Side::Asked(NEW),
            bond,
        };
        let before = held((1, OLD)).bond;
        for n in 0..1000 {
            assert_eq!(choose(&mut set, mix(n, 1), &[], asked(Bond::Free)).0.1, NEW);
            assert_eq!(choose(&mut set, mix(n, 1), &[], asked(before)).0.1, NEW);
        }
        let (_, picked) = choose(&mut set, 1, &[], asked(Bond::Free));
        let (retried, _) = choose(&mut set, 1, &[picked.tag], asked(Bond::Free));
        assert_eq!(retried.1, OLD, "better an old one than a failed one again");
        refuse(&mut set, picked);
        let (other, _) = choose(&mut set, 1, &[], asked(Bond::Free));
        assert_eq!(other.1, OLD, "nobody of that version can be reached");
    }

    #[test]
    fn a_held_client_stays_over_growth_and_versions_and_leaves_only_a_lost_instance() {
        let mut set = set(3, 0);
        let mine = (2, OLD);
        set.update(Instant::START, listed(9, 1));
        for n in 0..1000 {
            let rest = Wish {
                side: Side::Trial(NEW),
                ..held(mine)
            };
            assert_eq!(choose(&mut set, mix(n, 1), &[], rest).0, mine);
        }
        let (_, picked) = choose(&mut set, 1, &[], held(mine));
        refuse(&mut set, picked);
        for n in 0..1000 {
            assert_ne!(
                choose(&mut set, mix(n, 1), &[], held(mine)).0,
                mine,
                "it is ejected"
            );
        }
        set.update(Instant::START, listed(1, 0));
        assert_eq!(
            choose(&mut set, 1, &[], held(mine)).0,
            (1, OLD),
            "it drains"
        );
        let made_up = Wish {
            side: Side::Any,
            bond: Bond::Held(Handle(42)),
        };
        assert_eq!(choose(&mut set, 1, &[], made_up).0, (1, OLD));
    }

    #[test]
    fn held_clients_stay_with_one_that_is_drained_and_leave_one_in_maintenance() {
        let intake = |state| Intake {
            state,
            weight: Weight::ORDINARY,
        };
        let mine = (2, OLD);
        let with = |state| {
            let mut set = set(3, 0);
            let mut all = listed(3, 0);
            let found = all.iter_mut().find(|one| one.endpoint == mine);
            found.expect("listed").intake = intake(state);
            set.update(Instant::START, all);
            set
        };
        let by = |n: u64| Wish {
            side: Side::Any,
            bond: Bond::By(Affinity::of_value(&n.to_le_bytes())),
        };
        for state in [IntakeState::Drain, IntakeState::Maintenance] {
            let mut set = with(state);
            for n in 0..300 {
                let stays = choose(&mut set, mix(n, 1), &[], held(mine)).0 == mine;
                assert_eq!(stays, state == IntakeState::Drain, "{state:?}");
                for wish in [Wish::NONE, by(n)] {
                    assert_ne!(choose(&mut set, mix(n, 1), &[], wish).0, mine, "{state:?}");
                }
            }
        }
    }

    #[test]
    fn by_affinity_an_ejected_instance_gives_its_clients_to_all_others_and_gets_them_back() {
        let mut set = set(4, 0);
        let by = |n: u64| Wish {
            side: Side::Any,
            bond: Bond::By(Affinity::of_value(&n.to_le_bytes())),
        };
        let before: Vec<One> = (0..2000)
            .map(|n| choose(&mut set, n, &[], by(n)).0)
            .collect();
        let again: Vec<One> = (0..2000)
            .map(|n| choose(&mut set, mix(n, 9), &[], by(n)).0)
            .collect();
        assert_eq!(before, again, "chance has no part in it");
        let lost = before[0];
        let (_, picked) = choose(&mut set, 0, &[], by(0));
        refuse(&mut set, picked);
        let mut heirs = Vec::new();
        for (n, home) in (0..).zip(&before) {
            let (now, _) = choose(&mut set, n, &[], by(n));
            if *home == lost {
                heirs.push(now);
            } else {
                assert_eq!(now, *home, "who was elsewhere stays");
            }
        }
        heirs.sort_unstable();
        heirs.dedup();
        assert_eq!(heirs.len(), 3, "its clients are shared out: {heirs:?}");
        let later = Instant::from_start(Duration::from_secs(5));
        let picked = pick_by(&mut set, later, 1, &[], by(0), traits).expect("all are back");
        assert_eq!(set.get(picked), Some(&lost));
    }
}
