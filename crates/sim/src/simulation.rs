//! One run: a while in which everything goes wrong, then a calm in which all must come to rest.

use std::collections::BTreeMap;

use mainstay_control::{Input, Settings};
use mainstay_ids::{ConsumerId, Epoch};
use mainstay_model::{Ack, Capacity, NodeReport, ServiceSpec, ServiceState};

use crate::broken::{Broken, Promise};
use crate::conditions::{Chance, Conditions, Mishaps};
use crate::consumer::Consumer;
use crate::panics::play_out;
use crate::people;
use crate::random::Random;
use crate::tally::Tally;
use crate::world::{Answer, Cut, World};

/// More of a kind under way at a time would only make the run slower.
const REPORTS_MAX: usize = 8;
const WORDS_MAX: usize = 24;

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The promises that were broken; a run ends with the first input that breaks one.
    pub broken: Vec<Broken>,
    /// What happened.
    pub tally: Tally,
    /// Milliseconds of the world's life.
    pub simulated_ms: u64,
    /// A line for each step, if it was asked for.
    pub trace: Vec<String>,
}

/// Whether a line is kept for each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// It is: much slower.
    Kept,
    /// It is not.
    Off,
}

/// Runs one seed. The same seed under the same conditions gives the same outcome.
pub fn run(seed: u64, conditions: &Conditions, trace: Trace) -> Outcome {
    let mut simulation = Simulation::new(seed, conditions);
    if trace == Trace::Kept {
        simulation.world.keep_trace();
    }
    let played = play_out(|| simulation.play(conditions.steps));
    let mut world = simulation.world;
    if let Err(what) = played {
        world.breaks(Promise::OwnInvariant, what);
    }
    world.collect_broken();
    Outcome {
        trace: world.take_trace(),
        broken: std::mem::take(&mut world.broken),
        tally: std::mem::take(&mut world.tally),
        simulated_ms: world.now_ms,
    }
}

/// What a consumer says.
#[derive(Debug, Clone)]
enum Said {
    Joined(ConsumerId),
    Ack(Ack),
    Farewell(ConsumerId),
}

pub(crate) struct Simulation {
    pub(crate) world: World,
    pub(crate) random: Random,
    mishaps: Mishaps,
    reports: Vec<NodeReport>,
    words: Vec<Said>,
    /// In which epoch each consumer said farewell.
    farewell_epochs: BTreeMap<ConsumerId, Epoch>,
    /// What people declared so far.
    declared: Vec<ServiceSpec>,
}

impl Simulation {
    fn new(seed: u64, conditions: &Conditions) -> Self {
        let mut random = Random::new(seed);
        let settings = Settings {
            address_seed: random.below(1000) as u32,
            ..conditions.settings.clone()
        };
        Self {
            world: World::new(settings),
            mishaps: conditions.mishaps.some(&mut random),
            random,
            reports: Vec::new(),
            words: Vec::new(),
            declared: Vec::new(),
            farewell_epochs: BTreeMap::new(),
        }
    }

    fn play(&mut self, steps: u32) {
        self.begin();
        for _ in 0..steps {
            self.step();
            if !self.world.collect_broken().is_empty() {
                return;
            }
        }
        self.calm();
    }

    fn begin(&mut self) {
        if self.random.one_in(2) {
            // Few rollouts fit beside the others at once.
            self.world.agent.capacity = Some(Capacity {
                cpu_thousandths: 2000,
                memory_bytes: (5 + self.random.below(8)) * people::MEMORY_BYTES,
            });
        }
        for name in ["gateway", "edge"].iter().take(1 + self.random.place(2)) {
            self.world.join(Consumer::new(name));
        }
    }

    fn step(&mut self) {
        let ms = self.random.below(150);
        self.world.pass(ms);
        if self.random.one_in(25) {
            self.people_act();
        }
        self.somebody_promotes();
        self.agent_acts();
        self.reports_arrive();
        self.consumers_act();
        self.words_arrive();
        self.surroundings();
    }

