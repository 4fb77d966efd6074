//! A worker: one thread with one runtime, its own sockets, connections and pool.

mod leaving;

use std::cell::{Cell, RefCell, RefMut};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mainstay_control::balance::{IdempotencyKey, LineBounds, Policy, RetryBudget, Retrying};
use mainstay_ids::Instant;
use mainstay_kernel::pulse::Beater;
use mainstay_model::gateway::{GatewayLimits, GatewaySettings};
use mainstay_model::listen::Trusted;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet, spawn_local};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::access_log::{Line, LogBuffer};
use crate::admission::{Admission, Place};
use crate::caller;
use crate::clock::Clock;
use crate::connection::{self, Arrival, Client, Scope};
use crate::leave::{Ears, GuestList, Leaving, Wish};
use crate::limits::{ACCEPT_PAUSE, BEAT_EVERY, SWEEP_EVERY};
use crate::listen::{self, Seat, ServerAt};
use crate::metrics::{Denied, FrontendCounts, FrontendKey, GatewayCounters};
use crate::policy::{Usual, part_of_line};
use crate::request_id::RequestIds;
use crate::table::{Serial, Table};
use crate::view::{Deaths, View};
use crate::wire::Buffers;
use crate::{Retries, Seams, Verdicts, door, sockets};

/// Which worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WorkerIndex(pub(crate) usize);

/// A worker's word that it chooses by this table, or a newer one, from now on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Applied {
    pub(crate) worker: WorkerIndex,
    pub(crate) serial: Serial,
}

/// What the coordinator orders beside tables.
#[derive(Debug)]
pub(crate) enum Order {
    /// Accept on a service's own address, too.
    Listen(SocketAddr, StdListener),
    /// No longer.
    Unlisten(SocketAddr),
}

/// Everything that a worker's thread is given.
pub(crate) struct Setup {
    pub(crate) index: WorkerIndex,
    /// How many there are.
    pub(crate) workers: usize,
    pub(crate) clock: Clock,
    pub(crate) entry: StdListener,
    pub(crate) tables: watch::Receiver<Arc<Table>>,
    pub(crate) orders: mpsc::Receiver<Order>,
    /// Its part of the listeners for servers that were not started here.
    pub(crate) listens: Seat,
    pub(crate) applied: mpsc::Sender<Applied>,
    pub(crate) counters: Arc<GatewayCounters>,
    pub(crate) log: Option<LogBuffer>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) seams: Seams,
    pub(crate) settings: watch::Receiver<Arc<GatewaySettings>>,
    /// How long requests in flight may take once the worker is told to stop.
    pub(crate) drain: Duration,
    /// With which it says that it goes on.
    pub(crate) beater: Option<Beater>,
    /// By which it hears that an address is to be left.
    pub(crate) ears: Ears,
    pub(crate) stop: CancellationToken,
}

pub(crate) use leaving::Hosted;

/// What all requests of one worker share. Lives in one thread; every borrow ends before an await.
pub(crate) struct Worker {
    pub(crate) clock: Clock,
    now: Cell<Instant>,
    pub(crate) ids: RequestIds,
    pub(crate) buffers: Buffers,
    pub(crate) counters: Arc<GatewayCounters>,
    pub(crate) seams: Seams,
    workers: usize,
    admission: Arc<Admission>,
    limits: Cell<GatewayLimits>,
    view: RefCell<Rc<View>>,
    /// For the field `Date`, made once a second.
    date: RefCell<(u64, Bytes)>,
    /// Wakes requests that wait for another table.
    pub(crate) table_changed: Notify,
    log: RefCell<Option<LogBuffer>>,
    clients: RefCell<Vec<Rc<Client>>>,
    /// Wakes who waits for a connection to end.
    client_left: Notify,
    stage: Cell<Stage>,
    random: RefCell<fastrand::Rng>,
    budget: RefCell<RetryBudget>,
    /// Where failed connections to servers of listeners are told.
    failures: mpsc::Sender<ServerAt>,
    /// Who must say for whom it connects to the entry.
    trusted: RefCell<Option<Rc<Trusted>>>,
    /// Connections that proxies make, also those of which nobody knows yet whose they are.
    arriving: Cell<usize>,
    /// Sessions of listeners.
    guests: GuestList,
    /// The addresses that are being left.
    leaving: RefCell<Option<Leaving>>,
}

