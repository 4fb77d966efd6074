//! One virtual router on its interface: reads and writes packets and addresses as the election says.

mod bearing;
mod shown;
mod virtual_mac;

use std::net::IpAddr;
use std::time::Duration;

use mainstay_ids::{Instant, VipName};
use mainstay_kernel::netlink::address::Placed;
use mainstay_kernel::protocol::Received;
use mainstay_model::happening::cut;
use mainstay_model::vip::{Preempt, TrackSpec, VrrpVersion};
use mainstay_model::{Happening, VipSpec};
use mainstay_vrrp::{
    Action, Actions, Advert, Checksum, Envelope, HOP_LIMIT, Handover, Health, Input, Interval,
    LEN_MAX, Note, OptionsError, Outgoing, Priority, REFRESH, Reach, Refused, Role, Router,
    Version,
};

use self::bearing::{Bearing, Fault};
use crate::happenings::Rivals;
use crate::hook::Hooks;
use crate::host::{Host, RENEW_EVERY};
use crate::journal::{self, Because, Past};
use crate::refusals::{Reason, Refusals};
use crate::seams::{Seams, Tracks};
use crate::track::{Track, Works};
use crate::verdict::{Standing, Verdict};
use crate::view::State;

/// Packets that are read in one turn. Whoever floods the link must not keep us from speaking; what we cannot read then
/// is in the next turn, or lost like any other packet.
const PACKETS_MAX: usize = 256;
/// Peers that are listed may stand behind so many routers.
const ROUTERS_MAX: u8 = 16;
/// Of what comes again and again, one line in so long.
const TOLD_EVERY: Duration = Duration::from_mins(1);
/// How often an interface that does not serve is looked at, beside what the kernel tells.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// An IP header with all options, and one byte more than the longest advert: what is longer is cut, and refused.
const ROOM_LEN: usize = 60 + LEN_MAX + 1;

/// One virtual router.
#[derive(Debug)]
pub(crate) struct Seat {
    spec: VipSpec,
    router: Router,
    /// Where its packets go; `None` while it takes no part.
    bearing: Option<Bearing>,
    fault: Option<Fault>,
    look_at: Instant,
    changed: Changed,
    tracks: Vec<Track>,
    verdict: Verdict,
    /// For tests.
    seen_tracks: Tracks,
    /// Whether the node's agent is heard; `None`: it has none.
    agent: Option<Works>,
    hooks: Hooks,
    past: Past,
    renew_at: Instant,
    room: Box<[u8]>,
    refused: Complaints,
    refusals: Refusals,
    /// When an advert was believed last.
    heard_at: Option<Instant>,
    /// Who was followed as master last.
    followed: Option<IpAddr>,
    rivals: Rivals,
    failed: Complaints,
    stopping: bool,
    leaves: Leaves,
}

/// Whether the gateway is letting clients of these addresses go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaves {
    No,
    Now,
}

/// Whether the kernel said something that may matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Changed {
    Nothing,
    Something,
}

/// Things of one kind that go wrong: some are told.
#[derive(Debug, Default)]
struct Complaints {
    quiet_until: Instant,
}

impl Complaints {
    /// Takes note of one; whether it is to be told.
    fn note(&mut self, now: Instant) -> bool {
        let told = now >= self.quiet_until;
        if told {
            self.quiet_until = now.after(TOLD_EVERY);
        }
        told
    }
}

impl Seat {
    pub(crate) fn new(spec: VipSpec, seams: Seams) -> Result<Self, OptionsError> {
        Ok(Self {
            router: Router::new(options(&spec))?,
            bearing: None,
            fault: None,
            look_at: Instant::START,
            changed: Changed::Nothing,
            tracks: tracks(&spec, seams),
            seen_tracks: seams.tracks,
            verdict: Verdict::new(spec.on_dead),
            agent: None,
            hooks: Hooks::new(spec.notify.clone()),
            past: Past::default(),
            renew_at: Instant::NEVER,
            room: vec![0; ROOM_LEN].into_boxed_slice(),
            refused: Complaints::default(),
            refusals: Refusals::default(),
            heard_at: None,
            followed: None,
            rivals: Rivals::default(),
            failed: Complaints::default(),
            stopping: false,
            leaves: Leaves::No,
            spec,
        })
    }

    pub(crate) fn name(&self) -> &str {
        self.spec.name.as_str()
    }

