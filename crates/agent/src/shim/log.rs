//! The file with an instance's output: rotated by size, and never a reason for the instance to wait.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mainstay_model::service::LogSpec;

/// While nothing can be written it is tried again this often: soon enough for people, and rare
/// enough that a flood of output into a full disk costs nothing.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

/// A file is rotated at the end of a line; a line that is this much over the limit is cut.
const OVER_MAX: u64 = 64 * 1024;

/// The output of all attempts of an instance.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    spec: LogSpec,
    target: Target,
    /// Bytes dropped since the start of this attempt.
    dropped: u64,
}

#[derive(Debug)]
enum Target {
    Open {
        file: File,
        len: u64,
        line: Line,
    },
    /// Nothing can be written; `unsaid` bytes were dropped since this was last told in the log.
    Dropping {
        retry_at: Instant,
        reason: io::Error,
        unsaid: u64,
    },
}

/// Where the next byte goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Start,
    Within,
}

impl Log {
    /// Opens the file, or begins to drop until it can be opened.
    pub(crate) fn open(path: &Path, spec: LogSpec, now: Instant) -> Self {
        let target = open(path).unwrap_or_else(|reason| Target::Dropping {
            retry_at: now + RETRY,
            reason,
            unsaid: 0,
        });
        Self {
            path: path.to_owned(),
            spec,
            target,
            dropped: 0,
        }
    }

