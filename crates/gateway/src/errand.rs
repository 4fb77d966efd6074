//! A request that has to be brought to some instance: carries out what its
//! [`Course`] decides.
//!
//! Each try asks the worker's newest view, and chooses and counts in one step; see
//! [`crate::endpoint::EndpointState::enter`]. Up to [`LANES`] tries are under way at once, all in the
//! task of the client's connection; whoever is not needed any more is dropped, which closes its
//! connection and tells the instance.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use mainstay_control::balance::ejection::Verdict;
use mainstay_control::balance::{
    Body, Content, Course, Defeat, Demand, Event, For, IdempotencyKey, LANES, Lane, Learnt,
    MethodSafety, Next, Outcome, Picked, Ticket, Why, Wish,
};
use mainstay_http1::Response;
use mainstay_ids::{Instant, Version};
use mainstay_model::traffic::Trace;
use tokio::time::Sleep;

use crate::answer::Visit;
use crate::connection::Scope;
use crate::early::Early;
use crate::endpoint::Who;
use crate::exchange::{Exchange, NoAnswer, RequestBody, Source};
use crate::forwarded;
use crate::headers::{self, Alterations, Passage};
use crate::inbound::BodyFailure;
use crate::limits::CONNECT_TIMEOUT;
use crate::metrics::Denied;
use crate::refusal::{Reason, Refusal};
use crate::rewrite::RewritePlan;
use crate::upstream::{Assurance, Upstream};
use crate::view::{Flight, Lessons, LocalEndpoint, LocalService, View};
use crate::worker::Worker;
use crate::{RetryRoutes, Verdicts};

/// What an errand ends with.
pub(crate) struct Delivered {
    pub(crate) response: Box<Response>,
    pub(crate) exchange: Exchange,
    pub(crate) flight: Flight,
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<Upstream>>>>;

/// How far a try is.
enum Stage {
    /// Since when.
    Connecting(Connecting, Instant),
    Exchanging(Exchange),
    Answered(Exchange, Box<Response>),
    /// In the middle of a step.
    Between,
}

/// One try under way.
struct Attempt {
    picked: Picked,
    endpoint: Rc<LocalEndpoint>,
    flight: Flight,
    why: Why,
    stage: Stage,
    origin: Origin,
}

/// Where the connection of a try is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// It lay idle, and may have been closed by its instance.
    Idle,
    /// It was made for this try.
    New,
}

/// What came of waiting.
enum Happened {
    Told(Event),
    /// There is a connection, made in so long.
    Connected(Lane, Upstream, Duration),
    /// The idle connection was closed before anything was sent.
    Unsent(Lane),
    /// The client broke off its body.
    ClientFailed(BodyFailure),
}

/// A request's head, with what it was made by.
struct Head {
    bytes: Bytes,
    trace: Trace,
    rewrite: Option<Arc<RewritePlan>>,
}

/// A request that has to be brought to some instance.
pub(crate) struct Errand<'a> {
    early: Early<'a>,
    /// What the instance of the last try was sent. `None`: nothing yet.
    head: Option<Head>,
    /// The body between two tries. `None`: a try has it.
    body: Option<RequestBody>,
    worker: Rc<Worker>,
    service: Rc<LocalService>,
    wish: Wish,
    course: Course,
    lanes: [Option<Box<Attempt>>; LANES],
    /// Its place in the line, while it has one, and since when.
    ticket: Option<(Ticket, Instant)>,
    /// The endpoints at the first try; kept only with the test seam [`RetryRoutes::Keep`].
    first_endpoints: Vec<Rc<LocalEndpoint>>,
}

impl<'a> Errand<'a> {
    /// A checked request for the service to which it belongs. In a box, so that it and the rest of
    /// what a request needs are small enough for the allocator's fast lists.
    pub(crate) fn new(
        visit: &mut Visit,
        source: Source,
        early: Early<'a>,
    ) -> Result<Box<Self>, Refusal> {
        let worker = Rc::clone(&visit.client.worker);
        let Some(service) = find(&worker.view(), visit) else {
            return Err(no_route(visit));
        };
        let replay_len = worker.limits().replay_len as usize;
        let body = RequestBody::new(source, visit.request.framing, replay_len);
        Ok(Box::new(Self {
            early,
            course: Course::new(demand(visit, &service, &body)),
            wish: wish(visit, &worker, &service),
            head: None,
            body: Some(body),
            worker,
            service,
            lanes: [const { None }; LANES],
            ticket: None,
            first_endpoints: Vec::new(),
        }))
    }

