//! `bench failure`: what clients see when an instance is killed, cut off or frozen, when instances are replaced, and when
//! the gateway's own process is.
//!
//! The generator counts every planned request; each answer must carry its request's nonce.

mod blackhole;
mod frozen;
mod replace;
mod strike;
mod upgrade;

use super::{dev, frame::Run, network};
use anyhow::Result;
use strike::{Fault, Posts};

/// How long each answer of an instance takes, so that there is always something in flight.
const SERVICE_TIME: std::time::Duration = std::time::Duration::from_millis(10);

pub(crate) async fn run(run: &mut Run) -> Result<()> {
    let mainstay = dev::build(&["mainstay"])?;
    strike::show_configurations(run)?;
    let mut posts = Posts::default();
    strike::run(run, &mainstay, Fault::Kill, &mut posts).await?;
    strike::run(run, &mainstay, Fault::UnseenDeath, &mut posts).await?;
    if network::is_own() {
        strike::run(run, &mainstay, Fault::Blackhole, &mut posts).await?;
    } else {
        run.miss("`blackhole` is not measured: dropping packets needs a network of our own, and that root");
    }
    strike::run(run, &mainstay, Fault::Freeze, &mut posts).await?;
    posts.conclude(run);
    replace::run(run, &mainstay).await?;
    upgrade::run(run, &mainstay).await?;
    frozen::run(run, &mainstay).await
}
