//! Rounds of SIGKILLs against the processes of a running Mainstay under load, and the judge who says
//! whether anybody noticed.

mod judge;

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::{Duration, Instant};

use mainstay_api::wire::{InstanceState, InstanceStatus, Status};
use mainstay_prove::load::{Connections, Load, Report, Target};
use mainstay_testkit::census::{Watch, census, variable};
use mainstay_testkit::kills::{Round, Step, Victim, pause};
use mainstay_testkit::wait_until;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::running::{PATIENCE, Running, echo_server, kill, processes, text};
use judge::{Standing, judge};

/// How many copies the besieged service has.
const INSTANCES: usize = 4;

/// Half of the load may not be sent twice, so nobody can hide a loss by sending it again.
const REQUESTS: [&str; 2] = ["GET /", "POST / {}"];

/// Each instance needs 30 ms for an answer, so that some requests are always in flight.
const KEYS: &str = r#"
http = { path = "/" }
health = { get = "/", every = "500ms", timeout = "5s", fall = 5 }
instances = 4
rollout = { hold = "200ms", deadline = "30s" }
drain = "10s"
grace = "2s"
"#;

/// The load goes on for so long after all is at rest again: what breaks late is seen, too.
const AFTERMATH: Duration = Duration::from_millis(300);

/// A round that takes longer than this ends in vain before the load does.
const LOAD_MAX: Duration = Duration::from_mins(5);

/// One service with four instances, behind the gateway, and what is done to its keepers.
pub(crate) struct Siege {
    running: Running,
    options: Vec<&'static str>,
    /// Stands in the environment of every instance of this directory.
    mark: String,
    rate: NonZeroU32,
    /// The process of each part that was killed last.
    killed: BTreeMap<Victim, u32>,
}

/// What one round was.
pub(crate) struct Outcome {
    pub(crate) round: Round,
    /// What went wrong; empty if nobody noticed anything.
    pub(crate) complaints: Vec<String>,
    /// From the last step until all was at rest.
    pub(crate) rest: Duration,
    pub(crate) load: Report,
}

