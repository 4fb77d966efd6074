//! Whole programs as people have them; all that is set from outside is where the broker is.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use mainstay_testkit::{Ended, Packages, Spawned, TempDir, wait_until};

use super::{file, python};

/// A program of Python or Java takes seconds to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

fn url(at: SocketAddr) -> String {
    format!("amqp://guest:guest@{at}/%2f")
}

/// Runs to its end, well.
fn done(dir: &TempDir, name: &str, command: &mut Command) -> String {
    let run = Spawned::start(dir, name, command);
    assert_eq!(run.wait(PATIENCE), Ended::Code(0), "{}", run.log());
    run.log()
}

/// Runs on, once it has said this.
fn says(run: &Spawned, what: &str) {
    wait_until(PATIENCE, what, || {
        let log = run.log();
        if log.contains(what) { Ok(()) } else { Err(log) }
    });
}

pub(crate) fn celery(dir: &TempDir, at: SocketAddr) {
    let tool = || {
        let mut command = python();
        let packages = Packages::Python.require();
        let path = std::env::join_paths([packages, file("programs")]).unwrap();
        command
            .env("PYTHONPATH", path)
            .env("BROKER", url(at))
            .current_dir(dir.path());
        command
    };
    let mut worker = tool();
    worker.args(["-m", "celery", "--app", "celery_tasks", "worker"]);
    worker.args(["--concurrency", "2", "--loglevel", "INFO"]);
    let worker = Spawned::start(dir, "worker", &mut worker);
    says(&worker, "ready.");
    let mut calls = tool();
    calls.arg(file("programs/celery_calls.py"));
    let said = done(dir, "calls", &mut calls);
    let wanted = ["one 5", "group 2450", "chain 6", "later 2", "flaky 2"];
    assert_eq!(said.lines().collect::<Vec<_>>(), wanted, "{}", worker.log());
}
