//! Network namespaces: networks of a test's own, in which nothing can reach the machine's.

use crate::program;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
};

/// Namespaces are called `mstest-<pid>-<n>`, so that those of dead tests can be told.
const PREFIX: &str = "mstest-";

/// A network namespace with its loopback up, deleted at the end. Needs root.
///
/// End the processes in it first (declare it before them): until then the kernel keeps it alive, nameless.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace, after deleting those whose test was killed before it could.
    #[expect(clippy::new_without_default, reason = "making one changes the machine")]
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        delete_orphans();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let netns = Self {
            name: format!("{PREFIX}{}-{number}", process::id()),
        };
        ip(&["netns", "add", &netns.name]);
        ip(&["-n", &netns.name, "link", "set", "lo", "up"]);
        netns
    }

    /// The file by which it is entered.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// A command that runs in the namespace.
    ///
    /// By `nsenter`, since `ip netns exec` would also mount another `/sys` and so hide the cgroups.
    pub fn command(&self, program_path: &Path) -> Command {
        let mut command = Command::new(program("nsenter"));
        command
            .arg(format!("--net={}", self.path().display()))
            .arg("--")
            .arg(program_path);
        command
    }

    /// Does something in the namespace, in a thread of its own.
    pub fn enter<T: Send>(&self, deed: impl FnOnce() -> T + Send) -> T {
        let path = self.path();
        let within = || {
            let netns = fs::File::open(path).expect("the namespace is there");
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&netns), kind)
                .expect("root may enter a network namespace");
            deed()
        };
        std::thread::scope(|scope| scope.spawn(within).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Joins two namespaces by a pair of virtual interfaces with these addresses, such as `10.9.0.1/24`.
    pub fn join(left: (&Self, &str), right: (&Self, &str)) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let link = format!("veth{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let (left_name, right_name) = (&left.0.name, &right.0.name);
        ip(&[
            "link", "add", &link, "netns", left_name, "type", "veth", "peer", "name", &link,
            "netns", right_name,
        ]);
        for (netns, address) in [left, right] {
            ip(&["-n", &netns.name, "address", "add", address, "dev", &link]);
            ip(&["-n", &netns.name, "link", "set", &link, "up"]);
        }
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = try_ip(&["netns", "delete", &self.name]) {
            eprintln!("{error}");
        }
    }
}

fn delete_orphans() {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return;
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    for name in names {
        let Some(pid) = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next())
        else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            // Another test may be deleting it at the same time.
            let _ = try_ip(&["netns", "delete", &name]);
        }
    }
}

#[track_caller]
fn ip(arguments: &[&str]) {
    try_ip(arguments).unwrap_or_else(|error| panic!("{error}"));
}

fn try_ip(arguments: &[&str]) -> Result<(), String> {
    let line = format!("ip {}", arguments.join(" "));
    let output = Command::new(program("ip"))
        .args(arguments)
        .output()
        .map_err(|error| format!("cannot run `{line}`: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "`{line}` failed: {}",
        String::from_utf8_lossy(&output.stderr).trim_end()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ended, Spawned, TempDir, is_root, skip, wait_until};
    use std::time::Duration;

    #[test]
    fn system_two_joined_namespaces_reach_each_other_and_are_gone_afterwards() {
        if !is_root() {
            return skip("needs root: makes network namespaces");
        }
        let (here, there) = (Netns::new(), Netns::new());
        Netns::join((&here, "10.9.0.1/24"), (&there, "10.9.0.2/24"));
        let dir = TempDir::new("netns");
        let python = program("python3");
        let mut serve = there.command(&python);
        let server = Spawned::start(&dir, "server", serve.args(["-m", "http.server", "8000"]));
        let connect = "import socket; socket.create_connection(('10.9.0.2', 8000), 5)";
        wait_until(Duration::from_secs(20), "the server can be reached", || {
            let client =
                Spawned::start(&dir, "client", here.command(&python).args(["-c", connect]));
            match client.wait(Duration::from_secs(20)) {
                Ended::Code(0) => Ok(()),
                _ => Err(client.log()),
            }
        });
        drop(server);
        let name = here.name.clone();
        drop(here);
        assert!(!Path::new("/run/netns").join(name).exists());
    }
}
