//! The chief: one task that owns the machines of all servers, tries them, binds addresses, and
//! publishes who may be chosen.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use mainstay_control::balance::Role;
use mainstay_control::listen::{Candidate, Changed, CheckResult, Input, Server, Standing};
use mainstay_ids::{Instant, ListenName, Version};
use mainstay_model::listen::{Mode, OnDown, ServerSpec, WEIGHT_MAX};
use mainstay_model::routing::{EndpointHealth, Handle};
use mainstay_model::{Intake, ListenSpec};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, wall_clock};
use crate::endpoint::EndpointState;
use crate::listen::check::{self, CheckReport, Failure, Passed};
use crate::listen::handle::{Ask, Change, HandleError, ServerAt};
use crate::listen::keepsake::{Keepsake, Set, Which};
use crate::listen::limits::BIND_EVERY;
use crate::listen::roster::{ListenTally, Roster, RosterListen, RosterServer, ServerTally};
use crate::listen::snapshot::{BindSnapshot, HttpCounts, ListenSnapshot, ServerSnapshot};
use crate::listen::sockets::Sockets;
use crate::listen::{HttpService, Wanted, seat};
use crate::metrics::{FrontendCounts, ServiceCounts};
use crate::policy::Policy;
use crate::table::TableEndpoint;

/// Everything that comes in and goes out.
pub(crate) struct Ports {
    pub(crate) wanted: watch::Receiver<Wanted>,
    pub(crate) asks: mpsc::Receiver<Ask>,
    /// Servers to which a connection failed.
    pub(crate) failures: mpsc::Receiver<ServerAt>,
    pub(crate) rosters: watch::Sender<Arc<Roster>>,
    /// One for each worker.
    pub(crate) orders: Vec<mpsc::Sender<seat::Order>>,
    pub(crate) stop: CancellationToken,
}

/// The task's state.
pub(crate) struct Chief {
    clock: Clock,
    /// Above the tokens of all sessions.
    all: CancellationToken,
    ports: Ports,
    listens: BTreeMap<ListenName, Listen>,
    sockets: Sockets,
    /// Where what operators set is kept; `None`: it is forgotten with this task.
    keepsake: Option<Keepsake>,
    /// What was set in the life of the gateway before, of servers that have not been seen yet.
    remembered: BTreeMap<Which, Set>,
    checks: JoinSet<Checked>,
    /// Removed servers with sessions or requests, and until when these may go on.
    leaving: Vec<Leaving>,
}

struct Listen {
    spec: ListenSpec,
    tally: Arc<ListenTally>,
    /// What is counted of its requests, in HTTP mode.
    counts: Arc<ServiceCounts>,
    frontend: Arc<FrontendCounts>,
    servers: Vec<Served>,
}

/// One server, with its machine.
struct Served {
    spec: ServerSpec,
    tally: Arc<ServerTally>,
    /// What it is to the workers in HTTP mode.
    state: Arc<EndpointState>,
    machine: Server,
    /// What an operator set.
    weight: Option<u16>,
    report: Option<CheckReport>,
    cut: CancellationToken,
}

/// A removed server.
struct Leaving {
    until: Instant,
    cut: CancellationToken,
    state: Arc<EndpointState>,
}

/// A check that ended.
struct Checked {
    at: ServerAt,
    /// Of which server of that name: it may be another by now.
    address: SocketAddr,
    result: Result<Passed, Failure>,
    took: Duration,
}

impl Chief {
    pub(crate) fn new(
        clock: Clock,
        all: CancellationToken,
        (sockets, keepsake): (Sockets, Option<Keepsake>),
        ports: Ports,
    ) -> Self {
        Self {
            remembered: keepsake.as_ref().map(Keepsake::load).unwrap_or_default(),
            keepsake,
            clock,
            all,
            ports,
            listens: BTreeMap::new(),
            sockets,
            checks: JoinSet::new(),
            leaving: Vec::new(),
        }
    }

