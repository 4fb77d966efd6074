//! The two programs that the article about message queues prints: in Python with a queue `hello` that is not durable, in
//! Java with one that is. They name no more than `localhost`, so that each test has a network of its own, in which the
//! broker has the port that clients take for granted.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod running;

use std::fs;
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use mainstay_testkit::{
    Ended, Netns, Packages, RabbitMq, RabbitMqOptions, Spawned, TempDir, is_root, program, skip,
    wait_until,
};
use running::{MAINSTAY, PATIENCE, Running, text};

/// What clients take for granted.
const PORT: u16 = 5672;
const JARS: &str = "/usr/share/java/amqp-client.jar:/usr/share/java/slf4j-api.jar";
const PROGRAMS: [&str; 4] = ["send.py", "receive.py", "Send.java", "Recv.java"];

/// Where each program says which broker it wants, and what it says in another virtual host.
const PLACES: [(&str, &str); 2] = [
    (
        "pika.ConnectionParameters('localhost')",
        "pika.ConnectionParameters('localhost', virtual_host='python')",
    ),
    (
        "factory.setHost(\"localhost\");",
        "factory.setHost(\"localhost\"); factory.setVirtualHost(\"java\");",
    ),
];

/// The programs in a directory, Java's compiled.
struct Published {
    dir: TempDir,
}

impl Published {
    /// As they are printed.
    fn as_printed() -> Self {
        Self::prepare("published", str::to_owned)
    }

    /// Each with one argument more: its virtual host.
    fn with_virtual_hosts() -> Self {
        Self::prepare("published-vhosts", |text| {
            let found: usize = PLACES
                .iter()
                .map(|(place, _)| text.matches(place).count())
                .sum();
            assert_eq!(found, 1, "one place to change in\n{text}");
            PLACES.iter().fold(text.to_owned(), |text, (place, with)| {
                text.replace(place, with)
            })
        })
    }

    fn prepare(name: &str, edition: impl Fn(&str) -> String) -> Self {
        let dir = TempDir::new(name);
        let printed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/published");
        for name in PROGRAMS {
            let text = fs::read_to_string(printed.join(name)).unwrap();
            fs::write(dir.join(name), edition(&text)).unwrap();
        }
        program("/usr/share/java/amqp-client.jar");
        program("/usr/share/java/slf4j-api.jar");
        let mut compile = Command::new(program("javac"));
        compile.args(["-cp", JARS, "-d"]).arg(dir.path());
        compile.args([dir.join("Send.java"), dir.join("Recv.java")]);
        let compiled = Spawned::start(&dir, "javac", &mut compile);
        assert_eq!(
            compiled.wait(PATIENCE),
            Ended::Code(0),
            "{}",
            compiled.log()
        );
        Self { dir }
    }

    fn python(&self, netns: &Netns, script: &str) -> Spawned {
        let mut command = netns.command(&program("python3"));
        command.args(["-B", "-u"]).arg(self.dir.join(script));
        command.env("PYTHONPATH", Packages::Python.require());
        self.start(script, &mut command)
    }

    fn java(&self, netns: &Netns, class: &str) -> Spawned {
        let mut command = netns.command(&program("java"));
        let path = format!("{JARS}:{}", self.dir.path().display());
        command.args(["-cp", &path, class]);
        self.start(class, &mut command)
    }

    /// With a log of its own, however often it runs.
    fn start(&self, name: &str, command: &mut Command) -> Spawned {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Spawned::start(&self.dir, &format!("{name}-{number}"), command)
    }

    /// The receiver in Python gets what the sender sends.
    fn hello_in_python(&self, netns: &Netns) {
        let receive = self.python(netns, "receive.py");
        says(&receive, "Waiting for messages");
        done(&self.python(netns, "send.py"));
        says(&receive, "Received b'Hello World!'");
    }

    /// The same in Java.
    fn hello_in_java(&self, netns: &Netns) {
        let receive = self.java(netns, "Recv");
        says(&receive, "Waiting for messages");
        done(&self.java(netns, "Send"));
        says(&receive, "Received 'Hello World!'");
    }

    /// Python was first: what Java is told.
    fn java_is_refused(&self, netns: &Netns) -> String {
        done(&self.python(netns, "send.py"));
        refusal(&self.java(netns, "Send"))
    }

    /// Java was first: what Python is told.
    fn python_is_refused(&self, netns: &Netns) -> String {
        done(&self.java(netns, "Send"));
        refusal(&self.python(netns, "send.py"))
    }
}

fn done(run: &Spawned) {
    assert_eq!(run.wait(PATIENCE), Ended::Code(0), "{}", run.log());
}

