//! What operators see and do.

use super::*;
use crate::method::{BasicNack, ExchangeDeclare, QueueBind};
use crate::policy::{AppliesTo, Policy};
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
fn more_queues_than_a_virtual_host_may_have_are_refused_with_rabbitmqs_words() {
    let mut broker = broker();
    broker.set_queues_max(Some(2));
    for queue in ["a", "b", "a"] {
        assert_eq!(declare(&mut broker, queue, false), ["declared, 0 wait"]);
    }
    let wanted =
        "PRECONDITION_FAILED - cannot declare queue 'c': queue limit in vhost '/' (2) is reached";
    assert_eq!(declare(&mut broker, "c", false), [wanted]);
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
        assert!(
            broker.remove_exchange(now(0), &name(refused)).is_err(),
            "{refused}"
        );
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
        policies: Vec::new(),
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

fn policy(
    name: &str,
    pattern: &str,
    priority: i64,
    definition: &[(&'static str, Value)],
) -> Policy {
    let field = |(key, value): &(&'static str, Value)| (ShortString::literal(key), value.clone());
    Policy {
        name: name.into(),
        pattern: pattern.into(),
        applies_to: AppliesTo::All,
        priority,
        definition: Table::new(definition.iter().map(field).collect()),
    }
}

fn declare_with(broker: &mut Broker, queue: &str, arguments: &[(&'static str, Value)]) {
    let field = |(key, value): &(&'static str, Value)| (ShortString::literal(key), value.clone());
    let declare = QueueDeclare {
        queue: queue.into(),
        arguments: Table::new(arguments.iter().map(field).collect()),
        ..QueueDeclare::default()
    };
    method(broker, ONE, declare);
}

#[test]
fn a_policy_is_in_force_at_once_and_only_the_highest_that_fits() {
    let mut broker = broker();
    declare(&mut broker, "orders", false);
    for body in ["a", "b", "c"] {
        publish(&mut broker, "orders", body);
    }
    // Perl's look-ahead, with which people spare what is RabbitMQ's own.
    let low = policy("low", r"^(?!amq\.).*", 1, &[("max-length", Value::Long(2))]);
    broker.set_policy(now(0), low).unwrap();
    assert_eq!(out(&mut broker), ["record Policy"]);
    assert_eq!(bodies(&broker, "orders"), ["b", "c"]);
    let high = policy("high", "^ord", 5, &[("message-ttl", Value::Long(7))]);
    broker.set_policy(now(0), high).unwrap();
    let view = broker.view_queue(&name("orders")).unwrap();
    assert_eq!(view.policy, Some(&name("high")));
    assert_eq!(
        (view.arguments.length_max, view.arguments.message_ttl),
        (None, Some(Duration::from_millis(7)))
    );
    broker.clear_policy(now(0), &name("high")).unwrap();
    assert_eq!(out(&mut broker), ["record Policy", "record NoPolicy"]);
    let view = broker.view_queue(&name("orders")).unwrap();
    assert_eq!(view.arguments.length_max, Some(2));
    let missing = broker.clear_policy(now(0), &name("high")).unwrap_err();
    assert_eq!(missing.explanation, "no policy 'high' in vhost '/'");
    declare(&mut broker, "later", false);
    assert_eq!(
        broker
            .view_queue(&name("later"))
            .unwrap()
            .arguments
            .length_max,
        Some(2)
    );
}

#[test]
fn of_two_numbers_the_smaller_one_counts_and_of_two_names_the_declarations() {
    let mut broker = broker();
    let all = [
        ("message-ttl", Value::Long(50)),
        ("max-length", Value::Long(50)),
        ("max-length-bytes", Value::Long(9)),
        ("overflow", Value::literal("reject-publish")),
        ("dead-letter-exchange", Value::literal("policy's")),
        ("dead-letter-routing-key", Value::literal("policy's")),
        ("delivery-limit", Value::Long(3)),
        ("ha-mode", Value::literal("all")),
    ];
    let policy = policy("p", "", 0, &all);
    assert!(policy.asks_for_copies());
    broker.set_policy(now(0), policy).unwrap();
    let own = [
        ("x-message-ttl", Value::Int(70)),
        ("x-max-length", Value::Int(20)),
        ("x-overflow", Value::literal("drop-head")),
        ("x-dead-letter-exchange", Value::literal("own")),
    ];
    declare_with(&mut broker, "q", &own);
    let arguments = broker.view_queue(&name("q")).unwrap().arguments.clone();
    assert_eq!(arguments.message_ttl, Some(Duration::from_millis(50)));
    assert_eq!(
        (arguments.length_max, arguments.bytes_max),
        (Some(20), Some(9))
    );
    assert_eq!(arguments.overflow, crate::queue::Overflow::DropHead);
    assert_eq!(arguments.dead_letter_exchange, Some(name("own")));
    assert_eq!(arguments.dead_letter_key, Some(name("policy's")));
    // Of quorum queues alone.
    assert_eq!(arguments.delivery_limit, None);
    let full = broker.view_queue(&name("q")).unwrap().declared.clone();
    assert_eq!(full.iter().count(), own.len(), "what was declared stays");
}

#[test]
fn a_policy_may_name_an_alternate_exchange() {
    let mut broker = broker();
    declare(&mut broker, "rest", false);
    let bind = QueueBind {
        queue: "rest".into(),
        exchange: "amq.fanout".into(),
        ..QueueBind::default()
    };
    method(&mut broker, ONE, bind);
    let alternate = policy(
        "p",
        r"^amq\.direct$",
        0,
        &[("alternate-exchange", Value::literal("amq.fanout"))],
    );
    broker.set_policy(now(0), alternate).unwrap();
    assert_eq!(
        broker.policy_of_exchange(&name("amq.direct")).unwrap().name,
        "p"
    );
    let publish = BasicPublish {
        exchange: "amq.direct".into(),
        routing_key: "nobody".into(),
        ..BasicPublish::default()
    };
    let content = || Content {
        properties: Properties::default().write(),
        body: Bytes::from_static(b"x"),
    };
    broker.handle(
        now(0),
        Input::Method(ONE, publish.clone().into(), Some(content())),
    );
    assert_eq!(bodies(&broker, "rest"), ["x"]);
    broker.clear_policy(now(0), &name("p")).unwrap();
    broker.handle(now(0), Input::Method(ONE, publish.into(), Some(content())));
    assert_eq!(bodies(&broker, "rest"), ["x"]);
}

#[test]
fn policies_are_checked_with_rabbitmqs_words() {
    let minus = Value::Long(-1);
    let text = Value::literal("x");
    for (key, value, wanted) in [
        (
            "max-length",
            minus.clone(),
            "-1 is not a valid maximum length",
        ),
        (
            "max-length-bytes",
            text.clone(),
            r#"<<"x">> is not a valid maximum length in bytes"#,
        ),
        (
            "odd",
            Value::Long(1),
            r#"[{<<"odd">>,1}] are not recognised policy settings"#,
        ),
        (
            "message-ttl",
            text.clone(),
            r#"<<"x">> is not a valid message TTL"#,
        ),
        ("expires", Value::Long(0), "0 is not a valid queue expiry"),
        (
            "overflow",
            text.clone(),
            r#"<<"x">> is not a valid overflow value"#,
        ),
        (
            "dead-letter-exchange",
            Value::Long(5),
            "5 is not a valid dead letter exchange name",
        ),
        (
            "dead-letter-routing-key",
            Value::Long(5),
            "5 is not a valid dead letter routing key",
        ),
        (
            "alternate-exchange",
            Value::Long(5),
            "5 is not a valid alternate exchange name",
        ),
        (
            "ha-mode",
            text.clone(),
            r#"<<"x">> is not a valid ha-mode value"#,
        ),
        (
            "ha-mode",
            Value::literal("exactly"),
            r#"ha-mode="exactly" takes an integer, none given"#,
        ),
        (
            "queue-mode",
            text,
            r#"<<"x">> is not a valid queue-mode value"#,
        ),
        ("delivery-limit", minus, "-1 is not a valid delivery limit"),
    ] {
        let mut broker = broker();
        let fault = broker.set_policy(now(0), policy("p", "q", 0, &[(key, value)]));
        assert_eq!(fault.unwrap_err().explanation, wanted);
        assert_eq!((broker.policies().count(), out(&mut broker).len()), (0, 0));
    }
}

#[test]
fn patterns_are_bounded_and_checked() {
    let mut broker = broker();
    let none = broker
        .set_policy(now(0), policy("p", "q", 0, &[]))
        .unwrap_err();
    assert_eq!(none.explanation, "no policy provided");
    let set = |pattern: &str| policy("p", pattern, 0, &[("max-length", Value::Long(1))]);
    let long = "a".repeat(2000);
    for pattern in ["^q(", &long, "((a{1000}){1000}){1000}"] {
        let fault = broker.set_policy(now(0), set(pattern)).unwrap_err();
        let begins = "pattern should be regular expression but is invalid: ";
        assert!(
            fault.explanation.starts_with(begins),
            "{}",
            fault.explanation
        );
    }
    let word = AppliesTo::parse("odd").unwrap_err().explanation;
    assert_eq!(
        word,
        "apply-to 'odd' unrecognised; should be 'queues', 'exchanges' or 'all'"
    );
}

#[test]
fn a_pattern_that_takes_forever_fits_nothing() {
    let mut broker = broker();
    let hostile = policy("p", r"^(a|a)*(?=b)$", 0, &[("max-length", Value::Long(1))]);
    broker.set_policy(now(0), hostile).unwrap();
    declare(&mut broker, &"a".repeat(200), false);
    assert_eq!(broker.queues().next().unwrap().policy, None);
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

#[test]
fn what_undoes_a_broker_leaves_nothing_of_what_it_recorded() {
    let mut broker = broker();
    broker.import(now(0), &definitions()).unwrap();
    let limit = policy("p", "^q", 1, &[("max-length", Value::Long(2))]);
    broker.set_policy(now(0), limit).unwrap();
    declare(&mut broker, "own", false);
    let mut records = Vec::new();
    while let Some(output) = broker.pop() {
        if let Output::Record(record) = output {
            records.push(record);
        }
    }
    let mut again = Broker::new("/", [1, 2]);
    let (count, undone) = (records.len(), broker.undone());
    for record in records.into_iter().chain(undone.clone()) {
        again.restore(now(0), record).unwrap();
    }
    assert_eq!(again.definitions(), Definitions::default());
    // The queue that does not outlive it may have stored something.
    assert!(undone.len() > count, "{undone:?}");
}

#[test]
fn what_a_user_may_from_now_on_holds_for_connections_that_are_there() {
    let mut broker = broker();
    let text = "ACCESS_REFUSED - access to queue 'secret' in vhost '/' refused for user 'alice'";
    assert_eq!(declare(&mut broker, "secret", false), [text]);
    assert_eq!(broker.permit(&name("bob"), || Box::new(Everything)), 0);
    broker.handle(now(0), Input::OpenChannel(ONE));
    broker.pop();
    assert_eq!(declare(&mut broker, "secret", false), [text]);
    assert_eq!(broker.permit(&name("alice"), || Box::new(Everything)), 2);
    broker.handle(now(0), Input::OpenChannel(ONE));
    broker.pop();
    assert_eq!(declare(&mut broker, "secret", false), ["declared, 0 wait"]);
}
