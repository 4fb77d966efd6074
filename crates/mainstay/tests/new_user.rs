//! What a new user runs into, each with a clear message.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod running;

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use mainstay_api::wire::InstanceState;
use mainstay_testkit::{Ended, is_root, program, skip, wait_until};
use running::{MAINSTAY, PATIENCE, Running, kill, python_server, text};
use rustix::process::Signal;

const QUICK: &str = r#"
http = { path = "/" }
health = { get = "/", every = "100ms" }
rollout = { hold = "100ms", deadline = "10s" }
grace = "2s"
"#;

#[test]
fn system_a_typo_is_told_with_its_place_and_what_was_meant() {
    let running = Running::prepare("typo");
    let file = running.write_service("", "instnaces = 3\nhealth = { get = \"/\", evry = \"1s\" }");
    let output = running.run(&["validate", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let text = text(&output);
    for part in [
        "services.toml",
        "3:1",
        "instnaces",
        "instances",
        "4:23",
        "evry",
        "every",
    ] {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

#[test]
fn system_a_service_is_reached_through_the_gateway_and_stopped_by_ctrl_c() {
    let mut running = Running::prepare("first");
    let file = running.write_service(&python_server(""), QUICK);
    running.dev(&[file.to_str().unwrap()]);
    let status = running.wait_until_steady();
    let (code, body) = Running::get(&status, "/");
    assert_eq!((code, body.as_str()), (200, "web-1\n"));
    let pid = running.instances().unwrap()[0].pid.unwrap();
    let (ended, log) = running.stop();
    assert_eq!(ended, Ended::Code(0), "{log}");
    assert!(!is_there(pid), "{log}");
    assert!(!running.state().join("api.sock").exists());
}

#[test]
fn system_a_port_in_use_is_told_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let running = Running::prepare("port");
    let output = running.run(&["dev", "--entry", &address, "--api", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(5));
    let text = text(&output);
    for part in [
        &address,
        "cannot listen",
        "another program listens there",
        "--entry",
    ] {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

#[test]
fn system_a_service_address_in_use_is_told_and_taken_once_it_is_free() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut running = Running::prepare("address");
    let address = format!("address = \"{}\"\n{QUICK}", taken.local_addr().unwrap());
    let file = running.write_service(&python_server(""), &address);
    running.dev(&[file.to_str().unwrap()]);
    running.wait_for_output("another program listens there");
    let status = running.run(&["status"]);
    assert_eq!(status.status.code(), Some(1), "{}", text(&status));
    assert!(
        text(&status).contains("in use by another program"),
        "{}",
        text(&status)
    );
    drop(taken);
    running.wait_until_steady();
    running.wait_for_output("as wanted");
}

#[test]
fn system_a_program_that_does_not_exist_fails_the_rollout_with_that_reason() {
    let mut running = Running::prepare("no-program");
    running.dev(&[]);
    let file = running.write(
        "services.toml",
        "[service.web]\nexec = [\"/nowhere/at-all\"]\n",
    );
    let output = up_when_reachable(&running, file.to_str().unwrap());
    assert_eq!(output.status.code(), Some(1));
    let text = text(&output);
    assert!(text.contains("the program does not exist"), "{text}");
}

#[test]
fn system_a_program_that_exits_at_once_fails_the_rollout_and_is_tried_again() {
    let mut running = Running::prepare("exits");
    running.dev(&[]);
    let file = running.write_service("import sys\nprint('no database')\nsys.exit(3)\n", QUICK);
    let output = up_when_reachable(&running, file.to_str().unwrap());
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    assert!(said.contains("exited with code 3"), "{said}");
    running.wait_for_state(InstanceState::CrashLooping);
    let logs = text(&running.run(&["logs", "web"]));
    assert!(logs.contains("no database"), "{logs}");
    // Mended, it becomes what was wanted.
    running.write_service(&python_server(""), QUICK);
    let output = running.run(&["up", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[test]
fn system_a_program_that_never_gets_healthy_fails_at_its_deadline() {
    let mut running = Running::prepare("unhealthy");
    running.dev(&[]);
    let keys = QUICK
        .replace("get = \"/\"", "get = \"/missing\"")
        .replace("10s", "1500ms");
    let server = python_server("").replace(
        "def do_GET(self):",
        "def do_GET(self):\n        if self.path != '/':\n            return self.send_error(404)",
    );
    let file = running.write_service(&server, &keys);
    let output = up_when_reachable(&running, file.to_str().unwrap());
    assert_eq!(output.status.code(), Some(1));
    let text = text(&output);
    assert!(text.contains("was not ready within 1500 ms"), "{text}");
    assert!(text.contains("answered with status 404"), "{text}");
}

#[test]
fn system_a_program_that_ignores_sigterm_is_killed_after_its_grace() {
    let mut running = Running::prepare("stubborn");
    let server = python_server("signal.signal(signal.SIGTERM, signal.SIG_IGN)");
    let file = running.write_service(&server, QUICK);
    running.dev(&[file.to_str().unwrap()]);
    running.wait_until_steady();
    let began = Instant::now();
    let output = running.run(&["down", "web"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(
        began.elapsed() >= Duration::from_secs(2),
        "its grace of 2 s was not given"
    );
    assert!(
        text(&output).contains("ended by signal 9"),
        "{}",
        text(&output)
    );
}

#[test]
fn system_a_second_ctrl_c_leaves_nothing_behind_though_an_instance_ignores_sigterm() {
    let mut running = Running::prepare("impatient");
    let server = python_server("signal.signal(signal.SIGTERM, signal.SIG_IGN)");
    let file = running.write_service(&server, &QUICK.replace("2s", "10m"));
    running.dev(&[file.to_str().unwrap()]);
    running.wait_until_steady();
    let pid = running.instances().unwrap()[0].pid.unwrap();
    running.spawned().signal(Signal::INT);
    running.wait_for_output("instances left");
    let (ended, log) = running.stop();
    assert_eq!(ended, Ended::Code(0), "{log}");
    assert!(!is_there(pid), "{log}");
    // What was declared comes back with the next start.
    running.dev(&[]);
    running.wait_until_steady();
}

#[test]
fn system_ctrl_c_leaves_nothing_behind_when_the_state_directory_is_gone() {
    let mut running = Running::prepare("no-state");
    let file = running.write_service(&python_server(""), QUICK);
    running.dev(&[file.to_str().unwrap()]);
    running.wait_until_steady();
    let pid = running.instances().unwrap()[0].pid.unwrap();
    std::fs::remove_dir_all(running.state()).unwrap();
    let (ended, log) = running.stop();
    assert_eq!(ended, Ended::Code(5), "{log}");
    // Killed with its shim, it is init's to reap.
    wait_until(PATIENCE, "the instance is gone", || {
        if is_there(pid) {
            Err(log.clone())
        } else {
            Ok(())
        }
    });
}

#[test]
fn system_the_end_of_its_terminal_ends_dev_as_ctrl_c_does() {
    let mut running = Running::prepare("hangup");
    let file = running.write_service(&python_server(""), QUICK);
    running.dev(&[file.to_str().unwrap()]);
    running.wait_until_steady();
    let pid = running.instances().unwrap()[0].pid.unwrap();
    running.spawned().signal(Signal::HUP);
    let ended = running.spawned().wait(PATIENCE);
    assert_eq!(ended, Ended::Code(0), "{}", running.spawned().log());
    assert!(!is_there(pid));
}

#[test]
fn system_a_reader_that_goes_away_ends_a_command_quietly() {
    let running = Running::prepare("head");
    for arguments in [
        &["schema"][..],
        &["completions", "fish"],
        &["completions", "bash"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(MAINSTAY)
            .args(arguments)
            .stdout(writer)
            .stderr(std::process::Stdio::piped())
            .output()
            .unwrap();
        let said = text(&output);
        assert_eq!((output.status.code(), said.as_str()), (Some(5), ""));
    }
    drop(running);
}

#[test]
fn system_dev_goes_on_and_ends_well_when_nobody_reads_what_it_prints() {
    let running = Running::prepare("no-reader");
    let file = running.write_service(&python_server(""), QUICK);
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = Command::new(MAINSTAY);
    command
        .args(["dev", "--entry", "127.0.0.1:0", "--api", "127.0.0.1:0"])
        .args([&file, std::path::Path::new("--state"), running.state()])
        .stdout(writer.try_clone().unwrap())
        .stderr(writer);
    drop(reader);
    let mut dev = EndedAtTheEnd(command.spawn().unwrap());
    drop(command);
    running.wait_until_steady();
    let pid = running.instances().unwrap()[0].pid.unwrap();
    kill(dev.0.id(), Signal::INT);
    let ended = wait_until(PATIENCE, "dev ends", || {
        dev.0
            .try_wait()
            .unwrap()
            .ok_or_else(|| "it runs".to_owned())
    });
    assert_eq!(ended.code(), Some(0));
    assert!(!is_there(pid));
}

/// A `dev` that must not outlive a failed test.
struct EndedAtTheEnd(std::process::Child);

impl Drop for EndedAtTheEnd {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            // The second one does not wait for instances.
            kill(self.0.id(), Signal::TERM);
            kill(self.0.id(), Signal::INT);
            self.0.wait().ok();
        }
    }
}

fn is_there(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn system_a_service_that_is_not_there_is_told_by_every_command_that_names_one() {
    let mut running = Running::prepare("unknown");
    let file = running.write_service(&python_server(""), QUICK);
    running.dev(&[file.to_str().unwrap()]);
    running.wait_until_steady();
    for command in ["ps", "status", "events"] {
        let output = running.run(&[command, "wbe"]);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(4), "{command}: {said}");
        assert!(said.contains("there is no service `wbe`"), "{said}");
    }
}

#[test]
fn system_services_that_a_file_no_longer_names_are_told_as_left_alone() {
    let mut running = Running::prepare("left-alone");
    let file = running.write_service(&python_server(""), QUICK);
    running.dev(&[file.to_str().unwrap()]);
    running.wait_until_steady();
    let text_of = std::fs::read_to_string(&file).unwrap();
    let renamed = text_of.replace("[service.web]", "[service.site]");
    let renamed = renamed.replace("path = \"/\"", "path = \"/site\"");
    std::fs::write(&file, renamed).unwrap();
    let output = running.run(&["up", "--dry-run", file.to_str().unwrap()]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("left as they are: web"), "{said}");
}

#[test]
fn system_a_second_dev_in_one_directory_is_refused_and_the_first_goes_on() {
    let mut running = Running::prepare("second");
    let file = running.write_service(&python_server(""), QUICK);
    running.dev(&[file.to_str().unwrap()]);
    let status = running.wait_until_steady();
    let output = running.run(&["dev", "--entry", "127.0.0.1:0", "--api", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output);
    assert!(said.contains("another `mainstay dev`"), "{said}");
    assert!(said.contains("--state"), "{said}");
    assert_eq!(Running::get(&status, "/").0, 200);
}

#[test]
fn system_without_a_control_centre_a_command_says_so() {
    let running = Running::prepare("nobody");
    let output = running.run(&["ps"]);
    assert_eq!(output.status.code(), Some(3));
    let text = text(&output);
    assert!(text.contains("cannot reach the control centre"), "{text}");
    assert!(text.contains("mainstay dev"), "{text}");
}

#[test]
fn system_a_full_disk_is_told_and_what_runs_goes_on() {
    if !is_root() {
        return skip("needs root: mounts a small file system");
    }
    let small = SmallDisk::mount("full-disk");
    let mut running = Running::prepare("full").with_state(&small.directory.join("state"));
    let file = running.write_service(&python_server(""), QUICK);
    running.dev(&[file.to_str().unwrap(), "--access-log", "off"]);
    let status = running.wait_until_steady();
    small.fill();
    let changed = python_server("print('second')");
    running.write_service(&changed, &QUICK.replace("2s", "3s"));
    let output = running.run(&["up", file.to_str().unwrap()]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    assert_eq!(Running::get(&status, "/").0, 200, "what runs goes on");
    small.free();
    wait_until(PATIENCE, "the change is taken once there is room", || {
        let output = running.run(&["up", file.to_str().unwrap()]);
        if output.status.success() {
            Ok(())
        } else {
            Err(text(&output))
        }
    });
    assert_eq!(Running::get(&status, "/").0, 200);
    drop(running);
}

#[test]
fn system_the_completions_and_the_schema_are_printed_without_a_running_mainstay() {
    let running = Running::prepare("prints");
    let completions = running.run(&["completions", "bash"]);
    assert!(text(&completions).contains("_mainstay()"));
    let schema = running.run(&["schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&schema.stdout).unwrap();
    assert!(schema.to_string().contains("on_failure"));
    let api = running.run(&["schema", "--api"]);
    let api: serde_json::Value = serde_json::from_slice(&api.stdout).unwrap();
    assert_eq!(api["openapi"], "3.1.0");
    assert!(api["paths"]["/v1/services"]["post"].is_object());
    let page = text(&running.run(&["explain", "address-taken"]));
    assert!(page.contains("## What to do"), "{page}");
    let unknown = running.run(&["explain", "no-such-code"]);
    assert_eq!(unknown.status.code(), Some(2));
}

#[test]
fn system_with_a_group_its_members_may_open_the_socket_and_no_other_file() {
    use std::os::unix::fs::MetadataExt;
    const DAEMON: u32 = 1;
    if !is_root() {
        return skip("needs root: gives a file to another group");
    }
    let mut running = Running::prepare("group");
    let unknown = running.run(&["dev", "--api-group", "no-such-group"]);
    assert_eq!(unknown.status.code(), Some(2), "{}", text(&unknown));
    let file = running.write_service(&python_server(""), "http = { path = \"/\" }");
    running.dev(&[file.to_str().unwrap(), "--api-group", "daemon"]);
    running.wait_until_steady();
    let of = |name: &str| {
        let found = std::fs::metadata(running.state().join(name)).unwrap();
        (found.gid(), found.mode() & 0o777)
    };
    assert_eq!(of("api.sock"), (DAEMON, 0o660));
    assert_eq!(of("."), (DAEMON, 0o710));
    assert_eq!(of("token").1, 0o600);
    let status = running.run(&["status"]);
    assert_eq!(status.status.code(), Some(0));
    let refused = running.run(&["scale", "nobody", "1"]);
    assert_eq!(refused.status.code(), Some(4));
    let said = text(&refused);
    assert!(said.contains("mainstay explain service-unknown"), "{said}");
    let scaled = running.run(&["scale", "web", "2"]);
    let said = text(&scaled);
    let log = std::fs::read_to_string(running.state().join("logs/server.log")).unwrap();
    assert!(
        log.contains("POST /v1/services/web/scale by=account 0"),
        "{said} {log}"
    );
    running.stop();
}

#[test]
fn system_after_the_supervisor_was_killed_the_next_one_adopts_everything() {
    let mut running = Running::prepare("adopt");
    let file = running.write_service(&python_server(""), QUICK);
    running.dev(&[file.to_str().unwrap()]);
    let status = running.wait_until_steady();
    let before = running.instances().unwrap();
    let server = running.own_process("server");
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
    assert_eq!(Running::get(&status, "/").0, 200, "nobody ended with it");
    let mut again = Command::new(MAINSTAY);
    again.args([
        "dev",
        file.to_str().unwrap(),
        "--entry",
        "127.0.0.1:0",
        "--api",
        "127.0.0.1:0",
    ]);
    again.arg("--state").arg(running.state());
    let again = mainstay_testkit::Spawned::start(&running.dir, "again", &mut again);
    wait_until(PATIENCE, "the processes are adopted", || {
        let log = again.log();
        if log.contains("ready after") {
            Ok(())
        } else {
            Err(log)
        }
    });
    assert_eq!(running.own_process("server"), server);
    let pids = |instances: &[mainstay_api::wire::InstanceStatus]| -> Vec<Option<u32>> {
        instances.iter().map(|instance| instance.pid).collect()
    };
    assert_eq!(pids(&running.instances().unwrap()), pids(&before));
    again.signal(Signal::INT);
    assert_eq!(again.wait(PATIENCE), Ended::Code(0), "{}", again.log());
}

/// `up` as soon as the control centre answers.
#[track_caller]
fn up_when_reachable(running: &Running, file: &str) -> std::process::Output {
    wait_until(PATIENCE, "the control centre answers", || {
        let status = running.run(&["status"]);
        if status.status.success() {
            Ok(())
        } else {
            Err(text(&status))
        }
    });
    running.run(&["up", file])
}

/// A file system of 4 MiB, gone at the end.
struct SmallDisk {
    directory: mainstay_testkit::TempDir,
}

impl SmallDisk {
    fn mount(name: &str) -> Self {
        let directory = mainstay_testkit::TempDir::new(name);
        let mounted = Command::new(program("mount"))
            .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
            .arg(directory.path())
            .status()
            .unwrap();
        assert!(mounted.success());
        Self { directory }
    }

    fn fill(&self) {
        let filled = std::fs::write(self.directory.join("filler"), vec![1; 8 * 1024 * 1024]);
        assert!(filled.is_err(), "it has more than 4 MiB");
    }

    fn free(&self) {
        std::fs::remove_file(self.directory.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: on a failed test something may still have a file open there.
        Command::new(program("umount"))
            .arg("--lazy")
            .arg(self.directory.path())
            .status()
            .ok();
    }
}
