//! The one task that owns the state: takes questions in, lets [`Control`] decide, makes the outcome
//! durable, and only then shows it.
//!
//! One turn of the loop takes everything that waits as one batch. Inputs that arrive while a save
//! is under way are the next batch: the slower the disk, the more inputs share one save.
//!
//! # When the disk refuses
//!
//! A wish of a user (declare, scale, roll back, remove, shut down) is refused: the machine goes
//! back to its clone from before the batch, so that nothing of the wish is left. So is the first
//! word of a consumer for which no drain would wait if the next control centre did not know it.
//! What agents and gateways tell otherwise cannot be refused, since it has happened: the machine
//! goes on with it in memory, and the save is tried again each second.
//!
//! Until it succeeds the routes are published and the plan is not. Routes that run ahead of the
//! disk are harmless: they leave out who died, and the next epoch supersedes them, and doubts until
//! everybody has its own routes whom they may have listed. A plan is not:
//! it could start an instance whose number the next control centre would give away again, or stop
//! one whose drain nobody would remember.

use std::future::pending;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mainstay_api::wire::{Problem, ProblemCode};
use mainstay_control::{
    Clock, Control, Input, Refusal, Reply, RestoreError, Settings, Snapshot, StickyKey,
};
use mainstay_ids::{self as ids, Epoch, InstanceId, NodeName, ServiceName, Timestamp};
use mainstay_model::Event;
use mainstay_store::{Failure as StorageFailure, SqliteStore, StoreError};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::archive::{Archive, STATE_DB, StateError, is_there};
use crate::chronicle::{Chronicle, Scribe};
use crate::handle::{Ask, Asked, Handle, INBOX_LEN, Look};
use crate::history::History;
use crate::publication::Publication;
use crate::registry::SaveError;
use crate::token;
use crate::views::View;
use crate::{EarlierStop, Options};

/// The time between two attempts to save while the disk refuses.
const SAVE_RETRY: Duration = Duration::from_secs(1);

/// A save that takes longer than this is worth a warning: what is published waits for it.
const SAVE_SLOW: Duration = Duration::from_secs(1);

/// The shortest sleep before a deadline, so that the loop lets others run whatever it is told.
const WAKE_PAUSE: Duration = Duration::from_millis(1);

/// The owner of the state.
pub(crate) struct Centre {
    control: Control,
    durability: Durability,
    archive: Archive,
    history: History,
    /// To the task that writes the history.
    scribe: mpsc::Sender<Vec<Arc<Event>>>,
    publication: Publication,
    inbox: mpsc::Receiver<Ask>,
    start: Instant,
    /// When it began to publish, or, before that, when it started.
    since: Timestamp,
    node: NodeName,
    entry: Vec<SocketAddr>,
    stats: Option<SocketAddr>,
}

/// Whether the disk holds what the machine knows.
#[derive(Debug, Clone, Copy)]
enum Durability {
    /// It does.
    Kept,
    /// It refused the last save; the next attempt without a user's wish is due then.
    Behind { retry: Instant },
}

