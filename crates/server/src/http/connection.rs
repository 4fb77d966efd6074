//! Accepting connections and serving each in a task of its own.

use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use mainstay_api::wire::ProblemCode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::admission::{Admission, Caller};
use super::patience::Patient;
use super::refusal::Refused;

/// Connections per listener. Callers make one per call and a few watches; a thousand idle ones of a
/// client gone wrong stay waiting in the kernel's queue until idle ones are closed. Each of the
/// two listeners counts its own, so that the loopback port cannot shut out the unix socket.
const CONNECTIONS_MAX: usize = 512;

/// How long a request's head may take.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// The longest head of a request. Ours are below 1 KiB; a browser's with its cookies below 8 KiB.
const HEAD_LEN_MAX: u32 = 32 * 1024;

/// The most header fields of one request: a browser sends twenty.
const HEADERS_MAX: usize = 64;

/// Requests at a time on one HTTP/2 connection. More are told to come again (RFC 9113, 5.1.2).
const HTTP2_STREAMS_MAX: u32 = 32;

/// Requests of one HTTP/2 connection that were taken back before they were looked at. More, and the
/// connection ends: asking and taking back costs the one who does it nothing (CVE-2023-44487).
const HTTP2_RESETS_MAX: usize = 32;

/// Requests of one HTTP/2 connection that were refused for an error of the protocol. More, and the
/// connection ends.
const HTTP2_ERRORS_MAX: usize = 32;

/// What is kept of one answer that its reader does not fetch; a watch holds one state besides.
const HTTP2_UNSENT_LEN_MAX: usize = 256 * 1024;

/// How long a connection may finish its request at the end; nothing here takes longer but a disk
/// that does not answer.
const STOP_DEADLINE: Duration = Duration::from_secs(2);

/// The pause after an accept that failed because the process has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One of the two places where the API listens.
pub(crate) enum Listener {
    /// The unix socket.
    Unix(UnixListener),
    /// The loopback port.
    Loopback(TcpListener),
}

/// A socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on the {socket} that was handed over")]
pub struct ListenError {
    socket: &'static str,
    #[source]
    source: io::Error,
}

impl Listener {
    pub(crate) fn unix(socket: StdUnixListener) -> Result<Self, ListenError> {
        let listener = socket
            .set_nonblocking(true)
            .and_then(|()| UnixListener::from_std(socket));
        listener.map(Self::Unix).map_err(|source| ListenError {
            socket: "unix socket",
            source,
        })
    }

    pub(crate) fn loopback(socket: std::net::TcpListener) -> Result<Self, ListenError> {
        let listener = socket
            .set_nonblocking(true)
            .and_then(|()| TcpListener::from_std(socket));
        listener.map(Self::Loopback).map_err(|source| ListenError {
            socket: "loopback port",
            source,
        })
    }