    /// Brings it to some instance, until that has begun to answer or trying again makes no sense.
    pub(crate) async fn run(&mut self, visit: &mut Visit) -> Result<Box<Delivered>, Refusal> {
        let mut alarm = pin!(self.worker.clock.alarm());
        let mut next = self.tell(visit, Event::Come);
        let mut denied = Denied::QueueLen;
        loop {
            next = match next {
                Next::Begin(lane, picked, why) => self.begin(visit, lane, picked, why),
                Next::Wait(For::Answer) => {
                    self.set(alarm.as_mut());
                    let happened = poll_fn(|cx| self.poll(cx, visit, alarm.as_mut())).await;
                    match happened {
                        Happened::Told(event) => {
                            self.excuse();
                            self.tell(visit, event)
                        }
                        Happened::Connected(lane, upstream, took) => {
                            self.service.counts.connect.record(took);
                            self.send(visit, lane, upstream)
                        }
                        Happened::Unsent(lane) => self.unsent(visit, lane),
                        Happened::ClientFailed(failure) => {
                            return Err(self.client_failed(visit, failure));
                        }
                    }
                }
                Next::Wait(For::Change) => {
                    self.set(alarm.as_mut());
                    let changed = tokio::select! {
                        () = self.worker.table_changed.notified() => Event::Changed,
                        () = alarm.as_mut() => Event::Tick,
                    };
                    self.look_again(visit, changed)?
                }
                Next::Wait(For::Turn(ticket)) => {
                    self.stand_in_line(ticket);
                    denied = Denied::QueueTime;
                    let turn = self.service.await_turn(ticket);
                    self.set(alarm.as_mut());
                    let event = tokio::select! {
                        () = turn.notified() => Event::Turn,
                        () = alarm.as_mut() => Event::Tick,
                    };
                    let next = self.tell(visit, event);
                    if self.ticket.is_some() {
                        self.service.pass_look_on(ticket, self.worker.now());
                    }
                    next
                }
                Next::Deliver(lane) => return self.deliver(visit, lane),
                Next::Refuse(defeat) => {
                    if defeat == Defeat::Overloaded {
                        visit.client.frontend.denied.count(denied);
                    }
                    return Err(self.refusal(visit, defeat));
                }
            };
        }
    }

    /// Sets the alarm to when the course wants to be asked again.
    fn set(&self, alarm: Pin<&mut Sleep>) {
        let wake = self.course.wake();
        if wake != Instant::NEVER {
            alarm.reset(self.worker.clock.deadline(wake));
        }
    }

    /// Tells the course for how long the client was waited for.
    fn excuse(&mut self) {
        for attempt in self.lanes.iter_mut().flatten() {
            let waited = attempt.flight.take_waited();
            if !waited.is_zero() {
                self.course.excuse(waited);
            }
        }
    }

    /// Lets the course decide, and ends the tries that it does not want any more.
    fn tell(&mut self, visit: &mut Visit, event: Event) -> Next {
        let (next, lessons) = self
            .service
            .decide(&self.worker, &mut self.course, self.wish, event);
        self.report(&lessons);
        let delivered = match next {
            Next::Deliver(lane) => Some(lane),
            Next::Begin(..) | Next::Wait(_) | Next::Refuse(_) => None,
        };
        let mut made_room = delivered.is_some();
        for lane in Lane::ALL {
            let began = matches!(next, Next::Begin(new, ..) if new == lane);
            if delivered != Some(lane) && (began || !self.course.runs(lane)) {
                made_room |= self.end(visit, lane);
            }
        }
        if let Some(attempt) = delivered.and_then(|lane| self.lanes[lane.index()].as_mut()) {
            attempt.flight.end_wait();
            if attempt.why == Why::Hedge {
                attempt.endpoint.shared.counters.hedges_won.add(1);
                self.service.counts.hedges_won.add(1);
                visit.hedge = Some("won");
            }
        }
        if self.ticket.is_some() && next != self.still_in_line() {
            self.leave_line();
            made_room = true;
        }
        if made_room {
            self.service.call_first(self.worker.now());
        }
        next
    }

    fn still_in_line(&self) -> Next {
        self.ticket.map_or(Next::Wait(For::Answer), |(ticket, _)| {
            Next::Wait(For::Turn(ticket))
        })
    }

    fn stand_in_line(&mut self, ticket: Ticket) {
        if self.ticket.is_none() {
            self.ticket = Some((ticket, self.worker.now()));
            self.service.counts.standing().rise();
        }
    }

