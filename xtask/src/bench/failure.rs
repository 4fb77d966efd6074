//! `bench failure`: what clients see when an instance is killed, and when instances are replaced.
//!
//! The generator counts every planned request; each answer must carry its request's nonce.

mod frozen;
mod kill;
mod replace;

use super::{dev, frame::Run};
use anyhow::Result;

/// How long each answer of an instance takes, so that there is always something in flight.
const SERVICE_TIME: std::time::Duration = std::time::Duration::from_millis(10);

pub(crate) async fn run(run: &mut Run) -> Result<()> {
    let mainstay = dev::build(&["mainstay"])?;
    kill::run(run, &mainstay).await?;
    replace::run(run, &mainstay).await?;
    frozen::run(run, &mainstay).await
}
