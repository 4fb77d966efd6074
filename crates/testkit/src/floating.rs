//! Two hosts and a client on a link, and a virtual router on each host: ours (`mainstay run`) or keepalived.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{Echo, Netns, Probe, Segment, Spawned, TempDir, program, wait_until};

/// How long anything may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_mins(1);

const NAMES: [&str; 2] = ["a", "b"];
const PRIORITIES: [u8; 2] = [150, 100];

/// Who holds the address on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `mainstay run`, started as this program.
    Ours,
    /// Debian's keepalived.
    Keepalived,
}

/// Whether ours have a control centre and an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agents {
    /// They have none.
    None,
    /// Each has its own.
    Each,
}

/// What both hosts are told.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The version of VRRP.
    pub version: u8,
    /// The time between two adverts.
    pub advert: Duration,
    /// The floating address, alone.
    pub address: &'static str,
    /// Whether it is taken from a worse one.
    pub preempt: bool,
    /// Whether each is told the other as its only peer.
    pub unicast: bool,
    /// keepalived's configuration, with `PRIORITY` and `ADVERT` in it, instead of a simple one.
    pub keepalived: Option<String>,
    /// Whether ours have a gateway each, on which the address depends.
    pub gateway: bool,
    /// Whether ours have a control centre and an agent each.
    pub agents: Agents,
    /// Test seams of ours' gateways.
    pub seams: &'static str,
    /// Test seams of ours' holders of the address.
    pub vip_seams: &'static str,
    /// More keys of ours, per host.
    pub keys: [String; 2],
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            version: 3,
            advert: Duration::from_millis(100),
            address: "10.88.0.100",
            preempt: false,
            unicast: false,
            keepalived: None,
            gateway: false,
            agents: Agents::None,
            seams: "",
            vip_seams: "",
            keys: [String::new(), String::new()],
        }
    }
}

/// The fields are dropped in this order: processes first, then what they run in. Needs root.
#[derive(Debug)]
pub struct Link {
    mainstay: PathBuf,
    routers: [Option<Spawned>; 2],
    /// Those whose processes others have taken over; all of them end with the link.
    left: Vec<Spawned>,
    probe: Probe,
    _echoes: [Echo; 2],
    plan: Plan,
    kinds: [Kind; 2],
    dir: TempDir,
    /// What they are plugged into: the ports are `a`, `b` and `c`, the client's.
    pub segment: Segment,
    hosts: [Netns; 2],
    client: Netns,
}

impl Link {
    /// Nothing holds the address yet. `mainstay` is the program of [`Kind::Ours`].
    pub fn new(mainstay: &Path, kinds: [Kind; 2], plan: &Plan) -> Self {
        let segment = Segment::new();
        let hosts = [Netns::new(), Netns::new()];
        let client = Netns::new();
        for (at, host) in hosts.iter().enumerate() {
            segment.plug(host, NAMES[at], &format!("10.88.0.{}/24", at + 1));
        }
        segment.plug(&client, "c", "10.88.0.3/24");
        for (at, netns) in [&hosts[0], &hosts[1], &client].into_iter().enumerate() {
            let own = format!("fd88::{}/64", at + 1);
            let mut add = netns.command(&program("ip"));
            add.args(["address", "add", &own, "dev", "eth0", "nodad"]);
            assert!(add.status().expect("`ip` can be started").success());
        }
        let echoes = [Echo::start(&hosts[0], b'a'), Echo::start(&hosts[1], b'b')];
        let address: IpAddr = plan.address.parse().expect("an address");
        Self {
            mainstay: mainstay.to_owned(),
            routers: [None, None],
            left: Vec::new(),
            probe: Probe::start(&client, address),
            _echoes: echoes,
            plan: plan.clone(),
            kinds,
            dir: TempDir::new("vip"),
            segment,
            hosts,
            client,
        }
    }

    /// Another client, from now on.
    pub fn probe(&self) -> Probe {
        Probe::start(&self.client, self.plan.address.parse().expect("an address"))
    }

