//! Asking others: a query goes on as it came, and the answer comes back as it came.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::reply::Transport;
use super::wire;

/// How long one upstream may take. All three together take less than the five seconds after which a C
/// library gives up on us and asks its next server.
pub(super) const UPSTREAM_TIME: Duration = Duration::from_millis(1500);

/// The longest answer that is taken by UDP: nobody is told that more is (`reply::UDP_LEN`), but clients
/// of others may say so. A longer one is cut, and the client comes by TCP.
const UDP_ANSWER_LEN_MAX: usize = 4096;

/// Why an upstream gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("it cannot be asked")]
    Io(#[from] io::Error),
    #[error("it did not answer within {UPSTREAM_TIME:?}")]
    Late,
}

/// What an upstream said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// All of it.
    Whole(Vec<u8>),
    /// Its beginning; the rest was too long.
    Begun(Vec<u8>),
}

impl Answer {
    /// What there is of it.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Whole(bytes) | Self::Begun(bytes) => bytes,
        }
    }
}

/// Asks `upstream`. The id is drawn anew, and the port by the kernel, so that nobody who does not see the
/// query can answer it; the answer bears the id of the query again.
pub(super) async fn ask(
    upstream: SocketAddr,
    query: &[u8],
    question: &[u8],
    transport: Transport,
) -> Result<Answer, Failure> {
    let mut own = query.to_vec();
    let own_id = fastrand::u16(..);
    wire::set_id(&mut own, own_id);
    let asked = Asked {
        query: &own,
        id: own_id,
        question,
    };
    let exchange = async {
        match transport {
            Transport::Udp => by_udp(upstream, &asked).await,
            Transport::Tcp => by_tcp(upstream, &asked).await.map(Answer::Whole),
        }
    };
    let answer = timeout(UPSTREAM_TIME, exchange)
        .await
        .map_err(|_| Failure::Late)??;
    let back = |mut answer: Vec<u8>| {
        if let Some(id) = query.first_chunk::<2>() {
            wire::set_id(&mut answer, u16::from_be_bytes(*id));
        }
        answer
    };
    Ok(match answer {
        Answer::Whole(answer) => Answer::Whole(back(answer)),
        Answer::Begun(answer) => Answer::Begun(back(answer)),
    })
}

/// A query under its own id.
struct Asked<'a> {
    query: &'a [u8],
    id: u16,
    question: &'a [u8],
}

async fn by_udp(upstream: SocketAddr, asked: &Asked<'_>) -> io::Result<Answer> {
    let any: SocketAddr = match upstream {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    // From now on the kernel hands over what comes from there alone, and tells if nobody listens there.
    socket.connect(upstream).await?;
    socket.send(asked.query).await?;
    let mut room = vec![0; UDP_ANSWER_LEN_MAX + 1];
    loop {
        let len = socket.recv(&mut room).await?;
        if !wire::answers(&room[..len], asked.id, asked.question) {
            // A late answer to somebody else's question, or a forged one: the right one may still come.
            continue;
        }
        room.truncate(len);
        return Ok(if len > UDP_ANSWER_LEN_MAX {
            Answer::Begun(room)
        } else {
            Answer::Whole(room)
        });
    }
}

async fn by_tcp(upstream: SocketAddr, asked: &Asked<'_>) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    stream.write_all(&framed(asked.query)?).await?;
    let answer = read_framed(&mut stream, usize::from(u16::MAX)).await?;
    if wire::answers(&answer, asked.id, asked.question) {
        return Ok(answer);
    }
    let message = "it answers another question";
    Err(io::Error::new(io::ErrorKind::InvalidData, message))
}

/// A message as it goes over a connection (RFC 1035, 4.2.2): its length before it. In one piece, so that
/// it is one segment (RFC 7766, 8).
pub(super) fn framed(message: &[u8]) -> io::Result<Vec<u8>> {
    let Ok(len) = u16::try_from(message.len()) else {
        let message = "a message has up to 65535 bytes";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    };
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend_from_slice(&len.to_be_bytes());
    framed.extend_from_slice(message);
    Ok(framed)
}

/// Reads one. A longer one is refused before any of it is read.
pub(super) async fn read_framed(stream: &mut TcpStream, len_max: usize) -> io::Result<Vec<u8>> {
    let len = usize::from(stream.read_u16().await?);
    if len > len_max {
        let message = "the message is too long";
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut message = vec![0; len];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
