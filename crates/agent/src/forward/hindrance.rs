//! What of the host stands in the way of forwarding, told when it comes and when it is gone. Looking
//! starts programs of iptables, so it is done beside the works, which must not wait for them.

use std::net::IpAddr;
use std::time::Duration;

use mainstay_forward::host::{self, Concern, ConcernKind, Survey, Version};
use mainstay_kernel::netlink::Prefix;
use mainstay_model::forward::Ranges;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(15);

pub(super) struct Hindrances {
    ranges: Vec<Prefix>,
    /// As they were told.
    told: Vec<ConcernKind>,
    /// The look that is under way: never more than one, however long it takes.
    look: Option<JoinHandle<Survey>>,
    next: Instant,
}

impl Hindrances {
    pub(super) fn new(ranges: &Ranges) -> Self {
        let networks = ranges.networks().iter();
        let ranges = networks.filter_map(|one| Prefix::new(one.address(), one.prefix()).ok());
        Self {
            ranges: ranges.collect(),
            told: Vec::new(),
            look: None,
            next: Instant::now(),
        }
    }

    /// Takes in a look that has ended. For which versions of IP the host ought to forward, and does not.
    pub(super) async fn take_in(&mut self) -> Vec<Version> {
        let Some(ended) = self.look.take_if(|look| look.is_finished()) else {
            return Vec::new();
        };
        match ended.await {
            Ok(survey) => {
                self.tell(&survey.concerns());
                survey.unforwarded()
            }
            Err(error) => {
                tracing::error!(%error, "looking for what hinders forwarding panicked");
                Vec::new()
            }
        }
    }

    /// Has the next look be soon, since something was done about what was found.
    pub(super) fn look_again(&mut self) {
        self.next = Instant::now();
    }

    /// Begins a look that is due, with these instances; `None`: rules of the host do not matter.
    pub(super) fn look_if_due(&mut self, instances: impl FnOnce() -> Option<Vec<IpAddr>>) {
        if self.look.is_some() || Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + LOOK_EVERY;
        let Some(instances) = instances() else {
            return;
        };
        let ranges = self.ranges.clone();
        let look = move || host::survey(&ranges, &instances);
        self.look = Some(spawn_blocking(look));
    }

    /// What stood in the way when it was looked at last.
    pub(super) fn told(&self) -> &[ConcernKind] {
        &self.told
    }

    fn tell(&mut self, concerns: &[Concern]) {
        for concern in concerns {
            if !self.told.contains(&concern.kind) {
                tracing::warn!(what = %concern.what, remedy = %concern.remedy, "forwarding is hindered");
            }
        }
        let kinds: Vec<ConcernKind> = concerns.iter().map(|concern| concern.kind).collect();
        for gone in self.told.iter().filter(|kind| !kinds.contains(kind)) {
            tracing::info!(
                what = gone.word(),
                "forwarding is not hindered by it any more"
            );
        }
        self.told = kinds;
    }
}
