//! A disk without room.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use mainstay_api::client::{Client, Error as ClientError};
use mainstay_api::wire::{Accepted, ProblemCode, Scale, ServiceStatus};
use mainstay_model::PlannedAction;
use mainstay_testkit::{TempDir, is_root, program, skip, wait_until_async};

use crate::centre::{DEADLINE, Place, Running, apply, problem, spec};
use crate::lifecycle::{endpoints, let_them_talk};
use crate::pretenders::{Agent, Gateway};

/// A file system of 4 MiB of its own.
struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    fn mount() -> Self {
        let dir = TempDir::new("small-disk");
        let mount = Command::new(program("mount"))
            .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
            .arg(dir.path())
            .status();
        assert!(mount.expect("mount is there").success());
        Self { dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn fill(&self) {
        let mut file = File::create(self.path().join("filler")).expect("creates");
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.path().join("filler")).expect("removes");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let ended = Command::new(program("umount"))
            .arg(self.dir.path())
            .status();
        if !ended.is_ok_and(|status| status.success()) {
            eprintln!("cannot unmount {}", self.dir.path().display());
        }
    }
}

/// Two instances behind a gateway, with the state on a small disk.
struct Shop {
    agent: Agent,
    gateway: Gateway,
    client: Client,
    running: Running,
    place: Place,
    disk: SmallDisk,
}

async fn shop() -> Shop {
    let disk = SmallDisk::mount();
    let mut place = Place::with_state(TempDir::new("full"), disk.path());
    let running = place.start();
    let client = place.client();
    let shop = Shop {
        agent: Agent::start(client.clone()),
        gateway: Gateway::start(client.clone()),
        client,
        running,
        place,
        disk,
    };
    let declared = apply(&shop.client, vec![spec("orders", 2)]).await;
    declared.expect("is accepted");
    endpoints(&shop.gateway, 2).await;
    shop
}

#[tokio::test]
async fn on_a_full_disk_wishes_are_refused_and_the_routes_follow_what_happens() {
    if !is_root() {
        return skip("needs root: mounts a small disk");
    }
    let shop = shop().await;
    let Shop {
        agent,
        gateway,
        client,
        ..
    } = &shop;
    let mut routed = gateway.endpoints();

    shop.disk.fill();
    let refused = problem(scale(client, 5).await);
    assert_eq!(refused.code, ProblemCode::StorageFull);
    assert!(refused.message.contains("state.db"), "{refused:?}");
    assert!(refused.message.contains("No space left"), "{refused:?}");
    let refused = problem(apply(client, vec![spec("payments", 1)]).await);
    assert_eq!(refused.code, ProblemCode::StorageFull);
    assert_eq!(wanted(client).await, [2], "nothing of it is left");
    assert_eq!(agent.planned(PlannedAction::Run).len(), 2);

    let lost = agent.lose();
    routed.retain(|id| *id != lost);
    assert_eq!(endpoints(gateway, 1).await, routed);
    agent.find();
    endpoints(gateway, 2).await;

    shop.disk.make_room();
    wait_until_async(DEADLINE, "wishes are taken again", async || {
        let scaled = scale(client, 3).await;
        scaled.map_err(|error| format!("{error:?}"))
    })
    .await;
    endpoints(gateway, 3).await;
    assert_eq!(agent.seen().wrong, [""; 0]);
}

#[tokio::test]
async fn on_a_full_disk_a_plan_waits_and_a_restart_waits_and_nothing_is_lost() {
    if !is_root() {
        return skip("needs root: mounts a small disk");
    }
    let mut shop = shop().await;
    let Shop {
        agent,
        gateway,
        client,
        ..
    } = &shop;
    gateway.hold();
    scale(client, 1).await.expect("is accepted");
    endpoints(gateway, 1).await;
    shop.disk.fill();
    problem(scale(client, 4).await);
    gateway.release();
    let_them_talk(agent, gateway).await;
    assert_eq!(agent.counts(), (2, 0), "the order to stop is not durable");
    shop.disk.make_room();
    wait_until_async(DEADLINE, "the drained instance is stopped", async || {
        let counts = agent.counts();
        (counts == (1, 0))
            .then_some(())
            .ok_or(format!("{counts:?}"))
    })
    .await;

    shop.disk.fill();
    problem(scale(client, 4).await);
    shop.running.kill();
    // Without room the new epoch cannot be made durable, and nothing may be published before.
    let error = shop.place.start().ended().await.expect_err("cannot start");
    let chain = chain_of(&error);
    assert!(
        chain.iter().any(|cause| cause.contains("No space left")),
        "{chain:?}"
    );

    shop.disk.make_room();
    shop.running = shop.place.start();
    assert_eq!(wanted(&shop.client).await, [1]);
    endpoints(&shop.gateway, 1).await;
    assert_eq!(shop.agent.seen().wrong, [""; 0]);
}

async fn scale(client: &Client, instances: u32) -> Result<Accepted, ClientError> {
    let scale = Scale { instances };
    client.post("/v1/services/orders/scale", &scale).await
}

async fn wanted(client: &Client) -> Vec<u32> {
    let services: Vec<ServiceStatus> = client.get("/v1/services").await.expect("answers");
    services.iter().map(|service| service.wanted).collect()
}

/// The messages of an error and its causes.
fn chain_of(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect()
}
