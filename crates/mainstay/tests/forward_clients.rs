//! A whole node that forwards, and who reaches its services: programs of the node itself, of another
//! host, and of a container behind a bridge, before, during and after instances come and go.

#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use mainstay_api::wire::{InstanceState, InstanceStatus, Status};
use mainstay_testkit::{Netns, Spawned, is_root, program, skip, wait_until};
use running::{MAINSTAY, PATIENCE, Running, kill, python_server, text};
use rustix::process::Signal;

const NEEDS_ROOT: &str = "needs root: makes network namespaces and rules in them";

/// Answers every question of DNS with 192.0.2.7, and accepts connections, which is how it is probed.
const DNS: &str = r#"
import os, socket, threading
at = (os.environ["HOST"], int(os.environ["PORT"]))
tcp = socket.create_server(at)
threading.Thread(target=lambda: [tcp.accept()[0].close() for _ in iter(int, 1)], daemon=True).start()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(at)
while True:
    query, client = udp.recvfrom(512)
    end = query.index(0, 12) + 5
    head = query[:2] + b"\x85\x80\0\1\0\1\0\0\0\0"
    udp.sendto(head + query[12:end] + b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4\xc0\0\2\x07", client)
"#;

/// Connects again and again until it is told to end, and prints of each connection when it began, how
/// long it took, and who answered or what went wrong.
const CLIENT: &str = r#"
import socket, sys, time
to = (sys.argv[1], int(sys.argv[2]))
while True:
    began = time.time()
    try:
        with socket.create_connection(to, timeout=2) as client:
            client.settimeout(2)
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while piece := client.recv(1000):
                answer += piece
        said = answer.split(b"\n")[-2].decode()
    except Exception as error:
        said = "failed:" + type(error).__name__
    print("%.3f %.3f %s" % (began, time.time() - began, said), flush=True)
    time.sleep(0.005)
"#;

/// Three places from which services are reached.
struct Places {
    running: Running,
    host: Netns,
    container: Netns,
}

fn ip(netns: &Netns, line: &str) {
    let output = netns
        .command(&program("ip"))
        .args(line.split(' '))
        .output()
        .unwrap();
    assert!(output.status.success(), "ip {line}: {}", text(&output));
}

impl Places {
    fn make() -> Self {
        let mut running = Running::prepare("forward-clients").in_own_network();
        let (host, container) = (Netns::new(), Netns::new());
        Netns::join((running.netns(), "10.77.0.1/24"), (&host, "10.77.0.2/24"));
        ip(&host, "route add 10.96.0.0/16 via 10.77.0.1");
        // As Docker has them: a bridge, and the container's end of a pair on it.
        Netns::join(
            (running.netns(), "10.87.0.1/24"),
            (&container, "10.88.0.2/24"),
        );
        let links = running
            .command(&program("ip"))
            .args(["-o", "address"])
            .output()
            .unwrap();
        let links = text(&links);
        let outer = links
            .lines()
            .find(|line| line.contains("10.87.0.1"))
            .unwrap();
        let outer = outer.split_whitespace().nth(1).unwrap().to_owned();
        for line in [
            "link add bridge0 type bridge".to_owned(),
            "address add 10.88.0.1/24 dev bridge0".to_owned(),
            "link set bridge0 up".to_owned(),
            format!("address flush dev {outer}"),
            format!("link set {outer} master bridge0"),
        ] {
            ip(running.netns(), &line);
        }
        ip(&container, "route add default via 10.88.0.1");
        fs::set_permissions(running.dir.join("."), fs::Permissions::from_mode(0o777)).unwrap();
        let file = write_files(&running);
        let mut command = running.command(Path::new(MAINSTAY));
        command.args(["run", "--config"]).arg(file);
        running.start(command);
        Self {
            running,
            host,
            container,
        }
    }

    /// A command that runs at each place.
    fn at_each(&self, program_path: &Path) -> [(&'static str, Command); 3] {
        [
            ("itself", self.running.command(program_path)),
            ("host", self.host.command(program_path)),
            ("container", self.container.command(program_path)),
        ]
    }

    /// What a program prints at each place; it has to be the same.
    fn says(&self, program_path: &Path, arguments: &[&str]) -> String {
        let said = self.at_each(program_path).map(|(place, mut command)| {
            let output = command.args(arguments).output().unwrap();
            assert!(output.status.success(), "{place}: {}", text(&output));
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        });
        assert!(said.iter().all(|one| *one == said[0]), "{said:?}");
        said[0].clone()
    }
}

fn write_files(running: &Running) -> PathBuf {
    let python = program("python3").display().to_string();
    let web = running
        .write("web.py", &python_server(""))
        .display()
        .to_string();
    let dns = running.write("dns.py", DNS).display().to_string();
    let versions = fs::read_dir("/usr/lib/postgresql").expect("its package is installed");
    let bin = versions
        .map(|one| one.unwrap().path().join("bin"))
        .max()
        .unwrap();
    let (bin, data) = (
        bin.display(),
        running.dir.join("data").display().to_string(),
    );
    let database = running.write(
        "database.sh",
        &format!(
            "set -e\n[ -d {data} ] || {{ {bin}/initdb --auth=trust --no-sync --username=postgres \
             --pgdata {data}; echo 'host all all 0.0.0.0/0 trust' >> {data}/pg_hba.conf; }}\n\
             exec {bin}/postgres -D {data} -h $HOST -p $PORT -c unix_socket_directories= -c fsync=off\n"
        ),
    );
    let shell = program("sh").display().to_string();
    let database = database.display();
    let services = running.write(
        "services.toml",
        &format!(
            "[service.web]\nexec = ['{python}', '-u', '{web}']\naddress = '10.96.0.1:80'\n\
             instances = 3\nrollout = {{ hold = '100ms' }}\ndrain = '20s'\n\
             [service.names]\nexec = ['{python}', '-u', '{dns}']\naddress = '10.96.0.53:53'\n\
             instances = 2\nrollout = {{ hold = '100ms' }}\n\
             [service.database]\nexec = ['{shell}', '{database}']\nuser = 'postgres'\n\
             address = '10.96.0.5:5432'\nrollout = {{ hold = '100ms' }}\n"
        ),
    );
    running.write_node(
        "[\"control\", \"agent\", \"gateway\"]\nservices = 'services.toml'\naddress = '10.77.0.1'",
        &format!("[forward]\nrange = '10.96.0.0/16' # {}", services.display()),
    )
}

/// A client that connects to the web service until the test ends.
struct Load {
    place: &'static str,
    spawned: Spawned,
}

impl Load {
    fn start(places: &Places, script: &Path) -> [Self; 3] {
        places
            .at_each(&program("python3"))
            .map(|(place, mut command)| {
                command.arg("-u").arg(script).args(["10.96.0.1", "80"]);
                let spawned = Spawned::start(&places.running.dir, place, &mut command);
                Self { place, spawned }
            })
    }

    /// When each connection began, how long it took, and what came of it.
    fn seen(&self) -> Vec<(f64, f64, String)> {
        let log = self.spawned.log();
        // The last line may be half of one.
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let mut number = || words.next()?.parse().ok();
            let (began, took) = (number()?, number()?);
            Some((began, took, words.next()?.to_owned()))
        });
        lines.collect()
    }

    fn failed_since(&self, since: f64) -> Vec<(f64, f64, String)> {
        let seen = self.seen().into_iter();
        seen.filter(|(began, _, said)| *began >= since && said.starts_with("failed"))
            .collect()
    }
}

