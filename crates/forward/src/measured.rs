//! How exactly shares come out, by connections to instances that say who they are.
//!
//! All of it happens in the network namespace of the calling thread, in which service addresses must
//! be reachable. Nothing here is part of what forwards.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay_control::forward::{Batch, Share, Spread, Staying};
use socket2::SockRef;

use crate::back_end::{BackEnd, ForwardError};

/// How long one connection may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// Instances of one service: what is promised.
pub const INSTANCES_MAX: usize = 50;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The back end refused.
    #[error("the service could not be set up")]
    Forward(#[from] ForwardError),
    /// A connection failed.
    #[error("cannot {0}")]
    Connection(&'static str, #[source] io::Error),
}

/// The largest difference between a share of `connections` and its weight, in percentage points.
/// Chance alone makes some: with 20,000 connections and two instances, 0.35 of them at one standard
/// deviation.
pub fn share_error(
    back_end: &mut dyn BackEnd,
    service: SocketAddr,
    weights: &[u64],
    connections: u32,
) -> Result<f64, MeasureError> {
    let listen = |_: &u64| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        listener.map_err(|error| MeasureError::Connection("listen", error))
    };
    let listeners: Vec<TcpListener> = weights.iter().map(listen).collect::<Result<_, _>>()?;
    let mut places = Vec::new();
    for listener in &listeners {
        let own = listener.local_addr();
        places.push(own.map_err(|error| MeasureError::Connection("listen", error))?);
    }
    let ended = AtomicBool::new(false);
    let counts = std::thread::scope(|scope| {
        for (listener, index) in listeners.iter().zip(0_u8..) {
            let ended = &ended;
            scope.spawn(move || tell(listener, index, ended));
        }
        let counts = count(back_end, service, weights, &places, connections);
        ended.store(true, Ordering::Relaxed);
        for place in &places {
            // Only to wake it.
            drop(TcpStream::connect(place));
        }
        counts
    })?;
    let total: u64 = weights.iter().sum();
    let errors = counts.iter().zip(weights).map(|(own, weight)| {
        let (own, weight) = (f64::from(*own), part(*weight, total));
        (own / f64::from(connections) - weight).abs() * 100.0
    });
    Ok(errors.fold(0.0, f64::max))
}

/// For each number of equal instances from 1 to 50, and for 70/25/5, the [`share_error`].
pub fn share_errors(
    back_end: &mut dyn BackEnd,
    service: SocketAddr,
    connections: u32,
) -> Result<Vec<(Vec<u64>, f64)>, MeasureError> {
    let equal = (1..=INSTANCES_MAX).map(|count| vec![1; count]);
    let all = equal.chain([vec![70, 25, 5]]);
    let measured = all.map(|weights| {
        let error = share_error(back_end, service, &weights, connections)?;
        Ok((weights, error))
    });
    measured.collect()
}

fn part(weight: u64, total: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "weights are small")]
    let part = weight as f64 / total as f64;
    part
}

/// Says its number to everybody, and waits until the client has closed, so that no connection that has
/// ended is remembered on this side.
fn tell(listener: &TcpListener, index: u8, ended: &AtomicBool) {
    while let Ok((mut client, _)) = listener.accept() {
        if ended.load(Ordering::Relaxed) {
            return;
        }
        // A client that has gone is counted by nobody.
        client.write_all(&[index]).ok();
        client.set_read_timeout(Some(DEADLINE)).ok();
        client.read_exact(&mut [0]).ok();
    }
}

fn count(
    back_end: &mut dyn BackEnd,
    service: SocketAddr,
    weights: &[u64],
    places: &[SocketAddr],
    connections: u32,
) -> Result<Vec<u32>, MeasureError> {
    let shares = places.iter().zip(weights);
    let mut shares: Vec<Share> = shares
        .map(|(to, weight)| Share {
            to: *to,
            weight: *weight,
        })
        .collect();
    shares.sort_unstable_by_key(|share| share.to);
    let staying = Staying::Free;
    back_end.apply(&Batch {
        services: vec![(service, Spread { staying, shares })],
        ..Batch::default()
    })?;
    let mut counts = vec![0; places.len()];
    for _ in 0..connections {
        let index = ask(service).map_err(|error| MeasureError::Connection("connect", error))?;
        if let Some(count) = counts.get_mut(usize::from(index)) {
            *count += 1;
        }
    }
    back_end.apply(&Batch {
        gone: vec![service],
        ..Batch::default()
    })?;
    Ok(counts)
}

fn ask(service: SocketAddr) -> io::Result<u8> {
    let mut stream = TcpStream::connect_timeout(&service, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut index = [0];
    stream.read_exact(&mut index)?;
    // By a reset: neither sockets nor the kernel's table of connections remember it for minutes.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(index[0])
}
