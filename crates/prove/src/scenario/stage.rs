//! Breaks things one after another and waits each time until all is whole again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mainstay_api::client;
use mainstay_api::wire::{InstanceState, InstanceStatus, ServiceState};
use mainstay_ids::{InstanceId, ServiceName};
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::signal::{Death, Victim};
use super::{Fault, Outage, Scenario, Trouble};
use crate::Progress;
use crate::cluster::{Cluster, Snapshot};
use crate::load::Strike;

/// How long a system may take to be whole again after one fault. Restarts back off and new
/// versions have minimum healthy times; what takes longer has gone wrong.
const WHOLE_DEADLINE: Duration = Duration::from_secs(90);

/// How long a process may take to end after its signal.
const END_DEADLINE: Duration = Duration::from_secs(30);

/// Between two looks at the API, which shares the machine with what is measured.
const LOOK: Duration = Duration::from_millis(100);

/// Between the ends of two faults: time in which the load shows that all is well again.
pub(super) const PAUSE: Duration = Duration::from_millis(500);

/// The processes of Mainstay that may die without costing a request.
const PROCESSES: [&str; 2] = ["server", "agent"];

/// Where faults happen: the system, what of it may be broken, and what was done so far.
pub(crate) struct Stage {
    pub(super) cluster: Cluster,
    pub(super) services: Vec<ServiceName>,
    /// Where `supervisor.json` lies, if that is known.
    pub(crate) state_dir: Option<PathBuf>,
    /// The load's start, from which times count.
    pub(crate) started: Instant,
    /// For how long faults are repeated.
    pub(crate) duration: Duration,
    pub(crate) progress: mpsc::Sender<Progress>,
    pub(crate) stop: CancellationToken,
    pub(crate) faults: Vec<Fault>,
    pub(crate) strikes: Vec<Strike>,
    pub(crate) outages: Vec<Outage>,
}

/// The instance whose turn it is.
pub(super) struct Chosen {
    pub(super) service: ServiceName,
    pub(super) instance: InstanceId,
    pub(super) pid: u32,
    pub(super) address: Option<SocketAddr>,
    pub(super) victim: Victim,
}

#[derive(serde::Deserialize)]
struct Supervisor {
    processes: Vec<OwnProcess>,
}

#[derive(serde::Deserialize)]
struct OwnProcess {
    name: String,
    /// `None` while it is being started again.
    pid: Option<u32>,
}

