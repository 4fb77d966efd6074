//! The client's side of AMQP, as lean as a generator needs it: blocking, one thread a connection. What is sent a million
//! times is copied from a template and read by hand; all else is `mainstay_amqp`'s.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mainstay_amqp::frame::{self, ContentHeader, FRAME_END, PROTOCOL_HEADER};
use mainstay_amqp::method::{
    BasicAck, BasicConsume, BasicPublish, BasicQos, ChannelOpen, ConfirmSelect, ConnectionOpen,
    ConnectionStartOk, ConnectionTuneOk, QueueDeclare, QueueDelete,
};
use mainstay_amqp::{Method, Properties, ShortString, Table};

/// Bytes of a body.
pub const BODY_LEN: usize = 1024;
/// Type, channel and size before, the end after a payload.
const HEAD_LEN: usize = 7;
/// What is read at once: some hundred messages.
const READ_LEN: usize = 256 * 1024;
/// No answer takes longer, or the broker hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// The only channel of a connection.
const CHANNEL: u16 = 1;
const FRAME_MAX: u32 = 131_072;

/// Why a broker could not be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection broke, or was not made.
    #[error("cannot {attempt}")]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// The broker ended it.
    #[error("the broker closed the connection")]
    Closed,
    /// It says something else.
    #[error("the broker says {said} in place of {wanted}")]
    Unexpected {
        /// What it says.
        said: String,
        /// What was asked for.
        wanted: &'static str,
    },
    /// It says nothing.
    #[error("no {wanted} came")]
    Silent {
        /// What was asked for.
        wanted: &'static str,
    },
    /// What it says is no AMQP.
    #[error("the broker breaks the protocol: {0}")]
    Malformed(String),
}

type Result<T> = std::result::Result<T, Error>;

/// An error of the socket, by what was attempted.
fn io_error(attempt: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { attempt, source }
}

/// What a broker says on its own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Publishes are safe.
    Confirmed {
        /// Which, counted from 1.
        tag: u64,
        /// Up to this one, all of them.
        multiple: bool,
    },
    /// A publish is refused.
    Refused {
        /// Which.
        tag: u64,
    },
    /// A message.
    Delivered {
        /// By which it is acknowledged.
        tag: u64,
        /// The first bytes of its body.
        number: u64,
    },
}

/// A connection with one channel.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    /// What was received and not yet read: from `start` on.
    input: Vec<u8>,
    start: usize,
    output: Vec<u8>,
    /// A delivery whose body has not come yet.
    coming: Option<u64>,
}

