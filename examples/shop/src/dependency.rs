//! Asking another service at its service address, over connections that are kept.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{Asked, BLAME_HEADERS, NONCE_HEADER};

/// How long a dependency may take to answer, retry included.
const DEADLINE: Duration = Duration::from_secs(4);

/// The longest answer.
const ANSWER_LEN_MAX: usize = 64 * 1024;

/// Connections that are kept while nobody uses them: as many as a service of this size ever needs
/// at once.
const IDLE_MAX: usize = 64;

/// Another service.
#[derive(Debug)]
pub struct Dependency {
    name: &'static str,
    address: SocketAddr,
    /// All of a service is on one thread, and no borrow lasts over an await.
    idle: RefCell<Vec<SendRequest<Full<Bytes>>>>,
}

/// A dependency did not do what it was asked.
#[derive(Debug)]
pub struct Failed {
    /// A sentence for people.
    pub what: String,
    /// What the gateway said of it: [`BLAME_HEADERS`].
    pub blame: [Option<HeaderValue>; 2],
}

/// What may be done after an attempt came to nothing.
enum Attempt {
    /// It was never sent, or it is safe and met a connection that had died.
    Again(hyper::Error),
    Over(Failed),
}

impl Dependency {
    /// The service of that name at that address.
    pub fn new(name: &'static str, address: SocketAddr) -> Self {
        Self {
            name,
            address,
            idle: RefCell::new(Vec::new()),
        }
    }

    /// Asks it the same as we were asked, at `path`; gives the JSON of its answer.
    pub async fn ask(&self, asked: &Asked, path: &str) -> Result<Value, Failed> {
        let attempts = async {
            // A kept connection may have died unnoticed; then a fresh one is tried once.
            if let Some(kept) = self.take_idle() {
                match self.ask_on(kept, asked, path).await {
                    Ok(answer) => return Ok(answer),
                    Err(Attempt::Over(failed)) => return Err(failed),
                    Err(Attempt::Again(_)) => {}
                }
            }
            let fresh = self.connect().await?;
            self.ask_on(fresh, asked, path)
                .await
                .map_err(|attempt| match attempt {
                    Attempt::Again(error) => self.failed(&error),
                    Attempt::Over(failed) => failed,
                })
        };
        timeout(DEADLINE, attempts)
            .await
            .unwrap_or_else(|_| Err(self.failed(&"it did not answer in time")))
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|sender| !sender.is_closed());
        idle.pop()
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failed> {
        let stream = TcpStream::connect(self.address)
            .await
            .map_err(|error| self.failed(&error))?;
        stream
            .set_nodelay(true)
            .map_err(|error| self.failed(&error))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.failed(&error))?;
        // Ends with its sender; its error reaches whoever waits for an answer on it.
        tokio::task::spawn_local(connection);
        Ok(sender)
    }

    async fn ask_on(
        &self,
        mut sender: SendRequest<Full<Bytes>>,
        asked: &Asked,
        path: &str,
    ) -> Result<Value, Attempt> {
        let mut request = Request::new(Full::default());
        *request.method_mut() = asked.method.clone();
        *request.uri_mut() = path
            .parse()
            .map_err(|error| Attempt::Over(self.failed(&error)))?;
        let host = HeaderValue::from_str(&self.address.to_string());
        let headers = request.headers_mut();
        headers.insert(
            header::HOST,
            host.map_err(|error| Attempt::Over(self.failed(&error)))?,
        );
        if let Some(nonce) = &asked.nonce {
            headers.insert(NONCE_HEADER, nonce.clone());
        }
        let response = match sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut error) => {
                let unsent = error.take_message().is_some();
                let error = error.into_error();
                let safe = asked.method == Method::GET;
                return Err(if unsent || safe {
                    Attempt::Again(error)
                } else {
                    Attempt::Over(self.failed(&error))
                });
            }
        };
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_LEN_MAX).collect().await;
        let body = body
            .map_err(|error| Attempt::Over(self.failed(&error)))?
            .to_bytes();
        if !sender.is_closed() && self.idle.borrow().len() < IDLE_MAX {
            self.idle.borrow_mut().push(sender);
        }
        if !head.status.is_success() {
            let mut failed = self.failed(&format!("it answered {}", head.status));
            failed.blame = blame(&head.headers);
            return Err(Attempt::Over(failed));
        }
        serde_json::from_slice(&body).map_err(|error| Attempt::Over(self.failed(&error)))
    }

    fn failed(&self, why: &dyn std::fmt::Display) -> Failed {
        Failed {
            what: format!("{} failed: {why}", self.name),
            blame: [None, None],
        }
    }
}

fn blame(headers: &HeaderMap) -> [Option<HeaderValue>; 2] {
    BLAME_HEADERS.map(|name| headers.get(name).cloned())
}
