//! `mainstay prove` with instances that neither answer nor go away: what it does to them, and that
//! nothing of it stays, whatever becomes of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::path::Path;

use mainstay_testkit::{Ended, Spawned, is_root, program, skip, wait_until};
use rustix::process::Signal;

mod running;
use running::{MAINSTAY, PATIENCE, Running, echo_server, text};

const KEYS: &str = "http = { path = \"/\" }\ninstances = 3\nrollout = { hold = \"300ms\" }\n\
                    health = { get = \"/health\", every = \"300ms\" }";

/// What the kernel drops for us, and nothing else: `nft` in the network of the test.
fn tables(running: &Running) -> String {
    let output = running
        .command(&program("nft"))
        .args(["list", "ruleset"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

fn begin(name: &str, running: Running) -> Running {
    let mut running = running;
    let file = running.write_service(&echo_server(), KEYS);
    running.dev(&[file.to_str().unwrap()]);
    let status = running.wait_until_steady();
    assert_eq!(status.services[0].ready, 3, "{name}");
    running
}

#[test]
fn system_a_frozen_instance_costs_no_request_that_may_be_repeated() {
    let running = begin("freeze", Running::prepare("prove-freeze"));
    let proved = running.run(&[
        "prove",
        "--scenario",
        "freeze",
        "--for",
        "1s",
        "--rate",
        "60",
    ]);
    let said = text(&proved);
    assert!(said.contains("SIGSTOP of web-"), "{said}");
    assert!(said.contains("0 failed of"), "{said}");
    assert!(proved.status.success(), "{said}");
}

#[test]
fn system_an_instance_that_is_cut_off_costs_no_request_and_nothing_stays_cut_off() {
    if !is_root() {
        return skip("needs root: makes a network namespace and drops packets in it");
    }
    let running = Running::prepare("prove-blackhole").in_own_network();
    let running = begin("blackhole", running);
    // One that is killed in the middle leaves a table of which nothing is dropped any more.
    let prove = [
        "prove",
        "--scenario",
        "blackhole",
        "--for",
        "1s",
        "--rate",
        "60",
    ];
    let mut command = running.command(Path::new(MAINSTAY));
    command.args(prove).arg("--state").arg(running.state());
    let killed = Spawned::start(&running.dir, "prove", &mut command);
    wait_until(PATIENCE, "an instance is cut off", || {
        let tables = tables(&running);
        if tables.contains("elements") {
            Ok(())
        } else {
            Err(tables + &killed.log())
        }
    });
    killed.signal(Signal::KILL);
    assert_eq!(killed.wait(PATIENCE), Ended::Signal(9));
    wait_until(
        PATIENCE,
        "the kernel lets it through again by itself",
        || {
            let tables = tables(&running);
            if tables.contains("elements") {
                Err(tables)
            } else {
                Ok(())
            }
        },
    );
    assert!(tables(&running).contains("table inet mainstay_prove"));
    running.wait_until_steady();
    // The next one is not in its way, and leaves nothing.
    let proved = running.run(&prove);
    let said = text(&proved);
    assert!(said.contains("packets to and from web-"), "{said}");
    assert!(said.contains("0 failed of"), "{said}");
    assert!(proved.status.success(), "{said}");
    assert_eq!(tables(&running), "");
}

#[test]
fn system_who_may_not_drop_packets_is_told_so_and_nothing_is_claimed() {
    if !is_root() {
        return skip("needs root: gives a capability away");
    }
    let running = begin(
        "incapable",
        Running::prepare("prove-incapable").in_own_network(),
    );
    let mut command = running.command(&program("setpriv"));
    command.args([
        "--bounding-set=-net_admin",
        "--inh-caps=-net_admin",
        MAINSTAY,
    ]);
    command.args(["prove", "--scenario", "blackhole", "--for", "1s", "--state"]);
    let output = command.arg(running.state()).output().unwrap();
    let said = text(&output);
    assert!(
        said.contains("cannot change the kernel's packet filter by `nft`"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(5), "{said}");
}
