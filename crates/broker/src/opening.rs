//! From the directory to a broker that can serve.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use mainstay_amqp::{Body, Broker, Fault, Place, QueueId};
use mainstay_journal::HostDisk;
use mainstay_journal::messages::{AppendError, Change, FoundQueue, MessageLog, examine};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::accounts::{Accounts, PasswordError};
use crate::backup::Copying;
use crate::clock::Clock;
use crate::doorman::Doorman;
use crate::host::Host;
use crate::house::House;
use crate::inbox::Inbox;
use crate::limits::{CALLS_MAX, REMOVED_AT_ONCE};
use crate::record::{self, Definitions, RecordError};
use crate::seams::Seams;
use crate::writer::{Order, Writer};
use crate::{ClientLimits, Error, Options};

/// Where the broker's files are, below the state directory.
pub const DIRECTORY: &str = "broker";
/// And its log in there.
pub const LOG: &str = "log";
/// Bytes of bodies of one virtual host that stay in memory while they are on disk as well.
const BODIES_MAX: u64 = 8 * 1024 * 1024;

/// Why what is on disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be used.
    #[error("cannot use `{path}`")]
    Directory {
        /// Which.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// Another broker has it.
    #[error(
        "another broker uses `{path}`; two would destroy what is there: stop it, or choose another state directory"
    )]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// The log is damaged, or newer.
    #[error(transparent)]
    Log(#[from] mainstay_journal::OpenError),
    /// Something in it cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A record is refused by the broker.
    #[error("virtual host `{vhost}` cannot be restored: {fault}")]
    Restore {
        /// Which.
        vhost: String,
        /// Why.
        fault: Fault,
    },
    /// What a first start writes cannot be written.
    #[error("cannot begin the log")]
    Begin(#[source] AppendError),
    /// There is no salt, nor a seed.
    #[error(transparent)]
    Password(#[from] PasswordError),
}

impl OpenError {
    /// Whether a newer program wrote what is there.
    pub fn is_newer(&self) -> bool {
        matches!(
            self,
            Self::Log(mainstay_journal::OpenError::Newer { .. })
                | Self::Record(RecordError::Newer { .. })
        )
    }

    /// Whether another broker runs there.
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::InUse { .. })
    }
}

/// What an opening makes.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) house: Rc<House>,
    pub(crate) doorman: Doorman,
    pub(crate) writer: Writer,
    pub(crate) directory: PathBuf,
}

pub(crate) async fn open(options: &Options) -> Result<Opened, Error> {
    let directory = options.state.join(DIRECTORY);
    let path = directory.join(LOG);
    // Nobody is served yet, so that this thread may wait for the disk.
    let (log, found) = open_log(&path, options.seams)?;
    let places = log.places();
    let mut log = log;
    let definitions = definitions(&mut log, &found.definitions)?;
    let Definitions {
        accounts,
        records,
        mut strays,
    } = definitions;
    let vhosts = accounts.vhosts.clone();
    let writer = Writer::start(log, options.seams).map_err(Error::Thread)?;
    let clock = Clock::start();
    let copying = Copying::new(directory.clone(), options.limits.disk_free_min);
    let house = House::new(clock, places, accounts, copying, &writer, options);
    let house = Rc::new(house);
    let doorman = Doorman::new()?;
    let mut messages = found.queues;
    let numbers: Vec<u32> = vhosts.values().copied().map(u32::from).collect();
    let of_nobody = |queue: &mut FoundQueue| !numbers.contains(&queue.key.vhost);
    let left = messages.extract_if(.., of_nobody);
    strays.extend(left.map(|queue| Change::ForgetQueue(queue.key)));
    sweep(&writer, &strays).await;
    for (name, number) in vhosts {
        let mut broker = new_broker(&name, options.clients)?;
        for record in records.get(&number).into_iter().flatten() {
            let restored = broker.restore(clock.times(), record.clone());
            restored.map_err(|fault| OpenError::Restore {
                vhost: name.clone(),
                fault,
            })?;
        }
        let of_vhost = |queue: &mut FoundQueue| queue.key.vhost == u32::from(number);
        let own: Vec<FoundQueue> = messages.extract_if(.., of_vhost).collect();
        let stray = restore(&mut broker, clock, own)?;
        if !stray.is_empty() {
            let (answer, _nobody) = tokio::sync::oneshot::channel();
            let order = Order::Define(stray, answer);
            // The writer ends only after us.
            writer.orders.send(order).await.ok();
        }
        house.take_in(&name, number, broker);
    }
    Ok(Opened {
        house,
        doorman,
        writer,
        directory,
    })
}

/// Finishes deletions that were cut off, before anybody changes anything.
async fn sweep(writer: &Writer, strays: &[Change]) {
    if !strays.is_empty() {
        let count = strays.len();
        tracing::info!(count, "a deletion that was cut off is finished");
    }
    for some in strays.chunks(REMOVED_AT_ONCE) {
        let (answer, _nobody) = tokio::sync::oneshot::channel();
        // The writer ends only after us.
        let order = Order::Remove(some.to_vec(), answer);
        writer.orders.send(order).await.ok();
    }
}

