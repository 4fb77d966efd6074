//! Drain and weight of instances, through the whole: command line and page, control centre, gateways.

#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::process::Command;

use mainstay_api::wire::{InstanceStatus, Status};
use mainstay_model::{Intake, IntakeState};
use mainstay_testkit::{program, wait_until};
use running::{PATIENCE, Running, kill, python_server, text};
use rustix::process::Signal;

/// A `dev` with three instances, and the cookie of a client that stays with the one it got.
fn start() -> (Running, Status) {
    let mut running = Running::prepare("intake");
    let keys = "http = { path = \"/\" }\ninstances = 3\nsticky = { cookie = \"shop\" }\n\
                rollout = { hold = \"100ms\" }";
    let file = running.write_service(&python_server(""), keys);
    running.dev(&[file.to_str().unwrap()]);
    let status = running.wait_until_steady();
    (running, status)
}

/// Status, instance and cookie of an answer.
fn ask(status: &Status, cookie: Option<&str>) -> (u16, String, Option<String>) {
    let mut curl = Command::new(program("curl"));
    curl.args(["--silent", "--include", "--max-time", "10"]);
    if let Some(cookie) = cookie {
        curl.args(["--cookie", cookie]);
    }
    let answer = text(
        &curl
            .arg(format!("http://{}/", status.entry[0]))
            .output()
            .unwrap(),
    );
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let field = |name: &str| {
        let mut lines = answer.lines();
        let line = lines.find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })?;
        Some(line.split(';').next().unwrap_or_default().to_owned())
    };
    let reason = field("mainstay-reason");
    let body = answer.lines().last().unwrap_or_default().to_owned();
    (
        code.unwrap_or(0),
        reason.unwrap_or(body),
        field("set-cookie"),
    )
}

fn intake(running: &Running, instance: &str) -> Intake {
    let all: Vec<InstanceStatus> = running.instances().unwrap();
    let found = all
        .into_iter()
        .find(|one| one.instance.to_string() == instance);
    found.unwrap().intake
}

#[track_caller]
fn done(running: &Running, arguments: &[&str]) -> String {
    let output = running.run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    text(&output)
}

/// Waits until it gets nothing, and looks whether that stays so.
#[track_caller]
fn gets_nothing(status: &Status, instance: &str) {
    wait_until(PATIENCE, "the gateway knows it", || {
        let all: Vec<String> = (0..30).map(|_| ask(status, None).1).collect();
        if all.iter().any(|one| one == instance) || all.iter().any(|one| !one.starts_with("web-")) {
            return Err(format!("{all:?}"));
        }
        Ok(())
    });
    for _ in 0..60 {
        assert_ne!(ask(status, None).1, instance);
    }
}

