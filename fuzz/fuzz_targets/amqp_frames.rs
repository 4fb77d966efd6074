//! Frames of AMQP in any bytes: no panic; what is read says the same when it is written anew.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use mainstay_amqp::frame::{self, ContentHeader, Frame, Kind};
use mainstay_amqp::limits::FRAME_MAX;
use mainstay_amqp::{Method, Properties};

/// Numbers that are none are not equal to themselves, so the bytes of a second writing are compared.
fn methods(channel: u16, payload: &Bytes) {
    let Ok(method) = Method::read(payload) else {
        return;
    };
    let write = |method: &Method| {
        let mut out = BytesMut::new();
        frame::write_method(&mut out, channel, method);
        out
    };
    let mut written = write(&method);
    let frame = Frame::take(&mut written.clone(), u32::MAX / 2);
    let frame = frame.expect("our own frame").expect("whole");
    let again = Method::read(&frame.payload).expect("our own method");
    let second = write(&again);
    assert_eq!(written.split(), second);
    assert_eq!(method.id(), again.id());
}

fn properties(bytes: &Bytes) {
    if let Ok(properties) = Properties::read(bytes) {
        let written = properties.write();
        let again = Properties::read(&written).expect("our own properties");
        assert_eq!(again.write(), written);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let whole = Bytes::copy_from_slice(bytes);
    methods(1, &whole);
    properties(&whole);
    let mut rest = BytesMut::from(bytes);
    while let Ok(Some(frame)) = Frame::take(&mut rest, FRAME_MAX) {
        match frame.kind {
            Kind::Method => methods(frame.channel, &frame.payload),
            Kind::Header => {
                if let Ok(header) = ContentHeader::read(&frame.payload) {
                    properties(&header.properties);
                }
            }
            Kind::Body | Kind::Heartbeat => {}
        }
    }
});
