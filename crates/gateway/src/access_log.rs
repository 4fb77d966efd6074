//! The access log: one line of JSON per request.
//!
//! Workers write lines into a buffer of their own and hand over whole buffers; one thread writes
//! them to the file. A request never waits for the disk: what the thread cannot take is dropped
//! and counted.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mainstay_ids::{Instant, Timestamp};
use mainstay_model::gateway as model;

use crate::clock::wall_clock;
use crate::connection::Scope;
use crate::metrics::GatewayCounters;

/// Buffers that may wait for the writer: at 100,000 requests/s two seconds of a stalled disk.
/// Full: the newest buffer is dropped and its lines are counted.
const BATCHES: usize = 1024;

/// A buffer is handed over at this size: some 120 lines for one write.
const BATCH_LEN: usize = 32 * 1024;

/// The file is renamed to `.1` at this size, so that the log never takes more than twice as much.
const FILE_LEN_MAX: u64 = 64 * 1024 * 1024;

/// One request, as far as the log tells of it.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) id: &'a [u8],
    pub(crate) client: &'a [u8],
    /// The client's port.
    pub(crate) port: u16,
    /// Where it came in.
    pub(crate) scope: Scope,
    /// The version of HTTP that the client speaks.
    pub(crate) http: &'static str,
    pub(crate) method: &'a str,
    pub(crate) host: Option<&'a str>,
    /// With the query.
    pub(crate) path: &'a str,
    pub(crate) status: u16,
    pub(crate) service: Option<&'a str>,
    pub(crate) instance: Option<&'a [u8]>,
    pub(crate) reason: Option<&'static str>,
    pub(crate) tries: u32,
    /// Which of two answers came first, if it was sent to a second instance because the first was slow.
    pub(crate) hedge: Option<&'static str>,
    /// Of the request's body.
    pub(crate) bytes_in: u64,
    /// Of the answer's body.
    pub(crate) bytes: u64,
    pub(crate) started: Instant,
    /// When the head of an instance's answer came.
    pub(crate) first_byte: Option<Instant>,
    pub(crate) ended: Instant,
}

struct Batch {
    text: Vec<u8>,
    lines: u64,
}

/// Whether lines are wanted; looked at for each, so that a change holds at once.
pub(crate) struct LogSwitch(AtomicBool);

impl LogSwitch {
    /// Turns it.
    pub(crate) fn set(&self, wanted: model::AccessLog) {
        self.0
            .store(wanted == model::AccessLog::On, Ordering::Relaxed);
    }

    fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The writer's thread and the way to it.
pub(crate) struct AccessLog {
    batches: SyncSender<Batch>,
    switch: Arc<LogSwitch>,
    thread: JoinHandle<()>,
}

impl AccessLog {
    /// Opens the file and starts the thread.
    pub(crate) fn open(path: &Path, counters: Arc<GatewayCounters>) -> io::Result<Self> {
        let mut file = LogFile::open(path)?;
        let (batches, inbox) = sync_channel(BATCHES);
        let thread = thread::Builder::new()
            .name("access-log".into())
            .spawn(move || file.write_all_of(&inbox, &counters))?;
        let switch = Arc::new(LogSwitch(AtomicBool::new(true)));
        Ok(Self {
            batches,
            switch,
            thread,
        })
    }

    /// What turns it on and off.
    pub(crate) fn switch(&self) -> Arc<LogSwitch> {
        Arc::clone(&self.switch)
    }

    /// A worker's end.
    pub(crate) fn sink(&self, counters: Arc<GatewayCounters>) -> LogSink {
        LogSink {
            batches: self.batches.clone(),
            switch: self.switch(),
            counters,
        }
    }

    /// Writes what is left; every sink must have been dropped before.
    pub(crate) fn finish(self) {
        drop(self.batches);
        if self.thread.join().is_err() {
            tracing::error!("the access log's thread panicked");
        }
    }
}

/// Where one worker's lines go.
pub(crate) struct LogSink {
    batches: SyncSender<Batch>,
    switch: Arc<LogSwitch>,
    counters: Arc<GatewayCounters>,
}

/// The lines of one worker that were not handed over yet.
pub(crate) struct LogBuffer {
    sink: LogSink,
    text: Vec<u8>,
    lines: u64,
    /// What the wall clock showed at the driver's start; read anew with each hand-over.
    wall_start_ms: u64,
    second: (u64, String),
}

impl LogBuffer {
    pub(crate) fn new(sink: LogSink, now: Instant) -> Self {
        Self {
            sink,
            text: Vec::with_capacity(BATCH_LEN + 1024),
            lines: 0,
            wall_start_ms: wall_start(now),
            second: (u64::MAX, String::new()),
        }
    }

    /// Adds a line.
    pub(crate) fn push(&mut self, line: &Line<'_>) {
        if !self.sink.switch.is_on() {
            return;
        }
        let ms = self.wall_start_ms + millis(line.started);
        if self.second.0 != ms / 1000 {
            let text = Timestamp(ms).to_string();
            self.second = (ms / 1000, text[..text.len() - ".000Z".len()].to_owned());
        }
        write_line(&mut self.text, &self.second.1, ms % 1000, line);
        self.lines += 1;
        if self.text.len() >= BATCH_LEN {
            self.flush(line.ended);
        }
    }

