//! The broker among the processes: it is there, and it comes back.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod running;

use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output};

use mainstay_testkit::{program, wait_until};
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

fn refused(running: &Running, arguments: &[&str], code: i32) -> String {
    let output = running.run(arguments);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{arguments:?}: {}",
        text(&output)
    );
    text(&output)
}

fn wait_until_it_answers(running: &Running) {
    wait_until(PATIENCE, "the broker answers", || {
        let output = running.run(&["queue", "ls"]);
        if output.status.success() {
            Ok(())
        } else {
            Err(text(&output))
        }
    });
}

#[test]
fn system_policies_and_virtual_hosts_by_command() {
    let mut running = Running::prepare("queue-policies");
    running.dev(&[]);
    wait_until_it_answers(&running);
    done(&running, &["queue", "declare", "orders"]);
    for body in ["one", "two", "three"] {
        done(&running, &["queue", "publish", "orders", "--body", body]);
    }
    let set = ["queue", "policy", "set", "short", "^ord", "--definition"];
    let with = |rest: &[&'static str]| [&set[..], rest].concat();
    let own = with(&[
        "{\"max-length\": 2}",
        "--priority",
        "5",
        "--apply-to",
        "queues",
    ]);
    done(&running, &own);
    let listed = done(&running, &["queue", "ls"]);
    let line = listed.lines().find(|line| line.contains("orders"));
    let words: Vec<&str> = line.expect("it is listed").split_whitespace().collect();
    assert_eq!(words[..3], ["/", "orders", "2"], "{listed}");
    assert_eq!(words.last(), Some(&"short"), "{listed}");
    let policies = done(&running, &["queue", "policy", "ls", "--vhost", "/"]);
    for word in ["short", "^ord", "queues", "5", "{\"max-length\":2}"] {
        assert!(policies.contains(word), "{policies}");
    }
    // What asks for copies is taken, and said.
    let output = running.run(&with(&["{\"ha-mode\": \"all\"}"]));
    assert!(output.status.success(), "{}", text(&output));
    assert!(
        text(&output).contains("there is one copy, on this machine"),
        "{}",
        text(&output)
    );
    let wrong = refused(&running, &with(&["{\"max-length\": \"few\"}"]), 4);
    assert!(wrong.contains("is not a valid maximum length"), "{wrong}");
    let broken = running.run(&with(&["{max-length"]));
    assert!(
        text(&broken).contains("`--definition` is no JSON"),
        "{}",
        text(&broken)
    );
    let exported = done(&running, &["queue", "export"]);
    let file = running.write("definitions.json", &exported);
    done(&running, &["queue", "policy", "rm", "short"]);
    assert_eq!(
        done(&running, &["queue", "policy", "ls"]).lines().count(),
        1
    );
    let imported = running.run(&["queue", "import", file.to_str().unwrap()]);
    assert!(imported.status.success(), "{}", text(&imported));
    assert!(
        text(&imported).contains("policy `short` asks for copies"),
        "{}",
        text(&imported)
    );
    assert!(done(&running, &["queue", "policy", "ls"]).contains("ha-mode"));
    virtual_hosts(&running);
    running.stop();
}

fn virtual_hosts(running: &Running) {
    done(running, &["queue", "vhost", "shop"]);
    done(running, &["queue", "declare", "work", "--vhost", "shop"]);
    assert!(done(running, &["queue", "ls"]).contains("shop"));
    done(running, &["queue", "rm-vhost", "shop"]);
    assert!(!done(running, &["queue", "ls"]).contains("shop"));
    let missing = refused(running, &["queue", "rm-vhost", "shop"], 4);
    assert!(
        missing.contains("there is no virtual host `shop`"),
        "{missing}"
    );
    let default = refused(running, &["queue", "rm-vhost", "/"], 2);
    assert!(default.contains("--default"), "{default}");
    assert!(done(running, &["queue", "ls"]).contains("orders"));
    done(running, &["queue", "rm-vhost", "/", "--default"]);
    assert_eq!(done(running, &["queue", "ls"]).lines().count(), 1);
}

/// Takes a message and keeps it, and then declares one queue too many; prints what it is told.
const SLOW: &str = r#"
import sys, pika
parameters = pika.ConnectionParameters("127.0.0.1", int(sys.argv[1]))
connection = pika.BlockingConnection(parameters)
slow, other = connection.channel(), connection.channel()
slow.queue_declare("work", durable=True)
slow.basic_publish("", "work", b"x")
slow.basic_consume("work", lambda *_: None)
try:
    slow.start_consuming()
except pika.exceptions.ChannelClosedByBroker as error:
    print(error.reply_code, error.reply_text)
try:
    other.queue_declare("one-more")
except pika.exceptions.ChannelClosedByBroker as error:
    print(error.reply_code, error.reply_text)
"#;

#[test]
fn system_a_nodes_file_limits_consumers_and_queues() {
    let mut running = Running::prepare("queue-limits");
    let state = running.state().display().to_string();
    let port = mainstay_testkit::free_port();
    let file = running.write(
        "node.toml",
        &format!(
            "roles = ['broker']\nstate = '{state}'\n[broker]\nbind = '127.0.0.1:{port}'\nconsumer_timeout = '1s'\nqueues = 1\n"
        ),
    );
    running.node(&file, &[]);
    wait_until_it_answers(&running);
    let script = running.write("slow.py", SLOW);
    let output = Command::new(program("/usr/bin/python3"))
        .arg(script)
        .arg(port.to_string())
        .output()
        .unwrap();
    let said = text(&output);
    assert!(said.contains("406 PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 1000 ms"), "{said}");
    assert!(
        said.contains("queue limit in vhost '/' (1) is reached"),
        "{said}"
    );
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
