//! Clients that are slow, many or without end.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{Read, Write};
use std::time::Duration;

use mainstay_model::gateway::GatewayLimits;
use mainstay_testkit::wait_until;
use support::{
    Gateway, Instance, SOON, Setting, Then, answer, connect, endpoint, one_service, read_reply,
    write_request,
};

const SHORT: Duration = Duration::from_millis(300);

fn with(limits: GatewayLimits, instance: &Instance) -> Gateway {
    let gateway = Gateway::start(Setting {
        limits,
        ..Setting::default()
    });
    gateway.publish_and_wait(one_service(1, vec![endpoint(1, instance.address)]));
    gateway
}

#[test]
fn a_head_in_single_bytes_is_answered_and_one_that_never_ends_is_told_so() {
    let instance = Instance::named("one");
    let limits = GatewayLimits {
        head_time: SHORT,
        ..GatewayLimits::default()
    };
    let gateway = with(limits, &instance);
    let mut client = connect(gateway.entry);
    for byte in b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" {
        client.write_all(&[*byte]).unwrap();
    }
    assert_eq!(read_reply(&mut client).status, 200);
    client.write_all(b"GET / HTTP/1.1\r\nhost").unwrap();
    let reply = read_reply(&mut client);
    assert_eq!(
        (reply.status, reply.header("mainstay-reason")),
        (408, Some("head-timeout"))
    );
}

#[test]
fn a_head_that_is_too_long_or_has_too_many_fields_is_refused() {
    let instance = Instance::named("one");
    let limits = GatewayLimits {
        head_len: 8 * 1024,
        head_fields: 16,
        ..GatewayLimits::default()
    };
    let gateway = with(limits, &instance);
    let long = format!("x-long: {}\r\n", "a".repeat(9000));
    let many = "x-many: 1\r\n".repeat(17);
    for extra in [long, many] {
        let mut client = connect(gateway.entry);
        client
            .write_all(format!("GET / HTTP/1.1\r\nhost: a\r\n{extra}\r\n").as_bytes())
            .unwrap();
        assert_eq!(read_reply(&mut client).status, 431);
    }
    assert_eq!(instance.count(), 0);
}

#[test]
fn a_body_that_stops_coming_ends_the_request_and_frees_the_instance() {
    let instance = Instance::start(|_, stream| {
        stream.read_exact(&mut [0; 100])?;
        Ok(Then::Next)
    });
    let limits = GatewayLimits {
        body_idle: SHORT,
        ..GatewayLimits::default()
    };
    let gateway = with(limits, &instance);
    let mut client = connect(gateway.entry);
    client
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhello")
        .unwrap();
    let reply = read_reply(&mut client);
    assert_eq!(
        (reply.status, reply.header("mainstay-reason")),
        (408, Some("body-timeout"))
    );
    wait_until(SOON, "the instance is freed", || {
        (instance.closed() == 1)
            .then_some(())
            .ok_or_else(String::new)
    });
}

#[test]
fn a_client_that_reads_nothing_is_cut_off() {
    let instance = Instance::start(|_, stream| {
        let socket = stream.get_mut();
        socket.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        loop {
            // Endless, until the connection is closed.
            socket.write_all(b"1000\r\n")?;
            socket.write_all(&[b'x'; 0x1000])?;
            socket.write_all(b"\r\n")?;
        }
    });
    let limits = GatewayLimits {
        write_idle: SHORT,
        ..GatewayLimits::default()
    };
    let gateway = with(limits, &instance);
    let mut client = connect(gateway.entry);
    write_request(&mut client, "GET", "/", &[], b"");
    wait_until(SOON, "the instance is freed", || {
        (instance.closed() == 1)
            .then_some(())
            .ok_or_else(String::new)
    });
    drop(client);
}

