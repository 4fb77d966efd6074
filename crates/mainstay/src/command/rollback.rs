//! `mainstay rollback SERVICE [VERSION]`.

use mainstay_api::wire::{Accepted, Rollback};
use mainstay_ids::{ServiceName, Version};

use super::client;
use crate::arguments::{Place, Waiting};
use crate::follow::after_change;
use crate::outcome::Outcome;

pub(crate) async fn run(
    place: &Place,
    service: ServiceName,
    to: Option<Version>,
    waiting: Waiting,
) -> anyhow::Result<Outcome> {
    let client = client(place);
    let path = format!("/v1/services/{service}/rollback");
    let accepted: Accepted = client.post(&path, &Rollback { to }).await?;
    after_change(place, client, service, accepted, waiting).await
}
