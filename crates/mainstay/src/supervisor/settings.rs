//! What the supervisor's processes are told, whoever asked for it: the options of `dev`, or a node
//! file.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use mainstay_api::node::{CertificateFiles, Names, NodeFile, Role, defaults};
use mainstay_broker::Limits;
use mainstay_ids::NodeName;
use mainstay_model::forward::Ranges;
use mainstay_model::gateway::{AccessLog, GatewaySettings};
use mainstay_model::{ForwardSettings, Network, VipSpec};

use super::kind::all_roles;
use super::record::Addresses;
use super::sockets::{self, IfTaken, STATS_USUAL};
use super::upgrade::HandOver;
use crate::arguments::{Dev, StatsPlace, Switch};
use crate::outcome::{Failure, Outcome};

/// How long the gateway of `dev` may finish requests at its end: who pressed Ctrl-C waits for it,
/// and its instances were drained before.
const DEV_DRAIN: Duration = Duration::from_secs(10);

/// What the processes are told.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) state: PathBuf,
    pub(crate) node: NodeName,
    /// Which of them run.
    pub(crate) roles: BTreeSet<Role>,
    pub(crate) addresses: Addresses,
    /// What becomes of the address of the statistics if another program has it.
    pub(crate) stats_if_taken: IfTaken,
    /// What becomes of the broker's address if another program has it.
    pub(crate) broker_if_taken: IfTaken,
    /// When publishers wait.
    pub(crate) broker: Limits,
    /// What the broker's clients with TLS are shown.
    pub(crate) broker_tls: Option<CertificateFiles>,
    /// What the broker's clients may take.
    pub(crate) broker_clients: BrokerClients,
    /// Where the broker's metrics are.
    pub(crate) broker_metrics: Option<SocketAddr>,
    /// How names are answered; `None`: not at all.
    pub(crate) names: Option<Names>,
    /// How messages call the keys of the addresses.
    pub(crate) options: OptionNames,
    /// Who may open the unix socket, beside its owner.
    pub(crate) api_group: Option<u32>,
    pub(crate) workers: usize,
    /// What the gateway reads from its file.
    pub(crate) gateway: GatewaySettings,
    /// How its process is replaced.
    pub(crate) hand_over: HandOver,
    pub(crate) server_flags: Vec<&'static str>,
    pub(crate) agent_flags: Vec<&'static str>,
    /// Where instances listen.
    pub(crate) address: IpAddr,
    /// How the agent forwards.
    pub(crate) forward: Option<ForwardSettings>,
    /// Test seam: what the gateway does without.
    pub(crate) gateway_seams: String,
    /// Test seam: what the broker does without.
    pub(crate) broker_seams: String,
    /// Test seam: what forwarding leaves out.
    pub(crate) forward_seams: String,
    /// Test seam: what the holder of floating addresses leaves out.
    pub(crate) vip_seams: String,
    /// The floating addresses.
    pub(crate) vips: Vec<VipSpec>,
}

/// What the broker's clients may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BrokerClients {
    /// How long a consumer may keep a delivery.
    pub(crate) consumer_timeout: Duration,
    /// Queues that they may declare in a virtual host; `None`: any number.
    pub(crate) queues_max: Option<u32>,
}

/// Those of `dev`.
const BROKER_CLIENTS_OF_DEV: BrokerClients = BrokerClients {
    consumer_timeout: defaults::CONSUMER_TIMEOUT,
    queues_max: None,
};

/// How messages call what the user may change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OptionNames {
    pub(crate) entry: &'static str,
    pub(crate) api: &'static str,
    pub(crate) stats: &'static str,
    pub(crate) names: &'static str,
    pub(crate) broker: &'static str,
    pub(crate) broker_tls: &'static str,
    pub(crate) api_group: &'static str,
}

/// Those of `dev`.
const OF_DEV: OptionNames = OptionNames {
    entry: "--entry",
    api: "--api",
    stats: "--stats",
    names: "--names",
    broker: "--broker",
    broker_tls: "--broker",
    api_group: "--api-group",
};

/// Those of a node file.
const OF_NODE_FILE: OptionNames = OptionNames {
    entry: "`http` in `[gateway]`",
    api: "`address` in `[api]`",
    stats: "`stats` in `[gateway]`",
    names: "`listen` in `[names]`",
    broker: "`bind` in `[broker]`",
    broker_tls: "`bind` in `[broker.tls]`",
    api_group: "`group` in `[api]`",
};

