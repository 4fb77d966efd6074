mod delays;
mod meters;
mod operate;
mod timeouts;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use mainstay_ids::Timestamp;

use super::channel::Confirms;
use super::*;
use crate::field::{Table, Value};
use crate::limits::TURN_MAX;
use crate::method::{
    BasicAck, BasicConsume, BasicPublish, BasicQos, ConfirmSelect, QueueDeclare, TxCommit, TxSelect,
};
use crate::properties::Properties;

const ONE: ChannelKey = ChannelKey {
    connection: ConnectionId(1),
    channel: 1,
};
const TWO: ChannelKey = ChannelKey {
    connection: ConnectionId(2),
    channel: 1,
};

fn now(ms: u64) -> Now {
    Now {
        instant: Instant::from_start(Duration::from_millis(ms)),
        wall: Timestamp(0),
    }
}

/// May not what begins with `secret`.
#[derive(Debug)]
struct AllButSecrets;

impl Rights for AllButSecrets {
    fn allows(&self, right: Right, name: &str) -> bool {
        right == Right::Read || !name.starts_with("secret")
    }
}

fn broker() -> Broker {
    let mut broker = Broker::new("/", [1, 2]);
    for key in [ONE, TWO] {
        let user = User {
            name: "alice".into(),
            rights: Box::new(AllButSecrets),
            hears_cancel: true,
        };
        broker.handle(now(0), Input::Opened(key.connection, user));
        broker.handle(now(0), Input::OpenChannel(key));
        assert_eq!(broker.pop(), Some(Output::Opened(key)));
    }
    broker
}

/// What came out, in words.
fn out(broker: &mut Broker) -> Vec<String> {
    while broker.work(now(0)) == Work::More {}
    broker.check_invariants();
    let mut all = Vec::new();
    while let Some(output) = broker.pop() {
        all.push(match output {
            Output::Reply(key, Reply::Method(method)) => match method {
                Method::BasicAck(ack) => format!("ack {} {}", ack.delivery_tag, ack.multiple),
                Method::QueueDeclareOk(ok) => format!("declared, {} wait", ok.message_count),
                method => format!("{} {}", key.connection.0, method.name()),
            },
            Output::Reply(key, Reply::Content(method, properties, body)) => {
                let to = Properties::read(&properties).unwrap().reply_to;
                let to = to.map_or(String::new(), |to| format!(" reply to {to}"));
                let body = String::from_utf8_lossy(body.here().unwrap()).into_owned();
                format!("{} {} {body}{to}", key.connection.0, method.name())
            }
            Output::Opened(key) => format!("{} opened", key.connection.0),
            Output::Fault(_, fault) => format!("{fault}"),
            Output::Store(_, position, _) => format!("store {position}"),
            Output::Forget(_, position) => format!("forget {position}"),
            Output::Record(record) => {
                let shown = format!("{record:?}");
                format!("record {}", shown.split('(').next().unwrap())
            }
        });
    }
    all
}

fn method(broker: &mut Broker, key: ChannelKey, method: impl Into<Method>) -> Vec<String> {
    broker.handle(now(0), Input::Method(key, method.into(), None));
    out(broker)
}

fn declare(broker: &mut Broker, queue: &str, durable: bool) -> Vec<String> {
    let declare = QueueDeclare {
        queue: queue.into(),
        durable,
        ..QueueDeclare::default()
    };
    method(broker, ONE, declare)
}

fn publish_with(
    broker: &mut Broker,
    key: ChannelKey,
    routing_key: &str,
    body: &'static str,
    properties: &Properties,
) {
    let publish = BasicPublish {
        routing_key: routing_key.into(),
        mandatory: true,
        ..BasicPublish::default()
    };
    let content = Content {
        properties: properties.write(),
        body: Bytes::from_static(body.as_bytes()),
    };
    broker.handle(now(0), Input::Method(key, publish.into(), Some(content)));
}

fn publish(broker: &mut Broker, queue: &str, body: &'static str) {
    let properties = Properties {
        delivery_mode: Some(2),
        ..Properties::default()
    };
    publish_with(broker, ONE, queue, body, &properties);
}

fn consume(broker: &mut Broker, key: ChannelKey, queue: &str, no_ack: bool) -> Vec<String> {
    let consume = BasicConsume {
        queue: queue.into(),
        consumer_tag: "t".into(),
        no_ack,
        ..BasicConsume::default()
    };
    method(broker, key, consume)
}

