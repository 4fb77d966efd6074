//! One TCP connection.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::floor::{Floor, InFlight};
use super::limits::{CONNECT_TIME, KEEPALIVE_AFTER, KEEPALIVE_EVERY, KEEPALIVE_TRIES, TRIES_MAX};
use super::pump::{Direction, Pump};
use super::service::Service;

/// From its first byte to its last. An end that is not orderly on one side is none on the other.
pub(super) async fn serve(
    floor: Rc<Floor>,
    service: Rc<Service>,
    client: TcpStream,
    from: SocketAddr,
) {
    let Some((instance, held)) = connect(&floor, &service, from).await else {
        reset(&client);
        return;
    };
    for stream in [&client, &instance] {
        settle(stream);
    }
    let pump = |from, to, direction| Pump {
        floor: &floor,
        instance: &held.0,
        from,
        to,
        direction,
    };
    let both = async {
        tokio::try_join!(
            pump(&client, &instance, Direction::Sent).run(),
            pump(&instance, &client, Direction::Received).run(),
        )
    };
    let mut dead = held.0.dead.subscribe();
    let is_carried = tokio::select! {
        carried = both => carried.is_ok(),
        // The instance cannot be lost before its last connection.
        _ = dead.wait_for(|dead| *dead) => false,
    };
    if !is_carried {
        reset(&client);
        reset(&instance);
    }
}

/// To the first of up to four instances that accepts. Nothing was sent, so that any will do.
async fn connect(
    floor: &Floor,
    service: &Service,
    from: SocketAddr,
) -> Option<(TcpStream, InFlight)> {
    let mut tried = Vec::new();
    for _ in 0..TRIES_MAX {
        let may = |one: SocketAddr| !tried.contains(&one) && floor.has_room(one);
        let to = service.draw(from.ip(), may)?;
        let held = InFlight::new(floor.instance(to));
        if let Ok(Ok(stream)) = timeout(CONNECT_TIME, TcpStream::connect(to)).await {
            return Some((stream, held));
        }
        tried.push(to);
    }
    None
}

/// A peer that has gone without a word must not hold its place for ever. What cannot be set is of no
/// harm otherwise.
fn settle(stream: &TcpStream) {
    stream.set_nodelay(true).ok();
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_TRIES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive).ok();
}

/// Closed at once, and told so, as soon as it is dropped.
fn reset(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).ok();
}
