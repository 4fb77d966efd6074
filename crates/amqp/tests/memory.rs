//! What messages that wait cost, by the kernel's account of this process: allocator and all.

use bytes::Bytes;
use mainstay_amqp::method::{BasicPublish, QueueDeclare};
use mainstay_amqp::{
    Broker, ChannelKey, ConnectionId, Content, Everything, Input, Now, Output, Properties, User,
    Work,
};
use mainstay_ids::{Instant, Timestamp};

const MESSAGES: usize = 100_000;
/// What is published between two syncs.
const BATCH: usize = 100;
/// What one of them may cost in memory, in bytes, when its body is on disk.
const COST_MAX: usize = 200;
const NOW: Now = Now {
    instant: Instant::START,
    wall: Timestamp(0),
};
const KEY: ChannelKey = ChannelKey {
    connection: ConnectionId(1),
    channel: 1,
};

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse::<usize>().ok()).expect("KiB") * 1024
}

/// Carries out what is to be stored, as a disk that is done at once.
fn settle(broker: &mut Broker) {
    while broker.work(NOW) == Work::More {}
    let mut through = None;
    while let Some(output) = broker.pop() {
        if let Output::Store(queue, position, _) = output {
            through = Some((queue, position));
        }
    }
    if let Some((queue, position)) = through {
        broker.handle(NOW, Input::Stored(queue, position));
    }
}

fn broker(budget: u64) -> Broker {
    let mut broker = Broker::new("/", [1, 2]);
    broker.set_budget(budget);
    let user = User {
        name: "guest".into(),
        rights: Box::new(Everything),
        hears_cancel: true,
    };
    broker.handle(NOW, Input::Opened(KEY.connection, user));
    broker.handle(NOW, Input::OpenChannel(KEY));
    let declare = QueueDeclare {
        queue: "bench-queue".into(),
        durable: true,
        ..QueueDeclare::default()
    };
    broker.handle(NOW, Input::Method(KEY, declare.into(), None));
    broker
}

fn fill(broker: &mut Broker) {
    let properties = Properties {
        content_type: Some("application/octet-stream".into()),
        delivery_mode: Some(2),
        ..Properties::default()
    };
    let properties = properties.write();
    for _ in 0..MESSAGES / BATCH {
        for _ in 0..BATCH {
            let publish = BasicPublish {
                routing_key: "bench-queue".into(),
                ..BasicPublish::default()
            };
            let content = Content {
                properties: properties.clone(),
                body: Bytes::from(vec![7; 1024]),
            };
            broker.handle(NOW, Input::Method(KEY, publish.into(), Some(content)));
        }
        settle(broker);
    }
    let waiting = broker.depth(&"bench-queue".into()).expect("declared").0;
    assert_eq!(waiting, MESSAGES);
}

#[test]
fn a_message_that_waits_on_disk_costs_two_hundred_bytes_at_most() {
    let before = resident();
    let mut lean = broker(1024 * 1024);
    fill(&mut lean);
    let cost = resident().saturating_sub(before) / MESSAGES;
    println!("{cost} bytes each, the budget included");
    assert!(cost <= COST_MAX, "{cost} bytes");
    assert!(lean.bodies_in_memory() <= 1024 * 1024);
    // Without a budget all bodies stay: the measure sees them.
    let before = resident();
    let mut ample = broker(u64::MAX);
    fill(&mut ample);
    let cost = resident().saturating_sub(before) / MESSAGES;
    assert!(cost > 1024, "{cost} bytes");
    // A budget that comes later is kept, too.
    ample.set_budget(0);
    assert_eq!(ample.bodies_in_memory(), 0);
}
