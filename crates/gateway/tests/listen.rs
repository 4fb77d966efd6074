//! What clients of a listener see: whatever its servers do, and whatever is changed under it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod listening;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use listening::{
    BlackHole, Listening, SOON, Server, connect, draft, echoes, is_ended, local, ms, quick, session,
};
use mainstay_control::listen::{Standing, Wanted};
use mainstay_gateway::listen::{HandleError, Options};
use mainstay_model::PathPrefix;
use mainstay_model::listen::{Balance, CheckKind, ListenDraft, OnDown, Rank};
use mainstay_testkit::{TempDir, free_port, wait_until};

fn all_up(listen: &mainstay_gateway::listen::snapshot::ListenSnapshot) -> bool {
    listen
        .servers
        .iter()
        .all(|one| one.standing == Standing::Up)
}

fn wait_for_end(stream: &mut TcpStream, what: &str) {
    wait_until(SOON, what, || {
        if is_ended(stream) {
            Ok(())
        } else {
            Err("it goes on".to_owned())
        }
    });
}

/// How many of so many sessions, all held, went to which server.
fn spread(listening: &Listening, count: usize) -> (Vec<TcpStream>, BTreeMap<String, usize>) {
    let mut held = Vec::new();
    let mut spread = BTreeMap::new();
    for _ in 0..count {
        let (stream, server) = listening.session();
        held.push(stream);
        *spread.entry(server).or_default() += 1;
    }
    (held, spread)
}

#[test]
fn bytes_pass_both_ways_and_a_half_close_goes_through() {
    // Answers only when the client has finished: the length of what it sent.
    let server = Server::start(|stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        stream.write_all(all.len().to_string().as_bytes())
    });
    let listening = Listening::start(draft(&[server.address]));
    for len in [0, 1, 16 * 1024, 300_000] {
        let mut client = connect(listening.front);
        client.write_all(&vec![7; len]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, len.to_string());
    }
    listening.wait("all sessions have ended", |listen| listen.sessions == 0);
    let listen = listening.snapshot();
    assert_eq!((listen.sessions_total, listen.bytes_in), (4, 316_385));
    assert_eq!(listen.bytes_out, 1 + 1 + 5 + 6);
    let one = &listen.servers[0];
    assert_eq!(
        (one.bytes_in, one.bytes_out),
        (listen.bytes_in, listen.bytes_out)
    );
}

#[test]
fn the_fewest_sessions_are_the_fewest_over_all_workers() {
    let servers = ['a', 'b', 'c', 'd'].map(Server::echo);
    let addresses = servers.each_ref().map(|server| server.address);
    let mut draft = draft(&addresses);
    draft.servers[3].weight = 2;
    let listening = Listening::start(draft);
    let (held, seen) = spread(&listening, 50);
    let expected = [("a", 10), ("b", 10), ("c", 10), ("d", 20)];
    let expected = expected.map(|(name, count)| (name.to_owned(), count));
    assert_eq!(seen, BTreeMap::from(expected));
    drop(held);
    listening.wait("all sessions have ended", |listen| {
        listen.servers.iter().all(|one| one.sessions == 0)
    });
}

#[test]
fn a_client_comes_to_the_same_server_by_its_address() {
    let servers = ['a', 'b', 'c'].map(Server::echo);
    let addresses = servers.each_ref().map(|server| server.address);
    let listening = Listening::start(ListenDraft {
        balance: Balance::Source,
        ..draft(&addresses)
    });
    let (_held, seen) = spread(&listening, 12);
    assert_eq!(seen.len(), 1, "{seen:?}");
}

#[test]
fn no_client_notices_that_a_server_is_killed_before_a_check_does() {
    let (dies, stays) = (Server::echo('a'), Server::echo('b'));
    let mut slow = draft(&[dies.address, stays.address]);
    slow.check.as_mut().unwrap().every = Duration::from_mins(10);
    let listening = Listening::start(slow);
    listening.wait("both are up", all_up);
    dies.kill();
    let (_held, seen) = spread(&listening, 100);
    assert_eq!(seen.get("b"), Some(&100));
    let (a, b) = (listening.server("a"), listening.server("b"));
    assert!(a.connect_errors >= 1 && b.redispatches >= 1);
    assert!(
        a.connect_errors < 10,
        "it is avoided after it failed: {a:?}"
    );
    listening.wait("a failed connection hastened the check", |listen| {
        listen.servers[0]
            .check
            .as_ref()
            .is_some_and(|check| check.code == "L4CON")
    });
}

