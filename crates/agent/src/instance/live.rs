//! While a shim lives: probing, stopping, and waiting for its end.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mainstay_control::health::{Health, Probe};
use mainstay_ids::{Attempt, Instant};
use mainstay_kernel::signals::Signal;
use mainstay_kernel::{Child, Ended, Identity, Pidfd, Watched, try_reap};
use mainstay_model::{Exit, Phase, ProbedHealth};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::{Instance, Order, State};
use crate::found::Boot;
use crate::probe::{Failure, probe};
use crate::record::{AttemptSpec, Cause, ShimRecord};

/// An attempt whose shim lives.
pub(super) struct Live {
    spec: Arc<AttemptSpec>,
    shim: Shim,
    /// The pipe that ends once the start is decided.
    started: Option<pipe::Receiver>,
    stage: Stage,
}

/// How far an attempt is.
enum Stage {
    /// The shim has not told yet whether the program could be started.
    Starting,
    Running {
        record: ShimRecord,
        health: Health,
        probing: Option<Probing>,
    },
    /// Its probes did not pass for so long: it is ended, and started again.
    GivenUp {
        record: ShimRecord,
        health: Health,
        after: Duration,
    },
    /// It was told to stop. Without a record the program was not running yet.
    Stopping { record: Option<ShimRecord> },
}

/// A probe under way; dropping it ends it.
type Probing = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// The agent's hold on a shim.
pub(super) struct Shim {
    process: Watched,
    parentage: Parentage,
}

/// Whose child a shim is.
enum Parentage {
    /// Ours: we reap it.
    Ours {
        identity: Option<Identity>,
        pid: u32,
    },
    /// An earlier agent's, now init's, or the nearest subreaper's.
    Another,
}

/// Whether it was known that the program ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Yes,
    No,
}

/// What is known of a shim that has ended.
pub(super) struct Remains {
    /// The shim itself, if it could be identified before.
    pub(super) identity: Option<Identity>,
    /// Its exit status, if it was our child.
    pub(super) ended: Option<Ended>,
}

impl Shim {
    pub(super) fn started(child: Child) -> io::Result<Self> {
        let pid = child.pid();
        let identity = Identity::of(pid)?;
        Ok(Self {
            process: Watched::new(child.into_handle())?,
            parentage: Parentage::Ours { identity, pid },
        })
    }

    pub(super) fn adopted(handle: Pidfd) -> io::Result<Self> {
        Ok(Self {
            process: Watched::new(handle)?,
            parentage: Parentage::Another,
        })
    }

    async fn ended(&self) {
        if let Err(error) = self.process.ended().await {
            // Only when the runtime shuts down, which ends this task, too.
            tracing::debug!(%error, "the watch on a shim ended");
            std::future::pending::<()>().await;
        }
    }

    fn bury(&self) -> Remains {
        match &self.parentage {
            Parentage::Another => Remains {
                identity: None,
                ended: None,
            },
            Parentage::Ours { identity, pid } => {
                let ended = try_reap(*pid).unwrap_or_else(|error| {
                    tracing::warn!(pid, %error, "cannot reap a shim");
                    None
                });
                Remains {
                    identity: identity.clone(),
                    ended,
                }
            }
        }
    }
}

impl Live {
    pub(super) fn started(spec: AttemptSpec, shim: Shim, started: pipe::Receiver) -> Self {
        Self {
            spec: Arc::new(spec),
            shim,
            started: Some(started),
            stage: Stage::Starting,
        }
    }

    pub(super) fn adopted(spec: AttemptSpec, shim: Shim, record: ShimRecord) -> Self {
        let health = Health::new(&spec.planned.spec.health, Instant::START);
        let stage = Stage::Running {
            record,
            health,
            probing: None,
        };
        Self {
            spec: Arc::new(spec),
            shim,
            started: None,
            stage,
        }
    }
}

impl Live {
    /// `None`: it is reported as it was before.
    fn phase(&self) -> Option<Phase> {
        match &self.stage {
            Stage::Starting | Stage::Stopping { record: None } => None,
            Stage::Running { record, health, .. } | Stage::GivenUp { record, health, .. } => {
                Some(Phase::Running {
                    pid: record.child.pid,
                    address: self.spec.address,
                    health: health.verdict(),
                    since: record.since,
                })
            }
            Stage::Stopping {
                record: Some(record),
            } => Some(Phase::Stopping {
                pid: record.child.pid,
            }),
        }
    }
}

