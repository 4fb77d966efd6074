//! One check of a server. What a result means is `control::listen`'s.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mainstay_ids::Timestamp;
use mainstay_model::listen::{CheckKind, CheckSpec, ProxyVersion};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::listen::limits::{AMQP_FRAME_LEN_MAX, CHECK_HEAD_LEN_MAX, TOLD_LEN_MAX};
use crate::proxy_protocol::{self, Header};

/// How a check ended, for people.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CheckReport {
    /// HAProxy's word for it: `L4OK`, `L4TOUT`, `L4CON`, `L7OK`, `L7STS`, `L7RSP`, `L7TOUT`.
    pub code: &'static str,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// What went wrong; `None`: it passed.
    pub failure: Option<String>,
    /// How long it took.
    #[serde(serialize_with = "crate::listen::snapshot::milliseconds")]
    pub took: Duration,
    /// When it ended.
    pub at: Timestamp,
}

/// What a passed check saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passed {
    Connected,
    Answered { status: Option<u16> },
}

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no connection within {0:?}")]
    ConnectDeadline(Duration),
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("no answer within {0:?}")]
    AnswerDeadline(Duration),
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("it answered with status {status}, not {expected}")]
    Status { status: u16, expected: String },
    #[error("it does not speak HTTP/1")]
    NotHttp,
    #[error("it does not speak AMQP 0-9-1: {0}")]
    NotAmqp(&'static str),
}

/// Tries a server once, at most as long as `check` allows.
pub(crate) async fn check(
    address: SocketAddr,
    check: &CheckSpec,
    proxy: Option<ProxyVersion>,
) -> Result<Passed, Failure> {
    let deadline = Instant::now() + check.timeout;
    let mut stream = timeout_at(deadline, TcpStream::connect(address))
        .await
        .map_err(|_| Failure::ConnectDeadline(check.timeout))?
        .map_err(Failure::Connect)?;
    let talk = async {
        match &check.kind {
            CheckKind::Tcp => {
                // A reset: the server sees that nobody meant to talk, and no port waits for minutes.
                SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                Ok(Passed::Connected)
            }
            CheckKind::Http { path, expect } => {
                introduce(&mut stream, proxy).await?;
                http(stream, address, path.as_str(), *expect).await
            }
            CheckKind::Amqp => {
                introduce(&mut stream, proxy).await?;
                amqp(&mut stream).await
            }
        }
    };
    timeout_at(deadline, talk)
        .await
        .map_err(|_| Failure::AnswerDeadline(check.timeout))?
}

/// A server that wants the PROXY protocol wants it of a check, too: that it speaks for nobody.
async fn introduce(stream: &mut TcpStream, proxy: Option<ProxyVersion>) -> io::Result<()> {
    let Some(version) = proxy else { return Ok(()) };
    let header = proxy_protocol::encode(version, &Header::Local);
    stream.write_all(&header).await
}

