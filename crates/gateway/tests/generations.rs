//! Tables: acknowledged when they are in force, never backwards, and a removed instance gets
//! nothing more.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use mainstay_gateway::{Deadlines, RetryRoutes, Seams};
use mainstay_ids::{Attempt, Generation};
use mainstay_model::{Ack, Endpoint};
use mainstay_testkit::{TempDir, wait_until};
use support::{
    Gateway, Instance, SOON, Setting, Then, answer, connect, consumer, endpoint, generation,
    header, instance, nobody, one_service, read_body, read_reply, send, write_request,
};

/// A test lets an instance go on once or twice; more would wait.
const SIGNALS: usize = 2;

fn in_flight(ack: &Ack, number: u64) -> u64 {
    let of = ack
        .in_flight
        .iter()
        .find(|one| one.instance == instance(number));
    of.map_or(0, |one| one.requests)
}

#[test]
fn generations_are_acknowledged_in_order_and_an_older_one_is_refused() {
    let (old, new) = (Instance::named("old"), Instance::named("new"));
    let gateway = Gateway::start(Setting {
        workers: 2,
        ..Setting::default()
    });
    gateway.wait_for_ack("it lives before its first routes", |ack| {
        ack.generation.is_none()
    });
    for revision in 1..=30 {
        gateway.publish(one_service(revision, vec![endpoint(1, old.address)]));
    }
    gateway.wait_for_ack("the newest is in force", |ack| {
        ack.generation == Some(generation(1, 30))
    });
    let mut later = one_service(1, vec![endpoint(2, new.address)]);
    later.generation = generation(2, 1);
    gateway.publish_and_wait(later);
    for revision in [31, 40] {
        gateway.publish(one_service(revision, vec![endpoint(1, old.address)]));
    }
    let mut last = one_service(2, vec![endpoint(2, new.address)]);
    last.generation = generation(2, 2);
    gateway.publish_and_wait(last);
    assert_eq!(gateway.request("GET", "/").text(), "new");
    assert_eq!(old.count(), 0);
    let generations: Vec<Option<Generation>> = gateway
        .acks()
        .iter()
        .map(|(_, ack)| ack.generation)
        .collect();
    assert!(generations.is_sorted(), "{generations:?}");
    assert!(
        !generations.contains(&Some(generation(1, 40))),
        "{generations:?}"
    );
}

#[test]
fn what_a_removed_instance_still_answers_is_reported_until_it_has() {
    let (go_on, wait) = mpsc::sync_channel::<()>(SIGNALS);
    let wait = Mutex::new(wait);
    let slow = Instance::start(move |seen, stream| {
        wait.lock().unwrap().recv().unwrap();
        read_body(seen, stream)?;
        answer(stream, "200 OK", &[], b"done")?;
        Ok(Then::Next)
    });
    let other = Instance::named("other");
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, slow.address)]));
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let entry = gateway.entry;
            thread::spawn(move || send(entry, "POST", "/", &[], b"x"))
        })
        .collect();
    wait_until(SOON, "both are in flight", || {
        (slow.count() == 2)
            .then_some(())
            .ok_or_else(|| slow.count().to_string())
    });
    let ack = gateway.wait_for_ack("it lives", |ack| ack.generation.is_some());
    assert!(
        ack.in_flight.is_empty(),
        "what is routed to is not reported: {ack:?}"
    );
    gateway.publish_and_wait(one_service(2, vec![endpoint(2, other.address)]));
    gateway.wait_for_ack("both count", |ack| in_flight(ack, 1) == 2);
    go_on.send(()).unwrap();
    gateway.wait_for_ack("one is left", |ack| in_flight(ack, 1) == 1);
    go_on.send(()).unwrap();
    gateway.wait_for_ack("none is left", |ack| in_flight(ack, 1) == 0);
    for client in clients {
        assert_eq!(client.join().unwrap().text(), "done");
    }
}

#[test]
fn another_attempt_of_an_instance_is_another_endpoint() {
    let (first, second) = (Instance::named("first"), Instance::named("second"));
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, first.address)]));
    assert_eq!(gateway.request("GET", "/").text(), "first");
    let mut again = endpoint(1, second.address);
    again.attempt = Attempt(2);
    gateway.publish_and_wait(one_service(2, vec![again]));
    assert_eq!(gateway.request("GET", "/").text(), "second");
    assert_eq!(first.count(), 1);
}

/// An instance of [`hammer`] with its entry in the routes.
struct Routed {
    instance: Instance,
    endpoint: Endpoint,
}

