//! `mainstay queue policy`.

use anyhow::Context as _;
use mainstay_broker::view::{Answer, Ask, Policy};

use super::{ask, print_table, simple, table, unexpected};
use crate::arguments::{Place, PolicyDeed, PolicySaid};
use crate::outcome::Outcome;
use crate::output;

pub(super) fn run(place: &Place, deed: PolicyDeed) -> anyhow::Result<Outcome> {
    match deed {
        PolicyDeed::Ls { vhost } => ls(place, vhost),
        PolicyDeed::Set(said) => set(place, said),
        PolicyDeed::Rm { name, of } => {
            let vhost = of.vhost;
            simple(place, &Ask::RemovePolicy { vhost, name })
        }
    }
}

/// Says that a policy is taken and not all that it asks for is there.
pub(super) fn tell_copies(name: &str) {
    output::warn(format_args!(
        "policy `{name}` asks for copies on other machines: it is taken, and there is one copy, on this machine"
    ));
}

fn ls(place: &Place, vhost: Option<String>) -> anyhow::Result<Outcome> {
    let Answer::Policies { policies } = ask(place, &Ask::Policies { vhost })? else {
        return unexpected();
    };
    if place.json {
        output::json(&policies)?;
        return Ok(Outcome::Holds);
    }
    let mut rows = table(&[
        "VHOST",
        "POLICY",
        "PATTERN",
        "APPLY TO",
        "PRIORITY",
        "DEFINITION",
    ]);
    for policy in policies {
        let Policy {
            vhost,
            name,
            pattern,
            applies_to,
            definition,
            priority,
        } = policy;
        let (priority, definition) = (priority.to_string(), definition.to_string());
        rows.add_row([vhost, name, pattern, applies_to, priority, definition]);
    }
    print_table(&rows)?;
    Ok(Outcome::Holds)
}

fn set(place: &Place, said: PolicySaid) -> anyhow::Result<Outcome> {
    let PolicySaid {
        name,
        pattern,
        definition,
        priority,
        apply_to,
        of,
    } = said;
    let policy = Policy {
        vhost: of.vhost,
        name,
        pattern,
        applies_to: apply_to,
        definition: serde_json::from_str(&definition).context("`--definition` is no JSON")?,
        priority,
    };
    let copies = policy.asks_for_copies().then(|| policy.name.clone());
    let outcome = simple(place, &Ask::SetPolicy { policy })?;
    if let Some(name) = copies {
        tell_copies(&name);
    }
    Ok(outcome)
}
