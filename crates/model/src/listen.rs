//! A listener for servers that Mainstay did not start: TCP or HTTP, balanced and checked.
//!
//! Everything here has been checked: a [`ListenSpec`] comes only from [`ListenSpec::new`], whose
//! caller has the file and the key for each [`ListenError`].

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;
use core::num::NonZeroU32;
use core::time::Duration;

use mainstay_ids::ListenName;

use crate::{Network, PathPrefix};

/// Addresses on which one listener accepts: each costs a socket per worker.
pub const BINDS_MAX: usize = 16;
/// Servers of one listener. Each choice looks at all of them, which with so many takes some
/// microseconds.
pub const SERVERS_MAX: usize = 256;
/// Networks that may send the PROXY protocol to one listener; all are looked at per connection.
pub const TRUSTED_MAX: usize = 64;
/// The heaviest server, as with HAProxy.
pub const WEIGHT_MAX: u16 = 256;
/// Sessions of one listener if nothing else is written. Each holds two descriptors, and no buffer
/// while it is idle.
pub const CONNECTIONS: u32 = 10_000;
/// The most that may be written: of two descriptors each, the usual hard limit holds a million.
pub const CONNECTIONS_MAX: u32 = 500_000;

/// How long a connection to a server may take: servers are in the same network, and the first
/// retransmission of a SYN comes after a second.
pub const CONNECT: Duration = Duration::from_secs(2);
/// How long a session may be without a byte in either direction. Pools of connections to databases
/// and brokers idle for hours and must not be cut; dead peers are found by TCP keep-alive within two
/// minutes. This is only for what everybody has forgotten.
pub const IDLE: Duration = Duration::from_hours(24);
/// How long the other direction may be silent after one side has finished sending: time for the
/// answer to a long query.
pub const HALF_OPEN: Duration = Duration::from_mins(5);
/// How long the sessions of a removed server or listener may go on.
pub const DRAIN: Duration = Duration::from_secs(30);

/// The time between two checks.
pub const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How long a check may take.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// Failed checks in a row that take a server out: one may be an accident.
pub const CHECK_FALL: NonZeroU32 = NonZeroU32::new(2).expect("not zero");
/// Passed checks in a row that take it in again.
pub const CHECK_RISE: NonZeroU32 = NonZeroU32::new(1).expect("not zero");
/// Checks more often than this load the servers.
pub const CHECK_EVERY_MIN: Duration = Duration::from_millis(10);

/// Why something is not a listener.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// There is no address to accept on, or there are too many.
    #[error(
        "a listener accepts on 1 to {BINDS_MAX} addresses, not on {count}; write for instance `bind = \":5671\"`"
    )]
    Binds {
        /// How many there are.
        count: usize,
    },
    /// Port 0 means any, so that nobody would find it.
    #[error("`{address}` has no port; write for instance `:5671`")]
    Port {
        /// The address.
        address: SocketAddr,
    },
    /// An address stands twice.
    #[error("`{address}` stands twice; name it once")]
    Twice {
        /// The address.
        address: SocketAddr,
    },
    /// There is no server, or there are too many.
    #[error(
        "a listener has 1 to {SERVERS_MAX} servers, not {count}; write for instance `servers = [\"10.0.0.1:5672\"]`"
    )]
    Servers {
        /// How many there are.
        count: usize,
    },
    /// Two servers with one name could not be told apart.
    #[error("two servers are called `{name}`; give each a name of its own")]
    ServerTwice {
        /// The name.
        name: ServerName,
    },
    /// Somebody would connect to himself without end.
    #[error(
        "the server `{address}` is an address of the listener itself; name where the server listens"
    )]
    Loop {
        /// The address.
        address: SocketAddr,
    },
    /// Only reserves are left, so that they are none.
    #[error("all servers are `backup`; at least one must not be")]
    OnlyBackups,
    /// The number of sessions.
    #[error("`connections` is 1 to {CONNECTIONS_MAX}, not {count}")]
    Connections {
        /// What was written.
        count: u32,
    },
    /// A time that would end or check everything at once.
    #[error("`{key}` must be at least {least:?}, not {given:?}")]
    TooShort {
        /// The key.
        key: &'static str,
        /// What is allowed.
        least: Duration,
        /// What was written.
        given: Duration,
    },
    /// Nobody would be trusted, so that nobody could connect.
    #[error(
        "`proxy = {{ accept = true }}` needs 1 to {TRUSTED_MAX} networks in `from`, not {count}: who may say on whose behalf it connects; write for instance `from = [\"10.0.0.0/8\"]`"
    )]
    Trusted {
        /// How many there are.
        count: usize,
    },
    /// The weight of a server.
    #[error("the weight of `{name}` is 0 to {WEIGHT_MAX}, not {weight}")]
    Weight {
        /// The server.
        name: ServerName,
        /// What was written.
        weight: u16,
    },
    /// What is of sessions has no meaning for requests.
    #[error("`{key}` does not go with `mode = \"http\"`; {remedy}")]
    NotWithHttp {
        /// What was written.
        key: &'static str,
        /// What to write instead.
        remedy: &'static str,
    },
}

