//! Interfaces: which there are, and what changes about them.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use super::address;
use super::attribute::Attributes;
use super::request::list;
use super::socket::{Messages, Socket};

const NEW: u16 = 16;
const DELETE: u16 = 17;
const GET: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;

/// Family, type, index, flags, changed flags (`struct ifinfomsg`).
const HEADER_LEN: usize = 16;
const HARDWARE_ADDRESS: u16 = 1;
const NAME: u16 = 3;
/// The bridge or bond of which it is a port (`IFLA_MASTER`).
const MASTER: u16 = 10;

/// Switched on (`IFF_UP`), and able to carry packets (`IFF_RUNNING`).
const UP: u32 = 0x1;
const RUNNING: u32 = 0x40;
/// Nobody is behind it (`IFF_LOOPBACK`), or nobody has to be found there (`IFF_NOARP`).
const ALONE: u32 = 0x8 | 0x80;

/// Groups of messages (`RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV6_IFADDR`).
const GROUPS: u32 = 0x1 | 0x10 | 0x100;

/// A piece of what the kernel says; it sends some KiB at most for one change.
const DATAGRAM_LEN: usize = 32 * 1024;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number, which is never given again while the machine runs.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address, if that is one of Ethernet.
    pub mac: Option<[u8; 6]>,
    /// Whether packets can be sent: it is switched on and has a carrier.
    pub works: bool,
}

impl Link {
    /// The interface of this name, if there is one.
    pub fn named(socket: &Socket, name: &str) -> io::Result<Option<Self>> {
        let mut found = None;
        list(socket, GET, &[0; HEADER_LEN], |body| {
            let link = read(body).filter(|link| link.name == name);
            found = found.take().or(link);
        })?;
        Ok(found)
    }

    /// All of this network namespace.
    pub fn all(socket: &Socket) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        list(socket, GET, &[0; HEADER_LEN], |body| {
            found.extend(read(body));
        })?;
        Ok(found)
    }

    /// All on which others can be asked for addresses: those of Ethernet that work, and are no port of
    /// another one.
    pub fn with_neighbours(socket: &Socket) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        list(socket, GET, &[0; HEADER_LEN], |body| {
            let Some((header, attributes)) = body.split_first_chunk::<HEADER_LEN>() else {
                return;
            };
            let flags = u32::from_ne_bytes([8, 9, 10, 11].map(|at| header[at]));
            let is_port = Attributes::of(attributes).find(MASTER).is_some();
            let link = read(body).filter(|link| link.works && link.mac.is_some());
            found.extend(link.filter(|_| flags & ALONE == 0 && !is_port));
        })?;
        Ok(found)
    }
}

fn read(body: &[u8]) -> Option<Link> {
    let (header, attributes) = body.split_first_chunk::<HEADER_LEN>()?;
    let attributes = Attributes::of(attributes);
    let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|step| header[at + step]));
    let flags = word(8);
    let mac = attributes.find(HARDWARE_ADDRESS);
    Some(Link {
        index: word(4),
        name: attributes.find_text(NAME)?.to_owned(),
        mac: mac.and_then(|mac| mac.try_into().ok()),
        works: flags & UP != 0 && flags & RUNNING != 0,
    })
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// This interface: made, switched, renamed, or gone.
    Link(u32),
    /// An address of this interface: put, renewed, or gone.
    Address(u32, IpAddr),
    /// So much that the kernel does not say what: look at everything.
    Everything,
}

/// Changes of all interfaces of this network namespace, as they come.
#[derive(Debug)]
pub struct Changes {
    socket: OwnedFd,
    datagram: Vec<u8>,
}

impl Changes {
    /// From now on.
    pub fn follow() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        // `NETLINK_ROUTE` is 0, for which rustix says nothing.
        let socket = socket_with(family, kind, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        let datagram = vec![0; DATAGRAM_LEN];
        Ok(Self { socket, datagram })
    }

    /// Hands on what has come, up to so many messages of the kernel; waits for nothing.
    pub fn drain(&mut self, messages_max: usize, mut each: impl FnMut(Change)) -> io::Result<()> {
        for _ in 0..messages_max {
            let len = match recv(&self.socket, &mut self.datagram[..], RecvFlags::empty()) {
                Ok((len, _)) => len,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::NOBUFS) => {
                    each(Change::Everything);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            for message in Messages::of(&self.datagram[..len]) {
                match message.kind {
                    NEW | DELETE => read(message.body)
                        .into_iter()
                        .for_each(|link| each(Change::Link(link.index))),
                    NEW_ADDRESS | DELETE_ADDRESS => address::read(message.body)
                        .map(|listed| Change::Address(listed.placed.index, listed.placed.address))
                        .into_iter()
                        .for_each(&mut each),
                    // The kernel knows more kinds than we asked for.
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::address::{AsSender, Lifetime, Placed, put};
    use mainstay_testkit::{Netns, is_root, program, skip, wait_until};
    use std::time::Duration;

    const LIMIT: Duration = Duration::from_secs(20);

    fn wait_for(changes: &mut Changes, wanted: Change) {
        wait_until(LIMIT, "the change is told", || {
            let mut seen = Vec::new();
            changes.drain(100, |change| seen.push(change)).unwrap();
            if seen.contains(&wanted) {
                return Ok(());
            }
            Err(format!("{seen:?}"))
        });
    }

    #[test]
    fn system_a_cable_that_is_pulled_and_an_address_are_told_of_the_right_interface() {
        if !is_root() {
            return skip("needs root: makes network namespaces");
        }
        let (here, there) = (Netns::new(), Netns::new());
        Netns::join((&here, "10.9.0.1/24"), (&there, "10.9.0.2/24"));
        let ip = program("ip");
        let name = here.enter(|| {
            let listed = std::process::Command::new(&ip)
                .args(["-o", "link"])
                .output();
            let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
            let veth = listed
                .split_whitespace()
                .find(|word| word.starts_with("veth"));
            veth.unwrap().split('@').next().unwrap().to_owned()
        });
        let (socket, mut changes) =
            here.enter(|| (Socket::open_route().unwrap(), Changes::follow().unwrap()));
        let link = Link::named(&socket, &name).unwrap().unwrap();
        assert!(
            link.works && link.mac.is_some_and(|mac| mac != [0; 6]),
            "{link:?}"
        );
        assert_eq!(Link::named(&socket, "nothing").unwrap(), None);
        let down = there
            .command(&ip)
            .args(["link", "set", &name, "down"])
            .status();
        assert!(down.unwrap().success());
        wait_for(&mut changes, Change::Link(link.index));
        assert!(!Link::named(&socket, &name).unwrap().unwrap().works);
        let address = "10.9.0.77".parse().unwrap();
        let placed = Placed {
            address,
            prefix_len: 32,
            index: link.index,
        };
        put(&socket, &placed, Lifetime::Unbounded, AsSender::Usual).unwrap();
        wait_for(&mut changes, Change::Address(link.index, address));
    }
}
