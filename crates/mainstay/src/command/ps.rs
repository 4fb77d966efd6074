//! `mainstay ps`: the instances.

use mainstay_api::wire::InstanceStatus;
use mainstay_ids::{ServiceName, Timestamp};

use super::{client, or_dash, print_json, print_table, table, word};
use crate::arguments::Place;
use crate::clock;
use crate::outcome::Outcome;

pub(crate) async fn run(place: &Place, service: Option<ServiceName>) -> anyhow::Result<Outcome> {
    let mut instances: Vec<InstanceStatus> = client(place).get("/v1/instances").await?;
    if let Some(service) = service {
        instances.retain(|instance| instance.service == service);
    }
    if place.json {
        print_json(&instances)?;
        return Ok(Outcome::Holds);
    }
    let heading = [
        "INSTANCE",
        "VERSION",
        "STATE",
        "ATTEMPT",
        "PID",
        "ADDRESS",
        "UP",
        "LAST EXIT",
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
            or_dash(instance.last_exit),
        ]);
    }
    print_table(&rows);
    Ok(Outcome::Holds)
}

/// How long ago `since` was, in whole seconds.
fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.0.saturating_sub(since.0) / 1000;
    mainstay_ids::duration::display(std::time::Duration::from_secs(seconds))
}
