//! The gateway: the HTTP entry to all services. It finds the service of a request by host and path,
//! chooses an instance, sends the request there, and sends it again elsewhere when that is safe.
//!
//! It is not a cache, not a web server and not a place for policy: what is routed where is the
//! control centre's decision, how endpoints are weighed and what may be retried is decided in
//! `mainstay_control::balance`. It never reads the store. It goes on with the last good routes when
//! the control centre is away.
//!
//! # Threads, tasks and channels
//!
//! ```text
//!  control centre                    the thread that called run()          N worker threads
//!  ┌────────────┐  NDJSON  ┌──────┐ Routing ┌─────────────┐ watch<Arc<Table>> ┌────────────────────┐
//!  │ watch      ├─────────►│ link ├────────►│ coordinator ├──────────────────►│ apply: new View,   │
//!  │ routes     │          │ task │         │   Ledger    │ Order (listen)    │ purge the pool     │
//!  │ consumers/ │◄─────────┤      │◄────────┤   Addresses ├──────────────────►│                    │
//!  │ ack        │   POST   └──────┘   Ack   │   RoutesFile│◄──────────────────┤                    │
//!  └────────────┘                           └─────▲───────┘ Applied           │ accept task per    │
//!                                                 │ Notify: in flight = 0     │ listening socket   │
//!                                                 └───────────────────────────┤  └ a task per      │
//!   access-log thread ◄──── buffers of lines (bounded, dropped when full) ────┤    connection      │
//!                                                                             └────────────────────┘
//! ```
//!
//! A worker is one thread with a current-thread runtime, one SO_REUSEPORT socket per address, its
//! own connections to instances. Within a worker nothing is locked. Between workers are shared only
//! the table (never changed after it was built) and, per endpoint, a few atomics.
//!
//! A request is served in the task of its client's connection from its head to its end; whoever
//! waits for the instance drives the connection to it. There is no task per request and none per
//! pooled connection, and an idle connection has no buffer.
//!
//! # Why a removed instance gets no request
//!
//! Choosing an endpoint and counting the request in flight happen without an await between them,
//! and each try, the first and each retry, chooses by the worker's current view. So once a worker
//! has said `Applied`, it can begin nothing new at an endpoint that the table does not name; what
//! it began before is in the shared count. When all workers have said so, the generation is
//! acknowledged together with those counts.
//!
//! A successor of this process must not send there either. So the acknowledgement also waits until
//! the state is stored, or the file of an older one is gone; workers do not. At a farewell the file
//! is removed: nobody waits for the successor then, and instances may go.
//!
//! Reading order: [`run`], `table` and `endpoint` (what is shared), `ledger` and `coordinator`,
//! `view` and `worker`, then the way of a request: `connection`, `inbound`, `proxy`, `errand`,
//! `exchange`, `early`, `answer`, `delivery`, `tunnel`; `leave` is how an address is left that moves to another machine.

mod access_log;
mod addresses;
mod admission;
mod answer;
mod cache;
mod caller;
mod clock;
mod connection;
mod coordinator;
mod delivery;
mod door;
#[cfg(any(test, feature = "driven"))]
pub mod driven;
mod early;
mod endpoint;
mod errand;
mod exchange;
mod flood;
mod forwarded;
mod headers;
mod http2;
mod inbound;
mod leave;
mod ledger;
mod limits;
pub mod listen;
mod matching;
mod metrics;
mod policy;
mod proxy;
pub mod proxy_protocol;
mod refusal;
mod request_id;
mod rewrite;
mod roster;
mod seams;
pub mod settings;
mod sockets;
mod stats;
mod table;
mod tunnel;
mod upstream;
mod view;
mod wire;
mod worker;

pub use cache::forget_routes;

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mainstay_api::client::Client;
use mainstay_api::consumer;
pub use mainstay_control::balance::{Hedging, Limiting, Patience};
use mainstay_ids::ConsumerId;
use mainstay_kernel::hand::Offer;
use mainstay_kernel::pulse::Pulse;
use mainstay_model::gateway::GatewaySettings;
use mainstay_model::{Ack, Routing};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use crate::stats::{OpenToAll, Stats, StatsAuth, StatsError};

