//! Packets of an IP protocol that has no ports, on one interface, with what their IP header said.
#![expect(
    unsafe_code,
    reason = "sendmsg and recvmsg with ancillary data that rustix does not have"
)]

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, Protocol, RawProtocol, SocketFlags, SocketType, socket_with};

use crate::sockopt;

/// What is sent has this TTL or hop limit: the most, which says that it came from the link (RFC 5082).
const HOP_LIMIT: libc::c_int = 255;
/// Control of the network comes before everything else (`CS6`, RFC 2474, 4.2.2.2).
const TRAFFIC_CLASS: libc::c_int = 0xc0;
/// Room for ancillary data: one structure for the address and one for the hop limit.
const ANCILLARY_LEN: usize = 128;
const IPV4_HEADER_MIN: usize = 20;

/// Which packets.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// The protocol's number in the IP header.
    pub protocol: u8,
    /// The name of the interface, and its number.
    pub interface: (&'a str, u32),
    /// The group that is joined; its family is that of all packets.
    pub group: IpAddr,
}

/// A socket for such packets. Needs `CAP_NET_RAW`.
#[derive(Debug)]
pub struct ProtocolSocket {
    socket: OwnedFd,
    index: u32,
}

/// A packet that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Its sender.
    pub from: IpAddr,
    /// Where it was sent to: the group, or one of our addresses.
    pub to: IpAddr,
    /// TTL or hop limit, as it came.
    pub hop_limit: u8,
    /// What is behind the IP header.
    pub payload: &'a [u8],
}

/// What was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received<'a> {
    /// Nothing waits any more.
    Nothing,
    /// One whose header is not what it should be, or that is longer than the room.
    Broken,
    /// One.
    Packet(Packet<'a>),
}

impl ProtocolSocket {
    /// Opens one, bound to the interface, which must exist.
    pub fn open(options: &Options<'_>) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (name, index) = options.interface;
        let family = match options.group {
            IpAddr::V4(_) => AddressFamily::INET,
            IpAddr::V6(_) => AddressFamily::INET6,
        };
        let number = RawProtocol::new(u32::from(options.protocol));
        let number = number.ok_or(io::ErrorKind::InvalidInput)?;
        let protocol = Some(Protocol::from_raw(number));
        let socket = socket_with(family, SocketType::RAW, flags, protocol)?;
        sockopt::bind_to_interface(socket.as_fd(), name)?;
        match options.group {
            IpAddr::V4(group) => set_up_v4(socket.as_fd(), index, group)?,
            IpAddr::V6(group) => set_up_v6(socket.as_fd(), index, group)?,
        }
        Ok(Self { socket, index })
    }

    /// Sends a packet from an address of ours. Nothing is allocated, and nothing waited for.
    pub fn send(&self, from: IpAddr, to: IpAddr, payload: &[u8]) -> io::Result<()> {
        let mut ancillary = Ancillary::default();
        let (mut name, name_len) = socket_address(to, self.index);
        let mut piece = libc::iovec {
            iov_base: payload.as_ptr().cast_mut().cast(),
            iov_len: payload.len(),
        };
        let mut message = empty_message(&mut piece, &mut ancillary);
        message.msg_name = (&raw mut name).cast();
        message.msg_namelen = name_len;
        message.msg_controllen = self.write_source(&mut message, from)?;
        // SAFETY: the message refers to `name`, `piece`, the payload and `ancillary`, all of which outlive the call; the
        // kernel only reads them.
        let sent = unsafe { libc::sendmsg(self.socket.as_raw_fd(), &raw const message, 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Writes from where, and on which interface, a message is to be sent; how long that is.
    fn write_source(&self, message: &mut libc::msghdr, from: IpAddr) -> io::Result<usize> {
        let index = libc::c_int::try_from(self.index).map_err(io::Error::other)?;
        match from {
            IpAddr::V4(v4) => {
                let value = libc::in_pktinfo {
                    ipi_ifindex: index,
                    ipi_spec_dst: in_addr(v4),
                    ipi_addr: in_addr(Ipv4Addr::UNSPECIFIED),
                };
                put_ancillary(message, (libc::IPPROTO_IP, libc::IP_PKTINFO), value)
            }
            IpAddr::V6(v6) => {
                let value = libc::in6_pktinfo {
                    ipi6_addr: in6_addr(v6),
                    ipi6_ifindex: self.index,
                };
                put_ancillary(message, (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO), value)
            }
        }
    }

    /// Takes the next packet that waits. Nothing is allocated. An error of an interface that is gone (`ENETDOWN`) is
    /// returned once.
    pub fn receive<'a>(&self, room: &'a mut [u8]) -> io::Result<Received<'a>> {
        let mut ancillary = Ancillary::default();
        let mut name = MaybeUninit::<libc::sockaddr_storage>::zeroed();
        let mut piece = libc::iovec {
            iov_base: room.as_mut_ptr().cast(),
            iov_len: room.len(),
        };
        let mut message = empty_message(&mut piece, &mut ancillary);
        message.msg_name = name.as_mut_ptr().cast();
        #[expect(clippy::cast_possible_truncation, reason = "it is 128")]
        {
            message.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        }
        // SAFETY: the message refers to `name`, `piece`, the room and `ancillary`, which are writable for as long as it
        // says and outlive the call.
        let len = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        let Ok(len) = usize::try_from(len) else {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock => Ok(Received::Nothing),
                io::ErrorKind::Interrupted => Ok(Received::Broken),
                _ => Err(error),
            };
        };
        if message.msg_flags & libc::MSG_TRUNC != 0 {
            return Ok(Received::Broken);
        }
        // SAFETY: zeroed at first and then filled by the kernel; every bit pattern is a valid value.
        let name = unsafe { name.assume_init() };
        let packet = match i32::from(name.ss_family) {
            libc::AF_INET => read_v4(&room[..len]),
            libc::AF_INET6 => read_v6(&name, &message, &room[..len]),
            _ => None,
        };
        Ok(packet.map_or(Received::Broken, Received::Packet))
    }
}

