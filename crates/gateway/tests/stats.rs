//! The statistics of a running gateway, read by the programs that read HAProxy's and Prometheus'.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "stats/change.rs"]
mod change;
mod listening;
mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use mainstay_gateway::StatsAuth;
use mainstay_model::gateway::GatewayLimits;
use mainstay_model::routing::EndpointHealth;
use mainstay_model::{Endpoint, Intake, IntakeState, ListenSpec, Routing, Weight};
use mainstay_testkit::{Spawned, TempDir, free_port, program, wait_until};
use support::{
    Gateway, Instance, SOON, Setting, Then, connect, endpoint, nobody, one_service, read_reply,
    send, write_request,
};

/// An instance that answers everything with 200.
fn answering() -> Instance {
    Instance::start(|_, reader| {
        reader
            .get_mut()
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
        Ok(Then::Next)
    })
}

/// A gateway before one instance that answers and one whose probes fail.
fn gateway(instance: &Instance) -> Gateway {
    let mut failing = endpoint(2, nobody());
    failing.health = EndpointHealth::Failing;
    Gateway::with(one_service(1, vec![endpoint(1, instance.address), failing]))
}

/// A table of HAProxy's form as rows by `pxname/svname`, with the values by column.
fn rows(csv: &str) -> HashMap<String, HashMap<String, String>> {
    let mut lines = csv.lines();
    let head = lines.next().unwrap_or_default();
    let names: Vec<&str> = head.trim_start_matches("# ").split(',').collect();
    let rows = lines.map(|line| {
        let values: Vec<&str> = line.split(',').collect();
        assert_eq!(values.len(), names.len(), "{line}");
        let pairs = names.iter().zip(&values);
        let row: HashMap<String, String> = pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        (format!("{}/{}", row["pxname"], row["svname"]), row)
    });
    rows.collect()
}

/// Waits until the first instance has been given this many requests, by the table.
fn wait_for_total(gateway: &Gateway, total: u64) -> HashMap<String, HashMap<String, String>> {
    wait_until(SOON, "the requests are counted", || {
        let rows = rows(&gateway.stats("/stats;csv").text());
        let counted = rows.get("orders/orders-1").map(|row| row["stot"].clone());
        match counted {
            Some(counted) if counted == total.to_string() => Ok(rows),
            other => Err(format!("{other:?}")),
        }
    })
}

#[test]
fn the_table_tells_what_went_where() {
    let instance = answering();
    let gateway = gateway(&instance);
    for _ in 0..5 {
        assert_eq!(gateway.request("GET", "/").status, 200);
    }
    let rows = wait_for_total(&gateway, 5);
    let (up, down) = (&rows["orders/orders-1"], &rows["orders/orders-2"]);
    assert_eq!((&*up["status"], &*down["status"]), ("UP", "DOWN"));
    assert_eq!(up["addr"], instance.address.to_string());
    assert_eq!((&*up["smax"], &*up["scur"]), ("1", "0"));
    assert_eq!(down["stot"], "0");
    let service = &rows["orders/BACKEND"];
    assert_eq!((&*service["status"], &*service["act"]), ("UP", "1"));
    let entry = &rows["entry/FRONTEND"];
    assert_eq!(
        (&*entry["status"], &*entry["addr"]),
        ("OPEN", &*gateway.entry.to_string())
    );
    for (row, name, value) in [
        (service, "stot", "5"),
        (service, "hrsp_2xx", "5"),
        (service, "bout", "10"),
        (up, "hrsp_2xx", "5"),
        (up, "connect", "1"),
        (entry, "stot", "5"),
        (entry, "req_tot", "5"),
        (entry, "hrsp_2xx", "5"),
        (entry, "bout", "10"),
        (entry, "scur", "0"),
        (entry, "smax", "1"),
    ] {
        assert_eq!(row[name], value, "{name}: {row:?}");
    }
    let types = [entry, service, up].map(|row| row["type"].clone());
    assert_eq!(types, ["0", "1", "2"]);

    let json: serde_json::Value =
        serde_json::from_slice(&gateway.stats("/stats;json").body).unwrap();
    let json = json["rows"].as_array().unwrap();
    assert_eq!(json.len(), rows.len());
    let one = json.iter().find(|row| row["svname"] == "orders-1").unwrap();
    assert_eq!((&one["stot"], &one["status"]), (&5.into(), &"UP".into()));
}

