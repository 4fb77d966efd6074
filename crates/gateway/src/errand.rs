//! A request that has to be brought to some instance: the tries, and what may be tried again.
//!
//! Each try asks the worker's current view anew, and chooses and counts in one step; see
//! [`crate::endpoint::EndpointState::enter`].

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mainstay_control::balance::{
    Attempted, Body, FailureKind, MethodSafety, Outcome, RetryVerdict, TRIES_MAX, Tag,
};
use mainstay_http1::Response;
use mainstay_ids::Instant;
use mainstay_model::routing::Unavailable;
use mainstay_model::traffic::Trace;
use tokio::time::timeout;

use crate::answer::Visit;
use crate::exchange::{Exchange, NoAnswer, RequestBody, Source};
use crate::forwarded;
use crate::headers::{self, Alterations, Passage};
use crate::inbound::BodyFailure;
use crate::limits::{CONNECT_TIMEOUT, REACH_TIME, ROUND_PAUSE};
use crate::refusal::{Reason, Refusal};
use crate::rewrite::RewritePlan;
use crate::upstream::{Assurance, Upstream};
use crate::view::{Chosen, Finished, Flight, LocalEndpoint, LocalService, View};
use crate::worker::Worker;
use crate::{Retries, RetryRoutes};

/// What an errand ends with.
pub(crate) struct Delivered {
    pub(crate) response: Box<Response>,
    pub(crate) exchange: Exchange,
    pub(crate) flight: Flight,
}

/// What a try led to.
enum Step {
    Delivered(Box<Delivered>),
    Again,
    Refused(Refusal),
}

/// Why a try gave no answer.
#[derive(Debug, Clone, Copy)]
enum TryFailure {
    /// No connection came about, or it died before the request was sent.
    NotSent,
    /// It was sent, and the connection broke.
    Lost,
    /// It was sent, and the answer did not come in time.
    Expired,
    /// The client broke off its own body.
    Client(BodyFailure),
}

/// A request's head, with what it was made by.
struct Head {
    bytes: Bytes,
    trace: Trace,
    rewrite: Option<Arc<RewritePlan>>,
}

/// A request that has to be brought to some instance.
pub(crate) struct Errand {
    /// What the instance of the last try was sent. `None`: nothing yet.
    head: Option<Head>,
    /// The body between two tries. `None`: a try has it.
    body: Option<RequestBody>,
    safety: MethodSafety,
    /// Tries in which at least a part of it was sent. Others cost an endpoint nothing, and are
    /// bounded by time.
    sent: u32,
    /// When the first try failed, or the first wait for an endpoint began.
    trouble_since: Option<Instant>,
    /// Endpoints that have failed in this round.
    failed: Vec<Tag>,
    /// The endpoints at the first try; kept only with the test seam [`RetryRoutes::Keep`].
    first_endpoints: Vec<Rc<LocalEndpoint>>,
}

impl Errand {
    /// An errand for a checked request.
    pub(crate) fn new(visit: &Visit, source: Source) -> Self {
        let request = &visit.request;
        let replay_len = visit.client.worker.limits().replay_len as usize;
        Self {
            head: None,
            body: Some(RequestBody::new(source, request.framing, replay_len)),
            safety: MethodSafety::of(request.method_name()),
            sent: 0,
            trouble_since: None,
            failed: Vec::new(),
            first_endpoints: Vec::new(),
        }
    }

    /// Tries until an instance has begun to answer, or until trying again makes no sense.
    pub(crate) async fn run(mut self, visit: &mut Visit) -> Result<Box<Delivered>, Refusal> {
        let worker = Rc::clone(&visit.client.worker);
        worker.budget_request();
        loop {
            match self.attempt(visit, &worker).await {
                Step::Delivered(delivered) => return Ok(delivered),
                Step::Again => {}
                Step::Refused(refusal) => return Err(refusal),
            }
        }
    }