impl Wire {
    /// Connects as `guest` to the virtual host `/`, and opens the channel.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).map_err(io_error("connect"))?;
        let prepare = io_error("prepare a socket");
        let prepared = stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(PATIENCE)))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        prepared.map_err(prepare)?;
        let mut wire = Self {
            stream,
            input: Vec::with_capacity(READ_LEN),
            start: 0,
            output: PROTOCOL_HEADER.to_vec(),
            coming: None,
        };
        wire.expect("connection.start")?;
        let start_ok = ConnectionStartOk {
            mechanism: ShortString::literal("PLAIN"),
            response: Bytes::from_static(b"\0guest\0guest"),
            locale: ShortString::literal("en_US"),
            client_properties: Table::default(),
        };
        wire.put(0, &start_ok.into());
        wire.expect("connection.tune")?;
        let tune_ok = ConnectionTuneOk {
            channel_max: 10,
            frame_max: FRAME_MAX,
            heartbeat: 0,
        };
        wire.put(0, &tune_ok.into());
        let open = ConnectionOpen {
            virtual_host: ShortString::literal("/"),
            ..ConnectionOpen::default()
        };
        wire.put(0, &open.into());
        wire.expect("connection.open_ok")?;
        wire.put(CHANNEL, &ChannelOpen::default().into());
        wire.expect("channel.open_ok")?;
        Ok(wire)
    }

    /// Declares a durable queue; how many messages it has.
    pub fn declare(&mut self, queue: &str) -> Result<u32> {
        self.declare_with(queue, Table::default())
    }

    /// The same with arguments.
    pub fn declare_with(&mut self, queue: &str, arguments: Table) -> Result<u32> {
        let declare = QueueDeclare {
            queue: ShortString::from(queue),
            durable: true,
            arguments,
            ..QueueDeclare::default()
        };
        self.put(CHANNEL, &declare.into());
        match self.expect("queue.declare_ok")? {
            Method::QueueDeclareOk(ok) => Ok(ok.message_count),
            other => Err(unexpected(&other, "queue.declare_ok")),
        }
    }

    /// Deletes a queue with all that it holds.
    pub fn delete(&mut self, queue: &str) -> Result<()> {
        let delete = QueueDelete {
            queue: ShortString::from(queue),
            ..QueueDelete::default()
        };
        self.put(CHANNEL, &delete.into());
        self.expect("queue.delete_ok").map(drop)
    }

    /// From here on publishes are confirmed.
    pub fn select_confirms(&mut self) -> Result<()> {
        self.put(CHANNEL, &ConfirmSelect::default().into());
        self.expect("confirm.select_ok").map(drop)
    }

    /// Consumes; so many deliveries may be unacknowledged, 0 is without limit.
    pub fn consume(&mut self, queue: &str, prefetch_count: u16) -> Result<()> {
        let qos = BasicQos {
            prefetch_count,
            ..BasicQos::default()
        };
        self.put(CHANNEL, &qos.into());
        self.expect("basic.qos_ok")?;
        let consume = BasicConsume {
            queue: ShortString::from(queue),
            consumer_tag: ShortString::literal("c"),
            ..BasicConsume::default()
        };
        self.put(CHANNEL, &consume.into());
        self.expect("basic.consume_ok").map(drop)
    }

    /// Adds a publish to what goes out with the next [`Wire::flush`].
    pub fn publish(&mut self, template: &Template, number: u64) {
        let at = self.output.len() + template.body_at;
        self.output.extend_from_slice(&template.bytes);
        self.output[at..at + 8].copy_from_slice(&number.to_be_bytes());
    }

    /// Adds an acknowledgement.
    pub fn ack(&mut self, delivery_tag: u64, multiple: bool) {
        let ack = BasicAck {
            delivery_tag,
            multiple,
        };
        self.put(CHANNEL, &ack.into());
    }

    /// Sends what was added.
    pub fn flush(&mut self) -> Result<()> {
        self.stream
            .write_all(&self.output)
            .map_err(io_error("send anything more"))?;
        self.output.clear();
        Ok(())
    }

    /// The longest that a read waits.
    pub fn set_patience(&self, patience: Duration) -> Result<()> {
        let set = self.stream.set_read_timeout(Some(patience));
        set.map_err(io_error("prepare a socket"))
    }

    /// Reads what has come, at least a byte; `false`: nothing came within the patience.
    pub fn receive(&mut self) -> Result<bool> {
        self.input.drain(..self.start);
        self.start = 0;
        let had = self.input.len();
        self.input.resize(had + READ_LEN, 0);
        let read = self.stream.read(&mut self.input[had..]);
        self.input.truncate(had + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(Error::Closed),
            Ok(_) => Ok(true),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(io_error("read")(error)),
        }
    }

    /// The next thing in what was received.
    pub fn heard(&mut self) -> Result<Option<Heard>> {
        while let Some((kind, payload)) = next_frame(&self.input, &mut self.start)? {
            match (kind, payload) {
                (1, [0, 60, 0, 80, rest @ ..]) => {
                    let (tag, multiple) = tag_and_bit(rest)?;
                    return Ok(Some(Heard::Confirmed { tag, multiple }));
                }
                (1, [0, 60, 0, 120, rest @ ..]) => {
                    let (tag, _) = tag_and_bit(rest)?;
                    return Ok(Some(Heard::Refused { tag }));
                }
                (1, [0, 60, 0, 60, len, rest @ ..]) => {
                    let after = rest.get(usize::from(*len)..).unwrap_or_default();
                    self.coming = Some(tag_and_bit(after)?.0);
                }
                (3, body) => {
                    if let (Some(tag), Some((number, _))) =
                        (self.coming.take(), body.split_first_chunk())
                    {
                        let number = u64::from_be_bytes(*number);
                        return Ok(Some(Heard::Delivered { tag, number }));
                    }
                }
                (1, _) => return Err(unexpected(&read_method(payload)?, "messages or confirms")),
                _ => {}
            }
        }
        Ok(None)
    }

    fn put(&mut self, channel: u16, method: &Method) {
        let mut out = BytesMut::new();
        frame::write_method(&mut out, channel, method);
        self.output.extend_from_slice(&out);
    }

    /// Sends what is to be sent and waits for a method of this name.
    fn expect(&mut self, name: &'static str) -> Result<Method> {
        self.flush()?;
        loop {
            while let Some((kind, payload)) = next_frame(&self.input, &mut self.start)? {
                if kind != 1 {
                    continue;
                }
                let method = read_method(payload)?;
                if method.name() == name {
                    return Ok(method);
                }
                return Err(unexpected(&method, name));
            }
            if !self.receive()? {
                return Err(Error::Silent { wanted: name });
            }
        }
    }
}

