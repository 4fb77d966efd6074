//! Who connects: whom a trusted proxy names by the PROXY protocol, or else whoever is at the other
//! end.

use std::io;
use std::net::SocketAddr;

use mainstay_model::Network;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::limits::PROXY_HEADER_TIME;
use crate::proxy_protocol::{self, Header, LEN_MAX, Malformed};

/// Whom a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The client, as far as it is known.
    pub(crate) client: SocketAddr,
    /// What a server is told.
    pub(crate) header: Header,
}

/// Why nobody knows whom a connection is for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unidentified {
    #[error("{0} is no proxy that is trusted here")]
    Stranger(SocketAddr),
    #[error("the header of the PROXY protocol was refused")]
    Malformed(#[from] Malformed),
    #[error("there was no whole header of the PROXY protocol within {PROXY_HEADER_TIME:?}")]
    NoHeader,
    #[error("the connection broke")]
    Broken(#[from] io::Error),
}

/// Learns who calls; with what the client sent behind the header. `trusted` are those who must say
/// for whom they connect; `None`: nobody does.
pub(crate) async fn identify(
    trusted: Option<&[Network]>,
    stream: &mut TcpStream,
    peer: SocketAddr,
) -> Result<(Caller, Vec<u8>), Unidentified> {
    let own = Header::Tcp {
        source: peer,
        destination: stream.local_addr()?,
    };
    let direct = Caller {
        client: peer,
        header: own,
    };
    let Some(trusted) = trusted else {
        return Ok((direct, Vec::new()));
    };
    if !trusted.iter().any(|network| network.contains(peer.ip())) {
        return Err(Unidentified::Stranger(peer));
    }
    let read = timeout(PROXY_HEADER_TIME, read_header(stream)).await;
    let (header, early) = read.map_err(|_| Unidentified::NoHeader)??;
    let caller = match header {
        Header::Tcp { source, .. } => Caller {
            client: source,
            header,
        },
        Header::Local => direct,
        Header::Unix => Caller {
            client: peer,
            header,
        },
    };
    Ok((caller, early))
}

/// Reads a header, and what came behind it. Never more than a header may be long at once.
async fn read_header(stream: &mut TcpStream) -> Result<(Header, Vec<u8>), Unidentified> {
    let mut bytes = Vec::with_capacity(256);
    loop {
        if let Some((header, len)) = proxy_protocol::decode(&bytes)? {
            bytes.drain(..len);
            return Ok((header, bytes));
        }
        let room = (LEN_MAX - bytes.len()) as u64;
        if stream.take(room).read_buf(&mut bytes).await? == 0 {
            return Err(Unidentified::NoHeader);
        }
    }
}