    /// Does what is to be done now: first listens to everything, then judges, then speaks.
    pub(crate) fn turn(&mut self, host: &Host) {
        self.judge(host);
        if self.bearing.is_none() && !self.stopping && host.now() >= self.look_at {
            self.look(host);
        }
        self.hear(host);
        self.handle(host, Input::Tick);
        self.rivals.turn(&self.spec.name, host);
        self.renew(host);
        self.hooks.turn(self.spec.name.as_str(), host);
    }

    /// When it has something to do by itself.
    pub(crate) fn next_deadline(&self) -> Instant {
        let tracks = self.tracks.iter().map(Track::next_deadline);
        let look_at = match self.bearing {
            Some(_) => Instant::NEVER,
            None => self.look_at,
        };
        let renew_at = if self.router.renews_addresses() {
            self.renew_at
        } else {
            Instant::NEVER
        };
        tracks
            .chain([
                self.router.next_deadline(),
                self.verdict.next_deadline(),
                self.hooks.next_deadline(),
                self.rivals.next_deadline(),
                look_at,
                renew_at,
            ])
            .min()
            .unwrap_or(Instant::NEVER)
    }

    /// The program ends: the address goes to another one, if there is one.
    pub(crate) fn stop(&mut self, host: &Host) {
        self.stopping = true;
        self.handle(host, Input::Stop);
    }

    /// Whether it is over, with the last command.
    pub(crate) fn has_stopped(&self) -> bool {
        self.router.role() == Role::Init && self.hooks.rest()
    }

    /// Whether the address can be moved elsewhere; else why not.
    pub(crate) fn may_move(&self) -> Result<(), String> {
        let name = self.name();
        if self.router.role() != Role::Master {
            let holder = match self.router.master() {
                Some(master) => format!("{master} is its master"),
                None => "nobody was heard to".to_owned(),
            };
            return Err(format!("`{name}` is not held here; {holder}"));
        }
        Ok(())
    }

    /// Offers the address, which stays until another machine has taken it.
    pub(crate) fn give_away(&mut self, host: &Host) {
        if self.holds() {
            let name = self.name();
            tracing::info!("({name}) offers the address: somebody asked for a move");
            self.handle(host, Input::Move);
        }
    }

    pub(crate) fn vip(&self) -> &VipName {
        &self.spec.name
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.spec.addresses.iter().map(|floating| floating.address)
    }

    /// Whether it holds the address.
    pub(crate) fn holds(&self) -> bool {
        self.router.role() == Role::Master
    }

    /// Whether it holds the address, and what stands behind that works.
    pub(crate) fn holds_well(&self) -> bool {
        self.holds() && self.router.health() == Health::Fit
    }

    /// Whether it holds the address and offers it.
    pub(crate) fn offers(&self) -> bool {
        self.holds() && self.router.offers_addresses()
    }

    pub(crate) fn set_leave(&mut self, leaves: Leaves) {
        self.leaves = leaves;
    }

    /// A machine whose agent is silent is the last choice: nobody looks after its instances. What the gateway serves it
    /// goes on to serve, so that this moves an address only where priorities do.
    pub(crate) fn heed_agent(&mut self, host: &Host, agent: Option<Works>) {
        if self.agent == agent {
            return;
        }
        self.agent = agent;
        let priority = match agent {
            Some(Works::No) => Priority::LEAST,
            Some(Works::Yes) | None => Priority(self.spec.priority.get()),
        };
        self.handle(host, Input::Priority(priority));
    }

    fn judge(&mut self, host: &Host) {
        for track in &mut self.tracks {
            track.turn(self.spec.name.as_str(), host);
        }
        let mut tracks = self.tracks.iter();
        let dead = match self.seen_tracks {
            Tracks::Heeded => tracks.any(|track| track.works() == Works::No),
            Tracks::Blind => false,
        };
        let standing = if dead {
            Standing::OneIsDead
        } else {
            Standing::AllWork
        };
        let health = self.verdict.handle(host.now(), standing);
        if health != self.router.health() {
            if self.router.role() == Role::Master && health == Health::Unfit {
                tracing::warn!(
                    "({}) offers the address: what it depends on is dead",
                    self.name()
                );
            }
            self.handle(host, Input::Health(health));
        }
    }

