//! The agent of one node: starts, probes, restarts and stops instances as the plan says, and reports
//! what it sees. And the shim, the small process under which each instance runs.
//!
//! It decides neither what is to run nor who gets traffic: that is the control centre's. When a
//! probe means health and when an ended instance is started again is decided in `mainstay-control`.
//! An agent that ends or is killed leaves all instances running; the next one adopts them.
//!
//! ```text
//! control centre (unix socket)
//!    │ NDJSON of NodePlan              ^ POST NodeReport: on change, and each second
//!    v                                 │
//! link::follow ──watch<NodePlan>──> node::Node ──watch<NodeReport>──> link::report
//!                                   │        ^
//!                    watch<Order>   │        │ mpsc<Change>
//!                    one each       v        │
//!                              instance::Instance  × n        one task for each instance
//!                                   │        ^
//!          spawn + SIGTERM, files   v        │ pidfd readable, exit.json
//!                                  shim  × n                  one process for each attempt
//!                                   │        ^ output by a pipe, SIGCHLD
//!                                   v        │
//!                                 program (own group, own cgroup as root)
//! ```
//!
//! All tasks run on one thread; what waits for the disk or for dying processes runs on tokio's
//! blocking threads. Start reading at [`run`], then `instance` (the life of an instance), `record`
//! (the files by which agents and shims know of each other), `shim`.

mod context;
mod forward;
mod found;
mod groups;
mod happenings;
mod instance;
mod launch;
mod leftovers;
mod link;
mod logs;
pub mod names;
mod node;
mod ports;
mod probe;
mod record;
mod secrets;
mod shim;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstay_api::client::Client;
use mainstay_ids::{ConsumerId, Incarnation, NodeName, Timestamp};
use mainstay_model::ForwardSettings;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use context::Context;
use forward::Forwarding;
pub use forward::{Changes, CleanUp, Deaths, Follower, ForwardSeams, Repair};
use node::Node;

pub use context::ShimProgram;
pub use forward::Choice;
pub use leftovers::Leftovers;
pub use node::Error;
pub use shim::shim_main;

/// What an agent must know.
#[derive(Debug)]
pub struct Options {
    /// The state directory; it exists.
    pub state: PathBuf,
    /// The node's name.
    pub node: NodeName,
    /// Which start of the agent this is.
    pub incarnation: Incarnation,
    /// Where instances listen.
    pub address: IpAddr,
    /// How connections to service addresses are forwarded; `None`: not at all.
    pub forward: Option<ForwardSettings>,
    /// What forwarding leaves out.
    pub forward_seams: ForwardSeams,
    /// The unix socket of the control centre.
    pub api: PathBuf,
    /// How a shim is started.
    pub shim: ShimProgram,
    /// Whether it takes over what earlier agents started.
    pub adoption: Adoption,
    /// Where names are answered; `None`: nowhere.
    pub names: Option<names::Options>,
}

/// Whether an agent takes over what earlier agents started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Adoption {
    /// It does.
    #[default]
    On,
    /// It begins as if nothing ran, and forgets what was written down. A test seam: it shows that a
    /// check of the adoption can fail. Nothing else may set it.
    Off,
}

/// Works until `stop`, and leaves the instances running then. Needs a runtime on the thread that
/// lives as long as the process: it is the parent of the probes' programs.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), Error> {
    let Options {
        state,
        node,
        incarnation,
        address,
        forward,
        forward_seams,
        api,
        shim,
        adoption,
        names,
    } = options;
    let state = absolute(&state)?;
    // Ends everything in here when one part fails.
    let stop = stop.child_token();
    let _ends_all = stop.clone().drop_guard();
    let (plans_end, plans) = watch::channel(None);
    let (reports_end, reports) = watch::channel(None);
    let (happenings_end, happened) = watch::channel(Vec::new());
    let (diary, noted) = happenings::diary();
    let client = Client::unix(&api);
    let reached = Arc::new(Notify::new());
    let follow = tokio::spawn(link::follow(
        client.clone(),
        node.clone(),
        incarnation,
        plans_end,
        Arc::clone(&reached),
        stop.clone(),
    ));
    let keep = happenings::run(state.clone(), noted, happenings_end, stop.clone());
    let keep = tokio::spawn(keep);
    let secrets = client.clone();
    let directory = client.clone();
    let report = tokio::spawn(link::report(client, reports, reached, stop.clone()));
    let consumer = ConsumerId {
        name: forward::CONSUMER.to_owned(),
        incarnation,
    };
    let forward = forward.map(|settings| {
        let forwarding = Forwarding {
            settings,
            state: state.clone(),
            source: address,
            client: secrets.clone(),
            consumer,
            seams: forward_seams,
            diary,
        };
        tokio::spawn(forwarding.run(stop.clone()))
    });
    let mut context = Context::new(state, address, shim, secrets, stop.clone());
    context.adoption = adoption;
    let names = names.map(|names| tokio::spawn(answer_names(names, directory, context.clone())));
    let node = Node::adopt(node, incarnation, context).await?;
    let result = node.run(plans, happened, reports_end).await;
    stop.cancel();
    // Both end with `stop`.
    follow.await.map_err(Error::Task)?;
    report.await.map_err(Error::Task)?;
    if let Some(names) = names {
        names.await.map_err(Error::Task)?;
    }
    if let Some(forward) = forward {
        forward.await.map_err(Error::Task)?;
    }
    keep.await.map_err(Error::Task)?;
    result
}

/// Until the end of the agent. Instances are kept also if no names can be answered.
async fn answer_names(names: names::Options, client: Client, context: Context) {
    let (directories, directory) = watch::channel(None);
    let (stop, clock) = (context.stop.clone(), context.clock);
    let ((), answered) = tokio::join!(
        names::follow(client, context.state, directories, stop.clone()),
        names::run(names, directory, clock, stop),
    );
    if let Err(error) = answered {
        tracing::error!(%error, "cannot answer names");
    }
}

fn absolute(state: &Path) -> Result<PathBuf, Error> {
    state.canonicalize().map_err(|source| Error::State {
        path: state.to_owned(),
        source,
    })
}

/// The time of day, for records and people.
fn now() -> Timestamp {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(since_1970.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }))
}

/// An error with all its causes, for the log.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