/// What a listener carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Bytes both ways.
    #[default]
    Tcp,
    /// Requests: each goes to a server of its own choice.
    Http,
}

/// How a server is chosen for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// The one with the fewest sessions for its weight.
    #[default]
    LeastConnections,
    /// One after the other, by weight.
    RoundRobin,
    /// Two at random by weight, and of them the one with fewer sessions for its weight.
    Random,
    /// The same for each client's address, as long as it can be used.
    Source,
}

impl Balance {
    /// Every way, as it is written.
    pub const ALL: [(&'static str, Self); 4] = [
        ("least-connections", Self::LeastConnections),
        ("round-robin", Self::RoundRobin),
        ("random", Self::Random),
        ("source", Self::Source),
    ];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LeastConnections => "least-connections",
            Self::RoundRobin => "round-robin",
            Self::Random => "random",
            Self::Source => "source",
        }
    }
}

/// What becomes of a server's sessions when it is found to be down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDown {
    /// They go on, as far as they can.
    #[default]
    Keep,
    /// They are closed, so that clients of a server that hangs connect anew, to another.
    Close,
}

/// Which form of HAProxy's PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyVersion {
    /// One line of text.
    V1,
    /// Binary.
    V2,
}

/// Why a text is not a server's name or a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// Not the right characters or number of them.
    #[error("a server's name is 1 to 63 of a-z, A-Z, 0-9, `.`, `-`, `_`, `:`, `[` and `]`")]
    ServerName,
}

/// What a server is called: in the statistics, and by who drains it.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct ServerName(String);

impl ServerName {
    /// Checks `text` and takes it as a name.
    pub fn parse(text: &str) -> Result<Self, WordError> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
        if (1..=63).contains(&text.len()) && text.bytes().all(legal) {
            Ok(Self(text.to_owned()))
        } else {
            Err(WordError::ServerName)
        }
    }

    /// The name of a server to which nobody gave one.
    pub fn of_address(address: SocketAddr) -> Self {
        // At most 58 characters, all of them legal; a scope of IPv6 is written as `%1`.
        let text = alloc::format!("{address}").replace('%', "_");
        Self(text)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for ServerName {
    type Error = WordError;
    fn try_from(text: String) -> Result<Self, WordError> {
        Self::parse(&text)
    }
}

impl From<ServerName> for String {
    fn from(name: ServerName) -> Self {
        name.0
    }
}

/// Networks whose connections must say by the PROXY protocol for whom they are: one to
/// [`TRUSTED_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "Vec<Network>", into = "Vec<Network>")]
pub struct Trusted(Vec<Network>);

impl Trusted {
    /// Checks how many there are.
    pub fn new(networks: Vec<Network>) -> Result<Self, ListenError> {
        check_trusted(&networks)?;
        Ok(Self(networks))
    }

    /// The networks.
    pub fn networks(&self) -> &[Network] {
        &self.0
    }
}

impl TryFrom<Vec<Network>> for Trusted {
    type Error = ListenError;
    fn try_from(networks: Vec<Network>) -> Result<Self, ListenError> {
        Self::new(networks)
    }
}

impl From<Trusted> for Vec<Network> {
    fn from(trusted: Trusted) -> Self {
        trusted.0
    }
}

fn check_trusted(networks: &[Network]) -> Result<(), ListenError> {
    let count = networks.len();
    if (1..=TRUSTED_MAX).contains(&count) {
        Ok(())
    } else {
        Err(ListenError::Trusted { count })
    }
}

/// A server that Mainstay did not start.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSpec {
    /// Its name, unique within its listener.
    pub name: ServerName,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share beside the others, 1 to [`WEIGHT_MAX`]; 0: it gets nothing new.
    pub weight: u16,
    /// Whether it only serves while none of the others can.
    pub rank: Rank,
    /// Sessions that it may have at once, over all workers; `None`: as many as come.
    pub connections_max: Option<NonZeroU32>,
}

/// When a server is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rank {
    /// Always.
    #[default]
    Main,
    /// While no main server can be used.
    Backup,
}

impl ServerSpec {
    /// A server of which nothing but its address was written.
    pub fn at(address: SocketAddr) -> Self {
        Self {
            name: ServerName::of_address(address),
            address,
            weight: 1,
            rank: Rank::Main,
            connections_max: None,
        }
    }
}

