//! Listeners in HTTP mode: each request goes to a server of its own choice, by the gateway's path,
//! while the listener's checks and its operator say who may be asked.

#![allow(clippy::unwrap_used, reason = "tests")]

mod listening;
mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use listening::{draft, ms, quick};
use mainstay_gateway::proxy_protocol::{Header, encode};
use mainstay_model::gateway::GatewayLimits;

use mainstay_model::listen::{Balance, CheckKind, ListenDraft, Mode, OnDown, ProxyVersion, Rank};
use mainstay_model::{ListenSpec, Network, PathPrefix};
use mainstay_testkit::wait_until;
use support::{
    Gateway, Instance, Reply, SOON, Setting, Then, answer, connect, header, read_body, read_head,
    read_reply, send, write_request,
};

/// A test lets a server go on once; more would wait.
const SIGNALS: usize = 1;

fn http(servers: &[SocketAddr]) -> ListenDraft {
    ListenDraft {
        mode: Mode::Http,
        ..draft(servers)
    }
}

/// A gateway with this listener, when it accepts.
fn start(draft: ListenDraft, setting: Setting) -> (Gateway, SocketAddr) {
    let front = draft.bind[0];
    let gateway = Gateway::start(Setting {
        listens: vec![spec(draft)],
        ..setting
    });
    std::fs::write(gateway.state.join("token"), "5ecret\n").unwrap();
    wait_until(SOON, "the listener accepts", || reached(front));
    (gateway, front)
}

fn reached(address: SocketAddr) -> Result<(), String> {
    TcpStream::connect(address)
        .map(drop)
        .map_err(|error| error.to_string())
}

fn spec(draft: ListenDraft) -> ListenSpec {
    ListenSpec::new(draft).unwrap()
}

/// A column of the row of `front/NAME` in `/stats;csv`.
fn shown(gateway: &Gateway, name: &str, column: &str) -> Option<String> {
    let csv = gateway.stats("/stats;csv").text();
    let mut lines = csv.lines();
    let columns: Vec<&str> = lines.next()?.trim_start_matches("# ").split(',').collect();
    let at = columns.iter().position(|one| *one == column)?;
    lines
        .map(|line| line.split(',').collect::<Vec<_>>())
        .find(|row| row.starts_with(&["front", name]))
        .map(|row| row[at].to_owned())
}

