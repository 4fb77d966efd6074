//! Frames, methods and properties: what pika wrote and what RabbitMQ wrote is read and written the same, every cut of it
//! is refused or waited for, and hostile tables stay bounded.

use bytes::{Bytes, BytesMut};
use mainstay_amqp::frame::{self, ContentHeader, Frame, Kind};
use mainstay_amqp::limits::{
    FRAME_FUDGE, FRAME_MAX, FRAME_MIN, FRAME_OVERHEAD, TABLE_DEPTH_MAX, TABLE_FIELDS_MAX,
};
use mainstay_amqp::{Code, Malformed, Method, Properties, ShortString, Table, Value, method};
use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};

/// All bytes of the recording, what was sent (by pika's encoder) and what was answered (by RabbitMQ's).
fn recorded() -> Vec<Vec<u8>> {
    let text = include_str!("conformance/rabbitmq.json");
    let recording: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let mut all = Vec::new();
    let mut add = |hex: &str| {
        let digits = hex.trim_end_matches("closed");
        let pairs = (0..digits.len()).step_by(2);
        all.push(
            pairs
                .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex"))
                .collect(),
        );
    };
    for case in recording["cases"].as_array().expect("cases") {
        for step in case["steps"].as_array().expect("steps") {
            add(step["send"].as_str().unwrap_or(""));
            for got in step["get"].as_object().expect("answers").values() {
                add(got.as_str().expect("hex"));
            }
        }
    }
    all
}

/// Frames that are whole and well-formed, with their bytes.
fn frames() -> Vec<(Frame, Vec<u8>)> {
    let mut frames = Vec::new();
    for bytes in recorded() {
        let mut rest = BytesMut::from(&bytes[..]);
        loop {
            let before = rest.clone();
            match Frame::take(&mut rest, FRAME_MAX) {
                Ok(Some(frame)) => {
                    let len = before.len() - rest.len();
                    frames.push((frame, before[..len].to_vec()));
                }
                Ok(None) | Err(_) => break,
            }
        }
    }
    assert!(frames.len() > 500, "only {} frames", frames.len());
    frames
}

fn written(frame: &Frame) -> Option<Vec<u8>> {
    let mut out = BytesMut::new();
    match frame.kind {
        Kind::Method => {
            let method = Method::read(&frame.payload).ok()?;
            frame::write_method(&mut out, frame.channel, &method);
        }
        Kind::Header => {
            let mut header = ContentHeader::read(&frame.payload).ok()?;
            header.properties = Properties::read(&header.properties).ok()?.write();
            frame::write_header(&mut out, frame.channel, &header);
        }
        Kind::Body => frame::write_body(
            &mut out,
            frame.channel,
            &frame.payload,
            FRAME_MAX,
            |out, part| out.extend_from_slice(&part),
        ),
        Kind::Heartbeat => frame::write_heartbeat(&mut out),
    }
    Some(out.to_vec())
}

#[test]
fn what_others_wrote_is_written_the_same() {
    let mut methods = std::collections::BTreeSet::new();
    for (frame, bytes) in frames() {
        // Heartbeats have channel 0; a hostile one of the recording has another.
        if frame.kind == Kind::Heartbeat && frame.channel != 0 {
            continue;
        }
        let Some(again) = written(&frame) else {
            continue;
        };
        assert_eq!(again, bytes, "{frame:?}");
        if let Ok(method) = Method::read(&frame.payload)
            && frame.kind == Kind::Method
        {
            methods.insert(method.name());
        }
    }
    assert!(methods.len() >= 45, "{methods:?}");
}

#[test]
fn a_frame_that_is_cut_is_waited_for_and_nothing_is_taken() {
    for (frame, bytes) in frames() {
        for cut in 0..bytes.len() {
            let mut part = BytesMut::from(&bytes[..cut]);
            assert_eq!(Frame::take(&mut part, FRAME_MAX), Ok(None));
            assert_eq!(&part[..], &bytes[..cut]);
        }
        let mut whole = BytesMut::from(&bytes[..]);
        whole.extend_from_slice(b"next");
        assert_eq!(Frame::take(&mut whole, FRAME_MAX), Ok(Some(frame)));
        assert_eq!(&whole[..], b"next");
    }
}

#[test]
fn a_payload_that_is_cut_or_too_long_is_refused() {
    for (frame, _) in frames() {
        let refused = |payload: Bytes| match frame.kind {
            Kind::Method => Method::read(&payload).is_err(),
            Kind::Header => ContentHeader::read(&payload)
                .and_then(|header| Properties::read(&header.properties))
                .is_err(),
            Kind::Body | Kind::Heartbeat => true,
        };
        for cut in 0..frame.payload.len() {
            assert!(
                refused(frame.payload.slice(..cut)),
                "{frame:?} cut at {cut}"
            );
        }
        let longer = [&frame.payload[..], &[0]].concat();
        assert!(refused(Bytes::from(longer)), "{frame:?} with one byte more");
    }
}

