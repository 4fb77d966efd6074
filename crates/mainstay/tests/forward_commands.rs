//! `mainstay forward` and `mainstay purge` as a user types them, beside a node that forwards.

#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use mainstay_testkit::{Netns, is_root, program, skip, wait_until};
use running::{MAINSTAY, PATIENCE, Running, kill, python_server, text};
use rustix::process::Signal;
use serde_json::Value;

const NEEDS_ROOT: &str = "needs root: makes a network namespace and rules in it";

fn connect(running: &Running, to: SocketAddr) -> std::io::Result<TcpStream> {
    let netns = running.netns();
    netns.enter(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)))
}

/// A `dev` in a network of its own, whose service is reached by an address of the kernel's.
fn start() -> (Running, SocketAddr) {
    let mut running = Running::prepare("forward-commands").in_own_network();
    let keys = "address = \"auto\"\ninstances = 3\nrollout = { hold = \"100ms\" }";
    let file = running.write_service(&python_server(""), keys);
    running.dev(&[file.to_str().unwrap(), "--forward", "10.96.0.0/16"]);
    let address = running.wait_until_steady().services[0].address.unwrap();
    wait_until(PATIENCE, "three instances are in the kernel", || {
        let listed: Value = running.json(&["forward", "ls"])?;
        let instances = listed["services"][0]["instances"].as_array();
        match instances.map(Vec::len) {
            Some(3) => Ok(()),
            _ => Err(listed.to_string()),
        }
    });
    (running, address)
}

/// Runs it without the right to change a network.
fn run_powerless(running: &Running, arguments: &[&str]) -> Output {
    let mut command = running.command(&program("setpriv"));
    command.args(["--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]);
    command.arg(MAINSTAY).args(arguments);
    command
        .arg("--state")
        .arg(running.state())
        .output()
        .unwrap()
}

/// Has a program load what a command printed, on another host.
fn feed((reader, arguments): &(PathBuf, &[&str]), printed: &Output) {
    assert!(printed.status.success(), "{}", text(printed));
    let host = Netns::new();
    let mut command = host.command(reader);
    command.args(*arguments).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(&printed.stdout)
        .unwrap();
    assert!(child.wait().unwrap().success(), "{}", text(printed));
}

#[test]
fn system_what_the_kernel_has_is_listed_explained_and_printed() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let (running, address) = start();
    let mut kept: Vec<TcpStream> = (0..9)
        .map(|_| connect(&running, address).unwrap())
        .collect();
    for client in &mut kept {
        // Its end is missing, so that the connection stays.
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: web\r\n")
            .unwrap();
    }
    let listed: Value = running.json(&["forward", "ls"]).unwrap();
    assert_eq!(listed["from"], "kernel", "{listed}");
    let web = &listed["services"][0];
    assert_eq!(
        (&web["service"], &web["by"]),
        (&"web".into(), &"chance".into())
    );
    assert!(web["new_connections"].as_u64().unwrap() >= 9, "{web}");
    let instances = web["instances"].as_array().unwrap();
    let mut names: Vec<&str> = instances
        .iter()
        .filter_map(|one| one["instance"].as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["web-1", "web-2", "web-3"], "{web}");
    assert!(
        instances
            .iter()
            .all(|one| one["slots"] == 1 && one["slots_of"] == 3)
    );
    let sum = |key: &str| -> u64 { instances.iter().filter_map(|one| one[key].as_u64()).sum() };
    assert!(sum("established") >= 9 && sum("bytes_to") > 0, "{web}");
    let table = text(&running.run(&["forward", "ls"]));
    assert!(table.starts_with("SERVICE  ADDRESS"), "{table}");
    assert!(table.contains("33.3 %"), "{table}");
    drop(kept);

    let explained = running.run(&["forward", "explain", &address.to_string()]);
    assert_eq!(explained.status.code(), Some(0), "{}", text(&explained));
    let told = text(&explained);
    assert!(told.contains("AnyIP") && told.contains("33.3 %"), "{told}");
    let nobody = SocketAddr::new(address.ip(), 1);
    let explained = running.run(&["forward", "explain", &nobody.to_string()]);
    assert_eq!(explained.status.code(), Some(1), "{}", text(&explained));
    let wrong = running.run(&["forward", "explain", "10.96.0.1:99999"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong));
    let wrong = running.run(&["forward", "explain", "10.96.0.1", "--from", "::1"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong));

    what_is_printed_can_be_loaded(&running, address);
    without_the_right_the_control_centre_is_asked(&running, address);
}

/// The value of a metric with these labels, as the agent shows it.
fn metric(running: &Running, series: &str) -> Result<u64, String> {
    let page = running.netns().enter(|| -> std::io::Result<String> {
        let at = SocketAddr::from(([127, 0, 0, 1], 8889));
        let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    });
    let page = page.map_err(|error| error.to_string())?;
    assert!(page.starts_with("HTTP/1.1 200 OK"), "{page}");
    let mut lines = page.lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = value.ok_or_else(|| format!("no {series} in {page}"))?;
    value.parse().map_err(|_| format!("{series} is {value}"))
}

#[test]
fn system_load_and_the_table_of_connections_are_shown_to_prometheus() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let (running, address) = start();
    let kept: Vec<TcpStream> = (0..9)
        .map(|_| connect(&running, address).unwrap())
        .collect();
    let instance = |name: &str, number: usize| {
        let series = format!("mainstay_forward_instance_{name}");
        let labels = format!("{{service=\"web\",instance=\"web-{number}\"}}");
        metric(&running, &format!("{series}{labels}"))
    };
    wait_until(PATIENCE, "all connections are told", || {
        let new = metric(
            &running,
            "mainstay_forward_service_connections_total{service=\"web\"}",
        )?;
        let mut open = 0;
        for number in 1..=3 {
            open += instance("connections", number)?;
        }
        if new >= 9 && open >= 9 {
            Ok(())
        } else {
            Err(format!("{new} new ones, {open} established"))
        }
    });
    assert!(instance("request_bytes_total", 1).is_ok());
    assert!(instance("response_bytes_total", 1).is_ok());
    assert!(instance("in_flight", 1).is_err(), "nobody leaves");
    assert_eq!(metric(&running, "mainstay_forward_up"), Ok(1));
    let info = "mainstay_forward_info{back_end=\"nft\"}";
    assert_eq!(metric(&running, info), Ok(1));
    let entries = metric(&running, "mainstay_conntrack_entries").unwrap();
    let limit = metric(&running, "mainstay_conntrack_entries_limit").unwrap();
    assert!((9..limit).contains(&entries), "{entries} of {limit}");
    let hindrance = |kind| {
        metric(
            &running,
            &format!("mainstay_forward_hindrance{{kind=\"{kind}\"}}"),
        )
    };
    assert_eq!(hindrance("table-filling"), Ok(0));
    let told = || hindrance("loopback-unreachable").and_then(|count| is(count, 1));
    wait_until(PATIENCE, "instances on loopback are told", told);

    let scaled = running.run(&["scale", "web", "1", "--no-wait"]);
    assert!(scaled.status.success(), "{}", text(&scaled));
    wait_until(PATIENCE, "what is under way to those that leave", || {
        let leaving = (1..=3).filter_map(|number| instance("in_flight", number).ok());
        match leaving.sum() {
            0_u64 => Err("nothing is".to_owned()),
            _ => Ok(()),
        }
    });
    drop(kept);
    wait_until(PATIENCE, "all but one are forgotten", || {
        let left = (1..=3).filter(|number| instance("connections", *number).is_ok());
        is(left.count() as u64, 1)
    });
}

