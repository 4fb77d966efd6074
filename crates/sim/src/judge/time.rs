//! That what is due happens, at its time and not before.

use mainstay_model::event::RolloutFailure;
use mainstay_model::{Event, EventKind, InstanceState};

use crate::broken::Promise;
use crate::told::Health;
use crate::world::World;

/// How late the word of a change may be in a calm world: two rounds of reports.
const WORD_MS: u64 = 1000;
/// The longest delay between two attempts of an instance that keeps ending.
const BACK_OFF_MS: u64 = 31_000;

impl World {
    /// Nothing is overdue: all deadlines up to now have been kept.
    pub(crate) fn judge_time(&mut self) {
        if self.down || !self.control.may_publish() {
            return;
        }
        let restored = self.judge.restored_ms;
        let mut broken = Vec::new();
        for (id, shown) in &self.judge.last.instances {
            let word = self.judge.told.words.get(id);
            match (shown.state, word.map(|word| word.health)) {
                (InstanceState::Healthy, Some(Health::Passing { since })) => {
                    let due = since.max(restored) + self.hold_ms(&id.service, shown);
                    if due < self.now_ms {
                        broken.push(format!("{id} was to be ready at {due} ms"));
                    }
                }
                (InstanceState::Draining, _) => {
                    let record = self.judge.records.get(id);
                    let began = record.and_then(|record| record.timed);
                    let due = began.map(|began| began + self.drain_ms(id, shown.version));
                    if due.is_some_and(|due| due < self.now_ms) {
                        broken.push(format!("{id} was to be told to stop at {due:?} ms"));
                    }
                }
                (
                    InstanceState::Planned
                    | InstanceState::Held
                    | InstanceState::Running
                    | InstanceState::Starting
                    | InstanceState::Healthy
                    | InstanceState::Ready
                    | InstanceState::Failing
                    | InstanceState::BackingOff
                    | InstanceState::CrashLooping
                    | InstanceState::Stopping,
                    _,
                ) => {}
            }
        }
        for what in broken {
            self.breaks(Promise::OnTime, what);
        }
        self.judge_words();
    }

    /// A rollout fails for lateness only after the healthy deadline.
    pub(crate) fn judge_failures(&mut self, events: &[Event]) {
        for event in events {
            let EventKind::RolloutFailed {
                version,
                cause: RolloutFailure::NotReady { instance, .. },
            } = &event.kind
            else {
                continue;
            };
            let content = self.judge.content(&instance.service, *version);
            let deadline = content.map_or(0, |spec| spec.rollout.deadline.as_millis() as u64);
            let planned = self.judge.records.get(instance).map(|one| one.planned);
            if planned.is_some_and(|planned| self.now_ms < planned + deadline) {
                let what = format!("{instance} was planned at {planned:?} and is called late");
                self.breaks(Promise::NotTooSoon, what);
            }
        }
    }

    /// The longest that everything may take to come to rest in a calm world, in milliseconds:
    /// for each service its rollout and its way back, batch by batch, each instance with the
    /// healthy deadline twice; then the drains and stops of the last.
    pub(crate) fn rests_within_ms(&self) -> u64 {
        let mut longest = 0;
        let mut drains = 0;
        for view in self.control.services() {
            let rollout = &view.spec.rollout;
            let step = u64::from(rollout.step.of(view.wanted).max(1));
            let batches = u64::from(view.wanted).div_ceil(step) + 1;
            let deadline = rollout.progress.max(rollout.deadline * 2);
            let one = (deadline + rollout.hold).as_millis() as u64 + WORD_MS;
            longest = longest.max(2 * batches * one);
        }
        for (id, shown) in &self.judge.last.instances {
            let content = self.judge.content(&id.service, shown.version);
            let time = content.map_or(0, |spec| (spec.drain + spec.grace).as_millis() as u64);
            drains = drains.max(time);
        }
        longest + 2 * (drains + WORD_MS) + BACK_OFF_MS
    }
}
