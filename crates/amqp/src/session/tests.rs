use alloc::string::String;
use alloc::vec::Vec;

use super::*;
use crate::method::{
    BasicPublish, ChannelOpen, ConnectionOpen, ConnectionStartOk, ConnectionTuneOk,
    ConnectionUpdateSecret,
};

const GUEST: ShortString = ShortString::literal("guest");

fn at(seconds: u64) -> Instant {
    Instant::from_start(Duration::from_secs(seconds))
}

fn framed(channel: u16, method: impl Into<Method>) -> BytesMut {
    let mut out = BytesMut::new();
    frame::write_method(&mut out, channel, &method.into());
    out
}

fn start_ok(mechanism: &str, response: &'static [u8], capabilities: &[&'static str]) -> BytesMut {
    let on = |name: &&'static str| (ShortString::literal(name), crate::Value::Bool(true));
    let capabilities = Table::new(capabilities.iter().map(on).collect());
    let client_properties = Table::new(Vec::from([(
        "capabilities".into(),
        crate::Value::Table(capabilities),
    )]));
    framed(
        0,
        ConnectionStartOk {
            client_properties,
            mechanism: mechanism.into(),
            response: Bytes::from_static(response),
            locale: "en_US".into(),
        },
    )
}

/// Methods that wait to be written, by name, and other frames by their kind.
fn said(session: &mut Session) -> Vec<String> {
    let mut bytes = BytesMut::new();
    while let Some(piece) = session.outbox().pop() {
        bytes.extend_from_slice(&piece);
    }
    let mut all = Vec::new();
    while let Ok(Some(frame)) = Frame::take(&mut bytes, 1 << 30) {
        all.push(match frame.kind {
            Kind::Method => match Method::read(&frame.payload).unwrap() {
                Method::ConnectionClose(close) => format!("close {}", close.reply_text),
                Method::ChannelClose(close) => format!("close channel {}", close.reply_text),
                method => method.name().into(),
            },
            kind => format!("{kind:?}"),
        });
    }
    all
}

fn greeted() -> Session {
    let mut session = Session::new(at(0), Options::new("test", "0"));
    let mut input = BytesMut::from(&frame::PROTOCOL_HEADER[..]);
    assert_eq!(session.read(at(0), &mut input), None);
    assert_eq!(said(&mut session), ["connection.start"]);
    session
}

fn running(heartbeat: u16) -> Session {
    let mut session = greeted();
    let capabilities = ["connection.blocked", "authentication_failure_close"];
    let mut input = start_ok("PLAIN", b"\0guest\0secret", &capabilities);
    let asked = session.read(at(0), &mut input);
    let credentials = Credentials {
        user: GUEST,
        password: "secret".into(),
    };
    assert_eq!(asked, Some(Request::Authenticate(credentials)));
    session.authenticated(at(0), Entry::Granted);
    let mut input = framed(
        0,
        ConnectionTuneOk {
            channel_max: 10,
            frame_max: 4096,
            heartbeat,
        },
    );
    input.unsplit(framed(0, ConnectionOpen::default()));
    let asked = session.read(at(0), &mut input);
    assert_eq!(asked, Some(Request::OpenVhost(ShortString::default())));
    session.opened(at(0), &GUEST, VhostEntry::Granted);
    assert_eq!(
        said(&mut session),
        ["connection.tune", "connection.open_ok"]
    );
    session
}

fn with_channel(heartbeat: u16) -> Session {
    let mut session = running(heartbeat);
    let asked = session.read(at(0), &mut framed(1, ChannelOpen::default()));
    assert_eq!(asked, Some(Request::OpenChannel(1)));
    session.channel_opened(1);
    assert_eq!(said(&mut session), ["channel.open_ok"]);
    session
}

#[test]
fn who_is_silent_for_two_heartbeats_is_gone_and_who_hears_nothing_hears_one() {
    let mut session = running(10);
    assert_eq!(session.deadline(), at(5));
    session.tick(at(5));
    assert_eq!(said(&mut session), ["Heartbeat"]);
    session.spoke(at(9));
    session.heard(at(9));
    assert_eq!(session.deadline(), at(14));
    session.tick(at(14));
    session.tick(at(19));
    session.tick(at(24));
    assert_eq!(said(&mut session).len(), 3);
    assert_eq!(session.deadline(), at(29));
    session.tick(at(29));
    assert!(session.is_ended());
    assert_eq!(
        session.read(at(29), &mut BytesMut::new()),
        Some(Request::Gone)
    );
}

