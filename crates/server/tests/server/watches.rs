//! Watches and events as a reader with a bad connection sees them: cut anywhere and resumed, nothing
//! is missed and nothing comes twice. `SEED=N` repeats one run.

use std::collections::BTreeSet;

use fastrand::Rng;
use mainstay_api::client::Client;
use mainstay_api::wire::{Accepted, EventLine, Gap, GapReason, Scale, Status};
use mainstay_ids::{ConsumerId, Generation, Incarnation};
use mainstay_model::{Ack, NodePlan};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::centre::{DEADLINE, Place, apply, problem, spec};

fn seeded() -> Rng {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    Rng::with_seed(seed)
}

/// A change that makes a few events.
async fn scale(client: &Client, instances: u32) {
    let path = "/v1/services/orders/scale";
    let scaled = client.post::<_, Accepted>(path, &Scale { instances }).await;
    scaled.expect("is taken");
}

/// Opens `path`, reads up to `bytes` of the answer's body, but not beyond `lines` whole ones or what
/// there is, and breaks the connection off. Gives the lines that came whole, without the empty ones.
async fn cut<T: DeserializeOwned>(place: &Place, path: &str, bytes: usize, lines: usize) -> Vec<T> {
    let mut stream = UnixStream::connect(place.socket()).await.expect("connects");
    // HTTP/1.0: no chunks, the body ends with the connection.
    let request = format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sends");
    let mut answer = Vec::new();
    let body = loop {
        let mut part = [0; 64];
        let read = tokio::time::timeout(DEADLINE, stream.read(&mut part));
        let read = read.await.expect("in time").expect("reads");
        answer.extend_from_slice(&part[..read]);
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let body = head.map_or(&[][..], |at| &answer[at + 4..]);
        let whole = body.split(|byte| *byte == b'\n').count() - 1;
        // An empty line: there is nothing more to read.
        let pulse = body == b"\n" || body.ends_with(b"\n\n");
        if read == 0 || pulse || body.len() >= bytes || whole >= lines {
            break &body[..bytes.min(body.len())];
        }
    };
    let whole = body.iter().rposition(|byte| *byte == b'\n');
    let lines = whole.map_or(&[][..], |end| &body[..end]);
    let lines = lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    let lines = lines.map(|line| serde_json::from_slice(line).expect("a whole line"));
    lines.collect()
}

#[tokio::test]
async fn events_that_are_cut_anywhere_and_resumed_are_neither_missed_nor_repeated() {
    let mut rng = seeded();
    let mut place = Place::new("cut-events");
    let _running = place.start();
    let client = place.client();
    apply(&client, vec![spec("orders", 1)])
        .await
        .expect("is taken");
    let mut seen = Vec::new();
    let mut after = 0;
    for round in 0..60 {
        scale(&client, 1 + round % 3).await;
        let path = format!("/v1/events?after={after}&follow=true");
        for line in cut::<EventLine>(&place, &path, rng.usize(1..700), usize::MAX).await {
            let EventLine::Event(event) = line else {
                panic!("nothing is forgotten: {line:?}");
            };
            after = event.number;
            seen.push(event);
        }
    }
    let path = format!("/v1/events?after={after}");
    let mut rest = client.watch::<EventLine>(&path).await.expect("opens");
    while let Some(EventLine::Event(event)) = rest.next().await.expect("goes on") {
        seen.push(event);
    }
    let mut all = client
        .watch::<EventLine>("/v1/events")
        .await
        .expect("opens");
    let mut expected = Vec::new();
    while let Some(EventLine::Event(event)) = all.next().await.expect("goes on") {
        expected.push(event);
    }
    assert_eq!(seen, expected);
    assert!(seen.len() > 60, "{}", seen.len());
}

