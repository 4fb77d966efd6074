//! What is under way to instances that are dead, leave or drain (ADR 29).
//!
//! Rules see packets alone. Who waits for an answer of a dead instance sends none, and a datagram
//! follows the one before it to an instance that has left. Both are found here, by what the kernel
//! knows of sockets and of connections that it led on, whichever back end made it do so.
//!
//! Only this network namespace is in reach. A program in a container with one of its own, or on another
//! host for which this one forwards, is reset by the rules as soon as it sends, and not before.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;

use mainstay_kernel::netlink::conntrack::{Conntrack, Flow, Led, Phase, Protocol, Tuple};
use mainstay_kernel::netlink::diag::{Connection, End, ResetError, Sockets, State};

#[cfg(test)]
mod tests;

/// Up to so many instances the table of connections is walked over for each, in which the kernel sorts
/// out all others. For more it tells once of all that is led on, which costs four such walks if that is
/// the whole table.
const WALKS_MAX: usize = 4;

/// In which somebody may wait for the other end. The kernel brings the others to their end.
const WAITING: [State; 5] = [
    State::Established,
    State::SynSent,
    State::CloseWait,
    State::FinWait1,
    State::FinWait2,
];

/// An instance that is declared dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    /// Where it listened.
    pub instance: SocketAddr,
    /// The service addresses that led to it, until now or at any time before.
    pub services: Vec<SocketAddr>,
}

/// What was done for those who waited for dead instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Severed {
    /// Connections that were reset.
    pub reset: usize,
    /// Connections that nobody had answered yet: they are asked for again at an instance that is there,
    /// when the kernel sends their SYN again, one second after the first, three, seven.
    pub led_anew: usize,
}

/// Where an instance runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    /// In this network namespace: what is under way to it is what its sockets have, whoever led it here.
    Here,
    /// On another host, or in a container: it is what this host leads there.
    Elsewhere,
}

/// An instance that gets nothing new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draining {
    /// Where it listens.
    pub instance: SocketAddr,
    /// Where that is.
    pub whereabouts: Whereabouts,
}

