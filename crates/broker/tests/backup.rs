//! Copies of what is on disk while clients publish and acknowledge, against a ledger outside of the broker.
//!
//! `MIB=1024 cargo nextest run --release -p mainstay-broker --test backup goes_on --no-capture` measures what clients see of a large one.

mod alone;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use alone::{Alone, PATIENCE, on_runtime};
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation};
use mainstay_broker::view::{Answer, Ask, Deed, SOCKET};
use mainstay_broker::{copy_closed, count};
use mainstay_testkit::wait_until;
use rustix::process::Signal;

/// Consumed and acknowledged all the time.
const BUSY: &str = "busy";
/// Never consumed.
const IDLE: &str = "idle";
/// Bytes of a message in it.
const IDLE_LEN: usize = 64 * 1024;
/// Acknowledgements after which the consumer makes sure that the broker has them.
const SETTLE_EVERY: usize = 20;

fn mib() -> usize {
    let said = std::env::var("MIB").ok();
    said.and_then(|said| said.parse().ok()).unwrap_or(48)
}

async fn channel(broker: &Alone) -> Channel {
    let connection = broker.client().await;
    let channel = connection.create_channel().await.expect("a channel");
    let confirm = channel.confirm_select(ConfirmSelectOptions::default());
    confirm.await.expect("confirms");
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    for name in [BUSY, IDLE] {
        let declared = channel.queue_declare(name.into(), durable, FieldTable::default());
        declared.await.expect("a queue");
    }
    channel
}

async fn publish(channel: &Channel, queue: &str, body: &[u8]) {
    let persistent = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions::default();
    let sent = channel.basic_publish("".into(), queue.into(), options, body, persistent);
    let confirm = sent.await.expect("it is sent").await.expect("a word");
    assert!(matches!(confirm, Confirmation::Ack(_)), "{confirm:?}");
}

/// Fills the queue that nobody consumes.
async fn fill(channel: &Channel, mib: usize) {
    let body = vec![7; IDLE_LEN];
    let persistent = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions::default();
    let mut under_way = Vec::new();
    for _ in 0..mib * 1024 * 1024 / IDLE_LEN {
        let sent =
            channel.basic_publish("".into(), IDLE.into(), options, &body, persistent.clone());
        under_way.push(sent.await.expect("it is sent"));
        if under_way.len() >= 64 {
            for confirm in under_way.drain(..) {
                confirm.await.expect("a word");
            }
        }
    }
    for confirm in under_way {
        confirm.await.expect("a word");
    }
}

/// What is known of the busy queue outside of the broker.
#[derive(Debug, Default, Clone)]
struct Ledger {
    confirmed: BTreeSet<u64>,
    /// What was acknowledged, whether the broker has taken it or not.
    acknowledged: BTreeSet<u64>,
    /// What it has surely taken.
    settled: BTreeSet<u64>,
}

/// Publishes, one after the other; notes how long each took to be confirmed.
async fn publish_on(channel: &Channel, ledger: &RefCell<Ledger>, took: &RefCell<Vec<Duration>>) {
    for number in 1_u64.. {
        let since = Instant::now();
        publish(channel, BUSY, &number.to_be_bytes()).await;
        took.borrow_mut().push(since.elapsed());
        ledger.borrow_mut().confirmed.insert(number);
    }
}

/// Consumes, and acknowledges all but each tenth.
async fn consume_on(channel: &Channel, ledger: &RefCell<Ledger>) {
    let qos = || channel.basic_qos(0, BasicQosOptions::default());
    qos().await.expect("a prefetch");
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(BUSY.into(), "".into(), options, FieldTable::default());
    let mut consumer = consumer.await.expect("a consumer");
    let mut open = Vec::new();
    let mut pace = tokio::time::interval(Duration::from_millis(4));
    loop {
        pace.tick().await;
        let delivery = consumer.next().await.expect("goes on").expect("a delivery");
        let number = u64::from_be_bytes(delivery.data[..8].try_into().expect("eight bytes"));
        if number.is_multiple_of(10) {
            continue;
        }
        ledger.borrow_mut().acknowledged.insert(number);
        open.push(number);
        delivery
            .acker
            .ack(BasicAckOptions::default())
            .await
            .expect("it is sent");
        if open.len() >= SETTLE_EVERY {
            // Answered by the broker after all that came before on this channel.
            qos().await.expect("an answer");
            ledger.borrow_mut().settled.extend(open.drain(..));
        }
    }
}