/// Whether new connections are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not before there is a table; until then they wait in the kernel's queue.
    Opening,
    Serving,
    Draining,
}

/// Why a worker ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    #[error("cannot make a runtime")]
    Runtime(#[source] io::Error),
    #[error("cannot accept on a listening socket")]
    Listener(#[source] io::Error),
    #[error("it panicked")]
    Panicked,
    #[error("an accepting task ended")]
    Acceptor,
}

impl Worker {
    /// The table by which to choose now. Ask again after each await.
    pub(crate) fn view(&self) -> Rc<View> {
        Rc::clone(&self.view.borrow())
    }

    /// Writes a line of the access log, if there is one.
    pub(crate) fn log<'a>(&self, line: impl FnOnce() -> Line<'a>) {
        if let Some(log) = &mut *self.log.borrow_mut() {
            log.push(&line());
        }
    }

    /// What is allowed at this moment.
    pub(crate) fn limits(&self) -> GatewayLimits {
        self.limits.get()
    }

    /// Takes a connection, or a stream of one, into the list until the guard is dropped.
    pub(crate) fn admit(&self, client: &Rc<Client>) -> Admitted {
        let mut clients = self.clients.borrow_mut();
        client.place.set(clients.len());
        clients.push(Rc::clone(client));
        if self.stage.get() == Stage::Draining {
            client.finish_up();
        }
        Admitted(Rc::clone(client))
    }

    /// An evenly distributed number.
    pub(crate) fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    /// An evenly distributed number in 0..1.
    pub(crate) fn fraction(&self) -> f64 {
        self.random.borrow_mut().f64()
    }

    /// What time it is, as RFC 9110, 5.6.7 writes it.
    pub(crate) fn date(&self) -> Bytes {
        let mut date = self.date.borrow_mut();
        let second = self.now().since_start().as_secs() + 1;
        if date.0 != second {
            let now = std::time::SystemTime::now();
            *date = (second, Bytes::from(httpdate::fmt_http_date(now)));
        }
        date.1.clone()
    }

    /// When the present step of the present task began, by which all of it is decided and measured:
    /// to ask the clock at each place would be a good part of a step. Only for what runs
    /// [`Self::in_steps`].
    pub(crate) fn now(&self) -> Instant {
        self.now.get()
    }

    fn begin_step(&self) {
        self.now.set(self.clock.now());
    }

    /// Runs a task of a client, each of whose steps has its time.
    pub(crate) async fn in_steps<T>(self: Rc<Self>, task: impl Future<Output = T>) -> T {
        let mut task = pin!(task);
        poll_fn(|cx| {
            self.begin_step();
            task.as_mut().poll(cx)
        })
        .await
    }

    /// What may be sent again, or a second time.
    pub(crate) fn budget(&self) -> RefMut<'_, RetryBudget> {
        self.budget.borrow_mut()
    }

    /// How services fail, as long as they do not say otherwise.
    fn usual(&self) -> Usual {
        let (limits, workers) = (self.limits(), self.workers);
        let policy = Policy {
            retrying: match self.seams.retries {
                Retries::On => Retrying::On,
                Retries::Off => Retrying::Off,
            },
            hedging: self.seams.hedging,
            patience: self.seams.patience,
            limiting: self.seams.limiting,
            key: IdempotencyKey::Ignored,
            most: None,
            line: LineBounds {
                len: part_of_line(limits.queue_len, workers),
                time: limits.queue_time,
            },
        };
        Usual { policy, workers }
    }

    fn apply(&self, table: Arc<Table>) -> Serial {
        let serial = table.serial;
        let listens = Arc::clone(self.view().listens());
        self.look(table, listens);
        match self.stage.get() {
            Stage::Opening => self.stage.set(Stage::Serving),
            Stage::Serving | Stage::Draining => {}
        }
        // Whoever waited for the first table accepts from now on.
        self.table_changed.notify_waiters();
        serial
    }

    /// Takes over other servers of listeners. Whose listener is gone is served no more.
    pub(crate) fn apply_listens(&self, listens: Arc<listen::Roster>) {
        let view = self.view();
        if !listens.has_http() && !view.listens().has_http() {
            return;
        }
        self.look(Arc::clone(view.table()), listens);
        let view = self.view();
        for client in &*self.clients.borrow() {
            if !view.serves(client.scope) {
                client.finish_up();
            }
        }
    }

    /// Chooses by these from now on.
    fn look(&self, table: Arc<Table>, listens: Arc<listen::Roster>) {
        let next = self.view().next(table, listens, self.clock, self.usual());
        let deaths = next.deaths();
        self.view.replace(Rc::new(next));
        self.table_changed.notify_waiters();
        match (deaths, self.seams.verdicts) {
            (Deaths::Some, Verdicts::Heeded) => {
                // Whoever waits for a dead instance looks at it now.
                for client in &*self.clients.borrow() {
                    client.wake();
                }
            }
            (Deaths::Some, Verdicts::Ignored) | (Deaths::None, _) => {}
        }
    }

    /// Waits until there is room for one more connection of a client at all.
    pub(crate) async fn await_room(&self, frontend: &FrontendCounts) {
        if self.admission.has_room(&self.limits()) {
            return;
        }
        // Those that wait in the kernel's queue are not seen: what is counted is that they have to.
        frontend.denied.count(Denied::Connections);
        while !self.admission.has_room(&self.limits()) {
            // Another worker's connection may be the one that ends.
            timeout(ACCEPT_PAUSE, self.client_left.notified())
                .await
                .ok();
        }
    }

    /// A place for a connection, whoever it is from.
    pub(crate) fn begin(&self) -> Place {
        self.admission.begin()
    }

    /// The same place for this client, unless its address has all that it may have.
    pub(crate) fn settle(
        &self,
        place: Place,
        client: IpAddr,
        frontend: &FrontendCounts,
    ) -> Option<Place> {
        let place = place.settle(client, &self.limits());
        if place.is_err() {
            frontend.denied.count(Denied::ConnectionsPerAddress);
        }
        place.ok()
    }

    /// Who must say for whom it connects, on such a socket.
    fn trusted(&self, scope: Scope) -> Option<Rc<Trusted>> {
        match scope {
            Scope::Entry => self.trusted.borrow().clone(),
            // Between the processes of this machine there is no proxy, and listeners have their own.
            Scope::Address(_) | Scope::Listen(_) => None,
        }
    }

    /// Tells the listeners that a connection to a server failed, unless they have enough to do.
    pub(crate) fn tell_failure(&self, at: &ServerAt) {
        self.failures.try_send(at.clone()).ok();
    }

    pub(crate) fn sweep(&self) {
        self.begin_step();
        let now = self.now();
        for client in &*self.clients.borrow() {
            client.sweep(now);
        }
        self.view().sweep();
        if let Some(log) = &mut *self.log.borrow_mut() {
            log.flush(now);
        }
    }

    fn drain(&self) {
        self.stage.set(Stage::Draining);
        for client in &*self.clients.borrow() {
            client.finish_up();
        }
    }

    fn has_clients(&self) -> bool {
        !self.clients.borrow().is_empty() || self.arriving.get() > 0
    }

    /// Keeps changed settings from now on.
    fn keep(&self, settings: &GatewaySettings) {
        self.limits.set(settings.limits);
        self.trusted
            .replace(settings.accept_proxy.clone().map(Rc::new));
    }
}

