//! `mainstay events`: what was decided and why.

use std::fmt;
use std::time::Duration;

use anyhow::Context;
use mainstay_api::client::{Client, Error, Watch};
use mainstay_api::wire::EventLine;
use mainstay_ids::{InstanceId, ServiceName, Timestamp};
use mainstay_model::Event;

use super::{client, must_exist};
use crate::arguments::{Events, Place};
use crate::outcome::Outcome;
use crate::{clock, output};

/// How often a control centre that went away is looked for: it is back within a second.
const RETRY: Duration = Duration::from_millis(200);

/// Which events are asked for, and how far they were printed.
pub(crate) struct Position {
    /// Behind this number; `None`: from `since` on.
    pub(crate) after: Option<u64>,
    /// Where to begin.
    pub(crate) since: Timestamp,
}

impl fmt::Display for Position {
    /// As a part of the query.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(after) = self.after {
            write!(f, "&after={after}")?;
        }
        write!(f, "&since={}", self.since.0)
    }
}

pub(crate) async fn run(place: &Place, events: &Events) -> anyhow::Result<Outcome> {
    let service = events.service.as_ref().or(events.of.as_ref());
    let client = client(place);
    let mut printing = Printing {
        place,
        client: &client,
        service,
        instance: events.instance.as_ref(),
        follow: events.follow,
        position: Position {
            after: events.after,
            since: events.since.map_or(Timestamp(0), ago),
        },
        printed: 0,
    };
    printing.run().await?;
    // One that was taken down still has events.
    if let Some(service) = service.filter(|_| printing.printed == 0) {
        must_exist(&client, service).await?;
    }
    Ok(Outcome::Holds)
}

/// The time so long ago.
pub(crate) fn ago(duration: Duration) -> Timestamp {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Timestamp(clock::now().0.saturating_sub(ms))
}

struct Printing<'c> {
    place: &'c Place,
    client: &'c Client,
    service: Option<&'c ServiceName>,
    instance: Option<&'c InstanceId>,
    follow: bool,
    position: Position,
    printed: u64,
}

impl Printing<'_> {
    /// Prints all there is; when it follows, until nobody reads, also over restarts of the control
    /// centre: it goes on behind the last event that it printed.
    async fn run(&mut self) -> anyhow::Result<()> {
        let mut was_there = false;
        loop {
            let path = self.path();
            match self.client.watch::<EventLine>(&path).await {
                Ok(watch) => {
                    was_there = true;
                    let ended = self.print(watch).await?;
                    match ended {
                        Ok(()) if !self.follow => return Ok(()),
                        Err(error) if !self.follow || !error.is_transient() => {
                            return Err(error.into());
                        }
                        Ok(()) | Err(_) => {
                            output::warn("the control centre is away; waiting for it");
                        }
                    }
                }
                // Only who was there is waited for: else there may be nobody at all.
                Err(error) if was_there && error.is_transient() => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Prints what one stream has. The outer error is that of the output.
    async fn print(&mut self, mut watch: Watch<EventLine>) -> anyhow::Result<Result<(), Error>> {
        loop {
            let told = match watch.next().await {
                Ok(Some(told)) => told,
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            };
            let text = match &told {
                EventLine::Event(event) => {
                    self.position.after = Some(event.number);
                    self.printed += 1;
                    dated_line(event, clock::now())
                }
                EventLine::Gap { gap } => {
                    self.position.after = Some(gap.resume());
                    gap.to_string()
                }
            };
            // Behind an event that was printed nothing is too old, whatever becomes of the clock.
            self.position.since = Timestamp(0);
            if self.place.json {
                output::line(serde_json::to_string(&told).context("cannot write an event")?)?;
            } else {
                output::line(text)?;
            }
        }
    }

    fn path(&self) -> String {
        let service = self.service.map(|service| format!("&service={service}"));
        let instance = self
            .instance
            .map(|instance| format!("&instance={instance}"));
        let filters: String = [service, instance].into_iter().flatten().collect();
        format!(
            "/v1/events?follow={}{}{filters}",
            self.follow, self.position
        )
    }
}

/// An event as one line for people who read on the day `now`: with its date if it is of another.
fn dated_line(event: &Event, now: Timestamp) -> String {
    let (at, now) = (event.at.to_string(), now.to_string());
    match (at.get(..10), now.get(..10)) {
        (Some(date), Some(today)) if date != today => format!("{date} {}", line(event)),
        _ => line(event),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_model::EventKind;

    #[test]
    fn an_event_of_another_day_has_its_date() {
        const DAY: u64 = 86_400_000;
        let event = Event {
            number: 1,
            at: Timestamp(3 * DAY + 5),
            service: None,
            kind: EventKind::Removed,
        };
        let today = dated_line(&event, Timestamp(4 * DAY - 1));
        assert_eq!(today, "00:00:00.005  -            gone");
        let later = dated_line(&event, Timestamp(4 * DAY));
        assert_eq!(later, "1970-01-04 00:00:00.005  -            gone");
    }
}
