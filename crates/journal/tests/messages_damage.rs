//! Damage to a log of messages, its examination, and copies of it.

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_journal::messages::{
    Body, Change, CopyError, Found, MessageLimits, MessageLog, QueueKey, Ref, Tidied, examine,
};
use mainstay_journal::{Damage, Disk as _, HostDisk, OpenError, SimulatedDisk};
use mainstay_testkit::TempDir;

const LIMITS: MessageLimits = MessageLimits {
    segment_len: 1024,
    bytes_max: u64::MAX,
};

type Files = Vec<(String, Vec<u8>)>;

fn place(queue: u64, position: u64) -> Ref {
    let queue = QueueKey { vhost: 0, queue };
    Ref { queue, position }
}

fn message(position: u64) -> Change {
    Change::Message {
        refs: vec![place(1, position), place(2, position)],
        head: Bytes::copy_from_slice(&position.to_le_bytes()),
        body: Body::Here(vec![0xA5; 100].into()),
    }
}

/// A log of some segments, each message synced.
fn written() -> (Files, Found) {
    let disk = Arc::new(SimulatedDisk::new(1));
    let (mut log, _) = MessageLog::open(disk.clone(), LIMITS).expect("opens");
    let key = Bytes::from_static(b"queue");
    let value = Bytes::from_static(b"durable");
    let _unsynced = log.append(&[Change::Put { key, value }]).expect("works");
    for position in 1..=20 {
        let _unsynced = log.append(&[message(position)]).expect("works");
        let _durable = log.sync().expect("works");
    }
    let forgotten = [Change::Forget(place(1, 3)), Change::Forget(place(2, 4))];
    let _unsynced = log.append(&forgotten).expect("works");
    let _durable = log.sync().expect("works");
    drop(log);
    let (_, found) = MessageLog::open(disk.clone(), LIMITS).expect("opens");
    let names = disk.list().expect("works").into_iter();
    let files = names.filter(|name| name.starts_with('0'));
    let read = |name: String| {
        let bytes = disk.read(&name).expect("works").expect("is there");
        (name, bytes)
    };
    (files.map(read).collect(), found)
}

fn disk_of(files: &Files) -> Arc<SimulatedDisk> {
    let disk = SimulatedDisk::new(2);
    for (name, bytes) in files {
        disk.put(name, bytes);
    }
    Arc::new(disk)
}

fn contents(disk: &SimulatedDisk) -> Files {
    let names = disk.list().expect("works").into_iter();
    let read = |name: String| {
        let bytes = disk.read(&name).expect("works").expect("is there");
        (name, bytes)
    };
    names.map(read).collect()
}

