//! Telling everybody on a link, unasked, which hardware address an IP address has: gratuitous ARP (RFC 5227, 3;
//! RFC 826) and unsolicited neighbour advertisements (RFC 4861, 7.2.6); and packets to groups from such an address.
#![expect(
    unsafe_code,
    reason = "addresses of AF_PACKET, which rustix does not have"
)]

mod multicast;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

pub use multicast::Multicast;

/// A hardware address of Ethernet.
pub type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];
/// Of `ff02::1`, all nodes of the link (RFC 2464, 7).
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ETHERNET_LEN: usize = 14;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ARP_LEN: usize = ETHERNET_LEN + 28;
const ICMP_LEN: usize = 32;
const IPV6_LEN: usize = 40;
const ADVERTISEMENT_LEN: usize = ETHERNET_LEN + IPV6_LEN + ICMP_LEN;
/// Without an option: whoever asks so has no address that could be answered.
const SOLICITATION_LEN: usize = ETHERNET_LEN + IPV6_LEN + 24;
pub(crate) const ICMPV6: u8 = 58;
/// From a router, unasked, and to be believed against what was known (RFC 4861, 4.4).
const ROUTER_AND_OVERRIDE: u8 = 0xa0;

/// Which of the two messages of ARP.
#[derive(Debug, Clone, Copy)]
enum Operation {
    Request = 1,
    Reply = 2,
}

/// A socket that sends frames and receives none.
#[derive(Debug)]
pub struct Announcer {
    socket: OwnedFd,
}

impl Announcer {
    /// Opens one; needs `CAP_NET_RAW`.
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Protocol 0: nothing is received.
        let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
        Ok(Self { socket })
    }

    /// Says on the interface with this number that `address` is at `mac`. Nothing is allocated.
    pub fn announce(&self, index: u32, mac: Mac, address: IpAddr) -> io::Result<()> {
        match address {
            IpAddr::V4(v4) => {
                // Some believe only requests, some only replies.
                self.send(index, ETHERTYPE_ARP, &arp(Operation::Request, mac, v4))?;
                self.send(index, ETHERTYPE_ARP, &arp(Operation::Reply, mac, v4))
            }
            IpAddr::V6(v6) => self.send(index, ETHERTYPE_IPV6, &advertisement(mac, v6)),
        }
    }

    /// Asks on the interface with this number who has `address`, saying nothing of ourselves but `mac`.
    pub(crate) fn ask(&self, index: u32, mac: Mac, address: IpAddr) -> io::Result<()> {
        match address {
            IpAddr::V4(v4) => {
                let mut probe = arp(Operation::Request, mac, v4);
                probe[ETHERNET_LEN + 14..ETHERNET_LEN + 18].fill(0);
                self.send(index, ETHERTYPE_ARP, &probe)
            }
            IpAddr::V6(v6) => self.send(index, ETHERTYPE_IPV6, &solicitation(mac, v6)),
        }
    }

    fn send(&self, index: u32, ethertype: u16, frame: &[u8]) -> io::Result<()> {
        let mut to = libc::sockaddr_ll {
            sll_family: u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
            sll_protocol: ethertype.to_be(),
            sll_ifindex: i32::try_from(index).map_err(io::Error::other)?,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0; 8],
        };
        to.sll_addr[..6].copy_from_slice(&frame[..6]);
        #[expect(clippy::cast_possible_truncation, reason = "it is twenty")]
        let to_len = size_of_val(&to) as libc::socklen_t;
        // SAFETY: frame and address are valid for as many bytes as is said, and outlive the call.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                to_len,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

fn ethernet(to: Mac, from: Mac, ethertype: u16, frame: &mut [u8]) {
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    frame[12..ETHERNET_LEN].copy_from_slice(&ethertype.to_be_bytes());
}

fn arp(operation: Operation, mac: Mac, address: Ipv4Addr) -> [u8; ARP_LEN] {
    let mut frame = [0; ARP_LEN];
    ethernet(BROADCAST, mac, ETHERTYPE_ARP, &mut frame);
    let arp = &mut frame[ETHERNET_LEN..];
    // Ethernet, IPv4, lengths of their addresses.
    arp[..6].copy_from_slice(&[0, 1, 8, 0, 6, 4]);
    arp[7] = operation as u8;
    arp[8..14].copy_from_slice(&mac);
    arp[14..18].copy_from_slice(&address.octets());
    arp[18..24].copy_from_slice(match operation {
        Operation::Request => &[0; 6],
        Operation::Reply => &BROADCAST,
    });
    arp[24..].copy_from_slice(&address.octets());
    frame
}

