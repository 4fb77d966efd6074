//! The commands of README.md, as they stand there, in a network of their own, where every port is free.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay_testkit::{
    Ended, Netns, Packages, Spawned, TempDir, is_root, program, skip, wait_until,
};
use rustix::process::Signal;

/// The longest time that anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// What has been done before a test runs: `cargo xtask setup` installs the packages, cargo builds.
const DONE_BEFORE: [&str; 4] = [
    "cargo build --release",
    "cd examples/queue",
    "pip install pika",
    "npm install amqplib",
];
const DEV: &str = "../../target/release/mainstay dev";

/// A copy of this directory, and the README's commands in it.
struct Place {
    dir: TempDir,
    netns: Netns,
    commands: BTreeSet<String>,
    ran: BTreeSet<String>,
}

impl Place {
    fn prepare() -> Self {
        let dir = TempDir::new("news");
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        for name in ["publish.py", "publish.mjs", "subscribe.py", "subscribe.mjs"] {
            fs::copy(here.join(name), dir.join(name)).expect("the program is there");
        }
        symlink(Packages::Node.require(), dir.join("node_modules")).expect("a new link");
        let readme = fs::read_to_string(here.join("README.md")).expect("the README is there");
        Self {
            dir,
            netns: Netns::new(),
            commands: commands(&readme),
            ran: BTreeSet::new(),
        }
    }

    /// Starts a command of the README.
    fn start(&mut self, name: &str, line: &str) -> Spawned {
        assert!(self.commands.contains(line), "`{line}` is not in README.md");
        self.ran.insert(line.to_owned());
        let line = built(line);
        let mut command = self.netns.command(&program("sh"));
        command.args(["-c", &format!("exec {line}")]);
        command
            .env("PYTHONPATH", Packages::Python.require())
            .current_dir(self.dir.path());
        Spawned::start(&self.dir, name, &mut command)
    }

    /// Starts a subscriber, and waits until it would miss nothing.
    fn subscriber(&mut self, name: &str, line: &str) -> Spawned {
        let subscriber = self.start(name, line);
        wait_until(PATIENCE, "it subscribed", || {
            let said = subscriber.log();
            let ready = said.starts_with("subscribed\n");
            if ready { Ok(()) } else { Err(said) }
        });
        subscriber
    }

    /// Subscribes, and ends: the queue stays.
    fn leaves_a_queue(&mut self, name: &str, line: &str) {
        let early = self.subscriber(name, line);
        early.signal(Signal::TERM);
        early.wait(PATIENCE);
    }

    fn publish(&mut self, name: &str, line: &str) {
        let publisher = self.start(name, line);
        let ended = publisher.wait(PATIENCE);
        assert_eq!(ended, Ended::Code(0), "{}", publisher.log());
    }
}

/// All commands of its blocks, without what they say about themselves.
fn commands(readme: &str) -> BTreeSet<String> {
    let blocks = readme.split("```sh\n").skip(1);
    let blocks = blocks.filter_map(|rest| Some(rest.split_once("```")?.0));
    let lines = blocks.flat_map(str::lines);
    lines
        .map(|line| line.split(" #").next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The same command with what cargo has built already.
fn built(line: &str) -> String {
    line.replace(
        "cargo run --quiet --bin news-publish",
        env!("CARGO_BIN_EXE_news-publish"),
    )
    .replace(
        "cargo run --quiet --bin news-subscribe",
        env!("CARGO_BIN_EXE_news-subscribe"),
    )
    .replace("../../target/release/mainstay", &mainstay())
}

/// Mainstay, which cargo builds beside us.
fn mainstay() -> String {
    let own = std::env::current_exe().expect("our own program");
    let profile = own.ancestors().nth(2).expect("target/PROFILE/deps");
    let mainstay: PathBuf = profile.join("mainstay");
    let path = mainstay.display().to_string();
    assert!(mainstay.exists(), "no {path}: `cargo build -p mainstay`");
    path
}

/// It gets exactly these, each so often as it was published, in that order.
fn gets(subscriber: &Spawned, rounds: usize) {
    let of_a_round = (0..100).map(|number| format!("news {number}"));
    let wanted: Vec<String> = (0..rounds).flat_map(|_| of_a_round.clone()).collect();
    wait_until(PATIENCE, "the news are there", || {
        let said = subscriber.log();
        let news: Vec<&str> = said.lines().skip(1).collect();
        if news.len() < wanted.len() {
            return Err(said);
        }
        Ok(())
    });
    let said = subscriber.log();
    let news: Vec<&str> = said.lines().skip(1).collect();
    assert_eq!(news, wanted);
}

#[test]
fn system_each_language_publishes_and_subscribes_and_who_is_late_misses_nothing() {
    if !is_root() {
        return skip("needs root: makes a network namespace");
    }
    // Named here, so that set-up installs them: the commands start them.
    program("python3");
    program("node");
    let mut place = Place::prepare();
    let dev = place.start("dev", DEV);
    wait_until(PATIENCE, "dev has a broker", || {
        let said = dev.log();
        let serves = said.contains("broker  amqp://127.0.0.1:5672");
        if serves { Ok(()) } else { Err(said) }
    });
    let late = "python3 subscribe.py durable";
    place.leaves_a_queue("python-early", late);
    let node = place.subscriber("node", "node subscribe.mjs");
    let rust = place.subscriber("rust", "cargo run --quiet --bin news-subscribe");
    place.publish("publish-python", "python3 publish.py 100");
    gets(&node, 1);
    gets(&rust, 1);
    let python = place.subscriber("python-late", late);
    gets(&python, 1);

    let others = [
        ("node-late", "node subscribe.mjs durable"),
        (
            "rust-late",
            "cargo run --quiet --bin news-subscribe durable",
        ),
    ];
    for (name, line) in others {
        place.leaves_a_queue(&format!("{name}-early"), line);
    }
    place.publish("publish-node", "node publish.mjs 100");
    place.publish("publish-rust", "cargo run --quiet --bin news-publish 100");
    for subscriber in [&node, &rust, &python] {
        gets(subscriber, 3);
    }
    let subscribers = others.map(|(name, line)| place.subscriber(name, line));
    for subscriber in &subscribers {
        gets(subscriber, 2);
    }

    drop((node, rust, python, subscribers));
    dev.signal(Signal::INT);
    assert_eq!(dev.wait(PATIENCE), Ended::Code(0), "{}", dev.log());
    let not_run: Vec<&String> = place.commands.difference(&place.ran).collect();
    let mut done_before = DONE_BEFORE;
    done_before.sort_unstable();
    assert_eq!(
        not_run, done_before,
        "README.md has commands that nobody tries"
    );
}
