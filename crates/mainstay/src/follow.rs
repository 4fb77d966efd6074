//! Waits until a change is in force and prints each step meanwhile.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mainstay_api::client::{Client, Error};
use mainstay_api::wire::{Accepted, EventLine, ServiceState, ServiceStatus};
use mainstay_ids::{ServiceName, Version};
use mainstay_model::EventKind;

use crate::arguments::{Place, Waiting};
use crate::command::events::line;
use crate::outcome::{Failure, Outcome};
use crate::output;

/// How often the services' state is asked for: often enough that `up` ends when the rollout does,
/// rarely enough to cost nothing.
const POLL: Duration = Duration::from_millis(200);

/// What a service must become for the change to be in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// All wanted instances of this version are ready.
    Ready(Version),
    /// It is gone.
    Gone,
}

/// How one service's change ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Pending,
    Reached,
    Missed,
}

/// How the steps are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Steps {
    /// A line for each.
    Print,
    /// Not at all.
    Hide,
}

impl From<&Place> for Steps {
    fn from(place: &Place) -> Self {
        if place.json { Self::Hide } else { Self::Print }
    }
}

/// Follows `goals` from the event numbered `after` on.
#[derive(Debug)]
pub(crate) struct Follow {
    client: Client,
    goals: Vec<(ServiceName, Goal)>,
    after: u64,
    steps: Steps,
    started: Instant,
    timeout: Option<Duration>,
    causes: Vec<String>,
}

impl Follow {
    pub(crate) fn new(client: Client, goals: Vec<(ServiceName, Goal)>, after: u64) -> Self {
        Self {
            client,
            goals,
            after,
            steps: Steps::Print,
            started: Instant::now(),
            timeout: None,
            causes: Vec::new(),
        }
    }

    #[must_use]
    pub(crate) fn steps(mut self, steps: Steps) -> Self {
        self.steps = steps;
        self
    }

    #[must_use]
    pub(crate) fn waiting(mut self, waiting: Waiting) -> Self {
        self.timeout = waiting.timeout;
        self
    }

    /// Waits until every goal is reached, or one cannot be reached any more.
    ///
    /// A control centre that restarts meanwhile is waited for: what it decided is durable.
    pub(crate) async fn run(mut self) -> anyhow::Result<Outcome> {
        loop {
            match self.look().await {
                Ok(Progress::Pending) => {}
                Ok(Progress::Reached) => return Ok(Outcome::Holds),
                Ok(Progress::Missed) => return Err(self.missed().into()),
                Err(error) if error.is_transient() && self.started.elapsed() < self.patience() => {}
                Err(error) => return Err(error.into()),
            }
            if self
                .timeout
                .is_some_and(|timeout| self.started.elapsed() >= timeout)
            {
                let message = "the change is not yet in force; it goes on";
                let failure = Failure::new(Outcome::DoesNotHold, message);
                return Err(failure.remedy("see `mainstay events -f`").into());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// How long a control centre that does not answer is waited for, from the start on.
    fn patience(&self) -> Duration {
        const RESTART_MAX: Duration = Duration::from_secs(30);
        self.timeout.unwrap_or(Duration::ZERO).max(RESTART_MAX)
    }

    /// Prints what happened since the last look and tells how far it is.
    async fn look(&mut self) -> Result<Progress, Error> {
        let services: Vec<ServiceStatus> = self.client.get("/v1/services").await?;
        self.tell_events().await?;
        let mut all = Progress::Reached;
        for (name, goal) in &self.goals {
            let status = services.iter().find(|status| status.service == *name);
            match progress(*goal, status) {
                Progress::Missed => return Ok(Progress::Missed),
                Progress::Pending => all = Progress::Pending,
                Progress::Reached => {}
            }
        }
        Ok(all)
    }

    async fn tell_events(&mut self) -> Result<(), Error> {
        let names: BTreeSet<&ServiceName> = self.goals.iter().map(|(name, _)| name).collect();
        let path = format!("/v1/events?after={}&follow=false", self.after);
        let mut watch = self.client.watch::<EventLine>(&path).await?;
        while let Some(told) = watch.next().await? {
            let event = match told {
                EventLine::Event(event) => event,
                EventLine::Gap { gap } => {
                    self.after = gap.resume();
                    output::warn(format_args!("warning: {gap}"));
                    continue;
                }
            };
            self.after = self.after.max(event.number);
            if !event
                .service
                .as_ref()
                .is_some_and(|name| names.contains(name))
            {
                continue;
            }
            if let EventKind::RolloutFailed { .. } | EventKind::RolloutPaused { .. } = event.kind {
                self.causes.push(event.kind.to_string());
            }
            if self.steps == Steps::Print {
                output::tell(line(&event));
            }
        }
        Ok(())
    }

    fn missed(&self) -> Failure {
        let message = match self.causes.as_slice() {
            [] => "the change did not come into force; another one took its place".to_owned(),
            causes => causes.join("; "),
        };
        let remedy = "`mainstay events` tells each step, `mainstay logs` what the instances wrote";
        Failure::new(Outcome::DoesNotHold, message).remedy(remedy)
    }
}

/// Says that a change of one service was accepted and waits, if asked to, until the version that is
/// wanted now is in force.
pub(crate) async fn after_change(
    place: &Place,
    client: Client,
    service: ServiceName,
    accepted: Accepted,
    waiting: Waiting,
) -> anyhow::Result<Outcome> {
    if place.json {
        output::json(&accepted)?;
    }
    if waiting.no_wait {
        return Ok(Outcome::Holds);
    }
    let services: Vec<ServiceStatus> = client.get("/v1/services").await?;
    let Some(status) = services
        .into_iter()
        .find(|status| status.service == service)
    else {
        return Err(Failure::new(Outcome::DoesNotHold, format!("`{service}` is gone")).into());
    };
    let goals = vec![(service, Goal::Ready(status.version))];
    Follow::new(client, goals, accepted.event)
        .waiting(waiting)
        .steps(place.into())
        .run()
        .await
}

/// How far one service is from its goal.
fn progress(goal: Goal, status: Option<&ServiceStatus>) -> Progress {
    match (goal, status) {
        (Goal::Gone, None) => Progress::Reached,
        (Goal::Gone, Some(_)) => Progress::Pending,
        (Goal::Ready(_), None) => Progress::Missed,
        (Goal::Ready(version), Some(status)) => match status.state {
            // The rest is up to whoever promotes it.
            ServiceState::Steady | ServiceState::AwaitsPromotion if status.version == version => {
                Progress::Reached
            }
            ServiceState::Failed | ServiceState::Removing => Progress::Missed,
            ServiceState::Steady | ServiceState::Degraded if status.version != version => {
                Progress::Missed
            }
            ServiceState::Steady
            | ServiceState::Degraded
            | ServiceState::Paused
            | ServiceState::AwaitsPromotion
            | ServiceState::RollingOut
            | ServiceState::RollingBack => Progress::Pending,
        },
    }
}