    /// One try: find the service, choose an endpoint, send.
    async fn attempt(&mut self, visit: &mut Visit, worker: &Worker) -> Step {
        let view = worker.view();
        let Some(service) = find(&view, visit) else {
            return Step::Refused(no_route(visit));
        };
        visit.service = Some(Rc::clone(&service.label));
        visit.counts = Some(Rc::clone(&service.counts));
        let sent = worker.clock.now();
        // From here to the begin of the flight there must be no await.
        let client = || forwarded::client(visit.way(), &visit.request);
        let wish = service.policy.wish(&visit.request, client, worker.random());
        let chosen = service.choose(sent, worker.random(), &self.failed, wish);
        let Some(chosen) = chosen.filter(|chosen| !self.failed.contains(&chosen.tag())) else {
            return self.wait(visit, service).await;
        };
        let endpoint = self.endpoint(visit, service, &chosen);
        let flight = Flight::begin(&endpoint);
        endpoint.shared.counters.requests.add(1);
        visit.endpoint = Some(Rc::clone(&endpoint));
        visit.tries += 1;
        visit.client.keep_deadlines(service.policy.timeouts);
        visit.alterations = Alterations {
            rewrite: service.policy.rewrite(endpoint.version).cloned(),
            cookie: service.policy.cookie(wish.bond, endpoint.handle.get()),
        };
        let head = self.head_for(visit, service);
        let result = self.send(&endpoint, visit, service, head).await;
        let try_ = Try {
            service,
            chosen,
            endpoint,
            sent,
            ended: worker.clock.now(),
        };
        match result {
            Ok((response, exchange)) => {
                visit.first_byte = Some(try_.ended);
                let delivered = Delivered {
                    response,
                    exchange,
                    flight,
                };
                self.judge(&try_, visit, delivered)
            }
            Err(failure) => self.fail(&try_, visit, failure),
        }
    }

    /// The endpoint of this try: the chosen one. With the test seam a retry goes to where the table
    /// of the first try pointed, which is what the drain must notice.
    fn endpoint(
        &mut self,
        visit: &Visit,
        service: &LocalService,
        chosen: &Chosen,
    ) -> Rc<LocalEndpoint> {
        match (visit.client.worker.seams.retry_routes, &visit.endpoint) {
            (RetryRoutes::Reread, _) => {}
            (RetryRoutes::Keep, None) => self.first_endpoints.clone_from(&service.endpoints),
            (RetryRoutes::Keep, Some(failed)) => {
                let mut others = self.first_endpoints.iter();
                if let Some(other) = others.find(|other| !Rc::ptr_eq(other, failed)) {
                    return Rc::clone(other);
                }
            }
        }
        Rc::clone(&chosen.endpoint)
    }

    /// The request's head as the chosen instance's version wants it: the one of the last try, unless
    /// that went to another version or by other rules.
    fn head_for(&mut self, visit: &Visit, service: &LocalService) -> Bytes {
        let (trace, rewrite) = (service.policy.trace, &visit.alterations.rewrite);
        let plan = rewrite.as_ref().map(Arc::as_ptr);
        if let Some(head) = &self.head
            && (head.trace, head.rewrite.as_ref().map(Arc::as_ptr)) == (trace, plan)
        {
            return head.bytes.clone();
        }
        let passage = Passage {
            id: &visit.id,
            way: visit.way(),
            trace,
            rewrite: rewrite.as_deref(),
        };
        let buffers = &visit.client.worker.buffers;
        let bytes = buffers.head(|out| headers::write_request(out, &visit.request, passage));
        self.head = Some(Head {
            bytes: bytes.clone(),
            trace,
            rewrite: rewrite.clone(),
        });
        bytes
    }

    /// Sends over an idle connection, or over a new one if none is alive.
    async fn send(
        &mut self,
        endpoint: &LocalEndpoint,
        visit: &Visit,
        service: &LocalService,
        head: Bytes,
    ) -> Result<(Box<Response>, Exchange), TryFailure> {
        let assurance = if self.is_repeatable(visit) {
            Assurance::Hint
        } else {
            Assurance::Look
        };
        while let Some(upstream) = endpoint.take_idle(assurance) {
            match self.exchange(upstream, visit, head.clone()).await {
                // It died in this moment; that is not the endpoint's failure.
                Err(TryFailure::NotSent) => {}
                result => return result,
            }
        }
        let clock = visit.client.worker.clock;
        let began = clock.now();
        let patience = service.policy.timeouts.connect.unwrap_or(CONNECT_TIMEOUT);
        match Upstream::connect(endpoint.shared.key.address, patience).await {
            Ok(upstream) => {
                let took = clock.now().since(began);
                endpoint.shared.counters.connect.record(took);
                if let Some(counts) = &visit.counts {
                    counts.connect.record(took);
                }
                self.exchange(upstream, visit, head).await
            }
            Err(error) => {
                endpoint.shared.counters.connect_failures.add(1);
                tracing::debug!(%error, instance = %endpoint.shared.key.instance, "cannot connect");
                Err(TryFailure::NotSent)
            }
        }
    }