#[test]
fn confirms_come_after_the_disk_and_together() {
    let mut broker = broker();
    let declared = declare(&mut broker, "q", true);
    assert_eq!(declared, ["record Queue", "declared, 0 wait"]);
    method(&mut broker, ONE, ConfirmSelect { nowait: true });
    for body in ["a", "b", "c", "d"] {
        publish(&mut broker, "q", body);
    }
    assert_eq!(
        out(&mut broker),
        ["store 0", "store 1", "store 2", "store 3"]
    );
    broker.handle(now(0), Input::Stored(QueueId(1), 2));
    assert_eq!(out(&mut broker), ["ack 3 true"]);
    broker.handle(now(0), Input::Stored(QueueId(1), 3));
    assert_eq!(out(&mut broker), ["ack 4 false"]);
}

#[test]
fn a_confirm_waits_for_the_disk_though_its_message_is_gone() {
    let mut broker = broker();
    declare(&mut broker, "q", true);
    method(&mut broker, ONE, ConfirmSelect { nowait: true });
    consume(&mut broker, TWO, "q", true);
    publish(&mut broker, "q", "a");
    let wanted = ["store 0", "2 basic.deliver a", "forget 0"];
    assert_eq!(out(&mut broker), wanted);
    // It says that acknowledgements before it on its channel are on disk, too.
    broker.handle(now(0), Input::Stored(QueueId(1), 0));
    assert_eq!(out(&mut broker), ["ack 1 false"]);
}

#[test]
fn words_bar_each_other() {
    let mut confirms = Confirms::new();
    for number in 1..=6 {
        assert_eq!(confirms.number(), number);
        confirms.expect(number, 1);
    }
    for number in [1, 2, 4, 6] {
        confirms.confirmed(number);
    }
    confirms.refused(3);
    let words = confirms.words(Planted::default());
    let shown: Vec<(WordKind, u64, bool)> = words
        .iter()
        .map(|word| (word.kind, word.number, word.multiple))
        .collect();
    // 5 is open, 3 refused: 1 and 2 go together, the others by themselves, as RabbitMQ's coalesce_and_send does.
    let wanted = [
        (WordKind::Ack, 2, true),
        (WordKind::Ack, 4, false),
        (WordKind::Ack, 6, false),
        (WordKind::Nack, 3, false),
    ];
    assert_eq!(shown, wanted);
}

#[test]
fn a_commit_is_done_when_all_is_on_disk() {
    let mut broker = broker();
    declare(&mut broker, "q", true);
    method(&mut broker, ONE, TxSelect {});
    publish(&mut broker, "q", "a");
    assert_eq!(out(&mut broker), [""; 0]);
    assert_eq!(method(&mut broker, ONE, TxCommit {}), ["store 0"]);
    broker.handle(now(0), Input::Stored(QueueId(1), 0));
    assert_eq!(out(&mut broker), ["1 tx.commit_ok"]);
}

#[test]
fn a_reply_goes_to_who_waits_for_it_and_to_nobody_after() {
    let mut broker = broker();
    declare(&mut broker, "rpc", false);
    assert_eq!(
        consume(&mut broker, ONE, "amq.rabbitmq.reply-to", true),
        ["1 basic.consume_ok"]
    );
    consume(&mut broker, TWO, "rpc", true);
    let ask = Properties {
        reply_to: Some("amq.rabbitmq.reply-to".into()),
        ..Properties::default()
    };
    publish_with(&mut broker, ONE, "rpc", "question", &ask);
    let asked = out(&mut broker);
    let (_, to) = asked[0].split_once("reply to ").unwrap();
    assert!(
        to.starts_with("amq.rabbitmq.reply-to.") && asked.len() == 1,
        "{asked:?}"
    );
    publish_with(&mut broker, TWO, to, "answer", &Properties::default());
    assert_eq!(out(&mut broker), ["1 basic.deliver answer"]);
    broker.handle(now(0), Input::CloseChannel(ONE));
    publish_with(&mut broker, TWO, to, "late", &Properties::default());
    assert_eq!(out(&mut broker), ["2 basic.return late"]);
    // Who has no such consumer cannot ask for an answer there.
    publish_with(&mut broker, TWO, "rpc", "question", &ask);
    let refused = "PRECONDITION_FAILED - fast reply consumer does not exist";
    assert_eq!(out(&mut broker), [refused]);
}

#[test]
fn rights_are_asked_for_with_rabbitmqs_words() {
    let mut broker = broker();
    let refused = declare(&mut broker, "secret", false);
    let text = "ACCESS_REFUSED - access to queue 'secret' in vhost '/' refused for user 'alice'";
    assert_eq!(refused, [text]);
}

