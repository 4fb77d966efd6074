//! What answers as instances: they live in a namespace of a field, and end with their guards.

use anyhow::{Context as _, Result};
use mainstay_testkit::Netns;
use rustix::net::{Shutdown, shutdown};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// How soon a UDP instance notices that it is to end.
const GLANCE: Duration = Duration::from_millis(100);

/// Takes connections to all addresses of its namespace, and closes them at once. It counts by the address that was
/// called.
pub(super) struct Tally {
    listener: TcpListener,
    counts: Arc<Mutex<BTreeMap<IpAddr, u64>>>,
    thread: Option<JoinHandle<()>>,
}

impl Tally {
    pub(super) fn start(netns: &Netns, port: u16) -> Result<Self> {
        let counts = Arc::new(Mutex::new(BTreeMap::new()));
        let shared = counts.clone();
        let (listener, thread) = netns.enter(|| -> Result<_> {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
            let accepting = listener.try_clone()?;
            let thread = std::thread::spawn(move || tally(&accepting, &shared));
            Ok((listener, thread))
        })?;
        let thread = Some(thread);
        Ok(Self {
            listener,
            counts,
            thread,
        })
    }

    /// Since the last time.
    pub(super) fn take(&self) -> BTreeMap<IpAddr, u64> {
        std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn tally(listener: &TcpListener, counts: &Mutex<BTreeMap<IpAddr, u64>>) {
    while let Ok((stream, _)) = listener.accept() {
        // A client that has already gone.
        let Ok(called) = stream.local_addr() else {
            continue;
        };
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(called.ip()).or_insert(0) += 1;
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        // Ends the call that waits for a connection.
        if let Err(error) = shutdown(&self.listener, Shutdown::Both) {
            eprintln!("cannot end a server: {error}");
            return;
        }
        join(&mut self.thread);
    }
}

/// Sends back what it is sent, on many connections at a time.
pub(super) struct Echo {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// On all addresses of the namespace.
    pub(super) fn start(netns: &Netns, port: u16) -> Result<Self> {
        let stop = CancellationToken::new();
        let token = stop.clone();
        let thread = netns.enter(|| -> Result<_> {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
            listener.set_nonblocking(true)?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            Ok(std::thread::spawn(move || {
                runtime.block_on(token.run_until_cancelled(echo(listener)));
            }))
        })?;
        let thread = Some(thread);
        Ok(Self { stop, thread })
    }
}

async fn echo(listener: TcpListener) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return eprintln!("cannot serve: {error}"),
    };
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            continue;
        };
        // Ends with its client, or with the runtime.
        tokio::spawn(async move {
            let (mut from, mut to) = stream.split();
            tokio::io::copy(&mut from, &mut to).await.ok();
        });
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.cancel();
        join(&mut self.thread);
    }
}

/// Answers each datagram with the last byte of its own address.
pub(super) struct Answerer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Answerer {
    pub(super) fn start(netns: &Netns, at: SocketAddr) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let socket = netns
            .enter(|| UdpSocket::bind(at))
            .with_context(|| format!("cannot listen on {at}"))?;
        socket.set_read_timeout(Some(GLANCE))?;
        let name = last_byte(at.ip());
        let thread = std::thread::spawn(move || {
            let mut datagram = [0; 64];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((_, from)) = socket.recv_from(&mut datagram) {
                    socket.send_to(&[name], from).ok();
                }
            }
        });
        let thread = Some(thread);
        Ok(Self { stop, thread })
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        join(&mut self.thread);
    }
}

pub(super) fn last_byte(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    }
}

fn join(thread: &mut Option<JoinHandle<()>>) {
    if let Some(Err(_)) = thread.take().map(JoinHandle::join) {
        eprintln!("a server of the bench panicked");
    }
}
