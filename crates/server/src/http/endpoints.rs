//! One function per path.

use std::sync::Arc;

use axum::Json as Answer;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{delete, get, post};
use http::{Method, StatusCode, Uri};
use mainstay_api::wire::{
    Accepted, Applied, Apply, InstanceStatus, ProblemCode, Rollback, Scale, ServiceStatus, Status,
};
use mainstay_control::Input;
use mainstay_ids::{ConsumerId, Incarnation, NodeName, ServiceName};
use mainstay_model::routing::Farewell;
use mainstay_model::{Ack, NodeReport, ServiceSpec};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::refusal::Refused;
use super::request::{Asked, Json, Named};
use super::secrets;
use super::stream::{self, Beat, Follow, Wanted};
use crate::handle::Handle;
use crate::secrets::Secrets;
use crate::views;

/// How many answers may go on at a time: a gateway and an agent with their successors, some
/// terminals that follow events, and the open pages of a dashboard. Each holds one state's line.
const STREAMS_MAX: usize = 64;

/// The longest name of a consumer; `gateway` has seven.
const CONSUMER_NAME_LEN_MAX: usize = 63;

/// How much of a farewell's reason is logged.
const REASON_LEN_MAX: usize = 200;

/// What the endpoints share.
#[derive(Clone)]
pub(crate) struct Api {
    pub(super) handle: Handle,
    pub(super) secrets: Secrets,
    node: NodeName,
    stop: CancellationToken,
    streams: Arc<Semaphore>,
}

pub(super) type Answered<T> = Result<Answer<T>, Refused>;

impl Api {
    /// Endpoints that ask `handle`; streams end with `stop`.
    pub(crate) fn new(
        handle: Handle,
        secrets: Secrets,
        node: NodeName,
        stop: CancellationToken,
    ) -> Self {
        Self {
            handle,
            secrets,
            node,
            stop,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        }
    }

    /// The table of paths.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/v1/status", get(status))
            .route("/v1/services", get(services).post(apply))
            .route("/v1/services/{name}", delete(remove))
            .route("/v1/services/{name}/spec", get(spec))
            .route("/v1/services/{name}/scale", post(scale))
            .route("/v1/services/{name}/rollback", post(rollback))
            .route("/v1/instances", get(instances))
            .route("/v1/events", get(events))
            .route("/v1/watch/routes", get(watch_routes))
            .route("/v1/watch/plan", get(watch_plan))
            .route("/v1/consumers/ack", post(ack))
            .route("/v1/consumers/farewell", post(farewell))
            .route("/v1/nodes/report", post(report))
            .route("/v1/shutdown", post(shutdown))
            .merge(secrets::router())
            .fallback(no_such_path)
            .method_not_allowed_fallback(no_such_method)
            .with_state(self)
    }

    /// A place among the streams.
    fn beat(&self) -> Result<Beat, Refused> {
        let Ok(place) = self.streams.clone().try_acquire_owned() else {
            let message = format!("{STREAMS_MAX} watches are open already");
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return Err(Refused::new(status, ProblemCode::Conflict, message)
                .with_remedy("close one of them"));
        };
        Ok(Beat::new(self.stop.clone(), place))
    }

    /// Hands in an input of which only the acceptance counts.
    async fn hand_in(&self, input: Input) -> Answered<Accepted> {
        let reply = self.handle.hand_in(input).await?;
        Ok(Answer(views::accepted(&reply)))
    }
}

async fn status(State(api): State<Api>) -> Answered<Status> {
    Ok(Answer(api.handle.read(views::status).await?))
}

async fn services(State(api): State<Api>) -> Answered<Vec<ServiceStatus>> {
    Ok(Answer(api.handle.read(views::services).await?))
}

async fn instances(State(api): State<Api>) -> Answered<Vec<InstanceStatus>> {
    Ok(Answer(api.handle.read(views::instances).await?))
}

async fn apply(State(api): State<Api>, Json(apply): Json<Apply>) -> Answered<Applied> {
    let Apply { services, dry_run } = apply;
    api.secrets.check(&services).await?;
    let declared = mainstay_control::Apply { services };
    let input = if dry_run {
        Input::DryRun(declared)
    } else {
        Input::Apply(declared)
    };
    Ok(Answer(views::applied(api.handle.hand_in(input).await?)))
}

