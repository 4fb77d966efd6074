//! Our own processes: adopts those that an earlier supervisor left, starts those that are missing,
//! starts again those that end, and ends them all at the end.
//!
//! Back-off is [`mainstay_control::restart`]'s, the same as for instances.

mod arguments;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use mainstay_api::node::Role;
use mainstay_control::restart::Restart;
use mainstay_gateway::settings::SettingsFile;
use mainstay_ids::{Incarnation, Instant};
use mainstay_vip::settings as vip_settings;

use mainstay_kernel::{Ended, Identity, Pidfd, Place, Spawn, Watched};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, sleep_until, timeout};

use super::claim::{self, CLAIM, Holder};
use super::kind::{GATEWAYS, KINDS, Kind};
use super::last_words::last_words;
use super::listening::Listening;
use super::names;
use super::record::{Duty, ProcessRecord, Record, Upgraded};
use super::settings::Settings;
use super::sockets::IfTaken;
use super::upgrade::{LOOK_EVERY, Wanted};
use super::wish::Wish;
use crate::command::API_SOCKET;
use crate::outcome::{Failure, Outcome};
use crate::output;

/// How long one of our processes may take from SIGTERM to its end. A gateway may finish requests
/// before, for as long as it was told.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// How long floating addresses may be offered to others before their holder ends; longer intervals
/// between adverts than some seconds are cut short by it (`mainstay-vrrp`).
const VIP_OFFERS_MAX: Duration = Duration::from_secs(8);

/// A process that fails so soon after its start has a reason that its next start will meet, too. The
/// back-off forgets ends after the same time.
const SOON: Duration = Duration::from_secs(10);

/// A log of our own processes beyond this size is set aside when its process starts anew.
const LOG_LEN_MAX: u64 = 10 * 1024 * 1024;

/// As what a process is started.
#[derive(Debug, Clone)]
pub(super) enum Entrance {
    /// To be kept.
    Kept,
    /// To take over from one that offers its sockets there, and to say that it serves until then.
    Coming { elder: PathBuf, until: Instant },
}

/// One process with what is known of it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) kind: Kind,
    pub(super) incarnation: Incarnation,
    restart: Restart,
    pub(super) state: State,
    /// Where the log of its last start begins.
    log_from: u64,
    told: Told,
    origin: Origin,
}

/// Whether a process of this kind ran under this supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The next start is its first.
    New,
    /// It was adopted, or started before.
    Known,
}

/// Whether the user was shown why a process does not stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    LastWords,
}

#[derive(Debug)]
pub(super) enum State {
    /// It does not run, and nobody starts it.
    Idle,
    /// It runs and is kept; its end is awaited by a task of `Family::ends`, as for all that run.
    Running { identity: Identity, since: Instant },
    /// It ended and is started again then.
    Waiting { until: Instant },
    /// It is to take over from another of its kind, and has until then to say that it serves.
    Coming {
        identity: Identity,
        since: Instant,
        until: Instant,
    },
    /// It finishes what it began, and is killed then. Nobody starts it again.
    Leaving { identity: Identity, until: Instant },
}

impl State {
    /// The process, if there is one.
    pub(super) fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Running { identity, .. }
            | Self::Coming { identity, .. }
            | Self::Leaving { identity, .. } => Some(identity),
            Self::Idle | Self::Waiting { .. } => None,
        }
    }

    fn duty(&self) -> Duty {
        match self {
            Self::Idle => Duty::Idle,
            Self::Running { .. } | Self::Waiting { .. } => Duty::Kept,
            Self::Coming { .. } => Duty::Coming,
            Self::Leaving { .. } => Duty::Leaving,
        }
    }
}

/// All of them.
pub(crate) struct Family {
    pub(super) settings: Settings,
    pub(super) listening: Listening,
    pub(super) members: Vec<Member>,
    /// One task per running process, which ends with it.
    ends: JoinSet<(Kind, Incarnation)>,
    clock: tokio::time::Instant,
    /// SIGUSR1: somebody wants another gateway process.
    asks_for_upgrade: tokio::signal::unix::Signal,
    pub(super) upgrade_wanted: Wanted,
    pub(super) upgrade: Upgraded,
    /// The file of our own program, which may be replaced by a newer one: of that, a gateway that
    /// takes over is started.
    program: PathBuf,
    /// One task per farewell that is said for somebody, at most one per gateway; they end when it
    /// was heard, or with us.
    pub(super) farewells: JoinSet<()>,
    pub(super) saying: BTreeMap<Kind, AbortHandle>,
    /// Who waits until the floating addresses are elsewhere; dropped then.
    pub(super) addresses_gone: Option<oneshot::Sender<Infallible>>,
}

