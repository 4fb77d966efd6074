//! A disk that fills, one whose writes and syncs fail, and one whose syncs are slow. `strace` stands between the broker
//! and the kernel: it makes calls fail that the kernel never sees, and writes down what leaves when.

mod alone;
mod ledger;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use alone::{Alone, PATIENCE, connect, on_runtime};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use ledger::{Marks, Traffic, names, oldest_segment};
use mainstay_testkit::{Ended, Spawned, TempDir, is_root, program, skip, wait_until};

/// So short that load goes through many.
const SEGMENTS: &str = "segments=65536";
/// What a sync is made to take. Long for a disk, so that no other pause is taken for it.
const SLOW: Duration = Duration::from_millis(800);
/// The head of a confirm without its channel: a frame of 13 bytes, `basic.ack`.
const CONFIRM: &str = r"\x00\x00\x00\x0d\x00\x3c\x00\x50";

/// `strace` on all threads of a broker, until that ends.
struct Tracer {
    process: Spawned,
    calls: PathBuf,
}

impl Tracer {
    /// Makes calls fail or slow, as `strace --inject` has it.
    fn attach(broker: &Alone, inject: &str) -> Self {
        let calls = broker.dir.join("calls");
        let mut command = Command::new(program("strace"));
        let pid = broker.process().pid().as_raw_nonzero().to_string();
        command.args(["-f", "-p", &pid, "-xx", "-s", "4096"]);
        command.args([
            "-e",
            "trace=fdatasync,fsync,pwrite64,write,sendto,sendmsg,writev",
        ]);
        command
            .args(["-e", &format!("inject={inject}"), "-o"])
            .arg(&calls);
        let process = Spawned::start(&broker.dir, "strace", &mut command);
        wait_until(PATIENCE, "strace is attached", || {
            let said = process.log();
            if said.contains("attached") {
                Ok(())
            } else {
                Err(said)
            }
        });
        Self { process, calls }
    }

    /// All lines, once the broker has ended.
    fn lines(&self) -> Vec<String> {
        self.process.wait(PATIENCE);
        let calls = std::fs::read_to_string(&self.calls).expect("what it saw");
        calls.lines().map(str::to_owned).collect()
    }
}

async fn enter(broker: &Alone) -> (Connection, Channel) {
    let client = connect(broker.address()).await.expect("it serves");
    let channel = client.create_channel().await.expect("a channel");
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare("work".into(), durable, FieldTable::default());
    declared.await.expect("declared");
    let confirms = ConfirmSelectOptions::default();
    channel.confirm_select(confirms).await.expect("confirms");
    (client, channel)
}

/// A persistent message, and its confirm.
async fn publish(channel: &Channel) -> lapin::Result<Confirmation> {
    let persistent = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions::default();
    let sent = channel.basic_publish("".into(), "work".into(), options, b"x", persistent);
    sent.await?.await
}

/// Waits until the log has its spares, so that each sync is that of a publish.
fn wait_prepared(broker: &Alone) {
    wait_until(PATIENCE, "the log has its spares", || {
        let names = names(broker);
        let spares = names.iter().filter(|name| name.starts_with("spare-"));
        if spares.count() >= 3 {
            Ok(())
        } else {
            Err(format!("{names:?}"))
        }
    });
}

/// The quickest of five confirms while each sync takes long.
fn quickest_confirm(seams: &str) -> Duration {
    let broker = Alone::start_with("broker-slow", &[("SEAMS", seams)]);
    let delay = format!("fdatasync:delay_exit={}", SLOW.as_micros());
    on_runtime(async {
        let (_client, channel) = enter(&broker).await;
        wait_prepared(&broker);
        let _tracer = Tracer::attach(&broker, &delay);
        let mut quickest = Duration::MAX;
        for _ in 0..5 {
            let since = Instant::now();
            publish(&channel).await.expect("confirmed");
            quickest = quickest.min(since.elapsed());
        }
        quickest
    })
}

#[test]
fn system_no_confirm_leaves_before_its_sync_returned() {
    let quickest = quickest_confirm("");
    assert!(quickest >= SLOW, "{quickest:?}");
}

#[test]
fn system_a_broker_that_does_not_sync_is_found_out() {
    let quickest = quickest_confirm("syncs=off");
    assert!(quickest < SLOW, "{quickest:?}");
}

