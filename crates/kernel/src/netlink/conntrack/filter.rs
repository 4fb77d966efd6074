//! Flows by one of their ends, sorted out by the kernel.

use std::net::SocketAddr;

use super::attributes::{self, IP, ORIGINAL, PROTOCOL_OF, REPLY};
use super::{Flow, Led, Protocol};
use crate::netlink::attribute::Writer;
use crate::netlink::socket::message;

/// `CTA_FILTER`, with `CTA_FILTER_ORIG_FLAGS` and `_REPLY_FLAGS`.
const FILTER: u16 = 25;
const OF_ORIGINAL: u16 = 1;
const OF_REPLY: u16 = 2;
/// `CTA_FILTER_FLAG_*` of a tuple (net/netfilter/nf_internals.h).
const BY_SOURCE: u32 = 1;
const BY_DESTINATION: u32 = 1 << 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_SOURCE_PORT: u32 = 1 << 4;
const BY_DESTINATION_PORT: u32 = 1 << 5;

/// Which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// Who answers.
    Answering(SocketAddr),
    /// Who was addressed, of those that are led nowhere.
    Refused(SocketAddr),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) protocol: Protocol,
    pub(super) ends: Ends,
}

impl Filter {
    /// Whether the kernel lets through no others.
    ///
    /// The address is left out if it is one of IPv6: in `ctnetlink_filter_match_tuple` of all kernels
    /// since 5.8 the comparison is the wrong way round, so that the filter lets through all others but
    /// this.
    pub(super) fn is_exact(&self) -> bool {
        self.address().is_ipv4()
    }

    pub(super) fn is_of(&self, flow: &Flow) -> bool {
        match self.ends {
            Ends::Answering(instance) => {
                (flow.reply.protocol, flow.reply.source) == (self.protocol, instance)
            }
            Ends::Refused(service) => {
                let original = flow.original;
                (original.protocol, original.destination) == (self.protocol, service)
                    && flow.led() == Led::Nowhere
            }
        }
    }

    fn address(&self) -> SocketAddr {
        match self.ends {
            Ends::Answering(address) | Ends::Refused(address) => address,
        }
    }

    pub(super) fn write(&self, out: &mut Writer, (kind, flags): (u16, u16)) {
        let address = self.address();
        let port = address.port().to_be_bytes();
        message(out, kind, (flags, 1), |out| {
            out.raw(&[attributes::family(address.ip()), 0, 0, 0]);
            let (tuple, of, by_address, by_port) = match self.ends {
                Ends::Answering(_) => (REPLY, OF_REPLY, BY_SOURCE, BY_SOURCE_PORT),
                Ends::Refused(_) => (ORIGINAL, OF_ORIGINAL, BY_DESTINATION, BY_DESTINATION_PORT),
            };
            out.nest(tuple, |out| {
                out.nest(IP, |out| match self.ends {
                    Ends::Answering(_) => attributes::write_source(out, address.ip()),
                    Ends::Refused(_) => attributes::write_destination(out, address.ip()),
                });
                out.nest(PROTOCOL_OF, |out| {
                    out.attribute(1, &[self.protocol.number()]);
                    match self.ends {
                        Ends::Answering(_) => out.attribute(2, &port),
                        Ends::Refused(_) => out.attribute(3, &port),
                    }
                });
            });
            match self.ends {
                Ends::Answering(_) => {}
                Ends::Refused(_) => attributes::write_led(out, Led::Nowhere),
            }
            let by_address = if self.is_exact() { by_address } else { 0 };
            out.nest(FILTER, |out| {
                out.native(of, by_address | BY_PROTOCOL | by_port);
            });
        });
    }
}
