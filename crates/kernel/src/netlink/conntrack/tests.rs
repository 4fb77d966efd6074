//! Against real connections that `nft` leads on, and flows that are put into the table.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Stdio;
use std::time::Duration;

use mainstay_testkit::{Netns, is_root, program, skip, wait_until};

use super::*;
use crate::netlink::route::{LocalRoute, Routes};

const NEEDS_ROOT: &str = "needs root: makes network namespaces, and rules in them";
const SOON: Duration = Duration::from_secs(10);

/// 10.96.0.10:8080 and [fd00:96::10]:8080 are led to port 80 of 10.77.0.101 and fd00:77::101, or
/// wherever the map says.
const RULES: &str = "
table inet lb {
  map ep4 { type inet_proto : ipv4_addr . inet_service; elements = { tcp : 10.77.0.101 . 80, udp : 10.77.0.101 . 80 } }
  map ep6 { type inet_proto : ipv6_addr . inet_service; elements = { tcp : fd00:77::101 . 80, udp : fd00:77::101 . 80 } }
  chain out { type nat hook output priority -100; policy accept;
    meta l4proto { tcp, udp } ip daddr 10.96.0.10 th dport 8080 dnat ip to meta l4proto map @ep4
    meta l4proto { tcp, udp } ip6 daddr fd00:96::10 th dport 8080 dnat ip6 to meta l4proto map @ep6
  }
}
";
pub(in crate::netlink) const SERVICE: &str = "10.96.0.10:8080";
pub(in crate::netlink) const SERVICE6: &str = "[fd00:96::10]:8080";
pub(in crate::netlink) const INSTANCE: &str = "10.77.0.101:80";
pub(in crate::netlink) const OTHER: &str = "10.77.0.102:80";
pub(in crate::netlink) const INSTANCE6: &str = "[fd00:77::101]:80";
pub(in crate::netlink) const OTHER6: &str = "[fd00:77::102]:80";

pub(in crate::netlink) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(in crate::netlink) fn nft(netns: &Netns, input: &str) {
    let mut command = netns.command(&program("nft"));
    let command = command.args(["-f", "-"]).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success(), "{input}");
}

/// A network with the service and two instances, of which the first is chosen.
pub(in crate::netlink) fn forwarding() -> Netns {
    let netns = Netns::new();
    let ip = program("ip");
    for at in [
        "10.77.0.101/32",
        "10.77.0.102/32",
        "fd00:77::101/128",
        "fd00:77::102/128",
    ] {
        let mut command = netns.command(&ip);
        let status = command.args(["address", "add", at, "dev", "lo"]).status();
        assert!(status.unwrap().success(), "{at}");
    }
    netns.enter(|| {
        let routes = Routes::open().unwrap();
        for (range, source) in [
            ("10.96.0.0/16", "10.77.0.101"),
            ("fd00:96::/64", "fd00:77::101"),
        ] {
            let (prefix, source) = (range.parse().unwrap(), Some(source.parse().unwrap()));
            routes.add_local(&LocalRoute { prefix, source }).unwrap();
        }
    });
    nft(&netns, RULES);
    netns
}

/// From now on the second instance is chosen.
pub(in crate::netlink) fn lead_to_the_other(netns: &Netns) {
    for (map, instance) in [("ep4", "10.77.0.102"), ("ep6", "fd00:77::102")] {
        nft(
            netns,
            &format!(
                "flush map inet lb {map}
                 add element inet lb {map} {{ tcp : {instance} . 80, udp : {instance} . 80 }}"
            ),
        );
    }
}

pub(in crate::netlink) fn tuple(protocol: Protocol, source: SocketAddr, to: SocketAddr) -> Tuple {
    Tuple {
        protocol,
        source,
        destination: to,
    }
}

/// Puts flows into the table: as they began, and who answers them.
pub(in crate::netlink) fn plant(conntrack: &Conntrack, flows: &[(Tuple, SocketAddr)]) {
    for batch in flows.chunks(FLOWS_AT_ONCE) {
        // NLM_F_CREATE, CTA_TIMEOUT
        let flags = REQUEST | ACK | 0x400;
        let originals = batch.iter().map(|flow| (&flow.0, flow));
        let request = requests((NEW, flags), originals, |out, (original, instance)| {
            let reply = tuple(original.protocol, *instance, original.source);
            attributes::write_tuple(out, REPLY, &reply);
            out.number(7, 3600);
        });
        let answers = conntrack.socket.transact(request.as_bytes()).unwrap();
        assert_eq!(answers.len(), batch.len());
        assert!(
            answers.iter().all(|answer| answer.errno == 0),
            "{:?}",
            answers[0]
        );
    }
}

