//! What becomes of those who are under way to an instance that leaves or dies: with 30,000 connections in the kernel's
//! table, and 2,000 sockets of the node's own.

use super::{
    back_ends,
    field::{Field, Service, even, instance, pause},
    servers::{Answerer, Echo, last_byte},
};
use crate::bench::frame::{Run, median};
use anyhow::{Context as _, Result, bail, ensure};
use mainstay_forward::{BackEnd, Batch, Dead, Underway};
use mainstay_model::forward::Counting;
use mainstay_testkit::Netns;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;
use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

const UDP_MOVES_S_MAX: f64 = 1.0;
const DEAD_RESET_MS_MAX: f64 = 50.0;
const DEAD_WAITING_MS_MAX: f64 = 100.0;
/// Connections in the kernel's table that have nothing to do with it.
const ENTRIES: u32 = 30_000;
/// Sockets of the node's own programs, and how many of them wait for the dead instance.
const SOCKETS: usize = 2000;
const WAITING: usize = 200;
/// After this long without a sign it is taken for never.
const NEVER: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a client speaks.
const BETWEEN_WORDS: Duration = Duration::from_micros(200);
const PORT: u16 = 8000;
const DATAGRAM_PORT: u16 = 53;
/// How long an entry of the table lives that only says that a datagram was sent.
const LIFE_OF_ENTRY: &str = "600";

/// Whether what a bar depends on is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Feature {
    On,
    Off,
}

struct Stage {
    field: Field,
    nft: Box<dyn BackEnd>,
    underway: Underway,
    /// Answered by the one that dies, and by the others.
    service: Service,
    others: Service,
    _echo: Echo,
    /// To the others.
    _sockets: Vec<TcpStream>,
}

pub(super) async fn measure(run: &mut Run) -> Result<()> {
    let mut stage = Stage::new()?;
    let (mut resets, mut waits, mut moves) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..run.extent.rounds() {
        resets.push(stage.reset(Feature::On)?);
        waits.push(stage.wait(Feature::On)?);
        moves.push(stage.datagrams(Feature::On)?);
        tokio::task::yield_now().await;
    }
    let entries = stage.field.node.enter(entries)?;
    ensure!(entries >= ENTRIES, "{entries} entries are too few");
    let ms = |times: &[Duration]| median(times.iter().map(|time| time.as_secs_f64() * 1000.0));
    run.raw(
        "dead_reset_ms",
        json!(resets.iter().map(Duration::as_secs_f64).collect::<Vec<_>>()),
    );
    run.raw(
        "dead_waiting_ms",
        json!(waits.iter().map(Duration::as_secs_f64).collect::<Vec<_>>()),
    );
    run.raw(
        "udp_moves_s",
        json!(moves.iter().map(Duration::as_secs_f64).collect::<Vec<_>>()),
    );
    run.at_most("dead_reset_ms", ms(&resets), DEAD_RESET_MS_MAX);
    run.at_most("dead_waiting_ms", ms(&waits), DEAD_WAITING_MS_MAX);
    run.at_most("udp_moves_s", ms(&moves) / 1000.0, UDP_MOVES_S_MAX);
    let off = [stage.reset(Feature::Off)?];
    super::red(run, "dead_reset_ms", ms(&off), DEAD_RESET_MS_MAX);
    let off = [stage.wait(Feature::Off)?];
    super::red(run, "dead_waiting_ms", ms(&off), DEAD_WAITING_MS_MAX);
    let off = [stage.datagrams(Feature::Off)?];
    super::red(run, "udp_moves_s", ms(&off) / 1000.0, UDP_MOVES_S_MAX);
    Ok(())
}

impl Stage {
    fn new() -> Result<Self> {
        let field = Field::new()?;
        let echo = Echo::start(&field.host, PORT)?;
        let mut nft = field.node.enter(|| back_ends::nft(Counting::On))?;
        let [service, others] = [1, 2].map(Service::numbered);
        let places = |number| vec![instance(number, PORT)];
        let [mut service, mut others] = [service, others];
        (service.instances, others.instances) = (places(1), places(2));
        nft.apply(&serve(&[&service, &others]))?;
        let underway = field.node.enter(Underway::open)?;
        field.node.enter(fill)?;
        let sockets = (0..SOCKETS - WAITING).map(|_| greeted(&field.node, others.address));
        let sockets = sockets.collect::<Result<_>>()?;
        Ok(Self {
            field,
            nft,
            underway,
            service,
            others,
            _echo: echo,
            _sockets: sockets,
        })
    }

    fn dying(&self) -> SocketAddr {
        self.service.instances[0]
    }

    /// From the moment when the death is known: what is in force changes, and who waits is told.
    fn bury(&mut self, is_dead: Feature, is_severed: Feature) -> Result<()> {
        let dying = self.dying();
        self.nft.apply(&Batch {
            services: vec![(self.service.address, even(&self.others.instances))],
            dead: (is_dead == Feature::On)
                .then_some(dying)
                .into_iter()
                .collect(),
            ..Batch::default()
        })?;
        if is_severed == Feature::On {
            self.underway.sever(&[Dead {
                instance: dying,
                services: vec![self.service.address],
            }])?;
        }
        Ok(())
    }

    fn revive(&mut self) -> Result<()> {
        Field::nft(&self.field.host, "delete table inet hole")?;
        self.nft.apply(&Batch {
            revived: vec![self.dying()],
            ..serve(&[&self.service])
        })?;
        Ok(())
    }

    /// The host of the instance is gone: nobody says anything any more.
    fn cut_off(&self) -> Result<()> {
        let hole = format!(
            "add table inet hole {{ chain hole {{ type filter hook prerouting priority -400; ip daddr {} drop; }}; }}",
            self.dying().ip()
        );
        Field::nft(&self.field.host, &hole)
    }

