//! One instance: what is wanted of it, what was last seen of it, and what its reports change.

use mainstay_ids::{Attempt, Generation, InstanceId, Instant, ServiceName, Timestamp, Version};
use mainstay_model::event::DrainReason;
use mainstay_model::report::CrashLooping;
use mainstay_model::routing::{Endpoint, EndpointHealth};
use mainstay_model::{EventKind, Exit, InstanceReport, Intake, Phase, ProbedHealth, ServiceSpec};

use super::service::instance_id;
use super::step::Step;

/// An instance and all that is known of it.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    pub(super) version: Version,
    pub(super) duty: Duty,
    pub(super) start: Start,
    pub(super) life: Life,
    pub(super) standing: Standing,
    pub(super) exposure: Exposure,
    /// Whether the run of the control centre before this one may have exposed it without our
    /// knowledge: routes may run ahead of the disk. So until everybody has routes of this epoch,
    /// which begins with that generation.
    pub(super) doubted: Option<Generation>,
    pub(super) trial: Trial,
    /// What an operator wants of it, for as long as it is there, whichever attempt runs.
    pub(super) intake: Intake,
    /// Whether it ends again and again; it stays so while the next attempt has not become ready.
    pub(super) crash_looping: CrashLooping,
    /// The newest report of it; `None`: none since the control centre's start.
    pub(super) seen: Option<InstanceReport>,
    /// How many reports in a row lacked it.
    pub(super) missed: u32,
}

/// What an instance is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Duty {
    /// It takes requests and is kept running.
    Serve,
    /// It runs once, before the rollout of its version.
    Before { planned: Timestamp },
    /// It is one run of a schedule, and is stopped if it takes longer than until then.
    Run {
        planned: Timestamp,
        stop_by: Instant,
    },
    /// It ran to its end, and what its agent keeps of it is to go.
    Over,
}

/// Whether an instance may be started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Start {
    /// What it needs is not ready.
    Held,
    /// It waits until the node has memory for it.
    Queued,
    #[default]
    Allowed,
}

/// What is wanted of an instance. It never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// It is to run.
    Kept,
    /// It is out of the routes and finishes what it has.
    Draining(Drain),
    /// Its agent is told to stop it by plans from this generation on.
    Stopping { told_in: Generation },
}

/// A drain under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Drain {
    /// The first routing state without the instance.
    pub(super) removed_in: Generation,
    pub(super) since: Instant,
    pub(super) deadline: Instant,
    pub(super) reason: DrainReason,
}

/// How far an instance has come, by its newest attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing of it runs.
    Planned,
    Starting {
        attempt: Attempt,
    },
    /// Healthy; ready at that time if it stays so.
    Passing {
        attempt: Attempt,
        ready_at: Instant,
    },
    Ready {
        attempt: Attempt,
    },
    /// It has passed its probes and fails them now.
    Failing {
        attempt: Attempt,
    },
    /// It ended by itself and will be started again.
    Ended {
        attempt: Attempt,
    },
}

/// Whether somebody may have been told to send traffic to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", tag = "exposure")]
pub(super) enum Exposure {
    /// It was never in a routing state.
    Never,
    /// This attempt is in the newest routing state.
    Listed { attempt: Attempt },
    /// This attempt was, and is not since that generation.
    Unlisted { attempt: Attempt, since: Generation },
}

/// How an instance does in the rollout that planned it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trial {
    /// When it has to be ready.
    pub(super) ready_by: Instant,
    pub(super) proof: Proof,
}

/// Whether a new instance was ever ready, and how often it fell back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    NeverReady { setbacks: u32 },
    WasReady { setbacks: u32 },
}

/// So many times may a new instance pass and then fail; the next time fails its rollout.
const SETBACKS_FORGIVEN: u32 = 1;

/// Something bad that a report told of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setback {
    Ended(Exit),
    Flapped,
}

/// How an attempt ended, and when the next is due.
#[derive(Debug, Clone, Copy)]
struct End {
    attempt: Attempt,
    exit: Exit,
    again_at: Option<Timestamp>,
}

/// Whether a setback may be overlooked by the rollout that planned the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    Forgiven,
    EndedUnready(Exit),
    TooMany,
}

impl Standing {
    pub(super) fn attempt(self) -> Option<Attempt> {
        match self {
            Self::Planned => None,
            Self::Starting { attempt }
            | Self::Passing { attempt, .. }
            | Self::Ready { attempt }
            | Self::Failing { attempt }
            | Self::Ended { attempt } => Some(attempt),
        }
    }

