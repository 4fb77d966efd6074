//! The client's side of AMQP, as lean as a generator needs it: blocking, one thread a connection. What is sent a million
//! times is copied from a template and read by hand; all else is `mainstay_amqp`'s.

use anyhow::{Context as _, Result, bail};
use bytes::{Bytes, BytesMut};
use mainstay_amqp::{
    Method, Properties, ShortString, Table,
    frame::{self, ContentHeader, FRAME_END, PROTOCOL_HEADER},
    method::{
        BasicAck, BasicConsume, BasicPublish, BasicQos, ChannelOpen, ConfirmSelect, ConnectionOpen,
        ConnectionStartOk, ConnectionTuneOk, QueueDeclare, QueueDelete,
    },
};
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Bytes of a body.
pub(super) const BODY_LEN: usize = 1024;
/// Type, channel and size before, the end after a payload.
const HEAD_LEN: usize = 7;
/// What is read at once: some hundred messages.
const READ_LEN: usize = 256 * 1024;
/// No answer takes longer, or the broker hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// The only channel of a connection.
const CHANNEL: u16 = 1;
const FRAME_MAX: u32 = 131_072;

/// What a broker says on its own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Publishes are safe, up to this one if `multiple`.
    Confirmed { tag: u64, multiple: bool },
    /// A publish is refused.
    Refused { tag: u64 },
    /// A message, with the first bytes of its body.
    Delivered { tag: u64, number: u64 },
}

/// A connection with one channel.
pub(super) struct Wire {
    stream: TcpStream,
    /// What was received and not yet read: from `start` on.
    input: Vec<u8>,
    start: usize,
    output: Vec<u8>,
    /// A delivery whose body has not come yet.
    coming: Option<u64>,
}

impl Wire {
    pub(super) fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).context("cannot connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
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
    pub(super) fn declare(&mut self, queue: &str) -> Result<u32> {
        let declare = QueueDeclare {
            queue: ShortString::from(queue),
            durable: true,
            ..QueueDeclare::default()
        };
        self.put(CHANNEL, &declare.into());
        match self.expect("queue.declare_ok")? {
            Method::QueueDeclareOk(ok) => Ok(ok.message_count),
            other => bail!("{} in place of queue.declare_ok", other.name()),
        }
    }

    pub(super) fn delete(&mut self, queue: &str) -> Result<()> {
        let delete = QueueDelete {
            queue: ShortString::from(queue),
            ..QueueDelete::default()
        };
        self.put(CHANNEL, &delete.into());
        self.expect("queue.delete_ok").map(drop)
    }

    pub(super) fn select_confirms(&mut self) -> Result<()> {
        self.put(CHANNEL, &ConfirmSelect::default().into());
        self.expect("confirm.select_ok").map(drop)
    }

    pub(super) fn consume(&mut self, queue: &str, prefetch_count: u16) -> Result<()> {
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
    pub(super) fn publish(&mut self, template: &Template, number: u64) {
        let at = self.output.len() + template.body_at;
        self.output.extend_from_slice(&template.bytes);
        self.output[at..at + 8].copy_from_slice(&number.to_be_bytes());
    }

    /// Adds an acknowledgement.
    pub(super) fn ack(&mut self, delivery_tag: u64, multiple: bool) {
        let ack = BasicAck {
            delivery_tag,
            multiple,
        };
        self.put(CHANNEL, &ack.into());
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        self.stream
            .write_all(&self.output)
            .context("the broker takes nothing more")?;
        self.output.clear();
        Ok(())
    }

    /// The longest that a read waits.
    pub(super) fn set_patience(&self, patience: Duration) -> Result<()> {
        Ok(self.stream.set_read_timeout(Some(patience))?)
    }

    /// Reads what has come, at least a byte; `false`: nothing came within the patience.
    pub(super) fn receive(&mut self) -> Result<bool> {
        self.input.drain(..self.start);
        self.start = 0;
        let had = self.input.len();
        self.input.resize(had + READ_LEN, 0);
        let read = self.stream.read(&mut self.input[had..]);
        self.input.truncate(had + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => bail!("the broker closed the connection"),
            Ok(_) => Ok(true),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(error).context("cannot read"),
        }
    }

    /// The next thing in what was received.
    pub(super) fn heard(&mut self) -> Result<Option<Heard>> {
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
                (1, _) => bail!("the broker says {:?}", read_method(payload)?),
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
    fn expect(&mut self, name: &str) -> Result<Method> {
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
                bail!("{method:?} in place of {name}");
            }
            if !self.receive()? {
                bail!("no {name} came");
            }
        }
    }
}

fn read_method(payload: &[u8]) -> Result<Method> {
    Ok(Method::read(&Bytes::copy_from_slice(payload))?)
}

/// Type and payload of the frame at `start`, if it is whole.
fn next_frame<'a>(input: &'a [u8], start: &mut usize) -> Result<Option<(u8, &'a [u8])>> {
    let Some(([kind, _, _, size @ ..], rest)) = input[*start..].split_first_chunk::<HEAD_LEN>()
    else {
        return Ok(None);
    };
    let size = usize::try_from(u32::from_be_bytes(*size))?;
    let Some(end) = rest.get(size) else {
        return Ok(None);
    };
    if *end != FRAME_END {
        bail!("a frame has no end");
    }
    *start += HEAD_LEN + size + 1;
    Ok(Some((*kind, &rest[..size])))
}

fn tag_and_bit(bytes: &[u8]) -> Result<(u64, bool)> {
    let (tag, rest) = bytes.split_first_chunk().context("a tag is cut off")?;
    let bit = rest.first().is_some_and(|bits| bits & 1 == 1);
    Ok((u64::from_be_bytes(*tag), bit))
}

/// A publish of a persistent message as it goes over the wire.
pub(super) struct Template {
    bytes: Vec<u8>,
    body_at: usize,
}

impl Template {
    pub(super) fn new(queue: &str) -> Self {
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