    /// A command on the clients' host.
    pub fn client(&self, program_path: &Path) -> std::process::Command {
        self.client.command(program_path)
    }

    /// Plugs one more host in.
    pub fn plug(&self, host: &Netns, port: &str, address: &str) {
        self.segment.plug(host, port, address);
    }

    /// Starts the virtual router of a host.
    pub fn start(&mut self, at: usize) {
        let name = NAMES[at];
        let mut command = match self.kinds[at] {
            Kind::Ours => {
                let config = self.dir.join(format!("{name}.toml"));
                fs::write(&config, self.node_file(at)).expect("the directory is ours");
                let mut command = self.hosts[at].command(&self.mainstay);
                command.arg("run").arg("--config").arg(config);
                for (option, seams) in [
                    ("--unsafe-gateway-seams", self.plan.seams),
                    ("--unsafe-vip-seams", self.plan.vip_seams),
                ] {
                    if !seams.is_empty() {
                        command.args([option, seams]);
                    }
                }
                command
            }
            Kind::Keepalived => {
                let file = |end: &str| self.dir.join(format!("{name}.{end}"));
                fs::write(file("conf"), self.keepalived_conf(at)).expect("the directory is ours");
                let mut command = self.hosts[at].command(&program("keepalived"));
                command
                    .args(["-n", "-l", "-D", "-P", "-f"])
                    .arg(file("conf"));
                command
                    .arg("-p")
                    .arg(file("pid"))
                    .arg("-r")
                    .arg(file("vrrp"));
                command
            }
        };
        self.routers[at] = Some(Spawned::start(&self.dir, name, &mut command));
    }

    /// Changes the node file of a router of ours while it runs.
    pub fn change(&self, at: usize, from: &str, to: &str) {
        let config = self.dir.join(format!("{}.toml", NAMES[at]));
        let file = self.node_file(at);
        assert!(file.contains(from), "{file}");
        fs::write(config, file.replace(from, to)).expect("the directory is ours");
    }

    fn state_dir(&self, at: usize) -> PathBuf {
        self.dir.join(format!("state-{}", NAMES[at]))
    }

    fn node_file(&self, at: usize) -> String {
        let Plan {
            version,
            advert,
            address,
            preempt,
            unicast,
            gateway,
            agents,
            seams: _,
            vip_seams: _,
            keepalived: _,
            ref keys,
        } = self.plan;
        let with_agent = match agents {
            Agents::None => "",
            Agents::Each => "\"control\", \"agent\", ",
        };
        let (more_roles, gateway) = if gateway {
            (
                "\"gateway\", ",
                "[gateway]\nhttp = \":8080\"\nstats = \"127.0.0.1:8888\"\nworkers = 2\ndrain = \"1s\"",
            )
        } else {
            ("", "")
        };
        let (state, priority) = (self.state_dir(at), PRIORITIES[at]);
        let state = state.display();
        let mut file = format!(
            "roles = [{with_agent}{more_roles}\"vip\"]\nstate = \"{state}\"\n{gateway}\n[vip.entry]\naddress = \"{address}\"\ninterface = \"eth0\"\nvrid = 51\n\
             version = {version}\npriority = {priority}\npreempt = {preempt}\nadvert = \"{}ms\"\n{}\n",
            advert.as_millis(),
            keys[at]
        );
        if unicast {
            writeln!(file, "peers = [\"10.88.0.{}\"]", 2 - at).expect("a string takes it");
        }
        file
    }

    fn keepalived_conf(&self, at: usize) -> String {
        let Plan {
            version,
            advert,
            address,
            preempt,
            unicast,
            ref keepalived,
            ..
        } = self.plan;
        if let Some(text) = keepalived {
            let text = text.replace("PRIORITY", &PRIORITIES[at].to_string());
            return text.replace("ADVERT", &advert.as_secs_f64().to_string());
        }
        let priority = PRIORITIES[at];
        let peers = format!("unicast_peer {{ 10.88.0.{} }}", 2 - at);
        format!(
            "global_defs {{ vrrp_version {version} }}\n\
             vrrp_instance entry {{\n state BACKUP\n interface eth0\n virtual_router_id 51\n priority {priority}\n \
             advert_int {}\n {}\n {}\n virtual_ipaddress {{ {address} dev eth0 }}\n}}\n",
            advert.as_secs_f64(),
            if preempt { "" } else { "nopreempt" },
            if unicast { &peers } else { "" },
        )
    }

