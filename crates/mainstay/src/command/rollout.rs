//! `mainstay pause`, `resume` and `promote`: people's words about a rollout.

use mainstay_api::wire::{Accepted, ServiceStatus};
use mainstay_ids::ServiceName;

use super::client;
use crate::arguments::{Place, Waiting};
use crate::follow::after_change;
use crate::outcome::Outcome;
use crate::output;

/// Stops the rollout of a service where it is. That is done at once, so there is nothing to wait for.
pub(crate) async fn pause(place: &Place, service: ServiceName) -> anyhow::Result<Outcome> {
    let client = client(place);
    let path = format!("/v1/services/{service}/pause");
    let accepted: Accepted = client.post(&path, &()).await?;
    if place.json {
        output::json(&accepted)?;
        return Ok(Outcome::Holds);
    }
    let services: Vec<ServiceStatus> = client.get("/v1/services").await?;
    if let Some(status) = services.iter().find(|status| status.service == service) {
        output::tell(format_args!(
            "{service} {} is paused with {} of {} instances ready; `mainstay resume {service}` lets it go on",
            status.version, status.ready, status.wanted
        ));
    }
    Ok(Outcome::Holds)
}

/// Lets a paused rollout go on, or begins a failed one anew, and waits for it.
pub(crate) async fn resume(
    place: &Place,
    service: ServiceName,
    waiting: Waiting,
) -> anyhow::Result<Outcome> {
    say(place, service, "resume", waiting).await
}

/// Lets the version of the canaries replace the old one, and waits for it.
pub(crate) async fn promote(
    place: &Place,
    service: ServiceName,
    waiting: Waiting,
) -> anyhow::Result<Outcome> {
    say(place, service, "promote", waiting).await
}

async fn say(
    place: &Place,
    service: ServiceName,
    word: &str,
    waiting: Waiting,
) -> anyhow::Result<Outcome> {
    let client = client(place);
    let path = format!("/v1/services/{service}/{word}");
    let accepted: Accepted = client.post(&path, &()).await?;
    after_change(place, client, service, accepted, waiting).await
}