fn unexpected(said: &Method, wanted: &'static str) -> Error {
    let said = format!("{said:?}");
    Error::Unexpected { said, wanted }
}

fn read_method(payload: &[u8]) -> Result<Method> {
    let read = Method::read(&Bytes::copy_from_slice(payload));
    read.map_err(|error| Error::Malformed(error.to_string()))
}

/// Type and payload of the frame at `start`, if it is whole.
fn next_frame<'a>(input: &'a [u8], start: &mut usize) -> Result<Option<(u8, &'a [u8])>> {
    let Some(([kind, _, _, size @ ..], rest)) = input[*start..].split_first_chunk::<HEAD_LEN>()
    else {
        return Ok(None);
    };
    let size = u32::from_be_bytes(*size);
    if size > FRAME_MAX {
        return Err(Error::Malformed(format!("a frame of {size} bytes")));
    }
    let size = usize::try_from(size).map_err(|error| Error::Malformed(error.to_string()))?;
    let Some(end) = rest.get(size) else {
        return Ok(None);
    };
    if *end != FRAME_END {
        return Err(Error::Malformed("a frame has no end".to_owned()));
    }
    *start += HEAD_LEN + size + 1;
    Ok(Some((*kind, &rest[..size])))
}

fn tag_and_bit(bytes: &[u8]) -> Result<(u64, bool)> {
    let cut = || Error::Malformed("a tag is cut off".to_owned());
    let (tag, rest) = bytes.split_first_chunk().ok_or_else(cut)?;
    let bit = rest.first().is_some_and(|bits| bits & 1 == 1);
    Ok((u64::from_be_bytes(*tag), bit))
}

/// A publish of a persistent message as it goes over the wire.
#[derive(Debug)]
pub struct Template {
    bytes: Vec<u8>,
    body_at: usize,
}

impl Template {
    /// To this queue, with a body of [`BODY_LEN`] bytes.
    pub fn new(queue: &str) -> Self {
        let mut out = BytesMut::new();
        let publish = BasicPublish {
            routing_key: ShortString::from(queue),
            ..BasicPublish::default()
        };
        frame::write_method(&mut out, CHANNEL, &publish.into());
        let properties = Properties {
            delivery_mode: Some(2),
            ..Properties::default()
        };
        let header = ContentHeader {
            class: 60,
            weight: 0,
            body_size: BODY_LEN as u64,
            properties: properties.write(),
        };
        frame::write_header(&mut out, CHANNEL, &header);
        let body_at = out.len() + HEAD_LEN;
        let body = Bytes::from(vec![b'x'; BODY_LEN]);
        frame::write_body(&mut out, CHANNEL, &body, FRAME_MAX, |out, part| {
            out.extend_from_slice(&part);
        });
        Self {
            bytes: out.to_vec(),
            body_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_carries_its_number_at_the_front_of_the_body() {
        let template = Template::new("q");
        let end = template.bytes.len() - 1;
        assert_eq!(end - template.body_at, BODY_LEN);
        assert_eq!(template.bytes[end], FRAME_END);
    }

    #[test]
    fn frames_are_read_when_they_are_whole() {
        let mut out = BytesMut::new();
        let ack = BasicAck {
            delivery_tag: 7,
            multiple: true,
        };
        frame::write_method(&mut out, 1, &ack.into());
        for cut in 0..out.len() {
            let mut start = 0;
            assert!(next_frame(&out[..cut], &mut start).unwrap().is_none());
            assert_eq!(start, 0);
        }
        let mut start = 0;
        let (kind, payload) = next_frame(&out, &mut start).unwrap().unwrap();
        assert_eq!((kind, start), (1, out.len()));
        assert_eq!(tag_and_bit(&payload[4..]).unwrap(), (7, true));
    }
}