    /// Runs until it is told to stop. The sessions are the seats' to end.
    pub(crate) async fn run(mut self) {
        let mut retry = interval(BIND_EVERY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.ports.stop.clone();
        let mut settings = Settings::Followed;
        self.apply().await;
        loop {
            let due = self.next_due();
            tokio::select! {
                () = stop.cancelled() => return self.sockets.give_up(),
                changed = self.ports.wanted.changed(), if settings == Settings::Followed => {
                    match changed {
                        Ok(()) => self.apply().await,
                        Err(_) => settings = Settings::Final,
                    }
                }
                Some(ask) = self.ports.asks.recv() => self.answer(ask).await,
                Some(at) = self.ports.failures.recv() => self.note_failure(&at),
                Some(checked) = self.checks.join_next() => match checked {
                    Ok(checked) => self.take(checked),
                    Err(error) => tracing::error!(%error, "a check panicked"),
                },
                () = due => self.do_what_is_due(),
                _ = retry.tick() => self.sockets.bind_missing(&self.ports.orders).await,
            }
        }
    }

    /// Waits for the next check or the end of a removed server's sessions.
    fn next_due(&self) -> impl Future<Output = ()> + use<> {
        let servers = self.listens.values().flat_map(|listen| &listen.servers);
        let checks = servers.filter_map(|server| server.machine.next_deadline());
        let leaving = self.leaving.iter().map(|one| one.until);
        let due = checks.chain(leaving).min();
        let now = self.clock.now();
        async move {
            match due {
                Some(due) => sleep(due.since(now)).await,
                None => std::future::pending().await,
            }
        }
    }

    fn do_what_is_due(&mut self) {
        let now = self.clock.now();
        self.let_go(now);
        for (name, listen) in &mut self.listens {
            let Some(spec) = &listen.spec.check else {
                continue;
            };
            for server in &mut listen.servers {
                if server.machine.next_deadline().is_some_and(|due| due <= now) {
                    server.machine.handle(now, Input::CheckStarted);
                    let at = ServerAt {
                        listen: name.clone(),
                        server: server.spec.name.clone(),
                    };
                    let (spec, proxy) = (spec.clone(), listen.spec.send_proxy);
                    let (clock, address) = (self.clock, server.spec.address);
                    // At most one for each server, each with its deadline; joined in `run`.
                    self.checks.spawn(async move {
                        let began = clock.now();
                        let result = check::check(address, &spec, proxy).await;
                        let took = clock.now().since(began);
                        Checked {
                            at,
                            address,
                            result,
                            took,
                        }
                    });
                }
            }
        }
    }

    /// Ends what is left of removed servers whose time is over.
    fn let_go(&mut self, now: Instant) {
        let (over, leaving) = std::mem::take(&mut self.leaving)
            .into_iter()
            .partition::<Vec<_>, _>(|one| one.until <= now);
        self.leaving = leaving;
        for one in &over {
            one.cut.cancel();
            one.state.give_up();
        }
        if !over.is_empty() {
            self.publish();
        }
    }

    /// Takes the end of a check in.
    fn take(&mut self, checked: Checked) {
        let Checked {
            at,
            address,
            result,
            took,
        } = checked;
        let now = self.clock.now();
        let Some(server) = find(&mut self.listens, &at) else {
            return;
        };
        if server.spec.address != address {
            return;
        }
        server.report = Some(CheckReport::of(&result, took, wall_clock()));
        let ended = if result.is_ok() {
            server.tally.forget_failure();
            CheckResult::Passed
        } else {
            CheckResult::Failed
        };
        let changed = server.machine.handle(now, Input::CheckEnded(ended));
        if let Some(changed) = changed {
            self.tell(&at, changed);
        }
    }

    fn note_failure(&mut self, at: &ServerAt) {
        let now = self.clock.now();
        if let Some(server) = find(&mut self.listens, at) {
            server.machine.handle(now, Input::ConnectFailed);
        }
    }

    /// A server stands otherwise: told once, and published.
    fn tell(&mut self, at: &ServerAt, changed: Changed) {
        let ServerAt { listen, server } = at;
        let Some(on_down) = self.listens.get(listen).map(|listen| listen.spec.on_down) else {
            return;
        };
        let all = &self.all;
        if let Some(served) = find(&mut self.listens, at) {
            if changed.to == Standing::Down {
                let failure = served
                    .report
                    .as_ref()
                    .and_then(|report| report.failure.as_deref());
                tracing::warn!(%listen, %server, failure, "a server is down");
                match on_down {
                    OnDown::Close => served.cut_sessions(all),
                    OnDown::Keep => {}
                }
            } else {
                let standing = changed.to;
                tracing::info!(%listen, %server, ?standing, "a server stands otherwise");
            }
        }
        self.publish();
    }

    async fn answer(&mut self, ask: Ask) {
        match ask {
            // Nobody waits any more if it cannot be sent.
            Ask::Snapshot(answer) => drop(answer.send(self.snapshot())),
            Ask::Change { at, change, done } => {
                let changed = match self.change(&at, change) {
                    Ok(()) => self.keep(change).await,
                    Err(error) => Err(error),
                };
                drop(done.send(changed));
            }
        }
    }

    /// Writes down what operators set, if a change is to be kept.
    async fn keep(&mut self, change: Change) -> Result<(), HandleError> {
        match change {
            Change::Want(_) | Change::Weight(_) => {}
            Change::Cut => return Ok(()),
        }
        let Some(keepsake) = &mut self.keepsake else {
            return Ok(());
        };
        let mut set = Vec::new();
        for (name, listen) in &self.listens {
            let servers = listen
                .servers
                .iter()
                .map(|one| (one.which(name), one.set()));
            set.extend(servers.filter(|(_, set)| *set != Set::default()));
        }
        let kept = keepsake.save(set).await;
        kept.map_err(|error| {
            tracing::error!(error, "cannot keep what operators set of servers");
            HandleError::NotKept(error)
        })
    }

    fn change(&mut self, at: &ServerAt, change: Change) -> Result<(), HandleError> {
        let now = self.clock.now();
        if !self.listens.contains_key(&at.listen) {
            return Err(HandleError::NoListen(at.listen.clone()));
        }
        let all = self.all.clone();
        let Some(server) = find(&mut self.listens, at) else {
            let ServerAt { listen, server } = at.clone();
            return Err(HandleError::NoServer { listen, server });
        };
        match change {
            Change::Want(wanted) => {
                let changed = server.machine.handle(now, Input::Want(wanted));
                if let Some(changed) = changed {
                    self.tell(at, changed);
                }
            }
            Change::Weight(weight) => {
                server.weight = weight;
                self.publish();
            }
            Change::Cut => {
                server.cut_sessions(&all);
                self.publish();
            }
        }
        Ok(())
    }

    /// Makes the listeners those of the newest settings. A server is the same if its listener, name
    /// and address are: it keeps its sessions, counts, verdict and what an operator wants of it.
    async fn apply(&mut self) {
        let wanted = Arc::clone(&self.ports.wanted.borrow_and_update());
        let now = self.clock.now();
        let mut before = std::mem::take(&mut self.listens);
        for spec in wanted.iter() {
            let old = before.remove(&spec.name);
            let listen = self.renew(spec, old, now);
            self.listens.insert(spec.name.clone(), listen);
        }
        for (name, listen) in before {
            tracing::info!(listen = %name, "a listener is removed");
            self.part(listen.servers, listen.spec.timeouts.drain, now);
        }
        self.publish();
        let wanted = wanted.iter().flat_map(|spec| spec.bind.iter().copied());
        self.sockets.follow(wanted, &self.ports.orders).await;
    }

    fn renew(&mut self, spec: &ListenSpec, old: Option<Listen>, now: Instant) -> Listen {
        let workers = self.ports.orders.len();
        let (mut listen, same_check) = if let Some(old) = old {
            old.tally.set_most(spec.connections_max);
            let same_check = old.spec.check == spec.check;
            (old, same_check)
        } else {
            tracing::info!(listen = %spec.name, bind = ?spec.bind, "a listener is added");
            (Listen::new(spec, workers), true)
        };
        let mut before = std::mem::take(&mut listen.servers);
        let mut servers = Vec::with_capacity(spec.servers.len());
        for server in &spec.servers {
            let same =
                |old: &Served| old.spec.name == server.name && old.spec.address == server.address;
            let served = match before.iter().position(same) {
                Some(at) => {
                    let mut served = before.swap_remove(at);
                    served.spec = server.clone();
                    if !same_check {
                        served.machine.recheck(spec.check.as_ref(), now);
                    }
                    served
                }
                None => self.add(spec, server, now),
            };
            servers.push(served);
        }
        self.part(before, spec.timeouts.drain, now);
        listen.spec = spec.clone();
        listen.servers = servers;
        listen
    }

    /// A server that was not there before, as an operator left it in an earlier life of the gateway.
    fn add(&mut self, spec: &ListenSpec, server: &ServerSpec, now: Instant) -> Served {
        let which = (spec.name.clone(), server.name.clone(), server.address);
        let set = self.remembered.remove(&which).unwrap_or_default();
        let mut machine = Server::new(spec.check.as_ref(), now);
        if set.wanted != mainstay_control::listen::Wanted::default() {
            // It is published, and told, with all others.
            machine.handle(now, Input::Want(set.wanted));
        }
        let workers = self.ports.orders.len();
        Served {
            machine,
            weight: set.weight.filter(|weight| *weight <= WEIGHT_MAX),
            ..Served::new(spec, server, (now, workers), &self.all)
        }
    }

    /// Lets the sessions of removed servers go on for a while.
    fn part(&mut self, servers: Vec<Served>, drain: Duration, now: Instant) {
        let busy = servers
            .into_iter()
            .filter(|one| one.tally.sessions.now() > 0 || one.state.in_flight() > 0);
        let until = now.after(drain);
        self.leaving.extend(busy.map(|server| Leaving {
            until,
            cut: server.cut,
            state: server.state,
        }));
    }

    fn publish(&self) {
        let listens = self.listens.values().map(|listen| {
            let servers = listen.servers.iter().map(Served::for_roster);
            Arc::new(RosterListen {
                spec: listen.spec.clone(),
                tally: Arc::clone(&listen.tally),
                servers: servers.collect(),
                http: listen.http(),
            })
        });
        let roster = Roster {
            listens: listens.collect(),
        };
        self.ports.rosters.send_replace(Arc::new(roster));
        for listen in self.listens.values() {
            listen.tally.server_freed.notify_waiters();
        }
    }

    fn snapshot(&self) -> Vec<ListenSnapshot> {
        let now = self.clock.now();
        let listens = self.listens.values();
        listens
            .map(|listen| {
                let binds = listen.spec.bind.iter().map(|address| BindSnapshot {
                    address: *address,
                    failing: self.sockets.failing(*address),
                });
                listen.snapshot(binds.collect(), now)
            })
            .collect()
    }
}

impl Listen {
    /// A listener without servers.
    fn new(spec: &ListenSpec, workers: usize) -> Self {
        Self {
            spec: spec.clone(),
            tally: Arc::new(ListenTally::new(spec.connections_max)),
            counts: Arc::new(ServiceCounts::new(workers)),
            frontend: Arc::new(FrontendCounts::new(workers)),
            servers: Vec::new(),
        }
    }

