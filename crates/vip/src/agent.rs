//! Whether this node's agent is heard: it says in the memory that its claim names that it goes on. One that is started
//! again at once was never silent.

use std::time::Duration;

use mainstay_ids::Instant;
use mainstay_kernel::Pidfd;

use crate::host::Host;
use crate::signed::{Claim, Pace, Progress};
use crate::track::Works;

/// Its claim, in the state directory.
const CLAIM: &str = "processes/agent.json";
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The silence that counts: what the control centre takes for the end of a consumer, and some starts of an agent.
const SILENT_AFTER: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(crate) struct Agent {
    held: Option<(Pidfd, Option<Progress>)>,
    /// When it was last known to run and to go on.
    heard: Instant,
    look: Instant,
    works: Works,
}

impl Agent {
    /// It has its time to start.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            held: None,
            heard: now,
            look: now,
            works: Works::Yes,
        }
    }

    /// Looks, when it is time.
    pub(crate) fn turn(&mut self, host: &Host) -> Works {
        let now = host.now();
        if now < self.look {
            return self.works;
        }
        if now.since(self.look) >= LOOK_EVERY {
            // We slept, and do not know for how long it was silent.
            self.heard = now;
        }
        self.look = now.after(LOOK_EVERY);
        if self.goes_on(host, now) {
            self.heard = now;
        }
        let works = if now.since(self.heard) < SILENT_AFTER {
            Works::Yes
        } else {
            Works::No
        };
        match (self.works, works) {
            (Works::Yes, Works::No) => tracing::warn!(
                "the agent of this node has been silent for {SILENT_AFTER:?}: this node is the last choice"
            ),
            (Works::No, Works::Yes) => tracing::info!("the agent of this node is heard again"),
            (Works::Yes, Works::Yes) | (Works::No, Works::No) => {}
        }
        self.works = works;
        works
    }

    fn goes_on(&mut self, host: &Host, now: Instant) -> bool {
        if let Some((handle, _)) = &self.held
            && handle.has_ended().unwrap_or(true)
        {
            self.held = None;
        }
        if self.held.is_none() {
            let claim = Claim::read(&host.state.join(CLAIM));
            self.held = claim.and_then(|claim| claim.open(now));
        }
        match &mut self.held {
            None => false,
            Some((_, None)) => true,
            // Each look asks whether anything was said since the one before but one.
            Some((_, Some(progress))) => match progress.look(now, 2 * LOOK_EVERY + LOOK_EVERY) {
                Pace::GoesOn => true,
                Pace::Stuck(_) | Pace::Leaving => false,
            },
        }
    }

    pub(crate) fn next_deadline(&self) -> Instant {
        self.look
    }
}
