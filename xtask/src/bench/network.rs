//! A network of a bench's own, in which packets may be dropped: the bench starts itself again in it.
//!
//! It has no name and ends with the last process in it, so that nothing of it can be left behind, whatever happens.

use anyhow::{Context as _, Result};
use mainstay_testkit::program;
use std::{env, fs, os::unix::process::CommandExt as _, process::Command};

/// Set where the bench has been started again.
const MARK: &str = "MAINSTAY_BENCH_NETWORK";

/// Whether this process runs in a network that a bench has made.
pub(crate) fn is_own() -> bool {
    let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    env::var_os(MARK).is_some() && of("self").is_some() && of("self") != of("1")
}

/// Goes on as this very process in a network of its own; returns only if that fails.
pub(crate) fn start_again() -> Result<()> {
    let mut again = Command::new(program("unshare"));
    again.arg("--net").arg("--").arg(env::current_exe()?);
    again.args(env::args_os().skip(1)).env(MARK, "1");
    Err(again.exec()).context("cannot make a network of the bench's own")
}

/// Its loopback is down at first.
pub(crate) fn bring_up() -> Result<()> {
    let mut up = Command::new(program("ip"));
    crate::cargo::run(up.args(["link", "set", "lo", "up"]))
}
