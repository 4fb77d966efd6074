//! What one client sees of one request.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "requests/interim.rs"]
mod interim;
mod support;

use std::io::{Read, Write};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use mainstay_model::gateway::GatewayLimits;
use mainstay_model::routing::Unavailable;
use mainstay_testkit::wait_until;
use support::{
    Gateway, Instance, SOON, Setting, Then, answer, connect, endpoint, generation, header, nobody,
    one_service, read_body, read_head, read_reply, send, service, without_endpoints, write_request,
};

/// A test lets an instance go on once or twice; more would wait.
const SIGNALS: usize = 2;

#[test]
fn a_request_goes_to_the_service_of_its_host_and_path() {
    let (shop, blog, admin) = (
        Instance::named("shop"),
        Instance::named("blog"),
        Instance::named("admin"),
    );
    let gateway = Gateway::with(mainstay_model::Routing {
        generation: generation(1, 1),
        services: vec![
            service(
                "admin",
                Some("shop.example"),
                "/admin",
                vec![endpoint(1, admin.address)],
            ),
            service(
                "blog",
                Some("blog.example"),
                "/",
                vec![endpoint(2, blog.address)],
            ),
            service(
                "shop",
                Some("shop.example"),
                "/",
                vec![endpoint(3, shop.address)],
            ),
        ],
    });
    let ask = |host, path| send(gateway.entry, "GET", path, &[("host", host)], b"");
    assert_eq!(ask("shop.example", "/").text(), "shop");
    assert_eq!(ask("SHOP.example:8080", "/admin/users?x=1").text(), "admin");
    assert_eq!(ask("shop.example", "/administrator").text(), "shop");
    assert_eq!(ask("blog.example", "/admin").text(), "blog");
    assert_eq!(admin.seen()[0].path(), "/admin/users?x=1");
    let nowhere = ask("other.example", "/x");
    assert_eq!(
        (nowhere.status, nowhere.header("mainstay-reason")),
        (404, Some("no-route"))
    );
    assert!(
        nowhere.text().contains("`other.example`"),
        "{}",
        nowhere.text()
    );
}

#[test]
fn everything_on_a_service_address_goes_to_that_service() {
    let (payments, other) = (Instance::named("payments"), Instance::named("other"));
    let address = ([127, 0, 77, 1], mainstay_testkit::free_port()).into();
    let mut payments_routes = service(
        "payments",
        Some("pay.example"),
        "/pay",
        vec![endpoint(1, payments.address)],
    );
    payments_routes.address = Some(address);
    let mut routing = mainstay_model::Routing {
        generation: generation(1, 1),
        services: vec![
            payments_routes,
            service("other", None, "/", vec![endpoint(2, other.address)]),
        ],
    };
    let gateway = Gateway::start(Setting {
        workers: 2,
        ..Setting::default()
    });
    gateway.publish_and_wait(routing.clone());
    let connected = || std::net::TcpStream::connect(address).map_err(|error| error.to_string());
    wait_until(SOON, "the address is served", connected);
    for host in ["pay.example", "whatever"] {
        let reply = send(address, "GET", "/any", &[("host", host)], b"");
        assert_eq!(reply.text(), "payments");
    }
    routing.generation = generation(1, 2);
    routing.services.remove(0);
    gateway.publish_and_wait(routing);
    wait_until(SOON, "the address is given up", || match connected() {
        Err(_) => Ok(()),
        Ok(_) => Err("it still accepts".to_owned()),
    });
}

