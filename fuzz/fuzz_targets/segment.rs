//! A journal opens on any bytes, or refuses: no panic, no more records than bytes, and what it found
//! once it finds again, with what is appended then.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_journal::{Journal, Limits, OpenError, Retired, SimulatedDisk};
use std::sync::Arc;

const LIMITS: Limits = Limits {
    segment_len: 4096,
    segments_max: 3,
    bytes_max: 64 * 1024,
    retired: Retired::Recycle,
};

type Opened = Result<(Journal<SimulatedDisk>, Vec<Vec<u8>>), OpenError>;

fn open(disk: &Arc<SimulatedDisk>) -> Opened {
    let mut found = Vec::new();
    let journal = Journal::open(disk.clone(), LIMITS, |record| {
        found.push(record.body.to_vec())
    })?;
    Ok((journal, found))
}

// The first two bytes say where one segment ends and the next begins.
fuzz_target!(|bytes: &[u8]| {
    let Some((cut, bytes)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let cut = usize::from(u16::from_le_bytes(*cut)).min(bytes.len());
    let disk = Arc::new(SimulatedDisk::new(1));
    disk.put("0000000000000001.segment", &bytes[..cut]);
    if cut < bytes.len() {
        disk.put("0000000000000002.segment", &bytes[cut..]);
    }
    let Ok((mut journal, found)) = open(&disk) else {
        return;
    };
    assert!(found.len() <= bytes.len() / 24);
    let appended = journal.append(&["one more"]).expect("there is room");
    assert!(journal.sync().expect("works").covers(appended));
    drop(journal);
    let (_, again) = open(&disk).expect("opens again");
    let oldest = found.len() + 1 - again.len();
    assert_eq!(again[..again.len() - 1], found[oldest..]);
    assert_eq!(again.last().map(Vec::as_slice), Some(&b"one more"[..]));
});
