//! What changes: who has which slot, and who is dead.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mainstay_control::forward::{Class, Slots};
use mainstay_kernel::netlink::Socket;
use mainstay_kernel::netlink::nft::{Dumped, Element, Family, Key, Name, Transaction, Verdict};

use super::rules::{self, Ip};
use super::{Counted, ip};
use mainstay_control::forward::Batch;

/// What is in force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct InForce {
    services: HashMap<SocketAddr, Slots>,
    dead: HashSet<SocketAddr>,
}

/// What is to be in force of the addresses that change.
#[derive(Debug, Clone, Default)]
pub(super) struct Change {
    /// In their order, so that a transaction is the same each time.
    services: BTreeMap<SocketAddr, Option<Slots>>,
    dead: BTreeMap<SocketAddr, Vital>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vital {
    Dead,
    Revived,
}

/// Elements to delete and to add, of one version of IP.
#[derive(Debug, Default)]
struct Elements {
    slots: (Vec<Element>, Vec<Element>),
    services: (Vec<Element>, Vec<Element>),
    dead: (Vec<Element>, Vec<Element>),
}

impl Elements {
    /// What is no more goes first: an element is changed by deleting and adding it.
    fn write(&self, ip: Ip, tx: &mut Transaction) {
        let all = [
            (rules::slots(ip), &self.slots),
            (rules::services(ip), &self.services),
            (rules::dead(ip), &self.dead),
        ];
        for (set, (deleted, added)) in all {
            tx.delete_elements(&set, deleted);
            tx.add_elements(&set, added);
        }
    }

    fn change_service(&mut self, address: SocketAddr, old: Option<&Slots>, new: Option<&Slots>) {
        let owners = |slots: Option<&Slots>| slots.map_or(0, |slots| slots.owners().len());
        for index in 0..owners(old).max(owners(new)) {
            let owner = |slots: Option<&Slots>| slots?.owners().get(index).copied();
            let (was, is) = (owner(old), owner(new));
            if was == is {
                continue;
            }
            let key = slot_key(address, index);
            if was.is_some() {
                self.slots.0.push(Element::key(key.clone()));
            }
            if let Some(to) = is {
                self.slots.1.push(Element::value(key, place(to)));
            }
        }
        let (was, is) = (old.map(Slots::class), new.map(Slots::class));
        if was == is {
            return;
        }
        if was.is_some() {
            self.services.0.push(Element::key(place(address)));
        }
        if let Some(class) = is {
            let verdict = Verdict::Goto(rules::chain_of(ip(address), class));
            self.services
                .1
                .push(Element::verdict(place(address), verdict));
        }
    }
}

fn place(address: SocketAddr) -> Key {
    Key::new().address(address.ip()).port(address.port())
}

fn slot_key(address: SocketAddr, index: usize) -> Key {
    place(address).number(u32::try_from(index).unwrap_or(u32::MAX))
}

impl InForce {
    /// Services and dead, in their order.
    pub(super) fn addresses(&self) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        let services: BTreeSet<SocketAddr> = self.services.keys().copied().collect();
        let dead: BTreeSet<SocketAddr> = self.dead.iter().copied().collect();
        (services.into_iter().collect(), dead.into_iter().collect())
    }

    /// What a batch makes of it.
    pub(super) fn with(&self, batch: &Batch) -> Change {
        let mut change = Change::default();
        for address in &batch.gone {
            change.services.insert(*address, None);
        }
        for (address, spread) in &batch.services {
            let slots = Slots::of(spread, self.services.get(address));
            change.services.insert(*address, slots);
        }
        for address in &batch.dead {
            change.dead.insert(*address, Vital::Dead);
        }
        for address in &batch.revived {
            change.dead.insert(*address, Vital::Revived);
        }
        change
    }

    /// All of it, as if there were nothing before.
    pub(super) fn as_change(&self) -> Change {
        let services = self.services.iter();
        let dead = self.dead.iter();
        Change {
            services: services
                .map(|(address, slots)| (*address, Some(slots.clone())))
                .collect(),
            dead: dead.map(|address| (*address, Vital::Dead)).collect(),
        }
    }

    pub(super) fn write_change(&self, change: &Change, tx: &mut Transaction) {
        for which in Ip::BOTH {
            let mut elements = Elements::default();
            let services = change.services.iter();
            for (address, new) in services.filter(|(address, _)| ip(**address) == which) {
                elements.change_service(*address, self.services.get(address), new.as_ref());
            }
            let dead = change.dead.iter();
            for (address, vital) in dead.filter(|(address, _)| ip(**address) == which) {
                let element = Element::key(place(*address));
                match (self.dead.contains(address), vital) {
                    (false, Vital::Dead) => elements.dead.1.push(element),
                    (true, Vital::Revived) => elements.dead.0.push(element),
                    (true, Vital::Dead) | (false, Vital::Revived) => {}
                }
            }
            elements.write(which, tx);
        }
    }
}

