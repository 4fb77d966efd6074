//! A worker's part of the listeners: its sockets, its choices, its sessions.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mainstay_control::listen::{Candidate, Choice, Chosen};
use mainstay_ids::ListenName;
use mainstay_model::listen::{Balance, Mode};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet, spawn_local};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::leave::Wish;
use crate::limits::ACCEPT_PAUSE;
use crate::listen::Splice;
use crate::listen::handle::ServerAt;
use crate::listen::limits::CUT_TIME;
use crate::listen::pools::Pools;
use crate::listen::roster::{AtServer, Inside, Roster, RosterListen, ServerTally};
use crate::listen::{http, session};
use crate::worker::{Hosted, Worker};
use crate::{door, sockets};

/// What the chief orders.
#[derive(Debug)]
pub(crate) enum Order {
    Listen(SocketAddr, std::net::TcpListener),
    Unlisten(SocketAddr),
}

/// Everything that a worker is given; [`Seat::run`] on its thread is all that it has to do.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) clock: Clock,
    pub(crate) rosters: watch::Receiver<Arc<Roster>>,
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) failures: mpsc::Sender<ServerAt>,
    /// Above the tokens of all sessions.
    pub(crate) all: CancellationToken,
    pub(crate) stop: CancellationToken,
    pub(crate) drain: Duration,
    pub(crate) splice: Splice,
    /// By which it hears that an address is to be left, beside a worker.
    pub(crate) wishes: Option<watch::Receiver<Wish>>,
}

/// What all sessions of one worker share. Lives in one thread; every borrow ends before an await.
pub(crate) struct Floor {
    pub(crate) clock: Clock,
    pub(crate) pools: Rc<Pools>,
    pub(crate) splice: Splice,
    pub(crate) all: CancellationToken,
    /// Who serves requests.
    pub(crate) worker: Option<Rc<Worker>>,
    failures: mpsc::Sender<ServerAt>,
    roster: RefCell<Arc<Roster>>,
    /// Wakes who waits for another roster.
    changed: Notify,
    choices: RefCell<HashMap<ListenName, (Balance, Choice)>>,
    /// Kept, so that a choice allocates nothing.
    candidates: RefCell<Vec<Candidate>>,
    random: RefCell<fastrand::Rng>,
    sessions: Cell<usize>,
    session_ended: Notify,
}

/// What choosing led to.
pub(crate) enum Picked {
    /// This server, at which a place was taken.
    Server {
        at: usize,
        place: AtServer,
    },
    /// All that could be are full.
    Full,
    Nobody,
}

impl Floor {
    fn new(seat: &Seat, worker: Option<Rc<Worker>>) -> Self {
        Self {
            clock: seat.clock,
            pools: Rc::default(),
            splice: seat.splice,
            all: seat.all.clone(),
            worker,
            failures: seat.failures.clone(),
            roster: RefCell::new(Arc::clone(&seat.rosters.borrow())),
            changed: Notify::new(),
            choices: RefCell::default(),
            candidates: RefCell::default(),
            random: RefCell::new(fastrand::Rng::new()),
            sessions: Cell::new(0),
            session_ended: Notify::new(),
        }
    }

    /// Whose address it is now.
    fn listen_at(&self, address: SocketAddr) -> Option<Arc<RosterListen>> {
        self.roster.borrow().at(address).cloned()
    }

    /// The listener of this name now.
    pub(crate) fn listen_named(&self, name: &ListenName) -> Option<Arc<RosterListen>> {
        let roster = self.roster.borrow();
        let mut listens = roster.listens.iter();
        listens.find(|listen| listen.spec.name == *name).cloned()
    }

    /// Chooses a server and takes a place at it, in one go.
    pub(crate) fn pick(
        &self,
        listen: &RosterListen,
        client: SocketAddr,
        tried: &[Arc<ServerTally>],
    ) -> Picked {
        let mut candidates = self.candidates.borrow_mut();
        let mut choices = self.choices.borrow_mut();
        let balance = listen.spec.balance;
        let fresh = || (balance, Choice::new(balance));
        let choice = choices
            .entry(listen.spec.name.clone())
            .or_insert_with(fresh);
        if choice.0 != balance {
            *choice = fresh();
        }
        loop {
            listen.candidates(self.clock.now(), tried, &mut candidates);
            let random = self.random.borrow_mut().u64(..);
            match choice.1.choose(&candidates, client.ip(), random) {
                Chosen::One(at) => {
                    let server = &listen.servers[at];
                    // Another worker may have taken the last place just now.
                    if let Some(place) = server.tally.enter(server.sessions_max) {
                        return Picked::Server { at, place };
                    }
                }
                Chosen::Full => return Picked::Full,
                Chosen::Nobody => return Picked::Nobody,
            }
        }
    }

