//! The three services as real processes.

#![expect(
    clippy::unwrap_used,
    reason = "what speaks to the services here belongs to the tests"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use mainstay_testkit::{Ended, Spawned, TempDir, free_port, wait_until};
use rustix::process::Signal;

const SOON: Duration = Duration::from_secs(20);

/// A service that is up; its port.
struct Service {
    process: Spawned,
    port: u16,
}

fn command(bin: &str, port: u16, env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(bin);
    command
        .env("PORT", port.to_string())
        .envs(env.iter().copied());
    command
}

fn start(dir: &TempDir, bin: &str, port: u16, env: &[(&str, &str)]) -> Service {
    let name = bin.rsplit('/').next().unwrap();
    let process = Spawned::start(dir, name, &mut command(bin, port, env));
    wait_until(SOON, "the service listens", || {
        TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())
    });
    Service { process, port }
}

/// Orders with both its dependencies.
fn shop(dir: &TempDir) -> [Service; 3] {
    let named = |name| [("MAINSTAY_INSTANCE", name), ("MAINSTAY_VERSION", "v7")];
    let payments = start(dir, PAYMENTS, free_port(), &named("payments-1"));
    let inventory = start(dir, INVENTORY, free_port(), &named("inventory-1"));
    let orders = start_orders(dir, payments.port, inventory.port);
    [orders, payments, inventory]
}

fn start_orders(dir: &TempDir, payments: u16, inventory: u16) -> Service {
    let payments = format!("127.0.0.1:{payments}");
    let inventory = format!("127.0.0.1:{inventory}");
    let env = [
        ("PAYMENTS", payments.as_str()),
        ("INVENTORY", inventory.as_str()),
    ];
    start(dir, ORDERS, free_port(), &env)
}

const ORDERS: &str = env!("CARGO_BIN_EXE_shop-orders");
const PAYMENTS: &str = env!("CARGO_BIN_EXE_shop-payments");
const INVENTORY: &str = env!("CARGO_BIN_EXE_shop-inventory");

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

fn send(stream: &mut TcpStream, line: &str, fields: &str) {
    let request =
        format!("{line} HTTP/1.1\r\nhost: shop\r\nx-prove-nonce: 0123456789abcdef\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
}

/// Asks on a connection of its own and reads all until it is closed.
fn ask(port: u16, line: &str) -> String {
    let mut stream = connect(port);
    send(
        &mut stream,
        line,
        "connection: close\r\ncontent-length: 0\r\n",
    );
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn system_an_order_tells_its_nonce_twice_and_who_served_it() {
    let dir = TempDir::new("shop");
    let [orders, _payments, _inventory] = shop(&dir);
    for (line, status) in [
        ("GET /orders/7", "200 OK"),
        ("POST /orders", "201 Created"),
        ("GET /", "200 OK"),
    ] {
        let answer = ask(orders.port, line);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{answer}"
        );
        for part in [
            "x-prove-nonce: 0123456789abcdef\r\n",
            r#""nonce":"0123456789abcdef""#,
            r#"{"instance":"payments-1","version":"v7"}"#,
            r#"{"instance":"inventory-1","version":"v7"}"#,
        ] {
            assert!(answer.contains(part), "no {part} in {answer}");
        }
    }
    assert!(ask(orders.port, "GET /cellar").starts_with("HTTP/1.1 404 "));
}

#[test]
fn system_a_dependency_that_is_away_is_named_and_its_return_is_noticed() {
    let dir = TempDir::new("shop");
    let [orders, payments, _inventory] = shop(&dir);
    assert!(ask(orders.port, "GET /orders/1").starts_with("HTTP/1.1 200 "));
    let port = payments.port;
    drop(payments);
    for line in ["GET /orders/1", "POST /orders"] {
        let answer = ask(orders.port, line);
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        assert!(answer.contains("payments failed"), "{answer}");
    }
    let _again = start(&dir, PAYMENTS, port, &[]);
    assert!(ask(orders.port, "GET /orders/1").starts_with("HTTP/1.1 200 "));
}

#[test]
fn system_what_the_gateway_says_of_a_dependency_is_passed_on() {
    let dir = TempDir::new("shop");
    let inventory = start(&dir, INVENTORY, free_port(), &[]);
    let gateway = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let orders = start_orders(&dir, gateway.local_addr().unwrap().port(), inventory.port);
    let lost = std::thread::spawn(move || {
        let (mut stream, _) = gateway.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]).unwrap();
        let head = "HTTP/1.1 502 Bad Gateway\r\nmainstay-reason: lost-in-flight\r\n\
                    mainstay-instance: payments-4\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
    });
    let answer = ask(orders.port, "POST /orders");
    lost.join().unwrap();
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert!(
        answer.contains("mainstay-reason: lost-in-flight\r\n"),
        "{answer}"
    );
    assert!(
        answer.contains("mainstay-instance: payments-4\r\n"),
        "{answer}"
    );
}

#[test]
fn system_a_service_that_is_told_to_end_finishes_what_it_was_asked_and_exits_with_0() {
    let dir = TempDir::new("shop");
    let service = start(&dir, PAYMENTS, free_port(), &[("SHOP_WORK_MS", "700")]);
    let (mut busy, mut kept) = (connect(service.port), connect(service.port));
    send(&mut busy, "GET /payments/1", "");
    // Its answer shows that the request before it is being worked on.
    send(&mut kept, "GET /health", "");
    assert!(kept.read(&mut [0; 1024]).unwrap() > 0);
    service.process.signal(Signal::TERM);
    wait_until(
        SOON,
        "nobody listens any more",
        || match TcpStream::connect(("127.0.0.1", service.port)) {
            Ok(_) => Err("connected".to_owned()),
            Err(_) => Ok(()),
        },
    );
    send(&mut kept, "GET /health", "");
    for (mut stream, status) in [(busy, "200"), (kept, "503")] {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
    assert_eq!(service.process.wait(SOON), Ended::Code(0));
}

#[test]
fn system_a_service_fails_on_purpose_when_told_to() {
    let dir = TempDir::new("shop");
    let mut exits = command(PAYMENTS, free_port(), &[("SHOP_FAIL", "exit")]);
    assert_eq!(
        Spawned::start(&dir, "exits", &mut exits).wait(SOON),
        Ended::Code(1)
    );
    let mut wrong = command(PAYMENTS, free_port(), &[("SHOP_FAIL", "perhaps")]);
    let wrong = Spawned::start(&dir, "wrong", &mut wrong);
    assert_eq!(wrong.wait(SOON), Ended::Code(2));
    assert!(
        wrong.log().contains("SHOP_FAIL is `perhaps`"),
        "{}",
        wrong.log()
    );
    let unwell = start(&dir, PAYMENTS, free_port(), &[("SHOP_FAIL", "unhealthy")]);
    assert!(ask(unwell.port, "GET /health").starts_with("HTTP/1.1 503 "));
    let delay = ("SHOP_START_DELAY", "100");
    let late = start(&dir, INVENTORY, free_port(), &[delay]);
    assert!(ask(late.port, "GET /health").starts_with("HTTP/1.1 200 "));
}
