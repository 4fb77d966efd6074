//! What the control centre was told, by the judge's own reading of the contract between processes.
//!
//! It is kept beside the machine's snapshot, and goes back with it when the control centre is
//! killed: what was not durable was never told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;

use mainstay_ids::{Attempt, Incarnation, InstanceId, ServiceName, Version};
use mainstay_model::{InstanceReport, NodeReport, Phase, ProbedHealth, ServiceSpec};

/// What was told of one instance's newest attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    Starting,
    Passing { since: u64 },
    Failing,
    Ended,
}

/// The newest word about one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) attempt: Attempt,
    pub(crate) health: Health,
    pub(crate) address: Option<SocketAddr>,
    /// Whether it was told to the present run of the control centre.
    pub(crate) fresh: bool,
    /// How many reports in a row lacked it.
    missed: u32,
}

/// After so many reports in a row without it an instance is lost.
const MISSED_MAX: u32 = 2;

/// What people want of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    Runs { wanted: u32, spec: Rc<ServiceSpec> },
    Gone,
}

/// Everything that was told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    agent: Option<Incarnation>,
    pub(crate) words: BTreeMap<InstanceId, Word>,
    pub(crate) wishes: BTreeMap<ServiceName, Wish>,
    /// What each version says. A number that was given to what never became durable is given again.
    pub(crate) contents: Rc<BTreeMap<(ServiceName, Version), Rc<ServiceSpec>>>,
}

impl Told {
    /// A report was handed in.
    pub(crate) fn take(&mut self, report: &NodeReport, now: u64) {
        if self.agent > Some(report.incarnation) {
            return;
        }
        self.agent = Some(report.incarnation);
        for seen in &report.instances {
            match seen.phase {
                Phase::Running { .. } | Phase::BackingOff { .. } => self.take_one(seen, now),
                Phase::Stopping { .. } => {
                    if let Some(word) = self.words.get_mut(&seen.instance) {
                        word.missed = 0;
                    }
                }
                Phase::Stopped { .. } => {
                    self.words.remove(&seen.instance);
                }
            }
        }
        let named: BTreeSet<_> = report.instances.iter().map(|seen| &seen.instance).collect();
        self.words.retain(|id, word| {
            word.missed += u32::from(!named.contains(id));
            word.missed < MISSED_MAX
        });
    }

    fn take_one(&mut self, seen: &InstanceReport, now: u64) {
        let known = self.words.get(&seen.instance);
        let same = known.filter(|known| known.attempt == seen.attempt);
        let overtaken = known.is_some_and(|known| known.attempt > seen.attempt);
        let ended = same.is_some_and(|known| known.health == Health::Ended);
        let runs = matches!(seen.phase, Phase::Running { .. });
        if overtaken || (ended && runs) {
            if let Some(word) = self.words.get_mut(&seen.instance) {
                word.missed = 0;
            }
            return;
        }
        let before = same.map(|known| known.health);
        let (health, address) = match seen.phase {
            Phase::Running {
                health, address, ..
            } => (after(before, health, now), Some(address)),
            Phase::BackingOff { .. } | Phase::Stopping { .. } | Phase::Stopped { .. } => {
                (Health::Ended, None)
            }
        };
        let word = Word {
            attempt: seen.attempt,
            health,
            address,
            fresh: true,
            missed: 0,
        };
        self.words.insert(seen.instance.clone(), word);
    }

    /// The control centre starts anew from what was durable.
    pub(crate) fn begin_anew(&mut self) {
        self.agent = None;
        for word in self.words.values_mut() {
            word.fresh = false;
            word.missed = 0;
        }
    }
}

/// "Starting" of an attempt that has passed means that its agent is new: to us it has fallen.
fn after(before: Option<Health>, health: ProbedHealth, now: u64) -> Health {
    match (health, before) {
        (ProbedHealth::Passing, Some(passing @ Health::Passing { .. })) => passing,
        (ProbedHealth::Passing, _) => Health::Passing { since: now },
        (ProbedHealth::Failing, _)
        | (ProbedHealth::Starting, Some(Health::Passing { .. } | Health::Failing)) => {
            Health::Failing
        }
        (ProbedHealth::Starting, Some(Health::Starting | Health::Ended) | None) => Health::Starting,
    }
}
