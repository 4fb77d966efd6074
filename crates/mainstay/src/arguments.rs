//! What a user can type.

mod backup;
mod broker;
mod prove;
mod queue;

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use mainstay_agent::ForwardSeams;
use mainstay_broker::Seams as BrokerSeams;
use mainstay_gateway::Seams;
use mainstay_ids::{InstanceId, NodeName, SecretName, ServiceName, Version, VipName};
use mainstay_model::network::NetworkError;
use mainstay_model::seams::{self, SeamError};
use mainstay_model::{ForwardSettings, Network, Weight};
use mainstay_vip::Seams as VipSeams;

use crate::command::resolve::ResolveName;

pub(crate) use backup::{Backup, BackupDeed, BackupProcess};
pub(crate) use broker::BrokerProcess;
pub(crate) use prove::{Prove, Proved};
pub(crate) use queue::{OfVhost, PolicyDeed, PolicySaid, QueueDeed};

/// Keeps microservices available on plain Linux machines.
///
/// No single failure, rollout or scaling step costs a client a request; `mainstay prove` shows it.
#[derive(Debug, Parser)]
#[command(
    name = "mainstay",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
#[command(after_help = "\
Exit codes:
  0  done, and what was asked holds
  1  it does not hold: a rollout failed or was rolled back, a claim was not proved
  2  the arguments or a file are wrong; nothing was changed
  3  the control centre is not there: is `mainstay dev` running in this directory, or `run` on --state?
  4  the control centre refused
  5  something else failed")]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the running Mainstay keeps its state, and how answers are written.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// The state directory of the running Mainstay.
    #[arg(
        long,
        global = true,
        env = "MAINSTAY_STATE",
        default_value = ".mainstay",
        value_name = "DIR"
    )]
    pub(crate) state: PathBuf,
    /// Write JSON for programs instead of text for people.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything on this machine, in the foreground, and keep FILE's services available.
    Dev(Dev),
    /// Run what a node file says, as a daemon: `mainstay run --config /etc/mainstay/node.toml`.
    Run(Run),
    /// Declare the services of FILE and wait until they are in force.
    Up(Up),
    /// Say what `up` would do with FILE, and why; nothing is changed.
    Plan {
        /// The service file.
        file: PathBuf,
    },
    /// List the instances.
    Ps {
        /// Only this service's.
        service: Option<ServiceName>,
    },
    /// Show the whole at a glance.
    Status {
        /// Only this service.
        service: Option<ServiceName>,
    },
    /// Print what instances wrote.
    Logs(Logs),
    /// Print what was decided and why.
    Events(Events),
    /// Say where a service is found: its addresses, ports and instances, or why there are none.
    Resolve(Resolve),
    /// Say why a service, an instance or the answer to a request is as it is.
    Why(Why),
    /// Set how many instances of a service are wanted, and wait until they are ready.
    Scale {
        /// Which service.
        service: ServiceName,
        /// How many.
        instances: u32,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Give an instance no new requests; it goes on running, and clients who stay with it by a cookie
    /// still get there.
    Drain {
        /// Which, as `orders-2`.
        instance: InstanceId,
        /// Not even those of clients who stay with it.
        #[arg(long)]
        maintenance: bool,
        /// Also if no other instance of the service gets requests: then clients are answered 503.
        #[arg(long)]
        force: bool,
    },
    /// Give a drained instance requests again.
    Undrain {
        /// Which, as `orders-2`.
        instance: InstanceId,
    },
    /// Give an instance more or fewer requests than the others of its service.
    Weight {
        /// Which, as `orders-2`.
        instance: InstanceId,
        /// In percent of an ordinary instance, 0 to 256; 0 leaves it to the clients who stay with it.
        percent: Weight,
        /// Also if no other instance of the service gets requests.
        #[arg(long)]
        force: bool,
    },
    /// Go back to an earlier version of a service, and wait until it is in force.
    Rollback {
        /// Which service.
        service: ServiceName,
        /// To which version, as `v2` or `2`; by default the last one before the current that was
        /// wholly healthy.
        #[arg(value_parser = parse_version)]
        to: Option<Version>,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Stop the rollout of a service where it is.
    Pause {
        /// Which service.
        service: ServiceName,
    },
    /// Let a paused rollout go on, or begin a failed one anew, and wait until it is in force.
    Resume {
        /// Which service.
        service: ServiceName,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Let the version of the canaries replace the old one, and wait until it is in force.
    Promote {
        /// Which service.
        service: ServiceName,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Take services down: drain, stop and forget them.
    Down {
        /// Which services; none: every one, if `--all` says so.
        services: Vec<ServiceName>,
        /// Every service.
        #[arg(
            long,
            conflicts_with = "services",
            required_unless_present = "services"
        )]
        all: bool,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Keep values that services get without their standing in a file.
    #[command(subcommand)]
    Secret(Secret),
    /// Copy what this node must not lose into a new directory, while everything runs: what is declared, and the
    /// broker's queues with their messages.
    Backup(Backup),
    /// Put what `backup` made in the place of the state, while no Mainstay runs here.
    Restore {
        /// The directory that `backup` made.
        backup: PathBuf,
    },
    /// Break the running system on purpose under load, and report what clients saw.
    Prove(Prove),
    /// Replace the gateway's process by one of the program that is installed now, without losing a
    /// request: the new one takes over the sockets, the old one finishes what it began.
    Upgrade {
        /// What is replaced.
        #[arg(value_enum, default_value_t = Upgradable::Gateway)]
        what: Upgradable,
    },
    /// Show what the kernel of this machine does with service addresses.
    #[command(subcommand)]
    Forward(Forward),
    /// Remove what forwarding left in the kernel of this network namespace: rules, routes, settings.
    /// Without `--yes` it only says what that would be.
    Purge(Purge),
    /// Show the floating addresses of this node: who holds them, and why.
    Vip {
        #[command(subcommand)]
        deed: Option<VipDeed>,
    },
    /// Make tables of a node file of another program's configuration, and list what has no counterpart.
    Import {
        #[command(subcommand)]
        from: ImportFrom,
    },
    /// Write the floating addresses of a node file as another program has them.
    Export {
        #[command(subcommand)]
        to: ExportTo,
    },
    /// See and change the queues of this node's broker.
    Queue {
        #[command(subcommand)]
        deed: QueueDeed,
    },
    /// Check a service file or a node file, and tell all its problems at once.
    Validate {
        /// The file.
        file: PathBuf,
        /// It is a node file; by default its keys tell.
        #[arg(long)]
        node: bool,
    },
    /// Print the JSON schema of the service file, for editors; or, with `--node`, that of the node
    /// file; or, with `--api`, the API's OpenAPI document.
    Schema {
        /// The HTTP API instead of the service file.
        #[arg(long)]
        api: bool,
        /// The node file instead of the service file.
        #[arg(long, conflicts_with = "api")]
        node: bool,
    },
    /// Say what a code means that a message, an answer or a table showed, and what to do.
    Explain {
        /// The code, as `address-taken`.
        code: String,
    },
    /// Print the completions for a shell, for instance `mainstay completions bash`.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Mainstay's own processes; not for people.
    #[command(hide = true, subcommand)]
    Internal(Internal),
}

/// What to do with secrets. A service names one by `env = { DB_PASSWORD = "secret:NAME" }`.
#[derive(Debug, Subcommand)]
pub(crate) enum Secret {
    /// Set a secret to what standard input holds, or to what is typed at the prompt.
    Set {
        /// Its name.
        name: SecretName,
    },
    /// List the secrets; their values are never shown.
    Ls,
    /// Remove a secret that no service uses.
    Rm {
        /// Its name.
        name: SecretName,
        /// Also if services use it: none of their instances can be started any more.
        #[arg(long)]
        force: bool,
    },
}

/// What to see of forwarding. It is read from the kernel itself, and works while no Mainstay runs.
#[derive(Debug, Subcommand)]
pub(crate) enum Forward {
    /// List service addresses with their instances, shares, connections and bytes, as the kernel has
    /// them.
    Ls,
    /// Say how a connection to an address would go, and why.
    Explain(ForwardExplain),
}

#[derive(Debug, Args)]
pub(crate) struct ForwardExplain {
    /// The address, as `10.96.0.1:8080`; without a port that of its only service.
    #[arg(value_name = "ADDRESS[:PORT]")]
    pub(crate) address: Target,
    /// Who connects; by default a program of this machine.
    #[arg(long, value_name = "CLIENT")]
    pub(crate) from: Option<IpAddr>,
    /// Print the rules of the service instead, as this program loads them, whatever forwards here.
    #[arg(long = "as", value_enum, value_name = "PROGRAM")]
    pub(crate) dialect: Option<Dialect>,
}

/// A program that loads rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dialect {
    /// `nft -f -`.
    Nft,
    /// `iptables-restore --noflush`: N rules of weight 1/i, tried from i = N down to 1.
    Iptables,
}

/// An address with or without a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    /// The address.
    pub(crate) address: IpAddr,
    /// The port.
    pub(crate) port: Option<u16>,
}

