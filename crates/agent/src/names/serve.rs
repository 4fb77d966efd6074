//! The sockets: queries in, answers out, in bounds.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::clients::{Client, Crowd, Entered, Gate, Limits, Standing};
use super::others::Way;
use super::reply::{Transport, Verdict, verdict};
use super::upstream::{framed, read_framed};
use super::wire::{Code, Question};
use super::zone::Zone;
use crate::context::Clock;

/// The longest query. A question has some 270 bytes; the rest is for what clients add (cookies, padding).
const QUERY_LEN_MAX: usize = 4096;

/// Queries of datagrams that are being asked of others, each with a socket and some 5 kB. Full: the
/// client is told a failure, and asks its next server.
const FORWARDED: Limits = Limits {
    all: 512,
    // All programs of this machine may be one client: a resolver that asks for them.
    per_client: 256,
};

/// Connections, each with a task and a message. Full: a new one is closed.
const CONNECTIONS: Limits = Limits {
    all: 128,
    per_client: 32,
};

/// For a client's connection between two queries (RFC 7766, 6.2.3: seconds).
const IDLE_TIME: Duration = Duration::from_secs(10);

/// For a query, from the first of its bytes to the last.
const QUERY_TIME: Duration = Duration::from_secs(5);

/// For an answer to be taken by the kernel: the client does not read.
const WRITE_TIME: Duration = Duration::from_secs(5);

/// After an `accept` or a `recv` that failed for want of something: it fails again until that is there.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// How often strangers are told of in the log.
const STRANGERS_TOLD_EVERY: Duration = Duration::from_mins(1);

/// What every query needs.
#[derive(Debug, Clone)]
pub(super) struct Counter {
    pub(super) zone: watch::Receiver<Arc<Zone>>,
    pub(super) way: Way,
    pub(super) clock: Clock,
}

/// What is done with a query.
enum Course {
    Nothing,
    Say(Vec<u8>),
    AskOthers,
}

impl Counter {
    fn course(&self, query: &[u8], transport: Transport) -> Course {
        let zone = Arc::clone(&self.zone.borrow());
        match verdict(query, transport, &zone, self.way.others()) {
            Verdict::Silence => Course::Nothing,
            Verdict::Answer(answer) => Course::Say(answer),
            Verdict::Forward => match self.way.comes_back(query) {
                Some(answer) => Course::Say(answer),
                None => Course::AskOthers,
            },
        }
    }
}

/// Strangers, told once in a while: what they send is cheap, and a line for each is not.
struct Strangers {
    count: u64,
    next: tokio::time::Instant,
}

impl Strangers {
    fn new() -> Self {
        Self {
            count: 0,
            next: tokio::time::Instant::now(),
        }
    }

    fn saw(&mut self, from: SocketAddr) {
        self.count += 1;
        let now = tokio::time::Instant::now();
        if now >= self.next {
            self.next = now + STRANGERS_TOLD_EVERY;
            let count = std::mem::take(&mut self.count);
            tracing::warn!(%from, count, "who is not named in `allow` of `[names]` asked, and got no answer");
        }
    }
}