impl Family {
    /// Adopts the processes of an earlier supervisor that still run. The others are started by
    /// [`Family::start_missing`].
    pub(crate) async fn adopt(
        mut settings: Settings,
        record: Option<&Record>,
    ) -> anyhow::Result<Self> {
        let logs = settings.state.join("logs");
        // Output may hold secrets, wherever the state directory is.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&logs)
            .with_context(|| format!("cannot create `{}`", logs.display()))?;
        let mut claims = Vec::new();
        for kind in KINDS {
            claims.push((kind, claim::holder(&settings.state, kind.name()).await?));
        }
        let runs = |(_, holder): &&(Kind, Holder)| matches!(holder, Holder::Runs { .. });
        let adopted = claims.iter().filter(runs).count();
        if adopted > 0 {
            let record = record.ok_or_else(|| lost_record(&settings.state))?;
            output::warn(format_args!(
                "adopting {adopted} processes of an earlier start"
            ));
            settings.addresses = record.addresses();
            settings.stats_if_taken = IfTaken::Refuse;
        }
        let mut family = Self {
            settings,
            listening: Listening::default(),
            members: Vec::new(),
            ends: JoinSet::new(),
            clock: tokio::time::Instant::now(),
            asks_for_upgrade: signal(SignalKind::user_defined1())
                .context("cannot await SIGUSR1")?,
            upgrade_wanted: Wanted::No,
            upgrade: record.map_or_else(Upgraded::default, |record| record.upgrade.clone()),
            program: std::env::current_exe().context("cannot tell our own program")?,
            farewells: JoinSet::new(),
            saying: BTreeMap::new(),
            addresses_gone: None,
        };
        for (kind, holder) in claims {
            family.take_in(kind, holder, record)?;
        }
        family.seat_gateway();
        for index in 0..family.members.len() {
            if matches!(family.members[index].state, State::Idle) {
                family.bury(index);
            }
        }
        Ok(family)
    }

    /// Takes a kind of process in as it was found.
    fn take_in(
        &mut self,
        kind: Kind,
        holder: Holder,
        record: Option<&Record>,
    ) -> anyhow::Result<()> {
        let recorded = record.and_then(|record| record.process(kind.name()));
        let duty = recorded.map_or(Duty::Idle, |process| process.duty);
        let recorded = recorded.map_or(Incarnation(0), |process| process.incarnation);
        let (Holder::Nobody { last }
        | Holder::Runs {
            incarnation: last, ..
        }) = holder;
        let since = self.now();
        let mut member = Member {
            kind,
            // The record of one that was started last may be missing.
            incarnation: recorded.max(last),
            restart: Restart::new(),
            state: State::Idle,
            log_from: 0,
            told: Told::Nothing,
            origin: Origin::New,
        };
        let wanted = self.settings.has(kind.role());
        // Started a moment before its supervisor was killed: it has not taken over.
        let other = record.and_then(|record| record.process(kind.other_gateway().name()));
        let came_late = GATEWAYS.contains(&kind)
            && duty == Duty::Idle
            && other.is_some_and(|other| other.duty == Duty::Kept);
        let Holder::Runs {
            identity, handle, ..
        } = holder
        else {
            let kept = wanted && (duty == Duty::Kept || !GATEWAYS.contains(&kind));
            if kept {
                member.state = State::Waiting { until: since };
            }
            self.members.push(member);
            return Ok(());
        };
        member.origin = Origin::Known;
        member.state = if wanted && matches!(duty, Duty::Kept | Duty::Idle) && !came_late {
            State::Running { identity, since }
        } else {
            // It is told once more: whoever told it may have been killed before.
            let context = || format!("cannot end the {}", kind.name());
            handle.signal(Signal::TERM).with_context(context)?;
            let until = since.after(self.patience(kind));
            State::Leaving { identity, until }
        };
        let incarnation = member.incarnation;
        self.members.push(member);
        self.await_end(kind, incarnation, handle)
    }