/// A connection that a proxy makes, from before anybody knows whose it is to its end.
struct Arriving(Rc<Worker>);

impl Arriving {
    fn begin(worker: &Rc<Worker>) -> Self {
        worker.arriving.set(worker.arriving.get() + 1);
        Self(Rc::clone(worker))
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.0.arriving.set(self.0.arriving.get() - 1);
        self.0.client_left.notify_one();
    }
}

/// A connection in a worker's list.
pub(crate) struct Admitted(Rc<Client>);

impl Drop for Admitted {
    fn drop(&mut self) {
        let worker = &self.0.worker;
        let mut clients = worker.clients.borrow_mut();
        let place = self.0.place.get();
        clients.swap_remove(place);
        if let Some(moved) = clients.get(place) {
            moved.place.set(place);
        }
        worker.client_left.notify_one();
    }
}

/// Runs a worker in this thread until it is told to stop and has drained.
pub(crate) fn run(setup: Setup) -> Result<(), WorkerError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build_local(tokio::runtime::LocalOptions::default())
        .map_err(WorkerError::Runtime)?;
    runtime.block_on(serve(setup))
}

impl Worker {
    fn new(setup: &mut Setup) -> Self {
        let table = Arc::clone(&setup.tables.borrow());
        Self {
            clock: setup.clock,
            now: Cell::new(setup.clock.now()),
            ids: RequestIds::new(setup.seams.request_ids),
            buffers: Buffers::default(),
            date: RefCell::default(),
            counters: Arc::clone(&setup.counters),
            seams: setup.seams,
            workers: setup.workers,
            admission: Arc::clone(&setup.admission),
            limits: Cell::default(),
            view: RefCell::new(Rc::new(View::empty(table))),
            table_changed: Notify::new(),
            log: RefCell::new(setup.log.take()),
            clients: RefCell::new(Vec::new()),
            client_left: Notify::new(),
            stage: Cell::new(Stage::Opening),
            random: RefCell::new(fastrand::Rng::new()),
            budget: RefCell::new(RetryBudget::new(setup.clock.now())),
            failures: setup.listens.failures.clone(),
            trusted: RefCell::default(),
            arriving: Cell::new(0),
            guests: GuestList::default(),
            leaving: RefCell::default(),
        }
    }
}

