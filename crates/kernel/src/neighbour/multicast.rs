//! A packet to a group of a link from a hardware address that is not the interface's own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Announcer, ETHERNET_LEN, ETHERTYPE_IPV6, IPV6_LEN, ethernet};

const ETHERTYPE_IPV4: u16 = 0x0800;
const IPV4_LEN: usize = 20;
/// The longest payload: twice the longest advert that is ever sent.
const PAYLOAD_LEN_MAX: usize = 1024;
/// From the link and no farther (RFC 5082), and before everything else (RFC 2474, 4.2.2.2), as packets of
/// [`crate::protocol`] are.
const HOP_LIMIT: u8 = 255;
const TRAFFIC_CLASS: u8 = 0xc0;

/// Such a packet, without its payload.
#[derive(Debug, Clone, Copy)]
pub struct Multicast {
    /// The interface on which it leaves.
    pub index: u32,
    /// The hardware address of its sender.
    pub mac: [u8; 6],
    /// The IP address of its sender.
    pub from: IpAddr,
    /// The group, of the sender's family.
    pub group: IpAddr,
    /// The number of its protocol.
    pub protocol: u8,
}

impl Announcer {
    /// Sends one. Nothing is allocated. `EINVAL`: the families differ, or the payload is too long.
    pub fn multicast(&self, packet: &Multicast, payload: &[u8]) -> io::Result<()> {
        let mut room = [0; ETHERNET_LEN + IPV6_LEN + PAYLOAD_LEN_MAX];
        let (ethertype, len) = packet
            .write(payload, &mut room)
            .ok_or(io::ErrorKind::InvalidInput)?;
        self.send(packet.index, ethertype, &room[..len])
    }
}

impl Multicast {
    /// Writes the frame; its type and length.
    fn write(&self, payload: &[u8], room: &mut [u8]) -> Option<(u16, usize)> {
        if payload.len() > PAYLOAD_LEN_MAX {
            return None;
        }
        let len = u16::try_from(payload.len()).ok()?;
        let (ethertype, header_len, to) = match (self.from, self.group) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                self.write_v4(from, to, len, &mut room[ETHERNET_LEN..]);
                let [_, a, b, c] = to.octets();
                // RFC 1112, 6.4.
                (ETHERTYPE_IPV4, IPV4_LEN, [1, 0, 0x5e, a & 0x7f, b, c])
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                self.write_v6(from, to, len, &mut room[ETHERNET_LEN..]);
                let [.., a, b, c, d] = to.octets();
                // RFC 2464, 7.
                (ETHERTYPE_IPV6, IPV6_LEN, [0x33, 0x33, a, b, c, d])
            }
            _ => return None,
        };
        ethernet(to, self.mac, ethertype, room);
        let begin = ETHERNET_LEN + header_len;
        let end = begin + payload.len();
        room[begin..end].copy_from_slice(payload);
        Some((ethertype, end))
    }

    fn write_v4(&self, from: Ipv4Addr, to: Ipv4Addr, payload_len: u16, ip: &mut [u8]) {
        let ip = &mut ip[..IPV4_LEN];
        // Version 4, five words; not to be cut into fragments.
        ip[..2].copy_from_slice(&[0x45, TRAFFIC_CLASS]);
        ip[2..4].copy_from_slice(&(payload_len + 20).to_be_bytes());
        ip[6] = 0x40;
        ip[8..10].copy_from_slice(&[HOP_LIMIT, self.protocol]);
        ip[12..16].copy_from_slice(&from.octets());
        ip[16..20].copy_from_slice(&to.octets());
        let words = ip.chunks_exact(2);
        let sum: u32 = words
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
            .sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let [.., high, low] = (!(sum + (sum >> 16))).to_be_bytes();
        ip[10..12].copy_from_slice(&[high, low]);
    }

    fn write_v6(&self, from: Ipv6Addr, to: Ipv6Addr, payload_len: u16, ip: &mut [u8]) {
        ip[0] = 0x60 | (TRAFFIC_CLASS >> 4);
        ip[1] = TRAFFIC_CLASS << 4;
        ip[4..6].copy_from_slice(&payload_len.to_be_bytes());
        ip[6..8].copy_from_slice(&[self.protocol, HOP_LIMIT]);
        ip[8..24].copy_from_slice(&from.octets());
        ip[24..IPV6_LEN].copy_from_slice(&to.octets());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Socket;
    use crate::netlink::link::Link;
    use crate::protocol::{Options, Packet, ProtocolSocket, Received};
    use mainstay_testkit::{Netns, is_root, skip, wait_until};
    use std::time::Duration;

    #[test]
    fn what_cannot_be_written_is_refused() {
        let packet = Multicast {
            index: 1,
            mac: [0, 0, 0x5e, 0, 1, 51],
            from: "10.9.0.1".parse().unwrap(),
            group: "ff02::12".parse().unwrap(),
            protocol: 112,
        };
        let mut room = [0; 2000];
        assert_eq!(packet.write(b"", &mut room), None);
        let group = "224.0.0.18".parse().unwrap();
        let packet = Multicast { group, ..packet };
        assert_eq!(packet.write(&[0; 1025], &mut room), None);
        let (_, len) = packet.write(&[7; 1024], &mut room).unwrap();
        assert_eq!(len, 14 + 20 + 1024);
        assert_eq!(room[..6], [1, 0, 0x5e, 0, 0, 18]);
    }

    #[test]
    fn system_a_packet_from_another_hardware_address_is_received_as_any_other() {
        if !is_root() {
            return skip("needs root: makes network namespaces");
        }
        let (here, there) = (Netns::new(), Netns::new());
        Netns::join((&here, "10.9.0.1/24"), (&there, "10.9.0.2/24"));
        for (from, group) in [("10.9.0.1", "224.0.0.18"), ("fe80::77", "ff02::12")] {
            let (from, group) = (from.parse().unwrap(), group.parse().unwrap());
            let inside = |netns: &Netns| {
                netns.enter(|| {
                    let socket = Socket::open_route().unwrap();
                    Link::all(&socket)
                        .unwrap()
                        .into_iter()
                        .find(|link| link.name != "lo")
                        .unwrap()
                })
            };
            let (ours, theirs) = (inside(&here), inside(&there));
            let receiver = there.enter(|| {
                let interface = (theirs.name.as_str(), theirs.index);
                ProtocolSocket::open(&Options {
                    protocol: 112,
                    interface,
                    group,
                })
                .unwrap()
            });
            let sender = here.enter(|| Announcer::open().unwrap());
            let (index, mac, protocol) = (ours.index, [0, 0, 0x5e, 0, 1, 51], 112);
            let packet = Multicast {
                index,
                mac,
                from,
                group,
                protocol,
            };
            let mut room = [0; 256];
            wait_until(Duration::from_secs(20), "it is received", || {
                sender.multicast(&packet, b"payload!").unwrap();
                match receiver.receive(&mut room).unwrap() {
                    Received::Packet(Packet {
                        from: sender,
                        hop_limit: 255,
                        payload: b"payload!",
                        ..
                    }) if sender == from => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            });
        }
    }
}
