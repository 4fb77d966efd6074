//! Shares as slots: the kernel draws a number, and the slot of that number has the instance.

use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::spread::{Share, Spread, Staying};

/// Numbers of slots beyond [`Class::EXACT_MAX`]: each with 32 equal instances or fewer is exact;
/// 100 for percents, the others for what is finer.
const FINE: [u16; 4] = [64, 100, 256, 1000];
/// Slots of services whose clients stay: a hundred instances get some each, and a lost one moves its
/// own clients alone.
const STAYING_SLOTS: u16 = 256;
/// How far a share may be from its weight before finer slots are taken, in millionths of all: a
/// quarter of the percentage point that is promised.
const ERROR_MAX_PPM: u64 = 2_500;
const ALL_PPM: u64 = 1_000_000;

/// By what a slot is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Draw {
    /// By chance.
    Random,
    /// By the client's address.
    Source,
}

/// How many slots a service has, and by what one is drawn. There are few classes, so that the
/// kernel has a constant number of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class {
    draw: Draw,
    slots: u16,
}

impl Class {
    /// Up to here there is a class for each number of slots.
    pub const EXACT_MAX: u16 = 32;

    /// All that there are.
    pub fn all() -> impl Iterator<Item = Self> {
        let random = (1..=Self::EXACT_MAX).chain(FINE).map(Self::random);
        random.chain([Self::STAYING])
    }

    /// One slot, the first of any service.
    pub const SINGLE: Self = Self::random(1);

    /// For services whose clients stay with an instance.
    const STAYING: Self = Self {
        draw: Draw::Source,
        slots: STAYING_SLOTS,
    };

    const fn random(slots: u16) -> Self {
        let draw = Draw::Random;
        Self { draw, slots }
    }

    /// By what a slot is drawn.
    pub const fn draw(self) -> Draw {
        self.draw
    }

    /// How many slots.
    pub const fn slots(self) -> u16 {
        self.slots
    }
}

/// Which instance has which slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots {
    class: Class,
    owners: Vec<SocketAddr>,
}

impl Slots {
    /// The slots of a spread; `None` if nobody gets anything. What was before is kept wherever it can
    /// be, so that a change is as small as it may be: only chance decides who gets a connection, and
    /// it does not matter which of the slots are an instance's own. Where clients stay it does, and
    /// the slots follow from the spread alone.
    pub fn of(spread: &Spread, before: Option<&Self>) -> Option<Self> {
        if spread.shares.is_empty() {
            return None;
        }
        Some(match spread.staying {
            Staying::Free => {
                let (slots, counts) = counted(&spread.shares);
                let before = before.map_or(&[][..], |before| &before.owners);
                Self {
                    class: Class::random(slots),
                    owners: keep(&spread.shares, counts, usize::from(slots), before),
                }
            }
            Staying::Source => Self {
                class: Class::STAYING,
                owners: rendezvous(&spread.shares),
            },
        })
    }

    /// Slots as they were; `None` if they are not of that number.
    pub fn restore(class: Class, owners: Vec<SocketAddr>) -> Option<Self> {
        (owners.len() == usize::from(class.slots())).then_some(Self { class, owners })
    }

    /// How many there are, and how one is drawn.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The instance of each slot.
    pub fn owners(&self) -> &[SocketAddr] {
        &self.owners
    }
}

/// The fewest slots that are near enough to the weights, and how many each share gets.
fn counted(shares: &[Share]) -> (u16, Vec<usize>) {
    let weights: Vec<u64> = shares.iter().map(|share| share.weight).collect();
    let enough = (1..=Class::EXACT_MAX)
        .chain(FINE)
        .filter(|slots| usize::from(*slots) >= shares.len());
    let mut last = (FINE[FINE.len() - 1], Vec::new());
    for slots in enough {
        let counts = largest_remainder(&weights, slots);
        let near = error_ppm(&weights, &counts, slots) <= ERROR_MAX_PPM;
        last = (slots, counts);
        if near {
            return last;
        }
    }
    if last.1.is_empty() {
        last.1 = largest_remainder(&weights, last.0);
    }
    last
}