    /// The attempt that has a process.
    pub(super) fn running(self) -> Option<Attempt> {
        match self {
            Self::Planned | Self::Ended { .. } => None,
            Self::Starting { attempt }
            | Self::Passing { attempt, .. }
            | Self::Ready { attempt }
            | Self::Failing { attempt } => Some(attempt),
        }
    }

    /// Greater is of more use: what is of least use is drained first.
    fn usefulness(self) -> u32 {
        match self {
            Self::Ended { .. } => 0,
            Self::Failing { .. } => 1,
            Self::Planned => 2,
            Self::Starting { .. } => 3,
            Self::Passing { .. } => 5,
            Self::Ready { .. } => 6,
        }
    }

    /// Whether it is an endpoint in the routes.
    pub(super) fn is_listed(self) -> bool {
        match self {
            Self::Passing { .. } | Self::Ready { .. } | Self::Failing { .. } => true,
            Self::Planned | Self::Starting { .. } | Self::Ended { .. } => false,
        }
    }

    /// Whether it serves: its probes pass.
    pub(super) fn serves(self) -> bool {
        match self {
            Self::Passing { .. } | Self::Ready { .. } => true,
            Self::Planned | Self::Starting { .. } | Self::Failing { .. } | Self::Ended { .. } => {
                false
            }
        }
    }
}

impl Trial {
    pub(super) fn new(now: Instant, spec: &ServiceSpec) -> Self {
        Self {
            ready_by: now.after(spec.rollout.deadline),
            proof: Proof::NeverReady { setbacks: 0 },
        }
    }

    /// Counts a setback. One that was ready gets the healthy deadline anew, once.
    pub(super) fn weigh(&mut self, setback: Setback, now: Instant, spec: &ServiceSpec) -> Weight {
        match (&mut self.proof, setback) {
            (Proof::NeverReady { .. }, Setback::Ended(exit)) => return Weight::EndedUnready(exit),
            (Proof::NeverReady { setbacks }, Setback::Flapped) => *setbacks += 1,
            (Proof::WasReady { setbacks }, Setback::Ended(_) | Setback::Flapped) => {
                *setbacks += 1;
                self.ready_by = now.after(spec.rollout.deadline);
            }
        }
        match self.proof {
            Proof::NeverReady { setbacks } | Proof::WasReady { setbacks }
                if setbacks > SETBACKS_FORGIVEN =>
            {
                Weight::TooMany
            }
            Proof::NeverReady { .. } | Proof::WasReady { .. } => Weight::Forgiven,
        }
    }
}

impl Instance {
    pub(super) fn planned(version: Version, duty: Duty, now: Instant, spec: &ServiceSpec) -> Self {
        Self {
            version,
            duty,
            start: Start::Allowed,
            life: Life::Kept,
            standing: Standing::Planned,
            exposure: Exposure::Never,
            doubted: None,
            trial: Trial::new(now, spec),
            intake: Intake::default(),
            crash_looping: CrashLooping::No,
            seen: None,
            missed: 0,
        }
    }

    pub(super) fn is_kept(&self) -> bool {
        match self.life {
            Life::Kept => true,
            Life::Draining(_) | Life::Stopping { .. } => false,
        }
    }

    /// Whether it is one of those that are kept running.
    pub(super) fn serves(&self) -> bool {
        match self.duty {
            Duty::Serve => true,
            Duty::Before { .. } | Duty::Run { .. } | Duty::Over => false,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.standing, Standing::Ready { .. })
    }

    /// Greater is of more use: what is of least use is drained first. Of those that pass their probes it
    /// is whoever gets no requests because an operator said so: it can get some again at any moment, which
    /// nobody knows of one that starts.
    pub(super) fn usefulness(&self) -> u32 {
        const WITHHELD: u32 = 4;
        let usefulness = self.standing.usefulness();
        if self.intake.takes_any() {
            usefulness
        } else {
            usefulness.min(WITHHELD)
        }
    }

    /// Whether it passes its probes, and gets requests of any client.
    pub(super) fn takes_any(&self) -> bool {
        self.standing.serves() && self.intake.takes_any()
    }