/// `count` flows of clients elsewhere, from different addresses and ports.
pub(in crate::netlink) fn strangers(
    protocol: Protocol,
    count: u16,
    (service, instance): (SocketAddr, SocketAddr),
) -> Vec<(Tuple, SocketAddr)> {
    let flow = |index: u16| {
        let [high, low] = index.to_be_bytes();
        let source = SocketAddr::from(([10, 1, high, low], 1024 + index));
        (tuple(protocol, source, service), instance)
    };
    (0..count).map(flow).collect()
}

fn answered_by(conntrack: &Conntrack, protocol: Protocol, instance: &str) -> Vec<Flow> {
    let mut found = Vec::new();
    let each = |flow| found.push(flow);
    conntrack
        .each_answered_by(protocol, address(instance), each)
        .unwrap();
    found
}

/// A datagram to the service, and back from whoever has it.
fn round(client: &UdpSocket, servers: &[&UdpSocket]) -> SocketAddr {
    client.send(b"?").unwrap();
    wait_until(SOON, "a server has it", || {
        for server in servers {
            if let Ok((_, from)) = server.recv_from(&mut [0; 9]) {
                server.send_to(b"!", from).unwrap();
                client.recv(&mut [0; 9]).unwrap();
                return Ok(server.local_addr().unwrap());
            }
        }
        Err("nothing".to_owned())
    })
}

fn server(at: &str) -> UdpSocket {
    let socket = UdpSocket::bind(at).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn client(to: &str) -> UdpSocket {
    let to = address(to);
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.connect(to).unwrap();
    socket
}

#[test]
fn system_a_connection_is_found_by_how_it_was_addressed() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    forwarding().enter(|| {
        let conntrack = Conntrack::open().unwrap();
        for (service, instance) in [(SERVICE, INSTANCE), (SERVICE6, INSTANCE6)] {
            let listener = TcpListener::bind(instance).unwrap();
            let client = TcpStream::connect(service).unwrap();
            let mut far = listener.accept().unwrap().0;
            far.write_all(b"!").unwrap();
            (&client).read_exact(&mut [0]).unwrap();
            let local = client.local_addr().unwrap();
            let asked = tuple(Protocol::Tcp, local, address(service));
            let elsewhere = tuple(Protocol::Tcp, local, address(instance));
            let udp = tuple(Protocol::Udp, local, address(service));
            let found = conntrack.find(&[elsewhere, asked, udp]).unwrap();
            let [None, Some(flow), None] = found[..] else {
                panic!("{found:?}")
            };
            assert_eq!(flow.original, asked);
            assert_eq!(flow.reply.source, address(instance));
            assert_eq!(flow.reply.destination, local);
            assert!(flow.answered && flow.is_led_on());
            assert_eq!(answered_by(&conntrack, Protocol::Tcp, instance), [flow]);
            assert_eq!(answered_by(&conntrack, Protocol::Udp, instance), []);
            assert_eq!(answered_by(&conntrack, Protocol::Tcp, service), []);
            assert_eq!(conntrack.delete(&[flow]).unwrap(), 1);
            assert_eq!(conntrack.delete(&[flow]).unwrap(), 0);
            assert_eq!(conntrack.find(&[asked]).unwrap(), [None]);
        }
    });
}

