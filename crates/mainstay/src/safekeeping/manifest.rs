//! What a backup says of itself.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use anyhow::Context;
use mainstay_broker::Counts;
use mainstay_ids::{NodeName, Timestamp};
use mainstay_kernel::durable;
use serde::{Deserialize, Serialize};

use crate::outcome::{Failure, Outcome};

/// The form of a backup; a newer one is refused.
const FORMAT: u32 = 1;
/// The manifest's name in it.
pub(super) const MANIFEST: &str = "manifest.json";
/// Is there while it is made.
pub(super) const UNFINISHED: &str = "unfinished";
/// What the name of a backup ends with while it is made, or removed.
pub(super) const PART: &str = ".part";
/// The control centre's part.
pub(super) const CONTROL: &str = "control.db";
/// The directory of the broker's part.
pub(super) const BROKER: &str = "broker";

/// A backup that is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    /// The version of the program that made it.
    pub(crate) mainstay: String,
    /// Of what it is.
    pub(crate) origin: Origin,
    /// Nothing in it is older than this.
    pub(crate) begun: Timestamp,
    /// Nothing is newer.
    pub(crate) ended: Timestamp,
    /// The control centre's part, if the node had one.
    pub(crate) control: Option<ControlPart>,
    /// The broker's part, if the node had one.
    pub(crate) broker: Option<Counts>,
    /// Its files.
    pub(crate) files: Vec<Kept>,
}

/// Of what a backup is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The machine's name.
    pub(crate) host: String,
    /// The node's.
    pub(crate) node: NodeName,
    /// Its state directory.
    pub(crate) state: PathBuf,
}

/// What the control centre's part holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ControlPart {
    /// Services that are declared.
    pub(crate) services: usize,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Its path in it.
    pub(crate) name: PathBuf,
    /// Its length.
    pub(crate) bytes: u64,
    /// Its checksum, in hexadecimal.
    pub(crate) sha256: String,
}

/// Why there is no manifest to be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("there is no directory `{path}`")]
    Missing { path: PathBuf },
    #[error("`{path}` is no backup: it has no `{MANIFEST}`")]
    NoManifest { path: PathBuf },
    #[error(
        "`{path}` is half a backup: it was broken off while it was made, or while it was removed"
    )]
    Unfinished { path: PathBuf },
    #[error(
        "`{path}` was made by mainstay {mainstay} and has format {format}; this mainstay knows formats up to {FORMAT}"
    )]
    Newer {
        path: PathBuf,
        mainstay: String,
        format: u32,
    },
    #[error("`{path}` is damaged: its `{MANIFEST}` cannot be read: {why}")]
    Damaged { path: PathBuf, why: String },
}

impl Unusable {
    /// As a failure of who named it.
    pub(crate) fn failure(&self) -> Failure {
        let remedy = match self {
            Self::Missing { .. } | Self::NoManifest { .. } => {
                "name the directory that `mainstay backup` made; `mainstay backup ls DIR` lists those in DIR"
            }
            Self::Unfinished { .. } => "take another one: `mainstay backup ls DIR` lists them",
            Self::Newer { .. } => "use the mainstay that made it, or a newer one",
            Self::Damaged { .. } => "take another one, or a copy of this one from elsewhere",
        };
        Failure::new(Outcome::WrongInput, self.to_string()).remedy(remedy)
    }
}

impl Origin {
    /// What this machine and this state directory are.
    pub(super) fn here(state: &Path) -> anyhow::Result<Self> {
        const HOSTNAME: &str = "/proc/sys/kernel/hostname";
        let host = fs::read_to_string(HOSTNAME).context("cannot tell this machine's name")?;
        let context = || format!("cannot use the state directory `{}`", state.display());
        Ok(Self {
            host: host.trim().to_owned(),
            node: crate::supervisor::node()?,
            state: state.canonicalize().with_context(context)?,
        })
    }
}

impl Manifest {
    pub(super) fn new(origin: Origin, begun: Timestamp) -> Self {
        Self {
            format: FORMAT,
            mainstay: env!("CARGO_PKG_VERSION").to_owned(),
            origin,
            begun,
            ended: begun,
            control: None,
            broker: None,
            files: Vec::new(),
        }
    }