    fn surroundings(&mut self) {
        let Mishaps {
            restart,
            disk_refuses,
            wall_set,
            stop_all,
            reboot,
            ..
        } = self.mishaps;
        let random = &mut self.random;
        if restart.comes(random) {
            self.world.restart_control();
        }
        // What was decided and is not durable is where it hurts most.
        if restart != Chance::NEVER && !self.world.is_durable() && random.one_in(12) {
            let repaired = random.one_in(2);
            let service = people::service(random);
            if repaired {
                self.world.repair_disk();
            }
            self.world.restart_control();
            if repaired {
                let instances = 0;
                self.hand_in(Input::Scale { service, instances });
            }
        }
        let random = &mut self.random;
        if disk_refuses.comes(random) {
            let ms = random.below(4000);
            self.world.refuse_saves(ms);
        }
        if wall_set.comes(random) {
            const HOURS: u64 = 12;
            let to = random.below(HOURS * 3_600_000) as i64 - (HOURS * 1_800_000) as i64;
            self.world.wall_offset_ms = to;
            self.world
                .note(|| format!("the clock on the wall is off by {to} ms"));
            self.world.tally.count("wall set");
        }
        if reboot.comes(random) {
            self.reboot();
        }
        let random = &mut self.random;
        if stop_all.comes(random) {
            self.hand_in(Input::StopAll);
        }
        if self.world.stops_all && self.random.one_in(40) {
            self.world.restart_control();
            self.world.keep_up();
        }
    }

    /// The machine is started anew: nothing that ran runs, and what was under way is lost.
    fn reboot(&mut self) {
        self.world.note(|| "the machine is started anew".into());
        self.reports.clear();
        self.words.clear();
        self.world.agent.reboot();
        self.world.consumers.iter_mut().for_each(Consumer::die);
        self.world.restart_control();
    }

    pub(crate) fn hand_in(&mut self, input: Input) -> Answer {
        let cut = if self.mishaps.cut.comes(&mut self.random) {
            let cuts = [
                Cut::BeforeSaving,
                Cut::BeforePublishing,
                Cut::AfterPublishing,
                Cut::Twice,
            ];
            cuts[self.random.place(cuts.len())]
        } else {
            Cut::Never
        };
        self.world.hand_in(input, cut)
    }

    fn people_act(&mut self) {
        let apt = self.apt();
        let intake = self.random.one_in(6).then(|| self.intake()).flatten();
        let wishes = if intake.is_some() {
            intake.into_iter().collect()
        } else if self.random.one_in(3) && apt.is_some() {
            apt.into_iter().collect()
        } else if self.random.one_in(4) {
            people::burst(&mut self.random)
        } else {
            people::wish(&mut self.random).into_iter().collect()
        };
        for wish in wishes {
            let wish = self.remember(wish);
            self.hand_in(wish);
        }
    }

    /// Somebody who waits for canaries promotes them once they are ready: few get as far before
    /// another wish supersedes them.
    fn somebody_promotes(&mut self) {
        let mut services = self.world.control.services();
        let waits = services.find(|view| view.state == ServiceState::AwaitsPromotion);
        if let Some(service) = waits.map(|view| view.service.clone()) {
            drop(services);
            self.hand_in(Input::Promote { service });
        }
    }

    /// What fits the state of some service: others are mostly refused.
    fn apt(&mut self) -> Option<Input> {
        let services: Vec<_> = self
            .world
            .control
            .services()
            .map(|view| (view.service.clone(), view.state))
            .collect();
        let at = self.random.place(services.len());
        let (service, state) = services.get(at)?.clone();
        match state {
            ServiceState::AwaitsPromotion => Some(Input::Promote { service }),
            ServiceState::RollingOut | ServiceState::RollingBack => Some(Input::Pause { service }),
            ServiceState::Paused | ServiceState::Failed => Some(Input::Resume { service }),
            ServiceState::Steady | ServiceState::Degraded | ServiceState::Removing => None,
        }
    }

    /// Somebody keeps requests from an instance, or gives them back.
    fn intake(&mut self) -> Option<Input> {
        let mut all = self.world.control.instances().map(|view| view.instance);
        let count = self.world.control.instances().count();
        let instance = all.nth(self.random.place(count.max(1)))?;
        drop(all);
        Some(people::intake(instance, &mut self.random))
    }

