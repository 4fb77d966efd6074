//! The upgrade of the gateway: no client notices it, whatever is killed meanwhile.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod running;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mainstay_testkit::wait_until;
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use running::{MAINSTAY, PATIENCE, Running, kill, processes, python_server, text};

/// New connections per second, all clients together.
const RATE: u64 = 2000;

/// Clients; each from an address of its own, so that their ports do not run out.
const CLIENTS: u8 = 8;

/// How often the gateway is replaced.
const UPGRADES: usize = 5;

/// One request on a connection of its own.
fn ask(entry: SocketAddr, from: u8, host: &str) -> io::Result<u16> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 2, from), 0)).into())?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    socket.connect(&entry.into())?;
    let mut stream = TcpStream::from(socket);
    let head = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.ok_or_else(|| io::Error::other(format!("no answer: {answer:?}")))
}

/// Clients that connect anew for each request, until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<thread::JoinHandle<Vec<String>>>,
    asked: Arc<AtomicU64>,
    began: Instant,
}

impl Load {
    /// One request in ten goes to the service, the others are answered by the gateway alone, as fast
    /// as it can.
    fn start(entry: SocketAddr) -> Self {
        let (stop, asked) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let began = Instant::now();
        let client = |from: u8| {
            let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
            thread::spawn(move || {
                let mut failed = Vec::new();
                for turn in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let due = began
                        + Duration::from_secs(turn) * u32::from(CLIENTS)
                            / u32::try_from(RATE).unwrap();
                    while let Some(left) = due.checked_duration_since(Instant::now()) {
                        thread::park_timeout(left);
                    }
                    let (host, wanted) = if turn.is_multiple_of(10) {
                        ("web.test", 200)
                    } else {
                        ("nobody.test", 404)
                    };
                    match ask(entry, from, host) {
                        Ok(code) if code == wanted => {}
                        other => failed.push(format!("{:?}: {host}: {other:?}", began.elapsed())),
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                }
                failed
            })
        };
        Self {
            clients: (1..=CLIENTS).map(client).collect(),
            stop,
            asked,
            began,
        }
    }

    /// How many were asked, how many a second, and what failed.
    fn stop(self) -> (u64, u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let failed = self.clients.into_iter().flat_map(|one| one.join().unwrap());
        let failed = failed.collect();
        let asked = self.asked.load(Ordering::Relaxed);
        let per_second = asked * 1000 / u64::try_from(self.began.elapsed().as_millis()).unwrap();
        (asked, per_second, failed)
    }
}

fn served(name: &str, program: &str, arguments: &[&str]) -> (Running, SocketAddr) {
    let mut running = Running::prepare(name);
    let keys = "http = { host = \"web.test\", path = \"/\" }\naddress = \"auto\"\n\
                rollout = { hold = \"1s\" }\ndrain = \"20s\"";
    let file = running.write_service(program, keys);
    running.dev(&[&[file.to_str().unwrap()], arguments].concat());
    running.wait_until_steady();
    let entry = running.entry();
    (running, entry)
}

fn upgrade(running: &Running) -> (bool, String) {
    let output = running.run(&["upgrade"]);
    (output.status.success(), text(&output))
}

/// The gateway that is kept.
fn kept(running: &Running) -> Option<u32> {
    let record = fs::read(running.state().join("supervisor.json")).ok()?;
    let record: serde_json::Value = serde_json::from_slice(&record).ok()?;
    let mut all = record["processes"].as_array()?.iter();
    let kept = all.find(|process| {
        let name = process["name"].as_str().unwrap_or_default();
        name.starts_with("gateway") && process["duty"] == "kept" && process["pid"].is_u64()
    })?;
    u32::try_from(kept["pid"].as_u64()?).ok()
}

#[track_caller]
fn wait_for_gateways(running: &Running, count: usize) {
    wait_until(PATIENCE, "so many gateways run", || {
        let gateways = processes(running.state(), "gateway");
        if gateways.len() == count {
            Ok(())
        } else {
            Err(format!("{gateways:?}"))
        }
    });
}

