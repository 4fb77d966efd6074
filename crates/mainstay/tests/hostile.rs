//! Clients that want to cost much and give nothing: the gateway's memory stays within bounds that
//! are stated here, and everybody else is served meanwhile.
//!
//! The clients are in this process, the gateway in another, so that its memory is its own and the
//! limit of descriptors holds for each.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mainstay_testkit::{skip, wait_until};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

mod running;
use running::{PATIENCE, Running};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// What an idle client may cost the gateway, and the reason why idle ones are harmless.
const IDLE_LEN_MAX: u64 = 4 * KIB;

/// What a client may cost that has begun a head or a body: one buffer for what has come of it, and
/// the state of a request with its connection to an instance.
const SLOW_LEN_MAX: u64 = 16 * KIB;

/// What a stream may cost whose taker is slower than its giver: buffers on the way, not the body.
const STREAM_LEN_MAX: u64 = 256 * KIB;

/// What may be added by everything else that happens meanwhile.
const MARGIN: u64 = 4 * MIB;

/// Clients of one address; a gateway may rightly refuse more.
const PER_ADDRESS: usize = 2500;

/// How long anything takes at most that a client waits for here.
const ANSWER: Duration = Duration::from_secs(20);

/// `/large`: 1 GiB, as fast as it is taken; the file `sent` has how much that was so far.
/// `/upload`: takes nothing until there is a file `go`, then all, and answers how much it was.
const SERVER: &str = r#"
import http.server, os, threading, time
DIR = os.environ["FILES"]
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes.
    disable_nagle_algorithm = True
    def answer(self, body):
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.path != "/large":
            return self.answer(b"here\n")
        self.send_response(200)
        self.send_header("content-length", str(1 << 30))
        self.end_headers()
        piece, sent = b"x" * 65536, 0
        while sent < 1 << 30:
            self.wfile.write(piece)
            sent += len(piece)
            new = os.path.join(DIR, "sent-%d" % threading.get_ident())
            with open(new, "w") as file:
                file.write(str(sent))
            os.rename(new, os.path.join(DIR, "sent"))
    def do_POST(self):
        left, taken = int(self.headers["content-length"]), 0
        while self.path == "/upload" and not os.path.exists(os.path.join(DIR, "go")):
            time.sleep(0.01)
        while left > taken:
            piece = self.rfile.read1(min(1 << 20, left - taken))
            if not piece:
                return
            taken += len(piece)
        self.answer(str(taken).encode())
    def log_message(self, *_):
        pass
Server((os.environ["HOST"], int(os.environ["PORT"])), Answer).serve_forever()
"#;

/// A gateway with one such instance.
struct Besieged {
    running: Running,
    entry: SocketAddr,
    gateway: u32,
}

impl Besieged {
    fn start(name: &str) -> Self {
        let mut running = Running::prepare(name);
        let dir = running.dir.path().display();
        let keys = format!("http = {{ path = \"/\" }}\nenv = {{ FILES = \"{dir}\" }}");
        let account = if mainstay_testkit::is_root() {
            "user = \"root\"\n"
        } else {
            ""
        };
        let file = running.write_service(SERVER, &format!("{account}{keys}"));
        running.dev(&[file.to_str().unwrap()]);
        let entry = running.wait_until_steady().entry[0];
        let gateway = running.own_process("gateway").unwrap();
        let besieged = Self {
            running,
            entry,
            gateway,
        };
        // What is only made at first use is no cost of the siege.
        besieged.others_are_served();
        besieged
    }

