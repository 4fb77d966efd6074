//! Our own processes: adopts those that an earlier supervisor left, starts those that are missing,
//! starts again those that end, and ends them all at the end.
//!
//! Back-off is [`mainstay_control::restart`]'s, the same as for instances.

use std::convert::Infallible;
use std::fs::{DirBuilder, File, OpenOptions};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use mainstay_control::restart::Restart;
use mainstay_ids::{Incarnation, Instant, NodeName};

use mainstay_kernel::{Ended, Identity, Pidfd, Place, Spawn, Watched};
use rustix::process::Signal;
use socket2::Socket;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use super::claim::{self, CLAIM, Holder};
use super::last_words::last_words;
use super::record::{Places, ProcessRecord, Record};
use super::sockets::{self, API_TCP, API_UNIX, ENTRY, STATS};
use crate::arguments::{Dev, StatsPlace, Switch};
use crate::command::API_SOCKET;
use crate::outcome::{Failure, Outcome};
use crate::output;

/// How long one of our processes may take from SIGTERM to its end. The gateway finishes requests
/// within its own, shorter bound.
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// A process that fails so soon after its start has a reason that its next start will meet, too. The
/// back-off forgets ends after the same time.
const SOON: Duration = Duration::from_secs(10);

/// A log of our own processes beyond this size is set aside when its process starts anew.
const LOG_LEN_MAX: u64 = 10 * 1024 * 1024;

/// One of our processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Server,
    Agent,
    Gateway,
}

/// In the order of their start. At the end the gateway goes first, so that it still hears of the
/// last instances.
const KINDS: [Kind; 3] = [Kind::Server, Kind::Agent, Kind::Gateway];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Agent => "agent",
            Self::Gateway => "gateway",
        }
    }
}

/// What the processes are told.
#[derive(Debug)]
pub(crate) struct Settings {
    state: PathBuf,
    node: NodeName,
    entry: SocketAddr,
    api: SocketAddr,
    stats: StatsAt,
    /// Who may open the unix socket, beside its owner.
    api_group: Option<u32>,
    workers: usize,
    access_log: Switch,
    server_flags: Vec<&'static str>,
    agent_flags: Vec<&'static str>,
    gateway_seams: String,
}

impl Settings {
    pub(crate) fn new(state: &Path, dev: &Dev) -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let flag = |set: bool, name| set.then_some(name).into_iter().collect();
        Ok(Self {
            state: state.to_owned(),
            node: super::node()?,
            entry: dev.entry,
            api: dev.api,
            stats: match dev.stats {
                None => StatsAt::Usual,
                Some(StatsPlace::At(address)) => StatsAt::Given(address),
                Some(StatsPlace::Off) => StatsAt::Nowhere,
            },
            api_group: dev.api_group.as_deref().map(sockets::group).transpose()?,
            workers: dev.workers.map_or(cores, usize::from),
            access_log: dev.access_log,
            server_flags: flag(
                dev.unsafe_no_acknowledged_drain,
                "--unsafe-no-acknowledged-drain",
            ),
            agent_flags: flag(dev.unsafe_no_adoption, "--unsafe-no-adoption"),
            gateway_seams: dev.unsafe_gateway_seams.clone(),
        })
    }
}

/// Where statistics are to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StatsAt {
    /// Nobody said: on the usual port, or a free one.
    Usual,
    /// There.
    Given(SocketAddr),
    Nowhere,
}

impl StatsAt {
    fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Given(address) => Some(address),
            Self::Usual | Self::Nowhere => None,
        }
    }

    /// Whether the address is known only when it is listened on.
    fn is_open(self) -> bool {
        match self {
            Self::Usual => true,
            Self::Given(address) => address.port() == 0,
            Self::Nowhere => false,
        }
    }
}

/// The listening sockets, made when a process that needs them is started: an adopted process has
/// its own.
#[derive(Debug, Default)]
struct Listening {
    entry: Vec<Socket>,
    stats: Option<Socket>,
    api: Option<(OwnedFd, Socket)>,
}