#[test]
fn system_five_upgrades_under_two_thousand_new_connections_a_second_cost_no_request() {
    let (running, entry) = served("upgrade", &python_server(""), &[]);
    let status = running.wait_until_steady();
    let address = status.services[0].address.unwrap();
    let load = Load::start(entry);
    for _ in 0..UPGRADES {
        let before = kept(&running).unwrap();
        let (done, said) = upgrade(&running);
        assert!(done, "{said}");
        assert_ne!(kept(&running), Some(before));
        // The service address was handed over, too.
        assert_eq!(ask(address, 9, "any").unwrap(), 200);
        wait_for_gateways(&running, 1);
        assert_eq!(ask(address, 9, "any").unwrap(), 200);
    }
    let (asked, per_second, failed) = load.stop();
    println!(
        "asked={asked} per_second={per_second} upgrade_failed={}",
        failed.len()
    );
    assert!(
        failed.is_empty(),
        "{} of {asked}: {failed:#?}",
        failed.len()
    );
    assert!(asked > 1000, "{asked} in all, {per_second} a second");
}

#[test]
fn system_without_the_hand_over_the_same_upgrade_costs_requests() {
    let arguments = ["--unsafe-no-hand-over"];
    let (running, entry) = served("upgrade-off", &python_server(""), &arguments);
    let load = Load::start(entry);
    for _ in 0..UPGRADES {
        let before = kept(&running);
        upgrade(&running);
        wait_until(PATIENCE, "another gateway answers", || {
            match ask(entry, 9, "web.test") {
                Ok(200) if kept(&running) != before && kept(&running).is_some() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
    let (asked, _, failed) = load.stop();
    assert!(!failed.is_empty(), "of {asked} none failed");
}

/// Answers after the first second of a while.
fn slow_server() -> String {
    python_server("import time").replace(
        "    def do_GET(self):\n",
        "    def do_GET(self):\n        time.sleep(4 if 'slow' in self.headers else 0)\n",
    )
}

/// A request that takes some seconds, in a thread.
fn begin_slow(entry: SocketAddr) -> thread::JoinHandle<String> {
    let mut stream = TcpStream::connect(entry).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: web.test\r\nslow: 1\r\n\r\n")
        .unwrap();
    thread::spawn(move || {
        let mut answer = Vec::new();
        let mut piece = [0; 4096];
        // Until the end of the connection, which the gateway that leaves closes.
        while let Ok(len) = stream.read(&mut piece) {
            if len == 0 {
                break;
            }
            answer.extend_from_slice(&piece[..len]);
        }
        String::from_utf8_lossy(&answer).into_owned()
    })
}

#[test]
fn system_what_is_under_way_is_finished_by_the_old_gateway_and_no_instance_is_taken_from_it() {
    let (running, entry) = served("upgrade-slow", &slow_server(), &[]);
    let slow = begin_slow(entry);
    let asks = running.state().join("logs/access.log");
    assert!(asks.exists());
    let (done, said) = upgrade(&running);
    assert!(done, "{said}");
    assert_eq!(
        processes(running.state(), "gateway").len(),
        2,
        "the old one goes on"
    );
    // Its instance is drained, which waits for what the old gateway has in flight.
    let down = running.run(&["down", "web", "--no-wait"]);
    assert!(down.status.success(), "{}", text(&down));
    let answer = slow.join().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );
    wait_for_gateways(&running, 1);
}

/// A copy of the program in this directory, in the place of what was there.
fn install(dir: &Path) -> std::path::PathBuf {
    let (path, next) = (dir.join("mainstay"), dir.join("mainstay.next"));
    fs::copy(MAINSTAY, &next).unwrap();
    fs::rename(&next, &path).unwrap();
    path
}

#[test]
fn system_a_new_program_takes_over_and_one_that_does_not_serve_leaves_the_old_one_in_place() {
    let mut running = Running::prepare("upgrade-program");
    let program = install(running.dir.path());
    let file = running.write_node("['gateway']", "drain = '1s'");
    let mut command = Command::new(&program);
    command.args(["run", "--config"]).arg(&file);
    running.start(command);
    let entry = running.entry();
    wait_until(PATIENCE, "the gateway answers", || {
        match ask(entry, 1, "any") {
            Ok(404) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let first = kept(&running);

    fs::remove_file(&program).unwrap();
    fs::write(&program, "#!/bin/sh\necho not a gateway >&2\nexit 3\n").unwrap();
    fs::set_permissions(
        &program,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let (done, said) = upgrade(&running);
    assert!(
        !done && said.contains("the new gateway ended before it served"),
        "{said}"
    );
    running.wait_for_output("not a gateway");
    assert_eq!(
        (kept(&running), ask(entry, 1, "any").unwrap()),
        (first, 404)
    );

    fs::remove_file(&program).unwrap();
    let (done, said) = upgrade(&running);
    assert!(!done && said.contains("cannot start"), "{said}");
    assert_eq!(
        (kept(&running), ask(entry, 1, "any").unwrap()),
        (first, 404)
    );

    install(running.dir.path());
    let (done, said) = upgrade(&running);
    assert!(done, "{said}");
    let pid = kept(&running).unwrap();
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert_eq!(exe, program, "the file that is there now");
    assert_eq!(ask(entry, 1, "any").unwrap(), 404);
}

#[test]
fn system_whoever_is_killed_in_an_upgrade_the_entry_goes_on() {
    let (mut running, entry) = served("upgrade-kills", &slow_server(), &[]);
    let server = running.own_process("server").unwrap();
    let first = kept(&running).unwrap();
    let is_served = |running: &Running| {
        assert_eq!(ask(entry, 1, "web.test").unwrap(), 200);
        wait_until(PATIENCE, "one gateway is kept", || {
            kept(running).ok_or(String::new())
        })
    };

    // The new one is killed while it waits for its routes.
    kill(server, Signal::STOP);
    running.spawned().signal(Signal::USR1);
    wait_for_gateways(&running, 2);
    let all = processes(running.state(), "gateway");
    let new = all.iter().find(|pid| **pid != first).unwrap();
    kill(*new, Signal::KILL);
    running.wait_for_output("the gateway was not replaced");
    kill(server, Signal::CONT);
    assert_eq!(is_served(&running), first);

    // The supervisor is killed while the new one waits: its successor ends that one.
    kill(server, Signal::STOP);
    running.spawned().signal(Signal::USR1);
    wait_for_gateways(&running, 2);
    running.kill_dev();
    kill(server, Signal::CONT);
    running.dev(&[]);
    wait_for_gateways(&running, 1);
    assert_eq!(is_served(&running), first);

    // After an adoption the sockets are taken from the gateway that has them.
    let load = Load::start(entry);
    let (done, said) = upgrade(&running);
    assert!(done, "{said}");
    wait_for_gateways(&running, 1);
    let (asked, _, failed) = load.stop();
    assert!(
        failed.is_empty(),
        "{} of {asked}: {failed:#?}",
        failed.len()
    );

    // The old one is killed while it finishes: nobody waits for it any more.
    let slow = begin_slow(entry);
    let (done, said) = upgrade(&running);
    assert!(done, "{said}");
    let second = is_served(&running);
    let all = processes(running.state(), "gateway");
    let old = all.iter().find(|pid| **pid != second).unwrap();
    kill(*old, Signal::KILL);
    slow.join().unwrap();
    let began = Instant::now();
    let down = running.run(&["down", "web"]);
    assert!(down.status.success(), "{}", text(&down));
    let took = began.elapsed();
    assert!(
        took < Duration::from_secs(15),
        "it was waited for: {took:?}"
    );
}
