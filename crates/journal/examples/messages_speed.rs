//! What a log of messages does in a second, and what it takes:
//! `cargo run --release -p mainstay-journal --example messages_speed [DIRECTORY]`.
//!
//! Prints messages per second and syncs for batches of 1, 64 and 1024 messages of 1 KiB, while as many are
//! acknowledged, beside a bare file; the time of an opening with 100,000 messages; and the memory of a million.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mainstay_journal::HostDisk;
use mainstay_journal::messages::{
    Body, Change, Found, MessageLimits, MessageLog, QueueKey, Ref, Tidied,
};

const QUEUE: QueueKey = QueueKey { vhost: 1, queue: 1 };
const LASTS: Duration = Duration::from_secs(1);
const ROUNDS: usize = 3;
const BODY_LEN: usize = 1024;

fn main() {
    let arguments = env::args_os().nth(1);
    let dir = arguments.map_or_else(|| PathBuf::from("target/messages-speed"), PathBuf::from);
    for batch in [1, 64, 1024] {
        for _ in 0..ROUNDS {
            throughput(&dir, batch);
            bare(&dir, batch);
        }
    }
    opening(&dir);
    memory(&dir);
    fs::remove_dir_all(&dir).expect("the directory is ours");
}

fn open(dir: &Path) -> (MessageLog, Found) {
    let disk = HostDisk::open(dir).expect("the directory can be used");
    let disk = Arc::new(disk.expect("nobody else has it"));
    MessageLog::open(disk, MessageLimits::default()).expect("opens")
}

fn begin(dir: &Path) -> MessageLog {
    if dir.exists() {
        fs::remove_dir_all(dir).expect("the directory is ours");
    }
    let (mut log, _) = open(dir);
    while log.tidy(1024 * 1024).expect("works") == Tidied::More {}
    log
}

fn message(position: u64, body: &Bytes) -> Change {
    let queue = QUEUE;
    Change::Message {
        refs: vec![Ref { queue, position }],
        head: Bytes::from_static(b"exchange, routing key and properties: some fifty bytes"),
        body: Body::Here(body.clone()),
    }
}

/// Each batch is synced; what came 10,000 messages before is acknowledged in it.
fn throughput(dir: &Path, batch: u64) {
    let mut log = begin(dir);
    let body = Bytes::from(vec![0xA5; BODY_LEN]);
    let (mut position, mut syncs) = (0, 0_u64);
    let mut slowest = Duration::ZERO;
    let start = Instant::now();
    while start.elapsed() < LASTS {
        let began = Instant::now();
        let mut changes: Vec<Change> = (position..position + batch)
            .map(|position| message(position, &body))
            .collect();
        let old = position.saturating_sub(10_000)..(position + batch).saturating_sub(10_000);
        let queue = QUEUE;
        changes.extend(old.map(|position| Change::Forget(Ref { queue, position })));
        let _unsynced = log.append(&changes).expect("works");
        let _durable = log.sync().expect("works");
        syncs += 1;
        position += batch;
        log.tidy(64 * 1024).expect("works");
        slowest = slowest.max(began.elapsed());
    }
    let millis = u64::try_from(start.elapsed().as_millis()).expect("seconds");
    println!(
        "batch {batch}: {} messages/s, {} syncs/s, slowest batch {slowest:?}, {:?}",
        position * 1000 / millis,
        syncs * 1000 / millis,
        log.room(),
    );
}

/// The control: as many bytes into a file that is full of zeros, and as many syncs, without a log.
fn bare(dir: &Path, batch: u64) {
    const FILE_LEN: u64 = 64 * 1024 * 1024;
    let file = File::create(dir.join("bare")).expect("the directory can be used");
    let zeros = vec![0; 1024 * 1024];
    for at in (0..FILE_LEN).step_by(zeros.len()) {
        file.write_all_at(&zeros, at).expect("works");
    }
    file.sync_all().expect("works");
    let bytes = vec![0xA5; usize::try_from(batch).expect("small") * (BODY_LEN + 128)];
    let (mut at, mut syncs) = (0, 0);
    let start = Instant::now();
    while start.elapsed() < LASTS {
        file.write_all_at(&bytes, at).expect("works");
        file.sync_data().expect("works");
        syncs += 1;
        at = (at + bytes.len() as u64) % (FILE_LEN - bytes.len() as u64);
    }
    let millis = u64::try_from(start.elapsed().as_millis()).expect("seconds");
    println!(
        "batch {batch}, bare file: {} messages/s, {} syncs/s",
        syncs * batch * 1000 / millis,
        syncs * 1000 / millis,
    );
}

fn fill(dir: &Path, messages: u64, body: &Bytes) -> MessageLog {
    let mut log = begin(dir);
    for first in (0..messages).step_by(1000) {
        let changes: Vec<Change> = (first..first + 1000)
            .map(|position| message(position, body))
            .collect();
        let _unsynced = log.append(&changes).expect("works");
        let _durable = log.sync().expect("works");
        log.tidy(1).expect("works");
    }
    log
}

fn opening(dir: &Path) {
    drop(fill(dir, 100_000, &Bytes::from(vec![0xA5; BODY_LEN])));
    for _ in 0..3 {
        let start = Instant::now();
        let (log, found) = open(dir);
        let took = start.elapsed();
        assert_eq!(found.queues[0].messages.len(), 100_000);
        println!("opening 100,000 messages: {took:?}");
        drop(log);
    }
}

fn memory(dir: &Path) {
    let before = resident();
    let log = fill(dir, 1_000_000, &Bytes::new());
    let after = resident();
    println!(
        "a million messages: {} bytes each",
        (after - before) / 1_000_000
    );
    drop(log);
}

/// Bytes of this process in memory.
fn resident() -> i64 {
    let status = fs::read_to_string("/proc/self/status").expect("the kernel tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kilobytes: i64 = kilobytes
        .and_then(|text| text.parse().ok())
        .expect("a number");
    kilobytes * 1024
}
