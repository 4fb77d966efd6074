//! A client of somebody else's over the wire, and what a start, a stop and a second broker do.

mod alone;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use alone::{Alone, PATIENCE, on_runtime};
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use mainstay_broker::view::{Answer, Ask, Deed};
use mainstay_testkit::{Ended, TempDir, is_root, program, skip, wait_until, wait_until_async};
use rustix::fs::{Advice, fadvise};
use rustix::process::Signal;

async fn declare(channel: &Channel, queue: &str) {
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare(queue.into(), durable, FieldTable::default());
    declared.await.expect("declared");
    let confirms = channel.confirm_select(ConfirmSelectOptions::default());
    confirms.await.expect("confirms are on");
}

/// Publishes a persistent message and gives its confirm.
async fn publish(channel: &Channel, queue: &str, body: &[u8]) -> lapin::Result<Confirmation> {
    let persistent = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions::default();
    let published = channel.basic_publish("".into(), queue.into(), options, body, persistent);
    published.await?.await
}

async fn get(channel: &Channel, queue: &str) -> Option<Vec<u8>> {
    let got = channel.basic_get(queue.into(), BasicGetOptions::default());
    let got = got.await.expect("answered")?;
    got.acker
        .ack(BasicAckOptions::default())
        .await
        .expect("acknowledged");
    Some(got.data.clone())
}

#[test]
fn system_messages_and_declarations_of_a_client_outlive_the_broker() {
    let mut broker = Alone::start("broker-clients");
    let large = vec![7; 3_000_000];
    on_runtime(async {
        let client = broker.client().await;
        let channel = client.create_channel().await.expect("a channel");
        declare(&channel, "work").await;
        for body in [b"first".as_slice(), &large, b"last"] {
            let confirmed = publish(&channel, "work", body).await.expect("confirmed");
            assert!(matches!(confirmed, Confirmation::Ack(_)));
        }
        let options = BasicConsumeOptions::default();
        let consumer =
            channel.basic_consume("work".into(), "c".into(), options, FieldTable::default());
        let first = consumer.await.expect("consumes").next().await;
        let first = first.expect("a delivery").expect("a delivery");
        assert_eq!(first.data, b"first");
    });
    broker.kill();
    broker.start_again();
    broker.wait_until_it_serves();
    on_runtime(async {
        let client = broker.client().await;
        let channel = client.create_channel().await.expect("a channel");
        assert_eq!(
            get(&channel, "work").await.as_deref(),
            Some(b"first".as_slice()),
            "it was not acknowledged"
        );
        assert_eq!(get(&channel, "work").await.as_deref(), Some(&large[..]));
        assert_eq!(
            get(&channel, "work").await.as_deref(),
            Some(b"last".as_slice())
        );
        assert_eq!(get(&channel, "work").await, None);
    });
    let counters = broker.status().counters;
    assert!(
        counters.bodies_read >= 3,
        "bodies came from the disk: {counters:?}"
    );
}

/// Takes the log out of memory, as far as its file system can.
fn forget_cache(log: &Path) {
    for entry in fs::read_dir(log).expect("a directory") {
        let file = File::open(entry.expect("a file").path()).expect("opens");
        fadvise(&file, 0, None, Advice::DontNeed).expect("advised");
    }
}

#[test]
fn system_bodies_that_are_in_no_memory_come_in_order() {
    let mut broker = Alone::start("broker-cold");
    let numbers: Vec<u8> = (0..20).collect();
    on_runtime(async {
        let client = broker.client().await;
        let channel = client.create_channel().await.expect("a channel");
        declare(&channel, "work").await;
        for number in &numbers {
            let confirmed = publish(&channel, "work", &vec![*number; 200_000]).await;
            assert!(matches!(confirmed, Ok(Confirmation::Ack(_))));
        }
    });
    broker.process().signal(Signal::TERM);
    assert_eq!(broker.process().wait(PATIENCE), Ended::Code(0));
    broker.start_again();
    broker.wait_until_it_serves();
    forget_cache(&broker.state().join("broker/log"));
    let mut came = Vec::new();
    on_runtime(async {
        let client = broker.client().await;
        let channel = client.create_channel().await.expect("a channel");
        let options = BasicConsumeOptions::default();
        let consumer =
            channel.basic_consume("work".into(), "c".into(), options, FieldTable::default());
        let mut consumer = consumer.await.expect("consumes");
        while came.len() < numbers.len() {
            let delivery = consumer.next().await.expect("goes on").expect("a delivery");
            assert_eq!(delivery.data.len(), 200_000);
            came.push(delivery.data[0]);
        }
    });
    assert_eq!(came, numbers);
    let counters = broker.status().counters;
    assert!(counters.bodies_read >= 20, "{counters:?}");
    if counters.bodies_waited_for == 0 {
        skip("this file system has all in memory");
    }
}