    /// Tells the chief that a connection failed, unless it has enough to do.
    pub(crate) fn tell_failure(&self, at: ServerAt) {
        self.failures.try_send(at).ok();
    }

    fn apply(&self, roster: Arc<Roster>) {
        let mut choices = self.choices.borrow_mut();
        choices.retain(|name, _| {
            roster
                .listens
                .iter()
                .any(|listen| listen.spec.name == *name)
        });
        if let Some(worker) = &self.worker {
            worker.apply_listens(Arc::clone(&roster));
        }
        self.roster.replace(roster);
        self.changed.notify_waiters();
    }

    fn begin(self: &Rc<Self>) -> Begun {
        self.sessions.set(self.sessions.get() + 1);
        Begun(Rc::clone(self))
    }

    /// Takes a session into the list of the worker, if there is one, which may have to leave its address.
    fn host(&self, client: &TcpStream) -> Option<Hosted> {
        let local = client.local_addr().ok()?.ip().to_canonical();
        Some(self.worker.as_ref()?.host(local))
    }

    /// Waits until the last session has ended.
    async fn emptied(&self) {
        while self.sessions.get() > 0 {
            self.session_ended.notified().await;
        }
    }
}

/// A session that goes on, until this is dropped.
pub(crate) struct Begun(Rc<Floor>);

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.sessions.set(self.0.sessions.get() - 1);
        self.0.session_ended.notify_one();
    }
}

impl Seat {
    /// Accepts and carries until it is told to stop and all sessions have ended, at the latest when
    /// the time for that is over. To be run in a local runtime, that of `worker` if there is one,
    /// which serves the requests of listeners in HTTP mode.
    pub(crate) async fn run(mut self, worker: Option<Rc<Worker>>) {
        let floor = Rc::new(Floor::new(&self, worker));
        let mut acceptors = Acceptors::new(Rc::clone(&floor));
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                changed = self.rosters.changed() => {
                    // The chief is gone: so is everything that could still tell us to stop.
                    if changed.is_err() {
                        break;
                    }
                    let roster = Arc::clone(&self.rosters.borrow_and_update());
                    floor.apply(roster);
                }
                Some(order) = self.orders.recv() => acceptors.follow(order),
                wish = next(&mut self.wishes) => acceptors.heed(&wish),
                Some(ended) = acceptors.tasks.join_next() => {
                    // Accepting never ends by itself: it was removed, or it panicked.
                    if let Err(error) = ended && error.is_panic() {
                        tracing::error!(%error, "accepting for a listener panicked");
                    }
                }
            }
        }
        // Accepting ends, but for those who were accepted and wait for a place: nobody else has them.
        acceptors.over.cancel();
        acceptors.sockets.clear();
        if timeout(self.drain, floor.emptied()).await.is_err() {
            let sessions = floor.sessions.get();
            tracing::warn!(sessions, "sessions were cut at the end of the drain time");
            self.all.cancel();
            // What does not end now ends with the thread.
            timeout(CUT_TIME, floor.emptied()).await.ok();
        }
    }
}

/// The tasks that accept, one for each socket.
struct Acceptors {
    floor: Rc<Floor>,
    /// Nothing more is accepted.
    over: CancellationToken,
    tasks: JoinSet<()>,
    handles: HashMap<SocketAddr, AbortHandle>,
    /// Copies, to shut them for addresses that are left.
    sockets: HashMap<SocketAddr, std::net::TcpListener>,
}

impl Acceptors {
    fn new(floor: Rc<Floor>) -> Self {
        Self {
            floor,
            over: CancellationToken::new(),
            tasks: JoinSet::new(),
            handles: HashMap::new(),
            sockets: HashMap::new(),
        }
    }

