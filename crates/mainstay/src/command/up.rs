//! `mainstay up FILE`: declares services and waits until they are in force.

use mainstay_api::client::Client;
use mainstay_api::wire::{Applied, Apply};

use super::{client, tell_notes, word};
use crate::arguments::{Place, Up, Waiting};
use crate::follow::{Follow, Goal, Steps};
use crate::outcome::Outcome;
use crate::output;
use crate::service_file;

pub(crate) async fn run(place: &Place, up: &Up) -> anyhow::Result<Outcome> {
    if up.dry_run {
        return super::plan::run(place, &up.file).await;
    }
    let services = service_file::read(&up.file, place)?;
    let apply = Apply {
        services,
        dry_run: false,
    };
    let client = client(place);
    let applied: Applied = client.post("/v1/services", &apply).await?;
    if place.json {
        output::json(&applied)?;
    } else {
        changes(&applied).for_each(output::tell);
    }
    tell_notes(&applied.notes);
    if up.waiting.no_wait {
        return Ok(Outcome::Holds);
    }
    follow(client, &applied, up.waiting, place.into()).await
}

/// What a declaration changes, a line a service.
pub(crate) fn changes(applied: &Applied) -> impl Iterator<Item = String> {
    applied.services.iter().map(|service| {
        let change = word(&service.change);
        format!("{} {} {change}", service.service, service.version)
    })
}

/// Waits until what was declared is in force.
pub(crate) async fn follow(
    client: Client,
    applied: &Applied,
    waiting: Waiting,
    steps: Steps,
) -> anyhow::Result<Outcome> {
    let goals = applied
        .services
        .iter()
        .map(|service| (service.service.clone(), Goal::Ready(service.version)))
        .collect();
    Follow::new(client, goals, applied.event)
        .waiting(waiting)
        .steps(steps)
        .run()
        .await
}
