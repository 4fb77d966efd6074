//! One worker of the gateway, and what all share: the least that a driver must do.

use std::collections::HashMap;
use std::time::Duration;

use mainstay_control::balance::{
    Balancer, Content, Course, Demand, Hedging, IdempotencyKey, Limiting, LineBounds, Listed, Load,
    MethodSafety, Patience, Policy, Priority, RetryBudget, Retrying, Role, Ticket,
};
use mainstay_ids::Instant;
use mainstay_model::Intake;
use mainstay_model::routing::EndpointHealth;

use super::plot::{INSTANCES, Plot};
use crate::random::Random;

const POLICY: Policy = Policy {
    retrying: Retrying::On,
    hedging: Hedging::On,
    patience: Patience::Short,
    limiting: Limiting::On,
    key: IdempotencyKey::Ignored,
    most: None,
    line: LineBounds {
        len: 500,
        time: Duration::from_secs(1),
    },
};

/// How often somebody asks whether the service lives, on average.
const CHECK_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Worker {
    pub(super) balancer: Balancer<usize>,
    pub(super) budget: RetryBudget,
    /// Idle connections to each instance.
    pub(super) idle: [u32; INSTANCES],
    pub(super) in_line: HashMap<Ticket, usize>,
}

impl Worker {
    pub(super) fn new() -> Self {
        let now = Instant::START;
        let mut balancer = Balancer::new(now, POLICY);
        balancer.update(now, listed([false; INSTANCES]));
        Self {
            balancer,
            budget: RetryBudget::new(now),
            idle: [0; INSTANCES],
            in_line: HashMap::new(),
        }
    }
}

/// The instances of a table: without the dead ones.
pub(super) fn listed(dead: [bool; INSTANCES]) -> Vec<Listed<usize>> {
    let alive = (0..INSTANCES).filter(|endpoint| !dead[*endpoint]);
    let health = EndpointHealth::Passing;
    let listed = |endpoint| Listed {
        endpoint,
        health,
        intake: Intake::default(),
        role: Role::EVEN,
    };
    alive.map(listed).collect()
}

/// One try under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Try {
    pub(super) number: u32,
    pub(super) endpoint: usize,
    pub(super) sent: bool,
}

/// What a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Answered(u16),
    Refused(mainstay_control::balance::Defeat),
}

pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) priority: Priority,
    pub(super) worker: usize,
    pub(super) came: Instant,
    pub(super) course: Course,
    pub(super) tries: [Option<Try>; mainstay_control::balance::LANES],
    pub(super) ended: Option<(Instant, Ending)>,
    /// How often it was sent, at least in part.
    pub(super) sendings: u32,
    /// Whether it was ever sent to an instance in trouble.
    pub(super) was_at_the_sick: bool,
    /// By which of its tries instances carried it out, and when.
    pub(super) effects: Vec<(u32, Instant)>,
}

impl Request {
    pub(super) fn new(now: Instant, worker: usize, plot: &Plot, random: &mut Random) -> Self {
        let method = match random.below(10) {
            0 => "POST",
            1 => "PUT",
            _ => "GET",
        };
        let between = CHECK_EVERY.as_secs_f64() / plot.pause_at(now.since_start()).as_secs_f64();
        let priority = if method == "GET" && random.one_in(between as u64) {
            Priority::Spared
        } else {
            Priority::Normal
        };
        let content = if method == "GET" {
            Content::Bare
        } else {
            Content::More
        };
        let safety = MethodSafety::of(method);
        Self {
            method,
            priority,
            worker,
            came: now,
            course: Course::new(Demand {
                safety,
                content,
                priority,
            }),
            tries: [None; mainstay_control::balance::LANES],
            ended: None,
            sendings: 0,
            was_at_the_sick: false,
            effects: Vec::new(),
        }
    }

    /// It is carried out by a try, if it was not yet.
    pub(super) fn carry_out(&mut self, now: Instant, number: u32) {
        if !self.effects.iter().any(|(by, _)| *by == number) {
            self.effects.push((number, now));
        }
    }

    pub(super) fn lane_of(&self, number: u32) -> Option<usize> {
        let is_it = |one: &Option<Try>| one.is_some_and(|one| one.number == number);
        self.tries.iter().position(is_it)
    }
}

/// What is under way to each instance.
pub(super) type Loads = [Load; INSTANCES];
