//! What operators see and do.

use super::*;
use crate::method::{BasicNack, ExchangeDeclare, QueueBind};
use crate::queue::Durability;
use crate::vhost::{Binding, Destination, Exchange, ExchangeKind};

fn name(text: &str) -> ShortString {
    text.into()
}

fn bodies(broker: &Broker, queue: &str) -> Vec<Bytes> {
    let peeked = broker.peek(now(0), &name(queue), usize::MAX).unwrap();
    let body = |one: &crate::queue::Peeked| one.message.body.here().unwrap().clone();
    peeked.iter().map(body).collect()
}

#[test]
fn what_is_moved_is_stored_there_before_it_is_forgotten_here_and_confirmed_after() {
    let mut broker = broker();
    declare(&mut broker, "from", true);
    declare(&mut broker, "to", true);
    method(&mut broker, ONE, ConfirmSelect { nowait: true });
    for body in ["a", "b", "c"] {
        publish(&mut broker, "from", body);
    }
    out(&mut broker);
    let moved = broker.move_messages(now(0), &name("from"), &name("to"), 2);
    assert_eq!(moved, Ok(2));
    let wanted = ["store 0", "forget 0", "store 1", "forget 1"];
    assert_eq!(out(&mut broker), wanted);
    assert_eq!(bodies(&broker, "from"), ["c"]);
    assert_eq!(bodies(&broker, "to"), ["a", "b"]);
    // That the place which it left is on disk says nothing.
    broker.handle(now(0), Input::Stored(QueueId(1), 1));
    assert_eq!(out(&mut broker), [""; 0]);
    broker.handle(now(0), Input::Stored(QueueId(2), 1));
    assert_eq!(out(&mut broker), ["ack 2 true"]);
}

#[test]
fn a_queue_that_refuses_is_given_nothing_and_what_is_too_old_dies_first() {
    let mut broker = broker();
    declare(&mut broker, "from", false);
    let full = QueueDeclare {
        queue: "full".into(),
        arguments: Table::new(Vec::from([
            ("x-max-length".into(), Value::Int(1)),
            ("x-overflow".into(), Value::literal("reject-publish")),
        ])),
        ..QueueDeclare::default()
    };
    method(&mut broker, ONE, full);
    let short = Properties {
        expiration: Some("5".into()),
        ..Properties::default()
    };
    publish_with(&mut broker, ONE, "from", "old", &short);
    for body in ["a", "b"] {
        publish(&mut broker, "from", body);
    }
    let (from, full) = (name("from"), name("full"));
    assert_eq!(broker.move_messages(now(5), &from, &full, 9), Ok(1));
    assert_eq!(broker.move_messages(now(5), &from, &full, 9), Ok(0));
    assert_eq!(
        (bodies(&broker, "from").len(), bodies(&broker, "full").len()),
        (1, 1)
    );
    let same = broker.move_messages(now(5), &from, &from, 9).unwrap_err();
    assert_eq!(
        same.explanation,
        "messages of queue 'from' in vhost '/' cannot be moved to the same queue"
    );
    let missing = broker.move_messages(now(5), &from, &name("nowhere"), 1);
    assert_eq!(missing.unwrap_err().code, Code::NotFound);
}

#[test]
fn a_look_shows_what_comes_next_and_takes_nothing() {
    let mut broker = broker();
    declare(&mut broker, "q", false);
    for body in ["a", "b", "c"] {
        publish(&mut broker, "q", body);
    }
    consume(&mut broker, TWO, "q", false);
    let back = BasicNack {
        delivery_tag: 2,
        multiple: false,
        requeue: true,
    };
    broker.handle(now(0), Input::Pause(TWO.connection));
    method(&mut broker, TWO, back);
    publish(&mut broker, "q", "d");
    let peeked = broker.peek(now(0), &name("q"), 9).unwrap();
    let shown: Vec<(u64, bool, u32)> = peeked
        .iter()
        .map(|one| (one.position, one.redelivered, one.returns))
        .collect();
    assert_eq!(shown, [(1, true, 1), (3, false, 0)]);
    assert_eq!(broker.depth(&name("q")), Some((2, 2, 1)));
}

#[test]
fn what_is_there_is_shown_as_it_is() {
    let mut broker = broker();
    declare(&mut broker, "q", true);
    method(&mut broker, ONE, ConfirmSelect { nowait: true });
    publish(&mut broker, "q", "abc");
    let qos = BasicQos {
        prefetch_count: 7,
        ..BasicQos::default()
    };
    method(&mut broker, TWO, qos);
    let queue = broker.view_queue(&name("q")).unwrap();
    assert_eq!((queue.ready, queue.ready_bytes, queue.here), (1, 3, 3));
    assert_eq!(queue.durability, Durability::Durable);
    assert_eq!(queue.state, QueueState::Idle);
    consume(&mut broker, TWO, "q", false);
    let channels: Vec<(u64, ChannelMode, u32, usize, usize)> = broker
        .channels()
        .map(|one| {
            (
                one.key.connection.0,
                one.mode,
                one.prefetch,
                one.unacked,
                one.unconfirmed,
            )
        })
        .collect();
    let wanted = [
        (1, ChannelMode::Confirm, 0, 0, 1),
        (2, ChannelMode::Plain, 7, 1, 0),
    ];
    assert_eq!(channels, wanted);
    let consumer = broker.consumers().next().unwrap();
    assert_eq!((consumer.queue, consumer.key.channel), (&name("q"), TWO));
    assert_eq!((consumer.state.prefetch, consumer.state.unacked), (7, 1));
    assert!(consumer.state.active && !consumer.state.exclusive);
    assert_eq!(broker.queues().map(|one| one.unacked).sum::<usize>(), 1);
}

