//! `mainstay down SERVICE...`: drains, stops and forgets services.

use mainstay_api::wire::{Accepted, ServiceStatus};
use mainstay_ids::ServiceName;

use super::{client, tell_notes};
use crate::arguments::{Place, Waiting};
use crate::follow::{Follow, Goal};
use crate::outcome::Outcome;
use crate::output;

/// Takes `services` down; an empty list means every one.
pub(crate) async fn run(
    place: &Place,
    mut services: Vec<ServiceName>,
    waiting: Waiting,
) -> anyhow::Result<Outcome> {
    let client = client(place);
    if services.is_empty() {
        let all: Vec<ServiceStatus> = client.get("/v1/services").await?;
        services = all.into_iter().map(|status| status.service).collect();
    }
    let mut first_event = None;
    let mut accepted_all = Vec::new();
    for service in &services {
        let accepted: Accepted = client.delete(&format!("/v1/services/{service}")).await?;
        first_event.get_or_insert(accepted.event);
        tell_notes(&accepted.notes);
        accepted_all.push(accepted);
    }
    if place.json {
        output::json(&accepted_all)?;
    }
    let Some(after) = first_event.filter(|_| !waiting.no_wait) else {
        return Ok(Outcome::Holds);
    };
    let goals = services
        .into_iter()
        .map(|service| (service, Goal::Gone))
        .collect();
    Follow::new(client, goals, after)
        .waiting(waiting)
        .steps(place.into())
        .run()
        .await
}
