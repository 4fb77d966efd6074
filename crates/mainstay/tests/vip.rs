//! Floating addresses of `mainstay run` beside each other and beside the real keepalived, on a link of their own.

use std::path::Path;
use std::time::Duration;

use mainstay_testkit::floating::{self, Agents, Kind, Link, Partner, Plan};
use mainstay_testkit::{Carrier, TempDir, is_root, program, skip, wait_until};
use rustix::process::Signal;

/// Two routers on a link.
fn link(kinds: [Kind; 2], plan: &Plan) -> Link {
    Link::new(Path::new(env!("CARGO_BIN_EXE_mainstay")), kinds, plan)
}

const PAIRS: [[Kind; 2]; 3] = [
    [Kind::Ours, Kind::Ours],
    [Kind::Ours, Kind::Keepalived],
    [Kind::Keepalived, Kind::Ours],
];

macro_rules! need_root {
    () => {
        if !is_root() {
            return skip("needs root: makes network namespaces");
        }
    };
}

/// One holder, its host vanishes, both hold it while the link is split, one after that heals, it is stopped.
fn a_life(plan: &Plan) {
    for kinds in PAIRS {
        let mut link = link(kinds, plan);
        link.start(0);
        link.wait_holder(0, "the better one starts alone");
        link.start(1);
        link.wait_holder(0, "the other one follows");
        link.segment.cut("a");
        link.wait_answer(1, "the host vanished");
        link.wait_holders([true, true], "each part has its holder");
        link.segment.heal("a");
        link.wait_holder(0, "the better one keeps it after the split");
        link.wait_answer(0, "clients know who has it after the split");
        link.stop(0);
        link.wait_holder(1, "the holder was stopped");
        link.wait_answer(1, "clients follow a stop");
    }
}

#[test]
fn system_the_address_survives_its_host_a_split_and_a_stop_in_version_3() {
    need_root!();
    a_life(&Plan::default());
}

#[test]
fn system_the_address_survives_its_host_a_split_and_a_stop_with_ipv6() {
    need_root!();
    a_life(&Plan {
        address: "fd88::100",
        ..Plan::default()
    });
}

#[test]
fn system_the_address_survives_its_host_a_split_and_a_stop_in_version_2() {
    need_root!();
    a_life(&Plan {
        version: 2,
        advert: Duration::from_secs(1),
        ..Plan::default()
    });
}

#[test]
fn system_with_unicast_peers_alone_the_same_election_is_held() {
    need_root!();
    a_life(&Plan {
        unicast: true,
        ..Plan::default()
    });
}

/// The client knows one hardware address, whoever has the address.
fn a_virtual_mac(address: &'static str, mac: &str) {
    for kinds in PAIRS {
        let plan = Plan {
            address,
            keys: [0, 1].map(|_| "virtual_mac = true".to_owned()),
            keepalived: Some(format!(
                "global_defs {{ vrrp_version 3 }}\nvrrp_instance entry {{\n state BACKUP\n interface eth0\n virtual_router_id 51\n \
                 priority PRIORITY\n advert_int ADVERT\n nopreempt\n use_vmac\n virtual_ipaddress {{ {address} }}\n}}\n"
            )),
            ..Plan::default()
        };
        let mut link = link(kinds, &plan);
        let known = |link: &Link, when: &str| {
            assert_eq!(link.known_mac().as_deref(), Some(mac), "{kinds:?}: {when}");
        };
        link.start(0);
        link.wait_holder(0, "the better one starts alone");
        link.start(1);
        link.wait_answer(0, "the better one is alone");
        known(&link, "the better one is alone");
        link.segment.cut("a");
        link.wait_answer(1, "the host vanished");
        known(&link, "the host vanished");
        link.wait_holders([true, true], "each part has its holder");
        link.segment.heal("a");
        link.wait_holder(0, "the better one keeps it after the split");
        link.wait_answer(0, "clients know who has it after the split");
        known(&link, "the split has healed");
        link.stop(0);
        link.wait_holder(1, "the holder was stopped");
        link.wait_answer(1, "clients follow a stop");
        known(&link, "the holder was stopped");
        if kinds[0] == Kind::Ours {
            let left = link.ip(0, &["link"]);
            assert!(!left.contains("msv"), "the interface is removed: {left}");
        }
    }
}

#[test]
fn system_a_virtual_mac_is_the_same_whoever_holds_the_address() {
    need_root!();
    a_virtual_mac("10.88.0.100", "00:00:5e:00:01:33");
}

