//! `mainstay dev [FILE]`: everything on one machine, in the foreground.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use mainstay_api::client::{Client, Error};
use mainstay_api::wire::{Accepted, Applied, Apply, InstanceStatus, ServiceState, Status};
use mainstay_model::{Event, EventKind, ServiceSpec};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

use super::family::{Family, Settings};
use super::lock;
use super::record::Record;
use crate::arguments::{Dev, Place};
use crate::command::events::line;
use crate::command::status::has_deaf_address;
use crate::command::{API_SOCKET, or_dash, up};
use crate::outcome::{Failure, Outcome};
use crate::service_file;

/// How long the control centre may take from its start to its first answer: reading a state of a
/// few megabytes from a slow disk.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// How often an answer that is not there yet is asked for.
const POLL: Duration = Duration::from_millis(10);

/// How often the instances are counted while they stop.
const STOP_POLL: Duration = Duration::from_millis(100);

/// How long Ctrl-C waits for the instances: longer than the usual drain and grace. A second Ctrl-C
/// does not wait.
const STOP_DEADLINE: Duration = Duration::from_mins(2);

/// What an ordinary user must know; see `mainstay_agent` for what happens instead.
const NOT_ROOT: &str = "\
not root, so two things are switched off:
  no cgroups: what an instance leaves behind is found by its process group and its environment, and killed
  no other accounts: a service's `user` can only be yourself";

pub(crate) async fn run(place: &Place, dev: Dev) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let services = match &dev.file {
        Some(file) => Some(service_file::read(file, place)?),
        None => None,
    };
    let place = Place {
        state: absolute(place)?,
        json: place.json,
    };
    let lock = lock::take(&place.state)?;
    // Before anything is started: a Ctrl-C from now on ends what was.
    let mut stops = Stops::new()?;
    let settings = Settings::new(&place.state, &dev)?;
    let mut family = Family::adopt(settings, Record::load(&place.state)?.as_ref()).await?;
    if let Err(error) = family.start_missing() {
        family.stop().await?;
        return Err(error);
    }
    println!(
        "mainstay {} keeps {}",
        env!("CARGO_PKG_VERSION"),
        place.state.display()
    );
    if !rustix::process::geteuid().is_root() {
        println!("{NOT_ROOT}");
    }
    let front = Front {
        client: Client::unix(&place.state.join(API_SOCKET)),
        place,
        started,
    };
    let ended = tokio::select! {
        ended = front.run(services, &mut stops) => ended,
        kept = family.keep() => kept.map(|never| match never {}),
    };
    family.stop().await?;
    drop(lock);
    ended
}

/// The state directory as a path that does not depend on where a process runs.
fn absolute(place: &Place) -> anyhow::Result<PathBuf> {
    std::path::absolute(&place.state)
        .with_context(|| format!("`{}` is not a path", place.state.display()))
}

/// What the user sees: the steps, the addresses, the end.
struct Front {
    client: Client,
    place: Place,
    started: Instant,
}

impl Front {
    async fn run(
        &self,
        services: Option<Vec<ServiceSpec>>,
        stops: &mut Stops,
    ) -> anyhow::Result<Outcome> {
        tokio::select! {
            ended = self.show(services) => return ended,
            () = stops.next() => {}
        }
        println!("stopping: instances finish their requests first; Ctrl-C again ends them at once");
        tokio::select! {
            ended = self.stop_instances() => ended?,
            () = stops.next() => println!("not waiting any longer"),
        }
        Ok(Outcome::Holds)
    }

    /// Declares the services and prints what happens, for ever.
    async fn show(&self, services: Option<Vec<ServiceSpec>>) -> anyhow::Result<Outcome> {
        let status = self.first_status().await?;
        let mut after = 0;
        if let Some(services) = services {
            let apply = Apply {
                services,
                dry_run: false,
            };
            let applied: Applied = self.client.post("/v1/services", &apply).await?;
            up::print(&applied);
            after = applied.event;
        }
        for entry in &status.entry {
            println!("entry  http://{entry}");
        }
        let told = self.tell_when_ready();
        tokio::select! {
            ended = self.print_events(after) => ended,
            never = async { told.await; std::future::pending().await } => never,
        }
    }

