//! Network namespaces that end with the proof, however it ends: nothing but open files of this process
//! keeps them.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::{Command, Stdio, id};
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::scenario::{Trouble, chain};

const NEEDS: &str = "scenarios of forwarding need root, or CAP_SYS_ADMIN and CAP_NET_ADMIN: run `mainstay prove` as \
                     root, or leave `forward-...` out";

/// A network of its own, with its loopback up.
#[derive(Debug)]
pub(crate) struct Namespace(File);

impl Namespace {
    pub(crate) fn new() -> Result<Self, Trouble> {
        let made = thread::scope(|scope| scope.spawn(make).join());
        let file = made
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => Trouble::CannotBreak(NEEDS.to_owned()),
                _ => cannot("make a network namespace", &error),
            })?;
        let made = Self(file);
        made.run("ip", "link set lo up")?;
        Ok(made)
    }

    /// Does something in it, in a thread of its own. Threads that it starts stay in it.
    pub(crate) fn enter<T: Send>(
        &self,
        deed: impl FnOnce() -> Result<T, Trouble> + Send,
    ) -> Result<T, Trouble> {
        let within = || {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| cannot("enter a network namespace", &error))?;
            deed()
        };
        thread::scope(|scope| scope.spawn(within).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs a program in it, with these words.
    pub(crate) fn run(&self, program: &str, words: &str) -> Result<(), Trouble> {
        self.feed(program, words, "")
    }

    /// Runs a program in it that reads what it is to do.
    pub(crate) fn feed(&self, program: &str, words: &str, text: &str) -> Result<(), Trouble> {
        self.enter(|| feed(program, words, text))
    }

    /// Joins two by a pair of virtual interfaces, each with an address and its length.
    pub(crate) fn join(
        link: &str,
        left: (&Self, &str),
        right: (&Self, &str),
    ) -> Result<(), Trouble> {
        let (own, other) = (id(), right.0.0.as_raw_fd());
        let peer = format!("/proc/{own}/fd/{other}");
        let pair = format!("link add {link} type veth peer name {link} netns {peer}");
        left.0.run("ip", &pair)?;
        for (netns, address) in [left, right] {
            netns.run("ip", &format!("address add {address} dev {link}"))?;
            netns.run("ip", &format!("link set {link} up"))?;
        }
        Ok(())
    }

    /// Writes a setting of the kernel, by its path below `/proc/sys/net`.
    pub(crate) fn set(&self, setting: &str, value: &str) -> Result<(), Trouble> {
        self.enter(|| {
            let path = format!("/proc/sys/net/{setting}");
            std::fs::write(&path, value).map_err(|error| cannot(&format!("write {path}"), &error))
        })
    }
}

/// In a thread that ends with it.
#[expect(
    deprecated,
    reason = "only tables of open files are unsafe to unshare, and the replacement is unsafe"
)]
fn make() -> io::Result<File> {
    rustix::thread::unshare(UnshareFlags::NEWNET)?;
    File::open("/proc/thread-self/ns/net")
}

fn feed(program: &str, words: &str, text: &str) -> Result<(), Trouble> {
    let line = format!("{program} {words}");
    let run = || -> io::Result<_> {
        let mut command = Command::new(program);
        command.args(words.split(' ')).stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        // One that does not read it says why.
        let written = child
            .stdin
            .take()
            .map_or(Ok(()), |mut to| to.write_all(text.as_bytes()));
        Ok((child.wait_with_output()?, written))
    };
    let (output, written) = run().map_err(|error| cannot(&format!("run `{line}`"), &error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let what = format!("`{line}` failed: {}", said.trim_end());
        return Err(Trouble::CannotBreak(what));
    }
    written.map_err(|error| cannot(&format!("write to `{line}`"), &error))
}

pub(super) fn cannot(attempt: &str, error: &dyn std::error::Error) -> Trouble {
    Trouble::CannotBreak(format!("cannot {attempt}: {}", chain(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn system_two_that_are_joined_reach_each_other_and_leave_no_name_behind() {
        if !mainstay_testkit::is_root() {
            return mainstay_testkit::skip("needs root: makes network namespaces");
        }
        let [here, there] = [(); 2].map(|()| Namespace::new().unwrap());
        Namespace::join("pair", (&here, "10.9.0.1/24"), (&there, "10.9.0.2/24")).unwrap();
        let listen = || TcpListener::bind("10.9.0.2:80").map_err(|error| cannot("listen", &error));
        let listener = there.enter(listen).unwrap();
        let connect = || {
            let to = "10.9.0.2:80".parse().unwrap();
            let patience = std::time::Duration::from_secs(5);
            std::net::TcpStream::connect_timeout(&to, patience)
                .map_err(|error| cannot("connect", &error))
        };
        here.enter(connect).unwrap();
        drop(listener);
        let refused = here.run("ip", "link set nothing up").unwrap_err();
        assert!(
            refused.to_string().contains("ip link set nothing up"),
            "{refused}"
        );
    }
}
