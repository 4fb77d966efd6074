//! A broker in a process of its own, which can be killed.

#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod raw;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lapin::{Connection, ConnectionProperties};
use mainstay_broker::view::{Answer, Ask, SOCKET, Status};
use mainstay_testkit::{Spawned, TempDir, free_port, wait_until};
use rustix::process::Signal;

/// The longest time that anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A broker.
pub(crate) struct Alone {
    pub(crate) dir: TempDir,
    port: u16,
    state: PathBuf,
    running: Option<Spawned>,
    lives: u32,
    environment: Vec<(&'static str, String)>,
}

impl Alone {
    /// Starts it, and waits until it serves.
    pub(crate) fn start(name: &str) -> Self {
        let dir = TempDir::new(name);
        let state = dir.join("state");
        Self::start_in(dir, &state)
    }

    pub(crate) fn start_in(dir: TempDir, state: &Path) -> Self {
        Self::start_in_with(dir, state, &[])
    }

    /// The same, with something in its environment in all its lives.
    pub(crate) fn start_with(name: &str, environment: &[(&'static str, &str)]) -> Self {
        let dir = TempDir::new(name);
        let state = dir.join("state");
        Self::start_in_with(dir, &state, environment)
    }

    pub(crate) fn start_in_with(
        dir: TempDir,
        state: &Path,
        environment: &[(&'static str, &str)],
    ) -> Self {
        let environment = environment.iter();
        let mut alone = Self {
            dir,
            port: free_port(),
            state: state.to_owned(),
            running: None,
            lives: 0,
            environment: environment
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect(),
        };
        alone.start_again();
        alone.wait_until_it_serves();
        alone
    }

    /// What its next lives find in their environment.
    pub(crate) fn set(&mut self, name: &'static str, value: &str) {
        self.environment.push((name, value.to_owned()));
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// Starts the next life; it may not serve yet.
    pub(crate) fn start_again(&mut self) {
        self.running = None;
        self.lives += 1;
        let mut command = Command::new(program());
        command.arg(&self.state).arg(self.port.to_string());
        command.envs(
            self.environment
                .iter()
                .map(|(name, value)| (*name, value.as_str())),
        );
        let name = format!("broker-{}", self.lives);
        self.running = Some(Spawned::start(&self.dir, &name, &mut command));
    }

    pub(crate) fn wait_until_it_serves(&self) {
        let (address, socket) = (self.address(), self.state.join(SOCKET));
        wait_until(PATIENCE, "the broker serves", || {
            // Its own socket comes last.
            TcpStream::connect(address)
                .and_then(|_| UnixStream::connect(&socket))
                .map(drop)
                .map_err(|error| format!("{error}; it said {}", self.said()))
        });
    }

    pub(crate) fn process(&self) -> &Spawned {
        self.running.as_ref().expect("it was started")
    }

    pub(crate) fn said(&self) -> String {
        self.process().log()
    }

    pub(crate) fn kill(&self) {
        self.process().signal(Signal::KILL);
        self.process().wait(PATIENCE);
    }

    /// Asks on its own socket.
    pub(crate) fn ask(&self, ask: &Ask) -> Answer {
        let stream = UnixStream::connect(self.state.join(SOCKET)).expect("it listens");
        let mut line = serde_json::to_vec(ask).expect("JSON");
        line.push(b'\n');
        (&stream).write_all(&line).expect("it reads");
        let mut line = String::new();
        BufReader::new(stream)
            .read_line(&mut line)
            .expect("it answers");
        serde_json::from_str(&line).expect("an answer")
    }

    pub(crate) fn status(&self) -> Status {
        match self.ask(&Ask::Status) {
            Answer::Status(status) => *status,
            other => panic!("a status is not {other:?}"),
        }
    }

    /// A client that is connected.
    pub(crate) async fn client(&self) -> Connection {
        connect(self.address()).await.expect("the broker serves")
    }
}

pub(crate) async fn connect(address: SocketAddr) -> lapin::Result<Connection> {
    let uri = format!("amqp://{address}/%2f");
    Connection::connect(&uri, ConnectionProperties::default()).await
}

/// The example, which Cargo builds with the tests of this crate.
fn program() -> PathBuf {
    let own = std::env::current_exe().expect("our own program");
    let target = own.ancestors().nth(2).expect("target/PROFILE/deps");
    let program = target.join("examples/broker");
    assert!(
        program.exists(),
        "{} is missing: `cargo build -p mainstay-broker --examples`",
        program.display()
    );
    program
}

/// Runs a test's body on one thread.
pub(crate) fn on_runtime<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(body)
}
