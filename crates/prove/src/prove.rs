//! From the options to the verdict.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mainstay_api::client::{self, Server};
use mainstay_api::wire::{ServiceStatus, Status};
use mainstay_ids::ServiceName;
use mainstay_model::service::Slo;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cluster::Cluster;
use crate::ground::{self, Forwarding};
use crate::load::{self, Connections, Expect, Load, Report, Request, Running, Seconds, Target};
use crate::scenario::{Scenario, Stage, Way, chain};
use crate::verdict::{Evidence, Outcome, ScenarioReport, Verdict, judge};

/// Load before the first fault and after the last one.
pub(crate) const MARGIN: Duration = Duration::from_millis(500);

/// A scenario ends its load itself; this only bounds one whose end is never reached.
pub(crate) const LOAD_MAX: Duration = Duration::from_hours(1);

/// How often each request is tried before the load, to learn what its answer looks like. Several
/// instances answer in turn, so that their answers are seen to differ.
const LESSONS: u64 = 4;

/// Seconds of all workers that a display may be behind.
const LIVE_SECONDS: usize = 64;

/// What is to be proved, on what.
#[derive(Debug, Clone)]
pub struct Options {
    /// The control centre.
    pub api: Server,
    /// The state directory, in which `supervisor.json` lies; needed by [`Scenario::Processes`] and
    /// [`Scenario::Upgrade`].
    pub state_dir: Option<PathBuf>,
    /// Where the clients enter; empty: where the gateway says that it listens.
    pub entry: Vec<SocketAddr>,
    /// What is done, in this order.
    pub scenarios: Vec<Scenario>,
    /// The one service that gets load and faults; `None`: load on all that the entry reaches,
    /// faults on all that there are.
    pub service: Option<ServiceName>,
    /// What is asked; empty: a GET of each service's path.
    pub requests: Vec<Request>,
    /// Requests per second.
    pub rate: NonZeroU32,
    /// How long the undisturbed round before each scenario is.
    pub control: Duration,
    /// How long faults are repeated; a scenario that needs longer gets it.
    pub duration: Duration,
    /// On which connections.
    pub connections: Connections,
    /// How many threads send.
    pub workers: NonZeroUsize,
    /// What the choice of requests is drawn from.
    pub seed: u64,
    /// What forwards in a network of the proof's own; `None`: such scenarios cannot be played.
    pub forwarding: Option<Arc<dyn Forwarding>>,
}

/// What is going on, for a display.
#[derive(Debug, Clone)]
pub enum Progress {
    /// A scenario begins, with an undisturbed round.
    Began(Scenario),
    /// Now things are broken.
    Breaking(Scenario),
    /// One second of load is over.
    Second {
        /// Which, since the load began.
        second: u64,
        /// Requests that ended in it.
        sent: u64,
        /// Those of them with a right answer.
        ok: u64,
        /// The others.
        failed: u64,
        /// 99 % of the right answers came within so many milliseconds.
        p99_ms: u64,
    },
    /// Something was broken or changed.
    Fault {
        /// Since the load began.
        at_ms: u64,
        /// What.
        what: String,
    },
    /// All that is wanted is ready again.
    Whole {
        /// Since the fault.
        after_ms: u64,
    },
    /// A scenario has ended.
    Ended(Box<ScenarioReport>),
}

/// Why nothing could be proved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The control centre cannot be asked.
    #[error("cannot ask the control centre what there is to prove")]
    Api(#[from] client::Error),
    /// The gateway listens nowhere, or has not said so.
    #[error("the gateway's entry is not known; is the gateway running?")]
    NoEntry,
    /// The named service does not exist.
    #[error("there is no service {0}")]
    NoService(ServiceName),
    /// No service can be reached from outside.
    #[error("no service has `http`, so no client can reach one through the entry")]
    NothingToAsk,
    /// No service has an address that is forwarded.
    #[error(
        "no service has an address outside of 127.0.0.0/8, so none is forwarded; give one `address = \"auto\"` and \
         start `mainstay dev FILE --forward 10.96.0.0/16` as root"
    )]
    NothingForwarded,
    /// The services are not well before anything is broken.
    #[error("the services are not whole before anything is broken: {0}")]
    NotWhole(String),
    /// A request fails before anything is broken.
    #[error("{method} {path} of {service} fails before anything is broken: {kind}")]
    NotAnswered {
        /// Whose it is.
        service: String,
        /// Its method.
        method: load::Method,
        /// Its path.
        path: String,
        /// How it fails.
        kind: load::Kind,
    },
    /// The generator could not run.
    #[error("cannot send load")]
    Load(#[from] load::Error),
}

