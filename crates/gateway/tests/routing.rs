//! What a service asks of the gateway beside an instance: matches, redirects, rewriting, clients
//! that stay, shares of versions.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use mainstay_ids::Version;
use mainstay_model::rewrite::{
    FieldChanges, FieldTemplate, PathRewrite, Redirect, RedirectStatus, Rewrite, Target,
};
use mainstay_model::route::{CookieName, FieldName, HttpMatches, MatchValue, MethodName};
use mainstay_model::routing::{EndpointHealth, Handle, Split, VersionRewrite};
use mainstay_model::traffic::{CanaryTraffic, Forwarded, Sticky, Timeouts};
use mainstay_model::{
    Endpoint, HostName, HostPattern, HttpMatch, PathPrefix, Routing, ServiceRoutes, Share,
};
use socket2::{Domain, Socket, Type};
use support::{
    Gateway, Instance, SOON, Then, answer, connect, endpoint, generation, one_service, read_body,
    read_reply, send, service, write_request,
};

const OLD: Version = Version(1);
const NEW: Version = Version(2);

fn field(text: &str) -> FieldName {
    FieldName::parse(text).unwrap()
}

fn template(text: &str) -> FieldTemplate {
    FieldTemplate::parse(text).unwrap()
}

fn path(text: &str) -> PathPrefix {
    PathPrefix::parse(text).unwrap()
}

fn routing(revision: u64, services: Vec<ServiceRoutes>) -> Routing {
    Routing {
        generation: generation(1, revision),
        services,
    }
}

/// One service with these endpoints, changed by `change`.
fn orders(
    revision: u64,
    endpoints: Vec<Endpoint>,
    change: impl FnOnce(&mut ServiceRoutes),
) -> Routing {
    let mut routing = one_service(revision, endpoints);
    change(&mut routing.services[0]);
    routing
}

/// An endpoint that clients can stay with.
fn held(number: u64, instance: &Instance) -> Endpoint {
    Endpoint {
        handle: Some(Handle(number.wrapping_mul(0x9E37_79B9_7F4A_7C15))),
        ..endpoint(number, instance.address)
    }
}

fn of_version(version: Version, endpoint: Endpoint) -> Endpoint {
    Endpoint {
        version,
        ..endpoint
    }
}

fn by_cookie(routes: &mut ServiceRoutes) {
    let name = CookieName::parse("instance").unwrap();
    routes.traffic.sticky = Some(Sticky::Cookie { name, ttl: None });
}

#[test]
fn a_version_of_a_service_is_chosen_by_host_path_method_header_and_cookie() {
    let names = ["any", "below", "api", "beta", "cookie", "writes"];
    let instances = names.map(Instance::named);
    let on = |host: Option<&str>, at: &str| {
        HttpMatch::new(host.map(|host| HostPattern::parse(host).unwrap()), path(at))
    };
    let mut beta = on(None, "/");
    let value = MatchValue::parse("2").unwrap();
    beta.headers.insert(field("X-Version"), Some(value));
    let mut cookie = beta.clone();
    cookie
        .cookies
        .insert(CookieName::parse("beta").unwrap(), None);
    let mut writes = on(Some("*.example"), "/");
    writes.methods = ["POST", "PUT"]
        .map(|one| MethodName::parse(one).unwrap())
        .into();
    let matches = [
        vec![on(None, "/")],
        vec![on(Some("*.example"), "/")],
        vec![on(None, "/api"), on(Some("api.example"), "/v1")],
        vec![beta],
        vec![cookie],
        vec![writes],
    ];
    let services = names.iter().zip(&instances).zip(matches).zip(1..);
    let services = services.map(|(((name, instance), matches), number)| {
        let endpoints = vec![endpoint(number, instance.address)];
        let mut routes = service(name, None, "/", endpoints);
        routes.http = HttpMatches::new(matches).ok();
        routes
    });
    let gateway = Gateway::with(routing(1, services.collect()));
    let ask =
        |method, at, headers: &[(&str, &str)]| send(gateway.entry, method, at, headers, b"").text();
    let version = ("x-version", "2");
    assert_eq!(ask("GET", "/", &[("host", "localhost")]), "any");
    assert_eq!(ask("GET", "/", &[("host", "a.b.example")]), "below");
    assert_eq!(ask("POST", "/", &[("host", "a.b.example")]), "writes");
    assert_eq!(ask("GET", "/v1", &[("host", "api.example")]), "api");
    assert_eq!(ask("GET", "/api/x", &[("host", "localhost")]), "api");
    assert_eq!(ask("GET", "/", &[("host", "localhost"), version]), "beta");
    let with_cookie = [("host", "localhost"), version, ("cookie", "a=1; beta=x")];
    assert_eq!(ask("GET", "/", &with_cookie), "cookie");
    let wrong = [("host", "localhost"), ("x-version", "20")];
    assert_eq!(ask("GET", "/", &wrong), "any");
    assert_eq!(
        ask("GET", "/api", &with_cookie),
        "api",
        "the longer path wins"
    );
}

