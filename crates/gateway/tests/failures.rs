//! What one client sees when instances fail.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use mainstay_gateway::{Retries, Seams};
use mainstay_model::routing::EndpointHealth;
use mainstay_testkit::wait_until;
use support::{
    Gateway, Instance, SOON, Seen, Setting, Then, answer, connect, endpoint, nobody, one_service,
    read_body, read_reply, send, write_request,
};

#[test]
fn a_refused_connection_is_retried_elsewhere_for_every_method_with_its_body() {
    let instance = Instance::start(|seen, stream| {
        let body = read_body(seen, stream)?;
        answer(stream, "200 OK", &[], &body)?;
        Ok(Then::Next)
    });
    for method in ["POST", "PUT", "DELETE", "GET"] {
        let gateway = Gateway::with(one_service(
            1,
            vec![
                endpoint(1, nobody()),
                endpoint(2, nobody()),
                endpoint(3, instance.address),
            ],
        ));
        for _ in 0..10 {
            let reply = send(gateway.entry, method, "/", &[], b"the body");
            assert_eq!(
                (reply.status, reply.text().as_str()),
                (200, "the body"),
                "{method}"
            );
        }
    }
}

#[test]
fn without_retries_a_refused_connection_reaches_the_client() {
    let seams = Seams {
        retries: Retries::Off,
        ..Seams::default()
    };
    let gateway = Gateway::start(Setting {
        seams,
        ..Setting::default()
    });
    gateway.publish_and_wait(one_service(1, vec![endpoint(1, nobody())]));
    let reply = gateway.request("GET", "/");
    assert_eq!(
        (reply.status, reply.header("mainstay-reason")),
        (503, Some("all-failed"))
    );
    assert_eq!(reply.header("mainstay-instance"), Some("orders-1"));
}

#[test]
fn a_request_whose_connection_broke_is_sent_again_unless_it_could_have_its_effect_twice() {
    let mute = Instance::mute();
    let good = Instance::named("good");
    let both = vec![endpoint(1, mute.address), endpoint(2, good.address)];
    let gateway = Gateway::with(one_service(1, both));
    for method in [
        "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "GET", "PUT",
    ] {
        assert_eq!(gateway.request(method, "/").status, 200, "{method}");
        let reply = send(gateway.entry, "PUT", "/", &[], b"its body");
        assert_eq!(reply.status, 200);
    }
    assert!(mute.count() > 0, "the mute one was never tried");
    gateway.publish_and_wait(one_service(2, vec![endpoint(1, mute.address)]));
    for method in ["POST", "PATCH", "POST"] {
        let before = mute.count();
        let reply = send(gateway.entry, method, "/", &[], b"x");
        assert_eq!(
            (reply.status, reply.header("mainstay-reason")),
            (502, Some("lost-in-flight"))
        );
        assert_eq!(reply.header("mainstay-instance"), Some("orders-1"));
        assert_eq!(mute.count(), before + 1, "{method} was sent more than once");
    }
}

#[test]
fn a_safe_request_is_sent_again_with_its_body_unless_that_is_too_long_to_be_kept() {
    let fails = || {
        Instance::start(|seen, stream| {
            read_body(seen, stream)?;
            Ok(Then::Close)
        })
    };
    let (one, two) = (fails(), fails());
    let gateway = Gateway::with(one_service(
        1,
        vec![endpoint(1, one.address), endpoint(2, two.address)],
    ));
    let count = || one.count() + two.count();
    let reply = send(gateway.entry, "GET", "/", &[], &vec![b'x'; 10_000]);
    assert_eq!(reply.status, 502);
    assert_eq!(
        count(),
        4,
        "every try had the body, or it would wait for it"
    );
    let reply = send(gateway.entry, "GET", "/", &[], &vec![b'x'; 200_000]);
    assert_eq!(
        (reply.status, reply.header("mainstay-reason")),
        (502, Some("lost-in-flight"))
    );
    assert_eq!(count(), 5);
}