/// Whom clients ask.
#[derive(Default)]
struct Aim {
    targets: Vec<Target>,
    /// By target.
    slos: Vec<Option<Slo>>,
}

/// Everything that stays the same over all scenarios on the running services.
struct Proof {
    options: Options,
    cluster: Cluster,
    status: Status,
    /// The services that are broken.
    broken: Vec<ServiceName>,
    /// For clients at the entry, if there are any.
    entry: Aim,
    /// For clients by service addresses, if there are any.
    forwarded: Aim,
    notes: Vec<String>,
    progress: mpsc::Sender<Progress>,
    stop: CancellationToken,
}

/// A load that runs while things are broken.
struct Sending {
    running: Running,
    stop: CancellationToken,
    /// The load ends even if nobody waits for it any more.
    _stop_at_last: DropGuard,
    live: JoinHandle<()>,
}

/// Plays the scenarios and makes the verdict. Cancelling `stop` ends the load, leaves the services
/// as they were declared and makes a verdict that is no proof.
pub async fn prove(
    options: Options,
    progress: mpsc::Sender<Progress>,
    stop: CancellationToken,
) -> Result<Verdict, Error> {
    let (rate, seed) = (options.rate.get(), options.seed);
    let order = options.scenarios.clone();
    let on_services = order.iter().any(|scenario| scenario.ground().is_none());
    let begun = Proof::begin(options.clone(), progress.clone(), stop.clone());
    let mut proof = if on_services {
        Some(begun.await?)
    } else {
        None
    };
    let mut scenarios = Vec::new();
    for scenario in order.iter().copied() {
        if stop.is_cancelled() {
            break;
        }
        let report = match &mut proof {
            Some(proof) if scenario.ground().is_none() => {
                let services = proof.breakable(scenario);
                proof.play(scenario, services).await?
            }
            Some(_) | None => play_apart(&options, scenario, &progress, &stop).await?,
        };
        // A display that is slow or gone loses lines; the verdict loses nothing.
        let _ = progress.try_send(Progress::Ended(Box::new(report.clone())));
        scenarios.push(report);
    }
    let unplayed = scenarios.len() < order.len();
    let worst = scenarios.iter().map(|scenario| scenario.outcome).max();
    let least = if unplayed || scenarios.is_empty() {
        Outcome::CouldNotRun
    } else {
        Outcome::Holds
    };
    Ok(Verdict {
        outcome: worst.unwrap_or(least).max(least),
        rate,
        seed,
        notes: proof.map_or_else(Vec::new, |proof| proof.notes),
        scenarios,
    })
}

/// In a network of its own, on a thread that may wait for the kernel.
async fn play_apart(
    options: &Options,
    scenario: Scenario,
    progress: &mpsc::Sender<Progress>,
    stop: &CancellationToken,
) -> Result<ScenarioReport, Error> {
    let (options, progress) = (options.clone(), progress.clone());
    let (stop, handle) = (stop.clone(), Handle::current());
    let play = move || ground::play(&options, scenario, &progress, &stop, &handle);
    let evidence = spawn_blocking(play).await.map_err(|_| load::Error::Panic)?;
    Ok(judge(evidence?))
}

/// The services that get load.
fn choose<'a>(
    options: &Options,
    status: &'a Status,
    way: Way,
) -> Result<Vec<&'a ServiceStatus>, Error> {
    if way == Way::Forwarded {
        let named =
            |service: &ServiceName| options.service.as_ref().is_none_or(|name| name == service);
        let found = status.services.iter();
        let found: Vec<_> = found
            .filter(|s| s.wanted > 0 && is_forwarded(s) && named(&s.service))
            .collect();
        return if found.is_empty() {
            Err(Error::NothingForwarded)
        } else {
            Ok(found)
        };
    }
    let Some(name) = &options.service else {
        let reached: Vec<_> = status
            .services
            .iter()
            .filter(|s| s.http.is_some() && s.wanted > 0)
            .collect();
        return if reached.is_empty() {
            Err(Error::NothingToAsk)
        } else {
            Ok(reached)
        };
    };
    let found = status
        .services
        .iter()
        .find(|service| service.service == *name);
    Ok(vec![found.ok_or_else(|| Error::NoService(name.clone()))?])
}

