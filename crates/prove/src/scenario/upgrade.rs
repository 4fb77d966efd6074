//! The gateway's process replaced by another one, as `mainstay upgrade` does it: by SIGUSR1 to the
//! supervisor, whose record tells what came of it.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;

use super::Trouble;
use super::signal::Victim;
use super::stage::{PAUSE, Stage, whole};

/// What of `supervisor.json` tells of upgrades.
#[derive(serde::Deserialize)]
struct Record {
    #[serde(default)]
    upgrade: Upgraded,
    processes: Vec<Recorded>,
}

#[derive(Default, serde::Deserialize)]
struct Upgraded {
    count: u64,
    failed: Option<String>,
}

#[derive(serde::Deserialize)]
struct Recorded {
    name: String,
    pid: Option<u32>,
    #[serde(default)]
    duty: String,
}

impl Record {
    fn load(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
    }

    fn gateways(&self) -> impl Iterator<Item = &Recorded> {
        let all = self.processes.iter();
        all.filter(|process| process.name.starts_with("gateway") && process.pid.is_some())
    }

    /// The gateway that is kept.
    fn kept(&self) -> Option<u32> {
        let mut kept = self.gateways().filter(|process| process.duty == "kept");
        kept.next().and_then(|process| process.pid)
    }
}

impl Stage {
    /// One upgrade after another; the next when the one before has finished what it had.
    pub(super) async fn upgrade(&mut self) -> Result<(), Trouble> {
        let dir = self.state_dir.clone().ok_or_else(|| {
            let why = "the state directory is not known, so the supervisor is not";
            Trouble::CannotBreak(why.to_owned())
        })?;
        let path = dir.join("supervisor.json");
        let mut round = 0;
        while round == 0 || self.has_time() {
            self.replace_gateway(&dir, &path).await?;
            self.pause(PAUSE).await?;
            round += 1;
        }
        Ok(())
    }

    async fn replace_gateway(&mut self, dir: &Path, path: &Path) -> Result<(), Trouble> {
        let refuse =
            |why: String| Trouble::CannotBreak(format!("cannot read {}: {why}", path.display()));
        let before = Record::load(path).map_err(refuse)?;
        let no_gateway = || Trouble::CannotBreak("no gateway runs that could be replaced".into());
        let old = before.kept().ok_or_else(no_gateway)?;
        let supervisor = supervisor(dir)?;
        let fault = self.begin(format!("upgrade of the gateway (process {old})"));
        let refused = |error| Trouble::CannotBreak(format!("cannot ask the supervisor: {error}"));
        supervisor.signal(Signal::USR1).map_err(refused)?;
        let mut failed = None;
        let services = self.services.clone();
        self.wait("the gateway was not replaced", |snapshot| {
            let now = Record::load(path)?;
            if now.upgrade.count > before.upgrade.count && now.upgrade.failed.is_some() {
                failed = now.upgrade.failed;
                return Ok(());
            }
            match now.kept() {
                Some(new) if new != old => {}
                Some(_) => return Err(format!("process {old} is still the gateway")),
                None => return Err("no gateway serves".to_owned()),
            }
            if now.gateways().any(|process| process.pid == Some(old)) {
                return Err(format!("process {old} still finishes what it had"));
            }
            services
                .iter()
                .try_for_each(|service| whole(snapshot, service))
        })
        .await?;
        if let Some(why) = failed {
            let what = format!("the gateway was not replaced: {why}");
            return Err(Trouble::Unexpected(what));
        }
        self.whole_again(fault);
        Ok(())
    }
}

/// The supervisor of a state directory, by the file that it holds locked.
fn supervisor(dir: &Path) -> Result<Victim, Trouble> {
    let path = dir.join("lock");
    let refuse = |why: &dyn std::fmt::Display| {
        let path = path.display();
        Trouble::CannotBreak(format!("cannot find the supervisor by {path}: {why}"))
    };
    let mut file = File::open(&path).map_err(|error| refuse(&error))?;
    let is_held = |file: &File| flock(file, FlockOperation::NonBlockingLockShared).is_err();
    if !is_held(&file) {
        return Err(refuse(&"nobody holds it"));
    }
    let mut number = String::new();
    file.read_to_string(&mut number)
        .map_err(|error| refuse(&error))?;
    let pid = number.trim().parse().map_err(|error| refuse(&error))?;
    let supervisor = Victim::hold(pid).map_err(|error| refuse(&error))?;
    // Still held: so the number is the holder's, and not that of whoever got it after its end.
    if is_held(&file) {
        Ok(supervisor)
    } else {
        Err(refuse(&"nobody holds it any more"))
    }
}