#[test]
fn a_redirect_names_the_place_and_the_connection_goes_on() {
    let instance = Instance::named("shop");
    let gateway = Gateway::with(orders(1, vec![endpoint(1, instance.address)], |routes| {
        let mut redirect = |at: &str, to: &str, status| {
            routes.traffic.redirects.push(Redirect {
                on: HttpMatch::new(None, path(at)),
                to: Target::parse(to).unwrap(),
                status,
            });
        };
        redirect(
            "/old",
            "/new{rest}{query}",
            RedirectStatus::PermanentRedirect,
        );
        redirect(
            "/secure",
            "https://{host}{path}",
            RedirectStatus::MovedPermanently,
        );
        redirect("/go", "/{rest}", RedirectStatus::Found);
    }));
    let mut client = connect(gateway.entry);
    let mut ask = |method: &str, at: &str, body: &[u8]| {
        write_request(&mut client, method, at, &[], body);
        if method == "HEAD" {
            let head = support::read_head(&mut client);
            return (head, String::new());
        }
        let reply = read_reply(&mut client);
        (reply.head.clone(), reply.text())
    };
    let (head, text) = ask("POST", "/old/7?a=b", b"a body that nobody reads");
    assert!(
        head.starts_with("HTTP/1.1 308 Permanent Redirect\r\n"),
        "{head}"
    );
    assert_eq!(support::header(&head, "location"), Some("/new/7?a=b"));
    assert_eq!(text, "Permanent Redirect: /new/7?a=b\n");
    assert!(support::header(&head, "x-request-id").is_some());
    let (head, _) = ask("HEAD", "/secure/x", b"");
    assert!(head.starts_with("HTTP/1.1 301 "), "{head}");
    let location = support::header(&head, "location");
    assert_eq!(location, Some("https://shop.example/secure/x"));
    let (head, _) = ask("GET", "/go//evil.example/x", b"");
    assert_eq!(support::header(&head, "location"), Some("/evil.example/x"));
    assert_eq!(instance.count(), 0);
    assert_eq!(ask("GET", "/other", b"").1, "shop");
}

/// Answers with the head that it got.
fn mirror() -> Instance {
    Instance::start(|seen, stream| {
        read_body(seen, stream)?;
        let headers = [
            ("server", "secret/1.0"),
            ("x-kept", "1"),
            ("X-Twice", "theirs"),
        ];
        answer(stream, "200 OK", &headers, seen.head.as_bytes())?;
        Ok(Then::Next)
    })
}

fn changes(remove: &[&str], set: &[(&str, &str)], add: &[(&str, &str)]) -> FieldChanges {
    let pairs = |all: &[(&str, &str)]| {
        let pairs = all.iter();
        pairs
            .map(|(name, value)| (field(name), template(value)))
            .collect::<BTreeMap<_, _>>()
    };
    FieldChanges {
        remove: remove.iter().map(|name| field(name)).collect(),
        set: pairs(set),
        add: pairs(add),
    }
}