#[test]
fn a_request_ends_at_its_time_however_much_moves() {
    let instance = Instance::start(|_, stream| {
        let socket = stream.get_mut();
        socket.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        loop {
            // Moves, and never comes to an end.
            socket.write_all(b"1\r\nx\r\n")?;
        }
    });
    let limits = GatewayLimits {
        request_time: SHORT,
        ..GatewayLimits::default()
    };
    let gateway = with(limits, &instance);
    let reply = gateway.request("GET", "/");
    assert_eq!(reply.status, 200);
    assert!(reply.end.is_err(), "it seemed complete");
}

#[test]
fn one_address_gets_no_more_connections_than_it_may_have() {
    let instance = Instance::named("one");
    let limits = GatewayLimits {
        connections: 40,
        connections_per_address: 10,
        ..GatewayLimits::default()
    };
    let gateway = with(limits, &instance);
    let mut clients: Vec<_> = (0..10).map(|_| connect(gateway.entry)).collect();
    for client in &mut clients {
        write_request(client, "GET", "/", &[], b"");
        assert_eq!(read_reply(client).status, 200);
    }
    let mut denied = connect(gateway.entry);
    assert!(matches!(denied.read(&mut [0]), Ok(0) | Err(_)));
    clients.pop();
    wait_until(SOON, "the place is free again", || {
        let mut client = connect(gateway.entry);
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").ok();
        let mut byte = [0];
        match client.read(&mut byte) {
            Ok(1) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn beyond_the_limit_of_all_connections_clients_wait_and_are_served_when_others_leave() {
    let instance = Instance::named("one");
    let limits = GatewayLimits {
        connections: 4,
        connections_per_address: 4,
        ..GatewayLimits::default()
    };
    let gateway = with(limits, &instance);
    let mut clients: Vec<_> = (0..4).map(|_| connect(gateway.entry)).collect();
    for client in &mut clients {
        write_request(client, "GET", "/", &[], b"");
        assert_eq!(read_reply(client).status, 200);
    }
    let mut waiting = connect(gateway.entry);
    write_request(&mut waiting, "GET", "/", &[], b"");
    waiting.set_read_timeout(Some(SHORT)).unwrap();
    assert!(waiting.read(&mut [0]).is_err(), "it is served already");
    drop(clients);
    waiting.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(read_reply(&mut waiting).status, 200);
}

#[test]
fn a_connection_is_told_to_close_after_its_requests_and_at_its_age() {
    let instance = Instance::named("one");
    let limits = GatewayLimits {
        requests_per_connection: 3,
        ..GatewayLimits::default()
    };
    let gateway = with(limits, &instance);
    let mut client = connect(gateway.entry);
    for close in [None, None, Some("close")] {
        write_request(&mut client, "GET", "/", &[], b"");
        assert_eq!(read_reply(&mut client).header("connection"), close);
    }
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    let limits = GatewayLimits {
        connection_age: SHORT,
        ..GatewayLimits::default()
    };
    let gateway = with(limits, &instance);
    let mut client = connect(gateway.entry);
    let closed = wait_until(SOON, "an answer says close", || {
        write_request(&mut client, "GET", "/", &[], b"");
        let reply = read_reply(&mut client);
        match reply.header("connection") {
            Some(word) => Ok(word.to_owned()),
            None => Err("it goes on".to_owned()),
        }
    });
    assert_eq!(closed, "close");
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let instance = Instance::start(|seen, stream| {
        answer(stream, "200 OK", &[], seen.path().as_bytes())?;
        Ok(Then::Next)
    });
    let gateway = with(GatewayLimits::default(), &instance);
    let mut client = connect(gateway.entry);
    let request = |at: usize, more: &str| format!("GET /{at} HTTP/1.1\r\nhost: a\r\n{more}\r\n");
    let mut requests: String = (0..200).map(|at| request(at, "")).collect();
    requests += &request(200, "connection: close\r\n");
    client.write_all(requests.as_bytes()).unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    let bodies = text.split("\r\n\r\n").skip(1);
    let bodies: Vec<&str> = bodies
        .map(|rest| rest.split("HTTP").next().unwrap())
        .collect();
    let expected: Vec<String> = (0..=200).map(|at| format!("/{at}")).collect();
    assert_eq!(bodies, expected);
}
