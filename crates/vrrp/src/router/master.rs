//! A master: holds the address, says so, and gives it away without a gap.

use core::time::Duration;

use mainstay_ids::Instant;

use super::backup::Backup;
use super::{LISTENS_AGAIN, Router, State};
use crate::announcements::Announcements;
use crate::contract::{Action, Actions, Health, Note, Role, Why};
use crate::options::Preempt;
use crate::packet::Advert;
use crate::planted::Bug;
use crate::words::{ADVERTS_MISSED, Priority};

/// How often a rival is answered at most. Each of its packets would else be worth two of ours, to everybody.
const ANSWER_EVERY: Duration = Duration::from_millis(10);
/// How long a program that ends keeps the address for a successor that does not come. What stops programs loses
/// patience after some ten seconds, and then nobody removes the address.
const STOP_PATIENCE_MAX: Duration = Duration::from_secs(8);

#[derive(Debug, Clone, Copy)]
pub(super) struct Master {
    pub(super) tenure: Tenure,
    announcements: Announcements,
    /// Until then no rival is answered.
    answered_until: Instant,
}

/// How the address is held.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tenure {
    /// It is ours, and we say so.
    Speaking {
        /// When an advert was sent last.
        spoke: Instant,
        /// When the next is due.
        next: Instant,
    },
    /// Another one may hold it, because we slept for long or offered it: it is left as it is, and nothing is said until
    /// then.
    Listening {
        /// Then it is ours.
        until: Instant,
        /// How often we may still oversleep that and listen anew.
        again: u8,
    },
    /// Kept until another one has it: adverts say that we leave (make before break).
    Offering {
        offer: Offer,
        /// When an advert was sent last.
        spoke: Instant,
        /// When the next is due.
        next: Instant,
    },
}

/// Why the address is offered, and what happens if nobody takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    /// It was to go elsewhere. From then on it is ours again.
    Moving { until: Instant },
    /// The program ends. Then it is removed.
    Stopping { until: Instant },
    /// What stands behind it does not work. It is kept: a bad holder is as good as none, and one may come.
    Unfit,
}

impl Master {
    pub(super) fn deadline(&self) -> Instant {
        let own = match self.tenure {
            Tenure::Speaking { next, .. } => next,
            Tenure::Listening { until, .. } => until,
            Tenure::Offering { offer, next, .. } => match offer {
                Offer::Moving { until } | Offer::Stopping { until } => next.min(until),
                Offer::Unfit => next,
            },
        };
        // Who listens announces nothing.
        match self.tenure {
            Tenure::Listening { .. } => own,
            Tenure::Speaking { .. } | Tenure::Offering { .. } => own.min(self.announcements.next()),
        }
    }
}

impl Router {
    fn every(&self) -> Duration {
        let interval = self.options.interval.duration();
        if self.planted.has(Bug::SlowSpeaker) {
            return interval * 4;
        }
        interval
    }

    /// RFC 9568, 6.4.1 and 6.4.2. An advert first where somebody may contend; where the old holder waits for our advert
    /// to remove the address, everybody is told before.
    pub(super) fn become_master(&mut self, now: Instant, why: Why, out: &mut Actions) {
        self.counts.took_over += 1;
        let unfit = self.health == Health::Unfit && !self.planted.has(Bug::UnfitKeeps);
        let next = now.after(self.every());
        let (tenure, said) = if unfit {
            let offer = Offer::Unfit;
            (
                Tenure::Offering {
                    offer,
                    spoke: now,
                    next,
                },
                Priority::LEAVING,
            )
        } else {
            (Tenure::Speaking { spoke: now, next }, self.priority())
        };
        self.state = State::Master(Master {
            tenure,
            announcements: Announcements::begun(now),
            answered_until: now,
        });
        out.push(Action::AddAddresses);
        if why == Why::MasterLeft {
            out.push(Action::Announce);
            self.send(said, out);
        } else {
            self.send(said, out);
            out.push(Action::Announce);
        }
        out.push(Action::Tell(Note::Became(Role::Master, why)));
    }

