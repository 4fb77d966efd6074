//! A `mainstay dev` in a directory of its own, with everything it started ended at the end.
#![allow(dead_code, reason = "each test file uses its own part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use mainstay_api::wire::{InstanceState, InstanceStatus, Status};
use mainstay_testkit::{Ended, Netns, Spawned, TempDir, program, wait_until};
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take on a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// The program under test.
pub(crate) const MAINSTAY: &str = env!("CARGO_BIN_EXE_mainstay");

/// A Python program that serves HTTP on `PORT`; what it does else is up to `extra`.
pub(crate) fn python_server(extra: &str) -> String {
    format!(
        r#"
import http.server, os, signal, sys, threading
{extra}
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = (os.environ["MAINSTAY_INSTANCE"] + "\n").encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Answer)
server.serve_forever()
"#
    )
}

/// Echoes the nonce of `prove`, as the examples do, and ends at once on SIGTERM: nothing but an
/// acknowledged drain saves its requests.
pub(crate) fn echo_server() -> String {
    let server = python_server("import time").replace(
        "    def do_GET(self):\n        body =",
        "    def do_POST(self):\n        self.rfile.read(int(self.headers['content-length'] or 0))\n        self.do_GET()\n    def do_GET(self):\n        time.sleep(0.03)\n        nonce = self.headers['x-prove-nonce'] or ''\n        body = nonce.encode() +",
    );
    server.replace(
        "        self.send_header(\"content-length\"",
        "        self.send_header(\"x-prove-nonce\", nonce)\n        self.send_header(\"content-length\"",
    )
}

/// A directory with service files and programs, and the `dev` that runs in it.
pub(crate) struct Running {
    dev: Option<Spawned>,
    /// Those before it, killed. What they started bears their marks and would end with them.
    former: Vec<Spawned>,
    pub(crate) dir: TempDir,
    state: PathBuf,
    /// The last field: it goes when everything in it has ended.
    netns: Option<Netns>,
}

impl Running {
    /// An empty directory; nothing runs yet.
    pub(crate) fn prepare(name: &str) -> Self {
        let dir = TempDir::new(name);
        let state = dir.join("state");
        Self {
            dev: None,
            former: Vec::new(),
            dir,
            state,
            netns: None,
        }
    }

    /// Keeps the state in another directory.
    pub(crate) fn with_state(mut self, state: &Path) -> Self {
        state.clone_into(&mut self.state);
        self
    }

    /// Runs everything in a network of its own. Needs root.
    pub(crate) fn in_own_network(mut self) -> Self {
        self.netns = Some(Netns::new());
        self
    }

    /// Its network, if it has one of its own.
    #[track_caller]
    pub(crate) fn netns(&self) -> &Netns {
        self.netns.as_ref().expect("a network of its own")
    }

    /// A command that runs where `dev` does.
    pub(crate) fn command(&self, program_path: &Path) -> Command {
        match &self.netns {
            Some(netns) => netns.command(program_path),
            None => Command::new(program_path),
        }
    }

    /// The state directory.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// Writes a file into the directory.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A service file with one service that runs `python` with this program, and what is in `keys`.
    pub(crate) fn write_service(&self, python: &str, keys: &str) -> PathBuf {
        let server = self.write("server.py", python);
        let interpreter = program("python3");
        let (interpreter, server) = (interpreter.display(), server.display());
        let exec = format!("['{interpreter}', '-u', '{server}']");
        self.write(
            "services.toml",
            &format!("[service.web]\nexec = {exec}\n{keys}\n"),
        )
    }

    /// Starts `mainstay dev` with these arguments.
    pub(crate) fn dev(&mut self, arguments: &[&str]) {
        let mut command = self.command(Path::new(MAINSTAY));
        command.args([
            "dev",
            "--entry",
            "127.0.0.1:0",
            "--api",
            "127.0.0.1:0",
            "--stats",
            "127.0.0.1:0",
            "--broker",
            "127.0.0.1:0",
            "--workers",
            "2",
        ]);
        command.args(arguments).arg("--state").arg(&self.state);
        let next = Spawned::start(&self.dir, "dev", &mut command);
        self.former.extend(self.dev.replace(next));
    }

    /// Writes a node file whose state is ours, with one address each that the kernel picks.
    pub(crate) fn write_node(&self, roles: &str, gateway: &str) -> PathBuf {
        let state = self.state.display();
        let text = format!(
            "roles = {roles}\nstate = '{state}'\n[api]\naddress = '127.0.0.1:0'\n[gateway]\nhttp = \
             '127.0.0.1:0'\nstats = 'off'\nworkers = 2\n{gateway}\n"
        );
        self.write("node.toml", &text)
    }

    /// Starts `mainstay run` on a node file.
    pub(crate) fn node(&mut self, file: &Path, variables: &[(&str, &str)]) {
        let mut command = Command::new(MAINSTAY);
        command.args(["run", "--config"]).arg(file);
        command.envs(variables.iter().copied());
        self.start(command);
    }

    /// Starts a supervisor.
    pub(crate) fn start(&mut self, mut command: Command) {
        let next = Spawned::start(&self.dir, "node", &mut command);
        self.former.extend(self.dev.replace(next));
    }