#[test]
fn system_the_flows_of_an_instance_are_told_from_all_others() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    Netns::new().enter(|| {
        let conntrack = Conntrack::open().unwrap();
        let count = u16::try_from(FLOWS_AT_ONCE).unwrap() * 3 + 7;
        for (service, instance, other) in
            [(SERVICE, INSTANCE, OTHER), (SERVICE6, INSTANCE6, OTHER6)]
        {
            let [service, at, other_at] = [service, instance, other].map(address);
            let next = SocketAddr::new(at.ip(), at.port() + 1);
            // Clients of IPv4 for IPv4, of IPv6 for IPv6.
            let of = |protocol, first: u16, to| -> Vec<_> {
                let flow = |(original, to): (Tuple, SocketAddr)| {
                    let port = original.source.port() + first;
                    let source = match service {
                        SocketAddr::V4(_) => SocketAddr::new(original.source.ip(), port),
                        SocketAddr::V6(_) => SocketAddr::new("fd00::1".parse().unwrap(), port),
                    };
                    (Tuple { source, ..original }, to)
                };
                strangers(protocol, count, (service, to))
                    .into_iter()
                    .map(flow)
                    .collect()
            };
            let mine = of(Protocol::Udp, 0, at);
            plant(&conntrack, &mine);
            plant(&conntrack, &of(Protocol::Tcp, 0, at));
            plant(&conntrack, &of(Protocol::Udp, count, other_at));
            plant(&conntrack, &of(Protocol::Udp, count * 2, next));
            let found = answered_by(&conntrack, Protocol::Udp, instance);
            let originals: BTreeSet<_> = found.iter().map(|flow| flow.original.source).collect();
            let expected: BTreeSet<_> = mine.iter().map(|(one, _)| one.source).collect();
            assert!(
                originals == expected,
                "{} of {}",
                originals.len(),
                expected.len()
            );
            assert_eq!(found.len(), mine.len());
            // The kernel sorts them out, of IPv6 by the port alone.
            let mut request = Writer::default();
            let header = (SUBSYSTEM | GET, REQUEST | DUMP);
            write_filter(&mut request, header, Protocol::Udp, at);
            let mut told = 0;
            conntrack
                .socket
                .dump(request.as_bytes(), |_| told += 1)
                .unwrap();
            let expected = if at.is_ipv4() {
                mine.len()
            } else {
                mine.len() * 2
            };
            assert_eq!(told, expected, "{at}");
            let asked: Vec<_> = mine.iter().map(|(original, _)| *original).collect();
            let all = conntrack.find(&asked).unwrap();
            assert!(
                all.iter()
                    .zip(&asked)
                    .all(|(one, asked)| one.unwrap().original == *asked)
            );
        }
        let fill = Fill::read().unwrap();
        assert_eq!(fill.entries, u64::from(count) * 8);
        assert!(fill.entries_max >= fill.entries, "{fill:?}");
    });
}

/// Both ways of deleting, of which kernels before 6.11 know one.
type Delete = fn(&Conntrack, Protocol, SocketAddr) -> io::Result<()>;

#[test]
fn system_udp_moves_off_an_instance_when_its_flows_are_deleted() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let ways: [Delete; 2] = [Conntrack::delete_answered_by, Conntrack::find_and_delete];
    for delete in ways {
        let netns = forwarding();
        let netns = &netns;
        netns.enter(|| {
            let conntrack = Conntrack::open().unwrap();
            let cases = [(SERVICE, INSTANCE, OTHER), (SERVICE6, INSTANCE6, OTHER6)];
            let pairs = cases
                .map(|(service, leaves, stays)| (client(service), server(leaves), server(stays)));
            for (client, leaves, stays) in &pairs {
                let first = round(client, &[leaves, stays]);
                assert_eq!(first, leaves.local_addr().unwrap());
            }
            lead_to_the_other(netns);
            // Of other instances with the same port.
            let others = cases.map(|(service, _, stays)| {
                let [service, stays] = [service, stays].map(address);
                let source = SocketAddr::new(service.ip(), 4567);
                (tuple(Protocol::Udp, source, service), stays)
            });
            plant(&conntrack, &others);
            for (client, leaves, stays) in &pairs {
                let left = leaves.local_addr().unwrap();
                assert_eq!(
                    round(client, &[leaves, stays]),
                    left,
                    "it stays while it is tracked"
                );
                delete(&conntrack, Protocol::Tcp, left).unwrap();
                assert_eq!(round(client, &[leaves, stays]), left, "that was TCP's");
                delete(&conntrack, Protocol::Udp, left).unwrap();
                assert_eq!(round(client, &[leaves, stays]), stays.local_addr().unwrap());
            }
            let kept = conntrack
                .find(&others.map(|(original, _)| original))
                .unwrap();
            assert!(kept.iter().all(Option::is_some), "{kept:?}");
        });
    }
}