#[test]
fn system_a_virtual_mac_is_the_same_whoever_holds_the_address_with_ipv6() {
    need_root!();
    a_virtual_mac("fd88::100", "00:00:5e:00:02:33");
}

#[test]
fn system_who_comes_back_takes_the_address_only_if_that_is_written() {
    need_root!();
    for (preempt, holder) in [(false, 1), (true, 0)] {
        for kinds in PAIRS {
            let mut link = link(
                kinds,
                &Plan {
                    preempt,
                    ..Plan::default()
                },
            );
            link.start(1);
            link.wait_holder(1, "the worse one is alone");
            link.start(0);
            // A better one that may not preempt is quiet, which is seen when it has listened for a second.
            link.wait_answers(1000, "both have heard each other");
            link.wait_holder(holder, "the better one is there");
        }
    }
}

#[test]
fn system_a_holder_that_is_killed_leaves_no_second_holder() {
    need_root!();
    let mut link = link([Kind::Ours, Kind::Keepalived], &Plan::default());
    link.start(0);
    link.wait_holder(0, "the better one starts alone");
    link.start(1);
    link.wait_holder(0, "the other one follows");
    // With its supervisor, which would start another one at once.
    link.kill(0);
    let alone = link.wait_holder(1, "the kernel removed what nobody renewed");
    assert!(alone < Duration::from_secs(4), "two held it for {alone:?}");
    // One that is started again finds it taken.
    link.start(0);
    link.wait_answers(500, "it has listened");
    link.wait_holder(1, "it does not preempt");
}

#[test]
fn system_where_addresses_do_not_die_with_their_holder_a_killed_one_leaves_a_second_holder() {
    need_root!();
    let mut link = link(
        [Kind::Ours, Kind::Keepalived],
        &Plan {
            vip_seams: "lifetime=endless",
            ..Plan::default()
        },
    );
    link.start(0);
    link.wait_holder(0, "the better one starts alone");
    link.start(1);
    link.kill(0);
    link.wait_answer(1, "the other one has it, too");
    link.wait_answers(5000, "longer than a second holder may be");
    link.wait_holders([true, true], "nobody removes it");
}

#[test]
fn system_a_holder_without_a_carrier_gives_the_address_up_and_takes_part_again() {
    need_root!();
    let mut link = link([Kind::Ours, Kind::Ours], &Plan::default());
    link.start(0);
    link.wait_holder(0, "the better one starts alone");
    link.start(1);
    link.segment.carrier("a", Carrier::Off);
    link.wait_holder(1, "its host lost the carrier");
    link.segment.carrier("a", Carrier::On);
    link.wait_state(0, "backup");
    link.kill(1);
    link.wait_answer(0, "it has the address again");
}

#[test]
fn system_a_planned_move_with_a_virtual_mac_loses_nothing() {
    need_root!();
    let plan = Plan {
        keys: [0, 1].map(|_| "virtual_mac = true".to_owned()),
        ..Plan::default()
    };
    let mut link = link([Kind::Ours, Kind::Ours], &plan);
    link.start(0);
    link.wait_holder(0, "the better one starts alone");
    link.start(1);
    link.wait_state(1, "backup");
    let probe = link.probe();
    for to in [1, 0, 1] {
        link.wait_answers(200, "clients are served");
        let (code, said) = link.vip(1 - to, &["move", "entry"]);
        assert_eq!(code, Some(0), "{said}");
        link.wait_holder(to, "it was moved");
    }
    let seen = probe.end();
    assert_eq!(seen.sent, seen.answered, "{seen:?}");
    // With its supervisor: nobody switches the interface off.
    link.kill(1);
    link.wait_holder(0, "the holder was killed");
    link.wait_answer(0, "clients follow");
    assert!(link.ip(1, &["link"]).contains("msv4-51"), "it was killed");
    link.start(1);
    link.wait_state(1, "backup");
    let begun_anew = link.ip(1, &["link", "show", "up"]);
    assert!(
        !begun_anew.contains("msv4-51"),
        "it is not the holder: {begun_anew}"
    );
}

