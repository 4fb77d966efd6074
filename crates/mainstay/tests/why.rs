//! Each question that somebody has in an incident is answered by one `mainstay why`, from what was
//! recorded, with its inputs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod running;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use mainstay_api::wire::{InstanceState, InstanceStatus, ServiceState, Status};
use mainstay_model::Why;
use mainstay_testkit::{program, wait_until};
use running::{PATIENCE, Running, kill, python_server, text};
use rustix::process::Signal;

const QUICK: &str = r#"
health = { get = "/", every = "100ms" }
rollout = { hold = "100ms", deadline = "30s" }
grace = "2s"
"#;

/// A server that answers 500 while the file `ill` is there, and holds requests for `/slow` while the
/// file `slow` is.
fn server_with_moods(running: &Running) -> String {
    let dir = running.dir.join("moods");
    fs::create_dir_all(&dir).unwrap();
    let server = python_server(&format!(
        "import time\nMOODS = {:?}",
        dir.display().to_string()
    ));
    let server = server.replace(
        "        body =",
        "        while self.path == '/slow' and os.path.exists(MOODS + '/slow'):\n            time.sleep(0.05)\n        body =",
    );
    server.replace(
        "self.send_response(200)",
        "self.send_response(500 if os.path.exists(MOODS + '/ill') else 200)",
    )
}

fn mood(running: &Running, name: &str) -> PathBuf {
    running.dir.join("moods").join(name)
}

/// A section of a service file for a Python program.
fn section(running: &Running, name: &str, python: &str, keys: &str) -> String {
    let file = running.write(&format!("{name}.py"), python);
    let interpreter = program("python3");
    format!(
        "[service.{name}]\nexec = ['{}', '-u', '{}']\n{keys}\n",
        interpreter.display(),
        file.display()
    )
}

