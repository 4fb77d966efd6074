//! The events as versions before the history kept them: a line of JSON each, in two files.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use mainstay_model::Event;

/// The older one first.
const FILES: [&str; 2] = ["events.ndjson.1", "events.ndjson"];

/// Each was put aside at 2 MiB; a larger one was edited, and its end is what counts.
const FILE_LEN_MAX: u64 = 4 * 1024 * 1024;

/// Reads all events, in the order of their numbers. Lines that were torn by a power loss are
/// skipped, and so is a file that cannot be read.
pub(crate) fn read(control: &Path) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    for name in FILES {
        let bytes = read_end(&control.join(name)).unwrap_or_default();
        for line in bytes.split(|byte| *byte == b'\n') {
            let event: Option<Event> = serde_json::from_slice(line).ok();
            let newest = events.last().map_or(0, |event| event.number);
            events.extend(event.filter(|event| event.number > newest));
        }
    }
    events
}

/// Removes the files; says whether there were any. One that stays is read again at the next start,
/// and adds nothing.
pub(crate) fn remove(control: &Path) -> bool {
    let remove = |name: &&str| fs::remove_file(control.join(name)).is_ok();
    FILES.iter().filter(|name| remove(name)).count() > 0
}

fn read_end(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(FILE_LEN_MAX)))?;
    let mut bytes = Vec::new();
    file.take(FILE_LEN_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}
