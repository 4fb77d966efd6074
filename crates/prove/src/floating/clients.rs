//! The clients: each kind asks in its own rhythm, whether the ones before were answered or not, and writes down what it
//! saw. They run in a thread that has entered the namespace of the clients' machine.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc as threads;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::wire::ask;
use super::{Error, http2, websocket};

/// How long an answer is waited for: two times that a first packet is sent again, and more.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// What a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A new connection for each request.
    New,
    /// HTTP/1.1 with a connection that is kept.
    Kept,
    /// HTTP/2.
    Http2,
    /// A WebSocket.
    Websocket,
}

impl Kind {
    /// All, with how many there are of each and how often each asks.
    const ALL: [(Self, usize, Duration); 4] = [
        // One after the other begins every ten milliseconds: this is the rule by which outages are measured.
        (Self::New, 1, Duration::from_millis(10)),
        (Self::Kept, 4, Duration::from_millis(20)),
        (Self::Http2, 2, Duration::from_millis(20)),
        (Self::Websocket, 2, Duration::from_millis(50)),
    ];

    /// In the order of reports.
    pub(super) fn all() -> [Self; 4] {
        Self::ALL.map(|(kind, _, _)| kind)
    }

    /// What it is, for people.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::New => "a connection each",
            Self::Kept => "kept connections",
            Self::Http2 => "HTTP/2",
            Self::Websocket => "WebSockets",
        }
    }
}

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) kind: Kind,
    pub(super) began: Instant,
    pub(super) took: Duration,
    pub(super) seen: Seen,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    Answered,
    Failed(String),
    /// Of a WebSocket.
    SessionEnded,
}

type Book = Rc<RefCell<Vec<Asked>>>;

/// All of them, until they are stopped.
pub(super) struct Clients {
    stop: CancellationToken,
    thread: JoinHandle<Vec<Asked>>,
}

impl Clients {
    /// Starts them in the namespace of this file, against the floating address.
    pub(super) fn start(netns: &Path, address: SocketAddr) -> Result<Self, Error> {
        let stop = CancellationToken::new();
        let of_thread = stop.clone();
        let netns = netns.to_owned();
        let (ready, is_ready) = threads::sync_channel(1);
        let failed = |source| Error::Io {
            attempt: "start the clients".to_owned(),
            source,
        };
        let run = move || match prepare(&netns) {
            Ok(runtime) => {
                ready.send(Ok(())).ok();
                runtime.block_on(LocalSet::new().run_until(all(address, of_thread)))
            }
            Err(error) => {
                ready.send(Err(error)).ok();
                Vec::new()
            }
        };
        let thread = std::thread::Builder::new()
            .name("clients".into())
            .spawn(run)
            .map_err(failed)?;
        let started = is_ready.recv().map_err(io::Error::other);
        started.and_then(|started| started).map_err(failed)?;
        Ok(Self { stop, thread })
    }

    /// Ends them, when what they asked is answered; what they saw, in the order of its beginning.
    pub(super) fn stop(self) -> Vec<Asked> {
        self.stop.cancel();
        let mut asked = self.thread.join().unwrap_or_default();
        asked.sort_by_key(|one| one.began);
        asked
    }
}

fn prepare(netns: &Path) -> io::Result<tokio::runtime::Runtime> {
    let file = std::fs::File::open(netns)?;
    let kind = Some(rustix::thread::LinkNameSpaceType::Network);
    rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), kind)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

async fn all(address: SocketAddr, stop: CancellationToken) -> Vec<Asked> {
    let book = Book::default();
    let mut clients = JoinSet::new();
    for (kind, count, every) in Kind::ALL {
        for _ in 0..count {
            let (book, stop) = (Rc::clone(&book), stop.clone());
            clients.spawn_local(async move {
                let mut due = interval(every);
                due.set_missed_tick_behavior(MissedTickBehavior::Skip);
                match kind {
                    Kind::New => fresh(address, due, stop, book).await,
                    Kind::Kept => kept(address, due, stop, book).await,
                    Kind::Http2 => over_http2(address, due, stop, book).await,
                    Kind::Websocket => sessions(address, due, stop, book).await,
                }
            });
        }
    }
    while clients.join_next().await.is_some() {}
    book.take()
}