    /// What it is to the workers, in HTTP mode.
    fn http(&self) -> Option<HttpService> {
        match self.spec.mode {
            Mode::Tcp => None,
            Mode::Http => Some(HttpService {
                name: self.spec.name.clone(),
                counts: Arc::clone(&self.counts),
                frontend: Arc::clone(&self.frontend),
                policy: Arc::new(Policy::of_listen(&self.spec)),
                endpoints: self.servers.iter().filter_map(Served::endpoint).collect(),
            }),
        }
    }

    fn snapshot(&self, binds: Vec<BindSnapshot>, now: Instant) -> ListenSnapshot {
        let tally = &self.tally;
        let mut snapshot = ListenSnapshot {
            name: self.spec.name.clone(),
            binds,
            mode: self.spec.mode,
            balance: self.spec.balance,
            sessions: tally.sessions.now(),
            sessions_high: tally.sessions.high(),
            sessions_max: self.spec.connections_max,
            sessions_total: tally.total.get(),
            bytes_in: tally.bytes_in.get(),
            bytes_out: tally.bytes_out.get(),
            refused: tally.refused.get(),
            unserved: tally.unserved.get(),
            servers: self.servers.iter().map(|one| one.snapshot(now)).collect(),
            http: None,
        };
        match self.spec.mode {
            Mode::Tcp => {}
            Mode::Http => {
                let servers = self.servers.iter();
                snapshot.count_requests(HttpCounts {
                    frontend: Arc::clone(&self.frontend),
                    counts: Arc::clone(&self.counts),
                    servers: servers.map(|one| Arc::clone(&one.state)).collect(),
                });
            }
        }
        snapshot
    }
}

/// Whether settings may still change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settings {
    Followed,
    /// Who could change them is gone.
    Final,
}