#[tokio::test]
async fn a_watch_that_is_cut_anywhere_and_resumed_sends_no_state_twice_and_ends_at_the_newest() {
    let mut rng = seeded();
    let mut place = Place::new("cut-states");
    let _running = place.start();
    let client = place.client();
    apply(&client, vec![spec("orders", 1)])
        .await
        .expect("is taken");
    let base = "/v1/watch/plan?node=local&incarnation=1";
    let mut after: Option<Generation> = None;
    for round in 0..60 {
        scale(&client, 1 + round % 3).await;
        let resumed = after.map(|after| format!("&after={after}"));
        let path = format!("{base}{}", resumed.unwrap_or_default());
        for plan in cut::<NodePlan>(&place, &path, rng.usize(1..2500), 1).await {
            assert!(after < Some(plan.generation), "{after:?} came again");
            after = Some(plan.generation);
        }
    }
    // What it does not have yet comes at once; what it has does not come.
    let mut whole = client.watch::<NodePlan>(base).await.expect("opens");
    let newest = whole.next().await.expect("goes on").expect("a plan");
    let path = format!("{base}&after={}", newest.generation);
    assert_eq!(
        cut::<NodePlan>(&place, &path, usize::MAX, 2).await,
        [],
        "two pulses"
    );
    let mut resumed = client.watch::<NodePlan>(&path).await.expect("opens");
    let (next, ()) = tokio::join!(resumed.next(), scale(&client, 9));
    let next = next.expect("goes on").expect("a plan");
    assert!(next.generation > newest.generation);
}

#[tokio::test]
async fn who_is_of_another_epoch_gets_the_newest_state_at_once() {
    let mut place = Place::new("epoch");
    let running = place.start();
    let client = place.client();
    apply(&client, vec![spec("orders", 1)])
        .await
        .expect("is taken");
    let base = "/v1/watch/plan?node=local&incarnation=1";
    let mut watch = client.watch::<NodePlan>(base).await.expect("opens");
    let before = watch.next().await.expect("goes on").expect("a plan");
    running.stop().await.expect("ends in order");
    let _running = place.start();
    let report = serde_json::json!({
        "node": "local", "incarnation": 1, "plan": null, "instances": []
    });
    let path = "/v1/nodes/report";
    client
        .post::<_, Accepted>(path, &report)
        .await
        .expect("is taken");
    for after in [before.generation.to_string(), "999.1".to_owned()] {
        let path = format!("{base}&after={after}");
        let mut watch = client.watch::<NodePlan>(&path).await.expect("opens");
        let plan = watch.next().await.expect("goes on").expect("a plan");
        assert!(plan.generation > before.generation);
    }
    let wrong = client.watch::<NodePlan>(&format!("{base}&after=3")).await;
    let refused = problem(wrong);
    assert!(refused.message.contains("EPOCH.REVISION"), "{refused:?}");
}

async fn first(client: &Client, path: &str) -> EventLine {
    let mut events = client.watch::<EventLine>(path).await.expect("opens");
    events.next().await.expect("goes on").expect("a line")
}

#[tokio::test]
async fn a_reader_that_was_away_too_long_is_told_what_it_missed() {
    let mut place = Place::new("gap");
    let running = place.start();
    let client = place.client();
    apply(&client, vec![spec("orders", 1)])
        .await
        .expect("is taken");
    for _ in 0..20 {
        scale(&client, 2).await;
        scale(&client, 1).await;
    }
    // As if those were so long ago that they were given up.
    running.stop().await.expect("ends in order");
    std::fs::remove_dir_all(place.state().join("control/history")).expect("is ours");
    let _running = place.start();
    scale(&client, 2).await;
    let accepted: Accepted = client
        .post("/v1/services/orders/scale", &Scale { instances: 2 })
        .await
        .expect("is taken");
    let newest = accepted.event;
    let EventLine::Event(oldest) = first(&client, "/v1/events").await else {
        panic!("without a number nothing is missing");
    };
    assert!(oldest.number > 20, "the oldest are no longer kept");
    let gap = Gap {
        from: 8,
        to: oldest.number - 1,
        reason: GapReason::Forgotten,
    };
    let told = first(&client, "/v1/events?after=7&follow=true").await;
    assert_eq!(told, EventLine::Gap { gap });
    let path = format!("/v1/events?after={}", gap.resume());
    assert_eq!(first(&client, &path).await, EventLine::Event(oldest));

    // Ahead of all that there is: those numbers are given anew, and the next one is not missed.
    let path = format!("/v1/events?after={}&follow=true", newest + 1000);
    let mut ahead = client.watch::<EventLine>(&path).await.expect("opens");
    let told = ahead.next().await.expect("goes on").expect("a line");
    let EventLine::Gap { gap } = told else {
        panic!("{told:?}");
    };
    assert_eq!(gap.reason, GapReason::Renumbered);
    assert_eq!((gap.resume(), gap.to), (newest, newest + 1000));
    scale(&client, 3).await;
    let next = ahead.next().await.expect("goes on").expect("a line");
    assert!(matches!(next, EventLine::Event(event) if event.number == newest + 1));
}

