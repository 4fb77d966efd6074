//! Accepting connections and serving each in a task of its own.

use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::admission::{Admission, Caller};
use super::patience::Patient;

/// Connections per listener. Callers make one per call and a few watches; a thousand idle ones of a
/// client gone wrong stay waiting in the kernel's queue until idle ones are closed. Each of the
/// two listeners counts its own, so that the loopback port cannot shut out the unix socket.
const CONNECTIONS_MAX: usize = 512;

/// How long a request's head may take.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// Requests at a time on one HTTP/2 connection.
const HTTP2_STREAMS_MAX: u32 = 32;

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
                accepted = self.accept(&places) => accepted,
            };
            match accepted {
                Ok((connection, place)) => {
                    let (door, stop) = (door.clone(), stop.clone());
                    connections.spawn(async move {
                        match connection {
                            Connection::Unix(stream, account) => {
                                door.serve(stream, Caller::Account(account), stop).await;
                            }
                            Connection::Loopback(stream) => {
                                door.serve(stream, Caller::Loopback, stop).await;
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
    ) -> io::Result<(Connection, OwnedSemaphorePermit)> {
        let place = places
            .clone()
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let connection = match self {
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let account = stream.peer_cred()?.uid();
                Connection::Unix(stream, account)
            }
            Self::Loopback(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Connection::Loopback(stream)
            }
        };
        Ok((connection, place))
    }
}

/// One that was accepted; on the unix socket with the account of its other end.
enum Connection {
    Unix(UnixStream, u32),
    Loopback(TcpStream),
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
            .header_read_timeout(HEAD_DEADLINE);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(HTTP2_STREAMS_MAX);
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
        let answered = self.router.clone().oneshot(request).await;
        answered.unwrap_or_else(|never| match never {})
    }
}
