//! Asking at the terminal for what must not be seen.

use std::io::{self, BufRead as _};

use anyhow::Context as _;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::oneshot;

use crate::outcome::{Failure, Outcome};
use crate::output;

/// Standard input's terminal without echo, until this is dropped.
struct Quiet(Termios);

impl Quiet {
    fn new() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        // The end of the line is shown, so that the next output begins on its own.
        quiet.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // The terminal may be gone, and then there is nothing to restore.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

/// Reads one line that is not shown while it is typed. Ctrl-C ends the command with the terminal as
/// it was.
pub(crate) async fn without_echo(question: &str) -> anyhow::Result<String> {
    let quiet = Quiet::new().context("cannot switch the terminal's echo off")?;
    output::warn_part(question);
    let (sender, line) = oneshot::channel();
    // A thread of its own, which may be left behind: nothing ends a read from a terminal.
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = io::stdin().lock().read_line(&mut text);
        // Nobody waits after a Ctrl-C.
        let _ = sender.send(read.map(|_| text));
    });
    let line = tokio::select! {
        line = line => line.context("nothing could be read")?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("cannot wait for Ctrl-C")?;
            return Err(Failure::new(Outcome::WrongInput, "nothing was changed").into());
        }
    };
    drop(quiet);
    let mut text = line.context("cannot read from the terminal")?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}
