use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use mainstay_journal::HostDisk;
use mainstay_journal::messages::{Body, MessageLimits, QueueKey, Ref};
use mainstay_testkit::{TempDir, wait_until};

use super::*;

const PATIENCE: Duration = Duration::from_mins(1);

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
    assert!(
        log.room().on_disk >= before,
        "an opening itself gives nothing back"
    );
    let writer = Writer::start(log, Seams::default()).expect("a thread");
    // The newest segment, three spares, and what is not worth it.
    let enough = 6 * LIMITS.segment_len;
    assert!(
        before > 2 * enough,
        "there is something to give back: {before}"
    );
    wait_until(PATIENCE, "the room is given back", || {
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
    let writer = Writer::start(log, Seams::default()).expect("a thread");
    let gauges = Arc::clone(&writer.gauges);
    drop(writer.orders);
    writer.thread.join().expect("it ends by itself");
    assert_eq!(gauges.on_disk.load(Ordering::Relaxed), before);
}

fn batch(number: u64, reports: &Arc<Reports>, haste: Haste, changes: Vec<Change>) -> Batch {
    let stored = |change: &Change| match change {
        Change::Message { refs, .. } => Some((QueueId(1), refs[0].position)),
        _ => None,
    };
    Batch {
        number,
        haste,
        classes: changes.iter().map(|_| Class::Ordered).collect(),
        through: changes.iter().filter_map(stored).collect(),
        changes,
        reports: Arc::clone(reports),
    }
}

fn order(writer: &Writer, batch: Batch) {
    let sent = writer.orders.blocking_send(Order::Write(batch));
    sent.expect("it writes");
}

fn wait_for(reports: &Reports, number: u64) {
    wait_until(PATIENCE, "a batch is on disk", || {
        let synced = reports.take().number;
        (synced >= number)
            .then_some(())
            .ok_or_else(|| format!("{synced} is"))
    });
}

fn syncs(writer: &Writer) -> u64 {
    writer.gauges.syncs.load(Ordering::Relaxed)
}

/// A writer that wrote a first batch, and has spares.
fn begun(dir: &TempDir) -> (Writer, Arc<Reports>) {
    let writer = Writer::start(open(dir.path()), Seams::default()).expect("a thread");
    let reports = Arc::<Reports>::default();
    order(&writer, batch(1, &reports, Haste::Now, vec![message(1)]));
    wait_for(&reports, 1);
    wait_until(PATIENCE, "the writer rests", || {
        let desk = writer.here.desk.try_lock().map_err(|_| "it is at work")?;
        let ready = desk.log.takes_at_once(32 * 1024);
        ready
            .then_some(())
            .ok_or_else(|| "it makes spares".to_owned())
    });
    (writer, reports)
}

fn set_disk(writer: &Writer, took: Duration) {
    let mut desk = writer.here.desk.lock().expect("whole");
    desk.pace = Pace::default();
    desk.pace.took(Instant::now(), took);
}

const FAST: Duration = Duration::from_micros(100);

#[test]
fn acknowledgements_alone_wait_for_a_sync_that_somebody_else_needs() {
    let dir = TempDir::new("writer-later");
    let (writer, reports) = begun(&dir);
    let before = syncs(&writer);
    let forget = vec![Change::Forget(place(1))];
    order(&writer, batch(2, &reports, Haste::Later, forget));
    wait_until(PATIENCE, "it is appended", || {
        let unsynced = writer.gauges.unsynced.load(Ordering::Relaxed);
        (unsynced == 1 || syncs(&writer) > before)
            .then_some(())
            .ok_or("it is not")?;
        Ok(())
    });
    assert_eq!(syncs(&writer), before, "nobody waits for it");
    assert_eq!(reports.take().number, 1);
    order(&writer, batch(3, &reports, Haste::Now, vec![message(2)]));
    wait_for(&reports, 3);
    assert_eq!(syncs(&writer), before + 1, "one sync for both");
    let forget = vec![Change::Forget(place(2))];
    order(&writer, batch(4, &reports, Haste::Later, forget));
    writer
        .orders
        .blocking_send(Order::Retry)
        .expect("it writes");
    wait_for(&reports, 4);
}

#[test]
fn a_virtual_host_writes_itself_what_is_small_and_next_on_a_fast_disk() {
    let dir = TempDir::new("writer-here");
    let (writer, reports) = begun(&dir);
    let next = |number, position| batch(number, &reports, Haste::Now, vec![message(position)]);
    set_disk(&writer, FAST);
    assert!(writer.here.write(next(3, 3)).is_some(), "2 is on its way");
    let many = (10..20).map(message).collect();
    let many = batch(2, &reports, Haste::Now, many);
    assert!(writer.here.write(many).is_some(), "it is long");
    let copied = Change::Message {
        refs: vec![place(9)],
        head: Bytes::new(),
        body: Body::Stored(place(1)),
    };
    let copied = batch(2, &reports, Haste::Now, vec![copied]);
    assert!(writer.here.write(copied).is_some(), "it must be read first");
    set_disk(&writer, Duration::from_millis(20));
    assert!(writer.here.write(next(2, 2)).is_some(), "the disk is slow");
    set_disk(&writer, FAST);
    {
        let _at_work = writer.here.desk.lock().expect("whole");
        assert!(
            writer.here.write(next(2, 2)).is_some(),
            "the writer is at work"
        );
    }
    let before = syncs(&writer);
    assert!(writer.here.write(next(2, 2)).is_none());
    let news = reports.take();
    assert_eq!((news.number, news.through.get(&QueueId(1))), (2, Some(&2)));
    assert_eq!(
        syncs(&writer),
        before + 1,
        "it was synced before that was said"
    );
    order(&writer, next(3, 3));
    wait_for(&reports, 3);
}

#[test]
fn who_writes_much_here_lets_the_writer_reclaim_room_now_and_then() {
    let dir = TempDir::new("writer-turns");
    let (writer, reports) = begun(&dir);
    set_disk(&writer, FAST);
    let mut desk = writer.here.desk.lock().expect("whole");
    desk.written_here = crate::limits::WRITTEN_HERE_MAX + 1;
    drop(desk);
    let left = writer
        .here
        .write(batch(2, &reports, Haste::Now, vec![message(2)]));
    order(&writer, left.expect("the writer's turn"));
    wait_for(&reports, 2);
    wait_until(PATIENCE, "it has tidied", || {
        let desk = writer.here.desk.try_lock().map_err(|_| "it is at work")?;
        (desk.written_here == 0)
            .then_some(())
            .ok_or_else(|| "not yet".to_owned())
    });
}