    /// Serves until `stop`, then ends every connection within [`STOP_DEADLINE`].
    pub(crate) async fn serve(self, router: Router, admission: Admission, stop: CancellationToken) {
        let door = Arc::new(Door { router, admission });
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            // A connection's end is handled by itself; here it is only taken out of the set.
            while connections.try_join_next().is_some() {}
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.accept(&places, &door.admission) => accepted,
            };
            match accepted {
                Ok((connection, place)) => {
                    let (door, stop) = (door.clone(), stop.clone());
                    connections.spawn(async move {
                        match connection {
                            Connection::Unix(stream, caller) => {
                                door.serve(stream, caller, stop).await;
                            }
                            Connection::Loopback(stream, caller) => {
                                door.serve(stream, caller, stop).await;
                            }
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // Each connection keeps the same deadline by itself; dropping the set ends what is left.
        while connections.join_next().await.is_some() {}
    }

    async fn accept(
        &self,
        places: &Arc<Semaphore>,
        admission: &Admission,
    ) -> io::Result<(Connection, OwnedSemaphorePermit)> {
        let place = places
            .clone()
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let connection = match self {
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let caller = admission.recognise(&stream)?;
                Connection::Unix(stream, caller)
            }
            Self::Loopback(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let port = stream.local_addr()?.port();
                Connection::Loopback(stream, Caller::Loopback { port })
            }
        };
        Ok((connection, place))
    }
}

/// One that was accepted, with who is at its other end.
enum Connection {
    Unix(UnixStream, Caller),
    Loopback(TcpStream, Caller),
}

/// What every connection is led through.
struct Door {
    router: Router,
    admission: Admission,
}

impl Door {
    async fn serve<S>(self: Arc<Self>, stream: S, caller: Caller, stop: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request: Request<Incoming>| {
            let door = self.clone();
            async move { Ok::<_, Infallible>(door.answer(caller, request).await) }
        });
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_DEADLINE)
            .max_buf_size(HEAD_LEN_MAX as usize)
            .max_headers(HEADERS_MAX);
        http.http2()
            .timer(TokioTimer::new())
            .max_header_list_size(HEAD_LEN_MAX)
            .max_concurrent_streams(HTTP2_STREAMS_MAX)
            .max_pending_accept_reset_streams(HTTP2_RESETS_MAX)
            .max_local_error_reset_streams(HTTP2_ERRORS_MAX)
            .max_send_buf_size(HTTP2_UNSENT_LEN_MAX);
        let io = TokioIo::new(Patient::new(stream));
        let mut connection = pin!(http.serve_connection(io, service));
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                timeout(STOP_DEADLINE, connection).await.ok()
            }
        };
        match ended {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::debug!(error, ?caller, "a connection broke"),
            None => tracing::warn!(?caller, "a connection did not end in time, it was cut"),
        }
    }

    async fn answer(&self, caller: Caller, request: Request<Incoming>) -> Response {
        let (parts, body) = request.into_parts();
        if let Err(refused) = self.admission.admit(caller, &parts) {
            return refused.into_response();
        }
        let mut request = Request::from_parts(parts, body);
        request.extensions_mut().insert(caller);
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        // What a call breaks is its own: the tasks of connections hold no state.
        let answered = AssertUnwindSafe(self.router.clone().oneshot(request)).catch_unwind();
        if let Ok(answered) = answered.await {
            return answered.unwrap_or_else(|never| match never {});
        }
        let message = format!("{method} {path} failed inside the control centre");
        tracing::error!("{message}: a fault of Mainstay, please report it");
        Refused::new(ProblemCode::InternalFault, message).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::admission::Standing;
    use crate::token::Token;
    use axum::routing::get;
    use http_body_util::{BodyExt as _, Empty};
    use mainstay_api::wire::Problem;
    use mainstay_testkit::TempDir;

    #[tokio::test]
    async fn a_call_that_breaks_is_answered_and_the_next_one_as_well() {
        let dir = TempDir::new("door");
        let token = Token::load_or_make(dir.path()).expect("makes one");
        let breaks = || async {
            assert!(std::hint::black_box(false), "broken on purpose");
        };
        let door = Arc::new(Door {
            router: Router::new().route("/breaks", get(breaks)),
            admission: Admission::new(token, None),
        });
        let (ours, theirs) = tokio::io::duplex(1024);
        let (uid, standing) = (0, Standing::Owner);
        let caller = Caller::Account { uid, standing };
        let stop = CancellationToken::new();
        let served = tokio::spawn(door.serve(theirs, caller, stop.clone()));
        let io = TokioIo::new(ours);
        let handshake = hyper::client::conn::http1::handshake(io).await;
        let (mut sender, connection) = handshake.expect("connects");
        let connection = tokio::spawn(connection);
        for _ in 0..2 {
            let request = Request::get("/breaks").body(Empty::<bytes::Bytes>::new());
            let answer = sender.send_request(request.expect("legal")).await;
            let body = answer.expect("answers").into_body().collect().await;
            let problem: Problem =
                serde_json::from_slice(&body.expect("is whole").to_bytes()).expect("a problem");
            assert_eq!(problem.code, ProblemCode::InternalFault);
        }
        stop.cancel();
        served.await.expect("no panic");
        connection.abort();
    }
}
