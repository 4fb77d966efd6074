//! The machine of a cluster of one node.
//!
//! [`Control::handle`] takes in one input, lets each service advance towards what is wanted, and
//! brings the routes and the plan up to date. Reading order: `contract`, `service` and `instance`
//! (the state), `rollout` and `drain` (the decisions), `report` and `consumers` (what others tell),
//! `declare` (what people ask for), `publish`, `snapshot`.

mod address;
pub(crate) mod consumers;
pub(crate) mod contract;
mod declare;
mod drain;
mod gate;
pub(crate) mod handle;
mod happenings;
mod instance;
mod intake;
mod invariants;
mod journal;
mod needs;
mod once;
mod outlook;
mod publish;
mod report;
mod restore;
mod rollout;
mod service;
pub(crate) mod snapshot;
mod step;
mod supply;
pub(crate) mod views;

use alloc::vec::Vec;

use mainstay_ids::{Epoch, Generation, Instant, NodeName};
use mainstay_model::{
    Ack, BackupNews, BootId, Directory, Event, EventKind, NodePlan, NodeReport, Routing,
};

use consumers::Consumers;
use contract::{AcknowledgedDrain, Apply, Clock, Input, Refusal, Reply, Settings};
use declare::Services;
use handle::StickyKey;
use happenings::HappeningsSeen;
use journal::Journal;
use report::{Accepted, Agent, Strangers};
use service::Service;
use snapshot::{RestoreError, SNAPSHOT_FORMAT, Snapshot};
use step::Step;
use supply::{Room, Supply};

/// Everything that is decided for a cluster of one node.
#[derive(Debug, Clone)]
pub struct Control {
    node: NodeName,
    acknowledged_drain: AcknowledgedDrain,
    epoch: Epoch,
    knowledge: Knowledge,
    purpose: Purpose,
    services: Services,
    strangers: Strangers,
    consumers: Consumers,
    agent: Agent,
    /// Which start of the node was seen last.
    boot: Option<BootId>,
    /// Of what happened on the node beside its instances.
    happenings: HappeningsSeen,
    sticky_key: StickyKey,
    journal: Journal,
    routing: Routing,
    plan: NodePlan,
    directory: Directory,
}

/// Whether enough is known to decide and to publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Knowledge {
    /// Instances are on record and no agent has told how they are: whatever were published now
    /// would take away working ones.
    AwaitsReport,
    Sufficient,
}

/// What the machine works towards. Durable, since a stop of everything goes on when the control
/// centre was killed in it; [`Control::keep_up`] ends it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Purpose {
    #[default]
    KeepUp,
    StopAll,
}

impl Control {
    /// A cluster about which nothing is known.
    pub fn new(node: NodeName, settings: Settings) -> Self {
        Self::at_epoch(Epoch(1), node, settings)
    }

    /// The same, where earlier epochs may have been forgotten: all of them are below this one.
    pub fn at_epoch(epoch: Epoch, node: NodeName, settings: Settings) -> Self {
        let generation = Generation::first(epoch);
        Self {
            plan: NodePlan {
                generation,
                node: node.clone(),
                instances: Vec::new(),
            },
            routing: Routing {
                generation,
                services: Vec::new(),
            },
            directory: Directory {
                generation,
                services: Vec::new(),
            },
            node,
            acknowledged_drain: settings.acknowledged_drain,
            epoch,
            knowledge: Knowledge::Sufficient,
            purpose: Purpose::KeepUp,
            services: Services {
                address_seed: settings.address_seed,
                ranges: settings.ranges,
                ..Services::default()
            },
            strangers: Strangers::default(),
            consumers: Consumers::default(),
            agent: Agent::default(),
            boot: None,
            happenings: HappeningsSeen::default(),
            sticky_key: settings.sticky_key,
            journal: Journal::default(),
        }
    }

