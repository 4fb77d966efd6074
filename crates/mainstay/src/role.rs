//! The bodies of our own processes: control centre, agent, gateway.
//!
//! Each gets its sockets by inheritance, writes its log to standard error (a file that the
//! supervisor opened) and ends on SIGTERM or SIGINT.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use mainstay_agent::names::{self, ResolvConf, Upstreams};
use mainstay_agent::{Adoption, ShimProgram};
use mainstay_control::AcknowledgedDrain;
use mainstay_gateway::settings::Settings as GatewaySettings;
use mainstay_gateway::{
    AccessLogTo, Beats, Beginning, Deadlines, LeavingSeam, Stats, StatsAuth, Succession,
};
use mainstay_ids::Incarnation;
use mainstay_kernel::descriptors;
use mainstay_kernel::hand::Offer;
use mainstay_kernel::pulse::{Beater, Pulse};
use mainstay_model::forward::Ranges;
use mainstay_prove::floating;
use mainstay_server::EarlierStop;
use mainstay_vip::{OwnAgent, RealTime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::arguments::{
    AgentProcess, AnswerProcess, BackupProcess, BrokerProcess, GatewayProcess, Internal, Place,
    ServerProcess, VipProcess,
};
use crate::command::{self, API_SOCKET};
use crate::outcome::Outcome;
use crate::supervisor::claim::{self, CLAIM, Stage};
use crate::supervisor::sockets::{
    AMQP, AMQPS, API_TCP, API_UNIX, ENTRY, NAMES_TCP, NAMES_UDP, STATS,
};

pub(crate) fn run(place: &Place, internal: Internal) -> anyhow::Result<Outcome> {
    start_log();
    if let Internal::Answer(answer) = &internal {
        return run_answer(answer);
    }
    if let Internal::Backup(backup) = &internal {
        return run_backup(place, backup);
    }
    // Before the claim is signed: from then on the supervisor may send signals.
    let signals = match &internal {
        Internal::Gateway(_) => Some(Signals::receive()?),
        Internal::Server(_)
        | Internal::Agent(_)
        | Internal::Broker(_)
        | Internal::Vip(_)
        | Internal::Backup(_)
        | Internal::Answer(_) => None,
    };
    let mut sockets = Inherited::take()?;
    let claim = sockets.named(CLAIM).pop();
    // Open to the end of this process: by it the next supervisor sees that we run.
    let claim = File::from(claim.context("the claim was not handed over")?);
    let claim = Arc::new(Signing {
        claim,
        incarnation: incarnation(&internal),
        pulse: pulse(&internal, &sockets),
    });
    claim.sign(Stage::Runs);
    match internal {
        Internal::Server(server) => run_server(place, &server, sockets)?,
        Internal::Agent(agent) => run_agent(place, agent, sockets, &claim)?,
        Internal::Gateway(gateway) => {
            let signals = signals.context("a gateway receives signals")?;
            run_gateway(place, &gateway, sockets, &signals, &claim)?;
        }
        Internal::Broker(broker) => run_broker(place, &broker, sockets)?,
        Internal::Vip(vip) => run_vip(place, &vip)?,
        // They have no claim, and ran above.
        Internal::Backup(_) | Internal::Answer(_) => {}
    }
    Ok(Outcome::Holds)
}

/// The claim of this process, open to its end.
struct Signing {
    claim: File,
    incarnation: Incarnation,
    pulse: Option<Pulse>,
}

impl Signing {
    fn sign(&self, stage: Stage) {
        if let Err(error) = claim::sign(&self.claim, self.incarnation, stage, self.pulse.as_ref()) {
            tracing::warn!(%error, "cannot sign the claim; the supervisor will not know us");
        }
    }
}

fn incarnation(internal: &Internal) -> Incarnation {
    match internal {
        Internal::Server(ServerProcess { start, .. })
        | Internal::Agent(AgentProcess { start, .. })
        | Internal::Gateway(GatewayProcess { start, .. })
        | Internal::Broker(BrokerProcess { start, .. })
        | Internal::Vip(VipProcess { start, .. }) => Incarnation(start.incarnation),
        Internal::Backup(_) | Internal::Answer(_) => Incarnation(0),
    }
}

/// Where the threads of a process say that they go on.
fn pulse(internal: &Internal, sockets: &Inherited) -> Option<Pulse> {
    let beaters = match internal {
        Internal::Gateway(gateway) if gateway.unsafe_gateway_seams.beats == Beats::Off => None,
        // Each socket of the entry has a worker of its own.
        Internal::Gateway(_) => Some(sockets.count(ENTRY)),
        Internal::Agent(_) => Some(1),
        Internal::Server(_)
        | Internal::Broker(_)
        | Internal::Vip(_)
        | Internal::Backup(_)
        | Internal::Answer(_) => None,
    };
    let pulse = Pulse::new(beaters?);
    if let Err(error) = &pulse {
        tracing::warn!(%error, "nobody will see whether this process goes on");
    }
    pulse.ok()
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

    fn count(&self, name: &str) -> usize {
        self.0.iter().filter(|(of, _)| of == name).count()
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
        entry: server.entry.into_iter().collect(),
        stats: server.stats,
        earlier_stop: if server.earlier_stop_is_over {
            EarlierStop::IsOver
        } else {
            EarlierStop::GoesOn
        },
        api_group: server.api_group,
        ranges: (!server.range.is_empty())
            .then(|| Ranges::new(server.range.clone()))
            .transpose()?,
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

fn run_agent(
    place: &Place,
    agent: AgentProcess,
    mut sockets: Inherited,
    claim: &Signing,
) -> anyhow::Result<()> {
    let AgentProcess {
        start,
        address,
        forward,
        unsafe_no_adoption,
        unsafe_forward_seams,
        names_upstream,
        names_allow,
    } = agent;
    let names = sockets
        .named(NAMES_UDP)
        .pop()
        .zip(sockets.named(NAMES_TCP).pop());
    let options = mainstay_agent::Options {
        state: place.state.clone(),
        node: start.node,
        incarnation: Incarnation(start.incarnation),
        address,
        forward,
        forward_seams: unsafe_forward_seams,
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
        names: names.map(|(udp, tcp)| names::Options {
            udp: UdpSocket::from(udp),
            tcp: TcpListener::from(tcp),
            allow: names_allow.0,
            upstreams: match names_upstream {
                Some(servers) => Upstreams::These(servers.0),
                None => Upstreams::Of(ResolvConf::default()),
            },
        }),
    };
    on_runtime(async |stop| {
        let beater = claim.pulse.as_ref().map(|pulse| pulse.beater(0));
        tokio::select! {
            ended = mainstay_agent::run(options, stop) => ended.context("the agent failed"),
            never = beat(beater) => match never {},
        }
    })
}

/// How often the agent says that it goes on: six times before its silence counts (`mainstay-vip`).
const AGENT_BEAT_EVERY: Duration = Duration::from_millis(500);

/// Says that this thread goes on.
async fn beat(beater: Option<Beater>) -> Infallible {
    let Some(mut beater) = beater else {
        return std::future::pending().await;
    };
    let mut due = interval(AGENT_BEAT_EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        beater.beat();
    }
}

fn run_gateway(
    place: &Place,
    gateway: &GatewayProcess,
    mut sockets: Inherited,
    signals: &Signals,
    claim: &Arc<Signing>,
) -> anyhow::Result<()> {
    let offer = offer(&sockets, &gateway.hand)?;
    let entry = sockets
        .named(ENTRY)
        .into_iter()
        .map(TcpListener::from)
        .collect();
    let settings = signals
        .settings
        .get_or_init(|| GatewaySettings::open(&place.state));
    // For a SIGHUP that came while the file was being read.
    settings.reload();
    let follower = settings.follow();
    let deadlines = Deadlines {
        drain: follower.borrow().drain,
        ..Deadlines::default()
    };
    let auth = follower.borrow().stats_auth.clone();
    let stats = sockets.named(STATS).pop().map(|listener| Stats {
        listener: TcpListener::from(listener),
        auth: auth.map(|auth| StatsAuth {
            user: auth.user,
            password: auth.password,
        }),
        token: place.state.join(mainstay_server::TOKEN_FILE),
        floating: place.state.join(mainstay_vip::SOCKET),
    });
    let options = mainstay_gateway::Options {
        state: place.state.clone(),
        api: place.state.join(API_SOCKET),
        consumer: mainstay_ids::ConsumerId {
            name: gateway.consumer.clone(),
            incarnation: Incarnation(gateway.start.incarnation),
        },
        access_log: AccessLogTo::File(place.state.join("logs").join("access.log")),
        settings: follower,
        deadlines,
        succession: Succession {
            beginning: if gateway.live_routes_only {
                Beginning::WithLive
            } else {
                Beginning::WithStored
            },
            elder: gateway.elder.clone(),
            offer,
            serves: signals.serves.clone(),
        },
        pulse: claim.pulse.clone(),
        leave: match gateway.unsafe_gateway_seams.leaving {
            LeavingSeam::On => Some(gateway.hand.with_extension("leave")),
            LeavingSeam::Off => None,
        },
        seams: gateway.unsafe_gateway_seams,
    };
    let on_serving = Arc::clone(claim);
    signals.when_serving(move || on_serving.sign(Stage::Serves))?;
    raise_descriptor_limit();
    mainstay_gateway::run(
        options,
        mainstay_gateway::Sockets { entry, stats },
        signals.stop.clone(),
    )
    .context("the gateway failed")
}

/// A service that somebody can be asked for: `prove` has it on its nodes.
fn run_answer(answer: &AnswerProcess) -> anyhow::Result<Outcome> {
    on_runtime(async |stop| {
        tokio::select! {
            ended = floating::answer(answer.address) => ended.context("cannot answer"),
            () = stop.cancelled() => Ok(()),
        }
    })?;
    Ok(Outcome::Holds)
}

/// It ends by a signal as any command does: what it had made by then is marked, and removed by the next one.
fn run_backup(place: &Place, backup: &BackupProcess) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(command::backup::scheduled(place, backup))
}

fn run_broker(place: &Place, broker: &BrokerProcess, mut sockets: Inherited) -> anyhow::Result<()> {
    let mut listeners = |name| -> Vec<TcpListener> {
        let named = sockets.named(name).into_iter();
        named.map(TcpListener::from).collect()
    };
    let (amqp, amqps) = (listeners(AMQP), listeners(AMQPS));
    let certificate = broker.tls_certificate.clone().zip(broker.tls_key.clone());
    let options = mainstay_broker::Options {
        state: place.state.clone(),
        tls: certificate.map(|(certificate, key)| mainstay_tls::Files {
            certificate,
            key,
            client_ca: broker.tls_client_ca.clone(),
        }),
        limits: mainstay_broker::Limits {
            memory_max: broker.memory_max,
            disk_free_min: broker.disk_free_min,
        },
        seams: broker.unsafe_broker_seams,
        clients: mainstay_broker::ClientLimits {
            consumer_timeout: Some(broker.consumer_timeout),
            queues_max: broker.queues_max,
        },
        metrics: broker.metrics,
    };
    let sockets = mainstay_broker::Sockets { amqp, amqps };
    raise_descriptor_limit();
    on_runtime(async |stop| {
        mainstay_broker::run(options, sockets, stop)
            .await
            .context("the broker failed")
    })
}

/// One thread, and no runtime: see `mainstay-vip`.
fn run_vip(place: &Place, vip: &VipProcess) -> anyhow::Result<()> {
    let vips = mainstay_vip::settings::load(&place.state).context("cannot hold an address")?;
    let options = mainstay_vip::Options {
        state: place.state.clone(),
        vips,
        agent: if vip.with_agent {
            OwnAgent::Runs
        } else {
            OwnAgent::No
        },
        real_time: RealTime::IfAllowed,
        seams: vip.unsafe_vip_seams,
    };
    mainstay_vip::run(options).context("the floating addresses failed")
}

/// What a gateway is told by signals. It makes its own threads and runtimes, so they are received in
/// one more, which ends with the process.
struct Signals {
    /// SIGTERM and SIGINT.
    stop: CancellationToken,
    /// The gateway's own word that it serves.
    serves: CancellationToken,
    /// Read again at each SIGHUP, once they are there.
    settings: Arc<OnceLock<GatewaySettings>>,
}

impl Signals {
    /// From now on none ends the process.
    fn receive() -> anyhow::Result<Self> {
        let signals = Self {
            stop: CancellationToken::new(),
            serves: CancellationToken::new(),
            settings: Arc::default(),
        };
        let (on_stop, settings) = (signals.stop.clone(), Arc::clone(&signals.settings));
        let (received, is_received) = sync_channel(1);
        let receive = move || {
            on_runtime(async |stop| {
                let mut hangup = signal(SignalKind::hangup()).context("cannot await SIGHUP")?;
                received.send(()).context("nobody starts a gateway")?;
                loop {
                    tokio::select! {
                        () = stop.cancelled() => break,
                        Some(()) = hangup.recv() => {
                            if let Some(settings) = settings.get() {
                                settings.reload();
                            }
                        }
                    }
                }
                on_stop.cancel();
                Ok(())
            })
        };
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(receive)
            .context("cannot start the thread that waits for signals")?;
        is_received
            .recv()
            .context("the thread that waits for signals ended")?;
        Ok(signals)
    }

    /// Does it once, when the gateway serves.
    fn when_serving(&self, act: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
        let serves = self.serves.clone();
        // Ends with the process, if the gateway never serves.
        std::thread::Builder::new()
            .name("serving".into())
            .spawn(move || {
                on_runtime(async |_| {
                    serves.cancelled().await;
                    act();
                    Ok(())
                })
            })
            .map(drop)
            .context("cannot start the thread that tells that the gateway serves")
    }
}

/// Offers the inherited sockets to a successor, and to a supervisor that adopts us.
fn offer(sockets: &Inherited, hand: &Path) -> anyhow::Result<Offer> {
    let offer = Offer::default();
    let mut named: BTreeMap<&str, Vec<OwnedFd>> = BTreeMap::new();
    for (name, socket) in &sockets.0 {
        let copy = socket.try_clone().context("cannot copy a socket")?;
        named.entry(name).or_default().push(copy);
    }
    for (name, copies) in named {
        offer.put(name, copies);
    }
    if let Err(error) = offer.serve(hand) {
        tracing::warn!(%error, "cannot offer the sockets; the next gateway makes its own");
    }
    Ok(offer)
}

/// As many descriptors as may be had: each client and each instance's connection needs one.
fn raise_descriptor_limit() {
    if let Err(error) = descriptors::raise_limit() {
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
