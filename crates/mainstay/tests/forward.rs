//! Forwarding by the kernel through the whole: file, control centre, agent, rules.

#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use mainstay_api::wire::Status;
use mainstay_testkit::{Ended, Netns, Spawned, is_root, program, skip, wait_until};
use running::{PATIENCE, Running, kill, python_server, text};
use rustix::process::Signal;

const NEEDS_ROOT: &str = "needs root: makes a network namespace and rules in it";

/// A `dev` in a network of its own, whose service is reached by an address of the kernel's.
fn start(keys: &str) -> (Running, SocketAddr) {
    start_with(&python_server(""), keys)
}

fn start_with(python: &str, keys: &str) -> (Running, SocketAddr) {
    let mut running = Running::prepare("forward").in_own_network();
    let keys =
        format!("address = \"auto\"\ninstances = 3\nrollout = {{ hold = \"100ms\" }}\n{keys}");
    let file = running.write_service(python, &keys);
    running.dev(&[file.to_str().unwrap(), "--forward", "10.96.0.0/16"]);
    let status = running.wait_until_steady();
    let address = status.services[0].address.unwrap();
    wait_until(PATIENCE, "the address is forwarded", || {
        connect(running.netns(), address).map_err(|error| error.to_string())
    });
    (running, address)
}

fn connect(netns: &Netns, to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = netns.enter(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Asks over a connection that stays, and gets the name of the instance.
fn ask(mut stream: &TcpStream) -> std::io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut bytes = [0; 512];
    loop {
        let len = stream.read(&mut bytes)?;
        if len == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&bytes[..len]);
        let text = String::from_utf8_lossy(&answer);
        if let Some((_, body)) = text.split_once("\r\n\r\n")
            && let Some(name) = body.strip_suffix('\n')
        {
            return Ok(name.to_owned());
        }
    }
}

fn nft(running: &Running, arguments: &[&str]) -> String {
    text(
        &running
            .command(&program("nft"))
            .args(arguments)
            .output()
            .unwrap(),
    )
}

/// What the control centre knows of the node that forwards.
fn acknowledged(running: &Running) -> Result<String, String> {
    let status: Status = running.json(&["status"])?;
    let found = status
        .consumers
        .iter()
        .find(|one| one.consumer.name == "forward");
    let found = found.ok_or_else(|| format!("{:?}", status.consumers))?;
    match found.acknowledged {
        Some(generation) if generation == status.generation => Ok(found.consumer.to_string()),
        other => Err(format!("{other:?} instead of {}", status.generation)),
    }
}

#[test]
fn system_forwarding_goes_on_without_the_agent_and_the_next_one_takes_over() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let (running, address) = start("");
    let kept = connect(running.netns(), address).unwrap();
    let first = ask(&kept).unwrap();
    let elder = running.own_process("agent").unwrap();
    let before = acknowledged(&running).unwrap();
    kill(elder, Signal::KILL);
    for _ in 0..50 {
        let fresh = connect(running.netns(), address).unwrap();
        ask(&fresh).unwrap();
    }
    assert_eq!(ask(&kept).unwrap(), first);
    let after = wait_until(PATIENCE, "the next agent acknowledges", || {
        acknowledged(&running).and_then(|now| if now == before { Err(now) } else { Ok(now) })
    });
    assert_ne!(after, before);
    assert_eq!(ask(&kept).unwrap(), first);
    // Somebody deletes everything.
    nft(&running, &["flush", "ruleset"]);
    wait_until(Duration::from_secs(5), "the rules are back", || {
        let stream = connect(running.netns(), address).map_err(|error| error.to_string())?;
        ask(&stream).map_err(|error| error.to_string())
    });
    assert_eq!(
        ask(&kept).unwrap(),
        first,
        "connection tracking still knows it"
    );
}

