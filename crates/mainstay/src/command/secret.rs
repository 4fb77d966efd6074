//! `mainstay secret set|ls|rm`: values come from standard input, and none is ever shown.

use std::io::{IsTerminal as _, Read as _};

use anyhow::Context as _;
use mainstay_api::wire::{SecretRemoved, SecretSet, SecretStatus, SecretValue};
use mainstay_ids::{SecretName, ServiceName};
use mainstay_model::secret::{SECRET_LEN_MAX, SecretText};

use super::{client, print_table, table};
use crate::arguments::{Place, Secret};
use crate::clock;
use crate::outcome::{Failure, Outcome};
use crate::{output, prompt};

pub(crate) async fn run(place: &Place, secret: Secret) -> anyhow::Result<Outcome> {
    match secret {
        Secret::Set { name } => set(place, name).await,
        Secret::Ls => list(place).await,
        Secret::Rm { name, force } => {
            let force = if force { Force::Yes } else { Force::No };
            remove(place, name, force).await
        }
    }
}

async fn set(place: &Place, name: SecretName) -> anyhow::Result<Outcome> {
    let text = if std::io::stdin().is_terminal() {
        prompt::without_echo(&format!("value of `{name}` (it is not shown): ")).await?
    } else {
        piped()?
    };
    let value = SecretText::new(text).map_err(|error| {
        let message = format!("cannot set the secret `{name}`: {error}");
        Failure::new(Outcome::WrongInput, message)
            .remedy(format!("for instance `mainstay secret set {name} < FILE`"))
    })?;
    let path = format!("/v1/secrets/{name}");
    let set: SecretSet = client(place).put(&path, &SecretValue { value }).await?;
    if place.json {
        output::json(&set)?;
        return Ok(Outcome::Holds);
    }
    output::tell(format_args!("{name} revision {}", set.revision));
    if !set.used_by.is_empty() {
        output::tell(format_args!(
            "used by {}; an instance takes the new value at its next start",
            list_of(&set.used_by)
        ));
    }
    Ok(Outcome::Holds)
}

/// All of standard input, without the end of its last line.
fn piped() -> anyhow::Result<String> {
    let mut text = String::new();
    // One more than may be, with the end of a line: what is longer is refused as that.
    let most = u64::try_from(SECRET_LEN_MAX + 3).unwrap_or(u64::MAX);
    std::io::stdin()
        .take(most)
        .read_to_string(&mut text)
        .context("cannot read the value from standard input as text")?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

async fn list(place: &Place) -> anyhow::Result<Outcome> {
    let secrets: Vec<SecretStatus> = client(place).get("/v1/secrets").await?;
    if place.json {
        output::json(&secrets)?;
        return Ok(Outcome::Holds);
    }
    let mut rows = table(&["SECRET", "REVISION", "CHANGED", "USED BY"]);
    let now = clock::now();
    for secret in &secrets {
        rows.add_row([
            secret.name.to_string(),
            secret.revision.to_string(),
            format!("{} ago", super::ps::age(secret.changed, now)),
            match secret.used_by.as_slice() {
                [] => "-".to_owned(),
                services => list_of(services),
            },
        ]);
    }
    print_table(&rows)?;
    Ok(Outcome::Holds)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Force {
    Yes,
    No,
}

async fn remove(place: &Place, name: SecretName, force: Force) -> anyhow::Result<Outcome> {
    let path = match force {
        Force::Yes => format!("/v1/secrets/{name}?force=true"),
        Force::No => format!("/v1/secrets/{name}"),
    };
    let removed: SecretRemoved = client(place).delete(&path).await?;
    if place.json {
        output::json(&removed)?;
        return Ok(Outcome::Holds);
    }
    output::tell(format_args!("{name} removed"));
    if !removed.used_by.is_empty() {
        output::warn(format_args!(
            "note: {} still name it: what runs goes on, and nothing of them can be started",
            list_of(&removed.used_by)
        ));
    }
    Ok(Outcome::Holds)
}

fn list_of(services: &[ServiceName]) -> String {
    let names: Vec<_> = services.iter().map(ServiceName::as_str).collect();
    names.join(", ")
}
