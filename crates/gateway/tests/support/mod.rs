//! A gateway in this process, instances of raw sockets behind it, and a client of raw sockets
//! before it. Everything ends with its guard.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "tests; each file uses a part of this one"
)]

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mainstay_gateway::{
    AccessLogTo, Deadlines, Error, Link, Options, Seams, Sockets, Stats, StatsAuth, run, run_linked,
};
use mainstay_ids::{
    Attempt, ConsumerId, Epoch, Generation, Incarnation, InstanceId, Revision, ServiceName, Version,
};
use mainstay_model::gateway::{GatewayLimits, GatewaySettings};
use mainstay_model::listen::Trusted;
use mainstay_model::routing::{EndpointHealth, Unavailable};
use mainstay_model::{
    Ack, Endpoint, HostPattern, HttpMatch, ListenSpec, PathPrefix, Routing, ServiceRoutes, Traffic,
};
use mainstay_testkit::{TempDir, wait_until};
use socket2::{Domain, Socket, Type};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub const SOON: Duration = Duration::from_secs(20);

pub fn generation(epoch: u64, revision: u64) -> Generation {
    Generation {
        epoch: Epoch(epoch),
        revision: Revision(revision),
    }
}

pub fn consumer() -> ConsumerId {
    ConsumerId {
        name: "gateway".into(),
        incarnation: Incarnation(1),
    }
}

/// The only service of a routing state, on any host, with these endpoints.
pub fn one_service(revision: u64, endpoints: Vec<Endpoint>) -> Routing {
    Routing {
        generation: generation(1, revision),
        services: vec![service("orders", None, "/", endpoints)],
    }
}

pub fn service(
    name: &str,
    host: Option<&str>,
    path: &str,
    endpoints: Vec<Endpoint>,
) -> ServiceRoutes {
    ServiceRoutes {
        service: ServiceName::parse(name).unwrap(),
        http: Some(
            HttpMatch::new(
                host.map(|host| HostPattern::parse(host).unwrap()),
                PathPrefix::parse(path).unwrap(),
            )
            .into(),
        ),
        address: None,
        health_path: None,
        endpoints,
        unavailable: None,
        dead: Vec::new(),
        traffic: Traffic::default(),
        rewrites: Vec::new(),
        split: None,
    }
}

pub fn without_endpoints(revision: u64, why: Option<Unavailable>) -> Routing {
    let mut routing = one_service(revision, Vec::new());
    routing.services[0].unavailable = why;
    routing
}

pub fn instance(number: u64) -> InstanceId {
    InstanceId {
        service: ServiceName::parse("orders").unwrap(),
        number,
    }
}

pub fn endpoint(number: u64, address: SocketAddr) -> Endpoint {
    Endpoint {
        instance: instance(number),
        attempt: Attempt::FIRST,
        version: Version::FIRST,
        address,
        health: EndpointHealth::Passing,
        handle: None,
        intake: mainstay_model::Intake::default(),
    }
}

/// An address that refuses connections.
pub fn nobody() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], mainstay_testkit::free_port()))
}

fn entry_sockets(count: usize, at: [u8; 4]) -> (SocketAddr, Vec<TcpListener>) {
    let mut address = SocketAddr::from((at, 0));
    let mut sockets = Vec::new();
    for _ in 0..count {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(1024).unwrap();
        let listener = TcpListener::from(socket);
        address = listener.local_addr().unwrap();
        sockets.push(listener);
    }
    (SocketAddr::from(([127, 0, 0, 1], address.port())), sockets)
}

/// How a gateway of a test runs.
pub struct Setting {
    pub workers: usize,
    pub seams: Seams,
    pub deadlines: Deadlines,
    pub limits: GatewayLimits,
    pub access_log: bool,
    pub stats_auth: Option<StatsAuth>,
    pub listens: Vec<ListenSpec>,
    pub accept_proxy: Option<Trusted>,
    pub state: Option<TempDir>,
    pub api: std::path::PathBuf,
    /// Where it is asked to leave an address; then it listens on all that this machine has.
    pub leave: Option<std::path::PathBuf>,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            workers: 1,
            seams: Seams::default(),
            deadlines: Deadlines {
                drain: Duration::from_secs(5),
                ..Deadlines::default()
            },
            limits: GatewayLimits::default(),
            access_log: false,
            stats_auth: None,
            listens: Vec::new(),
            accept_proxy: None,
            state: None,
            api: "/nowhere/api.sock".into(),
            leave: None,
        }
    }
}