#[test]
fn a_server_that_is_down_gets_nothing_and_one_that_is_back_gets_its_share() {
    let (dies, stays) = (Server::echo('a'), Server::echo('b'));
    let listening = Listening::start(draft(&[dies.address, stays.address]));
    listening.wait("both are up", all_up);
    let address = dies.kill();
    listening.wait("it is down", |listen| {
        listen.servers[0].standing == Standing::Down
    });
    let down = listening.server("a");
    assert_eq!(down.check.as_ref().unwrap().code, "L4CON");
    assert_eq!(down.falls, 1);
    let (held, seen) = spread(&listening, 10);
    assert_eq!(seen.get("b"), Some(&10));
    assert_eq!(listening.server("a").connect_errors, 0);
    drop(held);
    listening.wait("all sessions have ended", |listen| listen.sessions == 0);
    let _back = Server::echo_at(address, 'a');
    listening.wait("it is up again", all_up);
    let (_held, seen) = spread(&listening, 10);
    assert_eq!(seen.get("a"), Some(&5));
    assert!(listening.server("a").downtime > Duration::ZERO);
}

#[test]
fn a_drained_server_keeps_its_sessions_and_gets_no_new_ones() {
    let servers = ['a', 'b'].map(Server::echo);
    let addresses = servers.each_ref().map(|server| server.address);
    let listening = Listening::start(draft(&addresses));
    listening.wait("both are up", all_up);
    let (mut held, seen) = spread(&listening, 4);
    assert_eq!(seen.get("a"), Some(&2));
    for wanted in [Wanted::Drain, Wanted::Maintenance] {
        listening.want("a", wanted).unwrap();
        let (_more, seen) = spread(&listening, 10);
        assert_eq!(seen.get("b"), Some(&10), "{wanted:?}");
        assert!(held.iter_mut().all(|stream| echoes(stream, "still here")));
    }
    listening.want("a", Wanted::Ready).unwrap();
    listening.wait("it is up again", all_up);
    listening.wait("the others have ended", |listen| listen.sessions == 4);
    let (_more, seen) = spread(&listening, 4);
    assert_eq!(seen.get("a"), Some(&2));
    let error = listening.want("x", Wanted::Drain).unwrap_err();
    assert!(matches!(error, HandleError::NoServer { .. }));
}

#[test]
fn what_an_operator_set_of_a_server_is_in_force_in_the_next_life_of_the_gateway() {
    let dir = TempDir::new("kept");
    let options = || Options {
        keepsake: Some(dir.join("listeners.json")),
        ..Options::default()
    };
    let servers = ['a', 'b', 'c'].map(Server::echo);
    let addresses = servers.each_ref().map(|server| server.address);
    let listening = Listening::with(options(), 2, draft(&addresses));
    listening.wait("all are up", all_up);
    listening.want("a", Wanted::Drain).unwrap();
    listening.set_weight("b", Some(7)).unwrap();
    listening.want("c", Wanted::Maintenance).unwrap();
    // What is as it is written is not kept.
    listening.want("c", Wanted::Ready).unwrap();
    drop(listening);

    let listening = Listening::with(options(), 2, draft(&addresses));
    assert_eq!(listening.server("a").wanted, Wanted::Drain);
    assert_eq!(listening.server("b").weight, 7);
    assert_eq!(listening.server("c").wanted, Wanted::Ready);
    let (_held, seen) = spread(&listening, 8);
    assert_eq!(seen.get("a"), None, "{seen:?}");
    listening.want("b", Wanted::Drain).unwrap();
    drop(listening);

    // Another server of that name is another one.
    let other = Server::echo('a');
    let listening = Listening::with(options(), 2, draft(&[other.address, addresses[1]]));
    assert_eq!(listening.server("a").wanted, Wanted::Ready);
    assert_eq!(listening.server("b").wanted, Wanted::Drain);
}

#[test]
fn an_operator_is_told_what_cannot_be_kept_and_it_is_in_force_all_the_same() {
    let dir = TempDir::new("unkept");
    let options = Options {
        keepsake: Some(dir.join("gone").join("listeners.json")),
        ..Options::default()
    };
    let server = Server::echo('a');
    let listening = Listening::with(options, 1, draft(&[server.address]));
    let error = listening.want("a", Wanted::Drain).unwrap_err();
    assert!(matches!(error, HandleError::NotKept(_)), "{error}");
    assert_eq!(listening.server("a").wanted, Wanted::Drain);
}