/// Hamilton's method: each gets the whole part of its quota, and the largest remainders one more.
fn largest_remainder(weights: &[u64], slots: u16) -> Vec<usize> {
    let total: u128 = weights.iter().copied().map(u128::from).sum();
    let quota = |weight: u64| u128::from(weight) * u128::from(slots);
    let whole = |weight: &u64| usize::try_from(quota(*weight) / total).unwrap_or(usize::MAX);
    let mut counts: Vec<usize> = weights.iter().map(whole).collect();
    let left = usize::from(slots) - counts.iter().sum::<usize>();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by_key(|index| core::cmp::Reverse(quota(weights[*index]) % total));
    for index in by_remainder.into_iter().take(left) {
        counts[index] += 1;
    }
    counts
}

/// The greatest difference between what one gets and what it should.
fn error_ppm(weights: &[u64], counts: &[usize], slots: u16) -> u64 {
    let total: u128 = weights.iter().copied().map(u128::from).sum();
    let ppm =
        |part: u128, of: u128| u64::try_from(part * u128::from(ALL_PPM) / of).unwrap_or(ALL_PPM);
    let pairs = weights.iter().zip(counts);
    let errors = pairs.map(|(weight, count)| {
        let wanted = ppm(u128::from(*weight), total);
        let given = ppm(*count as u128, u128::from(slots));
        wanted.abs_diff(given)
    });
    errors.max().unwrap_or(0)
}

/// Gives each share as many slots as counted, its own of before as far as they go.
fn keep(
    shares: &[Share],
    mut counts: Vec<usize>,
    slots: usize,
    before: &[SocketAddr],
) -> Vec<SocketAddr> {
    let of = |owner: &SocketAddr| shares.binary_search_by_key(owner, |share| share.to).ok();
    let mut owners: Vec<Option<usize>> = vec![None; slots];
    for (slot, owner) in owners.iter_mut().zip(before) {
        let Some(index) = of(owner).filter(|index| counts[*index] > 0) else {
            continue;
        };
        counts[index] -= 1;
        *slot = Some(index);
    }
    let mut left = counts
        .iter()
        .enumerate()
        .flat_map(|(index, count)| core::iter::repeat_n(index, *count));
    let filled = owners.into_iter().map(|slot| slot.or_else(|| left.next()));
    // Counts add up to the slots, so that none is left empty.
    filled.flatten().map(|index| shares[index].to).collect()
}

/// Weighted rendezvous hashing (Schindelhauer, Schomaker 2005): each slot goes to the highest of
/// -weight / ln(hash). An instance that is lost gives up its slots and no other moves; the same on
/// every node.
fn rendezvous(shares: &[Share]) -> Vec<SocketAddr> {
    let best = |slot: u16| {
        let scores = shares.iter().map(|share| (score(slot, share), share.to));
        scores.max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
    };
    let slots = (0..STAYING_SLOTS).filter_map(best);
    slots.map(|(_, to)| to).collect()
}

fn score(slot: u16, share: &Share) -> f64 {
    // Above 0 and below 1: 53 bits, and a half.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let drawn = ((hash(slot, share.to) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    #[expect(clippy::cast_precision_loss, reason = "only the order counts")]
    let weight = share.weight as f64;
    -weight / libm::log(drawn)
}

