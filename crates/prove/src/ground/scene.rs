//! Where a scenario plays: networks, forwarding, instances, and the record of what was done.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::id;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mainstay_ids::InstanceId;
use mainstay_model::forward::{BackEndKind, Ranges};
use mainstay_model::{Ack, ForwardSettings, Network};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Follower;
use super::board::{Board, identity};
use super::clients::{Clients, Demand};
use super::datagrams::DatagramReport;
use super::field::{Field, NODE, Place, RANGE};
use super::instance::Instance;
use super::namespace::cannot;
use crate::load::{self, Request, Target};
use crate::scenario::{Fault, Outage, Trouble};
use crate::verdict::{Evidence, Figure};
use crate::{Options, Progress};

/// Between two looks of a node's agent.
const LOOK: Duration = Duration::from_millis(20);

/// How long an instance that leaves may finish what it has: each client speaks many times meanwhile.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// Between two faults: time in which clients show that all is well again.
pub(crate) const PAUSE: Duration = Duration::from_millis(500);

/// What was done, and when. Times count from the load's start.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) started: Instant,
    pub(crate) faults: Vec<Fault>,
    pub(crate) outages: Vec<Outage>,
    pub(crate) figures: Vec<Figure>,
    pub(crate) datagrams: Option<DatagramReport>,
    /// How long each change took.
    pub(crate) changes: Vec<Duration>,
    progress: mpsc::Sender<Progress>,
}

/// The whole ground. What is declared first ends first: instances before their networks.
pub(crate) struct Scene {
    instances: BTreeMap<InstanceId, Instance>,
    follower: Box<dyn Follower>,
    pub(crate) board: Board,
    pub(crate) field: Field,
    pub(crate) demand: Demand,
    pub(crate) record: Record,
    /// For how long faults are repeated.
    pub(crate) duration: Duration,
    stop: CancellationToken,
    handle: Handle,
    _state: State,
}

/// A directory for the files of forwarding, which goes with it.
struct State(PathBuf);

impl State {
    fn make() -> Result<Self, Trouble> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("mainstay-prove-{}-{number}", id()));
        // It must not be there: whoever may write to the place of temporary files could have made it.
        fs::create_dir(&path)
            .map_err(|error| cannot(&format!("make the directory {}", path.display()), &error))?;
        Ok(Self(path))
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "a directory of the proof is left");
        }
    }
}

impl Record {
    pub(crate) fn since(&self, when: Instant) -> Duration {
        when.saturating_duration_since(self.started)
    }

    /// Records that something is being done now; gives its place in the record.
    pub(crate) fn begin(&mut self, what: String) -> usize {
        let at_ms = millis(self.started.elapsed());
        // A display that is slow or gone loses lines; the report loses nothing.
        let _ = self.progress.try_send(Progress::Fault {
            at_ms,
            what: what.clone(),
        });
        self.faults.push(Fault {
            at_ms,
            what,
            whole_after_ms: None,
        });
        self.faults.len() - 1
    }

