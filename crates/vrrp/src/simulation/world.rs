//! The world: machines with their clocks and kernels, and what happens to them.

use alloc::collections::{BinaryHeap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::time::Duration;

use mainstay_ids::Instant;

use super::Played;
use super::judge::Judge;
use super::network::Network;
use super::plot::{Plot, WAKE, WAY, Weather};
use super::random::Random;
use crate::contract::{Action, Health, Input, Note, Role};
use crate::packet::{Advert, Envelope, HOP_LIMIT, LEN_MAX, Outgoing, Reach};
use crate::planted::Planted;
use crate::router::Router;
use crate::words::{Checksum, Priority};

/// What a socket keeps for a program that does not read.
const SOCKET_MAX: usize = 64;
/// Clocks begin late, so that they can be set back.
const CLOCK_START: Duration = Duration::from_secs(1_000_000);

#[derive(Debug, Clone)]
enum Event {
    Arrives {
        to: usize,
        from: usize,
        bytes: Vec<u8>,
    },
    Announced {
        to: usize,
        by: usize,
    },
    Wake {
        at: usize,
        turn: u64,
    },
    Resume {
        at: usize,
    },
    Restart {
        at: usize,
    },
    LinkBack {
        at: usize,
    },
    Heal,
}

struct Machine {
    router: Option<Router>,
    clock: Duration,
    clock_was_set_back: bool,
    paused: Option<Pause>,
    waiting: VecDeque<(usize, Vec<u8>)>,
    /// A wake-up of an older turn is void.
    turn: u64,
}

#[derive(Debug, Clone, Copy)]
struct Pause {
    since: Instant,
    /// The whole machine: what arrived is lost.
    suspended: bool,
}

pub(super) struct World {
    plot: Plot,
    planted: Planted,
    random: Random,
    now: Instant,
    queue: BinaryHeap<Reverse<(Instant, usize)>>,
    events: Vec<Option<Event>>,
    machines: Vec<Machine>,
    network: Network,
    judge: Judge,
    steps: Vec<String>,
}

impl World {
    pub(super) fn new(plot: Plot, planted: Planted) -> Self {
        let count = plot.routers.len();
        let machine = || Machine {
            router: None,
            clock: CLOCK_START,
            clock_was_set_back: false,
            paused: None,
            waiting: VecDeque::new(),
            turn: 0,
        };
        Self {
            random: Random::new(plot.seed),
            now: Instant::START,
            queue: BinaryHeap::new(),
            events: Vec::new(),
            machines: (0..count).map(|_| machine()).collect(),
            network: Network::new(count),
            judge: Judge::new(&plot),
            steps: Vec::new(),
            planted,
            plot,
        }
    }

    pub(super) fn into_played(self) -> Played {
        Played {
            broken: self.judge.broken,
            steps: self.steps,
            happened: self.judge.happened,
        }
    }

    pub(super) fn run(&mut self) {
        for at in 0..self.machines.len() {
            let pause = self.random.up_to(self.plot.interval_max() * 5);
            self.later(pause, Event::Restart { at });
        }
        self.pass(self.plot.settling() + self.plot.interval_max() * 5);
        for _ in 0..self.plot.mishaps {
            if self.judge.broken.is_some() {
                return;
            }
            self.judge.begin();
            let lasts = self.mishap();
            match self.plot.weather {
                Weather::Clean => {
                    self.pass(lasts + self.plot.settling());
                    self.settle(self.plot.settling() / 4);
                }
                Weather::Rough => {
                    let most = self.plot.interval_max() * self.random.one_of(&[2, 8, 20]);
                    let pause = self.random.up_to(most);
                    self.pass(pause);
                }
            }
        }
        if self.judge.broken.is_none() {
            self.calm();
        }
    }

    /// Nothing goes wrong any more: all must come to rest, and must still be able to move.
    fn calm(&mut self) {
        self.step("calm");
        self.plot.lost = 0;
        self.plot.late = 0;
        self.plot.doubled = 0;
        // What was to end by itself ends, and a refresh comes.
        let refresh = self.plot.routers[0].refresh.unwrap_or_default();
        self.pass(self.plot.settling() * 2);
        self.heal();
        for at in 0..self.machines.len() {
            if !self.judge.is_running(at) {
                self.happen(Event::Restart { at });
            }
        }
        self.plot.weather = Weather::Clean;
        self.judge.calm();
        self.pass(self.plot.settling() * 2 + refresh);
        self.judge.begin();
        self.settle(self.plot.settling());
        if let (Some(holder), None) = (self.judge.holder(), &self.judge.broken) {
            self.tell(holder, Input::Move, "moved", Duration::ZERO);
            self.pass(self.plot.settling() * 2);
            self.settle(self.plot.settling());
        }
    }

    fn settle(&mut self, quiet_for: Duration) {
        let now = self.now;
        self.judge.settled(now, quiet_for);
    }

    fn later(&mut self, after: Duration, event: Event) {
        self.queue
            .push(Reverse((self.now.after(after), self.events.len())));
        self.events.push(Some(event));
    }

    /// Lets time pass, or stops where a promise was broken.
    fn pass(&mut self, time: Duration) {
        let end = self.now.after(time);
        while let Some(Reverse((at, index))) = self.queue.peek().copied() {
            if at > end || self.judge.broken.is_some() {
                break;
            }
            self.queue.pop();
            self.now = at;
            if let Some(event) = self.events[index].take() {
                self.happen(event);
            }
            self.judge.look(self.now, &self.network);
        }
        self.now = end;
    }

    fn step(&mut self, what: &str) {
        self.steps
            .push(format!("{:>14?} {what}", self.now.since_start()));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives { to, from, bytes } => self.arrive(to, from, bytes),
            Event::Announced { to, by } => self.judge.announced(by, to),
            Event::Wake { at, turn } => {
                let machine = &self.machines[at];
                if machine.turn == turn && machine.paused.is_none() {
                    self.input(at, &Input::Tick, "tick");
                }
            }
            Event::Resume { at } => self.resume(at),
            Event::Restart { at } => self.restart(at),
            Event::LinkBack { at } => {
                self.heal();
                self.up(at);
            }
            Event::Heal => self.heal(),
        }
    }

    fn heal(&mut self) {
        self.step("all links work");
        self.network.heal();
        for at in 0..self.machines.len() {
            self.judge.disturb(self.now, at);
        }
    }

    fn restart(&mut self, at: usize) {
        if self.judge.is_running(at) {
            return;
        }
        let mut options = self.plot.routers[at].clone();
        options.checksum = self
            .random
            .one_of(&[Checksum::WithPseudoHeader, Checksum::MessageAlone]);
        let mut router = Router::new(options).expect("the plot's options are legal");
        router.plant(self.planted);
        self.judge
            .set_priority(self.now, at, router.options().priority);
        let machine = &mut self.machines[at];
        (machine.router, machine.paused) = (Some(router), None);
        machine.waiting.clear();
        self.judge.restarted(at);
        self.up(at);
    }

    fn up(&mut self, at: usize) {
        if self.machines[at].router.is_none() || self.judge.is_running(at) {
            return;
        }
        self.judge.came_up(self.now, at);
        let source = self.plot.source(at);
        self.input(at, &Input::Up { source }, "up");
    }

    fn resume(&mut self, at: usize) {
        let Some(pause) = self.machines[at].paused.take() else {
            return;
        };
        self.step(&format!("{at} goes on"));
        self.judge
            .resumed(self.now, at, self.now.since(pause.since));
        let waiting = core::mem::take(&mut self.machines[at].waiting);
        for (from, bytes) in waiting {
            if !pause.suspended {
                self.arrive(at, from, bytes);
            }
        }
        self.input(at, &Input::Tick, "tick");
    }

    fn arrive(&mut self, to: usize, from: usize, bytes: Vec<u8>) {
        let machine = &mut self.machines[to];
        if machine.paused.is_some() {
            if machine.waiting.len() < SOCKET_MAX {
                machine.waiting.push_back((from, bytes));
            }
            return;
        }
        if machine.router.is_none() {
            return;
        }
        let envelope = Envelope {
            from: self.plot.source(from),
            to: self.plot.routers[0].group(),
            hop_limit: HOP_LIMIT,
        };
        let advert = Advert::read(&envelope, Reach::Link, &bytes).expect("what a router wrote");
        self.judge.heard(self.now, to, from, &advert);
        let what = format!("hears {from} ({})", advert.priority);
        self.input(to, &Input::Advert(&advert), &what);
        // Its driver has read everything, and asks what is due.
        self.input(to, &Input::Tick, "tick");
    }

    fn input(&mut self, at: usize, input: &Input<'_>, what: &str) {
        let machine = &mut self.machines[at];
        let Some(router) = &mut machine.router else {
            return;
        };
        if core::mem::take(&mut machine.clock_was_set_back) {
            self.judge.disturb(self.now, at);
        }
        let clock = Instant::from_start(machine.clock).after(self.now.since_start());
        let before = router.role();
        let actions = router.handle(clock, *input);
        let deadline = router.next_deadline();
        let role = router.role();
        machine.turn += 1;
        let turn = machine.turn;
        let said = actions
            .iter()
            .any(|action| !matches!(action, Action::Send { .. }));
        if !matches!(input, Input::Tick | Input::Advert(_)) || said {
            self.step(&format!(
                "{at} {before:?}, {what}: {:?}",
                actions.iter().collect::<Vec<_>>()
            ));
        }
        let list: Vec<Action> = actions.iter().collect();
        self.act(at, &list);
        if role == Role::Init && before != Role::Init {
            self.judge.went_down(self.now, at);
        }
        if deadline != Instant::NEVER {
            let late = self.random.up_to(WAKE);
            self.later(deadline.since(clock) + late, Event::Wake { at, turn });
        }
    }

    fn act(&mut self, at: usize, actions: &[Action]) {
        let why = actions.iter().find_map(|action| match action {
            Action::Tell(Note::Became(Role::Master, why)) => Some(*why),
            _ => None,
        });
        for action in actions {
            match action {
                Action::AddAddresses => {
                    if let Some(why) = why {
                        self.judge.took_over(self.now, at, why, &self.network);
                    }
                }
                Action::RemoveAddresses => self.judge.released(self.now, at),
                Action::Send { priority, checksum } => self.send(at, *priority, *checksum),
                Action::Announce => self.announce(at),
                Action::Tell(Note::Stalled(_)) => self.judge.happened.count("stalled"),
                Action::Tell(_) => {}
            }
        }
    }

    fn send(&mut self, at: usize, priority: Priority, checksum: Checksum) {
        self.judge.sent(self.now, at, priority);
        let options = &self.plot.routers[at];
        let advert = Outgoing {
            version: options.version,
            vrid: options.vrid,
            priority,
            interval: options.interval,
            addresses: &options.addresses,
            checksum,
        };
        let mut room = [0; LEN_MAX];
        let written = advert.write(self.plot.source(at), options.group(), &mut room);
        let bytes = room[..written.expect("it can be said")].to_vec();
        for to in 0..self.machines.len() {
            if to != at && self.network.reaches(at, to) {
                self.carry(at, to, &bytes);
            }
        }
    }

    fn carry(&mut self, from: usize, to: usize, bytes: &[u8]) {
        if self.random.permille(self.plot.lost) {
            self.judge.happened.count("lost");
            self.judge.excuse(self.now, from, to);
            return;
        }
        let copies = if self.random.permille(self.plot.doubled) {
            2
        } else {
            1
        };
        for copy in 0..copies {
            if copy > 0 {
                self.judge.happened.count("doubled");
            }
            // Without trouble, a link keeps the order.
            let mut way = match self.plot.weather {
                Weather::Clean => WAY / 2,
                Weather::Rough => WAY / 3 + self.random.up_to(WAY / 3),
            };
            if self.random.permille(self.plot.late) || copy > 0 {
                self.judge.happened.count("late");
                way = self.random.up_to(self.plot.latency_max);
                self.judge.excuse(self.now.after(way), from, to);
            }
            let bytes = bytes.to_vec();
            self.later(way, Event::Arrives { to, from, bytes });
        }
    }

    fn announce(&mut self, by: usize) {
        for to in 0..self.machines.len() {
            let lost = to != by && self.random.permille(self.plot.lost);
            if self.network.reaches(by, to) && !lost {
                self.later(WAY / 2, Event::Announced { to, by });
            }
        }
    }

    /// Something goes wrong; how long it lasts.
    fn mishap(&mut self) -> Duration {
        let at = self.random.below(self.machines.len());
        // The holder is where it matters.
        let at = match self.judge.holder() {
            Some(holder) if self.random.permille(600) => holder,
            _ => at,
        };
        let interval = self.plot.interval_max();
        let lasts = self
            .random
            .one_of(&[interval / 2, interval * 2, interval * 5, interval * 12]);
        let which = self.random.below(12);
        if self.judge.is_paused(at) || !self.judge.is_running(at) {
            return Duration::ZERO;
        }
        match which {
            0 => self.cut_one_way(at, lasts),
            1 => self.split(lasts),
            2 => self.kill(at, lasts),
            3 => self.tell(at, Input::Stop, "stopped", lasts),
            4 => self.pause(at, lasts, "frozen"),
            5 => self.pause(at, lasts, "suspended"),
            6 => self.set_clock(at, "clock ahead", self.machines[at].clock + lasts),
            7 => {
                self.machines[at].clock_was_set_back = true;
                self.set_clock(
                    at,
                    "clock back",
                    self.machines[at].clock.saturating_sub(lasts),
                );
            }
            8 => {
                let priority = Priority(self.random.one_of(&[1, 20, 100, 100, 180, 254]));
                self.judge.set_priority(self.now, at, priority);
                self.tell(at, Input::Priority(priority), "priority", lasts);
            }
            9 => {
                let unfit = |one: &usize| {
                    let running = self.judge.is_running(*one) && !self.judge.is_paused(*one);
                    running && self.judge.health(*one) == Health::Unfit
                };
                let recovers = (0..self.machines.len()).find(unfit);
                let at = recovers.filter(|_| self.random.permille(500)).unwrap_or(at);
                let health = match self.judge.health(at) {
                    Health::Fit => Health::Unfit,
                    Health::Unfit => Health::Fit,
                };
                self.judge.set_health(self.now, at, health);
                let what = if health == Health::Fit {
                    "fit"
                } else {
                    "unfit"
                };
                self.tell(at, Input::Health(health), what, lasts);
            }
            10 => self.tell(at, Input::Move, "moved", lasts),
            _ => self.lose_link(at, lasts),
        }
        // Who was stopped comes back when the others have come to rest.
        if which == 3 {
            lasts + self.plot.settling()
        } else {
            lasts
        }
    }

    fn cut_one_way(&mut self, at: usize, lasts: Duration) {
        let to = (at + 1) % self.machines.len();
        self.judge.happened.count("cut one way");
        self.step(&format!("{to} hears nothing from {at}"));
        self.network.cut(at, to);
        self.disturb_all();
        self.later(lasts, Event::Heal);
    }

    fn split(&mut self, lasts: Duration) {
        self.judge.happened.count("split");
        let sides: Vec<bool> = self
            .machines
            .iter()
            .map(|_| self.random.permille(500))
            .collect();
        self.step(&format!("split: {sides:?}"));
        for one in 0..sides.len() {
            for other in 0..sides.len() {
                if sides[one] != sides[other] {
                    self.network.cut(one, other);
                }
            }
        }
        self.disturb_all();
        self.later(lasts, Event::Heal);
    }

    fn disturb_all(&mut self) {
        for at in 0..self.machines.len() {
            self.judge.disturb(self.now, at);
        }
    }

    /// The machine is gone, with its addresses.
    fn kill(&mut self, at: usize, lasts: Duration) {
        self.judge.happened.count("killed");
        self.step(&format!("{at} is killed"));
        self.machines[at].router = None;
        self.judge.went_down(self.now, at);
        self.later(lasts, Event::Restart { at });
    }

    fn pause(&mut self, at: usize, lasts: Duration, what: &'static str) {
        self.judge.happened.count(what);
        self.step(&format!("{at} is {what}"));
        let suspended = what == "suspended";
        self.machines[at].paused = Some(Pause {
            since: self.now,
            suspended,
        });
        self.judge.paused(self.now, at);
        self.later(lasts, Event::Resume { at });
    }

    fn set_clock(&mut self, at: usize, what: &'static str, clock: Duration) {
        self.judge.happened.count(what);
        self.step(&format!("{at}: {what}"));
        self.machines[at].clock = clock;
        self.judge.stepped(self.now, at);
    }

    fn tell(&mut self, at: usize, input: Input<'_>, what: &'static str, lasts: Duration) {
        self.judge.happened.count(what);
        let moves = matches!(input, Input::Move | Input::Stop) && self.judge.holder() == Some(at);
        if moves && self.judge.health(at) == Health::Fit {
            self.judge.moves_away(self.now, at, &self.network);
        }
        self.judge.disturb(self.now, at);
        self.input(at, &input, what);
        if input == Input::Stop {
            self.later(lasts + self.plot.settling(), Event::Restart { at });
        }
    }

    /// The interface is pulled, and its program notices.
    fn lose_link(&mut self, at: usize, lasts: Duration) {
        self.judge.happened.count("link lost");
        for other in 0..self.machines.len() {
            if other != at {
                self.network.cut(at, other);
                self.network.cut(other, at);
            }
        }
        self.disturb_all();
        self.input(at, &Input::Down, "link lost");
        self.later(lasts, Event::LinkBack { at });
    }
}
