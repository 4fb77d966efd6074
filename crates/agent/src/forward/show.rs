//! Shows what is measured: `GET /metrics`, one request per connection.
//!
//! ```text
//!   a task per connection, 16 ── mpsc Ask, 16 ──> gather: reads at most once a second,
//!     <── oneshot ─────────────────────────────────  on a blocking thread
//! ```

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mainstay_forward::Meter;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::metrics::{self, Told};

/// Connections at a time: some collectors, and people who try it. More wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 16;
/// What was read is shown again for so long: whoever asks all the time costs no more.
const FRESH: Duration = Duration::from_secs(1);
/// Hyper wants 8 KiB at least.
const HEAD_LEN_MAX: usize = 8 * 1024;
/// How long a head may take.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// How long a connection may last; with thousands of services an answer has some megabytes.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// Between two tries to listen, and after an accept that failed.
const RETRY: Duration = Duration::from_secs(5);

type Ask = oneshot::Sender<Bytes>;
type Answer = Response<Full<Bytes>>;

/// Until `stop`. `told` is what is known of forwarding, `meter` comes once something forwards.
pub(super) async fn run(
    at: SocketAddr,
    told: watch::Receiver<Arc<Told>>,
    meter: oneshot::Receiver<Box<dyn Meter>>,
    stop: CancellationToken,
) {
    let (asks, asked) = mpsc::channel(CONNECTIONS_MAX);
    tokio::select! {
        () = stop.cancelled() => {}
        () = serve(at, asks) => {}
        () = gather(told, meter, asked) => {}
    }
}

async fn listen(at: SocketAddr) -> TcpListener {
    let mut is_told = false;
    loop {
        match TcpListener::bind(at).await {
            Ok(listener) => return listener,
            Err(error) if !is_told => {
                is_told = true;
                tracing::warn!(address = %at, %error, "metrics of forwarding cannot be shown; trying again (`metrics` in `[forward]`)");
            }
            Err(_) => {}
        }
        sleep(RETRY).await;
    }
}

async fn serve(at: SocketAddr, asks: mpsc::Sender<Ask>) {
    let listener = listen(at).await;
    tracing::info!(address = %at, "metrics of forwarding are shown");
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
    let kind = HeaderValue::from_static(metrics::CONTENT_TYPE);
    shown.headers_mut().insert(CONTENT_TYPE, kind);
    shown
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

/// Reads when it is asked. Who asks meanwhile gets the same.
async fn gather(
    told: watch::Receiver<Arc<Told>>,
    mut coming: oneshot::Receiver<Box<dyn Meter>>,
    mut asked: mpsc::Receiver<Ask>,
) {
    let mut meter: Option<Box<dyn Meter>> = None;
    let mut last: Option<(Instant, Bytes)> = None;
    while let Some(reply) = asked.recv().await {
        let text = match &last {
            Some((read, text)) if read.elapsed() < FRESH => text.clone(),
            Some(_) | None => {
                if let Ok(came) = coming.try_recv() {
                    meter = Some(came);
                }
                let told = Arc::clone(&told.borrow());
                let mut taken = meter.take();
                let reading = move || {
                    let text = match &mut taken {
                        Some(meter) => metrics::exposition(Some(meter.as_mut()), &told),
                        None => metrics::exposition(None, &told),
                    };
                    (taken, text)
                };
                let Ok((back, text)) = spawn_blocking(reading).await else {
                    tracing::error!(
                        "reading metrics of forwarding panicked; they are shown no more"
                    );
                    return;
                };
                meter = back;
                let text = Bytes::from(text);
                last = Some((Instant::now(), text.clone()));
                text
            }
        };
        // Whoever asked may be gone.
        reply.send(text).ok();
    }
}
