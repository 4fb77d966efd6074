//! `mainstay logs`: what instances wrote, read from the files that their shims keep.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use mainstay_ids::InstanceId;

use crate::arguments::{LogSource, Logs, Place};
use crate::outcome::{Failure, Outcome};
use crate::output;

/// How often followed files are looked at. A person does not notice a fifth of a second.
const POLL: Duration = Duration::from_millis(200);

/// How much of one file is read at a time, so that one loud instance does not silence the others.
const CHUNK: u64 = 256 * 1024;

pub(crate) async fn run(place: &Place, logs: &Logs) -> anyhow::Result<Outcome> {
    let directory = place.state.join("logs");
    let mut tails: BTreeMap<InstanceId, Tail> = BTreeMap::new();
    let found = log_files(&directory, logs.of.as_ref())?;
    if found.is_empty() && !logs.follow {
        let of = logs.of.as_ref().map_or("anything".to_owned(), name_of);
        let failure = Failure::new(Outcome::DoesNotHold, format!("nothing was written by {of}"));
        return Err(failure.remedy("`mainstay ps` lists the instances").into());
    }
    for (instance, path) in found {
        let mut tail = Tail::open(path)?;
        tail.skip_to_last(logs.lines)?;
        tail.print(&instance, place)?;
        tails.insert(instance, tail);
    }
    if logs.follow {
        follow(place, logs, &directory, &mut tails).await?;
    }
    Ok(Outcome::Holds)
}

/// Prints what is written from now on, for ever.
async fn follow(
    place: &Place,
    logs: &Logs,
    directory: &Path,
    tails: &mut BTreeMap<InstanceId, Tail>,
) -> anyhow::Result<()> {
    loop {
        tokio::time::sleep(POLL).await;
        for (instance, path) in log_files(directory, logs.of.as_ref())? {
            let tail = match tails.entry(instance.clone()) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(Tail::open(path)?),
            };
            tail.print(&instance, place)?;
        }
    }
}

fn name_of(source: &LogSource) -> String {
    match source {
        LogSource::Service(service) => format!("`{service}`"),
        LogSource::Instance(instance) => format!("`{instance}`"),
    }
}

/// The current log files of those who are asked for.
fn log_files(
    directory: &Path,
    of: Option<&LogSource>,
) -> anyhow::Result<Vec<(InstanceId, PathBuf)>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot list `{}`", directory.display()))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry
            .with_context(|| format!("cannot list `{}`", directory.display()))?
            .path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let Some(instance) = name.strip_suffix(".log").and_then(|stem| stem.parse().ok()) else {
            continue;
        };
        if is_asked_for(&instance, of) {
            found.push((instance, path));
        }
    }
    found.sort();
    Ok(found)
}

fn is_asked_for(instance: &InstanceId, of: Option<&LogSource>) -> bool {
    match of {
        None => true,
        Some(LogSource::Service(service)) => instance.service == *service,
        // `orders-2` may be an instance of `orders` or a service of that name.
        Some(LogSource::Instance(wanted)) => {
            instance == wanted || instance.service.as_str() == wanted.to_string()
        }
    }
}

/// One log file, read onwards across its rotation.
struct Tail {
    path: PathBuf,
    reader: BufReader<File>,
    inode: u64,
    /// The beginning of a line whose end was not yet written.
    partial: Vec<u8>,
}

impl Tail {
    fn open(path: PathBuf) -> anyhow::Result<Self> {
        let file =
            File::open(&path).with_context(|| format!("cannot open `{}`", path.display()))?;
        let inode = file
            .metadata()
            .with_context(|| format!("cannot open `{}`", path.display()))?
            .ino();
        Ok(Self {
            path,
            reader: BufReader::new(file),
            inode,
            partial: Vec::new(),
        })
    }

    /// Moves to the beginning of the last `lines` lines.
    fn skip_to_last(&mut self, lines: usize) -> anyhow::Result<()> {
        let mut starts = std::collections::VecDeque::from([0]);
        let mut at = 0;
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = self
                .reader
                .read_until(b'\n', &mut line)
                .with_context(|| self.cannot_read())?;
            if read == 0 {
                break;
            }
            at += read as u64;
            if line.ends_with(b"\n") {
                starts.push_back(at);
            }
            if starts.len() > lines + 1 {
                starts.pop_front();
            }
        }
        let start = starts.front().copied().unwrap_or(0);
        self.reader
            .seek(SeekFrom::Start(start))
            .with_context(|| self.cannot_read())?;
        Ok(())
    }

    fn cannot_read(&self) -> String {
        format!("cannot read `{}`", self.path.display())
    }

    /// Prints what was written since the last time.
    fn print(&mut self, instance: &InstanceId, place: &Place) -> anyhow::Result<()> {
        loop {
            let read = self.copy_lines(instance, place)?;
            if read > 0 {
                continue;
            }
            // At the end: has the shim begun a new file under this name?
            match fs::metadata(&self.path) {
                Ok(now) if now.ino() != self.inode => {
                    let partial = std::mem::take(&mut self.partial);
                    *self = Self::open(self.path.clone())?;
                    self.partial = partial;
                }
                Ok(_) | Err(_) => return Ok(()),
            }
        }
    }

    fn copy_lines(&mut self, instance: &InstanceId, place: &Place) -> anyhow::Result<usize> {
        let mut chunk = Vec::new();
        let mut limited = (&mut self.reader).take(CHUNK);
        let read = limited
            .read_to_end(&mut chunk)
            .with_context(|| format!("cannot read `{}`", self.path.display()))?;
        self.partial.append(&mut chunk);
        let end = self
            .partial
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let mut out = io::stdout().lock();
        for line in self.partial[..end].split_inclusive(|byte| *byte == b'\n') {
            let text = String::from_utf8_lossy(line);
            let text = text.trim_end_matches('\n');
            let written = if place.json {
                let json = serde_json::json!({ "instance": instance, "line": text });
                writeln!(out, "{json}")
            } else {
                writeln!(out, "{instance:<14} {text}")
            };
            output::written(written)?;
        }
        self.partial.drain(..end);
        Ok(read)
    }
}
