//! An agent with its programs. The programs outlive it.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_ids::{Attempt, Generation, Incarnation, InstanceId, NodeName};
use mainstay_model::plan::{PlannedAction, PlannedInstance};
use mainstay_model::{BootId, Capacity, Exit, NodePlan, NodeReport};

use crate::broken::Promise;
use crate::program::{Behaviour, Order, Program, State};

/// The agent of the one node.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Which start of it.
    pub incarnation: u64,
    boot: u32,
    /// What the node has; `None`: the agent cannot tell.
    pub capacity: Option<Capacity>,
    /// Whether it runs; its programs go on without it.
    pub alive: bool,
    plan: Option<NodePlan>,
    programs: BTreeMap<InstanceId, Program>,
    forgotten: BTreeSet<InstanceId>,
    /// The last attempts of instances that it lost: attempts only grow.
    lost: BTreeMap<InstanceId, Attempt>,
    now: u64,
    /// How long a program takes from SIGTERM to its end, in milliseconds, unless it is stubborn.
    pub stop_takes: u64,
    /// What the plans broke, as the agent saw it.
    pub broken: Vec<(Promise, String)>,
}

impl Default for Agent {
    fn default() -> Self {
        Self::new()
    }
}

impl Agent {
    /// An agent with nothing to do.
    pub fn new() -> Self {
        Self {
            incarnation: 1,
            boot: 1,
            capacity: None,
            alive: true,
            plan: None,
            programs: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            lost: BTreeMap::new(),
            // As the world's.
            now: 1000,
            stop_takes: 100,
            broken: Vec::new(),
        }
    }

    /// Takes over the newest plan, and starts what it lacks.
    pub fn fetch(&mut self, plan: &NodePlan) {
        let known = self.plan.as_ref().map(|known| known.generation);
        if !self.alive || known > Some(plan.generation) {
            return;
        }
        for planned in &plan.instances {
            match planned.action {
                PlannedAction::Run => self.run(planned, Order::Run),
                PlannedAction::RunOnce => self.run(planned, Order::RunOnce),
                PlannedAction::Hold => self.hold(planned),
                PlannedAction::Stop => self.stop(planned),
            }
        }
        let named: BTreeSet<_> = plan.instances.iter().map(|one| &one.instance).collect();
        let forgotten = &mut self.forgotten;
        self.programs.retain(|id, program| {
            let forgets = matches!(program.state, State::Stopped { .. }) && !named.contains(id);
            if forgets {
                forgotten.insert(id.clone());
            }
            !forgets
        });
        self.plan = Some(plan.clone());
        self.judge_memory();
    }

    /// The programs do not need more memory together than the node has.
    fn judge_memory(&mut self) {
        let Some(capacity) = self.capacity else {
            return;
        };
        let there = self
            .programs
            .values()
            .filter(|program| match program.state {
                State::Running { .. } | State::Stopping { .. } => true,
                State::BackingOff { .. } => program.order != Order::Hold,
                State::Stopped { .. } => false,
            });
        let needed: u64 = there.map(|program| program.memory_bytes).sum();
        if needed > capacity.memory_bytes {
            let text = format!("{needed} bytes are needed of {}", capacity.memory_bytes);
            self.broken.push((Promise::FitsTheNode, text));
        }
    }

    fn hold(&mut self, planned: &PlannedInstance) {
        if let Some(program) = self.programs.get_mut(&planned.instance) {
            program.order = Order::Hold;
        }
    }

    fn run(&mut self, planned: &PlannedInstance, order: Order) {
        let id = &planned.instance;
        if order == Order::RunOnce && !self.programs.contains_key(id) {
            self.judge_once(id);
        }
        match self.programs.get_mut(id) {
            None => {
                if self.forgotten.contains(id) {
                    let text = format!("{id} is started again after its end");
                    self.broken.push((Promise::NothingTwice, text));
                }
                let mut program = Program::started(planned.version, &planned.spec, self.now);
                program.order = order;
                if let Some(last) = self.lost.remove(id) {
                    program.attempt = last.next();
                }
                self.programs.insert(id.clone(), program);
            }
            // Whoever ran to its end has: the plan will drop it.
            Some(program) if order == Order::RunOnce => program.order = order,
            Some(program) => {
                program.order = order;
                if matches!(
                    program.state,
                    State::Stopping { .. } | State::Stopped { .. }
                ) {
                    let text = format!("{id} is to run after it was told to stop");
                    self.broken.push((Promise::NothingTwice, text));
                }
                if program.version != planned.version {
                    let text = format!("{id} changes its version to {}", planned.version);
                    self.broken.push((Promise::NothingTwice, text));
                }
            }
        }
    }

    /// What runs to its end is alone among those of its service.
    fn judge_once(&mut self, id: &InstanceId) {
        let other = self.programs.iter().find(|(other, program)| {
            let runs = matches!(
                program.state,
                State::Running { .. } | State::Stopping { .. }
            );
            other.service == id.service && program.order == Order::RunOnce && runs
        });
        if let Some((other, _)) = other {
            let text = format!("{id} is started while {other} runs");
            self.broken.push((Promise::OneAtATime, text));
        }
    }