#[test]
fn system_a_planned_move_loses_nothing() {
    need_root!();
    let mut link = link([Kind::Ours, Kind::Ours], &Plan::default());
    link.start(0);
    link.wait_holder(0, "the better one starts alone");
    link.start(1);
    link.wait_state(1, "backup");
    let probe = link.probe();
    link.wait_answers(200, "clients are served");
    let (code, said) = link.vip(0, &["move", "entry"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("10.88.0.2 holds entry now"), "{said}");
    link.wait_holder(1, "it was moved");
    let seen = probe.end();
    assert_eq!(seen.sent, seen.answered, "{seen:?}");
    // It was given away on purpose, and nobody can give what it does not have.
    let (code, said) = link.vip(0, &["move", "entry"]);
    assert_eq!(code, Some(4), "{said}");
    assert!(
        said.contains("not held here; 10.88.0.2 is its master"),
        "{said}"
    );
    let (_, shown) = link.vip(0, &[]);
    assert!(
        shown.contains("it was offered, and 10.88.0.2 has taken it"),
        "{shown}"
    );
}

#[test]
fn system_what_the_address_depends_on_takes_it_along() {
    need_root!();
    let track = "track = [{ process = \"ms-tracked\" }]";
    let mut link = link(
        [Kind::Ours, Kind::Ours],
        &Plan {
            keys: [String::new(), track.to_owned()],
            ..Plan::default()
        },
    );
    // The better one depends on nothing yet; the other one on a program that does not run.
    link.start(1);
    link.wait_state(1, "master");
    let (_, shown) = link.vip(1, &[]);
    assert!(shown.contains("the process ms-tracked is dead"), "{shown}");
    link.start(0);
    link.wait_holder(0, "whoever is unfit offers the address to who is not");
    let tracked = link.run_named("ms-tracked");
    link.wait_track(1, "works");
    link.stop(0);
    link.wait_holder(1, "it works now");
    link.start(0);
    link.wait_answers(500, "both have heard each other");
    link.wait_holder(1, "nobody preempts");
    tracked.signal(Signal::KILL);
    link.wait_holder(0, "what it depends on was killed");
    assert!(
        link.log(1)
            .contains("the process ms-tracked does not work any more")
    );
}

#[test]
fn system_a_gateway_that_dies_or_freezes_takes_the_address_along() {
    need_root!();
    let mut link = link(
        [Kind::Ours, Kind::Ours],
        &Plan {
            gateway: true,
            ..Plan::default()
        },
    );
    link.start(0);
    link.wait_track(0, "works");
    link.wait_holder(0, "the better one starts alone");
    link.start(1);
    link.wait_track(1, "works");
    link.wait_state(1, "backup");
    link.signal(0, "gateway", Signal::KILL);
    link.wait_holder(1, "its gateway was killed");
    link.wait_track(0, "works");
    link.signal(1, "gateway", Signal::STOP);
    link.wait_holder(0, "its gateway froze");
    link.wait_answer(0, "clients follow");
}

/// Holds one thread of a process, the one of this name, until it is told to let it go or ends.
const HOLD_THREAD: &str = r#"
import ctypes, os, sys
SEIZE, INTERRUPT, WALL = 0x4206, 0x4207, 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
tasks = f"/proc/{PID}/task"
named = lambda tid: open(f"{tasks}/{tid}/comm").read().strip() == NAME
tid = next(int(tid) for tid in os.listdir(tasks) if named(tid))
for request in (SEIZE, INTERRUPT):
    if libc.ptrace(request, tid, None, None):
        sys.exit(os.strerror(ctypes.get_errno()))
os.waitpid(tid, WALL)
print("held", flush=True)
sys.stdin.readline()
"#;

/// Two hosts with gateways of two workers, of which the first one holds the address.
fn two_gateways(seams: &'static str) -> Link {
    let mut link = link(
        [Kind::Ours, Kind::Ours],
        &Plan {
            gateway: true,
            seams,
            ..Plan::default()
        },
    );
    link.start(0);
    link.wait_track(0, "works");
    link.wait_holder(0, "the better one starts alone");
    link.start(1);
    link.wait_track(1, "works");
    link.wait_state(1, "backup");
    link
}

/// Has one worker of the first gateway hang, until what is given is dropped.
fn hang_one_worker(link: &Link) -> Partner {
    let pid = link.pid(0, "gateway").as_raw_nonzero();
    let script = format!("PID, NAME = {pid}, 'gateway-1'\n{HOLD_THREAD}");
    let mut holder = link.converse(0, &script);
    assert_eq!(holder.line(), "held");
    holder
}

#[test]
fn system_one_worker_that_hangs_takes_the_address_along() {
    need_root!();
    let link = two_gateways("");
    let held = hang_one_worker(&link);
    let after = link.wait_holder(1, "a worker of its gateway hangs");
    assert!(after < Duration::from_secs(5), "{after:?}");
    assert!(
        link.log(0).contains("has made no progress for 1.0s"),
        "{}",
        link.log(0)
    );
    link.wait_track(0, "does not");
    drop(held);
    link.wait_track(0, "works");
    link.wait_log(0, "make progress again", 1);
}

#[test]
fn system_without_their_beats_nobody_sees_that_a_worker_hangs() {
    need_root!();
    let link = two_gateways("beats=off");
    let _held = hang_one_worker(&link);
    // Three times as long as it may take with them: 3,000 answers, one each millisecond.
    link.wait_answers(3000, "time goes by");
    link.wait_holder(0, "nobody sees it");
    assert_eq!(link.took_over(1), Some(0));
}

#[test]
fn system_a_gateway_that_was_replaced_is_followed_and_the_address_stays() {
    need_root!();
    let link = two_gateways("");
    link.signal_router(0, Signal::USR1);
    wait_until(Duration::from_mins(1), "the other seat serves", || {
        let said = link.said(0);
        if said.contains("the gateway was replaced") {
            Ok(())
        } else {
            Err(said)
        }
    });
    link.wait_answers(1500, "the old one has ended");
    assert_eq!(link.took_over(1), Some(0), "{}", link.log(0));
    // It is the new one by now whose end counts.
    link.signal(0, "gateway-2", Signal::STOP);
    link.wait_holder(1, "the new one is frozen");
}

/// Two hosts with agents, of which the first one holds the address.
fn two_agents(preempt: bool, vip_seams: &'static str) -> Link {
    let mut link = link(
        [Kind::Ours, Kind::Ours],
        &Plan {
            agents: Agents::Each,
            preempt,
            vip_seams,
            ..Plan::default()
        },
    );
    link.start(0);
    link.wait_holder(0, "the better one starts alone");
    link.start(1);
    link.wait_state(1, "backup");
    wait_until(Duration::from_mins(1), "both agents run", || {
        let agents = [0, 1].map(|at| link.runs(at, "agent"));
        if agents == [true, true] {
            Ok(())
        } else {
            Err(format!("{agents:?}"))
        }
    });
    link
}

#[test]
fn system_a_machine_whose_agent_is_silent_is_the_last_choice() {
    need_root!();
    let link = two_agents(true, "");
    // One that is started again at once was never silent.
    link.signal(0, "agent", Signal::KILL);
    link.wait_answers(4500, "longer than its silence may be");
    assert!(!link.log(0).contains("has been silent"), "{}", link.log(0));
    link.signal(0, "agent", Signal::STOP);
    link.wait_holder(1, "its agent is frozen, and the other one preempts");
    link.wait_priority(0, 1);
    link.signal(0, "agent", Signal::CONT);
    link.wait_holder(0, "it is heard again, and preempts");
    link.wait_priority(0, 150);
    // Killed, and nobody starts it again.
    link.signal_router(0, Signal::STOP);
    link.signal(0, "agent", Signal::KILL);
    link.wait_holder(1, "its agent is dead");
    link.signal_router(0, Signal::CONT);
    link.wait_holder(0, "it was started again");
}

#[test]
fn system_where_its_silence_does_not_count_the_same_machine_keeps_the_address() {
    need_root!();
    let link = two_agents(true, "agent=unheeded");
    link.signal(0, "agent", Signal::STOP);
    // Longer than it may be silent, and than the other one takes.
    link.wait_answers(5000, "time goes by");
    link.wait_holder(0, "nobody preempts");
    link.wait_priority(0, 150);
    assert_eq!(link.took_over(1), Some(0));
}

/// The kinds of what became of the address on a host, by its events.
fn kinds(link: &Link, at: usize) -> Result<Vec<String>, String> {
    let events = link.happened(at)?;
    let kind = |event: &serde_json::Value| {
        let kind = event["kind"]["happened"]["happening"].as_str();
        kind.unwrap_or_default().to_owned()
    };
    Ok(events.iter().map(kind).collect())
}

/// Waits until these are all, in this order.
#[track_caller]
fn wait_told(link: &Link, at: usize, wanted: &[&str]) {
    wait_until(
        Duration::from_mins(1),
        &format!("the events of {at} are {wanted:?}"),
        || {
            let told = kinds(link, at)?;
            if told == wanted {
                Ok(())
            } else {
                Err(format!("{told:?}"))
            }
        },
    );
}

#[test]
fn system_events_of_both_nodes_tell_what_becomes_of_an_address_each_once() {
    need_root!();
    let mut link = two_agents(false, "");
    let (mut a, mut b) = (
        vec!["address_watched", "address_taken"],
        vec!["address_watched"],
    );
    wait_told(&link, 0, &a);
    wait_told(&link, 1, &b);
    link.segment.cut("a");
    link.wait_holders([true, true], "each part has its holder");
    b.push("address_taken");
    wait_told(&link, 1, &b);
    link.segment.heal("a");
    link.wait_holder(0, "the better one keeps it after the split");
    a.extend(["split_seen", "split_healed"]);
    b.push("address_given_up");
    wait_told(&link, 0, &a);
    wait_told(&link, 1, &b);
    let last = |at: usize| link.happened(at).unwrap().pop().unwrap()["kind"].clone();
    assert_eq!(last(0)["happened"]["peer"], "10.88.0.2", "{}", last(0));
    assert_eq!(last(1)["happened"]["to"], "10.88.0.1", "{}", last(1));
    let (_, said) = link.run(1, &["events"]);
    let told =
        "entry is not held here any more: 10.88.0.1 is better and holds it, too; now by 10.88.0.1";
    assert!(said.contains(told), "{said}");
    let taken = "entry is held here: the master was not heard any more; before by 10.88.0.1";
    assert!(said.contains(taken), "{said}");
    // The control centre of one is away, and so is its agent, while the address moves there and back.
    link.signal(1, "server", Signal::STOP);
    link.vip(0, &["move", "entry"]);
    link.wait_holder(1, "it was asked for");
    link.signal(1, "agent", Signal::KILL);
    link.vip(1, &["move", "entry"]);
    link.wait_holder(0, "it was asked for again");
    link.signal(1, "server", Signal::KILL);
    a.extend(["address_given_up", "address_taken"]);
    b.extend(["address_taken", "address_given_up"]);
    wait_told(&link, 0, &a);
    wait_told(&link, 1, &b);
    // A holder that is killed says nothing; the next one does in its stead.
    link.signal(0, "vip", Signal::KILL);
    link.wait_holder(1, "the holder was killed");
    a.extend(["address_given_up", "address_watched"]);
    b.push("address_taken");
    wait_told(&link, 0, &a);
    wait_told(&link, 1, &b);
    let (_, said) = link.run(0, &["events"]);
    let why = "the process that held it ended without a word";
    assert!(said.contains(why), "{said}");
    // Nothing comes again.
    link.signal(0, "server", Signal::KILL);
    link.wait_answers(3000, "reports have come");
    wait_told(&link, 0, &a);
    link.stop(0);
}

#[test]
fn system_where_nobody_preempts_the_silence_of_an_agent_moves_nothing() {
    need_root!();
    let link = two_agents(false, "");
    link.signal(0, "agent", Signal::STOP);
    link.wait_priority(0, 1);
    link.wait_answers(1000, "the other one has heard of it");
    link.wait_holder(0, "what its gateway serves it goes on to serve");
    assert_eq!(link.took_over(1), Some(0));
}

#[test]
fn system_a_restart_that_works_keeps_the_address_and_one_that_cannot_loses_it() {
    need_root!();
    let dir = TempDir::new("vip-restart");
    let name = format!("msr{}", std::process::id());
    let may_start = dir.join("may-start");
    let pid_file = dir.join("pid");
    let script = format!(
        "import os, sys\nif not os.path.exists('{}'): sys.exit(1)\nopen('{}', 'w').write(str(os.getpid()))\n{}",
        may_start.display(),
        pid_file.display(),
        floating::named_script(&name)
    );
    let program_file = dir.join("tracked.py");
    std::fs::write(&program_file, script).unwrap();
    std::fs::write(&may_start, "").unwrap();
    let (python, file) = (program("python3"), program_file.display());
    let keys = format!(
        "on_dead = \"restart-then-yield\"\ntrack = [{{ process = \"{name}\", restart = [\"{}\", \"{file}\"] }}]",
        python.display()
    );
    let mut link = link(
        [Kind::Ours, Kind::Ours],
        &Plan {
            keys: [keys, String::new()],
            ..Plan::default()
        },
    );
    let first = link.run_named(&name);
    link.start(0);
    link.wait_holder(0, "the better one starts alone");
    link.start(1);
    link.wait_state(1, "backup");
    first.signal(Signal::KILL);
    let started = wait_until(Duration::from_mins(1), "it was started again", || {
        let pid = std::fs::read_to_string(&pid_file).map_err(|error| error.to_string())?;
        pid.parse::<i32>().map_err(|error| error.to_string())
    });
    link.wait_log(0, &format!("the process {name} works"), 2);
    assert_eq!(link.took_over(1), Some(0), "it did not leave");
    std::fs::remove_file(&may_start).unwrap();
    let started = rustix::process::Pid::from_raw(started).unwrap();
    rustix::process::kill_process(started, Signal::KILL).unwrap();
    link.wait_holder(1, "it could not be started again");
}

/// A router in Python that speaks nonsense, and then as RFC 9568 says, with the checksum of the message alone.
const STRANGER: &str = r#"
import socket, struct, sys, time
def total(data):
    words = sum(struct.unpack(f"!{len(data) // 2}H", data))
    words = (words & 0xffff) + (words >> 16)
    return (words & 0xffff) + (words >> 16)
def advert(priority, vrid=51):
    packet = struct.pack("!BBBBHH4B", 0x31, vrid, priority, 1, 10, 0, 10, 88, 0, 100)
    return packet[:6] + struct.pack("!H", ~total(packet) & 0xffff) + packet[8:]
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)
s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("10.88.0.2"))
group = socket.inet_aton("224.0.0.18") + socket.inet_aton("10.88.0.2")
s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
s.settimeout(1)
good = advert(200)
def say(packet, ttl=255):
    s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
    s.sendto(packet, ("224.0.0.18", 0))
