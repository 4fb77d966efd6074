//! One virtual router: the machine. `LIFECYCLE.md` has its picture.

mod backup;
mod master;
mod odd;
#[cfg(test)]
mod tests;

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;

use mainstay_ids::Instant;

use self::backup::Backup;
use self::master::{Master, Tenure};
use self::odd::Oddities;
use crate::clock::Clock;
use crate::contract::{Action, Actions, Health, Input, Note, Oddity, Role, Why};
use crate::options::{Options, OptionsError};
use crate::packet::Advert;
use crate::peers::{Peer, Peers};
use crate::planted::{Bug, Planted};
use crate::words::{ADVERTS_MISSED, Checksum, Interval, Priority, Version};

/// How often in a row one that oversleeps its listening listens anew. A machine that always comes late would listen for
/// ever, and the address would be nobody's.
const LISTENS_AGAIN: u8 = 3;

#[derive(Debug, Clone, Copy)]
enum State {
    Init,
    Backup(Backup),
    Master(Master),
}

/// What has happened so far, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Adverts that were believed.
    pub heard: u64,
    /// Adverts to be sent.
    pub sent: u64,
    /// Times that we became master.
    pub took_over: u64,
    /// Times that we ceased to be master.
    pub gave_way: u64,
    /// Own stalls that were noticed.
    pub stalls: u64,
}

/// One virtual router, on one interface.
///
/// Its driver hands over what happens with the time of its clock, does what it is told, in order, and comes again at
/// [`Router::next_deadline`]. Nothing is allocated after [`Router::new`].
#[derive(Debug, Clone)]
pub struct Router {
    options: Options,
    source: IpAddr,
    priority: Priority,
    health: Health,
    state: State,
    clock: Clock,
    peers: Peers,
    checksum: Checksum,
    oddities: Oddities,
    counts: Counts,
    planted: Planted,
}

impl Router {
    /// A router that takes no part yet.
    pub fn new(options: Options) -> Result<Self, OptionsError> {
        options.check()?;
        Ok(Self {
            source: Ipv4Addr::UNSPECIFIED.into(),
            priority: options.priority,
            health: Health::Fit,
            state: State::Init,
            clock: Clock::default(),
            peers: Peers::default(),
            checksum: options.checksum,
            oddities: Oddities::default(),
            counts: Counts::default(),
            planted: Planted::default(),
            options,
        })
    }

