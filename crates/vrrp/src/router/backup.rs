//! A backup: listens, and takes the address when it should.

use core::net::IpAddr;

use mainstay_ids::Instant;

use super::{LISTENS_AGAIN, Router, State};
use crate::contract::{Action, Actions, Health, Note, Why};
use crate::options::{Handover, Preempt};
use crate::packet::Advert;
use crate::planted::Bug;
use crate::words::{Interval, Priority};

/// After so many intervals, one lost advert does not explain the silence any more.
const LOST_AND_ONE: u32 = 2;

#[derive(Debug, Clone, Copy)]
pub(super) struct Backup {
    /// Who is followed, if anybody was heard.
    pub(super) master: Option<IpAddr>,
    /// What that one said last.
    said: Priority,
    /// And when.
    heard: Instant,
    /// Until then another one may hold it besides.
    another_until: Instant,
    /// How often that one sends (RFC 9568, 6.1: `Active_Adver_Interval`).
    interval: Interval,
    /// Since when we wait.
    since: Instant,
    wait: Wait,
    right: Right,
}

/// What a backup waits for. How long is computed from our priority when it is asked for, because that may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// The master's next advert (RFC 9568, 6.1: `Active_Down_Interval`).
    Advert,
    /// The better peers that may be: the master leaves (RFC 9568, 6.1: `Skew_Time`).
    Better,
    /// Any advert: we slept, and our silence proves nothing.
    Anybody {
        /// How often we may still oversleep that and listen anew.
        again: u8,
    },
}

/// Whether we may take the address from a worse master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Right {
    /// As the options say.
    AsConfigured,
    /// It is used: a worse one was heard and is not followed, so that our wait ends although it speaks.
    Used {
        /// When it was heard last.
        heard: Instant,
        /// How often it speaks.
        every: Interval,
    },
    /// Not: we gave it away on purpose. Until somebody else's silence makes us master, or people change something.
    Given,
    /// From then on: a worse one was heard first so long ago.
    From(Instant),
}

impl Wait {
    /// What is waited for after a sleep in which a master's advert may have come and gone.
    fn anew(self) -> Option<Self> {
        match self {
            Self::Advert | Self::Better => Some(Self::Anybody {
                again: LISTENS_AGAIN,
            }),
            Self::Anybody { again } => Some(Self::Anybody {
                again: again.checked_sub(1)?,
            }),
        }
    }
}

impl Backup {
    /// Nobody was heard yet. RFC 9568, 6.4.1: the master's interval is taken to be our own.
    pub(super) fn started(now: Instant, interval: Interval) -> Self {
        Self {
            master: None,
            said: Priority::LEAVING,
            heard: now,
            another_until: now,
            interval,
            since: now,
            wait: Wait::Advert,
            right: Right::AsConfigured,
        }
    }

    /// Follows whoever sent this.
    pub(super) fn following(now: Instant, advert: &Advert<'_>) -> Self {
        Self {
            master: Some(advert.from),
            said: advert.priority,
            heard: now,
            another_until: now,
            interval: advert.interval,
            since: now,
            wait: Wait::Advert,
            right: Right::AsConfigured,
        }
    }

    /// Will not take it back from that one.
    pub(super) fn giving(self) -> Self {
        Self {
            right: Right::Given,
            ..self
        }
    }

    /// Goes on following, but this one was heard, and may speak less often. If it holds the address after all, it is
    /// followed when the other one has been silent for two intervals.
    fn besides(self, now: Instant, advert: &Advert<'_>) -> Self {
        let interval = self.interval.max(advert.interval);
        Self {
            since: now,
            another_until: now.after(interval.duration() * LOST_AND_ONE),
            interval,
            ..self
        }
    }

    /// Whether this one has lost against the one that is followed, or is about to: its advert is a last word.
    fn has_lost(&self, now: Instant, advert: &Advert<'_>) -> bool {
        let rank = (advert.priority, advert.from);
        let lost = |master| master != advert.from && rank < (self.said, master);
        self.is_fresh(now) && self.master.is_some_and(lost)
    }

    /// Whether the one that is followed was heard just now, a lost advert aside.
    fn is_fresh(&self, now: Instant) -> bool {
        self.wait == Wait::Advert
            && now.since(self.heard) <= self.interval.duration() * LOST_AND_ONE
    }
}

impl Router {
    /// When it does something by itself.
    pub(super) fn backup_deadline(&self, backup: &Backup) -> Instant {
        let silence = self.end_of_silence(backup);
        match backup.right {
            Right::AsConfigured | Right::Used { .. } | Right::Given => silence,
            Right::From(at) => silence.min(at),
        }
    }

    fn end_of_silence(&self, backup: &Backup) -> Instant {
        let interval = backup.interval;
        backup.since.after(match backup.wait {
            Wait::Advert => self.down_time(interval),
            Wait::Better => self.skew(interval),
            Wait::Anybody { .. } => interval.duration() + self.skew(interval),
        })
    }