impl Change {
    /// What is in force after it.
    pub(super) fn applied(self, mut to: InForce) -> InForce {
        for (address, slots) in self.services {
            match slots {
                Some(slots) => drop(to.services.insert(address, slots)),
                None => drop(to.services.remove(&address)),
            }
        }
        for (address, vital) in self.dead {
            match vital {
                Vital::Dead => to.dead.insert(address),
                Vital::Revived => to.dead.remove(&address),
            };
        }
        to
    }

    /// For a message: the first few service addresses.
    pub(super) fn names(&self) -> String {
        const SHOWN: usize = 3;
        let names: Vec<String> = self
            .services
            .keys()
            .take(SHOWN)
            .map(SocketAddr::to_string)
            .collect();
        let more = self.services.len().saturating_sub(SHOWN);
        match (names.is_empty(), more) {
            (true, _) => "which instances are dead".to_owned(),
            (false, 0) => format!("the rules of {}", names.join(", ")),
            (false, more) => format!("the rules of {} and {more} more", names.join(", ")),
        }
    }
}

/// What the kernel has, by key as it is there.
pub(super) struct Present {
    slots: [HashMap<Vec<u8>, Option<Vec<u8>>>; 2],
    services: [HashMap<Vec<u8>, Option<String>>; 2],
    dead: [HashSet<Vec<u8>>; 2],
}

impl Present {
    /// Reads all elements: slow, and never for a change.
    pub(super) fn read(table: &Name, socket: &Socket) -> io::Result<Self> {
        let dump = |set: &Name| socket.dump_elements(Family::Inet, table, set);
        let slots = |ip| -> io::Result<_> {
            let found = dump(&rules::slots(ip))?.into_iter();
            Ok(found.map(|one| (one.key, one.value)).collect())
        };
        let services = |ip| -> io::Result<_> {
            let found = dump(&rules::services(ip))?.into_iter();
            Ok(found.map(|one| (one.key, one.chain)).collect())
        };
        let dead = |ip| -> io::Result<_> {
            let found = dump(&rules::dead(ip))?.into_iter();
            Ok(found.map(|one| one.key).collect())
        };
        Ok(Self {
            slots: [slots(Ip::V4)?, slots(Ip::V6)?],
            services: [services(Ip::V4)?, services(Ip::V6)?],
            dead: [dead(Ip::V4)?, dead(Ip::V6)?],
        })
    }

    /// What it says; of a service whose slots are not complete, nothing. `None`: this is not ours.
    pub(super) fn understood(&self) -> Option<InForce> {
        let mut state = InForce::default();
        for (index, ip) in Ip::BOTH.into_iter().enumerate() {
            for (key, chain) in &self.services[index] {
                let address = read_place(ip, key)?;
                let class = rules::class_of(ip, chain.as_deref()?)?;
                if let Some(slots) = self.slots_of(index, ip, address, class) {
                    state.services.insert(address, slots);
                }
            }
            for key in &self.dead[index] {
                state.dead.insert(read_place(ip, key)?);
            }
        }
        Some(state)
    }

    /// Each service with its slots, `None` if they are not complete, or its chain is none of ours.
    pub(super) fn services(&self) -> Vec<(SocketAddr, Option<Slots>)> {
        let mut found = Vec::new();
        for (index, ip) in Ip::BOTH.into_iter().enumerate() {
            found.extend(self.services[index].iter().filter_map(|(key, chain)| {
                let address = read_place(ip, key)?;
                let class = chain
                    .as_deref()
                    .and_then(|chain| rules::class_of(ip, chain));
                let slots = class.and_then(|class| self.slots_of(index, ip, address, class));
                Some((address, slots))
            }));
        }
        found.sort_unstable_by_key(|(address, _)| *address);
        found
    }

    /// Addresses of dead instances.
    pub(super) fn dead(&self) -> Vec<SocketAddr> {
        let both = Ip::BOTH.into_iter().zip(&self.dead);
        let mut found: Vec<_> = both
            .flat_map(|(ip, dead)| dead.iter().filter_map(move |key| read_place(ip, key)))
            .collect();
        found.sort_unstable();
        found
    }

    fn slots_of(&self, index: usize, ip: Ip, address: SocketAddr, class: Class) -> Option<Slots> {
        let owners = (0..usize::from(class.slots())).map(|slot| {
            let value = self.slots[index].get(&slot_key(address, slot).to_bytes())?;
            read_place(ip, value.as_deref()?)
        });
        Slots::restore(class, owners.collect::<Option<_>>()?)
    }