#[test]
fn what_the_gateway_answered_itself_is_counted_by_its_reason() {
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, nobody())]));
    assert_eq!(gateway.request("GET", "/").status, 503);
    let mut wrong = connect(gateway.entry);
    wrong.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(read_reply(&mut wrong).status, 400);
    let uploaded = send(gateway.entry, "POST", "/", &[], b"12345");
    assert_eq!(uploaded.status, 503);
    let entry = format!("frontend=\"entry\",listen=\"{}\"", gateway.entry);
    for line in [
        "mainstay_service_refusals_total{service=\"orders\",reason=\"all-failed\"} 2".to_owned(),
        "mainstay_service_responses_total{service=\"orders\",code=\"5xx\"} 2".to_owned(),
        format!("mainstay_frontend_refusals_total{{{entry},reason=\"bad-request\"}} 1"),
        format!("mainstay_frontend_responses_total{{{entry},code=\"4xx\"}} 1"),
        format!("mainstay_frontend_connections_total{{{entry}}} 3"),
    ] {
        wait_until(SOON, &line, || {
            let text = gateway.stats("/metrics").text();
            text.lines()
                .any(|other| other == line)
                .then_some(())
                .ok_or(text)
        });
    }
    let text = gateway.stats("/metrics").text();
    let failures =
        "mainstay_instance_connect_failures_total{service=\"orders\",instance=\"orders-1\"} ";
    let failures = text.lines().find_map(|line| line.strip_prefix(failures));
    assert!(failures.is_some_and(|count| count != "0"), "{failures:?}");
}

#[test]
fn bodies_are_counted_both_ways_and_who_went_away_as_well() {
    let instance = Instance::start(|seen, reader| {
        let mut body = vec![0; seen.content_length()];
        std::io::Read::read_exact(reader, &mut body)?;
        if seen.path() == "/never" {
            // Until the gateway closes the connection.
            std::io::Read::read_to_end(reader, &mut body)?;
            return Ok(Then::Close);
        }
        reader
            .get_mut()
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc")?;
        Ok(Then::Next)
    });
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, instance.address)]));
    assert_eq!(send(gateway.entry, "POST", "/", &[], b"12345").status, 200);
    let mut leaving = connect(gateway.entry);
    write_request(&mut leaving, "GET", "/never", &[], b"");
    wait_for_total(&gateway, 2);
    drop(leaving);
    let wanted = [
        "mainstay_service_request_body_bytes_total{service=\"orders\"} 5",
        "mainstay_service_response_body_bytes_total{service=\"orders\"} 3",
        "mainstay_instance_response_body_bytes_total{service=\"orders\",instance=\"orders-1\"} 3",
        "mainstay_service_client_aborts_total{service=\"orders\"} 1",
        "mainstay_service_responses_total{service=\"orders\",code=\"other\"} 1",
        "mainstay_service_request_duration_seconds_count{service=\"orders\"} 1",
        "mainstay_service_first_byte_seconds_count{service=\"orders\"} 1",
        "mainstay_service_connect_seconds_count{service=\"orders\"} 1",
    ];
    for line in wanted {
        wait_until(SOON, line, || {
            let text = gateway.stats("/metrics").text();
            text.lines()
                .any(|other| other == line)
                .then_some(())
                .ok_or(text)
        });
    }
}

