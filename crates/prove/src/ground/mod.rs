//! Scenarios of forwarding that one node's own services cannot show: thousands of services, a host that is
//! cut off, an address that another service gets at once (ADR 36).
//!
//! They have a network of their own, of namespaces that end with the proof: a node, two hosts of
//! instances, a foreign client. Forwarding itself is the agent's ([`Follower`]), on that node; this
//! module publishes the routing states that a control centre would, and starts and ends the instances.
//!
//! ```text
//! hosts 10.77.1.2, 10.77.2.2 ──┐                       ┌── client 10.78.0.2
//!   instances                  └── node 10.77.1.1 ─────┘     load, datagrams
//!                                  Follower, rules, instances, load, datagrams
//! ```

mod board;
mod clients;
mod crowd;
mod cut;
mod datagrams;
mod field;
mod instance;
mod namespace;
mod reuse;
mod scene;

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

use mainstay_model::{Ack, ForwardSettings, Routing};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::load::{self, Report};
use crate::prove::{LOAD_MAX, MARGIN};
use crate::scenario::{Scenario, Trouble};
use crate::verdict::Evidence;
use crate::{Options, Progress};
pub use datagrams::DatagramReport;
pub(crate) use instance::WRONG_SERVICE;
use scene::Scene;

/// What forwards on a node, to be started in a network of the proof's own.
pub trait Forwarding: fmt::Debug + Send + Sync {
    /// Starts in the network namespace of the calling thread. `state` is a directory for its files,
    /// `source` the address from which the node's programs speak. What is wrong is told in words.
    fn start(
        &self,
        settings: &ForwardSettings,
        state: &Path,
        source: IpAddr,
    ) -> Result<Box<dyn Follower>, String>;
}

/// A node's forwarding that follows the routes which it is told.
pub trait Follower: Send {
    /// Brings a routing state about; it is in force when this returns, or it is told why not.
    fn follow(&mut self, routing: Routing) -> Result<Ack, String>;

    /// What is in force, and what is under way to instances that left.
    fn look(&mut self) -> Ack;
}

/// Plays one of these scenarios; blocks its thread.
pub(crate) fn play(
    options: &Options,
    scenario: Scenario,
    progress: &mpsc::Sender<Progress>,
    stop: &CancellationToken,
    handle: &Handle,
) -> Result<Evidence, load::Error> {
    let _ = progress.try_send(Progress::Began(scenario));
    let empty = || Report::new(Instant::now(), Vec::new());
    let mut evidence = Evidence::new(scenario, empty(), empty());
    let made = Scene::make(options, progress.clone(), stop.clone(), handle.clone());
    let prepared = made.and_then(|mut scene| {
        match scenario.ground() {
            Some(Ground::Crowd) => scene.prepare_crowd()?,
            Some(Ground::Cut) => scene.prepare_cut()?,
            Some(Ground::Reuse) => scene.prepare_reuse()?,
            None => {}
        }
        Ok(scene)
    });
    let mut scene = match prepared {
        Ok(scene) => scene,
        Err(trouble) => {
            evidence.trouble = Some(trouble);
            return Ok(evidence);
        }
    };
    // No two loads of a proof share a nonce.
    let round = 2 * scenario as u64;
    let control = scene.send(options, round, options.control)?;
    evidence.control = control.join()?;
    let _ = progress.try_send(Progress::Breaking(scenario));
    let clients = scene.send(options, round + 1, LOAD_MAX)?;
    scene.record.started = clients.started();
    let played = scene.perform(scenario);
    evidence.load = clients.finish()?;
    scene.surrender(&mut evidence);
    evidence.trouble = played.err();
    Ok(evidence)
}

/// Which of these scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ground {
    Crowd,
    Cut,
    Reuse,
}

impl Scene {
    fn perform(&mut self, scenario: Scenario) -> Result<(), Trouble> {
        self.pause(MARGIN)?;
        match scenario.ground() {
            Some(Ground::Crowd) => self.play_crowd()?,
            Some(Ground::Cut) => self.play_cut()?,
            Some(Ground::Reuse) => self.play_reuse()?,
            None => {}
        }
        self.pause(MARGIN)
    }
}