impl Routed {
    /// Every eighth request on a connection is lost, so that there are retries at any moment, and
    /// their budget lasts. With each second instance it takes a while, so that a retry is often due
    /// when the instance that was removed meanwhile has long drained.
    fn start(number: u64) -> Self {
        let until_lost = Duration::from_millis(if number.is_multiple_of(2) { 1 } else { 25 });
        let instance = Instance::start(move |seen, stream| {
            read_body(seen, stream)?;
            if seen.nth % 8 == 7 {
                thread::park_timeout(until_lost);
                return Ok(Then::Close);
            }
            thread::park_timeout(Duration::from_millis(1));
            answer(stream, "200 OK", &[], b"ok")?;
            Ok(Then::Next)
        });
        let endpoint = endpoint(number, instance.address);
        Self { instance, endpoint }
    }

    /// Waits until it has got five more requests.
    fn wait_for_use(&self) {
        let enough = self.instance.count() + 5;
        wait_until(SOON, "the instance is in use", || {
            let count = self.instance.count();
            (count >= enough)
                .then_some(())
                .ok_or_else(|| count.to_string())
        });
    }
}

/// Sends GET after GET until told to stop.
fn load(entry: SocketAddr, stop: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let mut client = connect(entry);
        while !stop.load(Ordering::SeqCst) {
            write_request(&mut client, "GET", "/", &[], b"");
            if read_reply(&mut client).end.is_err() {
                client = connect(entry);
            }
        }
    })
}

/// Two workers, load, and a loop that takes one of three instances out of the routes, waits until
/// the acknowledgement says that nothing can come to it any more, and puts another in. Gives how
/// many requests came to an instance after that acknowledgement, and how many there were.
fn hammer(retry_routes: RetryRoutes) -> (usize, usize) {
    let gateway = Gateway::start(Setting {
        workers: 2,
        seams: Seams {
            retry_routes,
            ..Seams::default()
        },
        ..Setting::default()
    });
    let mut routed: Vec<Routed> = (1..=3).map(Routed::start).collect();
    let publish = |routed: &[Routed], revision| {
        let endpoints = routed.iter().map(|one| one.endpoint.clone());
        gateway.publish(one_service(revision, endpoints.collect()));
    };
    publish(&routed, 1);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8).map(|_| load(gateway.entry, &stop)).collect();
    let mut removed: Vec<(Routed, Instant)> = Vec::new();
    for number in 4..40 {
        routed[0].wait_for_use();
        let oldest = routed.remove(0);
        routed.push(Routed::start(number));
        // Counted on from the first state.
        let revision = number - 2;
        publish(&routed, revision);
        gateway.wait_for_ack("the removal is in force and nothing in flight", |ack| {
            let id = &oldest.endpoint.instance;
            ack.generation == Some(generation(1, revision))
                && ack.in_flight.iter().all(|one| one.instance != *id)
        });
        removed.push((oldest, Instant::now()));
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().unwrap();
    }
    let (mut late, mut all) = (0, 0);
    for (one, acknowledged) in &removed {
        let seen = one.instance.seen();
        all += seen.len();
        late += seen.iter().filter(|seen| seen.at > *acknowledged).count();
    }
    (late, all)
}

#[test]
fn a_removed_instance_gets_no_request_from_any_worker_after_the_acknowledgement() {
    let (late, all) = hammer(RetryRoutes::Reread);
    assert_eq!(late, 0, "of {all}");
}

#[test]
fn the_drain_test_fails_when_retries_choose_by_the_table_of_their_first_try() {
    let (late, all) = hammer(RetryRoutes::Keep);
    assert!(
        late > 0,
        "the control of the test above shows nothing, of {all} requests"
    );
}

#[test]
fn stored_routes_are_used_when_the_control_centre_is_away() {
    let instance = Instance::named("one");
    let gateway = Gateway::with(one_service(7, vec![endpoint(1, instance.address)]));
    let state = gateway.kill_and_keep_state();
    let gateway = Gateway::start_with_api(Setting {
        state: Some(state),
        ..Setting::default()
    });
    assert_eq!(gateway.request("GET", "/").text(), "one");
    // What was stored is not acknowledged, and anything that the control centre says replaces it.
    let state = gateway.kill_and_keep_state();
    let gateway = Gateway::start(Setting {
        state: Some(state),
        ..Setting::default()
    });
    gateway.wait_for_ack("it lives", |ack| ack.generation.is_none());
    gateway.publish_and_wait(one_service(3, vec![endpoint(1, instance.address)]));
}