fn now() -> f64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

/// Waits until every place was answered by exactly these since `since`, some times in a row.
#[track_caller]
fn wait_for_answers_of(loads: &[Load], wanted: &BTreeSet<String>) {
    const IN_A_ROW: usize = 60;
    for load in loads {
        wait_until(PATIENCE, "the instances that answer", || {
            let seen = load.seen();
            let last = seen.iter().rev().take(IN_A_ROW);
            let last: BTreeSet<String> = last.map(|(_, _, said)| said.clone()).collect();
            if last == *wanted {
                Ok(())
            } else {
                Err(format!("{}: {last:?}", load.place))
            }
        });
    }
}

fn web(running: &Running) -> BTreeSet<String> {
    let instances = running.instances().unwrap().into_iter();
    let web = instances.filter(|one| one.instance.service.as_str() == "web");
    let ready = web.filter(|one| one.state == InstanceState::Ready);
    ready.map(|one| one.instance.to_string()).collect()
}

const ASK: [&str; 7] = [
    "-h",
    "10.96.0.5",
    "-U",
    "postgres",
    "-AtX",
    "-c",
    "select 6 * 7",
];
const LOOK_UP: [&str; 4] = ["@10.96.0.53", "+short", "+tries=1", "orders.example"];
const FETCH: [&str; 5] = [
    "--silent",
    "--fail",
    "--output",
    "/dev/null",
    "http://10.96.0.1/",
];

