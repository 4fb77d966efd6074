//! Where connections come in.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::connection::{Served, serve};
use crate::doorman::Doorman;
use crate::house::House;
use crate::limits::{ACCEPT_PAUSE, CONNECTIONS_MAX, HANDSHAKES_MAX};

/// What all doors share.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    pub(crate) house: Rc<House>,
    pub(crate) doorman: Rc<Doorman>,
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
}

impl Door {
    pub(crate) fn new(house: Rc<House>, doorman: Rc<Doorman>) -> Self {
        Self {
            house,
            doorman,
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
        }
    }

    /// Accepts until `stop`, and then waits for the connections' ends.
    pub(crate) async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                served = self.accept(&listener) => {
                    if let Some(served) = served {
                        tasks.spawn_local(served);
                    }
                }
                Some(ended) = tasks.join_next() => told(ended),
            }
        }
        drop(listener);
        while let Some(ended) = tasks.join_next().await {
            told(ended);
        }
    }

    /// One more connection. Who finds no room waits in the kernel's queue.
    async fn accept(&self, listener: &TcpListener) -> Option<impl Future<Output = ()> + use<>> {
        let room = Arc::clone(&self.connections).acquire_owned().await;
        let handshake = Arc::clone(&self.handshakes).acquire_owned().await;
        let (Ok(room), Ok(handshake)) = (room, handshake) else {
            // They are never closed.
            return std::future::pending().await;
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let served = Served {
                    house: Rc::clone(&self.house),
                    doorman: Rc::clone(&self.doorman),
                    peer: canonical(peer),
                    handshake,
                };
                Some(async move {
                    let _room = room;
                    serve_plain(stream, served).await;
                })
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }
}

async fn serve_plain(stream: TcpStream, served: Served) {
    // Confirms and deliveries are small, and somebody waits for each.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection was gone before it was served");
        return;
    }
    serve(stream, served).await;
}

/// An IPv4 address is one, however the socket shows it.
fn canonical(peer: SocketAddr) -> IpAddr {
    peer.ip().to_canonical()
}

fn told(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        // Its seat was given up; the others go on.
        tracing::error!(%error, "the task of a connection failed");
    }
}