#[test]
fn without_heartbeats_nobody_is_gone() {
    let mut session = running(0);
    assert_eq!(session.deadline(), Instant::NEVER);
    session.tick(at(100_000));
    assert!(!session.is_ended());
}

#[test]
fn a_handshake_takes_ten_seconds_at_most() {
    for mut session in [Session::new(at(0), Options::new("test", "0")), greeted()] {
        session.tick(at(9));
        assert!(!session.is_ended());
        session.tick(session.deadline());
        assert!(session.is_ended());
    }
    assert_eq!(greeted().deadline(), at(10));
}

#[test]
fn a_client_that_does_not_answer_our_close_is_left_after_thirty_seconds() {
    let mut session = running(10);
    session.shut(at(1), "the broker ends");
    assert_eq!(
        said(&mut session),
        ["close CONNECTION_FORCED - the broker ends"]
    );
    assert_eq!(
        session.read(at(1), &mut BytesMut::new()),
        Some(Request::Gone)
    );
    assert_eq!(session.deadline(), at(31));
    session.tick(at(31));
    assert!(session.is_ended());
}

#[test]
fn a_stranger_is_not_told_why() {
    for (mechanism, response) in [
        ("EXTERNAL", &b""[..]),
        ("PLAIN", b"no zeros"),
        ("PLAIN", b"\0only user"),
        ("AMQPLAIN", b"\xffgarbage"),
        ("AMQPLAIN", b"\x05LOGINS\0\0\0\x05guest"),
    ] {
        let mut session = greeted();
        let asked = session.read(at(0), &mut start_ok(mechanism, response, &[]));
        assert_eq!(asked, None, "{mechanism} {response:?}");
        assert!(session.is_ended() && said(&mut session).is_empty());
    }
    // Without the capability a refusal is silent, too.
    let mut session = greeted();
    session.read(at(0), &mut start_ok("PLAIN", b"\0a\0b", &[]));
    session.authenticated(at(0), Entry::Refused);
    assert!(session.is_ended() && said(&mut session).is_empty());
}

#[test]
fn an_endless_response_is_refused() {
    static LONG: [u8; crate::limits::RESPONSE_MAX + 1] = [0; crate::limits::RESPONSE_MAX + 1];
    let mut session = greeted();
    // Before tuning a frame has 4,096 bytes at most, and so has the response.
    session.read(at(0), &mut start_ok("PLAIN", &LONG, &[]));
    assert!(session.is_ended());
}

#[test]
fn an_alarm_stops_publishers_alone_and_tells_them() {
    let mut session = with_channel(0);
    session.block("low on disk");
    assert_eq!(said(&mut session), [""; 0]);
    let qos = crate::method::BasicQos::default();
    let asked = session.read(at(1), &mut framed(1, qos.clone()));
    assert_eq!(asked, Some(Request::Method(1, qos.clone().into(), None)));
    let mut input = framed(1, BasicPublish::default());
    let rest = framed(1, qos.clone());
    input.unsplit(rest.clone());
    assert_eq!(session.read(at(1), &mut input), None);
    assert_eq!(said(&mut session), ["connection.blocked"]);
    assert_eq!(input, rest, "nothing more is read");
    session.unblock();
    assert_eq!(said(&mut session), ["connection.unblocked"]);
    assert!(!session.is_blocked());
}

#[test]
fn a_secret_can_be_renewed() {
    let mut session = running(0);
    let update = ConnectionUpdateSecret {
        new_secret: "new".into(),
        reason: "old".into(),
    };
    let asked = session.read(at(0), &mut framed(0, update.clone()));
    assert_eq!(asked, Some(Request::UpdateSecret("new".into())));
    session.secret_updated(at(0), Entry::Granted);
    assert_eq!(said(&mut session), ["connection.update_secret_ok"]);
    session.read(at(0), &mut framed(0, update));
    session.secret_updated(at(0), Entry::Refused);
    let refused = "close NOT_ALLOWED - New secret was refused by one of the backends";
    assert_eq!(said(&mut session), [refused]);
}

