//! `cargo xtask bench NAME`: ours and a rival's, interleaved, on the same machine.
//!
//! Without the feature `bench` this only builds and starts itself again, in release and with the feature,
//! since a load generator in debug measures itself.
//!
//! Start reading at `bench/gateway.rs`, the shortest bench; `bench/frame.rs` has what all of them print.

#[cfg(feature = "bench")]
pub(crate) mod backend;
#[cfg(feature = "bench")]
mod broker;
#[cfg(feature = "bench")]
mod dev;
#[cfg(feature = "bench")]
mod failure;
#[cfg(feature = "bench")]
mod forward;
#[cfg(feature = "bench")]
mod frame;
#[cfg(feature = "bench")]
mod gateway;
#[cfg(feature = "bench")]
mod haproxy;
#[cfg(feature = "bench")]
mod interval;
#[cfg(feature = "bench")]
mod load;
#[cfg(feature = "bench")]
pub(crate) mod machine;
#[cfg(feature = "bench")]
mod network;
#[cfg(feature = "bench")]
mod node;
#[cfg(feature = "bench")]
mod store;
#[cfg(feature = "bench")]
mod vip;

use anyhow::{Result, bail};
#[cfg(feature = "bench")]
use tokio::signal::unix::{Signal, SignalKind, signal};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which one
    name: Name,
    /// Three short rounds instead of five
    #[arg(long)]
    quick: bool,
    /// Print only the last line: one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Name {
    /// The message broker: rates, processor time, memory, starts, and what SIGKILL costs
    Broker,
    /// What clients see when instances are killed, cut off, frozen and replaced, and when the gateway is
    Failure,
    /// What forwarding in the kernel costs and keeps, and what rules of iptables do
    Forward,
    /// What requests, connections and large bodies cost the gateway
    Gateway,
    /// Where the gateway's processor time goes, and its system calls
    GatewayProfile,
    /// What Mainstay itself needs on one machine, and how fast it serves
    Node,
    /// Durable transactions of the control centre's store
    Store,
    /// For how long nobody answers at a floating address
    Vip,
}

impl Name {
    fn as_str(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Failure => "failure",
            Self::Forward => "forward",
            Self::Gateway => "gateway",
            Self::GatewayProfile => "gateway-profile",
            Self::Node => "node",
            Self::Store => "store",
            Self::Vip => "vip",
        }
    }
}

#[cfg(not(feature = "bench"))]
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut again = again();
    again.args(["bench", arguments.name.as_str()]);
    again.args(arguments.quick.then_some("--quick"));
    again.args(arguments.json.then_some("--json"));
    if !again.status()?.success() {
        bail!("the bench `{}` failed", arguments.name.as_str());
    }
    Ok(())
}

/// This program in release and with the feature, to which the command is yet to be added.
#[cfg(not(feature = "bench"))]
pub(crate) fn again() -> std::process::Command {
    let mut again = crate::cargo::command();
    again.args(["run", "--release", "--quiet", "--package", "xtask"]);
    again.args(["--features", "bench", "--"]);
    again
}

#[cfg(feature = "bench")]
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    use frame::{Extent, Reader, Run};
    let Arguments { name, quick, json } = *arguments;
    if name == Name::Failure && mainstay_testkit::is_root() {
        if !network::is_own() {
            // There is no other network in there to fetch sources from.
            dev::build(&["mainstay"])?;
            return network::start_again();
        }
        network::bring_up()?;
    }
    let extent = if quick { Extent::Quick } else { Extent::Full };
    let reader = if json {
        Reader::Program
    } else {
        Reader::Person
    };
    let mut run = Run::new(name.as_str(), extent, reader);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // At once, since until then a signal ends this process without its guards.
        let (interrupt, terminate) = (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        );
        tokio::select! {
            measured = measure(name, &mut run) => measured,
            // What was started ends with the guards that hold it.
            () = stopped(interrupt, terminate) => bail!("interrupted"),
        }
    })?;
    if !run.finish()? {
        bail!("not all bars hold");
    }
    Ok(())
}

#[cfg(feature = "bench")]
async fn measure(name: Name, run: &mut frame::Run) -> Result<()> {
    match name {
        Name::Broker => broker::run(run).await,
        Name::Failure => failure::run(run).await,
        Name::Forward => forward::run(run).await,
        Name::Gateway => gateway::run(run).await,
        Name::GatewayProfile => gateway::profile::run(run).await,
        Name::Node => node::run(run).await,
        Name::Store => store::run(run).await,
        Name::Vip => vip::run(run).await,
    }
}

/// Waits for Ctrl-C or SIGTERM.
#[cfg(feature = "bench")]
async fn stopped(mut interrupt: Signal, mut terminate: Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
