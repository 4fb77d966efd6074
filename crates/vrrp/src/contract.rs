//! What goes into a router and what comes out.

use core::net::IpAddr;
use core::time::Duration;

use crate::packet::Advert;
use crate::words::{Checksum, Priority};

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input<'a> {
    /// The interface works and has this primary address; also when that changes.
    Up {
        /// The sender of our adverts; decides between equal priorities.
        source: IpAddr,
    },
    /// A well-formed advert. Whoever reads a socket hands over what waits there, and then a [`Input::Tick`]: silence
    /// is judged only by those that have listened to everything.
    Advert(&'a Advert<'a>),
    /// The deadline has come, or anything else that is no advert.
    Tick,
    /// Our priority is now this one.
    Priority(Priority),
    /// What stands behind the address works, or does not.
    Health(Health),
    /// Somebody wants the address elsewhere. It is kept until another one holds it.
    Move,
    /// The program ends. If we hold the address, it is kept until another one holds it, but not for long:
    /// [`crate::Router::role`] is [`Role::Init`] when it is over.
    Stop,
    /// The interface is gone or does not work: nothing can be sent.
    Down,
}

/// Whether what stands behind the address works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// It works.
    #[default]
    Fit,
    /// It does not. A holder offers the address to everybody (by priority 0) and keeps it until one takes it; a
    /// backup takes it only when everybody else is silent. Whether a restart is tried before this is said is the
    /// driver's (`on_dead`).
    Unfit,
}

/// The state, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes no part.
    Init,
    /// Watches the master.
    Backup,
    /// Holds the address.
    Master,
}

/// Something to be done, in the order in which it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The addresses are ours. To add them again does no harm.
    AddAddresses,
    /// They are not. To remove what is not there does no harm.
    RemoveAddresses,
    /// Sends an advert.
    Send {
        /// With this priority.
        priority: Priority,
        /// Counted like this, where there is a choice.
        checksum: Checksum,
    },
    /// Tells everybody on the link, for each address: gratuitous ARP, request and reply, or unsolicited
    /// neighbour advertisement with the override flag.
    Announce,
    /// Tells people.
    Tell(Note),
}

/// What people want to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// The state is another one.
    Became(Role, Why),
    /// We slept when we should have spoken or listened, and did neither for so long; now we listen first.
    Stalled(Duration),
    /// The address was to go elsewhere, and nobody took it: it stays here.
    NobodyTookOver,
    /// A packet is strange. Told once a minute for each kind; all are counted.
    Odd(Oddity, IpAddr),
}

/// Why the state is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// We take part from now on.
    Started,
    /// The address is our own.
    Owner,
    /// The master was not heard any more.
    MasterSilent,
    /// The master said that it leaves.
    MasterLeft,
    /// We are better than the master, and may take it over.
    Preempts,
    /// Another holder is better.
    Outranked(IpAddr),
    /// It was to go elsewhere, and this one has it.
    HandedOver(IpAddr),
    /// While we slept, this one took it.
    Replaced(IpAddr),
    /// The program ends.
    Stopped,
    /// The interface does not work.
    LinkLost,
}

/// What is strange about a well-formed packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oddity {
    /// Not believed: it is of the other version. Two versions never agree on one holder.
    Version,
    /// Not believed: it has our own address. Another one has it too, or a switch sends our packets back.
    OwnAddress,
    /// Not believed: it is of none of the peers that are listed, or of the other family.
    Stranger,
    /// Believed: version 2 wants equal intervals (RFC 3768, 7.1), and a peer that keeps to that does not believe us.
    Interval,
    /// Believed: it lists other addresses than ours. To ignore it would make two holders.
    Addresses,
}

impl Oddity {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 5] = [
        Self::Version,
        Self::OwnAddress,
        Self::Stranger,
        Self::Interval,
        Self::Addresses,
    ];

    pub(crate) fn index(self) -> usize {
        match self {
            Self::Version => 0,
            Self::OwnAddress => 1,
            Self::Stranger => 2,
            Self::Interval => 3,
            Self::Addresses => 4,
        }
    }
}

/// The longest answer to one input has six; see [`Actions::push`].
const ACTIONS_MAX: usize = 8;

/// What is to be done after one input; never allocates.
#[derive(Debug, Clone, Copy, Default)]
pub struct Actions {
    list: [Option<Action>; ACTIONS_MAX],
    len: usize,
}

impl Actions {
    pub(crate) fn push(&mut self, action: Action) {
        debug_assert!(
            self.len < ACTIONS_MAX,
            "one input, one change of state: {self:?}"
        );
        if let Some(place) = self.list.get_mut(self.len) {
            *place = Some(action);
            self.len += 1;
        }
    }

    /// Each of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Action> + '_ {
        self.list.iter().flatten().copied()
    }
}

impl IntoIterator for Actions {
    type Item = Action;
    type IntoIter = core::iter::Flatten<core::array::IntoIter<Option<Action>, ACTIONS_MAX>>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter().flatten()
    }
}