#[test]
fn system_an_instance_is_stopped_when_its_last_connection_has_ended() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let (mut running, address) = start("drain = \"50s\"");
    // A connection to each.
    let mut kept: Vec<(String, TcpStream)> = Vec::new();
    wait_until(PATIENCE, "each instance has a connection", || {
        let stream = connect(running.netns(), address).map_err(|error| error.to_string())?;
        let name = ask(&stream).map_err(|error| error.to_string())?;
        if kept.iter().all(|(one, _)| *one != name) {
            kept.push((name, stream));
        }
        if kept.len() == 3 {
            Ok(())
        } else {
            Err(format!("{kept:?}"))
        }
    });
    let scaled = running.run(&["scale", "web", "1", "--no-wait"]);
    assert!(scaled.status.success(), "{}", text(&scaled));
    let left = wait_until(PATIENCE, "one is in the routes", || {
        let status: Status = running.json(&["status"])?;
        let seen: std::collections::BTreeSet<String> = (0..40)
            .filter_map(|_| ask(&connect(running.netns(), address).ok()?).ok())
            .collect();
        if seen.len() == 1 {
            Ok(seen.into_iter().next().unwrap())
        } else {
            Err(format!("{seen:?} {status:?}"))
        }
    });
    // Those that drain still answer who had a connection.
    for (name, stream) in &kept {
        assert_eq!(ask(stream).unwrap(), *name);
    }
    assert_eq!(running.instances().unwrap().len(), 3);
    kept.retain(|(name, _)| *name == left);
    let began = Instant::now();
    wait_until(PATIENCE, "the others are gone", || {
        let instances = running.instances()?;
        if instances.len() == 1 {
            Ok(())
        } else {
            Err(format!("{instances:?}"))
        }
    });
    assert!(
        began.elapsed() < Duration::from_secs(40),
        "not by the drain's end"
    );
    drop(kept);
    let (ended, log) = running.stop();
    assert_eq!(ended, Ended::Code(0), "{log}");
    assert_eq!(
        nft(&running, &["list", "ruleset"]),
        "",
        "nothing is left behind"
    );
    let routes = running
        .command(&program("ip"))
        .args(["route", "show", "table", "local"])
        .output();
    assert!(
        !text(&routes.unwrap()).contains("10.96."),
        "nothing is left behind"
    );
}

#[test]
fn system_a_range_that_something_else_has_is_told_and_gets_no_rules_but_sockets() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let mut running = Running::prepare("forward-range").in_own_network();
    let ip = |running: &Running, line: &str| {
        let output = running
            .command(&program("ip"))
            .args(line.split(' '))
            .output()
            .unwrap();
        assert!(output.status.success(), "{line}: {}", text(&output));
    };
    ip(&running, "link add taken type bridge");
    ip(&running, "address add 10.96.3.1/24 dev taken");
    ip(&running, "link set taken up");
    let keys = "address = \"auto\"\nrollout = { hold = \"100ms\" }";
    let file = running.write_service(&python_server(""), keys);
    running.dev(&[file.to_str().unwrap(), "--forward", "10.96.0.0/16"]);
    let log = running.state().join("logs").join("agent.log");
    wait_until(PATIENCE, "it is told", || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        let told = log.contains("10.96.3.1") && log.contains("choose a `range`");
        if told { Ok(()) } else { Err(log) }
    });
    assert_eq!(
        nft(&running, &["list", "ruleset"]),
        "",
        "what is there is not cut off"
    );
    // Sockets need no routes, and serve what addresses the host has.
    let listed: serde_json::Value = running.json(&["forward", "ls"]).unwrap();
    let notes = listed["notes"].to_string();
    assert!(
        notes.contains("carried by userspace") && notes.contains("10.96.3.1"),
        "{listed}"
    );
    let fallen = wait_happened(&running, "forwarded_by", 1);
    let fallen = &fallen["kind"]["happened"];
    assert_eq!(fallen["back_end"], "userspace", "{fallen}");
    assert!(
        fallen["refused"].to_string().contains("10.96.3.1"),
        "{fallen}"
    );
    let address = running.wait_until_steady().services[0].address.unwrap();
    ip(
        &running,
        &format!("address add {}/32 dev taken", address.ip()),
    );
    wait_until(PATIENCE, "it is served by sockets", || {
        let stream = connect(running.netns(), address).map_err(|error| error.to_string())?;
        ask(&stream).map(drop).map_err(|error| error.to_string())
    });
}