#[test]
fn an_instance_that_left_the_routes_is_shown_until_its_last_request_has_ended() {
    let (ready, release) = (
        std::sync::mpsc::sync_channel(1),
        std::sync::mpsc::sync_channel::<()>(1),
    );
    let (ready, is_ready) = (std::sync::Mutex::new(ready.0), ready.1);
    let (release, released) = (release.0, std::sync::Mutex::new(release.1));
    let slow = Instance::start(move |_, reader| {
        ready.lock().unwrap().send(()).unwrap();
        released.lock().unwrap().recv().unwrap();
        reader
            .get_mut()
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        Ok(Then::Next)
    });
    let other = answering();
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, slow.address)]));
    let mut client = connect(gateway.entry);
    // Not to be sent to the other instance as well because this one is slow.
    write_request(&mut client, "POST", "/", &[], b"");
    is_ready.recv_timeout(SOON).unwrap();
    let mut routing = one_service(2, vec![endpoint(2, other.address)]);
    // Or a second copy would be answered by the other one.
    routing.services[0].traffic.retry.hedge = false;
    gateway.publish_and_wait(routing);
    let status = || rows(&gateway.stats("/stats;csv").text()).remove("orders/orders-1");
    wait_until(SOON, "it drains", || match status() {
        Some(row) if (&*row["status"], &*row["scur"]) == ("DRAIN", "1") => Ok(()),
        seen => Err(format!("{seen:?}")),
    });
    release.send(()).unwrap();
    assert_eq!(read_reply(&mut client).status, 200);
    wait_until(SOON, "it is gone", || match status() {
        None => Ok(()),
        seen => Err(format!("{seen:?}")),
    });
}

/// The first line that Debian's HAProxy answers on `/stats;csv`.
fn haproxys_header() -> String {
    let dir = TempDir::new("haproxy-stats");
    let port = free_port();
    let config = format!(
        "defaults\n mode http\n timeout connect 1s\n timeout client 5s\n timeout server 5s\n\
         listen stats\n bind 127.0.0.1:{port}\n stats enable\n stats uri /stats\n"
    );
    std::fs::write(dir.join("haproxy.cfg"), config).unwrap();
    let mut command = Command::new(program("haproxy"));
    command.arg("-f").arg(dir.join("haproxy.cfg"));
    let haproxy = Spawned::start(&dir, "haproxy", &mut command);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let text = wait_until(SOON, "HAProxy answers", || {
        if std::net::TcpStream::connect(address).is_err() {
            return Err(haproxy.log());
        }
        Ok(send(address, "GET", "/stats;csv", &[], b"").text())
    });
    text.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn system_the_columns_are_those_of_haproxy_in_its_order() {
    let instance = answering();
    let ours = gateway(&instance).stats("/stats;csv").text();
    let ours = ours.lines().next().unwrap_or_default();
    let theirs = haproxys_header();
    assert!(
        ours.starts_with("# pxname,svname,qcur,") && ours.len() > 800,
        "{ours}"
    );
    assert!(theirs.starts_with(ours), "theirs: {theirs}\nours:   {ours}");
}

/// What a program of Prometheus shows under `/metrics`.
fn metrics_of(address: SocketAddr) -> String {
    send(address, "GET", "/metrics", &[], b"").text()
}

#[test]
fn system_the_exporter_made_for_haproxy_reads_the_table() {
    let instance = answering();
    let gateway = gateway(&instance);
    for _ in 0..3 {
        assert_eq!(gateway.request("GET", "/").status, 200);
    }
    wait_for_total(&gateway, 3);
    let dir = TempDir::new("haproxy-exporter");
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut command = Command::new(program("prometheus-haproxy-exporter"));
    command.arg(format!("--web.listen-address={address}"));
    command.arg(format!(
        "--haproxy.scrape-uri=http://{}/stats;csv",
        gateway.stats
    ));
    let exporter = Spawned::start(&dir, "exporter", &mut command);
    let wanted = [
        "haproxy_up 1",
        "haproxy_exporter_csv_parse_failures_total 0",
        "haproxy_server_sessions_total{backend=\"orders\",server=\"orders-1\"} 3",
        "haproxy_server_up{backend=\"orders\",server=\"orders-1\"} 1",
        "haproxy_server_up{backend=\"orders\",server=\"orders-2\"} 0",
        "haproxy_backend_up{backend=\"orders\"} 1",
        "haproxy_frontend_current_sessions{frontend=\"entry\"} 0",
    ];
    wait_until(SOON, "the exporter has read it", || {
        if std::net::TcpStream::connect(address).is_err() {
            return Err(exporter.log());
        }
        let text = metrics_of(address);
        let has = |line: &&&str| text.lines().any(|other| other == **line);
        let missing: Vec<_> = wanted.iter().filter(|line| !has(line)).collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("missing {missing:?}\n{text}"))
        }
    });
}

