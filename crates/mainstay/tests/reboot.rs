//! The machine ends and is started anew: everything comes back in the order of needs, and whoever got
//! one of our old numbers is left alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod running;

use std::fs;
use std::path::Path;
use std::process::Command;

use mainstay_api::wire::InstanceStatus;
use mainstay_model::{Event, EventKind};
use mainstay_testkit::census::{census, start_ticks, variable};
use mainstay_testkit::{Spawned, is_root, program, skip, wait_until};
use running::{MAINSTAY, PATIENCE, Running, kill, processes, python_server, text};
use rustix::process::Signal;
use serde_json::Value;

/// Each needs the next one, against the order of their names.
const NEEDS: [(&str, &str); 3] = [("a", "['b']"), ("b", "['c']"), ("c", "[]")];

/// Services that take some time until they are ready, so that their order can be seen.
fn write_services(running: &Running) -> String {
    let server = running.write("server.py", &python_server("import time; time.sleep(0.3)"));
    let (python, server) = (program("python3"), server.display());
    let service = |(name, needs): &(&str, &str)| {
        format!(
            "[service.{name}]\nexec = ['{}', '-u', '{server}']\nneeds = {needs}\n\
             http = {{ path = '/{name}' }}\nhealth = {{ get = '/', every = '100ms' }}\n\
             rollout = {{ hold = '100ms', deadline = '30s' }}\ngrace = '2s'\n",
            python.display()
        )
    };
    let text: String = NEEDS.iter().map(service).collect();
    let file = running.write("services.toml", &text);
    file.to_str().unwrap().to_owned()
}

/// Ends everything at once, as a machine does.
fn end_all(running: &Running, instances: &[InstanceStatus]) {
    let value = variable(instances[0].pid.unwrap(), "MAINSTAY_MARK");
    let mark = format!("MAINSTAY_MARK={}", value.unwrap());
    let mut all = processes(running.state(), "shim");
    for name in ["server", "agent", "gateway", "broker"] {
        all.extend(processes(running.state(), name));
    }
    all.extend(census(&mark).into_iter().map(|resident| resident.pid));
    running.kill_dev();
    for pid in all {
        kill(pid, Signal::KILL);
    }
    wait_until(PATIENCE, "all has ended", || {
        let left = census(&mark);
        let shims = processes(running.state(), "shim");
        if left.is_empty() && shims.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}, {shims:?}"))
        }
    });
}

/// Gives every process on record the number of another one, with its start time: nothing but the
/// machine's start tells them apart.
fn pass_numbers_on(state: &Path, to: u32) {
    let start = start_ticks(to).unwrap();
    let mut files = vec![state.join("supervisor.json")];
    for directory in ["processes", "run"] {
        let entries = fs::read_dir(state.join(directory)).unwrap();
        for path in entries.map(|entry| entry.unwrap().path()) {
            let shim = path.join("shim.json");
            files.push(if path.is_dir() { shim } else { path });
        }
    }
    for file in files {
        let mut record: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert!(replace_numbers(&mut record, to, start) > 0, "{record}");
        fs::write(&file, record.to_string()).unwrap();
    }
}

fn replace_numbers(record: &mut Value, pid: u32, start: u64) -> usize {
    match record {
        Value::Array(parts) => parts
            .iter_mut()
            .map(|part| replace_numbers(part, pid, start))
            .sum(),
        Value::Object(parts) => {
            let is_identity = parts.contains_key("boot_id");
            if is_identity {
                parts.insert("pid".to_owned(), pid.into());
                parts.insert("start_ticks".to_owned(), start.into());
            }
            let inner = parts.values_mut();
            usize::from(is_identity)
                + inner
                    .map(|part| replace_numbers(part, pid, start))
                    .sum::<usize>()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// `mainstay dev` on a machine that has another boot id: a mount namespace shows it one.
fn dev_after_reboot(running: &Running) -> Spawned {
    let boot = running.write("boot_id", "00000000-0000-4000-8000-000000000001\n");
    let script = format!(
        "{} --bind {} /proc/sys/kernel/random/boot_id && exec \"$@\"",
        program("mount").display(),
        boot.display()
    );
    let mut dev = Command::new(program("unshare"));
    dev.args(["--mount", "--propagation", "private"])
        .arg(program("sh"))
        .args(["-c", &script, "sh", MAINSTAY, "dev"])
        .args(["--entry", "127.0.0.1:0", "--api", "127.0.0.1:0", "--state"])
        .arg(running.state());
    Spawned::start(&running.dir, "second-life", &mut dev)
}

fn events(running: &Running) -> Vec<Event> {
    let output = running.run(&["events", "--json"]);
    let lines = String::from_utf8(output.stdout.clone()).unwrap();
    let events = lines.lines().map(serde_json::from_str);
    events
        .collect::<Result<_, _>>()
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output)))
}

#[test]
fn system_after_a_reboot_all_is_started_again_in_the_order_of_needs_and_no_stranger_is_hit() {
    if !is_root() {
        return skip("needs root: shows a process another boot id");
    }
    let mut running = Running::prepare("reboot");
    let file = write_services(&running);
    running.dev(&[&file]);
    running.wait_until_steady();
    let before = running.instances().unwrap();
    let last = events(&running).last().unwrap().number;
    end_all(&running, &before);
    let mut stranger = Command::new(program("python3"));
    stranger.args(["-c", "import signal; signal.pause()"]);
    let stranger = Spawned::start(&running.dir, "stranger", &mut stranger);
    let number = stranger.pid().as_raw_nonzero().get().unsigned_abs();
    pass_numbers_on(running.state(), number);

    let next = dev_after_reboot(&running);
    wait_until(PATIENCE, "all is ready again", || {
        let log = next.log();
        if log.contains("ready after") {
            Ok(())
        } else {
            Err(log)
        }
    });
    assert!(!next.log().contains("adopting"), "{}", next.log());
    let after = running.instances().unwrap();
    let ids = |instances: &[InstanceStatus]| -> Vec<String> {
        let ids = instances.iter().map(|one| one.instance.to_string());
        ids.collect()
    };
    assert_eq!(ids(&after), ids(&before), "the same instances");
    let second_life = events(&running);
    let second_life = second_life.iter().filter(|event| event.number > last);
    let started: Vec<String> = second_life
        .filter_map(|event| match &event.kind {
            EventKind::InstanceStarted { instance, .. } => Some(instance.service.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(started, ["c", "b", "a"]);
    for instance in &after {
        let exit = instance.last_exit.map(|exit| exit.to_string());
        assert_eq!(exit.as_deref(), Some("ended with the machine"));
    }

    next.signal(Signal::INT);
    next.wait(PATIENCE);
    assert_eq!(stranger.ended(), None);
}
