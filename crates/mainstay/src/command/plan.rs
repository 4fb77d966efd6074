//! `mainstay plan FILE`: what `up` would do, and why. What that is, the control centre says.

use mainstay_api::wire::{Applied, AppliedService, Apply};
use mainstay_ids::{ServiceName, duration};
use mainstay_model::report::Bytes;
use mainstay_model::service::OnFailure;
use mainstay_model::{Difference, MemoryOutlook, RolloutOutlook, ServiceOutlook, ServiceSpec};

use super::{client, tell_notes, word};
use crate::arguments::Place;
use crate::outcome::Outcome;
use crate::output;
use crate::service_file::Variables;

/// A variable's value that is shorter is found in other texts by chance, and hides nothing.
const HIDDEN_LEN_MIN: usize = 4;

pub(crate) async fn run(place: &Place, file: &std::path::Path) -> anyhow::Result<Outcome> {
    let (services, variables) = crate::service_file::read_with_variables(file, place)?;
    show(place, services, &variables).await
}

/// Asks what declaring these services would do, and shows it.
pub(crate) async fn show(
    place: &Place,
    services: Vec<ServiceSpec>,
    variables: &Variables,
) -> anyhow::Result<Outcome> {
    let apply = Apply {
        services,
        dry_run: true,
    };
    let mut applied: Applied = client(place).post("/v1/services", &apply).await?;
    let outlooks = applied
        .services
        .iter_mut()
        .filter_map(|one| one.outlook.as_mut());
    for difference in outlooks.flat_map(|outlook| &mut outlook.differences) {
        hide(difference, variables);
    }
    if place.json {
        output::json(&applied)?;
    } else {
        for service in &applied.services {
            for line in lines(service) {
                output::line(line)?;
            }
        }
        if let Some(memory) = &applied.memory {
            output::line(memory_line(memory))?;
        }
    }
    tell_notes(&applied.notes);
    Ok(Outcome::Holds)
}

/// Shows a value that comes from the environment as the file has it. What stood there before came
/// from an environment, too, and is not shown at all.
fn hide(difference: &mut Difference, Variables(variables): &Variables) {
    let Some(to) = &mut difference.to else {
        return;
    };
    let mut longest: Vec<(&String, &String)> = variables.iter().collect();
    longest.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
    for (name, value) in longest {
        if value.len() < HIDDEN_LEN_MIN {
            continue;
        }
        let quoted = format!("{:?}", value.replace('{', "{{").replace('}', "}}"));
        let inner = &quoted[1..quoted.len() - 1]; // without its quotes
        if to.contains(inner) {
            *to = to.replace(inner, &format!("${{{name}}}"));
            difference.from = difference.from.take().map(|_| "another value".to_owned());
        }
    }
}

/// What one service's declaration would do, a line each.
fn lines(service: &AppliedService) -> Vec<String> {
    let name = &service.service;
    let change = word(&service.change);
    let Some(outlook) = &service.outlook else {
        return vec![format!("{name} {} {change}", service.version)];
    };
    let version = match outlook.from {
        Some(from) if from != service.version => format!("{from} -> {}", service.version),
        Some(_) | None => service.version.to_string(),
    };
    let scaled = match outlook.was {
        Some(was) if was != outlook.wanted => {
            format!(", from {was} to {} instances", outlook.wanted)
        }
        Some(_) | None => String::new(),
    };
    let mut lines = vec![format!("{name} {version} {change}{scaled}")];
    for Difference { key, from, to } in &outlook.differences {
        let none = || "nothing".to_owned();
        let from = from.clone().unwrap_or_else(none);
        let to = to.clone().unwrap_or_else(none);
        lines.push(format!("    {key:<20} {from} -> {to}"));
    }
    if let Some(cron) = &outlook.schedule {
        lines.push(format!("  runs at `{cron}`, one run at a time"));
    }
    if let Some(rollout) = &outlook.rollout {
        lines.extend(steps(service, outlook, rollout));
    }
    lines
}

