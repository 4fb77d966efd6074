//! The gateway's process is replaced under new connections, one for each request: no queue of a listening socket may be
//! closed with a client in it.

use super::replace::{MARGIN, Rounds, shape, start};
use crate::bench::{
    dev::Dev,
    frame::Run,
    load::{Seen, Shape},
};
use anyhow::{Context as _, Result};
use std::{path::Path, process::Command};
use tokio::time::sleep;

/// Upgrades in a round.
const UPGRADES: usize = 3;

pub(super) async fn run(run: &mut Run, mainstay: &Path) -> Result<()> {
    if !knows_upgrade(mainstay)? {
        run.miss("`upgrade_failed` is not measured: this mainstay has no `upgrade`");
        return Ok(());
    }
    let shape = shape()?;
    let mut rounds = Rounds::new("upgrade of the gateway");
    let dev = start(mainstay, &[]).await?;
    for _ in 0..run.extent.rounds() {
        rounds.add(run, upgrade(&dev, &shape).await?);
    }
    drop(dev);
    let mut off = Rounds::new("upgrade of the gateway without handing its sockets over");
    let dev = start(mainstay, &["--unsafe-no-hand-over"]).await?;
    off.add(run, upgrade(&dev, &shape).await?);
    rounds.must_count(run);
    off.must_count(run);
    run.red("upgrade_failed", off.failed());
    if off.failed() < 1.0 {
        run.miss("`upgrade_failed` is 0 although sockets were closed: the check shows nothing");
    }
    run.at_most("upgrade_failed", rounds.failed(), 0.0);
    Ok(())
}

fn knows_upgrade(mainstay: &Path) -> Result<bool> {
    let help = Command::new(mainstay).args(["upgrade", "--help"]).output();
    Ok(help.context("cannot start mainstay")?.status.success())
}

async fn upgrade(dev: &Dev, shape: &Shape) -> Result<Seen> {
    let sending = shape.start(dev.entry())?;
    sleep(MARGIN).await;
    for _ in 0..UPGRADES {
        dev.upgrade_gateway().await?;
        sleep(MARGIN).await;
    }
    sending.stop().await
}
