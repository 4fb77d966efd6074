//! A log of messages opens on any records, or refuses: no panic, no more messages than bytes, and what it found
//! once it finds again, with what is appended then, after what is needed moved.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mainstay_journal::messages::{Change, Found, MessageLimits, MessageLog, Ref, Tidied, examine};
use mainstay_journal::{Journal, Limits, Retired, SimulatedDisk};
use std::sync::Arc;

const LIMITS: MessageLimits = MessageLimits {
    segment_len: 4096,
    bytes_max: 1024 * 1024,
};

/// Records with whatever bodies there are: each begins with its length.
fn write(disk: &Arc<SimulatedDisk>, mut bytes: &[u8]) {
    let limits = Limits {
        segment_len: 4096,
        segments_max: 1000,
        bytes_max: u64::MAX,
        retired: Retired::Remove,
    };
    let mut journal = Journal::open(disk.clone(), limits, |_| {}).expect("begins");
    while let Some((len, rest)) = bytes.split_first() {
        let len = usize::from(*len).min(rest.len());
        let _unsynced = journal.append(&[&rest[..len]]).expect("works");
        bytes = &rest[len..];
    }
    journal.sync().expect("works");
}

fuzz_target!(|bytes: &[u8]| {
    let disk = Arc::new(SimulatedDisk::new(1));
    write(&disk, bytes);
    let examined = examine(&*disk).expect("can be examined");
    let Ok((mut log, mut found)) = MessageLog::open(disk.clone(), LIMITS) else {
        return;
    };
    assert!(examined.damage.is_empty());
    let count = |found: &Found| -> usize {
        let queues = found.queues.iter();
        queues.map(|queue| queue.messages.len()).sum()
    };
    assert_eq!(examined.messages, count(&found) as u64);
    assert!(count(&found) <= bytes.len() / 20);
    // A body that is read is as long as it was said to be.
    for queue in &found.queues {
        for message in &queue.messages {
            let (queue, position) = (queue.key, message.position);
            let place = log.places().find(Ref { queue, position });
            let body = place.expect("has a place").read().expect("reads");
            assert_eq!(body.len(), message.body_len as usize);
        }
    }
    let key = Bytes::from_static(b"one more");
    let value = Bytes::from_static(b"definition");
    let _unsynced = log
        .append(&[Change::Put {
            key: key.clone(),
            value: value.clone(),
        }])
        .expect("there is room");
    log.sync().expect("works");
    for _ in 0..1000 {
        if log.tidy(4096).expect("works") == Tidied::Idle {
            break;
        }
    }
    log.sync().expect("works");
    drop(log);
    let (_, again) = MessageLog::open(disk, LIMITS).expect("opens again");
    found.definitions.retain(|(other, _)| *other != key);
    found.definitions.push((key, value));
    found.definitions.sort();
    assert_eq!(again, found);
});
