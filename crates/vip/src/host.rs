//! What all seats share of the machine.

use std::cell::RefCell;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay_ids::Instant;
use mainstay_kernel::neighbour::Announcer;
use mainstay_kernel::netlink::Socket;
use mainstay_kernel::netlink::address::{self, AsSender, Lifetime, Placed, Removed};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::altered::Altered;
use crate::clock::Clock;
use crate::happenings::Record;
use crate::seams::AddressLife;

/// How long an address lives whose holder is gone; it may miss five renewals. Ten times the longest pause that a busy
/// machine was seen to make, and half of what the interop list allows a second holder.
const LIFETIME: Lifetime = Lifetime::Seconds(NonZeroU32::new(3).expect("not zero"));
/// How often it is renewed.
pub(crate) const RENEW_EVERY: Duration = Duration::from_millis(500);
/// Without anything to do, so long at most: a deadline that was computed wrong must not be for ever.
const SLEEP_MAX: Duration = Duration::from_mins(1);

/// Sockets, clock and sleep.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) route: Socket,
    pub(crate) announcer: Announcer,
    pub(crate) state: PathBuf,
    /// All seats change it, one after the other.
    pub(crate) altered: RefCell<Altered>,
    /// What happens to the addresses, for whoever reads it. All seats write it.
    pub(crate) record: RefCell<Record>,
    lifetime: Lifetime,
    clock: Clock,
    epoll: OwnedFd,
}

impl Host {
    pub(crate) fn new(state: &Path, life: AddressLife) -> io::Result<Self> {
        let route = Socket::open_route()?;
        Ok(Self {
            altered: RefCell::new(Altered::begin(state, &route)?),
            route,
            announcer: Announcer::open()?,
            record: RefCell::new(Record::begin(state)),
            lifetime: match life {
                AddressLife::Short => LIFETIME,
                AddressLife::Endless => Lifetime::Unbounded,
            },
            state: state.to_owned(),
            clock: Clock::start(),
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
        })
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Wakes when this can be read, until it is closed. Whoever watches something empties it, or drops it.
    pub(crate) fn watch(&self, what: impl AsFd) -> io::Result<()> {
        self.watch_for(what, EventFlags::IN)
    }

    /// Wakes when this can be written.
    pub(crate) fn watch_writable(&self, what: impl AsFd) -> io::Result<()> {
        self.watch_for(what, EventFlags::OUT)
    }

    fn watch_for(&self, what: impl AsFd, flags: EventFlags) -> io::Result<()> {
        // Nobody asks which it was: everything is looked at in each turn.
        Ok(epoll::add(&self.epoll, what, EventData::new_u64(0), flags)?)
    }

    /// Sleeps until something can be read or written, or it is time.
    pub(crate) fn sleep_until(&self, deadline: Instant) -> io::Result<()> {
        let left = deadline.since(self.now()).min(SLEEP_MAX);
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut ready = [PollFd::new(&self.epoll, PollFlags::IN)];
        match poll(&mut ready, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts an address on an interface, or renews it.
    pub(crate) fn put(&self, placed: &Placed) -> io::Result<()> {
        let as_sender = match placed.address {
            IpAddr::V4(_) => AsSender::Usual,
            // Else connections of this host would begin at an address that goes away.
            IpAddr::V6(_) => AsSender::Avoided,
        };
        address::put(&self.route, placed, self.lifetime, as_sender)
    }

    /// Makes the machine as it was, but for addresses.
    pub(crate) fn undo(&self) {
        self.altered.borrow_mut().undo(&self.route);
    }

    /// Takes one away.
    pub(crate) fn remove(&self, placed: &Placed) -> io::Result<Removed> {
        address::remove(&self.route, placed)
    }
}