    /// Reads what waits.
    fn hear(&mut self, host: &Host) {
        if let Some(bearing) = &self.bearing {
            bearing.ignore_below(&mut self.room);
        }
        for _ in 0..PACKETS_MAX {
            let Some(bearing) = &self.bearing else {
                return;
            };
            let packet = match bearing.hears().receive(&mut self.room) {
                Ok(Received::Packet(packet)) => packet,
                Ok(Received::Broken) => {
                    self.refusals.note(Reason::Length);
                    continue;
                }
                Ok(Received::Nothing) => return,
                Err(error) => {
                    tracing::debug!("({}) cannot receive: {error}", self.spec.name);
                    self.look(host);
                    return;
                }
            };
            let envelope = Envelope {
                from: packet.from,
                to: packet.to,
                hop_limit: packet.hop_limit,
            };
            let (reach, from) = (reach(&self.spec), packet.from);
            match Advert::read(&envelope, reach, packet.payload) {
                Ok(advert) => {
                    let (now, heard) = (host.now(), self.router.counts().heard);
                    let holds = advert.priority != Priority::LEAVING;
                    let actions = self.router.handle(now, Input::Advert(&advert));
                    if self.router.counts().heard != heard {
                        self.heard_at = Some(now);
                        if holds && self.holds() {
                            self.rivals.hear(now, from, &self.spec.name, host);
                        }
                    }
                    self.carry_out(host, actions);
                    self.followed = self.router.master().or(self.followed);
                }
                // What speaks of other routers of the link is theirs.
                Err(_) if packet.payload.get(1) != Some(&self.spec.vrid.get()) => {}
                Err(refused) => self.complain(host, from, refused),
            }
        }
    }

    fn complain(&mut self, host: &Host, from: IpAddr, refused: Refused) {
        self.refusals.note(refused.into());
        if self.refused.note(host.now()) {
            let name = &self.spec.name;
            tracing::warn!("({name}) the VRRP packet from {from} is refused: {refused}");
        }
    }

    fn handle(&mut self, host: &Host, input: Input<'_>) {
        let actions = self.router.handle(host.now(), input);
        self.carry_out(host, actions);
    }

    fn carry_out(&mut self, host: &Host, actions: Actions) {
        for action in actions {
            match action {
                Action::AddAddresses => self.put_addresses(host),
                Action::RemoveAddresses => self.remove_addresses(host),
                Action::Send { priority, checksum } => self.send(host, priority, checksum),
                Action::Announce => self.announce(host),
                Action::Tell(note) => self.tell(host, note),
            }
        }
    }

    fn renew(&mut self, host: &Host) {
        if self.router.renews_addresses() && host.now() >= self.renew_at {
            self.put_addresses(host);
        }
    }

    fn put_addresses(&mut self, host: &Host) {
        self.renew_at = host.now().after(RENEW_EVERY);
        let Some(bearing) = &mut self.bearing else {
            return;
        };
        let group = self.router.options().group();
        if let Some(virtual_mac) = &mut bearing.virtual_mac
            && let Err(error) = virtual_mac.rise(host, group)
            && self.failed.note(host.now())
        {
            let (name, interface) = (&self.spec.name, &self.spec.interface);
            tracing::error!("({name}) cannot switch on the virtual MAC of `{interface}`: {error}");
        }
        for placed in bearing.placed(&self.spec) {
            if let Err(error) = host.put(&placed)
                && self.failed.note(host.now())
            {
                let (name, interface) = (&self.spec.name, &self.spec.interface);
                let address = placed.address;
                tracing::error!("({name}) cannot put {address} on `{interface}`: {error}");
            }
        }
    }

    fn remove_addresses(&mut self, host: &Host) {
        self.renew_at = Instant::NEVER;
        let Some(bearing) = &mut self.bearing else {
            return;
        };
        remove_all(&self.spec, bearing.placed(&self.spec), host);
        // From here on what is sent comes from the interface's own hardware address: the last word must not tell switches
        // that the virtual one is here.
        if let Some(virtual_mac) = &mut bearing.virtual_mac
            && let Err(error) = virtual_mac.sink(host)
        {
            let (name, interface) = (&self.spec.name, &self.spec.interface);
            tracing::warn!("({name}) cannot switch off the virtual MAC of `{interface}`: {error}");
        }
    }

