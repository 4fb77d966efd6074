//! Who answers at an address, and for how long nobody did: a packet each millisecond, answered by hosts that say which
//! they are.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Netns;

const PORT: u16 = 7;
/// The time between two packets; a silence cannot be measured more exactly.
const EVERY: Duration = Duration::from_millis(1);
/// How often a thread that waits for packets looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);
/// How long the last answers are waited for.
const LAST_ANSWERS: Duration = Duration::from_millis(200);

/// A host that answers whatever comes to any of its addresses, until it is dropped.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Answers in this namespace, with this mark.
    pub fn start(host: &Netns, mark: u8) -> Self {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
        let socket = host
            .enter(|| UdpSocket::bind(any))
            .expect("the port is free");
        socket.set_read_timeout(Some(LOOK)).expect("it is not zero");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut packet = [0; 9];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut packet[..8]) else {
                    continue;
                };
                packet[len] = mark;
                // Whoever asked may be out of reach.
                socket.send_to(&packet[..=len], from).ok();
            }
        });
        let thread = Some(thread);
        Self { stop, thread }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// What a client saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The longest time without an answer, between two answers.
    pub silence: Duration,
    /// Packets that were sent.
    pub sent: u64,
    /// Packets that were answered.
    pub answered: u64,
}

/// A client that sends a packet each millisecond.
#[derive(Debug)]
pub struct Probe {
    stop: Arc<AtomicBool>,
    /// The mark of who answered last, and in the upper bits how many answers there were.
    last: Arc<AtomicU64>,
    /// When another one began to answer, in nanoseconds since the start.
    changed: Arc<AtomicU64>,
    started: Instant,
    thread: Option<JoinHandle<Seen>>,
}

impl Probe {
    /// Sends from this namespace to this address.
    pub fn start(client: &Netns, to: IpAddr) -> Self {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let socket = client
            .enter(|| UdpSocket::bind(any))
            .expect("there is a free port");
        let to = match to {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let (stop, last) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (changed, started) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let (stopped, told) = (Arc::clone(&stop), Arc::clone(&last));
        let of_client = Arc::clone(&changed);
        let thread = std::thread::spawn(move || {
            let mut client = Client {
                changed: of_client,
                started,
                mark: 0,
                socket,
                to: (to, PORT).into(),
                answers: 0,
                last: None,
                silence: Duration::ZERO,
            };
            client.run(&stopped, &told)
        });
        Self {
            stop,
            last,
            changed,
            started,
            thread: Some(thread),
        }
    }

    /// When another one than before began to answer.
    pub fn changed(&self) -> Instant {
        self.started + Duration::from_nanos(self.changed.load(Ordering::Relaxed))
    }

    /// The mark of who answered last, and how many answers there were.
    pub fn last(&self) -> (u8, u64) {
        let last = self.last.load(Ordering::Relaxed);
        let mark = u8::try_from(last & 0xff).expect("eight bits");
        (mark, last >> 8)
    }

    /// Ends it.
    pub fn end(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is ended once");
        thread.join().expect("it does not panic")
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Client {
    changed: Arc<AtomicU64>,
    started: Instant,
    mark: u8,
    socket: UdpSocket,
    to: SocketAddr,
    answers: u64,
    last: Option<Instant>,
    silence: Duration,
}

impl Client {
    fn run(&mut self, stop: &AtomicBool, told: &AtomicU64) -> Seen {
        let mut sent = 0_u64;
        let mut next = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            // While nobody holds the address there is no way to it.
            self.socket.send_to(&sent.to_be_bytes(), self.to).ok();
            sent += 1;
            next += EVERY;
            self.hear_until(next, told);
            // A client that was not run makes up for nothing.
            next = next.max(Instant::now());
        }
        self.hear_until(Instant::now() + LAST_ANSWERS, told);
        Seen {
            silence: self.silence,
            sent,
            answered: self.answers,
        }
    }

    fn hear_until(&mut self, end: Instant, told: &AtomicU64) {
        let mut answer = [0; 9];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || !comes_within(&self.socket, left) {
                return;
            }
            // Something else, or the ICMP error of an earlier packet, is no answer.
            if let Ok((9, _)) = self.socket.recv_from(&mut answer) {
                let now = Instant::now();
                if let Some(last) = self.last {
                    self.silence = self.silence.max(now - last);
                }
                self.last = Some(now);
                self.answers += 1;
                if answer[8] != self.mark {
                    self.mark = answer[8];
                    let since = now.saturating_duration_since(self.started).as_nanos();
                    let since = u64::try_from(since).unwrap_or(u64::MAX);
                    self.changed.store(since, Ordering::Relaxed);
                }
                told.store(self.answers << 8 | u64::from(answer[8]), Ordering::Relaxed);
            }
        }
    }
}

/// Whether something comes in so short a time. Not by the socket's own timeout, which counts in ticks of the kernel.
fn comes_within(socket: &UdpSocket, time: Duration) -> bool {
    let mut ready = [PollFd::new(socket, PollFlags::IN)];
    let time = Timespec::try_from(time).expect("it is short");
    poll(&mut ready, Some(&time)).is_ok_and(|count| count > 0)
}
