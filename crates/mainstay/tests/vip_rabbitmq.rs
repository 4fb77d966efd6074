//! A floating address in front of a cluster of RabbitMQ: a publisher and a consumer know the address alone, while its
//! holder is stopped, the holder's gateway is killed, and a node of the cluster is killed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mainstay_testkit::floating::{Kind, Link, Plan};
use mainstay_testkit::{Netns, Spawned, TempDir, is_root, program, skip, wait_until};
use rustix::process::Signal;

/// Three Erlang machines that start at once on two busy processors.
const START: Duration = Duration::from_secs(100);
const PATIENCE: Duration = Duration::from_secs(50);
/// Messages after which a step has been survived.
const ENOUGH: usize = 100;
const NODES: [&str; 3] = ["q1", "q2", "q3"];

/// Publishes numbers, each again until it is confirmed, and writes down those that are.
const PUBLISHER: &str = r#"
import os, sys, time, pika
host, book, stop = sys.argv[1:]
confirmed, number, channel = open(book, "w", buffering=1), 0, None
while not os.path.exists(stop):
    try:
        if channel is None:
            parameters = pika.ConnectionParameters(host, 5672, heartbeat=4, socket_timeout=2, stack_timeout=6, blocked_connection_timeout=6)
            channel = pika.BlockingConnection(parameters).channel()
            channel.confirm_delivery()
            channel.queue_declare("work", durable=True, arguments={"x-queue-type": "quorum"})
        channel.basic_publish("", "work", str(number).encode(), pika.BasicProperties(delivery_mode=2), mandatory=True)
        confirmed.write(f"{number}\n")
        number += 1
        time.sleep(0.005)
    except (pika.exceptions.AMQPError, OSError) as error:
        print(time.time(), "publisher:", repr(error), flush=True)
        channel = None
        time.sleep(0.05)
"#;

/// Writes down what comes before it acknowledges it.
const CONSUMER: &str = r#"
import os, sys, time, pika
host, book, stop = sys.argv[1:]
consumed = open(book, "w", buffering=1)
while not os.path.exists(stop):
    try:
        parameters = pika.ConnectionParameters(host, 5672, heartbeat=4, socket_timeout=2, stack_timeout=6, blocked_connection_timeout=6)
        channel = pika.BlockingConnection(parameters).channel()
        channel.basic_qos(prefetch_count=50)
        channel.queue_declare("work", durable=True, arguments={"x-queue-type": "quorum"})
        for method, _, body in channel.consume("work", inactivity_timeout=0.5):
            if method is not None:
                consumed.write(body.decode() + "\n")
                channel.basic_ack(method.delivery_tag)
            elif os.path.exists(stop):
                break
    except (pika.exceptions.AMQPError, OSError) as error:
        print(time.time(), "consumer:", repr(error), flush=True)
        time.sleep(0.05)
"#;

/// The programs of RabbitMQ: the wrappers in /usr/sbin change the account, the real ones stand in a directory by version.
fn sbin() -> Option<PathBuf> {
    program("rabbitmq-server");
    let versions = fs::read_dir("/usr/lib/rabbitmq/lib").ok()?;
    let mut dirs = versions.filter_map(|entry| Some(entry.ok()?.path().join("sbin")));
    dirs.find(|dir| dir.join("rabbitmq-server").exists())
}

/// Three nodes of RabbitMQ on one host of their own, whose loopback has their ports of distribution, and their epmd.
struct Cluster {
    nodes: [Option<Spawned>; 3],
    dir: TempDir,
    sbin: PathBuf,
    host: Netns,
}

