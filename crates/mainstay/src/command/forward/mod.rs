//! `mainstay forward`: what the kernel of this network namespace does with service addresses. Looks at
//! the kernel itself, so that it works without any other process of ours; names come from the control
//! centre, if it answers.

pub(crate) mod explain;
mod known;
pub(crate) mod ls;

use anyhow::Context as _;
use mainstay_forward::nft;
use mainstay_kernel::netlink::nft::Name;

use crate::arguments::{Forward, Place};
use crate::outcome::Outcome;

pub(crate) async fn run(place: &Place, forward: Forward) -> anyhow::Result<Outcome> {
    match forward {
        Forward::Ls => ls::run(place).await,
        Forward::Explain(asked) => explain::run(place, &asked).await,
    }
}

/// The table of the agent.
pub(crate) fn table() -> anyhow::Result<Name> {
    Name::new(nft::TABLE).context("the table's name is one")
}