#[test]
fn system_prometheus_own_parser_takes_every_metric() {
    let instance = answering();
    let gateway = gateway(&instance);
    assert_eq!(gateway.request("GET", "/").status, 200);
    wait_for_total(&gateway, 1);
    let ours = gateway.stats("/metrics").text();
    let dir = TempDir::new("pushgateway");
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut command = Command::new(program("prometheus-pushgateway"));
    command.arg(format!("--web.listen-address={address}"));
    let pushgateway = Spawned::start(&dir, "pushgateway", &mut command);
    wait_until(SOON, "it listens", || {
        std::net::TcpStream::connect(address).map_err(|_| pushgateway.log())
    });
    // It parses what it is given, checks that it is consistent, and shows what it understood.
    let taken = send(address, "PUT", "/metrics/job/gateway", &[], ours.as_bytes());
    assert_eq!(taken.status, 200, "{}", taken.text());
    let theirs = metrics_of(address);
    let families: Vec<&str> = ours
        .lines()
        .filter(|line| line.starts_with("# TYPE "))
        .collect();
    assert!(families.len() > 40, "{ours}");
    for family in families {
        assert!(
            theirs.lines().any(|line| line == family) || has_no_value(&ours, family),
            "{family} is missing"
        );
    }
    let one = theirs.lines().find(|line| {
        line.starts_with("mainstay_instance_requests_total{") && line.contains("\"orders-1\"")
    });
    assert!(one.is_some_and(|line| line.ends_with(" 1")), "{one:?}");
}

/// A family of which nothing is there to tell: it is left out by whoever reads it.
fn has_no_value(text: &str, family: &str) -> bool {
    let name = family.split(' ').nth(2).unwrap_or_default();
    !text.lines().any(|line| line.starts_with(name))
}

#[test]
fn an_instance_that_is_gone_is_gone_from_the_metrics() {
    let (one, two) = (answering(), answering());
    let gateway = Gateway::with(one_service(1, vec![endpoint(1, one.address)]));
    let shows = |instance: &str| {
        let text = gateway.stats("/metrics").text();
        text.contains(&format!("instance=\"{instance}\""))
    };
    wait_until(SOON, "it is shown", || {
        shows("orders-1")
            .then_some(())
            .ok_or_else(|| "not yet".to_owned())
    });
    gateway.publish_and_wait(one_service(2, vec![endpoint(2, two.address)]));
    wait_until(SOON, "the other is shown instead", || {
        (shows("orders-2") && !shows("orders-1"))
            .then_some(())
            .ok_or_else(|| "not yet".to_owned())
    });
}

#[test]
fn the_page_can_be_read_without_a_script_and_takes_nothing_from_elsewhere() {
    let instance = answering();
    let gateway = gateway(&instance);
    wait_for_total(&gateway, 0);
    let page = gateway.stats("/stats");
    let policy = page.header("content-security-policy").unwrap_or_default();
    assert!(
        policy.starts_with("default-src 'none';") && !policy.contains("unsafe"),
        "{policy}"
    );
    let text = page.text();
    for part in [
        "orders-1",
        "orders-2",
        "UP ",
        "DOWN ",
        "probe fails",
        "http-equiv=\"refresh\"",
    ] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    assert!(
        !text.contains("://") && !text.contains("style=") && !text.contains("onclick"),
        "{text}"
    );
    assert!(
        !gateway
            .stats("/stats;norefresh")
            .text()
            .contains("http-equiv=\"refresh\"")
    );
    let up = gateway.stats("/stats;up").text();
    assert!(up.contains("orders-1") && !up.contains("orders-2"), "{up}");
    for path in ["/stats/style.css", "/stats/live.js", "/stats/still.js"] {
        let file = gateway.stats(path);
        assert_eq!(file.status, 200, "{path}");
        assert!(!file.text().contains("://"), "{path}");
    }
    assert_eq!(gateway.stats("/").header("location"), Some("/stats"));
    assert_eq!(gateway.stats("/elsewhere").status, 404);
}

