//! Answers `GET /metrics` for a process that has nothing else to say over HTTP: one request per connection, few connections,
//! each with a deadline. What is answered is asked of whoever counts.
//!
//! ```text
//!   a task per connection, 16 ── mpsc Ask, 16 ──> whoever counts
//!     <── oneshot Bytes ─────────────────────────
//! ```
//!
//! It knows no names of metrics (`mainstay_exposition` writes them) and has no password: it is for addresses of loopback.
//! Start reading at [`serve`].

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Connections at a time: some collectors, and people who try it. More wait in the kernel's queue. As many questions may wait
/// for an answer.
pub const CONNECTIONS_MAX: usize = 16;
/// What was read may be shown again for so long: whoever asks all the time costs no more.
pub const FRESH: Duration = Duration::from_secs(1);
/// Hyper wants 8 KiB at least.
const HEAD_LEN_MAX: usize = 8 * 1024;
/// How long a head may take.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// How long a connection may last; with thousands of services an answer has some megabytes.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// Between two tries to listen, and after an accept that failed.
const RETRY: Duration = Duration::from_secs(5);

/// Whoever counts sends the text here. Who asked may be gone.
pub type Ask = oneshot::Sender<Bytes>;
type Answer = Response<Full<Bytes>>;

/// What is shown, for logs.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    /// For instance "forwarding".
    pub of: &'static str,
    /// Where another address is chosen, for instance "`metrics` in `[forward]`".
    pub key: &'static str,
}

async fn listen(at: SocketAddr, subject: Subject) -> TcpListener {
    let Subject { of, key } = subject;
    let mut is_told = false;
    loop {
        match TcpListener::bind(at).await {
            Ok(listener) => return listener,
            Err(error) if !is_told => {
                is_told = true;
                tracing::warn!(address = %at, %error, "metrics of {of} cannot be shown; trying again ({key})");
            }
            Err(_) => {}
        }
        sleep(RETRY).await;
    }
}

/// Listens, as soon as the address is free, and answers until it is dropped.
pub async fn serve(at: SocketAddr, subject: Subject, asks: mpsc::Sender<Ask>) {
    let listener = listen(at, subject).await;
    tracing::info!(address = %at, "metrics of {} are shown", subject.of);
    // Their ends are handled by themselves; dropping the set at the end closes them.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, asks.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for metrics");
                    sleep(RETRY).await;
                }
            }
        }
    }
}

async fn converse(stream: TcpStream, asks: mpsc::Sender<Ask>) {
    let service = service_fn(move |request| {
        let asks = asks.clone();
        async move { Ok::<_, Infallible>(answer(&request, &asks).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .keep_alive(false)
        .max_buf_size(HEAD_LEN_MAX);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    match timeout(ANSWER_TIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection for metrics broke"),
        Err(_) => tracing::debug!("a connection for metrics took too long, and was cut"),
    }
}

async fn answer(request: &Request<Incoming>, asks: &mpsc::Sender<Ask>) -> Answer {
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n");
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "metrics are read by GET\n");
        let allowed = HeaderValue::from_static("GET, HEAD");
        refused.headers_mut().insert(ALLOW, allowed);
        return refused;
    }
    let (reply, answer) = oneshot::channel();
    let text = match asks.send(reply).await {
        Ok(()) => answer.await.ok(),
        Err(_) => None,
    };
    let Some(text) = text else {
        return plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "metrics could not be read\n",
        );
    };
    let mut shown = Response::new(Full::new(text));
    let kind = HeaderValue::from_static(mainstay_exposition::CONTENT_TYPE);
    shown.headers_mut().insert(CONTENT_TYPE, kind);
    shown
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}
