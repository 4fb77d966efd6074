//! An agent with its processes. The processes outlive it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use mainstay_control::restart::Restart;
use mainstay_ids::{
    Attempt, Generation, Incarnation, InstanceId, Instant, NodeName, Timestamp, Version,
};
use mainstay_model::plan::PlannedAction;
use mainstay_model::{
    BootId, Capacity, Exit, InstanceReport, NodePlan, NodeReport, Phase, ProbedHealth,
};

/// What a program does, by the name in `exec`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Passes after so long, for ever.
    Good { after: u64 },
    /// Ends after so long without having passed.
    Crash { after: u64 },
    /// Never passes.
    Never,
    /// Passes and fails in turn, each for so long.
    Flap { every: u64 },
    /// Passes at once and ends after so long.
    Late { after: u64 },
    /// Ends well after so long, as a migration.
    Done { after: u64 },
}

impl Behaviour {
    fn of(text: &str) -> Self {
        let (word, number) = text.split_once('-').unwrap_or((text, "100"));
        let ms = number.parse().expect("a number of milliseconds");
        match word {
            "good" => Self::Good { after: ms },
            "crash" => Self::Crash { after: ms },
            "never" => Self::Never,
            "flap" => Self::Flap { every: ms },
            "late" => Self::Late { after: ms },
            "done" => Self::Done { after: ms },
            other => panic!("no behaviour {other}"),
        }
    }

    fn health(self, age: u64) -> ProbedHealth {
        match self {
            Self::Good { after } if age >= after => ProbedHealth::Passing,
            Self::Late { .. } => ProbedHealth::Passing,
            Self::Flap { every } if age / every % 2 == 1 => ProbedHealth::Passing,
            Self::Flap { every } if age >= every => ProbedHealth::Failing,
            Self::Good { .. }
            | Self::Crash { .. }
            | Self::Never
            | Self::Flap { .. }
            | Self::Done { .. } => ProbedHealth::Starting,
        }
    }

    fn ends(self, age: u64) -> bool {
        match self {
            Self::Crash { after } | Self::Late { after } | Self::Done { after } => age >= after,
            Self::Good { .. } | Self::Never | Self::Flap { .. } => false,
        }
    }

    fn exit(self) -> Exit {
        match self {
            Self::Done { .. } => Exit::Code(0),
            Self::Good { .. }
            | Self::Crash { .. }
            | Self::Never
            | Self::Flap { .. }
            | Self::Late { .. } => Exit::Code(1),
        }
    }
}

#[derive(Debug, Clone)]
enum State {
    Running { since: u64 },
    BackingOff { exit: Exit, until: u64 },
    Stopping { until: u64 },
    Stopped { exit: Option<Exit> },
}

/// What the newest plan wants of a process that is not to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Run,
    Hold,
    RunOnce,
}

#[derive(Debug, Clone)]
struct ModelProcess {
    version: Version,
    behaviour: Behaviour,
    attempt: Attempt,
    state: State,
    restart: Restart,
    order: Order,
    last_exit: Option<Exit>,
    /// A probe of a stopped world: said instead of the truth until then.
    failing_until: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Agent {
    pub(crate) incarnation: u64,
    boot: u32,
    pub(crate) capacity: Option<Capacity>,
    pub(crate) alive: bool,
    plan: Option<NodePlan>,
    processes: BTreeMap<InstanceId, ModelProcess>,
    forgotten: BTreeSet<InstanceId>,
    now: u64,
    /// How long a process takes from SIGTERM to its end.
    pub(crate) stop_takes: u64,
    pub(crate) broken: Vec<String>,
}

impl Agent {
    pub(crate) fn new() -> Self {
        Self {
            incarnation: 1,
            boot: 1,
            capacity: None,
            alive: true,
            plan: None,
            processes: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            // As the world's.
            now: 1000,
            stop_takes: 100,
            broken: Vec::new(),
        }
    }

