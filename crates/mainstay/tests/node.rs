//! `mainstay run`: the processes of a node as its file says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod running;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use mainstay_testkit::{Ended, wait_until};
use rustix::process::Signal;

use running::{MAINSTAY, PATIENCE, Running, kill, processes, python_server, text};

/// The status of an answer of the gateway.
fn status(entry: SocketAddr) -> Result<u16, String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(entry)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| error.to_string())?;
    let code_of = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    code_of.ok_or(answer)
}

#[test]
fn system_a_node_is_as_its_file_says_and_changes_of_the_file_need_no_restart() {
    let mut running = Running::prepare("node");
    running.write_service(&python_server(""), "http = { path = \"/\" }");
    let all = "['control', 'agent', 'gateway']";
    let services = |roles: &str| format!("{roles}\nservices = 'services.toml'");
    let file = running.write_node(&services(all), "");
    running.node(&file, &[]);
    let seen = running.wait_until_steady();
    assert_eq!(Running::get(&seen, "/").0, 200);
    let gateway = running.own_process("gateway");
    let log = running.state().join("logs/access.log");
    let is_logged = |path: &str| {
        wait_until(PATIENCE, "the request is logged", || {
            assert_eq!(Running::get(&seen, path).0, 200);
            let lines = fs::read_to_string(&log).unwrap_or_default();
            if lines.contains(path) {
                Ok(())
            } else {
                Err(lines)
            }
        });
    };
    is_logged("/before");

    running.write_node(
        &services(all),
        "access_log = false\n[gateway.limits]\nqueue_len = 7",
    );
    running.wait_for_output("the gateway's changed settings are in force");
    let gateway_log = running.state().join("logs/gateway.log");
    wait_until(PATIENCE, "the gateway has read them", || {
        let said = fs::read_to_string(&gateway_log).unwrap_or_default();
        if said.contains("changed settings are in force") {
            Ok(())
        } else {
            Err(said)
        }
    });
    assert_eq!(Running::get(&seen, "/while-off").0, 200);
    let settings = fs::read_to_string(running.state().join("gateway/settings.json")).unwrap();
    assert!(settings.contains("\"queue_len\": 7"), "{settings}");

    // Broken: told with its place, and nothing changes.
    running.write_node(&services(all), "access_lgo = true");
    running.wait_for_output("node.toml:10:1: error[unknown_key]: gateway.access_lgo");
    running.wait_for_output("what it said before stays in force");
    // What is read at the start only is told.
    running.write_node(&services(all), "access_log = true");
    let three = fs::read_to_string(&file).unwrap();
    fs::write(&file, three.replace("workers = 2", "workers = 3")).unwrap();
    running.wait_for_output("`workers` in `[gateway]` changed");
    is_logged("/after");
    let lines = fs::read_to_string(&log).unwrap();
    assert!(!lines.contains("/while-off"), "{lines}");
    assert_eq!(
        running.own_process("gateway"),
        gateway,
        "nobody was restarted"
    );

    let (ended, said) = running.stop();
    assert_eq!(ended, Ended::Code(0), "{said}");
    for role in ["server", "agent", "gateway", "shim"] {
        assert_eq!(processes(running.state(), role), [0_u32; 0], "{said}");
    }
}