#[test]
fn system_services_are_reached_from_everywhere_while_instances_come_and_go() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let places = Places::make();
    let running = &places.running;
    wait_until(PATIENCE, "all services are steady", || {
        let status: Status = running.json(&["status"])?;
        let steady = status.services.iter().filter(|one| one.address.is_some());
        if steady.count() == 3 && running.run(&["status"]).status.success() {
            Ok(())
        } else {
            Err(format!("{status:?}"))
        }
    });
    assert_eq!(places.says(&program("psql"), &ASK), "42");
    assert_eq!(places.says(&program("dig"), &LOOK_UP), "192.0.2.7");
    assert_eq!(places.says(&program("curl"), &FETCH), "");
    let script = running.write("client.py", CLIENT);
    let loads = Load::start(&places, &script);
    wait_for_answers_of(&loads, &web(running));
    nobody_notices_one_more_and_one_drained(running, &loads);
    one_killed_fails_only_what_it_had(running, &loads);
    one_cut_off_is_found_out(running, &loads);
    assert_eq!(places.says(&program("psql"), &ASK), "42");
    assert_eq!(places.says(&program("dig"), &LOOK_UP), "192.0.2.7");
}

#[track_caller]
fn done(running: &Running, arguments: &[&str]) {
    let output = running.run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
}

#[track_caller]
fn none_failed_since(loads: &[Load], since: f64) {
    for load in loads {
        let failed = load.failed_since(since);
        assert!(failed.is_empty(), "{}: {failed:?}", load.place);
    }
}

fn instance(running: &Running, name: &str) -> InstanceStatus {
    let mut instances = running.instances().unwrap().into_iter();
    instances
        .find(|one| one.instance.to_string() == name)
        .unwrap()
}

fn nobody_notices_one_more_and_one_drained(running: &Running, loads: &[Load]) {
    let began = now();
    done(running, &["scale", "web", "4"]);
    wait_for_answers_of(loads, &web(running));
    done(running, &["drain", "web-1"]);
    let mut left = web(running);
    left.remove("web-1");
    wait_for_answers_of(loads, &left);
    done(running, &["undrain", "web-1"]);
    wait_for_answers_of(loads, &web(running));
    none_failed_since(loads, began);
}

/// And what came within the moment of its death.
fn one_killed_fails_only_what_it_had(running: &Running, loads: &[Load]) {
    let killed = now();
    let victim = instance(running, "web-2");
    kill(victim.pid.unwrap(), Signal::KILL);
    wait_until(PATIENCE, "it is back", || {
        let now = instance(running, "web-2");
        let again = now.attempt > victim.attempt && now.state == InstanceState::Ready;
        if again {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    });
    wait_for_answers_of(loads, &web(running));
    none_failed_since(loads, killed + 0.5);
}

/// By its probes.
fn one_cut_off_is_found_out(running: &Running, loads: &[Load]) {
    let cut = now();
    let port = instance(running, "web-3").address.unwrap().port();
    let nft = |line: &str| {
        let output = running
            .command(&program("nft"))
            .args(line.split(' '))
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "nft {line}: {}", text(&output));
    };
    nft("add table inet cut");
    nft("add chain inet cut in { type filter hook input priority -300 ; }");
    nft(&format!("add rule inet cut in tcp dport {port} drop"));
    let mut left = web(running);
    left.remove("web-3");
    wait_for_answers_of(loads, &left);
    none_failed_since(loads, cut + 10.0);
    assert_eq!(instance(running, "web-3").state, InstanceState::Failing);
    nft("delete table inet cut");
    wait_until(PATIENCE, "all four answer again", || {
        let ready = web(running);
        if ready.len() == 4 {
            Ok(())
        } else {
            Err(format!("{ready:?}"))
        }
    });
    wait_for_answers_of(loads, &web(running));
}