    /// Hands the lines over.
    pub(crate) fn flush(&mut self, now: Instant) {
        self.wall_start_ms = wall_start(now);
        if self.lines == 0 {
            return;
        }
        let text = std::mem::replace(&mut self.text, Vec::with_capacity(BATCH_LEN + 1024));
        let lines = std::mem::take(&mut self.lines);
        if self.sink.batches.try_send(Batch { text, lines }).is_err() {
            self.sink.counters.log_dropped.add(lines);
        }
    }
}

impl Drop for LogBuffer {
    fn drop(&mut self) {
        self.flush(Instant::START);
    }
}

fn wall_start(now: Instant) -> u64 {
    wall_clock().0.saturating_sub(millis(now))
}

fn millis(instant: Instant) -> u64 {
    u64::try_from(instant.since_start().as_millis()).unwrap_or(u64::MAX)
}

fn write_line(out: &mut Vec<u8>, second: &str, ms: u64, line: &Line<'_>) {
    let mut number = itoa::Buffer::new();
    out.extend_from_slice(b"{\"time\":\"");
    out.extend_from_slice(second.as_bytes());
    out.push(b'.');
    // `ms` has at most three digits: pad by adding a fourth and leaving it out.
    out.extend_from_slice(&number.format(1000 + ms).as_bytes()[1..]);
    out.extend_from_slice(b"Z\"");
    write_text(out, "id", line.id);
    write_text(out, "client", line.client);
    write_number(out, "port", line.port.into());
    match line.scope {
        Scope::Entry => write_text(out, "frontend", b"entry"),
        Scope::Address(address) | Scope::Listen(address) => {
            // An address holds nothing that JSON would take for its own.
            write!(out, ",\"frontend\":\"{address}\"").expect("writing to memory cannot fail");
        }
    }
    write_text(out, "http", line.http.as_bytes());
    write_text(out, "method", line.method.as_bytes());
    if let Some(host) = line.host {
        write_text(out, "host", host.as_bytes());
    }
    write_text(out, "path", line.path.as_bytes());
    // A listener may be called as a service is, and its servers are no instances.
    let (owner, asked) = match line.scope {
        Scope::Entry | Scope::Address(_) => ("service", "instance"),
        Scope::Listen(_) => ("listen", "server"),
    };
    if let Some(service) = line.service {
        write_text(out, owner, service.as_bytes());
    }
    if let Some(instance) = line.instance {
        write_text(out, asked, instance);
    }
    if let Some(reason) = line.reason {
        write_text(out, "reason", reason.as_bytes());
    }
    if let Some(hedge) = line.hedge {
        write_text(out, "hedge", hedge.as_bytes());
    }
    write_number(out, "status", line.status.into());
    write_number(out, "tries", line.tries.into());
    write_number(out, "bytes_in", line.bytes_in);
    write_number(out, "bytes", line.bytes);
    if let Some(first_byte) = line.first_byte {
        write_number(out, "first_byte_us", micros(first_byte.since(line.started)));
    }
    write_number(out, "us", micros(line.ended.since(line.started)));
    out.extend_from_slice(b"}\n");
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn write_number(out: &mut Vec<u8>, name: &str, value: u64) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn write_text(out: &mut Vec<u8>, name: &str, text: &[u8]) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
    let plain = |byte: &u8| (0x20..0x7f).contains(byte) && *byte != b'"' && *byte != b'\\';
    if text.iter().all(plain) {
        out.extend_from_slice(text);
    } else {
        escape(out, text);
    }
    out.push(b'"');
}

#[cold]
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0x20..0x7f => out.push(byte),
            // Bytes that are no text are shown as the characters of Latin-1.
            0..0x20 | 0x7f.. => {
                write!(out, "\\u{byte:04x}").expect("writing to memory cannot fail");
            }
        }
    }
}

struct LogFile {
    path: PathBuf,
    file: File,
    len: u64,
    health: FileHealth,
}

