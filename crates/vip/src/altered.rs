//! What was changed on this machine beside addresses: settings of interfaces, and interfaces that were made. It is
//! written down before it is done, so that whoever starts next undoes it, however this process ended.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use mainstay_kernel::netlink::Socket;
use mainstay_kernel::netlink::link::Link;
use mainstay_kernel::netlink::macvlan;
use mainstay_kernel::{boot_id, durable};
use serde::{Deserialize, Serialize};

/// The form of the file. A reader leaves a newer one alone.
const FORMAT: u32 = 1;
/// Where the kernel has its settings.
const SETTINGS: &str = "/proc/sys";

/// A setting: what it was, and what we made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Setting {
    before: String,
    ours: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    format: u32,
    /// After another boot, all of it is gone by itself.
    boot: String,
    interfaces: Vec<String>,
    settings: BTreeMap<String, Setting>,
}

/// The record of it.
#[derive(Debug)]
pub(crate) struct Altered {
    path: PathBuf,
    stored: Stored,
}

impl Altered {
    /// Undoes what an earlier process left, and begins anew.
    pub(crate) fn begin(state: &Path, route: &Socket) -> io::Result<Self> {
        let path = state.join("vip").join("altered.json");
        let boot = boot_id()?;
        let stored = match fs::read(&path) {
            Ok(text) => serde_json::from_slice::<Stored>(&text).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::NotFound => Stored::default(),
            Err(error) => return Err(error),
        };
        let mut altered = Self { path, stored };
        if altered.stored.format == FORMAT && altered.stored.boot == boot {
            altered.undo(route);
        }
        altered.stored = Stored {
            format: FORMAT,
            boot,
            ..Stored::default()
        };
        Ok(altered)
    }

    /// Writes down that an interface of this name is made.
    pub(crate) fn makes(&mut self, name: &str) -> io::Result<()> {
        if self.stored.interfaces.iter().any(|known| known == name) {
            return Ok(());
        }
        self.stored.interfaces.push(name.to_owned());
        self.save()
    }

    /// Changes a setting, such as `net/ipv4/conf/eth0/arp_ignore`, after it wrote down what it was.
    pub(crate) fn set(&mut self, name: &str, ours: &str) -> io::Result<()> {
        let path = Path::new(SETTINGS).join(name);
        let before = fs::read_to_string(&path)?.trim_end().to_owned();
        if before == ours {
            return Ok(());
        }
        if !self.stored.settings.contains_key(name) {
            let ours = ours.to_owned();
            let setting = Setting { before, ours };
            self.stored.settings.insert(name.to_owned(), setting);
            self.save()?;
        }
        fs::write(path, ours)
    }

    /// Makes everything as it was before, and forgets it. What somebody else has changed since then stays.
    pub(crate) fn undo(&mut self, route: &Socket) {
        for name in std::mem::take(&mut self.stored.interfaces) {
            let removed = Link::named(route, &name)
                .and_then(|link| link.map_or(Ok(()), |link| macvlan::remove(route, link.index)));
            if let Err(error) = removed {
                tracing::warn!("cannot remove the interface `{name}`: {error}");
            }
        }
        for (name, setting) in std::mem::take(&mut self.stored.settings) {
            let path = Path::new(SETTINGS).join(&name);
            let is = fs::read_to_string(&path).unwrap_or_default();
            if is.trim_end() == setting.ours
                && let Err(error) = fs::write(&path, &setting.before)
            {
                let before = setting.before;
                tracing::warn!("cannot set `{name}` to {before} again: {error}");
            }
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!("cannot remove `{}`: {error}", self.path.display());
            }
            Ok(()) | Err(_) => {}
        }
    }

    fn save(&self) -> io::Result<()> {
        fs::create_dir_all(self.path.parent().unwrap_or(Path::new("/")))?;
        durable::replace(&self.path, &serde_json::to_vec_pretty(&self.stored)?, 0o600)
    }
}