/// How a server is tried.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckSpec {
    /// What is tried.
    pub kind: CheckKind,
    /// The time between two checks of a server.
    #[serde(with = "mainstay_ids::duration::text")]
    pub every: Duration,
    /// How long a check may take.
    #[serde(with = "mainstay_ids::duration::text")]
    pub timeout: Duration,
    /// Failures in a row that take a server out.
    pub fall: NonZeroU32,
    /// Passes in a row that take it in again.
    pub rise: NonZeroU32,
}

impl CheckSpec {
    /// A check of this kind, as often as usual.
    pub const fn of(kind: CheckKind) -> Self {
        Self {
            kind,
            every: CHECK_EVERY,
            timeout: CHECK_TIMEOUT,
            fall: CHECK_FALL,
            rise: CHECK_RISE,
        }
    }
}

/// What a check tries.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// It accepts a connection.
    Tcp,
    /// GET of this path is answered as expected.
    Http {
        /// The path.
        path: PathPrefix,
        /// With which status; `None`: 200 to 399.
        expect: Option<u16>,
    },
    /// It begins an AMQP 0-9-1 connection: RabbitMQ is up and takes clients, which a port that is
    /// open does not say.
    Amqp,
}

/// How long what may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// A connection to a server; also how long a client waits for a server that is full.
    #[serde(with = "mainstay_ids::duration::text")]
    pub connect: Duration,
    /// A session without a byte in either direction.
    #[serde(with = "mainstay_ids::duration::text")]
    pub idle: Duration,
    /// The other direction's silence, after one side finished.
    #[serde(with = "mainstay_ids::duration::text")]
    pub half_open: Duration,
    /// The sessions of a removed server or listener.
    #[serde(with = "mainstay_ids::duration::text")]
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: CONNECT,
            idle: IDLE,
            half_open: HALF_OPEN,
            drain: DRAIN,
        }
    }
}

/// One listener, before it was checked as a whole: its parts are.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenDraft {
    /// Its name.
    pub name: ListenName,
    /// Where it accepts.
    pub bind: Vec<SocketAddr>,
    /// What it carries.
    pub mode: Mode,
    /// Where to.
    pub servers: Vec<ServerSpec>,
    /// How a server is chosen.
    pub balance: Balance,
    /// How servers are tried; `None`: all are taken for up, and only failed connections say else.
    pub check: Option<CheckSpec>,
    /// Who must say by the PROXY protocol on whose behalf it connects; everybody else is refused.
    /// `None`: nobody does.
    pub accept_proxy: Option<Vec<Network>>,
    /// How servers are told who the client is; `None`: they are not.
    pub send_proxy: Option<ProxyVersion>,
    /// How long what may take.
    pub timeouts: Timeouts,
    /// Sessions at once; more wait in the kernel's queue.
    pub connections_max: u32,
    /// What becomes of a server's sessions when it is found to be down.
    pub on_down: OnDown,
    /// How long a server that came up takes to its full share; `None`: no time.
    #[serde(default, with = "mainstay_ids::duration::text::optional")]
    pub slow_start: Option<Duration>,
}

impl ListenDraft {
    /// A TCP listener of which only the least was written.
    pub fn tcp(name: ListenName, bind: Vec<SocketAddr>, servers: Vec<ServerSpec>) -> Self {
        Self {
            name,
            bind,
            mode: Mode::Tcp,
            servers,
            balance: Balance::LeastConnections,
            check: Some(CheckSpec::of(CheckKind::Tcp)),
            accept_proxy: None,
            send_proxy: None,
            timeouts: Timeouts::default(),
            connections_max: CONNECTIONS,
            on_down: OnDown::Keep,
            slow_start: None,
        }
    }
}

/// One listener, checked. It cannot be changed, so that it stays so.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "ListenDraft", into = "ListenDraft")]
pub struct ListenSpec(ListenDraft);

impl TryFrom<ListenDraft> for ListenSpec {
    type Error = ListenError;
    fn try_from(draft: ListenDraft) -> Result<Self, ListenError> {
        // Between processes one reason is enough.
        Self::new(draft).map_err(|mut errors| errors.swap_remove(0))
    }
}

impl From<ListenSpec> for ListenDraft {
    fn from(spec: ListenSpec) -> Self {
        spec.0
    }
}

impl core::ops::Deref for ListenSpec {
    type Target = ListenDraft;
    fn deref(&self) -> &ListenDraft {
        &self.0
    }
}