/// A gateway; it is stopped and joined when this is dropped.
pub struct Gateway {
    pub entry: SocketAddr,
    pub stats: SocketAddr,
    routings: mpsc::Sender<Routing>,
    acks: Arc<Mutex<Vec<(Instant, Ack)>>>,
    settings: tokio::sync::watch::Sender<Arc<GatewaySettings>>,
    stop: CancellationToken,
    thread: Option<JoinHandle<Result<(), Error>>>,
    pub state: TempDir,
}

impl Gateway {
    pub fn start(setting: Setting) -> Self {
        let (routings, routings_of) = mpsc::channel(16);
        let (acks_to, mut acks_of) = mpsc::channel::<Ack>(256);
        let acks = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&acks);
        // Ends when the gateway drops its end.
        thread::spawn(move || {
            while let Some(ack) = acks_of.blocking_recv() {
                kept.lock().unwrap().push((Instant::now(), ack));
            }
        });
        let link = Link {
            routings: routings_of,
            acks: acks_to,
        };
        Self::spawn(setting, routings, acks, |options, sockets, stop| {
            run_linked(options, sockets, link, stop)
        })
    }

    /// With the real link to a control centre at `setting.api`.
    pub fn start_with_api(setting: Setting) -> Self {
        let (routings, _) = mpsc::channel(1);
        Self::spawn(setting, routings, Arc::default(), run)
    }

    fn spawn(
        setting: Setting,
        routings: mpsc::Sender<Routing>,
        acks: Arc<Mutex<Vec<(Instant, Ack)>>>,
        run: impl FnOnce(Options, Sockets, CancellationToken) -> Result<(), Error> + Send + 'static,
    ) -> Self {
        let state = setting.state.unwrap_or_else(|| TempDir::new("gateway"));
        let (entry, sockets) = entry_sockets(
            setting.workers,
            if setting.leave.is_some() {
                [0; 4]
            } else {
                [127, 0, 0, 1]
            },
        );
        let stop = CancellationToken::new();
        let (settings, watched) = tokio::sync::watch::channel(Arc::new(GatewaySettings {
            limits: setting.limits,
            listens: setting.listens,
            accept_proxy: setting.accept_proxy,
            ..GatewaySettings::default()
        }));
        let options = Options {
            state: state.path().to_owned(),
            api: setting.api,
            consumer: consumer(),
            access_log: if setting.access_log {
                AccessLogTo::File(state.join("access.log"))
            } else {
                AccessLogTo::Off
            },
            settings: watched,
            deadlines: setting.deadlines,
            succession: mainstay_gateway::Succession::default(),
            pulse: None,
            leave: setting.leave,
            seams: setting.seams,
        };
        let stop_of = stop.clone();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let shown_at = listener.local_addr().unwrap();
        let sockets = Sockets {
            entry: sockets,
            stats: Some(Stats {
                listener,
                auth: setting.stats_auth,
                token: state.join("token"),
            }),
        };
        let thread = thread::spawn(move || run(options, sockets, stop_of));
        Self {
            entry,
            stats: shown_at,
            routings,
            acks,
            settings,
            stop,
            thread: Some(thread),
            state,
        }
    }

    /// One worker, these routes, in force.
    pub fn with(routing: Routing) -> Self {
        let gateway = Self::start(Setting::default());
        gateway.publish_and_wait(routing);
        gateway
    }

    pub fn publish(&self, routing: Routing) {
        self.routings.blocking_send(routing).unwrap();
    }

    pub fn publish_and_wait(&self, routing: Routing) {
        let generation = routing.generation;
        self.publish(routing);
        self.wait_for_ack("it is in force", |ack| ack.generation == Some(generation));
    }

    /// Changes the listeners, as an edited file does.
    pub fn set_listens(&self, listens: Vec<ListenSpec>) {
        self.settings.send_modify(|settings| {
            *settings = Arc::new(GatewaySettings {
                listens,
                ..(**settings).clone()
            });
        });
    }

    pub fn acks(&self) -> Vec<(Instant, Ack)> {
        self.acks.lock().unwrap().clone()
    }

    /// Waits until the newest acknowledgement is as wanted.
    pub fn wait_for_ack(&self, what: &str, wanted: impl Fn(&Ack) -> bool) -> Ack {
        wait_until(SOON, what, || {
            let acks = self.acks.lock().unwrap();
            match acks.last() {
                Some((_, ack)) if wanted(ack) => Ok(ack.clone()),
                other => Err(format!("{other:?}")),
            }
        })
    }

    pub fn request(&self, method: &str, path: &str) -> Reply {
        send(self.entry, method, path, &[], b"")
    }

    /// Asks for statistics.
    pub fn stats(&self, path: &str) -> Reply {
        let host = self.stats.to_string();
        send(self.stats, "GET", path, &[("host", &host)], b"")
    }

    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Where it stores routes.
    pub fn routes_file(&self) -> std::path::PathBuf {
        self.state.join("gateway/routes.json")
    }

    /// Stops it and gives its directory on, as a kill would have left it.
    pub fn kill_and_keep_state(mut self) -> TempDir {
        let (path, stored) = (self.routes_file(), std::fs::read(self.routes_file()));
        self.end();
        if let Ok(stored) = stored {
            std::fs::write(path, stored).unwrap();
        }
        std::mem::replace(&mut self.state, TempDir::new("gateway-after"))
    }

    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn end(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            if !thread::panicking() {
                result.unwrap().unwrap();
            }
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.end();
    }
}