/// Why it is not known what is under way, or was not ended.
#[derive(Debug, thiserror::Error)]
pub enum UnderwayError {
    /// The kernel has no `tcp_diag`, for instance.
    #[error("cannot look at the TCP sockets of this network namespace (it needs tcp_diag)")]
    Sockets(#[source] io::Error),
    /// `CAP_NET_ADMIN` is missing, or the kernel has no `nf_conntrack_netlink`.
    #[error(
        "cannot ask connection tracking what is under way to instances (it needs CAP_NET_ADMIN and \
         nf_conntrack_netlink)"
    )]
    Tracking(#[source] io::Error),
    /// Whoever waits goes on waiting, until its own timeout.
    #[error("cannot tell programs that wait for dead instances")]
    Reset(#[from] ResetError),
}

/// Ways to the sockets and tracked connections of the network namespace in which it was opened. Calls
/// block for as long as the kernel takes, some 20 ms.
#[derive(Debug)]
pub struct Underway {
    sockets: Sockets,
    conntrack: Conntrack,
}

impl Underway {
    /// Looks at nothing yet.
    pub fn open() -> Result<Self, UnderwayError> {
        Ok(Self {
            sockets: Sockets::open().map_err(UnderwayError::Sockets)?,
            conntrack: Conntrack::open().map_err(UnderwayError::Tracking)?,
        })
    }

    /// Ends what local programs have under way to dead instances by their service addresses: who waits
    /// is told (`ECONNABORTED`), who still asks for a connection gets it elsewhere, and datagrams go
    /// elsewhere. Call it when the rules lead nothing there any more and reset what is sent
    /// ([`crate::Batch::dead`]), since what begins meanwhile is not found.
    ///
    /// Connections that programs made to the instance's own address are left alone.
    pub fn sever(&self, dead: &[Dead]) -> Result<Severed, UnderwayError> {
        let severed = self.end_waiting(dead);
        let instances: Vec<SocketAddr> = dead.iter().map(|dead| dead.instance).collect();
        self.release(&instances)?;
        severed
    }

    /// Has datagrams, and connections that nobody has answered yet, go to other instances, or be
    /// refused if there are none, when instances leave in peace; connections are left to end by
    /// themselves. Call it when the rules lead nothing there any more, and before the address is given
    /// to another instance.
    pub fn release(&self, instances: &[SocketAddr]) -> Result<(), UnderwayError> {
        self.forget_datagrams(instances)
            .and_then(|()| self.forget_asking(instances))
            .map_err(UnderwayError::Tracking)
    }

    /// Has datagrams go to instances that were refused, when service addresses that led to nobody lead
    /// to some. Programs that never stopped asking would be refused for ever: that there was nobody
    /// is remembered for as long as one asks, if it is a program of this host. Call it when the rules
    /// lead there.
    pub fn admit(&self, services: &[SocketAddr]) -> Result<(), UnderwayError> {
        self.forget_refusals(services)
            .map_err(UnderwayError::Tracking)
    }

    /// How many TCP connections are under way to each of these, in the same order: those that its end
    /// would break off. For instances elsewhere, those that this host leads there; a client that went
    /// away without a word counts as long as connection tracking knows it, which can be days.
    pub fn in_flight(&self, draining: &[Draining]) -> Result<Vec<u64>, UnderwayError> {
        let at = |whereabouts| -> Vec<SocketAddr> {
            let there = draining.iter().filter(|one| one.whereabouts == whereabouts);
            there.map(|one| one.instance).collect()
        };
        let crowds = self.sockets.crowds(&at(Whereabouts::Here));
        let mut here = crowds.map_err(UnderwayError::Sockets)?.into_iter();
        let elsewhere = at(Whereabouts::Elsewhere);
        let flows = self.led_to(Protocol::Tcp, &elsewhere);
        let mut led = HashMap::<SocketAddr, u64>::new();
        for flow in flows.map_err(UnderwayError::Tracking)? {
            if flow.phase == Phase::Open {
                *led.entry(flow.reply.source).or_default() += 1;
            }
        }
        let count = |one: &Draining| match one.whereabouts {
            Whereabouts::Here => here.next().map_or(0, |crowd| crowd.in_flight),
            Whereabouts::Elsewhere => led.get(&one.instance).copied().unwrap_or(0),
        };
        Ok(draining.iter().map(count).collect())
    }

    fn end_waiting(&self, dead: &[Dead]) -> Result<Severed, UnderwayError> {
        let waiting = self.waiting(dead)?;
        let (asks, waits): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|(connection, _)| connection.state == State::SynSent);
        let asks: Vec<Flow> = asks.into_iter().map(|(_, flow)| flow).collect();
        let waits: Vec<Connection> = waits
            .into_iter()
            .map(|(connection, _)| connection)
            .collect();
        let led_anew = self.conntrack.delete(&asks);
        let reset = self.sockets.reset(&waits)?;
        let led_anew = led_anew.map_err(UnderwayError::Tracking)?;
        Ok(Severed { reset, led_anew })
    }

    /// Local sockets that are connected to dead instances, with where they were led.
    fn waiting(&self, dead: &[Dead]) -> Result<Vec<(Connection, Flow)>, UnderwayError> {
        let services: HashSet<SocketAddr> = dead
            .iter()
            .flat_map(|dead| dead.services.iter().copied())
            .collect();
        let ends: Vec<End> = services.into_iter().map(End::Remote).collect();
        let mut sockets = Vec::new();
        self.sockets
            .each(&ends, &WAITING, |_, found| sockets.push(found))
            .map_err(UnderwayError::Sockets)?;
        let addressed: Vec<Tuple> = sockets.iter().map(addressed).collect();
        let flows = self.conntrack.find(&addressed);
        let flows = flows.map_err(UnderwayError::Tracking)?;
        let instances: HashSet<SocketAddr> = dead.iter().map(|dead| dead.instance).collect();
        let led = |(socket, flow): (Connection, Option<Flow>)| {
            let flow = flow.filter(|flow| instances.contains(&flow.reply.source))?;
            Some((socket, flow))
        };
        Ok(sockets.into_iter().zip(flows).filter_map(led).collect())
    }

    fn forget_datagrams(&self, instances: &[SocketAddr]) -> io::Result<()> {
        if instances.len() > WALKS_MAX {
            let flows = self.led_to(Protocol::Udp, instances)?;
            return self.conntrack.delete(&flows).map(drop);
        }
        instances
            .iter()
            .try_for_each(|one| self.conntrack.delete_answered_by(Protocol::Udp, *one))
    }

    /// Also of clients in other namespaces and on other hosts, whose sockets nobody here sees: their next
    /// SYN must not come to whoever has the address then.
    fn forget_asking(&self, instances: &[SocketAddr]) -> io::Result<()> {
        let mut flows = self.led_to(Protocol::Tcp, instances)?;
        flows.retain(|flow| flow.phase == Phase::Asked);
        self.conntrack.delete(&flows).map(drop)
    }

    fn forget_refusals(&self, services: &[SocketAddr]) -> io::Result<()> {
        if services.len() <= WALKS_MAX {
            return services
                .iter()
                .try_for_each(|one| self.conntrack.delete_refused(Protocol::Udp, *one));
        }
        let services: HashSet<&SocketAddr> = services.iter().collect();
        let mut refused = Vec::new();
        self.conntrack.each_led(Led::Nowhere, |flow| {
            let Tuple {
                protocol,
                destination,
                ..
            } = flow.original;
            if protocol == Protocol::Udp && services.contains(&destination) {
                refused.push(flow);
            }
        })?;
        self.conntrack.delete(&refused).map(drop)
    }

    /// Flows that are led to one of these, each once.
    fn led_to(&self, protocol: Protocol, instances: &[SocketAddr]) -> io::Result<Vec<Flow>> {
        let wanted: HashSet<SocketAddr> = instances.iter().copied().collect();
        let mut flows = Vec::new();
        if wanted.len() <= WALKS_MAX {
            for one in &wanted {
                self.conntrack.each_answered_by(protocol, *one, |flow| {
                    flows.extend((flow.led() == Led::On).then_some(flow));
                })?;
            }
            return Ok(flows);
        }
        self.conntrack.each_led(Led::On, |flow| {
            let reply = flow.reply;
            if reply.protocol == protocol && wanted.contains(&reply.source) {
                flows.push(flow);
            }
        })?;
        Ok(flows)
    }
}

/// As connection tracking knows it.
fn addressed(socket: &Connection) -> Tuple {
    Tuple {
        protocol: Protocol::Tcp,
        source: socket.local,
        destination: socket.remote,
    }
}
