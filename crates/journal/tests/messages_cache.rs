//! Bodies that are in memory, and bodies for which somebody has to wait.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_journal::messages::{Body, Change, MessageLimits, MessageLog, QueueKey, Ref};
use mainstay_journal::{Disk as _, HostDisk, SimulatedDisk};
use mainstay_testkit::{TempDir, skip};
use rustix::fs::{Advice, fadvise};

const BODY_LEN: usize = 64 * 1024;
const MESSAGE: Ref = Ref {
    queue: QueueKey { vhost: 1, queue: 1 },
    position: 7,
};

fn message() -> Change {
    Change::Message {
        refs: vec![MESSAGE],
        head: Bytes::from_static(b"a head"),
        body: Body::Here(vec![0xA5; BODY_LEN].into()),
    }
}

/// Takes all files of a directory out of memory, as far as its file system can.
fn forget_cache(dir: &Path) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let file = File::open(entry.expect("a file").path()).expect("opens");
        fadvise(&file, 0, None, Advice::DontNeed).expect("advised");
    }
}

#[test]
fn a_body_for_which_a_disk_must_be_waited_for_is_not_waited_for() {
    let dir = TempDir::new("messages-cache");
    let disk = HostDisk::open(dir.path()).expect("a directory");
    let disk = Arc::new(disk.expect("nobody else has it"));
    let (mut log, _) = MessageLog::open(disk, MessageLimits::default()).expect("opens");
    let _unsynced = log.append(&[message()]).expect("works");
    let _durable = log.sync().expect("works");
    let place = log.places().find(MESSAGE).expect("it is there");
    assert!(place.record_len() > BODY_LEN as u64);
    let cached = place.read_cached().expect("reads");
    assert_eq!(cached.expect("it was just written").len(), BODY_LEN);
    forget_cache(dir.path());
    if place.read_cached().expect("reads").is_some() {
        return skip("this file system has all in memory");
    }
    assert_eq!(place.read().expect("reads").len(), BODY_LEN);
    assert!(
        place.read_cached().expect("reads").is_some(),
        "it was just read"
    );
}

#[test]
fn a_damaged_body_in_memory_is_an_error_that_names_its_place() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let limits = MessageLimits {
        segment_len: 128 * 1024,
        ..MessageLimits::default()
    };
    let (mut log, _) = MessageLog::open(disk.clone(), limits).expect("opens");
    let _unsynced = log.append(&[message()]).expect("works");
    let _durable = log.sync().expect("works");
    let place = log.places().find(MESSAGE).expect("it is there");
    assert!(place.read_cached().expect("reads").is_some());
    let file = disk
        .open("0000000000000001.segment")
        .expect("opens")
        .expect("it is there");
    disk.write_at(&file, 1000, b"not what it was")
        .expect("writes");
    let error = place.read_cached().expect_err("it is damaged");
    assert!(
        error.to_string().contains("0000000000000001.segment"),
        "{error}"
    );
}
