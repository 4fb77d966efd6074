//! What operators want of single instances: drained, in maintenance, or of another weight.
//!
//! It belongs to the instance, over all its attempts and restarts of the control centre, and ends with
//! it. It takes no instance away and starts none: who is drained stays one of the wanted number, and is
//! the first of the healthy to leave where one has to.

use alloc::string::String;

use mainstay_ids::{InstanceId, ServiceName};
use mainstay_model::event::Wait;
use mainstay_model::{EventKind, Intake};

use super::contract::{IntakeWish, LastOne, Refusal};
use super::declare::Services;
use super::instance::{Instance, Life};
use super::service::{Service, instance_id};
use super::step::Step;

/// The longest name of whoever asked that is recorded.
const BY_LEN_MAX: usize = 100;

impl Services {
    /// Takes requests from an instance, or gives it some.
    pub(super) fn set_intake(
        &mut self,
        wish: IntakeWish,
        step: &mut Step<'_>,
    ) -> Result<(), Refusal> {
        let IntakeWish {
            instance,
            state,
            weight,
            last,
            by,
        } = wish;
        let found = self.by_name.get_mut(&instance.service);
        let known = |service: &Service| service.instances.contains_key(&instance.number);
        let Some(service) = found.filter(|service| known(service)) else {
            return Err(Refusal::UnknownInstance { instance });
        };
        service.check_takes(&instance)?;
        let others_take = service.others_take(instance.number);
        let Some(target) = service.instances.get_mut(&instance.number) else {
            return Err(Refusal::UnknownInstance { instance });
        };
        let wanted = Intake {
            state: state.unwrap_or(target.intake.state),
            weight: weight.unwrap_or(target.intake.weight),
        };
        let gives_up = target.intake.takes_any() && !wanted.takes_any();
        match last {
            LastOne::Refuse if gives_up && !others_take => {
                return Err(Refusal::LastOne { instance });
            }
            LastOne::Refuse | LastOne::Take => {}
        }
        if target.intake != wanted {
            target.intake = wanted;
            let name = instance.service.clone();
            let set = EventKind::IntakeSet {
                instance,
                state: wanted.state,
                weight: wanted.weight,
                by: legible(&by),
                generation: step.upcoming,
            };
            step.record(&name, set);
        }
        Ok(())
    }
}

/// Whoever asked may have chosen the name: terminals show it.
fn legible(by: &str) -> String {
    let shown = by.chars().filter(|c| !c.is_control());
    shown.take(BY_LEN_MAX).collect()
}

impl Service {
    /// Whether the instance is one that gets requests at all.
    fn check_takes(&self, id: &InstanceId) -> Result<(), Refusal> {
        let instance = id.clone();
        let Some(found) = self.instances.get(&id.number) else {
            return Err(Refusal::UnknownInstance { instance });
        };
        if !found.serves() || !self.spec().is_routed() {
            return Err(Refusal::Unrouted { instance });
        }
        match found.life {
            Life::Kept => Ok(()),
            Life::Draining(_) | Life::Stopping { .. } => Err(Refusal::Leaving { instance }),
        }
    }

    fn others_take(&self, number: u64) -> bool {
        self.kept()
            .any(|(other, instance)| other != number && instance.takes_any())
    }

    /// How many of those that are kept get no requests because somebody said so.
    pub(super) fn withheld(&self) -> usize {
        let withheld = |instance: &Instance| !instance.intake.takes_any();
        self.kept().filter(|(_, one)| withheld(one)).count()
    }

    /// Whether no endpoint gets requests, although there are some.
    pub(super) fn all_withheld(&self) -> bool {
        let mut listed = self
            .kept()
            .filter(|(_, one)| one.standing.is_listed())
            .peekable();
        listed.peek().is_some() && listed.all(|(_, one)| !one.intake.takes_any())
    }

    /// What the rollout waits for, if all of its version are ready and somebody keeps the requests from
    /// each, so that one of the old still serves.
    pub(super) fn waits_for_intake(&self, name: &ServiceName) -> Option<Wait> {
        let current = self.current;
        let older = self.kept().any(|(_, one)| one.version != current);
        let mut new = self.kept().filter(|(_, one)| one.version == current);
        let (number, _) = new.next().filter(|_| older)?;
        let mut all = self.kept().filter(|(_, one)| one.version == current);
        all.all(|(_, one)| one.is_ready() && !one.takes_any())
            .then(|| Wait::Intake {
                instance: instance_id(name, number),
            })
    }
}
