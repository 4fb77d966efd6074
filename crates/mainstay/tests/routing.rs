//! What a service file says of routing, through the whole: file, control centre, gateway.

#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use mainstay_testkit::Ended;
use running::{PATIENCE, Running, python_server};

/// An answer: head and body.
fn ask(entry: SocketAddr, path: &str, headers: &str) -> (String, String) {
    let mut stream = TcpStream::connect(entry).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head =
        format!("GET {path} HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.trim().to_owned())
}

#[test]
fn system_canaries_stickiness_and_redirects_of_a_file_reach_the_gateway() {
    let mut running = Running::prepare("routing");
    let keys = r#"
        http      = { path = "/" }
        instances = 2
        redirect  = { path = "/old", to = "/new{rest}" }
        sticky    = { cookie = "shop" }
        rewrite   = { response = { remove = ["Server"] } }
        rollout   = { hold = "100ms", canary = { weight = "0%", header = { X-Canary = true } } }
    "#;
    let file = running.write_service(&python_server(""), keys);
    running.dev(&[file.to_str().unwrap()]);
    let status = running.wait_until_steady();
    let entry = status.entry[0];
    let name = &status.services[0].service;
    let (head, _) = ask(entry, "/old/7", "");
    assert!(
        head.starts_with("http/1.1 302 ") && head.contains("\r\nlocation: /new/7"),
        "{head}"
    );
    let (head, home) = ask(entry, "/", "");
    assert!(!head.contains("\r\nserver:"), "{head}");
    let (_, cookie) = head
        .split_once("\r\nset-cookie: ")
        .expect("a cookie is set");
    let (cookie, _) = cookie.split_once(';').unwrap();
    let cookie = format!("cookie: {cookie}\r\n");
    assert!(
        (0..20).all(|_| ask(entry, "/", &cookie).1 == home),
        "it stays"
    );
    let old = ["web-1", "web-2"].map(str::to_owned);
    assert!(old.contains(&home), "{home}");

    // A new version, of which nobody gets anything who does not ask for it.
    let next = format!("{keys}env = {{ NEXT = \"1\" }}");
    let file = running.write_service(&python_server(""), &next);
    let up = running.run(&["up", file.to_str().unwrap()]);
    assert!(
        up.status.success(),
        "{}",
        String::from_utf8_lossy(&up.stdout)
    );
    let (_, canary) = ask(entry, "/", "x-canary: 1\r\n");
    assert!(!old.contains(&canary), "{canary}");
    assert!((0..20).all(|_| ask(entry, "/", "x-canary: 1\r\n").1 == canary));
    assert!(
        (0..60).all(|_| old.contains(&ask(entry, "/", "").1)),
        "a share of nothing"
    );
    assert!(
        (0..20).all(|_| ask(entry, "/", &cookie).1 == home),
        "it stays"
    );
    let promoted = running.run(&["promote", name.as_str()]);
    assert!(promoted.status.success());
    let (head, moved) = ask(entry, "/", &cookie);
    assert!(
        moved != home && head.contains("\r\nset-cookie: shop="),
        "{head}"
    );
    let (ended, said) = running.stop();
    assert_eq!(ended, Ended::Code(0), "{said}");
}
