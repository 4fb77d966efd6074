//! How much a log of messages takes, and what keeping it small costs; on a disk that is full, too.

use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_journal::messages::{
    AppendError, Body, Change, Level, MessageLimits, MessageLog, QueueKey, Ref, Tidied,
};
use mainstay_journal::{Disk, HostDisk, SimulatedDisk};
use mainstay_testkit::{TempDir, program};

const QUEUE: QueueKey = QueueKey { vhost: 1, queue: 1 };

/// Segments of 16 KiB instead of 16 MiB: what is 10 MB here is 10 GB there.
const LIMITS: MessageLimits = MessageLimits {
    segment_len: 16 * 1024,
    bytes_max: u64::MAX,
};

/// Beyond twice what is needed: two segments, the newest, three spares, and one in transition.
const BEYOND: u64 = 7 * LIMITS.segment_len;

fn open<D: Disk>(disk: &Arc<D>) -> MessageLog<D> {
    MessageLog::open(disk.clone(), LIMITS).expect("opens").0
}

fn place(position: u64) -> Ref {
    let queue = QUEUE;
    Ref { queue, position }
}

fn message(position: u64, body_len: usize) -> Change {
    let refs = vec![place(position)];
    let head = Bytes::from_static(b"a head");
    let body = Body::Here(vec![0xA5; body_len].into());
    Change::Message { refs, head, body }
}

fn settle<D: Disk>(log: &mut MessageLog<D>) {
    let _durable = log.sync().expect("works");
    while log.tidy(64 * 1024).expect("works") == Tidied::More {}
}

fn within_bound(log: &MessageLog<SimulatedDisk>) {
    let room = log.room();
    assert!(room.on_disk <= 2 * room.live + BEYOND, "{room:?}");
}

#[test]
fn one_old_message_that_nobody_acknowledges_and_much_traffic() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let mut log = open(&disk);
    let _unsynced = log.append(&[message(1, 100)]).expect("works");
    let mut position = 1;
    let steps = disk.steps();
    for _ in 0..2500 {
        let first = position + 1;
        let batch: Vec<Change> = (0..4).map(|next| message(first + next, 1000)).collect();
        let _unsynced = log.append(&batch).expect("works");
        let batch: Vec<Change> = (0..4)
            .map(|next| Change::Forget(place(first + next)))
            .collect();
        let _unsynced = log.append(&batch).expect("works");
        let _durable = log.sync().expect("works");
        position += 4;
        log.tidy(1).expect("works");
        within_bound(&log);
    }
    // 10,000 messages: 5,000 writes and 2,500 syncs of the test, and for each segment the same few
    // steps to begin it and to give it up.
    let segments = usize::try_from(newest_segment(&disk)).expect("few");
    assert!((650..900).contains(&segments), "{segments}");
    let steps = disk.steps() - steps;
    assert!(steps < 7500 + segments * 14, "{steps}");
    let body = log.places().find(place(1)).expect("is there").read();
    assert_eq!(body.expect("reads").len(), 100);
    settle(&mut log);
    drop(log);
    let (_, found) = MessageLog::open(disk, LIMITS).expect("opens");
    assert_eq!(found.queues[0].messages.len(), 1);
    assert_eq!(found.queues[0].messages[0].position, 1);
}

#[test]
fn consumers_that_come_and_go_on_an_idle_queue() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let mut log = open(&disk);
    // The queue is idle: a definition for each consumer that comes, and none when it goes; and a
    // message now and then that is acknowledged at once.
    for round in 0..20_000_u64 {
        let key = Bytes::from_static(b"consumer");
        let value = Bytes::copy_from_slice(&round.to_le_bytes());
        let batch = [
            Change::Put {
                key: key.clone(),
                value,
            },
            Change::Remove { key },
            message(round, 0),
            Change::Forget(place(round)),
        ];
        let _unsynced = log.append(&batch).expect("works");
        if round % 50 == 0 {
            let _durable = log.sync().expect("works");
            log.tidy(1).expect("works");
            within_bound(&log);
        }
    }
    settle(&mut log);
    assert_eq!(log.room().live, 0);
    assert!(log.room().on_disk <= BEYOND);
}

#[test]
fn many_small_ones_that_stay_in_each_segment_cost_no_more_than_what_is_appended() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let mut log = open(&disk);
    let mut position = 0;
    let mut appended = 0;
    for round in 0..1500 {
        let first = position + 1;
        let batch: Vec<Change> = (0..10).map(|next| message(first + next, 150)).collect();
        position += 10;
        let _unsynced = log.append(&batch).expect("works");
        appended += 10 * 232;
        // Each tenth stays.
        let batch: Vec<Change> = (0..9)
            .map(|next| Change::Forget(place(first + next)))
            .collect();
        let _unsynced = log.append(&batch).expect("works");
        appended += 24 + 88;
        let _durable = log.sync().expect("works");
        log.tidy(1).expect("works");
        within_bound(&log);
        // And goes after a while.
        if round >= 300 {
            let old = Change::Forget(place((round - 299) * 10));
            let _unsynced = log.append(&[old]).expect("works");
        }
    }
    let segments = newest_segment(&disk);
    let written = segments * LIMITS.segment_len;
    assert!(written < 2 * appended, "{written} bytes for {appended}");
}

