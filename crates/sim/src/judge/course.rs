//! The courses of services, as the durable events tell them.

use std::collections::BTreeSet;

use mainstay_ids::{InstanceId, ServiceName, Timestamp, Version};
use mainstay_model::event::{DrainOutcome, PlanReason, RollbackAsked};
use mainstay_model::{Event, EventKind, Exit, ServiceSpec};

use super::Judge;
use crate::broken::Promise;
use crate::world::World;

/// Whoever is of least use makes room, even of the version that is wanted, and another of it is
/// started once there is room: that is one turn.
const TURNS_FORGIVEN: u32 = 1;

/// What is remembered of a service's course.
#[derive(Debug, Clone, Default)]
pub(crate) struct Course {
    /// Versions of which instances were drained since the course last changed.
    drained: BTreeSet<Version>,
    /// How often one of a version was planned after another of it was drained.
    turns: u32,
    /// How often something ran before the rollout under way.
    befores: u32,
    /// Whether the rollout under way goes back.
    goes_back: bool,
    /// Versions before which what runs before them has come to a good end.
    prepared: BTreeSet<Version>,
    /// Versions to which somebody went back, which runs nothing before.
    admitted: BTreeSet<Version>,
    /// The latest time of day at which a run of the schedule was planned.
    ran_at: Option<Timestamp>,
    /// Whether the last rollout has failed and stays as it is.
    failed: bool,
    /// Instances that were planned.
    planned: BTreeSet<u64>,
}

impl Course {
    fn begin(&mut self) {
        self.drained.clear();
        self.turns = 0;
    }
}

impl Judge {
    /// What was stopped for now is started again.
    pub(crate) fn begin_courses(&mut self) {
        for course in self.courses.values_mut() {
            course.begin();
            course.befores = 0;
        }
    }
}

impl World {
    pub(crate) fn judge_course(&mut self, event: &Event) {
        self.tally_event(&event.kind);
        let Some(service) = event.service.clone() else {
            return;
        };
        let mut course = self.judge.courses.remove(&service).unwrap_or_default();
        match &event.kind {
            EventKind::RolloutResumed { .. } => {
                course.befores = 0;
                // What has failed begins anew, and no more as a way back.
                course.goes_back &= !course.failed;
                course.failed = false;
            }
            EventKind::RolloutStarted { .. } => {
                course.begin();
                course.befores = 0;
                course.ran_at = None;
                course.goes_back = false;
                course.failed = false;
            }
            EventKind::RollbackStarted { from, to, asked } => {
                course.begin();
                if *asked == RollbackAsked::ByFailure {
                    self.judge_way_back(&service, &course, *from, *to);
                }
                course.goes_back = true;
                course.admitted.insert(*to);
                course.failed = false;
            }
            EventKind::RolloutPaused { .. } => {
                course.failed = true;
                course.begin();
            }
            EventKind::Scaled { .. }
            | EventKind::IntakeSet { .. }
            | EventKind::RolloutFinished { .. }
            | EventKind::RemovalStarted => course.begin(),
            EventKind::InstancePlanned {
                instance,
                version,
                reason,
            } => {
                let serves = self.judge_once(&service, &mut course, event, *version, *reason);
                course.turns += u32::from(serves && course.drained.remove(version));
                self.judge_planned(&mut course, instance, *version);
            }
            EventKind::BeforeFinished {
                version,
                exit: Some(Exit::Code(0)),
                ..
            } => {
                course.prepared.insert(*version);
            }
            EventKind::Removed => {
                course.prepared.clear();
                course.admitted.clear();
                course.ran_at = None;
            }
            EventKind::DrainStarted { instance, .. } => {
                course.drained.extend(self.version_of(instance));
            }
            _ => {}
        }
        self.judge.courses.insert(service, course);
    }

    /// Nothing is planned twice, and no version comes and goes in turn.
    fn judge_planned(&mut self, course: &mut Course, instance: &InstanceId, version: Version) {
        if course.turns > TURNS_FORGIVEN {
            let what = format!("{instance} of {version}, of which one was just drained");
            self.breaks(Promise::NoTurns, what);
        }
        if !course.planned.insert(instance.number) {
            let what = format!("{instance} is planned twice");
            self.breaks(Promise::NothingTwice, what);
        }
    }

