//! How the command line, the agent and the gateway call the control centre.
//!
//! One connection per call: on a unix socket it costs some twenty microseconds, and no call can
//! fail because an idle connection had died. A [`Watch`] keeps its own.

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::wire::{Problem, WATCH_PULSE};

/// The control centre is on this machine: if it does not accept within this, it is not there.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// No call waits for anything but a durable write of the state; a disk that needs longer than this
/// is a failure that the caller must hear of.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// A watch that is silent for three pulses is taken for dead.
const WATCH_SILENCE_MAX: Duration = WATCH_PULSE.saturating_mul(3);

/// The longest answer, and the longest line of a watch: ten times what 500 services with 10
/// instances each need. More is a fault of the other side and would only fill memory.
const ANSWER_LEN_MAX: usize = 64 * 1024 * 1024;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody accepts connections there.
    #[error("cannot reach the control centre at {server}")]
    Connect {
        /// Where.
        server: Server,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The other side did not answer in time.
    #[error("the control centre at {server} did not answer {call} in time")]
    Deadline {
        /// Where.
        server: Server,
        /// The method and path.
        call: String,
    },
    /// The connection broke.
    #[error("the connection to the control centre broke during {call}")]
    Broken {
        /// The method and path.
        call: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// The answer is not what the path gives: the two sides are not of the same version.
    #[error("the control centre's answer to {call} cannot be understood")]
    Answer {
        /// The method and path.
        call: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The answer is larger than it can be.
    #[error("the control centre's answer to {call} is longer than {ANSWER_LEN_MAX} bytes")]
    TooLong {
        /// The method and path.
        call: String,
    },
    /// The call was refused.
    #[error("refused by the control centre")]
    Refused(#[source] Problem),
    /// The call was refused with a code that this version does not know.
    #[error("refused by a control centre of another version")]
    RefusedOtherwise(#[source] OtherProblem),
    /// A path or token that cannot stand in a request.
    #[error("{call} is not a legal request")]
    Request {
        /// The method and path.
        call: String,
        /// Why.
        #[source]
        source: http::Error,
    },
}

/// A refusal of a control centre of another version; its message is as good as any.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("{message} ({code})")]
pub struct OtherProblem {
    /// The word for programs, which this one does not know.
    pub code: String,
    /// What was attempted, on what, and why it was refused.
    pub message: String,
    /// What to do about it.
    #[serde(default)]
    pub remedy: Option<String>,
}

impl Error {
    /// Whether the control centre was not there or went away, so that a later try may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Deadline { .. } | Self::Broken { .. } => true,
            Self::Answer { .. }
            | Self::TooLong { .. }
            | Self::Refused(_)
            | Self::RefusedOtherwise(_)
            | Self::Request { .. } => false,
        }
    }
}

/// Where a control centre listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// Its unix socket.
    Unix(PathBuf),
    /// Its loopback port, with the bearer token.
    Tcp {
        /// The port's address.
        address: SocketAddr,
        /// The content of the file `token`.
        token: String,
    },
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp { address, .. } => write!(f, "http://{address}"),
        }
    }
}

/// A caller of one control centre; cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    server: Server,
}

impl Client {
    /// A caller of the control centre at `server`; nothing is connected yet.
    pub fn new(server: Server) -> Self {
        Self { server }
    }

    /// A caller of the control centre that listens on the unix socket at `path`.
    pub fn unix(path: &Path) -> Self {
        Self::new(Server::Unix(path.to_owned()))
    }

    /// Reads what `path` gives.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    /// Sends `body` to `path`.
    pub async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, Error> {
        let encoded = serde_json::to_vec(body).map_err(|source| Error::Answer {
            call: format!("POST {path}"),
            source,
        })?;
        self.call(Method::POST, path, encoded.into()).await
    }

    /// Puts `body` at `path`.
    pub async fn put<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, Error> {
        let encoded = serde_json::to_vec(body).map_err(|source| Error::Answer {
            call: format!("PUT {path}"),
            source,
        })?;
        self.call(Method::PUT, path, encoded.into()).await
    }

