//! Which server a session goes to.

use alloc::vec::Vec;
use core::net::IpAddr;
use core::num::NonZeroU32;
use core::time::Duration;

use mainstay_ids::Instant;
use mainstay_model::listen::{Balance, Rank};

/// The share of its weight with which a server that came up begins its slow start: enough to see
/// that it works.
pub const SHARE_MIN: f64 = 0.1;

/// How finely a share of a weight is counted: a tenth of weight 1 is still some of it.
const WEIGHT_SCALE: f64 = 256.0;

/// One server, as a worker sees it at the moment of choosing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// What stays the same for it in every worker and over every restart: from its name.
    pub key: u64,
    /// Its weight, of a [`Candidate::share`] of it.
    pub weight: u32,
    /// When it is used.
    pub rank: Rank,
    /// Whether it may be chosen at all, and whether rather not.
    pub pick: Pick,
    /// Its sessions, over all workers.
    pub sessions: u32,
    /// How many it may have.
    pub sessions_max: Option<NonZeroU32>,
}

/// Whether a server may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// As any other.
    Willingly,
    /// Only if there is no other: a connection to it failed just now, and no check has spoken yet.
    Reluctantly,
    /// It is down, drained, in maintenance, or was tried for this very session.
    Never,
}

impl Candidate {
    /// What a server's weight counts as, `since` it came up, during a slow start of this length.
    pub fn share(weight: u16, since: Option<Instant>, now: Instant, slow: Option<Duration>) -> u32 {
        let full = f64::from(weight) * WEIGHT_SCALE;
        let share = match (since, slow) {
            (Some(since), Some(slow)) if now.since(since) < slow => {
                (now.since(since).as_secs_f64() / slow.as_secs_f64()).max(SHARE_MIN)
            }
            (Some(_) | None, Some(_) | None) => 1.0,
        };
        // At most 256 * 256, and never negative.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a weight fits"
        )]
        let counted = libm::ceil(full * share) as u32;
        counted
    }

    fn has_room(&self) -> bool {
        self.sessions_max
            .is_none_or(|most| self.sessions < most.get())
    }

    /// Sessions that it would have with one more, per weight. Compared only with another such.
    fn load(&self) -> f64 {
        (f64::from(self.sessions) + 1.0) / f64::from(self.weight)
    }
}

/// What there is to choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    /// The candidate at this place.
    One(usize),
    /// Those that could be chosen have all the sessions that they may have: waiting helps.
    Full,
    /// None may be chosen.
    Nobody,
}

/// How one worker chooses among the servers of one listener.
#[derive(Debug, Clone)]
pub struct Choice {
    balance: Balance,
    /// For round robin: what each is owed, in the order of the candidates.
    owed: Vec<i64>,
    /// The candidates of the tier that is chosen from. Kept, so that a choice allocates nothing.
    tier: Vec<usize>,
}

impl Choice {
    /// Nothing has been chosen yet.
    pub fn new(balance: Balance) -> Self {
        Self {
            balance,
            owed: Vec::new(),
            tier: Vec::new(),
        }
    }

    /// Chooses one of `candidates` for a client's address. `random` is evenly distributed.
    ///
    /// A backup is chosen while no main server can be; one that a connection failed to, while no
    /// other of its rank can be. A full server is passed over.
    pub fn choose(&mut self, candidates: &[Candidate], client: IpAddr, random: u64) -> Chosen {
        match self.fill_tier(candidates) {
            Tier::Nobody => return Chosen::Nobody,
            Tier::Full => return Chosen::Full,
            Tier::Filled => {}
        }
        let at = match self.balance {
            Balance::LeastConnections => least(candidates, &self.tier, random),
            Balance::RoundRobin => self.next_owed(candidates, random),
            Balance::Random => two_choices(candidates, &self.tier, random),
            Balance::Source => by_source(candidates, &self.tier, client),
        };
        at.map_or(Chosen::Nobody, Chosen::One)
    }