#[test]
fn system_acknowledgements_that_nobody_follows_are_synced_soon() {
    let broker = Alone::start("broker-acks");
    on_runtime(async {
        let client = broker.client().await;
        let channel = client.create_channel().await.expect("a channel");
        declare(&channel, "work").await;
        publish(&channel, "work", b"x").await.expect("confirmed");
        let before = broker.status().counters.syncs;
        assert_eq!(
            get(&channel, "work").await.as_deref(),
            Some(b"x".as_slice())
        );
        wait_until_async(PATIENCE, "the acknowledgement is synced", async || {
            let syncs = broker.status().counters.syncs;
            (syncs > before)
                .then_some(())
                .ok_or_else(|| format!("{syncs} syncs"))
        })
        .await;
    });
}

#[test]
fn system_a_broker_that_is_told_to_stop_says_so_to_its_clients() {
    let broker = Alone::start("broker-stop");
    on_runtime(async {
        let client = broker.client().await;
        let channel = client.create_channel().await.expect("a channel");
        declare(&channel, "work").await;
        broker.process().signal(Signal::TERM);
        wait_until_async(PATIENCE, "the client is told", async || {
            match publish(&channel, "work", b"x").await {
                Ok(_) => Err("it goes on".to_owned()),
                Err(error)
                    if error.to_string().contains("320")
                        || error.to_string().contains("CONNECTION-FORCED") =>
                {
                    Ok(())
                }
                Err(error) => panic!("it was told {error}"),
            }
        })
        .await;
    });
    assert_eq!(broker.process().wait(PATIENCE), Ended::Code(0));
}

#[test]
fn system_a_second_broker_on_the_directory_is_refused() {
    let broker = Alone::start("broker-second");
    let own = std::env::current_exe().expect("our own program");
    let program = own
        .ancestors()
        .nth(2)
        .expect("target")
        .join("examples/broker");
    let output = Command::new(program).arg(broker.state()).arg("0").output();
    let output = output.expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("InUse"), "{said}");
    on_runtime(async { broker.client().await });
}

/// A file system of its own, gone with the test.
struct Small(std::path::PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        Command::new(program("umount"))
            .arg("-l")
            .arg(&self.0)
            .status()
            .ok();
    }
}

/// A broker whose disk has 128 MiB and whose log meets its end.
fn on_a_small_disk(name: &str) -> Option<(Alone, Small)> {
    if !is_root() {
        skip("a small file system is mounted by root alone");
        return None;
    }
    let dir = TempDir::new(name);
    let disk = dir.join("disk");
    std::fs::create_dir(&disk).expect("a directory");
    let mount = Command::new(program("mount"))
        .args(["-t", "tmpfs", "-o", "size=128m", "none"])
        .arg(&disk)
        .status();
    assert!(mount.is_ok_and(|status| status.success()), "it is mounted");
    let small = Small(disk);
    let mut broker = Alone::start_in(dir, &small.0);
    broker.kill();
    // So that the log itself meets the end of the disk.
    broker.set("DISK_FREE_MIN", "0");
    broker.start_again();
    broker.wait_until_it_serves();
    Some((broker, small))
}

/// Publishes until nothing is confirmed any more; how many were.
async fn fill(channel: &Channel, body: &[u8]) -> usize {
    declare(channel, "work").await;
    let mut confirmed = 0;
    loop {
        let next = tokio::time::timeout(
            std::time::Duration::from_secs(3),
            publish(channel, "work", body),
        );
        match next.await {
            Ok(Ok(Confirmation::Ack(_))) => confirmed += 1,
            Ok(other) => panic!("publish {confirmed} was answered {other:?}"),
            Err(_) => return confirmed,
        }
        assert!(confirmed < 1000, "the disk has 128 MiB");
    }
}