#[test]
fn what_was_on_disk_is_there_again_in_order_and_said_to_be_old() {
    let mut broker = broker();
    let record = Record::Queue(
        QueueId(7),
        DurableQueue {
            name: "q".into(),
            auto_delete: false,
            arguments: Table::new(Vec::from([("x-max-priority".into(), Value::Int(3))])),
        },
    );
    broker.restore(now(0), record).unwrap();
    for position in [4, 9] {
        let content = Content {
            properties: Properties::default().write(),
            body: Bytes::from(format!("{position}").into_bytes()),
        };
        let name = ShortString::literal("q");
        let message = Message::new(&name, &name, content, &Properties::default()).unwrap();
        assert!(broker.restore_message(now(0), QueueId(7), position, &message.into()));
    }
    assert_eq!(
        declare(&mut broker, "other", true),
        ["record Queue", "declared, 0 wait"]
    );
    assert_eq!(broker.queue(&"other".into()).unwrap().0, QueueId(8));
    let got = consume(&mut broker, ONE, "q", true);
    assert_eq!(
        got,
        [
            "1 basic.consume_ok",
            "1 basic.deliver 4",
            "1 basic.deliver 9"
        ]
    );
    publish(&mut broker, "q", "new");
    assert_eq!(
        out(&mut broker),
        ["store 10", "1 basic.deliver new", "forget 10"]
    );
}

#[test]
fn a_queue_of_thousands_is_delivered_in_turns() {
    let mut broker = broker();
    declare(&mut broker, "q", false);
    for _ in 0..TURN_MAX + 10 {
        publish(&mut broker, "q", "x");
    }
    let consume = BasicConsume {
        queue: "q".into(),
        no_ack: true,
        nowait: true,
        ..BasicConsume::default()
    };
    broker.handle(now(0), Input::Method(ONE, consume.into(), None));
    assert_eq!(broker.outputs.len(), TURN_MAX);
    broker.outputs.clear();
    assert_eq!(out(&mut broker).len(), 10);
}

#[test]
fn a_client_that_does_not_read_gets_nothing_until_it_does() {
    let mut broker = broker();
    declare(&mut broker, "q", false);
    consume(&mut broker, TWO, "q", true);
    broker.handle(now(0), Input::Pause(TWO.connection));
    publish(&mut broker, "q", "a");
    assert_eq!(out(&mut broker), [""; 0]);
    broker.handle(now(0), Input::Resume(TWO.connection));
    assert_eq!(out(&mut broker), ["2 basic.deliver a"]);
}

#[test]
fn a_prefetch_of_the_channel_covers_all_its_consumers() {
    let mut broker = broker();
    declare(&mut broker, "q", false);
    let qos = BasicQos {
        prefetch_count: 1,
        global: true,
        ..BasicQos::default()
    };
    method(&mut broker, TWO, qos);
    consume(&mut broker, TWO, "q", false);
    publish(&mut broker, "q", "a");
    publish(&mut broker, "q", "b");
    assert_eq!(out(&mut broker), ["2 basic.deliver a"]);
    let ack = BasicAck {
        delivery_tag: 0,
        multiple: true,
    };
    assert_eq!(method(&mut broker, TWO, ack), ["2 basic.deliver b"]);
}

#[test]
fn a_long_chain_of_dead_letter_queues_costs_no_stack() {
    const CHAIN: usize = 300;
    let mut broker = broker();
    for at in 0..CHAIN {
        let next = format!("q{}", at + 1).into_bytes();
        let arguments = Table::new(Vec::from([
            ("x-max-length".into(), Value::Int(0)),
            ("x-dead-letter-exchange".into(), Value::literal("")),
            (
                "x-dead-letter-routing-key".into(),
                Value::String(next.into()),
            ),
        ]));
        let declare = QueueDeclare {
            queue: ShortString::cut(&format!("q{at}")),
            nowait: true,
            arguments,
            ..QueueDeclare::default()
        };
        broker.handle(now(0), Input::Method(ONE, declare.into(), None));
    }
    declare(&mut broker, &format!("q{CHAIN}"), false);
    // With a frame per queue this small stack would be over long before.
    let thread = std::thread::Builder::new().stack_size(128 * 1024);
    let end = thread.spawn(move || {
        publish_with(&mut broker, ONE, "q0", "far", &Properties::default());
        broker.depth(&ShortString::cut(&format!("q{CHAIN}")))
    });
    assert_eq!(end.unwrap().join().unwrap(), Some((1, 0, 0)));
}

#[test]
fn names_are_never_the_same() {
    let mut names = Names {
        key: [1, 2],
        count: 0,
    };
    let given: BTreeSet<ShortString> = (0..1000).map(|_| names.next("amq.gen")).collect();
    assert_eq!(given.len(), 1000);
    assert!(
        given
            .iter()
            .all(|name| name.as_bytes().len() == "amq.gen-".len() + 22)
    );
}
