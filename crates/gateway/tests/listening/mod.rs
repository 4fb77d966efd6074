//! Listeners in this process, servers of raw sockets behind them, and clients of raw sockets before
//! them. Everything ends with its guard.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "tests; each file uses a part of this one"
)]

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mainstay_gateway::listen::snapshot::{ListenSnapshot, ServerSnapshot};
use mainstay_gateway::listen::{Error, Handle, HandleError, Listens, Options, Wanted};
use mainstay_ids::ListenName;
use mainstay_model::ListenSpec;
use mainstay_model::listen::{CheckKind, CheckSpec, ListenDraft, ServerName, ServerSpec};
use mainstay_testkit::{free_port, wait_until};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub const SOON: Duration = Duration::from_secs(20);

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

pub fn name(text: &str) -> ListenName {
    ListenName::parse(text).unwrap()
}

/// A check that sees a change within a blink.
pub fn quick(kind: CheckKind) -> CheckSpec {
    CheckSpec {
        every: ms(50),
        timeout: ms(300),
        ..CheckSpec::of(kind)
    }
}

/// A listener called `front` on a port of its own; servers are called a, b, c.
pub fn draft(servers: &[SocketAddr]) -> ListenDraft {
    let servers = servers
        .iter()
        .zip('a'..='z')
        .map(|(address, name)| ServerSpec {
            name: ServerName::parse(&name.to_string()).unwrap(),
            ..ServerSpec::at(*address)
        });
    ListenDraft {
        check: Some(quick(CheckKind::Tcp)),
        ..ListenDraft::tcp(name("front"), vec![local(free_port())], servers.collect())
    }
}

/// Listeners that run until this is dropped.
pub struct Listening {
    wanted: watch::Sender<Wanted>,
    handle: Handle,
    stop: CancellationToken,
    thread: Option<JoinHandle<Result<(), Error>>>,
    runtime: tokio::runtime::Runtime,
    pub front: SocketAddr,
}

impl Listening {
    pub fn start(draft: ListenDraft) -> Self {
        Self::with(Options::default(), 2, draft)
    }

    pub fn with(options: Options, workers: usize, draft: ListenDraft) -> Self {
        let front = draft.bind[0];
        let spec = ListenSpec::new(draft).unwrap();
        let (wanted, watching) = watch::channel(Wanted::from([spec]));
        let listens = Listens::new(options, watching);
        let (handle, stop) = (listens.handle(), CancellationToken::new());
        let until = stop.clone();
        let workers = NonZeroUsize::new(workers).unwrap();
        let thread = thread::spawn(move || listens.run(workers, &until));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let listening = Self {
            wanted,
            handle,
            stop,
            thread: Some(thread),
            runtime,
            front,
        };
        listening.wait("every address is bound", |listen| {
            listen.binds.iter().all(|bind| bind.failing.is_none())
        });
        listening
    }

    pub fn set(&self, drafts: Vec<ListenDraft>) {
        let specs = drafts
            .into_iter()
            .map(|draft| ListenSpec::new(draft).unwrap());
        self.wanted.send_replace(specs.collect());
    }

    pub fn snapshots(&self) -> Vec<ListenSnapshot> {
        self.runtime.block_on(self.handle.snapshot()).unwrap()
    }

    /// The only listener.
    pub fn snapshot(&self) -> ListenSnapshot {
        self.snapshots().remove(0)
    }

    pub fn server(&self, server: &str) -> ServerSnapshot {
        let servers = self.snapshot().servers;
        servers
            .into_iter()
            .find(|one| one.name.as_str() == server)
            .unwrap()
    }

    pub fn wait(&self, what: &str, condition: impl Fn(&ListenSnapshot) -> bool) {
        wait_until(SOON, what, || {
            let seen = self.snapshot();
            if condition(&seen) {
                Ok(())
            } else {
                Err(format!("{seen:#?}"))
            }
        });
    }

    pub fn want(
        &self,
        server: &str,
        wanted: mainstay_control::listen::Wanted,
    ) -> Result<(), HandleError> {
        let server = ServerName::parse(server).unwrap();
        self.runtime
            .block_on(self.handle.want(name("front"), server, wanted))
    }

