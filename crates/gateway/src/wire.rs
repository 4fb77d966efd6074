//! Sockets and the bytes that pass them: what a connection to a client and one to an instance have
//! in common.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

use crate::limits::{
    BODY_READ_LEN, BUFFERS_KEPT_MAX, BUFFERS_TRIED, GATHERED_LEN_MAX, HEAD_ROOM, HEADS_BLOCK_LEN,
    READ_LEN,
};

/// A socket that several parts of one task read and write. Borrowed only within one call.
#[derive(Debug)]
pub(crate) struct Socket(RefCell<TcpStream>);

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(RefCell::new(stream))
    }

    /// Reads what is there behind what `into` holds, as far as it has room. 0: the peer has ended
    /// its side.
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        into: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        poll_read_buf(Pin::new(&mut *self.0.borrow_mut()), cx, into)
    }

    /// Reads for somebody who has a buffer.
    pub(crate) fn poll_read_into(
        &self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, into)
    }

    /// Ready when there may be something to read; without a system call and without a buffer.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow().poll_read_ready(cx)
    }

    pub(crate) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut stream = self.0.borrow_mut();
        let len = slices.iter().map(|slice| slice.len()).sum();
        match slices {
            [only] => Pin::new(&mut *stream).poll_write(cx, only),
            // A plain write costs the kernel less than a vectored one, by more than this copy.
            _ if len <= GATHERED_LEN_MAX => {
                let mut gathered = [0; GATHERED_LEN_MAX];
                let mut end = 0;
                for slice in slices {
                    gathered[end..end + slice.len()].copy_from_slice(slice);
                    end += slice.len();
                }
                Pin::new(&mut *stream).poll_write(cx, &gathered[..len])
            }
            _ => Pin::new(&mut *stream).poll_write_vectored(cx, slices),
        }
    }

    /// To which of this machine's addresses its client connected.
    pub(crate) fn local(&self) -> Option<IpAddr> {
        let local = self.0.borrow().local_addr().ok()?;
        Some(local.ip().to_canonical())
    }

    /// Tells the peer that nothing more comes.
    pub(crate) fn shut_down_write(&self) -> io::Result<()> {
        socket2::SockRef::from(&*self.0.borrow()).shutdown(std::net::Shutdown::Write)
    }

    /// Whether the peer neither closed the connection nor sent something unasked, as far as the
    /// runtime has heard: no system call as long as it has heard nothing.
    pub(crate) fn seems_quiet(&self) -> bool {
        let read = self.0.borrow().try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The same by asking the operating system: for requests that must not be sent twice.
    pub(crate) fn is_quiet(&self) -> bool {
        let stream = self.0.borrow();
        let mut byte = [MaybeUninit::uninit()];
        let peeked = socket2::SockRef::from(&*stream).peek(&mut byte);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Lets closing the socket reset the connection: an orderly end would look as if a body that
    /// broke off were complete.
    pub(crate) fn reset_at_close(&self) {
        // If it fails, the socket is gone already.
        socket2::SockRef::from(&*self.0.borrow())
            .set_linger(Some(Duration::ZERO))
            .ok();
    }
}

/// A part of a message on its way out: a head, and a piece of the body with what frames it, written
/// with one system call if the socket takes them.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// A message's head.
    head: Bytes,
    /// What stands before the piece, a chunk's size.
    line: Bytes,
    piece: Bytes,
    /// What stands behind it.
    tail: &'static [u8],
    /// Of these four.
    written: usize,
    /// Of everything.
    written_in_all: u64,
}

impl Outgoing {
    pub(crate) fn with_head(head: Bytes) -> Self {
        Self {
            head,
            ..Self::default()
        }
    }

    /// Puts a piece behind what is there; see [`Self::has_room`].
    pub(crate) fn append(&mut self, line: Bytes, piece: Bytes, tail: &'static [u8]) {
        debug_assert!(self.has_room(), "the piece before was not written");
        self.line = line;
        self.piece = piece;
        self.tail = tail;
    }

    /// Whether a piece may be put behind what is there.
    pub(crate) fn has_room(&self) -> bool {
        self.line.is_empty() && self.piece.is_empty() && self.tail.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.written == self.len()
    }

    /// Whether nothing was ever written.
    pub(crate) fn is_untouched(&self) -> bool {
        self.written_in_all == 0
    }

    /// Bytes that were written since the begin.
    pub(crate) fn written_in_all(&self) -> u64 {
        self.written_in_all
    }

    fn len(&self) -> usize {
        self.head.len() + self.line.len() + self.piece.len() + self.tail.len()
    }

    /// Writes until nothing is left.
    pub(crate) fn poll_flush(
        &mut self,
        socket: &Socket,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let parts = [&self.head[..], &self.line[..], &self.piece[..], self.tail];
            let mut slices = [IoSlice::new(&[]); 4];
            let mut count = 0;
            let mut skip = self.written;
            for part in parts {
                if skip < part.len() {
                    slices[count] = IoSlice::new(&part[skip..]);
                    count += 1;
                    skip = 0;
                } else {
                    skip -= part.len();
                }
            }
            let written = ready!(socket.poll_write(cx, &slices[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
            self.written_in_all += written as u64;
        }
        // What was written is let go of now, not with the next piece.
        *self = Self {
            written_in_all: self.written_in_all,
            ..Self::default()
        };
        Poll::Ready(Ok(()))
    }
}

/// The buffers of one worker. A connection has one only while it has something in it, so that idle
/// connections cost none, and busy ones share a few that are warm in the processor's cache.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    free: RefCell<Vec<BytesMut>>,
    heads: RefCell<BytesMut>,
}

impl Buffers {
    /// A buffer with room for [`READ_LEN`] bytes.
    pub(crate) fn take(&self) -> BytesMut {
        let mut free = self.free.borrow_mut();
        // One that was given back while a part of it was in use may be whole again by now.
        for _ in 0..BUFFERS_TRIED {
            let Some(mut buffer) = free.pop() else {
                break;
            };
            if buffer.try_reclaim(READ_LEN) {
                return buffer;
            }
        }
        BytesMut::with_capacity(READ_LEN)
    }

    /// Gives one back, whatever it holds.
    pub(crate) fn give(&self, mut buffer: BytesMut) {
        buffer.clear();
        let mut free = self.free.borrow_mut();
        if free.len() < BUFFERS_KEPT_MAX {
            free.push(buffer);
        }
    }

    /// Bytes that `write` makes, cut from a block, so that making a head costs no allocation.
    pub(crate) fn head(&self, write: impl FnOnce(&mut BytesMut)) -> Bytes {
        let mut block = self.heads.borrow_mut();
        if block.capacity() < HEAD_ROOM {
            // Takes the old block again if nobody holds a part of it any more.
            block.reserve(HEADS_BLOCK_LEN);
        }
        write(&mut block);
        block.split().freeze()
    }
}

/// Makes room for the next read of a body: more, once a read has filled what there was.
pub(crate) fn make_room(buffer: &mut BytesMut) {
    if buffer.capacity() - buffer.len() >= READ_LEN / 2 {
        return;
    }
    buffer.reserve(BODY_READ_LEN);
}
