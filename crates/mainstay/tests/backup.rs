//! `backup` and `restore` as a user types them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod running;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mainstay_api::wire::Status;
use mainstay_testkit::{Ended, Spawned, wait_until};
use running::{MAINSTAY, PATIENCE, Running, python_server, text};
use rustix::process::Signal;
use serde_json::Value;

#[derive(serde::Deserialize)]
struct Restored {
    services: Option<usize>,
    epoch: Option<u64>,
    messages: Option<u64>,
    kept: Vec<String>,
}

/// A path in the test's own directory, as text.
fn path_in(running: &Running, name: &str) -> String {
    running.dir.join(name).to_str().unwrap().to_owned()
}

/// What a command that works says.
#[track_caller]
fn done(running: &Running, arguments: &[&str]) -> String {
    let output = running.run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    text(&output)
}

/// What one says that ends with `code`.
#[track_caller]
fn fails(running: &Running, code: i32, arguments: &[&str]) -> String {
    let output = running.run(arguments);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    said
}

/// Waits until the broker answers.
#[track_caller]
fn wait_for_queues(running: &Running) {
    wait_until(PATIENCE, "the broker answers", || {
        let output = running.run(&["queue", "ls"]);
        output.status.success().then_some(()).ok_or(text(&output))
    });
}

/// Declares a queue with this many messages.
fn fill(running: &Running, queue: &str, messages: usize) {
    wait_for_queues(running);
    done(running, &["queue", "declare", queue]);
    for number in 0..messages {
        let body = format!("message {number}");
        done(running, &["queue", "publish", queue, "--body", &body]);
    }
}

fn ready(running: &Running, queue: &str) -> Option<u64> {
    let queues: Value = running.json(&["queue", "ls"]).ok()?;
    let mut queues = queues.as_array()?.iter();
    queues.find(|one| one["name"] == queue)?["ready"].as_u64()
}

