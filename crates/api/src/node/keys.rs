//! The keys at the top of a node's file.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use mainstay_model::gateway::GatewaySettings;
use toml::de::DeValue;

use crate::file::problem::Code;
use crate::file::refusal::{Refused, quoted};
use crate::file::suggest::closest;
use crate::file::walk::{Entry, Section, Walk};

use super::address::{bind, parse_bind};
use super::backup::backup;
use super::broker::{broker as broker_keys, default_broker};
use super::forward::forward;
use super::gateway::{default_gateway, gateway};
use super::listen::{Taken, listens};
use super::names::names;
use super::vip::{OwnGateway, vips};
use super::{Api, Broker, Gateway, NodeFile, Outside, Role, defaults, later};

/// More files than a node has services are surely a mistake.
const SERVICE_FILES_MAX: usize = 100;

/// The words that are roles.
const ALL_ROLES: [Role; 5] = [
    Role::Control,
    Role::Agent,
    Role::Gateway,
    Role::Broker,
    Role::Vip,
];

/// The keys at the top.
pub(super) const KNOWN: [&str; 12] = [
    "roles", "state", "address", "services", "api", "gateway", "listen", "broker", "names",
    "forward", "vip", "backup",
];

impl Role {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Agent => "agent",
            Self::Gateway => "gateway",
            Self::Broker => "broker",
            Self::Vip => "vip",
        }
    }
}

/// Reads the whole file. `None`: it was refused.
pub(super) fn file(walk: &Walk<'_>, outside: Outside<'_>) -> Option<NodeFile> {
    let tree = walk.tree()?;
    let mut root = Section::root(walk, tree.get_ref());
    let file = keys(&mut root, outside);
    root.refuse_unasked(later::FILE).then_some(file).flatten()
}

/// The order is that of the list in messages.
fn keys(s: &mut Section<'_, '_>, outside: Outside<'_>) -> Option<NodeFile> {
    let dir = outside.dir;
    let roles = s.or("roles", BTreeSet::from(defaults::ROLES), roles);
    let state = s.or("state", PathBuf::from(defaults::STATE), |e| path(e, dir));
    let address = s.or("address", defaults::ADDRESS, host);
    let services_entry = s.take("services");
    let services = services_entry.as_ref();
    let services = services.map_or(Some(Vec::new()), |e| service_files(e, dir));
    let api = s.or("api", default_api(), api);
    let gateway = s.or("gateway", default_gateway(), gateway);
    let mut taken = taken(roles.as_ref(), api.as_ref(), gateway.as_ref());
    let broker = of_broker(s, roles.as_ref(), &mut taken, outside);
    let names_entry = s.take("names");
    let names = names_entry.as_ref().map(|entry| names(entry, &taken));
    taken.extend(names.iter().flatten().map(|names| Taken {
        address: names.listen,
        by: "`listen` in `[names]`",
    }));
    let listens = s.or("listen", Vec::new(), |e| listens(e, &taken));
    let reason = (
        "names are answered by the agent, and `roles` has no `agent`",
        "add the role `agent`, or take `[names]` out",
    );
    belongs_to(Role::Agent, roles.as_ref(), names_entry, reason);
    let forward_entry = s.take("forward");
    let forwarded = forward_entry.as_ref();
    let forwarded = forwarded.map_or(Some(None), |e| forward(e).map(Some));
    let reason = (
        "connections are forwarded by the agent, and `roles` has no `agent`",
        "add the role `agent`, or take `[forward]` out",
    );
    belongs_to(Role::Agent, roles.as_ref(), forward_entry, reason);
    let vip_entry = s.take("vip");
    let vips = vip_entry
        .as_ref()
        .map_or(Some(Vec::new()), |e| vips(e, own_gateway(roles.as_ref())));
    let backup_entry = s.take("backup");
    let backed_up = backup_entry.as_ref();
    let backed_up = backed_up.map_or(Some(None), |e| backup(e, dir, state.as_ref()).map(Some));
    let roles = roles.and_then(|roles| with_vip(s, roles, vip_entry.is_some()));
    let reason = (
        "services are declared at the control centre, and `roles` has no `control`",
        "add the role `control`, or take `services` out",
    );
    belongs_to(Role::Control, roles.as_ref(), services_entry, reason);
    let gateway = gateway?;
    Some(NodeFile {
        roles: roles?,
        state: state?,
        address: address?,
        services: services?,
        api: api?,
        gateway: Gateway {
            settings: GatewaySettings {
                listens: listens?,
                ..gateway.settings
            },
            ..gateway
        },
        broker: broker?,
        names: match names {
            None => None,
            Some(names) => Some(names?),
        },
        forward: forwarded?,
        vips: vips?,
        backup: backed_up?,
    })
}