    fn leave_line(&mut self) {
        if let Some((ticket, since)) = self.ticket.take() {
            let waited = self.worker.now().since(since);
            let counts = &self.service.counts;
            counts.standing().fall();
            counts.tallies().mine().queue.record(waited);
            self.service.end_turn(ticket);
        }
    }

    /// Ends a try, and takes the body back from it if it has it.
    fn end(&mut self, visit: &mut Visit, lane: Lane) -> bool {
        let Some(attempt) = self.lanes[lane.index()].take() else {
            return false;
        };
        let Attempt {
            endpoint,
            stage,
            why,
            ..
        } = *attempt;
        if why == Why::Hedge {
            endpoint.shared.counters.hedges_lost.add(1);
            self.service.counts.hedges_lost.add(1);
            visit.hedge = Some("lost");
        }
        match stage {
            Stage::Exchanging(exchange) | Stage::Answered(exchange, _) => {
                let body = exchange.give_up(&self.worker.buffers);
                self.body.get_or_insert(body);
            }
            Stage::Connecting(..) | Stage::Between => {}
        }
        // It was asked last, as far as anybody can tell the client.
        visit.endpoint = Some(endpoint);
        true
    }

    /// Begins a try. From the choice to here there was no await.
    fn begin(&mut self, visit: &mut Visit, lane: Lane, picked: Picked, why: Why) -> Next {
        let Some(chosen) = self.service.chosen(picked) else {
            // It was chosen in this very moment from what is listed.
            return self.tell(visit, Event::ConnectFailed(lane));
        };
        let endpoint = self.endpoint(visit, chosen);
        let flight = Flight::begin(&endpoint);
        endpoint.shared.counters.requests.add(1);
        if let Some(before) = &visit.endpoint {
            match why {
                Why::First | Why::Hedge => {}
                Why::Again | Why::Impatience => before.shared.counters.retries.add(1),
            }
        }
        visit.endpoint = Some(Rc::clone(&endpoint));
        visit.tries += 1;
        self.lanes[lane.index()] = Some(Box::new(Attempt {
            picked,
            endpoint,
            flight,
            why,
            stage: Stage::Between,
            origin: Origin::Idle,
        }));
        self.reach(visit, lane)
    }

    /// The endpoint of a try: the chosen one. With the test seam a retry goes to where the table
    /// of the first try pointed, which is what the drain must notice.
    fn endpoint(&mut self, visit: &Visit, chosen: Rc<LocalEndpoint>) -> Rc<LocalEndpoint> {
        match (self.worker.seams.retry_routes, &visit.endpoint) {
            (RetryRoutes::Reread, _) => {}
            (RetryRoutes::Keep, None) => self.first_endpoints.clone_from(&self.service.endpoints),
            (RetryRoutes::Keep, Some(failed)) => {
                let mut others = self.first_endpoints.iter();
                if let Some(other) = others.find(|other| !Rc::ptr_eq(other, failed)) {
                    return Rc::clone(other);
                }
            }
        }
        chosen
    }

    /// Takes an idle connection, or makes a new one if none is alive.
    fn reach(&mut self, visit: &mut Visit, lane: Lane) -> Next {
        let assurance = self.assurance(visit);
        let Some(attempt) = &mut self.lanes[lane.index()] else {
            return Next::Wait(For::Answer);
        };
        if let Some(upstream) = attempt.endpoint.take_idle(assurance) {
            return self.send(visit, lane, upstream);
        }
        let address = attempt.endpoint.shared.key.address;
        let patience = self.service.policy.timeouts.connect;
        let connecting = Upstream::connect(address, patience.unwrap_or(CONNECT_TIMEOUT));
        attempt.origin = Origin::New;
        attempt.stage = Stage::Connecting(Box::pin(connecting), self.worker.now());
        Next::Wait(For::Answer)
    }

    /// A connection was closed in this moment, which is not its endpoint's failure: there are others.
    fn unsent(&mut self, visit: &mut Visit, lane: Lane) -> Next {
        let next = self.tell(visit, Event::Unsent(lane));
        let Some(attempt) = &mut self.lanes[lane.index()] else {
            return next;
        };
        if let Stage::Exchanging(exchange) = std::mem::replace(&mut attempt.stage, Stage::Between) {
            self.body
                .get_or_insert(exchange.give_up(&self.worker.buffers));
        }
        self.reach(visit, lane)
    }

