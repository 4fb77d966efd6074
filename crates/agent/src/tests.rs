//! A whole agent with real shims and programs, without the HTTP in between.

mod accounts;
mod adoption;
mod disk;
mod ends;
mod limits;
mod link;
mod once;
mod probes;
mod reboot;
mod secrets;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mainstay_api::client::Client;
use mainstay_ids::{Attempt, Generation, Incarnation, InstanceId, ServiceName, Version};
use mainstay_kernel::procfs::{self, Liveness, Stat};
use mainstay_model::service::{
    Check, HealthSpec, LimitsSpec, LogSpec, OnFailure, RolloutSpec, Step,
};
use mainstay_model::{
    Exit, InstanceReport, NodePlan, NodeReport, PathPrefix, Phase, PlannedAction, PlannedInstance,
    ProbedHealth, ServiceSpec, Template,
};
use mainstay_testkit::{Spawned, TempDir, program, sweep, wait_until, wait_until_async};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, ShimProgram};
use crate::node::{Error, Node};

pub(super) const SOON: Duration = Duration::from_secs(20);

/// The program of the shim: this package's example, which Cargo builds for its tests.
fn shim_program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("examples/agent_shim")
}

/// Whether instances get cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cgroups {
    IfPossible,
    /// As for an ordinary user.
    None,
}

/// A state directory; what its instances started is killed at the end.
pub(super) struct State {
    path: PathBuf,
    dir: Option<TempDir>,
    cgroups: Cgroups,
    shim: ShimProgram,
}

impl State {
    pub(super) fn new(cgroups: Cgroups) -> Self {
        let dir = TempDir::new("agent");
        Self {
            path: dir.path().canonicalize().unwrap(),
            dir: Some(dir),
            cgroups,
            shim: plain_shim(),
        }
    }

    pub(super) fn at(path: &Path) -> Self {
        Self {
            path: path.canonicalize().unwrap(),
            dir: None,
            cgroups: Cgroups::IfPossible,
            shim: plain_shim(),
        }
    }

    pub(super) fn context(&self) -> Context {
        let mut context = Context::new(
            self.path.clone(),
            std::net::Ipv4Addr::LOCALHOST.into(),
            self.shim.clone(),
            Client::unix(&self.path.join("api.sock")),
            CancellationToken::new(),
        );
        if self.cgroups == Cgroups::None {
            context.cgroups = Err(mainstay_kernel::cgroup::Unusable::NotRoot);
        }
        context
    }

    /// Starts an agent; it ends with the value, and its instances live on.
    pub(super) async fn agent(&self, incarnation: u64) -> Agent {
        let context = self.context();
        let stop = context.stop.clone();
        let (plans, plans_seen) = watch::channel(None);
        let (reports_end, reports) = watch::channel(None);
        let node = Node::adopt("local".parse().unwrap(), Incarnation(incarnation), context)
            .await
            .unwrap();
        let (_, happened) = tokio::sync::watch::channel(Vec::new());
        let task = tokio::spawn(node.run(plans_seen, happened, reports_end));
        Agent {
            stop,
            plans,
            reports,
            task,
            generation: Generation::default(),
        }
    }

    /// The directory of the test.
    pub(super) fn dir(&self) -> &TempDir {
        self.dir.as_ref().expect("it was made by `new`")
    }

    pub(super) fn run(&self) -> PathBuf {
        self.path.join("run/web-1")
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.path.join("logs/web-1.log")).unwrap_or_default()
    }

    /// The shim's number, as it wrote it.
    pub(super) fn shim(&self) -> u32 {
        let text = fs::read_to_string(self.run().join("shim.json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        record["shim"]["pid"].as_u64().unwrap().try_into().unwrap()
    }

    /// The numbers of the processes of its instances that run.
    pub(super) fn processes(&self) -> Vec<u32> {
        let mark = vec![format!("MAINSTAY_MARK={}", self.context().mark())];
        let all = procfs::all().unwrap();
        all.iter()
            .map(|stat| stat.pid)
            .filter(|pid| procfs::is_marked(*pid, &mark))
            .collect()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let context = self.context();
        sweep(&format!("MAINSTAY_MARK={}", context.mark()));
        // Their shims end by themselves and are waited for, since they write into the directory.
        let run = self.path.join("run");
        let ids = fs::read_dir(run)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name());
        for id in ids.filter_map(|name| name.to_str()?.parse::<InstanceId>().ok()) {
            let run = crate::record::RunDir::of(&self.path, &id);
            wait_until(SOON, "the shim ended", || match run.lock() {
                Ok(None) => Err(format!("{id}'s shim lives")),
                Ok(Some(_)) | Err(_) => Ok(()),
            });
            if let Ok(tree) = &context.cgroups {
                super::groups::remove(tree, &context.mark(), &id);
            }
        }
    }
}