async fn http(
    mut stream: TcpStream,
    address: SocketAddr,
    path: &str,
    expect: Option<u16>,
) -> Result<Passed, Failure> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: mainstay-check\r\naccept: */*\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::with_capacity(512);
    while !head.contains(&b'\n') {
        if head.len() >= CHECK_HEAD_LEN_MAX || stream.read_buf(&mut head).await? == 0 {
            return Err(Failure::NotHttp);
        }
    }
    let status = status(&head).ok_or(Failure::NotHttp)?;
    match expect {
        Some(expected) if status != expected => Err(Failure::Status {
            status,
            expected: expected.to_string(),
        }),
        None if !(200..400).contains(&status) => Err(Failure::Status {
            status,
            expected: "200 to 399".to_owned(),
        }),
        Some(_) | None => Ok(Passed::Answered {
            status: Some(status),
        }),
    }
}

/// RFC 9112, section 4: `HTTP/1.1 200 OK`.
fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line.trim_ascii_end()).ok()?;
    let (version, rest) = line.split_once(' ')?;
    let code = rest.split(' ').next()?;
    let minor = version.strip_prefix("HTTP/1.")?;
    let legal =
        minor.len() == 1 && code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
    code.parse().ok().filter(|_| legal)
}

/// AMQP 0-9-1, 4.2.2: what a client sends first.
const AMQP_HEADER: &[u8; 8] = b"AMQP\0\0\x09\x01";
/// 4.2.3: a frame of a method, on channel 0, and what every frame ends with.
const FRAME_METHOD: u8 = 1;
const FRAME_END: u8 = 0xCE;
/// 1.4: `connection.start` is class 10, method 10, and begins with the version.
const CONNECTION_START: [u8; 6] = [0, 10, 0, 10, 0, 9];

/// Begins a connection until the server has said `Connection.Start`. A node of RabbitMQ whose port is
/// open but which does not take clients yet, or no more, does not say it.
async fn amqp(stream: &mut TcpStream) -> Result<Passed, Failure> {
    stream.write_all(AMQP_HEADER).await?;
    let mut head = [0; 7];
    stream.read_exact(&mut head).await.map_err(amqp_end)?;
    if head.starts_with(b"AMQP") {
        return Err(Failure::NotAmqp("it wants another version of AMQP"));
    }
    let [kind, channel_high, channel_low, size @ ..] = head;
    let len = usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX);
    if (kind, channel_high, channel_low) != (FRAME_METHOD, 0, 0) {
        return Err(Failure::NotAmqp("its first frame is no method"));
    }
    if !(CONNECTION_START.len()..=AMQP_FRAME_LEN_MAX).contains(&len) {
        return Err(Failure::NotAmqp("its first frame has an impossible length"));
    }
    let mut frame = vec![0; len + 1];
    stream.read_exact(&mut frame).await.map_err(amqp_end)?;
    if frame.last() != Some(&FRAME_END) || !frame.starts_with(&CONNECTION_START) {
        return Err(Failure::NotAmqp("its first frame is not connection.start"));
    }
    Ok(Passed::Answered { status: None })
}

fn amqp_end(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        Failure::NotAmqp("it closed the connection")
    } else {
        Failure::Broken(error)
    }
}

impl CheckReport {
    /// What people are told of a result.
    pub(crate) fn of(result: &Result<Passed, Failure>, took: Duration, at: Timestamp) -> Self {
        let (code, status) = match result {
            Ok(Passed::Connected) => ("L4OK", None),
            Ok(Passed::Answered { status }) => ("L7OK", *status),
            Err(Failure::ConnectDeadline(_)) => ("L4TOUT", None),
            Err(Failure::Connect(_)) => ("L4CON", None),
            Err(Failure::AnswerDeadline(_)) => ("L7TOUT", None),
            Err(Failure::Status { status, .. }) => ("L7STS", Some(*status)),
            Err(Failure::Broken(_) | Failure::NotHttp | Failure::NotAmqp(_)) => ("L7RSP", None),
        };
        let failure = result.as_ref().err().map(|failure| {
            let text = failure.to_string();
            text.chars().take(TOLD_LEN_MAX).collect()
        });
        Self {
            code,
            status,
            failure,
            took,
            at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_model::PathPrefix;
    use tokio::net::TcpListener;

    /// What RabbitMQ 3.10 says first, but for most of its properties.
    const START: &[u8] = b"\x01\0\0\0\0\0\x29\0\x0a\0\x0a\0\x09\0\0\0\x04\x01xt\x01\0\0\0\x0ePLAIN AMQPLAIN\0\0\0\x05en_US\xce";

    /// A server that answers the first bytes with `answer` and closes.
    async fn served(kind: CheckKind, answer: &'static [u8]) -> Result<Passed, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("somebody comes");
            let mut asked = [0; 1024];
            let len = stream.read(&mut asked).await.expect("it asks");
            stream.write_all(answer).await.expect("it reads");
            asked[..len].to_vec()
        });
        let result = check(address, &CheckSpec::of(kind), None).await;
        server.await.expect("it served");
        result
    }

    fn get(expect: Option<u16>) -> CheckKind {
        let path = PathPrefix::parse("/ready").expect("a path");
        CheckKind::Http { path, expect }
    }

    #[tokio::test]
    async fn http_is_judged_by_the_status_that_is_expected() {
        let result = served(get(None), b"HTTP/1.1 204 No Content\r\n\r\n").await;
        assert!(matches!(result, Ok(Passed::Answered { status: Some(204) })));
        let result = served(get(Some(200)), b"HTTP/1.1 204 No Content\r\n\r\n").await;
        assert!(matches!(result, Err(Failure::Status { status: 204, .. })));
        let result = served(get(Some(503)), b"HTTP/1.0 503 Busy\r\n\r\n").await;
        assert!(result.is_ok(), "whoever expects it");
        let result = served(get(None), b"HTTP/1.1 503 Busy\r\n\r\n").await;
        let report = CheckReport::of(&result, Duration::ZERO, Timestamp(0));
        assert_eq!((report.code, report.status), ("L7STS", Some(503)));
        assert_eq!(
            report.failure.as_deref(),
            Some("it answered with status 503, not 200 to 399")
        );
        for bad in [
            b"SSH-2.0-x\r\n".as_slice(),
            b"HTTP/2 200\n",
            b"HTTP/1.1 20\n",
            b"",
        ] {
            assert!(matches!(
                served(get(None), bad).await,
                Err(Failure::NotHttp)
            ));
        }
    }

    #[tokio::test]
    async fn amqp_is_judged_by_connection_start() {
        assert!(served(CheckKind::Amqp, START).await.is_ok());
        let mut end = START.to_vec();
        *end.last_mut().expect("it has bytes") = 0;
        for bad in [
            b"AMQP\0\0\x09\x01".as_slice(),
            b"HTTP/1.1 400 Bad Request\r\n",
            b"\x01\0\0\xff\xff\xff\xff",
            b"\x01\0\0\0\0\0\x06\0\x0a\0\x32\0\0\xce",
            &START[..20],
            b"",
            end.leak(),
        ] {
            let result = served(CheckKind::Amqp, bad).await;
            assert!(
                matches!(result, Err(Failure::NotAmqp(_))),
                "{bad:?}: {result:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_server_that_accepts_and_says_nothing_is_up_for_tcp_and_down_for_the_others() {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let short = |kind| CheckSpec {
            timeout: Duration::from_millis(50),
            ..CheckSpec::of(kind)
        };
        assert!(check(address, &short(CheckKind::Tcp), None).await.is_ok());
        for kind in [CheckKind::Amqp, get(None)] {
            let result = check(address, &short(kind), None).await;
            assert!(
                matches!(result, Err(Failure::AnswerDeadline(_))),
                "{result:?}"
            );
        }
        drop(listener);
        let result = check(address, &short(CheckKind::Tcp), None).await;
        assert_eq!(
            CheckReport::of(&result, Duration::ZERO, Timestamp(0)).code,
            "L4CON"
        );
    }
}