use crate::access_log::{AccessLog, LogBuffer, LogSwitch};
use crate::addresses::{Addresses, Heritage};
use crate::admission::Admission;
use crate::cache::{Left, RoutesFile};
use crate::clock::Clock;
use crate::coordinator::{Coordinator, Ports};
use crate::leave::{Desk, Ears};
use crate::ledger::Ledger;
use crate::limits::{ACKS, APPLIED_PER_WORKER, ORDERS, ROUTINGS};
use crate::listen::Listens;
use crate::metrics::GatewayCounters;
use crate::roster::Roster;
use crate::stats::{Display, Shown};
use crate::table::Table;
use crate::worker::{Applied, Order, Setup, WorkerError, WorkerIndex};

/// How the gateway is to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The state directory; `gateway/routes.json` is kept in it.
    pub state: PathBuf,
    /// The control centre's unix socket.
    pub api: PathBuf,
    /// As whom it acknowledges.
    pub consumer: ConsumerId,
    /// Where the access log goes, while the settings want one.
    pub access_log: AccessLogTo,
    /// What may change while it runs.
    pub settings: watch::Receiver<Arc<GatewaySettings>>,
    /// How long what is waited for at the begin and the end may take.
    pub deadlines: Deadlines,
    /// How it takes over from another gateway, and hands over to one.
    pub succession: Succession,
    /// Where its workers say that they go on, for whoever holds an address at which it is reached; `None`: nowhere.
    pub pulse: Option<Pulse>,
    /// Where whoever holds such an address asks that its clients be let go, before it moves; `None`: nowhere.
    pub leave: Option<PathBuf>,
    /// For tests.
    pub seams: Seams,
}

/// How a gateway takes over from another that still runs, and hands over to its own successor.
#[derive(Debug, Clone, Default)]
pub struct Succession {
    /// What it begins with.
    pub beginning: Beginning,
    /// Where the sockets of service addresses and of listeners are asked for, before new ones are
    /// made.
    pub elder: Option<PathBuf>,
    /// Where its own sockets of service addresses and of listeners are offered.
    pub offer: Offer,
    /// Cancelled when every worker has routes and accepts.
    pub serves: CancellationToken,
}

/// The routes with which a gateway begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Beginning {
    /// Those that it stored, if no live ones come within [`Deadlines::first_routes`].
    #[default]
    WithStored,
    /// Live ones alone. Who takes over must be known to the control centre before it sends to
    /// anybody: what its elder acknowledges then does not speak for it.
    WithLive,
}

/// How long the gateway waits for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For the requests in flight to end, once the gateway is told to stop.
    pub drain: Duration,
    /// For the control centre to tell the first routes, before the stored ones are used.
    pub first_routes: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            drain: limits::DRAIN_TIME,
            first_routes: limits::FIRST_ROUTES_TIME,
        }
    }
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogTo {
    /// Nowhere.
    Off,
    /// To this file.
    File(PathBuf),
}

/// What tests and benches can switch off, to show that it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seams {
    /// Whether requests are sent again.
    pub retries: Retries,
    /// By which table a retry chooses.
    pub retry_routes: RetryRoutes,
    /// Whether a late request is sent a second time.
    pub hedging: Hedging,
    /// Whether a second endpoint is tried while a connection does not come about.
    pub patience: Patience,
    /// Whether instances are held to what they can do at once.
    pub limiting: Limiting,
    /// Whether the control centre's word that an instance is dead ends what is under way to it.
    pub verdicts: Verdicts,
    /// Whether requests get ids.
    pub request_ids: Ids,
    /// Whence a successor has the sockets of listeners.
    pub listen_sockets: ListenSockets,
    /// Whether workers say that they go on.
    pub beats: Beats,
    /// Whether clients are let go before an address moves.
    pub leaving: LeavingSeam,
}

