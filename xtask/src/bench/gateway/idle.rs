//! What an idle connection costs in memory: 5,000 clients that asked once and stay.
//!
//! Each round has processes of its own: what a process freed and kept from the round before would make the next one's
//! connections look free. Memory is that of the proxy's process; the kernel's sockets are not in it, on either side.

use super::{
    CONFIG,
    side::{Features, OURS, Side},
};
use crate::bench::frame::{Run, median, short};
use anyhow::{Context as _, Result, bail, ensure};
use mainstay_testkit::TempDir;
use serde_json::{Value, json};
use std::{net::SocketAddr, path::Path, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

const CONNECTIONS: usize = 5000;
/// So many are opened at a time, as by clients that come one after another.
const AT_ONCE: usize = 50;
/// How long nothing happens before memory is looked at: long after either has seen that a connection is idle.
const SETTLE: Duration = Duration::from_secs(2);
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
const BYTES_MAX: f64 = 4096.0;

pub(super) struct Round {
    side: &'static str,
    before_kib: u64,
    after_kib: u64,
}

pub(super) async fn measure(run: &Run, mainstay: &Path, dir: &TempDir) -> Result<Vec<Round>> {
    let mut rounds = Vec::new();
    for number in 1..=run.extent.rounds() {
        let ours = Side::ours(mainstay, Features::On).await?;
        rounds.push(round(&ours, dir).await?);
        drop(ours);
        let theirs = Side::theirs("haproxy", CONFIG)?;
        rounds.push(round(&theirs, dir).await?);
        for round in rounds.iter().rev().take(2).rev() {
            run.say(format!("idle {number}: {}", round.line()));
        }
    }
    Ok(rounds)
}

async fn round(side: &Side, dir: &TempDir) -> Result<Round> {
    side.warm_up(dir).await?;
    sleep(SETTLE).await;
    let before_kib = side.pss_kib()?;
    let mut connections = Vec::with_capacity(CONNECTIONS);
    while connections.len() < CONNECTIONS {
        let mut opening = JoinSet::new();
        for _ in 0..AT_ONCE {
            opening.spawn(ask_once(side.entry()));
        }
        for opened in opening.join_all().await {
            connections.push(opened?);
        }
    }
    sleep(SETTLE).await;
    let after_kib = side.pss_kib()?;
    for connection in &connections {
        ensure!(
            is_open(connection),
            "{} closed an idle connection",
            side.name
        );
    }
    Ok(Round {
        side: side.name,
        before_kib,
        after_kib,
    })
}

/// Opens a connection, asks once, and reads the whole answer.
async fn ask_once(entry: SocketAddr) -> Result<TcpStream> {
    let exchange = async {
        let mut stream = TcpStream::connect(entry).await?;
        let request = format!("GET / HTTP/1.1\r\nhost: {entry}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let (mut answer, mut buffer) = (Vec::new(), [0; 2048]);
        while !is_whole(&answer) {
            match stream.read(&mut buffer).await? {
                0 => bail!("closed before the whole answer had come"),
                read => answer.extend_from_slice(&buffer[..read]),
            }
        }
        ensure!(answer.starts_with(b"HTTP/1.1 200"), "it was refused");
        Ok(stream)
    };
    timeout(ANSWER_DEADLINE, exchange)
        .await
        .context("no answer")?
        .context("a client that would stay was not served")
}

/// Whether the head and the body are there; its length stands in the head.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let len = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    answer.len() >= end + 4 + len.unwrap_or(0_usize)
}

fn is_open(connection: &TcpStream) -> bool {
    let nothing = connection.try_read(&mut [0]);
    nothing.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

impl Round {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    fn bytes(&self) -> f64 {
        let grown = self.after_kib as f64 - self.before_kib as f64;
        grown * 1024.0 / CONNECTIONS as f64
    }

    fn line(&self) -> String {
        format!(
            "{:8}  {} bytes per idle connection ({} to {} KiB)",
            self.side,
            short(self.bytes().round()),
            self.before_kib,
            self.after_kib
        )
    }

    fn raw(&self) -> Value {
        json!({"side": self.side, "before_kib": self.before_kib, "after_kib": self.after_kib})
    }
}

pub(super) fn conclude(run: &mut Run, rounds: &[Round]) {
    let bytes = |side: &'static str| {
        let of = rounds.iter().filter(|round| round.side == side);
        median(of.map(Round::bytes))
    };
    run.at_most("idle_conn_bytes", bytes(OURS), BYTES_MAX);
    run.value("idle_conn_bytes_haproxy", bytes("haproxy"));
    run.raw("idle", rounds.iter().map(Round::raw).collect());
}
