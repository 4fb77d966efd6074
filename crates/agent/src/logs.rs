//! Keeping the directory of logs small: each rollout leaves the files of the instances it replaced.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use mainstay_ids::InstanceId;

/// So many forgotten instances of a service keep their output: enough to read what the last
/// rollouts replaced.
const KEPT: usize = 20;

/// Removes the output of the oldest forgotten instances of the service of `forgotten`.
pub(crate) fn prune(state: &Path, forgotten: &InstanceId) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(state.join("logs"))? {
        let path = entry?.path();
        let id = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(of_instance);
        if let Some(id) = id.filter(|id| id.service == forgotten.service) {
            files.push((id.number, path));
        }
    }
    let gone = |number: &u64| {
        let id = InstanceId {
            service: forgotten.service.clone(),
            number: *number,
        };
        !state.join("run").join(id.to_string()).exists()
    };
    let numbers: BTreeSet<u64> = files
        .iter()
        .map(|(number, _)| *number)
        .filter(gone)
        .collect();
    let old: BTreeSet<u64> = numbers.into_iter().rev().skip(KEPT).collect();
    for (_, path) in files.iter().filter(|(number, _)| old.contains(number)) {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// `orders-3.log`, `orders-3.log.1`
fn of_instance(file: &str) -> Option<InstanceId> {
    let (id, rest) = file.split_once(".log")?;
    let rotated = rest
        .strip_prefix('.')
        .is_some_and(|number| number.parse::<u32>().is_ok());
    if rest.is_empty() || rotated {
        id.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::TempDir;

    #[test]
    fn only_the_newest_forgotten_instances_of_a_service_keep_their_output() {
        let dir = TempDir::new("logs");
        fs::create_dir_all(dir.join("logs")).unwrap();
        fs::create_dir_all(dir.join("run/orders-1")).unwrap();
        let names = (1..=23).flat_map(|n| [format!("orders-{n}.log"), format!("orders-{n}.log.1")]);
        for name in names.chain([
            "payments-1.log".into(),
            "server.log".into(),
            "orders-2.log.gz".into(),
        ]) {
            fs::write(dir.join("logs").join(name), "").unwrap();
        }
        prune(dir.path(), &"orders-23".parse().unwrap()).unwrap();
        let exists = |name: &str| dir.join("logs").join(name).exists();
        assert!(exists("orders-1.log"), "it is not forgotten");
        assert!(!exists("orders-2.log") && !exists("orders-2.log.1") && !exists("orders-3.log"));
        assert!(exists("orders-4.log") && exists("orders-23.log.1"));
        assert!(exists("payments-1.log") && exists("server.log") && exists("orders-2.log.gz"));
    }
}
