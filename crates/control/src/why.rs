//! Why something is as it is: from what was recorded and how things stand now to a chain of reasons.
//!
//! Pure like all decisions: the driver hands in the events that it remembers. Nothing is guessed
//! here: each reason is a recorded decision or a view, and an event that lacks an input which an
//! answer needs gets it where it is recorded.

mod chain;
mod instance;
mod moment;
mod service;
mod words;

use mainstay_ids::{InstanceId, ServiceName, Timestamp};
use mainstay_model::{Event, Why};

use crate::Control;

/// What is remembered of what happened.
#[derive(Debug, Clone, Copy)]
pub struct Past<'a> {
    /// The events, the oldest first.
    pub events: &'a [&'a Event],
    /// The number of the last event that there ever was.
    pub last: u64,
}

impl<'a> Past<'a> {
    /// The number of the newest event that is not remembered, if one is not.
    fn forgotten(self) -> Option<u64> {
        let first = self
            .events
            .first()
            .map_or(self.last + 1, |event| event.number);
        (first > 1).then_some(first - 1)
    }

    fn of(self, service: &'a ServiceName) -> impl DoubleEndedIterator<Item = &'a Event> {
        let all = self.events.iter().copied();
        all.filter(move |event| event.service.as_ref() == Some(service))
    }
}

impl Control {
    /// Why a service is as it is; `None`: there is none, and none is remembered.
    pub fn why_service(&self, name: &ServiceName, past: Past<'_>, now: Timestamp) -> Option<Why> {
        match self.known_of(name) {
            Some((service, instances)) => Some(service::of(&service, &instances, past, now)),
            None => service::of_gone(name, past),
        }
    }

    /// Why an instance is as it is; `None`: there is none, and none is remembered.
    pub fn why_instance(&self, id: &InstanceId, past: Past<'_>, now: Timestamp) -> Option<Why> {
        let known = self.known_of(&id.service);
        let view = known
            .as_ref()
            .and_then(|(_, instances)| instances.iter().find(|one| one.instance == *id));
        match (view, &known) {
            (Some(view), Some((service, _))) => Some(instance::of(view, service, past, now)),
            (None, _) | (_, None) => instance::of_gone(id, past),
        }
    }

    /// How a service was at that moment, as far as was known; `None`: there was none, or nothing is
    /// remembered of it.
    pub fn why_service_then(
        &self,
        name: &ServiceName,
        past: Past<'_>,
        at: Timestamp,
    ) -> Option<Why> {
        let known = self.known_of(name).is_some();
        (known || past.of(name).next().is_some()).then(|| moment::of(name, past, at))
    }
}