    /// Where the gateway listens, by the supervisor's record.
    #[track_caller]
    pub(crate) fn entry(&self) -> std::net::SocketAddr {
        wait_until(PATIENCE, "the entry is written down", || {
            let record = fs::read(self.state.join("supervisor.json"));
            let record = record.map_err(|error| error.to_string())?;
            let record: serde_json::Value =
                serde_json::from_slice(&record).map_err(|error| error.to_string())?;
            let entry = record["entry"].as_str().unwrap_or_default();
            let entry: std::net::SocketAddr = entry.parse().map_err(|_| record.to_string())?;
            if entry.port() == 0 {
                return Err(record.to_string());
            }
            Ok(entry)
        })
    }

    /// SIGKILLs `dev` alone.
    #[track_caller]
    pub(crate) fn kill_dev(&self) {
        self.spawned().signal(Signal::KILL);
        assert_eq!(self.spawned().wait(PATIENCE), Ended::Signal(9));
    }

    /// The running `dev`.
    pub(crate) fn spawned(&self) -> &Spawned {
        self.dev.as_ref().expect("it was started")
    }

    /// Runs a command of `mainstay` to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(Path::new(MAINSTAY));
        command.args(arguments).arg("--state").arg(&self.state);
        command.output().unwrap()
    }

    /// What a command prints as JSON; `Err` with its complaint if it is refused.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(
        &self,
        command: &[&str],
    ) -> Result<T, String> {
        let output = self.run(&[command, &["--json"]].concat());
        serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Waits until `mainstay status` says that everything is as wanted.
    #[track_caller]
    pub(crate) fn wait_until_steady(&self) -> Status {
        wait_until(PATIENCE, "everything is as wanted", || {
            let output = self.run(&["status", "--json"]);
            let status: Result<Status, _> = serde_json::from_slice(&output.stdout);
            match status {
                Ok(status) if output.status.success() && !status.services.is_empty() => Ok(status),
                _ => Err(text(&output)),
            }
        })
    }

    /// The instances now.
    pub(crate) fn instances(&self) -> Result<Vec<InstanceStatus>, String> {
        self.json(&["ps"])
    }

    /// Waits until the first instance is in this state.
    #[track_caller]
    pub(crate) fn wait_for_state(&self, state: InstanceState) -> InstanceStatus {
        wait_until(PATIENCE, "an instance's state", || {
            let instances = self.instances()?;
            let seen = format!("{instances:?}");
            instances
                .into_iter()
                .find(|instance| instance.state == state)
                .ok_or(seen)
        })
    }

    /// Waits until what `dev` printed contains `needle`.
    #[track_caller]
    pub(crate) fn wait_for_output(&self, needle: &str) {
        wait_until(PATIENCE, needle, || {
            let log = self.spawned().log();
            if log.contains(needle) {
                Ok(())
            } else {
                Err(log)
            }
        });
    }

    /// Gets a path through the gateway.
    pub(crate) fn get(status: &Status, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", status.entry[0]);
        let curl = Command::new(program("curl"))
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "10",
                "--write-out",
                "%{http_code}",
                &url,
            ])
            .output()
            .unwrap();
        let text = text(&curl);
        let (body, code) = text.split_at(text.len().saturating_sub(3));
        (code.parse().unwrap_or(0), body.to_owned())
    }

    /// The processes of ours, by name.
    pub(crate) fn own_process(&self, name: &str) -> Option<u32> {
        let record = fs::read(self.state.join("supervisor.json")).ok()?;
        let record: serde_json::Value = serde_json::from_slice(&record).ok()?;
        let mut processes = record["processes"].as_array()?.iter();
        let process = processes.find(|process| process["name"] == name)?;
        process["pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok())
    }

    /// Asks `dev` to stop, as Ctrl-C does, and waits for its end.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> (Ended, String) {
        let dev = self.dev.take().expect("it was started");
        dev.signal(Signal::INT);
        let ended = dev.wait(PATIENCE);
        (ended, dev.log())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(dev) = self.dev.take() {
            dev.signal(Signal::TERM);
            // A second one does not wait for instances; the guard kills what is left after that. It
            // is of another kind, since two of one kind may count as one.
            dev.signal(Signal::INT);
            let ended = wait_briefly(&dev);
            drop(dev);
            if !ended {
                for name in ["gateway", "gateway-2", "agent", "broker", "server"] {
                    if let Some(pid) = self.own_process(name) {
                        kill(pid, Signal::KILL);
                    }
                }
            }
        }
        // Instances end with their shims.
        for instance in processes(&self.state, "shim") {
            kill(instance, Signal::KILL);
        }
    }
}

fn wait_briefly(dev: &Spawned) -> bool {
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        if dev.ended().is_some() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

/// The processes of ours that run on a state directory as `role`.
pub(crate) fn processes(state: &Path, role: &str) -> Vec<u32> {
    let role = format!("\0internal\0{role}\0");
    let mut found = Vec::new();
    let Ok(processes) = fs::read_dir("/proc") else {
        return found;
    };
    for process in processes.flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words);
        if words.contains(&role) && words.contains(&*state.to_string_lossy()) {
            found.push(pid);
        }
    }
    found
}

/// Sends a signal to a process of ours.
pub(crate) fn kill(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // It may have ended meanwhile.
    kill_process(pid.expect("a process's number"), signal).ok();
}

/// Everything that a command printed.
pub(crate) fn text(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}