#[test]
fn events_tell_everything_once_and_then_what_has_changed() {
    let instance = answering();
    let gateway = gateway(&instance);
    wait_for_total(&gateway, 0);
    let mut stream = connect(gateway.stats);
    let host = gateway.stats.to_string();
    write_request(&mut stream, "GET", "/stats/events", &[("host", &host)], b"");
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let mut next = || {
        let line = lines.find_map(|line| line.strip_prefix("data: ").map(str::to_owned));
        serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap()
    };
    let first = next();
    let order: Vec<&str> = first["order"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_str().unwrap())
        .collect();
    assert_eq!(
        order,
        [
            "entry/FRONTEND",
            "orders/BACKEND",
            "orders/orders-1",
            "orders/orders-2"
        ]
    );
    assert_eq!(first["rows"].as_array().unwrap().len(), 4);
    assert_eq!(gateway.request("GET", "/").status, 200);
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < SOON, "no event told of the request");
        let event = next();
        assert!(event["order"].is_null(), "the rows are the same");
        let rows = event["rows"].as_array().unwrap();
        let one = rows.iter().find(|row| row["id"] == "orders/orders-1");
        if one.is_some_and(|row| {
            row["cells"]
                .as_array()
                .unwrap()
                .iter()
                .any(|cell| cell[1] == 1.0)
        }) {
            return;
        }
    }
}

#[test]
fn who_is_a_stranger_sees_nothing() {
    let gateway = Gateway::with(one_service(1, Vec::new()));
    let seen = |headers: &[(&str, &str)]| send(gateway.stats, "GET", "/stats", headers, b"").status;
    let own = gateway.stats.to_string();
    assert_eq!(seen(&[("host", &own)]), 200);
    assert_eq!(seen(&[("host", "evil.example")]), 403);
    assert_eq!(
        seen(&[("host", &own), ("sec-fetch-site", "cross-site")]),
        403
    );
    let posted = send(gateway.stats, "POST", "/stats", &[("host", &own)], b"x");
    assert_eq!(posted.status, 405);
}

#[test]
fn with_a_password_only_who_knows_it_sees_something() {
    let gateway = Gateway::start(Setting {
        stats_auth: Some(StatsAuth {
            user: "Aladdin".into(),
            password: "open sesame".into(),
        }),
        ..Setting::default()
    });
    let seen = |path, authorization| {
        let headers = [("host", "stats.example"), ("authorization", authorization)];
        send(gateway.stats, "GET", path, &headers, b"")
    };
    for path in ["/stats", "/stats;csv", "/stats/events", "/metrics"] {
        let refused = seen(path, "Basic QWxhZGRpbjp3cm9uZw==");
        assert_eq!(refused.status, 401, "{path}");
        assert!(
            refused
                .header("www-authenticate")
                .is_some_and(|value| value.starts_with("Basic "))
        );
    }
    assert_eq!(
        seen("/metrics", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==").status,
        200
    );
}

#[test]
fn those_who_say_nothing_keep_nobody_out_for_long() {
    let gateway = Gateway::with(one_service(1, Vec::new()));
    let silent: Vec<_> = (0..100).map(|_| connect(gateway.stats)).collect();
    let began = Instant::now();
    assert_eq!(gateway.stats("/stats").status, 200);
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    drop(silent);
}

/// A gateway with a listener called `front` before one server, `a`, and where it listens.
fn with_listener(auth: Option<StatsAuth>) -> (Gateway, SocketAddr, Echo) {
    let server = Echo::start();
    let draft = listening::draft(&[server.address]);
    let front = draft.bind[0];
    let gateway = Gateway::start(Setting {
        listens: vec![ListenSpec::new(draft).unwrap()],
        stats_auth: auth,
        ..Setting::default()
    });
    std::fs::write(gateway.state.join("token"), "5ecret\n").unwrap();
    (gateway, front, server)
}

/// Sends back what it gets, until this is dropped with the test.
struct Echo {
    address: SocketAddr,
}

impl Echo {
    fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut from, mut to) = (stream.as_ref().unwrap(), stream.as_ref().unwrap());
                // The checks come and go.
                std::io::copy(&mut from, &mut to).ok();
            }
        });
        Self { address }
    }
}

