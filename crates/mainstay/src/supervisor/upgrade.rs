//! The upgrade of the gateway without a trace: a second one is started with the same sockets, and
//! takes over when it says that it serves; the first then finishes what it began.
//!
//! ```text
//!   gateway      kept ───────────────────────────────► leaving ──► idle
//!   gateway-2    idle ──► coming ── says: I serve ──► kept
//!                           └── ends, or is late ──► leaving, idle; the first stays kept
//! ```
//!
//! Each of the two follows the routes under its own name, so that an acknowledged drain waits for
//! both. Who has ended says farewell; for one that was killed we say it, who saw its end, when
//! nothing is left with which a successor could begin.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use mainstay_api::client::Client;
use mainstay_api::node::Role;
use mainstay_api::wire::Accepted;
use mainstay_ids::{ConsumerId, Instant};
use mainstay_model::routing::Farewell;
use rustix::process::Signal;
use tokio::time::sleep;

use super::claim::{self, Stage};
use super::family::{Entrance, Family, State};
use super::kind::{GATEWAYS, Kind};
use super::record::Upgraded;
use crate::command::API_SOCKET;
use crate::output;

/// How long a gateway may take from its start until it serves: it waits for live routes, which a
/// control centre that is being started gives after some seconds.
const COMING_TIME: Duration = Duration::from_secs(10);

/// How often it is looked whether it serves.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How often a farewell is said again to a control centre that is not there.
const FAREWELL_PAUSE: Duration = Duration::from_millis(500);

/// How a gateway is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandOver {
    /// By a second one, with the same sockets.
    On,
    /// Test seam: the sockets are closed with the first, and the second makes its own.
    Off,
}

/// Whether an upgrade is wanted that could not begin yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    No,
    Yes,
}

impl Family {
    /// Somebody wants another gateway process.
    pub(super) fn want_upgrade(&mut self) {
        self.upgrade_wanted = Wanted::Yes;
    }

    /// Goes on with upgrades: begins what is wanted, looks at who is coming.
    pub(super) fn go_on_with_upgrades(&mut self) {
        if let Some((index, until)) = self.coming() {
            self.look_at_coming(index, until);
        } else if self.upgrade_wanted == Wanted::Yes {
            match self.begin_upgrade() {
                Ok(Begun::Yes) => self.upgrade_wanted = Wanted::No,
                Ok(Begun::NotYet) => {}
                Err(error) => {
                    self.upgrade_wanted = Wanted::No;
                    self.upgrade_failed(format!("{error:#}"));
                }
            }
        }
    }

    /// Who is to take over, and until when.
    pub(super) fn coming(&self) -> Option<(usize, Instant)> {
        let mut members = self.members.iter().enumerate();
        members.find_map(|(index, member)| match member.state {
            State::Coming { until, .. } => Some((index, until)),
            State::Idle | State::Running { .. } | State::Waiting { .. } | State::Leaving { .. } => {
                None
            }
        })
    }

    fn begin_upgrade(&mut self) -> anyhow::Result<Begun> {
        let gateways = |index: &usize| GATEWAYS.contains(&self.members[*index].kind);
        let seats: Vec<usize> = (0..self.members.len()).filter(gateways).collect();
        let state = |index: usize| &self.members[index].state;
        let runs = |index: &&usize| matches!(state(**index), State::Running { .. });
        let idle = |index: &&usize| matches!(state(**index), State::Idle);
        let Some(old) = seats.iter().find(runs).copied() else {
            anyhow::ensure!(self.settings.has(Role::Gateway), "this node has no gateway");
            // It is started anew in a moment, and is new then.
            return Ok(Begun::NotYet);
        };
        let Some(next) = seats.iter().find(idle).copied() else {
            // The one before is still finishing what it began.
            return Ok(Begun::NotYet);
        };
        let elder = self.hand(self.members[old].kind);
        if !self.listening.has_gateway() {
            self.listening.take_back(&elder)?;
        }
        if self.settings.hand_over == HandOver::Off {
            self.listening.close_gateway();
            self.signal(old, Signal::TERM)?;
            self.upgrade_ended(None);
            return Ok(Begun::Yes);
        }
        self.stop_farewell(self.members[next].kind);
        let until = self.now().after(COMING_TIME);
        self.enter(next, &Entrance::Coming { elder, until })?;
        self.remember();
        Ok(Begun::Yes)
    }

    /// Where this gateway offers its sockets.
    pub(super) fn hand(&self, kind: Kind) -> PathBuf {
        self.settings.state.join(kind.hand().unwrap_or_default())
    }

    fn look_at_coming(&mut self, index: usize, until: Instant) {
        let (kind, incarnation) = (self.members[index].kind, self.members[index].incarnation);
        let stage = claim::stage(&self.settings.state, kind.name(), incarnation);
        if stage.is_ok_and(|stage| stage == Some(Stage::Serves)) {
            if let Err(error) = self.hand_over(index) {
                output::warn(format_args!("warning: {error:#}"));
            }
        } else if until <= self.now() {
            if let Err(error) = self.dismiss(index) {
                output::warn(format_args!("warning: {error:#}"));
            }
            self.upgrade_failed(format!(
                "the new gateway did not serve within {COMING_TIME:?}, and is ended"
            ));
        }
    }