impl Cluster {
    fn start(sbin: PathBuf, host: Netns) -> Self {
        let dir = TempDir::new("vip-rabbitmq");
        let cookie = dir.join(".erlang.cookie");
        fs::write(&cookie, "ACOOKIEOFATEST").unwrap();
        fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400)).unwrap();
        fs::write(dir.join("plugins"), "[].").unwrap();
        let mut conf =
            "loopback_users = none\ncluster_formation.peer_discovery_backend = classic_config\n"
                .to_owned();
        for (at, name) in NODES.iter().enumerate() {
            let number = at + 1;
            writeln!(
                conf,
                "cluster_formation.classic_config.nodes.{number} = {name}@localhost"
            )
            .unwrap();
        }
        fs::write(dir.join("rabbitmq.conf"), conf).unwrap();
        let mut cluster = Self {
            nodes: [None, None, None],
            dir,
            sbin,
            host,
        };
        cluster.nodes = [0, 1, 2].map(|at| Some(cluster.start_node(at)));
        cluster
    }

    fn command(&self, program_name: &str) -> Command {
        let mut command = self.host.command(&self.sbin.join(program_name));
        command.env("HOME", self.dir.path());
        command
    }

    fn start_node(&self, at: usize) -> Spawned {
        let (name, dir) = (NODES[at], &self.dir);
        let mut command = self.command("rabbitmq-server");
        command
            .env("RABBITMQ_NODENAME", format!("{name}@localhost"))
            .env("RABBITMQ_NODE_IP_ADDRESS", "10.88.0.10")
            .env("RABBITMQ_NODE_PORT", (5701 + at).to_string())
            .env("RABBITMQ_DIST_PORT", (25701 + at).to_string())
            .env("RABBITMQ_MNESIA_BASE", dir.join(format!("{name}-mnesia")))
            .env("RABBITMQ_LOG_BASE", dir.join(format!("{name}-log")))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("plugins"))
            .env("RABBITMQ_CONFIG_FILE", dir.join("rabbitmq"))
            .env("RABBITMQ_PID_FILE", dir.join(format!("{name}.pid")))
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1",
            );
        Spawned::start(dir, name, &mut command)
    }

    fn ctl(&self, node: usize, words: &[&str]) -> Result<String, String> {
        let mut command = self.command("rabbitmqctl");
        command.args(["-q", "-n", &format!("{}@localhost", NODES[node])]);
        let output = command.args(words).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(said)
        } else {
            Err(format!("{said}{}", String::from_utf8_lossy(&output.stderr)))
        }
    }

    fn wait_formed(&self) {
        let log = |at: usize| {
            self.nodes[at]
                .as_ref()
                .map(Spawned::log)
                .unwrap_or_default()
        };
        wait_until(START, "three nodes run as one", || {
            // Each call starts an Erlang machine, so that it is made when all have written that they run.
            if let Some(at) = (0..3).find(|at| !log(*at).contains("completed with")) {
                return Err(format!("{}: {}", NODES[at], log(at)));
            }
            let running = self.ctl(
                0,
                &["eval", "length(rabbit_mnesia:cluster_nodes(running))."],
            )?;
            if running.trim() == "3" {
                Ok(())
            } else {
                Err(running)
            }
        });
    }

    /// Kills the node at which the queue's leader is.
    fn kill_leader(&mut self) -> &'static str {
        let listed = self.ctl(0, &["list_queues", "name", "leader"]).unwrap();
        let at = NODES
            .iter()
            .position(|name| listed.contains(&format!("{name}@localhost")));
        let at = at.unwrap_or_else(|| panic!("{listed}"));
        drop(self.nodes[at].take());
        NODES[at]
    }
}

/// The publisher and the consumer, and what they wrote down.
struct Clients {
    _processes: [Spawned; 2],
    dir: TempDir,
}

impl Clients {
    fn start(link: &Link) -> Self {
        let dir = TempDir::new("vip-rabbitmq-clients");
        let start = |name: &str, script: &str| {
            let file = dir.join(format!("{name}.py"));
            fs::write(&file, script).unwrap();
            let mut command = link.client(&program("python3"));
            command.arg("-u").arg(file).arg("10.88.0.100");
            command
                .arg(dir.join(name))
                .arg(dir.join(format!("{name}-stop")));
            Spawned::start(&dir, name, &mut command)
        };
        let processes = [start("publisher", PUBLISHER), start("consumer", CONSUMER)];
        Self {
            _processes: processes,
            dir,
        }
    }