impl std::str::FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            let port = Some(address.port());
            let address = address.ip();
            return Ok(Self { address, port });
        }
        let port = None;
        let address = text.trim_start_matches('[').trim_end_matches(']').parse();
        let address = address.map_err(
            |_| "an address is given as in `10.96.0.1:8080`, `10.96.0.1` or `[fd96::1]:8080`",
        )?;
        Ok(Self { address, port })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.address, port).fmt(f),
            None => self.address.fmt(f),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Purge {
    /// Remove it.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Also while an agent runs here, which makes it again.
    #[arg(long)]
    pub(crate) force: bool,
}

/// Whose configuration is read.
#[derive(Debug, Subcommand)]
pub(crate) enum ImportFrom {
    /// Keepalived's: its `vrrp_instance` become `[vip.NAME]`.
    Keepalived {
        /// Its file, with all that this includes.
        file: PathBuf,
    },
}

/// Whose configuration is written.
#[derive(Debug, Subcommand)]
pub(crate) enum ExportTo {
    /// Keepalived's.
    Keepalived {
        /// The node file.
        file: PathBuf,
    },
}

/// What to do with a floating address.
#[derive(Debug, Subcommand)]
pub(crate) enum VipDeed {
    /// Give an address that is held here to another machine, without a gap; it stays if nobody takes it.
    Move {
        /// Its name in the node file.
        name: VipName,
    },
    /// Print what is counted, as the gateway does on `/metrics`: for machines without a gateway.
    Metrics,
}