    /// The gateway's memory: its proportional share.
    fn memory(&self) -> u64 {
        let path = format!("/proc/{}/smaps_rollup", self.gateway);
        let text = fs::read_to_string(path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() * KIB
    }

    /// Waits until the gateway needs no more than `allowed` on top of `before`.
    #[track_caller]
    fn settles_within(&self, before: u64, allowed: u64) {
        wait_until(ANSWER, "the gateway's memory is within its bound", || {
            self.is_within(before, allowed)
        });
    }

    fn is_within(&self, before: u64, allowed: u64) -> Result<(), String> {
        let grown = self.memory().saturating_sub(before);
        if grown <= allowed {
            println!(
                "{} KiB more of {} that are allowed",
                grown / KIB,
                allowed / KIB
            );
            return Ok(());
        }
        Err(format!(
            "{} KiB more, allowed are {}",
            grown / KIB,
            allowed / KIB
        ))
    }

    #[track_caller]
    fn others_are_served(&self) {
        for _ in 0..50 {
            let mut client = Client::connect(self.entry, 0);
            client.ask();
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.running.dir.join(name)
    }
}

/// One connection to the gateway.
struct Client(TcpStream);

impl Client {
    /// From one of loopback's many addresses, so that not all come from one.
    fn connect(entry: SocketAddr, number: usize) -> Self {
        let host = u8::try_from(2 + number / PER_ADDRESS).unwrap();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0));
        socket.bind(&from.into()).unwrap();
        socket.connect_timeout(&entry.into(), ANSWER).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(ANSWER)).unwrap();
        stream.set_write_timeout(Some(ANSWER)).unwrap();
        Self(stream)
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Asks for a small answer and reads it.
    #[track_caller]
    fn ask(&mut self) {
        self.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        self.read_until("here\n");
    }

    /// Reads until what has come ends with `end`; gives all of it.
    #[track_caller]
    fn read_until(&mut self, end: &str) -> String {
        let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
        while !text.ends_with(end.as_bytes()) {
            match self.0.read(&mut buffer).unwrap() {
                0 => panic!("closed after {}", String::from_utf8_lossy(&text)),
                read => text.extend_from_slice(&buffer[..read]),
            }
        }
        String::from_utf8(text).unwrap()
    }

    /// Sends one more byte; `Err` once the gateway has enough of it.
    fn trickle(&mut self, byte: u8) -> io::Result<()> {
        self.0.write_all(&[byte])?;
        self.0.set_nonblocking(true)?;
        let answer = self.0.read(&mut [0; 512]);
        self.0.set_nonblocking(false)?;
        match answer {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
            // A refusal, or the end.
            Ok(_) => Err(ErrorKind::ConnectionAborted.into()),
        }
    }

