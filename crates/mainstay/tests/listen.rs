//! `[listen.NAME]` in a whole node: a gateway alone before servers that Mainstay did not start.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod running;

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mainstay_testkit::{program, wait_until};
use socket2::{Domain, Socket, Type};

use running::{MAINSTAY, PATIENCE, Running, processes, text};

/// Answers each line with its name. Ends with the test's process.
fn server(name: &'static str) -> SocketAddr {
    serve_lines(move |line| Some(format!("{name}: {line}")))
}

/// The same by HTTP, also over kept connections.
fn http_server(name: &'static str) -> SocketAddr {
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{name}");
    serve_lines(move |line| (line == "\r\n").then(|| answer.clone()))
}

/// Says something to each line, or nothing.
fn serve_lines(say: impl Fn(&str) -> Option<String> + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let talk = move |mut client: TcpStream| -> io::Result<()> {
        let mut lines = BufReader::new(client.try_clone()?);
        let mut line = String::new();
        while lines.read_line(&mut line)? > 0 {
            if let Some(text) = say(&line) {
                client.write_all(text.as_bytes())?;
            }
            line.clear();
        }
        Ok(())
    };
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // Checks go away without a word, and clients as they like.
            let talk = talk.clone();
            thread::spawn(move || talk(client).ok());
        }
    });
    address
}

/// An address on which nobody listens.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// A client's session.
struct Session(BufReader<TcpStream>);

impl Session {
    fn begin(front: SocketAddr, from: u8) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 2, from), 0)).into())?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        socket.connect(&front.into())?;
        Ok(Self(BufReader::new(socket.into())))
    }

    /// Which server answers.
    fn who(&mut self) -> io::Result<String> {
        self.0.get_mut().write_all(b"who\n")?;
        let mut answer = String::new();
        self.0.read_line(&mut answer)?;
        let name = answer.strip_suffix(": who\n");
        name.map(str::to_owned)
            .ok_or_else(|| io::Error::other(format!("no answer: {answer:?}")))
    }
}

/// A client that keeps its connection as long as the answers let it.
struct Keeping {
    front: SocketAddr,
    from: u8,
    kept: Option<Session>,
}

impl Keeping {
    fn new(front: SocketAddr, from: u8) -> Self {
        Self {
            front,
            from,
            kept: None,
        }
    }

    /// A POST, so that nobody sends it again for us. Which server answers.
    fn post(&mut self) -> io::Result<String> {
        let Session(mut stream) = match self.kept.take() {
            Some(kept) => kept,
            None => Session::begin(self.front, self.from)?,
        };
        stream
            .get_mut()
            .write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head)? == 0 {
                return Err(io::Error::other(format!("no answer: {head:?}")));
            }
        }
        let mut body = [0; 1];
        stream.read_exact(&mut body)?;
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(io::Error::other(head));
        }
        if !head.contains("connection: close") {
            self.kept = Some(Session(stream));
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}

fn who(front: SocketAddr) -> Result<String, String> {
    let session = Session::begin(front, 1).and_then(|mut session| session.who());
    session.map_err(|error| error.to_string())
}

/// A session at this server.
#[track_caller]
fn session_at(front: SocketAddr, server: &str) -> Session {
    wait_until(PATIENCE, "a session at the server", || {
        let mut session = Session::begin(front, 1).map_err(|error| error.to_string())?;
        match session.who() {
            Ok(found) if found == server => Ok(session),
            other => Err(format!("{other:?}")),
        }
    })
}

fn write_node(running: &Running, front: SocketAddr, keys: &str) -> PathBuf {
    let listen = format!("[listen.db]\nbind = '{front}'\nbalance = 'round-robin'\n{keys}");
    running.write_node("['gateway']", &listen)
}

#[test]
fn system_a_listener_follows_the_file_and_no_session_is_cut() {
    let mut running = Running::prepare("node-listen");
    let (a, b, c, front) = (server("a"), server("b"), server("c"), free());
    let file = write_node(&running, front, &format!("servers = ['{a}', '{b}']"));
    running.node(&file, &[]);
    let (mut at_a, mut at_b) = (session_at(front, "a"), session_at(front, "b"));
    let gateway = running.own_process("gateway");

    // One gets nothing new, one is not there any more, one is new.
    let changed = format!("servers = [{{ address = '{a}', weight = 0 }}, '{c}']");
    write_node(&running, front, &changed);
    let mut at_c = session_at(front, "c");
    for _ in 0..8 {
        assert_eq!(who(front).as_deref(), Ok("c"));
    }
    assert_eq!(at_a.who().unwrap(), "a");
    assert_eq!(at_b.who().unwrap(), "b");

    // Broken: told with its place, and nothing changes.
    write_node(&running, front, "servers = ['nowhere:1']\nwieght = 1");
    running.wait_for_output("node.toml:12:12: error[value]: listen.db.servers[0]");
    running.wait_for_output("node.toml:13:1: error[unknown_key]: listen.db.wieght");
    running.wait_for_output("what it said before stays in force");
    assert_eq!(who(front).as_deref(), Ok("c"));

    // A weight alone.
    write_node(
        &running,
        front,
        &changed.replace("weight = 0", "weight = 1"),
    );
    session_at(front, "a");
    assert_eq!(at_a.who().unwrap(), "a");
    assert_eq!(at_c.who().unwrap(), "c");
    assert_eq!(at_b.who().unwrap(), "b");

    // Without the listener nobody listens there.
    running.write_node("['gateway']", "");
    wait_until(
        PATIENCE,
        "nobody listens there",
        || match TcpStream::connect(front) {
            Err(_) => Ok(()),
            Ok(_) => Err("somebody does".to_owned()),
        },
    );
    assert_eq!(at_c.who().unwrap(), "c");
    assert_eq!(running.own_process("gateway"), gateway, "nobody restarted");
}

