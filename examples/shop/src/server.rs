//! Serving, and ending without losing a request.
//!
//! At SIGTERM a service takes no new connections and says that it is not well. Those who hold a
//! connection may not know yet and are still answered, with the word that the connection ends now:
//! closing it while it is idle could meet their next request half-way.
//!
//! ```text
//! accept loop ──> a task per connection; all of one thread
//! SIGTERM ──> last answers (at most 1 s) ──> hang up what is idle, finish the rest ──> exit 0
//! ```

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

use crate::settings::{Fault, Settings};
use crate::{BLAME_HEADERS, NONCE_HEADER};

/// How long those who hold a connection may go on asking after SIGTERM: a busy client asks within
/// it and hears that the connection ends.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// How long a request may take after that.
const FINISH: Duration = Duration::from_secs(10);

/// The longest body of a request.
const BODY_LEN_MAX: usize = 64 * 1024;

/// A request, read whole.
#[derive(Debug)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// Its path.
    pub path: String,
    /// Its nonce, if it has one.
    pub nonce: Option<HeaderValue>,
}

/// What a service has to say.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// What stands in the JSON besides the service's own identity.
    pub content: Map<String, Value>,
    /// [`BLAME_HEADERS`] to pass on.
    pub blame: [Option<HeaderValue>; 2],
}

impl Answer {
    /// An answer without blame.
    pub fn new<const N: usize>(status: StatusCode, content: [(&str, Value); N]) -> Self {
        let content = content
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        Self {
            status,
            content,
            blame: [None, None],
        }
    }
}

/// How near its end a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    No,
    LastAnswers,
    HangUp,
}

/// A `main`: reads the environment and serves until SIGTERM. `make` gives what answers requests.
pub fn run<A, F>(service: &'static str, make: impl FnOnce() -> Result<A, String>) -> ExitCode
where
    A: Fn(Asked) -> F + 'static,
    F: Future<Output = Answer> + 'static,
{
    let ready = Settings::from_env(service).and_then(|settings| Ok((settings, make()?)));
    let (settings, answer) = match ready {
        Ok(ready) => ready,
        Err(problem) => {
            eprintln!("{service}: {problem}");
            return ExitCode::from(2);
        }
    };
    if settings.fault == Fault::Exit {
        eprintln!("{service}: ends at once, as SHOP_FAIL says");
        return ExitCode::FAILURE;
    }
    let served = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| {
            let serving = serve(service, settings, answer);
            LocalSet::new().block_on(&runtime, serving)
        });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{service}: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve<A, F>(service: &'static str, settings: Settings, answer: A) -> io::Result<()>
where
    A: Fn(Asked) -> F + 'static,
    F: Future<Output = Answer> + 'static,
{
    let mut terminate = signal(SignalKind::terminate())?;
    sleep(settings.start_delay).await;
    let listener = TcpListener::bind(settings.listen).await?;
    println!(
        "{} {} listens on {}",
        settings.instance, settings.version, settings.listen
    );
    let (closing, closed) = watch::channel(Closing::No);
    let shared = Rc::new(Shared {
        service,
        settings,
        answer,
        closing: closed,
    });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            // A panic of one ends that connection alone.
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn_local(Rc::clone(&shared).converse(stream));
                }
                // No descriptor is free; those that end free some.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
        }
    }
    drop(listener);
    println!("{} ends", shared.settings.instance);
    closing.send_replace(Closing::LastAnswers);
    // Whoever is left after this is idle or late, and is dealt with next.
    let _ = timeout(LAST_ANSWERS, drained(&mut connections)).await;
    closing.send_replace(Closing::HangUp);
    // A request that takes longer is cut off: the stop cannot wait for ever.
    let _ = timeout(FINISH, drained(&mut connections)).await;
    Ok(())
}

async fn drained(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

struct Shared<A> {
    service: &'static str,
    settings: Settings,
    answer: A,
    closing: watch::Receiver<Closing>,
}

impl<A, F> Shared<A>
where
    A: Fn(Asked) -> F + 'static,
    F: Future<Output = Answer> + 'static,
{
    async fn converse(self: Rc<Self>, stream: TcpStream) {
        // Without it an answer may wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let mut closing = self.closing.clone();
        let respond = service_fn(|request| {
            let shared = Rc::clone(&self);
            async move { Ok::<_, Infallible>(shared.respond(request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), respond);
        let mut connection = std::pin::pin!(connection);
        // What ends a connection early is the client's affair.
        tokio::select! {
            _ended = connection.as_mut() => return,
            _gone = closing.wait_for(|closing| *closing == Closing::HangUp) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ended = connection.await;
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let nonce = head.headers.get(NONCE_HEADER).cloned();
        let answer = if head.uri.path() == "/health" {
            self.health()
        } else if Limited::new(body, BODY_LEN_MAX).collect().await.is_err() {
            Answer::new(
                StatusCode::BAD_REQUEST,
                [("error", json!("the body cannot be read"))],
            )
        } else {
            // A sleep of nothing would still wait for the timer's next millisecond.
            if !self.settings.work.is_zero() {
                sleep(self.settings.work).await;
            }
            let path = head.uri.path().to_owned();
            (self.answer)(Asked {
                method: head.method,
                path,
                nonce: nonce.clone(),
            })
            .await
        };
        self.encode(answer, nonce)
    }

    fn health(&self) -> Answer {
        let well = self.settings.fault == Fault::None && *self.closing.borrow() == Closing::No;
        let status = if well {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        Answer::new(status, [("well", json!(well))])
    }

    fn encode(&self, answer: Answer, nonce: Option<HeaderValue>) -> Response<Full<Bytes>> {
        let mut content = answer.content;
        content.insert("service".into(), json!(self.service));
        content.insert("instance".into(), json!(self.settings.instance));
        content.insert("version".into(), json!(self.settings.version));
        if let Some(Ok(nonce)) = nonce.as_ref().map(HeaderValue::to_str) {
            content.insert("nonce".into(), json!(nonce));
        }
        let body = Value::Object(content).to_string();
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = answer.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        if let Some(nonce) = nonce {
            headers.insert(NONCE_HEADER, nonce);
        }
        for (name, value) in BLAME_HEADERS.into_iter().zip(answer.blame) {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        if *self.closing.borrow() != Closing::No {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