    /// Who spoke so long ago that others may have taken it for dead listens before it speaks again. To say that we leave
    /// needs no such care.
    pub(super) fn notice_own_stall(&mut self, now: Instant, out: &mut Actions) {
        let State::Master(master) = self.state else {
            return;
        };
        match master.tenure {
            Tenure::Speaking { spoke, .. }
            | Tenure::Offering {
                offer: Offer::Moving { .. },
                spoke,
                ..
            } if self.is_taken_for_dead(now, spoke) => self.listen(now, master, spoke, out),
            Tenure::Speaking { .. } | Tenure::Listening { .. } | Tenure::Offering { .. } => {}
        }
    }

    /// Whether the fastest backup may have taken over from one that spoke then.
    fn is_taken_for_dead(&self, now: Instant, spoke: Instant) -> bool {
        let allowed = self.options.interval.duration() * ADVERTS_MISSED;
        now.since(spoke) >= allowed && !self.planted.has(Bug::SpeaksFirst)
    }

    /// Listens after a sleep that began then.
    fn listen(&mut self, now: Instant, master: Master, spoke: Instant, out: &mut Actions) {
        self.counts.stalls += 1;
        let again = match master.tenure {
            Tenure::Listening { again, .. } => again.saturating_sub(1),
            Tenure::Speaking { .. } | Tenure::Offering { .. } => LISTENS_AGAIN,
        };
        self.listen_for_others(now, master, again);
        out.push(Action::Tell(Note::Stalled(now.since(spoke))));
    }

    fn listen_for_others(&mut self, now: Instant, master: Master, again: u8) {
        let interval = self.options.interval;
        let until = now.after(interval.duration() + self.skew(interval));
        let tenure = Tenure::Listening { until, again };
        self.state = State::Master(Master { tenure, ..master });
    }

    pub(super) fn hear_as_master(
        &mut self,
        now: Instant,
        master: Master,
        advert: &Advert<'_>,
        out: &mut Actions,
    ) {
        let leaving = advert.priority == Priority::LEAVING;
        match master.tenure {
            Tenure::Speaking { .. } if leaving || !self.is_outranked_by(advert) => {
                self.answer_rival(now, master, out);
            }
            Tenure::Speaking { .. } => self.give_way(now, advert, Why::Outranked(advert.from), out),
            // Whoever replaced us leaves, or must give way to us anyway.
            Tenure::Listening { .. } if leaving || self.reclaims_from(advert) => {
                self.speak(now, master, out);
            }
            Tenure::Listening { .. } => self.give_way(now, advert, Why::Replaced(advert.from), out),
            // Two that are unfit: one of them keeps it.
            Tenure::Offering {
                offer: Offer::Unfit,
                ..
            } if leaving && self.yields_to_unfit(advert) => {
                self.give_way(now, advert, Why::Outranked(advert.from), out);
            }
            Tenure::Offering { .. } if leaving => {
                let mut master = master;
                master.announcements.again(now);
                self.state = State::Master(master);
            }
            Tenure::Offering { .. } => {
                self.give_way(now, advert, Why::HandedOver(advert.from), out);
            }
        }
    }

    /// Nobody's priority counts then, so the greater address keeps it.
    fn yields_to_unfit(&self, advert: &Advert<'_>) -> bool {
        advert.from > self.source && !self.planted.has(Bug::KeepsTies)
    }

    /// Whether one that slept takes the address back from who replaced it.
    fn reclaims_from(&self, advert: &Advert<'_>) -> bool {
        let may = match self.options.preempt {
            Preempt::Always => true,
            // The wait begins anew, as a backup.
            Preempt::Never | Preempt::After(_) => self.is_owner(),
        };
        may && !self.is_outranked_by(advert)
    }