/// Longer than any test: what came earlier did not come because the time was over.
const NEVER: Duration = Duration::from_hours(1);

#[test]
fn a_starting_gateway_prefers_live_routes_and_lets_connections_wait_for_them() {
    let (old, new) = (Instance::named("old"), Instance::named("new"));
    let mut stored = one_service(7, vec![endpoint(1, old.address)]);
    let address = nobody();
    stored.services[0].address = Some(address);
    let gateway = Gateway::with(stored.clone());
    let state = gateway.kill_and_keep_state();
    let deadlines = Deadlines {
        first_routes: NEVER,
        ..Setting::default().deadlines
    };
    let gateway = Gateway::start(Setting {
        state: Some(state),
        deadlines,
        ..Setting::default()
    });
    let mut clients = vec![connect(gateway.entry)];
    clients.push(wait_until(SOON, "the service's address is open", || {
        TcpStream::connect(address).map_err(|error| error.to_string())
    }));
    for client in &mut clients {
        write_request(client, "GET", "/", &[], b"");
    }
    // Two beats later they still wait.
    let acks = gateway.acks().len();
    wait_until(SOON, "it goes on", || {
        let now = gateway.acks().len();
        (now >= acks + 2)
            .then_some(())
            .ok_or_else(|| now.to_string())
    });
    assert_eq!(old.count(), 0);
    let mut live = stored;
    live.generation = generation(1, 8);
    live.services[0].endpoints = vec![endpoint(2, new.address)];
    gateway.publish_and_wait(live);
    for client in &mut clients {
        assert_eq!(read_reply(client).text(), "new");
    }
    assert_eq!(old.count(), 0);
}

#[test]
fn while_the_disk_hangs_new_routes_are_in_force_and_only_their_acknowledgement_waits() {
    let (old, new) = (Instance::named("old"), Instance::named("new"));
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, old.address)]));
    // To open a pipe for writing takes until somebody reads it.
    let disk = gateway.state.join("gateway/routes.json.tmp");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        &disk,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
    )
    .unwrap();
    gateway.publish(one_service(2, vec![endpoint(2, new.address)]));
    wait_until(SOON, "the new routes are in force", || {
        let text = gateway.request("GET", "/").text();
        if text == "new" { Ok(()) } else { Err(text) }
    });
    let acks = gateway.acks().len();
    wait_until(SOON, "it goes on", || {
        let now = gateway.acks().len();
        (now >= acks + 2)
            .then_some(())
            .ok_or_else(|| now.to_string())
    });
    for (_, ack) in gateway.acks() {
        assert!(
            ack.generation <= Some(generation(1, 1)),
            "{ack:?} is not stored"
        );
    }
    let written = std::fs::read_to_string(&disk).unwrap();
    assert!(written.contains("orders-2"), "{written}");
    gateway.wait_for_ack("it is stored", |ack| {
        ack.generation == Some(generation(1, 2))
    });
}

#[test]
fn routes_that_cannot_be_stored_are_acknowledged_when_the_older_ones_are_removed() {
    let instance = Instance::named("one");
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    let in_the_way = gateway.state.join("gateway/routes.json.tmp");
    std::fs::create_dir(&in_the_way).unwrap();
    gateway.publish_and_wait(one_service(2, vec![endpoint(1, instance.address)]));
    assert!(!gateway.routes_file().exists());
    // As soon as it can be, it is stored after all.
    std::fs::remove_dir(&in_the_way).unwrap();
    wait_until(SOON, "the routes are stored", || {
        std::fs::metadata(gateway.routes_file()).map_err(|error| error.to_string())
    });
}

#[test]
fn a_stopping_gateway_finishes_what_is_under_way_and_closes_what_is_idle() {
    let (go_on, wait) = mpsc::sync_channel::<()>(SIGNALS);
    let wait = Mutex::new(wait);
    let slow = Instance::start(move |seen, stream| {
        wait.lock().unwrap().recv().unwrap();
        read_body(seen, stream)?;
        answer(stream, "200 OK", &[], b"done")?;
        Ok(Then::Next)
    });
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, slow.address)]));
    let mut idle = connect(gateway.entry);
    let mut busy = connect(gateway.entry);
    write_request(&mut busy, "GET", "/", &[], b"");
    wait_until(SOON, "it is in flight", || {
        (slow.count() == 1).then_some(()).ok_or_else(String::new)
    });
    gateway.stop();
    assert_eq!(idle.read(&mut [0]).unwrap(), 0, "the idle one is closed");
    assert!(!gateway.has_ended());
    go_on.send(()).unwrap();
    let reply = read_reply(&mut busy);
    assert_eq!((reply.status, reply.text().as_str()), (200, "done"));
    assert_eq!(reply.header("connection"), Some("close"));
    wait_until(SOON, "it has ended", || {
        gateway.has_ended().then_some(()).ok_or_else(String::new)
    });
}

