//! The machines: namespaces for two nodes, a switch and the clients, and `mainstay run` in two of them.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{io, io::BufRead as _, io::Write as _};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::sleep;

use super::{Error, NodeSeams, Options};

/// The address that clients know.
pub(super) const ADDRESS: &str = "10.90.0.100";
pub(super) const PORT: u16 = 8080;
/// How long anything may take before a scenario begins, or comes to its end, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long a move may take that bars measure in milliseconds: one that is not there by then does not come.
const MOVE_TIME: Duration = Duration::from_secs(10);
/// How often something is looked at that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a node may take over its end; its own patience is less.
const STOP_TIME: Duration = Duration::from_mins(1);
/// What sessions that do not end by themselves get when the address is moved.
const DRAIN: &str = "2s";

/// Namespaces are called so, with the process behind it whose they are.
const PREFIX: &str = "msprove";

pub(super) const NODES: [&str; 2] = ["a", "b"];

/// The machines. What is left of them at the end is ended.
pub(super) struct Rig {
    program: PathBuf,
    seams: NodeSeams,
    dir: PathBuf,
    /// Begins the names of namespaces.
    name: String,
    nodes: [Option<Child>; 2],
}

impl Rig {
    /// Two nodes, of which the first holds the address, and both serve.
    pub(super) async fn build(options: &Options) -> Result<Self, Error> {
        end_orphans();
        let name = format!("{PREFIX}{}", std::process::id());
        let dir = std::env::temp_dir().join(&name);
        fs::create_dir_all(&dir).map_err(|source| Error::Io {
            attempt: format!("create `{}`", dir.display()),
            source,
        })?;
        let mut rig = Self {
            program: options.program.clone(),
            seams: options.seams.clone(),
            dir,
            name,
            nodes: [None, None],
        };
        rig.wire()?;
        for node in 0..2 {
            rig.start(node)?;
            rig.wait_serves(node).await?;
            let state = if node == 0 { "master" } else { "backup" };
            rig.wait_state(node, state).await?;
        }
        Ok(rig)
    }

    fn wire(&self) -> Result<(), Error> {
        for host in ["sw", "a", "b", "c"] {
            ip(&["netns", "add", &self.netns(host)])?;
            self.ip_in(host, &["link", "set", "lo", "up"])?;
        }
        self.ip_in(
            "sw",
            &[
                "link",
                "add",
                "br0",
                "type",
                "bridge",
                "mcast_snooping",
                "0",
            ],
        )?;
        self.ip_in("sw", &["link", "set", "br0", "up"])?;
        for (number, host) in ["a", "b", "c"].into_iter().enumerate() {
            let (netns, address) = (self.netns(host), format!("10.90.0.{}/24", number + 1));
            self.ip_in(
                "sw",
                &[
                    "link", "add", "name", host, "type", "veth", "peer", "name", "eth0", "netns",
                    &netns,
                ],
            )?;
            self.ip_in("sw", &["link", "set", "dev", host, "master", "br0"])?;
            self.ip_in("sw", &["link", "set", "dev", host, "up"])?;
            self.ip_in(host, &["address", "add", &address, "dev", "eth0"])?;
            self.ip_in(host, &["link", "set", "dev", "eth0", "up"])?;
        }
        Ok(())
    }

    fn netns(&self, host: &str) -> String {
        format!("{}{host}", self.name)
    }

    /// The file of the clients' namespace.
    pub(super) fn clients(&self) -> PathBuf {
        Path::new("/run/netns").join(self.netns("c"))
    }

    fn ip_in(&self, host: &str, arguments: &[&str]) -> Result<(), Error> {
        let netns = self.netns(host);
        let mut all = vec!["-n", netns.as_str()];
        all.extend(arguments);
        ip(&all)
    }

    fn state(&self, node: usize) -> PathBuf {
        self.dir.join(NODES[node])
    }

    /// Starts `mainstay run` on a node.
    pub(super) fn start(&mut self, node: usize) -> Result<(), Error> {
        let file = self.write_files(node).map_err(|source| Error::Io {
            attempt: format!("write the files of node {}", NODES[node]),
            source,
        })?;
        let mut command = self.command(node);
        command.arg("run").arg("--config").arg(file);
        for (option, seams) in [
            ("--unsafe-gateway-seams", &self.seams.gateway),
            ("--unsafe-vip-seams", &self.seams.vip),
        ] {
            if !seams.is_empty() {
                command.args([option, seams]);
            }
        }
        let log = self.dir.join(format!("{}.log", NODES[node]));
        let started = fs::File::create(log).and_then(|log| {
            command.stdin(Stdio::null());
            command.stdout(log.try_clone()?).stderr(log);
            command.spawn()
        });
        let started = started.map_err(|source| Error::Io {
            attempt: format!("start node {} by `nsenter` of util-linux", NODES[node]),
            source,
        })?;
        self.nodes[node] = Some(started);
        Ok(())
    }

