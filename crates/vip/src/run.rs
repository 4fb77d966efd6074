//! The process: one loop around all seats.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use mainstay_ids::{Instant, VipName};
use mainstay_kernel::netlink::link::{Change, Changes};
use mainstay_kernel::realtime;
use mainstay_kernel::signals::SignalFd;
use mainstay_model::VipSpec;
use mainstay_vrrp::OptionsError;
use rustix::process::Signal;

use crate::agent::Agent;
use crate::calls::{Call, Calls};
use crate::departure::{Departure, Purpose};
use crate::host::Host;
use crate::metrics;
use crate::seams::{Adverts, AgentSilence, Farewell, Seams};
use crate::seat::Seat;
use crate::view::{Answer, Shown};

/// Above everything but the kernel's own threads for hardware (50), which bring our packets.
const REAL_TIME_PRIORITY: u8 = 40;
/// What a process that is not in real time can promise: on two processors with six busy loops, one in intervals of 10 ms
/// was taken for dead 20 times in 7 s.
const ADVERT_MIN_WITHOUT_REAL_TIME: Duration = Duration::from_millis(100);
/// Messages of the kernel about interfaces that are read in one turn.
const CHANGES_MAX: usize = 64;

/// What the process is told.
#[derive(Debug)]
pub struct Options {
    /// The state directory, for the socket of callers and the claims of the gateway.
    pub state: PathBuf,
    /// The floating addresses, checked.
    pub vips: Vec<VipSpec>,
    /// Whether this node has an agent, whose silence makes it the last choice.
    pub agent: OwnAgent,
    /// How it is scheduled.
    pub real_time: RealTime,
    /// For tests.
    pub seams: Seams,
}

/// Whether the node has an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnAgent {
    /// It has one.
    Runs,
    /// It has none.
    No,
}

/// Whether the process asks for scheduling in real time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RealTime {
    /// It does, and goes on without if that is refused.
    IfAllowed,
    /// Test seam: it does not, whatever is allowed.
    Never,
}