    /// Reads that of the backup in `directory`, and nothing else of it.
    pub(crate) fn read(directory: &Path) -> Result<Self, Unusable> {
        /// The part that every format has.
        #[derive(Deserialize)]
        struct Envelope {
            format: u32,
            mainstay: String,
        }
        let path = directory.to_owned();
        if !directory.is_dir() {
            return Err(Unusable::Missing { path });
        }
        let is_part = directory.extension().is_some_and(|end| end == &PART[1..]);
        if is_part || directory.join(UNFINISHED).exists() {
            return Err(Unusable::Unfinished { path });
        }
        let damaged = |why: String| Unusable::Damaged {
            path: directory.to_owned(),
            why,
        };
        let text = match fs::read(directory.join(MANIFEST)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Unusable::NoManifest { path });
            }
            read => read.map_err(|error| damaged(error.to_string()))?,
        };
        let envelope = serde_json::from_slice(&text);
        let Envelope { format, mainstay } = envelope.map_err(|error| damaged(error.to_string()))?;
        if format > FORMAT {
            return Err(Unusable::Newer {
                path,
                mainstay,
                format,
            });
        }
        let read = serde_json::from_slice(&text);
        let manifest: Self = read.map_err(|error| damaged(error.to_string()))?;
        let stray = manifest.files.iter().find(|file| !is_within(&file.name));
        if let Some(stray) = stray {
            let why = format!("it names `{}`, which is not in it", stray.name.display());
            return Err(damaged(why));
        }
        Ok(manifest)
    }

    pub(super) fn write(&self, directory: &Path) -> anyhow::Result<()> {
        let path = directory.join(MANIFEST);
        let context = || format!("cannot write `{}`", path.display());
        let text = serde_json::to_vec_pretty(self).with_context(context)?;
        durable::replace(&path, &text, 0o600).with_context(context)
    }

    /// Bytes of all its files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The files of the broker's part.
    pub(super) fn of_broker(&self) -> impl Iterator<Item = &Kept> {
        self.files
            .iter()
            .filter(|file| file.name.starts_with(BROKER))
    }

    /// The control centre's part.
    pub(super) fn of_control(&self) -> Option<&Kept> {
        self.files
            .iter()
            .find(|file| file.name == Path::new(CONTROL))
    }

    /// What is in it, in a few words.
    pub(crate) fn summary(&self) -> String {
        let services = self
            .control
            .map(|part| format!("{} services", part.services));
        let broker = self.broker.map(|counts| {
            let Counts {
                queues,
                messages,
                bytes,
                ..
            } = counts;
            format!("{queues} queues with {messages} messages of {bytes} bytes")
        });
        let parts: Vec<String> = services.into_iter().chain(broker).collect();
        parts.join(", ")
    }
}

/// Whether a path stays below where it begins: a manifest may have been written by anybody.
fn is_within(name: &Path) -> bool {
    let mut parts = name.components();
    let is_normal = |part: Component<'_>| matches!(part, Component::Normal(_));
    name.components().count() > 0 && parts.all(is_normal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::TempDir;

    fn manifest() -> Manifest {
        let origin = Origin {
            host: "here".to_owned(),
            node: crate::supervisor::node().unwrap(),
            state: PathBuf::from("/var/lib/mainstay"),
        };
        Manifest::new(origin, Timestamp(7))
    }

    #[test]
    fn what_is_no_whole_backup_of_this_format_is_refused_with_the_reason() {
        let dir = TempDir::new("manifest");
        let read = || Manifest::read(dir.path()).map_err(|error| error.to_string());
        assert!(read().unwrap_err().contains("no backup"));
        manifest().write(dir.path()).unwrap();
        assert_eq!(read(), Ok(manifest()));
        fs::write(dir.join(UNFINISHED), "").unwrap();
        assert!(read().unwrap_err().contains("half a backup"));
        fs::remove_file(dir.join(UNFINISHED)).unwrap();
        let text = fs::read_to_string(dir.join(MANIFEST)).unwrap();
        let newer = text.replace("\"format\": 1", "\"format\": 2, \"later\": true");
        fs::write(dir.join(MANIFEST), newer).unwrap();
        assert!(read().unwrap_err().contains("formats up to 1"));
        fs::write(dir.join(MANIFEST), &text[1..]).unwrap();
        assert!(read().unwrap_err().contains("damaged"));
    }

    #[test]
    fn a_manifest_that_names_what_is_elsewhere_is_refused() {
        let dir = TempDir::new("manifest");
        for name in ["/etc/passwd", "broker/../../passwd", "", "./x"] {
            let mut stray = manifest();
            let (bytes, sha256) = (1, String::new());
            let name = PathBuf::from(name);
            stray.files.push(Kept {
                name,
                bytes,
                sha256,
            });
            stray.write(dir.path()).unwrap();
            let refused = Manifest::read(dir.path()).unwrap_err();
            assert!(refused.to_string().contains("not in it"), "{refused}");
        }
    }
}
