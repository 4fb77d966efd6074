//! What a user, an agent and a gateway see from a declaration to its end.

use std::error::Error as _;

use mainstay_api::wire::{Accepted, EventLine, GapReason, InstanceStatus, Scale, Status};
use mainstay_control::AcknowledgedDrain;
use mainstay_ids::Epoch;
use mainstay_model::{Event, EventKind, PlannedAction};
use mainstay_server::EarlierStop;
use mainstay_testkit::{TempDir, wait_until_async};

use crate::centre::{DEADLINE, Place, apply, problem, service, spec};
use crate::pretenders::{Agent, Gateway};

/// Waits until the pretenders have told so much more that anything they caused would have happened.
pub(crate) async fn let_them_talk(agent: &Agent, gateway: &Gateway) {
    let (reports, acks) = (agent.seen().reports + 5, gateway.acks() + 5);
    wait_until_async(
        DEADLINE,
        "five more reports and acknowledgements",
        async || {
            let (now_reports, now_acks) = (agent.seen().reports, gateway.acks());
            (now_reports >= reports && now_acks >= acks)
                .then_some(())
                .ok_or(format!(
                    "{now_reports} reports, {now_acks} acknowledgements"
                ))
        },
    )
    .await;
}

pub(crate) async fn endpoints(gateway: &Gateway, count: usize) -> Vec<String> {
    wait_until_async(DEADLINE, "the routes have their endpoints", async || {
        let endpoints = gateway.endpoints();
        if endpoints.len() == count {
            Ok(endpoints)
        } else {
            Err(format!("{endpoints:?}, not {count} of them"))
        }
    })
    .await
}

#[tokio::test]
async fn an_instance_is_told_to_stop_only_when_the_gateway_let_go_of_it() {
    let mut place = Place::new("lifecycle");
    let running = place.start();
    let client = place.client();
    let (agent, gateway) = (Agent::start(client.clone()), Gateway::start(client.clone()));

    apply(&client, vec![spec("orders", 2)])
        .await
        .expect("is accepted");
    let all = endpoints(&gateway, 2).await;
    let_them_talk(&agent, &gateway).await;

    gateway.hold();
    let scale = Scale { instances: 1 };
    let path = "/v1/services/orders/scale";
    client
        .post::<_, Accepted>(path, &scale)
        .await
        .expect("is accepted");
    let kept = endpoints(&gateway, 1).await.remove(0);
    let gone = all.iter().find(|id| **id != kept).expect("one of the two");
    gateway.set_busy(gone, 1);
    let_them_talk(&agent, &gateway).await;
    assert_eq!(
        agent.planned(PlannedAction::Stop),
        [""; 0],
        "nothing was acknowledged"
    );

    gateway.release();
    let_them_talk(&agent, &gateway).await;
    assert_eq!(
        agent.planned(PlannedAction::Stop),
        [""; 0],
        "a request is in flight"
    );
    assert_eq!(agent.planned(PlannedAction::Run).len(), 2);

    gateway.set_busy(gone, 0);
    wait_until_async(DEADLINE, "the instance is gone", async || {
        let instances: Vec<InstanceStatus> = client.get("/v1/instances").await.expect("answers");
        let ids: Vec<_> = instances
            .iter()
            .map(|status| status.instance.to_string())
            .collect();
        let (running, stopped) = agent.counts();
        (ids == [kept.clone()] && running == 1 && stopped == 0)
            .then_some(())
            .ok_or(format!("{ids:?}, {running} running, {stopped} stopped"))
    })
    .await;
    assert_eq!(agent.seen().wrong, [""; 0]);
    running.stop().await.expect("stops");
}

#[tokio::test]
async fn without_the_acknowledged_drain_it_is_told_to_stop_while_the_gateway_may_still_send() {
    let mut place = Place::new("unsafe");
    place.set_acknowledged_drain(AcknowledgedDrain::Off);
    let _running = place.start();
    let client = place.client();
    let (agent, gateway) = (Agent::start(client.clone()), Gateway::start(client.clone()));
    apply(&client, vec![spec("orders", 2)])
        .await
        .expect("is accepted");
    endpoints(&gateway, 2).await;
    gateway.hold();
    let scale = Scale { instances: 1 };
    let path = "/v1/services/orders/scale";
    client
        .post::<_, Accepted>(path, &scale)
        .await
        .expect("is accepted");
    wait_until_async(DEADLINE, "the instance is stopped", async || {
        let counts = agent.counts();
        (counts == (1, 0))
            .then_some(())
            .ok_or(format!("{counts:?}"))
    })
    .await;
}