    pub(super) fn hear_as_backup(
        &mut self,
        now: Instant,
        backup: Backup,
        advert: &Advert<'_>,
        out: &mut Actions,
    ) {
        if advert.priority == Priority::LEAVING {
            self.hear_leaving(now, backup, advert, out);
            return;
        }
        let worse = advert.priority < self.priority();
        if backup.has_lost(now, advert) {
            if !(worse && self.preempts_by_silence(backup.right)) {
                self.state = State::Backup(backup.besides(now, advert));
            }
            return;
        }
        let right = match (backup.right, self.options.preempt) {
            (Right::Given, _) => Right::Given,
            // A worse one for so long without a break: the first better one is the break.
            (Right::From(at), _) if worse => Right::From(at),
            (_, Preempt::After(delay)) if worse => Right::From(now.after(delay)),
            (Right::AsConfigured | Right::Used { .. } | Right::From(_), _) => Right::AsConfigured,
        };
        // RFC 9568, 6.4.2: what may be preempted is discarded, so that the wait goes on.
        if worse && self.preempts_by_silence(right) {
            let every = advert.interval;
            let right = Right::Used { heard: now, every };
            self.state = State::Backup(Backup { right, ..backup });
            return;
        }
        let mut following = Backup::following(now, advert);
        if self.planted.has(Bug::OwnInterval) {
            following.interval = self.options.interval;
        }
        self.state = State::Backup(Backup { right, ..following });
    }

    /// Whether a worse master is simply not heard.
    fn preempts_by_silence(&self, right: Right) -> bool {
        match (right, self.options.preempt) {
            _ if self.planted.has(Bug::AlwaysPreempts) => true,
            (Right::Given, _) => false,
            _ if self.is_owner() => true,
            (Right::AsConfigured | Right::Used { .. }, Preempt::Always) => true,
            (Right::AsConfigured | Right::Used { .. }, Preempt::Never | Preempt::After(_))
            | (Right::From(_), _) => false,
        }
    }

    /// RFC 9568, 6.4.2: a master leaves. The skew time is there for better peers; where none is known, nothing is
    /// waited for.
    fn hear_leaving(
        &mut self,
        now: Instant,
        backup: Backup,
        advert: &Advert<'_>,
        out: &mut Actions,
    ) {
        if self.planted.has(Bug::DeafToLeaving) {
            return;
        }
        let another = backup.master.is_some_and(|master| master != advert.from);
        let other_holds = if another {
            backup.is_fresh(now)
        } else {
            now < backup.another_until
        };
        let mut backup = backup;
        if !another {
            // Whoever speaks next is followed.
            backup.said = Priority::LEAVING;
        }
        if self.health == Health::Unfit && !self.planted.has(Bug::UnfitTakes) {
            // A holder that is unfit repeats this. We are no better, so it is heard like any other advert.
            let heard = if other_holds {
                backup.besides(now, advert)
            } else {
                Backup::following(now, advert)
            };
            let right = backup.right;
            self.state = State::Backup(Backup { right, ..heard });
            return;
        }
        // One of two holders leaves, and the other stays.
        if other_holds {
            self.state = State::Backup(backup);
            return;
        }
        let rank = (self.priority(), self.source);
        // A last word of somebody who was never heard before says nothing of who holds the address.
        let held = self.peers.has_claimed(advert.from);
        let alone = self.peers.none_better(now, advert.from, rank);
        let best = held && alone || self.planted.has(Bug::Greedy);
        match self.options.handover {
            Handover::AtOnce if best => self.become_master(now, Why::MasterLeft, out),
            Handover::AtOnce | Handover::AfterSkew => {
                let waiting = Backup {
                    master: Some(advert.from),
                    since: now,
                    wait: Wait::Better,
                    ..backup
                };
                // Repeated, or just before the silence ends, it does not make the wait longer.
                if self.end_of_silence(&waiting) < self.end_of_silence(&backup) {
                    self.state = State::Backup(waiting);
                }
            }
        }
    }

    /// Does what is due.
    pub(super) fn watch(&mut self, now: Instant, backup: Backup, out: &mut Actions) {
        if let Right::From(at) = backup.right
            && at <= now
        {
            self.become_master(now, Why::Preempts, out);
            return;
        }
        let end = self.end_of_silence(&backup);
        if now < end {
            return;
        }
        let late = now.since(end);
        let slept = late >= backup.interval.duration() && !self.planted.has(Bug::JumpsUp);
        if let (true, Some(wait)) = (slept, backup.wait.anew()) {
            self.counts.stalls += 1;
            let since = now;
            self.state = State::Backup(Backup {
                since,
                wait,
                ..backup
            });
            out.push(Action::Tell(Note::Stalled(late)));
            return;
        }
        let why = match (backup.right, backup.wait) {
            (Right::Used { .. }, _) => Why::Preempts,
            (_, Wait::Advert | Wait::Anybody { .. }) => Why::MasterSilent,
            (_, Wait::Better) => Why::MasterLeft,
        };
        self.become_master(now, why, out);
    }

    /// Our priority changed. What was given away on purpose may be taken back; but who is worse than before may have no
    /// right any more, so that the one that was not followed counts as heard.
    pub(super) fn reconsider(&mut self, before: Priority) {
        let fell = self.priority() < before;
        let State::Backup(backup) = &mut self.state else {
            return;
        };
        match backup.right {
            Right::Used { heard, every } if fell => {
                (backup.since, backup.interval) = (heard, every);
                (backup.wait, backup.right) = (Wait::Advert, Right::AsConfigured);
            }
            Right::From(_) if fell => backup.right = Right::AsConfigured,
            Right::Given => backup.right = Right::AsConfigured,
            Right::AsConfigured | Right::Used { .. } | Right::From(_) => {}
        }
    }
}
