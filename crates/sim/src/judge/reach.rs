//! Who can reach whom: stops, requests, and what consumers said.

use mainstay_control::{CONSUMER_LEASE, Presence};
use mainstay_ids::InstanceId;

use crate::broken::Promise;
use crate::world::World;

impl World {
    /// Whether the drain time of the instance is over, by the judge's own clock.
    fn drain_over(&self, id: &InstanceId) -> bool {
        let Some(shown) = self.judge.last.instances.get(id) else {
            // The machine has forgotten it, which it may once it has ended.
            return true;
        };
        let drain = self.drain_ms(id, shown.version);
        let record = self.judge.records.get(id);
        let began = record.and_then(|record| record.drained);
        began.is_some_and(|began| self.now_ms >= began + drain)
    }

    pub(crate) fn drain_ms(&self, id: &InstanceId, version: mainstay_ids::Version) -> u64 {
        let content = self.judge.content(&id.service, version);
        content.map_or(0, |spec| spec.drain.as_millis() as u64)
    }

    /// An instance is told to stop: nobody alive may be able to reach it, unless its time is over.
    pub(crate) fn judge_stop(&mut self, id: &InstanceId) {
        let Some(attempt) = self.agent.running_attempt(id) else {
            return;
        };
        if self.drain_over(id) {
            return;
        }
        let consumers = self.consumers.iter();
        let reached: Vec<String> = consumers
            .filter_map(|consumer| {
                let how = consumer.can_reach(id, attempt)?;
                Some(format!("{id} is told to stop while {} {how}", consumer.id))
            })
            .collect();
        for what in reached {
            self.breaks(Promise::StopsUnreached, what);
        }
    }

    /// A worker sends a request: whoever gets it must not have been told to stop.
    pub(crate) fn judge_request(&mut self, id: &InstanceId) {
        if self.judge.stopped.contains(id)
            && self.agent.running_attempt(id).is_some()
            && !self.drain_over(id)
        {
            let what = format!("a request was sent to {id}, which was told to stop");
            self.breaks(Promise::SendsToNoneStopped, what);
        }
    }

    /// What the machine believes of consumers is what they said.
    pub(crate) fn judge_words(&mut self) {
        let now = self.clock().now;
        let mut broken = Vec::new();
        for view in self.control.consumers(now) {
            let who = &view.consumer;
            if view.acknowledged > self.judge.said.get(who).copied() {
                let believed = view.acknowledged;
                broken.push(format!("{who} is believed to have {believed:?}"));
            }
            if view.presence == Presence::Gone && !self.judge.farewells.contains(who) {
                broken.push(format!("{who} counts as gone and said no farewell"));
            }
            if view.presence == Presence::Live && view.silent > CONSUMER_LEASE {
                broken.push(format!("{who} is silent for {:?} and live", view.silent));
            }
        }
        let waited_for = |name: &str| {
            let mut all = self.control.consumers(now);
            all.any(|view| view.consumer.name == name && view.presence != Presence::Gone)
        };
        for consumer in &self.consumers {
            if consumer.has_routes() && !waited_for(&consumer.id.name) {
                broken.push(format!("{} has routes and is not waited for", consumer.id));
            }
        }
        for what in broken {
            self.breaks(Promise::WordsOfTheirOwn, what);
        }
    }
}
