//! Clients that speak TLS, and those who should and do not.
#![allow(clippy::unwrap_used, reason = "tests")]

mod alone;

use std::fs;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alone::raw::{handshake, raw, said};
use alone::{Alone, PATIENCE};
use mainstay_amqp::frame::PROTOCOL_HEADER;
use mainstay_amqp::method::{BasicConsume, QueueDeclare};
use mainstay_broker::view;
use mainstay_testkit::{Authority, Packages, Pair, TempDir, free_port, program, wait_until};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

type Secure = StreamOwned<ClientConnection, TcpStream>;

/// A broker with TLS, and the authority of its certificate.
struct Guarded {
    broker: Alone,
    authority: Authority,
    port: u16,
    ca: PathBuf,
}

impl Guarded {
    /// `clients`: whether they need a certificate of the same authority.
    fn start(name: &str, clients: Clients) -> Self {
        let dir = TempDir::new(name);
        let authority = Authority::new("of the broker");
        let ca = dir.join("ca.pem");
        fs::write(&ca, authority.certificate()).unwrap();
        let (certificate, key) = (dir.join("broker.crt"), dir.join("broker.key"));
        write(&certificate, &key, &authority.issue("localhost"));
        let port = free_port();
        let mut said = format!("{port},{},{}", certificate.display(), key.display());
        if clients == Clients::NeedACertificate {
            said = format!("{said},{}", ca.display());
        }
        let state = dir.join("state");
        let broker = Alone::start_in_with(dir, &state, &[("TLS", &said)]);
        Self {
            broker,
            authority,
            port,
            ca,
        }
    }

    fn write_certificate(&self, pair: &Pair) {
        let dir = &self.broker.dir;
        write(&dir.join("broker.crt"), &dir.join("broker.key"), pair);
    }

    fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A client that trusts `authority`, and shows `own`; it has not said anything.
    fn client(&self, authority: &Authority, own: Option<&Pair>) -> Secure {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(authority.certificate().as_bytes());
        roots.add(root.unwrap()).unwrap();
        let config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots);
        let config = match own {
            None => config.with_no_client_auth(),
            Some(own) => {
                let chain = CertificateDer::from_pem_slice(own.certificate.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes());
                let own = config.with_client_auth_cert(vec![chain.unwrap()], key.unwrap());
                own.unwrap()
            }
        };
        let name = "localhost".try_into().unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        StreamOwned::new(connection, self.tcp())
    }

    fn tls(&self) -> view::Tls {
        self.broker.status().tls
    }

    /// An honest client comes in over TLS.
    fn serves(&self) {
        comes_in(self.client(&self.authority, None)).unwrap();
    }

    /// `done`, or what a program said instead.
    fn play(&self, mut command: Command, ca: &Path, own: &[&Path]) -> String {
        command.arg(self.port.to_string()).arg(ca).args(own);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        said + &String::from_utf8_lossy(&output.stderr)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clients {
    NeedNone,
    NeedACertificate,
}

fn write(certificate: &Path, key: &Path, pair: &Pair) {
    fs::write(certificate, &pair.certificate).unwrap();
    fs::write(key, &pair.key).unwrap();
}

/// Says the protocol's header, and hears the broker's first word.
fn comes_in(mut stream: Secure) -> std::io::Result<Secure> {
    stream.write_all(&PROTOCOL_HEADER)?;
    let mut start = [0; 11];
    stream.read_exact(&mut start)?;
    // A method on channel 0: connection.start.
    assert_eq!((start[0], &start[7..]), (1, &[0, 10, 0, 10][..]));
    Ok(stream)
}

fn python() -> Command {
    let mut command = Command::new(program("python3"));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/programs/tls.py");
    command
        .args(["-B", "-u"])
        .env("PYTHONPATH", Packages::Python.require())
        .arg(file);
    command
}

fn node() -> Command {
    let mut command = Command::new(program("node"));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/programs/tls.js");
    command.env("NODE_PATH", Packages::Node.require()).arg(file);
    command
}

#[test]
fn system_pika_and_amqplib_come_in_by_tls_if_they_trust_the_authority() {
    let guarded = Guarded::start("tls-clients", Clients::NeedNone);
    assert_eq!(guarded.play(python(), &guarded.ca, &[]).trim(), "done");
    assert_eq!(guarded.play(node(), &guarded.ca, &[]).trim(), "done");
    let other = guarded.broker.dir.join("other.pem");
    fs::write(&other, Authority::new("another").certificate()).unwrap();
    let refused = guarded.play(python(), &other, &[]);
    assert!(refused.contains("CERTIFICATE_VERIFY_FAILED"), "{refused}");
    let refused = guarded.play(node(), &other, &[]);
    assert!(refused.contains("certificate"), "{refused}");
    let error = comes_in(guarded.client(&Authority::new("another"), None)).unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    assert!(guarded.tls().refused >= 3, "{:?}", guarded.tls());
}

#[test]
fn system_where_clients_need_a_certificate_only_those_with_one_come_in() {
    let guarded = Guarded::start("tls-certificate", Clients::NeedACertificate);
    let own = guarded.authority.issue("a client");
    let (certificate, key) = (
        guarded.broker.dir.join("client.crt"),
        guarded.broker.dir.join("client.key"),
    );
    write(&certificate, &key, &own);
    let with = [certificate.as_path(), key.as_path()];
    assert_eq!(guarded.play(python(), &guarded.ca, &with).trim(), "done");
    assert_eq!(guarded.play(node(), &guarded.ca, &with).trim(), "done");
    for program in [python(), node()] {
        let refused = guarded.play(program, &guarded.ca, &[]);
        assert!(!refused.contains("done"), "{refused}");
    }
    let foreign = Authority::new("another").issue("a client");
    for own in [None, Some(&foreign)] {
        assert!(comes_in(guarded.client(&guarded.authority, own)).is_err());
    }
    comes_in(guarded.client(&guarded.authority, Some(&own))).unwrap();
    assert_eq!(guarded.tls().refused, 4, "{:?}", guarded.tls());
}

#[test]
fn system_who_speaks_without_tls_to_its_port_is_refused_and_told_to_operators() {
    let guarded = Guarded::start("tls-plain", Clients::NeedNone);
    let mut plain = guarded.tcp();
    plain.write_all(&handshake("guest")).unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).ok();
    assert!(
        !answer.starts_with(b"AMQP") && answer.len() < 64,
        "{answer:?}"
    );
    let last = guarded.tls().refused_last.unwrap();
    assert!(last.contains("speaks without TLS"), "{last}");
    guarded.serves();
    // And the other way round.
    let mut stream = raw(&guarded.broker);
    stream
        .write_all(&[22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3])
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    assert_eq!(answer, PROTOCOL_HEADER);
}

