//! A connection on which nothing moves is closed, whatever it was doing: idle, half a request sent,
//! or not reading a watch.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Ten missed pulses of a watch, and longer than any answer takes.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(30);

/// A stream that fails with [`io::ErrorKind::TimedOut`] when no byte moved for [`IDLE_MAX`].
pub(super) struct Patient<S> {
    stream: S,
    moved: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S) -> Self {
        let moved = Instant::now();
        Self {
            stream,
            moved,
            timer: Box::pin(tokio::time::sleep_until(moved + IDLE_MAX)),
        }
    }

    /// Notes a movement, or looks whether the last one is too long ago.
    fn judge<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.moved = Instant::now();
            return poll;
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let end = self.moved + IDLE_MAX;
            if end <= Instant::now() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            // The timer is only moved when it fires, not for each movement.
            self.timer.as_mut().reset(end);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.judge(cx, poll)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.judge(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Flushing a socket moves nothing: it must not count as a movement.
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_ends_after_the_idle_time_and_not_before() {
        let (_peer, stream) = tokio::io::duplex(64);
        let start = Instant::now();
        let error = Patient::new(stream).read_u8().await.expect_err("is closed");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let waited = start.elapsed();
        assert!(waited >= IDLE_MAX && waited < IDLE_MAX * 2, "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stopped_reading_is_given_up() {
        let (_peer, stream) = tokio::io::duplex(64);
        let error = Patient::new(stream)
            .write_all(&[0; 1000])
            .await
            .expect_err("is closed");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_only_writes_stays_open() {
        let (mut peer, stream) = tokio::io::duplex(64);
        let mut patient = Patient::new(stream);
        let mut pulse = tokio::time::interval(Duration::from_secs(1));
        for _ in 0..100 {
            pulse.tick().await;
            patient.write_all(b"\n").await.expect("is open");
            peer.read_u8().await.expect("is open");
            let mut byte = [0];
            let read = tokio::time::timeout(Duration::ZERO, patient.read(&mut byte)).await;
            assert!(read.is_err(), "nothing to read, and no error");
        }
    }
}