#[cfg(any(test, feature = "driven"))]
impl Worker {
    /// One that nobody but the caller knows, with these routes in force.
    pub(crate) fn alone(
        routing: &mainstay_model::Routing,
        limits: GatewayLimits,
        seams: Seams,
    ) -> Rc<Self> {
        use crate::endpoint::Registry;
        let clock = Clock::start();
        let mut registry = Registry::new(Arc::default(), 1);
        let table = Table::build(routing, Serial::default().next(), &mut registry);
        let table = Arc::new(table);
        let worker = Self {
            clock,
            now: Cell::new(clock.now()),
            ids: RequestIds::new(seams.request_ids),
            buffers: Buffers::default(),
            date: RefCell::default(),
            counters: Arc::new(GatewayCounters::new(1)),
            seams,
            workers: 1,
            admission: Arc::default(),
            limits: Cell::new(limits),
            view: RefCell::new(Rc::new(View::empty(Arc::clone(&table)))),
            table_changed: Notify::new(),
            log: RefCell::default(),
            clients: RefCell::default(),
            client_left: Notify::new(),
            stage: Cell::new(Stage::Opening),
            random: RefCell::new(fastrand::Rng::with_seed(0)),
            budget: RefCell::new(RetryBudget::new(clock.now())),
            failures: mpsc::channel(1).0,
            trusted: RefCell::default(),
            arriving: Cell::new(0),
            guests: GuestList::default(),
            leaving: RefCell::default(),
        };
        worker.apply(table);
        Rc::new(worker)
    }

    /// Serves a connection as if it had come in at the entry.
    pub(crate) async fn serve_one(self: Rc<Self>, stream: tokio::net::TcpStream, peer: SocketAddr) {
        let frontend = self.counters.frontend(FrontendKey::Entry);
        let Some(place) = self.settle(self.begin(), peer.ip(), &frontend) else {
            return;
        };
        let arrival = Arrival {
            stream,
            client: peer,
            early: Vec::new(),
            scope: Scope::Entry,
            open: frontend.open(),
        };
        let talk = connection::serve(place, Rc::clone(&self), arrival);
        self.in_steps(talk).await;
    }
}

