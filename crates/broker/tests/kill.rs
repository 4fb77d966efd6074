//! SIGKILL at random moments under load, and a ledger outside of the broker: what was confirmed is there, what was
//! acknowledged does not come back, and each queue keeps its order.
//!
//! `SEED=17 ROUNDS=100 cargo nextest run -p mainstay-broker --test kill`

mod alone;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use alone::{Alone, PATIENCE, connect};
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use mainstay_testkit::kills::pause;
use mainstay_testkit::wait_until;

/// Queues, each with a publisher and a consumer.
const QUEUES: [&str; 3] = ["one", "two", "three"];
/// Publishes under way.
const WINDOW: usize = 64;
/// Deliveries after which a consumer makes sure that its acknowledgements are kept.
const MARK_EVERY: usize = 16;
/// Where those publishes go.
const MARKS: &str = "marks";
/// Large enough that a run goes through several segments.
const BODY_LEN: usize = 6 * 1024;

/// What is known of one queue outside of the broker.
#[derive(Debug, Default)]
struct Ledger {
    published: u64,
    confirmed: BTreeSet<u64>,
    delivered: BTreeSet<u64>,
    /// Acknowledged, and a later publish of the same channel was confirmed.
    settled: BTreeSet<u64>,
    wrong: Vec<String>,
}

#[derive(Debug, Clone, Default)]
struct Shared {
    ledgers: Arc<[Mutex<Ledger>; 3]>,
    stop_publishing: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Shared {
    fn of(&self, queue: usize) -> MutexGuard<'_, Ledger> {
        self.ledgers[queue].lock().expect("nobody panics with it")
    }

    fn confirmed(&self) -> usize {
        (0..QUEUES.len())
            .map(|queue| self.of(queue).confirmed.len())
            .sum()
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn body(number: u64) -> Vec<u8> {
    let mut body = number.to_be_bytes().to_vec();
    // Some are small and stay in the frame's copy, some are not.
    body.resize(
        if number.is_multiple_of(3) {
            8
        } else {
            BODY_LEN
        },
        b'.',
    );
    body
}

/// A connection with a channel in confirm mode and its queue.
async fn enter(address: SocketAddr, queue: &str) -> lapin::Result<(Connection, Channel)> {
    let connection = connect(address).await?;
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    for name in [queue, MARKS] {
        channel
            .queue_declare(name.into(), durable, FieldTable::default())
            .await?;
    }
    Ok((connection, channel))
}

async fn send(
    channel: &Channel,
    queue: &str,
    body: &[u8],
) -> lapin::Result<impl Future<Output = lapin::Result<Confirmation>> + use<>> {
    let options = BasicPublishOptions::default();
    let persistent = BasicProperties::default().with_delivery_mode(2);
    channel
        .basic_publish("".into(), queue.into(), options, body, persistent)
        .await
}

/// Publishes until it is stopped or cut off. What has no word when it is cut off is unknown, and not said again.
async fn publish(address: SocketAddr, shared: &Shared, queue: usize) -> lapin::Result<()> {
    let (_connection, channel) = enter(address, QUEUES[queue]).await?;
    let mut under_way = VecDeque::new();
    while !shared.stop_publishing.load(Ordering::Relaxed) {
        let number = {
            let mut ledger = shared.of(queue);
            ledger.published += 1;
            ledger.published
        };
        under_way.push_back((number, send(&channel, QUEUES[queue], &body(number)).await?));
        if under_way.len() >= WINDOW
            && let Some((number, confirm)) = under_way.pop_front()
            && let Confirmation::Ack(_) = confirm.await?
        {
            shared.of(queue).confirmed.insert(number);
        }
    }
    for (number, confirm) in under_way {
        if let Confirmation::Ack(_) = confirm.await? {
            shared.of(queue).confirmed.insert(number);
        }
    }
    Ok(())
}

async fn consume(address: SocketAddr, shared: &Shared, queue: usize) -> lapin::Result<()> {
    let (_connection, channel) = enter(address, QUEUES[queue]).await?;
    channel.basic_qos(100, BasicQosOptions::default()).await?;
    let (name, options) = (QUEUES[queue], BasicConsumeOptions::default());
    let consumer = channel.basic_consume(name.into(), "".into(), options, FieldTable::default());
    let mut consumer = consumer.await?;
    let mut last = 0;
    let mut acknowledged = Vec::new();
    while !shared.is_stopped() {
        let next = tokio::time::timeout(Duration::from_millis(100), consumer.next()).await;
        let Ok(next) = next else {
            continue;
        };
        let Some(delivery) = next else {
            return Ok(());
        };
        let delivery = delivery?;
        let number = delivery
            .data
            .first_chunk::<8>()
            .map(|bytes| u64::from_be_bytes(*bytes));
        let number = number.expect("our own body");
        take(
            &mut shared.of(queue),
            number,
            last,
            delivery.redelivered,
            &delivery.data,
        );
        last = number;
        delivery.acker.ack(BasicAckOptions::default()).await?;
        acknowledged.push(number);
        if acknowledged.len() >= MARK_EVERY
            && let Confirmation::Ack(_) = send(&channel, MARKS, b"").await?.await?
        {
            shared.of(queue).settled.extend(acknowledged.drain(..));
        }
    }
    Ok(())
}

/// Judges a delivery; `last` is the one before it on the same channel.
fn take(ledger: &mut Ledger, number: u64, last: u64, redelivered: bool, data: &[u8]) {
    if data != body(number) {
        ledger
            .wrong
            .push(format!("{number} came with another body"));
    }
    if number <= last {
        ledger.wrong.push(format!("{number} came after {last}"));
    }
    if ledger.settled.contains(&number) {
        ledger.wrong.push(format!(
            "{number} was acknowledged for good, and came again"
        ));
    }
    if !ledger.delivered.insert(number) && !redelivered {
        ledger
            .wrong
            .push(format!("{number} came again as if for the first time"));
    }
}

/// Again and again, in a thread of its own: a broker that is killed cuts it off.
fn keep_on(
    shared: Shared,
    work: impl AsyncFn(&Shared) -> lapin::Result<()> + Send + 'static,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        alone::on_runtime(async {
            let mut tries = tokio::time::interval(Duration::from_millis(5));
            while !shared.is_stopped() && work(&shared).await.is_err() {
                tries.tick().await;
            }
        });
    })
}