/// Whether clients of an address are let go before it moves, which is for who makes [`Options::leave`] to heed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LeavingSeam {
    /// They are.
    #[default]
    On,
    /// What is under way is lost.
    Off,
}

/// Whether workers say that they go on, which is for who makes [`Options::pulse`] to heed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Beats {
    /// They do.
    #[default]
    On,
    /// Nobody learns that one hangs.
    Off,
}

/// Whence a gateway that takes over has the sockets of `[listen.NAME]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListenSockets {
    /// From the one that it replaces.
    #[default]
    TakenOver,
    /// It binds its own when the old ones are closed, which costs sessions.
    Own,
}

/// Whether requests get ids, in both directions and in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ids {
    /// Each has one: its own if it brought a sane one.
    #[default]
    On,
    /// None, and one that it brought is not carried on: only to measure what ids cost.
    Off,
}

/// Whether a verdict of death is heeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verdicts {
    /// It ends what is under way.
    #[default]
    Heeded,
    /// Requests wait until their connection breaks.
    Ignored,
}

/// Whether requests are sent again, or wait for an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Retries {
    /// As far as it is safe.
    #[default]
    On,
    /// Never.
    Off,
}

/// By which table a retry chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RetryRoutes {
    /// By the current one.
    #[default]
    Reread,
    /// By that of the request's first try, which breaks the drain.
    Keep,
}

/// The listening sockets that the supervisor holds.
#[derive(Debug)]
pub struct Sockets {
    /// One SO_REUSEPORT socket of the entry for each worker; their number is that of the workers.
    pub entry: Vec<TcpListener>,
    /// Where statistics are shown, if they are.
    pub stats: Option<Stats>,
}

/// The way to the control centre, as channels: what [`run`] makes of the API socket, and what a
/// test holds the other ends of.
#[derive(Debug)]
pub struct Link {
    /// Published states.
    pub routings: mpsc::Receiver<Routing>,
    /// Acknowledgements. When it is full they are dropped: each repeats all that matters.
    pub acks: mpsc::Sender<Ack>,
}

/// Why the gateway ended, or could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing to listen on.
    #[error("the gateway was given no listening socket")]
    NoSockets,
    /// The coordinator's runtime cannot be made.
    #[error("cannot make the gateway's runtime")]
    Runtime(#[source] io::Error),
    /// The directory for the routes cannot be made.
    #[error("cannot make the directory `gateway` in `{state}`")]
    State {
        /// The state directory.
        state: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The access log cannot be opened.
    #[error("cannot open the access log `{path}`")]
    AccessLog {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Statistics cannot be shown.
    #[error(transparent)]
    Stats(#[from] StatsError),
    /// A worker's thread cannot be started.
    #[error("cannot start a worker's thread")]
    Thread(#[source] io::Error),
    /// A worker ended although nobody told it to.
    #[error("a worker ended: {0}")]
    Worker(String),
}

/// Runs the gateway in this thread and one more per socket, until `stop` and the end of the
/// requests that are in flight then.
#[expect(
    clippy::needless_pass_by_value,
    reason = "all drivers are run in the same shape"
)]
pub fn run(options: Options, sockets: Sockets, stop: CancellationToken) -> Result<(), Error> {
    let runtime = runtime()?;
    let (to_coordinator, routings) = mpsc::channel(ROUTINGS);
    let (acks, from_coordinator) = mpsc::channel(ACKS);
    let client = Client::unix(&options.api);
    let consumer = options.consumer.clone();
    // Joined below: it ends when the coordinator closes the acknowledgements.
    let mut link = runtime.spawn(consumer::run(
        client.clone(),
        consumer.clone(),
        to_coordinator,
        from_coordinator,
    ));
    let ended = serve(&runtime, options, sockets, Link { routings, acks }, &stop);
    match runtime.block_on(async { timeout(consumer::PARTING_TIME, &mut link).await }) {
        Ok(Ok(())) => {}
        Ok(Err(_)) => tracing::error!("the link to the control centre panicked"),
        // An acknowledgement is under way to a control centre that does not answer.
        Err(_) => link.abort(),
    }
    // After a farewell instances are stopped without us: not while a successor might begin with
    // routes to them. Without one, the control centre waits for it, or for the lease.
    if matches!(ended, Ok(Left::NoRoutes)) {
        runtime.block_on(consumer::say_farewell(&client, consumer));
    }
    // Not dropped, which would wait for a disk that hangs.
    runtime.shutdown_background();
    ended.map(drop)
}

/// [`run`] with the control centre's side in the caller's hands.
#[expect(
    clippy::needless_pass_by_value,
    reason = "all drivers are run in the same shape"
)]
pub fn run_linked(
    options: Options,
    sockets: Sockets,
    link: Link,
    stop: CancellationToken,
) -> Result<(), Error> {
    let runtime = runtime()?;
    let ended = serve(&runtime, options, sockets, link, &stop);
    runtime.shutdown_background();
    ended.map(drop)
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(Error::Runtime)
}