#[test]
fn system_without_the_right_to_make_rules_it_is_forwarded_by_sockets() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let mut running = Running::prepare("forward-powerless").in_own_network();
    let keys = "address = \"127.96.0.1:8080\"\nrollout = { hold = \"100ms\" }";
    let file = running.write_service(&python_server(""), keys);
    let mut command = running.command(&program("setpriv"));
    command.args(["--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]);
    command
        .arg(running::MAINSTAY)
        .arg("--state")
        .arg(running.state());
    command.args(["dev", file.to_str().unwrap(), "--forward", "127.96.0.0/16"]);
    for port in ["--entry", "--api", "--stats"] {
        command.args([port, "127.0.0.1:0"]);
    }
    running.start(command);
    let address = running.wait_until_steady().services[0].address.unwrap();
    wait_until(PATIENCE, "it is served by sockets", || {
        let stream = connect(running.netns(), address).map_err(|error| error.to_string())?;
        ask(&stream).map(drop).map_err(|error| error.to_string())
    });
    let listed: serde_json::Value = running.json(&["forward", "ls"]).unwrap();
    let notes = listed["notes"].to_string();
    assert!(
        notes.contains("carried by userspace") && notes.contains("CAP_NET_ADMIN"),
        "{listed}"
    );
    let log = running.state().join("logs").join("agent.log");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("a better back end cannot be had"), "{log}");
}

#[test]
fn system_an_address_that_another_host_on_the_network_has_is_told() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let mut running = Running::prepare("forward-occupied").in_own_network();
    let host = Netns::new();
    Netns::join((running.netns(), "10.9.0.1/24"), (&host, "10.9.0.2/24"));
    let ip = |line: &str| {
        let mut command = host.command(&program("ip"));
        assert!(command.args(line.split(' ')).status().unwrap().success());
    };
    ip("address add 10.96.0.7/32 dev lo");
    let keys = "address = \"10.96.0.7:8080\"\nrollout = { hold = \"100ms\" }";
    let file = running.write_service(&python_server(""), keys);
    running.dev(&[file.to_str().unwrap(), "--forward", "10.96.0.0/16"]);
    let log = running.state().join("logs").join("agent.log");
    let wait_for = |words: &str| {
        wait_until(PATIENCE, words, || {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            let told = log
                .lines()
                .any(|line| line.contains(words) && line.contains("10.96.0.7"));
            if told { Ok(()) } else { Err(log) }
        });
    };
    wait_for("another host on the network has the address of a service");
    // Programs here reach the service all the same.
    let address = running.wait_until_steady().services[0].address.unwrap();
    ask(&connect(running.netns(), address).unwrap()).unwrap();
    ip("address delete 10.96.0.7/32 dev lo");
    wait_for("no other host has the address of the service any more");
}

/// Answers datagrams with the instance's name, too.
const DATAGRAMS: &str = r#"
import socket
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((os.environ["HOST"], int(os.environ["PORT"])))
def answer():
    while True:
        _, client = udp.recvfrom(64)
        udp.sendto(os.environ["MAINSTAY_INSTANCE"].encode(), client)
threading.Thread(target=answer, daemon=True).start()
"#;