#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// The service file; without one, the services declared earlier are kept.
    pub(crate) file: Option<PathBuf>,
    /// Where the gateway listens for clients; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "IP:PORT")]
    pub(crate) entry: SocketAddr,
    /// Where the API listens beside its unix socket; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:7770", value_name = "IP:PORT")]
    pub(crate) api: SocketAddr,
    /// Where the gateway shows statistics; port 0 picks a free one [default: 127.0.0.1:8888, or a free
    /// port if that is taken].
    #[arg(long, value_name = "IP:PORT|off", value_parser = parse_stats)]
    pub(crate) stats: Option<StatsPlace>,
    /// Where the broker listens for clients of AMQP 0-9-1, at ::1, too; port 0 picks a free one [default:
    /// 127.0.0.1:5672, or a free port if that is taken].
    #[arg(long, value_name = "IP:PORT|off", value_parser = parse_stats)]
    pub(crate) broker: Option<StatsPlace>,
    /// Where services are found by name, `SERVICE.mainstay.internal`, by UDP and TCP, for instance
    /// 127.0.0.1:5353; other names are asked of the servers of this machine. By default nowhere.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) names: Option<SocketAddr>,
    /// The group whose members may use Mainstay, too; by default nobody but this account and root.
    /// They can run programs as this account.
    #[arg(long, value_name = "GROUP")]
    pub(crate) api_group: Option<String>,
    /// How many threads the gateway uses; by default one per core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: Option<u16>,
    /// Forward connections to service addresses in this network by the kernel, for every program and
    /// protocol; `auto` addresses are picked from it. Needs root.
    #[arg(long, value_name = "NETWORK", value_parser = parse_network)]
    pub(crate) forward: Option<Network>,
    /// Whether the gateway writes a line per request into `logs/access.log`.
    #[arg(long, value_enum, default_value_t = Switch::On, value_name = "ON|OFF")]
    pub(crate) access_log: Switch,
    /// Test seam: stop instances without waiting for anybody's acknowledgement.
    #[arg(long, hide = true)]
    pub(crate) unsafe_no_acknowledged_drain: bool,
    /// Test seam: an upgrade of the gateway closes its sockets.
    #[arg(long, hide = true)]
    pub(crate) unsafe_no_hand_over: bool,
    /// Test seam: an agent that starts ignores the instances that run.
    #[arg(long, hide = true)]
    pub(crate) unsafe_no_adoption: bool,
    /// Test seam: what the broker does without, for instance `keep=all-but-one`.
    #[arg(long, hide = true, default_value = "", value_parser = parse_broker_seams)]
    pub(crate) unsafe_broker_seams: String,
    /// Test seam: what forwarding leaves out, for instance `repair=off`.
    #[arg(long, hide = true, default_value = "", value_parser = parse_seams::<ForwardSeams>)]
    pub(crate) unsafe_forward_seams: String,
    /// Test seam: what the gateway does without, for instance `retries=off`.
    #[arg(long, hide = true, default_value = "", value_parser = parse_seams::<Seams>)]
    pub(crate) unsafe_gateway_seams: String,
}