#[test]
fn weight_and_the_end_of_all_sessions_can_be_ordered() {
    let servers = ['a', 'b'].map(Server::echo);
    let addresses = servers.each_ref().map(|server| server.address);
    let listening = Listening::start(draft(&addresses));
    listening.set_weight("a", Some(3)).unwrap();
    let (mut held, seen) = spread(&listening, 8);
    assert_eq!(seen.get("a"), Some(&6));
    listening.cut_sessions("a").unwrap();
    listening.wait("they are cut", |listen| listen.servers[0].sessions == 0);
    let ended = held
        .iter_mut()
        .filter_map(|stream| is_ended(stream).then_some(()))
        .count();
    assert_eq!((ended, listening.server("a").cut), (6, 6));
    listening.set_weight("a", Some(0)).unwrap();
    assert_eq!(spread(&listening, 5).1.get("b"), Some(&5));
    listening.set_weight("a", None).unwrap();
    assert_eq!(listening.server("a").weight, 1);
    assert_eq!(
        listening.set_weight("a", Some(257)),
        Err(HandleError::Weight(257))
    );
}

/// A server that echoes and answers a check, unless it is frozen: then it accepts and says nothing,
/// as a stopped process does.
fn http_of(frozen: &Arc<AtomicBool>) -> Server {
    let frozen = Arc::clone(frozen);
    Server::start(move |stream| {
        let mut bytes = [0; 1024];
        let len = stream.read(&mut bytes)?;
        if frozen.load(Ordering::SeqCst) {
            return stream.read(&mut bytes).map(drop);
        }
        if bytes[..len].starts_with(b"GET /ready ") {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        } else {
            stream.write_all(&bytes[..len])
        }
    })
}

fn ready_check() -> CheckKind {
    CheckKind::Http {
        path: PathPrefix::parse("/ready").unwrap(),
        expect: Some(200),
    }
}

#[test]
fn sessions_of_a_server_that_hangs_are_closed_if_that_is_wanted_and_kept_otherwise() {
    for on_down in [OnDown::Close, OnDown::Keep] {
        let frozen = Arc::new(AtomicBool::new(false));
        let (hangs, works) = (http_of(&frozen), http_of(&Arc::default()));
        let draft = ListenDraft {
            check: Some(quick(ready_check())),
            on_down,
            balance: Balance::RoundRobin,
            ..draft(&[hangs.address, works.address])
        };
        // Each worker goes round by itself: of two, the shares would depend on who accepts what.
        let listening = Listening::with(Options::default(), 1, draft);
        listening.wait("both are up", all_up);
        let mut held: Vec<TcpStream> = (0..4).map(|_| connect(listening.front)).collect();
        listening.wait("both have sessions", |listen| {
            listen.servers.iter().all(|one| one.sessions == 2)
        });
        frozen.store(true, Ordering::SeqCst);
        listening.wait("it is down", |listen| {
            listen.servers[0].standing == Standing::Down
        });
        assert_eq!(listening.server("a").check.unwrap().code, "L7TOUT");
        let kept = match on_down {
            OnDown::Close => 0,
            OnDown::Keep => 2,
        };
        listening.wait("its sessions are what is wanted", |listen| {
            listen.servers[0].sessions == kept
        });
        assert_eq!(
            listening.server("b").sessions,
            2,
            "the others' are not touched"
        );
        let ended = held
            .iter_mut()
            .filter_map(|one| is_ended(one).then_some(()))
            .count();
        assert_eq!(ended, 2 - usize::try_from(kept).unwrap(), "{on_down:?}");
    }
}

#[test]
fn a_server_behind_a_dead_network_costs_one_try_and_is_then_avoided() {
    let (hole, works) = (BlackHole::new(), Server::echo('b'));
    let mut dead = draft(&[hole.address, works.address]);
    dead.timeouts.connect = ms(400);
    dead.check.as_mut().unwrap().every = Duration::from_mins(10);
    dead.check.as_mut().unwrap().timeout = Duration::from_mins(1);
    dead.balance = Balance::RoundRobin;
    let listening = Listening::with(Options::default(), 1, dead);
    let began = Instant::now();
    let mut slow = 0;
    let mut held = Vec::new();
    while began.elapsed() < ms(1000) && held.len() < 50 {
        let asked = Instant::now();
        let (stream, server) = listening.session();
        assert_eq!(server, "b");
        slow += usize::from(asked.elapsed() > ms(350));
        held.push(stream);
    }
    assert_eq!(slow, 1, "of {}", held.len());
    assert_eq!(listening.server("b").redispatches, 1);
}