    /// Deletes what is at `path`.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.call(Method::DELETE, path, Bytes::new()).await
    }

    /// Opens a stream of values: a watch of states, or a list of events.
    pub async fn watch<T: DeserializeOwned>(&self, path: &str) -> Result<Watch<T>, Error> {
        let call = format!("GET {path}");
        let (response, connection) = timeout(
            CALL_DEADLINE,
            self.send(Method::GET, path, Bytes::new(), &call),
        )
        .await
        .map_err(|_| self.too_late(&call))??;
        if !response.status().is_success() {
            let body = timeout(CALL_DEADLINE, collect(response.into_body(), &call))
                .await
                .map_err(|_| self.too_late(&call))??;
            return Err(refusal(&body, &call));
        }
        Ok(Watch {
            server: self.server.clone(),
            call,
            body: response.into_body(),
            _connection: connection,
            lines: Lines::default(),
            item: PhantomData,
        })
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, Error> {
        let call = format!("{method} {path}");
        let exchange = async {
            let (response, _connection) = self.send(method, path, body, &call).await?;
            let status = response.status();
            Ok((status, collect(response.into_body(), &call).await?))
        };
        let (status, body): (StatusCode, Bytes) = timeout(CALL_DEADLINE, exchange)
            .await
            .map_err(|_| self.too_late(&call))??;
        if !status.is_success() {
            return Err(refusal(&body, &call));
        }
        serde_json::from_slice(&body).map_err(|source| Error::Answer { call, source })
    }

    fn too_late(&self, call: &str) -> Error {
        Error::Deadline {
            server: self.server.clone(),
            call: call.to_owned(),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        call: &str,
    ) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), Error> {
        let request = self
            .request(method, path, body)
            .map_err(|source| Error::Request {
                call: call.to_owned(),
                source,
            })?;
        let unreachable = |source| Error::Connect {
            server: self.server.clone(),
            source,
        };
        let too_late = |_| unreachable(io::ErrorKind::TimedOut.into());
        match &self.server {
            Server::Unix(path) => {
                let stream = timeout(CONNECT_DEADLINE, UnixStream::connect(path)).await;
                exchange(
                    stream.map_err(too_late)?.map_err(unreachable)?,
                    request,
                    call,
                )
                .await
            }
            Server::Tcp { address, .. } => {
                let stream = timeout(CONNECT_DEADLINE, TcpStream::connect(address)).await;
                exchange(
                    stream.map_err(too_late)?.map_err(unreachable)?,
                    request,
                    call,
                )
                .await
            }
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::builder().method(method).uri(path).header(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        request = match &self.server {
            Server::Unix(_) => request.header(header::HOST, "localhost"),
            Server::Tcp { address, token } => request
                .header(header::HOST, address.to_string())
                .header(header::AUTHORIZATION, format!("Bearer {token}")),
        };
        request.body(Full::new(body))
    }
}

/// Sends one request over a fresh connection. The connection ends with the returned handle.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    call: &str,
) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), Error> {
    let broken = |source| Error::Broken {
        call: call.to_owned(),
        source,
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // The connection's own error reaches the caller through the request or its body.
    let connection = AbortOnDropHandle::new(tokio::spawn(async move {
        connection.await.ok();
    }));
    let response = sender.send_request(request).await.map_err(broken)?;
    Ok((response, connection))
}

async fn collect(mut body: Incoming, call: &str) -> Result<Bytes, Error> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|source| Error::Broken {
            call: call.to_owned(),
            source,
        })?;
        if let Ok(chunk) = frame.into_data() {
            whole.extend_from_slice(&chunk);
        }
        if whole.len() > ANSWER_LEN_MAX {
            return Err(Error::TooLong {
                call: call.to_owned(),
            });
        }
    }
    Ok(whole.freeze())
}

