//! Brings the packages of other languages that tests use: `crates/testkit/packages` pins them.

use crate::cargo;
use anyhow::{Context as _, Result};
use mainstay_testkit::Packages;
use std::{fs, path::Path, process::Command};

/// Those that are not there at the pinned versions.
pub(crate) fn missing() -> impl Iterator<Item = Packages> {
    Packages::ALL
        .into_iter()
        .filter(|packages| packages.find().is_none())
}

/// Installs them below the user's cache. They appear there whole or not at all.
pub(crate) fn install(packages: Packages) -> Result<()> {
    let dir = packages
        .dir()
        .context("neither XDG_CACHE_HOME nor HOME says where packages may be put")?;
    println!("installing the {packages:?} packages of tests");
    let unfinished = dir.with_extension(format!("unfinished-{}", std::process::id()));
    fs::create_dir_all(&unfinished)
        .with_context(|| format!("cannot create {}", unfinished.display()))?;
    for (name, text) in packages.pins() {
        let path = unfinished.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let mut command = match packages {
        Packages::Python => pip(&unfinished)?,
        Packages::Node => npm(&unfinished)?,
    };
    cargo::run(&mut command)?;
    fs::rename(&unfinished, &dir).with_context(|| format!("cannot make {}", dir.display()))
}

fn pip(dir: &Path) -> Result<Command> {
    let pip = mainstay_testkit::find("pip3").context("there is no pip3")?;
    let mut command = Command::new(pip);
    command.args(["install", "--quiet", "--disable-pip-version-check"]);
    command.args(["--no-deps", "--only-binary=:all:", "--require-hashes"]);
    command.arg("--target").arg(dir);
    command
        .arg("--requirement")
        .arg(dir.join("requirements.txt"));
    Ok(command)
}

fn npm(dir: &Path) -> Result<Command> {
    let npm = mainstay_testkit::find("npm").context("there is no npm")?;
    let mut command = Command::new(npm);
    command.args(["ci", "--silent", "--ignore-scripts", "--no-audit"]);
    command.arg("--no-fund").current_dir(dir);
    Ok(command)
}
