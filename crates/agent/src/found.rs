//! What an earlier agent left: instances that run, and such that ended meanwhile.

use std::fs;
use std::io;
use std::path::Path;

use mainstay_ids::InstanceId;
use mainstay_kernel::signals::Signal;
use mainstay_kernel::strays::Strays;
use mainstay_kernel::{Pidfd, boot_id};

use crate::context::mark;
use crate::launch;
use crate::record::{AttemptSpec, ExitRecord, RecordError, RunDir, ShimRecord};

/// The newest attempt of an instance, as its files and the lock on them tell it.
#[derive(Debug)]
pub(crate) enum Found {
    /// Its shim lives, and its program was started.
    Live {
        spec: AttemptSpec,
        record: ShimRecord,
        shim: Pidfd,
    },
    /// Its shim lives and has not told yet whether the program could be started; or it is ending.
    Undecided { spec: AttemptSpec },
    /// It ended, and nothing of it is left.
    Ended {
        spec: AttemptSpec,
        exit: ExitRecord,
        boot: Boot,
    },
    /// Its shim is gone without a record of the end.
    Lost { spec: AttemptSpec, boot: Boot },
    /// A shim lives, and what it runs is written down nowhere. `None`: not even which process it is.
    Nameless { shim: Option<Pidfd> },
}

/// To which start of the machine an attempt belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Boot {
    This,
    /// Everything ended with it, and others are to be started first, maybe.
    Earlier,
}

/// Why what was found cannot be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FoundError {
    #[error("cannot use the files of an earlier attempt")]
    Record(#[from] RecordError),
    #[error("cannot look at `{}`", path.display())]
    Look {
        path: std::path::PathBuf,
        #[source]
        source: io::Error,
    },
}

/// One instance's directory, and what is in it.
pub(crate) type Looked = (InstanceId, Result<Option<Found>, FoundError>);

/// Looks at one instance; `None`: it was never started, or nothing of it is left.
pub(crate) fn look(run: &RunDir) -> Result<Option<Found>, FoundError> {
    let look_error = |source| FoundError::Look {
        path: run.path().to_owned(),
        source,
    };
    let spec = match run.spec()? {
        Some(spec) => spec,
        None => match recall(run)? {
            Recalled::Spec(spec) => *spec,
            Recalled::Nameless(shim) => return Ok(Some(Found::Nameless { shim })),
            Recalled::Nothing => return Ok(None),
        },
    };
    let record = run.shim(spec.attempt)?;
    let boot = boot_of(&spec, record.as_ref()).map_err(look_error)?;
    if let Some(exit) = run.exit(spec.attempt)? {
        return Ok(Some(Found::Ended { spec, exit, boot }));
    }
    if run.lock().map_err(look_error)?.is_some() {
        // It may have ended between the two looks.
        return Ok(Some(match run.exit(spec.attempt)? {
            Some(exit) => Found::Ended { spec, exit, boot },
            None => Found::Lost { spec, boot },
        }));
    }
    // Read again: the shim may have written it since, and its end would have freed the lock.
    let Some(record) = run.shim(spec.attempt)? else {
        return Ok(Some(Found::Undecided { spec }));
    };
    Ok(Some(match record.shim.open().map_err(look_error)? {
        Some(shim) => Found::Live { spec, record, shim },
        None => Found::Undecided { spec },
    }))
}

/// What is left of an attempt whose `spec.json` is lost.
enum Recalled {
    Spec(Box<AttemptSpec>),
    Nameless(Option<Pidfd>),
    Nothing,
}

/// The shim repeats the specification in its own file.
fn recall(run: &RunDir) -> Result<Recalled, FoundError> {
    let look_error = |source| FoundError::Look {
        path: run.path().to_owned(),
        source,
    };
    if !run.exists() {
        return Ok(Recalled::Nothing);
    }
    let (shim, spec) = run
        .newest_shim()?
        .map_or((None, None), |record| (Some(record.shim), record.spec));
    if let Some(spec) = spec {
        let path = run.spec_path();
        let path = path.display();
        match run.write_spec(&spec) {
            Ok(()) => tracing::warn!(%path, "was lost, and is restored from what its shim has"),
            Err(error) => tracing::warn!(%path, %error, "is lost, and cannot be restored"),
        }
        return Ok(Recalled::Spec(spec));
    }
    if run.lock().map_err(look_error)?.is_some() {
        return Ok(Recalled::Nothing);
    }
    let shim = match shim {
        Some(identity) => identity.open().map_err(look_error)?,
        None => None,
    };
    Ok(Recalled::Nameless(shim))
}

/// Ends an instance of which nobody knows what it runs: it cannot be probed, gets no traffic, and
/// keeps its successor from being started. That it is ours, the lock on our directory shows; which
/// processes it has, the shim knows, and else their environment tells.
pub(crate) fn dismiss(state: &Path, id: &InstanceId, shim: Option<&Pidfd>) -> io::Result<()> {
    if let Some(shim) = shim {
        return shim.signal(Signal::TERM);
    }
    // Their shim ends when they have.
    let marks = launch::marks_of(&id.to_string(), &mark(state)).to_vec();
    let strays = Strays {
        session: None,
        marks,
    };
    strays.kill().map(drop)
}

fn boot_of(spec: &AttemptSpec, record: Option<&ShimRecord>) -> io::Result<Boot> {
    let of_shim = record.map(|record| &record.shim.boot_id);
    let known = of_shim.or(spec.boot.as_ref());
    Ok(match known {
        Some(boot) if *boot != boot_id()? => Boot::Earlier,
        Some(_) | None => Boot::This,
    })
}

/// Looks at all instances that have a directory.
pub(crate) fn survey(state: &Path) -> io::Result<Vec<Looked>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(state.join("run"))? {
        let name = entry?.file_name();
        let Some(id) = name
            .to_str()
            .and_then(|name| name.parse::<InstanceId>().ok())
        else {
            let name = name.display();
            tracing::warn!(%name, "the directory `run` has an entry that is no instance's; left alone");
            continue;
        };
        let run = RunDir::of(state, &id);
        all.push((id, look(&run)));
    }
    Ok(all)
}

/// Forgets what is written down of all instances; those that run go on, known to nobody.
pub(crate) fn forget(state: &Path) -> io::Result<()> {
    for entry in fs::read_dir(state.join("run"))? {
        fs::remove_dir_all(entry?.path())?;
    }
    Ok(())
}
