//! The task of one instance: from its first start to its removal, over all attempts.
//!
//! ```text
//! (new) ──> Held ── the plan says run ──> Starting
//!
//!              ┌────────────────────────────── due ───────────────────────┐
//!              v                                                          │
//! (new) ──> Starting ──> Live ── ended ──> BackingOff ────────────────────┘
//!              │          ^  │                  │
//!              │ lock     │  │ told to stop,    │ told to stop
//!              │ held     │  │ and ended        v
//!              └──> Undecided└───────────────> Stopped ── forgotten ──> (gone)
//! (adopted) ─────────^  ^ and to Live, Ended, Lost
//! ```
//!
//! The task alone owns this state; the node's task sends it an [`Order`] and gets [`Change`]s.

mod begin;
mod conclude;
mod live;

use std::time::Duration;

use mainstay_control::restart::{Restart, Retry};
use mainstay_ids::{Attempt, InstanceId, Instant};
use mainstay_kernel::Pidfd;
use mainstay_model::report::CrashLooping;
use mainstay_model::{Exit, InstanceReport, Phase, PlannedAction, PlannedInstance, StartFailure};
use tokio::sync::{mpsc, watch};

use crate::context::Context;
use crate::found::{self, Boot, Found};
use crate::groups;
use crate::logs;
use crate::ports::Port;
use crate::record::{AttemptSpec, Cause, RunDir};
use crate::secrets::SecretRefused;
use live::{Live, Shim};

/// How often a shim that has not told yet whether its program runs is looked at again. It takes a
/// few milliseconds, and happens only when an agent died in the middle of a start.
const LOOK: Duration = Duration::from_millis(20);

/// How often something that only an operator can repair is tried again.
const BLOCKED_LOOK: Duration = Duration::from_secs(1);

/// What the node wants of an instance. The newest counts; those in between may be missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// No plan has come yet: go on as before.
    None,
    Run,
    /// Start nothing; what runs goes on.
    Hold,
    /// Run it to its end, and never again.
    RunOnce,
    Stop,
    /// Only for a stopped instance: remove what is kept of it.
    Forget,
}

/// What the node is told.
#[derive(Debug)]
pub(crate) enum Change {
    Seen(InstanceReport),
    /// An adopted instance was probed once, or is not running.
    Settled(InstanceId),
    /// Nothing of it is left, not even its files.
    Gone(InstanceId),
}

/// One instance.
pub(crate) struct Instance {
    context: Context,
    run: RunDir,
    planned: PlannedInstance,
    orders: watch::Receiver<Order>,
    changes: mpsc::Sender<Change>,
    restart: Restart,
    /// How the attempt before the current one ended.
    last_exit: Option<Exit>,
    /// Why the last probe of the current attempt failed, if it did.
    probe_failure: Option<String>,
    /// Of the newest attempt, also after its end: nobody else gets it soon.
    port: Option<Port>,
    told: Option<InstanceReport>,
    settled: Settled,
}

/// Whether the node still waits for the first probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settled {
    Not,
    Told,
}

/// For what the next attempt waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Release {
    /// For its time, unless a plan holds it.
    Due,
    /// For a plan that says so: after another start of the machine, only the control centre knows
    /// what is to run first.
    Plan,
}

/// Where the instance stands; see the picture above.
enum State {
    /// It was never started, and is not to be yet.
    Held {
        attempt: Attempt,
    },
    Starting {
        attempt: Attempt,
    },
    Undecided,
    Live(Box<Live>),
    Ended {
        spec: Box<AttemptSpec>,
        exit: Exit,
        cause: Cause,
        boot: Boot,
    },
    BackingOff {
        spec: Box<AttemptSpec>,
        exit: Exit,
        retry: Retry,
        release: Release,
    },
    Stopped {
        attempt: Attempt,
        exit: Option<Exit>,
    },
    /// The agent ends, or the instance was forgotten.
    Left,
}

impl Instance {
    pub(crate) fn new(
        context: Context,
        planned: PlannedInstance,
        orders: watch::Receiver<Order>,
        changes: mpsc::Sender<Change>,
    ) -> Self {
        let run = RunDir::of(&context.state, &planned.instance);
        Self {
            context,
            run,
            planned,
            orders,
            changes,
            restart: Restart::new(),
            last_exit: None,
            probe_failure: None,
            port: None,
            told: None,
            settled: Settled::Not,
        }
    }

    /// An instance that was never started here.
    pub(crate) async fn run_new(self) {
        let first = match self.order() {
            Order::Stop | Order::Forget => State::Stopped {
                attempt: Attempt::FIRST,
                exit: None,
            },
            Order::Hold => State::Held {
                attempt: Attempt::FIRST,
            },
            Order::None | Order::Run | Order::RunOnce => State::Starting {
                attempt: Attempt::FIRST,
            },
        };
        self.run(first).await;
    }