/// Kills one of our processes, and waits for its successor.
#[track_caller]
fn kill_own(running: &Running, name: &str) {
    let pid = running.own_process(name).unwrap();
    kill(pid, Signal::KILL);
    wait_until(PATIENCE, "it is started again", || {
        match running.own_process(name) {
            Some(next) if next != pid => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn system_a_drained_instance_keeps_only_its_own_clients_whoever_is_killed() {
    let (running, status) = start();
    let (_, home, cookie) = ask(&status, None);
    let cookie = cookie.expect("it is sticky");
    let told = done(&running, &["drain", &home]);
    assert!(told.contains("is drained"), "{told}");
    gets_nothing(&status, &home);
    for _ in 0..20 {
        assert_eq!(
            ask(&status, Some(&cookie)).1,
            home,
            "who stays with it stays"
        );
    }
    let ps = done(&running, &["ps"]);
    assert!(
        ps.contains(&format!("{home} ")) && ps.contains("is drained"),
        "{ps}"
    );
    let shown = done(&running, &["status"]);
    assert!(
        shown.contains("3/3") && shown.contains("1 drained"),
        "{shown}"
    );

    for name in ["server", "gateway"] {
        kill_own(&running, name);
        running.wait_until_steady();
        gets_nothing(&status, &home);
        assert_eq!(
            intake(&running, &home).state,
            IntakeState::Drain,
            "after a kill of {name}"
        );
    }
    done(&running, &["upgrade", "gateway"]);
    gets_nothing(&status, &home);

    let told = done(&running, &["drain", &home, "--maintenance"]);
    assert!(told.contains("in maintenance"), "{told}");
    wait_until(PATIENCE, "its own clients leave it, too", || {
        let (_, other, _) = ask(&status, Some(&cookie));
        if other == home { Err(other) } else { Ok(()) }
    });
    done(&running, &["undrain", &home]);
    wait_until(PATIENCE, "it gets requests again", || {
        let all: Vec<String> = (0..40).map(|_| ask(&status, None).1).collect();
        if all.contains(&home) {
            Ok(())
        } else {
            Err(format!("{all:?}"))
        }
    });
    let events = done(&running, &["events", "web"]);
    assert!(
        events.contains("is drained") && events.contains("as account "),
        "{events}"
    );
}

#[test]
fn system_the_last_instance_is_drained_by_force_alone_and_leaves_with_its_wish() {
    let (running, status) = start();
    for instance in ["web-1", "web-2"] {
        done(&running, &["drain", instance]);
    }
    let refused = running.run(&["drain", "web-3"]);
    assert_eq!(refused.status.code(), Some(4), "{}", text(&refused));
    let said = text(&refused);
    assert!(
        said.contains("no other instance of `web`") && said.contains("--force"),
        "{said}"
    );
    assert_eq!(ask(&status, None).0, 200);
    assert_eq!(
        running.run(&["weight", "web-3", "0"]).status.code(),
        Some(4)
    );
    assert_eq!(
        running.run(&["weight", "web-3", "257"]).status.code(),
        Some(2)
    );
    assert_eq!(running.run(&["drain", "web-9"]).status.code(), Some(4));

    done(&running, &["drain", "web-3", "--force"]);
    wait_until(PATIENCE, "nobody is there", || {
        let (code, reason, _) = ask(&status, None);
        if (code, &*reason) == (503, "drained") {
            Ok(())
        } else {
            Err(format!("{code} {reason}"))
        }
    });
    let why = text(&running.run(&["why", "web"]));
    assert!(why.contains("every instance is drained"), "{why}");

    // A rollout replaces them all, and nobody inherits what was wanted of those before.
    let keys = "http = { path = \"/\" }\ninstances = 3\nrollout = { hold = \"100ms\" }\n\
                env = { NEXT = \"1\" }";
    let file = running.write_service(&python_server(""), keys);
    done(&running, &["up", file.to_str().unwrap()]);
    assert_eq!(ask(&status, None).0, 200);
    let all = running.instances().unwrap();
    assert!(all.iter().all(|one| one.intake.is_ordinary()), "{all:?}");
}

#[test]
fn system_weights_shift_requests_and_are_set_by_a_form_without_a_browser() {
    let (running, status) = start();
    let page = status.stats.expect("statistics are on");
    let token = running.state().join("token");
    let post = |fields: &[&str]| {
        let mut curl = Command::new(program("curl"));
        curl.args(["--silent", "--show-error", "--max-time", "20"]);
        for field in fields {
            curl.args(["--data", field]);
        }
        curl.arg("--data-urlencode")
            .arg(format!("token@{}", token.display()));
        curl.args(["--write-out", "%{http_code}"]);
        text(
            &curl
                .arg(format!("http://{page}/stats/change"))
                .output()
                .unwrap(),
        )
    };
    let said = post(&["server=web-1", "action=weight", "weight=1"]);
    assert!(said.ends_with("303"), "{said}");
    assert_eq!(intake(&running, "web-1").weight.percent(), 1);
    let homes: Vec<String> = (0..400).map(|_| ask(&status, None).1).collect();
    let share = homes.iter().filter(|home| *home == "web-1").count();
    assert!(
        share < 20,
        "two are a hundred times as heavy, and it had {share} of 400"
    );

    // While the control centre is away nothing is changed, and that is said.
    let pid = running.own_process("server").unwrap();
    kill(pid, Signal::STOP);
    let said = post(&["server=web-1", "action=reset-weight"]);
    assert!(
        said.ends_with("503") && said.contains("does not answer"),
        "{said}"
    );
    kill(pid, Signal::CONT);
    wait_until(PATIENCE, "it answers again", || {
        let said = post(&["server=web-1", "action=reset-weight"]);
        if said.ends_with("303") {
            Ok(())
        } else {
            Err(said)
        }
    });
    assert!(intake(&running, "web-1").is_ordinary());
}
