//! A client with a WebSocket that stays: it says something now and then and waits until it comes back. When it is ended,
//! the client opens another one.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::wire::read_head;

/// A masked text frame, "x", and what of it is compared.
const FRAME: &[u8] = &[0x81, 0x81, 0, 0, 0, 0, b'x'];

/// What became of a turn.
pub(super) enum Turn {
    /// What was said came back, on a session that was there or a new one.
    Answered,
    /// The session had been ended in between, or was while something was under way on it.
    SessionEnded,
}

/// A session, if there is one.
#[derive(Default)]
pub(super) struct Client(Option<TcpStream>);

impl Client {
    /// Says something. That a session ends is no failure; that none can be opened is.
    pub(super) async fn turn(&mut self, address: SocketAddr) -> io::Result<Turn> {
        let mut stream = match self.0.take() {
            Some(stream) => stream,
            None => open(address).await?,
        };
        match say(&mut stream).await {
            Ok(()) => {
                self.0 = Some(stream);
                Ok(Turn::Answered)
            }
            Err(_) => Ok(Turn::SessionEnded),
        }
    }
}

async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let head = format!(
        "GET /socket HTTP/1.1\r\nhost: {address}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let head = read_head(&mut stream, Vec::new()).await?;
    match head.and_then(|head| head.status()) {
        Some(101) => Ok(stream),
        other => Err(io::Error::other(format!(
            "the upgrade was answered {other:?}"
        ))),
    }
}

async fn say(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(FRAME).await?;
    let mut back = [0; FRAME.len()];
    stream.read_exact(&mut back).await?;
    if back == *FRAME {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}