/// Changes a byte in the middle of a file.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// The segments of a backup.
fn segments(backup: &str) -> Vec<PathBuf> {
    let entries = Path::new(backup).join("broker").read_dir().unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn system_what_was_backed_up_comes_back_and_serves_again() {
    let mut running = Running::prepare("backup");
    let file = running.write_service(&python_server(""), "http = { path = \"/\" }\ninstances = 2");
    running.dev(&[file.to_str().unwrap()]);
    running.wait_until_steady();
    fill(&running, "work", 3);
    let copy = &path_in(&running, "copy");
    let made: Value = running.json(&["backup", copy]).expect("is JSON");
    assert_eq!(
        (made["services"].as_u64(), made["backup"].as_str()),
        (Some(1), Some(&**copy))
    );
    assert_eq!(made["broker"]["messages"], 3);
    assert!(fails(&running, 2, &["backup", copy]).contains("replaces nothing"));
    assert!(fails(&running, 2, &["restore", copy]).contains("Ctrl-C"));
    let within = running.state().join("copy");
    let said = fails(&running, 2, &["backup", within.to_str().unwrap()]);
    assert!(said.contains("lost with it"), "{said}");
    let nowhere = path_in(&running, "not/mounted");
    let said = fails(&running, 2, &["backup", &nowhere]);
    assert!(said.contains("mounted?"), "{said}");
    let before: Status = running.json(&["status"]).expect("is JSON");

    done(&running, &["down", "--all"]);
    // What comes later is not in it.
    done(&running, &["queue", "consume", "work"]);
    let (ended, log) = running.stop();
    assert_eq!(ended, Ended::Code(0), "{log}");

    let damaged = running.write("damaged.db", &"no database ".repeat(999));
    fails(&running, 2, &["restore", damaged.to_str().unwrap()]);
    let restored: Restored = running.json(&["restore", copy]).expect("is JSON");
    assert_eq!((restored.services, restored.messages), (Some(1), Some(3)));
    assert!(restored.epoch.unwrap() >= before.generation.epoch.0);
    assert_eq!(restored.kept.len(), 2, "state and messages before are kept");
    assert!(restored.kept.iter().all(|kept| fs::exists(kept).unwrap()));

    running.dev(&[]);
    let status = running.wait_until_steady();
    assert!(status.generation > before.generation);
    assert_eq!(Running::get(&status, "/").0, 200);
    assert!(done(&running, &["queue", "peek", "work"]).contains("message 0"));
    assert_eq!(ready(&running, "work"), Some(3));
    let (ended, log) = running.stop();
    assert_eq!(ended, Ended::Code(0), "{log}");
    // Without processes it comes from the directory.
    let offline = path_in(&running, "offline");
    let made: Value = running.json(&["backup", &offline]).expect("is JSON");
    assert_eq!(made["broker"]["messages"], 3);
    let elsewhere = path_in(&running, "nothing");
    let mut empty = Command::new(MAINSTAY);
    let empty = empty
        .args(["backup", "--state", &elsewhere])
        .output()
        .unwrap();
    assert_eq!(empty.status.code(), Some(2), "{}", text(&empty));
}

#[test]
fn system_what_is_no_whole_backup_is_found_by_verify_and_not_restored() {
    let mut running = Running::prepare("backup-verify");
    running.dev(&[]);
    fill(&running, "work", 5);
    let copy = &path_in(&running, "mainstay-backup-one");
    done(&running, &["backup", copy]);
    let said = done(&running, &["backup", "verify", copy]);
    assert!(said.contains("1 queues with 5 messages"), "{said}");
    let place = &path_in(&running, "");
    assert!(done(&running, &["backup", "ls", place]).contains("mainstay-backup-one"));
    let (ended, log) = running.stop();
    assert_eq!(ended, Ended::Code(0), "{log}");

    let manifest = Path::new(copy).join("manifest.json");
    let whole = fs::read_to_string(&manifest).unwrap();
    let newer = whole.replace("\"format\": 1", "\"format\": 2");
    fs::write(&manifest, newer).unwrap();
    assert!(fails(&running, 2, &["restore", copy]).contains("the mainstay that made it"));
    let wrong = whole.replace("\"messages\": 5", "\"messages\": 6");
    fs::write(&manifest, wrong).unwrap();
    assert!(fails(&running, 1, &["backup", "verify", copy]).contains("manifest says"));
    assert!(fails(&running, 1, &["restore", copy]).contains("manifest says"));
    fs::write(&manifest, &whole).unwrap();

    let segment = &segments(copy)[0];
    let content = fs::read(segment).unwrap();
    damage(segment);
    assert!(fails(&running, 1, &["backup", "verify", copy]).contains("checksum"));
    assert!(fails(&running, 1, &["restore", copy]).contains("checksum"));
    fs::write(segment, &content[1..]).unwrap();
    assert!(fails(&running, 1, &["backup", "verify", copy]).contains("bytes, and had"));
    fs::remove_file(segment).unwrap();
    assert!(fails(&running, 1, &["backup", "verify", copy]).contains("is missing"));
    fs::write(segment, &content).unwrap();
    fs::write(Path::new(copy).join("stray"), "").unwrap();
    assert!(fails(&running, 1, &["backup", "verify", copy]).contains("not in its manifest"));
    fs::remove_file(Path::new(copy).join("stray")).unwrap();
    // None of it has changed anything.
    assert!(!running.state().join("restore.next").exists());
    running.dev(&[]);
    wait_for_queues(&running);
    assert_eq!(ready(&running, "work"), Some(5));
    let _ = running.stop();

    fs::write(Path::new(copy).join("unfinished"), "").unwrap();
    assert!(fails(&running, 2, &["restore", copy]).contains("half a backup"));
    assert!(done(&running, &["backup", "ls", place]).contains("half a backup"));
    fs::remove_file(Path::new(copy).join("unfinished")).unwrap();
    // A broker that nobody supervises has its directory.
    running.dev(&[]);
    wait_for_queues(&running);
    running.kill_dev();
    assert!(fails(&running, 2, &["restore", copy]).contains("broker runs on"));
    running.dev(&[]);
    wait_for_queues(&running);
    let _ = running.stop();
    done(&running, &["restore", copy]);
}

/// A publisher that writes down what was confirmed, a number a line, until it is cut off.
const PUBLISHER: &str = r#"
import pika, sys
connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", int(sys.argv[1])))
channel = connection.channel()
channel.confirm_delivery()
channel.queue_declare("work", durable=True)
number = 0
while True:
    number += 1
    channel.basic_publish("", "work", b"%d" % number, pika.BasicProperties(delivery_mode=2))
    print(number, flush=True)
"#;

#[test]
fn system_a_data_directory_that_is_deleted_under_load_comes_back_as_it_was_backed_up() {
    let mut running = Running::prepare("backup-deleted");
    running.dev(&[]);
    let port = port_of(&running);
    let script = running.write("publish.py", PUBLISHER);
    // Named here, so that it is installed: the script imports it.
    assert!(mainstay_testkit::program("/usr/lib/python3/dist-packages/pika/__init__.py").exists());
    let mut python = Command::new(mainstay_testkit::program("/usr/bin/python3"));
    python.arg("-u").arg(&script).arg(&port);
    let publisher = Spawned::start(&running.dir, "publisher", &mut python);
    let confirmed = || {
        publisher
            .log()
            .lines()
            .filter_map(|line| line.parse().ok())
            .max()
    };
    let wait_for = |more: u64| {
        wait_until(PATIENCE, "more is confirmed", || match confirmed() {
            Some(confirmed) if confirmed >= more => Ok(confirmed),
            _ => Err(publisher.log()),
        })
    };
    let before = wait_for(200);
    let copy = &path_in(&running, "copy");
    let made: Value = running.json(&["backup", copy]).expect("is JSON");
    let after = confirmed().unwrap();
    let messages = made["broker"]["messages"].as_u64().unwrap();
    // One may be on disk whose confirm was not read yet.
    assert!(
        (before..=after + 1).contains(&messages),
        "{before} {messages} {after}"
    );
    wait_for(after + 100);
    fs::remove_dir_all(running.state()).unwrap();
    // Nobody looks after processes whose directory is gone: they are ended, as somebody would.
    for name in ["server", "broker", "agent", "gateway"] {
        for pid in running::processes(running.state(), name) {
            running::kill(pid, Signal::KILL);
        }
    }
    running.kill_dev();
    let restored: Restored = running.json(&["restore", copy]).expect("is JSON");
    assert_eq!(
        (restored.messages, restored.kept.len()),
        (Some(messages), 0)
    );
    running.dev(&[]);
    wait_for_queues(&running);
    assert_eq!(ready(&running, "work"), Some(messages));
    let taken: Value = running
        .json(&["queue", "consume", "work", "--count", "1000000"])
        .unwrap();
    let taken = taken.as_array().unwrap().iter();
    let numbers: Vec<u64> = taken
        .map(|message| message["text"].as_str().unwrap().parse().unwrap())
        .collect();
    assert_eq!(numbers, (1..=messages).collect::<Vec<_>>());
}

/// Starts a command that is to be met in the middle.
fn start(running: &Running, arguments: &[&str]) -> Spawned {
    let mut command = Command::new(MAINSTAY);
    command.args(arguments).arg("--state").arg(running.state());
    Spawned::start(&running.dir, arguments[0], &mut command)
}

#[test]
fn system_a_backup_that_is_killed_is_refused_and_swept_and_a_restore_that_is_killed_is_done_again()
{
    let mut running = Running::prepare("backup-killed");
    running.dev(&[]);
    fill(&running, "work", 2);
    // Long enough that it can be met in the middle.
    let body = running.write("body", &"x".repeat(8 * 1024 * 1024));
    for _ in 0..6 {
        let mut publish = Command::new(MAINSTAY);
        publish.args(["queue", "publish", "work", "--state"]);
        publish.arg(running.state());
        publish.stdin(fs::File::open(&body).unwrap());
        assert!(publish.output().unwrap().status.success());
    }
    let copy = path_in(&running, "copy");
    let part = PathBuf::from(format!("{copy}.part"));
    let killed = start(&running, &["backup", &copy]);
    wait_until(PATIENCE, "the broker copies", || {
        let begun = part.join("broker").exists();
        begun.then_some(()).ok_or_else(|| killed.log())
    });
    killed.signal(Signal::KILL);
    killed.wait(PATIENCE);
    assert!(!Path::new(&copy).exists());
    let said = fails(&running, 2, &["restore", part.to_str().unwrap()]);
    assert!(said.contains("half a backup"), "{said}");
    wait_until(PATIENCE, "the broker breaks off", || {
        let stays = part.join("broker").exists();
        (!stays).then_some(()).ok_or_else(|| killed.log())
    });
    let made: Value = running.json(&["backup", &copy]).expect("is JSON");
    assert_eq!(made["broker"]["messages"], 8);
    assert!(!part.exists());

    let (ended, log) = running.stop();
    assert_eq!(ended, Ended::Code(0), "{log}");
    fs::remove_dir_all(running.state()).unwrap();
    let next = running.state().join("restore.next");
    let killed = start(&running, &["restore", &copy]);
    wait_until(PATIENCE, "it is made ready", || {
        next.exists().then_some(()).ok_or_else(|| killed.log())
    });
    killed.signal(Signal::KILL);
    killed.wait(PATIENCE);
    assert!(
        !running.state().join("broker/log").exists(),
        "nothing is in place yet"
    );
    // As one that is met between its two parts.
    fs::write(running.state().join("restore.unfinished"), "").unwrap();
    let said = fails(&running, 2, &["dev", "--broker", "127.0.0.1:0"]);
    assert!(
        said.contains("run the same `mainstay restore` again"),
        "{said}"
    );
    let restored: Restored = running.json(&["restore", &copy]).expect("is JSON");
    assert_eq!(restored.messages, Some(8));
    assert!(!next.exists());
    running.dev(&[]);
    wait_for_queues(&running);
    assert_eq!(ready(&running, "work"), Some(8));
}

/// Publishes so many messages of 16 KiB.
const FILLER: &str = r#"
import pika, sys
connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", int(sys.argv[1])))
channel = connection.channel()
channel.queue_declare("work", durable=True)
body = b"." * 16384
for _ in range(int(sys.argv[2])):
    channel.basic_publish("", "work", body, pika.BasicProperties(delivery_mode=2))
channel.confirm_delivery()
channel.basic_publish("", "work", b"last", pika.BasicProperties(delivery_mode=2))
"#;

/// `MIB=1024 cargo nextest run --release -p mainstay --test backup within_a_minute --no-capture` is the full size.
#[test]
fn system_a_backup_is_restored_into_an_empty_directory_within_a_minute() {
    let mib = std::env::var("MIB").ok().and_then(|mib| mib.parse().ok());
    let messages = mib.unwrap_or(32_u64) * 64;
    let mut running = Running::prepare("backup-minute");
    running.dev(&[]);
    let port = port_of(&running);
    let script = running.write("fill.py", FILLER);
    assert!(mainstay_testkit::program("/usr/lib/python3/dist-packages/pika/__init__.py").exists());
    let mut python = Command::new(mainstay_testkit::program("/usr/bin/python3"));
    python.arg(&script).arg(&port).arg(messages.to_string());
    let filled = python.output().unwrap();
    assert!(filled.status.success(), "{}", text(&filled));
    let copy = &path_in(&running, "copy");
    let since = Instant::now();
    let made: Value = running.json(&["backup", copy]).expect("is JSON");
    println!("backup of {} bytes: {:?}", made["bytes"], since.elapsed());
    let _ = running.stop();
    fs::remove_dir_all(running.state()).unwrap();
    let since = Instant::now();
    let restored: Restored = running.json(&["restore", copy]).expect("is JSON");
    let took = since.elapsed();
    println!("restore: {took:?}");
    assert_eq!(restored.messages, Some(messages + 1));
    assert!(took < Duration::from_mins(1), "{took:?}");
    running.dev(&[]);
    wait_for_queues(&running);
    println!("restored and served: {:?}", since.elapsed());
    assert_eq!(ready(&running, "work"), Some(messages + 1));
}

/// The port of the broker of `dev`.
fn port_of(running: &Running) -> String {
    wait_for_queues(running);
    let said = running.spawned().log();
    let line = said.lines().find_map(|line| line.split_once("amqp://"));
    let address = line.expect("it was said").1;
    address.rsplit_once(':').unwrap().1.trim().to_owned()
}

/// The backups in a directory.
fn backups(directory: &Path) -> Vec<String> {
    let entries = directory.read_dir().unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !name.ends_with(".part")).collect();
    names.sort();
    names
}

