//! A disk that takes as long as the test wants, under a broker with real clients.

use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use mainstay_testkit::{TempDir, wait_until_async};
use tokio::net::TcpListener;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::alarm::Limits;
use crate::door::Door;
use crate::house::House;
use crate::opening::{Opened, open};
use crate::writer::Writer;

/// The longest time that anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// More than a virtual host keeps in memory of what is on disk.
const MESSAGES: u32 = 100;
const BODY_LEN: usize = 100 * 1024;

#[derive(Debug, Default)]
enum Pace {
    #[default]
    AsItIs,
    /// Nothing is in memory, and nothing comes; so many reads wait.
    Stuck { waiting: usize },
}

/// A disk that can be stopped.
#[derive(Debug, Clone, Default)]
pub(crate) struct SlowDisk(Arc<(Mutex<Pace>, Condvar)>);

impl SlowDisk {
    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_on(&self) -> bool {
        matches!(*self.pace(), Pace::Stuck { .. })
    }

    /// In the thread that reads.
    pub(crate) fn wait(&self) {
        let mut pace = self.pace();
        if let Pace::Stuck { waiting } = &mut *pace {
            *waiting += 1;
        }
        let stuck = |pace: &mut Pace| matches!(pace, Pace::Stuck { .. });
        drop(self.0.1.wait_while(pace, stuck));
    }

    fn set(&self, to: Pace) {
        *self.pace() = to;
        self.0.1.notify_all();
    }

    fn waiting(&self) -> usize {
        match *self.pace() {
            Pace::AsItIs => 0,
            Pace::Stuck { waiting } => waiting,
        }
    }
}

/// Reads go on whatever becomes of the test, or its threads would never end.
struct Unstick(SlowDisk);

impl Drop for Unstick {
    fn drop(&mut self) {
        self.0.set(Pace::AsItIs);
    }
}

struct Broker {
    house: Rc<House>,
    port: u16,
    _writer: Writer,
    _dir: TempDir,
}

impl Broker {
    async fn start(name: &str) -> Self {
        let dir = TempDir::new(name);
        let limits = Limits {
            memory_max: u64::MAX,
            disk_free_min: 0,
        };
        let state = dir.path().to_owned();
        let options = crate::Options {
            state,
            limits,
            tls: None,
            seams: crate::Seams::default(),
            clients: crate::ClientLimits {
                consumer_timeout: None,
                queues_max: None,
            },
            metrics: None,
        };
        let opened = open(&options).await;
        let Opened {
            house,
            doorman,
            writer,
            ..
        } = opened.expect("opens");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let door = Door::new(Rc::clone(&house), Rc::new(doorman), house.room);
        spawn_local(door.serve(listener, CancellationToken::new()));
        Self {
            house,
            port,
            _writer: writer,
            _dir: dir,
        }
    }

    async fn channel(&self) -> (Connection, Channel) {
        let uri = format!("amqp://127.0.0.1:{}/%2f", self.port);
        let client = Connection::connect(&uri, ConnectionProperties::default()).await;
        let client = client.expect("it serves");
        let channel = client.create_channel().await.expect("a channel");
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        confirms.await.expect("confirms are on");
        (client, channel)
    }
}

async fn declare(channel: &Channel, queue: &str) {
    let durable = QueueDeclareOptions::durable();
    let declared = channel.queue_declare(queue.into(), durable, FieldTable::default());
    declared.await.expect("declared");
}

async fn publish(channel: &Channel, queue: &str, body: &[u8]) {
    let persistent = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions::default();
    let published = channel.basic_publish("".into(), queue.into(), options, body, persistent);
    let confirmed = published.await.expect("published").await;
    assert!(confirmed.expect("a word").is_ack());
}

fn numbered(number: u32) -> Vec<u8> {
    let mut body = number.to_be_bytes().to_vec();
    body.resize(BODY_LEN, b'.');
    body
}

fn number_of(body: &[u8]) -> u32 {
    u32::from_be_bytes(*body.first_chunk().expect("a number"))
}

#[test]
fn a_body_on_a_slow_disk_holds_up_nobody_else() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let broker = Broker::start("broker-slow-disk").await;
        let slow = broker.house.reader.slow.clone();
        let _unstick = Unstick(slow.clone());
        let (_publishing, channel) = broker.channel().await;
        declare(&channel, "large").await;
        for number in 0..MESSAGES {
            publish(&channel, "large", &numbered(number)).await;
        }
        slow.set(Pace::Stuck { waiting: 0 });

        let (_consuming, consumer) = broker.channel().await;
        let options = BasicConsumeOptions::default();
        let consumer =
            consumer.basic_consume("large".into(), "c".into(), options, FieldTable::default());
        let mut consumer = consumer.await.expect("consumes");
        let (came, ()) = tokio::join!(
            async {
                let mut came = Vec::new();
                while came.len() < MESSAGES as usize {
                    let delivery = consumer.next().await.expect("goes on").expect("a delivery");
                    came.push(number_of(&delivery.data));
                    let ack = delivery.acker.ack(BasicAckOptions::default());
                    ack.await.expect("acknowledged");
                }
                came
            },
            async {
                wait_until_async(PATIENCE, "a read waits for the disk", async || {
                    (slow.waiting() > 0)
                        .then_some(())
                        .ok_or_else(|| "none".to_owned())
                })
                .await;
                let (_other, other) = broker.channel().await;
                let goes_on = async {
                    declare(&other, "small").await;
                    publish(&other, "small", b"not held up").await;
                    let got = other.basic_get("small".into(), BasicGetOptions::default());
                    got.await
                        .expect("answered")
                        .expect("it is there")
                        .data
                        .clone()
                };
                let got = timeout(PATIENCE, goes_on).await.expect("others go on");
                assert_eq!(got, b"not held up");
                assert_eq!(
                    slow.waiting(),
                    1,
                    "a connection waits for one body at a time"
                );
                slow.set(Pace::AsItIs);
            }
        );
        assert_eq!(came, (0..MESSAGES).collect::<Vec<u32>>(), "in order");
        let metrics = &broker.house.metrics;
        assert!(metrics.bodies_waited_for.get() >= 1, "{metrics:?}");
    });
}
