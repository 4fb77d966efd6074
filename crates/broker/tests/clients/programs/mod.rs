//! Whole programs as people have them; all that is set from outside is where the broker is.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use mainstay_testkit::{Ended, Packages, Spawned, TempDir, program, wait_until};

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

fn hello_py(name: &str, at: SocketAddr) -> Command {
    let mut command = python();
    command.arg(file(&format!("programs/{name}"))).arg(url(at));
    command
}

pub(crate) fn hello_in_python(dir: &TempDir, at: SocketAddr) {
    let receive = Spawned::start(dir, "receive", &mut hello_py("hello_receive.py", at));
    says(&receive, "Waiting for messages");
    done(dir, "send", &mut hello_py("hello_send.py", at));
    says(&receive, "Received b'Hello World!'");
}

pub(crate) fn hello_in_python_is_refused(dir: &TempDir, at: SocketAddr) {
    let send = Spawned::start(dir, "send-python", &mut hello_py("hello_send.py", at));
    assert_eq!(send.wait(PATIENCE), Ended::Code(1));
    let wanted = "(406, \"PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'hello' in vhost '/': \
                  received 'false' but current is 'true'\")";
    assert!(send.log().contains(wanted), "{}", send.log());
}

const JARS: &str = "/usr/share/java/amqp-client.jar:/usr/share/java/slf4j-api.jar";

pub(crate) fn hello_in_java(dir: &TempDir, at: SocketAddr) {
    program("/usr/share/java/amqp-client.jar");
    program("/usr/share/java/slf4j-api.jar");
    let classes = dir.join("classes");
    let mut compile = Command::new(program("javac"));
    compile.args(["-cp", JARS, "-d"]).arg(&classes);
    compile
        .arg(file("programs/Send.java"))
        .arg(file("programs/Recv.java"));
    done(dir, "javac", &mut compile);
    let run = |class: &str| {
        let mut command = Command::new(program("java"));
        let path = format!("{JARS}:{}", classes.display());
        command.args(["-cp", &path, class]).arg(url(at));
        command
    };
    let receive = Spawned::start(dir, "receive", &mut run("Recv"));
    says(&receive, "Waiting for messages");
    done(dir, "send", &mut run("Send"));
    says(&receive, "Received 'Hello World!'");
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
