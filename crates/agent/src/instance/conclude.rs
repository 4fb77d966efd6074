//! After the end of a shim: how the attempt ended, and that nothing of it is left.

use std::time::Duration;

use mainstay_kernel::cgroup::Cgroup;
use mainstay_kernel::strays::Strays;
use mainstay_kernel::{Ended, Identity};
use mainstay_model::{Exit, StartFailure};

use super::Instance;
use super::live::Remains;
use crate::launch;
use crate::record::{AttemptSpec, Cause, ExitRecord, FORMAT, RecordError, RunDir};
use crate::shim;

/// How long killed processes may take to end before the next attempt is made all the same.
const KILL_LIMIT: Duration = Duration::from_secs(5);

impl Instance {
    /// Reads the shim's record; without one, ends what the shim can no longer end.
    pub(super) async fn conclude(
        &self,
        spec: &AttemptSpec,
        remains: Option<Remains>,
    ) -> ExitRecord {
        let instance = self.planned.instance.clone();
        let spec = spec.clone();
        self.blocking(move |run| {
            conclude(run, &spec, remains).unwrap_or_else(|error| {
                tracing::error!(%instance, error = %crate::chain(&error), "cannot read how it ended");
                record(&spec, Exit::Lost)
            })
        })
        .await
    }
}

fn conclude(
    run: &RunDir,
    spec: &AttemptSpec,
    remains: Option<Remains>,
) -> Result<ExitRecord, RecordError> {
    if let Some(exit) = run.exit(spec.attempt)? {
        return Ok(exit);
    }
    let started = run.shim(spec.attempt)?;
    let could_not_write = remains.as_ref().and_then(|remains| remains.ended)
        == Some(Ended::Code(i32::from(shim::CANNOT_WRITE)));
    let died_now = remains.and_then(|remains| {
        let told = started.as_ref().map(|record| record.shim.clone());
        told.or(remains.identity)
    });
    kill_strays(spec, died_now);
    let exit = match started {
        None if could_not_write => Exit::NotStarted(StartFailure::StateDirectory),
        None | Some(_) => Exit::Lost,
    };
    Ok(record(spec, exit))
}

fn record(spec: &AttemptSpec, exit: Exit) -> ExitRecord {
    ExitRecord {
        format: FORMAT,
        attempt: spec.attempt,
        exit,
        cause: Cause::Own,
        at: crate::now(),
        log_dropped: 0,
    }
}

/// The program itself died with its shim. What it started is found by the cgroup, or else by the
/// environment and, if the shim died under our eyes, the session.
fn kill_strays(spec: &AttemptSpec, shim: Option<Identity>) {
    let instance = &spec.planned.instance;
    if let Some(path) = &spec.cgroup {
        let cgroup = Cgroup::at(path);
        if let Err(error) = cgroup.kill(KILL_LIMIT).and_then(|()| cgroup.remove()) {
            tracing::warn!(%instance, cgroup = %path.display(), %error, "cannot empty its cgroup");
        }
    }
    let strays = Strays {
        session: shim,
        marks: launch::marks(&spec.launch),
    };
    let killed = strays.kill();
    for group in spec.limiting.iter().map(Cgroup::at) {
        // In use at the worst; it is removed when the instance is forgotten.
        let _ = group.remove();
    }
    match killed {
        Ok(0) => {}
        Ok(count) => {
            tracing::warn!(%instance, count, "its shim was lost; killed what was left of it");
        }
        Err(error) => {
            tracing::error!(%instance, %error, "its shim was lost; cannot look for what is left of it");
        }
    }
}