fn plain_shim() -> ShimProgram {
    ShimProgram {
        program: Some(shim_program()),
        arguments: Vec::new(),
    }
}

/// An agent under test.
pub(super) struct Agent {
    stop: CancellationToken,
    plans: watch::Sender<Option<NodePlan>>,
    reports: watch::Receiver<Option<NodeReport>>,
    task: JoinHandle<Result<(), Error>>,
    generation: Generation,
}

impl Agent {
    pub(super) fn plan(&mut self, instances: Vec<PlannedInstance>) {
        self.generation = self.generation.next();
        let plan = NodePlan {
            generation: self.generation,
            node: "local".parse().unwrap(),
            instances,
        };
        self.plans.send_replace(Some(plan));
    }

    /// Waits until the newest plan was taken over.
    pub(super) async fn until_the_plan_is_taken(&self) {
        wait_until_async(SOON, "the plan is taken over", async || {
            let plan = self.report().and_then(|report| report.plan);
            if plan == Some(self.generation) {
                Ok(())
            } else {
                Err(format!("{plan:?}"))
            }
        })
        .await;
    }

    pub(super) fn report(&self) -> Option<NodeReport> {
        self.reports.borrow().clone()
    }

    pub(super) fn instance(&self) -> Option<InstanceReport> {
        self.report()?.instances.first().cloned()
    }

    /// Waits until the first instance's report gives a value.
    pub(super) async fn until<T>(
        &self,
        what: &str,
        look: impl Fn(&InstanceReport) -> Option<T>,
    ) -> T {
        wait_until_async(SOON, what, async || {
            let report = self.instance();
            report
                .as_ref()
                .and_then(&look)
                .ok_or_else(|| format!("{report:?}"))
        })
        .await
    }

    /// Waits until it passes; its process.
    pub(super) async fn passing(&self) -> u32 {
        self.until("it passes", |report| match report.phase {
            Phase::Running {
                pid,
                health: ProbedHealth::Passing,
                ..
            } => Some(pid),
            _ => None,
        })
        .await
    }

    /// Waits until it has ended in that way.
    pub(super) async fn ended(&self) -> Exit {
        self.until("it ended", |report| match report.phase {
            Phase::BackingOff { exit, .. } => Some(exit),
            _ => report.last_exit,
        })
        .await
    }

    pub(super) async fn stopped(&self) -> Option<Exit> {
        self.until("it is stopped", |report| match report.phase {
            Phase::Stopped { exit } => Some(exit),
            _ => None,
        })
        .await
    }

    /// Ends the agent, as its supervisor would.
    pub(super) async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(SOON, self.task)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}

/// A word as it stands; only the word `PORT` alone is the place for the port.
pub(super) fn template(word: &str) -> Template {
    let text = if word == "PORT" {
        "{port}".to_owned()
    } else {
        word.replace('{', "{{").replace('}', "}}")
    };
    Template::parse(&text).unwrap()
}

/// One instance of the service `web`, to run.
pub(super) fn web(exec: &[&str], check: Check) -> PlannedInstance {
    let one = NonZeroU32::MIN;
    let name: ServiceName = "web".parse().unwrap();
    let spec = ServiceSpec {
        name: name.clone(),
        exec: exec.iter().map(|word| template(word)).collect(),
        dir: "/".into(),
        user: None,
        env: BTreeMap::new(),
        address: None,
        http: None,
        traffic: mainstay_model::Traffic::default(),
        health: HealthSpec {
            check,
            every: Duration::from_millis(100),
            timeout: Duration::from_secs(2),
            fall: one,
            rise: one,
            start: None,
            restart: None,
        },
        instances: 1,
        rollout: RolloutSpec {
            step: Step::Count(one),
            hold: Duration::ZERO,
            deadline: Duration::from_secs(10),
            progress: mainstay_model::service::PROGRESS,
            canary: None,
            on_failure: OnFailure::Rollback,
        },
        drain: Duration::from_secs(1),
        grace: Duration::from_secs(10),
        log: LogSpec {
            size: 10_000_000,
            keep: 2,
        },
        slo: None,
        needs: BTreeSet::new(),
        before: Vec::new(),
        schedule: None,
        limits: LimitsSpec::default(),
        secrets: BTreeMap::new(),
        artifact: None,
    };
    PlannedInstance {
        instance: InstanceId {
            service: name,
            number: 1,
        },
        version: Version(4),
        spec,
        addresses: BTreeMap::new(),
        action: PlannedAction::Run,
    }
}