/// The number of the newest segment: how many were ever begun.
fn newest_segment(disk: &SimulatedDisk) -> u64 {
    let names = disk.list().expect("works").into_iter();
    let numbers = names.filter_map(|name| name.strip_suffix(".segment")?.parse().ok());
    numbers.max().expect("there is one")
}

#[test]
fn the_limit_of_the_log_itself_refuses_messages_as_a_full_disk_does() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let limits = MessageLimits {
        bytes_max: 160 * 1024,
        ..LIMITS
    };
    let (mut log, _) = MessageLog::open(disk.clone(), limits).expect("opens");
    let mut position = 0;
    let error = loop {
        position += 1;
        match log.append(&[message(position, 1000)]) {
            Ok(_unsynced) => settle(&mut log),
            Err(error) => break error,
        }
        assert!(disk.used() <= limits.bytes_max);
    };
    assert!(
        matches!(error, AppendError::Full { source: None, .. }),
        "{error}"
    );
    assert_eq!(log.room().level, Level::Low);
    assert!(position > 80, "{position}");
    for position in 1..position {
        let _unsynced = log
            .append(&[Change::Forget(place(position))])
            .expect("is taken");
    }
    settle(&mut log);
    assert_eq!(log.room().level, Level::Plenty);
    let _unsynced = log
        .append(&[message(position, 1000)])
        .expect("there is room");
}

#[test]
fn a_batch_is_refused_whole_when_one_of_it_cannot_be() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let mut log = open(&disk);
    let _unsynced = log.append(&[message(1, 10)]).expect("works");
    let none = Change::Message {
        refs: Vec::new(),
        head: Bytes::new(),
        body: Body::Here(Bytes::new()),
    };
    let stored = |position| Change::Message {
        refs: vec![place(position)],
        head: Bytes::new(),
        body: Body::Stored(place(99)),
    };
    for (wrong, words) in [
        (none, "no queue"),
        (message(1, 10), "message 1 of queue 1 is in the log already"),
        (message(2, 10), "message 2 of queue 1 is in the log already"),
        (stored(3), "no message 99 of queue 1"),
    ] {
        let error = log.append(&[message(2, 10), wrong]).expect_err("is wrong");
        assert!(error.to_string().contains(words), "{error}");
        assert!(log.places().find(place(2)).is_none());
    }
    assert_eq!(
        log.places()
            .find(place(1))
            .expect("is there")
            .read()
            .expect("reads")
            .len(),
        10
    );
}

/// A small file system in memory, that is unmounted whatever happens.
struct Tmpfs(TempDir);

impl Tmpfs {
    fn mount(bytes: u64) -> Self {
        let dir = TempDir::new("tmpfs");
        let mut command = Command::new(program("mount"));
        command.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]);
        let mounted = command.arg(dir.path()).status().expect("mount starts");
        assert!(mounted.success());
        Self(dir)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let mut command = Command::new(program("umount"));
        let unmounted = command.arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

#[test]
fn system_a_small_file_system_that_is_full_drains_and_takes_messages_again() {
    if !mainstay_testkit::is_root() {
        mainstay_testkit::skip("mounting a file system needs root");
        return;
    }
    let limits = MessageLimits {
        segment_len: 256 * 1024,
        bytes_max: u64::MAX,
    };
    let small = Tmpfs::mount(4 * 1024 * 1024);
    let disk = Arc::new(
        HostDisk::open(&small.0.join("log"))
            .expect("works")
            .expect("is free"),
    );
    let (mut log, _) = MessageLog::open(disk.clone(), limits).expect("opens");
    for round in 1..4_u64 {
        let mut position = round << 32;
        let first = position;
        let error = loop {
            match log.append(&[message(position, 4000)]) {
                Ok(_unsynced) => position += 1,
                Err(error) => break error,
            }
            let _durable = log.sync().expect("works");
            log.tidy(64 * 1024).expect("works");
        };
        let AppendError::Full {
            source: Some(reason),
            ..
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!(reason.kind(), std::io::ErrorKind::StorageFull);
        assert!(position - first > 500, "{}", position - first);
        // The process ends on the full disk, and what is in the log is consumed by the next one.
        drop(log);
        let (again, found) = MessageLog::open(disk.clone(), limits).expect("opens");
        log = again;
        assert_eq!(found.queues[0].messages.len() as u64, position - first);
        for position in first..position {
            let body = log.places().find(place(position)).expect("is there").read();
            assert_eq!(body.expect("reads").len(), 4000);
            let _unsynced = log
                .append(&[Change::Forget(place(position))])
                .expect("is taken");
            let _durable = log.sync().expect("works");
            if position % 7 == 0 {
                log.tidy(1).expect("works");
            }
        }
        settle(&mut log);
        assert_eq!((log.room().level, log.room().live), (Level::Plenty, 0));
    }
}