#[test]
fn requests_and_answers_are_written_anew_for_the_version_that_wants_it() {
    let instance = mirror();
    let rewrite = Rewrite {
        host: HostName::parse("inner.example").ok(),
        path: Some(PathRewrite::Strip(path("/shop"))),
        request: changes(
            &["Authorization"],
            &[("X-User", "{client} {request_id}")],
            &[("X-Asked", "{host}{path}{query}")],
        ),
        response: changes(
            &["Server"],
            &[("X-Id", "{request_id}")],
            &[("X-Twice", "ours")],
        ),
    };
    let version_wants = |version| {
        let rewrite = rewrite.clone();
        move |routes: &mut ServiceRoutes| routes.rewrites.push(VersionRewrite { version, rewrite })
    };
    let endpoint = endpoint(1, instance.address);
    let gateway = Gateway::with(orders(1, vec![endpoint.clone()], version_wants(OLD)));
    let headers = [
        ("authorization", "Basic x"),
        ("x-user", "root"),
        ("X-USER", "admin"),
        ("x-asked", "mine"),
        ("x-request-id", "id-7"),
    ];
    let reply = send(gateway.entry, "GET", "/shop//7?a=/shop", &headers, b"");
    let seen = reply.text();
    assert!(
        seen.starts_with("GET /7?a=/shop HTTP/1.1\r\nhost: inner.example\r\n"),
        "{seen}"
    );
    let lines = |name: &str| -> Vec<String> {
        let lines = seen.lines().filter_map(|line| line.split_once(": "));
        let found = lines.filter(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_owned()).collect()
    };
    assert_eq!(lines("authorization"), [""; 0]);
    assert_eq!(lines("x-user"), ["127.0.0.1 id-7"]);
    assert_eq!(lines("x-asked"), ["mine", "shop.example/shop//7?a=/shop"]);
    assert_eq!(
        lines("x-forwarded-host"),
        ["shop.example"],
        "what the client asked for"
    );
    let passed = ["server", "x-kept", "x-id"].map(|name| reply.header(name));
    assert_eq!(passed, [None, Some("1"), Some("id-7")]);
    let twice = reply.head.to_lowercase().matches("x-twice: ").count();
    assert_eq!(twice, 2, "{}", reply.head);

    gateway.publish_and_wait(orders(2, vec![endpoint], version_wants(NEW)));
    let plain = send(gateway.entry, "GET", "/shop/7", &headers, b"");
    assert!(
        plain
            .text()
            .starts_with("GET /shop/7 HTTP/1.1\r\nhost: shop.example\r\n")
    );
    assert_eq!(
        plain.header("server"),
        Some("secret/1.0"),
        "it is of the other version"
    );
}