/// What can be replaced while it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Upgradable {
    /// The entry of clients.
    Gateway,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The node file. The state directory is what it says, whatever --state says.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Test seam: what the gateway does without, for instance `listen-sockets=own`.
    #[arg(long, hide = true, default_value = "", value_parser = parse_seams::<Seams>)]
    pub(crate) unsafe_gateway_seams: String,
    /// Test seam: what the holder of floating addresses leaves out, for instance `tracks=blind`.
    #[arg(long, hide = true, default_value = "", value_parser = parse_seams::<VipSeams>)]
    pub(crate) unsafe_vip_seams: String,
}

/// Where statistics are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatsPlace {
    /// Nowhere.
    Off,
    /// There.
    At(SocketAddr),
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// It is done.
    On,
    /// It is not done.
    Off,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// The service file.
    pub(crate) file: PathBuf,
    /// Only say what would change, as `mainstay plan` does.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

/// Whether and how long to wait for a change to be in force.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Waiting {
    /// Return at once instead of waiting.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Give up waiting after this time; the change itself goes on.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// A service or an instance; none: everything.
    pub(crate) of: Option<LogSource>,
    /// Go on with what is written from now on.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// How many lines of the past to print for each instance.
    #[arg(short = 'n', long, default_value_t = 100, value_name = "N")]
    pub(crate) lines: usize,
}

/// Whose output is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogSource {
    /// Every instance of a service.
    Service(ServiceName),
    /// One instance. Its name may also be that of a service: `orders-2`.
    Instance(InstanceId),
}

impl std::str::FromStr for LogSource {
    type Err = mainstay_ids::name::NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(instance) => Ok(Self::Instance(instance)),
            Err(_) => ServiceName::parse(text).map(Self::Service),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Only this service's.
    #[arg(value_name = "SERVICE")]
    pub(crate) of: Option<ServiceName>,
    /// Only this service's; the same as SERVICE.
    #[arg(long, value_name = "SERVICE", conflicts_with = "of")]
    pub(crate) service: Option<ServiceName>,
    /// Only those that speak of this instance, for instance `orders-3`.
    #[arg(long, value_name = "INSTANCE")]
    pub(crate) instance: Option<InstanceId>,
    /// Go on with what happens from now on, over restarts of the control centre.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only events of this last while, for instance `10m`.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) since: Option<Duration>,
    /// Only events after this number; those of them that are no longer kept are told as a gap.
    #[arg(long, value_name = "N")]
    pub(crate) after: Option<u64>,
}

/// What is asked about. Two words: `request ID`.
#[derive(Debug, Args)]
#[command(after_help = "\
For instance:
  mainstay why orders          what its rollout waits for, why it went back, why it is degraded
  mainstay why orders-3        why it was started again, why it gets no requests
  mainstay why request ID      why a request got its answer; the id is in its header x-request-id")]
pub(crate) struct Why {
    /// A service, an instance, or the word `request`.
    #[arg(value_name = "SERVICE|INSTANCE|request")]
    pub(crate) of: String,
    /// The id of the request.
    #[arg(value_name = "ID")]
    pub(crate) id: Option<String>,
}

/// A service, by whichever of its names.
#[derive(Debug, Args)]
#[command(after_help = "\
For instance:
  mainstay resolve payments           its address, or the addresses of its instances
  mainstay resolve payments:srv       with ports, as the server of names says
  mainstay resolve payments.mainstay.internal:aaaa")]
pub(crate) struct Resolve {
    /// A service or its whole name, and of which kind: a, aaaa or srv; by default all.
    #[arg(value_name = "NAME[:TYPE]")]
    pub(crate) name: ResolveName,
}

/// Mainstay's own processes.
#[derive(Debug, Subcommand)]
pub(crate) enum Internal {
    /// The control centre.
    Server(ServerProcess),
    /// The agent.
    Agent(AgentProcess),
    /// The gateway.
    Gateway(GatewayProcess),
    /// The broker.
    Broker(BrokerProcess),
    /// What holds the floating addresses.
    Vip(VipProcess),
    /// What makes a backup that is due.
    Backup(BackupProcess),
    /// The service of `prove`'s own nodes.
    Answer(AnswerProcess),
}

/// What the supervisor tells each of its processes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Start {
    /// Which start of this process it is.
    #[arg(long)]
    pub(crate) incarnation: u64,
    /// The node's name.
    #[arg(long)]
    pub(crate) node: NodeName,
}

