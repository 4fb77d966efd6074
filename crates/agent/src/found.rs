//! What an earlier agent left: instances that run, and such that ended meanwhile.

use std::fs;
use std::io;
use std::path::Path;

use mainstay_ids::InstanceId;
use mainstay_kernel::Pidfd;

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
    Ended { spec: AttemptSpec, exit: ExitRecord },
    /// Its shim is gone without a record of the end.
    Lost { spec: AttemptSpec },
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

/// Looks at one instance; `None`: it was never started.
pub(crate) fn look(run: &RunDir) -> Result<Option<Found>, FoundError> {
    let look_error = |source| FoundError::Look {
        path: run.path().to_owned(),
        source,
    };
    let Some(spec) = run.spec()? else {
        return Ok(None);
    };
    if let Some(exit) = run.exit(spec.attempt)? {
        return Ok(Some(Found::Ended { spec, exit }));
    }
    if run.lock().map_err(look_error)?.is_some() {
        // It may have ended between the two looks.
        return Ok(Some(match run.exit(spec.attempt)? {
            Some(exit) => Found::Ended { spec, exit },
            None => Found::Lost { spec },
        }));
    }
    let Some(record) = run.shim(spec.attempt)? else {
        return Ok(Some(Found::Undecided { spec }));
    };
    Ok(Some(match record.shim.open().map_err(look_error)? {
        Some(shim) => Found::Live { spec, record, shim },
        None => Found::Undecided { spec },
    }))
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