impl Stage {
    pub(crate) fn new(
        cluster: Cluster,
        services: Vec<ServiceName>,
        progress: mpsc::Sender<Progress>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            cluster,
            services,
            state_dir: None,
            started: Instant::now(),
            duration: Duration::ZERO,
            progress,
            stop,
            faults: Vec::new(),
            strikes: Vec::new(),
            outages: Vec::new(),
        }
    }

    /// Plays a scenario to its end; every service is left as it was found, if that is possible.
    pub(crate) async fn play(&mut self, scenario: Scenario) -> Result<(), Trouble> {
        if self.services.is_empty() {
            let why = "no service has a second instance that could stand in".to_owned();
            return Err(Trouble::CannotBreak(why));
        }
        match scenario {
            Scenario::Kill => self.end_instances(Signal::KILL).await,
            Scenario::Stop => self.end_instances(Signal::TERM).await,
            Scenario::Rollout => self.roll_out().await,
            Scenario::RolloutBad => self.roll_out_bad().await,
            Scenario::Scale => self.scale().await,
            Scenario::Processes => self.kill_processes().await,
            Scenario::Freeze => self.freeze().await,
            Scenario::Blackhole => self.cut_off().await,
            Scenario::Upgrade => self.upgrade().await,
            Scenario::ForwardFlush => self.harm_table().await,
            Scenario::ForwardCrowd | Scenario::ForwardCut | Scenario::ForwardReuse => {
                let why = format!("{scenario} is not played on running services");
                Err(Trouble::CannotBreak(why))
            }
        }
    }

    /// Waits until every service is steady.
    pub(crate) async fn wait_whole(&self) -> Result<(), Trouble> {
        self.wait("the services are not all ready", |snapshot| {
            self.services
                .iter()
                .try_for_each(|service| whole(snapshot, service))
        })
        .await
    }

    async fn end_instances(&mut self, signal: Signal) -> Result<(), Trouble> {
        let name = if signal == Signal::KILL {
            "SIGKILL"
        } else {
            "SIGTERM"
        };
        let mut round = 0;
        while round == 0 || self.has_time() {
            let Some(chosen) = self.choose(round).await? else {
                continue;
            };
            let Chosen {
                service,
                instance,
                pid,
                victim,
                ..
            } = chosen;
            let fault = self.begin(format!("{name} of {instance} (process {pid})"));
            let death = end(victim, pid, signal).await?;
            if signal == Signal::KILL {
                let since = |when: Instant| when.saturating_duration_since(self.started);
                let (begin, end) = (since(death.signalled), since(death.gone));
                self.strikes.push(Strike {
                    instance: instance.to_string(),
                    begin,
                    end,
                });
            }
            let what = format!("{service} is not whole again");
            self.wait(&what, |snapshot| {
                if snapshot.of(&service).iter().any(|i| i.pid == Some(pid)) {
                    return Err(format!("process {pid} is still taken for alive"));
                }
                whole(snapshot, &service)
            })
            .await?;
            self.whole_again(fault);
            self.pause(PAUSE).await?;
            round += 1;
        }
        Ok(())
    }

    /// Chooses the next instance and holds its process; `None`, after a moment, if it has just
    /// been started again by itself: then the number may be another's.
    pub(super) async fn choose(&self, round: usize) -> Result<Option<Chosen>, Trouble> {
        let service = self.services[round % self.services.len()].clone();
        let turn = round / self.services.len();
        let snapshot = self.look().await?;
        let all = snapshot.of(&service);
        let Some(chosen) = all.get(turn % all.len().max(1)) else {
            return Err(Trouble::CannotBreak(format!(
                "{service} has no instance to break"
            )));
        };
        let Some(pid) = chosen.pid else {
            return Err(Trouble::CannotBreak(format!(
                "{} has no process",
                chosen.instance
            )));
        };
        let (victim, instance) = (hold(pid)?, chosen.instance.clone());
        let still = |i: &InstanceStatus| i.instance == instance && i.pid == Some(pid);
        let now = self.cluster.instances().await;
        if !now.map_err(api("list the instances"))?.iter().any(still) {
            self.pause(LOOK).await?;
            return Ok(None);
        }
        Ok(Some(Chosen {
            service,
            instance,
            pid,
            address: chosen.address,
            victim,
        }))
    }

    async fn scale(&mut self) -> Result<(), Trouble> {
        let mut round = 0;
        while round < self.services.len() || self.has_time() {
            let service = self.services[round % self.services.len()].clone();
            let snapshot = self.look().await?;
            let wanted = snapshot.service(&service).map_or(0, |status| status.wanted);
            let scaled = self.scale_to(&service, wanted, wanted + 2).await;
            if scaled.is_err() {
                self.cluster
                    .scale(&service, wanted)
                    .await
                    .map_err(api("scale back"))?;
            }
            scaled?;
            self.scale_to(&service, wanted + 2, wanted).await?;
            round += 1;
        }
        Ok(())
    }

    async fn scale_to(&mut self, service: &ServiceName, from: u32, to: u32) -> Result<(), Trouble> {
        let fault = self.begin(format!("{service} scaled from {from} to {to} instances"));
        self.cluster
            .scale(service, to)
            .await
            .map_err(api("scale"))?;
        let what = format!("{service} has not settled at {to} instances");
        self.wait(&what, |snapshot| {
            let wanted = snapshot.service(service).map_or(0, |status| status.wanted);
            if wanted != to {
                return Err(format!("{wanted} are wanted"));
            }
            whole(snapshot, service)
        })
        .await?;
        self.whole_again(fault);
        self.pause(PAUSE).await
    }

    async fn kill_processes(&mut self) -> Result<(), Trouble> {
        let mut round = 0;
        while round < PROCESSES.len() || self.has_time() {
            let name = PROCESSES[round % PROCESSES.len()];
            let pid = self.own_process(name)?;
            let victim = hold(pid)?;
            if self.own_process(name)? != pid {
                // It has just been restarted by itself.
                self.pause(LOOK).await?;
                continue;
            }
            let fault = self.begin(format!("SIGKILL of Mainstay's {name} (process {pid})"));
            end(victim, pid, Signal::KILL).await?;
            let what = format!("Mainstay is not whole again after the end of its {name}");
            self.wait(&what, |snapshot| {
                match self.own_process(name) {
                    Ok(now) if now != pid => {}
                    Ok(_) => return Err(format!("no other {name} was started")),
                    Err(trouble) => return Err(trouble.to_string()),
                }
                self.services
                    .iter()
                    .try_for_each(|service| whole(snapshot, service))
            })
            .await?;
            self.whole_again(fault);
            self.pause(PAUSE).await?;
            round += 1;
        }
        Ok(())
    }

    fn own_process(&self, name: &str) -> Result<u32, Trouble> {
        let Some(dir) = &self.state_dir else {
            let why = "the state directory is not known, so Mainstay's own processes are not";
            return Err(Trouble::CannotBreak(why.to_owned()));
        };
        let path = dir.join("supervisor.json");
        let refuse = |why: &dyn std::fmt::Display| {
            Trouble::CannotBreak(format!("cannot read {}: {why}", path.display()))
        };
        let bytes = std::fs::read(&path).map_err(|error| refuse(&error))?;
        let file: Supervisor = serde_json::from_slice(&bytes).map_err(|error| refuse(&error))?;
        let found = file.processes.iter().find(|process| process.name == name);
        found
            .and_then(|process| process.pid)
            .ok_or_else(|| refuse(&format!("it names no running {name}")))
    }

    pub(super) fn has_time(&self) -> bool {
        self.started.elapsed() < self.duration
    }

    async fn look(&self) -> Result<Snapshot, Trouble> {
        self.cluster
            .snapshot()
            .await
            .map_err(api("ask for the services and instances"))
    }

    /// Records that something is being done now; gives its place in the record.
    pub(super) fn begin(&mut self, what: String) -> usize {
        let at_ms = millis(self.started.elapsed());
        // A display that is slow or gone loses lines; the report loses nothing.
        let _ = self.progress.try_send(Progress::Fault {
            at_ms,
            what: what.clone(),
        });
        self.faults.push(Fault {
            at_ms,
            what,
            whole_after_ms: None,
        });
        self.faults.len() - 1
    }

    pub(super) fn whole_again(&mut self, fault: usize) {
        let fault = &mut self.faults[fault];
        let after_ms = millis(self.started.elapsed()).saturating_sub(fault.at_ms);
        fault.whole_after_ms = Some(after_ms);
        let _ = self.progress.try_send(Progress::Whole { after_ms });
    }

    pub(crate) async fn pause(&self, pause: Duration) -> Result<(), Trouble> {
        tokio::select! {
            () = self.stop.cancelled() => Err(Trouble::Stopped),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }

    /// Looks until `reached` says so; at the deadline it is told what was seen instead. A control
    /// centre that is away counts as not yet.
    pub(super) async fn wait(
        &self,
        what: &str,
        mut reached: impl FnMut(&Snapshot) -> Result<(), String>,
    ) -> Result<(), Trouble> {
        let begin = Instant::now();
        loop {
            let seen = match self.cluster.snapshot().await {
                Ok(snapshot) => match reached(&snapshot) {
                    Ok(()) => return Ok(()),
                    Err(seen) => seen,
                },
                Err(error) if error.is_transient() => super::chain(&error),
                Err(error) => return Err(api("ask for the services and instances")(error)),
            };
            if begin.elapsed() >= WHOLE_DEADLINE {
                let (what, deadline) = (what.to_owned(), WHOLE_DEADLINE);
                return Err(Trouble::NotInTime {
                    what,
                    deadline,
                    seen,
                });
            }
            self.pause(LOOK).await?;
        }
    }
}

