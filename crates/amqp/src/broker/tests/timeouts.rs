//! Who keeps a delivery for too long.

use super::*;
use crate::limits::CONSUMER_TIMEOUT;

const TEXT: &str = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 1000 ms. \
                    This timeout value can be configured, see consumers doc guide to learn more";

fn work(broker: &mut Broker, ms: u64) -> Vec<String> {
    while broker.work(now(ms)) == Work::More {}
    out(broker)
}

fn prepared() -> Broker {
    let mut broker = broker();
    broker.set_consumer_timeout(Some(Duration::from_secs(1)));
    declare(&mut broker, "q", false);
    consume(&mut broker, TWO, "q", false);
    publish(&mut broker, "q", "a");
    assert_eq!(out(&mut broker), ["2 basic.deliver a"]);
    broker
}

#[test]
fn a_delivery_that_is_kept_too_long_costs_its_channel_and_comes_back() {
    let mut broker = prepared();
    assert_eq!(broker.deadline(), now(1000).instant);
    assert_eq!(work(&mut broker, 999), [""; 0]);
    assert_eq!(work(&mut broker, 1000), [TEXT]);
    assert_eq!(broker.depth(&"q".into()), Some((1, 0, 0)));
    assert_eq!(broker.deadline(), Instant::NEVER);
}

#[test]
fn who_acknowledges_in_time_is_looked_at_and_left_alone() {
    let mut broker = prepared();
    let ack = BasicAck {
        delivery_tag: 1,
        multiple: false,
    };
    broker.handle(now(900), Input::Method(TWO, ack.into(), None));
    // The next one came later, and has its own time.
    let content = Content {
        properties: Properties::default().write(),
        body: Bytes::from_static(b"b"),
    };
    let second = BasicPublish {
        routing_key: "q".into(),
        ..BasicPublish::default()
    };
    broker.handle(now(950), Input::Method(ONE, second.into(), Some(content)));
    assert_eq!(work(&mut broker, 1000), ["2 basic.deliver b"]);
    assert_eq!(broker.deadline(), now(1950).instant);
    assert_eq!(work(&mut broker, 1950), [TEXT]);
}

#[test]
fn it_is_half_an_hour_unless_somebody_says_otherwise_and_may_be_for_ever() {
    let mut broker = broker();
    declare(&mut broker, "q", false);
    consume(&mut broker, TWO, "q", false);
    publish(&mut broker, "q", "a");
    assert_eq!(broker.deadline(), Instant::START.after(CONSUMER_TIMEOUT));
    broker.handle(now(0), Input::CloseChannel(TWO));
    assert_eq!(broker.deadline(), Instant::NEVER);
    let mut broker = prepared();
    broker.set_consumer_timeout(None);
    assert_eq!(work(&mut broker, 1_000_000), [""; 0]);
    assert_eq!(broker.depth(&"q".into()), Some((0, 1, 1)));
}
