//! `cargo xtask setup`: brings what builds, tests and benches need, or says in one line what is missing.
//!
//! Which package brings which program stands in `crates/testkit/programs.txt`; the test tools stand in [`tools`].
//! It never starts a daemon and never lets rustup download anything.

use crate::{
    cargo, packages as pinned,
    tools::{self, Tool},
};
use anyhow::{Context as _, Result, bail};
use mainstay_testkit::{Need, Program};
use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Install nothing; print what is missing, and fail if anything is
    #[arg(long)]
    check: bool,
    /// Only Debian packages: neither test tools nor the sources of dependencies
    #[arg(long)]
    packages: bool,
    /// Also the rivals that benches measure against
    #[arg(long)]
    bench: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let programs = missing_programs(arguments.bench);
    if arguments.check {
        return check(&programs, arguments.packages);
    }
    if !programs.is_empty() {
        install_packages(&programs)?;
    }
    if arguments.packages {
        return Ok(());
    }
    for component in tools::missing_components()? {
        println!("missing: {component}, which comes with Rust: `rustup component add {component}`");
    }
    tools::fetch()?;
    for tool in tools::ALL.iter().filter(|tool| tool.find().is_none()) {
        tool.install()?;
    }
    for packages in pinned::missing() {
        pinned::install(packages)?;
    }
    Ok(())
}

fn check(programs: &[Program], only_packages: bool) -> Result<()> {
    let mut missing: Vec<String> = Vec::new();
    if !programs.is_empty() {
        missing.push(install_line(programs));
    }
    if !only_packages {
        missing.extend(
            tools::missing_components()?
                .iter()
                .map(|name| format!("rustup component add {name}")),
        );
        let tools = tools::ALL.iter().filter(|tool| tool.find().is_none());
        missing.extend(tools.map(|Tool { name, version, .. }| {
            format!("cargo install --locked {name} --version {version}")
        }));
        missing.extend(pinned::missing().map(|packages| {
            format!("the {packages:?} packages of tests (`cargo xtask setup` installs them)")
        }));
    }
    for line in &missing {
        println!("missing: {line}");
    }
    if missing.is_empty() {
        Ok(())
    } else {
        bail!("`cargo xtask setup` brings what is missing")
    }
}

fn missing_programs(with_rivals: bool) -> Vec<Program> {
    mainstay_testkit::programs()
        .filter(|program| program.need != Need::Bench || with_rivals)
        .filter(|program| mainstay_testkit::find(program.name).is_none())
        .collect()
}

fn packages(programs: &[Program]) -> Vec<&'static str> {
    let mut packages: Vec<&str> = programs.iter().map(|program| program.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// The one line that an administrator has to type.
fn install_line(programs: &[Program]) -> String {
    format!(
        "sudo apt-get install --no-install-recommends {}",
        packages(programs).join(" ")
    )
}

fn install_packages(missing: &[Program]) -> Result<()> {
    let Some(apt) = mainstay_testkit::find("apt-get") else {
        let names: Vec<&str> = missing.iter().map(|program| program.name).collect();
        println!(
            "missing: {} (this is no Debian: install them your way)",
            names.join(", ")
        );
        return Ok(());
    };
    if !mainstay_testkit::is_root() {
        println!("missing: {}", install_line(missing));
        return Ok(());
    }
    let names = packages(missing);
    println!("installing {}", names.join(" "));
    let no_daemons = NoDaemons::begin()?;
    if apt_install(&apt, &names).is_err() {
        // The lists of packages are absent or too old.
        apt_get(&apt, &["update", "--quiet"])?;
        apt_install(&apt, &names)?;
    }
    drop(no_daemons);
    for unit in missing.iter().filter_map(|program| program.unit) {
        keep_off(unit);
    }
    let still: Vec<&str> = missing
        .iter()
        .map(|program| program.name)
        .filter(|name| mainstay_testkit::find(name).is_none())
        .collect();
    if !still.is_empty() {
        bail!("{} came without {}", names.join(" "), still.join(", "));
    }
    Ok(())
}

fn apt_install(apt: &Path, packages: &[&str]) -> Result<()> {
    let mut arguments = vec!["install", "--yes", "--quiet", "--no-install-recommends"];
    // Another apt-get may be at work.
    arguments.extend(["-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Use-Pty=0"]);
    arguments.extend(packages);
    apt_get(apt, &arguments)
}

fn apt_get(apt: &Path, arguments: &[&str]) -> Result<()> {
    cargo::run(
        Command::new(apt)
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

/// Keeps a daemon, which tests start themselves on ports of their own, from starting at the next boot.
fn keep_off(unit: &str) {
    let Some(systemctl) = mainstay_testkit::find("systemctl") else {
        return;
    };
    if let Err(error) = cargo::run(Command::new(systemctl).args(["disable", "--quiet", unit])) {
        println!("{unit} may start at the next boot: {error}");
    }
}

/// While this lives, packages that are installed start no daemon: Debian asks `policy-rc.d`, and 101 means no.
struct NoDaemons {
    /// The file, if it is ours to remove.
    ours: Option<PathBuf>,
}

impl NoDaemons {
    fn begin() -> Result<Self> {
        let path = PathBuf::from("/usr/sbin/policy-rc.d");
        if path.exists() {
            // The machine has its own policy; containers mostly have this very one.
            return Ok(Self { ours: None });
        }
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(&path);
        let mut file = file.with_context(|| format!("cannot create {}", path.display()))?;
        let guard = Self { ours: Some(path) };
        file.write_all(b"#!/bin/sh\nexit 101\n")
            .context("cannot write policy-rc.d")?;
        Ok(guard)
    }
}

impl Drop for NoDaemons {
    fn drop(&mut self) {
        let Some(path) = &self.ours else { return };
        if let Err(error) = fs::remove_file(path) {
            println!("{} must be removed by hand: {error}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_one_line_that_names_each_package_once() {
        let program = |name, package| Program {
            name,
            package,
            need: Need::Test,
            unit: None,
        };
        let missing = [
            program("b", "two"),
            program("a", "one"),
            program("c", "two"),
        ];
        let line = "sudo apt-get install --no-install-recommends one two";
        assert_eq!(install_line(&missing), line);
    }
}
