//! A process that does not outlive the test.

use crate::{TempDir, sweep, wait_until};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid,
};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

/// Lines of its output that a failing test shows.
const SHOWN_LINES: usize = 30;

/// A running program in a process group of its own, with its output in a file of the test's directory.
///
/// Dropping it kills it, its group, and everything below it that left the group but kept the environment.
/// It stays a zombie until then, so that its number is not given to another process.
#[derive(Debug)]
pub struct Spawned {
    child: Child,
    name: String,
    log: PathBuf,
    mark: String,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Spawned {
    /// Starts `command`; what it prints goes to `<dir>/<name>.log`.
    #[track_caller]
    pub fn start(dir: &TempDir, name: &str, command: &mut Command) -> Self {
        use std::os::unix::process::CommandExt as _;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let log = dir.join(format!("{name}.log"));
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .and_then(|file| Ok((file.try_clone()?, file)));
        let (out, err) =
            output.unwrap_or_else(|error| panic!("cannot write {}: {error}", log.display()));
        let child = command
            .env("MAINSTAY_TEST", &mark)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        Self {
            child,
            name: name.to_owned(),
            log,
            mark: format!("MAINSTAY_TEST={mark}"),
        }
    }

    /// Its number, and that of its process group.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The file with its output.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map_or_else(
            |error| format!("(cannot read {}: {error})", self.log.display()),
            |text| String::from_utf8_lossy(&text).into_owned(),
        )
    }

    /// Sends a signal to it alone, not to its group. Does nothing once it has ended.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal)
            .unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.name));
    }

    /// How it ended, or `None` while it runs.
    pub fn ended(&self) -> Option<Ended> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let status =
            waitid(WaitId::Pid(self.pid()), look).expect("it is our child, not yet reaped")?;
        let code = status.exit_status().map(Ended::Code);
        code.or_else(|| status.terminating_signal().map(Ended::Signal))
    }

    /// Waits for its end; panics with the end of its output if that does not come in time.
    #[track_caller]
    pub fn wait(&self, deadline: Duration) -> Ended {
        wait_until(deadline, &format!("{} ends", self.name), || {
            self.ended()
                .ok_or_else(|| format!("it runs, and printed:\n{}", self.last_lines()))
        })
    }

    fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        // The group may be empty already.
        let _ = kill_process_group(self.pid(), Signal::KILL);
        let _ = self.child.wait();
        sweep(&self.mark);
        if thread::panicking() {
            eprintln!(
                "--- last lines of {}:\n{}",
                self.log.display(),
                self.last_lines()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program;

    fn python(code: &str) -> Command {
        let mut command = Command::new(program("python3"));
        command.args(["-u", "-c", code]);
        command
    }

    #[test]
    fn system_the_end_and_the_output_of_a_process_are_seen() {
        let dir = TempDir::new("spawned");
        let ends = Spawned::start(
            &dir,
            "ends",
            &mut python("import sys; print('bye'); sys.exit(7)"),
        );
        assert_eq!(ends.wait(Duration::from_secs(20)), Ended::Code(7));
        assert_eq!(ends.log(), "bye\n");
        assert_eq!(
            ends.ended(),
            Some(Ended::Code(7)),
            "looking twice sees the same"
        );
    }

    #[test]
    fn system_a_signalled_process_is_seen_as_killed() {
        let dir = TempDir::new("spawned");
        let runs = Spawned::start(&dir, "runs", &mut python("import signal; signal.pause()"));
        assert_eq!(runs.ended(), None);
        runs.signal(Signal::KILL);
        assert_eq!(runs.wait(Duration::from_secs(20)), Ended::Signal(9));
    }

    #[test]
    fn system_a_grandchild_that_left_the_group_ends_with_the_guard() {
        let dir = TempDir::new("spawned");
        let code = "import os, signal\n\
                    if os.fork(): os._exit(0)\n\
                    os.setsid(); print(os.getpid()); signal.pause()";
        let parent = Spawned::start(&dir, "parent", &mut python(code));
        assert_eq!(parent.wait(Duration::from_secs(20)), Ended::Code(0));
        let grandchild = wait_until(Duration::from_secs(20), "the grandchild left", || {
            parent
                .log()
                .trim()
                .parse::<u32>()
                .map_err(|_| format!("log: {:?}", parent.log()))
        });
        let grandchild = format!("/proc/{grandchild}/environ");
        assert!(!fs::read(&grandchild).unwrap().is_empty(), "it runs");
        drop(parent);
        wait_until(Duration::from_secs(20), "the grandchild is gone", || {
            match fs::read(&grandchild) {
                Ok(environ) if !environ.is_empty() => Err("it still runs"),
                _ => Ok(()),
            }
            .map_err(str::to_owned)
        });
    }
}
