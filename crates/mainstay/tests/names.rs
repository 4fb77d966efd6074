//! Services by name, asked for by programs that everybody has.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod running;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use mainstay_testkit::{Netns, program, skip, wait_until};
use rustix::process::Signal;

use running::{MAINSTAY, PATIENCE, Running, kill, python_server, text};

/// Where names are answered, by the supervisor's record.
fn names_at(running: &Running) -> SocketAddr {
    wait_until(PATIENCE, "names are answered somewhere", || {
        let record = fs::read_to_string(running.state().join("supervisor.json"));
        let record = record.map_err(|error| error.to_string())?;
        let parsed: serde_json::Value =
            serde_json::from_str(&record).map_err(|error| error.to_string())?;
        let names: SocketAddr = parsed["names"]
            .as_str()
            .and_then(|names| names.parse().ok())
            .ok_or_else(|| record.clone())?;
        if names.port() == 0 {
            return Err(record);
        }
        Ok(names)
    })
}

/// What dig prints for these words.
fn dig(running: &Running, server: SocketAddr, words: &[&str]) -> String {
    let mut command = running.command(&program("dig"));
    command.arg(format!("@{}", server.ip()));
    command.args(["-p", &server.port().to_string(), "+tries=1", "+time=1"]);
    text(&command.args(words).output().unwrap())
}

