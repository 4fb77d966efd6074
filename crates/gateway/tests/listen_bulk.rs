//! A gibibyte through a listener: all of it, and no more memory than buffers.

#![allow(clippy::unwrap_used, reason = "tests")]

mod listening;

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::thread;

use listening::{Listening, Server, connect, draft};
use mainstay_gateway::listen::{Options, Splice};

const LEN: u64 = 1024 * 1024 * 1024;
const CHUNK: usize = 256 * 1024;

/// What this process holds in memory, in KiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Processor time of the listener's workers so far, in ticks of 10 ms.
fn worker_ticks() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let of_task = |task: io::Result<fs::DirEntry>| {
        let stat = fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
        let (head, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?;
        head.contains("(listen-").then_some(ticks)
    };
    tasks.filter_map(of_task).sum()
}

/// Each eight bytes are their own place, so that nothing can be lost, doubled or swapped unseen.
fn chunk(from: u64) -> Vec<u8> {
    (from..from + CHUNK as u64)
        .step_by(8)
        .flat_map(u64::to_le_bytes)
        .collect()
}

#[test]
fn system_a_gibibyte_passes_unchanged_in_bounded_memory_spliced_and_copied() {
    let server = Server::start(|stream| {
        for from in (0..LEN).step_by(CHUNK) {
            stream.write_all(&chunk(from))?;
        }
        stream.shutdown(Shutdown::Write)?;
        let mut sum = 0u64;
        let mut bytes = vec![0; CHUNK];
        loop {
            let len = stream.read(&mut bytes)?;
            if len == 0 {
                return Ok(());
            }
            sum += len as u64;
            assert!(sum <= LEN);
        }
    });
    for splice in [Splice::On, Splice::Off] {
        let options = Options {
            splice,
            ..Options::default()
        };
        let listening = Listening::with(options, 1, draft(&[server.address]));
        let (before, ticks) = (resident(), worker_ticks());
        let mut client = connect(listening.front);
        let mut sends = client.try_clone().unwrap();
        // At the same time the other way, so that both directions are large.
        let upload = thread::spawn(move || {
            let bytes = vec![7; CHUNK];
            for _ in 0..LEN / 4 / CHUNK as u64 {
                sends.write_all(&bytes).unwrap();
            }
            sends.shutdown(Shutdown::Write).unwrap();
        });
        let mut most = before;
        let mut bytes = vec![0; CHUNK];
        for from in (0..LEN).step_by(CHUNK) {
            client.read_exact(&mut bytes).unwrap();
            assert!(bytes == chunk(from), "{splice:?}: changed after {from}");
            most = most.max(resident());
        }
        assert_eq!(client.read(&mut bytes).unwrap(), 0);
        upload.join().unwrap();
        listening.wait("the session has ended", |listen| listen.sessions == 0);
        let listen = listening.snapshot();
        assert_eq!((listen.bytes_out, listen.bytes_in), (LEN, LEN / 4));
        // Of 64 MiB most is what client and server of this process use themselves.
        assert!(
            most - before < 64 * 1024,
            "{splice:?}: {} KiB more",
            most - before
        );
        let used = worker_ticks() - ticks;
        eprintln!(
            "{splice:?}: {used} ticks of the worker, {} KiB more memory",
            most - before
        );
    }
}