    /// RFC 9568, 6.4.3: a worse holder, or one that leaves, is answered at once. It held the address, so everybody is
    /// told again whose it is, now and when it has given way.
    fn answer_rival(&mut self, now: Instant, master: Master, out: &mut Actions) {
        let mut master = master;
        if !self.planted.has(Bug::NoAnnouncement) {
            master.announcements.again(now);
        }
        if now >= master.answered_until {
            master.answered_until = now.after(ANSWER_EVERY);
            self.send(self.priority(), out);
            if !self.planted.has(Bug::NoAnnouncement) {
                out.push(Action::Announce);
            }
            let next = now.after(self.every());
            master.tenure = Tenure::Speaking { spoke: now, next };
        }
        self.state = State::Master(master);
    }

    /// Another one holds the address: it is not ours any more.
    fn give_way(&mut self, now: Instant, advert: &Advert<'_>, why: Why, out: &mut Actions) {
        if !self.planted.has(Bug::KeepsAddress) {
            out.push(Action::RemoveAddresses);
        }
        // The other one may never have heard us: a last word makes it tell everybody again whose the address is, now that
        // we are gone. Who is worse says its priority, for which keepalived announces; who is better must not, or the
        // other would give way in turn.
        let spoke = matches!(
            self.state,
            State::Master(Master {
                tenure: Tenure::Speaking { .. },
                ..
            })
        );
        let last_word = if spoke && self.is_outranked_by(advert) {
            self.priority()
        } else {
            Priority::LEAVING
        };
        if !self.planted.has(Bug::NoFarewell) {
            self.send(last_word, out);
        }
        let following = Backup::following(now, advert);
        let State::Master(Master {
            tenure: Tenure::Offering { offer, .. },
            ..
        }) = self.state
        else {
            self.become_backup(following, why, out);
            return;
        };
        match offer {
            Offer::Stopping { .. } => self.become_init(Why::Stopped, out),
            Offer::Moving { .. } if self.planted.has(Bug::TakesBack) => {
                self.become_backup(following, why, out);
            }
            Offer::Moving { .. } => self.become_backup(following.giving(), why, out),
            Offer::Unfit => self.become_backup(following, why, out),
        }
    }

    /// Does what is due.
    pub(super) fn reign(&mut self, now: Instant, master: Master, out: &mut Actions) {
        match master.tenure {
            Tenure::Speaking { next, .. } if next <= now => {
                self.send(self.priority(), out);
                let next = self.cadence(now, next);
                let tenure = Tenure::Speaking { spoke: now, next };
                self.state = State::Master(Master { tenure, ..master });
            }
            Tenure::Speaking { .. } => {}
            Tenure::Listening { until, again } if until <= now => {
                let overslept = now.since(until) >= self.options.interval.duration();
                if overslept && again > 0 {
                    self.listen(now, master, until, out);
                } else {
                    self.speak(now, master, out);
                }
                return;
            }
            Tenure::Listening { .. } => return,
            Tenure::Offering { offer, next, .. } => {
                if self.end_offer(now, master, offer, out) {
                    return;
                }
                if next <= now {
                    self.send(Priority::LEAVING, out);
                    let next = self.cadence(now, next);
                    let tenure = Tenure::Offering {
                        offer,
                        spoke: now,
                        next,
                    };
                    self.state = State::Master(Master { tenure, ..master });
                }
            }
        }
        self.announce_if_due(now, out);
    }

    /// The advert after the one that was due then: no drift, and no burst after a delay.
    fn cadence(&self, now: Instant, due: Instant) -> Instant {
        let next = due.after(self.every());
        if next <= now {
            now.after(self.every())
        } else {
            next
        }
    }

    fn announce_if_due(&mut self, now: Instant, out: &mut Actions) {
        let refresh = self.options.refresh;
        if let State::Master(master) = &mut self.state
            && master.announcements.take_due(now, refresh)
        {
            out.push(Action::Announce);
        }
    }

