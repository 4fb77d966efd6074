//! Whether anybody noticed: the same instances, each once, and every request answered.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_api::wire::InstanceStatus;
use mainstay_ids::Attempt;
use mainstay_prove::load::Report;
use mainstay_testkit::census::Resident;

/// How many failed requests a complaint quotes.
const QUOTED: usize = 5;

/// Who is there at a time when all is at rest.
pub(super) struct Standing {
    /// What the control centre says of each instance.
    told: BTreeMap<String, (Option<Attempt>, Option<u32>)>,
    /// What the operating system says.
    residents: BTreeSet<Resident>,
}

impl Standing {
    pub(super) fn new(instances: &[InstanceStatus], residents: BTreeSet<Resident>) -> Self {
        let told = instances.iter().map(|instance| {
            let seen = (instance.attempt, instance.pid);
            (instance.instance.to_string(), seen)
        });
        Self {
            told: told.collect(),
            residents,
        }
    }
}

/// What is to complain about a round. `seen`: every process of an instance that was there at any
/// time in it.
pub(super) fn judge(
    before: &Standing,
    after: &Standing,
    seen: &BTreeSet<Resident>,
    load: &Report,
) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut processes: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for resident in seen {
        let of = processes.entry(&resident.instance).or_default();
        of.push(resident.pid);
    }
    for (instance, pids) in processes {
        if pids.len() > 1 {
            complaints.push(format!("{instance} was started again: processes {pids:?}"));
        }
    }
    for lost in before.residents.difference(&after.residents) {
        let (instance, pid) = (&lost.instance, lost.pid);
        complaints.push(format!("{instance}'s process {pid} is gone"));
    }
    for new in after.residents.difference(&before.residents) {
        let (instance, pid) = (&new.instance, new.pid);
        complaints.push(format!("{instance} has a new process {pid}"));
    }
    if before.told != after.told {
        complaints.push(format!(
            "attempts and processes were {:?} and are {:?}",
            before.told, after.told
        ));
    }
    let failed = load.failed();
    if !failed.is_empty() {
        let failures = load.targets.iter().flat_map(|target| &target.failures);
        let first: Vec<_> = failures.take(QUOTED).collect();
        complaints.push(format!("requests failed: {failed:?}, such as {first:?}"));
    }
    if load.ok() == 0 {
        complaints.push("no request was answered".to_owned());
    }
    complaints
}