    /// Its endpoint for the routes: running, not starting, and nothing else is wanted of it.
    pub(super) fn endpoint(&self, id: InstanceId) -> Option<Endpoint> {
        if !self.serves() {
            return None;
        }
        let (attempt, health) = match (self.life, self.standing) {
            (Life::Kept, Standing::Passing { attempt, .. } | Standing::Ready { attempt }) => {
                (attempt, EndpointHealth::Passing)
            }
            (Life::Kept, Standing::Failing { attempt }) => (attempt, EndpointHealth::Failing),
            (
                Life::Kept,
                Standing::Planned | Standing::Starting { .. } | Standing::Ended { .. },
            )
            | (Life::Draining(_) | Life::Stopping { .. }, _) => return None,
        };
        let Phase::Running { address, .. } = self.seen.as_ref()?.phase else {
            return None;
        };
        Some(Endpoint {
            instance: id,
            attempt,
            version: self.version,
            address,
            health,
            handle: None,
            intake: self.intake,
        })
    }

    /// Whether a request can still reach it: an attempt of it was in the routes, and nobody has said
    /// that this attempt has ended. That a report lacks it proves nothing.
    pub(super) fn reachable(&self) -> bool {
        if self.doubted.is_some() {
            return true;
        }
        let exposed = match self.exposure {
            Exposure::Never => return false,
            Exposure::Listed { attempt } | Exposure::Unlisted { attempt, .. } => attempt,
        };
        match self.standing {
            Standing::Planned => true,
            Standing::Ended { attempt } => attempt < exposed,
            Standing::Starting { attempt }
            | Standing::Passing { attempt, .. }
            | Standing::Ready { attempt }
            | Standing::Failing { attempt } => attempt <= exposed,
        }
    }

    /// Nobody has routes of an epoch before this one any more.
    pub(super) fn trust(&mut self, name: &ServiceName, number: u64, step: &Step<'_>) {
        let id = instance_id(name, number);
        let doubted = self.doubted;
        self.doubted = doubted.filter(|since| !step.consumers.released(&id, *since));
    }

    /// Ready once it has passed for the minimum healthy time.
    pub(super) fn promote(&mut self, name: &ServiceName, number: u64, step: &mut Step<'_>) {
        let Standing::Passing { attempt, ready_at } = self.standing else {
            return;
        };
        if self.is_kept() && ready_at <= step.clock.now {
            self.standing = Standing::Ready { attempt };
            self.crash_looping = CrashLooping::No;
            let (Proof::NeverReady { setbacks } | Proof::WasReady { setbacks }) = self.trial.proof;
            self.trial.proof = Proof::WasReady { setbacks };
            let instance = instance_id(name, number);
            step.record(name, EventKind::InstanceReady { instance });
        }
    }

    /// The attempt of it that was in the routes, if its end has been told.
    pub(super) fn dead(&self) -> Option<Attempt> {
        match self.exposure {
            Exposure::Never => None,
            Exposure::Listed { attempt } | Exposure::Unlisted { attempt, .. } => {
                (!self.reachable()).then_some(attempt)
            }
        }
    }

    /// Takes in a report of the instance as running or ended.
    pub(super) fn observe(
        &mut self,
        report: &InstanceReport,
        spec: &ServiceSpec,
        step: &mut Step<'_>,
    ) -> Option<Setback> {
        self.missed = 0;
        if self.is_overtaken(report) {
            return None;
        }
        let mut setback = None;
        if let Some(known) = self.standing.running()
            && known != report.attempt
        {
            let end = End {
                attempt: known,
                exit: report.last_exit.unwrap_or(Exit::Lost),
                again_at: None,
            };
            setback = Some(self.end(&report.instance, end, step));
        }
        match &report.phase {
            Phase::Running { pid, health, .. } => {
                if self.standing.running() != Some(report.attempt) {
                    self.standing = Standing::Starting {
                        attempt: report.attempt,
                    };
                    let started = EventKind::InstanceStarted {
                        instance: report.instance.clone(),
                        attempt: report.attempt,
                        pid: *pid,
                    };
                    step.record(&report.instance.service, started);
                }
                let flapped = self.probed(report, *health, spec, step);
                setback = setback.or(flapped);
            }
            Phase::BackingOff {
                exit,
                until,
                crash_looping,
            } => {
                let end = End {
                    attempt: report.attempt,
                    exit: *exit,
                    again_at: Some(*until),
                };
                let ended = self.backs_off(report, end, *crash_looping, step);
                setback = setback.or(ended);
            }
            Phase::Stopping { .. } | Phase::Stopped { .. } => {}
        }
        if self.seen.is_none() {
            // Without an address it was in no routes, not even if it was ready before a restore.
            step.mark_changed();
        }
        self.seen = Some(report.clone());
        setback
    }