async fn serve(mut setup: Setup) -> Result<(), WorkerError> {
    let worker = Rc::new(Worker::new(&mut setup));
    worker.keep(&setup.settings.borrow_and_update());
    let mut acceptors = Acceptors::new(Rc::clone(&worker));
    acceptors.add(FrontendKey::Entry, setup.entry)?;
    let (mut tables, mut orders, mut settings) = (setup.tables, setup.orders, setup.settings);
    let mut ears = setup.ears;
    let mut sweep = interval(SWEEP_EVERY);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heart = Heart::new(setup.beater);
    let mut deadline = None;
    // Ends by the same token as this; joined below.
    let mut listens = spawn_local(setup.listens.run(Some(Rc::clone(&worker))));
    while deadline.is_none() || worker.has_clients() || !listens.is_finished() {
        tokio::select! {
            () = setup.stop.cancelled(), if deadline.is_none() => {
                acceptors.end();
                heart.leave();
                worker.drain();
                deadline = Some(tokio::time::Instant::now() + setup.drain);
            }
            () = until(deadline), if deadline.is_some() => {
                let connections = worker.clients.borrow().len();
                tracing::warn!(connections, "connections were cut at the end of the drain time");
                break;
            }
            changed = tables.changed() => {
                // The coordinator is gone: so is everything that could still tell us to stop.
                if changed.is_err() {
                    break;
                }
                let table = Arc::clone(&tables.borrow_and_update());
                let applied = Applied { worker: setup.index, serial: worker.apply(table) };
                if setup.applied.send(applied).await.is_err() {
                    break;
                }
            }
            Ok(()) = settings.changed() => {
                worker.keep(&settings.borrow_and_update());
            }
            Some(order) = orders.recv() => match order {
                Order::Listen(address, listener) if deadline.is_none() => {
                    acceptors.add(FrontendKey::Address(address), listener)?;
                }
                Order::Listen(..) => {}
                Order::Unlisten(address) => {
                    acceptors.remove(&FrontendKey::Address(address));
                }
            },
            Some(ended) = acceptors.tasks.join_next() => {
                // Accepting never ends by itself: it was removed, or it panicked.
                if !ended.is_err_and(|error| error.is_cancelled()) {
                    return Err(WorkerError::Acceptor);
                }
            }
            ended = &mut listens, if !listens.is_finished() => {
                if ended.is_err() {
                    return Err(WorkerError::Acceptor);
                }
            }
            () = worker.client_left.notified(), if deadline.is_some() => {}
            wish = worker.next_wish(&mut ears) => acceptors.follow(wish, &ears),
            _ = sweep.tick() => worker.sweep(),
            () = heart.beat() => {}
        }
    }
    Ok(())
}

/// Says now and then that this thread goes on, if anybody wants to know.
struct Heart {
    beater: Option<Beater>,
    due: Interval,
}

impl Heart {
    fn new(beater: Option<Beater>) -> Self {
        let mut due = interval(BEAT_EVERY);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { beater, due }
    }

    /// Beats when it is due.
    async fn beat(&mut self) {
        match &mut self.beater {
            Some(beater) => {
                self.due.tick().await;
                beater.beat();
            }
            None => std::future::pending().await,
        }
    }

