//! `mainstay why`: the recorded decisions that led to how something is, the newest first.

use mainstay_api::client::{Client, Error};
use mainstay_api::wire::ProblemCode;
use mainstay_ids::{InstanceId, ServiceName, Timestamp};
use mainstay_model::{Reason, Why};
use serde::Serialize;

use super::client;
use super::request::{self, Request};
use crate::arguments::{self, LogSource, Place};
use crate::clock;
use crate::outcome::{Failure, Outcome};
use crate::output;

/// What is answered about a request.
#[derive(Debug, Serialize)]
struct OfRequest {
    /// Its line in the gateway's access log.
    request: Request,
    /// How its service was then; `None`: it belonged to none, or nothing is remembered.
    service: Option<Why>,
}

pub(crate) async fn run(place: &Place, why: arguments::Why) -> anyhow::Result<Outcome> {
    let arguments::Why { of, id } = why;
    let client = client(place);
    match id {
        Some(id) if of == "request" => return of_request(place, &client, &id).await,
        Some(id) => {
            let message = format!("`{of} {id}` is nothing that can be asked about");
            let remedy = "ask with one word for a service or an instance, and with `request ID` for a request";
            return Err(Failure::new(Outcome::WrongInput, message)
                .remedy(remedy)
                .into());
        }
        None => {}
    }
    let source: LogSource = of.parse().map_err(|error| {
        let message = format!("`{of}` is neither a service's nor an instance's name: {error}");
        Failure::new(Outcome::WrongInput, message).remedy("`mainstay ps` lists the instances")
    })?;
    let why = match source {
        LogSource::Service(name) => of_service(&client, &name).await?,
        LogSource::Instance(id) => of_instance(&client, &id).await?,
    };
    if place.json {
        output::json(&why)?;
    } else {
        print(&why, Tense::Now)?;
    }
    Ok(Outcome::Holds)
}

async fn of_service(client: &Client, name: &ServiceName) -> Result<Why, Error> {
    client.get(&format!("/v1/why/services/{name}")).await
}

/// A service may have a name like an instance: it is asked about if there is no such instance.
async fn of_instance(client: &Client, id: &InstanceId) -> Result<Why, Error> {
    let refused = match client.get(&format!("/v1/why/instances/{id}")).await {
        Err(Error::Refused(problem)) if problem.code == ProblemCode::InstanceUnknown => problem,
        other => return other,
    };
    let name = ServiceName::parse(&id.to_string());
    match name {
        Ok(name) => of_service(client, &name)
            .await
            .map_err(|error| match error {
                Error::Refused(problem) if problem.code == ProblemCode::ServiceUnknown => {
                    Error::Refused(refused)
                }
                other => other,
            }),
        Err(_) => Err(Error::Refused(refused)),
    }
}

async fn of_request(place: &Place, client: &Client, id: &str) -> anyhow::Result<Outcome> {
    let request = request::find(place, id).await?;
    if !place.json {
        output::line(request.sentence())?;
    }
    let service = match request.service_name() {
        Some(name) => of_service_then(client, &name, request.ended()).await?,
        None => None,
    };
    if place.json {
        output::json(&OfRequest { request, service })?;
    } else if let Some(why) = &service {
        print(why, Tense::Then)?;
    }
    Ok(Outcome::Holds)
}

/// How a service was at that moment; `None`: there was none.
async fn of_service_then(
    client: &Client,
    name: &ServiceName,
    at: Timestamp,
) -> Result<Option<Why>, Error> {
    let path = format!("/v1/why/services/{name}?at={}", at.0);
    match client.get(&path).await {
        Ok(why) => Ok(Some(why)),
        Err(Error::Refused(problem)) if problem.code == ProblemCode::ServiceUnknown => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether it is told how things stand, or how they stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tense {
    Now,
    Then,
}

fn print(why: &Why, tense: Tense) -> anyhow::Result<()> {
    let now = clock::now();
    for Reason {
        at, text, event, ..
    } in &why.chain
    {
        let since = match (event, tense) {
            (None, Tense::Now) if now.0.saturating_sub(at.0) < 1000 => "now".to_owned(),
            (Some(_) | None, Tense::Now | Tense::Then) => when(*at, now),
        };
        output::line(format_args!("{since:<12}  {text}"))?;
    }
    if why.left_out > 0 {
        output::line(format_args!(
            "{} older decisions are left out; `mainstay events` tells them",
            why.left_out
        ))?;
    }
    if let Some(last) = why.forgotten {
        output::line(format_args!(
            "what happened before is not told: the events up to number {last} are no longer in memory; `mainstay events` has those that are on disk"
        ))?;
    }
    Ok(())
}

/// The time of day, and the day if it is another one.
fn when(at: Timestamp, now: Timestamp) -> String {
    const DAY_MS: u64 = 86_400_000;
    if at.0 / DAY_MS == now.0 / DAY_MS {
        at.of_day().to_string()
    } else {
        at.to_string()
    }
}
