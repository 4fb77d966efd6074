//! The PROXY protocol at the gateway's own entry: demanded from whom it is believed, and then the
//! client that it names is the client.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use mainstay_gateway::proxy_protocol::{Header, encode};
use mainstay_model::Network;
use mainstay_model::gateway::GatewayLimits;
use mainstay_model::listen::{ProxyVersion, Trusted};
use mainstay_testkit::wait_until;
use support::{
    Gateway, Instance, SOON, Setting, connect, endpoint, one_service, read_reply, write_request,
};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn trusting(network: &str, instance: &Instance) -> Gateway {
    let networks = vec![Network::parse(network).unwrap()];
    let gateway = Gateway::start(Setting {
        access_log: true,
        accept_proxy: Some(Trusted::new(networks).unwrap()),
        limits: GatewayLimits {
            connections_per_address: 1,
            ..GatewayLimits::default()
        },
        ..Setting::default()
    });
    gateway.publish_and_wait(one_service(1, vec![endpoint(1, instance.address)]));
    gateway
}

fn header(version: ProxyVersion, client: &str, entry: SocketAddr) -> Vec<u8> {
    let source = client.parse().unwrap();
    let destination = entry;
    encode(
        version,
        &Header::Tcp {
            source,
            destination,
        },
    )
}

fn is_closed(client: &mut TcpStream) -> bool {
    matches!(client.read(&mut [0; 1]), Ok(0) | Err(_))
}

/// The counter of what was kept out, in `/metrics`.
fn kept_out(gateway: &Gateway, limit: &str) -> String {
    let text = gateway.stats("/metrics").text();
    let name = "mainstay_frontend_denied_total{frontend=\"entry\"";
    let line = text
        .lines()
        .find(|line| line.starts_with(name) && line.contains(&format!("limit=\"{limit}\"")));
    let value = line.and_then(|line| line.rsplit(' ').next());
    value.unwrap_or_default().to_owned()
}

#[test]
fn whom_a_trusted_proxy_names_is_the_client_in_both_versions() {
    let instance = Instance::named("orders");
    let gateway = trusting("127.0.0.0/8", &instance);
    for (version, client) in [
        (ProxyVersion::V1, "192.0.2.7:4711"),
        (ProxyVersion::V2, "[2001:db8::7]:4711"),
    ] {
        let mut stream = connect(gateway.entry);
        let mut bytes = header(version, client, gateway.entry);
        // Cut within the header and within the head behind it.
        let cut = bytes.len() - 3;
        bytes.extend_from_slice(REQUEST);
        for part in [&bytes[..cut], &bytes[cut..cut + 9], &bytes[cut + 9..]] {
            stream.write_all(part).unwrap();
        }
        assert_eq!(read_reply(&mut stream).status, 200);
        write_request(&mut stream, "GET", "/again", &[], b"");
        assert_eq!(
            read_reply(&mut stream).status,
            200,
            "the connection goes on"
        );
        let client: SocketAddr = client.parse().unwrap();
        let told = client.ip().to_string();
        let seen = instance.seen();
        for one in &seen[seen.len() - 2..] {
            assert_eq!(one.header("x-forwarded-for"), Some(&*told), "{}", one.head);
        }
        // Each address has one connection, by whatever proxy.
        let mut second = connect(gateway.entry);
        let mut bytes = header(version, &client.to_string(), gateway.entry);
        bytes.extend_from_slice(REQUEST);
        second.write_all(&bytes).unwrap();
        assert!(is_closed(&mut second));
        let log = gateway.state.join("access.log");
        wait_until(SOON, "the log tells the client and its port", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let line = format!("\"client\":\"{told}\",\"port\":4711,\"frontend\":\"entry\"");
            if text.contains(&line) {
                Ok(())
            } else {
                Err(text)
            }
        });
    }
    assert_eq!(kept_out(&gateway, "connections_per_address"), "2");
    assert_eq!(kept_out(&gateway, "proxy"), "0");
}

#[test]
fn who_says_nothing_nonsense_or_is_a_stranger_is_refused_in_time_and_counted() {
    let instance = Instance::named("orders");
    let gateway = trusting("127.0.0.0/8", &instance);
    // A request without a header is no header.
    let mut plain = connect(gateway.entry);
    plain.write_all(REQUEST).unwrap();
    assert!(is_closed(&mut plain));
    // Too long.
    let mut long = connect(gateway.entry);
    long.write_all(b"PROXY ").unwrap();
    long.write_all(&[b'x'; 200]).unwrap();
    assert!(is_closed(&mut long));
    // Never whole.
    let begun = Instant::now();
    let mut slow = connect(gateway.entry);
    slow.write_all(b"PROXY TCP4 ").unwrap();
    assert!(is_closed(&mut slow));
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(kept_out(&gateway, "proxy"), "3");
    let strict = trusting("192.0.2.0/24", &instance);
    let mut stranger = connect(strict.entry);
    let bytes = header(ProxyVersion::V1, "192.0.2.7:4711", strict.entry);
    // It may be closed before all is written.
    stranger.write_all(&bytes).ok();
    stranger.write_all(REQUEST).ok();
    assert!(is_closed(&mut stranger));
    assert_eq!(kept_out(&strict, "proxy"), "1");
    assert_eq!(instance.count(), 0);
}

#[test]
fn without_the_key_a_header_is_no_request() {
    let instance = Instance::named("orders");
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    let mut client = connect(gateway.entry);
    let mut bytes = header(ProxyVersion::V1, "192.0.2.7:4711", gateway.entry);
    bytes.extend_from_slice(REQUEST);
    client.write_all(&bytes).unwrap();
    assert_eq!(read_reply(&mut client).status, 400);
    let mut client = connect(gateway.entry);
    client.write_all(REQUEST).unwrap();
    assert_eq!(read_reply(&mut client).status, 200);
    assert_eq!(
        instance.seen()[0].header("x-forwarded-for"),
        Some("127.0.0.1")
    );
}

#[test]
fn a_client_whose_header_is_on_the_way_is_still_served_when_the_gateway_is_told_to_stop() {
    let instance = Instance::named("orders");
    let gateway = trusting("127.0.0.0/8", &instance);
    let mut client = connect(gateway.entry);
    let mut bytes = header(ProxyVersion::V2, "192.0.2.7:4711", gateway.entry);
    client.write_all(&bytes[..5]).unwrap();
    // Another, which came after it, has been served: it was accepted, too.
    let mut other = connect(gateway.entry);
    let mut whole = header(ProxyVersion::V2, "192.0.2.8:4711", gateway.entry);
    whole.extend_from_slice(REQUEST);
    other.write_all(&whole).unwrap();
    assert_eq!(read_reply(&mut other).status, 200);
    drop(other);
    gateway.stop();
    wait_until(
        SOON,
        "nobody is accepted any more",
        || match TcpStream::connect(gateway.entry) {
            Ok(_) => Err("somebody was".to_owned()),
            Err(_) => Ok(()),
        },
    );
    bytes.extend_from_slice(REQUEST);
    client.write_all(&bytes[5..]).unwrap();
    assert_eq!(read_reply(&mut client).status, 200);
}
