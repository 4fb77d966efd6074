//! One session: for whom it is, to which server it goes, and its bytes both ways.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mainstay_ids::ListenName;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::caller::{self, Caller, Unidentified};
use crate::listen::handle::ServerAt;
use crate::listen::limits::{ROUND_PAUSE, TRIES_MAX};
use crate::listen::pump::{Flow, Pump};
use crate::listen::roster::{AtServer, RosterListen, ServerTally};
use crate::listen::seat::{Floor, Picked};
use crate::proxy_protocol;

/// A connection to a server.
struct Reached {
    server: TcpStream,
    place: AtServer,
    cut: CancellationToken,
}

/// Serves a connection to its end.
pub(crate) async fn serve(
    floor: &Rc<Floor>,
    listen: &Arc<RosterListen>,
    mut client: TcpStream,
    peer: SocketAddr,
) {
    listen.tally.total.add(1);
    // Boxed, so that a session that is idle for hours does not keep the room for its beginning.
    let opening = Box::pin(open(floor, listen, &mut client, peer));
    let opened = tokio::select! {
        () = floor.all.cancelled() => return,
        opened = opening => opened,
    };
    match opened {
        Ok(Some((reached, early))) => carry(floor, listen, client, reached, early).await,
        Ok(None) => listen.tally.unserved.add(1),
        Err(error) => {
            listen.tally.refused.add(1);
            let error = &error as &dyn std::error::Error;
            tracing::debug!(listen = %listen.spec.name, %peer, error, "a connection was refused");
        }
    }
}

/// Learns who calls and reaches a server; with what the client sent behind its header.
async fn open(
    floor: &Rc<Floor>,
    listen: &Arc<RosterListen>,
    client: &mut TcpStream,
    peer: SocketAddr,
) -> Result<Option<(Reached, Vec<u8>)>, Unidentified> {
    let trusted = listen.spec.accept_proxy.as_deref();
    let (caller, early) = caller::identify(trusted, client, peer).await?;
    let reached = reach(floor, listen, &caller).await;
    Ok(reached.map(|reached| (reached, early)))
}

/// Connects to a server. One that cannot be reached is left for another; a session waits for one
/// that is full, down or just being started, for as long as a connection may take.
async fn reach(floor: &Floor, listen: &RosterListen, caller: &Caller) -> Option<Reached> {
    let began = floor.clock.now();
    let name = &listen.spec.name;
    let mut tried: Vec<Arc<ServerTally>> = Vec::new();
    let mut failed = 0;
    loop {
        // The newest each time: what was accepted a moment ago may have stood in the queue for long.
        let listen = floor.listen_named(name)?;
        let freed = listen.tally.server_freed.notified();
        let spent = floor.clock.now().since(began);
        match floor.pick(&listen, caller.client, &tried) {
            Picked::Server { at, place } => {
                let server = &listen.servers[at];
                match connect(&listen, place, caller).await {
                    Ok((stream, place)) => {
                        server.tally.forget_failure();
                        server.tally.total.add(1);
                        server.tally.redispatches.add(u64::from(!tried.is_empty()));
                        return Some(Reached {
                            server: stream,
                            place,
                            cut: server.cut.clone(),
                        });
                    }
                    Err(error) => note_failure(floor, name, &server.tally, &error),
                }
                failed += 1;
                if failed >= TRIES_MAX && spent >= listen.spec.timeouts.connect {
                    return None;
                }
                server.tally.retries.add(1);
                tried.push(Arc::clone(&server.tally));
            }
            Picked::Full | Picked::Nobody => {
                let left = listen.spec.timeouts.connect.checked_sub(spent)?;
                let pause = if tried.is_empty() {
                    left
                } else {
                    left.min(ROUND_PAUSE)
                };
                // Woken by a session that ends and by another roster; the look comes anyway.
                timeout(pause, freed).await.ok();
                tried.clear();
            }
        }
    }
}

fn note_failure(floor: &Floor, listen: &ListenName, tally: &ServerTally, error: &io::Error) {
    tally.connect_errors.add(1);
    tally.note_failure(floor.clock.now());
    let server = &tally.name;
    tracing::debug!(%listen, %server, %error, "a server could not be reached");
    floor.tell_failure(ServerAt {
        listen: listen.clone(),
        server: server.clone(),
    });
}