    /// An instance of which an earlier agent started an attempt.
    pub(crate) async fn run_found(mut self, found: Found) {
        let first = self.adopt(found).await;
        self.run(first).await;
    }

    async fn run(mut self, mut state: State) {
        loop {
            state = match state {
                State::Held { attempt } => self.held(attempt).await,
                State::Starting { attempt } => self.start(attempt).await,
                State::Undecided => self.undecided().await,
                State::Live(live) => self.live(*live).await,
                State::Ended {
                    spec,
                    exit,
                    cause,
                    boot,
                } => self.ended(spec, exit, cause, boot),
                State::BackingOff {
                    spec,
                    exit,
                    retry,
                    release,
                } => self.back_off(spec, exit, retry, release).await,
                State::Stopped { attempt, exit } => self.stopped(attempt, exit).await,
                State::Left => return,
            };
        }
    }

    fn order(&self) -> Order {
        self.orders.borrow().clone()
    }

    /// Whether it runs to its end and is not probed. What an earlier agent started says so in its
    /// file, so that it is not run a second time while no plan has come.
    fn runs_once(&self) -> bool {
        self.planned.action == PlannedAction::RunOnce || self.order() == Order::RunOnce
    }

    async fn held(&mut self, attempt: Attempt) -> State {
        self.settle().await;
        loop {
            match self.order() {
                Order::Run => return State::Starting { attempt },
                Order::RunOnce => {
                    self.planned.action = PlannedAction::RunOnce;
                    return State::Starting { attempt };
                }
                Order::Stop | Order::Forget => {
                    return State::Stopped {
                        attempt,
                        exit: None,
                    };
                }
                Order::None | Order::Hold => {}
            }
            tokio::select! {
                () = self.context.stop.cancelled() => return State::Left,
                changed = self.orders.changed() => if changed.is_err() { return State::Left },
            }
        }
    }

    async fn start(&mut self, attempt: Attempt) -> State {
        match self.begin(attempt).await {
            Ok(Some(live)) => State::Live(Box::new(live)),
            // Somebody else started it: whatever happened, it must not be started twice.
            Ok(None) => State::Undecided,
            Err(refused) => {
                let failure = refused.failure();
                // What runs once is tried once: whoever planned it decides about another.
                if failure == StartFailure::SecretsAway && !self.runs_once() {
                    return self.wait_for_secrets(attempt, &refused);
                }
                tracing::warn!(instance = %self.planned.instance, attempt = attempt.0, error = %crate::chain(&refused), "cannot start");
                let spec = Box::new(self.unstarted(attempt));
                State::Ended {
                    spec,
                    exit: Exit::NotStarted(failure),
                    cause: Cause::Own,
                    boot: Boot::This,
                }
            }
        }
    }

    /// It is no end of the instance's own, and passes as soon as the control centre is back: neither
    /// the delays between ends grow by it, nor does it count as a crash loop.
    fn wait_for_secrets(&self, attempt: Attempt, refused: &Refused) -> State {
        let exit = Exit::NotStarted(StartFailure::SecretsAway);
        let told = self.told.as_ref().map(|report| &report.phase);
        if !matches!(told, Some(Phase::BackingOff { exit: last, .. }) if *last == exit) {
            tracing::warn!(instance = %self.planned.instance, attempt = attempt.0, error = %crate::chain(refused), "waits for its secrets");
        }
        State::BackingOff {
            spec: Box::new(self.unstarted(attempt)),
            exit,
            retry: Retry {
                until: self.context.clock.now().after(BLOCKED_LOOK),
                delay: BLOCKED_LOOK,
                crash_looping: CrashLooping::No,
            },
            release: Release::Due,
        }
    }

    /// Looks again until it is known what became of an attempt that somebody else started.
    async fn undecided(&mut self) -> State {
        let looked = self.blocking(found::look).await;
        let pause = match looked {
            Ok(Some(Found::Undecided { .. })) => LOOK,
            Ok(Some(Found::Nameless { shim })) => {
                self.dismiss(shim).await;
                LOOK
            }
            Ok(Some(found)) => return self.adopt(found).await,
            Ok(None) => {
                return State::Starting {
                    attempt: Attempt::FIRST,
                };
            }
            Err(error) => {
                tracing::error!(instance = %self.planned.instance, error = %crate::chain(&error), "left alone");
                BLOCKED_LOOK
            }
        };
        tokio::select! {
            () = self.context.stop.cancelled() => State::Left,
            () = self.context.clock.pause(pause) => State::Undecided,
        }
    }