/// FNV-1a of the slot and the address, then the finalizer of splitmix64, since FNV alone hardly
/// changes its upper bits with the last bytes.
fn hash(slot: u16, address: SocketAddr) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    match address {
        SocketAddr::V4(v4) => eat(&v4.ip().octets()),
        SocketAddr::V6(v6) => eat(&v6.ip().octets()),
    }
    eat(&address.port().to_be_bytes());
    eat(&slot.to_be_bytes());
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use core::net::Ipv4Addr;

    fn instance(last: usize) -> SocketAddr {
        let [.., high, low] = last.to_be_bytes();
        SocketAddr::from((Ipv4Addr::new(10, 77, high, low), 80))
    }

    fn spread(weights: &[u64], staying: Staying) -> Spread {
        let shares = weights.iter().enumerate();
        let shares = shares.map(|(index, weight)| Share {
            to: instance(index),
            weight: *weight,
        });
        let shares = shares.collect();
        Spread { staying, shares }
    }

    fn counts(slots: &Slots) -> BTreeMap<SocketAddr, usize> {
        let mut counts = BTreeMap::new();
        for owner in slots.owners() {
            *counts.entry(*owner).or_default() += 1;
        }
        counts
    }

    fn free(weights: &[u64]) -> Slots {
        Slots::of(&spread(weights, Staying::Free), None).expect("there are instances")
    }

    #[test]
    fn nobody_has_no_slots() {
        assert_eq!(Slots::of(&Spread::default(), None), None);
    }

    #[test]
    fn a_few_equal_instances_get_a_slot_each() {
        for count in 1..=usize::from(Class::EXACT_MAX) {
            let slots = free(&vec![7; count]);
            assert_eq!(slots.owners().len(), count);
            assert!(counts(&slots).values().all(|slots| *slots == 1));
        }
    }

    #[test]
    fn up_to_fifty_instances_are_within_half_a_percentage_point() {
        for count in 1..=50_usize {
            let slots = free(&vec![1; count]);
            let all = slots.owners().len();
            for own in counts(&slots).values() {
                let error = (own * count).abs_diff(all) * 1000 / (all * count);
                assert!(error <= 5, "{own} of {all} for one of {count}");
            }
        }
    }

    #[test]
    fn weights_get_their_shares() {
        let slots = free(&[70, 25, 5]);
        assert_eq!(slots.class().slots(), 20);
        let counts: Vec<usize> = counts(&slots).into_values().collect();
        assert_eq!(counts, [14, 5, 1]);
        // A thousandth is as good as nothing, three of them are not.
        assert_eq!(free(&[999, 1]).class().slots(), 2);
        assert_eq!(free(&[997, 3]).class().slots(), 256);
    }

    #[test]
    fn more_instances_than_slots_are_no_error() {
        let slots = free(&vec![1; 1500]);
        assert_eq!(slots.owners().len(), 1000);
    }

    #[test]
    fn a_class_exists_for_whatever_is_chosen() {
        let all: Vec<Class> = Class::all().collect();
        for count in 1..=1200_usize {
            assert!(all.contains(&free(&vec![3; count]).class()));
        }
        let staying = Slots::of(&spread(&[1, 1], Staying::Source), None).expect("two");
        assert!(all.contains(&staying.class()));
    }

    #[test]
    fn a_change_touches_no_more_slots_than_it_must() {
        let five = free(&[1; 5]);
        let without: Vec<Share> = spread(&[1; 5], Staying::Free)
            .shares
            .into_iter()
            .filter(|share| share.to != instance(1))
            .collect();
        let spread = Spread {
            staying: Staying::Free,
            shares: without,
        };
        let four = Slots::of(&spread, Some(&five)).expect("four are left");
        let pairs = five.owners().iter().zip(four.owners());
        // The slot of the lost one goes to the one whose slot is no more.
        assert_eq!(pairs.filter(|(before, after)| before != after).count(), 1);
        assert_eq!(Slots::of(&spread, Some(&four)), Some(four));
    }

    #[test]
    fn a_lost_instance_moves_its_own_clients_alone() {
        let all = spread(&[1; 8], Staying::Source);
        let before = Slots::of(&all, None).expect("eight");
        let lost = instance(3);
        let left = Spread {
            shares: all
                .shares
                .iter()
                .copied()
                .filter(|share| share.to != lost)
                .collect(),
            ..all
        };
        let after = Slots::of(&left, Some(&before)).expect("seven");
        for (was, is) in before.owners().iter().zip(after.owners()) {
            assert!(was == is || *was == lost, "{was} became {is}");
        }
        assert!(!after.owners().contains(&lost));
    }

    #[test]
    fn clients_that_stay_are_spread_by_weight_too() {
        let slots = Slots::of(&spread(&[300, 100], Staying::Source), None).expect("two");
        let counts = counts(&slots);
        let first = counts[&instance(0)];
        assert!((170..215).contains(&first), "{first} of 256 instead of 192");
    }
}