    /// How sure one must be that a connection is alive: what can be sent again is not worth a system
    /// call.
    fn assurance(&self, visit: &Visit) -> Assurance {
        let is_safe = MethodSafety::of(visit.request.method_name()) == MethodSafety::Safe;
        let is_bare = self.body.as_ref().is_some_and(RequestBody::is_empty);
        if is_safe && is_bare && visit.request.upgrade().is_none() {
            Assurance::Hint
        } else {
            Assurance::Look
        }
    }

    /// There is a connection: the request goes out, unless another was faster.
    fn send(&mut self, visit: &mut Visit, lane: Lane, upstream: Upstream) -> Next {
        let next = self.tell(visit, Event::Sent(lane));
        let Some(attempt) = &self.lanes[lane.index()] else {
            return next;
        };
        let body = self.body.as_ref().and_then(RequestBody::another);
        let Some(mut body) = body.or_else(|| self.body.take()) else {
            // Another try has it: the course lets nothing of this kind out twice.
            return self.tell(visit, Event::ConnectFailed(lane));
        };
        body.rewind();
        let method = visit.request.method;
        let version = attempt.endpoint.version;
        let head = self.head_for(visit, version);
        if let Some(attempt) = &mut self.lanes[lane.index()] {
            attempt.stage = Stage::Exchanging(Exchange::new(upstream, method, head, body));
        }
        next
    }

    /// The request's head as an instance of this version wants it: the one of the last try, unless
    /// that went to another version or by other rules.
    fn head_for(&mut self, visit: &Visit, version: Version) -> Bytes {
        let policy = &self.service.policy;
        let (trace, rewrite) = (policy.trace, policy.rewrite(version));
        let plan = rewrite.map(Arc::as_ptr);
        if let Some(head) = &self.head
            && (head.trace, head.rewrite.as_ref().map(Arc::as_ptr)) == (trace, plan)
        {
            return head.bytes.clone();
        }
        let passage = Passage {
            id: &visit.id,
            way: visit.way(),
            trace,
            rewrite: rewrite.map(Arc::as_ref),
        };
        let buffers = &self.worker.buffers;
        let bytes = buffers.head(|out| headers::write_request(out, &visit.request, passage));
        self.head = Some(Head {
            bytes: bytes.clone(),
            trace,
            rewrite: rewrite.cloned(),
        });
        bytes
    }