#[test]
fn an_address_in_use_is_tried_again_until_it_is_free() {
    let payments = Instance::named("payments");
    let taken = std::net::TcpListener::bind("127.0.77.2:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut routing = one_service(1, vec![endpoint(1, payments.address)]);
    routing.services[0].address = Some(address);
    let gateway = Gateway::with(routing);
    assert_eq!(
        gateway.request("GET", "/").text(),
        "payments",
        "the rest works meanwhile"
    );
    drop(taken);
    wait_until(SOON, "the address is served", || {
        std::net::TcpStream::connect(address).map_err(|error| error.to_string())
    });
    assert_eq!(send(address, "GET", "/", &[], b"").text(), "payments");
}

#[test]
fn headers_of_one_hop_are_left_out_and_those_of_the_way_are_added() {
    let instance = Instance::start(|_, stream| {
        answer(
            stream,
            "200 OK",
            &[
                ("connection", "x-drop"),
                ("x-drop", "1"),
                ("keep-alive", "timeout=9"),
                ("x-keep", "1"),
            ],
            b"ok",
        )?;
        Ok(Then::Next)
    });
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    let headers = [
        ("x-forwarded-for", "9.9.9.9"),
        ("x-forwarded-proto", "https"),
        ("te", "trailers, deflate"),
        ("x-mine", "yes"),
    ];
    let reply = send(gateway.entry, "GET", "/a?b=c", &headers, b"");
    let seen = instance.seen().remove(0);
    assert_eq!(seen.path(), "/a?b=c");
    assert_eq!(seen.header("host"), Some("shop.example"));
    assert_eq!(seen.header("x-forwarded-for"), Some("9.9.9.9, 127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("x-forwarded-host"), Some("shop.example"));
    assert_eq!(seen.header("te"), Some("trailers"));
    assert_eq!(seen.header("x-mine"), Some("yes"));
    assert_eq!(seen.header("connection"), None);
    assert_eq!(reply.header("x-keep"), Some("1"));
    assert_eq!(
        (reply.header("x-drop"), reply.header("keep-alive")),
        (None, None)
    );
}

#[test]
fn a_request_with_two_lengths_is_refused_and_ends_its_connection() {
    let instance = Instance::named("one");
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    for lengths in [
        "transfer-encoding: chunked\r\ncontent-length: 3",
        "content-length: 3\r\ntransfer-encoding: chunked",
    ] {
        let mut client = connect(gateway.entry);
        let text = format!(
            "POST / HTTP/1.1\r\nhost: a\r\n{lengths}\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"
        );
        client.write_all(text.as_bytes()).unwrap();
        let reply = read_reply(&mut client);
        assert_eq!(
            (reply.status, reply.header("connection")),
            (400, Some("close"))
        );
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).ok();
        assert!(
            rest.is_empty(),
            "nothing more on a connection that began so"
        );
    }
    assert_eq!(instance.count(), 0);
}

#[test]
fn every_answer_carries_the_request_id_and_so_does_the_request_to_the_instance() {
    let instance = Instance::named("one");
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    let reply = send(
        gateway.entry,
        "GET",
        "/",
        &[("x-request-id", "from-outside")],
        b"",
    );
    assert_eq!(reply.header("x-request-id"), Some("from-outside"));
    assert_eq!(
        instance.seen()[0].header("x-request-id"),
        Some("from-outside")
    );
    let reply = gateway.request("GET", "/");
    assert_eq!(reply.header("x-request-id").map(str::len), Some(32));
    assert_eq!(
        reply.header("x-request-id"),
        instance.seen()[1].header("x-request-id")
    );
    gateway.publish_and_wait(without_endpoints(2, Some(Unavailable::ScaledToZero)));
    let reply = gateway.request("GET", "/");
    assert_eq!(
        (reply.status, reply.header("x-request-id").map(str::len)),
        (503, Some(32))
    );
    let two = [("host", "a"), ("host", "b"), ("x-request-id", "two-hosts")];
    let reply = send(gateway.entry, "POST", "/", &two, b"");
    // A head that is refused is not believed in anything.
    assert_eq!(
        (reply.status, reply.header("x-request-id").map(str::len)),
        (400, Some(32))
    );
}

#[test]
fn answers_without_a_body_stay_without_one_and_the_connection_is_used_again() {
    let instance = Instance::start(|seen, stream| {
        match seen.path() {
            "/304" => stream
                .get_mut()
                .write_all(b"HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n")?,
            "/204" => stream
                .get_mut()
                .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?,
            "/head" => stream
                .get_mut()
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n")?,
            _ => answer(stream, "200 OK", &[], b"body")?,
        }
        Ok(Then::Next)
    });
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    let mut client = connect(gateway.entry);
    for (method, path, status, length) in [
        ("GET", "/304", 304, None),
        ("GET", "/204", 204, None),
        ("HEAD", "/head", 200, Some("1234")),
        ("GET", "/body", 200, Some("4")),
    ] {
        write_request(&mut client, method, path, &[], b"");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{path}: {head}"
        );
        assert_eq!(header(&head, "content-length"), length, "{path}");
        assert_eq!(header(&head, "transfer-encoding"), None, "{path}");
    }
    let mut body = [0; 4];
    client.read_exact(&mut body).unwrap();
    assert_eq!(&body, b"body");
    let connections: Vec<usize> = instance.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 0, 0, 0]);
}