    /// Whether the offer's time is over, and what then.
    fn end_offer(&mut self, now: Instant, master: Master, offer: Offer, out: &mut Actions) -> bool {
        match offer {
            Offer::Moving { until } if until <= now => {
                out.push(Action::Tell(Note::NobodyTookOver));
                self.speak(now, master, out);
                true
            }
            Offer::Stopping { until } if until <= now => {
                out.push(Action::RemoveAddresses);
                self.become_init(Why::Stopped, out);
                true
            }
            Offer::Moving { .. } | Offer::Stopping { .. } | Offer::Unfit => false,
        }
    }

    /// It is ours, whatever was before.
    fn speak(&mut self, now: Instant, master: Master, out: &mut Actions) {
        if self.health == Health::Unfit {
            self.offer(now, Offer::Unfit, out);
            return;
        }
        let next = now.after(self.every());
        let tenure = Tenure::Speaking { spoke: now, next };
        let announcements = Announcements::begun(now);
        self.state = State::Master(Master {
            tenure,
            announcements,
            ..master
        });
        // The kernel may have removed them meanwhile.
        out.push(Action::AddAddresses);
        self.send(self.priority(), out);
        out.push(Action::Announce);
    }

    /// The new priority is said at once: who may preempt begins to wait now.
    pub(super) fn say_priority_now(&mut self, now: Instant, out: &mut Actions) {
        let State::Master(master) = &mut self.state else {
            return;
        };
        if let Tenure::Speaking { next, .. } = &mut master.tenure {
            *next = now;
            self.do_what_is_due(now, out);
        }
    }

    /// Everybody may have it. Nothing to do for who does not hold it, or has offered it already.
    pub(super) fn offer_to_all(&mut self, now: Instant, out: &mut Actions) {
        let State::Master(master) = self.state else {
            return;
        };
        match master.tenure {
            Tenure::Speaking { .. } | Tenure::Listening { .. } => {
                if self.planted.has(Bug::ReleasesFirst) {
                    out.push(Action::RemoveAddresses);
                }
                let until = now.after(self.patience());
                self.offer(now, Offer::Moving { until }, out);
            }
            Tenure::Offering { .. } => {}
        }
    }

    /// The same, and then it is over.
    pub(super) fn offer_and_end(&mut self, now: Instant, out: &mut Actions) {
        let until = now.after(self.patience().min(STOP_PATIENCE_MAX));
        self.offer(now, Offer::Stopping { until }, out);
    }

    /// Until somebody takes it.
    pub(super) fn offer_as_unfit(&mut self, now: Instant, out: &mut Actions) {
        if self.planted.has(Bug::UnfitKeeps) {
            return;
        }
        let stopping = matches!(
            self.state,
            State::Master(Master {
                tenure: Tenure::Offering {
                    offer: Offer::Stopping { .. },
                    ..
                },
                ..
            })
        );
        if !stopping {
            self.offer(now, Offer::Unfit, out);
        }
    }

    /// It works again. Somebody may just have taken it, or while we slept.
    pub(super) fn withdraw_offer(&mut self, now: Instant) {
        let State::Master(master) = self.state else {
            return;
        };
        match master.tenure {
            Tenure::Offering {
                offer: Offer::Unfit,
                ..
            } => self.listen_for_others(now, master, LISTENS_AGAIN),
            Tenure::Offering { .. } | Tenure::Speaking { .. } | Tenure::Listening { .. } => {}
        }
    }

    /// Long enough for a peer that keeps to the RFC, waits for the whole skew time and missed the first word.
    fn patience(&self) -> Duration {
        let interval = self.options.interval;
        let skew = interval.skew(self.options.version, Priority::LEAST);
        (interval.duration() + skew) * 2
    }

    fn offer(&mut self, now: Instant, offer: Offer, out: &mut Actions) {
        let State::Master(master) = self.state else {
            return;
        };
        self.send(Priority::LEAVING, out);
        let next = now.after(self.every());
        let tenure = Tenure::Offering {
            offer,
            spoke: now,
            next,
        };
        self.state = State::Master(Master { tenure, ..master });
    }
}
