//! Leaving an address: what came in there is finished, and nothing new is begun, so that the address can go to another
//! machine without a request that fails. Whoever holds the address asks for it over a unix socket, and gives it up
//! by hanging up.
//!
//! ```text
//!   finish   who is connected is told with the next answer (Connection: close, GOAWAY); new ones get one answer each
//!   shut     no new connection comes about: their first packets are dropped, and sent again, a second later, to whoever
//!            has the address then
//!   empty    the requests that are left are answered
//!   cut      what is no request (WebSocket, sessions), and had its time above, ends
//! ```

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::connection::Client;

/// What a caller may say: the addresses of 64 virtual routers, of twenty each.
const LINE_LEN_MAX: u64 = 64 * 1024;
/// How long a caller may take to say it. It is a process of this machine that has nothing else to do.
const CALL_TIME: Duration = Duration::from_secs(1);
/// How long handshakes may take that had begun when the door was shut: a round trip over half the world. Connections of
/// which the last packet comes later are lost.
const HANDSHAKES_MAX: Duration = Duration::from_millis(200);
/// How often it is looked whether there are any: the kernel lists all sockets for that.
const HANDSHAKES_LOOK: Duration = Duration::from_millis(5);
/// How long the door is shut at most. A client sends its first packet again after one second, and after three.
const SHUT_MAX: Duration = Duration::from_millis(2900);
/// How long the ends of those that are cut may take.
const CUT_TIME: Duration = Duration::from_millis(500);
/// How long the door stays shut when all have gone, until the address goes: longer than anybody offers one. Who asked
/// and was frozen then must not shut a gateway for ever.
const HELD_MAX: Duration = Duration::from_secs(20);
/// Reports of one worker: one for each step, and the next leave begins when the one before is over. Full: it says it again.
const REPORTS_PER_WORKER: usize = 4;

/// What is wanted at an address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Wish {
    /// Clients.
    #[default]
    Stay,
    /// That they go.
    Leave(Leave),
}

/// That clients of some addresses go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leave {
    pub(crate) number: u64,
    pub(crate) step: Step,
    pub(crate) addresses: Arc<[IpAddr]>,
}

impl Leave {
    /// Whether it is about connections to this one.
    pub(crate) fn concerns(&self, local: IpAddr) -> bool {
        self.addresses.contains(&local)
    }
}

/// How far they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Finish,
    Shut,
    Empty,
    Cut,
}

/// A worker's word that it is through with a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    number: u64,
    step: Step,
    cut: usize,
}

/// A session of a listener, as whoever leaves its address sees it.
#[derive(Debug)]
pub(crate) struct Guest {
    /// To which address it came.
    pub(crate) local: IpAddr,
    pub(crate) cut: CancellationToken,
    pub(crate) place: Cell<usize>,
}

/// A leave in one worker.
#[derive(Debug)]
pub(crate) struct Leaving {
    pub(crate) leave: Leave,
    /// Those who were there when it began.
    pub(crate) elders: Vec<Weak<Client>>,
    pub(crate) elder_guests: Vec<Weak<Guest>>,
    pub(crate) cut: usize,
    reported: Option<Step>,
}

impl Leaving {
    pub(crate) fn new(leave: Leave) -> Self {
        Self {
            leave,
            elders: Vec::new(),
            elder_guests: Vec::new(),
            cut: 0,
            reported: None,
        }
    }

    /// Whether all have gone who were there at the begin. Looks from the end, so that each is looked at a few times.
    pub(crate) fn elders_have_gone(&mut self) -> bool {
        forget_gone(&mut self.elders) && forget_gone(&mut self.elder_guests)
    }

    /// Says once that this step is done.
    pub(crate) fn report(&mut self, to: &mpsc::Sender<Report>) {
        let step = self.leave.step;
        if self.reported == Some(step) {
            return;
        }
        let report = Report {
            number: self.leave.number,
            step,
            cut: self.cut,
        };
        if to.try_send(report).is_ok() {
            self.reported = Some(step);
        }
    }
}

fn forget_gone<T>(known: &mut Vec<Weak<T>>) -> bool {
    while known.last().is_some_and(|last| last.strong_count() == 0) {
        known.pop();
    }
    known.is_empty()
}

/// A worker's ends.
#[derive(Debug, Clone)]
pub(crate) struct Ears {
    pub(crate) wishes: watch::Receiver<Wish>,
    pub(crate) reports: mpsc::Sender<Report>,
}

/// A guest in a worker's list, until this is dropped.
pub(crate) type GuestList = std::cell::RefCell<Vec<Rc<Guest>>>;

#[derive(Debug, Deserialize)]
struct Call {
    leave: Vec<IpAddr>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// It has begun, and takes so long at most.
    WithinMs(u64),
    /// Nobody is left; so many were cut.
    Left { cut: usize },
}

/// Who is asked.
#[derive(Debug)]
pub(crate) struct Desk {
    wishes: watch::Sender<Wish>,
    reports: mpsc::Receiver<Report>,
    workers: usize,
    drain: Duration,
    number: u64,
}

impl Desk {
    /// For so many workers, who take `drain` at most for what they have.
    pub(crate) fn new(workers: usize, drain: Duration) -> (Self, Ears) {
        let (wishes, wish) = watch::channel(Wish::Stay);
        let (reports_to, reports) = mpsc::channel(REPORTS_PER_WORKER * workers);
        let desk = Self {
            wishes,
            reports,
            workers,
            drain,
            number: 0,
        };
        let ears = Ears {
            wishes: wish,
            reports: reports_to,
        };
        (desk, ears)
    }