    /// The cluster as it was when `snapshot` was taken, in a new epoch; timers start anew.
    pub fn restore(
        snapshot: Snapshot,
        settings: Settings,
        clock: Clock,
    ) -> Result<Self, RestoreError> {
        if snapshot.format > SNAPSHOT_FORMAT {
            let found = snapshot.format;
            return Err(RestoreError::NewerFormat { found });
        }
        let epoch = Epoch(snapshot.epoch.0 + 1);
        let sticky_key = settings.sticky_key;
        let mut control = Self::at_epoch(epoch, snapshot.node, settings);
        control.purpose = snapshot.purpose;
        for record in snapshot.services {
            let (name, service) = Service::restore(record, epoch, clock)?;
            if !service.instances.is_empty() {
                control.knowledge = Knowledge::AwaitsReport;
            }
            control.services.by_name.insert(name, service);
        }
        control.services.retired = snapshot.retired.into_iter().collect();
        control.boot = snapshot.boot;
        control.happenings = HappeningsSeen::restore(snapshot.happenings);
        control.sticky_key = snapshot.sticky_key.unwrap_or(sticky_key);
        control.consumers = Consumers::restore(snapshot.consumers, clock.now);
        control.journal = Journal::resumed(snapshot.event);
        control.record_start(clock);
        control.publish();
        Ok(control)
    }

    /// Whoever asked to stop everything has got it, and Mainstay was started again since: what is
    /// declared is kept up.
    pub fn keep_up(&mut self) {
        if self.purpose == Purpose::StopAll {
            self.purpose = Purpose::KeepUp;
            self.journal.mark_changed();
            self.publish();
        }
    }

    fn record_start(&mut self, clock: Clock) {
        let services = self.services.by_name.values();
        let instances: usize = services.map(|service| service.instances.len()).sum();
        let started = EventKind::ControlStarted {
            services: u32::try_from(self.services.by_name.len()).unwrap_or(u32::MAX),
            instances: u32::try_from(instances).unwrap_or(u32::MAX),
        };
        self.journal.record(clock, None, started);
    }

    /// Takes in what happened and decides everything that follows from it. A refusal changes
    /// nothing.
    pub fn handle(&mut self, clock: Clock, input: Input) -> Result<Reply, Refusal> {
        if self.journal.last() == 0 {
            self.record_start(clock);
        }
        let before = self.journal.changes();
        let event = self.journal.last();
        let reply = self.take_in(clock, input)?;
        self.consumers.notice_mute(clock, &mut self.journal);
        if self.may_publish() {
            let purpose = self.purpose;
            let supply = self.services.supply();
            let (services, strangers, mut step) = self.step(clock, &supply);
            for (name, service) in &mut services.by_name {
                match purpose {
                    Purpose::KeepUp => service.advance(name, &mut step),
                    Purpose::StopAll => service.wind_down(name, &mut step),
                }
            }
            services.retire(&mut step);
            let supply = services.supply();
            services.release(&mut step.with_supply(&supply));
            strangers.finish_drains(&mut step);
        }
        // Whatever the routes and the plan are made from, a change of it is in the journal.
        if self.journal.changes() != before {
            self.publish();
        }
        if cfg!(debug_assertions) {
            self.check_invariants();
        }
        Ok(Reply { event, ..reply })
    }

    fn take_in(&mut self, clock: Clock, input: Input) -> Result<Reply, Refusal> {
        if self.purpose == Purpose::StopAll && starts_something(&input) {
            return Err(Refusal::StoppingAll);
        }
        let mut reply = Reply::default();
        // What an input itself plans is looked at again by every service's advance.
        let supply = Supply::default();
        let published = self.routing.generation;
        match input {
            Input::Report(report) => self.take_report(clock, &report)?,
            Input::ConsumerJoined(consumer) => {
                self.consumers.join(clock, &consumer, &mut self.journal)?;
            }
            Input::Ack(ack) => {
                let journal = &mut self.journal;
                self.consumers.acknowledge(clock, ack, published, journal)?;
            }
            Input::Farewell(consumer) => {
                self.consumers.farewell(clock, &consumer, &mut self.journal);
            }
            Input::Backups(news) => self.hear_of_backups(clock, news),
            Input::Tick => {}
            Input::DryRun(apply) => {
                let checked = self.services.check(apply)?;
                reply.outlook = Some(self.services.outlook(&checked));
                reply.services = checked.services.into_iter().map(|one| one.change).collect();
                reply.notes = checked.notes;
            }
            Input::Apply(apply) => self.apply(clock, apply, &mut reply)?,
            Input::Scale { service, instances } => {
                let (services, _, mut step) = self.step(clock, &supply);
                services.scale(&service, instances, &mut step)?;
            }
            Input::Rollback { service, to } => {
                let (services, _, mut step) = self.step(clock, &supply);
                services.roll_back(&service, to, &mut step)?;
            }
            Input::Remove { service } => {
                let (services, _, mut step) = self.step(clock, &supply);
                reply.notes = services.remove(&service, &mut step)?;
            }
            Input::RemoveAll => {
                let (services, _, mut step) = self.step(clock, &supply);
                services.remove_all(&mut step);
            }
            Input::Pause { service } => {
                let (services, _, mut step) = self.step(clock, &supply);
                services.pause(&service, &mut step)?;
            }
            Input::Resume { service } => {
                let (services, _, mut step) = self.step(clock, &supply);
                services.resume(&service, &mut step)?;
            }
            Input::Promote { service } => {
                let (services, _, mut step) = self.step(clock, &supply);
                services.promote(&service, &mut step)?;
            }
            Input::SetIntake(wish) => {
                let (services, _, mut step) = self.step(clock, &supply);
                services.set_intake(wish, &mut step)?;
            }
            Input::StopAll => {
                self.purpose = Purpose::StopAll;
                // The reason in the routes changes even where there is nothing to stop.
                self.journal.mark_changed();
            }
        }
        Ok(reply)
    }

