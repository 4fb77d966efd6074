//! Versions that replace one another: good ones, and ones that cannot run.

use std::collections::BTreeSet;
use std::time::Duration;

use mainstay_ids::{InstanceId, ServiceName, Version};
use mainstay_model::service::{Check, OnFailure};
use mainstay_model::{EventKind, ServiceSpec, Template};

use super::Trouble;
use super::stage::{Stage, api, whole};
use crate::cluster::Change;

/// A variable that no program reads: setting it makes a new version of the same program.
const ROUND: &str = "MAINSTAY_PROVE_ROUND";

/// On top of the minimum healthy time: how long a version that never gets healthy may try.
const HOPELESS: Duration = Duration::from_secs(3);

/// A version that cannot run, and in which way.
struct Bad {
    what: &'static str,
    exec: &'static [&'static str],
}

const ENDS: Bad = Bad {
    what: "ends at once",
    exec: &["false"],
};
const NEVER_LISTENS: Bad = Bad {
    what: "never gets healthy",
    exec: &["sleep", "3600"],
};

impl Stage {
    pub(super) async fn roll_out(&mut self) -> Result<(), Trouble> {
        for service in self.services.clone() {
            let spec = self
                .cluster
                .spec(&service)
                .await
                .map_err(api("ask for a service"))?;
            let mut new = spec.clone();
            let round = spec
                .env
                .get(ROUND)
                .and_then(|round| round.to_string().parse().ok());
            let next = round.unwrap_or(0_u32).wrapping_add(1).to_string();
            new.env.insert(ROUND.to_owned(), literal(&next)?);
            let rolled = self.replace_by(&new, "a new version").await;
            if rolled.is_err() {
                self.cluster
                    .apply(&spec)
                    .await
                    .map_err(api("go back to what was"))?;
            }
            rolled?;
            self.replace_by(&spec, "the version before").await?;
        }
        Ok(())
    }

    /// Declares `spec` and waits until none of the instances of before is left.
    async fn replace_by(&mut self, spec: &ServiceSpec, what: &str) -> Result<(), Trouble> {
        let service = &spec.name;
        let snapshot = self
            .cluster
            .snapshot()
            .await
            .map_err(api("ask for the instances"))?;
        let old: BTreeSet<InstanceId> = snapshot
            .of(service)
            .iter()
            .map(|i| i.instance.clone())
            .collect();
        let fault = self.begin(format!("rollout of {service}: {what}"));
        let Change { version, event } = self.declare(spec).await?;
        let waiting = format!("{service} is not wholly at {version}");
        let replaced = self.wait(&waiting, |snapshot| {
            let instances = snapshot.of(service);
            if let Some(left) = instances.iter().find(|i| old.contains(&i.instance)) {
                return Err(format!(
                    "{} of the version before is still there",
                    left.instance
                ));
            }
            if let Some(other) = instances.iter().find(|i| i.version != version) {
                return Err(format!("{} is of {}", other.instance, other.version));
            }
            whole(snapshot, service)
        });
        tokio::select! {
            replaced = replaced => replaced?,
            failed = self.failure_of(service, version, event) => {
                let cause = failed?;
                return Err(Trouble::Unexpected(format!("{service}: {cause}")));
            }
        }
        self.whole_again(fault);
        Ok(())
    }

    pub(super) async fn roll_out_bad(&mut self) -> Result<(), Trouble> {
        for service in self.services.clone() {
            let spec = self
                .cluster
                .spec(&service)
                .await
                .map_err(api("ask for a service"))?;
            for bad in [ENDS, NEVER_LISTENS] {
                // A check of the user's own may well pass without the program.
                if bad.what == NEVER_LISTENS.what && matches!(spec.health.check, Check::Exec(_)) {
                    continue;
                }
                let survived = self.survive(&spec, &bad).await;
                if survived.is_err() {
                    self.cluster
                        .apply(&spec)
                        .await
                        .map_err(api("go back to what was"))?;
                }
                survived?;
            }
        }
        Ok(())
    }

    /// Declares a version that cannot run, and waits until the service is back by itself.
    async fn survive(&mut self, spec: &ServiceSpec, bad: &Bad) -> Result<(), Trouble> {
        let service = &spec.name;
        let mut broken = spec.clone();
        broken.exec = bad
            .exec
            .iter()
            .map(|word| literal(word))
            .collect::<Result<_, _>>()?;
        broken.artifact = None;
        broken.rollout.on_failure = OnFailure::Rollback;
        broken.rollout.deadline = broken.rollout.hold + HOPELESS;
        let fault = self.begin(format!("rollout of {service}: a version that {}", bad.what));
        let Change { version, event } = self.declare(&broken).await?;
        let waiting = format!("{service} did not go back by itself from {version}");
        self.wait(&waiting, |snapshot| {
            if snapshot
                .service(service)
                .is_some_and(|status| status.version == version)
            {
                return Err(format!("{version} is still wanted"));
            }
            if let Some(left) = snapshot.of(service).iter().find(|i| i.version == version) {
                return Err(format!("{} of it is still there", left.instance));
            }
            whole(snapshot, service)
        })
        .await?;
        let cause = tokio::select! {
            cause = self.failure_of(service, version, event) => cause?,
            () = tokio::time::sleep(HOPELESS) => "no event tells why".to_owned(),
        };
        let what = &mut self.faults[fault].what;
        *what = format!("{what} (rolled back: {cause})");
        self.whole_again(fault);
        Ok(())
    }

    async fn declare(&self, spec: &ServiceSpec) -> Result<Change, Trouble> {
        let change = self
            .cluster
            .apply(spec)
            .await
            .map_err(api("declare a version"))?;
        let silent = || Trouble::Unexpected(format!("{} was declared in vain", spec.name));
        change.ok_or_else(silent)
    }

    /// Waits until a rollout has failed, which is for ever if it does not; tells why it did.
    async fn failure_of(
        &self,
        service: &ServiceName,
        version: Version,
        event: u64,
    ) -> Result<String, Trouble> {
        loop {
            match self.cluster.events(service, event).await {
                Ok(events) => {
                    let failed = events.iter().find(|event| {
                        matches!(&event.kind, EventKind::RolloutFailed { version: v, .. } if *v == version)
                    });
                    if let Some(failed) = failed {
                        return Ok(failed.kind.to_string());
                    }
                }
                Err(error) if error.is_transient() => {}
                Err(error) => return Err(api("ask for the events")(error)),
            }
            self.pause(Duration::from_millis(300)).await?;
        }
    }
}

fn literal(text: &str) -> Result<Template, Trouble> {
    Template::parse(text).map_err(|error| Trouble::CannotBreak(error.to_string()))
}
