//! Segments that were cut, edited, mixed up or taken away.

use std::sync::Arc;

use mainstay_journal::{
    Disk as _, HEADER_LEN, Journal, Limits, OpenError, ReadError, RecordNumber, Retired,
    SimulatedDisk,
};

const LIMITS: Limits = Limits {
    segment_len: 512,
    segments_max: 10,
    bytes_max: u64::MAX,
    retired: Retired::Remove,
};

type Records = Vec<(u64, Vec<u8>)>;
type Files = Vec<(String, Vec<u8>)>;

fn open(disk: &Arc<SimulatedDisk>) -> Result<(Journal<SimulatedDisk>, Records), OpenError> {
    let mut found = Vec::new();
    let journal = Journal::open(disk.clone(), LIMITS, |record| {
        found.push((record.number.0, record.body.to_vec()));
    })?;
    Ok((journal, found))
}

/// Three segments; each record is a batch of its own, and synced.
fn written() -> (Files, Records) {
    let disk = Arc::new(SimulatedDisk::new(1));
    let (mut journal, _) = open(&disk).expect("works");
    for number in 0..20_u8 {
        let body = vec![number; usize::from(number) * 3];
        let appended = journal.append(&[body]).expect("works");
        assert!(journal.sync().expect("works").covers(appended));
    }
    drop(journal);
    let records = open(&disk).expect("works").1;
    let files: Files = disk
        .list()
        .expect("works")
        .into_iter()
        .map(|name| {
            (
                name.clone(),
                disk.read(&name).expect("works").expect("is there"),
            )
        })
        .collect();
    assert!(files.len() >= 3 && records.len() == 20);
    (files, records)
}

fn disk_of(files: &Files) -> Arc<SimulatedDisk> {
    let disk = SimulatedDisk::new(2);
    for (name, bytes) in files {
        disk.put(name, bytes);
    }
    Arc::new(disk)
}

/// What an opening makes of `files`. An error must name the file and leave everything as it is.
fn outcome(files: &Files, edited: &str) -> Option<Records> {
    let disk = disk_of(files);
    match open(&disk) {
        Ok((_, found)) => Some(found),
        Err(error) => {
            let message = error.to_string();
            assert!(
                message.contains(&format!("/simulated/{edited}")),
                "{message}"
            );
            for (name, bytes) in files {
                assert_eq!(
                    disk.read(name).expect("works").as_ref(),
                    Some(bytes),
                    "{message}"
                );
            }
            None
        }
    }
}

#[test]
fn every_edited_byte_is_an_error_that_names_the_file_or_costs_the_last_batch_alone() {
    let (files, records) = written();
    let newest = files.len() - 1;
    let mut errors = 0;
    for file in 0..files.len() {
        for at in 0..files[file].1.len() {
            let mut edited = files.clone();
            edited[file].1[at] ^= 1 << (at % 8);
            match outcome(&edited, &files[file].0) {
                None => errors += 1,
                Some(found) if found == records => {
                    // Behind the last record: nothing is there to be damaged.
                    let rest = &files[file].1[at..];
                    assert!(rest.iter().all(|byte| *byte == 0), "{file} {at}");
                }
                Some(found) => {
                    // As if the power had failed during the last sync.
                    assert_eq!(file, newest, "{at}");
                    assert_eq!(found, records[..records.len() - 1], "{at}");
                }
            }
        }
    }
    assert!(errors > 1000, "only {errors}");
}

#[test]
fn every_cut_is_an_error_or_in_the_newest_segment_the_end() {
    let (files, records) = written();
    let newest = files.len() - 1;
    for file in 0..files.len() {
        for len in 0..files[file].1.len() {
            let mut edited = files.clone();
            edited[file].1.truncate(len);
            match outcome(&edited, &files[file].0) {
                None => assert!(file < newest || (len as u64) < HEADER_LEN, "{file} {len}"),
                Some(found) if file < newest => {
                    assert_eq!(found, records);
                    assert!(files[file].1[len..].iter().all(|byte| *byte == 0));
                }
                Some(found) => assert_eq!(found, records[..found.len()]),
            }
        }
    }
}