#[test]
fn system_backups_are_made_by_themselves_and_a_missing_disk_is_an_alarm() {
    let mut running = Running::prepare("backup-every");
    let to = running.dir.join("backups");
    fs::create_dir(&to).unwrap();
    let node = |to: &Path| {
        let to = to.display();
        let backup =
            format!("[broker]\nbind = '[::1]:0'\n[backup]\nevery = '10s'\nkeep = 2\nto = '{to}'");
        running.write_node("['control', 'broker']", &backup)
    };
    let file = node(&to);
    // Somebody's own is never removed.
    fs::create_dir(to.join("mainstay-backup-20000101T000000Z")).unwrap();
    fs::write(to.join("mainstay-backup-20000101T000000Z/mine"), "").unwrap();
    running.node(&file, &[]);
    let first = wait_until(PATIENCE, "the first backup", || {
        let made = backups(&to);
        let seen = format!("{made:?} {}", running.spawned().log());
        made.get(1).cloned().ok_or(seen)
    });
    let status = || -> Result<Value, String> { running.json(&["status"]) };
    let whole = wait_until(PATIENCE, "its age is shown", || {
        let status = status()?;
        let is_fine = status["backup"]["age_ms"].is_u64();
        is_fine.then(|| status.clone()).ok_or(status.to_string())
    });
    assert_eq!(whole["backup"]["standing"], "fine");
    done(
        &running,
        &["backup", "verify", to.join(&first).to_str().unwrap()],
    );
    assert!(done(&running, &["status"]).contains("backup    "));
    assert!(done(&running, &["backup", "ls"]).contains(&first));
    wait_until(
        PATIENCE,
        "the first is removed when there are two newer",
        || {
            let made = backups(&to);
            let gone = !made.contains(&first);
            gone.then_some(()).ok_or_else(|| format!("{made:?}"))
        },
    );
    let made = backups(&to);
    assert!(
        made.len() <= 3 && made[0] == "mainstay-backup-20000101T000000Z",
        "{made:?}"
    );

    let away = lose_the_disk(&running, &to);
    fs::rename(&away, &to).unwrap();
    wait_until(PATIENCE, "all is well again", || {
        let status = status()?;
        let is_fine = status["backup"]["standing"] == "fine";
        is_fine.then_some(()).ok_or(status.to_string())
    });
    // Taken out of the file, nothing of it is shown any more.
    running.write_node("['control', 'broker']", "[broker]\nbind = '[::1]:0'");
    wait_until(PATIENCE, "none are made any more", || {
        let status = status()?;
        let is_gone = status["backup"].is_null();
        is_gone.then_some(()).ok_or(status.to_string())
    });
}

fn status_of(running: &Running) -> Result<Value, String> {
    running.json(&["status"])
}

/// The disk is not there any more: waits for all that tells it, and gives where it went.
fn lose_the_disk(running: &Running, to: &Path) -> PathBuf {
    let away = running.dir.join("away");
    fs::rename(to, &away).unwrap();
    let failed = wait_until(PATIENCE, "the alarm", || {
        let status = status_of(running)?;
        let standing = status["backup"]["standing"].clone();
        let alarm = standing == "failed" || standing == "late";
        alarm.then(|| status.clone()).ok_or(status.to_string())
    });
    let why = failed["backup"]["failed"]["why"].as_str().unwrap();
    assert!(
        why.contains("no directory") && why.contains("backups"),
        "{why}"
    );
    assert!(fails(running, 1, &["status"]).contains("FAILED"));
    wait_until(PATIENCE, "an event tells it", || {
        let events = done(running, &["events"]);
        let told = events.contains("backup: FAILED");
        told.then_some(()).ok_or(events)
    });
    away
}
