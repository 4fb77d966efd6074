//! A node of RabbitMQ, as Debian packages it, for what is compared with it.

use crate::{Spawned, find, free_port, program, wait_until};
use rustix::process::Pid;
use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// A start takes 6 to 15 s, on a machine that is busy with other tests several times that.
const START: Duration = Duration::from_secs(150);
/// A call of `rabbitmqctl` boots a virtual machine of Erlang.
const CALL: Duration = Duration::from_mins(1);

/// A node on loopback with directories, ports and cookie of its own, and a port mapper of its own; dropping it ends both.
///
/// The Erlang machine stays in the process group of what was started, so nothing of it is left.
#[derive(Debug)]
pub struct RabbitMq {
    // Ends before its port mapper, which would else be started again.
    node: Spawned,
    _port_mapper: Spawned,
    port: u16,
    dir: PathBuf,
    environment: Vec<(&'static str, String)>,
}

/// What a node is started with.
#[derive(Debug, Default)]
pub struct RabbitMqOptions<'a> {
    /// The port on 127.0.0.1 and ::1; a free one if it does not matter.
    pub port: Option<u16>,
    /// Definitions in its own JSON format, loaded at the start; without any it has guest and the vhost `/`.
    pub definitions: Option<&'a Path>,
}

impl RabbitMq {
    /// Starts it with its data in `dir`, where a node may have been before; does not wait until it serves.
    pub fn start(dir: &crate::TempDir, options: &RabbitMqOptions<'_>) -> Self {
        let port = options.port.unwrap_or_else(free_port);
        let mapper_port = free_port().to_string();
        let home = dir.join("rabbitmq");
        prepare(&home, port, options.definitions);
        let mut mapper = Command::new(program("epmd"));
        mapper
            .env("ERL_EPMD_PORT", &mapper_port)
            .env("ERL_EPMD_ADDRESS", "127.0.0.1");
        let port_mapper = Spawned::start(dir, "epmd", &mut mapper);
        let path = |name: &str| home.join(name).display().to_string();
        let environment = vec![
            ("HOME", path("")),
            ("ERL_EPMD_PORT", mapper_port),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            ("RABBITMQ_NODENAME", format!("mainstay{port}@localhost")),
            ("RABBITMQ_DIST_PORT", free_port().to_string()),
            ("RABBITMQ_MNESIA_BASE", path("mnesia")),
            ("RABBITMQ_LOG_BASE", path("log")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins")),
            ("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf")),
            ("RABBITMQ_PID_FILE", path("pid")),
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1}".to_owned(),
            ),
        ];
        let mut server = Command::new(script("rabbitmq-server"));
        server.envs(environment.iter().map(|(name, value)| (name, value)));
        Self {
            node: Spawned::start(dir, "rabbitmq", &mut server),
            _port_mapper: port_mapper,
            port,
            dir: home,
            environment,
        }
    }

    /// Waits until it takes connections.
    #[track_caller]
    pub fn wait(&self) {
        wait_until(START, "RabbitMQ listens", || {
            TcpStream::connect(self.address()).map_err(|_| self.node.log())
        });
    }

    /// Where it listens, on IPv4.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The Erlang machine, which is the broker; known once it listens.
    #[track_caller]
    pub fn pid(&self) -> Pid {
        let text = fs::read_to_string(self.dir.join("pid")).expect("it writes its number");
        let number = text.trim().parse().ok().and_then(Pid::from_raw);
        number.unwrap_or_else(|| panic!("{text} is no process"))
    }

    /// Where its data is.
    pub fn data(&self) -> PathBuf {
        self.dir.join("mnesia")
    }

    /// Runs `rabbitmqctl` with these arguments; panics if it fails.
    #[track_caller]
    pub fn ctl(&self, dir: &crate::TempDir, arguments: &[&str]) {
        let mut command = Command::new(script("rabbitmqctl"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let call = Spawned::start(dir, "rabbitmqctl", command.args(arguments));
        let ended = call.wait(CALL);
        assert_eq!(ended, crate::Ended::Code(0), "{}", call.log());
    }
}

fn prepare(home: &Path, port: u16, definitions: Option<&Path>) {
    fs::create_dir_all(home).expect("the directory of a test is writable");
    let cookie = home.join(".erlang.cookie");
    if !cookie.exists() {
        fs::write(&cookie, "ACOOKIEOFATEST").expect("the cookie is written");
        fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400)).expect("it is ours");
    }
    let mut lines = format!("listeners.tcp.1 = 127.0.0.1:{port}\nlisteners.tcp.2 = ::1:{port}\n");
    if let Some(definitions) = definitions {
        lines.push_str("load_definitions = ");
        lines.push_str(definitions.to_str().expect("paths of tests are text"));
        lines.push('\n');
    }
    fs::write(home.join("rabbitmq.conf"), lines).expect("the configuration is written");
    fs::write(home.join("plugins"), "[].\n").expect("the list of plugins is written");
}

/// A script of the package. The wrapper in /usr/sbin changes the account; the real ones stand in a directory by version.
fn script(name: &str) -> PathBuf {
    program("rabbitmq-server");
    let versions = fs::read_dir("/usr/lib/rabbitmq/lib").expect("the package has it");
    let found = versions
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("sbin").join(name))
        .find_map(|path| find(path.to_str()?));
    found.unwrap_or_else(|| panic!("rabbitmq-server came without {name}"))
}
