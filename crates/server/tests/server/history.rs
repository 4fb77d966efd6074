//! What people who look back are told: more than memory holds, and what is missing.

use std::fs;

use mainstay_api::client::Client;
use mainstay_api::wire::{Accepted, EventLine, Gap, GapReason, Scale};
use mainstay_model::{Event, EventKind};

use crate::centre::{Place, apply, spec};
use crate::lifecycle::{endpoints, events};
use crate::pretenders::{Agent, Gateway};

async fn scale(client: &Client, instances: u32) -> u64 {
    let scale = Scale { instances };
    let path = "/v1/services/orders/scale";
    let accepted = client.post::<_, Accepted>(path, &scale).await;
    accepted.expect("is accepted").event
}

fn numbers(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.number).collect()
}

#[tokio::test]
async fn events_that_memory_no_longer_has_are_read_from_the_disk_without_a_gap() {
    let mut place = Place::new("history");
    let running = place.start();
    let client = place.client();
    let agent = Agent::start(client.clone());
    apply(&client, vec![spec("orders", 1)])
        .await
        .expect("is accepted");
    let mut last = 0;
    for turn in 0.. {
        last = scale(&client, 1 + turn % 2).await;
        if last > 2500 {
            break;
        }
    }
    drop(agent);
    for path in ["/v1/events", "/v1/events?after=3", "/v1/events?after=1499"] {
        let after = path
            .split_once('=')
            .map_or(0, |(_, after)| after.parse().expect("a number"));
        let seen = numbers(&events(&client, path).await);
        assert!(seen.last().is_some_and(|seen| *seen >= last), "{path}");
        let expected: Vec<u64> = (after + 1..=*seen.last().expect("is there")).collect();
        assert_eq!(seen, expected, "{path}");
    }
    // Filters reach as far back.
    let all = events(&client, "/v1/events").await;
    let scaled = all
        .iter()
        .filter(|event| matches!(event.kind, EventKind::Accepted { .. }));
    let first = scaled.min_by_key(|event| event.number).expect("is there");
    let of_service = events(&client, "/v1/events?service=orders").await;
    assert_eq!(of_service.first(), Some(first));
    let middle = &all[all.len() / 3];
    let since = events(&client, &format!("/v1/events?since={}", middle.at.0)).await;
    let expected: Vec<&Event> = all
        .iter()
        .skip_while(|event| event.at < middle.at)
        .collect();
    assert_eq!(
        since.iter().take(expected.len()).collect::<Vec<_>>(),
        expected
    );

    running.stop().await.expect("stops");
    let _running = place.start();
    let again = events(&client, "/v1/events").await;
    assert_eq!(again[..all.len()], all);
}

#[tokio::test]
async fn events_are_found_by_their_instance() {
    let mut place = Place::new("by-instance");
    let _running = place.start();
    let client = place.client();
    let (_agent, gateway) = (Agent::start(client.clone()), Gateway::start(client.clone()));
    apply(&client, vec![spec("orders", 2)])
        .await
        .expect("is accepted");
    let instance = endpoints(&gateway, 2).await.remove(0);
    let all = events(&client, "/v1/events").await;
    let of_instance = events(&client, &format!("/v1/events?instance={instance}")).await;
    let speaks = |event: &&Event| {
        let of = event.kind.instance();
        of.is_some_and(|of| of.to_string() == instance)
    };
    let expected: Vec<&Event> = all.iter().filter(speaks).collect();
    assert!(expected.len() > 1, "{all:#?}");
    assert_eq!(
        of_instance[..expected.len()].iter().collect::<Vec<_>>(),
        expected
    );
}

#[tokio::test]
async fn a_damaged_history_is_set_aside_and_who_reads_is_told_what_is_missing() {
    let mut place = Place::new("damaged-history");
    let running = place.start();
    let client = place.client();
    apply(&client, vec![spec("orders", 1)])
        .await
        .expect("is accepted");
    running.stop().await.expect("stops");
    // What is written now says that what was written before is durable.
    let running = place.start();
    let last = scale(&client, 2).await;
    running.stop().await.expect("stops");

    let control = place.control();
    let segment = control.join("history/0000000000000001.segment");
    let mut bytes = fs::read(&segment).expect("is there");
    bytes[50] ^= 1;
    fs::write(&segment, &bytes).expect("writes");
    let _running = place.start();
    scale(&client, 3).await;
    let mut seen = client
        .watch::<EventLine>("/v1/events?after=0")
        .await
        .expect("opens");
    let told = seen.next().await.expect("goes on").expect("a line");
    let EventLine::Gap { gap } = told else {
        panic!("{told:?}");
    };
    let Gap { from, to, reason } = gap;
    assert_eq!((from, reason), (1, GapReason::Forgotten));
    assert!(to >= last, "{gap:?}");
    let rest = events(&client, "/v1/events").await;
    let expected: Vec<u64> = (to + 1..=to + rest.len() as u64).collect();
    assert_eq!(numbers(&rest), expected);
    let aside = control.join("history.aside-1/0000000000000001.segment");
    assert_eq!(fs::read(aside).expect("is kept"), bytes);
}
