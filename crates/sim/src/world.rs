//! A small world around the machine, in virtual time: an agent with programs, consumers with
//! workers, a disk, and a judge who knows the truth and looks after each input whether a promise
//! was broken.

use std::time::Duration;

use mainstay_control::{
    Apply, Clock, Control, Input, Refusal, Reply, ServiceView, Settings, Snapshot,
};
use mainstay_ids::{Epoch, InstanceId, Instant, NodeName, Timestamp};
use mainstay_model::{
    Event, EventKind, InstanceReport, NodePlan, Phase, ProbedHealth, Routing, ServiceSpec,
};

use crate::agent::Agent;
use crate::broken::{Broken, Promise};
use crate::consumer::Consumer;
use crate::fixtures::name;
use crate::judge::Judge;
use crate::tally::Tally;
use crate::told::Told;

/// When the control centre is killed in the course of one input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It is not.
    Never,
    /// Nothing of it is durable.
    BeforeSaving,
    /// It is durable, and nobody has heard of it.
    BeforePublishing,
    /// It was published, and the asker has no answer.
    AfterPublishing,
    /// As before publishing, and its successor at once again.
    Twice,
}

/// What became of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was taken over.
    Taken(Reply),
    /// It was refused by the machine.
    Refused(Refusal),
    /// It is a wish and cannot be made durable.
    RefusedByDisk,
    /// The control centre was killed before it could answer.
    Nobody,
}

/// Whether the disk holds what the machine knows, as in the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durability {
    Kept,
    Behind { retry: u64 },
}

/// The time between two attempts to save while the disk refuses, as in the server.
const SAVE_RETRY_MS: u64 = 1000;
/// So many ticks in a row that leave a deadline in the past are an endless loop.
const TICKS_MAX: u32 = 100;

/// What is durable.
struct Disk {
    snapshot: Snapshot,
    told: Told,
    refuses_until: u64,
}

/// What the clock on the wall shows when the world begins.
pub(crate) const WALL_START_MS: u64 = 1_800_000_000_000;

/// The world.
pub struct World {
    /// The machine.
    pub control: Control,
    settings: Settings,
    /// Milliseconds of the world's life.
    pub now_ms: u64,
    /// How far the clock on the wall is off, in milliseconds.
    pub wall_offset_ms: i64,
    disk: Disk,
    durability: Durability,
    saves: u32,
    /// Everything was told to stop, until the control centre is started anew.
    pub stops_all: bool,
    /// When drains ended because their time was over.
    pub(crate) drains_over: Vec<u64>,
    /// The control centre is down until the disk takes its new epoch.
    pub down: bool,
    /// What watchers get at present.
    pub routing: Routing,
    /// What the agent gets at present.
    pub plan: NodePlan,
    /// The agent.
    pub agent: Agent,
    /// The followers of the routes.
    pub consumers: Vec<Consumer>,
    /// The durable events.
    pub events: Vec<Event>,
    /// Events that are not durable yet.
    pending: Vec<Event>,
    pub(crate) judge: Judge,
    /// Every broken promise.
    pub broken: Vec<Broken>,
    pub(crate) tally: Tally,
    trace: Option<Vec<String>>,
}

impl World {
    /// A world in which nothing runs.
    pub fn new(settings: Settings) -> Self {
        let node = NodeName::parse("local").expect("a legal name");
        let control = Control::new(node, settings.clone());
        Self {
            routing: control.routing().clone(),
            plan: control.plan().clone(),
            disk: Disk {
                snapshot: control.snapshot(),
                told: Told::default(),
                refuses_until: 0,
            },
            control,
            settings,
            now_ms: 1000,
            wall_offset_ms: 0,
            durability: Durability::Kept,
            saves: 0,
            stops_all: false,
            drains_over: Vec::new(),
            down: false,
            agent: Agent::new(),
            consumers: Vec::new(),
            events: Vec::new(),
            pending: Vec::new(),
            judge: Judge::default(),
            broken: Vec::new(),
            tally: Tally::default(),
            trace: None,
        }
    }

