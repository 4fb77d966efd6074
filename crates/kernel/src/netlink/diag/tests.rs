//! Against real sockets.

use std::io::Read as _;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use mainstay_testkit::{Netns, is_root, skip, wait_until};

use super::*;

const NEEDS_ROOT: &str = "needs root: makes network namespaces, and resets sockets in them";
const SOON: Duration = Duration::from_secs(10);

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Both ends of a connection to a listener.
fn connect(listener: &TcpListener, to: SocketAddr) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(to).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    (client, listener.accept().unwrap().0)
}

fn found(sockets: &Sockets, end: End) -> Vec<Connection> {
    let mut found = Vec::new();
    sockets
        .each(&[end], &[State::Established], |_, one| found.push(one))
        .unwrap();
    found.sort_by_key(|one| (one.local, one.remote));
    found
}

#[test]
fn system_sockets_are_found_by_either_end_of_either_version_of_ip() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    Netns::new().enter(|| {
        let sockets = Sockets::open().unwrap();
        let both = TcpListener::bind("[::]:8080").unwrap();
        let other = TcpListener::bind("127.0.0.1:8081").unwrap();
        let four = address("127.0.0.1:8080");
        let six = address("[::1]:8080");
        let _kept = [
            connect(&both, four),
            connect(&both, six),
            // The client's socket is of IPv6, too.
            connect(&both, address("[::ffff:127.0.0.2]:8080")),
            connect(&other, address("127.0.0.1:8081")),
        ];
        let locals = |end| -> Vec<_> {
            let found = found(&sockets, end);
            found.into_iter().map(|one| one.local).collect()
        };
        let remotes = |end| -> Vec<_> {
            let found = found(&sockets, end);
            found.into_iter().map(|one| one.remote).collect()
        };
        let mapped = address("127.0.0.2:8080");
        assert_eq!(
            locals(End::Local(address("0.0.0.0:8080"))),
            [four, mapped, six]
        );
        assert_eq!(
            locals(End::Local(address("[::]:8080"))),
            [four, mapped, six]
        );
        assert_eq!(locals(End::Local(four)), [four]);
        assert_eq!(locals(End::Local(mapped)), [mapped]);
        assert_eq!(locals(End::Local(six)), [six]);
        assert_eq!(locals(End::Local(address("127.0.0.3:8080"))), []);
        assert_eq!(remotes(End::Remote(four)), [four]);
        assert_eq!(remotes(End::Remote(mapped)), [mapped]);
        assert_eq!(
            remotes(End::Remote(address("[::ffff:127.0.0.2]:8080"))),
            [mapped]
        );
        assert_eq!(remotes(End::Remote(six)), [six]);
        // More ends than one program asks for, and sockets that have two of them.
        let nobody = (1..).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let mut ends: Vec<_> = nobody.take(ENDS_MAX * 2).collect();
        let wanted = ["0.0.0.0:8080", "[::1]:8080", "127.0.0.1:8081"].map(address);
        for (at, end) in [3, ENDS_MAX, ENDS_MAX * 2].into_iter().zip(wanted) {
            ends.insert(at, end);
        }
        let crowds = sockets.crowds(&ends).unwrap();
        let crowded = (0..)
            .zip(crowds)
            .filter(|(_, crowd)| *crowd != Crowd::default());
        let counts = crowded.map(|(index, crowd): (usize, _)| (index, crowd.established));
        let expected = [(3, 3), (ENDS_MAX, 1), (ENDS_MAX * 2, 1)];
        assert_eq!(counts.collect::<Vec<_>>(), expected);
    });
}

#[test]
fn system_what_the_program_has_still_to_do_with_is_in_flight() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    Netns::new().enter(|| {
        let sockets = Sockets::open().unwrap();
        let at = address("127.0.0.1:8080");
        let in_flight = || sockets.crowds(&[at]).unwrap()[0].in_flight;
        let listener = TcpListener::bind(at).unwrap();
        assert_eq!(in_flight(), 0, "a listener is no connection");
        let client = TcpStream::connect(at).unwrap();
        assert_eq!(in_flight(), 1, "not accepted yet");
        let (server, _) = listener.accept().unwrap();
        assert_eq!(in_flight(), 1);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(in_flight(), 1, "it may still be answered");
        drop(server);
        assert_eq!(in_flight(), 0, "the kernel does the rest");
        drop(client);
        let (client, server) = connect(&listener, at);
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(in_flight(), 1, "it may still be listened to");
        drop(server);
        assert_eq!(in_flight(), 0);
        // The one that closes first remembers it for a minute.
        drop(client);
        wait_until(SOON, "the end is remembered", || {
            let mut remembered = 0;
            let states = [State::TimeWait, State::FinWait2];
            sockets
                .each(&[End::Local(at)], &states, |_, _| remembered += 1)
                .unwrap();
            if remembered == 1 {
                Ok(())
            } else {
                Err(remembered.to_string())
            }
        });
        assert_eq!(in_flight(), 0);
    });
}