fn steps(
    service: &AppliedService,
    outlook: &ServiceOutlook,
    rollout: &RolloutOutlook,
) -> Vec<String> {
    let mut lines = Vec::new();
    let needs: Vec<String> = outlook
        .needs
        .iter()
        .map(|need| {
            let ready = if need.ready { "ready" } else { "not ready" };
            format!("{} ({ready})", need.service)
        })
        .collect();
    if !needs.is_empty() {
        lines.push(format!(
            "  needs one ready instance of {}",
            needs.join(", ")
        ));
    }
    if !rollout.before.is_empty() {
        lines.push(format!(
            "  before it runs once: {}",
            rollout.before.join(" ")
        ));
    }
    if rollout.canaries > 0 {
        lines.push(format!(
            "  canaries: {} beside all of the old, until `mainstay promote {}`",
            rollout.canaries, service.service
        ));
    }
    let hold = duration::display(std::time::Duration::from_millis(rollout.hold_ms));
    let pace = if rollout.step < outlook.wanted {
        format!("{} at a time", rollout.step)
    } else {
        "all at once".to_owned()
    };
    let failure = match (rollout.on_failure, outlook.from) {
        (Some(OnFailure::Rollback), Some(from)) => format!("; if one fails, back to {from}"),
        (Some(OnFailure::Rollback), None) => "; if one fails, back".to_owned(),
        (Some(OnFailure::Pause), _) => "; if one fails, it stays as it is".to_owned(),
        (None, _) => "; if one fails, it stays as it is: nothing to go back to".to_owned(),
    };
    let instances = match outlook.wanted {
        1 => "1 instance".to_owned(),
        many => format!("{many} instances"),
    };
    lines.push(format!(
        "  {instances}, {pace}, each {hold} healthy{failure}"
    ));
    lines
}

fn memory_line(memory: &MemoryOutlook) -> String {
    let mib = |bytes: u64| Bytes(bytes.next_multiple_of(1 << 20));
    let most = mib(memory.most_bytes);
    let node = memory.node_bytes.map(mib);
    let names: Vec<&str> = memory.unlimited.iter().map(ServiceName::as_str).collect();
    let unlimited = match names.as_slice() {
        [] => String::new(),
        names => format!(
            "; without `limits.memory`, so not known: {}",
            names.join(", ")
        ),
    };
    if memory.most_bytes == 0 {
        return format!(
            "memory: not limited, so what is needed is not known: {}",
            names.join(", ")
        );
    }
    match (node, memory.fits()) {
        (None, _) => format!(
            "memory: at most {most} by the limits; the node has not told how much it has{unlimited}"
        ),
        (Some(node), Some(false)) => format!(
            "memory: at most {most} by the limits, more than the {node} of the node: a rollout starts fewer at a time{unlimited}"
        ),
        (Some(node), Some(true)) => {
            format!("memory: at most {most} by the limits, which fits the {node} of the node")
        }
        (Some(node), None) => {
            format!("memory: at most {most} by the limits, of the {node} of the node{unlimited}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_value_from_the_environment_is_shown_as_the_file_has_it_and_what_was_there_is_not() {
        let variables = Variables(BTreeMap::from([
            ("DB_PASSWORD".to_owned(), "hunter{2}\"".to_owned()),
            ("SHORT".to_owned(), "b".to_owned()),
        ]));
        let mut env = Difference {
            key: "env.DB".to_owned(),
            from: Some("\"db:hunter1\"".to_owned()),
            to: Some("\"db:hunter{{2}}\\\"\"".to_owned()),
        };
        hide(&mut env, &variables);
        assert_eq!(env.to.as_deref(), Some("\"db:${DB_PASSWORD}\""));
        assert_eq!(env.from.as_deref(), Some("another value"));
        let mut plain = Difference {
            key: "dir".to_owned(),
            from: Some("\"/a\"".to_owned()),
            to: Some("\"/b\"".to_owned()),
        };
        hide(&mut plain, &variables);
        assert_eq!(plain.to.as_deref(), Some("\"/b\""));
        assert_eq!(plain.from.as_deref(), Some("\"/a\""));
    }
}