    fn stop(&mut self, planned: &PlannedInstance) {
        let (now, takes) = (self.now, self.stop_takes);
        let program = self
            .programs
            .entry(planned.instance.clone())
            .or_insert_with(|| Program::never_started(planned.version, &planned.spec));
        program.stop(now, takes);
    }

    /// Lets time pass for the programs, and, if it lives, for the agent.
    pub fn step(&mut self, now: u64) {
        self.now = now;
        for program in self.programs.values_mut() {
            program.step(now, self.alive);
        }
    }

    /// What it sees of all its instances.
    pub fn report(&self) -> NodeReport {
        let programs = self.programs.iter();
        NodeReport {
            node: NodeName::parse("local").expect("a legal name"),
            incarnation: Incarnation(self.incarnation),
            plan: self.plan.as_ref().map(|plan| plan.generation),
            boot: Some(BootId(format!("boot-{}", self.boot))),
            instances: programs
                .map(|(id, program)| program.report(id, self.now))
                .collect(),
            capacity: self.capacity,
            happenings: Vec::new(),
        }
    }

    /// The newest plan that it has.
    pub fn plan_generation(&self) -> Option<Generation> {
        self.plan.as_ref().map(|plan| plan.generation)
    }

    /// SIGKILL; its programs go on. Nobody notices the end of one until the successor comes.
    pub fn die(&mut self) {
        self.alive = false;
    }

    /// The successor adopts what runs; it says "starting" of each for so long, until it has probed
    /// it.
    pub fn come_back(&mut self, unprobed_ms: u64) {
        self.alive = true;
        self.incarnation += 1;
        self.plan = None;
        for program in self.programs.values_mut() {
            program.unprobed_until = self.now + unprobed_ms;
        }
    }

    /// The machine is started anew: every program has ended, and none is started again before a
    /// plan says so.
    pub fn reboot(&mut self) {
        self.boot += 1;
        self.come_back(0);
        for program in self.programs.values_mut() {
            program.order = match program.order {
                Order::Run | Order::Hold => Order::Hold,
                Order::RunOnce => Order::RunOnce,
            };
            match program.state {
                State::Running { .. } => program.end(self.now, Exit::Rebooted),
                State::Stopping { .. } => {
                    let exit = Some(Exit::Rebooted);
                    program.state = State::Stopped { exit };
                }
                State::BackingOff { .. } | State::Stopped { .. } => {}
            }
        }
    }

    /// SIGKILL of one running program.
    pub fn kill(&mut self, number: u64) {
        let now = self.now;
        if let Some(program) = self.pick(number) {
            program.end(now, Exit::Signal(9));
        }
    }

    /// The probes of one running program fail until then.
    pub fn upset(&mut self, number: u64, until: u64) {
        if let Some(program) = self.pick(number) {
            program.failing_until = until;
        }
    }

    /// One running program answers nothing until then, neither probes nor requests.
    pub fn freeze(&mut self, number: u64, until: u64) {
        if let Some(program) = self.pick(number) {
            program.frozen_until = until;
        }
    }

    /// No program is upset or frozen any more.
    pub fn soothe(&mut self) {
        for program in self.programs.values_mut() {
            program.failing_until = 0;
            program.frozen_until = 0;
        }
    }

    fn pick(&mut self, number: u64) -> Option<&mut Program> {
        let running = self.running();
        let id = running.get(number as usize % running.len().max(1))?;
        self.programs.get_mut(id)
    }

    /// The instances whose program runs and was not told to stop.
    pub fn running(&self) -> Vec<InstanceId> {
        let programs = self.programs.iter();
        programs
            .filter(|(_, program)| matches!(program.state, State::Running { .. }))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// All instances of which it knows.
    pub fn all(&self) -> BTreeSet<InstanceId> {
        self.programs.keys().cloned().collect()
    }

    /// The attempt that runs, told to stop or not.
    pub fn running_attempt(&self, id: &InstanceId) -> Option<Attempt> {
        let program = self.programs.get(id)?;
        match program.state {
            State::Running { .. } | State::Stopping { .. } => Some(program.attempt),
            State::BackingOff { .. } | State::Stopped { .. } => None,
        }
    }

    /// Whether it answers requests.
    pub fn answers(&self, id: &InstanceId) -> bool {
        let program = self.programs.get(id);
        program.is_some_and(|program| program.frozen_until <= self.now)
    }

    /// What the program of an instance does.
    pub fn behaviour(&self, id: &InstanceId) -> Option<Behaviour> {
        self.programs.get(id).map(|program| program.behaviour)
    }

    /// Loses all knowledge of one instance, as after the loss of its files; its program ends too.
    pub fn lose(&mut self, id: &InstanceId) {
        if let Some(program) = self.programs.remove(id) {
            self.lost.insert(id.clone(), program.attempt);
        }
    }
}