fn refusal(body: &[u8], call: &str) -> Error {
    if let Ok(problem) = serde_json::from_slice(body) {
        return Error::Refused(problem);
    }
    match serde_json::from_slice(body) {
        Ok(problem) => Error::RefusedOtherwise(problem),
        Err(source) => Error::Answer {
            call: call.to_owned(),
            source,
        },
    }
}

/// A stream of values, one JSON document a line. Dropping it ends its connection.
#[derive(Debug)]
pub struct Watch<T> {
    server: Server,
    call: String,
    body: Incoming,
    _connection: AbortOnDropHandle<()>,
    lines: Lines,
    item: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Watch<T> {
    /// The next value; `None` when the other side ended the stream. Safe to cancel: no value is
    /// lost when the future is dropped before it is ready.
    pub async fn next(&mut self) -> Result<Option<T>, Error> {
        loop {
            while let Some(line) = self.lines.next() {
                if !line.is_empty() {
                    return serde_json::from_slice(&line).map(Some).map_err(|source| {
                        Error::Answer {
                            call: self.call.clone(),
                            source,
                        }
                    });
                }
            }
            let silence = || Error::Deadline {
                server: self.server.clone(),
                call: self.call.clone(),
            };
            let frame = timeout(WATCH_SILENCE_MAX, self.body.frame())
                .await
                .map_err(|_| silence())?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|source| Error::Broken {
                call: self.call.clone(),
                source,
            })?;
            if let Ok(chunk) = frame.into_data()
                && self.lines.push(&chunk) == Fits::No
            {
                return Err(Error::TooLong {
                    call: self.call.clone(),
                });
            }
        }
    }
}

/// Whether a line fits into the memory that it may take.
#[derive(Debug, PartialEq, Eq)]
enum Fits {
    Yes,
    No,
}

/// Cuts a stream of bytes into lines, however it arrives.
#[derive(Debug, Default)]
struct Lines {
    whole: VecDeque<Bytes>,
    rest: BytesMut,
}

impl Lines {
    fn push(&mut self, mut chunk: &[u8]) -> Fits {
        while let Some(end) = chunk.iter().position(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(&chunk[..end]);
            self.whole.push_back(self.rest.split().freeze());
            chunk.advance(end + 1);
        }
        self.rest.extend_from_slice(chunk);
        if self.rest.len() > ANSWER_LEN_MAX {
            Fits::No
        } else {
            Fits::Yes
        }
    }

    fn next(&mut self) -> Option<Bytes> {
        self.whole.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ProblemCode;

    #[test]
    fn a_refusal_with_a_code_of_another_version_keeps_its_message() {
        let own = br#"{"code":"service-unknown","message":"there is none","remedy":"look"}"#;
        let Error::Refused(problem) = refusal(own, "GET /") else {
            panic!("it is one of ours");
        };
        assert_eq!(problem.code, ProblemCode::ServiceUnknown);
        for other in [
            "{\"code\":\"not_found\",\"message\":\"no\",\"remedy\":null}",
            "{\"code\":\"of-later\",\"message\":\"no\",\"remedy\":\"do\",\"more\":1}",
        ] {
            let Error::RefusedOtherwise(problem) = refusal(other.as_bytes(), "GET /") else {
                panic!("{other}");
            };
            assert_eq!(problem.message, "no");
        }
        assert!(matches!(refusal(b"no", "GET /"), Error::Answer { .. }));
    }

    #[test]
    fn lines_are_the_same_however_the_stream_is_cut() {
        let stream = b"{\"a\":1}\n\n{\"b\":2}\npart";
        for cut in 0..stream.len() {
            let mut lines = Lines::default();
            assert_eq!(lines.push(&stream[..cut]), Fits::Yes);
            assert_eq!(lines.push(&stream[cut..]), Fits::Yes);
            let found: Vec<Bytes> = std::iter::from_fn(|| lines.next()).collect();
            assert_eq!(
                found,
                [&b"{\"a\":1}"[..], b"", b"{\"b\":2}"],
                "cut at {cut}"
            );
            assert_eq!(&lines.rest[..], b"part");
        }
    }
}
