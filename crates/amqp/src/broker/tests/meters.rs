use alloc::vec;

use super::*;
use crate::method::{BasicGet, BasicReject, QueueDelete};
use crate::rates::{Counts, Rates};

fn counts(broker: &Broker, queue: &str) -> Counts {
    *broker.view_queue(&queue.into()).unwrap().counts
}

fn rates(broker: &Broker, queue: &str) -> Rates {
    broker.view_queue(&queue.into()).unwrap().rates
}

fn settle(broker: &mut Broker, method: impl Into<Method>) {
    self::method(broker, TWO, method);
}

#[test]
fn each_way_of_a_message_is_counted_once() {
    let mut broker = broker();
    let dead_letters = QueueDeclare {
        queue: "q".into(),
        arguments: Table::new(vec![
            ("x-dead-letter-exchange".into(), Value::literal("")),
            ("x-dead-letter-routing-key".into(), Value::literal("dead")),
        ]),
        ..QueueDeclare::default()
    };
    method(&mut broker, ONE, dead_letters);
    declare(&mut broker, "dead", false);
    for body in ["a", "b", "c", "d"] {
        publish(&mut broker, "q", body);
    }
    consume(&mut broker, TWO, "q", false);
    settle(
        &mut broker,
        BasicAck {
            delivery_tag: 1,
            multiple: false,
        },
    );
    for (delivery_tag, requeue) in [(2, false), (3, true)] {
        settle(
            &mut broker,
            BasicReject {
                delivery_tag,
                requeue,
            },
        );
    }
    let got = BasicGet {
        queue: "dead".into(),
        no_ack: true,
        ..BasicGet::default()
    };
    settle(&mut broker, got);
    let wanted = Counts {
        published: 4,
        delivered: 5,
        redelivered: 1,
        acknowledged: 1,
        auto_acknowledged: 0,
        dead: [0, 1, 0, 0],
    };
    assert_eq!(counts(&broker, "q"), wanted);
    let of_dead = Counts {
        published: 1,
        delivered: 1,
        auto_acknowledged: 1,
        ..Counts::default()
    };
    assert_eq!(counts(&broker, "dead"), of_dead);
    assert_eq!(broker.counts(), wanted.plus(of_dead));
    let delete = QueueDelete {
        queue: "q".into(),
        ..QueueDelete::default()
    };
    method(&mut broker, ONE, delete);
    assert_eq!(
        broker.counts(),
        wanted.plus(of_dead),
        "what was counted stays when a queue goes"
    );
}

#[test]
fn a_queue_has_rates_while_something_happens_in_it() {
    let mut broker = broker();
    declare(&mut broker, "busy", false);
    declare(&mut broker, "idle", false);
    for second in 1..=5 {
        for _ in 0..20 {
            publish(&mut broker, "busy", "a");
        }
        broker.sample(now(second * 1000).instant);
    }
    // Published at the start of the clock, all of them: the tests' clock stands still but for samples.
    assert!((rates(&broker, "busy").published - 20.0).abs() < f64::EPSILON);
    assert_eq!(rates(&broker, "idle"), Rates::default());
    for second in 6..=12 {
        broker.sample(now(second * 1000).instant);
    }
    assert_eq!(rates(&broker, "busy"), Rates::default());
    assert_eq!(counts(&broker, "busy").published, 100);
    let delete = QueueDelete {
        queue: "busy".into(),
        ..QueueDelete::default()
    };
    publish(&mut broker, "busy", "a");
    method(&mut broker, ONE, delete);
    broker.sample(now(13_000).instant);
    assert_eq!(broker.counts().published, 101);
}