    fn hear_of_backups(&mut self, clock: Clock, news: BackupNews) {
        let told = EventKind::Backups { news };
        self.journal.record(clock, None, told);
    }

    fn apply(&mut self, clock: Clock, apply: Apply, reply: &mut Reply) -> Result<(), Refusal> {
        let supply = Supply::default();
        let (services, _, mut step) = self.step(clock, &supply);
        let checked = services.check(apply)?;
        reply.notes = checked.notes;
        for one in checked.services {
            reply.services.push(one.change.clone());
            services.declare(one, &mut step);
        }
        Ok(())
    }

    fn take_report(&mut self, clock: Clock, report: &NodeReport) -> Result<(), Refusal> {
        if report.node != self.node {
            let node = report.node.clone();
            return Err(Refusal::UnknownNode { node });
        }
        match self.agent.accept(report, clock.now) {
            Accepted::Stale => return Ok(()),
            Accepted::Fresh => {}
        }
        let rebooted = report.boot.is_some() && self.boot.is_some() && report.boot != self.boot;
        if report.boot.is_some() && report.boot != self.boot {
            self.boot.clone_from(&report.boot);
            self.journal.mark_changed();
        }
        let (happenings, node) = (&mut self.happenings, &self.node);
        happenings.observe(clock, node, &report.happenings, &mut self.journal);
        let supply = Supply::default();
        if let (true, Some(boot)) = (rebooted, report.boot.clone()) {
            let rebooted = EventKind::NodeRebooted { boot };
            self.journal.record(clock, None, rebooted);
            let (services, _, mut step) = self.step(clock, &supply);
            services.hold_after_reboot(&mut step);
        }
        let (services, strangers, mut step) = self.step(clock, &supply);
        services.room = report.capacity.map_or(Room::Untold, Room::Told);
        services.observe(report, &mut step);
        strangers.observe(report, services, &mut step);
        if self.knowledge == Knowledge::AwaitsReport {
            self.knowledge = Knowledge::Sufficient;
            self.journal.mark_changed();
        }
        Ok(())
    }