    /// The new gateway serves: it is kept from now on, and the old one finishes what it began.
    fn hand_over(&mut self, index: usize) -> anyhow::Result<()> {
        let State::Coming {
            identity, since, ..
        } = &self.members[index].state
        else {
            return Ok(());
        };
        self.members[index].state = State::Running {
            identity: identity.clone(),
            since: *since,
        };
        let kind = self.members[index].kind;
        let others = (0..self.members.len()).filter(|other| *other != index);
        let others: Vec<usize> = others
            .filter(|other| GATEWAYS.contains(&self.members[*other].kind))
            .collect();
        // Written down before the old one is told: whoever comes after us must not take the one
        // that ends for the one that stays.
        for other in &others {
            self.leaves(*other);
        }
        self.remember();
        let number = self.members[index].incarnation.0;
        output::warn(format_args!(
            "the gateway was replaced: {}#{number} serves, the old one finishes what it began",
            kind.name()
        ));
        self.upgrade_ended(None);
        for other in others {
            self.signal(other, Signal::TERM)?;
        }
        Ok(())
    }

    /// Marks a gateway as one that is not kept any more.
    fn leaves(&mut self, index: usize) {
        let until = self.now().after(self.patience(self.members[index].kind));
        let member = &mut self.members[index];
        member.state = match &member.state {
            State::Running { identity, .. } | State::Coming { identity, .. } => State::Leaving {
                identity: identity.clone(),
                until,
            },
            State::Leaving { .. } => return,
            State::Waiting { .. } | State::Idle => {
                member.state = State::Idle;
                self.bury(index);
                return;
            }
        };
    }

    /// Ends one that did not take over.
    fn dismiss(&mut self, index: usize) -> anyhow::Result<()> {
        self.leaves(index);
        self.remember();
        self.signal(index, Signal::TERM)
    }

    /// Sends a signal to a process, if it runs.
    pub(super) fn signal(&self, index: usize, signal: Signal) -> anyhow::Result<()> {
        let member = &self.members[index];
        let context = || format!("cannot tell the {}", member.kind.name());
        let Some(identity) = member.state.identity() else {
            return Ok(());
        };
        match identity.open().with_context(context)? {
            Some(handle) => handle.signal(signal).with_context(context),
            None => Ok(()),
        }
    }

    /// A gateway has ended and is not started again: says its farewell for it, unless it did.
    pub(super) fn bury(&mut self, index: usize) {
        let member = &self.members[index];
        if !GATEWAYS.contains(&member.kind)
            || member.incarnation.0 == 0
            || !self.settings.has(Role::Control)
        {
            return;
        }
        let consumer = ConsumerId {
            name: member.kind.name().to_owned(),
            incarnation: member.incarnation,
        };
        let state = &self.settings.state;
        if let Err(error) = mainstay_gateway::forget_routes(state, &consumer.name) {
            // Without the farewell, stops wait for it as long as `drain` says.
            output::warn(format_args!(
                "warning: cannot remove what {} stored: {error}",
                consumer.name
            ));
            return;
        }
        let client = Client::unix(&state.join(API_SOCKET));
        let task = self.farewells.spawn(say_farewell(client, consumer));
        self.saying.insert(self.members[index].kind, task);
    }

    /// Its next incarnation is started: by it, the control centre knows as much.
    pub(super) fn stop_farewell(&mut self, kind: Kind) {
        if let Some(task) = self.saying.remove(&kind) {
            task.abort();
        }
    }

    /// Somebody who was coming has ended.
    pub(super) fn upgrade_failed(&mut self, why: String) {
        output::warn(format_args!("error: the gateway was not replaced: {why}"));
        output::warn("  the old one goes on");
        self.upgrade_ended(Some(why));
    }

    fn upgrade_ended(&mut self, failed: Option<String>) {
        self.upgrade = Upgraded {
            count: self.upgrade.count + 1,
            failed,
        };
    }

    /// Saves the record; if the disk refuses, the processes go on all the same.
    pub(super) fn remember(&self) {
        if let Err(error) = self.save() {
            // Only an adoption after our own death would miss what happened.
            output::warn(format_args!("warning: {error:#}"));
        }
    }
}

/// Whether an upgrade is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    Yes,
    NotYet,
}

/// Says it until it is heard. It may be said twice.
async fn say_farewell(client: Client, consumer: ConsumerId) {
    let farewell = Farewell {
        consumer,
        reason: "ended".to_owned(),
    };
    while let Err(error) = client
        .post::<_, Accepted>("/v1/consumers/farewell", &farewell)
        .await
    {
        if !error.is_transient() {
            output::warn(format_args!(
                "warning: the control centre refuses a farewell: {error}"
            ));
            return;
        }
        sleep(FAREWELL_PAUSE).await;
    }
}