/// The broker's table, whose address nobody else may have.
fn of_broker(
    s: &mut Section<'_, '_>,
    roles: Option<&BTreeSet<Role>>,
    taken: &mut Vec<Taken>,
    outside: Outside<'_>,
) -> Option<Broker> {
    let entry = s.take("broker");
    let read = entry.as_ref();
    let broker = read.map_or_else(
        || Some(default_broker()),
        |e| broker_keys(e, taken, outside),
    );
    let reason = (
        "queues are the broker's, and `roles` has no `broker`",
        "add the role `broker`, or take `[broker]` out",
    );
    // What is wrong within it is told first.
    if broker.is_some() {
        belongs_to(Role::Broker, roles, entry, reason);
    }
    if roles.is_none_or(|roles| roles.contains(&Role::Broker)) {
        taken.extend(broker.iter().map(|broker| Taken {
            address: broker.bind,
            by: "`bind` in `[broker]`",
        }));
        let tls = broker.iter().filter_map(|broker| broker.tls.as_ref());
        taken.extend(tls.map(|tls| Taken {
            address: tls.bind,
            by: "`bind` in `[broker.tls]`",
        }));
    }
    broker
}

/// Refuses a key whose work is that of a role which the node does not have, with why and what to do.
fn belongs_to(
    role: Role,
    roles: Option<&BTreeSet<Role>>,
    entry: Option<Entry<'_, '_>>,
    (message, help): (&str, &str),
) {
    if let (Some(roles), Some(entry)) = (roles, entry)
        && !roles.contains(&role)
    {
        let refused = Refused::new(Code::Conflict, message);
        entry.walk().refuse(&entry.at_key(), refused.help(help));
    }
}

/// An address of this machine, at which its instances listen.
fn host(entry: &Entry<'_, '_>) -> Option<IpAddr> {
    entry.text("an IP address", "`address = \"10.0.0.7\"`", |text| {
        let address: IpAddr = text.parse().map_err(|_| {
            Refused::value(format!("expected an IP address, found {}", quoted(text)))
        })?;
        if address.is_unspecified() || address.is_multicast() {
            let message = format!("{address} is no address of one machine");
            return Err(Refused::value(message).help("write the one that other machines reach"));
        }
        Ok(address)
    })
}

/// Whoever has floating addresses holds them: the role need not be written.
fn with_vip(
    s: &Section<'_, '_>,
    mut roles: BTreeSet<Role>,
    has_tables: bool,
) -> Option<BTreeSet<Role>> {
    if !has_tables && roles.contains(&Role::Vip) {
        let message = "`roles` has `vip`, and no floating address is written";
        let refused = Refused::new(Code::Conflict, message);
        let help = "write `[vip.entry]` with `address`, `interface` and `vrid`, or take `vip` out";
        s.walk().refuse(s.at(), refused.help(help));
        return None;
    }
    if has_tables {
        roles.insert(Role::Vip);
    }
    Some(roles)
}

fn own_gateway(roles: Option<&BTreeSet<Role>>) -> OwnGateway {
    // Roles that could not be read are told already.
    if roles.is_none_or(|roles| roles.contains(&Role::Gateway)) {
        OwnGateway::Runs
    } else {
        OwnGateway::No
    }
}

/// The addresses that the node's own processes listen on, as far as they could be read.
fn taken(
    roles: Option<&BTreeSet<Role>>,
    api: Option<&Api>,
    gateway: Option<&Gateway>,
) -> Vec<Taken> {
    // Without a control centre there is no API.
    let api = api.filter(|_| roles.is_none_or(|roles| roles.contains(&Role::Control)));
    let of_api = api.map(|api| (api.address, "`address` in `[api]`"));
    let http = gateway.map(|gateway| (gateway.http, "`http` in `[gateway]`"));
    let stats = gateway.and_then(|gateway| gateway.stats);
    let stats = stats.map(|address| (address, "`stats` in `[gateway]`"));
    let all = [of_api, http, stats].into_iter().flatten();
    all.map(|(address, by)| Taken { address, by }).collect()
}

