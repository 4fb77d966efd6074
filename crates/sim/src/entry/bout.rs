//! One run: the world and its clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use mainstay_control::balance::{
    Body, Event, For, LANES, Lane, Learnt, Loss, Next, Picked, Scene, Why, Wish,
};
use mainstay_ids::Instant;

use super::instance::{Call, Instance, Reach, Taken, waves};
use super::judge::{Judge, Sending};
use super::plot::{INSTANCES, Plot, Strike, Trouble};
use super::promise::{EntryPromise, Hurt};
use super::worker::{Ending, Loads, Request, Try, Worker, listed};
use crate::panics::play_out;
use crate::random::Random;
use crate::tally::Tally;

/// What a run came to.
#[derive(Debug)]
pub struct Played {
    /// What was planned.
    pub plot: Plot,
    /// What clients did not get.
    pub hurt: Vec<Hurt>,
    /// What happened.
    pub tally: Tally,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occurrence {
    Arrive,
    Reached(Call),
    Unreachable(Call),
    /// What a call is about happens, before its answer goes out.
    Effect(usize, Call),
    Done(usize, Call),
    Replied(Call, u16),
    Broken(Call),
    Tick(usize),
    TroubleBegins(usize),
    TroubleEnds(usize),
    DeclaredDead(usize),
}

struct World {
    plot: Plot,
    now: Instant,
    random: Random,
    queue: BinaryHeap<Reverse<(Instant, u64, u64)>>,
    occurrences: Vec<Option<Occurrence>>,
    instances: Vec<Instance>,
    workers: Vec<Worker>,
    requests: Vec<Request>,
    loads: Loads,
    dead: [bool; INSTANCES],
    tries: u32,
    judge: Judge,
}

/// Plays the run of a seed.
pub fn play(seed: u64) -> Played {
    let mut random = Random::new(seed);
    let plot = Plot::of(seed, &mut random);
    let mut world = World::new(plot, random);
    let played = play_out(|| world.run());
    let mut judge = world.judge;
    if let Err(what) = played {
        judge.hurt.push(Hurt {
            promise: EntryPromise::OwnInvariant,
            what,
        });
    }
    Played {
        plot,
        hurt: judge.hurt,
        tally: judge.tally,
    }
}

impl World {
    fn new(plot: Plot, random: Random) -> Self {
        Self {
            plot,
            now: Instant::START,
            random,
            queue: BinaryHeap::new(),
            occurrences: Vec::new(),
            instances: (0..INSTANCES).map(|_| Instance::new(&plot)).collect(),
            workers: (0..plot.workers).map(|_| Worker::new()).collect(),
            requests: Vec::new(),
            loads: Loads::default(),
            dead: [false; INSTANCES],
            tries: 0,
            judge: Judge::new(plot),
        }
    }

    fn run(&mut self) {
        self.plan();
        while let Some(Reverse((at, _, index))) = self.queue.pop() {
            self.now = at;
            let taken = usize::try_from(index)
                .ok()
                .and_then(|index| self.occurrences[index].take());
            if let Some(occurrence) = taken {
                self.happen(occurrence);
            }
        }
        self.judge.close(&self.requests, self.loads, &self.workers);
    }

    fn plan(&mut self) {
        self.later(Duration::ZERO, Occurrence::Arrive);
        for instance in 0..INSTANCES {
            if let Some(strike) = self.plot.strike(instance) {
                self.plan_strike(instance, strike);
            }
        }
    }

    fn plan_strike(&mut self, instance: usize, strike: Strike) {
        let lasts = self.plot.lasts;
        match strike.trouble {
            Trouble::None | Trouble::Overload => {}
            Trouble::Flapping | Trouble::Restarting => {
                for (at, begins) in waves(strike, &self.plot) {
                    let what = if begins {
                        Occurrence::TroubleBegins(instance)
                    } else {
                        Occurrence::TroubleEnds(instance)
                    };
                    self.later(at, what);
                }
            }
            Trouble::FrozenThenDead => {
                self.later(strike.from, Occurrence::TroubleBegins(instance));
                let at = strike.from + lasts / 2;
                self.later(at, Occurrence::DeclaredDead(instance));
            }
            Trouble::Frozen
            | Trouble::BlackHole
            | Trouble::Killed
            | Trouble::LateConnects
            | Trouble::Slow
            | Trouble::Erroring => {
                self.later(strike.from, Occurrence::TroubleBegins(instance));
                self.later(strike.from + lasts, Occurrence::TroubleEnds(instance));
            }
        }
    }

    fn later(&mut self, after: Duration, what: Occurrence) {
        let index = self.occurrences.len() as u64;
        self.occurrences.push(Some(what));
        self.queue
            .push(Reverse((self.now.after(after), index, index)));
    }

