//! Addresses of interfaces, with a lifetime after which the kernel itself removes them.

use std::io;
use std::net::IpAddr;
use std::num::NonZeroU32;

use super::attribute::{Attributes, Writer};
use super::request::{CREATE, REPLACE, ask, list};
use super::socket::Socket;

const NEW: u16 = 20;
const DELETE: u16 = 21;
const GET: u16 = 22;

/// Family, prefix, flags, scope, index of the interface (`struct ifaddrmsg`).
pub(super) const HEADER_LEN: usize = 8;
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const CACHE_INFO: u16 = 6;
const FLAGS: u16 = 8;

/// Used at once, without looking for another that has it (`IFA_F_NODAD`).
const WITHOUT_DETECTION: u32 = 0x02;
/// Not usable: another one has it (`IFA_F_DADFAILED`), or that is being found out (`IFA_F_TENTATIVE`).
const UNUSABLE: u32 = 0x08 | 0x40;
/// Second to another one of its network (`IFA_F_SECONDARY`).
const SECONDARY: u32 = 0x01;

/// How long an address lives that is not renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// For ever.
    Unbounded,
    /// So many seconds; the kernel counts whole ones.
    Seconds(NonZeroU32),
}

/// Whether this host chooses an address as the sender of connections that it opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsSender {
    /// As any other.
    Usual,
    /// Only if nothing else fits: it is told to be old from the start (a preferred lifetime of zero).
    Avoided,
}

/// An address on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The address.
    pub address: IpAddr,
    /// How many of its bits are the network's.
    pub prefix_len: u8,
    /// The interface.
    pub index: u32,
}

/// An address as the kernel lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Where it is.
    pub placed: Placed,
    /// Whether it can be sent from: nobody else has it.
    pub usable: bool,
    /// Whether it is second to another one of its network.
    pub secondary: bool,
    /// Seconds that it has left; `None`: it lives for ever.
    pub left_s: Option<u32>,
}

impl Placed {
    fn header(&self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[0] = family(self.address);
        header[1] = self.prefix_len;
        header[4..].copy_from_slice(&self.index.to_ne_bytes());
        header
    }

    fn write(&self, out: &mut Writer) {
        out.raw(&self.header());
        match self.address {
            IpAddr::V4(v4) => {
                out.attribute(LOCAL, &v4.octets());
                out.attribute(ADDRESS, &v4.octets());
            }
            IpAddr::V6(v6) => out.attribute(ADDRESS, &v6.octets()),
        }
    }
}

/// Puts an address on an interface, or renews its lifetime. It can be used at once.
///
/// `EPERM`: `CAP_NET_ADMIN` is missing; `ENODEV`: there is no such interface.
pub fn put(
    socket: &Socket,
    placed: &Placed,
    lifetime: Lifetime,
    as_sender: AsSender,
) -> io::Result<()> {
    let valid = match lifetime {
        Lifetime::Unbounded => u32::MAX,
        Lifetime::Seconds(seconds) => seconds.get(),
    };
    let preferred = match as_sender {
        AsSender::Usual => valid,
        AsSender::Avoided => 0,
    };
    ask(socket, NEW, CREATE | REPLACE, |out| {
        placed.write(out);
        out.attribute(FLAGS, &WITHOUT_DETECTION.to_ne_bytes());
        // Preferred, valid, made, changed (`struct ifa_cacheinfo`); the kernel fills in the last two.
        let mut times = [0; 16];
        times[..4].copy_from_slice(&preferred.to_ne_bytes());
        times[4..8].copy_from_slice(&valid.to_ne_bytes());
        out.attribute(CACHE_INFO, &times);
    })
}

/// Takes an address away; whether it was there.
pub fn remove(socket: &Socket, placed: &Placed) -> io::Result<Removed> {
    match ask(socket, DELETE, 0, |out| placed.write(out)) {
        Ok(()) => Ok(Removed::Now),
        Err(error) => match error.raw_os_error() {
            // No such address, or no such interface any more.
            Some(libc::EADDRNOTAVAIL | libc::ENODEV) => Ok(Removed::Before),
            _ => Err(error),
        },
    }
}

/// When an address that is gone went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It was there until this call.
    Now,
    /// It was not there.
    Before,
}

/// All addresses of an interface, in the kernel's order: the first of a family is its primary one.
pub fn of_interface(socket: &Socket, index: u32) -> io::Result<Vec<Listed>> {
    let mut found = Vec::new();
    list(socket, GET, &[0; HEADER_LEN], |body| {
        found.extend(read(body).filter(|listed| listed.placed.index == index));
    })?;
    Ok(found)
}

