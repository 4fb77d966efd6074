//! The PROXY protocol through a listener: believed from whom it is to be believed, demanded there,
//! and told to servers.

#![allow(clippy::unwrap_used, reason = "tests")]

mod listening;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use listening::{Listening, Server, connect, draft, quick};
use mainstay_control::listen::Standing;
use mainstay_gateway::proxy_protocol::{Header, decode, encode};
use mainstay_model::Network;
use mainstay_model::PathPrefix;
use mainstay_model::listen::{CheckKind, ListenDraft, ProxyVersion};

/// Reads a header of the PROXY protocol, then answers with it and all that follows.
fn telling() -> Server {
    Server::start(|stream| {
        let mut bytes = Vec::new();
        loop {
            if let Some((header, len)) = decode(&bytes).map_err(io::Error::other)? {
                let mut rest = bytes.split_off(len);
                stream.read_to_end(&mut rest)?;
                let rest = String::from_utf8_lossy(&rest).into_owned();
                return stream.write_all(format!("{header:?} {rest}").as_bytes());
            }
            let mut byte = [0; 1];
            stream.read_exact(&mut byte)?;
            bytes.push(byte[0]);
        }
    })
}

fn told(stream: &mut TcpStream) -> String {
    // Who is refused may be reset already.
    stream.shutdown(Shutdown::Write).ok();
    let mut all = String::new();
    stream.read_to_string(&mut all).ok();
    all
}

fn trusting(server: SocketAddr, network: &str) -> ListenDraft {
    ListenDraft {
        accept_proxy: Some(vec![Network::parse(network).unwrap()]),
        send_proxy: Some(ProxyVersion::V2),
        ..draft(&[server])
    }
}

fn tcp(source: &str, destination: &str) -> Header {
    Header::Tcp {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

#[test]
fn a_server_is_told_who_the_client_is_in_both_versions() {
    let server = telling();
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let listening = Listening::start(ListenDraft {
            send_proxy: Some(version),
            ..draft(&[server.address])
        });
        let mut client = connect(listening.front);
        client.write_all(b"hello").unwrap();
        let header = Header::Tcp {
            source: client.local_addr().unwrap(),
            destination: listening.front,
        };
        assert_eq!(told(&mut client), format!("{header:?} hello"));
    }
}

#[test]
fn a_trusted_proxy_speaks_for_its_client_in_both_versions_and_at_any_pace() {
    let server = telling();
    let listening = Listening::start(trusting(server.address, "127.0.0.0/8"));
    for (source, destination) in [
        ("192.0.2.1:49152", "203.0.113.9:5671"),
        ("[2001:db8::1]:1", "[2001:db8::2]:2"),
    ] {
        let header = tcp(source, destination);
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let bytes = [encode(version, &header), b"behind it".to_vec()].concat();
            let mut at_once = connect(listening.front);
            at_once.write_all(&bytes).unwrap();
            assert_eq!(told(&mut at_once), format!("{header:?} behind it"));
            let mut slowly = connect(listening.front);
            slowly.set_nodelay(true).unwrap();
            for byte in &bytes {
                slowly.write_all(&[*byte]).unwrap();
            }
            assert_eq!(told(&mut slowly), format!("{header:?} behind it"));
        }
    }
    let before = listening.snapshot();
    assert_eq!((before.sessions_total, before.refused), (8, 0));
    assert_eq!(before.bytes_in, 8 * 9, "headers are not the client's bytes");
}

#[test]
fn a_proxy_that_speaks_for_itself_is_told_as_it_is() {
    let server = telling();
    let listening = Listening::start(trusting(server.address, "127.0.0.1"));
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let mut client = connect(listening.front);
        client.write_all(&encode(version, &Header::Local)).unwrap();
        let header = Header::Tcp {
            source: client.local_addr().unwrap(),
            destination: listening.front,
        };
        assert_eq!(told(&mut client), format!("{header:?} "));
    }
}

#[test]
fn who_is_trusted_and_says_nothing_of_the_kind_is_refused() {
    let server = telling();
    let listening = Listening::start(trusting(server.address, "127.0.0.0/8"));
    for bytes in [
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".as_slice(),
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
        b"PROXY TCP4 1.2.3.4",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\0",
        b"",
    ] {
        let mut client = connect(listening.front);
        client.write_all(bytes).unwrap();
        assert_eq!(told(&mut client), "", "{bytes:?}");
    }
    listening.wait("each is counted", |listen| {
        listen.refused == 5 && listen.sessions == 0
    });
    assert_eq!(
        listening.server("a").sessions_total,
        0,
        "none came to a server"
    );
}

#[test]
fn a_stranger_is_refused_whatever_he_says() {
    let server = telling();
    let listening = Listening::start(trusting(server.address, "10.0.0.0/8"));
    let mut client = connect(listening.front);
    let header = encode(ProxyVersion::V1, &tcp("192.0.2.1:1", "192.0.2.2:2"));
    // He may be gone before it is written.
    client.write_all(&header).ok();
    assert_eq!(told(&mut client), "");
    listening.wait("he is counted", |listen| listen.refused == 1);
}

#[test]
fn a_header_that_is_not_demanded_is_the_clients_bytes() {
    let server = Server::echo('a');
    let listening = Listening::start(draft(&[server.address]));
    let mut client = connect(listening.front);
    client.write_all(b"PROXY UNKNOWN\r\n").unwrap();
    assert_eq!(told(&mut client), "aPROXY UNKNOWN\r\n");
}

#[test]
fn a_check_of_a_server_that_wants_the_protocol_speaks_it_for_nobody() {
    let server = Server::start(|stream| {
        let mut bytes = [0; 1024];
        let len = stream.read(&mut bytes)?;
        let (header, end) = decode(&bytes[..len]).map_err(io::Error::other)?.unwrap();
        let head = String::from_utf8_lossy(&bytes[end..len]).into_owned();
        if header == Header::Local && head.starts_with("GET /ready HTTP/1.1\r\n") {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        }
        Ok(())
    });
    let path = PathPrefix::parse("/ready").unwrap();
    let listening = Listening::start(ListenDraft {
        send_proxy: Some(ProxyVersion::V2),
        check: Some(quick(CheckKind::Http { path, expect: None })),
        ..draft(&[server.address])
    });
    listening.wait("it is up", |listen| {
        listen.servers[0].standing == Standing::Up
    });
}
