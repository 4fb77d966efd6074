//! The node file: what a machine runs, where it listens, what its gateway allows. What a user types
//! in TOML becomes a checked [`NodeFile`], or a list of all that is wrong with it.
//!
//! It is walked as the service file is (see [`crate::file`]), and shares its words for problems.
//! Start reading at [`read`]; then `keys` (the keys at the top), `gateway`, `limits`, `listen`.

mod address;
mod backup;
mod broker;
pub mod defaults;
mod forward;
mod gateway;
mod keys;
mod later;
mod limits;
mod listen;
mod names;
mod reference;
mod schema;
mod vip;
mod written;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay_model::gateway::GatewaySettings;
use mainstay_model::{ForwardSettings, Network, VipSpec};
use toml::de::DeTable;

use crate::file::disk::{self, Kind};
use crate::file::problem::{Code, FileProblems};
use crate::file::walk::Walk;
use crate::file::{Environment, without_byte_order_mark};

pub use reference::reference;
pub use schema::schema;
pub(crate) use written::can_say;
pub use written::vip_tables;

/// What a node's file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFile {
    /// Which processes run; not empty.
    pub roles: BTreeSet<Role>,
    /// The state directory, absolute.
    pub state: PathBuf,
    /// Where instances listen.
    pub address: IpAddr,
    /// The service files that are declared at the start and when they change, absolute. None
    /// without [`Role::Control`].
    pub services: Vec<PathBuf>,
    /// Where the API is, beside its unix socket.
    pub api: Api,
    /// How the gateway is to be.
    pub gateway: Gateway,
    /// How the broker is to be, if the node has one.
    pub broker: Broker,
    /// Where services are found by name; `None`: nowhere. Only with [`Role::Agent`].
    pub names: Option<Names>,
    /// How connections to service addresses are forwarded; `None`: not at all, the gateway has all of
    /// them.
    pub forward: Option<ForwardSettings>,
    /// The floating addresses; not empty with [`Role::Vip`], and empty without.
    pub vips: Vec<VipSpec>,
    /// When backups are made, and where; `None`: nobody makes any by himself.
    pub backup: Option<Backup>,
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Decides, and answers the command line.
    Control,
    /// Runs instances.
    Agent,
    /// Lets clients in.
    Gateway,
    /// Has queues of messages.
    Broker,
    /// Holds floating addresses.
    Vip,
}

/// Where the API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    /// The loopback port.
    pub address: SocketAddr,
    /// The group whose members may open the unix socket.
    pub group: Option<String>,
}

/// How the gateway is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Where clients enter.
    pub http: SocketAddr,
    /// Where the statistics are; `None`: nowhere.
    pub stats: Option<SocketAddr>,
    /// How many threads; `None`: one per core.
    pub workers: Option<u16>,
    /// What its process is told. `stats_auth` is `Some` if `stats` is no loopback address.
    pub settings: GatewaySettings,
}

/// How the broker is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Where clients connect. `127.0.0.1` is `::1`, too.
    pub bind: SocketAddr,
    /// Publishers wait while its process takes more memory, in bytes; `None`: two fifths of the machine's.
    pub memory: Option<u64>,
    /// Publishers wait while the disk has less room, in bytes.
    pub disk_free: u64,
    /// Where clients connect with TLS; `None`: nowhere.
    pub tls: Option<BrokerTls>,
    /// How long a consumer may keep a delivery without a word.
    pub consumer_timeout: Duration,
    /// Queues that clients may declare in a virtual host; `None`: any number.
    pub queues: Option<u32>,
    /// Where `/metrics` is answered, on loopback; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
}

/// When backups are made, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// How often.
    pub every: Duration,
    /// How many are kept, 1 at least.
    pub keep: u32,
    /// The directory into which they go, absolute; not within the state directory.
    pub to: PathBuf,
}

/// Where the broker's clients connect with TLS, and what they are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerTls {
    /// Where. `127.0.0.1` is `::1`, too.
    pub bind: SocketAddr,
    /// What they are shown.
    pub files: CertificateFiles,
}

/// A certificate of this machine; the paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Clients must have a certificate of these authorities; `None`: they need none.
    pub client_ca: Option<PathBuf>,
}

/// One of [`CertificateFiles`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateFile {
    /// The certificate.
    Certificate,
    /// Its key.
    Key,
    /// The authorities of clients.
    ClientCa,
}

/// Why [`CertificateFiles`] cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// Because of this one.
    pub file: CertificateFile,
    /// What is wrong with it.
    pub message: String,
    /// What to do.
    pub help: String,
}

/// Whether a certificate can be used: whoever serves with it knows.
pub type LookAtCertificate<'a> = &'a dyn Fn(&CertificateFiles) -> Result<(), Unfit>;

/// Where services are found by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// One address, where names are answered by UDP and TCP.
    pub listen: SocketAddr,
    /// Who is asked for other names, and never this server itself; `None`: whom this machine asked before.
    pub upstream: Option<Vec<SocketAddr>>,
    /// Who is answered beside this machine.
    pub allow: Vec<Network>,
}

/// Reads the node file at `path`, with `env` for `${VARIABLE}`. Relative paths in it begin at the
/// directory in which it lies. What `look` says of certificates is told with their places.
pub fn read(
    path: &Path,
    env: Environment<'_>,
    look: LookAtCertificate<'_>,
) -> Result<NodeFile, FileProblems> {
    let name = path.display().to_string();
    let text = disk::load(path, &name, Kind::Node)?;
    let dir = disk::directory_of(path, &name)?;
    checked(&text, &name, Outside { dir: &dir, look }, env)
}

/// Whether this text is that of a node file, and not of a service file: by the keys at its top, of
/// which the two have none in common.
pub fn is_node_file(text: &str) -> bool {
    let (tree, _) = DeTable::parse_recoverable(without_byte_order_mark(text));
    let has = |key: &str| tree.get_ref().contains_key(key);
    !has("service") && keys::KNOWN.iter().any(|key| has(key))
}

/// Reads the text of a node file without looking at the disk. `name` is what problems call the
/// file, `dir` the absolute directory at which its relative paths begin.
pub fn parse(
    text: &str,
    name: &str,
    dir: &Path,
    env: Environment<'_>,
) -> Result<NodeFile, FileProblems> {
    let look = |_: &CertificateFiles| Ok(());
    checked(text, name, Outside { dir, look: &look }, env)
}

/// What a file is read with beside its text.
#[derive(Clone, Copy)]
pub(crate) struct Outside<'a> {
    dir: &'a Path,
    look: LookAtCertificate<'a>,
}

fn checked(
    text: &str,
    name: &str,
    outside: Outside<'_>,
    env: Environment<'_>,
) -> Result<NodeFile, FileProblems> {
    let text = without_byte_order_mark(text);
    let walk = Walk::new(text, env);
    let file = keys::file(&walk, outside);
    match (walk.finish(name), file) {
        (Err(problems), _) => Err(problems),
        (Ok(()), Some(file)) => Ok(file),
        (Ok(()), None) => {
            let message = "it was refused and nothing says why".to_owned();
            let help = "this is a mistake in Mainstay: report it with the file";
            Err(FileProblems::unreadable(name, Code::Value, message, help))
        }
    }
}
