//! An open-loop load generator: each request has a planned time that no slow answer moves, and its
//! latency counts from there, so that a stall of the system shows in every request it delayed.
//!
//! It shares the machine with the system under test, so it is lean: HTTP/1.1 written by hand over
//! tokio, one thread per worker, no allocation for a request that succeeds.
//!
//! ```text
//! Load::start ──> thread worker 0..n                      (own runtime, own tally)
//!                   dispatcher ── job per planned time ──> queue of its target
//!                   connection tasks of the target <── take a job, exchange, count
//!                   └── one `Second` each second ──> live (bounded; a full one loses seconds)
//! Running::join <── tallies, added up to one Report
//! ```

mod connection;
mod pace;
mod report;
mod tally;
mod wire;
mod worker;

use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::str::FromStr;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use report::{Failure, Kind, Report, Second, Seconds, Strike, TargetReport};
pub use wire::{Fingerprint, fetch};

/// The header that carries a request's nonce, and in which a service of ours answers it.
pub const NONCE_HEADER: &str = "x-prove-nonce";

/// How long a request may take from its planned time before it counts as timed out: longer than
/// any pause that a fault may cause, short enough that a hang does not hide behind patience.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(5);

/// The workers need a moment to start before the first planned time.
const START_MARGIN: Duration = Duration::from_millis(20);

/// What is to be sent.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where to.
    pub targets: Vec<Target>,
    /// Requests per second over all targets.
    pub rate: NonZeroU32,
    /// How long, unless it is stopped earlier.
    pub duration: Duration,
    /// On which connections.
    pub connections: Connections,
    /// How many threads send.
    pub workers: NonZeroUsize,
    /// What the choice of requests and the nonces are drawn from.
    pub seed: u64,
}

/// How connections are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// So many for each target and worker are kept open and used in turn.
    Kept(NonZeroUsize),
    /// One for each request, at most so many at once for each target and worker.
    PerRequest(NonZeroUsize),
}

/// One service as its clients see it.
#[derive(Debug, Clone)]
pub struct Target {
    /// What it is called in the report.
    pub name: String,
    /// Where it is reached; several are used in turn.
    pub addresses: Vec<SocketAddr>,
    /// The `Host` that is asked for.
    pub host: String,
    /// What is asked.
    pub requests: Vec<Request>,
}

/// One kind of request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// How.
    pub method: Method,
    /// For what; `{n}` in it becomes a number from 0 to 999.
    pub path: String,
    /// With which body.
    pub body: String,
    /// How often, against the other requests.
    pub weight: NonZeroU32,
    /// How a right answer is told from a wrong one.
    pub expect: Expect,
}

/// The methods that are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Safe: a gateway may send it again when its instance died.
    Get,
    /// Unsafe: nobody may send it twice.
    Post,
}

/// How a right answer is told from a wrong one, on top of a status from 200 to 399.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The request's nonce stands in the header [`NONCE_HEADER`] and in the body.
    Nonce,
    /// The body is always this one.
    Body(Fingerprint),
    /// Any body of whole length.
    Whole,
}

/// Why a text is not a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a request; write for instance `GET /orders/{{n}}` or `POST /orders {{}}`")]
pub struct RequestError {
    text: String,
}

