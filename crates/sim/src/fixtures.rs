//! Specifications of services whose programs are a [`Behaviour`](crate::Behaviour).

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use mainstay_ids::ServiceName;
use mainstay_model::route::{HttpMatch, PathPrefix};
use mainstay_model::service::{
    Check, HealthSpec, LimitsSpec, LogSpec, OnFailure, RolloutSpec, Step,
};
use mainstay_model::{ServiceSpec, Template, Traffic};

/// The minimum healthy time of [`spec`].
pub const HOLD: Duration = Duration::from_millis(500);
/// The healthy deadline of [`spec`].
pub const DEADLINE: Duration = Duration::from_secs(5);
/// The drain time of [`spec`].
pub const DRAIN: Duration = Duration::from_secs(4);
/// The time from SIGTERM to SIGKILL of [`spec`].
pub const GRACE: Duration = Duration::from_secs(1);

/// A service's name.
pub fn name(text: &str) -> ServiceName {
    ServiceName::parse(text).expect("a legal name")
}

/// A service whose program is the behaviour of that name.
pub fn spec(service: &str, instances: u32, behaviour: &str) -> ServiceSpec {
    let one = NonZeroU32::MIN;
    let path = PathPrefix::parse(&format!("/{service}")).expect("legal");
    ServiceSpec {
        name: name(service),
        exec: vec![Template::parse(behaviour).expect("legal")],
        dir: "/".into(),
        user: None,
        env: BTreeMap::new(),
        address: None,
        http: Some(HttpMatch::new(None, path).into()),
        traffic: Traffic::default(),
        health: HealthSpec {
            check: Check::Tcp,
            every: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            fall: one,
            rise: one,
            start: None,
            restart: None,
        },
        instances,
        rollout: RolloutSpec {
            step: Step::Count(one),
            hold: HOLD,
            deadline: DEADLINE,
            progress: mainstay_model::service::PROGRESS,
            canary: None,
            on_failure: OnFailure::Rollback,
        },
        drain: DRAIN,
        grace: GRACE,
        log: LogSpec {
            size: 1 << 20,
            keep: 1,
        },
        slo: None,
        needs: BTreeSet::new(),
        before: Vec::new(),
        schedule: None,
        limits: LimitsSpec::default(),
        secrets: BTreeMap::new(),
        artifact: None,
    }
}
