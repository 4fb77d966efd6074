//! `mainstay status`: the whole at a glance. It ends with 1 when something is not as wanted.

use mainstay_api::wire::{ScheduleStatus, ServiceState, ServiceStatus, Status};
use mainstay_ids::{ServiceName, Timestamp};
use mainstay_model::backup::Standing;
use mainstay_model::event::Wait;
use serde::Serialize;

use super::{client, must_exist, or_dash, print_table, table, word};
use crate::arguments::Place;
use crate::clock;
use crate::outcome::Outcome;
use crate::output;
use crate::safekeeping::BackupRecord;
use crate::supervisor::record::{Addresses, Record};

pub(crate) async fn run(place: &Place, only: Option<ServiceName>) -> anyhow::Result<Outcome> {
    let client = client(place);
    if let Some(only) = &only {
        must_exist(&client, only).await?;
    }
    let mut status: Status = client.get("/v1/status").await?;
    if let Some(only) = only {
        status.services.retain(|service| service.service == only);
    }
    let now = clock::now();
    let backup = BackupRecord::load(&place.state)?;
    let backup = backup.map(|record| BackupStatus::new(record, now));
    if place.json {
        let (status, backup) = (&status, backup.as_ref());
        output::json(&Shown { status, backup })?;
    } else {
        let record = Record::load(&place.state)?;
        let addresses = record.map(|record| record.addresses());
        print(&status, addresses, backup.as_ref())?;
    }
    let backed_up = backup.is_none_or(|backup| !backup.standing.is_alarm());
    let as_wanted = |service: &ServiceStatus| {
        service.state == ServiceState::Steady && !has_deaf_address(&status, service)
    };
    Ok(if backed_up && status.services.iter().all(as_wanted) {
        Outcome::Holds
    } else {
        Outcome::DoesNotHold
    })
}

/// What is written with `--json`: what the control centre knows, and what it does not.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    status: &'a Status,
    /// Only where backups are made by themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<&'a BackupStatus>,
}

/// How backups that are made by themselves stand.
#[derive(Serialize)]
struct BackupStatus {
    standing: Standing,
    /// How old the last whole one is.
    age_ms: Option<u64>,
    /// The same for people.
    said: String,
    #[serde(flatten)]
    record: BackupRecord,
}

impl BackupStatus {
    fn new(record: BackupRecord, now: Timestamp) -> Self {
        let last = record.last.as_ref();
        Self {
            standing: record.known().standing(now),
            age_ms: last.map(|last| now.0.saturating_sub(last.at.0)),
            said: record.said(now),
            record,
        }
    }
}

fn print(
    status: &Status,
    addresses: Option<Addresses>,
    backup: Option<&BackupStatus>,
) -> anyhow::Result<()> {
    output::line(format_args!(
        "mainstay {} since {}, generation {}",
        status.mainstay, status.since, status.generation
    ))?;
    for entry in &status.entry {
        output::line(format_args!("entry     http://{entry}"))?;
    }
    if let Some(stats) = status.stats {
        output::line(format_args!("stats     http://{stats}/stats"))?;
    }
    if let Some(broker) = addresses.and_then(|addresses| addresses.broker) {
        output::line(format_args!("broker    amqp://{broker}"))?;
    }
    if let Some(broker) = addresses.and_then(|addresses| addresses.broker_tls) {
        output::line(format_args!("          amqps://{broker}"))?;
    }
    if let Some(backup) = backup {
        output::line(format_args!("backup    {}", backup.said))?;
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
            or_dash(routes(service)),
            or_dash(service.address),
            note(status, service),
        ]);
    }
    print_table(&rows)
}

/// The first of its routes, and how many more there are.
fn routes(service: &ServiceStatus) -> Option<String> {
    let first = service.http.as_ref().or(service.routes.first())?;
    Some(match service.routes.len().saturating_sub(1) {
        0 => first.clone(),
        more => format!("{first} +{more}"),
    })
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
    let why = why.filter(|_| service.schedule.is_none());
    let wait = service.wait.as_ref().map(|wait| waits(service, wait));
    let schedule = service.schedule.as_ref().map(runs);
    let withheld = (service.withheld > 0).then(|| {
        let count = service.withheld;
        format!("{count} drained, as somebody asked (see mainstay ps)")
    });
    let notes = [schedule, wait, withheld, why];
    let notes: Vec<String> = notes.into_iter().flatten().collect();
    notes.join("; ")
}

/// What the rollout waits for, and what to type where it is somebody's word.
fn waits(service: &ServiceStatus, wait: &Wait) -> String {
    let name = &service.service;
    match wait {
        Wait::Resume => format!("paused: `mainstay resume {name}` lets it go on"),
        Wait::Promotion { ready } => {
            format!(
                "{ready} canaries are ready: `mainstay promote {name}` lets them replace the rest"
            )
        }
        Wait::Before { .. }
        | Wait::Needs { .. }
        | Wait::Room { .. }
        | Wait::Health { .. }
        | Wait::MinimumHealthy { .. }
        | Wait::Drain { .. }
        | Wait::Intake { .. } => format!("waits for {wait}"),
    }
}

/// When it runs next, and how the last run ended.
fn runs(schedule: &ScheduleStatus) -> String {
    let next = schedule
        .next
        .map_or_else(|| "not decided yet".to_owned(), |next| next.to_string());
    let last = schedule.last.as_ref().map_or_else(
        || "it has not run yet".to_owned(),
        |last| {
            let how = last
                .exit
                .map_or_else(|| "was not started".to_owned(), |exit| exit.to_string());
            format!("last run {} {how} at {}", last.instance, last.ended)
        },
    );
    format!("next run {next}; {last}")
}
