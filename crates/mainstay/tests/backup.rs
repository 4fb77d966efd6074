//! `backup` and `restore` as a user types them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod running;

use std::fs;

use mainstay_api::wire::Status;
use mainstay_testkit::Ended;
use running::{Running, python_server, text};

#[derive(serde::Deserialize)]
struct Made {
    file: String,
    bytes: u64,
}

#[derive(serde::Deserialize)]
struct Restored {
    services: usize,
    epoch: u64,
    kept: Option<String>,
}

#[test]
fn system_what_was_backed_up_comes_back_and_serves_again() {
    let mut running = Running::prepare("backup");
    let file = running.write_service(&python_server(""), "http = { path = \"/\" }\ninstances = 2");
    running.dev(&[file.to_str().unwrap()]);
    running.wait_until_steady();
    let copy = running.write("copy.db", "");
    fs::remove_file(&copy).unwrap();
    let copy = copy.to_str().unwrap();

    let made: Made = running.json(&["backup", copy]).expect("is JSON");
    assert_eq!(
        (made.file.as_str(), made.bytes),
        (copy, fs::metadata(copy).unwrap().len())
    );
    let again = running.run(&["backup", copy]);
    assert_eq!(again.status.code(), Some(2), "{}", text(&again));
    let refused = running.run(&["restore", copy]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).contains("Ctrl-C"), "{}", text(&refused));
    let before: Status = running.json(&["status"]).expect("is JSON");

    let down = running.run(&["down", "--all"]);
    assert_eq!(down.status.code(), Some(0), "{}", text(&down));
    let (ended, log) = running.stop();
    assert_eq!(ended, Ended::Code(0), "{log}");

    let damaged = running.write("damaged.db", &"no database ".repeat(999));
    let refused = running.run(&["restore", damaged.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    let restored: Restored = running.json(&["restore", copy]).expect("is JSON");
    assert_eq!(restored.services, 1);
    assert!(restored.epoch >= before.generation.epoch.0);
    assert!(fs::exists(restored.kept.expect("the state before is kept")).unwrap());

    running.dev(&[]);
    let status = running.wait_until_steady();
    assert!(status.generation > before.generation);
    assert_eq!(Running::get(&status, "/").0, 200);
    let (ended, log) = running.stop();
    assert_eq!(ended, Ended::Code(0), "{log}");
    // Without a control centre it comes from the directory.
    let offline = running.write("offline.db", "");
    fs::remove_file(&offline).unwrap();
    let made: Made = running
        .json(&["backup", offline.to_str().unwrap()])
        .expect("is JSON");
    assert!(made.bytes > 0);
}