    pub(crate) fn whole_again(&mut self, fault: usize) {
        let fault = &mut self.faults[fault];
        let after_ms = millis(self.started.elapsed()).saturating_sub(fault.at_ms);
        fault.whole_after_ms = Some(after_ms);
        let _ = self.progress.try_send(Progress::Whole { after_ms });
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Scene {
    pub(crate) fn make(
        options: &Options,
        progress: mpsc::Sender<Progress>,
        stop: CancellationToken,
        handle: Handle,
    ) -> Result<Self, Trouble> {
        let Some(forwarding) = options.forwarding.clone() else {
            let why = "there is nothing that forwards in this program";
            return Err(Trouble::CannotBreak(why.to_owned()));
        };
        let field = Field::make()?;
        let state = State::make()?;
        let network = Network::parse(RANGE).map_err(|error| cannot("use a range", &error))?;
        let ranges = Ranges::new(vec![network]).map_err(|error| cannot("use a range", &error))?;
        let settings = ForwardSettings {
            back_end: Some(BackEndKind::Nft),
            ..ForwardSettings::new(ranges)
        };
        let start = || {
            let started = forwarding.start(&settings, &state.0, NODE);
            started.map_err(|why| Trouble::CannotBreak(format!("forwarding cannot begin: {why}")))
        };
        let follower = field.node.enter(start)?;
        let record = Record {
            started: Instant::now(),
            faults: Vec::new(),
            outages: Vec::new(),
            figures: Vec::new(),
            datagrams: None,
            changes: Vec::new(),
            progress,
        };
        let demand = Demand {
            targets: Vec::new(),
            kinds: Vec::new(),
        };
        Ok(Self {
            instances: BTreeMap::new(),
            follower,
            board: Board::new(),
            field,
            demand,
            record,
            duration: options.duration,
            stop,
            handle,
            _state: state,
        })
    }

    /// A service that clients ask.
    pub(crate) fn serve(&mut self, service: &'static str, address: SocketAddr) {
        self.board.add(service, address);
        self.demand.targets.push(Target {
            name: service.to_owned(),
            addresses: vec![address],
            host: service.to_owned(),
            requests: vec![Request::get("/")],
        });
    }

    /// Starts an instance and routes it; it gets connections with the next state that is published.
    pub(crate) fn start(
        &mut self,
        service: &str,
        number: u64,
        (place, port): (Place, u16),
    ) -> Result<(), Trouble> {
        let (id, at) = (identity(service, number), place.at(port));
        let on = self.field.namespace(place);
        let instance = Instance::start(on, service, &id.to_string(), at)?;
        self.instances.insert(id, instance);
        self.board.route(service, number, at);
        Ok(())
    }

    /// Ends an instance without a warning.
    pub(crate) fn kill(&mut self, service: &str, number: u64) {
        self.instances.remove(&identity(service, number));
    }

    /// Publishes a state, and waits until it is in force.
    pub(crate) fn publish(&mut self) -> Result<(), Trouble> {
        let routing = self.board.publish();
        let follower = &mut self.follower;
        let began = Instant::now();
        let follow = || {
            let done = follower.follow(routing);
            done.map_err(|why| Trouble::Unexpected(format!("a change is not in force: {why}")))
        };
        self.field.node.enter(follow)?;
        self.record.changes.push(began.elapsed());
        Ok(())
    }

    /// Has an instance leave in peace: it gets nothing new, and ends when nothing is under way to it.
    pub(crate) fn withdraw(&mut self, service: &str, number: u64) -> Result<(), Trouble> {
        self.board.withdraw(service, number);
        self.publish()?;
        let leaving = identity(service, number);
        if let Some(instance) = self.instances.get(&leaving) {
            instance.finish();
        }
        let began = Instant::now();
        loop {
            let ack = self.look()?;
            let mut in_flight = ack.in_flight.into_iter();
            let Some(left) = in_flight.find(|one| one.instance == leaving) else {
                break;
            };
            if began.elapsed() > DRAIN_DEADLINE {
                return Err(Trouble::NotInTime {
                    what: format!("{leaving} does not come to its end"),
                    deadline: DRAIN_DEADLINE,
                    seen: format!("{} connections are under way to it", left.requests),
                });
            }
            self.pause(LOOK)?;
        }
        self.instances.remove(&leaving);
        Ok(())
    }

    fn look(&mut self) -> Result<Ack, Trouble> {
        let follower = &mut self.follower;
        self.field.node.enter(|| Ok(follower.look()))
    }

    /// Starts the clients.
    pub(crate) fn send(
        &self,
        options: &Options,
        round: u64,
        duration: Duration,
    ) -> Result<Clients, load::Error> {
        let seed = options.seed.wrapping_add(round);
        Clients::start(
            &self.demand,
            (&self.field.node, &self.field.client),
            (options.rate, options.workers),
            (seed, duration),
            &self.stop,
        )
    }

    pub(crate) fn has_time(&self) -> bool {
        self.record.started.elapsed() < self.duration
    }

    pub(crate) fn pause(&self, pause: Duration) -> Result<(), Trouble> {
        // The timer needs the runtime when it is made already.
        let stopped = async { tokio::time::timeout(pause, self.stop.cancelled()).await };
        match self.handle.block_on(stopped) {
            Ok(()) => Err(Trouble::Stopped),
            Err(_) => Ok(()),
        }
    }

    /// Hands over what was done.
    pub(crate) fn surrender(mut self, evidence: &mut Evidence) {
        evidence.faults = std::mem::take(&mut self.record.faults);
        evidence.outages = std::mem::take(&mut self.record.outages);
        evidence.figures = std::mem::take(&mut self.record.figures);
        evidence.datagrams = self.record.datagrams;
    }
}