    fn happen(&mut self, what: Occurrence) {
        match what {
            Occurrence::Arrive => self.arrive(),
            Occurrence::Reached(call) => self.reached(call),
            Occurrence::Unreachable(call) => self.tell_of(call, Event::ConnectFailed),
            Occurrence::Effect(at, call) => {
                if self.instances[at].goes_on(call) {
                    self.requests[call.request].carry_out(self.now, call.try_number);
                }
            }
            Occurrence::Done(at, call) => self.done(at, call),
            Occurrence::Replied(call, status) => {
                self.tell_of(call, |lane| Event::Head(lane, status, Body::Replayable));
            }
            Occurrence::Broken(call) => {
                self.tell_of(call, |lane| {
                    Event::Lost(lane, Loss::Broken, Body::Replayable)
                });
            }
            Occurrence::Tick(request) => self.tell(request, Event::Tick),
            Occurrence::TroubleBegins(instance) => self.begin_trouble(instance),
            Occurrence::TroubleEnds(instance) => {
                for call in self.instances[instance].recover() {
                    self.later(Duration::from_micros(100), Occurrence::Done(instance, call));
                }
                self.judge.trouble_ended(instance);
            }
            Occurrence::DeclaredDead(instance) => {
                self.instances[instance].die();
                self.dead[instance] = true;
                for worker in &mut self.workers {
                    worker.balancer.update(self.now, listed(self.dead));
                }
                self.judge.declared_dead(instance);
                self.cut(instance, Loss::Dead);
            }
        }
    }

    fn begin_trouble(&mut self, instance: usize) {
        let Some(Strike { trouble, .. }) = self.plot.strike(instance) else {
            return;
        };
        self.instances[instance].begin(trouble);
        self.judge.trouble_began(instance);
        if self.instances[instance].is_gone() {
            self.instances[instance].die();
            self.cut(instance, Loss::Broken);
        }
    }

    /// Ends all connections to an instance.
    fn cut(&mut self, instance: usize, loss: Loss) {
        for worker in &mut self.workers {
            worker.idle[instance] = 0;
        }
        for at in 0..self.requests.len() {
            for lane in Lane::ALL {
                let here = |one: Try| one.endpoint == instance && one.sent;
                if self.requests[at].tries[lane.index()].is_some_and(here) {
                    self.tell(at, Event::Lost(lane, loss, Body::Replayable));
                }
            }
        }
    }

    fn arrive(&mut self) {
        let worker = self.random.place(self.workers.len());
        let request = Request::new(self.now, worker, &self.plot, &mut self.random);
        self.requests.push(request);
        self.tell(self.requests.len() - 1, Event::Come);
        let spread = 2.0 * self.random.below(1_000) as f64 / 1_000.0;
        if self.now.since_start() < self.plot.ends {
            let pause = self.plot.pause_at(self.now.since_start());
            self.later(pause.mul_f64(spread), Occurrence::Arrive);
        }
    }

    fn reached(&mut self, call: Call) {
        if let Some(lane) = self.requests[call.request].lane_of(call.try_number) {
            self.go(call.request, lane);
        }
    }

    /// There is a connection: the request is sent, if it still is to be.
    fn go(&mut self, request: usize, lane: usize) {
        self.tell(request, Event::Sent(Lane::ALL[lane]));
        let Some(one) = &mut self.requests[request].tries[lane] else {
            return;
        };
        one.sent = true;
        let (endpoint, number) = (one.endpoint, one.number);
        let call = Call {
            request,
            try_number: number,
        };
        self.requests[request].sendings += 1;
        self.requests[request].was_at_the_sick |= self.plot.strike(endpoint).is_some();
        self.judge.sent(self.now, endpoint, &self.requests[request]);
        match self.instances[endpoint].take(call, &mut self.random) {
            Some(Taken::Working(time)) => self.work(endpoint, call, time),
            Some(Taken::Answers(time, status)) => {
                self.later(time, Occurrence::Replied(call, status));
            }
            Some(Taken::Waits) => {}
            None => self.later(Duration::from_micros(100), Occurrence::Broken(call)),
        }
    }

    /// An instance works on a call: what it is about happens half way.
    fn work(&mut self, endpoint: usize, call: Call, time: Duration) {
        self.later(time / 2, Occurrence::Effect(endpoint, call));
        self.later(time, Occurrence::Done(endpoint, call));
    }

    fn done(&mut self, endpoint: usize, call: Call) {
        if self.instances[endpoint].finish(call).is_none() {
            return;
        }
        // An instance does not see that its client has gone.
        self.requests[call.request].carry_out(self.now, call.try_number);
        self.later(Duration::from_micros(50), Occurrence::Replied(call, 200));
        if let Some((next, time)) = self.instances[endpoint].next(&mut self.random) {
            self.work(endpoint, next, time);
        }
    }

    fn tell_of(&mut self, call: Call, event: impl Fn(Lane) -> Event) {
        if let Some(lane) = self.requests[call.request].lane_of(call.try_number) {
            self.tell(call.request, event(Lane::ALL[lane]));
        }
    }