#[test]
fn system_flows_are_told_when_they_come_and_go() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    forwarding().enter(|| {
        let conntrack = Conntrack::open().unwrap();
        let events = Events::open().unwrap();
        let told = || {
            let mut told = Vec::new();
            events.receive(|event| told.push(event)).unwrap();
            told
        };
        let (client, server) = (client(SERVICE), server(INSTANCE));
        round(&client, &[&server]);
        let original = tuple(
            Protocol::Udp,
            client.local_addr().unwrap(),
            address(SERVICE),
        );
        let [Some(flow)] = conntrack.find(&[original]).unwrap()[..] else {
            panic!("it is there")
        };
        let [Event::Began(began)] = told()[..] else {
            panic!("one began")
        };
        assert_eq!((began.original, began.reply), (flow.original, flow.reply));
        assert_eq!(began.id, flow.id);
        assert!(!began.answered);
        conntrack.delete(&[flow]).unwrap();
        let [Event::Ended(ended)] = told()[..] else {
            panic!("one ended")
        };
        assert_eq!((ended.original, ended.id), (flow.original, flow.id));
        assert_eq!(told(), []);
    });
}

#[test]
fn system_who_listens_too_slowly_is_told() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    Netns::new().enter(|| {
        let conntrack = Conntrack::open().unwrap();
        let events = Events::open().unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&events, 16 * 1024).unwrap();
        let ends = (address(SERVICE), address(INSTANCE));
        plant(&conntrack, &strangers(Protocol::Tcp, 1000, ends));
        let mut told = Vec::new();
        events.receive(|event| told.push(event)).unwrap();
        assert!(told.contains(&Event::Overrun), "{}", told.len());
        assert!(told.len() < 1000, "{}", told.len());
        // And then it goes on.
        plant(&conntrack, &strangers(Protocol::Udp, 1, ends));
        let mut told = Vec::new();
        events.receive(|event| told.push(event)).unwrap();
        assert!(matches!(told[..], [Event::Began(_)]), "{told:?}");
    });
}

#[test]
fn system_without_the_right_nothing_is_told() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    Netns::new().enter(|| {
        let conntrack = Conntrack::open().unwrap();
        super::super::tests::drop_rights();
        let at = address(INSTANCE);
        let asked = tuple(Protocol::Tcp, at, at);
        for error in [
            conntrack.find(&[asked]).unwrap_err(),
            conntrack
                .each_answered_by(Protocol::Tcp, at, |_| ())
                .unwrap_err(),
            conntrack.delete_answered_by(Protocol::Tcp, at).unwrap_err(),
            Events::open().unwrap_err(),
        ] {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
        }
    });
}

/// A flow as the kernel tells it.
fn message_of(original: &Tuple, reply: &Tuple) -> Vec<u8> {
    let mut out = Writer::default();
    message(&mut out, SUBSYSTEM | NEW, (0, 0), |out| {
        out.raw(&[2, 0, 0, 0]);
        attributes::write_tuple(out, ORIGINAL, original);
        attributes::write_tuple(out, REPLY, reply);
        out.number(3, 2);
        out.number(ID, 17);
    });
    out.as_bytes().to_vec()
}

#[test]
fn every_cut_and_every_byte_of_a_message_is_read_or_left() {
    let [service, instance, client] = [SERVICE, INSTANCE, "10.1.2.3:4567"].map(address);
    let original = tuple(Protocol::Udp, client, service);
    let reply = tuple(Protocol::Udp, instance, client);
    let whole = message_of(&original, &reply);
    let read = |bytes: &[u8]| {
        let mut events = Vec::new();
        Event::each_of(bytes, |event| events.push(event));
        events
    };
    let expected = Flow {
        original,
        reply,
        answered: true,
        id: 17,
    };
    assert_eq!(read(&whole), [Event::Began(expected)]);
    assert_eq!(read(&[&whole[..], &whole[..]].concat()).len(), 2);
    for cut in 0..whole.len() {
        assert_eq!(read(&whole[..cut]), [], "{cut}");
        let body = &whole[crate::netlink::socket::HEADER_LEN..];
        let cut = cut.min(body.len() - 1);
        assert_eq!(Flow::read(&body[..cut]), None, "{cut}");
    }
    for at in 0..whole.len() {
        for value in 0..=u8::MAX {
            let mut broken = whole.clone();
            broken[at] = value;
            assert!(read(&broken).len() <= 1);
        }
    }
}
