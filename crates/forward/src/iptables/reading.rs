//! What the chains have, for whoever did not make them.

use std::net::SocketAddr;

use mainstay_control::forward::{Class, Draw, Share, Slots, Spread, Staying};
use mainstay_kernel::netlink::Prefix;
use mainstay_model::Network;
use mainstay_model::forward::{BackEndKind, Ranges};

use super::command::{Programs, Variant};
use super::rules::{self, Ip, Order, Protocol};
use super::state::{self, InForce};
use super::text::{Saved, value_of};
use super::{Look, look, mend};
use crate::back_end::ForwardError;
use crate::reading::{Reading, ServiceReading};
use crate::xtables;

/// Into how many parts all connections are divided to find the shares of rules of chance; the kernel has 31 bits.
const WHOLE: f64 = 1e9;

/// Reads the chains of this thread's network namespace; `None` if there are none. `ranges` is where service addresses
/// lie. Starts programs, and is slow with very many services: it is no part of any change.
pub fn read(ranges: &[Prefix]) -> Result<Option<Reading>, ForwardError> {
    let mut reading = Reading {
        back_end: BackEndKind::Iptables,
        dormant: false,
        altered: Vec::new(),
        services: Vec::new(),
        dead: Vec::new(),
        traffic: std::collections::BTreeMap::new(),
    };
    let mut is_there = false;
    for (ip, variant) in there() {
        let Ok(programs) = Programs::find(ip, variant) else {
            continue;
        };
        let look = look(&programs)?;
        if look.tables().iter().all(|saved| saved.chains.is_empty()) {
            continue;
        }
        is_there = true;
        let mut in_force = InForce::default();
        in_force.adopt(&look.nat, &look.filter);
        reading.services.extend(services(&look.nat, &in_force));
        reading.dead.extend(&in_force.dead);
        if let Some(ranges) = of_ip(ip, ranges) {
            let altered = altered(ip, &ranges, &look, &in_force);
            let program = ip.program();
            let altered = altered.into_iter().map(|what| format!("{program}: {what}"));
            reading.altered.extend(altered);
        }
    }
    reading.services.sort_by_key(|service| service.address);
    Ok(is_there.then_some(reading))
}

/// The iptables that there are. To ask for the old tables would make them.
fn there() -> Vec<(Ip, Option<Variant>)> {
    let variants = xtables::variants().into_iter().map(|found| {
        let ip = if found.ipv6 { Ip::V6 } else { Ip::V4 };
        let variant = match found.name.rsplit_once('-') {
            Some((_, "legacy")) => Some(Variant::Legacy),
            Some((_, "nft")) => Some(Variant::Nft),
            Some(_) | None => None,
        };
        (ip, variant)
    });
    variants.collect()
}

fn of_ip(ip: Ip, ranges: &[Prefix]) -> Option<Ranges> {
    let own = ranges.iter().filter(|range| Ip::of(range.address()) == ip);
    let networks = own.filter_map(|range| Network::parse(&range.to_string()).ok());
    Ranges::new(networks.collect()).ok()
}

/// What of the constant rules is otherwise than it is made. Where the node itself listens is not known here, so of the
/// table `filter` only what leads into our chains is looked at.
fn altered(ip: Ip, ranges: &Ranges, look: &Look, in_force: &InForce) -> Vec<String> {
    let mut nat = rules::nat(ip, ranges, in_force.services_of(ip));
    // In which order the ranges are written is not known here, and changes nothing.
    for chain in ["MAINSTAY-SERVICES", "MAINSTAY-POSTROUTING"] {
        if let Some((order, _)) = nat.chains.get_mut(chain) {
            *order = Order::Free;
        }
    }
    let mut filter = rules::filter(ip, ranges, &[], in_force.dead_of(ip));
    filter.chains.clear();
    let hooks = Saved {
        chains: std::collections::BTreeMap::new(),
        hooks: look.filter.hooks.clone(),
    };
    let nat = mend::mend("nat", &look.nat, &nat);
    let filter = mend::mend("filter", &hooks, &filter);
    let both = nat.into_iter().chain(filter);
    both.flat_map(|(_, wrong)| wrong).collect()
}

fn services(nat: &Saved, in_force: &InForce) -> Vec<ServiceReading> {
    let mut found: Vec<ServiceReading> = Vec::new();
    for (address, _, connections) in state::services(nat, Protocol::Tcp) {
        if found.iter().any(|known| known.address == address) {
            continue;
        }
        let service = in_force.services.get(&address);
        found.push(ServiceReading {
            address,
            slots: service.and_then(|service| slots(&service.rules)),
            connections,
        });
    }
    found
}

/// Who gets which part of what meets these rules; `None`: some of it meets none of them, or they are not of our form.
fn slots(rules: &[String]) -> Option<Slots> {
    if rules.iter().any(|rule| rule.contains("-m cluster")) {
        return staying(rules);
    }
    let mut left = 1.0;
    let mut shares = Vec::new();
    for rule in rules {
        let of_left: f64 = value_of(rule, "--probability")?.parse().ok()?;
        if !(0.0..=1.0).contains(&of_left) {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is between 0 and a billion"
        )]
        let weight = (left * of_left * WHOLE).round() as u64;
        left *= 1.0 - of_left;
        shares.push(Share {
            to: to(rule)?,
            weight,
        });
    }
    // The last takes all that is left.
    if left > 0.0 {
        return None;
    }
    shares.retain(|share| share.weight > 0);
    shares.sort_unstable_by_key(|share| share.to);
    let staying = Staying::Free;
    Slots::of(&Spread { staying, shares }, None)
}

fn staying(found: &[String]) -> Option<Slots> {
    let class = Class::all().find(|class| class.draw() == Draw::Source)?;
    let owners: Option<Vec<SocketAddr>> = found.iter().map(|rule| to(rule)).collect();
    let slots = Slots::restore(class, owners?)?;
    (rules::stay(&slots) == found).then_some(slots)
}

fn to(rule: &str) -> Option<SocketAddr> {
    value_of(rule, "--to-destination")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(staying: Staying, weights: &[u64]) -> Spread {
        let shares = weights.iter().zip(100_u8..).map(|(weight, last)| Share {
            to: SocketAddr::from(([192, 168, 10, last], 80)),
            weight: *weight,
        });
        let shares = shares.collect();
        Spread { staying, shares }
    }

    #[test]
    fn shares_are_read_from_the_rules_of_chance_and_of_hashes() {
        for weights in [&[1][..], &[1; 3], &[70, 25, 5], &[1; 50], &[999, 1]] {
            for staying in [Staying::Free, Staying::Source] {
                let wanted = spread(staying, weights);
                let rules = rules::instance_rules(&wanted);
                let found = slots(&rules).unwrap();
                let expected = Slots::of(&wanted, None).unwrap();
                assert_eq!(found, expected, "{weights:?} {staying:?}");
            }
        }
    }

    #[test]
    fn rules_that_let_some_pass_by_are_not_whole() {
        let rules = rules::instance_rules(&spread(Staying::Free, &[1; 3]));
        assert_eq!(slots(&rules[..2]), None);
        let rules = rules::instance_rules(&spread(Staying::Source, &[1; 3]));
        assert_eq!(slots(&rules[..255]), None);
        let mut other = rules.clone();
        other.swap(0, 1);
        assert_eq!(slots(&other), None);
    }
}
