//! Who asks: a unix socket in the state directory, one line each way, then the end.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use mainstay_ids::Instant;

use crate::host::Host;
use crate::view::Answer;

/// The socket, in the state directory.
pub const SOCKET: &str = "vip.sock";

/// Callers at once: people and a script. More are hung up on.
const CALLERS_MAX: usize = 4;
/// Callers that are taken in in one turn: packets come first.
const ACCEPTS_MAX: usize = 16;
/// The longest line: a word and a name.
const LINE_LEN_MAX: usize = 128;
/// How long a caller may take to say its line.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    /// How things are.
    Show,
    /// What is counted.
    Metrics,
    /// The address of this name is to go elsewhere.
    Move(String),
}

impl Call {
    fn parse(line: &str) -> Result<Self, String> {
        match line.split_once(' ') {
            None if line == "show" => Ok(Self::Show),
            None if line == "metrics" => Ok(Self::Metrics),
            Some(("move", name)) => Ok(Self::Move(name.to_owned())),
            _ => Err("the call is none of `show`, `metrics` and `move NAME`".to_owned()),
        }
    }
}

#[derive(Debug)]
struct Caller {
    stream: UnixStream,
    line: Vec<u8>,
    until: Instant,
}

/// The socket, and who is connected to it.
#[derive(Debug)]
pub(crate) struct Calls {
    listener: UnixListener,
    path: PathBuf,
    callers: Vec<Caller>,
}

impl Calls {
    /// Listens in the state directory, for its owner alone. What an earlier process left there is replaced.
    pub(crate) fn listen(state: &Path, host: &Host) -> io::Result<Self> {
        let path = state.join(SOCKET);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        host.watch(&listener)?;
        Ok(Self {
            listener,
            path,
            callers: Vec::with_capacity(CALLERS_MAX),
        })
    }

    /// Answers those whose line is there. Nobody is waited for.
    pub(crate) fn turn(&mut self, host: &Host, mut answer: impl FnMut(Call) -> Answer) {
        let now = host.now();
        self.accept(host, now);
        self.callers.retain_mut(|caller| {
            let said = match caller.read() {
                Said::Nothing => return caller.until > now,
                Said::Enough => Call::parse(&String::from_utf8_lossy(&caller.line)),
                Said::TooMuch => Err(format!("the call has more than {LINE_LEN_MAX} bytes")),
                Said::Gone => return false,
            };
            caller.say(&said.map_or_else(Answer::Refused, &mut answer));
            false
        });
    }

    /// Takes in who waits. Nobody may go on waiting in the queue, which would wake us without end: one too many is hung
    /// up on.
    fn accept(&mut self, host: &Host, now: Instant) {
        for _ in 0..ACCEPTS_MAX {
            let Ok((stream, _)) = self.listener.accept() else {
                return;
            };
            let full = self.callers.len() == CALLERS_MAX;
            if full || stream.set_nonblocking(true).is_err() || host.watch(&stream).is_err() {
                continue;
            }
            self.callers.push(Caller {
                stream,
                line: Vec::with_capacity(LINE_LEN_MAX),
                until: now.after(PATIENCE),
            });
        }
    }

    pub(crate) fn next_deadline(&self) -> Instant {
        let deadlines = self.callers.iter().map(|caller| caller.until);
        deadlines.min().unwrap_or(Instant::NEVER)
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        // Nobody listens there any more; a leftover would only be a worse message for the next caller.
        fs::remove_file(&self.path).ok();
    }
}

/// What a caller has said so far.
enum Said {
    Nothing,
    Enough,
    TooMuch,
    Gone,
}

impl Caller {
    fn read(&mut self) -> Said {
        let mut room = [0; LINE_LEN_MAX];
        match self.stream.read(&mut room) {
            Ok(0) => Said::Gone,
            Ok(len) => {
                self.line.extend_from_slice(&room[..len]);
                if let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
                    self.line.truncate(end);
                    return Said::Enough;
                }
                if self.line.len() > LINE_LEN_MAX {
                    return Said::TooMuch;
                }
                Said::Nothing
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => Said::Nothing,
                _ => Said::Gone,
            },
        }
    }

    /// Whoever does not read what fits into its socket gets a part of it, and no more is kept for it.
    fn say(&mut self, answer: &Answer) {
        let text = match answer {
            Answer::Metrics(text) => Ok(text.clone()),
            Answer::Shown(_) | Answer::Moving | Answer::Refused(_) => {
                serde_json::to_string(answer).map(|text| text + "\n")
            }
        };
        let Ok(text) = text else { return };
        self.stream.write_all(text.as_bytes()).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_a_word_and_perhaps_a_name() {
        assert_eq!(Call::parse("show"), Ok(Call::Show));
        assert_eq!(Call::parse("metrics"), Ok(Call::Metrics));
        assert_eq!(
            Call::parse("move entry"),
            Ok(Call::Move("entry".to_owned()))
        );
        for line in ["", "move", "shows", "show all", "stop entry"] {
            assert!(Call::parse(line).is_err(), "{line}");
        }
    }
}