#[tokio::test]
async fn the_events_tell_the_same_story_to_who_follows_and_to_who_asks_later() {
    let mut place = Place::new("events");
    let running = place.start();
    let client = place.client();
    let (_agent, gateway) = (Agent::start(client.clone()), Gateway::start(client.clone()));
    let mut followed = client
        .watch::<Event>("/v1/events?follow=true&service=orders")
        .await
        .expect("opens");

    let applied = apply(&client, vec![spec("orders", 1), spec("other", 1)])
        .await
        .expect("is accepted");
    endpoints(&gateway, 2).await;
    let mut seen = Vec::new();
    loop {
        let next = tokio::time::timeout(DEADLINE, followed.next())
            .await
            .expect("in time");
        let event = next.expect("goes on").expect("goes on");
        assert_eq!(
            event.service,
            Some(service("orders")),
            "only what was asked for"
        );
        let finished = matches!(event.kind, EventKind::RolloutFinished { .. });
        seen.push(event);
        if finished {
            break;
        }
    }
    assert!(seen.iter().all(|event| event.number > applied.event));
    let again = events(
        &client,
        &format!("/v1/events?after={}&service=orders", applied.event),
    )
    .await;
    assert_eq!(again[..seen.len()], seen);

    // Also after a kill, from the history; and numbers go on growing.
    wait_until_written(&place, seen.last().expect("is there")).await;
    running.kill();
    let _running = place.start();
    let past = events(&client, "/v1/events?service=orders").await;
    assert!(seen.iter().all(|event| past.contains(event)), "{past:#?}");
    let numbers: Vec<u64> = events(&client, "/v1/events")
        .await
        .iter()
        .map(|event| event.number)
        .collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
}

/// Waits until an event is in the history's files: it is no answer, and may come a little later.
async fn wait_until_written(place: &Place, event: &Event) {
    let written = serde_json::to_vec(event).expect("an event is JSON");
    let path = place.control().join("history/0000000000000001.segment");
    wait_until_async(DEADLINE, "the event is written", async || {
        let bytes = std::fs::read(&path).map_err(|error| error.to_string())?;
        let found = bytes.windows(written.len()).any(|window| window == written);
        found.then_some(()).ok_or("it is not there yet")?;
        Ok::<(), String>(())
    })
    .await;
}

pub(crate) async fn events(client: &mainstay_api::client::Client, path: &str) -> Vec<Event> {
    let mut stream = client.watch::<EventLine>(path).await.expect("opens");
    let mut events = Vec::new();
    while let Some(line) = stream.next().await.expect("goes on") {
        match line {
            EventLine::Event(event) => events.push(*event),
            // Their file is not synced: a kill may take the last ones, which is then told.
            EventLine::Gap { gap } => assert_eq!(gap.reason, GapReason::Forgotten),
        }
    }
    events
}

#[tokio::test]
async fn after_a_shutdown_nothing_runs_and_the_next_start_brings_it_back() {
    let mut place = Place::new("shutdown");
    let running = place.start();
    let client = place.client();
    let (agent, gateway) = (Agent::start(client.clone()), Gateway::start(client.clone()));
    apply(&client, vec![spec("orders", 2)])
        .await
        .expect("is accepted");
    let before = endpoints(&gateway, 2).await;

    client
        .post::<_, Accepted>("/v1/shutdown", &())
        .await
        .expect("is accepted");
    wait_until_async(DEADLINE, "nothing runs", async || {
        let status: Status = client.get("/v1/status").await.expect("answers");
        let instances: u32 = status.nodes.iter().map(|node| node.instances).sum();
        let running = agent.seen().running.len();
        assert_eq!(status.services.len(), 1, "the declaration stays");
        (instances == 0 && running == 0)
            .then_some(())
            .ok_or(format!("{instances}, {running}"))
    })
    .await;
    running.stop().await.expect("stops");

    // As the next supervisor does.
    place.earlier_stop = EarlierStop::IsOver;
    let _running = place.start();
    let after = endpoints(&gateway, 2).await;
    assert!(
        after.iter().all(|id| !before.contains(id)),
        "{after:?} are new ones"
    );
    assert_eq!(agent.seen().wrong, [""; 0]);
}

#[tokio::test]
async fn a_shutdown_goes_on_in_the_next_incarnation_and_starts_nothing() {
    let mut place = Place::new("shutdown-killed");
    let running = place.start();
    let client = place.client();
    let (agent, gateway) = (Agent::start(client.clone()), Gateway::start(client.clone()));
    apply(&client, vec![spec("orders", 2)])
        .await
        .expect("is accepted");
    endpoints(&gateway, 2).await;
    gateway.hold();
    client
        .post::<_, Accepted>("/v1/shutdown", &())
        .await
        .expect("is accepted");
    endpoints(&gateway, 0).await;
    running.kill();

    let _running = place.start();
    gateway.release();
    wait_until_async(DEADLINE, "nothing runs", async || {
        let instances: Vec<InstanceStatus> = client.get("/v1/instances").await.expect("answers");
        let running = agent.seen().running.len();
        (instances.is_empty() && running == 0)
            .then_some(())
            .ok_or(format!("{instances:?}, {running}"))
    })
    .await;
    let_them_talk(&agent, &gateway).await;
    assert_eq!(agent.planned(PlannedAction::Run), [""; 0]);
    let refused = problem(apply(&client, vec![spec("orders", 2)]).await);
    assert!(refused.message.contains("being stopped"), "{refused:?}");
    assert_eq!(agent.seen().wrong, [""; 0]);
}

