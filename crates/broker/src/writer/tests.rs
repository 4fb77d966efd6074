use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use mainstay_journal::HostDisk;
use mainstay_journal::messages::{Body, MessageLimits, QueueKey, Ref};
use mainstay_testkit::{TempDir, wait_until};

use super::*;

const LIMITS: MessageLimits = MessageLimits {
    segment_len: 64 * 1024,
    bytes_max: u64::MAX,
};
const MESSAGES: u64 = 100;

fn place(position: u64) -> Ref {
    Ref {
        queue: QueueKey { vhost: 1, queue: 1 },
        position,
    }
}

fn message(position: u64) -> Change {
    Change::Message {
        refs: vec![place(position)],
        head: Bytes::from_static(b"a head"),
        body: Body::Here(vec![0xA5; 16 * 1024].into()),
    }
}

fn open(path: &Path) -> MessageLog {
    let disk = HostDisk::open(path).expect("a directory");
    let disk = disk.expect("nobody else has it");
    MessageLog::open(Arc::new(disk), LIMITS).expect("opens").0
}

#[test]
fn room_comes_back_after_an_opening_without_traffic() {
    let dir = TempDir::new("writer-room");
    let mut log = open(dir.path());
    for position in 0..MESSAGES {
        let _unsynced = log.append(&[message(position)]).expect("works");
    }
    let gone: Vec<Change> = (0..MESSAGES)
        .map(|position| Change::Forget(place(position)))
        .collect();
    let _unsynced = log.append(&gone).expect("works");
    let _durable = log.sync().expect("works");
    let before = log.room().on_disk;
    drop(log);
    let log = open(dir.path());
    assert!(log.room().on_disk >= before, "an opening itself gives nothing back");
    let writer = Writer::start(log).expect("a thread");
    // The newest segment, three spares, and what is not worth it.
    let enough = 6 * LIMITS.segment_len;
    assert!(before > 2 * enough, "there is something to give back: {before}");
    wait_until(Duration::from_mins(1), "the room is given back", || {
        let on_disk = writer.gauges.on_disk.load(Ordering::Relaxed);
        if on_disk <= enough {
            return Ok(());
        }
        Err(format!("{on_disk} bytes of {before}"))
    });
}

#[test]
fn a_new_log_takes_no_more_room_before_it_is_used() {
    let dir = TempDir::new("writer-new");
    let log = open(dir.path());
    let before = log.room().on_disk;
    let writer = Writer::start(log).expect("a thread");
    let gauges = Arc::clone(&writer.gauges);
    drop(writer.orders);
    writer.thread.join().expect("it ends by itself");
    assert_eq!(gauges.on_disk.load(Ordering::Relaxed), before);
}