/// Why it cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
    /// Nothing can be said to the kernel.
    #[error(
        "cannot open the sockets that floating addresses need; they need root, or CAP_NET_ADMIN and CAP_NET_RAW"
    )]
    Sockets(#[source] io::Error),
    /// Nobody could ask.
    #[error("cannot listen for callers in `{}`", state.display())]
    Calls {
        /// The state directory.
        state: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A specification that was not checked.
    #[error("`{name}` cannot be held")]
    Options {
        /// Which.
        name: VipName,
        /// Why.
        #[source]
        source: OptionsError,
    },
    /// Sleeping fails.
    #[error("cannot wait for what happens")]
    Wait(#[source] io::Error),
}

/// Holds the addresses until SIGTERM or SIGINT, and then gives them away. For a process with one thread.
pub fn run(options: Options) -> Result<(), RunError> {
    let signals = SignalFd::block(&[Signal::TERM, Signal::INT]).map_err(RunError::Signals)?;
    let left_out = options.seams;
    let host = Host::new(&options.state, left_out.lifetime).map_err(RunError::Sockets)?;
    host.watch(&signals).map_err(RunError::Signals)?;
    let changes = Changes::follow().map_err(RunError::Sockets)?;
    host.watch(&changes).map_err(RunError::Sockets)?;
    let state = options.state;
    let calls = Calls::listen(&state, &host);
    let calls = calls.map_err(|source| RunError::Calls { state, source })?;
    let real_time = be_real_time(options.real_time);
    let mut seats = Vec::new();
    for mut spec in options.vips {
        keep_promises(&mut spec, real_time.is_ok());
        match left_out.adverts {
            Adverts::AsWritten => {}
            Adverts::EachSecond => spec.advert = Duration::from_secs(1),
        }
        let name = spec.name.clone();
        let seat = Seat::new(spec, left_out);
        seats.push(seat.map_err(|source| RunError::Options { name, source })?);
    }
    let agent = match (options.agent, left_out.agent) {
        (OwnAgent::Runs, AgentSilence::Heeded) => Some(Agent::new(host.now())),
        (OwnAgent::Runs, AgentSilence::Unheeded) | (OwnAgent::No, _) => None,
    };
    let mut holder = Holder {
        host,
        agent,
        signals,
        changes,
        calls,
        seats,
        real_time,
        departure: None,
        life: Life::GoesOn,
        farewell: seams.farewell,
    };
    holder.run()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    GoesOn,
    Ends,
}

#[derive(Debug)]
struct Holder {
    host: Host,
    agent: Option<Agent>,
    signals: SignalFd,
    changes: Changes,
    calls: Calls,
    seats: Vec<Seat>,
    real_time: Result<(), String>,
    departure: Option<Departure>,
    life: Life,
    farewell: Farewell,
}

impl Holder {
    fn run(&mut self) -> Result<(), RunError> {
        loop {
            self.follow_changes();
            let agent = self.agent.as_mut().map(|agent| agent.turn(&self.host));
            for seat in &mut self.seats {
                seat.heed_agent(&self.host, agent);
                seat.turn(&self.host);
            }
            self.depart();
            self.answer();
            self.hear_signals()?;
            // What goes to the network comes first.
            self.host.record.borrow_mut().write_down();
            if self.life == Life::Ends && self.farewell == Farewell::Unsaid {
                return Ok(());
            }
            if self.life == Life::Ends
                && self.departure.is_none()
                && self.seats.iter().all(Seat::has_stopped)
            {
                self.host.undo();
                return Ok(());
            }
            let deadline = self.next_deadline();
            self.host.sleep_until(deadline).map_err(RunError::Wait)?;
        }
    }

    fn next_deadline(&self) -> Instant {
        let seats = self.seats.iter().map(Seat::next_deadline);
        seats
            .chain([self.calls.next_deadline()])
            .chain(self.agent.as_ref().map(Agent::next_deadline))
            .chain(self.departure.as_ref().map(Departure::next_deadline))
            .min()
            .unwrap_or(Instant::NEVER)
    }

    /// Looks at the interfaces of seats about which the kernel says something.
    fn follow_changes(&mut self) {
        let (seats, host) = (&mut self.seats, &self.host);
        for seat in seats.iter_mut() {
            seat.begin_changes();
        }
        let drained = self.changes.drain(CHANGES_MAX, |change| {
            for seat in seats.iter_mut() {
                seat.note_change(change);
            }
        });
        if let Err(error) = drained {
            tracing::warn!("cannot follow changes of interfaces: {error}");
            for seat in seats.iter_mut() {
                seat.note_change(Change::Everything);
            }
        }
        if self.life == Life::Ends {
            return;
        }
        for seat in seats.iter_mut() {
            seat.look_if_changed(host);
        }
    }

    fn answer(&mut self) {
        let (seats, host, real_time) = (&mut self.seats, &self.host, &self.real_time);
        let shown = |seats: &[Seat]| Shown {
            real_time: real_time.clone(),
            vips: seats.iter().map(|seat| seat.shown(host.now())).collect(),
        };
        let departure = &mut self.departure;
        self.calls.turn(host, |call| match call {
            Call::Show => Answer::Shown(shown(seats)),
            Call::Metrics => Answer::Metrics(metrics::text(&shown(seats))),
            Call::Move(name) => {
                if let Some(seat) = seats.iter_mut().find(|seat| seat.name() == name) {
                    if let Err(why) = seat.may_move() {
                        return Answer::Refused(why);
                    }
                    if departure.is_some() {
                        let why = "another move is under way; ask again when it is over";
                        return Answer::Refused(why.to_owned());
                    }
                    *departure = Some(Departure::begin(Purpose::Move, &mut [seat], host));
                    return Answer::Moving;
                }
                let known: Vec<&str> = seats.iter().map(Seat::name).collect();
                let known = known.join(", ");
                Answer::Refused(format!("there is no `{name}`; there are {known}"))
            }
        });
    }

    fn hear_signals(&mut self) -> Result<(), RunError> {
        while self.signals.next().map_err(RunError::Signals)?.is_some() {
            if self.life == Life::Ends {
                continue;
            }
            self.life = Life::Ends;
            match self.farewell {
                Farewell::Said => {}
                Farewell::Unsaid => continue,
            }
            tracing::info!("stopping: the addresses are offered to others first");
            if let Some(departure) = self.departure.take() {
                departure.give_up(&mut self.seats);
            }
            let (mut holding, idle): (Vec<&mut Seat>, Vec<&mut Seat>) =
                self.seats.iter_mut().partition(|seat| seat.holds());
            for seat in idle {
                seat.stop(&self.host);
            }
            if !holding.is_empty() {
                let departure = Departure::begin(Purpose::Stop, &mut holding, &self.host);
                self.departure = Some(departure);
            }
        }
        Ok(())
    }

    /// Goes on with a move or the end.
    fn depart(&mut self) {
        if let Some(departure) = &mut self.departure
            && departure.turn(&mut self.seats, &self.host)
        {
            self.departure = None;
        }
    }
}

/// Enters real time; if that is refused, says so.
fn be_real_time(wish: RealTime) -> Result<(), String> {
    if wish == RealTime::Never {
        return Err("it was not asked for".to_owned());
    }
    if let Err(error) = realtime::lock_memory() {
        tracing::warn!("cannot keep this process in memory: {error}; it may wait for a disk");
    }
    realtime::enter(REAL_TIME_PRIORITY).map_err(|error| {
        tracing::warn!(
            "cannot enter real time: {error}; adverts come every 100 ms at most, and a busy machine may be taken for \
             dead. It needs CAP_SYS_NICE, and in control groups of version 1 a share of real time for its group \
             (`cpu.rt_runtime_us`)"
        );
        error.to_string()
    })
}

/// Without real time, shorter intervals are a promise that a busy machine breaks.
fn keep_promises(spec: &mut VipSpec, real_time: bool) {
    if !real_time && spec.advert < ADVERT_MIN_WITHOUT_REAL_TIME {
        let (name, advert) = (&spec.name, spec.advert);
        tracing::error!(
            "({name}) `advert` is {advert:?}, which needs real time; it is {ADVERT_MIN_WITHOUT_REAL_TIME:?} until then"
        );
        spec.advert = ADVERT_MIN_WITHOUT_REAL_TIME;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_model::vip::{Hardware, OnDead, PRIORITY, Preempt, VrrpVersion};
    use std::num::NonZeroU8;

    #[test]
    fn without_real_time_adverts_come_each_100_ms_at_most() {
        let spec = |ms: u64| VipSpec {
            name: VipName::parse("entry").unwrap(),
            interface: "eth0".to_owned(),
            vrid: NonZeroU8::MIN,
            version: VrrpVersion::V3,
            addresses: vec![],
            priority: NonZeroU8::new(PRIORITY).unwrap(),
            preempt: Preempt::Never,
            advert: Duration::from_millis(ms),
            peers: vec![],
            hardware: Hardware::Own,
            track: vec![],
            on_dead: OnDead::YieldAtOnce,
            notify: vec![],
        };
        for (written, real_time, ms) in [
            (10, true, 10),
            (10, false, 100),
            (90, false, 100),
            (100, false, 100),
            (1000, false, 1000),
        ] {
            let mut spec = spec(written);
            keep_promises(&mut spec, real_time);
            assert_eq!(spec.advert, Duration::from_millis(ms));
        }
    }
}