#[test]
fn an_instance_that_has_no_endpoint_is_explained_with_the_remedy() {
    let gateway = Gateway::start(Setting::default());
    let reasons = [
        (
            Some(Unavailable::CrashLooping),
            "crash-looping",
            "every instance ends soon after its start",
        ),
        (
            Some(Unavailable::ScaledToZero),
            "scaled-to-zero",
            "no instance is wanted",
        ),
        (
            Some(Unavailable::Stopping),
            "stopping",
            "the service is being taken down",
        ),
        (
            Some(Unavailable::Starting),
            "starting",
            "no instance is healthy yet",
        ),
        (None, "no-endpoint", "it has no instance that could"),
    ];
    for (revision, (why, word, text)) in (1..).zip(reasons) {
        gateway.publish_and_wait(without_endpoints(revision, why));
        let reply = gateway.request("POST", "/");
        assert_eq!(
            (reply.status, reply.header("mainstay-reason")),
            (503, Some(word))
        );
        assert_eq!(reply.header("retry-after"), Some("1"));
        assert!(reply.text().contains(text), "{}", reply.text());
        assert!(
            reply.text().contains("`mainstay why request "),
            "{}",
            reply.text()
        );
    }
    gateway.publish_and_wait(one_service(
        9,
        vec![endpoint(1, nobody()), endpoint(2, nobody())],
    ));
    let reply = gateway.request("POST", "/");
    assert_eq!(
        (reply.status, reply.header("mainstay-reason")),
        (503, Some("all-failed"))
    );
}

#[test]
fn a_request_waits_for_the_only_instance_while_it_is_started_again() {
    let gateway = Gateway::with(without_endpoints(1, Some(Unavailable::Starting)));
    let entry = gateway.entry;
    let client = thread::spawn(move || send(entry, "POST", "/", &[], b"order"));
    let instance = Instance::named("back");
    gateway.publish(one_service(2, vec![endpoint(1, instance.address)]));
    let reply = client.join().unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (200, "back"));
}

#[test]
fn a_body_streams_to_the_instance_without_being_stored_on_the_way() {
    const LEN: usize = 64 * 1024 * 1024;
    // What four socket buffers and two of ours may hold at most.
    const HELD_MAX: usize = 40 * 1024 * 1024;
    let (go_on, wait) = mpsc::sync_channel::<()>(SIGNALS);
    let wait = Mutex::new(wait);
    let instance = Instance::start(move |seen, stream| {
        wait.lock().unwrap().recv().unwrap();
        let body = read_body(seen, stream)?;
        let whole = body.len() == LEN && body.iter().all(|byte| *byte == b'x');
        answer(
            stream,
            if whole { "200 OK" } else { "400 Broken" },
            &[],
            b"",
        )?;
        Ok(Then::Next)
    });
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    let mut client = connect(gateway.entry);
    client
        .write_all(
            format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LEN}\r\n\r\n").as_bytes(),
        )
        .unwrap();
    client
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let chunk = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    while sent < LEN {
        match client.write(&chunk[..chunk.len().min(LEN - sent)]) {
            Ok(written) => sent += written,
            Err(_) => break,
        }
    }
    assert!(
        sent < HELD_MAX,
        "{sent} bytes were taken although the instance read nothing"
    );
    go_on.send(()).unwrap();
    client.set_write_timeout(Some(SOON)).unwrap();
    while sent < LEN {
        sent += client.write(&chunk[..chunk.len().min(LEN - sent)]).unwrap();
    }
    assert_eq!(read_reply(&mut client).status, 200);
}

#[test]
fn an_answer_streams_to_the_client_as_it_comes_and_no_faster_than_it_reads() {
    let sent = Arc::new(Mutex::new(0_usize));
    let counted = Arc::clone(&sent);
    let instance = Instance::start(move |_, stream| {
        let socket = stream.get_mut();
        socket.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
        let mut word = [0; 4];
        loop {
            // Endless, until the connection is closed.
            socket.write_all(b"1000\r\n")?;
            socket.write_all(&[b'x'; 0x1000])?;
            socket.write_all(b"\r\n")?;
            *counted.lock().unwrap() += 0x1000;
            word[0] = 0;
        }
    });
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    let mut client = connect(gateway.entry);
    write_request(&mut client, "GET", "/", &[], b"");
    let mut text = Vec::new();
    while !text.ends_with(b"first") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    let mut before = 0;
    let held = wait_until(SOON, "the instance is held back", || {
        let now = *sent.lock().unwrap();
        let still = now == before;
        before = now;
        thread::yield_now();
        if still && now > 0 {
            Ok(now)
        } else {
            Err(format!("{now} bytes"))
        }
    });
    assert!(
        held < 40 * 1024 * 1024,
        "{held} bytes were taken although the client read nothing"
    );
    drop(client);
    wait_until(
        SOON,
        "the instance sees that the client went away",
        || match instance.closed() {
            1 => Ok(()),
            other => Err(format!("{other} closed")),
        },
    );
}

