//! Interfaces with a hardware address of their own on top of another one (`macvlan`): what comes for that address is
//! theirs, and leaves by the other one.

use std::io;

use super::attribute::Writer;
use super::request::{CREATE, ask};
use super::socket::Socket;

const NEW: u16 = 16;
const DELETE: u16 = 17;
/// What is there already is refused (`NLM_F_EXCL`).
const EXCLUSIVE: u16 = 0x200;

const ADDRESS: u16 = 1;
const NAME: u16 = 3;
const BELOW: u16 = 5;
const KIND_OF_LINK: u16 = 18;
const KIND: u16 = 1;
const DATA: u16 = 2;
const MODE: u16 = 1;
/// None of them on one interface hears another one (`MACVLAN_MODE_PRIVATE`).
const PRIVATE: u32 = 1;
/// `IFF_UP`.
const UP: u32 = 1;

/// Whether an interface is switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// It sends and receives.
    On,
    /// It does not exist for packets.
    Off,
}

/// Makes one, switched off. `EEXIST`: there is an interface of this name; `EBUSY`: `below` is a port of something else.
pub fn make(socket: &Socket, name: &str, below: u32, mac: [u8; 6]) -> io::Result<()> {
    ask(socket, NEW, CREATE | EXCLUSIVE, |out| {
        header(out, 0, 0, 0);
        out.native(BELOW, below);
        out.text(NAME, name);
        out.attribute(ADDRESS, &mac);
        out.nest(KIND_OF_LINK, |out| {
            out.attribute(KIND, b"macvlan");
            out.nest(DATA, |out| out.native(MODE, PRIVATE));
        });
    })
}

/// Switches an interface on or off. Switched off, it loses its addresses of IPv6.
pub fn switch(socket: &Socket, index: u32, to: Switch) -> io::Result<()> {
    let flags = match to {
        Switch::On => UP,
        Switch::Off => 0,
    };
    ask(socket, NEW, 0, |out| header(out, index, flags, UP))
}

/// Takes an interface that was made away, with its addresses.
pub fn remove(socket: &Socket, index: u32) -> io::Result<()> {
    match ask(socket, DELETE, 0, |out| header(out, index, 0, 0)) {
        // The one below was taken away before, and this one with it.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        result => result,
    }
}

/// `struct ifinfomsg`: family, type, index, flags, which of them are meant.
fn header(out: &mut Writer, index: u32, flags: u32, meant: u32) {
    out.raw(&[0; 4]);
    for word in [index, flags, meant] {
        out.raw(&word.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::link::Link;
    use mainstay_testkit::{Netns, Segment, is_root, skip};

    const MAC: [u8; 6] = [0, 0, 0x5e, 0, 1, 51];

    #[test]
    fn system_one_is_made_switched_and_taken_away_and_goes_with_the_one_below() {
        if !is_root() {
            return skip("needs root: makes network namespaces");
        }
        let (segment, host) = (Segment::new(), Netns::new());
        segment.plug(&host, "a", "10.9.0.1/24");
        host.enter(|| {
            let socket = Socket::open_route().unwrap();
            let named = |name: &str| Link::named(&socket, name).unwrap();
            let below = named("eth0").unwrap().index;
            make(&socket, "veil", below, MAC).unwrap();
            let made = named("veil").unwrap();
            assert_eq!((made.mac, made.works), (Some(MAC), false));
            let twice = make(&socket, "veil", below, MAC).unwrap_err();
            assert_eq!(twice.raw_os_error(), Some(libc::EEXIST));
            switch(&socket, made.index, Switch::On).unwrap();
            assert!(named("veil").unwrap().works);
            switch(&socket, made.index, Switch::Off).unwrap();
            assert!(!named("veil").unwrap().works);
            remove(&socket, made.index).unwrap();
            assert_eq!(named("veil"), None);
            remove(&socket, made.index).unwrap();
            make(&socket, "veil", below, MAC).unwrap();
            remove(&socket, below).unwrap();
            assert_eq!(named("veil"), None);
            let nowhere = make(&socket, "veil", 4711, MAC).unwrap_err();
            assert_eq!(nowhere.raw_os_error(), Some(libc::ENODEV));
        });
    }
}