    /// Keeps a line for each step from now on.
    pub fn keep_trace(&mut self) {
        self.trace = Some(Vec::new());
    }

    /// The lines kept so far.
    pub fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>7} {}", self.now_ms, line()));
        }
    }

    pub(crate) fn breaks(&mut self, promise: Promise, what: String) {
        self.note(|| format!("BROKEN {}: {what}", promise.name()));
        self.broken.push(Broken {
            promise,
            at_ms: self.now_ms,
            what,
        });
    }

    /// What the agent saw broken counts too.
    pub fn collect_broken(&mut self) -> &[Broken] {
        for (promise, what) in std::mem::take(&mut self.agent.broken) {
            self.breaks(promise, what);
        }
        &self.broken
    }

    /// Sets the time of day forward or back.
    pub fn set_clock(&mut self, by_ms: i64) {
        self.wall_offset_ms += by_ms;
    }

    /// The time of an input.
    pub fn clock(&self) -> Clock {
        let wall = WALL_START_MS + self.now_ms;
        Clock {
            now: Instant::from_start(Duration::from_millis(self.now_ms)),
            at: Timestamp(wall.saturating_add_signed(self.wall_offset_ms)),
        }
    }

    /// Hands in one input of a world in which nothing goes wrong.
    pub fn input(&mut self, input: Input) -> Result<Reply, Refusal> {
        if let Input::Ack(ack) = &input {
            self.judge.hear(ack);
        }
        if let Input::Farewell(consumer) = &input {
            self.judge.farewells.insert(consumer.clone());
        }
        match self.hand_in(input, Cut::Never) {
            Answer::Taken(reply) => Ok(reply),
            Answer::Refused(refusal) => Err(refusal),
            Answer::RefusedByDisk | Answer::Nobody => {
                panic!("the control centre and its disk are there")
            }
        }
    }

    /// Hands in one input as the server does: decide, save, publish, answer.
    pub fn hand_in(&mut self, input: Input, cut: Cut) -> Answer {
        if self.down {
            return Answer::Nobody;
        }
        self.note(|| format!("{} {}", describe(&input), describe_cut(cut)));
        let wish = self.control.must_be_durable(&input);
        let wish = wish.then(|| input.clone());
        let refuses = self.disk.refuses_until > self.now_ms;
        let undo =
            (wish.is_some() && refuses).then(|| (self.control.clone(), self.judge.told.clone()));
        if let Input::Report(report) = &input {
            self.judge.told.take(report, self.now_ms);
            self.judge.awaits_report = false;
        }
        let reply = self.control.handle(self.clock(), input);
        let events = self.control.take_events();
        if let (Some(wish), Ok(reply)) = (&wish, &reply) {
            self.judge.take_wish(wish, reply, &self.control);
        }
        let stops_all = matches!(wish, Some(Input::StopAll)) && reply.is_ok();
        if cut == Cut::BeforeSaving {
            self.restart_control();
            return Answer::Nobody;
        }
        let saved = self.save(wish.is_some());
        if let (Err(Refused), Some((control, told))) = (saved, undo) {
            self.note(|| "the disk refuses the wish".into());
            self.control = control;
            self.judge.told = told;
            return match reply {
                Ok(_) => Answer::RefusedByDisk,
                Err(refusal) => Answer::Refused(refusal),
            };
        }
        self.stops_all |= stops_all;
        self.judge_turn(&events);
        self.pending.extend(events);
        self.record();
        match cut {
            Cut::Never | Cut::BeforeSaving => self.publish(),
            Cut::BeforePublishing => self.restart_control(),
            Cut::Twice => {
                self.restart_control();
                self.restart_control();
            }
            Cut::AfterPublishing => {
                self.publish();
                self.restart_control();
            }
        }
        match (cut, reply) {
            (Cut::Never, Ok(reply)) => Answer::Taken(reply),
            (Cut::Never, Err(refusal)) => Answer::Refused(refusal),
            (Cut::BeforeSaving | Cut::BeforePublishing | Cut::AfterPublishing | Cut::Twice, _) => {
                Answer::Nobody
            }
        }
    }

    /// As the server: saves if there is something to save, and if it is time to try.
    fn save(&mut self, wished: bool) -> Result<(), Refused> {
        self.saves += 1;
        let changed = self.control.snapshot_changed();
        let due = match self.durability {
            Durability::Kept => changed,
            Durability::Behind { retry } => retry <= self.now_ms || (changed && wished),
        };
        if due && self.disk.refuses_until > self.now_ms {
            let retry = self.now_ms + SAVE_RETRY_MS;
            self.durability = Durability::Behind { retry };
            self.tally.count("save refused");
            return Err(Refused);
        }
        if due {
            self.durability = Durability::Kept;
            self.disk.snapshot = self.control.snapshot();
            self.disk.told = self.judge.told.clone();
        } else if self.durability == Durability::Kept
            && self.saves.is_multiple_of(8)
            && self.disk.snapshot != self.control.snapshot()
        {
            let what = "the snapshot changed and does not say so".into();
            self.breaks(Promise::Durable, what);
        }
        Ok(())
    }

    /// Events become visible for good once the state that holds their numbers is durable.
    fn record(&mut self) {
        if self.durability == Durability::Kept {
            for event in std::mem::take(&mut self.pending) {
                self.note(|| format!("  #{} {}", event.number, event.kind));
                self.judge_event(&event);
                self.events.push(event);
            }
        }
    }

    /// SIGKILL of the control centre, and the next one starts from the disk.
    pub fn restart_control(&mut self) {
        self.tally.count("restart");
        self.pending.clear();
        for consumer in &mut self.consumers {
            consumer.joined = false;
        }
        self.durability = Durability::Kept;
        if self.disk.refuses_until > self.now_ms {
            self.note(|| "control centre killed, and cannot start".into());
            self.down = true;
            return;
        }
        self.down = false;
        let text = serde_json::to_string(&self.disk.snapshot).expect("it is JSON");
        let snapshot: Snapshot = serde_json::from_str(&text).expect("it was written by us");
        let restored = Control::restore(snapshot, self.settings.clone(), self.clock());
        self.control = restored.expect("it was written by us");
        self.judge.told = self.disk.told.clone();
        self.judge.told.begin_anew();
        let epoch = self.control.routing().generation.epoch;
        self.note(|| format!("control centre starts, epoch {}", epoch.0));
        self.judge_restored(&text, epoch);
        let events = self.control.take_events();
        self.save(false).expect("the disk takes it");
        self.pending.extend(events);
        self.record();
        self.publish();
    }

    /// Mainstay is started again after everything was stopped.
    pub fn keep_up(&mut self) {
        if self.down {
            return;
        }
        self.note(|| "what is declared is kept up again".into());
        self.stops_all = false;
        self.judge.begin_courses();
        self.control.keep_up();
        // It is said again at the next start if it could not be made durable.
        let _ = self.save(false);
        self.publish();
    }

    fn judge_restored(&mut self, saved: &str, epoch: Epoch) {
        let normal = |text: &str| {
            let mut json: serde_json::Value = serde_json::from_str(text).expect("it is JSON");
            json["epoch"] = 0.into();
            json["event"] = 0.into();
            json
        };
        let again = serde_json::to_string(&self.control.snapshot()).expect("it is JSON");
        if normal(saved) != normal(&again) {
            let what = format!("restored is something else than saved:\n{saved}\n{again}");
            self.breaks(Promise::Durable, what);
        }
        if epoch <= self.judge.epoch {
            let what = format!("epoch {} after {}", epoch.0, self.judge.epoch.0);
            self.breaks(Promise::Order, what);
        }
        self.judge.begin_anew(&self.control, epoch, self.now_ms);
        if self.judge.awaits_report && self.control.may_publish() {
            let what = "instances are on record, and no report is awaited".into();
            self.breaks(Promise::WaitsForReport, what);
        }
    }

    fn publish(&mut self) {
        if !self.control.may_publish() {
            return;
        }
        if self.judge.awaits_report {
            let what = "something is published before the first report".into();
            self.breaks(Promise::WaitsForReport, what);
        }
        if self.control.routing().generation != self.routing.generation
            || self.control.routing().services != self.routing.services
        {
            let routing = self.control.routing().clone();
            self.note(|| format!("  routes {}", routing.generation));
            self.judge_routing_order(&routing);
            self.routing = routing;
        }
        self.judge_routing();
        let plan = self.control.plan();
        let changed = *plan != self.plan;
        if changed && self.durability == Durability::Kept {
            let plan = plan.clone();
            self.note(|| format!("  plan {}", plan.generation));
            self.judge_plan(&plan);
            self.plan = plan;
        }
    }

    /// Whether routes and plan are given out.
    pub(crate) fn publishes(&self) -> bool {
        !self.down && self.control.may_publish()
    }

    /// Whether a plan of this run is given out: one that is not durable is not.
    pub(crate) fn gives_plan(&self) -> bool {
        let epoch = self.control.plan().generation.epoch;
        self.publishes() && self.plan.generation.epoch == epoch
    }

    /// The disk refuses all saves for so long.
    pub fn refuse_saves(&mut self, ms: u64) {
        self.disk.refuses_until = self.now_ms + ms;
        self.note(|| format!("the disk refuses for {ms} ms"));
    }

    /// The disk takes saves again.
    pub fn repair_disk(&mut self) {
        self.disk.refuses_until = 0;
    }

    /// Whether what the machine knows is durable.
    pub(crate) fn is_durable(&self) -> bool {
        self.durability == Durability::Kept
    }

    /// Lets time pass; every deadline on the way is kept to the millisecond.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while let Some(due) = self.next_wake()
            && due <= end
        {
            self.now_ms = self.now_ms.max(due);
            self.tick();
            if !self.broken.is_empty() {
                break;
            }
        }
        self.now_ms = end;
        self.judge_time();
    }

    fn next_wake(&self) -> Option<u64> {
        if self.down {
            return Some(self.disk.refuses_until);
        }
        let deadline = self.control.next_deadline();
        let deadline = deadline.map(|at| at.since_start().as_nanos().div_ceil(1_000_000) as u64);
        let retry = match self.durability {
            Durability::Kept => None,
            Durability::Behind { retry } => Some(retry),
        };
        deadline.into_iter().chain(retry).min()
    }

    /// The time of a deadline has come.
    pub fn tick(&mut self) {
        if self.down {
            self.restart_control();
            return;
        }
        let mut ticks = 0;
        while self.next_wake().is_some_and(|at| at <= self.now_ms) {
            self.hand_in(Input::Tick, Cut::Never);
            ticks += 1;
            if ticks >= TICKS_MAX {
                self.breaks(Promise::OnTime, "a deadline stays in the past".into());
                return;
            }
        }
    }

    /// A service that is there.
    pub fn service(&self, service: &str) -> ServiceView<'_> {
        self.control.service(&name(service)).expect("it exists")
    }

    /// Declares one service that is legal.
    pub fn apply(&mut self, spec: ServiceSpec) -> Reply {
        let services = vec![spec];
        self.input(Input::Apply(Apply { services }))
            .expect("it is legal")
    }

    /// How often such a thing happened.
    pub fn happened(&self, is: impl Fn(&EventKind) -> bool) -> usize {
        self.events.iter().filter(|event| is(&event.kind)).count()
    }

    /// Lets everybody do their duty for so long, every 25 ms.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now_ms + duration.as_millis() as u64;
        while self.now_ms < end {
            self.pass(25);
            self.agent.fetch(&self.plan);
            self.agent.step(self.now_ms);
            let report = self.agent.report();
            self.hand_in(Input::Report(report), Cut::Never);
            for at in 0..self.consumers.len() {
                if self.consumers[at].frozen {
                    continue;
                }
                let routing = self.routing.clone();
                self.consumers[at].apply_everywhere(&routing);
                self.acknowledge(at);
            }
        }
    }

    /// A consumer acknowledges, and is heard.
    pub fn acknowledge(&mut self, at: usize) {
        let ack = self.consumers[at].ack();
        self.judge.hear(&ack);
        self.hand_in(Input::Ack(ack), Cut::Never);
    }

    /// A consumer that follows the routes from now on.
    pub fn join(&mut self, consumer: Consumer) {
        let id = consumer.id.clone();
        self.consumers.push(consumer);
        self.input(Input::ConsumerJoined(id))
            .expect("few consumers");
        if let Some(consumer) = self.consumers.last_mut() {
            consumer.joined = true;
        }
    }

    /// Instances in the routes of a service.
    pub fn listed(&self, service: &str) -> Vec<u64> {
        let service = name(service);
        let mut routes = self.routing.services.iter();
        let routes = routes.find(|one| one.service == service);
        routes.map_or_else(Vec::new, |routes| {
            let endpoints = routes.endpoints.iter();
            endpoints.map(|one| one.instance.number).collect()
        })
    }

    /// Whether an instance was told to stop.
    pub fn stopped(&self, id: &InstanceId) -> bool {
        self.judge.stopped.contains(id)
    }
}

