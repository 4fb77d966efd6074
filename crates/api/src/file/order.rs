//! The keys that say when something is started: `needs` and `schedule`.

use std::collections::BTreeSet;
use std::time::Duration;

use mainstay_ids::ServiceName;
use mainstay_model::Cron;
use mainstay_model::service::Schedule;
use toml::de::DeValue;

use super::problem::Code;
use super::refusal::{At, Refused, quoted};
use super::service::{or, span};
use super::walk::{Entry, Section};
use super::{defaults, later, limits};

/// What a scheduled program cannot have: nobody calls it, and it is not kept running.
const FOR_SERVERS: [&str; 14] = [
    "address",
    "http",
    "retry",
    "sticky",
    "rewrite",
    "redirect",
    "forwarded",
    "via",
    "timeouts",
    "queue",
    "health",
    "instances",
    "rollout",
    "before",
];

/// The services that must be ready first. Whether they exist is checked once all are known.
pub(super) fn needs(
    entry: &Entry<'_, '_>,
    places: &mut Vec<(ServiceName, At)>,
) -> Option<BTreeSet<ServiceName>> {
    let help = "write for instance `needs = [\"payments\"]`".to_owned();
    let elements = entry.list("a list of services' names", Some(help))?;
    if elements.len() > limits::SERVICES_MAX {
        let most = limits::SERVICES_MAX;
        let message = format!("expected up to {most} elements, found {}", elements.len());
        entry.refuse(Refused::new(Code::TooMuch, message));
        return None;
    }
    let names: Vec<_> = elements
        .iter()
        .map(|element| {
            let name = element.text("a service's name", "`needs = [\"payments\"]`", |text| {
                ServiceName::parse(text)
                    .map_err(|error| Refused::value(format!("{error}; found {}", quoted(text))))
            })?;
            places.push((name.clone(), element.at()));
            Some(name)
        })
        .collect();
    names.into_iter().collect()
}

/// When a program that is no server runs; `service` is the table around it.
pub(super) fn schedule(entry: &Entry<'_, '_>, service: &mut Section<'_, '_>) -> Option<Schedule> {
    let mut alone = true;
    for key in FOR_SERVERS {
        if let Some(other) = service.take(key) {
            let line = entry.at_key().place.line;
            let message =
                format!("`{key}` is for servers, and this program has a `schedule` (line {line})");
            let refused = Refused::new(Code::Conflict, message).also(&entry.at_key());
            let help = "a scheduled program is started at its times and ends by itself: take one of them out";
            service.walk().refuse(&other.at_key(), refused.help(help));
            alone = false;
        }
    }
    let read = match entry.value() {
        DeValue::String(_) => cron(entry).map(|cron| Schedule {
            cron,
            deadline: defaults::SCHEDULE_DEADLINE,
        }),
        _ => table(entry),
    };
    read.filter(|_| alone)
}

fn table(entry: &Entry<'_, '_>) -> Option<Schedule> {
    const EXAMPLE: &str = "write for instance `schedule = \"30 3 * * *\"`";
    let read = |s: &mut Section<'_, '_>| {
        let cron = s.required("cron", EXAMPLE).and_then(|e| cron(&e));
        let deadline = s.take("deadline");
        let deadline = or(deadline.as_ref(), defaults::SCHEDULE_DEADLINE, |e| {
            span(e, Duration::from_millis(1))
        });
        Some(Schedule {
            cron: cron?,
            deadline: deadline?,
        })
    };
    entry
        .section(
            "a schedule, as in `30 3 * * *`, or a table",
            Some(EXAMPLE.to_owned()),
            later::NONE,
            read,
        )
        .flatten()
}

fn cron(entry: &Entry<'_, '_>) -> Option<Cron> {
    let example = "`schedule = \"30 3 * * *\"`";
    entry.text("a schedule, as in `30 3 * * *`", example, |text| {
        Cron::parse(text).map_err(|error| {
            Refused::value(error.to_string())
                .help("minute, hour, day of month, month, day of week, in UTC: `30 3 * * mon-fri`")
        })
    })
}