    fn follow(&mut self, order: Order) {
        match order {
            Order::Listen(address, listener) => {
                let made = sockets::prepare(&listener)
                    .and_then(|()| listener.try_clone())
                    .and_then(|copy| Ok((TcpListener::from_std(listener)?, copy)));
                match made {
                    Ok((listener, copy)) => {
                        self.sockets.insert(address, copy);
                        let (floor, over) = (Rc::clone(&self.floor), self.over.clone());
                        let task = accept(floor, listener, address, over);
                        let handle = self.tasks.spawn_local(task);
                        self.handles.insert(address, handle);
                    }
                    Err(error) => tracing::error!(%address, %error, "cannot accept on a socket"),
                }
            }
            Order::Unlisten(address) => {
                self.sockets.remove(&address);
                if let Some(handle) = self.handles.remove(&address) {
                    handle.abort();
                }
            }
        }
    }
}

impl Acceptors {
    /// Shuts all sockets for addresses that are left, and opens them again.
    fn heed(&self, wish: &Wish) {
        for socket in self.sockets.values() {
            door::heed(&SockRef::from(socket), wish);
        }
    }
}

/// What is wanted next.
async fn next(wishes: &mut Option<watch::Receiver<Wish>>) -> Wish {
    if let Some(wishes) = wishes
        && wishes.changed().await.is_ok()
    {
        return wishes.borrow_and_update().clone();
    }
    // Nobody can ask for anything.
    std::future::pending().await
}

/// Accepts, as long as there is room: whoever comes else waits in the kernel's queue, but for the
/// first, who waits here. A place is taken only for somebody who is there, so that an idle socket
/// holds none that a busy one needs. When it is `over`, the socket is closed, and who waits here is
/// still served: nobody else has him.
async fn accept(
    floor: Rc<Floor>,
    listener: TcpListener,
    address: SocketAddr,
    over: CancellationToken,
) {
    let mut told = Told::Nothing;
    while let Some(accepted) = over.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((client, peer)) => {
                told = Told::Nothing;
                // From now on the drain waits for him.
                let begun = floor.begin();
                let mut entering = pin!(enter(&floor, address));
                let entered = over.run_until_cancelled(entering.as_mut()).await;
                let come = Come {
                    client,
                    peer,
                    address,
                };
                if let Some(entered) = entered {
                    begin(&floor, entered, begun, come);
                } else {
                    drop(listener);
                    let entered = entering.await;
                    return begin(&floor, entered, begun, come);
                }
            }
            Err(error) if is_the_peers(&error) => {}
            Err(error) => {
                if told == Told::Nothing {
                    tracing::warn!(%error, %address, "cannot accept connections; they wait");
                }
                told = Told::Trouble;
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection that was accepted.
struct Come {
    client: TcpStream,
    peer: SocketAddr,
    /// On which address of the listener.
    address: SocketAddr,
}

/// Carries a session in a task of its own. Nobody joins it: its end is that of `begun`, by which the
/// drain waits. A panic ends this session alone.
fn begin(
    floor: &Rc<Floor>,
    (listen, inside): (Arc<RosterListen>, Inside),
    begun: Begun,
    come: Come,
) {
    let Come {
        client,
        peer,
        address,
    } = come;
    let floor = Rc::clone(floor);
    match listen.spec.mode {
        Mode::Tcp => spawn_local(async move {
            let hosted = floor.host(&client);
            let served = session::serve(&floor, &listen, client, peer);
            match &hosted {
                Some(hosted) => drop(hosted.cut().run_until_cancelled(served).await),
                None => served.await,
            }
            drop((inside, begun, hosted));
        }),
        Mode::Http => spawn_local(async move {
            http::serve(&floor, &listen, client, peer, address).await;
            drop((inside, begun));
        }),
    };
}

/// Waits for a place in the listener whose address it is then.
async fn enter(floor: &Floor, address: SocketAddr) -> (Arc<RosterListen>, Inside) {
    loop {
        let Some(listen) = floor.listen_at(address) else {
            floor.changed.notified().await;
            continue;
        };
        let inside = listen.tally.enter().await;
        // It may have waited for long, and the address may be another listener's now.
        let now = floor.listen_at(address);
        if let Some(now) = now.filter(|now| Arc::ptr_eq(&now.tally, &listen.tally)) {
            return (now, inside);
        }
    }
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