/// An answer as a raw client saw it.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// How reading ended.
    pub end: io::Result<()>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// One request on a connection of its own.
pub fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Reply {
    let mut stream = connect(address);
    let mut all = vec![("connection", "close")];
    all.extend_from_slice(headers);
    write_request(&mut stream, method, path, &all, body);
    read_reply(&mut stream)
}

pub fn write_request(
    stream: &mut TcpStream,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        head += "host: shop.example\r\n";
    }
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    if !body.is_empty() {
        write!(head, "content-length: {}\r\n", body.len()).unwrap();
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    stream.write_all(body).unwrap();
}

/// Reads one answer; without a length, to the end of the connection.
pub fn read_reply(stream: &mut TcpStream) -> Reply {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    let mut end = Ok(());
    loop {
        match reader.read_line(&mut head) {
            Ok(0) => break,
            Ok(_) if head.ends_with("\r\n\r\n") => break,
            Ok(_) => {}
            Err(error) => {
                end = Err(error);
                break;
            }
        }
    }
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap_or(0);
    let mut body = Vec::new();
    if end.is_ok() {
        end = match header(&head, "content-length") {
            Some(len) => read_exactly(&mut reader, len.parse().unwrap(), &mut body),
            None if header(&head, "transfer-encoding").is_some() => {
                read_chunks(&mut reader, &mut body)
            }
            None => reader.read_to_end(&mut body).map(|_| ()),
        };
    }
    Reply {
        status,
        head,
        body,
        end,
    }
}

/// Reads the head of an answer, byte by byte, so that what follows stays there.
pub fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend_from_slice(&byte);
    }
    String::from_utf8(head).unwrap()
}

fn read_exactly(reader: &mut impl Read, len: u64, body: &mut Vec<u8>) -> io::Result<()> {
    reader.take(len).read_to_end(body)?;
    if body.len() as u64 == len {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let len = u64::from_str_radix(line.trim(), 16).unwrap();
        let before = body.len();
        reader.by_ref().take(len).read_to_end(body)?;
        if (body.len() - before) as u64 != len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut trailer = String::new();
        while reader.read_line(&mut trailer)? > 2 {}
        if len == 0 {
            return Ok(());
        }
    }
}

/// One request as an instance saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub at: Instant,
    pub head: String,
    pub connection: usize,
    /// Which request on its connection, from 0.
    pub nth: usize,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    pub fn method(&self) -> &str {
        self.head.split(' ').next().unwrap()
    }

    pub fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    pub fn content_length(&self) -> usize {
        self.header("content-length")
            .map_or(0, |len| len.parse().unwrap())
    }
}

/// What an instance does with a connection after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Next,
    Close,
}

