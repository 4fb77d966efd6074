//! What clients with TLS are shown, and their handshake. A certificate that is renewed on disk is taken within two
//! seconds, for connections that come after it; one that cannot be used is told, and the one from before stays.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::IpAddr;
use std::rc::Rc;

use mainstay_kernel::looked_at::{LOOK_EVERY, LookedAt};
use mainstay_tls::Files;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{Error as TlsError, InvalidMessage};
use tokio_rustls::server::TlsStream;

use crate::limits::TLS_HANDSHAKE;

/// What others see of it.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Connections now.
    pub(crate) connections: Cell<usize>,
    /// Handshakes that failed.
    pub(crate) refused: Cell<u64>,
    /// Who failed last, and why.
    pub(crate) last: RefCell<Option<String>>,
    /// What is wrong with the files as they are now.
    pub(crate) problem: RefCell<Option<String>>,
}

/// A connection that counts, as long as this lives.
#[derive(Debug)]
pub(crate) struct Counted(Rc<Seen>);

impl Counted {
    pub(crate) fn new(seen: &Rc<Seen>) -> Self {
        seen.connections.set(seen.connections.get() + 1);
        Self(Rc::clone(seen))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
    }
}

/// The certificate that is shown.
pub(crate) struct Certificate {
    files: Files,
    seen: Rc<Seen>,
    /// `None`: there was no good one since the start. Clients without TLS are served all the same.
    acceptor: RefCell<Option<TlsAcceptor>>,
    looked_at: RefCell<LookedAt>,
}

impl Certificate {
    pub(crate) fn new(files: Files, seen: Rc<Seen>) -> Self {
        let looked_at = RefCell::new(LookedAt::new(files.paths()));
        let certificate = Self {
            files,
            seen,
            acceptor: RefCell::default(),
            looked_at,
        };
        certificate.load();
        certificate
    }

    fn load(&self) {
        let problem = match mainstay_tls::load(&self.files) {
            Ok(config) => {
                *self.acceptor.borrow_mut() = Some(TlsAcceptor::from(config));
                None
            }
            Err(error) => {
                let stays = match *self.acceptor.borrow() {
                    Some(_) => "the one from before is shown on",
                    None => "clients with TLS are refused",
                };
                let told = format!("{error}: {}", error.why);
                tracing::error!(remedy = error.remedy(), "{told}; {stays}");
                Some(told)
            }
        };
        *self.seen.problem.borrow_mut() = problem;
    }

    /// Looks at the files until it is dropped.
    pub(crate) async fn follow(self: Rc<Self>) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let changed = self.looked_at.borrow_mut().look();
            if changed {
                self.load();
                if self.seen.problem.borrow().is_none() {
                    tracing::info!("another certificate is shown from now on");
                }
            }
        }
    }

    /// A client's stream once its handshake is done; `None`: it failed, and that is counted.
    pub(crate) async fn shake_hands<S>(&self, peer: IpAddr, stream: S) -> Option<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = self.acceptor.borrow().clone();
        let why = match acceptor {
            None => "there is no certificate to be shown".to_owned(),
            Some(acceptor) => match timeout(TLS_HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => return Some(stream),
                Ok(Err(error)) => told(&error),
                Err(_) => "its handshake took too long".to_owned(),
            },
        };
        tracing::debug!(%peer, why, "a client with TLS is refused");
        self.seen.refused.set(self.seen.refused.get() + 1);
        *self.seen.last.borrow_mut() = Some(format!("{peer}: {why}"));
        None
    }
}

fn told(error: &io::Error) -> String {
    let of_tls = error.get_ref().and_then(|inner| inner.downcast_ref());
    match of_tls {
        Some(TlsError::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "it speaks without TLS; that is another port".to_owned()
        }
        Some(_) | None => error.to_string(),
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut told = f.debug_struct("Certificate");
        told.field("files", &self.files).finish_non_exhaustive()
    }
}
