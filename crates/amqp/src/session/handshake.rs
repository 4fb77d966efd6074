//! From the first byte to an open connection.

use alloc::format;

use bytes::{Buf as _, Bytes, BytesMut};
use mainstay_ids::Instant;

use super::contract::{Credentials, Entry, Mechanism, Request, VhostEntry};
use super::{Phase, Session};
use crate::code::{Code, Fault};
use crate::field::{Table, Value};
use crate::frame::PROTOCOL_HEADER;
use crate::limits::{CHANNEL_MAX, FRAME_MIN, RESPONSE_MAX};
use crate::method::{
    ConnectionOpen, ConnectionOpenOk, ConnectionStart, ConnectionStartOk, ConnectionTune,
    ConnectionTuneOk, Method,
};
use crate::text::ShortString;
use crate::wire::{Reader, Writer};

impl Session {
    /// Reads the protocol header. To a wrong one we answer with ours and end (AMQP 0-9-1, 4.2.2).
    pub(super) fn greet(&mut self, input: &mut BytesMut) {
        if input.len() < PROTOCOL_HEADER.len() {
            return;
        }
        // 0-9 is answered as 0-9-1, as RabbitMQ does; its clients are content.
        let known = [PROTOCOL_HEADER, *b"AMQP\x01\x01\0\x09"];
        if !known.iter().any(|header| input.starts_with(header)) {
            self.out.tail.extend_from_slice(&PROTOCOL_HEADER);
            self.phase = Phase::Ended;
            return;
        }
        input.advance(PROTOCOL_HEADER.len());
        self.phase = Phase::Starting;
        let start = ConnectionStart {
            version_major: 0,
            version_minor: 9,
            server_properties: self.options.server_properties.clone(),
            mechanisms: Bytes::from_static(b"PLAIN AMQPLAIN"),
            locales: Bytes::from_static(b"en_US"),
        };
        self.write(0, &start.into());
    }

    pub(super) fn start_ok(&mut self, method: &ConnectionStartOk) {
        if let Some(Value::Table(capabilities)) = method.client_properties.get("capabilities") {
            self.capabilities = super::Capabilities::of(capabilities);
        }
        let mechanism = match method.mechanism.as_bytes() {
            b"PLAIN" => Some(Mechanism::Plain),
            b"AMQPLAIN" => Some(Mechanism::AmqPlain),
            _ => None,
        };
        let credentials =
            mechanism.and_then(|one| Some((one, credentials(one, &method.response)?)));
        match credentials {
            Some((mechanism, credentials)) => {
                self.phase = Phase::Authenticating(mechanism);
                self.ask(Request::Authenticate(credentials));
            }
            // RabbitMQ does not talk to those that it does not trust yet.
            None => self.phase = Phase::Ended,
        }
    }

    /// The answer to [`Request::Authenticate`].
    pub fn authenticated(&mut self, now: Instant, entry: Entry) {
        let Phase::Authenticating(mechanism) = self.phase else {
            return;
        };
        match entry {
            Entry::Granted => {
                self.phase = Phase::Tuning;
                let tune = ConnectionTune {
                    channel_max: self.options.channel_max,
                    frame_max: self.options.frame_max,
                    heartbeat: self.options.heartbeat,
                };
                self.write(0, &tune.into());
            }
            Entry::Refused if self.capabilities.authentication_failure_close => {
                let what = format!(
                    "Login was refused using authentication mechanism {}. For details see the broker logfile.",
                    mechanism.name()
                );
                self.fail(now, &Fault::new(Code::AccessRefused, what));
            }
            Entry::Refused => self.phase = Phase::Ended,
        }
    }

    pub(super) fn tune_ok(&mut self, method: &ConnectionTuneOk) -> Result<(), Fault> {
        let (frame_max, channel_max) = (self.options.frame_max, self.options.channel_max);
        negotiated("frame_max", method.frame_max, FRAME_MIN, frame_max)?;
        let asked = u32::from(method.channel_max);
        negotiated(
            "channel_max",
            asked,
            1,
            u32::from(channel_max.min(CHANNEL_MAX)),
        )?;
        self.frame_max = method.frame_max;
        self.channel_max = method.channel_max;
        self.heartbeat = method.heartbeat;
        self.phase = Phase::Opening;
        Ok(())
    }

    pub(super) fn open(&mut self, method: ConnectionOpen) {
        self.phase = Phase::Entering(method.virtual_host.clone());
        self.ask(Request::OpenVhost(method.virtual_host));
    }

    /// The answer to [`Request::OpenVhost`]; `user` is who asked.
    pub fn opened(&mut self, now: Instant, user: &ShortString, entry: VhostEntry) {
        let Phase::Entering(vhost) = &self.phase else {
            return;
        };
        let refusal = match entry {
            VhostEntry::Granted => {
                self.phase = Phase::Running;
                self.write(0, &ConnectionOpenOk::default().into());
                return;
            }
            VhostEntry::Missing => format!("vhost {vhost} not found"),
            VhostEntry::Refused => format!("access to vhost '{vhost}' refused for user '{user}'"),
            VhostEntry::Full(most) => {
                format!("connection refused: node connection limit ({most}) is reached")
            }
        };
        let fault = Fault::new(Code::NotAllowed, refusal);
        self.fail(now, &fault.by(ConnectionOpen::ID));
    }
}

fn negotiated(name: &str, asked: u32, least: u32, most: u32) -> Result<(), Fault> {
    let shown = if asked == 0 { " (no limit)" } else { "" };
    let (word, bound, limit) = if asked != 0 && asked < least {
        ("lower", "minimum", least)
    } else if asked == 0 || asked > most {
        ("higher", "maximum", most)
    } else {
        return Ok(());
    };
    let what = format!(
        "negotiated {name} = {asked}{shown} is {word} than the {bound} allowed value ({limit})"
    );
    Err(Fault::new(Code::NotAllowed, what).by(ConnectionTune::ID))
}

/// User and password of a response; `None` if it is none.
fn credentials(mechanism: Mechanism, response: &Bytes) -> Option<Credentials> {
    if response.len() > RESPONSE_MAX {
        return None;
    }
    match mechanism {
        Mechanism::Plain => {
            // An identity to act for, which nobody uses, user and password, each after a zero.
            let mut parts = response.splitn(3, |byte| *byte == 0);
            let (_, user, password) = (parts.next()?, parts.next()?, parts.next()?);
            Some(Credentials {
                user: ShortString::new(Bytes::copy_from_slice(user))?,
                password: Bytes::copy_from_slice(password),
            })
        }
        Mechanism::AmqPlain => {
            // A table without its length.
            let mut whole = BytesMut::new();
            Writer::new(&mut whole).counted(|writer| writer.put(response));
            let whole = whole.freeze();
            let table = Table::read_from(&mut Reader::new(&whole)).ok()?;
            let text = |name: &str| table.get(name).and_then(Value::string);
            Some(Credentials {
                user: ShortString::new(text("LOGIN")?.clone())?.compact(),
                password: Bytes::copy_from_slice(text("PASSWORD")?),
            })
        }
    }
}

/// A method of the connection that is not for this moment.
pub(super) fn unexpected(method: &Method, phase: &str) -> Fault {
    let what = format!("unexpected method in connection state {phase}");
    Fault::new(Code::ChannelError, what).by(method.id())
}