#[test]
fn a_journal_whose_end_was_cut_off_goes_on_behind_what_is_whole() {
    let (mut files, records) = written();
    let newest = files.len() - 1;
    let end = files[newest]
        .1
        .iter()
        .rposition(|byte| *byte != 0)
        .expect("works");
    files[newest].1[end] ^= 1;
    let disk = disk_of(&files);
    let (mut journal, _) = open(&disk).expect("works");
    let appended = journal.append(&["new"]).expect("works");
    assert_eq!(appended.first, RecordNumber(20));
    assert!(journal.sync().expect("works").covers(appended));
    let (_, found) = open(&disk).expect("works");
    assert_eq!(found[..19], records[..19]);
    assert_eq!(found[19..], [(20, b"new".to_vec())]);
}

#[test]
fn a_missing_or_exchanged_segment_is_named() {
    let (files, _) = written();
    let mut missing = files.clone();
    missing.remove(1);
    assert_eq!(outcome(&missing, &files[1].0), None);
    let mut exchanged = files.clone();
    exchanged[1].1 = files[0].1.clone();
    assert_eq!(outcome(&exchanged, &files[1].0), None);
    let mut foreign = files.clone();
    foreign[2].1 = b"something else of somebody".repeat(10);
    assert_eq!(outcome(&foreign, &files[2].0), None);
}

#[test]
fn a_newer_format_is_refused_with_the_file_and_both_versions() {
    let (mut files, _) = written();
    files[2].1[8] = 9;
    let message = open(&disk_of(&files)).expect_err("is newer").to_string();
    for part in [&*files[2].0, "format 9", "format 1", "newer program"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn what_an_earlier_life_left_in_a_recycled_segment_is_never_read_as_new() {
    let recycling = Limits {
        segments_max: 2,
        retired: Retired::Recycle,
        ..LIMITS
    };
    let disk = Arc::new(SimulatedDisk::new(1));
    let mut journal = Journal::open(disk.clone(), recycling, |_| {}).expect("works");
    // All of one length, so that each old record ends where a new one could begin.
    for number in 1..=200_u64 {
        let _unsynced = journal.append(&[number.to_le_bytes()]).expect("works");
        let mut found = Vec::new();
        let visit = |record: mainstay_journal::Record<'_>| found.push(record.number.0);
        let copy = Arc::new(SimulatedDisk::new(3));
        for name in disk.list().expect("works") {
            copy.put(&name, &disk.read(&name).expect("works").expect("is there"));
        }
        let again = Journal::open(copy, recycling, visit).expect("works");
        assert_eq!(again.next(), RecordNumber(number + 1));
        let first = again.outline().first().0;
        assert_eq!(found, (first..=number).collect::<Vec<_>>());
    }
    assert!(journal.outline().first().0 > 150, "many were recycled");
}

#[test]
fn damage_under_a_reader_is_named_and_a_segment_given_up_under_it_is_told() {
    let (files, records) = written();
    let disk = disk_of(&files);
    let (journal, _) = open(&disk).expect("works");
    let mut reader = journal.outline().reader(RecordNumber(1));
    assert_eq!(
        reader.next().expect("works").expect("is there").body,
        records[0].1
    );
    let mut edited = files[1].1.clone();
    edited[60] ^= 1;
    disk.put(&files[1].0, &edited);
    let error = loop {
        match reader.next() {
            Ok(record) => assert!(record.is_some()),
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, ReadError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains(&files[1].0), "{error}");

    disk.remove(&files[1].0).expect("works");
    let mut reader = journal.outline().reader(RecordNumber(1));
    let error = loop {
        match reader.next() {
            Ok(record) => assert!(record.is_some()),
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, ReadError::Forgotten { .. }), "{error}");
}
