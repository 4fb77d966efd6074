//! `mainstay dev [FILE]`: everything on one machine, in the foreground.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use mainstay_agent::Leftovers;
use mainstay_api::client::{Client, Error};
use mainstay_api::wire::{
    Accepted, Applied, Apply, EventLine, InstanceStatus, ServiceState, Status,
};
use mainstay_kernel::signals::{self, Signal as Number};
use mainstay_model::{EventKind, ServiceSpec};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};

use super::family::{Family, Settings};
use super::lock;
use super::record::Record;
use crate::arguments::{Dev, Place};
use crate::command::events::{Position, ago, line};
use crate::command::status::has_deaf_address;
use crate::command::{API_SOCKET, or_dash, tell_notes, up};
use crate::outcome::{Failure, Outcome};
use crate::output;
use crate::service_file;

/// How long the control centre may take from its start to its first answer: reading a state of a
/// few megabytes from a slow disk.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// How often an answer that is not there yet is asked for.
const POLL: Duration = Duration::from_millis(10);

/// How far back the events go that are shown first where nothing is declared.
const PAST_SHOWN: Duration = Duration::from_hours(1);

/// How often the instances are counted while they stop.
const STOP_POLL: Duration = Duration::from_millis(100);

/// How long Ctrl-C waits for the instances: longer than the usual drain and grace. A second Ctrl-C
/// does not wait.
const STOP_DEADLINE: Duration = Duration::from_mins(2);

/// How long Ctrl-C waits for the control centre's answer: for one that was just killed it takes some
/// hundred milliseconds, and who does not answer then cannot be asked for a drain.
const STOP_ANSWER_DEADLINE: Duration = Duration::from_secs(3);

/// After this, whoever waits is told for what.
const STOP_ANSWER_USUAL: Duration = Duration::from_millis(500);

/// What an ordinary user must know; see `mainstay_agent` for what happens instead.
const NOT_ROOT: &str = "\
not root, so two things are switched off:
  no cgroups: what an instance leaves behind is found by its process group and its environment, and killed;
    a service with `limits` is not started
  no other accounts: a service's `user` can only be yourself";
/// How long instances may take to end when they are killed. It takes some milliseconds; who takes
/// longer sleeps in the kernel.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

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
    // Known from now on, whatever becomes of the directory.
    let leftovers = Leftovers::of(&place.state).context("cannot use the state directory")?;
    // Before anything is started: a Ctrl-C from now on ends what was.
    let mut stops = Stops::new()?;
    let settings = Settings::new(&place.state, &dev)?;
    let mut family = Family::adopt(settings, Record::load(&place.state)?.as_ref()).await?;
    if let Err(error) = family.start_missing() {
        family.stop().await?;
        return Err(error);
    }
    let front = Front {
        client: Client::unix(&place.state.join(API_SOCKET)),
        place,
        started,
    };
    front.say(format_args!(
        "mainstay {} keeps {}",
        env!("CARGO_PKG_VERSION"),
        front.place.state.display()
    ));
    if !rustix::process::geteuid().is_root() {
        front.say(NOT_ROOT);
    }
    let (ended, rest) = tokio::select! {
        ended = front.run(services, &mut stops) => ended,
        kept = family.keep() => (kept.map(|never| match never {}), Rest::GoesOn),
    };
    // Nobody starts instances after this.
    let stopped = family.stop().await;
    if rest == Rest::Ends {
        end_leftovers(leftovers).await?;
        front.say("stopped");
    } else {
        output::warn("instances that run go on; the next `mainstay dev` here adopts them");
    }
    drop(lock);
    stopped.and(ended)
}

/// What becomes of instances that still run when the supervisor ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// Somebody asked for the end: nothing may be left behind.
    Ends,
    /// We failed: that is no reason to end what others may still use.
    GoesOn,
}

