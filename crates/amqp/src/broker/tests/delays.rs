//! Messages that wait for their time.

use super::*;
use crate::message::{Body, Message};
use crate::method::{ExchangeDeclare, ExchangeDelete, QueueBind};
use crate::vhost::Exchange;

const QUEUE: QueueId = QueueId(2);
/// Where messages of `later` wait: it is declared first.
const SHELF: QueueId = QueueId(1);

fn time(ms: u64) -> Now {
    Now {
        wall: Timestamp(1_000_000 + ms),
        ..now(ms)
    }
}

fn declare_later(broker: &mut Broker, arguments: &[(&'static str, Value)]) -> Vec<String> {
    let field = |(key, value): &(&'static str, Value)| (ShortString::literal(key), value.clone());
    let declare = ExchangeDeclare {
        exchange: "later".into(),
        kind: "x-delayed-message".into(),
        durable: true,
        arguments: Table::new(arguments.iter().map(field).collect()),
        ..ExchangeDeclare::default()
    };
    method(broker, ONE, declare)
}

/// `later` is bound to `q` by the key `k`.
fn prepared() -> Broker {
    let mut broker = broker();
    let direct = [("x-delayed-type", Value::literal("direct"))];
    let declared = declare_later(&mut broker, &direct);
    let wanted = ["record Delays", "record Exchange", "1 exchange.declare_ok"];
    let mut sorted = declared.clone();
    sorted.sort();
    assert_eq!(
        sorted,
        ["1 exchange.declare_ok", "record Delays", "record Exchange"]
    );
    assert_eq!(declared, [wanted[1], wanted[0], wanted[2]]);
    declare(&mut broker, "q", true);
    let bind = QueueBind {
        queue: "q".into(),
        exchange: "later".into(),
        routing_key: "k".into(),
        ..QueueBind::default()
    };
    method(&mut broker, ONE, bind);
    method(&mut broker, ONE, ConfirmSelect { nowait: true });
    broker
}

fn publish_delayed(broker: &mut Broker, at: u64, body: &'static str, delay: Value) {
    let properties = Properties {
        delivery_mode: Some(2),
        headers: Some(Table::new(Vec::from([("x-delay".into(), delay)]))),
        ..Properties::default()
    };
    let publish = BasicPublish {
        exchange: "later".into(),
        routing_key: "k".into(),
        mandatory: true,
        ..BasicPublish::default()
    };
    let content = Content {
        properties: properties.write(),
        body: Bytes::from_static(body.as_bytes()),
    };
    broker.handle(time(at), Input::Method(ONE, publish.into(), Some(content)));
}

fn waiting(broker: &Broker) -> Option<(usize, usize, usize)> {
    broker.depth(&"q".into())
}

#[test]
fn a_message_waits_for_its_time_on_disk_and_goes_on_with_its_delay_turned() {
    let mut broker = prepared();
    publish_delayed(&mut broker, 0, "a", Value::Int(500));
    assert_eq!(out(&mut broker), ["store 0"]);
    broker.handle(time(1), Input::Stored(SHELF, 0));
    assert_eq!(out(&mut broker), ["ack 1 false"]);
    assert_eq!(broker.delayed(&"later".into()), Some(1));
    assert_eq!(broker.deadline(), time(500).instant);
    assert_eq!(waiting(&broker), Some((0, 0, 0)));
    while broker.work(time(499)) == Work::More {}
    assert_eq!(waiting(&broker), Some((0, 0, 0)));
    while broker.work(time(500)) == Work::More {}
    assert_eq!(waiting(&broker), Some((1, 0, 0)));
    assert_eq!(out(&mut broker), ["store 0", "forget 0"]);
    let peeked = broker.peek(time(500), &"q".into(), 1).unwrap();
    let headers = peeked[0]
        .message
        .read_properties()
        .unwrap()
        .headers
        .unwrap();
    let only = Table::new(Vec::from([("x-delay".into(), Value::Int(-500))]));
    assert_eq!(headers, only);
    assert_eq!(broker.delayed(&"later".into()), Some(0));
    assert_eq!(broker.deadline(), Instant::NEVER);
}

#[test]
fn what_is_due_first_goes_first_and_what_is_no_delay_goes_at_once() {
    let mut broker = prepared();
    publish_delayed(&mut broker, 0, "late", Value::Long(90));
    publish_delayed(&mut broker, 0, "early", Value::literal("20"));
    publish_delayed(&mut broker, 0, "odd", Value::Double(50.9));
    for at_once in [
        Value::Int(0),
        Value::Int(-5),
        Value::Long(4_294_967_296),
        Value::literal("soon"),
        Value::Bool(true),
    ] {
        publish_delayed(&mut broker, 0, "now", at_once);
    }
    assert_eq!(waiting(&broker), Some((5, 0, 0)));
    broker.purge(time(0), &"q".into()).unwrap();
    publish_delayed(&mut broker, 0, "longest", Value::Long(4_294_967_295));
    for (at, body) in [(20, "early"), (50, "odd"), (90, "late")] {
        while broker.work(time(at - 1)) == Work::More {}
        assert_eq!(waiting(&broker), Some((0, 0, 0)), "{body}");
        while broker.work(time(at)) == Work::More {}
        let peeked = broker.peek(time(at), &"q".into(), 9).unwrap();
        let here = peeked[0].message.body.here().unwrap();
        assert_eq!((peeked.len(), &here[..]), (1, body.as_bytes()));
        broker.purge(time(at), &"q".into()).unwrap();
    }
    assert_eq!(broker.delayed(&"later".into()), Some(1));
}

#[test]
fn what_waits_outlives_the_broker_and_knows_its_hour() {
    let mut broker = prepared();
    publish_delayed(&mut broker, 0, "a", Value::Int(500));
    let mut stored = None;
    while let Some(output) = broker.pop() {
        if let Output::Store(queue, position, message) = output {
            assert_eq!((queue, position), (SHELF, 0));
            stored = Some(message);
        }
    }
    let mut message = Message::clone(&stored.unwrap());
    // It comes back without its body, which stays on disk.
    let place = crate::message::Place {
        queue: SHELF,
        position: 0,
    };
    message.body = Body::Stored { place, len: 1 };
    let mut after = super::broker();
    let exchange: Exchange = broker.vhost().exchange(&"later".into()).unwrap().clone();
    let queue = DurableQueue {
        name: "q".into(),
        auto_delete: false,
        arguments: Table::EMPTY,
    };
    let binding = broker.vhost().bindings().next().unwrap();
    // 200 ms of the wall have passed, and the new broker's own time begins.
    let restart = Now {
        wall: time(200).wall,
        ..now(0)
    };
    for record in [
        Record::Exchange(exchange),
        Record::Delays(SHELF, "later".into()),
        Record::Queue(QUEUE, queue),
        Record::Binding(binding),
    ] {
        after.restore(restart, record).unwrap();
    }
    assert!(after.restore_message(restart, SHELF, 0, &message.into()));
    assert_eq!(after.deadline(), now(300).instant);
    while after.work(time(300)) == Work::More {}
    let Some(Output::Store(QUEUE, 0, moved)) = after.pop() else {
        panic!("it is stored where it goes");
    };
    assert_eq!(moved.body, Body::Stored { place, len: 1 });
    assert_eq!(after.pop(), Some(Output::Forget(SHELF, 0)));
    assert_eq!(after.depth(&"q".into()), Some((1, 0, 0)));
}

#[test]
fn an_exchange_that_is_deleted_takes_along_what_waits() {
    let mut broker = prepared();
    publish_delayed(&mut broker, 0, "a", Value::Int(500));
    out(&mut broker);
    let delete = ExchangeDelete {
        exchange: "later".into(),
        nowait: true,
        ..ExchangeDelete::default()
    };
    let deleted = method(&mut broker, ONE, delete);
    let wanted = [
        "record NoBinding",
        "record NoQueue",
        "record NoExchange",
        "ack 1 false",
    ];
    assert_eq!(deleted, wanted);
    assert_eq!(broker.delayed(&"later".into()), None);
    assert_eq!(broker.deadline(), Instant::NEVER);
}

#[test]
fn the_type_behind_the_delay_must_be_one() {
    let not = "PRECONDITION_FAILED - Invalid argument, 'x-delayed-type' must be an existing exchange type";
    for (arguments, wanted) in [
        (Vec::new(), not),
        (Vec::from([("x-delayed-type", Value::Int(1))]), not),
        (
            Vec::from([("x-delayed-type", Value::literal("x-delayed-message"))]),
            not,
        ),
        (
            Vec::from([("x-delayed-type", Value::literal("odd"))]),
            "PRECONDITION_FAILED - unknown exchange type 'odd'",
        ),
    ] {
        let mut broker = broker();
        assert_eq!(declare_later(&mut broker, &arguments), [wanted]);
    }
}