def alone():
    packet, sender = s.recvfrom(2000)
    return sender[0] == "10.88.0.1" and total(packet[20:]) == 0xffff
broken = bytes([good[0], good[1], good[2], good[3] + 1]) + good[4:]
for nonsense in [b"", good[:7], good[:-1], good + bytes(1500), broken, advert(200, 0), advert(200, 52)]:
    say(nonsense)
    say(good, 254)
    time.sleep(0.02)
print("nonsense", flush=True)
sys.stdin.readline()
for _ in range(10):
    say(good)
    time.sleep(0.1)
print("followed", flush=True)
while not alone():
    pass
print("alone", flush=True)
"#;

#[test]
fn system_nonsense_moves_nothing_and_a_peer_is_answered_with_its_own_checksum() {
    need_root!();
    let mut link = link([Kind::Ours, Kind::Ours], &Plan::default());
    link.start(0);
    link.wait_holder(0, "it is alone");
    let mut stranger = link.converse(1, STRANGER);
    assert_eq!(stranger.line(), "nonsense");
    link.wait_answers(500, "a better one would have been followed");
    link.wait_holder(0, "none of it was an advert");
    assert_eq!(link.took_over(0), Some(1), "it did not leave");
    assert!(
        link.log(0).contains("its TTL or hop limit is 254"),
        "{}",
        link.log(0)
    );
    stranger.go_on();
    link.wait_holders([false, false], "a better one is there");
    assert_eq!(stranger.line(), "followed");
    link.wait_holder(0, "it is silent again");
    assert_eq!(stranger.line(), "alone");
}

