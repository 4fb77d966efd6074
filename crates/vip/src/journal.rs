//! What is told, in the words that users of keepalived look for.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;

use mainstay_vrrp::{Note, Oddity, Role, Why};

use crate::clock::timestamp;
use crate::view::{Moment, ShownEntered, State};

/// The last changes that are kept for who asks: a day of an address that moves once an hour.
const KEPT: usize = 32;

/// The last changes of one seat.
#[derive(Debug, Default)]
pub(crate) struct Past {
    moments: VecDeque<Moment>,
    /// How often each state was entered, in the order of [`State::ALL`].
    entered: [u64; State::ALL.len()],
}

impl Past {
    /// Writes down a change.
    pub(crate) fn note(&mut self, state: State, why: String) {
        if self.moments.len() == KEPT {
            self.moments.pop_front();
        }
        self.entered[state as usize] += 1;
        let at = timestamp();
        self.moments.push_back(Moment { at, state, why });
    }

    /// What it is now.
    pub(crate) fn last(&self) -> Option<State> {
        self.moments.back().map(|moment| moment.state)
    }

    /// How often each state was entered.
    pub(crate) fn entered(&self) -> Vec<ShownEntered> {
        let counted = State::ALL.into_iter().zip(self.entered);
        counted
            .map(|(state, count)| ShownEntered { state, count })
            .collect()
    }

    pub(crate) fn moments(&self) -> Vec<Moment> {
        self.moments.iter().cloned().collect()
    }
}

/// What a seat became, by keepalived's words.
pub(crate) fn became(role: Role, why: Why) -> State {
    match why {
        Why::Stopped => State::Stop,
        Why::Started
        | Why::Owner
        | Why::MasterSilent
        | Why::MasterLeft
        | Why::Preempts
        | Why::Outranked(_)
        | Why::HandedOver(_)
        | Why::Replaced(_)
        | Why::LinkLost => state(role),
    }
}

/// The state of a seat that goes on, by keepalived's words.
pub(crate) fn state(role: Role) -> State {
    match role {
        Role::Init => State::Fault,
        Role::Backup => State::Backup,
        Role::Master => State::Master,
    }
}

/// Who has to do with it, if one is named.
pub(crate) fn other(why: Why) -> Option<IpAddr> {
    match why {
        Why::Outranked(by) | Why::HandedOver(by) | Why::Replaced(by) => Some(by),
        Why::Started
        | Why::Owner
        | Why::MasterSilent
        | Why::MasterLeft
        | Why::Preempts
        | Why::Stopped
        | Why::LinkLost => None,
    }
}

/// Why, as the end of a sentence.
pub(crate) struct Because(pub(crate) Why);

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Why::Started => f.write_str("it takes part from now on"),
            Why::Owner => f.write_str("the address is its own"),
            Why::MasterSilent => f.write_str("the master was not heard any more"),
            Why::MasterLeft => f.write_str("the master offered the address"),
            Why::Preempts => f.write_str("it is better than the master, and may preempt"),
            Why::Outranked(by) => write!(f, "{by} is better and holds it, too"),
            Why::HandedOver(to) => write!(f, "it was offered, and {to} has taken it"),
            Why::Replaced(by) => write!(f, "{by} has taken it while this machine slept"),
            Why::Stopped => f.write_str("it was told to stop"),
            Why::LinkLost => f.write_str("the interface does not work"),
        }
    }
}

/// Tells a note about the seat `name`, once, where it happens.
pub(crate) fn tell(name: &str, note: Note) {
    match note {
        Note::Became(Role::Init, Why::Stopped) => tracing::info!("({name}) Stopped"),
        Note::Became(role, why) => {
            let (state, why) = (state(role), Because(why));
            tracing::info!("({name}) Entering {state} STATE: {why}");
        }
        Note::Stalled(slept) => tracing::warn!(
            "({name}) slept for {slept:.1?} when it should have spoken or listened; it listens first"
        ),
        Note::NobodyTookOver => {
            tracing::warn!("({name}) offered the address, and nobody took it: it stays here");
        }
        Note::Odd(oddity, from) => {
            tracing::warn!("({name}) received from {from}: {}", odd(oddity));
        }
    }
}

fn odd(oddity: Oddity) -> &'static str {
    match oddity {
        Oddity::Version => {
            "an advert of the other version of VRRP, which is not believed; set one `version` on all machines"
        }
        Oddity::OwnAddress => {
            "an advert with our own address, which is not believed; two machines have it, or a switch sends packets back"
        }
        Oddity::Stranger => "an advert of a machine that is not in `peers`, which is not believed",
        Oddity::Interval => {
            "an advert with another interval; version 2 wants one for all, and the others may not believe ours: set one `advert` on all machines"
        }
        Oddity::Addresses => {
            "an advert that lists other addresses; it is believed, but set one `address` on all machines"
        }
    }
}