#[derive(Debug, Args)]
pub(crate) struct ServerProcess {
    #[command(flatten)]
    pub(crate) start: Start,
    /// Where the gateway listens, to be shown.
    #[arg(long)]
    pub(crate) entry: Option<SocketAddr>,
    /// Where the gateway shows statistics, to be shown.
    #[arg(long)]
    pub(crate) stats: Option<SocketAddr>,
    /// Whoever stopped everything has got it: keep up again what is declared.
    #[arg(long)]
    pub(crate) earlier_stop_is_over: bool,
    /// The number of the group whose members may call.
    #[arg(long)]
    pub(crate) api_group: Option<u32>,
    /// Where service addresses may lie.
    #[arg(long, value_parser = parse_network)]
    pub(crate) range: Vec<Network>,
    #[arg(long)]
    pub(crate) unsafe_no_acknowledged_drain: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AgentProcess {
    #[command(flatten)]
    pub(crate) start: Start,
    /// Where instances listen.
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) address: IpAddr,
    /// How it forwards, as JSON.
    #[arg(long, value_parser = parse_forward)]
    pub(crate) forward: Option<ForwardSettings>,
    #[arg(long)]
    pub(crate) unsafe_no_adoption: bool,
    #[arg(long, default_value = "")]
    pub(crate) unsafe_forward_seams: ForwardSeams,
    /// Who is asked for names that are not ours; by default those of this machine.
    #[arg(long)]
    pub(crate) names_upstream: Option<ServerList>,
    /// Who is answered beside this machine.
    #[arg(long, default_value = "")]
    pub(crate) names_allow: NetworkList,
}

/// Servers with commas between them; empty: none.
#[derive(Debug, Clone)]
pub(crate) struct ServerList(pub(crate) Vec<SocketAddr>);

/// Networks with commas between them; empty: none.
#[derive(Debug, Clone)]
pub(crate) struct NetworkList(pub(crate) Vec<Network>);

impl FromStr for ServerList {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words = text.split(',').filter(|word| !word.is_empty());
        words.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for NetworkList {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words = text.split(',').filter(|word| !word.is_empty());
        words
            .map(Network::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl Display for ServerList {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&words.join(","))
    }
}

impl Display for NetworkList {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&words.join(","))
    }
}

#[derive(Debug, Args)]
pub(crate) struct GatewayProcess {
    #[command(flatten)]
    pub(crate) start: Start,
    /// The name under which it follows the routes.
    #[arg(long)]
    pub(crate) consumer: String,
    /// Where it offers its sockets to a successor.
    #[arg(long)]
    pub(crate) hand: PathBuf,
    /// Where the gateway from which it takes over offers its own.
    #[arg(long)]
    pub(crate) elder: Option<PathBuf>,
    /// It begins with no routes but those of the control centre.
    #[arg(long)]
    pub(crate) live_routes_only: bool,
    /// What it does without.
    #[arg(long, default_value = "")]
    pub(crate) unsafe_gateway_seams: Seams,
}

#[derive(Debug, Args)]
pub(crate) struct AnswerProcess {
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

#[derive(Debug, Args)]
pub(crate) struct VipProcess {
    #[command(flatten)]
    pub(crate) start: Start,
    /// This node has an agent.
    #[arg(long)]
    pub(crate) with_agent: bool,
    /// What it leaves out.
    #[arg(long, default_value = "")]
    pub(crate) unsafe_vip_seams: VipSeams,
}

/// Checks them and keeps them as they are written: they are handed on.
fn parse_seams<S: seams::Seams>(text: &str) -> Result<String, SeamError> {
    seams::parse::<S>(text).map(|_| text.to_owned())
}

/// As [`parse_seams`].
fn parse_broker_seams(text: &str) -> Result<String, mainstay_broker::SeamError> {
    text.parse::<BrokerSeams>().map(|_| text.to_owned())
}

fn parse_duration(text: &str) -> Result<Duration, mainstay_ids::duration::DurationError> {
    mainstay_ids::duration::parse(text)
}

fn parse_network(text: &str) -> Result<Network, NetworkError> {
    Network::parse(text)
}

fn parse_forward(text: &str) -> Result<ForwardSettings, serde_json::Error> {
    serde_json::from_str(text)
}

fn parse_stats(text: &str) -> Result<StatsPlace, String> {
    if text == "off" {
        return Ok(StatsPlace::Off);
    }
    let address = text.parse().map(StatsPlace::At);
    address.map_err(|_| "an address is given as in `127.0.0.1:8888`, or `off`".to_owned())
}

fn parse_version(text: &str) -> Result<Version, String> {
    let number = text.strip_prefix('v').unwrap_or(text);
    number
        .parse()
        .map(Version)
        .map_err(|_| "a version is a number, as in `v2`".to_owned())
}

#[cfg(test)]
mod tests;
