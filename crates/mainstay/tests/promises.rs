//! What Mainstay promises, seen by clients: proved by `mainstay prove` on a running system, and
//! shown to be a proof by switching the feature off.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod running;

use std::process::Output;

use mainstay_testkit::{Ended, Spawned, wait_until};
use running::{MAINSTAY, PATIENCE, Running, echo_server, kill, text};
use rustix::process::Signal;

/// Three instances that each need 30 ms for an answer, so that some are always at work.
const KEYS: &str = r#"
http = { path = "/" }
health = { get = "/", every = "100ms", timeout = "5s", fall = 5 }
instances = 3
rollout = { step = 1, hold = "200ms", deadline = "20s" }
drain = "10s"
grace = "2s"
"#;

fn start(name: &str, arguments: &[&str]) -> Running {
    let mut running = Running::prepare(name);
    let file = running.write_service(&echo_server(), KEYS);
    let file = file.to_str().unwrap().to_owned();
    running.dev(&[&[file.as_str()], arguments].concat());
    running.wait_until_steady();
    running
}

fn prove(running: &Running, scenario: &str) -> Output {
    running.run(&[
        "prove",
        "--scenario",
        scenario,
        "--for",
        "4s",
        "--rate",
        "150",
        "--request",
        "GET /",
        "--request",
        "POST / {}",
    ])
}

#[track_caller]
fn assert_holds(proof: &Output) {
    let said = text(proof);
    assert_eq!(proof.status.code(), Some(0), "{said}");
    assert!(said.contains("HOLDS: 0 failed of"), "{said}");
}

#[test]
fn system_a_killed_instance_costs_no_request_that_may_be_repeated() {
    let running = start("kill", &[]);
    assert_holds(&prove(&running, "kill"));
}

#[test]
fn system_a_rollout_and_scaling_cost_no_request() {
    let running = start("rollout", &[]);
    assert_holds(&prove(&running, "rollout,scale"));
}

#[test]
fn system_a_bad_version_is_rolled_back_and_costs_no_request() {
    let running = start("bad", &[]);
    assert_holds(&prove(&running, "rollout-bad"));
}

#[test]
fn system_without_the_acknowledged_drain_the_same_rollout_fails() {
    let running = start("red", &["--unsafe-no-acknowledged-drain"]);
    let proof = prove(&running, "rollout");
    let said = text(&proof);
    assert_eq!(proof.status.code(), Some(1), "{said}");
    assert!(said.contains("DOES NOT HOLD"), "{said}");
    assert!(said.contains("lost-in-flight"), "{said}");
}

#[test]
fn system_killing_control_centre_and_agent_costs_no_request() {
    let running = start("processes", &[]);
    let before = running.instances().unwrap();
    assert_holds(&prove(&running, "processes"));
    let pids = |instances: &[mainstay_api::wire::InstanceStatus]| -> Vec<Option<u32>> {
        instances.iter().map(|instance| instance.pid).collect()
    };
    assert_eq!(
        pids(&running.instances().unwrap()),
        pids(&before),
        "the same instances go on"
    );
}

#[test]
fn system_replacing_the_gateway_costs_no_request_and_without_the_hand_over_it_does() {
    let running = start("upgrade", &[]);
    let gateway = || running::processes(running.state(), "gateway");
    let before = gateway();
    let proof = prove(&running, "upgrade");
    assert_holds(&proof);
    assert!(
        text(&proof).contains("upgrade of the gateway (process "),
        "{}",
        text(&proof)
    );
    assert_ne!(gateway(), before, "it was replaced");

    let running = start("upgrade-red", &["--unsafe-no-hand-over"]);
    let proof = prove(&running, "upgrade");
    let said = text(&proof);
    assert_eq!(proof.status.code(), Some(1), "{said}");
    assert!(said.contains("DOES NOT HOLD"), "{said}");
}

#[test]
fn system_killing_the_supervisor_costs_no_request() {
    let running = start("supervisor", &[]);
    // A load that is long enough for what is done to the supervisor meanwhile.
    let mut proof = std::process::Command::new(MAINSTAY);
    proof.args([
        "prove",
        "--scenario",
        "scale",
        "--for",
        "6s",
        "--rate",
        "150",
        "--request",
        "GET /",
    ]);
    proof
        .args(["--request", "POST / {}", "--state"])
        .arg(running.state());
    let proof = Spawned::start(&running.dir, "proof", &mut proof);
    wait_until(PATIENCE, "the load runs", || {
        if proof.log().contains("now with faults") {
            Ok(())
        } else {
            Err(proof.log())
        }
    });
    kill(
        running
            .spawned()
            .pid()
            .as_raw_nonzero()
            .get()
            .unsigned_abs(),
        Signal::KILL,
    );
    assert_eq!(running.spawned().wait(PATIENCE), Ended::Signal(9));
    assert_eq!(proof.wait(PATIENCE), Ended::Code(0), "{}", proof.log());
    assert!(
        proof.log().contains("HOLDS: 0 failed of"),
        "{}",
        proof.log()
    );
    // Whoever comes next ends what the killed one left.
    let mut next = std::process::Command::new(MAINSTAY);
    next.args(["dev", "--state"]).arg(running.state());
    let next = Spawned::start(&running.dir, "next", &mut next);
    wait_until(PATIENCE, "the processes are adopted", || {
        if next.log().contains("adopting 4 processes") {
            Ok(())
        } else {
            Err(next.log())
        }
    });
    next.signal(Signal::INT);
    assert_eq!(next.wait(PATIENCE), Ended::Code(0), "{}", next.log());
}
