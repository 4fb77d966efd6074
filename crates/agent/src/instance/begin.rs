//! Starting an attempt: claimed and written down before there is a process.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use mainstay_ids::Attempt;
use mainstay_kernel::cgroup::Cgroup;
use mainstay_kernel::{Child, Place};
use mainstay_model::PlannedInstance;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe;

use super::live::{Live, Shim};
use super::{Instance, Refused};
use crate::context::Context;
use crate::groups;
use crate::launch;
use crate::record::{AttemptSpec, FORMAT, Launch, RunDir};
use crate::secrets::{self, Secrets};
use crate::shim;

/// A shim that was just started.
struct Begun {
    spec: AttemptSpec,
    shim: Child,
    started: OwnedFd,
}

impl Instance {
    /// `None`: a shim of an earlier attempt lives.
    pub(super) async fn begin(&mut self, attempt: Attempt) -> Result<Option<Live>, Refused> {
        let secrets = secrets::fetch(&self.context.secrets, &self.planned.spec.secrets).await?;
        let port = self.context.ports.take().ok_or(Refused::NoFreePort)?;
        let spec = self.spec(attempt, port.address())?;
        // From here on, the port before it is free again.
        self.port = Some(port);
        let context = self.context.clone();
        let Some(begun) = self
            .blocking(move |run| begin(&context, run, spec, &secrets))
            .await?
        else {
            return Ok(None);
        };
        let started = pipe::Receiver::from_owned_fd(begun.started).map_err(Refused::Watch)?;
        let shim = Shim::started(begun.shim).map_err(Refused::Watch)?;
        Ok(Some(Live::started(begun.spec, shim, started)))
    }

    fn spec(&self, attempt: Attempt, address: SocketAddr) -> Result<AttemptSpec, Refused> {
        Ok(AttemptSpec {
            ends: self.restart.ends(),
            last_exit: self.last_exit,
            address,
            launch: launch::instance(&self.planned, address, &self.context.mark())?,
            log: self.context.log(&self.planned.instance.to_string()),
            boot: self.context.boot.clone().map(|boot| boot.0),
            ..nothing(&self.planned, attempt)
        })
    }
}

/// An attempt without anything.
pub(super) fn nothing(planned: &PlannedInstance, attempt: Attempt) -> AttemptSpec {
    AttemptSpec {
        format: FORMAT,
        attempt,
        ends: 0,
        last_exit: None,
        planned: planned.clone(),
        address: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
        launch: Launch {
            program: PathBuf::new(),
            arguments: Vec::new(),
            environment: std::collections::BTreeMap::new(),
            directory: PathBuf::new(),
            user: None,
        },
        log: PathBuf::new(),
        cgroup: None,
        limiting: Vec::new(),
        boot: None,
    }
}

/// The order matters: first the lock, so that nobody else starts it; then the record, so that the
/// next agent knows of the attempt; then the shim, which inherits the lock. An agent that dies in
/// between leaves a record without a shim, and so an attempt that is known to have ended.
fn begin(
    context: &Context,
    run: &RunDir,
    mut spec: AttemptSpec,
    secrets: &Secrets,
) -> Result<Option<Begun>, Refused> {
    let write = |source| Refused::Write {
        path: run.path().to_owned(),
        source,
    };
    run.create().map_err(write)?;
    let Some(lock) = run.lock().map_err(write)? else {
        return Ok(None);
    };
    // Refuses to write over what a newer version left. The attempts go on from what is there.
    if let Some(earlier) = run.newest_attempt()? {
        spec.attempt = spec.attempt.max(earlier.next());
    }
    if let Some(logs) = spec.log.parent() {
        fs::create_dir_all(logs).map_err(write)?;
    }
    if let Some(groups) = groups::make(context, &spec.planned)? {
        let path = |group: &Cgroup| group.path().to_owned();
        spec.cgroup = groups.members.as_ref().map(path);
        spec.limiting = groups.limiting.iter().map(path).collect();
    }
    run.write_spec(&spec).map_err(write)?;
    let (started, started_end) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|errno| Refused::Watch(errno.into()))?;
    let secrets = secrets.in_memory()?;
    let mut shim = context
        .shim
        .spawn(&run.spec_path())
        .own_environment()
        .variable(launch::SHIM_MARK, context.mark())
        .place(Place::OwnSession)
        .pass(shim::LOCK, lock.as_fd())
        .pass(shim::STARTED, started_end.as_fd());
    if let Some(secrets) = &secrets {
        shim = shim.pass(shim::SECRETS, secrets.as_fd());
    }
    Ok(Some(Begun {
        spec,
        shim: shim.start()?,
        started,
    }))
}
