use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::*;
use crate::field::{Table, Value};
use crate::message::Content;
use crate::properties::Properties;
use crate::text::ShortString;

fn at(ms: u64) -> Instant {
    Instant::from_start(Duration::from_millis(ms))
}

fn queue(arguments: &[(&'static str, Value)]) -> Queue {
    let field = |(name, value): &(&'static str, Value)| (ShortString::literal(name), value.clone());
    let table = Table::new(arguments.iter().map(field).collect());
    let arguments = Arguments::read(&table, "queue 'q'").unwrap();
    Queue::new(QueueId(1), at(0), arguments, Durability::Durable)
}

fn message(body: &str, priority: u8, expiration: Option<&str>) -> Arc<Message> {
    let properties = Properties {
        delivery_mode: Some(2),
        priority: Some(priority),
        expiration: expiration.map(ShortString::from),
        ..Properties::default()
    };
    let content = Content {
        properties: properties.write(),
        body: Bytes::copy_from_slice(body.as_bytes()),
    };
    let name = ShortString::literal("q");
    Arc::new(Message::new(&name, &name, content, &properties).unwrap())
}

fn got(queue: &mut Queue, now: Instant) -> Option<Bytes> {
    let got = queue.get(now, true, &mut Vec::new());
    got.map(|(delivery, _)| delivery.message.body.here().cloned().unwrap())
}

#[test]
fn what_comes_back_stands_before_what_came_later() {
    let mut queue = queue(&[]);
    let effects = &mut Vec::new();
    for body in ["0", "1", "2", "3"] {
        queue.publish(at(0), message(body, 0, None), None, effects);
    }
    for _ in 0..3 {
        queue.get(at(0), false, effects).unwrap();
    }
    for position in [2, 0] {
        assert!(queue.settle(position, Settle::Requeue, effects));
        assert!(!queue.settle(position, Settle::Requeue, effects));
    }
    let (first, left) = queue.get(at(0), true, effects).unwrap();
    assert_eq!((first.position, first.redelivered, left), (0, true, 2));
    let rest: Vec<Option<Bytes>> = (0..3).map(|_| got(&mut queue, at(0))).collect();
    assert_eq!(rest, [Some("2".into()), Some("3".into()), None]);
    assert_eq!(queue.unacked(), 1);
}

#[test]
fn higher_priorities_go_first_and_those_above_the_highest_count_as_it() {
    let mut queue = queue(&[("x-max-priority", Value::Int(3))]);
    for (body, priority) in [("low", 0), ("top", 3), ("above", 200), ("mid", 2)] {
        let message = message(body, priority, None);
        queue.publish(at(0), message, None, &mut Vec::new());
    }
    let all: Vec<Bytes> = core::iter::from_fn(|| got(&mut queue, at(0))).collect();
    assert_eq!(all, ["top", "above", "mid", "low"]);
}

#[test]
fn the_shorter_of_two_times_counts_and_it_is_over_when_it_is() {
    let mut queue = queue(&[("x-message-ttl", Value::Int(100))]);
    queue.publish(
        at(0),
        message("queue's", 0, Some("500")),
        None,
        &mut Vec::new(),
    );
    assert_eq!(queue.deadline(), at(100));
    assert!(got(&mut queue, at(99)).is_some());
    queue.publish(
        at(200),
        message("own", 0, Some("50")),
        None,
        &mut Vec::new(),
    );
    assert_eq!(queue.deadline(), at(250));
    assert_eq!(got(&mut queue, at(250)), None);
}

#[test]
fn a_life_of_zero_is_enough_for_who_waits_and_for_nobody_else() {
    let mut queue = queue(&[("x-message-ttl", Value::Int(0))]);
    let effects = &mut Vec::new();
    queue.publish(at(5), message("gone", 0, None), None, effects);
    queue.turn(at(5), &mut |_, _| true, effects);
    assert_eq!(queue.ready(), 0);
    let channel = ChannelKey {
        connection: ConnectionId(1),
        channel: 1,
    };
    let consumer = NewConsumer {
        key: ConsumerKey::first_of(channel),
        no_ack: false,
        exclusive: false,
        prefetch: 0,
        priority: 0,
    };
    queue.consume(consumer).unwrap();
    queue.publish(at(6), message("seen", 0, None), None, effects);
    queue.turn(at(6), &mut |_, _| true, effects);
    assert_eq!((queue.unacked(), queue.ready()), (1, 0));
}

#[test]
fn a_dead_letter_leaves_before_its_message_is_forgotten() {
    let arguments = [
        ("x-dead-letter-exchange", Value::literal("")),
        ("x-max-length", Value::Int(1)),
    ];
    let mut queue = queue(&arguments);
    let effects = &mut Vec::new();
    for body in ["a", "b"] {
        queue.publish(at(0), message(body, 0, None), None, effects);
    }
    effects.clear();
    queue.turn(at(0), &mut |_, _| true, effects);
    let shown: Vec<_> = effects.iter().map(|effect| format!("{effect:?}")).collect();
    assert!(
        shown[0].starts_with("DeadLetter") && shown[1] == "Forget(0)",
        "{shown:?}"
    );
    assert_eq!(queue.ready(), 1);
}

#[test]
fn a_message_that_comes_back_too_often_dies() {
    let arguments = [
        ("x-queue-type", Value::literal("quorum")),
        ("x-delivery-limit", Value::Int(1)),
    ];
    let mut queue = queue(&arguments);
    let effects = &mut Vec::new();
    queue.publish(at(0), message("a", 0, None), None, effects);
    for left in [1, 0] {
        queue.get(at(0), false, effects).unwrap();
        queue.settle(0, Settle::Requeue, effects);
        assert_eq!(queue.ready(), left);
    }
}

#[test]
fn nobody_uses_it_and_it_is_abandoned() {
    let mut queue = queue(&[("x-expires", Value::Int(100))]);
    assert!(!queue.is_abandoned(at(99)) && queue.is_abandoned(at(100)));
    got(&mut queue, at(99));
    assert_eq!(queue.deadline(), at(199));
    let key = ConsumerKey {
        channel: ChannelKey {
            connection: ConnectionId(1),
            channel: 1,
        },
        tag: "t".into(),
    };
    let consumer = NewConsumer {
        key: key.clone(),
        no_ack: false,
        exclusive: false,
        prefetch: 0,
        priority: 0,
    };
    queue.consume(consumer).unwrap();
    assert_eq!(queue.deadline(), Instant::NEVER);
    assert!(queue.cancel(at(500), &key));
    assert_eq!(queue.deadline(), at(600));
}

#[test]
fn small_messages_do_not_hold_the_buffer_in_which_they_came() {
    let buffer = Bytes::from(alloc::vec![b'x'; 100_000]);
    let name = ShortString::new(buffer.slice(10..20)).unwrap();
    let content = |len: usize| Content {
        properties: Properties::default().write(),
        body: buffer.slice(1000..1000 + len),
    };
    let inside = |bytes: &Bytes| buffer.as_ptr_range().contains(&bytes.as_ptr());
    let made = |len| Message::new(&name, &name, content(len), &Properties::default()).unwrap();
    let small = made(2048);
    assert!(!inside(small.routing_key.bytes()) && !inside(small.body.here().unwrap()));
    let large = made(50_000);
    assert!(!inside(large.routing_key.bytes()) && inside(large.body.here().unwrap()));
}