/// Writes down what became of a request.
fn note(book: &Book, kind: Kind, began: Instant, seen: Result<io::Result<()>, ()>) {
    let seen = match seen {
        Ok(Ok(())) => Seen::Answered,
        Ok(Err(error)) => Seen::Failed(error.to_string()),
        Err(()) => Seen::Failed(format!("no answer within {DEADLINE:?}")),
    };
    let took = began.elapsed();
    book.borrow_mut().push(Asked {
        kind,
        began,
        took,
        seen,
    });
}

fn request(address: SocketAddr, more: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: {address}\r\n{more}\r\n")
}

fn check(status: Option<u16>) -> io::Result<()> {
    match status {
        Some(200) => Ok(()),
        other => Err(io::Error::other(format!("answered {other:?}"))),
    }
}

async fn fresh(
    address: SocketAddr,
    mut due: tokio::time::Interval,
    stop: CancellationToken,
    book: Book,
) {
    let mut under_way = JoinSet::new();
    // Those that hang are as many as begin within the deadline.
    while stop.run_until_cancelled(due.tick()).await.is_some() {
        while under_way.try_join_next().is_some() {}
        let (book, began) = (Rc::clone(&book), Instant::now());
        under_way.spawn_local(async move {
            let asked = async {
                let mut stream = TcpStream::connect(address).await?;
                let head = ask(&mut stream, &request(address, "connection: close\r\n")).await?;
                check(head.status())
            };
            let seen = timeout(DEADLINE, asked).await.map_err(drop);
            note(&book, Kind::New, began, seen);
        });
    }
    while under_way.join_next().await.is_some() {}
}

async fn kept(
    address: SocketAddr,
    mut due: tokio::time::Interval,
    stop: CancellationToken,
    book: Book,
) {
    let mut connection: Option<TcpStream> = None;
    while stop.run_until_cancelled(due.tick()).await.is_some() {
        let began = Instant::now();
        let asked = async {
            // One that was closed while it was idle is left, as every client does.
            let idle = connection.take().filter(|stream| !is_closed(stream));
            let mut stream = match idle {
                Some(stream) => stream,
                None => TcpStream::connect(address).await?,
            };
            let head = ask(&mut stream, &request(address, "")).await?;
            if !head.says("connection", "close") {
                connection = Some(stream);
            }
            check(head.status())
        };
        let seen = timeout(DEADLINE, asked).await.map_err(drop);
        note(&book, Kind::Kept, began, seen);
    }
}

/// Whether the other side has ended the connection.
fn is_closed(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0]) {
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        Ok(_) => true,
    }
}

async fn over_http2(
    address: SocketAddr,
    mut due: tokio::time::Interval,
    stop: CancellationToken,
    book: Book,
) {
    let mut client = http2::Client::default();
    while stop.run_until_cancelled(due.tick()).await.is_some() {
        let began = Instant::now();
        let seen = timeout(DEADLINE, client.ask(address)).await.map_err(drop);
        if seen.is_err() {
            client.forget();
        }
        note(&book, Kind::Http2, began, seen);
    }
}

async fn sessions(
    address: SocketAddr,
    mut due: tokio::time::Interval,
    stop: CancellationToken,
    book: Book,
) {
    let mut client = websocket::Client::default();
    while stop.run_until_cancelled(due.tick()).await.is_some() {
        let began = Instant::now();
        let turn = timeout(DEADLINE, client.turn(address)).await;
        if matches!(turn, Ok(Ok(websocket::Turn::SessionEnded))) {
            book.borrow_mut().push(Asked {
                kind: Kind::Websocket,
                began,
                took: began.elapsed(),
                seen: Seen::SessionEnded,
            });
            continue;
        }
        let seen = turn.map(|turn| turn.map(drop)).map_err(drop);
        note(&book, Kind::Websocket, began, seen);
    }
}