    /// The state to decide on, apart from what every decision has at hand.
    fn step<'a>(
        &'a mut self,
        clock: Clock,
        supply: &'a Supply,
    ) -> (&'a mut Services, &'a mut Strangers, Step<'a>) {
        let step = Step {
            supply,
            clock,
            acknowledged_drain: self.acknowledged_drain,
            upcoming: self.upcoming(),
            routed_in: self.routing.generation,
            consumers: &self.consumers,
            journal: &mut self.journal,
        };
        (&mut self.services, &mut self.strangers, step)
    }

    /// The generation of the next change. Routes, plan and directory share the counter, so that what
    /// one input changes in several has one number.
    fn upcoming(&self) -> Generation {
        let routed = self.routing.generation;
        let published = routed.max(self.plan.generation);
        published.max(self.directory.generation).next()
    }

    fn publish(&mut self) {
        if !self.may_publish() {
            return;
        }
        let upcoming = self.upcoming();
        self.services
            .publish_routing(self.purpose, self.sticky_key, &mut self.routing, upcoming);
        self.services
            .publish_plan(&self.strangers, &mut self.plan, upcoming);
        self.services
            .publish_directory(self.purpose, &mut self.directory, upcoming);
    }

    /// When [`Control::handle`] wants [`Input::Tick`]; `None`: only when something happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        let consumers = self.consumers.next_deadline();
        if !self.may_publish() {
            return consumers;
        }
        let services = self.services.by_name.values();
        let next = match self.purpose {
            Purpose::KeepUp => Service::next_deadline,
            Purpose::StopAll => Service::next_drain_end,
        };
        services
            .filter_map(next)
            .chain(self.strangers.next_deadline())
            .chain(consumers)
            .min()
    }

    /// Who may receive traffic. A changed content has the next generation.
    pub fn routing(&self) -> &Routing {
        &self.routing
    }

    /// What the agent is to do. A changed content has the next generation.
    pub fn plan(&self) -> &NodePlan {
        &self.plan
    }

    /// Where services are found by name. A changed content has the next generation.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Whether routing and plan may be given out. After a restore not until the agent has reported
    /// once: until then everybody goes on with the last good state.
    pub fn may_publish(&self) -> bool {
        match self.knowledge {
            Knowledge::AwaitsReport => false,
            Knowledge::Sufficient => true,
        }
    }

    /// Whether the input must be durable before it is answered, or be refused. So a wish of
    /// somebody, and the word of a consumer for which no drain would wait if it were forgotten: it
    /// may get the routes once it is remembered. All else has happened already, or changes nothing.
    pub fn must_be_durable(&self, input: &Input) -> bool {
        match input {
            Input::Apply(_)
            | Input::Scale { .. }
            | Input::Rollback { .. }
            | Input::Remove { .. }
            | Input::RemoveAll
            | Input::Pause { .. }
            | Input::Resume { .. }
            | Input::Promote { .. }
            | Input::SetIntake(_)
            | Input::StopAll => true,
            Input::ConsumerJoined(consumer) | Input::Ack(Ack { consumer, .. }) => {
                !self.consumers.waits_for(consumer)
            }
            Input::DryRun(_)
            | Input::Report(_)
            | Input::Farewell(_)
            | Input::Backups(_)
            | Input::Tick => false,
        }
    }

    /// The events since the last call, in order.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.journal.take()
    }

    /// The number of the last recorded event.
    pub fn last_event(&self) -> u64 {
        self.journal.last()
    }

    /// What must be durable before the events, the routing and the plan of this moment are given
    /// out.
    pub fn snapshot(&self) -> Snapshot {
        let services = self.services.by_name.iter();
        let retired = self.services.retired.iter();
        Snapshot {
            format: SNAPSHOT_FORMAT,
            node: self.node.clone(),
            epoch: self.epoch,
            purpose: self.purpose,
            event: self.journal.last(),
            boot: self.boot.clone(),
            happenings: self.happenings.records(),
            sticky_key: Some(self.sticky_key),
            services: services
                .map(|(name, service)| service.record(name))
                .collect(),
            consumers: self.consumers.records(),
            retired: retired.map(|(name, next)| (name.clone(), *next)).collect(),
        }
    }

    /// Whether [`Control::snapshot`] may say something else than at the last call of this.
    pub fn snapshot_changed(&mut self) -> bool {
        self.journal.take_changed()
    }
}

/// Whether the input asks for instances that would have to be started.
fn starts_something(input: &Input) -> bool {
    match input {
        Input::Apply(_) | Input::Scale { .. } | Input::Rollback { .. } | Input::Resume { .. } => {
            true
        }
        Input::DryRun(_)
        | Input::Remove { .. }
        | Input::RemoveAll
        | Input::StopAll
        | Input::Pause { .. }
        | Input::Promote { .. }
        | Input::SetIntake(_)
        | Input::Report(_)
        | Input::ConsumerJoined(_)
        | Input::Ack(_)
        | Input::Farewell(_)
        | Input::Backups(_)
        | Input::Tick => false,
    }
}
