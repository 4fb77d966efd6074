//! `mainstay ps`: the instances.

use mainstay_api::wire::InstanceStatus;
use mainstay_ids::{ServiceName, Timestamp};

use super::{client, must_exist, or_dash, print_table, table, word};
use crate::arguments::Place;
use crate::clock;
use crate::outcome::Outcome;
use crate::output;

pub(crate) async fn run(place: &Place, service: Option<ServiceName>) -> anyhow::Result<Outcome> {
    let client = client(place);
    if let Some(service) = &service {
        must_exist(&client, service).await?;
    }
    let mut instances: Vec<InstanceStatus> = client.get("/v1/instances").await?;
    if let Some(service) = service {
        instances.retain(|instance| instance.service == service);
    }
    if place.json {
        output::json(&instances)?;
        return Ok(Outcome::Holds);
    }
    let heading = [
        "INSTANCE", "VERSION", "STATE", "ATTEMPT", "PID", "ADDRESS", "UP", "NOTE",
    ];
    let mut rows = table(&heading);
    let now = clock::now();
    for instance in &instances {
        rows.add_row([
            instance.instance.to_string(),
            instance.version.to_string(),
            word(&instance.state),
            or_dash(instance.attempt.map(|attempt| attempt.0)),
            or_dash(instance.pid),
            or_dash(instance.address),
            or_dash(instance.since.map(|since| age(since, now))),
            or_dash(note(instance, now)),
        ]);
    }
    print_table(&rows)?;
    Ok(Outcome::Holds)
}

/// What it waits for, how it ended before, and why its probe fails now.
fn note(instance: &InstanceStatus, now: Timestamp) -> Option<String> {
    let held = instance
        .wait
        .as_ref()
        .map(|wait| format!("waits for {wait}"));
    let exit = instance.last_exit.map(|exit| exit.to_string());
    let again = instance.again_at.filter(|at| *at > now);
    let again = again.map(|at| format!("again at {}", at.of_day()));
    let probe = instance.probe_failure.as_ref();
    let probe = probe.map(|failure| format!("its probe fails: {failure}"));
    let intake = instance.intake;
    let intake = (!intake.is_ordinary()).then(|| intake.to_string());
    let notes = [intake, held, exit, again, probe];
    let notes: Vec<String> = notes.into_iter().flatten().collect();
    (!notes.is_empty()).then(|| notes.join("; "))
}

/// How long ago `since` was, in whole seconds.
pub(super) fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.0.saturating_sub(since.0) / 1000;
    mainstay_ids::duration::display(std::time::Duration::from_secs(seconds))
}