    /// People often declare again what they declared before.
    fn remember(&mut self, wish: Input) -> Input {
        let Input::Apply(mut apply) = wish else {
            return wish;
        };
        for spec in &mut apply.services {
            let again = self.random.one_in(3);
            let known = self.declared.iter().filter(|one| one.name == spec.name);
            let known: Vec<_> = known.collect();
            if again && !known.is_empty() {
                *spec = known[self.random.place(known.len())].clone();
            } else {
                self.declared.push(spec.clone());
            }
        }
        Input::Apply(apply)
    }

    fn agent_acts(&mut self) {
        let now = self.world.now_ms;
        self.world.agent.step(now);
        self.instances_suffer(now);
        let random = &mut self.random;
        if !self.world.agent.alive {
            if random.one_in(8) {
                let unprobed = random.below(400);
                self.world.agent.come_back(unprobed);
            }
            return;
        }
        if self.mishaps.agent_dies.comes(random) {
            self.world.agent.die();
            self.world.tally.count("agent killed");
            return;
        }
        if random.one_in(20) {
            self.world.agent.stop_takes = random.below(1200);
        }
        // It looks at a plan that it knows only now and then.
        let known = self.world.agent.plan_generation() == Some(self.world.plan.generation);
        let looks = !random.one_in(3) && (!known || random.one_in(8));
        if looks && self.world.gives_plan() {
            let plan = self.world.plan.clone();
            self.world.agent.fetch(&plan);
        }
        if self.reports.len() < REPORTS_MAX {
            self.reports.push(self.world.agent.report());
        }
    }

    fn instances_suffer(&mut self, now: u64) {
        let (random, agent) = (&mut self.random, &mut self.world.agent);
        if self.mishaps.instance_ends.comes(random) {
            agent.kill(random.draw());
        }
        if self.mishaps.instance_upset.comes(random) {
            let until = now + random.below(1500);
            agent.upset(random.draw(), until);
        }
        if self.mishaps.instance_freezes.comes(random) {
            let until = now + random.below(6000);
            agent.freeze(random.draw(), until);
        }
        if self.mishaps.instance_lost.comes(random) && agent.alive {
            let running = agent.running();
            if let Some(id) = running.get(random.place(running.len())) {
                agent.lose(id);
                self.world.tally.count("instance lost");
            }
        }
    }

    fn reports_arrive(&mut self) {
        if self.reports.is_empty() || self.random.one_in(4) {
            return;
        }
        let disturbed = self.mishaps.report_disturbed;
        let at = if disturbed.comes(&mut self.random) {
            self.random.place(self.reports.len())
        } else {
            0
        };
        let report = if disturbed.comes(&mut self.random) {
            self.reports[at].clone()
        } else {
            self.reports.remove(at)
        };
        if !disturbed.comes(&mut self.random) {
            self.hand_in(Input::Report(report));
        }
    }

    fn consumers_act(&mut self) {
        for at in 0..self.world.consumers.len() {
            let agent = &self.world.agent;
            let consumer = &mut self.world.consumers[at];
            consumer.lose(|id, attempt| agent.running_attempt(id) == Some(attempt));
            if consumer.dead {
                if self.random.one_in(10) {
                    consumer.come_back();
                } else if self.mishaps.consumer_leaves.comes(&mut self.random) {
                    // Nobody starts it again: whoever saw its end removes what it stored, and says
                    // its farewell for it.
                    let id = self.leave(at);
                    self.words.push(Said::Farewell(id));
                }
                continue;
            }
            self.consumer_suffers(at);
            let consumer = &self.world.consumers[at];
            if !consumer.dead && !consumer.frozen {
                self.consumer_works(at);
            }
        }
    }

    fn consumer_suffers(&mut self, at: usize) {
        let (random, consumer) = (&mut self.random, &mut self.world.consumers[at]);
        if consumer.frozen {
            consumer.frozen = !random.one_in(40);
            if !consumer.frozen {
                // It thaws with what it had, and says so.
                self.say_ack(at);
            }
            return;
        }
        if self.mishaps.consumer_freezes.comes(random) {
            consumer.frozen = true;
        }
        if self.mishaps.consumer_dies.comes(random) {
            consumer.die();
        }
        if self.mishaps.consumer_leaves.comes(random) && !consumer.dead {
            let id = self.leave(at);
            self.words.push(Said::Farewell(id));
        }
    }

