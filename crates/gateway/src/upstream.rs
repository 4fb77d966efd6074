//! Connections to instances.
//!
//! An upstream connection has no task of its own: whoever waits for its answer drives it, so that a
//! request costs no hand-over between tasks. While it lies in the pool nobody drives it, and it has
//! no buffer; it is looked at when it is taken out.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mainstay_control::balance::Loss;
use mainstay_http1::{Method, Response, ResponseError, Scan};
use mainstay_ids::Instant;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::limits::INSTANCE_HEAD;
use crate::wire::{Buffers, Socket, make_room};

/// One connection to an instance.
pub(crate) struct Upstream {
    pub(crate) socket: Socket,
    pub(crate) read: BytesMut,
    pub(crate) idle_since: Instant,
}

/// How sure a caller must be that an idle connection is still open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Assurance {
    /// What the runtime has heard so far: a request that is lost can be sent again.
    Hint,
    /// Ask the operating system.
    Look,
}

/// Why there is no head of an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoHead {
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    #[error("the instance ended the connection")]
    Ended,
    #[error("what it answered is no HTTP")]
    Malformed(#[source] ResponseError),
}

impl NoHead {
    /// What it says of the request: whether whoever had it is gone, or may only be late.
    pub(crate) fn loss(&self) -> Loss {
        match self {
            Self::Broken(error) => match error.kind() {
                io::ErrorKind::TimedOut
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::NetworkDown => Loss::TimedOut,
                _ => Loss::Broken,
            },
            Self::Ended | Self::Malformed(_) => Loss::Broken,
        }
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    #[cfg(any(test, feature = "driven"))]
    if let Some(made) = crate::driven::connect(address) {
        return made;
    }
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Upstream {
    /// Opens a connection within this time.
    pub(crate) async fn connect(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = timeout(patience, connect(address))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(Self {
            socket: Socket::new(stream),
            read: BytesMut::new(),
            idle_since: Instant::START,
        })
    }

    /// Whether an idle connection can be used.
    pub(crate) fn is_alive(&self, assurance: Assurance) -> bool {
        match assurance {
            Assurance::Hint => self.socket.seems_quiet(),
            Assurance::Look => self.socket.is_quiet(),
        }
    }

    /// The next head that the instance sends in answer to `method`.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        scan: &mut Scan,
        method: Method,
        buffers: &Buffers,
    ) -> Poll<Result<Response, NoHead>> {
        loop {
            let end = scan.find_end(&self.read, INSTANCE_HEAD);
            let end = end.map_err(|why| NoHead::Malformed(why.into()))?;
            if let Some(len) = end {
                *scan = Scan::default();
                let head: Bytes = self.read.split_to(len).freeze();
                let response = Response::parse(head, method, INSTANCE_HEAD);
                return Poll::Ready(response.map_err(NoHead::Malformed));
            }
            match ready!(self.poll_fill(cx, buffers)) {
                Ok(0) => return Poll::Ready(Err(NoHead::Ended)),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(NoHead::Broken(error))),
            }
        }
    }

    /// Reads more into the buffer, which is made only when there is something to read.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
    ) -> Poll<io::Result<usize>> {
        if self.read.capacity() == 0 {
            ready!(self.socket.poll_readable(cx))?;
            self.read = buffers.take();
        }
        make_room(&mut self.read);
        self.socket.poll_read(cx, &mut self.read)
    }

    /// The same in the middle of a body. Its buffer is empty only because all of it was given on, and
    /// is used again, larger: a read has filled it.
    pub(crate) fn poll_fill_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.read.capacity() == 0 {
            ready!(self.socket.poll_readable(cx))?;
        }
        make_room(&mut self.read);
        self.socket.poll_read(cx, &mut self.read)
    }
}