/// More than are posted in a test; then the control centre would wait.
const POSTED: usize = 1024;

/// A control centre of one unix socket: one watch, and what was posted.
fn control_centre(
    dir: &TempDir,
    line: String,
) -> (std::path::PathBuf, mpsc::Receiver<(String, String)>) {
    let path = dir.join("api.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let (posted_to, posted) = mpsc::sync_channel(POSTED);
    // Ends with the process: it is only waiting by then.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, line, posted_to) = (stream.unwrap(), line.clone(), posted_to.clone());
            thread::spawn(move || {
                let mut text = Vec::new();
                while !text.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read(&mut byte).unwrap_or(0) == 0 {
                        return;
                    }
                    text.push(byte[0]);
                }
                let head = String::from_utf8(text).unwrap();
                let mut body =
                    vec![0; header(&head, "content-length").map_or(0, |len| len.parse().unwrap())];
                stream.read_exact(&mut body).unwrap();
                let first = head.lines().next().unwrap().to_owned();
                let watch = first.starts_with("GET");
                posted_to
                    .send((first, String::from_utf8(body).unwrap()))
                    .ok();
                if watch {
                    stream
                        .write_all(format!("HTTP/1.1 200 OK\r\n\r\n{line}\n\n").as_bytes())
                        .unwrap();
                    // Open until the gateway closes it.
                    stream.read_exact(&mut [0]).ok();
                } else {
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"event\":1}")
                        .unwrap();
                }
            });
        }
    });
    (path, posted)
}

#[test]
fn the_link_follows_the_watch_posts_acknowledgements_and_says_farewell() {
    let instance = Instance::named("one");
    let dir = TempDir::new("link");
    let routing = one_service(1, vec![endpoint(1, instance.address)]);
    let (api, posted) = control_centre(&dir, serde_json::to_string(&routing).unwrap());
    let gateway = Gateway::start_with_api(Setting {
        api,
        ..Setting::default()
    });
    let next = |what: &str| loop {
        let (first, body) = posted
            .recv_timeout(SOON)
            .unwrap_or_else(|_| panic!("waited for {what}"));
        if first.contains(what) {
            return (first, body);
        }
    };
    let (watch, _) = next("GET");
    assert_eq!(
        watch,
        "GET /v1/watch/routes?name=gateway&incarnation=1 HTTP/1.1"
    );
    let generation = loop {
        let ack: Ack = serde_json::from_str(&next("POST /v1/consumers/ack").1).unwrap();
        assert_eq!(ack.consumer, consumer());
        if let Some(generation) = ack.generation {
            break generation;
        }
    };
    assert_eq!(generation, routing.generation);
    assert_eq!(gateway.request("GET", "/").text(), "one");
    assert!(gateway.routes_file().exists());
    gateway.stop();
    let (_, farewell) = next("POST /v1/consumers/farewell");
    assert!(farewell.contains("\"reason\""), "{farewell}");
    assert!(
        !gateway.routes_file().exists(),
        "a successor might begin with routes for which nobody waited"
    );
}

#[test]
fn a_gateway_that_cannot_remove_its_routes_says_no_farewell() {
    let instance = Instance::named("one");
    let dir = TempDir::new("no-farewell");
    let routing = one_service(1, vec![endpoint(1, instance.address)]);
    let (api, posted) = control_centre(&dir, serde_json::to_string(&routing).unwrap());
    let gateway = Gateway::start_with_api(Setting {
        api,
        ..Setting::default()
    });
    let routes = gateway.routes_file();
    wait_until(SOON, "the routes are stored", || {
        std::fs::metadata(&routes).map_err(|error| error.to_string())
    });
    std::fs::remove_file(&routes).unwrap();
    std::fs::create_dir(&routes).unwrap();
    drop(gateway);
    let posted: Vec<_> = posted.try_iter().map(|(first, _)| first).collect();
    assert!(!posted.is_empty());
    assert!(
        !posted.iter().any(|first| first.contains("farewell")),
        "{posted:?}"
    );
}