fn number_of(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// One round: some work, a death, a new life; in each third one more death in the middle of the recovery.
fn round(broker: &mut Alone, shared: &Shared, random: &mut fastrand::Rng) -> Duration {
    let more = shared.confirmed() + random.usize(20..400);
    wait_until(PATIENCE, "more is confirmed", || {
        let confirmed = shared.confirmed();
        if confirmed >= more {
            Ok(())
        } else {
            Err(format!("{confirmed} of {more}: {}", broker.said()))
        }
    });
    pause(Duration::from_micros(random.u64(0..20_000)));
    broker.kill();
    broker.start_again();
    if random.u8(0..3) == 0 {
        // A start takes some 30 ms.
        pause(Duration::from_micros(random.u64(0..60_000)));
        broker.kill();
        broker.start_again();
    }
    let (since, confirmed) = (Instant::now(), shared.confirmed());
    wait_until(PATIENCE, "something is confirmed again", || {
        if shared.confirmed() > confirmed {
            Ok(())
        } else {
            Err(broker.said())
        }
    });
    since.elapsed()
}

#[test]
fn system_what_was_confirmed_survives_sigkill_and_what_was_acknowledged_does_not_come_back() {
    let seed = number_of("SEED", fastrand::u64(..));
    let rounds = number_of("ROUNDS", 10);
    println!("SEED={seed} ROUNDS={rounds}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut broker = Alone::start("broker-kill");
    let address = broker.address();
    let shared = Shared::default();
    let mut publishers = Vec::new();
    let mut consumers = Vec::new();
    for queue in 0..QUEUES.len() {
        publishers.push(keep_on(shared.clone(), async move |shared| {
            publish(address, shared, queue).await
        }));
        consumers.push(keep_on(shared.clone(), async move |shared| {
            consume(address, shared, queue).await
        }));
    }
    let mut slowest = Duration::ZERO;
    for number in 0..rounds {
        slowest = slowest.max(round(&mut broker, &shared, &mut random));
        for queue in 0..QUEUES.len() {
            let wrong = shared.of(queue).wrong.clone();
            assert_eq!(wrong, Vec::<String>::new(), "SEED={seed}, round {number}");
        }
    }
    shared.stop_publishing.store(true, Ordering::Relaxed);
    for publisher in publishers {
        publisher.join().expect("a publisher ends");
    }
    wait_until(PATIENCE, "all that was confirmed is delivered", || {
        let lost: Vec<usize> = (0..QUEUES.len())
            .map(|queue| {
                let ledger = shared.of(queue);
                ledger.confirmed.difference(&ledger.delivered).count()
            })
            .collect();
        if lost.iter().all(|lost| *lost == 0) {
            Ok(())
        } else {
            Err(format!("SEED={seed}: {lost:?} are missing"))
        }
    });
    shared.stop.store(true, Ordering::Relaxed);
    for consumer in consumers {
        consumer.join().expect("a consumer ends");
    }
    let (mut confirmed, mut settled) = (0, 0);
    for queue in 0..QUEUES.len() {
        let ledger = shared.of(queue);
        assert_eq!(ledger.wrong, Vec::<String>::new(), "SEED={seed}");
        confirmed += ledger.confirmed.len();
        settled += ledger.settled.len();
    }
    println!("{confirmed} confirmed, {settled} acknowledged for good; slowest return {slowest:?}");
    assert!(settled > 0, "the test saw acknowledgements that count");
}