#[test]
fn when_all_are_down_clients_are_told_soon_and_one_that_waits_gets_who_comes_back() {
    let address = local(free_port());
    let mut gone = draft(&[address]);
    gone.timeouts.connect = ms(1500);
    let listening = Listening::start(gone);
    listening.wait("it is down", |listen| {
        listen.servers[0].standing == Standing::Down
    });
    let mut client = connect(listening.front);
    let asked = Instant::now();
    assert_eq!(client.read(&mut [0; 1]).unwrap_or(0), 0);
    assert!(asked.elapsed() < ms(3000), "{:?}", asked.elapsed());
    listening.wait("it is counted", |listen| listen.unserved == 1);
    let mut waits = connect(listening.front);
    listening.wait("it waits", |listen| listen.sessions == 1);
    let _back = Server::echo_at(address, 'a');
    let mut greeting = [0; 1];
    waits.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"a");
}

#[test]
fn a_backup_serves_while_no_other_does() {
    let (main, spare) = (Server::echo('a'), Server::echo('b'));
    let mut both = draft(&[main.address, spare.address]);
    both.servers[1].rank = Rank::Backup;
    let listening = Listening::start(both);
    listening.wait("both are up", all_up);
    assert_eq!(spread(&listening, 6).1.get("a"), Some(&6));
    main.kill();
    assert_eq!(spread(&listening, 6).1.get("b"), Some(&6));
}

#[test]
fn more_connections_than_allowed_wait_until_others_end() {
    let server = Server::echo('a');
    let listening = Listening::start(ListenDraft {
        connections_max: 2,
        ..draft(&[server.address])
    });
    let (mut first, second) = (listening.session().0, listening.session().0);
    let mut third = connect(listening.front);
    third.write_all(b"early").unwrap();
    assert!(echoes(
        &mut first,
        "a round trip takes longer than an accept"
    ));
    assert_eq!(listening.snapshot().sessions, 2);
    assert!(!is_ended(&mut third));
    drop(second);
    let mut greeting = [0; 6];
    third.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"aearly");
    assert_eq!(listening.snapshot().sessions_high, 2);
}

#[test]
fn a_session_waits_for_a_full_server_and_not_for_ever() {
    let server = Server::echo('a');
    let mut full = draft(&[server.address]);
    full.servers[0].connections_max = NonZeroU32::new(1);
    full.timeouts.connect = ms(1000);
    let listening = Listening::start(full);
    let (first, _) = listening.session();
    let mut second = connect(listening.front);
    listening.wait("it waits", |listen| listen.sessions == 2);
    assert_eq!(listening.server("a").sessions, 1);
    drop(first);
    let mut greeting = [0; 1];
    second.read_exact(&mut greeting).unwrap();
    let mut third = connect(listening.front);
    assert_eq!(
        third.read(&mut greeting).unwrap_or(0),
        0,
        "the second stays"
    );
    assert_eq!(listening.snapshot().unserved, 1);
    assert_eq!(listening.server("a").sessions_high, 1);
}

#[test]
fn a_client_that_does_not_read_costs_its_buffers_and_hinders_nobody() {
    // Sends for ever.
    let server = Server::start(|stream| {
        stream.write_all(b"a")?;
        loop {
            stream.write_all(&[7; 16 * 1024])?;
        }
    });
    let echo = Server::echo('b');
    let mut both = draft(&[server.address, echo.address]);
    both.servers[1].rank = Rank::Backup;
    let listening = Listening::with(Options::default(), 1, both);
    let slow: Vec<TcpStream> = (0..10).map(|_| listening.session().0).collect();
    let mut before = 0;
    wait_until(SOON, "nothing moves any more", || {
        let now = listening.snapshot().bytes_out;
        let same = now == before && now > 0;
        before = now;
        if same { Ok(()) } else { Err(now.to_string()) }
    });
    // Per session: what the client's kernel takes, at most 6 MiB by `tcp_rmem`, and sends, 4 MiB.
    assert!(before < 10 * 11 * 1024 * 1024, "{before}");
    drop(server);
    listening.wait("the backup serves", |listen| {
        listen.servers[0].standing == Standing::Down
    });
    let (mut quick, name) = listening.session();
    assert!(name == "b" && echoes(&mut quick, "quick"));
    drop(slow);
    listening.wait("they are gone", |listen| listen.sessions == 1);
}