fn gateway_of_dev(dev: &Dev, forward: Option<&ForwardSettings>) -> GatewaySettings {
    GatewaySettings {
        access_log: match dev.access_log {
            Switch::On => AccessLog::On,
            Switch::Off => AccessLog::Off,
        },
        drain: DEV_DRAIN,
        forwarded: forwarded(forward),
        ..GatewaySettings::default()
    }
}

impl Settings {
    /// Everything on one machine, by the options of `dev`.
    pub(crate) fn of_dev(state: &Path, dev: &Dev) -> anyhow::Result<Self> {
        let (shown_at, stats_if_taken) = match dev.stats {
            None => (Some(STATS_USUAL), IfTaken::AnyPort),
            Some(StatsPlace::At(address)) => (Some(address), IfTaken::Refuse),
            Some(StatsPlace::Off) => (None, IfTaken::Refuse),
        };
        let (broker, broker_if_taken) = broker_place(dev.broker);
        on_loopback(broker, "the broker listens", "--broker")?;
        on_loopback(shown_at, "statistics are shown", "--stats")?;
        on_loopback(dev.names, "names are answered", "--names")?;
        let forward = dev
            .forward
            .map(|range| Ranges::new(vec![range]))
            .transpose()?;
        let forward = forward.map(ForwardSettings::new);
        let flag = |set: bool, name| set.then_some(name).into_iter().collect();
        let group = dev.api_group.as_deref();
        let group = group.map(|name| sockets::group(name, OF_DEV.api_group));
        Ok(Self {
            state: state.to_owned(),
            node: super::node()?,
            roles: all_roles()
                .into_iter()
                .filter(|role| *role != Role::Broker || broker.is_some())
                .collect(),
            addresses: Addresses {
                entry: dev.entry,
                api: dev.api,
                stats: shown_at,
                names: dev.names,
                broker,
                broker_tls: None,
            },
            stats_if_taken,
            broker_if_taken,
            broker: limits(None, defaults::DISK_FREE)?,
            broker_tls: None,
            broker_clients: BROKER_CLIENTS_OF_DEV,
            broker_metrics: Some(defaults::broker_metrics()),
            names: dev.names.map(|listen| Names {
                listen,
                upstream: None,
                allow: Vec::new(),
            }),
            options: OF_DEV,
            api_group: group.transpose()?,
            workers: dev.workers.map_or_else(cores, usize::from),
            gateway: gateway_of_dev(dev, forward.as_ref()),
            hand_over: if dev.unsafe_no_hand_over {
                HandOver::Off
            } else {
                HandOver::On
            },
            server_flags: flag(
                dev.unsafe_no_acknowledged_drain,
                "--unsafe-no-acknowledged-drain",
            ),
            agent_flags: flag(dev.unsafe_no_adoption, "--unsafe-no-adoption"),
            address: defaults::ADDRESS,
            forward,
            gateway_seams: dev.unsafe_gateway_seams.clone(),
            broker_seams: dev.unsafe_broker_seams.clone(),
            forward_seams: dev.unsafe_forward_seams.clone(),
            vip_seams: String::new(),
            vips: Vec::new(),
        })
    }

    /// What a node file says.
    pub(crate) fn of_node(file: &NodeFile) -> anyhow::Result<Self> {
        let group = file.api.group.as_deref();
        let group = group.map(|name| sockets::group(name, OF_NODE_FILE.api_group));
        let tls = file.broker.tls.as_ref();
        let tls = tls.filter(|_| file.roles.contains(&Role::Broker));
        Ok(Self {
            state: file.state.clone(),
            node: super::node()?,
            roles: file.roles.clone(),
            addresses: Addresses {
                entry: file.gateway.http,
                api: file.api.address,
                stats: file.gateway.stats,
                names: file.names.as_ref().map(|names| names.listen),
                broker: file
                    .roles
                    .contains(&Role::Broker)
                    .then_some(file.broker.bind),
                broker_tls: tls.map(|tls| tls.bind),
            },
            stats_if_taken: IfTaken::Refuse,
            broker_if_taken: IfTaken::Refuse,
            broker: limits(file.broker.memory, file.broker.disk_free)?,
            broker_tls: tls.map(|tls| tls.files.clone()),
            broker_clients: BrokerClients {
                consumer_timeout: file.broker.consumer_timeout,
                queues_max: file.broker.queues,
            },
            broker_metrics: file.broker.metrics,
            names: file.names.clone(),
            options: OF_NODE_FILE,
            api_group: group.transpose()?,
            workers: file.gateway.workers.map_or_else(cores, usize::from),
            gateway: GatewaySettings {
                forwarded: forwarded(file.forward.as_ref()),
                ..file.gateway.settings.clone()
            },
            hand_over: HandOver::On,
            server_flags: Vec::new(),
            agent_flags: Vec::new(),
            address: file.address,
            forward: file.forward.clone(),
            gateway_seams: String::new(),
            broker_seams: String::new(),
            forward_seams: String::new(),
            vip_seams: String::new(),
            vips: file.vips.clone(),
        })
    }