    /// Waits for the control centre's first answer.
    async fn first_status(&self) -> anyhow::Result<Status> {
        loop {
            match self.client.get("/v1/status").await {
                Ok(status) => return Ok(status),
                Err(error) if error.is_transient() && self.started.elapsed() < START_DEADLINE => {
                    sleep(POLL).await;
                }
                Err(error) => {
                    let log = self.place.state.join("logs").join("server.log");
                    let message = format!("the control centre does not answer: {error}");
                    let remedy = format!("see `{}`", log.display());
                    return Err(Failure::new(Outcome::Failed, message).remedy(remedy).into());
                }
            }
        }
    }

    /// Prints each event, across restarts of the control centre.
    async fn print_events(&self, mut after: u64) -> anyhow::Result<Outcome> {
        loop {
            match self.print_events_once(&mut after).await {
                Ok(()) => {}
                Err(error) if error.is_transient() => {}
                Err(error) => return Err(error.into()),
            }
            sleep(STOP_POLL).await;
        }
    }

    async fn print_events_once(&self, after: &mut u64) -> Result<(), Error> {
        let path = format!("/v1/events?after={after}&follow=true");
        let mut events = self.client.watch::<Event>(&path).await?;
        while let Some(event) = events.next().await? {
            *after = event.number;
            if self.place.json {
                println!("{}", serde_json::json!(event));
            } else {
                println!("{}", line(&event));
                if let EventKind::RolloutPaused { .. } = event.kind {
                    println!(
                        "  help: `mainstay logs` tells what it wrote; it is tried again meanwhile"
                    );
                }
            }
        }
        Ok(())
    }

    /// Says once that everything is ready, or what is in the way.
    async fn tell_when_ready(&self) {
        let mut warned = BTreeSet::new();
        loop {
            sleep(STOP_POLL).await;
            let Ok(status) = self.client.get::<Status>("/v1/status").await else {
                continue;
            };
            let mut all = !status.services.is_empty();
            for service in &status.services {
                let deaf = has_deaf_address(&status, service);
                all &= service.state == ServiceState::Steady && !deaf;
                if deaf && warned.insert(service.service.clone()) {
                    let address = or_dash(service.address);
                    println!(
                        "warning: {} cannot be reached at {address}: another program listens there",
                        service.service
                    );
                }
            }
            if all {
                let (took, count) = (self.started.elapsed().as_millis(), status.services.len());
                println!("ready after {took} ms: {count} services, all as wanted");
                return;
            }
        }
    }

    /// Drains and stops every instance; what was declared is kept for the next start.
    async fn stop_instances(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        let asked: Result<Accepted, Error> = self.client.post("/v1/shutdown", &()).await;
        asked.context("cannot ask for the stop")?;
        let mut left_before = usize::MAX;
        while began.elapsed() < STOP_DEADLINE {
            match self
                .client
                .get::<Vec<InstanceStatus>>("/v1/instances")
                .await
            {
                Ok(left) if left.is_empty() => return Ok(()),
                Ok(left) => {
                    if left.len() < left_before {
                        left_before = left.len();
                        println!("{left_before} instances left");
                    }
                }
                Err(error) if error.is_transient() => {}
                Err(error) => return Err(error.into()),
            }
            sleep(STOP_POLL).await;
        }
        println!(
            "some instances did not stop within {} s",
            STOP_DEADLINE.as_secs()
        );
        Ok(())
    }
}

/// The wishes to stop: Ctrl-C and SIGTERM.
struct Stops {
    interrupt: Signal,
    terminate: Signal,
}

impl Stops {
    fn new() -> anyhow::Result<Self> {
        let interrupt = signal(SignalKind::interrupt()).context("cannot await Ctrl-C")?;
        let terminate = signal(SignalKind::terminate()).context("cannot await SIGTERM")?;
        Ok(Self {
            interrupt,
            terminate,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