    /// The candidates of the best tier that has room. A full main server does not call for a backup:
    /// the backup's data may be old, and the load is no reason to show it.
    fn fill_tier(&mut self, candidates: &[Candidate]) -> Tier {
        let tiers = [
            (Rank::Main, Pick::Willingly),
            (Rank::Main, Pick::Reluctantly),
            (Rank::Backup, Pick::Willingly),
            (Rank::Backup, Pick::Reluctantly),
        ];
        let mut full = None;
        for (rank, pick) in tiers {
            if full.is_some_and(|full| full != rank) {
                break;
            }
            self.tier.clear();
            for (at, candidate) in candidates.iter().enumerate() {
                if candidate.rank == rank && candidate.pick == pick && candidate.weight > 0 {
                    if candidate.has_room() {
                        self.tier.push(at);
                    } else {
                        full = Some(rank);
                    }
                }
            }
            if !self.tier.is_empty() {
                return Tier::Filled;
            }
        }
        if full.is_some() {
            Tier::Full
        } else {
            Tier::Nobody
        }
    }

    /// Smooth weighted round robin: each is owed its weight per round, the one owed most is chosen
    /// and pays what all were given. So a heavy server is not chosen many times in a row.
    fn next_owed(&mut self, candidates: &[Candidate], random: u64) -> Option<usize> {
        if self.owed.len() != candidates.len() {
            self.owed = first_owed(candidates, random);
        }
        let mut given = 0;
        for &at in &self.tier {
            let weight = i64::from(candidates[at].weight);
            self.owed[at] += weight;
            given += weight;
        }
        let at = self.tier.iter().copied().max_by_key(|&at| self.owed[at])?;
        self.owed[at] -= given;
        // One that could not be chosen for long, or whose weight fell, must not be owed a burst.
        for owed in &mut self.owed {
            *owed = (*owed).clamp(-given, given);
        }
        Some(at)
    }
}

/// Whether there are candidates to choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tier {
    Filled,
    Full,
    Nobody,
}

/// Workers begin at different places, so that the first sessions of all do not go to one server.
fn first_owed(candidates: &[Candidate], random: u64) -> Vec<i64> {
    let keyed = candidates.iter().map(|candidate| {
        let weight = u64::from(candidate.weight).max(1);
        i64::try_from(mix(candidate.key ^ random) % weight).unwrap_or_default()
    });
    keyed.collect()
}

/// Of equals a random one: else the first of the file would get every session while all are idle.
fn least(candidates: &[Candidate], tier: &[usize], random: u64) -> Option<usize> {
    let order = |at: usize| mix(random ^ candidates[at].key);
    tier.iter().copied().min_by(|&a, &b| {
        let loads = candidates[a].load().total_cmp(&candidates[b].load());
        loads.then_with(|| order(a).cmp(&order(b)))
    })
}

/// Power of two choices. The halves of `random` are as good as two numbers.
fn two_choices(candidates: &[Candidate], tier: &[usize], random: u64) -> Option<usize> {
    let first = by_weight(candidates, tier, random >> 32)?;
    let second = by_weight(candidates, tier, random & 0xFFFF_FFFF)?;
    let lighter = candidates[first].load() <= candidates[second].load();
    Some(if lighter { first } else { second })
}

/// `random` is below 2^32.
fn by_weight(candidates: &[Candidate], tier: &[usize], random: u64) -> Option<usize> {
    let sum: u64 = tier
        .iter()
        .map(|&at| u64::from(candidates[at].weight))
        .sum();
    let mut point = (random * sum) >> 32;
    for &at in tier {
        let weight = u64::from(candidates[at].weight);
        if point < weight {
            return Some(at);
        }
        point -= weight;
    }
    tier.last().copied()
}

