//! Flows and tuples as the kernel writes them (`CTA_*`).

use std::net::{IpAddr, SocketAddr};

use super::{Flow, Led, Phase, Protocol, Tuple};
use crate::netlink::attribute::{Attributes, Writer};

pub(super) const ORIGINAL: u16 = 1;
pub(super) const REPLY: u16 = 2;
pub(super) const STATUS: u16 = 3;
const PROTOCOL_STATE: u16 = 4;
pub(super) const ID: u16 = 12;
const STATUS_MASK: u16 = 26;
/// Of a tuple.
pub(super) const IP: u16 = 1;
pub(super) const PROTOCOL_OF: u16 = 2;
/// `IPS_SEEN_REPLY`.
const ANSWERED: u64 = 1 << 1;
/// `IPS_DST_NAT`.
const LED_ON: u32 = 1 << 5;

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

pub(super) fn write_destination(out: &mut Writer, address: IpAddr) {
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

/// For a filter.
pub(super) fn write_led(out: &mut Writer, led: Led) {
    let status = match led {
        Led::On => LED_ON,
        Led::Nowhere => 0,
    };
    out.number(STATUS, status);
    out.number(STATUS_MASK, LED_ON);
}

pub(super) fn read(attributes: &Attributes<'_>) -> Option<Flow> {
    Some(Flow {
        original: read_tuple(attributes.find(ORIGINAL)?)?,
        reply: read_tuple(attributes.find(REPLY)?)?,
        phase: read_phase(attributes)?,
        id: u32::try_from(attributes.find_number(ID)?).ok()?,
    })
}

fn read_phase(attributes: &Attributes<'_>) -> Option<Phase> {
    let answered = attributes.find_number(STATUS)? & ANSWERED != 0;
    // CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE
    let tcp = attributes.find(PROTOCOL_STATE);
    let tcp = tcp.and_then(|tcp| Attributes::of(tcp).find(1));
    let state = tcp.and_then(|tcp| Attributes::of(tcp).find(1));
    Some(match state {
        // From LAST_ACK on: TIME_WAIT, CLOSE; not SYN_SENT2.
        Some([6..=8]) => Phase::Over,
        Some(_) | None if answered => Phase::Open,
        Some(_) | None => Phase::Asked,
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
