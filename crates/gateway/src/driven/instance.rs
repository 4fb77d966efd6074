//! The instances: keep what reaches them, and answer as the script says.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;

use super::reading::{self, Head, Message, Read};
use super::script::{Answer, Script, Shape};
use super::{Moves, end, pair};

/// More is not read.
const KEPT_MAX: usize = 256 * 1024;

/// How much an endless answer says at most.
const ENDLESS_MAX: usize = 4 * 1024 * 1024;

/// How long another protocol is spoken.
const TUNNEL_TIME: Duration = Duration::from_secs(1);

/// How often a tagged answer's body repeats the id.
pub(super) const TAGS: usize = 3;

/// All connections to instances.
#[derive(Debug)]
pub(super) struct Instances {
    script: Rc<Script>,
    moves: Rc<Moves>,
    pub(super) connections: RefCell<Vec<Rc<Talk>>>,
    tasks: RefCell<Vec<JoinHandle<()>>>,
    tried: Cell<u32>,
    answered: Cell<usize>,
    /// Whether another protocol was spoken to its end: a client may stay for ever then.
    pub(super) tunnel_ended: Cell<bool>,
}

/// One connection, as it is judged.
#[derive(Debug, Default)]
pub(super) struct Talk {
    pub(super) received: RefCell<Vec<u8>>,
    /// Where bytes begin that may be of another protocol.
    pub(super) tunnel_at: Cell<Option<usize>>,
    pub(super) written: Cell<usize>,
}

/// What follows on a connection.
enum Then {
    Next,
    /// Nothing is read or said any more.
    Rest,
    /// What comes is kept, whatever it is.
    Drain,
    Close,
}

impl Instances {
    pub(super) fn new(script: Rc<Script>, moves: Rc<Moves>) -> Self {
        Self {
            script,
            moves,
            connections: RefCell::default(),
            tasks: RefCell::default(),
            tried: Cell::new(0),
            answered: Cell::new(0),
            tunnel_ended: Cell::new(false),
        }
    }