impl Siege {
    /// Starts everything, with these options of `dev`.
    pub(crate) fn lay(name: &str, options: &[&'static str], rate: NonZeroU32) -> Self {
        let mut running = Running::prepare(name);
        let file = running.write_service(&echo_server(), KEYS);
        let file = file.to_str().unwrap().to_owned();
        running.dev(&[&[file.as_str()], options].concat());
        running.wait_until_steady();
        let instances = at_rest(&running, Instant::now());
        let value = instances[0]
            .pid
            .and_then(|pid| variable(pid, "MAINSTAY_MARK"));
        Self {
            running,
            options: options.to_vec(),
            mark: format!("MAINSTAY_MARK={}", value.expect("instances are marked")),
            rate,
            killed: BTreeMap::new(),
        }
    }

    /// Performs a round and judges it.
    pub(crate) fn round(&mut self, round: Round, seed: u64) -> Outcome {
        let before = self.standing(&at_rest(&self.running, Instant::now()));
        let watch = Watch::start(&self.mark);
        let stop = CancellationToken::new();
        let load = self.load(seed).start(None, &stop).unwrap();
        for step in &round.steps {
            self.perform(*step);
        }
        let done = Instant::now();
        let after = at_rest(&self.running, done);
        let rest = done.elapsed();
        pause(AFTERMATH);
        stop.cancel();
        let load = load.join().unwrap();
        let after = self.standing(&after);
        let complaints = judge(&before, &after, &watch.seen(), &load);
        Outcome {
            round,
            complaints,
            rest,
            load,
        }
    }

    fn standing(&self, instances: &[InstanceStatus]) -> Standing {
        Standing::new(instances, census(&self.mark))
    }

    fn load(&self, seed: u64) -> Load {
        let status = self.running.wait_until_steady();
        let requests = REQUESTS.map(|request| request.parse().unwrap());
        Load {
            targets: vec![Target {
                name: "web".to_owned(),
                addresses: status.entry,
                host: "siege".to_owned(),
                requests: requests.to_vec(),
            }],
            rate: self.rate,
            duration: LOAD_MAX,
            connections: Connections::Kept(NonZeroUsize::new(32).unwrap()),
            workers: NonZeroUsize::MIN,
            seed,
        }
    }

    fn perform(&mut self, step: Step) {
        match step {
            Step::Pause(length) => pause(length),
            Step::Kill(Victim::Supervisor) => self.running.kill_dev(),
            Step::Kill(victim) => {
                // None, if it is just dead.
                for pid in processes(self.running.state(), role(victim)) {
                    kill(pid, Signal::KILL);
                    self.killed.insert(victim, pid);
                    wait_until(PATIENCE, "the killed one is dead", || {
                        let found = processes(self.running.state(), role(victim));
                        if found.contains(&pid) {
                            Err(format!("{found:?}"))
                        } else {
                            Ok(())
                        }
                    });
                }
            }
            Step::StartSupervisor => self.running.dev(&self.options),
            Step::AwaitNext(Victim::Supervisor) => {}
            Step::AwaitNext(victim) => {
                let dead = self.killed.get(&victim).copied();
                wait_until(PATIENCE, &format!("the {victim} is started again"), || {
                    let found = processes(self.running.state(), role(victim));
                    match found.iter().find(|pid| Some(**pid) != dead) {
                        Some(_) => Ok(()),
                        None => Err(format!("{found:?}, killed {dead:?}")),
                    }
                });
            }
        }
    }
}

/// Waits until every process of ours runs once, is on record and was heard after `since`, and all
/// instances are ready.
#[track_caller]
fn at_rest(running: &Running, since: Instant) -> Vec<InstanceStatus> {
    wait_until(PATIENCE, "all is at rest", || {
        if let Some(ended) = running.spawned().ended() {
            return Err(format!("dev ended: {ended:?}"));
        }
        for name in ["server", "agent", "gateway", "broker"] {
            let found = processes(running.state(), name);
            let recorded = running.own_process(name);
            if found.len() != 1 || recorded != found.first().copied() {
                return Err(format!("{name}: {found:?}, on record {recorded:?}"));
            }
        }
        let whole = running.run(&["status", "--json"]);
        if !whole.status.success() {
            return Err(text(&whole));
        }
        let status: Status = serde_json::from_slice(&whole.stdout).map_err(|e| e.to_string())?;
        let heard = |silent_ms: Option<u64>| {
            silent_ms.is_some_and(|silent| Duration::from_millis(silent) < since.elapsed())
        };
        if !(status.nodes.iter().all(|node| heard(node.silent_ms))
            && status.consumers.iter().all(|of| heard(Some(of.silent_ms))))
        {
            return Err(text(&whole));
        }
        let instances = running.instances()?;
        let ready = |instance: &InstanceStatus| {
            instance.state == InstanceState::Ready && instance.pid.is_some()
        };
        if instances.len() == INSTANCES && instances.iter().all(ready) {
            Ok(instances)
        } else {
            Err(format!("{instances:?}"))
        }
    })
}

fn role(victim: Victim) -> &'static str {
    match victim {
        Victim::Supervisor => "dev",
        Victim::ControlCentre => "server",
        Victim::Agent => "agent",
    }
}

impl Outcome {
    /// For people.
    pub(crate) fn line(&self) -> String {
        format!(
            "{}; at rest after {} ms; {} failed of {}, {} unsent",
            self.round,
            self.rest.as_millis(),
            self.failed(),
            self.load.sent(),
            self.load.unsent
        )
    }

    fn failed(&self) -> u64 {
        self.load.failed().values().sum()
    }

    fn slowest_ms(&self) -> u64 {
        let slowest = self.load.targets.iter().map(|target| target.latency.max());
        slowest.max().unwrap_or(0) / 1000
    }
}

/// The sum of all rounds, for programs.
pub(crate) fn summary(seed: u64, outcomes: &[Outcome]) -> Value {
    let kills = |victim| -> usize {
        let rounds = outcomes.iter();
        rounds.map(|outcome| outcome.round.kills(victim)).sum()
    };
    let sum = |count: fn(&Outcome) -> u64| -> u64 { outcomes.iter().map(count).sum() };
    let mut rests: Vec<u128> = outcomes
        .iter()
        .map(|outcome| outcome.rest.as_millis())
        .collect();
    rests.sort_unstable();
    let complaints: Vec<&String> = outcomes
        .iter()
        .flat_map(|outcome| &outcome.complaints)
        .collect();
    json!({
        "seed": seed,
        "rounds": outcomes.len(),
        "kills": {
            "supervisor": kills(Victim::Supervisor),
            "control_centre": kills(Victim::ControlCentre),
            "agent": kills(Victim::Agent),
        },
        "requests": {
            "planned": sum(|outcome| outcome.load.planned),
            "ok": sum(|outcome| outcome.load.ok()),
            "failed": sum(Outcome::failed),
            "unsent": sum(|outcome| outcome.load.unsent),
            "slowest_ms": outcomes.iter().map(Outcome::slowest_ms).max(),
        },
        "rest_ms": {
            "median": rests.get(rests.len() / 2),
            "max": rests.last(),
        },
        "complaints": complaints,
    })
}