fn serve(
    runtime: &tokio::runtime::Runtime,
    options: Options,
    sockets: Sockets,
    link: Link,
    stop: &CancellationToken,
) -> Result<Left, Error> {
    let count = worker_count(&sockets)?;
    let file = routes_file(&options)?;
    let counters = Arc::new(GatewayCounters::new(count));
    let log = open_log(&options.access_log, &counters)?;
    follow_log(runtime, &options, log.as_ref());
    let drained = Arc::new(Notify::new());
    let mut ledger = Ledger::new(options.consumer.clone(), count, Arc::clone(&drained));
    let (tables, table) = watch::channel(Arc::clone(ledger.newest()));
    ledger.start_with(stored(&file));
    let (rosters, roster) = watch::channel(Arc::new(ledger.roster()));
    let (applied_to, applied) = mpsc::channel(APPLIED_PER_WORKER * count);
    let (ended_to, ended) = mpsc::channel(count);
    let stop_workers = stop.child_token();
    let clock = Clock::start();
    let (seats, listens) = start_listens(runtime, &options, (clock, count), &stop_workers);
    let shown = shown(&options, &sockets, &counters, (roster, listens), clock);
    let display = sockets.stats.map(|stats| Display::open(stats, shown, stop));
    let display = display.transpose()?;
    let forwarded = options.settings.borrow().forwarded.clone();
    let ears = start_desk(runtime, options.leave, count, options.deadlines.drain);
    let crew = Crew {
        clock,
        tables: table,
        applied: applied_to,
        ended: ended_to,
        counters: Arc::clone(&counters),
        admission: Arc::default(),
        seams: options.seams,
        settings: options.settings,
        deadlines: options.deadlines,
        pulse: options.pulse,
        ears,
        stop: stop_workers.clone(),
    };
    let (orders, threads) = crew.start(sockets.entry, seats, log.as_ref())?;
    let succession = options.succession;
    let coordinator = Coordinator {
        ledger,
        addresses: Addresses::new(orders, Heritage::of(&succession), forwarded),
        file,
        counters: Arc::clone(&counters),
        workers: count,
        first_routes: first_routes(&succession, &options.deadlines),
        serves: succession.serves,
        stop: stop.clone(),
    };
    let result = runtime.block_on(coordinator.run(Ports {
        routings: link.routings,
        acks: link.acks,
        tables,
        rosters,
        applied,
        drained,
        ended,
    }));
    // If one worker failed, the others end with it: the supervisor starts all anew.
    stop_workers.cancel();
    wind_up(threads, log, display);
    counters.tell();
    result.map_err(|error| Error::Worker(chain(&error)))
}

/// Each socket of the entry has a worker of its own.
fn worker_count(sockets: &Sockets) -> Result<usize, Error> {
    match sockets.entry.len() {
        0 => Err(Error::NoSockets),
        count => Ok(count),
    }
}

