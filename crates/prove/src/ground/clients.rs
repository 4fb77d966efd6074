//! Who asks: programs of the node, with a connection for each request and with kept ones, and another host.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::{Duration, Instant};

use tokio_util::sync::{CancellationToken, DropGuard};

use super::namespace::{Namespace, cannot};
use crate::load::{self, Connections, Load, Report, Running, Target};

/// Connections of each kind for each service: few, so that each kept one is used many times in a second.
const CONNECTIONS: NonZeroUsize = NonZeroUsize::new(8).expect("not zero");

/// Those who connect for each request wait for nobody: one whose connection is not answered holds one.
const AT_ONCE: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// A part of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Programs of the node, with a connection for each request.
    Fresh,
    /// Programs of the node, on connections that stay.
    Kept,
    /// Another host, with a connection for each request.
    Foreign,
}

/// What all clients of a scenario send.
#[derive(Debug, Clone)]
pub(crate) struct Demand {
    pub(crate) targets: Vec<Target>,
    pub(crate) kinds: Vec<Kind>,
}

/// Clients at work. They end with it.
#[derive(Debug)]
pub(crate) struct Clients {
    running: Vec<Running>,
    stop: DropGuard,
}

impl Clients {
    /// The rate is shared out evenly.
    pub(crate) fn start(
        demand: &Demand,
        (node, client): (&Namespace, &Namespace),
        (rate, workers): (NonZeroU32, NonZeroUsize),
        (seed, duration): (u64, Duration),
        stop: &CancellationToken,
    ) -> Result<Self, load::Error> {
        let stop = stop.child_token();
        let parts = u32::try_from(demand.kinds.len()).unwrap_or(1).max(1);
        let mut running = Vec::new();
        for (kind, number) in demand.kinds.iter().zip(0_u64..) {
            let (from, connections) = match kind {
                Kind::Fresh => (node, Connections::PerRequest(AT_ONCE)),
                Kind::Kept => (node, Connections::Kept(CONNECTIONS)),
                Kind::Foreign => (client, Connections::PerRequest(AT_ONCE)),
            };
            let load = Load {
                targets: demand.targets.clone(),
                rate: NonZeroU32::new(rate.get() / parts).unwrap_or(NonZeroU32::MIN),
                duration,
                connections,
                workers,
                // Requests of one seed are told apart by their number, so these are far apart.
                seed: seed.wrapping_add(number << 32),
            };
            let start = || {
                let started = load.start(None, &stop);
                started.map_err(|error| cannot("send load", &error))
            };
            let started = from.enter(start);
            running.push(
                started.map_err(|trouble| load::Error::Start(std::io::Error::other(trouble)))?,
            );
        }
        let stop = stop.drop_guard();
        Ok(Self { running, stop })
    }

    /// When the first request was planned.
    pub(crate) fn started(&self) -> Instant {
        let all = self.running.iter().map(|running| running.started);
        all.min().unwrap_or_else(Instant::now)
    }

    /// Waits for their end.
    pub(crate) fn join(self) -> Result<Report, load::Error> {
        let _stop_at_last = self.stop;
        add_up(self.running)
    }

    /// Ends them, and waits until they have had all their answers.
    pub(crate) fn finish(self) -> Result<Report, load::Error> {
        drop(self.stop);
        add_up(self.running)
    }
}

fn add_up(all: Vec<Running>) -> Result<Report, load::Error> {
    let mut sum: Option<Report> = None;
    for running in all {
        let report = running.join()?;
        match &mut sum {
            None => sum = Some(report),
            Some(sum) => sum.merge(report),
        }
    }
    Ok(sum.unwrap_or_else(|| Report::new(Instant::now(), Vec::new())))
}