fn is(count: u64, wanted: u64) -> Result<(), String> {
    if count == wanted {
        Ok(())
    } else {
        Err(format!("{count}, not {wanted}"))
    }
}

fn what_is_printed_can_be_loaded(running: &Running, address: SocketAddr) {
    let nft = (program("nft"), &["-f", "-"][..]);
    let iptables = (program("iptables-nft-restore"), &["--noflush"][..]);
    for (dialect, reader) in [("nft", nft), ("iptables", iptables)] {
        let arguments = ["forward", "explain", &address.to_string(), "--as", dialect];
        feed(&reader, &running.run(&arguments));
        // Without the right it comes from the control centre.
        feed(&reader, &run_powerless(running, &arguments));
    }
}

fn without_the_right_the_control_centre_is_asked(running: &Running, address: SocketAddr) {
    let powerless = run_powerless(running, &["forward", "ls", "--json"]);
    let listed: Value = serde_json::from_slice(&powerless.stdout).unwrap();
    assert_eq!(listed["from"], "control_centre");
    assert_eq!(
        listed["services"][0]["instances"].as_array().unwrap().len(),
        3
    );
    assert!(
        listed["notes"][0]
            .as_str()
            .unwrap()
            .contains("CAP_NET_ADMIN"),
        "{listed}"
    );
    let explained = run_powerless(running, &["forward", "explain", &address.to_string()]);
    assert!(
        text(&explained).contains("CAP_NET_ADMIN"),
        "{}",
        text(&explained)
    );
}

#[test]
fn system_purge_waits_for_the_agents_end_and_leaves_nothing() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let (running, address) = start();
    let elsewhere = running.write("elsewhere", "");
    let purge = |state: &Path| {
        let mut command = running.command(Path::new(MAINSTAY));
        command.args(["purge", "--yes", "--state"]).arg(state);
        command.output().unwrap()
    };
    for state in [running.state(), elsewhere.parent().unwrap()] {
        let refused = purge(state);
        assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
        assert!(text(&refused).contains("--force"), "{}", text(&refused));
    }
    connect(&running, address).unwrap();
    // As after a loss of both: nobody takes anything away.
    let agent = running.own_process("agent").unwrap();
    running.kill_dev();
    kill(agent, Signal::KILL);
    wait_until(PATIENCE, "nobody holds the rules", || {
        let found = running.run(&["purge"]);
        let told = text(&found);
        if found.status.success() {
            Ok(())
        } else {
            Err(told)
        }
    });
    connect(&running, address).unwrap();
    let found = text(&running.run(&["purge"]));
    for trace in [
        "would remove: local route to 10.96.0.0/16",
        "would remove: table inet mainstay of nf_tables",
        "nothing was changed",
    ] {
        assert!(found.contains(trace), "{found}");
    }
    let powerless = run_powerless(&running, &["purge", "--yes"]);
    assert_eq!(powerless.status.code(), Some(5), "{}", text(&powerless));
    assert!(text(&powerless).contains("as root"), "{}", text(&powerless));
    let done = purge(running.state());
    assert!(done.status.success(), "{}", text(&done));
    assert!(
        text(&done).contains("removed: table inet mainstay"),
        "{}",
        text(&done)
    );
    connect(&running, address).unwrap_err();
    let again: Value = running.json(&["purge", "--yes"]).unwrap();
    assert_eq!(again, serde_json::json!({ "removed": true, "traces": [] }));
    let listed: Value = running.json(&["forward", "ls"]).unwrap();
    assert_eq!(listed["services"], serde_json::json!([]));
}
