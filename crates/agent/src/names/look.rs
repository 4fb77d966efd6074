//! Asking our own server, as any client does: for `mainstay resolve`.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::upstream::{framed, read_framed};
use super::wire;

/// For a server on this machine that answers from memory; one that is being started again is waited for.
const LOOK_TIME: Duration = Duration::from_secs(3);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// Addresses of IPv4.
    A,
    /// Addresses of IPv6.
    Aaaa,
    /// Ports, with the names at which they are.
    Srv,
}

impl RecordKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::A, Self::Aaaa, Self::Srv];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Srv => "SRV",
        }
    }

    fn record_type(self) -> RecordType {
        match self {
            Self::A => RecordType::A,
            Self::Aaaa => RecordType::AAAA,
            Self::Srv => RecordType::SRV,
        }
    }
}

/// What the server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookedUp {
    /// `NOERROR`, `NXDOMAIN` and the like, in words.
    pub code: String,
    /// How long it may be kept, in seconds; `None`: nothing was found.
    pub ttl: Option<u32>,
    /// The records as text.
    pub records: Vec<String>,
}

/// Why the server did not say anything.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// It is no name.
    #[error("`{name}` is no name of DNS")]
    Name {
        /// What was given.
        name: String,
    },
    /// Nobody answered.
    #[error("the server at {server} did not answer within {LOOK_TIME:?}")]
    Late {
        /// Which.
        server: SocketAddr,
    },
    /// It cannot be asked.
    #[error("cannot ask the server at {server}")]
    Io {
        /// Which.
        server: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Asks `server` for the records of `name`, by UDP, and by TCP if they do not fit.
pub async fn look_up(
    server: SocketAddr,
    name: &str,
    kind: RecordKind,
) -> Result<LookedUp, LookError> {
    let no_name = || LookError::Name {
        name: name.to_owned(),
    };
    let mut asked = Name::from_ascii(name).map_err(|_| no_name())?;
    asked.set_fqdn(true);
    let mut query = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(asked, kind.record_type()));
    let bytes = query.to_vec().map_err(|_| no_name())?;
    let exchanged = timeout(LOOK_TIME, exchange(server, &bytes));
    let answer = match exchanged.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(source)) => return Err(LookError::Io { server, source }),
        Err(_) => return Err(LookError::Late { server }),
    };
    Ok(LookedUp {
        code: code(answer.response_code),
        ttl: answer.answers.iter().map(|record| record.ttl).min(),
        records: answer
            .answers
            .iter()
            .map(|record| record.data.to_string())
            .collect(),
    })
}

async fn exchange(server: SocketAddr, query: &[u8]) -> io::Result<Message> {
    let any: SocketAddr = if server.is_ipv4() {
        (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut room = vec![0; usize::from(u16::MAX)];
    loop {
        let len = socket.recv(&mut room).await?;
        let id = query.first_chunk::<2>().copied().unwrap_or_default();
        let question = query.get(wire::HEADER_LEN..).unwrap_or_default();
        if wire::answers(&room[..len], u16::from_be_bytes(id), question) {
            room.truncate(len);
            break;
        }
    }
    let answer = read(&room)?;
    if !answer.truncation {
        return Ok(answer);
    }
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&framed(query)?).await?;
    read(&read_framed(&mut stream, usize::from(u16::MAX)).await?)
}

fn read(bytes: &[u8]) -> io::Result<Message> {
    Message::from_vec(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// As dig writes it.
fn code(code: ResponseCode) -> String {
    match code {
        ResponseCode::NoError => "NOERROR".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        other => other.to_string(),
    }
}