#[test]
fn every_edited_byte_of_a_record_is_an_error_that_names_the_file_and_changes_nothing() {
    let (files, found) = written();
    let newest = files.len() - 1;
    assert!(newest >= 3);
    let mut refused = 0;
    for file in 0..files.len() {
        for at in (0..files[file].1.len()).step_by(3) {
            let mut edited = files.clone();
            edited[file].1[at] ^= 0x10;
            let disk = disk_of(&edited);
            match MessageLog::open(disk.clone(), LIMITS) {
                Ok((_, again)) => {
                    // Behind the last record of a segment, or the last batch of all.
                    let more = again
                        .queues
                        .iter()
                        .zip(&found.queues)
                        .all(|(again, found)| {
                            let kept = |message| again.messages.contains(message);
                            found.messages.iter().all(kept)
                        });
                    assert!(again == found || file == newest && more, "{file} {at}");
                }
                Err(error) => {
                    refused += 1;
                    assert!(error.to_string().contains(&files[file].0), "{error}");
                    assert_eq!(contents(&disk), edited);
                    match examine(&*disk) {
                        Ok(examined) => {
                            let path = &examined.damage[0].path;
                            assert!(path.ends_with(&files[file].0), "{examined:?}");
                        }
                        Err(error) => assert!(matches!(error, OpenError::Newer { .. })),
                    }
                    assert_eq!(contents(&disk), edited);
                }
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn a_segment_that_is_missing_is_named_the_oldest_too() {
    let (files, _) = written();
    for missing in 0..files.len() - 1 {
        let mut edited = files.clone();
        edited.remove(missing);
        let disk = disk_of(&edited);
        let error = MessageLog::open(disk.clone(), LIMITS).expect_err("is missing");
        assert!(error.to_string().contains(&files[missing].0), "{error}");
        assert!(error.to_string().contains("missing"), "{error}");
        let examined = examine(&*disk).expect("can be examined");
        assert_eq!(examined.damage[0].damage, Damage::Missing);
        assert_eq!(contents(&disk), edited);
    }
    let lost = SimulatedDisk::new(1);
    lost.put("spare-1.segment", &[0; 1024]);
    let error = MessageLog::open(Arc::new(lost), LIMITS).expect_err("all are missing");
    assert!(error.to_string().contains("missing"), "{error}");
}

#[test]
fn an_examination_counts_what_is_needed_and_what_is_not() {
    let (files, found) = written();
    let disk = disk_of(&files);
    let examined = examine(&*disk).expect("works");
    assert_eq!(examined.damage, []);
    assert_eq!((examined.messages, examined.definitions.len()), (38, 1));
    let counts: Vec<_> = examined
        .queues
        .iter()
        .map(|queue| (queue.messages, queue.bytes))
        .collect();
    assert_eq!(counts, [(19, 1900), (19, 1900)]);
    assert_eq!(examined.segments.len(), files.len());
    let (log, again) = MessageLog::open(disk, LIMITS).expect("opens");
    assert_eq!(again, found);
    let live: u64 = examined.segments.iter().map(|segment| segment.live).sum();
    assert_eq!(live, log.room().live);
    // Each message is in one of its queues at least: nothing but the acknowledgements is not needed.
    let dead: u64 = examined.segments.iter().map(|segment| segment.dead).sum();
    assert_eq!(dead, 2 * 48);
}

#[test]
fn a_newer_format_and_records_of_a_newer_program_are_refused() {
    let (mut files, _) = written();
    files[1].1[8] = 9;
    let error = MessageLog::open(disk_of(&files), LIMITS).expect_err("is newer");
    assert!(
        matches!(error, OpenError::Newer { found: 9, .. }),
        "{error}"
    );

    let error = refused(b"{\"an event\"}");
    assert!(error.to_string().contains("does not know"), "{error}");
}

/// What a log says that has this record alone.
fn refused(record: &[u8]) -> OpenError {
    let journal = Arc::new(SimulatedDisk::new(1));
    let limits = mainstay_journal::Limits {
        segment_len: 1024,
        segments_max: 2,
        bytes_max: u64::MAX,
        retired: mainstay_journal::Retired::Remove,
    };
    let mut other =
        mainstay_journal::Journal::open(journal.clone(), limits, |_| {}).expect("opens");
    let _unsynced = other.append(&[record]).expect("works");
    MessageLog::open(journal, LIMITS).expect_err("is something else")
}

#[test]
fn a_record_that_gives_up_its_own_segment_is_refused() {
    for through in [1, 2, u64::MAX] {
        let mut record = vec![6];
        record.extend_from_slice(&through.to_le_bytes());
        let error = refused(&record);
        assert!(error.to_string().contains("does not know"), "{error}");
    }
}

#[test]
fn a_directory_of_the_machine_is_opened_by_one_and_copied_while_it_is_written() {
    let dir = TempDir::new("messages");
    let open = || HostDisk::open(&dir.join("log")).expect("works");
    let disk = Arc::new(open().expect("is free"));
    let (mut log, _) = MessageLog::open(disk, LIMITS).expect("opens");
    assert!(open().is_none(), "there is an owner");
    for position in 1..=50 {
        let _unsynced = log.append(&[message(position)]).expect("works");
    }
    let snapshot = log.snapshot().expect("works");
    let reading = log.places().find(place(1, 7)).expect("is there");
    // Everything goes on, and nothing of what is copied is needed any more.
    for position in 1..=50 {
        let both = [
            Change::Forget(place(1, position)),
            Change::Forget(place(2, position)),
        ];
        let _unsynced = log.append(&both).expect("works");
    }
    for position in 51..=200 {
        let _unsynced = log.append(&[message(position)]).expect("works");
        let _durable = log.sync().expect("works");
        while log.tidy(4096).expect("works") == Tidied::More {}
    }
    assert!(log.places().find(place(1, 7)).is_none());
    assert_eq!(reading.read().expect("still reads"), vec![0xA5; 100]);
    let oldest = &snapshot.segments()[0].name;
    assert!(!dir.join("log").join(oldest).exists(), "its name is gone");

    let target = Arc::new(
        HostDisk::open(&dir.join("copy"))
            .expect("works")
            .expect("is free"),
    );
    let copied = snapshot.copy_to(&*target).expect("works");
    assert_eq!(copied.segments, snapshot.segments().len());
    let again = snapshot.copy_to(&*target).expect_err("there is one");
    assert!(matches!(again, CopyError::NotEmpty { .. }), "{again}");
    assert_eq!(examine(&*target).expect("works").messages, 100);
    let (mut copy, found) = MessageLog::open(target, LIMITS).expect("opens");
    assert_eq!(found.queues[0].messages.len(), 50);
    for queue in [1, 2] {
        let read = copy
            .places()
            .find(place(queue, 7))
            .expect("is there")
            .read();
        assert_eq!(read.expect("reads"), vec![0xA5; 100]);
    }
    let _unsynced = copy.append(&[message(51)]).expect("goes on");
    let _durable = copy.sync().expect("works");

    fs::write(dir.join("copy").join("unfinished.copy"), "").expect("works");
    drop(copy);
    let target = Arc::new(
        HostDisk::open(&dir.join("copy"))
            .expect("works")
            .expect("is free"),
    );
    let error = MessageLog::open(target, LIMITS).expect_err("is not whole");
    assert!(error.to_string().contains("not finished"), "{error}");
}