/// Whether the last write succeeded, so that a failure is told once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileHealth {
    Writable,
    Failing,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        let len = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            len,
            health: FileHealth::Writable,
        })
    }

    fn write_all_of(&mut self, inbox: &Receiver<Batch>, counters: &GatewayCounters) {
        while let Ok(batch) = inbox.recv() {
            let written = self.write(&batch.text);
            if let Err(error) = &written {
                counters.log_dropped.add(batch.lines);
                if self.health == FileHealth::Writable {
                    tracing::warn!(%error, path = %self.path.display(), "cannot write the access log; its lines are dropped and counted");
                }
            }
            self.health = match written {
                Ok(()) => FileHealth::Writable,
                Err(_) => FileHealth::Failing,
            };
        }
    }

    /// Whether another file, or none, has its name: `logrotate` renames it. A look at the name for
    /// each buffer of a hundred lines, so that nobody has to send a signal.
    fn was_taken_away(&self) -> bool {
        let identity = |metadata: io::Result<fs::Metadata>| metadata.map(|it| (it.dev(), it.ino()));
        let (ours, named) = (self.file.metadata(), fs::metadata(&self.path));
        match (identity(ours), identity(named)) {
            (Ok(ours), Ok(named)) => ours != named,
            (_, Err(error)) => error.kind() == io::ErrorKind::NotFound,
            (Err(_), Ok(_)) => false,
        }
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        // Also by another gateway, while one takes over from the other.
        if self.was_taken_away()
            && let Ok(file) = Self::open(&self.path)
        {
            // If it cannot be opened, the lines go on into the file that was taken away.
            *self = file;
        }
        if self.len >= FILE_LEN_MAX {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            fs::rename(&self.path, old)?;
            *self = Self::open(&self.path)?;
        }
        self.file.write_all(text)?;
        self.len += text.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::TempDir;

    #[test]
    fn every_line_is_json_whatever_the_client_sent() {
        let dir = TempDir::new("access-log");
        let counters = Arc::new(GatewayCounters::new(1));
        let log = AccessLog::open(&dir.join("access.log"), Arc::clone(&counters)).unwrap();
        let started = Instant::from_start(Duration::from_millis(5));
        let mut buffer = LogBuffer::new(log.sink(counters), started);
        for host in [None, Some("a\"\\\u{ff}\t")] {
            buffer.push(&Line {
                id: b"i1",
                client: b"::1",
                port: 40_000,
                scope: Scope::Address(([127, 96, 0, 1], 8080).into()),
                http: "1.1",
                method: "GET",
                host,
                path: "/x?y=1",
                status: 200,
                service: Some("orders"),
                instance: None,
                reason: Some("no-route"),
                tries: 2,
                hedge: None,
                bytes_in: 7,
                bytes: 10,
                started,
                first_byte: Some(started.after(Duration::from_micros(900))),
                ended: started.after(Duration::from_micros(1500)),
            });
        }
        drop(buffer);
        log.finish();
        let text = fs::read_to_string(dir.join("access.log")).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["us"], 1500);
        assert_eq!(lines[0]["first_byte_us"], 900);
        assert_eq!(lines[0]["port"], 40_000);
        assert_eq!(lines[0]["frontend"], "127.96.0.1:8080");
        assert_eq!(
            (&lines[0]["bytes_in"], &lines[0]["bytes"]),
            (&7.into(), &10.into())
        );
        assert_eq!(lines[0]["service"], "orders");
        assert_eq!(lines[0]["path"], "/x?y=1");
        // Each byte of what is not ASCII is a character of its own.
        assert_eq!(lines[1]["host"], "a\"\\\u{c3}\u{bf}\t");
        assert_eq!(lines[0]["time"].as_str().map(str::len), Some(24));
    }

    #[test]
    fn a_log_that_has_grown_too_long_is_set_aside() {
        let dir = TempDir::new("access-log");
        let mut file = LogFile::open(&dir.join("access.log")).unwrap();
        file.write(b"old\n").unwrap();
        file.len = FILE_LEN_MAX;
        file.write(b"new\n").unwrap();
        assert_eq!(fs::read(dir.join("access.log")).unwrap(), b"new\n");
        assert_eq!(fs::read(dir.join("access.log.1")).unwrap(), b"old\n");
    }

    #[test]
    fn two_gateways_that_overlap_do_not_set_aside_each_others_new_log() {
        let dir = TempDir::new("access-log");
        let mut files = [(); 2].map(|()| LogFile::open(&dir.join("access.log")).unwrap());
        for file in &mut files {
            file.write(b"old\n").unwrap();
        }
        for file in &mut files {
            file.len = FILE_LEN_MAX;
            file.write(b"new\n").unwrap();
        }
        let read = |name| fs::read_to_string(dir.join(name)).unwrap();
        assert_eq!(read("access.log"), "new\nnew\n");
        assert_eq!(read("access.log.1"), "old\nold\n");
    }

    #[test]
    fn a_log_that_was_renamed_or_removed_is_begun_anew() {
        let dir = TempDir::new("access-log");
        let path = dir.join("access.log");
        let mut file = LogFile::open(&path).unwrap();
        file.write(b"one\n").unwrap();
        fs::rename(&path, dir.join("rotated")).unwrap();
        file.write(b"two\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two\n");
        fs::remove_file(&path).unwrap();
        file.write(b"three\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three\n");
        assert_eq!(fs::read(dir.join("rotated")).unwrap(), b"one\n");
        // Nowhere to begin anew: nothing is lost nevertheless.
        let away = dir.join("away");
        fs::rename(&path, dir.join("last")).unwrap();
        file.path = away.join("missing").join("access.log");
        file.write(b"four\n").unwrap();
        assert_eq!(fs::read(dir.join("last")).unwrap(), b"three\nfour\n");
    }
}
