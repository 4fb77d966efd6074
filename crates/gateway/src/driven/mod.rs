//! The whole way of requests, driven by bytes: one client and the instances behind it are played
//! from one input, over socket pairs and a clock that stands still until nothing moves. What comes
//! out on both sides is judged. For the fuzz target `gateway_path` and tests; no part of a gateway.
//!
//! Reading order: `script` (what an input means), `instance`, `client`, `judge`, `reading` (how the
//! judge reads HTTP: with httparse and its own framing, and nothing of ours).

mod client;
mod instance;
mod judge;
mod reading;
mod script;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use mainstay_ids::{Attempt, Epoch, Generation, InstanceId, ServiceName, Version};
use mainstay_model::gateway::GatewayLimits;
use mainstay_model::routing::EndpointHealth;
use mainstay_model::{Endpoint, HttpMatch, PathPrefix, Routing, ServiceRoutes, Traffic};
use tokio::net::{TcpStream, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, spawn_local, yield_now};

use crate::Seams;
use crate::worker::Worker;

use client::Client;
use instance::Instances;
use judge::Seen;
use script::{Reads, Script};

/// How far the clock is moved when nothing moves: as often as a worker sweeps.
const STEP: Duration = Duration::from_millis(100);

/// After so many steps each deadline of [`LIMITS`] has passed many times over.
const STEPS_MAX: u32 = 3_000;

/// Looks at all sockets without anything having moved, until the clock is moved.
const QUIET_LOOKS: u32 = 4;

/// Short, so that each of them passes within few steps.
fn limits() -> GatewayLimits {
    let second = Duration::from_secs(1);
    GatewayLimits {
        head_len: 8 * 1024,
        head_time: second,
        body_idle: second,
        write_idle: second,
        answer_time: second,
        request_time: 4 * second,
        idle_time: second,
        queue_time: second / 4,
        replay_len: 64,
        // Whoever floods is done some time.
        requests_per_connection: 100,
        ..GatewayLimits::default()
    }
}

/// Counts whatever moves, so that it is known when nothing does.
#[derive(Debug, Default)]
pub(crate) struct Moves(Cell<u64>);

impl Moves {
    fn note(&self) {
        self.0.set(self.0.get() + 1);
    }
}

thread_local! {
    static INSTANCES: RefCell<Option<Rc<Instances>>> = const { RefCell::new(None) };
}

/// A connection to an instance of the script that runs in this thread; `None`: none runs.
pub(crate) fn connect(_: SocketAddr) -> Option<io::Result<TcpStream>> {
    let instances = INSTANCES.with_borrow(Option::clone)?;
    Some(instances.accept())
}

/// Both ends of a connection: the gateway's, and its peer's.
fn pair() -> io::Result<(TcpStream, UnixStream)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    for end in [&ours, &theirs] {
        end.set_nonblocking(true)?;
    }
    let ours = std::net::TcpStream::from(OwnedFd::from(ours));
    Ok((TcpStream::from_std(ours)?, UnixStream::from_std(theirs)?))
}

/// Plays an input and judges what comes of it.
///
/// # Panics
///
/// If anything is not as it must be.
pub fn drive(input: &[u8]) {
    seen(input);
}

/// Plays an input and judges what comes of it; `None` if it means nothing.
fn seen(input: &[u8]) -> Option<Seen> {
    let script = Script::of(input)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .start_paused(true)
        // Sockets are looked at after each step of each task.
        .event_interval(1)
        .build_local(tokio::runtime::LocalOptions::default())
        .expect("a runtime can be made");
    let seen = runtime.block_on(play(Rc::new(script)));
    INSTANCES.set(None);
    Some(seen)
}

async fn play(script: Rc<Script>) -> Seen {
    // The main function of a fuzz target is not Rust's, which lets no broken pipe end a program.
    let _heeded = signal(SignalKind::pipe()).expect("a signal can be heeded");
    let moves = Rc::new(Moves::default());
    let instances = Rc::new(Instances::new(Rc::clone(&script), Rc::clone(&moves)));
    INSTANCES.set(Some(Rc::clone(&instances)));
    let worker = Worker::alone(&routing(), limits(), Seams::default());
    let (ours, theirs) = pair().expect("a pair of sockets can be made");
    let peer = SocketAddr::from(([192, 0, 2, 1], 4711));
    let serving = Rc::clone(&worker).serve_one(ours, peer);
    let gateway = spawn_local(noted(Rc::clone(&moves), serving));
    let client = Rc::new(Client::new(Rc::clone(&script), Rc::clone(&moves)));
    let playing = spawn_local(Rc::clone(&client).play(theirs));
    let is_over = || gateway.is_finished() || instances.tunnel_ended.get();
    wait(&moves, &worker, is_over).await;
    if !gateway.is_finished() {
        playing.abort();
        wait(&moves, &worker, || gateway.is_finished()).await;
    }
    end(gateway).await;
    match script.reads {
        // What was written last is read to the end.
        Reads::All => wait(&moves, &worker, || playing.is_finished()).await,
        Reads::Nothing => playing.abort(),
    }
    end(playing).await;
    instances.end().await;
    judge::judge(&script, &client, &instances)
}

/// Waits for a task, which may have been aborted, and panics if it did.
async fn end(task: JoinHandle<()>) {
    if let Err(error) = task.await
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

/// A future, each poll of which is a move.
async fn noted(moves: Rc<Moves>, task: impl Future<Output = ()>) {
    let mut task = pin!(task);
    poll_fn(|cx| {
        moves.note();
        task.as_mut().poll(cx)
    })
    .await;
}

/// Lets everything run, and moves the clock when nothing moves.
async fn wait(moves: &Moves, worker: &Worker, is_over: impl Fn() -> bool) {
    let (mut seen, mut quiet, mut steps) = (moves.0.get(), 0, 0);
    while !is_over() {
        yield_now().await;
        quiet = if moves.0.get() == seen { quiet + 1 } else { 0 };
        seen = moves.0.get();
        if quiet > QUIET_LOOKS {
            quiet = 0;
            steps += 1;
            assert!(steps < STEPS_MAX, "it never comes to an end");
            tokio::time::advance(STEP).await;
            worker.sweep();
        }
    }
}

/// One service with two instances, which takes everything.
fn routing() -> Routing {
    let service = ServiceName::parse("orders").expect("legal");
    let endpoint = |number: u8| Endpoint {
        instance: InstanceId {
            service: service.clone(),
            number: u64::from(number),
        },
        attempt: Attempt::FIRST,
        version: Version::FIRST,
        address: SocketAddr::from(([192, 0, 2, number], 80)),
        health: EndpointHealth::Passing,
        handle: None,
        intake: mainstay_model::Intake::default(),
    };
    let root = PathPrefix::parse("/").expect("legal");
    Routing {
        generation: Generation::first(Epoch(1)),
        services: vec![ServiceRoutes {
            endpoints: vec![endpoint(1), endpoint(2)],
            http: Some(HttpMatch::new(None, root).into()),
            address: None,
            health_path: None,
            unavailable: None,
            dead: Vec::new(),
            traffic: Traffic::default(),
            rewrites: Vec::new(),
            split: None,
            service,
        }],
    }
}

#[cfg(test)]
mod tests;