#[test]
fn a_body_larger_than_its_header_or_than_we_take_is_refused() {
    let header = |size: u64| {
        let mut out = framed(1, BasicPublish::default());
        let header = ContentHeader {
            class: 60,
            weight: 0,
            body_size: size,
            properties: Bytes::from_static(&[0, 0]),
        };
        frame::write_header(&mut out, 1, &header);
        out
    };
    let mut session = with_channel(0);
    let mut input = header(3);
    frame::write_body(&mut input, 1, &"four".into(), 4096, |_, _| {});
    session.read(at(0), &mut input);
    let said_of_four = said(&mut session);
    assert!(
        said_of_four[0].starts_with("close FRAME_ERROR - 4 bytes"),
        "{said_of_four:?}"
    );

    let mut session = with_channel(0);
    let mut input = header(crate::limits::BODY_MAX + 1);
    let asked = session.read(at(0), &mut input);
    assert_eq!(asked, Some(Request::CloseChannel(1)));
    let refused = "close channel PRECONDITION_FAILED - message size 134217729 is larger than configured max size 134217728";
    assert_eq!(said(&mut session), [refused]);
    // What still comes of it is not heard, and the connection lives.
    frame::write_body(&mut input, 1, &"rest".into(), 4096, |_, _| {});
    assert_eq!(session.read(at(0), &mut input), None);
    assert_eq!(said(&mut session), [""; 0]);
}

#[test]
fn large_bodies_are_handed_on_without_a_copy() {
    let mut session = with_channel(0);
    let body = Bytes::from(alloc::vec![7; 10_000]);
    let method = crate::method::BasicDeliver::default();
    let reply = Reply::Content(
        method.into(),
        Bytes::from_static(&[0, 0]),
        body.clone().into(),
    );
    session.send(1, &reply);
    let whole = session.outbox().len();
    let mut shared = 0;
    let mut total = 0;
    while let Some(piece) = session.outbox().pop() {
        total += piece.len();
        let inside = body.as_ptr_range().contains(&piece.as_ptr());
        shared += if inside { piece.len() } else { 0 };
    }
    assert_eq!(total, whole);
    // Two frames of 4,088; the last part is short enough to be copied.
    assert_eq!(shared, 8176);
    assert!(session.outbox().is_empty());
}

#[test]
fn what_was_for_an_older_channel_does_not_reach_a_new_one_of_its_number() {
    let mut session = with_channel(0);
    let close = crate::method::ChannelClose::default();
    let mut input = framed(1, close);
    input.unsplit(framed(1, ChannelOpen::default()));
    let closes = Request::CloseChannel(1);
    assert_eq!(session.read(at(0), &mut input), Some(closes));
    // The second one waits, and so does all behind it.
    assert_eq!(session.read(at(0), &mut input), None);
    assert!(session.is_waiting());
    let late = Reply::Method(crate::method::BasicQosOk {}.into());
    session.send(1, &late);
    session.channel_closed(1);
    let opens = Request::OpenChannel(1);
    assert_eq!(session.read(at(0), &mut input), Some(opens));
    assert!(!session.is_waiting());
    session.send(1, &late);
    session.channel_opened(1);
    session.send(1, &late);
    let wanted = [
        "basic.qos_ok",
        "channel.close_ok",
        "channel.open_ok",
        "basic.qos_ok",
    ];
    assert_eq!(said(&mut session), wanted);
}

#[test]
fn a_client_that_does_not_wait_is_answered_in_order() {
    let mut session = running(0);
    let qos = crate::method::BasicQos::default();
    let mut input = framed(1, ChannelOpen::default());
    input.unsplit(framed(1, qos.clone()));
    input.unsplit(framed(1, crate::method::ChannelClose::default()));
    let asked: Vec<_> = core::iter::from_fn(|| session.read(at(0), &mut input)).collect();
    let wanted = [
        Request::OpenChannel(1),
        Request::Method(1, qos.into(), None),
        Request::CloseChannel(1),
    ];
    assert_eq!(asked, wanted);
    assert_eq!(said(&mut session), [""; 0]);
    session.channel_opened(1);
    session.send(1, &Reply::Method(crate::method::BasicQosOk {}.into()));
    session.channel_closed(1);
    let wanted = ["channel.open_ok", "basic.qos_ok", "channel.close_ok"];
    assert_eq!(said(&mut session), wanted);
}

#[test]
fn both_ends_may_close_a_channel_at_once() {
    let mut session = with_channel(0);
    let close = crate::method::ChannelClose::default();
    session.read(at(0), &mut framed(1, close));
    session.fault(at(0), 1, &Fault::new(Code::NotFound, "no queue 'x'"));
    session.channel_closed(1);
    let wanted = ["close channel NOT_FOUND - no queue 'x'", "channel.close_ok"];
    assert_eq!(said(&mut session), wanted);
    // The number is free once the client has answered, too.
    let mut input = framed(1, crate::method::ChannelCloseOk {});
    input.unsplit(framed(1, ChannelOpen::default()));
    let opens = Request::OpenChannel(1);
    assert_eq!(session.read(at(0), &mut input), Some(opens));
}