fn find<'a>(
    listens: &'a mut BTreeMap<ListenName, Listen>,
    at: &ServerAt,
) -> Option<&'a mut Served> {
    let servers = &mut listens.get_mut(&at.listen)?.servers;
    servers.iter_mut().find(|one| one.spec.name == at.server)
}

impl Served {
    /// A server of `listen` that is known since now, of which so many workers count.
    fn new(
        listen: &ListenSpec,
        spec: &ServerSpec,
        (now, workers): (Instant, usize),
        all: &CancellationToken,
    ) -> Self {
        let at = ServerAt {
            listen: listen.name.clone(),
            server: spec.name.clone(),
        };
        Self {
            tally: Arc::new(ServerTally::new(spec.name.clone(), spec.address)),
            state: Arc::new(EndpointState::of_server(at, spec.address, workers)),
            machine: Server::new(listen.check.as_ref(), now),
            spec: spec.clone(),
            weight: None,
            report: None,
            cut: all.child_token(),
        }
    }

    /// Ends its sessions and requests of now; those to come have another token, and another state.
    fn cut_sessions(&mut self, all: &CancellationToken) {
        let cut = std::mem::replace(&mut self.cut, all.child_token());
        cut.cancel();
        self.tally.cut.add(self.state.in_flight().into());
        self.state.give_up();
        self.state = Arc::new(self.state.again());
    }