/// Declares the sections and does not wait.
fn declare(running: &Running, sections: &[String]) {
    let file = running.write("services.toml", &sections.concat());
    let output = running.run(&["up", "--no-wait", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
}

/// What `up` says when it waits for the end.
fn up(running: &Running, sections: &[String]) -> (Option<i32>, String) {
    let file = running.write("services.toml", &sections.concat());
    let output = running.run(&["up", file.to_str().unwrap()]);
    (output.status.code(), text(&output))
}

/// Waits until one `why` says all of it, and gives what it says.
#[track_caller]
fn why(running: &Running, words: &[&str], parts: &[&str]) -> String {
    wait_until(PATIENCE, "why says it", || {
        let said = text(&running.run(&[&["why"], words].concat()));
        if parts.iter().all(|part| said.contains(part)) {
            Ok(said)
        } else {
            Err(format!("{parts:?} is not all in:\n{said}"))
        }
    })
}

fn state(running: &Running, service: &str) -> ServiceState {
    let status: Status = running.json(&["status"]).unwrap();
    let mut services = status.services.iter();
    services
        .find(|one| one.service.as_str() == service)
        .unwrap()
        .state
}

#[track_caller]
fn wait_for_service(running: &Running, service: &str, wanted: ServiceState) {
    wait_until(PATIENCE, "a service's state", || {
        let state = state(running, service);
        if state == wanted {
            Ok(())
        } else {
            Err(format!("{state:?}"))
        }
    });
}

fn start(name: &str, sections: impl FnOnce(&Running) -> Vec<String>) -> Running {
    let mut running = Running::prepare(name);
    let sections = sections(&running).concat();
    let file = running.write("services.toml", &sections);
    running.dev(&[file.to_str().unwrap()]);
    running
}

#[test]
fn system_why_was_this_instance_restarted() {
    let mut running = start("why-restart", |running| {
        let unhealthy = QUICK.replace(
            "every = \"100ms\"",
            "every = \"100ms\", restart = \"500ms\"",
        );
        let web = server_with_moods(running);
        vec![section(running, "web", &web, &unhealthy)]
    });
    running.wait_until_steady();
    let pid = running.instances().unwrap()[0].pid.unwrap();
    kill(pid, Signal::KILL);
    why(
        &running,
        &["web-1"],
        &[
            "web-1 was started again as attempt 2",
            "attempt 1 ended by signal 9",
            "web-1 ended by signal 9 (SIGKILL), attempt 1",
            "web-1 gets requests",
        ],
    );
    // Its probe fails for so long that it is ended.
    fs::write(mood(&running, "ill"), "").unwrap();
    why(
        &running,
        &["web-1"],
        &[
            "was ended: its probes did not pass for",
            "its last probe failed:",
            "500",
        ],
    );
    fs::remove_file(mood(&running, "ill")).unwrap();
    running.wait_for_state(InstanceState::Ready);
    // And one that ends again and again.
    let crash = section(&running, "crash", "import sys\nsys.exit(3)\n", QUICK);
    declare(&running, &[crash]);
    let said = why(
        &running,
        &["crash-1"],
        &[
            "crash-1 exited with code 3, attempt 2",
            "after a back-off of",
            "crash-1 was started again as attempt 3",
            "crash-1 is in a crash loop",
            "crash-1 gets no requests",
        ],
    );
    assert!(said.lines().count() < 30, "{said}");
    let as_json: Why = running.json(&["why", "crash-1"]).unwrap();
    assert!(as_json.chain.iter().any(|reason| reason.decision.is_some()));
    running.stop();
}

#[test]
fn system_why_does_this_rollout_wait() {
    let mut running = start("why-wait", |running| {
        let web = server_with_moods(running);
        vec![section(
            running,
            "web",
            &web,
            &format!("{QUICK}\ninstances = 2\nhttp = {{ path = \"/\" }}"),
        )]
    });
    running.wait_until_steady();
    let web = server_with_moods(&running);
    let version = |keys: &str| section(&running, "web", &web, keys);
    let canary = QUICK.replace("hold = \"100ms\"", "hold = \"100ms\", canary = 1");
    let canary = format!(
        "{canary}\ninstances = 2\nhttp = {{ path = \"/\" }}\ndrain = \"30s\"\nenv = {{ A = \"1\" }}"
    );
    let (code, said) = up(&running, &[version(&canary)]);
    assert_eq!(code, Some(0), "{said}");
    why(
        &running,
        &["web"],
        &["`mainstay promote web`: 1 of the new version are ready"],
    );
    let status = running.run(&["status"]);
    assert!(
        text(&status).contains("`mainstay promote web`"),
        "{}",
        text(&status)
    );
    waits_for_a_word(&running);
    // A request that the old one still has.
    fs::write(mood(&running, "slow"), "").unwrap();
    let slow: Vec<TcpStream> = (0..6).map(|_| slow_request(&running)).collect();
    declare_word(&running, &["promote", "web", "--no-wait"]);
    why(
        &running,
        &["web"],
        &[
            "gets no new requests",
            "replaced",
            "stopped when nobody can reach it, or after 30s: gateway#1 has",
        ],
    );
    fs::remove_file(mood(&running, "slow")).unwrap();
    for mut stream in slow {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
    }
    wait_for_service(&running, "web", ServiceState::Steady);
    waits_for_a_probe(
        &running,
        &version(
            &canary
                .replace("canary = 1", "on_failure = \"pause\"")
                .replace("\"1\"", "\"2\""),
        ),
    );
    waits_of_the_start(&running);
    running.stop();
}

/// Paused, and let go on by somebody's word.
fn waits_for_a_word(running: &Running) {
    let paused = running.run(&["pause", "web"]);
    assert!(paused.status.success(), "{}", text(&paused));
    why(
        running,
        &["web"],
        &["waits for `mainstay resume web`", "paused, as asked"],
    );
    assert_eq!(running.run(&["pause", "nobody"]).status.code(), Some(4));
    let resumed = running.run(&["resume", "web"]);
    assert!(resumed.status.success(), "{}", text(&resumed));
    assert_eq!(running.run(&["resume", "web"]).status.code(), Some(4));
}

/// A probe that fails, with its message.
fn waits_for_a_probe(running: &Running, ill: &str) {
    fs::write(mood(running, "ill"), "").unwrap();
    declare(running, &[ill.to_owned()]);
    let parts = ["to pass its probe, which fails:", "500"];
    why(running, &["web"], &parts);
    fs::remove_file(mood(running, "ill")).unwrap();
    wait_for_service(running, "web", ServiceState::Steady);
}

/// What is waited for before anything of a service is started, and after that.
fn waits_of_the_start(running: &Running) {
    let dir = mood(running, "migrated");
    let before = format!(
        "before = ['{}', '-c', 'while [ ! -e {} ]; do sleep 0.1; done']",
        program("sh").display(),
        dir.display()
    );
    let hold = QUICK.replace("hold = \"100ms\"", "hold = \"3s\"");
    let stock = section(
        running,
        "stock",
        &python_server(""),
        &format!("{hold}\n{before}"),
    );
    let needing = section(
        running,
        "shop",
        &python_server(""),
        &format!("{QUICK}\nneeds = [\"stock\"]"),
    );
    declare(running, &[stock, needing]);
    why(
        running,
        &["stock"],
        &["waits for stock-1, which runs once before it, to end"],
    );
    why(
        running,
        &["shop"],
        &["waits for an instance to be ready of stock", "it is held"],
    );
    let listed = text(&running.run(&["ps"]));
    assert!(
        listed.contains("waits for an instance to be ready of stock"),
        "{listed}"
    );
    fs::write(&dir, "").unwrap();
    why(
        running,
        &["stock"],
        &["to pass its probe for 3s without a failure (`rollout.hold`)"],
    );
    wait_for_service(running, "shop", ServiceState::Steady);
}

fn declare_word(running: &Running, words: &[&str]) {
    let output = running.run(words);
    assert!(output.status.success(), "{}", text(&output));
}

fn slow_request(running: &Running) -> TcpStream {
    let status: Status = running.json(&["status"]).unwrap();
    let mut stream = TcpStream::connect(status.entry[0]).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(b"GET /slow HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .unwrap();
    stream
}

#[test]
fn system_why_was_it_rolled_back() {
    let mut running = start("why-back", |running| {
        vec![section(running, "web", &python_server(""), QUICK)]
    });
    running.wait_until_steady();
    let dies = "import sys\nprint('no database')\nsys.exit(7)\n";
    let bad = section(
        &running,
        "web",
        dies,
        &format!("{QUICK}\nenv = {{ A = \"1\" }}"),
    );
    let (code, said) = up(&running, &[bad]);
    assert_eq!(code, Some(1), "{said}");
    why(
        &running,
        &["web"],
        &[
            "web is as wanted: 1 of 1 instances of v1 are ready",
            "so it goes back from v2 to v1, the last version that was wholly healthy",
            "rollout of v2 failed: web-2 exited with code 7",
            "rollout from v1 to v2",
        ],
    );
    // And where there is nothing to go back to.
    let first = section(&running, "first", dies, QUICK);
    let (code, said) = up(&running, &[first]);
    assert_eq!(code, Some(1), "{said}");
    why(
        &running,
        &["first"],
        &[
            "does not go back from v1",
            "no earlier version was ever wholly healthy",
            "exited with code 7",
        ],
    );
    running.stop();
}

#[test]
fn system_why_does_this_instance_get_no_traffic() {
    let mut running = start("why-traffic", |running| {
        let web = server_with_moods(running);
        vec![section(
            running,
            "web",
            &web,
            &format!("{QUICK}\ninstances = 2\nhttp = {{ path = \"/\" }}\ndrain = \"30s\""),
        )]
    });
    running.wait_until_steady();
    why(
        &running,
        &["web-1"],
        &["web-1 gets requests: its probe passes"],
    );
    fs::write(mood(&running, "ill"), "").unwrap();
    why(
        &running,
        &["web-1"],
        &["web-1 gets no requests", "its probe fails:", "500"],
    );
    fs::remove_file(mood(&running, "ill")).unwrap();
    running.wait_until_steady();
    // Draining, with who holds it.
    fs::write(mood(&running, "slow"), "").unwrap();
    let slow: Vec<TcpStream> = (0..6).map(|_| slow_request(&running)).collect();
    declare_word(&running, &["scale", "web", "0", "--no-wait"]);
    why(
        &running,
        &["web-2"],
        &[
            "web-2 gets no new requests",
            "the service is scaled to zero",
            "gateway#1 has",
            "scaled from 2 to 0",
        ],
    );
    fs::remove_file(mood(&running, "slow")).unwrap();
    drop(slow);
    why(
        &running,
        &["web-2"],
        &["it is gone", "fewer are wanted", "scaled from 2 to 0"],
    );
    why(&running, &["web"], &["no instance is wanted"]);
    others_without_traffic(&running);
    running.stop();
}

fn others_without_traffic(running: &Running) {
    // Ended, and one that has not passed yet.
    let crash = section(running, "crash", "import sys\nsys.exit(3)\n", QUICK);
    let lame = section(running, "lame", "import time\ntime.sleep(1000)\n", QUICK);
    declare(running, &[crash, lame]);
    why(
        running,
        &["crash-1"],
        &["crash-1 gets no requests: attempt", "exited with code 3"],
    );
    why(
        running,
        &["lame-1"],
        &["it has started and passed no probe yet; the last one failed:"],
    );
    // Who was never there.
    for unknown in ["web-99", "nobody", "Wrong!"] {
        let output = running.run(&["why", unknown]);
        assert!(
            [Some(2), Some(4)].contains(&output.status.code()),
            "{}",
            text(&output)
        );
        assert!(text(&output).contains("help: "), "{}", text(&output));
    }
}

#[test]
fn system_why_did_this_request_get_a_503() {
    let mut running = start("why-request", |running| {
        // It serves until the file is there, and then it ends, and so does each after it.
        let dies = format!(
            "import time\nDIE = {:?}\ndef watch():\n    while not os.path.exists(DIE):\n        time.sleep(0.02)\n    os._exit(9)\nthreading.Thread(target=watch, daemon=True).start()",
            running.dir.join("die").display().to_string()
        );
        vec![section(
            running,
            "web",
            &python_server(&dies),
            &format!("{QUICK}\nhttp = {{ path = \"/web\" }}"),
        )]
    });
    let status = running.wait_until_steady();
    let entry = status.entry[0];
    fs::write(running.dir.join("die"), "").unwrap();
    wait_until(PATIENCE, "it has ended", || {
        let instances: Vec<InstanceStatus> = running.instances()?;
        match instances[0].state {
            InstanceState::BackingOff | InstanceState::CrashLooping => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    // The gateway hears of it a moment later; until then it may ask the one that has ended.
    for id in ["id-of-the-first", "id-of-the-test"] {
        assert_eq!(request(entry, "/web", id), "503");
    }
    let said = why(
        &running,
        &["request", "id-of-the-test"],
        &[
            "GET /web",
            "got 503",
            "no instance of web was asked",
            "no instance of web was passing: web-1 exited with code 9 at ",
            "web-1 exited with code 9, attempt ",
        ],
    );
    let first = said.lines().next().unwrap();
    assert!(
        first.contains("`starting`") || first.contains("`crash-looping`"),
        "{first}"
    );
    // The same where it belongs to nobody, and where it is unknown.
    assert_eq!(request(entry, "/nowhere", "id-of-nobody"), "404");
    why(
        &running,
        &["request", "id-of-nobody"],
        &["no service has its host and path"],
    );
    let unknown = running.run(&["why", "request", "never-sent"]);
    assert_eq!(unknown.status.code(), Some(1), "{}", text(&unknown));
    assert!(
        text(&unknown).contains("no request `never-sent`"),
        "{}",
        text(&unknown)
    );
    let as_json: serde_json::Value = running.json(&["why", "request", "id-of-the-test"]).unwrap();
    assert_eq!(as_json["request"]["status"], 503);
    assert!(as_json["service"]["chain"].is_array(), "{as_json}");
    running.stop();
}

fn request(entry: std::net::SocketAddr, path: &str, id: &str) -> String {
    let url = format!("http://{entry}{path}");
    let header = format!("x-request-id: {id}");
    let arguments = [
        "--silent",
        "--max-time",
        "20",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
    ];
    let output = Command::new(program("curl"))
        .args(arguments)
        .args(["--header", &header, &url])
        .output()
        .unwrap();
    text(&output)
}

#[test]
fn system_a_plan_says_what_up_would_do_and_changes_nothing() {
    let mut running = start("plan", |running| {
        vec![section(
            running,
            "web",
            &python_server(""),
            &format!("{QUICK}\ninstances = 2\nenv = {{ KEY = \"first-password\" }}"),
        )]
    });
    running.wait_until_steady();
    let keys = QUICK.replace("hold = \"100ms\"", "hold = \"5s\", canary = 1");
    let next = section(
        &running,
        "web",
        &python_server(""),
        &format!(
            "{keys}\ninstances = 3\nbefore = ['/bin/true']\nenv = {{ KEY = \"${{PLAN_KEY}}\" }}"
        ),
    );
    let new = section(
        &running,
        "shop",
        &python_server(""),
        &format!("{QUICK}\nneeds = [\"web\"]"),
    );
    let file = running.write("services.toml", &[next, new].concat());
    let plan = |arguments: &[&str]| {
        let mut command = Command::new(running::MAINSTAY);
        command
            .args(arguments)
            .arg(&file)
            .arg("--state")
            .arg(running.state());
        let output = command.env("PLAN_KEY", "second-password").output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    let said = plan(&["plan"]);
    for part in [
        "web v1 -> v2 updated, from 2 to 3 instances",
        "another value -> \"${PLAN_KEY}\"",
        "\"100ms\" -> \"5s\"",
        "before it runs once: /bin/true",
        "canaries: 1 beside all of the old, until `mainstay promote web`",
        "3 instances, 1 at a time, each 5s healthy; if one fails, back to v1",
        "shop v1 created",
        "needs one ready instance of web (ready)",
        "memory: ",
    ] {
        assert!(said.contains(part), "`{part}` is not in:\n{said}");
    }
    assert!(!said.contains("password"), "{said}");
    assert_eq!(said, plan(&["up", "--dry-run"]));
    assert!(!plan(&["plan", "--json"]).contains("password"));
    let status: Status = running.json(&["status"]).unwrap();
    assert_eq!(status.services.len(), 1);
    assert_eq!(status.services[0].state, ServiceState::Steady);
    running.stop();
}