    /// A consumer ends its last request, and removes its routes.
    pub(crate) fn leave(&mut self, at: usize) -> ConsumerId {
        self.world.consumers[at].leave();
        let id = self.world.consumers[at].id.clone();
        self.world.judge.farewells.insert(id.clone());
        let epoch = self.world.control.routing().generation.epoch;
        self.farewell_epochs.insert(id.clone(), epoch);
        id
    }

    fn say_ack(&mut self, at: usize) {
        let ack = self.world.consumers[at].ack();
        self.world.judge.hear(&ack);
        if self.words.len() < WORDS_MAX {
            self.words.push(Said::Ack(ack));
        }
    }

    fn consumer_works(&mut self, at: usize) {
        self.requests(at);
        let joined = self.world.consumers[at].joined && !self.world.down;
        let publishes = self.world.publishes();
        if !joined {
            let id = self.world.consumers[at].id.clone();
            if self.random.one_in(3) && self.words.len() < WORDS_MAX {
                self.words.push(Said::Joined(id));
            }
            return;
        }
        let dice = self.random.draw();
        if !dice.is_multiple_of(3) && publishes {
            self.world.consumers[at].apply((dice >> 8) as usize, &self.world.routing);
        }
        self.requests(at);
        self.say_ack(at);
        if self.mishaps.stray_word.comes(&mut self.random) {
            let mut ack = self.world.consumers[at].ack();
            ack.generation = Some(self.world.control.routing().generation.next());
            ack.in_flight.clear();
            self.hand_in(Input::Ack(ack));
        }
    }

    fn requests(&mut self, at: usize) {
        for _ in 0..self.random.below(3) {
            let dice = self.random.draw();
            if let Some((id, attempt)) = self.world.consumers[at].send(dice)
                && self.world.agent.running_attempt(&id) == Some(attempt)
            {
                self.world.judge_request(&id);
                self.world.consumers[at].began((id, attempt));
                self.world.tally.count("request");
            }
        }
        for _ in 0..self.random.below(3) {
            let dice = self.random.draw();
            let agent = &self.world.agent;
            self.world.consumers[at].finish(dice, |id| agent.answers(id));
        }
    }

    /// Words of consumers arrive late, out of order, twice, or not at all.
    fn words_arrive(&mut self) {
        for _ in 0..self.random.below(4) {
            if self.words.is_empty() {
                return;
            }
            let at = self.random.place(self.words.len());
            let twice = self.mishaps.word_twice.comes(&mut self.random);
            let said = if twice {
                self.words[at].clone()
            } else {
                self.words.swap_remove(at)
            };
            if !self.mishaps.word_lost.comes(&mut self.random) {
                self.hear(said);
            }
        }
    }

    fn hear(&mut self, said: Said) {
        match said {
            Said::Ack(ack) => {
                self.hand_in(Input::Ack(ack));
            }
            Said::Farewell(id) => {
                // Whoever sent it is dead. Its connection, if it waited over a restart, was there
                // before its successor's.
                let epoch = self.world.control.routing().generation.epoch;
                let mut all = self.world.consumers.iter();
                let followed = all.any(|one| one.id.name == id.name && one.id != id);
                if !followed || self.farewell_epochs.get(&id) == Some(&epoch) {
                    self.hand_in(Input::Farewell(id));
                }
            }
            Said::Joined(id) => self.join(&id),
        }
    }

    /// Whoever has the answer gets the routes.
    pub(crate) fn join(&mut self, id: &ConsumerId) {
        if let Answer::Taken(_) = self.hand_in(Input::ConsumerJoined(id.clone())) {
            for consumer in &mut self.world.consumers {
                consumer.joined |= consumer.id == *id && !consumer.dead;
            }
        }
    }

    /// What is under way arrives in any order, then nothing goes wrong any more.
    pub(crate) fn end_mishaps(&mut self) {
        while !self.reports.is_empty() {
            let at = self.random.place(self.reports.len());
            let report = self.reports.swap_remove(at);
            self.hand_in(Input::Report(report));
        }
        while !self.words.is_empty() {
            let at = self.random.place(self.words.len());
            let said = self.words.swap_remove(at);
            self.hear(said);
        }
        self.mishaps.cut = Chance::NEVER;
        self.world.repair_disk();
        if self.world.down {
            self.world.restart_control();
        }
        if self.world.stops_all {
            self.world.keep_up();
        }
    }
}