fn roles(entry: &Entry<'_, '_>) -> Option<BTreeSet<Role>> {
    let help = "write for instance `roles = [\"control\", \"agent\", \"gateway\"]`";
    let listed = entry.list("a list of roles", Some(help.to_owned()))?;
    if listed.is_empty() {
        let refused = Refused::value("a node without a role does nothing");
        entry.refuse(refused.help(help));
        return None;
    }
    let mut roles = BTreeSet::new();
    let mut all = true;
    for one in &listed {
        match one.text("a role", "`\"gateway\"`", role) {
            Some(role) if roles.insert(role) => {}
            Some(role) => {
                let message = format!("the role `{}` stands twice", role.as_str());
                one.refuse(Refused::new(Code::DuplicateKey, message).help("keep one of the two"));
                all = false;
            }
            None => all = false,
        }
    }
    if roles.contains(&Role::Agent) && !roles.contains(&Role::Control) && all {
        let message = "an agent does what the control centre of the same machine plans, and \
                       `roles` has no `control`; an agent of another machine's is not in this \
                       version";
        let refused = Refused::new(Code::Conflict, message);
        entry.refuse(refused.help("add the role `control`, or take `agent` out"));
        return None;
    }
    all.then_some(roles)
}

fn role(text: &str) -> Result<Role, Refused> {
    let known = ALL_ROLES;
    if let Some(role) = known.into_iter().find(|role| role.as_str() == text) {
        return Ok(role);
    }
    let refused = Refused::value(format!("there is no role {}", quoted(text)));
    let words = known.map(Role::as_str);
    Err(match closest(text, words) {
        Some(meant) => refused.help(format!("did you mean `{meant}`?")),
        None => refused.help(format!("roles are {}", words.join(", "))),
    })
}

/// A path, which begins at the file's directory if it is relative.
pub(super) fn path(entry: &Entry<'_, '_>, dir: &Path) -> Option<PathBuf> {
    let example = format!("`{} = \"{}\"`", entry.name(), defaults::STATE);
    entry.text("a path", &example, |text| {
        if text.is_empty() || text.contains('\0') {
            return Err(Refused::value("a path is not empty and has no NUL"));
        }
        Ok(dir.join(text))
    })
}

/// One file, or a list of files.
fn service_files(entry: &Entry<'_, '_>, dir: &Path) -> Option<Vec<PathBuf>> {
    if let DeValue::String(_) = entry.value() {
        return path(entry, dir).map(|path| vec![path]);
    }
    let help = "write for instance `services = [\"shop.toml\"]`";
    let listed = entry.list("a list of service files", Some(help.to_owned()))?;
    if listed.len() > SERVICE_FILES_MAX {
        let message = format!("a node declares up to {SERVICE_FILES_MAX} service files");
        entry.refuse(Refused::new(Code::TooMuch, message).help("put services together in a file"));
        return None;
    }
    // All are read, so that each mistake is told.
    let paths: Vec<Option<PathBuf>> = listed.iter().map(|one| path(one, dir)).collect();
    paths.into_iter().collect()
}

fn default_api() -> Api {
    Api {
        address: parse_bind(defaults::API).expect("the default is an address"),
        group: None,
    }
}

fn api(entry: &Entry<'_, '_>) -> Option<Api> {
    let help = Some("write `[api]` with `address = \"127.0.0.1:7770\"`".to_owned());
    let read = |s: &mut Section<'_, '_>| {
        let address = s.or("address", default_api().address, api_address);
        let group = s.optional("group", |e| {
            let example = "`group = \"mainstay\"`";
            e.text("a group's name", example, crate::file::units::parse_user)
        });
        Some(Api {
            address: address?,
            group: group?,
        })
    };
    entry
        .section("a table", help, crate::file::later::NONE, read)
        .flatten()
}

fn api_address(entry: &Entry<'_, '_>) -> Option<SocketAddr> {
    let address = bind(entry)?;
    if address.ip().is_loopback() {
        return Some(address);
    }
    let message = format!("the API listens on loopback only, not on {address}");
    let help = format!("did you mean `127.0.0.1:{}`?", address.port());
    entry.refuse(Refused::value(message).help(help));
    None
}
