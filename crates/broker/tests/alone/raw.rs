//! A client of a few bytes.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use mainstay_amqp::method::{
    ChannelOpen, ConnectionClose, ConnectionOpen, ConnectionStartOk, ConnectionTuneOk, QueueDeclare,
};
use mainstay_amqp::{Method, Table, frame};

use super::{Alone, PATIENCE};

pub(crate) fn raw(broker: &Alone) -> TcpStream {
    let stream = TcpStream::connect(broker.address()).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

pub(crate) fn said(method: impl Into<Method>, channel: u16) -> Vec<u8> {
    let mut bytes = bytes::BytesMut::new();
    frame::write_method(&mut bytes, channel, &method.into());
    bytes.to_vec()
}

/// All that a client says until its channel is open, without a look at the answers.
pub(crate) fn handshake(password: &str) -> Vec<u8> {
    let start = ConnectionStartOk {
        client_properties: Table::EMPTY,
        mechanism: "PLAIN".into(),
        response: bytes::Bytes::from(format!("\0guest\0{password}")),
        locale: "en_US".into(),
    };
    let tune = ConnectionTuneOk {
        channel_max: 2047,
        frame_max: 131_072,
        heartbeat: 0,
    };
    let open = ConnectionOpen {
        virtual_host: "/".into(),
        ..ConnectionOpen::default()
    };
    let mut all = frame::PROTOCOL_HEADER.to_vec();
    all.extend(said(start, 0));
    all.extend(said(tune, 0));
    all.extend(said(open, 0));
    all.extend(said(ChannelOpen::default(), 1));
    all
}

/// How many of something: by the environment, or few.
pub(crate) fn number_of(name: &str, default: usize) -> usize {
    let said = std::env::var(name).ok();
    said.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Declares a durable queue, without an answer.
pub(crate) fn declare(queue: &str) -> Vec<u8> {
    let declare = QueueDeclare {
        queue: queue.into(),
        durable: true,
        nowait: true,
        ..QueueDeclare::default()
    };
    said(declare, 1)
}

/// Waits until all that was said on this connection is done: the answer to a question comes after it.
pub(crate) fn settle(stream: &mut TcpStream) {
    let end = ConnectionClose {
        reply_code: 200,
        ..ConnectionClose::default()
    };
    stream.write_all(&said(end, 0)).expect("it reads");
    let mut rest = Vec::new();
    stream
        .read_to_end(&mut rest)
        .expect("it answers and closes");
}
