//! Our side: a real `mainstay dev` with a service file and a state directory of its own.

use super::{backend, machine};
use crate::cargo;
use anyhow::{Context as _, Result, bail};
use mainstay_api::{
    client::Client,
    wire::{InstanceState, InstanceStatus, ServiceState, ServiceStatus},
};
use mainstay_testkit::{Ended, Spawned, TempDir, free_port, wait_until_async};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    ffi::OsStr,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// How long a start, a rollout or a change of scale may take on a loaded machine.
const DEADLINE: Duration = Duration::from_mins(1);

/// How often the processes are looked for again when they are ended: one may be born meanwhile.
const END_ROUNDS: usize = 20;

/// The one service of most benches.
pub(crate) const SERVICE: &str = "bench";

/// Builds what our side consists of; gives the path of the program.
pub(crate) fn build(packages: &[&str]) -> Result<PathBuf> {
    let mut build = cargo::command();
    build.args(["build", "--release", "--quiet", "--locked"]);
    for package in packages {
        build.args(["--package", package]);
    }
    cargo::run(&mut build)?;
    Ok(cargo::target_dir()?.join("release").join("mainstay"))
}

/// The program with names and frame pointers, for a profiler; in a directory of its own, since it would else be built
/// anew each time one or the other is wanted.
pub(crate) fn build_with_names() -> Result<PathBuf> {
    let target = cargo::target_dir()?.join("profile");
    let mut build = cargo::command();
    build.args(["build", "--release", "--quiet", "--locked"]);
    build.args(["--package", "mainstay", "--target-dir"]);
    build.arg(&target);
    build.envs([
        ("CARGO_PROFILE_RELEASE_STRIP", "none"),
        ("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only"),
        ("RUSTFLAGS", "-C force-frame-pointers=yes"),
    ]);
    cargo::run(&mut build)?;
    Ok(target.join("release").join("mainstay"))
}

/// The service file of the benches' own instances.
pub(crate) fn service_file(instances: u32, delay: Duration, release: u32) -> Result<String> {
    let program = backend::executable()?;
    let program = program
        .to_str()
        .context("the path of this program is not text")?;
    // The program of the benches may lie where only root may go.
    let user = if mainstay_testkit::is_root() {
        "user      = \"root\"\n"
    } else {
        ""
    };
    let [command, option, value] = backend::arguments(delay);
    Ok(format!(
        "[service.{SERVICE}]\n\
         exec      = [{program:?}, {command:?}, {option:?}, {value:?}]\n\
         {user}\
         env       = {{ RELEASE = \"{release}\" }}\n\
         http      = {{ path = \"/\" }}\n\
         health    = {{ get = \"/health\", every = \"1s\", fall = 2, rise = 1 }}\n\
         instances = {instances}\n\
         rollout   = {{ hold = \"300ms\" }}\n"
    ))
}

/// A running `mainstay dev`; dropping it ends all of it.
pub(crate) struct Dev {
    process: Spawned,
    mainstay: PathBuf,
    entry: SocketAddr,
    state: PathBuf,
    client: Client,
    dir: TempDir,
}

impl Dev {
    /// Starts it with a service file; does not wait for anything.
    pub(crate) fn start(mainstay: &Path, file: &str, options: &[&str]) -> Result<Self> {
        let dir = TempDir::new("bench-dev");
        let path = dir.join("services.toml");
        fs::write(&path, file).context("cannot write services.toml")?;
        Ok(Self::start_file(mainstay, dir, &path, options))
    }

    /// Starts it with a service file that is there already.
    pub(crate) fn start_file(mainstay: &Path, dir: TempDir, file: &Path, options: &[&str]) -> Self {
        let entry = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let state = dir.join("state");
        let mut command = Command::new(mainstay);
        command.arg("--state").arg(&state).arg("dev").arg(file);
        command
            .args(["--entry", &entry.to_string(), "--api", "127.0.0.1:0"])
            .args(options);
        let process = Spawned::start(&dir, "dev", &mut command);
        let client = Client::unix(&state.join("api.sock"));
        Self {
            process,
            mainstay: mainstay.to_owned(),
            entry,
            state,
            client,
            dir,
        }
    }

    pub(crate) fn entry(&self) -> SocketAddr {
        self.entry
    }

    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    pub(crate) async fn services(&self) -> Result<Vec<ServiceStatus>> {
        Ok(self.client.get("/v1/services").await?)
    }

    pub(crate) async fn instances(&self) -> Result<Vec<InstanceStatus>> {
        Ok(self.client.get("/v1/instances").await?)
    }