    /// Nothing new is taken any more.
    fn leave(&mut self) {
        // Its end says so.
        self.beater = None;
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The tasks that accept connections, one per listening socket.
struct Acceptors {
    worker: Rc<Worker>,
    tasks: JoinSet<()>,
    handles: HashMap<FrontendKey, Vec<AbortHandle>>,
    /// The entry's, at which addresses that may leave are reached.
    entry: Option<StdListener>,
}

impl Acceptors {
    fn new(worker: Rc<Worker>) -> Self {
        Self {
            worker,
            tasks: JoinSet::new(),
            handles: HashMap::new(),
            entry: None,
        }
    }

    fn add(&mut self, key: FrontendKey, listener: StdListener) -> Result<(), WorkerError> {
        sockets::prepare(&listener).map_err(WorkerError::Listener)?;
        if key == FrontendKey::Entry {
            self.entry = Some(listener.try_clone().map_err(WorkerError::Listener)?);
        }
        let listener = TcpListener::from_std(listener).map_err(WorkerError::Listener)?;
        let worker = Rc::clone(&self.worker);
        let frontend = worker.counters.frontend(key.clone());
        let scope = Scope::of(&key);
        let task = self
            .tasks
            .spawn_local(accept(worker, listener, scope, frontend));
        self.handles.entry(key).or_default().push(task);
        Ok(())
    }

    fn remove(&mut self, key: &FrontendKey) {
        for handle in self.handles.remove(key).into_iter().flatten() {
            handle.abort();
        }
    }

    /// Does what is wanted at addresses that may be left; without a wish, looks who has gone.
    fn follow(&self, wish: Option<Wish>, ears: &Ears) {
        if let Some(wish) = wish {
            if let Some(entry) = &self.entry {
                door::heed(&SockRef::from(entry), &wish);
            }
            self.worker.heed(&wish);
        }
        self.worker.look_who_left(&ears.reports);
    }

    fn end(&mut self) {
        self.handles.clear();
        self.entry = None;
        self.tasks.abort_all();
    }
}

async fn accept(
    worker: Rc<Worker>,
    listener: TcpListener,
    scope: Scope,
    frontend: Arc<FrontendCounts>,
) {
    let mut told = Told::Nothing;
    while worker.stage.get() == Stage::Opening {
        worker.table_changed.notified().await;
    }
    loop {
        worker.await_room(&frontend).await;
        match listener.accept().await {
            Ok((stream, peer)) => {
                told = Told::Nothing;
                let place = worker.begin();
                // Nobody joins either: their end is that of a guard, by which the drain waits. A
                // panic ends this connection alone.
                if let Some(trusted) = worker.trusted(scope) {
                    let introduced = introduce(
                        (place, Arriving::begin(&worker)),
                        trusted,
                        (stream, peer),
                        scope,
                        Arc::clone(&frontend),
                    );
                    spawn_local(introduced);
                    continue;
                }
                let Some(place) = worker.settle(place, peer.ip(), &frontend) else {
                    continue;
                };
                let arrival = Arrival {
                    stream,
                    client: peer,
                    early: Vec::new(),
                    scope,
                    open: frontend.open(),
                };
                let talk = connection::serve(place, Rc::clone(&worker), arrival);
                spawn_local(Rc::clone(&worker).in_steps(talk));
            }
            Err(error) if is_the_peers(&error) => {}
            Err(error) => {
                if told == Told::Nothing {
                    tracing::warn!(%error, ?scope, "cannot accept connections; they wait");
                }
                told = Told::Trouble;
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Learns from a proxy whose connection it is, and serves it.
async fn introduce(
    (place, arriving): (Place, Arriving),
    trusted: Rc<Trusted>,
    (mut stream, peer): (TcpStream, SocketAddr),
    scope: Scope,
    frontend: Arc<FrontendCounts>,
) {
    let worker = Rc::clone(&arriving.0);
    let identified = caller::identify(Some(trusted.networks()), &mut stream, peer);
    let (caller, early) = match Box::pin(identified).await {
        Ok(identified) => identified,
        Err(error) => {
            frontend.denied.count(Denied::Proxy);
            let error = &error as &dyn std::error::Error;
            tracing::debug!(%peer, error, "a connection was refused");
            return;
        }
    };
    let Some(place) = worker.settle(place, caller.client.ip(), &frontend) else {
        return;
    };
    let arrival = Arrival {
        stream,
        client: caller.client,
        early,
        scope,
        open: frontend.open(),
    };
    let talk = connection::serve(place, Rc::clone(&worker), arrival);
    worker.in_steps(talk).await;
    drop(arriving);
}

/// Whether the present trouble has been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Trouble,
}

/// Whether accept failed because of the one connection that was to be accepted.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
