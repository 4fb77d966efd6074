//! The scenarios against a control centre on paper with real processes: what is asked of the API,
//! who is signalled, what is waited for and what is left behind. That no request is lost is shown
//! where the real one runs.

#![expect(
    clippy::unwrap_used,
    reason = "the control centre on paper belongs to the tests"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fs;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use mainstay_api::client::Server;
use mainstay_api::wire::{
    Accepted, Applied, AppliedService, Apply, Change, InstanceState, InstanceStatus, Scale,
    ServiceState, ServiceStatus, Status,
};
use mainstay_ids::{Attempt, Generation, InstanceId, ServiceName, Timestamp, Version};
use mainstay_model::event::RolloutFailure;
use mainstay_model::service::{
    Check, HealthSpec, LimitsSpec, LogSpec, OnFailure, RolloutSpec, Step,
};
use mainstay_model::{Event, EventKind, Exit, PathPrefix, ServiceSpec, Template};
use mainstay_prove::load::{Connections, NONCE_HEADER};
use mainstay_prove::{Options, Outcome, Scenario, Verdict, prove, render};
use mainstay_testkit::{Spawned, TempDir, program};
use serde::Serialize;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Looks for which a change takes to be in force.
const LAG: u32 = 3;

struct Copy {
    instance: InstanceId,
    version: Version,
    attempt: Attempt,
    process: Spawned,
}

/// One service, `orders`, and Mainstay's own server and agent.
struct Paper {
    dir: TempDir,
    spec: ServiceSpec,
    version: Version,
    number: u64,
    copies: Vec<Copy>,
    own: BTreeMap<&'static str, Spawned>,
    events: Vec<Event>,
    lag: u32,
    refused: Refused,
    entry: std::net::SocketAddr,
}

/// Which versions do not come up.
#[derive(Clone, Copy, PartialEq)]
enum Refused {
    ThoseThatCannotRun,
    All,
}

fn orders() -> ServiceName {
    ServiceName::parse("orders").unwrap()
}

fn spec() -> ServiceSpec {
    let second = Duration::from_secs(1);
    ServiceSpec {
        name: orders(),
        exec: vec![Template::parse("orders").unwrap()],
        dir: "/".into(),
        user: None,
        env: BTreeMap::new(),
        address: None,
        http: None,
        traffic: mainstay_model::Traffic::default(),
        health: HealthSpec {
            check: Check::Http(PathPrefix::parse("/health").unwrap()),
            every: second,
            timeout: second,
            fall: NonZeroU32::MIN,
            rise: NonZeroU32::MIN,
            start: None,
            restart: None,
        },
        instances: 2,
        rollout: RolloutSpec {
            step: Step::Count(NonZeroU32::MIN),
            hold: second,
            deadline: second,
            progress: mainstay_model::service::PROGRESS,
            canary: None,
            on_failure: OnFailure::Pause,
        },
        drain: second,
        grace: second,
        log: LogSpec { size: 1, keep: 1 },
        slo: None,
        needs: BTreeSet::new(),
        before: Vec::new(),
        schedule: None,
        limits: LimitsSpec::default(),
        secrets: BTreeMap::new(),
        artifact: None,
    }
}

impl Paper {
    fn new(entry: std::net::SocketAddr, refused: Refused) -> Self {
        let (spec, events) = (spec(), Vec::new());
        let mut paper = Self {
            dir: TempDir::new("prove"),
            spec,
            version: Version::FIRST,
            number: 0,
            copies: Vec::new(),
            own: BTreeMap::new(),
            events,
            lag: 0,
            refused,
            entry,
        };
        for name in ["server", "agent"] {
            paper.own.insert(name, start(&paper.dir));
        }
        paper.fill(2);
        paper.settle();
        paper
    }

    fn fill(&mut self, count: usize) {
        self.copies.truncate(count);
        while self.copies.len() < count {
            self.number += 1;
            self.copies.push(Copy {
                instance: InstanceId {
                    service: orders(),
                    number: self.number,
                },
                version: self.version,
                attempt: Attempt::FIRST,
                process: start(&self.dir),
            });
        }
        self.lag = LAG;
    }

    /// Starts again what has ended.
    fn settle(&mut self) {
        self.lag = self.lag.saturating_sub(1);
        for copy in &mut self.copies {
            if copy.process.ended().is_some() {
                copy.process = start(&self.dir);
                copy.attempt = copy.attempt.next();
                self.lag = LAG;
            }
        }
        let mut processes = Vec::new();
        for (name, process) in &mut self.own {
            if process.ended().is_some() {
                *process = start(&self.dir);
            }
            let pid = process.pid().as_raw_nonzero().get();
            processes.push(serde_json::json!({ "name": name, "pid": pid, "incarnation": 1 }));
        }
        let file = serde_json::json!({ "format": 1, "processes": processes });
        fs::write(self.dir.join("supervisor.json"), file.to_string()).unwrap();
    }

