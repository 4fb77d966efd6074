//! Where connections come in.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::connection::{Served, serve};
use crate::doorman::Doorman;
use crate::house::House;
use crate::limits::{ACCEPT_PAUSE, Room, TLS_HANDSHAKES_MAX};
use crate::tls::{Certificate, Counted};

/// How clients speak at a door.
#[derive(Debug, Clone)]
pub(crate) enum Speech {
    Plain,
    Tls(Rc<Certificate>),
}

/// What all doors share, and how one of them is.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    house: Rc<House>,
    doorman: Rc<Doorman>,
    /// Of AMQP.
    handshakes: Arc<Semaphore>,
    /// Those of TLS, before them.
    tls_handshakes: Arc<Semaphore>,
    speech: Speech,
}

impl Door {
    pub(crate) fn new(house: Rc<House>, doorman: Rc<Doorman>, room: Room) -> Self {
        Self {
            house,
            doorman,
            handshakes: Arc::new(Semaphore::new(room.handshakes)),
            tls_handshakes: Arc::new(Semaphore::new(TLS_HANDSHAKES_MAX)),
            speech: Speech::Plain,
        }
    }

    /// Another one beside it.
    pub(crate) fn with(&self, speech: Speech) -> Self {
        Self {
            speech,
            ..self.clone()
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

    /// One more connection. Who finds no room for a handshake waits in the kernel's queue; who finds none after it is
    /// told so.
    async fn accept(&self, listener: &TcpListener) -> Option<impl Future<Output = ()> + use<>> {
        let handshake = permit(&self.handshakes).await;
        let tls = match &self.speech {
            Speech::Plain => None,
            Speech::Tls(certificate) => {
                Some((Rc::clone(certificate), permit(&self.tls_handshakes).await))
            }
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let served = Served {
                    house: Rc::clone(&self.house),
                    doorman: Rc::clone(&self.doorman),
                    peer: canonical(peer),
                    handshake,
                };
                Some(enter(stream, served, tls))
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }
}

async fn permit(room: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    let permit = Arc::clone(room).acquire_owned().await;
    permit.expect("it is never closed")
}

async fn enter(
    stream: TcpStream,
    served: Served,
    tls: Option<(Rc<Certificate>, OwnedSemaphorePermit)>,
) {
    // Confirms and deliveries are small, and somebody waits for each.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection was gone before it was served");
        return;
    }
    match tls {
        None => serve(stream, served).await,
        // Elsewhere, so that a connection without TLS does not have its room.
        Some((certificate, handshake)) => {
            Box::pin(enter_by_tls(stream, served, &certificate, handshake)).await;
        }
    }
}

async fn enter_by_tls(
    stream: TcpStream,
    served: Served,
    certificate: &Certificate,
    handshake: OwnedSemaphorePermit,
) {
    let stream = certificate.shake_hands(served.peer, stream).await;
    drop(handshake);
    if let Some(stream) = stream {
        let _counted = Counted::new(&served.house.tls);
        serve(stream, served).await;
    }
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