#[test]
fn system_a_gateway_alone_serves_is_adopted_and_tells_systemd_where_it_is() {
    let mut running = Running::prepare("gateway-alone");
    let file = running.write_node("['gateway']", "");
    let path = running.dir.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut text = [0; 64];
        let len = socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..len]).into_owned()
    };
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    running.node(&file, &variables);
    assert_eq!(told(), "READY=1");
    let entry = running.entry();
    wait_until(PATIENCE, "the gateway answers", || match status(entry) {
        Ok(404) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(processes(running.state(), "server").is_empty());
    assert!(processes(running.state(), "agent").is_empty());

    let gateway = running.own_process("gateway").unwrap();
    running.kill_dev();
    assert_eq!(status(entry), Ok(404), "it goes on without a supervisor");
    running.node(&file, &variables);
    running.wait_for_output("adopting 1 processes of an earlier start");
    assert_eq!(told(), "READY=1");
    assert_eq!(running.own_process("gateway"), Some(gateway));
    kill(gateway, Signal::KILL);
    wait_until(PATIENCE, "the next gateway answers", || {
        match status(entry) {
            Ok(404) if running.own_process("gateway") != Some(gateway) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    running.spawned().signal(Signal::TERM);
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(running.spawned().wait(PATIENCE), Ended::Code(0));
    assert!(processes(running.state(), "gateway").is_empty());
}

/// The status of an answer of the statistics, asked for with this name and password.
fn stats_status(stats: SocketAddr, authorization: Option<&str>) -> u16 {
    let mut stream = TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, stats.port())).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let field = authorization.map_or(String::new(), |value| format!("authorization: {value}\r\n"));
    let request = format!("GET /stats;csv HTTP/1.1\r\nhost: node.example\r\n{field}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn system_statistics_for_other_machines_need_the_name_and_the_password_of_the_file() {
    let mut running = Running::prepare("node-stats");
    let open = |auth: &str| {
        let file = running.write_node("['gateway']", auth);
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("stats = 'off'", "stats = '0.0.0.0:0'")).unwrap();
        file
    };
    let file = open("");
    let refused = Command::new(MAINSTAY)
        .arg("validate")
        .arg(&file)
        .output()
        .unwrap();
    assert!(!refused.status.success(), "{}", text(&refused));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned() + &text(&refused);
    assert!(told.contains("stats_auth"), "{told}");

    let file = open("stats_auth = 'Aladdin:open sesame'");
    running.node(&file, &[]);
    let entry = running.entry();
    wait_until(PATIENCE, "the gateway answers", || match status(entry) {
        Ok(404) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let record = fs::read(running.state().join("supervisor.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let stats: SocketAddr = record["stats"].as_str().unwrap().parse().unwrap();
    assert_eq!(stats_status(stats, None), 401);
    // Aladdin:wrong
    assert_eq!(stats_status(stats, Some("Basic QWxhZGRpbjp3cm9uZw==")), 401);
    let right = Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    assert_eq!(stats_status(stats, right), 200);
}

#[test]
fn system_a_node_file_is_validated_and_described() {
    let running = Running::prepare("validate-node");
    let file = running.write_node("['gateway']", "");
    let run = |arguments: &[&str]| Command::new(MAINSTAY).args(arguments).output().unwrap();
    let good = run(&["validate", file.to_str().unwrap()]);
    assert!(good.status.success(), "{}", text(&good));
    assert!(text(&good).contains("a node file, its roles: gateway"));
    let empty = running.write("empty.toml", "");
    let node = run(&["validate", "--node", empty.to_str().unwrap()]);
    assert!(node.status.success(), "{}", text(&node));
    let services = run(&["validate", empty.to_str().unwrap()]);
    assert_eq!(services.status.code(), Some(2), "{}", text(&services));
    let bad = running.write("bad.toml", "site = 'north'\n[gatway]\n");
    let bad = run(&["validate", bad.to_str().unwrap()]);
    assert_eq!(bad.status.code(), Some(2));
    let said = text(&bad);
    for told in [
        "bad.toml:1:1: error[not_in_this_version]: site: ",
        "bad.toml:2:2: error[unknown_key]: gatway: unknown key `gatway`",
        "did you mean `gateway`?",
    ] {
        assert!(said.contains(told), "{told}: {said}");
    }
    let schema = run(&["schema", "--node"]);
    assert!(text(&schema).contains("Mainstay node file"));
}

#[test]
fn system_a_changed_address_is_in_force_without_a_restart_and_one_in_use_changes_nothing() {
    let mut running = Running::prepare("node-moves");
    let file = running.write_node("['gateway']", "");
    running.node(&file, &[]);
    let before = running.entry();
    let answers = |entry: SocketAddr| {
        wait_until(PATIENCE, "the gateway answers", || match status(entry) {
            Ok(404) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    answers(before);
    let text = fs::read_to_string(&file).unwrap();
    let at = |address: &str| {
        let moved = text.replace("http = '127.0.0.1:0'", &format!("http = '{address}'"));
        fs::write(&file, moved).unwrap();
    };

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = taken.local_addr().unwrap();
    at(&in_use.to_string());
    running.wait_for_output(&format!("cannot listen on {in_use}"));
    running.wait_for_output("choose another `http` in `[gateway]`");
    running.wait_for_output("what ran before goes on as it was");
    assert_eq!(status(before), Ok(404));

    at("127.0.0.2:0");
    running.wait_for_output("gateway-2#2 serves, the old one finishes what it began");
    let now = running.entry();
    assert_eq!(now.ip().to_string(), "127.0.0.2");
    answers(now);
    wait_until(
        PATIENCE,
        "nobody listens where it was",
        || match TcpStream::connect(before) {
            Err(_) => Ok(()),
            Ok(_) => Err("somebody does".to_owned()),
        },
    );
}
