//! The instances that both sides forward to: a small HTTP/1.1 server that costs next to nothing.
//!
//! It takes what well-behaved proxies send and no more: no pipelining beyond one buffer, no chunked bodies.

use anyhow::{Context as _, Result};
use std::{env, io, net::SocketAddr, path::PathBuf, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// The hidden command by which a bench starts it.
const COMMAND: &str = "bench-backend";

/// The longest request, with its body.
const REQUEST_LEN_MAX: usize = 16 * 1024;

/// The body of an answer without a nonce.
const BODY: &[u8] = b"this is a small answer of a service, as long as a short piece of JSON usually is: about a hundred";

/// The path whose answer is large.
pub(crate) const LARGE_PATH: &str = "/large";

/// The large answer: 1 MiB.
pub(crate) const LARGE_LEN: usize = 1024 * 1024;

static LARGE: [u8; LARGE_LEN] = [b'x'; LARGE_LEN];

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where it listens on loopback; by default what PORT says
    #[arg(long)]
    port: Option<u16>,
    /// How long each answer takes; those to health checks come at once
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
}

/// The program that has the command: this one.
pub(crate) fn executable() -> Result<PathBuf> {
    env::current_exe().context("cannot find this program's file")
}

/// The program's arguments, but for the port.
pub(crate) fn arguments(delay: Duration) -> [String; 3] {
    [
        COMMAND.to_owned(),
        "--delay-ms".to_owned(),
        delay.as_millis().to_string(),
    ]
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let port = match arguments.port {
        Some(port) => port,
        None => env::var("PORT")
            .context("neither --port nor PORT is given")?
            .parse()?,
    };
    let delay = Duration::from_millis(arguments.delay_ms);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(accept(SocketAddr::from(([127, 0, 0, 1], port)), delay))
}

async fn accept(address: SocketAddr, delay: Duration) -> Result<()> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket
        .bind(address)
        .with_context(|| format!("cannot bind {address}"))?;
    let listener: TcpListener = socket.listen(BACKLOG)?;
    loop {
        let (stream, _) = listener.accept().await.context("cannot accept")?;
        // A connection that breaks is its client's to count; the server goes on.
        tokio::spawn(async move { serve(stream, delay).await.ok() });
    }
}

async fn serve(mut stream: TcpStream, delay: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; REQUEST_LEN_MAX];
    let mut answer = Vec::with_capacity(512);
    let mut filled = 0;
    loop {
        let head = loop {
            if let Some(head) = Head::parse(&buffer[..filled])? {
                break head;
            }
            if read_more(&mut stream, &mut buffer, &mut filled).await? == 0 {
                return Ok(());
            }
        };
        let whole = head.len + head.body_len;
        while filled < whole {
            if read_more(&mut stream, &mut buffer, &mut filled).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        if head.wants != Wants::Check && !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        match head.wants {
            Wants::Large => {
                write_large_head(&mut answer);
                stream.write_all(&answer).await?;
                stream.write_all(&LARGE).await?;
            }
            Wants::Check | Wants::Small => {
                write_answer(&mut answer, head.nonce);
                stream.write_all(&answer).await?;
            }
        }
        if head.closes {
            return Ok(());
        }
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
}

async fn read_more(
    stream: &mut TcpStream,
    buffer: &mut [u8],
    filled: &mut usize,
) -> io::Result<usize> {
    if *filled == buffer.len() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let read = stream.read(&mut buffer[*filled..]).await?;
    *filled += read;
    Ok(read)
}

/// What matters of a request's head.
#[derive(Debug, PartialEq)]
struct Head {
    len: usize,
    body_len: usize,
    wants: Wants,
    closes: bool,
    nonce: Option<[u8; 16]>,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    Check,
    Small,
    Large,
}

impl Wants {
    /// By the first line of a request.
    fn of(line: &[u8]) -> Self {
        let asks_for = |path: &[u8]| {
            let begin = line.iter().position(|byte| *byte == b' ');
            begin.is_some_and(|begin| line[begin + 1..].starts_with(path))
        };
        if asks_for(b"/health") {
            Self::Check
        } else if asks_for(LARGE_PATH.as_bytes()) {
            Self::Large
        } else {
            Self::Small
        }
    }
}

impl Head {
    /// `None` while it is not whole.
    fn parse(bytes: &[u8]) -> io::Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Ok(None);
        };
        let mut lines = bytes[..end]
            .split(|byte| *byte == b'\n')
            .map(<[u8]>::trim_ascii_end);
        let first = lines.next().unwrap_or_default();
        let mut head = Self {
            len: end + 4,
            body_len: 0,
            wants: Wants::of(first),
            closes: first.ends_with(b"HTTP/1.0"),
            nonce: None,
        };
        for line in lines {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                continue;
            };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"x-prove-nonce") {
                head.nonce = value.try_into().ok();
            } else if name.eq_ignore_ascii_case(b"content-length") {
                let text = std::str::from_utf8(value).map_err(io::Error::other)?;
                head.body_len = text.parse().map_err(io::Error::other)?;
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                return Err(io::ErrorKind::Unsupported.into());
            } else if name.eq_ignore_ascii_case(b"connection") {
                head.closes |= value.eq_ignore_ascii_case(b"close");
            }
        }
        Ok(Some(head))
    }
}

fn write_large_head(out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n");
    out.extend_from_slice(format!("content-length: {LARGE_LEN}\r\n\r\n").as_bytes());
}

fn write_answer(out: &mut Vec<u8>, nonce: Option<[u8; 16]>) {
    out.clear();
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n");
    if let Some(nonce) = nonce {
        out.extend_from_slice(b"x-prove-nonce: ");
        out.extend_from_slice(&nonce);
        out.extend_from_slice(b"\r\ncontent-length: 16\r\n\r\n");
        out.extend_from_slice(&nonce);
    } else {
        out.extend_from_slice(format!("content-length: {}\r\n\r\n", BODY.len()).as_bytes());
        out.extend_from_slice(BODY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_or_not_yet_wherever_it_is_cut() {
        let text =
            b"POST /x HTTP/1.1\r\nX-Prove-Nonce: 0123456789abcdef\r\nContent-Length: 2\r\n\r\n{}";
        for cut in 0..text.len() - 2 {
            assert!(Head::parse(&text[..cut]).unwrap().is_none(), "cut at {cut}");
        }
        let head = Head::parse(text).unwrap().unwrap();
        let expected = Head {
            len: text.len() - 2,
            body_len: 2,
            wants: Wants::Small,
            closes: false,
            nonce: Some(*b"0123456789abcdef"),
        };
        assert_eq!(head, expected);
    }

    #[test]
    fn a_check_of_http_1_0_ends_its_connection() {
        let head = Head::parse(b"GET /health HTTP/1.0\r\n\r\n")
            .unwrap()
            .unwrap();
        assert!(head.wants == Wants::Check && head.closes);
        let large = Head::parse(b"GET /large HTTP/1.1\r\n\r\n")
            .unwrap()
            .unwrap();
        assert!(large.wants == Wants::Large && !large.closes);
    }
}
