//! One function per path.

use std::sync::{Arc, LazyLock};

use axum::Json as Answer;
use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use bytes::Bytes;
use http::{Uri, header};
use mainstay_api::calls::{Access, CALLS, Call, Effect, Method, Name};
use mainstay_api::wire::{
    Accepted, Applied, Apply, Backup, DirectoryQuery, EventsQuery, InstanceStatus, PlanQuery,
    ProblemCode, Rollback, RoutesQuery, Scale, ServiceStatus, SetIntake, Status, WhyQuery,
};
use mainstay_control::{Input, IntakeWish, LastOne};
use mainstay_ids::{ConsumerId, NodeName};
use mainstay_model::routing::Farewell;
use mainstay_model::{Ack, BackupNews, NodeReport, ServiceSpec, Why};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::admission::{Caller, Standing};
use super::refusal::Refused;
use super::request::{Asked, Json, Named, NamedInstance};
use super::secrets;
use super::stream::{self, Beat, Follow, Wanted};
use crate::handle::Handle;
use crate::safekeeping::Copier;
use crate::secrets::Secrets;
use crate::views;

/// How many answers may go on at a time: a gateway and an agent with their successors, some
/// terminals that follow events, and the open pages of a dashboard. Each holds one state's line.
const STREAMS_MAX: usize = 64;

/// The longest name of a consumer; `gateway` has seven.
const CONSUMER_NAME_LEN_MAX: usize = 63;

/// How much of what is said of backups is recorded: two paths, and why the last one failed.
const SAID_LEN_MAX: usize = 4000;

/// How much of a farewell's reason is logged.
const REASON_LEN_MAX: usize = 200;

/// What the endpoints share.
#[derive(Clone)]
pub(crate) struct Api {
    pub(super) handle: Handle,
    pub(super) secrets: Secrets,
    copier: Copier,
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
        copier: Copier,
        node: NodeName,
        stop: CancellationToken,
    ) -> Self {
        Self {
            handle,
            secrets,
            copier,
            node,
            stop,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        }
    }

    /// The table of calls as a router. A path of several methods is merged by it.
    pub(crate) fn router(self) -> Router {
        let mut router = Router::new();
        for call in CALLS {
            let mut endpoint = endpoint(call);
            if call.access == Access::UnixSocket {
                endpoint = endpoint.layer(from_fn(admit_own_processes));
            }
            if call.effect == Effect::Changes {
                endpoint = endpoint.layer(from_fn(record));
            }
            router = router.route(call.path, endpoint);
        }
        router
            .fallback(no_such_path)
            .method_not_allowed_fallback(no_such_method)
            .with_state(self)
    }

    /// A place among the streams.
    fn beat(&self) -> Result<Beat, Refused> {
        let Ok(place) = self.streams.clone().try_acquire_owned() else {
            let message = format!("{STREAMS_MAX} watches are open already");
            return Err(Refused::new(ProblemCode::TooManyWatches, message));
        };
        Ok(Beat::new(self.stop.clone(), place))
    }

    /// Hands in an input of which only the acceptance counts.
    async fn hand_in(&self, input: Input) -> Answered<Accepted> {
        let reply = self.handle.hand_in(input).await?;
        Ok(Answer(views::accepted(&reply)))
    }
}

/// The function that answers a call, on its method.
fn endpoint(call: &Call) -> MethodRouter<Api> {
    let method = match call.method {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Put => MethodFilter::PUT,
        Method::Delete => MethodFilter::DELETE,
    };
    match call.name {
        Name::Status => on(method, status),
        Name::Services => on(method, services),
        Name::Apply => on(method, apply),
        Name::Remove => on(method, remove),
        Name::Spec => on(method, spec),
        Name::Scale => on(method, scale),
        Name::Rollback => on(method, rollback),
        Name::Pause => on(method, pause),
        Name::Resume => on(method, resume),
        Name::Promote => on(method, promote),
        Name::Instances => on(method, instances),
        Name::SetIntake => on(method, set_intake),
        Name::Secrets => on(method, secrets::list),
        Name::SetSecret => on(method, secrets::set),
        Name::RemoveSecret => on(method, secrets::remove),
        Name::OpenSecret => on(method, secrets::value),
        Name::Events => on(method, events),
        Name::WhyService => on(method, why_service),
        Name::WhyInstance => on(method, why_instance),
        Name::Shutdown => on(method, shutdown),
        Name::Backup => on(method, backup),
        Name::OpenApi => on(method, openapi),
        Name::WatchRoutes => on(method, watch_routes),
        Name::Acknowledge => on(method, ack),
        Name::Farewell => on(method, farewell),
        Name::WatchPlan => on(method, watch_plan),
        Name::WatchDirectory => on(method, watch_directory),
        Name::Report => on(method, report),
        Name::Backups => on(method, backups),
    }
}