#[test]
fn system_one_socket_is_reset_and_its_neighbours_are_not() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    Netns::new().enter(|| {
        let sockets = Sockets::open().unwrap();
        let listener = TcpListener::bind("[::]:8080").unwrap();
        for to in ["127.0.0.1:8080", "[::1]:8080", "[::ffff:127.0.0.1]:8080"] {
            let to = address(to);
            let (mut waiting, _far) = connect(&listener, to);
            let (neighbour, _other) = connect(&listener, to);
            let ours = |one: &Connection| one.local.port() == waiting.local_addr().unwrap().port();
            let found: Vec<_> = found(&sockets, End::Remote(to))
                .into_iter()
                .filter(ours)
                .collect();
            assert_eq!(found.len(), 1, "{to}");
            assert_eq!(sockets.reset(&found).unwrap(), 1, "{to}");
            let error = waiting.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted, "{to}");
            assert_eq!(sockets.reset(&found).unwrap(), 0, "it is gone");
            neighbour.set_nonblocking(true).unwrap();
            let error = neighbour.peek(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{to}");
        }
    });
}

#[test]
fn system_more_are_reset_than_one_datagram_names() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    Netns::new().enter(|| {
        let sockets = Sockets::open().unwrap();
        let at = address("127.0.0.1:8080");
        let listener = TcpListener::bind(at).unwrap();
        let count = RESETS_AT_ONCE + 3;
        let kept: Vec<_> = (0..count).map(|_| connect(&listener, at)).collect();
        let all = found(&sockets, End::Remote(at));
        assert_eq!(all.len(), count);
        assert_eq!(sockets.reset(&all).unwrap(), count);
        for (client, _) in &kept {
            let error = client.peek(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        }
    });
}

#[test]
fn system_without_the_right_nothing_is_reset_and_it_is_told() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    Netns::new().enter(|| {
        let sockets = Sockets::open().unwrap();
        let at = address("127.0.0.1:8080");
        let listener = TcpListener::bind(at).unwrap();
        let (client, _far) = connect(&listener, at);
        super::super::tests::drop_rights();
        let found = found(&sockets, End::Remote(at));
        assert_eq!(found.len(), 1, "everybody may look");
        let error = sockets.reset(&found).unwrap_err();
        assert!(matches!(error, ResetError::Forbidden), "{error:?}");
        client.set_nonblocking(true).unwrap();
        let error = client.peek(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    });
}

#[test]
fn a_kernel_that_cannot_reset_is_told_from_a_missing_right() {
    let connection = Connection::read(&answer()).unwrap();
    let unsupported = refusal(Some(&connection), libc::EOPNOTSUPP);
    assert!(unsupported.to_string().contains("CONFIG_INET_DIAG_DESTROY"));
    assert!(matches!(
        refusal(Some(&connection), libc::EPERM),
        ResetError::Forbidden
    ));
    let other = refusal(Some(&connection), libc::EIO);
    assert!(matches!(other, ResetError::Refused { .. }), "{other:?}");
}

/// As the kernel describes a socket.
fn answer() -> Vec<u8> {
    let mut body = vec![0; FOUND_LEN];
    (body[0], body[1]) = (IPV4, 1);
    body[8..12].copy_from_slice(&Ipv4Addr::LOCALHOST.octets());
    body
}

#[test]
fn every_cut_and_every_byte_of_an_answer_is_read_or_left() {
    let body = answer();
    assert!(Connection::read(&body).is_some_and(|one| !one.held));
    for cut in 0..body.len() {
        assert_eq!(Connection::read(&body[..cut]), None, "{cut}");
    }
    for at in 0..body.len() {
        for value in 0..=u8::MAX {
            let mut broken = body.clone();
            broken[at] = value;
            let read = Connection::read(&broken);
            let known = matches!((broken[0], broken[1]), (IPV4 | IPV6, 1..=12));
            assert_eq!(read.is_some(), known, "{at} {value}");
        }
    }
}