/// One process with what is known of it.
#[derive(Debug)]
struct Member {
    kind: Kind,
    incarnation: Incarnation,
    restart: Restart,
    state: State,
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
enum State {
    /// It runs; its end is awaited by a task of `Family::ends`.
    Running { identity: Identity, since: Instant },
    /// It ended and is started again then.
    Waiting { until: Instant },
}

/// All of them.
pub(crate) struct Family {
    settings: Settings,
    listening: Listening,
    members: Vec<Member>,
    /// One task per running process, which ends with it.
    ends: JoinSet<(Kind, Incarnation)>,
    clock: tokio::time::Instant,
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
            settings.entry = record.entry;
            settings.api = record.api;
            settings.stats = record.stats.map_or(StatsAt::Nowhere, StatsAt::Given);
        }
        let mut family = Self {
            settings,
            listening: Listening::default(),
            members: Vec::new(),
            ends: JoinSet::new(),
            clock: tokio::time::Instant::now(),
        };
        for (kind, holder) in claims {
            let recorded = record.and_then(|record| record.process(kind.name()));
            let recorded = recorded.map_or(Incarnation(0), |process| process.incarnation);
            let (Holder::Nobody { last }
            | Holder::Runs {
                incarnation: last, ..
            }) = holder;
            let state = State::Waiting {
                until: family.now(),
            };
            family.members.push(Member {
                kind,
                // The record of one that was started last may be missing.
                incarnation: recorded.max(last),
                restart: Restart::new(),
                state,
                log_from: 0,
                told: Told::Nothing,
                origin: Origin::New,
            });
            if let Holder::Runs {
                identity, handle, ..
            } = holder
            {
                family.take_in(kind, identity, handle)?;
            }
        }
        Ok(family)
    }

    fn take_in(&mut self, kind: Kind, identity: Identity, handle: Pidfd) -> anyhow::Result<()> {
        let since = self.now();
        let member = self.members.iter_mut().find(|member| member.kind == kind);
        let member = member.context("there is a member of each kind")?;
        member.state = State::Running { identity, since };
        member.origin = Origin::Known;
        let incarnation = member.incarnation;
        self.await_end(kind, incarnation, handle)
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
        // Before anything runs: who adopts it must know where it listens.
        self.save()?;
        for index in missing {
            self.start(index)?;
        }
        self.save()
    }

    fn now(&self) -> Instant {
        Instant::from_start(self.clock.elapsed())
    }

    /// Starts the next incarnation of a process.
    fn start(&mut self, index: usize) -> anyhow::Result<()> {
        let kind = self.members[index].kind;
        let incarnation = Incarnation(self.members[index].incarnation.0 + 1);
        self.listen_for(kind)?;
        let log = self.open_log(kind)?;
        self.members[index].log_from = log.metadata().map_or(0, |log| log.len());
        let context = || format!("cannot start the {}", kind.name());
        let claim = claim::take(&self.settings.state, kind.name()).with_context(context)?;
        let child = self
            .spawn(kind, incarnation, self.members[index].origin, &log)
            .pass(CLAIM, claim.as_fd())
            .start()
            .with_context(context)?;
        let identity = Identity::of(child.pid())
            .with_context(context)?
            .with_context(context)?;
        let since = self.now();
        self.members[index].incarnation = incarnation;
        self.members[index].origin = Origin::Known;
        self.members[index].state = State::Running { identity, since };
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
            Kind::Gateway if self.listening.entry.is_empty() => {
                let entry = sockets::bind_entry(self.settings.entry, self.settings.workers)?;
                self.settings.entry = sockets::local_address(&entry[0])?;
                self.listening.entry = entry;
                if self.settings.stats != StatsAt::Nowhere {
                    let stats = sockets::bind_stats(self.settings.stats.address())?;
                    self.settings.stats = StatsAt::Given(sockets::local_address(&stats)?);
                    self.listening.stats = Some(stats);
                }
            }
            Kind::Server if self.listening.api.is_none() => {
                // Bound here as well, since the server is told these addresses.
                if self.settings.entry.port() == 0 || self.settings.stats.is_open() {
                    self.listen_for(Kind::Gateway)?;
                }
                let tcp = sockets::bind_api_tcp(self.settings.api)?;
                self.settings.api = sockets::local_address(&tcp)?;
                let socket = self.settings.state.join(API_SOCKET);
                let unix = sockets::bind_api_unix(&socket, self.settings.api_group)?;
                self.listening.api = Some((unix, tcp));
            }
            Kind::Gateway | Kind::Server | Kind::Agent => {}
        }
        Ok(())
    }

    fn spawn<'a>(
        &'a self,
        kind: Kind,
        incarnation: Incarnation,
        origin: Origin,
        log: &'a File,
    ) -> Spawn<'a> {
        let spawn = Spawn::own_program("mainstay")
            .arguments(["internal", kind.name(), "--state"])
            .argument(&self.settings.state)
            .argument("--incarnation")
            .argument(incarnation.0.to_string())
            .arguments(["--node", self.settings.node.as_str()])
            .own_environment()
            .output(log.as_fd())
            .place(Place::OwnSession);
        match kind {
            Kind::Agent => spawn.arguments(self.settings.agent_flags.iter()),
            Kind::Server => {
                // A stop of everything is this supervisor's own, and outlives the control centre.
                let over = match origin {
                    Origin::New => Some("--earlier-stop-is-over"),
                    Origin::Known => None,
                };
                let spawn = spawn
                    .arguments(over.iter())
                    .argument("--entry")
                    .argument(self.settings.entry.to_string())
                    .arguments(self.settings.server_flags.iter());
                let spawn = match self.settings.stats.address() {
                    Some(stats) => spawn.argument("--stats").argument(stats.to_string()),
                    None => spawn,
                };
                let spawn = match self.settings.api_group {
                    Some(group) => spawn.argument("--api-group").argument(group.to_string()),
                    None => spawn,
                };
                self.listening.api.iter().fold(spawn, |spawn, (unix, tcp)| {
                    spawn
                        .pass(API_UNIX, unix.as_fd())
                        .pass(API_TCP, tcp.as_fd())
                })
            }
            Kind::Gateway => {
                let access_log = match self.settings.access_log {
                    Switch::On => "on",
                    Switch::Off => "off",
                };
                let spawn = spawn.arguments(["--access-log", access_log]);
                let seams = &self.settings.gateway_seams;
                let spawn = match seams.as_str() {
                    "" => spawn,
                    seams => spawn.arguments(["--unsafe-gateway-seams", seams]),
                };
                let stats = self.listening.stats.iter();
                let spawn = stats.fold(spawn, |spawn, socket| spawn.pass(STATS, socket.as_fd()));
                let entry = self.listening.entry.iter();
                entry.fold(spawn, |spawn, socket| spawn.pass(ENTRY, socket.as_fd()))
            }
        }
    }

    fn log(&self, kind: Kind) -> PathBuf {
        let logs = self.settings.state.join("logs");
        logs.join(format!("{}.log", kind.name()))
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

    fn save(&self) -> anyhow::Result<()> {
        let processes = self.members.iter().map(|member| ProcessRecord {
            name: member.kind.name().to_owned(),
            incarnation: member.incarnation,
            identity: match &member.state {
                State::Running { identity, .. } => Some(identity.clone()),
                State::Waiting { .. } => None,
            },
        });
        let places = Places {
            entry: self.settings.entry,
            api: self.settings.api,
            stats: self.settings.stats.address(),
        };
        Record::new(places, processes.collect()).save(&self.settings.state)
    }

    /// Starts again whatever ends, until it is dropped.
    pub(crate) async fn keep(&mut self) -> anyhow::Result<Infallible> {
        loop {
            let due = self.next_start();
            tokio::select! {
                Some(ended) = self.ends.join_next() => {
                    let (kind, incarnation) = ended.context("a watch of a process ended")?;
                    self.ended(kind, incarnation)?;
                }
                () = sleep_until(self.clock + due.since_start()), if due < NEVER => {}
            }
            self.start_due();
            if let Err(error) = self.save() {
                // The processes go on; only an adoption after our own death would miss this one.
                output::warn(format_args!("warning: {error:#}"));
            }
        }
    }

    fn next_start(&self) -> Instant {
        let due = self.members.iter().filter_map(|member| match member.state {
            State::Waiting { until } => Some(until),
            State::Running { .. } => None,
        });
        due.min().unwrap_or(NEVER)
    }

    fn ended(&mut self, kind: Kind, incarnation: Incarnation) -> anyhow::Result<()> {
        let now = self.now();
        let log = self.log(kind);
        let member = self.members.iter_mut().find(|member| member.kind == kind);
        let member = member.context("only members are watched")?;
        let State::Running { identity, since } = &member.state else {
            return Ok(());
        };
        if member.incarnation != incarnation {
            return Ok(());
        }
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
            if let Err(error) = self.start(index) {
                output::warn(format_args!("error: {error:#}"));
                let retry = self.members[index].restart.ended(now);
                self.members[index].state = State::Waiting { until: retry.until };
            }
        }
    }

    /// Ends all processes, the gateway first.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        for kind in KINDS.into_iter().rev() {
            let running = self.members.iter().find_map(|member| match &member.state {
                State::Running { identity, .. } if member.kind == kind => Some(identity.clone()),
                State::Running { .. } | State::Waiting { .. } => None,
            });
            let Some(identity) = running else { continue };
            let context = || format!("cannot end the {}", kind.name());
            let Some(handle) = identity.open().with_context(context)? else {
                continue;
            };
            handle.signal(Signal::TERM).with_context(context)?;
            if timeout(STOP_DEADLINE, self.end_of(kind)).await.is_err() {
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
                    if let State::Running { identity, .. } = &member.state {
                        mainstay_kernel::try_reap(identity.pid).ok();
                    }
                    member.state = State::Waiting { until: NEVER };
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
