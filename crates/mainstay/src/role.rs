//! The bodies of our own processes: control centre, agent, gateway.
//!
//! Each gets its sockets by inheritance, writes its log to standard error (a file that the
//! supervisor opened) and ends on SIGTERM or SIGINT.

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use anyhow::Context;
use mainstay_agent::{Adoption, ShimProgram};
use mainstay_control::AcknowledgedDrain;
use mainstay_gateway::{AccessLogTo, Deadlines, Stats};
use mainstay_ids::Incarnation;
use mainstay_model::gateway::GatewayLimits;
use mainstay_server::EarlierStop;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::arguments::{AgentProcess, GatewayProcess, Internal, Place, ServerProcess, Switch};
use crate::command::API_SOCKET;
use crate::outcome::Outcome;
use crate::supervisor::claim::{self, CLAIM};
use crate::supervisor::sockets::{API_TCP, API_UNIX, ENTRY, STATS};

/// The name under which a gateway follows the routes.
const GATEWAY_CONSUMER: &str = "gateway";

/// How long the gateway of `dev` may finish requests at its end: below what the supervisor grants
/// it, and long after its instances were drained.
const GATEWAY_DRAIN: Duration = Duration::from_secs(10);

pub(crate) fn run(place: &Place, internal: Internal) -> anyhow::Result<Outcome> {
    start_log();
    let mut sockets = Inherited::take()?;
    let claim = sockets.named(CLAIM).pop();
    // Open to the end of this process: by it the next supervisor sees that we run.
    let claim = File::from(claim.context("the claim was not handed over")?);
    if let Err(error) = claim::sign(&claim, incarnation(&internal)) {
        tracing::warn!(%error, "cannot sign the claim; the next supervisor will not know us");
    }
    match internal {
        Internal::Server(server) => run_server(place, &server, sockets)?,
        Internal::Agent(agent) => run_agent(place, agent)?,
        Internal::Gateway(gateway) => run_gateway(place, &gateway, sockets)?,
    }
    Ok(Outcome::Holds)
}

fn incarnation(internal: &Internal) -> Incarnation {
    let (Internal::Server(ServerProcess { start, .. })
    | Internal::Agent(AgentProcess { start, .. })
    | Internal::Gateway(GatewayProcess { start, .. })) = internal;
    Incarnation(start.incarnation)
}

fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MAINSTAY_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}

/// The sockets that the supervisor handed over.
struct Inherited(Vec<(String, OwnedFd)>);

impl Inherited {
    fn take() -> anyhow::Result<Self> {
        Ok(Self(
            mainstay_kernel::inherit::take().context("cannot take over the sockets")?,
        ))
    }

    fn named(&mut self, name: &str) -> Vec<OwnedFd> {
        let (named, rest) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|(of, _)| of == name);
        self.0 = rest;
        let named: Vec<(String, OwnedFd)> = named;
        named.into_iter().map(|(_, fd)| fd).collect()
    }
}

fn run_server(place: &Place, server: &ServerProcess, mut sockets: Inherited) -> anyhow::Result<()> {
    let api = sockets
        .named(API_UNIX)
        .pop()
        .context("the API's unix socket was not handed over")?;
    let api_tcp = sockets.named(API_TCP).pop().map(TcpListener::from);
    let acknowledged_drain = if server.unsafe_no_acknowledged_drain {
        AcknowledgedDrain::Off
    } else {
        AcknowledgedDrain::On
    };
    let options = mainstay_server::Options {
        state: place.state.clone(),
        node: server.start.node.clone(),
        incarnation: Incarnation(server.start.incarnation),
        entry: vec![server.entry],
        stats: server.stats,
        earlier_stop: if server.earlier_stop_is_over {
            EarlierStop::IsOver
        } else {
            EarlierStop::GoesOn
        },
        api_group: server.api_group,
        acknowledged_drain,
    };
    let sockets = mainstay_server::Sockets {
        api: UnixListener::from(api),
        api_tcp,
    };
    on_runtime(async |stop| {
        mainstay_server::run(options, sockets, stop)
            .await
            .context("the control centre failed")
    })
}

fn run_agent(place: &Place, agent: AgentProcess) -> anyhow::Result<()> {
    let AgentProcess {
        start,
        unsafe_no_adoption,
    } = agent;
    let options = mainstay_agent::Options {
        state: place.state.clone(),
        node: start.node,
        incarnation: Incarnation(start.incarnation),
        api: place.state.join(API_SOCKET),
        shim: ShimProgram {
            program: None,
            arguments: vec!["internal".into(), "shim".into()],
        },
        adoption: if unsafe_no_adoption {
            Adoption::Off
        } else {
            Adoption::On
        },
    };
    on_runtime(async |stop| {
        mainstay_agent::run(options, stop)
            .await
            .context("the agent failed")
    })
}

fn run_gateway(
    place: &Place,
    gateway: &GatewayProcess,
    mut sockets: Inherited,
) -> anyhow::Result<()> {
    let entry = sockets
        .named(ENTRY)
        .into_iter()
        .map(TcpListener::from)
        .collect();
    let stats = sockets.named(STATS).pop().map(|listener| Stats {
        listener: TcpListener::from(listener),
        auth: None,
    });
    let options = mainstay_gateway::Options {
        state: place.state.clone(),
        api: place.state.join(API_SOCKET),
        consumer: mainstay_ids::ConsumerId {
            name: GATEWAY_CONSUMER.to_owned(),
            incarnation: Incarnation(gateway.start.incarnation),
        },
        access_log: match gateway.access_log {
            Switch::On => AccessLogTo::File(place.state.join("logs").join("access.log")),
            Switch::Off => AccessLogTo::Off,
        },
        limits: GatewayLimits::default(),
        deadlines: Deadlines {
            drain: GATEWAY_DRAIN,
            ..Deadlines::default()
        },
        seams: gateway.unsafe_gateway_seams,
    };
    raise_descriptor_limit();
    let stop = CancellationToken::new();
    let on_signal = stop.clone();
    // The gateway makes its own threads and runtimes; this one only waits for the signal and ends
    // with the process.
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            on_runtime(async |stop| {
                stop.cancelled().await;
                on_signal.cancel();
                Ok(())
            })
        })
        .context("cannot start the thread that waits for signals")?;
    mainstay_gateway::run(options, mainstay_gateway::Sockets { entry, stats }, stop)
        .context("the gateway failed")
}

/// As many descriptors as may be had: each client and each instance's connection needs one. Only
/// here, since programs that use select(2) break above 1024, and instances inherit from the agent.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open descriptors stays as it is");
    }
}

/// Runs `body` on a runtime of one thread; its token is cancelled by SIGTERM and SIGINT.
fn on_runtime(
    body: impl AsyncFnOnce(CancellationToken) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot await SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot await SIGINT")?;
        let stop = CancellationToken::new();
        let mut body = std::pin::pin!(body(stop.clone()));
        loop {
            tokio::select! {
                ended = &mut body => return ended,
                Some(()) = terminate.recv() => stop.cancel(),
                Some(()) = interrupt.recv() => stop.cancel(),
            }
        }
    })
}
