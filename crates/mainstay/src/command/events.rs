//! `mainstay events`: what was decided and why.

use anyhow::Context;
use mainstay_api::wire::EventLine;
use mainstay_model::Event;

use super::{client, must_exist};
use crate::arguments::{Events, Place};
use crate::outcome::Outcome;
use crate::output;

pub(crate) async fn run(place: &Place, events: &Events) -> anyhow::Result<Outcome> {
    let service = events
        .service
        .as_ref()
        .map(|name| format!("&service={name}"));
    let after = events.after.map(|after| format!("&after={after}"));
    let path = format!(
        "/v1/events?follow={}{}{}",
        events.follow,
        after.unwrap_or_default(),
        service.unwrap_or_default()
    );
    let client = client(place);
    let mut watch = client.watch::<EventLine>(&path).await?;
    let mut printed: u64 = 0;
    while let Some(told) = watch.next().await? {
        printed += 1;
        let line = if place.json {
            serde_json::to_string(&told).context("cannot write an event")?
        } else {
            match &told {
                EventLine::Event(event) => line(event),
                EventLine::Gap { gap } => gap.to_string(),
            }
        };
        output::line(line)?;
    }
    // One that was taken down still has events.
    if let Some(service) = events.service.as_ref().filter(|_| printed == 0) {
        must_exist(&client, service).await?;
    }
    Ok(Outcome::Holds)
}

/// An event as one line for people.
pub(crate) fn line(event: &Event) -> String {
    let time = event.at.to_string();
    let time_of_day = time.get(11..23).unwrap_or(&time);
    match &event.service {
        Some(service) => format!("{time_of_day}  {service:<12} {}", event.kind),
        None => format!("{time_of_day}  {:<12} {}", "-", event.kind),
    }
}
