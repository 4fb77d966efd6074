//! The judge: knows the truth of the world, and what the machine was told, and compares both with
//! what it decides.
//!
//! `serving` looks at drains and readiness, `reach` at who can reach whom, `order` at what is
//! published, `time` at deadlines, `course` at rollouts. What they remember is here.

mod course;
mod gate;
mod order;
mod reach;
mod serving;
mod time;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use mainstay_control::{Change, Control, Input, Reply};
use mainstay_ids::{ConsumerId, Epoch, Generation, InstanceId, ServiceName, Version};
use mainstay_model::event::PlanReason;
use mainstay_model::{Ack, Event, EventKind, ServiceSpec};

use crate::glance::Glance;
use crate::told::{Told, Wish};
use crate::world::World;
use course::Course;

/// What is remembered of an instance while the machine shows it; all in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Record {
    pub(crate) planned: u64,
    /// When its drain began.
    pub(crate) drained: Option<u64>,
    /// When the time of its drain began to run for the present control centre.
    pub(crate) timed: Option<u64>,
}

/// What the judge remembers.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    pub(crate) told: Told,
    pub(crate) last: Glance,
    /// Instances that run to their end.
    once: BTreeSet<InstanceId>,
    /// Instances that were ordered to run.
    ordered: BTreeSet<InstanceId>,
    /// Instances that were ordered to run to their end.
    ordered_once: BTreeSet<InstanceId>,
    pub(crate) records: BTreeMap<InstanceId, Record>,
    pub(crate) epoch: Epoch,
    pub(crate) restored_ms: u64,
    pub(crate) awaits_report: bool,
    /// The newest generation that each incarnation of a consumer said it had.
    said: BTreeMap<ConsumerId, Generation>,
    pub(crate) farewells: BTreeSet<ConsumerId>,
    /// Instances that a plan told to stop.
    pub(crate) stopped: BTreeSet<InstanceId>,
    planned: BTreeMap<InstanceId, Version>,
    gone: BTreeSet<InstanceId>,
    courses: BTreeMap<ServiceName, Course>,
    last_event: u64,
}

impl Judge {
    /// A consumer sends this.
    pub(crate) fn hear(&mut self, ack: &Ack) {
        if let Some(generation) = ack.generation {
            let newest = self.said.entry(ack.consumer.clone()).or_insert(generation);
            *newest = generation.max(*newest);
        }
    }

    /// The content of a version, as it was declared.
    pub(crate) fn content(
        &self,
        service: &ServiceName,
        version: Version,
    ) -> Option<&Rc<ServiceSpec>> {
        self.told.contents.get(&(service.clone(), version))
    }

    /// A wish was taken over by the machine; it counts once it is durable.
    pub(crate) fn take_wish(&mut self, wish: &Input, reply: &Reply, control: &Control) {
        let Told {
            wishes, contents, ..
        } = &mut self.told;
        match wish {
            Input::Apply(apply) => {
                for (spec, change) in apply.services.iter().zip(&reply.services) {
                    let spec = Rc::new(spec.clone());
                    let wanted = spec.instances;
                    match change.change {
                        Change::Created | Change::Updated => {
                            let key = (spec.name.clone(), change.version);
                            Rc::make_mut(contents).insert(key, Rc::clone(&spec));
                        }
                        Change::Scaled | Change::Unchanged => {}
                    }
                    wishes.insert(spec.name.clone(), Wish::Runs { wanted, spec });
                }
            }
            Input::Scale { service, instances } => {
                if let Some(Wish::Runs { wanted, .. }) = wishes.get_mut(service) {
                    *wanted = *instances;
                }
            }
            Input::Rollback { service, .. } => {
                let version = control.service(service).map(|view| view.version);
                let content = version.and_then(|at| contents.get(&(service.clone(), at)));
                if let (Some(Wish::Runs { spec, .. }), Some(content)) =
                    (wishes.get_mut(service), content)
                {
                    *spec = Rc::clone(content);
                }
            }
            Input::Remove { service } => {
                wishes.insert(service.clone(), Wish::Gone);
            }
            Input::RemoveAll => wishes.values_mut().for_each(|wish| *wish = Wish::Gone),
            Input::StopAll
            | Input::Pause { .. }
            | Input::Resume { .. }
            | Input::Promote { .. }
            | Input::SetIntake(_)
            | Input::DryRun(_)
            | Input::Report(_)
            | Input::ConsumerJoined(_)
            | Input::Ack(_)
            | Input::Farewell(_)
            | Input::Backups(_)
            | Input::Tick => {}
        }
    }

    /// A control centre was restored.
    pub(crate) fn begin_anew(&mut self, control: &Control, epoch: Epoch, now: u64) {
        self.epoch = epoch;
        self.restored_ms = now;
        self.last = Glance::at(control, &self.once);
        self.awaits_report = !self.last.instances.is_empty();
        self.remember(now);
        for record in self.records.values_mut() {
            record.timed = record.timed.map(|_| now);
        }
    }

    /// Brings the records up to the last glance.
    fn remember(&mut self, now: u64) {
        let Self { records, last, .. } = self;
        records.retain(|id, _| last.instances.contains_key(id));
        for (id, shown) in &last.instances {
            let record = records.entry(id.clone()).or_insert(Record {
                planned: now,
                ..Record::default()
            });
            if shown.is_going() {
                record.drained.get_or_insert(now);
                record.timed.get_or_insert(now);
            } else {
                record.drained = None;
                record.timed = None;
            }
            if shown.attempt.is_none() {
                // Nothing of it is known any more, so its attempts count anew.
                self.told.words.remove(id);
            }
        }
    }
}

impl World {
    /// Looks at what one input changed, in memory.
    pub(crate) fn judge_turn(&mut self, events: &[Event]) {
        for event in events {
            if let EventKind::InstancePlanned {
                instance, reason, ..
            } = &event.kind
            {
                match reason {
                    PlanReason::Before | PlanReason::Scheduled => {
                        self.judge.once.insert(instance.clone());
                    }
                    PlanReason::Wanted | PlanReason::Replaces => {
                        self.judge.once.remove(instance);
                    }
                }
            }
        }
        let after = Glance::at(&self.control, &self.judge.once);
        let before = std::mem::replace(&mut self.judge.last, after);
        self.judge.remember(self.now_ms);
        self.judge_serving(&before, events);
        self.judge_readiness();
        self.judge_step(&before);
        self.judge_failures(events);
        self.judge_words();
        self.judge_releases(&before, events);
        self.judge_needs(&before);
        self.judge_paused(&before, events);
    }
}
