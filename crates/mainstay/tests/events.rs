//! `mainstay events` as somebody types it who follows what happens.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod running;

use std::process::Command;

use mainstay_model::Event;
use mainstay_testkit::{Spawned, wait_until};
use running::{MAINSTAY, PATIENCE, Running, kill, processes, python_server, text};
use rustix::process::Signal;

/// The events of a follower's output; other lines are told to people.
fn events_of(follower: &Spawned) -> Vec<Event> {
    let log = follower.log();
    let lines = log.lines().map(serde_json::from_str);
    lines.filter_map(Result::ok).collect()
}

#[test]
fn system_who_follows_events_goes_on_over_a_kill_of_the_control_centre_without_a_gap() {
    let mut running = Running::prepare("follow-events");
    let file = running.write_service(
        &python_server(""),
        "http = { path = \"/\" }\nrollout = { hold = \"100ms\" }",
    );
    running.dev(&[file.to_str().unwrap()]);
    running.wait_until_steady();
    let mut command = Command::new(MAINSTAY);
    command
        .args(["events", "-f", "--json", "--state"])
        .arg(running.state());
    let follower = Spawned::start(&running.dir, "follower", &mut command);
    wait_until(PATIENCE, "the past is printed", || {
        let seen = events_of(&follower).len();
        (seen > 3).then_some(()).ok_or(seen.to_string())
    });

    let centre = processes(running.state(), "server")[0];
    kill(centre, Signal::KILL);
    let scaled = wait_until(PATIENCE, "the next control centre scales", || {
        let output = running.run(&["scale", "web", "2"]);
        if output.status.success() {
            Ok(output)
        } else {
            Err(text(&output))
        }
    });
    drop(scaled);
    let events = wait_until(PATIENCE, "what happened since is printed", || {
        let events = events_of(&follower);
        let started = events
            .iter()
            .filter(|event| event.kind.to_string().contains("scaled"));
        if started.count() > 0 {
            Ok(events)
        } else {
            Err(follower.log())
        }
    });
    let numbers: Vec<u64> = events.iter().map(|event| event.number).collect();
    let all: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, all, "each once, none left out");
    drop(follower);

    let of = |arguments: &[&str]| {
        let output = running.run(&[&["events"], arguments].concat());
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    let instance = running.instances().unwrap()[0].instance.to_string();
    let told = of(&["--instance", &instance]);
    assert!(
        told.contains("is ready") && told.lines().all(|line| line.contains(&instance)),
        "{told}"
    );
    assert_eq!(of(&["--service", "web"]), of(&["web"]));
    assert_eq!(of(&["--since", "1h"]), of(&[]));
    assert_eq!(of(&["--since", "0s"]), "");
    let refused = running.run(&["events", "--since", "10"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        text(&refused).contains("needs a unit"),
        "{}",
        text(&refused)
    );
}