    /// Has a virtual router end as an operator does, and waits for nothing.
    pub fn terminate(&self, at: usize) {
        let router = self.routers[at].as_ref().expect("it runs");
        router.signal(Signal::TERM);
    }

    /// Ends a virtual router as an operator does.
    pub fn stop(&mut self, at: usize) {
        let router = self.routers[at].take().expect("it runs");
        router.signal(Signal::TERM);
        router.wait(PATIENCE);
    }

    /// Kills a virtual router, and whoever would start it again.
    pub fn kill(&mut self, at: usize) {
        let router = self.routers[at].take().expect("it runs");
        router.signal(Signal::KILL);
        match self.kinds[at] {
            Kind::Ours => self.signal(at, "vip", Signal::KILL),
            // Its processes are one group, which is killed with the first.
            Kind::Keepalived => drop(router),
        }
    }

    /// Kills what looks after our processes on a host, and none of them.
    pub fn kill_supervisor(&mut self, at: usize) {
        let supervisor = self.routers[at].take().expect("it runs");
        supervisor.signal(Signal::KILL);
        supervisor.wait(PATIENCE);
        self.left.push(supervisor);
    }

    /// Sends a signal to one of our processes on a host.
    pub fn signal(&self, at: usize, kind: &str, signal: Signal) {
        rustix::process::kill_process(self.pid(at, kind), signal).expect("it is ours");
    }

    /// Whether one of our processes has signed its claim on a host.
    pub fn runs(&self, at: usize, kind: &str) -> bool {
        let claim = format!("processes/{kind}.json");
        fs::metadata(self.state_dir(at).join(claim)).is_ok_and(|claim| claim.len() > 0)
    }

    /// Sends a signal to the supervisor of ours, or to keepalived, on a host.
    pub fn signal_router(&self, at: usize, signal: Signal) {
        let router = self.routers[at].as_ref().expect("it runs");
        router.signal(signal);
    }

    /// The number of what looks after our processes on a host, as it wrote it down.
    pub fn supervisor(&self, at: usize) -> Option<i64> {
        let record = fs::read(self.state_dir(at).join("supervisor.json")).ok()?;
        let record: serde_json::Value = serde_json::from_slice(&record).ok()?;
        record["supervisor"].as_i64()
    }

    /// One of our processes on a host.
    pub fn pid(&self, at: usize, kind: &str) -> rustix::process::Pid {
        let claim = self
            .state_dir(at)
            .join("processes")
            .join(format!("{kind}.json"));
        let claim = fs::read(claim).expect("it is signed");
        let claim: serde_json::Value = serde_json::from_slice(&claim).expect("it is whole");
        let pid = claim["pid"]
            .as_i64()
            .and_then(|pid| i32::try_from(pid).ok());
        rustix::process::Pid::from_raw(pid.expect("a number")).expect("a process")
    }

    /// Which hosts have the address.
    pub fn holders(&self) -> [bool; 2] {
        [0, 1].map(|at| {
            let mut list = self.hosts[at].command(&program("ip"));
            let listed = list.args(["-o", "address"]).output();
            let listed = String::from_utf8(listed.expect("`ip` can be started").stdout);
            let wanted = format!(" {}/", self.plan.address);
            listed.expect("it is text").contains(&wanted)
        })
    }

