//! What operators change while clients are there: policies, virtual hosts, users and what they may, limits.

mod alone;

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use alone::{Alone, PATIENCE, on_runtime};
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use mainstay_broker::view::{Answer, Ask, Policy, Queue, SOCKET};
use mainstay_testkit::kills::pause;
use mainstay_testkit::{RabbitMq, RabbitMqOptions, TempDir, wait_until, wait_until_async};
use serde_json::{Value, json};

const DONE: Answer = Answer::Done { messages: 0 };

/// A client of a user whose password is its name.
async fn enter(
    address: std::net::SocketAddr,
    user: &str,
    vhost: &str,
) -> lapin::Result<Connection> {
    let uri = format!("amqp://{user}:{user}@{address}/{vhost}");
    Connection::connect(&uri, ConnectionProperties::default()).await
}

async fn channel(client: &Connection) -> Channel {
    let channel = client.create_channel().await.expect("a channel");
    let confirms = channel.confirm_select(ConfirmSelectOptions::default());
    confirms.await.expect("confirms are on");
    channel
}

async fn declare(channel: &Channel, queue: &str) -> lapin::Result<()> {
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare(queue.into(), durable, FieldTable::default());
    declared.await.map(drop)
}

async fn publish(channel: &Channel, queue: &str, body: &[u8]) -> lapin::Result<Confirmation> {
    let persistent = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions::default();
    let published = channel.basic_publish("".into(), queue.into(), options, body, persistent);
    published.await?.await
}

async fn get(channel: &Channel, queue: &str) -> lapin::Result<Option<Vec<u8>>> {
    let got = channel.basic_get(queue.into(), BasicGetOptions::default());
    let Some(got) = got.await? else {
        return Ok(None);
    };
    got.acker.ack(BasicAckOptions::default()).await?;
    Ok(Some(got.data.clone()))
}

fn policy(name: &str, pattern: &str, definition: Value) -> Policy {
    Policy {
        vhost: "/".to_owned(),
        name: name.to_owned(),
        pattern: pattern.to_owned(),
        applies_to: "queues".to_owned(),
        definition,
        priority: 0,
    }
}

fn set(broker: &Alone, policy: &Policy) {
    let policy = policy.clone();
    assert_eq!(broker.ask(&Ask::SetPolicy { policy }), DONE);
}

fn clear(broker: &Alone, name: &str) {
    let (vhost, name) = ("/".to_owned(), name.to_owned());
    assert_eq!(broker.ask(&Ask::RemovePolicy { vhost, name }), DONE);
}

fn refused(broker: &Alone, ask: &Ask) -> String {
    match broker.ask(ask) {
        Answer::Refused { why } => why,
        other => panic!("{ask:?} was answered {other:?}"),
    }
}

fn queues(broker: &Alone) -> Vec<Queue> {
    match broker.ask(&Ask::Queues { vhost: None }) {
        Answer::Queues { queues } => queues,
        other => panic!("queues are not {other:?}"),
    }
}

/// Messages of a queue and its policy; `None` without such a queue.
fn queue(broker: &Alone, name: &str) -> Option<(usize, Option<String>)> {
    let mut queues = queues(broker).into_iter();
    let found = queues.find(|queue| queue.name == name)?;
    Some((found.ready, found.policy))
}

fn under(ready: usize, policy: &str) -> (usize, Option<String>) {
    (ready, Some(policy.to_owned()))
}

fn policies(broker: &Alone) -> Vec<Policy> {
    match broker.ask(&Ask::Policies { vhost: None }) {
        Answer::Policies { policies } => policies,
        other => panic!("policies are not {other:?}"),
    }
}

fn definitions(broker: &Alone) -> Value {
    match broker.ask(&Ask::Export) {
        Answer::Definitions { definitions } => definitions,
        other => panic!("definitions are not {other:?}"),
    }
}

fn add_user(broker: &Alone, user: &str) {
    let (name, password) = (user.to_owned(), user.to_owned());
    assert_eq!(broker.ask(&Ask::SetUser { name, password }), DONE);
}