impl AsFd for ProtocolSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn set_up_v4(socket: BorrowedFd<'_>, index: u32, group: Ipv4Addr) -> io::Result<()> {
    let on = |option| (libc::IPPROTO_IP, option);
    let membership = libc::ip_mreqn {
        imr_multiaddr: in_addr(group),
        imr_address: in_addr(Ipv4Addr::UNSPECIFIED),
        imr_ifindex: libc::c_int::try_from(index).map_err(io::Error::other)?,
    };
    sockopt::set(socket, on(libc::IP_MULTICAST_TTL), &HOP_LIMIT)?;
    sockopt::set(socket, on(libc::IP_TTL), &HOP_LIMIT)?;
    sockopt::set(socket, on(libc::IP_TOS), &TRAFFIC_CLASS)?;
    sockopt::set(socket, on(libc::IP_MULTICAST_LOOP), &0)?;
    sockopt::set(socket, on(libc::IP_MULTICAST_ALL), &0)?;
    sockopt::set(socket, on(libc::IP_MULTICAST_IF), &membership)?;
    sockopt::set(socket, on(libc::IP_ADD_MEMBERSHIP), &membership)
}

fn set_up_v6(socket: BorrowedFd<'_>, index: u32, group: Ipv6Addr) -> io::Result<()> {
    let on = |option| (libc::IPPROTO_IPV6, option);
    let membership = libc::ipv6_mreq {
        ipv6mr_multiaddr: in6_addr(group),
        ipv6mr_interface: index,
    };
    let interface = libc::c_int::try_from(index).map_err(io::Error::other)?;
    sockopt::set(socket, on(libc::IPV6_MULTICAST_HOPS), &HOP_LIMIT)?;
    sockopt::set(socket, on(libc::IPV6_UNICAST_HOPS), &HOP_LIMIT)?;
    sockopt::set(socket, on(libc::IPV6_TCLASS), &TRAFFIC_CLASS)?;
    sockopt::set(socket, on(libc::IPV6_MULTICAST_LOOP), &0)?;
    sockopt::set(socket, on(libc::IPV6_RECVHOPLIMIT), &1)?;
    sockopt::set(socket, on(libc::IPV6_RECVPKTINFO), &1)?;
    sockopt::set(socket, on(libc::IPV6_MULTICAST_IF), &interface)?;
    sockopt::set(socket, on(libc::IPV6_ADD_MEMBERSHIP), &membership)
}

/// Reads a packet with its IP header, as the kernel hands over those of IPv4.
fn read_v4(bytes: &[u8]) -> Option<Packet<'_>> {
    let header = bytes.first_chunk::<IPV4_HEADER_MIN>()?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || header_len < IPV4_HEADER_MIN {
        return None;
    }
    let address = |at: usize| IpAddr::from([0, 1, 2, 3].map(|step| header[at + step]));
    Some(Packet {
        from: address(12),
        to: address(16),
        hop_limit: header[8],
        payload: bytes.get(header_len..)?,
    })
}

