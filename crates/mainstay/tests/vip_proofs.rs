//! `mainstay prove --scenario vip-...`: two complete nodes in network namespaces, the clients of their floating address,
//! and what these saw.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::process::{Command, Output};

use mainstay_testkit::{is_root, skip};
use serde_json::Value;

const MAINSTAY: &str = env!("CARGO_BIN_EXE_mainstay");

/// What a busy machine may add to an outage: bars in milliseconds are for a quiet one.
const OUTAGE_MS_MAX: u64 = 3000;

macro_rules! need_root {
    () => {
        if !is_root() {
            return skip("needs root: makes network namespaces");
        }
    };
}

fn prove(scenario: &str, more: &[&str]) -> Output {
    let mut command = Command::new(MAINSTAY);
    command.args(["--json", "prove", "--scenario", scenario]);
    command.args(more).output().unwrap()
}

/// The report on the one scenario.
fn report(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stdout);
    let verdict: Value = serde_json::from_str(&said)
        .unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
    verdict["scenarios"][0].clone()
}

/// What the clients saw, that does not depend on how fast this machine is.
#[track_caller]
fn assert_holds(scenario: &str, moves: usize) -> Value {
    let output = prove(scenario, &[]);
    let report = report(&output);
    println!("{report:#}");
    let clients = report["clients"].as_array().unwrap();
    assert_eq!(clients.len(), 4, "{report:#}");
    for saw in clients {
        assert!(saw["asked"].as_u64() > Some(50), "{report:#}");
    }
    assert!(
        report["outage_ms"].as_u64() < Some(OUTAGE_MS_MAX),
        "{report:#}"
    );
    let changes = report["moves"].as_array().unwrap();
    let taken = changes.iter().filter(|change| change["state"] == "master");
    assert_eq!(taken.count(), moves, "{report:#}");
    report
}

fn failed(report: &Value, kinds: &[&str]) -> u64 {
    let clients = report["clients"].as_array().unwrap().iter();
    let of_these = clients.filter(|saw| kinds.iter().any(|kind| saw["kind"] == *kind));
    of_these.filter_map(|saw| saw["failed"].as_u64()).sum()
}

const ALL: &[&str] = &["new", "kept", "http2", "websocket"];

#[test]
fn system_a_planned_move_costs_no_request_and_a_session_only_when_it_had_its_time() {
    need_root!();
    let report = assert_holds("vip-move", 1);
    assert_eq!(failed(&report, ALL), 0, "{report:#}");
    assert_eq!(report["clients"][3]["sessions_ended"], 2, "{report:#}");
}

#[test]
fn system_without_letting_clients_go_the_same_move_costs_requests() {
    need_root!();
    let output = prove("vip-move", &["--unsafe-gateway-seams", "leaving=off"]);
    let report = report(&output);
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    // Those that are kept: what was under way on the others depends on the moment.
    assert!(failed(&report, &["kept", "http2"]) > 0, "{report:#}");
    assert_eq!(report["outcome"], "does_not_hold");
}

/// What the same scenario shows when that on which it rests is switched off.
#[track_caller]
fn assert_red(scenario: &str, seam: [&str; 2], problem: &str) {
    let output = prove(scenario, &seam);
    let report = report(&output);
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    assert_eq!(report["outcome"], "does_not_hold", "{report:#}");
    let problems = report["problems"].to_string();
    assert!(problems.contains(problem), "`{problem}` in {report:#}");
}

#[test]
fn system_without_its_farewell_the_same_stop_is_an_outage() {
    need_root!();
    let seam = ["--unsafe-vip-seams", "farewell=unsaid"];
    assert_red("vip-stop", seam, "that no outage explains");
}

#[test]
fn system_a_successor_that_is_not_followed_loses_the_address() {
    need_root!();
    let seam = ["--unsafe-vip-seams", "successor=unknown"];
    assert_red("vip-upgrade", seam, "a new holder 1 times, not 0");
}

#[test]
fn system_a_dead_gateway_that_nobody_sees_keeps_the_address() {
    need_root!();
    let seam = ["--unsafe-vip-seams", "tracks=blind"];
    assert_red("vip-gateway-killed", seam, "a new holder 0 times, not 1");
    assert_red("vip-gateway-frozen", seam, "no new connection was served");
}

#[test]
fn system_with_adverts_of_a_second_the_same_outages_are_too_long() {
    need_root!();
    let seam = ["--unsafe-vip-seams", "adverts=each-second"];
    assert_red("vip-host-gone", seam, "no new connection was served");
    assert_red("vip-link-cut", seam, "no new connection was served");
}

#[test]
fn system_a_stop_of_the_holders_node_costs_no_request() {
    need_root!();
    let report = assert_holds("vip-stop", 1);
    assert_eq!(failed(&report, ALL), 0, "{report:#}");
}

#[test]
fn system_an_upgrade_of_the_holders_gateway_costs_no_request_and_moves_nothing() {
    need_root!();
    let report = assert_holds("vip-upgrade", 0);
    assert_eq!(failed(&report, ALL), 0, "{report:#}");
}

#[test]
fn system_the_holders_gateway_is_killed() {
    need_root!();
    assert_holds("vip-gateway-killed", 1);
}

#[test]
fn system_the_holders_gateway_is_frozen() {
    need_root!();
    assert_holds("vip-gateway-frozen", 1);
}

#[test]
fn system_the_holders_machine_vanishes_and_returns() {
    need_root!();
    let report = assert_holds("vip-host-gone", 1);
    // What was under way there cannot be saved, so this is seen.
    assert!(failed(&report, ALL) > 0, "{report:#}");
}

#[test]
fn system_the_holders_cable_is_pulled_and_plugged_in_again() {
    need_root!();
    assert_holds("vip-link-cut", 1);
}

#[test]
fn scenarios_of_both_kinds_are_not_mixed_and_unknown_ones_are_told() {
    let mixed = prove("vip-move,kill", &[]);
    let said = String::from_utf8_lossy(&mixed.stderr);
    assert_eq!(mixed.status.code(), Some(2), "{said}");
    assert!(
        said.contains("ask for them in calls of their own"),
        "{said}"
    );
    let unknown = prove("vip-gone", &[]);
    let said = String::from_utf8_lossy(&unknown.stderr);
    assert!(said.contains("vip-host-gone"), "{said}");
}
