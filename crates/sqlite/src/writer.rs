//! The thread that writes: what waits is one transaction.

use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::failure::{Abort, Failure, JobError};

/// Write jobs that wait. More than one commit can take, so that the thread never waits for work
/// while there is some; when it is full, writers wait for their turn.
pub(crate) const JOBS_WAITING_MAX: usize = 1024;

/// Jobs of one transaction: it bounds how much is rolled back when the disk refuses, and how long
/// the first of them waits for the last.
const JOBS_PER_COMMIT_MAX: usize = 512;

/// One job, whatever its result's type is.
pub(crate) trait Job: Send {
    /// Does it inside a transaction.
    fn run(&mut self, connection: &Connection) -> Ran;
    /// Answers it: its result if `committed`, and else the failure.
    fn answer(self: Box<Self>, committed: Result<(), Failure>);
}

/// How a job went.
pub(crate) enum Ran {
    /// It is done.
    Done,
    /// It gave up for a reason of its own.
    Refused,
    /// A statement failed.
    Failed(Failure),
}

/// What a job has come to before the transaction is durable.
enum Outcome<T, R, N> {
    Done(T, N),
    Gave(JobError<R>),
}

/// A job with its work, its outcome and who waits for it.
pub(crate) struct Pending<T, R, W, N> {
    path: PathBuf,
    work: Option<(W, N)>,
    outcome: Option<Outcome<T, R, N>>,
    answer: oneshot::Sender<Result<T, JobError<R>>>,
}

impl<T, R, W, N> Pending<T, R, W, N> {
    pub(crate) fn new(
        path: PathBuf,
        work: W,
        noted: N,
        answer: oneshot::Sender<Result<T, JobError<R>>>,
    ) -> Self {
        Self {
            path,
            work: Some((work, noted)),
            outcome: None,
            answer,
        }
    }
}

impl<T, R, W, N> Job for Pending<T, R, W, N>
where
    T: Send,
    R: Send,
    W: FnOnce(&Connection) -> Result<T, Abort<R>> + Send,
    N: FnOnce(&T) + Send,
{
    fn run(&mut self, connection: &Connection) -> Ran {
        let Some((work, noted)) = self.work.take() else {
            return Ran::Refused;
        };
        match work(connection) {
            Ok(result) => {
                self.outcome = Some(Outcome::Done(result, noted));
                Ran::Done
            }
            Err(Abort::Refused(reason)) => {
                self.outcome = Some(Outcome::Gave(JobError::Refused(reason)));
                Ran::Refused
            }
            Err(Abort::Sql(error)) => {
                let failure = Failure::of(&self.path, error);
                let ran = Ran::Failed(failure.again());
                self.outcome = Some(Outcome::Gave(JobError::Failed(failure)));
                ran
            }
        }
    }

    fn answer(self: Box<Self>, committed: Result<(), Failure>) {
        let outcome = match (self.outcome, committed) {
            // What it met itself says more than that the transaction failed.
            (Some(Outcome::Gave(error)), _) => Err(error),
            (_, Err(failure)) => Err(JobError::Failed(failure)),
            (Some(Outcome::Done(result, noted)), Ok(())) => {
                noted(&result);
                Ok(result)
            }
            (None, Ok(())) => Err(JobError::Failed(Failure::Closed { path: self.path })),
        };
        // Whoever asked may have gone; the job is done all the same.
        let _ = self.answer.send(outcome);
    }
}

/// Starts the thread; it ends when the last sender is gone and what waited is done.
pub(crate) fn start(
    path: PathBuf,
    connection: Connection,
    jobs: mpsc::Receiver<Box<dyn Job>>,
) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name("sqlite-write".to_owned())
        .spawn(move || work(&path, &connection, jobs))
}

fn work(path: &Path, connection: &Connection, mut jobs: mpsc::Receiver<Box<dyn Job>>) {
    while let Some(first) = jobs.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < JOBS_PER_COMMIT_MAX
            && let Ok(next) = jobs.try_recv()
        {
            batch.push(next);
        }
        let committed = commit(path, connection, &mut batch);
        for job in batch {
            job.answer(match &committed {
                Ok(()) => Ok(()),
                Err(failure) => Err(failure.again()),
            });
        }
    }
}

/// All of `batch` in one transaction. `Ok`: what succeeded of it is durable. `Err`: none of it is
/// there.
fn commit(path: &Path, connection: &Connection, batch: &mut [Box<dyn Job>]) -> Result<(), Failure> {
    let failed = |error| Failure::of(path, error);
    connection
        .execute_batch("BEGIN IMMEDIATE")
        .map_err(failed)?;
    let done = batch
        .iter_mut()
        .try_for_each(|job| run_alone(path, connection, job.as_mut()))
        .and_then(|()| connection.execute_batch("COMMIT").map_err(failed));
    if done.is_err() && !connection.is_autocommit() {
        // If this fails, too, the next BEGIN says so.
        let _ = connection.execute_batch("ROLLBACK");
    }
    done
}

/// One job in a savepoint: if it fails, only what it wrote is taken back. `Err`: the transaction
/// cannot go on.
fn run_alone(path: &Path, connection: &Connection, job: &mut dyn Job) -> Result<(), Failure> {
    let execute = |sql| {
        let executed = connection.execute_batch(sql);
        executed.map_err(|error| Failure::of(path, error))
    };
    execute("SAVEPOINT job")?;
    match job.run(connection) {
        // On a full disk, or one that refuses, SQLite has ended the whole transaction under the job.
        Ran::Failed(failure) if connection.is_autocommit() => Err(failure),
        Ran::Done => execute("RELEASE job"),
        Ran::Refused | Ran::Failed(_) => execute("ROLLBACK TO job; RELEASE job"),
    }
}