    fn apply(&mut self, spec: ServiceSpec) -> Applied {
        let before = self.events.len() as u64;
        let mut version = self.version;
        let change = if spec == self.spec {
            Change::Unchanged
        } else {
            Change::Updated
        };
        if change == Change::Updated {
            version = version.next();
            let runs = spec.exec[0].to_string() == "orders" && self.refused != Refused::All;
            let kind = if runs {
                self.spec = spec;
                self.version = version;
                self.copies.clear();
                self.fill(2);
                EventKind::RolloutFinished {
                    version,
                    took_ms: 1,
                }
            } else {
                let instance = InstanceId {
                    service: orders(),
                    number: 99,
                };
                let cause = RolloutFailure::Exited {
                    instance,
                    exit: Exit::Code(1),
                };
                EventKind::RolloutFailed { version, cause }
            };
            let (number, at) = (before + 1, Timestamp(0));
            self.events.push(Event {
                number,
                at,
                service: Some(orders()),
                kind,
            });
        }
        let services = vec![AppliedService {
            service: orders(),
            version,
            change,
            outlook: None,
        }];
        Applied {
            services,
            event: before,
            notes: Vec::new(),
            memory: None,
        }
    }

    fn services(&self) -> Vec<ServiceStatus> {
        let wanted = u32::try_from(self.copies.len()).unwrap();
        vec![ServiceStatus {
            service: orders(),
            version: self.version,
            stable: None,
            wanted,
            ready: wanted,
            withheld: 0,
            state: if self.lag > 0 {
                ServiceState::RollingOut
            } else {
                ServiceState::Steady
            },
            address: None,
            http: Some("*/".into()),
            routes: vec!["*/".to_owned()],
            unavailable: None,
            slo: None,
            versions: Vec::new(),
            wait: None,
            schedule: None,
        }]
    }

    fn instances(&self) -> Vec<InstanceStatus> {
        let status = |copy: &Copy| InstanceStatus {
            instance: copy.instance.clone(),
            service: orders(),
            version: copy.version,
            node: "local".parse().unwrap(),
            attempt: Some(copy.attempt),
            state: InstanceState::Ready,
            pid: Some(u32::try_from(copy.process.pid().as_raw_nonzero().get()).unwrap()),
            address: None,
            since: None,
            last_exit: None,
            probe_failure: None,
            again_at: None,
            wait: None,
            intake: mainstay_model::Intake::default(),
        };
        self.copies.iter().map(status).collect()
    }

    fn status(&self) -> Status {
        Status {
            mainstay: "0".into(),
            since: Timestamp(0),
            generation: Generation::default(),
            entry: vec![self.entry],
            consumers: Vec::new(),
            nodes: Vec::new(),
            services: self.services(),
            stats: None,
        }
    }

    fn answer(&mut self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        self.settle();
        match (method, path) {
            ("GET", "/v1/status") => json(&self.status()),
            ("GET", "/v1/services") => json(&self.services()),
            ("GET", "/v1/instances") => json(&self.instances()),
            ("GET", "/v1/services/orders/spec") => json(&self.spec),
            ("POST", "/v1/services") => {
                let apply: Apply = serde_json::from_slice(body).unwrap();
                json(&self.apply(apply.services[0].clone()))
            }
            ("POST", "/v1/services/orders/scale") => {
                let scale: Scale = serde_json::from_slice(body).unwrap();
                self.fill(usize::try_from(scale.instances).unwrap());
                json(&Accepted {
                    event: 0,
                    notes: Vec::new(),
                })
            }
            ("GET", "/v1/events") => {
                let lines = self
                    .events
                    .iter()
                    .map(|event| [json(event), b"\n".to_vec()].concat());
                lines.flatten().collect()
            }
            other => panic!("{other:?} is not in the API"),
        }
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

fn start(dir: &TempDir) -> Spawned {
    let mut command = Command::new(program("python3"));
    Spawned::start(
        dir,
        "copy",
        command.args(["-c", "import signal; signal.pause()"]),
    )
}

/// Answers every request with its nonce, as a service behind a gateway would.
async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let nonce = request.headers()[NONCE_HEADER].clone();
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(nonce.as_bytes())));
    response.headers_mut().insert(NONCE_HEADER, nonce);
    Ok(response)
}

/// Serves entry and API until the guard is dropped.
async fn begin(refused: Refused) -> (Arc<Mutex<Paper>>, PathBuf, JoinSet<()>) {
    let mut tasks = JoinSet::new();
    let entry = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let paper = Arc::new(Mutex::new(Paper::new(entry.local_addr().unwrap(), refused)));
    let socket = paper.lock().unwrap().dir.join("api.sock");
    let api = UnixListener::bind(&socket).unwrap();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = entry.accept().await.unwrap();
            let service = hyper::service::service_fn(echo);
            connections.spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    let shared = Arc::clone(&paper);
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = api.accept().await.unwrap();
            let paper = Arc::clone(&shared);
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let paper = Arc::clone(&paper);
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let (method, path) = (head.method.as_str(), head.uri.path());
                    let answer = paper.lock().unwrap().answer(method, path, &body);
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answer))))
                }
            });
            connections.spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    (paper, socket, tasks)
}

