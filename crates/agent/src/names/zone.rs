//! What there is under `mainstay.internal`, made from a directory.
//!
//! ```text
//!   mainstay.internal                      SOA, NS ns.dns.mainstay.internal
//!   ns.dns.mainstay.internal               A or AAAA: where this server listens
//!   SERVICE.mainstay.internal              with a service address: A or AAAA of it, SRV with its port
//!                                          without: A, AAAA of the instances, SRV with their ports
//!   INSTANCE.SERVICE.mainstay.internal     A or AAAA of the instance, for services without an address
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use hickory_proto::ProtoError;
use hickory_proto::rr::rdata::{A, AAAA, HINFO, NS, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use mainstay_ids::Generation;
use mainstay_model::directory::{Directory, Listed, Listing, ZONE};

/// How long an answer may be kept, in seconds, and a denial, too. A service's address seldom changes; what
/// is found at its instances does with each of them. Long enough that a client in a loop asks 12 times a
/// minute, short enough that who follows names is not behind for longer than a rollout's first step.
pub const TTL: u32 = 5;

/// The label below which the server itself has a name. A service may be called so, too.
const SERVERS: &str = "dns";
/// The name of the server there.
const SERVER: &str = "ns";

/// What is in the zone at one moment.
#[derive(Debug, Clone)]
pub struct Zone {
    /// `None`: not known yet, so that nothing can be denied either.
    listings: Option<BTreeMap<String, Listing>>,
    serial: u32,
    /// Where the server listens.
    server: SocketAddr,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy)]
enum Node<'a> {
    /// The zone itself.
    Apex,
    /// This server.
    Server(SocketAddr),
    /// A service that has an address.
    Addressed(SocketAddr),
    /// A service that is found at its instances.
    Instances(&'a Listing),
    /// One of these.
    Instance(&'a Listed),
    /// Nothing but that there are names below it.
    Above,
}

/// What the zone says to a question.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) answers: Vec<Record>,
    /// What whoever asked will ask for next.
    pub(super) additional: Vec<Record>,
}

/// What the zone says when it has nothing to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// There is no such name, nor one below it.
    Name,
    /// Nothing is known yet.
    Everything,
}

impl Zone {
    /// A zone of which nothing is known yet.
    pub fn unknown(server: SocketAddr) -> Self {
        Self {
            listings: None,
            serial: 0,
            server,
        }
    }

    /// What a directory says.
    pub fn of(directory: &Directory, server: SocketAddr) -> Self {
        let listings = directory.services.iter();
        let by_name = listings.map(|listing| (listing.service.to_string(), listing.clone()));
        Self {
            listings: Some(by_name.collect()),
            serial: serial(directory.generation),
            server,
        }
    }

