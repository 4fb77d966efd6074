//! What forwarding promises, proved by `mainstay prove`, and shown to be a proof by leaving out what the
//! promise rests on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod running;

use std::process::{Command, Output};

use mainstay_testkit::{is_root, program, skip};
use running::{MAINSTAY, Running, echo_server, text};
use serde_json::Value;

const NEEDS_ROOT: &str = "needs root: makes network namespaces and rules in them";

#[track_caller]
fn assert_holds(proof: &Output) {
    let said = text(proof);
    assert_eq!(proof.status.code(), Some(0), "{said}");
    assert!(said.contains("HOLDS: 0 failed of"), "{said}");
}

#[track_caller]
fn assert_does_not_hold(proof: &Output, why: &str) {
    let said = text(proof);
    assert_eq!(proof.status.code(), Some(1), "{said}");
    assert!(said.contains("DOES NOT HOLD"), "{said}");
    assert!(said.contains(why), "{said}");
}

const SHORT: [&str; 4] = ["--for", "3s", "--rate", "150"];

/// In a network of its own: no Mainstay runs.
fn prove(scenario: &str, more: &[&str]) -> Output {
    let mut command = Command::new(MAINSTAY);
    command.args(["prove", "--scenario", scenario]).args(SHORT);
    command.args(more).output().unwrap()
}

/// On a node that forwards.
fn prove_flush(name: &str, seams: &[&str]) -> Output {
    let mut running = Running::prepare(name).in_own_network();
    let keys = "address = \"auto\"\ninstances = 3\nrollout = { hold = \"100ms\" }\n\
                health = { get = \"/\", timeout = \"5s\", fall = 5 }";
    let file = running.write_service(&echo_server(), keys);
    let dev = [file.to_str().unwrap(), "--forward", "10.96.0.0/16"];
    running.dev(&[&dev, seams].concat());
    running.wait_until_steady();
    running.run(&[&["prove", "--scenario", "forward-flush"][..], &SHORT].concat())
}

#[test]
fn system_a_table_that_is_flushed_or_deleted_is_back_within_a_second() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let proof = prove_flush("flush", &[]);
    assert_holds(&proof);
    let said = text(&proof);
    assert!(said.contains("within outages that were made"), "{said}");
    let proof = prove_flush("flush-red", &["--unsafe-forward-seams", "repair=off"]);
    assert_does_not_hold(&proof, "the table `inet mainstay` is not back");
}

#[test]
fn system_one_service_changes_among_thousands_and_costs_no_request() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let proof = prove("forward-crowd", &[]);
    assert_holds(&proof);
    let said = text(&proof);
    assert!(
        said.contains("changes of one among 5001 services"),
        "{said}"
    );
    let proof = prove("forward-crowd", &["--unsafe-forward-seams", "changes=anew"]);
    assert_does_not_hold(&proof, "connection refused");
}

#[test]
fn system_who_is_under_way_to_a_host_that_is_cut_off_is_told_and_all_others_are_served() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let proof = prove("forward-cut", &["--json"]);
    assert_eq!(proof.status.code(), Some(0), "{}", text(&proof));
    let verdict: Value = serde_json::from_slice(&proof.stdout).unwrap();
    let seen = &verdict["scenarios"][0];
    assert_eq!(seen["scenario"], "forward-cut", "{verdict}");
    assert_eq!(seen["failed"], 0, "{verdict}");
    assert!(
        seen["outages"][0]["failed"].as_u64().unwrap() > 0,
        "{verdict}"
    );
    let proof = prove("forward-cut", &["--unsafe-forward-seams", "dead=off"]);
    assert_does_not_hold(&proof, "timed out");
}

#[test]
fn system_no_client_reaches_the_service_that_has_its_instances_address_now() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let proof = prove("forward-reuse", &[]);
    assert_holds(&proof);
    let proof = prove("forward-reuse", &["--unsafe-forward-seams", "clean-up=off"]);
    assert_does_not_hold(&proof, "datagrams were answered by another service");
    // Connections that were still asked for, too.
    assert_does_not_hold(&proof, "reached another service");
}

#[test]
fn system_who_may_not_make_a_network_is_told_what_to_do() {
    if !is_root() {
        return skip("needs root: gives capabilities away");
    }
    let mut command = Command::new(program("setpriv"));
    let less = "-net_admin,-sys_admin";
    command.args(["--bounding-set", less, "--inh-caps", less, MAINSTAY]);
    command.args(["prove", "--scenario", "forward-crowd,forward-cut"]);
    let proof = command.output().unwrap();
    let said = text(&proof);
    assert_eq!(proof.status.code(), Some(5), "{said}");
    assert!(said.contains("run `mainstay prove` as root"), "{said}");
    assert!(said.contains("COULD NOT BE PROVED"), "{said}");
}
