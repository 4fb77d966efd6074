//! Floating addresses of `mainstay run` when things around them go wrong, and what is seen of them then.

use std::path::Path;
use std::time::Duration;

use mainstay_testkit::floating::{Kind, Link, Plan};
use mainstay_testkit::{TempDir, is_root, program, skip, wait_until};
use rustix::process::Signal;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_mins(1);

/// Two of ours on a link.
fn link(plan: &Plan) -> Link {
    let mainstay = Path::new(env!("CARGO_BIN_EXE_mainstay"));
    Link::new(mainstay, [Kind::Ours, Kind::Ours], plan)
}

macro_rules! need_root {
    () => {
        if !is_root() {
            return skip("needs root: makes network namespaces");
        }
    };
}

/// What `mainstay vip --json` says of the address of a host.
fn shown(link: &Link, at: usize) -> Value {
    let (code, said) = link.vip(at, &["--json"]);
    assert_eq!(code, Some(0), "{said}");
    let shown: Value = serde_json::from_str(&said).expect("it is JSON");
    shown["vips"][0].clone()
}

#[test]
fn system_an_interface_that_disappears_is_told_and_waited_for() {
    need_root!();
    for keys in ["", "virtual_mac = true"] {
        let plan = Plan {
            keys: [keys.to_owned(), keys.to_owned()],
            ..Plan::default()
        };
        let mut link = link(&plan);
        link.start(0);
        link.wait_holder(0, "the better one starts alone");
        link.start(1);
        link.wait_state(1, "backup");
        link.unplug(0);
        link.wait_state(0, "fault");
        link.wait_holder(1, "the interface of the holder is gone");
        link.wait_answer(1, "clients follow");
        link.wait_log(0, "Entering FAULT STATE: there is no interface `eth0`", 1);
        assert!(
            shown(&link, 0)["fault"]
                .as_str()
                .is_some_and(|fault| fault.contains("eth0"))
        );
        link.plug_again(0);
        link.wait_state(0, "backup");
        link.kill(1);
        link.wait_holder(0, "it takes part again, on an interface that was made anew");
        link.wait_answer(0, "clients follow");
    }
}

#[test]
fn system_an_address_on_no_interface_is_told_and_held_nowhere() {
    need_root!();
    let mut link = link(&Plan::default());
    link.start(0);
    link.wait_holder(0, "the better one starts alone");
    link.start(1);
    link.wait_state(1, "backup");
    link.change(0, "interface = \"eth0\"", "interface = \"eth7\"");
    link.wait_state(0, "fault");
    link.wait_holder(1, "the better one has no interface for it");
    link.wait_log(0, "there is no interface `eth7`; `ip link` lists them", 1);
    let (_, said) = link.vip(0, &[]);
    assert!(
        said.contains("FAULT") && said.contains("there is no interface `eth7`"),
        "{said}"
    );
    // What it was at first.
    link.change(0, "interface = \"eth0\"", "interface = \"eth0\"");
    link.wait_state(0, "backup");
}

#[test]
fn system_two_routers_of_one_number_are_told() {
    need_root!();
    let other = "global_defs { vrrp_version 3 }\nvrrp_instance other {\n state BACKUP\n interface eth0\n virtual_router_id 51\n \
                 priority PRIORITY\n advert_int ADVERT\n virtual_ipaddress { 10.88.0.200/24 }\n}\n";
    let plan = Plan {
        keepalived: Some(other.to_owned()),
        ..Plan::default()
    };
    let mainstay = Path::new(env!("CARGO_BIN_EXE_mainstay"));
    let mut link = Link::new(mainstay, [Kind::Ours, Kind::Keepalived], &plan);
    link.start(1);
    wait_until(PATIENCE, "keepalived has its own", || {
        let listed = link.ip(1, &["-o", "address"]);
        if listed.contains("10.88.0.200") {
            Ok(())
        } else {
            Err(listed)
        }
    });
    link.start(0);
    link.wait_log(
        0,
        "lists other addresses; it is believed, but set one `address` on all",
        1,
    );
    // On one host it is a mistake of the file.
    let dir = TempDir::new("vip-twice");
    let table = |name: &str, last: u8| {
        format!("[vip.{name}]\naddress = \"10.9.0.{last}\"\ninterface = \"eth0\"\nvrid = 51\n")
    };
    let file = dir.join("node.toml");
    let text = format!("roles = [\"vip\"]\n{}{}", table("one", 1), table("two", 2));
    std::fs::write(&file, text).expect("the directory is ours");
    let refused = std::process::Command::new(mainstay)
        .arg("validate")
        .arg(&file)
        .output();
    let refused = refused.expect("it can be started");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(
        said.contains("`one` has the number 51 on `eth0` already"),
        "{said}"
    );
}

/// Speaks to one address of a host: adverts that are good but for one thing, twenty of each.
const STRANGER: &str = r#"
import socket, struct, sys, time
def total(data):
    data += bytes(len(data) % 2)
    words = sum(struct.unpack(f"!{len(data) // 2}H", data))
    words = (words & 0xffff) + (words >> 16)
    return (words & 0xffff) + (words >> 16)
def advert(priority=200, kind=0x31):
    packet = struct.pack("!BBBBHH4B", kind, 51, priority, 1, 10, 0, 10, 88, 0, 100)
    return packet[:6] + struct.pack("!H", ~total(packet) & 0xffff) + packet[8:]
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)
good = advert()
odd = [(good, 64), (good[:11], 255), (good + bytes(900), 255), (good[:7] + bytes([good[7] ^ 1]) + good[8:], 255),
       (advert(kind=0x41), 255), (bytes([0x21]) + good[1:3] + b"\x01\x01" + good[5:] + bytes(8), 255), (good, 255), (advert(0), 255)]