/// Whether all that is wanted of a service, and nothing else, is there and ready; else what is.
pub(super) fn whole(snapshot: &Snapshot, service: &ServiceName) -> Result<(), String> {
    let Some(status) = snapshot.service(service) else {
        return Err(format!("{service} is not there"));
    };
    let instances = snapshot.of(service);
    let ready = instances
        .iter()
        .filter(|i| i.state == InstanceState::Ready)
        .count();
    let is_whole = status.state == ServiceState::Steady
        && status.ready == status.wanted
        && u32::try_from(instances.len()) == Ok(status.wanted)
        && ready == instances.len();
    if is_whole {
        return Ok(());
    }
    let seen: Vec<_> = instances
        .iter()
        .map(|i| format!("{} {:?}", i.instance, i.state))
        .collect();
    Err(format!(
        "{service} is {:?}, {} wanted, {}",
        status.state,
        status.wanted,
        seen.join(", ")
    ))
}

fn hold(pid: u32) -> Result<Victim, Trouble> {
    let refused = |error| Trouble::CannotBreak(format!("cannot reach process {pid}: {error}"));
    Victim::hold(pid).map_err(refused)
}

async fn end(victim: Victim, pid: u32, signal: Signal) -> Result<Death, Trouble> {
    victim
        .end_by(signal, END_DEADLINE)
        .await
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::TimedOut => Trouble::NotInTime {
                what: format!("process {pid} did not end after its signal"),
                deadline: END_DEADLINE,
                seen: "it runs".to_owned(),
            },
            _ => Trouble::CannotBreak(format!("cannot signal process {pid}: {error}")),
        })
}

pub(super) fn api(attempt: &'static str) -> impl Fn(client::Error) -> Trouble {
    move |source| Trouble::Api { attempt, source }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