/// Waits until the server's row in the table is as wanted.
fn wait_for_server(
    gateway: &Gateway,
    headers: &[(&str, &str)],
    column: &str,
    value: &str,
) -> HashMap<String, HashMap<String, String>> {
    wait_until(SOON, "the server is as wanted", || {
        let csv = send(gateway.stats, "GET", "/stats;csv", headers, b"").text();
        let rows = rows(&csv);
        match rows.get("front/a") {
            Some(row) if row[column] == value => Ok(rows),
            other => Err(format!("{other:?}")),
        }
    })
}

#[test]
fn a_listener_has_rows_as_haproxys_listen() {
    let (gateway, front, server) = with_listener(None);
    let own = gateway.stats.to_string();
    let host = [("host", &*own)];
    wait_for_server(&gateway, &host, "check_status", "L4OK");
    let mut client = connect(front);
    client.write_all(b"ping").unwrap();
    let mut back = [0; 4];
    std::io::Read::read_exact(&mut client, &mut back).unwrap();
    drop(client);
    let seen = wait_for_server(&gateway, &host, "scur", "0");
    assert_eq!(&back, b"ping");
    let seen = if seen["front/a"]["stot"] == "1" {
        seen
    } else {
        wait_for_server(&gateway, &host, "stot", "1")
    };
    let (frontend, backend, one) = (
        &seen["front/FRONTEND"],
        &seen["front/BACKEND"],
        &seen["front/a"],
    );
    for (row, name, value) in [
        (frontend, "status", "OPEN"),
        (frontend, "addr", &*front.to_string()),
        (frontend, "type", "0"),
        (frontend, "stot", "1"),
        (frontend, "mode", "tcp"),
        (backend, "status", "UP"),
        (backend, "act", "1"),
        (backend, "type", "1"),
        (backend, "stot", "1"),
        (one, "status", "UP"),
        (one, "addr", &*server.address.to_string()),
        (one, "bin", "4"),
        (one, "bout", "4"),
        (one, "type", "2"),
        (one, "weight", "1"),
    ] {
        assert_eq!(row[name], value, "{name}: {row:?}");
    }
    assert_eq!(frontend["iid"], one["iid"]);
    let metrics = gateway.stats("/metrics").text();
    for line in [
        "mainstay_listen_sessions_total{listen=\"front\"} 1",
        "mainstay_listen_server_up{listen=\"front\",server=\"a\"} 1",
        "mainstay_listen_server_received_bytes_total{listen=\"front\",server=\"a\"} 4",
    ] {
        assert!(
            metrics.lines().any(|other| other == line),
            "{line}\n{metrics}"
        );
    }
    let page = gateway.stats("/stats").text();
    assert!(
        page.contains("id=\"front/a\"") && page.contains("/stats/change"),
        "{page}"
    );
}

#[test]
fn what_a_limit_kept_out_or_ended_is_counted_by_the_limit() {
    let instance = answering();
    let gateway = Gateway::start(Setting {
        limits: GatewayLimits {
            requests_per_connection: 1,
            ..GatewayLimits::default()
        },
        ..Setting::default()
    });
    gateway.publish_and_wait(one_service(1, vec![endpoint(1, instance.address)]));
    let mut worn = connect(gateway.entry);
    write_request(&mut worn, "GET", "/", &[], b"");
    assert_eq!(read_reply(&mut worn).status, 200);
    let long = "x".repeat(70_000);
    assert_eq!(
        send(gateway.entry, "GET", "/", &[("x-long", &long)], b"").status,
        431
    );
    let many: Vec<(&str, &str)> = std::iter::repeat_n(("x-one", "1"), 150).collect();
    assert_eq!(send(gateway.entry, "GET", "/", &many, b"").status, 431);
    let metrics = gateway.stats("/metrics").text();
    for limit in ["requests_per_connection", "head_len", "head_fields"] {
        let label = format!("limit=\"{limit}\"}} 1");
        assert!(
            metrics.lines().any(|line| line.ends_with(&label)),
            "{limit}\n{metrics}"
        );
    }
}