    /// Sends the request on one connection, and waits for the head of the answer.
    async fn exchange(
        &mut self,
        upstream: Upstream,
        visit: &Visit,
        head: Bytes,
    ) -> Result<(Box<Response>, Exchange), TryFailure> {
        let client = &visit.client;
        let buffers = &client.worker.buffers;
        let mut body = self.body.take().ok_or(TryFailure::Lost)?;
        body.rewind();
        let mut exchange = Exchange::new(upstream, visit.request.method, head, body);
        let answered = poll_fn(|cx| exchange.poll_head(cx, buffers, || client.has_expired())).await;
        let failure = match answered {
            Ok(response) => return Ok((response, exchange)),
            Err(NoAnswer::NotSent) => TryFailure::NotSent,
            Err(NoAnswer::Lost(why)) => {
                tracing::debug!(
                    error = &why as &dyn std::error::Error,
                    "a request was lost in flight"
                );
                TryFailure::Lost
            }
            Err(NoAnswer::Client(failure)) => TryFailure::Client(failure),
            Err(NoAnswer::Expired) => TryFailure::Expired,
        };
        self.body = Some(exchange.into_body());
        Err(failure)
    }

    /// Whether the request may be sent again after it was lost, as far as it can be known before.
    fn is_repeatable(&self, visit: &Visit) -> bool {
        self.safety == MethodSafety::Safe
            && visit.request.upgrade().is_none()
            && self.body.as_ref().is_some_and(RequestBody::is_empty)
            && visit.client.worker.seams.retries == Retries::On
    }

    /// There is an answer; one of a gateway type may be better elsewhere, if there is an elsewhere.
    fn judge(&mut self, try_: &Try<'_>, visit: &Visit, delivered: Delivered) -> Step {
        self.sent += 1;
        let worker = visit.client.worker.as_ref();
        let status = delivered.response.status;
        let outcome = Outcome::of_status(status);
        try_.learn(worker, outcome);
        let has_other = try_.service.endpoints.len() > self.failed.len() + 1;
        let failure = FailureKind::Answered(status);
        if outcome == Outcome::GatewayError
            && has_other
            && self.may_repeat(visit, delivered.exchange.body(), failure, try_.ended)
        {
            self.body = Some(delivered.exchange.into_body());
            return self.again(try_);
        }
        Step::Delivered(Box::new(delivered))
    }

    /// Decides what follows a try without an answer.
    fn fail(&mut self, try_: &Try<'_>, visit: &Visit, failure: TryFailure) -> Step {
        let worker = visit.client.worker.as_ref();
        let refused = |reason, what| {
            let endpoint = Some(try_.endpoint.as_ref());
            Step::Refused(Refusal::of(try_.service, endpoint, reason, what))
        };
        match failure {
            TryFailure::Client(BodyFailure::Gone) => refused(
                Reason::BadRequest,
                "the client broke off the request's body",
            ),
            TryFailure::Client(BodyFailure::TooSlow) => refused(
                Reason::BodyTimeout,
                "the client sent nothing more of the request's body",
            ),
            TryFailure::Client(BodyFailure::Malformed(error)) => {
                refused(Reason::BadRequest, &error.to_string())
            }
            TryFailure::NotSent => {
                try_.learn(worker, Outcome::ConnectFailed);
                // However many endpoints there are, a client is not kept waiting for all of them.
                let has_time = !self.time_left(try_.ended, try_.service).is_zero();
                let may_go_on = has_time || visit.tries < TRIES_MAX;
                match worker.seams.retries {
                    Retries::On if may_go_on => self.again(try_),
                    Retries::On | Retries::Off => {
                        refused(Reason::AllFailed, "the instance cannot be reached")
                    }
                }
            }
            TryFailure::Lost => {
                self.sent += 1;
                try_.learn(worker, Outcome::GatewayError);
                let failure = FailureKind::LostAfterSending;
                if let Some(body) = &self.body
                    && self.may_repeat(visit, body, failure, try_.ended)
                {
                    return self.again(try_);
                }
                refused(
                    Reason::LostInFlight,
                    "the instance's connection broke before it answered, and it may have done what was asked",
                )
            }
            // The client has waited for as long as anybody waits.
            TryFailure::Expired => {
                try_.learn(worker, Outcome::GatewayError);
                refused(
                    Reason::ResponseTimeout,
                    "the instance did not begin to answer in time",
                )
            }
        }
    }

