//! `bench node`: what Mainstay itself needs on one machine: memory, and time until it serves.

use super::{
    dev::{self, Dev, Part},
    frame::{Extent, Run, median, short},
    load::Shape,
    machine,
};
use crate::tree;
use anyhow::{Context as _, Result, bail};
use mainstay_api::wire::{ServiceState, ServiceStatus, Status};
use mainstay_ids::Epoch;
use mainstay_model::Routing;
use mainstay_prove::load::Connections;
use mainstay_testkit::TempDir;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::NonZeroUsize,
    path::Path,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

/// The shop that comes with Mainstay.
const SHOP: &str = "examples/shop/shop.toml";
const RSS_MIB_MAX: f64 = 60.0;
const READY_MS_MAX: f64 = 1000.0;
const RESTART_MS_MAX: f64 = 1000.0;
/// What runs while the control centre is killed.
const RESTART_INSTANCES: u32 = 50;
/// Where it is seen that it publishes. It is followed by nobody who sends requests.
const ROUTES: &str = "/v1/watch/routes?name=bench&incarnation=1";
/// Requests per second: light, so that every process has had something to do.
const LIGHT_RATE: u32 = 100;
/// The client that waits for the first answer asks again after this.
const POLL: Duration = Duration::from_millis(1);
/// An entry that accepts and then says nothing is asked anew after this.
const ANSWER_DEADLINE: Duration = Duration::from_secs(1);
/// After this long it does not become ready.
const READY_DEADLINE: Duration = Duration::from_secs(30);

pub(crate) async fn run(run: &mut Run) -> Result<()> {
    let mainstay = dev::build(&["mainstay", "shop"])?;
    ready(run, &mainstay).await?;
    restart(run, &mainstay).await?;
    memory(run, &mainstay).await
}

/// From SIGKILL of the control centre until its successor publishes and knows that all instances are ready.
async fn restart(run: &mut Run, mainstay: &Path) -> Result<()> {
    let file = dev::service_file(RESTART_INSTANCES, Duration::ZERO, 1)?;
    let mut all = Vec::new();
    for number in 1..=run.extent.rounds() {
        // Anew each time: whoever is killed again and again is rightly made to wait longer.
        let dev = Dev::start(mainstay, &file, &[])?;
        dev.wait_steady().await;
        let before: Status = dev.client().get("/v1/status").await?;
        let server = dev.process(Part::Server)?;
        let start = Instant::now();
        kill_process(server, Signal::KILL).context("cannot kill the control centre")?;
        let took = timeout(READY_DEADLINE, published(&dev, before.generation.epoch))
            .await
            .context("it does not publish again")?
            .map(|()| start.elapsed().as_secs_f64() * 1000.0)?;
        run.say(format!(
            "round {number}: publishes again after {} ms",
            short(took)
        ));
        all.push(took);
    }
    run.raw("control_restart_50_ms", json!(all));
    run.at_most("control_restart_50_ms", median(all), RESTART_MS_MAX);
    Ok(())
}

/// Waits for routes of a later epoch with every instance, and for the status to call them ready.
async fn published(dev: &Dev, before: Epoch) -> Result<()> {
    let wanted = RESTART_INSTANCES as usize;
    loop {
        sleep(POLL).await;
        let Ok(mut routes) = dev.client().watch::<Routing>(ROUTES).await else {
            continue;
        };
        let Ok(Some(routing)) = routes.next().await else {
            continue;
        };
        let endpoints: usize = routing.services.iter().map(|one| one.endpoints.len()).sum();
        if routing.generation.epoch <= before || endpoints != wanted {
            continue;
        }
        let status: Status = dev.client().get("/v1/status").await?;
        let ready: u32 = status.services.iter().map(|service| service.ready).sum();
        let steady = |service: &ServiceStatus| service.state == ServiceState::Steady;
        if ready == RESTART_INSTANCES && status.services.iter().all(steady) {
            return Ok(());
        }
    }
}

