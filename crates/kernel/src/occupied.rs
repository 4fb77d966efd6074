//! Asking the links of this host whether another host has an address, without saying that we do: ARP
//! probes (RFC 5227, 2.1.1), and for IPv6 the solicitations of duplicate address detection (RFC 4862, 5.4).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with};

use crate::neighbour::{Announcer, ICMPV6, Mac};
use crate::netlink::Socket;
use crate::netlink::link::Link;

/// `ETH_P_ARP`.
const ARP: u16 = 0x0806;
/// Header of Ethernet, then ARP for IPv4 over it.
const ARP_AT: usize = 14;
const ARP_LEN: usize = 28;
const ADVERTISEMENT: u8 = 136;
/// The option of an advertisement that has the hardware address.
const TARGET_ADDRESS: u8 = 2;
/// Longer than what is looked at.
const ROOM: usize = 512;

/// Another host that has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The address that was asked for.
    pub address: IpAddr,
    /// The host's hardware address, if it says it.
    pub mac: Option<Mac>,
}

/// Sockets by which is asked, and which hear the answers, of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Asker {
    sender: Announcer,
    arp: OwnedFd,
    icmp: OwnedFd,
    /// Those that are asked.
    links: Vec<Link>,
}

impl Asker {
    /// Opens it for so many of the links that have neighbours. Needs `CAP_NET_RAW`.
    pub fn open(links_max: usize) -> io::Result<Self> {
        let mut links = Link::with_neighbours(&Socket::open_route()?)?;
        links.truncate(links_max);
        let protocol = |number: u32| NonZeroU32::new(number).map(Protocol::from_raw);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let arp = protocol(u32::from(ARP.to_be()));
        let icmp = protocol(u32::from(ICMPV6));
        Ok(Self {
            sender: Announcer::open()?,
            arp: socket_with(AddressFamily::PACKET, SocketType::RAW, flags, arp)?,
            icmp: socket_with(AddressFamily::INET6, SocketType::RAW, flags, icmp)?,
            links,
        })
    }

    /// Asks on each link. One that is gone meanwhile is passed over.
    pub fn ask(&self, address: IpAddr) {
        for link in &self.links {
            if let Some(mac) = link.mac {
                // What cannot be asked has no neighbours.
                self.sender.ask(link.index, mac, address).ok();
            }
        }
    }

    /// Hands on who answers within a time. What this host says itself is no answer.
    pub fn hear(&self, time: Duration, mut each: impl FnMut(Owner)) -> io::Result<()> {
        let until = Instant::now() + time;
        let mut frame = [0; ROOM];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let left = Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut waiting = [&self.arp, &self.icmp].map(|one| PollFd::new(one, PollFlags::IN));
            match poll(&mut waiting, Some(&left)) {
                Ok(0) => return Ok(()),
                Err(rustix::io::Errno::INTR) => continue,
                polled => polled?,
            };
            for (socket, read) in [
                (&self.arp, read_arp as fn(&[u8]) -> _),
                (&self.icmp, read_icmp),
            ] {
                // One from each, so that neither keeps the other from its turn, nor the clock.
                if let Ok((len, _)) = recv(socket, &mut frame[..], RecvFlags::DONTWAIT)
                    && let Some(owner) = read(&frame[..len.min(ROOM)])
                    && !self.is_own(owner)
                {
                    each(owner);
                }
            }
        }
    }

    fn is_own(&self, owner: Owner) -> bool {
        let mut links = self.links.iter();
        owner.mac.is_some() && links.any(|link| link.mac == owner.mac)
    }
}

/// Whoever speaks from an address has it; who only asks, as we do, has none yet.
fn read_arp(frame: &[u8]) -> Option<Owner> {
    let arp = frame.get(ARP_AT..ARP_AT + ARP_LEN)?;
    // Ethernet, IPv4, lengths of their addresses.
    if arp[..6] != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let address = Ipv4Addr::from(<[u8; 4]>::try_from(&arp[14..18]).ok()?);
    (!address.is_unspecified()).then_some(Owner {
        address: address.into(),
        mac: arp[8..14].try_into().ok(),
    })
}

fn read_icmp(message: &[u8]) -> Option<Owner> {
    if message.first() != Some(&ADVERTISEMENT) {
        return None;
    }
    let address = Ipv6Addr::from(<[u8; 16]>::try_from(message.get(8..24)?).ok()?);
    let option = message.get(24..32);
    let option = option.filter(|option| option[..2] == [TARGET_ADDRESS, 1]);
    Some(Owner {
        address: address.into(),
        mac: option.and_then(|option| option[2..].try_into().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::{Netns, is_root, program, skip, wait_until};

    #[test]
    fn what_is_cut_or_of_another_kind_is_no_answer() {
        let mut frame = vec![0; ARP_AT];
        frame.extend([0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 7, 10, 0, 0, 9]);
        frame.extend([0; 10]);
        let owner = read_arp(&frame).unwrap();
        assert_eq!(owner.address.to_string(), "10.0.0.9");
        assert_eq!(owner.mac, Some([2, 0, 0, 0, 0, 7]));
        assert!((0..frame.len()).all(|len| read_arp(&frame[..len]).is_none()));
        // A probe has no sender.
        frame[ARP_AT + 14..ARP_AT + 18].fill(0);
        assert_eq!(read_arp(&frame), None);
        assert_eq!(read_icmp(&[135; 24]), None);
        assert_eq!(read_icmp(&[136; 23]), None);
        assert_eq!(read_icmp(&[136; 24]).unwrap().mac, None);
    }

    #[test]
    fn system_who_has_an_address_answers_and_does_not_learn_who_asked() {
        if !is_root() {
            return skip("needs root: makes network namespaces");
        }
        let (here, there) = (Netns::new(), Netns::new());
        Netns::join((&here, "10.9.0.1/24"), (&there, "10.9.0.2/24"));
        let ip = |netns: &Netns, line: &str| {
            let mut command = netns.command(&program("ip"));
            let output = command.args(line.split(' ')).output().unwrap();
            assert!(output.status.success(), "{line}");
            String::from_utf8(output.stdout).unwrap()
        };
        for address in ["10.96.0.9/32", "fd96::9/128"] {
            ip(&there, &format!("address add {address} dev lo"));
        }
        // IPv6 answers for addresses of the interface alone, which its probe of its own precedes.
        let links = ip(&there, "-o link");
        let link = links
            .split_whitespace()
            .find(|word| word.starts_with("veth"));
        let link = link.unwrap().split('@').next().unwrap().to_owned();
        ip(&there, &format!("address add fd96::7/64 dev {link} nodad"));
        for (address, is_there) in [
            ("10.9.0.2", true),
            ("10.96.0.9", true),
            ("fd96::7", true),
            ("10.9.0.3", false),
            ("10.9.0.1", false),
            ("fd96::8", false),
        ] {
            let address: IpAddr = address.parse().unwrap();
            let ask = || {
                here.enter(|| {
                    let asker = Asker::open(16).unwrap();
                    let mut found = false;
                    asker.ask(address);
                    asker
                        .hear(Duration::from_millis(200), |owner| {
                            found |= owner.address == address;
                        })
                        .unwrap();
                    found
                })
            };
            if is_there {
                // A link that was made just now drops the first.
                wait_until(Duration::from_secs(20), "its owner answers", || {
                    if ask() {
                        Ok(())
                    } else {
                        Err(address.to_string())
                    }
                });
            } else {
                assert!(!ask(), "{address}");
            }
        }
        let known = ip(&there, "neighbour show");
        assert!(!known.contains("0.0.0.0"), "{known}");
    }
}