/// Weighted rendezvous hashing: the highest score of client and server wins. A server that goes
/// moves only its own clients, and one that comes takes only its share; there is no ring to keep.
fn by_source(candidates: &[Candidate], tier: &[usize], client: IpAddr) -> Option<usize> {
    let client = key_of(client);
    let score = |at: usize| {
        let candidate = &candidates[at];
        // 53 bits fill a float's fraction; never 0, of which there is no logarithm.
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit a float exactly")]
        let hash = ((mix(client ^ candidate.key) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        f64::from(candidate.weight) / -libm::log(hash)
    };
    tier.iter()
        .copied()
        .max_by(|&a, &b| score(a).total_cmp(&score(b)))
}

fn key_of(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(v4) => mix(u64::from(v4.to_bits())),
        IpAddr::V6(v6) => {
            // A client of IPv6 has a /64 and changes its address within it.
            let [a, b, c, d, ..] = v6.segments();
            mix([a, b, c, d]
                .into_iter()
                .fold(0, |sum, segment| (sum << 16) | u64::from(segment)))
        }
    }
}

/// The finaliser of splitmix64: every bit of the result depends on every bit of the argument.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

impl Candidate {
    /// The key of a server of this name (FNV-1a).
    pub fn key_of(name: &str) -> u64 {
        name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    fn servers(weights: &[u16]) -> Vec<Candidate> {
        let make = |(at, weight): (usize, &u16)| Candidate {
            key: Candidate::key_of(&alloc::format!("10.0.0.{at}:5672")),
            weight: Candidate::share(*weight, None, Instant::START, None),
            rank: Rank::Main,
            pick: Pick::Willingly,
            sessions: 0,
            sessions_max: None,
        };
        weights.iter().enumerate().map(make).collect()
    }

    /// A source of random numbers that is the same in each run.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 += 1;
            mix(self.0)
        }
    }

    fn client(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(0x0A00_0000 + number))
    }

    /// How often each server is chosen when each session stays.
    fn sessions(balance: Balance, candidates: &mut [Candidate], count: u32) -> Vec<u32> {
        let mut choice = Choice::new(balance);
        let mut random = Random(0);
        let mut chosen = alloc::vec![0; candidates.len()];
        for number in 0..count {
            let Chosen::One(at) = choice.choose(candidates, client(number), random.next()) else {
                panic!("somebody can be chosen");
            };
            candidates[at].sessions += 1;
            chosen[at] += 1;
        }
        chosen
    }

    #[test]
    fn each_algorithm_gives_each_server_the_share_of_its_weight() {
        for (balance, tolerance) in [
            (Balance::LeastConnections, 2),
            (Balance::RoundRobin, 2),
            (Balance::Random, 300),
            (Balance::Source, 500),
        ] {
            let chosen = sessions(balance, &mut servers(&[1, 2, 0, 5]), 16_000);
            for (at, expected) in [2000u32, 4000, 0, 10_000].into_iter().enumerate() {
                let off = chosen[at].abs_diff(expected);
                assert!(off <= tolerance, "{balance:?}: {chosen:?}");
            }
        }
    }

    #[test]
    fn round_robin_does_not_choose_a_heavy_server_many_times_in_a_row() {
        let candidates = servers(&[5, 1, 1]);
        let mut choice = Choice::new(Balance::RoundRobin);
        let chosen: Vec<Chosen> = (0..700)
            .map(|_| choice.choose(&candidates, client(0), 7))
            .collect();
        // Two before and two after the others, in each round.
        let mut in_a_row = chosen.windows(5);
        assert!(
            !in_a_row.any(|five| five.iter().all(|one| *one == Chosen::One(0))),
            "{chosen:?}"
        );
        let first = chosen.iter().filter(|one| **one == Chosen::One(0)).count();
        assert!(first.abs_diff(500) <= 3, "{first} of 700");
    }

    #[test]
    fn round_robin_owes_no_burst_to_a_server_that_comes_back() {
        let mut candidates = servers(&[1, 1]);
        let mut choice = Choice::new(Balance::RoundRobin);
        candidates[0].pick = Pick::Never;
        for _ in 0..1000 {
            assert_eq!(choice.choose(&candidates, client(0), 0), Chosen::One(1));
        }
        candidates[0].pick = Pick::Willingly;
        let ten = (0..10).map(|_| choice.choose(&candidates, client(0), 0));
        let first = ten.filter(|one| *one == Chosen::One(0)).count();
        assert!((4..=7).contains(&first), "{first} of 10");
    }

    #[test]
    fn idle_equals_share_their_first_sessions() {
        let candidates = servers(&[1, 1, 1, 1]);
        let mut random = Random(5);
        let mut choice = Choice::new(Balance::LeastConnections);
        let mut chosen = [0u32; 4];
        for _ in 0..4000 {
            if let Chosen::One(at) = choice.choose(&candidates, client(0), random.next()) {
                chosen[at] += 1;
            }
        }
        assert!(
            chosen.iter().all(|count| (850..1150).contains(count)),
            "{chosen:?}"
        );
    }

    #[test]
    fn a_client_keeps_its_server_when_others_come_and_go() {
        let mut candidates = servers(&[1; 10]);
        let mut choice = Choice::new(Balance::Source);
        let mut choose =
            |candidates: &[Candidate], number| match choice.choose(candidates, client(number), 0) {
                Chosen::One(at) => at,
                Chosen::Full | Chosen::Nobody => panic!("somebody can be chosen"),
            };
        let before: Vec<usize> = (0..10_000)
            .map(|number| choose(&candidates, number))
            .collect();
        candidates[3].pick = Pick::Never;
        let mut moved = [0u32; 10];
        for (number, &at) in (0..).zip(&before) {
            let after = choose(&candidates, number);
            if at == 3 {
                assert_ne!(after, 3);
                moved[after] += 1;
            } else {
                assert_eq!(after, at, "only the clients of the lost server move");
            }
        }
        let spread = moved
            .iter()
            .enumerate()
            .all(|(at, count)| at == 3 || *count > 60);
        assert!(spread, "they are spread over all others: {moved:?}");
    }

    #[test]
    fn clients_of_one_ipv6_network_are_one_source() {
        let candidates = servers(&[1; 10]);
        let mut choice = Choice::new(Balance::Source);
        let mut at = |text: &str| choice.choose(&candidates, text.parse().expect("an address"), 0);
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_eq!(at("::ffff:10.0.0.9"), at("10.0.0.9"));
    }

    #[test]
    fn a_backup_serves_only_while_no_main_server_can() {
        let mut candidates = servers(&[1, 1, 1]);
        candidates[0].rank = Rank::Backup;
        for balance in Balance::ALL.map(|(_, balance)| balance) {
            let mut candidates = candidates.clone();
            let mut choice = Choice::new(balance);
            let mut choose = |candidates: &[Candidate]| choice.choose(candidates, client(1), 3);
            assert_ne!(choose(&candidates), Chosen::One(0));
            candidates[1].pick = Pick::Reluctantly;
            candidates[2].pick = Pick::Never;
            assert_eq!(
                choose(&candidates),
                Chosen::One(1),
                "rather than the backup"
            );
            candidates[1].pick = Pick::Never;
            assert_eq!(choose(&candidates), Chosen::One(0));
            candidates[0].pick = Pick::Never;
            assert_eq!(choose(&candidates), Chosen::Nobody);
        }
    }

    #[test]
    fn a_full_server_is_passed_over_and_all_full_is_not_nobody() {
        let mut candidates = servers(&[1, 1, 1]);
        for candidate in &mut candidates[..2] {
            candidate.sessions_max = NonZeroU32::new(2);
        }
        candidates[2].rank = Rank::Backup;
        for balance in Balance::ALL.map(|(_, balance)| balance) {
            let mut candidates = candidates.clone();
            let chosen = sessions(balance, &mut candidates[..2], 4);
            assert_eq!(chosen, [2, 2], "{balance:?}");
            let mut choice = Choice::new(balance);
            let chosen = choice.choose(&candidates, client(1), 0);
            assert_eq!(chosen, Chosen::Full, "the backup is not for load");
        }
    }

    #[test]
    fn a_slow_start_grows_from_a_tenth_to_the_whole_weight() {
        let share = |seconds| {
            let now = Instant::START.after(Duration::from_secs(seconds));
            Candidate::share(10, Some(Instant::START), now, Some(Duration::from_secs(20)))
        };
        assert_eq!((share(0), share(10), share(20)), (256, 1280, 2560));
        let now = Instant::START;
        assert_eq!(
            Candidate::share(10, None, now, Some(Duration::from_secs(20))),
            2560
        );
        assert_eq!(
            Candidate::share(0, Some(now), now, Some(Duration::from_secs(20))),
            0
        );
    }
}