/// Why a load could not be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The load names no target, a target without an address, or one without a request.
    #[error("the load has nothing to send, or nowhere to send it")]
    Empty,
    /// A thread could not be started.
    #[error("cannot start a worker of the load generator")]
    Start(#[source] std::io::Error),
    /// A worker could not set up its runtime or its timer.
    #[error("a worker of the load generator cannot run")]
    Worker(#[source] std::io::Error),
    /// A defect of ours.
    #[error("a worker of the load generator panicked")]
    Panic,
}

/// A load that is being sent.
#[derive(Debug)]
pub struct Running {
    /// The planned time of the first request; every time in the report counts from here.
    pub started: Instant,
    names: Vec<String>,
    workers: Vec<JoinHandle<std::io::Result<tally::Tally>>>,
}

impl Load {
    /// Begins to send. `stop` ends it early: what was planned until then is still finished.
    pub fn start(
        self,
        live: Option<&mpsc::Sender<Second>>,
        stop: &CancellationToken,
    ) -> Result<Running, Error> {
        let reachable = |t: &Target| !t.addresses.is_empty() && !t.requests.is_empty();
        if self.targets.is_empty() || !self.targets.iter().all(reachable) {
            return Err(Error::Empty);
        }
        let started = Instant::now() + START_MARGIN;
        let names = self.targets.iter().map(|t| t.name.clone()).collect();
        let mut running = Running {
            started,
            names,
            workers: Vec::new(),
        };
        for index in 0..self.workers.get() {
            let share = worker::Share::new(&self, started, index);
            let (live, stop) = (live.cloned(), stop.clone());
            // Its result, a panic included, is taken up in `Running::join`.
            let thread = thread::Builder::new()
                .name(format!("load-{index}"))
                .spawn(move || share.run(live, stop))
                .map_err(Error::Start)?;
            running.workers.push(thread);
        }
        Ok(running)
    }
}

impl Running {
    /// Waits for the last answer and adds up; blocks its thread.
    pub fn join(self) -> Result<Report, Error> {
        let mut report = Report::new(self.started, self.names);
        for worker in self.workers {
            let tally = worker
                .join()
                .map_err(|_| Error::Panic)?
                .map_err(Error::Worker)?;
            report.add(tally);
        }
        Ok(report)
    }

    /// [`Running::join`] for those who may not block.
    pub async fn finish(self) -> Result<Report, Error> {
        tokio::task::spawn_blocking(|| self.join())
            .await
            .map_err(|_| Error::Panic)?
    }
}

impl Method {
    /// Whether sending it twice may do something twice.
    pub fn is_unsafe(self) -> bool {
        self == Self::Post
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Get => "GET",
            Self::Post => "POST",
        })
    }
}

impl Request {
    /// A GET of `path` whose answer is to carry the nonce.
    pub fn get(path: &str) -> Self {
        Self {
            method: Method::Get,
            path: path.to_owned(),
            body: String::new(),
            weight: NonZeroU32::MIN,
            expect: Expect::Nonce,
        }
    }
}

impl FromStr for Request {
    type Err = RequestError;

    /// `[WEIGHT] METHOD PATH [BODY]`, as in `3 GET /orders/{n}`.
    fn from_str(text: &str) -> Result<Self, RequestError> {
        let refused = || RequestError {
            text: text.to_owned(),
        };
        let (weight, rest) = match text.split_once(' ') {
            Some((first, rest)) if first.bytes().all(|b| b.is_ascii_digit()) => {
                (first.parse().map_err(|_| refused())?, rest)
            }
            _ => (NonZeroU32::MIN, text),
        };
        let mut words = rest.splitn(3, ' ');
        let method = match words.next() {
            Some("GET") => Method::Get,
            Some("POST") => Method::Post,
            _ => return Err(refused()),
        };
        let path = words
            .next()
            .filter(|path| is_path(path))
            .ok_or_else(refused)?;
        let body = words.next().unwrap_or_default().to_owned();
        if method == Method::Get && !body.is_empty() {
            return Err(refused());
        }
        Ok(Self {
            method,
            body,
            weight,
            ..Self::get(path)
        })
    }
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_people_write_it() {
        let post: Request = "3 POST /orders {\"item\": 1}".parse().unwrap();
        assert_eq!(
            (
                post.method,
                post.path.as_str(),
                post.body.as_str(),
                post.weight.get()
            ),
            (Method::Post, "/orders", "{\"item\": 1}", 3)
        );
        assert_eq!("GET /a".parse(), Ok(Request::get("/a")));
        for bad in [
            "",
            "GET",
            "PUT /a",
            "GET a",
            "0 GET /a",
            "GET /a body",
            "/a",
        ] {
            assert!(bad.parse::<Request>().is_err(), "{bad}");
        }
    }
}