#[test]
fn operators_purge_and_delete_and_their_consumers_hear_of_it() {
    let mut broker = broker();
    declare(&mut broker, "q", true);
    publish(&mut broker, "q", "a");
    out(&mut broker);
    assert_eq!(broker.purge(now(0), &name("q")), Ok(1));
    assert_eq!(out(&mut broker), ["forget 0"]);
    consume(&mut broker, TWO, "q", false);
    assert_eq!(broker.remove_queue(now(0), &name("q")), Ok(0));
    assert_eq!(out(&mut broker), ["record NoQueue", "2 basic.cancel"]);
    assert!(broker.remove_queue(now(0), &name("q")).is_err());
    for refused in ["", "amq.topic", "nothing"] {
        assert!(broker.remove_exchange(&name(refused)).is_err(), "{refused}");
    }
}

fn definitions() -> Definitions {
    let exchange = Exchange {
        name: "events".into(),
        kind: ExchangeKind::Topic,
        durable: true,
        auto_delete: false,
        internal: false,
        alternate: None,
        arguments: Table::EMPTY,
    };
    let queue = QueueDefinition {
        name: "q".into(),
        durable: true,
        auto_delete: false,
        arguments: Table::new(Vec::from([("x-max-length".into(), Value::Long(5))])),
    };
    let binding = Binding {
        source: "events".into(),
        destination: Destination::Queue("q".into()),
        key: "#".into(),
        arguments: Table::EMPTY,
    };
    Definitions {
        exchanges: Vec::from([exchange]),
        queues: Vec::from([queue]),
        bindings: Vec::from([binding]),
    }
}

#[test]
fn definitions_come_out_as_they_went_in_and_change_nothing_twice() {
    let mut broker = broker();
    let definitions = definitions();
    broker.import(now(0), &definitions).unwrap();
    assert_eq!(
        out(&mut broker),
        ["record Exchange", "record Queue", "record Binding"]
    );
    assert_eq!(broker.definitions(), definitions);
    broker.import(now(0), &definitions).unwrap();
    assert_eq!(out(&mut broker), [""; 0]);
    // What belongs to a connection goes with it, and so do its bindings.
    let own = QueueDeclare {
        queue: "own".into(),
        exclusive: true,
        ..QueueDeclare::default()
    };
    method(&mut broker, ONE, own);
    let bind = QueueBind {
        queue: "own".into(),
        exchange: "events".into(),
        ..QueueBind::default()
    };
    method(&mut broker, ONE, bind);
    assert_eq!(broker.definitions(), definitions);
}

type Spoil = fn(&mut Definitions);

#[test]
fn definitions_with_a_mistake_declare_nothing() {
    let wrong: [(&str, Spoil); 4] = [
        ("no queue 'other' in vhost '/'", |all| {
            all.bindings[0].destination = Destination::Queue("other".into());
        }),
        ("no exchange 'other' in vhost '/'", |all| {
            all.bindings[0].source = "other".into();
        }),
        (
            "exchange name 'amq.mine' contains reserved prefix 'amq.*'",
            |all| {
                all.exchanges[0].name = "amq.mine".into();
            },
        ),
        (
            "invalid arg 'x-max-length' for queue 'q' in vhost '/': {value_negative,-1}",
            |all| {
                let field = ("x-max-length".into(), Value::Long(-1));
                all.queues[0].arguments = Table::new(Vec::from([field]));
            },
        ),
    ];
    for (text, spoil) in wrong {
        let mut broker = broker();
        let mut definitions = definitions();
        spoil(&mut definitions);
        let fault = broker.import(now(0), &definitions).unwrap_err();
        assert_eq!(fault.explanation, text);
        assert_eq!(out(&mut broker), [""; 0]);
        assert_eq!(broker.definitions(), Definitions::default());
    }
    let declared = ExchangeDeclare {
        exchange: "events".into(),
        kind: "direct".into(),
        ..ExchangeDeclare::default()
    };
    let mut broker = broker();
    method(&mut broker, ONE, declared);
    // What is there stays as it is.
    broker.import(now(0), &definitions()).unwrap();
    assert_eq!(broker.definitions().exchanges[0].kind, ExchangeKind::Direct);
}