    fn send(&mut self, host: &Host, priority: Priority, checksum: Checksum) {
        let Some(bearing) = &self.bearing else {
            return;
        };
        let options = self.router.options();
        let outgoing = Outgoing {
            version: options.version,
            vrid: options.vrid,
            priority,
            interval: options.interval,
            addresses: &options.addresses,
            checksum,
        };
        let group = [options.group()];
        let receivers: &[IpAddr] = match options.peers.as_slice() {
            [] => &group,
            peers => peers,
        };
        for to in receivers {
            let len = match outgoing.write(bearing.source, *to, &mut self.room) {
                Ok(len) => len,
                Err(error) => {
                    tracing::error!("({}) cannot write an advert: {error}", self.spec.name);
                    return;
                }
            };
            let sent = bearing.send(host, *to, &self.room[..len]);
            if let Err(error) = sent
                && self.failed.note(host.now())
            {
                tracing::warn!(
                    "({}) cannot send an advert to {to}: {error}",
                    self.spec.name
                );
            }
        }
    }

    fn announce(&mut self, host: &Host) {
        let Some(bearing) = &self.bearing else {
            return;
        };
        // An interface without Ethernet has nobody to tell.
        let Some(mac) = bearing.mac() else { return };
        let link = &bearing.link;
        for floating in &self.spec.addresses {
            let announced = host.announcer.announce(link.index, mac, floating.address);
            if let Err(error) = announced
                && self.failed.note(host.now())
            {
                let (name, address) = (&self.spec.name, floating.address);
                tracing::warn!("({name}) cannot announce {address}: {error}");
            }
        }
    }

    fn tell(&mut self, host: &Host, note: Note) {
        journal::tell(self.spec.name.as_str(), note);
        if let Note::Became(role, why) = note {
            let state = journal::became(role, why);
            let because = Because(why).to_string();
            self.record(host, state, &because, journal::other(why));
            self.past.note(state, because);
            self.call_hook(state);
        }
    }

    /// Writes down what became of the address, for others than people who ask.
    fn record(&self, host: &Host, state: State, why: &str, other: Option<IpAddr>) {
        let held = self.past.last() == Some(State::Master);
        let (vip, why) = (self.spec.name.clone(), cut(why));
        let what = match (held, state) {
            (_, State::Master) => Happening::AddressTaken {
                vip,
                why,
                from: other.or(self.followed),
            },
            (true, State::Backup | State::Fault | State::Stop) => Happening::AddressGivenUp {
                vip,
                why,
                to: other,
            },
            (false, State::Backup) => Happening::AddressWatched { vip, why },
            (false, State::Fault | State::Stop) => Happening::AddressIdle { vip, why },
        };
        host.record.borrow_mut().note(what);
    }

    fn call_hook(&mut self, state: State) {
        let priority = self.router.priority().0;
        self.hooks.call(self.spec.name.as_str(), state, priority);
    }
}

fn tracks(spec: &VipSpec, seams: Seams) -> Vec<Track> {
    let track = |one: &TrackSpec| Track::new(one.clone(), seams.successor);
    spec.track.iter().map(track).collect()
}

/// How a checked specification is said to the election.
fn options(spec: &VipSpec) -> mainstay_vrrp::Options {
    let centiseconds = spec.advert.as_millis() / 10;
    let interval = u16::try_from(centiseconds).ok();
    mainstay_vrrp::Options {
        version: match spec.version {
            VrrpVersion::V2 => Version::V2,
            VrrpVersion::V3 => Version::V3,
        },
        vrid: spec.vrid,
        priority: Priority(spec.priority.get()),
        interval: interval
            .and_then(Interval::from_centiseconds)
            .unwrap_or(DEFAULT_INTERVAL),
        addresses: spec.addresses.iter().map(|one| one.address).collect(),
        preempt: match spec.preempt {
            Preempt::Never => mainstay_vrrp::Preempt::Never,
            Preempt::Always => mainstay_vrrp::Preempt::Always,
            Preempt::After(delay) => mainstay_vrrp::Preempt::After(delay),
        },
        handover: Handover::AtOnce,
        checksum: Checksum::WithPseudoHeader,
        peers: spec.peers.clone(),
        refresh: Some(REFRESH),
    }
}

/// Of a specification that was not checked.
const DEFAULT_INTERVAL: Interval = Interval::from_centiseconds(10).expect("it is not zero");

fn reach(spec: &VipSpec) -> Reach {
    if spec.peers.is_empty() {
        return Reach::Link;
    }
    Reach::Routed {
        hop_limit_min: HOP_LIMIT - ROUTERS_MAX,
    }
}

/// Takes all of them away, whoever put them there.
fn remove_all(spec: &VipSpec, all: impl Iterator<Item = Placed>, host: &Host) {
    for placed in all {
        if let Err(error) = host.remove(&placed) {
            let (name, address) = (&spec.name, placed.address);
            tracing::error!("({name}) cannot remove {address}: {error}");
        }
    }
}
