//! What clients see of instances that say nothing, are slow, or are asked for too much.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use mainstay_gateway::{Hedging, Limiting, Patience, Retries, Seams, Verdicts};
use mainstay_ids::Attempt;
use mainstay_model::gateway::GatewayLimits;
use mainstay_model::routing::Dead;
use mainstay_testkit::{Spawned, TempDir, program, wait_until};
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use support::{
    Gateway, Instance, Reply, SOON, Setting, Then, answer, connect, endpoint, one_service,
    read_body, read_reply, send, write_request,
};

/// A client has its answer within this, whatever happens to one instance.
const BAR: Duration = Duration::from_millis(300);

/// Whether an instance works.
#[derive(Clone, Default)]
struct Frost(Arc<AtomicBool>);

impl Frost {
    fn freeze(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn thaw(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    fn is_frozen(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Thawing {
    fn drop(&mut self) {
        self.0.thaw();
    }
}

/// Lets an instance go at the end, so that its threads can be joined.
struct Thawing(Frost);

/// An instance that takes `work` for an answer and, while it is frozen, gives none.
fn instance(frost: &Frost, work: Duration) -> Instance {
    let frost = frost.clone();
    Instance::start(move |seen, stream| {
        let body = read_body(seen, stream)?;
        thread::park_timeout(work);
        while frost.is_frozen() {
            thread::park_timeout(Duration::from_millis(2));
        }
        answer(stream, "200 OK", &[], &body)?;
        Ok(Then::Next)
    })
}

/// Three instances, of which the first can be frozen.
struct Three {
    /// Dropped first: the threads of a frozen one do not end.
    _thawing: Thawing,
    all: [Instance; 3],
    frost: Frost,
}

impl Three {
    fn new(work: Duration) -> Self {
        let (frost, warm) = (Frost::default(), Frost::default());
        let all = [
            instance(&frost, work),
            instance(&warm, work),
            instance(&warm, work),
        ];
        Self {
            _thawing: Thawing(frost.clone()),
            all,
            frost,
        }
    }

    fn gateway(&self, setting: Setting) -> Gateway {
        let gateway = Gateway::start(setting);
        gateway.publish_and_wait(one_service(1, self.endpoints()));
        gateway
    }

    fn endpoints(&self) -> Vec<mainstay_model::Endpoint> {
        let all = self.all.iter().zip(1..);
        all.map(|(one, number)| endpoint(number, one.address))
            .collect()
    }
}

fn with_seams(seams: Seams) -> Setting {
    Setting {
        seams,
        limits: GatewayLimits {
            answer_time: Duration::from_secs(2),
            ..GatewayLimits::default()
        },
        ..Setting::default()
    }
}

/// Clients that ask one request after the other until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<Mutex<Vec<(Instant, Duration, u16)>>>,
    clients: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn start(entry: SocketAddr, clients: usize) -> Self {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let clients = (0..clients).map(|_| {
            let (stop, answers) = (Arc::clone(&stop), Arc::clone(&answers));
            thread::spawn(move || ask(entry, &stop, &answers))
        });
        Self {
            clients: clients.collect(),
            stop,
            answers,
        }
    }

    fn wait_for(&self, count: usize) {
        wait_until(SOON, "there are answers", || {
            let found = self.answers.lock().unwrap().len();
            (found >= count)
                .then_some(())
                .ok_or_else(|| found.to_string())
        });
    }

    fn end(mut self) -> Vec<(Instant, Duration, u16)> {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients.drain(..) {
            client.join().unwrap();
        }
        std::mem::take(&mut self.answers.lock().unwrap())
    }
}

fn ask(entry: SocketAddr, stop: &AtomicBool, answers: &Mutex<Vec<(Instant, Duration, u16)>>) {
    let mut client = connect(entry);
    while !stop.load(Ordering::SeqCst) {
        let at = Instant::now();
        write_request(&mut client, "GET", "/", &[], b"");
        let reply = read_reply(&mut client);
        answers
            .lock()
            .unwrap()
            .push((at, at.elapsed(), reply.status));
        if reply.end.is_err() || reply.status != 200 {
            client = connect(entry);
        }
    }
}

/// Freezes the first of three under load; gives the answers and how many requests it had after it
/// should have been noticed.
fn freeze_under_load(seams: Seams) -> (Vec<(Instant, Duration, u16)>, Duration, usize) {
    let three = Three::new(Duration::from_millis(5));
    let gateway = three.gateway(with_seams(seams));
    let load = Load::start(gateway.entry, 12);
    load.wait_for(600);
    let before = load.answers.lock().unwrap().len();
    three.frost.freeze();
    let frozen_at = Instant::now();
    load.wait_for(before + 400);
    let noticed = three.all[0].count();
    load.wait_for(before + 2_000);
    let late = three.all[0].count() - noticed;
    let answers = load.end();
    let control = answers
        .iter()
        .filter(|(at, took, _)| *at + *took < frozen_at);
    let control = control.map(|(_, took, _)| *took).max().unwrap();
    (answers, control, late)
}

#[test]
fn an_instance_that_freezes_costs_no_get_its_answer_or_300_ms_and_is_left_alone() {
    let (answers, control, late) = freeze_under_load(Seams::default());
    assert!(answers.iter().all(|(_, _, status)| *status == 200));
    let slowest = answers.iter().map(|(_, took, _)| *took).max().unwrap();
    // A machine that is busy with other things adds its own pauses to both.
    assert!(
        slowest <= BAR.max(control + BAR),
        "{slowest:?}, before: {control:?}"
    );
    // One each second may show whether it is well again.
    assert!(late <= 4, "{late} requests went to a frozen instance");
}

#[test]
fn without_second_copies_a_frozen_instance_lets_clients_hang() {
    let hedging = Hedging::Off;
    let three = Three::new(Duration::from_millis(5));
    let gateway = three.gateway(with_seams(Seams {
        hedging,
        ..Seams::default()
    }));
    three.frost.freeze();
    let replies: Vec<_> = (0..6)
        .map(|_| {
            let entry = gateway.entry;
            thread::spawn(move || {
                (
                    Instant::now(),
                    send(entry, "GET", "/", &[], b""),
                    Instant::now(),
                )
            })
        })
        .collect();
    let replies = replies.into_iter().map(|reply| reply.join().unwrap());
    let hung =
        replies.filter(|(asked, reply, answered)| reply.status == 504 && *answered - *asked > BAR);
    assert!(
        hung.count() > 0,
        "none of six at once was at the frozen one"
    );
}

#[test]
fn one_that_is_frozen_from_the_beginning_costs_no_get_300_ms_either() {
    let three = Three::new(Duration::ZERO);
    three.frost.freeze();
    let gateway = three.gateway(Setting::default());
    for _ in 0..60 {
        let at = Instant::now();
        assert_eq!(gateway.request("GET", "/").status, 200);
        assert!(at.elapsed() < BAR, "{:?}", at.elapsed());
    }
    assert!(three.all[0].count() > 0, "it was never tried");
}

#[test]
fn what_may_have_an_effect_is_never_sent_again_while_an_instance_is_only_frozen() {
    let limits = GatewayLimits {
        answer_time: Duration::from_millis(300),
        ..GatewayLimits::default()
    };
    for method in ["POST", "PUT", "DELETE"] {
        let three = Three::new(Duration::ZERO);
        three.frost.freeze();
        let gateway = three.gateway(Setting {
            limits,
            ..Setting::default()
        });
        let mut sent = 0;
        while three.all[0].count() == 0 {
            let reply = send(gateway.entry, method, "/", &[], b"once");
            sent += 1;
            let at_the_frozen = three.all[0].count() > 0;
            assert_eq!(
                reply.status,
                if at_the_frozen { 504 } else { 200 },
                "{method}"
            );
        }
        let all: usize = three.all.iter().map(Instance::count).sum();
        assert_eq!(all, sent, "{method}");
    }
}

/// Lets a request of `method` wait at a frozen instance, which is declared dead then: at once, or
/// after it has left the routes. Gives the answer.
fn declared_dead(method: &'static str, verdicts: Verdicts, left_before: bool) -> (Reply, usize) {
    let three = Three::new(Duration::ZERO);
    three.frost.freeze();
    let gateway = three.gateway(with_seams(Seams {
        hedging: Hedging::Off,
        verdicts,
        ..Seams::default()
    }));
    let entry = gateway.entry;
    let mut waiting = None;
    while three.all[0].count() == 0 {
        let asked = thread::spawn(move || send(entry, method, "/", &[], b""));
        wait_until(SOON, "it is answered or frozen", || {
            let is_over = asked.is_finished() || three.all[0].count() > 0;
            is_over.then_some(()).ok_or_else(String::new)
        });
        waiting = Some(asked);
    }
    let mut routing = one_service(2, three.endpoints().split_off(1));
    if left_before {
        gateway.publish_and_wait(routing.clone());
        routing.generation.revision.0 += 1;
    }
    routing.services[0].dead.push(Dead {
        instance: support::instance(1),
        attempt: Attempt::FIRST,
    });
    gateway.publish_and_wait(routing);
    let reply = waiting.unwrap().join().unwrap();
    (reply, three.all[0].count())
}

#[test]
fn a_verdict_of_death_sends_a_put_elsewhere_and_ends_a_post_at_once() {
    for left_before in [false, true] {
        let (put, tries) = declared_dead("PUT", Verdicts::Heeded, left_before);
        assert_eq!((put.status, tries), (200, 1));
        let (post, _) = declared_dead("POST", Verdicts::Heeded, left_before);
        let reason = post.header("mainstay-reason");
        assert_eq!((post.status, reason), (502, Some("lost-in-flight")));
    }
    let (put, _) = declared_dead("PUT", Verdicts::Ignored, false);
    assert_eq!(put.status, 504, "without it, it waits to the end");
}

/// An address at which no connection comes about: its queue is full, and nobody takes any out.
struct Hole {
    address: SocketAddr,
    _listener: Socket,
    _fill: Vec<TcpStream>,
}

impl Hole {
    fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut fill = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(50)) {
            fill.push(stream);
        }
        Self {
            address,
            _listener: listener,
            _fill: fill,
        }
    }
}

/// The slowest of twenty requests to three endpoints of which one is a hole.
fn slowest_past_a_hole(patience: Patience) -> Duration {
    let (hole, one, two) = (Hole::new(), Instance::named("one"), Instance::named("two"));
    let gateway = Gateway::start(Setting {
        seams: Seams {
            patience,
            ..Seams::default()
        },
        ..Setting::default()
    });
    gateway.publish_and_wait(one_service(
        1,
        vec![
            endpoint(1, hole.address),
            endpoint(2, one.address),
            endpoint(3, two.address),
        ],
    ));
    let asked = |at: usize| {
        let method = ["POST", "GET", "PUT", "DELETE"][at % 4];
        let asked = Instant::now();
        let reply = send(gateway.entry, method, "/", &[], b"x");
        assert_eq!(reply.status, 200, "{method}");
        asked.elapsed()
    };
    let slowest = (0..20).map(asked).max().unwrap();
    assert_eq!(one.count() + two.count(), 20, "none was sent twice");
    slowest
}

#[test]
fn a_connection_that_does_not_come_about_costs_no_method_300_ms() {
    let slowest = slowest_past_a_hole(Patience::Short);
    assert!(slowest < BAR, "{slowest:?}");
    let patient = slowest_past_a_hole(Patience::Endless);
    assert!(patient > BAR, "the hole was never tried: {patient:?}");
}

#[test]
fn a_put_is_sent_again_after_a_reset_and_without_retries_it_is_lost() {
    for (retries, lost) in [(Retries::On, 0), (Retries::Off, 1)] {
        let (mute, good) = (Instance::mute(), Instance::named("good"));
        let gateway = Gateway::start(with_seams(Seams {
            retries,
            ..Seams::default()
        }));
        let both = vec![endpoint(1, mute.address), endpoint(2, good.address)];
        gateway.publish_and_wait(one_service(1, both));
        let mut failed = 0;
        while mute.count() == 0 {
            let reply = send(gateway.entry, "PUT", "/", &[], b"kept for another try");
            failed += usize::from(reply.status != 200);
        }
        assert_eq!(failed, lost, "{retries:?}");
    }
}

#[test]
fn a_post_with_a_key_is_sent_again_only_where_its_service_heeds_the_key() {
    for (heeded, lost) in [(true, 0), (false, 1)] {
        let (mute, good) = (Instance::mute(), Instance::named("good"));
        let both = vec![endpoint(1, mute.address), endpoint(2, good.address)];
        let mut routing = one_service(1, both);
        routing.services[0].traffic.retry.idempotency_key = heeded;
        let gateway = Gateway::with(routing);
        let mut failed = 0;
        while mute.count() == 0 {
            let key = [("idempotency-key", "\"8e03978e\"")];
            let reply = send(gateway.entry, "POST", "/", &key, b"pay once");
            failed += usize::from(reply.status != 200);
        }
        assert_eq!(failed, lost, "heeded: {heeded}");
    }
}

#[test]
fn a_service_whose_reads_do_something_gets_no_second_copies() {
    let three = Three::new(Duration::ZERO);
    three.frost.freeze();
    let gateway = Gateway::start(with_seams(Seams::default()));
    let mut routing = one_service(1, three.endpoints());
    routing.services[0].traffic.retry.hedge = false;
    gateway.publish_and_wait(routing);
    let mut asked = 0;
    while three.all[0].count() == 0 {
        gateway.request("GET", "/");
        asked += 1;
    }
    let all: usize = three.all.iter().map(Instance::count).sum();
    assert_eq!(all, asked);
}

#[test]
fn an_instance_gets_no_more_at_once_than_its_service_says() {
    let frost = Frost::default();
    let instance = instance(&frost, Duration::ZERO);
    let _thawing = Thawing(frost.clone());
    frost.freeze();
    let gateway = Gateway::start(Setting::default());
    let mut routing = one_service(1, vec![endpoint(1, instance.address)]);
    routing.services[0].traffic.requests = std::num::NonZeroU32::new(1);
    routing.services[0].traffic.queue.time = Some(SOON);
    gateway.publish_and_wait(routing);
    let entry = gateway.entry;
    let ask = || thread::spawn(move || send(entry, "POST", "/", &[], b""));
    let (first, second) = (ask(), ask());
    wait_until(SOON, "one is there", || {
        (instance.count() > 0).then_some(()).ok_or_else(String::new)
    });
    frost.thaw();
    assert_eq!(first.join().unwrap().status, 200);
    assert_eq!(second.join().unwrap().status, 200);
    assert_eq!(
        instance.seen().last().unwrap().connection,
        0,
        "one after the other"
    );
}

#[test]
fn a_services_own_line_is_one_over_all_workers() {
    const CLIENTS: usize = 60;
    const IN_LINE: usize = 2;
    let frost = Frost::default();
    let instance = instance(&frost, Duration::ZERO);
    let _thawing = Thawing(frost.clone());
    frost.freeze();
    let gateway = Gateway::start(Setting {
        workers: IN_LINE,
        ..Setting::default()
    });
    let mut routing = one_service(1, vec![endpoint(1, instance.address)]);
    let traffic = &mut routing.services[0].traffic;
    traffic.requests = std::num::NonZeroU32::new(1);
    traffic.queue.len = Some(u32::try_from(IN_LINE).unwrap());
    traffic.queue.time = Some(SOON);
    gateway.publish_and_wait(routing);
    let entry = gateway.entry;
    let ask = || thread::spawn(move || send(entry, "POST", "/", &[], b"").status);
    let first = ask();
    wait_until(SOON, "one is there", || {
        (instance.count() > 0).then_some(()).ok_or_else(String::new)
    });
    let all: Vec<_> = (0..CLIENTS).map(|_| ask()).collect();
    wait_until(SOON, "all but those in the line are refused", || {
        let refused = all.iter().filter(|one| one.is_finished()).count();
        (refused == CLIENTS - IN_LINE)
            .then_some(())
            .ok_or_else(|| refused.to_string())
    });
    frost.thaw();
    let mut statuses: Vec<_> = all.into_iter().map(|one| one.join().unwrap()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses[..IN_LINE], [200; IN_LINE]);
    assert_eq!(statuses[IN_LINE..], [503; CLIENTS - IN_LINE]);
    assert_eq!(first.join().unwrap(), 200);
}

/// Asks for more than an instance is allowed at once; gives what came beyond that.
fn overload(limiting: Limiting) -> (Vec<Reply>, usize) {
    // What an instance of which nothing is known may have, and a few in the line.
    const AT_ONCE: usize = 200;
    const IN_LINE: usize = 5;
    const MORE: usize = 12;
    let frost = Frost::default();
    let instance = instance(&frost, Duration::ZERO);
    let _thawing = Thawing(frost.clone());
    frost.freeze();
    let gateway = Gateway::start(Setting {
        seams: Seams {
            limiting,
            ..Seams::default()
        },
        limits: GatewayLimits {
            queue_len: u32::try_from(IN_LINE).unwrap(),
            queue_time: Duration::from_secs(10),
            ..GatewayLimits::default()
        },
        ..Setting::default()
    });
    gateway.publish_and_wait(one_service(1, vec![endpoint(1, instance.address)]));
    let mut clients: Vec<_> = (0..AT_ONCE + IN_LINE)
        .map(|_| connect(gateway.entry))
        .collect();
    for (at, client) in clients.iter_mut().enumerate() {
        write_request(client, "GET", "/", &[], b"");
        let expected = (at + 1).min(AT_ONCE);
        wait_until(SOON, "it is at the instance", || {
            let found = instance.count();
            (found >= expected)
                .then_some(())
                .ok_or_else(|| found.to_string())
        });
    }
    let entry = gateway.entry;
    let more: Vec<_> = (0..MORE)
        .map(|_| thread::spawn(move || send(entry, "POST", "/", &[], b"")))
        .collect();
    if limiting == Limiting::On {
        wait_until(SOON, "they are refused", || {
            let ended = more.iter().filter(|one| one.is_finished()).count();
            (ended == MORE)
                .then_some(())
                .ok_or_else(|| ended.to_string())
        });
    } else {
        wait_until(SOON, "they are at the instance", || {
            let found = instance.count();
            (found == AT_ONCE + IN_LINE + MORE)
                .then_some(())
                .ok_or_else(|| found.to_string())
        });
    }
    frost.thaw();
    let more = more.into_iter().map(|one| one.join().unwrap()).collect();
    let served = clients.iter_mut().map(|client| read_reply(client).status);
    let served = served.filter(|status| *status == 200).count();
    (more, served)
}

#[test]
fn beyond_what_an_instance_bears_and_the_line_holds_requests_are_refused_at_once() {
    let (more, served) = overload(Limiting::On);
    for reply in &more {
        assert_eq!(
            (
                reply.status,
                reply.header("mainstay-reason"),
                reply.header("retry-after")
            ),
            (503, Some("overloaded"), Some("1"))
        );
    }
    assert_eq!(
        served, 205,
        "who was let in or stood in the line is answered"
    );
    let (more, _) = overload(Limiting::Off);
    assert!(
        more.iter().all(|reply| reply.status == 200),
        "nothing is refused"
    );
}

#[test]
fn in_an_overload_a_few_health_checks_at_a_time_get_through_and_nothing_like_them_does() {
    /// How many at a time; see `BEYOND_MAX` of the balancer.
    const FEW: usize = 10;
    let frost = Frost::default();
    let instance = instance(&frost, Duration::ZERO);
    let _thawing = Thawing(frost.clone());
    frost.freeze();
    let gateway = Gateway::start(Setting::default());
    let mut routing = one_service(1, vec![endpoint(1, instance.address)]);
    let routes = &mut routing.services[0];
    routes.health_path = Some(mainstay_model::PathPrefix::parse("/health").unwrap());
    routes.traffic.requests = std::num::NonZeroU32::new(1);
    routes.traffic.queue.len = Some(1);
    routes.traffic.queue.time = Some(SOON);
    gateway.publish_and_wait(routing);
    let entry = gateway.entry;
    let ask = |method: &'static str, path: &'static str| {
        thread::spawn(move || send(entry, method, path, &[], b""))
    };
    let reach = |count: usize| {
        wait_until(SOON, "they are at the instance", || {
            let found = instance.count();
            (found == count)
                .then_some(())
                .ok_or_else(|| found.to_string())
        });
    };
    let mut served = vec![ask("POST", "/")];
    reach(1);
    // One of them stands in the line, and the other finds it full.
    let mut two = vec![ask("POST", "/"), ask("POST", "/")];
    wait_until(SOON, "one is refused", || {
        let refused = two.iter().position(thread::JoinHandle::is_finished);
        refused.map(|at| two.remove(at)).ok_or_else(String::new)
    });
    served.append(&mut two);
    for at in 0..FEW {
        let asks = ["/health", "/health?verbose"];
        served.push(ask(["GET", "HEAD"][at % 2], asks[at % asks.len()]));
    }
    reach(1 + FEW);
    for (method, path) in [
        ("GET", "/health"),
        ("HEAD", "/health"),
        ("POST", "/health"),
        ("GET", "/health/x"),
        ("GET", "/healthy"),
        ("GET", "/"),
    ] {
        let refused = send(entry, method, path, &[], b"");
        assert_eq!(refused.status, 503, "{method} {path}");
        assert_eq!(refused.header("mainstay-reason"), Some("overloaded"));
    }
    assert_eq!(instance.count(), 1 + FEW);
    frost.thaw();
    for one in served {
        assert_eq!(one.join().unwrap().status, 200);
    }
    assert_eq!(send(entry, "GET", "/health", &[], b"").status, 200);
}

#[test]
fn clients_that_are_slow_to_send_do_not_make_their_instances_look_slow() {
    const UPLOADS: usize = 40;
    let slow = Duration::from_millis(800);
    let three = Three::new(Duration::ZERO);
    let gateway = three.gateway(Setting::default());
    let mut clients: Vec<_> = (0..UPLOADS).map(|_| connect(gateway.entry)).collect();
    for client in &mut clients {
        write!(
            client,
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n1"
        )
        .unwrap();
    }
    let begun = Instant::now();
    wait_until(SOON, "the clients have let their instances wait", || {
        let all: usize = three.all.iter().map(Instance::count).sum();
        let waited = begun.elapsed();
        (all == UPLOADS && waited >= slow)
            .then_some(())
            .ok_or_else(|| format!("{all} for {waited:?}"))
    });
    for client in &mut clients {
        client.write_all(b"2").unwrap();
        assert_eq!(read_reply(client).status, 200);
    }
    // A second copy goes out after what nearly all answers took: soon, as none took long.
    three.frost.freeze();
    let mut slowest = Duration::ZERO;
    while !three.all[0]
        .seen()
        .iter()
        .any(|seen| seen.method() == "GET")
    {
        let asked = Instant::now();
        assert_eq!(gateway.request("GET", "/").status, 200);
        slowest = slowest.max(asked.elapsed());
    }
    assert!(slowest < BAR, "{slowest:?}");
}

#[test]
fn a_slow_instance_gets_less() {
    let warm = Frost::default();
    let slow = instance(&warm, Duration::from_millis(40));
    let fast = [
        instance(&warm, Duration::from_millis(1)),
        instance(&warm, Duration::from_millis(1)),
    ];
    let gateway = Gateway::with(one_service(
        1,
        vec![
            endpoint(1, slow.address),
            endpoint(2, fast[0].address),
            endpoint(3, fast[1].address),
        ],
    ));
    let load = Load::start(gateway.entry, 6);
    load.wait_for(1_200);
    let answers = load.end();
    assert!(answers.iter().all(|(_, _, status)| *status == 200));
    assert!(
        slow.count() * 10 < answers.len(),
        "{} of {}",
        slow.count(),
        answers.len()
    );
}

const SERVER: &str = r#"
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

#[test]
fn system_a_process_that_is_stopped_by_a_signal_costs_no_get() {
    let dir = TempDir::new("stopped");
    let servers: Vec<_> = (1..=3)
        .map(|number| {
            let address = support::nobody();
            let mut command = Command::new(program("python3"));
            command.args(["-c", SERVER, &address.port().to_string()]);
            let server = Spawned::start(&dir, &format!("server-{number}"), &mut command);
            wait_until(SOON, "it listens", || {
                TcpStream::connect(address)
                    .map(drop)
                    .map_err(|error| error.to_string())
            });
            (server, endpoint(number, address))
        })
        .collect();
    let endpoints = servers.iter().map(|(_, endpoint)| endpoint.clone());
    let gateway = Gateway::with(one_service(1, endpoints.collect()));
    let load = Load::start(gateway.entry, 4);
    load.wait_for(300);
    servers[0].0.signal(Signal::STOP);
    let stopped_at = Instant::now();
    let before = load.answers.lock().unwrap().len();
    load.wait_for(before + 600);
    servers[0].0.signal(Signal::CONT);
    let answers = load.end();
    assert!(answers.iter().all(|(_, _, status)| *status == 200));
    let (before, after): (Vec<_>, Vec<_>) = answers.iter().partition(|(at, _, _)| *at < stopped_at);
    let slowest = |answers: &[&(Instant, Duration, u16)]| {
        answers.iter().map(|(_, took, _)| *took).max().unwrap()
    };
    let control = slowest(&before);
    assert!(
        slowest(&after) <= control + BAR,
        "{:?}, before: {control:?}",
        slowest(&after)
    );
}

#[test]
fn a_listener_that_accepts_nothing_is_a_hole() {
    let hole = Hole::new();
    let connected = TcpStream::connect_timeout(&hole.address, Duration::from_millis(50));
    assert!(connected.is_err());
    assert!(
        TcpListener::bind(hole.address).is_err(),
        "it is there nevertheless"
    );
}