    /// The gateway's end of another connection.
    pub(super) fn accept(self: Rc<Self>) -> io::Result<TcpStream> {
        let tried = self.tried.get();
        self.tried.set(tried.wrapping_add(1));
        if self.script.refused >> (tried % 8) & 1 == 1 {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (gateway, ours) = pair()?;
        let talk = Rc::new(Talk::default());
        self.connections.borrow_mut().push(Rc::clone(&talk));
        let playing = spawn_local(Rc::clone(&self).play(talk, ours));
        self.tasks.borrow_mut().push(playing);
        Ok(gateway)
    }

    /// Ends what is under way, and panics if something did.
    pub(super) async fn end(&self) {
        for task in self.tasks.take() {
            task.abort();
            end(task).await;
        }
    }

    async fn play(self: Rc<Self>, talk: Rc<Talk>, mut stream: UnixStream) {
        let mut at = 0;
        while let Some(head) = self.head(&talk, &mut stream, at).await {
            match self.respond(&talk, &mut stream, (at, head)).await {
                (len, Then::Next) => at += len,
                (_, Then::Rest) => pending().await,
                (len, Then::Drain) => {
                    talk.tunnel_at.set(Some(at + len));
                    let drain = async { while self.read(&talk, &mut stream).await {} };
                    // A tunnel has no deadline of the gateway's.
                    timeout(TUNNEL_TIME, drain).await.ok();
                    self.tunnel_ended.set(true);
                    return;
                }
                (_, Then::Close) => return,
            }
        }
    }

    /// Waits for a head at this place; `None`: the connection ended.
    async fn head(&self, talk: &Talk, stream: &mut UnixStream, at: usize) -> Option<Head> {
        loop {
            let read = reading::request_head(&talk.received.borrow()[at..]);
            match read {
                Read::Whole(head) => return Some(head),
                Read::Partial => {}
                Read::Not(why) => panic!("what reached an instance is no request: {why}"),
            }
            if !self.read(talk, stream).await {
                return None;
            }
        }
    }

    /// Answers the request at this place; gives its length.
    async fn respond(
        &self,
        talk: &Talk,
        stream: &mut UnixStream,
        (at, head): (usize, Head),
    ) -> (usize, Then) {
        let answers = &self.script.answers;
        let nth = self.answered.get();
        self.answered.set(nth + 1);
        let answer = &answers[nth % answers.len()];
        match answer {
            Answer::Deaf => return (0, Then::Rest),
            Answer::Early(shape) => self.write(talk, stream, &self.tagged(&head, *shape)).await,
            Answer::Tagged(_)
            | Answer::Raw(_)
            | Answer::RawLast(_)
            | Answer::Close
            | Answer::Silent
            | Answer::Endless => {}
        }
        let Some(message) = self.message(talk, stream, at).await else {
            return (0, Then::Close);
        };
        let upgrades = message.head.has("upgrade");
        let then = match answer {
            Answer::Tagged(shape) => {
                let text = self.tagged(&message.head, *shape);
                self.write(talk, stream, &text).await;
                match shape {
                    Shape::UntilClose => Then::Close,
                    Shape::Upgrade if upgrades => Then::Drain,
                    Shape::Length
                    | Shape::Chunked
                    | Shape::NoContent
                    | Shape::Hinted
                    | Shape::Poisoned
                    | Shape::Unavailable
                    | Shape::Upgrade => Then::Next,
                }
            }
            Answer::Raw(bytes) => {
                self.write(talk, stream, bytes).await;
                if upgrades { Then::Drain } else { Then::Next }
            }
            Answer::RawLast(bytes) => {
                self.write(talk, stream, bytes).await;
                if upgrades { Then::Drain } else { Then::Close }
            }
            Answer::Early(_) => Then::Next,
            Answer::Close => Then::Close,
            Answer::Silent | Answer::Deaf => Then::Rest,
            Answer::Endless => {
                self.endless(talk, stream).await;
                Then::Close
            }
        };
        (message.len, then)
    }

    async fn message(&self, talk: &Talk, stream: &mut UnixStream, at: usize) -> Option<Message> {
        loop {
            let read = reading::request(&talk.received.borrow()[at..]);
            match read {
                Read::Whole(message) => return Some(message),
                Read::Partial => {}
                Read::Not(why) => panic!("what reached an instance is no request: {why}"),
            }
            if !self.read(talk, stream).await {
                return None;
            }
        }
    }

    /// The answer to a request, with its id.
    fn tagged(&self, head: &Head, shape: Shape) -> Vec<u8> {
        let secret = &self.script.secret;
        let id = head.first("x-request-id").unwrap_or_default();
        let id = String::from_utf8_lossy(id);
        let body = id.repeat(TAGS);
        let len = body.len();
        let echo = format!("x-echo-{secret}: {id}\r\n");
        let plain = format!("HTTP/1.1 200 OK\r\n{echo}content-length: {len}\r\n\r\n{body}");
        let chunks = || {
            let half = body.split_at(len / 2);
            let chunk = |text: &str| match text.len() {
                0 => String::new(),
                len => format!("{len:x}\r\n{text}\r\n"),
            };
            format!("{}{}0\r\nx-sum: 1\r\n\r\n", chunk(half.0), chunk(half.1))
        };
        let text = match shape {
            _ if head.method == "HEAD" => {
                format!("HTTP/1.1 200 OK\r\n{echo}content-length: {len}\r\n\r\n")
            }
            Shape::Length => plain,
            Shape::Chunked => {
                format!(
                    "HTTP/1.1 200 OK\r\n{echo}transfer-encoding: chunked\r\n\r\n{}",
                    chunks()
                )
            }
            Shape::UntilClose => format!("HTTP/1.1 200 OK\r\n{echo}\r\n{body}"),
            Shape::NoContent => format!("HTTP/1.1 204 No Content\r\n{echo}\r\n"),
            Shape::Hinted => {
                let hint = format!("HTTP/1.1 103 Early Hints\r\nx-hint-{secret}: {id}\r\n\r\n");
                format!("{hint}{hint}{plain}")
            }
            Shape::Poisoned => {
                let poison = format!("HTTP/1.1 200 OK\r\nx-poison-{secret}: 1\r\n");
                format!("{plain}{poison}content-length: 0\r\n\r\n")
            }
            Shape::Unavailable => {
                format!("HTTP/1.1 503 Busy\r\n{echo}content-length: {len}\r\n\r\n{body}")
            }
            Shape::Upgrade => match head.first("upgrade") {
                Some(protocol) => {
                    let protocol = String::from_utf8_lossy(protocol);
                    format!(
                        "HTTP/1.1 101 Switching\r\n{echo}connection: upgrade\r\nupgrade: {protocol}\r\n\r\n"
                    )
                }
                None => plain,
            },
        };
        text.into_bytes()
    }

    async fn endless(&self, talk: &Talk, stream: &mut UnixStream) {
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        self.write(talk, stream, head).await;
        let before = talk.written.get();
        let chunk = [&b"2000\r\n"[..], &[b'e'; 0x2000], b"\r\n"].concat();
        loop {
            let written = talk.written.get();
            if written - before >= ENDLESS_MAX {
                return self.write(talk, stream, b"0\r\n\r\n").await;
            }
            self.write(talk, stream, &chunk).await;
            if talk.written.get() - written < chunk.len() {
                return;
            }
        }
    }

    /// Keeps what comes; `false` at the end.
    async fn read(&self, talk: &Talk, stream: &mut UnixStream) -> bool {
        if talk.received.borrow().len() >= KEPT_MAX {
            pending::<()>().await;
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(len @ 1..) => {
                self.moves.note();
                talk.received.borrow_mut().extend_from_slice(&piece[..len]);
                true
            }
            Ok(0) | Err(_) => false,
        }
    }

    /// Writes as much as the gateway takes.
    async fn write(&self, talk: &Talk, stream: &mut UnixStream, mut bytes: &[u8]) {
        while let Ok(len @ 1..) = stream.write(bytes).await {
            self.moves.note();
            talk.written.set(talk.written.get() + len);
            bytes = &bytes[len..];
            if bytes.is_empty() {
                return;
            }
        }
    }
}