/// Ends what did not stop: instances that were not waited for, or could not be asked.
async fn end_leftovers(leftovers: Leftovers) -> anyhow::Result<()> {
    let ended = tokio::task::spawn_blocking(move || leftovers.end(KILL_DEADLINE)).await;
    let ended = ended.context("the end of the instances failed")?;
    let count = ended.context("cannot end the instances that are left")?;
    if count > 0 {
        output::warn("what was left of the instances was killed");
    }
    Ok(())
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
    ) -> (anyhow::Result<Outcome>, Rest) {
        let ended = tokio::select! {
            ended = self.show(services) => ended,
            () = stops.next() => Ok(Outcome::Holds),
        };
        if let Err(error) = &ended
            && !is_refused(error)
        {
            return (ended, Rest::GoesOn);
        }
        self.say("stopping: instances finish their requests first; Ctrl-C again ends them at once");
        tokio::select! {
            () = self.stop_instances() => {}
            () = stops.next() => self.say("not waiting any longer"),
        }
        (ended, Rest::Ends)
    }

    /// A line for people; with `--json` standard output is for programs.
    fn say(&self, text: impl std::fmt::Display) {
        if self.place.json {
            output::warn(text);
        } else {
            output::tell(text);
        }
    }

    /// Declares the services and prints what happens, for ever.
    async fn show(&self, services: Option<Vec<ServiceSpec>>) -> anyhow::Result<Outcome> {
        let status = self.first_status().await?;
        // Without a declaration, to see where it stands; `mainstay events` has what is older.
        let since = ago(PAST_SHOWN);
        let mut position = Position { after: None, since };
        if let Some(services) = services {
            let apply = Apply {
                services,
                dry_run: false,
            };
            let applied: Result<Applied, Error> = self.client.post("/v1/services", &apply).await;
            if let Err(Error::Refused(_)) = applied {
                output::warn("`mainstay dev` without a file keeps what was declared before");
            }
            let applied = applied?;
            up::changes(&applied).for_each(|change| self.say(change));
            tell_notes(&applied.notes);
            position.after = Some(applied.event);
        }
        for entry in &status.entry {
            self.say(format_args!("entry  http://{entry}"));
        }
        if let Some(stats) = status.stats {
            self.say(format_args!("stats  http://{stats}/stats"));
        }
        let told = self.tell_when_ready();
        tokio::select! {
            ended = self.print_events(position) => ended,
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
    async fn print_events(&self, mut position: Position) -> anyhow::Result<Outcome> {
        loop {
            match self.print_events_once(&mut position).await {
                Ok(()) => {}
                Err(error) if error.is_transient() => {}
                Err(error) => return Err(error.into()),
            }
            sleep(STOP_POLL).await;
        }
    }

    async fn print_events_once(&self, position: &mut Position) -> Result<(), Error> {
        let path = format!("/v1/events?follow=true{position}");
        let mut events = self.client.watch::<EventLine>(&path).await?;
        while let Some(told) = events.next().await? {
            let event = match told {
                EventLine::Event(event) => event,
                EventLine::Gap { gap } => {
                    position.after = Some(gap.resume());
                    output::warn(format_args!("warning: {gap}"));
                    continue;
                }
            };
            position.after = Some(event.number);
            if self.place.json {
                output::tell(serde_json::json!(*event));
            } else {
                output::tell(line(&event));
                if let EventKind::RolloutPaused { .. } = event.kind {
                    output::tell(
                        "  help: `mainstay logs` tells what it wrote; it is tried again meanwhile",
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
                    let (name, address) = (&service.service, or_dash(service.address));
                    output::warn(format_args!(
                        "warning: {name} cannot be reached at {address}: another program listens there"
                    ));
                }
            }
            if all {
                let took = self.started.elapsed().as_millis();
                self.say(format_args!(
                    "ready after {took} ms: all services are as wanted"
                ));
                return;
            }
        }
    }

    /// Tells the control centre to stop everything. One that is just dead is started again meanwhile.
    async fn ask_to_stop(&self) -> anyhow::Result<()> {
        let asked = async {
            loop {
                match self.client.post::<_, Accepted>("/v1/shutdown", &()).await {
                    Ok(_) => return Ok(()),
                    Err(error) if error.is_transient() => sleep(POLL).await,
                    Err(error) => return Err(error.into()),
                }
            }
        };
        let told = async {
            sleep(STOP_ANSWER_USUAL).await;
            self.say(format_args!(
                "waiting for the control centre, which stops the instances; at most {} s",
                STOP_ANSWER_DEADLINE.as_secs()
            ));
            std::future::pending().await
        };
        let answered = async {
            tokio::select! {
                asked = asked => asked,
                never = told => never,
            }
        };
        match timeout(STOP_ANSWER_DEADLINE, answered).await {
            Ok(answered) => answered,
            Err(_) => {
                anyhow::bail!("the control centre did not answer within {STOP_ANSWER_DEADLINE:?}")
            }
        }
    }

    /// Drains and stops every instance; what was declared is kept for the next start.
    async fn stop_instances(&self) {
        let began = Instant::now();
        if let Err(error) = self.ask_to_stop().await {
            output::warn(format_args!(
                "warning: the instances cannot finish their requests, and are ended: {error:#}"
            ));
            return;
        }
        let mut left_before = usize::MAX;
        while began.elapsed() < STOP_DEADLINE {
            match self
                .client
                .get::<Vec<InstanceStatus>>("/v1/instances")
                .await
            {
                Ok(left) if left.is_empty() => return,
                Ok(left) => {
                    if left.len() < left_before {
                        left_before = left.len();
                        self.say(format_args!("instances left: {left_before}"));
                    }
                }
                Err(error) if error.is_transient() => {}
                Err(_) => break,
            }
            sleep(STOP_POLL).await;
        }
        output::warn("some instances did not stop in time");
    }
}

/// Whether the control centre is there and said no.
fn is_refused(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Refused(_)))
}

/// The wishes to stop: Ctrl-C, SIGTERM, and the end of the terminal.
struct Stops {
    interrupt: Signal,
    terminate: Signal,
    /// `None` under `nohup`, which means: go on without the terminal.
    hangup: Option<Signal>,
}

impl Stops {
    fn new() -> anyhow::Result<Self> {
        let interrupt = signal(SignalKind::interrupt()).context("cannot await Ctrl-C")?;
        let terminate = signal(SignalKind::terminate()).context("cannot await SIGTERM")?;
        let hangup = if signals::is_ignored(Number::HUP).context("cannot look at SIGHUP")? {
            None
        } else {
            Some(signal(SignalKind::hangup()).context("cannot await SIGHUP")?)
        };
        Ok(Self {
            interrupt,
            terminate,
            hangup,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            Some(()) = async { self.hangup.as_mut()?.recv().await } => {}
        }
    }
}