    /// The part of a name that is before the zone's, in lower case; `None`: it is no name of the zone.
    pub(super) fn within<'n>(labels: impl Iterator<Item = &'n [u8]>) -> Option<Vec<Vec<u8>>> {
        let mut labels: Vec<Vec<u8>> = labels.map(<[u8]>::to_ascii_lowercase).collect();
        for own in ZONE.rsplit('.') {
            if labels.pop()? != own.as_bytes() {
                return None;
            }
        }
        Some(labels)
    }

    /// The records of this type at `name`, which is `labels` within the zone. `turn`: with which of
    /// several the list begins, so that clients who take the first do not all take the same.
    pub(super) fn look_up(
        &self,
        name: &Name,
        labels: &[Vec<u8>],
        kind: RecordType,
        turn: usize,
    ) -> Result<Found, Missing> {
        let listings = self.listings.as_ref().ok_or(Missing::Everything)?;
        let node = self.node(listings, labels).ok_or(Missing::Name)?;
        // What cannot be written as a name is not found under one: no name of ours is that long.
        let mut found = self
            .records(name, node, kind)
            .map_err(|_| Missing::Everything)?;
        if let Some(middle) = turn.checked_rem(found.answers.len()) {
            found.answers.rotate_left(middle);
        }
        Ok(found)
    }

    fn node<'a>(
        &self,
        listings: &'a BTreeMap<String, Listing>,
        labels: &[Vec<u8>],
    ) -> Option<Node<'a>> {
        let words: Option<Vec<&str>> = labels
            .iter()
            .map(|label| std::str::from_utf8(label).ok())
            .collect();
        match words?.as_slice() {
            [] => Some(Node::Apex),
            [service] => match listings.get(*service) {
                Some(listing) => Some(match listing.address {
                    Some(address) => Node::Addressed(address),
                    None => Node::Instances(listing),
                }),
                None if *service == SERVERS => Some(Node::Above),
                None => None,
            },
            [SERVER, SERVERS] => Some(Node::Server(self.server)),
            [instance, service] => {
                let listing = listings.get(*service)?;
                if listing.address.is_some() {
                    return None;
                }
                let mut listed = listing.instances.iter();
                let one = listed.find(|one| one.instance.to_string() == *instance);
                one.map(Node::Instance)
            }
            [..] => None,
        }
    }

    fn records(&self, name: &Name, node: Node<'_>, kind: RecordType) -> Result<Found, ProtoError> {
        if kind == RecordType::ANY {
            // RFC 8482, 4.2: nobody needs more, but who wants to make us send much to somebody else.
            let nothing = HINFO::new("RFC8482".to_owned(), String::new());
            return Ok(Found::only(vec![record(name, RData::HINFO(nothing))]));
        }
        match node {
            Node::Apex => self.of_apex(name, kind).map(Found::only),
            Node::Server(address) | Node::Addressed(address) if kind != RecordType::SRV => {
                Ok(Found::only(addresses(name, kind, &[address.ip()])))
            }
            Node::Addressed(address) => Ok(Found {
                answers: vec![record(name, service_at(address.port(), 0, name.clone()))],
                additional: both(name, address.ip()),
            }),
            Node::Instances(listing) if kind == RecordType::SRV => Ok(instances(name, listing)),
            Node::Instances(listing) => {
                let mut ips: Vec<IpAddr> = Vec::new();
                for one in &listing.instances {
                    // Several on one machine differ by their ports, which an address does not tell.
                    if !ips.contains(&one.address.ip()) {
                        ips.push(one.address.ip());
                    }
                }
                Ok(Found::only(addresses(name, kind, &ips)))
            }
            Node::Instance(one) if kind == RecordType::SRV => Ok(Found {
                answers: vec![record(
                    name,
                    service_at(one.address.port(), one.weight.percent(), name.clone()),
                )],
                additional: both(name, one.address.ip()),
            }),
            Node::Instance(one) => Ok(Found::only(addresses(name, kind, &[one.address.ip()]))),
            Node::Server(_) | Node::Above => Ok(Found::default()),
        }
    }

    fn of_apex(&self, name: &Name, kind: RecordType) -> Result<Vec<Record>, ProtoError> {
        Ok(match kind {
            RecordType::SOA => vec![record(name, self.authority()?)],
            RecordType::NS => vec![record(name, RData::NS(NS(server_name()?)))],
            _ => Vec::new(),
        })
    }

    /// What says how long a denial holds (RFC 2308).
    pub(super) fn denial(&self) -> Result<Record, ProtoError> {
        Ok(record(&zone_name()?, self.authority()?))
    }

    /// Secondaries that refresh, retry and expire do not exist: the numbers are usual ones.
    fn authority(&self) -> Result<RData, ProtoError> {
        const REFRESH: i32 = 3600;
        const RETRY: i32 = 600;
        const EXPIRE: i32 = 86_400;
        let contact = Name::from_ascii("hostmaster")?.append_domain(&zone_name()?)?;
        Ok(RData::SOA(SOA::new(
            server_name()?,
            contact,
            self.serial,
            REFRESH,
            RETRY,
            EXPIRE,
            TTL,
        )))
    }
}

impl Found {
    fn only(answers: Vec<Record>) -> Self {
        Self {
            answers,
            additional: Vec::new(),
        }
    }
}

/// Serials are compared modulo 2^32 (RFC 1982). No run of the control centre makes so many changes that
/// the next one's would be smaller.
fn serial(generation: Generation) -> u32 {
    let number = (generation.epoch.0 << 20).wrapping_add(generation.revision.0);
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

fn zone_name() -> Result<Name, ProtoError> {
    Name::from_ascii(format!("{ZONE}."))
}

fn server_name() -> Result<Name, ProtoError> {
    Name::from_ascii(format!("{SERVER}.{SERVERS}.{ZONE}."))
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL, data)
}

fn addresses(name: &Name, kind: RecordType, ips: &[IpAddr]) -> Vec<Record> {
    let of_kind = ips.iter().filter_map(|ip| match (ip, kind) {
        (IpAddr::V4(ip), RecordType::A) => Some(RData::A(A(*ip))),
        (IpAddr::V6(ip), RecordType::AAAA) => Some(RData::AAAA(AAAA(*ip))),
        _ => None,
    });
    of_kind.map(|data| record(name, data)).collect()
}

/// The address as a record of whichever kind it is.
fn both(name: &Name, ip: IpAddr) -> Vec<Record> {
    let kind = if ip.is_ipv4() {
        RecordType::A
    } else {
        RecordType::AAAA
    };
    addresses(name, kind, &[ip])
}

/// `weight` is in percent; all are of one priority.
fn service_at(port: u16, weight: u16, target: Name) -> RData {
    RData::SRV(SRV::new(0, weight, port, target))
}

/// One record for each instance, with a name of its own for its address.
fn instances(name: &Name, listing: &Listing) -> Found {
    let mut found = Found::default();
    for one in &listing.instances {
        // With a service's name of nearly 63 characters it is longer than a label may be.
        let Ok(target) = name.prepend_label(one.instance.to_string()) else {
            continue;
        };
        let data = service_at(one.address.port(), one.weight.percent(), target.clone());
        found.answers.push(record(name, data));
        found.additional.extend(both(&target, one.address.ip()));
    }
    found
}
