//! How much a journal takes, and what is told when there is no more room.

use std::sync::Arc;

use mainstay_journal::simulated::Fault;
use mainstay_journal::{
    AppendError, Disk as _, HostDisk, Journal, Limits, OpenError, RecordNumber, Retired,
    SimulatedDisk,
};
use mainstay_testkit::TempDir;

const LIMITS: Limits = Limits {
    segment_len: 4096,
    segments_max: 4,
    bytes_max: u64::MAX,
    retired: Retired::Recycle,
};

fn open(disk: &Arc<SimulatedDisk>, limits: Limits) -> Journal<SimulatedDisk> {
    Journal::open(disk.clone(), limits, |_| {}).expect("works")
}

fn fill(journal: &mut Journal<SimulatedDisk>, records: u64) {
    for _ in 0..records {
        let appended = journal.append(&[[7; 100]]).expect("works");
        assert!(journal.sync().expect("works").covers(appended));
    }
}

fn bytes_on(disk: &SimulatedDisk) -> u64 {
    let names = disk.list().expect("works").into_iter();
    names
        .map(|name| {
            disk.len(&disk.open(&name).expect("works").expect("is there"))
                .expect("works")
        })
        .sum()
}

#[test]
fn the_oldest_segments_are_given_up_by_number_and_by_bytes() {
    for retired in [Retired::Recycle, Retired::Remove] {
        let limits = Limits { retired, ..LIMITS };
        let by_bytes = Limits {
            segments_max: 100,
            bytes_max: 4 * 4096,
            ..limits
        };
        for limits in [limits, by_bytes] {
            let disk = Arc::new(SimulatedDisk::new(1));
            let mut journal = open(&disk, limits);
            for _ in 0..50 {
                fill(&mut journal, 10);
                assert!(bytes_on(&disk) <= 4 * 4096, "{limits:?}");
            }
            let outline = journal.outline();
            assert_eq!(outline.beginnings().count(), 4);
            assert_eq!(outline.next(), RecordNumber(501));
            let kept = outline.next().0 - outline.first().0;
            assert!((90..=130).contains(&kept), "{kept}");
        }
    }
}

#[test]
fn a_reader_begins_at_any_record_and_at_the_oldest_when_that_one_is_gone() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let mut journal = open(&disk, LIMITS);
    for number in 1..=300_u64 {
        let _unsynced = journal
            .append(&[number.to_string().repeat(30)])
            .expect("works");
    }
    let outline = journal.outline();
    let first = outline.first().0;
    assert!(first > 1);
    for from in [0, 1, first, first + 1, 200, 299, 300, 301, 999] {
        let mut reader = outline.reader(RecordNumber(from));
        let mut expected = from.max(first);
        while let Some(record) = reader.next().expect("works") {
            assert_eq!(record.number, RecordNumber(expected));
            assert_eq!(record.body, expected.to_string().repeat(30).as_bytes());
            expected += 1;
        }
        assert_eq!(expected, from.max(first).max(301));
    }
}

#[test]
fn segments_that_nobody_needs_any_more_are_released_and_the_newest_stays() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let mut journal = open(&disk, LIMITS);
    fill(&mut journal, 80);
    let second = journal.outline().beginnings().nth(1).expect("works");
    let first = journal.outline().first();
    journal.release(RecordNumber(second.0 - 1)).expect("works");
    assert_eq!(
        journal.outline().first(),
        first,
        "its last record is needed"
    );
    journal.release(second).expect("works");
    assert_eq!(journal.outline().first(), second);
    journal.release(RecordNumber(u64::MAX)).expect("works");
    assert_eq!(journal.outline().beginnings().count(), 1);
    fill(&mut journal, 80);
    assert_eq!(open(&disk, LIMITS).next(), RecordNumber(161));
}

#[test]
fn a_full_disk_is_told_and_later_appends_go_on_where_the_journal_was() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let mut journal = open(&disk, LIMITS);
    fill(&mut journal, 5);
    for full in 1..30 {
        disk.plan([Fault::FullFrom(disk.steps(), usize::MAX)]);
        let error = journal.append(&[[1; 900]]).expect_err("no room");
        assert!(matches!(&error, AppendError::Disk { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains("/simulated/"), "{message}");
        assert_eq!(journal.next(), RecordNumber(5 + full));
        disk.plan([]);
        fill(&mut journal, 1);
        assert_eq!(open(&Arc::new(disk.crash()), LIMITS).next().0, 6 + full);
    }
}

#[test]
fn at_the_limit_a_recycled_segment_needs_no_new_room() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let mut journal = open(&disk, LIMITS);
    fill(&mut journal, 200);
    let before = disk.list().expect("works").len();
    fill(&mut journal, 200);
    assert_eq!(disk.list().expect("works").len(), before);
}

#[test]
fn a_batch_that_fits_into_no_segment_is_refused_whole() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let mut journal = open(&disk, LIMITS);
    let error = journal
        .append(&[[0; 3000], [0; 3000]])
        .expect_err("too long");
    assert!(matches!(error, AppendError::TooLong { .. }), "{error}");
    assert_eq!(journal.next(), RecordNumber(1));
    let longest = vec![0; 4096 - 40 - 24];
    let appended = journal.append(&[longest]).expect("works");
    assert!(journal.sync().expect("works").covers(appended));
    assert_eq!(
        journal
            .append(&[[0; 0]; 0])
            .map(|appended| appended.last.0)
            .ok(),
        Some(1)
    );
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    for limits in [
        Limits {
            segment_len: 100,
            ..LIMITS
        },
        Limits {
            segments_max: 1,
            ..LIMITS
        },
    ] {
        let opened = Journal::open(Arc::new(SimulatedDisk::new(1)), limits, |_| {});
        assert!(matches!(opened, Err(OpenError::Limits)));
    }
}

#[test]
fn on_the_machines_disk_it_comes_back_after_the_process_and_its_room_is_reserved() {
    let dir = TempDir::new("journal");
    let path = dir.join("log");
    for life in 0..3_u64 {
        let disk = Arc::new(HostDisk::open(&path).expect("works").expect("is free"));
        let mut found = 0;
        let mut journal = Journal::open(disk, LIMITS, |_| found += 1).expect("works");
        assert_eq!(found, life * 10);
        for _ in 0..10 {
            let _unsynced = journal.append(&["a record"]).expect("works");
        }
        let synced = journal.sync().expect("works");
        assert_eq!(synced.up_to(), RecordNumber(life * 10 + 10));
    }
    let file = std::fs::metadata(path.join("0000000000000001.segment")).expect("works");
    assert_eq!(file.len(), 4096);
}