    /// Whatever happens first. Answers are looked at before the clock: after a pause of this process
    /// both may be there.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        visit: &Visit,
        alarm: Pin<&mut Sleep>,
    ) -> Poll<Happened> {
        let policy = &self.service.policy;
        for lane in Lane::ALL {
            let Some(attempt) = &mut self.lanes[lane.index()] else {
                continue;
            };
            let rewrite = policy.rewrite(attempt.endpoint.version);
            let early = |response: &Response| {
                self.early.pass(response, rewrite.map(Arc::as_ref));
            };
            let upgrades = visit.request.upgrade().is_some();
            let happened = attempt.poll(cx, &self.worker, lane, (upgrades, early));
            if happened.is_ready() {
                return happened;
            }
        }
        self.early.poll(cx);
        if visit.client.has_expired() {
            return Poll::Ready(Happened::Told(Event::Expired));
        }
        if self.course.wake() == Instant::NEVER {
            return Poll::Pending;
        }
        alarm.poll(cx).map(|()| Happened::Told(Event::Tick))
    }

    /// A new table, or the end of a pause: the request may belong to another service now.
    fn look_again(&mut self, visit: &mut Visit, event: Event) -> Result<Next, Refusal> {
        let Some(service) = find(&self.worker.view(), visit) else {
            return Err(no_route(visit));
        };
        if service.is(&self.service) {
            self.service = service;
            return Ok(self.tell(visit, event));
        }
        self.service.abandon(&mut self.course);
        self.service = service;
        self.wish = wish(visit, &self.worker, &self.service);
        if let Some(body) = &self.body {
            self.course = Course::new(demand(visit, &self.service, body));
        }
        Ok(self.tell(visit, Event::Come))
    }

    fn deliver(&mut self, visit: &mut Visit, lane: Lane) -> Result<Box<Delivered>, Refusal> {
        let attempt = self.lanes[lane.index()].take();
        let Some((endpoint, flight, stage)) =
            attempt.map(|one| (one.endpoint, one.flight, one.stage))
        else {
            return Err(self.refusal(visit, Defeat::LostInFlight));
        };
        let policy = &self.service.policy;
        visit.first_byte = Some(self.worker.now());
        visit.alterations = Alterations {
            rewrite: policy.rewrite(endpoint.version).cloned(),
            cookie: policy.cookie(self.wish.bond, endpoint.handle.get()),
        };
        visit.endpoint = Some(endpoint);
        match stage {
            Stage::Answered(exchange, response) => Ok(Box::new(Delivered {
                response,
                exchange,
                flight,
            })),
            Stage::Connecting(..) | Stage::Exchanging(_) | Stage::Between => {
                Err(self.refusal(visit, Defeat::LostInFlight))
            }
        }
    }

    fn client_failed(&mut self, visit: &Visit, failure: BodyFailure) -> Refusal {
        let (reason, what) = match failure {
            BodyFailure::Gone => (
                Reason::BadRequest,
                "the client broke off the request's body".to_owned(),
            ),
            BodyFailure::TooSlow => (
                Reason::BodyTimeout,
                "the client sent nothing more of the request's body".to_owned(),
            ),
            BodyFailure::Malformed(error) => (Reason::BadRequest, error.to_string()),
        };
        Refusal::of(&self.service, visit.endpoint.as_deref(), reason, &what)
    }

    fn refusal(&self, visit: &Visit, defeat: Defeat) -> Refusal {
        let asked = visit.endpoint.as_deref();
        let (asked, reason, what) = match defeat {
            Defeat::Unavailable(why) => (None, Reason::Unavailable(why), why.to_string()),
            Defeat::NoEndpoint => (
                None,
                Reason::NoEndpoint,
                "it has no instance that could".to_owned(),
            ),
            Defeat::AllFailed => (
                asked,
                Reason::AllFailed,
                format!(
                    "none of its instances could be reached in {} tries",
                    visit.tries
                ),
            ),
            Defeat::LostInFlight => (
                asked,
                Reason::LostInFlight,
                "the instance's connection broke before it answered, and it may have done what was asked".to_owned(),
            ),
            Defeat::Expired => (
                asked,
                Reason::ResponseTimeout,
                "the instance did not begin to answer in time".to_owned(),
            ),
            Defeat::Overloaded => (
                None,
                Reason::Overloaded,
                "each of its instances is as busy as it can be".to_owned(),
            ),
        };
        Refusal::of(&self.service, asked, reason, &what)
    }

    /// Counts and logs what was learnt of endpoints.
    fn report(&self, lessons: &Lessons) {
        for learnt in lessons.iter().flatten() {
            let mut lanes = self.lanes.iter().flatten();
            if let Some(attempt) = lanes.find(|attempt| attempt.picked == learnt.picked) {
                attempt.endpoint.report(learnt);
                if let (Outcome::ConnectFailed, Who::Server(at)) =
                    (learnt.outcome, &attempt.endpoint.shared.key.who)
                {
                    self.worker.tell_failure(at);
                }
            }
        }
    }
}

impl Drop for Errand<'_> {
    fn drop(&mut self) {
        self.service.abandon(&mut self.course);
        self.leave_line();
        let mut made_room = false;
        for attempt in self.lanes.iter_mut().filter_map(Option::take) {
            made_room = true;
            match attempt.stage {
                Stage::Exchanging(exchange) | Stage::Answered(exchange, _) => {
                    exchange.discard(&self.worker.buffers);
                }
                Stage::Connecting(..) | Stage::Between => {}
            }
        }
        if made_room {
            self.service.call_first(self.worker.now());
        }
    }
}

