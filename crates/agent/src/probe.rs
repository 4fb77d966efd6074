//! One probe of an instance: HTTP, TCP or a program. What a result means is `control::health`'s.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use mainstay_kernel::signals::Signal;
use mainstay_kernel::{Child, Ended, Life, Place, SpawnError, Watched};
use mainstay_model::service::Check;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use crate::launch::{self, AccountError, AddressUnknown};
use crate::record::{AttemptSpec, Launch};

/// The status line is in the first few hundred bytes of an answer.
const HEAD_LEN_MAX: usize = 4096;

/// What is read of an answer after its status line, so that the instance does not meet a reset
/// connection, and the longest time for it.
const REST_LEN_MAX: u64 = 64 * 1024;
const REST_TIME_MAX: Duration = Duration::from_millis(50);

/// What is kept of a program's output: the end, where its last words are.
const OUTPUT_LEN_MAX: usize = 1024;

/// How long the end of a killed program is waited for. It takes less than a millisecond unless the
/// program sleeps in the kernel; then it stays a zombie until the agent ends.
const END_WAIT: Duration = Duration::from_millis(50);

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    #[error("cannot talk to {address}")]
    Connection {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("{address} answered with status {status}")]
    Status { address: SocketAddr, status: u16 },
    #[error("{address} does not speak HTTP/1")]
    NotHttp { address: SocketAddr },
    #[error("{program} {how}: {output}")]
    Program {
        program: String,
        how: String,
        output: String,
    },
    #[error("the probe's program cannot be started")]
    Start(#[from] SpawnError),
    #[error("the probe's program cannot be started")]
    Account(#[from] AccountError),
    #[error("the probe's program cannot be started")]
    Address(#[from] AddressUnknown),
    #[error("the probe's program cannot be watched")]
    Watch(#[source] io::Error),
}

/// How much of a failure is told to people; a program's own words may be long.
const TOLD_LEN_MAX: usize = 300;

impl Failure {
    /// With its causes, as one line.
    pub(crate) fn for_people(&self) -> String {
        let text = crate::chain(self);
        let words: Vec<&str> = text.split_whitespace().collect();
        words.join(" ").chars().take(TOLD_LEN_MAX).collect()
    }
}

/// Probes once. Dropping the future ends the probe, and a program with everything in its group.
pub(crate) async fn probe(spec: &AttemptSpec) -> Result<(), Failure> {
    let health = &spec.planned.spec.health;
    let address = spec.address;
    let attempt = async {
        match &health.check {
            Check::Http(path) => http(address, path.as_str()).await,
            Check::Tcp => connect(address).await.map(drop),
            Check::Exec(words) => {
                let program = launch::probe(words, &spec.planned, address, &spec.launch)?;
                exec(&program).await
            }
        }
    };
    let late = |_| Failure::Deadline(health.timeout);
    timeout(health.timeout, attempt).await.map_err(late)?
}

async fn connect(address: SocketAddr) -> Result<TcpStream, Failure> {
    TcpStream::connect(address)
        .await
        .map_err(|source| Failure::Connection { address, source })
}

async fn http(address: SocketAddr, path: &str) -> Result<(), Failure> {
    let broken = |source| Failure::Connection { address, source };
    let mut stream = connect(address).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: mainstay-probe\r\naccept: */*\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    let mut head = Vec::with_capacity(512);
    while !head.contains(&b'\n') {
        if head.len() >= HEAD_LEN_MAX || stream.read_buf(&mut head).await.map_err(broken)? == 0 {
            return Err(Failure::NotHttp { address });
        }
    }
    let status = status(&head).ok_or(Failure::NotHttp { address })?;
    let mut rest = stream.take(REST_LEN_MAX);
    // Only politeness: neither a slow nor a broken rest changes the verdict.
    let _ = timeout(
        REST_TIME_MAX,
        tokio::io::copy(&mut rest, &mut tokio::io::sink()),
    )
    .await;
    match status {
        200..=399 => Ok(()),
        status => Err(Failure::Status { address, status }),
    }
}

/// RFC 9112, section 4: `HTTP/1.1 200 OK`.
fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line.trim_ascii_end()).ok()?;
    let (version, rest) = line.split_once(' ')?;
    let code = rest.split(' ').next()?;
    let minor = version.strip_prefix("HTTP/1.")?;
    let legal =
        minor.len() == 1 && code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
    code.parse().ok().filter(|_| legal)
}

/// Kills the program's group and reaps it, when the probe is over or given up.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Before it is reaped: until then its number, and so the group's, is its own.
        let killed = self.0.signal_group(Signal::KILL);
        let ended = self.0.handle().wait_end(END_WAIT);
        let reaped = self.0.try_reap();
        if let Err(error) = killed.and(ended).and(reaped) {
            tracing::warn!(pid = self.0.pid(), %error, "cannot end the program of a probe");
        }
    }
}

async fn exec(program: &Launch) -> Result<(), Failure> {
    let (output, write_end) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|errno| Failure::Watch(errno.into()))?;
    let mut output = pipe::Receiver::from_owned_fd(output).map_err(Failure::Watch)?;
    let account = launch::account(program)?;
    // Its parent is the thread that runs the agent: if that dies, no probe is left.
    let child = launch::spawn(program, account)
        .output(write_end.as_fd())
        .place(Place::OwnGroup)
        .life(Life::EndsWithParent)
        .start()?;
    let running = Running(child);
    drop(write_end);
    let process = running
        .0
        .handle()
        .try_clone()
        .and_then(Watched::new)
        .map_err(Failure::Watch)?;
    let mut tail = Vec::new();
    let mut open = true;
    loop {
        tokio::select! {
            read = output.read_buf(&mut tail), if open => {
                open = read.map_err(Failure::Watch)? > 0;
                tail.drain(..tail.len().saturating_sub(OUTPUT_LEN_MAX));
            }
            ended = process.ended() => {
                ended.map_err(Failure::Watch)?;
                break;
            }
        }
    }
    while let Ok(1..) = output.try_read_buf(&mut tail) {
        tail.drain(..tail.len().saturating_sub(OUTPUT_LEN_MAX));
    }
    // What it left in its group goes before it is reaped, as in `Running::drop`.
    running
        .0
        .signal_group(Signal::KILL)
        .map_err(Failure::Watch)?;
    let how = match running.0.try_reap().map_err(Failure::Watch)? {
        Some(Ended::Code(0)) => return Ok(()),
        Some(Ended::Code(code)) => format!("exited with {code}"),
        Some(Ended::Signal(number)) => format!("was ended by signal {number}"),
        None => "vanished".to_owned(),
    };
    let output = String::from_utf8_lossy(&tail).trim().to_owned();
    Err(Failure::Program {
        program: program.program.display().to_string(),
        how,
        output,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_is_read_and_anything_else_is_not() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\nx: y"), Some(200));
        assert_eq!(status(b"HTTP/1.0 404\n"), Some(404));
        for bad in [
            "",
            "\n",
            "SSH-2.0-OpenSSH\r\n",
            "HTTP/2 200\r\n",
            "HTTP/1.1 2000 x\n",
            "HTTP/1.1 +20\n",
            "HTTP/1.1\n",
        ] {
            assert_eq!(status(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