fn wait_for(gateway: &Gateway, name: &str, column: &str, value: &str) {
    wait_until(
        SOON,
        &format!("{column} of {name} is {value}"),
        || match shown(gateway, name, column) {
            Some(seen) if seen == value => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );
}

fn change(gateway: &Gateway, form: &str) {
    let host = gateway.stats.to_string();
    let headers = [
        ("host", &*host),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    let form = format!("{form}&token=5ecret");
    let reply = send(
        gateway.stats,
        "POST",
        "/stats/change",
        &headers,
        form.as_bytes(),
    );
    assert_eq!(reply.status, 303, "{}", reply.text());
}

fn ask(client: &mut TcpStream, path: &str) -> Reply {
    write_request(client, "GET", path, &[], b"");
    read_reply(client)
}

/// How many of so many requests on one connection were answered by whom.
fn spread(front: SocketAddr, count: usize) -> BTreeMap<String, usize> {
    let mut client = connect(front);
    let mut spread = BTreeMap::new();
    for _ in 0..count {
        let reply = ask(&mut client, "/");
        assert_eq!(reply.status, 200, "{}", reply.text());
        *spread.entry(reply.text()).or_default() += 1;
    }
    spread
}

fn of<'a>(seen: &BTreeMap<String, usize>, names: impl IntoIterator<Item = &'a str>) -> bool {
    seen.keys().map(String::as_str).eq(names)
}

#[test]
fn each_request_of_one_connection_goes_to_a_server_of_its_own_choice() {
    let (a, b) = (Instance::named("a"), Instance::named("b"));
    let both = [a.address, b.address];
    let (_gateway, front) = start(http(&both), Setting::default());
    let seen = spread(front, 100);
    assert!(of(&seen, ["a", "b"]), "{seen:?}");
    // Carried as bytes, the same connection has one server.
    let (_gateway, front) = start(draft(&both), Setting::default());
    assert_eq!(spread(front, 100).len(), 1);
}

#[test]
fn a_server_that_is_killed_before_a_check_notices_costs_no_get() {
    let (mut dies, stays) = (Instance::named("a"), Instance::named("b"));
    let mut slow = http(&[dies.address, stays.address]);
    slow.check.as_mut().unwrap().every = Duration::from_mins(10);
    let (gateway, front) = start(slow, Setting::default());
    let seen = spread(front, 50);
    assert!(of(&seen, ["a", "b"]), "{seen:?}");
    let clients: Vec<_> = (0..4)
        .map(|_| thread::spawn(move || spread(front, 300)))
        .collect();
    dies.kill();
    for client in clients {
        assert!(client.join().unwrap().contains_key("b"));
    }
    // The connections that failed have hastened the check, and the next one: it is down.
    wait_until(SOON, "it is down", || {
        spread(front, 1);
        match shown(&gateway, "a", "status") {
            Some(status) if status == "DOWN" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn a_drained_server_gets_no_new_request_and_finishes_what_it_has() {
    let (go_on, gate) = mpsc::sync_channel::<()>(SIGNALS);
    let gate = std::sync::Mutex::new(gate);
    let a = Instance::start(move |seen, stream| {
        if seen.path() == "/slow" {
            gate.lock().unwrap().recv().unwrap();
        }
        answer(stream, "200 OK", &[], b"a")?;
        Ok(Then::Next)
    });
    let b = Instance::named("b");
    let (gateway, front) = start(http(&[a.address]), Setting::default());
    let mut slow = connect(front);
    // A body, so that no second copy of it goes elsewhere.
    write_request(&mut slow, "POST", "/slow", &[], b"x");
    wait_for(&gateway, "a", "scur", "1");
    gateway.set_listens(vec![spec(ListenDraft {
        bind: vec![front],
        ..http(&[a.address, b.address])
    })]);
    wait_for(&gateway, "b", "status", "UP");
    change(&gateway, "server=front/a&action=drain");
    wait_for(&gateway, "a", "status", "DRAIN");
    assert!(of(&spread(front, 50), ["b"]));
    assert_eq!(shown(&gateway, "a", "scur").as_deref(), Some("1"));
    go_on.send(()).unwrap();
    assert_eq!(read_reply(&mut slow).text(), "a");
    change(&gateway, "server=front/a&action=ready");
    wait_for(&gateway, "a", "status", "UP");
    wait_until(SOON, "it gets requests again", || {
        let seen = spread(front, 50);
        if of(&seen, ["a", "b"]) {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    });
}

#[test]
fn a_backup_answers_while_no_other_server_can_and_not_a_moment_longer() {
    let (mut main, backup) = (Instance::named("a"), Instance::named("b"));
    let mut both = http(&[main.address, backup.address]);
    both.servers[1].rank = Rank::Backup;
    let (gateway, front) = start(both, Setting::default());
    wait_for(&gateway, "a", "status", "UP");
    assert!(of(&spread(front, 100), ["a"]));
    let address = main.address;
    main.kill();
    assert!(
        of(&spread(front, 100), ["b"]),
        "also before a check has noticed"
    );
    let main = Instance::named_at(address, "a");
    wait_until(SOON, "the main server is asked again", || {
        let seen = spread(front, 20);
        if of(&seen, ["a"]) {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    });
    drop(main);
}

#[test]
fn a_server_whose_check_fails_gets_nothing_and_all_down_is_said_within_the_time_for_it() {
    let healthy = Arc::new(AtomicBool::new(false));
    let of_check = Arc::clone(&healthy);
    let a = Instance::start(move |seen, stream| {
        let is_bad = seen.path() == "/health" && !of_check.load(Ordering::SeqCst);
        let status = if is_bad {
            "503 Service Unavailable"
        } else {
            "200 OK"
        };
        answer(stream, status, &[], b"a")?;
        Ok(Then::Next)
    });
    let b = Instance::named("b");
    let path = PathPrefix::parse("/health").unwrap();
    let checked = |servers: &[SocketAddr]| ListenDraft {
        check: Some(quick(CheckKind::Http {
            path: path.clone(),
            expect: None,
        })),
        ..http(servers)
    };
    let (gateway, front) = start(checked(&[a.address, b.address]), Setting::default());
    wait_for(&gateway, "a", "status", "DOWN");
    wait_for(&gateway, "a", "check_status", "L7STS");
    assert!(of(&spread(front, 50), ["b"]));
    let mut alone = ListenDraft {
        bind: vec![front],
        ..checked(&[a.address])
    };
    alone.timeouts.connect = ms(200);
    gateway.set_listens(vec![spec(alone)]);
    wait_until(SOON, "only the bad one is left", || {
        let reply = send(front, "GET", "/", &[], b"");
        match reply.header("mainstay-reason") {
            Some("no-endpoint") if reply.text().contains("listener `front`") => Ok(()),
            other => Err(format!("{other:?}: {}", reply.text())),
        }
    });
    healthy.store(true, Ordering::SeqCst);
    wait_for(&gateway, "a", "status", "UP");
    assert_eq!(send(front, "GET", "/", &[], b"").text(), "a");
}

#[test]
fn a_server_has_as_many_requests_at_once_as_it_may_and_the_next_waits() {
    let (go_on, gate) = mpsc::sync_channel::<()>(SIGNALS);
    let gate = std::sync::Mutex::new(gate);
    let a = Instance::start(move |seen, stream| {
        // Its head goes out at once: what counts is the whole answer.
        stream
            .get_mut()
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n")?;
        if seen.path() == "/slow" {
            gate.lock().unwrap().recv().unwrap();
        }
        stream.get_mut().write_all(b"a")?;
        Ok(Then::Next)
    });
    let mut one = http(&[a.address]);
    one.servers[0].connections_max = NonZeroU32::new(1);
    one.timeouts.connect = Duration::from_secs(10);
    let (gateway, front) = start(
        one,
        Setting {
            workers: 2,
            ..Setting::default()
        },
    );
    let mut slow = connect(front);
    write_request(&mut slow, "GET", "/slow", &[], b"");
    assert!(read_head(&mut slow).starts_with("HTTP/1.1 200 "));
    let clients: Vec<_> = (0..4)
        .map(|_| thread::spawn(move || send(front, "GET", "/", &[], b"").status))
        .collect();
    wait_for(&gateway, "BACKEND", "qcur", "4");
    assert_eq!(shown(&gateway, "a", "slim").as_deref(), Some("1"));
    assert_eq!(a.seen().iter().filter(|seen| seen.path() == "/").count(), 0);
    go_on.send(()).unwrap();
    for client in clients {
        assert_eq!(client.join().unwrap(), 200);
    }
}

#[test]
fn what_could_be_understood_in_two_ways_is_refused_here_too() {
    let a = Instance::named("a");
    let (_gateway, front) = start(http(&[a.address]), Setting::default());
    for head in [
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        "GET / HTTP/1.1\nhost: a\n\n",
        "GET / HTTP/1.1\r\nhost : a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET http://b/ HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        let mut client = connect(front);
        client.write_all(head.as_bytes()).unwrap();
        assert_eq!(read_reply(&mut client).status, 400, "{head}");
        let mut rest = Vec::new();
        assert!(
            matches!(client.read_to_end(&mut rest), Ok(0)),
            "it is closed: {head}"
        );
    }
    assert_eq!(a.count(), 0);
}

#[test]
fn a_server_learns_the_way_of_a_request_and_nobody_can_forge_it() {
    let a = Instance::named("a");
    let (_gateway, front) = start(http(&[a.address]), Setting::default());
    let forged = [
        ("host", "shop.example"),
        ("x-forwarded-for", "192.0.2.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.example"),
        ("forwarded", "for=192.0.2.9"),
        ("connection", "close, x-secret"),
        ("x-secret", "1"),
    ];
    let reply = send(front, "GET", "/x?y=1", &forged, b"");
    let seen = &a.seen()[0];
    assert_eq!(
        (seen.path(), seen.header("host")),
        ("/x?y=1", Some("shop.example"))
    );
    for (name, value) in [
        ("x-forwarded-for", Some("192.0.2.9, 127.0.0.1")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-host", Some("shop.example")),
        ("forwarded", None),
        ("via", Some("1.1 mainstay")),
        ("x-secret", None),
        ("x-request-id", reply.header("x-request-id")),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
    assert!(reply.header("x-request-id").is_some());
}

fn trusting(servers: &[SocketAddr], network: &str) -> ListenDraft {
    ListenDraft {
        accept_proxy: Some(vec![Network::parse(network).unwrap()]),
        ..http(servers)
    }
}

/// A connection that a proxy makes for a client, with its first request in the same packet.
fn proxied(front: SocketAddr, client: &str) -> TcpStream {
    let mut stream = connect(front);
    let header = Header::Tcp {
        source: client.parse().unwrap(),
        destination: front,
    };
    let mut bytes = encode(ProxyVersion::V2, &header);
    bytes.extend_from_slice(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    stream.write_all(&bytes).unwrap();
    stream
}

#[test]
fn whom_a_trusted_proxy_names_is_the_client_for_servers_the_log_and_the_limits() {
    let a = Instance::named("a");
    let (gateway, front) = start(
        trusting(&[a.address], "127.0.0.0/8"),
        Setting {
            access_log: true,
            limits: GatewayLimits {
                connections_per_address: 1,
                ..GatewayLimits::default()
            },
            ..Setting::default()
        },
    );
    let mut first = proxied(front, "192.0.2.7:4711");
    assert_eq!(read_reply(&mut first).status, 200);
    assert_eq!(ask(&mut first, "/again").status, 200);
    for seen in a.seen() {
        assert_eq!(
            seen.header("x-forwarded-for"),
            Some("192.0.2.7"),
            "{}",
            seen.head
        );
    }
    let mut same = proxied(front, "192.0.2.7:4712");
    assert!(
        matches!(same.read(&mut [0; 1]), Ok(0) | Err(_)),
        "it has its one connection"
    );
    let mut other = proxied(front, "192.0.2.8:4711");
    assert_eq!(read_reply(&mut other).status, 200);
    let log = gateway.state.join("access.log");
    wait_until(SOON, "the log tells the client", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let line = text
            .lines()
            .find(|line| line.contains("\"client\":\"192.0.2.7\""));
        match line {
            Some(line)
                if line.contains("\"listen\":\"front\"") && line.contains("\"server\":\"a\"") =>
            {
                Ok(())
            }
            _ => Err(text),
        }
    });
    // The look whether it accepts said nothing, and so is the other that was kept out.
    wait_for(&gateway, "FRONTEND", "dreq", "2");
}

#[test]
fn who_is_no_trusted_proxy_is_refused() {
    let a = Instance::named("a");
    let (gateway, front) = start(trusting(&[a.address], "192.0.2.0/24"), Setting::default());
    let mut client = proxied(front, "192.0.2.7:4711");
    assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)));
    assert_eq!(a.count(), 0);
    // The look whether it accepts was refused, too.
    wait_for(&gateway, "FRONTEND", "dreq", "2");
}

fn websocket(front: SocketAddr) -> TcpStream {
    let mut client = connect(front);
    let upgrade = [("connection", "Upgrade"), ("upgrade", "websocket")];
    write_request(&mut client, "GET", "/", &upgrade, b"");
    let head = read_head(&mut client);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(header(&head, "upgrade"), Some("websocket"));
    client
}

/// Changes the protocol and sends back what it gets.
fn upgrading() -> Instance {
    Instance::start(|seen, stream| {
        assert_eq!(seen.header("upgrade"), Some("websocket"));
        stream.get_mut().write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        )?;
        let mut bytes = [0; 64];
        loop {
            let len = stream.read(&mut bytes)?;
            if len == 0 {
                return Ok(Then::Close);
            }
            stream.get_mut().write_all(&bytes[..len])?;
        }
    })
}

fn echoes(client: &mut TcpStream) -> bool {
    let mut back = [0; 4];
    client.write_all(b"ping").is_ok() && client.read_exact(&mut back).is_ok() && back == *b"ping"
}

#[test]
fn a_websocket_passes_and_ends_with_the_time_that_a_removed_server_has() {
    let (a, b) = (upgrading(), Instance::named("b"));
    let (gateway, front) = start(http(&[a.address]), Setting::default());
    let mut client = websocket(front);
    assert!(echoes(&mut client));
    wait_for(&gateway, "a", "scur", "1");
    // What was begun before stays known, whatever an operator did meanwhile.
    for (action, status) in [("drain", "DRAIN"), ("ready", "UP")] {
        change(&gateway, &format!("server=front/a&action={action}"));
        wait_for(&gateway, "a", "status", status);
        assert!(echoes(&mut client), "{action}");
    }
    let mut other = ListenDraft {
        bind: vec![front],
        ..http(&[b.address])
    };
    other.servers[0].name = mainstay_model::listen::ServerName::parse("b").unwrap();
    other.timeouts.drain = ms(500);
    gateway.set_listens(vec![spec(other)]);
    wait_for(&gateway, "b", "status", "UP");
    wait_until(SOON, "the tunnel to the removed server is closed", || {
        if echoes(&mut client) {
            Err("it goes on".to_owned())
        } else {
            Ok(())
        }
    });
    assert_eq!(send(front, "GET", "/", &[], b"").text(), "b");
}

#[test]
fn what_hangs_at_a_server_that_goes_down_ends_if_that_is_wanted_and_no_post_is_sent_twice() {
    let healthy = Arc::new(AtomicBool::new(true));
    let of_check = Arc::clone(&healthy);
    let a = Instance::start(move |seen, stream| {
        read_body(seen, stream)?;
        if !of_check.load(Ordering::SeqCst) {
            // It hangs: neither a check nor a request is answered, and nothing is closed.
            stream.read_exact(&mut [0; 1])?;
            return Ok(Then::Close);
        }
        answer(stream, "200 OK", &[], b"a")?;
        Ok(Then::Next)
    });
    let b = Instance::named("b");
    let path = PathPrefix::parse("/health").unwrap();
    let (gateway, front) = start(
        ListenDraft {
            check: Some(quick(CheckKind::Http { path, expect: None })),
            on_down: OnDown::Close,
            ..http(&[a.address])
        },
        Setting::default(),
    );
    wait_for(&gateway, "a", "status", "UP");
    healthy.store(false, Ordering::SeqCst);
    let mut post = connect(front);
    write_request(&mut post, "POST", "/pay", &[], b"x");
    wait_until(SOON, "it has arrived", || {
        let arrived = a.seen().iter().any(|seen| seen.method() == "POST");
        if arrived {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    });
    let reply = read_reply(&mut post);
    assert_eq!(reply.status, 502, "{}", reply.text());
    assert_eq!(reply.header("mainstay-reason"), Some("lost-in-flight"));
    assert_eq!(b.count(), 0);
    let posts = a
        .seen()
        .iter()
        .filter(|seen| seen.method() == "POST")
        .count();
    assert_eq!(posts, 1);
}

#[test]
fn a_file_that_changes_again_and_again_costs_no_request() {
    let servers = [
        Instance::named("a"),
        Instance::named("b"),
        Instance::named("c"),
    ];
    let addresses: Vec<SocketAddr> = servers.iter().map(|one| one.address).collect();
    let first = http(&addresses);
    let (gateway, front) = start(
        first.clone(),
        Setting {
            workers: 2,
            ..Setting::default()
        },
    );
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|number| {
            let over = Arc::clone(&over);
            thread::spawn(move || {
                let mut client = connect(front);
                let mut count = 0;
                while !over.load(Ordering::SeqCst) {
                    let method = if number % 2 == 0 { "GET" } else { "POST" };
                    write_request(&mut client, method, "/", &[], b"");
                    let reply = read_reply(&mut client);
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    count += 1;
                }
                count
            })
        })
        .collect();
    for round in 0..30_u16 {
        let mut next = first.clone();
        next.servers.remove(usize::from(round % 3));
        next.servers[0].weight = round % 5;
        next.balance = if round % 2 == 0 {
            Balance::Source
        } else {
            Balance::LeastConnections
        };
        next.check = (round % 7 != 0).then(|| quick(CheckKind::Tcp));
        gateway.set_listens(vec![spec(next)]);
        // So that this state has met requests.
        let before = servers.iter().map(Instance::count).sum::<usize>();
        wait_until(SOON, "requests came", || {
            let now = servers.iter().map(Instance::count).sum::<usize>();
            if now > before + 20 {
                Ok(())
            } else {
                Err(now.to_string())
            }
        });
    }
    over.store(true, Ordering::SeqCst);
    for client in clients {
        assert!(client.join().unwrap() > 0);
    }
}

#[test]
fn a_kept_connection_to_a_listener_that_is_gone_is_told_so_and_ends() {
    let a = Instance::named("a");
    let (gateway, front) = start(http(&[a.address]), Setting::default());
    let mut kept = connect(front);
    assert_eq!(ask(&mut kept, "/").status, 200);
    let other = ListenDraft {
        bind: vec![listening::local(mainstay_testkit::free_port())],
        name: mainstay_ids::ListenName::parse("other").unwrap(),
        ..http(&[a.address])
    };
    let still = other.bind[0];
    gateway.set_listens(vec![spec(other)]);
    // The only worker knows.
    wait_until(SOON, "the other listens", || reached(still));
    assert_eq!(send(still, "GET", "/", &[], b"").text(), "a");
    write_request(&mut kept, "GET", "/", &[], b"");
    let reply = read_reply(&mut kept);
    assert_eq!(
        (reply.status, reply.header("connection")),
        (503, Some("close")),
        "{}",
        reply.head
    );
}

#[test]
fn requests_are_counted_in_the_table_the_metrics_and_on_the_page() {
    let a = Instance::start(|seen, stream| {
        read_body(seen, stream)?;
        let status = if seen.path() == "/bad" {
            "500 Internal Server Error"
        } else {
            "200 OK"
        };
        answer(stream, status, &[], b"12345")?;
        Ok(Then::Next)
    });
    let (gateway, front) = start(http(&[a.address]), Setting::default());
    wait_for(&gateway, "a", "check_status", "L4OK");
    let mut client = connect(front);
    for path in ["/", "/bad", "/"] {
        write_request(&mut client, "POST", path, &[], b"abc");
        read_reply(&mut client);
    }
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(read_reply(&mut client).status, 400);
    wait_for(&gateway, "FRONTEND", "hrsp_4xx", "1");
    for (name, column, value) in [
        ("FRONTEND", "mode", "http"),
        ("FRONTEND", "req_tot", "4"),
        ("FRONTEND", "ereq", "1"),
        ("FRONTEND", "hrsp_2xx", "2"),
        ("FRONTEND", "hrsp_5xx", "1"),
        ("FRONTEND", "bin", "9"),
        ("BACKEND", "mode", "http"),
        ("BACKEND", "hrsp_2xx", "2"),
        ("BACKEND", "act", "1"),
        ("BACKEND", "stot", "3"),
        ("a", "mode", "http"),
        ("a", "stot", "3"),
        ("a", "hrsp_2xx", "2"),
        ("a", "hrsp_5xx", "1"),
        ("a", "bin", "9"),
        ("a", "bout", "15"),
        ("a", "check_status", "L4OK"),
        ("a", "status", "UP"),
        ("a", "connect", "1"),
        ("a", "reuse", "2"),
    ] {
        assert_eq!(
            shown(&gateway, name, column).as_deref(),
            Some(value),
            "{name} {column}"
        );
    }
    let metrics = gateway.stats("/metrics").text();
    for line in [
        "mainstay_listen_responses_total{listen=\"front\",code=\"2xx\"} 2",
        "mainstay_listen_refusals_total{listen=\"front\",reason=\"bad-request\"} 1",
        "mainstay_listen_request_duration_seconds_count{listen=\"front\"} 3",
        "mainstay_listen_server_responses_total{listen=\"front\",server=\"a\",code=\"5xx\"} 1",
        "mainstay_listen_server_first_byte_seconds_count{listen=\"front\",server=\"a\"} 3",
    ] {
        assert!(
            metrics.lines().any(|other| other == line),
            "{line}\n{metrics}"
        );
    }
    let page = gateway.stats("/stats").text();
    assert!(page.contains("id=\"front/a\""), "{page}");
}