    /// Writes what makes it what it should be. How many elements that are.
    pub(super) fn mend(&self, wanted: &InForce, tx: &mut Transaction) -> usize {
        let mut count = 0;
        for (index, which) in Ip::BOTH.into_iter().enumerate() {
            let elements = self.difference(index, which, wanted);
            for (deleted, added) in [&elements.slots, &elements.services, &elements.dead] {
                count += deleted.len() + added.len();
            }
            elements.write(which, tx);
        }
        count
    }

    fn difference(&self, index: usize, which: Ip, wanted: &InForce) -> Elements {
        let mut slots = HashMap::new();
        let mut services = HashMap::new();
        let ours = wanted.services.iter();
        for (address, of) in ours.filter(|(address, _)| ip(**address) == which) {
            for (slot, owner) in of.owners().iter().enumerate() {
                slots.insert(slot_key(*address, slot), place(*owner));
            }
            services.insert(place(*address), rules::chain_of(which, of.class()));
        }
        let dead = wanted.dead.iter().filter(|address| ip(**address) == which);
        let dead = dead.map(|address| (place(*address), ())).collect();
        let dead_now = self.dead[index].iter().map(|key| (key.clone(), ()));
        Elements {
            slots: differ(
                &self.slots[index],
                slots,
                |found, wanted| found.as_ref() == Some(&wanted.to_bytes()),
                Element::value,
            ),
            services: differ(
                &self.services[index],
                services,
                |found, wanted| found.as_deref() == Some(wanted.as_str()),
                |key, chain| Element::verdict(key, Verdict::Goto(chain)),
            ),
            dead: differ(
                &dead_now.collect(),
                dead,
                |(), ()| true,
                |key, ()| Element::key(key),
            ),
        }
    }
}

/// What is to be deleted, and what is to be added.
fn differ<P, W>(
    present: &HashMap<Vec<u8>, P>,
    wanted: HashMap<Key, W>,
    is_same: impl Fn(&P, &W) -> bool,
    element: impl Fn(Key, W) -> Element,
) -> (Vec<Element>, Vec<Element>) {
    let mut deleted = Vec::new();
    let mut added = Vec::new();
    let mut kept = HashSet::new();
    for (key, value) in wanted {
        let bytes = key.to_bytes();
        match present.get(&bytes) {
            Some(found) if is_same(found, &value) => {}
            Some(_) => {
                deleted.push(Element::key(key.clone()));
                added.push(element(key, value));
            }
            None => added.push(element(key, value)),
        }
        kept.insert(bytes);
    }
    let surplus = present.keys().filter(|key| !kept.contains(*key));
    deleted.extend(surplus.map(|key| Element::key(Key::from_bytes(key))));
    (deleted, added)
}

fn read_place(ip: Ip, bytes: &[u8]) -> Option<SocketAddr> {
    let (address, rest) = bytes.split_at_checked(ip.address_len())?;
    let address: IpAddr = match ip {
        Ip::V4 => Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?).into(),
        Ip::V6 => Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?).into(),
    };
    let port = u16::from_be_bytes(rest.first_chunk().copied()?);
    Some(SocketAddr::new(address, port))
}

/// New connections by service address.
pub(super) fn connections(table: &Name, socket: &Socket) -> io::Result<Vec<(SocketAddr, u64)>> {
    let mut found = Vec::new();
    for ip in Ip::BOTH {
        let dumped = socket.dump_elements(Family::Inet, table, &rules::services(ip))?;
        found.extend(dumped.iter().filter_map(|one| {
            let (packets, _) = one.counted?;
            Some((read_place(ip, &one.key)?, packets))
        }));
    }
    found.sort_unstable();
    Ok(found)
}

/// Bytes by instance.
pub(super) fn traffic(table: &Name, socket: &Socket) -> io::Result<Vec<(SocketAddr, Counted)>> {
    let mut found: BTreeMap<SocketAddr, Counted> = BTreeMap::new();
    let bytes = |ip, one: &Dumped| Some((read_place(ip, &one.key)?, one.counted?.1));
    for ip in Ip::BOTH {
        for one in socket.dump_elements(Family::Inet, table, &rules::sent(ip))? {
            if let Some((address, bytes)) = bytes(ip, &one) {
                found.entry(address).or_default().sent = bytes;
            }
        }
        for one in socket.dump_elements(Family::Inet, table, &rules::received(ip))? {
            if let Some((address, bytes)) = bytes(ip, &one) {
                found.entry(address).or_default().received = bytes;
            }
        }
    }
    Ok(found.into_iter().collect())
}