/// Clients that connect anew for each line, until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<thread::JoinHandle<Vec<String>>>,
    asked: Arc<AtomicU64>,
}

/// How many, each from an address of its own.
const CLIENTS: u8 = 4;

/// The time between two sessions of one client.
const PAUSE: Duration = Duration::from_millis(4);

impl Load {
    /// A new session for each turn.
    fn start(front: SocketAddr) -> Self {
        Self::of(|from| {
            move || {
                let session = Session::begin(front, from);
                session.and_then(|mut session| session.who()).map(drop)
            }
        })
    }

    /// Each of the clients does its turn again and again.
    fn of<T>(turn: impl Fn(u8) -> T) -> Self
    where
        T: FnMut() -> io::Result<()> + Send + 'static,
    {
        let (stop, asked) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let client = |from: u8| {
            let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
            let mut turn = turn(from);
            thread::spawn(move || {
                let (mut failed, mut due) = (Vec::new(), Instant::now());
                while !stop.load(Ordering::Relaxed) {
                    due += PAUSE;
                    while let Some(left) = due.checked_duration_since(Instant::now()) {
                        thread::park_timeout(left);
                    }
                    if let Err(error) = turn() {
                        failed.push(error.to_string());
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                }
                failed
            })
        };
        Self {
            clients: (2..2 + CLIENTS).map(client).collect(),
            stop,
            asked,
        }
    }

    /// How many were asked, and what failed.
    fn stop(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let failed = self.clients.into_iter().flat_map(|one| one.join().unwrap());
        let failed = failed.collect();
        (self.asked.load(Ordering::Relaxed), failed)
    }
}

#[test]
fn system_an_upgrade_costs_no_session_of_a_listener() {
    let mut running = Running::prepare("upgrade-listen");
    let (a, b, front) = (server("a"), server("b"), free());
    let file = write_node(&running, front, &format!("servers = ['{a}', '{b}']"));
    running.node(&file, &[]);
    let mut before = session_at(front, "a");
    let load = Load::start(front);
    for _ in 0..3 {
        let old = upgrade(&running);
        // At the old one, which goes on for it.
        assert_eq!(before.who().unwrap(), "a");
        assert_eq!(processes(running.state(), "gateway").len(), 2);
        before = session_at(front, "a");
        wait_until_alone(&running, &old);
        assert_eq!(before.who().unwrap(), "a");
    }
    let (asked, failed) = load.stop();
    println!("asked={asked} failed={}", failed.len());
    assert!(
        failed.is_empty(),
        "{} of {asked}: {failed:#?}",
        failed.len()
    );
    assert!(asked > 300, "{asked}");
    let log = fs::read_to_string(running.state().join("logs/gateway-2.log")).unwrap_or_default();
    assert!(!log.contains("cannot listen"), "{log}");
}

#[test]
fn system_an_upgrade_costs_no_request_of_a_listener_in_http_mode() {
    let mut running = Running::prepare("upgrade-http");
    let (a, b, front) = (http_server("a"), http_server("b"), free());
    let listen = format!("[listen.web]\nbind = '{front}'\nmode = 'http'\nservers = ['{a}', '{b}']");
    let file = running.write_node("['gateway']", &listen);
    running.node(&file, &[]);
    wait_until(
        PATIENCE,
        "each server answers requests of one connection",
        || {
            let mut client = Keeping::new(front, 1);
            let answers: Result<Vec<String>, _> = (0..50).map(|_| client.post()).collect();
            match answers {
                Ok(names)
                    if ["a", "b"]
                        .iter()
                        .all(|one| names.iter().any(|name| name == one)) =>
                {
                    Ok(())
                }
                other => Err(format!("{other:?}")),
            }
        },
    );
    let load = Load::of(|from| {
        let mut client = Keeping::new(front, from);
        move || client.post().map(drop)
    });
    for _ in 0..3 {
        let old = processes(running.state(), "gateway");
        let upgraded = running.run(&["upgrade"]);
        assert!(upgraded.status.success(), "{}", text(&upgraded));
        wait_until(PATIENCE, "the old gateway has ended", || {
            match processes(running.state(), "gateway").as_slice() {
                [one] if !old.contains(one) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
    let (asked, failed) = load.stop();
    println!("asked={asked} failed={}", failed.len());
    assert!(
        failed.is_empty(),
        "{} of {asked}: {failed:#?}",
        failed.len()
    );
    assert!(asked > 300, "{asked}");
}

/// Replaces the gateway, and gives those that ran before.
#[track_caller]
fn upgrade(running: &Running) -> Vec<u32> {
    let old = processes(running.state(), "gateway");
    let upgraded = running.run(&["upgrade"]);
    assert!(upgraded.status.success(), "{}", text(&upgraded));
    old
}

#[track_caller]
fn wait_until_alone(running: &Running, old: &[u32]) {
    wait_until(PATIENCE, "the old gateway has ended", || {
        match processes(running.state(), "gateway").as_slice() {
            [one] if !old.contains(one) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn system_without_the_hand_over_of_its_sockets_the_same_upgrade_costs_sessions() {
    let mut running = Running::prepare("upgrade-listen-off");
    let (a, b, front) = (server("a"), server("b"), free());
    let file = write_node(&running, front, &format!("servers = ['{a}', '{b}']"));
    let mut command = Command::new(MAINSTAY);
    command.args(["run", "--unsafe-gateway-seams", "listen-sockets=own"]);
    command.arg("--config").arg(&file);
    running.start(command);
    drop(session_at(front, "a"));
    let load = Load::start(front);
    let old = upgrade(&running);
    wait_until_alone(&running, &old);
    // It binds in the end: only the hand-over is off.
    session_at(front, "b");
    let (asked, failed) = load.stop();
    assert!(!failed.is_empty(), "of {asked} none failed");
}

/// What the statistics say of the first server.
fn standing(stats: SocketAddr) -> Result<String, String> {
    let url = format!("http://{stats}/stats;csv");
    let mut curl = Command::new(program("curl"));
    curl.args([
        "--silent",
        "--max-time",
        "10",
        "--user",
        "op:secret-word",
        &url,
    ]);
    let csv = text(&curl.output().unwrap());
    let line = csv
        .lines()
        .find(|line| line.starts_with("db,") && line.contains(",a,"));
    let line = line.or_else(|| csv.lines().find(|line| line.starts_with("db,a,")));
    let line = line.ok_or_else(|| csv.clone())?;
    line.split(',').nth(17).map(str::to_owned).ok_or(csv)
}

#[test]
fn system_a_drained_server_stays_drained_over_an_upgrade_a_crash_and_a_new_start() {
    let mut running = Running::prepare("listen-kept");
    let (a, b, front, stats) = (server("a"), server("b"), free(), free());
    let servers =
        format!("servers = [{{ address = '{a}', name = 'a' }}, {{ address = '{b}', name = 'b' }}]");
    let file = write_node(&running, front, &servers);
    let node = fs::read_to_string(&file).unwrap();
    let shown = format!("stats = '{stats}'\nstats_auth = 'op:secret-word'");
    fs::write(&file, node.replace("stats = 'off'", &shown)).unwrap();
    running.node(&file, &[]);
    drop(session_at(front, "a"));
    let mut curl = Command::new(program("curl"));
    curl.args(["--silent", "--max-time", "10", "--user", "op:secret-word"]);
    curl.args(["--write-out", "%{http_code}", "--data", "server=db/a"]);
    curl.args(["--data", "action=drain", "--header"]);
    curl.arg(format!("origin: http://{stats}"));
    let said = text(
        &curl
            .arg(format!("http://{stats}/stats/change"))
            .output()
            .unwrap(),
    );
    assert!(said.ends_with("303"), "{said}");
    let is_drained = |after: &str| {
        wait_until(PATIENCE, after, || match standing(stats) {
            Ok(seen) if seen == "DRAIN" => Ok(()),
            other => Err(format!("{other:?}")),
        });
        for _ in 0..6 {
            assert_eq!(who(front).as_deref(), Ok("b"), "{after}");
        }
    };
    is_drained("drained");
    let old = upgrade(&running);
    wait_until_alone(&running, &old);
    is_drained("after an upgrade");
    let old = processes(running.state(), "gateway");
    running::kill(old[0], rustix::process::Signal::KILL);
    wait_until_alone(&running, &old);
    is_drained("after a crash");
    let (ended, said) = running.stop();
    assert_eq!(ended, mainstay_testkit::Ended::Code(0), "{said}");
    running.node(&file, &[]);
    is_drained("after a new start");
}