#[test]
fn a_client_that_goes_away_cancels_its_request_at_the_instance() {
    let instance = Instance::start(|_, stream| {
        // Returns only when the gateway closes the connection.
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        Ok(Then::Next)
    });
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    let mut client = connect(gateway.entry);
    write_request(&mut client, "GET", "/", &[], b"");
    wait_until(SOON, "the request arrived", || {
        (instance.count() == 1)
            .then_some(())
            .ok_or_else(String::new)
    });
    drop(client);
    wait_until(SOON, "the instance is freed", || {
        (instance.closed() == 1)
            .then_some(())
            .ok_or_else(String::new)
    });
}

#[test]
fn an_answer_that_breaks_off_reaches_the_client_as_broken() {
    let instance = Instance::start(|seen, stream| {
        let text: &[u8] = match seen.path() {
            "/length" => b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n0123456789",
            _ => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na\r\n0123456789\r\n",
        };
        stream.get_mut().write_all(text)?;
        Ok(Then::Close)
    });
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    for path in ["/length", "/chunked"] {
        let reply = gateway.request("GET", path);
        assert_eq!((reply.status, reply.text().as_str()), (200, "0123456789"));
        assert!(reply.end.is_err(), "{path} seemed complete");
    }
    // A client of HTTP/1.0 knows the end of the connection as the end of the body.
    let mut client = connect(gateway.entry);
    client
        .write_all(b"GET /chunked HTTP/1.0\r\nhost: a\r\n\r\n")
        .unwrap();
    let reply = read_reply(&mut client);
    assert!(reply.end.is_err(), "{reply:?} seemed complete");
}

#[test]
fn trailers_and_expectations_pass() {
    let instance = Instance::start(|seen, stream| {
        let body = read_body(seen, stream)?;
        assert_eq!(seen.header("expect"), None);
        assert_eq!(body, b"hello");
        stream.get_mut().write_all(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n",
        )?;
        Ok(Then::Next)
    });
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    let mut client = connect(gateway.entry);
    client
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: close, te\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
        .unwrap();
    let mut go_on = [0; 25];
    client.read_exact(&mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"hello").unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert!(text.contains("\r\n0\r\nx-sum: 7\r\n\r\n"), "{text}");
}

#[test]
fn an_upload_goes_on_although_the_answer_has_begun_and_is_not_read() {
    const LEN: usize = 48 * 1024 * 1024;
    let instance = Instance::start(|seen, stream| {
        // Answers before it has read: more than all buffers hold, while it goes on reading.
        let mut out = stream.get_ref().try_clone()?;
        let writer = thread::spawn(move || {
            out.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {LEN}\r\n\r\n").as_bytes())?;
            out.write_all(&vec![b'y'; LEN])
        });
        let body = read_body(seen, stream)?;
        assert_eq!(body.len(), LEN);
        writer.join().unwrap()?;
        Ok(Then::Close)
    });
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    let mut client = connect(gateway.entry);
    client.set_write_timeout(Some(SOON)).unwrap();
    client
        .write_all(
            format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LEN}\r\n\r\n").as_bytes(),
        )
        .unwrap();
    client.write_all(&vec![b'x'; LEN]).unwrap();
    let reply = read_reply(&mut client);
    assert_eq!((reply.status, reply.body.len()), (200, LEN));
}

#[test]
fn a_connection_that_changes_its_protocol_becomes_a_tunnel_that_counts_as_in_flight() {
    let instance = Instance::start(|seen, stream| {
        assert_eq!(seen.header("upgrade"), Some("chat"));
        assert_eq!(seen.header("connection"), Some("upgrade"));
        stream.get_mut().write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\nwelcome ",
        )?;
        let mut word = [0; 5];
        stream.read_exact(&mut word)?;
        stream.get_mut().write_all(&word)?;
        // Until the client ends it.
        stream.read_exact(&mut word)?;
        Ok(Then::Next)
    });
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    let mut client = connect(gateway.entry);
    write_request(
        &mut client,
        "GET",
        "/",
        &[("connection", "keep-alive, Upgrade"), ("upgrade", "chat")],
        b"",
    );
    let mut text = Vec::new();
    while !text.ends_with(b"welcome ") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    let head = String::from_utf8(text).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(header(&head, "x-request-id").is_some(), "{head}");
    gateway.publish_and_wait(one_service(2, Vec::new()));
    let in_flight =
        |ack: &mainstay_model::Ack| ack.in_flight.iter().map(|one| one.requests).sum::<u64>();
    gateway.wait_for_ack("the tunnel counts", |ack| in_flight(ack) == 1);
    client.write_all(b"hello").unwrap();
    let mut word = [0; 5];
    client.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"hello");
    drop(client);
    gateway.wait_for_ack("the tunnel has ended", |ack| in_flight(ack) == 0);
}

