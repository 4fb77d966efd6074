//! How long a control centre needs from its snapshot to what it publishes, with many instances.

use std::time::{Duration, Instant};

use mainstay_control::{Apply, Control, Input, Settings, Snapshot};

use crate::fixtures::spec;
use crate::world::World;

/// What one restart took, apart.
#[derive(Debug, Clone, Copy)]
pub struct Recovery {
    /// How many instances there were.
    pub instances: usize,
    /// From the snapshot's text to a machine that awaits the first report.
    pub restored: Duration,
    /// From the first report to routes and plan.
    pub published: Duration,
}

/// Measures one restart with so many services of so many instances each. `None`: it published
/// something else than before, so the time means nothing.
pub fn recover(services: u32, instances: u32) -> Option<Recovery> {
    let mut world = World::new(Settings::default());
    let declared = (0..services).map(|at| spec(&format!("s{at}"), instances, "good-10"));
    let services = declared.collect();
    world.input(Input::Apply(Apply { services })).ok()?;
    world.run(Duration::from_secs(1));
    let (routing, plan) = (world.routing.clone(), world.plan.clone());
    let text = serde_json::to_string(&world.control.snapshot()).ok()?;
    let report = world.agent.report();
    let clock = world.clock();

    let begin = Instant::now();
    let snapshot: Snapshot = serde_json::from_str(&text).ok()?;
    let mut control = Control::restore(snapshot, Settings::default(), clock).ok()?;
    let restored = begin.elapsed();
    control.handle(clock, Input::Report(report)).ok()?;
    let published = begin.elapsed().saturating_sub(restored);

    let same = control.may_publish()
        && control.routing().services == routing.services
        && control.plan().instances == plan.instances;
    same.then_some(Recovery {
        instances: plan.instances.len(),
        restored,
        published,
    })
}