/// A Python program as an instance that counts as healthy once it runs.
pub(super) fn python(code: &str) -> PlannedInstance {
    let python = program("python3");
    web(
        &[python.to_str().unwrap(), "-u", "-c", code],
        Check::Exec(vec![Template::parse("/bin/true").unwrap()]),
    )
}

pub(super) fn to_stop(mut planned: PlannedInstance) -> PlannedInstance {
    planned.action = PlannedAction::Stop;
    planned
}

/// Makes an empty file into which every account may write.
pub(super) fn for_all(path: &Path) {
    fs::write(path, "").unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
}

pub(super) fn is_alive(pid: u32) -> bool {
    Stat::of(pid)
        .unwrap()
        .is_some_and(|stat| stat.liveness == Liveness::Alive)
}

pub(super) fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn system_an_instance_is_started_probed_stopped_and_forgotten() {
    let state = State::new(Cgroups::IfPossible);
    let mut agent = state.agent(1).await;
    let python = program("python3");
    let exec = [
        python.to_str().unwrap(),
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        "PORT",
    ];
    let planned = web(&exec, Check::Http(PathPrefix::parse("/").unwrap()));
    agent.plan(vec![planned.clone()]);
    let pid = agent.passing().await;
    let report = agent.instance().unwrap();
    assert_eq!(
        (report.version, report.attempt, report.last_exit),
        (Version(4), Attempt::FIRST, None)
    );
    let capacity = agent.report().unwrap().capacity.unwrap();
    assert!(capacity.cpu_thousandths >= 1 && capacity.memory_bytes > 1 << 20);
    let environ = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let environ = String::from_utf8(environ).unwrap();
    for part in [
        "HOST=127.0.0.1\0",
        "PORT=2",
        "MAINSTAY_SERVICE=web\0",
        "MAINSTAY_INSTANCE=web-1\0",
        "MAINSTAY_VERSION=4\0",
        "PATH=",
    ] {
        assert!(environ.contains(part), "{part} in {environ}");
    }
    agent.plan(vec![to_stop(planned)]);
    assert_eq!(agent.stopped().await, Some(Exit::Signal(15)));
    assert_eq!(agent.report().unwrap().plan, Some(agent.generation));
    let log = state.log();
    assert!(
        log.starts_with("mainstay: web-1 attempt 1 started at ") && log.contains("GET / HTTP/1.1"),
        "{log}"
    );
    assert!(
        log.lines()
            .last()
            .unwrap()
            .starts_with("mainstay: web-1 attempt 1 ended by signal 15 at "),
        "{log}"
    );
    agent.plan(Vec::new());
    wait_until_async(SOON, "it is forgotten", async || match agent.instance() {
        None => Ok(()),
        Some(report) => Err(format!("{report:?}")),
    })
    .await;
    assert!(!state.run().exists());
    agent.end().await;
}

#[tokio::test]
async fn system_an_order_to_stop_what_was_never_started_is_answered() {
    let state = State::new(Cgroups::IfPossible);
    let mut agent = state.agent(1).await;
    agent.plan(vec![to_stop(python("pass"))]);
    assert_eq!(agent.stopped().await, None);
    agent.end().await;
}

#[tokio::test]
async fn system_what_the_plan_does_not_name_is_left_alone() {
    let state = State::new(Cgroups::IfPossible);
    let mut agent = state.agent(1).await;
    agent.plan(vec![python("import signal; signal.pause()")]);
    let pid = agent.passing().await;
    agent.plan(Vec::new());
    let generation = agent.generation;
    wait_until_async(SOON, "the plan is taken over", async || {
        let plan = agent.report().and_then(|report| report.plan);
        if plan == Some(generation) {
            Ok(())
        } else {
            Err(format!("{plan:?}"))
        }
    })
    .await;
    assert_eq!(agent.passing().await, pid);
    agent.end().await;
}