    /// How long the request may still wait for an endpoint to get better.
    fn time_left(&mut self, now: Instant, service: &LocalService) -> Duration {
        let since = *self.trouble_since.get_or_insert(now);
        reach_time(service).saturating_sub(now.since(since))
    }

    fn again(&mut self, try_: &Try<'_>) -> Step {
        try_.endpoint.shared.counters.retries.add(1);
        self.failed.push(try_.chosen.tag());
        Step::Again
    }

    /// Whether a request that was sent may be sent once more.
    fn may_repeat(
        &self,
        visit: &Visit,
        body: &RequestBody,
        failure: FailureKind,
        now: Instant,
    ) -> bool {
        let worker = &visit.client.worker;
        let body = if body.is_replayable() && visit.request.upgrade().is_none() {
            Body::Replayable
        } else {
            Body::Consumed
        };
        let attempted = Attempted {
            method: self.safety,
            body,
            failure,
            tries: self.sent,
        };
        worker.seams.retries == Retries::On
            && attempted.verdict() == RetryVerdict::Retry
            && worker.budget_retry(now)
    }

    /// There is no endpoint, or each has failed: waits for a change, within bounds. Nothing is lost
    /// by it, since nothing was sent or it may be sent again.
    async fn wait(&mut self, visit: &Visit, service: &LocalService) -> Step {
        let worker = &visit.client.worker;
        let (reason, pause) = match service.unavailable {
            _ if !self.failed.is_empty() => (Reason::AllFailed, ROUND_PAUSE),
            // It will not change by itself within the time that a request can wait.
            Some(
                why @ (Unavailable::CrashLooping
                | Unavailable::ScaledToZero
                | Unavailable::Stopping),
            ) => (Reason::Unavailable(why), Duration::ZERO),
            Some(why @ Unavailable::Starting) => (Reason::Unavailable(why), reach_time(service)),
            None => (Reason::NoEndpoint, reach_time(service)),
        };
        let pause = pause.min(self.time_left(worker.clock.now(), service));
        if pause.is_zero() || worker.seams.retries == Retries::Off {
            let what = match reason {
                Reason::Unavailable(why) => why.to_string(),
                Reason::AllFailed => format!(
                    "none of its instances could be reached in {} tries",
                    visit.tries
                ),
                _ => "it has no instance that could".to_owned(),
            };
            return Step::Refused(Refusal::of(service, None, reason, &what));
        }
        // Whether a new table came or not, the next round begins.
        timeout(pause, worker.table_changed.notified()).await.ok();
        self.failed.clear();
        Step::Again
    }
}

/// One try, seen from its end.
struct Try<'a> {
    service: &'a LocalService,
    chosen: Chosen,
    endpoint: Rc<LocalEndpoint>,
    sent: Instant,
    ended: Instant,
}

impl Try<'_> {
    fn learn(&self, worker: &Worker, outcome: Outcome) {
        let finished = Finished {
            outcome,
            sent: self.sent,
            ended: self.ended,
            jitter: worker.fraction(),
        };
        self.service.learn(&self.chosen, &finished);
    }
}

fn find<'a>(view: &'a View, visit: &Visit) -> Option<&'a Rc<LocalService>> {
    view.find(visit.client.scope, &visit.request)
}

/// How long a request of this service waits for an endpoint.
fn reach_time(service: &LocalService) -> Duration {
    service.policy.queue.time.unwrap_or(REACH_TIME)
}

fn no_route(visit: &Visit) -> Refusal {
    let (host, path) = (visit.host(), visit.request.path());
    let what = format!("no service has the host `{host}` with the path `{path}`");
    Refusal::unrouted(Reason::NoRoute, what)
}