/// What only Mainstay's own processes may call, which use the unix socket and run as its account.
async fn admit_own_processes(
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Result<Response, Refused> {
    let path = request.uri().path();
    match caller {
        Caller::Account {
            standing: Standing::Owner,
            ..
        } => Ok(next.run(request).await),
        Caller::Account { uid, .. } => Err(Refused::new(
            ProblemCode::AccountRefused,
            format!("`{path}` is for Mainstay's own processes, not for account {uid}"),
        )),
        Caller::Loopback { .. } => Err(Refused::new(
            ProblemCode::SocketOnly,
            format!("`{path}` is answered on the unix socket alone"),
        )),
    }
}

/// Writes down who asked for a change, and what became of it.
async fn record(Extension(caller): Extension<Caller>, request: Request, next: Next) -> Response {
    let call = format!("{} {}", request.method(), request.uri().path());
    let answer = next.run(request).await;
    tracing::info!(by = %caller, status = answer.status().as_u16(), "{call}");
    answer
}

async fn openapi() -> impl IntoResponse {
    /// Made once: it is the same for the life of the program.
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
        let document = mainstay_api::openapi::document();
        serde_json::to_vec(&document)
            .expect("a value is JSON")
            .into()
    });
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (content_type, DOCUMENT.clone())
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
        Refused::new(ProblemCode::ServiceUnknown, message)
    })
}

async fn why_service(
    State(api): State<Api>,
    Named(service): Named,
    Asked(WhyQuery { at }): Asked<WhyQuery>,
) -> Answered<Why> {
    let name = service.clone();
    let why = api
        .handle
        .read(move |view| views::why_service(view, &name, at));
    why.await?.map(Answer).ok_or_else(|| {
        let message = format!("there is no service `{service}`");
        Refused::new(ProblemCode::ServiceUnknown, message)
    })
}