/// Reads a packet of IPv6, whose header comes as ancillary data.
fn read_v6<'a>(
    name: &libc::sockaddr_storage,
    message: &libc::msghdr,
    payload: &'a [u8],
) -> Option<Packet<'a>> {
    // SAFETY: its family is AF_INET6, so the kernel wrote a `sockaddr_in6`, which a storage is large and aligned for.
    let from = unsafe { std::ptr::from_ref(name).cast::<libc::sockaddr_in6>().read() };
    let hop_limit = ancillary::<libc::c_int>(message, (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT))?;
    let to = ancillary::<libc::in6_pktinfo>(message, (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO))?;
    Some(Packet {
        from: Ipv6Addr::from(from.sin6_addr.s6_addr).into(),
        to: Ipv6Addr::from(to.ipi6_addr.s6_addr).into(),
        hop_limit: u8::try_from(hop_limit).ok()?,
        payload,
    })
}

/// Ancillary data of a message, aligned as the kernel wants it.
#[derive(Debug)]
#[repr(C, align(8))]
struct Ancillary([u8; ANCILLARY_LEN]);

impl Default for Ancillary {
    fn default() -> Self {
        Self([0; ANCILLARY_LEN])
    }
}

fn empty_message(piece: &mut libc::iovec, ancillary: &mut Ancillary) -> libc::msghdr {
    // SAFETY: a message of nothing: null pointers with lengths of zero.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = std::ptr::from_mut(piece);
    message.msg_iovlen = 1;
    message.msg_control = ancillary.0.as_mut_ptr().cast();
    message.msg_controllen = ANCILLARY_LEN;
    message
}

/// Structures of plain integers that stand in ancillary data.
trait Plain: Copy {}
impl Plain for libc::c_int {}
impl Plain for libc::in_pktinfo {}
impl Plain for libc::in6_pktinfo {}

/// Writes the one piece of ancillary data; how long it is.
fn put_ancillary<T: Plain>(
    message: &mut libc::msghdr,
    (level, kind): (libc::c_int, libc::c_int),
    value: T,
) -> io::Result<usize> {
    let len = u32::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the message's control room is `Ancillary`, aligned, zeroed and larger than a header with any `Plain`;
    // `CMSG_FIRSTHDR` points to its begin, `CMSG_DATA` behind the header.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(std::ptr::from_ref(message));
        if header.is_null() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(len) as usize;
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
        Ok(libc::CMSG_SPACE(len) as usize)
    }
}

/// The value of the ancillary data of this kind, if the kernel wrote one.
fn ancillary<T: Plain>(
    message: &libc::msghdr,
    (level, kind): (libc::c_int, libc::c_int),
) -> Option<T> {
    let len = u32::try_from(size_of::<T>()).ok()?;
    // SAFETY: the kernel filled the control room and set its length, within which these macros stay; a value is read
    // only where its header says that it is there whole, and every bit pattern is a valid `Plain`.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(std::ptr::from_ref(message));
        while !header.is_null() {
            let whole = (*header).cmsg_len >= libc::CMSG_LEN(len) as usize;
            if (*header).cmsg_level == level && (*header).cmsg_type == kind && whole {
                return Some(libc::CMSG_DATA(header).cast::<T>().read_unaligned());
            }
            header = libc::CMSG_NXTHDR(std::ptr::from_ref(message), header);
        }
    }
    None
}

fn in_addr(address: Ipv4Addr) -> libc::in_addr {
    libc::in_addr {
        s_addr: u32::from_ne_bytes(address.octets()),
    }
}

fn in6_addr(address: Ipv6Addr) -> libc::in6_addr {
    libc::in6_addr {
        s6_addr: address.octets(),
    }
}