    /// Waits until every service has what it wants, and no instance beyond that is left.
    pub(crate) async fn wait_steady(&self) {
        wait_until_async(DEADLINE, "all services are steady", async || {
            if let Some(ended) = self.process.ended() {
                panic!("`mainstay dev` ended ({ended:?}):\n{}", self.process.log());
            }
            let (services, instances) = match (self.services().await, self.instances().await) {
                (Ok(services), Ok(instances)) => (services, instances),
                (Err(error), _) | (_, Err(error)) => return Err(format!("{error:#}")),
            };
            let wanted: u32 = services.iter().map(|service| service.wanted).sum();
            let steady = |service: &ServiceStatus| service.state == ServiceState::Steady;
            let ready = |instance: &InstanceStatus| instance.state == InstanceState::Ready;
            let is_whole = !services.is_empty()
                && services.iter().all(steady)
                && instances.iter().all(ready)
                && instances.len() == wanted as usize;
            if is_whole {
                Ok(())
            } else {
                Err(format!("{services:?}\n{instances:?}"))
            }
        })
        .await;
    }

    /// An instance with its process and address, as the API tells them.
    pub(crate) async fn instance(&self, number: usize) -> Result<(String, Pid, SocketAddr)> {
        let instances = self.instances().await?;
        let mut running = instances
            .iter()
            .filter_map(|instance| Some((&instance.instance, instance.pid?, instance.address?)));
        let (instance, pid, address) = running
            .nth(number)
            .context("there are fewer instances than that")?;
        let pid = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .context("a pid is positive")?;
        Ok((instance.to_string(), pid, address))
    }

    /// Replaces the gateway's process, as a user would, and waits until that is done.
    pub(crate) async fn upgrade_gateway(&self) -> Result<()> {
        self.command(&["upgrade", "gateway"].map(OsStr::new)).await
    }

    /// Declares a changed service file, as a user would, and waits until it is in force.
    pub(crate) async fn up(&self, file: &str) -> Result<()> {
        let path = self.dir.join("services.toml");
        fs::write(&path, file).context("cannot write services.toml")?;
        self.command(&[OsStr::new("up"), path.as_os_str()]).await
    }

    /// Sets the number of instances, as a user would, and waits until it is in force.
    pub(crate) async fn scale(&self, instances: u32) -> Result<()> {
        let number = instances.to_string();
        self.command(&["scale", SERVICE, &number].map(OsStr::new))
            .await?;
        self.wait_steady().await;
        Ok(())
    }

    async fn command(&self, arguments: &[&OsStr]) -> Result<()> {
        let mut command = Command::new(&self.mainstay);
        command.arg("--state").arg(&self.state).args(arguments);
        let process = Spawned::start(&self.dir, "command", &mut command);
        let ended = wait_until_async(DEADLINE, "the command ends", async || {
            process.ended().ok_or_else(|| process.log())
        })
        .await;
        if ended != Ended::Code(0) {
            bail!(
                "mainstay {arguments:?} ended with {ended:?}:\n{}",
                process.log()
            );
        }
        Ok(())
    }

    /// Our own processes, instances not among them, with the part that each plays.
    pub(crate) fn processes(&self) -> Result<Vec<(Pid, Part)>> {
        let state = self
            .state
            .to_str()
            .context("the state directory's path is not text")?;
        let found = machine::processes(&self.mainstay, state)?;
        Ok(found
            .into_iter()
            .map(|(pid, line)| (pid, Part::of(&line)))
            .collect())
    }

    /// The process that plays this part.
    pub(crate) fn process(&self, part: Part) -> Result<Pid> {
        let found = self.processes()?.into_iter().find(|(_, of)| *of == part);
        found
            .map(|(pid, _)| pid)
            .with_context(|| format!("there is no {part:?}"))
    }

    fn end(&self) -> Result<()> {
        // First the one that would start the others again.
        self.process.signal(Signal::KILL);
        for _ in 0..END_ROUNDS {
            let mut living = self.processes()?;
            living.retain(|(pid, _)| *pid != self.process.pid());
            if living.is_empty() {
                break;
            }
            for (pid, _) in living {
                // It may have ended by itself.
                kill_process(pid, Signal::KILL).ok();
            }
        }
        Ok(())
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("cannot end all of mainstay: {error:#}");
        }
    }
}

/// What one of our processes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Supervisor,
    Server,
    Agent,
    Gateway,
    Shim,
}

impl Part {
    fn of(command_line: &str) -> Self {
        let named = [
            (" internal server ", Self::Server),
            (" internal agent ", Self::Agent),
            (" internal gateway ", Self::Gateway),
            (" internal shim ", Self::Shim),
        ];
        let found = named
            .into_iter()
            .find(|(words, _)| command_line.contains(words));
        found.map_or(Self::Supervisor, |(_, part)| part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_is_told_by_its_arguments() {
        let cases = [
            ("/x/mainstay --state /s dev /f.toml", Part::Supervisor),
            ("mainstay internal server --state /s", Part::Server),
            ("mainstay internal shim /s/run/a-1/spec.json", Part::Shim),
        ];
        for (line, part) in cases {
            assert_eq!(Part::of(line), part);
        }
    }
}
