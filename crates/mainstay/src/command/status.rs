//! `mainstay status`: the whole at a glance. It ends with 1 when something is not as wanted.

use mainstay_api::wire::{ServiceState, ServiceStatus, Status};
use mainstay_ids::ServiceName;

use super::{client, must_exist, or_dash, print_table, table, word};
use crate::arguments::Place;
use crate::outcome::Outcome;
use crate::output;

pub(crate) async fn run(place: &Place, only: Option<ServiceName>) -> anyhow::Result<Outcome> {
    let client = client(place);
    if let Some(only) = &only {
        must_exist(&client, only).await?;
    }
    let mut status: Status = client.get("/v1/status").await?;
    if let Some(only) = only {
        status.services.retain(|service| service.service == only);
    }
    if place.json {
        output::json(&status)?;
    } else {
        print(&status)?;
    }
    let as_wanted = |service: &ServiceStatus| {
        service.state == ServiceState::Steady && !has_deaf_address(&status, service)
    };
    Ok(if status.services.iter().all(as_wanted) {
        Outcome::Holds
    } else {
        Outcome::DoesNotHold
    })
}

fn print(status: &Status) -> anyhow::Result<()> {
    output::line(format_args!(
        "mainstay {} since {}, generation {}",
        status.mainstay, status.since, status.generation
    ))?;
    for entry in &status.entry {
        output::line(format_args!("entry     http://{entry}"))?;
    }
    for consumer in &status.consumers {
        let acknowledged = or_dash(consumer.acknowledged);
        output::line(format_args!(
            "follower  {} acknowledged {acknowledged}, heard {} ms ago",
            consumer.consumer, consumer.silent_ms
        ))?;
    }
    for node in &status.nodes {
        let heard = node.silent_ms.map_or_else(
            || "not heard yet".to_owned(),
            |ms| format!("heard {ms} ms ago"),
        );
        output::line(format_args!(
            "node      {} with {} instances, {heard}",
            node.node, node.instances
        ))?;
    }
    output::line("")?;
    let mut rows = table(&[
        "SERVICE", "VERSION", "READY", "STATE", "HTTP", "ADDRESS", "NOTE",
    ]);
    for service in &status.services {
        rows.add_row([
            service.service.to_string(),
            service.version.to_string(),
            format!("{}/{}", service.ready, service.wanted),
            word(&service.state),
            or_dash(service.http.clone()),
            or_dash(service.address),
            note(status, service),
        ]);
    }
    print_table(&rows)
}

/// Whether a gateway cannot listen on the service's address.
pub(crate) fn has_deaf_address(status: &Status, service: &ServiceStatus) -> bool {
    let unbound = |address| {
        status
            .consumers
            .iter()
            .any(|of| of.unbound.contains(&address))
    };
    service.address.is_some_and(unbound)
}

fn note(status: &Status, service: &ServiceStatus) -> String {
    if has_deaf_address(status, service) {
        return "its address is in use by another program (see logs/gateway.log)".to_owned();
    }
    let why = service.unavailable.map(|why| why.to_string());
    why.unwrap_or_default()
}