#[tokio::test]
async fn after_the_loss_of_its_state_the_epoch_is_above_all_before() {
    let mut place = Place::new("lost");
    let client = place.client();
    for _ in 0..3 {
        let running = place.start();
        let status: Status = client.get("/v1/status").await.expect("answers");
        assert!(status.generation.epoch.0 <= 3);
        running.kill();
    }
    let control = place.state().join("control");
    let old = std::fs::read(control.join("state.db")).expect("is there");
    std::fs::remove_dir_all(&control).expect("is removed");
    let running = place.start();
    let status: Status = client.get("/v1/status").await.expect("answers");
    assert_eq!(status.generation.epoch, Epoch(4));
    running.kill();
    place.start().kill();

    // An old copy is put back.
    std::fs::write(control.join("state.db"), old).expect("is written");
    let _running = place.start();
    let status: Status = client.get("/v1/status").await.expect("answers");
    assert_eq!(status.generation.epoch, Epoch(6));
}

#[tokio::test]
async fn a_missing_state_is_not_begun_anew_while_there_are_instances() {
    let dir = TempDir::new("forgotten");
    let state = dir.join("state");
    let instance = state.join("run").join("orders-7");
    std::fs::create_dir_all(&instance).expect("is made");
    let mut place = Place::with_state(dir, &state);
    let refused = place.start().ended().await.expect_err("cannot start");
    let reason = refused.source().expect("has a reason").to_string();
    let file = state.join("control").join("state.db");
    for part in [&file, &state.join("run")] {
        assert!(reason.contains(&part.display().to_string()), "{reason}");
    }
    assert!(reason.contains("orders-7"), "{reason}");
    assert!(reason.contains("put the file back"), "{reason}");
    assert!(!file.exists(), "the next start must find it missing, too");

    std::fs::remove_dir(&instance).expect("is removed");
    let _running = place.start();
    let status = place.client().get::<Status>("/v1/status").await;
    status.expect("it begins with nothing");
}

/// As the last program without a database wrote it.
const STATE_FILE: &str = include_str!("state-format-1.json");

/// The services with the number of instances that is wanted, and the epoch.
async fn what_is_kept(place: &Place) -> (Vec<(String, u32)>, u64) {
    let status: Status = place.client().get("/v1/status").await.expect("answers");
    let services = status.services.iter();
    let services = services
        .map(|one| (one.service.to_string(), one.wanted))
        .collect();
    (services, status.generation.epoch.0)
}

#[tokio::test]
async fn a_state_file_of_before_is_taken_over_once_and_set_aside() {
    let dir = TempDir::new("legacy");
    let state = dir.join("state");
    let control = state.join("control");
    std::fs::create_dir_all(&control).expect("is made");
    let (file, aside) = (
        control.join("state.json"),
        control.join("state.json.taken-over"),
    );
    let mut place = Place::with_state(dir, &state);

    for (bad, word) in [
        (STATE_FILE[..STATE_FILE.len() - 9].to_owned(), "damaged"),
        (
            STATE_FILE.replacen("\"format\":1", "\"format\":2", 1),
            "format 2",
        ),
    ] {
        std::fs::write(&file, &bad).expect("writes");
        let refused = place.start().ended().await.expect_err("cannot start");
        let reason = refused.source().expect("has a reason").to_string();
        assert!(reason.contains(word), "{reason}");
        assert!(reason.contains(&file.display().to_string()), "{reason}");
        assert_eq!(std::fs::read_to_string(&file).expect("is left"), bad);
        assert!(!aside.exists());
    }

    std::fs::write(&file, STATE_FILE).expect("writes");
    let kept = vec![("orders".to_owned(), 2), ("payments".to_owned(), 1)];
    let running = place.start();
    let (services, first) = what_is_kept(&place).await;
    assert_eq!(services, kept);
    assert!(first > 1, "epoch {first} after the file's 1");
    running.kill();
    assert!(!file.exists());
    let set_aside = std::fs::read_to_string(&aside).expect("is kept");
    assert_eq!(set_aside, STATE_FILE);

    let running = place.start();
    assert_eq!(what_is_kept(&place).await, (kept.clone(), first + 1));
    running.kill();
    // As if the power had gone between the database and the new name: the database is newer.
    std::fs::write(&file, STATE_FILE).expect("writes");
    let _running = place.start();
    assert_eq!(what_is_kept(&place).await, (kept, first + 2));
    assert!(!file.exists());
}

#[tokio::test]
async fn hundreds_of_services_are_declared_at_once_and_survive_a_kill() {
    const MANY: usize = 300;
    let mut place = Place::new("many");
    let running = place.start();
    let services = (0..MANY).map(|n| spec(&format!("service-{n}"), 1));
    apply(&place.client(), services.collect())
        .await
        .expect("is accepted");
    running.kill();
    let _running = place.start();
    let (services, _) = what_is_kept(&place).await;
    assert_eq!(services.len(), MANY);
}