    /// Bytes that could not be written.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// When to call [`Self::retry`].
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match &self.target {
            Target::Open { .. } => None,
            Target::Dropping { retry_at, .. } => Some(*retry_at),
        }
    }

    /// Writes a line of our own, in front of which a started line of the program is ended.
    pub(crate) fn note(&mut self, now: Instant, text: &str) {
        let begun = matches!(
            &self.target,
            Target::Open {
                line: Line::Within,
                ..
            }
        );
        let newline = if begun { "\n" } else { "" };
        self.write(now, format!("{newline}mainstay: {text}\n").as_bytes());
    }

    /// Takes output over: writes it, or drops and counts it.
    pub(crate) fn write(&mut self, now: Instant, mut output: &[u8]) {
        self.retry(now);
        while !output.is_empty() {
            let (part, rest) = match &self.target {
                Target::Open { len, .. } => output.split_at(self.cut(*len, output)),
                Target::Dropping { .. } => (output, &[][..]),
            };
            self.append(now, part);
            output = rest;
        }
    }

    /// Tries to write again, if it is time to.
    pub(crate) fn retry(&mut self, now: Instant) {
        let Target::Dropping {
            retry_at,
            reason,
            unsaid,
        } = &mut self.target
        else {
            return;
        };
        if *retry_at > now {
            return;
        }
        let told = *unsaid;
        let opened = open(&self.path).and_then(|mut target| {
            if told > 0 {
                let text = format!("mainstay: {told} bytes of output were dropped: {reason}\n");
                tell(&mut target, &text)?;
            }
            Ok(target)
        });
        match opened {
            Ok(target) => self.target = target,
            Err(error) => {
                *retry_at = now + RETRY;
                *reason = error;
            }
        }
    }

    /// How much of `output` goes into the current file, which is `len` long.
    fn cut(&self, len: u64, output: &[u8]) -> usize {
        let room = usize::try_from(self.spec.size.saturating_sub(len)).unwrap_or(usize::MAX);
        if output.len() <= room {
            return output.len();
        }
        match output[room..].iter().position(|byte| *byte == b'\n') {
            Some(end) => room + end + 1,
            None => output.len(),
        }
    }

    fn append(&mut self, now: Instant, part: &[u8]) {
        let rotated = if self.is_full() {
            self.rotate()
        } else {
            Ok(())
        };
        let (written, result) = match (&mut self.target, rotated) {
            (_, Err(error)) => (0, Err(error)),
            (Target::Dropping { .. }, Ok(())) => (0, Ok(())),
            (Target::Open { file, len, line }, Ok(())) => {
                let (written, result) = write_all(file, part);
                *len += count(written);
                if let Some(last) = part[..written].last() {
                    *line = if *last == b'\n' {
                        Line::Start
                    } else {
                        Line::Within
                    };
                }
                (written, result)
            }
        };
        let lost = count(part.len() - written);
        self.dropped += lost;
        match (&mut self.target, result) {
            (_, Err(reason)) => {
                self.target = Target::Dropping {
                    retry_at: now + RETRY,
                    reason,
                    unsaid: lost,
                }
            }
            (Target::Dropping { unsaid, .. }, Ok(())) => *unsaid += lost,
            (Target::Open { .. }, Ok(())) => {}
        }
    }

    /// Rotated when more comes, and not before: the newest file is never empty.
    fn is_full(&self) -> bool {
        match &self.target {
            Target::Open {
                len,
                line: Line::Start,
                ..
            } => *len >= self.spec.size,
            Target::Open {
                len,
                line: Line::Within,
                ..
            } => *len >= self.spec.size.saturating_add(OVER_MAX),
            Target::Dropping { .. } => false,
        }
    }

    /// `log` becomes `log.1`, that `log.2`, and so on; the oldest falls out.
    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: u32| PathBuf::from(format!("{}.{number}", self.path.display()));
        if self.spec.keep == 0 {
            fs::remove_file(&self.path)?;
        } else {
            for number in (1..self.spec.keep).rev() {
                match fs::rename(numbered(number), numbered(number + 1)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
            fs::rename(&self.path, numbered(1))?;
        }
        self.target = open(&self.path)?;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<Target> {
    let file = File::options()
        .read(true)
        .append(true)
        .create(true)
        .open(path)?;
    let len = file.metadata()?.len();
    let mut last = [b'\n'];
    if len > 0 {
        file.read_exact_at(&mut last, len - 1)?;
    }
    let line = if last == [b'\n'] {
        Line::Start
    } else {
        Line::Within
    };
    Ok(Target::Open { file, len, line })
}

/// Writes `text` whole or takes back what was written of it.
fn tell(target: &mut Target, text: &str) -> io::Result<()> {
    let Target::Open { file, len, line } = target else {
        return Ok(());
    };
    let text = if *line == Line::Within {
        format!("\n{text}")
    } else {
        text.to_owned()
    };
    let (written, result) = write_all(file, text.as_bytes());
    if result.is_err() {
        file.set_len(*len)?;
        return result;
    }
    *len += count(written);
    *line = Line::Start;
    Ok(())
}

/// Like `Write::write_all`, but says how much was written before a failure.
fn write_all(file: &mut File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::TempDir;

    fn log(dir: &TempDir, size: u64, keep: u32) -> Log {
        Log::open(&dir.join("a.log"), LogSpec { size, keep }, Instant::now())
    }

    #[test]
    fn a_full_file_is_rotated_at_the_end_of_a_line_and_the_oldest_falls_out() {
        let dir = TempDir::new("log");
        let mut log = log(&dir, 10, 2);
        for line in ["one one\n", "two two\nthr", "ee\nfour four four\n", "five"] {
            log.write(Instant::now(), line.as_bytes());
        }
        let read =
            |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_else(|_| "none".into());
        assert_eq!(read("a.log"), "five");
        assert_eq!(read("a.log.1"), "three\nfour four four\n");
        assert_eq!(read("a.log.2"), "one one\ntwo two\n");
        assert_eq!(read("a.log.3"), "none");
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn a_line_without_end_is_cut_and_nothing_of_it_is_lost() {
        let dir = TempDir::new("log");
        let mut log = log(&dir, 10, 1);
        log.write(Instant::now(), &vec![b'x'; 70_000]);
        log.write(Instant::now(), b"rest\n");
        assert_eq!(fs::metadata(dir.join("a.log.1")).unwrap().len(), 70_000);
        assert_eq!(fs::read_to_string(dir.join("a.log")).unwrap(), "rest\n");
    }

    #[test]
    fn with_no_file_kept_the_log_begins_anew() {
        let dir = TempDir::new("log");
        let mut log = log(&dir, 4, 0);
        log.write(Instant::now(), b"old line\nnew\n");
        assert_eq!(fs::read_to_string(dir.join("a.log")).unwrap(), "new\n");
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_told_once_it_can() {
        let dir = TempDir::new("log");
        let path = dir.join("logs/a.log");
        let start = Instant::now();
        let mut log = Log::open(
            &path,
            LogSpec {
                size: 1000,
                keep: 1,
            },
            start,
        );
        log.write(start, b"lost\n");
        assert_eq!(
            (log.dropped(), log.next_deadline()),
            (5, Some(start + RETRY))
        );
        fs::create_dir(dir.join("logs")).unwrap();
        log.write(start, b"lost too\n");
        log.retry(start + RETRY);
        log.write(start + RETRY, b"kept");
        log.note(start + RETRY, "note");
        assert_eq!((log.dropped(), log.next_deadline()), (14, None));
        let text = fs::read_to_string(path).unwrap();
        assert_eq!(
            text,
            "mainstay: 14 bytes of output were dropped: No such file or directory (os error 2)\nkept\nmainstay: note\n"
        );
    }
}