for _ in range(20):
    for packet, ttl in odd:
        s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        s.sendto(packet, ("10.88.0.1", 0))
    time.sleep(0.02)
print("said", flush=True)
"#;

#[test]
fn system_strangers_and_packets_that_are_no_adverts_are_counted_and_move_nothing() {
    need_root!();
    let mut link = link(&Plan {
        unicast: true,
        ..Plan::default()
    });
    link.start(0);
    link.wait_holder(0, "the better one starts alone");
    link.start(1);
    link.wait_state(1, "backup");
    let mut stranger = link.converse_as_client(STRANGER);
    assert_eq!(stranger.line(), "said");
    wait_until(PATIENCE, "all of it is counted", || {
        let counts = shown(&link, 0)["counts"].clone();
        let refused = counts["refused_by"].as_array().cloned().unwrap_or_default();
        let of = |reason: &str| {
            let found = refused.iter().find(|one| one["reason"] == reason);
            found.and_then(|one| one["count"].as_u64()).unwrap_or(0)
        };
        // The two good ones are those of a stranger; of too long ones and of version 2 with a wrong sum there is one each.
        let enough = of("hop_limit") >= 20
            && of("length") >= 40
            && of("checksum") >= 20
            && of("content") >= 20
            && of("stranger") >= 40;
        if enough {
            Ok(())
        } else {
            Err(counts.to_string())
        }
    });
    link.wait_answers(500, "a better one would have been followed");
    link.wait_holder(0, "none of it was an advert of a peer");
    assert_eq!((link.took_over(0), link.took_over(1)), (Some(1), Some(0)));
    let (_, metrics) = link.vip(0, &["metrics"]);
    assert!(
        metrics.contains("mainstay_vip_state{vip=\"entry\",state=\"master\"} 1"),
        "{metrics}"
    );
    assert!(!metrics.contains("reason=\"stranger\"} 0"), "{metrics}");
}

#[test]
fn system_a_busy_machine_takes_over_nothing() {
    need_root!();
    let mut link = link(&Plan::default());
    link.start(0);
    link.wait_holder(0, "the better one starts alone");
    link.start(1);
    link.wait_state(1, "backup");
    let (_, real_time) = link.vip(1, &["--json"]);
    if !real_time.contains("\"Ok\": null") {
        return skip("real-time scheduling is refused here, without which nothing is promised");
    }
    let count = std::thread::available_parallelism().map_or(2, usize::from) * 3;
    let dir = TempDir::new("vip-busy");
    let busy: Vec<_> = (0..count)
        .map(|_| {
            let mut command = std::process::Command::new(program("sh"));
            command.args(["-c", "while :; do :; done"]);
            mainstay_testkit::Spawned::start(&dir, "busy", &mut command)
        })
        .collect();
    // Answers of a program that is not in real time come late, not less often.
    link.wait_answers(3000, "the machine is busy for seconds");
    assert_eq!((link.took_over(0), link.took_over(1)), (Some(1), Some(0)));
    for one in &busy {
        one.signal(Signal::KILL);
    }
}

#[test]
fn system_a_new_supervisor_adopts_the_holder() {
    need_root!();
    let mut link = link(&Plan::default());
    link.start(0);
    link.wait_holder(0, "the better one starts alone");
    link.start(1);
    link.wait_state(1, "backup");
    let (before, supervisor) = (link.pid(0, "vip"), link.supervisor(0));
    let probe = link.probe();
    link.wait_answers(200, "clients are served");
    link.kill_supervisor(0);
    link.wait_answers(200, "nobody minds");
    link.start(0);
    wait_until(
        PATIENCE,
        "the new supervisor has written itself down",
        || {
            let now = link.supervisor(0);
            if now == supervisor {
                Err(format!("{now:?}"))
            } else {
                Ok(())
            }
        },
    );
    link.wait_answers(500, "clients are served");
    assert_eq!(link.pid(0, "vip"), before, "it is the same process");
    assert_eq!((link.took_over(0), link.took_over(1)), (Some(1), Some(0)));
    let seen = probe.end();
    assert_eq!(seen.sent, seen.answered, "{seen:?}");
    // And it looks after it: one that is killed is started again.
    link.signal(0, "vip", Signal::KILL);
    wait_until(PATIENCE, "it is started again", || {
        let now = link.pid(0, "vip");
        if now == before {
            Err(format!("{now:?}"))
        } else {
            Ok(())
        }
    });
}

#[test]
fn system_what_is_counted_is_shown_by_the_gateway() {
    need_root!();
    let mut link = link(&Plan {
        gateway: true,
        ..Plan::default()
    });
    link.start(0);
    link.wait_track(0, "works");
    link.wait_holder(0, "it is alone");
    let script = "import urllib.request as r\nprint(r.urlopen('http://127.0.0.1:8888/metrics').read().decode())\nprint('end')";
    let mut scraped = link.converse(0, script);
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line: &String| line != "end") {
        lines.push(scraped.line());
    }
    for wanted in [
        "mainstay_gateway_workers 2",
        "mainstay_vip_addresses_held{vip=\"entry\"} 1",
        "mainstay_vip_track_up{vip=\"entry\",number=\"1\",track=\"the gateway\"} 1",
        "mainstay_vip_transitions_total{vip=\"entry\",state=\"master\"} 1",
    ] {
        assert!(
            lines.iter().any(|line| line == wanted),
            "{wanted}\n{}",
            lines.join("\n")
        );
    }
}
