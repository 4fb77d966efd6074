//! A listening socket at which, for some addresses, no connection comes about any more: the first packet of each is
//! dropped before the kernel answers it. Whoever sent it sends it again, to whoever has the address then. What was
//! accepted, or answered, already goes on.

use std::io;
use std::net::IpAddr;

use socket2::{SockFilter, SockRef};

use crate::leave::{Step, Wish};

// bpf(2) of the classic kind; see `linux/filter.h`.
const LOAD_WORD: u16 = 0x20;
const LOAD_BYTE: u16 = 0x30;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_ANY: u16 = 0x45;
const RETURN: u16 = 0x06;

const PASS: SockFilter = SockFilter::new(RETURN, 0, 0, u32::MAX);
const DROP: SockFilter = SockFilter::new(RETURN, 0, 0, 0);

/// The byte with the flags of a TCP header, at which a filter of a TCP socket begins.
const FLAGS: u32 = 13;
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;
/// Offsets from here count from the IP header (`SKF_NET_OFF`).
const IP: u32 = 0xfff0_0000;
/// Where the receiver stands in a header of IPv4, and of IPv6.
const TO_V4: u32 = IP + 16;
const TO_V6: u32 = IP + 24;

/// What the kernel takes at most (`BPF_MAXINSNS`).
const LEN_MAX: usize = 4096;

/// Lets no new connection to these addresses come about. Other processes that have the socket are meant, too.
pub(crate) fn shut(socket: &SockRef<'_>, addresses: &[IpAddr]) -> io::Result<()> {
    let program = program(addresses);
    if program.len() <= LEN_MAX {
        return socket.attach_filter(&program);
    }
    // More than can be told apart: nobody comes in for a moment.
    socket.attach_filter(&no_first_packet(vec![DROP]))
}

/// Lets everybody in.
pub(crate) fn open(socket: &SockRef<'_>) -> io::Result<()> {
    match socket.detach_filter() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Does what is wanted at a socket, and tells if it cannot.
pub(crate) fn heed(socket: &SockRef<'_>, wish: &Wish) {
    let done = match wish {
        Wish::Stay => open(socket),
        Wish::Leave(leave) => match leave.step {
            Step::Shut => shut(socket, &leave.addresses),
            Step::Finish | Step::Empty | Step::Cut => Ok(()),
        },
    };
    if let Err(error) = done {
        tracing::warn!(%error, "cannot shut or open a listening socket for an address that is left");
    }
}

/// Passes what is no first packet of a connection, and goes on to `judge` with one that is.
fn no_first_packet(judge: Vec<SockFilter>) -> Vec<SockFilter> {
    let mut program = vec![
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(IF_ANY, 1, 0, ACK),
        SockFilter::new(IF_ANY, 1, 0, SYN),
        PASS,
    ];
    program.extend(judge);
    program
}

fn program(addresses: &[IpAddr]) -> Vec<SockFilter> {
    let (mut v4, mut v6) = (vec![SockFilter::new(LOAD_WORD, 0, 0, TO_V4)], Vec::new());
    for address in addresses {
        match address {
            IpAddr::V4(address) => {
                v4.push(SockFilter::new(IF_EQUAL, 0, 1, address.to_bits()));
                v4.push(DROP);
            }
            IpAddr::V6(address) => {
                let bits = address.to_bits().to_be_bytes();
                for (at, word) in bits.as_chunks::<4>().0.iter().enumerate() {
                    let at = u32::try_from(at).unwrap_or(0);
                    // Over the rest of this address: two for each word that follows, and the end.
                    let over = u8::try_from(2 * (3 - at) + 1).unwrap_or(0);
                    v6.push(SockFilter::new(LOAD_WORD, 0, 0, TO_V6 + 4 * at));
                    v6.push(SockFilter::new(
                        IF_EQUAL,
                        0,
                        over,
                        u32::from_be_bytes(*word),
                    ));
                }
                v6.push(DROP);
            }
        }
    }
    v4.push(PASS);
    v6.push(PASS);
    let over_v4 = u32::try_from(v4.len()).unwrap_or(0);
    let mut judge = vec![
        SockFilter::new(LOAD_BYTE, 0, 0, IP),
        SockFilter::new(AND, 0, 0, 0xf0),
        SockFilter::new(IF_EQUAL, 1, 0, 0x40),
        SockFilter::new(JUMP, 0, 0, over_v4),
    ];
    judge.extend(v4);
    judge.extend(v6);
    no_first_packet(judge)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::Duration;

    const SHORT: Duration = Duration::from_millis(300);

    fn reaches(address: SocketAddr) -> bool {
        match TcpStream::connect_timeout(&address, SHORT) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => false,
            Err(error) => panic!("{address}: {error}"),
        }
    }

    #[test]
    fn first_packets_to_a_shut_address_are_not_answered_and_all_others_are() {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let at = |host| SocketAddr::from(([127, 0, 0, host], port));
        let before = TcpStream::connect(at(1)).unwrap();
        let addresses = [
            [127, 0, 0, 9].into(),
            [127, 0, 0, 1].into(),
            "::1".parse().unwrap(),
        ];
        shut(&SockRef::from(&listener), &addresses).unwrap();
        assert_eq!(
            [1, 2, 9, 10].map(|host| reaches(at(host))),
            [false, true, false, true]
        );
        // What was there is accepted, and carries bytes.
        let (mut accepted, _) = listener.accept().unwrap();
        io::Write::write_all(&mut &before, b"x").unwrap();
        io::Read::read_exact(&mut accepted, &mut [0]).unwrap();
        open(&SockRef::from(&listener)).unwrap();
        assert!(reaches(at(1)));
        open(&SockRef::from(&listener)).unwrap();
    }

    #[test]
    fn addresses_of_ipv6_are_told_apart_by_all_their_words() {
        let Ok(listener) = TcpListener::bind("[::]:0") else {
            return mainstay_testkit::skip("this machine has no IPv6");
        };
        let port = listener.local_addr().unwrap().port();
        let own = SocketAddr::new("::1".parse().unwrap(), port);
        let other: Vec<IpAddr> = vec!["::2".parse().unwrap(), "1::1".parse().unwrap()];
        shut(&SockRef::from(&listener), &other).unwrap();
        assert!(reaches(own));
        shut(
            &SockRef::from(&listener),
            &[other[0], "::1".parse().unwrap()],
        )
        .unwrap();
        assert!(!reaches(own));
        assert!(reaches(SocketAddr::from(([127, 0, 0, 1], port))));
    }

    #[test]
    fn more_addresses_than_fit_into_a_filter_shut_the_door_for_all() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let many: Vec<IpAddr> = (0..3000_u32)
            .map(|at| std::net::Ipv4Addr::from(at).into())
            .collect();
        shut(&SockRef::from(&listener), &many).unwrap();
        assert!(!reaches(listener.local_addr().unwrap()));
    }
}