fn options(socket: PathBuf, scenarios: Vec<Scenario>) -> Options {
    Options {
        state_dir: socket.parent().map(PathBuf::from),
        api: Server::Unix(socket),
        entry: Vec::new(),
        scenarios,
        service: None,
        requests: Vec::new(),
        rate: NonZeroU32::new(100).unwrap(),
        control: Duration::from_millis(300),
        duration: Duration::from_millis(600),
        connections: Connections::Kept(NonZeroUsize::new(4).unwrap()),
        workers: NonZeroUsize::new(2).unwrap(),
        seed: 3,
        forwarding: None,
    }
}

async fn play(socket: PathBuf, scenarios: Vec<Scenario>) -> Verdict {
    let options = options(socket, scenarios);
    let (progress, mut lines) = tokio::sync::mpsc::channel(1000);
    let verdict = prove(options, progress, CancellationToken::new())
        .await
        .unwrap();
    let mut told = 0;
    while lines.recv().await.is_some() {
        told += 1;
    }
    assert!(
        told > verdict.scenarios.len() * 3,
        "{told} lines of progress"
    );
    verdict
}

#[tokio::test]
async fn system_every_scenario_breaks_what_it_says_and_leaves_the_services_as_they_were() {
    let (paper, socket, _tasks) = begin(Refused::ThoseThatCannotRun).await;
    // The machine's packet filter is no place for a test, and there is neither a supervisor here nor
    // anything that forwards: the binary's tests have them.
    let elsewhere = [
        Scenario::Blackhole,
        Scenario::Upgrade,
        Scenario::ForwardFlush,
        Scenario::ForwardCrowd,
        Scenario::ForwardCut,
        Scenario::ForwardReuse,
    ];
    let all = Scenario::ALL.into_iter();
    let scenarios = all.filter(|scenario| !elsewhere.contains(scenario));
    let verdict = play(socket, scenarios.collect()).await;
    let text = render(&verdict);
    assert_eq!(verdict.outcome, Outcome::Holds, "{text}");
    let faults = |index: usize| &verdict.scenarios[index].faults;
    let all = || {
        verdict
            .scenarios
            .iter()
            .flat_map(|scenario| &scenario.faults)
    };
    assert!(all().all(|fault| fault.whole_after_ms.is_some()), "{text}");
    assert!(
        faults(0)[0].what.starts_with("SIGKILL of orders-1 "),
        "{text}"
    );
    assert!(
        faults(1)[0].what.starts_with("SIGTERM of orders-1 "),
        "{text}"
    );
    assert_eq!(faults(2).len(), 2, "{text}");
    let bad: Vec<&str> = faults(3).iter().map(|fault| fault.what.as_str()).collect();
    assert!(
        bad[0].contains("ends at once (rolled back: ") && bad[0].contains("code 1"),
        "{text}"
    );
    assert!(
        bad[1].contains("never gets healthy (rolled back: "),
        "{text}"
    );
    assert_eq!(
        faults(4)[0].what,
        "orders scaled from 2 to 4 instances",
        "{text}"
    );
    assert_eq!(
        faults(4)[1].what,
        "orders scaled from 4 to 2 instances",
        "{text}"
    );
    assert!(
        faults(5)[0].what.contains("server") && faults(5)[1].what.contains("agent"),
        "{text}"
    );
    assert!(
        faults(6)[0].what.starts_with("SIGSTOP of orders-"),
        "{text}"
    );
    assert!(faults(6)[0].whole_after_ms >= Some(3000), "{text}");
    let paper = paper.lock().unwrap();
    assert_eq!((&paper.spec, paper.copies.len()), (&spec(), 2));
}

#[tokio::test]
async fn system_a_rollout_that_fails_does_not_hold_and_says_why() {
    let (paper, socket, _tasks) = begin(Refused::All).await;
    let verdict = play(socket, vec![Scenario::Rollout]).await;
    assert_eq!(verdict.outcome, Outcome::DoesNotHold);
    let problems = verdict.scenarios[0].problems.join("\n");
    assert!(
        problems.contains("orders-99 exited with code 1"),
        "{problems}"
    );
    assert_eq!(verdict.scenarios[0].failed, 0);
    assert_eq!(paper.lock().unwrap().spec, spec());
}

#[tokio::test]
async fn system_where_nothing_is_forwarded_it_is_told_what_to_do() {
    let (_paper, socket, _tasks) = begin(Refused::All).await;
    let options = options(socket, vec![Scenario::ForwardFlush]);
    let (progress, _lines) = tokio::sync::mpsc::channel(1);
    let refused = prove(options, progress, CancellationToken::new()).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("mainstay dev FILE --forward"), "{refused}");
}