impl Instance {
    pub(super) async fn live(&mut self, mut live: Live) -> State {
        if self.runs_once() {
            self.settle().await;
        }
        loop {
            self.tell_live(live.spec.attempt, live.phase()).await;
            if matches!(self.order(), Order::Stop | Order::Forget) {
                self.stop(&mut live);
                self.tell_live(live.spec.attempt, live.phase()).await;
                self.settle().await;
            }
            let (next_probe, patience) = if self.runs_once() {
                (None, None)
            } else {
                (live.stage.next_probe(), live.stage.give_up_at())
            };
            tokio::select! {
                () = self.context.stop.cancelled() => return State::Left,
                changed = self.orders.changed() => if changed.is_err() { return State::Left },
                () = live.shim.ended() => return self.bury(live).await,
                () = decided(&mut live.started) => self.decide(&mut live).await,
                () = self.context.clock.sleep_until_some(next_probe) => self.send_probe(&mut live),
                result = live.stage.probed() => self.take_probe(&mut live, result).await,
                () = self.context.clock.sleep_until_some(patience) => self.give_up(&mut live),
            }
        }
    }

    async fn tell_live(&mut self, attempt: Attempt, phase: Option<Phase>) {
        if let Some(phase) = phase {
            self.tell(attempt, phase).await;
        }
    }