/// The disk refused.
#[derive(Debug, Clone, Copy)]
struct Refused;

fn describe_cut(cut: Cut) -> &'static str {
    match cut {
        Cut::Never => "",
        Cut::BeforeSaving => "-- killed before saving",
        Cut::BeforePublishing => "-- killed before publishing",
        Cut::AfterPublishing => "-- killed after publishing",
        Cut::Twice => "-- killed before publishing, and again",
    }
}

/// One line that says what matters of an input.
fn describe(input: &Input) -> String {
    match input {
        Input::Apply(apply) | Input::DryRun(apply) => {
            let one = |spec: &ServiceSpec| {
                let exec = spec.exec.first().map(ToString::to_string);
                format!(
                    "{}={}x{}",
                    spec.name,
                    exec.unwrap_or_default(),
                    spec.instances
                )
            };
            let all: Vec<String> = apply.services.iter().map(one).collect();
            format!("apply {}", all.join(" "))
        }
        Input::Scale { service, instances } => format!("scale {service} to {instances}"),
        Input::Rollback { service, to } => format!("rollback {service} to {to:?}"),
        Input::Remove { service } => format!("remove {service}"),
        Input::Pause { service } => format!("pause {service}"),
        Input::Resume { service } => format!("resume {service}"),
        Input::Promote { service } => format!("promote {service}"),
        Input::SetIntake(wish) => {
            let (state, weight) = (wish.state, wish.weight);
            format!(
                "intake of {} {state:?} {weight:?} {:?}",
                wish.instance, wish.last
            )
        }
        Input::RemoveAll => "remove all".into(),
        Input::StopAll => "stop all".into(),
        Input::Report(report) => {
            let all: Vec<String> = report.instances.iter().map(describe_seen).collect();
            let plan = report.plan.map(|plan| plan.to_string()).unwrap_or_default();
            let agent = report.incarnation.0;
            format!("report of agent {agent} at plan {plan}: {}", all.join(" "))
        }
        Input::ConsumerJoined(consumer) => format!("joined {consumer}"),
        Input::Ack(ack) => {
            let busy = |busy: &mainstay_model::InFlight| format!("{}", busy.instance);
            let busy: Vec<String> = ack.in_flight.iter().map(busy).collect();
            let generation = ack.generation.map(|one| one.to_string());
            let generation = generation.unwrap_or_default();
            format!("ack {} {generation} [{}]", ack.consumer, busy.join(" "))
        }
        Input::Farewell(consumer) => format!("farewell {consumer}"),
        Input::Backups(news) => format!("backups: {}", news.said),
        Input::Tick => "tick".into(),
    }
}

fn describe_seen(seen: &InstanceReport) -> String {
    let phase = match &seen.phase {
        Phase::Running { health, .. } => match health {
            ProbedHealth::Starting => "starts",
            ProbedHealth::Passing => "passes",
            ProbedHealth::Failing => "fails",
        },
        Phase::BackingOff { .. } => "ended",
        Phase::Stopping { .. } => "stops",
        Phase::Stopped { .. } => "stopped",
    };
    format!("{}/{}:{phase}", seen.instance, seen.attempt.0)
}