    fn is_open(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let nothing = self.0.peek(&mut [0]);
        nothing.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

/// As many descriptors as may be had; whether that is enough for so many clients.
fn descriptors_for(clients: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let enough = limit.maximum.is_none_or(|most| most >= clients + 1000);
    if !enough {
        skip(&format!(
            "needs {} descriptors: ulimit -H -n",
            clients + 1000
        ));
    }
    enough
}

#[test]
fn system_ten_thousand_idle_clients_cost_four_kibibytes_each() {
    const CLIENTS: usize = 10_000;
    if !descriptors_for(CLIENTS as u64) {
        return;
    }
    let besieged = Besieged::start("hostile-idle");
    let before = besieged.memory();
    let mut clients = Vec::with_capacity(CLIENTS);
    for number in 0..CLIENTS {
        let mut client = Client::connect(besieged.entry, number);
        // Half of them never ask for anything.
        if number % 2 == 0 {
            client.ask();
        }
        clients.push(client);
    }
    besieged.settles_within(before, CLIENTS as u64 * IDLE_LEN_MAX + MARGIN);
    besieged.others_are_served();
    let open = clients.iter().filter(|client| client.is_open()).count();
    assert!(open >= CLIENTS * 9 / 10, "only {open} are still connected");
}

#[test]
fn system_a_thousand_clients_of_one_byte_a_second_cost_little_and_heads_have_an_end() {
    const CLIENTS: usize = 1000;
    if !descriptors_for(CLIENTS as u64) {
        return;
    }
    let besieged = Besieged::start("hostile-slow");
    let before = besieged.memory();
    // Half of them are slow with the head, half with a body.
    let mut heads: Vec<Client> = (0..CLIENTS / 2)
        .map(|number| Client::connect(besieged.entry, number))
        .collect();
    let mut bodies: Vec<Client> = (0..CLIENTS / 2)
        .map(|number| {
            let mut client = Client::connect(besieged.entry, number);
            client.send(b"POST /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n");
            client
        })
        .collect();
    for client in &mut heads {
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\nx: ");
    }
    let began = Instant::now();
    let mut next = began;
    wait_until(
        PATIENCE,
        "clients that are slow with the head are sent away",
        || {
            if next.elapsed() > Duration::ZERO {
                next += Duration::from_secs(1);
                heads.retain_mut(|client| client.trickle(b'x').is_ok());
                for client in &mut bodies {
                    client
                        .trickle(b'x')
                        .map_err(|error| format!("a slow body was cut off: {error}"))?;
                }
                besieged.others_are_served();
                // At any moment, not only at the end.
                besieged
                    .is_within(before, CLIENTS as u64 * SLOW_LEN_MAX + MARGIN)
                    .unwrap();
            }
            if heads.is_empty() {
                Ok(())
            } else {
                Err(format!("{} are there", heads.len()))
            }
        },
    );
}

#[test]
fn system_an_upload_of_a_gibibyte_waits_at_the_client_for_a_slow_instance() {
    const LEN: u64 = 1024 * MIB;
    let besieged = Besieged::start("hostile-upload");
    let before = besieged.memory();
    let mut client = Client::connect(besieged.entry, 0);
    client.send(
        format!("POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: {LEN}\r\n\r\n").as_bytes(),
    );
    let piece = vec![b'x'; 256 * 1024];
    let mut sent = 0;
    // Fills what the kernels hold, until nothing more is taken.
    client.0.set_nonblocking(true).unwrap();
    let mut last = Instant::now();
    wait_until(ANSWER, "the upload stands still", || {
        while let Ok(taken) = client.0.write(&piece) {
            (sent, last) = (sent + taken as u64, Instant::now());
        }
        if last.elapsed() > Duration::from_secs(2) {
            Ok(())
        } else {
            Err(format!("{sent} sent"))
        }
    });
    client.0.set_nonblocking(false).unwrap();
    assert!(sent < 64 * MIB, "{sent} bytes were taken that nobody reads");
    besieged.is_within(before, STREAM_LEN_MAX + MARGIN).unwrap();
    besieged.others_are_served();
    // Slow is not broken: all of it arrives.
    fs::write(besieged.file("go"), "").unwrap();
    while sent < LEN {
        let part = piece.len().min(usize::try_from(LEN - sent).unwrap());
        client.send(&piece[..part]);
        sent += part as u64;
    }
    client.read_until(&LEN.to_string());
    besieged.settles_within(before, STREAM_LEN_MAX + MARGIN);
}

#[test]
fn system_a_client_that_never_reads_a_large_answer_costs_no_more_than_its_buffers() {
    const CLIENTS: usize = 20;
    let besieged = Besieged::start("hostile-unread");
    let before = besieged.memory();
    let clients: Vec<Client> = (0..CLIENTS)
        .map(|number| {
            let mut client = Client::connect(besieged.entry, number);
            client.send(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n");
            client
        })
        .collect();
    let progress = || fs::read_to_string(besieged.file("sent")).unwrap_or_default();
    let (mut seen, mut since) = (progress(), Instant::now());
    wait_until(PATIENCE, "the answers stand still", || {
        let now = progress();
        if now != seen || now.is_empty() {
            (seen, since) = (now, Instant::now());
        }
        if since.elapsed() > Duration::from_secs(2) {
            Ok(())
        } else {
            Err(format!("{seen} sent"))
        }
    });
    besieged
        .is_within(before, CLIENTS as u64 * STREAM_LEN_MAX + MARGIN)
        .unwrap();
    besieged.others_are_served();
    drop(clients);
    besieged.settles_within(before, STREAM_LEN_MAX + MARGIN);
}