    /// The hardware address that the client knows for the floating address, if it knows one.
    pub fn known_mac(&self) -> Option<String> {
        let mut list = self.client.command(&program("ip"));
        let listed = list.args(["neighbour", "show", self.plan.address]).output();
        let listed = String::from_utf8(listed.expect("`ip` can be started").stdout);
        let listed = listed.expect("it is text");
        let mut words = listed.split_whitespace();
        words.find(|word| *word == "lladdr")?;
        words.next().map(str::to_owned)
    }

    /// What `ip` says on a host.
    pub fn ip(&self, at: usize, arguments: &[&str]) -> String {
        let output = self.hosts[at]
            .command(&program("ip"))
            .args(arguments)
            .output();
        let output = output.expect("`ip` can be started");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// Waits until exactly this host has the address; how long that took.
    pub fn wait_holder(&self, at: usize, when: &str) -> Duration {
        self.wait_holders([at == 0, at == 1], when)
    }

    /// Waits until exactly these hosts have the address.
    pub fn wait_holders(&self, wanted: [bool; 2], when: &str) -> Duration {
        let begun = Instant::now();
        let what = format!("{:?}: {when}: {wanted:?} hold it", self.kinds);
        wait_until(PATIENCE, &what, || {
            let holders = self.holders();
            if holders == wanted {
                return Ok(begun.elapsed());
            }
            Err(format!("{holders:?}\n{}", self.logs()))
        })
    }

    /// Waits until the client is answered by this host.
    pub fn wait_answer(&self, at: usize, when: &str) {
        let before = self.probe.last().1;
        let what = format!("{:?}: {when}: {} answers", self.kinds, NAMES[at]);
        wait_until(PATIENCE, &what, || {
            let (mark, count) = self.probe.last();
            if mark == NAMES[at].as_bytes()[0] && count > before {
                return Ok(());
            }
            Err(format!(
                "{} answered last\n{}",
                char::from(mark),
                self.logs()
            ))
        });
    }

    /// Waits until the client got so many more answers, one each millisecond.
    pub fn wait_answers(&self, more: u64, when: &str) {
        let before = self.probe.last().1;
        wait_until(PATIENCE, when, || {
            let count = self.probe.last().1;
            if count >= before + more {
                Ok(())
            } else {
                Err(format!("{count} answers"))
            }
        });
    }

    /// Runs `mainstay vip` on a host: its code, and all that it said.
    pub fn vip(&self, at: usize, arguments: &[&str]) -> (Option<i32>, String) {
        self.run(at, &[&["vip"], arguments].concat())
    }

    /// What `mainstay events` of a host says of what happened beside its instances; why it does not.
    pub fn happened(&self, at: usize) -> Result<Vec<serde_json::Value>, String> {
        let (code, said) = self.run(at, &["events", "--json"]);
        if code != Some(0) {
            return Err(said);
        }
        let lines = said.lines().map(serde_json::from_str);
        let events: Result<Vec<serde_json::Value>, _> = lines.collect();
        let mut events = events.map_err(|error| format!("{error}: {said}"))?;
        events.retain(|event| event["kind"]["what"] == "happened");
        Ok(events)
    }

    /// Runs `mainstay` on a host: its code, and all that it said.
    pub fn run(&self, at: usize, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = self.hosts[at].command(&self.mainstay);
        command
            .arg("--state")
            .arg(self.state_dir(at))
            .args(arguments);
        let output = command.output().expect("it can be started");
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    fn shown(&self, at: usize) -> Result<serde_json::Value, String> {
        let (code, said) = self.vip(at, &["--json"]);
        if code != Some(0) {
            return Err(said);
        }
        let shown: serde_json::Value = serde_json::from_str(&said).map_err(|_| said)?;
        Ok(shown["vips"][0].clone())
    }

    /// Waits until a router of ours says that it is in this state.
    pub fn wait_state(&self, at: usize, state: &str) {
        wait_until(PATIENCE, &format!("{} is {state}", NAMES[at]), || {
            let shown = self.shown(at)?;
            if shown["state"] == state {
                Ok(())
            } else {
                Err(shown.to_string())
            }
        });
    }

    /// Waits until what a router of ours depends on works, or not.
    pub fn wait_track(&self, at: usize, word: &str) {
        wait_until(
            PATIENCE,
            &format!("what {} depends on {word}", NAMES[at]),
            || {
                let shown = self.shown(at)?;
                let works = shown["tracks"][0]["works"] == true;
                if works == (word == "works") {
                    Ok(())
                } else {
                    Err(shown.to_string())
                }
            },
        );
    }

    /// Waits until a router of ours has this priority.
    pub fn wait_priority(&self, at: usize, priority: u8) {
        wait_until(
            PATIENCE,
            &format!("the priority of {} is {priority}", NAMES[at]),
            || {
                let shown = self.shown(at)?;
                if shown["priority"] == priority {
                    Ok(())
                } else {
                    Err(shown.to_string())
                }
            },
        );
    }

    /// How often a router of ours became master.
    pub fn took_over(&self, at: usize) -> Option<u64> {
        self.shown(at).expect("it runs")["counts"]["took_over"].as_u64()
    }

    /// A process of this name.
    pub fn run_named(&self, name: &str) -> Spawned {
        let mut command = std::process::Command::new(program("python3"));
        Spawned::start(&self.dir, name, command.args(["-c", &named_script(name)]))
    }

    /// What the router on a host wrote, and whoever started it.
    pub fn said(&self, at: usize) -> String {
        let said = self.routers[at]
            .as_ref()
            .map(Spawned::log)
            .unwrap_or_default();
        format!("{said}\n{}", self.log(at))
    }

    /// What the holder of ours wrote.
    pub fn log(&self, at: usize) -> String {
        fs::read_to_string(self.state_dir(at).join("logs/vip.log")).unwrap_or_default()
    }

    /// Waits until the holder of ours wrote something so often.
    pub fn wait_log(&self, at: usize, text: &str, count: usize) {
        wait_until(
            PATIENCE,
            &format!("`{text}` was told {count} times"),
            || {
                let log = self.log(at);
                if log.matches(text).count() >= count {
                    Ok(())
                } else {
                    Err(log)
                }
            },
        );
    }

    /// Takes the interface of a host away.
    pub fn unplug(&self, at: usize) {
        self.ip(at, &["link", "delete", "eth0"]);
    }

    /// Gives it one again, with the same address.
    pub fn plug_again(&self, at: usize) {
        let address = format!("10.88.0.{}/24", at + 1);
        self.segment.plug(&self.hosts[at], NAMES[at], &address);
    }

    /// A program in Python on a host, with which the test speaks by lines.
    pub fn converse(&self, at: usize, script: &str) -> Partner {
        Self::converse_in(&self.hosts[at], script)
    }

    /// The same where the client is.
    pub fn converse_as_client(&self, script: &str) -> Partner {
        Self::converse_in(&self.client, script)
    }

    fn converse_in(netns: &Netns, script: &str) -> Partner {
        let mut command = netns.command(&program("python3"));
        command.args(["-u", "-c", script]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("python can be started");
        let said = BufReader::new(child.stdout.take().expect("it is piped"));
        Partner { child, said }
    }

    fn logs(&self) -> String {
        let ends = [0, 1].map(|at| {
            let router = self.routers[at]
                .as_ref()
                .map(Spawned::log)
                .unwrap_or_default();
            let all = format!("{router}\n{}", self.log(at));
            let lines: Vec<&str> = all.lines().collect();
            lines[lines.len().saturating_sub(12)..].join("\n")
        });
        ends.join("\n--\n")
    }
}

/// A program in Python that does nothing under this name.
pub fn named_script(name: &str) -> String {
    format!("open('/proc/self/comm', 'w').write('{name}'); import signal; signal.pause()")
}

/// A program with which the test speaks; it ends with it.
#[derive(Debug)]
pub struct Partner {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Partner {
    /// The next line that it says.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("it speaks");
        line.trim_end().to_owned()
    }

    /// Says a line to it.
    pub fn go_on(&mut self) {
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        stdin.write_all(b"\n").expect("it listens");
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
