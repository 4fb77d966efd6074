//! Having the host forward packets (`ip_forward`), which it needs for containers and other hosts whose
//! connections go on to instances elsewhere, and making it undone.
//!
//! A host that forwards passes on whatever anybody sends to it, so that whoever switches it on here
//! says so, and has the rules drop all that belongs to no service ([`Opened`] in the settings of
//! [`crate::nft`]). What was changed is written down before it is changed. It counts for one start of
//! the machine and one network namespace: with them the settings are gone, too.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use mainstay_kernel::netlink::route::Routes;
use mainstay_kernel::{boot_id, durable};
use serde::{Deserialize, Serialize};

use crate::host::{Version, setting};

/// The form of the file; a newer one is not touched.
const FORMAT: u32 = 1;
/// A few lines.
const FILE_LEN_MAX: u64 = 16 * 1024;

/// For which versions of IP it was us who had the host forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Opened {
    /// For IPv4.
    pub ipv4: bool,
    /// For IPv6.
    pub ipv6: bool,
}

impl Opened {
    /// Whether it is for a version.
    pub fn has(self, version: Version) -> bool {
        match version {
            Version::V4 => self.ipv4,
            Version::V6 => self.ipv6,
        }
    }

    /// For these versions, too.
    #[must_use]
    pub fn with(self, versions: &[Version]) -> Self {
        Self {
            ipv4: self.ipv4 || versions.contains(&Version::V4),
            ipv6: self.ipv6 || versions.contains(&Version::V6),
        }
    }
}

/// What was written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    format: u32,
    /// Which start of the machine.
    boot: String,
    /// Which network namespace: the number of its inode.
    namespace: u64,
    changes: Vec<Change>,
}

/// A setting that was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// As sysctl(8) names it.
    pub setting: String,
    /// What it was.
    pub before: String,
    /// What we made of it.
    pub after: String,
}

/// What became of a setting that we had changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restored {
    /// It is as it was before.
    Restored(Change),
    /// Somebody else has changed it since; it was left alone.
    Changed(Change),
}

/// Why a setting was not changed, or not restored.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// The kernel did not take it.
    #[error("cannot set {setting} to {value}")]
    Setting {
        /// Which one.
        setting: String,
        /// To what.
        value: String,
        /// Why; without the right it is `EACCES`, `EPERM` or `EROFS`.
        source: io::Error,
    },
    /// What is changed could not be written down, or not be read.
    #[error("cannot use `{path}`, where changed settings of the kernel are written down")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The machine would lose the routes that a router's advertisements gave it.
    #[error(
        "not switching {} on: this host has its IPv6 routes from a router's advertisements, and would lose \
         them; set net.ipv6.conf.INTERFACE.accept_ra=2, then switch it on yourself", Version::V6.forwarding()
    )]
    Advertised,
}

/// Where in the state directory it is written down.
pub fn file(state: &Path) -> PathBuf {
    state.join("forward-sysctl.json")
}

/// Has the host forward these versions of IP, where it does not. What was changed now; for what
/// earlier, too, see [`opened`].
pub fn open(file: &Path, versions: &[Version]) -> Result<Vec<Change>, RouterError> {
    let mut record = read(file)?;
    let mut changed = Vec::new();
    for version in versions {
        let name = version.forwarding();
        let Some(before) = setting(name).filter(|value| value == "0") else {
            continue;
        };
        if *version == Version::V6 && is_advertised() {
            return Err(RouterError::Advertised);
        }
        let change = Change {
            setting: name.to_owned(),
            before,
            after: "1".to_owned(),
        };
        record.changes.retain(|known| known.setting != name);
        record.changes.push(change.clone());
        // Should this process end here, restoring finds another value than ours and leaves it alone.
        write(file, &record)?;
        set(name, &change.after)?;
        changed.push(change);
    }
    Ok(changed)
}

/// For which versions of IP it was us, now or earlier.
pub fn opened(file: &Path) -> Result<Opened, RouterError> {
    let record = read(file)?;
    let is_ours = |version: Version| {
        let mut changes = record.changes.iter();
        changes.any(|change| change.setting == version.forwarding())
    };
    Ok(Opened {
        ipv4: is_ours(Version::V4),
        ipv6: is_ours(Version::V6),
    })
}

/// What was changed in this network namespace since the machine was started, and was not restored.
pub fn changed(file: &Path) -> Result<Vec<Change>, RouterError> {
    read(file).map(|record| record.changes)
}

/// Makes settings what they were before, and forgets it.
pub fn restore(file: &Path) -> Result<Vec<Restored>, RouterError> {
    let mut record = read(file)?;
    let mut restored = Vec::new();
    for change in std::mem::take(&mut record.changes) {
        let now = setting(&change.setting);
        if now.as_ref() == Some(&change.after) {
            set(&change.setting, &change.before)?;
            restored.push(Restored::Restored(change));
        } else if now.as_ref() != Some(&change.before) {
            restored.push(Restored::Changed(change));
        }
    }
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unusable(file, error)),
        Ok(()) | Err(_) => Ok(restored),
    }
}