    fn tell(&mut self, at: usize, event: Event) {
        if self.requests[at].ended.is_some() {
            return;
        }
        let next = self.decide(at, event);
        let ended = self.end_unwanted(at, next);
        match next {
            Next::Begin(lane, picked, why) => self.begin(at, lane, picked, why),
            Next::Wait(For::Turn(ticket)) => {
                let worker = self.requests[at].worker;
                self.workers[worker].in_line.insert(ticket, at);
            }
            Next::Wait(For::Answer | For::Change) | Next::Deliver(_) | Next::Refuse(_) => {}
        }
        let wake = self.requests[at].course.wake();
        if wake != Instant::NEVER && self.requests[at].ended.is_none() {
            self.later(wake.since(self.now), Occurrence::Tick(at));
        }
        if ended || !matches!(next, Next::Wait(_)) {
            self.call_first(self.requests[at].worker);
        }
    }

    fn decide(&mut self, at: usize, event: Event) -> Next {
        let request = &mut self.requests[at];
        let worker = &mut self.workers[request.worker];
        let loads = self.loads;
        let mut learnt: Vec<Learnt> = Vec::new();
        let mut note = |one: Learnt| learnt.push(one);
        let mut scene = Scene {
            now: self.now,
            random: self.random.draw(),
            balancer: &mut worker.balancer,
            budget: &mut worker.budget,
            unavailable: None,
            wish: Wish::NONE,
            traits: &|_| unreachable!("nothing is wished"),
            load: |endpoint: &usize| loads[*endpoint],
            learnt: &mut note,
        };
        let next = request.course.handle(&mut scene, event);
        for one in learnt {
            let endpoint = worker.balancer.set().get(one.picked).copied();
            self.judge.learnt(request.worker, endpoint, one);
        }
        match next {
            Next::Deliver(_) | Next::Refuse(_) => {
                let ending = match (next, event) {
                    (Next::Refuse(defeat), _) => Ending::Refused(defeat),
                    (_, Event::Head(_, status, _)) => Ending::Answered(status),
                    _ => Ending::Answered(0),
                };
                request.ended = Some((self.now, ending));
                self.judge.ended(self.now, request);
            }
            Next::Begin(..) | Next::Wait(_) => {}
        }
        // What this try brought is told; it is over, even if its lane is used again.
        if let (Event::Lost(lane, ..) | Event::ConnectFailed(lane) | Event::Head(lane, ..), false) =
            (event, matches!(next, Next::Deliver(_)))
        {
            self.release(at, lane.index());
        }
        next
    }

    /// Ends the tries that the course does not run any more.
    fn end_unwanted(&mut self, at: usize, next: Next) -> bool {
        let mut any = false;
        for lane in Lane::ALL {
            let begins = matches!(next, Next::Begin(new, ..) if new == lane);
            if begins || !self.requests[at].course.runs(lane) {
                if let (Next::Deliver(won), Some(one)) =
                    (next, self.requests[at].tries[lane.index()])
                    && won == lane
                {
                    let worker = self.requests[at].worker;
                    self.workers[worker].idle[one.endpoint] += 1;
                }
                any |= self.release(at, lane.index());
            }
        }
        any
    }

    fn release(&mut self, at: usize, lane: usize) -> bool {
        let Some(one) = self.requests[at].tries[lane].take() else {
            return false;
        };
        let load = &mut self.loads[one.endpoint];
        load.in_flight -= 1;
        load.waiting -= 1;
        true
    }

    fn begin(&mut self, at: usize, lane: Lane, picked: Picked, why: Why) {
        let worker = &mut self.workers[self.requests[at].worker];
        let endpoint = *worker
            .balancer
            .set()
            .get(picked)
            .expect("it was just chosen");
        self.tries += 1;
        let number = self.tries;
        self.loads[endpoint].in_flight += 1;
        self.loads[endpoint].waiting += 1;
        self.requests[at].tries[lane.index()] = Some(Try {
            number,
            endpoint,
            sent: false,
        });
        self.judge.begun(
            self.now,
            &Sending {
                worker: self.requests[at].worker,
                endpoint,
                method: self.requests[at].method,
                why,
                load: self.loads[endpoint],
            },
        );
        let call = Call {
            request: at,
            try_number: number,
        };
        if worker.idle[endpoint] > 0 {
            worker.idle[endpoint] -= 1;
            // It is known to be closed, or is not.
            if !self.instances[endpoint].is_gone() {
                self.later(Duration::ZERO, Occurrence::Reached(call));
                return;
            }
        }
        match self.instances[endpoint].reach(&mut self.random) {
            Reach::Connected(time) => self.later(time, Occurrence::Reached(call)),
            Reach::Refused(time) => self.later(time, Occurrence::Unreachable(call)),
        }
    }

    /// Whoever is first in the line of a worker looks whether there is room.
    fn call_first(&mut self, worker: usize) {
        let Some(ticket) = self.workers[worker].balancer.line().first(self.now) else {
            return;
        };
        if let Some(at) = self.workers[worker].in_line.get(&ticket).copied() {
            self.tell(at, Event::Turn);
        }
    }
}

const _: () = assert!(LANES == 3, "a request here has three tries");
