//! The broker among the processes: it is there, it comes back, and programs in Python talk to it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod running;

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};

use mainstay_testkit::{Spawned, program, wait_until};
use running::{PATIENCE, Running, kill, text};
use rustix::process::Signal;

fn broker(running: &Running) -> SocketAddr {
    running.wait_for_output("broker  amqp://");
    let said = running.spawned().log();
    let line = said
        .lines()
        .find_map(|line| line.split_once("broker  amqp://"));
    line.expect("it was seen")
        .1
        .trim()
        .parse()
        .expect("an address")
}

fn done(running: &Running, arguments: &[&str]) -> String {
    let output = running.run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn system_a_killed_broker_is_back_with_its_messages_and_its_port_was_never_closed() {
    let mut running = Running::prepare("queue-killed");
    running.dev(&[]);
    let address = broker(&running);
    wait_until(PATIENCE, "the broker answers", || {
        let output = running.run(&["queue", "declare", "work"]);
        if output.status.success() {
            Ok(())
        } else {
            Err(text(&output))
        }
    });
    done(&running, &["queue", "publish", "work", "--body", "kept"]);
    let before = running.own_process("broker").expect("it runs");
    kill(before, Signal::KILL);
    // The supervisor holds the socket: who connects now waits, and is not refused.
    let twin = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], address.port()));
    for address in [address, twin] {
        TcpStream::connect(address).expect("somebody listens");
    }
    wait_until(PATIENCE, "the message is there again", || {
        let output = running.run(&["queue", "peek", "work"]);
        let said = text(&output);
        if output.status.success() && said.contains("kept") {
            Ok(())
        } else {
            Err(said)
        }
    });
    assert_ne!(running.own_process("broker"), Some(before));
    assert!(done(&running, &["queue", "ls"]).contains("work"));
    assert!(done(&running, &["status"]).contains(&format!("amqp://{address}")));
    let (_, said) = running.stop();
    assert!(said.contains("stopped"), "{said}");
    assert!(done(&running, &["queue", "fsck"]).contains("1 messages"));
}

#[test]
fn system_one_publishes_and_three_subscribe_one_of_them_late_and_durable() {
    let mut running = Running::prepare("queue-example");
    running.dev(&[]);
    let port = broker(&running).port().to_string();
    // Named here, so that it is installed: the examples import it.
    let pika = program("/usr/lib/python3/dist-packages/pika/__init__.py");
    assert!(pika.exists());
    let examples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/queue");
    let python = |script: &str, arguments: &[&str]| {
        let mut command = Command::new(program("/usr/bin/python3"));
        command
            .arg("-u")
            .arg(examples.join(script))
            .args(arguments)
            .arg(&port);
        command
    };
    let sees = |subscriber: &Spawned, line: &str| {
        wait_until(PATIENCE, line, || {
            let said = subscriber.log();
            if said.lines().any(|one| one == line) {
                Ok(())
            } else {
                Err(said)
            }
        });
    };
    let late = Spawned::start(
        &running.dir,
        "durable",
        &mut python("subscribe.py", &["durable"]),
    );
    sees(&late, "subscribed");
    drop(late);
    let subscribers = ["one", "two"].map(|name| {
        let one = Spawned::start(&running.dir, name, &mut python("subscribe.py", &[]));
        sees(&one, "subscribed");
        one
    });
    let published = python("publish.py", &["20"]).status();
    assert!(published.is_ok_and(|status| status.success()));
    for subscriber in &subscribers {
        sees(subscriber, "news 19");
    }
    let late = Spawned::start(
        &running.dir,
        "late",
        &mut python("subscribe.py", &["durable"]),
    );
    sees(&late, "news 19");
    let news = late
        .log()
        .lines()
        .filter(|line| line.starts_with("news"))
        .count();
    assert_eq!(news, 20);
    drop((late, subscribers));
    running.stop();
}

/// A burst of 1,000 messages a second for two seconds, through a broker that was started with these options.
fn burst(name: &str, options: &[&str]) -> Output {
    let mut running = Running::prepare(name);
    running.dev(options);
    broker(&running);
    wait_until(PATIENCE, "the broker answers", || {
        let output = running.run(&["queue", "status"]);
        if output.status.success() {
            Ok(())
        } else {
            Err(text(&output))
        }
    });
    let asked = ["--scenario", "burst", "--rate", "100", "--for", "2s"];
    let proof = running.run(&[&["prove"][..], &asked].concat());
    // The proof's queue went with it.
    assert!(!done(&running, &["queue", "ls"]).contains("mainstay-prove"));
    running.stop();
    proof
}

#[test]
fn system_a_burst_is_kept_and_a_broker_that_loses_one_message_of_it_is_found_out() {
    let proof = burst("queue-burst", &[]);
    let said = text(&proof);
    assert_eq!(proof.status.code(), Some(0), "{said}");
    assert!(
        said.contains("HOLDS: 0 lost, 0 twice and 0 out of order of"),
        "{said}"
    );
    assert!(said.contains("by the rates 1200, and 4.0 s"), "{said}");
    let proof = burst(
        "queue-burst-red",
        &["--unsafe-broker-seams", "keep=all-but-one"],
    );
    let said = text(&proof);
    assert_eq!(proof.status.code(), Some(1), "{said}");
    assert!(said.contains("DOES NOT HOLD: 1 lost"), "{said}");
    assert!(
        said.contains("1 messages were confirmed and never came"),
        "{said}"
    );
}

#[test]
fn a_burst_is_not_mixed_with_other_scenarios_and_needs_a_broker() {
    let running = Running::prepare("queue-burst-nobody");
    let mixed = running.run(&["prove", "--scenario", "burst,kill"]);
    assert_eq!(mixed.status.code(), Some(2), "{}", text(&mixed));
    assert!(
        text(&mixed).contains("calls of their own"),
        "{}",
        text(&mixed)
    );
    let alone = running.run(&["prove", "--scenario", "burst"]);
    assert!(
        text(&alone).contains("no broker runs on"),
        "{}",
        text(&alone)
    );
}
