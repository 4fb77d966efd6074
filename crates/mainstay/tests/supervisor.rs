//! The supervisor: nothing runs twice whenever it is killed, and it says what its user must know.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod running;

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use mainstay_testkit::{Ended, Spawned, TempDir, is_root, program, skip, wait_until};
use running::{MAINSTAY, PATIENCE, Running, kill, processes, python_server};
use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::Signal;

const QUICK: &str = r#"
http = { path = "/" }
health = { get = "/", every = "100ms" }
rollout = { hold = "100ms", deadline = "10s" }
grace = "2s"
"#;

/// The account that owns nothing.
const NOBODY: u32 = 65_534;

/// Starts `mainstay dev` on the directory of `running`, beside or after the one that it has.
fn another_dev(running: &Running, name: &str) -> Spawned {
    let mut dev = Command::new(MAINSTAY);
    dev.args(["dev", "--entry", "127.0.0.1:0", "--api", "127.0.0.1:0"]);
    dev.arg("--state").arg(running.state());
    Spawned::start(&running.dir, name, &mut dev)
}

#[track_caller]
fn wait_for(dev: &Spawned, needle: &str) {
    wait_until(PATIENCE, needle, || {
        let log = dev.log();
        if log.contains(needle) {
            Ok(())
        } else {
            Err(log)
        }
    });
}

/// Kills the supervisor when it has started a process again and has not recorded it yet. The record
/// is written to a pipe, which holds the supervisor until somebody reads, and then cannot be made
/// durable.
fn kill_between_start_and_record(name: &str) {
    let mut running = Running::prepare(&format!("window-{name}"));
    let file = running.write_service(&python_server(""), QUICK);
    running.dev(&[file.to_str().unwrap()]);
    let status = running.wait_until_steady();
    let instances = running.instances().unwrap();
    let [before] = processes(running.state(), name)[..] else {
        panic!("one {name} runs");
    };

    let record = running.state().join("supervisor.json.tmp");
    mkfifoat(CWD, &record, Mode::RUSR | Mode::WUSR).unwrap();
    kill(before, Signal::KILL);
    // The end of the process is recorded before its next start.
    fs::read(&record).unwrap();
    let started = wait_until(PATIENCE, "it is started again", || {
        match processes(running.state(), name)[..] {
            [now] if now != before => Ok(now),
            ref other => Err(format!("{other:?}")),
        }
    });
    let supervisor = running.spawned().pid().as_raw_nonzero().get();
    kill(supervisor.unsigned_abs(), Signal::KILL);
    assert_eq!(running.spawned().wait(PATIENCE), Ended::Signal(9));
    assert_ne!(
        running.own_process(name),
        Some(started),
        "it is not recorded"
    );
    fs::remove_file(&record).unwrap();

    let next = another_dev(&running, "next");
    wait_for(&next, "adopting 4 processes");
    wait_for(&next, "ready after");
    assert_eq!(running.own_process(name), Some(started));
    for name in ["server", "agent", "gateway", "broker"] {
        assert_eq!(processes(running.state(), name).len(), 1, "{name}");
    }
    assert_eq!(Running::get(&status, "/").0, 200);
    // A control centre that was just started hears of it from the agent.
    wait_until(PATIENCE, "the same instance goes on", || {
        let pid = running.instances()?[0].pid;
        if pid == instances[0].pid {
            Ok(())
        } else {
            Err(format!("{pid:?}"))
        }
    });
    next.signal(Signal::INT);
    assert_eq!(next.wait(PATIENCE), Ended::Code(0), "{}", next.log());
    for name in ["server", "agent", "gateway", "broker"] {
        assert_eq!(processes(running.state(), name), [0; 0], "{name}");
    }
}

#[test]
fn system_no_second_control_centre_runs_after_a_kill_between_its_start_and_the_record() {
    kill_between_start_and_record("server");
}

#[test]
fn system_no_second_agent_runs_after_a_kill_between_its_start_and_the_record() {
    kill_between_start_and_record("agent");
}

#[test]
fn system_no_second_gateway_runs_after_a_kill_between_its_start_and_the_record() {
    kill_between_start_and_record("gateway");
}

#[test]
fn system_why_a_process_does_not_start_is_told_once_where_the_user_looks() {
    let mut running = Running::prepare("forgotten");
    let run = running.state().join("run");
    fs::create_dir_all(run.join("web-1")).unwrap();
    running.dev(&[]);
    let ends = |log: &str| log.matches("the server ended").count();
    wait_until(
        PATIENCE,
        "the control centre has failed three times",
        || {
            let log = running.spawned().log();
            if ends(&log) >= 3 { Ok(()) } else { Err(log) }
        },
    );
    let log = running.spawned().log();
    let state = running.state().join("control").join("state.db");
    let (state, run) = (state.display(), run.display());
    let reason =
        format!("state database `{state}` is missing although `{run}` names instances (web-1)");
    assert_eq!(log.matches(&reason).count(), 1, "{log}");
    assert!(log.contains("put the file back"), "{log}");
    // Nobody answers the wish to stop the instances; a second one does not wait for that.
    running.spawned().signal(Signal::INT);
    running.wait_for_output("stopping: ");
    let (ended, log) = running.stop();
    assert_eq!(ended, Ended::Code(0), "{log}");
}

