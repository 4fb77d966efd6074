//! What a request brings: its body, its query and the name in its path, each refused with the place
//! of what is wrong.

use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts, Path, Query};
use bytes::{Bytes, BytesMut};
use http::Request;
use http::request::Parts;
use http_body_util::BodyExt as _;
use mainstay_api::wire::{BODY_LEN_MAX, ProblemCode};
use mainstay_ids::{InstanceId, ServiceName};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::refusal::Refused;

/// How long a body may take: it comes from this machine, and 4 MiB take some milliseconds.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// How much of a body that is too large is read and thrown away, so that its sender gets to read
/// the refusal instead of a broken pipe.
const BODY_LEN_DISCARDED_MAX: usize = 16 * BODY_LEN_MAX;

/// A JSON body as a `T`.
pub(super) struct Json<T>(pub(super) T);

/// The query as a `T`.
pub(super) struct Asked<T>(pub(super) T);

/// The service that the path names.
pub(super) struct Named(pub(super) ServiceName);

/// The instance that the path names.
pub(super) struct NamedInstance(pub(super) InstanceId);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Refused;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, Refused> {
        let body = tokio::time::timeout(BODY_DEADLINE, collect(request.into_body()))
            .await
            .map_err(|_| {
                let message = format!("the body did not come within {BODY_DEADLINE:?}");
                Refused::new(ProblemCode::BodyLate, message)
            })??;
        parse(&body).map(Self)
    }
}

async fn collect(mut body: Body) -> Result<Bytes, Refused> {
    let mut whole = BytesMut::new();
    let mut len = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Refused::new(ProblemCode::BodyBroken, format!("the body broke: {error}"))
        })?;
        let Ok(chunk) = frame.into_data() else {
            continue;
        };
        len += chunk.len();
        if len <= BODY_LEN_MAX {
            whole.extend_from_slice(&chunk);
        } else if len > BODY_LEN_DISCARDED_MAX || body.is_end_stream() {
            break;
        } else {
            whole.clear();
        }
    }
    if len <= BODY_LEN_MAX {
        return Ok(whole.freeze());
    }
    Err(Refused::new(
        ProblemCode::BodyTooLarge,
        format!("the body is longer than {BODY_LEN_MAX} bytes"),
    ))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        let (code, message) = match (error.classify(), path.as_str()) {
            (Category::Data, "." | "") => (
                ProblemCode::FieldInvalid,
                format!("the body is wrong: {error}"),
            ),
            (Category::Data, _) => (
                ProblemCode::FieldInvalid,
                format!("`{path}` is wrong: {error}"),
            ),
            (Category::Io | Category::Syntax | Category::Eof, _) => not_json(&error),
        };
        Refused::new(code, message)
    })?;
    json.end().map_err(|error| {
        let (code, message) = not_json(&error);
        Refused::new(code, message)
    })?;
    Ok(value)
}

fn not_json(error: &serde_json::Error) -> (ProblemCode, String) {
    let message = format!("the body is not JSON: {error}");
    (ProblemCode::BodyNotJson, message)
}

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(rejection) => Err(Refused::new(
                ProblemCode::QueryInvalid,
                format!("the query is wrong: {}", rejection.body_text()),
            )),
        }
    }
}

async fn name_in(parts: &mut Parts, state: &(impl Send + Sync)) -> Result<String, Refused> {
    let Path(name) = Path::<String>::from_request_parts(parts, state)
        .await
        .map_err(|rejection| Refused::new(ProblemCode::NameInvalid, rejection.body_text()))?;
    Ok(name)
}

impl<S: Send + Sync> FromRequestParts<S> for NamedInstance {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let name = name_in(parts, state).await?;
        match name.parse() {
            Ok(instance) => Ok(Self(instance)),
            Err(error) => Err(Refused::new(
                ProblemCode::NameInvalid,
                format!("`{name}` is not an instance's name: {error}"),
            )),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let name = name_in(parts, state).await?;
        match ServiceName::parse(&name) {
            Ok(name) => Ok(Self(name)),
            Err(error) => Err(Refused::new(
                ProblemCode::NameInvalid,
                format!("`{name}` is not a service's name: {error}"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_api::wire::{Apply, Scale};

    fn message<T: DeserializeOwned>(body: &str) -> String {
        let refused = parse::<T>(body.as_bytes()).err().expect("is refused");
        refused.problem().message.clone()
    }

    #[test]
    fn a_wrong_field_is_named_with_its_path() {
        let cases = [
            ("{\"services\":[{\"name\":7}]}", "`services[0].name`"),
            (
                "{\"services\":[{\"name\":\"Orders\"}]}",
                "`services[0].name`",
            ),
            ("{\"services\":[],\"dry_rum\":true}", "dry_rum"),
            ("{}", "missing field `services`"),
            ("{\"services\":[]", "not JSON"),
            ("{\"services\":[]} x", "not JSON"),
            ("", "not JSON"),
        ];
        for (body, part) in cases {
            let message = message::<Apply>(body);
            assert!(message.contains(part), "{body}: {message}");
        }
        let message = message::<Scale>("{\"instances\":-1}");
        assert!(message.contains("`instances`"), "{message}");
    }
}
