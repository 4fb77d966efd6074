//! Packages of other languages that tests use, at pinned versions, apart from what the user has installed.

use std::{env, path::PathBuf};

/// Where a package comes from, and how its version is pinned: `crates/testkit/packages`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packages {
    /// Modules of Python, for `PYTHONPATH`.
    Python,
    /// Modules of Node.js, for `NODE_PATH`.
    Node,
}

impl Packages {
    /// All of them, for set-up.
    pub const ALL: [Self; 2] = [Self::Python, Self::Node];

    /// The files that pin the versions: name and text.
    pub fn pins(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Python => &[(
                "requirements.txt",
                include_str!("../packages/requirements.txt"),
            )],
            Self::Node => &[
                ("package.json", include_str!("../packages/package.json")),
                (
                    "package-lock.json",
                    include_str!("../packages/package-lock.json"),
                ),
            ],
        }
    }

    /// Where set-up puts them: another place for other pins, so that two checkouts do not disturb each other.
    /// `None` if neither XDG_CACHE_HOME nor HOME says where.
    pub fn dir(self) -> Option<PathBuf> {
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))?;
        let kind = match self {
            Self::Python => "python",
            Self::Node => "node",
        };
        let pins = self.pins().iter().flat_map(|(_, text)| text.bytes());
        let name = format!("{kind}-{:016x}", fingerprint(pins));
        Some(cache.join("mainstay/tools").join(name))
    }

    /// Where the modules are, if they are installed.
    pub fn find(self) -> Option<PathBuf> {
        let dir = self.dir()?;
        let modules = match self {
            Self::Python => dir,
            Self::Node => dir.join("node_modules"),
        };
        modules.is_dir().then_some(modules)
    }

    /// Where the modules are; panics with what to do if they are not installed.
    #[track_caller]
    pub fn require(self) -> PathBuf {
        self.find().unwrap_or_else(|| {
            panic!("the {self:?} packages of tests are missing: run `cargo xtask setup`")
        })
    }
}

/// FNV-1a of 64 bits: the same in all versions of the standard library.
fn fingerprint(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_pins_are_another_place() {
        let of = |text: &str| fingerprint(text.bytes());
        assert_eq!(of("a"), 0xaf63_dc4c_8601_ec8c);
        assert_ne!(of("pika==1.4.4"), of("pika==1.4.5"));
    }

    #[test]
    fn every_package_of_python_is_pinned_by_version_and_hash() {
        let (_, text) = Packages::Python.pins()[0];
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(lines.len() > 5);
        for line in lines {
            assert!(
                line.contains("==") && line.contains("--hash=sha256:"),
                "{line}"
            );
        }
    }
}