/// The program at a path that everyone may execute.
fn program_for_all(dir: &TempDir) -> std::path::PathBuf {
    let path = dir.join("mainstay");
    fs::hard_link(MAINSTAY, &path)
        .or_else(|_| fs::copy(MAINSTAY, &path).map(drop))
        .unwrap();
    path
}

/// What `dev` prints, without services, from its start to its end.
fn output_of_dev(dir: &TempDir, mut dev: Command, state: &Path) -> String {
    dev.args(["dev", "--entry", "127.0.0.1:0", "--api", "127.0.0.1:0"]);
    dev.arg("--state").arg(state).current_dir(dir.path());
    let dev = Spawned::start(dir, "dev", &mut dev);
    wait_for(&dev, "entry  http://");
    dev.signal(Signal::INT);
    assert_eq!(dev.wait(PATIENCE), Ended::Code(0), "{}", dev.log());
    dev.log()
}

#[test]
fn system_an_ordinary_user_is_told_once_what_is_switched_off_and_what_happens_instead() {
    let dir = TempDir::new("ordinary");
    let home = dir.join("home");
    fs::create_dir(&home).unwrap();
    let mainstay = program_for_all(&dir);
    let mut dev = if is_root() {
        chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
        let mut dev = Command::new(program("setpriv"));
        let nobody = NOBODY.to_string();
        dev.args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups"]);
        dev.arg(mainstay);
        dev
    } else {
        Command::new(mainstay)
    };
    dev.env("HOME", &home);
    let said = output_of_dev(&dir, dev, &home.join("state"));
    for part in [
        "not root",
        "no cgroups",
        "process group",
        "environment",
        "`user`",
        "yourself",
    ] {
        assert_eq!(said.matches(part).count(), 1, "`{part}` in:\n{said}");
    }
}

#[test]
fn system_root_is_not_told_what_only_others_miss() {
    if !is_root() {
        return skip("needs root: that is what it is about");
    }
    let dir = TempDir::new("root");
    let said = output_of_dev(&dir, Command::new(MAINSTAY), &dir.join("state"));
    for part in ["not root", "cgroup", "`user`"] {
        assert!(!said.contains(part), "`{part}` in:\n{said}");
    }
}

/// Takes two seconds from SIGTERM to its end.
const STUBBORN: &str = "signal.signal(signal.SIGTERM, signal.SIG_IGN)";

#[test]
fn system_a_control_centre_that_is_killed_in_a_stop_of_everything_starts_nothing_again() {
    let mut running = Running::prepare("stop-killed");
    let file = running.write_service(&python_server(STUBBORN), QUICK);
    running.dev(&[file.to_str().unwrap()]);
    running.wait_until_steady();
    running.spawned().signal(Signal::INT);
    running.wait_for_output("instances left");
    let [server] = processes(running.state(), "server")[..] else {
        panic!("one control centre runs");
    };
    kill(server, Signal::KILL);
    let ended = running.spawned().wait(PATIENCE);
    let log = running.spawned().log();
    assert_eq!(ended, Ended::Code(0), "{log}");
    assert!(log.contains("the server ended"), "{log}");
    let logs = fs::read_dir(running.state().join("logs")).unwrap();
    let logs: Vec<_> = logs.map(|entry| entry.unwrap().file_name()).collect();
    let of_instances = logs
        .iter()
        .filter(|name| name.to_string_lossy().starts_with("web-"));
    assert_eq!(of_instances.count(), 1, "{logs:?}");
    let output = fs::read_to_string(running.state().join("logs/web-1.log")).unwrap();
    assert_eq!(output.matches(" started at ").count(), 1, "{output}");
    // What was declared comes back with the next start.
    running.dev(&[]);
    running.wait_until_steady();
}

#[test]
fn system_ctrl_c_without_a_control_centre_says_what_it_waits_for_and_does_not_wait_long() {
    let mut running = Running::prepare("no-centre");
    let file = running.write_service(&python_server(""), QUICK);
    running.dev(&[file.to_str().unwrap()]);
    running.wait_until_steady();
    let pid = running.instances().unwrap()[0].pid.unwrap();
    let state = running.state().join("control").join("state.db");
    fs::write(&state, "nonsense".repeat(1000)).unwrap();
    // The newest commits are there, and may be all that it needs.
    fs::remove_file(state.with_extension("db-wal")).unwrap();
    let [server] = processes(running.state(), "server")[..] else {
        panic!("one control centre runs");
    };
    kill(server, Signal::KILL);
    running.wait_for_output("its last words");
    let began = Instant::now();
    let (ended, log) = running.stop();
    let took = began.elapsed();
    assert_eq!(ended, Ended::Code(0), "{log}");
    assert!(log.contains("waiting for the control centre"), "{log}");
    assert!(log.contains("did not answer within 3s"), "{log}");
    // Ten are what one call may take; the agent and the gateway need a moment, too.
    assert!(took < Duration::from_secs(7), "{took:?}\n{log}");
    // Killed with its shim, it is init's to reap.
    wait_until(PATIENCE, "the instance is gone", || {
        if Path::new("/proc").join(pid.to_string()).exists() {
            Err(log.clone())
        } else {
            Ok(())
        }
    });
}