    async fn dismiss(&self, shim: Option<Pidfd>) {
        let (state, id) = (self.context.state.clone(), self.planned.instance.clone());
        let ended = self
            .blocking(move |_| found::dismiss(&state, &id, shim.as_ref()))
            .await;
        if let Err(error) = ended {
            tracing::error!(instance = %self.planned.instance, %error, "cannot end what runs unknown");
        }
    }

    async fn adopt(&mut self, found: Found) -> State {
        let spec = match &found {
            Found::Live { spec, .. }
            | Found::Undecided { spec }
            | Found::Ended { spec, .. }
            | Found::Lost { spec, .. } => spec,
            Found::Nameless { .. } => return State::Undecided,
        };
        self.planned = spec.planned.clone();
        self.last_exit = spec.last_exit;
        self.restart = Restart::resumed(spec.ends);
        // Given back first: it may be the very same.
        self.port = None;
        self.port = Some(self.context.ports.hold(spec.address.port()));
        match found {
            Found::Undecided { .. } | Found::Nameless { .. } => State::Undecided,
            Found::Live { spec, record, shim } => match Shim::adopted(shim) {
                Ok(shim) => State::Live(Box::new(Live::adopted(spec, shim, record))),
                Err(error) => {
                    tracing::error!(instance = %self.planned.instance, %error, "cannot watch its shim");
                    self.context.clock.pause(LOOK).await;
                    State::Undecided
                }
            },
            Found::Ended { spec, exit, boot } => State::Ended {
                spec: Box::new(spec),
                exit: exit.exit,
                cause: exit.cause,
                boot,
            },
            Found::Lost {
                spec,
                boot: Boot::Earlier,
            } => State::Ended {
                spec: Box::new(spec),
                exit: Exit::Rebooted,
                cause: Cause::Own,
                boot: Boot::Earlier,
            },
            Found::Lost {
                spec,
                boot: Boot::This,
            } => {
                let ended = self.conclude(&spec, None).await;
                State::Ended {
                    spec: Box::new(spec),
                    exit: ended.exit,
                    cause: ended.cause,
                    boot: Boot::This,
                }
            }
        }
    }

    /// Decides what the end of an attempt leads to.
    fn ended(&mut self, spec: Box<AttemptSpec>, exit: Exit, cause: Cause, boot: Boot) -> State {
        self.probe_failure = None;
        let stopped = match (self.order(), cause) {
            (Order::Stop | Order::Forget, Cause::Own | Cause::Ordered) => true,
            // Without a plan: an agent before us was told to stop it; or the machine, at its end.
            (Order::None, Cause::Ordered) => boot == Boot::This,
            (Order::None, Cause::Own)
            | (Order::Run | Order::Hold | Order::RunOnce, Cause::Own | Cause::Ordered) => false,
        };
        let stopped = stopped || self.runs_once();
        tracing::info!(instance = %self.planned.instance, attempt = spec.attempt.0, %exit, "ended");
        if stopped {
            return State::Stopped {
                attempt: spec.attempt,
                exit: Some(exit),
            };
        }
        let now = self.context.clock.now();
        let (retry, release) = match boot {
            Boot::This => (self.restart.ended(now), Release::Due),
            // It is not its fault.
            Boot::Earlier => {
                let retry = Retry {
                    until: now,
                    delay: Duration::ZERO,
                    crash_looping: self.restart.crash_looping(),
                };
                (retry, Release::Plan)
            }
        };
        State::BackingOff {
            spec,
            exit,
            retry,
            release,
        }
    }

    /// When the next attempt may begin by what is known now; `None`: only another order tells.
    fn released(&self, retry: Retry, release: Release) -> Option<Instant> {
        match (self.order(), release) {
            (Order::Run, Release::Due | Release::Plan) | (Order::None, Release::Due) => {
                Some(retry.until)
            }
            (Order::None, Release::Plan)
            | (
                Order::Hold | Order::RunOnce | Order::Stop | Order::Forget,
                Release::Due | Release::Plan,
            ) => None,
        }
    }

    async fn back_off(
        &mut self,
        spec: Box<AttemptSpec>,
        exit: Exit,
        retry: Retry,
        release: Release,
    ) -> State {
        let until = mainstay_ids::Timestamp(
            crate::now().0 + u64::try_from(retry.delay.as_millis()).unwrap_or(0),
        );
        let phase = Phase::BackingOff {
            exit,
            until,
            crash_looping: retry.crash_looping,
        };
        self.tell(spec.attempt, phase).await;
        self.settle().await;
        loop {
            let due = self.released(retry, release);
            tokio::select! {
                () = self.context.stop.cancelled() => return State::Left,
                changed = self.orders.changed() => match (changed, self.order()) {
                    (Err(_), _) => return State::Left,
                    (Ok(()), Order::Stop | Order::Forget) => return State::Stopped { attempt: spec.attempt, exit: None },
                    (Ok(()), Order::None | Order::Run | Order::Hold | Order::RunOnce) => {}
                },
                () = self.context.clock.sleep_until_some(due) => {
                    self.last_exit = Some(exit);
                    return State::Starting { attempt: spec.attempt.next() };
                }
            }
        }
    }

