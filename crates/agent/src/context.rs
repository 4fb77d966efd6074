//! What all instances of a node share.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay_api::client::Client;
use mainstay_ids::Instant;
use mainstay_kernel::Spawn;
use mainstay_kernel::cgroup::{Mounted, Tree, Unusable};
use mainstay_model::BootId;
use tokio_util::sync::CancellationToken;

use crate::Adoption;
use crate::ports::Ports;

/// How a shim is started: a program with the arguments that stand before the path of `spec.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShimProgram {
    /// `None`: this process's own program, even if its file was replaced since.
    pub program: Option<PathBuf>,
    /// For instance `internal`, `shim`.
    pub arguments: Vec<String>,
}

impl ShimProgram {
    pub(crate) fn spawn<'a>(&self, spec: &Path) -> Spawn<'a> {
        let spawn = match &self.program {
            Some(program) => Spawn::new(program),
            None => Spawn::own_program("mainstay"),
        };
        spawn.arguments(&self.arguments).argument(spec)
    }
}

/// Cheap to clone but for the paths; each instance's task has one.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// The state directory, absolute.
    pub(crate) state: PathBuf,
    /// Where instances get groups, or why they get none.
    pub(crate) cgroups: Result<Tree, Unusable>,
    pub(crate) ports: Ports,
    pub(crate) shim: ShimProgram,
    /// Who hands out secrets.
    pub(crate) secrets: Client,
    pub(crate) adoption: Adoption,
    /// Which start of the machine this is; `None` if that cannot be told.
    pub(crate) boot: Option<BootId>,
    pub(crate) clock: Clock,
    /// The end of the agent, which leaves the instances running.
    pub(crate) stop: CancellationToken,
}

impl Context {
    pub(crate) fn new(
        state: PathBuf,
        address: IpAddr,
        shim: ShimProgram,
        secrets: Client,
        stop: CancellationToken,
    ) -> Self {
        let cgroups = Mounted::detect().usable();
        if let Err(reason) = &cgroups {
            tracing::info!(%reason, "no cgroups: what an instance leaves behind is found by its parent and its environment, and no service with `limits` can be started");
        }
        Self {
            state,
            cgroups,
            ports: Ports::new(address),
            shim,
            secrets,
            adoption: Adoption::On,
            boot: boot(),
            clock: Clock::start(),
            stop,
        }
    }

    /// What tells this state directory from others: in the environment of its instances, and in the
    /// names of its cgroups.
    pub(crate) fn mark(&self) -> String {
        mark(&self.state)
    }

    /// Where an instance's output goes.
    pub(crate) fn log(&self, instance: &str) -> PathBuf {
        self.state.join("logs").join(format!("{instance}.log"))
    }
}

fn boot() -> Option<BootId> {
    match mainstay_kernel::boot_id() {
        Ok(boot) => Some(BootId(boot)),
        Err(error) => {
            tracing::error!(%error, "cannot tell one start of the machine from another; after a reboot, what each needs is not waited for");
            None
        }
    }
}

/// What tells this state directory, an absolute path, from others.
pub(crate) fn mark(state: &Path) -> String {
    // FNV-1a with 64 bits: stable over versions of the standard library, whose hasher is not.
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let bytes = state.as_os_str().as_encoded_bytes();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix);
    format!("{hash:016x}")
}

/// Gives decisions their time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(tokio::time::Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(tokio::time::Instant::now())
    }

    pub(crate) fn now(self) -> Instant {
        Instant::from_start(self.0.elapsed())
    }

    pub(crate) async fn sleep_until(self, at: Instant) {
        tokio::time::sleep_until(self.0 + at.since_start()).await;
    }

    /// Never returns for `None`.
    pub(crate) async fn sleep_until_some(self, at: Option<Instant>) {
        match at {
            Some(at) => self.sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    pub(crate) async fn pause(self, length: Duration) {
        self.sleep_until(self.now().after(length)).await;
    }
}
