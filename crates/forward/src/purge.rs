//! Taking away everything of forwarding that is in a network namespace, whoever left it there and by
//! whichever back end.

use std::fmt;
use std::io;
use std::path::Path;

use mainstay_kernel::netlink::Prefix;
use mainstay_kernel::netlink::nft::Name;
use mainstay_kernel::netlink::route::{RouteError, Routes};

use crate::back_end::ForwardError;
use crate::router::{self, Change, Restored, RouterError};
use crate::{nft, xtables};

/// What is there, or what was taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trace {
    /// A setting of the kernel that is to be what it was.
    Setting(Change),
    /// One that somebody else has changed since, and that is left alone.
    SettingOfOthers(Change),
    /// A route that makes a range the machine's own.
    Route(Prefix),
    /// A table of nf_tables, with its family.
    Table(String),
    /// A chain of iptables, with the program that shows it.
    Chain(String),
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting(Change {
                setting,
                before,
                after,
            }) => write!(f, "setting {setting}: {after}, before it was {before}"),
            Self::SettingOfOthers(Change {
                setting, before, ..
            }) => write!(
                f,
                "setting {setting} stays: somebody else has changed it since it was {before}"
            ),
            Self::Route(prefix) => write!(f, "local route to {prefix}"),
            Self::Table(table) => write!(f, "table {table} of nf_tables"),
            Self::Chain(chain) => write!(f, "chain {chain}"),
        }
    }
}

/// Why something is still there.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// A setting.
    #[error(transparent)]
    Router(#[from] RouterError),
    /// A route.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// Routes could not be listed.
    #[error("cannot list the routes")]
    Routes(#[source] io::Error),
    /// The table of nf_tables.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// Chains of iptables.
    #[error("cannot remove the chains {}* of iptables", xtables::CHAIN_PREFIX)]
    Chains(#[source] io::Error),
}

impl PurgeError {
    /// Whether the right is missing.
    pub fn is_forbidden(&self) -> bool {
        let kind = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        match self {
            Self::Router(RouterError::Setting { source, .. })
            | Self::Route(RouteError::Refused { source, .. })
            | Self::Routes(source)
            | Self::Chains(source) => kind(source),
            Self::Forward(ForwardError::Forbidden { .. }) => true,
            Self::Router(_) | Self::Route(_) | Self::Forward(_) => false,
        }
    }
}

/// What there is, in the order in which it would be taken away.
pub fn find(table: &Name, settings: &Path) -> Result<Vec<Trace>, PurgeError> {
    let mut found: Vec<Trace> = router::changed(settings)?
        .into_iter()
        .map(Trace::Setting)
        .collect();
    let routes = Routes::open().map_err(PurgeError::Routes)?;
    let routes = routes.locals().map_err(PurgeError::Routes)?;
    found.extend(routes.into_iter().map(|route| Trace::Route(route.prefix)));
    found.extend(
        nft::left(table)?
            .into_iter()
            .map(|family| of(family, table)),
    );
    let chains = xtables::left().map_err(PurgeError::Chains)?;
    found.extend(chains.into_iter().map(Trace::Chain));
    Ok(found)
}

/// Takes it away, and hands on each part that is gone; what went before an error is gone. Twice is
/// as good as once.
///
/// First the host forwards no more, then addresses are no more its own: without rules, whatever
/// listens on all addresses would answer to them, and whatever comes would be passed on.
pub fn remove(
    table: &Name,
    settings: &Path,
    mut each: impl FnMut(Trace),
) -> Result<(), PurgeError> {
    for restored in router::restore(settings)? {
        each(match restored {
            Restored::Restored(change) => Trace::Setting(change),
            Restored::Changed(change) => Trace::SettingOfOthers(change),
        });
    }
    let routes = Routes::open().map_err(PurgeError::Routes)?;
    for route in routes.locals().map_err(PurgeError::Routes)? {
        routes.delete_local(route.prefix)?;
        each(Trace::Route(route.prefix));
    }
    for family in nft::clear(table)? {
        each(of(family, table));
    }
    for chain in xtables::clear().map_err(PurgeError::Chains)? {
        each(Trace::Chain(chain));
    }
    Ok(())
}

fn of(family: &str, table: &Name) -> Trace {
    Trace::Table(format!("{family} {table}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BackEnd as _;
    use crate::host::{Version, setting};
    use mainstay_kernel::netlink::route::LocalRoute;
    use mainstay_testkit::{Netns, TempDir, is_root, program, skip};

    fn run(netns: &Netns, name: &str, line: &str) -> String {
        let of = match name {
            "ip" => program("ip"),
            "nft" => program("nft"),
            "iptables-nft" => program("iptables-nft"),
            "iptables-legacy" => program("iptables-legacy"),
            other => panic!("`{other}` is not known here"),
        };
        let mut command = netns.command(&of);
        let output = command.args(line.split(' ')).output().unwrap();
        assert!(output.status.success(), "{name} {line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn system_what_is_ours_is_removed_and_what_is_not_stays_twice() {
        if !is_root() {
            return skip("needs root: makes network namespaces and rules in them");
        }
        let dir = TempDir::new("purge");
        let settings = router::file(dir.path());
        let table = Name::new(nft::TABLE).unwrap();
        let netns = Netns::new();
        run(&netns, "nft", "add table inet theirs");
        run(&netns, "ip", "route add local 10.97.0.0/16 dev lo");
        for iptables in ["iptables-nft", "iptables-legacy"] {
            for line in [
                "-t nat -N MAINSTAY-SERVICES",
                "-t nat -N MAINSTAY-OTHERS",
                "-t nat -A PREROUTING -d 10.96.0.0/16 -j MAINSTAY-SERVICES",
                "-t nat -A MAINSTAY-SERVICES -j MAINSTAY-OTHERS",
                "-t nat -N THEIRS",
                "-t nat -A PREROUTING -j THEIRS",
            ] {
                run(&netns, iptables, line);
            }
        }
        let rules = || {
            let tables = ["iptables-nft", "iptables-legacy"];
            tables.map(|iptables| run(&netns, iptables, "-t nat -S"))
        };
        let before = rules();
        netns.enter(|| {
            router::open(&settings, &[Version::V4]).unwrap();
            let prefix = xtables::range_of("10.96.0.0/16").unwrap();
            let source = None;
            let route = LocalRoute { prefix, source };
            Routes::open().unwrap().add_local(&route).unwrap();
            let nft = nft::Nft::start(nft::tests::settings()).unwrap();
            assert_eq!(nft.in_force().0, []);
            let found = find(&table, &settings).unwrap();
            assert_eq!(found.len(), 8, "{found:#?}");
            let mut removed = Vec::new();
            remove(&table, &settings, |trace| removed.push(trace)).unwrap();
            assert_eq!(removed, found);
            assert_eq!(setting("net.ipv4.ip_forward").as_deref(), Some("0"));
            assert_eq!(find(&table, &settings).unwrap(), []);
            remove(&table, &settings, |trace| panic!("{trace}")).unwrap();
        });
        let tables = run(&netns, "nft", "list tables");
        assert!(tables.contains("inet theirs") && !tables.contains("mainstay"));
        let routes = run(&netns, "ip", "route show table local");
        assert!(routes.contains("10.97.0.0/16") && !routes.contains("10.96"));
        for (before, after) in before.iter().zip(rules()) {
            let theirs = before.lines().filter(|line| !line.contains("MAINSTAY-"));
            assert_eq!(
                theirs.collect::<Vec<_>>(),
                after.lines().collect::<Vec<_>>()
            );
        }
    }
}