    /// Whether the report is older than what is known. Attempts only grow, and none runs again: a
    /// late word of an attempt that ended must not make the present one look dead.
    fn is_overtaken(&self, report: &InstanceReport) -> bool {
        let runs = matches!(report.phase, Phase::Running { .. });
        match self.standing {
            Standing::Planned => false,
            Standing::Ended { attempt } => {
                report.attempt < attempt || (report.attempt == attempt && runs)
            }
            Standing::Starting { attempt }
            | Standing::Passing { attempt, .. }
            | Standing::Ready { attempt }
            | Standing::Failing { attempt } => report.attempt < attempt,
        }
    }

    fn probed(
        &mut self,
        report: &InstanceReport,
        health: ProbedHealth,
        spec: &ServiceSpec,
        step: &mut Step<'_>,
    ) -> Option<Setback> {
        let attempt = report.attempt;
        let instance = report.instance.clone();
        let generation = step.upcoming;
        match (health, self.standing) {
            (ProbedHealth::Passing, Standing::Passing { .. } | Standing::Ready { .. })
            | (ProbedHealth::Failing, Standing::Failing { .. })
            | (
                ProbedHealth::Starting,
                Standing::Planned
                | Standing::Starting { .. }
                | Standing::Failing { .. }
                | Standing::Ended { .. },
            ) => None,
            (
                ProbedHealth::Passing,
                Standing::Planned
                | Standing::Starting { .. }
                | Standing::Failing { .. }
                | Standing::Ended { .. },
            ) => {
                self.standing = Standing::Passing {
                    attempt,
                    ready_at: step.clock.now.after(spec.rollout.hold),
                };
                if self.is_kept() {
                    let passing = EventKind::InstancePassing {
                        instance,
                        attempt,
                        generation,
                    };
                    step.record(&report.instance.service, passing);
                }
                step.mark_changed();
                None
            }
            // An agent that restarted says "starting" of an attempt that we have seen pass, until
            // it has passed again: to us it has fallen.
            (ProbedHealth::Starting, Standing::Passing { .. } | Standing::Ready { .. })
            | (
                ProbedHealth::Failing,
                Standing::Planned
                | Standing::Starting { .. }
                | Standing::Passing { .. }
                | Standing::Ready { .. }
                | Standing::Ended { .. },
            ) => {
                self.standing = Standing::Failing { attempt };
                if self.is_kept() {
                    let failing = EventKind::InstanceFailing {
                        instance,
                        generation,
                        probe_failure: report.probe_failure.clone(),
                    };
                    step.record(&report.instance.service, failing);
                }
                step.mark_changed();
                Some(Setback::Flapped)
            }
        }
    }

    fn backs_off(
        &mut self,
        report: &InstanceReport,
        end: End,
        crash_looping: CrashLooping,
        step: &mut Step<'_>,
    ) -> Option<Setback> {
        let attempt = report.attempt;
        let known = self.standing == Standing::Ended { attempt };
        let setback = (!known).then(|| self.end(&report.instance, end, step));
        if self.crash_looping != crash_looping {
            self.crash_looping = crash_looping;
            step.mark_changed();
            match crash_looping {
                CrashLooping::Yes => {
                    let looping = EventKind::InstanceCrashLooping {
                        instance: report.instance.clone(),
                        attempts: attempt.0,
                    };
                    step.record(&report.instance.service, looping);
                }
                CrashLooping::No => {}
            }
        }
        setback
    }

    /// An attempt ended. Whoever was told to stop ends as it should, which is no event.
    fn end(&mut self, id: &InstanceId, end: End, step: &mut Step<'_>) -> Setback {
        let End {
            attempt,
            exit,
            again_at,
        } = end;
        self.standing = Standing::Ended { attempt };
        let seen = self.seen.as_ref().filter(|seen| seen.attempt == attempt);
        match self.life {
            Life::Kept | Life::Draining(_) => {
                let exited = EventKind::InstanceExited {
                    instance: id.clone(),
                    attempt,
                    exit,
                    probe_failure: seen.and_then(|seen| seen.probe_failure.clone()),
                    again_at,
                };
                step.record(&id.service, exited);
            }
            Life::Stopping { .. } => step.mark_changed(),
        }
        Setback::Ended(exit)
    }

    /// The agent does not have it although it should: what ran of it is lost.
    pub(super) fn lost(&mut self, id: &InstanceId, step: &mut Step<'_>) -> Option<Setback> {
        let Some(attempt) = self.standing.attempt() else {
            self.seen = None;
            return None;
        };
        let end = End {
            attempt,
            exit: Exit::Lost,
            again_at: None,
        };
        let running = self.standing.running().is_some();
        let setback = running.then(|| self.end(id, end, step));
        self.seen = None;
        self.standing = Standing::Planned;
        step.mark_changed();
        setback
    }
}