#[tokio::test]
async fn events_whose_file_was_lost_are_told_as_a_gap() {
    let mut place = Place::new("lost-events");
    let running = place.start();
    let client = place.client();
    apply(&client, vec![spec("orders", 3)])
        .await
        .expect("is taken");
    let accepted: Accepted = client
        .post("/v1/services/orders/scale", &Scale { instances: 2 })
        .await
        .expect("is taken");
    running.stop().await.expect("ends in order");
    let files = std::fs::read_dir(place.state().join("control")).expect("is there");
    for file in files.map(|file| file.expect("is readable").path()) {
        if file.ends_with("history") {
            std::fs::remove_dir_all(file).expect("is ours");
        }
    }
    let _running = place.start();
    let told = first(&client, "/v1/events?after=1&follow=true").await;
    let EventLine::Gap { gap } = told else {
        panic!("{told:?}");
    };
    assert_eq!((gap.from, gap.reason), (2, GapReason::Forgotten));
    assert!(gap.to > accepted.event, "{gap:?}");
}

#[tokio::test]
async fn an_acknowledgement_that_comes_again_or_late_changes_nothing() {
    let mut place = Place::new("acks");
    let _running = place.start();
    let client = place.client();
    apply(&client, vec![spec("orders", 1)])
        .await
        .expect("is taken");
    let report = serde_json::json!({
        "node": "local", "incarnation": 1, "plan": null, "instances": []
    });
    let path = "/v1/nodes/report";
    client
        .post::<_, Accepted>(path, &report)
        .await
        .expect("is taken");
    let status: Status = client.get("/v1/status").await.expect("answers");
    let ack = |generation| Ack {
        consumer: ConsumerId {
            name: "gateway".to_owned(),
            incarnation: Incarnation(1),
        },
        generation,
        in_flight: Vec::new(),
        unbound: Vec::new(),
    };
    let newest = Some(status.generation);
    let older = Some(Generation::first(status.generation.epoch));
    let mut events = BTreeSet::new();
    for generation in [newest, newest, older, None, newest] {
        let path = "/v1/consumers/ack";
        let accepted = client.post::<_, Accepted>(path, &ack(generation)).await;
        accepted.expect("is taken");
        let status: Status = client.get("/v1/status").await.expect("answers");
        assert_eq!(status.consumers.len(), 1);
        assert_eq!(status.consumers[0].acknowledged, newest, "{generation:?}");
        let last: Accepted = client.post(path, &ack(newest)).await.expect("is taken");
        events.insert(last.event);
    }
    assert_eq!(events.len(), 1, "it joined once, and nothing else happened");
}

#[tokio::test]
async fn an_idle_watch_shows_each_second_that_the_other_side_is_alive() {
    let mut place = Place::new("pulse");
    let _running = place.start();
    for path in [
        "/v1/events?follow=true&service=nobody",
        "/v1/watch/plan?node=local&incarnation=1",
    ] {
        let mut stream = UnixStream::connect(place.socket()).await.expect("connects");
        let request = format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sends");
        let mut answer = Vec::new();
        let pulses = async {
            let mut pulses = 0;
            while pulses < 3 {
                answer.push(stream.read_u8().await.expect("stays open"));
                let begun = answer.windows(4).any(|four| four == b"\r\n\r\n");
                pulses += usize::from(begun && answer.ends_with(b"\n\n"));
            }
        };
        tokio::time::timeout(DEADLINE, pulses)
            .await
            .expect("pulses");
    }
}
