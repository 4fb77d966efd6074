//! `bench gateway`: what a request, a connection and a large body cost our gateway, against HAProxy.
//!
//! One thread each, on the first processor; clients and instances on the others. With the features on both write an
//! access log, add X-Forwarded-For and a request id, may retry, check their instances each second and count; bare, log,
//! ids and retries are off in both.
//!
//! Start reading at `floods`, which has four of the seven bars; `fixed` has the fixed rate, `idle` the memory.

mod fixed;
mod floods;
mod idle;
pub(crate) mod profile;
mod side;

use super::{
    dev,
    frame::Run,
    machine::{Cpus, pin},
};
use anyhow::{Result, ensure};
use floods::Floods;
use mainstay_testkit::TempDir;
use rustix::process::getpid;
use side::{Features, Side};
use std::time::Duration;

const CONFIG: &str = "bench/haproxy-gateway.cfg";
const CONFIG_BARE: &str = "bench/haproxy-bare.cfg";
const CONFIG_LARGE: &str = "bench/haproxy-large.cfg";

pub(crate) async fn run(run: &mut Run) -> Result<()> {
    for config in [CONFIG, CONFIG_BARE, CONFIG_LARGE] {
        run.show_file(config)?;
    }
    let mainstay = dev::build(&["mainstay"])?;
    // Everything that is started from here on inherits this.
    pin(getpid(), Cpus::Others)?;
    let dir = TempDir::new("bench-gateway");
    let duration = Duration::from_secs(run.extent.pick(4, 2));
    let floods = Floods {
        dir: &dir,
        duration,
    };

    let sides = [
        Side::ours(&mainstay, Features::On).await?,
        Side::theirs("haproxy", CONFIG)?,
    ];
    for side in &sides {
        side.warm_up(&dir).await?;
    }
    let kept = floods.kept(run, &sides).await?;
    let closed = floods.closed(run, &sides).await?;
    let fixed = fixed::measure(run, &sides).await?;
    let tuned = Side::theirs("haproxy with splice", CONFIG_LARGE)?;
    let [ours, theirs] = sides;
    let large = [ours, theirs, tuned];
    let large_bodies = floods.large(run, &large).await?;
    logs_were_written(run, &large)?;
    drop(large);

    let bare_sides = [
        Side::ours(&mainstay, Features::Off).await?,
        Side::theirs("haproxy", CONFIG_BARE)?,
    ];
    for side in &bare_sides {
        side.warm_up(&dir).await?;
    }
    let bare = floods.bare(run, &bare_sides).await?;
    drop(bare_sides);

    let idle = idle::measure(run, &mainstay, &dir).await?;
    floods::conclude(run, &[kept, closed, large_bodies, bare]);
    fixed::conclude(run, &fixed);
    idle::conclude(run, &idle);
    Ok(())
}

/// A side without its access log would have less to do. HAProxy drops lines that its reader is too slow for, and has
/// then made them all the same, so their share is told.
fn logs_were_written(run: &mut Run, sides: &[Side; 3]) -> Result<()> {
    let [ours, theirs, _] = sides;
    ensure!(theirs.log_lines()? > 0, "HAProxy wrote no access log");
    ensure!(ours.log_lines()? > 0, "our gateway wrote no access log");
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
    let share = theirs.log_lines()? as f64 / theirs.requests() as f64;
    run.value("haproxy_log_lines_per_request", share);
    Ok(())
}
