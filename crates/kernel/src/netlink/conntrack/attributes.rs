//! Flows and tuples as the kernel writes them (`CTA_*`).

use std::net::{IpAddr, SocketAddr};

use super::{Flow, Protocol, Tuple};
use crate::netlink::attribute::{Attributes, Writer};

pub(super) const ORIGINAL: u16 = 1;
pub(super) const REPLY: u16 = 2;
const STATUS: u16 = 3;
pub(super) const ID: u16 = 12;
pub(super) const FILTER: u16 = 25;
/// Of a tuple.
pub(super) const IP: u16 = 1;
pub(super) const PROTOCOL_OF: u16 = 2;
/// `IPS_SEEN_REPLY`.
const ANSWERED: u64 = 2;

/// `AF_INET` and `AF_INET6`.
pub(super) fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}

pub(super) fn write_source(out: &mut Writer, address: IpAddr) {
    match address {
        IpAddr::V4(address) => out.attribute(1, &address.octets()),
        IpAddr::V6(address) => out.attribute(3, &address.octets()),
    }
}

fn write_destination(out: &mut Writer, address: IpAddr) {
    match address {
        IpAddr::V4(address) => out.attribute(2, &address.octets()),
        IpAddr::V6(address) => out.attribute(4, &address.octets()),
    }
}

pub(super) fn write_tuple(out: &mut Writer, kind: u16, tuple: &Tuple) {
    out.nest(kind, |out| {
        out.nest(IP, |out| {
            write_source(out, tuple.source.ip());
            write_destination(out, tuple.destination.ip());
        });
        out.nest(PROTOCOL_OF, |out| {
            out.attribute(1, &[tuple.protocol.number()]);
            out.attribute(2, &tuple.source.port().to_be_bytes());
            out.attribute(3, &tuple.destination.port().to_be_bytes());
        });
    });
}

pub(super) fn read(attributes: &Attributes<'_>) -> Option<Flow> {
    // The last message of a flow that ends without having been seen has no status.
    let status = attributes.find_number(STATUS).unwrap_or(0);
    Some(Flow {
        original: read_tuple(attributes.find(ORIGINAL)?)?,
        reply: read_tuple(attributes.find(REPLY)?)?,
        answered: status & ANSWERED != 0,
        id: u32::try_from(attributes.find_number(ID)?).ok()?,
    })
}

fn read_tuple(bytes: &[u8]) -> Option<Tuple> {
    let tuple = Attributes::of(bytes);
    let (ip, protocol) = (
        Attributes::of(tuple.find(IP)?),
        Attributes::of(tuple.find(PROTOCOL_OF)?),
    );
    let address = |four, six| {
        let four = ip
            .find(four)
            .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        let six = || Some(<[u8; 16]>::try_from(ip.find(six)?).ok()?.into());
        four.map(IpAddr::from).or_else(six)
    };
    let port = |kind| Some(u16::from_be_bytes(protocol.find(kind)?.try_into().ok()?));
    let [number] = *protocol.find(1)? else {
        return None;
    };
    Some(Tuple {
        protocol: Protocol::read(number)?,
        source: SocketAddr::new(address(1, 3)?, port(2)?),
        destination: SocketAddr::new(address(2, 4)?, port(3)?),
    })
}