#[test]
fn system_a_changed_file_is_in_force_without_a_gap_and_each_change_is_told_to_a_program() {
    need_root!();
    let dir = TempDir::new("vip-notify");
    let told = dir.join("told");
    let shell = program("sh");
    let notify = format!(
        "notify = [\"{}\", \"-c\", \"echo $* >> {}\", \"sh\", \"own\"]",
        shell.display(),
        told.display()
    );
    let mut link = link(
        [Kind::Ours, Kind::Ours],
        &Plan {
            keys: [notify, String::new()],
            ..Plan::default()
        },
    );
    link.start(0);
    link.wait_holder(0, "the better one starts alone");
    link.start(1);
    link.wait_state(1, "backup");
    let probe = link.probe();
    link.wait_answers(200, "clients are served");
    link.change(0, "priority = 150", "priority = 50");
    link.wait_holder(1, "the holder started anew");
    link.wait_priority(0, 50);
    link.wait_answers(200, "clients are served");
    let seen = probe.end();
    assert_eq!(seen.sent, seen.answered, "{seen:?}");
    wait_until(Duration::from_mins(1), "each change was told", || {
        let told = std::fs::read_to_string(&told).unwrap_or_default();
        let lines: Vec<&str> = told.lines().collect();
        let wanted = [
            "own INSTANCE entry BACKUP 150",
            "own INSTANCE entry MASTER 150",
            "own INSTANCE entry STOP 150",
            "own INSTANCE entry BACKUP 50",
        ];
        if lines == wanted { Ok(()) } else { Err(told) }
    });
}