#[test]
fn what_is_silent_for_too_long_is_closed_sooner_after_a_half_close() {
    let silent = || {
        Server::start(|stream| {
            stream.write_all(b"s")?;
            let mut bytes = [0; 64];
            while stream.read(&mut bytes)? > 0 {}
            // Keeps its side open.
            std::thread::park_timeout(SOON);
            Ok(())
        })
    };
    let server = silent();
    let mut short = draft(&[server.address]);
    short.timeouts.idle = ms(600);
    let listening = Listening::start(short.clone());
    let (mut client, _) = listening.session();
    let began = Instant::now();
    for _ in 0..4 {
        client.write_all(b"x").unwrap();
        assert!(echo_pause(&listening));
    }
    assert!(!is_ended(&mut client), "it moves");
    wait_for_end(&mut client, "the idle session is closed");
    assert!(began.elapsed() >= ms(600));
    short.timeouts.idle = SOON * 3;
    short.timeouts.half_open = ms(200);
    listening.set(vec![short]);
    listening.wait("the settings are applied", |listen| listen.sessions == 0);
    let (mut client, _) = listening.session();
    client.shutdown(Shutdown::Write).unwrap();
    wait_for_end(&mut client, "the half-open session is closed");
}

/// Some milliseconds in which something happens.
fn echo_pause(listening: &Listening) -> bool {
    (0..10).all(|_| listening.snapshot().sessions == 1)
}

#[test]
fn settings_change_without_a_cut_and_removed_servers_have_their_time() {
    let servers = ['a', 'b', 'c'].map(Server::echo);
    let addresses = servers.each_ref().map(|server| server.address);
    let mut first = draft(&addresses);
    first.servers.truncate(2);
    let listening = Listening::start(first.clone());
    let mut held = BTreeMap::new();
    while held.len() < 2 {
        let (stream, server) = listening.session();
        held.insert(server, stream);
    }
    // Another order, another weight, another check, one server less and one more.
    let mut second = draft(&addresses);
    second.bind = first.bind.clone();
    second.servers.remove(0);
    second.servers.reverse();
    second.servers[1].weight = 7;
    second.check = None;
    second.timeouts.drain = ms(700);
    listening.set(vec![second.clone()]);
    listening.wait("it is applied", |listen| {
        listen.servers.len() == 2 && listen.servers[0].name.as_str() == "c"
    });
    assert_eq!(listening.server("b").weight, 7);
    assert!(
        held.values_mut().all(|stream| echoes(stream, "still here")),
        "nothing is cut"
    );
    assert_eq!(listening.server("b").sessions, 1);
    let mut removed = held.remove("a").unwrap();
    wait_for_end(
        &mut removed,
        "the session of the removed server has had its time",
    );
    assert!(echoes(held.get_mut("b").unwrap(), "for ever"));
    // The port moves; then the listener goes.
    let moved = local(free_port());
    second.bind = vec![moved];
    listening.set(vec![second]);
    wait_until(
        SOON,
        "the new port is open and the old one is not",
        || match (
            TcpStream::connect(moved),
            TcpStream::connect(listening.front),
        ) {
            (Ok(_), Err(_)) => Ok(()),
            seen => Err(format!("{seen:?}")),
        },
    );
    assert!(echoes(held.get_mut("b").unwrap(), "for ever"));
    listening.set(Vec::new());
    wait_for_end(
        held.get_mut("b").unwrap(),
        "a removed listener's sessions end",
    );
    assert!(listening.snapshots().is_empty());
    assert!(TcpStream::connect(moved).is_err());
}