    /// Sees to it that one gateway is kept, if the node has one.
    fn seat_gateway(&mut self) {
        if !self.settings.has(Role::Gateway) {
            return;
        }
        let kept = |member: &Member| {
            let kept = matches!(member.state, State::Running { .. } | State::Waiting { .. });
            kept && GATEWAYS.contains(&member.kind)
        };
        if self.members.iter().any(kept) {
            return;
        }
        let until = self.now();
        let idle = |member: &&mut Member| {
            matches!(member.state, State::Idle) && GATEWAYS.contains(&member.kind)
        };
        if let Some(member) = self.members.iter_mut().find(idle) {
            member.state = State::Waiting { until };
        }
    }

    /// How long a process may take from SIGTERM to its end.
    pub(super) fn patience(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Gateway(_) => self.settings.gateway.drain + STOP_DEADLINE,
            // First the gateway finishes what came in at the addresses.
            Kind::Vip => self.settings.gateway.drain + VIP_OFFERS_MAX + STOP_DEADLINE,
            Kind::Server | Kind::Agent | Kind::Broker => STOP_DEADLINE,
        }
    }

    /// Starts what does not run. All sockets are made first: a port that is taken must be told
    /// before anything runs.
    pub(crate) fn start_missing(&mut self) -> anyhow::Result<()> {
        let waiting = |member: &Member| matches!(member.state, State::Waiting { .. });
        let missing: Vec<usize> = (0..self.members.len())
            .filter(|index| waiting(&self.members[*index]))
            .collect();
        for index in &missing {
            self.listen_for(self.members[*index].kind)?;
        }
        if self.settings.has(Role::Gateway) {
            self.save_settings()?;
        }
        if self.settings.has(Role::Vip) {
            self.save_vips()?;
        }
        // Before anything runs: who adopts it must know where it listens.
        self.save()?;
        for index in missing {
            self.enter(index, &Entrance::Kept)?;
        }
        self.save()
    }

    pub(super) fn now(&self) -> Instant {
        Instant::from_start(self.clock.elapsed())
    }

    /// Starts the next incarnation of a process.
    pub(super) fn enter(&mut self, index: usize, entrance: &Entrance) -> anyhow::Result<()> {
        let kind = self.members[index].kind;
        let incarnation = self.next_incarnation(kind);
        self.listen_for(kind)?;
        let log = self.open_log(kind)?;
        self.members[index].log_from = log.metadata().map_or(0, |log| log.len());
        let context = || format!("cannot start the {}", kind.name());
        let claim = claim::take(&self.settings.state, kind.name()).with_context(context)?;
        let child = self
            .spawn(index, incarnation, entrance, &log)
            .pass(CLAIM, claim.as_fd())
            .start()
            .with_context(context)?;
        let identity = Identity::of(child.pid())
            .with_context(context)?
            .with_context(context)?;
        let since = self.now();
        self.members[index].incarnation = incarnation;
        self.members[index].origin = Origin::Known;
        self.members[index].state = match entrance {
            Entrance::Kept => State::Running { identity, since },
            Entrance::Coming { until, .. } => State::Coming {
                identity,
                since,
                until: *until,
            },
        };
        self.await_end(kind, incarnation, child.into_handle())
    }

    fn await_end(
        &mut self,
        kind: Kind,
        incarnation: Incarnation,
        handle: Pidfd,
    ) -> anyhow::Result<()> {
        let process =
            Watched::new(handle).with_context(|| format!("cannot watch the {}", kind.name()))?;
        self.ends.spawn(async move {
            // An error means that the runtime ends, and this task with it.
            process.ended().await.ok();
            (kind, incarnation)
        });
        Ok(())
    }

    /// Makes the sockets that a process needs, unless there are some.
    fn listen_for(&mut self, kind: Kind) -> anyhow::Result<()> {
        match kind {
            Kind::Gateway(_) => self.listening.for_gateway(&mut self.settings),
            Kind::Server => {
                // Bound here as well, since the server is told these addresses.
                if self.settings.has(Role::Gateway) && self.settings.has_open_addresses() {
                    self.listening.for_gateway(&mut self.settings)?;
                }
                self.listening.for_server(&mut self.settings)
            }
            Kind::Agent => self.listening.for_agent(&mut self.settings),
            Kind::Broker => self.listening.for_broker(&mut self.settings),
            Kind::Vip => Ok(()),
        }
    }

    /// Writes down what a gateway reads at its start, and when it is told to.
    pub(super) fn save_settings(&self) -> anyhow::Result<()> {
        let file = SettingsFile::in_state(&self.settings.state);
        file.save(&self.settings.gateway)
            .context("cannot write the gateway's settings, `gateway/settings.json`")
    }

    /// Writes down the floating addresses, which their holder reads at its start. One that runs and
    /// was told others offers what it holds to others, ends, and is started again.
    pub(super) fn save_vips(&self) -> anyhow::Result<()> {
        let (state, vips) = (&self.settings.state, &self.settings.vips);
        // What cannot be read is written anew.
        let same = vip_settings::load(state).is_ok_and(|before| before == *vips);
        if same {
            return Ok(());
        }
        vip_settings::save(state, vips).context("cannot write `vip/settings.json`")?;
        let holder = |member: &Member| {
            member.kind == Kind::Vip && matches!(member.state, State::Running { .. })
        };
        match self.members.iter().position(holder) {
            Some(index) => self.signal(index, Signal::TERM),
            None => Ok(()),
        }
    }

    /// Gateways count together, so that people see which one is newer.
    fn next_incarnation(&self, kind: Kind) -> Incarnation {
        let same = |member: &&Member| member.kind.word() == kind.word();
        let numbers = self.members.iter().filter(same);
        let highest = numbers.map(|member| member.incarnation.0).max();
        Incarnation(highest.unwrap_or(0) + 1)
    }

    fn spawn<'a>(
        &'a self,
        index: usize,
        incarnation: Incarnation,
        entrance: &Entrance,
        log: &'a File,
    ) -> Spawn<'a> {
        let Member { kind, origin, .. } = self.members[index];
        let spawn = match entrance {
            Entrance::Kept => Spawn::own_program("mainstay"),
            Entrance::Coming { .. } => Spawn::new(&self.program),
        };
        let spawn = spawn
            .arguments(["internal", kind.word(), "--state"])
            .argument(&self.settings.state)
            .argument("--incarnation")
            .argument(incarnation.0.to_string())
            .arguments(["--node", self.settings.node.as_str()])
            .own_environment()
            .output(log.as_fd())
            .place(Place::OwnSession);
        match kind {
            Kind::Agent => self.listening.pass_to_agent(self.agent_arguments(spawn)),
            Kind::Vip => self.vip_arguments(spawn),
            Kind::Broker => self.listening.pass_to_broker(self.broker_arguments(spawn)),
            Kind::Server => {
                let spawn = self.server_arguments(spawn, origin);
                self.listening.pass_to_server(spawn)
            }
            Kind::Gateway(_) => {
                let mut spawn = spawn
                    .arguments(["--consumer", kind.name(), "--hand"])
                    .argument(self.hand(kind));
                if let Entrance::Coming { elder, .. } = entrance {
                    spawn = spawn.argument("--elder").argument(elder);
                    // Without a control centre there are no live ones.
                    let live = self.settings.has(Role::Control);
                    spawn = spawn.arguments(live.then_some("--live-routes-only").iter());
                }
                let seams = self.settings.gateway_seams.as_str();
                if !seams.is_empty() {
                    spawn = spawn.arguments(["--unsafe-gateway-seams", seams]);
                }
                self.listening.pass_to_gateway(spawn)
            }
        }
    }

    fn log(&self, kind: Kind) -> PathBuf {
        let logs = self.settings.state.join("logs");
        logs.join(format!("{}.log", kind.word()))
    }

    fn open_log(&self, kind: Kind) -> anyhow::Result<File> {
        let path = self.log(kind);
        let context = || format!("cannot open `{}`", path.display());
        if path.metadata().is_ok_and(|log| log.len() > LOG_LEN_MAX) {
            std::fs::rename(&path, path.with_extension("log.1")).with_context(context)?;
        }
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .with_context(context)
    }

    pub(super) fn save(&self) -> anyhow::Result<()> {
        let processes = self.members.iter().map(|member| ProcessRecord {
            name: member.kind.name().to_owned(),
            incarnation: member.incarnation,
            duty: member.state.duty(),
            identity: member.state.identity().cloned(),
        });
        let (addresses, upgrade) = (self.settings.addresses, self.upgrade.clone());
        Record::new(addresses, upgrade, processes.collect()).save(&self.settings.state)
    }

    /// Starts again whatever ends, and does what is asked for, until it is dropped.
    pub(crate) async fn keep(
        &mut self,
        wishes: &mut mpsc::Receiver<Wish>,
    ) -> anyhow::Result<Infallible> {
        loop {
            let due = self.next_deadline();
            tokio::select! {
                Some(ended) = self.ends.join_next() => {
                    let (kind, incarnation) = ended.context("a watch of a process ended")?;
                    self.ended(kind, incarnation)?;
                }
                Some(wish) = wishes.recv() => self.grant(wish),
                Some(()) = self.asks_for_upgrade.recv() => self.want_upgrade(),
                Some(_) = self.farewells.join_next() => {}
                () = sleep(LOOK_EVERY), if self.coming().is_some() => {
                    self.go_on_with_upgrades();
                    if self.coming().is_some() {
                        continue;
                    }
                }
                () = sleep_until(self.clock + due.since_start()), if due < NEVER => {}
            }
            self.kill_overdue();
            self.start_due();
            self.go_on_with_upgrades();
            self.remember();
        }
    }

    fn next_deadline(&self) -> Instant {
        let due = self.members.iter().filter_map(|member| match member.state {
            State::Waiting { until }
            | State::Coming { until, .. }
            | State::Leaving { until, .. } => Some(until),
            State::Running { .. } | State::Idle => None,
        });
        due.min().unwrap_or(NEVER)
    }

    /// Kills those that were to end by themselves and did not.
    fn kill_overdue(&mut self) {
        let now = self.now();
        for member in &mut self.members {
            let State::Leaving { identity, until } = &mut member.state else {
                continue;
            };
            if *until > now {
                continue;
            }
            let name = member.kind.name();
            output::warn(format_args!("the {name} did not end in time and is killed"));
            let killed = identity
                .open()
                .and_then(|handle| handle.map_or(Ok(()), |handle| handle.signal(Signal::KILL)));
            if let Err(error) = killed {
                output::warn(format_args!("warning: cannot kill the {name}: {error}"));
            }
            // Its end is told by the watch on it.
            *until = NEVER;
        }
    }

    fn ended(&mut self, kind: Kind, incarnation: Incarnation) -> anyhow::Result<()> {
        let now = self.now();
        let log = self.log(kind);
        let member = self.members.iter_mut().find(|member| member.kind == kind);
        let member = member.context("only members are watched")?;
        if member.incarnation != incarnation {
            return Ok(());
        }
        let (identity, since) = match &member.state {
            State::Running { identity, since } => (identity, since),
            State::Coming { identity, .. } | State::Leaving { identity, .. } => {
                mainstay_kernel::try_reap(identity.pid)
                    .with_context(|| format!("cannot reap the {}", kind.name()))?;
                let came = matches!(member.state, State::Coming { .. });
                let log_from = member.log_from;
                member.state = State::Idle;
                if kind == Kind::Vip {
                    self.addresses_gone = None;
                }
                self.bury_kind(kind);
                if came {
                    self.upgrade_failed("the new gateway ended before it served".to_owned());
                    show_last_words(&log, log_from);
                }
                return Ok(());
            }
            State::Idle | State::Waiting { .. } => return Ok(()),
        };
        // `None`: it was adopted, so init reaped it.
        let how = mainstay_kernel::try_reap(identity.pid)
            .with_context(|| format!("cannot reap the {}", kind.name()))?;
        // Who was killed does not know why.
        let failed = how.is_some_and(|how| !matches!(how, Ended::Code(0) | Ended::Signal(9)));
        let soon = now.since(*since) < SOON;
        member.restart.passing(*since);
        let retry = member.restart.ended(now);
        let how = match how {
            Some(Ended::Code(code)) => format!(" with code {code}"),
            Some(Ended::Signal(number)) => format!(" by signal {number}"),
            None => String::new(),
        };
        let (name, delay) = (kind.name(), retry.delay.as_millis());
        output::warn(format_args!(
            "the {name} ended{how}; it is started again in {delay} ms"
        ));
        member.state = State::Waiting { until: retry.until };
        match member.told {
            Told::Nothing if failed && soon => {
                member.told = Told::LastWords;
                show_last_words(&log, member.log_from);
            }
            Told::LastWords if !soon => member.told = Told::Nothing,
            Told::Nothing | Told::LastWords => {}
        }
        Ok(())
    }

    fn bury_kind(&mut self, kind: Kind) {
        if let Some(index) = self.members.iter().position(|member| member.kind == kind) {
            self.bury(index);
        }
    }

    /// Starts what is due. What cannot be started is tried again later: a full disk or a port that
    /// is taken for a moment must not end the others.
    fn start_due(&mut self) {
        let now = self.now();
        for index in 0..self.members.len() {
            let State::Waiting { until } = self.members[index].state else {
                continue;
            };
            if until > now {
                continue;
            }
            if let Err(error) = self.enter(index, &Entrance::Kept) {
                output::warn(format_args!("error: {error:#}"));
                let retry = self.members[index].restart.ended(now);
                self.members[index].state = State::Waiting { until: retry.until };
            }
        }
    }

    /// Ends all processes, the gateway first.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        for kind in KINDS.into_iter().rev() {
            let member = self.members.iter().find(|member| member.kind == kind);
            let identity = member.and_then(|member| member.state.identity());
            let Some(identity) = identity.cloned() else {
                continue;
            };
            let context = || format!("cannot end the {}", kind.name());
            let Some(handle) = identity.open().with_context(context)? else {
                continue;
            };
            handle.signal(Signal::TERM).with_context(context)?;
            let patience = self.patience(kind);
            if timeout(patience, self.end_of(kind)).await.is_err() {
                let name = kind.name();
                output::warn(format_args!("the {name} did not end in time and is killed"));
                handle.signal(Signal::KILL).with_context(context)?;
                self.end_of(kind).await;
            }
        }
        // Nobody listens there any more; a leftover would only be a worse message for the next caller.
        std::fs::remove_file(self.settings.state.join(API_SOCKET)).ok();
        self.save()
    }

    /// Waits until this process has ended.
    async fn end_of(&mut self, kind: Kind) {
        while let Some(ended) = self.ends.join_next().await {
            if let Ok((of, _)) = ended {
                let member = self.members.iter_mut().find(|member| member.kind == of);
                if let Some(member) = member {
                    if let Some(identity) = member.state.identity() {
                        mainstay_kernel::try_reap(identity.pid).ok();
                    }
                    member.state = match member.state {
                        State::Coming { .. } | State::Leaving { .. } | State::Idle => State::Idle,
                        State::Running { .. } | State::Waiting { .. } => {
                            State::Waiting { until: NEVER }
                        }
                    };
                }
                if of == kind {
                    return;
                }
            }
        }
    }
}

/// A time that does not come.
const NEVER: Instant = Instant::NEVER;

fn lost_record(state: &Path) -> Failure {
    let path = state.join("supervisor.json");
    let message = format!(
        "processes of an earlier start run, and `{}`, which says where they listen, is missing",
        path.display()
    );
    let remedy = format!(
        "put it back, or end them: `fuser {}/processes/*` shows them",
        state.display()
    );
    Failure::new(Outcome::Failed, message).remedy(remedy)
}

/// Shows the user why a process ended, where nobody looks into its log.
fn show_last_words(log: &Path, from: u64) {
    match last_words(log, from) {
        Ok(lines) => {
            output::warn(format_args!("  its last words in `{}`:", log.display()));
            for line in lines {
                output::warn(format_args!("  | {line}"));
            }
        }
        Err(error) => output::warn(format_args!(
            "  its log `{}` cannot be read: {error}",
            log.display()
        )),
    }
}