/// The address as the kernel wants it, and its length.
#[expect(
    clippy::cast_possible_truncation,
    reason = "families are 2 and 10, lengths 28 at most"
)]
fn socket_address(address: IpAddr, index: u32) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: a structure of integers, for which all zeros are a valid value.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let place = &raw mut storage;
    let len = match address {
        IpAddr::V4(v4) => {
            let value = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: 0,
                sin_addr: in_addr(v4),
                sin_zero: [0; 8],
            };
            // SAFETY: a storage is large enough and aligned for every kind of address.
            unsafe { place.cast::<libc::sockaddr_in>().write(value) };
            size_of::<libc::sockaddr_in>()
        }
        IpAddr::V6(v6) => {
            let value = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: 0,
                sin6_flowinfo: 0,
                sin6_addr: in6_addr(v6),
                // Only what is of a link alone needs it; what is not ignores it.
                sin6_scope_id: index,
            };
            // SAFETY: as above.
            unsafe { place.cast::<libc::sockaddr_in6>().write(value) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, len as libc::socklen_t)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Socket;
    use crate::netlink::address::of_interface;
    use crate::netlink::link::Link;
    use mainstay_testkit::{Netns, is_root, program, skip, wait_until};
    use std::time::Duration;

    const LIMIT: Duration = Duration::from_secs(20);
    const GROUP_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 18));
    const GROUP_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12));

    /// The one virtual interface in a namespace.
    fn veth(netns: &Netns) -> Link {
        netns.enter(|| {
            let links = std::process::Command::new(program("ip"))
                .args(["-o", "link"])
                .output();
            let links = String::from_utf8(links.unwrap().stdout).unwrap();
            let veth = links
                .split_whitespace()
                .find(|word| word.starts_with("veth"));
            let name = veth.unwrap().split('@').next().unwrap();
            Link::named(&Socket::open_route().unwrap(), name)
                .unwrap()
                .unwrap()
        })
    }

    fn open(netns: &Netns, group: IpAddr) -> ProtocolSocket {
        let link = veth(netns);
        let options = Options {
            protocol: 112,
            interface: (&link.name, link.index),
            group,
        };
        netns.enter(|| ProtocolSocket::open(&options).unwrap())
    }

    /// The first usable address of this family, which IPv6 has only after a while.
    fn own(netns: &Netns, v6: bool) -> IpAddr {
        let index = veth(netns).index;
        netns.enter(|| {
            let socket = Socket::open_route().unwrap();
            wait_until(LIMIT, "there is a usable address", || {
                let listed = of_interface(&socket, index).unwrap();
                let mut usable = listed.iter().filter(|one| one.usable);
                let found = usable.find(|one| one.placed.address.is_ipv6() == v6);
                found
                    .map(|one| one.placed.address)
                    .ok_or(format!("{listed:?}"))
            })
        })
    }

    fn next(socket: &ProtocolSocket) -> (IpAddr, IpAddr, u8, Vec<u8>) {
        let mut room = [0; 100];
        wait_until(LIMIT, "a packet comes", || {
            match socket.receive(&mut room) {
                Ok(Received::Packet(packet)) => Ok((
                    packet.from,
                    packet.to,
                    packet.hop_limit,
                    packet.payload.to_vec(),
                )),
                other => Err(format!("{other:?}")),
            }
        })
    }

    #[test]
    fn system_packets_of_both_families_come_with_what_their_header_said() {
        if !is_root() {
            return skip("needs root: makes network namespaces");
        }
        let (here, there) = (Netns::new(), Netns::new());
        Netns::join((&here, "10.9.0.1/24"), (&there, "10.9.0.2/24"));
        for group in [GROUP_V4, GROUP_V6] {
            let v6 = group.is_ipv6();
            let (left, right) = (open(&here, group), open(&there, group));
            let (from, to) = (own(&here, v6), own(&there, v6));
            left.send(from, group, b"to all").unwrap();
            assert_eq!(next(&right), (from, group, 255, b"to all".to_vec()));
            left.send(from, to, b"to one").unwrap();
            assert_eq!(next(&right), (from, to, 255, b"to one".to_vec()));
            // Not to ourselves.
            assert_eq!(left.receive(&mut [0; 100]).unwrap(), Received::Nothing);
            // What does not fit is not read as something shorter.
            left.send(from, group, &[7; 200]).unwrap();
            wait_until(LIMIT, "the long one is refused", || {
                match right.receive(&mut [0; 100]) {
                    Ok(Received::Broken) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            });
        }
    }

    #[test]
    fn a_header_that_is_cut_or_lies_is_no_packet() {
        let mut bytes = vec![0x45; 24];
        bytes[8] = 255;
        assert!(read_v4(&bytes).is_some_and(|packet| packet.payload.len() == 4));
        for len in 0..IPV4_HEADER_MIN {
            assert_eq!(read_v4(&bytes[..len]), None);
        }
        for first in [0x44, 0x65, 0x4f] {
            bytes[0] = first;
            assert_eq!(read_v4(&bytes), None, "{first:#x}");
        }
    }
}