/// What there is to be seen.
fn shown(
    options: &Options,
    sockets: &Sockets,
    counters: &Arc<GatewayCounters>,
    (rosters, listens): (watch::Receiver<Arc<Roster>>, listen::Handle),
    clock: Clock,
) -> Shown {
    Shown {
        counters: Arc::clone(counters),
        entry: sockets.entry[0].local_addr().ok(),
        connections_max: options.settings.borrow().limits.connections.into(),
        rosters,
        clock,
        listens,
        centre: Client::unix(&options.api),
    }
}

/// How long live routes are waited for; `None`: for ever.
fn first_routes(succession: &Succession, deadlines: &Deadlines) -> Option<Duration> {
    match succession.beginning {
        Beginning::WithStored => Some(deadlines.first_routes),
        Beginning::WithLive => None,
    }
}

fn routes_file(options: &Options) -> Result<RoutesFile, Error> {
    let file = RoutesFile::in_state(&options.state, &options.consumer.name);
    file.map_err(|source| Error::State {
        state: options.state.clone(),
        source,
    })
}

/// Switches the access log as the settings say.
fn follow_log(runtime: &tokio::runtime::Runtime, options: &Options, log: Option<&AccessLog>) {
    let switch = log.map(AccessLog::switch);
    // Ends with the runtime, or when nobody can change the settings any more.
    runtime.spawn(follow_settings(options.settings.clone(), switch));
}

/// Waits for the ends of all threads.
fn wind_up(threads: Vec<JoinHandle<()>>, log: Option<AccessLog>, display: Option<Display>) {
    for thread in threads {
        // A panic was caught in the thread, and told through `ended`.
        thread.join().ok();
    }
    if let Some(log) = log {
        log.finish();
    }
    if let Some(display) = display {
        display.close();
    }
}

/// Starts who is asked to leave addresses, and gives what its workers hear of it.
fn start_desk(
    runtime: &tokio::runtime::Runtime,
    path: Option<PathBuf>,
    workers: usize,
    drain: Duration,
) -> Ears {
    let (desk, ears) = Desk::new(workers, drain);
    if let Some(path) = path {
        // Ends with the runtime.
        runtime.spawn(desk.run(path));
    }
    ears
}

/// Starts what decides for the listeners; one seat for each of so many workers, and the way to it.
fn start_listens(
    runtime: &tokio::runtime::Runtime,
    options: &Options,
    (clock, workers): (Clock, usize),
    stop: &CancellationToken,
) -> (Vec<listen::Seat>, listen::Handle) {
    let now = listens_of(&options.settings);
    let elder = options.succession.elder.as_deref();
    let elder = elder.filter(|_| options.seams.listen_sockets == ListenSockets::TakenOver);
    let bound = elder.map(|elder| listen::inherit(elder, &now));
    let (listens_to, wanted) = watch::channel(now);
    let listens = Listens::new(
        listen::Options {
            drain: options.deadlines.drain,
            bound: bound.unwrap_or_default(),
            offer: options.succession.offer.clone(),
            keepsake: Some(options.state.join("gateway").join("listeners.json")),
            ..listen::Options::default()
        },
        wanted,
    );
    let handle = listens.handle();
    let (chief, seats) = listens.seats(clock, workers, stop);
    // Both end with the runtime; the seats, which carry the sessions, with their workers.
    runtime.spawn(chief.run());
    runtime.spawn(follow_listens(options.settings.clone(), listens_to));
    (seats, handle)
}

fn listens_of(settings: &watch::Receiver<Arc<GatewaySettings>>) -> listen::Wanted {
    settings.borrow().listens.iter().cloned().collect()
}

/// Hands changed listeners on.
async fn follow_listens(
    mut settings: watch::Receiver<Arc<GatewaySettings>>,
    wanted: watch::Sender<listen::Wanted>,
) {
    loop {
        let newest = settings
            .borrow_and_update()
            .listens
            .iter()
            .cloned()
            .collect();
        wanted.send_if_modified(|before: &mut listen::Wanted| {
            let changed = *before != newest;
            *before = newest;
            changed
        });
        if settings.changed().await.is_err() {
            return;
        }
    }
}

