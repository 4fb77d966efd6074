//! The paths of secrets. Values come in; they go out to this machine's agent alone.

use axum::Json as Answer;
use axum::extract::{FromRequestParts, Path, State};
use http::request::Parts;
use mainstay_api::wire::{
    ProblemCode, SecretRemoveQuery, SecretRemoved, SecretSet, SecretStatus, SecretValue,
};
use mainstay_ids::{SecretName, ServiceName};
use mainstay_model::secret::SecretText;

use super::endpoints::{Answered, Api};
use super::refusal::Refused;
use super::request::{Asked, Json};
use crate::secrets;

/// The secret that the path names.
pub(super) struct Secret(SecretName);

impl<S: Send + Sync> FromRequestParts<S> for Secret {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let Path(name) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Refused::new(ProblemCode::NameInvalid, rejection.body_text()))?;
        SecretName::parse(&name).map(Self).map_err(|error| {
            let message = format!("`{name}` is not a secret's name: {error}");
            Refused::new(ProblemCode::NameInvalid, message)
        })
    }
}

pub(super) async fn list(State(api): State<Api>) -> Answered<Vec<SecretStatus>> {
    let listed = api.secrets.list().await?;
    let mut users = api.handle.read(secrets_in_use).await?;
    let secrets = listed.into_iter().map(|secret| SecretStatus {
        used_by: users.remove(&secret.name).unwrap_or_default(),
        name: secret.name,
        revision: secret.revision,
        changed: secret.changed,
    });
    Ok(Answer(secrets.collect()))
}

/// The body is looked at by hand: what a decoder says of a wrong one would repeat the value.
pub(super) async fn set(
    State(api): State<Api>,
    Secret(name): Secret,
    Json(body): Json<serde_json::Value>,
) -> Answered<SecretSet> {
    let text = match body {
        serde_json::Value::Object(mut fields) if fields.len() == 1 => fields.remove("value"),
        _ => None,
    };
    let Some(serde_json::Value::String(text)) = text else {
        let message =
            "the body is wrong: expected an object with the text `value` and nothing else";
        return Err(Refused::new(ProblemCode::FieldInvalid, message));
    };
    let value = SecretText::new(text).map_err(|error| {
        let message = format!("cannot set the secret `{name}`: {error}");
        Refused::new(ProblemCode::SecretInvalid, message)
    })?;
    let revision = api.secrets.set(name.clone(), value).await?;
    tracing::info!(secret = %name, revision, "a secret was set");
    let used_by = users_of(&api, &name).await?;
    Ok(Answer(SecretSet { revision, used_by }))
}

pub(super) async fn remove(
    State(api): State<Api>,
    Secret(name): Secret,
    Asked(SecretRemoveQuery { force }): Asked<SecretRemoveQuery>,
) -> Answered<SecretRemoved> {
    let used_by = users_of(&api, &name).await?;
    if let (Some(first), false) = (used_by.first(), force) {
        let others = match used_by.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let message = format!("the secret `{name}` is used by `{first}`{others}");
        return Err(Refused::new(ProblemCode::SecretInUse, message));
    }
    if !api.secrets.remove(name.clone()).await? {
        return Err(missing(&name));
    }
    tracing::info!(secret = %name, "a secret was removed");
    Ok(Answer(SecretRemoved { used_by }))
}

/// For the agent alone: the table of calls lets nobody else in.
pub(super) async fn value(State(api): State<Api>, Secret(name): Secret) -> Answered<SecretValue> {
    match api.secrets.open(name.clone()).await? {
        Some(value) => Ok(Answer(SecretValue { value })),
        None => Err(missing(&name)),
    }
}

fn missing(name: &SecretName) -> Refused {
    let message = format!("there is no secret `{name}`");
    Refused::new(ProblemCode::SecretUnknown, message)
}

async fn users_of(api: &Api, name: &SecretName) -> Result<Vec<ServiceName>, Refused> {
    let mut users = api.handle.read(secrets_in_use).await?;
    Ok(users.remove(name).unwrap_or_default())
}

fn secrets_in_use(
    view: &crate::views::View<'_>,
) -> std::collections::BTreeMap<SecretName, Vec<ServiceName>> {
    let wanted = view.control.services().map(|service| service.spec);
    let planned = view.control.plan().instances.iter();
    secrets::users(wanted.chain(planned.map(|planned| &planned.spec)))
}