/// Asks for a copy; the answer when it is there.
fn ask_for_copy(state: &Path, to: &Path) -> Answer {
    let stream = send_for_copy(state, to);
    let mut line = String::new();
    let read = BufReader::new(stream).read_line(&mut line);
    read.expect("it answers");
    serde_json::from_str(&line).expect("an answer")
}

fn send_for_copy(state: &Path, to: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(state.join(SOCKET)).expect("it listens");
    let mut line = serde_json::to_vec(&Ask::Backup { to: to.to_owned() }).expect("JSON");
    line.push(b'\n');
    stream.write_all(&line).expect("it reads");
    stream
}

fn refused(answer: Answer) -> String {
    match answer {
        Answer::Refused { why } => why,
        other => panic!("it is refused, not {other:?}"),
    }
}

/// A broker on a copy.
fn start_on(copy: &Path) -> Alone {
    let dir = mainstay_testkit::TempDir::new("broker-copy");
    let state = dir.join("state");
    fs::create_dir_all(state.join("broker")).expect("a directory");
    let status = fs::rename(copy, state.join("broker/log"));
    status.expect("the copy moves");
    Alone::start_in(dir, &state)
}

/// Takes all messages of a queue.
fn drain(broker: &Alone, queue: &str) -> Vec<u64> {
    let mut numbers = Vec::new();
    loop {
        let deed = Deed::Take {
            queue: queue.to_owned(),
            count: 1000,
        };
        let vhost = "/".to_owned();
        let Answer::Messages { messages } = broker.ask(&Ask::Vhost { vhost, deed }) else {
            panic!("messages");
        };
        if messages.is_empty() {
            return numbers;
        }
        numbers.extend(messages.iter().map(|message| {
            let bytes = match (&message.text, &message.base64) {
                (Some(text), _) => text.clone().into_bytes(),
                (None, Some(base64)) => base64_of(base64),
                (None, None) => panic!("a body"),
            };
            u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes"))
        }));
    }
}

fn base64_of(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    let decoded = base64::engine::general_purpose::STANDARD.decode(text);
    decoded.expect("base64")
}

fn p99(took: &mut [Duration]) -> Duration {
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

/// What a copy under load saw.
struct Seen {
    before: Ledger,
    after: Ledger,
    messages: u64,
}

/// Copies while one publishes and one consumes.
async fn copy_under_load(broker: &Alone, to: &Path) -> Seen {
    let publisher = channel(broker).await;
    let consumer = channel(broker).await;
    fill(&publisher, mib()).await;
    let ledger = RefCell::<Ledger>::default();
    let took = RefCell::<Vec<Duration>>::default();
    let (state, to) = (broker.state().to_owned(), to.to_owned());
    let course = async {
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        while took.borrow().len() < 300 || ledger.borrow().settled.len() < 2 * SETTLE_EVERY {
            looks.tick().await;
        }
        let quiet = p99(&mut took.take());
        let before: Ledger = ledger.borrow().clone();
        let began = Instant::now();
        let asked = tokio::task::spawn_blocking(move || ask_for_copy(&state, &to));
        let answer = asked.await.expect("it is asked");
        let Answer::Copied { segments, bytes } = answer else {
            panic!("a copy, not {answer:?}");
        };
        let after: Ledger = ledger.borrow().clone();
        let mut loaded = took.take();
        println!(
            "{bytes} bytes in {segments} segments took {:?}; confirms meanwhile: {}, p99 {:?}, longest {:?}; p99 before {quiet:?}",
            began.elapsed(),
            loaded.len(),
            p99(&mut loaded),
            loaded.last(),
        );
        // Far above what a busy machine needs, far below the time of the copy of a full disk.
        assert!(p99(&mut loaded) < Duration::from_secs(1));
        Seen {
            before,
            after,
            messages: 0,
        }
    };
    tokio::select! {
        () = publish_on(&publisher, &ledger, &took) => unreachable!("it goes on"),
        () = consume_on(&consumer, &ledger) => unreachable!("it goes on"),
        seen = course => seen,
    }
}

#[test]
fn system_a_copy_is_of_one_moment_and_who_publishes_goes_on() {
    let broker = Alone::start("broker-backup");
    let to = broker.dir.join("copy");
    let mut seen = on_runtime(copy_under_load(&broker, &to));
    let meanwhile = seen.after.confirmed.len() - seen.before.confirmed.len();
    assert!(meanwhile > 0, "nobody was held up for all of the time");
    assert!(
        !seen.before.settled.is_empty(),
        "the ledger can see what comes back"
    );
    let counts = count(&to).expect("it is whole");
    let idle = mib() * 1024 * 1024 / IDLE_LEN;
    seen.messages = counts.messages;
    assert_eq!((counts.vhosts, counts.users, counts.queues), (1, 1, 2));

    let restored = start_on(&to);
    let numbers = drain(&restored, BUSY);
    assert_eq!(seen.messages, (numbers.len() + idle) as u64);
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted, numbers, "each once, and in order");
    let restored: BTreeSet<u64> = numbers.into_iter().collect();
    let due: BTreeSet<u64> = seen
        .before
        .confirmed
        .difference(&seen.after.acknowledged)
        .copied()
        .collect();
    assert!(
        !due.is_empty(),
        "the consumer was slower than the publisher"
    );
    let lost: Vec<&u64> = due.difference(&restored).collect();
    assert_eq!(
        lost,
        Vec::<&u64>::new(),
        "confirmed before, not acknowledged, and not there"
    );
    let back: Vec<&u64> = seen.before.settled.intersection(&restored).collect();
    assert_eq!(
        back,
        Vec::<&u64>::new(),
        "acknowledged before, and there again"
    );
}

