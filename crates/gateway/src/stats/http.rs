//! Serves the page and what belongs to it: HTTP/1.1, one request per connection, nothing that is
//! kept for a client but an open stream of events.

use std::convert::Infallible;
use std::net::TcpListener as StdListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use std::{io, pin::pin};

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::access::{Access, Denial};
use super::gather::Gatherer;
use super::page::{self, Refresh, Servers, View};
use super::rows::Snapshot;
use super::{Shown, change, events, exposition, floating, table};
use crate::clock::Clock;
use crate::listen::Handle;
use crate::roster::Roster;

/// How often everything is looked at; a rate is per second.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a change is waited for to be seen: two looks, and what a new state of the routes takes to
/// come. It is in force without, or comes with the control centre's next word.
const SEEN_TIME: Duration = Duration::from_secs(3);

/// Connections at a time: a few people, a few collectors. More wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;

/// Of these, streams of events; the others are for those who only ask. More are answered 503.
const STREAMS_MAX: usize = 32;

/// The longest head: a browser's is below 2 KiB, and hyper wants 8 KiB at least.
const HEAD_LEN_MAX: usize = 16 * 1024;

/// The most header fields; a browser sends twenty.
const HEADERS_MAX: usize = 64;

/// How long a head may take.
const HEAD_TIME: Duration = Duration::from_secs(5);

/// How long a connection may last that is not a stream: a page with a thousand instances is a megabyte,
/// and a slow line takes seconds for it.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// The pause after an accept that failed because the process has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the server is given.
pub(crate) struct Setup {
    pub(crate) listener: StdListener,
    pub(crate) access: Access,
    pub(crate) token: PathBuf,
    pub(crate) floating: PathBuf,
    pub(crate) shown: Shown,
    pub(crate) stop: CancellationToken,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Answer = Response<Body>;

/// What all connections share; everything is in one thread.
struct Desk {
    access: Access,
    token: PathBuf,
    floating: PathBuf,
    shown: Shown,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    streams: Arc<Semaphore>,
}

/// Serves in this thread until it is told to stop.
pub(crate) fn run(setup: Setup) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(serve(setup))
}

