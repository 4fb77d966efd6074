//! One connection, from the server's side: what its bytes mean, and what goes back. What a method does is the broker's.
//!
//! ```text
//!  Greeting ─► Starting ─► Authenticating ─► Tuning ─► Opening ─► Entering ─► Running ─┐
//!      │           │             │              │          │          │          │     │ connection.close
//!      │ wrong     │ distrust    │ refused      └──────────┴──────────┴──────────┘     │ of the client
//!      ▼           ▼             ▼                     │ a violation                   │
//!    Ended ◄── Closing ◄───────────────────────────────┘                               │
//!      ▲          close-ok, or time                                                    │
//!      └───────────────────────────────────────────────────────────────────────────────┘
//! ```

mod assembly;
mod contract;
mod handshake;
mod outbox;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use core::time::Duration;

use bytes::{Bytes, BytesMut};
use mainstay_ids::Instant;

use self::assembly::Assembly;
pub use self::contract::{Credentials, Entry, Mechanism, Options, Reply, Request, VhostEntry};
use self::handshake::unexpected;
pub use self::outbox::Outbox;
use crate::code::{Code, Fault, Scope};
use crate::erlang;
use crate::field::Table;
use crate::frame::{self, ContentHeader, Frame, Kind};
use crate::limits::{CLOSING, FRAME_MIN, HANDSHAKE};
use crate::message::Content;
use crate::method::{
    ChannelClose, ChannelCloseOk, ChannelOpenOk, ConnectionBlocked, ConnectionClose,
    ConnectionCloseOk, ConnectionUnblocked, ConnectionUpdateSecretOk, Method, MethodId, Refused,
};
use crate::text::ShortString;
use crate::wire::Malformed;

#[derive(Debug)]
enum Phase {
    /// Nothing came yet.
    Greeting,
    Starting,
    /// The broker looks at the credentials.
    Authenticating(Mechanism),
    Tuning,
    Opening,
    /// The broker looks at the virtual host.
    Entering(ShortString),
    Running,
    /// We closed it, and wait for the client's word.
    Closing(Instant),
    /// Everything was said: the driver writes what there is and closes the socket.
    Ended,
}

#[derive(Debug)]
enum Channel {
    /// The broker does not know it yet. What it still sends was for an older one of this number.
    Opening(Assembly),
    Open(Assembly),
    /// The client closed it: what it asked before is answered first, then that it is closed.
    Leaving(Leaving),
    /// We closed it, and wait for the client's word.
    Closing,
}

/// Whether the client of a channel that it closed knows already that it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    Opening,
    Open,
}

/// What the client bears.
#[derive(Debug, Clone, Copy, Default)]
pub struct Capabilities {
    /// It hears `basic.cancel`.
    pub consumer_cancel_notify: bool,
    /// It hears `connection.blocked`.
    pub connection_blocked: bool,
    /// It hears `connection.close` instead of an answer to its credentials.
    pub authentication_failure_close: bool,
}

impl Capabilities {
    fn of(table: &Table) -> Self {
        Self {
            consumer_cancel_notify: table.is_true("consumer_cancel_notify"),
            connection_blocked: table.is_true("connection.blocked"),
            authentication_failure_close: table.is_true("authentication_failure_close"),
        }
    }
}

/// Whether publishers may publish.
#[derive(Debug)]
enum Alarm {
    None,
    /// They may not; who has not published yet does not know.
    Untold(ShortString),
    Told,
}

/// A connection.
#[derive(Debug)]
pub struct Session {
    options: Options,
    phase: Phase,
    began: Instant,
    frame_max: u32,
    channel_max: u16,
    heartbeat: u16,
    heard: Instant,
    spoke: Instant,
    capabilities: Capabilities,
    channels: BTreeMap<u16, Channel>,
    /// It is for a channel whose older one of its number is not closed yet, and is read once it is.
    held: Option<Frame>,
    publishes: bool,
    alarm: Alarm,
    requests: VecDeque<Request>,
    out: Outbox,
}

