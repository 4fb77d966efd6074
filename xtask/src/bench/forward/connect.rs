//! What rules cost those who connect: with each form of them in force, one connection after the other to the last of all
//! services, in slices that take turns; then one long connection.

use super::field::Field;
use crate::bench::{frame::median, machine};
use anyhow::{Context as _, Result};
use mainstay_testkit::Netns;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt::set_socket_linger,
};
use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

/// Connections in a slice: some milliseconds, so that a busy moment of the machine strikes all forms. Two slices find
/// room in a listener's queue of 128, and no round uses a port twice, which would be dearer.
const SLICE: usize = 50;
/// What is written at a time to a long connection.
const PIECE_LEN: usize = 256 * 1024;

/// A form of rules, or none, where it is in force.
pub(super) struct Form<'a> {
    pub(super) name: &'static str,
    pub(super) field: &'a Field,
    pub(super) to: SocketAddr,
    pub(super) doors: Doors,
}

/// Where connections are accepted by the kernel alone, and taken from it between slices: a program that is woken for
/// each would be measured, too, and would slow down who measures where two processors are one core.
#[derive(Default)]
pub(super) struct Doors(Vec<TcpListener>);

impl Doors {
    pub(super) fn open(netns: &Netns, instances: &[SocketAddr]) -> Result<Self> {
        let listen = |one: &SocketAddr| TcpListener::bind((Ipv4Addr::UNSPECIFIED, one.port()));
        let listeners = netns.enter(|| instances.iter().map(listen).collect::<Result<_, _>>());
        let doors = Self(listeners?);
        for listener in &doors.0 {
            listener.set_nonblocking(true)?;
        }
        Ok(doors)
    }

    fn clear(&self) {
        for listener in &self.0 {
            while listener.accept().is_ok() {}
        }
    }
}

/// Microseconds of each connect() by each form, in the order of the forms.
pub(super) struct Slices(Vec<Vec<f64>>);

impl Slices {
    pub(super) fn of(forms: &[Form<'_>]) -> Self {
        Self(vec![Vec::new(); forms.len()])
    }

    /// So many connections more of each.
    pub(super) fn add(&mut self, forms: &[Form<'_>], connections: usize) -> Result<()> {
        for _ in 0..connections / SLICE {
            for (form, found) in forms.iter().zip(&mut self.0) {
                let slice = form.field.node.enter(|| slice(form.to));
                form.doors.clear();
                found.extend(slice.with_context(|| format!("cannot connect with {}", form.name))?);
            }
        }
        Ok(())
    }

    pub(super) fn medians(self) -> Vec<f64> {
        self.0.into_iter().map(median).collect()
    }
}

fn slice(to: SocketAddr) -> Result<Vec<f64>> {
    machine::pin_thread(machine::Cpus::First)?;
    let mut found = Vec::with_capacity(SLICE);
    for _ in 0..SLICE {
        found.push(timed(to)?.as_secs_f64() * 1e6);
    }
    Ok(found)
}

/// How long connect() takes. The connection is broken off, so that its port is free again.
fn timed(to: SocketAddr) -> Result<Duration> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let start = Instant::now();
    connect(&socket, &to)?;
    let took = start.elapsed();
    set_socket_linger(&socket, Some(Duration::ZERO))?;
    Ok(took)
}

/// What one long connection carries, in Gbit/s; by a service, to whichever instance it leads.
pub(super) fn throughput(
    field: &Field,
    to: SocketAddr,
    instances: &[u16],
    lasts: Duration,
) -> Result<f64> {
    let listen = |port: &u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port));
    let listeners = field
        .host
        .enter(|| instances.iter().map(listen).collect::<Result<Vec<_>, _>>())?;
    let stream = connected(&field.node, to)?;
    let mut from = accepted(&listeners)?;
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || -> Result<u64> {
            let mut buffer = vec![0; PIECE_LEN];
            let mut count = 0;
            loop {
                match from.read(&mut buffer)? {
                    0 => return Ok(count),
                    len => count += u64::try_from(len)?,
                }
            }
        });
        let start = Instant::now();
        let buffer = vec![0; PIECE_LEN];
        while start.elapsed() < lasts {
            (&stream).write_all(&buffer)?;
        }
        drop(stream);
        let read = reading
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
        Ok(read as f64 * 8.0 / 1e9 / start.elapsed().as_secs_f64())
    })
}

/// The connection that one of them has got.
fn accepted(listeners: &[TcpListener]) -> Result<TcpStream> {
    let mut waiting: Vec<PollFd<'_>> = listeners
        .iter()
        .map(|listener| PollFd::new(listener, PollFlags::IN))
        .collect();
    poll(&mut waiting, None)?;
    let called = waiting
        .iter()
        .position(|one| one.revents() == PollFlags::IN);
    let (stream, _) = listeners[called.context("no instance was called")?].accept()?;
    Ok(stream)
}

fn connected(netns: &Netns, to: SocketAddr) -> Result<TcpStream> {
    let stream = netns.enter(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)));
    stream.with_context(|| format!("cannot connect to {to}"))
}