async fn serve(setup: Setup) -> io::Result<()> {
    setup.listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(setup.listener)?;
    let shown = setup.shown;
    let (snapshots_to, snapshots) = watch::channel(Arc::default());
    let mut looks = Looks {
        gatherer: Gatherer::new(&shown),
        rosters: shown.rosters.clone(),
        clock: shown.clock,
        listens: shown.listens.clone(),
        snapshots: snapshots_to,
    };
    let desk = Rc::new(Desk {
        access: setup.access,
        token: setup.token,
        floating: setup.floating,
        shown,
        snapshots,
        streams: Arc::new(Semaphore::new(STREAMS_MAX)),
    });
    tokio::select! {
        () = setup.stop.cancelled() => return Ok(()),
        // The first look is before the first answer.
        () = looks.look() => {}
    }
    let mut looking = pin!(looks.go_on());
    // Their ends are handled by themselves; dropping the set at the end closes them.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = setup.stop.cancelled() => return Ok(()),
            () = &mut looking => {}
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn_local(converse(Rc::clone(&desk), stream));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for statistics");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Looks at everything, again and again.
struct Looks {
    gatherer: Gatherer,
    rosters: watch::Receiver<Arc<Roster>>,
    clock: Clock,
    listens: Handle,
    snapshots: watch::Sender<Arc<Snapshot>>,
}

impl Looks {
    async fn go_on(&mut self) {
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let listeners = match self.listens.snapshot().await {
            Ok(listeners) => listeners.into(),
            // The gateway ends; they are shown as they were.
            Err(_) => Arc::clone(&self.snapshots.borrow().listeners),
        };
        let roster = Arc::clone(&self.rosters.borrow());
        let snapshot = self.gatherer.gather(self.clock.now(), &roster, &listeners);
        self.snapshots.send_replace(Arc::new(snapshot));
    }
}

/// One connection, which is one request.
async fn converse(desk: Rc<Desk>, stream: TcpStream) {
    let streams = Rc::new(std::cell::Cell::new(false));
    let answering = Rc::clone(&streams);
    let service = service_fn(move |request| {
        let (desk, answering) = (Rc::clone(&desk), Rc::clone(&answering));
        async move {
            let answer = answer(&desk, request).await;
            answering.set(is_stream(&answer));
            Ok::<_, Infallible>(answer)
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .keep_alive(false)
        .max_buf_size(HEAD_LEN_MAX)
        .max_headers(HEADERS_MAX);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = match timeout(ANSWER_TIME, connection.as_mut()).await {
        Err(_) if streams.get() => timeout(events::STREAM_TIME, connection).await,
        ended => ended,
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection for statistics broke"),
        Err(_) => tracing::debug!("a connection for statistics took too long, and was cut"),
    }
}

fn is_stream(answer: &Answer) -> bool {
    let kind = answer.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind == EVENTS)
}

const HTML: &str = "text/html; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const EVENTS: &str = "text/event-stream";

async fn answer(desk: &Desk, request: Request<Incoming>) -> Answer {
    if let Err(denial) = desk.access.admit(request.headers()) {
        return refuse(denial);
    }
    if *request.method() == Method::POST && request.uri().path() == CHANGE {
        return change(desk, request).await;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let text = "statistics are only read: use GET, and POST for /stats/change alone\n";
        return say(StatusCode::METHOD_NOT_ALLOWED, PLAIN, text.into());
    }
    let (path, options) = split(request.uri().path());
    let snapshot = || Arc::clone(&desk.snapshots.borrow());
    match path {
        "/" => {
            let mut answer = say(StatusCode::FOUND, PLAIN, "see /stats\n".into());
            let location = HeaderValue::from_static("/stats");
            answer.headers_mut().insert(header::LOCATION, location);
            answer
        }
        "/stats" => match options.form {
            Form::Page => ok(HTML, page::page(&snapshot(), options.view)),
            Form::Csv => ok(PLAIN, table::csv(&snapshot())),
            Form::Json => ok(JSON, table::json(&snapshot())),
        },
        CHANGE => {
            let answer = ok(HTML, change::page(&snapshot(), desk.access.asks()));
            allow_form(answer)
        }
        "/stats/events" => stream(desk, options.view),
        "/stats/style.css" => fixed("text/css", include_str!("assets/style.css")),
        "/stats/icon.svg" => fixed("image/svg+xml", include_str!("assets/icon.svg")),
        "/stats/live.js" => fixed("text/javascript", include_str!("assets/live.js")),
        "/stats/still.js" => fixed("text/javascript", include_str!("assets/still.js")),
        "/metrics" => {
            let own = exposition::write(&desk.shown, &snapshot().listeners);
            let text = own + &floating::metrics(&desk.floating).await;
            ok(mainstay_exposition::CONTENT_TYPE, text)
        }
        _ => {
            let text = "nothing is here; there are /stats, /stats;csv, /stats;json and /metrics\n";
            say(StatusCode::NOT_FOUND, PLAIN, text.into())
        }
    }
}

/// Where the form for changes is, and what is sent by it.
const CHANGE: &str = "/stats/change";

/// Lets the form be sent, here alone, and lets the browser say from where: without a policy for
/// referrers it would send `Origin: null`.
fn allow_form(mut answer: Answer) -> Answer {
    let headers = answer.headers_mut();
    let policy = HeaderValue::from_static(
        "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self'; \
         frame-ancestors 'none'",
    );
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    let same = HeaderValue::from_static("same-origin");
    headers.insert(header::REFERRER_POLICY, same);
    answer
}

/// Changes a server, and leads back to the page as soon as that shows it.
async fn change(desk: &Desk, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let kind = head.headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().unwrap_or_default().trim() != FORM {
        let text = format!("`Content-Type` is to be {FORM}\n");
        return say(StatusCode::UNSUPPORTED_MEDIA_TYPE, PLAIN, text);
    }
    let Ok(body) = Limited::new(body, change::FORM_LEN_MAX).collect().await else {
        let most = change::FORM_LEN_MAX;
        let text = format!("the form broke off, or is longer than {most} bytes\n");
        return say(StatusCode::PAYLOAD_TOO_LARGE, PLAIN, text);
    };
    let form = match change::Form::parse(&body.to_bytes()) {
        Ok(form) => form,
        Err(wrong) => return say(StatusCode::BAD_REQUEST, PLAIN, format!("{wrong}\n")),
    };
    let token = form.token.as_deref();
    if let Err(denial) = desk.access.admit_change(&head.headers, token, &desk.token) {
        return refuse(denial);
    }
    let (listens, centre) = (&desk.shown.listens, &desk.shown.centre);
    let followed = form.order.follow(listens, centre, desk.access.who()).await;
    match followed {
        Ok(effect) => see(desk, &effect).await,
        Err(error) => return say(error.status(), PLAIN, format!("{error}\n")),
    }
    let mut answer = say(StatusCode::SEE_OTHER, PLAIN, "done; see /stats\n".into());
    let location = HeaderValue::from_static("/stats");
    answer.headers_mut().insert(header::LOCATION, location);
    answer
}

/// Waits until what is shown shows it. If there is no more look, the gateway ends.
async fn see(desk: &Desk, effect: &change::Effect) {
    let mut snapshots = desk.snapshots.clone();
    snapshots.mark_unchanged();
    let seen = async {
        match effect {
            change::Effect::Now => snapshots.changed().await.ok(),
            change::Effect::Routed(..) => {
                let shows = |snapshot: &Arc<Snapshot>| effect.is_in(snapshot);
                snapshots.wait_for(shows).await.ok().map(drop)
            }
        }
    };
    timeout(SEEN_TIME, seen).await.ok();
}

/// In which form the statistics are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Form {
    #[default]
    Page,
    Csv,
    Json,
}

/// What stands behind the first `;`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Choice {
    form: Form,
    view: View,
}

/// A path and what is behind its `;`, as HAProxy writes it. What is unknown is passed over, as HAProxy does.
fn split(path: &str) -> (&str, Choice) {
    let mut words = path.split(';');
    let path = words.next().unwrap_or_default();
    let mut choice = Choice::default();
    for word in words {
        match word {
            "csv" => choice.form = Form::Csv,
            "json" => choice.form = Form::Json,
            "norefresh" => choice.view.refresh = Refresh::No,
            "up" => choice.view.servers = Servers::Up,
            _ => {}
        }
    }
    (path, choice)
}

fn stream(desk: &Desk, view: View) -> Answer {
    let Ok(place) = Arc::clone(&desk.streams).try_acquire_owned() else {
        let text = format!("{STREAMS_MAX} pages are kept fresh already; close one of them\n");
        return say(StatusCode::SERVICE_UNAVAILABLE, PLAIN, text);
    };
    let stream = events::stream(desk.snapshots.clone(), view, place);
    dress(
        StatusCode::OK,
        EVENTS,
        StreamBody::new(stream).boxed_unsync(),
    )
}

fn refuse(denial: Denial) -> Answer {
    match denial {
        Denial::Unknown => {
            let text = "statistics are for those who know `stats_auth` of the node's file\n";
            let mut answer = say(StatusCode::UNAUTHORIZED, PLAIN, text.into());
            let realm = HeaderValue::from_static("Basic realm=\"Mainstay\", charset=\"UTF-8\"");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
            answer
        }
        Denial::ForeignHost => {
            let text = "`Host` does not name this port of this machine: use the address that `mainstay status` shows\n";
            say(StatusCode::FORBIDDEN, PLAIN, text.into())
        }
        Denial::ForeignOrigin => {
            let text = "a page of another site asked for this\n";
            say(StatusCode::FORBIDDEN, PLAIN, text.into())
        }
        Denial::NoToken => {
            let text = "the token is missing or wrong: give `token=` as it stands in the file `token` of the state directory\n";
            say(StatusCode::FORBIDDEN, PLAIN, text.into())
        }
        Denial::NoOrigin => {
            let text = "`Origin` is missing: send it with the address of this page, or give the API's token as `token=`\n";
            say(StatusCode::FORBIDDEN, PLAIN, text.into())
        }
        Denial::NoTokenFile => {
            let text = "this node has no token of an API, so nothing can be changed here without `stats_auth` in the node's file\n";
            say(StatusCode::FORBIDDEN, PLAIN, text.into())
        }
    }
}

fn ok(kind: &'static str, text: String) -> Answer {
    say(StatusCode::OK, kind, text)
}

/// A file of ours; it is small, and a new version must be seen at once.
fn fixed(kind: &'static str, text: &'static str) -> Answer {
    let body = Full::new(Bytes::from_static(text.as_bytes()));
    dress(StatusCode::OK, kind, body.boxed_unsync())
}

fn say(status: StatusCode, kind: &'static str, text: String) -> Answer {
    dress(status, kind, Full::new(Bytes::from(text)).boxed_unsync())
}

/// Nothing from elsewhere, nothing inline, in nobody's frame, in no cache.
const HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

fn dress(status: StatusCode, kind: &'static str, body: Body) -> Answer {
    let mut headers = HeaderMap::with_capacity(HEADERS.len() + 1);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_behind_a_semicolon_is_read_as_haproxy_reads_it() {
        let (path, choice) = split("/stats;csv;norefresh");
        assert_eq!((path, choice.form), ("/stats", Form::Csv));
        assert_eq!(choice.view.refresh, Refresh::No);
        let (path, choice) = split("/stats;up;unknown=1");
        assert_eq!((path, choice.form), ("/stats", Form::Page));
        assert_eq!(choice.view.servers, Servers::Up);
        assert_eq!(split("/stats"), ("/stats", Choice::default()));
    }
}
