//! Real servers behind a listener, and their own clients before it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod listening;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use listening::{Listening, draft, local, ms, quick};
use mainstay_control::listen::Standing;
use mainstay_model::listen::{CheckKind, CheckSpec, ListenDraft, OnDown};
use mainstay_testkit::{Spawned, TempDir, free_port, is_root, program, skip, wait_until};
use rustix::process::Signal;

/// Databases start slowly on a busy machine.
const START: Duration = Duration::from_mins(2);

/// What a client printed, once it succeeds.
fn wait_for_answer(what: &str, mut ask: impl FnMut() -> Output) -> String {
    wait_until(START, what, || {
        let output = ask();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(said.trim().to_owned())
        } else {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(format!("{}: {said}{why}", output.status))
        }
    })
}

fn redis(dir: &TempDir, name: &str, more: &[&str]) -> (Spawned, SocketAddr) {
    let port = free_port();
    let mut command = Command::new(program("redis-server"));
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
    command
        .args(["--save", "", "--appendonly", "no"])
        .args(more);
    (Spawned::start(dir, name, &mut command), local(port))
}

fn redis_cli(at: SocketAddr, words: &[&str]) -> Output {
    let mut command = Command::new(program("redis-cli"));
    command.args(["-h", "127.0.0.1", "-p", &at.port().to_string()]);
    command.args(words).output().unwrap()
}

#[test]
fn system_redis_is_served_and_its_replica_takes_over_reading() {
    let dir = TempDir::new("listen-redis");
    let (main, main_at) = redis(&dir, "main", &[]);
    let port = main_at.port().to_string();
    let (_replica, replica_at) = redis(&dir, "replica", &["--replicaof", "127.0.0.1", &port]);
    for at in [main_at, replica_at] {
        wait_for_answer("redis answers", || redis_cli(at, &["ping"]));
    }
    let mut both = draft(&[main_at, replica_at]);
    both.servers[1].rank = mainstay_model::listen::Rank::Backup;
    let listening = Listening::start(both);
    let front = listening.front;
    let said = wait_for_answer("a value is set", || redis_cli(front, &["set", "k", "v"]));
    assert_eq!(said, "OK");
    let big = "x".repeat(100_000);
    redis_cli(front, &["set", "big", &big]);
    assert_eq!(
        wait_for_answer("it is read", || redis_cli(front, &["get", "big"])),
        big
    );
    wait_until(START, "the replica has it", || {
        let said = redis_cli(replica_at, &["get", "k"]);
        if said.stdout.starts_with(b"v") {
            Ok(())
        } else {
            Err(format!("{said:?}"))
        }
    });
    main.signal(Signal::KILL);
    let said = wait_for_answer("the replica answers", || redis_cli(front, &["get", "k"]));
    assert_eq!(said, "v");
}

/// Where Debian keeps the programs of the newest PostgreSQL, which are in nobody's PATH.
fn postgres_dir() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("its package is installed");
    let mut dirs: Vec<PathBuf> = versions
        .map(|entry| entry.unwrap().path().join("bin"))
        .collect();
    dirs.sort();
    dirs.pop().expect("its package brings a version")
}

/// PostgreSQL refuses to run as root, so it runs as its own account there.
fn as_postgres(program_path: &Path) -> Command {
    if !is_root() {
        return Command::new(program_path);
    }
    let mut command = Command::new(program("setpriv"));
    command.args([
        "--reuid=postgres",
        "--regid=postgres",
        "--clear-groups",
        "--",
    ]);
    command.arg(program_path);
    command
}

#[test]
fn system_postgresql_is_served_through_a_restart_and_long_sessions_are_kept() {
    // Below /tmp itself: its account must reach it.
    let dir = TempDir::new("listen-postgres");
    fs::set_permissions(dir.join("."), fs::Permissions::from_mode(0o777)).unwrap();
    let (bin, data, port) = (postgres_dir(), dir.join("data"), free_port());
    let made = as_postgres(&bin.join("initdb"))
        .args([
            "--auth=trust",
            "--no-sync",
            "--username=postgres",
            "--pgdata",
        ])
        .arg(&data)
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let start = |name: &str| {
        let mut command = as_postgres(&bin.join("postgres"));
        command
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-h", "127.0.0.1"]);
        command.args(["-c", "unix_socket_directories=", "-c", "fsync=off"]);
        Spawned::start(&dir, name, &mut command)
    };
    let first = start("postgres");
    let mut slow = draft(&[local(port)]);
    slow.timeouts.connect = Duration::from_secs(20);
    let listening = Listening::start(slow);
    let psql = |query: &str| {
        let mut command = Command::new(program("psql"));
        command.args(["-h", "127.0.0.1", "-p", &listening.front.port().to_string()]);
        command
            .args(["-U", "postgres", "-AtX", "-c", query])
            .output()
            .unwrap()
    };
    assert_eq!(wait_for_answer("it answers", || psql("select 6 * 7")), "42");
    // 4 MB of answer, so that it is spliced.
    let said = wait_for_answer("a long answer", || {
        psql("select string_agg(md5(n::text), '') from generate_series(1, 125000) n")
    });
    assert_eq!(said.len(), 125_000 * 32);
    wait_for_answer("a table is made", || {
        psql("create table t as select 1 as n")
    });
    // A fast shutdown, as an operator does it; the client that comes then waits for the new one.
    first.signal(Signal::INT);
    first.wait(START);
    let _second = start("postgres-again");
    let answer = psql("select n from t");
    let error = String::from_utf8_lossy(&answer.stderr).into_owned();
    // Only that it is starting up may be told, which PostgreSQL itself says.
    assert!(
        answer.status.success() || error.contains("starting up"),
        "{error}"
    );
    assert_eq!(
        wait_for_answer("it answers", || psql("select n from t")),
        "1"
    );
}