    fn numbers(&self, name: &str) -> Vec<u64> {
        let book = fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        // The last line may be half written.
        let whole = book.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// Waits until both have got on.
    fn wait_progress(&self, when: &str) {
        let count = || ["publisher", "consumer"].map(|name| self.numbers(name).len());
        let before = count();
        wait_until(PATIENCE, when, || {
            let now = count();
            if now[0] >= before[0] + ENOUGH && now[1] >= before[1] + ENOUGH {
                return Ok(());
            }
            Err(format!("{before:?}, {now:?}\n{}", self.logs()))
        });
        println!("{when}: {:?} confirmed and consumed", count());
    }

    fn logs(&self) -> String {
        let log = |name: &str| {
            let text = fs::read_to_string(self.dir.join(format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(6)..].join("\n")
        };
        format!("{}\n{}", log("publisher"), log("consumer"))
    }

    fn stop(&self, name: &str) {
        fs::write(self.dir.join(format!("{name}-stop")), "").unwrap();
    }
}

/// What `ip address` says, and the journals' lines on moves.
fn print_moves(link: &Link, when: &str) {
    println!("{when}: {:?} hold 10.88.0.100", link.holders());
    for at in [0, 1] {
        let log = link.log(at);
        for line in log
            .lines()
            .filter(|line| line.contains("STATE") || line.contains("let its clients go"))
        {
            println!("  {}: {line}", ["a", "b"][at]);
        }
    }
}

#[test]
fn system_no_confirmed_message_is_lost_while_holders_gateways_and_a_node_of_rabbitmq_fail() {
    if !is_root() {
        return skip("needs root: makes network namespaces");
    }
    program("/usr/lib/python3/dist-packages/pika/__init__.py");
    let Some(sbin) = sbin() else {
        return skip("RabbitMQ's package is laid out otherwise here");
    };
    let listen = "[listen.rabbitmq]\nbind = \":5672\"\n\
        servers = [\"10.88.0.10:5701\", \"10.88.0.10:5702\", \"10.88.0.10:5703\"]\n\
        check = { amqp = true, every = \"500ms\", fall = 1, rise = 1 }\non_down = \"close\"\n";
    let mut link = Link::new(
        Path::new(env!("CARGO_BIN_EXE_mainstay")),
        [Kind::Ours, Kind::Ours],
        &Plan {
            gateway: true,
            keys: [listen.to_owned(), listen.to_owned()],
            ..Plan::default()
        },
    );
    let host = Netns::new();
    link.plug(&host, "q", "10.88.0.10/24");
    let mut cluster = Cluster::start(sbin, host);
    cluster.wait_formed();
    for at in [0, 1] {
        link.start(at);
        link.wait_track(at, "works");
    }
    link.wait_holder(0, "the better one starts alone");
    let clients = Clients::start(&link);
    clients.wait_progress("at the begin");

    link.stop(0);
    link.wait_holder(1, "the holder was stopped");
    clients.wait_progress("the holder was stopped");
    print_moves(&link, "the holder was stopped");

    link.start(0);
    link.wait_track(0, "works");
    link.wait_state(0, "backup");
    link.signal(1, "gateway", Signal::KILL);
    link.wait_holder(0, "the holder's gateway was killed");
    clients.wait_progress("the holder's gateway was killed");
    print_moves(&link, "the holder's gateway was killed");

    let killed = cluster.kill_leader();
    clients.wait_progress(&format!(
        "{killed} of RabbitMQ was killed, which led the queue"
    ));

    clients.stop("publisher");
    let confirmed: BTreeSet<u64> = clients.numbers("publisher").into_iter().collect();
    wait_until(PATIENCE, "every confirmed message was consumed", || {
        let consumed: BTreeSet<u64> = clients.numbers("consumer").into_iter().collect();
        let lost: Vec<&u64> = confirmed.difference(&consumed).take(10).collect();
        if lost.is_empty() {
            Ok(())
        } else {
            Err(format!("{lost:?}\n{}", clients.logs()))
        }
    });
    let consumed = clients.numbers("consumer");
    let different: BTreeSet<&u64> = consumed.iter().collect();
    println!(
        "{} confirmed, 0 lost, {} came twice",
        confirmed.len(),
        consumed.len() - different.len()
    );
    clients.stop("consumer");
}