#[test]
fn system_handshakes_that_do_not_end_cost_little_and_end_in_time() {
    let guarded = Guarded::start("tls-slow", Clients::NeedNone);
    let before = guarded.broker.status().memory;
    // A hello of 64 KiB in records of 16 KiB, of which the last lacks a byte.
    let record = |len: usize| {
        let [high, low] = u16::try_from(len).unwrap().to_be_bytes();
        [22, 3, 1, high, low]
    };
    let mut hello = Vec::new();
    for number in 0..4 {
        hello.extend(record(16_000));
        let mut part = vec![0; 16_000];
        if number == 0 {
            part[..4].copy_from_slice(&[1, 0, 249, 252]);
        }
        hello.extend(part);
    }
    hello.pop();
    let slow: Vec<TcpStream> = (0..700)
        .map(|number| {
            let mut stream = guarded.tcp();
            if number % 2 == 0 {
                // It may not be read at all.
                stream.set_nonblocking(true).unwrap();
                let _ = stream.write(&hello);
                stream.set_nonblocking(false).unwrap();
            }
            stream
        })
        .collect();
    let start = Instant::now();
    // Those without TLS do not wait for them.
    let mut plain = raw(&guarded.broker);
    plain.write_all(&PROTOCOL_HEADER).unwrap();
    let mut first = [0; 11];
    plain.read_exact(&mut first).unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    let grown = guarded.broker.status().memory.saturating_sub(before) >> 20;
    assert!(grown < 64, "{grown} MiB");
    guarded.serves();
    wait_until(PATIENCE, "those who are slow are given up", || {
        let refused = guarded.tls().refused;
        if refused >= 700 {
            Ok(())
        } else {
            Err(refused.to_string())
        }
    });
    let last = guarded.tls().refused_last.unwrap();
    assert!(last.contains("too long"), "{last}");
    for mut stream in slow {
        let mut rest = Vec::new();
        // Closed, or reset since it was not read.
        assert!(stream.read_to_end(&mut rest).is_ok() || rest.is_empty());
    }
}