fn permit(broker: &Alone, user: &str, vhost: &str, write: &str) {
    let all = || ".*".to_owned();
    let ask = Ask::Permit {
        user: user.to_owned(),
        vhost: vhost.to_owned(),
        configure: all(),
        write: write.to_owned(),
        read: all(),
    };
    assert_eq!(broker.ask(&ask), DONE);
}

fn add_vhost(broker: &Alone, name: &str) {
    let name = name.to_owned();
    assert_eq!(broker.ask(&Ask::AddVhost { name }), DONE);
}

fn remove_vhost(broker: &Alone, name: &str) {
    let name = name.to_owned();
    assert_eq!(broker.ask(&Ask::RemoveVhost { name }), DONE);
}

/// Works until it is cut off; what it is told then.
async fn told(what: &str, mut work: impl AsyncFnMut() -> lapin::Result<()>) -> String {
    wait_until_async(PATIENCE, what, async || match work().await {
        Ok(()) => Err("it goes on".to_owned()),
        Err(error) => Ok(error.to_string()),
    })
    .await
}

/// Sets policies while a client is there.
async fn rule(broker: &Alone) {
    let short = policy("short", "^ord", json!({ "max-length": 2 }));
    let client = broker.client().await;
    let channel = channel(&client).await;
    for name in ["orders", "other", "dead"] {
        declare(&channel, name).await.expect("declared");
    }
    for body in [b"1", b"2", b"3", b"4", b"5"] {
        publish(&channel, "orders", body).await.expect("confirmed");
        publish(&channel, "other", body).await.expect("confirmed");
    }
    assert_eq!(queue(broker, "orders"), Some((5, None)));
    set(broker, &short);
    assert_eq!(queue(broker, "orders"), Some(under(2, "short")));
    assert_eq!(queue(broker, "other"), Some((5, None)));
    publish(&channel, "orders", b"6").await.expect("confirmed");
    assert_eq!(
        get(&channel, "orders").await.expect("answered").as_deref(),
        Some(b"5".as_slice())
    );
    // Set anew it says something else, for queues that are there.
    let full = json!({ "max-length": 1, "overflow": "reject-publish" });
    set(broker, &policy("short", "^ord", full));
    let word = publish(&channel, "orders", b"7").await.expect("answered");
    assert!(matches!(word, Confirmation::Nack(_)), "{word:?}");
    // What is dropped goes where the policy says.
    let dead =
        json!({ "max-length": 3, "dead-letter-exchange": "", "dead-letter-routing-key": "dead" });
    set(broker, &policy("buried", "^other$", dead));
    assert_eq!(queue(broker, "other"), Some(under(3, "buried")));
    wait_until(PATIENCE, "two are dead", || match queue(broker, "dead") {
        Some((2, None)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    set(
        broker,
        &policy("brief", "^other$", json!({ "message-ttl": 1 })),
    );
    clear(broker, "buried");
    publish(&channel, "other", b"8").await.expect("confirmed");
    // Its time is over once it is the first.
    for body in [b"3", b"4", b"5"] {
        let got = get(&channel, "other").await.expect("answered");
        assert_eq!(got.as_deref(), Some(body.as_slice()));
    }
    wait_until(PATIENCE, "it expires", || match queue(broker, "other") {
        Some((0, Some(policy))) if policy == "brief" => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn system_a_policy_is_in_force_at_once_and_outlives_the_broker() {
    let mut broker = Alone::start("broker-policies");
    on_runtime(rule(&broker));
    let before = policies(&broker);
    assert_eq!(before.len(), 2);
    broker.kill();
    broker.start_again();
    broker.wait_until_it_serves();
    assert_eq!(policies(&broker), before);
    assert_eq!(queue(&broker, "orders"), Some(under(1, "short")));
    on_runtime(async {
        let client = broker.client().await;
        let channel = channel(&client).await;
        let word = publish(&channel, "orders", b"9").await.expect("answered");
        assert!(matches!(word, Confirmation::Nack(_)), "it holds: {word:?}");
        clear(&broker, "short");
        let word = publish(&channel, "orders", b"9").await.expect("answered");
        assert!(
            matches!(word, Confirmation::Ack(_)),
            "it does not: {word:?}"
        );
    });
    assert_eq!(queue(&broker, "orders"), Some((2, None)));
    set(
        &broker,
        &policy("going", "^dead$", json!({ "expires": 50 })),
    );
    wait_until(PATIENCE, "the queue expires", || {
        queue(&broker, "dead").map_or(Ok(()), |found| Err(format!("{found:?}")))
    });
}

#[test]
fn system_a_policy_that_cannot_be_is_refused_and_changes_nothing() {
    let broker = Alone::start("broker-policies-refused");
    let ask = |policy: Policy| refused(&broker, &Ask::SetPolicy { policy });
    let wrong = ask(policy("p", "q", json!({ "max-length": -1 })));
    assert!(
        wrong.contains("-1 is not a valid maximum length"),
        "{wrong}"
    );
    let unknown = ask(policy("p", "q", json!({ "colour": "red" })));
    assert!(
        unknown.contains("not recognised policy settings"),
        "{unknown}"
    );
    let pattern = ask(policy("p", "(", json!({ "max-length": 1 })));
    assert!(pattern.contains("regular expression"), "{pattern}");
    let none = ask(policy("p", "q", json!(5)));
    assert!(none.contains("its definition is an object"), "{none}");
    let target = ask(Policy {
        applies_to: "cats".to_owned(),
        ..policy("p", "q", json!({ "max-length": 1 }))
    });
    assert!(target.contains("apply-to 'cats' unrecognised"), "{target}");
    let nowhere = ask(Policy {
        vhost: "nowhere".to_owned(),
        ..policy("p", "q", json!({ "max-length": 1 }))
    });
    assert_eq!(nowhere, "there is no virtual host `nowhere`");
    let (vhost, name) = ("/".to_owned(), "p".to_owned());
    let missing = refused(&broker, &Ask::RemovePolicy { vhost, name });
    assert!(missing.contains("no policy 'p' in vhost '/'"), "{missing}");
    assert_eq!(policies(&broker), []);
}

/// What the clients of a user and of a virtual host hear when `go` makes these go, and then when they come again.
fn words(address: std::net::SocketAddr, go: &dyn Fn(&str)) -> Vec<String> {
    on_runtime(async {
        let mut words = Vec::new();
        for (user, vhost, what) in [("u", "%2f", "user"), ("guest", "v", "vhost")] {
            let client = enter(address, user, vhost).await.expect("it comes in");
            let channel = channel(&client).await;
            declare(&channel, "mine").await.expect("declared");
            go(what);
            let word = told("it is closed", async || {
                publish(&channel, "mine", b"x").await.map(drop)
            })
            .await;
            words.push(word);
            let again = enter(address, user, vhost).await.map(drop);
            words.push(again.expect_err("it is gone").to_string());
        }
        words
    })
}

#[test]
fn system_rabbitmq_takes_our_policies_and_tells_clients_the_same() {
    let dir = TempDir::new("manage-rabbitmq");
    let node = RabbitMq::start(&dir, &RabbitMqOptions::default());
    let broker = Alone::start("manage-twin");
    add_vhost(&broker, "v");
    add_user(&broker, "u");
    permit(&broker, "u", "/", ".*");
    permit(&broker, "guest", "v", ".*");
    let copies = json!({ "ha-mode": "exactly", "ha-params": 2, "message-ttl": 60000, "overflow": "reject-publish" });
    set(&broker, &policy("copies", "^(?!amq\\.).*", copies));
    let elsewhere = Policy {
        vhost: "v".to_owned(),
        applies_to: "all".to_owned(),
        priority: 9,
        ..policy(
            "all",
            "",
            json!({ "alternate-exchange": "lost", "dead-letter-exchange": "dead" }),
        )
    };
    set(&broker, &elsewhere);
    let (out, back) = (dir.join("out.json"), dir.join("back.json"));
    std::fs::write(&out, definitions(&broker).to_string()).expect("written");
    node.wait();
    let path = |path: &std::path::Path| path.to_str().expect("text").to_owned();
    node.ctl(&dir, &["await_startup"]);
    node.ctl(&dir, &["import_definitions", &path(&out)]);
    node.ctl(&dir, &["export_definitions", &path(&back)]);
    let back = std::fs::read(&back).expect("RabbitMQ wrote it");
    let back: Value = serde_json::from_slice(&back).expect("JSON");
    let other = Alone::start("manage-back");
    assert_eq!(other.ask(&Ask::Import { definitions: back }), DONE);
    assert_eq!(policies(&other), policies(&broker));
    // Passwords that were hashed here do not go out.
    for user in ["guest", "u"] {
        node.ctl(&dir, &["change_password", user, user]);
    }
    let theirs = words(node.address(), &|what| match what {
        "user" => node.ctl(&dir, &["delete_user", "u"]),
        _ => node.ctl(&dir, &["delete_vhost", "v"]),
    });
    let ours = words(broker.address(), &|what| {
        let name = what.chars().next().map(String::from).expect("a name");
        let ask = match what {
            "user" => Ask::RemoveUser { name },
            _ => Ask::RemoveVhost { name },
        };
        assert_eq!(broker.ask(&ask), DONE);
    });
    for (ours, theirs) in ours.iter().zip(&theirs) {
        // RabbitMQ closes the socket of a deleted virtual host's client so soon that its last words may be lost; its log has
        // them.
        assert!(
            ours == theirs || theirs.contains("IO error"),
            "{ours} and not {theirs}"
        );
    }
    assert!(ours[0].contains("user 'u' is deleted"), "{ours:?}");
    assert!(ours[2].contains("vhost 'v' is deleted"), "{ours:?}");
}

#[test]
fn system_a_deleted_virtual_host_is_gone_and_others_are_not() {
    let mut broker = Alone::start("broker-rm-vhost");
    add_vhost(&broker, "v");
    permit(&broker, "guest", "v", ".*");
    on_runtime(async {
        let kept = broker.client().await;
        let kept = channel(&kept).await;
        declare(&kept, "kept").await.expect("declared");
        let gone = enter(broker.address(), "guest", "v").await.expect("in");
        let gone = channel(&gone).await;
        declare(&gone, "gone").await.expect("declared");
        for number in 0..20_u8 {
            publish(&kept, "kept", &[number]).await.expect("confirmed");
            publish(&gone, "gone", &vec![number; 100_000])
                .await
                .expect("confirmed");
        }
        let live = broker.status().live;
        remove_vhost(&broker, "v");
        let word = told("it is closed", async || {
            publish(&gone, "gone", b"x").await.map(drop)
        })
        .await;
        assert!(word.contains("vhost 'v' is deleted"), "{word}");
        publish(&kept, "kept", b"on")
            .await
            .expect("the others go on");
        let now = broker.status().live;
        assert!(
            now + 1_500_000 < live,
            "its messages are not needed: {now} of {live}"
        );
    });
    let name = || "v".to_owned();
    let again = refused(&broker, &Ask::RemoveVhost { name: name() });
    assert_eq!(again, "there is no virtual host `v`");
    for _ in 0..2 {
        assert_eq!(queues(&broker).len(), 1);
        assert_eq!(queue(&broker, "kept"), Some((21, None)));
        // Another one of that name has nothing of it, and lets nobody in.
        add_vhost(&broker, "v");
        assert_eq!(queues(&broker).len(), 1);
        let refused = on_runtime(async { enter(broker.address(), "guest", "v").await.map(drop) });
        let refused = refused.expect_err("nobody is permitted").to_string();
        assert!(refused.contains("access to vhost 'v' refused"), "{refused}");
        remove_vhost(&broker, "v");
        broker.kill();
        broker.start_again();
        broker.wait_until_it_serves();
    }
    // The default one, too, and it does not come back by itself.
    remove_vhost(&broker, "/");
    broker.kill();
    broker.start_again();
    broker.wait_until_it_serves();
    let missing = on_runtime(async { enter(broker.address(), "guest", "%2f").await.map(drop) });
    let missing = missing.expect_err("it is gone").to_string();
    assert!(missing.contains("vhost / not found"), "{missing}");
    assert_eq!(queues(&broker), []);
}

#[test]
fn system_a_broker_that_is_killed_while_it_deletes_has_all_of_it_or_nothing() {
    const QUEUES: usize = 3000;
    let mut random = fastrand::Rng::new();
    let seed = random.u64(..);
    println!("SEED={seed}");
    random.seed(seed);
    let mut broker = Alone::start("broker-rm-killed");
    let queue = |number| json!({ "name": format!("q{number}"), "vhost": "v", "durable": true, "auto_delete": false });
    let declared = json!({
        "vhosts": [{ "name": "v" }],
        "permissions": [{ "user": "guest", "vhost": "v", "configure": "", "write": ".*", "read": "" }],
        "queues": (0..QUEUES).map(queue).collect::<Vec<_>>(),
        "policies": [{ "vhost": "v", "name": "p", "pattern": "^q", "definition": { "max-length": 9 } }],
    });
    let (mut there, mut gone) = (0, 0);
    for round in 0..16 {
        let definitions = declared.clone();
        assert_eq!(broker.ask(&Ask::Import { definitions }), DONE);
        on_runtime(async {
            let client = enter(broker.address(), "guest", "v").await.expect("in");
            let channel = channel(&client).await;
            for queue in ["q0", "q7", "q2999"] {
                publish(&channel, queue, b"x").await.expect("confirmed");
            }
        });
        let mut stream = UnixStream::connect(broker.state().join(SOCKET)).expect("it listens");
        let ask = serde_json::to_string(&Ask::RemoveVhost {
            name: "v".to_owned(),
        });
        writeln!(stream, "{}", ask.expect("JSON")).expect("it reads");
        // A deletion takes some 20 ms.
        pause(Duration::from_micros(random.u64(0..30_000)));
        broker.kill();
        broker.start_again();
        broker.wait_until_it_serves();
        let queues = queues(&broker);
        let messages: usize = queues.iter().map(|queue| queue.ready).sum();
        let found = definitions_of(&broker, "v");
        if found.0 {
            there += 1;
            assert_eq!(
                (queues.len(), messages),
                (QUEUES, 3),
                "SEED={seed}, {round}"
            );
            assert_eq!(found, (true, 1, 1), "SEED={seed}, {round}");
            remove_vhost(&broker, "v");
        } else {
            gone += 1;
            assert_eq!((queues.len(), messages), (0, 0), "SEED={seed}, {round}");
        }
        // Whoever gets its number and its name finds nothing.
        add_vhost(&broker, "v");
        assert_eq!(self::queues(&broker), [], "SEED={seed}, {round}");
        assert_eq!(
            definitions_of(&broker, "v"),
            (true, 0, 0),
            "SEED={seed}, {round}"
        );
        remove_vhost(&broker, "v");
    }
    println!("killed before: {there}, after: {gone}");
}

/// Whether a virtual host is there, and how many permissions and policies it has.
fn definitions_of(broker: &Alone, vhost: &str) -> (bool, usize, usize) {
    let all = definitions(broker);
    let count = |kind: &str, key: &str| {
        let list = all[kind].as_array().into_iter().flatten();
        list.filter(|one| one[key] == vhost).count()
    };
    (
        count("vhosts", "name") == 1,
        count("permissions", "vhost"),
        count("policies", "vhost"),
    )
}

#[test]
fn system_permissions_hold_at_the_next_method_and_a_removed_user_is_out() {
    let mut broker = Alone::start("broker-permissions");
    add_user(&broker, "u");
    permit(&broker, "u", "/", ".*");
    on_runtime(async {
        let guest = broker.client().await;
        let guest = channel(&guest).await;
        let client = enter(broker.address(), "u", "%2f").await.expect("in");
        let first = channel(&client).await;
        declare(&first, "mine").await.expect("declared");
        publish(&first, "mine", b"1").await.expect("confirmed");
        let reader = channel(&client).await;
        let options = BasicConsumeOptions::default();
        let consumer =
            reader.basic_consume("mine".into(), "".into(), options, FieldTable::default());
        let mut consumer = consumer.await.expect("it consumes");
        let body = consumer.next().await.expect("one").expect("one").data;
        assert_eq!(body, b"1");
        // The connection and its channels stay as they are; the next method is judged anew.
        permit(&broker, "u", "/", "^theirs$");
        let refused = publish(&first, "mine", b"2")
            .await
            .expect_err("not any more")
            .to_string();
        assert!(
            refused.contains("access to exchange 'amq.default' in vhost '/' refused for user 'u'"),
            "{refused}"
        );
        let second = channel(&client).await;
        let refused = publish(&second, "mine", b"2")
            .await
            .expect_err("nor elsewhere")
            .to_string();
        assert!(refused.contains("ACCESS_REFUSED"), "{refused}");
        // A consumer that is there goes on, as in RabbitMQ.
        publish(&guest, "mine", b"3").await.expect("confirmed");
        let body = consumer.next().await.expect("one").expect("one").data;
        assert_eq!(body, b"3");
        permit(&broker, "u", "/", ".*");
        let third = channel(&client).await;
        publish(&third, "mine", b"4").await.expect("it may again");
        let name = "u".to_owned();
        assert_eq!(broker.ask(&Ask::RemoveUser { name }), DONE);
        let word = told("it is closed", async || {
            publish(&third, "mine", b"5").await.map(drop)
        })
        .await;
        assert!(word.contains("user 'u' is deleted"), "{word}");
        let refused = enter(broker.address(), "u", "%2f").await.map(drop);
        assert!(refused.is_err(), "nobody of that name comes in");
        publish(&guest, "mine", b"6")
            .await
            .expect("the others go on");
    });
    broker.kill();
    broker.start_again();
    broker.wait_until_it_serves();
    // Another user of that name has nothing of the first.
    add_user(&broker, "u");
    let refused = on_runtime(async { enter(broker.address(), "u", "%2f").await.map(drop) });
    let refused = refused.expect_err("nothing is permitted").to_string();
    assert!(
        refused.contains("access to vhost '/' refused for user 'u'"),
        "{refused}"
    );
}

#[test]
fn system_limits_are_as_they_were_set() {
    let mut broker = Alone::start("broker-limits");
    broker.kill();
    broker.set("CONSUMER_TIMEOUT_MS", "300");
    broker.set("QUEUES_MAX", "2");
    broker.start_again();
    broker.wait_until_it_serves();
    on_runtime(async {
        let client = broker.client().await;
        let first = channel(&client).await;
        for name in ["a", "b", "a"] {
            declare(&first, name).await.expect("declared");
        }
        publish(&first, "a", b"x").await.expect("confirmed");
        let refused = declare(&first, "c")
            .await
            .expect_err("two are enough")
            .to_string();
        assert!(
            refused.contains("queue limit in vhost '/' (2) is reached"),
            "{refused}"
        );
        let slow = channel(&client).await;
        let options = BasicConsumeOptions::default();
        let consumer = slow.basic_consume("a".into(), "".into(), options, FieldTable::default());
        let mut consumer = consumer.await.expect("it consumes");
        consumer.next().await.expect("one").expect("one");
        let late = async {
            loop {
                match consumer.next().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return error.to_string(),
                    None => return "it ended without a word".to_owned(),
                }
            }
        };
        let late = tokio::time::timeout(PATIENCE, late)
            .await
            .expect("it is closed");
        assert!(
            late.contains(
                "delivery acknowledgement on channel 2 timed out. Timeout value used: 300 ms"
            ),
            "{late}"
        );
        // The message is there for others.
        let other = channel(&client).await;
        assert_eq!(
            get(&other, "a").await.expect("answered").as_deref(),
            Some(b"x".as_slice())
        );
    });
}