#[test]
fn an_answer_of_a_gateway_type_is_tried_elsewhere_only_if_that_is_safe() {
    let busy = Instance::start(|seen, stream| {
        read_body(seen, stream)?;
        answer(stream, "503 Service Unavailable", &[], b"busy")?;
        Ok(Then::Next)
    });
    let good = Instance::named("good");
    let both = vec![endpoint(1, busy.address), endpoint(2, good.address)];
    let gateway = Gateway::with(one_service(1, both));
    for _ in 0..10 {
        assert_eq!(gateway.request("GET", "/").text(), "good");
    }
    assert!(busy.count() > 0);
    gateway.publish_and_wait(one_service(2, vec![endpoint(1, busy.address)]));
    for method in ["POST", "GET"] {
        let reply = gateway.request(method, "/");
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (503, "busy"),
            "{method}"
        );
        assert_eq!(
            reply.header("mainstay-reason"),
            None,
            "it is the instance's own answer"
        );
    }
}

#[test]
fn retries_stay_within_their_budget() {
    const REQUESTS: usize = 200;
    let mute = Instance::mute();
    // Four, so that no request waits for another round.
    let endpoints = (1..=4)
        .map(|number| endpoint(number, mute.address))
        .collect();
    let gateway = Gateway::with(one_service(1, endpoints));
    let started = Instant::now();
    for _ in 0..REQUESTS {
        assert_eq!(gateway.request("GET", "/").status, 502);
    }
    let retries = mute.count() - REQUESTS;
    // A reserve of 100, a fifth of the requests, and 10 for each second that passes.
    let passed = usize::try_from(started.elapsed().as_secs()).unwrap() + 1;
    let most = 100 + REQUESTS / 5 + 10 * passed + 10;
    assert!(
        (100..=most).contains(&retries),
        "{retries} of {most} retries"
    );
}

#[test]
fn a_pooled_connection_that_the_instance_closed_harms_no_request_of_any_method() {
    let instance = Instance::start(|seen, stream| {
        read_body(seen, stream)?;
        answer(stream, "200 OK", &[], b"ok")?;
        // It did not say so.
        Ok(Then::Close)
    });
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    let mut client = connect(gateway.entry);
    for at in 0..60 {
        let method = ["GET", "POST"][at % 2];
        write_request(&mut client, method, "/", &[], b"x");
        let reply = read_reply(&mut client);
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (200, "ok"),
            "{method} {at}"
        );
        wait_until(SOON, "it has closed", || {
            (instance.closed() == at + 1)
                .then_some(())
                .ok_or_else(String::new)
        });
    }
    assert_eq!(instance.count(), 60, "none was sent twice");
}

#[test]
fn connections_to_an_instance_are_used_again_and_closed_when_it_is_removed() {
    let instance = Instance::named("one");
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    for _ in 0..20 {
        assert_eq!(gateway.request("GET", "/").status, 200);
    }
    assert!(instance.seen().iter().all(|seen| seen.connection == 0));
    gateway.publish_and_wait(one_service(2, Vec::new()));
    wait_until(SOON, "the pool is purged", || {
        (instance.closed() == 1)
            .then_some(())
            .ok_or_else(String::new)
    });
}

#[test]
fn one_of_three_killed_under_load_costs_no_get() {
    let slow = |name: &'static str| {
        Instance::start(move |seen, stream| {
            read_body(seen, stream)?;
            // Long enough that some are in flight at any moment.
            thread::park_timeout(Duration::from_millis(5));
            answer(stream, "200 OK", &[], name.as_bytes())?;
            Ok(Then::Next)
        })
    };
    let mut instances = [slow("a"), slow("b"), slow("c")];
    let gateway = Gateway::start(Setting {
        workers: 2,
        ..Setting::default()
    });
    let endpoints = instances
        .iter()
        .zip(1..)
        .map(|(one, number)| endpoint(number, one.address));
    gateway.publish_and_wait(one_service(1, endpoints.collect()));
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let (entry, stop) = (gateway.entry, Arc::clone(&stop));
            thread::spawn(move || {
                let (mut good, mut bad) = (0, Vec::new());
                let mut client = connect(entry);
                while !stop.load(Ordering::SeqCst) {
                    write_request(&mut client, "GET", "/", &[], b"");
                    let reply = read_reply(&mut client);
                    if reply.status == 200 && reply.end.is_ok() {
                        good += 1;
                    } else {
                        bad.push(format!("{reply:?}"));
                        client = connect(entry);
                    }
                }
                (good, bad)
            })
        })
        .collect();
    let enough = |instance: &Instance, count| {
        wait_until(SOON, "there is load", || {
            if instance.count() > count {
                Ok(())
            } else {
                Err(instance.count().to_string())
            }
        });
    };
    enough(&instances[0], 100);
    instances[0].kill();
    let at_kill = instances[1].count();
    enough(&instances[1], at_kill + 300);
    stop.store(true, Ordering::SeqCst);
    let mut good = 0;
    for client in clients {
        let (ok, bad) = client.join().unwrap();
        assert!(bad.is_empty(), "{bad:?}");
        good += ok;
    }
    assert!(good > 500, "{good}");
}