    /// The program in the namespace of a node. By `nsenter`, since `ip netns exec` would hide the control groups.
    fn command(&self, node: usize) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns(NODES[node])));
        command.arg("--").arg(&self.program);
        command
    }

    fn write_files(&self, node: usize) -> io::Result<PathBuf> {
        let (name, state) = (NODES[node], self.state(node));
        let (program, priority) = (self.program.display(), 150 - 50 * node);
        let service = self.dir.join("answer.toml");
        fs::write(
            &service,
            format!(
                "[service.answer]\nexec = [\"{program}\", \"internal\", \"answer\", \"{{host}}:{{port}}\"]\n\
                 http = {{ path = \"/\" }}\nhealth = {{ get = \"/\", every = \"200ms\" }}\ninstances = 2\n"
            ),
        )?;
        let file = self.dir.join(format!("{name}.toml"));
        let text = format!(
            "roles = [\"control\", \"agent\", \"gateway\", \"vip\"]\nstate = \"{}\"\nservices = [\"{}\"]\n\
             [gateway]\nhttp = \":{PORT}\"\nstats = \"off\"\nworkers = 2\ndrain = \"{DRAIN}\"\n\
             [vip.entry]\naddress = \"{ADDRESS}/32\"\ninterface = \"eth0\"\nvrid = 51\npriority = {priority}\n",
            state.display(),
            service.display(),
        );
        fs::write(&file, text)?;
        Ok(file)
    }

    /// Runs `mainstay` with these words on a node.
    pub(super) fn run(&self, node: usize, words: &[&str]) -> Result<String, Error> {
        let mut command = self.command(node);
        command.arg("--state").arg(self.state(node)).args(words);
        output(&mut command, &format!("mainstay {}", words.join(" ")))
    }

    /// Pulls a node's cable at the switch, where the node does not see it.
    pub(super) fn cut(&self, node: usize) -> Result<(), Error> {
        self.ip_in("sw", &["link", "set", "dev", NODES[node], "nomaster"])
    }

    /// Plugs it in again.
    pub(super) fn heal(&self, node: usize) -> Result<(), Error> {
        self.ip_in("sw", &["link", "set", "dev", NODES[node], "master", "br0"])
    }

    /// Kills everything that runs on a node at once.
    pub(super) fn kill_all(&mut self, node: usize) {
        for pid in pids(&self.netns(NODES[node])) {
            kill_process(pid, Signal::KILL).ok();
        }
        if let Some(mut supervisor) = self.nodes[node].take() {
            supervisor.kill().ok();
            supervisor.wait().ok();
        }
    }

    /// The supervisor of a node.
    pub(super) fn supervisor(&self, node: usize) -> Option<Pid> {
        let child = self.nodes[node].as_ref()?;
        Pid::from_raw(i32::try_from(child.id()).ok()?)
    }

    /// The gateway that is kept on a node.
    pub(super) fn gateway(&self, node: usize) -> Option<Pid> {
        let record = fs::read(self.state(node).join("supervisor.json")).ok()?;
        let record: Value = serde_json::from_slice(&record).ok()?;
        let mut processes = record["processes"].as_array()?.iter();
        let kept = processes.find(|process| {
            let name = process["name"].as_str().unwrap_or_default();
            name.starts_with("gateway") && process["duty"] == "kept"
        })?;
        Pid::from_raw(i32::try_from(kept["pid"].as_i64()?).ok()?)
    }

    /// What the holder of a node says of the address.
    pub(super) fn shown(&self, node: usize) -> Result<Value, String> {
        let ask = || -> io::Result<String> {
            let mut stream = UnixStream::connect(self.state(node).join("vip.sock"))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"show\n")?;
            let mut line = String::new();
            io::BufReader::new(stream).read_line(&mut line)?;
            Ok(line)
        };
        let line = ask().map_err(|error| error.to_string())?;
        let shown: Value = serde_json::from_str(&line).map_err(|_| line)?;
        Ok(shown["shown"]["vips"][0].clone())
    }

    /// Waits until a node has ended.
    pub(super) async fn wait_ended(&mut self, node: usize) -> Result<(), Error> {
        let Some(mut child) = self.nodes[node].take() else {
            return Ok(());
        };
        let what = format!("node {} did not end", NODES[node]);
        let waited = self.wait(&what, || match child.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        let waited = waited.await;
        if waited.is_err() {
            self.nodes[node] = Some(child);
        }
        waited
    }

    /// Waits until a node is in this state.
    pub(super) async fn wait_state(&self, node: usize, state: &str) -> Result<(), Error> {
        let what = format!("node {} is not {state}", NODES[node]);
        self.wait(&what, || {
            let shown = self.shown(node)?;
            let seen = shown["state"].as_str().unwrap_or_default();
            if seen == state {
                Ok(())
            } else {
                Err(shown.to_string())
            }
        })
        .await
    }

    /// Waits until a node holds the address that another one held; `false`: it did not come.
    pub(super) async fn wait_taken(&self, node: usize) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < MOVE_TIME {
            let shown = self.shown(node).unwrap_or_default();
            if shown["state"] == "master" {
                return true;
            }
            sleep(LOOK_EVERY).await;
        }
        false
    }

    /// Waits until a node's gateway serves and its address depends on nothing that is dead.
    pub(super) async fn wait_serves(&self, node: usize) -> Result<(), Error> {
        let what = format!("node {} does not serve", NODES[node]);
        self.wait(&what, || {
            let shown = self.shown(node)?;
            let tracks = shown["tracks"].as_array().cloned().unwrap_or_default();
            if tracks.is_empty() || !tracks.iter().all(|track| track["works"] == true) {
                return Err(shown.to_string());
            }
            let status = self
                .run(node, &["ps", "--json"])
                .map_err(|error| error.to_string())?;
            let ready = status.matches("\"ready\"").count();
            if ready >= 2 { Ok(()) } else { Err(status) }
        })
        .await
    }

    /// Waits for something.
    pub(super) async fn wait(
        &self,
        what: &str,
        mut look: impl FnMut() -> Result<(), String>,
    ) -> Result<(), Error> {
        let begun = Instant::now();
        loop {
            let Err(seen) = look() else { return Ok(()) };
            if begun.elapsed() >= PATIENCE {
                return Err(Error::NotInTime {
                    what: what.to_owned(),
                    seconds: PATIENCE.as_secs(),
                    seen: format!("{seen}\n{}", self.logs()),
                });
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn logs(&self) -> String {
        let mut text = String::new();
        for (node, name) in NODES.iter().enumerate() {
            let files = [
                self.dir.join(format!("{name}.log")),
                self.state(node).join("logs/vip.log"),
            ];
            for file in files {
                let log = fs::read_to_string(&file).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let end = lines[lines.len().saturating_sub(8)..].join("\n");
                let part = format!("{}:\n{end}\n", file.display());
                text.push_str(&part);
            }
        }
        text
    }

    /// Ends the nodes as an operator does, and what is left by force.
    fn stop(&mut self) {
        for pid in [0, 1].into_iter().filter_map(|node| self.gateway(node)) {
            // One that a scenario froze could not end.
            kill_process(pid, Signal::CONT).ok();
        }
        for node in self.nodes.iter().flatten() {
            if let Some(pid) = i32::try_from(node.id()).ok().and_then(Pid::from_raw) {
                kill_process(pid, Signal::TERM).ok();
            }
        }
        let begun = Instant::now();
        for node in self.nodes.iter_mut().flatten() {
            while matches!(node.try_wait(), Ok(None)) && begun.elapsed() < STOP_TIME {
                std::thread::park_timeout(LOOK_EVERY);
            }
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop();
        for node in 0..2 {
            self.kill_all(node);
        }
        for host in ["a", "b", "c", "sw"] {
            ip(&["netns", "delete", &self.netns(host)]).ok();
        }
        fs::remove_dir_all(&self.dir).ok();
    }
}

/// Ends what a proof left that was killed itself.
fn end_orphans() {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return;
    };
    for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let owner = rest.trim_end_matches(char::is_alphabetic);
        if Path::new("/proc").join(owner).exists() {
            continue;
        }
        for pid in pids(&name) {
            kill_process(pid, Signal::KILL).ok();
        }
        // Another proof may be deleting it at the same time.
        ip(&["netns", "delete", &name]).ok();
    }
}

/// What runs in a namespace.
fn pids(netns: &str) -> Vec<Pid> {
    let listed = Command::new("ip").args(["netns", "pids", netns]).output();
    let listed = listed.map(|listed| listed.stdout).unwrap_or_default();
    let numbers = String::from_utf8_lossy(&listed).into_owned();
    let numbers = numbers
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    numbers.filter_map(Pid::from_raw).collect()
}

fn ip(arguments: &[&str]) -> Result<(), Error> {
    let line = format!("ip {}", arguments.join(" "));
    output(Command::new("ip").args(arguments), &line).map(drop)
}

fn output(command: &mut Command, line: &str) -> Result<String, Error> {
    let failed = |why: String| Error::Program {
        line: line.to_owned(),
        why,
    };
    let output = command
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(failed(
        String::from_utf8_lossy(&output.stderr)
            .trim_end()
            .to_owned(),
    ))
}