/// An instance: a thread per connection that calls the given behaviour for each request's head.
pub struct Instance {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    closed: Arc<Mutex<usize>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Instance {
    pub fn start(
        behave: impl Fn(&Seen, &mut BufReader<TcpStream>) -> io::Result<Then> + Send + Sync + 'static,
    ) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), behave)
    }

    pub fn start_at(
        address: SocketAddr,
        behave: impl Fn(&Seen, &mut BufReader<TcpStream>) -> io::Result<Then> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let streams: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let closed: Arc<Mutex<usize>> = Arc::default();
        let ending = Arc::new(AtomicBool::new(false));
        let behave = Arc::new(behave);
        let shared = (
            Arc::clone(&seen),
            Arc::clone(&streams),
            Arc::clone(&closed),
            Arc::clone(&ending),
        );
        let thread = thread::spawn(move || {
            let (seen, streams, closed, ending) = shared;
            let mut threads = Vec::new();
            for (connection, stream) in listener.incoming().enumerate() {
                if ending.load(Ordering::SeqCst) {
                    break;
                }
                let stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                streams.lock().unwrap().push(stream.try_clone().unwrap());
                let (seen, closed, behave) =
                    (Arc::clone(&seen), Arc::clone(&closed), Arc::clone(&behave));
                threads.push(thread::spawn(move || {
                    converse(stream, connection, &seen, &*behave);
                    *closed.lock().unwrap() += 1;
                }));
            }
            for thread in threads {
                thread.join().unwrap();
            }
        });
        Self {
            address,
            seen,
            streams,
            closed,
            ending,
            thread: Some(thread),
        }
    }

    /// Answers every request with 200 and its own name.
    pub fn named(name: &'static str) -> Self {
        Self::named_at(SocketAddr::from(([127, 0, 0, 1], 0)), name)
    }

    /// The same on this address.
    pub fn named_at(address: SocketAddr, name: &'static str) -> Self {
        Self::start_at(address, move |seen, stream| {
            read_body(seen, stream)?;
            answer(stream, "200 OK", &[], name.as_bytes())?;
            Ok(Then::Next)
        })
    }

    /// Reads every request and closes the connection without an answer.
    pub fn mute() -> Self {
        Self::start(|seen, stream| {
            read_body(seen, stream)?;
            Ok(Then::Close)
        })
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Connections that have ended.
    pub fn closed(&self) -> usize {
        *self.closed.lock().unwrap()
    }

    /// As SIGKILL would: every connection is reset, none is accepted.
    pub fn kill(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        for stream in &*self.streams.lock().unwrap() {
            stream.shutdown(Shutdown::Both).ok();
        }
        // Wakes the accepting thread.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            if !thread::panicking() {
                result.unwrap();
            }
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.kill();
    }
}

fn converse(
    stream: TcpStream,
    connection: usize,
    seen: &Mutex<Vec<Seen>>,
    behave: &(impl Fn(&Seen, &mut BufReader<TcpStream>) -> io::Result<Then> + ?Sized),
) {
    let shutdown = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    for nth in 0.. {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match reader.read_until(b'\n', &mut head) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        let request = Seen {
            at: Instant::now(),
            head: String::from_utf8_lossy(&head).into_owned(),
            connection,
            nth,
        };
        seen.lock().unwrap().push(request.clone());
        match behave(&request, &mut reader) {
            Ok(Then::Next) => {}
            // The clone in the list keeps the socket open, so it must be told.
            Ok(Then::Close) | Err(_) => {
                shutdown.shutdown(Shutdown::Both).ok();
                return;
            }
        }
    }
}

pub fn read_body(seen: &Seen, stream: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if seen.header("transfer-encoding").is_some() {
        read_chunks(stream, &mut body)?;
    } else {
        read_exactly(stream, seen.content_length() as u64, &mut body)?;
    }
    Ok(body)
}

pub fn answer(
    stream: &mut BufReader<TcpStream>,
    status: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<()> {
    let mut text = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        write!(text, "{name}: {value}\r\n").unwrap();
    }
    let mut bytes = format!("{text}\r\n").into_bytes();
    bytes.extend_from_slice(body);
    stream.get_mut().write_all(&bytes)
}