    /// What it is to the workers in HTTP mode; `None`: it gets no requests.
    fn endpoint(&self) -> Option<TableEndpoint> {
        let weight = NonZeroU32::new(self.weight().into())?;
        self.machine.standing().takes_new().then(|| TableEndpoint {
            state: Arc::clone(&self.state),
            health: EndpointHealth::Passing,
            version: Version::FIRST,
            // By its name, so that clients by source come to the same server after a restart.
            handle: Some(Handle(Candidate::key_of(self.spec.name.as_str()))),
            intake: Intake::default(),
            role: Role {
                weight,
                rank: self.spec.rank,
                most: self.spec.connections_max,
            },
        })
    }

    fn which(&self, listen: &ListenName) -> Which {
        (listen.clone(), self.spec.name.clone(), self.spec.address)
    }

    /// What an operator set of it.
    fn set(&self) -> Set {
        Set {
            wanted: self.machine.wanted(),
            weight: self.weight,
        }
    }

    fn weight(&self) -> u16 {
        self.weight.unwrap_or(self.spec.weight)
    }

    fn for_roster(&self) -> RosterServer {
        RosterServer {
            tally: Arc::clone(&self.tally),
            weight: self.weight(),
            rank: self.spec.rank,
            sessions_max: self.spec.connections_max,
            standing: self.machine.standing(),
            rose: self.machine.rose_at(),
            cut: self.cut.clone(),
        }
    }

    fn snapshot(&self, now: Instant) -> ServerSnapshot {
        let tally = &self.tally;
        let unchanged_for = now.since(self.machine.changed_at());
        let mut changed = wall_clock();
        let ago = u64::try_from(unchanged_for.as_millis()).unwrap_or(u64::MAX);
        changed.0 = changed.0.saturating_sub(ago);
        ServerSnapshot {
            name: self.spec.name.clone(),
            address: self.spec.address,
            standing: self.machine.standing(),
            wanted: self.machine.wanted(),
            rank: self.spec.rank,
            weight: self.weight(),
            sessions: tally.sessions.now(),
            sessions_high: tally.sessions.high(),
            sessions_max: self.spec.connections_max.map(std::num::NonZeroU32::get),
            sessions_total: tally.total.get(),
            bytes_in: tally.bytes_in.get(),
            bytes_out: tally.bytes_out.get(),
            connect_errors: tally.connect_errors.get(),
            retries: tally.retries.get(),
            redispatches: tally.redispatches.get(),
            cut: tally.cut.get(),
            check: self.report.clone(),
            falls: self.machine.falls(),
            downtime: self.machine.downtime(now),
            unchanged_for,
            changed,
        }
    }
}