/// Sets what is of no account later: of interfaces that are taken away again. A kernel without IPv6 has none of its.
pub(crate) fn set_for_now(name: &str, value: &str) -> io::Result<()> {
    match fs::write(Path::new(SETTINGS).join(name), value) {
        Err(error) if error.kind() == ErrorKind::NotFound && name.contains("ipv6") => Ok(()),
        result => result,
    }
}

/// Lets `rp_filter` be set for each interface alone: the greater of its own and that of all counts, so the others and
/// those to come get that of all, before it becomes 0. Nothing behaves otherwise after it, so nothing is undone.
pub(crate) fn split_rp_filter(route: &Socket) -> io::Result<()> {
    let path = |of: &str| Path::new(SETTINGS).join(format!("net/ipv4/conf/{of}/rp_filter"));
    let read = |of: &str| -> io::Result<u32> {
        let text = fs::read_to_string(path(of))?;
        text.trim_end().parse().map_err(io::Error::other)
    };
    let of_all = read("all")?;
    if of_all == 0 {
        return Ok(());
    }
    let links = Link::all(route)?;
    let names = links.iter().map(|link| link.name.as_str());
    for name in names.chain(["default"]) {
        if read(name)? < of_all {
            fs::write(path(name), of_all.to_string())?;
        }
    }
    tracing::info!("`rp_filter` of all interfaces, {of_all}, is that of each of them now");
    fs::write(path("all"), "0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::{Netns, Segment, TempDir, is_root, skip};

    #[test]
    fn system_what_a_killed_process_changed_is_undone_by_the_next_one() {
        if !is_root() {
            return skip("needs root: makes network namespaces");
        }
        let state = TempDir::new("vip-altered");
        let (segment, host) = (Segment::new(), Netns::new());
        segment.plug(&host, "a", "10.9.0.1/24");
        host.enter(|| {
            let route = Socket::open_route().unwrap();
            let (ignore, filter) = (
                "net/ipv4/conf/eth0/arp_ignore",
                "net/ipv4/conf/eth0/arp_filter",
            );
            let read = |name: &str| fs::read_to_string(Path::new(SETTINGS).join(name)).unwrap();
            fs::write(Path::new(SETTINGS).join(filter), "1").unwrap();
            let mut killed = Altered::begin(state.path(), &route).unwrap();
            killed.set(ignore, "1").unwrap();
            killed.set(filter, "1").unwrap();
            killed.makes("veil").unwrap();
            let below = Link::named(&route, "eth0").unwrap().unwrap().index;
            macvlan::make(&route, "veil", below, [0, 0, 0x5e, 0, 1, 1]).unwrap();
            assert_eq!(read(ignore), "1\n");
            Altered::begin(state.path(), &route).unwrap();
            assert_eq!(
                (read(ignore).as_str(), read(filter).as_str()),
                ("0\n", "1\n")
            );
            assert_eq!(Link::named(&route, "veil").unwrap(), None);
            // Whatever stands in the file.
            fs::write(state.path().join("vip/altered.json"), "{").unwrap();
            Altered::begin(state.path(), &route).unwrap();
            // What somebody else has changed stays.
            let mut next = Altered::begin(state.path(), &route).unwrap();
            next.set(ignore, "1").unwrap();
            fs::write(Path::new(SETTINGS).join(ignore), "2").unwrap();
            next.undo(&route);
            assert_eq!(read(ignore), "2\n");
        });
    }

    #[test]
    fn system_rp_filter_of_all_becomes_that_of_each() {
        if !is_root() {
            return skip("needs root: makes network namespaces");
        }
        let host = Netns::new();
        host.enter(|| {
            let of = |of: &str| Path::new(SETTINGS).join(format!("net/ipv4/conf/{of}/rp_filter"));
            fs::write(of("all"), "1").unwrap();
            fs::write(of("lo"), "2").unwrap();
            split_rp_filter(&Socket::open_route().unwrap()).unwrap();
            let read = |name: &str| fs::read_to_string(of(name)).unwrap();
            assert_eq!(
                [read("all"), read("lo"), read("default")],
                ["0\n", "2\n", "1\n"]
            );
        });
    }
}
