//! The broker among the processes: it is there, and it comes back.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod running;

use std::net::{SocketAddr, TcpStream};
use std::process::Output;

use mainstay_testkit::wait_until;
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