/// Answers datagrams until `stop`.
///
/// A stranger gets nothing, not even a refusal: sources can be forged, and then that would go to somebody
/// who did not ask.
pub(super) async fn datagrams(
    socket: UdpSocket,
    counter: Counter,
    mut gate: Gate,
    stop: CancellationToken,
) {
    let socket = Arc::new(socket);
    let mut crowd = Crowd::new(FORWARDED);
    let mut strangers = Strangers::new();
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut clients: HashMap<Id, Client> = HashMap::new();
    // One byte more than a query may have, so that a longer one is seen to be longer.
    let mut room = vec![0; QUERY_LEN_MAX + 1];
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => return,
            Some(ended) = tasks.join_next_with_id() => {
                if let Some(client) = clients.remove(&id_of(ended)) {
                    crowd.leave(client);
                }
                continue;
            }
            received = socket.recv_from(&mut room) => received,
        };
        let (len, from) = match received {
            Ok(received) => received,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        if gate.standing(from, counter.clock.now()) == Standing::Stranger {
            strangers.saw(from);
            continue;
        }
        if len > QUERY_LEN_MAX {
            continue;
        }
        let query = &room[..len];
        match counter.course(query, Transport::Udp) {
            Course::Nothing => {}
            Course::Say(answer) => send(&socket, &answer, from),
            Course::AskOthers => {
                let client = Client::of(from);
                if crowd.enter(client) == Entered::Full {
                    if let Ok(question) = Question::read(query) {
                        send(&socket, &question.refuse(Code::ServerFailure), from);
                    }
                    continue;
                }
                let (socket, way, query) =
                    (Arc::clone(&socket), counter.way.clone(), query.to_vec());
                // Joined above; its end makes room.
                let task = tasks.spawn(async move {
                    if let Some(answer) = way.ask(&query, Transport::Udp).await {
                        send(&socket, &answer, from);
                    }
                });
                clients.insert(task.id(), client);
            }
        }
    }
}

/// Without waiting: a datagram that the kernel has no room for is lost, as on any way, and asked for again.
fn send(socket: &UdpSocket, answer: &[u8], to: SocketAddr) {
    if let Err(error) = socket.try_send_to(answer, to) {
        tracing::debug!(%to, %error, "an answer could not be sent");
    }
}

/// Answers connections until `stop`. A stranger's is closed before anything is read of it.
pub(super) async fn connections(
    listener: TcpListener,
    counter: Counter,
    mut gate: Gate,
    stop: CancellationToken,
) {
    let mut crowd = Crowd::new(CONNECTIONS);
    let mut strangers = Strangers::new();
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut clients: HashMap<Id, Client> = HashMap::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            Some(ended) = tasks.join_next_with_id() => {
                if let Some(client) = clients.remove(&id_of(ended)) {
                    crowd.leave(client);
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        if gate.standing(from, counter.clock.now()) == Standing::Stranger {
            strangers.saw(from);
            continue;
        }
        let client = Client::of(from);
        if crowd.enter(client) == Entered::Full {
            continue;
        }
        let counter = counter.clone();
        // Joined above; it ends with the connection, which deadlines end.
        let task = tasks.spawn(async move {
            if let Err(error) = converse(stream, &counter).await {
                tracing::debug!(%from, %error, "a connection ended");
            }
        });
        clients.insert(task.id(), client);
    }
}

/// One query after the other, until the client is silent or wrong.
async fn converse(mut stream: TcpStream, counter: &Counter) -> io::Result<()> {
    // An answer is one write.
    stream.set_nodelay(true)?;
    let late = |what: &str| io::Error::new(io::ErrorKind::TimedOut, what.to_owned());
    loop {
        timeout(IDLE_TIME, stream.readable())
            .await
            .map_err(|_| late("the client asks nothing"))??;
        let query = timeout(QUERY_TIME, read_framed(&mut stream, QUERY_LEN_MAX))
            .await
            .map_err(|_| late("the client does not finish its query"))??;
        let answer = match counter.course(&query, Transport::Tcp) {
            Course::Nothing => return Ok(()),
            Course::Say(answer) => answer,
            Course::AskOthers => match counter.way.ask(&query, Transport::Tcp).await {
                Some(answer) => answer,
                None => return Ok(()),
            },
        };
        let framed = framed(&answer)?;
        timeout(WRITE_TIME, stream.write_all(&framed))
            .await
            .map_err(|_| late("the client does not read its answer"))??;
    }
}

fn id_of(ended: Result<(Id, ()), JoinError>) -> Id {
    match ended {
        Ok((id, ())) => id,
        Err(error) => {
            tracing::error!(%error, "the task of a query failed");
            error.id()
        }
    }
}

/// A socket that fails at once would fail in a circle. What came back for an earlier answer (nobody
/// listens there any more) is no failure of ours.
async fn pause_after(error: &io::Error) {
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
    ) {
        return;
    }
    tracing::warn!(%error, "a socket for names failed");
    sleep(ERROR_PAUSE).await;
}
