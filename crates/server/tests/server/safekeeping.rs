//! Copies of the state, and their way back.

use std::fs;
use std::path::{Path, PathBuf};

use mainstay_api::client::Client;
use mainstay_api::wire::{Accepted, Backup, Scale, Status};
use mainstay_ids::{Epoch, InstanceId, NodeName};
use mainstay_server::{Restored, SafekeepingError};
use mainstay_testkit::{TempDir, wait_until_async};

use crate::centre::{DEADLINE, Place, apply, node, spec};
use crate::lifecycle::endpoints;
use crate::pretenders::{Agent, Gateway};

/// Has the running control centre make a copy.
async fn copy(client: &Client, state: &Path) -> PathBuf {
    let made: Backup = client.post("/v1/backup", &()).await.expect("is made");
    let file = state.join(&made.file);
    let bytes = fs::metadata(&file).expect("is there").len();
    assert_eq!(bytes, made.bytes);
    file
}

async fn scale(client: &Client, instances: u32) {
    let path = "/v1/services/orders/scale";
    let scaled = client.post::<_, Accepted>(path, &Scale { instances }).await;
    scaled.expect("is accepted");
}

async fn status(client: &Client) -> Status {
    client.get("/v1/status").await.expect("answers")
}

fn wanted(status: &Status) -> Vec<(String, u32)> {
    let services = status.services.iter();
    services
        .map(|one| (one.service.to_string(), one.wanted))
        .collect()
}

async fn restore(state: &Path, file: &Path) -> Result<Restored, SafekeepingError> {
    mainstay_server::restore(state, &node(), file).await
}

/// All files of the control centre's directory with their content.
fn content(state: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(state.join("control")).expect("is there");
    let files = entries.map(|entry| entry.expect("is read").path());
    let mut files: Vec<_> = files
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(&path).expect("is read")))
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn a_copy_made_while_writes_go_on_begins_anew_in_an_empty_directory() {
    let dir = TempDir::new("copied");
    let state = dir.join("state");
    let mut place = Place::with_state(dir, &state);
    let _running = place.start();
    let client = place.client();
    apply(&client, vec![spec("orders", 1)])
        .await
        .expect("is accepted");
    let writes = async {
        for instances in 2..=40 {
            scale(&client, instances).await;
        }
    };
    let (file, ()) = tokio::join!(copy(&client, &state), writes);

    let other = TempDir::new("elsewhere");
    let elsewhere = other.join("state");
    let restored = restore(&elsewhere, &file).await.expect("is restored");
    assert_eq!((restored.services, restored.kept), (1, None));
    let mut place = Place::with_state(other, &elsewhere);
    let _running = place.start();
    let client = place.client();
    // On another machine nobody knows the gateway of the first.
    let (agent, gateway) = (Agent::start(client.clone()), Gateway::start(client.clone()));
    scale(&client, 2).await;
    endpoints(&gateway, 2).await;
    assert_eq!(agent.seen().wrong, [""; 0]);
    assert_eq!(gateway.wrong(), [""; 0]);
}

#[tokio::test]
async fn restored_over_a_later_state_no_number_is_given_again_and_the_gateway_follows() {
    let dir = TempDir::new("restored");
    let state = dir.join("state");
    let mut place = Place::with_state(dir, &state);
    let running = place.start();
    let client = place.client();
    let (agent, gateway) = (Agent::start(client.clone()), Gateway::start(client.clone()));
    apply(&client, vec![spec("orders", 2)])
        .await
        .expect("is accepted");
    let early = endpoints(&gateway, 2).await;
    let file = copy(&client, &state).await;

    // Time goes by: more instances, another service, two more epochs.
    scale(&client, 4).await;
    let mut given = endpoints(&gateway, 4).await;
    apply(&client, vec![spec("payments", 1)])
        .await
        .expect("is accepted");
    given.extend(endpoints(&gateway, 5).await);
    running.kill();
    let running = place.start();
    endpoints(&gateway, 5).await;
    let before = status(&client).await.generation;
    let refused = restore(&state, &file).await.expect_err("it runs");
    assert!(
        matches!(refused, SafekeepingError::Running { .. }),
        "{refused:?}"
    );
    assert_eq!(wanted(&status(&client).await).len(), 2, "and goes on");
    running.kill();

    let restored = restore(&state, &file).await.expect("is restored");
    assert!(restored.epoch >= before.epoch);
    let kept = restored.kept.expect("the state before it is kept");
    assert!(kept.exists());
    let _running = place.start();
    // The gateway, which never went away, takes the restored state for newer.
    let routed = endpoints(&gateway, 2).await;
    assert_eq!(routed, early, "what still runs is kept");
    let now = status(&client).await;
    assert_eq!(wanted(&now), [("orders".to_owned(), 2)]);
    assert!(
        now.generation > before,
        "{:?} after {before:?}",
        now.generation
    );
    // New instances get numbers that nobody had.
    scale(&client, 3).await;
    let routed = endpoints(&gateway, 3).await;
    let new = routed.iter().filter(|id| !early.contains(id));
    for id in new {
        assert!(!given.contains(id), "{id} was given before");
    }
    apply(&client, vec![spec("payments", 1)])
        .await
        .expect("is accepted");
    wait_until_async(DEADLINE, "payments runs under a new number", async || {
        let routed = gateway.endpoints();
        let new = routed.iter().find(|id| *id == "payments-2");
        new.map(drop).ok_or(format!("{routed:?}"))
    })
    .await;
    assert_eq!(agent.seen().wrong, [""; 0]);
    assert_eq!(gateway.wrong(), [""; 0]);
}

