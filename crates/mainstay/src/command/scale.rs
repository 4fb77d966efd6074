//! `mainstay scale SERVICE N`.

use mainstay_api::wire::{Accepted, Scale};
use mainstay_ids::ServiceName;

use super::client;
use crate::arguments::{Place, Waiting};
use crate::follow::after_change;
use crate::outcome::Outcome;

pub(crate) async fn run(
    place: &Place,
    service: ServiceName,
    instances: u32,
    waiting: Waiting,
) -> anyhow::Result<Outcome> {
    let client = client(place);
    let path = format!("/v1/services/{service}/scale");
    let accepted: Accepted = client.post(&path, &Scale { instances }).await?;
    after_change(place, client, service, accepted, waiting).await
}