/// A node of RabbitMQ of its own: directories, ports and cookie are this test's.
fn rabbitmq(dir: &TempDir) -> Option<(Spawned, SocketAddr)> {
    // The wrapper in /usr/sbin changes the account; the real one stands in a directory by version.
    program("rabbitmq-server");
    let versions = fs::read_dir("/usr/lib/rabbitmq/lib").ok()?;
    let server = versions
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("sbin/rabbitmq-server"))
        .find(|path| path.exists())?;
    let (port, other) = (free_port(), free_port());
    let cookie = dir.join(".erlang.cookie");
    fs::write(&cookie, "ACOOKIEOFATEST").unwrap();
    fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400)).unwrap();
    let mut command = Command::new(server);
    command
        .env("HOME", dir.join("."))
        .env("ERL_EPMD_PORT", free_port().to_string())
        .env("RABBITMQ_NODENAME", format!("listen{port}@localhost"))
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODE_PORT", port.to_string())
        .env("RABBITMQ_DIST_PORT", other.to_string())
        .env("RABBITMQ_MNESIA_BASE", dir.join("mnesia"))
        .env("RABBITMQ_LOG_BASE", dir.join("log"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("plugins"))
        .env("RABBITMQ_CONFIG_FILE", dir.join("rabbitmq"))
        .env("RABBITMQ_PID_FILE", dir.join("pid"))
        .env(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-kernel inet_dist_use_interface {127,0,0,1}",
        );
    Some((Spawned::start(dir, "rabbitmq", &mut command), local(port)))
}

/// Begins a connection through the listener and reads the first frame's class and method.
fn first_method(front: SocketAddr) -> Option<[u8; 4]> {
    use std::io::{Read, Write};
    let mut stream = listening::connect(front);
    stream.write_all(b"AMQP\0\0\x09\x01").ok()?;
    let mut head = [0; 11];
    stream.read_exact(&mut head).ok()?;
    head[7..].try_into().ok()
}

#[test]
fn system_rabbitmq_is_up_by_amqp_and_down_when_it_hangs_behind_an_open_port() {
    let dir = TempDir::new("listen-rabbitmq");
    let Some((broker, at)) = rabbitmq(&dir) else {
        skip("RabbitMQ's package is laid out otherwise here");
        return;
    };
    let listening = Listening::start(ListenDraft {
        check: Some(CheckSpec {
            timeout: ms(2000),
            ..quick(CheckKind::Amqp)
        }),
        on_down: OnDown::Close,
        ..draft(&[at])
    });
    wait_until(START, "the broker takes clients", || {
        let server = listening.server("a");
        match server.standing {
            Standing::Up => Ok(()),
            other => Err(format!("{other:?} {:?}\n{}", server.check, broker.log())),
        }
    });
    let report = listening.server("a").check.unwrap();
    assert_eq!((report.code, report.failure), ("L7OK", None));
    assert_eq!(first_method(listening.front), Some([0, 10, 0, 10]));
    // The kernel still accepts for a process that is stopped: a check of the port sees nothing.
    let beam = beam_of(&broker);
    rustix::process::kill_process(beam, Signal::STOP).unwrap();
    let tcp = Listening::start(draft(&[at]));
    listening.wait("a hanging broker is down", |listen| {
        listen.servers[0].standing == Standing::Down
    });
    assert_eq!(listening.server("a").check.unwrap().code, "L7TOUT");
    tcp.wait("for its port it is up", |listen| {
        listen.servers[0].standing == Standing::Up
    });
    rustix::process::kill_process(beam, Signal::CONT).unwrap();
    listening.wait("it is up again", |listen| {
        listen.servers[0].standing == Standing::Up
    });
}

/// The process that runs the broker: the Erlang machine in the group of what was started.
fn beam_of(broker: &Spawned) -> rustix::process::Pid {
    let mut processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let found = processes.find_map(|entry| {
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (head, rest) = stat.rsplit_once(')')?;
        let group: i32 = rest.split_whitespace().nth(2)?.parse().ok()?;
        let beam = head.contains("(beam") && group == broker.pid().as_raw_nonzero().get();
        let number: i32 = head.split(' ').next()?.parse().ok()?;
        beam.then(|| rustix::process::Pid::from_raw(number))
            .flatten()
    });
    found.expect("an Erlang machine runs")
}