#[test]
fn system_after_a_sync_that_failed_nothing_is_confirmed_and_the_process_says_why() {
    /// The publish whose sync fails, and only that: a second try would succeed.
    const FAILS: usize = 12;
    let mut broker = Alone::start("broker-sync-fails");
    let (confirmed, tracer) = on_runtime(async {
        let (_client, channel) = enter(&broker).await;
        wait_prepared(&broker);
        let inject = format!("fdatasync:error=EIO:when={FAILS}");
        let tracer = Tracer::attach(&broker, &inject);
        let mut confirmed = 0;
        while let Ok(Confirmation::Ack(_)) = publish(&channel).await {
            confirmed += 1;
            assert!(confirmed < 1000, "nothing failed");
        }
        (confirmed, tracer)
    });
    // A sync for each, on one of two threads, whose calls are counted apart.
    assert!((FAILS - 1..2 * FAILS).contains(&confirmed), "{confirmed}");
    assert_eq!(broker.process().wait(PATIENCE), Ended::Code(1));
    says_why(&broker, "sync");
    let calls = tracer.lines();
    let failed = calls.iter().position(|call| call.contains("INJECTED"));
    let (before, after) = calls.split_at(failed.expect("a sync failed"));
    let confirms = |calls: &[String]| calls.iter().filter(|call| call.contains(CONFIRM)).count();
    assert_eq!((confirms(before), confirms(after)), (confirmed, 0));
    broker.start_again();
    broker.wait_until_it_serves();
    let waits = on_runtime(async {
        let (_client, channel) = enter(&broker).await;
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = channel.queue_declare("work".into(), passive, FieldTable::default());
        usize::try_from(queue.await.expect("it is there").message_count()).expect("few")
    });
    // What was under way may be there: nobody was told.
    assert!(
        [confirmed, confirmed + 1].contains(&waits),
        "{waits} of {confirmed}"
    );
}

/// What an operator reads: what was attempted, on which file, and the system's reason.
fn says_why(broker: &Alone, step: &str) {
    let said = broker.said();
    for wanted in [
        "nothing more is confirmed",
        step,
        "broker/log",
        "Input/output error",
    ] {
        assert!(said.contains(wanted), "`{wanted}` is missing: {said}");
    }
}

/// Load, a disk that fails at some moment, and the next life on one that does not.
fn survives(inject: &str, step: &str) {
    let mut broker = Alone::start_with("broker-fails", &[("SEAMS", SEGMENTS)]);
    let traffic = Traffic::start(&broker, Marks::Made);
    traffic.shared.wait_confirmed(&broker, 200);
    let tracer = Tracer::attach(&broker, inject);
    assert_eq!(broker.process().wait(PATIENCE), Ended::Code(1), "{inject}");
    says_why(&broker, step);
    assert!(tracer.lines().iter().any(|call| call.contains("INJECTED")));
    broker.start_again();
    traffic.shared.wait_confirmed(&broker, 200);
    let (sum, wrong) = traffic.conclude(&broker);
    println!("{inject}: {sum:?}");
    assert!(wrong.is_empty(), "{inject}: {wrong:?}");
}

#[test]
fn system_a_sync_that_fails_under_load_costs_nothing_that_was_confirmed() {
    survives("fdatasync:error=EIO:when=40", "cannot sync");
}

#[test]
fn system_a_write_that_fails_under_load_costs_nothing_that_was_confirmed() {
    survives("pwrite64:error=EIO:when=60", "cannot write");
}

#[test]
fn system_a_directory_that_cannot_be_synced_costs_nothing_that_was_confirmed() {
    survives("fsync:error=EIO:when=3", "cannot sync");
}

/// A file system of its own, gone with the test.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path, size: &str) -> Self {
        std::fs::create_dir(at).expect("a directory");
        let mount = Command::new(program("mount"))
            .args(["-t", "tmpfs", "-o", size, "none"])
            .arg(at)
            .status();
        assert!(mount.is_ok_and(|status| status.success()), "it is mounted");
        Self(at.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let mut umount = Command::new(program("umount"));
        umount.arg("-l").arg(&self.0).status().ok();
    }
}

fn wait_alarm(broker: &Alone, wanted: bool) {
    wait_until(PATIENCE, "the alarm changes", || {
        let status = broker.status();
        if status.alarm.is_some() == wanted {
            Ok(())
        } else {
            Err(format!("{status:?}"))
        }
    });
}

#[test]
fn system_deaths_on_a_full_disk_and_while_it_drains_cost_nothing_that_was_confirmed() {
    if !is_root() {
        skip("a small file system is mounted by root alone");
        return;
    }
    let place = TempDir::new("broker-full-disk");
    let disk = Small::mount(&place.join("disk"), "size=16m");
    let dir = TempDir::new("broker-full-kill");
    // So that the log itself meets the end of the disk.
    let environment = [("SEAMS", SEGMENTS), ("DISK_FREE_MIN", "0")];
    let mut broker = Alone::start_in_with(dir, &disk.0, &environment);
    let traffic = Traffic::start(&broker, Marks::None);
    let shared = traffic.shared.clone();
    for round in 0..3 {
        shared.set_lazy(true);
        wait_alarm(&broker, true);
        for _ in 0..3 {
            broker.kill();
            broker.start_again();
            broker.wait_until_it_serves();
            wait_alarm(&broker, true);
        }
        // In the last round it drains without a death.
        shared.set_lazy(false);
        if round < 2 {
            shared.wait_taken(&broker, 200);
            broker.kill();
            broker.start_again();
            broker.wait_until_it_serves();
        }
        wait_alarm(&broker, false);
        shared.wait_confirmed(&broker, 200);
    }
    let recycled = oldest_segment(&broker) - 1;
    let (sum, wrong) = traffic.conclude(&broker);
    println!("{sum:?}, {recycled} segments were given back");
    assert!(wrong.is_empty(), "{wrong:?}");
}