#[test]
fn an_address_changes_its_listener_without_being_closed() {
    let (a, b) = (Server::echo('a'), Server::echo('b'));
    let mut first = draft(&[a.address]);
    let listening = Listening::start(first.clone());
    let mut other = draft(&[b.address]);
    other.name = listening::name("other");
    (other.bind, first.bind) = (first.bind, vec![local(free_port())]);
    listening.set(vec![first.clone(), other]);
    wait_until(SOON, "the new address is bound", || {
        // The one that moves is open all the while.
        drop(connect(listening.front));
        let new = TcpStream::connect(first.bind[0]);
        new.map(drop).map_err(|error| error.to_string())
    });
    wait_until(SOON, "each has its own", || {
        let seen = (session(listening.front).1, session(first.bind[0]).1);
        if seen == ("b".into(), "a".into()) {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    });
}

#[test]
fn an_address_that_another_has_is_told_and_taken_when_it_is_free() {
    let (server, taken) = (Server::echo('a'), Server::echo('x'));
    let mut busy = draft(&[server.address]);
    let free = busy.bind[0];
    busy.bind.push(taken.address);
    let listening = {
        let listening = Listening::start(ListenDraft {
            bind: vec![free],
            ..busy.clone()
        });
        listening.set(vec![busy.clone()]);
        listening
    };
    listening.wait("it is told", |listen| {
        listen.binds.get(1).is_some_and(|bind| {
            bind.failing
                .as_ref()
                .is_some_and(|why| why.contains("in use"))
        })
    });
    let address = taken.kill();
    listening.wait("it is bound", |listen| listen.binds[1].failing.is_none());
    assert_eq!(session(address).1, "a");
}

#[test]
fn who_is_told_to_stop_accepts_nothing_and_waits_for_its_sessions() {
    let server = Server::echo('a');
    let options = Options {
        drain: SOON * 3,
        ..Options::default()
    };
    let listening = Listening::with(options, 2, draft(&[server.address]));
    let (mut stream, _) = listening.session();
    listening.tell_to_stop();
    wait_until(SOON, "nobody listens", || {
        match TcpStream::connect(listening.front) {
            Err(_) => Ok(()),
            Ok(_) => Err("somebody does".to_owned()),
        }
    });
    assert!(echoes(&mut stream, "still here") && !listening.has_ended());
    drop(stream);
    wait_until(SOON, "it ends", || {
        if listening.has_ended() {
            Ok(())
        } else {
            Err("it runs".to_owned())
        }
    });
}

/// How many connections wait in the kernel to be accepted at an IPv4 address (`proc_net_tcp(5)`).
fn queued(address: SocketAddr) -> Option<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{:04X}", address.port());
    let mut fields = table.lines().map(|line| line.split_ascii_whitespace());
    fields.find_map(|mut fields| {
        let at = fields.nth(1)?;
        let (state, queues) = (fields.nth(1)?, fields.next()?);
        let length = queues.split(':').nth(1)?;
        (at.ends_with(&port) && state == "0A").then(|| length.to_owned())
    })
}

#[test]
fn who_waits_for_a_place_when_it_is_told_to_stop_still_gets_one() {
    let server = Server::echo('a');
    let options = Options {
        drain: SOON * 3,
        ..Options::default()
    };
    let full = ListenDraft {
        connections_max: 1,
        ..draft(&[server.address])
    };
    let listening = Listening::with(options, 1, full);
    let (first, _) = listening.session();
    let mut second = connect(listening.front);
    wait_until(SOON, "the second is accepted", || {
        match queued(listening.front) {
            Some(queued) if queued == "00000000" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    listening.tell_to_stop();
    wait_until(SOON, "nobody listens", || match queued(listening.front) {
        None => Ok(()),
        Some(_) => Err("somebody does".to_owned()),
    });
    assert!(!is_ended(&mut second));
    drop(first);
    let mut greeting = [0; 1];
    second.read_exact(&mut greeting).unwrap();
    assert!(echoes(&mut second, "served"));
}

#[test]
fn what_has_not_ended_by_the_end_of_the_drain_is_cut() {
    let server = Server::echo('a');
    let options = Options {
        drain: ms(300),
        ..Options::default()
    };
    let listening = Listening::with(options, 2, draft(&[server.address]));
    let (mut stream, _) = listening.session();
    listening.tell_to_stop();
    wait_for_end(&mut stream, "the session is cut");
    wait_until(SOON, "it ends", || {
        if listening.has_ended() {
            Ok(())
        } else {
            Err("it runs".to_owned())
        }
    });
}

#[test]
fn a_frozen_server_that_thaws_is_used_again() {
    let frozen = Arc::new(AtomicBool::new(false));
    let server = http_of(&frozen);
    let listening = Listening::start(ListenDraft {
        check: Some(quick(ready_check())),
        ..draft(&[server.address])
    });
    listening.wait("it is up", all_up);
    frozen.store(true, Ordering::SeqCst);
    listening.wait("it is down", |listen| {
        listen.servers[0].standing == Standing::Down
    });
    frozen.store(false, Ordering::SeqCst);
    listening.wait("it is up", all_up);
    let mut client = connect(listening.front);
    assert!(echoes(&mut client, "hello"));
}
