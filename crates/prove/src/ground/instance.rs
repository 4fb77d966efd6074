//! What answers: an instance of a service by HTTP and by datagrams, each on a thread of its own, so that
//! its end is that of a process: all its sockets close at once.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::namespace::{Namespace, cannot};
use crate::load::NONCE_HEADER;
use crate::scenario::Trouble;

/// How long an answer takes, so that some are being made at any moment.
const WORK: Duration = Duration::from_millis(5);

/// More than the clients of a proof write.
const HEAD_MAX: usize = 4096;
const FIELDS_MAX: usize = 16;

/// The reason that is told with 421 to whoever asks for another service.
pub(crate) const WRONG_SERVICE: &str = "wrong-service";

/// A running instance; dropped it ends as if it was killed.
#[derive(Debug)]
pub(crate) struct Instance {
    finish: CancellationToken,
    end: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// Who it is.
struct Who {
    service: String,
    instance: String,
    finish: CancellationToken,
}

struct Asked {
    nonce: String,
    service: String,
    closes: bool,
}

impl Instance {
    /// Listens on an address of this network. Clients name the service in `Host`.
    pub(crate) fn start(
        on: &Namespace,
        service: &str,
        instance: &str,
        at: SocketAddr,
    ) -> Result<Self, Trouble> {
        let listen = || -> io::Result<_> {
            let tcp = std::net::TcpListener::bind(at)?;
            let udp = std::net::UdpSocket::bind(at)?;
            tcp.set_nonblocking(true)?;
            udp.set_nonblocking(true)?;
            Ok((tcp, udp))
        };
        let refused = |error| cannot(&format!("listen on {at} for {instance}"), &error);
        let (tcp, udp) = on.enter(|| listen().map_err(refused))?;
        let (finish, end) = (CancellationToken::new(), CancellationToken::new());
        let who = Who {
            service: service.to_owned(),
            instance: instance.to_owned(),
            finish: finish.clone(),
        };
        let until = end.clone();
        let run = move || {
            if let Err(error) = serve(tcp, udp, who, &until) {
                tracing::warn!(%error, "an instance of the proof's own ended by itself");
            }
        };
        // Joined when it is dropped.
        let spawned = thread::Builder::new().name(instance.to_owned()).spawn(run);
        let thread = spawned.map_err(|error| cannot("start a thread", &error))?;
        Ok(Self {
            finish,
            end,
            thread: Some(thread),
        })
    }

    /// As a program does that is asked to end: each connection is closed with its next answer.
    pub(crate) fn finish(&self) {
        self.finish.cancel();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.end.cancel();
        if let Some(thread) = self.thread.take() {
            // What it has to say it said to the log.
            thread.join().ok();
        }
    }
}

fn serve(
    tcp: std::net::TcpListener,
    udp: std::net::UdpSocket,
    who: Who,
    until: &CancellationToken,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (tcp, udp) = (TcpListener::from_std(tcp)?, UdpSocket::from_std(udp)?);
        let who = Arc::new(who);
        tokio::select! {
            () = until.cancelled() => Ok(()),
            ended = accept(&tcp, &who) => match ended {},
            ended = answer_datagrams(&udp, &who) => match ended {},
        }
    })
}

async fn accept(tcp: &TcpListener, who: &Arc<Who>) -> Infallible {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = tcp.accept() => if let Ok((stream, _)) = accepted {
                open.spawn(converse(stream, Arc::clone(who)));
            },
            // A client that went away is counted by the client.
            Some(_) = open.join_next(), if !open.is_empty() => {}
        }
    }
}

async fn converse(mut stream: TcpStream, who: Arc<Who>) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(HEAD_MAX);
    while let Some(asked) = read(&mut stream, &mut bytes).await? {
        tokio::time::sleep(WORK).await;
        let closes = asked.closes || who.finish.is_cancelled();
        stream
            .write_all(who.answer(&asked, closes).as_bytes())
            .await?;
        if closes {
            return stream.shutdown().await;
        }
    }
    Ok(())
}

/// A request without a body; `None`: there is none any more.
async fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<Option<Asked>> {
    loop {
        if let Some((asked, len)) = parse(bytes)? {
            bytes.drain(..len);
            return Ok(Some(asked));
        }
        if bytes.len() >= HEAD_MAX || stream.read_buf(bytes).await? == 0 {
            return Ok(None);
        }
    }
}

fn parse(bytes: &[u8]) -> io::Result<Option<(Asked, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(len) = request.parse(bytes).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let field = |name: &str| {
        let mut fields = request.headers.iter();
        let found = fields.find(|field| field.name.eq_ignore_ascii_case(name));
        String::from_utf8_lossy(found.map_or(b"", |field| field.value)).into_owned()
    };
    let asked = Asked {
        nonce: field(NONCE_HEADER),
        service: field("host"),
        closes: field("connection").eq_ignore_ascii_case("close"),
    };
    Ok(Some((asked, len)))
}

impl Who {
    fn answer(&self, asked: &Asked, closes: bool) -> String {
        let Self {
            service, instance, ..
        } = self;
        let status = if asked.service == *service {
            "200 OK".to_owned()
        } else {
            format!("421 Misdirected Request\r\nmainstay-reason: {WRONG_SERVICE}")
        };
        let close = if closes { "connection: close\r\n" } else { "" };
        let body = format!("{} {service}\n", asked.nonce);
        format!(
            "HTTP/1.1 {status}\r\n{NONCE_HEADER}: {}\r\nmainstay-instance: {instance}\r\n{close}\
             content-length: {}\r\n\r\n{body}",
            asked.nonce,
            body.len()
        )
    }
}

/// Each with the service's name.
async fn answer_datagrams(udp: &UdpSocket, who: &Who) -> Infallible {
    let mut bytes = [0; 64];
    loop {
        // That a client has gone comes back as an error.
        if let Ok((_, from)) = udp.recv_from(&mut bytes).await {
            udp.send_to(who.service.as_bytes(), from).await.ok();
        }
    }
}