async fn why_instance(
    State(api): State<Api>,
    NamedInstance(instance): NamedInstance,
) -> Answered<Why> {
    let id = instance.clone();
    let why = api.handle.read(move |view| views::why_instance(view, &id));
    why.await?.map(Answer).ok_or_else(|| {
        let message =
            format!("there is no instance `{instance}`, and nothing is remembered of one");
        Refused::new(ProblemCode::InstanceUnknown, message)
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

async fn pause(State(api): State<Api>, Named(service): Named) -> Answered<Accepted> {
    api.hand_in(Input::Pause { service }).await
}

async fn resume(State(api): State<Api>, Named(service): Named) -> Answered<Accepted> {
    api.hand_in(Input::Resume { service }).await
}

async fn promote(State(api): State<Api>, Named(service): Named) -> Answered<Accepted> {
    api.hand_in(Input::Promote { service }).await
}

async fn set_intake(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    NamedInstance(instance): NamedInstance,
    Json(wish): Json<SetIntake>,
) -> Answered<Accepted> {
    let SetIntake {
        state,
        weight,
        force,
        asked_by,
    } = wish;
    if state.is_none() && weight.is_none() {
        let message = "nothing is asked for: expected `state`, `weight` or both";
        return Err(Refused::new(ProblemCode::FieldInvalid, message));
    }
    let wish = IntakeWish {
        instance,
        state,
        weight,
        last: if force {
            LastOne::Take
        } else {
            LastOne::Refuse
        },
        by: on_behalf(caller, asked_by),
    };
    api.hand_in(Input::SetIntake(wish)).await
}

/// Who asked, for the record: Mainstay's own processes are believed for whom.
fn on_behalf(caller: Caller, asked_by: Option<String>) -> String {
    match (caller, asked_by) {
        (_, None) => caller.to_string(),
        (
            Caller::Account {
                standing: Standing::Owner,
                ..
            },
            Some(whom),
        ) => whom,
        (_, Some(whom)) => format!("{caller}, for {whom}"),
    }
}

async fn remove(State(api): State<Api>, Named(service): Named) -> Answered<Accepted> {
    api.hand_in(Input::Remove { service }).await
}

async fn shutdown(State(api): State<Api>) -> Answered<Accepted> {
    api.hand_in(Input::StopAll).await
}

async fn backup(State(api): State<Api>) -> Answered<Backup> {
    Ok(Answer(api.copier.copy().await?))
}

async fn report(State(api): State<Api>, Json(report): Json<NodeReport>) -> Answered<Accepted> {
    api.hand_in(Input::Report(report)).await
}

async fn backups(State(api): State<Api>, Json(news): Json<BackupNews>) -> Answered<Accepted> {
    let said = news.said.chars().take(SAID_LEN_MAX).collect();
    api.hand_in(Input::Backups(BackupNews { said, ..news }))
        .await
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

async fn watch_routes(
    State(api): State<Api>,
    Asked(RoutesQuery {
        name,
        incarnation,
        after,
    }): Asked<RoutesQuery>,
) -> Result<Response, Refused> {
    let consumer = ConsumerId { name, incarnation };
    check_consumer(&consumer)?;
    let beat = api.beat()?;
    // Known before it can see a route: from here on no drain ends without it.
    api.handle.hand_in(Input::ConsumerJoined(consumer)).await?;
    Ok(stream::states(beat, api.handle.routing(), after))
}

async fn watch_plan(
    State(api): State<Api>,
    Asked(PlanQuery {
        node,
        incarnation,
        after,
    }): Asked<PlanQuery>,
) -> Result<Response, Refused> {
    if node != api.node {
        let message = format!("node `{node}` is not part of this cluster");
        return Err(Refused::new(ProblemCode::NodeUnknown, message));
    }
    tracing::info!(%node, incarnation = incarnation.0, "an agent follows its plan");
    Ok(stream::states(api.beat()?, api.handle.plan(), after))
}

async fn watch_directory(
    State(api): State<Api>,
    Asked(DirectoryQuery { after }): Asked<DirectoryQuery>,
) -> Result<Response, Refused> {
    Ok(stream::states(api.beat()?, api.handle.directory(), after))
}

async fn events(
    State(api): State<Api>,
    Asked(EventsQuery {
        after,
        follow,
        service,
        instance,
        since,
    }): Asked<EventsQuery>,
) -> Result<Response, Refused> {
    let follow = if follow { Follow::Yes } else { Follow::No };
    let wanted = Wanted {
        after,
        service,
        instance,
        since,
        follow,
    };
    Ok(stream::events(api.beat()?, api.handle.clone(), wanted))
}

async fn no_such_path(uri: Uri) -> Refused {
    let message = format!("there is no path `{}`", uri.path());
    Refused::new(ProblemCode::PathUnknown, message)
}

async fn no_such_method(method: http::Method, uri: Uri) -> Refused {
    let message = format!("`{}` does not take {method}", uri.path());
    Refused::new(ProblemCode::MethodNotAllowed, message)
}

fn check_consumer(consumer: &ConsumerId) -> Result<(), Refused> {
    let name = &consumer.name;
    if name.is_empty() || name.len() > CONSUMER_NAME_LEN_MAX || name.chars().any(char::is_control) {
        let message = format!("a consumer's name has 1 to {CONSUMER_NAME_LEN_MAX} characters");
        return Err(Refused::new(ProblemCode::ConsumerNameInvalid, message));
    }
    Ok(())
}