impl House {
    /// Starts the task of a virtual host.
    pub(crate) fn take_in(self: &Rc<Self>, name: &str, number: u16, broker: Broker) {
        let inbox = Rc::new(Inbox::new(CALLS_MAX));
        let host = Host::new(number, broker, self, &inbox);
        let task = tokio::task::spawn_local(host.run());
        let house = Rc::clone(self);
        self.tasks.spawn_local(async move {
            if let Err(error) = task.await {
                tracing::error!(%error, "the task of a virtual host failed");
                house.give_up("the task of a virtual host failed");
            }
        });
        self.hosts.borrow_mut().insert(name.to_owned(), inbox);
    }
}

/// A broker whose names nobody guesses.
pub(crate) fn new_broker(name: &str, clients: ClientLimits) -> Result<Broker, PasswordError> {
    let mut seed = [0; 16];
    let random = SystemRandom::new();
    random
        .fill(&mut seed)
        .map_err(|_| PasswordError::NoRandomness)?;
    let seed = u128::from_ne_bytes(seed);
    let halves = [seed >> 64, seed & u128::from(u64::MAX)];
    let seed = halves.map(|half| u64::try_from(half).unwrap_or_default());
    let mut broker = Broker::new(name, seed);
    broker.set_budget(BODIES_MAX);
    broker.set_consumer_timeout(clients.consumer_timeout);
    broker.set_queues_max(clients.queues_max);
    Ok(broker)
}

pub(crate) fn open_log(
    path: &Path,
    seams: Seams,
) -> Result<(MessageLog, mainstay_journal::messages::Found), OpenError> {
    let disk = HostDisk::open(path).map_err(|source| OpenError::Directory {
        path: path.to_owned(),
        source,
    })?;
    let disk = disk.ok_or_else(|| OpenError::InUse {
        path: path.to_owned(),
    })?;
    Ok(MessageLog::open(Arc::new(disk), seams.message_limits())?)
}

/// What a log has that nobody uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Messages, each counted once for each of its queues.
    pub messages: u64,
    /// Definitions.
    pub definitions: u64,
    /// Files.
    pub segments: usize,
    /// What is not as it was written, with file and offset.
    pub damage: Vec<String>,
}

/// Reads the log of a state directory on which no broker runs, and changes nothing.
pub fn check(state: &Path) -> Result<Checked, OpenError> {
    let path = state.join(DIRECTORY).join(LOG);
    let directory = |source| OpenError::Directory {
        path: path.clone(),
        source,
    };
    if !path.exists() {
        return Err(directory(std::io::ErrorKind::NotFound.into()));
    }
    let disk = HostDisk::open(&path).map_err(directory)?;
    let disk = disk.ok_or_else(|| OpenError::InUse { path: path.clone() })?;
    let examined = examine(&disk)?;
    let shown = examined.damage.iter().map(|one| {
        format!(
            "`{}` is damaged at byte {}: {}",
            one.path.display(),
            one.offset,
            one.damage
        )
    });
    Ok(Checked {
        messages: examined.messages,
        definitions: examined.definitions.len() as u64,
        segments: examined.segments.len(),
        damage: shown.collect(),
    })
}

/// What is defined; at the first start, what a new broker has.
fn definitions(
    log: &mut MessageLog,
    found: &[(bytes::Bytes, bytes::Bytes)],
) -> Result<Definitions, OpenError> {
    if let Some(definitions) = record::read(found)? {
        return Ok(definitions);
    }
    let accounts = Accounts::first()?;
    let mut changes = vec![record::put_format()];
    for (name, user) in &accounts.users {
        changes.push(record::put_user(name, user));
    }
    for (name, number) in &accounts.vhosts {
        changes.push(record::put_vhost(name, *number));
    }
    for ((vhost, user), permission) in &accounts.permissions {
        changes.push(record::put_permission(vhost, user, permission));
    }
    let _ = log.append(&changes).map_err(OpenError::Begin)?;
    // All of it, since nothing else was appended.
    let _ = log.sync().map_err(|error| OpenError::Begin(error.into()))?;
    Ok(Definitions {
        accounts,
        ..Definitions::default()
    })
}

/// Puts messages back into their queues; what has no queue any more is to be forgotten.
fn restore(
    broker: &mut Broker,
    clock: Clock,
    queues: Vec<FoundQueue>,
) -> Result<Vec<Change>, OpenError> {
    let now = clock.times();
    let mut stray = Vec::new();
    for queue in queues {
        let id = QueueId(queue.key.queue);
        let mut there = true;
        for found in queue.messages {
            let place = Place {
                queue: id,
                position: found.position,
            };
            let body = if found.body_len == 0 {
                Body::Here(bytes::Bytes::new())
            } else {
                Body::Stored {
                    place,
                    len: u64::from(found.body_len),
                }
            };
            let message = record::message_of(&found.head, body);
            let message = message.map_err(|why| RecordError::Message {
                queue: id.0,
                position: found.position,
                why,
            })?;
            there &= broker.restore_message(now, id, found.position, &Arc::new(message));
        }
        if !there {
            stray.push(Change::ForgetQueue(queue.key));
        }
    }
    Ok(stray)
}
