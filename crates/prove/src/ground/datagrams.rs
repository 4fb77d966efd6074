//! Clients that ask by datagrams, each from one socket all the time: connection tracking leads it where
//! its first one went for as long as it goes on asking.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::namespace::{Namespace, cannot};
use crate::scenario::Trouble;

/// Between two questions of one client.
const PACE: Duration = Duration::from_millis(5);

/// Clients of each service in each network: enough for each instance to have some.
const CLIENTS: usize = 8;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(50);

/// What clients that ask by datagrams saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct DatagramReport {
    /// Questions that were sent.
    pub asked: u64,
    /// Those that an instance of the right service answered.
    pub answered: u64,
    /// Those that an instance of another service answered.
    pub wrong: u64,
    /// The longest time in which a client had no answer.
    pub silence_ms_max: u64,
}

impl DatagramReport {
    fn add(&mut self, other: Self) {
        self.asked += other.asked;
        self.answered += other.answered;
        self.wrong += other.wrong;
        self.silence_ms_max = self.silence_ms_max.max(other.silence_ms_max);
    }
}

/// Clients at work; they end with it.
#[derive(Debug)]
pub(crate) struct Datagrams {
    threads: Vec<JoinHandle<io::Result<DatagramReport>>>,
    stop: DropGuard,
}

impl Datagrams {
    /// From each of these networks some clients for each service, which answers its name.
    pub(crate) fn start(
        from: &[&Namespace],
        services: &[(&'static str, SocketAddr)],
    ) -> Result<Self, Trouble> {
        let stop = CancellationToken::new();
        let mut threads = Vec::new();
        for namespace in from {
            let all = services.iter().cycle().take(CLIENTS * services.len());
            let open = || {
                let sockets = all.clone().map(|(_, at)| open(*at));
                let sockets = sockets.collect::<io::Result<Vec<_>>>();
                sockets.map_err(|error| cannot("open a socket for datagrams", &error))
            };
            let names = all.clone().map(|(name, _)| *name);
            let clients = names.zip(namespace.enter(open)?).collect();
            let until = stop.clone();
            // Joined in `finish`; if that is not called it ends with the token.
            let spawned = thread::Builder::new()
                .name("datagrams".to_owned())
                .spawn(move || ask(clients, &until));
            threads.push(spawned.map_err(|error| cannot("start a thread", &error))?);
        }
        let stop = stop.drop_guard();
        Ok(Self { threads, stop })
    }

    /// Ends them and adds up.
    pub(crate) fn finish(self) -> Result<DatagramReport, Trouble> {
        drop(self.stop);
        let mut sum = DatagramReport::default();
        for thread in self.threads {
            let ended = thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            sum.add(ended.map_err(|error| cannot("send datagrams", &error))?);
        }
        Ok(sum)
    }
}

fn open(to: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn ask(
    clients: Vec<(&'static str, std::net::UdpSocket)>,
    until: &CancellationToken,
) -> io::Result<DatagramReport> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut all = JoinSet::new();
        for (service, socket) in clients {
            all.spawn(converse(
                service,
                UdpSocket::from_std(socket)?,
                until.clone(),
            ));
        }
        let mut sum = DatagramReport::default();
        while let Some(ended) = all.join_next().await {
            sum.add(ended.map_err(io::Error::other)?);
        }
        Ok(sum)
    })
}

async fn converse(
    service: &'static str,
    socket: UdpSocket,
    until: CancellationToken,
) -> DatagramReport {
    let mut report = DatagramReport::default();
    let mut served = Instant::now();
    let mut name = [0; 64];
    while !until.is_cancelled() {
        report.asked += 1;
        // Nobody may be there: that is told by the next call, or by silence.
        socket.send(b"who").await.ok();
        let answer = tokio::time::timeout(PATIENCE, socket.recv(&mut name)).await;
        let silence = u64::try_from(served.elapsed().as_millis()).unwrap_or(u64::MAX);
        report.silence_ms_max = report.silence_ms_max.max(silence);
        if let Ok(Ok(len)) = answer {
            if name[..len] == *service.as_bytes() {
                report.answered += 1;
                served = Instant::now();
            } else {
                report.wrong += 1;
            }
        }
        tokio::time::sleep(PACE).await;
    }
    report
}
