//! Which of our processes run: a file for each, locked as long as its process lives.
//!
//! The supervisor locks the file before it starts a process, and hands it over open. The process
//! signs it before it does anything else. So whoever comes after a supervisor that was killed, in
//! whatever moment, sees that a process runs (the lock) and which one it is (the signature).
//!
//! A lock of flock(2) belongs to the open file: it is held until the last process that inherited it
//! has closed it or ended.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use mainstay_ids::Incarnation;
use mainstay_kernel::pulse::Pulse;
use mainstay_kernel::{Identity, Pidfd};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::outcome::{Failure, Outcome};

/// The name under which the locked file is handed over.
pub(crate) const CLAIM: &str = "claim";

/// The form of the file; a newer one is not touched.
const FORMAT: u32 = 1;

/// A signature is a line of some hundred bytes.
const LEN_MAX: usize = 4096;

/// How long a process may take from its exec to its signature, which is its first act.
const SIGN_TIME: Duration = Duration::from_secs(5);

/// How often an answer that is not there yet is looked for.
const POLL: Duration = Duration::from_millis(10);

/// What a process writes about itself.
#[derive(Debug, Serialize, Deserialize)]
struct Signature {
    format: u32,
    incarnation: Incarnation,
    #[serde(default)]
    stage: Stage,
    /// The number of the descriptor in that process at which its threads say that they go on
    /// (`mainstay_kernel::pulse`), for who holds a floating address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pulse: Option<i32>,
    #[serde(flatten)]
    identity: Identity,
}

/// How far a process has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// It runs.
    #[default]
    Runs,
    /// It does what it is for. Only a gateway says so.
    Serves,
}

/// Who holds a claim.
#[derive(Debug)]
pub(crate) enum Holder {
    /// No process. `last`: the incarnation of the last that did.
    Nobody { last: Incarnation },
    /// This one.
    Runs {
        incarnation: Incarnation,
        identity: Identity,
        handle: Pidfd,
    },
}

/// Locks the file of a process, for its next incarnation to inherit.
pub(crate) fn take(state: &Path, name: &str) -> anyhow::Result<File> {
    let path = path(state, name);
    let file = open(&path)?;
    if lock(&file, &path)? == Lock::Held {
        anyhow::bail!(
            "`{}` is locked: one of that kind still runs",
            path.display()
        );
    }
    Ok(file)
}

/// Finds out who holds the claim of a process.
pub(crate) async fn holder(state: &Path, name: &str) -> anyhow::Result<Holder> {
    let path = path(state, name);
    if !path.exists() {
        let last = Incarnation(0);
        return Ok(Holder::Nobody { last });
    }
    let file = open(&path)?;
    let deadline = Instant::now() + SIGN_TIME;
    loop {
        let lock = lock(&file, &path)?;
        // After the look at the lock: what an earlier process signed is seen to be dead.
        let signature = read(&file, &path)?;
        match (lock, signature) {
            (Lock::Taken, signature) => {
                let last = signature.map_or(Incarnation(0), |signature| signature.incarnation);
                return Ok(Holder::Nobody { last });
            }
            (Lock::Held, Some(signature)) => {
                let context = || format!("cannot adopt the {name}");
                if let Some(handle) = signature.identity.open().with_context(context)? {
                    return Ok(Holder::Runs {
                        incarnation: signature.incarnation,
                        identity: signature.identity,
                        handle,
                    });
                }
            }
            (Lock::Held, None) => {}
        }
        if Instant::now() >= deadline {
            let message =
                format!("an earlier mainstay left a {name} that does not say which process it is");
            let remedy = format!("end it; `fuser {}` shows it", path.display());
            return Err(Failure::new(Outcome::Failed, message).remedy(remedy).into());
        }
        sleep(POLL).await;
    }
}

/// How far this incarnation has got; `None`: it has not signed, so what it reads at its start it has
/// not read.
pub(crate) fn stage(
    state: &Path,
    name: &str,
    incarnation: Incarnation,
) -> anyhow::Result<Option<Stage>> {
    let path = path(state, name);
    let signature = read(&open(&path)?, &path)?;
    let own = signature.filter(|signature| signature.incarnation == incarnation);
    Ok(own.map(|signature| signature.stage))
}