    /// The keys of a node file that are read at the start only, and that `other` has otherwise.
    pub(crate) fn fixed_differences(&self, other: &Self) -> Vec<&'static str> {
        let keys = [
            (self.roles != other.roles, "`roles`"),
            (self.state != other.state, "`state`"),
            (
                !is_met(other.addresses.api, self.addresses.api)
                    || self.api_group != other.api_group,
                "`[api]`",
            ),
            (self.address != other.address, "`address`"),
            (self.broker_differs(other), "`[broker]`"),
            (self.forward != other.forward, "`[forward]`"),
            (self.workers != other.workers, "`workers` in `[gateway]`"),
        ];
        let changed = keys.into_iter().filter(|(changed, _)| *changed);
        changed.map(|(_, key)| key).collect()
    }

    fn broker_differs(&self, other: &Self) -> bool {
        let moved = |wanted: Option<SocketAddr>, bound: Option<SocketAddr>| match (wanted, bound) {
            (Some(wanted), Some(bound)) => !is_met(wanted, bound),
            (None, None) => false,
            (None, Some(_)) | (Some(_), None) => true,
        };
        moved(other.addresses.broker, self.addresses.broker)
            || moved(other.addresses.broker_tls, self.addresses.broker_tls)
            || self.broker != other.broker
            || self.broker_tls != other.broker_tls
            || self.broker_clients != other.broker_clients
            || self.broker_metrics != other.broker_metrics
    }

    /// Whether an address of the gateway is known only when it is listened on.
    pub(crate) fn has_open_addresses(&self) -> bool {
        let Addresses { entry, stats, .. } = self.addresses;
        let is_open = |address: SocketAddr| address.port() == 0;
        is_open(entry) || stats.is_some_and(is_open) || self.stats_if_taken == IfTaken::AnyPort
    }

    /// Whether a process of this role runs.
    pub(crate) fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

/// Where the broker of `dev` listens.
fn broker_place(said: Option<StatsPlace>) -> (Option<SocketAddr>, IfTaken) {
    match said {
        None => (Some(defaults::broker()), IfTaken::AnyPort),
        Some(StatsPlace::At(address)) => (Some(address), IfTaken::Refuse),
        Some(StatsPlace::Off) => (None, IfTaken::Refuse),
    }
}

/// When the broker's publishers wait. Two fifths of memory are RabbitMQ's `vm_memory_high_watermark`.
fn limits(memory: Option<u64>, disk_free_min: u64) -> anyhow::Result<Limits> {
    let memory_max = if let Some(memory) = memory {
        memory
    } else {
        let capacity = mainstay_kernel::capacity::read();
        capacity
            .context("cannot tell the machine's memory")?
            .memory_bytes
            / 5
            * 2
    };
    Ok(Limits {
        memory_max,
        disk_free_min,
    })
}

/// What is not the gateway's.
fn forwarded(forward: Option<&ForwardSettings>) -> Vec<Network> {
    forward.map_or_else(Vec::new, |forward| forward.ranges.networks().to_vec())
}

/// What `dev` opens is for this machine alone. `what` is done there, as `option` says.
fn on_loopback(address: Option<SocketAddr>, what: &str, option: &str) -> anyhow::Result<()> {
    match address {
        Some(address) if !address.ip().is_loopback() => {
            let message = format!("{what} on loopback only, not on {address}");
            let remedy = format!("choose a {option} of 127.0.0.1, or a node file");
            let failure = Failure::new(Outcome::WrongInput, message);
            Err(failure.remedy(remedy).into())
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether who listens at `bound` listens where it is wanted. Port 0 is any.
pub(crate) fn is_met(wanted: SocketAddr, bound: SocketAddr) -> bool {
    wanted.ip() == bound.ip() && (wanted.port() == 0 || wanted.port() == bound.port())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