    /// Until a client that speaks is told, of this node and of another host: the later one.
    fn reset(&mut self, feature: Feature) -> Result<Duration> {
        let clients =
            [&self.field.node, &self.field.client].map(|from| greeted(from, self.service.address));
        let clients = clients.into_iter().collect::<Result<Vec<_>>>()?;
        self.cut_off()?;
        let start = Instant::now();
        self.bury(feature, Feature::Off)?;
        let mut last = Duration::ZERO;
        for client in &clients {
            last = last.max(speak(client, start));
        }
        drop(clients);
        self.revive()?;
        Ok(last)
    }

    /// Until all clients of this node are told that only wait.
    fn wait(&mut self, feature: Feature) -> Result<Duration> {
        let clients = (0..WAITING).map(|_| greeted(&self.field.node, self.service.address));
        let clients = clients.collect::<Result<Vec<_>>>()?;
        self.cut_off()?;
        let start = Instant::now();
        let told = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| all_told(&clients, start));
            self.bury(Feature::On, feature)?;
            waiting
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        drop(clients);
        self.revive()?;
        Ok(told)
    }

    /// Until a socket that sends all the time reaches another instance than the one that left.
    fn datagrams(&mut self, feature: Feature) -> Result<Duration> {
        let places = [3, 4].map(|number| instance(number, DATAGRAM_PORT));
        let _answerers = places
            .map(|at| Answerer::start(&self.field.host, at))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        let mut service = Service::numbered(3);
        service.address.set_port(DATAGRAM_PORT);
        service.instances = places.to_vec();
        self.nft.apply(&serve(&[&service]))?;
        let socket = self
            .field
            .node
            .enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
        self.field.node.enter(|| socket.connect(service.address))?;
        socket.set_read_timeout(Some(Duration::from_millis(10)))?;
        let first = answer(&socket, PATIENCE, |_| true).context("nobody answers a datagram")?;
        let (left, stays): (Vec<_>, Vec<_>) = places
            .into_iter()
            .partition(|place| last_byte(place.ip()) == first);
        let start = Instant::now();
        self.nft.apply(&Batch {
            services: vec![(service.address, even(&stays))],
            ..Batch::default()
        })?;
        if let (Feature::On, [left]) = (feature, &left[..]) {
            self.underway.release(&[*left])?;
        }
        Ok(answer(&socket, NEVER, |name| name != first).map_or(NEVER, |_| start.elapsed()))
    }
}

fn serve(services: &[&Service]) -> Batch {
    let services = services.iter();
    Batch {
        services: services.map(|one| (one.address, one.spread())).collect(),
        ..Batch::default()
    }
}

/// Fills the table of connections with what has nothing to do with any service.
fn fill() -> Result<()> {
    std::fs::write(
        "/proc/sys/net/netfilter/nf_conntrack_udp_timeout",
        LIFE_OF_ENTRY,
    )?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    for number in 0..ENTRIES {
        let [_, high, middle, low] = number.to_be_bytes();
        let to = (
            Ipv4Addr::new(10, 77, 100 + high, middle),
            10_000 + u16::from(low),
        );
        // That nobody is there comes back as an error of a later one.
        socket.send_to(b"x", to).ok();
    }
    Ok(())
}

/// Of this namespace's table of connections.
fn entries() -> Result<u32> {
    let path = "/proc/sys/net/netfilter/nf_conntrack_count";
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.trim().parse()?)
}

/// A connection that the instance has answered on.
fn greeted(from: &Netns, to: SocketAddr) -> Result<TcpStream> {
    let stream = from.enter(|| TcpStream::connect_timeout(&to, PATIENCE));
    let mut stream = stream.with_context(|| format!("cannot connect to {to}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Speaks until it is told, or for ever.
fn speak(mut client: &TcpStream, since: Instant) -> Duration {
    let is_told = |done: std::io::Result<usize>| match done {
        Ok(_) => false,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    };
    while since.elapsed() < NEVER {
        if is_told(client.write(b"x")) || is_told(client.read(&mut [0])) {
            return since.elapsed();
        }
        pause(BETWEEN_WORDS);
    }
    NEVER
}

/// When the last of them was told, or never.
fn all_told(clients: &[TcpStream], since: Instant) -> Result<Duration> {
    let mut waiting: Vec<PollFd<'_>> = clients
        .iter()
        .map(|client| PollFd::new(client, PollFlags::IN))
        .collect();
    while since.elapsed() < NEVER {
        let timeout = Timespec::try_from(NEVER)?;
        poll(&mut waiting, Some(&timeout))?;
        let told = PollFlags::ERR | PollFlags::HUP;
        if waiting.iter().any(|one| one.revents() == PollFlags::IN) {
            bail!("an instance that is cut off said something");
        }
        waiting.retain(|one| !one.revents().intersects(told));
        if waiting.is_empty() {
            return Ok(since.elapsed());
        }
    }
    Ok(NEVER)
}

/// Sends datagrams until one that it wants has answered.
fn answer(socket: &UdpSocket, patience: Duration, is_wanted: impl Fn(u8) -> bool) -> Option<u8> {
    let start = Instant::now();
    let mut name = [0];
    while start.elapsed() < patience {
        // Nobody may be there for a moment.
        socket.send(b"x").ok();
        match socket.recv(&mut name) {
            Ok(_) if is_wanted(name[0]) => return Some(name[0]),
            Ok(_) | Err(_) => pause(BETWEEN_WORDS),
        }
    }
    None
}