/// The records alone.
fn short(running: &Running, server: SocketAddr, words: &[&str]) -> Vec<String> {
    let said = dig(running, server, &[&["+short"], words].concat());
    let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// `pay` has an address, `bare` has none and two instances, `gone` has none at all; `web` needs `pay`.
fn services(running: &Running) -> String {
    let server = running.write("server.py", &python_server(""));
    let needy = running.write(
        "needy.py",
        &python_server(
            "for name in ('PAY_ADDRESS', 'PAY_HOST', 'PAY_PORT', 'BARE_HOST'):\n    print(name, os.environ.get(name), flush=True)",
        ),
    );
    let python = program("python3");
    let exec = |file: &Path| format!("exec = ['{}', '{}']", python.display(), file.display());
    let (plain, needy) = (exec(&server), exec(&needy));
    let file = running.write(
        "services.toml",
        &format!(
            "[service.pay]\n{plain}\naddress = 'auto'\n[service.bare]\n{plain}\ninstances = 2\n\
             [service.gone]\n{plain}\ninstances = 0\n\
             [service.web]\n{needy}\nneeds = ['pay', 'bare']\nenv = {{ PAY_PORT = 'mine' }}\n"
        ),
    );
    file.to_str().unwrap().to_owned()
}

fn address_of(running: &Running, service: &str) -> SocketAddr {
    let resolved: serde_json::Value = running.json(&["resolve", service]).unwrap();
    resolved["address"].as_str().unwrap().parse().unwrap()
}

#[test]
fn system_services_are_found_by_name_also_right_after_a_kill_of_the_agent() {
    let mut running = Running::prepare("names");
    let file = services(&running);
    running.dev(&[&file, "--names", "127.0.0.1:0"]);
    let status = running.wait_until_steady();
    assert_eq!(status.consumers.len(), 1, "nobody waits for names");
    let server = names_at(&running);
    let pay = address_of(&running, "pay");
    found_by_dig(&running, server, pay);
    told_by_resolve(&running, pay);
    told_to_programs(&running, pay);

    // Without a control centre, too: the next agent begins with what is stored.
    let stored = running.state().join("names/directory.json");
    wait_until(PATIENCE, "the directory is stored", || {
        let stored = fs::read_to_string(&stored).unwrap_or_default();
        if stored.contains("bare-2") {
            Ok(())
        } else {
            Err(stored)
        }
    });
    for _ in 0..3 {
        kill(running.own_process("server").unwrap(), Signal::KILL);
        kill(running.own_process("agent").unwrap(), Signal::KILL);
        let killed = Instant::now();
        let found = short(&running, server, &["pay.mainstay.internal"]);
        let took = killed.elapsed();
        assert_eq!(found, [pay.ip().to_string()], "{took:?}");
        assert!(took < Duration::from_secs(1), "{took:?}");
        running.wait_until_steady();
    }
}

fn found_by_dig(running: &Running, server: SocketAddr, pay: SocketAddr) {
    let name = "pay.mainstay.internal";
    let found = |words: &[&str]| short(running, server, words);
    assert_eq!(found(&[name]), [pay.ip().to_string()]);
    let srv = [format!("0 0 {} {name}.", pay.port())];
    assert_eq!(found(&[name, "SRV"]), srv);
    assert_eq!(found(&[name, "SRV", "+tcp", "+noedns"]), srv);
    let bare = found(&["bare.mainstay.internal", "SRV"]);
    assert_eq!(bare.len(), 2, "{bare:?}");
    for one in running.instances().unwrap() {
        if one.service.as_str() == "bare" {
            let (port, name) = (one.address.unwrap().port(), one.instance);
            let line = format!("0 100 {port} {name}.bare.mainstay.internal.");
            assert!(bare.contains(&line), "{bare:?}");
        }
    }
    assert_eq!(found(&["bare.mainstay.internal"]), ["127.0.0.1"]);
    let denied = dig(running, server, &["nobody.mainstay.internal"]);
    assert!(denied.contains("status: NXDOMAIN"), "{denied}");
    assert!(denied.contains("flags: qr aa rd"), "{denied}");
    let empty = dig(running, server, &["gone.mainstay.internal"]);
    assert!(empty.contains("status: NOERROR"), "{empty}");
    assert!(empty.contains("ANSWER: 0"), "{empty}");
    assert!(empty.contains("\t5\tIN\tSOA\t"), "{empty}");
}

fn told_by_resolve(running: &Running, pay: SocketAddr) {
    let said = text(&running.run(&["resolve", "pay"]));
    let address = format!("A         {} for 5 s", pay.ip());
    assert!(said.contains(&address), "{said}");
    assert!(
        said.contains("pay-1") && said.contains("AAAA      none"),
        "{said}"
    );
    let output = running.run(&["resolve", "gone"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no instance is wanted"), "{said}");
    let output = running.run(&["resolve", "nobody"]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output));
}

fn told_to_programs(running: &Running, pay: SocketAddr) {
    let logged = text(&running.run(&["logs", "web"]));
    for line in [
        format!("PAY_ADDRESS {pay}"),
        format!("PAY_HOST {}", pay.ip()),
        // As its file says.
        "PAY_PORT mine".to_owned(),
        // It has no address.
        "BARE_HOST None".to_owned(),
    ] {
        assert!(logged.contains(&line), "{line}: {logged}");
    }
}

/// A shell in a mount namespace of its own, in which `resolv.conf` is this one.
fn with_resolv_conf(within: impl FnOnce(&Path) -> Command, conf: &Path, script: &str) -> String {
    let mut command = within(&program("unshare"));
    let shell = program("sh");
    command.args(["--mount", "--"]).arg(shell).args(["-ec"]);
    let mount = program("mount");
    command.arg(format!(
        "'{}' --bind '{}' /etc/resolv.conf\n{script}",
        mount.display(),
        conf.display()
    ));
    text(&command.output().unwrap())
}

#[test]
fn system_programs_find_services_by_the_c_library() {
    if !rustix::process::geteuid().is_root() {
        return skip("port 53 and namespaces need root");
    }
    let mut running = Running::prepare("names-libc").in_own_network();
    let file = services(&running);
    let conf = running.write(
        "resolv.conf",
        "nameserver 127.0.0.1\noptions timeout:1 attempts:1\nsearch mainstay.internal\n",
    );
    running.dev(&[&file, "--names", "127.0.0.1:53"]);
    running.wait_until_steady();
    let pay = address_of(&running, "pay");
    let python = program("python3");
    let python = python.display();
    let script = |name: &str| {
        format!(
            "'{python}' -c \"import socket; print(sorted({{a[4][0] for a in socket.getaddrinfo('{name}', 80, proto=socket.IPPROTO_TCP)}}))\""
        )
    };
    for name in ["pay.mainstay.internal", "pay"] {
        let said = with_resolv_conf(|shell| running.command(shell), &conf, &script(name));
        assert_eq!(said.trim(), format!("['{}']", pay.ip()), "{name}");
    }
    let said = with_resolv_conf(
        |shell| running.command(shell),
        &conf,
        &script("nobody.mainstay.internal"),
    );
    assert!(said.contains("Name or service not known"), "{said}");
}

/// What dig finds out of a namespace.
fn ask(from: &Netns, server: &str, words: &[&str]) -> String {
    let mut command = from.command(&program("dig"));
    command.arg(format!("@{server}"));
    command.args(["+tries=1", "+time=1", "+short"]).args(words);
    text(&command.arg("web.mainstay.internal").output().unwrap())
}

#[test]
fn system_strangers_get_no_answer_and_networks_that_are_named_do() {
    if !rustix::process::geteuid().is_root() {
        return skip("namespaces need root");
    }
    let ours = Netns::new();
    let (stranger, friend) = (Netns::new(), Netns::new());
    Netns::join((&ours, "10.9.1.1/24"), (&stranger, "10.9.1.2/24"));
    Netns::join((&ours, "10.9.2.1/24"), (&friend, "10.9.2.2/24"));
    // Before the namespaces, so that what runs in them ends first.
    let mut running = Running::prepare("names-strangers");
    running.write_service(&python_server(""), "address = 'auto'");
    let file = running.write_node(
        "['control', 'agent', 'gateway']\nservices = 'services.toml'",
        "",
    );
    let text_before = fs::read_to_string(&file).unwrap();
    let with = |listen: &str| {
        format!(
            "{text_before}[names]\nlisten = '{listen}'\nupstream = []\nallow = ['10.9.2.0/24']\n"
        )
    };
    fs::write(&file, with("10.9.1.1:53")).unwrap();
    let mut command = ours.command(Path::new(MAINSTAY));
    command.args(["run", "--config"]).arg(&file);
    running.start(command);
    running.wait_until_steady();

    let address = address_of(&running, "web").ip().to_string();
    assert_eq!(ask(&ours, "10.9.1.1", &[]).trim(), address, "this machine");
    assert_eq!(ask(&ours, "10.9.1.1", &["+tcp"]).trim(), address);
    // Another address of ours that is no loopback address.
    assert_eq!(ask(&ours, "10.9.1.1", &["-b", "10.9.2.1"]).trim(), address);
    let said = ask(&stranger, "10.9.1.1", &[]);
    assert!(
        said.contains("timed out") || said.contains("no servers"),
        "{said}"
    );
    let said = ask(&stranger, "10.9.1.1", &["+tcp"]);
    assert!(!said.contains(&address), "{said}");
    let log = fs::read_to_string(running.state().join("logs/agent.log")).unwrap();
    assert!(log.contains("who is not named in `allow`"), "{log}");

    // The file names another address, while somebody asks all the time.
    fs::write(&file, with("10.9.2.1:53")).unwrap();
    running.wait_for_output("where and how names are answered changed");
    let began = Instant::now();
    wait_until(PATIENCE, "the friend gets an answer", || {
        let said = ask(&friend, "10.9.2.1", &[]);
        if said.trim() == address {
            Ok(())
        } else {
            Err(said)
        }
    });
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(ask(&friend, "10.9.2.1", &["+tcp"]).trim(), address);
}

#[test]
fn a_port_that_is_taken_is_told_before_anything_runs() {
    let running = Running::prepare("names-taken");
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = running.run(&[
        "dev",
        "--entry",
        "127.0.0.1:0",
        "--api",
        "127.0.0.1:0",
        "--names",
        &address,
    ]);
    let said = text(&output);
    assert!(!output.status.success());
    assert!(
        said.contains("another program listens there") && said.contains("another --names"),
        "{said}"
    );
    let elsewhere = running.run(&["dev", "--names", "192.0.2.1:53"]);
    assert_eq!(elsewhere.status.code(), Some(2), "{}", text(&elsewhere));
}

/// The server of names has an address of the services' range, in which nobody else is reached that is no
/// service; a host behind a route asks it, and goes where it says.
#[test]
fn system_with_forwarding_names_and_services_are_reached_in_one_range() {
    if !rustix::process::geteuid().is_root() {
        return skip("namespaces and rules need root");
    }
    let (ours, friend) = (Netns::new(), Netns::new());
    Netns::join((&ours, "10.9.3.1/24"), (&friend, "10.9.3.2/24"));
    let route = ["route", "add", "10.96.0.0/16", "via", "10.9.3.1"];
    let routed = friend.command(&program("ip")).args(route).output();
    assert!(routed.unwrap().status.success());
    // Before the namespaces, so that what runs in them ends first.
    let mut running = Running::prepare("names-forward");
    running.write_service(
        &python_server(""),
        "address = 'auto'\ninstances = 2\nrollout = { hold = '100ms' }",
    );
    let roles = "['control', 'agent', 'gateway']\nservices = 'services.toml'\naddress = '10.9.3.1'";
    let file = running.write_node(roles, "");
    let before = fs::read_to_string(&file).unwrap();
    let names = "[forward]\nrange = '10.96.0.0/16'\n[names]\nlisten = '10.96.0.53:53'\nupstream = []\n\
                 allow = ['10.9.3.0/24']\n";
    fs::write(&file, before + names).unwrap();
    let mut command = ours.command(Path::new(MAINSTAY));
    command.args(["run", "--config"]).arg(&file);
    running.start(command);
    running.wait_until_steady();
    let web = address_of(&running, "web");
    let conf = running.write("resolv.conf", "nameserver 10.96.0.53\n");
    for from in [&ours, &friend] {
        wait_until(PATIENCE, "the name is answered", || {
            let said = ask(from, "10.96.0.53", &[]);
            if said.trim() == web.ip().to_string() {
                Ok(())
            } else {
                Err(said)
            }
        });
        assert_eq!(
            ask(from, "10.96.0.53", &["+tcp"]).trim(),
            web.ip().to_string()
        );
        let curl = format!(
            "'{}' --silent --show-error --max-time 10 http://web.mainstay.internal:{}/",
            program("curl").display(),
            web.port()
        );
        let said = with_resolv_conf(|shell| from.command(shell), &conf, &curl);
        assert!(said.starts_with("web-"), "{said}");
    }
}

/// dig against a whole Mainstay that has another one for its upstream, which has it: asked by a program that
/// everybody has, a circle ends by itself.
#[test]
fn system_two_nodes_that_name_each_other_answer_their_own_names_and_refuse_to_turn_in_a_circle() {
    let mut one = Running::prepare("names-one");
    let file = one.write_node("['control', 'agent', 'gateway']", "");
    let before = fs::read_to_string(&file).unwrap();
    let mut two = Running::prepare("names-two");
    let other = two.write_node("['control', 'agent', 'gateway']", "");
    let other_before = fs::read_to_string(&other).unwrap();
    let names = |listen: &str, upstream: &str| {
        format!("[names]\nlisten = '{listen}'\nupstream = ['{upstream}']\n")
    };
    let (first, second) = ("127.0.0.77:5377", "127.0.0.78:5378");
    fs::write(&file, before + &names(first, second)).unwrap();
    fs::write(&other, other_before + &names(second, first)).unwrap();
    one.node(&file, &[]);
    two.node(&other, &[]);
    let server: SocketAddr = first.parse().unwrap();
    wait_until(PATIENCE, "the circle is told", || {
        dig(&one, server, &["example.com"]);
        let log = |running: &Running| {
            fs::read_to_string(running.state().join("logs/agent.log")).unwrap_or_default()
        };
        let logs = log(&one) + &log(&two);
        if logs.contains("a circle") {
            Ok(())
        } else {
            Err(logs)
        }
    });
    let began = Instant::now();
    let said = dig(&one, server, &["+time=5", "example.com"]);
    assert!(
        said.contains("status: SERVFAIL") || said.contains("status: REFUSED"),
        "{said}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let said = dig(&one, server, &["mainstay.internal", "SOA"]);
    assert!(said.contains("status: NOERROR"), "{said}");
}