/// Why a control centre cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state cannot be opened.
    #[error(transparent)]
    State(Box<StateError>),
    /// There is no state, and yet there are instances: somebody took the file away. A new beginning
    /// would stop them as unknown, and gateways would refuse its routes as older than theirs.
    #[error(
        "state database `{path}` is missing although `{run}` names instances ({instances}): put the \
         file back, or, to begin with no services, stop those instances (SIGTERM to the shim that \
         each `shim.json` there names) and empty that directory"
    )]
    Forgotten {
        /// The file that should be there.
        path: PathBuf,
        /// Where the agent keeps its instances.
        run: PathBuf,
        /// Their names.
        instances: String,
    },
    /// Nobody can tell whether there are instances.
    #[error("cannot look for instances in `{path}`")]
    Instances {
        /// Where.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// What was opened makes no sense.
    #[error("cannot continue from the stored state")]
    Restore(#[source] RestoreError),
    /// The state belongs to another node.
    #[error("the stored state is of node `{stored}`, this is node `{node}`")]
    Node {
        /// The node of the state.
        stored: NodeName,
        /// The node that was asked for.
        node: NodeName,
    },
    /// There are no random numbers.
    #[error("cannot draw a secret for sticky sessions")]
    Random(#[source] io::Error),
    /// The new epoch cannot be made durable, and without that nothing may be published.
    #[error("cannot begin to publish")]
    Epoch(#[source] SaveError),
}

/// Why a control centre that ran cannot go on. What is on disk is whole.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The thread that writes the state ended: it panicked.
    #[error("the thread that writes the state failed")]
    WriterEnded,
}

/// Everything that one turn takes in.
#[derive(Default)]
struct Batch {
    inputs: Vec<Asked>,
    looks: Vec<Look>,
}

/// Different for two state directories of one machine. It need not be the same for ever: an
/// address that was picked is kept with its service.
fn address_seed(state: &Path) -> u32 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    let [a, b, c, d, ..] = hasher.finish().to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

fn settings(options: &Options) -> Result<Settings, StartError> {
    let key = token::random().map_err(StartError::Random)?;
    Ok(Settings {
        acknowledged_drain: options.acknowledged_drain,
        address_seed: address_seed(&options.state),
        ranges: options.ranges.clone(),
        sticky_key: StickyKey::new(key),
    })
}

impl Centre {
    /// Opens the state, and makes the new epoch durable before anybody can see it.
    pub(crate) async fn open(
        options: &Options,
    ) -> Result<(Self, Handle, Scribe, Arc<SqliteStore>), StartError> {
        let start = Instant::now();
        let settings = settings(options)?;
        let directory = options.state.join("control");
        let (state, run) = (directory.join(STATE_DB), options.state.join("run"));
        // Before anything is made: the next start must find it missing, too.
        if !is_there(&directory) {
            refuse_if_forgotten(&state, &run)?;
        }
        let opened = Archive::open(&directory).await;
        let opened = opened.map_err(|error| StartError::State(Box::new(error)))?;
        let (mut archive, snapshot, store) = (opened.archive, opened.snapshot, opened.store);
        let last = snapshot.as_ref().map_or(0, Snapshot::last_event);
        let clock = read_clock(start);
        // Each incarnation began one epoch at most, so whatever was published has a smaller one, even
        // if the state is lost or was put back from an old copy.
        let epoch = Epoch(options.incarnation.0);
        let mut control = match snapshot {
            None => {
                // The database is there and empty: somebody began it, or emptied it.
                refuse_if_forgotten(&state, &run)?;
                Control::at_epoch(epoch, options.node.clone(), settings)
            }
            Some(mut snapshot) => {
                snapshot.restore_at_least_in(epoch);
                Control::restore(snapshot, settings, clock).map_err(StartError::Restore)?
            }
        };
        match options.earlier_stop {
            EarlierStop::GoesOn => {}
            EarlierStop::IsOver => control.keep_up(),
        }
        let stored = control.node(clock.now).node;
        if stored != options.node {
            let node = options.node.clone();
            return Err(StartError::Node { stored, node });
        }
        archive
            .save(&control.snapshot())
            .await
            .map_err(StartError::Epoch)?;
        let (sender, inbox) = mpsc::channel(INBOX_LEN);
        let publication = Publication::new();
        let (chronicle, past) = Chronicle::open(&directory, last);
        let (scribe, to_scribe, shelf) = Scribe::new(chronicle);
        let handle = Handle::new(sender, &publication, shelf);
        let history = History::new(past, last);
        publication.events.send_replace(history.last());
        let centre = Self {
            control,
            durability: Durability::Kept,
            archive,
            history,
            scribe: to_scribe,
            publication,
            inbox,
            start,
            since: clock.at,
            node: options.node.clone(),
            entry: options.entry.clone(),
            stats: options.stats,
        };
        Ok((centre, handle, scribe, store))
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), RunError> {
        self.step(Batch::default()).await?;
        loop {
            let wake_at = self.wake_at();
            let first = tokio::select! {
                () = stop.cancelled() => {
                    self.record();
                    return Ok(());
                }
                ask = self.inbox.recv() => match ask {
                    Some(ask) => Some(ask),
                    None => return Ok(()), // nobody is left who could ask
                },
                () = sleep_until(wake_at) => None,
            };
            let batch = self.gather(first);
            self.step(batch).await?;
        }
    }

    /// Takes everything that waits. The inbox's length bounds it.
    fn gather(&mut self, first: Option<Ask>) -> Batch {
        let mut batch = Batch::default();
        let mut next = first;
        while let Some(ask) = next {
            match ask {
                Ask::HandIn(asked) => batch.inputs.push(asked),
                Ask::Read(look) => batch.looks.push(look),
            }
            let full = batch.inputs.len() + batch.looks.len() == INBOX_LEN;
            next = if full {
                None
            } else {
                self.inbox.try_recv().ok()
            };
        }
        batch
    }

    fn wake_at(&self) -> Option<Instant> {
        let tick = self.control.next_deadline();
        let tick = tick.map(|deadline| self.start + deadline.since_start());
        let retry = match self.durability {
            Durability::Kept => None,
            Durability::Behind { retry } => Some(retry),
        };
        let soonest = Instant::now() + WAKE_PAUSE;
        let wake = tick.into_iter().chain(retry).min();
        wake.map(|wake| wake.max(soonest))
    }

    async fn step(&mut self, batch: Batch) -> Result<(), RunError> {
        let Batch { inputs, looks } = batch;
        let clock = read_clock(self.start);
        if self
            .control
            .next_deadline()
            .is_some_and(|deadline| deadline <= clock.now)
        {
            // A tick cannot be refused.
            let _ = self.control.handle(clock, Input::Tick);
        }
        let wish: Vec<bool> = inputs
            .iter()
            .map(|asked| self.control.must_be_durable(&asked.input))
            .collect();
        let wished = wish.contains(&true);
        let before = wished.then(|| self.control.clone());
        let mut outcomes = Vec::with_capacity(inputs.len());
        for asked in &inputs {
            outcomes.push(decide(&mut self.control, clock, asked.input.clone()));
        }
        if let Err(error) = self.make_durable(wished).await?
            && let Some(before) = before
        {
            self.control = before;
            for ((asked, wish), outcome) in inputs.iter().zip(wish).zip(&mut outcomes) {
                if !wish {
                    *outcome = decide(&mut self.control, clock, asked.input.clone());
                } else if outcome.is_ok() {
                    *outcome = Err(refused_by_disk(&error));
                }
            }
        }
        self.publish(clock);
        for (asked, outcome) in inputs.into_iter().zip(outcomes) {
            // An asker that went away needs no answer.
            let _ = asked.answer.send(outcome);
        }
        self.answer(looks, clock);
        self.record();
        Ok(())
    }

    /// Saves if there is something to save, and if it is time to try. `Err`: the disk refused.
    async fn make_durable(&mut self, wished: bool) -> Result<Result<(), SaveError>, RunError> {
        let changed = self.control.snapshot_changed();
        let now = Instant::now();
        let due = match self.durability {
            Durability::Kept => changed,
            Durability::Behind { retry } => retry <= now || (changed && wished),
        };
        if !due {
            return Ok(Ok(()));
        }
        // There is no deadline: a write cannot be called back, and those who wait for its outcome
        // have one of their own.
        let saved = self.archive.save(&self.control.snapshot()).await;
        if let Err(SaveError::Store(StoreError::Closed)) = saved {
            return Err(RunError::WriterEnded);
        }
        let took = now.elapsed();
        if took > SAVE_SLOW {
            tracing::warn!(?took, "the disk is slow to take the state");
        }
        self.durability = match (&saved, self.durability) {
            (Ok(()), Durability::Kept) => Durability::Kept,
            (Ok(()), Durability::Behind { .. }) => {
                tracing::info!("the disk takes the state again");
                Durability::Kept
            }
            (Err(error), last) => {
                if matches!(last, Durability::Kept) {
                    let error = error as &dyn std::error::Error;
                    tracing::error!(
                        error,
                        "the disk refuses the state; users' changes are refused"
                    );
                }
                let retry = Instant::now() + SAVE_RETRY;
                Durability::Behind { retry }
            }
        };
        Ok(saved)
    }

    fn publish(&mut self, clock: Clock) {
        for event in self.control.take_events() {
            let service = event.service.as_ref().map(ServiceName::as_str);
            tracing::info!(number = event.number, service, "{}", event.kind);
            self.history.push(Arc::new(event));
        }
        if self.control.may_publish() {
            if self.publication.routing.borrow().is_none() {
                self.since = clock.at;
            }
            self.publication.publish_routing(self.control.routing());
            self.publication.publish_directory(self.control.directory());
            match self.durability {
                Durability::Kept => self.publication.publish_plan(self.control.plan()),
                Durability::Behind { .. } => {}
            }
        }
        let last = self.history.last();
        self.publication.events.send_if_modified(|newest| {
            let modified = *newest != last;
            *newest = last;
            modified
        });
    }

    fn answer(&self, looks: Vec<Look>, clock: Clock) {
        let view = View {
            control: &self.control,
            history: &self.history,
            clock,
            since: self.since,
            node: &self.node,
            entry: &self.entry,
            stats: self.stats,
        };
        for look in looks {
            look(&view);
        }
    }

    /// Hands new events to the task that writes them, once the state that holds their numbers is
    /// durable. If that task is behind, they stay here until a later turn.
    fn record(&mut self) {
        if let Durability::Behind { .. } = self.durability {
            return;
        }
        if self.history.has_unrecorded()
            && let Ok(place) = self.scribe.try_reserve()
        {
            place.send(self.history.take_unrecorded());
        }
    }
}

/// Refuses to begin with nothing where instances are on record.
fn refuse_if_forgotten(state: &Path, run: &Path) -> Result<(), StartError> {
    let failed = |source| StartError::Instances {
        path: run.to_owned(),
        source,
    };
    let entries = match run.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    let mut instances = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let id = name
            .to_str()
            .and_then(|name| name.parse::<InstanceId>().ok());
        instances.extend(id);
    }
    if instances.is_empty() {
        return Ok(());
    }
    instances.sort();
    let instances: Vec<String> = instances.iter().map(ToString::to_string).collect();
    Err(StartError::Forgotten {
        path: state.to_owned(),
        run: run.to_owned(),
        instances: instances.join(", "),
    })
}

fn decide(control: &mut Control, clock: Clock, input: Input) -> Result<Reply, Problem> {
    control
        .handle(clock, input)
        .map_err(|refusal| problem(&refusal))
}

fn problem(refusal: &Refusal) -> Problem {
    Problem::new(refusal.code(), refusal.to_string())
}

fn refused_by_disk(error: &SaveError) -> Problem {
    use std::error::Error as _;
    let code = match error {
        SaveError::Store(StoreError::Storage(failure)) => match failure {
            StorageFailure::Full { .. } => ProblemCode::StorageFull,
            StorageFailure::ReadOnly { .. } => ProblemCode::StorageReadOnly,
            StorageFailure::Busy { .. }
            | StorageFailure::Damaged { .. }
            | StorageFailure::Io { .. }
            | StorageFailure::Statement { .. }
            | StorageFailure::Closed { .. } => ProblemCode::StorageFailed,
        },
        SaveError::Store(_)
        | SaveError::TooLarge { .. }
        | SaveError::Conflict { .. }
        | SaveError::Layout(_) => ProblemCode::StorageFailed,
    };
    let cause = error.source().map(|cause| format!(": {cause}"));
    let problem = Problem::new(
        code,
        format!("nothing was changed: {error}{}", cause.unwrap_or_default()),
    );
    match error {
        SaveError::TooLarge { .. } => problem.with_remedy("declare less in that service"),
        SaveError::Store(_) | SaveError::Conflict { .. } | SaveError::Layout(_) => problem,
    }
}

fn read_clock(start: Instant) -> Clock {
    let of_day = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let ms = of_day.unwrap_or_default().as_millis();
    Clock {
        now: ids::Instant::from_start(start.elapsed()),
        at: Timestamp(u64::try_from(ms).unwrap_or(u64::MAX)),
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => pending().await,
    }
}
