//! `mainstay events`: what was decided and why.

use std::io::Write;

use anyhow::Context;
use mainstay_model::Event;

use super::client;
use crate::arguments::{Events, Place};
use crate::outcome::Outcome;

pub(crate) async fn run(place: &Place, events: &Events) -> anyhow::Result<Outcome> {
    let service = events
        .service
        .as_ref()
        .map(|name| format!("&service={name}"));
    let path = format!(
        "/v1/events?after={}&follow={}{}",
        events.after,
        events.follow,
        service.unwrap_or_default()
    );
    let mut watch = client(place).watch::<Event>(&path).await?;
    let mut out = std::io::stdout();
    while let Some(event) = watch.next().await? {
        let line = if place.json {
            serde_json::to_string(&event).context("cannot write an event")?
        } else {
            line(&event)
        };
        writeln!(out, "{line}").context("cannot write an event")?;
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