    /// Answers at `path`, one caller after the other, until it is dropped.
    pub(crate) async fn run(mut self, path: PathBuf) {
        let listener = match listen(&path) {
            Ok(listener) => listener,
            Err(error) => {
                let path = path.display();
                tracing::warn!(%error, %path, "addresses that leave this machine take along what is under way");
                return;
            }
        };
        loop {
            match listener.accept().await {
                Ok((caller, _)) => {
                    if let Err(error) = self.serve(caller).await {
                        tracing::warn!(%error, "who asked this gateway to leave an address went away");
                    }
                    self.wishes.send_replace(Wish::Stay);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept who asks to leave an address");
                    sleep(CALL_TIME).await;
                }
            }
        }
    }

    async fn serve(&mut self, caller: UnixStream) -> io::Result<()> {
        let (reader, mut writer) = caller.into_split();
        let mut reader = BufReader::new(reader);
        let mut line = String::new();
        let mut limited = (&mut reader).take(LINE_LEN_MAX);
        timeout(CALL_TIME, limited.read_line(&mut line)).await??;
        let call: Call = serde_json::from_str(&line)?;
        let within = self.drain + SHUT_MAX + CUT_TIME;
        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        say(&mut writer, &Answer::WithinMs(within_ms)).await?;
        tracing::info!(addresses = ?call.leave, "leaving: what is under way is finished first");
        let addresses = call.leave.into();
        let cut = tokio::select! {
            cut = self.leave(addresses) => cut,
            () = hangup(&mut reader) => return Err(io::ErrorKind::UnexpectedEof.into()),
        };
        tracing::info!(cut, "left: nothing is under way any more");
        say(&mut writer, &Answer::Left { cut }).await?;
        timeout(HELD_MAX, hangup(&mut reader)).await.ok();
        Ok(())
    }

    /// Has everybody leave; how many were cut.
    async fn leave(&mut self, addresses: Arc<[IpAddr]>) -> usize {
        self.number += 1;
        let mut leave = Leave {
            number: self.number,
            step: Step::Finish,
            addresses,
        };
        self.order(&leave);
        // Whoever is not through goes on to the next step with the others.
        timeout(self.drain, self.reported(&leave)).await.ok();
        leave.step = Step::Shut;
        self.order(&leave);
        timeout(HANDSHAKES_MAX, handshakes_end(&leave.addresses))
            .await
            .ok();
        leave.step = Step::Empty;
        self.order(&leave);
        let rest = SHUT_MAX.saturating_sub(HANDSHAKES_MAX);
        timeout(rest, self.reported(&leave)).await.ok();
        leave.step = Step::Cut;
        self.order(&leave);
        timeout(CUT_TIME, self.reported(&leave)).await.unwrap_or(0)
    }

    fn order(&self, leave: &Leave) {
        self.wishes.send_replace(Wish::Leave(leave.clone()));
    }

    /// Waits for the word of each worker; the sum of what they cut.
    async fn reported(&mut self, leave: &Leave) -> usize {
        let (mut left, mut cut) = (self.workers, 0);
        while left > 0 {
            let Some(report) = self.reports.recv().await else {
                return cut;
            };
            if report.number == leave.number && report.step == leave.step {
                left -= 1;
                cut += report.cut;
            }
        }
        cut
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn say(to: &mut (impl tokio::io::AsyncWrite + Unpin), answer: &Answer) -> io::Result<()> {
    let mut text = serde_json::to_vec(answer)?;
    text.push(b'\n');
    to.write_all(&text).await
}

/// Waits until no handshake with one of these addresses is under way.
async fn handshakes_end(addresses: &[IpAddr]) {
    loop {
        // Who is accepted then is in a worker's list after its next turn, and is looked for there.
        sleep(HANDSHAKES_LOOK).await;
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
        let under_way = tables.iter().any(|table| {
            let listed = std::fs::read_to_string(table).unwrap_or_default();
            is_under_way(&listed, addresses)
        });
        if !under_way {
            return;
        }
    }
}

/// Whether such a table (`proc_net_tcp(5)`) has a handshake with one of these.
fn is_under_way(table: &str, addresses: &[IpAddr]) -> bool {
    const SYN_RECV: &str = "03";
    let written: Vec<String> = addresses
        .iter()
        .map(|address| as_listed(*address))
        .collect();
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = fields.next().and_then(|local| local.split_once(':'));
        fields.nth(1) == Some(SYN_RECV)
            && local.is_some_and(|(ip, _)| written.iter().any(|written| written == ip))
    })
}

/// As the kernel prints addresses: words of four bytes, each as one number of the machine.
fn as_listed(address: IpAddr) -> String {
    let word = |bytes: &[u8; 4]| format!("{:08X}", u32::from_ne_bytes(*bytes));
    match address {
        IpAddr::V4(address) => word(&address.octets()),
        IpAddr::V6(address) => address
            .octets()
            .as_chunks::<4>()
            .0
            .iter()
            .map(word)
            .collect(),
    }
}

/// Waits until the caller has gone.
async fn hangup(reader: &mut BufReader<OwnedReadHalf>) {
    let mut byte = [0];
    while reader.read(&mut byte).await.is_ok_and(|len| len > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_with_an_address_is_found_among_all_sockets() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n   \
                     0: 00000000:1F90 00000000:0000 0A 00000000:00000000\n   \
                     1: 6400580A:1F90 0300580A:D2A4 01 00000000:00000000\n   \
                     2: 0100580A:1F90 0300580A:D2A6 03 00000000:00000000\n";
        let found = |address: [u8; 4]| is_under_way(table, &[address.into()]);
        assert!(found([10, 88, 0, 1]));
        assert!(!found([10, 88, 0, 100]), "that one is a connection");
        assert_eq!(
            as_listed("::1".parse().unwrap()),
            "00000000000000000000000001000000"
        );
    }
}