#[test]
fn an_instance_is_told_by_which_way_a_request_came_and_never_what_a_client_claims() {
    let instance = mirror();
    let told = |forwarded, via, revision, gateway: Option<Gateway>| {
        let routing = orders(revision, vec![endpoint(1, instance.address)], |routes| {
            routes.traffic.trace.forwarded = forwarded;
            routes.traffic.trace.via = via;
        });
        let gateway = match gateway {
            Some(gateway) => {
                gateway.publish_and_wait(routing);
                gateway
            }
            None => Gateway::with(routing),
        };
        let claims = [
            ("forwarded", "for=10.0.0.1;proto=https;host=evil"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("via", "1.1 other"),
        ];
        let text = send(gateway.entry, "GET", "/", &claims, b"").text();
        let value = |name: &str| support::header(&text, name).map(str::to_owned);
        let names = [
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-host",
            "via",
        ];
        (names.map(value), gateway)
    };
    let some = |text: &str| Some(text.to_owned());
    let chain = some("10.0.0.1, 127.0.0.1");
    let standard =
        some("for=10.0.0.1;proto=https;host=evil, for=127.0.0.1;host=\"shop.example\";proto=http");
    let via = some("1.1 other, 1.1 mainstay");
    let (http, host) = (some("http"), some("shop.example"));
    let (x, gateway) = told(Forwarded::X, true, 1, None);
    assert_eq!(
        x,
        [None, chain.clone(), http.clone(), host.clone(), via.clone()]
    );
    let (rfc, gateway) = told(Forwarded::Rfc7239, true, 2, Some(gateway));
    assert_eq!(rfc, [standard.clone(), None, None, None, via]);
    let (both, _) = told(Forwarded::Both, false, 3, Some(gateway));
    assert_eq!(both, [standard, chain, http, host, None]);
}

/// The value of the cookie that an answer sets.
fn cookie_of(reply: &support::Reply) -> Option<String> {
    let value = reply.header("set-cookie")?;
    let (pair, attributes) = value.split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
    Some(pair.to_owned())
}

#[test]
fn a_client_with_a_cookie_stays_over_growth_and_leaves_only_an_instance_that_goes() {
    let names = ["1", "2", "3", "4", "5", "6"];
    let instances = names.map(Instance::named);
    let endpoints = |of: &[u64]| -> Vec<Endpoint> {
        let all = (1..).zip(&instances);
        let listed = all.filter(|(number, _)| of.contains(number));
        listed
            .map(|(number, instance)| held(number, instance))
            .collect()
    };
    let gateway = Gateway::with(orders(1, endpoints(&[1, 2]), by_cookie));
    let ask = |cookie: &str| send(gateway.entry, "GET", "/", &[("cookie", cookie)], b"");
    // Clients, each with the instance that it got.
    let clients: BTreeMap<String, String> = (0..20)
        .map(|_| {
            let reply = ask("other=1");
            (cookie_of(&reply).unwrap(), reply.text())
        })
        .collect();
    assert_eq!(
        clients.len(),
        2,
        "one cookie for each instance: {clients:?}"
    );
    for cookie in clients.keys() {
        let value = cookie.strip_prefix("instance=").unwrap();
        assert!(value.len() == 16 && !value.contains("127"), "{value}");
    }
    let all_stay = |when: &str| {
        for (cookie, home) in &clients {
            for _ in 0..50 {
                let reply = ask(cookie);
                assert_eq!(&reply.text(), home, "{when}");
                assert_eq!(cookie_of(&reply), None, "{when}: it has the right one");
            }
        }
    };
    all_stay("as it was");
    gateway.publish_and_wait(orders(2, endpoints(&[1, 2, 3, 4, 5, 6]), by_cookie));
    all_stay("after four more have come");

    // The first drains: its client alone moves, and stays where it comes to.
    gateway.publish_and_wait(orders(3, endpoints(&[2, 3, 4, 5, 6]), by_cookie));
    for (cookie, home) in &clients {
        let reply = ask(cookie);
        if home == "1" {
            let moved = cookie_of(&reply).expect("it is told");
            assert_eq!(ask(&moved).text(), reply.text());
        } else {
            assert_eq!((&reply.text(), cookie_of(&reply)), (home, None));
        }
    }
    for forged in [
        "instance=ffffffffffffffff",
        "instance=",
        "instance=127.0.0.1",
    ] {
        let reply = ask(forged);
        assert_eq!(reply.status, 200, "{forged}");
        assert!(cookie_of(&reply).is_some(), "{forged}");
    }
}

/// A request from another address of this machine.
fn ask_from(last: u8, entry: SocketAddr) -> String {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 3, last), 0));
    socket.bind(&from.into()).unwrap();
    socket.connect(&entry.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(SOON)).unwrap();
    write_request(&mut stream, "GET", "/", &[("connection", "close")], b"");
    read_reply(&mut stream).text()
}