/// Runs on, once it has said this.
fn says(run: &Spawned, what: &str) {
    wait_until(PATIENCE, what, || {
        let log = run.log();
        if log.contains(what) { Ok(()) } else { Err(log) }
    });
}

/// The last line in which it names the error that ended it, whole.
fn refusal(run: &Spawned) -> String {
    assert_eq!(run.wait(PATIENCE), Ended::Code(1), "{}", run.log());
    let log = run.log();
    let mut lines = log.lines().rev();
    let line = lines.find(|line| line.contains("PRECONDITION_FAILED"));
    line.unwrap_or_else(|| panic!("it was not refused: {log}"))
        .trim()
        .to_owned()
}

/// A `mainstay dev` with nothing chosen: in its own network every port is free.
fn dev(name: &str) -> Running {
    let mut running = Running::prepare(name).in_own_network();
    let mut command = running.command(Path::new(MAINSTAY));
    command.arg("dev").arg("--state").arg(running.state());
    running.start(command);
    running.wait_for_output("broker  amqp://127.0.0.1:5672");
    running
}

/// The command line of `docs/queues.md`.
fn queue(running: &Running, arguments: &[&str]) {
    wait_until(PATIENCE, "the broker answers", || {
        let output = running.run(arguments);
        if output.status.success() {
            Ok(())
        } else {
            Err(text(&output))
        }
    });
}

#[test]
fn system_both_run_as_printed_each_with_a_broker_of_its_own() {
    if !is_root() {
        return skip("needs root: makes network namespaces");
    }
    let published = Published::as_printed();
    let for_python = dev("published-python");
    published.hello_in_python(for_python.netns());
    let for_java = dev("published-java");
    published.hello_in_java(for_java.netns());
}

#[test]
fn system_both_run_at_one_broker_each_in_a_virtual_host_of_its_own() {
    if !is_root() {
        return skip("needs root: makes network namespaces");
    }
    let published = Published::with_virtual_hosts();
    let running = dev("published-both");
    for vhost in ["python", "java"] {
        queue(&running, &["queue", "vhost", vhost]);
        queue(&running, &["queue", "permit", "guest", "--vhost", vhost]);
    }
    published.hello_in_python(running.netns());
    published.hello_in_java(running.netns());
    let queues: Vec<serde_json::Value> = running.json(&["queue", "ls"]).unwrap();
    let mut seen: Vec<(&str, &str, bool)> = queues
        .iter()
        .map(|queue| {
            let text = |key: &str| queue[key].as_str().unwrap();
            (text("vhost"), text("name"), queue["durable"] == true)
        })
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, [("java", "hello", true), ("python", "hello", false)]);
}

#[test]
fn system_in_one_virtual_host_the_second_is_refused_in_the_words_of_rabbitmq() {
    if !is_root() {
        return skip("needs root: makes network namespaces");
    }
    let published = Published::as_printed();
    let running = dev("published-one");
    let netns = running.netns();
    let java = published.java_is_refused(netns);
    queue(&running, &["queue", "delete", "hello"]);
    let python = published.python_is_refused(netns);
    for (refusal, received, current) in [(&java, "true", "false"), (&python, "false", "true")] {
        let wanted = format!(
            "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'hello' in vhost '/': \
             received '{received}' but current is '{current}'"
        );
        assert!(refusal.contains(&wanted), "{refusal}");
    }

    let rabbitmq = AtRabbitMq::start();
    assert_eq!(published.java_is_refused(&rabbitmq.netns), java);
    rabbitmq.delete_hello();
    assert_eq!(published.python_is_refused(&rabbitmq.netns), python);
}

/// RabbitMQ in a network of its own.
struct AtRabbitMq {
    node: RabbitMq,
    dir: TempDir,
    netns: Netns,
}

impl AtRabbitMq {
    fn start() -> Self {
        let (dir, netns) = (TempDir::new("published-rabbitmq"), Netns::new());
        let node = netns.enter(|| {
            let options = RabbitMqOptions {
                port: Some(PORT),
                ..RabbitMqOptions::default()
            };
            let node = RabbitMq::start(&dir, &options);
            node.wait();
            let twin = SocketAddr::from((Ipv6Addr::LOCALHOST, PORT));
            TcpStream::connect(twin).expect("it listens on both addresses of localhost");
            node
        });
        Self { node, dir, netns }
    }

    fn delete_hello(&self) {
        self.netns
            .enter(|| self.node.ctl(&self.dir, &["delete_queue", "hello"]));
    }
}