fn filled(name: &str) -> (Alone, PathBuf) {
    let broker = Alone::start(name);
    on_runtime(async { fill(&channel(&broker).await, 48).await });
    let to = broker.dir.join("copy");
    (broker, to)
}

#[test]
fn system_a_copy_that_nobody_waits_for_is_broken_off_and_leaves_nothing() {
    let (broker, to) = filled("broker-backup-gone");
    let caller = send_for_copy(broker.state(), &to);
    wait_until(PATIENCE, "the copy begins", || {
        to.exists().then_some(()).ok_or_else(|| broker.said())
    });
    // Another one waits for its turn.
    let (state, second) = (broker.state().to_owned(), broker.dir.join("second"));
    let waiting = std::thread::spawn(move || ask_for_copy(&state, &second));
    drop(caller);
    wait_until(PATIENCE, "what was copied is removed", || {
        (!to.exists()).then_some(()).ok_or_else(|| broker.said())
    });
    let second = waiting.join().expect("it is answered");
    assert!(matches!(second, Answer::Copied { .. }), "{second:?}");
    let answer = ask_for_copy(broker.state(), &to);
    assert!(matches!(answer, Answer::Copied { .. }), "{answer:?}");
    let again = refused(ask_for_copy(broker.state(), &to));
    assert!(again.contains("cannot make"), "{again}");
    assert!(count(&to).is_ok(), "what was there is there as it was");
}

#[test]
fn system_a_broker_that_is_killed_while_it_copies_leaves_a_copy_that_does_not_open() {
    let (mut broker, to) = filled("broker-backup-killed");
    let caller = send_for_copy(broker.state(), &to);
    wait_until(PATIENCE, "a file is copied", || {
        let files = to.read_dir().map_or(0, Iterator::count);
        if files > 1 {
            Ok(())
        } else {
            Err(broker.said())
        }
    });
    broker.process().signal(Signal::KILL);
    broker.process().wait(PATIENCE);
    drop(caller);
    let refused = count(&to).expect_err("it is half a copy");
    assert!(refused.to_string().contains("not finished"), "{refused}");
    // Where no broker runs it comes from the directory.
    let closed = broker.dir.join("closed");
    copy_closed(broker.state(), &closed).expect("nobody has it");
    let messages = 48 * 1024 * 1024 / IDLE_LEN as u64;
    assert_eq!(count(&closed).expect("it is whole").messages, messages);
    broker.start_again();
    broker.wait_until_it_serves();
    let in_use = copy_closed(broker.state(), &broker.dir.join("third"));
    let in_use = in_use.expect_err("a broker runs");
    assert!(in_use.to_string().contains("another broker"), "{in_use}");
}

#[test]
fn system_a_copy_for_which_there_is_no_room_is_refused_with_the_numbers() {
    let dir = mainstay_testkit::TempDir::new("broker-backup-room");
    let state = dir.join("state");
    let mut broker = Alone::start_in(dir, &state);
    broker.kill();
    broker.set("DISK_FREE_MIN", &(1_u64 << 60).to_string());
    broker.start_again();
    broker.wait_until_it_serves();
    let to = broker.dir.join("copy");
    let why = refused(ask_for_copy(broker.state(), &to));
    assert!(why.contains("no room for"), "{why}");
    assert!(why.contains("are to stay free"), "{why}");
    assert!(!to.exists());
    let relative = refused(ask_for_copy(broker.state(), Path::new("copy")));
    assert!(relative.contains("absolute"), "{relative}");
}