impl ListenSpec {
    /// Checks a listener as a whole; all that is wrong with it, otherwise.
    pub fn new(draft: ListenDraft) -> Result<Self, Vec<ListenError>> {
        let mut errors = Vec::new();
        check_binds(&draft.bind, &mut errors);
        check_servers(&draft, &mut errors);
        check_times(&draft, &mut errors);
        if !(1..=CONNECTIONS_MAX).contains(&draft.connections_max) {
            errors.push(ListenError::Connections {
                count: draft.connections_max,
            });
        }
        let trusted = draft.accept_proxy.as_deref();
        errors.extend(trusted.and_then(|trusted| check_trusted(trusted).err()));
        match draft.mode {
            Mode::Tcp => {}
            Mode::Http => check_http(&draft, &mut errors),
        }
        if errors.is_empty() {
            Ok(Self(draft))
        } else {
            Err(errors)
        }
    }
}

/// Refuses what only sessions have.
fn check_http(draft: &ListenDraft, errors: &mut Vec<ListenError>) {
    let mut refuse = |is_written: bool, key, remedy| {
        if is_written {
            errors.push(ListenError::NotWithHttp { key, remedy });
        }
    };
    let balance = "a request goes to the better of two servers, by how fast and how busy they are for their weight: leave it out, or write `\"source\"`";
    refuse(
        draft.balance == Balance::RoundRobin,
        "balance = \"round-robin\"",
        balance,
    );
    refuse(
        draft.balance == Balance::Random,
        "balance = \"random\"",
        balance,
    );
    let is_amqp = |check: &CheckSpec| check.kind == CheckKind::Amqp;
    refuse(
        draft.check.as_ref().is_some_and(is_amqp),
        "check.amqp",
        "its servers speak HTTP: write for instance `check = { get = \"/health\" }`",
    );
    refuse(
        draft.send_proxy.is_some(),
        "send_proxy",
        "a connection to a server carries requests of many clients: servers learn of them by `X-Forwarded-For`, which is always sent",
    );
    refuse(
        draft.slow_start.is_some(),
        "slow_start",
        "a server that came up gets its full share by and by within 10s anyway: leave it out",
    );
    let timeouts = draft.timeouts;
    refuse(
        timeouts.idle != IDLE,
        "timeouts.idle",
        "connections of clients have `idle_time` and requests `request_time`, in `[gateway.limits]`",
    );
    refuse(
        timeouts.half_open != HALF_OPEN,
        "timeouts.half_open",
        "requests have `body_idle` and `answer_time`, in `[gateway.limits]`",
    );
}

fn check_binds(bind: &[SocketAddr], errors: &mut Vec<ListenError>) {
    if !(1..=BINDS_MAX).contains(&bind.len()) {
        errors.push(ListenError::Binds { count: bind.len() });
        return;
    }
    for (index, &address) in bind.iter().enumerate() {
        if address.port() == 0 {
            errors.push(ListenError::Port { address });
        }
        if bind[..index].contains(&address) {
            errors.push(ListenError::Twice { address });
        }
    }
}

fn check_servers(draft: &ListenDraft, errors: &mut Vec<ListenError>) {
    let servers = &draft.servers;
    if !(1..=SERVERS_MAX).contains(&servers.len()) {
        errors.push(ListenError::Servers {
            count: servers.len(),
        });
        return;
    }
    for (index, server) in servers.iter().enumerate() {
        let address = server.address;
        if address.port() == 0 {
            errors.push(ListenError::Port { address });
        }
        if server.weight > WEIGHT_MAX {
            errors.push(ListenError::Weight {
                name: server.name.clone(),
                weight: server.weight,
            });
        }
        if draft.bind.contains(&address) {
            errors.push(ListenError::Loop { address });
        }
        if servers[..index]
            .iter()
            .any(|other| other.name == server.name)
        {
            errors.push(ListenError::ServerTwice {
                name: server.name.clone(),
            });
        }
    }
    if servers.iter().all(|server| server.rank == Rank::Backup) {
        errors.push(ListenError::OnlyBackups);
    }
}

fn check_times(draft: &ListenDraft, errors: &mut Vec<ListenError>) {
    const MS: Duration = Duration::from_millis(1);
    let timeouts = draft.timeouts;
    let mut times = alloc::vec![
        ("timeouts.connect", MS, timeouts.connect),
        ("timeouts.idle", MS, timeouts.idle),
        ("timeouts.half_open", MS, timeouts.half_open),
    ];
    if let Some(check) = &draft.check {
        times.push(("check.every", CHECK_EVERY_MIN, check.every));
        times.push(("check.timeout", MS, check.timeout));
    }
    let short = times.into_iter().filter(|(_, least, given)| given < least);
    errors.extend(short.map(|(key, least, given)| ListenError::TooShort { key, least, given }));
}

#[cfg(test)]
mod tests;