impl Session {
    /// One that was accepted just now.
    pub fn new(now: Instant, options: Options) -> Self {
        Self {
            options,
            phase: Phase::Greeting,
            began: now,
            frame_max: FRAME_MIN,
            channel_max: 0,
            heartbeat: 0,
            heard: now,
            spoke: now,
            capabilities: Capabilities::default(),
            channels: BTreeMap::new(),
            held: None,
            publishes: false,
            alarm: Alarm::None,
            requests: VecDeque::new(),
            out: Outbox::default(),
        }
    }

    /// What is to be written.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.out
    }

    /// What the client said that it bears.
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Whether the socket is to be closed once everything is written.
    pub fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Bytes came from the client.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Bytes went to the client.
    pub fn spoke(&mut self, now: Instant) {
        self.spoke = now;
    }

    /// What the bytes ask for, one request at a time; `None` until more bytes come or an answer does.
    pub fn read(&mut self, now: Instant, input: &mut BytesMut) -> Option<Request> {
        loop {
            if let Some(request) = self.requests.pop_front() {
                return Some(request);
            }
            match &self.phase {
                Phase::Greeting => {
                    self.greet(input);
                    if matches!(self.phase, Phase::Greeting) {
                        return None;
                    }
                    continue;
                }
                Phase::Authenticating(_) | Phase::Entering(_) => return None,
                Phase::Ended => {
                    input.clear();
                    return None;
                }
                Phase::Running if self.is_blocked() => return None,
                Phase::Starting
                | Phase::Tuning
                | Phase::Opening
                | Phase::Running
                | Phase::Closing(_) => {}
            }
            if let Some(frame) = self.held.take() {
                self.take(now, &frame);
                if self.held.is_some() {
                    return None;
                }
                continue;
            }
            match Frame::take(input, self.frame_max) {
                Ok(None) => return None,
                Ok(Some(frame)) => self.take(now, &frame),
                Err(fault) => {
                    // What follows cannot be told apart: it is thrown away, close-ok included.
                    input.clear();
                    self.fail(now, &fault);
                    self.phase = Phase::Ended;
                }
            }
        }
    }

    /// Whether [`Session::read`] may go on without more bytes: once the broker has closed a channel, or an alarm ends.
    pub fn is_waiting(&self) -> bool {
        self.held.is_some() || self.is_blocked()
    }

    fn take(&mut self, now: Instant, frame: &Frame) {
        let taken = match &self.phase {
            Phase::Closing(_) => {
                self.take_last(frame);
                Ok(())
            }
            _ if frame.channel == 0 => self.take_of_connection(frame),
            Phase::Running => self.take_of_channel(now, frame),
            _ => Err(frame.unexpected()),
        };
        if let Err(fault) = taken {
            self.fail(now, &fault);
        }
    }

    /// After our close, only the client's counts.
    fn take_last(&mut self, frame: &Frame) {
        if frame.channel != 0 || frame.kind != Kind::Method {
            return;
        }
        match Method::read(&frame.payload) {
            Ok(Method::ConnectionCloseOk(_)) => self.phase = Phase::Ended,
            Ok(Method::ConnectionClose(_)) => self.write(0, &ConnectionCloseOk {}.into()),
            Ok(_) | Err(_) => {}
        }
    }

    fn take_of_connection(&mut self, frame: &Frame) -> Result<(), Fault> {
        match frame.kind {
            Kind::Heartbeat => return Ok(()),
            Kind::Method => {}
            Kind::Header | Kind::Body => return Err(frame.unexpected()),
        }
        let method = read_method(&frame.payload)?;
        match (&self.phase, method) {
            (Phase::Starting, Method::ConnectionStartOk(method)) => self.start_ok(&method),
            (Phase::Tuning, Method::ConnectionTuneOk(method)) => self.tune_ok(&method)?,
            (Phase::Opening, Method::ConnectionOpen(method)) => self.open(method),
            (Phase::Running, Method::ConnectionClose(_)) => {
                self.write(0, &ConnectionCloseOk {}.into());
                self.leave();
                self.phase = Phase::Ended;
            }
            (Phase::Running, Method::ConnectionUpdateSecret(method)) => {
                self.ask(Request::UpdateSecret(method.new_secret));
            }
            (phase, method) => return Err(unexpected(&method, phase.name())),
        }
        Ok(())
    }

    fn take_of_channel(&mut self, now: Instant, frame: &Frame) -> Result<(), Fault> {
        if frame.kind == Kind::Heartbeat {
            return Err(frame.unexpected());
        }
        let number = frame.channel;
        match self.channels.get_mut(&number) {
            None => self.open_channel(frame),
            Some(Channel::Closing) => {
                self.take_of_closing(frame);
                Ok(())
            }
            Some(Channel::Leaving(_)) => {
                self.held = Some(frame.clone());
                Ok(())
            }
            Some(Channel::Opening(assembly) | Channel::Open(assembly)) => {
                let taken = assembly.take(frame, read_method);
                self.assembled(now, number, taken)
            }
        }
    }

    fn assembled(
        &mut self,
        now: Instant,
        number: u16,
        taken: Result<Option<(Method, Option<Content>)>, Fault>,
    ) -> Result<(), Fault> {
        match taken {
            Ok(None) => {
                self.publishes = true;
                self.tell_alarm();
                Ok(())
            }
            Ok(Some((method, content))) => self.take_method(number, method, content),
            Err(fault) => match fault.code.scope() {
                Scope::Connection => Err(fault),
                Scope::Channel => {
                    self.fault(now, number, &fault);
                    self.ask(Request::CloseChannel(number));
                    Ok(())
                }
            },
        }
    }

    fn open_channel(&mut self, frame: &Frame) -> Result<(), Fault> {
        let open = self.channels.len();
        if self.channel_max != 0 && open >= usize::from(self.channel_max) {
            let what = format!(
                "number of channels opened ({open}) has reached the negotiated channel_max ({})",
                self.channel_max
            );
            return Err(Fault::new(Code::NotAllowed, what));
        }
        let mut assembly = Assembly::default();
        let taken = assembly.take(frame, read_method)?;
        match taken {
            Some((Method::ChannelOpen(_), _)) => {
                self.channels
                    .insert(frame.channel, Channel::Opening(assembly));
                self.ask(Request::OpenChannel(frame.channel));
                Ok(())
            }
            // RabbitMQ stays silent here, as if the channel were there and gone.
            Some((Method::ChannelCloseOk(_), _)) => Ok(()),
            Some((method, _)) => {
                let fault = Fault::new(Code::ChannelError, "expected 'channel.open'");
                Err(fault.by(method.id()))
            }
            None => {
                let fault = Fault::new(Code::ChannelError, "expected 'channel.open'");
                Err(fault.by(crate::method::BasicPublish::ID))
            }
        }
    }

    /// On a channel that we closed, only the client's close counts.
    fn take_of_closing(&mut self, frame: &Frame) {
        if frame.kind != Kind::Method {
            return;
        }
        match Method::read(&frame.payload) {
            Ok(Method::ChannelCloseOk(_)) => {
                self.channels.remove(&frame.channel);
            }
            Ok(Method::ChannelClose(_)) => self.write(frame.channel, &ChannelCloseOk {}.into()),
            Ok(_) | Err(_) => {}
        }
    }

    fn take_method(
        &mut self,
        number: u16,
        method: Method,
        content: Option<Content>,
    ) -> Result<(), Fault> {
        match method {
            Method::ChannelOpen(_) => {
                let fault = Fault::new(Code::ChannelError, "second 'channel.open' seen");
                Err(fault.by(method.id()))
            }
            Method::ChannelClose(_) => {
                let known = match self.channels.get(&number) {
                    Some(Channel::Opening(_)) => Leaving::Opening,
                    Some(Channel::Open(_) | Channel::Leaving(_) | Channel::Closing) | None => {
                        Leaving::Open
                    }
                };
                self.channels.insert(number, Channel::Leaving(known));
                self.ask(Request::CloseChannel(number));
                Ok(())
            }
            method => {
                self.ask(Request::Method(number, method, content));
                Ok(())
            }
        }
    }

    /// The broker has this channel now.
    pub fn channel_opened(&mut self, channel: u16) {
        match self.channels.get_mut(&channel) {
            Some(state @ Channel::Opening(_)) => {
                let Channel::Opening(assembly) = core::mem::replace(state, Channel::Closing) else {
                    return;
                };
                *state = Channel::Open(assembly);
            }
            Some(Channel::Leaving(known @ Leaving::Opening)) => *known = Leaving::Open,
            Some(Channel::Leaving(Leaving::Open) | Channel::Open(_) | Channel::Closing) | None => {
                return;
            }
        }
        self.write(channel, &ChannelOpenOk::default().into());
    }

    /// The broker has let go of this channel, and everything before was sent. Of no consequence for one that we closed, nor
    /// for its successor.
    pub fn channel_closed(&mut self, channel: u16) {
        if let Some(Channel::Leaving(Leaving::Open)) = self.channels.get(&channel) {
            self.channels.remove(&channel);
            self.write(channel, &ChannelCloseOk {}.into());
        }
    }

    fn ask(&mut self, request: Request) {
        self.requests.push_back(request);
    }

    /// Sends an answer or a message; nothing if the channel is not open any more.
    pub fn send(&mut self, channel: u16, reply: &Reply) {
        let state = self.channels.get(&channel);
        let Some(Channel::Open(_) | Channel::Leaving(Leaving::Open)) = state else {
            return;
        };
        match reply {
            Reply::Method(method) => self.write(channel, method),
            Reply::Content(method, properties, body) => {
                let body = body.here().expect("a body is read before it is sent");
                self.write(channel, method);
                let header = ContentHeader {
                    class: method.id().class,
                    weight: 0,
                    body_size: u64::try_from(body.len()).expect("64 bits"),
                    properties: properties.clone(),
                };
                let mut tail = core::mem::take(&mut self.out.tail);
                frame::write_header(&mut tail, channel, &header);
                frame::write_body(&mut tail, channel, body, self.frame_max, |tail, part| {
                    self.out.push(tail, part);
                });
                self.out.tail = tail;
            }
        }
    }

    /// A violation was found by the broker, which has let go of the channel or, by its code, of the connection.
    pub fn fault(&mut self, now: Instant, channel: u16, fault: &Fault) {
        match fault.code.scope() {
            Scope::Connection => self.fail(now, fault),
            Scope::Channel => {
                let leaves = match self.channels.get(&channel) {
                    Some(Channel::Opening(_) | Channel::Open(_)) => false,
                    Some(Channel::Leaving(_)) => true,
                    Some(Channel::Closing) | None => return,
                };
                self.channels.insert(channel, Channel::Closing);
                let close = ChannelClose {
                    reply_code: fault.code.number(),
                    reply_text: fault.reply_text(),
                    class: fault.method.class,
                    method: fault.method.method,
                };
                self.write(channel, &close.into());
                if leaves {
                    // Both closed it, and each hears of it.
                    self.write(channel, &ChannelCloseOk {}.into());
                }
            }
        }
    }

    /// Closes the connection, whatever the fault's own scope is.
    fn fail(&mut self, now: Instant, fault: &Fault) {
        match &self.phase {
            // Those that we do not know yet are told nothing, as RabbitMQ does.
            Phase::Greeting | Phase::Starting => {
                self.phase = Phase::Ended;
                return;
            }
            Phase::Closing(_) | Phase::Ended => return,
            Phase::Tuning if fault.code != Code::NotAllowed => {
                self.phase = Phase::Ended;
                return;
            }
            Phase::Authenticating(_)
            | Phase::Tuning
            | Phase::Opening
            | Phase::Entering(_)
            | Phase::Running => {}
        }
        let close = ConnectionClose {
            reply_code: fault.code.number(),
            reply_text: fault.reply_text(),
            class: fault.method.class,
            method: fault.method.method,
        };
        self.write(0, &close.into());
        self.leave();
        self.phase = Phase::Closing(now.after(CLOSING));
    }

    /// An operator closes the connection, or the broker ends.
    pub fn shut(&mut self, now: Instant, why: &str) {
        self.fail(now, &Fault::new(Code::ConnectionForced, why));
    }

    fn leave(&mut self) {
        self.channels.clear();
        self.requests.clear();
        self.ask(Request::Gone);
    }

    /// The answer to [`Request::UpdateSecret`].
    pub fn secret_updated(&mut self, now: Instant, entry: Entry) {
        match entry {
            Entry::Granted => self.write(0, &ConnectionUpdateSecretOk {}.into()),
            Entry::Refused => {
                let what = "New secret was refused by one of the backends";
                let by = MethodId {
                    class: 10,
                    method: 70,
                };
                self.fail(now, &Fault::new(Code::NotAllowed, what).by(by));
            }
        }
    }

    /// Memory or disk run out: who publishes is not read any more until [`Session::unblock`], and is told so.
    pub fn block(&mut self, reason: &str) {
        if matches!(self.alarm, Alarm::None) {
            self.alarm = Alarm::Untold(ShortString::cut(reason));
            self.tell_alarm();
        }
    }

    fn tell_alarm(&mut self) {
        if let Alarm::Untold(reason) = &self.alarm
            && self.publishes
        {
            let blocked = ConnectionBlocked {
                reason: reason.clone(),
            };
            self.alarm = Alarm::Told;
            if self.capabilities.connection_blocked {
                self.write(0, &blocked.into());
            }
        }
    }

    /// There is room again; the driver goes on reading.
    pub fn unblock(&mut self) {
        let told = matches!(self.alarm, Alarm::Told);
        self.alarm = Alarm::None;
        if told && self.capabilities.connection_blocked {
            self.write(0, &ConnectionUnblocked {}.into());
        }
    }

    /// Whether nothing is read because of an alarm.
    pub fn is_blocked(&self) -> bool {
        matches!(self.alarm, Alarm::Told)
    }

    fn write(&mut self, channel: u16, method: &Method) {
        frame::write_method(&mut self.out.tail, channel, method);
    }

    /// When [`Session::tick`] is to be called.
    pub fn deadline(&self) -> Instant {
        match &self.phase {
            Phase::Closing(until) => *until,
            Phase::Ended => Instant::NEVER,
            Phase::Greeting
            | Phase::Starting
            | Phase::Authenticating(_)
            | Phase::Tuning
            | Phase::Opening
            | Phase::Entering(_) => self.began.after(HANDSHAKE),
            Phase::Running if self.heartbeat == 0 => Instant::NEVER,
            Phase::Running => {
                let speak = self.spoke.after(self.interval() / 2);
                if self.is_blocked() {
                    return speak;
                }
                speak.min(self.heard.after(self.interval() * 2))
            }
        }
    }

    fn interval(&self) -> Duration {
        Duration::from_secs(u64::from(self.heartbeat))
    }

    /// The deadline has come: who is silent for two heartbeats is gone, and who heard nothing of us hears one.
    pub fn tick(&mut self, now: Instant) {
        if now < self.deadline() {
            return;
        }
        match &self.phase {
            Phase::Running => {
                let silent = self.heard.after(self.interval() * 2) <= now;
                if silent && !self.is_blocked() {
                    self.leave();
                    self.phase = Phase::Ended;
                    return;
                }
                frame::write_heartbeat(&mut self.out.tail);
                self.spoke = now;
            }
            Phase::Greeting
            | Phase::Starting
            | Phase::Authenticating(_)
            | Phase::Tuning
            | Phase::Opening
            | Phase::Entering(_)
            | Phase::Closing(_) => self.phase = Phase::Ended,
            Phase::Ended => {}
        }
    }
}

impl Phase {
    /// RabbitMQ's word for it.
    const fn name(&self) -> &'static str {
        match self {
            Self::Greeting | Self::Starting => "starting",
            Self::Authenticating(_) => "securing",
            Self::Tuning => "tuning",
            Self::Opening | Self::Entering(_) => "opening",
            Self::Running => "running",
            Self::Closing(_) => "closing",
            Self::Ended => "closed",
        }
    }
}

/// A method, with RabbitMQ's words for one that cannot be read.
fn read_method(payload: &Bytes) -> Result<Method, Fault> {
    Method::read(payload).map_err(|refused| match refused {
        Refused::Unknown(id) => {
            let what = format!("unknown method {} of class {}", id.method, id.class);
            Fault::new(Code::CommandInvalid, what)
        }
        Refused::Malformed(_, _, Malformed::Text) => {
            Fault::new(Code::FrameError, "Malformed UTF-8 in shortstr")
        }
        Refused::Malformed(id, ..) => {
            let fields = payload.get(4..).unwrap_or_default();
            let what = format!("cannot decode {}", erlang::numbers(fields));
            Fault::new(Code::FrameError, what).by(id)
        }
        Refused::Short => Fault::new(Code::FrameError, "a method has four bytes at least"),
    })
}