#[test]
fn an_endpoint_whose_probes_fail_gets_nothing_unless_too_few_are_left() {
    let (bad, good) = (Instance::named("bad"), Instance::named("good"));
    let failing = |number| {
        let mut endpoint = endpoint(number, bad.address);
        endpoint.health = EndpointHealth::Failing;
        endpoint
    };
    let passing = |number| endpoint(number, good.address);
    let gateway = Gateway::with(one_service(1, vec![failing(1), passing(2)]));
    for _ in 0..40 {
        assert_eq!(gateway.request("GET", "/").text(), "good");
    }
    gateway.publish_and_wait(one_service(2, vec![failing(1), failing(3), passing(2)]));
    let panicking: Vec<String> = (0..60)
        .map(|_| gateway.request("GET", "/").text())
        .collect();
    assert!(
        panicking.iter().any(|name| name == "bad"),
        "one of three would be overrun"
    );
    gateway.publish_and_wait(one_service(3, vec![failing(1)]));
    assert_eq!(
        gateway.request("GET", "/").text(),
        "bad",
        "better than nothing"
    );
}

#[test]
fn an_endpoint_that_answers_badly_again_and_again_is_ejected_without_a_probe() {
    let sick = Instance::start(|seen, stream| {
        read_body(seen, stream)?;
        answer(stream, "503 Service Unavailable", &[], b"")?;
        Ok(Then::Next)
    });
    let good = Instance::named("good");
    let gateway = Gateway::with(one_service(
        1,
        vec![endpoint(1, sick.address), endpoint(2, good.address)],
    ));
    let mut last_bad = 0;
    for at in 0..100 {
        if gateway.request("POST", "/").status != 200 {
            last_bad = at;
        }
    }
    assert!(
        sick.count() <= 5,
        "{} requests until it was ejected",
        sick.count()
    );
    assert!(last_bad < 95, "{last_bad}");
}

#[test]
fn a_newcomer_gets_its_share_by_and_by() {
    let (old, new) = (Instance::named("old"), Instance::named("new"));
    let first = endpoint(1, old.address);
    let gateway = Gateway::with(one_service(1, vec![first.clone()]));
    for _ in 0..50 {
        gateway.request("GET", "/");
    }
    let started = Instant::now();
    let both = vec![first, endpoint(2, new.address)];
    gateway.publish_and_wait(one_service(2, both));
    for _ in 0..300 {
        gateway.request("GET", "/");
    }
    // It takes a tenth of what it is chosen for at first and all after 10 s; and some for chance.
    let share = (started.elapsed().as_secs_f64() / 10.0).max(0.1);
    let count = f64::from(u32::try_from(new.count()).unwrap());
    assert!(
        (1.0..=300.0 * share + 45.0).contains(&count),
        "{count} of 300"
    );
}

#[test]
fn an_instance_that_is_late_to_listen_is_reached_within_the_second() {
    let address = nobody();
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, address)]));
    let entry = gateway.entry;
    let started = Instant::now();
    let client = thread::spawn(move || send(entry, "POST", "/", &[], b"x"));
    let instance = Arc::new(Mutex::new(None));
    let listener = std::net::TcpListener::bind(address).unwrap();
    let of = Arc::clone(&instance);
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        *of.lock().unwrap() = Some(started.elapsed());
        let mut reader = std::io::BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            std::io::BufRead::read_line(&mut reader, &mut head).unwrap();
        }
        let seen = Seen {
            at: started,
            head,
            connection: 0,
            nth: 0,
        };
        read_body(&seen, &mut reader).unwrap();
        answer(&mut reader, "200 OK", &[], b"late").unwrap();
    });
    let reply = client.join().unwrap();
    server.join().unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (200, "late"));
}