#[test]
fn system_a_full_disk_holds_publishers_and_lets_consumers_drain() {
    let Some((broker, _small)) = on_a_small_disk("broker-full") else {
        return;
    };
    let body = vec![b'x'; 256 * 1024];
    let confirmed = on_runtime(async {
        let client = broker.client().await;
        let channel = client.create_channel().await.expect("a channel");
        fill(&channel, &body).await
    });
    assert!(confirmed > 100, "there was room for {confirmed}");
    wait_until(PATIENCE, "the alarm is on", || {
        broker.status().alarm.ok_or_else(|| "no alarm".to_owned())
    });
    let taken = on_runtime(async {
        let client = broker.client().await;
        let channel = client.create_channel().await.expect("a channel");
        let mut taken = 0;
        while let Some(got) = get(&channel, "work").await {
            assert_eq!(got.len(), body.len());
            taken += 1;
        }
        taken
    });
    assert!(
        taken >= confirmed,
        "{confirmed} were confirmed, and {taken} came"
    );
    wait_until(PATIENCE, "publishers go on", || {
        broker.status().alarm.map_or(Ok(()), Err)
    });
    on_runtime(async {
        let client = broker.client().await;
        let channel = client.create_channel().await.expect("a channel");
        declare(&channel, "work").await;
        publish(&channel, "work", b"again")
            .await
            .expect("confirmed");
    });
    broker.kill();
}

#[test]
fn system_a_virtual_host_can_be_deleted_on_a_full_disk_and_makes_room() {
    let Some((broker, _small)) = on_a_small_disk("broker-full-vhost") else {
        return;
    };
    let vhost = "v".to_owned();
    let done = Answer::Done { messages: 0 };
    let add = Ask::AddVhost {
        name: vhost.clone(),
    };
    assert_eq!(broker.ask(&add), done);
    let all = || ".*".to_owned();
    let permit = Ask::Permit {
        user: "guest".to_owned(),
        vhost: vhost.clone(),
        configure: all(),
        write: all(),
        read: all(),
    };
    assert_eq!(broker.ask(&permit), done);
    on_runtime(async {
        let uri = format!("amqp://{}/v", broker.address());
        let client = Connection::connect(&uri, ConnectionProperties::default()).await;
        let channel = client.expect("it comes in").create_channel().await;
        let confirmed = fill(&channel.expect("a channel"), &vec![b'x'; 256 * 1024]).await;
        assert!(confirmed > 100, "there was room for {confirmed}");
    });
    wait_until(PATIENCE, "the alarm is on", || {
        broker.status().alarm.ok_or_else(|| "no alarm".to_owned())
    });
    assert_eq!(broker.ask(&Ask::RemoveVhost { name: vhost }), done);
    wait_until(PATIENCE, "publishers go on", || {
        broker.status().alarm.map_or(Ok(()), Err)
    });
    on_runtime(async {
        let client = broker.client().await;
        let channel = client.create_channel().await.expect("a channel");
        declare(&channel, "work").await;
        publish(&channel, "work", b"again")
            .await
            .expect("confirmed");
    });
    broker.kill();
}

#[test]
fn system_operators_see_and_move_messages() {
    let mut broker = Alone::start("broker-operators");
    let deed = |deed| Ask::Vhost {
        vhost: "/".to_owned(),
        deed,
    };
    for queue in ["a", "b"] {
        let declare = Deed::Declare {
            queue: queue.to_owned(),
            arguments: serde_json::Value::Null,
        };
        assert_eq!(broker.ask(&deed(declare)), Answer::Done { messages: 0 });
    }
    for body in ["one", "two"] {
        let publish = Deed::Publish {
            exchange: String::new(),
            routing_key: "a".to_owned(),
            body: mainstay_broker::view::base64(body.as_bytes()),
        };
        assert_eq!(broker.ask(&deed(publish)), Answer::Done { messages: 1 });
    }
    let to_b = Deed::Move {
        from: "a".to_owned(),
        to: "b".to_owned(),
        count: 1,
    };
    assert_eq!(broker.ask(&deed(to_b)), Answer::Done { messages: 1 });
    let Answer::Definitions { definitions } = broker.ask(&Ask::Export) else {
        panic!("definitions");
    };
    broker.kill();
    broker.start_again();
    broker.wait_until_it_serves();
    let peek = |queue: &str| {
        let deed = deed(Deed::Peek {
            queue: queue.to_owned(),
            count: 10,
        });
        match broker.ask(&deed) {
            Answer::Messages { messages } => messages
                .into_iter()
                .filter_map(|message| message.text)
                .collect::<Vec<_>>(),
            other => panic!("messages are not {other:?}"),
        }
    };
    assert_eq!(peek("a"), ["two"]);
    assert_eq!(peek("b"), ["one"]);
    let other = Alone::start("broker-import");
    assert_eq!(
        other.ask(&Ask::Import {
            definitions: definitions.clone()
        }),
        Answer::Done { messages: 0 }
    );
    assert_eq!(other.ask(&Ask::Export), Answer::Definitions { definitions });
}