#[test]
fn by_address_or_header_a_client_stays_and_only_the_share_of_a_lost_instance_moves() {
    let names = ["1", "2", "3", "4"];
    let mut instances = names.map(Instance::named);
    let routes = |revision, instances: &[Instance; 4], sticky: Sticky| {
        let endpoints = (1..).zip(instances).map(|(number, one)| held(number, one));
        orders(revision, endpoints.collect(), |routes| {
            routes.traffic.sticky = Some(sticky);
        })
    };
    let gateway = Gateway::with(routes(1, &instances, Sticky::Header(field("X-User"))));
    let by_header = |user: u32| {
        let user = format!("user-{user}");
        let headers = [("x-user", user.as_str())];
        send(gateway.entry, "GET", "/", &headers, b"").text()
    };
    let before: Vec<String> = (0..60).map(by_header).collect();
    let used: BTreeSet<&String> = before.iter().collect();
    assert_eq!(used.len(), 4, "all have clients");
    assert_eq!((0..60).map(by_header).collect::<Vec<_>>(), before);

    gateway.publish_and_wait(routes(2, &instances, Sticky::Source));
    let by_address = |last: u8| ask_from(last, gateway.entry);
    let before: Vec<String> = (1..=60).map(by_address).collect();
    assert_eq!((1..=60).map(by_address).collect::<Vec<_>>(), before);
    instances[3].kill();
    let mut moved = 0;
    for (last, home) in (1..=60).zip(&before) {
        let now = by_address(last);
        if home == "4" {
            assert_ne!(now, "4");
            moved += 1;
        } else {
            assert_eq!(&now, home, "client {last} was elsewhere");
        }
    }
    assert!(moved > 0, "somebody was there");
}

#[test]
fn a_version_on_trial_gets_its_share_whatever_the_number_of_its_instances() {
    let (old, new) = (["o", "o", "o"].map(Instance::named), Instance::named("n"));
    let endpoints = (1..).zip(&old);
    let mut endpoints: Vec<Endpoint> = endpoints
        .map(|(number, one)| of_version(OLD, endpoint(number, one.address)))
        .collect();
    endpoints.push(of_version(NEW, endpoint(9, new.address)));
    let split = |ppm| {
        move |routes: &mut ServiceRoutes| {
            let value = MatchValue::parse("yes").unwrap();
            routes.split = Some(Split {
                version: NEW,
                traffic: CanaryTraffic {
                    weight: Share::from_ppm(ppm).unwrap(),
                    headers: [(field("X-Canary"), None)].into(),
                    cookies: [(CookieName::parse("canary").unwrap(), Some(value))].into(),
                },
            });
        }
    };
    let gateway = Gateway::with(orders(1, endpoints.clone(), split(100_000)));
    let mut client = connect(gateway.entry);
    let mut ask = |headers: &[(&str, &str)]| {
        write_request(&mut client, "GET", "/", headers, b"");
        read_reply(&mut client).text()
    };
    let on_trial = (0..3000).filter(|_| ask(&[]) == "n").count();
    // 300 are expected, with a standard deviation of 16.
    assert!((220..380).contains(&on_trial), "{on_trial}");
    for _ in 0..100 {
        assert_eq!(ask(&[("x-canary", "1")]), "n");
        assert_eq!(ask(&[("cookie", "a=b; canary=yes")]), "n");
    }
    gateway.publish_and_wait(orders(2, endpoints.clone(), split(0)));
    assert!((0..500).all(|_| ask(&[("cookie", "canary=no")]) == "o"));
    assert_eq!(ask(&[("x-canary", "")]), "n");

    // Nobody is sent to nothing for the sake of a share.
    for endpoint in &mut endpoints {
        if endpoint.version == NEW {
            endpoint.health = EndpointHealth::Failing;
        }
    }
    gateway.publish_and_wait(orders(3, endpoints, split(1_000_000)));
    assert!((0..100).all(|_| ask(&[("x-canary", "1")]) == "o"));
}