/// Says in the file that was handed over that this process holds it. It must stay open to the end, as must `pulse`.
pub(crate) fn sign(
    claim: &File,
    incarnation: Incarnation,
    stage: Stage,
    pulse: Option<&Pulse>,
) -> io::Result<()> {
    let identity = Identity::of(std::process::id())?.ok_or(io::ErrorKind::NotFound)?;
    let signature = Signature {
        format: FORMAT,
        incarnation,
        stage,
        pulse: pulse.map(Pulse::descriptor),
        identity,
    };
    // In place: that works on a full disk, too. A half-written one cannot be read, and is read again.
    let mut text = serde_json::to_vec(&signature)?;
    text.push(b'\n');
    claim.write_all_at(&text, 0)?;
    claim.set_len(text.len() as u64)
}

fn path(state: &Path, name: &str) -> PathBuf {
    state.join("processes").join(format!("{name}.json"))
}

fn open(path: &Path) -> anyhow::Result<File> {
    let context = || format!("cannot open `{}`", path.display());
    if let Some(directory) = path.parent() {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(directory);
        made.with_context(context)?;
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .with_context(context)
}

#[derive(Debug, PartialEq, Eq)]
enum Lock {
    Taken,
    Held,
}

fn lock(file: &File, path: &Path) -> anyhow::Result<Lock> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock::Taken),
        Err(Errno::WOULDBLOCK) => Ok(Lock::Held),
        Err(error) => Err(error).with_context(|| format!("cannot lock `{}`", path.display())),
    }
}

/// `None` if nobody has signed yet, or somebody is at it.
fn read(file: &File, path: &Path) -> anyhow::Result<Option<Signature>> {
    /// The part that every format has.
    #[derive(Deserialize)]
    struct Envelope {
        format: u32,
    }
    let mut text = vec![0; LEN_MAX];
    let len = file
        .read_at(&mut text, 0)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    let text = &text[..len];
    match serde_json::from_slice::<Envelope>(text) {
        Ok(Envelope { format }) if format > FORMAT => {
            let message = format!(
                "`{}` has format {format}; this mainstay knows formats up to {FORMAT}",
                path.display()
            );
            let failure = Failure::new(Outcome::Failed, message);
            Err(failure
                .remedy("use the newer mainstay that wrote it")
                .into())
        }
        Ok(_) => Ok(serde_json::from_slice(text).ok()),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::TempDir;

    #[tokio::test]
    async fn a_claim_is_held_by_who_signed_it_until_the_last_copy_is_closed() -> anyhow::Result<()>
    {
        let state = TempDir::new("claim");
        let nobody = |holder| match holder {
            Holder::Nobody { last } => last,
            Holder::Runs { identity, .. } => panic!("{identity:?}"),
        };
        assert_eq!(nobody(holder(state.path(), "agent").await?), Incarnation(0));
        let claim = take(state.path(), "agent")?;
        let inherited = claim.try_clone()?;
        drop(claim);
        assert!(take(state.path(), "agent").is_err());
        sign(&inherited, Incarnation(7), Stage::Runs, None)?;
        let reached = |incarnation| stage(state.path(), "agent", Incarnation(incarnation));
        assert_eq!((reached(7)?, reached(6)?), (Some(Stage::Runs), None));
        sign(&inherited, Incarnation(7), Stage::Serves, None)?;
        assert_eq!(reached(7)?, Some(Stage::Serves));
        match holder(state.path(), "agent").await? {
            Holder::Runs {
                incarnation,
                identity,
                ..
            } => assert_eq!((incarnation.0, identity.pid), (7, std::process::id())),
            Holder::Nobody { last } => panic!("{last:?}"),
        }
        assert_eq!(
            nobody(holder(state.path(), "server").await?),
            Incarnation(0)
        );
        drop(inherited);
        assert_eq!(nobody(holder(state.path(), "agent").await?), Incarnation(7));
        take(state.path(), "agent").map(drop)
    }

    #[tokio::test(start_paused = true)]
    async fn somebody_who_holds_a_claim_and_does_not_sign_is_told() -> anyhow::Result<()> {
        let state = TempDir::new("claim");
        let _held = take(state.path(), "agent")?;
        let refused = holder(state.path(), "agent").await.expect_err("who is it?");
        let failure = refused.downcast_ref::<Failure>().expect("it is explained");
        let remedy = failure.remedy.as_deref().unwrap_or_default();
        assert!(remedy.contains("processes/agent.json"), "{remedy}");
        Ok(())
    }
}