    /// The shim has told whether the program runs. If it does not, the shim's end is next.
    async fn decide(&mut self, live: &mut Live) {
        let attempt = live.spec.attempt;
        let record = match self.blocking(move |run| run.shim(attempt)).await {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(instance = %self.planned.instance, error = %crate::chain(&error), "cannot read what its shim wrote");
                None
            }
        };
        match (&mut live.stage, record) {
            (Stage::Starting, Some(record)) => {
                tracing::info!(instance = %self.planned.instance, attempt = attempt.0, pid = record.child.pid, address = %live.spec.address, "started");
                let health = Health::new(&live.spec.planned.spec.health, self.context.clock.now());
                live.stage = Stage::Running {
                    record,
                    health,
                    probing: None,
                };
            }
            (Stage::Stopping { record: missing }, Some(record)) => *missing = Some(record),
            (
                Stage::Starting
                | Stage::Running { .. }
                | Stage::GivenUp { .. }
                | Stage::Stopping { .. },
                _,
            ) => {}
        }
    }

    /// Tells the shim to stop, once.
    fn stop(&self, live: &mut Live) {
        let record = match &live.stage {
            Stage::Stopping { .. } => return,
            // It was told already.
            Stage::GivenUp { record, .. } => {
                let record = Some(record.clone());
                live.stage = Stage::Stopping { record };
                return;
            }
            Stage::Starting => None,
            Stage::Running { record, .. } => Some(record.clone()),
        };
        tracing::info!(instance = %self.planned.instance, "stopping");
        self.end_shim(live);
        live.stage = Stage::Stopping { record };
    }

    /// Ends an attempt whose probes did not pass for as long as its service allows.
    fn give_up(&self, live: &mut Live) {
        let Stage::Running { record, health, .. } = &live.stage else {
            return;
        };
        let Some(after) = health.given_up(self.context.clock.now()) else {
            return;
        };
        tracing::warn!(instance = %self.planned.instance, ?after, "its probes do not pass; ended, to be started again");
        let (record, health) = (record.clone(), health.clone());
        self.end_shim(live);
        live.stage = Stage::GivenUp {
            record,
            health,
            after,
        };
    }

    fn end_shim(&self, live: &Live) {
        if let Err(error) = live.shim.process.handle().signal(Signal::TERM) {
            tracing::error!(instance = %self.planned.instance, %error, "cannot tell its shim to stop");
        }
    }

    fn send_probe(&self, live: &mut Live) {
        if let Stage::Running {
            health, probing, ..
        } = &mut live.stage
        {
            health.handle(self.context.clock.now(), Probe::Started);
            let spec = Arc::clone(&live.spec);
            *probing = Some(Box::pin(async move { probe(&spec).await }));
        }
    }

    async fn take_probe(&mut self, live: &mut Live, result: Result<(), Failure>) {
        let Stage::Running {
            health, probing, ..
        } = &mut live.stage
        else {
            return;
        };
        *probing = None;
        let now = self.context.clock.now();
        let outcome = if result.is_ok() {
            Probe::Passed
        } else {
            Probe::Failed
        };
        let changed = health.handle(now, outcome);
        self.probe_failure = result.as_ref().err().map(Failure::for_people);
        match health.verdict() {
            ProbedHealth::Passing => self.restart.passing(now),
            ProbedHealth::Failing => self.restart.failing(now),
            ProbedHealth::Starting => {}
        }
        let instance = &self.planned.instance;
        match (changed, result) {
            (Some(health), Ok(())) => tracing::info!(%instance, ?health, "health changed"),
            (Some(health), Err(error)) => {
                tracing::warn!(%instance, ?health, error = %crate::chain(&error), "health changed");
            }
            (None, Err(error)) => {
                tracing::debug!(%instance, error = %crate::chain(&error), "probe failed");
            }
            (None, Ok(())) => {}
        }
        self.tell_live(live.spec.attempt, live.phase()).await;
        self.settle().await;
    }

    async fn bury(&mut self, live: Live) -> State {
        let given_up = match &live.stage {
            Stage::GivenUp { after, .. } => Some(*after),
            Stage::Starting | Stage::Running { .. } | Stage::Stopping { .. } => None,
        };
        let ordered = match &live.stage {
            Stage::Starting | Stage::Running { .. } | Stage::GivenUp { .. } => None,
            Stage::Stopping { record: None } => Some(Known::No),
            Stage::Stopping { record: Some(_) } => Some(Known::Yes),
        };
        let Live {
            spec,
            shim,
            stage,
            started: _,
        } = live;
        // Ends a probe under way before what it belongs to is looked for.
        drop(stage);
        let ended = self.conclude(&spec, Some(shim.bury())).await;
        let attempt = spec.attempt;
        match (ordered, ended.exit) {
            // The shim was stopped before it had started the program.
            (Some(Known::No), Exit::Lost) => State::Stopped {
                attempt,
                exit: None,
            },
            (Some(Known::No | Known::Yes), exit) => State::Stopped {
                attempt,
                exit: Some(exit),
            },
            (None, exit) => {
                let for_ms = |after: Duration| u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                State::Ended {
                    spec: Box::new(Arc::unwrap_or_clone(spec)),
                    exit: given_up.map_or(exit, |after| Exit::Unhealthy {
                        for_ms: for_ms(after),
                    }),
                    cause: match given_up {
                        Some(_) => Cause::Own,
                        None => ended.cause,
                    },
                    boot: Boot::This,
                }
            }
        }
    }
}

/// Until the shim has told whether the program could be started; for ever if it has.
async fn decided(started: &mut Option<pipe::Receiver>) {
    match started {
        // Nothing is ever written: the end of the pipe is the message, and so is its failure.
        Some(pipe) => drop(pipe.read_u8().await),
        None => std::future::pending().await,
    }
    *started = None;
}

impl Stage {
    fn next_probe(&self) -> Option<Instant> {
        match self {
            Self::Running { health, .. } => health.next_deadline(),
            Self::Starting | Self::GivenUp { .. } | Self::Stopping { .. } => None,
        }
    }

    fn give_up_at(&self) -> Option<Instant> {
        match self {
            Self::Running { health, .. } => health.give_up_at(),
            Self::Starting | Self::GivenUp { .. } | Self::Stopping { .. } => None,
        }
    }

    /// The result of the probe under way; never if there is none.
    async fn probed(&mut self) -> Result<(), Failure> {
        match self {
            Self::Running {
                probing: Some(probing),
                ..
            } => probing.as_mut().await,
            Self::Running { probing: None, .. }
            | Self::Starting
            | Self::GivenUp { .. }
            | Self::Stopping { .. } => std::future::pending().await,
        }
    }
}