/// Connects, and tells the server who the client is. Nothing of the client's is sent, so that a
/// failure up to here may be made good elsewhere.
async fn connect(
    listen: &RosterListen,
    place: AtServer,
    caller: &Caller,
) -> io::Result<(TcpStream, AtServer)> {
    let connecting = async {
        let mut stream = TcpStream::connect(place.tally().address).await?;
        crate::sockets::prepare_outgoing(&stream)?;
        if let Some(version) = listen.spec.send_proxy {
            let header = proxy_protocol::encode(version, &caller.header);
            stream.write_all(&header).await?;
        }
        Ok::<_, io::Error>(stream)
    };
    let within = listen.spec.timeouts.connect;
    let late = || {
        io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no connection within {within:?}"),
        )
    };
    let stream = timeout(within, connecting).await.map_err(|_| late())??;
    Ok((stream, place))
}

/// How a session ended, beside that one side broke it off.
enum End {
    Finished,
    Cut,
    Idle,
}

/// Carries bytes both ways until both sides have finished, one breaks, nothing moves for too long,
/// or the session is cut.
async fn carry(
    floor: &Floor,
    listen: &Arc<RosterListen>,
    client: TcpStream,
    reached: Reached,
    early: Vec<u8>,
) {
    let Reached {
        mut server,
        place,
        cut,
    } = reached;
    let (tally, of_listen) = (place.tally(), &listen.tally);
    if !early.is_empty() {
        let sent = timeout(listen.spec.timeouts.connect, server.write_all(&early)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
        tally.bytes_in.add(early.len() as u64);
        of_listen.bytes_in.add(early.len() as u64);
    }
    drop(early);
    let flow = Flow {
        clock: floor.clock,
        pools: Rc::clone(&floor.pools),
        splice: floor.splice,
        moved: Cell::new(floor.clock.now()),
    };
    let to_server = Pump {
        flow: &flow,
        from: &client,
        to: &server,
        counters: [&tally.bytes_in, &of_listen.bytes_in],
    };
    let to_client = Pump {
        flow: &flow,
        from: &server,
        to: &client,
        counters: [&tally.bytes_out, &of_listen.bytes_out],
    };
    let timeouts = listen.spec.timeouts;
    let bytes = both_ways(
        &flow,
        to_server,
        to_client,
        [timeouts.idle, timeouts.half_open],
    );
    let end = tokio::select! {
        () = cut.cancelled() => Ok(End::Cut),
        end = bytes => end,
    };
    match end {
        Ok(End::Cut) => tally.cut.add(1),
        Ok(End::Idle) => {
            tracing::debug!(listen = %listen.spec.name, server = %tally.name, "an idle session was closed");
        }
        // An error is how many sessions end: somebody closed without a word.
        Ok(End::Finished) | Err(_) => {}
    }
}

async fn both_ways(
    flow: &Flow,
    to_server: Pump<'_>,
    to_client: Pump<'_>,
    [idle, half_open]: [Duration; 2],
) -> io::Result<End> {
    let (mut up, mut down) = (pin!(to_server.run()), pin!(to_client.run()));
    let client_finished = tokio::select! {
        ended = &mut up => { ended?; true }
        ended = &mut down => { ended?; false }
        () = silence(flow, idle) => return Ok(End::Idle),
    };
    let rest = async {
        if client_finished {
            down.await
        } else {
            up.await
        }
    };
    tokio::select! {
        ended = rest => ended.map(|()| End::Finished),
        () = silence(flow, half_open.min(idle)) => Ok(End::Idle),
    }
}

/// Waits until no byte has moved for so long. Bytes do not wind the timer: it looks when it ends.
async fn silence(flow: &Flow, limit: Duration) {
    loop {
        let quiet = flow.clock.now().since(flow.moved.get());
        let Some(left) = limit.checked_sub(quiet).filter(|left| !left.is_zero()) else {
            return;
        };
        sleep(left).await;
    }
}