    async fn stopped(&mut self, attempt: Attempt, exit: Option<Exit>) -> State {
        self.tell(attempt, Phase::Stopped { exit }).await;
        self.settle().await;
        loop {
            match self.order() {
                Order::Forget => return self.forget().await,
                Order::Run => {
                    self.last_exit = exit;
                    return State::Starting {
                        attempt: attempt.next(),
                    };
                }
                Order::None | Order::Hold | Order::RunOnce | Order::Stop => {}
            }
            tokio::select! {
                () = self.context.stop.cancelled() => return State::Left,
                changed = self.orders.changed() => if changed.is_err() { return State::Left },
            }
        }
    }

    async fn forget(&mut self) -> State {
        let context = self.context.clone();
        let instance = self.planned.instance.clone();
        let removed = self
            .blocking(move |run| {
                if let Ok(tree) = &context.cgroups {
                    groups::remove(tree, &context.mark(), &instance);
                }
                if run.exists() {
                    // What cannot be read is not ours to remove, nor what a living shim needs.
                    run.spec().map_err(std::io::Error::other)?;
                    let _lock = run.lock()?.ok_or(std::io::ErrorKind::ResourceBusy)?;
                    run.remove()?;
                }
                logs::prune(&context.state, &instance)
            })
            .await;
        if let Err(error) = removed {
            tracing::warn!(instance = %self.planned.instance, %error, "files of it are left");
        }
        self.send(Change::Gone(self.planned.instance.clone())).await;
        State::Left
    }

    /// What stands for an attempt that could not even be written down.
    fn unstarted(&self, attempt: Attempt) -> AttemptSpec {
        begin::nothing(&self.planned, attempt)
    }

    /// Tells the node what is to be seen, if it changed.
    async fn tell(&mut self, attempt: Attempt, phase: Phase) {
        let report = InstanceReport {
            instance: self.planned.instance.clone(),
            version: self.planned.version,
            attempt,
            phase,
            last_exit: self.last_exit,
            probe_failure: self.probe_failure.clone(),
            log_dropped: self.run.dropped(),
        };
        if self.told.as_ref() != Some(&report) {
            self.told = Some(report.clone());
            self.send(Change::Seen(report)).await;
        }
    }

    async fn settle(&mut self) {
        if self.settled == Settled::Not {
            self.settled = Settled::Told;
            self.send(Change::Settled(self.planned.instance.clone()))
                .await;
        }
    }

    /// The node outlives its instances' tasks, so a failure means that all of this is ending.
    async fn send(&self, change: Change) {
        let _ = self.changes.send(change).await;
    }

    /// Runs what waits for the disk or for dying processes outside the loop on which all other
    /// instances are probed.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&RunDir) -> T + Send + 'static,
    ) -> T {
        let run = self.run.clone();
        match tokio::task::spawn_blocking(move || work(&run)).await {
            Ok(done) => done,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// Why an attempt could not be begun.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("no port is free")]
    NoFreePort,
    #[error(transparent)]
    Secret(#[from] SecretRefused),
    #[error(transparent)]
    Limit(#[from] groups::LimitRefused),
    #[error("its specification cannot be filled in")]
    Address(#[from] crate::launch::AddressUnknown),
    #[error("the files of an earlier attempt cannot be used")]
    Earlier(#[from] crate::record::RecordError),
    #[error("cannot write `{}`", path.display())]
    Write {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot start its shim")]
    Shim(#[from] mainstay_kernel::SpawnError),
    #[error("cannot watch its shim")]
    Watch(#[source] std::io::Error),
}

impl Refused {
    fn failure(&self) -> StartFailure {
        match self {
            Self::NoFreePort => StartFailure::NoFreePort,
            Self::Secret(refused) => refused.failure(),
            Self::Limit(refused) => refused.failure(),
            Self::Earlier(_) | Self::Write { .. } => StartFailure::StateDirectory,
            Self::Address(_) => StartFailure::System(rustix::io::Errno::DESTADDRREQ.raw_os_error()),
            Self::Shim(error) => {
                crate::launch::failure(std::path::Path::new("/proc/self/exe"), error)
            }
            Self::Watch(error) => StartFailure::System(error.raw_os_error().unwrap_or_default()),
        }
    }
}