    pub fn set_weight(&self, server: &str, weight: Option<u16>) -> Result<(), HandleError> {
        let server = ServerName::parse(server).unwrap();
        self.runtime
            .block_on(self.handle.set_weight(name("front"), server, weight))
    }

    pub fn cut_sessions(&self, server: &str) -> Result<(), HandleError> {
        let server = ServerName::parse(server).unwrap();
        self.runtime
            .block_on(self.handle.cut_sessions(name("front"), server))
    }

    /// A session, and which server greeted it.
    pub fn session(&self) -> (TcpStream, String) {
        session(self.front)
    }

    pub fn tell_to_stop(&self) {
        self.stop.cancel();
    }

    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take()
            && !thread::panicking()
        {
            thread.join().unwrap().unwrap();
        }
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    stream
}

/// Connects and waits for the server's greeting.
pub fn session(address: SocketAddr) -> (TcpStream, String) {
    let mut stream = connect(address);
    let mut greeting = [0; 1];
    stream.read_exact(&mut greeting).unwrap();
    (stream, char::from(greeting[0]).to_string())
}

/// Whether the other side ended it, in whatever way.
pub fn is_ended(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut bytes = [0; 64];
    let ended = match stream.read(&mut bytes) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    };
    stream.set_nonblocking(false).unwrap();
    ended
}

/// Whether a word comes back.
pub fn echoes(stream: &mut TcpStream, word: &str) -> bool {
    let mut back = vec![0; word.len()];
    stream.write_all(word.as_bytes()).is_ok()
        && stream.read_exact(&mut back).is_ok()
        && back == word.as_bytes()
}

type Talk = Arc<dyn Fn(&mut TcpStream) -> io::Result<()> + Send + Sync>;

/// A server of this process: a thread for each connection.
pub struct Server {
    pub address: SocketAddr,
    ended: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Greets with one letter, then sends back what it gets, and ends when the client does.
    pub fn echo(letter: char) -> Self {
        Self::echo_at(local(0), letter)
    }

    pub fn echo_at(address: SocketAddr, letter: char) -> Self {
        Self::start_at(address, move |stream| {
            stream.write_all(&[letter as u8])?;
            let mut bytes = vec![0; 64 * 1024];
            loop {
                let len = stream.read(&mut bytes)?;
                if len == 0 {
                    return stream.shutdown(Shutdown::Write);
                }
                stream.write_all(&bytes[..len])?;
            }
        })
    }

    pub fn start(talk: impl Fn(&mut TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::start_at(local(0), talk)
    }

    pub fn start_at(
        address: SocketAddr,
        talk: impl Fn(&mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(Mutex::new(Vec::new()));
        let talk: Talk = Arc::new(talk);
        let thread = thread::spawn({
            let (ended, connections) = (Arc::clone(&ended), Arc::clone(&connections));
            move || {
                for stream in listener.incoming() {
                    if ended.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(mut stream) = stream else { continue };
                    connections
                        .lock()
                        .unwrap()
                        .push(stream.try_clone().unwrap());
                    let talk = Arc::clone(&talk);
                    thread::spawn(move || {
                        // A client that goes is no failure.
                        talk(&mut stream).ok();
                        stream.shutdown(Shutdown::Both).ok();
                    });
                }
            }
        });
        Self {
            address,
            ended,
            connections,
            thread: Some(thread),
        }
    }

    /// As a SIGKILL would: nothing listens any more, and all connections are closed.
    pub fn kill(self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        TcpStream::connect(self.address).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
        for stream in self.connections.lock().unwrap().drain(..) {
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}

/// An address whose SYNs the kernel drops: the host behind it might as well be dead.
pub struct BlackHole {
    pub address: SocketAddr,
    _listener: socket2::Socket,
    _fillers: Vec<socket2::Socket>,
}

impl BlackHole {
    pub fn new() -> Self {
        use socket2::{Domain, Socket, Type};
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&local(0).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        // One is accepted into the queue of length 0; after it SYNs are dropped.
        let fillers = (0..4).map(|_| {
            let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            filler.set_nonblocking(true).unwrap();
            filler.connect(&address.into()).ok();
            filler
        });
        let fillers = fillers.collect();
        Self {
            address,
            _listener: listener,
            _fillers: fillers,
        }
    }
}
