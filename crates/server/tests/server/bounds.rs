//! What callers that do not behave can cost.

use std::net::SocketAddr;

use mainstay_api::wire::{Accepted, Status};
use mainstay_ids::{Attempt, Generation, Incarnation, Timestamp};
use mainstay_model::{InstanceReport, NodePlan, NodeReport, Phase, ProbedHealth, Routing};
use tokio::net::UnixStream;

use crate::centre::{DEADLINE, Place, apply, node, spec};

#[tokio::test]
async fn three_hundred_idle_connections_keep_nobody_out() {
    let mut place = Place::new("idle");
    let _running = place.start();
    let client = place.client();
    client.get::<Status>("/v1/status").await.expect("answers");
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(UnixStream::connect(place.socket()).await.expect("connects"));
    }
    client
        .get::<Status>("/v1/status")
        .await
        .expect("still answers");
    place
        .tcp_client()
        .get::<Status>("/v1/status")
        .await
        .expect("on the port, too");
}

#[tokio::test]
async fn streams_are_bounded_and_a_closed_one_makes_room() {
    let mut place = Place::new("streams");
    let _running = place.start();
    let client = place.client();
    let path = "/v1/events?follow=true";
    let mut open = Vec::new();
    let refused = loop {
        match client.watch::<mainstay_model::Event>(path).await {
            Ok(stream) => open.push(stream),
            Err(error) => break error,
        }
        assert!(open.len() <= 64, "bounded");
    };
    assert!(
        matches!(refused, mainstay_api::client::Error::Refused(_)),
        "{refused:?}"
    );
    open.pop();
    mainstay_testkit::wait_until_async(DEADLINE, "there is room again", async || {
        let opened = client.watch::<mainstay_model::Event>(path).await;
        opened.map(drop).map_err(|error| format!("{error:?}"))
    })
    .await;
}

/// Changes of the routes while the watchers do not read.
const CHANGES: u64 = 400;
const WATCHERS: usize = 40;
const INSTANCES: u32 = 100;

#[tokio::test]
async fn a_watcher_that_does_not_read_costs_no_memory_and_then_gets_the_newest_state() {
    let mut place = Place::new("slow");
    let _running = place.start();
    let client = place.client();
    apply(&client, vec![spec("orders", INSTANCES)])
        .await
        .expect("is accepted");
    let plan = client.watch::<NodePlan>("/v1/watch/plan?node=local&incarnation=1");
    let plan = plan
        .await
        .expect("opens")
        .next()
        .await
        .expect("goes on")
        .expect("a plan");
    assert_eq!(plan.instances.len(), INSTANCES as usize);

    let mut watchers = Vec::new();
    let path = "/v1/watch/routes?name=gateway&incarnation=1";
    for _ in 0..WATCHERS {
        watchers.push(client.watch::<Routing>(path).await.expect("opens"));
    }
    let before = resident_bytes();
    for change in 0..CHANGES {
        let health = match change % 2 {
            0 => ProbedHealth::Passing,
            _ => ProbedHealth::Failing,
        };
        let report = report(&plan, health);
        client
            .post::<_, Accepted>("/v1/nodes/report", &report)
            .await
            .expect("is taken");
    }
    let grown = resident_bytes().saturating_sub(before);

    let mut line = 0;
    let newest = newest_generation(&client).await;
    for watcher in &mut watchers {
        let mut states = 0;
        loop {
            let next = tokio::time::timeout(DEADLINE, watcher.next())
                .await
                .expect("in time");
            let routing = next.expect("goes on").expect("goes on");
            states += 1;
            line = line.max(serde_json::to_vec(&routing).expect("JSON").len());
            if routing.generation == newest {
                break;
            }
        }
        assert!(states < CHANGES, "states were skipped, not kept");
    }
    let queued = line * usize::try_from(CHANGES).expect("small") * WATCHERS;
    println!("{line} bytes a state; memory grew by {grown}; kept states would be {queued}");
    assert!(grown < queued / 4, "{grown} of {queued}");
}

async fn newest_generation(client: &mainstay_api::client::Client) -> Generation {
    let status: Status = client.get("/v1/status").await.expect("answers");
    status.generation
}

fn report(plan: &NodePlan, health: ProbedHealth) -> NodeReport {
    let port = |number: u64| 20_000 + u16::try_from(number).expect("few");
    let instances = plan.instances.iter().map(|planned| InstanceReport {
        instance: planned.instance.clone(),
        version: planned.version,
        attempt: Attempt::FIRST,
        phase: Phase::Running {
            pid: 1,
            address: SocketAddr::from(([127, 0, 0, 1], port(planned.instance.number))),
            health,
            since: Timestamp(0),
        },
        last_exit: None,
        probe_failure: None,
        log_dropped: 0,
    });
    NodeReport {
        node: node(),
        incarnation: Incarnation(1),
        plan: Some(plan.generation),
        boot: None,
        instances: instances.collect(),
        capacity: None,
        happenings: Vec::new(),
    }
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: usize = kib.and_then(|kib| kib.parse().ok()).expect("a number");
    kib * 1024
}
