//! Two hosts and a client on a link, and a virtual router on each host.

use std::fmt::Write;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mainstay_testkit::{Echo, Netns, Probe, Segment, Spawned, TempDir, program, wait_until};
use rustix::process::Signal;

/// How long anything may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_mins(1);

const MAINSTAY: &str = env!("CARGO_BIN_EXE_mainstay");
const NAMES: [&str; 2] = ["a", "b"];
const PRIORITIES: [u8; 2] = [150, 100];

/// Who holds the address on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    Keepalived,
}

/// What both hosts are told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) version: u8,
    pub(crate) advert: Duration,
    pub(crate) address: &'static str,
    pub(crate) preempt: bool,
    pub(crate) unicast: bool,
    /// More keys of ours, per host.
    pub(crate) keys: [&'static str; 2],
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            version: 3,
            advert: Duration::from_millis(100),
            address: "10.88.0.100",
            preempt: false,
            unicast: false,
            keys: ["", ""],
        }
    }
}

/// The fields are dropped in this order: processes first, then what they run in.
pub(crate) struct Link {
    routers: [Option<Spawned>; 2],
    probe: Probe,
    _echoes: [Echo; 2],
    plan: Plan,
    kinds: [Kind; 2],
    dir: TempDir,
    pub(crate) segment: Segment,
    hosts: [Netns; 2],
    client: Netns,
}

impl Link {
    /// Nothing holds the address yet.
    pub(crate) fn new(kinds: [Kind; 2], plan: &Plan) -> Self {
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
            routers: [None, None],
            probe: Probe::start(&client, address),
            _echoes: echoes,
            plan: *plan,
            kinds,
            dir: TempDir::new("vip"),
            segment,
            hosts,
            client,
        }
    }

    /// Another client, from now on.
    pub(crate) fn probe(&self) -> Probe {
        Probe::start(&self.client, self.plan.address.parse().expect("an address"))
    }

    /// Starts the virtual router of a host.
    pub(crate) fn start(&mut self, at: usize) {
        let name = NAMES[at];
        let mut command = match self.kinds[at] {
            Kind::Ours => {
                let config = self.dir.join(format!("{name}.toml"));
                fs::write(&config, self.node_file(at)).expect("the directory is ours");
                let mut command = self.hosts[at].command(Path::new(MAINSTAY));
                command.arg("run").arg("--config").arg(config);
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
            keys,
        } = self.plan;
        let (state, priority) = (self.state_dir(at), PRIORITIES[at]);
        let state = state.display();
        let mut file = format!(
            "roles = [\"vip\"]\nstate = \"{state}\"\n[vip.entry]\naddress = \"{address}\"\ninterface = \"eth0\"\nvrid = 51\n\
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
            ..
        } = self.plan;
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

    /// Ends a virtual router as an operator does.
    pub(crate) fn stop(&mut self, at: usize) {
        let router = self.routers[at].take().expect("it runs");
        router.signal(Signal::TERM);
        router.wait(PATIENCE);
    }

    /// Kills a virtual router, and whoever would start it again.
    pub(crate) fn kill(&mut self, at: usize) {
        let router = self.routers[at].take().expect("it runs");
        router.signal(Signal::KILL);
        let claim = fs::read(self.state_dir(at).join("processes/vip.json")).expect("it is signed");
        let claim: serde_json::Value = serde_json::from_slice(&claim).expect("it is whole");
        let holder = claim["pid"]
            .as_i64()
            .and_then(|pid| i32::try_from(pid).ok());
        let holder = rustix::process::Pid::from_raw(holder.expect("a number")).expect("a process");
        rustix::process::kill_process(holder, Signal::KILL).expect("it is ours");
    }

    /// Which hosts have the address.
    fn holders(&self) -> [bool; 2] {
        [0, 1].map(|at| {
            let mut list = self.hosts[at].command(&program("ip"));
            let listed = list.args(["-o", "address", "show", "dev", "eth0"]).output();
            let listed = String::from_utf8(listed.expect("`ip` can be started").stdout);
            let wanted = format!(" {}/", self.plan.address);
            listed.expect("it is text").contains(&wanted)
        })
    }

    /// Waits until exactly this host has the address; how long that took.
    pub(crate) fn wait_holder(&self, at: usize, when: &str) -> Duration {
        self.wait_holders([at == 0, at == 1], when)
    }

    /// Waits until exactly these hosts have the address.
    pub(crate) fn wait_holders(&self, wanted: [bool; 2], when: &str) -> Duration {
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
    pub(crate) fn wait_answer(&self, at: usize, when: &str) {
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
    pub(crate) fn wait_answers(&self, more: u64, when: &str) {
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
    pub(crate) fn vip(&self, at: usize, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = self.hosts[at].command(Path::new(MAINSTAY));
        command
            .arg("--state")
            .arg(self.state_dir(at))
            .arg("vip")
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
    pub(crate) fn wait_state(&self, at: usize, state: &str) {
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
    pub(crate) fn wait_track(&self, at: usize, word: &str) {
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

    /// A process of this name.
    pub(crate) fn run_named(&self, name: &str) -> Spawned {
        let script =
            format!("open('/proc/self/comm', 'w').write('{name}'); import signal; signal.pause()");
        let mut command = std::process::Command::new(program("python3"));
        Spawned::start(&self.dir, name, command.args(["-c", &script]))
    }

    /// What the holder of ours wrote.
    pub(crate) fn log(&self, at: usize) -> String {
        fs::read_to_string(self.state_dir(at).join("logs/vip.log")).unwrap_or_default()
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