/// The gateway listens on addresses of loopback alone.
fn is_forwarded(service: &ServiceStatus) -> bool {
    let address = service.address;
    address.is_some_and(|address| !address.ip().is_loopback())
}

/// How clients reach a service: through the entry if it has a place there and that is the way, else by its
/// address.
fn target(
    options: &Options,
    status: &Status,
    service: &ServiceStatus,
    way: Way,
) -> Result<Target, Error> {
    let http = service.http.as_ref().filter(|_| way == Way::Entry);
    let (host, path, addresses) = match (http, service.address) {
        (Some(http), _) => {
            let slash = http.find('/').unwrap_or(http.len());
            let entry = if options.entry.is_empty() {
                &status.entry
            } else {
                &options.entry
            };
            (
                // Of `*.example.com` any host will do.
                http[..slash].trim().replace("*.", "prove."),
                http[slash..].trim().to_owned(),
                entry.clone(),
            )
        }
        (None, Some(address)) => ("*".to_owned(), "/".to_owned(), vec![address]),
        (None, None) => return Err(Error::NothingToAsk),
    };
    let first = addresses.first().ok_or(Error::NoEntry)?;
    let host = if host == "*" || host.is_empty() {
        first.to_string()
    } else {
        host
    };
    let path = if path.is_empty() {
        "/".to_owned()
    } else {
        path
    };
    let covered = |request: &&Request| {
        let rest = request.path.strip_prefix(path.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    };
    let mut requests: Vec<Request> = options.requests.iter().filter(covered).cloned().collect();
    if requests.is_empty() {
        requests.push(Request::get(&path));
    }
    Ok(Target {
        name: service.service.to_string(),
        addresses,
        host,
        requests,
    })
}

impl Aim {
    fn take(options: &Options, status: &Status, way: Way) -> Result<Self, Error> {
        let wanted = |scenario: &Scenario| scenario.ground().is_none() && scenario.way() == way;
        if !options.scenarios.iter().any(wanted) {
            return Ok(Self::default());
        }
        let loaded = choose(options, status, way)?;
        let targets = loaded.iter().map(|s| target(options, status, s, way));
        Ok(Self {
            targets: targets.collect::<Result<_, _>>()?,
            slos: loaded.iter().map(|service| service.slo).collect(),
        })
    }
}

impl Proof {
    /// Looks what there is, and whether it is well.
    async fn begin(
        options: Options,
        progress: mpsc::Sender<Progress>,
        stop: CancellationToken,
    ) -> Result<Self, Error> {
        let cluster = Cluster::new(options.api.clone());
        let status = cluster.status().await?;
        let entry = Aim::take(&options, &status, Way::Entry)?;
        let forwarded = Aim::take(&options, &status, Way::Forwarded)?;
        let broken = match &options.service {
            Some(service) => vec![service.clone()],
            None => status
                .services
                .iter()
                .filter(|s| s.wanted > 0)
                .map(|s| s.service.clone())
                .collect(),
        };
        let mut proof = Self {
            options,
            cluster,
            status,
            broken,
            entry,
            forwarded,
            notes: Vec::new(),
            progress,
            stop,
        };
        let stage = proof.stage(proof.broken.clone());
        stage
            .wait_whole()
            .await
            .map_err(|trouble| Error::NotWhole(trouble.to_string()))?;
        proof.learn().await?;
        Ok(proof)
    }

    fn aim(&self, scenario: Scenario) -> &Aim {
        match scenario.way() {
            Way::Entry => &self.entry,
            Way::Forwarded => &self.forwarded,
        }
    }

    fn stage(&self, services: Vec<ServiceName>) -> Stage {
        let (cluster, progress) = (self.cluster.clone(), self.progress.clone());
        let mut stage = Stage::new(cluster, services, progress, self.stop.clone());
        stage.state_dir.clone_from(&self.options.state_dir);
        stage.duration = self.options.duration;
        stage
    }

    /// The services on which a scenario is played: where one instance is all that there is, its
    /// end must cost requests, which would say nothing.
    fn breakable(&mut self, scenario: Scenario) -> Vec<ServiceName> {
        let (status, services) = (&self.status, &self.broken);
        if !scenario.takes_instances() || self.options.service.is_some() {
            return services.clone();
        }
        let alone = |name: &ServiceName| {
            status
                .services
                .iter()
                .any(|s| s.service == *name && s.wanted < 2)
        };
        let (alone, several): (Vec<_>, Vec<_>) = services.iter().cloned().partition(alone);
        for service in alone {
            let note = format!(
                "{service} has one instance, which was not touched: nothing could stand in for it"
            );
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
        several
    }

    /// Asks each request a few times and settles how its answers are checked.
    async fn learn(&mut self) -> Result<(), Error> {
        let both = [&mut self.entry, &mut self.forwarded];
        for target in both.into_iter().flat_map(|aim| &mut aim.targets) {
            let (name, host, addresses) = (&target.name, &target.host, &target.addresses);
            let mut plain = None;
            for request in &mut target.requests {
                let mut answers = Vec::new();
                for seed in 0..LESSONS {
                    let answer = load::fetch(addresses[0], host, request, seed << 32).await;
                    answers.push(answer.map_err(|kind| Error::NotAnswered {
                        service: name.clone(),
                        method: request.method,
                        path: request.path.clone(),
                        kind,
                    })?);
                }
                let same = answers.iter().all(|answer| *answer == answers[0]);
                request.expect = if same { answers[0] } else { Expect::Whole };
                plain = match request.expect {
                    Expect::Nonce => plain,
                    Expect::Body(_) => plain.or(Some("bodies were compared")),
                    Expect::Whole => Some("they differ, so that only their length was checked"),
                };
            }
            if let Some(checked) = plain {
                let note = format!("responses of {name} carry no nonce; {checked}");
                if !self.notes.contains(&note) {
                    self.notes.push(note);
                }
            }
        }
        Ok(())
    }

    async fn play(
        &self,
        scenario: Scenario,
        services: Vec<ServiceName>,
    ) -> Result<ScenarioReport, Error> {
        let _ = self.progress.try_send(Progress::Began(scenario));
        // No two loads of a proof share a nonce.
        let round = 2 * scenario as u64;
        let connections = scenario.connections(self.options.connections);
        let aim = self.aim(scenario);
        let control = self.send(aim, round, self.options.control, connections)?;
        let control = control.finish().await?;
        let _ = self.progress.try_send(Progress::Breaking(scenario));
        let sending = self.send(aim, round + 1, LOAD_MAX, connections)?;
        let mut stage = self.stage(services);
        stage.started = sending.running.started;
        let played = async {
            stage.pause(MARGIN).await?;
            let played = stage.play(scenario).await;
            stage.pause(MARGIN).await?;
            played
        }
        .await;
        sending.stop.cancel();
        let load = sending.finish().await?;
        if let Err(trouble) = &played {
            tracing::debug!(%scenario, trouble = %chain(trouble), "scenario ended early");
        }
        Ok(judge(Evidence {
            faults: stage.faults,
            strikes: stage.strikes,
            outages: stage.outages,
            trouble: played.err(),
            slos: aim.slos.clone(),
            ..Evidence::new(scenario, control, load)
        }))
    }

    fn send(
        &self,
        aim: &Aim,
        round: u64,
        duration: Duration,
        connections: Connections,
    ) -> Result<Sending, Error> {
        let load = Load {
            targets: aim.targets.clone(),
            rate: self.options.rate,
            duration,
            connections,
            workers: self.options.workers,
            seed: self.options.seed.wrapping_add(round),
        };
        let (live, mut seconds) = mpsc::channel(LIVE_SECONDS);
        let (progress, mut sum) = (self.progress.clone(), Seconds::new(load.workers.get()));
        let stop = self.stop.child_token();
        let running = load.start(Some(&live), &stop)?;
        // Ends with the last worker, and is joined in `Sending::finish`.
        let live = tokio::spawn(async move {
            while let Some(part) = seconds.recv().await {
                let Some(second) = sum.add(&part) else {
                    continue;
                };
                let _ = progress.try_send(Progress::Second {
                    second: second.second,
                    sent: second.sent,
                    ok: second.ok,
                    failed: second.failed,
                    p99_ms: second.latency.value_at_quantile(0.99) / 1000,
                });
            }
        });
        Ok(Sending {
            running,
            _stop_at_last: stop.clone().drop_guard(),
            stop,
            live,
        })
    }
}

impl Sending {
    async fn finish(self) -> Result<Report, Error> {
        let report = self.running.finish().await?;
        // It only forwards to the display; what became of it changes nothing.
        let _ = self.live.await;
        Ok(report)
    }
}
