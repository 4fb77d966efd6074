//! What the front ends of the supervisor share: they speak with the control centre as any client,
//! tell what happens, and stop everything at the end.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use mainstay_agent::Leftovers;
use mainstay_api::client::{Client, Error};
use mainstay_api::wire::{Accepted, EventLine, InstanceStatus, Status};
use mainstay_kernel::signals::{self, Signal as Number};
use mainstay_model::EventKind;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};

use crate::arguments::Place;
use crate::command::events::{Position, line};
use crate::outcome::{Failure, Outcome};
use crate::output;

/// How long the control centre may take from its start to its first answer: reading a state of a
/// few megabytes from a slow disk.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// How often an answer that is not there yet is asked for.
const POLL: Duration = Duration::from_millis(10);

/// How often the instances are counted while they stop.
pub(super) const STOP_POLL: Duration = Duration::from_millis(100);

/// How long Ctrl-C waits for the instances: longer than the usual drain and grace. A second Ctrl-C
/// does not wait.
const STOP_DEADLINE: Duration = Duration::from_mins(2);

/// How long Ctrl-C waits for the control centre's answer: for one that was just killed it takes some
/// hundred milliseconds, and who does not answer then cannot be asked for a drain.
const STOP_ANSWER_DEADLINE: Duration = Duration::from_secs(3);

/// After this, whoever waits is told for what.
const STOP_ANSWER_USUAL: Duration = Duration::from_millis(500);

/// What an ordinary user must know; see `mainstay_agent` for what happens instead.
pub(super) const NOT_ROOT: &str = "\
not root, so two things are switched off:
  no cgroups: what an instance leaves behind is found by its process group and its environment, and killed;
    a service with `limits` is not started
  no other accounts: a service's `user` can only be yourself";

/// How long instances may take to end when they are killed. It takes some milliseconds; who takes
/// longer sleeps in the kernel.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// What becomes of instances that still run when the supervisor ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Somebody asked for the end: nothing may be left behind.
    Ends,
    /// We failed: that is no reason to end what others may still use.
    GoesOn,
}

/// Ends what did not stop: instances that were not waited for, or could not be asked.
pub(super) async fn end_leftovers(leftovers: Leftovers) -> anyhow::Result<()> {
    let ended = tokio::task::spawn_blocking(move || leftovers.end(KILL_DEADLINE)).await;
    let ended = ended.context("the end of the instances failed")?;
    let count = ended.context("cannot end the instances that are left")?;
    if count > 0 {
        output::warn("what was left of the instances was killed");
    }
    Ok(())
}

/// The state directory as a path that does not depend on where a process runs.
pub(super) fn absolute(place: &Place) -> anyhow::Result<PathBuf> {
    std::path::absolute(&place.state)
        .with_context(|| format!("`{}` is not a path", place.state.display()))
}

/// To whom it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    /// People at a terminal: standard output.
    Terminal,
    /// A log: standard error.
    Log,
}

/// The supervisor as a client of its own control centre.
pub(super) struct Front {
    pub(super) client: Client,
    pub(super) place: Place,
    pub(super) started: Instant,
    pub(super) voice: Voice,
}

impl Front {
    /// A line for people; with `--json` standard output is for programs.
    pub(super) fn say(&self, text: impl std::fmt::Display) {
        match self.voice {
            Voice::Terminal if !self.place.json => output::tell(text),
            Voice::Terminal | Voice::Log => output::warn(text),
        }
    }

    /// Waits for the control centre's first answer.
    pub(super) async fn first_status(&self) -> anyhow::Result<Status> {
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
    pub(super) async fn print_events(&self, position: &mut Position) -> anyhow::Result<Outcome> {
        loop {
            match self.print_events_once(position).await {
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
                self.say(line(&event));
                if let EventKind::RolloutPaused { .. } = event.kind {
                    self.say(
                        "  help: `mainstay logs` tells what it wrote; it is tried again meanwhile",
                    );
                }
            }
        }
        Ok(())
    }

    /// Stops everything because somebody asked for it, who does not wait if he asks twice.
    pub(super) async fn end(&self, stops: &mut Stops) {
        tokio::select! {
            () = self.stop_instances() => {}
            () = stops.next() => self.say("not waiting any longer"),
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
    pub(super) async fn stop_instances(&self) {
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
pub(super) fn is_refused(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Refused(_)))
}

/// What SIGHUP means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hangup {
    /// The terminal is gone.
    Stops,
    /// Something that is no wish to stop.
    MeansSomethingElse,
}

/// The wishes to stop: Ctrl-C, SIGTERM, and the end of the terminal.
pub(super) struct Stops {
    interrupt: Signal,
    terminate: Signal,
    /// `None` under `nohup`, which means: go on without the terminal.
    hangup: Option<Signal>,
}

impl Stops {
    /// From now on none ends the process. `hangup`: what the end of the terminal means.
    pub(super) fn new(hangup: Hangup) -> anyhow::Result<Self> {
        let interrupt = signal(SignalKind::interrupt()).context("cannot await Ctrl-C")?;
        let terminate = signal(SignalKind::terminate()).context("cannot await SIGTERM")?;
        let ignored = signals::is_ignored(Number::HUP).context("cannot look at SIGHUP")?;
        let hangup = if hangup == Hangup::MeansSomethingElse || ignored {
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

    /// Waits for the next.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            Some(()) = async { self.hangup.as_mut()?.recv().await } => {}
        }
    }
}