#[test]
fn system_who_asks_by_datagrams_gets_through_again_after_the_table_was_gone() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let (running, address) = start_with(&python_server(DATAGRAMS), "");
    // Another program's table, which keeps connection tracking on while ours is gone.
    nft(&running, &["add", "table", "inet", "theirs"]);
    let chain = "add chain inet theirs seen { type filter hook output priority 0 ; }";
    nft(&running, &chain.split(' ').collect::<Vec<_>>());
    let rule = "add rule inet theirs seen ct state invalid drop";
    nft(&running, &rule.split(' ').collect::<Vec<_>>());
    let open = || {
        let client = running.netns().enter(|| {
            let client = UdpSocket::bind("0.0.0.0:0").unwrap();
            client.connect(address).unwrap();
            client
        });
        let patience = Some(Duration::from_millis(20));
        client.set_read_timeout(patience).unwrap();
        client
    };
    let ask = |client: &UdpSocket| -> std::io::Result<usize> {
        client.send(b"who")?;
        client.recv(&mut [0; 64])
    };
    wait_until(PATIENCE, "clients are answered", || {
        ask(&open()).map(drop).map_err(|error| error.to_string())
    });
    // One that begins while nothing is translated is led nowhere, which is remembered.
    let client = wait_until(PATIENCE, "one is refused", || {
        nft(&running, &["delete", "table", "inet", "mainstay"]);
        let client = open();
        match ask(&client) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(client),
            other => Err(format!("{other:?}")),
        }
    });
    // It goes on asking all the time, so that nothing is forgotten for want of packets.
    wait_until(Duration::from_secs(10), "it is answered", || {
        ask(&client).map(drop).map_err(|error| error.to_string())
    });
}

/// Processor time that a process has had.
fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let numbers: Vec<&str> = rest.split_whitespace().collect();
    let ticks: u64 = [11, 12]
        .map(|at| numbers[at].parse::<u64>().unwrap())
        .iter()
        .sum();
    // `USER_HZ` is 100 on every machine that Linux runs on today.
    Duration::from_millis(ticks * 10)
}

/// Harms the table in turn, without a pause.
const EDITOR: &str = r"
while :; do
    nft insert rule inet mainstay guard-output drop
    nft add element inet mainstay dead4 '{ 127.0.0.1 . 20001 }'
    nft flush map inet mainstay slots4
    nft flush chain inet mainstay output
    nft add chain inet mainstay theirs '{ type filter hook output priority 0 ; policy drop ; }'
    nft delete table inet mainstay
done 2> /dev/null
";

#[test]
fn system_a_program_that_edits_the_table_in_a_loop_neither_wins_nor_wears_the_agent_out() {
    const EDITS: Duration = Duration::from_secs(6);
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let (running, address) = start("");
    let list = || nft(&running, &["--terse", "list", "table", "inet", "mainstay"]);
    let whole = list();
    let agent = running.own_process("agent").unwrap();
    let log = || std::fs::read_to_string(running.state().join("logs/agent.log")).unwrap();
    let told_before = log().lines().count();
    let script = running.write("edit.sh", EDITOR);
    let mut command = running.command(&program("sh"));
    let (before, began) = (processor_time(agent), Instant::now());
    let editor = Spawned::start(&running.dir, "editor", command.arg(script));
    wait_until(PATIENCE, "it has edited for some seconds", || {
        if began.elapsed() >= EDITS {
            Ok(())
        } else {
            Err(format!("{:?}", began.elapsed()))
        }
    });
    let (worked, lasted) = (
        processor_time(agent).saturating_sub(before),
        began.elapsed(),
    );
    editor.signal(Signal::KILL);
    editor.wait(PATIENCE);
    let stopped = Instant::now();
    wait_until(PATIENCE, "the table is right", || {
        let now = list();
        if now == whole { Ok(()) } else { Err(now) }
    });
    // Within a second; another one for the programs that look.
    let right_after = stopped.elapsed();
    assert!(right_after < Duration::from_secs(2), "{right_after:?}");
    for _ in 0..20 {
        ask(&connect(running.netns(), address).unwrap()).unwrap();
    }
    assert_eq!(running.own_process("agent"), Some(agent), "it lives");
    assert!(
        worked < lasted / 2,
        "{worked:?} of processor time in {lasted:?}"
    );
    let log = log();
    let told: Vec<&str> = log.lines().skip(told_before).collect();
    let repairs = told
        .iter()
        .filter(|line| line.contains("somebody changed our rules"));
    assert_eq!(repairs.count(), 1, "once in a minute: {told:#?}");
    assert!(told.len() < 10, "{told:#?}");
}