impl Attempt {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        lane: Lane,
        (upgrades, early): (bool, impl Fn(&Response)),
    ) -> Poll<Happened> {
        let end = match worker.seams.verdicts {
            Verdicts::Heeded => self.endpoint.end(),
            Verdicts::Ignored => None,
        };
        match &mut self.stage {
            Stage::Connecting(..) if end.is_some() => {
                Poll::Ready(Happened::Told(Event::ConnectFailed(lane)))
            }
            Stage::Connecting(connecting, since) => {
                connecting.as_mut().poll(cx).map(|made| match made {
                    Ok(upstream) => {
                        let took = worker.now().since(*since);
                        self.endpoint.shared.counters.connect.record(took);
                        Happened::Connected(lane, upstream, took)
                    }
                    Err(error) => {
                        self.endpoint.shared.counters.connect_failures.add(1);
                        let instance = &self.endpoint.shared.key.who;
                        tracing::debug!(%error, %instance, "cannot connect");
                        Happened::Told(Event::ConnectFailed(lane))
                    }
                })
            }
            Stage::Exchanging(exchange) => {
                let answered = exchange.poll_head(cx, &worker.buffers, early);
                let body = body_of(exchange, upgrades);
                match answered {
                    Poll::Ready(Ok(response)) => Poll::Ready(self.answered(lane, response, body)),
                    Poll::Ready(Err(NoAnswer::NotSent)) => Poll::Ready(match self.origin {
                        Origin::Idle => Happened::Unsent(lane),
                        Origin::New => Happened::Told(Event::ConnectFailed(lane)),
                    }),
                    Poll::Ready(Err(NoAnswer::Client(failure))) => {
                        Poll::Ready(Happened::ClientFailed(failure))
                    }
                    Poll::Ready(Err(NoAnswer::Lost(why))) => {
                        let error = &why as &dyn std::error::Error;
                        tracing::debug!(error, "a request was lost in flight");
                        Poll::Ready(Happened::Told(Event::Lost(lane, why.loss(), body)))
                    }
                    Poll::Pending => {
                        if let Some(loss) = end {
                            return Poll::Ready(Happened::Told(Event::Lost(lane, loss, body)));
                        }
                        self.flight.follow(exchange);
                        Poll::Pending
                    }
                }
            }
            Stage::Answered(..) | Stage::Between => Poll::Pending,
        }
    }

    fn answered(&mut self, lane: Lane, response: Box<Response>, body: Body) -> Happened {
        let status = response.status;
        self.stage = match std::mem::replace(&mut self.stage, Stage::Between) {
            Stage::Exchanging(exchange) => Stage::Answered(exchange, response),
            other => other,
        };
        Happened::Told(Event::Head(lane, status, body))
    }
}

fn body_of(exchange: &Exchange, upgrades: bool) -> Body {
    if exchange.body().is_replayable() && !upgrades {
        Body::Replayable
    } else {
        Body::Consumed
    }
}

/// What a request asks for, as far as its course depends on it.
fn demand(visit: &Visit, service: &LocalService, body: &RequestBody) -> Demand {
    let request = &visit.request;
    let has_key = request.fields.named(b"idempotency-key").is_some();
    let key = if has_key {
        service.failing().key
    } else {
        IdempotencyKey::Ignored
    };
    Demand {
        safety: MethodSafety::of(request.method_name()).with(key),
        content: if body.is_empty() && request.upgrade().is_none() {
            Content::Bare
        } else {
            Content::More
        },
        priority: service.policy.priority(request),
    }
}

/// What a request wants beside an endpoint that works.
fn wish(visit: &Visit, worker: &Worker, service: &LocalService) -> Wish {
    let client = || forwarded::client(visit.way(), &visit.request);
    service.policy.wish(&visit.request, client, worker.random())
}

fn find(view: &View, visit: &mut Visit) -> Option<Rc<LocalService>> {
    let service = view.find(visit.client.scope, &visit.request)?;
    let service = Rc::clone(service);
    visit.service = Some(Rc::clone(&service.label));
    visit.counts = Some(Rc::clone(&service.counts));
    visit.client.keep_deadlines(service.policy.timeouts);
    Some(service)
}

fn no_route(visit: &Visit) -> Refusal {
    if let Scope::Listen(_) = visit.client.scope {
        let what = "its listener was removed or carries no HTTP any more".to_owned();
        return Refusal::unrouted(Reason::NoEndpoint, what);
    }
    let (host, path) = (visit.host(), visit.request.path());
    let what = format!("no service has the host `{host}` with the path `{path}`");
    Refusal::unrouted(Reason::NoRoute, what)
}

impl LocalEndpoint {
    /// Counts and logs what a try has told of it.
    fn report(&self, learnt: &Learnt) {
        let (shared, outcome) = (&self.shared, learnt.outcome);
        let instance = &shared.key.who;
        match outcome {
            Outcome::Answered | Outcome::Overtaken => {}
            Outcome::ServerError | Outcome::GatewayError | Outcome::ConnectFailed => {
                shared.counters.failures.add(1);
            }
        }
        match learnt.verdict {
            Verdict::Unchanged | Verdict::OnTrial => {}
            Verdict::Returned => tracing::info!(%instance, "gets requests again"),
            Verdict::Ejected { .. } => {
                shared.counters.ejections.add(1);
                tracing::warn!(%instance, ?outcome, "gets no requests for a while");
            }
        }
    }
}