    /// Takes over the newest plan.
    pub(crate) fn fetch(&mut self, plan: &NodePlan) {
        if self
            .plan
            .as_ref()
            .is_some_and(|known| known.generation >= plan.generation)
        {
            return;
        }
        let processes = &mut self.processes;
        for planned in &plan.instances {
            let id = &planned.instance;
            let known = processes.get_mut(id);
            let order = match planned.action {
                PlannedAction::Run | PlannedAction::Stop => Order::Run,
                PlannedAction::Hold => Order::Hold,
                PlannedAction::RunOnce => Order::RunOnce,
            };
            match (planned.action, known) {
                (PlannedAction::Hold, None) => {}
                (PlannedAction::Run | PlannedAction::RunOnce, None) => {
                    if self.forgotten.contains(id) {
                        self.broken
                            .push(format!("{id} is started again after its end"));
                    }
                    let program = planned.spec.exec[0].to_string();
                    let state = State::Running { since: self.now };
                    let mut process = ModelProcess::new(planned.version, &program, state);
                    process.order = order;
                    processes.insert(id.clone(), process);
                }
                // Whoever ran to its end has: the plan will drop it.
                (PlannedAction::RunOnce, Some(process)) => process.order = order,
                (PlannedAction::Run | PlannedAction::Hold, Some(process)) => {
                    process.order = order;
                    if matches!(
                        process.state,
                        State::Stopping { .. } | State::Stopped { .. }
                    ) {
                        self.broken
                            .push(format!("{id} is to run after it was told to stop"));
                    }
                }
                (PlannedAction::Stop, None) => {
                    let state = State::Stopped { exit: None };
                    processes.insert(
                        id.clone(),
                        ModelProcess::new(planned.version, "good", state),
                    );
                }
                (PlannedAction::Stop, Some(process)) => process.stop(self.now + self.stop_takes),
            }
        }
        let named: BTreeSet<_> = plan.instances.iter().map(|one| &one.instance).collect();
        let forgotten = &mut self.forgotten;
        processes.retain(|id, process| {
            let forgets = matches!(process.state, State::Stopped { .. }) && !named.contains(id);
            if forgets {
                forgotten.insert(id.clone());
            }
            !forgets
        });
        self.plan = Some(plan.clone());
    }

    /// Lets time pass for the processes, and, if it lives, for the agent.
    pub(crate) fn step(&mut self, now: u64) {
        self.now = now;
        for process in self.processes.values_mut() {
            process.step(now, self.alive);
        }
    }

    pub(crate) fn report(&self) -> NodeReport {
        let processes = self.processes.iter();
        NodeReport {
            node: NodeName::parse("local").expect("a legal name"),
            incarnation: Incarnation(self.incarnation),
            plan: self.plan.as_ref().map(|plan| plan.generation),
            boot: Some(BootId(format!("boot-{}", self.boot))),
            instances: processes
                .map(|(id, process)| process.report(id, self.now))
                .collect(),
            capacity: self.capacity,
        }
    }

    pub(crate) fn plan_generation(&self) -> Option<Generation> {
        self.plan.as_ref().map(|plan| plan.generation)
    }

    /// SIGKILL; its processes go on. Nobody notices the end of one until the successor comes.
    pub(crate) fn die(&mut self) {
        self.alive = false;
    }

    pub(crate) fn come_back(&mut self) {
        self.alive = true;
        self.incarnation += 1;
        self.plan = None;
    }

    /// The machine is started anew: every process has ended, and none is started again before a
    /// plan says so.
    pub(crate) fn reboot(&mut self) {
        self.boot += 1;
        self.come_back();
        for process in self.processes.values_mut() {
            process.order = match process.order {
                Order::Run | Order::Hold => Order::Hold,
                Order::RunOnce => Order::RunOnce,
            };
            match process.state {
                State::Running { .. } => process.end(self.now, Exit::Lost),
                State::Stopping { .. } => {
                    let exit = Some(Exit::Lost);
                    process.state = State::Stopped { exit };
                }
                State::BackingOff { .. } | State::Stopped { .. } => {}
            }
        }
    }

    /// SIGKILL of one running process.
    pub(crate) fn kill(&mut self, number: u64) {
        let now = self.now;
        let running: Vec<_> = self.running();
        if running.is_empty() {
            return;
        }
        let id = &running[number as usize % running.len()];
        if let Some(process) = self.processes.get_mut(id) {
            process.end(now, Exit::Signal(9));
        }
    }

    /// The probes of one running process fail for a while.
    pub(crate) fn upset(&mut self, number: u64, until: u64) {
        let running = self.running();
        if !running.is_empty()
            && let Some(process) = self
                .processes
                .get_mut(&running[number as usize % running.len()])
        {
            process.failing_until = until;
        }
    }