/// What happened on the node beside its instances, as `mainstay events` tells it.
fn happened(running: &Running) -> Vec<serde_json::Value> {
    let said = running.run(&["events", "--json"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let events = said.lines().map(|line| serde_json::from_str(line).unwrap());
    let mut events: Vec<serde_json::Value> = events.collect();
    events.retain(|event| event["kind"]["what"] == "happened");
    events
}

/// Waits until so many of a kind are told.
fn wait_happened(running: &Running, kind: &str, count: usize) -> serde_json::Value {
    wait_until(PATIENCE, &format!("{kind} is told {count} times"), || {
        let events = happened(running);
        let of_kind = |event: &&serde_json::Value| event["kind"]["happened"]["happening"] == kind;
        let found: Vec<_> = events.iter().filter(of_kind).collect();
        match found.last() {
            Some(last) if found.len() == count => Ok((*last).clone()),
            _ => Err(format!("{events:?}")),
        }
    })
}

#[test]
fn system_a_table_of_connections_that_fills_and_rules_that_somebody_changes_are_events() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let mut running = Running::prepare("forward-events").in_own_network();
    let keys = "address = \"auto\"\ninstances = 1\nrollout = { hold = \"100ms\" }";
    let file = running.write_service(&python_server(""), keys);
    // The kernel has one limit for the whole machine, so another one is shown to these processes alone.
    let limit = running.write("limit", "1000\n");
    let mut command = running.command(&program("unshare"));
    let script = format!(
        "mount --bind {} /proc/sys/net/netfilter/nf_conntrack_max && exec \"$@\"",
        limit.display()
    );
    let sh = program("sh");
    command.args(["-m", sh.to_str().unwrap(), "-c", &script, "-"]);
    command.args([running::MAINSTAY, "dev", file.to_str().unwrap(), "--state"]);
    command.arg(running.state());
    for place in ["--entry", "--api", "--stats", "--broker"] {
        command.args([place, "127.0.0.1:0"]);
    }
    command.args(["--workers", "2", "--forward", "10.96.0.0/16"]);
    running.start(command);
    let status = running.wait_until_steady();
    let address = status.services[0].address.unwrap();
    assert_eq!(happened(&running), [0; 0], "nothing yet");
    let ask = |count: u16| {
        running.netns().enter(|| {
            for _ in 0..count {
                let client = UdpSocket::bind("127.0.0.1:0").unwrap();
                client.send_to(b"?", address).unwrap();
            }
        });
    };
    ask(900);
    let raised = wait_happened(&running, "connections_filling", 1);
    assert!(
        raised["kind"]["happened"]["entries"].as_u64() >= Some(800),
        "{raised}"
    );
    assert_eq!(raised["kind"]["happened"]["entries_max"], 1000, "{raised}");
    // The next agent does not raise it again.
    let before = acknowledged(&running).unwrap();
    kill(running.own_process("agent").unwrap(), Signal::KILL);
    wait_until(PATIENCE, "the next agent acknowledges", || {
        acknowledged(&running).and_then(|now| if now == before { Err(now) } else { Ok(()) })
    });
    nft(&running, &["flush", "table", "inet", "mainstay"]);
    let repaired = wait_happened(&running, "rules_repaired", 1);
    assert!(raised["number"].as_u64() < repaired["number"].as_u64());
    wait_happened(&running, "connections_filling", 1);
    // More room.
    running.write("limit", "100000\n");
    wait_happened(&running, "connections_relaxed", 1);
    let said = text(&running.run(&["events"]));
    for told in [
        "the table of connections is nearly full:",
        "the table of connections has room again:",
        "somebody changed the rules of forwarding, which are as they were:",
    ] {
        assert_eq!(said.matches(told).count(), 1, "`{told}` in\n{said}");
    }
}