fn advertisement(mac: Mac, address: Ipv6Addr) -> [u8; ADVERTISEMENT_LEN] {
    let mut frame = [0; ADVERTISEMENT_LEN];
    ethernet(ALL_NODES_MAC, mac, ETHERTYPE_IPV6, &mut frame);
    let ip = &mut frame[ETHERNET_LEN..];
    ip[0] = 0x60;
    ip[5] = 32;
    ip[6] = ICMPV6;
    // RFC 4861, 7.1.2: what came through a router is not believed.
    ip[7] = 255;
    ip[8..24].copy_from_slice(&address.octets());
    ip[24..IPV6_LEN].copy_from_slice(&ALL_NODES.octets());
    let icmp = &mut ip[IPV6_LEN..];
    icmp[0] = 136;
    icmp[4] = ROUTER_AND_OVERRIDE;
    icmp[8..24].copy_from_slice(&address.octets());
    // Our hardware address, in units of eight bytes.
    icmp[24..26].copy_from_slice(&[2, 1]);
    icmp[26..].copy_from_slice(&mac);
    let checksum = checksum(address, ALL_NODES, icmp);
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// As of a host that does not have the address yet (RFC 4862, 5.4.2), to the group of those who may.
fn solicitation(mac: Mac, address: Ipv6Addr) -> [u8; SOLICITATION_LEN] {
    let [.., a, b, c] = address.octets();
    let mut group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
    group[13..].copy_from_slice(&[a, b, c]);
    let mut frame = [0; SOLICITATION_LEN];
    let group_mac = [0x33, 0x33, 0xff, a, b, c];
    ethernet(group_mac, mac, ETHERTYPE_IPV6, &mut frame);
    let ip = &mut frame[ETHERNET_LEN..];
    ip[0] = 0x60;
    ip[5] = 24;
    ip[6] = ICMPV6;
    ip[7] = 255;
    ip[24..IPV6_LEN].copy_from_slice(&group);
    let icmp = &mut ip[IPV6_LEN..];
    icmp[0] = 135;
    icmp[8..24].copy_from_slice(&address.octets());
    let checksum = checksum(Ipv6Addr::UNSPECIFIED, group.into(), icmp);
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// With the pseudo-header of RFC 8200, 8.1.
fn checksum(from: Ipv6Addr, to: Ipv6Addr, icmp: &[u8]) -> u16 {
    let len = u32::try_from(icmp.len()).unwrap_or(u32::MAX).to_be_bytes();
    let pieces: [&[u8]; 5] = [&from.octets(), &to.octets(), &len, &[0, ICMPV6], icmp];
    let words = pieces.into_iter().flat_map(|piece| piece.chunks_exact(2));
    let mut sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Socket;
    use crate::netlink::link::Link;
    use mainstay_testkit::{Netns, is_root, program, skip, wait_until};
    use std::process::Command;
    use std::time::Duration;

    const MAC: Mac = [2, 0, 0, 0, 0, 0x51];

    #[test]
    fn the_frames_are_those_of_the_standards() {
        let request = arp(Operation::Request, MAC, [10, 0, 0, 100].into());
        let mut expected = vec![0xff; 6];
        expected.extend(MAC);
        expected.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        expected.extend(MAC);
        expected.extend([10, 0, 0, 100, 0, 0, 0, 0, 0, 0, 10, 0, 0, 100]);
        assert_eq!(request.as_slice(), expected);
        let reply = arp(Operation::Reply, MAC, [10, 0, 0, 100].into());
        assert_eq!((reply[21], &reply[32..38]), (2, &BROADCAST[..]));
        let frame = advertisement(MAC, "fd00::64".parse().unwrap());
        // A sum over what is right, its checksum included, is nothing.
        let icmp = &frame[ETHERNET_LEN + IPV6_LEN..];
        assert_eq!(checksum("fd00::64".parse().unwrap(), ALL_NODES, icmp), 0);
        assert_eq!(
            (icmp[0], icmp[4], frame[ETHERNET_LEN + 7]),
            (136, 0xa0, 255)
        );
    }

    /// What a neighbour knows of an address.
    fn known(netns: &Netns, address: &str) -> String {
        let output = netns
            .command(&program("ip"))
            .args(["neighbour", "show", address])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[test]
    fn system_a_neighbour_with_an_old_entry_learns_the_new_hardware_address() {
        if !is_root() {
            return skip("needs root: makes network namespaces");
        }
        let (here, there) = (Netns::new(), Netns::new());
        Netns::join((&here, "10.9.0.1/24"), (&there, "10.9.0.2/24"));
        let run = |netns: &Netns, line: &str| {
            let mut command: Command = netns.command(&program("ip"));
            assert!(
                command.args(line.split(' ')).status().unwrap().success(),
                "{line}"
            );
        };
        let name = here.enter(|| {
            let links = std::process::Command::new(program("ip"))
                .args(["-o", "link"])
                .output();
            let links = String::from_utf8(links.unwrap().stdout).unwrap();
            let veth = links
                .split_whitespace()
                .find(|word| word.starts_with("veth"));
            veth.unwrap().split('@').next().unwrap().to_owned()
        });
        let old = "lladdr 02:00:00:00:00:01 nud stale dev";
        run(
            &there,
            &format!("neighbour replace 10.9.0.100 {old} {name}"),
        );
        run(&there, &format!("neighbour replace fd00::100 {old} {name}"));
        let (announcer, index) = here.enter(|| {
            let socket = Socket::open_route().unwrap();
            let link = Link::named(&socket, &name).unwrap().unwrap();
            (Announcer::open().unwrap(), link.index)
        });
        for address in ["10.9.0.100", "fd00::100"] {
            wait_until(Duration::from_secs(20), "the neighbour has learnt", || {
                announcer
                    .announce(index, MAC, address.parse().unwrap())
                    .unwrap();
                let known = known(&there, address);
                if known.contains("02:00:00:00:00:51") {
                    Ok(())
                } else {
                    Err(known)
                }
            });
        }
    }
}