#[test]
fn a_service_waits_for_instances_by_its_own_deadlines() {
    // A socket whose queue is full answers no SYN.
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let waiting: Vec<Socket> = (0..4)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            // In progress, until somebody accepts.
            socket.connect(&address.into()).ok();
            socket
        })
        .collect();
    let deadlines = |connect: Option<Duration>, time| {
        move |routes: &mut ServiceRoutes| {
            routes.traffic.timeouts.connect = connect;
            routes.traffic.queue.time = Some(time);
        }
    };
    let short = Duration::from_millis(30);
    let endpoints = vec![endpoint(1, address)];
    let gateway = Gateway::with(orders(1, endpoints, deadlines(Some(short), short)));
    let took = |gateway: &Gateway| {
        let began = Instant::now();
        let reply = gateway.request("GET", "/");
        assert_eq!(reply.status, 503, "{}", reply.text());
        began.elapsed()
    };
    // Without them, each of four tries takes a second.
    assert!(took(&gateway) < Duration::from_secs(1));
    drop(waiting);
    let long = Duration::from_millis(1800);
    gateway.publish_and_wait(orders(2, Vec::new(), deadlines(None, long)));
    assert!(took(&gateway) >= long, "the gateway's own is a second");
}

#[test]
fn an_answer_is_awaited_for_as_long_as_its_service_says_and_no_request_lasts_longer() {
    let mute = Instance::start(|_, stream| {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        Ok(Then::Next)
    });
    // Begins at once and never ends.
    let endless = Instance::start(|_, stream| {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegin";
        stream.get_mut().write_all(head)?;
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        Ok(Then::Next)
    });
    let with = |revision, name: &str, instance: &Instance, timeouts| {
        let mut routes = service(name, None, "/", vec![endpoint(1, instance.address)]);
        routes.traffic.timeouts = timeouts;
        routing(revision, vec![routes])
    };
    let short = Some(Duration::from_millis(200));
    let answers = Timeouts {
        answer: short,
        ..Timeouts::default()
    };
    let gateway = Gateway::with(with(1, "mute", &mute, answers));
    let reply = gateway.request("GET", "/");
    let reason = reply.header("mainstay-reason");
    assert_eq!((reply.status, reason), (504, Some("response-timeout")));
    let requests = Timeouts {
        request: short,
        ..Timeouts::default()
    };
    gateway.publish_and_wait(with(2, "endless", &endless, requests));
    let reply = gateway.request("GET", "/");
    assert_eq!((reply.status, reply.text().as_str()), (200, "begin"));
    assert!(reply.end.is_err(), "it broke off");
}

#[test]
fn a_clients_text_in_a_header_of_ours_stays_in_its_line() {
    let instance = mirror();
    let gateway = Gateway::with(orders(1, vec![endpoint(1, instance.address)], |routes| {
        let mut rewrite = Rewrite::default();
        rewrite
            .request
            .set
            .insert(field("X-Path"), template("{path}{query}"));
        let version = OLD;
        routes.rewrites.push(VersionRewrite { version, rewrite });
    }));
    let ask = |target: &[u8]| {
        let mut client = connect(gateway.entry);
        let request = [
            b"GET ",
            target,
            b" HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        ];
        client.write_all(&request.concat()).unwrap();
        read_reply(&mut client)
    };
    let quoted = ask(b"/a%0d%0aX-Evil:%201?\"{}|");
    assert!(
        quoted
            .text()
            .contains("\r\nx-path: /a%0d%0aX-Evil:%201?\"{}|\r\n"),
        "{}",
        quoted.text()
    );
    for target in [b"/a\rX-Evil: 1".as_slice(), b"/a\x0bb", "/ä".as_bytes()] {
        assert_eq!(ask(target).status, 400, "{}", target.escape_ascii());
    }
    assert_eq!(instance.count(), 1);
    let loopback = IpAddr::from([127, 0, 0, 1]);
    assert_eq!(
        instance.seen()[0].header("x-forwarded-for"),
        Some(loopback.to_string().as_str())
    );
}