    /// Applies one input. `now` is the driver's clock, which may do what it likes.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) -> Actions {
        let now = self.read_clock(now);
        let mut out = Actions::default();
        self.notice_own_stall(now, &mut out);
        match input {
            // Silence is judged at a tick: another advert may wait behind this one.
            Input::Advert(advert) => self.hear(now, advert, &mut out),
            Input::Tick => self.do_what_is_due(now, &mut out),
            Input::Up { source } => self.up(now, source, &mut out),
            Input::Priority(priority) => self.set_priority(now, priority, &mut out),
            Input::Health(health) => self.set_health(now, health, &mut out),
            Input::Move => self.offer_to_all(now, &mut out),
            Input::Stop => self.stop(now, &mut out),
            Input::Down => self.down(&mut out),
        }
        self.check_invariants();
        out
    }

    /// When the driver must come with [`Input::Tick`], by its clock.
    pub fn next_deadline(&self) -> Instant {
        let inside = match &self.state {
            State::Init => Instant::NEVER,
            State::Backup(backup) => self.backup_deadline(backup),
            State::Master(master) => master.deadline(),
        };
        self.clock.outside(inside)
    }

    /// The state.
    pub fn role(&self) -> Role {
        match self.state {
            State::Init => Role::Init,
            State::Backup(_) => Role::Backup,
            State::Master(_) => Role::Master,
        }
    }

    /// Whether the driver may renew the lifetime of addresses that it added. Not while a holder that slept listens
    /// whether it was replaced: what the kernel removed meanwhile stays removed.
    pub fn renews_addresses(&self) -> bool {
        match &self.state {
            State::Init | State::Backup(_) => false,
            State::Master(master) => match master.tenure {
                Tenure::Speaking { .. } | Tenure::Offering { .. } => true,
                Tenure::Listening { .. } => false,
            },
        }
    }

    /// Whether we hold the address, and want another one to take it.
    pub fn offers_addresses(&self) -> bool {
        match &self.state {
            State::Init | State::Backup(_) => false,
            State::Master(master) => match master.tenure {
                Tenure::Offering { .. } => true,
                Tenure::Speaking { .. } | Tenure::Listening { .. } => false,
            },
        }
    }

    /// Who is followed, while we are backup.
    pub fn master(&self) -> Option<IpAddr> {
        match &self.state {
            State::Init | State::Master(_) => None,
            State::Backup(backup) => backup.master,
        }
    }

    /// What it was made of.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Our priority as the election sees it.
    pub fn priority(&self) -> Priority {
        match self.health {
            Health::Fit => self.priority,
            Health::Unfit => Priority::LEAST,
        }
    }

    /// Whether what stands behind the address works.
    pub fn health(&self) -> Health {
        self.health
    }

    /// The peers that were heard, and what each said last.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter()
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many strange packets of one kind there were.
    pub fn odd(&self, oddity: Oddity) -> u64 {
        self.oddities.count(oddity)
    }

    /// Makes a mistake.
    #[cfg(test)]
    pub(crate) fn plant(&mut self, planted: Planted) {
        self.planted = planted;
    }

    fn read_clock(&mut self, now: Instant) -> Instant {
        if self.planted.has(Bug::BelievesClock) {
            self.clock = Clock::default();
        }
        self.clock.read(now)
    }

    /// Takes part from now on, or goes on with another address of its own.
    fn up(&mut self, now: Instant, source: IpAddr, out: &mut Actions) {
        self.source = source;
        match self.state {
            State::Init if self.is_owner() => self.become_master(now, Why::Owner, out),
            State::Init => {
                // Whoever ran here before may have left them.
                out.push(Action::RemoveAddresses);
                self.become_backup(
                    Backup::started(now, self.options.interval),
                    Why::Started,
                    out,
                );
            }
            State::Backup(_) | State::Master(_) => {}
        }
    }

    fn down(&mut self, out: &mut Actions) {
        match self.state {
            State::Init => {}
            State::Backup(_) => self.become_init(Why::LinkLost, out),
            State::Master(_) => {
                out.push(Action::RemoveAddresses);
                self.become_init(Why::LinkLost, out);
            }
        }
    }

    fn stop(&mut self, now: Instant, out: &mut Actions) {
        match self.state {
            State::Init => {}
            State::Backup(_) => self.become_init(Why::Stopped, out),
            State::Master(_) => self.offer_and_end(now, out),
        }
    }

    /// Zero is for who leaves: whoever still takes part has at least one.
    fn set_priority(&mut self, now: Instant, priority: Priority, out: &mut Actions) {
        let before = self.priority();
        self.priority = priority.max(Priority::LEAST);
        match self.state {
            // The waits of a backup are computed from the priority when they are asked for.
            State::Backup(_) => self.reconsider(before),
            State::Master(_) if self.priority() != before => self.say_priority_now(now, out),
            State::Init | State::Master(_) => {}
        }
    }

    fn set_health(&mut self, now: Instant, health: Health, out: &mut Actions) {
        if self.health == health {
            return;
        }
        let before = self.priority();
        self.health = health;
        match (self.state, health) {
            (State::Init, _) => {}
            (State::Backup(_), Health::Fit) if self.is_owner() => {
                self.become_master(now, Why::Owner, out);
            }
            (State::Backup(_), _) => self.reconsider(before),
            (State::Master(_), Health::Unfit) => self.offer_as_unfit(now, out),
            (State::Master(_), Health::Fit) => self.withdraw_offer(now),
        }
    }

    fn hear(&mut self, now: Instant, advert: &Advert<'_>, out: &mut Actions) {
        if !self.believes(now, advert, out) {
            return;
        }
        self.counts.heard += 1;
        // A checksum of ours that a peer counts in another way would not be believed there.
        self.checksum = advert.checksum.unwrap_or(self.checksum);
        self.peers.note(Peer {
            address: advert.from,
            priority: advert.priority,
            heard: now,
        });
        match self.state {
            State::Init => {}
            State::Backup(backup) => self.hear_as_backup(now, backup, advert, out),
            State::Master(master) => self.hear_as_master(now, master, advert, out),
        }
    }

    /// Whether an advert counts. RFC 9568, 7.1, and what operators must know of it.
    fn believes(&mut self, now: Instant, advert: &Advert<'_>, out: &mut Actions) -> bool {
        if advert.vrid != self.options.vrid || matches!(self.state, State::Init) {
            return false;
        }
        let mut odd = |oddity| self.oddities.note(now, oddity, advert.from, out);
        if advert.from == self.source {
            odd(Oddity::OwnAddress);
            return false;
        }
        let peers = &self.options.peers;
        let listed = peers.is_empty() || peers.contains(&advert.from);
        if !listed || advert.from.is_ipv4() != self.source.is_ipv4() {
            odd(Oddity::Stranger);
            return false;
        }
        if advert.version != self.options.version {
            odd(Oddity::Version);
            return false;
        }
        if self.options.version == Version::V2 && advert.interval != self.options.interval {
            odd(Oddity::Interval);
        }
        let own = &self.options.addresses;
        let same = advert.addresses.len() == own.len()
            && advert.addresses.iter().all(|one| own.contains(&one));
        if !same {
            odd(Oddity::Addresses);
        }
        true
    }

    fn do_what_is_due(&mut self, now: Instant, out: &mut Actions) {
        match self.state {
            State::Init => {}
            State::Backup(backup) => self.watch(now, backup, out),
            State::Master(master) => self.reign(now, master, out),
        }
    }

    fn become_init(&mut self, why: Why, out: &mut Actions) {
        self.count_leaving();
        self.state = State::Init;
        out.push(Action::Tell(Note::Became(Role::Init, why)));
    }

    fn become_backup(&mut self, backup: Backup, why: Why, out: &mut Actions) {
        self.count_leaving();
        self.state = State::Backup(backup);
        out.push(Action::Tell(Note::Became(Role::Backup, why)));
    }

    fn count_leaving(&mut self) {
        if matches!(self.state, State::Master(_)) {
            self.counts.gave_way += 1;
        }
    }

    fn send(&mut self, priority: Priority, out: &mut Actions) {
        self.counts.sent += 1;
        let checksum = self.checksum;
        out.push(Action::Send { priority, checksum });
    }

    /// RFC 9568, 6.1: the owner preempts whatever is configured. One that is unfit has no right to.
    fn is_owner(&self) -> bool {
        self.priority() == Priority::OWNER
    }

    /// RFC 9568, 6.4.3: between equal priorities the greater address wins.
    fn is_outranked_by(&self, advert: &Advert<'_>) -> bool {
        if self.planted.has(Bug::KeepsTies) {
            return advert.priority > self.priority();
        }
        (advert.priority, advert.from) > (self.priority(), self.source)
    }

    /// How long a master with this interval is silent until we take it for dead.
    fn down_time(&self, interval: Interval) -> Duration {
        if self.planted.has(Bug::ImpatientDown) {
            return interval.duration() + self.skew(interval);
        }
        if self.planted.has(Bug::NoSkew) {
            return interval.duration() * ADVERTS_MISSED;
        }
        interval.down(self.options.version, self.priority())
    }

    fn skew(&self, interval: Interval) -> Duration {
        if self.planted.has(Bug::NoSkew) {
            return Duration::ZERO;
        }
        interval.skew(self.options.version, self.priority())
    }

    /// What must hold after every input; a violation is a mistake of ours.
    fn check_invariants(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        match &self.state {
            State::Init => {}
            State::Backup(_) => assert!(
                self.next_deadline() != Instant::NEVER,
                "a backup always waits for something"
            ),
            State::Master(master) => {
                assert!(
                    self.next_deadline() != Instant::NEVER,
                    "a master always has a next word"
                );
                let unfit = self.health == Health::Unfit;
                let speaks = matches!(master.tenure, Tenure::Speaking { .. });
                let planted = self.planted.has(Bug::UnfitKeeps);
                assert!(planted || !(unfit && speaks), "who is unfit claims nothing");
            }
        }
    }
}