fn closed(read: std::io::Result<usize>) -> Result<(), String> {
    match read {
        Ok(0) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn a_head_that_comes_too_slowly_is_cut_off_while_an_idle_connection_is_not() {
    let instance = Instance::named("one");
    let limits = GatewayLimits {
        head_time: Duration::from_millis(300),
        ..GatewayLimits::default()
    };
    let gateway = Gateway::start(Setting {
        limits,
        ..Setting::default()
    });
    gateway.publish_and_wait(one_service(1, vec![endpoint(1, instance.address)]));
    let mut idle = connect(gateway.entry);
    let mut slow = connect(gateway.entry);
    slow.set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nx-slow: ")
        .unwrap();
    wait_until(SOON, "the slow head is cut", || {
        // A byte now and then does not help.
        slow.write_all(b"a").ok();
        closed(slow.read(&mut [0]))
    });
    write_request(&mut idle, "GET", "/", &[], b"");
    assert_eq!(read_reply(&mut idle).status, 200);
}

#[test]
fn a_connection_that_stays_idle_is_closed_at_its_deadline() {
    let limits = GatewayLimits {
        idle_time: Duration::from_millis(300),
        ..GatewayLimits::default()
    };
    let gateway = Gateway::start(Setting {
        limits,
        ..Setting::default()
    });
    let mut fresh = connect(gateway.entry);
    let mut used = connect(gateway.entry);
    write_request(&mut used, "GET", "/", &[], b"");
    assert_eq!(read_reply(&mut used).status, 404);
    for client in [&mut fresh, &mut used] {
        closed(client.read(&mut [0])).unwrap();
    }
}

#[test]
fn an_instance_that_never_begins_to_answer_is_given_up_at_the_deadline() {
    let instance = Instance::start(|_, stream| {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        Ok(Then::Next)
    });
    let limits = GatewayLimits {
        answer_time: Duration::from_millis(300),
        ..GatewayLimits::default()
    };
    let gateway = Gateway::start(Setting {
        limits,
        ..Setting::default()
    });
    gateway.publish_and_wait(one_service(1, vec![endpoint(1, instance.address)]));
    let reply = gateway.request("GET", "/");
    assert_eq!(
        (reply.status, reply.header("mainstay-reason")),
        (504, Some("response-timeout"))
    );
    assert_eq!(instance.count(), 1);
}

#[test]
fn a_refusal_reaches_a_client_that_is_still_sending() {
    let gateway = Gateway::with(without_endpoints(1, Some(Unavailable::ScaledToZero)));
    let reply = send(gateway.entry, "POST", "/", &[], &vec![b'x'; 200 * 1024]);
    assert_eq!(
        (reply.status, reply.header("mainstay-reason")),
        (503, Some("scaled-to-zero"))
    );
}

#[test]
fn the_access_log_has_a_line_for_every_request() {
    let instance = Instance::named("one");
    let gateway = Gateway::start(Setting {
        access_log: true,
        ..Setting::default()
    });
    gateway.publish_and_wait(one_service(
        1,
        vec![endpoint(1, nobody()), endpoint(2, instance.address)],
    ));
    for at in 0..50 {
        let id = format!("id-{at}");
        let reply = send(gateway.entry, "GET", "/\"x", &[("x-request-id", &id)], b"");
        assert_eq!(reply.status, 200);
    }
    let state = gateway.kill_and_keep_state();
    let text = std::fs::read_to_string(state.join("access.log")).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 50);
    for (at, line) in lines.iter().enumerate() {
        assert_eq!(line["id"], format!("id-{at}"));
        assert_eq!(line["status"], 200);
        assert_eq!(line["service"], "orders");
        assert_eq!(line["instance"], "orders-2");
        assert_eq!((&line["bytes"], &line["bytes_in"]), (&3.into(), &0.into()));
        assert_eq!(
            (&line["frontend"], &line["http"]),
            (&"entry".into(), &"1.1".into())
        );
        assert!(line["first_byte_us"].as_u64() <= line["us"].as_u64());
        assert!(line["port"].as_u64().is_some_and(|port| port > 0));
        assert_eq!(line["path"], "/\"x");
    }
    let tries: u64 = lines
        .iter()
        .map(|line| line["tries"].as_u64().unwrap())
        .sum();
    assert!(
        tries > 50,
        "the dead endpoint was tried at least once: {tries}"
    );
}
