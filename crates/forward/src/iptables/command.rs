//! Programs of iptables, run with a deadline, and which of them the host has.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::rules::Ip;

/// How long one program may take: ten times what all rules of 5,000 services need, and twice as long
/// as it waits for the lock.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long it waits for another program that changes rules, in seconds.
const LOCK_SECONDS: &str = "5";
/// What a program may say about a failure. The rest is dropped.
const SAID_LEN_MAX: u64 = 4096;
/// What a program may print: the rules of 100,000 services with ten instances each.
const PRINTED_LEN_MAX: u64 = 512 * 1024 * 1024;
/// Where packages put them. `PATH` is not asked: this runs as root.
const DIRS: [&str; 5] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin"];

/// Into what a program of iptables writes rules. A host should use one of them: rules of both are in
/// force at the same time, and neither program shows the other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Into tables of its own, in kernels with and without nf_tables.
    Legacy,
    /// Into nf_tables, by its compatible expressions.
    Nft,
}

impl Variant {
    fn word(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Nft => "nft",
        }
    }
}

/// Why a program of iptables did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is not there.
    #[error("no `{0}` in {dirs}; install the package iptables", dirs = DIRS.join(", "))]
    Absent(String),
    /// It could not be started, or spoken with.
    #[error("cannot run `{line}`")]
    Run {
        /// What was to be run.
        line: String,
        /// Why not.
        source: io::Error,
    },
    /// It took too long and was killed.
    #[error("`{0}` was killed, since it had not ended after {DEADLINE:?}")]
    Late(String),
    /// It failed.
    #[error("`{line}` ended with {status}: {said}")]
    Failed {
        /// What was run.
        line: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said about it.
        said: String,
    },
}

impl CommandError {
    /// Whether a right is lacking.
    pub(super) fn is_forbidden(&self) -> bool {
        self.said_any(&["Permission denied", "you must be root", "not permitted"])
    }

    /// Whether the host lacks something.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Absent(_)) || self.said_any(&["Table does not exist", "insmod"])
    }

    /// Whether another program changed rules in the same moment, or held the lock.
    pub(super) fn is_overtaken(&self) -> bool {
        self.said_any(&["temporarily unavailable", "xtables lock"])
    }

    fn said_any(&self, words: &[&str]) -> bool {
        match self {
            Self::Failed { said, .. } => words.iter().any(|word| said.contains(word)),
            Self::Absent(_) | Self::Run { .. } | Self::Late(_) => false,
        }
    }
}

/// The programs for one version of IP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Programs {
    restore: PathBuf,
    save: PathBuf,
    variant: Variant,
    version: String,
}

impl Programs {
    /// Those of a variant, or the ones that the host's administrator chose by the plain name; if
    /// there is none, nf_tables' and then the older ones.
    pub(super) fn find(ip: Ip, wanted: Option<Variant>) -> Result<Self, CommandError> {
        let prefix = ip.program();
        let named = |variant: Variant| format!("{prefix}-{}", variant.word());
        let stems = match wanted {
            Some(variant) => vec![named(variant), prefix.to_owned()],
            None => vec![
                prefix.to_owned(),
                named(Variant::Nft),
                named(Variant::Legacy),
            ],
        };
        for stem in stems {
            let (restore, save) = (look(&stem, "restore"), look(&stem, "save"));
            let (Some(restore), Some(save)) = (restore, save) else {
                continue;
            };
            let (variant, version) = version(&restore)?;
            if wanted.is_none_or(|wanted| wanted == variant) {
                return Ok(Self {
                    restore,
                    save,
                    variant,
                    version,
                });
            }
        }
        let stem = wanted.map_or_else(|| prefix.to_owned(), named);
        Err(CommandError::Absent(format!("{stem}-restore")))
    }

    pub(super) fn variant(&self) -> Variant {
        self.variant
    }

    /// Changes rules: each table at once.
    pub(super) fn restore(&self, text: &str) -> Result<(), CommandError> {
        let arguments = ["-w", LOCK_SECONDS, "--noflush"];
        run(&self.restore, &arguments, text.as_bytes()).map(drop)
    }

    /// All rules of a table, with counters.
    pub(super) fn save(&self, table: &str) -> Result<String, CommandError> {
        let printed = run(&self.save, &["-c", "-t", table], b"")?;
        Ok(String::from_utf8_lossy(&printed).into_owned())
    }
}

impl fmt::Display for Programs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.restore.display(), self.version)
    }
}

fn look(stem: &str, deed: &str) -> Option<PathBuf> {
    let paths = DIRS.map(|dir| Path::new(dir).join(format!("{stem}-{deed}")));
    paths.into_iter().find(|path| path.is_file())
}

/// Such as `iptables-restore v1.8.9 (nf_tables)`; before 1.8 there was only one, without brackets.
fn version(program: &Path) -> Result<(Variant, String), CommandError> {
    let printed = run(program, &["--version"], b"")?;
    let text = String::from_utf8_lossy(&printed).trim().to_owned();
    let variant = if text.contains("(nf_tables)") {
        Variant::Nft
    } else {
        Variant::Legacy
    };
    Ok((variant, text))
}

fn run(program: &Path, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, CommandError> {
    let line = || format!("{} {}", program.display(), arguments.join(" "));
    let failed = |source| CommandError::Run {
        line: line(),
        source,
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
        unreachable!("all three are pipes");
    };
    // Each pipe holds 64 KiB: whoever reads or writes one alone waits for the others.
    let (printed, said, in_time) = std::thread::scope(|scope| {
        let printed = scope.spawn(|| read(stdout, PRINTED_LEN_MAX));
        let said = scope.spawn(|| read(stderr, SAID_LEN_MAX));
        // A program that does not read on tells why by its exit status.
        scope.spawn(move || stdin.write_all(input).ok());
        let in_time = wait(&mut child);
        let join = |read: std::thread::ScopedJoinHandle<'_, io::Result<Vec<u8>>>| {
            read.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        (join(printed), join(said), in_time)
    });
    let status = child.wait().map_err(failed)?;
    if !in_time.map_err(failed)? {
        return Err(CommandError::Late(line()));
    }
    let said = said.map_err(failed)?;
    if !status.success() {
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        return Err(CommandError::Failed {
            line: line(),
            status,
            said,
        });
    }
    printed.map_err(failed)
}

/// What is beyond `len_max` is read and dropped, so that the program goes on.
fn read(mut from: impl io::Read, len_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.by_ref().take(len_max).read_to_end(&mut bytes)?;
    io::copy(&mut from, &mut io::sink())?;
    Ok(bytes)
}

/// Whether it ended by the deadline; else it is killed.
fn wait(child: &mut Child) -> io::Result<bool> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let timeout = Timespec::try_from(DEADLINE).map_err(io::Error::other)?;
    let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout))? > 0;
    if !ended {
        child.kill()?;
    }
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_and_how_it_ends_is_told() {
        let sh = mainstay_testkit::program("sh");
        let error = run(&sh, &["-c", "echo no such table >&2; exit 3"], b"").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("exit status: 3: no such table"), "{text}");
        // More than a pipe holds, both ways, and more than is kept.
        let input = vec![b'x'; 300_000];
        let program = "head -c 100000 /dev/zero >&2; cat";
        assert_eq!(run(&sh, &["-c", program], &input).unwrap(), input);
    }

    #[test]
    fn a_program_that_is_not_there_is_named_with_its_package() {
        assert_eq!(look("iptables-of-nobody", "restore"), None);
        let text = CommandError::Absent("iptables-restore".to_owned()).to_string();
        assert!(text.contains("install the package iptables"), "{text}");
    }
}