fn is_advertised() -> bool {
    let routes = Routes::open().and_then(|routes| routes.has_advertised());
    // If it cannot be known, nothing is risked.
    routes.unwrap_or(true)
}

fn set(name: &str, value: &str) -> Result<(), RouterError> {
    let path = Path::new("/proc/sys").join(name.replace('.', "/"));
    std::fs::write(path, value).map_err(|source| RouterError::Setting {
        setting: name.to_owned(),
        value: value.to_owned(),
        source,
    })
}

fn unusable(path: &Path, source: io::Error) -> RouterError {
    let path = path.to_path_buf();
    RouterError::File { path, source }
}

/// What is written down of this boot and this namespace; of others, nothing.
fn read(file: &Path) -> Result<Record, RouterError> {
    let here = here().map_err(|error| unusable(file, error))?;
    match read_file(file) {
        Ok(found) if (&found.boot, found.namespace) == (&here.boot, here.namespace) => Ok(found),
        Ok(_) => Ok(here),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(here),
        Err(error) => Err(unusable(file, error)),
    }
}

fn read_file(file: &Path) -> io::Result<Record> {
    let len = std::fs::metadata(file)?.len();
    if len > FILE_LEN_MAX {
        let message = format!("it has {len} bytes, expected at most {FILE_LEN_MAX}");
        return Err(io::Error::other(message));
    }
    let record: Record = serde_json::from_slice(&std::fs::read(file)?)?;
    if record.format > FORMAT {
        let message = format!("it is of form {}, known is {FORMAT}", record.format);
        return Err(io::Error::other(message));
    }
    Ok(record)
}

fn here() -> io::Result<Record> {
    Ok(Record {
        format: FORMAT,
        boot: boot_id()?,
        namespace: std::fs::metadata("/proc/thread-self/ns/net")?.ino(),
        changes: Vec::new(),
    })
}

fn write(file: &Path, record: &Record) -> Result<(), RouterError> {
    const MODE: u32 = 0o600;
    let text = serde_json::to_vec_pretty(record).map_err(io::Error::other);
    let written = text.and_then(|text| durable::replace(file, &text, MODE));
    written.map_err(|error| unusable(file, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::{Netns, TempDir, is_root, program, skip};

    const NEEDS_ROOT: &str = "needs root: makes network namespaces and changes settings in them";
    const BOTH: [Version; 2] = [Version::V4, Version::V6];

    #[test]
    fn system_forwarding_is_switched_on_once_and_off_again_as_it_was() {
        if !is_root() {
            return skip(NEEDS_ROOT);
        }
        let dir = TempDir::new("router");
        let file = file(dir.path());
        Netns::new().enter(|| {
            set(Version::V6.forwarding(), "1").unwrap();
            let changed = open(&file, &BOTH).unwrap();
            let settings: Vec<&str> = changed.iter().map(|one| one.setting.as_str()).collect();
            assert_eq!(settings, ["net.ipv4.ip_forward"], "the other was on");
            assert_eq!(setting("net.ipv4.ip_forward").as_deref(), Some("1"));
            assert_eq!(open(&file, &BOTH).unwrap(), []);
            // A later process knows it.
            let ipv4_only = Opened {
                ipv4: true,
                ipv6: false,
            };
            assert_eq!(opened(&file).unwrap(), ipv4_only);
            assert_eq!(
                restore(&file).unwrap(),
                [Restored::Restored(changed[0].clone())]
            );
            assert_eq!(setting("net.ipv4.ip_forward").as_deref(), Some("0"));
            assert_eq!(setting(Version::V6.forwarding()).as_deref(), Some("1"));
            assert_eq!(restore(&file).unwrap(), []);
            assert!(!file.exists());
        });
    }

    #[test]
    fn system_what_another_namespace_or_boot_wrote_down_counts_for_nothing() {
        if !is_root() {
            return skip(NEEDS_ROOT);
        }
        let dir = TempDir::new("router");
        let file = file(dir.path());
        Netns::new().enter(|| open(&file, &BOTH).unwrap());
        Netns::new().enter(|| {
            set("net.ipv4.ip_forward", "1").unwrap();
            assert_eq!(opened(&file).unwrap(), Opened::default());
            assert_eq!(restore(&file).unwrap(), []);
            assert_eq!(setting("net.ipv4.ip_forward").as_deref(), Some("1"));
            std::fs::write(&file, "{").unwrap();
            let error = opened(&file).unwrap_err();
            assert!(error.to_string().contains("forward-sysctl.json"), "{error}");
        });
    }

    #[test]
    fn system_a_host_that_a_router_gave_its_routes_keeps_them() {
        if !is_root() {
            return skip(NEEDS_ROOT);
        }
        let dir = TempDir::new("router");
        let file = file(dir.path());
        let netns = Netns::new();
        let mut ip = netns.command(&program("ip"));
        let route = "-6 route add 2001:db8::/64 dev lo proto ra";
        assert!(ip.args(route.split(' ')).status().unwrap().success());
        netns.enter(|| {
            let error = open(&file, &[Version::V6]).unwrap_err();
            assert!(matches!(error, RouterError::Advertised), "{error}");
            assert_eq!(setting(Version::V6.forwarding()).as_deref(), Some("0"));
        });
    }
}
