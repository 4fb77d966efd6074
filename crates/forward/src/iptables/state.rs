//! What is in force, and how it is read from rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::rules::{self, Ip, Protocol, Service};
use super::text::{Saved, address_of, canonical, value_of};
use mainstay_control::forward::Batch;

/// Service addresses with their rules, and who is dead.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct InForce {
    pub(super) services: BTreeMap<SocketAddr, Service>,
    pub(super) dead: BTreeSet<SocketAddr>,
}

/// Why rules cannot be made of a batch.
#[derive(Debug, thiserror::Error)]
pub(super) enum BatchError {
    #[error("{service} lies in none of the networks of service addresses")]
    Elsewhere { service: SocketAddr },
    #[error("{service} and its instance {instance} are addresses of different versions of IP")]
    Mixed {
        service: SocketAddr,
        instance: SocketAddr,
    },
}

impl InForce {
    /// What a batch makes of it.
    pub(super) fn with(&self, batch: &Batch) -> Result<Self, BatchError> {
        let mut next = self.clone();
        // Numbers of what goes are not given to what comes in the same moment.
        let mut used = self.numbers();
        for (service, spread) in &batch.services {
            let mut instances = spread.shares.iter().map(|share| share.to);
            let mixed = instances.find(|to| to.is_ipv4() != service.is_ipv4());
            if let Some(instance) = mixed {
                let service = *service;
                return Err(BatchError::Mixed { service, instance });
            }
            let rules = rules::instance_rules(spread);
            if rules.is_empty() {
                next.services.remove(service);
                continue;
            }
            let before = self.services.get(service).map(|service| service.number);
            let number = before.unwrap_or_else(|| lowest(&mut used));
            next.services.insert(*service, Service { number, rules });
        }
        for address in &batch.gone {
            next.services.remove(address);
        }
        next.dead.extend(&batch.dead);
        for address in &batch.revived {
            next.dead.remove(address);
        }
        Ok(next)
    }

    fn numbers(&self) -> BTreeSet<u32> {
        self.services
            .values()
            .map(|service| service.number)
            .collect()
    }

    /// Of one version of IP.
    pub(super) fn services_of(&self, ip: Ip) -> impl Iterator<Item = (&SocketAddr, &Service)> {
        let services = self.services.iter();
        services.filter(move |(address, _)| Ip::of(address.ip()) == ip)
    }

    /// Of one version of IP.
    pub(super) fn dead_of(&self, ip: Ip) -> impl Iterator<Item = &SocketAddr> {
        let dead = self.dead.iter();
        dead.filter(move |address| Ip::of(address.ip()) == ip)
    }

    /// Whether rules of a version of IP are different in another state.
    pub(super) fn differs(&self, other: &Self, ip: Ip) -> bool {
        !self.services_of(ip).eq(other.services_of(ip)) || !self.dead_of(ip).eq(other.dead_of(ip))
    }

    /// Takes over what an earlier process left. What is not complete, or not of our form, is not in
    /// force.
    pub(super) fn adopt(&mut self, nat: &Saved, filter: &Saved) {
        for (address, chain, _) in services(nat, Protocol::Tcp) {
            let number = rules::number_of(chain, Protocol::Tcp);
            let service = number.and_then(|number| read_service(nat, address, number));
            if let Some(service) = service {
                self.services.insert(address, service);
            }
        }
        let dead = filter.chains.get(rules::DEAD).into_iter().flatten();
        let dead = dead.filter_map(|line| {
            let address = read_place(&line.text)?;
            (canonical(&rules::dead_rule(address)) == line.text).then_some(address)
        });
        self.dead.extend(dead);
    }
}

fn lowest(used: &mut BTreeSet<u32>) -> u32 {
    let free = (1..).zip(used.iter()).find(|(free, used)| free != *used);
    let free = free.map_or_else(|| used.last().map_or(1, |last| last + 1), |(free, _)| free);
    used.insert(free);
    free
}

/// The rules by which services are found: address, chain, and packets that went there.
pub(super) fn services(
    nat: &Saved,
    protocol: Protocol,
) -> impl Iterator<Item = (SocketAddr, &str, u64)> {
    let lines = nat.chains.get(protocol.chain()).into_iter().flatten();
    lines.filter_map(|line| {
        let address = read_place(&line.text)?;
        Some((address, value_of(&line.text, "-j")?, line.packets))
    })
}

fn read_place(rule: &str) -> Option<SocketAddr> {
    let port = value_of(rule, "--dport")?.parse().ok()?;
    Some(SocketAddr::new(address_of(rule, "-d")?, port))
}

fn read_service(nat: &Saved, address: SocketAddr, number: u32) -> Option<Service> {
    let service = Service {
        number,
        rules: read_instances(nat, number, Protocol::Tcp)?,
    };
    let same = read_instances(nat, number, Protocol::Udp)? == service.rules;
    let found = Protocol::BOTH.into_iter().all(|protocol| {
        let chain = service.chain(protocol);
        let rule = canonical(&rules::service_rule(address, protocol, &chain));
        let lines = nat.chains.get(protocol.chain()).into_iter().flatten();
        lines.filter(|line| line.text == rule).count() == 1
    });
    (same && found && !service.rules.is_empty()).then_some(service)
}

fn read_instances(nat: &Saved, number: u32, protocol: Protocol) -> Option<Vec<String>> {
    let placeholder = Service {
        number,
        rules: Vec::new(),
    };
    let lines = nat.chains.get(&placeholder.chain(protocol))?;
    let prefix = format!("-p {} ", protocol.word());
    let rules = lines.iter().map(|line| {
        let rule = line.text.strip_prefix(&prefix)?;
        let _: SocketAddr = value_of(rule, "--to-destination")?.parse().ok()?;
        Some(rule.to_owned())
    });
    rules.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_number_is_taken() {
        let mut used = BTreeSet::from([1, 2, 4]);
        assert_eq!(lowest(&mut used), 3);
        assert_eq!(lowest(&mut used), 5);
        assert_eq!(lowest(&mut BTreeSet::from([2])), 1);
        assert_eq!(lowest(&mut BTreeSet::new()), 1);
    }
}