async fn spec(State(api): State<Api>, Named(service): Named) -> Answered<ServiceSpec> {
    let name = service.clone();
    let found = api
        .handle
        .read(move |view| views::spec(view, &name))
        .await?;
    found.map(Answer).ok_or_else(|| {
        let message = format!("there is no service `{service}`");
        Refused::new(StatusCode::NOT_FOUND, ProblemCode::NotFound, message)
    })
}

async fn scale(
    State(api): State<Api>,
    Named(service): Named,
    Json(Scale { instances }): Json<Scale>,
) -> Answered<Accepted> {
    api.hand_in(Input::Scale { service, instances }).await
}

async fn rollback(
    State(api): State<Api>,
    Named(service): Named,
    Json(Rollback { to }): Json<Rollback>,
) -> Answered<Accepted> {
    api.hand_in(Input::Rollback { service, to }).await
}

async fn remove(State(api): State<Api>, Named(service): Named) -> Answered<Accepted> {
    api.hand_in(Input::Remove { service }).await
}

async fn shutdown(State(api): State<Api>) -> Answered<Accepted> {
    api.hand_in(Input::StopAll).await
}

async fn report(State(api): State<Api>, Json(report): Json<NodeReport>) -> Answered<Accepted> {
    api.hand_in(Input::Report(report)).await
}

async fn ack(State(api): State<Api>, Json(ack): Json<Ack>) -> Answered<Accepted> {
    check_consumer(&ack.consumer)?;
    api.hand_in(Input::Ack(ack)).await
}

async fn farewell(State(api): State<Api>, Json(farewell): Json<Farewell>) -> Answered<Accepted> {
    let Farewell { consumer, reason } = farewell;
    check_consumer(&consumer)?;
    let reason: String = reason.chars().take(REASON_LEN_MAX).collect();
    tracing::info!(%consumer, reason, "a consumer says farewell");
    api.hand_in(Input::Farewell(consumer)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoutesQuery {
    name: String,
    incarnation: Incarnation,
}

async fn watch_routes(
    State(api): State<Api>,
    Asked(RoutesQuery { name, incarnation }): Asked<RoutesQuery>,
) -> Result<Response, Refused> {
    let consumer = ConsumerId { name, incarnation };
    check_consumer(&consumer)?;
    let beat = api.beat()?;
    // Known before it can see a route: from here on no drain ends without it.
    api.handle.hand_in(Input::ConsumerJoined(consumer)).await?;
    Ok(stream::states(beat, api.handle.routing()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanQuery {
    node: NodeName,
    incarnation: Incarnation,
}

async fn watch_plan(
    State(api): State<Api>,
    Asked(PlanQuery { node, incarnation }): Asked<PlanQuery>,
) -> Result<Response, Refused> {
    if node != api.node {
        let message = format!("node `{node}` is not part of this cluster");
        return Err(Refused::new(
            StatusCode::NOT_FOUND,
            ProblemCode::NotFound,
            message,
        ));
    }
    tracing::info!(%node, incarnation = incarnation.0, "an agent follows its plan");
    Ok(stream::states(api.beat()?, api.handle.plan()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    follow: bool,
    service: Option<ServiceName>,
}

async fn events(
    State(api): State<Api>,
    Asked(EventsQuery {
        after,
        follow,
        service,
    }): Asked<EventsQuery>,
) -> Result<Response, Refused> {
    let follow = if follow { Follow::Yes } else { Follow::No };
    let wanted = Wanted {
        after,
        service,
        follow,
    };
    Ok(stream::events(api.beat()?, api.handle.clone(), wanted))
}

async fn no_such_path(uri: Uri) -> Refused {
    let message = format!("there is no path `{}`", uri.path());
    Refused::new(StatusCode::NOT_FOUND, ProblemCode::NotFound, message)
}

async fn no_such_method(method: Method, uri: Uri) -> Refused {
    let message = format!("`{}` does not take {method}", uri.path());
    Refused::new(
        StatusCode::METHOD_NOT_ALLOWED,
        ProblemCode::BadRequest,
        message,
    )
}

fn check_consumer(consumer: &ConsumerId) -> Result<(), Refused> {
    let name = &consumer.name;
    if name.is_empty() || name.len() > CONSUMER_NAME_LEN_MAX || name.chars().any(char::is_control) {
        let message = format!("a consumer's name has 1 to {CONSUMER_NAME_LEN_MAX} characters");
        return Err(Refused::bad_request(message));
    }
    Ok(())
}