/// Reads the body of a message about an address.
pub(super) fn read(body: &[u8]) -> Option<Listed> {
    let (header, attributes) = body.split_first_chunk::<HEADER_LEN>()?;
    let attributes = Attributes::of(attributes);
    let number = |bytes: &[u8]| Some(u32::from_ne_bytes(bytes.try_into().ok()?));
    // Of a pair of hosts, `ADDRESS` is the other one.
    let bytes = attributes
        .find(LOCAL)
        .or_else(|| attributes.find(ADDRESS))?;
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    let flags = attributes.find(FLAGS).and_then(number);
    let flags = flags.unwrap_or_else(|| header[2].into());
    let times = attributes.find(CACHE_INFO);
    let valid = times.and_then(|times| number(times.get(4..8)?));
    Some(Listed {
        placed: Placed {
            address,
            prefix_len: header[1],
            index: number(&header[4..])?,
        },
        usable: flags & UNUSABLE == 0,
        secondary: address.is_ipv4() && flags & SECONDARY != 0,
        left_s: valid.filter(|valid| *valid != u32::MAX),
    })
}

fn family(address: IpAddr) -> u8 {
    let family = match address {
        IpAddr::V4(_) => libc::AF_INET,
        IpAddr::V6(_) => libc::AF_INET6,
    };
    u8::try_from(family).expect("2 and 10")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::link::Link;
    use mainstay_testkit::{Netns, is_root, skip, wait_until};
    use std::time::{Duration, Instant};

    const ONE: Lifetime = Lifetime::Seconds(NonZeroU32::MIN);

    fn on_loopback(address: &str, prefix_len: u8) -> (Socket, Placed) {
        let socket = Socket::open_route().unwrap();
        let index = Link::named(&socket, "lo").unwrap().unwrap().index;
        let address = address.parse().unwrap();
        let placed = Placed {
            address,
            prefix_len,
            index,
        };
        (socket, placed)
    }

    fn listed(socket: &Socket, placed: &Placed) -> Option<Listed> {
        let all = of_interface(socket, placed.index).unwrap();
        all.into_iter().find(|one| one.placed == *placed)
    }

    #[test]
    fn system_an_address_of_either_family_is_put_renewed_and_taken_away() {
        if !is_root() {
            return skip("needs root: makes network namespaces");
        }
        let netns = Netns::new();
        for (address, prefix_len) in [("10.0.0.100", 32), ("fd00::100", 128)] {
            netns.enter(|| {
                let (socket, placed) = on_loopback(address, prefix_len);
                assert_eq!(remove(&socket, &placed).unwrap(), Removed::Before);
                let forever = Lifetime::Unbounded;
                put(&socket, &placed, forever, AsSender::Usual).unwrap();
                assert_eq!(listed(&socket, &placed).unwrap().left_s, None);
                let hour = Lifetime::Seconds(NonZeroU32::new(3600).unwrap());
                put(&socket, &placed, hour, AsSender::Avoided).unwrap();
                let found = listed(&socket, &placed).unwrap();
                assert!(found.usable, "{found:?}");
                assert!(
                    found
                        .left_s
                        .is_some_and(|left| (3590..=3600).contains(&left))
                );
                assert_eq!(remove(&socket, &placed).unwrap(), Removed::Now);
                assert_eq!(listed(&socket, &placed), None);
            });
        }
    }

    #[test]
    fn system_an_address_that_nobody_renews_is_removed_by_the_kernel() {
        if !is_root() {
            return skip("needs root: makes network namespaces");
        }
        let netns = Netns::new();
        netns.enter(|| {
            for (address, prefix_len) in [("10.0.0.100", 32), ("fd00::100", 128)] {
                let (socket, placed) = on_loopback(address, prefix_len);
                let begun = Instant::now();
                put(&socket, &placed, ONE, AsSender::Avoided).unwrap();
                wait_until(Duration::from_secs(20), "the address is gone", || {
                    listed(&socket, &placed).map_or(Ok(()), |left| Err(format!("{left:?}")))
                });
                assert!(begun.elapsed() >= Duration::from_millis(900));
            }
        });
    }

    #[test]
    fn system_what_the_kernel_refuses_is_told_by_its_number() {
        if !is_root() {
            return skip("needs root: makes network namespaces");
        }
        let netns = Netns::new();
        netns.enter(|| {
            let (socket, mut placed) = on_loopback("10.0.0.100", 32);
            placed.index = 4711;
            let refused = put(&socket, &placed, ONE, AsSender::Usual).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::ENODEV));
            assert_eq!(remove(&socket, &placed).unwrap(), Removed::Before);
        });
    }
}