/// Puts changed settings in force.
async fn follow_settings(
    mut settings: watch::Receiver<Arc<GatewaySettings>>,
    log: Option<Arc<LogSwitch>>,
) {
    loop {
        let wanted = settings.borrow_and_update().access_log;
        if let Some(log) = &log {
            log.set(wanted);
        }
        if settings.changed().await.is_err() {
            return;
        }
    }
}

fn stored(file: &RoutesFile) -> Option<Routing> {
    file.load().unwrap_or_else(|error| {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, "the stored routes are not used");
        None
    })
}

fn open_log(to: &AccessLogTo, counters: &Arc<GatewayCounters>) -> Result<Option<AccessLog>, Error> {
    let AccessLogTo::File(path) = to else {
        return Ok(None);
    };
    let log = AccessLog::open(path, Arc::clone(counters));
    log.map(Some).map_err(|source| Error::AccessLog {
        path: path.clone(),
        source,
    })
}

/// What all workers are given alike.
struct Crew {
    clock: Clock,
    tables: watch::Receiver<Arc<Table>>,
    applied: mpsc::Sender<Applied>,
    ended: mpsc::Sender<Result<(), WorkerError>>,
    counters: Arc<GatewayCounters>,
    admission: Arc<Admission>,
    seams: Seams,
    settings: watch::Receiver<Arc<GatewaySettings>>,
    deadlines: Deadlines,
    pulse: Option<Pulse>,
    ears: Ears,
    stop: CancellationToken,
}

/// The way to each worker, and its thread.
type Started = (Vec<mpsc::Sender<Order>>, Vec<JoinHandle<()>>);

impl Crew {
    /// Starts a worker for each socket. If one cannot be started, the others end when they see that
    /// nobody gives them tables.
    fn start(
        self,
        sockets: Vec<TcpListener>,
        seats: Vec<listen::Seat>,
        log: Option<&AccessLog>,
    ) -> Result<Started, Error> {
        let mut orders = Vec::new();
        let mut threads = Vec::new();
        let workers = sockets.len();
        for (index, (entry, mut listens)) in sockets.into_iter().zip(seats).enumerate() {
            let (orders_to, orders_of) = mpsc::channel(ORDERS);
            listens.wishes = Some(self.ears.wishes.clone());
            let sink = log.map(|log| log.sink(Arc::clone(&self.counters)));
            let setup = Setup {
                index: WorkerIndex(index),
                workers,
                clock: self.clock,
                entry,
                tables: self.tables.clone(),
                orders: orders_of,
                listens,
                applied: self.applied.clone(),
                counters: Arc::clone(&self.counters),
                log: sink.map(|sink| LogBuffer::new(sink, self.clock.now())),
                admission: Arc::clone(&self.admission),
                seams: self.seams,
                settings: self.settings.clone(),
                drain: self.deadlines.drain,
                ears: self.ears.clone(),
                beater: self.pulse.as_ref().map(|pulse| pulse.beater(index)),
                stop: self.stop.clone(),
            };
            orders.push(orders_to);
            threads.push(start_thread(setup, self.ended.clone())?);
        }
        Ok((orders, threads))
    }
}

/// Starts a worker's thread; its end, even by a panic, is told to `ended`.
fn start_thread(
    setup: Setup,
    ended: mpsc::Sender<Result<(), WorkerError>>,
) -> Result<JoinHandle<()>, Error> {
    let name = format!("gateway-{}", setup.index.0);
    let run = move || {
        metrics::this_thread_is(setup.index);
        let run = std::panic::AssertUnwindSafe(|| worker::run(setup));
        let result = std::panic::catch_unwind(run).unwrap_or(Err(WorkerError::Panicked));
        // Nobody listens if the coordinator has ended, and then nobody needs to know.
        ended.blocking_send(result).ok();
    };
    thread::Builder::new()
        .name(name)
        .spawn(run)
        .map_err(Error::Thread)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
