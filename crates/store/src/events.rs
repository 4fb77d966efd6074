//! The events of the last while, one per line, for people who look back.
//!
//! They are no state: an event that is lost with the power changes nothing, so they are appended
//! without a sync.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use mainstay_model::Event;

/// How many events are read back at a start, the newest: what the control centre keeps in memory.
pub const EVENTS_KEPT: usize = 1000;

/// The size at which the file is put aside and a new one begun: some ten times [`EVENTS_KEPT`], so
/// that a rotation is rare and both files together stay small beside the logs of one instance.
pub const EVENTS_FILE_LEN_MAX: u64 = 2 * 1024 * 1024;

const EVENTS_FILE: &str = "events.ndjson";
const EVENTS_FILE_OLD: &str = "events.ndjson.1";

/// A file of events that is appended to, and bounded by putting it aside when it is full.
#[derive(Debug)]
pub struct EventLog {
    directory: PathBuf,
    /// The end of the file; `None` before the first event, after a rotation and after an error.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    len: u64,
}

/// Events could not be appended to their file.
#[derive(Debug, thiserror::Error)]
#[error("cannot append events to `{path}`")]
pub struct AppendError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl EventLog {
    /// Reads the newest [`EVENTS_KEPT`] events back, the oldest first. Lines that were torn by a
    /// power loss or a full disk are skipped, and so is a file that cannot be read: what happened
    /// long ago is no reason not to start.
    pub fn open(directory: &Path) -> (Self, Vec<Event>) {
        let log = Self {
            directory: directory.to_owned(),
            open: None,
        };
        let mut events = log.read(EVENTS_FILE_OLD);
        events.append(&mut log.read(EVENTS_FILE));
        events.drain(..events.len().saturating_sub(EVENTS_KEPT));
        (log, events)
    }

    /// Appends `events`. After an error some of them may be missing in the file.
    pub fn append<'a>(
        &mut self,
        events: impl IntoIterator<Item = &'a Event>,
    ) -> Result<(), AppendError> {
        let mut lines = Vec::new();
        for event in events {
            serde_json::to_writer(&mut lines, event).expect("an event is JSON");
            lines.push(b'\n');
        }
        if lines.is_empty() {
            return Ok(());
        }
        let written = self.write(&lines);
        if written.is_err() {
            self.open = None; // the next one begins on a line of its own
        }
        let path = self.path(EVENTS_FILE);
        written.map_err(|source| AppendError { path, source })
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(Open::at_end(&self.path(EVENTS_FILE))?),
        };
        open.file.write_all(lines)?;
        open.len += lines.len() as u64;
        if open.len >= EVENTS_FILE_LEN_MAX {
            self.open = None;
            fs::rename(self.path(EVENTS_FILE), self.path(EVENTS_FILE_OLD))?;
        }
        Ok(())
    }

    fn read(&self, name: &str) -> Vec<Event> {
        let lines = read_tail(&self.path(name)).unwrap_or_default();
        let events = lines.split(|byte| *byte == b'\n');
        events
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Open {
    /// Opens the file behind its last whole line: what follows a torn one begins on a new line.
    fn at_end(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        let mut len = file.metadata()?.len();
        if len > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                len += 1;
            }
        }
        Ok(Self { file, len })
    }
}

/// The file's last [`EVENTS_FILE_LEN_MAX`] bytes and one append more: all of it, unless somebody
/// else wrote to it.
fn read_tail(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(2 * EVENTS_FILE_LEN_MAX)))?;
    let mut bytes = Vec::new();
    file.take(2 * EVENTS_FILE_LEN_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_ids::Timestamp;
    use mainstay_model::EventKind;
    use mainstay_testkit::TempDir;

    fn event(number: u64) -> Event {
        Event {
            number,
            at: Timestamp(number),
            service: None,
            kind: EventKind::RemovalStarted,
        }
    }

    fn numbers(dir: &TempDir) -> Vec<u64> {
        let (_log, events) = EventLog::open(dir.path());
        events.iter().map(|event| event.number).collect()
    }

    #[test]
    fn a_torn_last_line_is_skipped_and_the_next_event_begins_on_a_line_of_its_own() {
        let dir = TempDir::new("events");
        let (mut log, _) = EventLog::open(dir.path());
        log.append(&[event(1), event(2)]).expect("appends");
        let file = dir.join(EVENTS_FILE);
        let whole = fs::read(&file).expect("is there");
        for cut in whole.len() / 2 + 1..whole.len() - 1 {
            fs::write(&file, &whole[..cut]).expect("writes");
            assert_eq!(numbers(&dir), [1], "cut at {cut}");
            let (mut log, _) = EventLog::open(dir.path());
            log.append(&[event(3)]).expect("appends");
            assert_eq!(numbers(&dir), [1, 3], "cut at {cut}");
        }
    }

    #[test]
    fn the_files_stay_bounded_and_the_newest_events_are_read_back() {
        let dir = TempDir::new("events");
        let (mut log, _) = EventLog::open(dir.path());
        let batch: Vec<Event> = (1..=1000).map(event).collect();
        for _ in 0..100 {
            log.append(&batch).expect("appends");
        }
        log.append(&[event(1001)]).expect("appends");
        let len = |name| fs::metadata(dir.join(name)).map_or(0, |file| file.len());
        let batch_len = 100 * 1000;
        assert!(len(EVENTS_FILE) < EVENTS_FILE_LEN_MAX + batch_len);
        assert!(len(EVENTS_FILE_OLD) < EVENTS_FILE_LEN_MAX + batch_len);
        assert!(len(EVENTS_FILE_OLD) > 0, "was put aside");
        assert_eq!(numbers(&dir), (2..=1001).collect::<Vec<_>>());
    }
}