    pub(crate) fn running(&self) -> Vec<InstanceId> {
        let processes = self.processes.iter();
        processes
            .filter(|(_, process)| matches!(process.state, State::Running { .. }))
            .map(|(id, _)| id.clone())
            .collect()
    }

    pub(crate) fn all(&self) -> BTreeSet<InstanceId> {
        self.processes.keys().cloned().collect()
    }

    /// The attempt that runs and was not told to stop.
    pub(crate) fn running_attempt(&self, id: &InstanceId) -> Option<Attempt> {
        let process = self.processes.get(id)?;
        match process.state {
            State::Running { .. } | State::Stopping { .. } => Some(process.attempt),
            State::BackingOff { .. } | State::Stopped { .. } => None,
        }
    }

    /// Loses all knowledge of one instance, as after the loss of its files.
    pub(crate) fn lose(&mut self, id: &InstanceId) {
        self.processes.remove(id);
    }
}

impl ModelProcess {
    fn new(version: Version, program: &str, state: State) -> Self {
        Self {
            version,
            behaviour: Behaviour::of(program),
            attempt: Attempt::FIRST,
            state,
            restart: Restart::new(),
            order: Order::Run,
            last_exit: None,
            failing_until: 0,
        }
    }

    fn stop(&mut self, until: u64) {
        match self.state {
            State::Running { .. } => self.state = State::Stopping { until },
            State::BackingOff { exit, .. } => self.state = State::Stopped { exit: Some(exit) },
            State::Stopping { .. } | State::Stopped { .. } => {}
        }
    }

    fn end(&mut self, now: u64, exit: Exit) {
        match self.order {
            Order::Run | Order::Hold => {}
            Order::RunOnce => {
                self.state = State::Stopped { exit: Some(exit) };
                return;
            }
        }
        let retry = self.restart.ended(instant(now));
        self.state = State::BackingOff {
            exit,
            until: retry.until.since_start().as_millis() as u64,
        };
        self.last_exit = Some(exit);
    }

    fn step(&mut self, now: u64, agent_lives: bool) {
        match self.state {
            State::Running { since } => {
                if self.behaviour.ends(now - since) {
                    self.end(now, self.behaviour.exit());
                } else {
                    match self.health(now, since) {
                        ProbedHealth::Passing => self.restart.passing(instant(now)),
                        ProbedHealth::Starting | ProbedHealth::Failing => {
                            self.restart.failing(instant(now));
                        }
                    }
                }
            }
            State::BackingOff { until, .. }
                if agent_lives && now >= until && self.order != Order::Hold =>
            {
                self.attempt = self.attempt.next();
                self.state = State::Running { since: now };
                self.failing_until = 0;
            }
            State::Stopping { until } if now >= until => {
                let exit = Some(Exit::Signal(15));
                self.state = State::Stopped { exit };
            }
            State::BackingOff { .. } | State::Stopping { .. } | State::Stopped { .. } => {}
        }
    }

    fn health(&self, now: u64, since: u64) -> ProbedHealth {
        let health = self.behaviour.health(now - since);
        if health == ProbedHealth::Passing && now < self.failing_until {
            ProbedHealth::Failing
        } else {
            health
        }
    }

    fn report(&self, id: &InstanceId, now: u64) -> InstanceReport {
        let port = 20_000 + (id.number * 50 + u64::from(self.attempt.0)) % 10_000;
        InstanceReport {
            instance: id.clone(),
            version: self.version,
            attempt: self.attempt,
            phase: match self.state {
                State::Running { since } => Phase::Running {
                    pid: 1,
                    address: SocketAddr::from(([127, 0, 0, 1], port as u16)),
                    health: self.health(now, since),
                    since: Timestamp(since),
                },
                State::BackingOff { exit, until } => Phase::BackingOff {
                    exit,
                    until: Timestamp(until),
                    crash_looping: self.restart.crash_looping(),
                },
                State::Stopping { .. } => Phase::Stopping { pid: 1 },
                State::Stopped { exit } => Phase::Stopped { exit },
            },
            last_exit: self.last_exit,
            probe_failure: None,
            log_dropped: 0,
        }
    }
}

fn instant(ms: u64) -> Instant {
    Instant::from_start(Duration::from_millis(ms))
}