#[test]
fn system_a_renewed_certificate_is_shown_to_newcomers_while_connections_go_on() {
    let guarded = Guarded::start("tls-renewed", Clients::NeedNone);
    let shown = |stream: &Secure| {
        let chain = stream.conn.peer_certificates().unwrap();
        chain[0].as_ref().to_vec()
    };
    let mut old = comes_in(guarded.client(&guarded.authority, None)).unwrap();
    let first = shown(&old);
    assert_eq!(guarded.tls().connections, 1);
    let newcomer = || shown(&comes_in(guarded.client(&guarded.authority, None)).unwrap());
    // Half renewed: told, and the one from before is shown on.
    let next = guarded.authority.issue("localhost");
    fs::write(guarded.broker.dir.join("broker.crt"), &next.certificate).unwrap();
    wait_until(PATIENCE, "it is told that the key does not fit", || {
        let problem = guarded.tls().problem.unwrap_or_default();
        if problem.contains("broker.key") && problem.contains("not the key") {
            Ok(())
        } else {
            Err(problem)
        }
    });
    assert_eq!(newcomer(), first);
    guarded.write_certificate(&next);
    wait_until(PATIENCE, "newcomers are shown another one", || {
        if newcomer() == first {
            Err("it is the old one".to_owned())
        } else {
            Ok(())
        }
    });
    assert_eq!(guarded.tls().problem, None);
    // The old connection goes on as it began.
    old.write_all(&handshake("guest")[8..]).unwrap();
    let declare = QueueDeclare {
        queue: "renewed".into(),
        ..QueueDeclare::default()
    };
    old.write_all(&said(declare, 1)).unwrap();
    read_until(&mut old, |heard| {
        heard.windows(7).any(|word| word == b"renewed")
    });
    drop(old);
    wait_until(PATIENCE, "nobody is left", || {
        match guarded.tls().connections {
            0 => Ok(()),
            left => Err(left.to_string()),
        }
    });
}

fn read_until(stream: &mut impl Read, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut heard = Vec::new();
    // Small, so that the broker's side of the socket is full most of the time.
    let mut piece = [0; 4096];
    while !enough(&heard) {
        let len = stream.read(&mut piece).unwrap();
        assert!(len > 0, "it ended after {} bytes", heard.len());
        heard.extend(&piece[..len]);
    }
    heard
}

#[test]
fn system_a_client_that_reads_late_gets_everything_to_the_last_byte() {
    const MESSAGES: usize = 40;
    const LEN: usize = 100_000;
    let guarded = Guarded::start("tls-late", Clients::NeedNone);
    let publish = view::Ask::Vhost {
        vhost: "/".to_owned(),
        deed: view::Deed::Publish {
            exchange: String::new(),
            routing_key: "late".to_owned(),
            body: view::base64(&vec![b'~'; LEN]),
        },
    };
    let declare = view::Ask::Vhost {
        vhost: "/".to_owned(),
        deed: view::Deed::Declare {
            queue: "late".to_owned(),
            arguments: serde_json::json!({}),
        },
    };
    guarded.broker.ask(&declare);
    for _ in 0..MESSAGES {
        guarded.broker.ask(&publish);
    }
    let mut late = guarded.client(&guarded.authority, None);
    let consume = BasicConsume {
        queue: "late".into(),
        no_ack: true,
        ..BasicConsume::default()
    };
    late.write_all(&handshake("guest")).unwrap();
    late.write_all(&said(consume, 1)).unwrap();
    // Its socket is full, and so is what the broker keeps for it: deliveries pause.
    wait_until(PATIENCE, "deliveries pause", || {
        let written = guarded.broker.status().counters.written_bytes;
        let again = guarded.broker.status().counters.written_bytes;
        if written > 100_000 && written == again {
            Ok(())
        } else {
            Err(written.to_string())
        }
    });
    let mut got = 0;
    let mut piece = [0; 4096];
    while got < MESSAGES * LEN {
        let len = late.read(&mut piece).unwrap();
        assert!(len > 0, "it ended after {got} bytes");
        got += piece[..len].split(|byte| *byte == b'~').count() - 1;
    }
    assert_eq!(got, MESSAGES * LEN);
}
