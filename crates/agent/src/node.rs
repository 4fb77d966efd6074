//! The task of the node: plans in, orders to the instances' tasks, their changes in, reports out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use mainstay_ids::{Generation, Incarnation, InstanceId, NodeName};
use mainstay_kernel::Pidfd;
use mainstay_model::{
    Capacity, Happenings, InstanceReport, NodePlan, NodeReport, Phase, PlannedAction,
    PlannedInstance,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Adoption;
use crate::context::Context;
use crate::found::{self, Found};
use crate::groups;
use crate::instance::{Change, Instance, Order};

/// One change of each of the 500 instances that a node is sized for. Full: an instance's task waits
/// for the node's, which does nothing that takes long.
const CHANGES: usize = 500;

/// How long the first report waits for the first probes of adopted instances: as long as a probe
/// may take by default, and a little. Who did not answer until then is told as it is.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// Why the agent cannot work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state directory cannot be used.
    #[error("cannot use the directory `{}` of the state", path.display())]
    State {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A task ended by a fault in the program; the next agent adopts all instances.
    #[error("a task of the agent failed")]
    Task(#[source] tokio::task::JoinError),
}

/// All instances of one node.
pub(crate) struct Node {
    name: NodeName,
    incarnation: Incarnation,
    context: Context,
    copies: BTreeMap<InstanceId, Copy>,
    tasks: JoinSet<()>,
    changes: mpsc::Receiver<Change>,
    changes_end: mpsc::Sender<Change>,
    plan: Option<Generation>,
    /// Read once: it changes with the machine, which starts a new agent.
    capacity: Option<Capacity>,
    /// Beside the instances.
    happenings: Vec<Happenings>,
    first_report: FirstReport,
}

/// One instance's task, as the node sees it.
struct Copy {
    orders: watch::Sender<Order>,
    report: Option<InstanceReport>,
}

enum FirstReport {
    /// Waits for these, at most until then.
    Due {
        unsettled: BTreeSet<InstanceId>,
        at: Instant,
    },
    Sent,
}

impl Node {
    /// Takes over what earlier agents started.
    pub(crate) async fn adopt(
        name: NodeName,
        incarnation: Incarnation,
        context: Context,
    ) -> Result<Self, Error> {
        let (state, adoption) = (context.state.clone(), context.adoption);
        let swept = context.clone();
        let survey = tokio::task::spawn_blocking(move || {
            // A specification holds the service's environment, and that may hold secrets.
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(state.join("run"))?;
            sweep(&swept);
            match adoption {
                Adoption::On => found::survey(&state),
                Adoption::Off => found::forget(&state).map(|()| Vec::new()),
            }
        });
        let found = survey
            .await
            .map_err(Error::Task)?
            .map_err(|source| Error::State {
                path: context.state.clone(),
                source,
            })?;
        let (changes_end, changes) = mpsc::channel(CHANGES);
        let first_report = FirstReport::Due {
            unsettled: BTreeSet::new(),
            at: Instant::now() + SETTLE_MAX,
        };
        let mut node = Self {
            name,
            incarnation,
            context,
            copies: BTreeMap::new(),
            tasks: JoinSet::new(),
            changes,
            changes_end,
            plan: None,
            capacity: capacity(),
            happenings: Vec::new(),
            first_report,
        };
        for (id, found) in found {
            match found {
                Ok(Some(Found::Nameless { shim })) => node.dismiss(&id, shim).await?,
                Ok(Some(found)) => node.take_over(id, found),
                // An agent died before it wrote the first attempt down.
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(instance = %id, error = %crate::chain(&error), "left alone");
                }
            }
        }
        Ok(node)
    }

    /// Whether it is to be started anew, the plan says.
    async fn dismiss(&self, id: &InstanceId, shim: Option<Pidfd>) -> Result<(), Error> {
        tracing::error!(instance = %id, "runs, and what it runs is written down nowhere; it is ended");
        let (state, of) = (self.context.state.clone(), id.clone());
        let ended =
            tokio::task::spawn_blocking(move || found::dismiss(&state, &of, shim.as_ref())).await;
        if let Err(error) = ended.map_err(Error::Task)? {
            tracing::error!(instance = %id, %error, "cannot be ended");
        }
        Ok(())
    }

    fn take_over(&mut self, id: InstanceId, found: Found) {
        let spec = match &found {
            Found::Live { spec, .. }
            | Found::Undecided { spec }
            | Found::Ended { spec, .. }
            | Found::Lost { spec, .. } => spec,
            Found::Nameless { .. } => return,
        };
        if spec.planned.instance != id {
            tracing::error!(instance = %id, names = %spec.planned.instance, "its files name another instance; left alone");
            return;
        }
        tracing::info!(instance = %id, attempt = spec.attempt.0, "found");
        let (orders, instance) = self.instance(spec.planned.clone(), Order::None);
        self.tasks.spawn(instance.run_found(found));
        if let FirstReport::Due { unsettled, .. } = &mut self.first_report {
            unsettled.insert(id.clone());
        }
        self.copies.insert(
            id,
            Copy {
                orders,
                report: None,
            },
        );
    }

    fn instance(&self, planned: PlannedInstance, order: Order) -> (watch::Sender<Order>, Instance) {
        let (orders, receiver) = watch::channel(order);
        (
            orders,
            Instance::new(
                self.context.clone(),
                planned,
                receiver,
                self.changes_end.clone(),
            ),
        )
    }

    /// Works until `stop`; the instances go on running then.
    pub(crate) async fn run(
        mut self,
        mut plans: watch::Receiver<Option<NodePlan>>,
        mut happened: watch::Receiver<Vec<Happenings>>,
        reports: watch::Sender<Option<NodeReport>>,
    ) -> Result<(), Error> {
        let stop = self.context.stop.clone();
        loop {
            self.report(&reports);
            let first_report = self.first_report_at();
            tokio::select! {
                () = stop.cancelled() => break,
                Ok(()) = plans.changed() => {
                    let plan = plans.borrow_and_update().clone();
                    if let Some(plan) = plan { self.follow(plan) }
                }
                Ok(()) = happened.changed() => {
                    self.happenings.clone_from(&happened.borrow_and_update());
                }
                Some(change) = self.changes.recv() => {
                    self.take(change);
                    // A burst of changes becomes one report.
                    while let Ok(change) = self.changes.try_recv() { self.take(change) }
                }
                Some(ended) = self.tasks.join_next() => ended.map_err(Error::Task)?,
                () = first_report => self.first_report = FirstReport::Sent,
            }
        }
        // Tasks that wait for room must not wait for ever.
        drop(self.changes);
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(Error::Task)?;
        }
        let context = self.context;
        tokio::task::spawn_blocking(move || sweep(&context))
            .await
            .map_err(Error::Task)
    }

    /// Hands a plan's orders on. What it does not name is left alone, unless it is stopped: then the
    /// control centre has seen that, and it is forgotten.
    fn follow(&mut self, plan: NodePlan) {
        if plan.node != self.name {
            tracing::error!(node = %plan.node, "a plan for another node; ignored");
            return;
        }
        let named: BTreeSet<InstanceId> = plan
            .instances
            .iter()
            .map(|planned| planned.instance.clone())
            .collect();
        for planned in plan.instances {
            let order = match planned.action {
                PlannedAction::Run => Order::Run,
                PlannedAction::RunOnce => Order::RunOnce,
                PlannedAction::Hold => Order::Hold,
                PlannedAction::Stop => Order::Stop,
            };
            self.order(planned, order);
        }
        for (id, copy) in &self.copies {
            let stopped = matches!(
                copy.report.as_ref().map(|report| &report.phase),
                Some(Phase::Stopped { .. })
            );
            if stopped && !named.contains(id) {
                copy.orders.send_replace(Order::Forget);
            }
        }
        self.plan = Some(plan.generation);
    }

    fn order(&mut self, planned: PlannedInstance, order: Order) {
        let id = planned.instance.clone();
        if let Some(copy) = self.copies.get(&id) {
            copy.orders.send_if_modified(|current| {
                let changed = *current != order;
                *current = order;
                changed
            });
            return;
        }
        let (orders, instance) = self.instance(planned, order);
        self.tasks.spawn(instance.run_new());
        self.copies.insert(
            id,
            Copy {
                orders,
                report: None,
            },
        );
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Seen(report) => {
                if let Some(copy) = self.copies.get_mut(&report.instance) {
                    copy.report = Some(report);
                }
            }
            Change::Settled(id) => {
                if let FirstReport::Due { unsettled, .. } = &mut self.first_report {
                    unsettled.remove(&id);
                }
            }
            Change::Gone(id) => drop(self.copies.remove(&id)),
        }
    }

    fn first_report_at(&self) -> impl Future<Output = ()> + use<> {
        let at = match &self.first_report {
            FirstReport::Due { at, .. } => Some(*at),
            FirstReport::Sent => None,
        };
        async move {
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        }
    }

    fn report(&mut self, reports: &watch::Sender<Option<NodeReport>>) {
        match &self.first_report {
            FirstReport::Due { unsettled, .. } if unsettled.is_empty() => {
                self.first_report = FirstReport::Sent;
            }
            FirstReport::Due { .. } => return,
            FirstReport::Sent => {}
        }
        let report = NodeReport {
            node: self.name.clone(),
            incarnation: self.incarnation,
            plan: self.plan,
            boot: self.context.boot.clone(),
            instances: self
                .copies
                .values()
                .filter_map(|copy| copy.report.clone())
                .collect(),
            capacity: self.capacity,
            happenings: self.happenings.clone(),
        };
        reports.send_if_modified(|current| {
            let changed = current.as_ref() != Some(&report);
            *current = Some(report);
            changed
        });
    }
}

/// What this node has; without it the control centre admits what is asked for.
fn capacity() -> Option<Capacity> {
    match mainstay_kernel::capacity::read() {
        Ok(found) => Some(Capacity {
            cpu_thousandths: found.cpu_thousandths,
            memory_bytes: found.memory_bytes,
        }),
        Err(error) => {
            tracing::warn!(%error, "cannot tell how many processors and how much memory there are");
            None
        }
    }
}

/// Removes the empty groups of what ended with nobody there to remove them.
fn sweep(context: &Context) {
    if let Ok(tree) = &context.cgroups {
        groups::sweep(tree, &context.state, &context.mark());
    }
}