#[tokio::test]
async fn without_the_state_of_now_the_gateways_routes_say_which_numbers_were_given() {
    let dir = TempDir::new("routes");
    let state = dir.join("state");
    let mut place = Place::with_state(dir, &state);
    let running = place.start();
    let client = place.client();
    apply(&client, vec![spec("orders", 2)])
        .await
        .expect("is accepted");
    let file = copy(&client, &state).await;
    running.kill();

    let elsewhere = TempDir::new("routes");
    let (gateway, run) = (elsewhere.join("gateway"), elsewhere.join("run"));
    fs::create_dir(&gateway).expect("is made");
    fs::create_dir_all(run.join("orders-17")).expect("is made");
    let stored = r#"{"format":1,"routing":{"generation":{"epoch":41,"revision":5},"services":[]}}"#;
    fs::write(gateway.join("routes.json"), stored).expect("writes");
    // What is damaged is kept, and not asked.
    fs::create_dir(elsewhere.join("control")).expect("is made");
    let damaged = elsewhere.join("control").join("state.db");
    fs::write(&damaged, "no database ".repeat(999)).expect("writes");
    let restored = restore(elsewhere.path(), &file).await.expect("is restored");
    assert_eq!(restored.epoch, Epoch(41));
    let kept = fs::read_to_string(restored.kept.expect("is kept")).expect("reads");
    assert!(kept.starts_with("no database"));

    let state = elsewhere.path().to_owned();
    let mut place = Place::with_state(elsewhere, &state);
    let _running = place.start();
    let client = place.client();
    assert_eq!(status(&client).await.generation.epoch, Epoch(42));
    let (agent, gateway) = (Agent::start(client.clone()), Gateway::start(client.clone()));
    scale(&client, 4).await;
    let routed = endpoints(&gateway, 4).await;
    let number = |id: &String| -> u64 {
        let id: InstanceId = id.parse().expect("is an instance");
        id.number
    };
    let numbers: Vec<u64> = routed.iter().map(number).collect();
    let new = numbers.iter().filter(|number| **number > 17).count();
    assert!(new >= 2, "{numbers:?}");
    assert!(
        numbers.iter().all(|number| *number <= 2 || *number > 17),
        "{numbers:?}"
    );
    assert_eq!(agent.seen().wrong, [""; 0]);
}

#[tokio::test]
async fn what_cannot_be_restored_is_refused_and_nothing_is_changed() {
    let dir = TempDir::new("refused");
    let state = dir.join("state");
    let mut place = Place::with_state(dir, &state);
    let running = place.start();
    let client = place.client();
    let services = (0..40).map(|n| spec(&format!("service-{n}"), 1));
    apply(&client, services.collect())
        .await
        .expect("is accepted");
    let good = fs::read(copy(&client, &state).await).expect("reads");
    running.stop().await.expect("stops");

    let scratch = TempDir::new("bad");
    let bad = scratch.join("bad.db");
    let before = content(&state);
    let mut edited = good.clone();
    let page = 2 * 4096;
    edited[page..page + 64].fill(0xa5);
    let cases: [(&str, &[u8]); 4] = [
        ("cut", &good[..good.len() / 2]),
        ("edited", &edited),
        ("no database", &b"no database ".repeat(999)),
        ("empty", b""),
    ];
    for (what, bytes) in cases {
        fs::write(&bad, bytes).expect("writes");
        let error = restore(&state, &bad).await.expect_err(what);
        assert!(error.to_string().contains("bad.db"), "{what}: {error}");
        assert_eq!(fs::read(&bad).expect("is there"), bytes, "{what}");
        assert!(content(&state) == before, "{what}: something was changed");
    }
    fs::write(&bad, &good).expect("writes");
    let other = NodeName::parse("other").expect("legal");
    let error = mainstay_server::restore(&state, &other, &bad).await;
    let error = error.expect_err("is of another node");
    assert!(matches!(error, SafekeepingError::Node { .. }), "{error:?}");
    assert!(content(&state) == before, "something was changed");

    let _running = place.start();
    assert_eq!(status(&client).await.services.len(), 40);
}

#[tokio::test]
async fn where_no_control_centre_runs_the_copy_comes_from_the_directory() {
    let dir = TempDir::new("offline");
    let state = dir.join("state");
    let target = dir.join("copy.db");
    let nothing = mainstay_server::backup(&state, &target).await;
    let nothing = nothing.expect_err("there is nothing");
    assert!(matches!(nothing, SafekeepingError::Nothing { .. }));
    let elsewhere = dir.join("elsewhere");
    let mut place = Place::with_state(dir, &state);
    let running = place.start();
    let client = place.client();
    apply(&client, vec![spec("orders", 2)])
        .await
        .expect("is accepted");
    let refused = mainstay_server::backup(&state, &target).await;
    let refused = refused.expect_err("it runs");
    assert!(matches!(refused, SafekeepingError::Running { .. }));
    running.kill();
    let bytes = mainstay_server::backup(&state, &target).await;
    assert!(bytes.expect("is copied") > 0);
    let restored = restore(&elsewhere, &target).await.expect("is restored");
    assert_eq!(restored.services, 1);
}