#[test]
fn a_frame_may_be_as_large_as_was_negotiated_and_a_little_larger() {
    let most = FRAME_MIN - FRAME_OVERHEAD + FRAME_FUDGE;
    let head = |size: u32| {
        let mut bytes = BytesMut::from(&[1, 0, 1][..]);
        bytes.extend_from_slice(&size.to_be_bytes());
        bytes
    };
    assert_eq!(Frame::take(&mut head(most), FRAME_MIN), Ok(None));
    let fault = Frame::take(&mut head(most + 1), FRAME_MIN).unwrap_err();
    assert_eq!(fault.code, Code::FrameError);
    assert!(fault.explanation.contains("frame_too_large,4097,4088"));
}

fn table_bytes(table: &Table) -> Bytes {
    let mut out = BytesMut::new();
    let method = method::QueueDeclare {
        arguments: table.clone(),
        ..method::QueueDeclare::default()
    };
    frame::write_method(&mut out, 1, &method.into());
    let frame = Frame::take(&mut out, 1 << 30)
        .expect("a frame")
        .expect("whole");
    frame.payload
}

fn read_table(payload: &Bytes) -> Result<Table, Malformed> {
    match Method::read(payload) {
        Ok(Method::QueueDeclare(method)) => Ok(method.arguments),
        Err(method::Refused::Malformed(_, _, malformed)) => Err(malformed),
        other => panic!("{other:?}"),
    }
}

#[test]
fn tables_are_bounded_in_depth_and_in_fields() {
    let nest = |depth: usize| {
        let mut table = Table::EMPTY;
        for _ in 1..depth {
            table = Table::new(vec![("t".into(), Value::Table(table))]);
        }
        table_bytes(&table)
    };
    assert!(read_table(&nest(TABLE_DEPTH_MAX)).is_ok());
    assert_eq!(
        read_table(&nest(TABLE_DEPTH_MAX + 1)),
        Err(Malformed::Depth)
    );
    let wide = |fields: usize| {
        let list = Value::Array(vec![Value::Void; fields - 1]);
        table_bytes(&Table::new(vec![("a".into(), list)]))
    };
    assert!(read_table(&wide(TABLE_FIELDS_MAX)).is_ok());
    assert_eq!(
        read_table(&wide(TABLE_FIELDS_MAX + 1)),
        Err(Malformed::Fields)
    );
}

fn short() -> impl Strategy<Value = ShortString> {
    "[a-zäé.#*-]{0,40}".prop_map(|text| ShortString::cut(&text))
}

fn value() -> impl Strategy<Value = Value> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..30).prop_map(Bytes::from);
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i8>().prop_map(Value::Byte),
        any::<u8>().prop_map(Value::UnsignedByte),
        any::<i16>().prop_map(Value::Short),
        any::<u16>().prop_map(Value::UnsignedShort),
        any::<i32>().prop_map(Value::Int),
        any::<u32>().prop_map(Value::UnsignedInt),
        any::<i64>().prop_map(Value::Long),
        (-1e9f32..1e9).prop_map(Value::Float),
        (-1e9f64..1e9).prop_map(Value::Double),
        (any::<u8>(), any::<u32>()).prop_map(|(scale, digits)| Value::Decimal(scale, digits)),
        bytes().prop_map(Value::String),
        bytes().prop_map(Value::Binary),
        any::<u64>().prop_map(Value::Timestamp),
        Just(Value::Void),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            proptest::collection::vec((short(), inner), 0..5)
                .prop_map(|fields| Value::Table(Table::new(fields))),
        ]
    })
}

fn table() -> impl Strategy<Value = Table> {
    proptest::collection::vec((short(), value()), 0..6).prop_map(Table::new)
}

proptest! {
    #[test]
    fn any_table_is_read_as_it_was_written(table in table()) {
        prop_assert_eq!(read_table(&table_bytes(&table)), Ok(table));
    }

    #[test]
    fn any_properties_are_read_as_they_were_written(
        texts in proptest::collection::vec(proptest::option::of(short()), 10),
        headers in proptest::option::of(table()),
        octets in any::<(Option<u8>, Option<u8>)>(),
        timestamp in any::<Option<u64>>(),
    ) {
        let properties = Properties {
            content_type: texts[0].clone(),
            content_encoding: texts[1].clone(),
            headers,
            delivery_mode: octets.0,
            priority: octets.1,
            correlation_id: texts[2].clone(),
            reply_to: texts[3].clone(),
            expiration: texts[4].clone(),
            message_id: texts[5].clone(),
            timestamp,
            kind: texts[6].clone(),
            user_id: texts[7].clone(),
            app_id: texts[8].clone(),
            reserved: texts[9].clone(),
        };
        prop_assert_eq!(Properties::read(&properties.write()), Ok(properties));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let payload = Bytes::from(bytes);
        let _ = Method::read(&payload);
        let _ = Properties::read(&payload);
        let _ = ContentHeader::read(&payload);
        let _ = Frame::take(&mut BytesMut::from(&payload[..]), FRAME_MAX);
    }
}
