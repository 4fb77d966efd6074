//! SIGKILL of the control centre at any moment, as far as one process can play it: the runtime is
//! dropped with every task in it, and the next one starts from the same files.

use std::time::Duration;

use mainstay_api::client::Client;
use mainstay_api::wire::{Accepted, Scale, Status};
use mainstay_ids::Epoch;
use mainstay_testkit::wait_until_async;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::centre::{DEADLINE, Place, apply, spec};
use crate::pretenders::{Agent, Gateway};

#[tokio::test]
async fn whenever_it_is_killed_no_instance_is_lost_or_planned_twice_and_the_epoch_grows() {
    let mut place = Place::new("kill");
    let client = place.client();
    let (agent, gateway) = (Agent::start(client.clone()), Gateway::start(client.clone()));
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut epoch = Epoch(0);
    let mut wanted = None;

    for round in 0..40 {
        let running = place.start();
        let change = random.u32(1..=4);
        let moment = Duration::from_micros(random.u64(0..20_000));
        // Whatever of it gets through: an answered change must survive, another one may.
        let changed = tokio::time::timeout(moment, change_to(&client, round, change)).await;
        running.kill();

        let running = place.start();
        let status = status(&client).await;
        let kept = status.services.first().map(|service| service.wanted);
        match changed {
            Ok(()) => assert_eq!(kept, Some(change), "round {round}: was answered"),
            Err(_) => assert!(
                kept == wanted || kept == Some(change),
                "round {round}: {kept:?}, neither {wanted:?} nor {change}"
            ),
        }
        wanted = kept;
        assert!(
            status.generation.epoch > epoch,
            "round {round}: {:?}",
            status.generation
        );
        epoch = status.generation.epoch;
        running.kill();
    }

    let _running = place.start();
    change_to(&client, 99, 3).await;
    wait_until_async(DEADLINE, "three instances run and are routed", async || {
        let running = agent.seen().running.len();
        let endpoints = gateway.endpoints();
        (running == 3 && endpoints.len() == 3)
            .then_some(())
            .ok_or(format!("{running} running, routed {endpoints:?}"))
    })
    .await;
    assert_eq!(agent.seen().wrong, [""; 0], "seed {seed}");
    assert_eq!(gateway.wrong(), [""; 0], "seed {seed}");
}

async fn change_to(client: &Client, round: u32, instances: u32) {
    if round == 0 {
        apply(client, vec![spec("orders", instances)])
            .await
            .expect("is accepted");
        return;
    }
    let scale = Scale { instances };
    let path = "/v1/services/orders/scale";
    if client.post::<_, Accepted>(path, &scale).await.is_err() {
        apply(client, vec![spec("orders", instances)])
            .await
            .expect("is accepted");
    }
}

async fn status(client: &Client) -> Status {
    wait_until_async(DEADLINE, "the control centre answers", async || {
        client
            .get("/v1/status")
            .await
            .map_err(|error| format!("{error:?}"))
    })
    .await
}

#[tokio::test]
async fn after_a_restart_nothing_is_published_before_the_agent_has_reported() {
    let mut place = Place::new("silence");
    let client = place.client();
    let running = place.start();
    apply(&client, vec![spec("orders", 1)])
        .await
        .expect("is accepted");
    running.kill();

    let _running = place.start();
    let mut stream = UnixStream::connect(place.socket()).await.expect("connects");
    let request =
        "GET /v1/watch/routes?name=gateway&incarnation=1 HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("sends");
    let mut answer = String::new();
    // A state would come before the first pulse.
    read_until(&mut stream, &mut answer, "\r\n\r\n1\r\n\n\r\n").await;
    assert!(!answer.contains("generation"), "{answer}");
    let _agent = Agent::start(client);
    read_until(&mut stream, &mut answer, "\"endpoints\":[{").await;
}

async fn read_until(stream: &mut UnixStream, seen: &mut String, part: &str) {
    let reading = async {
        while !seen.contains(part) {
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).await.expect("reads");
            assert_ne!(count, 0, "ended without {part:?}: {seen}");
            seen.push_str(std::str::from_utf8(&bytes[..count]).expect("text"));
        }
    };
    let read = tokio::time::timeout(DEADLINE, reading).await;
    assert!(read.is_ok(), "no {part:?} in {seen}");
}

#[tokio::test]
async fn a_watch_goes_on_with_a_newer_generation_after_a_kill() {
    let mut place = Place::new("watch");
    let client = place.client();
    let (_agent, gateway) = (Agent::start(client.clone()), Gateway::start(client.clone()));
    let mut last = None;
    for _ in 0..3 {
        let running = place.start();
        last = Some(
            wait_until_async(DEADLINE, "a newer generation comes", async || {
                let generation = gateway.generation();
                (generation > last)
                    .then_some(generation)
                    .flatten()
                    .ok_or(format!("{generation:?}"))
            })
            .await,
        );
        running.kill();
    }
    assert_eq!(gateway.wrong(), [""; 0]);
}

#[tokio::test]
async fn told_to_stop_it_ends_its_watches_and_itself_within_seconds() {
    let mut place = Place::new("stop");
    let running = place.start();
    let client = place.client();
    let path = "/v1/watch/routes?name=gateway&incarnation=1";
    let mut watch = client
        .watch::<mainstay_model::Routing>(path)
        .await
        .expect("opens");
    let idle = tokio::net::UnixStream::connect(place.socket())
        .await
        .expect("connects");
    watch.next().await.expect("goes on").expect("a state");
    let start = tokio::time::Instant::now();
    running.stop().await.expect("stops");
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    while watch.next().await.expect("ends in order").is_some() {}
    drop(idle);
}