/// From the start of the command until the first request is answered, with nothing there before.
async fn ready(run: &mut Run, mainstay: &Path) -> Result<()> {
    let file = dev::service_file(1, Duration::ZERO, 1)?;
    let mut all = Vec::new();
    for number in 1..=run.extent.rounds() {
        let start = Instant::now();
        let dev = Dev::start(mainstay, &file, &[])?;
        let took = first_answer(&dev, start).await?;
        run.say(format!(
            "round {number}: first 200 after {} ms",
            short(took)
        ));
        all.push(took);
    }
    run.raw("dev_ready_ms", json!(all));
    run.at_most("dev_ready_ms", median(all), READY_MS_MAX);
    Ok(())
}

async fn first_answer(dev: &Dev, start: Instant) -> Result<f64> {
    while start.elapsed() < READY_DEADLINE {
        if matches!(
            timeout(ANSWER_DEADLINE, is_served(dev.entry())).await,
            Ok(Ok(true))
        ) {
            return Ok(start.elapsed().as_secs_f64() * 1000.0);
        }
        sleep(POLL).await;
    }
    bail!(
        "no answer within {READY_DEADLINE:?}; it printed:\n{}",
        dev.log()
    )
}

async fn is_served(entry: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(entry).await?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200 "))
}

/// All of our own processes while the shop is used a little.
async fn memory(run: &mut Run, mainstay: &Path) -> Result<()> {
    let mut all = Vec::new();
    let mut parts = Value::Null;
    for number in 1..=run.extent.rounds() {
        let dir = TempDir::new("bench-shop");
        let shop = mainstay_testkit::service_file_in_reach(
            &tree::root().join(SHOP),
            mainstay,
            &dir.join("shop.toml"),
        )
        .context("cannot read the shop's service file")?;
        let dev = Dev::start_file(mainstay, dir, &shop, &[]);
        dev.wait_steady().await;
        let seen = shop_load(&dev)
            .await?
            .send(dev.entry(), light_duration(run.extent))
            .await?;
        if seen.failed > 0 || !seen.counts() {
            run.miss(format!(
                "the shop's light load failed in round {number}: {}",
                seen.kinds()
            ));
        }
        let by_part = memory_by_part(&dev)?;
        let sum: f64 = by_part.values().map(|(_, mib)| mib).sum();
        run.say(format!("round {number}: {} MiB", short(sum)));
        if number == run.extent.rounds() {
            show_parts(run, &by_part);
            parts = by_part
                .iter()
                .map(|(part, (count, mib))| json!({"part": format!("{part:?}"), "processes": count, "mib": mib}))
                .collect();
        }
        all.push(sum);
    }
    run.raw("dev_rss_mib", json!(all));
    run.raw("dev_rss_mib_last_round", parts);
    run.at_most("dev_rss_mib", median(all), RSS_MIB_MAX);
    Ok(())
}

/// A GET of what the entry reaches first, in the way in which the service is published.
async fn shop_load(dev: &Dev) -> Result<Shape> {
    let services = dev.services().await?;
    let published = services.iter().find_map(|service| service.http.as_deref());
    let published = published.context("no service of the shop is reached from outside")?;
    let (host, path) = published.split_once('/').unwrap_or((published, ""));
    let connections = Connections::Kept(NonZeroUsize::MIN);
    let mut shape = Shape::new(&[&format!("GET /{path}")], LIGHT_RATE, connections)?;
    if host != "*" {
        shape.host = Some(host.to_owned());
    }
    Ok(shape)
}

fn light_duration(extent: Extent) -> Duration {
    Duration::from_secs(extent.pick(5, 2))
}

/// How many processes play each part, and what they take in MiB.
fn memory_by_part(dev: &Dev) -> Result<BTreeMap<Part, (u32, f64)>> {
    let mut parts = BTreeMap::new();
    for (pid, part) in dev.processes()? {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 KiB")]
        let mib = machine::pss_kib(pid)? as f64 / 1024.0;
        let (count, sum) = parts.entry(part).or_insert((0, 0.0));
        *count += 1;
        *sum += mib;
    }
    Ok(parts)
}

fn show_parts(run: &Run, parts: &BTreeMap<Part, (u32, f64)>) {
    let mut rows = vec![["PSS", "processes", "MiB"].map(str::to_owned).to_vec()];
    for (part, (count, mib)) in parts {
        rows.push(vec![format!("{part:?}"), count.to_string(), short(*mib)]);
    }
    run.say("");
    run.table(&rows);
    run.say("");
}
