//! Forwarding by the kernel through the whole: file, control centre, agent, rules.

#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use mainstay_api::wire::Status;
use mainstay_testkit::{Ended, Netns, is_root, program, skip, wait_until};
use running::{PATIENCE, Running, kill, python_server, text};
use rustix::process::Signal;

const NEEDS_ROOT: &str = "needs root: makes a network namespace and rules in it";

/// A `dev` in a network of its own, whose service is reached by an address of the kernel's.
fn start(keys: &str) -> (Running, SocketAddr) {
    let mut running = Running::prepare("forward").in_own_network();
    let keys =
        format!("address = \"auto\"\ninstances = 3\nrollout = {{ hold = \"100ms\" }}\n{keys}");
    let file = running.write_service(&python_server(""), &keys);
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
    let began = std::time::Instant::now();
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