    /// What runs to its end: once before a version, once per time of the schedule. Whether it is an
    /// instance that serves.
    fn judge_once(
        &mut self,
        service: &ServiceName,
        course: &mut Course,
        event: &Event,
        version: Version,
        reason: PlanReason,
    ) -> bool {
        let content = self.judge.content(service, version).cloned();
        let Some(content) = content else {
            return true;
        };
        let prepared = course.prepared.contains(&version);
        match reason {
            PlanReason::Before => {
                self.tally.count("before planned");
                course.befores += 1;
                if course.befores > 1 {
                    let what = format!("what runs before {version} of {service} runs again");
                    self.breaks(Promise::OneAtATime, what);
                }
                if prepared {
                    let what = format!("what runs before {version} of {service} runs again");
                    self.breaks(Promise::OneAtATime, what);
                }
            }
            PlanReason::Scheduled => {
                self.tally.count("run planned");
                let cron = content.schedule.as_ref().map(|schedule| &schedule.cron);
                let since = course.ran_at.zip(cron);
                let next = since.and_then(|(ran, cron)| cron.next_after(ran));
                if course.ran_at.is_some() && next.is_none_or(|next| next > event.at) {
                    let what = format!("{service} runs at {} for a time it ran for", event.at);
                    self.breaks(Promise::OneAtATime, what);
                }
                course.ran_at = course.ran_at.max(Some(event.at));
            }
            PlanReason::Wanted | PlanReason::Replaces => {
                let admitted = course.admitted.contains(&version);
                if !content.before.is_empty() && !prepared && !admitted {
                    let what = format!("{version} of {service} starts unprepared");
                    self.breaks(Promise::OneAtATime, what);
                }
                return true;
            }
        }
        false
    }

    fn version_of(&self, id: &InstanceId) -> Option<Version> {
        self.judge.last.instances.get(id).map(|shown| shown.version)
    }

    fn judge_way_back(
        &mut self,
        service: &ServiceName,
        course: &Course,
        from: Version,
        to: Version,
    ) {
        if course.goes_back {
            let what = format!("{service} goes back to {to} from a way back to {from}");
            self.breaks(Promise::OneWayBack, what);
        }
        let content = |version| self.judge.content(service, version);
        if let (Some(one), Some(other)) = (content(from), content(to))
            && same_content(one, other)
        {
            let what = format!("{service} goes back from {from} to the same content, {to}");
            self.breaks(Promise::OneWayBack, what);
        }
    }

    fn tally_event(&mut self, kind: &EventKind) {
        let what = match kind {
            EventKind::DrainFinished { outcome, .. } => match outcome {
                DrainOutcome::Acknowledged => "drain acknowledged",
                DrainOutcome::TimeOver => {
                    self.drains_over.push(self.now_ms);
                    "drain time over"
                }
                DrainOutcome::Unreachable => "drain unreachable",
            },
            EventKind::RolloutFinished { .. } => "rollout finished",
            EventKind::RolloutFailed { .. } => "rollout failed",
            EventKind::RollbackStarted { asked, .. } => match asked {
                RollbackAsked::ByFailure => "rollback by failure",
                RollbackAsked::ByUser => "rollback by user",
            },
            EventKind::RolloutPaused { .. } => "rollout paused",
            EventKind::RolloutHeld { .. } => "rollout held",
            EventKind::Promoted { .. } => "promoted",
            EventKind::InstanceHeld { .. } => "instance held",
            EventKind::NodeRebooted { .. } => "reboot",
            EventKind::Removed => "removed",
            EventKind::InstanceCrashLooping { .. } => "crash loop",
            EventKind::ConsumerMute { .. } => "consumer mute",
            EventKind::ConsumerGone { .. } => "consumer gone",
            EventKind::InstanceReady { .. } => "instance ready",
            _ => return,
        };
        self.tally.count(what);
    }
}

fn same_content(one: &ServiceSpec, other: &ServiceSpec) -> bool {
    let alike = ServiceSpec {
        instances: other.instances,
        ..one.clone()
    };
    alike == *other
}
